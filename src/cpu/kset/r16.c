/* r16.c - packing 16 rows together and taking them apart again (the layout is told in
 * cpu/packing.h).
 *
 * Plain C: with all threads at it, packing waits for the page cache. */
#include "cpu/kset/r16.h"

#include <string.h>

enum { ROWS = TS_R16_ROWS, MAX_BLOCK = 256 }; /* bytes, more than the largest source block */

const ts_packing ts_r16_packing[TS_TYPE_COUNT] = {
    [TS_TYPE_Q4_0] = {ROWS, 32, 18, {{0, TS_PACK_HALF, 1}, {2, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_Q4_1] = {ROWS,
                      32,
                      20,
                      {{0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1}, {4, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_Q5_0] = {ROWS,
                      32,
                      22,
                      {{0, TS_PACK_HALF, 1}, {2, TS_PACK_BITS, 1}, {6, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_Q5_1] = {ROWS,
                      32,
                      24,
                      {{0, TS_PACK_HALF, 1},
                       {2, TS_PACK_HALF, 1},
                       {4, TS_PACK_BITS, 1},
                       {8, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_Q8_0] = {ROWS, 32, 34, {{0, TS_PACK_HALF, 1}, {2, TS_PACK_PAIRS, 1}}},
    [TS_TYPE_IQ4_NL] = {ROWS, 32, 18, {{0, TS_PACK_HALF, 1}, {2, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_MXFP4] = {ROWS, 32, 17, {{0, TS_PACK_BYTE, 1}, {1, TS_PACK_NIBBLES, 1}}},
    [TS_TYPE_Q2_K] = {ROWS,
                      256,
                      84,
                      {{80, TS_PACK_HALF, 1},
                       {82, TS_PACK_HALF, 1},
                       {0, TS_PACK_DWORD, 4},
                       {16, TS_PACK_PAIRS, 2}}},
    [TS_TYPE_Q3_K] = {ROWS,
                      256,
                      110,
                      {{108, TS_PACK_HALF, 1},
                       {96, TS_PACK_DWORD, 3},
                       {0, TS_PACK_PAIRS, 1},
                       {32, TS_PACK_PAIRS, 2}}},
    [TS_TYPE_Q4_K] = {ROWS,
                      256,
                      144,
                      {{0, TS_PACK_HALF, 1},
                       {2, TS_PACK_HALF, 1},
                       {4, TS_PACK_DWORD, 3},
                       {16, TS_PACK_PAIRS, 4}}},
    [TS_TYPE_Q5_K] = {ROWS,
                      256,
                      176,
                      {{0, TS_PACK_HALF, 1},
                       {2, TS_PACK_HALF, 1},
                       {4, TS_PACK_DWORD, 3},
                       {16, TS_PACK_PAIRS, 1},
                       {48, TS_PACK_PAIRS, 4}}},
    [TS_TYPE_Q6_K] = {ROWS,
                      256,
                      210,
                      {{208, TS_PACK_HALF, 1},
                       {192, TS_PACK_DWORD, 4},
                       {128, TS_PACK_PAIRS, 2},
                       {0, TS_PACK_PAIRS, 4}}},
    [TS_TYPE_IQ4_XS] = {ROWS,
                        256,
                        136,
                        {{0, TS_PACK_HALF, 1},
                         {2, TS_PACK_HALF, 1},
                         {4, TS_PACK_DWORD, 1},
                         {8, TS_PACK_NIBBLES, 8}}},
    [TS_TYPE_F16] = {ROWS, 32, 64, {{0, TS_PACK_FLOATS, 1}}},
    [TS_TYPE_BF16] = {ROWS, 32, 64, {{0, TS_PACK_FLOATS, 1}}},
};

/* Where row r's units of `bytes` stand among those of 16 rows, by pairs. */
static int by_pairs(int r, int bytes)
{
    int pair = r % 4 * 2 + r / 8, second = r / 4 % 2;
    return (2 * pair + second) * bytes;
}

/* a, c: 16 bytes of two rows. to: 32 bytes, element i of a in the low nibble of byte i, of c in the
 * high one. */
static void join_nibbles(uint8_t *to, const uint8_t *a, const uint8_t *c)
{
    for (int i = 0; i < 16; i++) {
        to[i] = (uint8_t)((a[i] & 15) | c[i] << 4);
        to[16 + i] = (uint8_t)(a[i] >> 4 | (c[i] & 0xf0));
    }
}

static void part_nibbles(uint8_t *a, uint8_t *c, const uint8_t *from)
{
    for (int i = 0; i < 16; i++) {
        a[i] = (uint8_t)((from[i] & 15) | from[16 + i] << 4);
        c[i] = (uint8_t)(from[i] >> 4 | (from[16 + i] & 0xf0));
    }
}

/* One unit of 16 rows: src[r] + at <-> dst. */
static void pack_unit(int kind, uint8_t *dst, const uint8_t *const row[ROWS], size_t at)
{
    switch (kind) {
    case TS_PACK_BYTE:
        for (int r = 0; r < ROWS; r++)
            dst[r] = row[r][at];
        break;
    case TS_PACK_HALF:
        for (int r = 0; r < ROWS; r++)
            memcpy(dst + 2 * r, row[r] + at, 2);
        break;
    case TS_PACK_DWORD:
        for (int r = 0; r < ROWS; r++)
            memcpy(dst + 4 * r, row[r] + at, 4);
        break;
    case TS_PACK_BITS:
        for (int r = 0; r < ROWS; r++)
            memcpy(dst + by_pairs(r, 4), row[r] + at, 4);
        break;
    case TS_PACK_PAIRS:
        for (int r = 0; r < ROWS; r++)
            memcpy(dst + by_pairs(r, 32), row[r] + at, 32);
        break;
    case TS_PACK_NIBBLES:
        for (int r = 0; r < 8; r++)
            join_nibbles(dst + 64 * (r % 4) + 32 * (r / 4), row[r] + at, row[r + 8] + at);
        break;
    }
}

static void unpack_unit(int kind, uint8_t *const row[ROWS], size_t at, const uint8_t *src)
{
    switch (kind) {
    case TS_PACK_BYTE:
        for (int r = 0; r < ROWS; r++)
            row[r][at] = src[r];
        break;
    case TS_PACK_HALF:
        for (int r = 0; r < ROWS; r++)
            memcpy(row[r] + at, src + 2 * r, 2);
        break;
    case TS_PACK_DWORD:
        for (int r = 0; r < ROWS; r++)
            memcpy(row[r] + at, src + 4 * r, 4);
        break;
    case TS_PACK_BITS:
        for (int r = 0; r < ROWS; r++)
            memcpy(row[r] + at, src + by_pairs(r, 4), 4);
        break;
    case TS_PACK_PAIRS:
        for (int r = 0; r < ROWS; r++)
            memcpy(row[r] + at, src + by_pairs(r, 32), 32);
        break;
    case TS_PACK_NIBBLES:
        for (int r = 0; r < 8; r++)
            part_nibbles(row[r] + at, row[r + 8] + at, src + 64 * (r % 4) + 32 * (r / 4));
        break;
    }
}

static void pack_block(const ts_packing *l, uint8_t *dst, const uint8_t *const row[ROWS])
{
    for (const ts_pack_field *f = l->field; f < l->field + TS_PACK_FIELDS && f->count; f++)
        for (int i = 0; i < f->count; i++, dst += ROWS * ts_pack_unit(f->kind))
            pack_unit(f->kind, dst, row, f->at + (size_t)(i * ts_pack_unit(f->kind)));
}

static void unpack_block(const ts_packing *l, uint8_t *const row[ROWS], const uint8_t *src)
{
    for (const ts_pack_field *f = l->field; f < l->field + TS_PACK_FIELDS && f->count; f++)
        for (int i = 0; i < f->count; i++, src += ROWS * ts_pack_unit(f->kind))
            unpack_unit(f->kind, row, f->at + (size_t)(i * ts_pack_unit(f->kind)), src);
}

/* --- 16-bit floats ---------------------------------------------------------------- */

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Where element i of 32 stands in a row's 16 dwords. */
static int place(int i)
{
    return 2 * (i / 4 + 8 * (i % 2)) + i % 4 / 2;
}

static void pack_halves(uint16_t *dst, const uint16_t *src, int64_t n, int64_t k, int64_t n0,
                        int64_t n1)
{
    int64_t kp = padded(k, 32);
    for (int64_t g = n0; g < n1; g += ROWS)
        for (int64_t r = 0; r < ROWS; r++) {
            uint16_t *to = dst + g * kp + 2 * r;
            for (int64_t b = 0; b < kp; b += 32, to += 32 * ROWS)
                for (int i = 0; i < 32; i++) {
                    int p = place(i);
                    to[p / 2 * 2 * ROWS + p % 2] =
                        g + r < n && b + i < k ? src[(g + r) * k + b + i] : 0;
                }
        }
}

static void unpack_halves(uint16_t *dst, const uint16_t *src, int64_t n, int64_t k, int64_t n0,
                          int64_t n1)
{
    int64_t kp = padded(k, 32);
    for (int64_t r = n0; r < n1 && r < n; r++)
        for (int64_t i = 0; i < k; i++) {
            int p = place((int)(i % 32));
            const uint16_t *from = src + r / ROWS * ROWS * kp + i / 32 * 32 * ROWS;
            dst[r * k + i] = from[(p / 2 * ROWS + r % ROWS) * 2 + p % 2];
        }
}

/* ----------------------------------------------------------------------------------- */

static bool is_float(ts_type type)
{
    return ts_r16_packing[type].field[0].kind == TS_PACK_FLOATS;
}

size_t ts_r16_bytes(ts_type type, int64_t n, int64_t k)
{
    const ts_packing *l = &ts_r16_packing[type];
    if (is_float(type))
        return (size_t)padded(n, ROWS) * (size_t)padded(k, 32) * 2;
    return (size_t)padded(n, ROWS) * (size_t)(k / l->block) * (size_t)l->bytes;
}

void ts_r16_pack(ts_type type, void *packed, const void *src, int64_t n, int64_t k, int64_t n0,
                 int64_t n1)
{
    static const uint8_t zeros[MAX_BLOCK];
    const ts_packing *l = &ts_r16_packing[type];
    if (is_float(type)) {
        pack_halves(packed, src, n, k, n0, n1);
        return;
    }
    size_t row_bytes = (size_t)(k / l->block) * (size_t)l->bytes;
    for (int64_t g = n0; g < n1; g += ROWS) {
        const uint8_t *row[ROWS];
        for (int r = 0; r < ROWS; r++)
            row[r] = g + r < n ? (const uint8_t *)src + (size_t)(g + r) * row_bytes : zeros;
        uint8_t *dst = (uint8_t *)packed + (size_t)g * row_bytes;
        for (int64_t i = 0; i < k; i += l->block, dst += ROWS * l->bytes) {
            pack_block(l, dst, row);
            for (int r = 0; r < ROWS && g + r < n; r++)
                row[r] += l->bytes;
        }
    }
}

void ts_r16_unpack(ts_type type, void *src, const void *packed, int64_t n, int64_t k, int64_t n0,
                   int64_t n1)
{
    uint8_t beyond[MAX_BLOCK]; /* rows past n */
    const ts_packing *l = &ts_r16_packing[type];
    if (is_float(type)) {
        unpack_halves(src, packed, n, k, n0, n1);
        return;
    }
    size_t row_bytes = (size_t)(k / l->block) * (size_t)l->bytes;
    for (int64_t g = n0; g < n1; g += ROWS) {
        uint8_t *row[ROWS];
        for (int r = 0; r < ROWS; r++)
            row[r] = g + r < n ? (uint8_t *)src + (size_t)(g + r) * row_bytes : beyond;
        const uint8_t *from = (const uint8_t *)packed + (size_t)g * row_bytes;
        for (int64_t i = 0; i < k; i += l->block, from += ROWS * l->bytes) {
            unpack_block(l, row, from);
            for (int r = 0; r < ROWS && g + r < n; r++)
                row[r] += l->bytes;
        }
    }
}

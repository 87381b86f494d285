/* r16.c - packing 16 rows together and taking them apart again (the layout is told in r16.h).
 *
 * Plain C: with all threads at it, packing waits for the page cache. */
#include "cpu/kset/r16.h"

#include <string.h>

enum { ROWS = TS_R16_ROWS, MAX_BLOCK = 256 }; /* bytes, more than the largest source block */

static const ts_r16_layout layouts[TS_TYPE_COUNT] = {
    /*                         offset, unit, count in the source block */
    [TS_TYPE_Q4_0] = {32, 18, {{0, 2, 1, false}, {2, 4, 4, false}}},
    [TS_TYPE_Q4_1] = {32, 20, {{0, 2, 1, false}, {2, 2, 1, false}, {4, 4, 4, false}}},
    [TS_TYPE_Q5_0] = {32, 22, {{0, 2, 1, false}, {2, 4, 1, true}, {6, 4, 4, false}}},
    [TS_TYPE_Q5_1] = {32,
                      24,
                      {{0, 2, 1, false}, {2, 2, 1, false}, {4, 4, 1, true}, {8, 4, 4, false}}},
    [TS_TYPE_Q8_0] = {32, 34, {{0, 2, 1, false}, {2, 4, 8, false}}},
    [TS_TYPE_IQ4_NL] = {32, 18, {{0, 2, 1, false}, {2, 4, 4, false}}},
    [TS_TYPE_MXFP4] = {32, 17, {{0, 1, 1, false}, {1, 4, 4, false}}},
    [TS_TYPE_Q2_K] = {256,
                      84,
                      {{80, 2, 1, false}, {82, 2, 1, false}, {0, 4, 4, false}, {16, 4, 16, false}}},
    [TS_TYPE_Q3_K] =
        {256, 110, {{108, 2, 1, false}, {96, 4, 3, false}, {0, 4, 8, false}, {32, 4, 16, false}}},
    [TS_TYPE_Q4_K] = {256,
                      144,
                      {{0, 2, 1, false}, {2, 2, 1, false}, {4, 4, 3, false}, {16, 4, 32, false}}},
    [TS_TYPE_Q5_K] = {256,
                      176,
                      {{0, 2, 1, false},
                       {2, 2, 1, false},
                       {4, 4, 3, false},
                       {16, 4, 8, false},
                       {48, 4, 32, false}}},
    [TS_TYPE_Q6_K] =
        {256,
         210,
         {{208, 2, 1, false}, {192, 4, 4, false}, {128, 4, 16, false}, {0, 4, 32, false}}},
    [TS_TYPE_IQ4_XS] = {256,
                        136,
                        {{0, 2, 1, false}, {2, 2, 1, false}, {4, 4, 1, false}, {8, 4, 32, false}}},
};

const ts_r16_layout *ts_r16_layout_of(ts_type type)
{
    return layouts[type].block ? &layouts[type] : NULL;
}

/* Exchanges two bits of the place number of every bit of a dword: the places that `mask` holds go
 * up by `shift`. */
static uint32_t swap_places(uint32_t v, int shift, uint32_t mask)
{
    uint32_t t = (v ^ v >> shift) & mask;
    return v ^ t ^ t << shift;
}

/* The bit of element 4 i + b stands at place [i2 i1 i0 b1 b0], five bits of a number; in planes it
 * is bit i of byte b, place [b1 b0 i2 i1 i0]. Four exchanges make one of the other. */
static uint32_t planes_from_bits(uint32_t v)
{
    v = swap_places(v, 14, 0x0000cccc);   /* bits 4 and 1 of the place */
    v = swap_places(v, 7, 0x00aa00aa);    /* 3 and 0                   */
    v = swap_places(v, 2, 0x0c0c0c0c);    /* 2 and 1                   */
    return swap_places(v, 1, 0x22222222); /* 1 and 0                   */
}

static uint32_t bits_from_planes(uint32_t v)
{
    v = swap_places(v, 1, 0x22222222);
    v = swap_places(v, 2, 0x0c0c0c0c);
    v = swap_places(v, 7, 0x00aa00aa);
    return swap_places(v, 14, 0x0000cccc);
}

static void pack_block(const ts_r16_layout *l, uint8_t *dst, const uint8_t *const row[ROWS])
{
    for (const ts_r16_field *f = l->field; f < l->field + TS_R16_FIELDS && f->count; f++) {
        for (int r = 0; r < ROWS; r++) {
            const uint8_t *from = row[r] + f->at;
            uint8_t *to = dst + r * f->unit;
            uint32_t v;
            if (f->unit == 4 && f->planes) {
                memcpy(&v, from, 4);
                v = planes_from_bits(v);
                memcpy(to, &v, 4);
            } else if (f->unit == 4) {
                for (int i = 0; i < f->count; i++)
                    memcpy(to + 64 * i, from + 4 * i, 4);
            } else if (f->unit == 2) {
                memcpy(to, from, 2);
            } else {
                *to = *from;
            }
        }
        dst += ROWS * f->unit * f->count;
    }
}

static void unpack_block(const ts_r16_layout *l, uint8_t *const row[ROWS], const uint8_t *src)
{
    for (const ts_r16_field *f = l->field; f < l->field + TS_R16_FIELDS && f->count; f++) {
        for (int r = 0; r < ROWS; r++) {
            const uint8_t *from = src + r * f->unit;
            uint8_t *to = row[r] + f->at;
            uint32_t v;
            if (f->unit == 4 && f->planes) {
                memcpy(&v, from, 4);
                v = bits_from_planes(v);
                memcpy(to, &v, 4);
            } else if (f->unit == 4) {
                for (int i = 0; i < f->count; i++)
                    memcpy(to + 4 * i, from + 64 * i, 4);
            } else if (f->unit == 2) {
                memcpy(to, from, 2);
            } else {
                *to = *from;
            }
        }
        src += ROWS * f->unit * f->count;
    }
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

size_t ts_r16_bytes(ts_type type, int64_t n, int64_t k)
{
    const ts_r16_layout *l = ts_r16_layout_of(type);
    if (!l)
        return (size_t)padded(n, ROWS) * (size_t)padded(k, 32) * 2;
    return (size_t)padded(n, ROWS) * (size_t)(k / l->block) * (size_t)l->bytes;
}

void ts_r16_pack(ts_type type, void *packed, const void *src, int64_t n, int64_t k, int64_t n0,
                 int64_t n1)
{
    static const uint8_t zeros[MAX_BLOCK];
    const ts_r16_layout *l = ts_r16_layout_of(type);
    if (!l) {
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
    const ts_r16_layout *l = ts_r16_layout_of(type);
    if (!l) {
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

/* r8_pack_avx2.c - packing 8 rows together and taking them apart again (the layout is told in
 * cpu/packing.h). */
#include "cpu/kset/r8_avx2.h"

#include <string.h>

enum { MAX_BLOCK = 256 }; /* bytes, more than the largest source block */

/* Exchanges two bits of the place number of every bit of a dword: the places that `mask` holds go
 * up by `shift`. */
static inline __m256i swap_places(__m256i v, int shift, int mask)
{
    __m128i s = _mm_cvtsi32_si128(shift);
    __m256i t = _mm256_xor_si256(v, _mm256_srl_epi32(v, s));
    t = _mm256_and_si256(t, _mm256_set1_epi32(mask));
    return _mm256_xor_si256(v, _mm256_xor_si256(t, _mm256_sll_epi32(t, s)));
}

/* The bit of element 4 i + b stands at place [i2 i1 i0 b1 b0], five bits of a number; in planes it
 * is bit i of byte b, place [b1 b0 i2 i1 i0]. Four exchanges make one of the other. */
static inline __m256i planes_from_bits(__m256i v)
{
    v = swap_places(v, 14, 0x0000cccc);   /* bits 4 and 1 of the place */
    v = swap_places(v, 7, 0x00aa00aa);    /* 3 and 0                   */
    v = swap_places(v, 2, 0x0c0c0c0c);    /* 2 and 1                   */
    return swap_places(v, 1, 0x22222222); /* 1 and 0                 */
}

static inline __m256i bits_from_planes(__m256i v)
{
    v = swap_places(v, 1, 0x22222222);
    v = swap_places(v, 2, 0x0c0c0c0c);
    v = swap_places(v, 7, 0x00aa00aa);
    return swap_places(v, 14, 0x0000cccc);
}

static inline void pack_dwords(uint8_t *dst, const uint8_t *const row[8], const ts_pack_field *f)
{
    int i = 0;
    for (; i + 4 <= f->count; i += 4) {
        __m256i v[4];
        for (int r = 0; r < 4; r++)
            v[r] = _mm256_loadu2_m128i((const __m128i *)(row[r + 4] + f->at + 4 * i),
                                       (const __m128i *)(row[r] + f->at + 4 * i));
        ts_transpose(v);
        for (int j = 0; j < 4; j++)
            _mm256_storeu_si256((__m256i *)(dst + (size_t)(i + j) * 32), v[j]);
    }
    for (; i < f->count; i++)
        for (int r = 0; r < 8; r++)
            memcpy(dst + (size_t)i * 32 + 4 * r, row[r] + f->at + 4 * i, 4);
    if (f->kind == TS_PACK_PLANES) {
        __m256i v = _mm256_loadu_si256((const __m256i *)dst);
        _mm256_storeu_si256((__m256i *)dst, planes_from_bits(v));
    }
}

static inline void unpack_dwords(uint8_t *const row[8], const uint8_t *src, const ts_pack_field *f)
{
    uint8_t bits[32];
    if (f->kind == TS_PACK_PLANES) {
        __m256i v = _mm256_loadu_si256((const __m256i *)src);
        _mm256_storeu_si256((__m256i *)bits, bits_from_planes(v));
        src = bits;
    }
    int i = 0;
    for (; i + 4 <= f->count; i += 4) {
        __m256i v[4];
        for (int j = 0; j < 4; j++)
            v[j] = _mm256_loadu_si256((const __m256i *)(src + (size_t)(i + j) * 32));
        ts_transpose(v);
        for (int r = 0; r < 4; r++)
            _mm256_storeu2_m128i((__m128i *)(row[r + 4] + f->at + 4 * i),
                                 (__m128i *)(row[r] + f->at + 4 * i), v[r]);
    }
    for (; i < f->count; i++)
        for (int r = 0; r < 8; r++)
            memcpy(row[r] + f->at + 4 * i, src + (size_t)i * 32 + 4 * r, 4);
}

static void pack_block(const ts_packing *l, uint8_t *dst, const uint8_t *const row[8])
{
    for (const ts_pack_field *f = l->field; f < l->field + TS_PACK_FIELDS && f->count; f++) {
        if (f->kind == TS_PACK_DWORD || f->kind == TS_PACK_PLANES) {
            pack_dwords(dst, row, f);
        } else if (f->kind == TS_PACK_HALF) {
            for (int r = 0; r < 8; r++)
                memcpy(dst + 2 * r, row[r] + f->at, 2);
        } else {
            for (int r = 0; r < 8; r++)
                dst[r] = row[r][f->at];
        }
        dst += 8 * ts_pack_unit(f->kind) * f->count;
    }
}

static void unpack_block(const ts_packing *l, uint8_t *const row[8], const uint8_t *src)
{
    for (const ts_pack_field *f = l->field; f < l->field + TS_PACK_FIELDS && f->count; f++) {
        if (f->kind == TS_PACK_DWORD || f->kind == TS_PACK_PLANES) {
            unpack_dwords(row, src, f);
        } else if (f->kind == TS_PACK_HALF) {
            for (int r = 0; r < 8; r++)
                memcpy(row[r] + f->at, src + 2 * r, 2);
        } else {
            for (int r = 0; r < 8; r++)
                row[r][f->at] = src[r];
        }
        src += 8 * ts_pack_unit(f->kind) * f->count;
    }
}

size_t ts_r8_bytes(const ts_packing *l, int64_t n, int64_t k)
{
    return (size_t)((n + 7) / 8) * 8 * (size_t)(k / l->block) * (size_t)l->bytes;
}

void ts_r8_pack(const ts_packing *l, void *packed, const void *src, int64_t n, int64_t k,
                int64_t n0, int64_t n1)
{
    static const uint8_t zeros[MAX_BLOCK];
    size_t row_bytes = (size_t)(k / l->block) * (size_t)l->bytes;
    for (int64_t g = n0; g < n1; g += 8) {
        const uint8_t *row[8];
        for (int r = 0; r < 8; r++)
            row[r] = g + r < n ? (const uint8_t *)src + (size_t)(g + r) * row_bytes : zeros;
        uint8_t *dst = (uint8_t *)packed + (size_t)g * row_bytes;
        for (int64_t i = 0; i < k; i += l->block, dst += 8 * l->bytes) {
            pack_block(l, dst, row);
            for (int r = 0; r < 8 && g + r < n; r++)
                row[r] += l->bytes;
        }
    }
}

void ts_r8_unpack(const ts_packing *l, void *src, const void *packed, int64_t n, int64_t k,
                  int64_t n0, int64_t n1)
{
    uint8_t beyond[MAX_BLOCK]; /* rows past n */
    size_t row_bytes = (size_t)(k / l->block) * (size_t)l->bytes;
    for (int64_t g = n0; g < n1; g += 8) {
        uint8_t *row[8];
        for (int r = 0; r < 8; r++)
            row[r] = g + r < n ? (uint8_t *)src + (size_t)(g + r) * row_bytes : beyond;
        const uint8_t *from = (const uint8_t *)packed + (size_t)g * row_bytes;
        for (int64_t i = 0; i < k; i += l->block, from += 8 * l->bytes) {
            unpack_block(l, row, from);
            for (int r = 0; r < 8 && g + r < n; r++)
                row[r] += l->bytes;
        }
    }
}

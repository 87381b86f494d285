/* prep_avx2.c - activations for the avx2 kernel sets: the blocks of prep_x8.h, or plain float rows.
 */
#include "cpu/prep.h"
#include "cpu/prep_x8.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* The largest codes: int8, and 15 bits such that both limbs are int8 without -128. */
#define Q8  127.0f
#define Q15 16256.0f

static size_t f32_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)k * sizeof(float);
}

static size_t q8_32_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)(k / 32) * sizeof(ts_x32);
}

static size_t q8_256_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)(k / 256) * sizeof(ts_x256);
}

static size_t q15_32_bytes(int64_t m, int64_t k)
{
    return 2 * q8_32_bytes(m, k);
}

static size_t q15_256_bytes(int64_t m, int64_t k)
{
    return 2 * q8_256_bytes(m, k);
}

static void f32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                    int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    for (int64_t t = m0; t < m1; t++)
        memcpy((float *)dst + t * k + k0, x + t * ldx + k0, (size_t)(k1 - k0) * sizeof(float));
}

/* The bits of max|x[n]|: as integers, so that a NaN is the largest of all. */
static int max_bits(const float *x, int n)
{
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        max = _mm256_max_epi32(max,
                               _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), abs));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

/* 32 codes of up to 15 bits as int16, in the order that _mm256_packs_epi32 leaves. */
static inline void codes(const float *x, __m256 scale, __m256i q[2])
{
    __m256i i[4];
    for (int j = 0; j < 4; j++)
        i[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), scale));
    q[0] = _mm256_packs_epi32(i[0], i[1]);
    q[1] = _mm256_packs_epi32(i[2], i[3]);
}

/* Such int16, none beyond int8, in order. */
static inline __m256i to_int8(__m256i a, __m256i b)
{
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* q = 128 * high + low, -64 <= low < 64. */
static inline void limbs(const __m256i q[2], __m256i *high, __m256i *low)
{
    __m256i h[2], l[2];
    for (int j = 0; j < 2; j++) {
        h[j] = _mm256_srai_epi16(_mm256_add_epi16(q[j], _mm256_set1_epi16(64)), 7);
        l[j] = _mm256_sub_epi16(q[j], _mm256_slli_epi16(h[j], 7));
    }
    *high = to_int8(h[0], h[1]);
    *low = to_int8(l[0], l[1]);
}

/* The pair sums of two 16s as dwords: {pair of the low 16, pair of the high 16}, both in 64 bits.
 */
static inline int64_t pair_sums(__m256i q)
{
    __m256i p = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q); /* [16] sums of two */
    p = _mm256_add_epi16(p, _mm256_shuffle_epi32(p, 0x4e));
    p = _mm256_add_epi16(p, _mm256_shuffle_epi32(p, 0xb1));
    __m128i lo = _mm256_castsi256_si128(p), hi = _mm256_extracti128_si256(p, 1);
    return _mm_cvtsi128_si64(_mm_unpacklo_epi32(lo, hi));
}

/* A block without codes: all zero, or not a number. */
static void empty_32(ts_x32 *b, float d)
{
    memset(b, 0, sizeof *b);
    b->d = b->s = d;
}

static inline void fill_32(ts_x32 *b, __m256i q, float d)
{
    int16_t pair[4];
    int64_t sums = pair_sums(q);
    memcpy(pair, &sums, sizeof pair);
    int even = pair[0] + pair[2], odd = pair[1] + pair[3];
    b->d = d;
    b->s = d * (float)(even + odd);
    b->pair[0] = (int16_t)(-8 * even);
    b->pair[1] = (int16_t)(-8 * odd);
    _mm256_storeu_si256((__m256i *)b->q, q);
}

static void empty_256(ts_x256 *b, float d)
{
    memset(b, 0, sizeof *b);
    b->d = d;
}

/* Codes 32 i .. 32 i + 31 of a block. */
static inline void fill_256(ts_x256 *b, int i, __m256i q)
{
    int16_t pair[4];
    int64_t sums = pair_sums(q);
    memcpy(pair, &sums, sizeof pair);
    b->sum16[2 * i] = (int16_t)(pair[0] + pair[1]);
    b->sum16[2 * i + 1] = (int16_t)(pair[2] + pair[3]);
    b->sum32[i] = (int16_t)(b->sum16[2 * i] + b->sum16[2 * i + 1]);
    for (int j = 0; j < 4; j++)
        b->pair[2 * i + j / 2][j % 2] = (int16_t)(-32 * pair[j]);
    _mm256_storeu_si256((__m256i *)(b->q + 32 * i), q);
}

static void q8_32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                      int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    for (int64_t t = m0; t < m1; t++) {
        ts_x32 *b = (ts_x32 *)dst + (t * k + k0) / 32;
        for (int64_t i = k0; i < k1; i += 32, b++) {
            const float *xi = x + t * ldx + i;
            float scale, d = ts_act_scale(max_bits(xi, 32), Q8, &scale);
            __m256i q[2];
            if (scale == 0) {
                empty_32(b, d);
                continue;
            }
            codes(xi, _mm256_set1_ps(scale), q);
            fill_32(b, to_int8(q[0], q[1]), d);
        }
    }
}

static void q8_256_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    for (int64_t t = m0; t < m1; t++) {
        ts_x256 *b = (ts_x256 *)dst + (t * k + k0) / 256;
        for (int64_t i = k0; i < k1; i += 256, b++) {
            const float *xi = x + t * ldx + i;
            float scale, d = ts_act_scale(max_bits(xi, 256), Q8, &scale);
            __m256i q[2];
            empty_256(b, d);
            for (int j = 0; scale != 0 && j < 8; j++) {
                codes(xi + 32 * j, _mm256_set1_ps(scale), q);
                fill_256(b, j, to_int8(q[0], q[1]));
            }
        }
    }
}

/* Exact: the row of a token's high limbs is followed by that of its low ones. */
static void q15_32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    int64_t nb = k / 32;
    for (int64_t t = m0; t < m1; t++) {
        ts_x32 *h = (ts_x32 *)dst + 2 * t * nb, *l = h + nb;
        for (int64_t i = k0 / 32; i < k1 / 32; i++) {
            const float *xi = x + t * ldx + 32 * i;
            float scale, d = ts_act_scale(max_bits(xi, 32), Q15, &scale);
            __m256i q[2], high, low;
            if (scale == 0) {
                empty_32(h + i, d);
                empty_32(l + i, d);
                continue;
            }
            codes(xi, _mm256_set1_ps(scale), q);
            limbs(q, &high, &low);
            fill_32(h + i, high, 128 * d);
            fill_32(l + i, low, d);
        }
    }
}

static void q15_256_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                        int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    int64_t nb = k / 256;
    for (int64_t t = m0; t < m1; t++) {
        ts_x256 *h = (ts_x256 *)dst + 2 * t * nb, *l = h + nb;
        for (int64_t i = k0 / 256; i < k1 / 256; i++) {
            const float *xi = x + t * ldx + 256 * i;
            float scale, d = ts_act_scale(max_bits(xi, 256), Q15, &scale);
            empty_256(h + i, 128 * d);
            empty_256(l + i, d);
            for (int j = 0; scale != 0 && j < 8; j++) {
                __m256i q[2], high, low;
                codes(xi + 32 * j, _mm256_set1_ps(scale), q);
                limbs(q, &high, &low);
                fill_256(h + i, j, high);
                fill_256(l + i, j, low);
            }
        }
    }
}

const ts_prep ts_prep_f32_avx2 = {TS_ACT_F32, TS_ISA_AVX2, 1, 1, 1, f32_bytes, f32_run, 0, 0, 0};
const ts_prep ts_prep_q8_32_avx2 = {TS_ACT_Q8_32, TS_ISA_AVX2, 1, 1, 32,
                                    q8_32_bytes,  q8_32_run,   0, 0, 0};
const ts_prep ts_prep_q8_256_avx2 = {TS_ACT_Q8_256, TS_ISA_AVX2, 1, 1, 256,
                                     q8_256_bytes,  q8_256_run,  0, 0, 0};
const ts_prep ts_prep_q15_32_avx2 = {TS_ACT_Q8_32, TS_ISA_AVX2, 2, 1, 32,
                                     q15_32_bytes, q15_32_run,  0, 0, 0};
const ts_prep ts_prep_q15_256_avx2 = {TS_ACT_Q8_256, TS_ISA_AVX2, 2, 1, 256,
                                      q15_256_bytes, q15_256_run, 0, 0, 0};

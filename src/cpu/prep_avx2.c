/* prep_avx2.c - activations for the avx2 kernel sets: the blocks of prep_x8.h, or plain float rows.
 */
#include "cpu/prep.h"
#include "cpu/prep_x8.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

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

static void f32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                    int64_t m1)
{
    (void)m;
    for (int64_t t = m0; t < m1; t++)
        memcpy((float *)dst + t * k, x + t * ldx, (size_t)k * sizeof(float));
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

/* d of a block, and in *scale what its elements are multiplied with; *scale = 0: there are no
 * codes. */
static float block_scale(const float *x, int n, float *scale)
{
    int bits = max_bits(x, n);
    float max;
    memcpy(&max, &bits, sizeof max);
    *scale = 0;
    if (bits >= 0x7f800000)
        return NAN;
    if (max < TS_ACT_TINY)
        return 0;
    *scale = 127 / max;
    return max / 127;
}

/* 32 codes. */
static __m256i codes(const float *x, __m256 scale)
{
    __m256i i[4];
    for (int j = 0; j < 4; j++)
        i[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), scale));
    __m256i q = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    return _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
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

static void block_32(ts_x32 *b, const float *x)
{
    float scale;
    b->d = block_scale(x, 32, &scale);
    if (scale == 0) {
        memset(b->q, 0, sizeof b->q);
        memset(b->pair, 0, sizeof b->pair);
        b->s = b->d;
        return;
    }
    __m256i q = codes(x, _mm256_set1_ps(scale));
    _mm256_storeu_si256((__m256i *)b->q, q);
    int16_t pair[4];
    int64_t sums = pair_sums(q);
    memcpy(pair, &sums, sizeof pair);
    int even = pair[0] + pair[2], odd = pair[1] + pair[3];
    b->s = b->d * (float)(even + odd);
    b->pair[0] = (int16_t)(-8 * even);
    b->pair[1] = (int16_t)(-8 * odd);
}

static void block_256(ts_x256 *b, const float *x)
{
    float scale;
    b->d = block_scale(x, 256, &scale);
    if (scale == 0) {
        memset((char *)b + sizeof b->d, 0, sizeof *b - sizeof b->d);
        return;
    }
    __m256 s = _mm256_set1_ps(scale);
    for (int i = 0; i < 8; i++) {
        __m256i q = codes(x + 32 * i, s);
        _mm256_storeu_si256((__m256i *)(b->q + 32 * i), q);
        int16_t pair[4];
        int64_t sums = pair_sums(q);
        memcpy(pair, &sums, sizeof pair);
        b->sum16[2 * i] = (int16_t)(pair[0] + pair[1]);
        b->sum16[2 * i + 1] = (int16_t)(pair[2] + pair[3]);
        b->sum32[i] = (int16_t)(b->sum16[2 * i] + b->sum16[2 * i + 1]);
        for (int j = 0; j < 4; j++)
            b->pair[2 * i + j / 2][j % 2] = (int16_t)(-32 * pair[j]);
    }
}

static void q8_32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                      int64_t m1)
{
    (void)m;
    ts_x32 *b = (ts_x32 *)dst + m0 * (k / 32);
    for (int64_t t = m0; t < m1; t++)
        for (int64_t i = 0; i < k; i += 32)
            block_32(b++, x + t * ldx + i);
}

static void q8_256_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1)
{
    (void)m;
    ts_x256 *b = (ts_x256 *)dst + m0 * (k / 256);
    for (int64_t t = m0; t < m1; t++)
        for (int64_t i = 0; i < k; i += 256)
            block_256(b++, x + t * ldx + i);
}

const ts_prep ts_prep_f32_avx2 = {TS_ACT_F32, TS_ISA_AVX2, 1, f32_bytes, f32_run};
const ts_prep ts_prep_q8_32_avx2 = {TS_ACT_Q8_32, TS_ISA_AVX2, 1, q8_32_bytes, q8_32_run};
const ts_prep ts_prep_q8_256_avx2 = {TS_ACT_Q8_256, TS_ISA_AVX2, 1, q8_256_bytes, q8_256_run};

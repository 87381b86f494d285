/* prep_avx512.c - activations for VNNI: the blocks of prep_x16.h, or plain float rows. */
#include "cpu/prep.h"
#include "cpu/prep_x16.h"

#include <math.h>
#include <string.h>

#include "cpu/intrin.h"
#include "cpu/kset/unroll.h"

/* The largest codes: int8, and 15 bits such that both limbs are int8 without -128. */
#define Q8  127.0f
#define Q15 16256.0f

/* The bits of max|x[n]|: as integers, so that a NaN is the largest of all. */
TS_INLINE int max_bits(const float *x, int n)
{
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    __m512i max = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16)
        max = _mm512_max_epi32(max, _mm512_and_si512(_mm512_loadu_si512(x + i), abs));
    return _mm512_reduce_max_epi32(max);
}

TS_INLINE void put16(int8_t *dst, __m512i v)
{
    _mm_storeu_si128((__m128i *)dst, _mm512_cvtepi32_epi8(v));
}

/* 32 codes of x times scale. */
TS_INLINE void fill(ts_x16 *b, int limbs, const float *x, float d, float scale)
{
    b->d = d;
    if (scale == 0) {
        b->s = b->s16[0] = b->s16[1] = d;
        memset(b->limb, 0, 32 * (size_t)limbs);
        return;
    }
    int sum[2];
    for (int i = 0; i < 2; i++) {
        __m512i q =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(scale)));
        sum[i] = _mm512_reduce_add_epi32(q);
        b->s16[i] = d * (float)sum[i];
        if (limbs == 2) { /* q = 128 h + l, -64 <= l < 64 */
            __m512i h = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(64)), 7);
            put16(b->limb[1] + 16 * i, _mm512_sub_epi32(q, _mm512_slli_epi32(h, 7)));
            q = h;
        }
        put16(b->limb[0] + 16 * i, q);
    }
    b->s = d * (float)(sum[0] + sum[1]);
}

/* Blocks of 32; `unit` elements (a multiple of 32) share a scale. */
TS_INLINE void run(void *dst, const float *x, int64_t ldx, int64_t k, int64_t m0, int64_t m1,
                   int64_t k0, int64_t k1, int limbs, int unit)
{
    size_t bytes = ts_x16_bytes(limbs);
    for (int64_t t = m0; t < m1; t++) {
        uint8_t *b = (uint8_t *)dst + (size_t)((t * k + k0) / 32) * bytes;
        for (int64_t i = k0; i < k1; i += unit) {
            const float *xi = x + t * ldx + i;
            float scale, d = ts_act_scale(max_bits(xi, unit), limbs == 2 ? Q15 : Q8, &scale);
            for (int j = 0; j < unit; j += 32, b += bytes)
                fill((ts_x16 *)b, limbs, xi + j, d, scale);
        }
    }
}

#define PREP(name, act, limbs, unit)                                                               \
    static size_t name##_bytes(int64_t m, int64_t k)                                               \
    {                                                                                              \
        return (size_t)m * (size_t)(k / 32) * ts_x16_bytes(limbs);                                 \
    }                                                                                              \
    static void name##_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k,           \
                           int64_t m0, int64_t m1, int64_t k0, int64_t k1)                         \
    {                                                                                              \
        (void)m;                                                                                   \
        run(dst, x, ldx, k, m0, m1, k0, k1, limbs, unit);                                          \
    }                                                                                              \
    const ts_prep TS_SYM(ts_prep_##name##_avx512) = {act,          TS_ISA_AVX512, limbs, 1, unit,  \
                                                     name##_bytes, name##_run,    0,     0, 0};

/* Exact activations have a scale for each 32 whatever the type, so that products with weights of
 * several types share them. */
PREP(q15, TS_ACT_Q8_32, 2, 32)
PREP(q8_32, TS_ACT_Q8_32, 1, 32)
PREP(q8_256, TS_ACT_Q8_256, 1, 256)

/* Float rows, filled up to a multiple of 32 with zeros. */
static size_t f32_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)ts_tile_count(k, 32) * 32 * sizeof(float);
}

static void f32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                    int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    int64_t kp = ts_tile_count(k, 32) * 32;
    for (int64_t t = m0; t < m1; t++) {
        float *to = (float *)dst + t * kp;
        memcpy(to + k0, x + t * ldx + k0, (size_t)(k1 - k0) * sizeof(float));
        if (k1 == k)
            memset(to + k, 0, (size_t)(kp - k) * sizeof(float));
    }
}

const ts_prep TS_SYM(ts_prep_f32_avx512) = {TS_ACT_F32, TS_ISA_AVX512, 1, 1, 1,
                                            f32_bytes,  f32_run,       0, 0, 0};

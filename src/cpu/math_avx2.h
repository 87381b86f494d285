/* math_avx2.h - e^x and tails for the AVX2 files. */
#ifndef TS_MATH_AVX2_H
#define TS_MATH_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* e^c to 0.8 ulp for c in -87.33 .. 88.37, where the result is neither subnormal nor infinite.
 *
 * c = n ln2 + r with |r| <= ln2 / 2; e^r = 1 + r + r^2 P(r), P of degree 4 fitted for the least
 * greatest relative error; ln2 in two parts of which the first has 9 bits, so that n times it is
 * exact. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum. */
static inline __m256 exp8_inside(__m256 c)
{
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    __m256 t = _mm256_fmadd_ps(c, _mm256_set1_ps(1.44269504f), magic);
    __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(0x1.6a23cep-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123a2p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5558f2p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555492p-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1));
    /* n is in -126..127: adding it to the exponent can't leave the normal numbers */
    __m256i e = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}

/* e^x for x <= 0: exactly 0 below -87.33, exactly 1 for 0, NaN for NaN. */
static inline __m256 exp8_negative(__m256 x)
{
    const __m256 lo = _mm256_set1_ps(-87.33f);
    /* max and min return their second operand when one is NaN */
    __m256 y = exp8_inside(_mm256_max_ps(lo, x));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lo, _CMP_LT_OQ), y);
}

/* e^x for every x; infinity from 88.37. */
static inline __m256 exp8(__m256 x)
{
    const __m256 hi = _mm256_set1_ps(88.37f);
    __m256 y = exp8_negative(_mm256_min_ps(hi, x));
    return _mm256_blendv_ps(y, _mm256_set1_ps(__builtin_inff()), _mm256_cmp_ps(x, hi, _CMP_GT_OQ));
}

/* The mask of the first n of 8 lanes for maskload and maskstore. */
static inline __m256i lanes8(int64_t n)
{
    const __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), i);
}

static inline float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float max8(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#endif

/* math_avx512.h - e^x and tails for the AVX-512 files. */
#ifndef TS_MATH_AVX512_H
#define TS_MATH_AVX512_H

#include <immintrin.h>
#include <stdint.h>

/* e^x to an ulp for every x: 0 below -104, infinity from 88.73, exactly 1 for 0, NaN for NaN.
 *
 * The polynomial and the two parts of ln2 are those of exp8_inside (math_avx2.h); VSCALEFPS takes
 * care of what leaves the normal numbers. */
static inline __m512 exp16(__m512 x)
{
    /* max and min return their second operand when one is NaN */
    x = _mm512_min_ps(_mm512_set1_ps(89), x);
    x = _mm512_max_ps(_mm512_set1_ps(-105), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(0x1.6a23cep-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123a2p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f2p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    p = _mm512_add_ps(p, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, n);
}

/* The mask of the first n of 16 lanes. */
static inline __mmask16 lanes16(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

#endif

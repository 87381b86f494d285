/* standin.h - tiles, and the AVX-512 that kernels with tiles use, in plain C. With TS_STANDIN a
 * kernel is compiled a second time over these, so that its tests run on any x86-64. Rounding is
 * that of the instructions (Intel SDM volume 2), but for denormals, which are kept. */
#ifndef TS_STANDIN_H
#define TS_STANDIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float standin_f __attribute__((vector_size(64), may_alias));
typedef int standin_i __attribute__((vector_size(64), may_alias));
#define __m512   standin_f
#define __m512i  standin_i
#define __m512bh standin_i
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

#define _CMP_LT_OQ            17
#define _CMP_NEQ_UQ           4
#define _CMP_GT_OQ            30
#define _MM_HINT_T0           0
#define _MM_HINT_T1           1
#define _mm_prefetch(p, hint) ((void)(p))

/* f32x16 as an array, and back */
#define STANDIN static inline __attribute__((unused))
#define EACH    for (int i = 0; i < 16; i++)

STANDIN float standin_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

STANDIN uint16_t standin_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if (isnan(f))
        return (uint16_t)(u >> 16 | 0x40);
    if ((u & 0x7f800000) == 0)
        return (uint16_t)(u >> 16 & 0x8000);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* --- AVX-512 ---------------------------------------------------------------- */

STANDIN standin_f _mm512_set1_ps(float x)
{
    standin_f r;
    EACH r[i] = x;
    return r;
}

STANDIN standin_f _mm512_setzero_ps(void)
{
    return _mm512_set1_ps(0);
}

STANDIN standin_i _mm512_set1_epi32(int x)
{
    standin_i r;
    EACH r[i] = x;
    return r;
}

STANDIN standin_i _mm512_setzero_si512(void)
{
    return _mm512_set1_epi32(0);
}

STANDIN standin_f _mm512_loadu_ps(const void *p)
{
    standin_f r;
    memcpy(&r, p, 64);
    return r;
}

STANDIN void _mm512_storeu_ps(void *p, standin_f v)
{
    memcpy(p, &v, 64);
}

STANDIN standin_i _mm512_loadu_si512(const void *p)
{
    return (standin_i)_mm512_loadu_ps(p);
}

STANDIN void _mm512_storeu_si512(void *p, standin_i v)
{
    memcpy(p, &v, 64);
}

STANDIN standin_f _mm512_maskz_loadu_ps(__mmask16 m, const void *p)
{
    standin_f r;
    EACH r[i] = m >> i & 1 ? ((const float *)p)[i] : 0;
    return r;
}

STANDIN void _mm512_mask_storeu_ps(void *p, __mmask16 m, standin_f v)
{
    EACH if (m >> i & 1)((float *)p)[i] = v[i];
}

STANDIN standin_i _mm512_maskz_loadu_epi16(__mmask32 m, const void *p)
{
    uint16_t r[32];
    for (int i = 0; i < 32; i++)
        r[i] = m >> i & 1 ? ((const uint16_t *)p)[i] : 0;
    return _mm512_loadu_si512(r);
}

STANDIN standin_f _mm512_add_ps(standin_f a, standin_f b)
{
    return a + b;
}

STANDIN standin_f _mm512_sub_ps(standin_f a, standin_f b)
{
    return a - b;
}

STANDIN standin_f _mm512_mask_sub_ps(standin_f src, __mmask16 m, standin_f a, standin_f b)
{
    EACH src[i] = m >> i & 1 ? a[i] - b[i] : src[i];
    return src;
}

STANDIN standin_f _mm512_mul_ps(standin_f a, standin_f b)
{
    return a * b;
}

STANDIN standin_f _mm512_div_ps(standin_f a, standin_f b)
{
    return a / b;
}

STANDIN standin_f _mm512_fmadd_ps(standin_f a, standin_f b, standin_f c)
{
    EACH c[i] = fmaf(a[i], b[i], c[i]);
    return c;
}

STANDIN standin_f _mm512_max_ps(standin_f a, standin_f b)
{
    EACH b[i] = a[i] > b[i] ? a[i] : b[i]; /* the second if one is NaN */
    return b;
}

STANDIN standin_f _mm512_abs_ps(standin_f a)
{
    EACH a[i] = fabsf(a[i]);
    return a;
}

STANDIN standin_f _mm512_mask_mov_ps(standin_f src, __mmask16 m, standin_f a)
{
    EACH src[i] = m >> i & 1 ? a[i] : src[i];
    return src;
}

/* imm 0x0a: up to an integer */
STANDIN standin_f _mm512_roundscale_ps(standin_f a, int imm)
{
    EACH a[i] = imm == 0x0a ? ceilf(a[i]) : NAN;
    return a;
}

/* imm 0x09: what is above the integer below */
STANDIN standin_f _mm512_reduce_ps(standin_f a, int imm)
{
    EACH a[i] = imm != 0x09 ? NAN : isinf(a[i]) ? 0 : a[i] - floorf(a[i]);
    return a;
}

STANDIN float standin_scale(float a, float b)
{
    if (isnan(a) || isnan(b))
        return NAN;
    float e = floorf(b);
    return ldexpf(a, e < -400 ? -400 : e > 400 ? 400 : (int)e);
}

STANDIN standin_f _mm512_scalef_ps(standin_f a, standin_f b)
{
    EACH a[i] = standin_scale(a[i], b[i]);
    return a;
}

STANDIN standin_f _mm512_mask_scalef_ps(standin_f src, __mmask16 m, standin_f a, standin_f b)
{
    return _mm512_mask_mov_ps(src, m, _mm512_scalef_ps(a, b));
}

STANDIN standin_f _mm512_maskz_scalef_ps(__mmask16 m, standin_f a, standin_f b)
{
    return _mm512_mask_scalef_ps(_mm512_setzero_ps(), m, a, b);
}

STANDIN __mmask16 _mm512_cmp_ps_mask(standin_f a, standin_f b, int op)
{
    int m = 0;
    EACH m |= (op == _CMP_LT_OQ    ? a[i] < b[i]
               : op == _CMP_GT_OQ  ? a[i] > b[i]
               : op == _CMP_NEQ_UQ ? a[i] != b[i]
                                   : 0)
              << i;
    return (__mmask16)m;
}

STANDIN __mmask16 _mm512_cmpgt_epi32_mask(standin_i a, standin_i b)
{
    int m = 0;
    EACH m |= (a[i] > b[i]) << i;
    return (__mmask16)m;
}

STANDIN standin_f _mm512_castsi512_ps(standin_i a)
{
    return (standin_f)a;
}

/* Quarter q of the result takes its dwords from quarter q of a and b. */
STANDIN standin_i _mm512_unpacklo_epi32(standin_i a, standin_i b)
{
    standin_i r;
    EACH r[i] = (i % 2 ? b : a)[i / 4 * 4 + i % 4 / 2];
    return r;
}

STANDIN standin_i _mm512_unpackhi_epi32(standin_i a, standin_i b)
{
    standin_i r;
    EACH r[i] = (i % 2 ? b : a)[i / 4 * 4 + i % 4 / 2 + 2];
    return r;
}

STANDIN standin_i _mm512_unpacklo_epi64(standin_i a, standin_i b)
{
    standin_i r;
    EACH r[i] = (i % 4 < 2 ? a : b)[i / 4 * 4 + i % 2];
    return r;
}

STANDIN standin_i _mm512_unpackhi_epi64(standin_i a, standin_i b)
{
    standin_i r;
    EACH r[i] = (i % 4 < 2 ? a : b)[i / 4 * 4 + i % 2 + 2];
    return r;
}

STANDIN standin_i _mm512_shuffle_i32x4(standin_i a, standin_i b, int imm)
{
    standin_i r;
    EACH r[i] = (i < 8 ? a : b)[(imm >> i / 4 * 2 & 3) * 4 + i % 4];
    return r;
}

STANDIN standin_i _mm512_permutexvar_epi16(standin_i order, standin_i a)
{
    uint16_t o[32], x[32], r[32];
    memcpy(o, &order, 64);
    memcpy(x, &a, 64);
    for (int i = 0; i < 32; i++)
        r[i] = x[o[i] & 31];
    return _mm512_loadu_si512(r);
}

/* --- BF16 ------------------------------------------------------------------- */

STANDIN standin_i _mm512_cvtne2ps_pbh(standin_f a, standin_f b)
{
    uint16_t r[32];
    EACH r[i] = standin_to_bf16(b[i]), r[16 + i] = standin_to_bf16(a[i]);
    return _mm512_loadu_si512(r);
}

STANDIN standin_f _mm512_dpbf16_ps(standin_f c, standin_i a, standin_i b)
{
    uint16_t x[32], y[32];
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    EACH for (int j = 1; j >= 0; j--) c[i] =
        fmaf(standin_bf16(x[2 * i + j]), standin_bf16(y[2 * i + j]), c[i]);
    return c;
}

/* --- tiles ------------------------------------------------------------------ */

static _Thread_local unsigned char standin_tile[8][16][64];

STANDIN void _tile_zero(int t)
{
    memset(standin_tile[t], 0, 1024);
}

STANDIN void _tile_loadd(int t, const void *p, size_t stride)
{
    EACH memcpy(standin_tile[t][i], (const char *)p + (size_t)i * stride, 64);
}

STANDIN void _tile_stored(int t, void *p, size_t stride)
{
    EACH memcpy((char *)p + (size_t)i * stride, standin_tile[t][i], 64);
}

/* C[16][16] += A[16][32] B[16 pairs][16][2]: even and odd k are two chains, added at the end. */
STANDIN void _tile_dpbf16ps(int c, int a, int b)
{
    uint16_t x[16][32], y[16][32];
    float z[16][16];
    memcpy(x, standin_tile[a], 1024);
    memcpy(y, standin_tile[b], 1024);
    memcpy(z, standin_tile[c], 1024);
    EACH
    {
        standin_f even = _mm512_setzero_ps(), odd = even;
        for (int k = 0; k < 16; k++) {
            standin_i row = _mm512_loadu_si512(y[k]);
            standin_f lo = (standin_f)(row << 16), hi = (standin_f)(row & (int)0xffff0000);
            even = _mm512_fmadd_ps(_mm512_set1_ps(standin_bf16(x[i][2 * k])), lo, even);
            odd = _mm512_fmadd_ps(_mm512_set1_ps(standin_bf16(x[i][2 * k + 1])), hi, odd);
        }
        _mm512_storeu_ps(z[i], _mm512_loadu_ps(z[i]) + (even + odd));
    }
    memcpy(standin_tile[c], z, 1024);
}

#undef EACH
#undef STANDIN

#endif

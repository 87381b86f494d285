/* ops_avx2.c - the operations with AVX2, FMA and F16C.
 *
 * The last n % 8 elements go through the same vector code under a mask, so that the result of an
 * element doesn't depend on where in the row it stands. */
#include <math.h>

#include "cpu/attend.h"
#include "cpu/math_avx2.h"
#include "cpu/ops_tables.h"

static __m256 load_upto8(const float *x, int64_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes8(n));
}

static void store_upto8(float *y, __m256 v, int64_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, lanes8(n), v);
}

static float sum_of_squares(const float *x, int64_t d)
{
    __m256 s[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                   _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 32 <= d; i += 32)
        for (int j = 0; j < 4; j++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            s[j] = _mm256_fmadd_ps(v, v, s[j]);
        }
    for (; i < d; i += 8) {
        __m256 v = load_upto8(x + i, d - i);
        s[0] = _mm256_fmadd_ps(v, v, s[0]);
    }
    return sum8(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
}

static void rms_norm(float *y, const float *x, const float *w, int64_t d, float eps)
{
    __m256 f = _mm256_set1_ps(1 / sqrtf(sum_of_squares(x, d) / (float)d + eps));
    for (int64_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_mul_ps(load_upto8(x + i, d - i), f);
        if (w)
            v = _mm256_mul_ps(v, load_upto8(w + i, d - i));
        store_upto8(y + i, v, d - i);
    }
}

static void center(float *y, const float *x, int64_t d)
{
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < d; i += 8)
        sum = _mm256_add_ps(sum, load_upto8(x + i, d - i));
    __m256 mean = _mm256_set1_ps(sum8(sum) / (float)d);
    for (int64_t i = 0; i < d; i += 8)
        store_upto8(y + i, _mm256_sub_ps(load_upto8(x + i, d - i), mean), d - i);
}

/* Pairs (2i, 2i+1): four of them in a vector. */
static void rope_norm(float *x, const float *cs, int64_t n_rot)
{
    for (int64_t i = 0; i < n_rot; i += 8) {
        __m256 v = load_upto8(x + i, n_rot - i), t = load_upto8(cs + i, n_rot - i);
        __m256 swapped = _mm256_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
        __m256 sin = _mm256_mul_ps(swapped, _mm256_movehdup_ps(t));
        store_upto8(x + i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(t), sin), n_rot - i);
    }
}

/* Pairs (i, i + n_rot/2). */
static void rope_neox(float *x, const float *cs, int64_t half)
{
    for (int64_t i = 0; i < half; i += 8) {
        int64_t n = half - i;
        __m256 t0 = load_upto8(cs + 2 * i, 2 * n);
        __m256 t1 = n > 4 ? load_upto8(cs + 2 * i + 8, 2 * n - 8) : t0;
        __m256 u0 = _mm256_permute2f128_ps(t0, t1, 0x20), u1 = _mm256_permute2f128_ps(t0, t1, 0x31);
        __m256 c = _mm256_shuffle_ps(u0, u1, _MM_SHUFFLE(2, 0, 2, 0));
        __m256 s = _mm256_shuffle_ps(u0, u1, _MM_SHUFFLE(3, 1, 3, 1));
        __m256 a = load_upto8(x + i, n), b = load_upto8(x + half + i, n);
        store_upto8(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), n);
        store_upto8(x + half + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)), n);
    }
}

static void rope(float *x, const float *cs, int64_t n_rot, bool neox)
{
    if (neox)
        rope_neox(x, cs, n_rot / 2);
    else
        rope_norm(x, cs, n_rot);
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8)
        store_upto8(y + i, _mm256_add_ps(load_upto8(a + i, n - i), load_upto8(b + i, n - i)),
                    n - i);
}

static void scale(float *y, const float *x, float s, int64_t n)
{
    __m256 f = _mm256_set1_ps(s);
    for (int64_t i = 0; i < n; i += 8)
        store_upto8(y + i, _mm256_mul_ps(load_upto8(x + i, n - i), f), n - i);
}

static void mad(float *y, const float *x, float s, int64_t n)
{
    const __m256 f = _mm256_set1_ps(s);
    for (int64_t i = 0; i < n; i += 8)
        store_upto8(y + i, _mm256_fmadd_ps(load_upto8(x + i, n - i), f, load_upto8(y + i, n - i)),
                    n - i);
}

/* g / (1 + e^-z) * u */
static inline __m256 gate(__m256 g, __m256 z, __m256 u)
{
    const __m256 one = _mm256_set1_ps(1);
    __m256 e = exp8(_mm256_xor_ps(z, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, e)), u);
}

static void silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = load_upto8(g + i, n - i);
        store_upto8(y + i, gate(v, v, load_upto8(u + i, n - i)), n - i);
    }
}

static void gelu_mul(float *y, const float *g, const float *u, int64_t n)
{
    /* 2 sqrt(2/pi) (v + 0.044715 v^3) */
    const __m256 a = _mm256_set1_ps(1.5957691216f), b = _mm256_set1_ps(1.5957691216f * 0.044715f);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = load_upto8(g + i, n - i);
        __m256 z = _mm256_mul_ps(v, _mm256_fmadd_ps(_mm256_mul_ps(v, v), b, a));
        store_upto8(y + i, gate(v, z, load_upto8(u + i, n - i)), n - i);
    }
}

/* min and max return their second operand when one is NaN */
static void clamped_mul(float *y, const float *g, const float *u, int64_t n)
{
    const __m256 hi = _mm256_set1_ps(7), lo = _mm256_set1_ps(-7), one = _mm256_set1_ps(1);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_min_ps(hi, load_upto8(g + i, n - i));
        __m256 a = _mm256_max_ps(lo, _mm256_min_ps(hi, load_upto8(u + i, n - i)));
        __m256 z = _mm256_mul_ps(v, _mm256_set1_ps(1.702f));
        store_upto8(y + i, gate(v, z, _mm256_add_ps(a, one)), n - i);
    }
}

const ts_ops ts_ops_avx2 = {
    .isa = TS_ISA_AVX2,
    .rms_norm = rms_norm,
    .center = center,
    .rope = rope,
    .add = add,
    .scale = scale,
    .mad = mad,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .clamped_mul = clamped_mul,
    .kv = &ts_kv_avx2,
    .attend_scratch = ts_attend_run_scratch,
    .attend = attend_avx2,
    .merge = ts_attend_run_merge,
};

/* ops_avx512.c - the operations with AVX-512. The tables avx512 and amx differ in attention only.
 *
 * The last n % 16 elements go through the same vector code under a mask, so that the result of an
 * element doesn't depend on where in the row it stands. */
#include <math.h>

#include "cpu/attend.h"
#include "cpu/math_avx512.h"
#include "cpu/ops_tables.h"

static inline __m512 load(const float *x, int64_t n)
{
    return n >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(lanes16(n), x);
}

static inline void store(float *y, __m512 v, int64_t n)
{
    if (n >= 16)
        _mm512_storeu_ps(y, v);
    else
        _mm512_mask_storeu_ps(y, lanes16(n), v);
}

static float sum_of_squares(const float *x, int64_t d)
{
    __m512 s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                   _mm512_setzero_ps()};
    int64_t i = 0;
    for (; i + 64 <= d; i += 64)
        for (int j = 0; j < 4; j++) {
            __m512 v = _mm512_loadu_ps(x + i + 16 * j);
            s[j] = _mm512_fmadd_ps(v, v, s[j]);
        }
    for (; i < d; i += 16) {
        __m512 v = load(x + i, d - i);
        s[0] = _mm512_fmadd_ps(v, v, s[0]);
    }
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
}

static void rms_norm(float *y, const float *x, const float *w, int64_t d, float eps)
{
    __m512 f = _mm512_set1_ps(1 / sqrtf(sum_of_squares(x, d) / (float)d + eps));
    for (int64_t i = 0; i < d; i += 16) {
        __m512 v = _mm512_mul_ps(load(x + i, d - i), f);
        if (w)
            v = _mm512_mul_ps(v, load(w + i, d - i));
        store(y + i, v, d - i);
    }
}

static void center(float *y, const float *x, int64_t d)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < d; i += 16)
        sum = _mm512_add_ps(sum, load(x + i, d - i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)d);
    for (int64_t i = 0; i < d; i += 16)
        store(y + i, _mm512_sub_ps(load(x + i, d - i), mean), d - i);
}

/* Pairs (2i, 2i+1): eight of them in a vector. */
static void rope_norm(float *x, const float *cs, int64_t n_rot)
{
    for (int64_t i = 0; i < n_rot; i += 16) {
        __m512 v = load(x + i, n_rot - i), t = load(cs + i, n_rot - i);
        __m512 swapped = _mm512_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
        __m512 sin = _mm512_mul_ps(swapped, _mm512_movehdup_ps(t));
        store(x + i, _mm512_fmaddsub_ps(v, _mm512_moveldup_ps(t), sin), n_rot - i);
    }
}

/* Pairs (i, i + n_rot/2). */
static void rope_neox(float *x, const float *cs, int64_t half)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t i = 0; i < half; i += 16) {
        int64_t n = half - i;
        __m512 t0 = load(cs + 2 * i, 2 * n);
        __m512 t1 = n > 8 ? load(cs + 2 * i + 16, 2 * n - 16) : t0;
        __m512 c = _mm512_permutex2var_ps(t0, even, t1), s = _mm512_permutex2var_ps(t0, odd, t1);
        __m512 a = load(x + i, n), b = load(x + half + i, n);
        store(x + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), n);
        store(x + half + i, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)), n);
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
    for (int64_t i = 0; i < n; i += 16)
        store(y + i, _mm512_add_ps(load(a + i, n - i), load(b + i, n - i)), n - i);
}

static void scale(float *y, const float *x, float s, int64_t n)
{
    __m512 f = _mm512_set1_ps(s);
    for (int64_t i = 0; i < n; i += 16)
        store(y + i, _mm512_mul_ps(load(x + i, n - i), f), n - i);
}

static void mad(float *y, const float *x, float s, int64_t n)
{
    const __m512 f = _mm512_set1_ps(s);
    for (int64_t i = 0; i < n; i += 16)
        store(y + i, _mm512_fmadd_ps(load(x + i, n - i), f, load(y + i, n - i)), n - i);
}

/* g / (1 + e^-z) * u */
static inline __m512 gate(__m512 g, __m512 z, __m512 u)
{
    const __m512 one = _mm512_set1_ps(1);
    __m512 e = exp16(_mm512_xor_ps(z, _mm512_set1_ps(-0.0f)));
    return _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, e)), u);
}

static void silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = load(g + i, n - i);
        store(y + i, gate(v, v, load(u + i, n - i)), n - i);
    }
}

static void gelu_mul(float *y, const float *g, const float *u, int64_t n)
{
    /* 2 sqrt(2/pi) (v + 0.044715 v^3) */
    const __m512 a = _mm512_set1_ps(1.5957691216f), b = _mm512_set1_ps(1.5957691216f * 0.044715f);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = load(g + i, n - i);
        __m512 z = _mm512_mul_ps(v, _mm512_fmadd_ps(_mm512_mul_ps(v, v), b, a));
        store(y + i, gate(v, z, load(u + i, n - i)), n - i);
    }
}

/* min and max return their second operand when one is NaN */
static void clamped_mul(float *y, const float *g, const float *u, int64_t n)
{
    const __m512 hi = _mm512_set1_ps(7), lo = _mm512_set1_ps(-7), one = _mm512_set1_ps(1);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_min_ps(hi, load(g + i, n - i));
        __m512 a = _mm512_max_ps(lo, _mm512_min_ps(hi, load(u + i, n - i)));
        __m512 z = _mm512_mul_ps(v, _mm512_set1_ps(1.702f));
        store(y + i, gate(v, z, _mm512_add_ps(a, one)), n - i);
    }
}

const ts_ops ts_ops_avx512 = {
    .isa = TS_ISA_AVX512,
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
    .attend = attend_avx512,
    .merge = ts_attend_run_merge,
};

const ts_ops ts_ops_amx = {
    .isa = TS_ISA_AMX,
    .rms_norm = rms_norm,
    .center = center,
    .rope = rope,
    .add = add,
    .scale = scale,
    .mad = mad,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .clamped_mul = clamped_mul,
    .kv = &ts_kv_amx,
    .attend_rows = ATTEND_AMX_ROWS,
    .attend_scratch = attend_amx_scratch,
    .attend = attend_amx,
    .merge = attend_amx_merge,
};

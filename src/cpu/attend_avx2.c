/* attend_avx2.c - one block of attention with AVX2, FMA and F16C.
 *
 * Both products are small matrix products of one shape, C[rows][n] = A[rows][k] B[k][n]:
 *
 *     S[rows][64]      = Q[rows][head_dim] K^T[head_dim][64]
 *     acc[rows][v_dim] = f acc + P[rows][64] V[64][v_dim]
 *
 * done in tiles of up to 6 rows x 16 columns held in registers. B is F16 as it lies in the cache,
 * in strips of 16 columns. A tile widens it as it reads; widening once into F32 for all tiles was
 * slower for any number of rows (8 to 25 %), as F32 tables crowd the cache. An element of C is one
 * chain of FMAs in the order of k: the tile's shape doesn't show in the bits, nor does a position
 * that a row doesn't see, whose P is an exact 0. */
#include <math.h>

#include "cpu/attend_product.h"
#include "cpu/math_avx2.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE __m256 load_half8(const uint16_t *b)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)b));
}

/* One step of k: acc[mr][nv] += A[mr][1] B[1][8 * nv]. Two pointers and one stride reach six rows
 * of A within the addressing modes. */
static ALWAYS_INLINE void step(__m256 acc[6][8], const float *a, const float *a3, int64_t lda,
                               const uint16_t *const b[4], int64_t at, int mr, int nv)
{
    /* the shorter side of the tile stays in registers: 12 + 3 + 1 of 16 at most */
    __m256 x[6];
    if (mr < nv) {
        for (int i = 0; i < mr; i++)
            x[i] = _mm256_broadcast_ss(a + i * lda);
        for (int j = 0; j < nv; j++) {
            __m256 v = load_half8(b[j / 2] + at + j % 2 * 8);
            for (int i = 0; i < mr; i++)
                acc[i][j] = _mm256_fmadd_ps(x[i], v, acc[i][j]);
        }
    } else {
        for (int j = 0; j < nv; j++)
            x[j] = load_half8(b[j / 2] + at + j % 2 * 8);
        for (int i = 0; i < mr; i++) {
            __m256 v = _mm256_broadcast_ss(i < 3 ? a + i * lda : a3 + (i - 3) * lda);
            for (int j = 0; j < nv; j++)
                acc[i][j] = _mm256_fmadd_ps(v, x[j], acc[i][j]);
        }
    }
}

/* Rows r .. r + mr, columns c .. c + 8 * nv. mr and nv are constants wherever this is inlined.
 *
 * For every byte of B a byte of the next block is fetched: spread like this the misses overlap with
 * the arithmetic. (All at once they filled the core's miss buffers: decode had 60 % of this speed.)
 */
static ALWAYS_INLINE void tile(const product *p, int64_t r, int64_t c, int mr, int nv)
{
    __m256 acc[6][8];
    float *out = p->c + r * p->ldc + c;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            acc[i][j] = p->f ? _mm256_mul_ps(_mm256_set1_ps(p->f[r + i]),
                                             _mm256_loadu_ps(out + i * p->ldc + 8 * j))
                             : _mm256_setzero_ps();
    const int64_t lda = p->lda, ldb = p->ldb;
    const float *a = p->a + r * lda, *a3 = a + 3 * lda;
    const uint16_t *b[4];
    for (int j = 0; j < nv / 2; j++)
        b[j] = p->b + (c / 16 + j) * p->strip;
    uintptr_t next = p->next + (uintptr_t)(c * p->k) * sizeof *p->b;
    int64_t k = p->k, at = 0;
    for (; k >= 2; k -= 2, a += 2, a3 += 2, at += 2 * ldb) {
        step(acc, a, a3, lda, b, at, mr, nv);
        step(acc, a + 1, a3 + 1, lda, b, at + ldb, mr, nv);
        for (int j = 0; j < nv / 2; j++, next += 64)
            _mm_prefetch((const char *)next, _MM_HINT_T0);
    }
    if (k > 0)
        step(acc, a, a3, lda, b, at, mr, nv);
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            _mm256_storeu_ps(out + i * p->ldc + 8 * j, acc[i][j]);
}

/* All columns of mr rows. One or two rows need wide tiles: eight chains keep the FMA units busy. */
static ALWAYS_INLINE void strip(const product *p, int64_t r, int mr)
{
    int64_t c = 0;
    if (mr == 1)
        for (; c + 64 <= p->n; c += 64)
            tile(p, r, c, mr, 8);
    if (mr <= 3)
        for (; c + 32 <= p->n; c += 32)
            tile(p, r, c, mr, 4);
    for (; c < p->n; c += 16)
        tile(p, r, c, mr, 2);
}

#define STRIP(mr)                                                                                  \
    static void strip_##mr(const product *p, int64_t r)                                            \
    {                                                                                              \
        strip(p, r, mr);                                                                           \
    }
STRIP(1)
STRIP(2)
STRIP(3)
STRIP(4)
STRIP(5)
STRIP(6)

static void multiply(const product *p, int64_t rows)
{
    static void (*const strips[7])(const product *, int64_t) = {
        NULL, strip_1, strip_2, strip_3, strip_4, strip_5, strip_6,
    };
    for (int64_t r = 0, left; (left = rows - r) > 0;) {
        /* the last 7 to 10 rows are two even strips rather than 6 and a thin one */
        int64_t mr = left > 10 ? 6 : left > 6 ? (left + 1) / 2 : left;
        strips[mr](p, r);
        r += mr;
    }
}

/* cap * tanh(x / cap). The scores need it to a few ulp of cap only, so the cancellation near 0 is
 * harmless. */
static __m256 soften(__m256 x, float cap)
{
    const __m256 one = _mm256_set1_ps(1), sign = _mm256_set1_ps(-0.0f), c = _mm256_set1_ps(cap);
    __m256 z = _mm256_div_ps(x, c);
    __m256 e = exp8_negative(_mm256_mul_ps(_mm256_andnot_ps(sign, z), _mm256_set1_ps(-2)));
    __m256 t = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    return _mm256_mul_ps(c, _mm256_or_ps(t, _mm256_and_ps(sign, z)));
}

/* Softcap, and -inf for what the row doesn't see. */
static void mask_row(float *s, int64_t width, int64_t lo, int64_t hi, float cap)
{
    for (int64_t j = 0; j < width; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (cap > 0)
            v = soften(v, cap);
        __m256i in = _mm256_andnot_si256(lanes8(lo - j), lanes8(hi - j));
        _mm256_storeu_ps(s + j,
                         _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, _mm256_castsi256_ps(in)));
    }
}

/* Scores s[width] of one row to P in place, 0 outside lo..hi. Updates m and l; returns the factor
 * for the sums so far. */
static float softmax_row(float *s, float *ml, int64_t width, int64_t lo, int64_t hi, float cap)
{
    if (cap > 0 || lo > 0 || hi < width)
        mask_row(s, width, lo, hi, cap);
    __m256 max = _mm256_loadu_ps(s);
    for (int64_t j = 8; j < width; j += 8)
        max = _mm256_max_ps(max, _mm256_loadu_ps(s + j));
    float m = max8(max), f = 1;
    if (m > ml[0]) {
        /* 0 at the first block, where ml[0] is -inf */
        f = _mm256_cvtss_f32(exp8_negative(_mm256_set1_ps(ml[0] - m)));
        ml[0] = m;
    }
    const __m256 top = _mm256_set1_ps(ml[0]);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < width; j += 8) {
        __m256 e = exp8_negative(_mm256_sub_ps(_mm256_loadu_ps(s + j), top));
        _mm256_storeu_ps(s + j, e);
        sum = _mm256_add_ps(sum, e);
    }
    ml[1] = fmaf(ml[1], f, sum8(sum));
    return f;
}

static void block_avx2(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                       int64_t t1)
{
    product_block(w, b, j0, j1, t0, t1, multiply, softmax_row);
}

void attend_avx2(const ts_attend *p)
{
    ts_attend_run(p, block_avx2);
}

static void to_f16(uint16_t *y, const float *x, int64_t n)
{
    enum { nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), nearest));
    for (; i < n; i++)
        y[i] = _cvtss_sh(x[i], nearest);
}

static void store(void *k, void *v, int64_t pos, const float *k_row, const float *v_row,
                  int64_t head_dim, int64_t v_dim)
{
    uint16_t *kd = (uint16_t *)k + pos / 16 * 16 * head_dim + pos % 16;
    for (int64_t i = 0; i < head_dim; i += 16) {
        uint16_t h[16];
        int64_t n = head_dim - i < 16 ? head_dim - i : 16;
        to_f16(h, k_row + i, n);
        for (int64_t j = 0; j < n; j++)
            kd[(i + j) * 16] = h[j];
    }
    to_f16((uint16_t *)v + pos * ((v_dim + 15) & ~(int64_t)15), v_row, v_dim);
}

static void load(const void *k, const void *v, int64_t pos, float *k_row, float *v_row,
                 int64_t head_dim, int64_t v_dim)
{
    const uint16_t *kd = (const uint16_t *)k + pos / 16 * 16 * head_dim + pos % 16;
    const uint16_t *vd = (const uint16_t *)v + pos * ((v_dim + 15) & ~(int64_t)15);
    for (int64_t i = 0; i < head_dim; i++)
        k_row[i] = _cvtsh_ss(kd[i * 16]);
    for (int64_t i = 0; i < v_dim; i++)
        v_row[i] = _cvtsh_ss(vd[i]);
}

const ts_kv_layout ts_kv_avx2 = {
    .name = "f16.k16",
    .type = TS_TYPE_F16,
    .bytes = ts_kv_k16_bytes,
    .store = store,
    .load = load,
};

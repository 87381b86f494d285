/* attend_avx512.c - one block of attention with AVX-512 F: attend_avx2.c with vectors of 16.
 *
 * The same two products over the same layout, "f16.k16", whose strips of 16 columns are one vector
 * each. 32 registers hold tiles of up to 12 rows x 2 strips, so that a widened vector of B (two
 * micro-operations) meets twelve rows; few rows take more strips at once. */
#include <math.h>

#include "cpu/attend_product.h"
#include "cpu/math_avx512.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { MAX_ROWS = 12 };

/* One step of k: acc[mr][nv] += A[mr][1] B[1][16 nv]. */
static ALWAYS_INLINE void step(__m512 acc[MAX_ROWS][8], const float *const a[4], int64_t lda,
                               int64_t k, const uint16_t *const b[8], int64_t at, int mr, int nv)
{
    __m512 x[8];
    for (int j = 0; j < nv; j++)
        x[j] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(b[j] + at)));
    for (int i = 0; i < mr; i++) {
        __m512 v = _mm512_set1_ps(a[i / 3][i % 3 * lda + k]);
        for (int j = 0; j < nv; j++)
            acc[i][j] = _mm512_fmadd_ps(v, x[j], acc[i][j]);
    }
}

/* Rows r .. r + mr, columns c .. c + 16 nv. mr and nv are constants wherever this is inlined. For
 * every line of B a line of the next block is fetched. */
static ALWAYS_INLINE void tile(const product *p, int64_t r, int64_t c, int mr, int nv)
{
    __m512 acc[MAX_ROWS][8];
    float *out = p->c + r * p->ldc + c;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            acc[i][j] = p->f ? _mm512_mul_ps(_mm512_set1_ps(p->f[r + i]),
                                             _mm512_loadu_ps(out + i * p->ldc + 16 * j))
                             : _mm512_setzero_ps();
    const int64_t lda = p->lda, ldb = p->ldb, k1 = p->k & ~(int64_t)1;
    const float *a[4];
    const uint16_t *b[8];
    for (int i = 0; i < mr; i += 3) /* three rows are within a pointer's addressing modes */
        a[i / 3] = p->a + (r + i) * lda;
    for (int j = 0; j < nv; j++)
        b[j] = p->b + (c / 16 + j) * p->strip;
    uintptr_t next = p->next + (uintptr_t)(c * p->k) * sizeof *p->b;
    for (int64_t k = 0; k < k1; k += 2) {
        step(acc, a, lda, k, b, k * ldb, mr, nv);
        step(acc, a, lda, k + 1, b, (k + 1) * ldb, mr, nv);
        for (int j = 0; j < nv; j++, next += 64)
            _mm_prefetch((const char *)next, _MM_HINT_T0);
    }
    if (k1 < p->k)
        step(acc, a, lda, k1, b, k1 * ldb, mr, nv);
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            _mm512_storeu_ps(out + i * p->ldc + 16 * j, acc[i][j]);
}

/* All columns of mr rows. Few rows need wide tiles: eight chains keep the FMA units busy. */
static ALWAYS_INLINE void strip(const product *p, int64_t r, int mr)
{
    int64_t c = 0;
    if (mr == 1)
        for (; c + 128 <= p->n; c += 128)
            tile(p, r, c, mr, 8);
    if (mr <= 6)
        for (; c + 64 <= p->n; c += 64)
            tile(p, r, c, mr, 4);
    for (; c + 32 <= p->n; c += 32)
        tile(p, r, c, mr, 2);
    if (c < p->n)
        tile(p, r, c, mr, 1);
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
STRIP(7)
STRIP(8)
STRIP(9)
STRIP(10)
STRIP(11)
STRIP(12)

static void multiply(const product *p, int64_t rows)
{
    static void (*const strips[MAX_ROWS + 1])(const product *, int64_t) = {
        NULL,    strip_1, strip_2, strip_3,  strip_4,  strip_5,  strip_6,
        strip_7, strip_8, strip_9, strip_10, strip_11, strip_12,
    };
    /* even parts rather than full ones and a thin rest */
    int64_t parts = (rows + MAX_ROWS - 1) / MAX_ROWS;
    for (int64_t i = 0; i < parts; i++) {
        int64_t r = rows * i / parts;
        strips[rows * (i + 1) / parts - r](p, r);
    }
}

/* cap * tanh(x / cap). The scores need it to a few ulp of cap only, so the cancellation near 0 is
 * harmless. */
static __m512 soften(__m512 x, float cap)
{
    const __m512 one = _mm512_set1_ps(1), sign = _mm512_set1_ps(-0.0f), c = _mm512_set1_ps(cap);
    __m512 z = _mm512_div_ps(x, c);
    __m512 e = exp16(_mm512_mul_ps(_mm512_abs_ps(z), _mm512_set1_ps(-2)));
    __m512 t = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    return _mm512_mul_ps(c, _mm512_or_ps(t, _mm512_and_ps(sign, z)));
}

/* Softcap, and -inf for what the row doesn't see. */
static void mask_row(float *s, int64_t width, int64_t lo, int64_t hi, float cap)
{
    for (int64_t j = 0; j < width; j += 16) {
        __m512 v = _mm512_loadu_ps(s + j);
        if (cap > 0)
            v = soften(v, cap);
        __mmask16 in = (__mmask16)(lanes16(hi - j) & ~lanes16(lo - j));
        _mm512_storeu_ps(s + j, _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), in, v));
    }
}

/* Scores s[width] of one row to P in place, 0 outside lo..hi. Updates m and l; returns the factor
 * for the sums so far. */
static float softmax_row(float *s, float *ml, int64_t width, int64_t lo, int64_t hi, float cap)
{
    if (cap > 0 || lo > 0 || hi < width)
        mask_row(s, width, lo, hi, cap);
    __m512 max = _mm512_loadu_ps(s);
    for (int64_t j = 16; j < width; j += 16)
        max = _mm512_max_ps(max, _mm512_loadu_ps(s + j));
    float m = _mm512_reduce_max_ps(max), f = 1;
    if (m > ml[0]) {
        /* 0 at the first block, where ml[0] is -inf */
        f = _mm512_cvtss_f32(exp16(_mm512_set1_ps(ml[0] - m)));
        ml[0] = m;
    }
    const __m512 top = _mm512_set1_ps(ml[0]);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < width; j += 16) {
        __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(s + j), top));
        _mm512_storeu_ps(s + j, e);
        sum = _mm512_add_ps(sum, e);
    }
    ml[1] = fmaf(ml[1], f, _mm512_reduce_add_ps(sum));
    return f;
}

static void block_avx512(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                         int64_t t1)
{
    product_block(w, b, j0, j1, t0, t1, multiply, softmax_row);
}

void attend_avx512(const ts_attend *p)
{
    ts_attend_run(p, block_avx512);
}

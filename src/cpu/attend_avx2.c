/* attend_avx2.c - one block of attention with AVX2, FMA and F16C.
 *
 * Both products are small matrix products of one shape, C[rows][n] = A[rows][k] B[k][n]:
 *
 *     S[rows][64]       = Q[rows][head_dim]  K^T[head_dim][64]
 *     acc[rows][head_dim] = f acc + P[rows][64]  V[64][head_dim]
 *
 * done in tiles of up to 6 rows x 16 columns held in registers. B is F16 in memory. With many rows
 * it is widened to F32 once and read by every tile; with few (decode) the tile widens it as it
 * reads, so that a position costs little more than its way from memory. Either way an element of C
 * is one chain of FMAs in the order of k: the tile's shape doesn't show in the bits, nor does a
 * position that a row doesn't see, whose P is an exact 0. */
#include <math.h>

#include "cpu/attend.h"
#include "cpu/math_avx2.h"

/* Up to this many rows the tiles widen B themselves. */
#define FEW_ROWS 6

/* One product; the same letters as above. */
typedef struct product {
    float *c;
    const float *a;
    const float *f; /* row r of C starts as f[r] * C; NULL: as 0      */
    const void *b;  /* F16 or F32                                     */
    int64_t ldc, lda, ldb;
    int64_t n, k; /* n a multiple of 16                             */
} product;

static inline __attribute__((always_inline)) __m256 load_b(const void *b, int64_t i, bool half)
{
    return half ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)b + i)))
                : _mm256_loadu_ps((const float *)b + i);
}

/* Rows r .. r + mr, columns c .. c + 8 * nv. mr, nv and half are constants wherever this is
 * inlined. */
static inline __attribute__((always_inline)) void tile(const product *p, int64_t r, int64_t c,
                                                       int mr, int nv, bool half)
{
    __m256 acc[6][8];
    float *out = p->c + r * p->ldc + c;
    const float *a = p->a + r * p->lda;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            acc[i][j] = p->f ? _mm256_mul_ps(_mm256_set1_ps(p->f[r + i]),
                                             _mm256_loadu_ps(out + i * p->ldc + 8 * j))
                             : _mm256_setzero_ps();
    for (int64_t k = 0; k < p->k; k++) {
        __m256 b[8];
        for (int j = 0; j < nv; j++)
            b[j] = load_b(p->b, k * p->ldb + c + 8 * j, half);
        for (int i = 0; i < mr; i++) {
            __m256 x = _mm256_broadcast_ss(a + i * p->lda + k);
            for (int j = 0; j < nv; j++)
                acc[i][j] = _mm256_fmadd_ps(x, b[j], acc[i][j]);
        }
    }
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            _mm256_storeu_ps(out + i * p->ldc + 8 * j, acc[i][j]);
}

/* All columns of mr rows. One or two rows need wide tiles: eight chains keep the FMA units busy. */
static inline __attribute__((always_inline)) void strip(const product *p, int64_t r, int mr,
                                                        bool half)
{
    int64_t c = 0;
    if (mr == 1)
        for (; c + 64 <= p->n; c += 64)
            tile(p, r, c, mr, 8, half);
    if (mr <= 3)
        for (; c + 32 <= p->n; c += 32)
            tile(p, r, c, mr, 4, half);
    for (; c < p->n; c += 16)
        tile(p, r, c, mr, 2, half);
}

#define STRIP(mr)                                                                                  \
    static void strip_half_##mr(const product *p, int64_t r)                                       \
    {                                                                                              \
        strip(p, r, mr, true);                                                                     \
    }                                                                                              \
    static void strip_float_##mr(const product *p, int64_t r)                                      \
    {                                                                                              \
        strip(p, r, mr, false);                                                                    \
    }
STRIP(1)
STRIP(2)
STRIP(3)
STRIP(4)
STRIP(5)
STRIP(6)

static void multiply(const product *p, int64_t rows, bool half)
{
    static void (*const strips[2][7])(const product *, int64_t) = {
        {NULL, strip_float_1, strip_float_2, strip_float_3, strip_float_4, strip_float_5,
         strip_float_6},
        {NULL, strip_half_1, strip_half_2, strip_half_3, strip_half_4, strip_half_5, strip_half_6},
    };
    for (int64_t r = 0, left; (left = rows - r) > 0;) {
        /* the last 7 to 10 rows are two even strips rather than 6 and a thin one */
        int64_t mr = left > 10 ? 6 : left > 6 ? (left + 1) / 2 : left;
        strips[half][mr](p, r);
        r += mr;
    }
}

/* The 8x8 transposition of 16-bit elements, in both halves of the vectors at once. */
static inline void transpose16(__m256i r[8])
{
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_unpacklo_epi32(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi32(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm256_unpacklo_epi64(b[i], b[4 + i]);
        r[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[4 + i]);
    }
}

/* kh[i][j] = k[j][i] for 16 positions from j. Positions outside j0..j1 may not exist: their place
 * is taken by the nearest that does, and the mask keeps it out of the sums. */
static void transpose_k(uint16_t *kh, const uint16_t *k, int64_t j, int64_t j0, int64_t j1,
                        int64_t head_dim)
{
    const uint16_t *row[16];
    for (int64_t i = 0; i < 16; i++) {
        int64_t src = j + i < j0 ? j0 : j + i >= j1 ? j1 - 1 : j + i;
        row[i] = k + src * head_dim;
    }
    int64_t d = 0;
    for (; d + 8 <= head_dim; d += 8) {
        __m256i r[8];
        for (int i = 0; i < 8; i++)
            r[i] = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row[i] + d))),
                _mm_loadu_si128((const __m128i *)(row[i + 8] + d)), 1);
        transpose16(r);
        for (int i = 0; i < 8; i++)
            _mm256_storeu_si256((__m256i *)(kh + (d + i) * ATTEND_BLOCK + j), r[i]);
    }
    for (; d < head_dim; d++)
        for (int i = 0; i < 16; i++)
            kh[d * ATTEND_BLOCK + j + i] = row[i][d];
}

/* n a multiple of 8 */
static void widen(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
}

/* Rows of head_dim to rows of lda = head_dim rounded up to 16, the columns between them 0. */
static void widen_rows(float *y, const uint16_t *x, int64_t rows, int64_t head_dim, int64_t lda)
{
    for (int64_t r = 0; r < rows; r++, y += lda, x += head_dim) {
        int64_t d = head_dim & ~(int64_t)7;
        widen(y, x, d);
        for (; d < lda; d++)
            y[d] = d < head_dim ? _cvtsh_ss(x[d]) : 0;
    }
}

/* cap * tanh(x / cap). The scores need it to a few ulp of cap only, so the cancellation near 0 is
 * harmless. */
static __m256 soften(__m256 x, float cap)
{
    const __m256 one = _mm256_set1_ps(1), sign = _mm256_set1_ps(-0.0f), c = _mm256_set1_ps(cap);
    __m256 z = _mm256_div_ps(x, c);
    __m256 e = exp8(_mm256_mul_ps(_mm256_andnot_ps(sign, z), _mm256_set1_ps(-2)));
    __m256 t = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    return _mm256_mul_ps(c, _mm256_or_ps(t, _mm256_and_ps(sign, z)));
}

/* Scores s[width] of one row to P in place, with what lies outside lo..hi 0. Updates m and l;
 * returns the factor for the sums so far. */
static float softmax_row(float *s, float *ml, int64_t width, int64_t lo, int64_t hi, float cap)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    __m256 max = none;
    for (int64_t j = 0; j < width; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (cap > 0)
            v = soften(v, cap);
        if (j < lo || j + 8 > hi) {
            __m256 in = _mm256_castsi256_ps(_mm256_andnot_si256(lanes8(lo - j), lanes8(hi - j)));
            v = _mm256_blendv_ps(none, v, in);
        }
        _mm256_storeu_ps(s + j, v);
        max = _mm256_max_ps(max, v);
    }
    float m = max8(max);
    m = m > ml[0] ? m : ml[0];
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < width; j += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(m)));
        _mm256_storeu_ps(s + j, e);
        sum = _mm256_add_ps(sum, e);
    }
    /* 0 at the first block, where ml[0] is -inf */
    float f = _mm256_cvtss_f32(exp8(_mm256_set1_ps(ml[0] - m)));
    ml[0] = m;
    ml[1] = fmaf(ml[1], f, sum8(sum));
    return f;
}

static void block_avx2(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                       int64_t t1)
{
    const ts_attend *p = w->p;
    const int64_t d = p->head_dim, r0 = t0 * p->n_group, rows = (t1 - t0) * p->n_group;
    const int64_t c0 = j0 & ~(int64_t)15, width = ((j1 + 15) & ~(int64_t)15) - c0;
    const bool few = rows <= FEW_ROWS;
    const uint16_t *k = p->k + b * d, *v = p->v + (b + j0) * d;
    float *score = w->s + r0 * ATTEND_BLOCK + c0;

    for (int64_t j = c0; j < j1; j += 16)
        transpose_k(w->kh, k, j, j0, j1, d);
    if (!few)
        widen(w->kf, w->kh, d * ATTEND_BLOCK);
    product s = {.c = score,
                 .ldc = ATTEND_BLOCK,
                 .a = w->q + r0 * d,
                 .lda = d,
                 .ldb = ATTEND_BLOCK,
                 .b = few ? (void *)(w->kh + c0) : (void *)(w->kf + c0),
                 .n = width,
                 .k = d};
    multiply(&s, rows, few);

    float *row = score, *ml = w->ml + 2 * r0, *f = w->f;
    for (int64_t t = t0; t < t1; t++) {
        int64_t lo, hi;
        attend_visible(p, b, t, j0, j1, &lo, &hi);
        for (int64_t g = 0; g < p->n_group; g++, row += ATTEND_BLOCK, ml += 2)
            *f++ = softmax_row(row, ml, width, lo - c0, hi - c0, p->softcap);
    }

    /* Reading V in place takes rows of whole tiles. */
    const bool in_place = few && d == w->lda;
    if (!in_place)
        widen_rows(w->vf, v, j1 - j0, d, w->lda);
    product o = {.c = w->acc + r0 * w->lda,
                 .ldc = w->lda,
                 .a = score + (j0 - c0),
                 .lda = ATTEND_BLOCK,
                 .f = w->f,
                 .b = in_place ? (const void *)v : w->vf,
                 .ldb = w->lda,
                 .n = w->lda,
                 .k = j1 - j0};
    multiply(&o, rows, in_place);
}

void attend_avx2(const ts_attend *p)
{
    ts_attend_run(p, block_avx2);
}

/* attend_amx.c - attention with tiles; AVX-512 between the two products.
 *
 * A task's query rows are columns here. For 32 of them and a block of 128 positions:
 *
 *     S^T[128 positions][rows] = K[128][dims] Q^T[dims][rows]
 *     P^T = 2^(S^T - m)                       one vector = one position x 16 rows
 *     O^T[dims][rows] += V^T[dims][128] P^T[128][rows]
 *
 * K and V^T are the A operands, whose rows are plain rows: store can put a position of K down as
 * whole lines. Maxima, exponentials, sums and rescaling go along the columns, lane by lane, with no
 * reduction across a vector; and two neighbouring positions of P^T, rounded and interleaved, are a
 * row of the B operand as TDPBF16PS wants it. Nothing is transposed but Q, once a task, and O.
 *
 * Q is multiplied by the scale and by log2 e before it is rounded to BF16, so exponentials are
 * powers of two. They are relative to an integer m not below the maximum: rescaling by 2^(old -
 * new) then never rounds, and most blocks don't raise m at all. The row sum is taken over the
 * rounded P, of which PV is made: the weights a row really uses sum to one, and what all V have in
 * common passes unharmed.
 *
 * One kernel serves any number of tokens. With four query rows twelve lanes are idle, and it still
 * takes K and V faster than memory gives them. */
#include <math.h>
#include <string.h>

#include "cpu/attend.h"
#include "cpu/intrin.h"
#include "cpu/tiles.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum {
    LANES = 16, /* query rows of a column tile                                         */
    TILE = 512, /* BF16 elements of a tile: 16 rows of 32                              */
    GROUP = 32, /* positions that one PV product takes                                 */
    BLOCK = 128 /* positions between two rescalings: S of two column tiles is 16 KB    */
};

/* Running sums of a task, or of one segment of it. */
typedef struct sums {
    float *acc; /* [cols][chunks * 32 dims][LANES] */
    float *m;   /* [cols][LANES] exponents are relative to it; -INFINITY: nothing seen */
    float *l;   /* [cols][LANES] */
} sums;

typedef struct walk {
    const ts_attend *p;
    int64_t rows, cols; /* n_tokens * n_group; column tiles of them                       */
    int64_t chunks;     /* of 32 dimensions                                               */
    int64_t lo, hi;     /* positions that some token sees                                 */
    uint16_t *q;        /* [cols][chunks] tiles: [16 pairs of dims][LANES][2]             */
    float *s;           /* [2][BLOCK][LANES] S^T; then P^T: [2][BLOCK/2 pairs][LANES][2]  */
    uint16_t *edge[2];  /* [chunks][2] tiles: V of the groups that lo and hi cut          */
    sums whole, segment;
} walk;

/* --- where things are ------------------------------------------------------- */

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t first_seen(const ts_attend *p, int64_t t)
{
    int64_t lo = p->window > 0 ? p->pos0 + t - p->window + 1 : 0;
    lo = lo > p->k0 ? lo : p->k0;
    return lo > 0 ? lo : 0;
}

static int64_t end_seen(const ts_attend *p, int64_t t)
{
    return p->pos0 + t + 1 < p->k1 ? p->pos0 + t + 1 : p->k1;
}

static int64_t token_of(const walk *w, int64_t row)
{
    return (row < w->rows ? row : w->rows - 1) / w->p->n_group;
}

/* The tile of K with 16 positions from pos (a multiple of 16): its first chunk of dimensions. */
static const uint16_t *k_tile(const walk *w, int64_t pos)
{
    return (const uint16_t *)w->p->k + pos / 16 * w->chunks * TILE;
}

/* Both tiles of V with 32 positions from pos (a multiple of 32) and a chunk of dimensions. */
static size_t v_offset(int64_t pos, int64_t chunk, int64_t chunks)
{
    return (size_t)(((pos / BLOCK * chunks + chunk) * (BLOCK / GROUP) + pos % BLOCK / GROUP) * 2 *
                    TILE);
}

static const uint16_t *v_tiles(const walk *w, int64_t pos, int64_t chunk)
{
    if (pos < w->lo)
        return w->edge[0] + chunk * 2 * TILE;
    if (pos + GROUP > w->hi)
        return w->edge[1] + chunk * 2 * TILE;
    return (const uint16_t *)w->p->v + v_offset(pos, chunk, w->chunks);
}

static __mmask16 first_lanes(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

/* r[i] lane j <-> r[j] lane i */
static void transpose16(__m512i r[16])
{
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    /* b[4 i + j] holds in its quarter q column 4 q + j of rows 4 i .. 4 i + 3 */
    for (int j = 0; j < 4; j++) {
        __m512i x = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
        __m512i y = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        r[j] = _mm512_shuffle_i32x4(x, y, 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(x, y, 0xdd);
        x = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        y = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        r[4 + j] = _mm512_shuffle_i32x4(x, y, 0x88);
        r[12 + j] = _mm512_shuffle_i32x4(x, y, 0xdd);
    }
}

/* --- once a task ------------------------------------------------------------ */

/* 32 floats times f as BF16, zeros past n. */
static __m512i to_bf16(const float *x, int64_t n, __m512 f)
{
    __m512 a = _mm512_maskz_loadu_ps(first_lanes(n), x);
    __m512 b = n > 16 ? _mm512_maskz_loadu_ps(first_lanes(n - 16), x + 16) : _mm512_setzero_ps();
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(b, f), _mm512_mul_ps(a, f));
}

static void pack_queries(const walk *w)
{
    const ts_attend *p = w->p;
    const float log2e = 1.44269504f;
    __m512 f = _mm512_set1_ps(p->softcap > 0 ? p->scale / p->softcap : p->scale * log2e);
    for (int64_t c = 0; c < w->cols; c++)
        for (int64_t i = 0; i < w->chunks; i++) {
            __m512i r[LANES];
            for (int64_t j = 0; j < LANES; j++) {
                int64_t row = c * LANES + j;
                const float *x = p->q + row / p->n_group * p->ldq + row % p->n_group * p->head_dim;
                r[j] = row < w->rows ? to_bf16(x + i * 32, p->head_dim - i * 32, f)
                                     : _mm512_setzero_si512();
            }
            transpose16(r);
            for (int64_t j = 0; j < LANES; j++)
                _mm512_storeu_si512(w->q + (c * w->chunks + i) * TILE + j * 32, r[j]);
        }
}

/* V of a group with zeros where no token looks: what is there may be NaN, and 0 x NaN is NaN. */
static void copy_edge(const walk *w, uint16_t *dst, int64_t pos)
{
    uint32_t mask = 0;
    for (int64_t j = 0; j < GROUP; j++)
        mask |= (uint32_t)(pos + j >= w->lo && pos + j < w->hi) << j;
    for (int64_t i = 0; i < w->chunks; i++) {
        const uint16_t *src = (const uint16_t *)w->p->v + v_offset(pos, i, w->chunks);
        for (int64_t j = 0; j < 2 * TILE; j += GROUP)
            _mm512_storeu_si512(dst + i * 2 * TILE + j, _mm512_maskz_loadu_epi16(mask, src + j));
    }
}

static void copy_edges(const walk *w)
{
    int64_t first = w->lo / GROUP * GROUP, last = (w->hi - 1) / GROUP * GROUP;
    if (first < w->lo)
        copy_edge(w, w->edge[0], first);
    if (last + GROUP > w->hi && last >= w->lo)
        copy_edge(w, w->edge[1], last);
}

static void clear(const walk *w, const sums *s)
{
    memset(s->acc, 0, (size_t)(w->cols * w->chunks * 32 * LANES) * sizeof(float));
    for (int64_t i = 0; i < w->cols * LANES; i++) {
        s->m[i] = -INFINITY;
        s->l[i] = 0;
    }
}

/* --- a block ---------------------------------------------------------------- */

static ALWAYS_INLINE void prefetch_tile(const uint16_t *t)
{
    for (int i = 0; i < TILE; i += 32)
        _mm_prefetch((const char *)(t + i), _MM_HINT_T1);
}

/* S^T of n column tiles from c, positions b + j0 .. b + j1. Tiles: 0..3 S^T, 4 and 5 K, 6 and 7 Q.
 *
 * The first columns to pass fetch the block after this one. */
static ALWAYS_INLINE void scores(const walk *w, int64_t b, int64_t j0, int64_t j1, int64_t c, int n)
{
    const int64_t len = w->chunks * TILE, ahead = BLOCK / 16 * len;
    ts_tiles_see_stores();
    const uint16_t *q0 = w->q + c * len, *q1 = q0 + len;
    for (int64_t j = j0; j < j1; j += 32) {
        const uint16_t *k0 = k_tile(w, b + j), *k1 = k0 + len;
        _tile_zero(0);
        _tile_zero(1);
        if (n == 2) {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t i = 0; i < len; i += TILE) {
            _tile_loadd(6, q0 + i, 64);
            _tile_loadd(4, k0 + i, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, k1 + i, 64);
            _tile_dpbf16ps(1, 5, 6);
            if (n == 2) {
                _tile_loadd(7, q1 + i, 64);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
            if (c == 0) {
                prefetch_tile(k0 + ahead + i);
                prefetch_tile(k1 + ahead + i);
            }
        }
        float *s0 = w->s + j * LANES, *s1 = s0 + BLOCK * LANES;
        _tile_stored(0, s0, 64);
        _tile_stored(1, s0 + 16 * LANES, 64);
        if (n == 2) {
            _tile_stored(2, s1, 64);
            _tile_stored(3, s1 + 16 * LANES, 64);
        }
    }
}

/* O^T += V^T P^T for n column tiles from c. Tiles: 0..3 O^T, 4 and 5 V^T, 6 and 7 P^T. */
static ALWAYS_INLINE void add_values(const walk *w, int64_t b, int64_t j0, int64_t j1, int64_t c,
                                     int n)
{
    const int64_t len = w->chunks * 32 * LANES, ahead = BLOCK * w->chunks * 32;
    ts_tiles_see_stores();
    for (int64_t i = 0; i < w->chunks; i++) {
        float *a0 = w->segment.acc + c * len + i * 32 * LANES, *a1 = a0 + len;
        _tile_loadd(0, a0, 64);
        _tile_loadd(1, a0 + 16 * LANES, 64);
        if (n == 2) {
            _tile_loadd(2, a1, 64);
            _tile_loadd(3, a1 + 16 * LANES, 64);
        }
        for (int64_t j = j0; j < j1; j += GROUP) {
            const uint16_t *v = v_tiles(w, b + j, i);
            const float *p0 = w->s + j / 2 * LANES, *p1 = p0 + BLOCK * LANES;
            _tile_loadd(6, p0, 64);
            _tile_loadd(4, v, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, v + TILE, 64);
            _tile_dpbf16ps(1, 5, 6);
            if (n == 2) {
                _tile_loadd(7, p1, 64);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
            if (c == 0) {
                prefetch_tile(v + ahead);
                prefetch_tile(v + ahead + TILE);
            }
        }
        _tile_stored(0, a0, 64);
        _tile_stored(1, a0 + 16 * LANES, 64);
        if (n == 2) {
            _tile_stored(2, a1, 64);
            _tile_stored(3, a1 + 16 * LANES, 64);
        }
    }
}

/* 2^y, to 7.5e-5: P is rounded to 8 bits. y - floor(y) is 0 for an infinity, and VSCALEFPS takes
 * the floor of its exponent, so that 2^-inf is 0. NaN stays NaN. */
static ALWAYS_INLINE __m512 exp2_rough(__m512 y)
{
    __m512 x = _mm512_reduce_ps(y, 0x09);
    __m512 p = _mm512_set1_ps(0x1.3f96a9p-4f);
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(0x1.cefc56p-3f));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(0x1.644448p-1f));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(0x1.fff634p-1f));
    return _mm512_scalef_ps(p, y);
}

/* 2^y for y <= 0, to 2 ulp: the same, with the Taylor series of 2^x about 1/2. */
static __m512 exp2_fine(__m512 y)
{
    const float ln2 = 0.693147181f;
    __m512 x = _mm512_sub_ps(_mm512_reduce_ps(y, 0x09), _mm512_set1_ps(0.5f));
    x = _mm512_mul_ps(x, _mm512_set1_ps(ln2)); /* |x| < 0.35 */
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1));
    p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(1));
    return _mm512_scalef_ps(_mm512_mul_ps(p, _mm512_set1_ps(1.41421356f)), y);
}

/* Scores over the cap to capped scores in units of ln 2: cap log2(e) tanh(z). A few ulp of the cap
 * are enough, so the cancellation near 0 is harmless. */
static void soften(float *s, int64_t j0, int64_t j1, float cap)
{
    const float log2e = 1.44269504f;
    const __m512 one = _mm512_set1_ps(1), f = _mm512_set1_ps(cap * log2e);
    for (int64_t j = j0; j < j1; j++) {
        __m512 z = _mm512_loadu_ps(s + j * LANES);
        __m512 e = exp2_fine(_mm512_mul_ps(_mm512_abs_ps(z), _mm512_set1_ps(-2 * log2e)));
        __m512 t = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
        __mmask16 negative = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ);
        t = _mm512_mask_sub_ps(t, negative, _mm512_setzero_ps(), t);
        _mm512_storeu_ps(s + j * LANES, _mm512_mul_ps(t, f));
    }
}

/* -inf where a row doesn't see the position. */
static void mask_scores(const walk *w, float *s, int64_t b, int64_t j0, int64_t j1, int64_t c)
{
    int32_t from[LANES], to[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        int64_t t = token_of(w, c * LANES + i);
        int64_t lo = first_seen(w->p, t) - b, hi = end_seen(w->p, t) - b;
        from[i] = (int32_t)(lo < 0 ? 0 : lo > BLOCK ? BLOCK : lo);
        to[i] = (int32_t)(hi < 0 ? 0 : hi > BLOCK ? BLOCK : hi);
    }
    const __m512i lo = _mm512_loadu_si512(from), hi = _mm512_loadu_si512(to);
    for (int64_t j = j0; j < j1; j++) {
        __m512i at = _mm512_set1_epi32((int)j);
        __mmask16 in =
            (__mmask16)(_mm512_cmpgt_epi32_mask(hi, at) & ~_mm512_cmpgt_epi32_mask(lo, at));
        __m512 v = _mm512_loadu_ps(s + j * LANES);
        _mm512_storeu_ps(s + j * LANES, _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), in, v));
    }
}

/* Raises m of column tile c to what these scores need; returns it, 0 for rows that see nothing. */
static __m512 raise(const walk *w, const float *s, int64_t j0, int64_t j1, int64_t c)
{
    const __m512 none = _mm512_set1_ps(-INFINITY), one = _mm512_set1_ps(1);
    __m512 max[4] = {none, none, none, none};
    for (int64_t j = j0; j < j1; j += 4)
        for (int i = 0; i < 4; i++)
            max[i] = _mm512_max_ps(_mm512_loadu_ps(s + (j + i) * LANES), max[i]);
    __m512 top = _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]));
    top = _mm512_roundscale_ps(top, 0x0a); /* up to an integer */

    float *m = w->segment.m + c * LANES, *l = w->segment.l + c * LANES;
    __m512 old = _mm512_loadu_ps(m);
    __mmask16 up = _mm512_cmp_ps_mask(top, old, _CMP_GT_OQ);
    __mmask16 seen = _mm512_cmp_ps_mask(old, none, _CMP_NEQ_UQ);
    if (up & seen) {
        const int64_t len = w->chunks * 32 * LANES;
        float *acc = w->segment.acc + c * len;
        __m512 f = _mm512_mask_scalef_ps(one, up, one, _mm512_sub_ps(old, top));
        for (int64_t i = 0; i < len; i += LANES)
            _mm512_storeu_ps(acc + i, _mm512_mul_ps(_mm512_loadu_ps(acc + i), f));
        _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), f));
    }
    old = _mm512_mask_mov_ps(old, up, top);
    _mm512_storeu_ps(m, old);
    seen = _mm512_cmp_ps_mask(old, none, _CMP_NEQ_UQ);
    return _mm512_mask_mov_ps(_mm512_setzero_ps(), seen, old);
}

/* Scores to P^T, in the same place: rows j and j + 1 become the row of pairs j / 2. */
static void exponentials(const walk *w, float *s, int64_t j0, int64_t j1, int64_t c, __m512 m)
{
    uint16_t order[32]; /* two positions x 16 rows to 16 rows x two positions */
    for (int i = 0; i < 32; i++)
        order[i] = (uint16_t)(i / 2 + i % 2 * 16);
    const __m512i pairs = _mm512_loadu_si512(order), ones = _mm512_set1_epi32(0x3f803f80);
    float *l = w->segment.l + c * LANES;
    __m512 sum = _mm512_loadu_ps(l);
    for (int64_t j = j0; j < j1; j += 2) {
        __m512 e0 = exp2_rough(_mm512_sub_ps(_mm512_loadu_ps(s + j * LANES), m));
        __m512 e1 = exp2_rough(_mm512_sub_ps(_mm512_loadu_ps(s + (j + 1) * LANES), m));
        __m512i p = _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(e1, e0));
        _mm512_storeu_si512(s + j / 2 * LANES, p);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)p, (__m512bh)ones);
    }
    _mm512_storeu_ps(l, sum);
}

/* The block at b for n column tiles from c. */
static ALWAYS_INLINE void add_block(const walk *w, int64_t b, int64_t c, int n)
{
    const ts_attend *p = w->p;
    int64_t t0 = token_of(w, c * LANES), t1 = token_of(w, (c + n) * LANES - 1);
    int64_t j0 = first_seen(p, t0) - b, j1 = end_seen(p, t1) - b;
    j0 = j0 < 0 ? 0 : j0 / GROUP * GROUP;
    j1 = j1 > BLOCK ? BLOCK : round_up(j1, GROUP);
    if (j0 >= j1)
        return;
    bool all_see = first_seen(p, t1) <= b + j0 && end_seen(p, t0) >= b + j1;
    scores(w, b, j0, j1, c, n);
    for (int64_t i = 0; i < n; i++) {
        float *s = w->s + i * BLOCK * LANES;
        if (p->softcap > 0)
            soften(s, j0, j1, p->softcap);
        if (!all_see)
            mask_scores(w, s, b, j0, j1, c + i);
        exponentials(w, s, j0, j1, c + i, raise(w, s, j0, j1, c + i));
    }
    add_values(w, b, j0, j1, c, n);
}

static void add_segment(const walk *w, int64_t s0, int64_t s1)
{
    for (int64_t b = s0 / BLOCK * BLOCK; b < s1; b += BLOCK) {
        int64_t c = 0;
        for (; c + 2 <= w->cols; c += 2)
            add_block(w, b, c, 2);
        if (c < w->cols)
            add_block(w, b, c, 1);
    }
}

/* --- joining segments ------------------------------------------------------- */

/* Sums relative to m2 are added to sums relative to m: returns the new m, and the powers of two for
 * both. A row that nothing was seen of counts as 0. */
static __m512 join(__m512 m, __m512 m2, __m512 *f, __m512 *f2)
{
    const __m512 none = _mm512_set1_ps(-INFINITY), one = _mm512_set1_ps(1);
    __m512 top = _mm512_max_ps(m, m2);
    *f = _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(m, none, _CMP_NEQ_UQ), one,
                                _mm512_sub_ps(m, top));
    *f2 = _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(m2, none, _CMP_NEQ_UQ), one,
                                 _mm512_sub_ps(m2, top));
    return top;
}

/* a f + b f2, of which only the addition rounds. */
static __m512 blend(__m512 a, __m512 f, __m512 b, __m512 f2)
{
    return _mm512_fmadd_ps(b, f2, _mm512_mul_ps(a, f));
}

static void fold(const walk *w, const sums *to, const sums *from)
{
    const int64_t len = w->chunks * 32 * LANES;
    for (int64_t c = 0; c < w->cols; c++) {
        float *m = to->m + c * LANES, *l = to->l + c * LANES, *acc = to->acc + c * len;
        const float *acc2 = from->acc + c * len;
        __m512 f, f2, l2 = _mm512_loadu_ps(from->l + c * LANES);
        __m512 top = join(_mm512_loadu_ps(m), _mm512_loadu_ps(from->m + c * LANES), &f, &f2);
        _mm512_storeu_ps(m, top);
        _mm512_storeu_ps(l, blend(_mm512_loadu_ps(l), f, l2, f2));
        for (int64_t i = 0; i < len; i += LANES)
            _mm512_storeu_ps(acc + i,
                             blend(_mm512_loadu_ps(acc + i), f, _mm512_loadu_ps(acc2 + i), f2));
    }
}

void attend_amx_merge(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                      int64_t n_tokens, int64_t n_group, int64_t head_dim)
{
    int64_t rows = n_tokens * n_group;
    for (int64_t r = 0; r < rows; r++) {
        float *y = o + r / n_group * ldo + r % n_group * head_dim, l[LANES];
        __m512 m = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        memset(y, 0, (size_t)head_dim * sizeof(float));
        for (int64_t i = 0; i < n_parts; i++) {
            const float *ml = part + 2 * (i * rows + r), *x = po + (i * rows + r) * head_dim;
            __m512 f, f2;
            m = join(m, _mm512_set1_ps(ml[0]), &f, &f2);
            sum = blend(sum, f, _mm512_set1_ps(ml[1]), f2);
            for (int64_t d = 0; d < head_dim; d += LANES) {
                __mmask16 in = first_lanes(head_dim - d);
                __m512 a = _mm512_maskz_loadu_ps(in, y + d);
                __m512 b = _mm512_maskz_loadu_ps(in, x + d);
                _mm512_mask_storeu_ps(y + d, in, blend(a, f, b, f2));
            }
        }
        _mm512_storeu_ps(l, sum);
        float f = l[0] > 0 ? 1 / l[0] : 0;
        for (int64_t d = 0; d < head_dim; d++)
            y[d] *= f;
    }
}

/* O^T to rows, divided by their sums unless they are a part. */
static void finish(const walk *w)
{
    const ts_attend *p = w->p;
    for (int64_t row = 0; row < w->rows && p->part; row++) {
        p->part[2 * row] = w->whole.m[row];
        p->part[2 * row + 1] = w->whole.l[row];
    }
    for (int64_t c = 0; c < w->cols; c++)
        for (int64_t d = 0; d < p->head_dim; d += 16) {
            const float *acc = w->whole.acc + (c * w->chunks * 32 + d) * LANES;
            __m512i r[16];
            for (int i = 0; i < 16; i++)
                r[i] = _mm512_loadu_si512(acc + i * LANES);
            transpose16(r);
            for (int64_t i = 0; i < LANES && c * LANES + i < w->rows; i++) {
                int64_t row = c * LANES + i;
                float l = w->whole.l[row], f = p->part ? 1 : l > 0 ? 1 / l : 0;
                float *o = p->o + row / p->n_group * p->ldo + row % p->n_group * p->head_dim + d;
                _mm512_mask_storeu_ps(o, first_lanes(p->head_dim - d),
                                      _mm512_mul_ps(_mm512_castsi512_ps(r[i]), _mm512_set1_ps(f)));
            }
        }
}

/* --- a task ----------------------------------------------------------------- */

static size_t acc_floats(int64_t cols, int64_t chunks)
{
    return (size_t)cols * (size_t)chunks * 32 * LANES;
}

size_t attend_amx_scratch(int64_t n_group, int64_t head_dim)
{
    int64_t rows = 16 * n_group > ATTEND_AMX_ROWS ? 16 * n_group : ATTEND_AMX_ROWS;
    size_t cols = (size_t)round_up(rows, LANES) / LANES;
    size_t chunks = (size_t)round_up(head_dim, 32) / 32;
    size_t tiles = cols * chunks + 2 * chunks * 2;
    size_t floats = acc_floats((int64_t)cols, (int64_t)chunks) + 2 * cols * LANES;
    return tiles * TILE * sizeof(uint16_t) + (2 * BLOCK * LANES + 2 * floats) * sizeof(float);
}

/* q | edges | s | acc m l of the whole | acc m l of a segment: all multiples of 64 bytes. */
static void carve(walk *w)
{
    uint16_t *t = w->p->scratch;
    w->q = t, t += w->cols * w->chunks * TILE;
    for (int i = 0; i < 2; i++)
        w->edge[i] = t, t += w->chunks * 2 * TILE;
    float *f = (float *)t;
    w->s = f, f += 2 * BLOCK * LANES;
    sums *s[2] = {&w->whole, &w->segment};
    for (int i = 0; i < 2; i++) {
        s[i]->acc = f, f += acc_floats(w->cols, w->chunks);
        s[i]->m = f, f += w->cols * LANES;
        s[i]->l = f, f += w->cols * LANES;
    }
}

static void add_all(walk *w)
{
    const sums whole = w->whole, segment = w->segment;
    pack_queries(w);
    copy_edges(w);
    int64_t first = w->lo / TS_ATTEND_SEGMENT * TS_ATTEND_SEGMENT;
    for (int64_t s0 = first; s0 < w->hi; s0 += TS_ATTEND_SEGMENT) {
        int64_t s1 = s0 + TS_ATTEND_SEGMENT;
        /* the first segment needs no folding: it is summed where the whole is */
        w->segment = s0 == first ? whole : segment;
        if (s0 > first)
            clear(w, &segment);
        add_segment(w, s0 > w->lo ? s0 : w->lo, s1 < w->hi ? s1 : w->hi);
        if (s0 > first)
            fold(w, &whole, &segment);
    }
}

void attend_amx(const ts_attend *task)
{
    ts_attend p = *task;
    walk w = {.p = &p, .rows = p.n_tokens * p.n_group, .chunks = round_up(p.head_dim, 32) / 32};
    w.cols = round_up(w.rows, LANES) / LANES;
    /* A window that reaches before position 0 for every token is none: sums with it can't overflow.
     */
    if (p.window >= p.pos0 + p.n_tokens)
        p.window = 0;
    w.lo = first_seen(&p, 0);
    w.hi = end_seen(&p, p.n_tokens - 1);
    carve(&w);
    clear(&w, &w.whole);
    if (w.lo < w.hi)
        add_all(&w);
    finish(&w);
}

/* --- the cache -------------------------------------------------------------- */

static size_t tiles_bytes(int64_t n_ctx, int64_t head_dim)
{
    return (size_t)round_up(n_ctx, BLOCK) * (size_t)round_up(head_dim, 32) * sizeof(uint16_t);
}

/* K[pos / 16][dims / 32][16 positions][32 dims], dims past head_dim zero: the rows of A.
 * V[pos / 128][dims / 32][128 / 32][32 dims][32 positions]: its two tiles a chunk in the order in
 * which add_values goes. */
static void tiles_store(void *k, void *v, int64_t pos, const float *k_row, const float *v_row,
                        int64_t head_dim)
{
    const __m512 one = _mm512_set1_ps(1);
    int64_t chunks = round_up(head_dim, 32) / 32;
    uint16_t *kd = (uint16_t *)k + pos / 16 * chunks * TILE + pos % 16 * 32, half[32];
    for (int64_t i = 0; i < chunks; i++) {
        int64_t n = head_dim - i * 32;
        _mm512_storeu_si512(kd + i * TILE, to_bf16(k_row + i * 32, n, one));
        _mm512_storeu_si512(half, to_bf16(v_row + i * 32, n, one));
        uint16_t *vd = (uint16_t *)v + v_offset(pos / GROUP * GROUP, i, chunks) + pos % GROUP;
        for (int64_t j = 0; j < n && j < 32; j++)
            vd[j * GROUP] = half[j];
    }
}

const ts_kv_layout ts_kv_amx = {
    .name = "bf16.tiles",
    .type = TS_TYPE_BF16,
    .bytes = tiles_bytes,
    .store = tiles_store,
};

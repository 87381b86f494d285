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

#include "cpu/attend_amx.h"
#include "cpu/tiles.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* --- where things are ------------------------------------------------------- */

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

static int64_t token_of(const amx_walk *w, int64_t row)
{
    return (row < w->rows ? row : w->rows - 1) / w->p->n_group;
}

/* The tile of K with 16 positions from pos (a multiple of 16): its first chunk of dimensions. */
static const uint16_t *k_tile(const amx_walk *w, int64_t pos)
{
    return (const uint16_t *)w->p->k + ts_place(w->p->map, pos) / 16 * w->chunks * TILE;
}

/* Both tiles of V with 32 positions from pos (a multiple of 32) and a chunk of dimensions. */
static const uint16_t *v_tiles(const amx_walk *w, int64_t pos, int64_t chunk)
{
    if (pos < w->lo)
        return w->edge[0] + chunk * 2 * TILE;
    if (pos + GROUP > w->hi)
        return w->edge[1] + chunk * 2 * TILE;
    return (const uint16_t *)w->p->v + v_offset(ts_place(w->p->map, pos), chunk, w->v_chunks);
}

/* What is read a block after pos, or where positions end: to be fetched. */
static int64_t ahead_of(const amx_walk *w, int64_t pos)
{
    const int64_t last = (w->hi - 1) / GROUP * GROUP;
    return pos + BLOCK < last ? pos + BLOCK : last;
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
static ALWAYS_INLINE void scores(const amx_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t c,
                                 int n)
{
    const int64_t len = w->chunks * TILE;
    const bool fetch = c == 0 && attend_goes_on(w->p, b, BLOCK);
    ts_tiles_see_stores();
    const uint16_t *q0 = w->q + c * len, *q1 = q0 + len;
    for (int64_t j = j0; j < j1; j += 32) {
        const uint16_t *k0 = k_tile(w, b + j), *k1 = k0 + len;
        const uint16_t *next = fetch ? k_tile(w, ahead_of(w, b + j)) : k0;
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
            if (fetch) {
                prefetch_tile(next + i);
                prefetch_tile(next + len + i);
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
static ALWAYS_INLINE void add_values(const amx_walk *w, int64_t b, int64_t j0, int64_t j1,
                                     int64_t c, int n)
{
    const int64_t len = w->v_chunks * 32 * LANES;
    const bool fetch = c == 0 && attend_goes_on(w->p, b, BLOCK);
    ts_tiles_see_stores();
    for (int64_t i = 0; i < w->v_chunks; i++) {
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
            if (fetch) {
                const uint16_t *next = v_tiles(w, ahead_of(w, b + j), i);
                prefetch_tile(next);
                prefetch_tile(next + TILE);
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
static void mask_scores(const amx_walk *w, float *s, int64_t b, int64_t j0, int64_t j1, int64_t c)
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
static __m512 raise(const amx_walk *w, const float *s, int64_t j0, int64_t j1, int64_t c)
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
        const int64_t len = w->v_chunks * 32 * LANES;
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
static void exponentials(const amx_walk *w, float *s, int64_t j0, int64_t j1, int64_t c, __m512 m)
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
static ALWAYS_INLINE void add_block(const amx_walk *w, int64_t b, int64_t c, int n)
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

static void add_segment(const amx_walk *w, int64_t s0, int64_t s1)
{
    for (int64_t b = s0 / BLOCK * BLOCK; b < s1; b += BLOCK) {
        int64_t c = 0;
        for (; c + 2 <= w->cols; c += 2)
            add_block(w, b, c, 2);
        if (c < w->cols)
            add_block(w, b, c, 1);
    }
}

/* --- a task ----------------------------------------------------------------- */

static void clear(const amx_walk *w, const amx_sums *s)
{
    memset(s->acc, 0, (size_t)(w->cols * w->v_chunks * 32 * LANES) * sizeof(float));
    for (int64_t i = 0; i < w->cols * LANES; i++) {
        s->m[i] = -INFINITY;
        s->l[i] = 0;
    }
}

static size_t acc_floats(int64_t cols, int64_t v_chunks)
{
    return (size_t)cols * (size_t)v_chunks * 32 * LANES;
}

size_t attend_amx_scratch(int64_t n_group, int64_t head_dim, int64_t v_dim)
{
    int64_t rows = 16 * n_group > ATTEND_AMX_ROWS ? 16 * n_group : ATTEND_AMX_ROWS;
    size_t cols = (size_t)round_up(rows, LANES) / LANES;
    size_t chunks = (size_t)round_up(head_dim, 32) / 32;
    size_t v_chunks = (size_t)round_up(v_dim, 32) / 32;
    size_t tiles = cols * chunks + 2 * v_chunks * 2;
    size_t floats = acc_floats((int64_t)cols, (int64_t)v_chunks) + 2 * cols * LANES;
    return tiles * TILE * sizeof(uint16_t) + (2 * BLOCK * LANES + 2 * floats) * sizeof(float);
}

/* q | edges | s | acc m l of the whole | acc m l of a segment: all multiples of 64 bytes. */
static void carve(amx_walk *w)
{
    uint16_t *t = w->p->scratch;
    w->q = t, t += w->cols * w->chunks * TILE;
    for (int i = 0; i < 2; i++)
        w->edge[i] = t, t += w->v_chunks * 2 * TILE;
    float *f = (float *)t;
    w->s = f, f += 2 * BLOCK * LANES;
    amx_sums *s[2] = {&w->whole, &w->segment};
    for (int i = 0; i < 2; i++) {
        s[i]->acc = f, f += acc_floats(w->cols, w->v_chunks);
        s[i]->m = f, f += w->cols * LANES;
        s[i]->l = f, f += w->cols * LANES;
    }
}

static void add_all(amx_walk *w)
{
    const amx_sums whole = w->whole, segment = w->segment;
    attend_amx_queries(w);
    attend_amx_edges(w);
    int64_t first = w->lo / TS_ATTEND_SEGMENT * TS_ATTEND_SEGMENT;
    for (int64_t s0 = first; s0 < w->hi; s0 += TS_ATTEND_SEGMENT) {
        int64_t s1 = s0 + TS_ATTEND_SEGMENT;
        /* the first segment needs no folding: it is summed where the whole is */
        w->segment = s0 == first ? whole : segment;
        if (s0 > first)
            clear(w, &segment);
        add_segment(w, s0 > w->lo ? s0 : w->lo, s1 < w->hi ? s1 : w->hi);
        if (s0 > first)
            attend_amx_fold(w, &whole, &segment);
    }
}

void attend_amx(const ts_attend *task)
{
    ts_attend p = *task;
    amx_walk w = {.p = &p,
                  .rows = p.n_tokens * p.n_group,
                  .chunks = round_up(p.head_dim, 32) / 32,
                  .v_chunks = round_up(p.v_dim, 32) / 32};
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
    attend_amx_finish(&w);
}

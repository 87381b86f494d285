/* attend_ends_amx.c - attention with tiles: what goes in and comes out.
 *
 * Queries are packed once a task, K and V once a token, when they are stored. Sums of segments are
 * joined here, within a task and for parts of one: scales are powers of two, so only the addition
 * rounds, and both ways give the same bits. */
#include <math.h>
#include <string.h>

#include "cpu/attend_amx.h"

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

void attend_amx_queries(const amx_walk *w)
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
static void copy_edge(const amx_walk *w, uint16_t *dst, int64_t pos)
{
    uint32_t mask = 0;
    for (int64_t j = 0; j < GROUP; j++)
        mask |= (uint32_t)(pos + j >= w->lo && pos + j < w->hi) << j;
    for (int64_t i = 0; i < w->v_chunks; i++) {
        const uint16_t *src =
            (const uint16_t *)w->p->v + v_offset(ts_place(w->p->map, pos), i, w->v_chunks);
        for (int64_t j = 0; j < 2 * TILE; j += GROUP)
            _mm512_storeu_si512(dst + i * 2 * TILE + j, _mm512_maskz_loadu_epi16(mask, src + j));
    }
}

void attend_amx_edges(const amx_walk *w)
{
    int64_t first = w->lo / GROUP * GROUP, last = (w->hi - 1) / GROUP * GROUP;
    if (first < w->lo)
        copy_edge(w, w->edge[0], first);
    if (last + GROUP > w->hi && last >= w->lo)
        copy_edge(w, w->edge[1], last);
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

void attend_amx_fold(const amx_walk *w, const amx_sums *to, const amx_sums *from)
{
    const int64_t len = w->v_chunks * 32 * LANES;
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

/* attend_end, where m is in units of log2. */
static float end_of(float l, float m, const float *sink)
{
    const float ln2 = 0.69314718f;
    return attend_end(l, m * ln2, sink);
}

void attend_amx_merge(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                      int64_t n_tokens, int64_t n_group, int64_t v_dim, const float *sinks)
{
    int64_t rows = n_tokens * n_group;
    for (int64_t r = 0; r < rows; r++) {
        float *y = o + r / n_group * ldo + r % n_group * v_dim, l[LANES], top[LANES];
        __m512 m = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        memset(y, 0, (size_t)v_dim * sizeof(float));
        for (int64_t i = 0; i < n_parts; i++) {
            const float *ml = part + 2 * (i * rows + r), *x = po + (i * rows + r) * v_dim;
            __m512 f, f2;
            m = join(m, _mm512_set1_ps(ml[0]), &f, &f2);
            sum = blend(sum, f, _mm512_set1_ps(ml[1]), f2);
            for (int64_t d = 0; d < v_dim; d += LANES) {
                __mmask16 in = first_lanes(v_dim - d);
                __m512 a = _mm512_maskz_loadu_ps(in, y + d);
                __m512 b = _mm512_maskz_loadu_ps(in, x + d);
                _mm512_mask_storeu_ps(y + d, in, blend(a, f, b, f2));
            }
        }
        _mm512_storeu_ps(l, sum);
        _mm512_storeu_ps(top, m);
        const float f = end_of(l[0], top[0], sinks ? sinks + r % n_group : NULL);
        for (int64_t d = 0; d < v_dim; d++)
            y[d] *= f;
    }
}

/* O^T to rows, divided by their sums unless they are a part. */
void attend_amx_finish(const amx_walk *w)
{
    const ts_attend *p = w->p;
    for (int64_t row = 0; row < w->rows && p->part; row++) {
        p->part[2 * row] = w->whole.m[row];
        p->part[2 * row + 1] = w->whole.l[row];
    }
    for (int64_t c = 0; c < w->cols; c++)
        for (int64_t d = 0; d < p->v_dim; d += 16) {
            const float *acc = w->whole.acc + (c * w->v_chunks * 32 + d) * LANES;
            __m512i r[16];
            for (int i = 0; i < 16; i++)
                r[i] = _mm512_loadu_si512(acc + i * LANES);
            transpose16(r);
            for (int64_t i = 0; i < LANES && c * LANES + i < w->rows; i++) {
                int64_t row = c * LANES + i;
                const float *sink = p->sinks ? p->sinks + row % p->n_group : NULL;
                float f = p->part ? 1 : end_of(w->whole.l[row], w->whole.m[row], sink);
                float *o = p->o + row / p->n_group * p->ldo + row % p->n_group * p->v_dim + d;
                _mm512_mask_storeu_ps(o, first_lanes(p->v_dim - d),
                                      _mm512_mul_ps(_mm512_castsi512_ps(r[i]), _mm512_set1_ps(f)));
            }
        }
}

/* --- the cache -------------------------------------------------------------- */

static size_t tiles_bytes(int64_t n_ctx, int64_t dim)
{
    return (size_t)round_up(n_ctx, BLOCK) * (size_t)round_up(dim, 32) * sizeof(uint16_t);
}

/* K[pos / 16][dims / 32][16 positions][32 dims], dims past head_dim zero: the rows of A.
 * V[pos / 128][dims / 32][128 / 32][32 dims][32 positions]: its two tiles a chunk in the order in
 * which add_values goes. */
static void tiles_store(void *k, void *v, int64_t pos, const float *k_row, const float *v_row,
                        int64_t head_dim, int64_t v_dim)
{
    const __m512 one = _mm512_set1_ps(1);
    const int64_t chunks = round_up(head_dim, 32) / 32, v_chunks = round_up(v_dim, 32) / 32;
    uint16_t *kd = (uint16_t *)k + pos / 16 * chunks * TILE + pos % 16 * 32, half[32];
    for (int64_t i = 0; i < chunks; i++)
        _mm512_storeu_si512(kd + i * TILE, to_bf16(k_row + i * 32, head_dim - i * 32, one));
    for (int64_t i = 0; i < v_chunks; i++) {
        int64_t n = v_dim - i * 32;
        _mm512_storeu_si512(half, to_bf16(v_row + i * 32, n, one));
        uint16_t *vd = (uint16_t *)v + v_offset(pos / GROUP * GROUP, i, v_chunks) + pos % GROUP;
        for (int64_t j = 0; j < n && j < 32; j++)
            vd[j * GROUP] = half[j];
    }
}

static void tiles_load(const void *k, const void *v, int64_t pos, float *k_row, float *v_row,
                       int64_t head_dim, int64_t v_dim)
{
    const int64_t chunks = round_up(head_dim, 32) / 32, v_chunks = round_up(v_dim, 32) / 32;
    const uint16_t *kd = (const uint16_t *)k + pos / 16 * chunks * TILE + pos % 16 * 32;
    for (int64_t i = 0; i < head_dim; i++)
        k_row[i] = ts_bf16_to_f32(kd[i / 32 * TILE + i % 32]);
    for (int64_t i = 0; i < v_dim; i++) {
        const uint16_t *vd =
            (const uint16_t *)v + v_offset(pos / GROUP * GROUP, i / 32, v_chunks) + pos % GROUP;
        v_row[i] = ts_bf16_to_f32(vd[i % 32 * GROUP]);
    }
}

const ts_kv_layout ts_kv_amx = {
    .name = "bf16.tiles",
    .type = TS_TYPE_BF16,
    .bytes = tiles_bytes,
    .store = tiles_store,
    .load = tiles_load,
};

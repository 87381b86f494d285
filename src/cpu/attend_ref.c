/* attend_ref.c - one block of attention as plain loops, over K and V in rows: [pos][head_dim]
 * and [pos][v_dim]. */
#include <math.h>

#include "cpu/attend.h"
#include "gguf/type.h"

/* K and V are widened this many dimensions of a position at a time, for all rows that see it. */
enum { DIMS = 128 };

/* Dimensions d0 .. d0 + n of position pos. */
static int64_t widen(float x[DIMS], const void *rows, int64_t pos, int64_t dim, int64_t d0)
{
    const int64_t n = dim - d0 < DIMS ? dim - d0 : DIMS;
    ts_type_get(TS_TYPE_F16)->to_f32(x, (const uint16_t *)rows + pos * dim + d0, n);
    return n;
}

static float dot(const float *a, const float *b, int64_t n)
{
    float part[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            part[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (int j = 0; j < 8; j++)
        sum += part[j];
    return sum;
}

/* The tokens of t0..t1 that see position b + j of the block. */
static void seen_by(const ts_attend *p, int64_t b, int64_t j, int64_t *t0, int64_t *t1)
{
    const int64_t first = b + j - p->pos0;
    *t0 = first > *t0 ? first : *t0;
    if (p->window > 0 && first + p->window < *t1)
        *t1 = first + p->window;
}

/* s[row][j] = scale * q[row] . k[b + j] */
static void scores(const attend_walk *w, int64_t b, int64_t j, int64_t t0, int64_t t1)
{
    const ts_attend *p = w->p;
    float k[DIMS];
    seen_by(p, b, j, &t0, &t1);
    for (int64_t d = 0; d < p->head_dim; d += DIMS) {
        const int64_t n = widen(k, p->k, ts_place(p->map, b + j), p->head_dim, d);
        for (int64_t r = t0 * p->n_group; r < t1 * p->n_group; r++) {
            float *s = &w->s[r * ATTEND_BLOCK + j];
            *s = (d ? *s : 0) + dot(w->q + r * p->head_dim + d, k, n);
        }
    }
}

/* A row's scores of lo..hi to exp(score - m); what was summed before is scaled to the new m. */
static void weigh(const attend_walk *w, int64_t r, int64_t lo, int64_t hi)
{
    const float cap = w->p->softcap;
    float *acc = w->acc + r * w->lda, *ml = w->ml + 2 * r, *s = w->s + r * ATTEND_BLOCK;
    float m = ml[0], sum = 0;
    for (int64_t j = lo; j < hi; j++) {
        s[j] = cap > 0 ? cap * tanhf(s[j] / cap) : s[j];
        m = s[j] > m ? s[j] : m;
    }
    const float old = expf(ml[0] - m); /* 0 at the first block, where ml[0] is -inf */
    for (int64_t i = 0; i < w->p->v_dim; i++)
        acc[i] *= old;
    for (int64_t j = lo; j < hi; j++) {
        s[j] = expf(s[j] - m);
        sum += s[j];
    }
    ml[0] = m;
    ml[1] = ml[1] * old + sum;
}

/* acc[row] += s[row][j] * v[b + j] */
static void sums(const attend_walk *w, int64_t b, int64_t j, int64_t t0, int64_t t1)
{
    const ts_attend *p = w->p;
    float v[DIMS];
    seen_by(p, b, j, &t0, &t1);
    for (int64_t d = 0; d < p->v_dim; d += DIMS) {
        const int64_t n = widen(v, p->v, ts_place(p->map, b + j), p->v_dim, d);
        for (int64_t r = t0 * p->n_group; r < t1 * p->n_group; r++) {
            float *acc = w->acc + r * w->lda + d;
            const float e = w->s[r * ATTEND_BLOCK + j];
            for (int64_t i = 0; i < n; i++)
                acc[i] += e * v[i];
        }
    }
}

static void block_ref(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                      int64_t t1)
{
    const ts_attend *p = w->p;
    for (int64_t j = j0; j < j1; j++)
        scores(w, b, j, t0, t1);
    for (int64_t t = t0; t < t1; t++) {
        int64_t lo, hi;
        attend_visible(p, b, t, j0, j1, &lo, &hi);
        for (int64_t g = 0; g < p->n_group; g++)
            weigh(w, t * p->n_group + g, lo, hi);
    }
    for (int64_t j = j0; j < j1; j++)
        sums(w, b, j, t0, t1);
}

void attend_ref(const ts_attend *p)
{
    ts_attend_run(p, block_ref);
}

static size_t rows_bytes(int64_t n_ctx, int64_t dim)
{
    return ((size_t)n_ctx * (size_t)dim * sizeof(uint16_t) + 63) & ~(size_t)63;
}

static void rows_store(void *k, void *v, int64_t pos, const float *k_row, const float *v_row,
                       int64_t head_dim, int64_t v_dim)
{
    uint16_t *kd = (uint16_t *)k + pos * head_dim, *vd = (uint16_t *)v + pos * v_dim;
    for (int64_t i = 0; i < head_dim; i++)
        kd[i] = ts_f32_to_f16(k_row[i]);
    for (int64_t i = 0; i < v_dim; i++)
        vd[i] = ts_f32_to_f16(v_row[i]);
}

static void rows_load(const void *k, const void *v, int64_t pos, float *k_row, float *v_row,
                      int64_t head_dim, int64_t v_dim)
{
    const uint16_t *kd = (const uint16_t *)k + pos * head_dim;
    const uint16_t *vd = (const uint16_t *)v + pos * v_dim;
    for (int64_t i = 0; i < head_dim; i++)
        k_row[i] = ts_f16_to_f32(kd[i]);
    for (int64_t i = 0; i < v_dim; i++)
        v_row[i] = ts_f16_to_f32(vd[i]);
}

const ts_kv_layout ts_kv_ref = {
    .name = "f16.rows",
    .type = TS_TYPE_F16,
    .bytes = rows_bytes,
    .store = rows_store,
    .load = rows_load,
};

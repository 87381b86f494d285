/* attend_ref.c - one block of attention as plain loops, over K and V in rows: [pos][head_dim]
 * and [pos][v_dim]. */
#include <math.h>

#include "cpu/attend.h"
#include "gguf/type.h"

/* s[j] = scale * q . k[j], capped; returns the maximum. */
static float scores(const attend_walk *w, float *s, const float *q, int64_t b, int64_t lo,
                    int64_t hi)
{
    float cap = w->p->softcap, max = -INFINITY;
    for (int64_t j = lo; j < hi; j++) {
        const uint16_t *k = (const uint16_t *)w->p->k + (b + j) * w->p->head_dim;
        float dot = 0;
        for (int64_t i = 0; i < w->p->head_dim; i++)
            dot += q[i] * ts_f16_to_f32(k[i]);
        s[j] = cap > 0 ? cap * tanhf(dot / cap) : dot;
        max = s[j] > max ? s[j] : max;
    }
    return max;
}

static void one_row(const attend_walk *w, int64_t r, int64_t b, int64_t lo, int64_t hi)
{
    const ts_attend *p = w->p;
    float *acc = w->acc + r * w->lda, *ml = w->ml + 2 * r, *s = w->s + r * ATTEND_BLOCK;
    float max = scores(w, s, w->q + r * p->head_dim, b, lo, hi);
    float m = max > ml[0] ? max : ml[0];
    float old = expf(ml[0] - m); /* 0 at the first block, where ml[0] is -inf */
    for (int64_t i = 0; i < p->v_dim; i++)
        acc[i] *= old;
    float sum = 0;
    for (int64_t j = lo; j < hi; j++) {
        const uint16_t *v = (const uint16_t *)p->v + (b + j) * p->v_dim;
        float e = expf(s[j] - m);
        sum += e;
        for (int64_t i = 0; i < p->v_dim; i++)
            acc[i] += e * ts_f16_to_f32(v[i]);
    }
    ml[0] = m;
    ml[1] = ml[1] * old + sum;
}

static void block_ref(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                      int64_t t1)
{
    const ts_attend *p = w->p;
    for (int64_t t = t0; t < t1; t++) {
        int64_t lo, hi;
        attend_visible(p, b, t, j0, j1, &lo, &hi);
        for (int64_t g = 0; g < p->n_group; g++)
            one_row(w, t * p->n_group + g, b, lo, hi);
    }
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

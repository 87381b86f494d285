/* attend_ref.c - one block of attention as plain loops. */
#include <math.h>

#include "cpu/attend.h"
#include "gguf/type.h"

/* s[j] = scale * q . k[j], capped; returns the maximum. */
static float scores(const attend_walk *w, float *s, const float *q, int64_t lo, int64_t hi)
{
    float cap = w->p->softcap, max = -INFINITY;
    for (int64_t j = lo; j < hi; j++) {
        const float *k = (const float *)w->k + j * w->p->head_dim;
        float dot = 0;
        for (int64_t i = 0; i < w->p->head_dim; i++)
            dot += q[i] * k[i];
        s[j] = cap > 0 ? cap * tanhf(dot / cap) : dot;
        max = s[j] > max ? s[j] : max;
    }
    return max;
}

static void one_row(const attend_walk *w, int64_t r, int64_t lo, int64_t hi)
{
    const ts_attend *p = w->p;
    float *acc = w->acc + r * w->lda, *ml = w->ml + 2 * r, *s = w->s + r * ATTEND_BLOCK;
    float max = scores(w, s, w->q + r * p->head_dim, lo, hi);
    float m = max > ml[0] ? max : ml[0];
    float old = expf(ml[0] - m); /* 0 at the first block, where ml[0] is -inf */
    for (int64_t i = 0; i < p->head_dim; i++)
        acc[i] *= old;
    float sum = 0;
    for (int64_t j = lo; j < hi; j++) {
        const float *v = (const float *)w->v + j * p->head_dim;
        float e = expf(s[j] - m);
        sum += e;
        for (int64_t i = 0; i < p->head_dim; i++)
            acc[i] += e * v[i];
    }
    ml[0] = m;
    ml[1] = ml[1] * old + sum;
}

static void block_ref(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                      int64_t t1)
{
    const ts_attend *p = w->p;
    float *k = w->k, *v = w->v;
    for (int64_t i = j0 * p->head_dim; i < j1 * p->head_dim; i++) {
        k[i] = ts_f16_to_f32(p->k[b * p->head_dim + i]);
        v[i] = ts_f16_to_f32(p->v[b * p->head_dim + i]);
    }
    for (int64_t t = t0; t < t1; t++) {
        int64_t lo, hi;
        attend_visible(p, b, t, j0, j1, &lo, &hi);
        for (int64_t g = 0; g < p->n_group; g++)
            one_row(w, t * p->n_group + g, lo, hi);
    }
}

void attend_ref(const ts_attend *p)
{
    ts_attend_run(p, block_ref);
}

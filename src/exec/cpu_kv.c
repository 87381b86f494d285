/* cpu_kv.c - positions of the CPU's KV cache to and from rows of floats, by all threads. */
#include "exec/cpu.h"

typedef struct kv_job {
    ts_state *s;
    int layer;
    int64_t pos, n;
    float *k, *v;
    bool put;
} kv_job;

/* Thread tid of n takes the tid-th part of the positions. */
static void move(void *arg, int tid, int n)
{
    const kv_job *j = arg;
    const ts_hparams *hp = &j->s->d->m->hp;
    const ts_kv_layout *kv = j->s->d->ops->kv;
    const int64_t width = hp->n_head_kv * hp->head_dim;
    const int64_t i0 = j->n * tid / n, i1 = j->n * (tid + 1) / n;
    for (int64_t h = 0; h < hp->n_head_kv; h++) {
        uint8_t *k = ts_cpu_kv_head(j->s, false, j->layer, h);
        uint8_t *v = ts_cpu_kv_head(j->s, true, j->layer, h);
        for (int64_t i = i0; i < i1; i++) {
            float *kr = j->k + i * width + h * hp->head_dim;
            float *vr = j->v + i * width + h * hp->head_dim;
            if (j->put)
                kv->store(k, v, j->pos + i, kr, vr, hp->head_dim);
            else
                kv->load(k, v, j->pos + i, kr, vr, hp->head_dim);
        }
    }
}

ts_status ts_cpu_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, float *k, float *v,
                        ts_error *err)
{
    (void)err;
    kv_job j = {s, layer, pos, n, k, v, false};
    ts_pool_run(s->d->pool, move, &j);
    return TS_OK;
}

ts_status ts_cpu_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const float *k,
                        const float *v, ts_error *err)
{
    (void)err;
    kv_job j = {s, layer, pos, n, (float *)(uintptr_t)k, (float *)(uintptr_t)v, true};
    ts_pool_run(s->d->pool, move, &j);
    return TS_OK;
}

/* kv.c - K and V of a layer, from and to the host: of layers that are streamed, and to be saved.
 *
 * Of a batch they are fetched behind the layer that stored them, while later layers are computed:
 * on a stream of their own, after the event of their layer. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/impl.h"

ts_cuda_kv ts_cuda_kv_of(const ts_state *s, int layer)
{
    const ts_device *d = s->d;
    const ts_hparams *hp = &d->m->hp;
    const size_t n = ts_cuda_kv_elements(d->plan, d->m);
    const int64_t at = ts_plan_kv_index(d->plan, d->index, &d->m->layers[layer]);
    const int parts = ts_cuda_kv_parts(d->m);
    uint16_t *k = s->kv + (size_t)parts * (size_t)at * n;
    return (ts_cuda_kv){.k = k,
                        .v = parts == 1 ? k : k + n,
                        .n_ctx = d->plan->n_ctx,
                        .n_head_kv = hp->n_head_kv,
                        .head_dim = hp->head_dim};
}

void ts_cuda_kv_close(ts_state *s)
{
    if (s->leaving)
        ts_rt_wait(s->leaving);
    for (int64_t i = 0; s->stored && i < s->d->m->hp.n_layer; i++)
        ts_rt_event_close(s->stored[i]);
    ts_rt_stream_close(s->leaving);
    ts_rt_free_host(s->halves);
    free(s->stored);
}

ts_status ts_cuda_kv_open(ts_state *s, ts_error *err)
{
    const ts_device *d = s->d;
    const ts_hparams *hp = &d->m->hp;
    const size_t bytes = (size_t)ts_cuda_kv_parts(d->m) * sizeof(uint16_t) *
                         (size_t)(hp->n_head_kv * d->plan->n_ubatch * hp->head_dim);
    if (d->plan->stream.device != d->index && !d->plan->paged)
        return TS_OK;
    s->stored = ts_calloc((size_t)hp->n_layer, sizeof *s->stored);
    if (!s->stored)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    int e = ts_rt_stream_open(&s->leaving);
    for (int64_t i = 0; i < hp->n_layer && !e; i++)
        if (d->m->layers[i].stream_index >= 0)
            e = ts_rt_event_open(&s->stored[i]);
    if (e)
        return ts_cuda_failed(d, e, "opening a session", err);
    if ((e = ts_rt_alloc_host((void **)&s->halves, bytes)))
        return ts_fail(err, TS_NO_MEMORY, "no %zu bytes of pinned memory: %s", bytes,
                       ts_rt_text(e));
    return TS_OK;
}

/* Rows pos..pos+n-1 of K and V of every head, between `halves`, [K, V][head][n][head_dim], and the
 * cache. */
static int move(ts_state *s, int layer, int64_t pos, int64_t n, bool put, void *stream)
{
    const ts_cuda_kv kv = ts_cuda_kv_of(s, layer);
    const size_t row = (size_t)kv.head_dim * sizeof(uint16_t), bytes = row * (size_t)n;
    const size_t pitch = row * (size_t)kv.n_ctx;
    int e = 0;
    for (int i = 0; i < ts_cuda_kv_parts(s->d->m) && !e; i++) {
        uint16_t *there = (i ? kv.v : kv.k) + pos * kv.head_dim;
        uint16_t *here = s->halves + i * kv.n_head_kv * n * kv.head_dim;
        e = put ? ts_rt_copy_rows(there, pitch, here, bytes, bytes, (size_t)kv.n_head_kv, stream)
                : ts_rt_copy_rows(here, bytes, there, pitch, bytes, (size_t)kv.n_head_kv, stream);
    }
    return e;
}

ts_status ts_cuda_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                         const uint16_t **kv, ts_error *err)
{
    (void)room;
    int e = ts_rt_use(s->d->at->ordinal);
    if (!e && s->stored[layer]) {
        e = ts_rt_stream_wait(s->leaving, s->stored[layer]);
    } else if (!e) {
        pthread_mutex_lock(&s->d->lock); /* another session may be recording */
        e = ts_rt_wait(s->d->stream);
        pthread_mutex_unlock(&s->d->lock);
    }
    if (!e)
        e = move(s, layer, pos, n, false, s->leaving);
    if (!e)
        e = ts_rt_wait(s->leaving);
    *kv = s->halves;
    return e ? ts_cuda_failed(s->d, e, "fetching K and V", err) : TS_OK;
}

ts_status ts_cuda_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                         ts_error *err)
{
    ts_device *d = s->d;
    const ts_hparams *hp = &d->m->hp;
    memcpy(s->halves, kv,
           (size_t)ts_cuda_kv_parts(d->m) * (size_t)(hp->n_head_kv * n * hp->head_dim) *
               sizeof *kv);
    int e = ts_rt_use(d->at->ordinal);
    pthread_mutex_lock(&d->lock);
    if (!e)
        e = move(s, layer, pos, n, true, d->stream);
    if (!e)
        e = ts_rt_wait(d->stream);
    pthread_mutex_unlock(&d->lock);
    return e ? ts_cuda_failed(d, e, "bringing K and V", err) : TS_OK;
}

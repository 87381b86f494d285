/* load.c - weights and vectors to GPU memory.
 *
 * One thread copies from the page cache at a tenth of what PCI Express 5 takes: it is page faults
 * more than bytes. So several threads claim pieces, fill pinned memory of their own with them, and
 * queue it on streams of their own. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/impl.h"

typedef struct item {
    uint8_t *dst;
    const uint8_t *src;
    size_t bytes;
    bool drop; /* its pages in the file aren't needed any more */
} item;

typedef struct upload {
    ts_device *d;
    const ts_gguf *g;
    const ts_load_options *opt;
    item *items;
    size_t n;
    size_t all; /* bytes */
    pthread_mutex_t lock;
    /* Under the lock: */
    size_t next, offset; /* what is claimed next */
    size_t done;         /* bytes */
    int error;
    bool cancelled;
} upload;

typedef struct loader {
    upload *u;
    uint8_t *piece; /* [2][TS_CUDA_PIECE], pinned */
    void *stream;
    bool first; /* the calling thread: tells how far they all are */
    pthread_t thread;
    bool runs;
} loader;

/* The next piece of at most TS_CUDA_PIECE bytes; false: there is none, or no more is wanted. */
static bool claim(upload *u, item *out)
{
    pthread_mutex_lock(&u->lock);
    const bool any = u->next < u->n && !u->error && !u->cancelled;
    if (any) {
        *out = u->items[u->next];
        out->dst += u->offset;
        out->src += u->offset;
        out->bytes -= u->offset;
        if (out->bytes > TS_CUDA_PIECE) {
            out->bytes = TS_CUDA_PIECE;
            u->offset += TS_CUDA_PIECE;
        } else {
            u->next++;
            u->offset = 0;
        }
    }
    pthread_mutex_unlock(&u->lock);
    return any;
}

static void tell(upload *u, size_t bytes, int e, bool first)
{
    pthread_mutex_lock(&u->lock);
    u->done += bytes;
    if (e && !u->error)
        u->error = e;
    const double done = (double)u->done / (double)u->all;
    pthread_mutex_unlock(&u->lock);
    if (!first || e || !u->opt->progress || u->opt->progress(u->opt->progress_user, done))
        return;
    pthread_mutex_lock(&u->lock);
    u->cancelled = true;
    pthread_mutex_unlock(&u->lock);
}

static void *work(void *arg)
{
    const loader *l = arg;
    upload *u = l->u;
    item it;
    int e = ts_rt_use(u->d->at->ordinal);
    for (int i = 0; !e && claim(u, &it); i++) {
        uint8_t *piece = l->piece + (size_t)(i % 2) * TS_CUDA_PIECE;
        if (i % 2 == 0) /* both pieces may be on their way */
            e = ts_rt_wait(l->stream);
        if (e)
            break;
        memcpy(piece, it.src, it.bytes);
        if (it.drop)
            ts_gguf_drop(u->g, it.src, it.bytes);
        e = ts_rt_copy(it.dst, piece, it.bytes, l->stream);
        tell(u, it.bytes, e, l->first);
    }
    if (!e)
        e = ts_rt_wait(l->stream);
    tell(u, 0, e, false);
    return NULL;
}

static ts_status send(upload *u, ts_error *err)
{
    ts_device *d = u->d;
    loader l[TS_CUDA_LOADERS] = {{0}};
    int e = 0, n = 0;
    for (; n < d->loaders && !e; n++) {
        l[n].u = u;
        l[n].piece = d->pinned + (size_t)(2 * n) * TS_CUDA_PIECE;
        l[n].first = n == 0;
        e = ts_rt_stream_open(&l[n].stream);
    }
    if (!e) {
        for (int i = 1; i < n; i++) /* what can't be started isn't missed */
            l[i].runs = pthread_create(&l[i].thread, NULL, work, &l[i]) == 0;
        work(&l[0]);
        for (int i = 1; i < n; i++)
            if (l[i].runs)
                pthread_join(l[i].thread, NULL);
        e = u->error;
    }
    for (int i = 0; i < n; i++)
        ts_rt_stream_close(l[i].stream);
    if (e)
        return ts_cuda_failed(d, e, "an upload", err);
    if (u->cancelled || (u->opt->progress && !u->opt->progress(u->opt->progress_user, 1)))
        return ts_fail(err, TS_CANCELLED, "loading was cancelled");
    return TS_OK;
}

static void list_weights(upload *u, ts_model *m)
{
    ts_device *d = u->d;
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        if (w->device != d->index)
            continue;
        uint8_t *dst = (uint8_t *)d->arena + w->offset;
        for (int64_t x = 0; w->parts && x < w->e; x++)
            u->items[u->n++] =
                (item){dst + (size_t)x * w->source->size, w->parts[x]->data, w->source->size, true};
        if (!w->parts)
            u->items[u->n++] = (item){dst, w->source->data, w->source->size, w != m->token_embd};
        w->data = dst;
        ts_logf(u->opt->log, TS_LOG_DEBUG, "%s: %s %lld x %lld, %s, source, %zu bytes",
                ts_weight_name(w), ts_type_get(w->source->type)->name, (long long)w->n,
                (long long)w->k, d->at->name, w->bytes);
    }
}

static void list_vectors(upload *u)
{
    ts_device *d = u->d;
    uint8_t *at = d->vectors;
    for (size_t i = 0; i < d->plan->steps.n; i++) {
        const ts_step *st = &d->plan->steps.v[i];
        const size_t n = (size_t)ts_cuda_vector_floats(st) * sizeof(float);
        if (st->device != d->index || !n)
            continue;
        const float *src[2] = {st->op == TS_OP_ANGLES ? st->rope->freq : st->vec};
        size_t bytes[2] = {n};
        if (st->op == TS_OP_EXPERTS)
            for (int j = 0; j < 2; j++) {
                src[j] = j ? st->bias2 : st->bias;
                bytes[j] = (size_t)ts_cuda_bias_floats(st, src[j]) * sizeof(float);
            }
        uint8_t *to = at;
        for (int j = 0; j < 2; to += bytes[j++])
            if (bytes[j])
                u->items[u->n++] = (item){to, (const uint8_t *)src[j], bytes[j], false};
        d->vec[i] = (const float *)at;
        at += ts_cuda_aligned(n);
    }
}

static ts_status allocate(ts_device *d, void **p, size_t bytes, const char *what, ts_error *err)
{
    int e = bytes ? ts_rt_alloc(p, bytes) : 0;
    return e ? ts_cuda_no_memory(d, e, bytes, what, err) : TS_OK;
}

ts_status ts_cuda_load(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err)
{
    const size_t vectors = ts_cuda_vector_bytes(d->plan, d->index);
    const size_t pieces = (size_t)d->pieces * TS_CUDA_PIECE, pinned = pieces + TS_CUDA_ALIGN;
    d->strip_bytes = ts_cuda_strip_bytes(d->plan, d->index);
    d->log = *opt->log;
    ts_status s;
    int e = ts_rt_use(d->at->ordinal);
    if (e)
        return ts_cuda_failed(d, e, "loading", err);
    if ((s = allocate(d, &d->arena, d->at->packed, "weights", err)) ||
        (s = allocate(d, &d->vectors, vectors, "norms", err)) ||
        (s = allocate(d, &d->strip, d->strip_bytes, "dequantised rows", err)))
        return s;
    if ((e = ts_rt_alloc_host((void **)&d->pinned, pinned)))
        return ts_fail(err, TS_NO_MEMORY, "no %zu bytes of pinned memory: %s", pinned,
                       ts_rt_text(e));
    d->arrived = (uint32_t *)(d->pinned + pieces);
    *d->arrived = 0;
    upload u = {.d = d,
                .g = m->g,
                .opt = opt,
                .all = d->at->packed + vectors,
                .lock = PTHREAD_MUTEX_INITIALIZER};
    u.items = ts_calloc(m->n_weights + m->n_parts + 2 * d->plan->steps.n, sizeof *u.items);
    if (!u.items)
        return ts_fail(err, TS_NO_MEMORY, "no memory to load");
    list_weights(&u, m);
    list_vectors(&u);
    s = send(&u, err);
    free(u.items);
    pthread_mutex_destroy(&u.lock);
    return s;
}

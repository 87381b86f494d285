/* device.c - weights to GPU memory, sessions' memory there, and the steps of a batch as kernels on
 * one stream. */
#include "cuda/device.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cuda/attend.h"
#include "cuda/impl.h"
#include "cuda/quant.h"
#include "cuda/rt.h"

/* Bytes that cross at once. A piece is filled while those before it cross; when all are on their
 * way they are waited for. */
#define PIECE  ((size_t)8 << 20)
#define PIECES 3

struct ts_device {
    const ts_plan *plan;
    const ts_plan_device *at;
    const ts_model *m;
    int index;
    void *stream;
    void *arena, *vectors, *strip;
    size_t strip_bytes;
    void *piece[PIECES]; /* pinned */
    const float **vec;   /* [n_steps] a step's vector on the GPU */
    ts_rt_gemm *gemm;    /* NULL: own kernels serve */
    /* Sessions share the stream, the pieces and the strip. What one has queued comes before what
     * the next one does, so a call at a time is enough. */
    pthread_mutex_t lock;
};

struct ts_state {
    ts_device *d;
    uint8_t *mem;
    uint8_t **bufs; /* [n_bufs]; NULL: not here */
    uint16_t *kv;
    void *work;
    ts_cuda_batch *batch; /* on the GPU */
    bool stats;
    double *seconds; /* [n_steps] */
    int64_t *calls, *rows;
};

static ts_status failed(const ts_device *d, int e, const char *what, ts_error *err)
{
    return ts_fail(err, TS_IO, "%s: %s failed: %s", d->at->name, what, ts_rt_text(e));
}

static ts_status no_memory(const ts_device *d, int e, size_t bytes, const char *what, ts_error *err)
{
    return ts_fail(err, TS_NO_MEMORY, "%s has no %zu bytes for %s: %s", d->at->name, bytes, what,
                   ts_rt_text(e));
}

/* --- device --------------------------------------------------------------------- */

static void cuda_close(ts_device *d)
{
    if (!d)
        return;
    ts_rt_use(d->at->ordinal);
    ts_rt_gemm_close(d->gemm);
    ts_rt_free(d->arena);
    ts_rt_free(d->vectors);
    ts_rt_free(d->strip);
    for (int i = 0; i < PIECES; i++)
        ts_rt_free_host(d->piece[i]);
    ts_rt_stream_close(d->stream);
    free(d->vec);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static ts_status cuda_open(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                           ts_error *err)
{
    ts_device *d = ts_calloc(1, sizeof *d);
    if (!d)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %s", plan->dev[index].name);
    *d = (ts_device){.plan = plan,
                     .at = &plan->dev[index],
                     .m = m,
                     .index = index,
                     .lock = PTHREAD_MUTEX_INITIALIZER};
    d->vec = ts_calloc(plan->steps.n, sizeof *d->vec);
    if (!d->vec) {
        cuda_close(d);
        return ts_fail(err, TS_NO_MEMORY, "no memory for %s", plan->dev[index].name);
    }
    int e;
    if ((e = ts_rt_use(d->at->ordinal)) || (e = ts_rt_stream_open(&d->stream)) ||
        (e = ts_rt_gemm_open(&d->gemm, d->stream))) {
        ts_status s = failed(d, e, "opening it", err);
        cuda_close(d);
        return s;
    }
    *out = d;
    return TS_OK;
}

static ts_status allocate(ts_device *d, void **p, size_t bytes, const char *what, ts_error *err)
{
    int e = bytes ? ts_rt_alloc(p, bytes) : 0;
    return e ? no_memory(d, e, bytes, what, err) : TS_OK;
}

/* --- loading -------------------------------------------------------------------- */

/* An upload in pieces: the host fills one while others cross. */
typedef struct upload {
    ts_device *d;
    const ts_load_options *opt;
    int next;
    int under_way; /* pieces queued since the last wait */
    size_t done, all;
} upload;

static ts_status send(upload *u, void *dst, const uint8_t *src, size_t bytes, ts_error *err)
{
    ts_device *d = u->d;
    while (bytes) {
        const size_t n = bytes < PIECE ? bytes : PIECE;
        int e = 0;
        if (u->under_way == PIECES) {
            e = ts_rt_wait(d->stream);
            u->under_way = 0;
        }
        memcpy(d->piece[u->next], src, n);
        if (e || (e = ts_rt_copy(dst, d->piece[u->next], n, d->stream)))
            return failed(d, e, "an upload", err);
        u->next = (u->next + 1) % PIECES;
        u->under_way++;
        u->done += n;
        dst = (uint8_t *)dst + n;
        src += n;
        bytes -= n;
        if (u->opt->progress &&
            !u->opt->progress(u->opt->progress_user, (double)u->done / (double)u->all))
            return ts_fail(err, TS_CANCELLED, "loading was cancelled");
    }
    return TS_OK;
}

static ts_status send_weights(upload *u, ts_model *m, ts_error *err)
{
    ts_device *d = u->d;
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        if (w->device != d->index)
            continue;
        uint8_t *dst = (uint8_t *)d->arena + w->offset;
        ts_status s = send(u, dst, w->source->data, w->source->size, err);
        if (s)
            return s;
        w->data = dst;
        if (w != m->token_embd)
            ts_gguf_drop(m->g, w->source->data, w->source->size);
        ts_logf(u->opt->log, TS_LOG_DEBUG, "%s: %s %lld x %lld, %s, source, %zu bytes",
                w->source->name, ts_type_get(w->source->type)->name, (long long)w->n,
                (long long)w->k, d->at->name, w->bytes);
    }
    return TS_OK;
}

static ts_status send_vectors(upload *u, ts_error *err)
{
    ts_device *d = u->d;
    uint8_t *at = d->vectors;
    for (size_t i = 0; i < d->plan->steps.n; i++) {
        const ts_step *st = &d->plan->steps.v[i];
        const size_t n = (size_t)ts_cuda_vector_floats(st) * sizeof(float);
        if (st->device != d->index || !n)
            continue;
        const float *src = st->op == TS_OP_ANGLES ? st->rope->freq : st->vec;
        ts_status s = send(u, at, (const uint8_t *)src, n, err);
        if (s)
            return s;
        d->vec[i] = (const float *)at;
        at += ts_cuda_aligned(n);
    }
    return TS_OK;
}

static ts_status cuda_load(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err)
{
    const size_t vectors = ts_cuda_vector_bytes(d->plan, d->index);
    upload u = {.d = d, .opt = opt, .all = d->at->packed + vectors};
    d->strip_bytes = ts_cuda_strip_bytes(d->plan, d->index);
    ts_status s;
    int e = ts_rt_use(d->at->ordinal);
    if (e)
        return failed(d, e, "loading", err);
    if ((s = allocate(d, &d->arena, d->at->packed, "weights", err)) ||
        (s = allocate(d, &d->vectors, vectors, "norms", err)) ||
        (s = allocate(d, &d->strip, d->strip_bytes, "dequantised rows", err)))
        return s;
    for (int i = 0; i < PIECES; i++)
        if ((e = ts_rt_alloc_host(&d->piece[i], PIECE)))
            return ts_fail(err, TS_NO_MEMORY, "no %zu bytes of pinned memory: %s", PIECE,
                           ts_rt_text(e));
    if ((s = send_weights(&u, m, err)) || (s = send_vectors(&u, err)))
        return s;
    e = ts_rt_wait(d->stream);
    return e ? failed(d, e, "an upload", err) : TS_OK;
}

/* --- sessions ------------------------------------------------------------------- */

static void cuda_state_close(ts_state *s)
{
    if (!s)
        return;
    ts_rt_use(s->d->at->ordinal);
    ts_rt_wait(s->d->stream);
    ts_rt_free(s->mem);
    free(s->bufs);
    free(s->seconds);
    free(s->calls);
    free(s->rows);
    free(s);
}

static ts_status cuda_state_open(ts_state **out, ts_device *d, ts_error *err)
{
    const ts_steps *steps = &d->plan->steps;
    ts_state *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    s->d = d;
    s->bufs = ts_calloc(steps->n_bufs, sizeof *s->bufs);
    s->seconds = ts_calloc(steps->n, sizeof *s->seconds);
    s->calls = ts_calloc(steps->n, sizeof *s->calls);
    s->rows = ts_calloc(steps->n, sizeof *s->rows);
    size_t bytes = ts_cuda_aligned(d->at->kv) + ts_cuda_aligned(d->at->scratch) +
                   ts_cuda_aligned(sizeof *s->batch);
    for (size_t i = 0; i < steps->n_bufs; i++)
        if (steps->bufs[i].devices >> d->index & 1)
            bytes += ts_cuda_aligned(ts_plan_buffer_bytes(d->plan, (ts_buf)i));
    ts_status st = TS_OK;
    int e = ts_rt_use(d->at->ordinal);
    if (!s->bufs || !s->seconds || !s->calls || !s->rows)
        st = ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    else if (e || (e = ts_rt_alloc((void **)&s->mem, bytes)))
        st = no_memory(d, e, bytes, "a session", err);
    if (st) {
        cuda_state_close(s);
        return st;
    }
    uint8_t *at = s->mem;
    s->kv = (uint16_t *)at;
    at += ts_cuda_aligned(d->at->kv);
    for (size_t i = 0; i < steps->n_bufs; i++) {
        if (!(steps->bufs[i].devices >> d->index & 1))
            continue;
        s->bufs[i] = at;
        at += ts_cuda_aligned(ts_plan_buffer_bytes(d->plan, (ts_buf)i));
    }
    s->work = at;
    s->batch = (ts_cuda_batch *)(at + ts_cuda_aligned(d->at->scratch));
    *out = s;
    return TS_OK;
}

/* --- copies --------------------------------------------------------------------- */

static float *row(const ts_state *s, ts_buf b, int64_t r)
{
    return (float *)s->bufs[b] + r * s->d->plan->steps.bufs[b].width;
}

/* Through pinned memory, a piece at a time. */
static ts_status cuda_put(ts_state *s, ts_buf buf, int64_t r, int64_t rows, const float *src,
                          ts_error *err)
{
    ts_device *d = s->d;
    uint8_t *dst = (uint8_t *)row(s, buf, r);
    const uint8_t *from = (const uint8_t *)src;
    size_t left = (size_t)(rows * d->plan->steps.bufs[buf].width) * sizeof *src;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    for (int i = 0; left && !e; i++) {
        const size_t n = left < PIECE ? left : PIECE;
        if (i % PIECES == 0) /* what was queued from these pieces has gone */
            e = ts_rt_wait(d->stream);
        if (e)
            break;
        memcpy(d->piece[i % PIECES], from, n);
        e = ts_rt_copy(dst, d->piece[i % PIECES], n, d->stream);
        dst += n;
        from += n;
        left -= n;
    }
    pthread_mutex_unlock(&d->lock);
    return e ? failed(d, e, "a copy to it", err) : TS_OK;
}

static ts_status cuda_get(ts_state *s, ts_buf buf, int64_t r, int64_t rows, float *dst,
                          ts_error *err)
{
    ts_device *d = s->d;
    const uint8_t *src = (const uint8_t *)row(s, buf, r);
    uint8_t *to = (uint8_t *)dst;
    size_t left = (size_t)(rows * d->plan->steps.bufs[buf].width) * sizeof *dst;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    while (left && !e) {
        const size_t n = left < PIECE ? left : PIECE;
        if ((e = ts_rt_copy(d->piece[0], src, n, d->stream)) || (e = ts_rt_wait(d->stream)))
            break;
        memcpy(to, d->piece[0], n);
        to += n;
        src += n;
        left -= n;
    }
    pthread_mutex_unlock(&d->lock);
    return e ? failed(d, e, "a copy from it", err) : TS_OK;
}

/* --- steps ---------------------------------------------------------------------- */

/* Are a step's activations BF16 for cuBLAS? */
static bool by_gemm(const ts_device *d, int64_t m)
{
    return d->gemm && m > TS_CUDA_FEW;
}

static ts_cuda_rows rows_of(const ts_state *s, ts_buf b, int64_t r)
{
    return (ts_cuda_rows){row(s, b, r), s->d->plan->steps.bufs[b].width};
}

/* Activations: BF16 rows, 15 bits, or floats as they are. */
static int prep(ts_state *s, const ts_step *st, int64_t m)
{
    ts_device *d = s->d;
    const float *x = row(s, st->a, 0);
    const int64_t ld = d->plan->steps.bufs[st->a].width, k = st->d;
    uint8_t *act = s->bufs[st->dst];
    int e = 0;
    if (by_gemm(d, m)) {
        if (ld == k)
            return ts_cuda_dequant(act, true, TS_TYPE_F32, x, 0, m, k, d->stream);
        for (int64_t i = 0; i < m && !e; i++)
            e = ts_cuda_dequant(act + (size_t)(i * k) * 2, true, TS_TYPE_F32, x + i * ld, 0, 1, k,
                                d->stream);
        return e;
    }
    if (st->kset->prep->act != TS_ACT_F32)
        return ts_cuda_prep(act, x, ld, NULL, 0, m, k, d->stream);
    for (int64_t i = 0; i < m && !e; i++)
        e = ts_rt_copy(act + (size_t)(i * k) * 4, x + i * ld, (size_t)k * 4, d->stream);
    return e;
}

/* y = act(x) w^T (+ y), weights dequantised a strip of rows at a time. */
static int gemm(ts_state *s, const ts_weight *w, ts_buf x, ts_cuda_rows y, bool add, int64_t m)
{
    ts_device *d = s->d;
    const int64_t strip = (int64_t)(d->strip_bytes / ((size_t)w->k * sizeof(uint16_t)));
    int e = 0;
    for (int64_t n0 = 0; n0 < w->n && !e; n0 += strip) {
        const int64_t n1 = n0 + strip < w->n ? n0 + strip : w->n;
        e = ts_cuda_dequant(d->strip, true, w->source->type, w->data, n0, n1, w->k, d->stream);
        if (!e)
            e = ts_rt_gemm_run(d->gemm, y.x + n0, y.ld, add, (const uint16_t *)s->bufs[x], d->strip,
                               m, n1 - n0, w->k);
    }
    return e;
}

static int product(ts_state *s, const ts_step *st, const ts_cuda_on *on, int64_t m, int64_t r0)
{
    ts_device *d = s->d;
    const bool glu = st->op == TS_OP_GLU;
    ts_cuda_rows y = rows_of(s, st->dst, r0);
    int e;
    if (by_gemm(d, m)) {
        e = gemm(s, st->w, st->a, y, !glu && st->b != TS_NO_BUF, m);
        if (!glu || e)
            return e;
        ts_cuda_rows up = rows_of(s, st->b, 0);
        e = gemm(s, st->w2, st->a, up, false, m);
        if (e)
            return e;
        return (st->act == TS_OP_SILU ? ts_cuda_silu_mul : ts_cuda_gelu_mul)(on, y, y, up, st->d);
    }
    ts_cuda_mul p = {.type = st->w->source->type,
                     .w = st->w->data,
                     .x = s->bufs[st->a],
                     .ldx = st->w->k,
                     .y = y.x,
                     .ldy = y.ld,
                     .m = m,
                     .n = st->w->n,
                     .k = st->w->k};
    if (glu) {
        p.join = st->act == TS_OP_SILU ? TS_CUDA_SILU : TS_CUDA_GELU;
        p.v = st->w2->data;
    } else if (st->b != TS_NO_BUF) {
        ts_cuda_rows add = rows_of(s, st->b, 0);
        p.add = add.x;
        p.ldadd = add.ld;
    }
    return ts_cuda_mul_run(&p, d->stream);
}

static ts_cuda_kv kv_of(const ts_state *s, int layer)
{
    const ts_device *d = s->d;
    const ts_hparams *hp = &d->m->hp;
    const size_t n = ts_cuda_kv_elements(d->plan, d->m);
    uint16_t *k = s->kv + 2 * (size_t)d->m->layers[layer].kv_index * n;
    return (ts_cuda_kv){.k = k,
                        .v = k + n,
                        .n_ctx = d->plan->n_ctx,
                        .n_head_kv = hp->n_head_kv,
                        .head_dim = hp->head_dim};
}

static int attend(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    const ts_hparams *hp = &s->d->m->hp;
    ts_cuda_attention a = {.q = rows_of(s, st->a, 0),
                           .o = rows_of(s, st->dst, 0),
                           .kv = kv_of(s, st->layer),
                           .n_head = hp->n_head,
                           .window = st->window,
                           .scale = hp->attn_scale,
                           .work = s->work};
    return on->rows <= TS_CUDA_DECODE ? ts_cuda_attend_decode(on, &a)
                                      : ts_cuda_attend_prefill(on, &a);
}

static int rope(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    return ts_cuda_rope(on, rows_of(s, st->dst, 0), st->n_heads, st->d / st->n_heads,
                        rows_of(s, st->a, 0), st->rope->n_rot, st->rope->neox);
}

static int store(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    ts_cuda_kv kv = kv_of(s, st->layer);
    return ts_cuda_store(on, rows_of(s, st->a, 0), rows_of(s, st->b, 0), &kv);
}

/* Step i over m rows. */
static int step(ts_state *s, size_t i, const ts_batch *b, int64_t m)
{
    const ts_device *d = s->d;
    const ts_step *st = &d->plan->steps.v[i];
    const int64_t r0 = st->dst == d->plan->steps.logits ? b->logits_row : 0;
    const ts_cuda_on on = {s->batch, st->domain == TS_OUT_ROWS, m, d->stream};
    ts_cuda_rows y = st->dst == TS_NO_BUF ? (ts_cuda_rows){0} : rows_of(s, st->dst, r0);
    const float eps = d->m->hp.norm_eps;
    switch (st->op) {
    case TS_OP_ANGLES:
        return ts_cuda_angles(&on, y, d->vec[i], st->d, st->rope->mscale);
    case TS_OP_NORM:
        if (st->n_heads > 1)
            return ts_cuda_head_norm(&on, y, st->n_heads, st->d / st->n_heads, d->vec[i], eps);
        return ts_cuda_rms_norm(&on, y, rows_of(s, st->a, 0), d->vec[i], st->d, eps);
    case TS_OP_PREP:
        return prep(s, st, m);
    case TS_OP_MATMUL:
    case TS_OP_GLU:
        return product(s, st, &on, m, r0);
    case TS_OP_BIAS:
        return ts_cuda_bias(&on, y, d->vec[i], st->d);
    case TS_OP_ROPE:
        return rope(s, st, &on);
    case TS_OP_STORE:
        return store(s, st, &on);
    case TS_OP_ATTEND:
        return attend(s, st, &on);
    case TS_OP_ADD:
        return ts_cuda_add(&on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_SILU:
        return ts_cuda_silu_mul(&on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_GELU:
        return ts_cuda_gelu_mul(&on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_SELECT: {
        const ts_cuda_on out = {s->batch, true, m, d->stream};
        return ts_cuda_select(&out, y, rows_of(s, st->a, 0), st->d);
    }
    case TS_OP_SOFTCAP:
        return ts_cuda_softcap(&on, y, st->f, st->d);
    case TS_OP_EMBED: /* the CPU's */
    case TS_OP_COPY:  /* exec/run.c's */
    case TS_OP_COUNT:
        break;
    }
    return 0;
}

static ts_status cuda_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err)
{
    ts_device *d = s->d;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = ts_cuda_set_batch(s->batch, (int32_t)b->m, (int32_t)b->m_out, (int32_t)b->pos0,
                              d->stream);
    double t0 = 0;
    if (s->stats && !e) {
        e = ts_rt_wait(d->stream);
        t0 = ts_now();
    }
    size_t i = first;
    for (; i < end && !e; i++) {
        const ts_step *st = &d->plan->steps.v[i];
        const int64_t m = st->domain == TS_ALL_ROWS ? b->m : b->m_out;
        if (m == 0)
            break;
        e = step(s, i, b, m);
        if (!s->stats || e)
            continue;
        e = ts_rt_wait(d->stream);
        const double t1 = ts_now();
        s->seconds[i] += t1 - t0;
        s->calls[i]++;
        s->rows[i] += m;
        t0 = t1;
    }
    pthread_mutex_unlock(&d->lock);
    return e ? failed(d, e, i > first ? ts_op_name(d->plan->steps.v[i - 1].op) : "a batch", err)
             : TS_OK;
}

/* --- statistics ----------------------------------------------------------------- */

static void cuda_set_stats(ts_state *s, bool on)
{
    const size_t n = s->d->plan->steps.n;
    memset(s->seconds, 0, n * sizeof *s->seconds);
    memset(s->calls, 0, n * sizeof *s->calls);
    memset(s->rows, 0, n * sizeof *s->rows);
    s->stats = on;
}

static size_t cuda_stats(const ts_state *s, ts_work out[TS_MAX_WORK])
{
    const ts_steps *steps = &s->d->plan->steps;
    ts_work by_op[TS_OP_COUNT] = {{0}};
    for (size_t i = 0; i < steps->n; i++) {
        const ts_step *st = &steps->v[i];
        if (st->device != s->d->index || st->op == TS_OP_COPY)
            continue;
        const bool glu = st->op == TS_OP_GLU, matrix = glu || st->op == TS_OP_MATMUL;
        ts_work *w = &by_op[matrix ? TS_OP_MATMUL : st->op];
        const int products = glu ? 2 : 1;
        w->name = matrix ? "cuda" : ts_op_name(st->op);
        w->matrix = matrix;
        w->calls += products * s->calls[i];
        w->seconds += s->seconds[i];
        if (!matrix)
            continue;
        const size_t bytes = st->w->bytes + (glu ? st->w2->bytes : 0);
        w->n_weights += products;
        w->weight_bytes += bytes;
        w->bytes += (double)s->calls[i] * (double)bytes;
        w->flops += 2.0 * products * (double)st->w->n * (double)st->w->k * (double)s->rows[i];
    }
    size_t n = 0;
    for (int op = 0; op < TS_OP_COUNT; op++)
        if (by_op[op].name)
            out[n++] = by_op[op];
    return n;
}

const ts_backend ts_backend_cuda = {
    .name = "CUDA",
    .open = cuda_open,
    .close = cuda_close,
    .load = cuda_load,
    .state_open = cuda_state_open,
    .state_close = cuda_state_close,
    .run = cuda_run,
    .put = cuda_put,
    .get = cuda_get,
    .set_stats = cuda_set_stats,
    .stats = cuda_stats,
};

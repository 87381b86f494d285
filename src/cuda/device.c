/* device.c - a GPU opened, sessions' memory there, copies from and to it. Loading is in load.c,
 * running steps in run.c. */
#include "cuda/device.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/relax.h"
#include "cuda/impl.h"

/* --- device --------------------------------------------------------------------- */

static void cuda_close(ts_device *d)
{
    if (!d)
        return;
    ts_rt_use(d->at->ordinal);
    ts_cuda_stream_close(d->streamed);
    ts_rt_gemm_close(d->gemm);
    ts_rt_free(d->arena);
    ts_rt_free(d->vectors);
    ts_rt_free(d->strip);
    ts_rt_free_host(d->pinned);
    ts_rt_stream_close(d->stream);
    free(d->vec);
    free(d->does);
    free(d->segment);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->streaming);
    free(d);
}

/* Numbers this device's segments. */
static void find_segments(ts_device *d)
{
    const ts_steps *steps = &d->plan->steps;
    for (size_t i = 0, end; i < steps->n; i = end) {
        end = ts_steps_segment(steps, i);
        if (steps->v[i].device != d->index || steps->v[i].op == TS_OP_COPY)
            continue;
        for (size_t j = i; j < end; j++)
            d->segment[j] = d->n_segments;
        d->n_segments++;
    }
}

static ts_status open_device(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                             bool plain, ts_error *err)
{
    ts_device *d = ts_calloc(1, sizeof *d);
    if (!d)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %s", plan->dev[index].name);
    *d = (ts_device){.plan = plan,
                     .at = &plan->dev[index],
                     .m = m,
                     .index = index,
                     .plain = plain,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .streaming = PTHREAD_MUTEX_INITIALIZER};
    d->loaders = plan->n_threads < TS_CUDA_LOADERS ? plan->n_threads : TS_CUDA_LOADERS;
    d->pieces = 2 * d->loaders;
    d->vec = ts_calloc(plan->steps.n, sizeof *d->vec);
    d->does = ts_calloc(plan->steps.n, sizeof *d->does);
    d->segment = ts_calloc(plan->steps.n, sizeof *d->segment);
    if (!d->vec || !d->does || !d->segment) {
        cuda_close(d);
        return ts_fail(err, TS_NO_MEMORY, "no memory for %s", plan->dev[index].name);
    }
    find_segments(d);
    if (!plain && !plan->step_by_step)
        ts_cuda_fuse(d->does, plan, index, m);
    int e;
    if ((e = ts_rt_use(d->at->ordinal)) || (e = ts_rt_stream_open(&d->stream)) ||
        (e = ts_rt_gemm_open(&d->gemm, d->stream))) {
        ts_status s =
            e == ts_rt_no_memory
                ? ts_fail(err, TS_NO_MEMORY, "%s: its memory is too full to open it", d->at->name)
                : ts_cuda_failed(d, e, "opening it", err);
        cuda_close(d);
        return s;
    }
    *out = d;
    return TS_OK;
}

static ts_status cuda_open(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                           ts_error *err)
{
    return open_device(out, plan, index, m, false, err);
}

static ts_status plain_open(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                            ts_error *err)
{
    return open_device(out, plan, index, m, true, err);
}

/* --- sessions ------------------------------------------------------------------- */

static void cuda_state_close(ts_state *s)
{
    if (!s)
        return;
    ts_device *d = s->d;
    pthread_mutex_lock(&d->lock); /* another session may be recording */
    ts_rt_use(d->at->ordinal);
    ts_rt_wait(d->stream);
    for (int i = 0; s->shapes && i < d->n_segments * TS_CUDA_SHAPES; i++)
        ts_rt_graph_close(s->shapes[i].graph);
    ts_cuda_kv_close(s);
    if (s->pins)
        ts_rt_unpin(s->cpu);
    ts_rt_event_close(s->has_read);
    ts_rt_free(s->mem);
    pthread_mutex_unlock(&d->lock);
    free(s->spans.host);
    free(s->shapes);
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
    s->shapes = ts_calloc((size_t)d->n_segments * TS_CUDA_SHAPES, sizeof *s->shapes);
    const ts_cuda_room room = ts_cuda_room_of(d->plan, d->m);
    int32_t *table = d->plan->paged ? ts_calloc(1, ts_cuda_batch_bytes(d->plan, d->m)) : NULL;
    s->spans.host = table;
    size_t bytes = ts_cuda_aligned(d->at->kv) + ts_cuda_aligned(d->at->scratch) +
                   ts_cuda_aligned(ts_cuda_batch_bytes(d->plan, d->m));
    for (size_t i = 0; i < steps->n_bufs; i++)
        if (steps->bufs[i].devices >> d->index & 1)
            bytes += ts_cuda_aligned(ts_plan_buffer_bytes(d->plan, d->index, (ts_buf)i));
    ts_status st = TS_OK;
    int e = ts_rt_use(d->at->ordinal);
    if (!s->bufs || !s->seconds || !s->calls || !s->rows || !s->shapes ||
        (d->plan->paged && !table))
        st = ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    else if (e || (e = ts_rt_alloc((void **)&s->mem, bytes)))
        st = ts_cuda_no_memory(d, e, bytes, "a session", err);
    else
        st = ts_cuda_kv_open(s, err);
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
        at += ts_cuda_aligned(ts_plan_buffer_bytes(d->plan, d->index, (ts_buf)i));
    }
    s->work = at;
    s->batch = (ts_cuda_batch *)(at + ts_cuda_aligned(d->at->scratch));
    if (table)
        ts_cuda_spans_at(&s->spans, &room, table, s->batch);
    *out = s;
    return TS_OK;
}

/* --- copies --------------------------------------------------------------------- */

/* The CPU's buffers are pinned, whole pages of them, or copies go through pieces that are. */
static void cuda_share(ts_state *s, const void *mem, size_t bytes)
{
    const uintptr_t page = 4096, lo = ((uintptr_t)mem + page - 1) / page * page;
    const uintptr_t hi = ((uintptr_t)mem + bytes) / page * page;
    pthread_mutex_lock(&s->d->lock);
    int e = ts_rt_use(s->d->at->ordinal);
    if (!e && hi > lo && !(e = ts_rt_event_open(&s->has_read))) {
        e = ts_rt_pin((const void *)lo, hi - lo);
        s->pins = !e;
        if (e == ts_rt_is_pinned) /* by the session's part on another GPU, which is closed later */
            e = 0;
        s->cpu = e ? NULL : (const uint8_t *)lo;
        s->cpu_bytes = e ? 0 : hi - lo;
    }
    pthread_mutex_unlock(&s->d->lock);
    if (e)
        ts_logf(&s->d->log, TS_LOG_DEBUG, "%s: the CPU's buffers can't be pinned (%s)",
                s->d->at->name, ts_rt_text(e));
}

static ts_status cuda_settle(ts_state *s, ts_error *err)
{
    if (!s->reading)
        return TS_OK;
    s->reading = false;
    const int e = ts_rt_event_wait(s->has_read);
    return e ? ts_cuda_failed(s->d, e, "waiting for it", err) : TS_OK;
}

/* Few bytes are copied sooner than the next step of the CPU could wait for them to be read. */
#define DIRECT_BYTES (TS_CUDA_PIECE / 64)

static bool is_pinned(const ts_state *s, const void *p, size_t bytes)
{
    const uintptr_t at = (uintptr_t)p, lo = (uintptr_t)s->cpu;
    return s->cpu && at >= lo && bytes <= s->cpu_bytes && at - lo <= s->cpu_bytes - bytes;
}

/* A piece at a time, which a kernel reads. */
int ts_cuda_send(ts_device *d, float *dst, const float *src, size_t n)
{
    const size_t most = TS_CUDA_PIECE / sizeof *src;
    int e = 0;
    for (size_t now; n && !e; dst += now, src += now, n -= now) {
        now = n < most ? n : most;
        if (d->sent - d->read == (uint64_t)d->pieces) {
            if ((e = ts_rt_wait(d->stream)))
                break;
            d->read = d->sent;
        }
        float *piece = (float *)(d->pinned + d->sent++ % (uint64_t)d->pieces * TS_CUDA_PIECE);
        memcpy(piece, src, now * sizeof *src);
        e = ts_cuda_pull(dst, piece, (int64_t)now, d->stream);
    }
    return e;
}

/* A kernel reads what the CPU has, where that is pinned and worth it. */
static ts_status cuda_put(ts_state *s, ts_buf buf, int64_t r, int64_t rows, const float *src,
                          ts_error *err)
{
    ts_device *d = s->d;
    float *dst = ts_cuda_row(s, buf, r);
    const size_t n = (size_t)(rows * d->plan->steps.bufs[buf].width), bytes = n * sizeof *src;
    const bool direct =
        bytes >= DIRECT_BYTES && (uintptr_t)src % 16 == 0 && is_pinned(s, src, bytes);
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = direct ? ts_cuda_pull(dst, src, (int64_t)n, d->stream) : ts_cuda_send(d, dst, src, n);
    if (!e && direct) {
        e = ts_rt_event_record(s->has_read, d->stream);
        s->reading = !e;
    }
    pthread_mutex_unlock(&d->lock);
    return e ? ts_cuda_failed(d, e, "a copy to it", err) : TS_OK;
}

/* Seconds that the host looks for a push: most that a token waits for. Later it may sleep. */
#define LOOKS 5e-3
/* What one block writes about as soon as a copy engine does. */
#define PUSH_BYTES ((size_t)128 << 10)

static size_t bytes_of(const ts_state *s, const ts_crossing *c)
{
    return (size_t)(c->rows * s->d->plan->steps.bufs[c->buf].width) * sizeof *c->at;
}

/* Few bytes, which a kernel writes to where they are wanted, and a flag behind them: 12 us until
 * the host has 8 KiB of one buffer and a few bytes of another where two copies and waits took 19.
 */
static int push(ts_state *s, const ts_crossing *c, int n)
{
    ts_device *d = s->d;
    ts_cuda_pushed p = {0};
    for (int i = 0; i < n; i++) {
        p.part[i].src = ts_cuda_row(s, c[i].buf, c[i].r);
        p.part[i].dst = c[i].at;
        p.part[i].n = (int64_t)(bytes_of(s, &c[i]) / sizeof *c->at);
    }
    d->pushes += d->pushes == UINT32_MAX ? 2 : 1; /* 0 is none */
    s->push = d->pushes;
    return ts_cuda_push(&p, d->arrived, s->push, d->stream);
}

/* Copies; by way of a piece if the memory isn't pinned, which is waited for. */
static int copy_out(ts_state *s, const ts_crossing *c, int n, bool pinned)
{
    ts_device *d = s->d;
    int e = 0;
    for (int i = 0; i < n && !e; i++) {
        const uint8_t *src = (const uint8_t *)ts_cuda_row(s, c[i].buf, c[i].r);
        uint8_t *to = (uint8_t *)c[i].at;
        size_t left = bytes_of(s, &c[i]);
        if (pinned) {
            e = ts_rt_copy(to, src, left, d->stream);
            left = 0;
        }
        for (size_t now; left && !e; to += now, src += now, left -= now) {
            now = left < TS_CUDA_PIECE ? left : TS_CUDA_PIECE;
            if ((e = ts_rt_copy(d->pinned, src, now, d->stream)) || (e = ts_rt_wait(d->stream)))
                break;
            memcpy(to, d->pinned, now);
        }
    }
    s->copying = pinned;
    return e;
}

static ts_status cuda_get(ts_state *s, const ts_crossing *c, int n, ts_error *err)
{
    ts_device *d = s->d;
    size_t bytes = 0;
    bool pinned = true;
    for (int i = 0; i < n; i++) {
        bytes += bytes_of(s, &c[i]);
        pinned = pinned && is_pinned(s, c[i].at, bytes_of(s, &c[i]));
    }
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    s->push = 0;
    s->copying = false;
    s->sent = d->sent;
    if (!e)
        e = pinned && n <= TS_CUDA_PUSHED && bytes <= PUSH_BYTES ? push(s, c, n)
                                                                 : copy_out(s, c, n, pinned);
    pthread_mutex_unlock(&d->lock);
    return e ? ts_cuda_failed(d, e, "a copy from it", err) : TS_OK;
}

/* Has this push arrived, or a later one? */
static bool has_arrived(const ts_device *d, uint32_t push)
{
    return (int32_t)(__atomic_load_n(d->arrived, __ATOMIC_ACQUIRE) - push) >= 0;
}

static ts_status cuda_arrive(ts_state *s, ts_error *err)
{
    ts_device *d = s->d;
    const double until = s->push ? ts_now() + LOOKS : 0;
    bool waits = s->copying || s->push;
    while (s->push && (waits = !has_arrived(d, s->push)) && ts_now() < until)
        ts_relax();
    pthread_mutex_lock(&d->lock); /* another session may be recording */
    int e = waits ? ts_rt_use(d->at->ordinal) : 0;
    if (waits && !e)
        e = ts_rt_wait(d->stream);
    /* what was queued before has been done: nothing is read any more of what was put */
    d->read = !e && d->read < s->sent ? s->sent : d->read;
    pthread_mutex_unlock(&d->lock);
    s->reading = e && s->reading;
    return e ? ts_cuda_failed(d, e, "a copy from it", err) : TS_OK;
}

/* --- streaming ------------------------------------------------------------------ */

static ts_status stream_failed(ts_device *d, int e, ts_error *err)
{
    return e ? ts_cuda_failed(d, e, "bringing weights", err) : TS_OK;
}

static ts_status cuda_stream_open(ts_device *d, ts_error *err)
{
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = ts_cuda_stream_open(&d->streamed, d->plan, d->m, d->stream, &d->log);
    if (e == ts_rt_no_memory)
        return ts_cuda_no_memory(d, e, d->at->stream, "streamed weights", err);
    return stream_failed(d, e, err);
}

static ts_status cuda_stream_begin(ts_state *s, int64_t first, const int32_t *order, int64_t ahead,
                                   bool wait, ts_error *err)
{
    ts_device *d = s->d;
    pthread_mutex_lock(&d->streaming);
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = ts_cuda_stream_begin(d->streamed, first, order, ahead, wait);
    pthread_mutex_unlock(&d->lock);
    return stream_failed(d, e, err);
}

static ts_status cuda_stream_experts(ts_state *s, int layer, const int32_t *list, int64_t n,
                                     ts_error *err)
{
    ts_device *d = s->d;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = ts_cuda_stream_experts(d->streamed, layer, list, n);
    pthread_mutex_unlock(&d->lock);
    return stream_failed(d, e, err);
}

static void cuda_stream_end(ts_state *s)
{
    pthread_mutex_unlock(&s->d->streaming);
}

static ts_status cuda_stream_time(ts_state *s, double *seconds, ts_error *err)
{
    ts_device *d = s->d;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = ts_cuda_stream_time(d->streamed, seconds);
    pthread_mutex_unlock(&d->lock);
    return stream_failed(d, e, err);
}

static bool cuda_stream_alone(ts_state *s, int64_t n)
{
    const bool can = s->d->streamed && ts_cuda_stream_fetches(s->d->streamed);
    s->alone = can ? n : 0;
    return can;
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
        const bool glu = st->w2 != NULL, experts = st->op == TS_OP_EXPERTS;
        const bool matrix = glu || experts || st->op == TS_OP_MATMUL || st->op == TS_OP_HEADS;
        ts_work *w = &by_op[matrix ? TS_OP_MATMUL : st->op];
        const int products = glu ? 2 : 1;
        w->name = matrix ? "cuda" : ts_op_name(st->op);
        w->matrix = matrix;
        w->calls += products * s->calls[i];
        w->seconds += s->seconds[i];
        /* of shared experts it isn't known here how many pairs were this device's */
        if (!matrix || (experts && i >= steps->n_main && st->w->device == 0))
            continue;
        const size_t bytes = st->w->bytes + (glu ? st->w2->bytes : 0);
        if (i < steps->n_main) { /* the second list has them again */
            w->n_weights += products;
            w->weight_bytes += bytes;
        }
        /* of experts: at most what the tokens chose, and all */
        const double most = (double)s->calls[i] * (double)bytes;
        const double some = (double)bytes / (double)st->w->e * (double)(s->rows[i] * st->w->used);
        w->bytes += experts && some < most ? some : most;
        w->flops += 2.0 * products * (double)st->w->n * (double)st->w->k *
                    (double)(s->rows[i] * st->w->used);
    }
    size_t n = 0;
    for (int op = 0; op < TS_OP_COUNT; op++)
        if (by_op[op].name)
            out[n++] = by_op[op];
    return n;
}

#define BACKEND(open_)                                                                             \
    {                                                                                              \
        .open = open_, .name = "CUDA", .close = cuda_close, .load = ts_cuda_load,                  \
        .state_open = cuda_state_open, .state_close = cuda_state_close, .run = ts_cuda_run,        \
        .share = cuda_share, .settle = cuda_settle, .put = cuda_put, .get = cuda_get,              \
        .arrive = cuda_arrive, .stream_alone = cuda_stream_alone, .kv_get = ts_cuda_kv_get,        \
        .kv_put = ts_cuda_kv_put, .stream_open = cuda_stream_open,                                 \
        .stream_begin = cuda_stream_begin, .stream_experts = cuda_stream_experts,                  \
        .stream_end = cuda_stream_end, .stream_time = cuda_stream_time,                            \
        .set_stats = cuda_set_stats, .stats = cuda_stats,                                          \
    }

const ts_backend ts_backend_cuda = BACKEND(cuda_open);
const ts_backend ts_backend_cuda_plain = BACKEND(plain_open);

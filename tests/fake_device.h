/* fake_device.h - an accelerator without hardware, for tests of splits.
 *
 * It computes with the CPU device's code and `ref` kernels, in memory that nobody else can reach:
 * outside the fake's own calls its arena and its sessions' memory are PROT_NONE, so that an access
 * from the wrong side faults at once. What has never been written there is NaN. Every call that may
 * fail counts, and can be told to. */
#ifndef TS_FAKE_DEVICE_H
#define TS_FAKE_DEVICE_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "exec/cpu.h"

static int64_t fake_calls;         /* that may fail, so far                    */
static int64_t fake_fails_at = -1; /* the number of the one that fails; -1: none */
static bool fake_fails_on;         /* and of all that come after it           */
static int64_t fake_copies, fake_runs;

static ts_status fake_call(const char *what, ts_error *err)
{
    const int64_t call = fake_calls++;
    if (call == fake_fails_at || (fake_fails_on && fake_fails_at >= 0 && call > fake_fails_at))
        return ts_fail(err, strncmp(what, "allocate", 8) == 0 ? TS_NO_MEMORY : TS_IO,
                       "the fake device fails to %s, as it was told", what);
    return TS_OK;
}

static void fake_protect(void *p, size_t n, int how)
{
    if (p && n)
        REQUIRE(mprotect(p, n, how) == 0);
}

/* Its memory can be reached from here to the call with PROT_NONE. s may be NULL. */
static void fake_reach(ts_device *d, ts_state *s, int how)
{
    fake_protect(d->packed, d->at->packed, how);
    if (s)
        fake_protect(s->mem, s->mem_bytes, how);
}

static ts_status fake_open(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                           ts_error *err)
{
    ts_status s = fake_call("open", err);
    return s ? s : ts_backend_cpu.open(out, plan, index, m, err);
}

static void fake_close(ts_device *d)
{
    ts_backend_cpu.close(d);
}

static ts_status fake_load(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err)
{
    (void)opt;
    ts_status s = fake_call("allocate", err);
    if (s)
        return s;
    d->packed = ts_map(d->at->packed);
    REQUIRE(d->packed);
    memset(d->packed, 0xff, d->at->packed);
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        if (w->device != d->index)
            continue;
        if ((s = fake_call("upload", err)))
            return s;
        REQUIRE(w->offset + w->bytes <= d->at->packed && w->bytes == ts_weight_source(w));
        for (int64_t x = 0; x < w->e; x++)
            memcpy(d->packed + w->offset + (size_t)x * (w->bytes / (size_t)w->e),
                   ts_weight_matrix(w, x), w->bytes / (size_t)w->e);
        w->data = d->packed + w->offset;
    }
    fake_reach(d, NULL, PROT_NONE);
    return TS_OK;
}

static ts_status fake_state_open(ts_state **out, ts_device *d, ts_error *err)
{
    ts_status s = fake_call("allocate a session", err);
    if (s || (s = ts_backend_cpu.state_open(out, d, err)))
        return s;
    memset((*out)->mem, 0xff, (*out)->mem_bytes);
    fake_reach(d, *out, PROT_NONE);
    return TS_OK;
}

static void fake_state_close(ts_state *s)
{
    ts_backend_cpu.state_close(s);
}

static ts_status fake_run_streamed(ts_state *s, const ts_batch *b, size_t first, size_t end,
                                   ts_error *err);

static ts_status fake_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err)
{
    ts_status st = fake_call("launch", err);
    if (st)
        return st;
    fake_runs++;
    fake_reach(s->d, s, PROT_READ | PROT_WRITE);
    for (size_t i = first; i < end; i++)
        CHECK(s->d->plan->steps.v[i].device == s->d->index);
    st = first < s->d->plan->steps.n_main ? ts_backend_cpu.run(s, b, first, end, err)
                                          : fake_run_streamed(s, b, first, end, err);
    fake_reach(s->d, s, PROT_NONE);
    return st;
}

/* Rows of a buffer to or from the CPU's. */
static ts_status fake_move(ts_state *s, ts_buf buf, int64_t r, int64_t rows, float *cpu, bool put,
                           ts_error *err)
{
    ts_status st = fake_call("copy", err);
    if (st)
        return st;
    fake_copies++;
    const size_t n = (size_t)(rows * s->d->plan->steps.bufs[buf].width) * sizeof *cpu;
    fake_reach(s->d, s, PROT_READ | PROT_WRITE);
    float *own = ts_backend_cpu.row(s, buf, r);
    memcpy(put ? own : cpu, put ? cpu : own, n);
    fake_reach(s->d, s, PROT_NONE);
    return TS_OK;
}

static ts_status fake_put(ts_state *s, ts_buf buf, int64_t r, int64_t rows, const float *src,
                          ts_error *err)
{
    return fake_move(s, buf, r, rows, (float *)(uintptr_t)src, true, err);
}

static ts_status fake_get(ts_state *s, const ts_crossing *c, int n, ts_error *err)
{
    ts_status st = TS_OK;
    for (int i = 0; i < n && !st; i++)
        st = fake_move(s, c[i].buf, c[i].r, c[i].rows, c[i].at, false, err);
    return st;
}

static ts_status fake_arrive(ts_state *s, ts_error *err)
{
    (void)s;
    (void)err;
    return TS_OK;
}

static void fake_set_stats(ts_state *s, bool on)
{
    ts_backend_cpu.set_stats(s, on);
}

static size_t fake_stats(const ts_state *s, ts_work out[TS_MAX_WORK])
{
    return ts_backend_cpu.stats(s, out);
}

static const ts_kset *fake_kset(ts_type type)
{
    return ts_kset_get(type, TS_ISA_REF);
}

/* --- streaming: packed weights are taken over and unpacked, a layer at a time --- */

static int64_t fake_streams; /* layers that came */
static int64_t fake_layer = -1;
static int fake_listed = -1;                     /* the layer whose shared experts are known: */
static bool fake_has[TS_MAX_EXPERTS];            /* what they are                             */
static int64_t fake_ahead, fake_sent, fake_left; /* ... ahead; of all layers: sent, not sent  */
static const int32_t *fake_order;

static ts_status fake_stream_open(ts_device *d, ts_error *err)
{
    (void)d;
    return fake_call("allocate a ring", err);
}

static ts_status fake_stream_begin(ts_state *s, int64_t first, const int32_t *order, int64_t ahead,
                                   bool wait, ts_error *err)
{
    (void)s;
    (void)wait;
    fake_layer = first - 1;
    fake_listed = -1;
    fake_ahead = ahead;
    fake_order = order;
    return fake_call("stream", err);
}

/* Each expert once, those that come ahead first, as they stood in the order when it was used. */
static ts_status fake_stream_experts(ts_state *s, int layer, const int32_t *list, int64_t n,
                                     ts_error *err)
{
    const int64_t all = s->d->m->hp.moe.n_expert;
    CHECK(layer > fake_listed && n >= fake_ahead && n <= all && fake_order);
    memset(fake_has, 0, sizeof fake_has);
    for (int64_t i = 0; i < n; i++) {
        CHECK(list[i] >= 0 && list[i] < all && !fake_has[list[i]]);
        fake_has[list[i]] = true;
    }
    fake_listed = layer;
    fake_sent += n;
    fake_left += all - n;
    return fake_call("send experts", err);
}

static void fake_stream_end(ts_state *s)
{
    (void)s;
    fake_layer = -1;
}

static ts_status fake_stream_time(ts_state *s, double *seconds, ts_error *err)
{
    (void)s;
    *seconds = 1e-6;
    return fake_call("measure", err);
}

/* The source of a weight that the CPU has, in memory of its own. */
static void *fake_unpacked(const ts_weight *w)
{
    void *p = NULL;
    const size_t bytes = ts_weight_source(w) / (size_t)w->e;
    REQUIRE(w->device == 0 && posix_memalign(&p, 64, ts_weight_source(w)) == 0);
    for (int64_t x = 0; x < w->e; x++)
        if (w->kset->packed_bytes && w->e > 1)
            ts_kset_stack_unpack(w->kset, p, w->data, w->n, w->k, x, 0, w->n);
        else if (w->kset->packed_bytes)
            w->kset->unpack(p, w->data, w->n, w->k, 0, w->n);
        else
            memcpy((uint8_t *)p + (size_t)x * bytes, ts_weight_matrix(w, x), bytes);
    for (int64_t x = 0; w->experts && x < w->e; x++)
        if (!fake_has[x]) /* it hasn't come */
            memset((uint8_t *)p + (size_t)x * bytes, 0xff, bytes);
    return p;
}

/* Steps of a streamed layer with its weights there. */
static ts_status fake_run_streamed(ts_state *s, const ts_batch *b, size_t first, size_t end,
                                   ts_error *err)
{
    ts_status st = TS_OK;
    for (size_t i = first; i < end && !st; i++) {
        ts_step *x = &s->d->plan->steps.v[i];
        ts_weight *w[2] = {(ts_weight *)(uintptr_t)x->w, (ts_weight *)(uintptr_t)x->w2};
        const void *kept[2] = {0};
        const bool any = (w[0] && w[0]->device == 0) || (w[1] && w[1]->device == 0);
        const bool comes = x->layer > fake_layer && any;
        if (comes && (st = fake_call("bring a layer", err)))
            break;
        fake_streams += comes;
        fake_layer = comes ? x->layer : fake_layer;
        for (int j = 0; j < 2; j++)
            if (w[j] && w[j]->device == 0) {
                CHECK(x->layer == fake_layer && (!w[j]->experts || x->layer == fake_listed));
                kept[j] = w[j]->data;
                w[j]->data = fake_unpacked(w[j]);
            }
        st = ts_backend_cpu.run(s, b, i, i + 1, err);
        for (int j = 0; j < 2; j++)
            if (kept[j]) {
                free((void *)(uintptr_t)w[j]->data);
                w[j]->data = kept[j];
            }
    }
    return st;
}

static ts_status fake_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                             const uint16_t **kv, ts_error *err)
{
    ts_status st = fake_call("copy K and V", err);
    if (st)
        return st;
    fake_reach(s->d, s, PROT_READ | PROT_WRITE);
    st = ts_cpu_kv_get(s, layer, pos, n, room, kv, err);
    fake_reach(s->d, s, PROT_NONE);
    return st;
}

static ts_status fake_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                             ts_error *err)
{
    ts_status st = fake_call("copy K and V", err);
    if (st)
        return st;
    fake_reach(s->d, s, PROT_READ | PROT_WRITE);
    st = ts_cpu_kv_put(s, layer, pos, n, kv, err);
    fake_reach(s->d, s, PROT_NONE);
    return st;
}

static bool fake_can_stream(const ts_kset *cpu)
{
    (void)cpu;
    return true;
}

static bool fake_experts(const ts_moe *e, const ts_weight *w)
{
    return e->n_expert > 0 && w->experts;
}

static bool fake_latent(const ts_hparams *hp, const ts_weight *k_b, const ts_weight *v_b)
{
    return hp->n_head_kv == 1 && k_b->e == hp->n_head && v_b->e == hp->n_head;
}

static const ts_accel_kind fake_kind = {.name = "fake",
                                        .isa = TS_ISA_REF,
                                        .kset = fake_kset,
                                        .kv_bytes = ts_plan_cpu_kv,
                                        .work_bytes = ts_plan_cpu_work,
                                        .experts = fake_experts,
                                        .latent = fake_latent,
                                        .streams = fake_can_stream};

static const ts_backend fake_backend = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .load = fake_load,
    .state_open = fake_state_open,
    .state_close = fake_state_close,
    .run = fake_run,
    .put = fake_put,
    .get = fake_get,
    .arrive = fake_arrive,
    .kv_get = fake_kv_get,
    .kv_put = fake_kv_put,
    .stream_open = fake_stream_open,
    .stream_begin = fake_stream_begin,
    .stream_experts = fake_stream_experts,
    .stream_end = fake_stream_end,
    .stream_time = fake_stream_time,
    .set_stats = fake_set_stats,
    .stats = fake_stats,
};

#endif

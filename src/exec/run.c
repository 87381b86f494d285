/* run.c - see run.h. */
#include "exec/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "exec/alone.h"
#include "exec/finite.h"
#include "exec/stream.h"

/* --- devices ---------------------------------------------------------------- */

void ts_devices_close(ts_devices *d)
{
    for (int i = d->n; i-- > 0;)
        if (d->dev[i])
            d->be[i]->close(d->dev[i]);
    d->n = 0;
}

/* Progress of one device as a part of all. */
typedef struct part {
    const ts_load_options *all;
    double begin, share;
} part;

static bool part_done(void *user, double done)
{
    const part *p = user;
    return p->all->progress(p->all->progress_user, p->begin + p->share * done);
}

static ts_status load(ts_devices *d, ts_model *m, const ts_load_options *opt, ts_error *err)
{
    double all = 0;
    for (int i = 0; i < d->n; i++)
        all += (double)d->plan->dev[i].packed;
    part p = {.all = opt};
    /* the CPU last: packing for it takes long, and accelerators may refuse */
    for (int i = d->n; i-- > 0;) {
        ts_load_options o = *opt;
        if (!d->dev[i])
            continue;
        p.begin += p.share;
        p.share = d->n == 1 ? 1 : all > 0 ? (double)d->plan->dev[i].packed / all : 0;
        if (o.progress) {
            o.progress = part_done;
            o.progress_user = &p;
        }
        ts_status s = d->be[i]->load(d->dev[i], m, &o, err);
        if (s)
            return s;
    }
    const int sd = d->plan->stream.device;
    return sd ? d->be[sd]->stream_open(d->dev[sd], err) : TS_OK;
}

ts_status ts_devices_open(ts_devices *out, const ts_backend *const be[], const ts_plan *plan,
                          ts_model *m, const ts_load_options *opt, ts_error *err)
{
    *out = (ts_devices){.plan = plan, .m = m};
    ts_status s = TS_OK;
    for (int i = 0; i < plan->n_devices && !s; i++) {
        out->be[i] = be[i];
        if (plan->dev[i].used)
            s = be[i]->open(&out->dev[i], plan, i, m, err);
        if (!s)
            out->n++;
    }
    if (!s)
        s = load(out, m, opt, err);
    if (s)
        ts_devices_close(out);
    return s;
}

/* --- sessions --------------------------------------------------------------- */

void ts_run_close(ts_run *r)
{
    for (int i = r->d ? r->d->n : 0; i-- > 0;) /* the CPU's memory last, which others may use */
        if (r->state[i])
            r->d->be[i]->state_close(r->state[i]);
    free(r->on_stream);
    free(r->kv);
    free(r->order);
    free(r->count);
    free(r->list);
    free(r->seen);
    *r = (ts_run){0};
}

/* What a plan that streams needs of a session besides its devices' states. */
static ts_status open_stream(ts_run *r, ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const ts_hparams *hp = &r->d->m->hp;
    if (!p->stream.device)
        return TS_OK;
    const int64_t dims = hp->head_dim + (r->d->m->arch->latent ? 0 : hp->v_dim);
    const size_t n = (size_t)p->n_ubatch * (size_t)(hp->n_head_kv * dims);
    r->n_pages = (p->n_ctx + TS_PAGE - 1) / TS_PAGE;
    r->on_stream = ts_calloc((size_t)(hp->n_layer * r->n_pages), sizeof *r->on_stream);
    r->kv = ts_calloc(n, sizeof *r->kv);
    bool there = r->on_stream && r->kv;
    if (p->stream.shares) {
        const size_t experts = (size_t)hp->moe.n_expert;
        r->order = ts_calloc((size_t)hp->n_layer * experts, sizeof *r->order);
        r->count = ts_calloc(experts, sizeof *r->count);
        r->list = ts_calloc(experts, sizeof *r->list);
        there = there && r->order && r->count && r->list;
        for (size_t i = 0; there && i < (size_t)hp->n_layer * experts; i++)
            r->order[i] = (int32_t)(i % experts);
    }
    return there ? TS_OK : ts_fail(err, TS_NO_MEMORY, "no memory for a session");
}

/* Rows are looked at a megabyte at a time, and one at least. */
static ts_status open_seen(ts_run *r, ts_error *err)
{
    r->n_seen = ts_finite_floats(r->d->plan);
    if (r->n_seen < 1 << 18)
        r->n_seen = 1 << 18;
    r->seen = ts_calloc(r->n_seen, sizeof *r->seen);
    return r->seen
               ? TS_OK
               : ts_fail(err, TS_NO_MEMORY, "no memory for %zu floats to be looked at", r->n_seen);
}

ts_status ts_run_open(ts_run *out, const ts_devices *d, bool check_finite, ts_error *err)
{
    ts_run r = {.d = d, .copies.name = "copy"};
    ts_status s = open_stream(&r, err);
    if (!s && check_finite)
        s = open_seen(&r, err);
    const void *mem = NULL;
    size_t bytes = 0;
    for (int i = 0; i < d->n && !s; i++) {
        if (!d->dev[i])
            continue;
        s = d->be[i]->state_open(&r.state[i], d->dev[i], err);
        if (i == 0 && !s)
            d->be[0]->buffers(r.state[0], &mem, &bytes);
        else if (!s && d->be[i]->share)
            d->be[i]->share(r.state[i], mem, bytes);
    }
    if (s)
        ts_run_close(&r);
    else
        *out = r;
    return s;
}

ts_status ts_run_settle(ts_run *r, ts_error *err)
{
    ts_status s = TS_OK;
    for (int i = 1; i < r->d->n && !s; i++)
        if (r->state[i] && r->d->be[i]->settle)
            s = r->d->be[i]->settle(r->state[i], err);
    return s;
}

ts_status ts_run_get(const ts_run *r, int device, const ts_crossing *c, int n, ts_error *err)
{
    ts_status s = r->d->be[device]->get(r->state[device], c, n, err);
    return s ? s : r->d->be[device]->arrive(r->state[device], err);
}

static int64_t rows_of(const ts_step *st, const ts_batch *b)
{
    return st->domain == TS_ALL_ROWS ? b->m : b->m_out;
}

ts_crossing ts_run_crossing(const ts_run *r, const ts_batch *b, size_t i)
{
    const ts_step *st = &r->d->plan->steps.v[i];
    const int64_t r0 = st->dst == r->d->plan->steps.logits ? b->logits_row : 0;
    return (ts_crossing){st->dst, r0, rows_of(st, b), r->d->be[0]->row(r->state[0], st->dst, r0)};
}

void ts_run_crossed(ts_run *r, const ts_crossing *c, int n, double seconds)
{
    if (!r->stats)
        return;
    r->copies.seconds += seconds;
    r->copies.calls += n;
    for (int i = 0; i < n; i++)
        r->copies.bytes +=
            (double)(c[i].rows * r->d->plan->steps.bufs[c[i].buf].width) * sizeof(float);
}

/* The copy of step i; of those to the CPU the next ones, too, that come from the same device.
 * *end is where they end. */
static ts_status copy(ts_run *r, const ts_batch *b, size_t i, size_t stop, size_t *end,
                      ts_error *err)
{
    enum { MOST = 4 };
    const ts_devices *d = r->d;
    const ts_step *v = d->plan->steps.v;
    const double t0 = r->stats ? ts_now() : 0;
    const int to = v[i].device, from = v[i].from;
    ts_crossing c[MOST] = {ts_run_crossing(r, b, i)};
    int n = 1;
    for (i++; i < stop && n < MOST && to == 0 && v[i].op == TS_OP_COPY && v[i].device == 0 &&
              v[i].from == from && rows_of(&v[i], b) > 0;
         i++)
        c[n++] = ts_run_crossing(r, b, i);
    *end = i;
    ts_status s = to ? d->be[to]->put(r->state[to], c->buf, c->r, c->rows, c->at, err)
                     : ts_run_get(r, from, c, n, err);
    ts_run_crossed(r, c, n, r->stats ? ts_now() - t0 : 0);
    return s;
}

ts_status ts_run_steps(ts_run *r, const ts_batch *b, size_t first, size_t stop, ts_error *err)
{
    const ts_devices *d = r->d;
    const ts_steps *steps = &d->plan->steps;
    for (size_t i = first, end; i < stop; i = end) {
        const ts_step *st = &steps->v[i];
        const int64_t rows = rows_of(st, b);
        if (rows == 0) /* nor has what follows: no logits are wanted */
            return TS_OK;
        end = r->seen ? i + 1 : ts_steps_segment(steps, i);
        end = end < stop ? end : stop;
        ts_status s = st->device == 0 ? ts_run_settle(r, err) : TS_OK;
        if (!s)
            s = st->op == TS_OP_COPY ? copy(r, b, i, r->seen ? end : stop, &end, err)
                : st->op == TS_OP_SHARE
                    ? ts_stream_share_step(r, st, rows, err)
                    : d->be[st->device]->run(r->state[st->device], b, i, end, err);
        if (!s && r->seen)
            s = ts_finite_step(r, b, i, r->seen, r->n_seen, err);
        if (s)
            return s;
    }
    return TS_OK;
}

ts_status ts_run_batch(ts_run *r, const ts_batch *b, ts_error *err)
{
    /* many timelines are mostly one token each, which isn't worth it */
    const int64_t keep =
        ts_batch_spans(b) == 1 ? ts_stream_keep(&r->d->plan->stream, &r->d->rates, b->m) : -1;
    if (keep >= 0)
        return ts_stream_batch(r, b, keep, err);
    if (b->m == 1 && r->d->rates.alone > 0 && !r->seen && !b->routing)
        return ts_alone_batch(r, b, err);
    ts_stream_forget(r, b);
    return ts_run_steps(r, b, 0, r->d->plan->steps.n_main, err);
}

ts_status ts_run_noise(ts_run *r, ts_buf x, int64_t m, uint64_t seed, ts_error *err)
{
    const ts_buffer *b = &r->d->plan->steps.bufs[x];
    if (!(b->devices & 1))
        return TS_OK;
    ts_status s = ts_run_settle(r, err);
    if (s)
        return s;
    float *v = r->d->be[0]->row(r->state[0], x, 0);
    for (int64_t i = 0; i < m * b->width; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        v[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
    for (int i = 1; i < r->d->n && !s; i++)
        if (b->devices >> i & 1)
            s = r->d->be[i]->put(r->state[i], x, 0, m, v, err);
    return s;
}

float *ts_run_logits(ts_run *r)
{
    return r->d->be[0]->row(r->state[0], r->d->plan->steps.logits, 0);
}

ts_status ts_run_hidden(ts_run *r, int64_t i, float *out, ts_error *err)
{
    const ts_devices *d = r->d;
    const int at = d->m->output->device;
    const ts_buf x = d->plan->steps.hidden;
    const ts_crossing c = {x, i, 1, out};
    if (at)
        return ts_run_get(r, at, &c, 1, err);
    memcpy(out, d->be[0]->row(r->state[0], x, i), (size_t)d->m->hp.n_embd * sizeof *out);
    return TS_OK;
}

/* --- statistics ------------------------------------------------------------- */

void ts_run_set_stats(ts_run *r, bool on)
{
    for (int i = 0; i < r->d->n; i++)
        if (r->state[i])
            r->d->be[i]->set_stats(r->state[i], on);
    r->copies = (ts_work){.name = "copy"};
    r->stats = on;
}

size_t ts_run_stats(const ts_run *r, ts_work out[TS_MAX_WORK])
{
    size_t n = 0;
    for (int i = 0; i < r->d->n; i++) {
        ts_work w[TS_MAX_WORK];
        const size_t more = r->state[i] ? r->d->be[i]->stats(r->state[i], w) : 0;
        for (size_t j = 0; j < more && n < TS_MAX_WORK; j++) {
            out[n] = w[j];
            out[n++].device = r->d->plan->dev[i].name;
        }
    }
    if (r->d->n > 1 && n < TS_MAX_WORK)
        out[n++] = r->copies;
    return n;
}

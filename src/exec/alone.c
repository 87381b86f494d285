/* alone.c - see alone.h. */
#include "exec/alone.h"

#include <string.h>

#include "base/clock.h"

/* What the CPU wants to know of a layer: what was chosen, and the row. */
enum { CROSSINGS = 4 };

/* A layer's part of the second list that both sides work at: copies to the CPU with SHARE among
 * them, the stream device's steps, and with them a copy of what it needn't be told, then the CPU's.
 */
typedef struct shared {
    size_t copy[CROSSINGS];
    int n_copies;
    size_t share, there, cpu, end; /* `there` on are the device's, `cpu` .. end-1 the CPU's */
} shared;

static bool to_cpu(const ts_step *st)
{
    return st->op == TS_OP_COPY && st->device == 0;
}

/* Do copies to the CPU begin at step i, and SHARE behind them? Then what that is. */
static bool is_shared(const ts_steps *s, size_t i, size_t stop, shared *out)
{
    const ts_step *v = s->v;
    size_t j = i;
    if (!to_cpu(&v[i])) /* most steps of a token */
        return false;
    *out = (shared){0};
    for (bool known = false; j < stop && (to_cpu(&v[j]) || (!known && v[j].op == TS_OP_SHARE)); j++)
        if (v[j].op == TS_OP_SHARE) {
            known = true;
            out->share = j;
        } else if (out->n_copies == CROSSINGS || v[j].from != v[i].from) {
            return false;
        } else {
            out->copy[out->n_copies++] = j;
        }
    if (!out->share)
        return false;
    out->there = out->cpu = j;
    while (out->cpu < stop && (v[out->cpu].device != 0 || v[out->cpu].op == TS_OP_COPY))
        out->cpu++;
    out->end = out->cpu < stop ? ts_steps_segment(s, out->cpu) : stop;
    return true;
}

static bool has_rows(const ts_step *st, const ts_batch *b)
{
    return st->domain == TS_ALL_ROWS || b->m_out > 0;
}

/* The CPU's experts are those of the first ranks. */
static void share(ts_run *r, const ts_step *st)
{
    const int64_t used = r->d->m->hp.moe.n_used, own = used - r->d->rates.alone;
    const int32_t *id = (const int32_t *)r->d->be[0]->row(r->state[0], st->a, 0);
    int32_t *here = (int32_t *)r->d->be[0]->row(r->state[0], st->dst, 0);
    for (int64_t i = 0; i < used; i++)
        here[i] = i < own ? id[i] : -1;
    memcpy(here + used, id + used, (size_t)used * sizeof *id); /* weights */
}

/* The stream device is given its work before what it was asked for is waited for. */
static ts_status both(ts_run *r, const ts_batch *b, const shared *l, ts_error *err)
{
    const ts_steps *steps = &r->d->plan->steps;
    const int sd = r->d->plan->stream.device;
    const ts_backend *be = r->d->be[sd];
    ts_crossing c[CROSSINGS];
    for (int i = 0; i < l->n_copies; i++)
        c[i] = ts_run_crossing(r, b, l->copy[i]);
    ts_status s = be->get(r->state[sd], c, l->n_copies, err);
    if (s)
        return s;
    for (size_t i = l->there, end; i < l->cpu && !s; i = end) {
        end = ts_steps_segment(steps, i);
        end = end < l->cpu ? end : l->cpu;
        if (steps->v[i].op != TS_OP_COPY)
            s = be->run(r->state[sd], b, i, end, err);
    }
    const double t0 = r->stats ? ts_now() : 0;
    ts_error later;
    const ts_status came = be->arrive(r->state[sd], s ? &later : err);
    ts_run_crossed(r, c, l->n_copies, r->stats ? ts_now() - t0 : 0);
    s = s ? s : came;
    if (s)
        return s;
    share(r, &steps->v[l->share]);
    return r->d->be[0]->run(r->state[0], b, l->cpu, l->end, err);
}

/* Steps first..stop-1 of the second list. */
static ts_status walk(ts_run *r, const ts_batch *b, size_t first, size_t stop, ts_error *err)
{
    const ts_steps *steps = &r->d->plan->steps;
    ts_status s = TS_OK;
    for (size_t i = first, end; i < stop && !s && has_rows(&steps->v[i], b); i = end) {
        shared l;
        if (is_shared(steps, i, stop, &l)) {
            s = both(r, b, &l, err);
            end = l.end;
            continue;
        }
        for (end = i + 1; end < stop && !is_shared(steps, end, stop, &l);)
            end++;
        s = ts_run_steps(r, b, i, end, err);
    }
    return s;
}

static ts_status run(ts_run *r, const ts_batch *b, size_t first, size_t stop, ts_error *err)
{
    const int sd = r->d->plan->stream.device;
    const ts_backend *be = r->d->be[sd];
    if (!be->stream_alone(r->state[sd], r->d->rates.alone))
        return ts_fail(err, TS_BAD_ARG, "%s can't read experts where the CPU has them",
                       r->d->plan->dev[sd].name);
    const ts_status s = walk(r, b, first, stop, err);
    be->stream_alone(r->state[sd], 0);
    return s;
}

ts_status ts_alone_batch(ts_run *r, const ts_batch *b, ts_error *err)
{
    const ts_steps *steps = &r->d->plan->steps;
    return run(r, b, steps->n_main, steps->n, err);
}

/* --- how many ----------------------------------------------------------------- */

/* Layers that are timed, times, and the part that must be gained. */
enum { LAYERS = 8, TIMES = 5 };
#define GAIN 0.98

/* Is every shared layer as `both` wants it: nothing crosses but what it takes care of? */
static bool fits(const ts_steps *s)
{
    for (size_t i = s->n_main; i < s->n; i++) {
        shared l;
        if (s->v[i].op == TS_OP_SHARE)
            return false;
        if (!is_shared(s, i, s->n, &l))
            continue;
        if (l.cpu == s->n)
            return false;
        for (size_t j = l.there; j < l.cpu; j++)
            if (s->v[j].op == TS_OP_COPY && s->v[j].dst != s->v[l.share].b)
                return false;
        i = l.end - 1;
    }
    return true;
}

/* Steps of the layers from `layer` on, at most LAYERS, of the list that begins at *first. */
static void layers_of(const ts_steps *s, int layer, size_t *first, size_t *stop, size_t all)
{
    while (*first < all && s->v[*first].layer < layer)
        ++*first;
    *stop = *first;
    while (*stop < all && s->v[*stop].layer >= layer && s->v[*stop].layer < layer + LAYERS)
        ++*stop;
}

/* Until a row of x, which both have, has come behind all that was queued. */
static ts_status timed(ts_run *r, const ts_batch *b, size_t first, size_t stop, ts_buf x,
                       double *seconds, ts_error *err)
{
    const ts_crossing c = {x, 0, 1, r->d->be[0]->row(r->state[0], x, 0)};
    const double t0 = ts_now();
    ts_status s = first < r->d->plan->steps.n_main ? ts_run_steps(r, b, first, stop, err)
                                                   : run(r, b, first, stop, err);
    if (!s)
        s = ts_run_get(r, r->d->plan->stream.device, &c, 1, err);
    *seconds = ts_now() - t0;
    return s;
}

/* The least of some times with n of the experts there, each with another token, of whose experts
 * nothing is in a cache. The first ones take longer: a segment becomes a graph the second time. */
static ts_status least(ts_run *r, size_t first, size_t stop, ts_buf x, int64_t n, double *seconds,
                       ts_error *err)
{
    const ts_batch b = {.m = 1, .m_out = 1};
    ts_status s = TS_OK;
    for (int i = 0; i < TIMES && !s; i++) {
        double t = 0;
        s = ts_run_noise(r, r->d->plan->steps.v[first].a, 1, (uint64_t)(n * TIMES + i), err);
        if (!s)
            s = timed(r, &b, first, stop, x, &t, err);
        *seconds = i == 0 || t < *seconds ? t : *seconds;
    }
    return s;
}

ts_status ts_alone_measure(ts_devices *d, ts_run *r, const ts_log *log, ts_error *err)
{
    const ts_plan *p = d->plan;
    const ts_steps *steps = &p->steps;
    const int sd = p->stream.device;
    d->rates.alone = 0;
    if (!p->stream.alone || p->moe.n_used < 2 || p->step_by_step || !d->be[sd]->stream_alone ||
        !fits(steps) || !d->be[sd]->stream_alone(r->state[sd], 0))
        return TS_OK;
    shared l;
    size_t i = steps->n_main, f1 = 0, e1, f2 = steps->n_main, e2;
    while (!is_shared(steps, i, steps->n, &l))
        i++;
    const int layer = steps->v[l.share].layer;
    const ts_buf x = steps->v[l.copy[0]].dst;
    layers_of(steps, layer, &f1, &e1, steps->n_main);
    layers_of(steps, layer, &f2, &e2, steps->n);
    double none = 0;
    ts_status s = least(r, f1, e1, x, 0, &none, err);
    double best = GAIN * none;
    int64_t most = 0;
    for (int64_t n = 1; n <= p->moe.n_used / 2 && !s; n++) {
        double t = 0;
        d->rates.alone = n;
        s = least(r, f2, e2, x, n, &t, err);
        ts_logf(log, TS_LOG_DEBUG, "%lld of them there: %.0f us a layer", (long long)n,
                1e6 * t / (steps->v[e2 - 1].layer - layer + 1));
        if (t < best) {
            best = t;
            most = n;
        }
    }
    d->rates.alone = s ? 0 : most;
    if (most && !s)
        ts_logf(log, TS_LOG_INFO,
                "of a single token's %lld experts in a layer %s computes %lld, which takes %.0f us "
                "instead of %.0f",
                (long long)p->moe.n_used, p->dev[sd].name, (long long)most,
                1e6 * best / (steps->v[e2 - 1].layer - layer + 1),
                1e6 * none / (steps->v[e1 - 1].layer - layer + 1));
    return s;
}

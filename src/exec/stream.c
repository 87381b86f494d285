/* stream.c - see stream.h. */
#include "exec/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "exec/alone.h"

/* --- layers ----------------------------------------------------------------- */

/* Has the CPU K and V of this streamed layer? */
static bool cpu_kv(const ts_run *r, int64_t layer)
{
    return r->d->m->layers[layer].stream_index >= 0;
}

/* The first step from i to end whose layer is `layer` or a later one; end without. */
static size_t first_of(const ts_steps *s, size_t i, size_t end, int64_t layer)
{
    while (i < end && s->v[i].layer < layer)
        i++;
    return i;
}

/* --- K and V ------------------------------------------------------------------ */

/* How many of a page's positions, from its beginning, the stream device has of a layer as the CPU
 * has them. */
static uint8_t *known(const ts_run *r, int64_t layer, int64_t page)
{
    return r->on_stream + layer * r->n_pages + page;
}

/* Of positions pos.. of a span, to end: how many lie one behind the other in the cache; at most a
 * micro-batch. */
static int64_t in_order(const ts_rows *s, int64_t pos, int64_t end, int64_t most)
{
    if (!s->map)
        return end - pos < most ? end - pos : most;
    int64_t n = TS_PAGE - pos % TS_PAGE;
    while (pos + n < end && n < most &&
           s->map[(pos + n) / TS_PAGE] ==
               s->map[pos / TS_PAGE] + (pos + n) / TS_PAGE - pos / TS_PAGE)
        n += TS_PAGE;
    n = n < end - pos ? n : end - pos;
    return n < most ? n : most;
}

/* Positions pos.. of a span, to end, are known from here on; or no longer. */
static void set_known(ts_run *r, const ts_rows *s, int64_t layer, int64_t pos, int64_t end, bool is)
{
    for (int64_t at = pos, next; at < end; at = next) {
        next = at - at % TS_PAGE + TS_PAGE;
        uint8_t *n = known(r, layer, ts_place(s->map, at) / TS_PAGE);
        const int64_t most = (next < end ? next : end) - (next - TS_PAGE);
        if (is ? *n < most : *n > at % TS_PAGE)
            *n = (uint8_t)(is ? most : at % TS_PAGE);
    }
}

/* Positions pos.., to end, of K and V of a layer from device `from` to device `to`. */
static ts_status move_kv(ts_run *r, const ts_rows *s, int64_t layer, int64_t pos, int64_t end,
                         int from, int to, ts_error *err)
{
    const ts_devices *d = r->d;
    for (int64_t at = pos, n; at < end; at += n) {
        const int64_t place = ts_place(s->map, at);
        const uint16_t *kv;
        n = in_order(s, at, end, d->plan->n_ubatch);
        ts_status st = d->be[from]->kv_get(r->state[from], (int)layer, place, n, r->kv, &kv, err);
        if (!st)
            st = d->be[to]->kv_put(r->state[to], (int)layer, place, n, kv, err);
        if (st)
            return st;
    }
    return TS_OK;
}

/* The stream device gets the K and V that the CPU has of layer l before this batch. */
static ts_status bring_kv(ts_run *r, const ts_batch *b, int64_t l, ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const ts_rows s = ts_batch_span(b, 0);
    if (!cpu_kv(r, l))
        return TS_OK;
    int64_t from = 0; /* what is known at the beginning needn't come */
    for (int64_t n = TS_PAGE; p->stream.all_kv && from < s.pos0 && n == TS_PAGE; from += n)
        n = *known(r, l, ts_place(s.map, from) / TS_PAGE);
    ts_status st = move_kv(r, &s, l, from, s.pos0, 0, p->stream.device, err);
    if (!st)
        set_known(r, &s, l, 0, s.pos0, true);
    return st;
}

/* The CPU gets the K and V of this batch. */
static ts_status fetch_kv(ts_run *r, const ts_batch *b, int64_t l, ts_error *err)
{
    const ts_rows s = ts_batch_span(b, 0);
    if (!cpu_kv(r, l))
        return TS_OK;
    return move_kv(r, &s, l, s.pos0, s.pos0 + s.m, r->d->plan->stream.device, 0, err);
}

/* Has the stream device the rows when the first list has run up to step `end`? They are what the
 * second list, before step `from`, copies to it first. */
static bool rows_at(const ts_steps *st, size_t end, size_t from, int sd)
{
    size_t copy = st->n_main;
    while (copy < from && (st->v[copy].op != TS_OP_COPY || st->v[copy].device != sd))
        copy++;
    for (size_t i = end; i-- > 0 && copy < from;) {
        const ts_step *x = &st->v[i];
        if (x->dst == st->v[copy].dst && (x->op != TS_OP_COPY || x->device == sd))
            return x->device == sd; /* a copy leaves them where they were, too */
    }
    return false;
}

/* The CPU's layers before `keep` by the first list; then what the second list has before that layer
 * and later ones need: angles, and the rows. Returns where the second list goes on. */
static ts_status lead(ts_run *r, const ts_batch *b, int64_t keep, size_t *from, ts_error *err)
{
    const ts_steps *st = &r->d->plan->steps;
    const int sd = r->d->plan->stream.device;
    *from = st->n_main;
    if (keep == 0)
        return TS_OK;
    ts_status s = ts_run_steps(r, b, 0, first_of(st, 0, st->n_main, keep), err);
    *from = first_of(st, st->n_main, st->n, keep);
    bool brought = rows_at(st, first_of(st, 0, st->n_main, keep), *from, sd);
    for (size_t i = st->n_main; i < *from && !s; i++) {
        const ts_step *x = &st->v[i];
        const bool rows = x->op == TS_OP_COPY && x->device == sd && !brought;
        if (rows || (x->op == TS_OP_ANGLES && x->device == sd))
            s = ts_run_steps(r, b, i, i + 1, err);
        brought = brought || rows;
    }
    return s;
}

/* From the first segment behind the last streamed layer that isn't the stream device's: until there
 * nobody waits for it. */
static size_t first_wait(const ts_run *r, size_t from)
{
    const ts_steps *st = &r->d->plan->steps;
    int64_t last = 0;
    for (int64_t l = 0; l < r->d->m->hp.n_layer; l++)
        if (r->d->m->layers[l].streamed)
            last = l;
    size_t i = first_of(st, from, st->n, last);
    while (i < st->n && st->v[i].layer >= 0 && st->v[i].layer <= last)
        i++;
    while (i < st->n && st->v[i].op != TS_OP_COPY && st->v[i].device == r->d->plan->stream.device)
        i++;
    return i;
}

/* Streamed layers from `keep` on: all at once, or, with one place for K and V, one after the other.
 * *from becomes the first step that isn't done yet. */
static ts_status streamed_layers(ts_run *r, const ts_batch *b, int64_t keep, size_t *from,
                                 ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const size_t end = first_wait(r, *from);
    ts_status s = TS_OK;
    for (int64_t l = keep; l < r->d->m->hp.n_layer && !s && !p->stream.all_kv; l++) {
        const size_t next = first_of(&p->steps, *from, end, l + 1);
        if ((s = bring_kv(r, b, l, err)) || (s = ts_run_steps(r, b, *from, next, err)) ||
            (s = fetch_kv(r, b, l, err)))
            return s;
        *from = next;
    }
    s = ts_run_steps(r, b, *from, end, err);
    *from = end;
    return s;
}

/* --- shared experts ----------------------------------------------------------- */

/* For the next batch: those with most tokens first, of equals as they were. */
static void reorder(int32_t *order, const int32_t *count, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        const int32_t x = order[i];
        int64_t j = i;
        for (; j > 0 && count[order[j - 1]] < count[x]; j--)
            order[j] = order[j - 1];
        order[j] = x;
    }
}

ts_status ts_stream_share_step(ts_run *r, const ts_step *st, int64_t m, ts_error *err)
{
    const ts_moe *e = &r->d->m->hp.moe;
    const ts_backend *cpu = r->d->be[0], *be = r->d->be[r->d->plan->stream.device];
    const size_t pairs = (size_t)(m * e->n_used);
    const int32_t *id = (const int32_t *)cpu->row(r->state[0], st->a, 0);
    int32_t *here = (int32_t *)cpu->row(r->state[0], st->dst, 0);
    int32_t *there = (int32_t *)cpu->row(r->state[0], st->b, 0);
    int32_t *order = r->order + st->layer * e->n_expert;
    bool goes[TS_MAX_EXPERTS] = {false};
    memset(r->count, 0, (size_t)e->n_expert * sizeof *r->count);
    for (size_t i = 0; i < pairs; i++)
        r->count[id[i]]++;
    memcpy(r->list, order, (size_t)r->ahead * sizeof *order);
    const int64_t n = ts_stream_share(&r->d->rates, r->count, e->n_expert, r->list, r->ahead);
    for (int64_t i = 0; i < n; i++)
        goes[r->list[i]] = true;
    r->pairs[0] = r->pairs[1] = 0;
    for (size_t i = 0; i < pairs; i++) {
        r->pairs[goes[id[i]]]++;
        here[i] = goes[id[i]] ? -1 : id[i];
        there[i] = goes[id[i]] ? id[i] : -1;
    }
    memcpy(here + pairs, id + pairs, pairs * sizeof *id);
    memcpy(there + pairs, id + pairs, pairs * sizeof *id);
    reorder(order, r->count, e->n_expert);
    return be->stream_experts(r->state[r->d->plan->stream.device], st->layer, r->list, n, err);
}

/* --- a batch ---------------------------------------------------------------- */

static ts_status begin(ts_run *r, int64_t m, int64_t first, bool wait, ts_error *err)
{
    const ts_stream *t = &r->d->plan->stream;
    r->ahead = ts_stream_ahead(t, &r->d->rates, m, r->d->m->hp.moe.n_expert);
    return r->d->be[t->device]->stream_begin(r->state[t->device], first, r->order, r->ahead, wait,
                                             err);
}

ts_status ts_stream_batch(ts_run *r, const ts_batch *b, int64_t keep, ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const int64_t layers = r->d->m->hp.n_layer;
    const ts_backend *be = r->d->be[p->stream.device];
    ts_state *state = r->state[p->stream.device];
    size_t from = 0;
    ts_status s = TS_OK;
    for (int64_t l = keep; l < layers && !s && p->stream.all_kv; l++)
        s = bring_kv(r, b, l, err);
    if (s)
        return s;
    s = begin(r, b->m, keep, false, err);
    if (!s)
        s = lead(r, b, keep, &from, err);
    if (!s)
        s = streamed_layers(r, b, keep, &from, err);
    be->stream_end(state);
    for (int64_t l = keep; l < layers && !s && p->stream.all_kv; l++)
        s = fetch_kv(r, b, l, err);
    if (!s)
        s = ts_run_steps(r, b, from, p->steps.n, err);
    if (s)
        return s;
    ts_stream_forget(r, b);
    const ts_rows rows = ts_batch_span(b, 0);
    for (int64_t l = keep; l < layers; l++)
        if (cpu_kv(r, l))
            set_known(r, &rows, l, rows.pos0, rows.pos0 + rows.m, true);
    return TS_OK;
}

void ts_stream_forget(ts_run *r, const ts_batch *b)
{
    for (int64_t i = 0; r->on_stream && i < ts_batch_spans(b); i++) {
        const ts_rows s = ts_batch_span(b, i);
        for (int64_t l = 0; l < r->d->m->hp.n_layer; l++)
            set_known(r, &s, l, s.pos0, s.pos0 + s.m, false);
    }
}

/* --- rates ------------------------------------------------------------------ */

/* Of nothing all tokens would choose the same experts: of noise. */
#define SEED 0x9e3779b97f4a7c15u

/* How often something is timed behind a first time. Whoever is kept from running, or makes
 * something the second time, takes longer; nobody takes less. A dense layer of many tokens takes a
 * slow CPU a second, and would have to be wrong by far: once. */
enum { TIMES = 3, MANY = 128 };

/* Seconds of steps first..end-1, the least of so many times, all that they queued included: a row
 * is asked for from the device that ran them. Of the second list, what there is room for has come
 * before. */
static ts_status timed(ts_run *r, const ts_batch *b, size_t first, size_t end, int times,
                       double *seconds, ts_error *err)
{
    const bool second = first >= r->d->plan->steps.n_main;
    const int sd = r->d->plan->stream.device;
    const ts_step *last = &r->d->plan->steps.v[end - 1];
    const bool asks = last->device == sd && last->op != TS_OP_COPY && last->dst != TS_NO_BUF;
    for (int i = 0; i <= times; i++) {
        ts_status s = second ? begin(r, b->m, r->d->plan->steps.v[first].layer, true, err) : TS_OK;
        const double t0 = ts_now();
        if (!s)
            s = ts_run_steps(r, b, first, end, err);
        const ts_crossing c = {last->dst, 0, 1,
                               asks ? r->d->be[0]->row(r->state[0], last->dst, 0) : NULL};
        if (!s && asks)
            s = ts_run_get(r, sd, &c, 1, err);
        if (second)
            r->d->be[sd]->stream_end(r->state[sd]);
        if (s)
            return s;
        const double t = ts_now() - t0;
        *seconds = i < 2 || t < *seconds ? t : *seconds;
    }
    return TS_OK;
}

/* The first step from i to end that is `op`; end without. */
static size_t first_op(const ts_steps *s, size_t i, size_t end, ts_op op)
{
    while (i < end && s->v[i].op != op)
        i++;
    return i;
}

/* So many tokens, of as many of which as can be logits are wanted: the last layer has no others. */
static ts_batch batch_of(const ts_plan *p, int64_t m)
{
    return (ts_batch){.m = m, .m_out = m < p->n_logits ? m : p->n_logits};
}

/* What an expert and a token of it take the CPU, of two batches: by steps c0..c1-1 of the first
 * list. */
static ts_status measure_experts(ts_run *r, size_t c0, size_t c1, ts_stream_rates *out,
                                 ts_error *err)
{
    const ts_steps *st = &r->d->plan->steps;
    const ts_moe *e = &r->d->m->hp.moe;
    const size_t route = first_op(st, c0, c1, TS_OP_ROUTE);
    size_t end = first_op(st, route, c1, TS_OP_COMBINE);
    double seconds[2], active[2] = {0}, pairs[2];
    if (end == c1)
        return TS_OK;
    for (int i = 0; i < 2; i++) {
        const ts_batch b = batch_of(r->d->plan, out->m[TS_STREAM_RATES - 2 + i]);
        const int64_t rows = st->v[route].domain == TS_ALL_ROWS ? b.m : b.m_out;
        const ts_buf chosen = st->v[route].dst;
        ts_status s = ts_run_noise(r, st->v[route].a, rows, SEED, err);
        if (!s)
            s = ts_run_noise(r, st->v[first_op(st, route, end, TS_OP_GATHER)].a, rows, SEED, err);
        if (!s)
            s = timed(r, &b, route, end + 1, TIMES, &seconds[i], err);
        if (s)
            return s;
        pairs[i] = (double)(rows * e->n_used);
        memset(r->count, 0, (size_t)e->n_expert * sizeof *r->count);
        const int32_t *id = (const int32_t *)r->d->be[0]->row(r->state[0], chosen, 0);
        for (int64_t j = 0; j < rows * e->n_used; j++)
            active[i] += r->count[id[j]]++ == 0;
    }
    const double det = active[0] * pairs[1] - active[1] * pairs[0];
    out->expert = det > 0 ? (seconds[0] * pairs[1] - seconds[1] * pairs[0]) / det : 0;
    out->expert = out->expert > 0 ? out->expert : 0;
    out->pair = (seconds[1] - active[1] * out->expert) / pairs[1];
    if (out->pair <= 0) {
        out->pair = 0;
        out->expert = seconds[1] / active[1];
    }
    return TS_OK;
}

/* A layer that can be streamed, on both sides: one with shared experts, if there are any. What is
 * known already is in d->rates, for what is measured by it. */
static ts_status measure(ts_devices *d, ts_run *r, ts_error *err)
{
    static const int64_t sizes[TS_STREAM_RATES] = {4, 16, 128, 512};
    const ts_plan *p = d->plan;
    const ts_steps *st = &p->steps;
    const int sd = p->stream.device;
    ts_stream_rates *out = &d->rates;
    double come = 0;
    int64_t l = 0;
    const ts_layer *layers = d->m->layers; /* of shared experts the stacks are the CPU's */
    while (!layers[l].streamed ||
           (p->stream.shares && (!layers[l].router || layers[l].gate_exps->device != 0)))
        l++;
    const size_t c0 = first_of(st, 0, st->n_main, l), g0 = first_of(st, st->n_main, st->n, l);
    size_t c1 = c0, g1 = g0;
    while (c1 < st->n_main && st->v[c1].layer == l)
        c1++;
    while (g1 < st->n && st->v[g1].layer == l)
        g1++;
    const size_t share = first_op(st, g0, g1, TS_OP_SHARE);
    for (int i = 0; i < TS_STREAM_RATES; i++)
        out->m[i] = p->n_ubatch < sizes[i] ? p->n_ubatch : sizes[i];
    ts_status s = d->be[sd]->stream_time(r->state[sd], &out->unit, err);
    if (!s && share < g1) {
        come = out->unit * (double)p->stream.expert_bytes / (double)p->stream.bytes;
        s = measure_experts(r, c0, c1, out, err);
    }
    for (int i = 0; i < TS_STREAM_RATES && !s && share < g1; i++) {
        const ts_batch b = batch_of(p, out->m[i]);
        if (i && out->m[i] == out->m[i - 1])
            out->lead[i] = out->lead[i - 1];
        else
            s = timed(r, &b, g0, share - 1, TIMES, &out->lead[i], err);
    }
    out->come = come; /* from here on some come ahead, when the layer's other weights have come */
    const double others = out->unit - come * (double)d->m->hp.moe.n_expert;
    for (int i = 0; i < TS_STREAM_RATES && others > 0; i++)
        out->lead[i] = out->lead[i] > others ? out->lead[i] - others : 0;
    for (int i = 0; i < TS_STREAM_RATES && !s && p->stream.mode == TS_STREAM_AUTO; i++) {
        const ts_batch b = batch_of(p, out->m[i]);
        if (i && out->m[i] == out->m[i - 1]) {
            out->cpu[i] = out->cpu[i - 1];
            out->gpu[i] = out->gpu[i - 1];
            continue;
        }
        s = ts_run_noise(r, st->v[c0].a, b.m, SEED, err);
        if (!s)
            s = timed(r, &b, c0, c1, b.m > MANY ? 1 : TIMES, &out->cpu[i], err);
        if (!s)
            s = ts_run_noise(r, st->v[c0].a, b.m, SEED, err);
        if (!s)
            s = timed(r, &b, g0, g1, TIMES, &out->gpu[i], err);
    }
    return s;
}

ts_status ts_stream_measure(ts_devices *d, ts_run *r, const ts_log *log, ts_error *err)
{
    const ts_stream *t = &d->plan->stream;
    d->rates = (ts_stream_rates){0};
    if (!t->device || t->mode == TS_STREAM_OFF || (t->mode == TS_STREAM_ON && !t->shares))
        return TS_OK;
    float *seen = r->seen; /* nobody looks at what comes of nothing */
    r->seen = NULL;
    ts_status s = measure(d, r, err);
    d->rates.known = s == TS_OK;
    const ts_stream_rates rates = d->rates;
    if (!s)
        s = ts_alone_measure(d, r, log, err);
    r->seen = seen;
    for (int64_t i = 0; r->order && i < d->m->hp.n_layer * d->m->hp.moe.n_expert; i++)
        r->order[i] = (int32_t)(i % d->m->hp.moe.n_expert);
    if (s || t->mode != TS_STREAM_AUTO)
        return s;
    int64_t from = 0;
    for (int64_t m = 2; m <= d->plan->n_ubatch && !from; m++)
        if (ts_stream_keep(t, &rates, m) >= 0)
            from = m;
    const char *name = d->plan->dev[t->device].name;
    for (int i = 0; i < TS_STREAM_RATES; i++)
        ts_logf(log, TS_LOG_DEBUG,
                "a layer of %lld tokens: %.2f ms on the CPU, %.2f on %s, which "
                "gets it in %.2f ms",
                (long long)rates.m[i], 1e3 * rates.cpu[i], 1e3 * rates.gpu[i], name,
                1e3 * rates.unit);
    const int64_t most = rates.m[TS_STREAM_RATES - 1];
    if (t->shares)
        ts_logf(log, TS_LOG_DEBUG,
                "an expert comes in %.1f us, or takes the CPU %.1f and %.2f for each token; %lld "
                "of %lld come ahead for %lld tokens",
                1e6 * rates.come, 1e6 * rates.expert, 1e6 * rates.pair,
                (long long)ts_stream_ahead(t, &rates, most, d->m->hp.moe.n_expert),
                (long long)d->m->hp.moe.n_expert, (long long)most);
    if (from)
        ts_logf(log, TS_LOG_INFO,
                "micro-batches of %lld tokens or more stream layers of the CPU to %s (%.1f GB/s)",
                (long long)from, name, 1e-9 * (double)t->bytes / rates.unit);
    return TS_OK;
}

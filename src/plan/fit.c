/* fit.c - see fit.h. Splits are planned in full, one after the other, until one fits: what fits
 * depends on too much to be known beforehand (docs/ARCHITECTURE.md). */
#include "plan/fit.h"

#include <string.h>

#include "plan/speed.h"

/* Of a CPU whose bandwidth isn't known yet while a plan is made: much, so that what is moved away
 * from it for it is worth it on any. */
#define TYPICAL_READ 300e9

/* Room to stream layers through is worth that a token takes so many times as long. */
#define STREAM_WORTH 1.15

/* Fewer accelerators are taken if a token takes at most this much of the time with them: who has
 * several wants them used. */
#define FEWER_WORTH 0.97

typedef struct search {
    ts_plan *p;
    ts_model *m;
    ts_split split;                  /* as asked for, with these: */
    ts_accel accels[TS_MAX_DEVICES]; /* their shares are chosen, unless they were given */
    bool given;                      /* shares were                                     */
    bool main_given;                 /* so was who has the output matrix                */
    int n_used;                      /* accelerators of which layers are taken          */
    ts_error *err;
} search;

static search begin(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err)
{
    search q = {.p = p, .m = m, .split = *split, .main_given = split->main, .err = err};
    for (int i = 0; i < split->n_accels; i++) {
        q.accels[i] = split->accels[i];
        q.given = q.given || q.accels[i].share > 0;
    }
    q.n_used = split->n_accels;
    return q;
}

static double seconds(const search *q)
{
    return ts_speed_decode(q->p, q->split.cpu_read > 0 ? q->split.cpu_read : TYPICAL_READ);
}

/* --- several accelerators ------------------------------------------------------- */

/* Is it among the q->n_used that have most memory? */
static bool is_used(const search *q, int accel)
{
    int larger = 0;
    for (int i = 0; i < q->split.n_accels; i++)
        larger += q->accels[i].memory > q->accels[accel].memory ||
                  (q->accels[i].memory == q->accels[accel].memory && i < accel);
    return larger < q->n_used;
}

static void share_by_memory(search *q)
{
    q->split.main = q->main_given ? q->split.main : 0;
    for (int i = 0; i < q->split.n_accels; i++)
        q->accels[i].share = is_used(q, i) ? (double)q->accels[i].memory : 0;
}

/* Bytes of an accelerator's K and V that are of layers it streams. */
static double streamed_kv(const ts_plan *p, int device)
{
    const ts_plan_device *d = &p->dev[device];
    const int64_t n = ts_plan_kv_layers(p, device);
    return n ? (double)d->kv / (double)n * (double)d->n_streamed : 0;
}

/* Whole blocks that an accelerator has room for beside what it has anyway, if a block takes `each`.
 * What one that isn't used would have anyway is like the others' `work`. */
static int64_t blocks_that_fit(const ts_plan *p, int device, double each, double work,
                               double output)
{
    const ts_plan_device *d = &p->dev[device];
    const double anyway =
        (d->used ? (double)d->buffers : work) + (double)d->stream + streamed_kv(p, device) + output;
    return (double)d->memory > anyway ? (int64_t)(((double)d->memory - anyway) / each) : 0;
}

/* Shares by the room that the plan which was tried last leaves for blocks like those it has, and
 * the output matrix where most of them fit beside it. false: they don't fit so, either. */
static bool share_by_room(search *q, ts_placing what)
{
    const ts_plan *p = q->p;
    const ts_weight *out = q->m->output;
    double held = 0, work = 0;
    for (int i = 1; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        held += (double)d->packed + (double)d->kv - streamed_kv(p, i);
        work = (double)d->buffers > work ? (double)d->buffers : work;
    }
    held -= out->device ? (double)out->bytes : 0;
    const double each = what.layers ? held / (double)what.layers : 0;
    if (!(each > 0))
        return false;
    int64_t best = -1;
    for (int at = what.output ? p->n_devices - 1 : 0; at >= (what.output != 0); at--) {
        int64_t sum = 0, fit[TS_MAX_DEVICES];
        if (at && (!is_used(q, at - 1) || (q->main_given && at != q->split.main)))
            continue;
        for (int i = 1; i < p->n_devices; i++) {
            fit[i] = is_used(q, i - 1)
                         ? blocks_that_fit(p, i, each, work, i == at ? (double)out->bytes : 0)
                         : 0;
            sum += fit[i];
        }
        if (sum <= best)
            continue;
        best = sum;
        q->split.main = at ? at : q->split.main;
        for (int i = 1; i < p->n_devices; i++)
            q->accels[i - 1].share = (double)fit[i];
        if (best >= what.layers)
            break;
    }
    return best >= what.layers;
}

/* --- one split ------------------------------------------------------------------ */

/* *full: 0, or who has no room for it. */
static ts_status try_shares(search *q, ts_placing what, int *full)
{
    q->split.accels = q->accels;
    const ts_status s = ts_plan_at(q->p, what, q->m, &q->split, q->err);
    *full = s ? 0 : ts_plan_overfull(q->p);
    return s;
}

/* The same with shares by memory, or if that doesn't fit, by what has room: blocks differ a little,
 * so that one may have to go elsewhere. */
static ts_status try_split(search *q, ts_placing what, int *full)
{
    if (q->given || q->split.n_accels < 2)
        return try_shares(q, what, full);
    share_by_memory(q);
    ts_status s = try_shares(q, what, full);
    if (s || !*full || !share_by_room(q, what))
        return s;
    const int64_t most = 2 * q->split.n_accels;
    for (int64_t i = 0; i < most; i++) {
        s = try_shares(q, what, full);
        if (s || !*full)
            return s;
        double sum = 0;
        q->accels[*full - 1].share -= q->accels[*full - 1].share >= 1 ? 1 : 0;
        for (int j = 0; j < q->split.n_accels; j++)
            sum += q->accels[j].share;
        if (sum < (double)what.layers || !(sum > 0))
            return s;
    }
    return s;
}

static bool may_be(const search *q, ts_placing c)
{
    return !q->split.below || ts_placing_compare(c, *q->split.below) < 0;
}

/* --- what to place -------------------------------------------------------------- */

/* Beside so many layers, what is worth having of the output matrix and a part of one more block.
 * The plan is that of *found, before and after. */
static ts_status fill_rest(search *q, ts_placing *found)
{
    double best = seconds(q);
    const ts_placing base = *found;
    for (int output = 0; output < 2; output++)
        for (int ffn = TS_FFN_NONE; ffn <= TS_FFN_ALL; ffn++) {
            const ts_placing c = {base.layers, output, (ts_ffn)ffn, base.cpu_experts};
            if (ts_placing_compare(c, base) <= 0 || (ffn && c.layers == q->m->hp.n_layer) ||
                !may_be(q, c))
                continue;
            int full;
            ts_status s = try_split(q, c, &full);
            if (s)
                return s;
            if (full || seconds(q) >= best)
                continue;
            best = seconds(q);
            *found = c;
        }
    int full;
    return try_split(q, *found, &full);
}

/* All blocks, and the experts of as many as fit: a byte of attention or of what all tokens share is
 * read for every token, one of an expert for n_used of n_expert. *full: it doesn't fit even without
 * any expert. */
static ts_status fit_experts(search *q, bool output, int *full)
{
    ts_placing c = {.layers = q->m->hp.n_layer, .output = output};
    int64_t low = 1, high = c.layers; /* low - 1 doesn't fit or may not be; high: who knows */
    /* without any on the CPU nothing is streamed: all may fit where all but one block's don't */
    *full = 1;
    if (may_be(q, c)) {
        ts_status s = try_split(q, c, full);
        if (s || !*full)
            return s;
    }
    c.cpu_experts = high;
    if (!may_be(q, c))
        return TS_OK;
    ts_status s = try_split(q, c, full);
    if (s || *full)
        return s;
    while (low < high) {
        int over = 0;
        c.cpu_experts = (low + high) / 2;
        const bool may = may_be(q, c);
        if (may && (s = try_split(q, c, &over)))
            return s;
        if (may && !over)
            high = c.cpu_experts;
        else
            low = c.cpu_experts + 1;
    }
    c.cpu_experts = high;
    return try_split(q, c, full);
}

/* All, or as many layers as fit and then what else: layers gain in prefill too, the output matrix
 * and one block's feed-forward weights in decode only (docs/ARCHITECTURE.md). */
static ts_status fit_layers(search *q)
{
    const bool experts = q->m->hp.moe.n_expert > 0;
    const ts_placing all = {.layers = q->m->hp.n_layer, .output = true}, none = {0};
    for (ts_placing c = all;; c = (ts_placing){.layers = c.layers - !c.output}) {
        int full = 0;
        if (experts && c.layers == all.layers) {
            ts_status s = fit_experts(q, c.output, &full);
            if (s || !full)
                return s;
            continue;
        }
        c.cpu_experts = experts && c.layers ? q->m->hp.n_layer : 0;
        if (!may_be(q, c) && ts_placing_compare(c, none) > 0)
            continue;
        ts_status s = try_split(q, c, &full);
        if (s || (!full && c.output))
            return s;
        if (full && c.layers > 0)
            continue;
        if (full)
            return ts_plan_refuse(q->p, full, q->err);
        return fill_rest(q, &c);
    }
}

/* With all accelerators, or without the smallest of them where that is faster: a small one has its
 * part of the layers, which may be all that keeps others from fitting. */
static ts_status fit_accels(search *q)
{
    double best = 0;
    int n = q->n_used;
    ts_status s = TS_OK;
    for (q->n_used = n; q->n_used > 0 && !s; q->n_used--) {
        s = fit_layers(q);
        if (s == TS_NO_MEMORY && best > 0) { /* fewer can't have what all have */
            s = TS_OK;
            break;
        }
        const double now = s ? 0 : seconds(q);
        if (!s && (best == 0 || now < best * FEWER_WORTH)) {
            best = now;
            n = q->n_used;
        }
        if (q->given || n == 1)
            return s;
    }
    if (s)
        return s;
    q->n_used = n;
    return fit_layers(q);
}

/* With room to stream through, unless what it takes is worth more in layers. */
static ts_status fit_automatically(search *q)
{
    const ts_stream_mode mode = q->p->stream.mode;
    const ts_placing all = {.layers = q->m->hp.n_layer, .output = true};
    const int n_used = q->n_used;
    ts_status s = fit_accels(q);
    if (s || mode != TS_STREAM_AUTO || ts_placing_compare(q->p->placing, all) == 0)
        return s;
    const double most = q->p->stream.device ? STREAM_WORTH : 1, with = seconds(q);
    q->p->stream.mode = TS_STREAM_OFF;
    q->n_used = n_used;
    s = fit_accels(q);
    if (s || with > most * seconds(q))
        return s;
    q->p->stream.mode = mode;
    q->n_used = n_used;
    return fit_accels(q);
}

ts_status ts_plan_fit(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err)
{
    const int64_t n = m->hp.n_layer, want = split->n_gpu_layers;
    const ts_stream_mode mode = p->stream.mode;
    search q = begin(p, m, split, err);
    if (split->n_accels && want == TS_GPU_LAYERS_AUTO)
        return fit_automatically(&q);
    const ts_placing what = split->n_accels
                                ? (ts_placing){.layers = want < n ? want : n, .output = want > n}
                                : (ts_placing){0};
    int full = 0;
    ts_status s = try_split(&q, what, &full);
    if (!s && full && p->stream.device && mode == TS_STREAM_AUTO) { /* it fits without? */
        p->stream.mode = TS_STREAM_OFF;
        s = try_split(&q, what, &full);
    }
    return s ? s : full ? ts_plan_refuse(p, full, err) : TS_OK;
}

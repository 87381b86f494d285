/* finite.c - see finite.h. */
#include "exec/finite.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "cpu/ops.h"

/* Halves end here: what is larger becomes an infinity. (From 65520 on; what lies between is
 * rounded down.) */
#define F16_END 65520.0f

size_t ts_finite_floats(const ts_plan *p)
{
    int64_t most = 1;
    for (size_t i = 0; i < p->steps.n_bufs; i++)
        if (p->steps.bufs[i].width > most)
            most = p->steps.bufs[i].width;
    return (size_t)most;
}

/* What a step reads beside buffers: "", or a clause with the names of its tensors. */
static void tensors(const ts_model *m, const ts_step *st, char *out, size_t n)
{
    const char *name = st->w ? ts_weight_name(st->w) : NULL;
    for (size_t i = 0; i < m->n_vectors && !name; i++)
        if (m->vectors[i].v == st->vec && m->vectors[i].source)
            name = m->vectors[i].source->name;
    snprintf(out, n, "%s%s%s%s", name ? " with " : "", name ? name : "", st->w2 ? " and " : "",
             st->w2 ? ts_weight_name(st->w2) : "");
}

/* The batch's row of the step's row i. */
static int64_t row_of(const ts_batch *b, const ts_step *st, int64_t i)
{
    return st->domain == TS_ALL_ROWS ? i : ts_batch_out(b, i);
}

static ts_status found(const ts_run *r, const ts_batch *b, size_t i, ts_buf x, int64_t row,
                       int64_t column, float value, ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const ts_step *st = &p->steps.v[i];
    const bool streamed = i >= p->steps.n_main;
    const size_t first = streamed ? p->steps.n_main : 0;
    const size_t of = streamed ? p->steps.n - first : p->steps.n_main;
    const char *list = streamed ? " with streamed weights" : "";
    char with[200], layer[32] = "outside the layers", what[64];
    tensors(r->d->m, st, with, sizeof with);
    if (st->layer >= 0)
        snprintf(layer, sizeof layer, "layer %d", st->layer);
    if (isfinite(value))
        snprintf(what, sizeof what, "%g, an infinity in the F16 of the cache,", value);
    else
        snprintf(what, sizeof what, "%s", isnan(value) ? "NaN" : value > 0 ? "inf" : "-inf");
    if (st->op == TS_OP_EXPERTS) { /* rows of pairs, in order of experts */
        const int64_t at = row * p->steps.bufs[x].width + column;
        return ts_fail(err, TS_NOT_FINITE,
                       "step %zu of %zu%s (%s%s), %s, on %s: %s in '%s', pair %lld of %lld by "
                       "expert, column %lld",
                       i - first, of, list, ts_op_name(st->op), with, layer,
                       p->dev[st->device].name, what, p->steps.bufs[x].name,
                       (long long)(at / st->d),
                       (long long)((st->domain == TS_ALL_ROWS ? b->m : b->m_out) * p->moe.n_used),
                       (long long)(at % st->d));
    }
    const int64_t all = st->domain == TS_ALL_ROWS ? b->m : b->m_out;
    if (st->op == TS_OP_ROUTE) { /* ids of all tokens, then their weights */
        const int64_t used = p->moe.n_used, m = all;
        const int64_t at = row * 2 * used + column - m * used;
        row = at / used;
        column = used + at % used;
    }
    return ts_fail(err, TS_NOT_FINITE,
                   "step %zu of %zu%s (%s%s), %s, on %s: %s in '%s', row %lld (position %lld), "
                   "column %lld",
                   i - first, of, list, ts_op_name(st->op), with, layer, p->dev[st->device].name,
                   what, p->steps.bufs[x].name, (long long)row,
                   (long long)ts_batch_pos(b, row_of(b, st, row)), (long long)column);
}

/* Rows of x on the step's device, `d` columns of each. What isn't below `end` is no number. */
static ts_status look(const ts_run *r, const ts_batch *b, size_t i, ts_buf x, float end,
                      float *seen, size_t n, ts_error *err)
{
    const ts_steps *steps = &r->d->plan->steps;
    const ts_step *st = &steps->v[i];
    const ts_backend *be = r->d->be[st->device];
    const int64_t ld = steps->bufs[x].width, most = (int64_t)n / ld;
    const int64_t d = st->op == TS_OP_EXPERTS ? ld : st->d;
    const int64_t rows = st->domain == TS_ALL_ROWS ? b->m : b->m_out;
    const int64_t r0 = x == steps->logits ? b->logits_row : 0;
    /* of shared experts a device has rows of its pairs alone; so has what joins gate and up */
    const bool joins =
        i > 0 && st->dst == st->a && st[-1].op == TS_OP_EXPERTS && st->b == st[-1].dst;
    const ts_step *of = joins ? st - 1 : st;
    const bool shared = of->op == TS_OP_EXPERTS && i >= steps->n_main && of->w->device == 0 &&
                        r->d->m->layers[of->layer].streamed;
    const int64_t all = shared ? r->pairs[st->device != 0] * of->d : rows * ld;
    for (int64_t done = 0, some; done < rows; done += some) {
        some = rows - done < most ? rows - done : most;
        const float *v = seen;
        if (be->row)
            v = be->row(r->state[st->device], x, r0 + done);
        else {
            const ts_crossing c = {x, r0 + done, some, seen};
            ts_status s = ts_run_get(r, st->device, &c, 1, err);
            if (s)
                return s;
        }
        for (int64_t m = 0; m < some; m++)
            for (int64_t j = 0; j < d && (done + m) * ld + j < all; j++)
                if (!(fabsf(v[m * ld + j]) < end))
                    return found(r, b, i, x, done + m, j, v[m * ld + j], err);
    }
    return TS_OK;
}

ts_status ts_finite_step(const ts_run *r, const ts_batch *b, size_t i, float *seen, size_t n,
                         ts_error *err)
{
    const ts_plan *p = r->d->plan;
    const ts_step *st = &p->steps.v[i];
    if (st->op == TS_OP_STORE) {
        /* Its inputs have been looked at. The cache is F16 but where attention has tiles. */
        const bool half = st->device || ts_ops_get(p->dev[st->device].isa)->kv->type == TS_TYPE_F16;
        const float end = half ? F16_END : INFINITY;
        ts_status s = look(r, b, i, st->a, end, seen, n, err);
        return s ? s : look(r, b, i, st->b, end, seen, n, err);
    }
    if (st->op == TS_OP_PREP || st->op == TS_OP_GATHER || st->op == TS_OP_GROUP ||
        p->steps.bufs[st->dst].choice) /* no floats */
        return TS_OK;
    return look(r, b, i, st->dst, INFINITY, seen, n, err);
}

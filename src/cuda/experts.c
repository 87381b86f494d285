/* experts.c - the steps of a mixture of experts as kernels.
 *
 * Few tokens: pairs stay where they are, each multiplied by its expert's matrix. Many: pairs are
 * sorted, and an expert's are multiplied together. Sorted, rows of pairs stand at the places that
 * the CPU's code gives them, too; where a layer's experts are on several devices, few tokens are
 * sorted as well. */
#include "cpu/route.h"
#include "cuda/impl.h"
#include "cuda/moe.h"
#include "cuda/stream.h"

/* Where things are: what a token has chosen, and of `groups`. */
typedef struct view {
    const ts_moe *e;
    int64_t m, used;
    ts_cuda_chosen chosen;
    int32_t *offset, *order, *place;
} view;

/* How many of the experts of a single token, whose others are the CPU's, are fetched to be computed
 * here; 0: it isn't so. */
static int64_t fetched(const ts_state *s, const ts_step *st)
{
    const bool second = st >= s->d->plan->steps.v + s->d->plan->steps.n_main;
    const ts_layer *l = &s->d->m->layers[st->layer];
    return second && l->streamed && l->gate_exps->device == 0 ? s->alone : 0;
}

static bool sorted(const ts_state *s, const ts_step *st, int64_t m)
{
    if (fetched(s, st))
        return false;
    const ts_layer *l = &s->d->m->layers[st->layer];
    const int device = s->d->index;
    return m > TS_CUDA_ALONE || l->gate_exps->device != device || l->up_exps->device != device ||
           l->down_exps->device != device;
}

/* The step that wrote x last. */
static const ts_step *made_by(const ts_state *s, const ts_step *st, ts_buf x)
{
    do
        st--;
    while (st->dst != x || st->device != s->d->index);
    return st;
}

/* Of m tokens ids come first, then weights. */
static ts_cuda_chosen chosen_at(void *mem, int64_t m, int64_t used)
{
    return (ts_cuda_chosen){.id = mem, .weight = (float *)mem + m * used, .ld = used};
}

/* With the choice that `group` sorted; of a single token's, those that are fetched. */
static view view_of(const ts_state *s, const ts_step *group, int64_t m)
{
    view v = {.e = &s->d->m->hp.moe, .m = m};
    const int64_t few = fetched(s, group);
    v.used = few ? few : v.e->n_used;
    if (few) {
        const ts_step *share = group;
        while (share->op != TS_OP_SHARE)
            share--;
        v.chosen = chosen_at(s->bufs[share->a], m, v.e->n_used);
        v.chosen.id += v.e->n_used - few;
        v.chosen.weight += v.e->n_used - few;
        return v;
    }
    v.chosen = chosen_at(s->bufs[group->a], m, v.e->n_used);
    v.offset = (int32_t *)s->bufs[group->dst];
    v.order = v.offset + ts_groups_fixed(v.e);
    v.place = v.order + m * v.e->n_used;
    return v;
}

static int route(ts_state *s, const ts_step *st, const float *bias, const ts_cuda_on *on)
{
    static const ts_cuda_gating gating[] = {[TS_GATING_SOFTMAX] = TS_CUDA_SOFTMAX,
                                            [TS_GATING_SIGMOID] = TS_CUDA_SIGMOID,
                                            [TS_GATING_CHOSEN] = TS_CUDA_SOFTMAX_CHOSEN};
    const ts_moe *e = &s->d->m->hp.moe;
    const ts_cuda_router p = {.n_expert = (int32_t)e->n_expert,
                              .n_used = (int32_t)e->n_used,
                              .gating = gating[e->gating],
                              .bias = bias,
                              .n_group = (int32_t)e->n_group,
                              .n_group_used = (int32_t)e->n_group_used,
                              .renorm = e->renorm,
                              .scale = e->scale};
    const ts_cuda_rows logits = {ts_cuda_row(s, st->a, 0), s->d->plan->steps.bufs[st->a].width};
    return ts_cuda_route(on, chosen_at(s->bufs[st->dst], on->rows, e->n_used), logits, &p);
}

static int gather(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    const int64_t few = fetched(s, st), used = few ? few : s->d->m->hp.moe.n_used, k = st->d;
    const int64_t rows = on->rows * (st->of_pairs ? used : 1);
    const int64_t ldx = st->of_pairs ? k : s->d->plan->steps.bufs[st->a].width;
    const float *x = ts_cuda_row(s, st->a, 0);
    uint8_t *act = s->bufs[st->dst];
    int e = 0;
    if (!sorted(s, st, on->rows)) /* floats are read where they are */
        return st->kset->prep->act == TS_ACT_F32
                   ? 0
                   : ts_cuda_prep(act, x, ldx, NULL, 0, rows, k, on->stream);
    if (ldx == k)
        return ts_cuda_dequant(act, true, TS_TYPE_F32, x, 0, rows, k, on->stream);
    for (int64_t i = 0; i < rows && !e; i++)
        e = ts_cuda_dequant(act + (size_t)(i * k) * 2, true, TS_TYPE_F32, x + i * ldx, 0, 1, k,
                            on->stream);
    return e;
}

/* Where the stack is: here, or, if it is streamed, as soon as what is wanted of it has come. */
static int stack_of(ts_state *s, const ts_step *st, const ts_weight *w, const void **stack)
{
    const ts_layer *l = &s->d->m->layers[st->layer];
    *stack = w->data;
    if (w->device == s->d->index)
        return 0;
    if (!fetched(s, st))
        return ts_cuda_stream_stack(s->d->streamed, l, w, stack);
    *stack = ts_cuda_stream_place(s->d->streamed, l, w);
    return 0;
}

static int experts(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    const ts_step *from = made_by(s, st, st->a);
    const view v = view_of(s, made_by(s, st, st->c), on->rows);
    const ts_layer *l = &s->d->m->layers[st->layer];
    const void *w, *w2 = NULL;
    int e = fetched(s, st) && st->w == l->gate_exps /* the first of them */
                ? ts_cuda_stream_fetch(s->d->streamed, l, v.chosen.id, v.used)
                : 0;
    if (!e)
        e = stack_of(s, st, st->w, &w);
    if (!e && st->w2)
        e = stack_of(s, st, st->w2, &w2);
    if (e)
        return e;
    const float *biases = s->d->vec[st - s->d->plan->steps.v];
    const ts_cuda_experts p = {.type = st->w->source->type,
                               .join = !st->w2                    ? TS_CUDA_ONE
                                       : st->act == TS_OP_SILU    ? TS_CUDA_SILU
                                       : st->act == TS_OP_CLAMPED ? TS_CUDA_CLAMPED
                                                                  : TS_CUDA_GELU,
                               .w = w,
                               .v = w2,
                               .w_bias = st->bias ? biases : NULL,
                               .v_bias =
                                   st->bias2 ? biases + ts_cuda_bias_floats(st, st->bias) : NULL,
                               .n_expert = v.e->n_expert,
                               .n = st->w->n,
                               .k = st->w->k,
                               .n_used = (int32_t)v.used};
    const ts_cuda_rows y = {ts_cuda_row(s, st->dst, 0), st->w->n};
    const bool floats = st->kset->prep->act == TS_ACT_F32;
    if (!sorted(s, st, on->rows)) {
        const int64_t ldx = from->of_pairs ? p.k : s->d->plan->steps.bufs[from->a].width;
        const void *x = floats ? (const void *)ts_cuda_row(s, from->a, 0) : s->bufs[st->a];
        return ts_cuda_expert_mul(on, &p, y, v.chosen, x, ldx, from->of_pairs);
    }
    const ts_cuda_expert_gemm_args g = {.experts = p,
                                        .offset = v.offset,
                                        .order = from->of_pairs ? NULL : v.order,
                                        .x = s->bufs[st->a],
                                        .ldx = p.k,
                                        .y = y.x,
                                        .ldy = y.ld,
                                        .m = on->rows};
    return ts_cuda_expert_gemm(&g, on->stream);
}

static int combine(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    const view v = view_of(s, made_by(s, st, st->c), on->rows);
    const ts_buffer *b = s->d->plan->steps.bufs;
    const ts_cuda_rows out = {ts_cuda_row(s, st->dst, 0), b[st->dst].width};
    const ts_cuda_rows y = {ts_cuda_row(s, st->a, 0), st->d};
    ts_cuda_rows add = {0};
    if (st->b != TS_NO_BUF)
        add = (ts_cuda_rows){ts_cuda_row(s, st->b, 0), b[st->b].width};
    return ts_cuda_expert_sum(on, out, add, y, v.chosen, sorted(s, st, on->rows) ? v.place : NULL,
                              (int32_t)v.used, st->d);
}

int ts_cuda_expert_step(ts_state *s, size_t i, const ts_cuda_on *on)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    switch (st->op) {
    case TS_OP_ROUTE:
        return route(s, st, s->d->vec[i], on);
    case TS_OP_GROUP: {
        const view v = view_of(s, st, on->rows);
        return sorted(s, st, on->rows) ? ts_cuda_group(on, v.offset, v.order, v.place, v.chosen,
                                                       (int32_t)v.e->n_expert, (int32_t)v.e->n_used)
                                       : 0;
    }
    case TS_OP_GATHER:
        return gather(s, st, on);
    case TS_OP_EXPERTS:
        return experts(s, st, on);
    default:
        return combine(s, st, on);
    }
}

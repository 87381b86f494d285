/* cpu_heads.c - products by a matrix for each head, on the CPU: between Q and latent attention, and
 * behind it. A task is a piece of a head's matrix with some tokens, whose activations it prepares
 * by itself: that is little beside the product, and threads needn't meet. */
#include <string.h>

#include "exec/cpu.h"

/* Rows of a piece, at least; every thread should have some pieces. */
enum { ROWS = 64, EACH = 2 };

typedef struct cut {
    int64_t blocks, tokens; /* of tokens */
    int64_t pieces, rows;   /* of a matrix */
} cut;

static cut cut_of(const ts_step *st, int64_t m, int n)
{
    const int64_t group = st->kset->group, rows = st->w->n;
    cut c = {.tokens = TS_HEADS_TOKENS, .blocks = (m + TS_HEADS_TOKENS - 1) / TS_HEADS_TOKENS};
    const int64_t tasks = st->n_heads * c.blocks, want = (EACH * n + tasks - 1) / tasks;
    const int64_t most = (rows + ROWS - 1) / ROWS, pieces = want < most ? want : most;
    c.rows = ((rows + pieces - 1) / pieces + group - 1) / group * group;
    c.pieces = (rows + c.rows - 1) / c.rows;
    return c;
}

/* What a head has behind the elements that are multiplied goes behind the product. */
static void copy_rest(const ts_state *s, const ts_step *st, const float *x, float *y, int64_t m)
{
    const ts_buffer *b = s->d->plan->steps.bufs;
    const int64_t ldx = b[st->a].width, ldy = b[st->dst].width;
    const int64_t rest = ldx / st->n_heads - st->w->k;
    for (int64_t t = 0; t < m && rest > 0; t++)
        memcpy(y + t * ldy + st->w->n, x + t * ldx + st->w->k, (size_t)rest * sizeof *y);
}

void ts_cpu_heads(ts_state *s, size_t step, int64_t m, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[step];
    const ts_buffer *b = s->d->plan->steps.bufs;
    const int64_t ldx = b[st->a].width, ldy = b[st->dst].width, k = st->w->k;
    const ts_prep *p = ts_plan_int8(s->d->plan, m) ? st->kset->prep_int8 : st->kset->prep;
    const cut c = cut_of(st, m, n);
    uint8_t *scratch = s->scratch + (size_t)tid * s->scratch_bytes;
    uint8_t *act = scratch + (s->d->at->isa == TS_ISA_AMX ? TS_MUL_SCRATCH : 0);
    int64_t made = -1; /* the head and tokens whose activations are there */
    for (int64_t i; (i = ts_claim(&s->next[step])) < st->n_heads * c.blocks * c.pieces;) {
        const int64_t of = i / c.pieces, head = of / c.blocks, t0 = of % c.blocks * c.tokens;
        const int64_t tokens = m - t0 < c.tokens ? m - t0 : c.tokens;
        const int64_t n0 = i % c.pieces * c.rows, n1 = n0 + c.rows;
        const float *x = (const float *)s->bufs[st->a] + t0 * ldx + head * (ldx / st->n_heads);
        float *y = (float *)s->bufs[st->dst] + t0 * ldy + head * (ldy / st->n_heads);
        if (of != made)
            p->run(act, x, ldx, tokens, k, 0, tokens, 0, k);
        made = of;
        st->kset->mul(&(ts_mul){
            .w = ts_kset_stack_at(st->kset, st->w->data, st->w->n, k, head),
            .x = act,
            .limbs = p->limbs,
            .y = y,
            .m = tokens,
            .n = st->w->n,
            .k = k,
            .ldy = ldy,
            .n0 = n0,
            .n1 = n1 < st->w->n ? n1 : st->w->n,
            .scratch = scratch,
        });
        if (n0 == 0)
            copy_rest(s, st, x, y, tokens);
    }
}

int64_t ts_cpu_heads_on_tiles(const ts_state *s, const ts_step *st, int64_t m)
{
    const bool int8 = ts_plan_int8(s->d->plan, m);
    const int64_t rest = m % TS_HEADS_TOKENS, whole = m - rest;
    return (whole && ts_kset_on_tiles(st->kset, int8, TS_HEADS_TOKENS) ? whole : 0) +
           (rest && ts_kset_on_tiles(st->kset, int8, rest) ? rest : 0);
}

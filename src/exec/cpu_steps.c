/* cpu_steps.c - what each step of the forward pass does on the CPU, shared among n threads.
 *
 * By row: thread i of n takes the i-th part of the rows, cut at multiples of the plan's row_group,
 * so that it meets its own rows again in the next such step. Freely: threads claim chunks. Either
 * way a number computed for a row doesn't depend on who computes it. */
#include "exec/cpu.h"

#include <math.h>
#include <string.h>

#include "exec/chunks.h"

typedef struct rows {
    int64_t r0, r1;
} rows;

ts_act_mul *ts_cpu_act(const ts_state *s, const ts_step *st)
{
    const ts_ops *ops = s->d->ops;
    return st->act == TS_OP_SILU      ? ops->silu_mul
           : st->act == TS_OP_CLAMPED ? ops->clamped_mul
                                      : ops->gelu_mul;
}

static rows share(const ts_state *s, int64_t m, int tid, int n)
{
    const ts_steps *steps = &s->d->plan->steps;
    int64_t g = m < steps->group_from ? 1 : steps->row_group;
    int64_t units = (m + g - 1) / g;
    int64_t r1 = units * (tid + 1) / n * g;
    return (rows){units * tid / n * g, r1 < m ? r1 : m};
}

static void embed(ts_state *s, const ts_step *st, rows r)
{
    const ts_type_info *t = ts_type_get(st->w->source->type);
    size_t bytes = ts_row_bytes(t, st->w->k);
    for (int64_t i = r.r0; i < r.r1; i++) {
        const uint8_t *src = st->w->source->data;
        float *dst = ts_cpu_row(s, st->dst, i);
        t->to_f32(dst, src + (size_t)s->batch->tokens[i] * bytes, st->w->k);
        if (st->f != 1)
            s->d->ops->scale(dst, dst, st->f, st->w->k);
    }
}

/* The products are rounded to float as they would be in any engine that keeps angles in float. */
static void angles(ts_state *s, const ts_step *st, rows r)
{
    const ts_rope *rope = st->rope;
    for (int64_t i = r.r0; i < r.r1; i++) {
        float *cs = ts_cpu_row(s, st->dst, i), pos = (float)ts_batch_pos(s->batch, i);
        for (int64_t j = 0; j < rope->n_rot / 2; j++) {
            float theta = pos * rope->freq[j];
            cs[2 * j] = cosf(theta) * rope->mscale;
            cs[2 * j + 1] = sinf(theta) * rope->mscale;
        }
    }
}

static void norm(ts_state *s, const ts_step *st, rows r)
{
    int64_t hd = st->d / st->n_heads;
    for (int64_t i = r.r0; i < r.r1; i++)
        for (int64_t h = 0; h < st->n_heads; h++)
            s->d->ops->rms_norm(ts_cpu_row(s, st->dst, i) + h * hd,
                                ts_cpu_row(s, st->a, i) + h * hd, st->vec + (st->each ? h * hd : 0),
                                hd, s->d->m->hp.norm_eps);
}

static void center(ts_state *s, const ts_step *st, rows r)
{
    int64_t hd = st->d / st->n_heads;
    for (int64_t i = r.r0; i < r.r1; i++)
        for (int64_t h = 0; h < st->n_heads; h++)
            s->d->ops->center(ts_cpu_row(s, st->dst, i) + h * hd, ts_cpu_row(s, st->a, i) + h * hd,
                              hd);
}

static void rope(ts_state *s, const ts_step *st, rows r)
{
    int64_t hd = st->d / st->n_heads;
    for (int64_t i = r.r0; i < r.r1; i++)
        for (int64_t h = 0; h < st->n_heads; h++)
            s->d->ops->rope(ts_cpu_row(s, st->dst, i) + h * hd + st->skip, ts_cpu_row(s, st->a, i),
                            st->rope->n_rot, st->rope->neox);
}

uint8_t *ts_cpu_kv_head(const ts_state *s, bool v, int layer, int64_t head)
{
    const ts_hparams *hp = &s->d->m->hp;
    const ts_plan *p = s->d->plan;
    const int64_t i = ts_plan_kv_index(p, s->d->index, &s->d->m->layers[layer]);
    const size_t at = (size_t)(i * hp->n_head_kv + head);
    const size_t all = (size_t)(ts_plan_kv_layers(p, s->d->index) * hp->n_head_kv);
    return s->kv + (v ? all * s->k_bytes + at * s->v_bytes : at * s->k_bytes);
}

static void store(ts_state *s, const ts_step *st, rows r)
{
    const ts_hparams *hp = &s->d->m->hp;
    for (int64_t h = 0; h < hp->n_head_kv; h++) {
        uint8_t *k = ts_cpu_kv_head(s, false, st->layer, h),
                *v = ts_cpu_kv_head(s, true, st->layer, h);
        for (int64_t i = r.r0; i < r.r1; i++)
            s->d->ops->kv->store(k, v, ts_batch_place(s->batch, i),
                                 ts_cpu_row(s, st->a, i) + h * hp->head_dim,
                                 ts_cpu_row(s, st->b, i) + h * hp->v_dim, hp->head_dim, hp->v_dim);
    }
}

/* The same for preparing the activations and for the products. */
static const ts_prep *prep_of(const ts_state *s, const ts_step *st, int64_t m)
{
    return ts_plan_int8(s->d->plan, m) ? st->kset->prep_int8 : st->kset->prep;
}

/* Does a part of what p makes of m rows depend on all of them? */
static bool of_all_rows(const ts_prep *p, int64_t m)
{
    return p->all_from > 0 && m >= p->all_from;
}

/* Is what the step makes or reads the same as `like` has? */
static bool shared(const ts_state *s, const ts_step *st, int64_t m)
{
    const ts_buffer *b = s->d->plan->steps.bufs;
    return st->like != TS_NO_BUF &&
           ts_prep_agree(b[st->op == TS_OP_PREP ? st->dst : st->a].prep, b[st->like].prep, m);
}

bool ts_cpu_meet(const ts_state *s, size_t i, int64_t m)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    if (st->op == TS_OP_EXPERTS && m == TS_ALONE)
        return false; /* GATHER has made nothing */
    return st->barrier ||
           (st->op == TS_OP_PREP && !shared(s, st, m) && of_all_rows(prep_of(s, st, m), m));
}

static void prep(ts_state *s, const ts_step *st, int64_t m, rows r)
{
    if (r.r0 < r.r1)
        prep_of(s, st, m)->run(s->bufs[st->dst], ts_cpu_row(s, st->a, 0),
                               s->d->plan->steps.bufs[st->a].width, m, st->d, r.r0, r.r1, 0, st->d);
}

/* --- steps shared freely ---------------------------------------------------- */

/* Elements of a row that a thread prepares at least: of one row a few cache lines, of a tile's 16
 * much work. */
enum { PART = 256 };

/* A PREP that isn't by row: groups of rows by parts along k, of which thread tid of n takes the
 * tid-th share. A group is what the format wants together. They are in the order of groups, but
 * part by part where all rows are looked at first: that is done once for the groups of a call. */
static void prep_freely(ts_state *s, const ts_step *st, int64_t m, int tid, int n)
{
    const ts_prep *p = prep_of(s, st, m);
    const int64_t k = st->d, group = m < p->group_from ? 1 : p->m_group;
    const int64_t part = p->k_group > PART ? p->k_group : PART;
    const int64_t groups = (m + group - 1) / group, parts = (k + part - 1) / part;
    const bool by_part = of_all_rows(p, m);
    const int64_t inner = by_part ? groups : parts, end = groups * parts * (tid + 1) / n;
    for (int64_t i = groups * parts * tid / n, next; i < end; i = next) {
        const int64_t o = i / inner, i0 = i - o * inner;
        next = (o + 1) * inner < end ? (o + 1) * inner : end;
        const int64_t i1 = next - o * inner;
        const int64_t m0 = group * (by_part ? i0 : o), m1 = group * (by_part ? i1 : o + 1);
        const int64_t k0 = part * (by_part ? o : i0), k1 = part * (by_part ? o + 1 : i1);
        p->run(s->bufs[st->dst], ts_cpu_row(s, st->a, 0), s->d->plan->steps.bufs[st->a].width, m, k,
               m0, m1 < m ? m1 : m, k0, k1 < k ? k1 : k);
    }
}

static int64_t product_rows(const ts_state *s, const ts_step *st)
{
    return st->domain == TS_ALL_ROWS ? s->batch->m : s->batch->m_out;
}

static ts_chunks chunks_of(const ts_state *s, const ts_step *st, int64_t m, int n)
{
    return ts_chunks_of(st->kset, ts_plan_int8(s->d->plan, m), st->w->n, m, n);
}

/* Chunks are claimed, but behind a barrier, where all begin at once, the first of a few tokens is
 * fixed: a thread that waits there can ask for it. */
static bool has_first(const ts_step *st, int64_t m)
{
    return st->barrier && m <= TS_CPU_FEW;
}

static int64_t claim(ts_state *s, size_t i, int64_t m, int n)
{
    return ts_claim(&s->next[i]) + (has_first(&s->d->plan->steps.v[i], m) ? n : 0);
}

void ts_cpu_first_weights(const ts_state *s, size_t i, int tid, int n, ts_ahead ahead[2])
{
    ahead[0] = ahead[1] = (ts_ahead){0};
    if (i >= s->d->plan->steps.n)
        return;
    const ts_step *st = &s->d->plan->steps.v[i];
    int64_t m = product_rows(s, st), n0, n1;
    if (st->op == TS_OP_EXPERTS) {
        ts_cpu_first_expert(s, i, m, tid, n, ahead);
        return;
    }
    if (m == 0 || !has_first(st, m) || !st->kset->packed_bytes ||
        !ts_chunk_rows(chunks_of(s, st, m, n), tid, st->w->n, &n0, &n1))
        return;
    const size_t begin = st->kset->packed_bytes(n0, st->w->k);
    const size_t end = st->kset->packed_bytes(n1, st->w->k);
    const ts_weight *w[2] = {st->w, st->op == TS_OP_GLU ? st->w2 : NULL};
    for (int j = 0; j < 2 && w[j]; j++)
        ahead[j] = (ts_ahead){(const char *)w[j]->data + begin, (const char *)w[j]->data + end};
}

/* Of a matrix with few rows, such as a router, there are fewer chunks than threads: then tokens are
 * shared out too, if each is prepared by itself. In so many parts. */
static int64_t token_parts(const ts_prep *p, ts_chunks c, int64_t n, int64_t m, int n_threads)
{
    enum { LEAST = 32 };
    const int64_t chunks = ts_chunk_count(c, n), want = (2 * n_threads + chunks - 1) / chunks;
    if (p->m_group > 1 || p->all_from || m < 2 * LEAST || want < 2)
        return 1;
    return want < m / LEAST ? want : m / LEAST;
}

/* Chunk i of the whole product, `of` parts of tokens to a chunk of rows. */
static bool part_of(ts_mul *p, const ts_prep *prep, const ts_mul *whole, ts_chunks c, int64_t of,
                    int64_t i)
{
    const int64_t t0 = whole->m * (i % of) / of, t1 = whole->m * (i % of + 1) / of;
    *p = *whole;
    if (!ts_chunk_rows(c, i / of, whole->n, &p->n0, &p->n1))
        return false;
    p->x = (const uint8_t *)whole->x + (size_t)t0 * prep->bytes(1, whole->k);
    p->y = whole->y + t0 * whole->ldy;
    p->add = whole->add ? whole->add + t0 * whole->ldadd : NULL;
    p->m = t1 - t0;
    return true;
}

/* The products of step i, by chunks of rows of W. A gated pair is finished chunk by chunk. */
static void matmul(ts_state *s, size_t i, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    const int64_t m = product_rows(s, st);
    bool logits = st->dst == s->d->plan->steps.logits;
    ts_mul mul = {.w = st->w->data,
                  .x = s->bufs[shared(s, st, m) ? st->like : st->a],
                  .y = ts_cpu_row(s, st->dst, logits ? s->batch->logits_row : 0),
                  .m = m,
                  .n = st->w->n,
                  .k = st->w->k,
                  .ldy = s->d->plan->steps.bufs[st->dst].width,
                  .scratch = s->scratch + (size_t)tid * s->scratch_bytes};
    mul.limbs = prep_of(s, st, mul.m)->limbs;
    ts_mul second = mul;
    if (st->op == TS_OP_GLU) {
        second.w = st->w2->data;
        second.y = ts_cpu_row(s, st->b, 0);
        second.ldy = s->d->plan->steps.bufs[st->b].width;
    } else if (st->b != TS_NO_BUF) {
        mul.add = ts_cpu_row(s, st->b, 0);
        mul.ldadd = s->d->plan->steps.bufs[st->b].width;
    }
    ts_chunks c = chunks_of(s, st, mul.m, n);
    const ts_prep *p = prep_of(s, st, m);
    const int64_t parts = st->op == TS_OP_GLU ? 1 : token_parts(p, c, mul.n, m, n);
    if (parts > 1) {
        ts_mul some;
        while (part_of(&some, p, &mul, c, parts, ts_claim(&s->next[i])))
            st->kset->mul(&some);
        return;
    }
    int64_t n0, n1; /* the chunk after this one: its weights are on their way when it begins */
    int64_t first = has_first(st, mul.m) ? tid : claim(s, i, mul.m, n);
    for (bool more = ts_chunk_rows(c, first, mul.n, &mul.n0, &mul.n1); more;
         mul.n0 = n0, mul.n1 = n1) {
        more = ts_chunk_rows(c, claim(s, i, mul.m, n), mul.n, &n0, &n1);
        if (st->op == TS_OP_GLU)
            ts_cpu_fetch(&second, st->kset, mul.n0);
        else if (more)
            ts_cpu_fetch(&mul, st->kset, n0);
        st->kset->mul(&mul);
        if (st->op != TS_OP_GLU)
            continue;
        if (more)
            ts_cpu_fetch(&mul, st->kset, n0);
        second.n0 = mul.n0;
        second.n1 = mul.n1;
        st->kset->mul(&second);
        for (int64_t t = 0; t < mul.m; t++) {
            float *g = mul.y + t * mul.ldy + mul.n0, *u = second.y + t * second.ldy + mul.n0;
            ts_cpu_act(s, st)(g, g, u, mul.n1 - mul.n0);
        }
    }
}

/* With threads to spare a task has fewer heads, but not fewer than so many. */
enum { FEW_HEADS = 4 };

/* Query heads of a task, where there are `others` tasks of each. */
static int64_t task_heads(const ts_state *s, int64_t others, int n)
{
    const ts_hparams *hp = &s->d->m->hp;
    const int64_t group = hp->n_head / hp->n_head_kv;
    int64_t heads = group < TS_ATTEND_HEADS ? group : TS_ATTEND_HEADS;
    while (group % heads)
        heads--;
    while (hp->n_head / heads * others < n && heads % 2 == 0 && heads / 2 >= FEW_HEADS)
        heads /= 2;
    return heads;
}

/* The i-th `heads` query heads, which share a KV head, for tokens t0.. of a span. */
static ts_attend attend_task(const ts_state *s, const ts_step *st, const ts_rows *span, int64_t i,
                             int64_t heads, int64_t t0, int64_t tokens, int tid)
{
    const ts_hparams *hp = &s->d->m->hp;
    const int64_t head = i * heads, kv = head / (hp->n_head / hp->n_head_kv);
    return (ts_attend){.q = ts_cpu_row(s, st->a, span->r0 + t0) + head * hp->head_dim,
                       .o = ts_cpu_row(s, st->dst, span->r0 + t0) + head * hp->v_dim,
                       .map = span->map,
                       .k = ts_cpu_kv_head(s, false, st->layer, kv),
                       .v = ts_cpu_kv_head(s, true, st->layer, kv),
                       .ldq = s->d->plan->steps.bufs[st->a].width,
                       .ldo = s->d->plan->steps.bufs[st->dst].width,
                       .n_tokens = tokens,
                       .n_group = heads,
                       .head_dim = hp->head_dim,
                       .v_dim = hp->v_dim,
                       .pos0 = span->pos0 + t0,
                       .k0 = 0,
                       .k1 = span->pos0 + t0 + tokens,
                       .window = st->window,
                       .scale = hp->attn_scale,
                       .sinks = st->vec ? st->vec + head : NULL,
                       .softcap = hp->attn_softcap,
                       .scratch = s->scratch + (size_t)tid * s->scratch_bytes};
}

/* How the attention of a span is cut into tasks. */
typedef struct cut {
    ts_rows span;
    int64_t heads;      /* query heads of a task                                           */
    int64_t parts;      /* ... so many of which are all                                    */
    int64_t tokens;     /* of a task                                                       */
    int64_t blocks;     /* ... so many of which are the span                               */
    int64_t n_segments; /* > 0: tasks are segments of positions from `first` on, of all tokens */
    int64_t first;
    int64_t sums; /* where its partial sums begin: rows of one head and one segment  */
    int64_t tasks;
} cut;

/* Tokens of a task: as many as the kernel likes, unless threads would have nothing to do. m: of the
 * batch. */
static int64_t task_tokens(const ts_state *s, int64_t heads, int64_t m, int n)
{
    const int64_t most = ts_attend_tokens(s->d->ops, heads);
    int64_t even = (m * (s->d->m->hp.n_head / heads) + 4 * n - 1) / (4 * n);
    if (even < 16)
        even = 16;
    return even < most ? even : most;
}

/* Span i. Few tokens over many positions are cut by segments of positions, if there is room for the
 * sums behind those of `sums` rows. The bits are the same either way. */
static cut cut_span(const ts_state *s, const ts_step *st, int64_t i, int64_t sums, int n)
{
    const ts_batch *b = s->batch;
    const int64_t n_head = s->d->m->hp.n_head, spans = ts_batch_spans(b);
    cut c = {.span = ts_batch_span(b, i), .sums = sums};
    const int64_t m = c.span.m, pos0 = c.span.pos0;
    const int64_t lowest = st->window && pos0 + 1 > st->window ? pos0 + 1 - st->window : 0;
    c.first = lowest / TS_ATTEND_SEGMENT;
    const int64_t segments = (pos0 + m - 1) / TS_ATTEND_SEGMENT - c.first + 1;
    if (m <= TS_SPLIT_TOKENS && segments > 1 &&
        sums + m * segments <= ts_plan_part_rows(s->d->plan)) {
        c.n_segments = segments;
        c.heads = task_heads(s, segments * spans, n);
        c.tokens = m;
        c.parts = n_head / c.heads;
        c.tasks = c.parts * segments;
        return c;
    }
    c.heads = task_heads(s, (b->m + TS_SPLIT_TOKENS - 1) / TS_SPLIT_TOKENS + spans - 1, n);
    c.parts = n_head / c.heads;
    c.tokens = task_tokens(s, c.heads, b->m, n);
    c.blocks = (m + c.tokens - 1) / c.tokens;
    c.tasks = c.parts * c.blocks;
    return c;
}

/* One segment and some heads. Whoever finishes the last segment of these joins them, in the order
 * of positions, so that threads don't matter. */
static void attend_segment(ts_state *s, size_t i, int64_t span, const cut *c, int64_t task, int tid)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    const ts_hparams *hp = &s->d->m->hp;
    const int64_t at = task / c->n_segments, seg = task % c->n_segments;
    const int64_t m = c->span.m, n_rows = m * c->heads;
    ts_attend a = attend_task(s, st, &c->span, at, c->heads, 0, m, tid);
    const int64_t row0 = c->sums * hp->n_head + at * c->n_segments * n_rows;
    float *whole = a.o, *sums = s->part_sums + row0 * hp->v_dim, *max = s->part_max + row0 * 2;
    const int64_t ldo = a.ldo, end = a.k1;
    a.o = sums + seg * n_rows * hp->v_dim;
    a.ldo = a.n_group * hp->v_dim;
    a.part = max + seg * n_rows * 2;
    a.k0 = (c->first + seg) * TS_ATTEND_SEGMENT;
    a.k1 = a.k0 + TS_ATTEND_SEGMENT < end ? a.k0 + TS_ATTEND_SEGMENT : end;
    s->d->ops->attend(&a);
    atomic_int_fast64_t *done = &s->merged[(span * s->n_attend + s->attend[i]) * hp->n_head + at];
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) == c->n_segments - 1)
        s->d->ops->merge(whole, ldo, sums, max, c->n_segments, m, a.n_group, hp->v_dim, a.sinks);
}

/* The tasks of all spans in their order; those claimed grow, so each thread goes through the spans
 * once. The last tokens of a span see most positions: handing them out first evens out the end. */
static void attend(ts_state *s, size_t i, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    const int64_t spans = ts_batch_spans(s->batch);
    int64_t span = 0, before = 0;
    cut c = cut_span(s, st, 0, 0, n);
    for (;;) {
        const int64_t claimed = ts_claim(&s->next[i]);
        while (claimed >= before + c.tasks && span + 1 < spans) {
            before += c.tasks;
            c = cut_span(s, st, ++span, c.sums + c.span.m * c.n_segments, n);
        }
        const int64_t task = claimed - before;
        if (task >= c.tasks)
            return;
        if (c.n_segments) {
            attend_segment(s, i, span, &c, task, tid);
            continue;
        }
        const int64_t t0 = (c.blocks - 1 - task / c.parts) * c.tokens;
        const int64_t tokens = c.span.m - t0 < c.tokens ? c.span.m - t0 : c.tokens;
        const ts_attend a = attend_task(s, st, &c.span, task % c.parts, c.heads, t0, tokens, tid);
        s->d->ops->attend(&a);
    }
}

static void select_rows(ts_state *s, const ts_step *st, int tid, int n)
{
    const int64_t m_out = s->batch->m_out;
    for (int64_t i = m_out * tid / n; i < m_out * (tid + 1) / n; i++)
        memcpy(ts_cpu_row(s, st->dst, i), ts_cpu_row(s, st->a, ts_batch_out(s->batch, i)),
               (size_t)st->d * sizeof(float));
}

static void softcap(ts_state *s, const ts_step *st, rows r)
{
    for (int64_t i = r.r0; i < r.r1; i++) {
        float *x = ts_cpu_row(s, st->dst, s->batch->logits_row + i);
        for (int64_t j = 0; j < st->d; j++)
            x[j] = st->f * tanhf(x[j] / st->f);
    }
}

/* In sixteen sums side by side, which a compiler can put into vectors; the same for every ISA. */
static float dot(const float *a, const float *b, int64_t n)
{
    enum { SUMS = 16 };
    float part[SUMS] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++)
            part[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        part[i % SUMS] += a[i] * b[i];
    for (int j = 0; j < SUMS; j++)
        sum += part[j];
    return sum;
}

static void gate(ts_state *s, const ts_step *st, rows r)
{
    for (int64_t i = r.r0; i < r.r1; i++)
        s->d->ops->mad(ts_cpu_row(s, st->dst, i), ts_cpu_row(s, st->b, i),
                       1 / (1 + expf(-dot(ts_cpu_row(s, st->a, i), st->vec, st->d))), st->d);
}

static void binary(ts_state *s, const ts_step *st, rows r,
                   void (*f)(float *, const float *, const float *, int64_t))
{
    for (int64_t i = r.r0; i < r.r1; i++)
        f(ts_cpu_row(s, st->dst, i), ts_cpu_row(s, st->a, i), ts_cpu_row(s, st->b, i), st->d);
}

void ts_cpu_step(ts_state *s, size_t i, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    const ts_ops *ops = s->d->ops;
    int64_t m = st->domain == TS_ALL_ROWS ? s->batch->m : s->batch->m_out;
    rows r = share(s, m, tid, n);
    switch (st->op) {
    case TS_OP_EMBED:
        embed(s, st, r);
        break;
    case TS_OP_ANGLES:
        angles(s, st, r);
        break;
    case TS_OP_NORM:
        norm(s, st, r);
        break;
    case TS_OP_CENTER:
        center(s, st, r);
        break;
    case TS_OP_PREP:
        if (shared(s, st, m))
            break;
        if (st->by_row)
            prep(s, st, m, r);
        else
            prep_freely(s, st, m, tid, n);
        break;
    case TS_OP_MATMUL:
    case TS_OP_GLU:
        matmul(s, i, tid, n);
        break;
    case TS_OP_BIAS:
        for (int64_t j = r.r0; j < r.r1; j++)
            ops->add(ts_cpu_row(s, st->dst, j), ts_cpu_row(s, st->dst, j), st->vec, st->d);
        break;
    case TS_OP_ROPE:
        rope(s, st, r);
        break;
    case TS_OP_STORE:
        store(s, st, r);
        break;
    case TS_OP_ATTEND:
        attend(s, i, tid, n);
        break;
    case TS_OP_ADD:
        binary(s, st, r, ops->add);
        break;
    case TS_OP_SILU:
        binary(s, st, r, ops->silu_mul);
        break;
    case TS_OP_GELU:
        binary(s, st, r, ops->gelu_mul);
        break;
    case TS_OP_CLAMPED:
        binary(s, st, r, ops->clamped_mul);
        break;
    case TS_OP_SELECT:
        select_rows(s, st, tid, n);
        break;
    case TS_OP_SOFTCAP:
        softcap(s, st, r);
        break;
    case TS_OP_GATE:
        gate(s, st, r);
        break;
    case TS_OP_ROUTE:
        ts_cpu_route(s, st, m, r.r0, r.r1);
        break;
    case TS_OP_GROUP:
        ts_cpu_group(s, st, m, tid);
        break;
    case TS_OP_GATHER:
        ts_cpu_gather(s, i, m, tid, n);
        break;
    case TS_OP_EXPERTS:
        ts_cpu_experts(s, i, m, tid, n);
        break;
    case TS_OP_COMBINE:
        ts_cpu_combine(s, st, m, tid, n);
        break;
    case TS_OP_HEADS:
        ts_cpu_heads(s, i, m, tid, n);
        break;
    case TS_OP_COPY: /* these are exec/run.c's */
    case TS_OP_SHARE:
    case TS_OP_COUNT:
        break;
    }
}

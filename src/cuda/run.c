/* run.c - the steps of a segment as kernels, and as graphs of them.
 *
 * A decode step is some hundred kernels of a few microseconds each: launched one by one they wait
 * for the host. What changes from one to the next is read from ts_cuda_batch, so a segment's
 * launches are recorded when a shape comes the second time, and from then on launched at once. */
#include <string.h>

#include "base/clock.h"
#include "cuda/attend.h"
#include "cuda/impl.h"
#include "cuda/quant.h"

/* --- steps ---------------------------------------------------------------------- */

/* Are a step's activations BF16 for cuBLAS? */
static bool by_gemm(const ts_device *d, int64_t m)
{
    return d->gemm && m > TS_CUDA_FEW;
}

static ts_cuda_rows rows_of(const ts_state *s, ts_buf b, int64_t r)
{
    return (ts_cuda_rows){ts_cuda_row(s, b, r), s->d->plan->steps.bufs[b].width};
}

/* Activations: BF16 rows, 15 bits, or floats as they are; of x, or of its norm by vec. */
static int prep(ts_state *s, const ts_step *st, ts_buf x_buf, const float *vec,
                const ts_cuda_on *on)
{
    ts_device *d = s->d;
    const ts_cuda_rows x = rows_of(s, x_buf, 0);
    const int64_t m = on->rows, k = st->d;
    const float eps = d->m->hp.norm_eps;
    uint8_t *act = s->bufs[st->dst];
    int e = 0;
    if (by_gemm(d, m)) {
        if (vec)
            return ts_cuda_norm_bf16(act, x.x, x.ld, vec, eps, m, k, d->stream);
        if (x.ld == k)
            return ts_cuda_dequant(act, true, TS_TYPE_F32, x.x, 0, m, k, d->stream);
        for (int64_t i = 0; i < m && !e; i++)
            e = ts_cuda_dequant(act + (size_t)(i * k) * 2, true, TS_TYPE_F32, x.x + i * x.ld, 0, 1,
                                k, d->stream);
        return e;
    }
    if (st->kset->prep->act != TS_ACT_F32)
        return ts_cuda_prep(act, x.x, x.ld, vec, eps, m, k, d->stream);
    if (vec)
        return ts_cuda_rms_norm(on, (ts_cuda_rows){(float *)act, k}, x, vec, k, eps);
    for (int64_t i = 0; i < m && !e; i++)
        e = ts_rt_copy(act + (size_t)(i * k) * 4, x.x + i * x.ld, (size_t)k * 4, d->stream);
    return e;
}

/* y = act(x) w^T (+ y) of few tokens and n rows, of what has w's type and width. */
static ts_cuda_mul mul_rows(const ts_state *s, const ts_weight *w, const void *rows, ts_buf x,
                            ts_cuda_rows y, bool add, int64_t m, int64_t n)
{
    return (ts_cuda_mul){.type = w->source->type,
                         .w = rows,
                         .x = s->bufs[x],
                         .ldx = w->k,
                         .y = y.x,
                         .ldy = y.ld,
                         .add = add ? y.x : NULL,
                         .ldadd = y.ld,
                         .m = m,
                         .n = n,
                         .k = w->k};
}

/* y = act(x) w^T (+ y), of a weight that comes piece by piece. What cuBLAS multiplies is gathered
 * to as much as the strip holds: of a piece's rows alone it makes too few blocks for a GPU. */
static int streamed(ts_state *s, const ts_weight *w, ts_buf x, ts_cuda_rows y, bool add, int64_t m)
{
    ts_device *d = s->d;
    const int64_t most = (int64_t)(d->strip_bytes / ((size_t)w->k * sizeof(uint16_t)));
    int64_t from = 0; /* the first row that the strip has */
    int e = 0;
    for (int64_t n0 = 0, n1; n0 < w->n && !e; n0 = n1) {
        const void *rows;
        if ((e = ts_cuda_stream_next(d->streamed, w, n0, &n1, &rows)))
            break;
        if (!by_gemm(d, m)) {
            ts_cuda_mul p =
                mul_rows(s, w, rows, x, (ts_cuda_rows){y.x + n0, y.ld}, add, m, n1 - n0);
            p.fresh = true;
            e = ts_cuda_mul_run(&p, 1, d->stream);
            continue;
        }
        uint16_t *to = (uint16_t *)d->strip + (n0 - from) * w->k;
        e = ts_cuda_dequant(to, true, w->source->type, rows, 0, n1 - n0, w->k, d->stream);
        if (e || (n1 < w->n && n1 + (n1 - n0) - from <= most)) /* the next piece is no larger */
            continue;
        e = ts_rt_gemm_run(d->gemm, y.x + from, y.ld, add, (const uint16_t *)s->bufs[x], d->strip,
                           m, n1 - from, w->k);
        from = n1;
    }
    return e;
}

/* y = act(x) w^T (+ y), weights dequantised a strip of rows at a time. */
static int gemm(ts_state *s, const ts_weight *w, ts_buf x, ts_cuda_rows y, bool add, int64_t m)
{
    ts_device *d = s->d;
    int64_t strip = (int64_t)(d->strip_bytes / ((size_t)w->k * sizeof(uint16_t)));
    if (strip < w->n && strip > TS_CUDA_ROUND)
        strip -= strip % TS_CUDA_ROUND;
    int e = 0;
    for (int64_t n0 = 0; n0 < w->n && !e; n0 += strip) {
        const int64_t n1 = n0 + strip < w->n ? n0 + strip : w->n;
        e = ts_cuda_dequant(d->strip, true, w->source->type, w->data, n0, n1, w->k, d->stream);
        if (!e)
            e = ts_rt_gemm_run(d->gemm, y.x + n0, y.ld, add, (const uint16_t *)s->bufs[x], d->strip,
                               m, n1 - n0, w->k);
    }
    return e;
}

static ts_cuda_mul mul_of(const ts_state *s, const ts_step *st, int64_t m, int64_t r0)
{
    const bool glu = st->op == TS_OP_GLU;
    ts_cuda_mul p = mul_rows(s, st->w, st->w->data, st->a, rows_of(s, st->dst, r0),
                             !glu && st->b != TS_NO_BUF, m, st->w->n);
    if (glu) {
        p.join = st->act == TS_OP_SILU ? TS_CUDA_SILU : TS_CUDA_GELU;
        p.v = st->w2->data;
    }
    return p;
}

/* y = act(x) w^T (+ y) by itself. */
static int matmul(ts_state *s, const ts_weight *w, ts_buf x, ts_cuda_rows y, bool add, int64_t m)
{
    if (w->device != s->d->index)
        return streamed(s, w, x, y, add, m);
    if (by_gemm(s->d, m))
        return gemm(s, w, x, y, add, m);
    const ts_cuda_mul p = mul_rows(s, w, w->data, x, y, add, m, w->n);
    return ts_cuda_mul_run(&p, 1, s->d->stream);
}

static int product(ts_state *s, const ts_step *st, int64_t m, int64_t r0)
{
    return matmul(s, st->w, st->a, rows_of(s, st->dst, r0), st->b != TS_NO_BUF, m);
}

/* Products i..end-1 of the same activations. */
static int products(ts_state *s, size_t i, size_t end, const ts_batch *b, int64_t m)
{
    const ts_steps *steps = &s->d->plan->steps;
    ts_cuda_mul p[TS_CUDA_MUL_PARTS];
    int n = 0, e = 0;
    for (; i < end && !e; i++) {
        const ts_step *st = &steps->v[i];
        const int64_t r0 = st->dst == steps->logits ? b->logits_row : 0;
        if (by_gemm(s->d, m) || st->w->device != s->d->index)
            e = product(s, st, m, r0);
        else
            p[n++] = mul_of(s, st, m, r0);
    }
    return e || !n ? e : ts_cuda_mul_run(p, n, s->d->stream);
}

/* `to`: the PREP whose BF16 the result becomes; NULL: floats. */
static int glu(ts_state *s, const ts_step *st, const ts_step *to, const ts_cuda_on *on, int64_t m)
{
    ts_device *d = s->d;
    const bool comes = st->w->device != d->index || st->w2->device != d->index;
    if (!by_gemm(d, m) && !comes) {
        const ts_cuda_mul p = mul_of(s, st, m, 0);
        return ts_cuda_mul_run(&p, 1, d->stream);
    }
    ts_cuda_rows y = rows_of(s, st->dst, 0), up = rows_of(s, st->b, 0);
    int e = matmul(s, st->w, st->a, y, false, m);
    if (!e)
        e = matmul(s, st->w2, st->a, up, false, m);
    if (e)
        return e;
    if (to && by_gemm(d, m))
        return ts_cuda_glu_bf16(s->bufs[to->dst], st->act == TS_OP_SILU, y.x, y.ld, up.x, up.ld, m,
                                st->d, d->stream);
    return (st->act == TS_OP_SILU ? ts_cuda_silu_mul : ts_cuda_gelu_mul)(on, y, y, up, st->d);
}

/* Does attention over m rows leave activations of 15 bits where one wants them? */
static bool attend_prepares(const ts_device *d, int64_t m)
{
    return m <= TS_CUDA_DECODE && !by_gemm(d, m);
}

/* `to`: the PREP whose activations the result becomes; NULL: floats. */
static int attend(ts_state *s, const ts_step *st, const ts_step *to, const ts_cuda_on *on)
{
    const ts_hparams *hp = &s->d->m->hp;
    ts_cuda_attention a = {.q = rows_of(s, st->a, 0),
                           .o = rows_of(s, st->dst, 0),
                           .kv = ts_cuda_kv_of(s, st->layer),
                           .n_head = hp->n_head,
                           .window = st->window,
                           .scale = hp->attn_scale,
                           .softcap = hp->attn_softcap,
                           .work = s->work,
                           .act = to ? s->bufs[to->dst] : NULL,
                           .sinks = s->d->vec[st - s->d->plan->steps.v]};
    int e = 0;
    if (on->spans || on->rows <= TS_CUDA_DECODE)
        e = ts_cuda_attend_decode(on, &a);
    if (!e && on->rows > TS_CUDA_DECODE)
        e = ts_cuda_attend_prefill(on, &a);
    return e;
}

static int rope(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    return ts_cuda_rope(on, rows_of(s, st->dst, 0), st->n_heads, st->d / st->n_heads, st->skip,
                        rows_of(s, st->a, 0), st->rope->n_rot, st->rope->neox);
}

/* Biases, norms and RoPE of heads from step i on, to the STORE `last`. */
static int qkv_store(ts_state *s, size_t i, size_t last, const ts_cuda_on *on)
{
    const ts_device *d = s->d;
    const ts_hparams *hp = &d->m->hp;
    const ts_step *v = d->plan->steps.v, *st = &v[last];
    const ts_buf q = v[last + 1].op == TS_OP_ATTEND ? v[last + 1].a : TS_NO_BUF;
    ts_cuda_qkv p = {.kv = ts_cuda_kv_of(s, st->layer), .eps = hp->norm_eps};
    p.k.x = rows_of(s, st->a, 0);
    p.v.x = rows_of(s, st->b, 0);
    p.k.n_heads = p.v.n_heads = hp->n_head_kv;
    for (; i < last; i++) {
        if (v[i].op == TS_OP_ANGLES)
            continue;
        ts_cuda_heads *h = v[i].dst == st->a ? &p.k : v[i].dst == st->b ? &p.v : &p.q;
        if (v[i].dst == q) {
            h->x = rows_of(s, q, 0);
            h->n_heads = hp->n_head;
        }
        if (v[i].op == TS_OP_BIAS)
            h->bias = d->vec[i];
        if (v[i].op == TS_OP_NORM) {
            h->norm = d->vec[i];
            h->norm_step = v[i].each ? hp->head_dim : 0;
        }
        if (v[i].op != TS_OP_ROPE)
            continue;
        const ts_cuda_rows cs = rows_of(s, v[i].a, 0);
        h->cs = cs.x;
        h->ldcs = cs.ld;
        p.n_rot = v[i].rope->n_rot;
        p.neox = v[i].rope->neox;
    }
    return ts_cuda_qkv_store(on, &p);
}

static int store(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    ts_cuda_kv kv = ts_cuda_kv_of(s, st->layer);
    return ts_cuda_store(on, rows_of(s, st->a, 0), rows_of(s, st->b, 0), &kv);
}

/* Step i over m rows, as the plan has it. */
static int one_step(ts_state *s, size_t i, const ts_batch *b, const ts_cuda_on *on)
{
    const ts_device *d = s->d;
    const ts_step *st = &d->plan->steps.v[i];
    const int64_t r0 = st->dst == d->plan->steps.logits ? b->logits_row : 0;
    ts_cuda_rows y = st->dst == TS_NO_BUF ? (ts_cuda_rows){0} : rows_of(s, st->dst, r0);
    const float eps = d->m->hp.norm_eps;
    switch (st->op) {
    case TS_OP_ANGLES:
        return ts_cuda_angles(on, y, d->vec[i], st->d, st->rope->mscale);
    case TS_OP_NORM:
        if (ts_cuda_by_heads(st, d->m->hp.head_dim))
            return ts_cuda_head_norm(on, y, st->n_heads, st->d / st->n_heads, d->vec[i],
                                     st->each ? st->d / st->n_heads : 0, eps);
        return ts_cuda_rms_norm(on, y, rows_of(s, st->a, 0), d->vec[i], st->d, eps);
    case TS_OP_CENTER:
        return ts_cuda_center(on, y, rows_of(s, st->a, 0), st->n_heads, st->d / st->n_heads);
    case TS_OP_PREP:
        return prep(s, st, st->a, NULL, on);
    case TS_OP_MATMUL:
        return product(s, st, on->rows, r0);
    case TS_OP_GLU:
        return glu(s, st, NULL, on, on->rows);
    case TS_OP_BIAS:
        return ts_cuda_bias(on, y, d->vec[i], st->d);
    case TS_OP_ROPE:
        return rope(s, st, on);
    case TS_OP_STORE:
        return d->m->arch->latent ? ts_cuda_latent_step(s, i, on) : store(s, st, on);
    case TS_OP_ATTEND:
        return d->m->arch->latent ? ts_cuda_latent_step(s, i, on) : attend(s, st, NULL, on);
    case TS_OP_HEADS:
        return ts_cuda_latent_step(s, i, on);
    case TS_OP_ADD:
        return ts_cuda_add(on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_SILU:
        return ts_cuda_silu_mul(on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_GELU:
        return ts_cuda_gelu_mul(on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_SELECT: {
        const ts_cuda_on out = {s->batch, true, on->rows, d->stream, s->now};
        return ts_cuda_select(&out, y, rows_of(s, st->a, 0), st->d);
    }
    case TS_OP_SOFTCAP:
        return ts_cuda_softcap(on, y, st->f, st->d);
    case TS_OP_CLAMPED:
        return ts_cuda_clamped_mul(on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), st->d);
    case TS_OP_GATE:
        return ts_cuda_gate(on, y, rows_of(s, st->a, 0), rows_of(s, st->b, 0), d->vec[i], st->d);
    case TS_OP_ROUTE:
    case TS_OP_GROUP:
    case TS_OP_GATHER:
    case TS_OP_EXPERTS:
    case TS_OP_COMBINE:
        return ts_cuda_expert_step(s, i, on);
    case TS_OP_EMBED: /* the CPU's */
    case TS_OP_COPY:  /* exec/run.c's */
    case TS_OP_SHARE: /* ... too */
    case TS_OP_COUNT:
        break;
    }
    return 0;
}

/* What is done at step i over m rows. */
static int step(ts_state *s, size_t i, const ts_batch *b, int64_t m)
{
    const ts_device *d = s->d;
    const ts_step *v = d->plan->steps.v, *st = &v[i];
    const ts_cuda_on on = {s->batch, st->domain == TS_OUT_ROWS, m, d->stream, s->now};
    const size_t other = d->does[i].other;
    switch (d->does[i].does) {
    case TS_CUDA_STEP:
        break;
    case TS_CUDA_NOTHING:
        return 0;
    case TS_CUDA_NORM_PREP:
        return prep(s, st, v[other].a, d->vec[other], &on);
    case TS_CUDA_QKV_STORE:
        return qkv_store(s, other, i, &on);
    case TS_CUDA_LATENT_STORE:
        return ts_cuda_latent_fused(s, other, i, &on);
    case TS_CUDA_NORM_ADD:
        return ts_cuda_add_rms_norm(&on, (ts_cuda_rows){0}, rows_of(s, st->dst, 0),
                                    rows_of(s, st->b, 0), d->vec[other], NULL, st->d,
                                    d->m->hp.norm_eps);
    case TS_CUDA_PRODUCTS:
        return products(s, i, other, b, m);
    case TS_CUDA_GLU_PREP:
        return glu(s, st, &v[other], &on, m);
    case TS_CUDA_AFTER_GLU:
        if (by_gemm(d, m))
            return 0;
        break;
    case TS_CUDA_ATTEND_PREP:
        return attend(s, st, attend_prepares(d, m) ? &v[other] : NULL, &on);
    case TS_CUDA_AFTER_ATTEND:
        if (attend_prepares(d, m))
            return 0;
        break;
    }
    return one_step(s, i, b, &on);
}

/* Steps first..end-1, launch by launch; *last is the one that failed. */
static int steps(ts_state *s, const ts_batch *b, size_t first, size_t end, size_t *last)
{
    ts_device *d = s->d;
    int e = 0;
    double t0 = 0;
    if (s->stats) {
        e = ts_rt_wait(d->stream);
        t0 = ts_now();
    }
    for (size_t i = first; i < end && !e; i++) {
        const ts_step *st = &d->plan->steps.v[i];
        const int64_t m = st->domain == TS_ALL_ROWS ? b->m : b->m_out;
        if (m == 0)
            break;
        *last = i;
        e = step(s, i, b, m);
        if (!e && st->op == TS_OP_STORE && i >= d->plan->steps.n_main && s->stored &&
            s->stored[st->layer])
            e = ts_rt_event_record(s->stored[st->layer], d->stream);
        if (!s->stats || e)
            continue;
        e = ts_rt_wait(d->stream);
        const double t1 = ts_now();
        s->seconds[i] += t1 - t0;
        s->calls[i]++;
        s->rows[i] += m;
        t0 = t1;
    }
    return e;
}

/* --- graphs --------------------------------------------------------------------- */

/* The segment's shape, and whether it was seen before. The one that was not used for longest makes
 * room: prompts whose ends have every size must not add up. */
static ts_cuda_shape *find_shape(ts_state *s, const ts_batch *b, size_t first, bool *known)
{
    ts_cuda_shape *all = s->shapes + s->d->segment[first] * TS_CUDA_SHAPES, *oldest = all;
    *known = true;
    for (ts_cuda_shape *g = all; g < all + TS_CUDA_SHAPES; g++) {
        if (g->used && g->m == b->m && g->m_out == b->m_out && g->logits_row == b->logits_row &&
            g->spans == (b->spans != NULL) && g->alone == s->alone)
            return g;
        if (g->used < oldest->used)
            oldest = g;
    }
    ts_rt_graph_close(oldest->graph);
    *oldest = (ts_cuda_shape){.m = b->m,
                              .m_out = b->m_out,
                              .logits_row = b->logits_row,
                              .spans = b->spans != NULL,
                              .alone = s->alone};
    *known = false;
    return oldest;
}

static void refuse(ts_state *s, ts_cuda_shape *g, int e)
{
    ts_rt_graph_close(g->graph);
    g->graph = NULL;
    g->refused = true;
    ts_logf(&s->d->log, TS_LOG_DEBUG, "%s: a step of %lld tokens is no graph: %s", s->d->at->name,
            (long long)g->m, ts_rt_text(e));
}

/* Is it a whole segment? Graphs are of no others. */
static bool whole(const ts_steps *s, size_t first, size_t end)
{
    const ts_step *before = first ? &s->v[first - 1] : NULL;
    return ts_steps_segment(s, first) == end &&
           (!before || before->op == TS_OP_COPY || before->device != s->v[first].device);
}

/* Steps first..end-1 as a graph; of spans, which are a token each. False: nothing was done. */
static bool replay(ts_state *s, const ts_batch *b, size_t first, size_t end)
{
    ts_device *d = s->d;
    bool known;
    size_t last = first;
    const ts_steps *list = &d->plan->steps;
    if (d->plain || s->stats || b->m > TS_CUDA_FEW || (first >= list->n_main && !s->alone) ||
        (b->spans && b->n_spans != b->m) || !whole(list, first, end))
        return false;
    ts_cuda_shape *g = find_shape(s, b, first, &known);
    g->used = ++s->runs;
    if (!known || g->refused)
        return false;
    if (!g->graph) {
        int e = ts_rt_record(d->stream);
        if (!e) {
            const int failed = steps(s, b, first, end, &last);
            e = ts_rt_record_end(&g->graph, d->stream);
            e = failed ? failed : e;
        }
        if (e) {
            refuse(s, g, e);
            return false;
        }
    }
    const int e = ts_rt_graph_launch(g->graph, d->stream);
    if (e)
        refuse(s, g, e);
    return !e;
}

/* Without spans they are a few numbers, which a batch's segments share. */
static int set_sizes(ts_state *s, const ts_batch *b)
{
    const ts_cuda_batch now = {(int32_t)b->m, (int32_t)b->m_out, (int32_t)b->pos0, 0};
    s->serial = 0;
    if (memcmp(&now, &s->there, sizeof now) == 0)
        return 0;
    const int e = ts_cuda_set_batch(s->batch, now.m, now.m_out, now.pos0, s->d->stream);
    s->there = e ? (ts_cuda_batch){0} : now;
    return e;
}

/* Queues what this batch brings: once, for all its segments. */
static int set_batch(ts_state *s, const ts_batch *b)
{
    ts_cuda_spans *x = &s->spans;
    s->now = b->spans ? x : NULL;
    if (b->spans && s->serial == b->serial)
        return 0;
    if (!b->spans)
        return set_sizes(s, b);
    s->serial = 0;
    s->there.m = 0;
    ts_cuda_spans_begin(x, b->m, b->out, b->m_out);
    for (int64_t i = 0; i < b->n_spans; i++) {
        const ts_rows *r = &b->spans[i];
        ts_cuda_spans_add(x, r->r0, r->m, r->pos0, r->map);
    }
    ts_cuda_spans_end(x);
    const int e = ts_cuda_send(s->d, (float *)s->batch, (const float *)x->host, (size_t)x->used);
    s->serial = e ? 0 : b->serial;
    return e;
}

ts_status ts_cuda_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err)
{
    ts_device *d = s->d;
    size_t last = first;
    pthread_mutex_lock(&d->lock);
    int e = ts_rt_use(d->at->ordinal);
    if (!e)
        e = set_batch(s, b);
    if (!e && !replay(s, b, first, end))
        e = steps(s, b, first, end, &last);
    pthread_mutex_unlock(&d->lock);
    return e ? ts_cuda_failed(d, e, ts_op_name(d->plan->steps.v[last].op), err) : TS_OK;
}

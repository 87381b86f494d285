/* step.c - builds the step list and finds where threads have to meet. */
#include "plan/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/route.h"

#define MAX_BUFS 128

struct ts_builder {
    const ts_model *m;
    ts_steps *s;
    ts_domain domain;
    int layer, device; /* of the steps that follow */
    int kv_device;     /* of the layer's K, V and attention */
    bool home;         /* experts that follow are computed where they are kept */
    bool failed;
    /* For each buffer of prepared activations: which buffer it was made from, and that buffer's
     * version then. A version counts a buffer's writes. */
    ts_buf prep_of[MAX_BUFS];
    int prep_version[MAX_BUFS];
    ts_buf like[MAX_BUFS]; /* ... and the buffer that serves instead where formats agree */
    int version[MAX_BUFS];
    bool by_row[MAX_BUFS];    /* how the buffer was last written */
    uint32_t valid[MAX_BUFS]; /* bit i: device i has what was last written */
};

static const char *const op_names[TS_OP_COUNT] = {
    "embed", "angles", "norm",   "center",  "prep",    "matmul",  "glu",    "bias",    "rope",
    "store", "attend", "add",    "silu",    "gelu",    "clamped", "select", "softcap", "gate",
    "route", "group",  "gather", "experts", "combine", "share",   "heads",  "copy",
};

const char *ts_op_name(ts_op op)
{
    return op_names[op];
}

/* --- the builder ---------------------------------------------------------- */

static ts_buf new_buf(ts_builder *b, ts_buffer buf)
{
    ts_steps *s = b->s;
    for (size_t i = 0; i < s->n_bufs; i++)
        if (strcmp(s->bufs[i].name, buf.name) == 0 && s->bufs[i].domain == buf.domain &&
            s->bufs[i].prep == buf.prep && s->bufs[i].pairs == buf.pairs) {
            if (buf.k > s->bufs[i].k)
                s->bufs[i].k = buf.k;
            if (buf.width > s->bufs[i].width)
                s->bufs[i].width = buf.width;
            return (ts_buf)i;
        }
    if (s->n_bufs == MAX_BUFS) {
        b->failed = true;
        return 0;
    }
    s->bufs[s->n_bufs] = buf;
    b->prep_of[s->n_bufs] = b->like[s->n_bufs] = TS_NO_BUF;
    return (ts_buf)s->n_bufs++;
}

ts_buf ts_build_buf(ts_builder *b, const char *name, int64_t width)
{
    return new_buf(b, (ts_buffer){.name = name, .domain = b->domain, .width = width});
}

/* What a step does to a buffer. The KV cache counts as buffer MAX_BUFS. */
static bool reads(const ts_step *s, ts_buf x)
{
    /* b is written */
    const bool second = s->op == TS_OP_GLU || s->op == TS_OP_EXPERTS || s->op == TS_OP_SHARE;
    /* c is each thread's own, and made anew on every device */
    return s->a == x || (s->b == x && !second) || (s->like == x && s->op != TS_OP_PREP) ||
           (x == MAX_BUFS && s->op == TS_OP_ATTEND) ||
           ((s->op == TS_OP_ROPE || s->op == TS_OP_GATE) && s->dst == x);
}

static bool writes(const ts_step *s, ts_buf x)
{
    return s->dst == x || (x == MAX_BUFS && s->op == TS_OP_STORE) ||
           ((s->op == TS_OP_GLU || s->op == TS_OP_EXPERTS || s->op == TS_OP_SHARE) && s->b == x);
}

static void append(ts_builder *b, ts_step step)
{
    ts_steps *s = b->s;
    if (b->failed)
        return;
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        ts_step *v = realloc(s->v, cap * sizeof *v);
        if (!v) {
            b->failed = true;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = step;
}

/* Makes device `to` have what was last written to x. Between two that aren't the CPU it goes by way
 * of the CPU. */
static void bring(ts_builder *b, ts_buf x, int to)
{
    if (!b->valid[x] || b->valid[x] >> to & 1)
        return;
    int from = 0;
    while (!(b->valid[x] >> from & 1))
        from++;
    if (from && to) {
        bring(b, x, 0);
        from = 0;
    }
    ts_buffer *buf = &b->s->bufs[x];
    append(b, (ts_step){.op = TS_OP_COPY,
                        .domain = buf->domain,
                        .layer = b->layer,
                        .device = to,
                        .from = from,
                        .dst = x,
                        .a = x,
                        .b = TS_NO_BUF,
                        .c = TS_NO_BUF,
                        .like = TS_NO_BUF,
                        .d = buf->width});
    buf->devices |= 1u << to;
    b->valid[x] |= 1u << to;
    b->by_row[x] = false;
}

/* Appends a step of this device with the builder's layer and domain, after copies of what it reads
 * from others; its buffers are in the template. */
static void push_on(ts_builder *b, int device, ts_step step)
{
    ts_steps *s = b->s;
    if (b->failed)
        return;
    step.layer = b->layer;
    step.domain = b->domain;
    step.device = device;
    if (step.op != TS_OP_PREP && step.op != TS_OP_MATMUL && step.op != TS_OP_GLU)
        step.like = TS_NO_BUF;
    if (step.op != TS_OP_GATHER && step.op != TS_OP_EXPERTS && step.op != TS_OP_COMBINE)
        step.c = TS_NO_BUF;
    for (ts_buf x = 0; x < (ts_buf)s->n_bufs; x++)
        if (reads(&step, x))
            bring(b, x, device);
    append(b, step);
    for (ts_buf x = 0; x < (ts_buf)s->n_bufs; x++) {
        if (reads(&step, x) || writes(&step, x))
            s->bufs[x].devices |= 1u << device;
        if (!writes(&step, x))
            continue;
        b->version[x]++;
        b->by_row[x] = step.by_row;
        /* angles are the same wherever they are computed */
        const bool same = step.op == TS_OP_ANGLES || step.op == TS_OP_GROUP;
        b->valid[x] = (same ? b->valid[x] : 0) | 1u << device;
    }
}

static void push(ts_builder *b, ts_step step)
{
    push_on(b, b->device, step);
}

static int64_t width(const ts_builder *b, ts_buf x)
{
    return b->s->bufs[x].width;
}

void ts_build_layer(ts_builder *b, int64_t layer)
{
    b->layer = (int)layer;
    if (layer >= 0) {
        b->device = b->m->layers[layer].device;
        b->kv_device = b->m->layers[layer].kv_device;
    }
}

/* Where something is done to x in place. K, V and attention may be elsewhere than the rest of a
 * block: what lies there alone isn't brought back for it. */
static int at(const ts_builder *b, ts_buf x)
{
    const bool here = b->valid[x] >> b->device & 1;
    return !here && b->valid[x] >> b->kv_device & 1 ? b->kv_device : b->device;
}

void ts_build_embed(ts_builder *b, ts_buf dst, const ts_weight *w, float scale)
{
    push_on(b, 0,
            (ts_step){.op = TS_OP_EMBED,
                      .by_row = true,
                      .dst = dst,
                      .a = TS_NO_BUF,
                      .b = TS_NO_BUF,
                      .d = w->k,
                      .w = w,
                      .f = scale});
}

/* Each of n_heads heads; a LayerNorm (arXiv:1607.06450) is the RMSNorm of what its mean was taken
 * from. */
static void norm(ts_builder *b, int device, ts_buf dst, ts_buf a, int64_t n_heads, const float *vec,
                 bool each)
{
    ts_step st = {.op = TS_OP_CENTER,
                  .by_row = true,
                  .dst = dst,
                  .a = a,
                  .b = TS_NO_BUF,
                  .d = width(b, a),
                  .n_heads = n_heads};
    if (b->m->hp.layer_norm) {
        push_on(b, device, st);
        st.a = dst;
    }
    st.op = TS_OP_NORM;
    st.vec = vec;
    st.each = each;
    push_on(b, device, st);
}

void ts_build_norm(ts_builder *b, ts_buf dst, ts_buf a, const float *vec)
{
    norm(b, b->device, dst, a, 1, vec, false);
}

void ts_build_head_norm(ts_builder *b, ts_buf x, int64_t n_heads, const float *vec)
{
    if (vec)
        norm(b, at(b, x), x, x, n_heads, vec, false);
}

void ts_build_each_head_norm(ts_builder *b, ts_buf x, int64_t n_heads, const float *vec)
{
    if (vec)
        norm(b, at(b, x), x, x, n_heads, vec, true);
}

/* Does x hold activations made of what `a` has now? */
static bool prepared(const ts_builder *b, ts_buf x, ts_buf a, int device)
{
    return b->prep_of[x] == a && b->prep_version[x] == b->version[a] && b->valid[x] >> device & 1;
}

/* The activations of `a` as w's kernels read them: made once for all products that share them. By
 * row after a step by row, which it need not wait for. Else the threads meet anyway, and then rows
 * may be cut: of few rows every thread gets a part. */
static ts_buf prepare(ts_builder *b, ts_buf a, const ts_weight *w)
{
    const ts_prep *p = w->kset->prep;
    ts_buf dst =
        new_buf(b, (ts_buffer){.name = "activations", .domain = b->domain, .prep = p, .k = w->k});
    if (b->failed || (prepared(b, dst, a, w->device) &&
                      (b->like[dst] == TS_NO_BUF || prepared(b, b->like[dst], a, w->device))))
        return dst;
    bring(b, a, w->device);
    ts_steps *s = b->s;
    b->like[dst] = TS_NO_BUF;
    for (ts_buf i = 0; i < (ts_buf)s->n_bufs; i++) {
        const ts_buffer *o = &s->bufs[i];
        if (i != dst && o->prep && p->family && o->prep->family == p->family &&
            o->domain == b->domain && b->like[i] == TS_NO_BUF && prepared(b, i, a, w->device))
            b->like[dst] = i;
    }
    push_on(b, w->device,
            (ts_step){.op = TS_OP_PREP,
                      .by_row = b->by_row[a],
                      .dst = dst,
                      .a = a,
                      .b = TS_NO_BUF,
                      .like = b->like[dst],
                      .d = w->k,
                      .kset = w->kset});
    b->prep_of[dst] = a;
    b->prep_version[dst] = b->version[a];
    if (p->m_group > s->row_group ||
        (p->m_group > 1 && p->m_group == s->row_group && p->group_from < s->group_from)) {
        s->row_group = p->m_group;
        s->group_from = p->group_from;
    }
    return dst;
}

static void product(ts_builder *b, ts_buf dst, ts_buf a, const ts_weight *w, ts_buf add)
{
    ts_buf act = prepare(b, a, w);
    push_on(b, w->device,
            (ts_step){.op = TS_OP_MATMUL,
                      .dst = dst,
                      .a = act,
                      .b = add,
                      .like = b->failed ? TS_NO_BUF : b->like[act],
                      .d = w->n,
                      .w = w,
                      .kset = w->kset});
}

void ts_build_matmul(ts_builder *b, ts_buf dst, ts_buf a, const ts_weight *w)
{
    product(b, dst, a, w, TS_NO_BUF);
}

void ts_build_matmul_add(ts_builder *b, ts_buf x, ts_buf a, const ts_weight *w)
{
    product(b, x, a, w, x);
}

void ts_build_bias(ts_builder *b, ts_buf x, const float *vec)
{
    if (vec)
        push_on(b, at(b, x),
                (ts_step){.op = TS_OP_BIAS,
                          .by_row = true,
                          .dst = x,
                          .a = x,
                          .b = TS_NO_BUF,
                          .d = width(b, x),
                          .vec = vec});
}

static void rope(ts_builder *b, ts_buf x, int64_t n_heads, int64_t skip, const ts_rope *r,
                 int device)
{
    const char *name = r == &b->m->rope ? "angles" : "angles (sliding)";
    ts_buf cs = TS_NO_BUF;
    for (size_t i = 0; i < b->s->n_bufs; i++)
        if (strcmp(b->s->bufs[i].name, name) == 0)
            cs = (ts_buf)i;
    if (cs == TS_NO_BUF || !(b->valid[cs] >> device & 1)) { /* once for all layers of a device */
        cs = ts_build_buf(b, name, r->n_rot);
        push_on(b, device,
                (ts_step){.op = TS_OP_ANGLES,
                          .by_row = true,
                          .dst = cs,
                          .a = TS_NO_BUF,
                          .b = TS_NO_BUF,
                          .d = r->n_rot,
                          .rope = r});
    }
    push_on(b, device,
            (ts_step){.op = TS_OP_ROPE,
                      .by_row = true,
                      .dst = x,
                      .a = cs,
                      .b = TS_NO_BUF,
                      .d = width(b, x),
                      .n_heads = n_heads,
                      .skip = skip,
                      .rope = r});
}

void ts_build_rope(ts_builder *b, ts_buf x, int64_t n_heads, const ts_rope *r)
{
    rope(b, x, n_heads, 0, r, at(b, x));
}

void ts_build_store(ts_builder *b, ts_buf k, ts_buf v)
{
    push_on(
        b, b->kv_device,
        (ts_step){
            .op = TS_OP_STORE, .by_row = true, .dst = TS_NO_BUF, .a = k, .b = v, .d = width(b, k)});
}

void ts_build_attend_sinks(ts_builder *b, ts_buf dst, ts_buf q, int64_t window, int64_t n_heads,
                           const float *sinks)
{
    push_on(b, b->kv_device,
            (ts_step){.op = TS_OP_ATTEND,
                      .dst = dst,
                      .a = q,
                      .b = TS_NO_BUF,
                      .d = width(b, dst),
                      .n_heads = n_heads,
                      .vec = sinks,
                      .window = window});
}

void ts_build_attend(ts_builder *b, ts_buf dst, ts_buf q, int64_t window)
{
    ts_build_attend_sinks(b, dst, q, window, b->m->hp.n_head, NULL);
}

void ts_build_latent_norm(ts_builder *b, ts_buf x, int64_t d, const float *vec)
{
    push_on(b, b->kv_device,
            (ts_step){.op = TS_OP_NORM,
                      .by_row = true,
                      .dst = x,
                      .a = x,
                      .b = TS_NO_BUF,
                      .d = d,
                      .n_heads = 1,
                      .vec = vec});
}

void ts_build_latent_rope(ts_builder *b, ts_buf x, int64_t n_heads, int64_t skip, const ts_rope *r)
{
    rope(b, x, n_heads, skip, r, b->kv_device);
}

void ts_build_heads(ts_builder *b, ts_buf dst, ts_buf a, const ts_weight *w)
{
    push_on(b, w->device,
            (ts_step){.op = TS_OP_HEADS,
                      .dst = dst,
                      .a = a,
                      .b = TS_NO_BUF,
                      .d = width(b, dst),
                      .n_heads = w->e,
                      .w = w,
                      .kset = w->kset});
}

static void binary(ts_builder *b, ts_op op, ts_buf dst, ts_buf x, ts_buf y)
{
    push(b, (ts_step){.op = op, .by_row = true, .dst = dst, .a = x, .b = y, .d = width(b, x)});
}

void ts_build_add(ts_builder *b, ts_buf dst, ts_buf x, ts_buf y)
{
    binary(b, TS_OP_ADD, dst, x, y);
}

/* The two products and what is made of them are one step where both weights read the same
 * activations: a thread finishes a piece of both while it is in its cache, and nobody waits in
 * between. */
void ts_build_glu(ts_builder *b, ts_op act, ts_buf dst, ts_buf second, ts_buf a,
                  const ts_weight *gate, const ts_weight *up, const float *b_gate,
                  const float *b_up)
{
    if (b_gate || b_up || gate->kset != up->kset || gate->n != up->n ||
        gate->device != up->device) {
        ts_build_matmul(b, dst, a, gate);
        ts_build_matmul(b, second, a, up);
        ts_build_bias(b, dst, b_gate);
        ts_build_bias(b, second, b_up);
        binary(b, act, dst, dst, second);
        return;
    }
    ts_buf x = prepare(b, a, gate);
    push_on(b, gate->device,
            (ts_step){.op = TS_OP_GLU,
                      .act = act,
                      .dst = dst,
                      .a = x,
                      .b = second,
                      .like = b->failed ? TS_NO_BUF : b->like[x],
                      .d = gate->n,
                      .w = gate,
                      .w2 = up,
                      .kset = gate->kset});
}

/* --- experts -------------------------------------------------------------- */

/* Where experts are computed, and by what. */
static int device_of(const ts_builder *b, const ts_weight *w)
{
    return b->home && w->home ? 0 : w->device;
}

static const ts_kset *kset_of(const ts_builder *b, const ts_weight *w)
{
    return b->home && w->home ? w->home : w->kset;
}

/* What GROUP made of another choice is of no use. */
static void forget_groups(ts_builder *b)
{
    for (size_t i = 0; i < b->s->n_bufs; i++)
        if (strcmp(b->s->bufs[i].name, "groups") == 0)
            b->valid[i] = 0;
}

/* What GROUP makes of this layer's choice, on a device. */
static ts_buf grouped(ts_builder *b, ts_buf chosen, int device)
{
    const ts_moe *e = &b->m->hp.moe;
    ts_buf dst = new_buf(b, (ts_buffer){.name = "groups",
                                        .domain = b->domain,
                                        .width = ts_groups_row(e),
                                        .fixed = ts_groups_fixed(e),
                                        .each = true});
    if (!(b->valid[dst] >> device & 1))
        push_on(
            b, device,
            (ts_step){.op = TS_OP_GROUP, .dst = dst, .a = chosen, .b = TS_NO_BUF, .d = e->n_used});
    return dst;
}

/* Rows of a, each expert's together, as w's kernels read them. */
static ts_buf gather(ts_builder *b, ts_buf a, ts_buf chosen, const ts_weight *w, bool of_pairs)
{
    const ts_prep *p = kset_of(b, w)->prep;
    const int device = device_of(b, w);
    ts_buf groups = grouped(b, chosen, device);
    ts_buf dst = new_buf(b, (ts_buffer){.name = of_pairs ? "pairs" : "tokens",
                                        .domain = b->domain,
                                        .prep = p,
                                        .k = w->k,
                                        .pairs = true,
                                        .of_pairs = of_pairs});
    if (b->failed || prepared(b, dst, a, device))
        return dst;
    push_on(b, device,
            (ts_step){.op = TS_OP_GATHER,
                      .dst = dst,
                      .a = a,
                      .b = TS_NO_BUF,
                      .c = groups,
                      .of_pairs = of_pairs,
                      .d = w->k,
                      .kset = kset_of(b, w)});
    b->prep_of[dst] = a;
    b->prep_version[dst] = b->version[a];
    return dst;
}

/* second: TS_NO_BUF, or a buffer for the products of w2. */
static void expert_products(ts_builder *b, ts_op act, ts_buf dst, ts_buf second, ts_buf a,
                            ts_buf chosen, const ts_weight *w, const ts_weight *w2,
                            const float *bias, const float *bias2, bool of_pairs)
{
    ts_buf x = gather(b, a, chosen, w, of_pairs), groups = grouped(b, chosen, device_of(b, w));
    push_on(b, device_of(b, w),
            (ts_step){.op = TS_OP_EXPERTS,
                      .act = act,
                      .dst = dst,
                      .a = x,
                      .b = second,
                      .c = groups,
                      .d = w->n,
                      .w = w,
                      .w2 = w2,
                      .bias = bias,
                      .bias2 = bias2,
                      .kset = kset_of(b, w)});
}

/* What the chosen ones make of xn, for each pair: returns the buffer. */
static ts_buf routed(ts_builder *b, ts_op act, ts_buf xn, ts_buf chosen, const ts_layer *l)
{
    const ts_moe *e = &b->m->hp.moe;
    ts_buf g = ts_build_buf(b, "experts", e->n_used * e->n_ff);
    ts_buf u = ts_build_buf(b, "experts' up", e->n_used * e->n_ff);
    ts_buf y = ts_build_buf(b, "experts' down", e->n_used * b->m->hp.n_embd);
    if (b->failed)
        return y;
    forget_groups(b);
    if (kset_of(b, l->gate_exps) == kset_of(b, l->up_exps) &&
        device_of(b, l->gate_exps) == device_of(b, l->up_exps)) {
        expert_products(b, act, g, u, xn, chosen, l->gate_exps, l->up_exps, l->b_gate_exps,
                        l->b_up_exps, false);
    } else {
        expert_products(b, act, g, TS_NO_BUF, xn, chosen, l->gate_exps, NULL, l->b_gate_exps, NULL,
                        false);
        expert_products(b, act, u, TS_NO_BUF, xn, chosen, l->up_exps, NULL, l->b_up_exps, NULL,
                        false);
        push_on(b, device_of(b, l->gate_exps),
                (ts_step){.op = act, .by_row = true, .dst = g, .a = g, .b = u, .d = width(b, g)});
    }
    expert_products(b, act, y, TS_NO_BUF, g, chosen, l->down_exps, NULL, l->b_down_exps, NULL,
                    true);
    return y;
}

/* x = x + the weighted sums of y. */
static void combine(ts_builder *b, ts_buf x, ts_buf y, ts_buf chosen, int device)
{
    const int64_t d = b->m->hp.n_embd;
    ts_buf groups = grouped(b, chosen, device);
    const bool here = b->valid[x] >> device & 1;
    ts_buf sum = here ? x : ts_build_buf(b, "experts' sum", d);
    push_on(b, device,
            (ts_step){.op = TS_OP_COMBINE,
                      .dst = sum,
                      .a = y,
                      .b = here ? x : TS_NO_BUF,
                      .c = groups,
                      .d = d});
    if (!here)
        ts_build_add(b, x, x, sum);
}

/* x = x + the expert that every token has, of xn, times its gate where it has one. */
static void shared_expert(ts_builder *b, ts_op act, ts_buf x, ts_buf xn, const ts_layer *l)
{
    ts_buf g = ts_build_buf(b, "shared gate", l->gate->n);
    ts_buf u = ts_build_buf(b, "shared up", l->up->n);
    ts_build_glu(b, act, g, u, xn, l->gate, l->up, NULL, NULL);
    if (!l->shared_gate) {
        ts_build_matmul_add(b, x, g, l->down);
        return;
    }
    ts_buf y = ts_build_buf(b, "shared down", l->down->n);
    ts_build_matmul(b, y, g, l->down);
    push(b, (ts_step){.op = TS_OP_GATE,
                      .by_row = true,
                      .dst = x,
                      .a = xn,
                      .b = y,
                      .d = l->down->n,
                      .vec = l->shared_gate});
}

/* The stream device and the CPU have some of the experts each, as SHARE decides. What the CPU wants
 * is copied before the device is given its work, which it does while the CPU has the others. */
static void share(ts_builder *b, ts_op act, ts_buf x, ts_buf xn, ts_buf chosen, const ts_layer *l)
{
    const int64_t row = 2 * b->m->hp.moe.n_used;
    ts_buf here = ts_build_buf(b, "chosen here", row), there = ts_build_buf(b, "chosen there", row);
    if (b->failed)
        return;
    b->s->bufs[here].choice = b->s->bufs[there].choice = true;
    push_on(b, 0, (ts_step){.op = TS_OP_SHARE, .dst = here, .a = chosen, .b = there, .d = row});
    bring(b, xn, 0);
    if (l->gate)
        shared_expert(b, act, x, xn, l);
    combine(b, x, routed(b, act, xn, there, l), there, l->down_exps->device);
    b->home = true;
    combine(b, x, routed(b, act, xn, here, l), here, 0);
    b->home = false;
}

void ts_build_experts(ts_builder *b, ts_buf x, ts_buf xn, const ts_layer *l, ts_op act)
{
    const ts_moe *e = &b->m->hp.moe;
    const bool shares = l->gate_exps->home; /* and so have the others */
    ts_buf logits = ts_build_buf(b, "router", e->n_expert);
    ts_buf chosen = ts_build_buf(b, "chosen", 2 * e->n_used);
    if (b->failed)
        return;
    ts_build_matmul(b, logits, xn, l->router);
    ts_build_bias(b, logits, l->router_bias);
    if (l->gate && !shares) {
        bring(b, logits, l->gate_exps->device);
        bring(b, xn, l->gate_exps->device);
        bring(b, xn, l->up_exps->device);
        shared_expert(b, act, x, xn, l);
    }
    push_on(b, l->gate_exps->device,
            (ts_step){.op = TS_OP_ROUTE,
                      .by_row = true,
                      .dst = chosen,
                      .a = logits,
                      .b = TS_NO_BUF,
                      .d = 2 * e->n_used,
                      .w = l->router,
                      .vec = l->choice_bias});
    if (shares)
        share(b, act, x, xn, chosen, l);
    else
        combine(b, x, routed(b, act, xn, chosen, l), chosen, l->down_exps->device);
}

ts_buf ts_build_select(ts_builder *b, ts_buf x)
{
    b->domain = TS_OUT_ROWS;
    ts_buf dst = ts_build_buf(b, b->s->bufs[x].name, width(b, x));
    push_on(b, at(b, x),
            (ts_step){.op = TS_OP_SELECT, .dst = dst, .a = x, .b = TS_NO_BUF, .d = width(b, x)});
    return dst;
}

void ts_build_logits(ts_builder *b, ts_buf x)
{
    const ts_model *m = b->m;
    ts_build_layer(b, -1);
    b->device = m->output->device;
    ts_build_norm(b, x, x, m->output_norm);
    b->s->hidden = x;
    b->s->logits = ts_build_buf(b, "logits", m->hp.n_vocab);
    ts_build_matmul(b, b->s->logits, x, m->output);
    if (m->hp.logit_softcap > 0)
        push(b, (ts_step){.op = TS_OP_SOFTCAP,
                          .by_row = true,
                          .dst = b->s->logits,
                          .a = b->s->logits,
                          .b = TS_NO_BUF,
                          .d = m->hp.n_vocab,
                          .f = m->hp.logit_softcap});
    b->s->bufs[b->s->logits].devices |= 1; /* the session's */
    bring(b, b->s->logits, 0);
}

/* --- barriers ------------------------------------------------------------- */

/* Two steps without a barrier between them must not touch the same data on different threads. By
 * row over the same domain, every thread meets only its own rows again. */
static bool conflict(const ts_step *p, const ts_step *q)
{
    if (p->by_row && q->by_row && p->domain == q->domain)
        return false;
    for (ts_buf x = 0; x <= MAX_BUFS; x++)
        if ((writes(p, x) && (reads(q, x) || writes(q, x))) || (reads(p, x) && writes(q, x)))
            return true;
    return false;
}

size_t ts_steps_segment(const ts_steps *s, size_t i)
{
    if (s->v[i].op == TS_OP_COPY || s->v[i].op == TS_OP_SHARE)
        return i + 1;
    int device = s->v[i].device;
    const size_t end = i < s->n_main ? s->n_main : s->n;
    while (i < end && s->v[i].op != TS_OP_COPY && s->v[i].op != TS_OP_SHARE &&
           s->v[i].device == device)
        i++;
    return i;
}

/* Segments begin with all threads met. */
static void find_barriers(ts_steps *s)
{
    size_t last = 0, end = 0; /* first step since the last barrier; end of the segment */
    for (size_t i = 0; i < s->n; i++) {
        if (i == end) {
            last = i;
            end = ts_steps_segment(s, i);
        }
        for (size_t j = last; j < i; j++)
            if (conflict(&s->v[j], &s->v[i])) {
                s->v[i].barrier = true;
                last = i;
                break;
            }
    }
}

ts_status ts_steps_make(ts_steps *out, const ts_model *m, ts_error *err)
{
    *out = (ts_steps){.row_group = 1};
    ts_builder b = {.m = m, .s = out, .layer = -1};
    out->bufs = ts_calloc(MAX_BUFS, sizeof *out->bufs);
    if (!out->bufs)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    m->arch->build(&b, m);
    if (b.failed) {
        ts_steps_free(out);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    }
    out->n_main = out->n;
    find_barriers(out);
    return TS_OK;
}

ts_status ts_steps_stream(ts_steps *s, const ts_model *m, ts_error *err)
{
    ts_builder b = {.m = m, .s = s, .layer = -1};
    for (size_t i = 0; i < MAX_BUFS; i++)
        b.prep_of[i] = b.like[i] = TS_NO_BUF;
    m->arch->build(&b, m);
    if (b.failed)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    find_barriers(s);
    return TS_OK;
}

void ts_steps_free(ts_steps *s)
{
    free(s->v);
    free(s->bufs);
    *s = (ts_steps){0};
}

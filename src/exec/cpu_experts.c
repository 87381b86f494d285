/* cpu_experts.c - mixtures of experts on the CPU: each active expert's product is one of its own
 * number of tokens, and the threads share all of them at once. */
#include <string.h>

#include "cpu/route.h"
#include "exec/cpu.h"

/* Tokens that are prepared together, and elements of a row that a thread prepares at least; floats
 * of a cache line, and of a row that are added up at once. */
enum { TOKENS = 16, PART = 256, LINE = 16, SUMS = 1024 };

static const ts_moe *moe(const ts_state *s)
{
    return &s->d->m->hp.moe;
}

static int64_t width(const ts_state *s, ts_buf b)
{
    return s->d->plan->steps.bufs[b].width;
}

/* Every thread has its own. */
static void *own(const ts_state *s, ts_buf b, int tid)
{
    const ts_device *d = s->d;
    const size_t all = ts_plan_buffer_bytes(d->plan, d->index, b);
    return s->bufs[b] + (size_t)tid * (all / (size_t)d->at->n_threads);
}

static ts_groups groups_of(const ts_state *s, ts_buf b, int64_t m, int tid)
{
    return ts_groups_at(own(s, b, tid), moe(s), m);
}

/* Experts have few tokens each: preparing 8-bit activations for tiles, which looks at all tokens
 * first, isn't worth it. */
static const ts_prep *prep_of(const ts_state *s, const ts_step *st, int64_t m)
{
    const ts_prep *eight = st->kset->prep_int8;
    return ts_plan_int8(s->d->plan, m) && !eight->all_from ? eight : st->kset->prep;
}

void ts_cpu_route(ts_state *s, const ts_step *st, int64_t m, int64_t r0, int64_t r1)
{
    const int64_t used = moe(s)->n_used;
    int32_t *id = (int32_t *)s->bufs[st->dst];
    float *weight = (float *)s->bufs[st->dst] + m * used;
    const ts_batch *b = s->batch;
    for (int64_t i = r0; i < r1; i++) {
        const float *logits = ts_cpu_row(s, st->a, i);
        ts_route(moe(s), logits, st->vec, id + i * used, weight + i * used);
        if (b->routing)
            ts_route_kept(moe(s), b->routing, st->layer,
                          ts_batch_pos(b, st->domain == TS_OUT_ROWS ? ts_batch_out(b, i) : i),
                          logits, id + i * used, weight + i * used);
    }
}

void ts_cpu_group(ts_state *s, const ts_step *st, int64_t m, int tid)
{
    ts_group(moe(s), own(s, st->dst, tid), s->bufs[st->a], m);
}

/* --- activations ------------------------------------------------------------- */

/* Elements k0..k1 of tokens t0..t1 of the n tokens whose rows are rows[pair[..] / used]. */
static void gather_part(ts_state *s, const ts_step *st, const ts_prep *p, uint8_t *dst,
                        const int32_t *pair, int64_t n, int64_t t0, int64_t t1, int64_t k0,
                        int64_t k1, int tid)
{
    const int64_t used = moe(s)->n_used;
    float *room = (float *)(s->scratch + (size_t)tid * s->scratch_bytes);
    for (int64_t k = k0; k < k1; k += TS_GATHER_K) {
        const int64_t end = k + TS_GATHER_K < k1 ? k + TS_GATHER_K : k1;
        for (int64_t t = t0; t < t1; t++)
            memcpy(room + (t - t0) * TS_GATHER_K, ts_cpu_row(s, st->a, pair[t] / used) + k,
                   (size_t)(end - k) * sizeof *room);
        /* as if these were the rows of a whole matrix */
        const uintptr_t x =
            (uintptr_t)room - (uintptr_t)((t0 * TS_GATHER_K + k) * (int64_t)sizeof *room);
        p->run(dst, (const float *)x, TS_GATHER_K, n, st->d, t0, t1, k, end);
    }
}

/* What is prepared is cut into units: the tokens that are alone, then for each expert that has more
 * sixteen at a time; each by parts along k where there are too few. */
typedef struct units {
    const ts_prep *p;
    ts_groups g;
    int64_t m, n_units, part, parts;
    bool singles; /* of tokens alone with an expert the rows are shared by these experts */
} units;

static units units_of(const ts_state *s, const ts_step *st, int64_t m, int tid, int n)
{
    units u = {.p = prep_of(s, st, m), .g = groups_of(s, st->c, m, tid), .m = m};
    u.singles = !st->of_pairs;
    u.n_units = u.singles ? *u.g.n_single : 0;
    for (int32_t i = 0; i < *u.g.n_active; i++) {
        const int32_t have = u.g.active[i].n;
        u.n_units += u.singles && have == 1 ? 0 : (have + TOKENS - 1) / TOKENS;
    }
    u.part = st->d;
    if (u.n_units == 0) /* no expert is this device's */
        return u;
    const int64_t most = (st->d + PART - 1) / PART, each = (2 * n + u.n_units - 1) / u.n_units;
    const int64_t parts = each < most ? each : most, of = u.p->k_group > PART ? u.p->k_group : PART;
    u.part = ((st->d + parts - 1) / parts + of - 1) / of * of;
    u.parts = (st->d + u.part - 1) / u.part;
    return u;
}

static void gather_unit(ts_state *s, const ts_step *st, const units *u, int64_t i, int64_t k0,
                        int64_t k1, int tid)
{
    const int64_t used = moe(s)->n_used, singles = u->singles ? *u->g.n_single : 0;
    uint8_t *dst = s->bufs[st->dst];
    if (i < singles) {
        const int64_t t = u->g.single[i];
        u->p->run(dst + (size_t)t * ts_pairs_single(u->p, st->d), ts_cpu_row(s, st->a, t), 0, 1,
                  st->d, 0, 1, k0, k1);
        return;
    }
    i -= singles;
    int64_t x = 0;
    for (;; x++) {
        const int32_t have = u->g.active[x].n;
        const int64_t here = u->singles && have == 1 ? 0 : (have + TOKENS - 1) / TOKENS;
        if (i < here)
            break;
        i -= here;
    }
    const ts_active *a = &u->g.active[x];
    const int64_t t0 = i * TOKENS, t1 = t0 + TOKENS < a->n ? t0 + TOKENS : a->n;
    dst += ts_pairs_at(u->p, st->d, u->m, a);
    if (!st->of_pairs) {
        gather_part(s, st, u->p, dst, u->g.pair + a->first, a->n, t0, t1, k0, k1, tid);
        return;
    }
    /* rows of pairs, `used` to a row of the buffer */
    const int64_t ldx = width(s, st->a) / used;
    u->p->run(dst, ts_cpu_row(s, st->a, 0) + a->first * ldx, ldx, a->n, st->d, t0, t1, k0, k1);
}

void ts_cpu_gather(ts_state *s, size_t step, int64_t m, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[step];
    if (m == TS_ALONE)
        return;
    const units u = units_of(s, st, m, tid, n);
    for (int64_t i; (i = ts_claim(&s->next[step])) < u.n_units * u.parts;) {
        const int64_t k0 = i % u.parts * u.part, k1 = k0 + u.part;
        gather_unit(s, st, &u, i / u.parts, k0, k1 < st->d ? k1 : st->d, tid);
    }
}

/* --- products ---------------------------------------------------------------- */

/* Rows of a chunk: of all experts' together there are a dozen for each thread, and of many tokens a
 * piece stays in a core's cache. */
static int64_t chunk_rows(const ts_kset *k, int64_t n, int64_t n_active, int64_t pairs, int threads)
{
    const int64_t unit = (32 + k->group - 1) / k->group * k->group;
    const int64_t most = pairs >= 8 * n_active ? 128 : 256;
    int64_t rows = n * n_active / (12 * threads);
    rows = rows > most ? most : rows;
    rows = rows / unit * unit;
    return rows > unit ? rows : unit;
}

typedef struct product {
    const ts_step *st;
    const ts_prep *p;
    ts_groups g;
    ts_mul mul, second;
    int64_t m, rows, chunks; /* of a chunk; of an expert                             */
    int64_t place;           /* of the chunk's first pair                            */
    bool of_pairs;
    const float *bias, *bias2; /* of the chunk's expert, or NULL */
} product;

/* Matrix i of a stack: where nothing is packed, it may be a tensor of its own. */
static const void *matrix(const ts_kset *k, const ts_weight *w, int64_t i)
{
    if (w->parts && !k->packed_bytes && w->data == w->source->data)
        return w->parts[i]->data;
    return ts_kset_stack_at(k, w->data, w->n, w->k, i);
}

/* Chunk c: false behind the last. */
static bool begin_chunk(const ts_state *s, product *u, int64_t c, int tid)
{
    const ts_step *st = u->st;
    const int64_t i = c / u->chunks, used = moe(s)->n_used, n = st->w->n, k = st->w->k;
    if (i >= *u->g.n_active)
        return false;
    const ts_active *a = &u->g.active[i];
    const int64_t ld = width(s, st->dst) / used;
    const uint8_t *x = s->bufs[st->a];
    if (u->m == TS_ALONE)
        u->mul.x = x + (size_t)tid * ts_pairs_single(u->p, k);
    else if (!u->of_pairs && a->n == 1)
        u->mul.x = x + (size_t)(u->g.pair[a->first] / used) * ts_pairs_single(u->p, k);
    else
        u->mul.x = x + ts_pairs_at(u->p, k, u->m, a);
    u->place = a->first;
    u->mul.w = matrix(st->kset, st->w, a->expert);
    u->mul.y = ts_cpu_row(s, st->dst, 0) + a->first * ld;
    u->mul.m = a->n;
    u->mul.n0 = c % u->chunks * u->rows;
    u->mul.n1 = u->mul.n0 + u->rows < n ? u->mul.n0 + u->rows : n;
    u->bias = st->bias ? st->bias + a->expert * n : NULL;
    u->bias2 = st->bias2 ? st->bias2 + a->expert * n : NULL;
    if (!st->w2)
        return true;
    u->second = u->mul;
    u->second.w = matrix(st->kset, st->w2, a->expert);
    u->second.y = ts_cpu_row(s, st->b, 0) + a->first * ld;
    return true;
}

/* The expert's bias to what its product made; vec may be NULL. */
static void add_bias(const ts_state *s, const ts_mul *p, const float *vec)
{
    for (int64_t t = 0; t < p->m && vec; t++) {
        float *y = p->y + t * p->ldy + p->n0;
        s->d->ops->add(y, y, vec + p->n0, p->n1 - p->n0);
    }
}

static void join(const ts_state *s, const product *u)
{
    const ts_mul *g = &u->mul, *v = &u->second;
    for (int64_t t = 0; t < g->m; t++) {
        float *y = g->y + t * g->ldy + g->n0;
        const float *up = v->y + t * v->ldy + g->n0;
        ts_cpu_act(s, u->st)(y, y, up, g->n1 - g->n0);
    }
}

/* The step that GATHER would have been: the rows that the activations a are made from. */
static const ts_step *gather_of(const ts_state *s, size_t step)
{
    const ts_step *v = s->d->plan->steps.v;
    const ts_buf x = v[step].a;
    while (v[step].op != TS_OP_GATHER || v[step].dst != x)
        step--;
    return &v[step];
}

static product product_of(const ts_state *s, const ts_step *st, int64_t m, int tid, int n)
{
    product u = {.st = st, .p = prep_of(s, st, m), .g = groups_of(s, st->c, m, tid), .m = m};
    u.of_pairs = s->d->plan->steps.bufs[st->a].of_pairs;
    u.rows = chunk_rows(st->kset, st->w->n, *u.g.n_active, m * moe(s)->n_used, n);
    u.chunks = (st->w->n + u.rows - 1) / u.rows;
    u.mul = (ts_mul){.limbs = u.p->limbs,
                     .n = st->w->n,
                     .k = st->w->k,
                     .ldy = width(s, st->dst) / moe(s)->n_used,
                     .scratch = s->scratch + (size_t)tid * s->scratch_bytes};
    return u;
}

/* Which experts these are is known before all threads have met: the first chunk of a few tokens is
 * fixed, so that a thread that waits can ask for it. */
static bool has_first(const ts_state *s, const ts_step *st, int64_t m)
{
    return m <= TS_CPU_FEW && s->d->plan->steps.bufs[st->a].of_pairs;
}

void ts_cpu_first_expert(const ts_state *s, size_t i, int64_t m, int tid, int n, ts_ahead ahead[2])
{
    const ts_step *st = &s->d->plan->steps.v[i];
    const ts_kset *k = st->kset;
    if (m == 0 || !has_first(s, st, m) || !k->packed_bytes)
        return;
    product u = product_of(s, st, m, tid, n);
    if (begin_chunk(s, &u, tid, tid))
        ahead[0] = (ts_ahead){(const char *)u.mul.w + k->packed_bytes(u.mul.n0, u.mul.k),
                              (const char *)u.mul.w + k->packed_bytes(u.mul.n1, u.mul.k)};
}

void ts_cpu_experts(ts_state *s, size_t step, int64_t m, int tid, int n)
{
    const ts_step *st = &s->d->plan->steps.v[step];
    product u = product_of(s, st, m, tid, n);
    const int fixed = has_first(s, st, m) ? n : 0;
    const ts_step *gather = m == TS_ALONE ? gather_of(s, step) : NULL;
    const int64_t ldx = gather ? width(s, gather->a) / moe(s)->n_used : 0;
    int64_t prepared = -1; /* of a lone token: which row */
    bool more = begin_chunk(s, &u, fixed ? tid : ts_claim(&s->next[step]), tid);
    while (more) {
        product next = u;
        more = begin_chunk(s, &next, fixed + ts_claim(&s->next[step]), tid);
        const int64_t x = u.of_pairs ? u.place : 0;
        if (gather && x != prepared)
            u.p->run((void *)(uintptr_t)u.mul.x, ts_cpu_row(s, gather->a, 0) + x * ldx, 0, 1,
                     u.mul.k, 0, 1, 0, u.mul.k);
        prepared = x;
        if (st->w2)
            ts_cpu_fetch(&u.second, st->kset, u.second.n0);
        else if (more)
            ts_cpu_fetch(&next.mul, st->kset, next.mul.n0);
        st->kset->mul(&u.mul);
        add_bias(s, &u.mul, u.bias);
        if (st->w2) {
            if (more)
                ts_cpu_fetch(&next.mul, st->kset, next.mul.n0);
            st->kset->mul(&u.second);
            add_bias(s, &u.second, u.bias2);
            join(s, &u);
        }
        u = next;
    }
}

/* Elements k0..k1 of token t; the sum is made before x is added, so that it may be made elsewhere.
 */
static void combine_part(ts_state *s, const ts_step *st, const ts_groups *g, int64_t t, int64_t k0,
                         int64_t k1)
{
    const ts_ops *ops = s->d->ops;
    const int64_t used = moe(s)->n_used, n = k1 - k0;
    const float *y = ts_cpu_row(s, st->a, 0) + k0;
    float sum[SUMS], *to = ts_cpu_row(s, st->dst, t) + k0;
    bool any = false;
    for (int64_t j = t * used; j < (t + 1) * used; j++) {
        if (g->place[j] < 0)
            continue;
        if (any)
            ops->mad(sum, y + g->place[j] * st->d, g->weight[j], n);
        else
            ops->scale(sum, y + g->place[j] * st->d, g->weight[j], n);
        any = true;
    }
    if (!any)
        memset(sum, 0, (size_t)n * sizeof *sum);
    if (st->b == TS_NO_BUF)
        memcpy(to, sum, (size_t)n * sizeof *to);
    else
        ops->add(to, ts_cpu_row(s, st->b, t) + k0, sum, n);
}

/* Each thread has as many lines of all rows: what the others have made of one token comes from
 * their caches a line at a time, which takes one thread longer than the threads take to meet. */
void ts_cpu_combine(ts_state *s, const ts_step *st, int64_t m, int tid, int n)
{
    const ts_groups g = groups_of(s, st->c, m, tid);
    const int64_t lines = (st->d + LINE - 1) / LINE, end = m * lines * (tid + 1) / n;
    for (int64_t i = m * lines * tid / n, next; i < end; i = next) {
        const int64_t t = i / lines, k0 = i % lines * LINE;
        next = i + SUMS / LINE;
        next = next < (t + 1) * lines ? next : (t + 1) * lines;
        next = next < end ? next : end;
        const int64_t k1 = k0 + (next - i) * LINE;
        combine_part(s, st, &g, t, k0, k1 < st->d ? k1 : st->d);
    }
}

/* --- statistics ---------------------------------------------------------------- */

ts_expert_work ts_cpu_expert_work(const ts_state *s, const ts_step *st, int64_t m)
{
    const ts_groups g = groups_of(s, st->c, m, 0);
    const bool int8 = prep_of(s, st, m) != st->kset->prep;
    ts_expert_work w = {.matrices = *g.n_active};
    for (int32_t i = 0; i < *g.n_active; i++) {
        w.rows += g.active[i].n;
        w.tile_rows += ts_kset_on_tiles(st->kset, int8, g.active[i].n) ? g.active[i].n : 0;
    }
    return w;
}

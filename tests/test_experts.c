/* test_experts.c - a router's choice against a plain sort, and the steps of a mixture of experts
 * with every kernel set against each token's own products. Buffers are poisoned, and of the size
 * that the plan gives them. */
#include <math.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/route.h"
#include "engine.h"
#include "exec/cpu.h"
#include "gguf/synth.h"
#include "kset_standins.h"

static uint64_t seed = 20261126;

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* --- routing ------------------------------------------------------------------ */

enum { MOST = 64 };

/* How many of the n scores stand before score i: larger ones, and equal ones in front of it. */
static int64_t rank(const float *score, int64_t n, int64_t i)
{
    int64_t before = 0;
    for (int64_t j = 0; j < n; j++)
        before += score[j] > score[i] || (score[j] == score[i] && j < i);
    return before;
}

/* The score of a group: its two best, or its only one. */
static float of_group(const float *score, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += rank(score, n, i) < 2 ? score[i] : 0;
    return sum;
}

static void plain_route(const ts_moe *e, const float *logits, const float *bias, int32_t *id,
                        double *weight)
{
    const int64_t n = e->n_expert, each = n / e->n_group;
    float score[MOST], group[MOST];
    double p[MOST], max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    for (int64_t i = 0; i < n; i++) {
        p[i] = e->gating == TS_GATING_SOFTMAX   ? exp(logits[i] - max) / sum
               : e->gating == TS_GATING_SIGMOID ? 1 / (1 + exp(-(double)logits[i]))
                                                : logits[i];
        score[i] = (float)p[i] + (bias ? bias[i] : 0);
    }
    for (int64_t g = 0; g < e->n_group; g++)
        group[g] = of_group(score + g * each, each);
    for (int64_t i = 0; i < n; i++)
        if (rank(group, e->n_group, i / each) >= e->n_group_used)
            score[i] = -INFINITY;
    sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (rank(score, n, i) < e->n_used) {
            id[rank(score, n, i)] = (int32_t)i;
            sum += e->gating == TS_GATING_CHOSEN ? exp(p[i]) : p[i];
        }
    for (int64_t j = 0; j < e->n_used; j++) {
        const double w = p[id[j]];
        weight[j] = e->gating == TS_GATING_CHOSEN ? exp(w) / sum : e->renorm ? w / sum : w;
        weight[j] *= e->scale;
    }
}

static void check_route(const ts_moe *e, const float *logits, const float *bias)
{
    int32_t id[MOST], want_id[MOST];
    float weight[MOST];
    double want[MOST];
    ts_route(e, logits, bias, id, weight);
    plain_route(e, logits, bias, want_id, want);
    for (int64_t j = 0; j < e->n_used; j++)
        CHECK_MSG(id[j] == want_id[j] && fabs(weight[j] - want[j]) <= 1e-5 * fabs(want[j]) + 1e-9,
                  "gating %d, %d of %d experts, %d of %d groups%s: the %d-th is %d with %g, not %d "
                  "with %g",
                  (int)e->gating, (int)e->n_used, (int)e->n_expert, (int)e->n_group_used,
                  (int)e->n_group, bias ? ", a bias" : "", (int)j, id[j], weight[j], want_id[j],
                  want[j]);
}

static void test_route(void)
{
    static const int64_t sizes[] = {1, 2, 5, 8, 12, 32, 64};
    float logits[MOST], bias[MOST];
    for (int round = 0; round < 3000; round++) {
        ts_moe e = {.n_expert = sizes[rnd(0, 6)], .gating = (ts_gating)rnd(0, 2), .n_group = 1};
        e.renorm = rnd(0, 1);
        e.scale = rnd(0, 1) ? 1 : 2.5f;
        e.n_group = e.n_expert % 4 == 0 && rnd(0, 1) ? 4 : 1;
        e.n_group_used = rnd(1, e.n_group);
        const int64_t most = e.n_expert / e.n_group * e.n_group_used;
        e.n_used = rnd(0, 3) ? rnd(1, most) : most;
        /* few values: ties everywhere. Halves are the same in any precision. */
        const bool ties = rnd(0, 1);
        for (int64_t i = 0; i < e.n_expert; i++) {
            logits[i] = ties ? (float)rnd(-2, 2) : 3 * rnd_normal(&seed);
            bias[i] = ties ? 0 : 0.3f * rnd_normal(&seed);
        }
        check_route(&e, logits, ties || rnd(0, 1) ? NULL : bias);
    }
    const float level[6] = {1, 1, 1, 1, 1, 1};
    const ts_moe e = {.n_expert = 6, .n_used = 6, .n_group = 1, .n_group_used = 1, .scale = 1};
    check_route(&e, level, NULL);
}

/* --- the steps ------------------------------------------------------------------ */

enum { TOKENS = 1000, THREADS = 3, GUARD = 256 };

typedef struct rig {
    ts_engine *e;
    ts_state *s;
    size_t group, gather, experts, gather2, experts2, combine; /* steps of the first block */
    uint8_t *own[64];                                          /* buffers as they were     */
    uint8_t *scratch;
    int threads;
} rig;

static void *room(size_t bytes)
{
    void *p = NULL;
    REQUIRE(posix_memalign(&p, 64, bytes + GUARD) == 0);
    return p;
}

static size_t find(const ts_steps *s, size_t from, ts_op op)
{
    while (from < s->n && (s->v[from].op != op || s->v[from].layer != 0))
        from++;
    REQUIRE(from < s->n);
    return from;
}

/* A token's number of experts, in a file that was written with another. */
static void set_used(const char *path, uint32_t used)
{
    static const char key[] = "qwen3moe.expert_used_count";
    static uint8_t head[1 << 16];
    FILE *f = fopen(path, "r+b");
    REQUIRE(f);
    const size_t n = fread(head, 1, sizeof head, f);
    const uint8_t *at = memmem(head, n, key, strlen(key));
    REQUIRE(at && fseek(f, (long)(at - head) + (long)strlen(key) + 4, SEEK_SET) == 0 &&
            fwrite(&used, sizeof used, 1, f) == 1 && fclose(f) == 0);
}

static void open_rig(rig *r, const char *path, const char *type, uint32_t used)
{
    ts_error err = {0};
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    o.n_ctx = 1024;
    o.n_ubatch = TOKENS;
    o.n_threads = THREADS;
    *r = (rig){0};
    REQUIRE(ts_synth_tiny(path, "qwen3moe", type, true, &err) == TS_OK);
    set_used(path, used);
    REQUIRE(ts_engine_open(&r->e, path, &o, &err) == TS_OK);
    CHECK(r->e->m->hp.moe.n_used == used);
    r->threads = r->e->plan.n_threads; /* as many as there are CPUs at most */
    REQUIRE(r->e->devices.be[0]->state_open(&r->s, r->e->devices.dev[0], &err) == TS_OK);
    const ts_steps *s = &r->e->plan.steps;
    r->group = find(s, 0, TS_OP_GROUP);
    r->gather = find(s, r->group, TS_OP_GATHER);
    r->experts = find(s, r->gather, TS_OP_EXPERTS);
    r->gather2 = find(s, r->experts, TS_OP_GATHER);
    r->experts2 = find(s, r->gather2, TS_OP_EXPERTS);
    r->combine = find(s, r->experts2, TS_OP_COMBINE);
    REQUIRE(s->v[r->experts].w2 && s->n_bufs <= 64);
    memcpy(r->own, r->s->bufs, s->n_bufs * sizeof *r->own);
    r->s->scratch_bytes =
        r->s->scratch_bytes > TS_MUL_SCRATCH ? r->s->scratch_bytes : TS_MUL_SCRATCH;
    r->s->scratch = r->scratch = room((size_t)r->threads * r->s->scratch_bytes);
}

static void close_rig(rig *r)
{
    free(r->scratch);
    r->e->devices.be[0]->state_close(r->s);
    ts_engine_close(r->e);
}

static void fresh(rig *r, ts_buf b)
{
    memset(r->s->bufs[b], 0xff, ts_plan_buffer_bytes(&r->e->plan, 0, b) + GUARD);
}

static void check_guard(rig *r, ts_buf b, const char *what)
{
    const uint8_t *end = r->s->bufs[b] + ts_plan_buffer_bytes(&r->e->plan, 0, b);
    int same = 0;
    while (same < GUARD && end[same] == 0xff)
        same++;
    CHECK_MSG(same == GUARD, "%s: written %d bytes behind '%s'", what, same,
              r->e->plan.steps.bufs[b].name);
}

/* Does one of the steps touch the buffer? */
static bool touched(const rig *r, ts_buf b)
{
    bool any = false;
    for (size_t i = r->group; i <= r->combine; i++) {
        const ts_step *st = &r->e->plan.steps.v[i];
        any = any || st->dst == b || st->a == b || st->b == b || st->c == b;
    }
    return any;
}

/* The stacks packed for the kernel set, which the steps then use; memory for all that they touch.
 */
static void use(rig *r, const ts_kset *k, void *packed[3])
{
    const size_t with[] = {r->gather, r->experts, r->gather2, r->experts2};
    ts_steps *s = &r->e->plan.steps;
    const ts_step *g = &s->v[r->experts], *d = &s->v[r->experts2];
    const ts_weight *w[] = {g->w, g->w2, d->w};
    for (size_t i = 0; i < 4; i++)
        s->v[with[i]].kset = k;
    for (int i = 0; i < 3; i++) {
        ts_weight *to = (ts_weight *)(uintptr_t)w[i];
        packed[i] = NULL;
        to->data = to->source->data;
        if (!k->packed_bytes)
            continue;
        to->data = packed[i] = room(ts_kset_stack_bytes(k, to->e, to->n, to->k));
        for (int64_t x = 0; x < to->e; x++)
            ts_kset_stack_pack(k, packed[i], to->source->data, to->n, to->k, x, 0, to->n);
    }
    s->bufs[s->v[r->gather].dst].prep = s->bufs[s->v[r->gather2].dst].prep = k->prep;
    for (ts_buf b = 0; b < (ts_buf)s->n_bufs; b++)
        r->s->bufs[b] = touched(r, b) ? room(ts_plan_buffer_bytes(&r->e->plan, 0, b)) : NULL;
}

static void unuse(rig *r, void *packed[3])
{
    for (size_t b = 0; b < r->e->plan.steps.n_bufs; b++) {
        free(r->s->bufs[b]);
        r->s->bufs[b] = r->own[b];
    }
    for (int i = 0; i < 3; i++)
        free(packed[i]);
}

/* y[n] = W x of expert e, by itself. */
static void product(const rig *r, const ts_weight *w, const ts_kset *k, int64_t e, const float *x,
                    float *y)
{
    void *act = room(k->prep->bytes(1, w->k));
    k->prep->run(act, x, 0, 1, w->k, 0, 1, 0, w->k);
    const ts_mul p = {.w = ts_kset_stack_at(k, w->data, w->n, w->k, e),
                      .x = act,
                      .limbs = k->prep->limbs,
                      .y = y,
                      .m = 1,
                      .n = w->n,
                      .k = w->k,
                      .n1 = w->n,
                      .ldy = w->n,
                      .scratch = r->s->scratch};
    k->mul(&p);
    free(act);
}

/* What token t should have gained. */
static void plain_token(const rig *r, const ts_kset *k, const float *xn, const int32_t *id,
                        const float *weight, double *sum)
{
    const ts_steps *s = &r->e->plan.steps;
    const ts_step *g = &s->v[r->experts], *d = &s->v[r->experts2];
    float *a = room((size_t)g->w->n * sizeof *a), *b = room((size_t)g->w->n * sizeof *b);
    float *y = room((size_t)d->w->n * sizeof *y);
    memset(sum, 0, (size_t)d->w->n * sizeof *sum);
    for (int64_t j = 0; j < r->e->m->hp.moe.n_used; j++) {
        if (id[j] < 0) /* another device's */
            continue;
        product(r, g->w, k, id[j], xn, a);
        product(r, g->w2, k, id[j], xn, b);
        r->s->d->ops->silu_mul(a, a, b, g->w->n);
        product(r, d->w, k, id[j], a, y);
        for (int64_t i = 0; i < d->w->n; i++)
            sum[i] += (double)weight[j] * y[i];
    }
    free(a);
    free(b);
    free(y);
}

static double worst;

/* m tokens that have chosen; each of those looked at has what its own experts give. */
static void run(rig *r, const ts_kset *k, int64_t m, int32_t (*id)[MOST], bool int8,
                const char *what)
{
    ts_steps *s = &r->e->plan.steps;
    const int64_t used = r->e->m->hp.moe.n_used, d = r->e->m->hp.n_embd;
    const ts_buf chosen = s->v[r->group].a, xn = s->v[r->gather].a, x = s->v[r->combine].dst;
    const ts_batch batch = {.m = m, .m_out = m};
    r->s->batch = &batch;
    r->e->plan.int8_prefill = int8;
    for (ts_buf b = 0; b < (ts_buf)s->n_bufs; b++)
        if (touched(r, b))
            fresh(r, b);
    float *in = (float *)r->s->bufs[xn], *out = (float *)r->s->bufs[x];
    float *c = (float *)r->s->bufs[chosen];
    REQUIRE(s->v[r->combine].b == x && s->bufs[xn].width == d && s->bufs[x].width == d);
    for (int64_t i = 0; i < m * d; i++) {
        in[i] = rnd_normal(&seed);
        out[i] = 0;
    }
    for (int64_t t = 0; t < m; t++)
        for (int64_t j = 0; j < used; j++) {
            memcpy(&c[t * used + j], &id[t][j], sizeof *c);
            c[(m + t) * used + j] = 0.25f + (float)rnd(0, 8) / 8;
        }
    for (size_t i = r->group; i <= r->combine; i++) {
        atomic_store(&r->s->next[i], 0);
        for (int tid = r->threads - 1; tid >= 0; tid--) /* the last first: who comes last finds no
                                                        chunks but its fixed one */
            ts_cpu_step(r->s, i, tid, r->threads);
    }
    double *want = room((size_t)d * sizeof *want);
    const int64_t looked = m < 12 ? m : 12;
    for (int64_t i = 0; i < looked; i++) {
        const int64_t t = m < 12 ? i : i == 0 ? 0 : i == 1 ? m - 1 : rnd(0, m - 1);
        plain_token(r, k, in + t * d, id[t], c + (m + t) * used, want);
        double num = 0, den = 0;
        for (int64_t j = 0; j < d; j++) {
            const double e = out[t * d + j] - want[j];
            num += isfinite(e) ? e * e : INFINITY;
            den += want[j] * want[j];
        }
        worst = num / den > worst ? num / den : worst;
        const double limit = int8 && k->prep_int8 != k->prep ? 3e-3 : k->on_tiles ? 3e-4 : 1e-10;
        CHECK_MSG(num <= limit * den, "%s%s, %s, %d tokens: token %d has an NMSE of %g", k->layout,
                  int8 ? " int8" : "", what, (int)m, (int)t, num / den);
    }
    for (ts_buf b = 0; b < (ts_buf)s->n_bufs; b++)
        if (touched(r, b))
            check_guard(r, b, what);
    free(want);
}

/* Different experts, the first of them from `from` on; all of them if there are no more. */
static void choose(int32_t *id, int64_t used, int64_t n, int64_t from)
{
    for (int64_t j = 0; j < used; j++)
        id[j] = (int32_t)((from + j) % n);
    for (int64_t j = 0; j + 1 < used; j++) {
        const int64_t o = rnd(j, used - 1);
        const int32_t t = id[j];
        id[j] = id[o];
        id[o] = t;
    }
}

static void test_set(rig *r, const ts_kset *k)
{
    static int32_t id[TOKENS][MOST];
    const int64_t used = r->e->m->hp.moe.n_used, n = r->e->m->hp.moe.n_expert;
    void *packed[3];
    use(r, k, packed);
    worst = 0;
    for (int int8 = 0; int8 < (k->prep_int8 != k->prep ? 2 : 1); int8++) {
        static const int64_t ms[] = {1, 2, 3, 17, 40, TOKENS};
        for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
            if (ms[i] == TOKENS && (int8 || SANITIZED))
                continue; /* takes its time */
            for (int64_t t = 0; t < ms[i]; t++)
                choose(id[t], used, n, rnd(0, n - 1));
            run(r, k, ms[i], id, int8, "any experts");
        }
        /* the same for all tokens: each has m of them, and others none */
        for (int64_t m = 1; m <= 64; m += SANITIZED ? (m < 6 ? 1 : 11) : m < 20 || m > 60 ? 1 : 5) {
            for (int64_t t = 0; t < m; t++)
                choose(id[t], used, n, 2);
            run(r, k, m, id, int8, "the same experts");
        }
        /* another device has some of the pairs, or all of them */
        for (int64_t i = 0; i < 8; i += SANITIZED ? 3 : 1) {
            const int64_t m = ms[i % 4 < 3 ? i % 4 : 4], some = i < 4 ? 1 : 99;
            for (int64_t t = 0; t < m; t++) {
                choose(id[t], used, n, rnd(0, n - 1));
                for (int64_t j = 0; j < used; j++)
                    id[t][j] = rnd(0, 2) < some ? -1 : id[t][j];
            }
            run(r, k, m, id, int8, "some elsewhere");
        }
        /* one expert has all tokens but one, which has it not */
        for (int64_t t = 0; t < 50 && used < n; t++)
            choose(id[t], used, n, t == 31 ? 1 : 0);
        if (used < n)
            run(r, k, 50, id, int8, "an expert with one token");
    }
    printf("%s, %d of %d experts: NMSE of a token at most %.1e\n", k->layout, (int)used, (int)n,
           worst);
    unuse(r, packed);
}

static void test_type(const char *path, const char *type, uint32_t used)
{
    rig r;
    ts_type t;
    REQUIRE(ts_type_parse(type, &t));
    open_rig(&r, path, type, used);
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *k = ts_kset_at(i);
        const char *why;
        if (k->type == t && ts_isa_usable(ts_cpu_get(), k->isa, &why) && k->isa != TS_ISA_AMX)
            test_set(&r, k);
    }
    for (size_t i = 0; i < sizeof standins / sizeof *standins; i++)
        if (standins[i]->type == t)
            test_set(&r, standins[i]);
    close_rig(&r);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    test_route();
    static const char *const types[] = {"Q8_0", "Q4_0", "MXFP4", "Q4_K", "BF16"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i += SANITIZED ? 3 : 1)
        test_type(path, types[i], i % 2 ? 3 : 2);
    test_type(path, "Q8_0", 7); /* all there are */
    unlink(path);
    return check_done("experts");
}

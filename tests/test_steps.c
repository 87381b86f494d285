/* test_steps.c - the step list of every architecture: threads meet wherever they must and no more
 * often than is written down, residuals and biases are where the models have them, and activations
 * are prepared the same by any number of threads. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "exec/chunks.h"
#include "exec/cpu.h"
#include "gguf/synth.h"

/* From the first block's first step to the second's; of one whose halves stand side by side. */
enum { BARRIERS = 10, PARALLEL = 8 };

static bool parallel(const ts_model *m)
{
    return !m->layers[0].ffn_norm && !m->layers[0].ffn_post_norm;
}

static bool is(const ts_steps *s, ts_buf x, const char *name)
{
    return x != TS_NO_BUF && strcmp(s->bufs[x].name, name) == 0;
}

/* What a step touches, from what step.h says it does: a set of buffers, and the KV cache as the
 * last. */
typedef struct touched {
    uint64_t read, written;
} touched;

static touched of_step(const ts_step *s)
{
    static const uint64_t cache = (uint64_t)1 << 63;
    touched t = {0, 0};
    const uint64_t a = s->a == TS_NO_BUF ? 0 : (uint64_t)1 << s->a;
    const uint64_t b = s->b == TS_NO_BUF ? 0 : (uint64_t)1 << s->b;
    t.read = s->op == TS_OP_GLU || s->op == TS_OP_EXPERTS ? a : a | b;
    if (s->like != TS_NO_BUF && s->op != TS_OP_PREP)
        t.read |= (uint64_t)1 << s->like;
    t.written = s->dst == TS_NO_BUF ? 0 : (uint64_t)1 << s->dst;
    switch (s->op) {
    case TS_OP_GLU:
    case TS_OP_EXPERTS:
        t.written |= b;
        break;
    case TS_OP_BIAS:
    case TS_OP_ROPE:
    case TS_OP_SOFTCAP:
    case TS_OP_GATE:
        t.read |= t.written;
        break;
    case TS_OP_STORE:
        t.written |= cache;
        break;
    case TS_OP_ATTEND:
        t.read |= cache;
        break;
    default:
        break;
    }
    return t;
}

/* Steps between which no barrier is share nothing that one of them writes, but for each thread's
 * own rows. */
static void barriers_suffice(const ts_steps *s, const char *what)
{
    REQUIRE(s->n_bufs < 63);
    for (size_t q = 0, last = 0; q < s->n; q++) {
        if (s->v[q].barrier)
            last = q;
        touched b = of_step(&s->v[q]);
        for (size_t p = last; p < q; p++) {
            touched a = of_step(&s->v[p]);
            bool own = s->v[p].by_row && s->v[q].by_row && s->v[p].domain == s->v[q].domain;
            CHECK_MSG(own || !((a.written & (b.read | b.written)) | (a.read & b.written)),
                      "%s: no barrier between steps %zu (%s) and %zu (%s)", what, p,
                      ts_op_name(s->v[p].op), q, ts_op_name(s->v[q].op));
        }
    }
}

static int count(const ts_steps *s, int layer, ts_op op)
{
    int n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->v[i].layer == layer && s->v[i].op == op;
    return n;
}

/* The residual is added by the product that makes it, in place, and then a bias to the same rows. A
 * model that has a norm in between adds in a step of its own. */
static void residuals(const ts_steps *s, const ts_model *m, bool norms, bool biases,
                      const char *what)
{
    for (int l = 0; l < (int)m->hp.n_layer; l++) {
        const ts_layer *L = &m->layers[l];
        const ts_weight *w[2] = {L->wo, L->down};
        const float *vec[2] = {biases ? L->bo : NULL, biases ? L->b_down : NULL};
        CHECK_MSG(count(s, l, TS_OP_ADD) == (norms ? 2 : 0), "%s: %d additions in layer %d", what,
                  count(s, l, TS_OP_ADD), l);
        for (size_t i = 0; i + 1 < s->n; i++)
            for (int j = 0; j < 2; j++) {
                const ts_step *st = &s->v[i], *next = st + 1;
                if (st->op != TS_OP_MATMUL || st->layer != l || st->w != w[j])
                    continue;
                CHECK_MSG(norms ? st->b == TS_NO_BUF : st->b == st->dst && is(s, st->dst, "x"),
                          "%s: the residual of step %zu", what, i);
                CHECK_MSG(next->barrier && (next->by_row || (j == 0 && parallel(m))),
                          "%s: step %zu", what, i + 1);
                CHECK_MSG(!vec[j] || (next->op == TS_OP_BIAS && next->dst == st->dst &&
                                      next->vec == vec[j] && !st[2].barrier),
                          "%s: step %zu (%s) should be a bias", what, i + 1, ts_op_name(next->op));
            }
    }
}

static int barriers(const ts_steps *s)
{
    int n = 0;
    size_t i = 0;
    for (; i < s->n && s->v[i].layer < 1; i++)
        n += s->v[i].barrier;
    return n + (i < s->n && s->v[i].barrier);
}

/* Activations are prepared by row after a step by row only. Returns how many are not. */
static int prepared_freely(const ts_steps *s, const char *what)
{
    int freely = 0;
    for (size_t i = 0; i < s->n; i++) {
        const ts_step *st = &s->v[i];
        size_t w = i;
        if (st->op != TS_OP_PREP)
            continue;
        while (w > 0 && s->v[w - 1].dst != st->a)
            w--;
        REQUIRE(w > 0);
        CHECK_MSG(st->by_row == s->v[w - 1].by_row, "%s: step %zu after step %zu (%s)", what, i,
                  w - 1, ts_op_name(s->v[w - 1].op));
        freely += !st->by_row;
    }
    return freely;
}

static void *poisoned(size_t bytes)
{
    void *p = NULL;
    REQUIRE(posix_memalign(&p, 64, bytes) == 0);
    memset(p, 0xff, bytes);
    return p;
}

/* What n threads prepare in step i, each of them something else. */
static void *prepare(ts_state *s, size_t i, int n, size_t bytes)
{
    void *act = poisoned(bytes);
    for (int tid = 0; tid < n; tid++) {
        void *part = poisoned(bytes);
        s->bufs[s->d->plan->steps.v[i].dst] = part;
        ts_cpu_step(s, i, tid, n);
        CHECK_MSG(check_join(act, part, bytes), "step %zu: thread %d of %d does another's part", i,
                  tid, n);
        free(part);
    }
    return act;
}

extern const ts_kset ts_kset_Q8_0_amx_standin, ts_kset_Q3_K_amx_standin;

/* Each PREP of the plan, for the plan's kernel sets (NULL) or another, with activations of 8 bits
 * or exact ones. Another gets rows of three k blocks of int8 tiles, the last of them short. */
static void shares(ts_engine *e, const ts_kset *kset, bool int8, const char *what)
{
    static const int ms[] = {1, 2, 5, 16, 17, 40};
    e->plan.int8_prefill = int8;
    ts_error err = {0};
    ts_state *s = NULL;
    ts_steps *steps = &e->plan.steps;
    uint64_t seed = 5;
    REQUIRE(e->devices.be[0]->state_open(&s, e->devices.dev[0], &err) == TS_OK);
    for (size_t i = 0; i < steps->n; i++) {
        ts_step *st = &steps->v[i];
        if (st->op != TS_OP_PREP)
            continue;
        const ts_kset *own = st->kset;
        const int64_t own_ldx = steps->bufs[st->a].width, own_d = st->d;
        const int64_t ldx = kset ? 2 * 512 + 64 : own_ldx;
        uint8_t *own_act = s->bufs[st->dst], *own_x = s->bufs[st->a];
        if (kset) {
            st->kset = kset;
            st->d = steps->bufs[st->a].width = ldx;
        }
        for (size_t j = 0; j < sizeof ms / sizeof *ms; j++) {
            const int m = ms[j];
            const bool eight = ts_plan_int8(&e->plan, m);
            const ts_prep *prep = eight ? st->kset->prep_int8 : st->kset->prep;
            const size_t bytes = st->kset->prep->bytes(m, st->d);
            ts_batch batch = {.m = m, .m_out = m};
            s->batch = &batch;
            /* spare codes are shared out by a look at all rows */
            const bool all = eight && st->kset->isa == TS_ISA_AMX && m >= 17;
            CHECK_MSG(ts_cpu_meet(s, i, m) == (st->barrier || all), "%s, step %zu, m=%d: %s", what,
                      i, m, all ? "threads don't wait for all rows" : "they wait for nothing");
            float *x = malloc((size_t)(m * ldx) * sizeof *x);
            REQUIRE(x);
            for (int64_t l = 0; l < m * ldx; l++)
                x[l] = rnd_normal(&seed);
            s->bufs[st->a] = (uint8_t *)x;
            void *want = prepare(s, i, 1, bytes);
            for (int n = 2; n <= 7; n++) {
                void *got = prepare(s, i, n, bytes);
                CHECK_MSG(memcmp(want, got, bytes) == 0, "%s, step %zu, m=%d: %d threads differ",
                          what, i, m, n);
                free(got);
            }
            void *got = poisoned(bytes); /* by one call for the whole */
            prep->run(got, x, ldx, m, st->d, 0, m, 0, st->d);
            CHECK_MSG(memcmp(want, got, bytes) == 0, "%s, step %zu, m=%d: not as a whole", what, i,
                      m);
            free(got);
            free(want);
            free(x);
        }
        st->kset = own;
        st->d = own_d;
        steps->bufs[st->a].width = own_ldx;
        s->bufs[st->dst] = own_act;
        s->bufs[st->a] = own_x;
    }
    e->devices.be[0]->state_close(s);
    e->plan.int8_prefill = false;
}

static int step_of(const ts_steps *s, ts_op op, const ts_weight *w, int from)
{
    for (int i = from; i < (int)s->n; i++)
        if (s->v[i].op == op && (op == TS_OP_PREP || s->v[i].w == w))
            return i;
    return -1;
}

/* Q and V whose tiles begin at different numbers of tokens, `late` at the larger: each has
 * activations of its own, but where both want the same those of the first serve. */
static void two_formats(ts_engine *e, bool late_first)
{
    static const int ms[] = {1, 4, 5, 8, 9, 40};
    ts_model *m = e->m;
    ts_error err = {0};
    ts_layer *l = &m->layers[0];
    ts_weight *w[3] = {l->wq, l->wk, l->wv};
    const ts_kset *own[3];
    for (int i = 0; i < 3; i++) {
        own[i] = w[i]->kset;
        w[i]->kset = (i == 2) != late_first ? &ts_kset_Q3_K_amx_standin : &ts_kset_Q8_0_amx_standin;
    }
    ts_steps mixed, kept = e->plan.steps;
    REQUIRE(ts_steps_make(&mixed, m, &err) == TS_OK);
    barriers_suffice(&mixed, "two formats");
    const int q = step_of(&mixed, TS_OP_MATMUL, w[0], 0);
    const int k = step_of(&mixed, TS_OP_MATMUL, w[1], 0);
    const int v = step_of(&mixed, TS_OP_MATMUL, w[2], 0);
    REQUIRE(q > 0 && k > q && v > k);
    const ts_step *sq = &mixed.v[q], *sv = &mixed.v[v];
    CHECK(sq->like == TS_NO_BUF && mixed.v[k].a == sq->a && mixed.v[k].like == TS_NO_BUF);
    CHECK(sv->a != sq->a && sv->like == sq->a);
    const int p = step_of(&mixed, TS_OP_PREP, NULL, k); /* of V */
    REQUIRE(p > 0 && p < v && mixed.v[p].dst == sv->a);
    CHECK(mixed.v[p].like == sq->a && mixed.v[p].a == mixed.v[q - 1].a);

    /* V's are made where they differ from Q's, and only there */
    e->plan.steps = mixed;
    ts_state *s = NULL;
    REQUIRE(e->devices.be[0]->state_open(&s, e->devices.dev[0], &err) == TS_OK);
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        ts_batch batch = {.m = ms[i], .m_out = ms[i]};
        const size_t bytes = sv->kset->prep->bytes(ms[i], mixed.v[p].d);
        uint8_t *to = s->bufs[sv->a], *act = poisoned(bytes);
        s->batch = &batch;
        s->bufs[sv->a] = act;
        ts_cpu_step(s, (size_t)p, 0, 1);
        bool made = false;
        for (size_t j = 0; j < bytes; j++)
            made = made || act[j] != 0xff;
        CHECK_MSG(made == (ms[i] >= 5 && ms[i] < 9), "m = %d, %s first", ms[i],
                  late_first ? "the later" : "the earlier");
        s->bufs[sv->a] = to;
        free(act);
    }
    e->devices.be[0]->state_close(s);
    e->plan.steps = kept;
    for (int i = 0; i < 3; i++)
        w[i]->kset = own[i];
    ts_steps_free(&mixed);
}

/* Chunks hold every row once, begin at whole groups and never grow, so that the last are the
 * smallest. */
static void chunks(const ts_kset *set, bool int8, int64_t n, int64_t m, int threads)
{
    const ts_chunks c = ts_chunks_of(set, int8, n, m, threads);
    int64_t n0, n1, end = 0, last = n, i = 0;
    for (; ts_chunk_rows(c, i, n, &n0, &n1); i++) {
        CHECK_MSG(n0 == end && n1 > n0 && n0 % set->group == 0 && (n1 - n0 <= last || i == 0),
                  "%s m = %d, n = %d, %d threads: chunk %d is %d..%d after %d, of %d rows before",
                  set->layout, (int)m, (int)n, threads, (int)i, (int)n0, (int)n1, (int)end,
                  (int)last);
        last = n1 - n0;
        end = n1;
    }
    CHECK_MSG(end == n, "%s m = %d, n = %d: chunks end at %d", set->layout, (int)m, (int)n,
              (int)end);
    CHECK(!ts_chunk_rows(c, i + threads, n, &n0, &n1));
    if (m >= 128 && n >= 64 * threads && n % 32 == 0 && ts_kset_on_tiles(set, int8, m)) {
        ts_chunk_rows(c, i - threads, n, &n0, &n1);
        CHECK_MSG(n1 - n0 == 32, "m = %d, n = %d, %d threads: a chunk of %d rows near the end",
                  (int)m, (int)n, threads, (int)(n1 - n0));
    }
}

static void all_chunks(void)
{
    static const int64_t m[] = {1, 4, 5, 8, 31, 127, 128, 512};
    static const int threads[] = {1, 2, 3, 7, 16, 96};
    const ts_kset *const sets[] = {ts_kset_get(TS_TYPE_Q4_K, TS_ISA_REF),
                                   &ts_kset_Q8_0_amx_standin};
    uint64_t seed = 20261125;
    for (int r = 0; r < 400; r++) {
        const int64_t n = r % 2 ? 1 + (int64_t)(rnd_u64(&seed) % 20000)
                                : 32 * (1 + (int64_t)(rnd_u64(&seed) % 600));
        for (size_t i = 0; i < sizeof m / sizeof *m; i++)
            for (size_t j = 0; j < sizeof threads / sizeof *threads; j++)
                for (int set = 0; set < 4; set++)
                    chunks(sets[set / 2], set % 2, n, m[i], threads[j]);
    }
}

/* One of them behind COMBINE, which the threads share by elements: of one token one thread would
 * take longer to fetch what the others have made than they all take to meet. */
enum { EXPERT_BARRIERS = 14 };

static void experts(const char *path, ts_isa isa)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    REQUIRE(ts_synth_tiny(path, "qwen3moe", "Q8_0", true, &err) == TS_OK);
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    barriers_suffice(&e->plan.steps, "qwen3moe");
    CHECK_MSG(barriers(&e->plan.steps) == EXPERT_BARRIERS, "%d barriers in a block of experts",
              barriers(&e->plan.steps));
    ts_engine_close(e);
}

static void one_arch(const char *path, const char *arch, ts_isa isa)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", true, &err) == TS_OK);
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    ts_model *m = e->m;
    const bool norms = m->layers[0].attn_post_norm != NULL;
    barriers_suffice(&e->plan.steps, arch);
    /* of attention's output and the gated product, in each layer */
    const int of_rows = parallel(m); /* and of the rows that the last layer goes on with */
    CHECK(prepared_freely(&e->plan.steps, arch) == 2 * (int)m->hp.n_layer + of_rows);
    for (int int8 = 0; int8 < 2; int8++) {
        shares(e, NULL, int8, arch);
        if (isa == TS_ISA_REF) /* by tiles of tokens */
            shares(e, &ts_kset_Q8_0_amx_standin, int8, arch);
        if (isa == TS_ISA_REF)
            two_formats(e, int8);
    }
    residuals(&e->plan.steps, m, norms, false, arch);
    CHECK_MSG(barriers(&e->plan.steps) == (parallel(m) ? PARALLEL : BARRIERS),
              "%s: %d barriers in a block", arch, barriers(&e->plan.steps));

    /* Biases where no file of these tests has them. */
    static float bias[4];
    for (int64_t i = 0; i < m->hp.n_layer && m->arch->build == ts_build_llama; i++) {
        m->layers[i].bo = bias;
        m->layers[i].b_gate = bias + 1;
        m->layers[i].b_up = bias + 2;
        m->layers[i].b_down = bias + 3;
    }
    ts_steps s;
    REQUIRE(ts_steps_make(&s, m, &err) == TS_OK);
    char what[40];
    snprintf(what, sizeof what, "%s with biases", arch);
    barriers_suffice(&s, what);
    prepared_freely(&s, what);
    residuals(&s, m, norms, true, what);
    ts_steps_free(&s);
    ts_engine_close(e);
}

/* LongRoPE: the context that is planned for decides whose factors divide. */
static void test_contexts(const char *path)
{
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, "phi3", "Q8_0", false, &err) == TS_OK);
    for (int64_t n_ctx = 512; n_ctx <= 513; n_ctx++) {
        ts_engine *e = NULL;
        ts_engine_options o;
        ts_engine_options_init(&o);
        o.n_ctx = n_ctx;
        REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
        const ts_rope *r = &e->m->rope;
        CHECK(r->n_rot == 48); /* three quarters of a head */
        const ts_tensor *t = ts_gguf_tensor(e->m->g, n_ctx > 512 ? "rope_factors_long.weight"
                                                                 : "rope_factors_short.weight");
        const float *factor = t->data;
        for (int64_t i = 0; i < r->n_rot / 2; i++) {
            const double want = pow(10000, -2 * (double)i / (double)r->n_rot) / factor[i];
            CHECK_MSG(fabs(r->freq[i] - want) <= 1e-6 * want, "context %d, pair %d: %g not %g",
                      (int)n_ctx, (int)i, (double)r->freq[i], want);
        }
        ts_engine_close(e);
    }
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    all_chunks();
    static const char *const archs[] = {"llama",   "qwen2",  "qwen3",     "gemma3", "olmo2",
                                        "granite", "gemma2", "command-r", "phi3"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        one_arch(path, archs[i], TS_ISA_REF);
        one_arch(path, archs[i], TS_ISA_AUTO);
    }
    experts(path, TS_ISA_REF);
    experts(path, TS_ISA_AUTO);
    test_contexts(path);
    unlink(path);
    return check_done("steps");
}

/* test_split.c - one model on several devices: every architecture, every number of layers, random
 * overrides, against the CPU alone, bit by bit. The accelerators are fakes (fake_device.h) whose
 * memory nobody else can touch. */
#include <stdio.h>
#include <unistd.h>

#include "engine.h"
#include "exec/stream.h"
#include "fake_device.h"
#include "gguf/synth.h"

#define CTX   150
#define ROOMY ((size_t)1 << 40)

static const char *const archs[] = {"llama",    "qwen2",    "qwen3",     "gemma3",
                                    "qwen3moe", "qwen2moe", "deepseek2", "deepseek2:tiny-v3",
                                    "olmo2",    "granite",  "gemma2",    "command-r",
                                    "phi3",     "glm4moe",  "gpt-oss"};
static const ts_backend *const fakes[] = {&fake_backend, &fake_backend};
static uint64_t seed = 20261127;

static ts_accel two[2] = {{"fake0", 0, &fake_kind, ROOMY, 0, 0, 0, 0},
                          {"fake1", 1, &fake_kind, ROOMY, 0, 0, 0, 0}};

static ts_stream_mode stream_mode = TS_STREAM_OFF; /* of options() */
static int n_threads = 1; /* of the CPU; more meet at barriers, and wait while others test */

static ts_engine_options options(ts_isa isa)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_ctx = CTX;
    o.n_ubatch = 40;
    o.n_logits = 3;
    o.stream = stream_mode;
    o.n_threads = n_threads;
    return o;
}

static ts_engine_split accels(int n, int64_t layers)
{
    return (ts_engine_split){.split = {.accels = two, .n_accels = n, .n_gpu_layers = layers},
                             .backends = fakes};
}

static ts_status open_split(ts_engine **e, const char *path, ts_isa isa,
                            const ts_engine_split *split, ts_error *err)
{
    ts_engine_options o = options(isa);
    return ts_engine_open_split(e, path, &o, split, err);
}

/* A timeline: a prompt in several micro-batches, single tokens, several rows of logits, a step
 * back, and on until the context is full. All logits go to out, at most max floats; how many: the
 * result. */
static size_t timeline(ts_engine *e, const ts_token *t, float *out, size_t max)
{
    static const struct {
        int64_t back;
        size_t n, rows;
    } script[] = {{0, 17, 1}, {0, 1, 1}, {0, 1, 1}, {0, 63, 3}, {30, 5, 2}, {0, 1, 1}, {0, 0, 1}};
    ts_error err = {0};
    ts_session *s = NULL;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    const size_t v = (size_t)e->m->hp.n_vocab;
    size_t at = 0;
    for (size_t i = 0; i < sizeof script / sizeof *script; i++) {
        int64_t pos = ts_session_pos(s) - script[i].back;
        size_t n = script[i].n ? script[i].n : (size_t)(CTX - pos); /* the last: to the end */
        CHECK(ts_session_rewind(s, pos, &err) == TS_OK);
        const ts_status st = ts_session_eval(s, t + pos, n, script[i].rows, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        for (size_t r = 0; r < script[i].rows && st == TS_OK; r++, at += v) {
            REQUIRE(at + v <= max);
            memcpy(out + at, ts_session_logits(s, r), v * sizeof *out);
        }
    }
    CHECK(ts_session_eval(s, t, 1, 1, &err) == TS_FULL);
    ts_session_close(s);
    return at;
}

typedef struct reference {
    const char *arch, *path;
    ts_token t[CTX];
    float *want, *got;
    size_t max, n;
    int64_t n_layer;
    int64_t n_moe; /* blocks that have experts, the last ones */
} reference;

static void open_reference(reference *r, const char *arch, const char *path, ts_isa isa)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split none = {0};
    REQUIRE(open_split(&e, path, isa, &none, &err) == TS_OK);
    *r = (reference){.arch = arch, .path = path, .n_layer = e->m->hp.n_layer};
    for (int64_t i = 0; i < r->n_layer; i++)
        r->n_moe += e->m->layers[i].router != NULL;
    for (size_t i = 0; i < CTX; i++)
        r->t[i] = (ts_token)(rnd_u64(&seed) % (uint64_t)e->m->hp.n_vocab);
    r->max = 10 * (size_t)e->m->hp.n_vocab;
    r->want = malloc(r->max * sizeof(float));
    r->got = malloc(r->max * sizeof(float));
    REQUIRE(r->want && r->got);
    r->n = timeline(e, r->t, r->want, r->max);
    double sum = 0;
    for (size_t i = 0; i < r->n; i++)
        sum += r->want[i] * r->want[i];
    CHECK(r->n == r->max && isfinite(sum) && sum > 0);
    ts_engine_close(e);
}

static void close_reference(reference *r)
{
    free(r->want);
    free(r->got);
}

/* Numbers that other kernels made: each row of logits is near. Of two experts that are nearly level
 * they may choose the other, which makes one row of these ten another one, and moves those
 * behind it a little. */
static void near(const reference *r, const ts_engine *e, const char *what)
{
    const size_t v = (size_t)e->m->hp.n_vocab;
    const bool experts = e->m->hp.moe.n_expert > 0;
    const double limit = e->plan.isa == TS_ISA_AMX ? 1e-3 : experts ? 1e-5 : 1e-6;
    int others = 0;
    for (size_t at = 0; at < r->n; at += v) {
        const double x = nmse(r->want + at, r->got + at, v);
        others += x > limit;
        CHECK_MSG(x <= limit || (experts && x < 0.1), "%s, %s: row %zu: NMSE %g", r->arch, what,
                  at / v, x);
    }
    CHECK_MSG(others <= 1, "%s, %s: %d rows are others", r->arch, what, others);
}

/* The same bits with this split; on other kernels of the CPU, nearly the same numbers. */
static void compare(reference *r, ts_isa isa, const ts_engine_split *split, const char *what)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_status st = open_split(&e, r->path, isa, split, &err);
    CHECK_MSG(st == TS_OK, "%s, %s: %s", r->arch, what, err.msg);
    if (st)
        return;
    memset(r->got, 0xff, r->max * sizeof(float));
    CHECK(timeline(e, r->t, r->got, r->max) == r->n);
    if (isa == TS_ISA_REF) {
        CHECK_MSG(memcmp(r->want, r->got, r->n * sizeof(float)) == 0, "%s, %s: NMSE %g", r->arch,
                  what, nmse(r->want, r->got, r->n));
    } else {
        near(r, e, what);
    }
    ts_engine_close(e);
}

/* Copies of the whole list. */
static int copies(const ts_steps *s)
{
    int n = 0;
    for (size_t i = 0; i < s->n_main; i++)
        n += s->v[i].op == TS_OP_COPY;
    return n;
}

static void test_layers(reference *r, ts_isa isa, int from_accels)
{
    for (int n_accels = from_accels; n_accels <= 2; n_accels++)
        for (int64_t layers = 0; layers <= r->n_layer + 1; layers++) {
            char what[80];
            snprintf(what, sizeof what, "%d accelerators, %d layers", n_accels, (int)layers);
            ts_engine_split split = accels(n_accels, layers);
            fake_copies = fake_runs = 0;
            compare(r, isa, &split, what);
            const bool some = layers > 0 || stream_mode == TS_STREAM_ON;
            CHECK_MSG((fake_copies > 0) == some && (fake_runs > 0) == some,
                      "%s, %s: %d copies, %d runs", r->arch, what, (int)fake_copies,
                      (int)fake_runs);
        }
}

/* Copies are segments by themselves, and threads need not meet where one begins. */
static void segments(const ts_steps *s)
{
    for (size_t i = 0, end; i < s->n_main; i = end) {
        end = ts_steps_segment(s, i);
        CHECK(end > i && !s->v[i].barrier && (s->v[i].op != TS_OP_COPY || end == i + 1));
        for (size_t j = i; j < end; j++)
            CHECK(s->v[j].device == s->v[i].device && (j == i || s->v[j].op != TS_OP_COPY));
    }
}

/* Few copies: of the hidden state to the accelerator, and of it or the logits back. */
static void test_copies(const reference *r)
{
    for (int64_t layers = 0; layers <= r->n_layer + 1; layers++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = accels(1, layers);
        REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
        const int want = layers == 0 ? 0 : 2;
        CHECK_MSG(copies(&e->plan.steps) == want, "%s, %d layers: %d copies", r->arch, (int)layers,
                  copies(&e->plan.steps));
        segments(&e->plan.steps);
        CHECK(e->plan.dev[1].n_layers == (layers < r->n_layer ? layers : r->n_layer));
        CHECK(e->plan.dev[0].n_layers + e->plan.dev[1].n_layers == r->n_layer);
        ts_engine_close(e);
    }
}

static void test_overrides(reference *r, ts_isa isa, int rounds)
{
    static const char *const parts[] = {
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "attn_",
        "ffn_(gate|up)",
        "\\.weight$",
        "^output|^token_embd",
        "blk\\.0\\.",
        "blk\\.[1-9]\\.ffn",
        "attn_[qv]",
    };
    for (int round = 0; round < rounds; round++) {
        ts_override o[4];
        const size_t n = 1 + rnd_u64(&seed) % 4;
        char what[200];
        int at = 0;
        for (size_t i = 0; i < n; i++) {
            o[i].pattern = parts[rnd_u64(&seed) % (sizeof parts / sizeof *parts)];
            o[i].device = (int)(rnd_u64(&seed) % 3);
            at +=
                snprintf(what + at, sizeof what - (size_t)at, "%s=%d ", o[i].pattern, o[i].device);
        }
        ts_engine_split split = accels(2, (int64_t)(rnd_u64(&seed) % (uint64_t)(r->n_layer + 2)));
        snprintf(what + at, sizeof what - (size_t)at, "and %d layers",
                 (int)split.split.n_gpu_layers);
        split.split.overrides = o;
        split.split.n_overrides = n;
        compare(r, isa, &split, what);
    }
}

/* What stays on the CPU has the kernel set and layout that it has where there is nothing else: at
 * every number of layers, and with single weights moved. */
static void test_cpu_sets(const reference *r)
{
    ts_error err = {0};
    ts_engine *alone = NULL;
    ts_engine_split none = {0};
    const ts_override o = {"attn_[qv]|ffn_down", 0};
    REQUIRE(open_split(&alone, r->path, TS_ISA_AUTO, &none, &err) == TS_OK);
    for (int64_t i = 0; i <= 2 * r->n_layer + 3; i++) {
        ts_engine *e = NULL;
        ts_engine_split split = accels(2, i / 2);
        split.split.overrides = &o;
        split.split.n_overrides = (size_t)(i % 2);
        REQUIRE(open_split(&e, r->path, TS_ISA_AUTO, &split, &err) == TS_OK);
        CHECK(e->plan.isa == alone->plan.isa && e->m->n_weights == alone->m->n_weights);
        int there = 0;
        for (size_t j = 0; j < e->m->n_weights; j++) {
            const ts_weight *w = &e->m->weights[j], *a = &alone->m->weights[j];
            there += w->device == 0;
            CHECK_MSG(w->device || (w->kset == a->kset && w->bytes == a->bytes),
                      "%s, %d layers%s: %s", r->arch, (int)(i / 2), i % 2 ? ", some moved" : "",
                      w->source->name);
        }
        CHECK(there >= (i % 2 ? 3 * (int)r->n_layer : 0)); /* what was moved there was seen */
        ts_engine_close(e);
    }
    ts_engine_close(alone);
}

/* --- what fits ---------------------------------------------------------------- */

static size_t need(const ts_plan_device *d)
{
    return d->packed + d->kv + d->buffers;
}

/* Automatically as many layers as fit; asked for one more, a sentence with numbers. */
static void test_fit(const reference *r)
{
    for (int64_t layers = 0; layers <= r->n_layer + 1; layers++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = accels(1, layers);
        REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
        two[0].memory = need(&e->plan.dev[1]);
        ts_engine_close(e);
        split = accels(1, TS_GPU_LAYERS_AUTO);
        REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
        CHECK_MSG(e->plan.n_gpu_layers == layers, "%s: room for %d layers, %d taken", r->arch,
                  (int)layers, (int)e->plan.n_gpu_layers);
        ts_engine_close(e);
        if (layers <= r->n_layer) {
            split = accels(1, layers + 1);
            e = NULL;
            CHECK(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_NO_MEMORY && !e &&
                  strstr(err.msg, "fake0 would have to hold"));
        }
        two[0].memory = ROOMY;
    }
}

/* Of a mixture of experts all blocks, and of the experts those of as many blocks as fit. */
static void test_fit_experts(reference *r)
{
    const int64_t n = r->n_layer, dense = n - r->n_moe;
    for (int64_t k = 0; k <= n; k = k ? k + 1 : dense + 1) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = accels(1, n + 1);
        split.split.n_cpu_moe = k;
        REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
        const size_t memory = need(&e->plan.dev[1]);
        for (ts_buf b = 0; b < (ts_buf)e->plan.steps.n_bufs; b++)
            if (e->plan.steps.bufs[b].each) /* an accelerator has one, the CPU's threads one each */
                CHECK(ts_plan_buffer_bytes(&e->plan, 0, b) ==
                      ts_plan_buffer_bytes(&e->plan, 1, b) * (size_t)e->plan.n_threads);
        ts_engine_close(e);
        split = accels(1, TS_GPU_LAYERS_AUTO);
        for (int less = 0; less < 2; less++) {
            two[0].memory = memory - (size_t)less;
            REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
            const ts_placing p = e->plan.placing;
            const int64_t next = k ? k + 1 : dense + 1, want = less ? next : k;
            CHECK(need(&e->plan.dev[1]) <= two[0].memory);
            if (want <= n)
                CHECK_MSG(p.layers == n && p.output && p.cpu_experts == want,
                          "%s: room but for experts of %d blocks: %d layers, %d, %d", r->arch,
                          (int)want, (int)p.layers, p.output, (int)p.cpu_experts);
            else
                CHECK_MSG(!p.output || p.layers < n, "%s: %d layers", r->arch, (int)p.layers);
            CHECK(p.layers == n || p.layers == 0 || p.cpu_experts == n);
            for (int64_t i = dense; i < n && want <= n; i++) {
                const ts_layer *l = &e->m->layers[i];
                const int device = i >= want;
                CHECK(l->device == 1 && l->gate_exps->device == device &&
                      l->up_exps->device == device && l->down_exps->device == device);
            }
            ts_engine_close(e);
        }
        if (k == n - 1)
            compare(r, TS_ISA_REF, &split, "experts of one block");
        two[0].memory = ROOMY;
    }
    /* two accelerators, neither of which has room for the experts of all its blocks */
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(2, n + 1);
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    const size_t memory[2] = {need(&e->plan.dev[1]), need(&e->plan.dev[2])};
    ts_engine_close(e);
    two[0].share = two[1].share = 1;
    split = accels(2, TS_GPU_LAYERS_AUTO);
    for (int i = 0; i < 2; i++)
        two[i].memory = memory[i] - 1;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    CHECK_MSG(e->plan.placing.layers == n && e->plan.placing.cpu_experts > 0, "%s: %d, %d", r->arch,
              (int)e->plan.placing.layers, (int)e->plan.placing.cpu_experts);
    ts_engine_close(e);
    compare(r, TS_ISA_REF, &split, "two accelerators that are too small");
    two[0].share = two[1].share = 0;
    two[0].memory = two[1].memory = ROOMY;
}

/* What a plan with these patterns and this memory takes, decided by itself. */
static ts_placing decided(const reference *r, size_t memory, double cpu_read)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(1, TS_GPU_LAYERS_AUTO);
    two[0].memory = memory;
    split.split.cpu_read = cpu_read;
    const ts_status st = open_split(&e, r->path, TS_ISA_REF, &split, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    const ts_placing p = e ? e->plan.placing : (ts_placing){.layers = -1};
    ts_engine_close(e);
    two[0].memory = ROOMY;
    return p;
}

/* What the accelerator needs for so many layers, and with a pattern for what is found. */
static size_t need_with(const reference *r, int64_t layers, const char *pattern)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(1, layers);
    ts_override o = {pattern, 1};
    split.split.overrides = &o;
    split.split.n_overrides = pattern != NULL;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    const size_t n = e->plan.n_devices > 1 ? need(&e->plan.dev[1]) : 0;
    ts_engine_close(e);
    return n;
}

/* What is left of the memory beside whole layers: for the output matrix or feed-forward weights of
 * one more block; and for neither where the way there takes longer than reading them on the CPU. */
static void test_rest(const reference *r)
{
    const double slow = 1e6, fast = 1e13;
    int tried = 0;
    for (int64_t layers = 0; layers < r->n_layer; layers++) {
        const size_t more = need_with(r, layers + 1, NULL);
        for (int which = 0; which < 3; which++) {
            char pattern[64];
            snprintf(pattern, sizeof pattern, "blk\\.%d\\.ffn_%s\\.",
                     (int)(r->n_layer - 1 - layers), which == 1 ? "down" : "(gate|up|down)");
            const size_t memory = need_with(r, layers, which ? pattern : "^(output|token_embd)\\.");
            if (memory >= more) /* then rather one layer more */
                continue;
            tried++;
            ts_placing p = decided(r, memory, slow);
            CHECK_MSG(p.layers == layers &&
                          (p.output || p.ffn == TS_FFN_ALL || (which == 1 && p.ffn == TS_FFN_DOWN)),
                      "%s, %d layers, %d: %d, %d %d", r->arch, (int)layers, which, (int)p.layers,
                      p.output, p.ffn);
            p = decided(r, memory - 1, slow);
            CHECK(p.layers == layers && (which ? (int)p.ffn != which : !p.output));
            p = decided(r, memory, fast);
            CHECK(p.layers == layers && !p.output && !p.ffn);
        }
    }
    CHECK(tried > 3);
}

/* Exactly the weights that a pattern names go where it says; the last pattern counts. */
static void test_patterns(const reference *r)
{
    const ts_override o[] = {{"ffn_(up|down)", 2}, {"blk\\.1\\.ffn_down", 0}};
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(2, 1);
    split.split.overrides = o;
    split.split.n_overrides = 2;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    for (size_t i = 0; i < e->m->n_weights; i++) {
        const ts_weight *w = &e->m->weights[i];
        const char *name = w->source->name;
        char last[32];
        snprintf(last, sizeof last, "blk.%d.", (int)r->n_layer - 1);
        int want = strstr(name, last) ? 1 : 0; /* one layer, in equal halves to two: the first */
        if (strstr(name, "ffn_up") || strstr(name, "ffn_down"))
            want = strstr(name, "blk.1.ffn_down") ? 0 : 2;
        CHECK_MSG(w->device == want, "%s on device %d, not %d", name, w->device, want);
    }
    ts_engine_close(e);
}

static void test_bad_patterns(const reference *r)
{
    static const struct {
        const char *pattern, *says;
    } bad[] = {{"(", "is no regular expression: "}, {"no_such_weight", "no weight has a name"}};
    for (size_t i = 0; i < 2; i++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_override o = {bad[i].pattern, 1};
        ts_engine_split split = accels(1, 0);
        split.split.overrides = &o;
        split.split.n_overrides = 1;
        CHECK_MSG(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_BAD_ARG && !e &&
                      strstr(err.msg, bad[i].says),
                  "'%s': %s", bad[i].pattern, err.msg);
    }
}

/* --- streaming ---------------------------------------------------------------- */

static const int64_t all = -1;

/* How shared experts are shared. Where one side has all, its sums are the bits of the CPU alone. */
typedef enum sharing { DEVICE, CPU, BOTH } sharing;

static void set_sharing(ts_stream_rates *q, sharing how)
{
    q->come = how == DEVICE ? 0 : how == CPU ? 1e9 : 1;
    q->expert = how == CPU ? 0 : 1;
    q->pair = how == CPU ? 0 : 0.1;
    q->lead[0] = q->lead[1] = how == BOTH ? 1 : 0; /* one comes ahead */
}

/* A timeline whose prompts of 40 and 17 tokens are streamed or not, by what streaming costs: `keep`
 * leading layers are the CPU's (all: nothing is streamed). */
static void streamed(reference *r, ts_isa isa, int64_t layers, size_t memory, int64_t keep,
                     bool all_kv, sharing how)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o = options(isa);
    ts_engine_split split = accels(1, layers);
    char what[96];
    o.stream = keep == 0 ? TS_STREAM_ON : TS_STREAM_AUTO;
    two[0].memory = memory;
    const ts_status st = ts_engine_open_split(&e, r->path, &o, &split, &err);
    two[0].memory = ROOMY;
    CHECK_MSG(st == TS_OK, "%s: %s", r->arch, err.msg);
    if (st)
        return;
    const ts_stream *t = &e->plan.stream;
    CHECK(t->device == 1 && t->n_layers == r->n_layer - layers && t->n_leading == t->n_layers);
    CHECK_MSG(t->all_kv == all_kv, "%s: K and V of all layers: %d", r->arch, t->all_kv);
    /* a layer of the CPU costs its length, the others as much as makes `keep` the best */
    ts_stream_rates *q = &e->devices.rates;
    CHECK(q->known == (t->shares || o.stream == TS_STREAM_AUTO));
    *q = (ts_stream_rates){.known = true, .m = {16, 32}, .cpu = {1, 2}, .gpu = {1e-3, 1e-3}};
    if (keep == all)
        q->gpu[0] = q->gpu[1] = 100;
    q->unit = keep == all ? 100
              : keep == 0 ? 1e-3
                          : 2.5 * (double)keep / (double)(t->n_layers - keep);
    const int64_t got = ts_stream_keep(t, q, 40);
    if (keep != 1) /* 1: whatever it is, but some */
        CHECK_MSG(got == keep, "%s: %d layers kept, not %d", r->arch, (int)got, (int)keep);
    CHECK(ts_stream_keep(t, q, 1) == all);
    set_sharing(q, how);
    fake_streams = fake_sent = fake_left = 0;
    snprintf(what, sizeof what, "%d layers, %d kept of %d, sharing %d", (int)layers, (int)got,
             (int)t->n_layers, (int)how);
    memset(r->got, 0xff, r->max * sizeof(float));
    CHECK(timeline(e, r->t, r->got, r->max) == r->n);
    CHECK_MSG((fake_streams > 0) == (got != all), "%s, %s: %d layers came", r->arch, what,
              (int)fake_streams);
    if (t->shares && got != all) /* experts without tokens never come */
        CHECK_MSG((fake_sent > 0) == (how != CPU) && (fake_left > 0 || how == DEVICE),
                  "%s, %s: %d experts came, %d didn't", r->arch, what, (int)fake_sent,
                  (int)fake_left);
    if (isa == TS_ISA_REF && t->shares && how == BOTH)
        CHECK_MSG(nmse(r->want, r->got, r->n) <= 1e-10, "%s, %s: NMSE %g", r->arch, what,
                  nmse(r->want, r->got, r->n));
    else if (isa == TS_ISA_REF)
        CHECK_MSG(memcmp(r->want, r->got, r->n * sizeof(float)) == 0, "%s, %s: NMSE %g", r->arch,
                  what, nmse(r->want, r->got, r->n));
    else
        near(r, e, what);
    ts_engine_close(e);
}

/* What a micro-batch costs so that of three streamed layers or more the CPU keeps one, or none. */
static ts_stream_rates costs(bool keep)
{
    return (ts_stream_rates){
        .known = true, .m = {16, 32}, .cpu = {1, 2}, .gpu = {1e-3, 1e-3}, .unit = keep ? 2 : 1e-3};
}

/* Logits of the last of 120 tokens: 40 others are streamed first, and taken back; of the first 40
 * the CPU keeps a layer, or not. */
static void last_logits(ts_engine *e, const ts_token *t, bool keep, float *out)
{
    ts_error err = {0};
    ts_session *s = NULL;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    for (int i = 0; i < 4; i++) {
        e->devices.rates = costs(keep && i == 1);
        CHECK((ts_stream_keep(&e->plan.stream, &e->devices.rates, 40) > 0) == (keep && i == 1));
        CHECK(ts_session_eval(s, t + (i == 0 ? 110 : 40 * (i - 1)), 40, 1, &err) == TS_OK);
        if (i == 0)
            CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
    }
    memcpy(out, ts_session_logits(s, 0), (size_t)e->m->hp.n_vocab * sizeof *out);
    ts_session_close(s);
}

/* The stream device knows which K and V it doesn't have. */
static void test_turns(reference *r)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o = options(TS_ISA_REF);
    ts_engine_split split = accels(1, 0);
    o.stream = TS_STREAM_ON; /* -ngl 0 keeps its device so */
    REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
    e->plan.stream.mode = TS_STREAM_AUTO;
    const size_t v = (size_t)e->m->hp.n_vocab;
    last_logits(e, r->t, false, r->got);
    if (r->n_layer > 1 && !e->plan.stream.shares)
        last_logits(e, r->t, true, r->got + v);
    else
        memcpy(r->got + v, r->got, v * sizeof(float));
    CHECK(memcmp(r->got, r->got + v, v * sizeof(float)) == 0);
    ts_engine_close(e);
}

/* Every call of a streamed eval fails once. */
static void test_stream_failures(reference *r)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_engine_options o = options(TS_ISA_REF);
    ts_engine_split split = accels(1, 1);
    o.stream = TS_STREAM_ON;
    REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    set_sharing(&e->devices.rates, DEVICE);
    const size_t v = (size_t)e->m->hp.n_vocab;
    int64_t at = 0;
    for (;; at++) {
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        CHECK(ts_session_eval(s, r->t, 3, 1, &err) == TS_OK); /* K and V of these are brought */
        fake_calls = 0;
        fake_fails_at = at;
        const ts_status st = ts_session_eval(s, r->t + 3, 40, 1, &err);
        fake_fails_at = -1;
        if (st == TS_OK)
            break;
        CHECK(strstr(err.msg, "as it was told") && ts_session_pos(s) == 3);
    }
    CHECK_MSG(at >= 6, "a streamed eval ended well with %d failures", (int)at);
    memcpy(r->got, ts_session_logits(s, 0), v * sizeof(float));
    CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
    e->plan.stream.mode = TS_STREAM_OFF;
    CHECK(ts_session_eval(s, r->t, 3, 1, &err) == TS_OK);
    CHECK(ts_session_eval(s, r->t + 3, 40, 1, &err) == TS_OK);
    CHECK(memcmp(ts_session_logits(s, 0), r->got, v * sizeof(float)) == 0);
    ts_session_close(s);
    ts_engine_close(e);
}

/* Weights away from their layer: behind the layers that are kept, the rows are where the last of
 * these has left them, and nobody else's. */
static void test_rows_kept(reference *r)
{
    int ran = 0;
    static const char *const patterns[] = {"ffn_down=0", "ffn_=0", "attn_output=0", "attn_=0",
                                           "blk\\.0\\.ffn_down=1"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        const bool away = i < 4; /* layers on the accelerator, weights not; and the reverse */
        char pattern[32];
        snprintf(pattern, sizeof pattern, "%s", patterns[i]);
        char *to = strchr(pattern, '=');
        *to = 0;
        ts_override o = {pattern, to[1] - '0'};
        ts_engine_split split = accels(1, away ? r->n_layer + 1 : 0);
        split.split.overrides = &o;
        split.split.n_overrides = 1;
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_options opt = options(TS_ISA_REF);
        opt.stream = TS_STREAM_AUTO;
        REQUIRE(ts_engine_open_split(&e, r->path, &opt, &split, &err) == TS_OK);
        const ts_stream *t = &e->plan.stream;
        for (int64_t keep = 1;
             keep < t->n_layers && keep <= t->n_leading && t->device && !t->shares; keep++) {
            e->devices.rates =
                (ts_stream_rates){.known = true,
                                  .m = {16, 32},
                                  .cpu = {1, 2},
                                  .gpu = {1e-3, 1e-3},
                                  .unit = 2.5 * (double)keep / (double)(t->n_layers - keep)};
            ran++;
            CHECK(ts_stream_keep(t, &e->devices.rates, 40) > 0);
            memset(r->got, 0xff, r->max * sizeof(float));
            CHECK(timeline(e, r->t, r->got, r->max) == r->n);
            CHECK_MSG(memcmp(r->want, r->got, r->n * sizeof(float)) == 0,
                      "%s, %s, %d layers kept: NMSE %g", r->arch, patterns[i], (int)keep,
                      nmse(r->want, r->got, r->n));
        }
        ts_engine_close(e);
    }
    CHECK_MSG(ran > 0 || r->n_moe || r->n_layer < 2, "%s: nothing was kept", r->arch);
}

/* Layers whose experts alone are the CPU's. */
static void test_shared(reference *r, ts_isa isa)
{
    for (int how = DEVICE; how <= BOTH && r->n_moe; how++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_options o = options(isa);
        ts_engine_split split = accels(1, r->n_layer + 1);
        char what[64];
        split.split.n_cpu_moe = r->n_layer;
        o.stream = TS_STREAM_ON;
        REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
        REQUIRE(e->plan.stream.device && e->plan.stream.shares);
        CHECK(e->devices.rates.come > 0 && e->devices.rates.lead[0] > 0);
        CHECK(e->devices.rates.expert + e->devices.rates.pair > 0);
        set_sharing(&e->devices.rates, (sharing)how);
        fake_streams = fake_sent = fake_left = 0;
        snprintf(what, sizeof what, "experts on the CPU, sharing %d", how);
        memset(r->got, 0xff, r->max * sizeof(float));
        CHECK(timeline(e, r->t, r->got, r->max) == r->n);
        CHECK_MSG((fake_sent > 0) == (how != CPU) && (fake_left > 0 || how == DEVICE),
                  "%s, %s: %d experts came, %d didn't", r->arch, what, (int)fake_sent,
                  (int)fake_left);
        if (isa == TS_ISA_REF)
            CHECK_MSG(nmse(r->want, r->got, r->n) <= (how == BOTH ? 1e-10 : 0), "%s, %s: NMSE %g",
                      r->arch, what, nmse(r->want, r->got, r->n));
        else
            near(r, e, what);
        ts_engine_close(e);
    }
}

/* A device that is held up the second time it runs a streamed layer of so many tokens. */
static int late_runs[64];

static ts_status late_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err)
{
    const bool streamed = first >= s->d->plan->steps.n_main;
    if (streamed && b->m < 64 && late_runs[b->m]++ == 1)
        usleep(60000);
    return fake_run(s, b, first, end, err);
}

/* What is measured after loading isn't what it takes once when something else comes between: for
 * want of a faster second time prompts would never be streamed. */
static void test_late(const char *path)
{
    ts_backend late = fake_backend;
    late.run = late_run;
    const ts_backend *const one[] = {&late};
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o = options(TS_ISA_REF);
    ts_engine_split split = accels(1, 1);
    split.backends = one;
    o.stream = TS_STREAM_AUTO;
    REQUIRE(ts_engine_open_split(&e, path, &o, &split, &err) == TS_OK);
    const ts_stream_rates *q = &e->devices.rates;
    CHECK(q->known && q->m[0] == 4 && q->m[1] == 16 && q->m[2] == 40 && q->m[3] == 40);
    CHECK(late_runs[4] > 1 && late_runs[16] > 1 && late_runs[40] > 1);
    for (int i = 0; i < TS_STREAM_RATES; i++)
        CHECK_MSG(q->gpu[i] > 0 && q->gpu[i] < 0.05, "%g s", q->gpu[i]);
    ts_engine_close(e);
}

/* Which experts come: those with tokens, of these as many as make both sides end at once, those
 * with most tokens first, behind those that come ahead. */
static void test_choice(void)
{
    static const int32_t count[8] = {0, 4, 9, 0, 1, 2, 4, 30};
    int32_t list[8] = {3, 7};
    const ts_stream_rates q = {.come = 1, .expert = 0.5, .pair = 0.1};
    /* nothing costs anything there: all */
    CHECK(ts_stream_share(&(ts_stream_rates){.expert = 1}, count, 8, list, 0) == 6);
    CHECK(list[0] == 7 && list[1] == 2 && list[2] == 1 && list[3] == 6 && list[4] == 5 &&
          list[5] == 4);
    CHECK(ts_stream_share(&(ts_stream_rates){.come = 1}, count, 8, list, 0) == 0);
    /* 3 and 7 come in any case; then 2 comes in 1 while 1, 6, 5, 4 take 4 * 0.5 + 11 * 0.1 = 3.1,
     * with 1: 2 and 2.2, with 6: 3 and 1.3 */
    list[0] = 3;
    list[1] = 7;
    CHECK(ts_stream_share(&q, count, 8, list, 2) == 4);
    CHECK(list[0] == 3 && list[1] == 7 && list[2] == 2 && list[3] == 1);
    const ts_stream t = {.shares = true};
    ts_stream_rates r = {.come = 0.5, .m = {16, 128, 512}, .lead = {1, 2, 6}};
    CHECK(ts_stream_ahead(&t, &r, 16, 64) == 2 && ts_stream_ahead(&t, &r, 128, 64) == 4);
    CHECK(ts_stream_ahead(&t, &r, 320, 64) == 8 && ts_stream_ahead(&t, &r, 4096, 64) == 64);
    r.come = 0;
    CHECK(ts_stream_ahead(&t, &r, 512, 64) == 0);
}

static void test_streams(reference *r, ts_isa isa)
{
    const bool shares = r->n_moe > 0;
    const int64_t next = SANITIZED && r->n_layer > 1 ? r->n_layer - 1 : 1;
    for (int64_t layers = 0; layers < r->n_layer; layers += next) {
        for (int how = DEVICE; how <= (shares ? BOTH : DEVICE); how++)
            streamed(r, isa, layers, ROOMY, 0, true, (sharing)how);
        if (layers == 0) /* no device without a layer there, unless streaming is asked for */
            continue;
        streamed(r, isa, layers, ROOMY, all, true, DEVICE);
        if (r->n_layer - layers > 1 && !shares)
            streamed(r, isa, layers, ROOMY, 1, true, DEVICE);
    }
    /* room for K and V of one layer of three */
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o = options(isa);
    ts_engine_split split = accels(1, 0);
    o.stream = TS_STREAM_ON;
    REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
    const ts_plan_device *d = &e->plan.dev[1];
    const size_t one = d->kv / (size_t)d->n_streamed;
    const size_t least = need(d) + 4 * e->plan.stream.piece + e->plan.stream.source - d->kv + one;
    ts_engine_close(e);
    streamed(r, isa, 0, least, 0, r->n_layer == 1, DEVICE);
    two[0].memory = least - 1;
    e = NULL;
    CHECK(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_NO_MEMORY && !e);
    two[0].memory = ROOMY; /* what was asked for comes first: then nothing is streamed */
    o.stream = TS_STREAM_OFF;
    split = accels(1, 1);
    REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
    two[0].memory = need(&e->plan.dev[1]);
    ts_engine_close(e);
    o.stream = TS_STREAM_AUTO;
    REQUIRE(ts_engine_open_split(&e, r->path, &o, &split, &err) == TS_OK);
    CHECK(e->plan.stream.device == 0 && e->plan.n_gpu_layers == 1);
    ts_engine_close(e);
    two[0].memory = ROOMY;
}

/* --- K, V, several accelerators, experts ----------------------------------------- */

/* K, V and attention on the CPU, weights on the accelerators: the same bits, and no KV cache there.
 * Even numbers of layers on one accelerator, odd ones on two. */
static void test_kv_on_cpu(reference *r, ts_isa isa)
{
    for (int n = 1; n <= 2; n++)
        for (int64_t layers = n - 1; layers <= r->n_layer + 1; layers += 2) {
            char what[80];
            snprintf(what, sizeof what, "K and V on the CPU, %d accelerators, %d layers", n,
                     (int)layers);
            ts_engine_split split = accels(n, layers);
            ts_override o = {"attn_(q|output)", (int)(layers % 3 ? 0 : n)};
            split.split.kv_on_cpu = true;
            compare(r, isa, &split, what);
            split.split.overrides = &o;
            split.split.n_overrides = 1;
            compare(r, isa, &split, what);
        }
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(1, r->n_layer + 1);
    split.split.kv_on_cpu = true;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    CHECK(e->plan.dev[1].n_blocks == r->n_layer && e->plan.dev[1].kv == 0 &&
          e->plan.dev[0].n_layers == r->n_layer && e->plan.dev[0].kv > 0);
    /* q, k, v (or q and the latent) there and o back, of each layer; the hidden state there, and
     * the logits back */
    const int want = (e->m->layers[0].k_b ? 3 : 4) * (int)r->n_layer + 2;
    CHECK_MSG(copies(&e->plan.steps) == want, "%s: %d copies", r->arch, copies(&e->plan.steps));
    ts_engine_close(e);
    /* q is made on the CPU and stays there: what was normed comes in its place; without a norm that
     * is the hidden state, which is there before the first layer */
    const ts_override q = {"attn_q", 0};
    split.split.overrides = &q;
    split.split.n_overrides = 1;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    const int without = e->m->layers[0].attn_norm == NULL;
    CHECK_MSG(copies(&e->plan.steps) == want - without, "%s: %d copies", r->arch,
              copies(&e->plan.steps));
    ts_engine_close(e);
}

/* On accelerators without latent attention: K, V and what is between them and the products stay on
 * the CPU, whatever patterns say. */
static void test_latent(reference *r)
{
    ts_accel_kind without = fake_kind;
    without.latent = NULL;
    two[0].kind = two[1].kind = &without;
    for (int n = 1; n <= 2; n++)
        for (int64_t layers = 1; layers <= r->n_layer + 1; layers++) {
            ts_error err = {0};
            ts_engine *e = NULL;
            ts_engine_split split = accels(n, layers);
            const ts_override o = {"attn_(k|v)_b", 1};
            split.split.overrides = &o;
            split.split.n_overrides = (size_t)(layers % 2);
            compare(r, TS_ISA_REF, &split, "latent attention on the CPU");
            REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
            CHECK(e->plan.dev[0].n_layers == r->n_layer && e->plan.dev[1].kv == 0);
            const ts_layer *l = &e->m->layers[r->n_layer - 1];
            CHECK(l->device > 0 && l->wq->device == l->device && l->k_b->device == 0 &&
                  l->v_b->device == 0);
            ts_engine_close(e);
        }
    two[0].kind = two[1].kind = &fake_kind;
}

/* Layers by shares; the output matrix on the main accelerator. */
static void test_shares(reference *r)
{
    static const struct {
        double share[2];
        int main;
    } cases[] = {{{1, 1}, 1}, {{3, 1}, 0}, {{0, 1}, 1}, {{1, 0}, 2}, {{1, 3}, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = accels(2, r->n_layer + 1);
        const double *share = cases[i].share;
        split.split.main = cases[i].main;
        two[0].share = share[0];
        two[1].share = share[1];
        compare(r, TS_ISA_REF, &split, "shares");
        REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
        int64_t n[3] = {0};
        for (int64_t l = 0; l < r->n_layer; l++)
            n[e->m->layers[l].device]++;
        const double want = (double)r->n_layer * share[0] / (share[0] + share[1]);
        CHECK_MSG(n[0] == 0 && fabs((double)n[1] - want) <= 0.5, "%g, %g: %d and %d", share[0],
                  share[1], (int)n[1], (int)n[2]);
        const int main = cases[i].main ? cases[i].main : e->m->layers[r->n_layer - 1].device;
        CHECK(e->m->output->device == main);
        ts_engine_close(e);
        two[0].share = two[1].share = 0;
    }
}

/* Weights of experts, of which there is no model here. */
static void test_experts(void)
{
    enum { LAYERS = 12, EACH = 5 };
    static const char *const names[EACH] = {"attn_q", "ffn_gate_exps", "ffn_up_exps",
                                            "ffn_down_exps", "ffn_gate_shexp"};
    static ts_tensor tensor[LAYERS * EACH + 1];
    static ts_weight weight[LAYERS * EACH + 1];
    static char text[LAYERS * EACH + 1][40];
    static ts_layer layer[LAYERS];
    ts_model m = {.layers = layer, .weights = weight, .n_weights = LAYERS * EACH + 1};
    m.hp.n_layer = LAYERS;
    m.hp.moe.n_expert = 2;
    m.output = m.token_embd = &weight[LAYERS * EACH];
    for (int i = 0; i <= LAYERS * EACH; i++) {
        snprintf(text[i], sizeof text[i], "blk.%d.%s.weight", i / EACH, names[i % EACH]);
        tensor[i].name = i < LAYERS * EACH ? text[i] : "output.weight";
        weight[i].source = &tensor[i];
    }
    for (int64_t n = 0; n <= LAYERS + 1; n++) {
        const ts_override o = {"blk.0.ffn_up_exps", 2};
        ts_split s = {.accels = two, .n_accels = 2, .n_cpu_moe = n, .overrides = &o};
        ts_error err = {0};
        s.n_overrides = n == 0 ? 0 : 1;
        for (int i = 0; i < LAYERS; i++)
            layer[i] = (ts_layer){.wq = &weight[i * EACH],
                                  .gate_exps = &weight[i * EACH + 1],
                                  .up_exps = &weight[i * EACH + 2],
                                  .down_exps = &weight[i * EACH + 3],
                                  .wo = &weight[i * EACH + 4]};
        REQUIRE(ts_split_place(&s, (ts_placing){.layers = LAYERS}, &m, &err) == TS_OK);
        for (int i = 0; i < LAYERS * EACH; i++) {
            const bool expert = strstr(text[i], "_exps"), cpu = expert && i / EACH < n;
            const int want = n && i == 2 ? 2 : cpu ? 0 : layer[i / EACH].device;
            CHECK_MSG(weight[i].device == want, "%d: %s on %d", (int)n, text[i], weight[i].device);
        }
    }
    /* without experts in any layer; layers that have none are nothing wrong */
    ts_split s = {.accels = two, .n_accels = 1, .n_cpu_moe = 1};
    ts_error err = {0};
    layer[0].gate_exps = layer[0].up_exps = layer[0].down_exps = NULL;
    CHECK(ts_split_place(&s, (ts_placing){.layers = LAYERS}, &m, &err) == TS_OK);
    m.hp.moe.n_expert = 0;
    CHECK(ts_split_place(&s, (ts_placing){0}, &m, &err) == TS_BAD_ARG &&
          strstr(err.msg, "the model has no experts"));
}

/* With the experts on the CPU, an accelerator's block begins its shared expert when all that the
 * others want has been copied, and nothing is copied before they are done. */
static void test_shared_expert(const reference *r)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = accels(1, r->n_layer);
    split.split.n_cpu_moe = INT64_MAX;
    REQUIRE(open_split(&e, r->path, TS_ISA_REF, &split, &err) == TS_OK);
    const ts_steps *s = &e->plan.steps;
    int seen = 0;
    for (size_t i = 0; i < s->n_main; i++) {
        const ts_step *st = &s->v[i];
        const ts_layer *l = st->layer < 0 ? NULL : &e->m->layers[st->layer];
        if (!l || !l->router || !l->gate || !st->w || st->w != l->gate)
            continue;
        bool routed = false;
        CHECK(st->device == 1);
        for (; s->v[i].op != TS_OP_COMBINE; i++) {
            CHECK_MSG(s->v[i].op != TS_OP_COPY, "%s: a copy in layer %d", r->arch, st->layer);
            CHECK(routed ? s->v[i].device == 0
                         : (s->v[i].device == 0) == (s->v[i].op == TS_OP_ROUTE));
            routed = routed || s->v[i].op == TS_OP_ROUTE;
        }
        CHECK(routed);
        seen++;
    }
    CHECK_MSG(seen > 0, "%s has no shared expert", r->arch);
    ts_engine_close(e);
}

/* --- failures ----------------------------------------------------------------- */

static char warnings[2000]; /* each with a newline */

static void log_line(void *user, ts_log_level level, const char *line)
{
    (void)user;
    const size_t n = strlen(warnings);
    if (level <= TS_LOG_WARN)
        snprintf(warnings + n, sizeof warnings - n, "%s\n", line);
}

static int lines(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

static ts_status open_logged(ts_engine **e, const char *path, const ts_engine_split *split,
                             ts_error *err)
{
    ts_engine_options o = options(TS_ISA_REF);
    o.log = log_line;
    warnings[0] = 0;
    return ts_engine_open_split(e, path, &o, split, err);
}

/* From one call on there is no memory at all: the CPU does everything, and says so once. */
static void test_no_memory(reference *r)
{
    ts_engine_split split = accels(2, r->n_layer + 1);
    char said[80];
    snprintf(said, sizeof said, "are on GPUs instead of %d\n", (int)r->n_layer);
    for (int64_t at = 0; at < 40; at++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        fake_calls = 0;
        fake_fails_at = at;
        fake_fails_on = true;
        const ts_status st = open_logged(&e, r->path, &split, &err);
        fake_fails_on = false;
        fake_fails_at = -1;
        if (st || e->plan.placing.output) { /* it wasn't an allocation that failed first, or none */
            CHECK(st == TS_IO ? !e : lines(warnings) == 0);
            ts_engine_close(e);
            continue;
        }
        CHECK_MSG(e->plan.n_gpu_layers == 0 && lines(warnings) == 1 &&
                      strstr(warnings, "; 0 of ") && strstr(warnings, said) &&
                      strstr(warnings, "as it was told"),
                  "call %d: %d layers, %s", (int)at, (int)e->plan.n_gpu_layers, warnings);
        CHECK(timeline(e, r->t, r->got, r->max) == r->n);
        CHECK(memcmp(r->want, r->got, r->n * sizeof(float)) == 0);
        ts_engine_close(e);
    }
}

/* Every call of an accelerator fails once: opening ends with its sentence, an eval too, and the
 * next one gives what it would have given. */
static void test_failures(reference *r)
{
    ts_engine_split split = accels(2, r->n_layer);
    ts_error err;
    ts_engine *e = NULL;
    int smaller = 0;
    int64_t at = 0;
    for (;; at++) {
        fake_calls = 0;
        fake_fails_at = at;
        err = (ts_error){0};
        const ts_status st = open_logged(&e, r->path, &split, &err);
        if (st == TS_OK && e->plan.n_gpu_layers == r->n_layer && !e->plan.placing.cpu_experts)
            break;
        /* no memory: a smaller plan, and one line says so; else a sentence */
        CHECK_MSG(st ? !e && strstr(err.msg, "as it was told") && lines(warnings) == 0
                     : e->plan.n_gpu_layers == r->n_layer - !r->n_moe &&
                           (e->plan.placing.cpu_experts > 0) == (r->n_moe > 0) &&
                           lines(warnings) == 1 && strstr(warnings, "as it was told") && ++smaller,
                  "call %d: %s", (int)at, err.msg);
        ts_engine_close(e);
        e = NULL;
    }
    /* weights and a session, on both */
    CHECK_MSG(smaller == 4, "%d smaller plans", smaller);
    CHECK_MSG(at >= 2 + 2 + 10, "opening ended well with %d failures", (int)at);
    /* the first session's memory has been taken; that of the second may fail */
    ts_session *s = NULL, *second = NULL;
    fake_calls = fake_fails_at = 0;
    REQUIRE(ts_session_open(&second, e, &err) == TS_OK && fake_calls == 0);
    for (at = 0;; at++) {
        fake_calls = 0;
        fake_fails_at = at;
        if (ts_session_open(&s, e, &err) == TS_OK)
            break;
        CHECK(!s && strstr(err.msg, "as it was told"));
    }
    CHECK(at == 2);
    const size_t v = (size_t)e->m->hp.n_vocab;
    for (at = 0;; at++) {
        fake_calls = 0;
        fake_fails_at = at;
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        if (ts_session_eval(s, r->t, 17, 1, &err) == TS_OK)
            break;
        CHECK(strstr(err.msg, "as it was told") && ts_session_pos(s) == 0 &&
              !ts_session_logits(s, 0));
    }
    CHECK_MSG(at >= 4, "an eval ended well with %d failures", (int)at);
    CHECK(memcmp(ts_session_logits(s, 0), r->want, v * sizeof(float)) == 0);
    fake_fails_at = -1;
    ts_session_close(second);
    ts_session_close(s);
    ts_engine_close(e);
}

/* Norms of each head of Q and K, which only a deep model has. */
static void test_deep(const char *path)
{
    ts_error err = {0};
    const ts_synth_options o = {
        .arch = "command-r", .preset = "tiny-deep", .type = "Q8_0", .seed = 1, .n_threads = 1};
    REQUIRE(ts_synth_write(path, &o, NULL, &err) == TS_OK);
    reference r;
    open_reference(&r, "command-r, 64 layers", path, TS_ISA_REF);
    ts_engine_split split = accels(2, 40);
    compare(&r, TS_ISA_REF, &split, "40 layers");
    split.split.kv_on_cpu = true;
    compare(&r, TS_ISA_REF, &split, "40 layers, K and V on the CPU");
    close_reference(&r);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    test_experts();
    test_choice();
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        /* sanitizers look at what is the same for all once */
        if (SANITIZED && i != 0 && i != 4 && strcmp(archs[i], "deepseek2"))
            continue;
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, archs[i], i % 2 ? "Q4_K_M" : "Q8_0", false, &err) == TS_OK);
        n_threads = i == 0 || i == 4 || i == 5 ? 2 : 1; /* dense, experts, a shared one */
        const bool whole = !SANITIZED || i == 0;
        reference r;
        open_reference(&r, archs[i], path, TS_ISA_REF);
        if (i == 0)
            test_late(path);
        if (whole)
            test_layers(&r, TS_ISA_REF, SANITIZED ? 2 : 1);
        test_copies(&r);
        test_overrides(&r, TS_ISA_REF, SANITIZED ? 2 : 8);
        if (r.n_moe) {
            test_fit_experts(&r);
        } else {
            test_fit(&r);
            test_rest(&r);
        }
        if (whole)
            test_kv_on_cpu(&r, TS_ISA_REF);
        if (i < 8 && whole) { /* how layers are shared out and what fails is the same for all */
            test_shares(&r);
            test_patterns(&r);
            test_bad_patterns(&r);
            test_no_memory(&r);
        }
        if (i < 8)
            test_failures(&r);
        if (strcmp(archs[i], "qwen2moe") == 0 || strcmp(archs[i], "glm4moe") == 0)
            test_shared_expert(&r);
        if (strstr(archs[i], "deepseek2"))
            test_latent(&r);
        test_streams(&r, TS_ISA_REF);
        test_shared(&r, TS_ISA_REF);
        if (whole)
            test_rows_kept(&r);
        stream_mode = TS_STREAM_ON; /* prompts of 40 tokens are */
        if (whole)
            test_layers(&r, TS_ISA_REF, SANITIZED ? 2 : 1);
        test_overrides(&r, TS_ISA_REF, SANITIZED ? 1 : 8);
        stream_mode = TS_STREAM_OFF;
        if (i < 5) {
            test_turns(&r);
            test_stream_failures(&r);
        }
        close_reference(&r);
        if (SANITIZED && i > 0) /* other kernels of the CPU: once will do */
            continue;
        open_reference(&r, archs[i], path, TS_ISA_AUTO);
        test_layers(&r, TS_ISA_AUTO, 2);
        if (!SANITIZED)
            test_kv_on_cpu(&r, TS_ISA_AUTO);
        test_overrides(&r, TS_ISA_AUTO, 3);
        if (strcmp(archs[i], "deepseek2")) /* packed, its v_b isn't one piece */
            test_streams(&r, TS_ISA_AUTO);
        test_cpu_sets(&r);
        close_reference(&r);
    }
    test_deep(path);
    unlink(path);
    return check_done("split");
}

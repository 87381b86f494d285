/* test_cuda_device.c - the CUDA device with the stand-in for CUDA: tiny models of every
 * architecture, split between CPU and GPU in every way, against the CPU's `ref`; fused and recorded
 * steps against steps one by one; failures of every call of the driver. Kernels run on the CPU
 * here, so this shows what is computed, not how fast. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cuda/device.h"
#include "cuda/rt_standin.h"
#include "engine.h"
#include "gguf/synth.h"

#define CTX 60

static const char *const archs[] = {"llama",    "qwen2",     "qwen3", "gemma3",
                                    "qwen3moe", "qwen2moe",  "olmo2", "granite",
                                    "gemma2",   "command-r", "phi3"};
enum { N_ARCHS = sizeof archs / sizeof *archs };
static const ts_backend *const cuda[] = {&ts_backend_cuda};
static const ts_backend *const plain[] = {&ts_backend_cuda_plain};
static const ts_accel gpu = {"CUDA0", 0, &ts_cuda_kind, (size_t)1 << 40, 0, 0, 0, 0};

/* BF16 on both sides of products with more than a few tokens; 15 bits and F16 K and V else. */
#define MANY 1e-3
#define FEW  1e-5

static ts_engine_split layers(int64_t n)
{
    return (ts_engine_split){
        .split = {.accels = &gpu, .n_accels = n < 0 ? 0 : 1, .n_gpu_layers = n}, .backends = cuda};
}

static ts_engine_options options(int n_threads)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    o.n_ctx = CTX;
    o.n_ubatch = 24;
    o.n_logits = 3;
    o.n_threads = n_threads;
    return o;
}

static ts_status open_threads(ts_engine **e, const char *path, const ts_engine_split *split,
                              int n_threads, bool (*progress)(void *, double), void *user,
                              ts_error *err)
{
    ts_engine_options o = options(n_threads);
    o.progress = progress;
    o.progress_user = user;
    o.stream = TS_STREAM_OFF;
    return ts_engine_open_split(e, path, &o, split, err);
}

static ts_status open_engine(ts_engine **e, const char *path, const ts_engine_split *split,
                             ts_error *err)
{
    return open_threads(e, path, split, 1, NULL, NULL, err);
}

typedef struct part {
    size_t n, rows;
} part;

/* Prompt, single tokens, several, to the end of the context; logits of all to out. */
static size_t timeline(ts_engine *e, const part *script, size_t parts, const ts_token *t,
                       float *out)
{
    ts_error err = {0};
    ts_session *s = NULL;
    ts_status st = ts_session_open(&s, e, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(s);
    const size_t v = (size_t)e->m->hp.n_vocab;
    size_t at = 0;
    for (size_t i = 0; i < parts; i++) {
        const int64_t pos = ts_session_pos(s);
        st = ts_session_eval(s, t + pos, script[i].n, script[i].rows, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        for (size_t r = 0; r < script[i].rows && !st; r++, at += v)
            memcpy(out + at, ts_session_logits(s, r), v * sizeof *out);
    }
    ts_session_close(s);
    return at;
}

static const part few[] = {{5, 1}, {1, 1}, {8, 3}, {1, 1}};
static const part many[] = {{37, 3}, {1, 1}, {1, 1}, {CTX - 39, 2}};

static void test_layers(const char *arch, const char *type, const char *path, int64_t n_layer,
                        const ts_token *t)
{
    for (int which = 0; which < 2; which++) {
        const part *script = which ? many : few;
        static float want[10 * 600], got[10 * 600];
        size_t n = 0;
        for (int64_t l = -1; l <= n_layer + 1; l += l < 0 ? 2 : which ? n_layer : 1) {
            ts_error err = {0};
            ts_engine *e = NULL;
            ts_engine_split split = layers(l);
            const ts_status st = open_engine(&e, path, &split, &err);
            CHECK_MSG(st == TS_OK, "%s %s, %d layers: %s", arch, type, (int)l, err.msg);
            if (st)
                continue;
            memset(got, 0xff, sizeof got);
            REQUIRE(10 * e->m->hp.n_vocab <= 10 * 600);
            n = timeline(e, script, 4, t, l < 0 ? want : got);
            if (l >= 0) {
                const double d = nmse(want, got, n);
                CHECK_MSG(d <= (which ? MANY : FEW), "%s %s, %d layers on the GPU, %s: NMSE %g",
                          arch, type, (int)l, which ? "many tokens" : "few tokens", d);
                if (getenv("TS_VERBOSE"))
                    printf("%s %s, %d layers, %s: NMSE %g\n", arch, type, (int)l,
                           which ? "many" : "few", d);
            }
            ts_engine_close(e);
        }
    }
}

/* What steps one by one give. Of the tokens by themselves the first is launched, the second is
 * recorded, and all from then on are replayed. */
static const part steady[] = {{5, 1},  {1, 1}, {1, 1}, {3, 2}, {1, 1}, {2, 1}, {2, 2},  {1, 1},
                              {17, 1}, {1, 1}, {3, 2}, {2, 1}, {2, 2}, {1, 1}, {17, 1}, {1, 1}};
enum { STEADY = sizeof steady / sizeof *steady };

/* The GPU's: one, where what is between them isn't the CPU's. */
static int segments(const ts_steps *s)
{
    int n = 0;
    for (size_t i = 0; i < s->n_main; i = ts_steps_segment(s, i))
        n += s->v[i].op != TS_OP_COPY && s->v[i].device == 1;
    return n;
}

/* With all layers on the GPU; some: with the last one only, too. */
static void test_same(const char *arch, const char *path, int64_t n_layers, bool some,
                      const ts_token *t)
{
    static float want[20 * 600], got[20 * 600];
    for (int64_t l = some ? 1 : n_layers + 1; l <= n_layers + 1; l += n_layers) {
        size_t n[2];
        for (int fast = 0; fast < 2; fast++) {
            ts_error err = {0};
            ts_engine *e = NULL;
            ts_engine_split split = layers(l);
            split.backends = fast ? cuda : plain;
            const ts_status st = open_engine(&e, path, &split, &err);
            CHECK_MSG(st == TS_OK, "%s: %s", arch, err.msg);
            REQUIRE(st == TS_OK && 20 * e->m->hp.n_vocab <= 20 * 600);
            memset(fast ? got : want, 0xff, sizeof got);
            ts_rt_replays = 0;
            n[fast] = timeline(e, steady, STEADY, t, fast ? got : want);
            /* of {1, 1} six, of three others one */
            const int replays = fast ? 9 * segments(&e->plan.steps) : 0;
            CHECK_MSG(ts_rt_replays == replays, "%s, %d layers: %d replays", arch, (int)l,
                      (int)ts_rt_replays);
            CHECK(segments(&e->plan.steps) == 1);
            CHECK(ts_rt_graphs == 0);
            ts_engine_close(e);
        }
        CHECK_MSG(n[0] == n[1] && memcmp(want, got, n[0] * sizeof *got) == 0,
                  "%s, %d layers: fused and recorded, NMSE %g", arch, (int)l,
                  nmse(want, got, n[0]));
    }
}

/* Batches of every size, again and again: a session keeps a few graphs. */
static void test_graphs(const char *path, const ts_token *t)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_engine_split split = layers(1);
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    int64_t most = 0;
    ts_rt_replays = 0;
    for (int i = 0; i < 6; i++)
        for (size_t n = 1, pos = 0; n <= 7; pos += 2 * n, n++)
            for (int twice = 0; twice < 2; twice++) {
                REQUIRE(pos + 2 * n <= CTX);
                CHECK(ts_session_eval(s, t + pos, n, n > 2 ? 2 : 1, &err) == TS_OK);
                most = ts_rt_graphs > most ? ts_rt_graphs : most;
                if (n == 7 && twice)
                    CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
            }
    CHECK_MSG(most > 1 && most <= 4 && ts_rt_replays > 20, "%d graphs at once, %d replays",
              (int)most, (int)ts_rt_replays);
    ts_session_close(s);
    CHECK(ts_rt_graphs == 0);
    ts_engine_close(e);
}

/* Where no graph can be made, launches serve. */
static void test_no_graphs(const char *path, const ts_token *t)
{
    static float want[20 * 600], got[20 * 600];
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = layers(1);
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    const size_t n = timeline(e, steady, STEADY, t, want);
    ts_rt_replays = 0;
    ts_rt_no_graphs = true;
    CHECK(timeline(e, steady, STEADY, t, got) == n);
    ts_rt_no_graphs = false;
    CHECK(ts_rt_replays == 0 && memcmp(want, got, n * sizeof *got) == 0);
    ts_engine_close(e);
}

/* Says stop once so much is loaded. */
static bool until(void *user, double done)
{
    double *p = user;
    CHECK(done >= p[1] && done <= 1);
    p[1] = done;
    return done < p[0];
}

/* Several threads upload what one does, say how far they are, stop when told to, and stop when one
 * fails. */
static void test_loaders(const char *path, const ts_token *t)
{
    static float want[20 * 600], got[20 * 600];
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = layers(3);
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    const size_t n = timeline(e, steady, STEADY, t, want);
    ts_engine_close(e);
    for (int threads = 2; threads <= (SANITIZED ? 2 : 9); threads += 7) {
        double done[2] = {2, 0};
        REQUIRE(open_threads(&e, path, &split, threads, until, done, &err) == TS_OK);
        CHECK(done[1] == 1);
        CHECK(timeline(e, steady, STEADY, t, got) == n && !memcmp(want, got, n * sizeof *got));
        ts_engine_close(e);
        e = NULL;
        done[0] = 0.5;
        done[1] = 0;
        CHECK(open_threads(&e, path, &split, threads, until, done, &err) == TS_CANCELLED && !e);
        ts_rt_calls = 0;
        ts_rt_fails_at = 40;
        CHECK(open_threads(&e, path, &split, threads, NULL, NULL, &err) == TS_IO && !e &&
              strstr(err.msg, "an upload failed: told to fail"));
        ts_rt_fails_at = -1;
    }
}

/* Two sessions at once share the GPU's stream and its pieces: each gets what it would alone. */
typedef struct caller {
    ts_engine *e;
    const ts_token *t;
    float got[10 * 600];
    size_t n;
} caller;

static void *call(void *arg)
{
    caller *c = arg;
    c->n = timeline(c->e, few, 4, c->t, c->got);
    return NULL;
}

static atomic_int unpinned; /* lines that say so */

static void log_line(void *user, ts_log_level level, const char *line)
{
    (void)user;
    (void)level;
    unpinned += strstr(line, "can't be pinned") != NULL;
}

/* Two GPUs, of which each has layers, or the second none: then it isn't opened. Both copy straight
 * from and to the CPU's buffers. */
static void test_two_gpus(const char *path, int64_t n_layer, const ts_token *t)
{
    static const ts_backend *const twice[] = {&ts_backend_cuda, &ts_backend_cuda};
    static float want[10 * 600], got[10 * 600];
    ts_accel pair[2] = {gpu, gpu};
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split one = layers(n_layer + 1);
    REQUIRE(open_engine(&e, path, &one, &err) == TS_OK);
    const size_t count = timeline(e, few, 4, t, want);
    ts_engine_close(e);
    pair[1].name = "CUDA1";
    pair[1].ordinal = 1;
    for (int idle = 0; idle < 2; idle++) {
        ts_engine_split split = {
            .split = {.accels = pair, .n_accels = 2, .n_gpu_layers = n_layer + 1},
            .backends = twice};
        ts_engine_options o = options(1);
        o.log = log_line;
        pair[1].memory = idle ? 1000 : gpu.memory;
        unpinned = 0;
        const ts_status st = ts_engine_open_split(&e, path, &o, &split, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        if (st)
            continue;
        CHECK((e->plan.dev[2].n_blocks > 0) == !idle && (e->devices.dev[2] != NULL) == !idle);
        CHECK(timeline(e, few, 4, t, got) == count);
        CHECK_MSG(memcmp(want, got, count * sizeof *want) == 0, "two GPUs: NMSE %g",
                  nmse(want, got, count));
        CHECK_MSG(unpinned == 0, "%d times the CPU's buffers weren't pinned", unpinned);
        ts_engine_close(e);
    }
}

static void test_two_sessions(const char *path, const ts_token *t)
{
    static caller alone, both[2];
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = layers(1);
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    alone = (caller){.e = e, .t = t};
    call(&alone);
    for (int round = 0; round < 4; round++) {
        pthread_t thread[2];
        for (int i = 0; i < 2; i++) {
            both[i] = (caller){.e = e, .t = t};
            REQUIRE(pthread_create(&thread[i], NULL, call, &both[i]) == 0);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(thread[i], NULL);
            CHECK(both[i].n == alone.n &&
                  memcmp(both[i].got, alone.got, alone.n * sizeof(float)) == 0);
        }
    }
    ts_engine_close(e);
}

/* Every launch of an eval fails once: a sentence, and the next one gives what it would have. */
static void test_launches(ts_engine *e, ts_session *s, const ts_token *t)
{
    const size_t bytes = (size_t)e->m->hp.n_vocab * sizeof(float);
    static float want[600];
    ts_error err = {0};
    int64_t at = 0;
    REQUIRE(bytes <= sizeof want);
    CHECK(ts_session_rewind(s, 0, &err) == TS_OK && ts_session_eval(s, t, 5, 1, &err) == TS_OK);
    memcpy(want, ts_session_logits(s, 0), bytes);
    for (at = 1;; at++) {
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        ts_sim_refuse(at);
        if (ts_session_eval(s, t, 5, 1, &err) == TS_OK)
            break;
        CHECK_MSG(strstr(err.msg, "CUDA0: ") && strstr(err.msg, " failed: "), "%s", err.msg);
        CHECK(ts_session_pos(s) == 0 && !ts_session_logits(s, 0));
    }
    ts_sim_refuse(0);
    CHECK_MSG(at > 8, "%d launches", (int)at);
    CHECK(memcmp(want, ts_session_logits(s, 0), bytes) == 0);
}

/* --- streaming ------------------------------------------------------------------ */

static size_t piece = 2000; /* bytes: most weights are several */
static int64_t n_cpu_moe;   /* layers whose experts are the CPU's */
static ts_override moved[2];
static size_t n_moved;

static ts_status open_streaming(ts_engine **e, const char *path, ts_isa isa, ts_stream_mode mode,
                                int64_t n, size_t memory, ts_error *err)
{
    ts_accel accel = gpu;
    ts_engine_split split = layers(n);
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_ctx = CTX + 40;
    o.n_ubatch = 40;
    o.n_logits = 3;
    o.n_threads = 2;
    o.stream = mode;
    accel.memory = memory;
    split.split.stream_piece = piece;
    split.split.n_cpu_moe = n_cpu_moe;
    split.split.overrides = moved;
    split.split.n_overrides = n_moved;
    split.split.accels = &accel;
    return ts_engine_open_split(e, path, &o, &split, err);
}

/* Two streamed prompts, between them tokens that the CPU's layers have computed themselves. */
static const part prompts[] = {{37, 3}, {1, 1}, {3, 2}, {40, 3}, {1, 1}};
enum { PROMPTS = sizeof prompts / sizeof *prompts };

/* Experts are the GPU's, the CPU's, or shared with one that comes ahead. */
static void set_sharing(ts_engine *e, int how)
{
    ts_stream_rates *q = &e->devices.rates;
    q->come = how == 0 ? 0 : how == 1 ? 1e9 : 1;
    q->expert = how == 1 ? 0 : 1;
    q->pair = how == 1 ? 0 : 0.1;
    for (int i = 0; i < TS_STREAM_RATES; i++)
        q->lead[i] = how == 2;
}

/* Of layers of the GPU the experts alone are streamed; three ways to share them. */
static void test_shared(const char *arch, const char *type, const char *path, int64_t n_layer,
                        const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    ts_error err = {0};
    ts_engine *e = NULL;
    REQUIRE(open_streaming(&e, path, TS_ISA_REF, TS_STREAM_OFF, -1, gpu.memory, &err) == TS_OK);
    const size_t count = timeline(e, prompts, PROMPTS, t, want);
    ts_engine_close(e);
    n_cpu_moe = n_layer;
    for (int how = 0; how < 3; how++) {
        const ts_status st =
            open_streaming(&e, path, TS_ISA_AUTO, TS_STREAM_ON, n_layer + 1, gpu.memory, &err);
        CHECK_MSG(st == TS_OK, "%s %s: %s", arch, type, err.msg);
        if (st)
            break;
        CHECK(e->plan.stream.shares);
        set_sharing(e, how);
        CHECK(timeline(e, prompts, PROMPTS, t, got) == count);
        CHECK_MSG(nmse(want, got, count) <= MANY, "%s %s, sharing %d: NMSE %g", arch, type, how,
                  nmse(want, got, count));
        ts_engine_close(e);
    }
    n_cpu_moe = 0;
}

/* Of single tokens, too, the GPU has some of the chosen experts, which it reads where the CPU has
 * packed them: of every number the logits are those of none, when the first list serves, and
 * segments of the second list become graphs. */
static const part singles[] = {{5, 1}, {1, 1}, {1, 1}, {41, 1}, {1, 1}, {1, 1}, {3, 1}, {1, 1}};
enum { SINGLES = sizeof singles / sizeof *singles };

/* Every launch of such a token fails once: a sentence, and the next one gives what it would have.
 * Once that has been a graph's, launches serve. */
static void fail_alone(ts_engine *e, const ts_token *t)
{
    const size_t bytes = (size_t)e->m->hp.n_vocab * sizeof(float);
    static float want[600];
    ts_error err = {0};
    ts_session *s = NULL;
    int64_t at = 1, errors = 0, well = 0;
    REQUIRE(bytes <= sizeof want && ts_session_open(&s, e, &err) == TS_OK);
    CHECK(ts_session_eval(s, t, 5, 1, &err) == TS_OK);
    CHECK(ts_session_eval(s, t + 5, 1, 1, &err) == TS_OK);
    memcpy(want, ts_session_logits(s, 0), bytes);
    for (; well < 4; at++) { /* graphs that are made are launches that don't count */
        CHECK(ts_session_rewind(s, 5, &err) == TS_OK);
        ts_sim_refuse(at);
        const ts_status st = ts_session_eval(s, t + 5, 1, 1, &err);
        ts_sim_refuse(0);
        errors += st != TS_OK;
        well = st == TS_OK ? well + 1 : 0;
        CHECK_MSG(st == TS_OK || (strstr(err.msg, "CUDA0: ") && strstr(err.msg, " failed: ")), "%s",
                  err.msg);
        CHECK(st == TS_OK || (ts_session_pos(s) == 5 && !ts_session_logits(s, 0)));
        CHECK(st != TS_OK || memcmp(want, ts_session_logits(s, 0), bytes) == 0);
    }
    CHECK_MSG(errors > 8, "%d of %d launches failed", (int)errors, (int)at);
    ts_session_close(s);
}

/* Two sessions at once, each of prompts that are streamed and of such tokens. */
static const part mixed[] = {{5, 1}, {1, 1}, {40, 1}, {1, 1}, {1, 1}, {33, 1}, {1, 1}};

static void *call_mixed(void *arg)
{
    caller *c = arg;
    c->n = timeline(c->e, mixed, sizeof mixed / sizeof *mixed, c->t, c->got);
    return NULL;
}

static void two_alone(ts_engine *e, const ts_token *t)
{
    static caller one, both[2];
    pthread_t thread[2];
    one = (caller){.e = e, .t = t};
    call_mixed(&one);
    for (int i = 0; i < 2; i++) {
        both[i] = (caller){.e = e, .t = t};
        REQUIRE(pthread_create(&thread[i], NULL, call_mixed, &both[i]) == 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        CHECK_MSG(both[i].n == one.n && memcmp(both[i].got, one.got, one.n * sizeof(float)) == 0,
                  "two sessions: NMSE %g", nmse(one.got, both[i].got, one.n));
    }
}

/* A layer whose experts are on both sides isn't shared, nor is anything of a token then. */
static void test_not_alone(const char *path, int64_t n_layer, const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    static const char *const all[] = {"blk\\.0\\.ffn_.*_exps", "blk\\.1\\.ffn_.*_exps"};
    static const char *const some[] = {"blk\\.1\\.ffn_(gate|up)_exps", "blk\\.0\\.ffn_down_exps"};
    for (int i = 0; i < 2; i++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        n_moved = 0;
        REQUIRE(open_streaming(&e, path, TS_ISA_REF, TS_STREAM_OFF, -1, gpu.memory, &err) == TS_OK);
        const size_t count = timeline(e, few, 4, t, want);
        ts_engine_close(e);
        moved[0] = (ts_override){.pattern = all[i]};
        moved[1] = (ts_override){.pattern = some[i]};
        n_moved = 2;
        const ts_status st = /* tiles would round eight tokens to BF16 */
            open_streaming(&e, path, TS_ISA_AVX2, TS_STREAM_ON, n_layer + 1, gpu.memory, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        n_moved = 0;
        if (st)
            continue;
        CHECK(e->plan.stream.shares && !e->plan.stream.alone && e->devices.rates.alone == 0);
        CHECK(timeline(e, few, 4, t, got) == count && nmse(want, got, count) <= FEW);
        ts_engine_close(e);
    }
}

/* The GPU computes none of a token's experts, one, all but one. all: of all layers the CPU has the
 * experts; else of all but one. */
static void test_alone(const char *arch, const char *type, const char *path, int64_t n_layer,
                       bool all, const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    ts_error err = {0};
    ts_engine *e = NULL;
    n_cpu_moe = all ? n_layer : n_layer - 1;
    int64_t replays = 0;
    for (int64_t n = 0, used = 1; n < used; n = n == 1 && used > 2 ? used - 1 : n + 1) {
        const ts_status st =
            open_streaming(&e, path, TS_ISA_AUTO, TS_STREAM_ON, n_layer + 1, gpu.memory, &err);
        CHECK_MSG(st == TS_OK, "%s %s: %s", arch, type, err.msg);
        if (st)
            break;
        CHECK_MSG(e->plan.stream.alone, "%s %s: a token's experts can't be shared", arch, type);
        used = e->m->hp.moe.n_used;
        set_sharing(e, 1);
        e->devices.rates.alone = n;
        ts_rt_replays = 0;
        const size_t count = timeline(e, singles, SINGLES, t, n ? got : want);
        const double d = n ? nmse(want, got, count) : 0;
        CHECK_MSG(d <= FEW, "%s %s, %d of a token's %d experts on the GPU: NMSE %g", arch, type,
                  (int)n, (int)used, d);
        if (getenv("TS_VERBOSE"))
            printf("%s %s, %d of %d experts: NMSE %g, %d replays\n", arch, type, (int)n, (int)used,
                   d, (int)ts_rt_replays);
        replays = n == 0 ? ts_rt_replays : replays;
        CHECK_MSG(n == 0 || ts_rt_replays > replays, "%s, %d experts: %d replays, without %d", arch,
                  (int)n, (int)ts_rt_replays, (int)replays);
        if (n == 1) {
            fail_alone(e, t);
            if (all)
                two_alone(e, t);
        }
        ts_engine_close(e);
    }
    n_cpu_moe = 0;
}

/* One of the two weights of a GLU is the CPU's: it comes, the other is there. */
static void test_glu_apart(const char *arch, const char *path, int64_t n_layer, const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    static const char *const which[] = {"ffn_up\\.", "ffn_gate\\."};
    ts_error err = {0};
    ts_engine *e = NULL;
    REQUIRE(open_streaming(&e, path, TS_ISA_REF, TS_STREAM_OFF, -1, gpu.memory, &err) == TS_OK);
    const size_t count = timeline(e, prompts, PROMPTS, t, want);
    ts_engine_close(e);
    for (int i = 0; i < 2; i++) {
        moved[0] = (ts_override){.pattern = which[i]};
        n_moved = 1;
        const ts_status st =
            open_streaming(&e, path, TS_ISA_AUTO, TS_STREAM_ON, n_layer + 1, gpu.memory, &err);
        CHECK_MSG(st == TS_OK, "%s, %s: %s", arch, which[i], err.msg);
        n_moved = 0;
        if (st)
            continue;
        CHECK(e->plan.stream.n_layers == n_layer);
        CHECK(timeline(e, prompts, PROMPTS, t, got) == count);
        CHECK_MSG(nmse(want, got, count) <= MANY, "%s, %s: NMSE %g", arch, which[i],
                  nmse(want, got, count));
        ts_engine_close(e);
    }
}

/* The layers that stay on the CPU, streamed: packed by its kernel sets, and as the file has them;
 * with K and V of all of them on the GPU, and of one at a time. */
static void test_streams(const char *arch, const char *type, const char *path, bool all_ways,
                         const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    static const ts_isa isas[] = {TS_ISA_REF, TS_ISA_AUTO};
    for (int i = all_ways ? 0 : 1; i < 2; i++)
        for (int way = 0; way < 4;
             way += all_ways ? 1 : 2) { /* the CPU alone, -ngl 0, 1, little memory */
            ts_error err = {0};
            ts_engine *e = NULL;
            size_t memory = gpu.memory;
            const int64_t n = way == 0 ? -1 : way == 2 ? 1 : 0;
            if (way == 3) { /* what it takes at least */
                REQUIRE(open_streaming(&e, path, isas[i], TS_STREAM_ON, n, memory, &err) == TS_OK);
                const ts_plan_device *d = &e->plan.dev[1];
                const ts_stream *x = &e->plan.stream;
                memory = d->packed + d->kv / (size_t)d->n_streamed + d->buffers + 4 * x->piece +
                         x->source;
                ts_engine_close(e);
            }
            const ts_stream_mode mode = way ? TS_STREAM_ON : TS_STREAM_OFF;
            const ts_isa isa = way ? isas[i] : TS_ISA_REF; /* tiles may choose another expert */
            const ts_status st = open_streaming(&e, path, isa, mode, n, memory, &err);
            CHECK_MSG(st == TS_OK, "%s %s: %s", arch, type, err.msg);
            if (st)
                continue;
            CHECK(e->plan.stream.device == (way > 0));
            CHECK_MSG(way == 0 || e->plan.stream.all_kv == (way != 3), "%s, way %d", arch, way);
            const size_t count = timeline(e, prompts, PROMPTS, t, way ? got : want);
            const double d = nmse(want, got, count);
            CHECK_MSG(way == 0 || d <= MANY, "%s %s, %s, way %d: NMSE %g", arch, type,
                      i ? "packed" : "source", way, d);
            if (getenv("TS_VERBOSE") && way)
                printf("%s %s, %s, way %d: NMSE %g\n", arch, type, i ? "packed" : "source", way, d);
            ts_engine_close(e);
        }
}

/* Of n calls which one fails after the at-th: the first and the last are each another call, those
 * between are the same few for one weight after the other. */
static int64_t next_failure(int64_t at, int64_t n)
{
    enum { ENDS = SANITIZED ? 12 : 24 };
    const int64_t step = at < ENDS || at >= n - ENDS ? 1 : 1 + n / ENDS;
    return at < n - ENDS && at + step > n - ENDS ? n - ENDS : at + step;
}

/* The driver's calls fail, one at a time, when a model that streams is opened, and when it does. */
static void test_stream_failures(const char *path, const ts_token *t)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_rt_calls = 0;
    REQUIRE(open_streaming(&e, path, TS_ISA_AUTO, TS_STREAM_ON, 1, gpu.memory, &err) == TS_OK);
    const int64_t n = ts_rt_calls;
    int64_t at = 0;
    ts_engine_close(e);
    for (e = NULL;; at = next_failure(at, n)) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        const ts_status st =
            open_streaming(&e, path, TS_ISA_AUTO, TS_STREAM_ON, 1, gpu.memory, &err);
        if (st == TS_OK && ts_rt_calls <= at)
            break;
        CHECK_MSG(st == TS_OK || (!e && strstr(err.msg, "told to fail")), "%s", err.msg);
        ts_engine_close(e);
        e = NULL;
    }
    CHECK_MSG(at == n && n > 15, "opened after %d failures of %d", (int)at, (int)n);
    for (at = 0;; at++) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        if (ts_session_open(&s, e, &err) == TS_OK)
            break;
        CHECK_MSG(!s && strstr(err.msg, "told to fail"), "%s", err.msg);
    }
    for (at = 0;; at += SANITIZED ? (at < 40 ? 1 : 9) : at < 120 ? 1 : 3) {
        ts_rt_fails_at = -1;
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        CHECK(ts_session_eval(s, t, 3, 1, &err) == TS_OK);
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        if (ts_session_eval(s, t + 3, 40, 1, &err) == TS_OK)
            break;
        CHECK_MSG(strstr(err.msg, "told to fail") && ts_session_pos(s) == 3, "%s", err.msg);
    }
    ts_rt_fails_at = -1;
    CHECK_MSG(at > 20, "%d calls in a streamed eval", (int)at);
    ts_session_close(s);
    ts_engine_close(e);
}

/* The driver's calls fail, one at a time. A step that isn't a graph any more makes so many. */
static void test_failures(const char *path, int calls, const ts_token *t)
{
    ts_engine_split split = layers(1);
    ts_error err = {0};
    ts_engine *e = NULL;
    int smaller = 0, same = 0;
    ts_rt_calls = 0;
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    const int64_t n = ts_rt_calls;
    int64_t at = 0;
    ts_engine_close(e);
    for (e = NULL;; at = next_failure(at, n)) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        const ts_status st = open_engine(&e, path, &split, &err);
        if (st == TS_OK && ts_rt_calls <= at)
            break;
        /* no memory: a smaller plan, of experts maybe with as many layers; else a sentence. The
         * CPU's buffers needn't be pinned: two calls. */
        const bool less = !st && (e->plan.n_gpu_layers == 0 || e->plan.moe.n_expert);
        smaller += less;
        same += !st && !less;
        CHECK_MSG(!st || (!e && strstr(err.msg, "told to fail")), "call %d: %s", (int)at, err.msg);
        ts_engine_close(e);
        e = NULL;
    }
    CHECK_MSG(at == n && n > 10 && smaller >= 5 && same <= 2,
              "%d calls, %d smaller plans, %d as large", (int)at, smaller, same);
    /* the first session's memory has been taken; that of the second may fail */
    ts_session *s = NULL, *first = NULL;
    REQUIRE(ts_session_open(&first, e, &err) == TS_OK);
    for (at = 0;; at++) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        if (ts_session_open(&s, e, &err) == TS_OK)
            break;
        CHECK(!s && strstr(err.msg, "CUDA0 has no "));
    }
    CHECK(at == 1);
    for (at = 0;; at++) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        if (ts_session_eval(s, t, 5, 1, &err) == TS_OK)
            break;
        CHECK_MSG(strstr(err.msg, "told to fail") && ts_session_pos(s) == 0, "%s", err.msg);
    }
    CHECK(at >= 1);
    /* A third time the step is a graph. What fails of that, launches make up for. */
    int errors = 0;
    ts_rt_fails_at = -1;
    for (int i = 0; i < 2; i++)
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK && ts_session_eval(s, t, 6, 1, &err) == TS_OK);
    CHECK(ts_rt_graphs == 1);
    for (at = 0, ts_rt_replays = 0;; at++) {
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        errors += ts_session_eval(s, t, 6, 1, &err) != TS_OK;
        if (ts_rt_calls <= at)
            break;
    }
    ts_rt_fails_at = -1;
    CHECK_MSG(at == calls && errors == at - 1 && ts_rt_graphs == 0, "%d calls, %d errors", (int)at,
              errors);
    test_launches(e, s, t);
    ts_session_close(first);
    ts_session_close(s);
    ts_engine_close(e);
}

/* Norms of each head of Q and K, which readers expect in 64 layers. */
static void test_deep(const char *path, const ts_token *t)
{
    static float want[10 * 600], got[10 * 600];
    ts_synth_options o = {
        .arch = "command-r", .preset = "tiny-deep", .type = "Q8_0", .seed = 1, .n_threads = 1};
    size_t n = 0;
    for (int64_t l = -1; l <= 65; l += 66) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = layers(l);
        REQUIRE(ts_synth_write(path, &o, NULL, &err) == TS_OK);
        REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
        CHECK(e->m->layers[63].q_norm && e->m->layers[63].k_norm);
        n = timeline(e, few, 4, t, l < 0 ? want : got);
        ts_engine_close(e);
    }
    CHECK_MSG(nmse(want, got, n) <= FEW, "command-r tiny-deep: NMSE %g", nmse(want, got, n));
}

/* Latent attention: K, which has V in it, on the GPU, and what is between it and the products. */
static void test_latent(const char *path, const ts_token *t)
{
    static const char *const kinds[][2] = {
        {"deepseek2:tiny-v3", "Q8_0"}, {"deepseek2", "Q4_K_M"}, {"deepseek2:tiny-v3", "F16"}};
    for (int i = 0; i < (SANITIZED ? 1 : 3); i++) {
        const char *arch = kinds[i][0], *type = kinds[i][1];
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_split split = layers(3);
        REQUIRE(ts_synth_tiny(path, arch, type, false, &err) == TS_OK);
        REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
        const ts_layer *l = &e->m->layers[2];
        const size_t row = (size_t)e->m->hp.head_dim * sizeof(uint16_t);
        CHECK(l->kv_device == 1 && l->k_b->device == 1 && l->v_b->device == 1);
        CHECK_MSG(e->plan.dev[1].kv == 3 * CTX * row, "%zu bytes of K and V", e->plan.dev[1].kv);
        ts_engine_close(e);
        if (!SANITIZED) {
            test_layers(arch, type, path, 3, t);
            test_same(arch, path, 3, i == 0, t);
        }
        if (!SANITIZED)
            test_alone(arch, type, path, 3, false, t);
        if (i != 1 && !SANITIZED) /* there a stack's matrices don't lie one after the other */
            test_streams(arch, type, path, i == 0, t);
        if (i > 0)
            continue;
        test_failures(path, 4, t);           /* a copy more, of the router's floats */
        piece = SANITIZED ? 400000 : 100000; /* fewer calls */
        test_stream_failures(path, t);
        piece = 2000;
    }
}

static int64_t layers_of(const char *path)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_split split = layers(-1);
    REQUIRE(open_engine(&e, path, &split, &err) == TS_OK);
    const int64_t n = e->m->hp.n_layer;
    ts_engine_close(e);
    return n;
}

int main(void)
{
    static const char *const types[] = {"Q4_0", "Q4_K_M", "Q8_0",  "Q5_K", "Q6_K", "Q3_K",
                                        "Q2_K", "IQ4_XS", "MXFP4", "F16",  "BF16", "Q5_1"};
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    uint64_t seed = 20261125;
    ts_token t[CTX + 40];
    for (size_t i = 0; i < CTX + 40; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % 380);
    const size_t n = sizeof types / sizeof *types;
    /* sanitizers look at the device's code: every kernel has a test of its own */
    for (size_t i = 0; i < (SANITIZED ? 1 : n); i++) {
        const char *arch = archs[i % N_ARCHS];
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, arch, types[i], false, &err) == TS_OK);
        const int64_t n_layer = layers_of(path);
        test_layers(arch, types[i], path, n_layer, t);
        const bool odd = strcmp(types[i], "F16") == 0; /* cuda_unpack has all layouts */
        if (i < N_ARCHS || odd)
            test_streams(arch, types[i], path, i < (SANITIZED ? 1 : 2), t);
        if (i < N_ARCHS || odd)
            test_same(arch, path, n_layer, i < 4, t);
        if (i == 0) {
            test_glu_apart(arch, path, n_layer, t);
            test_loaders(path, t);
            test_graphs(path, t);
            test_no_graphs(path, t);
            test_two_sessions(path, t);
            test_two_gpus(path, n_layer, t);
            test_failures(path, 3, t);
            piece = 20000; /* fewer calls */
            test_stream_failures(path, t);
            piece = 2000;
        }
    }
    /* shared experts; sinks, biases, an activation of its own */
    static const char *const moe[][2] = {
        {"gpt-oss", "MXFP4"}, {"glm4moe", "Q4_K_M"}, {"qwen2moe", "Q8_0"}};
    for (int i = 0; i < (SANITIZED ? 1 : 3); i++) {
        const int64_t n_layer = 4 - i;
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, moe[i][0], moe[i][1], false, &err) == TS_OK);
        if (!SANITIZED) {
            test_layers(moe[i][0], moe[i][1], path, n_layer, t);
            test_same(moe[i][0], path, n_layer, i == 0, t);
        }
        if (i == 0)
            test_streams(moe[i][0], moe[i][1], path, false, t);
        test_shared(moe[i][0], moe[i][1], path, n_layer, t);
        test_alone(moe[i][0], moe[i][1], path, n_layer, i < 2, t);
        if (i == 2)
            test_not_alone(path, n_layer, t);
        if (i == 2) { /* every call fails once where experts are sent, too; few, of two layers */
            piece = 200000;
            n_cpu_moe = n_layer;
            test_stream_failures(path, t);
            n_cpu_moe = 0;
            piece = 2000;
        }
    }
    test_latent(path, t);
    /* few tokens of floats, and a block of 32 */
    static const char *const expert_types[] = {"F16", "MXFP4"};
    for (size_t i = 0; i < 2 && !SANITIZED; i++) {
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, "qwen3moe", expert_types[i], false, &err) == TS_OK);
        test_layers("qwen3moe", expert_types[i], path, 2, t);
    }
    if (!SANITIZED)
        test_deep(path, t);
    unlink(path);
    return check_done("cuda_device");
}

/* test_cuda_device.c - the CUDA device with the stand-in for CUDA: tiny models of every
 * architecture, split between CPU and GPU in every way, against the CPU's `ref`; failures of every
 * call of the driver. Kernels run on the CPU here, so this shows what is computed, not how fast. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cuda/device.h"
#include "cuda/rt_standin.h"
#include "engine.h"
#include "gguf/synth.h"

#define CTX 60

static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};
static const ts_backend *const cuda[] = {&ts_backend_cuda};
static const ts_accel gpu = {"CUDA0", 0, &ts_cuda_kind, (size_t)1 << 40, 0, 0, 0, 0};

/* BF16 on both sides of products with more than a few tokens; 15 bits and F16 K and V else. */
#define MANY 1e-3
#define FEW  1e-5

static ts_engine_split layers(int64_t n)
{
    return (ts_engine_split){
        .split = {.accels = &gpu, .n_accels = n < 0 ? 0 : 1, .n_gpu_layers = n}, .backends = cuda};
}

static ts_status open_engine(ts_engine **e, const char *path, const ts_engine_split *split,
                             ts_error *err)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    o.n_ctx = CTX;
    o.n_ubatch = 24;
    o.n_logits = 3;
    o.n_threads = 1;
    return ts_engine_open_split(e, path, &o, split, err);
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
        for (int64_t l = -1; l <= n_layer + 1; l++) {
            if (l == 0)
                continue;
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

/* Every call of the driver fails once. */
static void test_failures(const char *path, const ts_token *t)
{
    ts_engine_split split = layers(1);
    ts_error err = {0};
    ts_engine *e = NULL;
    int smaller = 0;
    int64_t at = 0;
    for (;; at++) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        const ts_status st = open_engine(&e, path, &split, &err);
        if (st == TS_OK && e->plan.n_gpu_layers == 1)
            break;
        /* no memory: a smaller plan; else a sentence */
        CHECK_MSG(st ? !e && strstr(err.msg, "told to fail")
                     : e->plan.n_gpu_layers == 0 && ++smaller,
                  "call %d: %s", (int)at, err.msg);
        ts_engine_close(e);
        e = NULL;
    }
    CHECK_MSG(at > 10 && smaller == 7, "%d calls, %d smaller plans", (int)at, smaller);
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
    CHECK(at >= 4);
    ts_rt_fails_at = -1;
    test_launches(e, s, t);
    ts_session_close(first);
    ts_session_close(s);
    ts_engine_close(e);
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
    ts_token t[CTX];
    for (size_t i = 0; i < CTX; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % 380);
    for (size_t i = 0; i < (SANITIZED ? 4 : sizeof types / sizeof *types); i++) {
        const char *arch = archs[i % 4];
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, arch, types[i], false, &err) == TS_OK);
        test_layers(arch, types[i], path, i % 4 == 3 ? 4 : 2, t);
        if (i == 0) {
            test_two_sessions(path, t);
            test_failures(path, t);
        }
    }
    unlink(path);
    return check_done("cuda_device");
}

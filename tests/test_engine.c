/* test_engine.c - the public interface on tiny models of every architecture: the same numbers
 * however the work is cut, nothing stale, every misuse a sentence. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/route.h"
#include "engine.h"
#include "gguf/synth.h"
#include "tessera.h"

#define N   90
#define CTX 700

static const char *const archs[] = {"llama",    "qwen2",    "qwen3",     "gemma3",
                                    "qwen3moe", "qwen2moe", "deepseek2", "deepseek2:tiny-v3",
                                    "olmo2",    "granite",  "gemma2",    "command-r",
                                    "phi3",     "glm4moe",  "gpt-oss"};

/* Sanitizers look at each kind of step once: experts and a shared one; latent attention and groups
 * of experts; caps, windows, norms behind; LayerNorm; fused QKV; sinks and biases. What the other
 * architectures are made of is the same code; test_golden runs them all. */
static bool has_own_steps(const char *arch)
{
    static const char *const own[] = {
        "llama", "qwen2moe", "deepseek2:tiny-v3", "gemma2", "command-r", "phi3", "gpt-oss"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(arch, own[i]) == 0)
            return true;
    return false;
}

typedef struct rig {
    ts_engine *e;
    ts_session *s;
    ts_engine_info info;
} rig;

static rig open_rig(const char *path, ts_isa isa, int threads, int64_t ubatch)
{
    ts_error err = {0};
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_threads = threads;
    o.n_ctx = CTX;
    o.n_ubatch = ubatch;
    o.n_logits = 4;
    rig r = {0};
    bool ok =
        ts_engine_open(&r.e, path, &o, &err) == TS_OK && ts_session_open(&r.s, r.e, &err) == TS_OK;
    if (!ok)
        fprintf(stderr, "%s\n", err.msg);
    REQUIRE(ok);
    ts_engine_get_info(r.e, &r.info);
    return r;
}

static void close_rig(rig *r)
{
    ts_session_close(r->s);
    ts_engine_close(r->e);
}

static void random_tokens(ts_token *t, size_t n, int64_t n_vocab, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % (uint64_t)n_vocab);
}

/* The logits after t[0..n), evaluated in pieces of `piece`. Copies [n_vocab] to out. */
static void logits_by(rig *r, const ts_token *t, size_t n, size_t piece, float *out)
{
    ts_error err = {0};
    CHECK(ts_session_rewind(r->s, 0, &err) == TS_OK);
    for (size_t i = 0; i < n; i += piece) {
        size_t m = n - i < piece ? n - i : piece;
        REQUIRE(ts_session_eval(r->s, t + i, m, 1, &err) == TS_OK);
    }
    memcpy(out, ts_session_logits(r->s, 0), (size_t)r->info.n_vocab * sizeof(float));
}

/* Logits of the same tokens, cut otherwise. With tiles the number of tokens in a micro-batch
 * chooses between BF16 and VNNI; everywhere else it changes no bit. */
static bool same(const rig *r, const float *want, const float *got)
{
    size_t v = (size_t)r->info.n_vocab;
    return strcmp(r->info.isa, "amx") == 0 ? nmse(want, got, v) <= 1e-3
                                           : memcmp(want, got, v * sizeof(float)) == 0;
}

static void test_cuts(const char *arch, const char *path)
{
    ts_token t[CTX];
    rig a = open_rig(path, TS_ISA_AUTO, 1, 0);
    size_t v = (size_t)a.info.n_vocab, bytes = v * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);
    REQUIRE(want && got);
    random_tokens(t, CTX, a.info.n_vocab, 7);
    static const size_t lengths[] = {1, 17, N, 600}; /* 600: past one segment of attention */
    for (size_t l = 0; l < 4; l++) {
        size_t n = lengths[l];
        logits_by(&a, t, n, n, want);
        double sum = 0;
        for (size_t i = 0; i < v; i++)
            sum += want[i] * want[i];
        CHECK_MSG(isfinite(sum) && sum > 0, "%s, %zu tokens: logits' square sum %g", arch, n, sum);
        /* Stale memory: the same tokens after others give the same bits. */
        ts_token other[N];
        random_tokens(other, N, a.info.n_vocab, 8 + l);
        logits_by(&a, other, N, N, got);
        logits_by(&a, t, n, n, got);
        CHECK_MSG(memcmp(want, got, bytes) == 0, "%s, %zu tokens: a used session differs", arch, n);
        static const size_t pieces[] = {1, 3, 64};
        for (size_t p = n > 200; p < 3; p++) {
            logits_by(&a, t, n, pieces[p], got);
            CHECK_MSG(same(&a, want, got), "%s, %zu tokens by %zu: NMSE %g", arch, n, pieces[p],
                      nmse(want, got, v));
        }
        /* up to 16: attention split over positions. test_threads has all numbers of threads */
        static const int64_t batches[] = {5, 64, 16};
        for (int threads = 2; threads <= 4; threads++) {
            rig b = open_rig(path, TS_ISA_AUTO, threads, batches[threads - 2]);
            logits_by(&b, t, n, n, got);
            CHECK_MSG(same(&a, want, got), "%s, %zu tokens, %d threads, odd batches: NMSE %g", arch,
                      n, threads, nmse(want, got, v));
            close_rig(&b);
        }
    }
    close_rig(&a);
    free(want);
    free(got);
}

/* Any number of threads gives the same bits: few tokens, many, and more than a segment. */
static void test_threads(const char *arch, const char *path)
{
    static const size_t lengths[] = {1, 9, 200, 600};
    ts_token t[CTX];
    rig a = open_rig(path, TS_ISA_AUTO, 1, 0);
    size_t v = (size_t)a.info.n_vocab, bytes = v * sizeof(float);
    float *want[4], *got = malloc(bytes);
    REQUIRE(got);
    random_tokens(t, CTX, a.info.n_vocab, 9);
    for (size_t l = 0; l < 4; l++) {
        want[l] = malloc(bytes);
        REQUIRE(want[l]);
        logits_by(&a, t, lengths[l], lengths[l], want[l]);
    }
    close_rig(&a);
    for (int threads = 2, more = 1; threads <= 16 && more; threads++) {
        rig b = open_rig(path, TS_ISA_AUTO, threads, 0);
        more = b.info.n_threads == threads; /* there are CPUs for them */
        for (size_t l = 0; l < 4; l++) {
            logits_by(&b, t, lengths[l], lengths[l], got);
            CHECK_MSG(memcmp(want[l], got, bytes) == 0, "%s, %zu tokens, %d threads: NMSE %g", arch,
                      lengths[l], threads, nmse(want[l], got, v));
        }
        close_rig(&b);
    }
    for (size_t l = 0; l < 4; l++)
        free(want[l]);
    free(got);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The widest kernel sets, whose exact activations have 15 bits, against the oracle, which keeps
 * floats. A model this small and random multiplies every difference, so the median of several
 * prompts is held to the bound. Tiles round to 8 bits, and where two experts are nearly level a
 * token may take the other one: there the oracle's choices are followed. */
static void test_oracle(const char *arch, const char *path, double bound)
{
    enum { PROMPTS = 7, LEN = 40 };
    rig a = open_rig(path, TS_ISA_AUTO, 0, 0), ref = open_rig(path, TS_ISA_REF, 0, 0);
    size_t v = (size_t)a.info.n_vocab;
    float *want = malloc(v * sizeof *want), *got = malloc(v * sizeof *got);
    REQUIRE(want && got);
    /* tiles round K, V, queries and probabilities to 8 bits */
    bool amx = !strcmp(a.info.isa, "amx");
    double worst = amx ? 1e-2 : 1e-3, e[PROMPTS];
    bound = amx ? 1e-3 : bound;
    const ts_hparams *hp = &ref.e->m->hp;
    ts_routing kept = {.n_ctx = CTX}, followed;
    kept.id = calloc((size_t)(hp->n_layer * CTX * hp->moe.n_used) + 1, sizeof *kept.id);
    REQUIRE(kept.id);
    followed = kept;
    followed.follow = true;
    if (amx && hp->moe.n_used) {
        ts_session_set_routing(ref.s, &kept);
        ts_session_set_routing(a.s, &followed);
    }
    for (int i = 0; i < PROMPTS; i++) {
        ts_token t[LEN];
        random_tokens(t, LEN, a.info.n_vocab, 100 + (uint64_t)i);
        logits_by(&ref, t, LEN, LEN, want);
        logits_by(&a, t, LEN, LEN, got);
        e[i] = nmse(want, got, v);
        CHECK_MSG(e[i] <= worst, "%s: NMSE %g to ref", arch, e[i]);
    }
    qsort(e, PROMPTS, sizeof *e, by_value);
    CHECK_MSG(e[PROMPTS / 2] <= bound, "%s: median NMSE %g to ref", arch, e[PROMPTS / 2]);
    CHECK_MSG(followed.differ * 40 <= PROMPTS * LEN * hp->n_layer,
              "%s: %d choices of experts are others", arch, (int)followed.differ);
    free(kept.id);
    free(want);
    free(got);
    close_rig(&ref);
    close_rig(&a);
}

/* Rows of logits are the last tokens', whether one micro-batch holds them or several. */
static void test_rows(const char *path)
{
    ts_error err = {0};
    ts_token t[N];
    rig a = open_rig(path, TS_ISA_AUTO, 2, 0), b = open_rig(path, TS_ISA_AUTO, 2, 3);
    size_t v = (size_t)a.info.n_vocab;
    random_tokens(t, N, a.info.n_vocab, 9);
    float *want = malloc(4 * v * sizeof(float));
    REQUIRE(want);
    for (size_t i = 0; i < 4; i++)
        logits_by(&a, t, N - 3 + i, N, want + i * v);
    rig *rigs[] = {&a, &b};
    for (int k = 0; k < 2; k++) {
        CHECK(ts_session_rewind(rigs[k]->s, 0, &err) == TS_OK);
        REQUIRE(ts_session_eval(rigs[k]->s, t, N, 4, &err) == TS_OK);
        for (size_t i = 0; i < 4; i++)
            CHECK_MSG(same(&a, want + i * v, ts_session_logits(rigs[k]->s, i)),
                      "row %zu of 4, micro-batch %d", i, k ? 3 : 512);
        CHECK(ts_session_logits(rigs[k]->s, 4) == NULL);
    }
    free(want);
    close_rig(&a);
    close_rig(&b);
}

static void *cancel_soon(void *s)
{
    usleep(2000);
    ts_session_cancel(s);
    return NULL;
}

static void test_misuse(const char *path)
{
    ts_error err = {0};
    rig r = open_rig(path, TS_ISA_AUTO, 0, 8);
    ts_token t[CTX + 1];
    random_tokens(t, CTX + 1, r.info.n_vocab, 3);
    CHECK(ts_session_eval(r.s, t, 0, 1, &err) == TS_BAD_ARG);
    CHECK(ts_session_eval(r.s, t, 4, 0, &err) == TS_BAD_ARG);
    CHECK(ts_session_eval(r.s, t, 4, 5, &err) == TS_BAD_ARG && strstr(err.msg, "5 rows"));
    CHECK(ts_session_eval(r.s, t, 2, 3, &err) == TS_BAD_ARG);
    CHECK(ts_session_eval(r.s, t, CTX + 1, 1, &err) == TS_FULL && strstr(err.msg, "701"));
    ts_token bad[2] = {1, (ts_token)r.info.n_vocab};
    CHECK(ts_session_eval(r.s, bad, 2, 1, &err) == TS_BAD_ARG && strstr(err.msg, "token 1"));
    bad[0] = -1;
    CHECK(ts_session_eval(r.s, bad, 1, 1, &err) == TS_BAD_ARG);
    CHECK(ts_session_pos(r.s) == 0 && ts_session_logits(r.s, 0) == NULL);
    CHECK(ts_session_eval(r.s, t, CTX, 1, &err) == TS_OK && ts_session_pos(r.s) == CTX);
    CHECK(ts_session_eval(r.s, t, 1, 1, &err) == TS_FULL);
    CHECK(ts_session_rewind(r.s, CTX + 1, &err) == TS_BAD_ARG);
    CHECK(ts_session_rewind(r.s, -1, &err) == TS_BAD_ARG);
    CHECK(ts_session_rewind(r.s, 10, &err) == TS_OK && ts_session_logits(r.s, 0) == NULL);

    /* Cancelled before: at once. Cancelled meanwhile: on a micro-batch boundary. */
    ts_session_cancel(r.s);
    CHECK(ts_session_eval(r.s, t, 20, 1, &err) == TS_CANCELLED && ts_session_pos(r.s) == 10);
    CHECK(ts_session_rewind(r.s, 0, &err) == TS_OK);
    pthread_t th;
    REQUIRE(pthread_create(&th, NULL, cancel_soon, r.s) == 0);
    ts_status st = ts_session_eval(r.s, t, CTX, 1, &err);
    pthread_join(th, NULL);
    CHECK(st == TS_OK || (st == TS_CANCELLED && ts_session_pos(r.s) % 8 == 0));
    close_rig(&r);

    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    CHECK(ts_engine_open(&e, "", &o, &err) == TS_BAD_ARG && e == NULL);
    CHECK(ts_engine_open(&e, "/nonexistent.gguf", &o, &err) == TS_IO && e == NULL);
    o.n_ctx = -1;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_BAD_ARG && strstr(err.msg, "-1"));
    o.n_ctx = (int64_t)1 << 31;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_NO_MEMORY && strstr(err.msg, "2147483648"));
    o.n_ctx = 0;
    if (!ts_cpu_get()->amx) {
        o.isa = TS_ISA_AMX;
        CHECK(ts_engine_open(&e, path, &o, &err) == TS_UNSUPPORTED && strstr(err.msg, "amx"));
    }
    o.isa = TS_ISA_AMX;
    o.no_amx = true;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_BAD_ARG && strstr(err.msg, "amx"));
    o.no_amx = false;

    /* Without weights there is a plan but no session. */
    o.isa = TS_ISA_AUTO;
    o.plan_only = true;
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    ts_session *s = NULL;
    CHECK(ts_session_open(&s, e, &err) == TS_BAD_ARG && s == NULL);
    char *text = NULL;
    CHECK(ts_engine_plan(e, false, &text, &err) == TS_OK && strstr(text, "blk.0.attn_q.weight"));
    ts_free(text);
    ts_engine_close(e);
    o.vocab_only = true;
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    CHECK(ts_engine_plan(e, false, &text, &err) == TS_BAD_ARG);
    ts_engine_close(e);
    ts_engine_close(NULL);
    ts_session_close(NULL);

    /* A caller with an older, shorter structure: the fields it doesn't know stay at their default.
     */
    ts_engine_options_init(&o);
    o.plan_only = true;
    o.size = offsetof(ts_engine_options, plan_only);
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    CHECK(ts_session_open(&s, e, &err) == TS_OK);
    ts_session_close(s);
    ts_engine_close(e);
}

static bool stop_at_half(void *user, double done)
{
    *(double *)user = done;
    return done < 0.5;
}

static void test_progress_and_stats(const char *path)
{
    ts_error err = {0};
    double seen = 0;
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.progress = stop_at_half;
    o.progress_user = &seen;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_CANCELLED && e == NULL);
    CHECK(seen >= 0.5 && seen <= 1);

    rig r = open_rig(path, TS_ISA_REF, 0, 0);
    ts_token t[N];
    random_tokens(t, N, r.info.n_vocab, 3);
    ts_session_set_stats(r.s, true);
    CHECK(ts_session_eval(r.s, t, N, 1, &err) == TS_OK);
    char *json = NULL;
    REQUIRE(ts_session_stats(r.s, true, &json, &err) == TS_OK);
    CHECK_MSG(strstr(json, "\"name\":\"ref\",\"matrix\":true"), "%s", json);
    ts_free(json);
    close_rig(&r);
}

static void count_away(void *user, ts_log_level level, const char *line)
{
    int *n = user;
    *n += level == TS_LOG_WARN && strstr(line, "threads from running") != NULL;
}

static void write_stat(const char *path, const char *ticks)
{
    FILE *f = fopen(path, "w");
    REQUIRE(f && fprintf(f, "cpu  1 1 1 1 1 1 1 %s 0 0\n", ticks) > 0 && fclose(f) == 0);
}

/* When a virtual machine's host kept threads from running while the engine was open, closing it
 * says so; else it doesn't. */
static void test_stolen(const char *path)
{
    static const char *const later[] = {"1000", "1000000"};
    const char *kept = ts_cpu_stat;
    char stat[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(stat);
    REQUIRE(fd >= 0);
    close(fd);
    ts_cpu_stat = stat;
    for (int i = 0; i < 2; i++) {
        ts_error err = {0};
        ts_engine *e = NULL;
        ts_engine_options o;
        int n = 0;
        ts_engine_options_init(&o);
        o.log = count_away;
        o.log_user = &n;
        write_stat(stat, "1000");
        REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
        write_stat(stat, later[i]);
        ts_engine_close(e);
        CHECK_MSG(n == i, "%d lines", n);
    }
    ts_cpu_stat = kept;
    unlink(stat);
}

int main(void)
{
    ts_error err = {0};
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (SANITIZED && !has_own_steps(archs[i]))
            continue;
        if (WATCHED_THREADS && i && strcmp(archs[i], "qwen2moe") && strcmp(archs[i], "deepseek2"))
            continue; /* what is shared out among threads in its own way */
        ts_status s = ts_synth_tiny(path, archs[i], "Q4_K_M", false, &err);
        if (s)
            fprintf(stderr, "%s\n", err.msg);
        REQUIRE(s == TS_OK);
        test_threads(archs[i], path);
        if (!WATCHED_THREADS) {
            test_cuts(archs[i], path);
            test_oracle(archs[i], path, 1e-6);
        }
        if (i == 0) {
            test_rows(path);
            test_misuse(path);
            test_stolen(path);
            test_progress_and_stats(path);
        }
        if (WATCHED_THREADS)
            continue;
        /* Nothing but K and V is rounded. */
        REQUIRE(ts_synth_tiny(path, archs[i], "F32", true, &err) == TS_OK);
        test_oracle(archs[i], path, 1e-7);
    }
    unlink(path);
    return check_done("engine");
}

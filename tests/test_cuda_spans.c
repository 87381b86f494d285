/* test_cuda_spans.c - many timelines over one cache of the CUDA device, with the stand-in for CUDA:
 * whatever shares a micro-batch and wherever its pages lie, a timeline gives the bits that it gives
 * alone on the same GPU, where its pages are in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cuda/device.h"
#include "cuda/rt_standin.h"
#include "engine.h"
#include "gguf/synth.h"

/* The longest texts end behind a split of attention and two pages. FEW: tokens that are multiplied
 * with 15 bits, one by one or together; more of a mixture of experts aren't. */
enum { SEQS = 4, LEN = 132, FEW = 8, CACHE = 6 * 64 };

/* Of text i. */
static int64_t len_of(int i)
{
    return i < 2 ? LEN : 80;
}

/* Tokens of a step. More than 32 of one timeline aren't decoded, and have other bits. */
enum { DECODED = 32, UBATCH = 44 };

static const ts_backend *const cuda[] = {&ts_backend_cuda};
static const ts_backend *const plain[] = {&ts_backend_cuda_plain};
static const ts_accel gpu = {"CUDA0", 0, &ts_cuda_kind, (size_t)1 << 40, 0, 0, 0, 0};
static uint64_t seed = 20261126;

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* How an engine is opened; n_seqs 0: one timeline, whose pages are in order. */
typedef struct setup {
    const char *path;
    int32_t n_seqs;
    int64_t layers, n_ctx, n_ubatch;
    const ts_backend *const *backends;
    ts_stream_mode stream;
    int64_t alone; /* of a single token's experts, which are the CPU's, so many are computed here */
} setup;

static ts_status try_open(ts_engine **e, const setup *how, ts_error *err)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = how->alone ? TS_ISA_AUTO : TS_ISA_REF;
    o.n_seqs = how->n_seqs;
    o.n_threads = 1;
    o.n_ctx = how->n_ctx;
    o.n_ubatch = o.n_logits = how->n_ubatch;
    o.stream = how->stream;
    const ts_engine_split split = {.split = {.accels = &gpu,
                                             .n_accels = 1,
                                             .n_gpu_layers = how->layers,
                                             .n_cpu_moe = how->alone ? INT64_MAX : 0,
                                             .stream_piece = 20000},
                                   .backends = how->backends};
    return ts_engine_open_split(e, how->path, &o, &split, err);
}

static ts_session *open_session(const setup *how, ts_engine **e)
{
    ts_error err = {0};
    ts_session *s = NULL;
    ts_status st = try_open(e, how, &err);
    if (!st)
        st = ts_session_open(&s, *e, &err);
    if (st)
        fprintf(stderr, "%s\n", err.msg);
    REQUIRE(st == TS_OK);
    if (how->alone) { /* of more tokens all experts are the CPU's */
        REQUIRE((*e)->plan.stream.alone);
        (*e)->devices.rates = (ts_stream_rates){.m = {1, 1, 1}, .come = 1e9, .alone = how->alone};
    }
    return s;
}

static void close_session(ts_session *s, ts_engine *e)
{
    ts_session_close(s);
    ts_engine_close(e);
}

/* Texts that begin alike, and what each gives alone at every position. */
typedef struct texts {
    ts_token t[SEQS][LEN];
    float *want[SEQS]; /* [LEN][v] */
    size_t v;
} texts;

/* alike: some begin as others do. */
static void make_tokens(texts *x, size_t v, bool alike)
{
    x->v = v;
    for (int i = 0; i < SEQS; i++) {
        for (int j = 0; j < LEN; j++)
            x->t[i][j] = (ts_token)rnd(0, (int64_t)v - 1);
        if (alike && i > 0) /* 64 or 130 tokens of an earlier one */
            memcpy(x->t[i], x->t[i / 2], (size_t)(i % 2 ? 130 : 64) * sizeof(ts_token));
        x->want[i] = malloc(LEN * v * sizeof(float));
        REQUIRE(x->want[i]);
    }
}

static void free_texts(texts *x)
{
    for (int i = 0; i < SEQS; i++)
        free(x->want[i]);
}

static void want_alone(texts *x, const setup *how)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    setup one = *how;
    one.n_seqs = 0;
    one.n_ctx = LEN;
    ts_session *s = open_session(&one, &e);
    make_tokens(x, (size_t)e->m->hp.n_vocab, true);
    for (int i = 0; i < SEQS; i++) {
        size_t at = 0; /* what the text before it begins with has been computed */
        for (; i > 0 && at < (size_t)len_of(i) - 1 && x->t[i][at] == x->t[i - 1][at]; at++)
            ;
        CHECK(ts_session_rewind(s, (int64_t)at, &err) == TS_OK);
        if (at > 0)
            memcpy(x->want[i], x->want[i - 1], at * x->v * sizeof(float));
        for (size_t n, len = (size_t)len_of(i); at < len; at += n) {
            n = len - at < FEW ? len - at : FEW;
            REQUIRE(ts_session_eval(s, x->t[i] + at, n, n, &err) == TS_OK);
            memcpy(x->want[i] + at * x->v, ts_session_logits(s, 0), n * x->v * sizeof(float));
        }
    }
    close_session(s, e);
}

/* The rows of logits that spans wanted, which are at pos[seq] now, are those of x. */
static void check_rows(const texts *x, const char *what, ts_session *s, const ts_span *span,
                       size_t n)
{
    size_t row = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = span[i].n_logits; j > 0; j--, row++) {
            const int64_t at = ts_session_seq_pos(s, span[i].seq) - (int64_t)j;
            const float *want = x->want[span[i].seq] + (size_t)at * x->v;
            const float *got = ts_session_logits(s, row);
            REQUIRE(got);
            CHECK_MSG(memcmp(want, got, x->v * sizeof *got) == 0,
                      "%s: timeline %d at %d of %zu spans: NMSE %g", what, span[i].seq, (int)at, n,
                      nmse(want, got, x->v));
        }
    CHECK(ts_session_logits(s, row) == NULL);
}

/* Random spans of random timelines; rewinds and new beginnings, which share pages. */
static void play(const texts *x, const char *what, const setup *how, int steps)
{
    const size_t most = (size_t)how->n_ubatch;
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s = open_session(how, &e);
    int64_t found;
    for (size_t at = 0, n; at < 130; at += n) { /* something to be shared */
        n = 130 - at < most ? 130 - at : most;
        const ts_span one = {0, x->t[0] + at, n, 1};
        REQUIRE(ts_session_eval_spans(s, &one, 1, &err) == TS_OK);
        check_rows(x, what, s, &one, 1);
    }
    CHECK(ts_session_seq_begin(s, 1, x->t[1], LEN, &found, &err) == TS_OK);
    CHECK_MSG(found == 128, "%s: a beginning of %d is there", what, (int)found);
    for (int step = 0; step < steps; step++) {
        const int who = (int)rnd(0, SEQS - 1);
        if (rnd(0, 5) == 0) {
            CHECK(ts_session_seq_begin(s, who, x->t[who], (size_t)len_of(who), &found, &err) ==
                  TS_OK);
        } else if (rnd(0, 9) == 0)
            (void)ts_session_seq_rewind(s, who, rnd(0, ts_session_seq_pos(s, who)), &err);
        ts_span span[SEQS];
        size_t n = 0, left = most;
        const int first = (int)rnd(0, SEQS - 1);
        for (int i = 0; i < SEQS && left; i++) {
            const int q = (first + i) % SEQS;
            const int64_t pos = ts_session_seq_pos(s, q);
            size_t m = (size_t)(rnd(0, 1) ? 1 : rnd(1, (int64_t)left));
            if (rnd(0, 4) == 0 || pos + (int64_t)m > len_of(q))
                continue;
            size_t out = (size_t)rnd(0, 3);
            span[n++] = (ts_span){q, x->t[q] + pos, m, out < m ? out : m};
            left -= m;
        }
        const ts_status st = n ? ts_session_eval_spans(s, span, n, &err) : TS_FULL;
        if (st == TS_OK)
            check_rows(x, what, s, span, n);
        else if (n) {
            CHECK_MSG(st == TS_FULL, "%s: %s", what, err.msg);
            CHECK(ts_session_seq_begin(s, who, x->t[who], 1, &found, &err) == TS_OK);
        }
    }
    close_session(s, e);
}

/* With all layers on the GPU; some: with the last one only, too, and without what is fused. */
static void test_arch(const char *arch, const char *type, const char *path, bool experts, bool some)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    texts x;
    char what[80];
    REQUIRE(ts_synth_tiny(path, arch, type, false, &err) == TS_OK);
    setup how = {path, SEQS, 0, CACHE, experts ? FEW : DECODED, cuda, TS_STREAM_OFF, 0};
    REQUIRE(try_open(&e, &how, &err) == TS_OK);
    const int64_t n_layer = e->m->hp.n_layer;
    ts_engine_close(e);
    ts_rt_no_gemm = true; /* it would multiply many tokens otherwise than few */
    for (how.layers = some && !SANITIZED ? 1 : n_layer + 1; how.layers <= n_layer + 1;
         how.layers += n_layer) {
        want_alone(&x, &how);
        for (int fast = some && how.layers > n_layer ? 0 : 1; fast < 2; fast++) {
            how.backends = fast ? cuda : plain;
            snprintf(what, sizeof what, "%s, %d layers%s", arch, (int)how.layers,
                     fast ? "" : ", plain");
            play(&x, what, &how, SANITIZED ? 5 : 20);
        }
        free_texts(&x);
    }
    ts_rt_no_gemm = false;
}

/* Steps of a token each are graphs, whichever timelines they are of, wherever their pages are. */
static void test_graphs(const char *path)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s;
    texts x;
    const setup how = {path, SEQS, 1, CACHE, DECODED, cuda, TS_STREAM_OFF, 0};
    want_alone(&x, &how);
    s = open_session(&how, &e);
    int64_t found;
    for (int i = 0; i < SEQS; i++) {
        for (int64_t at = 0, end = 76 - 24 * i; at < end; at += FEW) {
            const ts_span one = {i, x.t[i] + at, (size_t)(end - at < FEW ? end - at : FEW), 0};
            REQUIRE(ts_session_eval_spans(s, &one, 1, &err) == TS_OK);
        }
    }
    ts_rt_replays = 0;
    for (int step = 0; step < 56; step++) {
        const size_t n = step % 2 ? 2 : 3; /* of four: each step leaves out others */
        ts_span span[SEQS];
        for (size_t i = 0; i < n; i++) {
            const int q = (int)((size_t)step + i) % SEQS;
            span[i] = (ts_span){q, x.t[q] + ts_session_seq_pos(s, q), 1, 1};
        }
        REQUIRE(ts_session_eval_spans(s, span, n, &err) == TS_OK);
        check_rows(&x, "graphs", s, span, n);
    }
    /* the first of either is launched; the second is recorded, and played */
    CHECK_MSG(ts_rt_replays == 54 && ts_rt_graphs == 2, "%d replays, %d graphs", (int)ts_rt_replays,
              (int)ts_rt_graphs);
    /* as many tokens of fewer spans are none of these graphs' */
    const ts_span other = {0, x.t[0] + ts_session_seq_pos(s, 0), 3, 3};
    REQUIRE(ts_session_eval_spans(s, &other, 1, &err) == TS_OK);
    check_rows(&x, "no graph", s, &other, 1);
    CHECK(ts_rt_replays == 54);
    CHECK(ts_session_seq_begin(s, 0, x.t[0], 1, &found, &err) == TS_OK);
    close_session(s, e);
    CHECK(ts_rt_graphs == 0);
    free_texts(&x);
}

/* Chunks that are prefilled beside tokens that are decoded, to LEN each; got[SEQS][LEN][v]. alone:
 * the same chunks, one timeline after the other. */
typedef struct script {
    int seq[SEQS * LEN];
    size_t n[SEQS * LEN], batch[SEQS * LEN], spans;
} script;

/* MIXED; ONE span a step; spans that are MANY tokens each, for products and experts alike. */
typedef enum mix { MIXED, ONE, MANY } mix;

/* Tokens of a span, of which there are `more`; 0: it isn't in this step. */
static size_t chunk(mix how, size_t more, size_t left)
{
    enum { LEAST = 17 };
    size_t m = (size_t)(rnd(0, 2) == 0 ? 1 : rnd(1, 3) == 1 ? rnd(2, 9) : rnd(33, UBATCH));
    if (how == MANY)
        m = (size_t)rnd(LEAST, UBATCH);
    m = m < more ? m : more;
    if (how == MANY && more - m < LEAST) /* too few would be left */
        m = more;
    if (how == MANY)
        return m <= left ? m : 0;
    return m < left ? m : left;
}

static void make_script(script *c, mix how, size_t n_ubatch)
{
    int64_t pos[SEQS] = {0};
    c->spans = 0;
    for (size_t batch = 0, done = 0; !done; batch++) {
        size_t left = n_ubatch, spans = 0;
        const int first = (int)rnd(0, SEQS - 1);
        done = 1;
        for (int i = 0; i < SEQS && left; i++) {
            const int q = (first + i) % SEQS;
            const size_t more = (size_t)(len_of(q) - pos[q]);
            const size_t m = chunk(how, more, left);
            done = done && more == 0;
            if (m == 0 || (how == ONE && spans == 1))
                continue;
            c->seq[c->spans] = q;
            c->n[c->spans] = m;
            c->batch[c->spans++] = batch;
            pos[q] += (int64_t)m;
            left -= m;
            spans++;
        }
    }
}

static void run_script(const script *c, const texts *x, ts_session *s, float *got)
{
    ts_error err = {0};
    for (size_t i = 0, end; i < c->spans; i = end) {
        ts_span span[SEQS];
        size_t row = 0;
        for (end = i; end < c->spans && c->batch[end] == c->batch[i]; end++) {
            const int q = c->seq[end];
            span[end - i] = (ts_span){q, x->t[q] + ts_session_seq_pos(s, q), c->n[end], c->n[end]};
        }
        REQUIRE(ts_session_eval_spans(s, span, end - i, &err) == TS_OK);
        for (size_t j = i; j < end; j++) {
            const int64_t at = ts_session_seq_pos(s, c->seq[j]) - (int64_t)c->n[j];
            float *to = got + ((size_t)c->seq[j] * LEN + (size_t)at) * x->v;
            for (size_t k = 0; k < c->n[j]; k++)
                memcpy(to + k * x->v, ts_session_logits(s, row++), x->v * sizeof *to);
        }
    }
}

static void run_alone(const script *c, const texts *x, ts_session *s, float *got)
{
    ts_error err = {0};
    for (int q = 0; q < SEQS; q++) {
        int64_t pos = 0;
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        for (size_t i = 0; i < c->spans; i++) {
            float *to = got + ((size_t)q * LEN + (size_t)pos) * x->v;
            if (c->seq[i] != q)
                continue;
            REQUIRE(ts_session_eval(s, x->t[q] + pos, c->n[i], c->n[i], &err) == TS_OK);
            memcpy(to, ts_session_logits(s, 0), c->n[i] * x->v * sizeof *to);
            pos += (int64_t)c->n[i];
        }
        CHECK(pos == len_of(q));
    }
}

/* limit 0: the same bits. */
static void test_script(const char *what, const setup *how, mix kind, double limit)
{
    ts_engine *e = NULL;
    setup one = *how;
    static script c;
    texts x;
    one.n_seqs = 0;
    one.n_ctx = LEN;
    make_script(&c, kind, (size_t)how->n_ubatch);
    ts_session *s = open_session(&one, &e);
    make_tokens(&x, (size_t)e->m->hp.n_vocab, false); /* or pages would be others' */
    const size_t n = SEQS * LEN * x.v;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    REQUIRE(want && got);
    run_alone(&c, &x, s, want);
    close_session(s, e);
    s = open_session(how, &e);
    CHECK(e->plan.stream.device == (how->stream == TS_STREAM_ON));
    run_script(&c, &x, s, got);
    close_session(s, e);
    for (int i = 0; i < SEQS * LEN; i++) {
        if (i % LEN >= len_of(i / LEN))
            continue;
        const float *w = want + (size_t)i * x.v, *g = got + (size_t)i * x.v;
        CHECK_MSG(limit > 0 ? nmse(w, g, x.v) <= limit : memcmp(w, g, x.v * sizeof *w) == 0,
                  "%s: timeline %d at %d: NMSE %g", what, i / LEN, i % LEN, nmse(w, g, x.v));
    }
    free_texts(&x);
    free(want);
    free(got);
}

/* What is planned is what is allocated: of many timelines, whose maps are large. */
static void test_memory(const char *path)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_session *s = NULL;
    const setup how = {path, 1000, 1, 64 * 64, DECODED, cuda, TS_STREAM_OFF, 0};
    char room[32];
    REQUIRE(try_open(&e, &how, &err) == TS_OK);
    const ts_plan_device *d = &e->plan.dev[1];
    /* what cuBLAS has isn't there; an allocation is rounded up */
    snprintf(room, sizeof room, "%zu", d->packed + d->kv + d->buffers - ((size_t)64 << 20) + 4096);
    ts_engine_close(e);
    setenv("TS_STANDIN_ROOM", room, 1);
    e = NULL;
    CHECK_MSG(try_open(&e, &how, &err) == TS_OK && e->plan.n_gpu_layers == 1, "%s", err.msg);
    CHECK(e && ts_session_open(&s, e, &err) == TS_OK);
    unsetenv("TS_STANDIN_ROOM");
    close_session(s, e);
}

/* Every call of the driver fails once in a step of many timelines: a sentence, nothing has moved,
 * and the next one gives what it would have. */
static void test_failures(const char *path)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    texts x;
    int64_t at = 0, errors = 0;
    const setup how = {path, SEQS, 1, CACHE, DECODED, cuda, TS_STREAM_OFF, 0};
    want_alone(&x, &how);
    ts_session *s = open_session(&how, &e);
    const ts_span mixed[] = {{3, x.t[3], 5, 2}, {1, x.t[1], 1, 1}};
    for (;; at++, errors++) {
        ts_rt_calls = 0;
        ts_rt_fails_at = at;
        if (ts_session_eval_spans(s, mixed, 2, &err) == TS_OK)
            break;
        CHECK_MSG(strstr(err.msg, "CUDA0: ") && strstr(err.msg, "told to fail"), "%s", err.msg);
        CHECK(ts_session_seq_pos(s, 3) == 0 && ts_session_seq_pos(s, 1) == 0);
    }
    ts_rt_fails_at = -1;
    CHECK_MSG(errors > 0, "no call");
    check_rows(&x, "after failures", s, mixed, 2);
    for (at = 1;; at++) { /* launches */
        CHECK(ts_session_seq_rewind(s, 1, 0, &err) == TS_OK);
        CHECK(ts_session_seq_rewind(s, 3, 0, &err) == TS_OK);
        ts_sim_refuse(at);
        if (ts_session_eval_spans(s, mixed, 2, &err) == TS_OK)
            break;
        CHECK_MSG(strstr(err.msg, " failed: "), "%s", err.msg);
    }
    ts_sim_refuse(0);
    CHECK_MSG(at > 8, "%d launches", (int)at);
    check_rows(&x, "after failures", s, mixed, 2);
    close_session(s, e);
    free_texts(&x);
}

int main(void)
{
    static const struct {
        const char *arch, *type;
        bool experts;
    } archs[] = {{"llama", "Q4_K_M", false},
                 {"gemma3", "Q8_0", false}, /* windows */
                 {"qwen3moe", "Q4_0", true},
                 {"deepseek2:tiny-v3", "Q8_0", true},
                 {"gpt-oss", "MXFP4", true}}; /* sinks */
    ts_error err = {0};
    char path[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!SANITIZED || i == 3)
            test_arch(archs[i].arch, archs[i].type, path, archs[i].experts, i == 0);
    REQUIRE(ts_synth_tiny(path, "llama", "Q8_0", false, &err) == TS_OK);
    test_graphs(path);
    test_memory(path);
    test_failures(path);
    setup how = {path, SEQS, 2, 1024, UBATCH, cuda, TS_STREAM_OFF, 0};
    ts_rt_no_gemm = true;
    test_script("llama", &how, MIXED, 0);
    ts_rt_no_gemm = false;
    if (!SANITIZED)
        test_script("llama, cuBLAS", &how, MIXED, 1e-3);
    how.layers = 1;
    how.stream = TS_STREAM_ON; /* one timeline a step, whose pages lie among others' */
    test_script("llama, streamed", &how, ONE, 0);
    if (!SANITIZED) {
        REQUIRE(ts_synth_tiny(path, "deepseek2:tiny-v3", "Q8_0", false, &err) == TS_OK);
        how.stream = TS_STREAM_OFF;
        how.layers = 4;
        how.n_ubatch = 2 * UBATCH;
        test_script("deepseek2, cuBLAS", &how, MANY, 0);
        how.layers = 1;
        how.n_ubatch = UBATCH;
        how.stream = TS_STREAM_ON;
        test_script("deepseek2, streamed", &how, ONE, 0);
        how.layers = 4;
        how.alone = 1;
        test_script("deepseek2, a token's experts shared", &how, ONE, 0);
    }
    unlink(path);
    return check_done("cuda_spans");
}

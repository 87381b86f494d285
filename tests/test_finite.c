/* test_finite.c - check_finite: a NaN or an infinity put into one tensor of a file is found in the
 * step that reads it, on whichever device, and models without one pass. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "engine.h"
#include "exec/finite.h"
#include "fake_device.h"
#include "gguf/synth.h"

#define CTX   60
#define ROOMY ((size_t)1 << 40)
#define N_IDS 50
#define ODD   7 /* a token that is the 46th and no other: in the second micro-batch */

static const char *const archs[] = {"llama",    "qwen2",    "qwen3",     "gemma3",
                                    "qwen3moe", "qwen2moe", "deepseek2", "deepseek2:tiny-v3",
                                    "olmo2",    "granite",  "gemma2",    "command-r",
                                    "phi3",     "glm4moe",  "gpt-oss"};
static const ts_backend *const fakes[] = {&fake_backend, &fake_backend};
static const ts_accel two[2] = {{"fake0", 0, &fake_kind, ROOMY, 0, 0, 0, 0},
                                {"fake1", 1, &fake_kind, ROOMY, 0, 0, 0, 0}};
static ts_token ids[N_IDS];

static ts_engine *open_engine(const char *path, ts_isa isa, int accels, int64_t layers, bool check)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.stream = TS_STREAM_OFF; /* where a layer runs is what is looked at */
    o.isa = isa;
    o.n_threads = 2;
    o.n_ctx = CTX;
    o.n_ubatch = 40;
    o.n_logits = 3;
    o.check_finite = check;
    ts_engine_split split = {.split = {.accels = two, .n_accels = accels, .n_gpu_layers = layers},
                             .backends = fakes};
    ts_error err = {0};
    ts_engine *e = NULL;
    const ts_status st = ts_engine_open_split(&e, path, &o, &split, &err);
    if (st)
        fprintf(stderr, "%s\n", err.msg);
    REQUIRE(st == TS_OK);
    return e;
}

/* --- models without one ------------------------------------------------------- */

/* Two micro-batches with three rows of logits, and a step: 4 rows. */
static void evals(ts_engine *e, float *out)
{
    const size_t v = (size_t)e->m->hp.n_vocab;
    ts_session *s = NULL;
    ts_error err = {0};
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    ts_status st = ts_session_eval(s, ids, N_IDS, 3, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    if (!st)
        memcpy(out, ts_session_logits(s, 0), 3 * v * sizeof *out);
    if (!st)
        st = ts_session_eval(s, ids, 1, 1, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    if (!st)
        memcpy(out + 3 * v, ts_session_logits(s, 0), v * sizeof *out);
    ts_session_close(s);
}

/* Nothing is found, and no bit differs: with all kernels of the CPU, and on accelerators. */
static void test_clean(const char *arch, const char *path)
{
    for (int accels = 0; accels <= 2; accels++) {
        const ts_isa isa = accels ? TS_ISA_REF : TS_ISA_AUTO;
        ts_engine *e = open_engine(path, isa, accels, 0, false);
        const int64_t n_layer = e->m->hp.n_layer;
        const size_t bytes = 4 * (size_t)e->m->hp.n_vocab * sizeof(float);
        float *want = malloc(bytes), *got = malloc(bytes);
        REQUIRE(want && got);
        evals(e, want);
        ts_engine_close(e);
        for (int64_t layers = accels ? 1 : 0; layers <= (accels ? n_layer + 1 : 0); layers++) {
            e = open_engine(path, isa, accels, layers, true);
            memset(got, 0xff, bytes);
            evals(e, got);
            CHECK_MSG(memcmp(want, got, bytes) == 0, "%s, %d accelerators, %d layers", arch, accels,
                      (int)layers);
            ts_engine_close(e);
        }
        free(want);
        free(got);
    }
}

/* --- models with one ---------------------------------------------------------- */

typedef struct planted {
    const char *arch, *tensor;
    int64_t row, column; /* of the tensor as a matrix */
    float value;
    int layer; /* -1: outside */
    const char *step, *buffer;
    int64_t at;  /* the column of the buffer, and its first row or: */
    bool wanted; /* the first of those whose logits are wanted */
} planted;

/* Writes bytes into the file at the element's block: the value as F32, or as the half that begins a
 * block of Q8_0. */
static void plant(const char *path, const planted *p)
{
    ts_error err = {0};
    ts_gguf *g = NULL;
    REQUIRE(ts_gguf_open(&g, path, &err) == TS_OK);
    const ts_tensor *t = ts_gguf_tensor(g, p->tensor);
    REQUIRE(t && (t->type == TS_TYPE_F32 || t->type == TS_TYPE_Q8_0));
    const uint16_t half = isnan(p->value) ? 0x7e00 : p->value > 0 ? 0x7c00 : 0xfc00;
    const bool f32 = t->type == TS_TYPE_F32;
    const int64_t block = f32 ? 1 : 32, bytes = f32 ? 4 : 34;
    const int64_t at = (p->row * t->ne[0] + p->column) / block * bytes;
    const uint64_t offset = t->offset;
    ts_gguf_close(g);
    int fd = open(path, O_WRONLY);
    const void *src = f32 ? (const void *)&p->value : &half;
    REQUIRE(fd >= 0 && pwrite(fd, src, f32 ? 4 : 2, (off_t)offset + at) == (f32 ? 4 : 2));
    close(fd);
}

/* The sentence names all of it; the timeline keeps the micro-batch before. */
static void find(const planted *p, const char *path, ts_isa isa, int64_t layers)
{
    ts_engine *e = open_engine(path, isa, 1, layers, true);
    ts_session *s = NULL;
    ts_error err = {0};
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    const int64_t n = e->m->hp.n_layer, from = n - layers;
    const bool there = p->layer < 0 ? layers > n : p->layer >= from;
    const bool odd = strcmp(p->tensor, "token_embd.weight") == 0;
    const int position = odd ? 45 : p->wanted ? N_IDS - 1 : 0;
    char layer[64], place[128];
    snprintf(layer, sizeof layer, p->layer < 0 ? "outside the layers, " : "layer %d, ", p->layer);
    snprintf(place, sizeof place, "in '%s', row %d (position %d), column %d", p->buffer,
             p->wanted ? 0 : position % 40, position, (int)p->at);
    CHECK(ts_session_eval(s, ids, N_IDS, 1, &err) == TS_NOT_FINITE);
    const char *const says[] = {p->step, p->tensor, layer,
                                there ? "on fake0: " : "on CPU: ", place};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        CHECK_MSG(strstr(err.msg, says[i]), "%s, %d layers: '%s' is not in: %s", p->arch,
                  (int)layers, says[i], err.msg);
    CHECK(ts_session_pos(s) == position / 40 * 40 && !ts_session_logits(s, 0));
    if (odd) /* without that token nothing is found */
        CHECK(ts_session_eval(s, ids, 1, 1, &err) == TS_OK && ts_session_pos(s) == 41);
    ts_session_close(s);
    ts_engine_close(e);
}

static void test_planted(const char *path)
{
    static const planted all[] = {
        {"llama", "blk.1.ffn_norm.weight", 0, 5, NAN, 1, "(norm with ", "xn", 5, true},
        {"qwen3", "blk.0.attn_q_norm.weight", 0, 3, INFINITY, 0, "(norm with ", "q", 3, false},
        {"gemma3", "blk.0.post_ffw_norm.weight", 0, 9, -INFINITY, 0, "(norm with ", "xn", 9, false},
        {"qwen2", "blk.1.attn_v.bias", 0, 11, NAN, 1, "(bias with ", "v", 11, false},
        {"llama", "blk.0.attn_output.weight", 3, 0, INFINITY, 0, "(matmul with ", "x", 3, false},
        {"llama", "blk.1.ffn_up.weight", 30, 40, NAN, 1, "(glu with blk.1.ffn_gate.weight and ",
         "gate", 30, true},
        {"qwen2", "blk.1.ffn_down.weight", 2, 64, NAN, 1, "(matmul with ", "x", 2, true},
        {"gemma3", "output_norm.weight", 0, 1, NAN, -1, "(norm with ", "x", 1, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, all[i].arch, "Q8_0", false, &err) == TS_OK);
        plant(path, &all[i]);
        ts_engine *e = open_engine(path, TS_ISA_REF, 1, 0, false);
        const int64_t n = e->m->hp.n_layer;
        ts_session *s = NULL; /* nobody looks unless told to */
        CHECK(ts_session_open(&s, e, &err) == TS_OK &&
              ts_session_eval(s, ids, N_IDS, 1, &err) == TS_OK);
        ts_session_close(s);
        ts_engine_close(e);
        for (int64_t layers = 0; layers <= n + 1; layers++)
            find(&all[i], path, TS_ISA_REF, layers);
        find(&all[i], path, TS_ISA_AUTO, 0);
    }
}

/* With room for few rows a buffer is looked at piece by piece, on accelerators too: the NaN is in
 * the last of 40 rows. */
static void test_pieces(const char *path)
{
    ts_error err = {0};
    for (int64_t layers = 0; layers <= 2; layers += 2) { /* its embedding, and a copy of it */
        ts_engine *e = open_engine(path, TS_ISA_REF, 1, layers, false);
        ts_run r;
        REQUIRE(ts_run_open(&r, &e->devices, true, &err) == TS_OK);
        r.n_seen = ts_finite_floats(&e->plan);
        REQUIRE(r.n_seen / (size_t)e->m->hp.n_embd < 20);
        const ts_batch b = {.tokens = ids + 6, .m = 40, .m_out = 1};
        size_t i = 0;
        while (e->plan.steps.v[i].op != (layers ? TS_OP_COPY : TS_OP_EMBED))
            i++;
        for (size_t j = 0; j <= i && layers; j++) {
            const ts_step *st = &e->plan.steps.v[j];
            REQUIRE((st->op == TS_OP_COPY
                         ? fake_put(r.state[1], st->dst, 0, 40,
                                    ts_backend_cpu.row(r.state[0], st->dst, 0), &err)
                         : ts_backend_cpu.run(r.state[0], &b, j, j + 1, &err)) == TS_OK);
        }
        const ts_status st =
            layers ? ts_finite_step(&r, &b, i, r.seen, r.n_seen, &err) : ts_run_batch(&r, &b, &err);
        CHECK_MSG(st == TS_NOT_FINITE && strstr(err.msg, layers ? "(copy), " : "(embed with ") &&
                      strstr(err.msg, layers ? "on fake0: NaN" : "on CPU: NaN") &&
                      strstr(err.msg, "in 'x', row 39 (position 39), column 32"),
                  "%s", err.msg);
        ts_run_close(&r);
        ts_engine_close(e);
    }
}

/* Outside of blocks and of the devices' choice: a row of the embedding, for one token. */
static void test_token(const char *path)
{
    static const planted p = {"llama", "token_embd.weight", ODD, 32, NAN,
                              -1,      "(embed with ",      "x", 32, false};
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, p.arch, "Q8_0", false, &err) == TS_OK);
    plant(path, &p);
    find(&p, path, TS_ISA_REF, 0);
    find(&p, path, TS_ISA_AUTO, 1);
    test_pieces(path);
}

/* A key that is a number, but none in the F16 of the cache. */
static void test_cache(const char *path)
{
    static const planted p = {"qwen2", "blk.1.attn_k.bias", 0, 2, 1e5f, 1, "(store", "k", 2, false};
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, p.arch, "Q8_0", false, &err) == TS_OK);
    plant(path, &p);
    for (int64_t layers = 0; layers <= 1; layers++) {
        ts_engine *e = open_engine(path, TS_ISA_REF, 1, layers, true);
        ts_session *s = NULL;
        REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
        CHECK(ts_session_eval(s, ids, 5, 1, &err) == TS_NOT_FINITE);
        CHECK_MSG(strstr(err.msg, "(store), layer 1, on ") &&
                      strstr(err.msg, layers ? "on fake0: 1" : "on CPU: 1") &&
                      strstr(err.msg, ", an infinity in the F16 of the cache, in 'k', row 0 "
                                      "(position 0), column 2"),
                  "%s", err.msg);
        ts_session_close(s);
        ts_engine_close(e);
    }
}

/* An accelerator that fails while it is looked at ends the eval with its own sentence. */
static void test_failures(const char *path)
{
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, "llama", "Q8_0", false, &err) == TS_OK);
    ts_engine *e = open_engine(path, TS_ISA_REF, 1, 1, true);
    ts_session *s = NULL;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    int64_t at = 0;
    for (;; at++) {
        fake_calls = 0;
        fake_fails_at = at;
        if (ts_session_eval(s, ids, 5, 1, &err) == TS_OK)
            break;
        CHECK(strstr(err.msg, "as it was told") && ts_session_pos(s) == 0);
    }
    fake_fails_at = -1;
    int64_t calls = 0; /* each step runs, and each that leaves floats behind is read */
    for (size_t i = 0; i < e->plan.steps.n; i++) {
        const ts_step *st = &e->plan.steps.v[i];
        const int looks = st->op == TS_OP_PREP ? 0 : st->op == TS_OP_STORE ? 2 : 1;
        calls += st->device ? 1 + looks : st->op == TS_OP_COPY;
    }
    CHECK_MSG(at == calls, "%d calls could fail, not %d", (int)at, (int)calls);
    ts_session_close(s);
    ts_engine_close(e);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    uint64_t seed = 20261125;
    for (size_t i = 0; i < N_IDS; i++)
        ids[i] = (ts_token)(ODD + 1 + rnd_u64(&seed) % 300);
    ids[45] = ODD;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i += SANITIZED ? 7 : 1) {
        ts_error err = {0};
        REQUIRE(ts_synth_tiny(path, archs[i], i % 2 ? "Q4_K_M" : "Q8_0", false, &err) == TS_OK);
        test_clean(archs[i], path);
    }
    test_planted(path);
    test_token(path);
    test_cache(path);
    test_failures(path);
    unlink(path);
    return check_done("finite");
}

/* test_latent.c - models with latent attention: what a file may not say, what their cache takes,
 * and which of them a GPU takes. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cpu/ops.h"
#include "cuda/device.h"
#include "engine.h"
#include "gguf/synth.h"

enum { CTX = 100, LAYERS = 3 };

static char path[] = "/tmp/tessera-test-XXXXXX";

static ts_status open_model(ts_engine **e, ts_error *err)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.n_ctx = CTX;
    o.n_threads = 1;
    return ts_engine_open(e, path, &o, err);
}

/* Bytes of the file from where `text` first stands in it. */
static size_t find(const uint8_t *file, size_t n, const char *text)
{
    const size_t len = strlen(text);
    for (size_t i = 0; i + len <= n; i++)
        if (memcmp(file + i, text, len) == 0)
            return i;
    REQUIRE(!"the file has the text");
    return 0;
}

typedef struct bad {
    const char *preset;
    const char *key;   /* of an integer: after "deepseek2.". Or: text ...              */
    const char *other; /* ... of a name, for which this stands then, as long; NULL: ... */
    uint32_t value;    /* ... the key's value                                           */
    const char *says;
} bad;

static const bad cases[] = {
    {"tiny", "attention.kv_lora_rank", NULL, 80,
     "K and V have 112 and 96 dimensions; a latent rank of 80 and 16 turned dimensions make them "
     "96 "
     "and 80"},
    {"tiny", "attention.kv_lora_rank", NULL, 0, "'deepseek2.attention.kv_lora_rank' is 0"},
    {"tiny", "attention.value_length\x04", NULL, 112, "K and V have 112 and 112 dimensions"},
    {"tiny", "attention.key_length\x04", NULL, 96, "K and V have 96 and 96 dimensions"},
    {"tiny", "attention.head_count_kv", NULL, 4,
     "there are 4 KV heads; latent attention has one for all heads"},
    {"tiny", "attention.key_length_mla", NULL, 16,
     "RoPE turns 16 dimensions of heads that have 16"},
    {"tiny", "attention.key_length_mla", NULL, 64, "tensor 'blk.0.attn_q.weight' is 256 x 192"},
    {"tiny", "attention.value_length_mla", NULL, 32,
     "tensor 'blk.0.attn_v_b.weight' is 96 x 48 x 4; the hyperparameters make it 96 x 32 x 4"},
    {"tiny", "attention.q_lora_rank", NULL, 64, "tensor 'blk.0.attn_q_a.weight' is missing"},
    {"tiny-v3", "attention.q_lora_rank", NULL, 64, "tensor 'blk.0.attn_q_a.weight' is 256 x 96"},
    {"tiny", "attention.head_count\x04", NULL, 2, "tensor 'blk.0.attn_q.weight' is 256 x 192"},
    {"tiny", "leading_dense_block_count", NULL, 4, "leading_dense_block_count' is 4"},
    {"tiny", "leading_dense_block_count", NULL, 0, "'blk.0.ffn_gate_inp.weight' is missing"},
    {"tiny", "expert_shared_count", NULL, 1, "'blk.1.ffn_gate_shexp.weight' is 256 x 192"},
    {"tiny", "expert_gating_func", NULL, 4, "experts are chosen by function 4"},
    {"tiny-v3", "expert_group_count", NULL, 5, "12 experts don't divide among 5 groups"},
    {"tiny-v3", "expert_group_count", NULL, 2000, "'deepseek2.expert_group_count' is 2000"},
    {"tiny-v3", "expert_group_used_count", NULL, 0,
     "experts are chosen from 0 groups and there are 4"},
    {"tiny-v3", "expert_group_used_count", NULL, 5,
     "experts are chosen from 5 groups and there are 4"},
    {"tiny-v3", "expert_used_count", NULL, 7,
     "a token uses 7 experts and 2 groups of 3 have fewer"},
    {"tiny", "blk.0.attn_norm.weight", "blk.0.attn_kv_b.weight", 0,
     "'blk.0.attn_kv_b.weight' has the matrices for K and V in one"},
    {"tiny", "blk.2.attn_v_b.weight", "blk.2.attn_v_c.weight", 0, "'blk.2.attn_v_b.weight' is mis"},
    {"tiny", "deepseek2.attention.value_length_mla", "deepseek2.attention.value_length_mlb", 0,
     "'deepseek2.attention.value_length_mla' is missing"},
};

/* A key's value follows it and four bytes of its type, which is 4 for an u32. */
static void spoil(const bad *c, uint8_t *file, size_t n)
{
    char key[80];
    snprintf(key, sizeof key, "%s%s", c->other ? "" : "deepseek2.", c->key);
    const size_t at = find(file, n, key), len = strlen(key);
    if (c->other) {
        REQUIRE(strlen(c->other) == len);
        memcpy(file + at, c->other, len);
        return;
    }
    const size_t type = at + len - (key[len - 1] == 4); /* where one key begins another */
    REQUIRE(file[type] == 4);
    memcpy(file + type + 4, &c->value, 4);
}

enum { MOST = 4 << 20 };
static uint8_t file[MOST];

static size_t read_model(const char *preset)
{
    char arch[40];
    ts_error err = {0};
    snprintf(arch, sizeof arch, "deepseek2:%s", preset);
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", false, &err) == TS_OK);
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    const size_t n = fread(file, 1, MOST, f);
    fclose(f);
    REQUIRE(n < MOST);
    return n;
}

static void write_model(size_t n)
{
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(file, 1, n, f) == n && fclose(f) == 0);
}

static void test_bad(const bad *c)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    const size_t n = read_model(c->preset);
    CHECK(open_model(&e, &err) == TS_OK); /* before, it is a good file */
    ts_engine_close(e);
    e = NULL;
    spoil(c, file, n);
    write_model(n);
    const ts_status st = open_model(&e, &err);
    CHECK_MSG((st == TS_BAD_FILE || st == TS_UNSUPPORTED) && !e && strstr(err.msg, c->says) &&
                  strstr(err.msg, path),
              "%s %s: no '%s' in '%s'", c->preset, c->key, c->says, st ? err.msg : "");
    ts_engine_close(e);
}

/* Blocks that predict tokens further on are left alone; not all blocks can be such. The key takes
 * the place of one that has four bytes too. */
static void test_next_tokens(void)
{
    static const char key[] = "deepseek2.nextn_predict_layers";
    const size_t n = read_model("tiny"), at = find(file, n, "deepseek2.expert_weights_scale");
    const uint32_t u32 = 4;
    for (uint32_t blocks = 1; blocks <= 3; blocks += 2) {
        ts_error err = {0};
        ts_engine *e = NULL;
        memcpy(file + at, key, sizeof key - 1);
        memcpy(file + at + sizeof key - 1, &u32, 4);
        memcpy(file + at + sizeof key + 3, &blocks, 4);
        write_model(n);
        const ts_status st = open_model(&e, &err);
        if (blocks == 1)
            CHECK_MSG(st == TS_OK && e->m->hp.n_layer == 2, "%s", err.msg);
        else
            CHECK_MSG(st == TS_BAD_FILE && strstr(err.msg, "nextn_predict_layers' is 3"), "%s",
                      err.msg);
        ts_engine_close(e);
    }
}

/* On the CPU: one row of the latent and what is turned, and the latent again, for all heads. */
static void test_cache(void)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    REQUIRE(ts_synth_tiny(path, "deepseek2", "Q8_0", false, &err) == TS_OK);
    REQUIRE(open_model(&e, &err) == TS_OK);
    const ts_kv_layout *kv = ts_ops_get(e->plan.isa)->kv;
    CHECK(e->m->hp.n_head_kv == 1 && e->m->hp.head_dim == 96 + 16 && e->m->hp.v_dim == 96);
    CHECK(e->plan.dev[0].kv == 3 * (kv->bytes(CTX, 96 + 16) + kv->bytes(CTX, 96)));
    CHECK(ts_weight_step(e->m->layers[0].k_b) == e->m->layers[0].k_b->bytes);
    ts_engine_close(e);
}

static char warned[400];

static void log_line(void *user, ts_log_level level, const char *line)
{
    (void)user;
    if (level <= TS_LOG_WARN)
        snprintf(warned, sizeof warned, "%s", line);
}

/* The plan of n layers on a GPU, and what it warns of. */
static ts_plan plan_of(ts_engine *e, int64_t n, bool kv_on_cpu)
{
    const ts_accel gpu = {.name = "CUDA0", .kind = &ts_cuda_kind, .memory = (size_t)1 << 40};
    const ts_log log = {log_line, NULL};
    const ts_plan_options o = {
        .isa = TS_ISA_REF,
        .n_threads = 1,
        .n_ctx = CTX,
        .split = {.accels = &gpu, .n_accels = 1, .n_gpu_layers = n, .kv_on_cpu = kv_on_cpu}};
    ts_error err = {0};
    ts_plan p;
    warned[0] = 0;
    REQUIRE(ts_plan_make(&p, e->m, &o, &log, &err) == TS_OK);
    for (int64_t l = 0; l < LAYERS; l++) {
        const ts_layer *x = &e->m->layers[l];
        CHECK((x->device == 1) == (l >= LAYERS - n) && x->wq->device == x->device);
        CHECK(x->k_b->device == x->kv_device && x->v_b->device == x->kv_device);
    }
    return p;
}

/* On a GPU the row alone, of every layer that is there or streamed. */
static void test_gpu_cache(ts_engine *e)
{
    for (int64_t n = 0; n <= LAYERS; n++)
        for (int on_cpu = 0; on_cpu < 2; on_cpu++) {
            ts_plan p = plan_of(e, n, on_cpu);
            const int64_t rows = on_cpu || !n ? 0 : LAYERS * CTX; /* -ngl 0: no GPU is used */
            CHECK((p.stream.device == 1) == (!on_cpu && n > 0 && n < LAYERS));
            CHECK(p.dev[0].n_layers == (on_cpu ? LAYERS : LAYERS - n));
            CHECK_MSG(p.n_devices < 2 ? rows == 0 : p.dev[1].kv == (size_t)rows * 2 * (96 + 16),
                      "%d layers: %zu bytes of K and V", (int)n, p.dev[1].kv);
            CHECK_MSG(!warned[0], "%s", warned);
            ts_plan_free(&p);
        }
}

/* What its kernels don't take stays on the CPU, and a line says so; such layers aren't streamed. */
static void test_gpu_widths(ts_engine *e)
{
    static const struct {
        int64_t dim, c;
        bool takes;
    } widths[] = {{576, 512, true},  {512, 512, true},  {584, 512, false},
                  {576, 520, false}, {112, 100, false}, {100, 96, false}};
    ts_hparams *hp = &e->m->hp;
    const ts_hparams kept = *hp;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        char says[200] = "";
        hp->head_dim = widths[i].dim;
        hp->v_dim = widths[i].c;
        ts_plan p = plan_of(e, 2, false);
        if (!widths[i].takes)
            snprintf(says, sizeof says,
                     "K, V and attention of 2 layers stay on the CPU: CUDA0 has no kernels for "
                     "latents of %d and %d elements or for their matrices",
                     (int)hp->head_dim, (int)hp->v_dim);
        CHECK_MSG(strcmp(warned, says) == 0, "%s", warned);
        CHECK(p.dev[0].n_layers == (widths[i].takes ? 1 : LAYERS));
        CHECK((p.stream.device == 1) == widths[i].takes);
        ts_plan_free(&p);
        if (!widths[i].takes) { /* K and V are where they were asked to be */
            p = plan_of(e, 2, true);
            CHECK(!warned[0]);
            ts_plan_free(&p);
        }
    }
    *hp = kept;
    ts_weight *b[] = {e->m->layers[2].k_b, e->m->layers[2].v_b};
    for (int i = 0; i < 2; i++) { /* a matrix for each head that is too wide */
        const int64_t k = b[i]->k;
        CHECK(ts_attends_latent(&ts_cuda_kind, e->m, &e->m->layers[2]));
        b[i]->k = 1025;
        CHECK(!ts_attends_latent(&ts_cuda_kind, e->m, &e->m->layers[2]));
        b[i]->k = k;
    }
}

static void test_gpu(void)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    REQUIRE(ts_synth_tiny(path, "deepseek2", "Q8_0", false, &err) == TS_OK);
    REQUIRE(open_model(&e, &err) == TS_OK && e->m->hp.n_layer == LAYERS);
    test_gpu_cache(e);
    test_gpu_widths(e);
    ts_engine_close(e);
}

int main(void)
{
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        test_bad(&cases[i]);
    test_next_tokens();
    test_cache();
    test_gpu();
    unlink(path);
    return check_done("latent");
}

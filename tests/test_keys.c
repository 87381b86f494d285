/* test_keys.c - keys that files of some converters have and others don't: widths of experts that
 * are to be taken from elsewhere, a RoPE base of sliding layers.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "gguf/synth.h"

enum { MOST = 4 << 20, N = 40 };

static char path[] = "/tmp/tessera-test-XXXXXX";
static uint8_t file[MOST];
static size_t size; /* of what is in file */

static void write_file(void)
{
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(file, 1, size, f) == size && fclose(f) == 0);
}

static void read_model(const char *arch)
{
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", false, &err) == TS_OK);
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    size = fread(file, 1, MOST, f);
    fclose(f);
    REQUIRE(size < MOST);
}

/* Where the key stands in the file: its characters. */
static uint8_t *find(const char *key)
{
    const size_t n = strlen(key);
    uint64_t len;
    for (size_t i = 8; i + n <= size; i++) {
        memcpy(&len, file + i - 8, 8);
        if (len == n && memcmp(file + i, key, n) == 0)
            return file + i;
    }
    REQUIRE(!"the file has the key");
    return NULL;
}

/* The key is there no more: it has another name. */
static void hide(const char *key)
{
    find(key)[strlen(key) - 1] = '_';
}

/* Adds a float key, and one that fills up what the header is rounded to. */
static void add_float(const char *key, float v)
{
    enum { HEAD = 24, ADDED = 128 };
    const uint64_t len = strlen(key), pad = 4, rest = ADDED - (8 + len + 4 + 4) - (8 + pad + 4 + 8);
    const uint32_t f32 = 6, str = 8;
    uint64_t n_kv;
    uint8_t *p = file + HEAD;
    REQUIRE(size + ADDED <= MOST && rest < ADDED);
    memmove(p + ADDED, p, size - HEAD);
    size += ADDED;
    memcpy(&n_kv, file + 16, 8);
    n_kv += 2;
    memcpy(file + 16, &n_kv, 8);
    memcpy(p, &len, 8);
    memcpy(p + 8, key, len);
    memcpy(p + 8 + len, &f32, 4);
    memcpy(p + 12 + len, &v, 4);
    p += 16 + len;
    memcpy(p, &pad, 8);
    memcpy(p + 8, "test", pad);
    memcpy(p + 12, &str, 4);
    memcpy(p + 16, &rest, 8);
    memset(p + 24, 'x', rest);
}

static ts_engine *open_model(void)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    o.n_ctx = 100;
    o.n_threads = 1;
    const ts_status st = ts_engine_open(&e, path, &o, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(e);
    return e;
}

/* Logits behind some tokens, [n_vocab], to be freed. */
static float *logits(const ts_engine *e)
{
    ts_error err = {0};
    ts_session *s = NULL;
    ts_token t[N];
    uint64_t seed = 3;
    const size_t v = (size_t)e->m->hp.n_vocab;
    float *out = malloc(v * sizeof *out);
    for (int i = 0; i < N; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % v);
    REQUIRE(out && ts_session_open(&s, (ts_engine *)(uintptr_t)e, &err) == TS_OK &&
            ts_session_eval(s, t, N, 1, &err) == TS_OK);
    memcpy(out, ts_session_logits(s, 0), v * sizeof *out);
    ts_session_close(s);
    return out;
}

/* The model without some of its keys is the same model. */
static void test_widths(const char *arch, const char *const *keys)
{
    read_model(arch);
    ts_engine *a = open_model();
    float *want = logits(a);
    for (int i = 0; i < 2 && keys[i]; i++)
        hide(keys[i]);
    write_file();
    ts_engine *b = open_model();
    float *got = logits(b);
    CHECK_MSG(b->m->hp.moe.n_ff == a->m->hp.moe.n_ff, "%s: experts of %d, not %d", arch,
              (int)b->m->hp.moe.n_ff, (int)a->m->hp.moe.n_ff);
    CHECK_MSG(memcmp(want, got, (size_t)a->m->hp.n_vocab * sizeof *want) == 0,
              "%s without its widths: other logits", arch);
    free(want);
    free(got);
    ts_engine_close(a);
    ts_engine_close(b);
}

/* A base for sliding layers: they turn as all layers of a model with that base, and are scaled as
 * the others (`scaled`) or not at all. */
static void test_base(const char *arch, bool scaled)
{
    enum { BASE = 4321 };
    char key[64];
    const float base = BASE;
    read_model(arch);
    ts_engine *e = open_model();
    float *before = logits(e);
    const size_t v = (size_t)e->m->hp.n_vocab;
    ts_engine_close(e);

    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    memcpy(find(key) + strlen(key) + 4, &base, 4); /* behind the type */
    write_file();
    e = open_model();
    const int64_t n = e->m->rope.n_rot / 2;
    float *want = malloc((size_t)n * sizeof *want);
    REQUIRE(want);
    for (int64_t i = 0; i < n; i++)
        want[i] = scaled ? e->m->rope.freq[i] : (float)pow(BASE, -(double)i / (double)n);
    const float mscale = scaled ? e->m->rope.mscale : 1;
    ts_engine_close(e);

    read_model(arch);
    snprintf(key, sizeof key, "%s.rope.freq_base_swa", arch);
    add_float(key, base);
    write_file();
    e = open_model();
    int sliding = 0;
    for (int64_t l = 0; l < e->m->hp.n_layer; l++) {
        const ts_layer *L = &e->m->layers[l];
        sliding += L->window > 0;
        CHECK_MSG(L->rope == (L->window ? &e->m->rope_swa : &e->m->rope), "%s, layer %d", arch,
                  (int)l);
    }
    CHECK(sliding > 0 && sliding < e->m->hp.n_layer);
    CHECK_MSG(memcmp(e->m->rope_swa.freq, want, (size_t)n * sizeof *want) == 0 &&
                  e->m->rope_swa.mscale == mscale,
              "%s: sliding layers turn otherwise", arch);
    float *after = logits(e);
    CHECK_MSG(nmse(before, after, v) > 1e-4, "%s: the same logits whatever the base", arch);
    ts_engine_close(e);
    free(before);
    free(after);
    free(want);
}

/* YaRN's bounds, both at one turn: but for the pair between them each is as it was or divided by
 * the factor. */
static void test_yarn(void)
{
    static const char key[] = "gpt-oss.rope.freq_base";
    float base;
    read_model("gpt-oss");
    memcpy(&base, find(key) + strlen(key) + 4, sizeof base);
    for (int given = 0; given < 2; given++) {
        if (given)
            add_float("gpt-oss.rope.scaling.yarn_beta_fast", 1);
        write_file();
        ts_engine *e = open_model();
        const int64_t n = e->m->rope.n_rot / 2;
        int between = 0, divided = 0;
        for (int64_t i = 0; i < n; i++) {
            const double of = e->m->rope.freq[i] * pow(base, (double)i / (double)n),
                         factor = e->m->rope.factor;
            const bool low = fabs(of * factor - 1) < 1e-3;
            divided += low;
            between += !low && fabs(of - 1) > 1e-3;
        }
        CHECK_MSG(given ? between <= 1 && divided > 0 : between > 1,
                  "%d: %d pairs between, %d divided", given, between, divided);
        ts_engine_close(e);
    }
}

int main(void)
{
    static const char *const qwen2[] = {"qwen2moe.expert_feed_forward_length",
                                        "qwen2moe.expert_shared_feed_forward_length"};
    static const char *const qwen3[] = {"qwen3moe.expert_feed_forward_length", NULL};
    static const char *const llama[] = {"llama.expert_feed_forward_length", NULL};
    static const char *const v3[] = {"deepseek2.expert_gating_func", NULL};
    const int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    test_widths("qwen2moe", qwen2);
    test_widths("qwen3moe", qwen3);
    test_widths("llama:tiny-moe", llama);
    test_widths("llama:tiny-moe-parts", llama);
    test_widths("deepseek2:tiny-v3", v3);
    test_yarn();
    test_base("gpt-oss", true);
    test_base("gemma2", true);
    test_base("gemma3", false);
    test_base("olmo2", false);
    unlink(path);
    return check_done("keys");
}

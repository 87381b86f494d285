/* test_synth.c - random blocks and whole synthetic models: valid, sane, the same for a seed; and
 * the writer, which leaves nothing behind when it fails. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "gguf/gguf.h"
#include "gguf/synth_impl.h"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char buf[2][160];
    static int turn;
    char *s = buf[turn ^= 1];
    snprintf(s, sizeof buf[0], "%s/%s", dir, name);
    return s;
}

static int files_in_dir(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    REQUIRE(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static uint8_t *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    uint8_t *p = malloc(4 << 20);
    REQUIRE(p);
    *n = fread(p, 1, 4 << 20, f);
    fclose(f);
    return p;
}

static uint64_t fnv1a(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* --- blocks ------------------------------------------------------------- */

static void test_values(ts_type type, float scale)
{
    const ts_type_info *t = ts_type_get(type);
    int64_t k = 1 << 20, n = k / t->block;
    uint8_t *blocks = malloc((size_t)n * (size_t)t->bytes);
    float *y = malloc((size_t)k * sizeof *y);
    ts_synth_blocks(type, blocks, n, 5, scale);
    t->to_f32(y, blocks, k);
    double sum = 0, sq = 0;
    bool finite = true;
    for (int64_t i = 0; i < k; i++) {
        finite = finite && isfinite(y[i]);
        sum += (double)y[i];
        sq += (double)y[i] * (double)y[i];
    }
    double mean = sum / (double)k / (double)scale, sd = sqrt(sq / (double)k) / (double)scale;
    CHECK_MSG(finite, "%s", t->name);
    CHECK_MSG(fabs(mean) < 0.02, "%s: mean %g", t->name, mean);
    CHECK_MSG(fabs(sd - 1) < 0.03, "%s scale %g: deviation %g", t->name, (double)scale, sd);
    free(blocks);
    free(y);
}

static bool is_scale(ts_type type, int byte)
{
    switch (type) {
    case TS_TYPE_Q4_1:
    case TS_TYPE_Q5_1:
    case TS_TYPE_Q4_K:
    case TS_TYPE_Q5_K:
        return byte < 4;
    case TS_TYPE_Q2_K:
        return byte >= 80;
    case TS_TYPE_Q3_K:
        return byte >= 108;
    case TS_TYPE_Q6_K:
        return byte >= 208;
    case TS_TYPE_MXFP4:
        return byte < 1;
    default:
        return byte < 2;
    }
}

/* Every bit outside the float scales is a coin; every float scale takes many values. */
static void test_bits(ts_type type)
{
    const ts_type_info *t = ts_type_get(type);
    enum { N = 4096 };
    uint8_t *blocks = malloc((size_t)N * (size_t)t->bytes);
    ts_synth_blocks(type, blocks, N, 6, 0.5f);
    for (int bit = 0; bit < 8 * t->bytes; bit++) {
        int ones = 0;
        for (int i = 0; i < N; i++)
            ones += blocks[i * t->bytes + bit / 8] >> bit % 8 & 1;
        if (!is_scale(type, bit / 8))
            CHECK_MSG(abs(ones - N / 2) < N / 16, "%s bit %d: %d of %d", t->name, bit, ones, N);
    }
    for (int byte = 0; byte + 1 < t->bytes; byte += 2) {
        uint8_t seen[65536] = {0};
        int distinct = 0;
        for (int i = 0; i < N; i++) {
            uint16_t h;
            memcpy(&h, blocks + i * t->bytes + byte, 2);
            distinct += !seen[h];
            seen[h] = 1;
        }
        CHECK_MSG(distinct > 100, "%s byte %d: %d values", t->name, byte, distinct);
    }
    free(blocks);
}

static void test_ranges(ts_type type)
{
    size_t bytes = (size_t)ts_type_get(type)->bytes, n = 1000;
    uint8_t *whole = malloc(n * bytes), *part = malloc(n * bytes), *other = malloc(n * bytes);
    ts_synth_blocks(type, whole, (int64_t)n, 7, 1);
    ts_synth_range(type, part, 0, 8, 7, 1);
    ts_synth_range(type, part + 8 * bytes, 8, 312, 7, 1);
    ts_synth_range(type, part + 320 * bytes, 320, 680, 7, 1);
    CHECK_MSG(memcmp(whole, part, n * bytes) == 0, "%s", ts_type_name(type));
    ts_synth_blocks(type, other, (int64_t)n, 8, 1);
    CHECK_MSG(memcmp(whole, other, n * bytes) != 0, "%s", ts_type_name(type));
    free(whole);
    free(part);
    free(other);
}

/* --- models ------------------------------------------------------------- */

static ts_synth_options options(const char *arch, const char *type)
{
    return (ts_synth_options){
        .arch = arch, .preset = "tiny", .type = type, .seed = 1, .n_threads = 1};
}

static void check_tensors(const ts_gguf *g, const char *what)
{
    float *y = malloc((1 << 18) * sizeof *y);
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(g, i);
        int64_t n = t->ne[0] * t->ne[1];
        bool finite = true, varied = n == 1;
        REQUIRE(n <= 1 << 18);
        ts_type_get(t->type)->to_f32(y, t->data, n);
        for (int64_t j = 0; j < n; j++) {
            finite = finite && isfinite(y[j]);
            varied = varied || y[j] != y[0];
        }
        CHECK_MSG(finite && varied, "%s %s", what, t->name);
    }
    free(y);
}

static int64_t get_int(const ts_gguf *g, const char *key)
{
    int64_t v = -1;
    bool found = false;
    ts_error err = {0};
    CHECK_MSG(ts_gguf_get_int(g, key, 0, INT32_MAX, &v, &found, &err) == TS_OK && found, "%s %s",
              key, err.msg);
    return v;
}

/* The loader takes every architecture in every type, and finds what was meant. */
static void test_model(const char *arch, const char *type, bool pure)
{
    ts_error err = {0};
    ts_synth_options o = options(arch, type);
    ts_synth_result r;
    ts_gguf *g = NULL;
    const char *path = in_dir("m.gguf");
    char what[64], key[64];
    snprintf(what, sizeof what, "%s %s%s", arch, type, pure ? " pure" : "");
    o.pure = pure;
    CHECK_MSG(ts_synth_write(path, &o, &r, &err) == TS_OK, "%s: %s", what, err.msg);
    CHECK_MSG(r.file_bytes < 5000000, "%s: %llu bytes", what, (unsigned long long)r.file_bytes);
    CHECK_MSG(ts_gguf_open(&g, path, &err) == TS_OK, "%s: %s", what, err.msg);
    if (!g)
        return;
    CHECK(ts_gguf_file_bytes(g) == r.file_bytes && ts_gguf_version(g) == 3);
    CHECK((int64_t)ts_gguf_n_tensors(g) == r.n_tensors);
    check_tensors(g, what);

    const ts_tensor *embd = ts_gguf_tensor(g, "token_embd.weight");
    const ts_tensor *gate = ts_gguf_tensor(g, "blk.0.ffn_gate.weight");
    const bool fused = !strcmp(arch, "phi3"); /* gate and up are one tensor there */
    const bool experts = !gate && !fused;
    if (fused)
        gate = ts_gguf_tensor(g, "blk.0.ffn_up.weight");
    if (experts)
        gate = ts_gguf_tensor(g, "blk.0.ffn_gate_exps.weight");
    ts_gguf_arr tokens = {0};
    bool found;
    REQUIRE(embd && gate);
    CHECK(ts_gguf_get_arr(g, "tokenizer.ggml.tokens", TS_GGUF_STR, &tokens, &found, &err) ==
              TS_OK &&
          found && (int64_t)tokens.n == embd->ne[1]);
    snprintf(key, sizeof key, "%s.embedding_length", arch);
    CHECK(get_int(g, key) == embd->ne[0]);
    snprintf(key, sizeof key, "%s.%sfeed_forward_length", arch, experts ? "expert_" : "");
    CHECK(get_int(g, key) == gate->ne[1] / (fused ? 2 : 1));
    snprintf(key, sizeof key, "%s.expert_count", arch);
    CHECK(!experts || get_int(g, key) == gate->ne[2]);
    ts_type want;
    /* MXFP4 is for experts where there are any */
    const bool only_experts =
        strcmp(type, "MXFP4") == 0 && !pure && ts_gguf_tensor(g, "blk.1.ffn_gate_exps.weight");
    if (ts_type_parse(type, &want))
        CHECK_MSG(gate->type == (only_experts && !experts ? TS_TYPE_Q8_0 : want), "%s: %s", what,
                  ts_type_name(gate->type));
    if (pure && ts_type_parse(type, &want))
        CHECK_MSG(embd->type == want, "%s: %s", what, ts_type_name(embd->type));
    ts_gguf_close(g);
    CHECK(files_in_dir() == 1);
    unlink(path);
}

static void for_each(const char *list, void (*f)(const char *arch, const char *word, bool pure),
                     const char *arch, bool pure)
{
    char word[32];
    for (const char *s = list; *s;) {
        size_t n = strcspn(s, "|");
        snprintf(word, sizeof word, "%.*s", (int)n, s);
        f(arch, word, pure);
        s += n + (s[n] == '|');
    }
}

static void test_models_of(const char *unused, const char *arch, bool pure)
{
    (void)unused;
    for_each(ts_synth_types(), test_model, arch, pure);
}

/* Tensors of each type in the mixes of well-known files. */
static void test_mix(const char *preset, const char *type, int n_base, int n_q6_k)
{
    const synth_mix *mix;
    synth_shape s;
    ts_synth_options o = options("llama", type);
    o.preset = preset;
    REQUIRE(synth_mix_find(&mix, type, NULL) == TS_OK);
    REQUIRE(synth_shape_find(&s, &o, mix, NULL) == TS_OK);
    int count[TS_TYPE_COUNT] = {0};
    count[synth_mix_type(mix, false, &s, ROLE_EMBD, 0, s.d)]++;
    if (!s.tied)
        count[synth_mix_type(mix, false, &s, ROLE_OUTPUT, 0, s.d)]++;
    for (int l = 0; l < s.n_layer; l++)
        for (int role = ROLE_Q; role <= ROLE_DOWN; role++)
            count[synth_mix_type(mix, false, &s, (synth_role)role, l,
                                 role == ROLE_DOWN ? s.ff : s.d)]++;
    CHECK_MSG(count[mix->base] == n_base && count[TS_TYPE_Q6_K] == n_q6_k, "%s %s: %d and %d",
              preset, type, count[mix->base], count[TS_TYPE_Q6_K]);
}

/* A row of K is the latent and what is turned. */
static void test_latent(void)
{
    static const char *const presets[] = {"tiny", "tiny-v3", "v2-lite", "deepseek-v3"};
    for (size_t i = 0; i < 4; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            const synth_mix *mix;
            synth_shape s;
            ts_synth_options o = options("deepseek2", f32 ? "F32" : "Q4_K_M");
            o.preset = presets[i];
            REQUIRE(synth_mix_find(&mix, o.type, NULL) == TS_OK);
            REQUIRE(synth_shape_find(&s, &o, mix, NULL) == TS_OK);
            const synth_latent *l = synth_latent_of(&s);
            REQUIRE(l);
            CHECK_MSG(strncmp(s.preset, l->preset, strlen(l->preset)) == 0 &&
                          s.hd == l->c + l->rope && s.n_kv == 1,
                      "%s", s.preset);
            CHECK(!l->n_group || (s.n_expert % l->n_group == 0 &&
                                  s.n_expert / l->n_group * l->n_group_used >= s.n_used));
            CHECK(synth_moe_of(&s).shared == l->n_shared * s.ffe);
        }
}

static void test_fallback(void)
{
    const synth_mix *mix;
    synth_shape s;
    ts_synth_options o = options("gemma3", "Q4_K_M"); /* d = 1152 = 4.5 * 256 */
    o.preset = "1b";
    REQUIRE(synth_mix_find(&mix, "Q4_K_M", NULL) == TS_OK);
    REQUIRE(synth_shape_find(&s, &o, mix, NULL) == TS_OK);
    CHECK(synth_mix_type(mix, false, &s, ROLE_EMBD, 0, s.d) == TS_TYPE_Q8_0);
    CHECK(synth_mix_type(mix, false, &s, ROLE_Q, 0, s.d) == TS_TYPE_Q5_0);
    CHECK(synth_mix_type(mix, false, &s, ROLE_V, 0, s.d) == TS_TYPE_Q8_0);
    CHECK(synth_mix_type(mix, false, &s, ROLE_DOWN, 5, s.ff) == TS_TYPE_Q6_K);
    CHECK(synth_mix_type(mix, false, &s, ROLE_DOWN, 6, s.ff) == TS_TYPE_Q4_K);
}

/* --- the same bytes ----------------------------------------------------- */

/* Golden outputs were made from these files: they may not change unnoticed. */
static void test_same_bytes(const char *arch, const char *type, uint64_t want)
{
    ts_error err = {0};
    size_t n, n2;
    const char *a = in_dir("a.gguf"), *b = in_dir("b.gguf");
    CHECK_MSG(ts_synth_tiny(a, arch, type, false, &err) == TS_OK, "%s", err.msg);
    uint8_t *p = read_all(a, &n);
    CHECK_MSG(fnv1a(p, n) == want, "%s %s: 0x%llx", arch, type, (unsigned long long)fnv1a(p, n));

    ts_synth_options o = options(arch, type);
    o.n_threads = 3;
    CHECK_MSG(ts_synth_write(b, &o, NULL, &err) == TS_OK, "%s", err.msg);
    uint8_t *q = read_all(b, &n2);
    CHECK_MSG(n == n2 && memcmp(p, q, n) == 0, "%s %s with three threads", arch, type);
    free(q);

    o.seed = 2;
    CHECK_MSG(ts_synth_write(b, &o, NULL, &err) == TS_OK, "%s", err.msg);
    q = read_all(b, &n2);
    CHECK_MSG(n == n2 && memcmp(p, q, n) != 0, "%s %s with another seed", arch, type);
    free(q);
    free(p);
    unlink(a);
    unlink(b);
}

/* --- failures ----------------------------------------------------------- */

static void expect(const ts_synth_options *o, const char *path, ts_status want, const char *part)
{
    ts_error err = {0};
    ts_status st = ts_synth_write(path, o, NULL, &err);
    CHECK_MSG(st == want && err.code == want && strstr(err.msg, part), "%s: status %d: %s", path,
              st, err.msg);
}

static void test_bad_options(void)
{
    ts_synth_options good = options("llama", "Q4_0"), o = good;
    const char *path = in_dir("x.gguf");
    o.arch = "mamba";
    expect(&o, path, TS_BAD_ARG, "'mamba'");
    o = good, o.preset = "13b";
    expect(&o, path, TS_BAD_ARG, "'13b'");
    o = good, o.preset = "tiny-narrow";
    expect(&o, path, TS_BAD_ARG, "'tiny-narrow'");
    o = good, o.type = "IQ2_XXS";
    expect(&o, path, TS_BAD_ARG, "'IQ2_XXS'");
    o = good, o.rope_scaling = "longrope";
    expect(&o, path, TS_BAD_ARG, "'longrope'");
    o = options("qwen2", "Q4_0"), o.rope_scaling = "llama3";
    expect(&o, path, TS_BAD_ARG, "qwen2");
    CHECK(files_in_dir() == 0);
}

static bool stop_at_half(void *user, double done)
{
    *(double *)user = done;
    return done < 0.5;
}

static void test_cancel(void)
{
    ts_synth_options o = options("llama", "Q8_0");
    double done = 0;
    o.progress = stop_at_half;
    o.progress_user = &done;
    expect(&o, in_dir("x.gguf"), TS_CANCELLED, "cancelled");
    CHECK(done >= 0.5 && done < 1);
    CHECK(files_in_dir() == 0);
}

static void test_bad_places(void)
{
    ts_synth_options o = options("llama", "Q4_0");
    struct stat st;
    expect(&o, "", TS_BAD_ARG, "empty");
    expect(&o, dir, TS_BAD_ARG, "a directory");
    expect(&o, in_dir("no/such/file"), TS_IO, "No such file");
    REQUIRE(mkfifo(in_dir("fifo"), 0600) == 0);
    expect(&o, in_dir("fifo"), TS_BAD_ARG, "not a regular file");
    CHECK(stat(in_dir("fifo"), &st) == 0 && S_ISFIFO(st.st_mode));
    unlink(in_dir("fifo"));
    REQUIRE(symlink("nowhere", in_dir("dangling")) == 0);
    expect(&o, in_dir("dangling"), TS_IO, "cannot follow the link");
    unlink(in_dir("dangling"));

    /* A link stays and its target is replaced. */
    REQUIRE(symlink("target", in_dir("link")) == 0);
    FILE *f = fopen(in_dir("target"), "w");
    REQUIRE(f);
    fclose(f);
    CHECK(ts_synth_write(in_dir("link"), &o, NULL, NULL) == TS_OK);
    CHECK(lstat(in_dir("link"), &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(stat(in_dir("target"), &st) == 0 && st.st_size > 100000);
    CHECK(files_in_dir() == 2);
    unlink(in_dir("link"));
    unlink(in_dir("target"));
}

/* A limit on the size of files fails begin (file cannot be made as large) or, beneath the file
 * system's feet, a write. What stood in the place before stays. */
static void test_no_space(void)
{
    ts_synth_options o = options("llama", "Q4_0");
    struct rlimit old, small = {100000, 100000};
    FILE *f = fopen(in_dir("x.gguf"), "w");
    REQUIRE(f && fputs("before", f) >= 0 && fclose(f) == 0);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    expect(&o, in_dir("x.gguf"), TS_IO, "File too large");
    REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
    size_t n;
    uint8_t *p = read_all(in_dir("x.gguf"), &n);
    CHECK(n == 6 && memcmp(p, "before", 6) == 0);
    CHECK(files_in_dir() == 1);
    free(p);
    unlink(in_dir("x.gguf"));
}

int main(void)
{
    snprintf(dir, sizeof dir, "synth-XXXXXX");
    REQUIRE(mkdtemp(dir));
    for (uint32_t t = 0; t < TS_TYPE_COUNT; t++) {
        if (!ts_type_get(t))
            continue;
        test_values((ts_type)t, 0.02f);
        test_values((ts_type)t, 1);
        test_values((ts_type)t, 3);
        if (ts_type_get(t)->block > 1)
            test_bits((ts_type)t);
        test_ranges((ts_type)t);
    }
    for_each(ts_synth_archs(), test_models_of, NULL, false);
    for_each(ts_synth_archs(), test_models_of, NULL, true);
    test_mix("1b", "Q4_K_M", 96, 17);
    test_mix("8b", "Q4_K_M", 193, 33);
    test_mix("8b", "Q5_K_M", 193, 33);
    test_mix("8b", "Q4_0", 225, 1);
    test_mix("8b", "Q8_0", 226, 0);
    test_fallback();
    test_latent();
    test_same_bytes("llama", "Q4_K_M", 0x9f9bbdf6326338edu);
    test_same_bytes("qwen2", "Q8_0", 0xf61ec148f16bdbf8u);
    test_same_bytes("qwen3", "F16", 0x8eb247618e37e612u);
    test_same_bytes("gemma3", "MXFP4", 0x830efdc0a5e6c5a4u);
    test_bad_options();
    test_cancel();
    test_bad_places();
    test_no_space();
    CHECK(rmdir(dir) == 0);
    return check_done("synth");
}

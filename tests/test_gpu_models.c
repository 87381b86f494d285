/* test_gpu_models.c - real models on a real GPU: SmolLM2 (Q4_1) and Gemma 3 270M (Q4_K_M) split
 * after several layers, with the CPU's widest kernel set, against `ref` on the CPU alone; and
 * small random ones of every architecture.
 *
 * For each split: logits of a text; greedy tokens, one at a time; and, by the statistics, who
 * computes a prompt. Skips without a GPU, and models that aren't here. TS_TEST_FEW set makes it
 * short enough for the stand-in for a GPU (TESSERA_CUDA_LIBRARY). */
#include "engine.h"
#include "gguf/synth.h"
#include "golden/golden.h"

enum {
    TEXT = 67,    /* positions whose logits are compared                       */
    START = 16,   /* of them, what the greedy tokens follow                    */
    GREEDY = 256, /* tokens                                                    */
    STRICT = 32,  /* of them, those that must be ref's but for near ties       */
    PROMPT = 512, /* tokens of the prompt whose work is counted                */
    N_CTX = 1024,
};

/* Past STRICT a gap must be wider than this to be decisive: an NMSE of 1e-3 at logits as large as
 * 10 moves the distance of two by 0.4. */
#define WIDE_TIE 0.5f

typedef struct model {
    const char *name;
    int64_t layers[6]; /* n_gpu_layers of the splits */
} model;

/* What `ref` says. */
typedef struct expected {
    const char *name;
    golden g;
    char path[512];
    float *logits; /* [TEXT][n_vocab] */
    int32_t greedy[GREEDY];
    float gap[GREEDY]; /* distance of the two best logits */
    int n_greedy;
} expected;

static bool few(void)
{
    return SANITIZED || getenv("TS_TEST_FEW");
}

static const char *stream_name(ts_stream_mode s)
{
    return s == TS_STREAM_ON ? "on" : s == TS_STREAM_OFF ? "off" : "auto";
}

static void print_line(void *user, ts_log_level level, const char *line)
{
    (void)user;
    if (level <= TS_LOG_WARN)
        printf("  %s\n", line);
}

static ts_engine *open_split(const char *path, int64_t layers, ts_stream_mode stream)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.n_ctx = N_CTX;
    o.n_logits = TEXT;
    o.n_gpu_layers = layers;
    o.stream = stream;
    o.log = print_line;
    ts_engine *e = NULL;
    ts_error err = {0};
    ts_status st = ts_engine_open(&e, path, &o, &err);
    CHECK_MSG(st == TS_OK, "%s: %lld layers: %s", path, (long long)layers, err.msg);
    return e;
}

static bool all_finite(const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

/* Distance of the best logit from the second. */
static float gap_of(const float *v, size_t n)
{
    const size_t best = argmax(v, n);
    float second = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (i != best && v[i] > second)
            second = v[i];
    return v[best] - second;
}

/* --- what is expected ------------------------------------------------------- */

static bool make_expected(expected *x, const char *name)
{
    x->name = name;
    golden_read(&x->g, name);
    if (!golden_model(name, x->g.file, true, x->path, sizeof x->path)) {
        printf("%s isn't here: left out\n", x->g.file);
        return false;
    }
    ts_engine *ref = golden_open(x->path, TS_ISA_REF, 0, N_CTX, 0, TEXT);
    if (!ref)
        return false;
    const size_t v = (size_t)x->g.n_vocab;
    ts_session *s = golden_session(ref);
    MUST(x->g.n_text >= PROMPT);
    MUST(golden_eval(s, x->g.text, TEXT, TEXT));
    MUST((x->logits = malloc(sizeof(float) * TEXT * v)) != NULL);
    memcpy(x->logits, ts_session_logits(s, 0), sizeof(float) * TEXT * v);
    MUST(ts_session_rewind(s, 0, NULL) == TS_OK);
    MUST(golden_eval(s, x->g.text, START, 1));
    x->n_greedy = few() ? 8 : GREEDY;
    for (int i = 0; i < x->n_greedy; i++) {
        const float *row = ts_session_logits(s, 0);
        x->greedy[i] = (int32_t)argmax(row, v);
        x->gap[i] = gap_of(row, v);
        MUST(golden_eval(s, &x->greedy[i], 1, 1));
    }
    ts_session_close(s);
    ts_engine_close(ref);
    return true;
}

static void free_expected(expected *x)
{
    free(x->logits);
    golden_free(&x->g);
}

/* --- checks of one split ------------------------------------------------------ */

static void check_logits(const expected *x, ts_session *s, const char *label)
{
    const size_t v = (size_t)x->g.n_vocab;
    double sum = 0, worst = 0;
    CHECK(ts_session_rewind(s, 0, NULL) == TS_OK);
    if (!golden_eval(s, x->g.text, TEXT, TEXT))
        return;
    for (size_t i = 0; i < TEXT; i++) {
        const double d = nmse(x->logits + i * v, ts_session_logits(s, i), v);
        worst = d > worst ? d : worst;
        sum += d;
    }
    sum /= TEXT;
    CHECK_MSG(sum <= GOLDEN_TILES, "%s: NMSE %.3g", label, sum);
    printf("%s: NMSE over %d positions: mean %.2e, worst %.2e\n", label, TEXT, sum, worst);
}

/* The best token after each prefix of ref's; ref's goes on, so that every step counts. */
static void check_greedy(const expected *x, ts_session *s, int n, const char *label)
{
    const size_t v = (size_t)x->g.n_vocab;
    int same = 0, differ = 0;
    CHECK(ts_session_rewind(s, 0, NULL) == TS_OK);
    if (!golden_eval(s, x->g.text, START, 1))
        return;
    for (int i = 0; i < n; i++) {
        const float *row = ts_session_logits(s, 0);
        const float near = i < STRICT ? GOLDEN_TILES_TIE : WIDE_TIE;
        const bool finite = all_finite(row, v);
        CHECK_MSG(finite, "%s: step %d: a logit isn't finite", label, i);
        if (!finite)
            break;
        const int32_t got = (int32_t)argmax(row, v);
        CHECK_MSG(got == x->greedy[i] || x->gap[i] < near, "%s: step %d: %d, not %d (gap %.3f)",
                  label, i, got, x->greedy[i], (double)x->gap[i]);
        same += got == x->greedy[i];
        differ += got != x->greedy[i];
        if (!golden_eval(s, &x->greedy[i], 1, 1))
            break;
    }
    CHECK_MSG(differ * 20 <= n + 20, "%s: %d of %d greedy tokens differ", label, differ, n);
    printf("%s: %d of %d greedy tokens equal, %d differ\n", label, same, n, differ);
}

typedef struct work {
    double cpu, cpu_tiles, gpu; /* matrix FLOPs */
} work;

/* The work of a prompt, `wanted` of whose tokens want logits. Each kernel set's entry of the JSON
 * is a line. */
static work count_work(const expected *x, ts_session *s, size_t wanted)
{
    work w = {0};
    char *json = NULL;
    ts_error err = {0};
    CHECK(ts_session_rewind(s, 0, NULL) == TS_OK);
    ts_session_set_stats(s, true);
    if (golden_eval(s, x->g.text, few() ? 96 : PROMPT, wanted)) {
        const ts_status st = ts_session_stats(s, true, &json, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
    }
    ts_session_set_stats(s, false);
    for (char *next, *line = json; line; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        const char *flops = strstr(line, "\"flops\":"), *tiles = strstr(line, "\"tile_flops\":");
        if (!strstr(line, "\"matrix\":true") || !flops || !tiles)
            continue;
        const double n = strtod(flops + strlen("\"flops\":"), NULL);
        if (strstr(line, "\"device\":\"CPU\"")) {
            w.cpu += n;
            w.cpu_tiles += strtod(tiles + strlen("\"tile_flops\":"), NULL);
        } else {
            w.gpu += n;
        }
    }
    ts_free(json);
    return w;
}

/* Nothing that the CPU keeps loses its tiles to a GPU. */
static void check_sets(const ts_engine *e, const char *label)
{
    size_t n = 0;
    for (size_t i = 0; i < e->m->n_weights; i++) {
        const ts_weight *w = &e->m->weights[i];
        if (w->device || !w->kset)
            continue;
        n++;
        CHECK_MSG(w->kset->isa == TS_ISA_AMX, "%s: %s is computed by %s", label, w->source->name,
                  ts_isa_name(w->kset->isa));
    }
    printf("%s: all %zu weights of the CPU are in amx layouts\n", label, n);
}

static void check_work(const expected *x, ts_engine *e, ts_session *s, int64_t layers,
                       ts_stream_mode stream, const char *label)
{
    /* With as many logits as tiles take, so that the output matrix is multiplied on tiles too. */
    const work w = count_work(x, s, stream == TS_STREAM_ON ? 1 : TEXT);
    const double all = w.cpu + w.gpu;
    CHECK_MSG(all > 0, "%s: no work was counted", label);
    printf("%s: a prompt's matrix FLOPs: %.1f %% on the CPU, %.1f %% of those on tiles\n", label,
           100 * w.cpu / all, w.cpu > 0 ? 100 * w.cpu_tiles / w.cpu : 0);
    if (stream == TS_STREAM_ON)
        CHECK_MSG(w.cpu <= 0.02 * all, "%s: %.1f %% on the CPU", label, 100 * w.cpu / all);
    if (stream == TS_STREAM_OFF && layers >= 0) {
        CHECK_MSG((w.cpu > 0) == (layers <= e->m->hp.n_layer), "%s", label);
        CHECK_MSG((w.gpu > 0) == (layers > 0), "%s", label);
    }
    if (!golden_tiles(e))
        return;
    check_sets(e, label);
    if (stream == TS_STREAM_OFF)
        CHECK_MSG(w.cpu_tiles >= 0.99 * w.cpu, "%s: %.2f %% on tiles", label,
                  100 * w.cpu_tiles / w.cpu);
}

static void check_split(const expected *x, int64_t layers, ts_stream_mode stream)
{
    char label[64], number[24];
    ts_engine_info info;
    snprintf(number, sizeof number, layers < 0 ? "auto" : "%lld", (long long)layers);
    ts_engine *e = open_split(x->path, layers, stream);
    if (!e)
        return;
    ts_engine_get_info(e, &info);
    snprintf(label, sizeof label, "%s, %s layers, %s, stream %s", x->name, number, info.isa,
             stream_name(stream));
    CHECK_MSG(layers < 0 ? info.n_gpu_layers > 0 : info.n_gpu_layers == layers,
              "%s: %lld layers are on GPUs", label, (long long)info.n_gpu_layers);
    ts_session *s = golden_session(e);
    check_logits(x, s, label);
    check_greedy(x, s, stream == TS_STREAM_OFF || x->n_greedy < 64 ? x->n_greedy : 64, label);
    check_work(x, e, s, layers, stream, label);
    ts_session_close(s);
    ts_engine_close(e);
}

static bool test_model(const model *m)
{
    expected x = {0};
    const bool here = make_expected(&x, m->name);
    if (here && few()) {
        check_split(&x, m->layers[2], TS_STREAM_OFF);
        check_split(&x, m->layers[2], TS_STREAM_ON);
    } else if (here) {
        for (size_t i = 0; i < sizeof m->layers / sizeof *m->layers; i++) {
            check_split(&x, m->layers[i], TS_STREAM_OFF);
            if (m->layers[i] > 0) /* without a GPU nothing is streamed */
                check_split(&x, m->layers[i], TS_STREAM_ON);
        }
        check_split(&x, m->layers[2], TS_STREAM_AUTO);
        check_split(&x, TS_GPU_LAYERS_AUTO, TS_STREAM_AUTO);
    }
    free_expected(&x);
    return here;
}

/* --- random ones --------------------------------------------------------- */

typedef struct way {
    const char *what;
    int64_t layers, cpu_moe;
    ts_stream_mode stream;
    bool alone; /* one of a single token's experts, which are the CPU's, is computed on the GPU */
} way;

/* A prompt that is computed at once, tokens one by one, some more at once: all their logits. False
 * if that can't be done. */
static bool tiny_logits(const char *path, ts_isa isa, const way *w, const ts_token *t, float *out,
                        size_t v)
{
    enum { AT_ONCE = 40, ALONE = 8, MORE = 5 };
    ts_engine_options o;
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_error err = {0};
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_ctx = TEXT;
    o.n_logits = AT_ONCE;
    o.n_gpu_layers = w->layers;
    o.n_cpu_moe = w->cpu_moe;
    o.stream = w->stream;
    o.log = print_line;
    ts_status st = ts_engine_open(&e, path, &o, &err);
    if (!st)
        st = ts_session_open(&s, e, &err);
    CHECK_MSG(st == TS_OK, "%s: %s", w->what, err.msg);
    if (!st && w->layers > 0)
        CHECK_MSG(e->plan.dev[1].n_layers > 0, "%s: no K and V on the GPU", w->what);
    if (!st)
        CHECK_MSG(w->stream != TS_STREAM_ON || e->plan.stream.device, "%s: nothing streams",
                  w->what);
    if (!st && w->alone) {
        CHECK_MSG(e->plan.stream.alone || e->plan.dev[0].isa < TS_ISA_AVX2,
                  "%s: a token's experts can't be shared", w->what);
        e->devices.rates.alone = e->plan.stream.alone;
    }
    for (size_t at = 0; at < AT_ONCE + ALONE + MORE && !st;) {
        const size_t n = at == 0 ? AT_ONCE : at < AT_ONCE + ALONE ? 1 : MORE;
        st = ts_session_eval(s, t + at, n, n, &err);
        CHECK_MSG(st == TS_OK, "%s: %s", w->what, err.msg);
        for (size_t i = 0; i < n && !st; i++)
            memcpy(out + (at + i) * v, ts_session_logits(s, i), v * sizeof *out);
        at += n;
    }
    ts_session_close(s);
    ts_engine_close(e);
    return !st;
}

static void test_tiny(const char *arch, const char *type)
{
    enum { ROWS = 40 + 8 + 5 };
    static const way ref = {"ref", 0, 0, TS_STREAM_OFF, false};
    static const way ways[] = {
        {"-ngl 0", 0, 0, TS_STREAM_OFF, false},
        {"-ngl 1", 1, 0, TS_STREAM_OFF, false},
        {"-ngl 99", 99, 0, TS_STREAM_OFF, false},
        {"-ngl 1 --stream on", 1, 0, TS_STREAM_ON, false},
        {"-ngl 99 --cpu-moe", 99, INT64_MAX, TS_STREAM_OFF, false},
        {"-ngl 99 --cpu-moe --stream on", 99, INT64_MAX, TS_STREAM_ON, false},
        {"the same, sharing a token", 99, INT64_MAX, TS_STREAM_ON, true}};
    char path[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(path);
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    MUST(fd >= 0);
    close(fd);
    MUST(ts_synth_tiny(path, arch, type, false, &err) == TS_OK);
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    MUST(ts_engine_open(&e, path, &o, &err) == TS_OK);
    const size_t v = (size_t)e->m->hp.n_vocab;
    const bool experts = e->m->hp.moe.n_expert > 0;
    ts_engine_close(e);
    float *want = malloc(2 * sizeof(float) * ROWS * v), *got = want + ROWS * v;
    ts_token t[ROWS];
    uint64_t seed = 20261126;
    MUST(want != NULL);
    for (int i = 0; i < ROWS; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % 380);
    bool can = tiny_logits(path, TS_ISA_REF, &ref, t, want, v);
    for (size_t i = 0; i < sizeof ways / sizeof *ways && can; i++) {
        if ((ways[i].cpu_moe && !experts) || !tiny_logits(path, TS_ISA_AUTO, &ways[i], t, got, v))
            continue;
        /* a few rows may take another expert, where two are as good, and tell later ones */
        int others = 0;
        double worst = 0;
        for (size_t r = 0; r < ROWS; r++) {
            const double d = nmse(want + r * v, got + r * v, v);
            CHECK_MSG(isfinite(d), "%s %s, %s: row %zu", arch, type, ways[i].what, r);
            others += !(d <= GOLDEN_TILES);
            worst = d <= GOLDEN_TILES && d > worst ? d : worst;
        }
        CHECK_MSG(others <= 4, "%s %s, %s: %d rows differ", arch, type, ways[i].what, others);
        printf("%s %s, %s: NMSE of rows up to %.2e; %d rows take other experts\n", arch, type,
               ways[i].what, worst, others);
    }
    free(want);
    unlink(path);
}

int main(void)
{
    static const char *const tiny[][2] = {{"deepseek2:tiny-v3", "Q4_K_M"},
                                          {"gpt-oss", "MXFP4"},
                                          {"deepseek2:tiny-v3", "Q8_0"},
                                          {"qwen3moe", "Q4_0"},
                                          {"qwen2moe", "Q8_0"},
                                          {"glm4moe", "Q4_K_M"},
                                          {"llama:tiny-moe", "Q5_K_M"},
                                          {"qwen3moe", "F16"},
                                          {"llama", "Q6_K"},
                                          {"qwen2", "Q4_0"},
                                          {"qwen3", "Q4_K_M"},
                                          {"gemma2", "Q8_0"},
                                          {"gemma3", "Q5_0"},
                                          {"olmo2", "IQ4_XS"},
                                          {"granite", "Q3_K_M"},
                                          {"command-r", "Q8_0"},
                                          {"phi3", "Q2_K"}};
    static const model models[] = {{"smollm2", {0, 1, 10, 20, 30, 31}},
                                   {"gemma3", {0, 1, 6, 12, 18, 19}}};
    ts_gpu gpu;
    size_t n = 0;
    ts_error err = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (ts_list_gpus(&gpu, 1, &n, &err)) {
        printf("%s\n", err.msg);
        return 77;
    }
    printf("%s: %s\n", gpu.name, gpu.desc);
    for (size_t i = 0; i < sizeof tiny / sizeof *tiny; i++)
        if (!few() || i < 2)
            test_tiny(tiny[i][0], tiny[i][1]);
    bool any = false;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        any |= test_model(&models[i]);
    if (!any)
        printf("no real model is here: scripts/fetch_model.py smollm2 gemma3\n");
    return check_done("gpu_models");
}

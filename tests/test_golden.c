/* test_golden.c - the engine against llama.cpp's values: SmolLM2, and a tiny synth model of every
 * architecture. Then against itself: kernel sets, ways to cut a prompt, thread counts. */
#include "gguf/synth.h"
#include "golden/golden.h"

enum { PAIR = 67 }; /* positions compared between two engines: odd, and more than one block of 64 */

static uint64_t fnv1a(const char *path)
{
    uint64_t h = 0xcbf29ce484222325u;
    unsigned char block[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    MUST(f);
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        for (size_t i = 0; i < n; i++)
            h = (h ^ block[i]) * 0x100000001b3u;
    fclose(f);
    return h;
}

/* Row i of a [PAIR][n_vocab] evaluation, fed `step` tokens at a time; every row is kept. */
static float *eval_rows(const golden *g, ts_engine *e, size_t step, ts_routing *routing)
{
    size_t nv = (size_t)g->n_vocab;
    float *out = malloc(PAIR * nv * sizeof *out);
    ts_session *s = golden_session(e);
    MUST(out);
    ts_session_set_routing(s, routing);
    for (size_t at = 0; at < PAIR; at += step) {
        size_t m = PAIR - at < step ? PAIR - at : step;
        MUST(golden_eval(s, g->text + at, m, m));
        for (size_t i = 0; i < m; i++)
            memcpy(out + (at + i) * nv, ts_session_logits(s, i), nv * sizeof *out);
    }
    ts_session_close(s);
    return out;
}

/* A prompt in one piece, cut by micro-batches of any size, or token by token gives the same logits;
 * any number of threads gives the same bits. On tiles all ways choose the experts of the first,
 * which the same threads would without. */
static void check_ways(const golden *g, const char *path, ts_isa isa, const char *label)
{
    static const struct {
        int threads;
        int64_t ubatch;
        size_t step;
    } ways[] = {{2, 512, PAIR}, {1, 512, PAIR}, {3, 512, PAIR}, {2, 512, 1},
                {2, 7, PAIR},   {2, 33, PAIR},  {2, 64, 13}};
    size_t n = PAIR * (size_t)g->n_vocab;
    float *first = NULL;
    ts_routing routing = {0};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        if (SANITIZED && (ways[w].step == 1 || ways[w].ubatch == 33)) /* slow, or like another */
            continue;
        ts_engine *e = golden_open(path, isa, ways[w].threads, 1024, ways[w].ubatch, PAIR);
        if (!e)
            break;
        bool tiles = golden_tiles(e), led = tiles && golden_experts(e);
        if (led && !first)
            routing = golden_routing(e);
        routing.follow = first && ways[w].threads == 2;
        routing.differ = 0;
        float *got =
            eval_rows(g, e, ways[w].step, led && (!first || routing.follow) ? &routing : NULL);
        if (led && routing.follow)
            golden_check_followed(g, e, &routing, PAIR, label);
        ts_engine_close(e);
        if (!first) {
            first = got;
            continue;
        }
        bool bits = !memcmp(first, got, n * sizeof *got);
        double worst = 0, mean = 0;
        for (size_t i = 0; i < n; i += (size_t)g->n_vocab) {
            double d = nmse(first + i, got + i, (size_t)g->n_vocab);
            worst = d > worst ? d : worst;
            mean += d / PAIR;
        }
        /* BF16 tiles beside 15-bit VNNI: the mean over positions counts, as between sets. Both
         * sides round, and a position whose logits are small shows it most (1.4e-3 measured). */
        bool near =
            tiles ? mean <= GOLDEN_TILES && worst <= 4 * GOLDEN_TILES : worst <= GOLDEN_SETS;
        CHECK_MSG(bits || (ways[w].threads == 2 && near),
                  "%s %s: %d threads, micro-batch %d, %zu at a time: NMSE %.3g", g->file, label,
                  ways[w].threads, (int)ways[w].ubatch, ways[w].step, worst);
        printf("%s %s: %d threads, micro-batch %d, %zu at a time: %s %.2e\n", g->file, label,
               ways[w].threads, (int)ways[w].ubatch, ways[w].step, bits ? "same bits" : "NMSE",
               worst);
        free(got);
    }
    free(first);
    free(routing.id);
}

/* How long each check runs: ref is slow on a real model. */
typedef struct extent {
    size_t ref_max_pos, ref_steps, steps, pair;
} extent;

static void check_sets(const golden *g, const char *path, extent x)
{
    static const ts_isa isas[] = {TS_ISA_AVX2, TS_ISA_AVX512, TS_ISA_AMX};
    ts_engine *ref = golden_open(path, TS_ISA_REF, 2, 1024, 0, PAIR);
    if (!ref)
        return;
    golden_check_rows(g, ref, NULL, x.ref_max_pos, GOLDEN_NMSE, "ref");
    golden_check_greedy(g, ref, NULL, x.ref_steps, "ref");
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        ts_engine *e = golden_open(path, isas[i], 2, 1024, 0, PAIR);
        if (!e)
            continue;
        char label[40];
        snprintf(label, sizeof label, "%s against ref", ts_isa_name(isas[i]));
        golden_check_rows(g, e, ref, SIZE_MAX, GOLDEN_NMSE, ts_isa_name(isas[i]));
        golden_check_greedy(g, e, ref, x.steps, ts_isa_name(isas[i]));
        golden_check_pair(g, ref, e, x.pair, GOLDEN_SETS, label);
        ts_engine_close(e);
    }
    ts_engine_close(ref);
}

static void test_smollm2(void)
{
    char path[512];
    golden g;
    golden_read(&g, "smollm2");
    if (!golden_model("smollm2", g.file, true, path, sizeof path)) {
        printf("%s isn't in the cache: run scripts/setup.sh\n", g.file);
        golden_free(&g);
        return;
    }
    ts_engine *e = golden_open(path, TS_ISA_AUTO, 2, 512, 0, 256);
    if (e) {
        golden_check_ids(&g, e);
        golden_check_perplexity(&g, e, SANITIZED ? 1 : SIZE_MAX, GOLDEN_PPL);
    }
    ts_engine_close(e);
    check_sets(&g, path, SANITIZED ? (extent){0, 0, 4, 5} : (extent){63, 4, SIZE_MAX, PAIR});
    if (!SANITIZED)
        check_ways(&g, path, TS_ISA_AUTO, "auto");
    golden_free(&g);
}

/* NAME.golden says which options make the model; its bytes must be those llama.cpp saw. */
static void test_tiny(const char *name)
{
    char path[64], arch[32], type[32], rope[32], preset[32] = "tiny";
    golden g;
    golden_read(&g, name);
    ts_synth_options o = {.preset = preset, .n_threads = 1, .arch = arch, .type = type};
    int pure = 0;
    MUST(sscanf(g.synth, "%31s %31s %d %31s %" SCNu64 " %31s", arch, type, &pure, rope, &o.seed,
                preset) >= 5);
    o.pure = pure;
    o.rope_scaling = strcmp(rope, "default") ? rope : NULL;
    snprintf(g.file, sizeof g.file, "%s", name);
    snprintf(path, sizeof path, "golden-%d.gguf", (int)getpid());
    ts_error err = {0};
    ts_status st = ts_synth_write(path, &o, NULL, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    if (st != TS_OK || fnv1a(path) != g.fnv) {
        CHECK_MSG(false, "%s: synth makes another model now: run golden/make_tiny.py again", name);
    } else {
        check_sets(&g, path,
                   SANITIZED ? (extent){30, 2, 4, 5}
                             : (extent){SIZE_MAX, SIZE_MAX, SIZE_MAX, PAIR});
        if (!SANITIZED)
            check_ways(&g, path, TS_ISA_REF, "ref");
        check_ways(&g, path, TS_ISA_AUTO, "auto");
    }
    unlink(path);
    golden_free(&g);
}

int main(void)
{
    static const char *tiny[] = {"tiny-llama-f32",
                                 "tiny-llama3-f32",
                                 "tiny-llama-linear-f32",
                                 "tiny-llama-yarn-f32",
                                 "tiny-qwen2-f32",
                                 "tiny-qwen3-f32",
                                 "tiny-gemma3-f32",
                                 "tiny-llama-q4_0",
                                 "tiny-llama-q8_0",
                                 "tiny-qwen2-q4_k_m",
                                 "tiny-qwen3-q5_1",
                                 "tiny-gemma3-q6_k",
                                 "tiny-qwen3moe-f32",
                                 "tiny-qwen3moe-q4_k_m",
                                 "tiny-olmo2-f32",
                                 "tiny-olmo2-yarn-f32",
                                 "tiny-olmo2-q5_k_m",
                                 "tiny-phi3-f32",
                                 "tiny-phi3-q4_k_m",
                                 "tiny-phi3-plain-q4_0",
                                 "tiny-command-r-f32",
                                 "tiny-command-r-q8_0",
                                 "tiny-command-r-plus-q8_0",
                                 "tiny-gemma2-f32",
                                 "tiny-gemma2-q6_k",
                                 "tiny-granite-f32",
                                 "tiny-granite-iq4_xs",
                                 "tiny-mixtral-q4_0",
                                 "tiny-mixtral-parts-q4_k_m",
                                 "tiny-qwen2moe-f32",
                                 "tiny-qwen2moe-q4_k_m",
                                 "tiny-deepseek2-f32",
                                 "tiny-deepseek2-none-f32",
                                 "tiny-deepseek2-q4_k_m",
                                 "tiny-deepseek2-v3-f32",
                                 "tiny-gpt-oss-f32",
                                 "tiny-gpt-oss-mxfp4",
                                 "tiny-glm4moe-f32",
                                 "tiny-glm4moe-q4_k_m",
                                 "tiny-deepseek2-v3-q8_0"};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof tiny / sizeof *tiny; i++)
        if (!SANITIZED || !strstr(tiny[i], "f32")) /* a quantised one has the same steps */
            test_tiny(tiny[i]);
    test_smollm2();
    return check_done("golden");
}

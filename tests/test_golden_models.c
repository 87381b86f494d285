/* test_golden_models.c - the larger real models against llama.cpp's values: Gemma 3 270M and
 * Qwen2.5-Coder 1.5B. Runs those that TS_TEST_MODELS names (scripts/test.sh --models). */
#include "golden/golden.h"

enum { PAIR = 67 }; /* positions compared between two kernel sets */

/* `ref` against llama.cpp, and every other kernel set that can run here against `ref`, position by
 * position. */
static void check_sets(const golden *g, const char *path)
{
    static const ts_isa isas[] = {TS_ISA_AVX2, TS_ISA_AVX512, TS_ISA_AMX};
    ts_engine *ref = golden_open(path, TS_ISA_REF, 0, 128, 0, PAIR);
    if (!ref)
        return;
    golden_check_rows(g, ref, NULL, 63, GOLDEN_NMSE, "ref");
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        ts_engine *e = golden_open(path, isas[i], 0, 128, 0, PAIR);
        char label[40];
        snprintf(label, sizeof label, "%s against ref", ts_isa_name(isas[i]));
        if (e)
            golden_check_pair(g, ref, e, PAIR, GOLDEN_SETS, label);
        ts_engine_close(e);
    }
    ts_engine_close(ref);
}

static bool test_model(const char *name)
{
    char path[512];
    golden g;
    const char *asked = getenv("TS_TEST_MODELS");
    if (!asked || !strstr(asked, name))
        return false;
    golden_read(&g, name);
    bool runs = golden_model(name, g.file, false, path, sizeof path) && !check_failed;
    if (runs) {
        ts_engine *e = golden_open(path, TS_ISA_AUTO, 0, 1024, 0, 256);
        if (e) {
            golden_check_ids(&g, e);
            golden_check_rows(&g, e, NULL, SANITIZED ? 63 : SIZE_MAX, GOLDEN_NMSE, "auto");
            golden_check_greedy(&g, e, NULL, SANITIZED ? 4 : SIZE_MAX, "auto");
            golden_check_perplexity(&g, e, SANITIZED ? 1 : SIZE_MAX, GOLDEN_PPL);
        }
        ts_engine_close(e);
        if (!SANITIZED)
            check_sets(&g, path);
    }
    golden_free(&g);
    return runs;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool gemma3 = test_model("gemma3"), qwen2 = test_model("qwen2");
    if (!gemma3 && !qwen2 && !check_failed) {
        printf("no larger model is asked for: scripts/test.sh --models runs them\n");
        return 77;
    }
    return check_done("golden_models");
}

/* test_presets.c - the shapes of real models: as many parameters as their makers say, files that
 * take no disk, and where a plan for an H100 puts what.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "gguf/synth.h"

static char path[] = "/tmp/tessera-test-XXXXXX";

/* Parameters in billions, from the models' cards and safetensors; without next-token blocks and
 * vision, a tied embedding once. */
static const struct preset {
    const char *arch, *preset, *type;
    double params;
} presets[] = {
    {"llama", "1b", "Q4_0", 1.236},
    {"llama", "8b", "Q4_K_M", 8.030},
    {"qwen2", "1b", "Q4_0", 1.544},
    {"qwen2", "8b", "Q4_K_M", 7.616},
    {"qwen3", "1b", "Q8_0", 1.721},
    {"qwen3", "8b", "Q5_K_M", 8.191},
    {"gemma2", "1b", "Q4_0", 2.614},
    {"gemma2", "8b", "Q4_K_M", 9.242},
    {"gemma3", "1b", "Q4_0", 1.000},
    {"gemma3", "8b", "Q6_K", 11.766},
    {"olmo2", "1b", "Q4_0", 1.485},
    {"olmo2", "8b", "Q4_K_M", 7.298},
    {"granite", "1b", "Q4_0", 2.534},
    {"granite", "8b", "Q4_K_M", 8.171},
    {"command-r", "8b", "Q4_K_M", 8.028},
    {"phi3", "1b", "Q4_0", 3.836},
    {"phi3", "8b", "Q4_K_M", 14.66},
    {"qwen3moe", "30b-a3b", "Q4_K_M", 30.53},
    {"qwen3moe", "235b-a22b", "Q4_K_M", 235.09},
    {"qwen2moe", "a2.7b", "IQ4_XS", 14.32},
    {"deepseek2", "v2-lite", "Q4_K_M", 15.71},
    {"deepseek2", "deepseek-v3", "Q4_K_M", 671.03},
    {"glm4moe", "glm-4.5-air", "Q6_K", 106.85},
    {"gpt-oss", "gpt-oss-20b", "MXFP4", 20.91},
    {"gpt-oss", "gpt-oss-120b", "MXFP4", 116.83},
};

/* Billions in the blocks that there are, and in what belongs to none. */
static double params(const ts_engine *e)
{
    double n = 0;
    for (size_t i = 0; i < ts_gguf_n_tensors(e->g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(e->g, i);
        int block = 0;
        if (sscanf(t->name, "blk.%d.", &block) == 1 && block >= e->m->hp.n_layer)
            continue;
        if (strncmp(t->name, "rope_", 5) == 0)
            continue;
        n += (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2] * 1e-9;
    }
    return n;
}

/* What latent attention does between its products is the CPU's where a GPU can't do it. */
static bool of_latent(const ts_engine *e, const ts_weight *w)
{
    return e->m->arch->latent && !e->devices.be[1] &&
           (strstr(w->source->name, "attn_k_b") || strstr(w->source->name, "attn_v_b"));
}

/* If any expert is left to the CPU, all else is the GPU's, and of experts as many whole layers as
 * fit. */
static void check_placing(const struct preset *p, const ts_engine *e)
{
    const ts_model *m = e->m;
    const ts_plan_device *gpu = &e->plan.dev[1];
    size_t most = 0; /* bytes of one layer's experts */
    int64_t with = 0, there = 0;
    REQUIRE(e->plan.n_devices == 2);
    for (int64_t l = 0; l < m->hp.n_layer; l++) {
        const ts_layer *L = &m->layers[l];
        if (!m->arch->latent)
            CHECK_MSG(L->kv_device == 1, "%s: K and V of layer %d", p->preset, (int)l);
        if (!L->router)
            continue;
        const ts_weight *w[] = {L->gate_exps, L->up_exps, L->down_exps};
        size_t bytes = 0;
        for (int i = 0; i < 3; i++) {
            CHECK_MSG(w[i]->device == w[0]->device, "%s: experts of layer %d are in two places",
                      p->preset, (int)l);
            bytes += ts_weight_source(w[i]);
        }
        most = bytes > most ? bytes : most;
        with++;
        there += w[0]->device == 1;
    }
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        if (w->experts || w == m->token_embd || of_latent(e, w))
            continue;
        CHECK_MSG(w->device == 1 || (m->arch->latent && strstr(w->source->name, "attn_")),
                  "%s: %s is the CPU's", p->preset, w->source->name);
    }
    const size_t held = gpu->packed + gpu->stream + gpu->kv + gpu->buffers;
    if (there < with)
        CHECK_MSG(there > 0 && held + 2 * most > gpu->memory,
                  "%s: %d of %d layers of experts, %zu of %zu bytes", p->preset, (int)there,
                  (int)with, held, gpu->memory);
    else
        CHECK_MSG(held <= gpu->memory, "%s: more than there is", p->preset);
    if (getenv("TS_VERBOSE"))
        printf("%s: experts of %d layers of %d on the GPU, %.1f GiB of %.1f\n", p->preset,
               (int)there, (int)with, (double)held / 0x1p30, (double)gpu->memory / 0x1p30);
}

static void test_preset(const struct preset *p)
{
    static const char *const gpu[] = {"H100,78G,3000GB/s,50GB/s"};
    const ts_synth_options s = {.arch = p->arch,
                                .preset = p->preset,
                                .type = p->type,
                                .seed = 1,
                                .n_threads = 1,
                                .sparse = true};
    ts_synth_result r;
    ts_error err = {0};
    ts_engine *e = NULL;
    struct stat st;
    ts_status status = ts_synth_write(path, &s, &r, &err);
    CHECK_MSG(status == TS_OK, "%s %s: %s", p->arch, p->preset, err.msg);
    REQUIRE(status == TS_OK && stat(path, &st) == 0);
    CHECK_MSG((uint64_t)st.st_size == r.file_bytes && r.file_bytes > 500000000 &&
                  (uint64_t)st.st_blocks * 512 < 16 << 20,
              "%s %s: %lld bytes, %lld blocks", p->arch, p->preset, (long long)st.st_size,
              (long long)st.st_blocks);
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.plan_only = true;
    o.planned_gpus = gpu;
    o.n_planned_gpus = 1;
    o.planned_memory = (size_t)1 << 40;
    status = ts_engine_open(&e, path, &o, &err);
    CHECK_MSG(status == TS_OK, "%s %s: %s", p->arch, p->preset, err.msg);
    if (status)
        return;
    CHECK_MSG(fabs(params(e) / p->params - 1) < 0.01, "%s %s: %.3f billion parameters, not %.3f",
              p->arch, p->preset, params(e), p->params);
    check_placing(p, e);
    ts_engine_close(e);
}

/* Memory that isn't there is planned for, not used; and what it has no room for is refused. */
static void test_memory(void)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.planned_memory = (size_t)1 << 20;
    REQUIRE(ts_synth_tiny(path, "llama", "Q8_0", false, &err) == TS_OK);
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_BAD_ARG && !e &&
          strstr(err.msg, "memory that isn't there can be planned for, not used"));
    o.plan_only = true;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_NO_MEMORY && !e &&
          strstr(err.msg, "and 0.00 GiB of memory are there"));
}

int main(void)
{
    const int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        test_preset(&presets[i]);
    test_memory();
    unlink(path);
    return check_done("presets");
}

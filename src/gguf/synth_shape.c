/* synth_shape.c - the shapes of real models, and which type each of their matrices gets. */
#include "gguf/synth_impl.h"

#include <string.h>
#include <strings.h>

#define LLAMA     SYNTH_LLAMA
#define QWEN2     SYNTH_QWEN2
#define QWEN3     SYNTH_QWEN3
#define GEMMA3    SYNTH_GEMMA3
#define QWEN3MOE  SYNTH_QWEN3MOE
#define QWEN2MOE  SYNTH_QWEN2MOE
#define DEEPSEEK2 SYNTH_DEEPSEEK2
#define OLMO2     SYNTH_OLMO2
#define GRANITE   SYNTH_GRANITE
#define GEMMA2    SYNTH_GEMMA2
#define COMMAND_R SYNTH_COMMAND_R
#define PHI3      SYNTH_PHI3
#define GLM4MOE   SYNTH_GLM4MOE
#define GPT_OSS   SYNTH_GPT_OSS

/* Column by column as in synth_shape. The tiny ones have head counts, vocabularies and
 * windows that leave remainders everywhere; "tiny-narrow" is for types of two bytes and more. */
/* clang-format off */
static const synth_shape shapes[] = {
    {LLAMA, "1b", "Llama 3.2 1B", 16, 2048, 8192, 32, 8, 64, 128256, 131072, true, 1e-5f, 500000,
     ROPE_LLAMA3, 32, 8192, 0, 0, 0, 0, 0},
    {LLAMA, "8b", "Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256, 131072, false, 1e-5f, 500000,
     ROPE_LLAMA3, 8, 8192, 0, 0, 0, 0, 0},
    {LLAMA, "tiny-moe", "tiny Mixtral", 2, 256, 256, 4, 2, 64, 389, 2048, false, 1e-5f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 4, 2, 256},
    {LLAMA, "tiny-moe-parts", "tiny Mixtral, a tensor an expert", 2, 256, 256, 4, 2, 64, 389, 2048,
     false, 1e-5f, 1e6f, ROPE_NONE, 1, 0, 0, 0, 4, 2, 256},
    {QWEN2, "1b", "Qwen2.5 1.5B", 28, 1536, 8960, 12, 2, 128, 151936, 32768, true, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {QWEN2, "8b", "Qwen2.5 7B", 28, 3584, 18944, 28, 4, 128, 152064, 32768, false, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {QWEN3, "1b", "Qwen3 1.7B", 28, 2048, 6144, 16, 8, 128, 151936, 40960, true, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {QWEN3, "8b", "Qwen3 8B", 36, 4096, 12288, 32, 8, 128, 151936, 40960, false, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GEMMA3, "1b", "Gemma 3 1B", 26, 1152, 6912, 4, 1, 256, 262144, 32768, true, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 512, 6, 0, 0, 0},
    {GEMMA3, "8b", "Gemma 3 12B", 48, 3840, 15360, 16, 8, 256, 262144, 131072, true, 1e-6f, 1e6f,
     ROPE_LINEAR, 8, 0, 1024, 6, 0, 0, 0},
    {LLAMA, "tiny", "tiny Llama", 2, 256, 512, 4, 2, 64, 389, 2048, false, 1e-5f, 500000,
     ROPE_LLAMA3, 8, 256, 0, 0, 0, 0, 0},
    {LLAMA, "tiny-narrow", "tiny Llama", 2, 128, 256, 4, 2, 32, 389, 2048, false, 1e-5f, 500000,
     ROPE_LLAMA3, 8, 256, 0, 0, 0, 0, 0},
    {QWEN2, "tiny", "tiny Qwen2", 2, 256, 512, 4, 1, 64, 391, 2048, true, 1e-6f, 1e6f, ROPE_NONE, 1,
     0, 0, 0, 0, 0, 0},
    {QWEN2, "tiny-narrow", "tiny Qwen2", 2, 128, 256, 4, 1, 32, 391, 2048, true, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {QWEN3, "tiny", "tiny Qwen3", 2, 256, 256, 4, 2, 128, 393, 2048, false, 1e-6f, 1e6f, ROPE_NONE,
     1, 0, 0, 0, 0, 0, 0},
    {QWEN3, "tiny-narrow", "tiny Qwen3", 2, 128, 128, 4, 2, 64, 393, 2048, false, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GEMMA3, "tiny", "tiny Gemma 3", 4, 256, 256, 4, 1, 64, 509, 2048, true, 1e-6f, 1e6f, ROPE_NONE,
     1, 0, 20, 3, 0, 0, 0},
    {GEMMA3, "tiny-narrow", "tiny Gemma 3", 4, 128, 128, 4, 1, 32, 509, 2048, true, 1e-6f, 1e6f,
     ROPE_NONE, 1, 0, 20, 3, 0, 0, 0},
    {QWEN3MOE, "30b-a3b", "Qwen3-30B-A3B", 48, 2048, 6144, 32, 4, 128, 151936, 40960, false, 1e-6f,
     1e6f, ROPE_NONE, 1, 0, 0, 0, 128, 8, 768},
    {QWEN3MOE, "235b-a22b", "Qwen3-235B-A22B", 94, 4096, 12288, 64, 4, 128, 151936, 40960, false,
     1e-6f, 1e6f, ROPE_NONE, 1, 0, 0, 0, 128, 8, 1536},
    {QWEN3MOE, "tiny", "tiny Qwen3 with experts", 2, 256, 256, 4, 2, 128, 393, 2048, false, 1e-6f,
     1e6f, ROPE_NONE, 1, 0, 0, 0, 7, 3, 256},
    {QWEN3MOE, "tiny-narrow", "tiny Qwen3 with experts", 2, 128, 128, 4, 2, 64, 393, 2048, false,
     1e-6f, 1e6f, ROPE_NONE, 1, 0, 0, 0, 7, 3, 96},
    {QWEN2MOE, "a2.7b", "Qwen1.5-MoE-A2.7B", 24, 2048, 5632, 16, 16, 128, 151936, 8192, false, 1e-6f,
     1e6f, ROPE_NONE, 1, 0, 0, 0, 60, 4, 1408},
    {QWEN2MOE, "tiny", "tiny Qwen2 with experts", 2, 256, 512, 4, 1, 64, 391, 2048, false, 1e-6f,
     1e6f, ROPE_NONE, 1, 0, 0, 0, 6, 2, 256},
    {QWEN2MOE, "tiny-narrow", "tiny Qwen2 with experts", 2, 128, 256, 4, 1, 32, 391, 2048, false,
     1e-6f, 1e6f, ROPE_NONE, 1, 0, 0, 0, 6, 2, 96},
    {DEEPSEEK2, "v2-lite", "DeepSeek-V2-Lite", 27, 2048, 10944, 16, 1, 576, 102400, 163840, false,
     1e-6f, 10000, ROPE_YARN, 40, 4096, 0, 0, 64, 6, 1408},
    {DEEPSEEK2, "deepseek-v3", "DeepSeek-V3", 61, 7168, 18432, 128, 1, 576, 129280, 163840, false,
     1e-6f, 10000, ROPE_YARN, 40, 4096, 0, 0, 256, 8, 2048},
    {DEEPSEEK2, "tiny", "tiny DeepSeek-V2-Lite", 3, 256, 256, 4, 1, 112, 395, 2048, false, 1e-6f,
     10000, ROPE_YARN, 8, 256, 0, 0, 6, 2, 96},
    {DEEPSEEK2, "tiny-narrow", "tiny DeepSeek-V2-Lite", 3, 96, 64, 4, 1, 112, 395, 2048, false,
     1e-6f, 10000, ROPE_YARN, 8, 256, 0, 0, 6, 2, 48},
    {DEEPSEEK2, "tiny-v3", "tiny DeepSeek-V3", 3, 256, 256, 20, 1, 80, 397, 2048, false, 1e-6f,
     10000, ROPE_YARN, 8, 256, 0, 0, 12, 3, 96},
    {DEEPSEEK2, "tiny-v3-narrow", "tiny DeepSeek-V3", 3, 96, 64, 20, 1, 80, 397, 2048, false,
     1e-6f, 10000, ROPE_YARN, 8, 256, 0, 0, 12, 3, 32},
    {OLMO2, "1b", "OLMo 2 1B", 16, 2048, 8192, 16, 16, 128, 100352, 4096, false, 1e-6f, 500000,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {OLMO2, "8b", "OLMo 3 7B", 32, 4096, 11008, 32, 32, 128, 100278, 65536, false, 1e-6f, 500000,
     ROPE_YARN, 8, 8192, 4096, 4, 0, 0, 0},
    {OLMO2, "tiny", "tiny OLMo 2", 4, 256, 256, 4, 2, 64, 397, 2048, false, 1e-6f, 500000,
     ROPE_NONE, 1, 0, 20, 4, 0, 0, 0},
    {OLMO2, "tiny-narrow", "tiny OLMo 2", 4, 128, 128, 4, 2, 32, 397, 2048, false, 1e-6f, 500000,
     ROPE_NONE, 1, 0, 20, 4, 0, 0, 0},
    {GRANITE, "1b", "Granite 3.1 2B", 40, 2048, 8192, 32, 8, 64, 49155, 131072, true, 1e-5f, 5e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GRANITE, "8b", "Granite 3.1 8B", 40, 4096, 12800, 32, 8, 128, 49155, 131072, true, 1e-5f, 1e7f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GRANITE, "tiny", "tiny Granite", 2, 256, 512, 4, 2, 64, 399, 2048, false, 1e-5f, 5e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GRANITE, "tiny-narrow", "tiny Granite", 2, 128, 256, 4, 2, 32, 399, 2048, false, 1e-5f, 5e6f,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {GEMMA2, "1b", "Gemma 2 2B", 26, 2304, 9216, 8, 4, 256, 256000, 8192, true, 1e-6f, 10000,
     ROPE_NONE, 1, 0, 4096, 2, 0, 0, 0},
    {GEMMA2, "8b", "Gemma 2 9B", 42, 3584, 14336, 16, 8, 256, 256000, 8192, true, 1e-6f, 10000,
     ROPE_NONE, 1, 0, 4096, 2, 0, 0, 0},
    {GEMMA2, "tiny", "tiny Gemma 2", 4, 256, 256, 4, 2, 64, 511, 2048, true, 1e-6f, 10000,
     ROPE_NONE, 1, 0, 20, 2, 0, 0, 0},
    {GEMMA2, "tiny-narrow", "tiny Gemma 2", 4, 128, 128, 4, 2, 32, 511, 2048, true, 1e-6f, 10000,
     ROPE_NONE, 1, 0, 20, 2, 0, 0, 0},
    {COMMAND_R, "8b", "Aya 23 8B", 32, 4096, 14336, 32, 8, 128, 256000, 8192, true, 1e-5f, 10000,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {COMMAND_R, "tiny", "tiny Command R", 2, 256, 512, 4, 2, 64, 401, 2048, true, 1e-5f, 10000,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {COMMAND_R, "tiny-narrow", "tiny Command R", 2, 128, 256, 4, 2, 32, 401, 2048, true, 1e-5f,
     10000, ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {COMMAND_R, "tiny-deep", "tiny Command R+", 64, 64, 32, 4, 2, 16, 401, 2048, true, 1e-5f, 10000,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {PHI3, "1b", "Phi-4-mini", 32, 3072, 8192, 24, 8, 128, 200064, 131072, true, 1e-5f, 10000,
     ROPE_LONG, 32, 4096, 0, 0, 0, 0, 0},
    {PHI3, "8b", "Phi-4", 40, 5120, 17920, 40, 10, 128, 100352, 16384, false, 1e-5f, 250000,
     ROPE_NONE, 1, 0, 0, 0, 0, 0, 0},
    {PHI3, "tiny", "tiny Phi-4-mini", 2, 256, 512, 4, 2, 64, 403, 2048, true, 1e-5f, 10000,
     ROPE_LONG, 4, 512, 0, 0, 0, 0, 0},
    {PHI3, "tiny-narrow", "tiny Phi-4-mini", 2, 128, 256, 4, 2, 32, 403, 2048, true, 1e-5f, 10000,
     ROPE_LONG, 4, 512, 0, 0, 0, 0, 0},
    {GLM4MOE, "glm-4.5-air", "GLM-4.5-Air", 46, 4096, 10944, 96, 8, 128, 151552, 131072, false, 1e-5f,
     1e6f, ROPE_NONE, 1, 0, 0, 0, 128, 8, 1408},
    {GLM4MOE, "tiny", "tiny GLM-4.5", 3, 256, 512, 6, 2, 64, 401, 2048, false, 1e-5f, 1e6f, ROPE_NONE,
     1, 0, 0, 0, 9, 3, 96},
    {GLM4MOE, "tiny-narrow", "tiny GLM-4.5-Air", 3, 128, 192, 6, 2, 32, 401, 2048, false, 1e-5f, 1e6f,
     ROPE_NONE, 1, 0, 0, 0, 9, 3, 48},
    {GPT_OSS, "gpt-oss-20b", "gpt-oss-20b", 24, 2880, 2880, 64, 8, 64, 201088, 131072, false, 1e-5f,
     150000, ROPE_YARN, 32, 4096, 128, 2, 32, 4, 2880},
    {GPT_OSS, "gpt-oss-120b", "gpt-oss-120b", 36, 2880, 2880, 64, 8, 64, 201088, 131072, false, 1e-5f,
     150000, ROPE_YARN, 32, 4096, 128, 2, 128, 4, 2880},
    {GPT_OSS, "tiny", "tiny gpt-oss", 4, 256, 256, 8, 2, 64, 403, 2048, false, 1e-5f, 150000, ROPE_YARN,
     8, 256, 20, 2, 5, 2, 96},
    {GPT_OSS, "tiny-narrow", "tiny gpt-oss", 4, 96, 96, 8, 2, 16, 403, 2048, false, 1e-5f, 150000,
     ROPE_YARN, 8, 256, 20, 2, 5, 2, 96},
};
/* clang-format on */

static const synth_latent latents[] = {
    {"v2-lite", 512, 0, 64, 128, 128, 1, 2, 0, 0, false, 1, 0.0707f},
    {"deepseek-v3", 512, 1536, 64, 128, 128, 3, 1, 8, 4, true, 2.5f, 0.1f},
    {"tiny", 96, 0, 16, 32, 48, 1, 2, 0, 0, false, 1, 0.0707f},
    {"tiny-v3", 64, 96, 16, 32, 32, 1, 1, 4, 2, true, 2.5f, 0.1f},
};

const synth_latent *synth_latent_of(const synth_shape *s)
{
    static const char narrow[] = "-narrow";
    for (size_t i = 0; s->arch == DEEPSEEK2 && i < sizeof latents / sizeof *latents; i++) {
        const size_t n = strlen(latents[i].preset);
        if (strncmp(s->preset, latents[i].preset, n) == 0 &&
            (!s->preset[n] || strcmp(s->preset + n, narrow) == 0))
            return &latents[i];
    }
    return NULL;
}

synth_moe synth_moe_of(const synth_shape *s)
{
    switch (s->arch) {
    case QWEN2MOE:
        return (synth_moe){.shared = s->ff};
    case DEEPSEEK2:
        return (synth_moe){.shared = synth_latent_of(s)->n_shared * s->ffe};
    case GLM4MOE:
        return (synth_moe){.shared = s->ffe,
                           .dense = 1,
                           .nextn = 1,
                           .rot = s->hd / 2,
                           .norms = strcmp(s->preset, "tiny") == 0};
    case GPT_OSS:
        return (synth_moe){.biases = true};
    default:
        return (synth_moe){0};
    }
}

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

const char *synth_arch_name(synth_arch a)
{
    static const char *const names[] = {"llama",     "qwen2",     "qwen3",   "gemma3",  "qwen3moe",
                                        "qwen2moe",  "deepseek2", "olmo2",   "granite", "gemma2",
                                        "command-r", "phi3",      "glm4moe", "gpt-oss"};
    return names[a];
}

const char *ts_synth_archs(void)
{
    return "llama|qwen2|qwen3|gemma3|qwen3moe|qwen2moe|deepseek2|olmo2|granite|gemma2|command-r|"
           "phi3|glm4moe|gpt-oss";
}

const char *ts_synth_presets(void)
{
    return "tiny|tiny-moe|tiny-moe-parts|tiny-v3|tiny-deep|1b|8b|30b-a3b|235b-a22b|a2.7b|v2-lite|"
           "deepseek-v3|glm-4.5-air|"
           "gpt-oss-20b|"
           "gpt-oss-120b";
}

/* Those of tiny models are such that leaving one out would be seen: Granite's factor of attention
 * is 1 / hd, which leaves it flat where weights are random, and Gemma's caps are far above scores
 * and logits. */
synth_factors synth_factors_of(const synth_shape *s)
{
    const bool tiny = s->d < 1024;
    if (s->arch == SYNTH_GRANITE)
        return (synth_factors){.embed = 12,
                               .residual = 0.22f,
                               .attn = tiny ? 0.25f : 1.0f / (float)s->hd,
                               .logit = s->d < 4096 ? 8 : 16};
    if (s->arch == SYNTH_COMMAND_R)
        return (synth_factors){.logit = 0.0625f};
    if (s->arch == SYNTH_GEMMA2)
        return (synth_factors){.attn_cap = tiny ? 1.5f : 50, .logit_cap = tiny ? 5 : 30};
    return (synth_factors){0};
}

/* With LongRoPE three quarters, as Phi-4-mini has it. */
int synth_n_rot(const synth_shape *s)
{
    return s->rope == ROPE_LONG ? s->hd / 4 * 3 : s->hd;
}

static ts_status set_rope(synth_shape *s, const char *kind, ts_error *err)
{
    static const char *const kinds[] = {"none", "linear", "yarn", "llama3"};
    int i = 0;
    while (i < 4 && strcmp(kind, kinds[i]) != 0)
        i++;
    if (i == 4)
        return ts_fail(err, TS_BAD_ARG,
                       "RoPE scaling '%s' is not one of none, linear, yarn, llama3", kind);
    if (i == ROPE_LLAMA3 && s->arch != SYNTH_LLAMA)
        return ts_fail(err, TS_BAD_ARG, "RoPE scaling llama3 belongs to architecture llama, not %s",
                       synth_arch_name(s->arch));
    if (s->rope != (synth_rope)i) {
        s->rope = (synth_rope)i;
        s->rope_factor = i == ROPE_NONE ? 1 : 4;
        s->rope_orig = s->n_ctx / 4;
    }
    return TS_OK;
}

ts_status synth_shape_find(synth_shape *out, const ts_synth_options *opt, const synth_mix *mix,
                           ts_error *err)
{
    const char *preset = opt->preset;
    bool arch_known = false;
    if (strcmp(preset, "tiny") == 0 && ts_type_get(mix->base)->block == 1)
        preset = "tiny-narrow";
    else if (strcmp(preset, "tiny-v3") == 0 && ts_type_get(mix->base)->block == 1)
        preset = "tiny-v3-narrow";
    else if (strncmp(preset, "tiny-", 5) == 0 && strstr(preset, "-narrow"))
        preset = "";
    for (int i = 0; i < N_SHAPES; i++) {
        if (strcmp(synth_arch_name(shapes[i].arch), opt->arch) != 0)
            continue;
        arch_known = true;
        if (strcmp(shapes[i].preset, preset) != 0)
            continue;
        *out = shapes[i];
        return opt->rope_scaling ? set_rope(out, opt->rope_scaling, err) : TS_OK;
    }
    if (!arch_known)
        return ts_fail(err, TS_BAD_ARG, "architecture '%s' is not one of %s", opt->arch,
                       ts_synth_archs());
    return ts_fail(err, TS_BAD_ARG, "architecture '%s' has no preset '%s'; presets are %s",
                   opt->arch, opt->preset, ts_synth_presets());
}

/* --- mixes -------------------------------------------------------------- */

/* llama.cpp's names and numbers. MXFP4 is for experts and leaves the rest in Q8_0, as there; of a
 * dense model, which there is Q8_0 then, it is every matrix but the embedding and the head. */
enum {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q8_0 = 7,
    Q5_0 = 8,
    Q5_1 = 9,
    Q2_K = 10,
    Q3_K_S = 11,
    Q3_K_M = 12,
    Q3_K_L = 13,
    Q4_K_S = 14,
    Q4_K_M = 15,
    Q5_K_S = 16,
    Q5_K_M = 17,
    Q6_K = 18,
    Q2_K_S = 21,
    IQ4_NL = 25,
    IQ4_XS = 30,
    BF16 = 32,
    MXFP4 = 38,
};

#define MIX_NAMES                                                                                  \
    "F32|F16|BF16|Q4_0|Q4_1|Q5_0|Q5_1|Q8_0|Q2_K|Q2_K_S|Q3_K|Q3_K_S|Q3_K_M|Q3_K_L|Q4_K|Q4_K_S|"     \
    "Q4_K_M|Q5_K|Q5_K_S|Q5_K_M|Q6_K|IQ4_NL|IQ4_XS|MXFP4"

static const synth_mix mixes[] = {
    {"F32", F32, TS_TYPE_F32},          {"F16", F16, TS_TYPE_F16},
    {"BF16", BF16, TS_TYPE_BF16},       {"Q4_0", Q4_0, TS_TYPE_Q4_0},
    {"Q4_1", Q4_1, TS_TYPE_Q4_1},       {"Q5_0", Q5_0, TS_TYPE_Q5_0},
    {"Q5_1", Q5_1, TS_TYPE_Q5_1},       {"Q8_0", Q8_0, TS_TYPE_Q8_0},
    {"Q2_K", Q2_K, TS_TYPE_Q2_K},       {"Q2_K_S", Q2_K_S, TS_TYPE_Q2_K},
    {"Q3_K", Q3_K_M, TS_TYPE_Q3_K},     {"Q3_K_S", Q3_K_S, TS_TYPE_Q3_K},
    {"Q3_K_M", Q3_K_M, TS_TYPE_Q3_K},   {"Q3_K_L", Q3_K_L, TS_TYPE_Q3_K},
    {"Q4_K", Q4_K_M, TS_TYPE_Q4_K},     {"Q4_K_S", Q4_K_S, TS_TYPE_Q4_K},
    {"Q4_K_M", Q4_K_M, TS_TYPE_Q4_K},   {"Q5_K", Q5_K_M, TS_TYPE_Q5_K},
    {"Q5_K_S", Q5_K_S, TS_TYPE_Q5_K},   {"Q5_K_M", Q5_K_M, TS_TYPE_Q5_K},
    {"Q6_K", Q6_K, TS_TYPE_Q6_K},       {"IQ4_NL", IQ4_NL, TS_TYPE_IQ4_NL},
    {"IQ4_XS", IQ4_XS, TS_TYPE_IQ4_XS}, {"MXFP4", MXFP4, TS_TYPE_MXFP4},
};

const char *ts_synth_types(void)
{
    return MIX_NAMES;
}

ts_status synth_mix_find(const synth_mix **out, const char *name, ts_error *err)
{
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        if (strcasecmp(mixes[i].name, name) == 0) {
            *out = &mixes[i];
            return TS_OK;
        }
    }
    return ts_fail(err, TS_BAD_ARG, "type '%s' is not one of %s", name, MIX_NAMES);
}

/* The layers that a "medium" mix spends more bits on: the first and last eighth, and every third
 * between. */
static bool favoured(int layer, int n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static ts_type value_type(const synth_mix *mix, const synth_shape *s, int layer)
{
    bool shared = s->n_head / s->n_kv >= 4; /* V is small then: bits are cheap */
    switch (mix->file_type) {
    case Q2_K:
        return shared ? TS_TYPE_Q4_K : TS_TYPE_Q3_K;
    case Q2_K_S:
        return shared ? TS_TYPE_Q4_K : mix->base;
    case Q3_K_M:
        return layer < 2 ? TS_TYPE_Q5_K : TS_TYPE_Q4_K;
    case Q3_K_L:
        return TS_TYPE_Q5_K;
    case Q4_K_S:
        return layer < 4 ? TS_TYPE_Q5_K : mix->base;
    case Q4_K_M:
    case Q5_K_M:
        return favoured(layer, s->n_layer) ? TS_TYPE_Q6_K : mix->base;
    case IQ4_NL:
    case IQ4_XS:
        return shared ? TS_TYPE_Q5_K : mix->base;
    default:
        return mix->base;
    }
}

static ts_type down_type(const synth_mix *mix, const synth_shape *s, int layer)
{
    bool first = layer < s->n_layer / 8;
    switch (mix->file_type) {
    case Q2_K:
        return TS_TYPE_Q3_K;
    case Q2_K_S:
        return first ? TS_TYPE_Q4_K : mix->base;
    case Q3_K_M:
        return layer < s->n_layer / 16 ? TS_TYPE_Q5_K : TS_TYPE_Q4_K;
    case Q3_K_L:
        return TS_TYPE_Q5_K;
    case Q4_K_M:
    case Q5_K_M:
        return favoured(layer, s->n_layer) ? TS_TYPE_Q6_K : mix->base;
    case Q4_K_S:
    case IQ4_NL:
    case IQ4_XS:
        return first ? TS_TYPE_Q5_K : mix->base;
    default:
        return mix->base;
    }
}

static ts_type qkv_type(const synth_mix *mix)
{
    switch (mix->file_type) {
    case Q3_K_M:
    case Q3_K_L:
        return TS_TYPE_Q4_K;
    case Q4_K_M:
        return TS_TYPE_Q5_K;
    case Q5_K_M:
        return TS_TYPE_Q6_K;
    default:
        return mix->base;
    }
}

static ts_type attn_output_type(const synth_mix *mix)
{
    switch (mix->file_type) {
    case Q2_K:
        return TS_TYPE_Q3_K;
    case Q3_K_M:
        return TS_TYPE_Q4_K;
    case Q3_K_L:
        return TS_TYPE_Q5_K;
    default:
        return mix->base;
    }
}

static ts_type head_type(const synth_mix *mix, int64_t k)
{
    const ts_type_info *t = ts_type_get(mix->base);
    if (t->block == 1)
        return mix->base;
    if (mix->base == TS_TYPE_MXFP4 || mix->base == TS_TYPE_Q8_0 || k % t->block != 0)
        return TS_TYPE_Q8_0;
    return TS_TYPE_Q6_K;
}

/* A row that isn't whole blocks of 256 takes a type with blocks of 32, of as many bits or the next
 * more. */
static ts_type fitting(ts_type t, int64_t k)
{
    if (k % ts_type_get(t)->block == 0)
        return t;
    switch (t) {
    case TS_TYPE_IQ4_XS:
        return TS_TYPE_IQ4_NL;
    case TS_TYPE_Q4_K:
        return TS_TYPE_Q5_0;
    case TS_TYPE_Q5_K:
        return TS_TYPE_Q5_1;
    case TS_TYPE_Q6_K:
        return TS_TYPE_Q8_0;
    default: /* Q2_K, Q3_K */
        return TS_TYPE_Q4_0;
    }
}

ts_type synth_mix_type(const synth_mix *mix, bool pure, const synth_shape *s, synth_role role,
                       int layer, int64_t k)
{
    ts_type t = mix->base;
    if (role == ROLE_ROUTER) /* never quantised */
        return TS_TYPE_F32;
    if (pure)
        return fitting(t, k);
    if (role == ROLE_OUTPUT || (role == ROLE_EMBD && (s->tied || t == TS_TYPE_MXFP4)))
        t = head_type(mix, k);
    else if (role == ROLE_V)
        t = value_type(mix, s, layer);
    else if (role == ROLE_DOWN)
        t = down_type(mix, s, layer);
    else if (role == ROLE_QKV)
        t = qkv_type(mix);
    else if (role == ROLE_O)
        t = attn_output_type(mix);
    return fitting(t, k);
}

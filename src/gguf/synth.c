/* synth.c - writes a model of random weights.
 *
 * The file's tensors are cut into chunks, which threads claim, fill and write on their own: a
 * block depends on the seed, its tensor and its place alone, so any number of threads
 * gives the same file. Nothing larger than the metadata and a chunk per thread is in memory. */
#include "gguf/synth.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "gguf/synth_impl.h"

/* Bytes of a chunk: stays in a core's L2 until the kernel has copied it, and a tiny model has
 * tensors of more than one. */
enum { CHUNK = 64 * 1024 };

typedef enum content { WEIGHTS, FREQS, SHORT_FACTORS, LONG_FACTORS } content;

typedef struct item {
    ts_type type;
    content content;
    float scale, mean; /* standard deviation; what is added to F32 values */
    int64_t n_blocks;  /* of the whole tensor                             */
    int64_t step;      /* blocks of a chunk, a multiple of 8              */
    int64_t chunk0;    /* number of the tensor's first chunk in the file  */
} item;

typedef struct job {
    const ts_synth_options *opt;
    synth_shape s;
    const synth_mix *mix;
    ts_writer *w;
    item *items;
    size_t n_items, cap;
    int64_t n_params, n_chunks;
    bool no_memory; /* while declaring tensors */

    /* shared by the threads */
    uint8_t *buf; /* [n_threads][CHUNK]                                    */
    atomic_int_fast64_t next, done;
    atomic_bool stop;
    atomic_flag failed; /* whoever sets it first writes status and error   */
    ts_status status;
    ts_error error;
} job;

/* --- metadata ----------------------------------------------------------- */

static void put_arch_u32(job *j, const char *key, int64_t v)
{
    char k[96];
    snprintf(k, sizeof k, "%s.%s", synth_arch_name(j->s.arch), key);
    ts_writer_u32(j->w, k, (uint32_t)v);
}

static void put_arch_f32(job *j, const char *key, float v)
{
    char k[96];
    snprintf(k, sizeof k, "%s.%s", synth_arch_name(j->s.arch), key);
    ts_writer_f32(j->w, k, v);
}

static void put_rope(job *j)
{
    const synth_shape *s = &j->s;
    char k[96];
    put_arch_f32(j, "rope.freq_base", s->rope_base);
    if (s->arch == SYNTH_PHI3)
        put_arch_u32(j, "rope.dimension_count", synth_n_rot(s));
    if (s->rope == ROPE_LONG) {
        put_arch_u32(j, "rope.scaling.original_context_length", s->rope_orig);
        put_arch_f32(j, "rope.scaling.attn_factor",
                     sqrtf(1 + logf(s->rope_factor) / logf((float)s->rope_orig)));
    }
    if (s->rope != ROPE_LINEAR && s->rope != ROPE_YARN)
        return;
    snprintf(k, sizeof k, "%s.rope.scaling.type", synth_arch_name(s->arch));
    ts_writer_str(j->w, k, s->rope == ROPE_YARN ? "yarn" : "linear");
    put_arch_f32(j, "rope.scaling.factor", s->rope_factor);
    if (s->rope == ROPE_YARN)
        put_arch_u32(j, "rope.scaling.original_context_length", s->rope_orig);
    const synth_latent *l = synth_latent_of(s);
    if (l && s->rope == ROPE_YARN)
        put_arch_f32(j, "rope.scaling.yarn_log_multiplier", l->log_multiplier);
}

static void put_latent(job *j, const synth_latent *l)
{
    char k[96];
    put_arch_u32(j, "vocab_size", j->s.n_vocab);
    put_arch_u32(j, "attention.kv_lora_rank", l->c);
    put_arch_u32(j, "attention.q_lora_rank", l->qc);
    put_arch_u32(j, "attention.key_length_mla", l->nope + l->rope);
    put_arch_u32(j, "attention.value_length_mla", l->v);
    put_arch_u32(j, "rope.dimension_count", l->rope);
    put_arch_u32(j, "leading_dense_block_count", l->n_dense);
    put_arch_u32(j, "expert_shared_count", l->n_shared);
    put_arch_u32(j, "expert_gating_func", l->sigmoid ? 2 : 1);
    put_arch_f32(j, "expert_weights_scale", l->scale);
    snprintf(k, sizeof k, "%s.expert_weights_norm", synth_arch_name(j->s.arch));
    ts_writer_bool(j->w, k, l->sigmoid);
    if (l->n_group) {
        put_arch_u32(j, "expert_group_count", l->n_group);
        put_arch_u32(j, "expert_group_used_count", l->n_group_used);
    }
}

static void put_moe(job *j)
{
    const synth_moe e = synth_moe_of(&j->s);
    if (j->s.arch == SYNTH_GLM4MOE) {
        char k[96];
        snprintf(k, sizeof k, "%s.expert_weights_norm", synth_arch_name(j->s.arch));
        put_arch_u32(j, "rope.dimension_count", e.rot);
        put_arch_u32(j, "leading_dense_block_count", e.dense);
        put_arch_u32(j, "nextn_predict_layers", e.nextn);
        put_arch_u32(j, "expert_shared_count", e.shared / j->s.ffe);
        put_arch_u32(j, "expert_gating_func", 2);
        put_arch_f32(j, "expert_weights_scale", strncmp(j->s.preset, "tiny", 4) == 0 ? 2.5f : 1);
        ts_writer_bool(j->w, k, true);
        put_arch_u32(j, "expert_group_count", 1);
        put_arch_u32(j, "expert_group_used_count", 1);
        return;
    }
    if (e.shared && !synth_latent_of(&j->s)) /* there it is a number of experts */
        put_arch_u32(j, "expert_shared_feed_forward_length", e.shared);
}

static void put_factor(job *j, const char *key, float v)
{
    if (v != 0)
        put_arch_f32(j, key, v);
}

/* What readers assume. */
static int window_every(synth_arch a)
{
    return a == SYNTH_OLMO2 ? 4 : a == SYNTH_GEMMA2 || a == SYNTH_GPT_OSS ? 2 : 6;
}

static bool is_gemma(synth_arch a)
{
    return a == SYNTH_GEMMA2 || a == SYNTH_GEMMA3;
}

static void put_metadata(job *j)
{
    const synth_shape *s = &j->s;
    const synth_factors f = synth_factors_of(s);
    char name[64];
    snprintf(name, sizeof name, "Random weights in the shape of %s", s->name);
    ts_writer_str(j->w, "general.architecture", synth_arch_name(s->arch));
    ts_writer_str(j->w, "general.type", "model");
    ts_writer_str(j->w, "general.name", name);
    ts_writer_u32(j->w, "general.quantization_version", 2);
    ts_writer_u32(j->w, "general.file_type", j->mix->file_type);
    put_arch_u32(j, "block_count", s->n_layer + synth_moe_of(s).nextn);
    put_arch_u32(j, "context_length", s->n_ctx);
    put_arch_u32(j, "embedding_length", s->d);
    put_arch_u32(j, "feed_forward_length", s->ff);
    put_arch_u32(j, "attention.head_count", s->n_head);
    put_arch_u32(j, "attention.head_count_kv", s->n_kv);
    put_arch_u32(j, "attention.key_length", s->hd);
    const synth_latent *l = synth_latent_of(s);
    put_arch_u32(j, "attention.value_length", l ? l->c : s->hd);
    put_arch_f32(j,
                 s->arch == SYNTH_COMMAND_R ? "attention.layer_norm_epsilon"
                                            : "attention.layer_norm_rms_epsilon",
                 s->eps);
    if (s->arch == SYNTH_LLAMA) {
        put_arch_u32(j, "vocab_size", s->n_vocab);
        put_arch_u32(j, "rope.dimension_count", s->hd);
    }
    if (l)
        put_latent(j, l);
    if (s->n_expert) {
        put_arch_u32(j, "expert_count", s->n_expert);
        put_arch_u32(j, "expert_used_count", s->n_used);
        put_arch_u32(j, "expert_feed_forward_length", s->ffe);
        put_moe(j);
    }
    if (s->window)
        put_arch_u32(j, "attention.sliding_window", s->window);
    if (s->window && s->window_every != window_every(s->arch))
        put_arch_u32(j, "attention.sliding_window_pattern", s->window_every);
    put_factor(j, "embedding_scale", f.embed);
    put_factor(j, "residual_scale", f.residual);
    put_factor(j, "attention.scale", f.attn);
    put_factor(j, "logit_scale", f.logit);
    put_factor(j, "attn_logit_softcapping", f.attn_cap);
    put_factor(j, "final_logit_softcapping", f.logit_cap);
    put_rope(j);
}

/* --- tensors ------------------------------------------------------------ */

/* e matrices of n rows of k. */
static void declare_stack(job *j, const char *name, content c, ts_type type, int64_t k, int64_t n,
                          int64_t e, float scale, float mean)
{
    if (j->n_items == j->cap) {
        size_t cap = j->cap ? 2 * j->cap : 512;
        item *p = realloc(j->items, cap * sizeof *p);
        if (!p) {
            j->no_memory = true;
            return;
        }
        j->items = p;
        j->cap = cap;
    }
    const ts_type_info *t = ts_type_get(type);
    item it = {.type = type, .content = c, .scale = scale, .mean = mean, .chunk0 = j->n_chunks};
    it.n_blocks = k / t->block * n * e;
    it.step = CHUNK / t->bytes / 8 * 8;
    j->n_chunks += (it.n_blocks + it.step - 1) / it.step;
    j->n_params += k * n * e;
    j->items[j->n_items++] = it;
    ts_writer_tensor(j->w, name, type, e > 1 ? 3 : n > 1 ? 2 : 1, (int64_t[]){k, n, e});
}

static void declare(job *j, const char *name, content c, ts_type type, int64_t k, int64_t n,
                    float scale, float mean)
{
    declare_stack(j, name, c, type, k, n, 1, scale, mean);
}

/* Layer -1 stands for the model itself. */
static const char *tensor_name(char buf[64], int layer, const char *what)
{
    if (layer < 0)
        snprintf(buf, 64, "%s", what);
    else
        snprintf(buf, 64, "blk.%d.%s", layer, what);
    return buf;
}

/* A norm's weights, near `mean`. */
static void norm_near(job *j, int layer, const char *what, int64_t k, float mean)
{
    char buf[64];
    declare(j, tensor_name(buf, layer, what), WEIGHTS, TS_TYPE_F32, k, 1, 0.1f * mean, mean);
}

static void norm(job *j, int layer, const char *what, int64_t k)
{
    norm_near(j, layer, what, k, 1);
}

/* Norms over heads, each with weights of its own: far apart, so that one head's serve no other. */
static void head_norms(job *j, int layer, const char *what, int64_t k, int64_t n)
{
    char buf[64];
    declare(j, tensor_name(buf, layer, what), WEIGHTS, TS_TYPE_F32, k, n, 0.5f, 1);
}

/* W[n][k]; weights of spread gain / sqrt(k) make outputs of spread `gain` from inputs of spread 1.
 */
static void matrix(job *j, int layer, const char *what, synth_role role, int64_t k, int64_t n,
                   float gain)
{
    char buf[64];
    ts_type type = synth_mix_type(j->mix, j->opt->pure, &j->s, role, layer, k);
    if (j->s.n_expert && type == TS_TYPE_MXFP4 && !j->opt->pure) /* that is for experts then */
        type = TS_TYPE_Q8_0;
    declare(j, tensor_name(buf, layer, what), WEIGHTS, type, k, n, gain / sqrtf((float)k), 0);
}

static void stack(job *j, int layer, const char *what, synth_role role, int64_t k, int64_t n,
                  int64_t e, float gain)
{
    char buf[64];
    ts_type type = synth_mix_type(j->mix, j->opt->pure, &j->s, role, layer, k);
    declare_stack(j, tensor_name(buf, layer, what), WEIGHTS, type, k, n, e, gain / sqrtf((float)k),
                  0);
}

static void bias(job *j, int layer, const char *what, int64_t n)
{
    char buf[64];
    declare(j, tensor_name(buf, layer, what), WEIGHTS, TS_TYPE_F32, n, 1, 0.2f, 0);
}

static void declare_parts(job *j, int l)
{
    const synth_shape *s = &j->s;
    for (int e = 0; e < s->n_expert; e++) {
        char gate[32], up[32], down[32];
        snprintf(gate, sizeof gate, "ffn_gate.%d.weight", e);
        snprintf(up, sizeof up, "ffn_up.%d.weight", e);
        snprintf(down, sizeof down, "ffn_down.%d.weight", e);
        matrix(j, l, gate, ROLE_GATE, s->d, s->ffe, 1);
        matrix(j, l, up, ROLE_UP, s->d, s->ffe, 1);
        matrix(j, l, down, ROLE_DOWN, s->ffe, s->d, 1);
    }
}

/* Logits of the router have a spread of 3: some experts stand out. */
static void declare_experts(job *j, int l)
{
    const synth_shape *s = &j->s;
    matrix(j, l, "ffn_gate_inp.weight", ROLE_ROUTER, s->d, s->n_expert, 3);
    if (strstr(s->preset, "-parts")) { /* as files of the first Mixtral models have them */
        declare_parts(j, l);
        return;
    }
    stack(j, l, "ffn_gate_exps.weight", ROLE_GATE, s->d, s->ffe, s->n_expert, 1);
    stack(j, l, "ffn_up_exps.weight", ROLE_UP, s->d, s->ffe, s->n_expert, 1);
    stack(j, l, "ffn_down_exps.weight", ROLE_DOWN, s->ffe, s->d, s->n_expert, 1);
    const synth_moe e = synth_moe_of(s);
    if (e.biases) {
        char buf[64];
        bias(j, l, "ffn_gate_inp.bias", s->n_expert);
        static const char *const names[] = {"ffn_gate_exps.bias", "ffn_up_exps.bias",
                                            "ffn_down_exps.bias"};
        for (int i = 0; i < 3; i++)
            declare(j, tensor_name(buf, l, names[i]), WEIGHTS, TS_TYPE_F32, i < 2 ? s->ffe : s->d,
                    s->n_expert, 0.2f, 0);
    }
    if (s->arch == SYNTH_QWEN2MOE) {
        char buf[64];
        declare(j, tensor_name(buf, l, "ffn_gate_inp_shexp.weight"), WEIGHTS, TS_TYPE_F32, s->d, 1,
                2 / sqrtf((float)s->d), 0);
    }
    if (e.shared) {
        matrix(j, l, "ffn_gate_shexp.weight", ROLE_GATE, s->d, e.shared, 1);
        matrix(j, l, "ffn_up_shexp.weight", ROLE_UP, s->d, e.shared, 1);
        matrix(j, l, "ffn_down_shexp.weight", ROLE_DOWN, e.shared, s->d, 1);
    }
}

static void declare_dense(job *j, int l)
{
    const synth_shape *s = &j->s;
    matrix(j, l, "ffn_gate.weight", ROLE_GATE, s->d, s->ff, 1);
    matrix(j, l, "ffn_up.weight", ROLE_UP, s->d, s->ff, 1);
    matrix(j, l, "ffn_down.weight", ROLE_DOWN, s->ff, s->d, 1);
}

static void declare_latent(job *j, int l, const synth_latent *a)
{
    const synth_shape *s = &j->s;
    const int64_t d = s->d, h = s->n_head, q = h * (a->nope + a->rope);
    norm(j, l, "attn_norm.weight", d);
    if (a->qc) {
        matrix(j, l, "attn_q_a.weight", ROLE_LATENT, d, a->qc, 1);
        norm(j, l, "attn_q_a_norm.weight", a->qc);
        matrix(j, l, "attn_q_b.weight", ROLE_LATENT, a->qc, q, 1);
    } else {
        matrix(j, l, "attn_q.weight", ROLE_Q, d, q, 1);
    }
    matrix(j, l, "attn_kv_a_mqa.weight", ROLE_LATENT, d, a->c + a->rope, 1);
    norm(j, l, "attn_kv_a_norm.weight", a->c);
    /* q in the latent space meets c elements of spread 1 there: as much as nope in its own */
    stack(j, l, "attn_k_b.weight", ROLE_LATENT, a->nope, a->c, h,
          sqrtf((float)a->nope / (float)a->c));
    stack(j, l, "attn_v_b.weight", ROLE_LATENT, a->c, a->v, h, 1);
    matrix(j, l, "attn_output.weight", ROLE_O, h * a->v, d, 1);
    norm(j, l, "ffn_norm.weight", d);
    if (l < a->n_dense) {
        declare_dense(j, l);
        return;
    }
    declare_experts(j, l);
    if (a->sigmoid)
        bias(j, l, "exp_probs_b.bias", s->n_expert);
}

static void declare_layer(job *j, int l)
{
    if (synth_latent_of(&j->s)) {
        declare_latent(j, l, synth_latent_of(&j->s));
        return;
    }
    const synth_shape *s = &j->s;
    int64_t d = s->d, q = (int64_t)s->n_head * s->hd, kv = (int64_t)s->n_kv * s->hd;
    bool gemma = is_gemma(s->arch), olmo = s->arch == SYNTH_OLMO2;

    if (!olmo)
        norm(j, l, "attn_norm.weight", d);
    if (s->arch == SYNTH_PHI3) {
        matrix(j, l, "attn_qkv.weight", ROLE_QKV, d, q + 2 * kv, 1);
    } else {
        matrix(j, l, "attn_q.weight", ROLE_Q, d, q, 1);
        matrix(j, l, "attn_k.weight", ROLE_K, d, kv, 1);
        matrix(j, l, "attn_v.weight", ROLE_V, d, kv, 1);
    }
    const synth_moe e = synth_moe_of(s);
    if (s->arch == SYNTH_QWEN2 || s->arch == SYNTH_QWEN2MOE || s->arch == SYNTH_GLM4MOE ||
        e.biases) {
        bias(j, l, "attn_q.bias", q);
        bias(j, l, "attn_k.bias", kv);
        bias(j, l, "attn_v.bias", kv);
    }
    if (s->arch == SYNTH_GEMMA3 || s->arch == SYNTH_QWEN3 || s->arch == SYNTH_QWEN3MOE || e.norms) {
        norm(j, l, "attn_q_norm.weight", s->hd);
        norm(j, l, "attn_k_norm.weight", s->hd);
    }
    if (olmo) {
        norm(j, l, "attn_q_norm.weight", q);
        norm(j, l, "attn_k_norm.weight", kv);
    }
    if (s->arch == SYNTH_COMMAND_R && s->n_layer >= 64) { /* where readers look for them */
        head_norms(j, l, "attn_q_norm.weight", s->hd, s->n_head);
        head_norms(j, l, "attn_k_norm.weight", s->hd, s->n_kv);
    }
    matrix(j, l, "attn_output.weight", ROLE_O, q, d, 1);
    if (gemma || olmo)
        norm(j, l, "post_attention_norm.weight", d);
    if (e.biases) {
        bias(j, l, "attn_output.bias", d);
        norm_near(j, l, "attn_sinks.weight", s->n_head, 1);
    }
    const bool post = s->arch == SYNTH_GLM4MOE || s->arch == SYNTH_GPT_OSS;
    if (!olmo && s->arch != SYNTH_COMMAND_R)
        norm(j, l, post ? "post_attention_norm.weight" : "ffn_norm.weight", d);
    if (s->n_expert && l >= e.dense) {
        declare_experts(j, l);
        if (s->arch == SYNTH_GLM4MOE)
            bias(j, l, "exp_probs_b.bias", s->n_expert);
        return;
    }
    if (s->arch != SYNTH_PHI3) /* gate is the first half of up there */
        matrix(j, l, "ffn_gate.weight", ROLE_GATE, d, s->ff, 1);
    matrix(j, l, "ffn_up.weight", ROLE_UP, d, s->arch == SYNTH_PHI3 ? 2 * s->ff : s->ff, 1);
    matrix(j, l, "ffn_down.weight", ROLE_DOWN, s->ff, d, 1);
    if (gemma || olmo)
        norm(j, l, "post_ffw_norm.weight", d);
}

static void declare_tensors(job *j)
{
    const synth_shape *s = &j->s;
    /* Logits of spread 3, so that the best token stands clear of the next among 100,000. A tied
     * embedding must be small against what the layers add, or every token predicts itself; gemma
     * multiplies it by sqrt(d), so there the last norm makes up for it. */
    float embd = is_gemma(s->arch) ? 0.3f : s->tied ? 3 : sqrtf((float)s->d), head = 3;
    float last = is_gemma(s->arch) ? 10 : 1;
    if (s->arch == SYNTH_GRANITE) { /* small beside what 0.22 of a block adds; the factors undone */
        const synth_factors f = synth_factors_of(s);
        embd = (s->tied ? 0.03f : 0.3f) * sqrtf((float)s->d) / f.embed;
        last = s->tied ? 3 * f.logit / embd : 1;
        head = 3 * f.logit;
    }
    if (s->arch == SYNTH_COMMAND_R)
        last = 1 / synth_factors_of(s).logit;
    matrix(j, -1, "token_embd.weight", ROLE_EMBD, s->d, s->n_vocab, embd);
    norm_near(j, -1, "output_norm.weight", s->d, last);
    if (!s->tied)
        matrix(j, -1, "output.weight", ROLE_OUTPUT, s->d, s->n_vocab, head);
    if (s->rope == ROPE_LLAMA3)
        declare(j, "rope_freqs.weight", FREQS, TS_TYPE_F32, s->hd / 2, 1, 0, 0);
    if (s->rope == ROPE_LONG) {
        const int n = synth_n_rot(s) / 2;
        declare(j, "rope_factors_long.weight", LONG_FACTORS, TS_TYPE_F32, n, 1, 0, 0);
        declare(j, "rope_factors_short.weight", SHORT_FACTORS, TS_TYPE_F32, n, 1, 0, 0);
    }
    const int nextn = synth_moe_of(s).nextn;
    for (int l = 0; l < s->n_layer + nextn; l++)
        declare_layer(j, l);
    for (int l = s->n_layer; l < s->n_layer + nextn; l++) {
        matrix(j, l, "nextn.eh_proj.weight", ROLE_Q, 2 * (int64_t)s->d, s->d, 1);
        norm(j, l, "nextn.enorm.weight", s->d);
        norm(j, l, "nextn.hnorm.weight", s->d);
        norm(j, l, "nextn.shared_head_norm.weight", s->d);
    }
}

/* Llama 3's scaling, as divisors of the rotation's frequencies: wavelengths under a quarter of the
 * original context stay, those longer than it are stretched by `factor`, between them 1 / divisor
 * goes linearly with the number of turns in the original context from 1 to 4. */
static void rope_freqs(const synth_shape *s, float *out)
{
    for (int i = 0; i < s->hd / 2; i++) {
        double wave = 6.283185307179586 * pow((double)s->rope_base, 2.0 * i / s->hd);
        double turns = s->rope_orig / wave;
        double t = turns < 1 ? 0 : turns > 4 ? 1 : (turns - 1) / 3;
        out[i] = (float)(1 / ((1 - t) / (double)s->rope_factor + t));
    }
}

/* LongRoPE's, made up: the slower a pair, the more. */
static void rope_factors(const synth_shape *s, bool of_long, float *out)
{
    const int n = synth_n_rot(s) / 2;
    for (int i = 0; i < n; i++)
        out[i] = 1 + (of_long ? s->rope_factor : 0.5f) * (float)i / (float)n;
}

/* --- filling ------------------------------------------------------------ */

static void fail(job *j, ts_status status, const ts_error *error)
{
    if (!atomic_flag_test_and_set(&j->failed)) {
        j->status = status;
        j->error = *error;
    }
    atomic_store(&j->stop, true);
}

/* The tensor that chunk c belongs to; chunks are claimed in rising order, so look on from `at`. */
static size_t item_of(const job *j, size_t at, int64_t c)
{
    while (at + 1 < j->n_items && j->items[at + 1].chunk0 <= c)
        at++;
    return at;
}

static ts_status write_chunk(job *j, size_t number, int64_t c, uint8_t *buf, ts_error *err)
{
    const item *it = &j->items[number];
    size_t bytes = (size_t)ts_type_get(it->type)->bytes;
    int64_t first = (c - it->chunk0) * it->step;
    int64_t n = it->n_blocks - first < it->step ? it->n_blocks - first : it->step;
    if (it->content == FREQS) {
        rope_freqs(&j->s, (float *)buf);
    } else if (it->content != WEIGHTS) {
        rope_factors(&j->s, it->content == LONG_FACTORS, (float *)buf);
    } else {
        /* Seeds of neighbouring models and tensors must not share a stream. */
        uint64_t seed = j->opt->seed * 0xd1342543de82ef95u + (uint64_t)number * 0x2545f4914f6cdd1du;
        ts_synth_range(it->type, buf, first, n, seed, it->scale);
    }
    if (it->mean != 0)
        for (int64_t i = 0; i < n; i++)
            ((float *)buf)[i] += it->mean;
    return ts_writer_data(j->w, number, (uint64_t)first * bytes, buf, (size_t)n * bytes, err);
}

static void work(void *arg, int tid, int n_threads)
{
    (void)n_threads;
    job *j = arg;
    uint8_t *buf = j->buf + (size_t)tid * CHUNK;
    const ts_synth_options *o = j->opt;
    size_t at = 0;
    for (int64_t c; (c = ts_claim(&j->next)) < j->n_chunks && !atomic_load(&j->stop);) {
        ts_error err = {0};
        at = item_of(j, at, c);
        ts_status st = write_chunk(j, at, c, buf, &err);
        int64_t done = atomic_fetch_add(&j->done, 1) + 1;
        if (st == TS_OK && tid == 0 && o->progress &&
            !o->progress(o->progress_user, (double)done / (double)j->n_chunks))
            st = ts_fail(&err, TS_CANCELLED, "cancelled");
        if (st != TS_OK)
            fail(j, st, &err);
    }
}

/* Only what a reader divides by; the rest of the file is one hole. */
static ts_status fill_sparse(job *j, ts_error *err)
{
    ts_status st = TS_OK;
    float buf[CHUNK / sizeof(float)];
    for (size_t i = 0; i < j->n_items && st == TS_OK; i++)
        if (j->items[i].content != WEIGHTS) /* shorter than a chunk */
            st = write_chunk(j, i, j->items[i].chunk0, (uint8_t *)buf, err);
    return st;
}

static ts_status fill(job *j, ts_error *err)
{
    if (j->opt->sparse)
        return fill_sparse(j, err);
    ts_pool *pool = NULL;
    int n = j->opt->n_threads > 0 ? j->opt->n_threads : ts_cpu_get()->n_cpus;
    size_t size = (size_t)n * CHUNK;
    j->buf = aligned_alloc(64, size);
    if (!j->buf)
        return ts_fail(err, TS_NO_MEMORY, "no memory for buffers of %zu bytes", size);
    ts_status st = ts_pool_open(&pool, n, err);
    if (st != TS_OK)
        return st;
    ts_pool_run(pool, work, j);
    ts_pool_close(pool);
    if (j->status != TS_OK && err)
        *err = j->error;
    return j->status;
}

/* ------------------------------------------------------------------------ */

static ts_status write_model(job *j, const char *path, ts_error *err)
{
    ts_status st = ts_writer_open(&j->w, path, err);
    if (st != TS_OK)
        return st;
    put_metadata(j);
    st = synth_vocab_put(j->w, &j->s, err);
    if (st != TS_OK)
        return st;
    declare_tensors(j);
    if (j->no_memory)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for the list of tensors", path);
    st = ts_writer_begin(j->w, err);
    if (st == TS_OK)
        st = fill(j, err);
    return st == TS_OK ? ts_writer_finish(j->w, err) : st;
}

ts_status ts_synth_write(const char *path, const ts_synth_options *opt, ts_synth_result *result,
                         ts_error *err)
{
    job j = {.opt = opt, .failed = ATOMIC_FLAG_INIT};
    ts_status st = synth_mix_find(&j.mix, opt->type, err);
    if (st == TS_OK)
        st = synth_shape_find(&j.s, opt, j.mix, err);
    if (st == TS_OK)
        st = write_model(&j, path, err);
    if (st == TS_OK && result) {
        *result = (ts_synth_result){.file_bytes = ts_writer_file_bytes(j.w),
                                    .n_params = j.n_params,
                                    .n_tensors = (int64_t)j.n_items};
    }
    ts_writer_close(j.w);
    free(j.items);
    free(j.buf);
    return st;
}

ts_status ts_synth_tiny(const char *path, const char *arch, const char *type, bool pure,
                        ts_error *err)
{
    char name[32];
    const char *colon = strchr(arch, ':');
    snprintf(name, sizeof name, "%.*s", (int)(colon ? colon - arch : (ptrdiff_t)strlen(arch)),
             arch);
    ts_synth_options o = {.arch = name,
                          .preset = colon ? colon + 1 : "tiny",
                          .type = type,
                          .pure = pure,
                          .seed = 1,
                          .n_threads = 1};
    return ts_synth_write(path, &o, NULL, err);
}

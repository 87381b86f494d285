/* model.h - one architecture's hyperparameters and named weights.
 *
 * Owns the float copies of small vectors (norms, biases) and the array of layers; matrices stay in
 * the mapped file, which must outlive the model. Immutable once the plan has placed the weights.
 *
 * The letters: d = n_embd, h = n_head, hkv = n_head_kv, hd = head_dim, ff = n_ff, v = n_vocab. */
#ifndef TS_MODEL_H
#define TS_MODEL_H

#include "base/log.h"
#include "cpu/kset.h"
#include "gguf/gguf.h"
#include "model/moe.h"

/* A weight matrix W[n][k], or a stack of them, W[e][n][k]. Its source is always readable; the plan
 * decides how it is computed. Only the kernels of `kset` read `data`: no other code takes a packed
 * weight. */
typedef struct ts_weight {
    const ts_tensor *source;
    /* Of a stack whose matrices are tensors of their own: these, [e], of which source is the first;
     * else NULL. */
    const ts_tensor *const *parts;
    char gathered[48]; /* then the name that the stack would have, in newer files */
    int64_t n, k;
    int64_t e;    /* matrices; 1 unless it is a stack                        */
    int64_t used; /* of them by one token                                    */
    bool experts; /* they are a layer's experts, of which tokens choose      */
    /* written by the plan and the load */
    int device;          /* of the plan's devices; 0 is the CPU               */
    int asked;           /* the device that a pattern has for it; -1: none    */
    const ts_kset *kset; /* NULL: only rows are looked up, in the source      */
    const ts_kset *home; /* while it is placed on the stream device: the CPU's; else NULL */
    size_t bytes;        /* packed, or of the source when nothing is packed   */
    size_t offset;       /* in its device's arena                             */
    const void *data;    /* packed (or source); NULL until loaded             */
    char reason[96];
} ts_weight;

static inline const char *ts_weight_name(const ts_weight *w)
{
    return w->parts ? w->gathered : w->source->name;
}

/* Bytes of a weight: in its source, packed by its kernel set, and of them those that one token
 * reads where it is. */
static inline size_t ts_weight_source(const ts_weight *w)
{
    return w->parts ? (size_t)w->e * w->source->size : w->source->size;
}

static inline size_t ts_weight_packed(const ts_weight *w)
{
    return w->e > 1 ? ts_kset_stack_bytes(w->kset, w->e, w->n, w->k)
                    : w->kset->packed_bytes(w->n, w->k);
}

static inline size_t ts_weight_step(const ts_weight *w)
{
    return w->bytes / (size_t)w->e * (size_t)w->used;
}

/* Matrix i as the file has it. */
static inline const void *ts_weight_matrix(const ts_weight *w, int64_t i)
{
    if (w->parts)
        return w->parts[i]->data;
    return (const uint8_t *)w->source->data + (size_t)i * (w->source->size / (size_t)w->e);
}

/* A norm, a bias, or frequencies, as floats. */
typedef struct ts_vector {
    float *v;
    const ts_tensor *source; /* NULL: frequencies, which are computed */
} ts_vector;

/* How positions turn into angles: theta_i = pos * freq[i], rotated by cos and sin times mscale. */
typedef struct ts_rope {
    int64_t n_rot; /* rotated dimensions of each head, even              */
    bool neox;     /* pairs are (i, i + n_rot/2), else (2i, 2i + 1)      */
    float *freq;   /* [n_rot/2], scaling included; owned by the model    */
    /* LongRoPE: one of these is freq, by the context that is planned for: up to n_short positions,
     * and beyond. Else NULL. */
    float *freq_short, *freq_long;
    int64_t n_short;
    float mscale; /* YaRN's magnitude correction, else 1                */
    bool yarn;
    float factor; /* of the scaling; 1: none                            */
} ts_rope;

static inline void ts_rope_for(ts_rope *r, int64_t n_ctx)
{
    if (r->freq_long)
        r->freq = n_ctx > r->n_short ? r->freq_long : r->freq_short;
}

typedef struct ts_hparams {
    int64_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx_train;
    int64_t v_dim;   /* of V's heads; Q's and K's have head_dim                  */
    bool layer_norm; /* norms take the mean off first; set before ts_load_common */
    float norm_eps;
    float embed_scale;   /* multiplies the embedding; 1 = none                 */
    float attn_scale;    /* multiplies q.k                                     */
    float attn_softcap;  /* > 0: scores = cap * tanh(scores / cap)             */
    float logit_softcap; /* > 0: logits = cap * tanh(logits / cap)             */
    int64_t window;      /* positions a sliding layer sees; 0 = no such layers */
    ts_moe moe;
} ts_hparams;

/* One block. Absent parts are NULL. Vectors are float copies, shapes at the right. */
typedef struct ts_layer {
    float *attn_norm;             /* [d]        */
    ts_weight *wq, *wk, *wv, *wo; /* [h*hd][d], [hkv*hd][d] twice, [d][h*hd] */
    float *bq, *bk, *bv, *bo;     /* [h*hd], [hkv*hd] twice, [d]             */
    float *q_norm, *k_norm;       /* [hd], or [h*hd], [hkv*hd] (all heads as one; each its own) */
    float *sinks;                 /* [h]        */
    /* Latent attention, c the latent width, r the rotated dimensions: K is a row of c + r for all
     * heads, V its first c. wq is [h*(nope + r)][d], or of the normed q_a. */
    ts_weight *q_a, *kv_a;         /* [qc][d], [c + r][d]             */
    float *q_a_norm;               /* [qc]                            */
    float *kv_a_norm;              /* [c]                             */
    ts_weight *k_b, *v_b;          /* stacks: [h][c][nope], [h][vd][c] */
    float *attn_post_norm;         /* [d]        */
    float *ffn_norm;               /* [d]        */
    ts_weight *gate, *up, *down;   /* [ff][d] twice, [d][ff] */
    float *b_gate, *b_up, *b_down; /* [ff], [ff], [d] */
    float *ffn_post_norm;          /* [d]        */
    /* A mixture of experts instead of, or (shared ones) in gate, up and down. E = n_expert, ffe its
     * n_ff. */
    ts_weight *router;                            /* [E][d]     */
    float *router_bias;                           /* [E]        */
    float *choice_bias;                           /* [E], for choosing only */
    float *b_gate_exps, *b_up_exps, *b_down_exps; /* [E][ffe] twice, [E][d] */
    ts_weight *gate_exps, *up_exps, *down_exps;   /* [E][ffe][d] twice, [E][d][ffe] */
    float *shared_gate; /* [d]: gate, up and down weigh sigmoid(x . this) */
    const ts_rope *rope;
    int64_t window; /* 0 = sees all positions */
    /* written by the plan */
    int device;       /* that does what isn't a product or attention            */
    int kv_device;    /* that holds its K and V and does attention: that one or the CPU */
    int64_t kv_index; /* among the layers whose K and V are there               */
    bool streamed;    /* weights of it are on the CPU and can be streamed                  */
    /* Of the CPU's layers that can be streamed: number among them; else -1. */
    int64_t stream_index;
} ts_layer;

typedef struct ts_model ts_model;
typedef struct ts_builder ts_builder;
typedef struct ts_loader ts_loader;

/* An architecture is one file: what to read, and the forward pass. */
typedef struct ts_arch {
    const char *name; /* general.architecture */
    void (*load)(ts_loader *ld, ts_model *m);
    void (*build)(ts_builder *b, const ts_model *m);
    bool experts; /* it may be a mixture of experts */
    /* The tensor of the norm before the feed-forward; NULL: ffn_norm. */
    const char *ffn_norm;
    bool latent; /* its K and V are latent: of different widths */
} ts_arch;

/* Rows of a tensor that are a weight by themselves: named and placed as if a tensor of the file. */
typedef struct ts_slice {
    ts_tensor t;
    char name[64];
} ts_slice;

struct ts_model {
    const ts_gguf *g;
    const ts_arch *arch;
    ts_hparams hp;
    ts_weight *token_embd;  /* [v][d], rows are looked up                        */
    ts_weight *output;      /* [v][d]; the same handle as token_embd when tied   */
    float *output_norm;     /* [d] */
    ts_rope rope, rope_swa; /* of full and of sliding layers                     */
    ts_layer *layers;       /* [n_layer] */
    ts_weight *weights;     /* [n_weights], all matrices, in file order of use   */
    size_t n_weights;
    ts_vector *vectors; /* [n_vectors], everything float the model owns      */
    size_t n_vectors;
    const ts_tensor **parts; /* [n_parts] what weights' parts point into             */
    size_t n_parts;
    ts_slice **slices; /* [n_slices] sources of weights that are a part of a fused tensor */
    size_t n_slices;
    int64_t n_params; /* elements of all tensors of the file               */
    uint64_t tensor_bytes;
};

/* Reads hyperparameters and finds every weight; n_vocab is the tokenizer's. TS_BAD_FILE,
 * TS_UNSUPPORTED, TS_NO_MEMORY; a sentence names the missing tensor or the odd value. */
ts_status ts_model_open(ts_model **out, const ts_gguf *g, int64_t n_vocab, const ts_log *log,
                        ts_error *err);
void ts_model_close(ts_model *m);

/* "llama 135M Q4_1": architecture, parameters, the type most bytes have. */
void ts_model_describe(const ts_model *m, char *buf, size_t n);

/* --- for the architecture files ------------------------------------------
 * The loader remembers the first failure; after it every call does nothing. */

struct ts_loader {
    ts_model *m;
    const ts_log *log;
    ts_error *err;
    ts_status status;
    bool *used; /* [ts_gguf_n_tensors] */
};

/* Stops the load with a sentence (unless it has failed before). */
void ts_load_fail(ts_loader *ld, ts_status code, const char *fmt, ...) TS_PRINTF(3, 4);

/* "<arch>.<key>" as integer or float. Required unless `def` is given. A per-layer array is taken if
 * all its elements agree. */
int64_t ts_load_int(ts_loader *ld, const char *key, int64_t min, int64_t max, const int64_t *def);
double ts_load_float(ts_loader *ld, const char *key, double min, double max, const double *def);

/* The hyperparameters that every dense transformer here has. Fills hp, all layers' shapes follow
 * it. */
void ts_load_common(ts_loader *ld);

/* RoPE frequencies from "<arch>.rope.*" and, if present, the tensors rope_freqs.weight or
 * rope_factors_long.weight and rope_factors_short.weight. */
void ts_load_rope(ts_loader *ld, ts_rope *r, bool neox);

double ts_load_rope_base(ts_loader *ld); /* "<arch>.rope.freq_base", 10000 without it */

/* What sliding layers turn by that are scaled as the others: m->rope_swa where the file has a base
 * for them, "<arch>.rope.freq_base_swa", else m->rope. */
const ts_rope *ts_load_rope_swa(ts_loader *ld, bool neox);

/* The same with a base of its own and no scaling. */
void ts_load_rope_plain(ts_loader *ld, ts_rope *r, bool neox, double base);

/* Rows of the first tensor whose name ends in ".OF.weight"; 0: there is none. A file's keys needn't
 * have all widths. */
int64_t ts_load_width(ts_loader *ld, const char *of);

/* The experts' hyperparameters: hp->moe with softmax, no groups and a scale of 1. Without a key for
 * their width they are as wide as the first one's tensor: files of Qwen1.5-MoE give the width of
 * all experts that a token uses, files of Mixtral that of one. */
void ts_load_moe(ts_loader *ld);

/* How experts are chosen and weighed, where the file says it: expert_gating_func (softmax if it
 * doesn't), groups, and whether the weights are divided by their sum and multiplied. */
void ts_load_gating(ts_loader *ld);

/* router, gate_exps, up_exps and down_exps of layer i: stacks, or a tensor an expert. */
void ts_load_experts(ts_loader *ld, int64_t i);

/* gate, up and down of layer i's shared expert, whose width is n. */
void ts_load_shared_expert(ts_loader *ld, int64_t i, int64_t n);

/* Tensors of block i are there for something else: nobody is told that they aren't used. */
void ts_load_ignore_block(ts_loader *ld, int64_t i);

/* Tensors by printf-style name. The shape must be [n][k] (or [n]); _opt gives NULL when absent. */
ts_weight *ts_load_mat(ts_loader *ld, int64_t n, int64_t k, const char *fmt, ...) TS_PRINTF(4, 5);
ts_weight *ts_load_mat_opt(ts_loader *ld, int64_t n, int64_t k, const char *fmt, ...)
    TS_PRINTF(4, 5);
/* [e][n][k], all of which every token meets. */
ts_weight *ts_load_stack(ts_loader *ld, int64_t e, int64_t n, int64_t k, const char *fmt, ...)
    TS_PRINTF(5, 6);
/* Rows r0..r0+n-1 of layer i's tensor `fused`, which has `all`, as a weight with the name that it
 * would have by itself. Not more than three of a tensor. */
ts_weight *ts_load_rows(ts_loader *ld, int64_t i, const char *fused, int64_t all, int64_t k,
                        const char *name, int64_t r0, int64_t n);
float *ts_load_vec(ts_loader *ld, int64_t n, const char *fmt, ...) TS_PRINTF(3, 4);
float *ts_load_vec_opt(ts_loader *ld, int64_t n, const char *fmt, ...) TS_PRINTF(3, 4);
/* [rows][n], one after another. */
float *ts_load_vecs(ts_loader *ld, int64_t rows, int64_t n, const char *fmt, ...) TS_PRINTF(4, 5);
float *ts_load_vecs_opt(ts_loader *ld, int64_t rows, int64_t n, const char *fmt, ...)
    TS_PRINTF(4, 5);

/* Which layers slide, and how far they see: "<arch>.attention.sliding_window" (`window` if it is
 * missing) and "..._pattern", one flag a layer or a count ("every n-th sees everything", `pattern`
 * if it is missing). */
void ts_load_windows(ts_loader *ld, int64_t window, int64_t pattern);

/* token_embd, output_norm, output (or the tied embedding). */
void ts_load_ends(ts_loader *ld);

/* q, k, v, o of layer i, with the biases that are there, and its RoPE. */
void ts_load_qkvo(ts_loader *ld, int64_t i);
/* The same with attn_norm and ffn_norm. */
void ts_load_attention(ts_loader *ld, int64_t i);
/* gate, up, down, with the biases that are there. */
void ts_load_ffn(ts_loader *ld, int64_t i);
/* All of a block. */
void ts_load_block(ts_loader *ld, int64_t i);

extern const ts_arch ts_arch_llama, ts_arch_qwen2, ts_arch_qwen3, ts_arch_gemma3, ts_arch_qwen3moe,
    ts_arch_olmo2, ts_arch_granite, ts_arch_gemma2, ts_arch_command_r, ts_arch_phi3,
    ts_arch_qwen2moe, ts_arch_deepseek2, ts_arch_glm4moe, ts_arch_gpt_oss;

#endif

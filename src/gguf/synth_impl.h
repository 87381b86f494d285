/* synth_impl.h - what the files of the synthetic model writer share: shapes, type mixes,
 * vocabularies. */
#ifndef TS_SYNTH_IMPL_H
#define TS_SYNTH_IMPL_H

#include "gguf/synth.h"
#include "gguf/writer.h"

typedef enum synth_arch {
    SYNTH_LLAMA,
    SYNTH_QWEN2,
    SYNTH_QWEN3,
    SYNTH_GEMMA3,
    SYNTH_QWEN3MOE,
    SYNTH_QWEN2MOE,
    SYNTH_DEEPSEEK2,
    SYNTH_OLMO2,
    SYNTH_GRANITE,
    SYNTH_GEMMA2,
    SYNTH_COMMAND_R,
    SYNTH_PHI3,
    SYNTH_GLM4MOE,
    SYNTH_GPT_OSS
} synth_arch;

typedef enum synth_rope { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_LLAMA3, ROPE_LONG } synth_rope;

typedef struct synth_shape {
    synth_arch arch;
    const char *preset;
    const char *name; /* the real model of this shape                                       */
    int32_t n_layer, d, ff;
    int32_t n_head, n_kv, hd; /* query heads, KV heads, elements of a head                  */
    int32_t n_vocab, n_ctx;   /* tokens; positions trained for                              */
    bool tied;                /* the output head is the token embedding                     */
    float eps, rope_base;
    synth_rope rope;
    float rope_factor;    /* of the scaling                                                 */
    int32_t rope_orig;    /* positions before scaling (yarn, llama3)                        */
    int32_t window;       /* of sliding layers; 0 = all layers see everything               */
    int32_t window_every; /* layer i sees everything when i % this is the last remainder; what
                             readers don't assume is written to the file                    */
    int32_t n_expert, n_used,
        ffe; /* experts, those of a token, their feed-forward width; 0: none */
} synth_shape;

/* What some mixtures of experts have besides. */
typedef struct synth_moe {
    int32_t shared; /* the shared expert's feed-forward width; 0: there is none           */
    int32_t dense;  /* blocks without experts, the first ones                             */
    int32_t nextn;  /* blocks behind the others that predict further tokens               */
    int32_t rot;    /* turned elements of a head; 0: all                                  */
    bool norms;     /* over each head of Q and K                                          */
    bool biases;    /* of every product, and sinks                                        */
} synth_moe;

/* What DeepSeek's models have besides. Their n_kv is 1 and hd what a row of K has: c + rope. */
typedef struct synth_latent {
    const char *preset;            /* the shape's                                              */
    int32_t c, qc;                 /* ranks of K's and V's latent, and of Q's; 0: Q has none   */
    int32_t rope, nope;            /* turned and other elements of Q's heads                   */
    int32_t v;                     /* elements of V's heads                                    */
    int32_t n_dense;               /* blocks without experts, the first ones                   */
    int32_t n_shared;              /* shared experts                                           */
    int32_t n_group, n_group_used; /* 0: no groups                                  */
    bool sigmoid;         /* V3's way to choose: with a bias, weights divided by their sum  */
    float scale;          /* of the weights                                                 */
    float log_multiplier; /* of YaRN                                                */
} synth_latent;

/* Factors that some families have; 0: it has none, and no key. */
typedef struct synth_factors {
    float embed, residual, attn, logit;
    float attn_cap, logit_cap;
} synth_factors;

/* How the tensors of a model get their types. */
typedef struct synth_mix {
    const char *name;   /* "Q4_K_M"                        */
    uint32_t file_type; /* general.file_type               */
    ts_type base;       /* of what no rule picks out       */
} synth_mix;

typedef enum synth_role {
    ROLE_EMBD,
    ROLE_OUTPUT,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_ROUTER,
    ROLE_LATENT, /* to and from a latent */
    ROLE_QKV,
} synth_role;

const char *synth_arch_name(synth_arch a);

/* The shape of a preset; tiny ones come in two widths, chosen by the type. */
ts_status synth_shape_find(synth_shape *out, const ts_synth_options *opt, const synth_mix *mix,
                           ts_error *err);
synth_moe synth_moe_of(const synth_shape *s);
/* NULL: K and V aren't latent. */
const synth_latent *synth_latent_of(const synth_shape *s);
synth_factors synth_factors_of(const synth_shape *s);
/* Dimensions of a head that RoPE turns. */
int synth_n_rot(const synth_shape *s);
ts_status synth_mix_find(const synth_mix **out, const char *name, ts_error *err);

/* The type of a matrix with rows of k elements. */
ts_type synth_mix_type(const synth_mix *mix, bool pure, const synth_shape *s, synth_role role,
                       int layer, int64_t k);

/* Puts the tokenizer's keys. */
ts_status synth_vocab_put(ts_writer *w, const synth_shape *s, ts_error *err);

#endif

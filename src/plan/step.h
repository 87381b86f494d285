/* step.h - the forward pass as a list of steps, made once when a model is planned.
 *
 * An architecture's build function writes it with the calls at the end of this file, one
 * operation a line. Buffers are [rows][width] floats whose rows are tokens of the micro-batch;
 * prepared activations are buffers too, of bytes.
 *
 * A step works on a DOMAIN of rows: all tokens of the micro-batch, or only those whose logits are
 * wanted (after ts_build_select). It says how threads share it: BY_ROW (thread i of n takes
 * the i-th part of the rows) or FREELY (chunks claimed from a counter; for PREP and COMBINE, thread
 * i of n takes the i-th part of all rows' elements, wherever in a row that begins). From the
 * buffers each step reads and writes follows where the threads have to meet: `barrier`. Steps by
 * row over the same domain never wait for each other.
 *
 * A step runs on one DEVICE: products where their weight lies, attention where the block's K and V
 * are, the rest where the block is. A buffer is there once on each device that touches it. Which of
 * them holds what was written last is known while the list is made, so where a step needs what
 * another device wrote, a COPY stands before it. Steps of one device without a copy between them
 * are a SEGMENT, which the device runs as a whole.
 *
 * A plan that streams has a second list behind the first, for micro-batches whose products are
 * worth bringing their weights to an accelerator: the same forward pass, with what the CPU has of
 * the layers done there. Both share the buffers. */
#ifndef TS_STEP_H
#define TS_STEP_H

#include "model/model.h"

typedef enum ts_op {
    TS_OP_EMBED,  /* dst[m][d] = rows of w * f                                        */
    TS_OP_ANGLES, /* dst[m][n_rot] = cos, sin of each position, for `rope`             */
    TS_OP_NORM,   /* dst = rms_norm(a) * vec, for each of n_heads heads of d / n_heads; what a row
                     has behind d is left alone */
    TS_OP_CENTER, /* dst = a - mean(a), for each of n_heads heads                      */
    TS_OP_PREP,   /* dst = activations a in the format and layout of `kset`           */
    TS_OP_MATMUL, /* dst[m][n] = a[m][k] * w[n][k]^T, + b where there is one          */
    TS_OP_GLU,   /* dst[m][n] = act(a * w^T) * (a * w2^T), act = silu or gelu; b: the second product
                  */
    TS_OP_BIAS,  /* dst = dst + vec                                                  */
    TS_OP_ROPE,  /* dst: n_heads heads turned in place by the angles a, from element `skip` on */
    TS_OP_STORE, /* K = a, V = b into the cache of `layer`                            */
    TS_OP_ATTEND,  /* dst = attention of a over the cache of `layer`                   */
    TS_OP_ADD,     /* dst = a + b                                                      */
    TS_OP_SILU,    /* dst = silu(a) * b                                                */
    TS_OP_GELU,    /* dst = gelu(a) * b                                                */
    TS_OP_CLAMPED, /* dst = gpt-oss's activation of a and b (cpu/ops.h, clamped_mul)   */
    TS_OP_SELECT,  /* dst[m_out] = the last m_out rows of a                            */
    TS_OP_SOFTCAP, /* dst = f * tanh(dst / f)                                          */
    TS_OP_GATE,    /* dst = dst + sigmoid(a . vec) * b, one such factor for each row   */
    /* A mixture of experts (cpu/route.h): a pair is a token with one of its experts. */
    TS_OP_ROUTE,   /* dst = each token's experts and weights, by logits a and vec      */
    TS_OP_GROUP,   /* dst = the pairs of a by experts; each thread makes it for itself */
    TS_OP_GATHER,  /* dst = as PREP makes it, each expert's rows of a together, by c   */
    TS_OP_EXPERTS, /* dst[pairs][n] = a w[expert]^T, with w2 as GLU; by c              */
    TS_OP_COMBINE, /* dst[m][d] = weighted sums of a[pairs], + b where there is one; by c */
    TS_OP_SHARE,   /* dst = those pairs of a that are the CPU's, b = the stream device's: id -1 of
                      the others (exec/run.h does it, between devices) */
    /* Latent attention (arXiv:2405.04434): w has a matrix for each of n_heads heads. */
    TS_OP_HEADS, /* dst: a head's first n elements = w[head] times the first k of a's, then what a's
                    head has behind them */
    TS_OP_COPY,  /* dst of `device` = dst of the device `from`; one of them is the CPU */
    TS_OP_COUNT,
} ts_op;

const char *ts_op_name(ts_op op);

typedef enum ts_domain { TS_ALL_ROWS, TS_OUT_ROWS } ts_domain;

typedef int ts_buf; /* index into ts_steps.bufs */
#define TS_NO_BUF (-1)

typedef struct ts_buffer {
    const char *name;
    uint32_t devices; /* bit i: device i has one */
    ts_domain domain;
    int64_t width;       /* floats a row; 0 for prepared activations                 */
    const ts_prep *prep; /* of prepared activations: the format; else NULL           */
    int64_t k;           /* of prepared activations: the largest k it is used for    */
    int64_t fixed;       /* floats besides the rows                                  */
    bool each;           /* every thread has one of its own                          */
    bool pairs;          /* of prepared activations: by expert (cpu/route.h) ...     */
    bool of_pairs;       /* ... and of rows that pairs have, not tokens              */
    bool choice;         /* SHARE's: what tokens have chosen, in part                */
} ts_buffer;

typedef struct ts_step {
    ts_op op;
    ts_domain domain;
    bool by_row;
    bool barrier; /* the threads meet before it */
    int layer;    /* -1 outside the blocks */
    int device;   /* that does it          */
    int from;     /* COPY                  */
    ts_buf dst, a, b;
    ts_buf c;      /* GATHER, EXPERTS, COMBINE: what GROUP made, by the same thread */
    bool of_pairs; /* GATHER: a has a row for each pair, in their order; else one for each token */
    /* PREP, MATMUL, GLU: another buffer of the same activations, which serves instead (of PREP's
     * dst, of a product's a) at numbers of tokens for which both have one format. */
    ts_buf like;
    int64_t d;                 /* width of a row that is worked on */
    int64_t n_heads;           /* NORM, CENTER, ROPE, ATTEND, HEADS */
    int64_t skip;              /* ROPE */
    bool each;                 /* NORM: vec has weights for each head, not the same for all */
    const ts_weight *w, *w2;   /* w2: GLU */
    ts_op act;                 /* GLU: SILU or GELU; EXPERTS: CLAMPED too */
    const float *vec;          /* ATTEND: sinks, [n_heads], or NULL */
    const float *bias, *bias2; /* EXPERTS: [e][n] each, added to what w and w2 make, or NULL */
    const ts_kset *kset;       /* PREP, GATHER and products: whose activations */
    const ts_rope *rope;
    float f;        /* EMBED: scale, SOFTCAP: cap */
    int64_t window; /* ATTEND */
} ts_step;

typedef struct ts_steps {
    ts_step *v;
    size_t n, cap;
    size_t n_main; /* steps of the first list; those of the second follow, if there is one */
    ts_buffer *bufs;
    size_t n_bufs;
    int64_t row_group;  /* rows are shared out in groups of this many (the widest prep's) ... */
    int64_t group_from; /* ... when there are at least this many                              */
    ts_buf logits;      /* [m_out][n_vocab] */
    ts_buf hidden; /* [m_out][n_embd] of which logits are made, on the output matrix's device */
} ts_steps;

/* Runs the model's build function and finds the barriers. Every weight and layer must have been
 * placed. TS_NO_MEMORY. */
ts_status ts_steps_make(ts_steps *out, const ts_model *m, ts_error *err);
/* Appends the second list: weights and layers are now placed as it has them. */
ts_status ts_steps_stream(ts_steps *s, const ts_model *m, ts_error *err);
void ts_steps_free(ts_steps *s);

/* The end of the segment that begins with step i: a copy is one by itself, and so is SHARE. No
 * segment has steps of both lists. */
size_t ts_steps_segment(const ts_steps *s, size_t i);

/* --- for the architectures ------------------------------------------------ */

/* A buffer of `width` floats for each row; the same name gives the same buffer. */
ts_buf ts_build_buf(ts_builder *b, const char *name, int64_t width);

void ts_build_layer(ts_builder *b,
                    int64_t layer); /* the steps that follow belong to it; -1 = none */
void ts_build_embed(ts_builder *b, ts_buf dst, const ts_weight *w, float scale);
/* An RMSNorm, or what makes it a LayerNorm first (hp.layer_norm). */
void ts_build_norm(ts_builder *b, ts_buf dst, ts_buf a, const float *vec);
/* In place, over each head; nothing for a model without (vec NULL). The heads share the weights, or
 * each has its own. */
void ts_build_head_norm(ts_builder *b, ts_buf x, int64_t n_heads, const float *vec);
void ts_build_each_head_norm(ts_builder *b, ts_buf x, int64_t n_heads, const float *vec);
void ts_build_matmul(ts_builder *b, ts_buf dst, ts_buf a, const ts_weight *w);
/* x = x + a w^T, without a pass over x of its own. */
void ts_build_matmul_add(ts_builder *b, ts_buf x, ts_buf a, const ts_weight *w);
/* In place; nothing for a model without (vec NULL). After all products of a group: a step by row
 * between them would make the threads meet once more. */
void ts_build_bias(ts_builder *b, ts_buf x, const float *vec);
void ts_build_rope(ts_builder *b, ts_buf x, int64_t n_heads, const ts_rope *r);
void ts_build_store(ts_builder *b, ts_buf k, ts_buf v);
void ts_build_attend(ts_builder *b, ts_buf dst, ts_buf q, int64_t window);
/* With a sink for each of n_heads heads (cpu/ops.h), or NULL. */
void ts_build_attend_sinks(ts_builder *b, ts_buf dst, ts_buf q, int64_t window, int64_t n_heads,
                           const float *sinks);
void ts_build_add(ts_builder *b, ts_buf dst, ts_buf x, ts_buf y);
/* dst = act(a gate^T + b_gate) * (a up^T + b_up), act = TS_OP_SILU or TS_OP_GELU; a bias may be
 * NULL. `second` is a buffer for the up product. */
void ts_build_glu(ts_builder *b, ts_op act, ts_buf dst, ts_buf second, ts_buf a,
                  const ts_weight *gate, const ts_weight *up, const float *b_gate,
                  const float *b_up);

/* Latent attention, whose parts between the products are where attention is. The first d elements
 * of each row of x are normed in place; element `skip` and on of each of n_heads heads are turned;
 * dst's heads are made of a's by w (TS_OP_HEADS). */
void ts_build_latent_norm(ts_builder *b, ts_buf x, int64_t d, const float *vec);
void ts_build_latent_rope(ts_builder *b, ts_buf x, int64_t n_heads, int64_t skip, const ts_rope *r);
void ts_build_heads(ts_builder *b, ts_buf dst, ts_buf a, const ts_weight *w);

/* x = x + the layer's experts of xn, the shared one's and, weighted, those chosen for each token;
 * act as in ts_build_glu. What the chosen ones want from another device is copied before the shared
 * one begins: an accelerator computes it while the CPU has the others. */
void ts_build_experts(ts_builder *b, ts_buf x, ts_buf xn, const ts_layer *l, ts_op act);

/* The whole forward pass of Llama and its kin (arch_llama.c). */
void ts_build_llama(ts_builder *b, const ts_model *m);
/* That of Gemma 2 and 3 (arch_gemma3.c). */
void ts_build_gemma(ts_builder *b, const ts_model *m);

/* From here on only the rows whose logits are wanted: returns the buffer that holds x's. */
ts_buf ts_build_select(ts_builder *b, ts_buf x);

/* output_norm, the output matrix, soft-capping: the end of every model here. */
void ts_build_logits(ts_builder *b, ts_buf x);

#endif

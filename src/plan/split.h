/* split.h - which device holds which weight and which layer.
 *
 * Device 0 is the CPU, the others are accelerators. What isn't a product of a layer, and its K and
 * V and attention unless they are kept on the CPU, is where the layer is; a weight is where its
 * layer is unless a pattern says otherwise. */
#ifndef TS_SPLIT_H
#define TS_SPLIT_H

#include "model/model.h"

#define TS_MAX_DEVICES 9

struct ts_plan;

/* What a plan has to know of a kind of accelerators. */
typedef struct ts_accel_kind {
    const char *name; /* of its kernels, in lower case: "cuda" */
    ts_isa isa;       /* of its kernel sets: CPU code that a fake runs; else TS_ISA_REF */
    /* What a weight of this type is computed by: its prep is the format of activations. No kernel
     * set here packs. */
    const ts_kset *(*kset)(ts_type type);
    /* Bytes of K and V of the device's layers for all positions. */
    size_t (*kv_bytes)(const struct ts_plan *p, int device, const ts_model *m);
    /* Bytes of what a session needs beside KV cache and buffers, and the engine beside weights. */
    size_t (*work_bytes)(struct ts_plan *p, int device, const ts_model *m);
    /* Can it compute with this stack of experts? NULL: with none. */
    bool (*experts)(const ts_moe *e, const ts_weight *w);
    /* Can it attend over latents of these widths, and has it HEADS for these stacks? NULL: over
     * none. */
    bool (*latent)(const ts_hparams *hp, const ts_weight *k_b, const ts_weight *v_b);
    /* Can weights of this kernel set of the CPU be unpacked there? NULL: it streams nothing. */
    bool (*streams)(const ts_kset *cpu);
} ts_accel_kind;

/* An accelerator as the plan sees it. */
typedef struct ts_accel {
    const char *name; /* "CUDA0"                                                    */
    int ordinal;      /* among the devices of its kind                              */
    const ts_accel_kind *kind;
    size_t memory; /* bytes that a plan and one session may take                 */
    double share;  /* of the layers that go to accelerators; all 0: by memory    */
    /* What it can do, for predictions; 0: not known. */
    double read;  /* bytes/s from its memory                                     */
    double link;  /* bytes/s from and to the CPU's                               */
    double flops; /* operations/s of BF16 products                               */
} ts_accel;

/* What goes to accelerators: the last blocks, in order and in proportion, and what may go with
 * them. */
typedef enum ts_ffn { TS_FFN_NONE, TS_FFN_DOWN, TS_FFN_ALL } ts_ffn;

typedef struct ts_placing {
    int64_t layers;
    bool output; /* the output matrix                                      */
    ts_ffn ffn;  /* feed-forward weights of the block before those         */
    /* Blocks whose experts stay on the CPU, at least: of each accelerator's the first, in
     * proportion, rounded up. */
    int64_t cpu_experts;
} ts_placing;

/* Weights whose names the pattern (PCRE2) is found in go to a device. */
typedef struct ts_override {
    const char *pattern;
    int device; /* 0 is the CPU, i the i-th accelerator */
} ts_override;

typedef struct ts_split {
    const ts_accel *accels;
    int n_accels;
    int main;                /* 0: none; else the accelerator that gets the output matrix, from 1 */
    int64_t n_gpu_layers;    /* the last so many layers; more than there are: the output too; or
                                TS_GPU_LAYERS_AUTO: what fits                                  */
    const ts_placing *below; /* with TS_GPU_LAYERS_AUTO: less than this; may be NULL        */
    bool kv_on_cpu;          /* K, V and attention of all layers                            */
    double cpu_read;         /* bytes/s of the CPU's memory, to choose by; 0: not known */
    /* Weights of experts that stay on the CPU: of the first so many layers; 0: none are asked for.
     * Patterns come after. */
    int64_t n_cpu_moe;
    const ts_override *overrides; /* the last that is found counts */
    size_t n_overrides;
    size_t stream_piece; /* bytes that weights are streamed by; 0: the default */
} ts_split;

/* Writes w->device and the layers' device, kv_device and kv_index, whatever s->n_gpu_layers is.
 * TS_BAD_ARG: a pattern is wrong or is found in no name, or there are no experts to keep. */
ts_status ts_split_place(const ts_split *s, ts_placing what, ts_model *m, ts_error *err);

/* The first accelerator that has a share of the layers, from 1. */
int ts_split_first(const ts_split *s);

/* -1, 0, 1: a is less than b, the same, more; layers count before the rest, experts come last. */
int ts_placing_compare(ts_placing a, ts_placing b);

/* Can accelerators of this kind have K, V and attention of a layer with latent attention? */
bool ts_attends_latent(const ts_accel_kind *kind, const ts_model *m, const ts_layer *l);

#endif

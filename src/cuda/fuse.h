/* fuse.h - which steps of the plan one kernel does together.
 *
 * The plan's steps are the same for every device. A GPU pays some microseconds for each kernel and
 * for each pass over memory, so what stands side by side in the list and can be one launch becomes
 * one: decided once, when the device is opened. The values are the same to the last bit. */
#ifndef TS_CUDA_FUSE_H
#define TS_CUDA_FUSE_H

#include "plan/plan.h"

typedef enum ts_cuda_does {
    TS_CUDA_STEP,      /* the step                                                              */
    TS_CUDA_NOTHING,   /* nothing: `other` does it                                              */
    TS_CUDA_NORM_PREP, /* PREP, of the norm `other` of the step's `a`                           */
    TS_CUDA_QKV_STORE, /* STORE, and biases, norms and RoPE of heads from `other` on            */
    TS_CUDA_LATENT_STORE, /* STORE, and what makes the latent and turns q from `other` on         */
    TS_CUDA_NORM_ADD,    /* ADD, of the norm `other`                                              */
    TS_CUDA_PRODUCTS,    /* MATMUL, and those after it before `other`                             */
    TS_CUDA_GLU_PREP,    /* GLU; its BF16 for the PREP `other`, if that wants BF16                */
    TS_CUDA_AFTER_GLU,   /* PREP; nothing if it is of BF16                                        */
    TS_CUDA_ATTEND_PREP, /* ATTEND; its 15 bits for the PREP `other`, if few tokens want them  */
    TS_CUDA_AFTER_ATTEND, /* PREP; nothing then                                                 */
} ts_cuda_does;

/* What a device does at a step. */
typedef struct ts_cuda_fused {
    ts_cuda_does does;
    size_t other;
} ts_cuda_fused;

/* Is a norm over heads? There may be one head alone. */
bool ts_cuda_by_heads(const ts_step *st, int64_t head_dim);

/* out[n_steps], zeroed before. */
void ts_cuda_fuse(ts_cuda_fused *out, const ts_plan *plan, int device, const ts_model *m);

#endif

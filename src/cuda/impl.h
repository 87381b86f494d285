/* impl.h - what the files of the CUDA device share. */
#ifndef TS_CUDA_IMPL_H
#define TS_CUDA_IMPL_H

#include "cuda/device.h"
#include "cuda/ops.h"

#define TS_CUDA_ALIGN 256
/* Bytes of dequantised rows that are multiplied at once; stays in a large GPU's second-level cache
 * in part, and is small beside any model. */
#define TS_CUDA_STRIP ((size_t)64 << 20)
/* What cuBLAS takes for itself. */
#define TS_CUDA_BLAS ((size_t)64 << 20)
/* Up to so many tokens are multiplied with 15-bit activations. */
#define TS_CUDA_FEW 8

static inline size_t ts_cuda_aligned(size_t n)
{
    return (n + TS_CUDA_ALIGN - 1) / TS_CUDA_ALIGN * TS_CUDA_ALIGN;
}

/* Elements of K (or V) of one layer. */
static inline size_t ts_cuda_kv_elements(const ts_plan *p, const ts_model *m)
{
    return (size_t)m->hp.n_head_kv * (size_t)p->n_ctx * (size_t)m->hp.head_dim;
}

/* Floats of the vector that a step reads: a norm's or bias's, or RoPE's frequencies. */
static inline int64_t ts_cuda_vector_floats(const ts_step *st)
{
    if (st->op == TS_OP_ANGLES)
        return st->rope->n_rot / 2;
    return st->vec ? st->d / (st->op == TS_OP_NORM ? st->n_heads : 1) : 0;
}

/* Queues that *b becomes this; batch.cu. */
int ts_cuda_set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0, void *stream);

size_t ts_cuda_vector_bytes(const ts_plan *p, int device);
size_t ts_cuda_strip_bytes(const ts_plan *p, int device);
size_t ts_cuda_attend_work(const ts_plan *p, const ts_model *m);

#endif

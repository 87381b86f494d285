/* attend.h - attention on a GPU over the KV cache of a layer (layout: ops.h).
 *
 * Query row r of a KV head = (token t, head g) with r = t * n_group + g, n_group = n_head /
 * n_head_kv; token t stands at position pos0 + t and sees positions
 * max(0, pos0 + t - window + 1) .. pos0 + t. Their K and V must have been stored.
 *
 * Both kernels multiply on tensor cores in the same way (warp_attend.h): queries times the scale
 * and the exponentials of scores are rounded to F16, sums and the softmax are F32. */
#ifndef TS_CUDA_ATTEND_H
#define TS_CUDA_ATTEND_H

#include <stddef.h>

#include "cuda/spans.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ts_cuda_attention {
    ts_cuda_rows q, o; /* n_head * head_dim floats a row, x aligned to 16 bytes, ld a multiple of 4;
                          o may be q */
    ts_cuda_kv kv;
    int64_t n_head;     /* a multiple of kv.n_head_kv                                          */
    int64_t window;     /* 0 = no limit                                                        */
    float scale;        /* multiplies q.k                                                      */
    float softcap;      /* > 0: a score s becomes softcap * tanh(s / softcap)                  */
    void *work;         /* of decode: ts_cuda_attend_bytes(), aligned to 16 bytes              */
    void *act;          /* of decode: o as activations of n_head * head_dim (quant.h), and not as
                           floats; head_dim is a multiple of 32. NULL: floats                  */
    const float *sinks; /* [n_head]: of each head one more score, of a position whose V is zero;
                           or NULL                                                             */
} ts_cuda_attention;

/* Decode: few rows, at most TS_CUDA_DECODE; of a batch with spans, those of at most so many tokens,
 * as many in one launch as have so many together. Positions are shared out in splits of a fixed
 * size, whatever the context: partial sums go to `work`, and a second kernel joins them in the
 * order of positions. Neither grid depends on positions, and the bits of a result depend neither on
 * n_ctx nor on how many rows share the launch, its own span's or others'. K and V are read once for
 * each 16 query rows of a KV head and span. */
int ts_cuda_attend_decode(const ts_cuda_on *on, const ts_cuda_attention *p);

/* Positions of a split. */
#define TS_CUDA_SPLIT 128

static inline int64_t ts_cuda_splits(const ts_cuda_kv *kv)
{
    return (kv->n_ctx + TS_CUDA_SPLIT - 1) / TS_CUDA_SPLIT;
}

/* Bytes of `work` for so many rows (on->rows); with spans for TS_CUDA_DECODE. */
static inline size_t ts_cuda_attend_bytes(const ts_cuda_kv *kv, int64_t n_head, int64_t rows)
{
    return (size_t)ts_cuda_splits(kv) * (size_t)(n_head * rows) * (size_t)(kv->head_dim + 2) *
           sizeof(float);
}

/* Prefill: any number of rows; of a batch with spans those that decode leaves, a launch each. A
 * block walks over all positions that its 64 query rows see, so a few rows after a long context
 * keep few blocks busy: those are better decoded. */
int ts_cuda_attend_prefill(const ts_cuda_on *on, const ts_cuda_attention *p);

#ifdef __cplusplus
}
#endif

#endif

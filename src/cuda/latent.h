/* latent.h - latent attention on a GPU (arXiv:2405.04434, in its absorbed form): what lies between
 * the products of a block and its output matrix. What ops.h says of pointers and launches holds.
 *
 * A position has one row of halves for all heads, of which K is all and V the first elements:
 *
 *     position p     | c elements, the normed latent | r elements, turned |      dim = c + r
 *
 * Rows lie one after the other, and there is no other copy. */
#ifndef TS_CUDA_LATENT_H
#define TS_CUDA_LATENT_H

#include <stddef.h>

#include "cuda/spans.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The largest c and c + r that attention takes; both are multiples of 8. */
enum { TS_CUDA_LATENT = 512, TS_CUDA_LATENT_ROW = 576 };

typedef struct ts_cuda_latents {
    /* [n_ctx][dim], 16-byte aligned; positions not stored yet may hold anything. Spans have pages
     * of it. */
    uint16_t *x;
    int64_t n_ctx, dim, c;
} ts_cuda_latents;

/* --- into the cache --------------------------------------------------------------------------- */

/* Rows of kv, dim floats, rounded, to where they stand. */
int ts_cuda_latent_store(const ts_cuda_on *on, ts_cuda_rows kv, const ts_cuda_latents *cache);

/* The same behind what comes before it, in one launch and with its values: the first c elements of
 * kv are normed (kv.x stays as it is), the n_rot behind them turned; and so are, in place, those of
 * each head of q from `skip` on. */
typedef struct ts_cuda_latent_qkv {
    ts_cuda_rows kv, q, cs; /* cs: angles */
    const float *norm;      /* [c]        */
    float eps;
    int64_t n_heads, head_dim, skip; /* of q */
    int64_t n_rot;                   /* r */
    bool neox;
    ts_cuda_latents cache;
} ts_cuda_latent_qkv;

int ts_cuda_latent_qkv_store(const ts_cuda_on *on, const ts_cuda_latent_qkv *p);

/* --- products by a matrix for each head ------------------------------------------------------- */

/* The widest k of few tokens' products. */
enum { TS_CUDA_HEADS_K = 1024, TS_CUDA_HEADS_TOKENS = 8 };

/* Head h of row t of y = W[h] times the first k elements of head h of row t of x, and behind these
 * n the rest of x's head. Heads of y have n + x_head - k elements, those of x x_head. */
typedef struct ts_cuda_head_mul {
    uint32_t type;     /* of the weights: a ts_type              */
    const void *w;     /* W[n_heads][n][k], as quant.h has them  */
    ts_cuda_rows x, y; /* x.x is 16-byte aligned, x.ld and x_head are any */
    int64_t n_heads, n, k, x_head;
} ts_cuda_head_mul;

/* Few tokens: weights and sums are floats, in an order that doesn't depend on the number of rows.
 * All weights are read again for each 8 rows. k is at most TS_CUDA_HEADS_K. */
int ts_cuda_heads_few(const ts_cuda_on *on, const ts_cuda_head_mul *p);

/* The rest of each head alone: the products are made otherwise. */
int ts_cuda_heads_rest(const ts_cuda_on *on, const ts_cuda_head_mul *p);

/* --- attention -------------------------------------------------------------------------------- */

/* Query row r = (token t, head h) with r = t * n_head + h sees positions 0 .. pos0 + t, which have
 * been stored. */
typedef struct ts_cuda_latent_attention {
    ts_cuda_rows q, o; /* n_head * dim and n_head * c floats a row, x aligned to 16 bytes, ld a
                          multiple of 4 */
    ts_cuda_latents kv;
    int64_t n_head;
    float scale;  /* multiplies q.k                                           */
    void *work;   /* ts_cuda_latent_bytes(), aligned to 16 bytes              */
    int64_t room; /* shared memory that a block may have; 0: what the GPU has */
} ts_cuda_latent_attention;

/* Any number of rows. Where there are too few of them to fill the GPU, positions are cut into
 * splits, in as many as that takes, and a second kernel joins their sums in the order of positions:
 * so the last bits of a result depend on how many rows of its timeline share the launch, and on the
 * GPU. They don't depend on other spans: a span is cut as if it were alone. Spans of as many rows
 * each are launched together, up to TS_CUDA_LATENT_SPANS where they are cut. No grid depends on
 * positions. */
int ts_cuda_latent_attend(const ts_cuda_on *on, const ts_cuda_latent_attention *p);

/* Blocks of a span that work at once, at most, on any GPU here, and the query rows of one. */
enum { TS_CUDA_LATENT_BLOCKS = 132, TS_CUDA_LATENT_QUERIES = 64 };

/* Spans whose partial sums there is room for. */
enum { TS_CUDA_LATENT_SPANS = 4 };

/* Bytes of `work`, for any number of rows of so many spans. */
static inline size_t ts_cuda_latent_bytes(int64_t c, int64_t spans)
{
    const int64_t most = TS_CUDA_LATENT_SPANS, n = spans < most ? spans : most;
    return (size_t)(n * TS_CUDA_LATENT_BLOCKS * TS_CUDA_LATENT_QUERIES * (c + 2)) * sizeof(float);
}

#ifdef __cplusplus
}
#endif

#endif

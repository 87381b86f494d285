/* quant.h - products with quantised weights on a GPU, and what comes before and after them.
 *
 * Weights are matrices W[n][k] as they stand in a GGUF file, uploaded unchanged. A pointer to them
 * is 256-byte aligned, and memory is readable up to the next multiple of 16 bytes behind the last
 * row: kernels read whole 16-byte pieces. Types are those of gguf/type.h; k is a multiple of the
 * type's block, and of anything for F32, F16 and BF16.
 *
 * All pointers are device pointers, and no n or k is zero. A function queues kernels on a stream (a
 * cudaStream_t) and returns 0 or the error of the launch (a cudaError_t); cudaErrorInvalidValue
 * stands for a type it doesn't know. Decode is m = 1; more tokens than 8 are taken 8 at a time, and
 * each time reads the weights again: from some dozen tokens on, ts_cuda_dequant and a matrix
 * product of halves are faster. */
#ifndef TS_CUDA_QUANT_H
#define TS_CUDA_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Activations for products with quantised weights: 15 bits, the codes and rules of cpu/prep.h.
 *
 * 32 elements are x = d * q with d = max|x| / 16256 and q = 128 h + l, h and l in a signed byte
 * each, -64 <= l < 64. The lanes of a warp read blocks side by side, so a chunk of 1024 elements is
 * five arrays of 16 bytes for each block:
 *
 *     [m][k / 1024, rounded up][5][32][16]
 *         h of elements 0..15 | h of 16..31 | l of 0..15 | l of 16..31 | ts_cuda_act
 *
 * Blocks that fill up the last chunk are undefined. */
enum { TS_CUDA_ACT_K = 1024, TS_CUDA_ACT_BYTES = 5 * 32 * 16 };

typedef struct ts_cuda_act {
    float d;
    int32_t sum[2]; /* of q: elements 0..15 and 16..31 */
    int32_t zero;
} ts_cuda_act;

static inline size_t ts_cuda_act_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)((k + TS_CUDA_ACT_K - 1) / TS_CUDA_ACT_K) * TS_CUDA_ACT_BYTES;
}

/* act = x[m][k], row stride ldx; k and ldx are multiples of 32 and 4, x and norm 16-byte aligned,
 * act 16. With norm, x / sqrt(mean(x^2) + eps) * norm[k] is what is quantised. */
int ts_cuda_prep(void *act, const float *x, int64_t ldx, const float *norm, float eps, int64_t m,
                 int64_t k, void *stream);

typedef enum ts_cuda_join {
    TS_CUDA_ONE,  /* y = W x + add       */
    TS_CUDA_SILU, /* y = silu(W x) * V x */
    TS_CUDA_GELU, /* y = gelu(W x) * V x, in the tanh form */
    /* y = g / (1 + e^(-1.702 g)) * (u + 1), g = min(W x, 7), u = V x between -7 and 7: gpt-oss
     * (arXiv:2508.10925) */
    TS_CUDA_CLAMPED,
} ts_cuda_join;

/* y[m][n] from x[m][k]; y must be none of the operands but add. */
typedef struct ts_cuda_mul {
    uint32_t type;     /* of the weights: a ts_type                                */
    ts_cuda_join join; /* which of these it is                                     */
    const void *w;     /* W[n][k]                                                  */
    const void *v;     /* V[n][k] of the same type; NULL with TS_CUDA_ONE          */
    const void *x;     /* what ts_cuda_prep made; F32, F16, BF16: float [m][ldx]   */
    int64_t ldx;       /* of float rows                                            */
    float *y;          /* [m][n], row stride ldy                                   */
    int64_t ldy;
    const float *add; /* [m][n], row stride ldadd; NULL or, with TS_CUDA_ONE, y   */
    int64_t ldadd;
    int64_t m, n, k;
    bool fresh; /* the weights are written by what is queued before */
} ts_cuda_mul;

/* One product, or up to so many with the same type, x, m and k and TS_CUDA_ONE in one launch: K and
 * V alone are too small to fill a GPU. */
#define TS_CUDA_MUL_PARTS 3
int ts_cuda_mul_run(const ts_cuda_mul *p, int parts, void *stream);

/* dst[n1 - n0][k] = rows n0..n1 of W[n][k], rounded to nearest even to BF16 or F16. dst is 16-byte
 * aligned. */
int ts_cuda_dequant(void *dst, bool bf16, uint32_t type, const void *w, int64_t n0, int64_t n1,
                    int64_t k, void *stream);

/* dst[m][k] = scale * row token[i] of W[n][k], with row stride ldd; 0 <= token[i] < n. dst is
 * 16-byte aligned and ldd a multiple of 4 when k is. */
int ts_cuda_embed(float *dst, int64_t ldd, uint32_t type, const void *w, const int32_t *token,
                  int64_t m, int64_t k, float scale, void *stream);

#ifdef __cplusplus
}
#endif

#endif

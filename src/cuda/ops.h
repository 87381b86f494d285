/* ops.h - the operations of a transformer on a GPU that are neither products nor attention.
 *
 * All pointers in here are device pointers unless said otherwise. Matrices are rows of floats with
 * a stride of their own, one row a token. A function queues kernels on a stream and returns 0 or
 * the error of the launch (a cudaError_t).
 *
 * How many rows there are, and where they stand, is read from device memory when a kernel runs:
 * its grid is made for the most there can be, so that a captured graph serves every later step of
 * the same shape. */
#ifndef TS_CUDA_OPS_H
#define TS_CUDA_OPS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What changes from one step to the next, in device memory. It is a timeline whose pages are in
 * order, or a table begins with it (spans.h). */
typedef struct ts_cuda_batch {
    int32_t m;     /* tokens                                                          */
    int32_t m_out; /* so many want logits: the last of them, where there are no spans */
    int32_t pos0;  /* position of the first, without spans; pos0 + m <= n_ctx         */
    int32_t zero;  /* sixteen bytes in all                                            */
} ts_cuda_batch;

/* What a launch is made for. */
typedef struct ts_cuda_on {
    const ts_cuda_batch *batch;
    bool out;     /* over the m_out rows whose logits are wanted, else over all m         */
    int64_t rows; /* the grid covers so many: m (or m_out) must not be larger             */
    void *stream; /* cudaStream_t                                                         */
    const struct ts_cuda_spans *spans; /* whose rows they are; NULL: one timeline's, in order */
} ts_cuda_on;

/* Rows of floats: row r begins at x + r * ld. */
typedef struct ts_cuda_rows {
    float *x;
    int64_t ld;
} ts_cuda_rows;

/* --- whole rows of d floats ------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + eps) * w; w may be NULL, y may be x. (arXiv:1910.07467) */
int ts_cuda_rms_norm(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows x, const float *w,
                     int64_t d, float eps);
/* y = x - mean(x), for each of n_heads heads of d floats; y may be x. */
int ts_cuda_center(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows x, int64_t n_heads,
                   int64_t d);
/* The end of one half of a block and the start of the next: x = x + y, or, with `post`,
 * x = x + rms_norm(y) * post; then xn = rms_norm(x) * w, unless xn.x is NULL. xn must not be x; it
 * may be y. */
int ts_cuda_add_rms_norm(const ts_cuda_on *on, ts_cuda_rows xn, ts_cuda_rows x, ts_cuda_rows y,
                         const float *post, const float *w, int64_t d, float eps);
/* y = y + vec[d] in every row. */
int ts_cuda_bias(const ts_cuda_on *on, ts_cuda_rows y, const float *vec, int64_t d);
/* y = a + b; y = silu(a) * b; y = gelu(a) * b with the tanh form. y may be a or b. */
int ts_cuda_add(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b, int64_t d);
int ts_cuda_silu_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                     int64_t d);
int ts_cuda_gelu_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                     int64_t d);
/* gpt-oss's activation: a' sigmoid(1.702 a') (b' + 1), a' = min(a, 7) and b' = b within -7..7. */
int ts_cuda_clamped_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                        int64_t d);
/* Rows [m][d] of BF16 for a matrix product, made by what comes before it, with its values: the norm
 * of x, and silu(a) * b or gelu(a) * b. All m rows are there. */
int ts_cuda_norm_bf16(void *dst, const float *x, int64_t ldx, const float *w, float eps, int64_t m,
                      int64_t d, void *stream);
int ts_cuda_glu_bf16(void *dst, bool silu, const float *a, int64_t lda, const float *b, int64_t ldb,
                     int64_t m, int64_t d, void *stream);
/* dst[n] = src[n]. src may be pinned host memory, which stays as it is until then; it is aligned to
 * 16 bytes. batch.cu. */
int ts_cuda_pull(float *dst, const float *src, int64_t n, void *stream);

/* Floats that leave for pinned host memory together; unused parts have n = 0. */
#define TS_CUDA_PUSHED 4
typedef struct ts_cuda_pushed {
    struct {
        const float *src;
        float *dst;
        int64_t n;
    } part[TS_CUDA_PUSHED];
} ts_cuda_pushed;

/* Each part's dst[n] = src[n], then *flag, pinned too, becomes `value`: who reads that there sees
 * the parts. batch.cu. */
int ts_cuda_push(const ts_cuda_pushed *p, uint32_t *flag, uint32_t value, void *stream);
/* y = y + sigmoid(a . w) * b, of rows of d: a factor for each row. None may overlap y. */
int ts_cuda_gate(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                 const float *w, int64_t d);
/* y = cap * tanh(y / cap) */
int ts_cuda_softcap(const ts_cuda_on *on, ts_cuda_rows y, float cap, int64_t d);
/* Row i of y = the i-th row of a that wants logits. on->out must be true; y must not overlap a. */
int ts_cuda_select(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, int64_t d);

/* --- heads ------------------------------------------------------------------ */

/* The largest head_dim of what follows and of attention. */
#define TS_CUDA_MAX_HEAD 256

/* cs[n_rot/2][2] of each row = cos, sin of its position times freq[i], times mscale; the product is
 * rounded to float as on the CPU. freq[n_rot/2]. */
int ts_cuda_angles(const ts_cuda_on *on, ts_cuda_rows cs, const float *freq, int64_t n_rot,
                   float mscale);

/* The KV cache of one layer. K and V are F16 and lie alike; a KV head is contiguous, position
 * after position, so that attention streams it with whole 128-byte lines:
 *
 *               position 0           position 1                  position n_ctx - 1
 *   KV head 0 | d0 d1 .. d(hd-1)   | d0 d1 .. d(hd-1)   | ...  | d0 d1 .. d(hd-1)   |
 *   KV head 1 | ...
 *
 * element (head, pos, d) at (head * n_ctx + pos) * head_dim + d; of a batch with spans, the place
 * of that position instead of pos. Positions not stored yet may hold anything. k and v are aligned
 * to 16 bytes; head_dim is a multiple of 8. */
typedef struct ts_cuda_kv {
    uint16_t *k, *v;
    int64_t n_ctx, n_head_kv, head_dim;
} ts_cuda_kv;

/* What is done to the heads of a row between their product and attention, in this order; NULL
 * leaves out a part. */
typedef struct ts_cuda_heads {
    ts_cuda_rows x; /* n_heads * head_dim floats a row                                    */
    int64_t n_heads;
    const float *bias; /* [n_heads][head_dim], added                                      */
    const float *norm; /* [head_dim], of an rms_norm over each head                       */
    int64_t norm_step; /* floats to the weights of the next head: 0, all have the same    */
    const float *cs;   /* angles, row stride ldcs                                         */
    int64_t ldcs;
} ts_cuda_heads;

typedef struct ts_cuda_qkv {
    ts_cuda_heads q, k, v; /* q ends in place; k and v in the cache, k.x and v.x stay     */
    ts_cuda_kv kv;
    int64_t n_rot; /* rotated dimensions of each head, even, at most head_dim             */
    bool neox;     /* pairs are (i, i + n_rot/2), else (2i, 2i + 1) (arXiv:2104.09864)    */
    float eps;
} ts_cuda_qkv;

/* One launch: biases, head norms and RoPE of Q, K and V, and K and V rounded into the cache, where
 * the rows stand. */
int ts_cuda_qkv_store(const ts_cuda_on *on, const ts_cuda_qkv *p);

/* Its parts by themselves, over heads of head_dim floats, in place. */
int ts_cuda_head_norm(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                      const float *w, int64_t norm_step, float eps);
/* `skip`: elements of each head before those that are turned. */
int ts_cuda_rope(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                 int64_t skip, ts_cuda_rows cs, int64_t n_rot, bool neox);
int ts_cuda_store(const ts_cuda_on *on, ts_cuda_rows k, ts_cuda_rows v, const ts_cuda_kv *kv);

#ifdef __cplusplus
}
#endif

#endif

/* attend.h - what the attention kernels of every ISA share: the walk over segments and blocks of
 * positions, the running sums, the last division. An ISA brings the function for one block.
 *
 * Online softmax (arXiv:1805.02867) in the blocking of FlashAttention (arXiv:2205.14135). Each row
 * holds the maximum m of the scores seen, l = sum exp(s - m) and acc = sum exp(s - m) * v; a block
 * that raises m scales l and acc by exp(m_old - m). */
#ifndef TS_ATTEND_H
#define TS_ATTEND_H

#include <math.h>

#include "cpu/ops.h"

#define ATTEND_BLOCK 64

typedef struct attend_walk {
    const ts_attend *p;
    int64_t rows; /* n_tokens * n_group                                                   */
    int64_t lda;  /* row stride of acc: v_dim rounded up to 16                            */
    float *acc;   /* [rows][lda] of the segment being summed                              */
    float *ml;    /* [rows][2] m and l of it                                              */
    float *q;     /* [rows][head_dim] scale * q                                           */
    float *s;     /* [rows][ATTEND_BLOCK] scores of a block                               */
    float *f;     /* [rows] what the sums of a row are multiplied by before a block is added */
} attend_walk;

/* Adds positions b + j0 .. b + j1 (0 <= j0 < j1 <= ATTEND_BLOCK, b a multiple of it) to tokens
 * t0..t1, each of which sees at least one of them. The task's other tokens see none. */
typedef void attend_block(const attend_walk *w, int64_t b, int64_t j0, int64_t j1, int64_t t0,
                          int64_t t1);

void ts_attend_run(const ts_attend *p, attend_block *block);

/* The positions of the block at b that token t sees, out of j0..j1: *lo .. *hi, block-relative. */
static inline void attend_visible(const ts_attend *p, int64_t b, int64_t t, int64_t j0, int64_t j1,
                                  int64_t *lo, int64_t *hi)
{
    int64_t pos = p->pos0 + t - b;
    *hi = pos + 1 < j1 ? pos + 1 : j1;
    *lo = p->window > 0 && p->window <= pos - j0 ? pos - p->window + 1 : j0;
}

/* What goes with it in a table: scratch for tasks of 16 tokens, and merge. */
size_t ts_attend_run_scratch(int64_t n_group, int64_t head_dim, int64_t v_dim);
void ts_attend_run_merge(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                         int64_t n_tokens, int64_t n_group, int64_t v_dim, const float *sinks);

/* What a row's sums are divided by: l, which is relative to m, and its head's sink. A row that saw
 * nothing is zero all the same. */
static inline float attend_end(float l, float m, const float *sink)
{
    return l > 0 ? 1 / (sink ? l + expf(*sink - m) : l) : 0;
}

/* The layout "f16.k16": K[pos / 16][head_dim][pos % 16], V[pos][v_dim rounded up to 16]. Its
 * strips of 16 columns are what a tile multiplies: columns are positions for K, dimensions for V.
 */
size_t ts_kv_k16_bytes(int64_t n_ctx, int64_t dim);

/* Whether a block follows the one of `block` positions at b: past the end of a part another thread
 * is at work, and what is fetched there is fetched twice. */
static inline bool attend_goes_on(const ts_attend *p, int64_t b, int64_t block)
{
    return b + block < p->k1 && b + block < p->pos0 + p->n_tokens;
}

void attend_ref(const ts_attend *p);
void attend_avx2(const ts_attend *p);
void attend_avx512(const ts_attend *p);
extern const ts_kv_layout ts_kv_ref, ts_kv_avx2;

/* With tiles (attend_amx.c), which has a walk of its own. A task should have ATTEND_AMX_ROWS query
 * rows: what it sums is then 64 KB for 128 dimensions, and each block of K and V that comes from
 * memory or the last cache meets four pairs of column tiles. */
#define ATTEND_AMX_ROWS 128
size_t attend_amx_scratch(int64_t n_group, int64_t head_dim, int64_t v_dim);
void attend_amx(const ts_attend *p);
void attend_amx_merge(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                      int64_t n_tokens, int64_t n_group, int64_t v_dim, const float *sinks);
extern const ts_kv_layout ts_kv_amx;

#endif

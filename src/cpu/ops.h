/* ops.h - the CPU operations of a transformer that are not matrix products.
 *
 * A table per ISA: `ref` is plain loops, the others replace what they can. Every function
 * is pure: rows in, rows out, no threads, no allocation. */
#ifndef TS_OPS_H
#define TS_OPS_H

#include "gguf/type.h"

/* How the attention of an ISA wants K and V of one KV head to lie in the cache. They are rounded
 * and put in their place once, by store; attention reads them there (docs/KERNELS.md). */
typedef struct ts_kv_layout {
    const char *name; /* its name in docs/KERNELS.md                                    */
    ts_type type;     /* of an element: F16 or BF16, nearest even                       */
    /* Bytes of K, or of V, of one head with n_ctx positions of `dim` elements: a multiple of 64. */
    size_t (*bytes)(int64_t n_ctx, int64_t dim);
    /* Writes position pos, head_dim elements of K and v_dim of V. Distinct positions may be stored
     * by distinct threads at once. Nothing needs to be written before: a position not stored may
     * hold anything. */
    void (*store)(void *k, void *v, int64_t pos, const float *k_row, const float *v_row,
                  int64_t head_dim, int64_t v_dim);
    /* Reads position pos, which was stored, as it was rounded. */
    void (*load)(const void *k, const void *v, int64_t pos, float *k_row, float *v_row,
                 int64_t head_dim, int64_t v_dim);
} ts_kv_layout;

/* Positions of a page: pages of the cache may lie in any order. What any layout puts together for
 * its kernels lies within one. */
#define TS_PAGE 64

/* Where position pos of a timeline lies in the cache: its page i is the cache's page map[i]; NULL:
 * they are in order. */
static inline int64_t ts_place(const int32_t *map, int64_t pos)
{
    return map ? (int64_t)map[pos / TS_PAGE] * TS_PAGE + pos % TS_PAGE : pos;
}

/* One attention task: the query heads that share one KV head, for a run of consecutive tokens, over
 * the cached positions they may see. K and V lie in the table's KV layout.
 *
 * Query row r = (token t, head g) with r = t * n_group + g; token t stands at position pos0 + t and
 * sees positions max(0, pos0 + t - window + 1) .. pos0 + t, intersected with k0..k1. */
typedef struct ts_attend {
    const float *q; /* token t, head g at q + t * ldq + g * head_dim                     */
    float *o; /* the same with ldo and v_dim: the weighted sum of V, normalised (unless part) */
    const void *k, *v;  /* of this KV head, 64-byte aligned                              */
    const int32_t *map; /* of the timeline's pages (ts_place), or NULL                  */
    int64_t ldq, ldo;
    int64_t n_tokens, n_group;
    int64_t head_dim, v_dim; /* elements of q and K; of V and o                          */
    int64_t pos0;
    int64_t k0, k1; /* only positions k0 <= p < k1 are looked at                        */
    int64_t window; /* 0 = no limit                                                    */
    float scale;    /* multiplies q.k                                                   */
    float softcap;  /* > 0: s = softcap * tanh(s / softcap)                             */
    /* [n_group], or NULL: of each head one more score, that of a position whose V is zero. It
     * belongs to a row once: parts leave it to merge. */
    const float *sinks;
    /* Not NULL: a part of a longer row. o gets the unnormalised sum, part[2*r] what the exponents
     * are relative to (the maximum, or a power of two above it), part[2*r+1] the sum of
     * exponentials; -INFINITY, 0 when no position was visible. For merge of the same table. */
    float *part;
    void *scratch; /* attend_scratch() bytes, 64-byte aligned, private to the task           */
} ts_attend;

/* Positions are summed in segments of this many (numbered from position 0), and the sums of the
 * segments are folded together from the first to the last by the arithmetic of merge.
 *
 * What is guaranteed, for finite q, k and v and within one ISA: the result of a query row depends
 * on that row, the positions it sees and k0..k1 alone - the same bits come out whichever tokens and
 * heads share its task. And a row that is cut into parts of one segment each (k0 and k1 multiples
 * of TS_ATTEND_SEGMENT, k1 - k0 equal to it) and merged has the bits of the uncut row: prefill,
 * decode and any number of threads agree. Parts cut elsewhere agree to rounding only. */
#define TS_ATTEND_SEGMENT 512

typedef struct ts_ops {
    ts_isa isa;
    /* y[d] = x[d] / sqrt(mean(x^2) + eps) * w[d]; w may be NULL. y may be x. (arXiv:1910.07467) */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t d, float eps);
    /* y[d] = x[d] - mean(x): of a LayerNorm what an RMSNorm has not. y may be x. */
    void (*center)(float *y, const float *x, int64_t d);
    /* Rotates one head in place. cs[n_rot/2][2] = cos, sin for this position. neox: pairs are
     * (i, i + n_rot/2), else (2i, 2i+1). (arXiv:2104.09864) */
    void (*rope)(float *x, const float *cs, int64_t n_rot, bool neox);
    void (*add)(float *y, const float *a, const float *b, int64_t n); /* y may be a or b    */
    void (*scale)(float *y, const float *x, float s, int64_t n);      /* y may be x         */
    void (*mad)(float *y, const float *x, float s, int64_t n);        /* y = y + x * s      */
    void (*silu_mul)(float *y, const float *g, const float *u,
                     int64_t n); /* silu(g) * u; y may be g */
    void (*gelu_mul)(float *y, const float *g, const float *u,
                     int64_t n); /* tanh form; y may be g */
    /* gpt-oss's: g' sigmoid(1.702 g') (u' + 1), where g' = min(g, 7) and u' is u within -7..7; y
     * may be g (https://github.com/openai/gpt-oss, swiglu) */
    void (*clamped_mul)(float *y, const float *g, const float *u, int64_t n);

    /* attention */
    const ts_kv_layout *kv;
    /* Query rows (tokens x n_group) that a task should have, where there are as many: each reads
     * all of K and V. */
    int64_t attend_rows;
    /* Bytes of scratch for a task of up to ts_attend_tokens tokens; doesn't depend on the context.
     */
    size_t (*attend_scratch)(int64_t n_group, int64_t head_dim, int64_t v_dim);
    /* That of amx wants the thread's tiles configured (cpu/tiles.h). */
    void (*attend)(const ts_attend *p);
    /* Joins n_parts parts of the same rows, part 0 (the lowest positions) first. A row that saw
     * nothing in any part is zero, as one is that sees nothing in a whole task.
     *
     *   po   [n_parts][rows][v_dim]: what attend wrote to o with ldo = n_group * v_dim
     *   part [n_parts][rows][2]: what it wrote to part
     *   o    as in ts_attend, row stride ldo; must not overlap po
     *   sinks as there */
    void (*merge)(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                  int64_t n_tokens, int64_t n_group, int64_t v_dim, const float *sinks);
} ts_ops;

/* The most tokens of one attention task. */
static inline int64_t ts_attend_tokens(const ts_ops *ops, int64_t n_group)
{
    int64_t n = ops->attend_rows / n_group;
    return n > 16 ? n : 16;
}

/* The widest table not wider than isa, which ts_isa_resolve has made one this machine has. */
const ts_ops *ts_ops_get(ts_isa isa);

#endif

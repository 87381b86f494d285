/* ops.h - the CPU operations of a transformer that are not matrix products.
 *
 * A table per ISA: `ref` is plain loops, `avx2` replaces what it can. Every function
 * is pure: rows in, rows out, no threads, no allocation. */
#ifndef TS_OPS_H
#define TS_OPS_H

#include "base/status.h"

/* One attention task: the query heads that share one KV head, for a run of consecutive tokens, over
 * the cached positions they may see. K and V are F16 in [pos][head_dim], contiguous.
 *
 * Query row r = (token t, head g) with r = t * n_group + g; token t stands at position pos0 + t and
 * sees positions max(0, pos0 + t - window + 1) .. pos0 + t, intersected with k0..k1. */
typedef struct ts_attend {
    const float *q; /* token t, head g at q + t * ldq + g * head_dim                     */
    float *o;       /* the same layout with ldo: the weighted sum of V, normalised (unless part) */
    const uint16_t *k, *v; /* F16 [n_ctx][head_dim] of this KV head, position 0 first    */
    int64_t ldq, ldo;
    int64_t n_tokens, n_group, head_dim;
    int64_t pos0;
    int64_t k0, k1; /* only positions k0 <= p < k1 are looked at                        */
    int64_t window; /* 0 = no limit                                                    */
    float scale;    /* multiplies q.k                                                   */
    float softcap;  /* > 0: s = softcap * tanh(s / softcap)                             */
    /* Not NULL: a part of a longer row. o gets the unnormalised sum, part[2*r] the running maximum,
     * part[2*r+1] the sum of exponentials (-INFINITY, 0 when no position was visible). */
    float *part;
    void *scratch; /* ts_attend_scratch() bytes, 64-byte aligned, private to the task        */
} ts_attend;

/* Tokens one task should take (the blocking the kernels are made for). */
#define TS_ATTEND_TOKENS 16

/* Bytes of scratch for one task of n_tokens <= TS_ATTEND_TOKENS; doesn't depend on the context. */
size_t ts_attend_scratch(int64_t n_group, int64_t head_dim);

typedef struct ts_ops {
    ts_isa isa;
    /* y[d] = x[d] / sqrt(mean(x^2) + eps) * w[d]; w may be NULL. y may be x. (arXiv:1910.07467) */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t d, float eps);
    /* Rotates one head in place. cs[n_rot/2][2] = cos, sin for this position. neox: pairs are
     * (i, i + n_rot/2), else (2i, 2i+1). (arXiv:2104.09864) */
    void (*rope)(float *x, const float *cs, int64_t n_rot, bool neox);
    void (*add)(float *y, const float *a, const float *b, int64_t n); /* y may be a or b    */
    void (*scale)(float *y, const float *x, float s, int64_t n);      /* y may be x         */
    void (*silu_mul)(float *y, const float *g, const float *u,
                     int64_t n); /* silu(g) * u; y may be g */
    void (*gelu_mul)(float *y, const float *g, const float *u,
                     int64_t n);                            /* tanh form; y may be g */
    void (*to_f16)(uint16_t *y, const float *x, int64_t n); /* nearest even         */
    void (*attend)(const ts_attend *p);
} ts_ops;

const ts_ops *ts_ops_get(ts_isa isa); /* the widest not wider than isa */

#endif

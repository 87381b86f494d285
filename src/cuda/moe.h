/* moe.h - a mixture of experts on a GPU.
 *
 * A router gives each token a number for every expert; `used` of them are chosen, each with a
 * weight, and the token's result is the weighted sum of what those make of it:
 *
 *     ts_cuda_route          which experts, and their weights
 *     few tokens   ts_cuda_expert_mul    gate and up joined, then (after ts_cuda_prep) down
 *     many tokens  ts_cuda_group         which tokens each expert has
 *                  ts_cuda_expert_gemm   gate and up joined, then down
 *     ts_cuda_expert_sum     the weighted sum
 *
 * Choice j of token t is pair t * used + j. Sorted by expert, pairs stand at places:
 *
 *     order[place] = pair     place[pair]     places offset[e] .. offset[e + 1] are expert e's
 *
 * The matrices of all experts are one stack W[e][n][k], as the GGUF file has it. What quant.h says
 * of weights and ops.h of launches holds here. No function waits for the GPU: counts that only the
 * GPU knows are read there. */
#ifndef TS_CUDA_MOE_H
#define TS_CUDA_MOE_H

#include "cuda/ops.h"
#include "cuda/quant.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TS_CUDA_EXPERTS = 512, TS_CUDA_USED = 64, TS_CUDA_EXPERT_GROUPS = 32 };

/* --- routing ------------------------------------------------------------------------------------
 */

typedef enum ts_cuda_gating {
    TS_CUDA_SOFTMAX,        /* probabilities of all experts add up to one    */
    TS_CUDA_SIGMOID,        /* each has its own (arXiv:2412.19437)           */
    TS_CUDA_SOFTMAX_CHOSEN, /* of the chosen alone; they are chosen by logit */
} ts_cuda_gating;

typedef struct ts_cuda_router {
    int32_t n_expert; /* at most TS_CUDA_EXPERTS                                              */
    int32_t n_used;   /* at most TS_CUDA_USED and n_expert                                    */
    ts_cuda_gating gating;
    const float *bias;    /* [n_expert], added to choose, not to weigh; or NULL               */
    int32_t n_group;      /* groups of neighbours that divide the experts; 0 or 1: none,      */
    int32_t n_group_used; /* at most TS_CUDA_EXPERT_GROUPS. Only the so many best have their  */
                          /* experts chosen, by the sum of their two best; these must be      */
                          /* enough experts                                                   */
    bool renorm;          /* weights are divided by their sum, or by 2^-14 if that is smaller */
    float scale;          /* and multiplied by this; 1: as they are                           */
} ts_cuda_router;

/* What tokens have chosen: choice j of token t at id[t * ld + j], its weight at weight[t * ld + j].
 * A row may hold both, as cpu/route.h has them. Sorted, a pair with a number below 0 is computed
 * elsewhere: it has no place and no part in the sum. */
typedef struct ts_cuda_chosen {
    int32_t *id;
    float *weight;
    int64_t ld;
} ts_cuda_chosen;

/* The best n_used of logits[m][n_expert] for each token, the best first, of equal ones that with
 * the lower number. NaN is worse than any number. */
int ts_cuda_route(const ts_cuda_on *on, ts_cuda_chosen to, ts_cuda_rows logits,
                  const ts_cuda_router *p);

/* offset[n_expert + 1], order[m * n_used] and place[m * n_used]. Pairs of one expert keep their
 * order. */
int ts_cuda_group(const ts_cuda_on *on, int32_t *offset, int32_t *order, int32_t *place,
                  ts_cuda_chosen chosen, int32_t n_expert, int32_t n_used);

/* out[t][d] = add[t][d] + the sum over j of the weight of choice j times y[row][d], in the order of
 * j; row is place[pair], or with place NULL the pair itself. add.x may be NULL, and may be out.x.
 */
int ts_cuda_expert_sum(const ts_cuda_on *on, ts_cuda_rows out, ts_cuda_rows add, ts_cuda_rows y,
                       ts_cuda_chosen chosen, const int32_t *place, int32_t n_used, int64_t d);

/* --- products -----------------------------------------------------------------------------------
 */

/* The matrices of a layer's experts, one stack or two that are joined. */
typedef struct ts_cuda_experts {
    uint32_t type;       /* of the weights: a ts_type                                        */
    ts_cuda_join join;   /* TS_CUDA_ONE: W alone                                             */
    const void *w, *v;   /* W[n_expert][n][k], V alike                                       */
    const float *w_bias; /* [n_expert][n], added to W x; NULL: none                          */
    const float *v_bias; /* to V x                                                           */
    int64_t n_expert, n, k;
    int32_t n_used; /* of a token                                                       */
} ts_cuda_experts;

/* For few tokens, some 8: y[pair][n] = W[id of the pair] x, joined as p->join says; x is row t
 * (gate and up) or, with by_pair, row `pair` (down) of what ts_cuda_prep made; for F32, F16 and
 * BF16 of floats with row stride ldx. A pair's sums are in an order that doesn't depend on how many
 * there are. Weights are there before whatever is queued. */
int ts_cuda_expert_mul(const ts_cuda_on *on, const ts_cuda_experts *p, ts_cuda_rows y,
                       ts_cuda_chosen chosen, const void *x, int64_t ldx, bool by_pair);

/* For many tokens: y[place][n] = W[expert of the place] x, joined as experts.join says. Sums are
 * floats, in an order that doesn't depend on other tokens; weights and x are rounded to BF16 on
 * their way: d and min of a block, too. */
typedef struct ts_cuda_expert_gemm_args {
    ts_cuda_experts experts; /* k is a multiple of 32                                         */
    const int32_t *offset;   /* [n_expert + 1]                                                */
    const int32_t *order;    /* x's row of a place is order[place] / n_used (gate and up);    */
                             /* NULL: the place (down)                                        */
    const void *x;           /* rows of BF16, 16-byte aligned                                 */
    int64_t ldx;             /* a multiple of 8                                               */
    float *y;
    int64_t ldy;
    int64_t m; /* there are at most so many tokens                              */
} ts_cuda_expert_gemm_args;

int ts_cuda_expert_gemm(const ts_cuda_expert_gemm_args *p, void *stream);

#ifdef __cplusplus
}
#endif

#endif

/* route.h - which experts a token has, and the tokens in order of experts.
 *
 * A PAIR is a token with one of its experts: pair t * used + j is token t with the j-th of those it
 * chose. Pairs stand at PLACES: in order of experts, and those of one in order of tokens. Experts
 * that have tokens are ACTIVE, and listed with the largest first.
 *
 *     chosen:                    id[m][used] (int32) weight[m][used]; id -1: a pair that another
 *                                device has, which has no place here
 *     groups:                    n_active n_single 0 0
 *                                active[E] { expert, first place, tokens, rank by number }
 *                                pair[m * used]     of each place
 *                                place[m * used]    of each pair
 *                                weight[m * used]   of each pair
 *                                single[m]          tokens that are alone with one of their experts
 *
 * in words of four bytes. No function fails; NaN is chosen like any other number. */
#ifndef TS_ROUTE_H
#define TS_ROUTE_H

#include <stdatomic.h>
#include <string.h>

#include "cpu/kset.h"
#include "model/moe.h"

typedef struct ts_active {
    int32_t expert, first, n, rank;
} ts_active;

typedef struct ts_groups {
    int32_t *n_active, *n_single;
    ts_active *active;
    int32_t *pair, *place;
    float *weight;
    int32_t *single;
} ts_groups;

/* Words of `groups`: for each token, and besides. */
static inline int64_t ts_groups_row(const ts_moe *e)
{
    return 3 * e->n_used + 1;
}

static inline int64_t ts_groups_fixed(const ts_moe *e)
{
    return 4 + 4 * e->n_expert;
}

/* The parts of `groups` for m tokens. */
static inline ts_groups ts_groups_at(void *mem, const ts_moe *e, int64_t m)
{
    int32_t *w = mem;
    ts_groups g = {.n_active = w, .n_single = w + 1, .active = (ts_active *)(w + 4)};
    w += ts_groups_fixed(e);
    g.pair = w;
    g.place = w + m * e->n_used;
    g.weight = (float *)(w + 2 * m * e->n_used);
    g.single = w + 3 * m * e->n_used;
    return g;
}

/* One token: id[used] and weight[used] from logits[E]. bias[E], or NULL, is added for choosing. Of
 * equals the first is chosen. */
void ts_route(const ts_moe *e, const float *logits, const float *bias, int32_t *id, float *weight);

/* Choices kept, of a timeline: written, or followed in place of what would be chosen. Two runs
 * whose numbers differ by rounding choose differently where two experts are nearly level, and
 * can be compared only if one follows the other. */
typedef struct ts_routing {
    int64_t n_ctx; /* positions                                                 */
    int32_t *id;   /* [n_layer][n_ctx][used], in the order in which they were chosen */
    bool follow;
    atomic_int_fast64_t differ; /* following: tokens, in a layer, whose own choice was another */
} ts_routing;

/* After ts_route of the token at pos: keeps what it chose, or puts what is to be followed in its
 * place. Threads may do this for different tokens at once. */
void ts_route_kept(const ts_moe *e, ts_routing *kept, int layer, int64_t pos, const float *logits,
                   int32_t *id, float *weight);

/* groups from what m tokens have chosen; place -1: none. */
void ts_group(const ts_moe *e, void *groups, const void *chosen, int64_t m);

/* Prepared activations by expert: first a place for each token, for those that are alone, then what
 * active expert i has, for as many tokens as it has. Bytes: of one such place, and of 16 tokens. */
static inline size_t ts_pairs_single(const ts_prep *p, int64_t k)
{
    return (p->bytes(1, k) + 63) / 64 * 64;
}

static inline size_t ts_pairs_sixteen(const ts_prep *p, int64_t k)
{
    return (p->bytes(16, k) + 63) / 64 * 64;
}

/* Where an active expert's begin, of m tokens. Experts before it take a sixteen for every 16 pairs
 * and less than one more each. */
static inline size_t ts_pairs_at(const ts_prep *p, int64_t k, int64_t m, const ts_active *a)
{
    return (size_t)m * ts_pairs_single(p, k) +
           (size_t)(a->first / 16 + a->rank) * ts_pairs_sixteen(p, k);
}

#endif

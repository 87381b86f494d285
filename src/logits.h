/* logits.h - passes over a row of logits: 150,000 numbers for each token that is made, many rows a
 * step where many generations decode together. Written so that compilers make vectors of them. */
#ifndef TS_LOGITS_H
#define TS_LOGITS_H

#include "tessera.h"

typedef struct ts_candidate {
    float logit;
    ts_token id;
} ts_candidate;

/* Where the first of the greatest of x[n] is, n >= 1. NaN becomes -infinity. */
size_t ts_logits_greatest(float *x, size_t n);

/* The k best of x[n], which has no NaN: best first, equal ones by rising id; 1 <= k <= n. */
void ts_logits_best(ts_candidate *out, size_t k, const float *x, size_t n);

/* The sum of e^(x[i] - max), to six digits; max is finite and no x[i] is greater. NaN adds nothing.
 */
double ts_logits_sum_exp(const float *x, size_t n, float max);

#endif

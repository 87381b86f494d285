/* probs.h - probabilities of tokens from logits. */
#ifndef TS_PROBS_H
#define TS_PROBS_H

#include "sched.h"

/* The natural logarithm of a token's probability (softmax, temperature 1) is its logit less max,
 * less log_sum. */
typedef struct ts_probs {
    float max;
    double log_sum;
} ts_probs;

#define TS_MAX_PROBS 20

/* Of logits[n], n >= 1. A NaN among them becomes -infinity. */
ts_probs ts_probs_of(float *logits, size_t n);
float ts_probs_log(const ts_probs *p, float logit);

/* The k greatest of the same logits[n], best first, equal ones by rising id; k <= n and at most
 * TS_MAX_PROBS. */
void ts_probs_top(const ts_probs *p, const float *logits, size_t n, ts_gen_prob *out, size_t k);

#endif

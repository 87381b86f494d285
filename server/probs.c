/* probs.c - log softmax and its best, in a few passes over a row of logits. */
#include "probs.h"

#include <math.h>

#include "logits.h"

ts_probs ts_probs_of(float *logits, size_t n)
{
    const float max = logits[ts_logits_greatest(logits, n)];
    double sum = 0;
    if (!isinf(max))
        return (ts_probs){max, log(ts_logits_sum_exp(logits, n, max))};
    for (size_t i = 0; i < n; i++) /* only those that are as great have a share */
        sum += logits[i] == max;
    return (ts_probs){max, log(sum)};
}

float ts_probs_log(const ts_probs *p, float logit)
{
    if (logit == p->max)
        return p->max == -INFINITY ? -INFINITY : (float)-p->log_sum;
    return (float)((double)logit - (double)p->max - p->log_sum);
}

void ts_probs_top(const ts_probs *p, const float *logits, size_t n, ts_gen_prob *out, size_t k)
{
    ts_candidate best[TS_MAX_PROBS];
    if (k == 0)
        return;
    ts_logits_best(best, k, logits, n);
    for (size_t i = 0; i < k; i++)
        out[i] = (ts_gen_prob){best[i].id, ts_probs_log(p, best[i].logit)};
}

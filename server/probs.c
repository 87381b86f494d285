/* probs.c - log softmax and its best, in a few passes over a row of logits. */
#include "probs.h"

#include <math.h>

ts_probs ts_probs_of(const float *logits, size_t n)
{
    float max = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    if (isinf(max)) /* only those that are as great have a share */
        for (size_t i = 0; i < n; i++)
            sum += logits[i] == max;
    else
        for (size_t i = 0; i < n; i++) {
            float w = expf(logits[i] - max);
            sum += w == w ? (double)w : 0;
        }
    return (ts_probs){max, log(sum)};
}

float ts_probs_log(const ts_probs *p, float logit)
{
    if (logit == p->max)
        return p->max == -INFINITY ? -INFINITY : (float)-p->log_sum;
    return isnan(logit) ? -INFINITY : (float)((double)logit - (double)p->max - p->log_sum);
}

static bool worse(ts_gen_prob a, ts_gen_prob b)
{
    return a.logprob < b.logprob || (a.logprob == b.logprob && a.id > b.id);
}

/* The heap h[n], the worst at its root, has x in place of what is at i. */
static void sift_down(ts_gen_prob *h, size_t n, size_t i, ts_gen_prob x)
{
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && worse(h[c + 1], h[c]))
            c++;
        if (!worse(h[c], x))
            break;
        h[i] = h[c];
    }
    h[i] = x;
}

void ts_probs_top(const ts_probs *p, const float *logits, size_t n, ts_gen_prob *out, size_t k)
{
    if (k == 0)
        return;
    /* logits while they are chosen from */
    for (size_t i = 0; i < k; i++)
        out[i] = (ts_gen_prob){(ts_token)i, isnan(logits[i]) ? -INFINITY : logits[i]};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(out, k, i, out[i]);
    for (size_t i = k; i < n; i++)
        if (logits[i] > out[0].logprob)
            sift_down(out, k, 0, (ts_gen_prob){(ts_token)i, logits[i]});
    for (size_t m = k; m > 1; m--) {
        ts_gen_prob worst = out[0];
        sift_down(out, m - 1, 0, out[m - 1]);
        out[m - 1] = worst;
    }
    for (size_t i = 0; i < k; i++)
        out[i].logprob = ts_probs_log(p, out[i].logprob);
}

/* logits.c - see logits.h. */
#include "logits.h"

#include <math.h>
#include <string.h>

/* What the baseline has vectors of. STEP numbers are looked at together, so that sums and maxima
 * needn't wait for each other. */
enum { LANES = 4, WAYS = 4, STEP = LANES * WAYS };
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t marks __attribute__((vector_size(4 * LANES))); /* -1: true, 0: false */

static lanes load(const float *x)
{
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

static lanes all_of(float x)
{
    return (lanes){x, x, x, x};
}

static lanes choose(marks m, lanes yes, lanes no)
{
    return (lanes)((m & (marks)yes) | (~m & (marks)no));
}

static bool any(marks m)
{
    return (m[0] | m[1] | m[2] | m[3]) != 0;
}

static bool any_at_least(const float *x, lanes limit)
{
    return any((load(x) >= limit) | (load(x + LANES) >= limit) | (load(x + 2 * LANES) >= limit) |
               (load(x + 3 * LANES) >= limit));
}

size_t ts_logits_greatest(float *x, size_t n)
{
    const lanes least = all_of(-INFINITY);
    lanes most[WAYS] = {least, least, least, least};
    float max = -INFINITY;
    size_t i = 0;
    for (; i + STEP <= n; i += STEP)
        for (size_t w = 0; w < WAYS; w++) {
            lanes v = load(x + i + w * LANES);
            v = choose(v == v, v, least);
            memcpy(x + i + w * LANES, &v, sizeof v);
            most[w] = choose(v > most[w], v, most[w]);
        }
    for (; i < n; i++) {
        x[i] = isnan(x[i]) ? -INFINITY : x[i];
        max = x[i] > max ? x[i] : max;
    }
    for (size_t w = 0; w < WAYS; w++)
        for (size_t j = 0; j < LANES; j++)
            max = most[w][j] > max ? most[w][j] : max;
    for (i = 0; i + STEP <= n && !any_at_least(x + i, all_of(max));)
        i += STEP;
    while (x[i] != max)
        i++;
    return i;
}

static bool worse(ts_candidate a, ts_candidate b)
{
    return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

/* Restores the heap h[n], the worst at its root, below i. */
static void sift_down(ts_candidate *h, size_t n, size_t i)
{
    ts_candidate x = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && worse(h[c + 1], h[c]))
            c++;
        if (!worse(h[c], x))
            break;
        h[i] = h[c];
    }
    h[i] = x;
}

/* One pass with a heap of k: nearly every block of logits fails a comparison with the heap's worst.
 */
void ts_logits_best(ts_candidate *h, size_t k, const float *x, size_t n)
{
    for (size_t i = 0; i < k; i++)
        h[i] = (ts_candidate){x[i], (ts_token)i};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(h, k, i);
    for (size_t i = k, end; i < n; i = end) {
        end = n - i < STEP ? n : i + STEP;
        if (end - i == STEP && !any_at_least(x + i, all_of(h[0].logit)))
            continue;
        for (; i < end; i++)
            if (x[i] > h[0].logit) {
                h[0] = (ts_candidate){x[i], (ts_token)i};
                sift_down(h, k, 0);
            }
    }
    for (size_t m = k; m > 1; m--) {
        ts_candidate worst = h[0];
        h[0] = h[m - 1];
        h[m - 1] = worst;
        sift_down(h, m - 1, 0);
    }
}

/* e^x for x <= 0, at least e^-87: x = n ln 2 + r, Taylor's series of e^r, and n into the exponent.
 * Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits. */
static lanes exp_below_0(lanes x)
{
    x = choose(x > -87, x, all_of(-87)); /* NaN too */
    const lanes t = x * 1.44269504f + 0x1.8p23f, n = t - 0x1.8p23f;
    const lanes r =
        x - n * 0x1.62ep-1f - n * 0x1.0bfbe8p-15f; /* ln 2; n times the first is exact */
    const lanes p =
        1 + r * (1 + r * (1.f / 2 + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r / 720)))));
    return (lanes)((marks)p + ((marks)t << 23));
}

/* Each is at most 1: a float holds the sum of a few. */
static double sum_step(const float *x, float max)
{
    lanes s[WAYS];
    for (size_t w = 0; w < WAYS; w++)
        s[w] = exp_below_0(load(x + w * LANES) - max);
    s[0] = (s[0] + s[1]) + (s[2] + s[3]);
    return (double)(s[0][0] + s[0][1]) + (double)(s[0][2] + s[0][3]);
}

double ts_logits_sum_exp(const float *x, size_t n, float max)
{
    double sum = 0;
    size_t i = 0;
    for (; i + STEP <= n; i += STEP)
        sum += sum_step(x + i, max);
    float rest[STEP];
    for (size_t j = 0; j < STEP; j++)
        rest[j] = i + j < n ? x[i + j] : -INFINITY;
    return sum + sum_step(rest, max);
}

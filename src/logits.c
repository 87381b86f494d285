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

static float greatest(const float *x, size_t n)
{
    const lanes least = all_of(-INFINITY);
    lanes most[WAYS] = {least, least, least, least};
    float max = -INFINITY;
    size_t i = 0;
    for (; i + STEP <= n; i += STEP)
        for (size_t w = 0; w < WAYS; w++) {
            const lanes v = load(x + i + w * LANES);
            most[w] = choose(v > most[w], v, most[w]);
        }
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (size_t w = 0; w < WAYS; w++)
        for (size_t j = 0; j < LANES; j++)
            max = most[w][j] > max ? most[w][j] : max;
    return max;
}

size_t ts_logits_greatest(float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes v = load(x + i);
        v = choose(v == v, v, all_of(-INFINITY));
        memcpy(x + i, &v, sizeof v);
    }
    for (; i < n; i++)
        x[i] = isnan(x[i]) ? -INFINITY : x[i];
    const float max = greatest(x, n);
    for (i = 0; i + STEP <= n && !any_at_least(x + i, all_of(max));)
        i += STEP;
    while (x[i] != max)
        i++;
    return i;
}

/* --- the best, sorted ---------------------------------------------------------------- */

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

static void make_heap(ts_candidate *h, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(h, n, i);
}

static void sort_heap(ts_candidate *h, size_t n)
{
    for (size_t m = n; m > 1; m--) {
        ts_candidate worst = h[0];
        h[0] = h[m - 1];
        h[m - 1] = worst;
        sift_down(h, m - 1, 0);
    }
}

static void sort(ts_candidate *h, size_t n)
{
    if (n <= 96) {
        for (size_t i = 1, j; i < n; i++) {
            const ts_candidate x = h[i];
            for (j = i; j > 0 && worse(h[j - 1], x); j--)
                h[j] = h[j - 1];
            h[j] = x;
        }
        return;
    }
    size_t i = 1;
    while (i < n && worse(h[i], h[i - 1]))
        i++;
    if (i == n) /* equal ones come sorted */
        return;
    make_heap(h, n);
    sort_heap(h, n);
}

/* One pass with a heap of k: nearly every step fails a comparison with the heap's worst. */
static void best_few(ts_candidate *h, size_t k, const float *x, size_t n)
{
    for (size_t i = 0; i < k; i++)
        h[i] = (ts_candidate){x[i], (ts_token)i};
    make_heap(h, k);
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
    sort_heap(h, k);
}

/* Buckets of falling logits, 1/256 wide: models' logits stand within a few tens. */
enum { BUCKETS = 16384 };

static size_t bucket_of(float x, float max)
{
    const float d = (max - x) * 256;
    return d < BUCKETS - 1 ? (size_t)d : BUCKETS - 1;
}

/* A heap of tens of thousands lies in no cache: buckets are filled in one pass, then sorted each
 * by itself. Of the one that k ends in, the best are found with a heap. */
static void best_many(ts_candidate *out, size_t k, const float *x, size_t n)
{
    const float max = greatest(x, n);
    uint32_t at[BUCKETS] = {0};
    size_t last = 0, before = 0, got = 0, from = 0;
    for (size_t i = 0; i < n; i++)
        at[bucket_of(x[i], max)]++;
    for (; before + at[last] < k; last++) {
        const size_t m = at[last];
        at[last] = (uint32_t)before;
        before += m;
    }
    ts_candidate *h = out + before;
    for (size_t i = 0; i < n; i++) {
        const size_t b = bucket_of(x[i], max);
        const ts_candidate c = {x[i], (ts_token)i};
        if (b < last) {
            out[at[b]++] = c;
        } else if (b == last && got < k - before) {
            h[got++] = c;
            if (got == k - before)
                make_heap(h, got);
        } else if (b == last && worse(h[0], c)) {
            h[0] = c;
            sift_down(h, got, 0);
        }
    }
    sort_heap(h, got);
    for (size_t b = 0; b < last; from = at[b++])
        sort(out + from, at[b] - from);
}

void ts_logits_best(ts_candidate *out, size_t k, const float *x, size_t n)
{
    (k > 512 ? best_many : best_few)(out, k, x, n);
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

/* test_logits.c - passes over rows of logits of every length against plain loops: ties, NaN,
 * infinities, and what stands in the last numbers. */
#include <string.h>

#include "check.h"
#include "logits.h"

#define MOST 200
#define MANY 20000

static void fill(float *x, size_t n, int kind, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = kind % 2 ? (float)(rnd_u64(seed) % 4) : 5 * rnd_normal(seed);
        if (kind >= 2 && rnd_u64(seed) % 5 == 0)
            x[i] = rnd_u64(seed) % 2 ? NAN : -INFINITY;
        if (kind >= 4 && rnd_u64(seed) % 20 == 0)
            x[i] = INFINITY;
    }
    if (kind == 6)
        for (size_t i = 0; i < n; i++)
            x[i] = NAN;
}

static void check_greatest(const float *x, size_t n)
{
    float y[MOST];
    size_t want = 0;
    memcpy(y, x, n * sizeof *x);
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[want] || isnan(x[want]))
            want = isnan(x[i]) || x[i] == -INFINITY ? want : i;
    size_t got = ts_logits_greatest(y, n);
    CHECK_MSG(got == want, "of %zu: %zu, not %zu", n, got, want);
    for (size_t i = 0; i < n; i++)
        CHECK(isnan(x[i]) ? y[i] == -INFINITY : y[i] == x[i]);
}

static int better(const void *a, const void *b)
{
    const ts_candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

static void check_best(float *x, size_t n, size_t k)
{
    static ts_candidate all[MANY], got[MANY];
    ts_logits_greatest(x, n); /* no NaN */
    for (size_t i = 0; i < n; i++)
        all[i] = (ts_candidate){x[i], (ts_token)i};
    qsort(all, n, sizeof *all, better);
    ts_logits_best(got, k, x, n);
    for (size_t i = 0; i < k; i++)
        CHECK_MSG(got[i].id == all[i].id && got[i].logit == all[i].logit,
                  "%zu of %zu of %zu: %d, not %d", i, k, n, got[i].id, all[i].id);
}

static void check_sum(const float *x, size_t n)
{
    double want = 0;
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    if (isinf(max))
        return;
    for (size_t i = 0; i < n; i++)
        want += isnan(x[i]) ? 0 : exp((double)x[i] - (double)max);
    double got = ts_logits_sum_exp(x, n, max);
    CHECK_MSG(fabs(got - want) <= 1e-6 * want, "%zu: %.9g, not %.9g", n, got, want);
}

int main(void)
{
    uint64_t seed = 1;
    for (int round = 0; round < 20; round++)
        for (size_t n = 1; n < MOST; n++) {
            float x[MOST];
            fill(x, n, round % 7, &seed);
            check_greatest(x, n);
            check_sum(x, n);
            check_best(x, n, 1 + rnd_u64(&seed) % n);
        }
    /* as many as are put into buckets: all of them, few, equal ones, far away ones */
    static float many[MANY];
    for (int round = 0; round < 28; round++) {
        size_t n = MANY - rnd_u64(&seed) % 10;
        fill(many, n, round % 7, &seed);
        for (size_t i = 0; round >= 14 && i < n; i++)
            many[i] *= round % 2 ? 1e-6f : 1e6f;
        check_best(many, n, 1025 + rnd_u64(&seed) % (n - 1025));
        check_best(many, n, 1025);
        check_best(many, n, n);
    }
    /* every distance from the greatest, to where there is nothing left */
    for (float d = 0; d < 120; d += 0.01f) {
        const float x[2] = {3, 3 - d};
        double got = ts_logits_sum_exp(x, 2, 3) - 1, want = exp((double)x[1] - 3);
        CHECK_MSG(fabs(got - want) <= 3e-7, "e^-%g: %g, not %g", (double)d, got, want);
    }
    return check_done("logits");
}

/* route.c - see route.h. */
#include "cpu/route.h"

#include <math.h>

/* The least that weights are divided by, of Qwen's and DeepSeek's code: the smallest normal half.
 */
#define LEAST_SUM 6.103515625e-5f

static void softmax(float *p, const float *x, int64_t n)
{
    float max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += p[i] = expf(x[i] - max);
    for (int64_t i = 0; i < n; i++)
        p[i] /= sum;
}

/* The first of the largest. */
static int64_t largest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* The sum of the two largest of n. */
static float two_best(const float *x, int64_t n)
{
    float a = -INFINITY, b = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > a) {
            b = a;
            a = x[i];
        } else if (x[i] > b) {
            b = x[i];
        }
    }
    return n > 1 ? a + b : a;
}

/* Leaves the best groups; of the others nothing can be chosen. */
static void limit_groups(const ts_moe *e, float *score)
{
    const int64_t n = e->n_expert / e->n_group;
    float best[TS_MAX_EXPERTS];
    bool stays[TS_MAX_EXPERTS] = {false};
    for (int64_t g = 0; g < e->n_group; g++)
        best[g] = two_best(score + g * n, n);
    for (int64_t i = 0; i < e->n_group_used; i++) {
        const int64_t g = largest(best, e->n_group);
        stays[g] = true;
        best[g] = -INFINITY;
    }
    for (int64_t i = 0; i < e->n_expert; i++)
        score[i] = stays[i / n] ? score[i] : -INFINITY;
}

/* What experts are chosen by, and weighed by later: p[E]. */
static void probabilities(const ts_moe *e, const float *logits, float *p)
{
    if (e->gating == TS_GATING_SOFTMAX)
        softmax(p, logits, e->n_expert);
    for (int64_t i = 0; i < e->n_expert && e->gating != TS_GATING_SOFTMAX; i++)
        p[i] = e->gating == TS_GATING_SIGMOID ? 1 / (1 + expf(-logits[i])) : logits[i];
}

static void weigh(const ts_moe *e, const float *p, const int32_t *id, float *weight)
{
    float sum = 0;
    for (int64_t j = 0; j < e->n_used; j++)
        sum += weight[j] = p[id[j]];
    if (e->gating == TS_GATING_CHOSEN)
        softmax(weight, weight, e->n_used);
    else if (e->renorm)
        for (int64_t j = 0; j < e->n_used; j++)
            weight[j] /= sum > LEAST_SUM ? sum : LEAST_SUM;
    for (int64_t j = 0; j < e->n_used; j++)
        weight[j] *= e->scale;
}

void ts_route(const ts_moe *e, const float *logits, const float *bias, int32_t *id, float *weight)
{
    float p[TS_MAX_EXPERTS], score[TS_MAX_EXPERTS];
    const int64_t n = e->n_expert;
    probabilities(e, logits, p);
    for (int64_t i = 0; i < n; i++)
        score[i] = bias ? p[i] + bias[i] : p[i];
    if (e->n_group_used < e->n_group)
        limit_groups(e, score);
    bool taken[TS_MAX_EXPERTS] = {false};
    for (int64_t j = 0; j < e->n_used; j++) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++)
            if (!taken[i] && (best < 0 || score[i] > score[best]))
                best = i;
        taken[best] = true;
        id[j] = (int32_t)best;
    }
    weigh(e, p, id, weight);
}

static bool among(const int32_t *id, int64_t n, int32_t x)
{
    for (int64_t j = 0; j < n; j++)
        if (id[j] == x)
            return true;
    return false;
}

void ts_route_kept(const ts_moe *e, ts_routing *kept, int layer, int64_t pos, const float *logits,
                   int32_t *id, float *weight)
{
    const int64_t used = e->n_used;
    int32_t *there = kept->id + ((int64_t)layer * kept->n_ctx + pos) * used;
    if (!kept->follow) {
        memcpy(there, id, (size_t)used * sizeof *id);
        return;
    }
    for (int64_t j = 0; j < used; j++)
        if (!among(there, used, id[j])) {
            atomic_fetch_add_explicit(&kept->differ, 1, memory_order_relaxed);
            break;
        }
    float p[TS_MAX_EXPERTS];
    probabilities(e, logits, p);
    memcpy(id, there, (size_t)used * sizeof *id);
    weigh(e, p, id, weight);
}

/* Experts with more than their share come first: what is left at the end is small. */
static int32_t list_active(const ts_moe *e, const int32_t *count, int64_t pairs, ts_active *active)
{
    int32_t large = 0, all = 0, first = 0;
    for (int64_t x = 0; x < e->n_expert; x++) {
        large += count[x] * e->n_expert > pairs;
        all += count[x] > 0;
    }
    int32_t at[2] = {large, 0}, rank = 0;
    for (int64_t x = 0; x < e->n_expert; x++) {
        if (count[x] == 0)
            continue;
        active[at[count[x] * e->n_expert > pairs]++] =
            (ts_active){(int32_t)x, first, count[x], rank++};
        first += count[x];
    }
    return all;
}

void ts_group(const ts_moe *e, void *groups, const void *chosen, int64_t m)
{
    const ts_groups g = ts_groups_at(groups, e, m);
    const int64_t pairs = m * e->n_used;
    const int32_t *id = chosen;
    int32_t count[TS_MAX_EXPERTS] = {0}, next[TS_MAX_EXPERTS];
    int64_t here = 0;
    for (int64_t i = 0; i < pairs; i++)
        if (id[i] >= 0) {
            count[id[i]]++;
            here++;
        }
    *g.n_active = list_active(e, count, here, g.active);
    for (int32_t i = 0; i < *g.n_active; i++)
        next[g.active[i].expert] = g.active[i].first;
    memcpy(g.weight, id + pairs, (size_t)pairs * sizeof *g.weight);
    *g.n_single = 0;
    for (int64_t t = 0; t < m; t++) {
        bool alone = false;
        for (int64_t i = t * e->n_used; i < (t + 1) * e->n_used; i++) {
            g.place[i] = -1;
            if (id[i] < 0)
                continue;
            g.place[i] = next[id[i]]++;
            g.pair[g.place[i]] = (int32_t)i;
            alone = alone || count[id[i]] == 1;
        }
        if (alone)
            g.single[(*g.n_single)++] = (int32_t)t;
    }
}

/* The mixture of experts of src/cuda against plain loops, on a GPU or over the stand-in: which
 * experts are chosen, the order of pairs, products with all types of weights, the sum.
 *
 *     test_cuda_moe [SEED]
 *
 * What nothing may read or write is NaN, or -1. */
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/moe.h"
#include "cuda_case.h"

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* A batch of m tokens, and launches for `more` than there are. */
struct launch {
    memory<ts_cuda_batch> batch;
    ts_cuda_on on;

    explicit launch(int64_t m, int64_t more = 2) : batch(1)
    {
        batch.host[0] = ts_cuda_batch{(int32_t)m, 0, 0, 0};
        batch.up();
        on = ts_cuda_on{batch.dev, false, m + more, NULL, NULL};
    }
};

/* --- routing ---------------------------------------------------------------------------------- */

/* The best n of score, the lower index of equal ones; of NaN none is better than another. */
static std::vector<int> best(const std::vector<double> &score, int n)
{
    std::vector<int> at(score.size());
    std::iota(at.begin(), at.end(), 0);
    std::stable_sort(at.begin(), at.end(), [&](int a, int b) {
        return score[(size_t)a] > score[(size_t)b] ||
               (std::isnan(score[(size_t)b]) && !std::isnan(score[(size_t)a]));
    });
    at.resize((size_t)n);
    return at;
}

/* One token, as the papers have it. bias is host memory. */
static void route_plainly(const float *logit, const ts_cuda_router &p, const float *bias,
                          std::vector<int> &id, std::vector<double> &weight)
{
    const size_t n = (size_t)p.n_expert;
    std::vector<double> prob(n), score;
    double max = -INFINITY, sum = 0;
    for (size_t e = 0; e < n; e++)
        max = fmax(max, logit[e]);
    for (size_t e = 0; e < n; e++)
        sum += exp((double)logit[e] - max);
    for (size_t e = 0; e < n; e++)
        prob[e] = p.gating == TS_CUDA_SIGMOID   ? 1 / (1 + exp(-(double)logit[e]))
                  : p.gating == TS_CUDA_SOFTMAX ? exp((double)logit[e] - max) / sum
                                                : (double)logit[e];
    score = prob;
    for (size_t e = 0; e < n && bias; e++)
        score[e] += bias[e];
    if (p.n_group > 1) {
        const size_t per = n / (size_t)p.n_group;
        std::vector<double> group;
        for (size_t g = 0; g < (size_t)p.n_group; g++) {
            std::vector<double> s(score.begin() + (long)(g * per),
                                  score.begin() + (long)((g + 1) * per));
            std::sort(s.rbegin(), s.rend());
            group.push_back(per > 1 ? s[0] + s[1] : s[0]);
        }
        const std::vector<int> kept = best(group, p.n_group_used);
        for (size_t e = 0; e < n; e++)
            if (std::find(kept.begin(), kept.end(), (int)(e / per)) == kept.end())
                score[e] = NAN; /* behind all others */
    }
    id = best(score, p.n_used);
    weight.clear();
    for (int e : id)
        weight.push_back(prob[(size_t)e]);
    if (p.gating == TS_CUDA_SOFTMAX_CHOSEN) {
        double top = weight[0], all = 0;
        for (double w : weight)
            top = fmax(top, w);
        for (double &w : weight)
            all += w = exp(w - top);
        for (double &w : weight)
            w /= all;
    }
    sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    for (double &w : weight)
        w = w / (p.renorm ? fmax(sum, 6.103515625e-5) : 1) * p.scale;
}

/* Logits are multiples of 1/16: some are equal, others aren't near each other. With `spread` as
 * small as that many are. */
static void test_route(int64_t m, ts_cuda_router p, bool bias, float spread)
{
    const int64_t n = p.n_expert, ld = n + 3;
    launch l(m);
    memory<float> logits((size_t)((m + 2) * ld)), b((size_t)n);
    /* Ids and weights in arrays of their own, or a row of both. */
    const int64_t ld_to = p.n_used * (bias ? 2 : 1), from = bias ? p.n_used : 0;
    memory<int32_t> id((size_t)(m * ld_to + 9));
    memory<float> weights_apart(bias ? 0 : id.host.size());
    float *to = bias ? (float *)id.dev + from : weights_apart.dev;
    for (int64_t t = 0; t < m + 2; t++)
        for (int64_t e = 0; e < n; e++)
            logits.host[(size_t)(t * ld + e)] = rintf(16 * spread * rnd_normal(&seed)) / 16;
    for (float &f : b.host)
        f = (float)rnd(0, 8) / 8;
    logits.up();
    b.up();
    p.bias = bias ? b.dev : NULL;
    must(ts_cuda_route(&l.on, ts_cuda_chosen{id.dev, to, ld_to}, ts_cuda_rows{logits.dev, ld}, &p),
         "route");
    id.down();
    weights_apart.down();
    std::vector<float> weight = weights_apart.host;
    weight.resize(id.host.size());
    if (bias)
        memcpy(weight.data(), id.host.data(), weight.size() * sizeof(float));
    int wrong = 0;
    double worst = 0;
    for (int64_t t = 0; t < m; t++) {
        std::vector<int> want;
        std::vector<double> w;
        route_plainly(&logits.host[(size_t)(t * ld)], p, bias ? b.host.data() : NULL, want, w);
        for (size_t j = 0; j < (size_t)p.n_used; j++) {
            const size_t at = (size_t)(t * ld_to) + j;
            wrong += id.host[at] != want[j];
            const double e = fabs(weight[at + (size_t)from] - w[j]) / fmax(w[j], 1e-30);
            worst = e <= worst ? worst : e; /* NaN is the worst */
        }
    }
    for (size_t i = (size_t)(m * ld_to); i < id.host.size(); i++)
        wrong += id.host[i] != -1 || !is_poison(weight[i]);
    CHECK_MSG(!wrong && worst < 3e-6, "route m=%d E=%d used=%d gating=%d groups=%d/%d: %d, %g",
              (int)m, p.n_expert, p.n_used, p.gating, p.n_group_used, p.n_group, wrong, worst);
}

static ts_cuda_router router(int n_expert, int n_used, ts_cuda_gating gating)
{
    ts_cuda_router p = {};
    p.n_expert = n_expert;
    p.n_used = n_used;
    p.gating = gating;
    p.scale = 1;
    return p;
}

static void test_routes(void)
{
    static const int shapes[][2] = {{1, 1},    {4, 2},   {5, 5},    {32, 4},   {33, 33},
                                    {128, 8},  {160, 6}, {256, 8},  {512, 64}, {64, 64},
                                    {100, 40}, {384, 8}, {511, 10}, {512, 1}};
    for (auto &s : shapes)
        for (ts_cuda_gating g : {TS_CUDA_SOFTMAX, TS_CUDA_SIGMOID, TS_CUDA_SOFTMAX_CHOSEN}) {
            ts_cuda_router p = router(s[0], s[1], g);
            test_route(5, p, false, 1.5f);
            test_route(3, p, true, 0.1f);
            p.renorm = true;
            p.scale = 2.5f;
            test_route(9, p, false, 1.0f);
        }
    static const int groups[][4] = {/* experts, used, groups, used groups */
                                    {256, 8, 8, 4}, {64, 6, 8, 3},  {16, 4, 16, 4},
                                    {12, 2, 3, 1},  {96, 5, 32, 7}, {512, 9, 2, 1}};
    for (auto &s : groups)
        for (int bias = 0; bias < 2; bias++) {
            ts_cuda_router p = router(s[0], s[1], TS_CUDA_SIGMOID);
            p.n_group = s[2];
            p.n_group_used = s[3];
            p.renorm = bias;
            test_route(21, p, bias, 1.0f);
            test_route(4, p, bias, 0.05f);
        }
}

/* Nothing is as small as the least sum weights are divided by; nor can NaN choose what isn't
 * there. */
static void test_route_odd(void)
{
    ts_cuda_router p = router(40, 4, TS_CUDA_SIGMOID);
    p.renorm = true;
    launch l(2);
    memory<float> logits(4 * 40), weight(8);
    memory<int32_t> id(8);
    for (size_t i = 0; i < 40; i++)
        logits.host[i] = i == 7 ? -20.0f : -30.0f;
    logits.up(); /* the second token's are NaN */
    must(ts_cuda_route(&l.on, ts_cuda_chosen{id.dev, weight.dev, 4}, ts_cuda_rows{logits.dev, 40},
                       &p),
         "route");
    id.down();
    weight.down();
    const double w = exp(-20.0) / 6.103515625e-5;
    CHECK_MSG(id.host[0] == 7 && fabs(weight.host[0] - w) < 1e-6 * w, "%d %g", id.host[0],
              weight.host[0]);
    for (int i = 0; i < 4; i++)
        CHECK_MSG(id.host[(size_t)(4 + i)] == i && isnan(weight.host[(size_t)(4 + i)]), "%d: %d", i,
                  id.host[(size_t)(4 + i)]);
    ts_cuda_router bad[9];
    std::fill(bad, bad + 9, p);
    bad[0].n_expert = 513;
    bad[1].n_expert = 0;
    bad[2].n_used = 0;
    bad[3].n_used = 41;
    bad[4].n_expert = 500, bad[4].n_used = 65;
    bad[5].n_group = 3, bad[5].n_group_used = 2;
    bad[6].n_group = 40, bad[6].n_group_used = 4;
    bad[7].n_group = 20, bad[7].n_group_used = 1;
    bad[8].n_group = 4, bad[8].n_group_used = 5;
    for (auto &b : bad)
        CHECK(ts_cuda_route(&l.on, ts_cuda_chosen{}, ts_cuda_rows{NULL, 0}, &b) ==
              cudaErrorInvalidValue);
}

/* --- sorting ---------------------------------------------------------------------------------- */

/* Pairs of m tokens: `used` different experts each. With `all_on` >= 0 every token has that one;
 * expert `without` is nobody's. */
static std::vector<int32_t> choose(int64_t m, int E, int used, int all_on, int without)
{
    std::vector<int32_t> id, e((size_t)E);
    std::iota(e.begin(), e.end(), 0);
    if (without >= 0 && used < E)
        e.erase(e.begin() + without);
    for (int64_t t = 0; t < m; t++) {
        for (size_t i = e.size() - 1; i > 0; i--)
            std::swap(e[i], e[(size_t)rnd(0, (int64_t)i)]);
        auto at = std::find(e.begin(), e.end(), all_on);
        if (at != e.end())
            std::swap(*at, e[0]);
        id.insert(id.end(), e.begin(), e.begin() + used);
    }
    return id;
}

/* Ids as kernels read them, `pad` words between a token's and the next one's. */
static void put_ids(memory<int32_t> &id, const std::vector<int32_t> &ids, int used, int pad)
{
    for (size_t i = 0; i < ids.size(); i++)
        id.host[i / (size_t)used * (size_t)(used + pad) + i % (size_t)used] = ids[i];
    id.up();
}

/* What ts_cuda_group should make of ids; below 0: elsewhere. */
struct sorted {
    std::vector<int32_t> offset, order, place;

    sorted(const std::vector<int32_t> &id, int E) : offset((size_t)E + 1), place(id.size(), -1)
    {
        for (size_t i = 0; i < id.size(); i++)
            if (id[i] >= 0)
                order.push_back((int32_t)i);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return id[(size_t)a] < id[(size_t)b]; });
        for (size_t i = 0; i < order.size(); i++)
            place[(size_t)order[i]] = (int32_t)i;
        for (int32_t e : id)
            if (e >= 0)
                offset[(size_t)e + 1]++;
        std::partial_sum(offset.begin(), offset.end(), offset.begin());
    }
};

static bool begins(const std::vector<int32_t> &got, const std::vector<int32_t> &want)
{
    for (size_t i = 0; i < got.size(); i++)
        if (got[i] != (i < want.size() ? want[i] : -1))
            return false;
    return true;
}

/* Every `away`-th expert is another device's. */
static void test_group(int64_t m, int E, int used, int all_on, int without, int away = 0)
{
    std::vector<int32_t> ids = choose(m, E, used, all_on, without);
    for (int32_t &e : ids)
        e = away && e % away == 0 ? -1 : e;
    const size_t n = ids.size();
    launch l(m);
    const int pad = m % 2 ? 0 : 3;
    memory<int32_t> id((size_t)((m + 2) * (used + pad))), offset((size_t)E + 3), order(n + 2);
    memory<int32_t> place(n + 2);
    std::fill(id.host.begin(), id.host.end(), 0); /* of tokens that aren't there */
    put_ids(id, ids, used, pad);
    const ts_cuda_chosen chosen = {id.dev, NULL, used + pad};
    must(ts_cuda_group(&l.on, offset.dev, order.dev, place.dev, chosen, E, used), "group");
    offset.down();
    order.down();
    place.down();
    const sorted want(ids, E);
    CHECK_MSG(begins(offset.host, want.offset) && begins(order.host, want.order) &&
                  begins(place.host, want.place),
              "group m=%d E=%d used=%d", (int)m, E, used);
}

static void test_groups(void)
{
    for (int64_t m : {1, 3, 33, 100, 700})
        for (int E : {1, 4, 5, 128})
            for (int used : {1, 2, 8})
                if (used <= E) {
                    test_group(m, E, used, -1, -1);
                    test_group(m, E, used, E - 1, 0);
                    test_group(m, E, used, -1, -1, 1 + (int)(m % 3));
                }
    test_group(2048, 64, 64, -1, -1);
    test_group(2048, 5, 1, 3, -1);
}

/* --- the sum ---------------------------------------------------------------------------------- */

static void test_sum(int64_t m, int used, int64_t d, int64_t pad, bool by_place, int add)
{
    const int64_t pairs = m * used, ld = d + pad;
    launch l(m);
    const int64_t ldw = used + pad;
    memory<float> y((size_t)(pairs * ld)), weight((size_t)(m * ldw)), out((size_t)(m * ld + 5));
    memory<float> before((size_t)(m * (ld + 4)));
    memory<int32_t> place((size_t)pairs), id((size_t)(m * ldw));
    for (int32_t &x : id.host) /* by place, some pairs are elsewhere */
        x = by_place && rnd(0, 3) == 0 ? -1 : 7;
    id.up();
    std::iota(place.host.begin(), place.host.end(), 0);
    for (size_t i = place.host.size() - 1; i > 0; i--)
        std::swap(place.host[i], place.host[(size_t)rnd(0, (int64_t)i)]);
    auto fill = [&](memory<float> &mem, int64_t rows, int64_t n, int64_t stride) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++)
                mem.host[(size_t)(r * stride + i)] = rnd_normal(&seed);
        mem.up();
    };
    fill(y, pairs, d, ld);
    fill(weight, m, used, ldw);
    fill(before, m, d, ld + 4);
    if (add == 2)
        fill(out, m, d, ld);
    place.up();
    const std::vector<float> was = out.host;
    ts_cuda_rows a = {add == 1 ? before.dev : add == 2 ? out.dev : NULL, add == 1 ? ld + 4 : ld};
    must(ts_cuda_expert_sum(&l.on, ts_cuda_rows{out.dev, ld}, a, ts_cuda_rows{y.dev, ld},
                            ts_cuda_chosen{id.dev, weight.dev, ldw}, by_place ? place.dev : NULL,
                            used, d),
         "sum");
    out.down();
    double worst = 0;
    bool intact = true;
    for (int64_t i = 0; i < (int64_t)out.host.size(); i++) {
        const int64_t t = i / ld, c = i % ld;
        if (t >= m || c >= d) {
            intact = intact && is_poison(out.host[(size_t)i]);
            continue;
        }
        double sum = add == 1 ? before.host[(size_t)(t * (ld + 4) + c)] : add ? was[(size_t)i] : 0;
        for (int64_t p = t * used; p < (t + 1) * used; p++)
            sum += id.host[(size_t)(t * ldw + p % used)] < 0
                       ? 0
                       : (double)weight.host[(size_t)(t * ldw + p % used)] *
                             y.host[(size_t)((by_place ? place.host[(size_t)p] : p) * ld + c)];
        const double e = fabs(out.host[(size_t)i] - sum);
        worst = e <= worst ? worst : e;
    }
    CHECK_MSG(intact && worst < 2e-6 * used, "sum m=%d used=%d d=%d: %g", (int)m, used, (int)d,
              worst);
}

static void test_sums(void)
{
    int which = 0;
    for (int64_t m : {1, 7, 33})
        for (int used : {1, 2, 8, 64})
            for (int64_t d : {5, 64, 516, 1030}) {
                test_sum(m, used, d, which % 4, which % 2, which % 3);
                which++;
            }
}

/* --- products --------------------------------------------------------------------------------- */

/* The experts of a layer and, in double precision, what they make of a row. */
struct stack {
    weights w, v;
    memory<float> w_bias, v_bias;
    std::vector<float> wf, vf; /* [E * n][k] */
    ts_cuda_experts p;
    int64_t n, k;

    stack(ts_type type, int E, int used, int64_t n_, int64_t k_, ts_cuda_join join, bool bias)
        : w(type, E * n_, k_), v(type, join == TS_CUDA_ONE ? 0 : E * n_, k_),
          w_bias((size_t)(E * n_)), v_bias((size_t)(E * n_)), wf((size_t)(E * n_ * k_)),
          vf((size_t)(v.n * k_)), n(n_), k(k_)
    {
        for (int64_t i = 0; i < w.n; i++)
            w.row(i, &wf[(size_t)(i * k)]);
        for (int64_t i = 0; i < v.n; i++)
            v.row(i, &vf[(size_t)(i * k)]);
        for (memory<float> *b : {&w_bias, &v_bias}) {
            for (float &f : b->host)
                f = rnd_normal(&seed);
            b->up();
        }
        p = ts_cuda_experts{};
        p.type = type;
        p.join = join;
        p.w = w.mem.dev;
        p.v = v.mem.dev;
        p.w_bias = bias ? w_bias.dev : NULL;
        p.v_bias = bias && v.n ? v_bias.dev : NULL;
        p.n_expert = E;
        p.n = n;
        p.k = k;
        p.n_used = used;
    }

    /* How large x must be for W x to be about 3, where gates bend and are cut off. */
    float spread(void) const
    {
        double sum = 0;
        for (float f : wf)
            sum += (double)f * f;
        return (float)(3 / sqrt(sum / (double)w.n + 1e-12));
    }

    /* y[n] of expert e. energy: what y[i]^2 may be expected to be, by which errors are measured. */
    void make(int64_t e, const float *x, double *y, double *energy) const
    {
        for (int64_t r = e * n; r < (e + 1) * n; r++) {
            double g = 0, u = 0, gg = 0, uu = 0;
            for (int64_t i = 0; i < k; i++) {
                const double a = (double)wf[(size_t)(r * k + i)] * x[i];
                const double b = v.n ? (double)vf[(size_t)(r * k + i)] * x[i] : 0;
                g += a, gg += a * a, u += b, uu += b * b;
            }
            g += p.w_bias ? w_bias.host[(size_t)r] : 0;
            u += p.v_bias ? v_bias.host[(size_t)r] : 0;
            if (p.join == TS_CUDA_CLAMPED) {
                g = fmin(g, 7);
                u = fmin(fmax(u, -7), 7) + 1;
            }
            const double z = p.join == TS_CUDA_SILU   ? g
                             : p.join == TS_CUDA_GELU ? 1.5957691216 * (g + 0.044715 * g * g * g)
                                                      : 1.702 * g;
            *y++ = p.join == TS_CUDA_ONE ? g : g / (1 + exp(-z)) * u;
            *energy++ = p.join == TS_CUDA_ONE ? gg : gg * uu;
        }
    }
};

/* Rows of floats that end where their memory ends, NaN between them. */
struct rows {
    int64_t n, ld;
    memory<float> mem;

    rows(int64_t m, int64_t n_, int64_t pad, float spread)
        : n(n_), ld(n_ + pad), mem((size_t)(m * ld - pad))
    {
        for (int64_t t = 0; t < m && spread > 0; t++)
            for (int64_t i = 0; i < n; i++)
                *at(t, i) = spread * rnd_normal(&seed);
        mem.up();
    }
    float *at(int64_t t, int64_t i)
    {
        return &mem.host[(size_t)(t * ld + i)];
    }
};

/* Sums up how far outputs are from what they should be. */
struct errors {
    double num = 0, den = 0;
    bool intact = true;

    void add(const float *y, const double *want, const double *energy, int64_t n)
    {
        for (int64_t i = 0; i < n; i++) {
            num += isfinite(y[i]) ? (y[i] - want[i]) * (y[i] - want[i]) : INFINITY;
            den += fmax(want[i] * want[i], energy[i]);
        }
    }
    double nmse(void) const
    {
        return num > 0 ? num / den : 0;
    }
};

#define CASE "%s m=%d E=%d used=%d n=%d k=%d join=%d bias=%d: %g%s"
#define CASE_OF(s, m, e)                                                                           \
    ts_type_get((s).p.type)->name, (int)(m), (int)(s).p.n_expert, (s).p.n_used, (int)(s).n,        \
        (int)(s).k, (s).p.join, (s).p.w_bias != NULL, (e).nmse(), (e).intact ? "" : ", elsewhere"

static void test_mul(const stack &s, int64_t m, bool by_pair, int64_t pad)
{
    const int E = (int)s.p.n_expert, used = s.p.n_used;
    const int64_t pairs = m * used, x_rows = by_pair ? pairs : m;
    launch l(m);
    const std::vector<int32_t> ids = choose(m, E, used, rnd(0, 3) ? -1 : E - 1, 0);
    memory<int32_t> id(ids.size() + (size_t)(m * pad));
    put_ids(id, ids, used, (int)pad);
    rows x(x_rows, s.k, pad, s.spread()), y(pairs + 2 * used, s.n, 3, 0);
    const bool floats = is_float((ts_type)s.p.type);
    memory<uint8_t> act(floats ? 0 : ts_cuda_act_bytes(x_rows, s.k));
    if (!floats)
        must(ts_cuda_prep(act.dev, x.mem.dev, x.ld, NULL, 0, x_rows, s.k, NULL), "prep");
    must(ts_cuda_expert_mul(&l.on, &s.p, ts_cuda_rows{y.mem.dev, y.ld},
                            ts_cuda_chosen{id.dev, NULL, used + pad},
                            floats ? (const void *)x.mem.dev : act.dev, x.ld, by_pair),
         "expert_mul");
    y.mem.down();
    errors e;
    std::vector<double> want((size_t)s.n), energy((size_t)s.n);
    for (int64_t i = 0; i < pairs; i++) {
        s.make(ids[(size_t)i], x.at(by_pair ? i : i / used, 0), want.data(), energy.data());
        e.add(y.at(i, 0), want.data(), energy.data(), s.n);
    }
    for (int64_t i = 0; i < (int64_t)y.mem.host.size(); i++)
        if (i / y.ld >= pairs || i % y.ld >= s.n)
            e.intact = e.intact && is_poison(y.mem.host[(size_t)i]);
    CHECK_MSG(e.nmse() < (floats ? 1e-12 : 1e-6) && e.intact, CASE, CASE_OF(s, m, e));
}

static const ts_cuda_join joins[] = {TS_CUDA_ONE, TS_CUDA_SILU, TS_CUDA_GELU, TS_CUDA_CLAMPED};

static int64_t some_k(ts_type type, int which)
{
    static const int64_t k[3][4] = {
        {256, 768, 1280, 512}, {32, 224, 1056, 2080}, {8, 100, 264, 1032}};
    const int block = ts_type_get(type)->block;
    return k[block == 256 ? 0 : block == 32 ? 1 : 2][which % 4];
}

static void test_muls(ts_type type)
{
    static const int shapes[][2] = {{1, 1}, {4, 2}, {5, 5}, {128, 3}, {4, 4}, {5, 1}, {128, 8}};
    static const int64_t ns[] = {1, 33, 6, 17};
    int which = (int)type;
    for (auto &shape : shapes)
        for (int64_t m : {1, 2, 3, 7, 8}) {
            stack s(type, shape[0], shape[1], shape[0] == 128 ? 5 : ns[which % 4],
                    some_k(type, which), joins[which % 5 % 4], which / 2 % 2);
            test_mul(s, m, which % 3 == 1, which % 2 * 4);
            which++;
        }
    stack s(type, 3, 2, 9, some_k(type, 2), TS_CUDA_SILU, false);
    if (is_float(type))
        test_mul(s, 2, false, 1); /* rows that aren't 16-byte aligned */
    stack tall(type, 2, 1, 4099, some_k(type, 3), TS_CUDA_ONE, true); /* warps don't share rows */
    test_mul(tall, 2, true, 0);
}

/* --- products of many tokens ------------------------------------------------------------------ */

/* Rows of BF16 as rows has floats, which become what was rounded. */
static std::vector<uint16_t> halves_of(rows &x)
{
    std::vector<uint16_t> h(x.mem.host.size(), 0xffff);
    for (size_t i = 0; i < h.size(); i++)
        if (!is_poison(x.mem.host[i])) {
            h[i] = ts_f32_to_bf16(x.mem.host[i]);
            x.mem.host[i] = ts_bf16_to_f32(h[i]);
        }
    return h;
}

/* All behind n and `count` rows must have stayed. */
static std::vector<float> outputs(rows &y, int64_t count, errors &e)
{
    y.mem.down();
    for (size_t i = 0; i < y.mem.host.size(); i++) {
        const bool mine = (int64_t)i / y.ld < count && (int64_t)i % y.ld < y.n;
        e.intact = e.intact && (mine || is_poison(y.mem.host[i]));
    }
    return std::vector<float>(y.mem.host.begin(), y.mem.host.end());
}

/* d and min of a block and weights may each be rounded to BF16. */
static double limit_of(const stack &s)
{
    return s.p.type == TS_TYPE_BF16 ? 1e-11 : s.p.join == TS_CUDA_ONE ? 3e-5 : 6e-5;
}

/* Order or places. With `without` an expert has no tokens. */
static void test_gemm(const stack &s, int64_t m, int all_on, int without, bool down)
{
    const int E = (int)s.p.n_expert, used = s.p.n_used;
    const int64_t pairs = m * used, more = 3;
    const std::vector<int32_t> ids = choose(m, E, used, all_on, without);
    const sorted by_expert(ids, E);
    memory<int32_t> offset((size_t)E + 1), order((size_t)pairs);
    offset.host = by_expert.offset;
    order.host = by_expert.order;
    offset.up();
    order.up();
    rows x(down ? pairs : m, s.k, m % 3 * 8, s.spread()), y(pairs + more, s.n, m % 2 ? 3 : 4, 0);
    memory<uint16_t> xh(x.mem.host.size());
    xh.host = halves_of(x);
    xh.up();
    ts_cuda_expert_gemm_args a = {};
    a.experts = s.p;
    a.offset = offset.dev;
    a.order = down ? NULL : order.dev;
    a.x = xh.dev;
    a.ldx = x.ld;
    a.y = y.mem.dev;
    a.ldy = y.ld;
    a.m = m + 1;
    must(ts_cuda_expert_gemm(&a, NULL), "expert_gemm");
    errors e;
    std::vector<float> out = outputs(y, pairs, e);
    std::vector<double> want((size_t)s.n), energy((size_t)s.n);
    for (int64_t i = 0; i < pairs; i++) {
        const int32_t pair = by_expert.order[(size_t)i];
        s.make(ids[(size_t)pair], x.at(down ? i : pair / used, 0), want.data(), energy.data());
        e.add(&out[(size_t)(i * y.ld)], want.data(), energy.data(), s.n);
    }
    CHECK_MSG(e.nmse() < limit_of(s) && e.intact, CASE, CASE_OF(s, m, e));
}

static void test_gemms(ts_type type)
{
    static const int shapes[][2] = {{4, 2}, {1, 1}, {5, 5}, {128, 3}, {5, 1}};
    static const int64_t ns[] = {70, 9, 132, 33, 1}, ms[] = {9, 1, 33, 2, 100, 3, 17, 8, 7};
    const int block = ts_type_get(type)->block;
    /* Chunks are 256 elements, or 64, or 128; steps are 64, of which the last may be half. */
    const int64_t of_256[] = {256, 512, 768}, others[] = {32, 288, 640, 96};
    int which = (int)type;
    for (int i = 0; i < 9; i++, which++) {
        const int *shape = shapes[which % 5];
        stack s(type, shape[0], shape[1], shape[0] == 128 ? 6 : ns[(which + i / 5) % 5],
                block == 256 ? of_256[which % 3] : others[which % 4], joins[which % 4],
                which / 2 % 2);
        const int one = which % 3 ? -1 : shape[0] - 1;
        test_gemm(s, ms[i], one, shape[0] / 2, which % 2);
    }
}

int main(int argc, char **argv)
{
    if (!have_gpu()) {
        printf("no GPU: skipped\n");
        return 77;
    }
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    printf("seed 0x%llx\n", (unsigned long long)seed);
    test_routes();
    test_route_odd();
    test_groups();
    test_sums();
    for (ts_type type : all_types)
        test_muls(type), test_gemms(type);
    launch l(1);
    ts_cuda_experts unknown = {};
    unknown.type = 9;
    unknown.n_expert = unknown.n_used = 1;
    unknown.n = unknown.k = 32;
    const ts_cuda_rows none = {NULL, 32};
    CHECK(ts_cuda_expert_mul(&l.on, &unknown, none, ts_cuda_chosen{}, NULL, 32, false) ==
          cudaErrorInvalidValue);
    unknown.n_used = 0;
    CHECK(ts_cuda_expert_mul(&l.on, &unknown, none, ts_cuda_chosen{}, NULL, 32, false) ==
          cudaErrorInvalidValue);
    ts_cuda_expert_gemm_args gemm = {};
    gemm.experts = unknown;
    gemm.ldx = 32;
    gemm.m = 1;
    CHECK(ts_cuda_expert_gemm(&gemm, NULL) == cudaErrorInvalidValue); /* none used */
    gemm.experts.n_used = 1;
    CHECK(ts_cuda_expert_gemm(&gemm, NULL) == cudaErrorInvalidValue); /* the type */
    gemm.experts.type = TS_TYPE_BF16;
    gemm.experts.k = 40;
    CHECK(ts_cuda_expert_gemm(&gemm, NULL) == cudaErrorInvalidValue);
    gemm.experts.k = gemm.ldx = 32768;
    gemm.experts.n = 32769;
    CHECK(ts_cuda_expert_gemm(&gemm, NULL) == cudaErrorInvalidValue);
    return check_done("cuda_moe");
}

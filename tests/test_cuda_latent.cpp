/* Latent attention of src/cuda against loops in double precision, on a GPU or over the stand-in.
 * Memory that nothing should be read from or written to is poisoned with NaN: around rows, between
 * them, positions that aren't in the cache. Rows that the batch doesn't have hold numbers. */
#include <cmath>

#include "cuda/latent.h"
#include "cuda_case.h"
#include "cuda_spans.h"

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* m rows of d floats and MORE that the batch doesn't have. spread 0: an output, all poison. */
enum { MORE = 2, BEFORE = 16 };

struct table {
    int64_t m, d, ld;
    memory<float> mem;

    table(int64_t m_, int64_t d_, int64_t pad, float spread)
        : m(m_), d(d_), ld(d_ + pad), mem((size_t)(BEFORE + (m_ + MORE) * (d_ + pad)))
    {
        for (int64_t r = 0; r < m + MORE && spread > 0; r++)
            for (int64_t i = 0; i < d; i++)
                at(r, i) = spread * rnd_normal(&seed);
        mem.up();
    }
    float &at(int64_t r, int64_t i)
    {
        return mem.host[(size_t)(BEFORE + r * ld + i)];
    }
    ts_cuda_rows rows(void)
    {
        return ts_cuda_rows{mem.dev + BEFORE, ld};
    }
};

/* The batch in device memory and a launch whose grid has `more` rows than that. */
struct launch {
    memory<ts_cuda_batch> batch;
    ts_cuda_on on;

    launch(int64_t m, int64_t m_out, int64_t pos0, bool out, int64_t more) : batch(1)
    {
        batch.host[0] = ts_cuda_batch{(int32_t)m, (int32_t)m_out, (int32_t)pos0, 0};
        batch.up();
        on = ts_cuda_on{batch.dev, out, (out ? m_out : m) + more, NULL, NULL};
    }
};

/* y's rows are want[m][d] to `limit` times the energy of each `part` of them; all else in y is as
 * `before` had it. */
static void agree(const char *what, table &y, const std::vector<float> &before,
                  const std::vector<double> &want, int64_t part, double limit)
{
    y.mem.down();
    double worst = 0;
    for (int64_t i = 0; i < y.m * y.d; i += part) {
        double num = 0, den = 0;
        for (int64_t j = i; j < i + part; j++) {
            const double x = y.at(j / y.d, j % y.d), w = want[(size_t)j];
            num += std::isfinite(x) ? (x - w) * (x - w) : INFINITY;
            den += w * w;
        }
        const double e = num > 0 ? num / den : 0;
        worst = e > worst ? e : worst;
    }
    CHECK_MSG(worst <= limit, "%s: m=%d d=%d nmse=%g", what, (int)y.m, (int)y.d, worst);
    size_t outside = 0;
    for (size_t i = 0; i < before.size(); i++) {
        const int64_t r = ((int64_t)i - BEFORE) / y.ld, e = ((int64_t)i - BEFORE) % y.ld;
        if ((int64_t)i >= BEFORE && r < y.m && e < y.d)
            continue;
        outside += memcmp(&before[i], &y.mem.host[i], sizeof(float)) != 0;
    }
    CHECK_MSG(outside == 0, "%s: m=%d d=%d writes %zu values outside", what, (int)y.m, (int)y.d,
              outside);
}

/* --- a matrix for each head ------------------------------------------------------------------- */

static void test_heads(ts_type type, int64_t heads, int64_t n, int64_t k, int64_t rest, int64_t m,
                       bool out)
{
    weights w(type, heads * n, k);
    const int64_t x_head = k + rest, y_head = n + rest;
    table x(m, heads * x_head, rnd(0, 1) * 4, 1), y(m, heads * y_head, rnd(0, 5), 0);
    std::vector<double> want((size_t)(m * heads * y_head));
    std::vector<float> row((size_t)k);
    for (int64_t i = 0; i < heads * n; i++) {
        w.row(i, row.data());
        for (int64_t t = 0; t < m; t++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += (double)row[(size_t)j] * x.at(t, i / n * x_head + j);
            want[(size_t)(t * y.d + i / n * y_head + i % n)] = sum;
        }
    }
    for (int64_t t = 0; t < m; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t j = 0; j < rest; j++)
                want[(size_t)(t * y.d + h * y_head + n + j)] = x.at(t, h * x_head + k + j);
    launch l(out ? m + 3 : m, m, 5, out, rnd(0, MORE));
    const ts_cuda_head_mul p = {(uint32_t)type, w.mem.dev, x.rows(), y.rows(), heads, n, k, x_head};
    const std::vector<float> before = y.mem.host;
    must(ts_cuda_heads_few(&l.on, &p), "heads_few");
    char what[120];
    snprintf(what, sizeof what, "heads %s, %d of %d x %d and %d", ts_type_get(type)->name,
             (int)heads, (int)n, (int)k, (int)rest);
    /* a row that nearly cancels errs as much as one that doesn't */
    agree(what, y, before, want, y.d, 1e-11);
    /* the rest alone, exactly */
    table z(m, heads * y_head, 3, 0);
    ts_cuda_head_mul q = p;
    q.y = z.rows();
    must(ts_cuda_heads_rest(&l.on, &q), "heads_rest");
    z.mem.down();
    size_t wrong = 0;
    for (int64_t t = 0; t < m + MORE; t++)
        for (int64_t i = 0; i < z.d; i++)
            wrong += t < m && i % y_head >= n ? z.at(t, i) != (float)want[(size_t)(t * z.d + i)]
                                              : !is_poison(z.at(t, i));
    CHECK_MSG(wrong == 0, "%s: %zu of the rest wrong", what, wrong);
}

static void test_all_heads(void)
{
    int i = 0;
    for (ts_type type : all_types) {
        const bool wide = ts_type_get(type)->block == 256;
        static const int64_t tokens[] = {1, 2, 3, 5, 8, 11};
        for (int j = 0; j < 6; j++, i++) {
            const int64_t k = wide ? 256 * (1 + j % 3) : j == 0 ? 128 : j == 1 ? 512 : 32 * (j + 1);
            test_heads(type, 1 + i % 3, j == 2 ? 32 : rnd(1, 70), k, j % 2 ? rnd(1, 40) : 0,
                       tokens[(i + j) % 6], i % 5 == 0);
        }
    }
    test_heads(TS_TYPE_F32, 2, 33, 45, 3, 4, false); /* widths of no type of blocks */
    test_heads(TS_TYPE_F16, 3, 7, 3, 5, 9, false);
    for (int j = 0; j < 6; j++) /* behind the last head there is nothing that counts */
        test_heads(TS_TYPE_F16, 1 + j % 2, 9, 13, 0, 1 + j, false);
    test_heads(TS_TYPE_BF16, 2, 130, 1022, 2, 3, true);
    test_heads(TS_TYPE_Q8_0, 2, 40, TS_CUDA_HEADS_K, 64, 8, false);
}

/* --- into the cache --------------------------------------------------------------------------- */

struct cache {
    int64_t n_ctx, c, r;
    memory<uint16_t> x;

    cache(int64_t n_ctx_, int64_t c_, int64_t r_)
        : n_ctx(n_ctx_), c(c_), r(r_), x((size_t)(n_ctx_ * (c_ + r_)))
    {
    }
    ts_cuda_latents latents(void)
    {
        return ts_cuda_latents{x.dev, n_ctx, c + r, c};
    }
    uint16_t &at(int64_t pos, int64_t d)
    {
        return x.host[(size_t)(pos * (c + r) + d)];
    }
};

/* These places hold want[m][c + r] as halves, or neighbours of them; no others hold anything. */
static void check_stored(const char *what, cache &c, const std::vector<double> &want,
                         const std::vector<int64_t> &place, bool exact)
{
    const int64_t dim = c.c + c.r, m = (int64_t)place.size();
    double num = 0, den = 0;
    size_t wrong = 0, outside = 0;
    c.x.down();
    for (int64_t i = 0; i < m * dim; i++) {
        uint16_t &g = c.at(place[(size_t)(i / dim)], i % dim);
        const double w = want[(size_t)i], e = ts_f16_to_f32(g) - w;
        wrong += g != ts_f32_to_f16((float)w);
        num += std::isfinite(e) ? e * e : INFINITY;
        den += w * w;
        g = 0xffff;
    }
    for (uint16_t g : c.x.host)
        outside += g != 0xffff;
    CHECK_MSG(exact ? wrong == 0 : num <= 2e-7 * den, "%s: %zu differ, nmse=%g", what, wrong,
              num / den);
    CHECK_MSG(outside == 0, "%s: writes %zu values outside", what, outside);
}

/* v[n] and what it is when n_rot of it are turned. */
static void turn(std::vector<double> &v, size_t at, int64_t n_rot, bool neox, table &cs, int64_t t)
{
    for (int64_t j = 0; j < n_rot / 2; j++) {
        double &a = v[at + (size_t)(neox ? j : 2 * j)];
        double &b = v[at + (size_t)(neox ? j + n_rot / 2 : 2 * j + 1)];
        const double a0 = a, c = cs.at(t, 2 * j), s = cs.at(t, 2 * j + 1);
        a = a0 * c - b * s;
        b = a0 * s + b * c;
    }
}

/* Rows go to these places of a cache of n_ctx. */
static void test_store(const ts_cuda_on *on, const std::vector<int64_t> &place, int64_t n_ctx,
                       int64_t c, int64_t r, int64_t heads, int64_t skip, bool neox)
{
    const int64_t m = (int64_t)place.size(), hd = skip + r + rnd(0, 1) * 4;
    table kv(m, c + r, rnd(0, 3), 2), q(m, heads * hd, rnd(0, 3), 2), cs(m, r, rnd(0, 3), 1);
    memory<float> norm((size_t)c);
    for (float &x : norm.host)
        x = rnd_normal(&seed);
    norm.up();
    std::vector<double> as_is, made, turned;
    for (int64_t t = 0; t < m; t++) {
        double sum = 0;
        for (int64_t i = 0; i < c; i++)
            sum += (double)kv.at(t, i) * kv.at(t, i);
        const double f = 1 / sqrt(sum / (double)c + 1e-5);
        for (int64_t i = 0; i < c + r; i++) {
            as_is.push_back(kv.at(t, i));
            made.push_back(i < c ? kv.at(t, i) * f * norm.host[(size_t)i] : kv.at(t, i));
        }
        turn(made, made.size() - (size_t)r, r, neox, cs, t);
        for (int64_t i = 0; i < heads * hd; i++)
            turned.push_back(q.at(t, i));
        for (int64_t h = 0; h < heads; h++)
            turn(turned, (size_t)((t * heads + h) * hd + skip), r, neox, cs, t);
    }
    cache plain(n_ctx, c, r), fused(n_ctx, c, r);
    const ts_cuda_latents to = plain.latents();
    must(ts_cuda_latent_store(on, kv.rows(), &to), "latent_store");
    check_stored("latent_store", plain, as_is, place, true);
    const ts_cuda_latent_qkv p = {kv.rows(), q.rows(), cs.rows(), norm.dev, 1e-5f,          heads,
                                  hd,        skip,     r,         neox,     fused.latents()};
    const std::vector<float> q_before = q.mem.host, kv_before = kv.mem.host;
    must(ts_cuda_latent_qkv_store(on, &p), "latent_qkv_store");
    check_stored("latent_qkv_store", fused, made, place, false);
    agree("latent_qkv_store: q", q, q_before, turned, hd, 1e-12);
    kv.mem.down();
    CHECK(memcmp(kv.mem.host.data(), kv_before.data(), kv_before.size() * sizeof(float)) == 0);
}

/* Sizes and beginnings of timelines: some of one token, some short, some long. */
static std::vector<std::pair<int64_t, int64_t>> some_spans(int64_t n, int64_t longest)
{
    std::vector<std::pair<int64_t, int64_t>> v;
    for (int64_t i = 0; i < n; i++)
        v.push_back({rnd(0, 1) ? 1 : rnd(1, rnd(0, 2) ? 9 : longest), rnd(0, 300)});
    return v;
}

static void test_stores(void)
{
    for (int i = 0; i < 16; i++) {
        const int64_t c = 8 * rnd(1, i % 3 ? 12 : 64), r = 2 * rnd(1, 32);
        const int64_t heads = rnd(1, i % 4 ? 5 : 40), skip = rnd(0, 40);
        if (i < 12) {
            const int64_t m = rnd(1, 12), pos0 = rnd(0, 9);
            launch l(m, 1, pos0, false, rnd(0, MORE));
            std::vector<int64_t> place;
            for (int64_t j = 0; j < m; j++)
                place.push_back(pos0 + j);
            test_store(&l.on, place, pos0 + m + rnd(0, 3), c, r, heads, skip, i % 2);
        } else {
            company some(some_spans(rnd(1, 5), 20), 0, &seed);
            const ts_cuda_on on = some.on(false);
            test_store(&on, some.place, some.n_ctx, c, r, heads, skip, i % 2);
        }
    }
}

/* --- attention -------------------------------------------------------------------------------- */

typedef struct attend_case {
    int64_t m, pos0, heads, c, r;
    int64_t room;
} attend_case;

static void test_attend(const attend_case &a, float spread)
{
    const int64_t dim = a.c + a.r, n = a.pos0 + a.m;
    table q(a.m, a.heads * dim, 4 * rnd(0, 2), spread), o(a.m, a.heads * a.c, 4 * rnd(0, 2), 0);
    cache kv(n + rnd(0, 1) * rnd(0, 80), a.c, a.r);
    const float scale = 1 / sqrtf((float)dim);
    for (int64_t p = 0; p < n; p++)
        for (int64_t d = 0; d < dim; d++)
            kv.at(p, d) = ts_f32_to_f16(rnd_normal(&seed));
    kv.x.up();
    std::vector<float> x((size_t)(n * dim));
    for (size_t i = 0; i < x.size(); i++)
        x[i] = ts_f16_to_f32(kv.x.host[i]);
    std::vector<double> want;
    for (int64_t t = 0; t < a.m; t++)
        for (int64_t h = 0; h < a.heads; h++) {
            std::vector<double> s, y((size_t)a.c, 0.0);
            double max = -INFINITY, sum = 0;
            for (int64_t p = 0; p <= a.pos0 + t; p++) {
                double dot = 0;
                for (int64_t d = 0; d < dim; d++)
                    dot += (double)q.at(t, h * dim + d) * x[(size_t)(p * dim + d)];
                s.push_back(dot * scale);
                max = s.back() > max ? s.back() : max;
            }
            for (int64_t p = 0; p <= a.pos0 + t; p++) {
                const double w = exp(s[(size_t)p] - max);
                sum += w;
                for (int64_t d = 0; d < a.c; d++)
                    y[(size_t)d] += w * x[(size_t)(p * dim + d)];
            }
            for (double v : y)
                want.push_back(v / sum);
        }
    launch l(a.m, 1, a.pos0, false, rnd(0, MORE));
    memory<uint8_t> work(ts_cuda_latent_bytes(a.c, 1));
    const ts_cuda_latent_attention p = {q.rows(), o.rows(), kv.latents(), a.heads,
                                        scale,    work.dev, a.room};
    const std::vector<float> before = o.mem.host;
    must(ts_cuda_latent_attend(&l.on, &p), "latent_attend");
    char what[120];
    snprintf(what, sizeof what, "latent attention of %d heads, c %d, r %d, from %d, room %d",
             (int)a.heads, (int)a.c, (int)a.r, (int)a.pos0, (int)a.room);
    /* queries and weights are rounded to halves: 2^-12 each */
    agree(what, o, before, want, a.c, 2e-6 * spread * spread);
}

static void test_attention(void)
{
    static const int64_t small = 99 << 10; /* shared memory of GPUs of 8.6 and 8.9 */
    /* narrow, with one split and with several; rows that end within a block's */
    for (int i = 0; i < 10; i++)
        test_attend(
            {rnd(1, i % 2 ? 40 : 3), rnd(0, 150), rnd(1, 20), 8 * rnd(1, 12), 8 * rnd(0, 4), 0}, 1);
    test_attend({1, 0, 1, 64, 16, 0}, 1);
    test_attend({64, 0, 16, 96, 16, 0}, 1);
    test_attend({5, 1000, 4, 112, 16, 0}, 1);
    test_attend({2, 300, 8, 96, 32, 0}, 5);
    /* the real width, few and many rows, as GPUs with less shared memory do it, too */
    test_attend({1, 200, 16, 512, 64, 0}, 1);
    test_attend({1, 64, 16, 512, 64, small}, 1);
    test_attend({1, 450, 128, 512, 64, 0}, 1);
    test_attend({3, 31, 16, 512, 64, 0}, 1);
    test_attend({3, 100, 16, 512, 64, small}, 3);
    test_attend({9, 40, 20, 256, 32, 0}, 1);
    test_attend({7, 61, 128, 512, 64, 0}, 1);
    test_attend({2, 33, 5, 120, 64, 0}, 1);
    test_attend({70, 3, 7, 512, 64, small}, 1);
}

/* Timelines of these sizes and beginnings in one batch: each row has the bits that it has when its
 * timeline is alone and its pages are in order. */
static void test_attend_spans(const std::vector<std::pair<int64_t, int64_t>> &sizes, int64_t heads,
                              int64_t c, int64_t r, int64_t room)
{
    company some(sizes, 0, &seed);
    const int64_t dim = c + r;
    const float scale = 1 / sqrtf((float)dim);
    table q(some.m, heads * dim, 4 * rnd(0, 2), 1), o(some.m, heads * c, 4 * rnd(0, 2), 0);
    cache kv(some.n_ctx, c, r);
    std::vector<float> expected = o.mem.host;
    const size_t bytes = (size_t)(heads * c) * sizeof(float);
    for (const timeline &t : some.of) {
        table one(t.m, heads * dim, 0, 1), to(t.m, heads * c, 0, 0);
        cache own(t.end(), c, r);
        for (int64_t i = 0; i < t.m * heads * dim; i++)
            one.at(i / (heads * dim), i % (heads * dim)) =
                q.at(t.r0 + i / (heads * dim), i % (heads * dim));
        one.mem.up();
        for (int64_t i = 0; i < t.end() * dim; i++)
            own.at(i / dim, i % dim) = kv.at(t.place(i / dim), i % dim) =
                ts_f32_to_f16(rnd_normal(&seed));
        own.x.up();
        launch l(t.m, 1, t.pos0, false, 0);
        memory<uint8_t> work(ts_cuda_latent_bytes(c, 1));
        const ts_cuda_latent_attention p = {one.rows(), to.rows(), own.latents(), heads,
                                            scale,      work.dev,  room};
        must(ts_cuda_latent_attend(&l.on, &p), "latent_attend");
        to.mem.down();
        for (int64_t i = 0; i < t.m; i++)
            memcpy(&expected[(size_t)(BEFORE + (t.r0 + i) * o.ld)], &to.at(i, 0), bytes);
    }
    kv.x.up();
    const ts_cuda_on on = some.on(false);
    memory<uint8_t> work(ts_cuda_latent_bytes(c, (int64_t)sizes.size()));
    const ts_cuda_latent_attention p = {q.rows(), o.rows(), kv.latents(), heads,
                                        scale,    work.dev, room};
    must(ts_cuda_latent_attend(&on, &p), "latent_attend");
    o.mem.down();
    size_t other = 0;
    for (int64_t i = 0; i < some.m; i++)
        other += memcmp(&expected[(size_t)(BEFORE + i * o.ld)], &o.at(i, 0), bytes) != 0;
    CHECK_MSG(other == 0, "%zu of %d rows of %zu spans have other bits than alone, %d heads, c %d",
              other, (int)some.m, sizes.size(), (int)heads, (int)c);
    CHECK(!memcmp(expected.data(), o.mem.host.data(), expected.size() * sizeof(float)));
}

static void test_spans(void)
{
    static const int64_t small = 99 << 10;
    /* more of one token each than there is room for sums of; all lengths at once */
    test_attend_spans({{1, 200}, {1, 64}, {1, 0}, {1, 63}, {1, 500}, {1, 130}}, 16, 64, 16, 0);
    test_attend_spans({{1, 900}, {1, 31}}, 16, 512, 64, 0);
    test_attend_spans({{1, 70}, {1, 31}, {2, 100}}, 128, 512, 64, small);
    test_attend_spans({{1, 100}, {3, 20}, {1, 129}, {40, 30}, {3, 64}}, 40, 96, 16, 0);
    test_attend_spans({{130, 70}, {130, 0}, {130, 3}, {130, 1}, {130, 64}}, 7, 64, 8, 0);
    for (int i = 0; i < 8; i++)
        test_attend_spans(some_spans(rnd(1, 6), 30), rnd(1, 20), 8 * rnd(1, 12), 8 * rnd(0, 4), 0);
}

/* What no kernel takes is an error, and nothing is written. */
static void test_refused(void)
{
    table q(1, 1200, 0, 1), o(1, 1200, 0, 0);
    cache kv(4, 592, 8);
    launch l(1, 1, 0, false, 0);
    memory<uint8_t> work(64), w(4096);
    static const int64_t bad[][2] = {{592, 600}, {512, 584}, {12, 16}, {16, 20}, {24, 16}, {0, 8}};
    for (const auto &b : bad) {
        const ts_cuda_latent_attention p = {
            q.rows(), o.rows(), ts_cuda_latents{kv.x.dev, 4, b[1], b[0]}, 1, 1, work.dev, 0};
        CHECK_MSG(ts_cuda_latent_attend(&l.on, &p) != 0, "c %d of %d", (int)b[0], (int)b[1]);
    }
    ts_cuda_head_mul p = {TS_TYPE_F32, w.dev, q.rows(), o.rows(), 1, 1, TS_CUDA_HEADS_K + 8, 1100};
    CHECK(ts_cuda_heads_few(&l.on, &p) != 0);
    p.k = 8;
    p.x_head = 4;
    CHECK(ts_cuda_heads_few(&l.on, &p) != 0 && ts_cuda_heads_rest(&l.on, &p) != 0);
    p.x_head = 8;
    p.type = 999;
    CHECK(ts_cuda_heads_few(&l.on, &p) != 0);
    o.mem.down();
    for (float f : o.mem.host)
        CHECK(is_poison(f));
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
    test_all_heads();
    test_stores();
    test_attention();
    test_spans();
    test_refused();
    return check_done("cuda_latent");
}

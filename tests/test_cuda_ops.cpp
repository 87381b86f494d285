/* The operations and the attention of src/cuda against loops in double precision, on a GPU or over
 * the stand-in. Memory that nothing should be read from or written to is poisoned with NaN: around
 * rows, between them, rows the batch doesn't have, positions that aren't in the cache. */
#include <string.h>

#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "cuda/attend.h"
#include "cuda/quant.h"
#include "cuda/standin.h"

extern "C" {
#include "gguf/type.h"
}

static uint64_t seed = 1;

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* --- device memory ---------------------------------------------------------------------------- */

static void must(int e, const char *what)
{
    CHECK_MSG(e == 0, "%s: %s", what, cudaGetErrorString((cudaError_t)e));
    if (e)
        exit(1);
}

#include "cuda_spans.h"

/* n values in device memory and as the host knows them. All bits of what isn't set are ones. */
template <class T> struct memory {
    std::vector<T> host;
    T *dev = NULL;

    explicit memory(size_t n) : host(n + !n)
    {
        memset(host.data(), 0xff, host.size() * sizeof(T));
        must(cudaMalloc(&dev, host.size() * sizeof(T)), "cudaMalloc");
        up();
    }
    memory(const memory &) = delete;
    memory &operator=(const memory &) = delete;
    ~memory()
    {
        must(cudaFree(dev), "cudaFree");
    }
    void up(void)
    {
        must(cudaMemcpy(dev, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "up");
    }
    std::vector<T> down(void) const
    {
        std::vector<T> v(host.size());
        must(cudaDeviceSynchronize(), "kernel");
        must(cudaMemcpy(v.data(), dev, v.size() * sizeof(T), cudaMemcpyDeviceToHost), "down");
        return v;
    }
};

/* m rows of d floats among poison: before the first and past each. Behind them, MORE rows that the
 * batch doesn't have hold numbers where there are any, so that one sees who works on them. */
enum { MORE = 3 };

struct matrix {
    int64_t m, d, ld, before;
    memory<float> mem;

    /* Without spread: an output, all of it a NaN that no operation makes. */
    matrix(int64_t m_, int64_t d_, int64_t pad, float spread)
        : m(m_), d(d_), ld(d_ + pad), before(16), mem((size_t)(16 + (m_ + MORE) * (d_ + pad)))
    {
        static const uint32_t out = 0xffc0beef;
        for (int64_t r = 0; r < m + MORE && spread > 0; r++)
            for (int64_t i = 0; i < d; i++)
                at(r, i) = spread * rnd_normal(&seed);
        for (size_t i = 0; i < mem.host.size() && spread <= 0; i++)
            memcpy(&mem.host[i], &out, sizeof out);
        mem.up();
    }
    float &at(int64_t r, int64_t i)
    {
        return mem.host[(size_t)(before + r * ld + i)];
    }
    ts_cuda_rows rows(void)
    {
        return ts_cuda_rows{mem.dev + before, ld};
    }
};

/* A vector in device memory. */
struct vec {
    memory<float> mem;

    explicit vec(int64_t n) : mem((size_t)n)
    {
        for (auto &x : mem.host)
            x = rnd_normal(&seed);
        mem.up();
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

/* Rows 0..n of y are want[n][d] to an NMSE of limit for each `part` of them; all else has kept its
 * bits. */
static void agree(const char *what, matrix &y, int64_t n, const std::vector<double> &want,
                  int64_t part, double limit)
{
    const std::vector<float> got = y.mem.down();
    const int64_t d = y.d;
    double worst = 0;
    for (int64_t i = 0; i < n * d; i += part) {
        double num = 0, den = 0;
        for (int64_t j = i; j < i + part; j++) {
            const double x = got[(size_t)(y.before + j / d * y.ld + j % d)], w = want[(size_t)j];
            num += std::isfinite(x) ? (x - w) * (x - w) : INFINITY;
            den += w * w;
        }
        const double e = num > 0 ? num / den : 0;
        worst = e > worst ? e : worst;
    }
    CHECK_MSG(worst <= limit, "%s m=%d d=%d nmse=%g", what, (int)n, (int)d, worst);
    size_t outside = 0;
    for (int64_t i = 0; i < (int64_t)got.size(); i++) {
        const int64_t r = (i - y.before) / y.ld, c = (i - y.before) % y.ld;
        if (i < y.before || r >= n || c >= d)
            outside += memcmp(&got[(size_t)i], &y.mem.host[(size_t)i], sizeof(float)) != 0;
    }
    CHECK_MSG(outside == 0, "%s m=%d d=%d writes %zu values outside", what, (int)n, (int)d,
              outside);
}

static const double FLOAT = 1e-9;

/* --- rows ------------------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double gelu(double g)
{
    return g * sigmoid(2 * sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g));
}

enum { ADD, SILU, GELU, CLAMPED, BIAS, SOFTCAP, OPS };
static const char *const op_names[] = {"add",         "silu_mul", "gelu_mul",
                                       "clamped_mul", "bias",     "softcap"};

static double elementwise(int op, double a, double b)
{
    switch (op) {
    case SILU:
        return a * sigmoid(a) * b;
    case GELU:
        return gelu(a) * b;
    case CLAMPED: {
        const double g = a > 7 ? 7 : a, u = b > 7 ? 7 : b < -7 ? -7 : b;
        return g * sigmoid(1.702 * g) * (u + 1);
    }
    case SOFTCAP:
        return 2.5 * tanh(a / 2.5);
    default:
        return a + b;
    }
}

static int run_elementwise(int op, const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a,
                           ts_cuda_rows b, int64_t d)
{
    switch (op) {
    case ADD:
        return ts_cuda_add(on, y, a, b, d);
    case SILU:
        return ts_cuda_silu_mul(on, y, a, b, d);
    case GELU:
        return ts_cuda_gelu_mul(on, y, a, b, d);
    case CLAMPED:
        return ts_cuda_clamped_mul(on, y, a, b, d);
    case BIAS:
        return ts_cuda_bias(on, y, b.x, d);
    default:
        return ts_cuda_softcap(on, y, 2.5f, d);
    }
}

/* where: 0 = y is another matrix, 1 = y is a, 2 = y is b */
static void test_elementwise(int op, int64_t m, int64_t d, int where, bool out)
{
    const bool in_place = op == BIAS || op == SOFTCAP;
    if (in_place && where != 1)
        return;
    matrix a(m, d, rnd(0, 9), op == CLAMPED ? 5 : 3),
        b(op == BIAS ? 1 : m, d, rnd(0, 9), op == CLAMPED ? 5 : 1), y(m, d, rnd(0, 9), 0);
    launch l(out ? m + 5 : m, out ? m : m + 5, 3, out, rnd(0, 2));
    matrix &to = where == 0 ? y : where == 1 ? a : b;
    std::vector<double> want;
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < d; i++)
            want.push_back(elementwise(op, a.at(r, i), b.at(op == BIAS ? 0 : r, i)));
    must(run_elementwise(op, &l.on, to.rows(), a.rows(), b.rows(), d), op_names[op]);
    agree(op_names[op], to, m, want, d, FLOAT);
}

/* BF16 rows straight from what makes them are its floats, rounded. */
static void test_bf16(int64_t m, int64_t d)
{
    matrix a(m, d, rnd(0, 1) * 4, 3), b(m, d, rnd(0, 9), 1), y(m, d, 0, 0);
    vec w(d);
    memory<uint16_t> halves((size_t)(m * d));
    launch l(m, m, 0, false, 0);
    for (int op = 0; op < 3; op++) {
        static const char *const names[] = {"silu_mul", "gelu_mul", "rms_norm"};
        const ts_cuda_rows ar = a.rows(), br = b.rows();
        must(op == 0   ? ts_cuda_silu_mul(&l.on, y.rows(), ar, br, d)
             : op == 1 ? ts_cuda_gelu_mul(&l.on, y.rows(), ar, br, d)
                       : ts_cuda_rms_norm(&l.on, y.rows(), ar, w.mem.dev, d, 1e-5f),
             names[op]);
        must(op < 2 ? ts_cuda_glu_bf16(halves.dev, op == 0, ar.x, ar.ld, br.x, br.ld, m, d, NULL)
                    : ts_cuda_norm_bf16(halves.dev, ar.x, ar.ld, w.mem.dev, 1e-5f, m, d, NULL),
             names[op]);
        const std::vector<float> want = y.mem.down();
        const std::vector<uint16_t> got = halves.down();
        size_t wrong = 0;
        for (size_t i = 0; i < (size_t)(m * d); i++) {
            uint32_t bits;
            memcpy(&bits, &want[(size_t)y.before + i], sizeof bits);
            wrong += got[i] != (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
        CHECK_MSG(wrong == 0, "%s to BF16, m=%d d=%d: %zu are others", names[op], (int)m, (int)d,
                  wrong);
    }
}

static std::vector<double> normed(const double *x, const float *w, int64_t d)
{
    std::vector<double> y;
    double sum = 0;
    for (int64_t i = 0; i < d; i++)
        sum += x[i] * x[i];
    for (int64_t i = 0; i < d; i++)
        y.push_back(x[i] / sqrt(sum / (double)d + 1e-5) * (w ? w[i] : 1));
    return y;
}

static void append(std::vector<double> &to, const std::vector<double> &from)
{
    to.insert(to.end(), from.begin(), from.end());
}

static void test_rms_norm(int64_t m, int64_t d, bool weighted, bool in_place)
{
    matrix x(m, d, rnd(0, 9), 2), y(m, d, rnd(0, 9), 0);
    vec w(d);
    launch l(m, 1, 0, false, rnd(0, 2));
    std::vector<double> want, row((size_t)d);
    for (int64_t r = 0; r < m; r++) {
        for (int64_t i = 0; i < d; i++)
            row[(size_t)i] = x.at(r, i);
        append(want, normed(row.data(), weighted ? w.mem.host.data() : NULL, d));
    }
    matrix &to = in_place ? x : y;
    must(ts_cuda_rms_norm(&l.on, to.rows(), x.rows(), weighted ? w.mem.dev : NULL, d, 1e-5f),
         "rms_norm");
    agree("rms_norm", to, m, want, d, FLOAT);
}

/* Heads of d floats. */
static void test_center(int64_t m, int64_t n_heads, int64_t d, bool in_place)
{
    matrix x(m, n_heads * d, rnd(0, 9), 2), y(m, n_heads * d, rnd(0, 9), 0);
    launch l(m, 1, 0, false, rnd(0, 2));
    std::vector<double> want;
    for (int64_t i = 0; i < m * n_heads; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += x.at(i / n_heads, i % n_heads * d + j) += 0.5f;
        for (int64_t j = 0; j < d; j++)
            want.push_back(x.at(i / n_heads, i % n_heads * d + j) - sum / (double)d);
    }
    x.mem.up();
    matrix &to = in_place ? x : y;
    must(ts_cuda_center(&l.on, to.rows(), x.rows(), n_heads, d), "center");
    agree("center", to, m, want, d, FLOAT);
}

enum { TO_XN, TO_Y, NOWHERE };

static void test_add_rms_norm(int64_t m, int64_t d, int to, bool post)
{
    matrix x(m, d, rnd(0, 9), 2), y(m, d, rnd(0, 9), 1), xn(m, d, rnd(0, 9), 0);
    vec w(d), wp(d);
    launch l(m, 1, 0, false, rnd(0, 2));
    std::vector<double> sum, want, row((size_t)d);
    for (int64_t r = 0; r < m; r++) {
        for (int64_t i = 0; i < d; i++)
            row[(size_t)i] = y.at(r, i);
        if (post)
            row = normed(row.data(), wp.mem.host.data(), d);
        for (int64_t i = 0; i < d; i++)
            sum.push_back(x.at(r, i) + row[(size_t)i]);
        append(want, normed(&sum[(size_t)(r * d)], w.mem.host.data(), d));
    }
    matrix &dst = to == TO_Y ? y : xn;
    const ts_cuda_rows none = {NULL, 0};
    must(ts_cuda_add_rms_norm(&l.on, to == NOWHERE ? none : dst.rows(), x.rows(), y.rows(),
                              post ? wp.mem.dev : NULL, w.mem.dev, d, 1e-5f),
         "add_rms_norm");
    agree("add_rms_norm: x", x, m, sum, d, FLOAT);
    agree("add_rms_norm: xn", dst, to == NOWHERE ? 0 : m, want, d, FLOAT);
}

static void test_gate(int64_t m, int64_t d)
{
    matrix y(m, d, rnd(0, 9), 2), a(m, d, rnd(0, 9), 1), b(m, d, rnd(0, 9), 3);
    vec w(d);
    launch l(m, 1, 0, false, rnd(0, 2));
    std::vector<double> want;
    for (int64_t r = 0; r < m; r++) {
        double sum = 0;
        for (int64_t i = 0; i < d; i++)
            sum += (double)a.at(r, i) * w.mem.host[(size_t)i];
        for (int64_t i = 0; i < d; i++)
            want.push_back(y.at(r, i) + sigmoid(sum) * b.at(r, i));
    }
    must(ts_cuda_gate(&l.on, y.rows(), a.rows(), b.rows(), w.mem.dev, d), "gate");
    agree("gate", y, m, want, d, FLOAT);
}

/* Sizes and beginnings of timelines: some of one token, some short, some long. */
static std::vector<std::pair<int64_t, int64_t>> some_spans(int64_t n, int64_t longest)
{
    std::vector<std::pair<int64_t, int64_t>> v;
    for (int64_t i = 0; i < n; i++)
        v.push_back({rnd(0, 1) ? 1 : rnd(1, rnd(0, 2) ? 9 : longest), rnd(0, 300)});
    return v;
}

/* What depends on where rows stand, with rows of several timelines. */
static void test_select_spans(int64_t n, int64_t d)
{
    company c(some_spans(n, 40), 1, &seed);
    const ts_cuda_on on = c.on(true);
    matrix a(c.m, d, 3, 1), y((int64_t)c.out.size(), d, 5, 0);
    std::vector<double> want;
    for (int32_t r : c.out)
        for (int64_t i = 0; i < d; i++)
            want.push_back(a.at(r, i));
    must(ts_cuda_select(&on, y.rows(), a.rows(), d), "select");
    agree("select of spans", y, y.m, want, d, 0);
}

static void test_select(int64_t m, int64_t m_out, int64_t d)
{
    matrix a(m, d, rnd(0, 9), 1), y(m_out, d, rnd(0, 9), 0);
    launch l(m, m_out, 7, true, rnd(0, 2));
    std::vector<double> want;
    for (int64_t r = m - m_out; r < m; r++)
        for (int64_t i = 0; i < d; i++)
            want.push_back(a.at(r, i));
    must(ts_cuda_select(&l.on, y.rows(), a.rows(), d), "select");
    agree("select", y, m_out, want, d, 0);
}

static void test_pull(int64_t n)
{
    vec src(n);
    memory<float> dst((size_t)n + 8);
    const int64_t at = rnd(0, 4);
    must(ts_cuda_pull(dst.dev + at, src.mem.dev, n, NULL), "pull");
    memcpy(&dst.host[(size_t)at], src.mem.host.data(), (size_t)n * sizeof(float));
    const std::vector<float> got = dst.down();
    CHECK_MSG(memcmp(got.data(), dst.host.data(), got.size() * sizeof(float)) == 0,
              "pull of %d floats to %d", (int)n, (int)at);
}

/* Up to as many parts as there may be, of any length and place; nothing beside them is touched. */
static void test_push(int parts, int64_t most)
{
    std::vector<std::unique_ptr<vec>> src;
    std::vector<std::unique_ptr<memory<float>>> dst;
    memory<uint32_t> flag(1);
    ts_cuda_pushed p = {};
    const uint32_t number = (uint32_t)rnd(1, 1 << 30);
    for (int i = 0; i < parts; i++) {
        const int64_t n = rnd(0, most), from = rnd(0, 5), at = rnd(0, 4);
        src.emplace_back(new vec(n + from));
        dst.emplace_back(new memory<float>((size_t)n + 8));
        p.part[i].src = src[i]->mem.dev + from;
        p.part[i].dst = dst[i]->dev + at;
        p.part[i].n = n;
        memcpy(&dst[i]->host[(size_t)at], src[i]->mem.host.data() + from,
               (size_t)n * sizeof(float));
    }
    must(ts_cuda_push(&p, flag.dev, number, NULL), "push");
    CHECK_MSG(flag.down()[0] == number, "the flag of a push");
    for (int i = 0; i < parts; i++) {
        const std::vector<float> got = dst[i]->down();
        CHECK_MSG(memcmp(got.data(), dst[i]->host.data(), got.size() * sizeof(float)) == 0,
                  "part %d of %d of a push of %d floats", i, parts, (int)p.part[i].n);
    }
}

static void test_rows(void)
{
    for (int i = 0; i < 40; i++)
        test_push((int)rnd(1, TS_CUDA_PUSHED), i < 20 ? 20 : 9000);
    for (int i = 0; i < 40; i++)
        test_pull(i < 20 ? i : rnd(1000, 5000));
    static const int64_t widths[] = {1, 7, 32, 129, 1024, 1025, 2049, 5000};
    for (int64_t d : widths) {
        const int64_t m = d > 1000 ? rnd(1, 3) : rnd(1, 70);
        for (int op = 0; op < OPS; op++)
            for (int where = 0; where < 3; where++)
                test_elementwise(op, m, d, where, rnd(0, 1));
        for (int i = 0; i < 4; i++)
            test_rms_norm(m, d, i % 2, i / 2);
        for (int i = 0; i < 4 && d > 1; i++)
            test_center(m, i / 2 ? rnd(2, 5) : 1, d, i % 2);
        for (int i = 0; i < 6; i++)
            test_add_rms_norm(m, d, i % 3, i / 3);
        test_gate(m, d);
        test_select_spans(rnd(1, 6), 70);
        test_select(m, rnd(1, m), d);
        test_bf16(m, d);
    }
}

/* --- heads ------------------------------------------------------------------------------------ */

static void test_angles(const ts_cuda_on *on, int64_t n_rot, const std::vector<int64_t> &pos)
{
    vec freq(n_rot / 2);
    for (int64_t i = 0; i < n_rot / 2; i++)
        freq.mem.host[(size_t)i] = (float)pow(10000, -2 * (double)i / (double)n_rot);
    freq.mem.up();
    const int64_t m = (int64_t)pos.size();
    matrix cs(m, n_rot, rnd(0, 9), 0);
    std::vector<double> want;
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < n_rot; i++) {
            volatile float theta = (float)pos[(size_t)r] * freq.mem.host[(size_t)i / 2];
            want.push_back((i % 2 ? sin((double)theta) : cos((double)theta)) * 1.25);
        }
    must(ts_cuda_angles(on, cs.rows(), freq.mem.dev, n_rot, 1.25f), "angles");
    agree("angles", cs, m, want, n_rot, FLOAT);
}

/* m numbers from `from` on. */
static std::vector<int64_t> count(int64_t from, int64_t m)
{
    std::vector<int64_t> v;
    for (int64_t i = 0; i < m; i++)
        v.push_back(from + i);
    return v;
}

/* What a head goes through. */
struct stages {
    bool bias, norm, rope;
    bool each = false; /* heads have weights of their own */
};

/* m rows of heads, their vectors, and what must become of them. */
struct head_case {
    matrix x;
    vec bias, norm;
    stages s;
    std::vector<double> want;
    int64_t n_heads;

    /* skip: elements before those that are turned */
    head_case(int64_t m, int64_t n_heads_, int64_t hd, stages s_, matrix &cs, int64_t n_rot,
              bool neox, int64_t skip = 0)
        : x(m, n_heads_ * hd, rnd(0, 9), 2), bias(n_heads_ * hd), norm(n_heads_ * hd), s(s_),
          n_heads(n_heads_)
    {
        for (int64_t i = 0; i < m * n_heads; i++) {
            const int64_t r = i / n_heads, h = i % n_heads;
            std::vector<double> v;
            for (int64_t d = 0; d < hd; d++)
                v.push_back((double)x.at(r, h * hd + d) +
                            (s.bias ? bias.mem.host[(size_t)(h * hd + d)] : 0));
            if (s.norm)
                v = normed(v.data(), &norm.mem.host[(size_t)(s.each ? h * hd : 0)], hd);
            for (int64_t j = 0; s.rope && j < n_rot / 2; j++) {
                double &a = v[(size_t)(skip + (neox ? j : 2 * j))];
                double &b = v[(size_t)(skip + (neox ? j + n_rot / 2 : 2 * j + 1))];
                const double a0 = a, c = cs.at(r, 2 * j), sn = cs.at(r, 2 * j + 1);
                a = a0 * c - b * sn;
                b = a0 * sn + b * c;
            }
            append(want, v);
        }
    }
    ts_cuda_heads heads(matrix &cs)
    {
        return ts_cuda_heads{x.rows(),
                             n_heads,
                             s.bias ? bias.mem.dev : NULL,
                             s.norm ? norm.mem.dev : NULL,
                             s.each ? x.d / n_heads : 0,
                             s.rope ? cs.rows().x : NULL,
                             cs.ld};
    }
};

/* A cache: K or V of one layer. */
struct cache {
    int64_t n_ctx, hkv, hd;
    memory<uint16_t> k, v;

    cache(int64_t n_ctx_, int64_t hkv_, int64_t hd_)
        : n_ctx(n_ctx_), hkv(hkv_), hd(hd_), k((size_t)(n_ctx_ * hkv_ * hd_)),
          v((size_t)(n_ctx_ * hkv_ * hd_))
    {
    }
    ts_cuda_kv kv(void)
    {
        return ts_cuda_kv{k.dev, v.dev, n_ctx, hkv, hd};
    }
    size_t at(int64_t head, int64_t pos, int64_t d) const
    {
        return (size_t)((head * n_ctx + pos) * hd + d);
    }
};

/* The rows of c lie at their places as nearest halves (to an NMSE of `limit`: the value rounded may
 * be the neighbour of the wanted one); all else is untouched. */
static void check_stored(const char *what, const cache &c, const memory<uint16_t> &mem,
                         const head_case &h, const std::vector<int64_t> &place, bool exact)
{
    const int64_t m = (int64_t)place.size();
    std::vector<uint16_t> got = mem.down();
    double num = 0, den = 0;
    size_t wrong = 0;
    for (int64_t i = 0; i < m * c.hkv * c.hd; i++) {
        const int64_t r = i / (c.hkv * c.hd), head = i / c.hd % c.hkv, d = i % c.hd;
        uint16_t &g = got[c.at(head, place[(size_t)r], d)];
        const double w = h.want[(size_t)i], e = ts_f16_to_f32(g) - w;
        wrong += g != ts_f32_to_f16((float)w);
        num += std::isfinite(e) ? e * e : INFINITY;
        den += w * w;
        g = 0xffff;
    }
    CHECK_MSG(exact ? wrong == 0 : num <= 2e-7 * den, "%s: %zu differ, nmse=%g", what, wrong,
              num / den);
    size_t outside = 0;
    for (uint16_t g : got)
        outside += g != 0xffff;
    CHECK_MSG(outside == 0, "%s: writes %zu values outside", what, outside);
}

/* Everything between the products and attention in one launch; `which` says what. Rows go to these
 * places of a cache of n_ctx. */
static void test_qkv(const ts_cuda_on *on, const std::vector<int64_t> &place, int64_t n_ctx,
                     int64_t hkv, int64_t group, int64_t hd, int64_t n_rot, bool neox, int which)
{
    const int64_t m = (int64_t)place.size();
    const stages s = {(which & 1) != 0, (which & 2) != 0, true, (which & 4) != 0},
                 v_only = {s.bias, false, false};
    matrix cs(m, n_rot, rnd(0, 9), 1);
    head_case q(m, hkv * group, hd, s, cs, n_rot, neox), k(m, hkv, hd, s, cs, n_rot, neox);
    head_case v(m, hkv, hd, v_only, cs, n_rot, neox);
    cache c(n_ctx, hkv, hd);
    const ts_cuda_qkv p = {q.heads(cs), k.heads(cs), v.heads(cs), c.kv(), n_rot, neox, 1e-5f};
    must(ts_cuda_qkv_store(on, &p), "qkv_store");
    agree("qkv_store: q", q.x, m, q.want, hd, FLOAT);
    check_stored("qkv_store: k", c, c.k, k, place, false);
    check_stored("qkv_store: v", c, c.v, v, place, !s.bias);
}

/* The same of one timeline whose pages are in order. */
static void test_qkv_one(int64_t m, int64_t hkv, int64_t group, int64_t hd, int64_t n_rot,
                         bool neox, int which)
{
    const int64_t pos0 = rnd(0, 20);
    launch l(m, 1, pos0, false, rnd(0, 2));
    test_qkv(&l.on, count(pos0, m), pos0 + m + rnd(0, 5), hkv, group, hd, n_rot, neox, which);
}

static void test_heads_spans(int64_t n, int64_t hd)
{
    company c(some_spans(n, 40), 3, &seed);
    const ts_cuda_on on = c.on(false);
    test_angles(&on, hd, c.pos);
    test_qkv(&on, c.place, c.n_ctx, 2, 3, hd, hd, true, 3);
    matrix cs(c.m, hd, 3, 1);
    head_case k(c.m, 2, hd, stages{false, false, false}, cs, hd, true);
    head_case v(c.m, 2, hd, stages{false, false, false}, cs, hd, true);
    cache to(c.n_ctx, 2, hd);
    const ts_cuda_kv kv = to.kv();
    must(ts_cuda_store(&on, k.x.rows(), v.x.rows(), &kv), "store");
    check_stored("store of spans: k", to, to.k, k, c.place, true);
    check_stored("store of spans: v", to, to.v, v, c.place, true);
}

static void test_parts(int64_t m, int64_t n_heads, int64_t hd, int64_t n_rot, bool neox)
{
    matrix cs(m, n_rot, rnd(0, 9), 1);
    launch l(m, 1, 11, false, rnd(0, 2));
    head_case n(m, n_heads, hd, stages{false, true, false}, cs, n_rot, neox);
    must(ts_cuda_head_norm(&l.on, n.x.rows(), n_heads, hd, n.norm.mem.dev, 0, 1e-5f), "head_norm");
    agree("head_norm", n.x, m, n.want, hd, FLOAT);
    head_case e(m, n_heads, hd, stages{false, true, false, true}, cs, n_rot, neox);
    must(ts_cuda_head_norm(&l.on, e.x.rows(), n_heads, hd, e.norm.mem.dev, hd, 1e-5f), "head_norm");
    agree("head_norm of each", e.x, m, e.want, hd, FLOAT);
    for (int64_t skip : {(int64_t)0, hd - n_rot, (hd - n_rot) / 2}) {
        head_case r(m, n_heads, hd, stages{false, false, true}, cs, n_rot, neox, skip);
        must(ts_cuda_rope(&l.on, r.x.rows(), n_heads, hd, skip, cs.rows(), n_rot, neox), "rope");
        agree("rope", r.x, m, r.want, hd, FLOAT);
    }
    /* heads wider than any that attention has: of a latent's row, and of q's, a part is turned */
    head_case w(m, n_heads, 300, stages{false, false, true}, cs, n_rot, neox, 300 - n_rot);
    must(ts_cuda_rope(&l.on, w.x.rows(), n_heads, 300, 300 - n_rot, cs.rows(), n_rot, neox),
         "rope");
    agree("rope of wide heads", w.x, m, w.want, 300, FLOAT);
    CHECK(ts_cuda_rope(&l.on, w.x.rows(), n_heads, 300, 301 - n_rot, cs.rows(), n_rot, neox) != 0);
    head_case k(m, n_heads, hd, stages{false, false, false}, cs, n_rot, neox);
    head_case v(m, n_heads, hd, stages{false, false, false}, cs, n_rot, neox);
    cache c(11 + m + rnd(0, 5), n_heads, hd);
    const ts_cuda_kv kv = c.kv();
    must(ts_cuda_store(&l.on, k.x.rows(), v.x.rows(), &kv), "store");
    check_stored("store: k", c, c.k, k, count(11, m), true);
    check_stored("store: v", c, c.v, v, count(11, m), true);
    agree("store: k.x", k.x, m, k.want, hd, 0);
}

static void test_heads(void)
{
    static const int64_t dims[] = {8, 64, 80, 96, 128, 192, 256};
    for (int64_t hd : dims) {
        const int64_t m = rnd(1, 70), pos0 = rnd(0, 30000);
        launch l(m, 1, pos0, false, rnd(0, 2));
        test_angles(&l.on, hd, count(pos0, m));
        test_heads_spans(rnd(1, 6), hd);
        for (int neox = 0; neox < 2; neox++) {
            for (int which = 0; which < 8; which++)
                test_qkv_one(rnd(1, 20), rnd(1, 3), rnd(1, 4), hd, which % 2 ? hd : hd / 4 * 2,
                             neox, which);
            test_parts(rnd(1, 20), rnd(1, 5), hd, neox ? hd : hd / 4 * 2, neox);
        }
    }
}

/* --- attention -------------------------------------------------------------------------------- */

typedef struct attend_case {
    int64_t m, pos0, hkv, group, hd, window;
    float cap = 0;
} attend_case;

static int64_t first_seen(const attend_case *c, int64_t t)
{
    const int64_t lo = c->pos0 + t - c->window + 1;
    return c->window > 0 && lo > 0 ? lo : 0;
}

/* Everything of a case: queries, outputs, and a cache that holds just what may be looked at. */
struct attend_data {
    attend_case c;
    matrix q, o;
    cache kv;
    float scale;
    vec sinks;
    bool with_sinks; /* else none */

    attend_data(const attend_case &c_, int64_t more_ctx, float spread)
        : c(c_), q(c.m, c.hkv * c.group * c.hd, 4 * rnd(0, 2), spread),
          o(c.m, c.hkv * c.group * c.hd, 4 * rnd(0, 2), 0),
          kv(c.pos0 + c.m + more_ctx, c.hkv, c.hd), scale(1 / sqrtf((float)c.hd)),
          sinks(c.hkv * c.group), with_sinks(rnd(0, 1))
    {
        for (int64_t h = 0; h < c.hkv; h++)
            for (int64_t p = first_seen(&c, 0); p < c.pos0 + c.m; p++)
                for (int64_t d = 0; d < c.hd; d++) {
                    kv.k.host[kv.at(h, p, d)] = ts_f32_to_f16(rnd_normal(&seed));
                    kv.v.host[kv.at(h, p, d)] = ts_f32_to_f16(rnd_normal(&seed));
                }
        kv.k.up();
        kv.v.up();
    }
};

/* Head h of token t. */
static std::vector<double> attend_row(attend_data &a, int64_t t, int64_t h)
{
    const attend_case &c = a.c;
    const int64_t kvh = h / c.group, lo = first_seen(&c, t), hi = c.pos0 + t + 1;
    std::vector<double> s, o((size_t)c.hd, 0.0), q;
    for (int64_t d = 0; d < c.hd; d++)
        q.push_back(a.q.at(t, h * c.hd + d));
    double max = -INFINITY, sum = 0;
    for (int64_t p = lo; p < hi; p++) {
        double dot = 0;
        for (int64_t d = 0; d < c.hd; d++)
            dot += q[(size_t)d] * ts_f16_to_f32(a.kv.k.host[a.kv.at(kvh, p, d)]);
        s.push_back(c.cap > 0 ? c.cap * tanh(dot * a.scale / c.cap) : dot * a.scale);
        max = s.back() > max ? s.back() : max;
    }
    if (a.with_sinks) {
        const double sink = a.sinks.mem.host[(size_t)h];
        max = sink > max ? sink : max;
        sum = exp(sink - max);
    }
    for (int64_t p = lo; p < hi; p++) {
        const double w = exp(s[(size_t)(p - lo)] - max);
        sum += w;
        for (int64_t d = 0; d < c.hd; d++)
            o[(size_t)d] += w * ts_f16_to_f32(a.kv.v.host[a.kv.at(kvh, p, d)]);
    }
    for (double &x : o)
        x /= sum;
    return o;
}

/* Runs a case into o (or over q). */
static void run_attend(attend_data &a, bool decode, bool in_place, int64_t more_rows)
{
    const attend_case &c = a.c;
    launch l(c.m, 1, c.pos0, false, more_rows);
    ts_cuda_attention p = {a.q.rows(), in_place ? a.q.rows() : a.o.rows(),
                           a.kv.kv(),  c.hkv * c.group,
                           c.window,   a.scale,
                           c.cap,      NULL,
                           NULL,       a.with_sinks ? a.sinks.mem.dev : NULL};
    const size_t bytes = ts_cuda_attend_bytes(&p.kv, p.n_head, l.on.rows);
    memory<uint8_t> work(decode ? bytes : 0);
    p.work = work.dev;
    must(decode ? ts_cuda_attend_decode(&l.on, &p) : ts_cuda_attend_prefill(&l.on, &p), "attend");
    must(cudaDeviceSynchronize(), "attend");
}

/* Queries and weights are rounded to halves. With unit scores each moves a row by some 2^-12 of
 * it, an NMSE of 1e-7 together; three times that is seen in the worst rows. Heads of a few
 * dimensions have rows that nearly cancel, and scores `spread` times as large err as much more. */
static double attend_limit(const attend_case &c, float spread, bool decode)
{
    return (decode ? 1e-6 : 2e-6) * (c.hd < 32 ? 10 : 1) * spread * spread;
}

static void test_attend(const attend_case &c, bool decode, bool in_place, float spread)
{
    attend_data a(c, rnd(0, 1) * rnd(0, 700), spread);
    std::vector<double> want;
    for (int64_t t = 0; t < c.m; t++)
        for (int64_t h = 0; h < c.hkv * c.group; h++)
            append(want, attend_row(a, t, h));
    const bool just = c.m == 65 || (decode && c.m == TS_CUDA_DECODE);
    const int64_t more = just ? 0 : rnd(0, 1);
    run_attend(a, decode, in_place, more);
    char what[160];
    snprintf(what, sizeof what, "%s pos0=%d hkv=%d group=%d head_dim=%d window=%d cap=%g",
             decode ? "decode" : "prefill", (int)c.pos0, (int)c.hkv, (int)c.group, (int)c.hd,
             (int)c.window, c.cap);
    agree(what, in_place ? a.q : a.o, c.m, want, c.hd, attend_limit(c, spread, decode));
}

/* Activations straight from decode are those of its floats, to the last bit. */
static void test_attend_act(const attend_case &c)
{
    attend_data a(c, 5, 1);
    launch l(c.m, 1, c.pos0, false, 0);
    ts_cuda_attention p = {a.q.rows(), a.o.rows(),
                           a.kv.kv(),  c.hkv * c.group,
                           c.window,   a.scale,
                           c.cap,      NULL,
                           NULL,       a.with_sinks ? a.sinks.mem.dev : NULL};
    memory<uint8_t> work(ts_cuda_attend_bytes(&p.kv, p.n_head, l.on.rows));
    const int64_t k = p.n_head * c.hd;
    memory<uint8_t> direct(ts_cuda_act_bytes(c.m, k)), of_floats(ts_cuda_act_bytes(c.m, k));
    p.work = work.dev;
    must(ts_cuda_attend_decode(&l.on, &p), "attend");
    std::vector<float> o = a.o.mem.down(), dense;
    for (int64_t t = 0; t < c.m; t++)
        dense.insert(dense.end(), &o[(size_t)(a.o.before + t * a.o.ld)],
                     &o[(size_t)(a.o.before + t * a.o.ld)] + k);
    memory<float> x(dense.size());
    x.host = dense;
    x.up();
    must(ts_cuda_prep(of_floats.dev, x.dev, k, NULL, 0, c.m, k, NULL), "prep");
    p.act = direct.dev;
    must(ts_cuda_attend_decode(&l.on, &p), "attend");
    CHECK_MSG(direct.down() == of_floats.down(), "decode's activations m=%d head_dim=%d", (int)c.m,
              (int)c.hd);
}

static int64_t pick(const int64_t *list, size_t n)
{
    return list[rnd(0, (int64_t)n - 1)];
}

#define PICK(list) pick(list, sizeof(list) / sizeof(list)[0])

static void test_attention(void)
{
    static const int64_t dims[] = {64, 80, 96, 128, 192, 256, 8, 40, 200};
    static const int64_t groups[] = {1, 3, 4, 8};
    static const int64_t windows[] = {0, 0, 1, 5, 64, 100, 256, 1000};
    static const int64_t starts[] = {0, 1, 31, 63, 64, 65, 127, 128, 129, 255, 256, 511, 630};
    for (int64_t hd : dims) {
        for (int i = 0; i < 6; i++) {
            const attend_case c = {rnd(1, i % 3 ? 8 : TS_CUDA_DECODE),
                                   PICK(starts),
                                   rnd(1, 2),
                                   PICK(groups),
                                   hd,
                                   PICK(windows)};
            test_attend(c, true, i % 2, i < 4 ? 1 : 8);
        }
        for (int i = 0; i < 4; i++) {
            const attend_case c = {rnd(1, 70),   PICK(starts), rnd(1, 2),
                                   PICK(groups), hd,           PICK(windows)};
            test_attend(c, false, i % 2, i < 3 ? 1 : 8);
        }
    }
    test_attend_act(attend_case{1, 300, 2, 4, 128, 0});
    test_attend_act(attend_case{8, 0, 2, 3, 64, 5});
    test_attend_act(attend_case{3, 129, 1, 5, 96, 0});
    /* one position; one more than a split; 700 positions; a group wider than a tile */
    test_attend(attend_case{1, 0, 1, 1, 128, 0}, true, false, 1);
    test_attend(attend_case{1, 128, 2, 4, 128, 0}, true, false, 1);
    test_attend(attend_case{8, 692, 1, 8, 64, 0}, true, false, 1);
    test_attend(attend_case{2, 300, 1, 24, 64, 50}, true, false, 1);
    test_attend(attend_case{70, 630, 1, 3, 128, 0}, false, false, 1);
    for (int64_t hd : {64, 128, 192, 256}) {
        /* a last block of one row; tiles that all rows but the first, or but the last, see whole */
        test_attend(attend_case{65, 9, 1, 1, hd, 0}, false, false, 1);
        test_attend(attend_case{20, 62, 1, 1, hd, 0}, false, false, 1);
        test_attend(attend_case{20, 163, 1, 1, hd, 100}, false, false, 1);
    }
    test_attend(attend_case{33, 100, 1, 24, 64, 17}, false, false, 1);
    /* scores that the cap bends; some that it cuts off; one that hardly does anything */
    for (float cap : {2.5f, 0.25f, 50.0f})
        for (int64_t hd : {64, 200}) {
            test_attend(attend_case{3, 150, 2, 2, hd, 0, cap}, true, false, 4);
            test_attend(attend_case{20, 60, 1, 3, hd, 33, cap}, false, false, 4);
        }
    test_attend(attend_case{2, 30, 1, 1, 64, 0, 1}, true, false, 1000);
}

/* --- what decode promises --------------------------------------------------------------------- */

/* The bits of a row depend neither on n_ctx, nor on the rows beside it, nor on those the launch is
 * made for. */
static void test_decode_bits(const attend_case &c)
{
    attend_data a(c, 0, 1);
    run_attend(a, true, false, 0);
    const std::vector<float> all = a.o.mem.down();
    for (int64_t t = 0; t < c.m; t++) {
        attend_case one = c;
        one.m = 1;
        one.pos0 = c.pos0 + t;
        attend_data b(one, 3000, 1);
        for (int64_t i = 0; i < a.q.d; i++)
            b.q.at(0, i) = a.q.at(t, i);
        b.q.mem.up();
        b.with_sinks = a.with_sinks;
        b.sinks.mem.host = a.sinks.mem.host;
        b.sinks.mem.up();
        for (int64_t h = 0; h < c.hkv; h++)
            for (int64_t p = first_seen(&c, t); p <= c.pos0 + t; p++)
                for (int64_t d = 0; d < c.hd; d++) {
                    b.kv.k.host[b.kv.at(h, p, d)] = a.kv.k.host[a.kv.at(h, p, d)];
                    b.kv.v.host[b.kv.at(h, p, d)] = a.kv.v.host[a.kv.at(h, p, d)];
                }
        b.kv.k.up();
        b.kv.v.up();
        run_attend(b, true, false, rnd(0, 7));
        const std::vector<float> alone = b.o.mem.down();
        CHECK_MSG(!memcmp(&all[(size_t)(a.o.before + t * a.o.ld)], &alone[(size_t)b.o.before],
                          (size_t)a.o.d * sizeof(float)),
                  "decode: token %d of %d has other bits alone", (int)t, (int)c.m);
    }
}

/* --- several timelines ------------------------------------------------------------------------ */

/* Timelines of these sizes and beginnings in one batch: each row has the bits that it has alone,
 * where its pages are in order; pages that nobody has are poison. act: 15-bit activations of few
 * tokens, too. */
static void test_attend_spans(const std::vector<std::pair<int64_t, int64_t>> &sizes, int64_t hkv,
                              int64_t group, int64_t hd, int64_t window)
{
    company c(sizes, group, &seed);
    const int64_t width = hkv * group * hd;
    matrix q(c.m, width, 4 * rnd(0, 2), 1), o(c.m, width, 4 * rnd(0, 2), 0);
    cache kv(c.n_ctx, hkv, hd);
    vec sinks(hkv * group);
    const bool with_sinks = rnd(0, 1);
    const float cap = rnd(0, 3) ? 0 : 3;
    std::vector<std::vector<float>> alone;
    for (const timeline &t : c.of) {
        attend_case one = {t.m, t.pos0, hkv, group, hd, window, cap};
        attend_data a(one, 64, 1);
        for (int64_t r = 0; r < t.m; r++)
            for (int64_t i = 0; i < width; i++)
                a.q.at(r, i) = q.at(t.r0 + r, i);
        a.q.mem.up();
        a.with_sinks = with_sinks;
        a.sinks.mem.host = sinks.mem.host;
        a.sinks.mem.up();
        run_attend(a, t.m <= TS_CUDA_DECODE, false, 0);
        const std::vector<float> got = a.o.mem.down();
        for (int64_t r = 0; r < t.m; r++)
            alone.push_back(std::vector<float>(got.begin() + a.o.before + r * a.o.ld,
                                               got.begin() + a.o.before + r * a.o.ld + width));
        for (int64_t h = 0; h < hkv; h++)
            for (int64_t p = 0; p < t.end(); p++)
                for (int64_t d = 0; d < hd; d++) {
                    kv.k.host[kv.at(h, t.place(p), d)] = a.kv.k.host[a.kv.at(h, p, d)];
                    kv.v.host[kv.at(h, t.place(p), d)] = a.kv.v.host[a.kv.at(h, p, d)];
                }
    }
    kv.k.up();
    kv.v.up();
    const ts_cuda_on on = c.on(false);
    ts_cuda_attention p = {q.rows(), o.rows(),
                           kv.kv(),  hkv * group,
                           window,   1 / sqrtf((float)hd),
                           cap,      NULL,
                           NULL,     with_sinks ? sinks.mem.dev : NULL};
    memory<uint8_t> work(ts_cuda_attend_bytes(&p.kv, p.n_head, TS_CUDA_DECODE));
    p.work = work.dev;
    must(ts_cuda_attend_decode(&on, &p), "decode");
    must(ts_cuda_attend_prefill(&on, &p), "prefill");
    const std::vector<float> got = o.mem.down();
    std::vector<float> expected = o.mem.host;
    size_t at = 0;
    for (const timeline &t : c.of)
        for (int64_t r = 0; r < t.m; r++, at++) {
            float *to = &expected[(size_t)(o.before + (t.r0 + r) * o.ld)];
            const size_t bytes = (size_t)width * sizeof(float);
            CHECK_MSG(
                !memcmp(&got[(size_t)(o.before + (t.r0 + r) * o.ld)], alone[at].data(), bytes),
                "row %d of %d at %d, one of %zu spans: other bits than alone", (int)r, (int)t.m,
                (int)t.pos0, c.of.size());
            memcpy(to, alone[at].data(), bytes);
        }
    CHECK(!memcmp(got.data(), expected.data(), got.size() * sizeof(float)));
    if (hd % 32 || c.m > TS_CUDA_DECODE)
        return;
    memory<uint8_t> direct(ts_cuda_act_bytes(c.m, width)), floats(ts_cuda_act_bytes(c.m, width));
    p.act = direct.dev;
    must(ts_cuda_attend_decode(&on, &p), "decode");
    must(ts_cuda_prep(floats.dev, o.rows().x, o.ld, NULL, 0, c.m, width, NULL), "prep");
    CHECK_MSG(direct.down() == floats.down(), "activations of %d rows of spans", (int)c.m);
}

static void test_spans(void)
{
    static const int64_t dims[] = {64, 80, 128, 192, 256, 8};
    static const int64_t groups[] = {1, 3, 4, 8, 24};
    static const int64_t windows[] = {0, 0, 5, 64, 100};
    /* a token each; the same with one that has just begun, and at the ends of pages and splits */
    test_attend_spans({{1, 300}, {1, 20}, {1, 131}, {1, 640}}, 2, 4, 128, 0);
    test_attend_spans({{1, 0}, {1, 63}, {1, 64}, {1, 127}, {1, 128}, {1, 1}}, 1, 8, 64, 0);
    test_attend_spans({{1, 200}, {1, 90}, {1, 5}}, 2, 2, 256, 70);
    /* more tokens than a launch decodes; those that are just decoded, and just not */
    test_attend_spans(std::vector<std::pair<int64_t, int64_t>>(37, {1, 70}), 1, 2, 64, 0);
    test_attend_spans({{32, 40}, {1, 7}, {33, 3}, {31, 0}, {40, 130}}, 1, 2, 64, 0);
    test_attend_spans({{70, 100}}, 1, 3, 128, 0);
    test_attend_spans({{3, 150}}, 2, 8, 64, 0);
    for (int64_t hd : dims)
        for (int i = 0; i < 3; i++)
            test_attend_spans(some_spans(rnd(2, 6), i ? 20 : 60), rnd(1, 2), PICK(groups), hd,
                              PICK(windows));
}

/* What was queued once, in a graph where there are graphs. */
struct replay {
#ifdef TS_CUDA_STANDIN
    const ts_cuda_on *on;
    const ts_cuda_attention *p;

    replay(ts_cuda_on *on_, const ts_cuda_attention *p_) : on(on_), p(p_)
    {
    }
    void run(void)
    {
        must(ts_cuda_attend_decode(on, p), "decode");
    }
#else
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    replay(ts_cuda_on *on, const ts_cuda_attention *p)
    {
        must(cudaStreamCreate(&stream), "stream");
        must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
        on->stream = stream;
        must(ts_cuda_attend_decode(on, p), "decode");
        must(cudaStreamEndCapture(stream, &graph), "capture");
        must(cudaGraphInstantiate(&exec, graph, 0), "graph");
    }
    ~replay()
    {
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
    }
    void run(void)
    {
        must(cudaGraphLaunch(exec, stream), "graph");
    }
#endif
};

/* One launch serves every step: only the batch in device memory changes. */
static void test_decode_replay(void)
{
    const attend_case last = {1, 600, 2, 4, 64, 0};
    attend_data a(last, 0, 1);
    launch l(1, 1, 0, false, 0);
    ts_cuda_attention p = {
        a.q.rows(), a.o.rows(), a.kv.kv(), 8,    0,
        a.scale,    0,          NULL,      NULL, a.with_sinks ? a.sinks.mem.dev : NULL};
    memory<uint8_t> work(ts_cuda_attend_bytes(&p.kv, p.n_head, 1));
    p.work = work.dev;
    replay step(&l.on, &p);
    for (int64_t pos : {0, 5, 127, 128, 600, 40}) {
        l.batch.host[0].pos0 = (int32_t)pos;
        l.batch.up();
        step.run();
        a.c.pos0 = pos;
        std::vector<double> want;
        for (int64_t h = 0; h < 8; h++)
            append(want, attend_row(a, 0, h));
        agree("decode, replayed", a.o, 1, want, 64, 1e-6);
    }
}

/* More splits than a launch has blocks for. */
static void test_decode_long(void)
{
    test_attend(attend_case{1, 70000, 1, 1, 8, 0}, true, false, 1);
}

static void test_refused(void)
{
    attend_data a(attend_case{TS_CUDA_DECODE + 1, 0, 1, 1, 64, 0}, 0, 1);
    launch l(TS_CUDA_DECODE + 1, 1, 0, false, 0);
    ts_cuda_attention p = {a.q.rows(), a.o.rows(), a.kv.kv(), 1, 0, 1, 0, NULL, NULL, NULL};
    CHECK(ts_cuda_attend_decode(&l.on, &p) != 0); /* too many rows */
    p.kv.head_dim = 60;
    CHECK(ts_cuda_attend_prefill(&l.on, &p) != 0);
    p.kv.head_dim = 264;
    CHECK(ts_cuda_attend_prefill(&l.on, &p) != 0);
    CHECK(ts_cuda_rope(&l.on, p.q, 1, 64, 0, p.q, 66, true) != 0);
    CHECK(ts_cuda_rope(&l.on, p.q, 1, 264, 0, p.q, 258, true) != 0);
}

int main(void)
{
#ifndef TS_CUDA_STANDIN
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        fprintf(stderr, "no GPU: skipped\n");
        return 77;
    }
#endif
    test_rows();
    test_heads();
    test_attention();
    test_decode_bits(attend_case{5, 254, 1, 4, 128, 0});
    test_decode_bits(attend_case{3, 127, 2, 3, 80, 20});
    test_decode_bits(attend_case{2, 1406, 1, 2, 64, 1280}); /* another first split, of ten */
    test_spans();
    test_decode_replay();
    test_decode_long();
    test_refused();
    return check_done("cuda_ops");
}

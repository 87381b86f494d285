/* The products, conversions and embeddings of src/cuda with weights of every type against loops in
 * double precision over the type's to_f32, on a GPU or over the stand-in.
 *
 *     test_cuda_quant [SEED]
 *
 * Outputs lie among poison (all bits ones) that must stay; weights and activations end where their
 * memory ends, so that a sanitizer sees what is read behind them. */
#include <cmath>

#include "cuda/quant.h"
#include "cuda_case.h"

/* --- activations ------------------------------------------------------------------------------ */

/* Rows of floats with poison between them. */
struct rows {
    int64_t m, k, ld;
    memory<float> mem;

    rows(int64_t m_, int64_t k_, int64_t pad) : m(m_), k(k_), ld(k_ + pad), mem(size())
    {
        for (int64_t t = 0; t < m; t++)
            for (int64_t i = 0; i < k; i++)
                at(t, i) = rnd_normal(&seed) + (i % 7 == 0 ? 0.5f : 0);
        mem.up();
    }
    size_t size(void) const
    {
        return (size_t)((m - 1) * ld + k);
    }
    float &at(int64_t t, int64_t i)
    {
        return mem.host[(size_t)(t * ld + i)];
    }
};

/* Block i of token t: its elements' codes and the rest. */
struct block {
    int q[32];
    ts_cuda_act rest;

    block(const memory<uint8_t> &act, int64_t k, int64_t t, int64_t i)
    {
        int64_t chunks = (k + 1023) / 1024;
        const uint8_t *p = act.host.data() + ((t * chunks + i / 32) * 5 * 32 + i % 32) * 16;
        for (int e = 0; e < 32; e++) {
            int8_t h = (int8_t)p[e / 16 * 512 + e % 16];
            int8_t l = (int8_t)p[(2 + e / 16) * 512 + e % 16];
            CHECK_MSG(l >= -64 && l < 64, "low limb %d", l);
            q[e] = 128 * h + l;
        }
        memcpy(&rest, p + 4 * 512, sizeof rest);
    }
};

/* What a block of x should be, by the rules of cpu/prep.h. */
static void check_block(const block &b, const float *x, const char *what)
{
    float max = 0;
    bool finite = true;
    int sum[2] = {};
    for (int e = 0; e < 32; e++) {
        max = fmaxf(max, fabsf(x[e]));
        finite = finite && isfinite(x[e]);
    }
    bool codes = finite && max >= 1e-30f;
    float d = codes ? max / 16256 : 0, scale = codes ? 16256 / max : 0;
    CHECK_MSG(finite ? b.rest.d == d : (bool)isnan(b.rest.d), "%s: d %g of %g", what, b.rest.d, d);
    for (int e = 0; e < 32; e++) {
        int q = codes ? (int)lrintf(x[e] * scale) : 0;
        CHECK_MSG(b.q[e] == q, "%s: element %d is %d, not %d", what, e, b.q[e], q);
        sum[e / 16] += q;
    }
    CHECK_MSG(b.rest.sum[0] == sum[0] && b.rest.sum[1] == sum[1], "%s: sums", what);
}

static void test_prep(int64_t m, int64_t k)
{
    rows x(m, k, 4);
    static const float special[] = {0, 1e-31f, 3e38f, INFINITY, NAN, 1e-29f};
    for (size_t i = 0; i < 6 && k >= 32 * 9; i++)
        for (int e = 0; e < 32; e++)
            x.at(0, 32 * (int64_t)i + e) *= i == 3 || i == 4 ? 1 : special[i] / 8;
    if (k >= 32 * 9) {
        x.at(0, 32 * 3 + 17) = -INFINITY;
        x.at(0, 32 * 4 + 31) = NAN;
    }
    x.mem.up();
    memory<uint8_t> act(ts_cuda_act_bytes(m, k));
    must(ts_cuda_prep(act.dev, x.mem.dev, x.ld, NULL, 0, m, k, NULL), "prep");
    act.down();
    for (int64_t t = 0; t < m; t++)
        for (int64_t i = 0; i < k / 32; i++)
            check_block(block(act, k, t, i), &x.at(t, 32 * i), "prep");
}

/* With a norm before it: codes are within half a step, and d is the largest element's. */
static void test_prep_norm(int64_t m, int64_t k)
{
    rows x(m, k, 4), w(1, k, 0);
    memory<uint8_t> act(ts_cuda_act_bytes(m, k));
    float eps = 1e-5f;
    for (int64_t i = 0; i < k; i++)
        x.at(m - 1, i) *= 1e-3f; /* eps counts */
    x.mem.up();
    must(ts_cuda_prep(act.dev, x.mem.dev, x.ld, w.mem.dev, eps, m, k, NULL), "prep");
    act.down();
    for (int64_t t = 0; t < m; t++) {
        double sum = 0;
        for (int64_t i = 0; i < k; i++)
            sum += (double)x.at(t, i) * x.at(t, i);
        double f = 1 / sqrt(sum / (double)k + eps);
        for (int64_t i = 0; i < k / 32; i++) {
            block b(act, k, t, i);
            double max = 0, worst = 0;
            for (int e = 0; e < 32; e++) {
                double y = f * x.at(t, 32 * i + e) * w.at(0, 32 * i + e);
                max = fmax(max, fabs(y));
                worst = fmax(worst, fabs(y - (double)b.rest.d * b.q[e]));
            }
            CHECK_MSG(fabs(b.rest.d * 16256 - max) <= 1e-6 * max, "norm: d %g of %g, k=%lld",
                      b.rest.d, max / 16256, (long long)k);
            CHECK_MSG(worst <= 0.52 * max / 16256, "norm: off by %g steps, k=%lld",
                      worst / max * 16256, (long long)k);
        }
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* W x in double precision, and of each output sum_i (w_i x_i)^2: how large it may be expected to
 * be, which errors are measured by (an output near zero has none that is small beside it). */
struct expected {
    std::vector<double> y, energy; /* [m][n] */

    expected(const weights &w, const std::vector<double> &x, int64_t m)
        : y((size_t)(m * w.n)), energy((size_t)(m * w.n))
    {
        std::vector<float> row((size_t)w.k);
        for (int64_t r = 0; r < w.n; r++) {
            w.row(r, row.data());
            for (int64_t t = 0; t < m; t++) {
                double sum = 0, squares = 0;
                for (int64_t i = 0; i < w.k; i++) {
                    double p = row[(size_t)i] * x[(size_t)(t * w.k + i)];
                    sum += p;
                    squares += p * p;
                }
                y[(size_t)(t * w.n + r)] = sum;
                energy[(size_t)(t * w.n + r)] = squares;
            }
        }
    }
};

struct product {
    weights w, v;
    rows x;
    memory<uint8_t> act;
    std::vector<double> exact, coded; /* [m][k]: the floats, and what their codes stand for */
    int64_t m, n, k;

    product(ts_type type, int64_t m_, int64_t n_, int64_t k_, bool join, int64_t pad)
        : w(type, n_, k_), v(type, join ? n_ : 0, k_), x(m_, k_, pad),
          act(is_float(type) ? 0 : ts_cuda_act_bytes(m_, k_)), m(m_), n(n_), k(k_)
    {
        if (join)
            tame();
        if (!is_float(type)) {
            must(ts_cuda_prep(act.dev, x.mem.dev, x.ld, NULL, 0, m, k, NULL), "prep");
            act.down();
        }
        for (int64_t t = 0; t < m; t++)
            for (int64_t i = 0; i < k; i++)
                exact.push_back(x.at(t, i));
        coded = exact;
        for (int64_t t = 0; t < m && !is_float(type); t++)
            for (int64_t i = 0; i < k / 32; i++) {
                block b(act, k, t, i);
                for (int e = 0; e < 32; e++)
                    coded[(size_t)(t * k + 32 * i + e)] = (double)b.rest.d * b.q[e];
            }
    }
    /* Makes W x about 2, where silu and gelu bend. */
    void tame(void)
    {
        std::vector<float> row((size_t)k);
        double sum = 0;
        w.row(0, row.data());
        for (float f : row)
            sum += (double)f * f;
        for (float &f : x.mem.host)
            f = is_poison(f) ? f : f * (float)(2 / sqrt(sum + 1e-12));
        x.mem.up();
    }
    ts_cuda_mul args(float *y, int64_t ldy) const
    {
        ts_cuda_mul p = {};
        p.type = w.type;
        p.w = w.mem.dev;
        p.v = v.n ? v.mem.dev : NULL;
        p.x = is_float(w.type) ? (const void *)x.mem.dev : act.dev;
        p.ldx = x.ld;
        p.y = y;
        p.ldy = ldy;
        p.m = m;
        p.n = n;
        p.k = k;
        return p;
    }
};

/* Outputs [m][n] with poison around and between them. */
struct output {
    enum { AROUND = 9 };
    int64_t m, n, ld;
    memory<float> mem;

    output(int64_t m_, int64_t n_, int64_t between = 3)
        : m(m_), n(n_), ld(n_ + between), mem((size_t)(2 * AROUND + m_ * (n_ + between)))
    {
    }
    float *dev(void)
    {
        return mem.dev + AROUND;
    }
    float &at(int64_t t, int64_t i)
    {
        return mem.host[(size_t)(AROUND + t * ld + i)];
    }
    bool intact(void) const
    {
        bool ok = true;
        for (int64_t i = 0; i < (int64_t)mem.host.size(); i++) {
            int64_t j = i - AROUND;
            bool mine = j >= 0 && j < m * ld && j % ld < n;
            ok = ok && (mine || is_poison(mem.host[(size_t)i]));
        }
        return ok;
    }
};

/* The error of out against y by the size that's expected; infinite if anything isn't finite. */
static double error(output &out, const std::vector<double> &y, const std::vector<double> &energy)
{
    double num = 0, den = 0;
    for (int64_t t = 0; t < out.m; t++)
        for (int64_t i = 0; i < out.n; i++) {
            size_t j = (size_t)(t * out.n + i);
            if (!isfinite(out.at(t, i)))
                return INFINITY;
            num += (out.at(t, i) - y[j]) * (out.at(t, i) - y[j]);
            den += fmax(y[j] * y[j], energy[j]);
        }
    return num / den;
}

#define CASE "%s m=%lld n=%lld k=%lld: %g"
#define CASE_OF(p, e)                                                                              \
    ts_type_get((p).w.type)->name, (long long)(p).m, (long long)(p).n, (long long)(p).k, (e)

enum { NO_ADD, ADD, ADD_Y };

static void test_product(ts_type type, int64_t m, int64_t n, int64_t k, int add, int64_t pad)
{
    product p(type, m, n, k, false, pad);
    output y(m, n), z(m, n, 5);
    ts_cuda_mul args = p.args(y.dev(), y.ld);
    std::vector<double> before((size_t)(m * n));
    output &from = add == ADD ? z : y;
    for (int64_t t = 0; t < m && add != NO_ADD; t++)
        for (int64_t i = 0; i < n; i++)
            before[(size_t)(t * n + i)] = from.at(t, i) = rnd_normal(&seed);
    from.mem.up();
    if (add != NO_ADD) {
        args.add = from.dev();
        args.ldadd = from.ld;
    }
    must(ts_cuda_mul_run(&args, 1, NULL), "mul");
    y.mem.down();
    expected coded(p.w, p.coded, m), exact(p.w, p.exact, m);
    for (size_t i = 0; i < before.size(); i++) {
        coded.y[i] += before[i];
        exact.y[i] += before[i];
    }
    double e = error(y, coded.y, coded.energy);
    CHECK_MSG(e <= 1e-9, CASE, CASE_OF(p, e));
    e = error(y, exact.y, exact.energy);
    CHECK_MSG(e <= 1e-6, CASE " from the float activations", CASE_OF(p, e));
    CHECK_MSG(y.intact(), CASE, CASE_OF(p, 0.0));
}

static double gate(double g, ts_cuda_join join)
{
    double z = join == TS_CUDA_SILU ? g : 2 * 0.7978845608 * (g + 0.044715 * g * g * g);
    return g / (1 + exp(-z));
}

static void test_join(ts_type type, int64_t m, int64_t n, int64_t k, ts_cuda_join join)
{
    product p(type, m, n, k, true, 4);
    output y(m, n);
    ts_cuda_mul args = p.args(y.dev(), y.ld);
    args.join = join;
    must(ts_cuda_mul_run(&args, 1, NULL), "mul");
    y.mem.down();
    expected g(p.w, p.coded, m), u(p.v, p.coded, m);
    for (size_t i = 0; i < g.y.size(); i++) {
        g.y[i] = gate(g.y[i], join) * u.y[i];
        g.energy[i] *= u.energy[i];
    }
    double e = error(y, g.y, g.energy);
    /* Floats alone are right to some 1e-14: closer than it takes to see a digit lost of gelu. */
    CHECK_MSG(e <= 1e-12, CASE " join %d", CASE_OF(p, e), join);
    CHECK_MSG(y.intact(), CASE " join %d", CASE_OF(p, 0.0), join);
}

/* Three products in one launch are those three: with other n, another stride, the same bits. */
static void test_parts(ts_type type, int64_t m, int64_t n, int64_t n2, int64_t k)
{
    product p(type, m, n, k, true, 4);
    output one[3] = {{m, n}, {m, n2, 1}, {m, n, 5}}, all[3] = {{m, n}, {m, n2, 1}, {m, n, 5}};
    ts_cuda_mul parts[3];
    for (int i = 0; i < 3; i++) {
        parts[i] = p.args(one[i].dev(), one[i].ld);
        parts[i].w = i == 2 ? p.v.mem.dev : p.w.mem.dev;
        parts[i].v = NULL;
        parts[i].n = one[i].n;
        must(ts_cuda_mul_run(&parts[i], 1, NULL), "mul");
        parts[i].y = all[i].dev();
    }
    for (int count = 2; count <= 3; count++) {
        must(ts_cuda_mul_run(parts, count, NULL), "mul");
        for (int i = 0; i < count; i++) {
            one[i].mem.down();
            all[i].mem.down();
            CHECK_MSG(all[i].mem.host.size() == one[i].mem.host.size() &&
                          !memcmp(all[i].mem.host.data(), one[i].mem.host.data(),
                                  all[i].mem.host.size() * sizeof(float)),
                      CASE " part %d of %d", CASE_OF(p, 0.0), i, count);
            memset(all[i].mem.host.data(), 0xff, all[i].mem.host.size() * sizeof(float));
            all[i].mem.up();
        }
    }
}

/* --- rows of weights -------------------------------------------------------------------------- */

static void test_dequant(ts_type type, int64_t n, int64_t n0, int64_t n1, int64_t k, bool bf16)
{
    weights w(type, n, k, true);
    size_t count = (size_t)((n1 - n0) * k);
    memory<uint16_t> dst(count + 16);
    must(ts_cuda_dequant(dst.dev, bf16, type, w.mem.dev, n0, n1, k, NULL), "dequant");
    dst.down();
    std::vector<float> row((size_t)k);
    int wrong = 0;
    for (int64_t r = n0; r < n1; r++) {
        w.row(r, row.data());
        for (int64_t i = 0; i < k; i++) {
            float f = row[(size_t)i];
            uint16_t h = bf16 ? ts_f32_to_bf16(f) : ts_f32_to_f16(f);
            wrong += dst.host[(size_t)((r - n0) * k + i)] != h;
        }
    }
    for (size_t i = count; i < count + 16; i++)
        wrong += dst.host[i] != 0xffff;
    CHECK_MSG(!wrong, "%s to %s, k=%lld: %d wrong", ts_type_get(type)->name, bf16 ? "BF16" : "F16",
              (long long)k, wrong);
}

static void test_embed(ts_type type, int64_t m, int64_t k, float scale, int64_t pad)
{
    enum { N = 23 };
    weights w(type, N, k, true);
    memory<int32_t> token((size_t)m);
    memory<float> dst((size_t)(m * (k + pad)));
    for (int32_t &t : token.host)
        t = (int32_t)(rnd_u64(&seed) % N);
    token.host[0] = N - 1;
    token.up();
    must(ts_cuda_embed(dst.dev, k + pad, type, w.mem.dev, token.dev, m, k, scale, NULL), "embed");
    dst.down();
    std::vector<float> row((size_t)k);
    int wrong = 0;
    for (int64_t t = 0; t < m; t++) {
        w.row(token.host[(size_t)t], row.data());
        for (int64_t i = 0; i < k + pad; i++) {
            float f = dst.host[(size_t)(t * (k + pad) + i)];
            float want = i < k ? row[(size_t)i] * scale : 0;
            wrong += i < k ? memcmp(&f, &want, sizeof f) != 0 : !is_poison(f);
        }
    }
    CHECK_MSG(!wrong, "%s: %d wrong, k=%lld", ts_type_get(type)->name, wrong, (long long)k);
}

/* --- all of them ------------------------------------------------------------------------------ */

static const int64_t ms[] = {1, 2, 3, 5, 8}, ns[] = {1, 3, 17, 33};
/* Less than a chunk of 1024, exactly some, and one block more. */
static const int64_t ks_32[] = {32, 224, 1024, 1056, 4128};
static const int64_t ks_256[] = {256, 768, 1024, 1280, 4352};
static const int64_t ks_float[] = {1, 7, 64, 1000, 2056, 4100};

static void test_type(ts_type type)
{
    int block = ts_type_get(type)->block, which = 0;
    const int64_t *ks = block == 256 ? ks_256 : block == 32 ? ks_32 : ks_float;
    for (int i = 0; i < (block == 1 ? 6 : 5); i++) {
        for (int64_t m : ms)
            for (int64_t n : ns) {
                test_product(type, m, n, ks[i], which % 3, which % 2 * 4);
                which++;
            }
        for (int64_t m : {1, 2, 4, 7}) {
            test_join(type, m, ns[which % 4], ks[i], TS_CUDA_SILU);
            test_join(type, m, ns[(which + 1) % 4], ks[i], TS_CUDA_GELU);
            which++;
        }
        for (int bf16 = 0; bf16 < 2; bf16++) {
            test_dequant(type, 7, 2, 7, ks[i], bf16);
            test_dequant(type, 3, 0, 2, ks[i], bf16);
        }
        test_embed(type, 5, ks[i], 1, 0);
        test_embed(type, 1, ks[i], 33.5f, 4);
    }
    test_product(type, 11, 9, ks[3], NO_ADD, 0); /* tokens in two runs */
    if (is_float(type))
        test_product(type, 3, 9, 1024, NO_ADD, 1); /* rows that aren't 16-byte aligned */
}

/* As many rows as make split 1 and 2: a warp does several chunks, and its buffers come round. */
static void test_tall(ts_type type)
{
    int64_t k = ts_type_get(type)->block == 256 ? 5376 : 5152;
    test_product(type, 1, 4100, k, NO_ADD, 0);
    test_product(type, 1, 2100, k, NO_ADD, 0);
    test_product(type, 3, 8195, 3 * k / 7 / 256 * 256, NO_ADD, 0);
    test_join(type, 1, 2050, k, TS_CUDA_SILU);
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
    for (int64_t k : {32, 64, 480, 2048, 2080, 6144})
        for (int64_t m : {1, 3}) {
            test_prep(m, k);
            test_prep_norm(m, k);
        }
    for (ts_type type : all_types) {
        test_type(type);
        test_parts(type, 1, 37, 8, 768);
        test_parts(type, 9, 130, 21, 1280);
        if (!SANITIZED || type == TS_TYPE_Q6_K)
            test_tall(type);
    }
    ts_cuda_mul unknown = {};
    unknown.type = 9;
    unknown.m = unknown.n = 1;
    unknown.k = 32;
    CHECK(ts_cuda_mul_run(&unknown, 1, NULL) == cudaErrorInvalidValue);
    unknown.type = TS_TYPE_Q4_0;
    CHECK(ts_cuda_mul_run(&unknown, 0, NULL) == cudaErrorInvalidValue);
    CHECK(ts_cuda_mul_run(&unknown, 4, NULL) == cudaErrorInvalidValue);
    CHECK(ts_cuda_dequant(NULL, false, 9, NULL, 0, 1, 32, NULL) == cudaErrorInvalidValue);
    CHECK(ts_cuda_embed(NULL, 32, 9, NULL, NULL, 1, 32, 1, NULL) == cudaErrorInvalidValue);
    return check_done("cuda_quant");
}

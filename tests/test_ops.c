/* Every operation of every table against double precision; attention with all that may surround
 * what it may read - unwritten positions, scratch, outputs - poisoned with NaN. */
#include <string.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/ops.h"
#include "gguf/type.h"

static uint64_t seed = 1;

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

static float *floats(size_t n, float spread)
{
    float *x = malloc(n * sizeof *x + 1);
    REQUIRE(x);
    for (size_t i = 0; i < n; i++)
        x[i] = spread > 0 ? spread * rnd_normal(&seed) : NAN;
    return x;
}

/* --- element by element -------------------------------------------------- */

enum { GUARD = 9 };

/* n results at y + GUARD agree with want; the guards around are still NaN. */
static void agree(const char *what, const float *y, const double *want, int64_t n, double tol)
{
    double num = 0, den = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = y[GUARD + i] - want[i];
        num += isfinite(e) ? e * e : INFINITY;
        den += want[i] * want[i];
    }
    CHECK_MSG(num <= tol * den, "%s n=%d nmse=%g", what, (int)n, num / den);
    for (int i = 0; i < GUARD; i++)
        CHECK_MSG(isnan(y[i]) && isnan(y[GUARD + n + i]), "%s n=%d writes outside", what, (int)n);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void test_elementwise(const ts_ops *ops, int64_t n)
{
    float *a = floats((size_t)n, 3), *b = floats((size_t)n, 1);
    double *want = malloc((size_t)n * sizeof *want);
    REQUIRE(want);
    for (int op = 0; op < 7; op++)
        for (int in_place = 0; in_place < 2; in_place++) {
            float *buf = floats((size_t)n + 2 * GUARD, 0), *y = buf + GUARD;
            const float *x = a;
            if (in_place)
                x = memcpy(y, a, (size_t)n * sizeof *y);
            const char *what = "";
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += (double)a[i] * a[i];
            for (int64_t i = 0; i < n; i++) {
                double g = a[i], z = sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
                double norm = g / sqrt(sum / (double)n + 1e-5);
                want[i] = op == 0   ? g + b[i]
                          : op == 1 ? g * 0.37f
                          : op == 2 ? g * sigmoid(g) * b[i]
                          : op == 3 ? g / 2 * (1 + tanh(z)) * b[i]
                          : op == 4 ? norm * b[i]
                          : op == 5 ? norm
                                    : b[i] + g;
            }
            switch (op) {
            case 0:
                what = "add", ops->add(y, x, b, n);
                break;
            case 1:
                what = "scale", ops->scale(y, x, 0.37f, n);
                break;
            case 2:
                what = "silu_mul", ops->silu_mul(y, x, b, n);
                break;
            case 3:
                what = "gelu_mul", ops->gelu_mul(y, x, b, n);
                break;
            case 4:
                what = "rms_norm", ops->rms_norm(y, x, b, n, 1e-5f);
                break;
            case 5:
                what = "rms_norm without weights", ops->rms_norm(y, x, NULL, n, 1e-5f);
                break;
            case 6:
                what = "add, second in place", ops->add(y, b, x, n);
                break;
            }
            agree(what, buf, want, n, 1e-13);
            free(buf);
        }
    free(a);
    free(b);
    free(want);
}

/* Gates where e^x leaves the floats; each element alone must be right to a few ulp. */
static void test_gates(const ts_ops *ops)
{
    enum { N = 4096 };
    static float g[N], u[N], s[N], e[N];
    for (int i = 0; i < N; i++) {
        g[i] = ((float)i - N / 2) * 0.06f;
        u[i] = 1;
    }
    g[0] = -1e30f, g[1] = 1e30f, g[2] = -0.0f, g[3] = 1e-30f;
    ops->silu_mul(s, g, u, N);
    ops->gelu_mul(e, g, u, N);
    for (int i = 0; i < N; i++) {
        double x = g[i], z = sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
        double silu = x * sigmoid(x), gelu = x * sigmoid(2 * z);
        CHECK_MSG(fabs(s[i] - silu) <= 1e-6 * fabs(silu) + 1e-36, "silu(%g) = %g", x, s[i]);
        /* z has an error of a few ulp too, and e^z multiplies it */
        CHECK_MSG(fabs(e[i] - gelu) <= (1e-6 + 4e-7 * fabs(z)) * fabs(gelu) + 1e-36,
                  "gelu(%g) = %g not %g", x, e[i], gelu);
    }
    g[0] = NAN;
    ops->silu_mul(s, g, u, 9);
    ops->gelu_mul(e, g, u, 9);
    CHECK(isnan(s[0]) && isnan(e[0]) && !isnan(s[1]) && !isnan(e[1]));
}

static void test_rope(const ts_ops *ops, int64_t n_rot, bool neox)
{
    float *x = floats((size_t)n_rot, 1), *cs = floats((size_t)n_rot, 1);
    float *buf = floats((size_t)n_rot + 2 * GUARD, 0);
    double *want = malloc((size_t)n_rot * sizeof *want + 1);
    REQUIRE(want);
    memcpy(buf + GUARD, x, (size_t)n_rot * sizeof *x);
    for (int64_t i = 0; i < n_rot / 2; i++) {
        int64_t i0 = neox ? i : 2 * i, i1 = neox ? i + n_rot / 2 : 2 * i + 1;
        double c = cs[2 * i], s = cs[2 * i + 1];
        want[i0] = x[i0] * c - x[i1] * s;
        want[i1] = x[i0] * s + x[i1] * c;
    }
    ops->rope(buf + GUARD, cs, n_rot, neox);
    agree(neox ? "rope neox" : "rope norm", buf, want, n_rot, 1e-13);
    free(x);
    free(cs);
    free(buf);
    free(want);
}

/* All halves and what lies between two of them, odd lengths, infinities and NaNs: bits of the
 * definition. */
static void test_to_f16(const ts_ops *ops)
{
    enum { N = 7 * 65536 + 3 };
    float *x = malloc(N * sizeof *x);
    uint16_t *y = malloc(N * sizeof *y);
    REQUIRE(x && y);
    for (int i = 0; i < 65536; i++) {
        float h = ts_f16_to_f32((uint16_t)i);
        uint32_t bits;
        memcpy(&bits, &h, 4);
        /* exact, just off, at and just off the middle of the next two halves */
        const uint32_t off[7] = {0, 1, (uint32_t)-1, 0x1000, 0xfff, 0x1001, 0x2fff};
        for (int j = 0; j < 7; j++) {
            uint32_t v = bits + off[j];
            memcpy(&x[7 * i + j], &v, 4);
        }
    }
    x[N - 3] = 1e30f, x[N - 2] = -65520, x[N - 1] = 1e-30f;
    ops->to_f16(y, x, N);
    int bad = 0;
    for (int i = 0; i < N; i++)
        bad += y[i] != ts_f32_to_f16(x[i]);
    CHECK_MSG(bad == 0, "%d of %d halves differ", bad, N);
    CHECK(y[N - 3] == 0x7c00 && y[N - 2] == 0xfc00 && y[N - 1] == 0);
    free(x);
    free(y);
}

/* --- attention ------------------------------------------------------------ */

typedef struct shape {
    int64_t n_tokens, n_group, head_dim, pos0, k0, k1, window;
    float softcap;
} shape;

typedef struct data {
    int64_t ld;         /* row stride of q                                        */
    int64_t n;          /* positions in the cache: those written, and poison      */
    float *q;           /* [n_tokens][ld]                                         */
    uint16_t *k, *v;    /* [n][head_dim]                                          */
    size_t scratch_len; /* bytes                                                  */
    char *scratch, *scratch_raw;
} data;

static bool visible(const shape *s, int64_t t, int64_t p)
{
    int64_t pos = s->pos0 + t;
    return p >= s->k0 && p < s->k1 && p <= pos && (s->window == 0 || pos - p < s->window);
}

static float scale_of(const shape *s)
{
    return 1.7f / sqrtf((float)s->head_dim);
}

static uint16_t *halves(const shape *s, int64_t n)
{
    uint16_t *x = malloc((size_t)(n * s->head_dim) * sizeof *x);
    REQUIRE(x);
    for (int64_t p = 0; p < n; p++) {
        bool seen = false;
        for (int64_t t = 0; t < s->n_tokens; t++)
            seen |= visible(s, t, p);
        for (int64_t i = 0; i < s->head_dim; i++)
            x[p * s->head_dim + i] = seen ? ts_f32_to_f16(rnd_normal(&seed)) : 0x7e00; /* NaN */
    }
    return x;
}

static data make_data(const shape *s)
{
    data d = {.ld = s->n_group * s->head_dim + rnd(0, 5), .n = s->pos0 + s->n_tokens};
    d.q = floats((size_t)(s->n_tokens * d.ld), 1);
    d.k = halves(s, d.n);
    d.v = halves(s, d.n);
    d.scratch_len = ts_attend_scratch(s->n_group, s->head_dim);
    d.scratch_raw = malloc(d.scratch_len + 128);
    REQUIRE(d.scratch_raw);
    d.scratch = d.scratch_raw + (64 - (uintptr_t)d.scratch_raw % 64);
    return d;
}

static void free_data(data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->scratch_raw);
}

/* Tokens t0..t1 of s; o is [n_tokens][n_group * head_dim + 3]. Guards around the scratch stay. */
static void run(const ts_ops *ops, const shape *s, const data *d, int64_t t0, int64_t t1, float *o,
                float *part)
{
    ts_attend p = {
        .q = d->q + t0 * d->ld,
        .o = o,
        .k = d->k,
        .v = d->v,
        .ldq = d->ld,
        .ldo = part ? s->n_group * s->head_dim : s->n_group * s->head_dim + 3,
        .n_tokens = t1 - t0,
        .n_group = s->n_group,
        .head_dim = s->head_dim,
        .pos0 = s->pos0 + t0,
        .k0 = s->k0,
        .k1 = s->k1,
        .window = s->window,
        .scale = scale_of(s),
        .softcap = s->softcap,
        .part = part,
        .scratch = d->scratch,
    };
    memset(d->scratch, 0xff, d->scratch_len); /* NaN in F32 and F16 */
    d->scratch[-1] = d->scratch[d->scratch_len] = 42;
    ops->attend(&p);
    CHECK(d->scratch[-1] == 42 && d->scratch[d->scratch_len] == 42);
}

/* One row in double precision: softmax over everything visible. */
static void naive_row(const shape *s, const data *d, int64_t t, int64_t g, double *o)
{
    const float *q = d->q + t * d->ld + g * s->head_dim;
    double max = -INFINITY, sum = 0;
    double *e = malloc((size_t)d->n * sizeof *e);
    REQUIRE(e);
    for (int64_t p = 0; p < d->n; p++) {
        e[p] = -INFINITY;
        if (!visible(s, t, p))
            continue;
        double dot = 0;
        for (int64_t i = 0; i < s->head_dim; i++)
            dot += (double)q[i] * ts_f16_to_f32(d->k[p * s->head_dim + i]);
        e[p] = dot * scale_of(s);
        if (s->softcap > 0)
            e[p] = s->softcap * tanh(e[p] / s->softcap);
        max = e[p] > max ? e[p] : max;
    }
    for (int64_t i = 0; i < s->head_dim; i++)
        o[i] = 0;
    for (int64_t p = 0; p < d->n; p++) {
        if (e[p] == -INFINITY)
            continue;
        double w = exp(e[p] - max);
        sum += w;
        for (int64_t i = 0; i < s->head_dim; i++)
            o[i] += w * ts_f16_to_f32(d->v[p * s->head_dim + i]);
    }
    for (int64_t i = 0; i < s->head_dim; i++)
        o[i] = sum > 0 ? o[i] / sum : 0;
    free(e);
}

#define SHAPE_FMT "m=%d g=%d hd=%d pos0=%d k=%d..%d win=%lld cap=%g"
#define SHAPE_ARGS(s)                                                                              \
    (int)(s)->n_tokens, (int)(s)->n_group, (int)(s)->head_dim, (int)(s)->pos0, (int)(s)->k0,       \
        (int)(s)->k1, (long long)(s)->window, (double)(s)->softcap

static double worst; /* mean square error of a row */

static void check_naive(const ts_ops *ops, const shape *s, const data *d, const float *o)
{
    int64_t ldo = s->n_group * s->head_dim + 3;
    double *want = malloc((size_t)s->head_dim * sizeof *want);
    REQUIRE(want);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        for (int64_t g = 0; g < s->n_group; g++) {
            naive_row(s, d, t, g, want);
            /* V has unit variance: an error is measured against that, as a row's sum may cancel */
            double mse = 0;
            for (int64_t i = 0; i < s->head_dim; i++) {
                double e = o[t * ldo + g * s->head_dim + i] - want[i];
                mse += (isfinite(e) ? e * e : INFINITY) / (double)s->head_dim;
            }
            worst = mse > worst ? mse : worst;
            CHECK_MSG(mse <= 5e-12, "%s " SHAPE_FMT " t=%d g=%d: mse %g", ts_isa_name(ops->isa),
                      SHAPE_ARGS(s), (int)t, (int)g, mse);
        }
        for (int64_t i = s->n_group * s->head_dim; i < ldo; i++)
            CHECK_MSG(isnan(o[t * ldo + i]), "%s " SHAPE_FMT " writes past row %d",
                      ts_isa_name(ops->isa), SHAPE_ARGS(s), (int)t);
    }
    free(want);
}

/* Each token alone, and a run of them from the middle: the bits of the whole task. */
static void check_alone(const ts_ops *ops, const shape *s, const data *d, const float *whole)
{
    int64_t ldo = s->n_group * s->head_dim + 3, n = s->n_group * s->head_dim;
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        int64_t t1 = t % 3 == 2 ? rnd(t + 1, s->n_tokens) : t + 1;
        run(ops, s, d, t, t1, o, NULL);
        for (int64_t i = t; i < t1; i++)
            CHECK_MSG(!memcmp(o + (i - t) * ldo, whole + i * ldo, (size_t)n * sizeof *o),
                      "%s " SHAPE_FMT " token %d in %d..%d differs from the whole task",
                      ts_isa_name(ops->isa), SHAPE_ARGS(s), (int)i, (int)t, (int)t1);
    }
    free(o);
}

/* Cut into parts at `cuts`, merged: equal to the whole, bit for bit when cut by segments. */
static void check_parts(const ts_ops *ops, const shape *s, const data *d, const float *whole,
                        const int64_t *cuts, int64_t n_parts, bool exact)
{
    int64_t rows = s->n_tokens * s->n_group, n = s->n_group * s->head_dim, ldo = n + 3;
    size_t len = (size_t)(n_parts * rows * s->head_dim);
    float *po = floats(len, 0), *part = floats((size_t)(2 * n_parts * rows), 0);
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    for (int64_t i = 0; i < n_parts; i++) {
        shape cut = *s;
        cut.k0 = cuts[i] > s->k0 ? cuts[i] : s->k0;
        cut.k1 = cuts[i + 1] < s->k1 ? cuts[i + 1] : s->k1;
        run(ops, &cut, d, 0, s->n_tokens, po + i * rows * s->head_dim, part + 2 * i * rows);
        for (int64_t r = 0; r < rows; r++) {
            bool any = false;
            for (int64_t p = 0; p < d->n; p++)
                any |= visible(&cut, r / s->n_group, p);
            const float *ml = part + 2 * (i * rows + r);
            CHECK(any ? isfinite(ml[0]) && ml[1] >= 1 : ml[0] == -INFINITY && ml[1] == 0);
        }
    }
    ts_attend_merge(o, ldo, po, part, n_parts, s->n_tokens, s->n_group, s->head_dim);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        const float *a = whole + t * ldo, *b = o + t * ldo;
        double e = 0;
        for (int64_t j = 0; j < n; j++)
            e += ((double)a[j] - b[j]) * ((double)a[j] - b[j]) / (double)n;
        CHECK_MSG(exact ? !memcmp(a, b, (size_t)n * sizeof *a) : e <= 1e-11,
                  "%s " SHAPE_FMT " merged from %d parts, token %d: mse %g", ts_isa_name(ops->isa),
                  SHAPE_ARGS(s), (int)n_parts, (int)t, e);
        CHECK(isnan(b[n]) && isnan(b[n + 2]));
    }
    free(po);
    free(part);
    free(o);
}

/* A NaN in one query shows in its row and nowhere else. */
static void check_nan(const ts_ops *ops, const shape *s, data *d, const float *whole)
{
    int64_t ldo = s->n_group * s->head_dim + 3, t = rnd(0, s->n_tokens - 1);
    int64_t g = rnd(0, s->n_group - 1);
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    d->q[t * d->ld + g * s->head_dim + rnd(0, s->head_dim - 1)] = NAN;
    run(ops, s, d, 0, s->n_tokens, o, NULL);
    bool any = false;
    for (int64_t p = 0; p < d->n; p++)
        any |= visible(s, t, p);
    for (int64_t i = 0; i < s->n_tokens; i++)
        for (int64_t j = 0; j < s->n_group; j++) {
            const float *a = o + i * ldo + j * s->head_dim, *b = whole + (a - o);
            if (i != t || j != g)
                CHECK(!memcmp(a, b, (size_t)s->head_dim * sizeof *a));
            else
                CHECK_MSG(isnan(a[0]) == any, SHAPE_FMT, SHAPE_ARGS(s));
        }
    free(o);
}

static void test_attend(const ts_ops *ops, const shape *s)
{
    data d = make_data(s);
    size_t len = (size_t)(s->n_tokens * (s->n_group * s->head_dim + 3));
    float *o = floats(len, 0);
    run(ops, s, &d, 0, s->n_tokens, o, NULL);
    check_naive(ops, s, &d, o);
    check_alone(ops, s, &d, o);

    int64_t end = s->pos0 + s->n_tokens;
    int64_t cuts[5] = {0, rnd(0, end), 0, 0, end + 7};
    cuts[2] = rnd(cuts[1], end);
    cuts[3] = rnd(cuts[2], end); /* parts may be empty */
    check_parts(ops, s, &d, o, cuts, 4, false);
    int64_t segments[8] = {0};
    int64_t n = 0;
    while (segments[n] < end && n < 7)
        segments[n + 1] = segments[n] + TS_ATTEND_SEGMENT, n++;
    check_parts(ops, s, &d, o, segments, n, true);
    check_nan(ops, s, &d, o);
    free(o);
    free_data(&d);
}

static shape random_shape(void)
{
    static const int64_t dims[] = {8,  16,  24,  32,  40, 64, 64, 72, 80,
                                   96, 128, 128, 256, 1,  5,  18, 77};
    static const int64_t edges[] = {0,   1,   15,  16,  48,  63,  64, 65,
                                    127, 128, 496, 511, 512, 513, 640};
    shape s = {.n_tokens = rnd(0, 3) ? rnd(1, TS_ATTEND_TOKENS) : 1,
               .n_group = rnd(1, 8),
               .head_dim = dims[rnd(0, sizeof dims / sizeof *dims - 1)]};
    s.pos0 = rnd(0, 1) ? rnd(0, 700) : edges[rnd(0, sizeof edges / sizeof *edges - 1)];
    if (s.head_dim > 100 && s.n_group > 4)
        s.n_group = 4; /* the naive loops take their time */
    int64_t end = s.pos0 + s.n_tokens;
    switch (rnd(0, 7)) {
    case 0:
        s.window = 1;
        break;
    case 1:
        s.window = rnd(1, 64);
        break;
    case 2:
        s.window = rnd(1, end + 10);
        break;
    case 3:
        s.window = INT64_MAX;
        break;
    }
    s.softcap = rnd(0, 2) ? 0 : 2.5f;
    s.k1 = rnd(0, 2) ? end + rnd(0, 100) : rnd(0, end);
    s.k0 = rnd(0, 3) ? 0 : rnd(0, end);
    return s;
}

int main(void)
{
    static const ts_isa isas[] = {TS_ISA_REF, TS_ISA_AVX2};
    CHECK(ts_ops_get(TS_ISA_REF)->isa == TS_ISA_REF);
    CHECK(ts_ops_get(TS_ISA_AVX2)->isa == TS_ISA_AVX2);
    CHECK(ts_ops_get(TS_ISA_AMX)->isa == TS_ISA_AVX2);
    for (int i = 0; i < 2; i++) {
        if (isas[i] == TS_ISA_AVX2 && !ts_cpu_get()->avx2)
            continue;
        const ts_ops *ops = ts_ops_get(isas[i]);
        for (int64_t n = 1; n <= 70; n++)
            test_elementwise(ops, n);
        test_elementwise(ops, 4099);
        test_gates(ops);
        for (int64_t n = 2; n <= 66; n += 2) {
            test_rope(ops, n, true);
            test_rope(ops, n, false);
        }
        test_rope(ops, 256, true);
        test_to_f16(ops);
        for (int c = 0; c < 250; c++) {
            shape s = random_shape();
            test_attend(ops, &s);
        }
        /* the scratch of a task is the same at any position: it runs far out too */
        shape far = {.n_tokens = 3, .n_group = 2, .head_dim = 64, .pos0 = 2500, .k1 = 5000};
        test_attend(ops, &far);
        printf("%s: attention's greatest mse %.2g\n", ts_isa_name(isas[i]), worst);
        worst = 0;
    }
    return check_done("ops");
}

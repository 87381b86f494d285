/* Every operation of every table but attention (test_attend.c) against double precision. */
#include <string.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/ops.h"

static uint64_t seed = 1;

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

static double clamped(double g, double u)
{
    g = g > 7 ? 7 : g;
    u = u > 7 ? 7 : u < -7 ? -7 : u;
    return g * sigmoid(1.702 * g) * (u + 1);
}

static void test_elementwise(const ts_ops *ops, int64_t n)
{
    float *a = floats((size_t)n, 3), *b = floats((size_t)n, 1);
    double *want = malloc((size_t)n * sizeof *want);
    REQUIRE(want);
    for (int op = 0; op < 9; op++)
        for (int in_place = 0; in_place < 2; in_place++) {
            float *buf = floats((size_t)n + 2 * GUARD, 0), *y = buf + GUARD;
            const float *x = a;
            if (in_place)
                x = memcpy(y, a, (size_t)n * sizeof *y);
            const char *what = "";
            double sum = 0, mean = 0;
            for (int64_t i = 0; i < n; i++) {
                sum += (double)a[i] * a[i];
                mean += (double)a[i] / (double)n;
            }
            for (int64_t i = 0; i < n; i++) {
                double g = a[i], z = sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
                double norm = g / sqrt(sum / (double)n + 1e-5);
                want[i] = op == 0   ? g + b[i]
                          : op == 1 ? g * 0.37f
                          : op == 2 ? g * sigmoid(g) * b[i]
                          : op == 3 ? g / 2 * (1 + tanh(z)) * b[i]
                          : op == 4 ? norm * b[i]
                          : op == 5 ? norm
                          : op == 8 ? clamped(g, b[i])
                          : op == 6 ? b[i] + g
                                    : g - mean;
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
            case 8:
                what = "clamped_mul", ops->clamped_mul(y, x, b, n);
                break;
            case 6:
                what = "add, second in place", ops->add(y, b, x, n);
                break;
            case 7:
                what = "center", ops->center(y, x, n);
                break;
            }
            agree(what, buf, want, n, op == 8 ? 1e-12 : 1e-13);
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
    static float g[N], u[N], s[N], e[N], c[N];
    for (int i = 0; i < N; i++) {
        g[i] = ((float)i - N / 2) * 0.06f;
        u[i] = 1;
    }
    g[0] = -1e30f, g[1] = 1e30f, g[2] = -0.0f, g[3] = 1e-30f;
    ops->silu_mul(s, g, u, N);
    ops->gelu_mul(e, g, u, N);
    ops->clamped_mul(c, g, g, N);
    for (int i = 0; i < N; i++) {
        double x = g[i], z = sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
        double silu = x * sigmoid(x), gelu = x * sigmoid(2 * z);
        CHECK_MSG(fabs(s[i] - silu) <= 1e-6 * fabs(silu) + 1e-36, "silu(%g) = %g", x, s[i]);
        /* z has an error of a few ulp too, and e^z multiplies it */
        CHECK_MSG(fabs(e[i] - gelu) <= (1e-6 + 4e-7 * fabs(z)) * fabs(gelu) + 1e-36,
                  "gelu(%g) = %g not %g", x, e[i], gelu);
    }
    for (int i = 0; i < N; i++) {
        const double want = clamped(g[i], g[i]);
        const double limit = (1e-6 + 4e-7 * fabs(1.702 * g[i])) * fabs(want) + 2e-36; /* as gelu */
        CHECK_MSG(fabs(c[i] - want) <= limit, "clamped(%g) = %g not %g", g[i], c[i], want);
    }
    g[0] = NAN;
    ops->clamped_mul(c, g, u, 9);
    ops->clamped_mul(c + 9, u, g, 9);
    CHECK(isnan(c[0]) && isnan(c[9]) && !isnan(c[1]) && !isnan(c[10]));
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

int main(void)
{
    for (ts_isa isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++) {
        const ts_ops *ops = ts_ops_get(isa);
        const char *why;
        CHECK(ops->isa == isa);
        /* the amx table's operations are those of avx512 */
        if (!ts_isa_usable(ts_cpu_get(), isa == TS_ISA_AMX ? TS_ISA_AVX512 : isa, &why)) {
            printf("%s: skipped, %s\n", ts_isa_name(isa), why);
            continue;
        }
        for (int64_t n = 1; n <= 70; n++)
            test_elementwise(ops, n);
        test_elementwise(ops, 4099);
        test_gates(ops);
        for (int64_t n = 2; n <= 66; n += 2) {
            test_rope(ops, n, true);
            test_rope(ops, n, false);
        }
        test_rope(ops, 256, true);
    }
    return check_done("ops");
}

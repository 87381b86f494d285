/* ops_ref.c - the operations as plain loops: what the other tables are compared with. */
#include <math.h>

#include "cpu/attend.h"
#include "cpu/ops_tables.h"

static void rms_norm(float *y, const float *x, const float *w, int64_t d, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++)
        sum += (double)x[i] * x[i];
    float f = (float)(1 / sqrt(sum / (double)d + (double)eps));
    for (int64_t i = 0; i < d; i++)
        y[i] = x[i] * f * (w ? w[i] : 1);
}

static void center(float *y, const float *x, int64_t d)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++)
        sum += x[i];
    float mean = (float)(sum / (double)d);
    for (int64_t i = 0; i < d; i++)
        y[i] = x[i] - mean;
}

static void rope(float *x, const float *cs, int64_t n_rot, bool neox)
{
    int64_t half = n_rot / 2;
    for (int64_t i = 0; i < half; i++) {
        int64_t i0 = neox ? i : 2 * i, i1 = neox ? i + half : 2 * i + 1;
        float a = x[i0], b = x[i1], c = cs[2 * i], s = cs[2 * i + 1];
        x[i0] = a * c - b * s;
        x[i1] = a * s + b * c;
    }
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void scale(float *y, const float *x, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * s;
}

static void mad(float *y, const float *x, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i] * s;
}

/* silu(g) = g / (1 + e^-g) */
static void silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = g[i] / (1 + expf(-g[i])) * u[i];
}

/* gelu(g) = g/2 * (1 + tanh(sqrt(2/pi) * (g + 0.044715 g^3))) (arXiv:1606.08415), written as
 * g / (1 + e^-2z), which doesn't cancel for negative g. */
static void gelu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float z = 0.7978845608f * (g[i] + 0.044715f * g[i] * g[i] * g[i]);
        y[i] = g[i] / (1 + expf(-2 * z)) * u[i];
    }
}

/* NaN stays NaN: it is neither below nor above. */
static void clamped_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float a = g[i] > 7 ? 7 : g[i], b = u[i] > 7 ? 7 : u[i] < -7 ? -7 : u[i];
        y[i] = a / (1 + expf(-1.702f * a)) * (b + 1);
    }
}

const ts_ops ts_ops_ref = {
    .isa = TS_ISA_REF,
    .rms_norm = rms_norm,
    .center = center,
    .rope = rope,
    .add = add,
    .scale = scale,
    .mad = mad,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .clamped_mul = clamped_mul,
    .kv = &ts_kv_ref,
    .attend_scratch = ts_attend_run_scratch,
    .attend = attend_ref,
    .merge = ts_attend_run_merge,
};

/* kset_case.h - what the tests of kernel sets share: the list of sets, poisoned memory, random
 * weights and activations, and the comparison of a product with what it should be.
 *
 * A set has a name, TYPE/ISA, or TYPE/ISA/standin for a kernel that is compiled with the stand-in
 * for wide instructions and so runs anywhere. */
#ifndef TS_KSET_CASE_H
#define TS_KSET_CASE_H

#include "check.h"

#include <string.h>

#include "base/cpu.h"
#include "cpu/kset.h"

static uint64_t seed;

#define STANDIN_ref(T, F)
#define STANDIN_avx2(T, F)
#define STANDIN_avx512(T, F) F(ts_kset_##T##_avx512_standin)
#define STANDIN_amx(T, F)    F(ts_kset_##T##_amx_standin)
#define TS_KSET(T, isa)      STANDIN_##isa(T, DECLARE)
#define DECLARE(name)        extern const ts_kset name;
#include "cpu/kset/kset.def"
#undef TS_KSET
#define ENTRY(name)     &name,
#define TS_KSET(T, isa) STANDIN_##isa(T, ENTRY)
static const ts_kset *const standins[] = {
#include "cpu/kset/kset.def"
};
#undef TS_KSET
enum { N_STANDINS = sizeof standins / sizeof *standins };

/* The name of a set; valid until four more have been asked for. */
static const char *set_name(const ts_kset *s)
{
    static char names[4][40];
    static int next;
    char *name = names[next++ % 4];
    bool standin = false;
    for (size_t i = 0; i < N_STANDINS; i++)
        standin = standin || standins[i] == s;
    snprintf(name, sizeof names[0], "%s/%s%s", ts_type_get(s->type)->name, ts_isa_name(s->isa),
             standin ? "/standin" : "");
    return name;
}

/* --- memory ----------------------------------------------------------------------------- */

/* Memory of exactly `bytes` bytes, so that a sanitizer sees the end; 64-byte aligned, full of NaN.
 */
static void *poisoned(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0)
        exit(2);
    memset(p, 0xff, bytes);
    return p;
}

static bool is_poison(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u == 0xffffffffu;
}

/* A y of m tokens, and 16 more: a tile of tokens that writes all of its columns is seen without a
 * sanitizer too. */
static float *poisoned_y(int64_t m, int64_t ldy)
{
    return poisoned((size_t)((m + 16) * ldy) * sizeof(float));
}

/* --- random data ---------------------------------------------------------------------------- */

static void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t u = rnd_u64(&seed);
        memcpy((uint8_t *)p + i, &u, n - i < 8 ? n - i : 8);
    }
}

/* Where a type keeps its halves; the other bytes of a block may hold anything. */
static const struct {
    ts_type type;
    int at[2]; /* -1: none */
} halves[] = {
    {TS_TYPE_Q4_0, {0, -1}},   {TS_TYPE_Q4_1, {0, 2}},    {TS_TYPE_Q5_0, {0, -1}},
    {TS_TYPE_Q5_1, {0, 2}},    {TS_TYPE_Q8_0, {0, -1}},   {TS_TYPE_Q2_K, {80, 82}},
    {TS_TYPE_Q3_K, {108, -1}}, {TS_TYPE_Q4_K, {0, 2}},    {TS_TYPE_Q5_K, {0, 2}},
    {TS_TYPE_Q6_K, {208, -1}}, {TS_TYPE_IQ4_NL, {0, -1}}, {TS_TYPE_IQ4_XS, {0, -1}},
};

static uint16_t finite_half(float f)
{
    return ts_f32_to_f16(fmaxf(fminf(f, 65504), -65504));
}

/* Random finite weights; scale: what the halves are about. fill < 0: random codes, else that byte.
 */
static void random_weights(ts_type type, uint8_t *w, size_t bytes, float scale, int fill)
{
    const ts_type_info *info = ts_type_get(type);
    random_bytes(w, bytes);
    if (fill >= 0)
        memset(w, fill, bytes);
    for (size_t i = 0; i < bytes; i += (size_t)info->bytes) {
        float v = scale * rnd_normal(&seed);
        uint16_t h = type == TS_TYPE_BF16 ? ts_f32_to_bf16(v) : finite_half(v);
        if (type == TS_TYPE_F32)
            memcpy(w + i, &v, 4);
        else if (type == TS_TYPE_F16 || type == TS_TYPE_BF16)
            memcpy(w + i, &h, 2);
        else if (type == TS_TYPE_MXFP4)
            w[i] = (uint8_t)(120 + rnd_u64(&seed) % 10);
        for (size_t j = 0; j < sizeof halves / sizeof *halves; j++)
            for (int l = 0; l < 2 && halves[j].type == type && halves[j].at[l] >= 0; l++) {
                h = finite_half(scale * (fill >= 0 ? 1 : rnd_normal(&seed)));
                memcpy(w + i + halves[j].at[l], &h, 2);
            }
    }
}

static void random_x(float *x, int64_t m, int64_t k, int64_t ldx)
{
    for (int64_t t = 0; t < m; t++)
        for (int64_t i = 0; i < k; i++)
            x[t * ldx + i] = rnd_normal(&seed) + (i % 7 == 0 ? 0.5f : 0);
}

/* --- one product -------------------------------------------------------------------------------
 */

/* The operands of y[m][n] = x[m][k] * W[n][k]^T, and how large its values are expected to be: a sum
 * of k terms whose signs are chance is about |row of w| |row of x| / sqrt(k). An error is measured
 * by that and not by the sum itself, which may happen to cancel. */
typedef struct operands {
    int64_t m, n, k, ldx;
    uint8_t *w;
    float *x;
    double *w_norm, *x_norm; /* |row| [n], |row| / sqrt(k) [m] */
} operands;

static void measure(operands *o, ts_type type)
{
    const ts_type_info *info = ts_type_get(type);
    float *row = poisoned((size_t)o->k * sizeof *row);
    for (int64_t i = 0; i < o->n; i++) {
        double sum = 0;
        info->to_f32(row, o->w + (size_t)i * ts_row_bytes(info, o->k), o->k);
        for (int64_t j = 0; j < o->k; j++)
            sum += (double)row[j] * row[j];
        o->w_norm[i] = sqrt(sum);
    }
    for (int64_t t = 0; t < o->m; t++) {
        double sum = 0;
        for (int64_t j = 0; j < o->k; j++)
            sum += (double)o->x[t * o->ldx + j] * o->x[t * o->ldx + j];
        o->x_norm[t] = sqrt(sum / (double)o->k);
    }
    free(row);
}

/* Memory for the operands; the caller fills w and x and calls measure. */
static operands operands_new(ts_type type, int64_t m, int64_t n, int64_t k, int64_t ldx)
{
    operands o = {.m = m, .n = n, .k = k, .ldx = ldx};
    o.w = poisoned((size_t)n * ts_row_bytes(ts_type_get(type), k));
    o.x = poisoned((size_t)((m - 1) * ldx + k) * sizeof *o.x);
    o.w_norm = poisoned((size_t)n * sizeof *o.w_norm);
    o.x_norm = poisoned((size_t)m * sizeof *o.x_norm);
    return o;
}

static operands operands_random(ts_type type, int64_t m, int64_t n, int64_t k, int64_t ldx)
{
    operands o = operands_new(type, m, n, k, ldx);
    random_weights(type, o.w, (size_t)n * ts_row_bytes(ts_type_get(type), k), 0.25f, -1);
    random_x(o.x, m, k, ldx);
    measure(&o, type);
    return o;
}

static void operands_free(operands *o)
{
    free(o->w);
    free(o->x);
    free(o->w_norm);
    free(o->x_norm);
}

/* y[m][n] with stride ldy (of poisoned_y) against want[m][n]: each element close, the whole closer,
 * nothing else written. A few elements have no mean worth the name. */
static void compare(const char *what, const ts_kset *s, const operands *o, const float *want,
                    const float *y, int64_t ldy, double limit)
{
    const int64_t m = o->m, n = o->n;
    double err = 0, worst = 0;
    int64_t at = 0;
    bool outside = true;
    for (int64_t t = 0; t < m; t++) {
        for (int64_t i = 0; i < n; i++) {
            double e = fabs((double)want[t * n + i] - y[t * ldy + i]);
            e = e == 0 ? 0 : e / (o->w_norm[i] * o->x_norm[t]);
            if (!(e <= worst)) {
                worst = isnan(e) ? INFINITY : e;
                at = t * n + i;
            }
            err += e * e;
        }
        for (int64_t i = n; i < ldy; i++)
            outside = outside && is_poison(y[t * ldy + i]);
    }
    for (int64_t i = m * ldy; i < (m + 16) * ldy; i++)
        outside = outside && is_poison(y[i]);
    err /= (double)(m * n);
    CHECK_MSG((err <= limit || m * n < 32) && worst <= 6 * sqrt(limit),
              "%s %s m=%d n=%d k=%d: error %.2g, worst %.2g at token %d row %d: %g not %g", what,
              set_name(s), (int)m, (int)n, (int)o->k, sqrt(err), worst, (int)(at / n),
              (int)(at % n), (double)y[at / n * ldy + at % n], (double)want[at]);
    CHECK_MSG(outside, "%s %s m=%d n=%d k=%d: wrote beside its columns", what, set_name(s), (int)m,
              (int)n, (int)o->k);
}

#endif

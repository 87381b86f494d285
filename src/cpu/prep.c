/* prep.c - activations for the ref kernel sets: floats as they are, or quantised to 8 bits and made
 * floats again. */
#include "cpu/prep.h"

#include <math.h>
#include <string.h>

static size_t bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)k * sizeof(float);
}

static void f32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                    int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    for (int64_t t = m0; t < m1; t++)
        memcpy((float *)dst + t * k + k0, x + t * ldx + k0, (size_t)(k1 - k0) * sizeof(float));
}

/* y[n] = q * d of one block x[n]. */
static void block(float *y, const float *x, int n)
{
    float max = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        max = fmaxf(max, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    float scale = finite && max >= TS_ACT_TINY ? 127 / max : 0;
    float d = !finite ? NAN : scale > 0 ? max / 127 : 0;
    for (int i = 0; i < n; i++)
        y[i] = (finite ? rintf(x[i] * scale) : 0) * d;
}

static void q8_run(void *dst, const float *x, int64_t ldx, int64_t k, int64_t m0, int64_t m1,
                   int64_t k0, int64_t k1, int n)
{
    for (int64_t t = m0; t < m1; t++)
        for (int64_t i = k0; i < k1; i += n)
            block((float *)dst + t * k + i, x + t * ldx + i, n);
}

static void q8_32_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                      int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    q8_run(dst, x, ldx, k, m0, m1, k0, k1, 32);
}

static void q8_256_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1, int64_t k0, int64_t k1)
{
    (void)m;
    q8_run(dst, x, ldx, k, m0, m1, k0, k1, 256);
}

const ts_prep ts_prep_f32_ref = {TS_ACT_F32, TS_ISA_REF, 1, 1, 1, bytes, f32_run, 0, 0, 0};
const ts_prep ts_prep_q8_32_ref = {TS_ACT_Q8_32, TS_ISA_REF, 1, 1, 32, bytes, q8_32_run, 0, 0, 0};
const ts_prep ts_prep_q8_256_ref = {TS_ACT_Q8_256, TS_ISA_REF, 1, 1, 256,
                                    bytes,         q8_256_run, 0, 0, 0};

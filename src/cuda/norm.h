/* norm.h - the sum of an rms_norm, in one order of additions for all kernels that have a norm in
 * them: what is fused is the same to the last bit.
 *
 * A block of TS_NORM_THREADS has a row; thread t adds elements 4 t .. 4 t + 3 of each 2048. */
#ifndef TS_CUDA_NORM_H
#define TS_CUDA_NORM_H

#include "cuda/standin.h"

enum { TS_NORM_THREADS = 512, TS_NORM_RUN = 4 * TS_NORM_THREADS };

/* x[i..i+3], zeros past the end d. */
TS_DEVICE void ts_load4(float *v, const float *x, int64_t i, int64_t d, bool wide)
{
    if (wide && i + 4 <= d) {
        float4 u = *(const float4 *)(x + i);
        v[0] = u.x, v[1] = u.y, v[2] = u.z, v[3] = u.w;
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        v[j] = i + j < d ? x[i + j] : 0;
}

TS_DEVICE void ts_store4(float *y, const float *v, int64_t i, int64_t d, bool wide)
{
    if (wide && i + 4 <= d) {
        *(float4 *)(y + i) = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < d)
            y[i + j] = v[j];
}

/* h[4] to halves i..i+3 of a row of d. */
TS_DEVICE void ts_store_halves4(uint16_t *y, const uint32_t *h, int64_t i, int64_t d)
{
    if (i + 4 <= d && (uintptr_t)(y + i) % 8 == 0) {
        *(uint2 *)(y + i) = make_uint2(h[0] | h[1] << 16, h[2] | h[3] << 16);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < d)
            y[i + j] = (uint16_t)h[j];
}

TS_DEVICE bool ts_wide(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

TS_DEVICE float ts_squares(const float *v)
{
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; j++)
        sum = __fadd_rn(sum, __fmul_rn(v[j], v[j]));
    return sum;
}

/* The threads' sums together, in all threads. */
TS_DEVICE float ts_norm_sum(float sum)
{
    TS_SHARED_ARRAY(float, part, [TS_NORM_THREADS / 32]);
#pragma unroll
    for (int off = 16; off; off /= 2)
        sum += __shfl_xor_sync(~0u, sum, off);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int i = 0; i < TS_NORM_THREADS / 32; i++)
        sum += part[i];
    __syncthreads(); /* `part` may be written again */
    return sum;
}

/* 1 / sqrt(mean + eps) from the threads' sums of squares, in all threads. */
TS_DEVICE float ts_norm_of(float sum, int64_t d, float eps)
{
    return 1 / sqrtf(ts_norm_sum(sum) / (float)d + eps);
}

/* What rms_norm multiplies a row by. */
TS_DEVICE float ts_norm_factor(const float *x, int64_t d, float eps)
{
    const bool wide = ts_wide(x);
    float sum = 0;
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4];
        ts_load4(v, x, i, d, wide);
        sum = __fadd_rn(sum, ts_squares(v));
    }
    return ts_norm_of(sum, d, eps);
}

#endif

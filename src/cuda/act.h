/* act.h - how 32 floats become 15-bit activations (quant.h), for the kernels that make them. */
#ifndef TS_CUDA_ACT_H
#define TS_CUDA_ACT_H

#include "cuda/quant.h"
#include "cuda/standin.h"

/* d, and in *scale what elements are multiplied with, from the bits of max|x| (cpu/prep.h). */
TS_DEVICE float ts_act_scale(int bits, float *scale)
{
    float max = __int_as_float(bits);
    *scale = 0;
    if (bits >= 0x7f800000)
        return __int_as_float(0x7fc00000);
    if (max < 1e-30f)
        return 0;
    *scale = 16256 / max;
    return max / 16256;
}

/* 128 h + l = x / d, rounded. */
TS_DEVICE int ts_act_code(float x, float scale, int *h)
{
    int q = scale > 0 ? __float2int_rn(__fmul_rn(x, scale)) : 0;
    *h = (q + 64) >> 7;
    return q;
}

/* Where the block with element i of a token's k lies; its parts are 512 bytes apart. */
TS_DEVICE uint8_t *ts_act_at(uint8_t *act, int64_t token, int64_t i, int64_t k)
{
    int64_t chunks = (k + TS_CUDA_ACT_K - 1) / TS_CUDA_ACT_K, block = i / 32;
    return act + (token * chunks + block / 32) * TS_CUDA_ACT_BYTES + block % 32 * 16;
}

#endif

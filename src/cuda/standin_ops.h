/* standin_ops.h - what attention needs beside standin.h.
 *
 *     ts_exp2(x)   2^x to 2^-22 of it; below 2^-126 it may be 0 */
#ifndef TS_CUDA_STANDIN_OPS_H
#define TS_CUDA_STANDIN_OPS_H

#include "cuda/standin.h"

#ifdef TS_CUDA_STANDIN

static inline float ts_exp2(float x)
{
    return exp2f(x);
}

#elif defined(__CUDACC__)

static __device__ __forceinline__ float ts_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#endif
#endif

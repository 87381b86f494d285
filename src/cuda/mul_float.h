/* mul_float.h - a warp's way along rows of F32, F16 or BF16. Private to mul_float.cu and
 * moe_mul.cu.
 *
 * Lanes read 16 bytes of a row side by side, straight to registers. Where rows or activations don't
 * keep that alignment (k or ldx not a multiple), elements are read one by one: right, not fast. */
#ifndef TS_CUDA_MUL_FLOAT_H
#define TS_CUDA_MUL_FLOAT_H

#include "cuda/mul.h"

template <class W, bool WIDE> TS_DEVICE void load_w(float *w, const uint8_t *row, int64_t i)
{
    if constexpr (WIDE)
        W::vector(row, i, w);
    else
        w[0] = W::at(row, i);
}

template <int V> TS_DEVICE void load_x(float *x, const float *from)
{
    if constexpr (V == 1) {
        x[0] = from[0];
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            float4 v = __ldg((const float4 *)from + i / 4);
            x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
        }
    }
}

/* sum[R][M] += a lane's part of R rows times the activations x of m <= M tokens; `parts` warps
 * share the rows. */
template <class W, bool WIDE, int M, int R>
TS_DEVICE void float_sums(float *sum, const uint8_t *const *row, int64_t k, const float *x,
                          int64_t ldx, int m, int part, int parts)
{
    constexpr int V = WIDE ? (int)W::VECTOR : 1;
    const int lane = (int)threadIdx.x % 32;
    /* Four steps' loads are under way together. */
#pragma unroll 4
    for (int64_t i = (part * 32 + lane) * V; i < k; i += parts * 32 * V) {
        float w[R][V], v[V];
#pragma unroll
        for (int r = 0; r < R; r++)
            load_w<W, WIDE>(w[r], row[r], i);
#pragma unroll
        for (int t = 0; t < M; t++) {
            if (t > 0 && t >= m)
                break;
            load_x<V>(v, x + t * ldx + i);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int j = 0; j < V; j++)
                    sum[r * M + t] += w[r][j] * v[j];
        }
    }
}

#endif

/* mul_float.cu - products of F32, F16 and BF16 weights with few tokens; activations stay floats.
 *
 * Lanes read 16 bytes of a row side by side, straight to registers. Where rows or activations don't
 * keep that alignment (k or ldx not a multiple), elements are read one by one: right, not fast. */
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

template <class W, bool WIDE, int M, int R, bool JOIN>
static __global__ void __launch_bounds__(32 * TS_MUL_WARPS) mul(const ts_mul_args a)
{
    ts_in_turn();
    constexpr int V = WIDE ? (int)W::VECTOR : 1;
    ts_mul_part p;
    const unsigned block = ts_mul_part_of<JOIN>(a, &p);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int64_t first = ts_mul_first(block, p.split, JOIN ? R / 2 : R);
    const uint8_t *row[R];
    const float *x = (const float *)a.x;
    ts_mul_rows<R, JOIN>(p, a.row_bytes, first, row);
    float sum[R * M] = {};
    /* Four steps' loads are under way together. */
#pragma unroll 4
    for (int64_t i = (warp % p.split * 32 + lane) * V; i < a.k; i += p.split * 32 * V) {
        float w[R][V], v[V];
#pragma unroll
        for (int r = 0; r < R; r++)
            load_w<W, WIDE>(w[r], row[r], i);
#pragma unroll
        for (int t = 0; t < M; t++) {
            if (t > 0 && t >= a.m)
                break;
            load_x<V>(v, x + t * a.ldx + i);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int j = 0; j < V; j++)
                    sum[r * M + t] += w[r][j] * v[j];
        }
    }
    ts_mul_finish<R, M, JOIN>(a, p, first, sum);
}

template <class W, bool WIDE, int M, bool JOIN> static int launch(ts_mul_args a, void *stream)
{
    constexpr int R = ts_mul_rows_at_once(M), outputs = JOIN ? R / 2 : R;
    const unsigned blocks = ts_mul_share(&a, outputs);
    TS_LAUNCH((mul<W, WIDE, M, R, JOIN>), dim3(blocks), dim3(32 * TS_MUL_WARPS), 0, stream, a);
    return ts_launch_error();
}

template <class W, bool JOIN> static int launch_m(ts_mul_args a, void *stream)
{
    a.row_bytes = a.k * W::BYTES;
    if (a.k % W::VECTOR || (uintptr_t)a.x % 16 || (a.ldx % 4 && a.m > 1))
        return launch<W, false, 8, JOIN>(a, stream);
    return a.m == 1   ? launch<W, true, 1, JOIN>(a, stream)
           : a.m == 2 ? launch<W, true, 2, JOIN>(a, stream)
           : a.m <= 4 ? launch<W, true, 4, JOIN>(a, stream)
                      : launch<W, true, 8, JOIN>(a, stream);
}

int ts_mul_float(uint32_t type, ts_mul_args a, void *stream)
{
    switch (type) {
#define CASE(W)                                                                                    \
    case W::TYPE:                                                                                  \
        return a.join == TS_CUDA_ONE ? launch_m<W, false>(a, stream) : launch_m<W, true>(a, stream);
        TS_FLOAT_TYPES(CASE)
#undef CASE
    default:
        return cudaErrorInvalidValue;
    }
}

/* mul_float.cu - products of F32, F16 and BF16 weights with few tokens; activations stay floats. */
#include "cuda/mul_float.h"

template <class W, bool WIDE, int M, int R, bool JOIN>
static __global__ void __launch_bounds__(32 * TS_MUL_WARPS) mul(const ts_mul_args a)
{
    ts_in_turn();
    ts_mul_part p;
    const unsigned block = ts_mul_part_of<JOIN>(a, &p);
    int64_t first = ts_mul_first(block, p.split, JOIN ? R / 2 : R);
    const uint8_t *row[R];
    ts_mul_rows<R, JOIN>(p, a.row_bytes, first, row);
    float sum[R * M] = {};
    float_sums<W, WIDE, M, R>(sum, row, a.k, (const float *)a.x, a.ldx, a.m,
                              (int)threadIdx.x / 32 % p.split, p.split);
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

/* quant.cu - activations to 15 bits, weights to halves, rows of an embedding. */
#include "cuda/act.h"
#include "cuda/codes.h"
#include "cuda/norm.h"
#include "cuda/quant.h"
#include "cuda/values.h"

/* --- activations ------------------------------------------------------------------------------ */

/* Four elements a thread, eight threads a block of 32. Block (t, c) does run c of token t, and the
 * sum of squares of the whole token for itself: cheaper than a second launch. */
static __global__ void __launch_bounds__(TS_NORM_THREADS)
    prep(uint8_t *act, const float *x, int64_t ldx, const float *norm, float eps, int64_t k)
{
    ts_in_turn();
    int64_t token = blockIdx.x, i = (int64_t)blockIdx.y * TS_NORM_RUN + 4 * threadIdx.x;
    int lane = (int)threadIdx.x % 32;
    x += token * ldx;
    float v[4] = {}, w[4] = {1, 1, 1, 1}, f = norm ? ts_norm_factor(x, k, eps) : 1;
    if (i < k) {
        ts_load4(v, x, i, k, true);
        if (norm)
            ts_load4(w, norm, i, k, true);
    }
    int max = 0;
    for (int j = 0; j < 4; j++) {
        v[j] = norm ? v[j] * f * w[j] : v[j];
        int bits = __float_as_int(v[j]) & 0x7fffffff;
        max = bits > max ? bits : max;
    }
    for (int off = 4; off; off /= 2) {
        int other = __shfl_xor_sync(~0u, max, off);
        max = other > max ? other : max;
    }
    float scale, d = ts_act_scale(max, &scale);
    unsigned high = 0, low = 0;
    int sum = 0;
    for (int j = 0; j < 4; j++) {
        int h, q = ts_act_code(v[j], scale, &h);
        high |= (unsigned)(h & 255) << (8 * j);
        low |= (unsigned)((q - 128 * h) & 255) << (8 * j);
        sum += q;
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    int sum1 = __shfl_down_sync(~0u, sum, 4);
    if (i >= k)
        return;
    uint8_t *to = ts_act_at(act, token, i, k);
    int part = (int)(i % 32) / 16 * 512;
    *(uint32_t *)(to + part + i % 16) = high;
    *(uint32_t *)(to + part + 2 * 512 + i % 16) = low;
    if (lane % 8 == 0)
        *(int4 *)(to + 4 * 512) = make_int4(__float_as_int(d), sum, sum1, 0);
}

extern "C" int ts_cuda_prep(void *act, const float *x, int64_t ldx, const float *norm, float eps,
                            int64_t m, int64_t k, void *stream)
{
    if (m <= 0)
        return 0;
    dim3 grid((unsigned)m, (unsigned)((k + TS_NORM_RUN - 1) / TS_NORM_RUN));
    TS_LAUNCH(prep, grid, dim3(TS_NORM_THREADS), 0, stream, (uint8_t *)act, x, ldx, norm, eps, k);
    return ts_launch_error();
}

/* --- values ----------------------------------------------------------------------------------- */

/* Where eight elements of a row go. Only the last of a row of F32, F16 or BF16 can be fewer. */
TS_DEVICE void store_halves(void *dst, bool bf16, int64_t at, const float *v, int count)
{
    uint32_t h[8];
#pragma unroll
    for (int e = 0; e < 8; e++)
        h[e] = bf16 ? ts_bf16_bits(ts_float_to_bf16(v[e])) : ts_half_bits(ts_float_to_half(v[e]));
    uint16_t *to = (uint16_t *)dst + at;
    if (count == 8 && at % 8 == 0)
        *(uint4 *)to =
            make_uint4(h[0] | h[1] << 16, h[2] | h[3] << 16, h[4] | h[5] << 16, h[6] | h[7] << 16);
    else
        for (int e = 0; e < 8; e++)
            if (e < count)
                to[e] = (uint16_t)h[e];
}

TS_DEVICE void store_floats(float *to, bool wide, const float *v, int count)
{
    if (count == 8 && wide) {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        for (int e = 0; e < 8; e++)
            if (e < count)
                to[e] = v[e];
    }
}

/* --- kernels over rows: block (row, run), eight elements a thread ----------------------------- */

enum { ROW_THREADS = 256 };

template <class L>
static __global__ void __launch_bounds__(ROW_THREADS)
    dequant(void *dst, bool bf16, const uint8_t *w, int64_t k)
{
    ts_in_turn();
    int64_t row = blockIdx.x, i = 8 * ((int64_t)blockIdx.y * ROW_THREADS + threadIdx.x);
    float v[8];
    if (i >= k)
        return;
    int count = L::load(w + row * (k / L::BLOCK * L::BYTES), i, k, v);
    store_halves(dst, bf16, row * k + i, v, count);
}

template <class L>
static __global__ void __launch_bounds__(ROW_THREADS)
    embed(float *dst, int64_t ldd, const uint8_t *w, const int32_t *token, int64_t k, float scale)
{
    ts_in_turn();
    int64_t t = blockIdx.x, i = 8 * ((int64_t)blockIdx.y * ROW_THREADS + threadIdx.x);
    float v[8];
    if (i >= k)
        return;
    int count = L::load(w + token[t] * (k / L::BLOCK * L::BYTES), i, k, v);
#pragma unroll
    for (int e = 0; e < 8; e++)
        v[e] = __fmul_rn(v[e], scale);
    store_floats(dst + t * ldd + i, ldd % 4 == 0, v, count);
}

static dim3 row_grid(int64_t rows, int64_t k)
{
    return dim3((unsigned)rows, (unsigned)((k + 8 * ROW_THREADS - 1) / (8 * ROW_THREADS)));
}

#define QUANT_CASE(T)                                                                              \
    case T::TYPE:                                                                                  \
        RUN(ts_quant_row<T>)                                                                       \
        break;
#define FLOAT_CASE(W)                                                                              \
    case W::TYPE:                                                                                  \
        RUN(ts_float_row<W>)                                                                       \
        break;

extern "C" int ts_cuda_dequant(void *dst, bool bf16, uint32_t type, const void *w, int64_t n0,
                               int64_t n1, int64_t k, void *stream)
{
    if (n0 >= n1)
        return 0;
    switch (type) {
#define RUN(L)                                                                                     \
    TS_LAUNCH(dequant<L>, row_grid(n1 - n0, k), dim3(ROW_THREADS), 0, stream, dst, bf16,           \
              (const uint8_t *)w + n0 * (k / L::BLOCK * L::BYTES), k);
        TS_QUANT_TYPES(QUANT_CASE)
        TS_FLOAT_TYPES(FLOAT_CASE)
#undef RUN
    default:
        return cudaErrorInvalidValue;
    }
    return ts_launch_error();
}

extern "C" int ts_cuda_embed(float *dst, int64_t ldd, uint32_t type, const void *w,
                             const int32_t *token, int64_t m, int64_t k, float scale, void *stream)
{
    if (m <= 0)
        return 0;
    switch (type) {
#define RUN(L)                                                                                     \
    TS_LAUNCH(embed<L>, row_grid(m, k), dim3(ROW_THREADS), 0, stream, dst, ldd,                    \
              (const uint8_t *)w, token, k, scale);
        TS_QUANT_TYPES(QUANT_CASE)
        TS_FLOAT_TYPES(FLOAT_CASE)
#undef RUN
    default:
        return cudaErrorInvalidValue;
    }
    return ts_launch_error();
}

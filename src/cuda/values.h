/* values.h - weights of every type as floats, eight elements of a row at a time. Private to
 * quant.cu and latent.cu. */
#ifndef TS_CUDA_VALUES_H
#define TS_CUDA_VALUES_H

#include "cuda/codes.h"

/* Elements i..i + 7 of a row, as to_f32 has them to the last bit: no fused multiply-add. */
template <class T> TS_DEVICE void ts_eight(const uint8_t *row, int64_t i, float *v)
{
    const uint8_t *b = row + i / T::BLOCK * T::BYTES;
    int j = (int)(i % T::BLOCK) / 32, half = (int)(i % 32) / 16;
    uint32_t q[2];
    T::template codes<2>(b, j, (int)(i % 32) / 4, q);
    ts_scales s = T::scales(b, j);
    float d = half ? s.d[1] : s.d[0], min = half ? s.min[1] : s.min[0];
#pragma unroll
    for (int e = 0; e < 8; e++) {
        v[e] = __fmul_rn(d, (float)((int8_t)(q[e / 4] >> (8 * (e % 4))) - T::OFFSET));
        if constexpr (T::MINS)
            v[e] = __fadd_rn(v[e], min);
    }
}

/* As many of elements i..i + 7 as there are, from float weights. */
template <class W> TS_DEVICE int ts_up_to_eight(const uint8_t *row, int64_t i, int64_t k, float *v)
{
    int count = k - i < 8 ? (int)(k - i) : 8;
    if (k % W::VECTOR == 0 && count == 8) {
        W::vector(row, i, v);
        if constexpr (W::VECTOR == 4)
            W::vector(row, i + 4, v + 4);
    } else {
        for (int e = 0; e < 8; e++)
            v[e] = e < count ? W::at(row, i + e) : 0;
    }
    return count;
}

/* load: up to eight elements of a row from i, a multiple of 8, on; how many there are. */
template <class T> struct ts_quant_row {
    enum { BLOCK = T::BLOCK, BYTES = T::BYTES };
    TS_MEMBER int load(const uint8_t *row, int64_t i, int64_t, float *v)
    {
        ts_eight<T>(row, i, v);
        return 8;
    }
};

template <class W> struct ts_float_row {
    enum { BLOCK = 1, BYTES = W::BYTES };
    TS_MEMBER int load(const uint8_t *row, int64_t i, int64_t k, float *v)
    {
        return ts_up_to_eight<W>(row, i, k, v);
    }
};

#endif

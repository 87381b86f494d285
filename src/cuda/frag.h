/* frag.h - weights of every type as the left side of an mma, in BF16, straight from a row as it is
 * in the file. For kernels on tensor cores.
 *
 * A lane (g, c) = (lane / 4, lane % 4) brings rows g and g + 8 of sixteen. Which element of k takes
 * which place in a product is free, if both sides agree; here a lane has elements 8c .. 8c + 7 of
 * each 32, which codes<2> reads at once, and the first four are of one product, the others of the
 * next:
 *
 *     element   8c + 0 1 | 2 3       | 4 5    | 6 7
 *     product   first    |           | second |
 *     columns   2c 2c+1  | 2c+8 2c+9 | 2c ..  | 2c+8 ..
 *
 * So a lane's share of the right side is 16 contiguous bytes of a row of x.
 *
 * Codes become BF16 without conversions, two in an instruction: under an exponent of 7 the seven
 * bits of the fraction count ones, 0x4300 | code is 128 + code. Less 128 and the type's offset,
 * which is exact, times d, plus min, each rounded once. Types with minimums have codes that are
 * never negative; centred, with min + CENTRE * d made in floats, both terms are about as large as
 * their sum, and rounding loses little. Signed bytes have eight bits: the sign chooses whether 128
 * or 256 is subtracted.
 *
 * A type is a struct: a chunk of K elements of a row is BYTES bytes, at any multiple of ALIGN;
 *     scales(s, b, j)       of group j of a chunk, d and min in a word, for elements 0..15 and
 *                           16..31 if HALVES
 *     eight(a, b, j, c, s)  elements 8c .. 8c + 7 of it, in four words; s is the word for them */
#ifndef TS_CUDA_FRAG_H
#define TS_CUDA_FRAG_H

#include "cuda/codes.h"

template <class T> constexpr bool ts_is(ts_type type)
{
    return (int)T::TYPE == (int)type;
}

template <class T> struct ts_frag_quant {
    enum {
        K = ts_is<T>(TS_TYPE_Q8_0) ? 128 : 256, /* or shared memory wouldn't do for all GPUs */
        BYTES = K / T::BLOCK * T::BYTES,
        ALIGN = T::BYTES % 16 == 0  ? 16
                : T::BYTES % 8 == 0 ? 8
                : T::BYTES % 4 == 0 ? 4
                : T::BYTES % 2 == 0 ? 2
                                    : 1,
        ROW_BLOCK = T::BLOCK,
        ROW_BYTES = T::BYTES,
        TYPE = T::TYPE,
    };
    static constexpr bool SCALES = true, HALVES = T::HALVES;
    static constexpr bool SIGNED =
        ts_is<T>(TS_TYPE_Q8_0) || ts_is<T>(TS_TYPE_IQ4_NL) || ts_is<T>(TS_TYPE_IQ4_XS);
    static constexpr bool LEVELS = ts_is<T>(TS_TYPE_MXFP4); /* signed, of seven bits */
    static constexpr int CENTRE = !T::MINS                                           ? 0
                                  : ts_is<T>(TS_TYPE_Q2_K)                           ? 2
                                  : ts_is<T>(TS_TYPE_Q5_1) || ts_is<T>(TS_TYPE_Q5_K) ? 16
                                                                                     : 8;

    static __device__ __forceinline__ const uint8_t *block(const uint8_t *b, int j)
    {
        return T::BLOCK == 32 ? b + j * T::BYTES : b;
    }
    static __device__ __forceinline__ void scales(uint32_t *s, const uint8_t *b, int j)
    {
        const ts_scales v = T::scales(block(b, j), T::BLOCK == 32 ? 0 : j);
#pragma unroll
        for (int h = 0; h < (HALVES ? 2 : 1); h++)
            s[h] = ts_floats_to_bf16x2(v.d[h], v.min[h] + (float)CENTRE * v.d[h]);
    }
    static __device__ __forceinline__ void eight(uint32_t *a, const uint8_t *b, int j, int c,
                                                 uint32_t s)
    {
        /* -(128 + offset) as BF16, twice: at most 192, so ones still count. */
        constexpr uint32_t off = 0xc300 | (uint32_t)(T::OFFSET + CENTRE + (LEVELS ? 64 : 0));
        const uint32_t d = __byte_perm(s, 0, 0x1010);
        const uint32_t min = T::MINS ? __byte_perm(s, 0, 0x3232) : 0x80008000;
        uint32_t q[2];
        T::template codes<2>(block(b, j), T::BLOCK == 32 ? 0 : j, 2 * c, q);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t w = q[i / 2];
            if constexpr (LEVELS)
                w = (w & 0x7f7f7f7f) ^ 0x40404040;
            w = __byte_perm(w, 0x43434343, i % 2 ? 0x4342 : 0x4140);
            if constexpr (SIGNED)
                w = ts_fma_bf16x2(w & 0xff80ff80, 0xbf80bf80, w & 0xff7fff7f);
            else
                w = ts_fma_bf16x2(w, 0x3f803f80, off << 16 | off);
            a[i] = ts_fma_bf16x2(w, d, min);
        }
    }
};

template <class W> struct ts_frag_float {
    enum {
        K = 64,
        BYTES = K * W::BYTES,
        ALIGN = 16, /* rows are multiples of 32 elements */
        ROW_BLOCK = 1,
        ROW_BYTES = W::BYTES,
        TYPE = W::TYPE,
    };
    static constexpr bool SCALES = false, HALVES = false, BF16 = ts_is<W>(TS_TYPE_BF16);

    static __device__ __forceinline__ void scales(uint32_t *, const uint8_t *, int)
    {
    }
    static __device__ __forceinline__ void eight(uint32_t *a, const uint8_t *b, int j, int c,
                                                 uint32_t)
    {
        const int i = 32 * j + 8 * c;
        if constexpr (BF16) {
            ts_words<16, 4>(b + 2 * i, a);
        } else {
            float v[8];
            W::vector(b, i, v);
            if constexpr (W::VECTOR == 4)
                W::vector(b, i + 4, v + 4);
#pragma unroll
            for (int e = 0; e < 4; e++)
                a[e] = ts_floats_to_bf16x2(v[2 * e], v[2 * e + 1]);
        }
    }
};

#endif

/* codes.h - how the quantised types of GGUF are read on a GPU (gguf/type.c defines them).
 *
 * A type is a struct, and its group j of a block, 32 consecutive elements, is
 *
 *     value = d * (code - OFFSET) + min
 *
 * codes<N>(b, j, i0, q): ints i0..i0 + N - 1 of the group's 8, four codes each, the element with
 * the lowest index in the lowest byte. N is 8 and i0 zero, or N is 2 and i0 even.
 * scales(b, j): d and min of elements 0..15 and 16..31, which are the same unless HALVES. Without
 * MINS min is zero.
 *
 * Codes with OFFSET are never negative, but all fit a signed byte, so that __dp4a takes any type;
 * OFFSET leaves the loop as a multiple of the activations' sums.
 *
 * Blocks are read at the alignment that their size gives them, from device or shared memory: words
 * that straddle are put together of two. No read goes past the aligned word with a block's last
 * byte. */
#ifndef TS_CUDA_CODES_H
#define TS_CUDA_CODES_H

#include "cuda/standin.h"

extern "C" {
#include "gguf/type.h"
}

typedef struct ts_scales {
    float d[2], min[2];
} ts_scales;

/* --- loads ------------------------------------------------------------------------------------ */

/* N words from p, which is aligned to ALIGN. */
template <int ALIGN, int N> TS_DEVICE void ts_words(const uint8_t *p, uint32_t *w)
{
    if constexpr (ALIGN % 16 == 0 && N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            uint4 v = ((const uint4 *)p)[i / 4];
            w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
        }
    } else if constexpr (ALIGN % 8 == 0 && N % 2 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            uint2 v = ((const uint2 *)p)[i / 2];
            w[i] = v.x, w[i + 1] = v.y;
        }
    } else if constexpr (ALIGN % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i++)
            w[i] = ((const uint32_t *)p)[i];
    } else {
        unsigned off = (unsigned)(uintptr_t)p & 3;
        const uint32_t *from = (const uint32_t *)(p - off);
        uint32_t lo = from[0];
#pragma unroll
        for (int i = 0; i < N; i++) {
            uint32_t hi = from[i < N - 1 || off ? i + 1 : i];
            w[i] = __funnelshift_r(lo, hi, 8 * off);
            lo = hi;
        }
    }
}

TS_DEVICE float ts_half_at(const uint8_t *p)
{
    return ts_half_to_float(ts_half_from_bits(*(const uint16_t *)p));
}

/* Codes of 4 bits: byte i of 16 holds element i below and i + 16 above. */
template <int ALIGN, int N> TS_DEVICE void ts_nibbles(const uint8_t *p, int i0, uint32_t *q)
{
    if constexpr (N == 8) {
        uint32_t w[4];
        ts_words<ALIGN, 4>(p, w);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            q[i] = w[i] & 0x0f0f0f0f;
            q[i + 4] = w[i] >> 4 & 0x0f0f0f0f;
        }
    } else {
        ts_words<ALIGN, N>(p + 4 * (i0 & 3), q);
#pragma unroll
        for (int i = 0; i < N; i++)
            q[i] = q[i] >> (i0 & 4) & 0x0f0f0f0f;
    }
}

/* Ints of which each byte holds an element's bits at `shift`, under mask. */
template <int ALIGN, int N>
TS_DEVICE void ts_planes(const uint8_t *p, int i0, int shift, uint32_t mask, uint32_t *q)
{
    ts_words<ALIGN, N>(p + 4 * i0, q);
#pragma unroll
    for (int i = 0; i < N; i++)
        q[i] = q[i] >> shift & mask;
}

/* Bit 4 of the codes: bit e of qh belongs to element e. Of the four copies that the product makes
 * of four bits, one stands right in each byte. */
template <int N> TS_DEVICE void ts_fifth_bits(uint32_t qh, int i0, uint32_t *q)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        q[i] |= (qh >> (4 * (i0 + i)) & 15) * 0x02040810u & 0x10101010;
}

/* --- levels instead of codes ------------------------------------------------------------------ */

/* Levels of 8 nibbles: out[0] of the low nibbles of the four bytes, out[1] of the high ones. Two
 * byte permutations look up four nibbles in the lower and upper half of the table, a third takes
 * one or the other by the nibble's top bit. */
TS_DEVICE void ts_levels_of(uint32_t w, uint4 table, uint32_t *low, uint32_t *high)
{
    uint32_t v[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t four = w >> (16 * i), at = four & 0x7777, upper = four >> 1 & 0x4444;
        uint32_t a = __byte_perm(table.x, table.y, at), b = __byte_perm(table.z, table.w, at);
        v[i] = __byte_perm(a, b, 0x3210 | upper);
    }
    *low = __byte_perm(v[0], v[1], 0x6420);
    *high = __byte_perm(v[0], v[1], 0x7531);
}

template <int ALIGN, int N>
TS_DEVICE void ts_levels(const uint8_t *p, uint4 table, int i0, uint32_t *q)
{
    constexpr int words = N == 8 ? 4 : N;
    uint32_t w[words], low, high;
    ts_words<ALIGN, words>(p + 4 * (i0 & 3), w);
#pragma unroll
    for (int i = 0; i < words; i++) {
        ts_levels_of(w[i], table, &low, &high);
        q[i] = i0 & 4 ? high : low;
        if constexpr (N == 8)
            q[i + 4] = high;
    }
}

/* -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 */
TS_DEVICE uint4 ts_iq4_table(void)
{
    return make_uint4(0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535);
}

/* 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 */
TS_DEVICE uint4 ts_mxfp4_table(void)
{
    return make_uint4(0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc);
}

/* --- blocks of 32 ----------------------------------------------------------------------------- */

#define TS_BLOCK(type, block, bytes, offset, mins, halves)                                         \
    enum { TYPE = type, BLOCK = block, BYTES = bytes, OFFSET = offset };                           \
    static constexpr bool MINS = mins, HALVES = halves

#define TS_MEMBER static __device__ __forceinline__

struct ts_q4_0 {
    TS_BLOCK(TS_TYPE_Q4_0, 32, 18, 8, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_nibbles<2, N>(b + 2, i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d = ts_half_at(b);
        return {{d, d}, {0, 0}};
    }
};

struct ts_q4_1 {
    TS_BLOCK(TS_TYPE_Q4_1, 32, 20, 0, true, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_nibbles<4, N>(b + 4, i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d, m;
        ts_half2_to_floats(*(const uint32_t *)b, &d, &m);
        return {{d, d}, {m, m}};
    }
};

struct ts_q5_0 {
    TS_BLOCK(TS_TYPE_Q5_0, 32, 22, 16, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        uint32_t qh = ((const uint16_t *)b)[1] | (uint32_t)((const uint16_t *)b)[2] << 16;
        ts_nibbles<2, N>(b + 6, i0, q);
        ts_fifth_bits<N>(qh, i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d = ts_half_at(b);
        return {{d, d}, {0, 0}};
    }
};

struct ts_q5_1 {
    TS_BLOCK(TS_TYPE_Q5_1, 32, 24, 0, true, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_nibbles<8, N>(b + 8, i0, q);
        ts_fifth_bits<N>(((const uint32_t *)b)[1], i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d, m;
        ts_half2_to_floats(*(const uint32_t *)b, &d, &m);
        return {{d, d}, {m, m}};
    }
};

struct ts_q8_0 {
    TS_BLOCK(TS_TYPE_Q8_0, 32, 34, 0, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_words<2, N>(b + 2 + 4 * i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d = ts_half_at(b);
        return {{d, d}, {0, 0}};
    }
};

struct ts_iq4_nl {
    TS_BLOCK(TS_TYPE_IQ4_NL, 32, 18, 0, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_levels<2, N>(b + 2, ts_iq4_table(), i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        float d = ts_half_at(b);
        return {{d, d}, {0, 0}};
    }
};

struct ts_mxfp4 {
    TS_BLOCK(TS_TYPE_MXFP4, 32, 17, 0, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int, int i0, uint32_t *q)
    {
        ts_levels<1, N>(b + 1, ts_mxfp4_table(), i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int)
    {
        uint32_t e = b[0];
        float d = __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
        return {{d, d}, {0, 0}};
    }
};

/* --- blocks of 256 ---------------------------------------------------------------------------- */

struct ts_q2_k {
    TS_BLOCK(TS_TYPE_Q2_K, 256, 84, 0, true, true);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        ts_planes<4, N>(b + 16 + j / 4 * 32, i0, j % 4 * 2, 0x03030303, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        unsigned s = ((const uint16_t *)b)[j];
        float d, m;
        ts_half2_to_floats(*(const uint32_t *)(b + 80), &d, &m);
        return {{d * (float)(s & 15), d * (float)(s >> 8 & 15)},
                {-m * (float)(s >> 4 & 15), -m * (float)(s >> 12)}};
    }
};

struct ts_q3_k {
    TS_BLOCK(TS_TYPE_Q3_K, 256, 110, 4, false, true);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        uint32_t high[N];
        ts_planes<2, N>(b + 32 + j / 4 * 32, i0, j % 4 * 2, 0x03030303, q);
        ts_planes<2, N>(b, i0, j, 0x01010101, high);
#pragma unroll
        for (int i = 0; i < N; i++)
            q[i] |= high[i] << 2;
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        /* Two neighbours of 8 low nibbles, and of 4 x 4 pairs of high bits. */
        int g = 2 * j;
        const uint16_t *s = (const uint16_t *)(b + 96);
        unsigned low = (unsigned)s[g % 8 / 2] >> (g / 8 * 4), high = s[4 + g % 4 / 2];
        high >>= g / 4 * 2;
        int s0 = (int)((low & 15) | (high & 3) << 4) - 32;
        int s1 = (int)((low >> 8 & 15) | (high >> 8 & 3) << 4) - 32;
        float d = ts_half_at(b + 108);
        return {{d * (float)s0, d * (float)s1}, {0, 0}};
    }
};

/* The head of Q4_K and Q5_K: d, dmin and eight pairs of 6 bits, 16 bytes in all. */
TS_DEVICE ts_scales ts_k_scales(const uint8_t *b, int j)
{
    uint4 head = *(const uint4 *)b;
    unsigned s = 8 * (unsigned)(j & 3), x = head.y >> s, y = head.z >> s, z = head.w >> s;
    unsigned scale = j < 4 ? x & 63 : (z & 15) | (x >> 2 & 0x30);
    unsigned min = j < 4 ? y & 63 : (z >> 4 & 15) | (y >> 2 & 0x30);
    float d, m;
    ts_half2_to_floats(head.x, &d, &m);
    d *= (float)scale;
    m *= -(float)min;
    return {{d, d}, {m, m}};
}

struct ts_q4_k {
    TS_BLOCK(TS_TYPE_Q4_K, 256, 144, 0, true, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        ts_planes<16, N>(b + 16 + j / 2 * 32, i0, j % 2 * 4, 0x0f0f0f0f, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        return ts_k_scales(b, j);
    }
};

struct ts_q5_k {
    TS_BLOCK(TS_TYPE_Q5_K, 256, 176, 0, true, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        uint32_t high[N];
        ts_planes<16, N>(b + 48 + j / 2 * 32, i0, j % 2 * 4, 0x0f0f0f0f, q);
        ts_planes<16, N>(b + 16, i0, j, 0x01010101, high);
#pragma unroll
        for (int i = 0; i < N; i++)
            q[i] |= high[i] << 4;
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        return ts_k_scales(b, j);
    }
};

struct ts_q6_k {
    TS_BLOCK(TS_TYPE_Q6_K, 256, 210, 32, false, true);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        uint32_t high[N];
        int h = j / 4, r = j % 4;
        ts_planes<2, N>(b + 64 * h + r % 2 * 32, i0, r / 2 * 4, 0x0f0f0f0f, q);
        ts_planes<2, N>(b + 128 + 32 * h, i0, 2 * r, 0x03030303, high);
#pragma unroll
        for (int i = 0; i < N; i++)
            q[i] |= high[i] << 4;
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        unsigned s = ((const uint16_t *)(b + 192))[j];
        float d = ts_half_at(b + 208);
        return {{d * (float)(int8_t)s, d * (float)(int8_t)(s >> 8)}, {0, 0}};
    }
};

struct ts_iq4_xs {
    TS_BLOCK(TS_TYPE_IQ4_XS, 256, 136, 0, false, false);
    template <int N> TS_MEMBER void codes(const uint8_t *b, int j, int i0, uint32_t *q)
    {
        ts_levels<8, N>(b + 8 + 16 * j, ts_iq4_table(), i0, q);
    }
    TS_MEMBER ts_scales scales(const uint8_t *b, int j)
    {
        uint2 head = *(const uint2 *)b; /* d, scales_h | scales_l */
        unsigned s = (head.y >> (4 * j) & 15) | (head.x >> (16 + 2 * j) & 3) << 4;
        float d = ts_half_to_float(ts_half_from_bits((uint16_t)head.x)) * (float)((int)s - 32);
        return {{d, d}, {0, 0}};
    }
};

/* Every quantised type, once. */
#define TS_QUANT_TYPES(F)                                                                          \
    F(ts_q4_0)                                                                                     \
    F(ts_q4_1)                                                                                     \
    F(ts_q5_0)                                                                                     \
    F(ts_q5_1)                                                                                     \
    F(ts_q8_0)                                                                                     \
    F(ts_iq4_nl) F(ts_mxfp4) F(ts_q2_k) F(ts_q3_k) F(ts_q4_k) F(ts_q5_k) F(ts_q6_k) F(ts_iq4_xs)

/* --- floats ----------------------------------------------------------------------------------- */

/* VECTOR of them are 16 bytes. */
struct ts_f32 {
    enum { TYPE = TS_TYPE_F32, BYTES = 4, VECTOR = 4 };
    TS_MEMBER float at(const uint8_t *row, int64_t i)
    {
        return ((const float *)row)[i];
    }
    TS_MEMBER void vector(const uint8_t *row, int64_t i, float *y)
    {
        uint4 v = *(const uint4 *)(row + 4 * i);
        y[0] = __uint_as_float(v.x), y[1] = __uint_as_float(v.y);
        y[2] = __uint_as_float(v.z), y[3] = __uint_as_float(v.w);
    }
};

struct ts_f16 {
    enum { TYPE = TS_TYPE_F16, BYTES = 2, VECTOR = 8 };
    TS_MEMBER float at(const uint8_t *row, int64_t i)
    {
        return ts_half_at(row + 2 * i);
    }
    TS_MEMBER void vector(const uint8_t *row, int64_t i, float *y)
    {
        uint4 v = *(const uint4 *)(row + 2 * i);
        ts_half2_to_floats(v.x, y, y + 1);
        ts_half2_to_floats(v.y, y + 2, y + 3);
        ts_half2_to_floats(v.z, y + 4, y + 5);
        ts_half2_to_floats(v.w, y + 6, y + 7);
    }
};

struct ts_bf16 {
    enum { TYPE = TS_TYPE_BF16, BYTES = 2, VECTOR = 8 };
    TS_MEMBER float at(const uint8_t *row, int64_t i)
    {
        return __uint_as_float((uint32_t)((const uint16_t *)row)[i] << 16);
    }
    TS_MEMBER void vector(const uint8_t *row, int64_t i, float *y)
    {
        uint4 v = *(const uint4 *)(row + 2 * i);
        uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            y[2 * j] = __uint_as_float(w[j] << 16);
            y[2 * j + 1] = __uint_as_float(w[j] & 0xffff0000);
        }
    }
};

#define TS_FLOAT_TYPES(F) F(ts_f32) F(ts_f16) F(ts_bf16)

#endif

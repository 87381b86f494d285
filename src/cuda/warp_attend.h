/* warp_attend.h - the part of attention that one warp does: ROWS query rows against a few keys.
 * For attend.cu and latent_attend.cu.
 *
 * Online softmax (arXiv:1805.02867) in the blocking of FlashAttention (arXiv:2205.14135): a row
 * holds the maximum m of its scores so far, l = sum 2^(s - m) and o = sum 2^(s - m) * v; keys that
 * raise m scale l and o. Scores are in units of log2: the scale times log2 e is in the queries.
 *
 * Products are mma.m16n8k16. Which dimension of a head takes which place in a product is free, if
 * both sides agree; it is chosen so that a lane's share is 16 contiguous bytes of a row of Q, K or
 * V, in shared or in global memory, and nothing has to be transposed. Lane = 4 * g + c:
 *
 *   S = Q K^T   the 32 dimensions from 32 * i on are two steps of k. Lane (g, c) brings chunk c of
 *               rows g and g + 8 of Q and of row g of each 8 keys:
 *
 *                 dimension  8c + 0 1 | 2 3 | 4 5 | 6 7
 *                 step       first    |     | second     |
 *                 columns    2c 2c+1  | 2c+8 .. | 2c .. | 2c+8 ..
 *
 *               and gets the scores of rows g, g + 8 with keys 2c, 2c + 1 of each 8: what it must
 *               bring as the left side of the second product.
 *   O = P V     the keys are 16 of k; the 64 dimensions from 64 * i on are 8 products. Lane (g, c)
 *               brings chunk g of keys 2c, 2c + 1, 2c + 8, 2c + 9; dimension 8g + e is column g of
 *               product e. It gets, for rows g and g + 8, dimensions 16c .. 16c + 15. */
#ifndef TS_CUDA_WARP_ATTEND_H
#define TS_CUDA_WARP_ATTEND_H

#include "cuda/standin_ops.h"

namespace
{

constexpr int ROWS = 16;

/* P is 2^LIFT times what it would be: the largest is 2^14, so that weights down to 2^-28 of it are
 * still normal halves. l has the factor too. */
constexpr float LIFT = 14;

/* Row strides in halves of what lies in shared memory: the eight lanes that read sixteen bytes each
 * at once meet all banks. HD is head_dim rounded up to 64. */
template <int HD> struct stride {
    enum {
        KEY = HD + 32,  /* of Q and K: two rows, chunks 0 .. 3         */
        VALUE = HD + 8, /* of V: rows 0, 2, 4, 6, two chunks of each   */
    };
};

/* What a lane holds for its two rows: h = 0 is row g, 1 is row g + 8. */
template <int HD> struct sums {
    float o[HD / 64][8][4]; /* [.][e][2h + i]: dimension 64 * . + 16c + 8i + e */
    float m[2];             /* of the row, in all its four lanes               */
    float l[2];             /* of this lane's keys                             */
};

template <int HD> __device__ __forceinline__ void sums_clear(sums<HD> &t)
{
#pragma unroll
    for (int i = 0; i < HD / 64 * 32; i++)
        t.o[i / 32][i / 4 % 8][i % 4] = 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        t.m[h] = -INFINITY;
        t.l[h] = 0;
    }
}

__device__ __forceinline__ uint4 load_16(const uint16_t *p)
{
    return *reinterpret_cast<const uint4 *>(p);
}

/* s[n] = scores with keys 8n .. 8n + 7. q: row g of the warp's, in shared memory.
 * key(n, i): this lane's chunk of key 8n + g, dimensions 32 * i + 8c on. */
template <int HD, int KEYS, class Key>
__device__ __forceinline__ void scores(float (&s)[KEYS / 8][4], const uint16_t *q, Key key)
{
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int i = 0; i < HD / 32; i++) {
        const uint4 q0 = load_16(q + 32 * i + 8 * c);
        const uint4 q8 = load_16(q + 8 * stride<HD>::KEY + 32 * i + 8 * c);
        const uint32_t first[4] = {q0.x, q8.x, q0.y, q8.y};
        const uint32_t second[4] = {q0.z, q8.z, q0.w, q8.w};
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            const uint4 k = key(n, i);
            const uint32_t k0[2] = {k.x, k.y}, k1[2] = {k.z, k.w};
            ts_mma_16816(s[n], first, k0);
            ts_mma_16816(s[n], second, k1);
        }
    }
}

/* s = cap * tanh(s / cap), as cap - 2 cap / (e^(2 s / cap) + 1); nothing where cap is 0. What is
 * lost to cancellation is an ulp of cap, small beside the rounding of queries. */
template <int KEYS> __device__ __forceinline__ void soft_cap(float (&s)[KEYS / 8][4], float cap)
{
    if (cap <= 0)
        return;
    const float f = 2 * 1.4426950408889634f / cap;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        float &v = s[i / 4][i % 4];
        v = cap - 2 * cap / (ts_exp2(v * f) + 1);
    }
}

/* Scores become weights: s = 2^(s - m), 0 where a row doesn't see the key. Row h sees keys
 * lo[h] <= key <= hi[h] of these; all of them when `whole`. */
template <int HD, int KEYS>
__device__ __forceinline__ void soften(sums<HD> &t, float (&s)[KEYS / 8][4], const int (&lo)[2],
                                       const int (&hi)[2], bool whole)
{
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = t.m[h];
#pragma unroll
        for (int j = 0; j < KEYS / 4; j++) {
            const int key = 8 * (j / 2) + 2 * c + j % 2;
            float &v = s[j / 2][2 * h + j % 2];
            if (!whole && (key < lo[h] || key > hi[h]))
                v = -INFINITY;
            top = fmaxf(top, v);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float m = top == -INFINITY ? 0 : top; /* nothing seen yet: all weights are 0 */
        const float f = ts_exp2(t.m[h] - m);
        float l = 0;
#pragma unroll
        for (int j = 0; j < KEYS / 4; j++) {
            float &v = s[j / 2][2 * h + j % 2];
            v = ts_exp2(v - (m - LIFT));
            l += v;
        }
        t.m[h] = top;
        t.l[h] = t.l[h] * f + l;
#pragma unroll
        for (int i = 0; i < HD / 64 * 16; i++)
            t.o[i / 16][i / 2 % 8][2 * h + i % 2] *= f;
    }
}

/* o += w * V of sixteen keys. w: their weights as the left side of a product; value(j, i): this
 * lane's chunk of key {2c, 2c + 1, 2c + 8, 2c + 9}[j], dimensions 64 * i + 8g on. */
template <int HD, class Value>
__device__ __forceinline__ void add_sixteen(sums<HD> &t, const uint32_t (&w)[4], Value value)
{
#pragma unroll
    for (int i = 0; i < HD / 64; i++) {
        const uint4 v[4] = {value(0, i), value(1, i), value(2, i), value(3, i)};
        const uint32_t a[4] = {v[0].x, v[0].y, v[0].z, v[0].w};
        const uint32_t b[4] = {v[1].x, v[1].y, v[1].z, v[1].w};
        const uint32_t a8[4] = {v[2].x, v[2].y, v[2].z, v[2].w};
        const uint32_t b8[4] = {v[3].x, v[3].y, v[3].z, v[3].w};
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const unsigned halves = e % 2 ? 0x7632 : 0x5410;
            const uint32_t k[2] = {__byte_perm(a[e / 2], b[e / 2], halves),
                                   __byte_perm(a8[e / 2], b8[e / 2], halves)};
            ts_mma_16816(t.o[i][e], w, k);
        }
    }
}

/* o += s * V. value(n, j, i): the chunk of key 16n + that. */
template <int HD, int KEYS, class Value>
__device__ __forceinline__ void add_values(sums<HD> &t, const float (&s)[KEYS / 8][4], Value value)
{
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
        const float *p = s[2 * n], *p8 = s[2 * n + 1];
        const uint32_t w[4] = {ts_floats_to_half2(p[0], p[1]), ts_floats_to_half2(p[2], p[3]),
                               ts_floats_to_half2(p8[0], p8[1]), ts_floats_to_half2(p8[2], p8[3])};
        add_sixteen<HD>(t, w, [&](int j, int i) { return value(n, j, i); });
    }
}

/* l of the whole row, in all its four lanes. */
__device__ __forceinline__ float row_sum(float l)
{
    l += __shfl_xor_sync(~0u, l, 1);
    return l + __shfl_xor_sync(~0u, l, 2);
}

/* to[d] = f * o of row h, d < hd; to is aligned to 16 bytes. */
template <int HD>
__device__ __forceinline__ void put_row(float *to, const sums<HD> &t, int h, float f, int hd)
{
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < HD / 64 * 4; i++) {
        const int d = 64 * (i / 4) + 16 * c + 4 * (i % 4), e = 4 * (i % 2), at = 2 * h + i % 4 / 2;
        const float(&o)[8][4] = t.o[i / 4];
        if (d < hd)
            *reinterpret_cast<float4 *>(to + d) =
                make_float4(f * o[e][at], f * o[e + 1][at], f * o[e + 2][at], f * o[e + 3][at]);
    }
}

/* Queries r0 .. r0 + n of a KV head, times scale and rounded, into rows of shared memory by all
 * threads of the block; zeros where there is none. Query r of n_rows stands at
 * q + r / group * ldq + r % group * hd. */
template <int HD>
__device__ __forceinline__ void load_queries(uint16_t *to, int n, const float *q, int64_t ldq,
                                             int r0, int n_rows, int group, int hd, float scale)
{
    for (int i = threadIdx.x; i < n * (HD / 8); i += blockDim.x) {
        const int row = i / (HD / 8), r = r0 + row, d = i % (HD / 8) * 8;
        uint4 h = make_uint4(0, 0, 0, 0);
        if (r < n_rows && d < hd) {
            const float4 *from =
                reinterpret_cast<const float4 *>(q + r / group * ldq + r % group * hd + d);
            const float4 a = from[0], b = from[1];
            h = make_uint4(ts_floats_to_half2(a.x * scale, a.y * scale),
                           ts_floats_to_half2(a.z * scale, a.w * scale),
                           ts_floats_to_half2(b.x * scale, b.y * scale),
                           ts_floats_to_half2(b.z * scale, b.w * scale));
        }
        *reinterpret_cast<uint4 *>(to + row * stride<HD>::KEY + d) = h;
    }
}

} // namespace

#endif

/* mul.h - what the products with few tokens share: which rows a warp has, and how its sums become
 * outputs. Private to mul*.cu and moe_mul.cu.
 *
 * A warp takes R rows of weights at once, so that activations are read once for all of them, and
 * runs along k with all lanes. R rows are R outputs; or, when gate and up are joined, R / 2 rows of
 * both. Where there are too few rows to keep all memory channels busy, `split` warps of a block
 * share rows, each with its part of k. */
#ifndef TS_CUDA_MUL_H
#define TS_CUDA_MUL_H

#include "cuda/codes.h"
#include "cuda/quant.h"

enum { TS_MUL_WARPS = 4, TS_MUL_TOKENS = 8 };

/* One of the products of a launch. */
typedef struct ts_mul_part {
    const uint8_t *w[2]; /* W and V                    */
    float *y;
    const float *add;
    int64_t ldy, ldadd, n;
    int split;       /* divides TS_MUL_WARPS       */
    unsigned blocks; /* that have it               */
} ts_mul_part;

typedef struct ts_mul_args {
    ts_mul_part part[TS_CUDA_MUL_PARTS]; /* blocks of the grid one after the other */
    const uint8_t *x;
    int64_t ldx, k, row_bytes;
    int m, parts;
    int join;   /* ts_cuda_join */
    bool fresh; /* ts_cuda_mul's */
} ts_mul_args;

/* A block's part, and which block of that it is. Indices are constant: parts stay where arguments
 * lie. */
template <bool JOIN> TS_DEVICE unsigned ts_mul_part_of(const ts_mul_args &a, ts_mul_part *p)
{
    unsigned block = blockIdx.x;
    *p = a.part[0];
    if constexpr (!JOIN) {
        if (a.parts > 1 && block >= p->blocks) {
            block -= p->blocks;
            *p = a.part[1];
            if (a.parts > 2 && block >= p->blocks) {
                block -= p->blocks;
                *p = a.part[2];
            }
        }
    }
    return block;
}

/* The first of a warp's outputs, of which it has `outputs`. */
TS_DEVICE int64_t ts_mul_first(unsigned block, int split, int outputs)
{
    int warp = (int)threadIdx.x / 32;
    return ((int64_t)block * (TS_MUL_WARPS / split) + warp / split) * outputs;
}

/* The weights' rows of a warp. Those behind the last are the last once more. */
template <int R, bool JOIN>
TS_DEVICE void ts_mul_rows(const ts_mul_part &p, int64_t row_bytes, int64_t first,
                           const uint8_t **row)
{
    constexpr int outputs = JOIN ? R / 2 : R;
#pragma unroll
    for (int r = 0; r < R; r++) {
        int64_t i = first + r % outputs;
        row[r] = p.w[r / outputs] + (i < p.n ? i : p.n - 1) * row_bytes;
    }
}

/* Sums of N values over the lanes. While there are several, each step sends one half of them and
 * keeps the other: N values take N - 1 exchanges and few more. The sum that a lane returns is of
 * value lane / (32 / N). */
template <int N, int OFF> TS_DEVICE float ts_lane_sums(float *v)
{
    bool upper = threadIdx.x & OFF;
    if constexpr (N > 1) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            float keep = upper ? v[i + N / 2] : v[i], send = upper ? v[i] : v[i + N / 2];
            v[i] = keep + __shfl_xor_sync(~0u, send, OFF);
        }
    } else if constexpr (OFF > 0) {
        v[0] += __shfl_xor_sync(~0u, v[0], OFF);
    }
    if constexpr (OFF > 0)
        return ts_lane_sums<(N > 1 ? N / 2 : 1), OFF / 2>(v);
    return v[0];
}

/* silu(g) = g / (1 + e^-g); gelu(g) = g / (1 + e^-2z), z = sqrt(2 / pi) (g + 0.044715 g^3). */
TS_DEVICE float ts_gate(float g, int join)
{
    float z = join == TS_CUDA_SILU ? g : 2 * 0.7978845608f * (g + 0.044715f * g * g * g);
    return g / (1 + expf(-z));
}

/* What becomes of a gate's and an up row's outputs. NaN stays NaN. */
TS_DEVICE float ts_glu(float g, float u, int join)
{
    if (join != TS_CUDA_CLAMPED)
        return ts_gate(g, join) * u;
    g = g > 7 ? 7 : g;
    u = u > 7 ? 7 : u < -7 ? -7 : u;
    return g / (1 + expf(-1.702f * g)) * (u + 1);
}

/* Adds up what the `split` warps that share rows have; false in all but the first of them. All
 * threads of the block come here. */
TS_DEVICE bool ts_mul_gather(float *v, int split)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (split <= 1)
        return true;
    TS_SHARED_ARRAY(float, part, [TS_MUL_WARPS][32]);
    part[warp][lane] = *v;
    __syncthreads();
    if (warp % split)
        return false;
    for (int i = 1; i < split; i++)
        *v += part[warp + i][lane];
    return true;
}

/* From sum[R][M] of every lane to y. All threads of the block come here. */
template <int R, int M, bool JOIN>
TS_DEVICE void ts_mul_finish(const ts_mul_args &a, const ts_mul_part &p, int64_t first, float *sum)
{
    int lane = (int)threadIdx.x % 32;
    float v = ts_lane_sums<R * M, 16>(sum);
    if (!ts_mul_gather(&v, p.split))
        return;
    if constexpr (JOIN) { /* rows of V are the upper half of the lanes */
        float up = __shfl_xor_sync(~0u, v, 16);
        v = ts_glu(v, up, a.join);
    }
    constexpr int lanes = 32 / (R * M), outputs = JOIN ? R / 2 : R;
    int r = lane / lanes / M, t = lane / lanes % M;
    if (lane % lanes || r >= outputs || first + r >= p.n || t >= a.m)
        return;
    if (!JOIN && p.add)
        v += p.add[t * p.ldadd + first + r];
    p.y[t * p.ldy + first + r] = v;
}

/* --- host ------------------------------------------------------------------------------------- */

/* So many warps have enough loads under way for the largest GPUs: an H100 holds 4224 with as many
 * registers as they have. */
enum { TS_MUL_ENOUGH = 4096 };

static inline int ts_mul_split(int64_t row_groups, int64_t chunks)
{
    int split = 1;
    while (split < TS_MUL_WARPS && row_groups * split < TS_MUL_ENOUGH && chunks >= 2 * split)
        split *= 2;
    return split;
}

/* Fills in who does what; returns how many blocks there are. */
static inline unsigned ts_mul_share(ts_mul_args *a, int outputs)
{
    unsigned blocks = 0;
    for (int i = 0; i < a->parts; i++) {
        ts_mul_part *p = &a->part[i];
        int64_t row_groups = (p->n + outputs - 1) / outputs;
        p->split = ts_mul_split(row_groups, (a->k + 1023) / 1024);
        int64_t groups = TS_MUL_WARPS / p->split;
        p->blocks = (unsigned)((row_groups + groups - 1) / groups);
        blocks += p->blocks;
    }
    return blocks;
}

/* Rows of weights at once: with few tokens decoding is most of the work, with many the loads of
 * activations are. */
static constexpr int ts_mul_rows_at_once(int m)
{
    return m <= 2 ? 2 : 4;
}

/* Float weights, at most TS_MUL_TOKENS tokens; mul_float.cu. */
int ts_mul_float(uint32_t type, ts_mul_args a, void *stream);

#endif

/* mul_chunk.h - a warp's way along rows of quantised weights: chunks of 1024 elements to shared
 * memory, groups of 32 of them in each lane, times 15-bit activations. Private to mul.cu and
 * moe_mul.cu.
 *
 * Blocks have odd sizes, so that a lane can't load its own wide or aligned; a warp copies its
 * chunks as they are, 16 bytes a lane side by side, to shared memory (cp.async, STAGES - 1 chunks
 * of R rows ahead), and lanes read their groups there. Only the warp itself uses its buffers: no
 * barriers of the block.
 *
 *     a warp's buffer   [STAGES][R][PITCH], each a chunk from the 16-byte border before it on
 *
 * Both limbs of the activations go through dp4a: sums of 32 (or 16) products are exact. */
#ifndef TS_CUDA_MUL_CHUNK_H
#define TS_CUDA_MUL_CHUNK_H

#include "cuda/mul.h"

/* One token's part of a lane: 32 elements. */
typedef struct lane_x {
    int h[8], l[8];
    float d;
    int sum[2];
} lane_x;

TS_DEVICE void load_x(lane_x *x, const uint8_t *from)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int4 h = __ldg((const int4 *)(from + 512 * i));
        int4 l = __ldg((const int4 *)(from + 512 * (2 + i)));
        x->h[4 * i] = h.x, x->h[4 * i + 1] = h.y, x->h[4 * i + 2] = h.z, x->h[4 * i + 3] = h.w;
        x->l[4 * i] = l.x, x->l[4 * i + 1] = l.y, x->l[4 * i + 2] = l.z, x->l[4 * i + 3] = l.w;
    }
    int4 rest = __ldg((const int4 *)(from + 512 * 4));
    x->d = __int_as_float(rest.x);
    x->sum[0] = rest.y;
    x->sum[1] = rest.z;
}

/* Products of four ints of codes. */
TS_DEVICE int dot16(const uint32_t *q, const int *h, const int *l)
{
    int high = 0, low = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        high = __dp4a((int)q[i], h[i], high);
        low = __dp4a((int)q[i], l[i], low);
    }
    return 128 * high + low;
}

template <class T> TS_DEVICE float dot32(const uint32_t *q, const ts_scales &s, const lane_x &x)
{
    int a = dot16(q, x.h, x.l), b = dot16(q + 4, x.h + 4, x.l + 4);
    int sum = x.sum[0] + x.sum[1];
    float y;
    if constexpr (T::HALVES)
        y = s.d[0] * (float)(a - T::OFFSET * x.sum[0]) + s.d[1] * (float)(b - T::OFFSET * x.sum[1]);
    else
        y = s.d[0] * (float)(a + b - T::OFFSET * sum);
    if constexpr (T::HALVES && T::MINS)
        y += s.min[0] * (float)x.sum[0] + s.min[1] * (float)x.sum[1];
    else if constexpr (T::MINS)
        y += s.min[0] * (float)sum;
    return x.d * y;
}

/* --- chunks ----------------------------------------------------------------------------------- */

template <class T> struct chunk {
    enum {
        LANES = T::BLOCK / 32,                     /* that share a block                          */
        BYTES = 32 / LANES * T::BYTES,             /* of a whole chunk                            */
        ODD = BYTES % 16,                          /* 0, or 8: what a chunk's begin may be off by */
        PITCH = (BYTES + 15 + ODD + 15) / 16 * 16, /* from the 16-byte border before it on        */
        COPIES = (PITCH / 16 + 31) / 32,           /* of a lane, at most                          */
    };
};

/* A row of weights: where a lane copies from, and what of it is the row. */
typedef struct row_at {
    const uint8_t *from; /* the border before the row, and 16 bytes for every lane before this   */
    int off, end;        /* where the row begins and ends behind that border                     */
} row_at;

TS_DEVICE row_at row_of(const uint8_t *row, int64_t row_bytes, int lane)
{
    int off = (int)((uintptr_t)row & 15);
    return {row - off + 16 * lane, off, off + (int)row_bytes};
}

/* Begins to copy chunk c of R rows. A copy that is wanted has at least a byte of the row, or else
 * of the chunk after: nothing behind the row's last 16 bytes is read. */
template <class T, int R> TS_DEVICE void fetch(ts_shared_at to, const row_at *row, int c, int lane)
{
    int border = c * chunk<T>::BYTES / 16 * 16;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < chunk<T>::COPIES; i++) {
            int at = 16 * lane + 512 * i;
            bool mine = 512 * (i + 1) <= chunk<T>::PITCH || at < chunk<T>::PITCH;
            ts_copy16_if(mine && border + at < row[r].end, to + r * chunk<T>::PITCH + at,
                         row[r].from + border + 512 * i);
        }
}

/* sum[R][M] += a lane's 32 elements of chunk c; x is the first token's part, others' lie `token`
 * bytes apart behind at. */
template <class T, int M, int R>
TS_DEVICE void multiply(float *sum, const uint8_t *buffer, const row_at *row, int c, int lane,
                        lane_x x, const uint8_t *at, int64_t token, int m)
{
    uint32_t q[R][8];
    ts_scales s[R];
    buffer += lane / chunk<T>::LANES * T::BYTES + (c & 1) * chunk<T>::ODD;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const uint8_t *b = buffer + r * chunk<T>::PITCH + row[r].off;
        T::template codes<8>(b, lane % chunk<T>::LANES, 0, q[r]);
        s[r] = T::scales(b, lane % chunk<T>::LANES);
    }
#pragma unroll
    for (int t = 0; t < M; t++) {
        if (t > 0) {
            if (t >= m)
                break;
            load_x(&x, at + t * token);
        }
#pragma unroll
        for (int r = 0; r < R; r++)
            sum[r * M + t] += dot32<T>(q[r], s[r], x);
    }
}

/* sum[R][M] += a lane's part of R rows times the activations x of m <= M tokens, over chunks part,
 * part + parts, .. of them. buffer[STAGES][R][PITCH] is the warp's. Weights are asked for before
 * what earlier kernels write is waited for, activations after. */
template <class T, int M, int R, int STAGES>
TS_DEVICE void row_sums(float *sum, const row_at *row, int64_t k, const uint8_t *x, int m, int part,
                        int parts, uint8_t *buffer)
{
    constexpr int stage = R * chunk<T>::PITCH;
    const int lane = (int)threadIdx.x % 32;
    const int groups = (int)(k / 32), chunks = (groups + 31) / 32;
    const int64_t token = (int64_t)chunks * TS_CUDA_ACT_BYTES;
    const uint8_t *x_at = x + part * TS_CUDA_ACT_BYTES + 16 * lane;
    const ts_shared_at place = ts_shared_place(buffer);
    for (int i = 0; i < STAGES - 1; i++) {
        if (part + i * parts < chunks)
            fetch<T, R>(place + i * stage, row, part + i * parts, lane);
        ts_copy_commit();
    }
    ts_wait_previous();
    int now = 0, next = (STAGES - 1) * stage;
    int ahead = part + (STAGES - 1) * parts;
    for (int c = part; c < chunks; c += parts, ahead += parts) {
        if (ahead < chunks)
            fetch<T, R>(place + next, row, ahead, lane);
        ts_copy_commit();
        lane_x v;
        load_x(&v, x_at);
        ts_copy_wait<STAGES - 1>();
        __syncwarp(); /* what other lanes have copied */
        if (c * 32 + lane < groups)
            multiply<T, M, R>(sum, buffer + now, row, c, lane, v, x_at, token, m);
        __syncwarp(); /* before it is overwritten */
        now = now == (STAGES - 1) * stage ? 0 : now + stage;
        next = next == (STAGES - 1) * stage ? 0 : next + stage;
        x_at += parts * TS_CUDA_ACT_BYTES;
    }
}

#endif

/* mul.cu - products of quantised weights with few tokens, for decode.
 *
 * Bound by memory: every weight is read once, at its size in the file. A chunk of a row is 1024
 * elements, 32 for each lane. Blocks have odd sizes, so that a lane can't load its own wide or
 * aligned; a warp copies its chunks as they are, 16 bytes a lane side by side, to shared memory
 * (cp.async, STAGES - 1 chunks of R rows ahead), and lanes read their groups there. Only the warp
 * itself uses its buffers: no barriers of the block.
 *
 *     a warp's buffer   [STAGES][R][PITCH], each a chunk from the 16-byte border before it on
 *
 * Both limbs of the activations go through dp4a: sums of 32 (or 16) products are exact. */
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

/* --- the kernel ------------------------------------------------------------------------------- */

/* At least so many blocks share a multiprocessor: registers enough for each, or nvcc spills some
 * for the sake of one block more. With one token many warps that each have one chunk ahead read
 * faster than fewer with two. */
template <class T, int M, int R, int STAGES, bool JOIN>
static __global__ void __launch_bounds__(32 * TS_MUL_WARPS, M == 1   ? 8
                                                            : M == 2 ? 5
                                                                     : 3) mul(const ts_mul_args a)
{
    ts_let_next();
    TS_SHARED(uint8_t, shared);
    constexpr int stage = R * chunk<T>::PITCH;
    ts_mul_part p;
    const unsigned block = ts_mul_part_of<JOIN>(a, &p);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int groups = (int)(a.k / 32), chunks = (groups + 31) / 32, ahead = warp % p.split;
    int64_t first = ts_mul_first(block, p.split, JOIN ? R / 2 : R),
            token = (int64_t)chunks * TS_CUDA_ACT_BYTES;
    const uint8_t *x_at = a.x + ahead * TS_CUDA_ACT_BYTES + 16 * lane, *start[R];
    uint8_t *buffer = shared + warp * STAGES * stage;
    ts_shared_at place = ts_shared_place(buffer);
    row_at row[R];
    float sum[R * M] = {};
    ts_mul_rows<R, JOIN>(p, a.row_bytes, first, start);
    for (int r = 0; r < R; r++)
        row[r] = row_of(start[r], a.row_bytes, lane);

    if (a.fresh)
        ts_wait_previous();
    for (int i = 0; i < STAGES - 1; i++, ahead += p.split) {
        if (ahead < chunks)
            fetch<T, R>(place + i * stage, row, ahead, lane);
        ts_copy_commit();
    }
    ts_wait_previous(); /* weights were there from the start (or are fresh), activations only now */
    int now = 0, next = (STAGES - 1) * stage;
    for (int c = warp % p.split; c < chunks; c += p.split, ahead += p.split) {
        if (ahead < chunks)
            fetch<T, R>(place + next, row, ahead, lane);
        ts_copy_commit();
        lane_x x;
        load_x(&x, x_at);
        ts_copy_wait<STAGES - 1>();
        __syncwarp(); /* what other lanes have copied */
        if (c * 32 + lane < groups)
            multiply<T, M, R>(sum, buffer + now, row, c, lane, x, x_at, token, a.m);
        __syncwarp(); /* before it is overwritten */
        now = now == (STAGES - 1) * stage ? 0 : now + stage;
        next = next == (STAGES - 1) * stage ? 0 : next + stage;
        x_at += p.split * TS_CUDA_ACT_BYTES;
    }
    ts_mul_finish<R, M, JOIN>(a, p, first, sum);
}

/* --- launches --------------------------------------------------------------------------------- */

template <class T, int M, bool JOIN> static int launch(ts_mul_args a, void *stream)
{
    constexpr int R = ts_mul_rows_at_once(M), STAGES = M == 2 ? 3 : 2;
    constexpr int outputs = JOIN ? R / 2 : R;
    const unsigned blocks = ts_mul_share(&a, outputs);
    size_t shared = (size_t)TS_MUL_WARPS * STAGES * R * chunk<T>::PITCH;
    TS_LAUNCH((mul<T, M, R, STAGES, JOIN>), dim3(blocks), dim3(32 * TS_MUL_WARPS), shared, stream,
              a);
    return ts_launch_error();
}

template <class T, bool JOIN> static int launch_m(ts_mul_args a, void *stream)
{
    a.row_bytes = a.k / T::BLOCK * T::BYTES;
    return a.m == 1   ? launch<T, 1, JOIN>(a, stream)
           : a.m == 2 ? launch<T, 2, JOIN>(a, stream)
           : a.m <= 4 ? launch<T, 4, JOIN>(a, stream)
                      : launch<T, 8, JOIN>(a, stream);
}

static int launch_type(uint32_t type, const ts_mul_args &a, void *stream)
{
    switch (type) {
#define CASE(T)                                                                                    \
    case T::TYPE:                                                                                  \
        return a.join == TS_CUDA_ONE ? launch_m<T, false>(a, stream) : launch_m<T, true>(a, stream);
        TS_QUANT_TYPES(CASE)
#undef CASE
    default:
        return ts_mul_float(type, a, stream);
    }
}

extern "C" int ts_cuda_mul_run(const ts_cuda_mul *p, int parts, void *stream)
{
    bool floats = p->type == TS_TYPE_F32 || p->type == TS_TYPE_F16 || p->type == TS_TYPE_BF16;
    if (parts < 1 || parts > TS_CUDA_MUL_PARTS || (parts > 1 && p->join != TS_CUDA_ONE))
        return cudaErrorInvalidValue;
    for (int64_t t = 0; t < p->m; t += TS_MUL_TOKENS) {
        size_t x = floats ? (size_t)(t * p->ldx) * sizeof(float) : ts_cuda_act_bytes(t, p->k);
        ts_mul_args a = {};
        for (int i = 0; i < parts; i++) {
            a.part[i].w[0] = (const uint8_t *)p[i].w;
            a.part[i].w[1] = (const uint8_t *)p[i].v;
            a.part[i].y = p[i].y + t * p[i].ldy;
            a.part[i].add = p[i].add ? p[i].add + t * p[i].ldadd : NULL;
            a.part[i].ldy = p[i].ldy;
            a.part[i].ldadd = p[i].ldadd;
            a.part[i].n = p[i].n;
        }
        a.fresh = p->fresh;
        a.x = (const uint8_t *)p->x + x;
        a.ldx = p->ldx;
        a.k = p->k;
        a.m = p->m - t < TS_MUL_TOKENS ? (int)(p->m - t) : (int)TS_MUL_TOKENS;
        a.parts = parts;
        a.join = p->join;
        int error = launch_type(p->type, a, stream);
        if (error)
            return error;
    }
    return 0;
}

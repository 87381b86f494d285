/* moe_mul.cu - products of the chosen experts' weights with few tokens, for decode.
 *
 * One launch for all pairs of a token and an expert: an expert's matrix alone is too small to fill
 * a GPU. A pair is to a warp what a token is in mul.cu, with the rows of its own expert; two tokens
 * with the same expert read it twice, the second time from the L2. */
#include "cuda/moe.h"
#include "cuda/mul_chunk.h"
#include "cuda/mul_float.h"

enum { R = 2, STAGES = 2 };

typedef struct expert_args {
    const ts_cuda_batch *batch;
    bool out;
    const uint8_t *w[2];
    const float *bias[2];
    const int32_t *id;
    const uint8_t *x;
    float *y;
    int64_t ld_id, ldx, ldy, n, k, row_bytes;
    int used, join, split;
    bool by_pair;
} expert_args;

/* What a warp does for pair blockIdx.y: outputs from `first` on, by expert e. */
typedef struct expert_part {
    int64_t e, first;
    int64_t x; /* its row */
    const uint8_t *row[R];
} expert_part;

/* False if there is no such pair. */
template <bool JOIN> TS_DEVICE bool part_of(expert_part *p, const expert_args &a)
{
    constexpr int outputs = JOIN ? R / 2 : R;
    const unsigned token = blockIdx.y / (unsigned)a.used;
    if (token >= (unsigned)(a.out ? a.batch->m_out : a.batch->m))
        return false;
    p->e = a.id[token * a.ld_id + blockIdx.y % (unsigned)a.used];
    p->x = a.by_pair ? blockIdx.y : token;
    p->first = ts_mul_first(blockIdx.x, a.split, outputs);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int64_t i = p->first + r % outputs;
        p->row[r] = a.w[r / outputs] + (p->e * a.n + (i < a.n ? i : a.n - 1)) * a.row_bytes;
    }
    return true;
}

/* From sum[R] of every lane to y. All threads of the block come here. */
template <bool JOIN>
TS_DEVICE void finish(const expert_args &a, const expert_part &p, float (&sum)[R])
{
    constexpr int outputs = JOIN ? R / 2 : R;
    const int lane = (int)threadIdx.x % 32, r = lane / (32 / R);
    const int64_t i = p.first + r % outputs;
    float v = ts_lane_sums<R, 16>(sum);
    if (!ts_mul_gather(&v, a.split))
        return;
    const float *bias = r < outputs ? a.bias[0] : a.bias[1]; /* arguments stay where they lie */
    if (bias && i < a.n)
        v += bias[p.e * a.n + i];
    if constexpr (JOIN) {
        const float up = __shfl_xor_sync(~0u, v, 16);
        v = ts_glu(v, up, a.join);
    }
    if (lane % (32 / R) == 0 && r < outputs && i < a.n)
        a.y[blockIdx.y * a.ldy + i] = v;
}

template <class T, bool JOIN>
static __global__ void __launch_bounds__(32 * TS_MUL_WARPS, 8) expert_mul(const expert_args a)
{
    ts_in_turn();
    TS_SHARED(uint8_t, shared);
    expert_part p;
    float sum[R] = {};
    if (!part_of<JOIN>(&p, a))
        return;
    const int warp = (int)threadIdx.x / 32;
    const int64_t chunks = (a.k + TS_CUDA_ACT_K - 1) / TS_CUDA_ACT_K;
    row_at row[R];
#pragma unroll
    for (int r = 0; r < R; r++)
        row[r] = row_of(p.row[r], a.row_bytes, (int)threadIdx.x % 32);
    row_sums<T, 1, R, STAGES>(sum, row, a.k, a.x + p.x * chunks * TS_CUDA_ACT_BYTES, 1,
                              warp % a.split, a.split,
                              shared + warp * STAGES * R * chunk<T>::PITCH);
    finish<JOIN>(a, p, sum);
}

template <class W, bool WIDE, bool JOIN>
static __global__ void __launch_bounds__(32 * TS_MUL_WARPS) expert_float(const expert_args a)
{
    ts_in_turn();
    expert_part p;
    float sum[R] = {};
    if (!part_of<JOIN>(&p, a))
        return;
    float_sums<W, WIDE, 1, R>(sum, p.row, a.k, (const float *)a.x + p.x * a.ldx, a.ldx, 1,
                              (int)threadIdx.x / 32 % a.split, a.split);
    finish<JOIN>(a, p, sum);
}

/* --- launches -----------------------------------------------------------------------------------
 */

template <class T, bool JOIN> static int launch(expert_args a, dim3 grid, void *stream)
{
    const size_t shared = (size_t)TS_MUL_WARPS * STAGES * R * chunk<T>::PITCH;
    a.row_bytes = a.k / T::BLOCK * T::BYTES;
    TS_LAUNCH((expert_mul<T, JOIN>), grid, dim3(32 * TS_MUL_WARPS), shared, stream, a);
    return ts_launch_error();
}

template <class W, bool JOIN> static int launch_float(expert_args a, dim3 grid, void *stream)
{
    const dim3 block(32 * TS_MUL_WARPS);
    a.row_bytes = a.k * W::BYTES;
    if (a.k % W::VECTOR || (uintptr_t)a.x % 16 || a.ldx % 4)
        TS_LAUNCH((expert_float<W, false, JOIN>), grid, block, 0, stream, a);
    else
        TS_LAUNCH((expert_float<W, true, JOIN>), grid, block, 0, stream, a);
    return ts_launch_error();
}

template <bool JOIN> static int launch_type(uint32_t type, expert_args a, int64_t pairs, void *s)
{
    constexpr int outputs = JOIN ? R / 2 : R;
    const int64_t row_groups = (a.n + outputs - 1) / outputs;
    a.split = ts_mul_split(row_groups * a.used, (a.k + TS_CUDA_ACT_K - 1) / TS_CUDA_ACT_K);
    const int64_t per_block = TS_MUL_WARPS / a.split;
    const dim3 grid((unsigned)((row_groups + per_block - 1) / per_block), (unsigned)pairs);
    switch (type) {
#define CASE(T)                                                                                    \
    case T::TYPE:                                                                                  \
        return launch<T, JOIN>(a, grid, s);
        TS_QUANT_TYPES(CASE)
#undef CASE
#define CASE(W)                                                                                    \
    case W::TYPE:                                                                                  \
        return launch_float<W, JOIN>(a, grid, s);
        TS_FLOAT_TYPES(CASE)
#undef CASE
    default:
        return cudaErrorInvalidValue;
    }
}

int ts_cuda_expert_mul(const ts_cuda_on *on, const ts_cuda_experts *p, ts_cuda_rows y,
                       ts_cuda_chosen chosen, const void *x, int64_t ldx, bool by_pair)
{
    enum { MOST = 65535 }; /* of a grid */
    if (p->n_used < 1 || on->rows > MOST / p->n_used)
        return cudaErrorInvalidValue;
    if (on->rows <= 0)
        return 0;
    expert_args a = {};
    a.batch = on->batch;
    a.out = on->out;
    a.w[0] = (const uint8_t *)p->w;
    a.w[1] = (const uint8_t *)p->v;
    a.bias[0] = p->w_bias;
    a.bias[1] = p->v_bias;
    a.id = chosen.id;
    a.ld_id = chosen.ld;
    a.x = (const uint8_t *)x;
    a.y = y.x;
    a.ldx = ldx;
    a.ldy = y.ld;
    a.n = p->n;
    a.k = p->k;
    a.used = p->n_used;
    a.join = p->join;
    a.by_pair = by_pair;
    const int64_t pairs = on->rows * p->n_used;
    return p->join == TS_CUDA_ONE ? launch_type<false>(p->type, a, pairs, on->stream)
                                  : launch_type<true>(p->type, a, pairs, on->stream);
}

/* latent.cu - what is around latent attention: rows into the cache, and products by a matrix for
 * each head.
 *
 * Of few tokens a head's matrix is read once for all of them. A warp has R rows for each group of
 * LANES lanes, of which each takes eight elements at a time:
 *
 *     k = 128    16 lanes a row, 2 R rows at once         k = 512    32 lanes a row, in two steps
 *
 * The tokens' activations lie in shared memory as floats, in planes of four, so that lanes side by
 * side meet all banks:  [token][2][k / 8][4]. */
#include "cuda/latent.h"

#include "cuda/live.h"
#include "cuda/norm.h"
#include "cuda/quant.h"
#include "cuda/values.h"

namespace
{

/* --- into the cache ------------------------------------------------------------ */

__device__ __forceinline__ uint16_t half(float f)
{
    return ts_half_bits(ts_float_to_half(f));
}

__global__ void __launch_bounds__(TS_NORM_THREADS)
    store(live rows, ts_cuda_rows kv, ts_cuda_latents cache)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    if (r >= row_count(rows))
        return;
    uint16_t *to = cache.x + place_of(rows, r) * cache.dim;
    for (int64_t i = threadIdx.x; i < cache.dim; i += TS_NORM_THREADS)
        to[i] = half(kv.x[r * kv.ld + i]);
}

/* Which elements of x are pair i, and what they become. */
struct pair {
    int i0, i1;
    float a, b;
};

__device__ __forceinline__ pair turned(const ts_cuda_latent_qkv &p, const float *x, const float *cs,
                                       int i)
{
    const int pairs = (int)p.n_rot / 2, i0 = p.neox ? i : 2 * i, i1 = p.neox ? i + pairs : i0 + 1;
    const float a = x[i0], b = x[i1], c = cs[2 * i], s = cs[2 * i + 1];
    return pair{i0, i1, a * c - b * s, a * s + b * c};
}

/* Block (r, 0) has kv's row r, the others pairs of q's heads. */
__global__ void __launch_bounds__(TS_NORM_THREADS) qkv_store(live rows, ts_cuda_latent_qkv p)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    const int pairs = (int)p.n_rot / 2;
    if (r >= row_count(rows))
        return;
    const float *cs = p.cs.x + r * p.cs.ld;
    if (blockIdx.y > 0) {
        const int64_t i = (int64_t)(blockIdx.y - 1) * TS_NORM_THREADS + threadIdx.x;
        if (i >= p.n_heads * pairs)
            return;
        float *x = p.q.x + r * p.q.ld + i / pairs * p.head_dim + p.skip;
        const pair to = turned(p, x, cs, (int)(i % pairs));
        x[to.i0] = to.a;
        x[to.i1] = to.b;
        return;
    }
    const int64_t c = p.cache.c;
    const float *x = p.kv.x + r * p.kv.ld;
    const float f = ts_norm_factor(x, c, p.eps);
    uint16_t *to = p.cache.x + place_of(rows, r) * p.cache.dim;
    for (int64_t i = threadIdx.x; i < c; i += TS_NORM_THREADS)
        to[i] = half(x[i] * f * p.norm[i]);
    for (int i = threadIdx.x; i < pairs; i += TS_NORM_THREADS) {
        const pair k = turned(p, x + c, cs, i);
        to[c + k.i0] = half(k.a);
        to[c + k.i1] = half(k.b);
    }
}

/* --- a matrix for each head ---------------------------------------------------- */

constexpr int WARPS = 4, THREADS = 32 * WARPS;
constexpr int R = 4, BLOCK_ROWS = 32;

struct args {
    live rows;
    const uint8_t *w;
    ts_cuda_rows x, y;
    int64_t n, k, x_head, y_head, row_bytes;
    int t0; /* the first token */
};

/* x of a head and `m` tokens to shared memory, zeros behind k. */
__device__ __forceinline__ void load_x(float *to, const args &a, int64_t head, int m, int units)
{
    const int all = 8 * units;
    for (int i = threadIdx.x; i < m * all; i += THREADS) {
        const int t = i / all, e = i % all;
        const float *x = a.x.x + (a.t0 + t) * a.x.ld + head * a.x_head;
        to[t * all + e / 4 % 2 * (all / 2) + e / 8 * 4 + e % 4] = e < a.k ? x[e] : 0;
    }
}

/* sum[R][M] += R rows times a lane's units of x: those from `unit` on, `lanes` apart. */
template <class L, int M>
__device__ __forceinline__ void add_rows(float (&sum)[R][M], const uint8_t *const (&row)[R],
                                         const float *x, const args &a, int m, int unit, int units,
                                         int lanes)
{
    for (; unit < units; unit += lanes) {
        float w[R][8];
#pragma unroll
        for (int r = 0; r < R; r++)
            L::load(row[r], 8 * unit, a.k, w[r]);
#pragma unroll
        for (int t = 0; t < M; t++) {
            if (t > 0 && t >= m)
                break;
            const float4 *at = reinterpret_cast<const float4 *>(x + t * 8 * units) + unit;
            const float4 lo = at[0], hi = at[units];
#pragma unroll
            for (int r = 0; r < R; r++)
                sum[r][t] += w[r][0] * lo.x + w[r][1] * lo.y + w[r][2] * lo.z + w[r][3] * lo.w +
                             w[r][4] * hi.x + w[r][5] * hi.y + w[r][6] * hi.z + w[r][7] * hi.w;
        }
    }
}

/* Rows of head blockIdx.y times up to M tokens. `lanes` is a power of two. */
template <class L, int M> __global__ void __launch_bounds__(THREADS, 4) few(args a, int lanes)
{
    ts_in_turn();
    TS_SHARED(float, x);
    const int there = row_count(a.rows) - a.t0, m = there < M ? there : M;
    if (m <= 0)
        return;
    const int units = (int)((a.k + 7) / 8), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int at_once = 32 / lanes; /* rows side by side */
    const int64_t head = blockIdx.y, rest = a.x_head - a.k;
    load_x(x, a, head, m, units);
    __syncthreads();
    const uint8_t *w = a.w + head * a.n * a.row_bytes;
    const int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS;
    for (int i = warp * R * at_once; i < BLOCK_ROWS; i += WARPS * R * at_once) {
        const uint8_t *row[R];
        float sum[R][M] = {};
        const int64_t row0 = first + i + lane / lanes;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const int64_t j = row0 + r * at_once;
            row[r] = w + (j < a.n ? j : a.n - 1) * a.row_bytes;
        }
        add_rows<L, M>(sum, row, x, a, m, lane % lanes, units, lanes);
        for (int off = lanes / 2; off; off /= 2)
#pragma unroll
            for (int j = 0; j < R * M; j++)
                sum[j / M][j % M] += __shfl_xor_sync(~0u, sum[j / M][j % M], off);
#pragma unroll
        for (int j = 0; j < R * M; j++) {
            const int64_t to = row0 + j / M * at_once;
            const int t = j % M;
            if (lane % lanes == 0 && t < m && i + lane / lanes + j / M * at_once < BLOCK_ROWS &&
                to < a.n)
                a.y.x[(a.t0 + t) * a.y.ld + head * a.y_head + to] = sum[j / M][t];
        }
    }
    for (int64_t i = threadIdx.x; blockIdx.x == 0 && i < m * rest; i += THREADS) {
        const int64_t t = a.t0 + i / rest, e = i % rest;
        a.y.x[t * a.y.ld + head * a.y_head + a.n + e] =
            a.x.x[t * a.x.ld + head * a.x_head + a.k + e];
    }
}

__global__ void __launch_bounds__(THREADS) copy_rest(args a, int64_t heads)
{
    ts_in_turn();
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    const int64_t rest = a.x_head - a.k, head = i / rest, e = i % rest;
    if (r < row_count(a.rows) && head < heads)
        a.y.x[r * a.y.ld + head * a.y_head + a.n + e] =
            a.x.x[r * a.x.ld + head * a.x_head + a.k + e];
}

args args_of(const ts_cuda_on *on, const ts_cuda_head_mul *p)
{
    args a = {};
    a.rows = live_of(on);
    a.w = (const uint8_t *)p->w;
    a.x = p->x;
    a.y = p->y;
    a.n = p->n;
    a.k = p->k;
    a.x_head = p->x_head;
    a.y_head = p->n + p->x_head - p->k;
    return a;
}

template <class L, int M> int run_few(const ts_cuda_on *on, const ts_cuda_head_mul *p, args a)
{
    const int units = (int)((p->k + 7) / 8);
    int lanes = 1;
    while (lanes < units && lanes < 32)
        lanes *= 2;
    a.row_bytes = p->k / L::BLOCK * L::BYTES;
    dim3 grid((unsigned)((p->n + BLOCK_ROWS - 1) / BLOCK_ROWS), (unsigned)p->n_heads);
    TS_LAUNCH((few<L, M>), grid, THREADS, (size_t)(M * 8 * units) * sizeof(float), on->stream, a,
              lanes);
    return ts_launch_error();
}

template <class L> int run_tokens(const ts_cuda_on *on, const ts_cuda_head_mul *p, args a)
{
    const int64_t m = on->rows - a.t0;
    return m == 1   ? run_few<L, 1>(on, p, a)
           : m == 2 ? run_few<L, 2>(on, p, a)
           : m <= 4 ? run_few<L, 4>(on, p, a)
                    : run_few<L, 8>(on, p, a);
}

int run_type(const ts_cuda_on *on, const ts_cuda_head_mul *p, args a)
{
    switch (p->type) {
#define CASE(T)                                                                                    \
    case T::TYPE:                                                                                  \
        return run_tokens<ts_quant_row<T>>(on, p, a);
        TS_QUANT_TYPES(CASE)
#undef CASE
#define CASE(W)                                                                                    \
    case W::TYPE:                                                                                  \
        return run_tokens<ts_float_row<W>>(on, p, a);
        TS_FLOAT_TYPES(CASE)
#undef CASE
    default:
        return cudaErrorInvalidValue;
    }
}

bool valid(const ts_cuda_head_mul *p)
{
    enum { MOST = 65535 }; /* of a grid */
    return p->n > 0 && p->k > 0 && p->x_head >= p->k && p->n_heads > 0 && p->n_heads <= MOST;
}

} // namespace

int ts_cuda_latent_store(const ts_cuda_on *on, ts_cuda_rows kv, const ts_cuda_latents *cache)
{
    if (on->rows <= 0)
        return 0;
    TS_LAUNCH(store, (unsigned)on->rows, TS_NORM_THREADS, 0, on->stream, live_of(on), kv, *cache);
    return ts_launch_error();
}

int ts_cuda_latent_qkv_store(const ts_cuda_on *on, const ts_cuda_latent_qkv *p)
{
    const int64_t pairs = p->n_heads * (p->n_rot / 2);
    if (on->rows <= 0)
        return 0;
    if (p->n_rot < 2 || p->n_rot % 2 || p->cache.c + p->n_rot != p->cache.dim ||
        p->skip + p->n_rot > p->head_dim)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)on->rows, (unsigned)(1 + (pairs + TS_NORM_THREADS - 1) / TS_NORM_THREADS));
    TS_LAUNCH(qkv_store, grid, TS_NORM_THREADS, 0, on->stream, live_of(on), *p);
    return ts_launch_error();
}

int ts_cuda_heads_few(const ts_cuda_on *on, const ts_cuda_head_mul *p)
{
    if (!valid(p) || p->k > TS_CUDA_HEADS_K)
        return cudaErrorInvalidValue;
    args a = args_of(on, p);
    int e = 0;
    for (; a.t0 < on->rows && !e; a.t0 += TS_CUDA_HEADS_TOKENS)
        e = run_type(on, p, a);
    return e;
}

int ts_cuda_heads_rest(const ts_cuda_on *on, const ts_cuda_head_mul *p)
{
    const int64_t n = p->n_heads * (p->x_head - p->k);
    if (!valid(p))
        return cudaErrorInvalidValue;
    if (on->rows <= 0 || n == 0)
        return 0;
    dim3 grid((unsigned)on->rows, (unsigned)((n + THREADS - 1) / THREADS));
    TS_LAUNCH(copy_rest, grid, THREADS, 0, on->stream, args_of(on, p), p->n_heads);
    return ts_launch_error();
}

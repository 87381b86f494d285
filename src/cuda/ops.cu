/* ops.cu - norms, RoPE, the KV store and what works element by element.
 *
 * A block has one row, or a part of one: blockIdx.x is the row. The words of a sum are added in an
 * order that depends on the width alone. */
#include "cuda/ops.h"

#include "cuda/standin.h"

#define LANES 32

/* --- launches --------------------------------------------------------------- */

/* The rows that are there, as kernels read them. */
struct live {
    const ts_cuda_batch *batch;
    bool out;
};

static __device__ __forceinline__ int row_count(live r)
{
    return r.out ? r.batch->m_out : r.batch->m;
}

static live live_of(const ts_cuda_on *on)
{
    return live{on->batch, on->out};
}

static unsigned groups(int64_t n, int64_t of)
{
    return (unsigned)((n + of - 1) / of);
}

/* --- element by element ------------------------------------------------------ */

/* A thread has PER elements of a row, THREADS apart: their loads are all on the way before the
 * first is used. */
enum { THREADS = 256, PER = 4 };

enum op { OP_ADD, OP_SILU, OP_GELU };

template <int op> static __device__ __forceinline__ float apply(float a, float b)
{
    if (op == OP_ADD)
        return a + b;
    if (op == OP_SILU)
        return a / (1 + expf(-a)) * b;
    /* gelu's tanh form (arXiv:1606.08415) as a / (1 + e^-2z) */
    float z = 0.7978845608f * (a + 0.044715f * a * a * a);
    return a / (1 + expf(-2 * z)) * b;
}

/* b has a row stride of ldb, which is 0 for a vector that belongs to all rows. */
template <int op>
static __global__ void binary(live rows, ts_cuda_rows y, ts_cuda_rows a, const float *b,
                              int64_t ldb, int64_t d)
{
    const int64_t r = blockIdx.x, i0 = (int64_t)blockIdx.y * (THREADS * PER) + threadIdx.x;
    if (r >= row_count(rows))
        return;
    const float *ar = a.x + r * a.ld, *br = b + r * ldb;
    float *yr = y.x + r * y.ld, va[PER], vb[PER];
#pragma unroll
    for (int j = 0; j < PER; j++) {
        const bool in = i0 + j * THREADS < d;
        va[j] = in ? ar[i0 + j * THREADS] : 0;
        vb[j] = in ? br[i0 + j * THREADS] : 0;
    }
#pragma unroll
    for (int j = 0; j < PER; j++)
        if (i0 + j * THREADS < d)
            yr[i0 + j * THREADS] = apply<op>(va[j], vb[j]);
}

template <int op>
static int run_binary(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, const float *b,
                      int64_t ldb, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)on->rows, groups(d, THREADS * PER));
    TS_LAUNCH(binary<op>, grid, THREADS, 0, on->stream, live_of(on), y, a, b, ldb, d);
    return ts_launch_error();
}

int ts_cuda_add(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b, int64_t d)
{
    return run_binary<OP_ADD>(on, y, a, b.x, b.ld, d);
}

int ts_cuda_silu_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                     int64_t d)
{
    return run_binary<OP_SILU>(on, y, a, b.x, b.ld, d);
}

int ts_cuda_gelu_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                     int64_t d)
{
    return run_binary<OP_GELU>(on, y, a, b.x, b.ld, d);
}

int ts_cuda_bias(const ts_cuda_on *on, ts_cuda_rows y, const float *vec, int64_t d)
{
    return run_binary<OP_ADD>(on, y, y, vec, 0, d);
}

static __global__ void softcap(live rows, ts_cuda_rows y, float cap, int64_t d)
{
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (r < row_count(rows) && i < d)
        y.x[r * y.ld + i] = cap * tanhf(y.x[r * y.ld + i] / cap);
}

int ts_cuda_softcap(const ts_cuda_on *on, ts_cuda_rows y, float cap, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)on->rows, groups(d, THREADS));
    TS_LAUNCH(softcap, grid, THREADS, 0, on->stream, live_of(on), y, cap, d);
    return ts_launch_error();
}

static __global__ void select_rows(const ts_cuda_batch *batch, ts_cuda_rows y, ts_cuda_rows a,
                                   int64_t d)
{
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (r < batch->m_out && i < d)
        y.x[r * y.ld + i] = a.x[(batch->m - batch->m_out + r) * a.ld + i];
}

int ts_cuda_select(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)on->rows, groups(d, THREADS));
    TS_LAUNCH(select_rows, grid, THREADS, 0, on->stream, on->batch, y, a, d);
    return ts_launch_error();
}

/* --- norms of whole rows ----------------------------------------------------- */

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int i = LANES / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(~0u, v, i);
    return v;
}

/* The sum over a block, the same bits in every thread. */
static __device__ __forceinline__ float block_sum(float v)
{
    TS_SHARED_ARRAY(float, part, [LANES]);
    v = warp_sum(v);
    if (threadIdx.x % LANES == 0)
        part[threadIdx.x / LANES] = v;
    __syncthreads();
    float sum = 0;
    for (unsigned w = 0; w < blockDim.x / LANES; w++)
        sum += part[w];
    __syncthreads(); /* `part` may be written again */
    return sum;
}

/* What rms_norm multiplies a row by. */
static __device__ __forceinline__ float row_factor(const float *x, int64_t d, float eps)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x)
        sum += x[i] * x[i];
    return 1 / sqrtf(block_sum(sum) / (float)d + eps);
}

/* y[i] = x[i] * f * w[i] */
static __device__ __forceinline__ void scale_row(float *y, const float *x, const float *w, float f,
                                                 int64_t d)
{
    const int64_t n = blockDim.x;
    for (int64_t i0 = threadIdx.x; i0 < d; i0 += PER * n) {
        float v[PER];
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const int64_t i = i0 + j * n;
            v[j] = i < d ? x[i] * f * (w ? w[i] : 1) : 0;
        }
#pragma unroll
        for (int j = 0; j < PER; j++)
            if (i0 + j * n < d)
                y[i0 + j * n] = v[j];
    }
}

static __global__ void rms_norm(live rows, ts_cuda_rows y, ts_cuda_rows x, const float *w,
                                int64_t d, float eps)
{
    const int64_t r = blockIdx.x;
    if (r >= row_count(rows))
        return;
    const float *xr = x.x + r * x.ld;
    scale_row(y.x + r * y.ld, xr, w, row_factor(xr, d, eps), d);
}

/* A thread meets in scale_row the elements of x that it has written itself. */
static __global__ void add_rms_norm(live rows, ts_cuda_rows xn, ts_cuda_rows x, ts_cuda_rows y,
                                    const float *post, const float *w, int64_t d, float eps)
{
    const int64_t r = blockIdx.x, n = blockDim.x;
    if (r >= row_count(rows))
        return;
    float *xr = x.x + r * x.ld, sum = 0;
    const float *yr = y.x + r * y.ld, fy = post ? row_factor(yr, d, eps) : 1;
    for (int64_t i0 = threadIdx.x; i0 < d; i0 += PER * n) {
        float v[PER];
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const int64_t i = i0 + j * n;
            v[j] = i < d ? xr[i] + yr[i] * fy * (post ? post[i] : 1) : 0;
        }
#pragma unroll
        for (int j = 0; j < PER; j++) {
            if (i0 + j * n < d)
                xr[i0 + j * n] = v[j];
            sum += v[j] * v[j];
        }
    }
    if (xn.x)
        scale_row(xn.x + r * xn.ld, xr, w, 1 / sqrtf(block_sum(sum) / (float)d + eps), d);
}

/* Threads of a block that has a row of d. */
static unsigned row_threads(int64_t d)
{
    return d <= 1024 ? 128 : 512;
}

int ts_cuda_rms_norm(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows x, const float *w,
                     int64_t d, float eps)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(rms_norm, (unsigned)on->rows, row_threads(d), 0, on->stream, live_of(on), y, x, w, d,
              eps);
    return ts_launch_error();
}

int ts_cuda_add_rms_norm(const ts_cuda_on *on, ts_cuda_rows xn, ts_cuda_rows x, ts_cuda_rows y,
                         const float *post, const float *w, int64_t d, float eps)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(add_rms_norm, (unsigned)on->rows, row_threads(d), 0, on->stream, live_of(on), xn, x,
              y, post, w, d, eps);
    return ts_launch_error();
}

/* --- heads ------------------------------------------------------------------- */

static __global__ void angles(live rows, ts_cuda_rows cs, const float *freq, int64_t pairs,
                              float mscale)
{
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * LANES + threadIdx.x;
    if (r >= row_count(rows) || i >= pairs)
        return;
    const float theta = (float)(rows.batch->pos0 + (int)r) * freq[i];
    cs.x[r * cs.ld + 2 * i] = cosf(theta) * mscale;
    cs.x[r * cs.ld + 2 * i + 1] = sinf(theta) * mscale;
}

int ts_cuda_angles(const ts_cuda_on *on, ts_cuda_rows cs, const float *freq, int64_t n_rot,
                   float mscale)
{
    if (on->rows <= 0 || n_rot < 2)
        return 0;
    dim3 grid((unsigned)on->rows, groups(n_rot / 2, LANES));
    TS_LAUNCH(angles, grid, LANES, 0, on->stream, live_of(on), cs, freq, n_rot / 2, mscale);
    return ts_launch_error();
}

/* Some heads of every row, and where they go. */
struct head_part {
    ts_cuda_heads h;
    uint16_t *cache; /* of the layer, or NULL: in place */
};

/* The work of one launch: the heads of up to three parts, one warp each. */
struct head_work {
    head_part part[3];
    int64_t n_ctx;
    int head_dim, n_rot;
    bool neox;
    float eps;
};

/* v[hd] = rms_norm(v) * w; lane i has the elements i, i + 32, .. */
static __device__ __forceinline__ void norm_head(float *v, const float *w, int hd, float eps)
{
    const int lane = threadIdx.x % LANES;
    float sum = 0;
    for (int i = lane; i < hd; i += LANES)
        sum += v[i] * v[i];
    const float f = 1 / sqrtf(warp_sum(sum) / (float)hd + eps);
    for (int i = lane; i < hd; i += LANES)
        v[i] = v[i] * f * w[i];
}

static __device__ __forceinline__ void turn_head(float *v, const float *cs, int n_rot, bool neox)
{
    const int pairs = n_rot / 2;
    for (int i = threadIdx.x % LANES; i < pairs; i += LANES) {
        const int i0 = neox ? i : 2 * i, i1 = neox ? i + pairs : 2 * i + 1;
        const float a = v[i0], b = v[i1], c = cs[2 * i], s = cs[2 * i + 1];
        v[i0] = a * c - b * s;
        v[i1] = a * s + b * c;
    }
}

enum { HEADS = 4 }; /* heads, so warps, of a block */

static __global__ void heads(live rows, head_work w)
{
    TS_SHARED_ARRAY(float, values, [HEADS][TS_CUDA_MAX_HEAD]);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, hd = w.head_dim;
    const int64_t r = blockIdx.x;
    int64_t head = (int64_t)blockIdx.y * HEADS + warp;
    /* The parts are looked through with constant indices: they stay where arguments lie. */
    head_part p = w.part[0];
    if (head >= p.h.n_heads) {
        head -= p.h.n_heads;
        p = w.part[1];
        if (head >= p.h.n_heads) {
            head -= p.h.n_heads;
            p = w.part[2];
        }
    }
    if (r >= row_count(rows) || head >= p.h.n_heads)
        return;
    float *x = p.h.x.x + r * p.h.x.ld + head * hd, *v = values[warp];
    for (int i = lane; i < hd; i += LANES)
        v[i] = x[i] + (p.h.bias ? p.h.bias[head * hd + i] : 0);
    if (p.h.norm)
        norm_head(v, p.h.norm, hd, w.eps);
    __syncwarp();
    if (p.h.cs)
        turn_head(v, p.h.cs + r * p.h.ldcs, w.n_rot, w.neox);
    __syncwarp();
    if (!p.cache) {
        for (int i = lane; i < hd; i += LANES)
            x[i] = v[i];
        return;
    }
    uint16_t *to = p.cache + (head * w.n_ctx + rows.batch->pos0 + r) * hd;
    for (int i = lane; i < hd; i += LANES)
        to[i] = ts_half_bits(ts_float_to_half(v[i]));
}

static int run_heads(const ts_cuda_on *on, const head_work *w)
{
    const int64_t n = w->part[0].h.n_heads + w->part[1].h.n_heads + w->part[2].h.n_heads;
    if (on->rows <= 0 || n <= 0)
        return 0;
    if (w->head_dim > TS_CUDA_MAX_HEAD || w->n_rot > w->head_dim || w->n_rot % 2)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)on->rows, groups(n, HEADS));
    TS_LAUNCH(heads, grid, HEADS * LANES, 0, on->stream, live_of(on), *w);
    return ts_launch_error();
}

int ts_cuda_qkv_store(const ts_cuda_on *on, const ts_cuda_qkv *p)
{
    head_work w = {};
    w.part[0] = head_part{p->q, NULL};
    w.part[1] = head_part{p->k, p->kv.k};
    w.part[2] = head_part{p->v, p->kv.v};
    w.n_ctx = p->kv.n_ctx;
    w.head_dim = (int)p->kv.head_dim;
    w.n_rot = (int)p->n_rot;
    w.neox = p->neox;
    w.eps = p->eps;
    return run_heads(on, &w);
}

int ts_cuda_head_norm(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                      const float *vec, float eps)
{
    head_work w = {};
    w.part[0].h.x = x;
    w.part[0].h.n_heads = n_heads;
    w.part[0].h.norm = vec;
    w.head_dim = (int)head_dim;
    w.eps = eps;
    return run_heads(on, &w);
}

int ts_cuda_rope(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                 ts_cuda_rows cs, int64_t n_rot, bool neox)
{
    head_work w = {};
    w.part[0].h.x = x;
    w.part[0].h.n_heads = n_heads;
    w.part[0].h.cs = cs.x;
    w.part[0].h.ldcs = cs.ld;
    w.head_dim = (int)head_dim;
    w.n_rot = (int)n_rot;
    w.neox = neox;
    return run_heads(on, &w);
}

int ts_cuda_store(const ts_cuda_on *on, ts_cuda_rows k, ts_cuda_rows v, const ts_cuda_kv *kv)
{
    head_work w = {};
    w.part[0].h.x = k;
    w.part[0].cache = kv->k;
    w.part[1].h.x = v;
    w.part[1].cache = kv->v;
    w.part[0].h.n_heads = w.part[1].h.n_heads = kv->n_head_kv;
    w.n_ctx = kv->n_ctx;
    w.head_dim = (int)kv->head_dim;
    return run_heads(on, &w);
}

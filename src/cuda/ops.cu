/* ops.cu - norms, RoPE, the KV store and what works element by element.
 *
 * A block has one row, or a part of one: blockIdx.x is the row. The words of a sum are added in an
 * order that depends on the width alone. */
#include "cuda/ops.h"

#include "cuda/live.h"
#include "cuda/norm.h"

#define LANES 32

static unsigned groups(int64_t n, int64_t of)
{
    return (unsigned)((n + of - 1) / of);
}

/* --- element by element ------------------------------------------------------ */

/* A thread has PER elements of a row, THREADS apart: their loads are all on the way before the
 * first is used. */
enum { THREADS = 256, PER = 4 };

enum op { OP_ADD, OP_SILU, OP_GELU, OP_CLAMPED };

template <int op> static __device__ __forceinline__ float apply(float a, float b)
{
    if (op == OP_ADD)
        return a + b;
    if (op == OP_SILU)
        return a / (1 + expf(-a)) * b;
    if (op == OP_CLAMPED) {
        a = a > 7 ? 7 : a;
        b = b > 7 ? 7 : b < -7 ? -7 : b;
        return a / (1 + expf(-1.702f * a)) * (b + 1);
    }
    /* gelu's tanh form (arXiv:1606.08415) as a / (1 + e^-2z) */
    float z = 0.7978845608f * (a + 0.044715f * a * a * a);
    return a / (1 + expf(-2 * z)) * b;
}

/* b has a row stride of ldb, which is 0 for a vector that belongs to all rows. */
template <int op>
static __global__ void binary(live rows, ts_cuda_rows y, ts_cuda_rows a, const float *b,
                              int64_t ldb, int64_t d)
{
    ts_in_turn();
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

int ts_cuda_clamped_mul(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                        int64_t d)
{
    return run_binary<OP_CLAMPED>(on, y, a, b.x, b.ld, d);
}

/* dst[m][d] = act(a) * b, rounded to BF16. A thread has four elements. */
template <int op>
static __global__ void __launch_bounds__(THREADS)
    glu_bf16(uint16_t *dst, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t d)
{
    ts_in_turn();
    const int64_t r = blockIdx.x, i = 4 * ((int64_t)blockIdx.y * THREADS + threadIdx.x);
    if (i >= d)
        return;
    const float *ar = a + r * lda, *br = b + r * ldb;
    float va[4], vb[4];
    uint32_t h[4];
    ts_load4(va, ar, i, d, ts_wide(ar));
    ts_load4(vb, br, i, d, ts_wide(br));
#pragma unroll
    for (int j = 0; j < 4; j++)
        h[j] = ts_bf16_bits(ts_float_to_bf16(apply<op>(va[j], vb[j])));
    ts_store_halves4(dst + r * d, h, i, d);
}

int ts_cuda_glu_bf16(void *dst, bool silu, const float *a, int64_t lda, const float *b, int64_t ldb,
                     int64_t m, int64_t d, void *stream)
{
    if (m <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)m, groups(d, 4 * THREADS));
    if (silu)
        TS_LAUNCH(glu_bf16<OP_SILU>, grid, THREADS, 0, stream, (uint16_t *)dst, a, lda, b, ldb, d);
    else
        TS_LAUNCH(glu_bf16<OP_GELU>, grid, THREADS, 0, stream, (uint16_t *)dst, a, lda, b, ldb, d);
    return ts_launch_error();
}

/* dst[m][d] = rms_norm(x) * w, rounded to BF16. */
static __global__ void __launch_bounds__(TS_NORM_THREADS)
    norm_bf16(uint16_t *dst, const float *x, int64_t ldx, const float *w, float eps, int64_t d)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    const float *xr = x + r * ldx, f = ts_norm_factor(xr, d, eps);
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4], g[4];
        uint32_t h[4];
        ts_load4(v, xr, i, d, ts_wide(xr));
        ts_load4(g, w, i, d, ts_wide(w));
#pragma unroll
        for (int j = 0; j < 4; j++)
            h[j] = ts_bf16_bits(ts_float_to_bf16(v[j] * f * g[j]));
        ts_store_halves4(dst + r * d, h, i, d);
    }
}

int ts_cuda_norm_bf16(void *dst, const float *x, int64_t ldx, const float *w, float eps, int64_t m,
                      int64_t d, void *stream)
{
    if (m <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(norm_bf16, (unsigned)m, TS_NORM_THREADS, 0, stream, (uint16_t *)dst, x, ldx, w, eps,
              d);
    return ts_launch_error();
}

int ts_cuda_bias(const ts_cuda_on *on, ts_cuda_rows y, const float *vec, int64_t d)
{
    return run_binary<OP_ADD>(on, y, y, vec, 0, d);
}

static __global__ void softcap(live rows, ts_cuda_rows y, float cap, int64_t d)
{
    ts_in_turn();
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

/* out: which rows; NULL: the last. */
static __global__ void select_rows(const ts_cuda_batch *batch, const int32_t *out, ts_cuda_rows y,
                                   ts_cuda_rows a, int64_t d)
{
    ts_in_turn();
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (r < batch->m_out && i < d)
        y.x[r * y.ld + i] = a.x[(out ? out[r] : batch->m - batch->m_out + r) * a.ld + i];
}

int ts_cuda_select(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)on->rows, groups(d, THREADS));
    const int32_t *out = on->spans ? on->spans->out : NULL;
    TS_LAUNCH(select_rows, grid, THREADS, 0, on->stream, on->batch, out, y, a, d);
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

/* y[i] = x[i] * f * w[i]; a thread has elements as in norm.h. */
static __device__ __forceinline__ void scale_row(float *y, const float *x, const float *w, float f,
                                                 int64_t d)
{
    const bool xw = ts_wide(x), yw = ts_wide(y), ww = ts_wide(w);
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4], g[4] = {1, 1, 1, 1};
        ts_load4(v, x, i, d, xw);
        if (w)
            ts_load4(g, w, i, d, ww);
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = v[j] * f * g[j];
        ts_store4(y, v, i, d, yw);
    }
}

static __global__ void __launch_bounds__(TS_NORM_THREADS)
    gate(live rows, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b, const float *w, int64_t d)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    if (r >= row_count(rows))
        return;
    const float *ar = a.x + r * a.ld, *br = b.x + r * b.ld;
    float *yr = y.x + r * y.ld, sum = 0;
    for (int64_t i = threadIdx.x; i < d; i += TS_NORM_THREADS)
        sum += ar[i] * w[i];
    const float f = 1 / (1 + expf(-ts_norm_sum(sum)));
    for (int64_t i = threadIdx.x; i < d; i += TS_NORM_THREADS)
        yr[i] += f * br[i];
}

int ts_cuda_gate(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows a, ts_cuda_rows b,
                 const float *w, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(gate, (unsigned)on->rows, TS_NORM_THREADS, 0, on->stream, live_of(on), y, a, b, w, d);
    return ts_launch_error();
}

static __global__ void __launch_bounds__(TS_NORM_THREADS)
    rms_norm(live rows, ts_cuda_rows y, ts_cuda_rows x, const float *w, int64_t d, float eps)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    if (r >= row_count(rows))
        return;
    const float *xr = x.x + r * x.ld;
    scale_row(y.x + r * y.ld, xr, w, ts_norm_factor(xr, d, eps), d);
}

/* Head blockIdx.y of a row, of d floats. A thread writes what it alone has read. */
static __global__ void __launch_bounds__(TS_NORM_THREADS)
    center(live rows, ts_cuda_rows y, ts_cuda_rows x, int64_t d)
{
    ts_in_turn();
    const int64_t r = blockIdx.x, head = blockIdx.y;
    if (r >= row_count(rows))
        return;
    const float *xr = x.x + r * x.ld + head * d;
    float *yr = y.x + r * y.ld + head * d, sum = 0;
    const bool xw = ts_wide(xr), yw = ts_wide(yr);
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4];
        ts_load4(v, xr, i, d, xw);
        sum += v[0] + v[1] + v[2] + v[3];
    }
    const float mean = ts_norm_sum(sum) / (float)d;
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4];
        ts_load4(v, xr, i, d, xw);
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] -= mean;
        ts_store4(yr, v, i, d, yw);
    }
}

int ts_cuda_center(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows x, int64_t n_heads, int64_t d)
{
    if (on->rows <= 0 || n_heads <= 0 || d <= 0)
        return 0;
    dim3 grid((unsigned)on->rows, (unsigned)n_heads);
    TS_LAUNCH(center, grid, TS_NORM_THREADS, 0, on->stream, live_of(on), y, x, d);
    return ts_launch_error();
}

/* A thread meets in scale_row the elements of x that it has written itself. */
static __global__ void __launch_bounds__(TS_NORM_THREADS)
    add_rms_norm(live rows, ts_cuda_rows xn, ts_cuda_rows x, ts_cuda_rows y, const float *post,
                 const float *w, int64_t d, float eps)
{
    ts_in_turn();
    const int64_t r = blockIdx.x;
    if (r >= row_count(rows))
        return;
    float *xr = x.x + r * x.ld, sum = 0;
    const float *yr = y.x + r * y.ld, fy = post ? ts_norm_factor(yr, d, eps) : 1;
    const bool xw = ts_wide(xr), yw = ts_wide(yr), pw = ts_wide(post);
    for (int64_t i = 4 * threadIdx.x; i < d; i += TS_NORM_RUN) {
        float v[4], u[4], g[4] = {1, 1, 1, 1};
        ts_load4(v, xr, i, d, xw);
        ts_load4(u, yr, i, d, yw);
        if (post)
            ts_load4(g, post, i, d, pw);
#pragma unroll
        for (int j = 0; j < 4; j++) /* two roundings, as a norm and a sum by themselves have */
            v[j] = __fadd_rn(v[j], __fmul_rn(__fmul_rn(u[j], fy), g[j]));
        ts_store4(xr, v, i, d, xw);
        sum = __fadd_rn(sum, ts_squares(v));
    }
    if (xn.x)
        scale_row(xn.x + r * xn.ld, xr, w, ts_norm_of(sum, d, eps), d);
}

int ts_cuda_rms_norm(const ts_cuda_on *on, ts_cuda_rows y, ts_cuda_rows x, const float *w,
                     int64_t d, float eps)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(rms_norm, (unsigned)on->rows, TS_NORM_THREADS, 0, on->stream, live_of(on), y, x, w, d,
              eps);
    return ts_launch_error();
}

int ts_cuda_add_rms_norm(const ts_cuda_on *on, ts_cuda_rows xn, ts_cuda_rows x, ts_cuda_rows y,
                         const float *post, const float *w, int64_t d, float eps)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    TS_LAUNCH(add_rms_norm, (unsigned)on->rows, TS_NORM_THREADS, 0, on->stream, live_of(on), xn, x,
              y, post, w, d, eps);
    return ts_launch_error();
}

/* --- heads ------------------------------------------------------------------- */

static __global__ void angles(live rows, ts_cuda_rows cs, const float *freq, int64_t pairs,
                              float mscale)
{
    ts_in_turn();
    const int64_t r = blockIdx.x, i = (int64_t)blockIdx.y * LANES + threadIdx.x;
    if (r >= row_count(rows) || i >= pairs)
        return;
    const float theta = (float)pos_of(rows, r) * freq[i];
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
    int64_t n_ctx, step; /* floats from head to head */
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
    ts_in_turn();
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
    float *x = p.h.x.x + r * p.h.x.ld + head * w.step, *v = values[warp];
    for (int i = lane; i < hd; i += LANES)
        v[i] = x[i] + (p.h.bias ? p.h.bias[head * hd + i] : 0);
    if (p.h.norm)
        norm_head(v, p.h.norm + head * p.h.norm_step, hd, w.eps);
    __syncwarp();
    if (p.h.cs)
        turn_head(v, p.h.cs + r * p.h.ldcs, w.n_rot, w.neox);
    __syncwarp();
    if (!p.cache) {
        for (int i = lane; i < hd; i += LANES)
            x[i] = v[i];
        return;
    }
    uint16_t *to = p.cache + (head * w.n_ctx + place_of(rows, r)) * hd;
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
    w.step = w.head_dim = (int)p->kv.head_dim;
    w.n_rot = (int)p->n_rot;
    w.neox = p->neox;
    w.eps = p->eps;
    return run_heads(on, &w);
}

int ts_cuda_head_norm(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                      const float *vec, int64_t norm_step, float eps)
{
    head_work w = {};
    w.part[0].h.x = x;
    w.part[0].h.n_heads = n_heads;
    w.part[0].h.norm = vec;
    w.part[0].h.norm_step = norm_step;
    w.step = w.head_dim = (int)head_dim;
    w.eps = eps;
    return run_heads(on, &w);
}

/* What isn't turned is left alone: a head is what is. */
int ts_cuda_rope(const ts_cuda_on *on, ts_cuda_rows x, int64_t n_heads, int64_t head_dim,
                 int64_t skip, ts_cuda_rows cs, int64_t n_rot, bool neox)
{
    head_work w = {};
    if (skip + n_rot > head_dim)
        return cudaErrorInvalidValue;
    w.part[0].h.x = ts_cuda_rows{x.x + skip, x.ld};
    w.part[0].h.n_heads = n_heads;
    w.part[0].h.cs = cs.x;
    w.part[0].h.ldcs = cs.ld;
    w.step = head_dim;
    w.head_dim = (int)n_rot;
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
    w.step = w.head_dim = (int)kv->head_dim;
    return run_heads(on, &w);
}

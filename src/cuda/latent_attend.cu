/* latent_attend.cu - attention of many heads over one latent row a position.
 *
 * A block of 8 warps has M query rows and walks over positions, KEYS at a time, which it copies to
 * shared memory once: for the scores all of a row is K, for the sums its first elements are V.
 * Warps are RW rows of CW: a warp has 16 query rows with KEYS / CW keys of the scores, and with
 * VD / CW columns of the sums, which so fit its registers. Between the two, weights go through
 * shared memory:
 *
 *     S = Q K^T    warp (i, j): rows 16 i .., keys j KEYS / CW ..       maxima, then weights to P
 *     O += P V     warp (i, j): rows 16 i .., columns j VD / CW ..      P of all the CW warps
 *
 * Products are those of warp_attend.h, with its choice of dimensions. The rows in shared memory are
 * not padded, since both products read them: in each 128 bytes of row p the 16-byte chunk d stands
 * at d ^ swap(p), so that the eight lanes that read at once meet all banks, be it chunks 0 .. 3 of
 * rows 2i and 2i + 1 (scores) or chunks 2i and 2i + 1 of rows 0, 2, 4 and 6 (sums). */
#include "cuda/latent.h"
#include "cuda/live.h"
#include "cuda/warp_attend.h"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS, KEYS = 32;
/* Positions of a split, at least: what has fewer costs more to join than it saves. */
constexpr int LEAST = 64;
constexpr int P_STRIDE = KEYS + 8; /* halves: rows g, words c of each meet all banks */
constexpr float LOG2E = 1.4426950408889634f;

/* Threads of a block that joins splits: four columns each. */
constexpr int JOIN = TS_CUDA_LATENT / 4;

/* What kernels get. */
struct task {
    const float *q;
    float *o;
    int64_t ldq, ldo;
    const uint16_t *x;
    const ts_cuda_batch *batch;
    const ts_cuda_span
        *spans; /* one for each blockIdx.z, with as many rows each; NULL: the batch */
    int heads, dim, c;
    int splits, queries; /* rows of a block */
    int rows;            /* query rows there can be: of the launch, or a span, not the batch */
    float scale;         /* times log2 e                           */
    float *part;         /* [span][split][rows][c] sums            */
    float *ml;           /* [span][split][rows][2] m and l of them */
};

__device__ __forceinline__ whose whose_of(const task &a)
{
    return whose_of(a.batch, a.spans ? a.spans + blockIdx.z : NULL);
}

template <int HD, int VD, int RW, int STAGES> struct shape {
    enum {
        CW = WARPS / RW,
        M = ROWS * RW,
        WARP_KEYS = KEYS / CW,
        COLUMNS = VD / CW,
    };
    static_assert(COLUMNS % 64 == 0 && WARP_KEYS % 8 == 0 && HD % 64 == 0, "");
};

template <int HD, int VD, int RW, int STAGES> struct shared_rows {
    using S = shape<HD, VD, RW, STAGES>;
    uint16_t q[S::M * stride<HD>::KEY], keys[STAGES][KEYS * HD], p[S::M * P_STRIDE];
    float row[S::CW][S::M]; /* maxima of keys that warps have, and sums at the end */
};

/* Positions that the rows of a block see, 0 .. end, and in how many each split is: the same for the
 * block that sums and the one that joins. */
__device__ __forceinline__ int end_of(const task &a, int m, int pos0, int r0)
{
    const int rows = m * a.heads, last = (r0 + a.queries < rows ? r0 + a.queries : rows) - 1;
    return pos0 + last / a.heads + 1;
}

__device__ __forceinline__ int split_of(const task &a, int end)
{
    const int each = (end + a.splits - 1) / a.splits;
    return each <= LEAST ? LEAST : (each + KEYS - 1) / KEYS * KEYS;
}

__device__ __forceinline__ int swap(int row)
{
    return (row & 6) ^ (row & 1) << 2;
}

/* Where the 16 bytes of chunk d of a row stand, in halves. */
__device__ __forceinline__ int chunk_at(int d, int swapped)
{
    return 8 * ((d & ~7) + ((d & 7) ^ swapped));
}

/* Begins to copy positions p .. p + KEYS, which share a page; zeros for those from `end` on, which
 * may hold anything, and for dimensions past dim. */
template <int HD>
__device__ __forceinline__ void copy_keys(uint16_t *to, const task &a, const int32_t *map, int p,
                                          int end)
{
    constexpr int CHUNKS = HD / 8;
    static_assert(TS_CUDA_PAGE % KEYS == 0, "");
    const int place = p + moved(map, p);
    for (int i = threadIdx.x; i < KEYS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, d = i % CHUNKS;
        uint16_t *at = to + row * HD + chunk_at(d, swap(row));
        if (p + row < end && 8 * d < a.dim)
            ts_copy16(at, a.x + (int64_t)(place + row) * a.dim + 8 * d);
        else
            *reinterpret_cast<uint4 *>(at) = make_uint4(0, 0, 0, 0);
    }
    ts_copy_commit();
}

/* The largest of a row's values in its four lanes. */
__device__ __forceinline__ float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
    return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}

/* Scores become weights 2^(s - m), in shared memory as halves, and the sums so far are scaled to
 * the new m. hi: the last of the warp's keys that rows g and g + 8 see. */
template <class SHAPE, class SHARED>
__device__ __forceinline__ void weigh(SHARED &sh, sums<SHAPE::COLUMNS> &t,
                                      float (&s)[SHAPE::WARP_KEYS / 8][4], const int (&hi)[2],
                                      int row0, int column)
{
    constexpr int N = SHAPE::WARP_KEYS / 8;
    const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < 2 * N; j++) {
            float &v = s[j / 2][2 * h + j % 2];
            if (8 * (j / 2) + 2 * c + j % 2 > hi[h])
                v = -INFINITY;
            top = fmaxf(top, v);
        }
        top = row_max(top);
        if (c == 0)
            sh.row[column][row0 + g + 8 * h] = top;
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = row0 + g + 8 * h;
        float top = t.m[h], l = 0;
#pragma unroll
        for (int w = 0; w < SHAPE::CW; w++)
            top = fmaxf(top, sh.row[w][row]);
        const float m = top == -INFINITY ? 0 : top; /* nothing seen yet: all weights are 0 */
        const float f = ts_exp2(t.m[h] - m);
        uint16_t *p = sh.p + row * P_STRIDE + column * SHAPE::WARP_KEYS + 2 * c;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float w0 = ts_exp2(s[n][2 * h] - (m - LIFT));
            const float w1 = ts_exp2(s[n][2 * h + 1] - (m - LIFT));
            l += w0 + w1;
            *reinterpret_cast<uint32_t *>(p + 8 * n) = ts_floats_to_half2(w0, w1);
        }
        t.m[h] = top;
        t.l[h] = t.l[h] * f + l;
#pragma unroll
        for (int i = 0; i < SHAPE::COLUMNS / 64 * 16; i++)
            t.o[i / 16][i / 2 % 8][2 * h + i % 2] *= f;
    }
    __syncthreads();
}

/* l of each row's all keys, from the warps that have a part of them. */
template <class SHAPE, class SHARED>
__device__ __forceinline__ void whole_sums(SHARED &sh, sums<SHAPE::COLUMNS> &t, int row0,
                                           int column)
{
    const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float l = row_sum(t.l[h]);
        if (c == 0)
            sh.row[column][row0 + g + 8 * h] = l;
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        t.l[h] = 0;
#pragma unroll
        for (int w = 0; w < SHAPE::CW; w++)
            t.l[h] += sh.row[w][row0 + g + 8 * h];
    }
}

/* Query row r's sums: done, or a split of them. row0: of the batch, the timeline's first. */
template <class SHAPE>
__device__ __forceinline__ void put(const task &a, int row0, const sums<SHAPE::COLUMNS> &t, int h,
                                    int r, int column)
{
    const int d0 = column * SHAPE::COLUMNS, left = a.c - d0;
    if (a.splits == 1) {
        put_row<SHAPE::COLUMNS>(a.o + (row0 + r / a.heads) * a.ldo + (int64_t)(r % a.heads) * a.c +
                                    d0,
                                t, h, t.l[h] > 0 ? 1 / t.l[h] : 0, left);
        return;
    }
    const int64_t at = (int64_t)(blockIdx.z * a.splits + blockIdx.y) * a.rows + r;
    put_row<SHAPE::COLUMNS>(a.part + at * a.c + d0, t, h, 1, left);
    if (column == 0 && threadIdx.x % 4 == 0) {
        a.ml[2 * at] = t.m[h];
        a.ml[2 * at + 1] = t.l[h];
    }
}

/* Block (x, y, z): of span z the x-th rows from the end, which see most, and split y of their
 * positions. */
template <int HD, int VD, int RW, int STAGES, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) attend(task a)
{
    using S = shape<HD, VD, RW, STAGES>;
    using SH = shared_rows<HD, VD, RW, STAGES>;
    ts_in_turn();
    TS_SHARED(SH, sh);
    const whose w = whose_of(a);
    const int m = w.m, pos0 = w.pos0, n_rows = m * a.heads;
    const int r0 = (int)(gridDim.x - 1 - blockIdx.x) * S::M;
    if (r0 >= n_rows)
        return;
    const int all = end_of(a, m, pos0, r0), each = split_of(a, all);
    const int from = (int)blockIdx.y * each, end = from + each < all ? from + each : all;
    if (from >= end)
        return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    const int row0 = warp / S::CW * ROWS, column = warp % S::CW, key0 = column * S::WARP_KEYS;
    copy_keys<HD>(sh->keys[0], a, w.map, from, end);
    load_queries<HD>(sh->q, S::M, a.q + w.r0 * a.ldq, a.ldq, r0, n_rows, a.heads, a.dim, a.scale);
    sums<S::COLUMNS> t;
    sums_clear(t);
    /* Rows that aren't there see what their tokens would: zeros, that nobody writes. */
    const int last[2] = {pos0 + (r0 + row0 + g) / a.heads, pos0 + (r0 + row0 + g + 8) / a.heads};
    for (int p = from, now = 0; p < end; p += KEYS, now = STAGES - 1 - now) {
        ts_copy_wait<0>();
        __syncthreads(); /* these keys are there, and nobody reads those before any more */
        if (STAGES > 1 && p + KEYS < end)
            copy_keys<HD>(sh->keys[STAGES - 1 - now], a, w.map, p + KEYS, end);
        const uint16_t *keys = sh->keys[now];
        float s[S::WARP_KEYS / 8][4];
        scores<HD, S::WARP_KEYS>(s, sh->q + (row0 + g) * stride<HD>::KEY, [&](int n, int i) {
            return load_16(keys + (key0 + 8 * n + g) * HD + chunk_at(4 * i + c, swap(g)));
        });
        const int hi[2] = {last[0] - p - key0, last[1] - p - key0};
        weigh<S>(*sh, t, s, hi, row0, column);
        const uint16_t *pw = sh->p + (row0 + g) * P_STRIDE + 2 * c;
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t weights[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                weights[i] = *reinterpret_cast<const uint32_t *>(pw + i % 2 * 8 * P_STRIDE +
                                                                 16 * n + i / 2 * 8);
            add_sixteen<S::COLUMNS>(t, weights, [&](int j, int i) {
                const int key = 16 * n + j % 2 + j / 2 * 8 + 2 * c;
                return load_16(keys + key * HD +
                               chunk_at(column * (S::COLUMNS / 8) + 8 * i + g, swap(key)));
            });
        }
        if (STAGES == 1 && p + KEYS < end) {
            __syncthreads();
            copy_keys<HD>(sh->keys[0], a, w.map, p + KEYS, end);
        }
    }
    whole_sums<S>(*sh, t, row0, column);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = r0 + row0 + g + 8 * h;
        if (r < n_rows)
            put<S>(a, w.r0, t, h, r, column);
    }
}

/* Joins the splits of query row blockIdx.x of span blockIdx.z, in their order. */
__global__ void __launch_bounds__(JOIN) join(task a)
{
    ts_in_turn();
    const whose w = whose_of(a);
    const int r = (int)blockIdx.x, d = 4 * (int)threadIdx.x;
    if (r >= w.m * a.heads || d >= a.c)
        return;
    const int end = end_of(a, w.m, w.pos0, r / a.queries * a.queries), each = split_of(a, end);
    const int64_t first = (int64_t)blockIdx.z * a.splits;
    const int n = (end + each - 1) / each;
    float top = -INFINITY, l = 0;
    for (int s = 0; s < n; s++)
        top = fmaxf(top, a.ml[2 * ((first + s) * a.rows + r)]);
    float4 o = make_float4(0, 0, 0, 0);
    for (int s = 0; s < n; s++) {
        const int64_t at = (first + s) * a.rows + r;
        const float f = ts_exp2(a.ml[2 * at] - top);
        const float4 x = *reinterpret_cast<const float4 *>(a.part + at * a.c + d);
        l += f * a.ml[2 * at + 1];
        o = make_float4(o.x + f * x.x, o.y + f * x.y, o.z + f * x.z, o.w + f * x.w);
    }
    const float f = 1 / l;
    float *to = a.o + (w.r0 + r / a.heads) * a.ldo + (int64_t)(r % a.heads) * a.c + d;
    *reinterpret_cast<float4 *>(to) = make_float4(f * o.x, f * o.y, f * o.z, f * o.w);
}

/* --- launches ------------------------------------------------------------------ */

/* Shared memory that a launch gets without asking. */
constexpr int64_t SHARED = 48 << 10;

/* A grid's third dimension. */
constexpr int64_t MOST_SPANS = 65535;

/* Multiprocessors of the GPU in use, and what a block may have of shared memory. The stand-in has
 * few, or tests would have to be large. */
void look(int *processors, int64_t *room)
{
#ifdef TS_CUDA_STANDIN
    *processors = 12;
    *room = 227 << 10;
#else
    int device = 0, bytes = 0;
    *processors = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(processors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    *room = bytes;
#endif
}

/* Of n spans with a.rows query rows each; without spans n is 1. */
template <int HD, int VD, int RW, int STAGES, int BLOCKS>
int run(const ts_cuda_on *on, task a, int processors, int64_t n)
{
    using S = shape<HD, VD, RW, STAGES>;
    constexpr int64_t bytes = sizeof(shared_rows<HD, VD, RW, STAGES>);
    const int64_t tiles = (a.rows + S::M - 1) / S::M;
    const int e = bytes > SHARED ? TS_SHARED_LIMIT((attend<HD, VD, RW, STAGES, BLOCKS>), bytes) : 0;
    if (e)
        return e;
    if (processors > TS_CUDA_LATENT_BLOCKS)
        processors = TS_CUDA_LATENT_BLOCKS;
    a.queries = S::M;
    a.splits = tiles < processors ? processors / (int)tiles : 1;
    const int64_t most = a.splits == 1 ? MOST_SPANS : (int64_t)TS_CUDA_LATENT_SPANS;
    for (int64_t i = 0, now; i < n; i += now) {
        now = n - i < most ? n - i : most;
        a.ml = a.part + now * a.splits * a.rows * a.c;
        dim3 grid((unsigned)tiles, (unsigned)a.splits, (unsigned)now);
        TS_LAUNCH((attend<HD, VD, RW, STAGES, BLOCKS>), grid, THREADS, bytes, on->stream, a);
        int failed = ts_launch_error();
        if (!failed && a.splits > 1) {
            TS_LAUNCH(join, dim3((unsigned)a.rows, 1, (unsigned)now), JOIN, 0, on->stream, a);
            failed = ts_launch_error();
        }
        if (failed)
            return failed;
        a.spans += a.spans ? now : 0;
    }
    return 0;
}

/* By whichever kernel suits so many rows and the GPU. */
int choose(const ts_cuda_on *on, task a, int64_t tokens, int64_t n, int64_t room)
{
    int processors;
    int64_t has;
    look(&processors, &has);
    room = room ? room : has;
    a.rows = (int)(tokens * a.heads);
    if (a.dim <= 128)
        return run<128, 128, 4, 2, 2>(on, a, processors, n);
    if (room < (int64_t)sizeof(shared_rows<576, 512, 2, 2>))
        return run<576, 512, 2, 1, 1>(on, a, processors, n);
    return a.rows > 32 && room >= (int64_t)sizeof(shared_rows<576, 512, 4, 2>)
               ? run<576, 512, 4, 2, 1>(on, a, processors, n)
               : run<576, 512, 2, 2, 1>(on, a, processors, n);
}

} // namespace

int ts_cuda_latent_attend(const ts_cuda_on *on, const ts_cuda_latent_attention *p)
{
    const int64_t dim = p->kv.dim, c = p->kv.c;
    if (on->rows <= 0)
        return 0;
    if (c < 8 || c % 8 || dim % 8 || dim < c || c > TS_CUDA_LATENT || dim > TS_CUDA_LATENT_ROW ||
        p->n_head < 1 || p->q.ld % 4 || p->o.ld % 4 || on->rows > INT32_MAX / p->n_head)
        return cudaErrorInvalidValue;
    task a = {};
    a.q = p->q.x;
    a.o = p->o.x;
    a.ldq = p->q.ld;
    a.ldo = p->o.ld;
    a.x = p->kv.x;
    a.batch = on->batch;
    a.heads = (int)p->n_head;
    a.dim = (int)dim;
    a.c = (int)c;
    a.scale = p->scale * LOG2E;
    a.part = (float *)p->work;
    const ts_cuda_spans *s = on->spans;
    int e = 0;
    if (!s)
        return choose(on, a, on->rows, 1, p->room);
    for (int64_t i = 0, end; i < s->n && !e; i = end) {
        end = i + 1;
        while (end < s->n && s->here[end].m == s->here[i].m)
            end++;
        a.spans = s->spans + i;
        e = choose(on, a, s->here[i].m, end - i, p->room);
    }
    return e;
}

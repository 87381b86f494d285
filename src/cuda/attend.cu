/* attend.cu - attention of few rows over many positions (decode), and of many rows (prefill).
 *
 * Both give each warp ROWS query rows of a KV head (warp_attend.h), so that the heads of a group
 * share what is loaded. In decode the warps of a block have the same rows and different keys, which
 * go from global memory straight into their registers; in prefill they have different rows and the
 * same keys, which go through shared memory. */
#include "cuda/attend.h"

#include "cuda/act.h"
#include "cuda/live.h"
#include "cuda/warp_attend.h"

namespace
{

constexpr int WARPS = 4, THREADS = 32 * WARPS;

/* Decode: positions of a split, whose sums a block makes: its warps do them in one or two steps.
 * Blocks of a KV head at most, or of a tile of rows if there are many; with more splits than that a
 * block has several. */
constexpr int SPLIT = TS_CUDA_SPLIT, MAX_SPLITS = 256, LEAST_SPLITS = 8;

constexpr float LOG2E = 1.4426950408889634f;

/* Threads of a block that joins splits. */
constexpr int JOIN = 256;

/* What kernels get. */
struct task {
    const float *q;
    float *o;
    int64_t ldq, ldo;
    const uint16_t *k, *v;
    int64_t n_ctx;
    const ts_cuda_batch *batch;
    const ts_cuda_tile *tiles;   /* of decode with spans: of blockIdx.z                       */
    const ts_cuda_token *tokens; /* ... and where the launch's tokens are                     */
    const ts_cuda_span *span;    /* of prefill with spans: the one there is                   */
    int n_head_kv, group, hd;
    int window;         /* 0 = no limit                                                      */
    int rows;           /* query rows of a KV head there can be: of the launch, not the batch */
    float scale;        /* times log2 e                                                      */
    float cap;          /* times log2 e: of scores; 0 = none                                 */
    float *part;        /* [split][n_head_kv][rows][hd] sums                                 */
    float *ml;          /* [split][n_head_kv][rows][2] m and l of them                       */
    uint8_t *act;       /* instead of o, where it isn't NULL */
    const float *sinks; /* [n_head], or NULL                                          */
};

/* The first position that token t sees. */
__device__ __forceinline__ int first_seen(const task &a, int pos0, int t)
{
    return a.window > 0 && a.window <= pos0 + t ? pos0 + t - a.window + 1 : 0;
}

/* The positions that the lane's two rows see, lo .. hi; none for rows that aren't there. r: row g
 * of the warp's, of n_rows. */
__device__ __forceinline__ void limits(const task &a, int pos0, int r, int n_rows, int (&lo)[2],
                                       int (&hi)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int t = (r + 8 * h) / a.group;
        lo[h] = first_seen(a, pos0, t);
        hi[h] = r + 8 * h < n_rows ? pos0 + t : -1;
    }
}

__device__ __forceinline__ void shift(int (&to)[2], const int (&from)[2], int by)
{
    to[0] = from[0] - by;
    to[1] = from[1] - by;
}

/* What the sums of head `head` are divided by: l, relative to m, and its sink. */
__device__ __forceinline__ float all_of(const task &a, int64_t head, float l, float m)
{
    return a.sinks ? l + ts_exp2(a.sinks[head] * LOG2E - m + LIFT) : l;
}

/* --- decode -------------------------------------------------------------------- */

/* Positions a warp takes at a time, and whether their V is fetched along with K: what it has in
 * flight lies in registers beside the sums. */
template <int HD> struct step {
    enum { KEYS = HD <= 128 ? 32 : 16, EARLY = HD <= 192 };
};

/* A warp's sums go to shared memory with m and l, where the block adds them up. */
template <int HD> struct shared_sums {
    float o[WARPS][ROWS][HD + 4];
    float m[WARPS][ROWS], l[WARPS][ROWS];
    uint16_t q[ROWS * stride<HD>::KEY];
};

/* Positions from .. end that lie in p .. p + KEYS, for the warp's rows. Positions outside from ..
 * end may hold anything and are not read. k and v: moved to where position 0 would be. */
template <int HD>
__device__ __forceinline__ void decode_keys(const task &a, sums<HD> &t, const uint16_t *q,
                                            const uint16_t *k, const uint16_t *v, int p, int from,
                                            int end, const int (&lo)[2], const int (&hi)[2])
{
    constexpr int KEYS = step<HD>::KEYS;
    const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, hd = a.hd;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    auto fetch = [&](const uint16_t *x, int pos, int d) {
        return pos >= from && pos < end && d < hd ? load_16(x + (int64_t)pos * hd + d) : zero;
    };
    auto fetch_v = [&](int n, int j, int i) {
        return fetch(v, p + 16 * n + 2 * c + j % 2 + j / 2 * 8, 64 * i + 8 * g);
    };
    uint4 kr[KEYS / 8][HD / 32], vr[KEYS / 16][HD / 64][4];
#pragma unroll
    for (int i = 0; i < KEYS / 8 * (HD / 32); i++) {
        const int n = i / (HD / 32), x = i % (HD / 32);
        kr[n][x] = fetch(k, p + 8 * n + g, 32 * x + 8 * c);
    }
    if (step<HD>::EARLY) {
#pragma unroll
        for (int i = 0; i < KEYS / 16 * (HD / 64) * 4; i++) {
            const int n = i / (HD / 16), x = i / 4 % (HD / 64);
            vr[n][x][i % 4] = fetch_v(n, i % 4, x);
        }
    }
    float s[KEYS / 8][4];
    scores<HD, KEYS>(s, q, [&](int n, int i) { return kr[n][i]; });
    soft_cap<KEYS>(s, a.cap);
    int l[2], h[2];
    shift(l, lo, p);
    shift(h, hi, p);
    soften<HD, KEYS>(t, s, l, h, false);
    add_values<HD, KEYS>(t, s, [&](int n, int j, int i) {
        return step<HD>::EARLY ? vr[n][i][j] : fetch_v(n, j, i);
    });
}

/* The sums of the block's warps, added up in their order: those of n rows of a split into the
 * task's `part` and `ml`, from row r0 of the launch on. */
template <int HD>
__device__ __forceinline__ void put_split(const task &a, shared_sums<HD> &sh, int64_t head,
                                          int64_t split, int r0, int n)
{
    const int quads = a.hd / 4;
    const int64_t at = (split * a.n_head_kv + head) * a.rows + r0;
    for (int i = threadIdx.x; i < n * quads; i += THREADS) {
        const int r = i / quads, d = i % quads * 4;
        float m = sh.m[0][r], l = 0;
        for (int w = 1; w < WARPS; w++)
            m = fmaxf(m, sh.m[w][r]);
        float4 o = make_float4(0, 0, 0, 0);
        for (int w = 0; w < WARPS; w++) {
            const float f = m == -INFINITY ? 0 : ts_exp2(sh.m[w][r] - m);
            const float4 x = *reinterpret_cast<const float4 *>(&sh.o[w][r][d]);
            o = make_float4(o.x + f * x.x, o.y + f * x.y, o.z + f * x.z, o.w + f * x.w);
            l += f * sh.l[w][r];
        }
        *reinterpret_cast<float4 *>(a.part + (at + r) * a.hd + d) = o;
        if (d == 0) {
            a.ml[2 * (at + r)] = m;
            a.ml[2 * (at + r) + 1] = l;
        }
    }
}

template <int HD> __global__ void __launch_bounds__(THREADS) decode(task a)
{
    ts_in_turn();
    TS_SHARED(shared_sums<HD>, sh);
    constexpr int KEYS = step<HD>::KEYS;
    static_assert(TS_CUDA_PAGE % KEYS == 0 && TS_CUDA_TILE_ROWS == ROWS, "");
    const ts_cuda_tile *tile = a.tiles ? a.tiles + blockIdx.z : NULL;
    const whose w = whose_of(a.batch, tile ? &tile->span : NULL);
    const int pos0 = w.pos0, n_rows = w.m * a.group;
    const int r0 = tile ? tile->first : blockIdx.z * ROWS;
    const int put_at = tile ? tile->at * a.group + r0 : r0;
    const int from = first_seen(a, pos0, 0), end = pos0 + w.m;
    int split = from / SPLIT + blockIdx.x;
    if (r0 >= n_rows || split * SPLIT >= end)
        return;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    const int64_t head = blockIdx.y;
    const uint16_t *k = a.k + head * a.n_ctx * a.hd, *v = a.v + head * a.n_ctx * a.hd;
    load_queries<HD>(sh->q, ROWS, a.q + w.r0 * a.ldq + head * a.group * a.hd, a.ldq, r0, n_rows,
                     a.group, a.hd, a.scale);
    int lo[2], hi[2];
    limits(a, pos0, r0 + g, n_rows, lo, hi);
    for (; split * SPLIT < end; split += gridDim.x) {
        __syncthreads(); /* the queries are there, the last split has been put */
        sums<HD> t;
        sums_clear(t);
        for (int i = warp; i < SPLIT / KEYS; i += WARPS) {
            const int p = split * SPLIT + i * KEYS;
            if (p + KEYS <= from || p >= end)
                continue;
            const int64_t by = (int64_t)moved(w.map, p) * a.hd;
            decode_keys<HD>(a, t, sh->q + g * stride<HD>::KEY, k + by, v + by, p, from, end, lo,
                            hi);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float l = row_sum(t.l[h]);
            sh->m[warp][g + 8 * h] = t.m[h];
            sh->l[warp][g + 8 * h] = l;
            if (r0 + g + 8 * h < n_rows)
                put_row<HD>(sh->o[warp][g + 8 * h], t, h, 1, HD);
        }
        __syncthreads();
        put_split<HD>(a, *sh, head, split, put_at, n_rows - r0 < ROWS ? n_rows - r0 : ROWS);
    }
}

/* The largest of the block's values, in every thread. */
__device__ __forceinline__ float join_max(float v)
{
    TS_SHARED_ARRAY(float, top, [JOIN / 32]);
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, i));
    if (threadIdx.x % 32 == 0)
        top[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < JOIN / 32; w++)
        v = fmaxf(v, top[w]);
    return v;
}

/* Element i of a token's k, as an activation; a warp has the 32 of a block. */
__device__ __forceinline__ void put_act(uint8_t *act, int64_t token, int64_t i, int64_t k, float x)
{
    int max = __float_as_int(x) & 0x7fffffff;
#pragma unroll
    for (int off = 16; off > 0; off /= 2) {
        const int other = __shfl_xor_sync(~0u, max, off);
        max = other > max ? other : max;
    }
    float scale, d = ts_act_scale(max, &scale);
    int h, q = ts_act_code(x, scale, &h), sum = q;
#pragma unroll
    for (int off = 8; off > 0; off /= 2)
        sum += __shfl_xor_sync(~0u, sum, off);
    const int sum1 = __shfl_down_sync(~0u, sum, 16);
    uint8_t *to = ts_act_at(act, token, i, k);
    const int at = (int)(i % 32) / 16 * 512 + (int)(i % 16);
    to[at] = (uint8_t)h;
    to[at + 2 * 512] = (uint8_t)(q - 128 * h);
    if (i % 32 == 0)
        *reinterpret_cast<int4 *>(to + 4 * 512) = make_int4(__float_as_int(d), sum, sum1, 0);
}

/* Joins the splits of one query row, those that it sees: warp w adds those whose number is w modulo
 * the warps, in order, then the warps' sums are added in order. */
__global__ void __launch_bounds__(JOIN) join(task a)
{
    ts_in_turn();
    TS_SHARED_ARRAY(float, sum, [JOIN / 32][TS_CUDA_MAX_HEAD]);
    TS_SHARED_ARRAY(float, sum_l, [JOIN / 32]);
    const int r = blockIdx.x, t = r / a.group;
    if (!a.tokens && t >= a.batch->m)
        return;
    const ts_cuda_token token = a.tokens ? a.tokens[t] : ts_cuda_token{t, a.batch->pos0 + t};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = first_seen(a, token.pos, 0) / SPLIT, n = token.pos / SPLIT + 1;
    const int64_t row = (int64_t)blockIdx.y * a.rows + r, pitch = (int64_t)a.n_head_kv * a.rows;
    float top = -INFINITY;
    for (int s = first + threadIdx.x; s < n; s += JOIN)
        top = fmaxf(top, a.ml[2 * (s * pitch + row)]);
    top = join_max(top);
    float o[TS_CUDA_MAX_HEAD / 32] = {0}, l = 0;
    for (int s = first + (warp - first % 8 + 8) % 8; s < n; s += JOIN / 32) {
        const float *ml = a.ml + 2 * (s * pitch + row), *part = a.part + (s * pitch + row) * a.hd;
        const float f = top == -INFINITY ? 0 : ts_exp2(ml[0] - top);
        l += f * ml[1];
#pragma unroll
        for (int i = 0; i < TS_CUDA_MAX_HEAD / 32; i++)
            o[i] += lane + 32 * i < a.hd ? f * part[lane + 32 * i] : 0;
    }
#pragma unroll
    for (int i = 0; i < TS_CUDA_MAX_HEAD / 32; i++)
        sum[warp][lane + 32 * i] = o[i];
    if (lane == 0)
        sum_l[warp] = l;
    __syncthreads();
    const int d = threadIdx.x;
    if (d >= a.hd)
        return;
    float x = 0;
    l = 0;
    for (int w = 0; w < JOIN / 32; w++) {
        x += sum[w][d];
        l += sum_l[w];
    }
    const int64_t head = (int64_t)blockIdx.y * a.group + r % a.group, at = head * a.hd + d;
    x = l > 0 ? x / all_of(a, head, l, top) : 0;
    if (a.act)
        put_act(a.act, token.row, at, (int64_t)a.n_head_kv * a.group * a.hd, x);
    else
        a.o[token.row * a.ldo + at] = x;
}

/* --- prefill ------------------------------------------------------------------- */

constexpr int BLOCK_ROWS = ROWS * WARPS;

template <int HD> struct shared_tiles {
    enum { KEYS = HD <= 128 ? 64 : 32 };
    uint16_t q[BLOCK_ROWS * stride<HD>::KEY], k[KEYS * stride<HD>::KEY],
        v[KEYS * stride<HD>::VALUE];
};

/* Begins to copy positions p .. p + KEYS to rows of shared memory; zeros for positions that lie
 * outside from .. end, which may hold anything, and for dimensions past hd. */
template <int HD>
__device__ __forceinline__ void copy_tile(uint16_t *to, int ld, const uint16_t *x, int hd,
                                          const int32_t *map, int p, int from, int end)
{
    constexpr int CHUNKS = HD / 8;
    x += p < end ? (int64_t)moved(map, p) * hd : 0;
    for (int i = threadIdx.x; i < shared_tiles<HD>::KEYS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, d = i % CHUNKS * 8, pos = p + row;
        if (pos >= from && pos < end && d < hd)
            ts_copy16(to + row * ld + d, x + (int64_t)pos * hd + d);
        else
            *reinterpret_cast<uint4 *>(to + row * ld + d) = make_uint4(0, 0, 0, 0);
    }
    ts_copy_commit();
}

/* What a warp knows of its rows. */
struct span {
    int lo[2], hi[2];      /* what the lane's rows see               */
    int from, end;         /* from .. end are seen by some row       */
    int all_from, all_end; /* and these by all                  */
};

/* Rows r0 .. r0 + ROWS of n_rows; the lane's first is r0 + g. */
__device__ __forceinline__ span span_of(const task &a, int pos0, int r0, int n_rows)
{
    span s;
    limits(a, pos0, r0 + threadIdx.x % 32 / 4, n_rows, s.lo, s.hi);
    const int t0 = r0 / a.group, t1 = (r0 + ROWS - 1) / a.group;
    s.from = first_seen(a, pos0, t0);
    s.end = r0 < n_rows ? pos0 + t1 + 1 : 0;
    s.all_from = first_seen(a, pos0, t1);
    s.all_end = pos0 + t0 + 1;
    return s;
}

/* Scores of the keys at p, as weights. False if no row of the warp sees any. */
template <int HD>
__device__ __forceinline__ bool weigh(sums<HD> &t, float (&s)[shared_tiles<HD>::KEYS / 8][4],
                                      const shared_tiles<HD> &sh, const span &x, int p, float cap)
{
    constexpr int KEYS = shared_tiles<HD>::KEYS;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    if (p + KEYS <= x.from || p >= x.end)
        return false;
    const uint16_t *k = sh.k + g * stride<HD>::KEY + 8 * c;
    scores<HD, KEYS>(s, sh.q + (warp * ROWS + g) * stride<HD>::KEY,
                     [&](int n, int i) { return load_16(k + 8 * n * stride<HD>::KEY + 32 * i); });
    soft_cap<KEYS>(s, cap);
    int lo[2], hi[2];
    shift(lo, x.lo, p);
    shift(hi, x.hi, p);
    soften<HD, KEYS>(t, s, lo, hi, p >= x.all_from && p + KEYS <= x.all_end);
    return true;
}

template <int HD> __global__ void __launch_bounds__(THREADS) prefill(task a)
{
    ts_in_turn();
    TS_SHARED(shared_tiles<HD>, sh);
    constexpr int KEYS = shared_tiles<HD>::KEYS, VS = stride<HD>::VALUE;
    static_assert(TS_CUDA_PAGE % KEYS == 0, "");
    const whose w = whose_of(a.batch, a.span);
    const int pos0 = w.pos0, n_rows = w.m * a.group;
    /* The last rows see most positions: beginning with them evens out the end. */
    const int r0 = (int)(gridDim.x - 1 - blockIdx.x) * BLOCK_ROWS;
    if (r0 >= n_rows)
        return;
    const int last = (r0 + BLOCK_ROWS < n_rows ? r0 + BLOCK_ROWS : n_rows) - 1;
    const int from = first_seen(a, pos0, r0 / a.group), end = pos0 + last / a.group + 1;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    const int64_t head = blockIdx.y;
    const uint16_t *k = a.k + head * a.n_ctx * a.hd, *v = a.v + head * a.n_ctx * a.hd;
    int p = from / KEYS * KEYS;
    copy_tile<HD>(sh->k, stride<HD>::KEY, k, a.hd, w.map, p, from, end);
    load_queries<HD>(sh->q, BLOCK_ROWS, a.q + w.r0 * a.ldq + head * a.group * a.hd, a.ldq, r0,
                     n_rows, a.group, a.hd, a.scale);
    const span x = span_of(a, pos0, r0 + warp * ROWS, n_rows);
    sums<HD> t;
    sums_clear(t);
    /* V arrives during the scores, the next K during the sums. */
    for (; p < end; p += KEYS) {
        copy_tile<HD>(sh->v, VS, v, a.hd, w.map, p, from, end);
        ts_copy_wait<1>();
        __syncthreads();
        float s[KEYS / 8][4];
        const bool seen = weigh<HD>(t, s, *sh, x, p, a.cap);
        __syncthreads();
        copy_tile<HD>(sh->k, stride<HD>::KEY, k, a.hd, w.map, p + KEYS, from, end);
        ts_copy_wait<1>();
        __syncthreads();
        if (seen) {
            const uint16_t *vl = sh->v + 2 * c * VS + 8 * g;
            add_values<HD, KEYS>(t, s, [&](int n, int j, int i) {
                return load_16(vl + (16 * n + j % 2 + j / 2 * 8) * VS + 64 * i);
            });
        }
        __syncthreads();
    }
    ts_copy_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float l = row_sum(t.l[h]);
        const int r = r0 + warp * ROWS + g + 8 * h;
        const int64_t q = head * a.group + r % a.group;
        if (r < n_rows)
            put_row<HD>(a.o + (w.r0 + r / a.group) * a.ldo + q * a.hd, t, h,
                        l > 0 ? 1 / all_of(a, q, l, t.m[h]) : 0, a.hd);
    }
}

/* --- launches ------------------------------------------------------------------ */

/* Shared memory that a launch gets without asking. */
constexpr int64_t SHARED = 48 << 10;

bool valid(const ts_cuda_attention *p)
{
    return p->kv.head_dim % 8 == 0 && p->kv.head_dim > 0 && p->kv.head_dim <= TS_CUDA_MAX_HEAD &&
           p->kv.n_head_kv > 0 && p->n_head % p->kv.n_head_kv == 0 && p->q.ld % 4 == 0 &&
           p->o.ld % 4 == 0;
}

task task_of(const ts_cuda_on *on, const ts_cuda_attention *p)
{
    task a = {};
    a.q = p->q.x;
    a.o = p->o.x;
    a.ldq = p->q.ld;
    a.ldo = p->o.ld;
    a.k = p->kv.k;
    a.v = p->kv.v;
    a.n_ctx = p->kv.n_ctx;
    a.batch = on->batch;
    a.n_head_kv = (int)p->kv.n_head_kv;
    a.group = (int)(p->n_head / p->kv.n_head_kv);
    a.hd = (int)p->kv.head_dim;
    a.window = p->window < p->kv.n_ctx ? (int)p->window : 0;
    a.rows = (int)on->rows * a.group;
    a.scale = p->scale * LOG2E;
    a.sinks = p->sinks;
    a.cap = p->softcap * LOG2E;
    return a;
}

template <int HD> int run_decode(const ts_cuda_on *on, const task &a, int64_t splits, int64_t tiles)
{
    const int64_t bytes = sizeof(shared_sums<HD>);
    const int e = bytes > SHARED ? TS_SHARED_LIMIT(decode<HD>, bytes) : 0;
    if (e)
        return e;
    const int64_t share = MAX_SPLITS / tiles, most = share > LEAST_SPLITS ? share : LEAST_SPLITS;
    dim3 grid((unsigned)(splits < most ? splits : most), (unsigned)a.n_head_kv, (unsigned)tiles);
    TS_LAUNCH(decode<HD>, grid, THREADS, bytes, on->stream, a);
    return ts_launch_error();
}

/* Both kernels over a.rows query rows of a KV head. */
int decode_and_join(const ts_cuda_on *on, const ts_cuda_attention *p, task a, int64_t tiles)
{
    const int64_t splits = ts_cuda_splits(&p->kv);
    a.ml = a.part + splits * a.n_head_kv * a.rows * a.hd;
    const int e = a.hd <= 64    ? run_decode<64>(on, a, splits, tiles)
                  : a.hd <= 128 ? run_decode<128>(on, a, splits, tiles)
                  : a.hd <= 192 ? run_decode<192>(on, a, splits, tiles)
                                : run_decode<256>(on, a, splits, tiles);
    if (e)
        return e;
    dim3 grid((unsigned)a.rows, (unsigned)a.n_head_kv);
    TS_LAUNCH(join, grid, JOIN, 0, on->stream, a);
    return ts_launch_error();
}

/* Those spans that are short, as many at once as there is room for. */
int decode_spans(const ts_cuda_on *on, const ts_cuda_attention *p, task a)
{
    const ts_cuda_spans *s = on->spans;
    int e = 0;
    a.tiles = s->tile;
    a.tokens = s->tokens;
    for (int64_t i = 0, end; (end = ts_cuda_decoded(s, i)) > i && !e; i = end) {
        int64_t tiles = 0, tokens = 0;
        for (int64_t j = i; j < end; j++) {
            tiles += ts_cuda_tiles(s->here[j].m, a.group);
            tokens += s->here[j].m;
        }
        a.rows = (int)tokens * a.group;
        e = decode_and_join(on, p, a, tiles);
        a.tiles += tiles;
        a.tokens += tokens;
    }
    return e;
}

template <int HD> int run_prefill(const ts_cuda_on *on, const task &a)
{
    const int64_t bytes = sizeof(shared_tiles<HD>);
    const int e = bytes > SHARED ? TS_SHARED_LIMIT(prefill<HD>, bytes) : 0;
    if (e)
        return e;
    dim3 grid((unsigned)(a.rows + BLOCK_ROWS - 1) / BLOCK_ROWS, (unsigned)a.n_head_kv);
    TS_LAUNCH(prefill<HD>, grid, THREADS, bytes, on->stream, a);
    return ts_launch_error();
}

int prefill_rows(const ts_cuda_on *on, const task &a)
{
    return a.hd <= 64    ? run_prefill<64>(on, a)
           : a.hd <= 128 ? run_prefill<128>(on, a)
           : a.hd <= 192 ? run_prefill<192>(on, a)
                         : run_prefill<256>(on, a);
}

} // namespace

int ts_cuda_attend_decode(const ts_cuda_on *on, const ts_cuda_attention *p)
{
    if (on->rows <= 0)
        return 0;
    if (!valid(p) || (!on->spans && on->rows > TS_CUDA_DECODE) || (p->act && p->kv.head_dim % 32) ||
        (on->spans && on->spans->room.group != p->n_head / p->kv.n_head_kv))
        return cudaErrorInvalidValue;
    task a = task_of(on, p);
    a.part = (float *)p->work;
    a.act = (uint8_t *)p->act;
    return on->spans ? decode_spans(on, p, a)
                     : decode_and_join(on, p, a, (a.rows + ROWS - 1) / ROWS);
}

int ts_cuda_attend_prefill(const ts_cuda_on *on, const ts_cuda_attention *p)
{
    if (on->rows <= 0)
        return 0;
    if (!valid(p))
        return cudaErrorInvalidValue;
    task a = task_of(on, p);
    const ts_cuda_spans *s = on->spans;
    int e = 0;
    if (!s)
        return prefill_rows(on, a);
    for (int64_t i = 0; i < s->n && !e; i++) {
        if (s->here[i].m <= TS_CUDA_DECODE)
            continue;
        a.span = s->spans + i;
        a.rows = s->here[i].m * a.group;
        e = prefill_rows(on, a);
    }
    return e;
}

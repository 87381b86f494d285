/* moe_gemm.cu - products of many tokens with the experts they are sorted by, on tensor cores.
 *
 * A block of four warps has 128 rows of one expert's weights (64 of gate and of up, when they are
 * joined) and up to 64 of its tokens. Weights are the left side of the products, so that the
 * tokens' number, which is any, goes in steps of eight, and each weight is decoded by one warp
 * alone, once for all tokens, straight to the registers where an mma wants it (frag.h): no weight
 * is stored as BF16. Raw bytes come by cp.async a chunk at a time, x in steps of 64 elements:
 *
 *     shared   [XS][64 tokens][8 pieces of 16 bytes]       x; pieces are swapped in odd rows, so
 *                                                          that eight lanes meet all banks
 *              [WS][4 warps][32 slots][PITCH]              weights, from the 16-byte border before
 *                                                          a row's chunk on; PITCH is an odd
 *                                                          multiple of 16 bytes for the banks' sake
 *
 * Which row of weights takes which place in a product is free, too. A lane's two products have four
 * rows; they are neighbours, so that it stores four outputs of a token at once:
 *
 *     slot      g            g + 8    g + 16             g + 24
 *     row       4g           4g + 1   4g + 2             4g + 3
 *     joined    2g of gate   2g + 1   2g of up           2g + 1
 */
#include "cuda/frag.h"
#include "cuda/moe.h"
#include "cuda/mul.h"

enum {
    WARPS = 4,
    THREADS = 32 * WARPS,
    SLOTS = 32,  /* rows of weights that a warp has   */
    TOKENS = 64, /* of a block                        */
    XK = 64,     /* elements of x in a step           */
    X_BYTES = TOKENS * XK * 2,
};

typedef struct gemm_args {
    const uint8_t *w[2];
    const float *bias[2];
    const int32_t *offset, *order;
    const uint16_t *x;
    float *y;
    int64_t ldx, ldy, n, k, row_bytes;
    int n_expert, used, join;
} gemm_args;

template <class L> struct sizes {
    enum {
        NEED = (L::BYTES + 15 + (L::ALIGN == 16 ? 0 : 16 - L::ALIGN)) / 16,
        PITCH = 16 * (NEED | 1),
        COPIES = (NEED + 3) / 4, /* of a lane for a row */
        STEPS = L::K / XK,       /* of a chunk          */
        XS = ts_is<L>(TS_TYPE_F32) ? 2 : 3,
        WS = 1 + (XS - 1 + STEPS - 1) / STEPS,
        CHUNK = WARPS * SLOTS * PITCH,
        SHARED = XS * X_BYTES + WS * CHUNK,
        BLOCKS = SHARED <= 74 << 10 ? 3 : 2, /* that share a multiprocessor of an H100 */
    };
    static_assert(SHARED <= 99 << 10, "more than GPUs of 8.6 and 8.9 have for a block");
};

/* --- which tokens -------------------------------------------------------------------------------
 */

typedef struct tile {
    int expert, place, count; /* tokens from place on */
} tile;

/* The b-th run of up to TOKENS places of an expert, in all lanes of the warp; false if there are
 * fewer. Each lane looks at as many experts. */
TS_DEVICE bool find_tile(tile *t, const gemm_args &a, int b)
{
    const int lane = (int)threadIdx.x % 32, per = (a.n_expert + 31) / 32, e0 = lane * per;
    int tiles = 0, found = 0;
    for (int e = e0; e < e0 + per && e < a.n_expert; e++)
        tiles += (a.offset[e + 1] - a.offset[e] + TOKENS - 1) / TOKENS;
    int end = tiles;
    for (int i = 1; i < 32; i *= 2) {
        const int lower = __shfl_up_sync(~0u, end, (unsigned)i);
        end += lane >= i ? lower : 0;
    }
    *t = tile{0, 0, 0};
    if (end - tiles <= b && b < end) {
        int left = b - (end - tiles);
        for (int e = e0; e < e0 + per && !found; e++) {
            const int begin = a.offset[e], all = a.offset[e + 1] - begin;
            const int has = (all + TOKENS - 1) / TOKENS;
            if (left < has) {
                found = 1;
                const int rest = all - left * TOKENS;
                *t = tile{e, begin + left * TOKENS, rest < TOKENS ? rest : (int)TOKENS};
            }
            left -= has;
        }
    }
    const unsigned who = __ballot_sync(~0u, found);
    if (!who)
        return false;
    const int from = __ffs((int)who) - 1;
    t->expert = __shfl_sync(~0u, t->expert, from);
    t->place = __shfl_sync(~0u, t->place, from);
    t->count = __shfl_sync(~0u, t->count, from);
    return true;
}

/* --- copies -------------------------------------------------------------------------------------
 */

/* Where a thread's copies come from: what differs from thread to thread in few registers. */
typedef struct sources {
    const uint8_t *w[2]; /* the expert's matrices                                       */
    const uint16_t *x;
    uint32_t row[4];  /* bytes to rows of slots g, g + 8, g + 16, g + 24 of the warp     */
    uint32_t from[4]; /* sixteens of bytes to x of tokens tid / 8, + 16, + 32, + 48     */
    int64_t row_bytes;
    int k, count;
} sources;

template <bool JOIN>
TS_DEVICE void find_sources(sources *s, const gemm_args &a, const tile &t, int64_t first)
{
    const int g = (int)threadIdx.x % 32 / 4;
    s->k = (int)a.k;
    s->row_bytes = a.row_bytes;
    s->count = t.count;
    s->x = a.x;
#pragma unroll
    for (int i = 0; i < 2; i++)
        s->w[i] = a.w[JOIN ? i : 0] + t.expert * a.n * a.row_bytes;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t r = first + (JOIN ? 2 * g + i % 2 : 4 * g + i);
        s->row[i] = (uint32_t)((r < a.n ? r : a.n - 1) * a.row_bytes);
        const int token = (int)threadIdx.x / 8 + 16 * i;
        const int place = t.place + (token < t.count ? token : 0);
        s->from[i] = (uint32_t)((a.order ? a.order[place] / a.used : place) * (a.ldx / 8));
    }
}

TS_DEVICE int x_at(int token, int piece)
{
    return token * (2 * XK) + 16 * (piece ^ (token % 2 * 4));
}

TS_DEVICE void fetch_x(ts_shared_at to, const sources &s, int step)
{
    const int piece = (int)threadIdx.x % 8, i0 = step * XK + 8 * piece;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int token = (int)threadIdx.x / 8 + 16 * i;
        ts_copy16_if(token < s.count && i0 < s.k, to + x_at(token, piece),
                     s.x + 8 * (int64_t)s.from[i] + i0);
    }
}

/* How far behind a 16-byte border chunk c of row i of a lane begins. */
template <class L> TS_DEVICE int odd(const sources &s, int i, int c)
{
    if (L::ALIGN == 16)
        return 0;
    return (int)((uint32_t)(uintptr_t)s.w[i / 2] + s.row[i] + (uint32_t)(c * L::BYTES)) & 15;
}

/* To a warp's part of a chunk's buffer. Nothing behind a row's last 16 bytes is read. */
template <class L> TS_DEVICE void fetch_w(ts_shared_at to, const sources &s, int c)
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t at = (int64_t)c * L::BYTES, rest = s.row_bytes - at;
    const int bytes = rest < L::BYTES ? (int)rest : (int)L::BYTES;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int off = odd<L>(s, r, c);
        const uint8_t *from = s.w[r / 2] + s.row[r] + at - off;
#pragma unroll
        for (int i = 0; i < sizes<L>::COPIES; i++) {
            const int piece = lane % 4 + 4 * i;
            ts_copy16_if(16 * piece < off + bytes,
                         to + (lane / 4 + 8 * r) * sizes<L>::PITCH + 16 * piece, from + 16 * piece);
        }
    }
}

/* --- products -----------------------------------------------------------------------------------
 */

typedef float sums_of[2][TOKENS / 8][4];

/* acc += 32 rows x 32 elements of weights times those of 8 N tokens; x is the lane's row and piece
 * of the first of these. */
template <int N> TS_DEVICE void multiply(sums_of &acc, const uint32_t (&w)[4][4], const uint8_t *x)
{
#pragma unroll
    for (int t = 0; t < N; t++) {
        const uint4 v = *(const uint4 *)(x + t * 8 * 2 * XK);
        const uint32_t first[2] = {v.x, v.y}, second[2] = {v.z, v.w};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t(&lo)[4] = w[2 * i], (&hi)[4] = w[2 * i + 1];
            const uint32_t a[4] = {lo[0], hi[0], lo[1], hi[1]}, b[4] = {lo[2], hi[2], lo[3], hi[3]};
            ts_mma_16816_bf16(acc[i][t], a, first);
            ts_mma_16816_bf16(acc[i][t], b, second);
        }
    }
}

/* Token tiles that are multiplied, for `count` tokens: 2, 4, 6 or 8. */
TS_DEVICE int tiles_of(int count)
{
    return (count + 15) / 16 * 2;
}

/* A step: two groups of 32 elements, `groups` of which there are. buffer: the lane's first row in
 * the chunk of weights. Scales are made for four groups at once, by the lanes that share rows. */
template <class L>
TS_DEVICE void multiply_step(sums_of &acc, uint32_t (&scale)[4][2], const uint8_t *buffer,
                             const int (&off)[4], const uint8_t *x, int step, int groups, int tiles)
{
    const int lane = (int)threadIdx.x % 32, c = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int j = 2 * step + h;
        uint32_t w[4][4];
        if (h >= groups)
            break;
        if (L::SCALES && j % 4 == 0) {
#pragma unroll
            for (int r = 0; r < 4; r++)
                L::scales(scale[r], buffer + 8 * r * sizes<L>::PITCH + off[r], j + c);
        }
#pragma unroll
        for (int r = 0; r < 4; r++) {
            uint32_t s = 0;
            if (L::SCALES) {
                s = __shfl_sync(~0u, scale[r][0], (lane & ~3) + j % 4);
                if (L::HALVES) {
                    const uint32_t upper = __shfl_sync(~0u, scale[r][1], (lane & ~3) + j % 4);
                    s = c >= 2 ? upper : s;
                }
            }
            L::eight(w[r], buffer + 8 * r * sizes<L>::PITCH + off[r], j, c, s);
        }
        const uint8_t *xh = x + x_at(lane / 4, 4 * h + c);
        if (tiles == 8)
            multiply<8>(acc, w, xh);
        else if (tiles == 6)
            multiply<6>(acc, w, xh);
        else if (tiles == 4)
            multiply<4>(acc, w, xh);
        else
            multiply<2>(acc, w, xh);
    }
}

/* acc = the block's rows times its tokens. */
template <class L> TS_DEVICE void multiply_all(sums_of &acc, uint8_t *shared, const sources &s)
{
    typedef sizes<L> S;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int end = (int)((s.k + XK - 1) / XK), tiles = tiles_of(s.count);
    uint8_t *weights = shared + S::XS * X_BYTES + warp * SLOTS * S::PITCH;
    const ts_shared_at x_place = ts_shared_place(shared), w_place = ts_shared_place(weights);
    uint32_t scale[4][2];
    int off[4];
#pragma unroll
    for (int i = 0; i < 2 * TOKENS / 8 * 4; i++)
        acc[i / (TOKENS / 2)][i / 4 % (TOKENS / 8)][i % 4] = 0;
    auto weights_of = [&](int step) {
        if (step < end && step % S::STEPS == 0)
            fetch_w<L>(w_place + step / S::STEPS % S::WS * S::CHUNK, s, step / S::STEPS);
    };
    auto x_of = [&](int step) {
        if (step < end)
            fetch_x(x_place + step % S::XS * X_BYTES, s, step);
        ts_copy_commit();
    };
    for (int i = 0; i < S::XS - 1; i++)
        weights_of(i);
    for (int i = 0; i < S::XS - 1; i++)
        x_of(i);
    for (int step = 0; step < end; step++) {
        const int c = step / S::STEPS;
        ts_copy_wait<S::XS - 2>();
        __syncthreads(); /* what others have copied; and they are done with what is overwritten */
        weights_of(step + S::XS - 1);
        x_of(step + S::XS - 1);
        if (step % S::STEPS == 0) {
#pragma unroll
            for (int r = 0; r < 4; r++)
                off[r] = odd<L>(s, r, c);
        }
        multiply_step<L>(acc, scale, weights + c % S::WS * S::CHUNK + lane / 4 * S::PITCH, off,
                         shared + step % S::XS * X_BYTES, step % S::STEPS,
                         (int)(s.k - (int64_t)step * XK) / 32, tiles);
    }
}

/* --- outputs ------------------------------------------------------------------------------------
 */

/* N outputs of a token from column i on, of n; `whole` if they are all there and aligned. */
template <int N>
TS_DEVICE void store(const gemm_args &a, int64_t row, int64_t i, const float *v, bool whole)
{
    float *to = a.y + row * a.ldy + i;
    if (whole && N == 4)
        *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
    else if (whole)
        *(float2 *)to = make_float2(v[0], v[1]);
    else
        for (int j = 0; j < N; j++)
            if (i + j < a.n)
                to[j] = v[j];
}

template <bool JOIN>
TS_DEVICE void finish(const sums_of &acc, const gemm_args &a, const tile &t, int64_t first)
{
    constexpr int N = JOIN ? 2 : 4;
    const int lane = (int)threadIdx.x % 32, c = lane % 4;
    const int64_t i0 = first + lane / 4 * N;
    const bool whole = i0 + N <= a.n && a.ldy % 4 == 0 && (uintptr_t)a.y % 16 == 0;
    if (i0 >= a.n)
        return;
    float bias[4] = {};
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const float *b = JOIN && r >= 2 ? a.bias[1] : a.bias[0];
        const int64_t i = i0 + (JOIN ? r % 2 : r);
        if (b && i < a.n)
            bias[r] = b[t.expert * a.n + i];
    }
#pragma unroll
    for (int token = 0; token < TOKENS / 4; token++) {
        const int at = token / 2 * 8 + 2 * c + token % 2;
        float v[4];
        if (at >= t.count)
            continue;
#pragma unroll
        for (int r = 0; r < 4; r++)
            v[r] = acc[r / 2][token / 2][2 * (r % 2) + token % 2] + bias[r];
        if constexpr (JOIN) {
            v[0] = ts_glu(v[0], v[2], a.join);
            v[1] = ts_glu(v[1], v[3], a.join);
        }
        store<N>(a, t.place + at, i0, v, whole);
    }
}

/* --- the kernel ---------------------------------------------------------------------------------
 */

template <class L, bool JOIN>
static __global__ void __launch_bounds__(THREADS, sizes<L>::BLOCKS) gemm(const gemm_args a)
{
    ts_let_next();
    ts_wait_previous();
    TS_SHARED(uint8_t, shared);
    tile t;
    sources s;
    sums_of acc;
    if (!find_tile(&t, a, (int)blockIdx.y))
        return;
    const int64_t first =
        ((int64_t)blockIdx.x * WARPS + (int)threadIdx.x / 32) * (JOIN ? SLOTS / 2 : SLOTS);
    find_sources<JOIN>(&s, a, t, first);
    multiply_all<L>(acc, shared, s);
    finish<JOIN>(acc, a, t, first);
}

/* --- launches -----------------------------------------------------------------------------------
 */

template <class L, bool JOIN> static int launch(gemm_args a, int64_t tiles, void *stream)
{
    constexpr int rows = WARPS * (JOIN ? SLOTS / 2 : SLOTS);
    a.row_bytes = a.k / L::ROW_BLOCK * L::ROW_BYTES;
    const int e = TS_SHARED_LIMIT((gemm<L, JOIN>), sizes<L>::SHARED);
    if (e)
        return e;
    const dim3 grid((unsigned)((a.n + rows - 1) / rows), (unsigned)tiles);
    TS_LAUNCH((gemm<L, JOIN>), grid, dim3(THREADS), sizes<L>::SHARED, stream, a);
    return ts_launch_error();
}

static int launch_type(uint32_t type, const gemm_args &a, int64_t tiles, void *stream)
{
    /* Threads keep places in a matrix and in x (in sixteens) in 32 bits. */
    const int64_t x_rows = tiles * TOKENS, most = UINT32_MAX;
    if (a.k < 1 || a.k % 32 || a.k > most / 8 || a.n > most / (4 * a.k) || a.ldx % 8 ||
        x_rows > most / (a.ldx / 8 + 1) || (uintptr_t)a.x % 16)
        return cudaErrorInvalidValue;
    switch (type) {
#define RUN(L)                                                                                     \
    return a.join == TS_CUDA_ONE ? launch<L, false>(a, tiles, stream)                              \
                                 : launch<L, true>(a, tiles, stream);
#define CASE(T)                                                                                    \
    case T::TYPE:                                                                                  \
        RUN(ts_frag_quant<T>)
        TS_QUANT_TYPES(CASE)
#undef CASE
#define CASE(W)                                                                                    \
    case W::TYPE:                                                                                  \
        RUN(ts_frag_float<W>)
        TS_FLOAT_TYPES(CASE)
#undef CASE
    default:
        return cudaErrorInvalidValue;
    }
}

int ts_cuda_expert_gemm(const ts_cuda_expert_gemm_args *p, void *stream)
{
    const ts_cuda_experts *e = &p->experts;
    if (e->n_expert < 1 || e->n_expert > TS_CUDA_EXPERTS || e->n_used < 1 ||
        p->m > INT32_MAX / 2 / e->n_used)
        return cudaErrorInvalidValue;
    if (p->m <= 0)
        return 0;
    gemm_args a = {};
    a.w[0] = (const uint8_t *)e->w;
    a.w[1] = (const uint8_t *)e->v;
    a.bias[0] = e->w_bias;
    a.bias[1] = e->v_bias;
    a.offset = p->offset;
    a.order = p->order;
    a.x = (const uint16_t *)p->x;
    a.ldx = p->ldx;
    a.y = p->y;
    a.ldy = p->ldy;
    a.n = e->n;
    a.k = e->k;
    a.n_expert = (int)e->n_expert;
    a.used = e->n_used;
    a.join = e->join;
    /* Each expert that has tokens may have a tile that isn't full. */
    const int64_t pairs = p->m * e->n_used;
    const int64_t tiles = pairs / TOKENS + (pairs < e->n_expert ? pairs : e->n_expert);
    return launch_type(e->type, a, tiles, stream);
}

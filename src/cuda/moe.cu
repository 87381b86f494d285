/* moe.cu - which experts a token has, which tokens an expert has, and the sum of what they made. */
#include "cuda/moe.h"

#include "cuda/live.h"
#include "cuda/norm.h"

enum { LANES = 32 };

/* --- routing ------------------------------------------------------------------------------------
 *
 * A warp has a token, lane i the experts i, i + 32, .. and for each a key: the order of keys is
 * that of the scores, and 0 is an expert that isn't to be had (any more). */

enum { ROUTE_WARPS = 4, PER_LANE = TS_CUDA_EXPERTS / LANES };

TS_DEVICE uint32_t key_of(float score)
{
    const uint32_t u = __float_as_uint(score + 0.0f); /* -0 is 0 */
    if (score != score)
        return 1;
    return u >> 31 ? ~u : u | 0x80000000;
}

TS_DEVICE float warp_sum(float v)
{
#pragma unroll
    for (int i = LANES / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(~0u, v, i);
    return v;
}

TS_DEVICE float warp_max(float v)
{
#pragma unroll
    for (int i = LANES / 2; i > 0; i /= 2)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, i));
    return v;
}

/* The number of the largest key of the warp, the lowest of equal ones. Key i of a lane has number
 * lane + 32 i. */
template <int N> TS_DEVICE int best_of(const uint32_t (&key)[N])
{
    uint32_t top = 0;
    int at = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        if (key[i] > top) {
            top = key[i];
            at = i;
        }
    at = LANES * at + (int)threadIdx.x % LANES;
#pragma unroll
    for (int i = LANES / 2; i > 0; i /= 2) {
        const uint32_t other = __shfl_xor_sync(~0u, top, i);
        const int there = __shfl_xor_sync(~0u, at, i);
        if (other > top || (other == top && there < at)) {
            top = other;
            at = there;
        }
    }
    return at;
}

template <int N> TS_DEVICE void take(uint32_t (&key)[N], int at)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (LANES * i + (int)threadIdx.x % LANES == at)
            key[i] = 0;
}

/* Experts of groups that aren't among the best get key 0. score[TS_CUDA_EXPERTS] is the warp's. */
TS_DEVICE void keep_groups(uint32_t (&key)[PER_LANE], float *score, const ts_cuda_router &p)
{
    const int lane = (int)threadIdx.x % LANES, per = p.n_expert / p.n_group;
    uint32_t group[1] = {0}, kept = 0;
    if (lane < p.n_group) {
        float best = -INFINITY, second = -INFINITY;
        for (int i = 0; i < per; i++) {
            const float s = score[lane * per + i];
            second = fmaxf(second, fminf(s, best));
            best = fmaxf(best, s);
        }
        group[0] = key_of(per > 1 ? best + second : best);
    }
    for (int i = 0; i < p.n_group_used; i++) {
        const int at = best_of(group);
        take(group, at);
        kept |= 1u << at;
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        if (!(kept >> ((LANES * i + lane) / per & 31) & 1))
            key[i] = 0;
}

/* Probabilities of all experts from their logits v, in place; those behind the last are -inf. */
TS_DEVICE void gate(float (&v)[PER_LANE], ts_cuda_gating gating)
{
    if (gating == TS_CUDA_SIGMOID) {
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            v[i] = 1 / (1 + expf(-v[i]));
    } else if (gating == TS_CUDA_SOFTMAX) {
        float max = v[0], sum = 0;
#pragma unroll
        for (int i = 1; i < PER_LANE; i++)
            max = fmaxf(max, v[i]);
        max = warp_max(max);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            v[i] = expf(v[i] - max);
            sum += v[i];
        }
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            v[i] /= sum;
    }
}

/* Weights of the chosen: lane i has those of choices i and i + 32. */
TS_DEVICE void weigh(float (&w)[2], const ts_cuda_router &p)
{
    const int lane = (int)threadIdx.x % LANES;
    const bool there[2] = {lane < p.n_used, lane + LANES < p.n_used};
    if (p.gating == TS_CUDA_SOFTMAX_CHOSEN) {
        const float max = warp_max(fmaxf(there[0] ? w[0] : -INFINITY, there[1] ? w[1] : -INFINITY));
        w[0] = there[0] ? expf(w[0] - max) : 0;
        w[1] = there[1] ? expf(w[1] - max) : 0;
        const float sum = warp_sum(w[0] + w[1]);
        w[0] /= sum;
        w[1] /= sum;
    }
    if (p.renorm) {
        const float sum = fmaxf(warp_sum((there[0] ? w[0] : 0) + (there[1] ? w[1] : 0)), 0x1p-14f);
        w[0] /= sum;
        w[1] /= sum;
    }
    w[0] *= p.scale;
    w[1] *= p.scale;
}

static __global__ void __launch_bounds__(ROUTE_WARPS *LANES)
    route(live rows, ts_cuda_chosen to, ts_cuda_rows logits, ts_cuda_router p)
{
    ts_in_turn();
    TS_SHARED_ARRAY(float, scores, [ROUTE_WARPS][TS_CUDA_EXPERTS]);
    const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    const int64_t t = (int64_t)blockIdx.x * ROUTE_WARPS + warp;
    if (t >= row_count(rows))
        return;
    float v[PER_LANE], w[2] = {0, 0}, *score = scores[warp];
    uint32_t key[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        const int e = lane + LANES * i;
        v[i] = e < p.n_expert ? logits.x[t * logits.ld + e] : -INFINITY;
    }
    gate(v, p.gating);
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        const int e = lane + LANES * i;
        float s = v[i];
        if (p.bias && e < p.n_expert)
            s += p.bias[e];
        score[e] = s;
        key[i] = e < p.n_expert ? key_of(s) : 0;
    }
    __syncwarp();
    if (p.n_group > 1)
        keep_groups(key, score, p);
    __syncwarp();
    /* From here on they are what experts weigh. */
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        score[lane + LANES * i] = v[i];
    __syncwarp();
    for (int j = 0; j < p.n_used; j++) {
        const int e = best_of(key);
        take(key, e);
        if (lane == j % LANES) {
            to.id[t * to.ld + j] = e;
            w[j / LANES] = score[e];
        }
    }
    weigh(w, p);
    for (int i = 0; i < 2; i++)
        if (lane + LANES * i < p.n_used)
            to.weight[t * to.ld + lane + LANES * i] = w[i];
}

int ts_cuda_route(const ts_cuda_on *on, ts_cuda_chosen to, ts_cuda_rows logits,
                  const ts_cuda_router *p)
{
    if (p->n_expert < 1 || p->n_expert > TS_CUDA_EXPERTS || p->n_used < 1 ||
        p->n_used > TS_CUDA_USED || p->n_used > p->n_expert)
        return cudaErrorInvalidValue;
    if (p->n_group > 1 &&
        (p->n_group > TS_CUDA_EXPERT_GROUPS || p->n_expert % p->n_group || p->n_group_used < 1 ||
         p->n_group_used > p->n_group || p->n_expert / p->n_group * p->n_group_used < p->n_used))
        return cudaErrorInvalidValue;
    if (on->rows <= 0)
        return 0;
    TS_LAUNCH(route, dim3((unsigned)((on->rows + ROUTE_WARPS - 1) / ROUTE_WARPS)),
              dim3(ROUTE_WARPS * LANES), 0, on->stream, live_of(on), to, logits, *p);
    return ts_launch_error();
}

/* --- sorting ------------------------------------------------------------------------------------
 *
 * A block has an expert and looks at all ids by itself: no block waits for another. Each warp has
 * a run of pairs. It counts those of the expert, and those of experts before it; then, knowing how
 * many the warps before it have, goes through them again. */

enum { GROUP_WARPS = 16, GROUP_AHEAD = 4 };

/* What isn't here comes behind all experts. */
TS_DEVICE int id_of(ts_cuda_chosen c, int pair, int n_used)
{
    const int id = c.ld == n_used ? c.id[pair] : c.id[pair / n_used * c.ld + pair % n_used];
    return id < 0 ? INT32_MAX : id;
}

static __global__ void __launch_bounds__(GROUP_WARPS *LANES)
    group(live rows, int32_t *offset, int32_t *order, int32_t *place, ts_cuda_chosen chosen,
          int n_used)
{
    ts_in_turn();
    TS_SHARED_ARRAY(int, counts, [2][GROUP_WARPS]);
    const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    const int e = (int)blockIdx.x, pairs = row_count(rows) * n_used;
    constexpr int step = LANES * GROUP_AHEAD;
    const int run = (pairs + GROUP_WARPS * step - 1) / (GROUP_WARPS * step) * step;
    const int begin = warp * run, end = begin + run < pairs ? begin + run : pairs;
    int mine = 0, before = 0, v[GROUP_AHEAD];
    for (int i = begin; i < end; i += step) {
#pragma unroll
        for (int j = 0; j < GROUP_AHEAD; j++) {
            const int at = i + LANES * j + lane;
            v[j] = at < end ? id_of(chosen, at, n_used) : INT32_MAX;
        }
#pragma unroll
        for (int j = 0; j < GROUP_AHEAD; j++) {
            mine += __popc(__ballot_sync(~0u, v[j] == e));
            before += __popc(__ballot_sync(~0u, v[j] < e));
        }
    }
    if (lane == 0) {
        counts[0][warp] = mine;
        counts[1][warp] = before;
    }
    __syncthreads();
    int next = 0, all = 0;
    for (int i = 0; i < GROUP_WARPS; i++) {
        next += counts[1][i] + (i < warp ? counts[0][i] : 0);
        all += counts[0][i] + counts[1][i];
    }
    if (threadIdx.x == 0) {
        if (e == 0)
            offset[0] = 0;
        offset[e + 1] = all;
    }
    for (int i = begin; i < end && mine; i += step) {
#pragma unroll
        for (int j = 0; j < GROUP_AHEAD; j++) {
            const int at = i + LANES * j + lane;
            v[j] = at < end ? id_of(chosen, at, n_used) : INT32_MAX;
        }
#pragma unroll
        for (int j = 0; j < GROUP_AHEAD; j++) {
            const unsigned hit = __ballot_sync(~0u, v[j] == e);
            if (v[j] == e) {
                const int to = next + __popc(hit & ((1u << lane) - 1));
                order[to] = i + LANES * j + lane;
                place[i + LANES * j + lane] = to;
            }
            next += __popc(hit);
        }
    }
}

int ts_cuda_group(const ts_cuda_on *on, int32_t *offset, int32_t *order, int32_t *place,
                  ts_cuda_chosen chosen, int32_t n_expert, int32_t n_used)
{
    if (n_expert < 1 || n_used < 1 || on->rows > INT32_MAX / 2 / n_used)
        return cudaErrorInvalidValue;
    if (on->rows <= 0)
        return 0;
    TS_LAUNCH(group, dim3((unsigned)n_expert), dim3(GROUP_WARPS * LANES), 0, on->stream,
              live_of(on), offset, order, place, chosen, (int)n_used);
    return ts_launch_error();
}

/* --- the sum ------------------------------------------------------------------------------------
 */

/* A thread has four elements of a token. */
enum { SUM_THREADS = 128 };

static __global__ void __launch_bounds__(SUM_THREADS)
    expert_sum(live rows, ts_cuda_rows out, ts_cuda_rows add, ts_cuda_rows y, ts_cuda_chosen chosen,
               const int32_t *place, int n_used, int64_t d)
{
    ts_in_turn();
    const int64_t t = blockIdx.x, i = 4 * ((int64_t)blockIdx.y * SUM_THREADS + threadIdx.x);
    if (t >= row_count(rows) || i >= d)
        return;
    float sum[4] = {}, v[4];
    if (add.x)
        ts_load4(sum, add.x + t * add.ld, i, d, ts_wide(add.x + t * add.ld));
#pragma unroll 4
    for (int k = 0; k < n_used; k++) {
        const int64_t pair = t * n_used + k;
        if (place && chosen.id[t * chosen.ld + k] < 0)
            continue;
        const float *row = y.x + (place ? place[pair] : pair) * y.ld;
        const float w = chosen.weight[t * chosen.ld + k];
        ts_load4(v, row, i, d, ts_wide(row));
#pragma unroll
        for (int j = 0; j < 4; j++)
            sum[j] += w * v[j];
    }
    ts_store4(out.x + t * out.ld, sum, i, d, ts_wide(out.x + t * out.ld));
}

int ts_cuda_expert_sum(const ts_cuda_on *on, ts_cuda_rows out, ts_cuda_rows add, ts_cuda_rows y,
                       ts_cuda_chosen chosen, const int32_t *place, int32_t n_used, int64_t d)
{
    if (on->rows <= 0 || d <= 0)
        return 0;
    const dim3 grid((unsigned)on->rows, (unsigned)((d + 4 * SUM_THREADS - 1) / (4 * SUM_THREADS)));
    TS_LAUNCH(expert_sum, grid, dim3(SUM_THREADS), 0, on->stream, live_of(on), out, add, y, chosen,
              place, (int)n_used, d);
    return ts_launch_error();
}

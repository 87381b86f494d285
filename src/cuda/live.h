/* live.h - the rows that are there, as kernels read them: how many, where they stand, and whose
 * they are. */
#ifndef TS_CUDA_LIVE_H
#define TS_CUDA_LIVE_H

#include "cuda/spans.h"
#include "cuda/standin.h"

namespace
{

struct live {
    const ts_cuda_batch *batch;
    const int32_t *pos, *place; /* of each row; NULL: from pos0 on, in order */
    bool out;
};

__device__ __forceinline__ int row_count(const live &r)
{
    return r.out ? r.batch->m_out : r.batch->m;
}

__device__ __forceinline__ int pos_of(const live &r, int64_t row)
{
    return r.pos ? r.pos[row] : r.batch->pos0 + (int)row;
}

__device__ __forceinline__ int64_t place_of(const live &r, int64_t row)
{
    return r.place ? r.place[row] : r.batch->pos0 + row;
}

/* The rows of one timeline. */
struct whose {
    int r0, m, pos0;    /* rows of the batch, the first of which stands at pos0 */
    const int32_t *map; /* NULL: pages are in order                             */
};

/* A span's, which is read as a vector; NULL: of a batch without. */
__device__ __forceinline__ whose whose_of(const ts_cuda_batch *batch, const ts_cuda_span *span)
{
    if (!span)
        return whose{0, batch->m, batch->pos0, NULL};
    const int4 s = *reinterpret_cast<const int4 *>(span);
    return whose{s.x, s.y, s.z, reinterpret_cast<const int32_t *>(batch) + s.w};
}

/* How many positions behind its own the one at p is in the cache, and those that share its page:
 * what is loaded at once begins at a multiple of its length, which divides a page's. */
__device__ __forceinline__ int moved(const int32_t *map, int p)
{
    return map ? (map[p / TS_CUDA_PAGE] - p / TS_CUDA_PAGE) * TS_CUDA_PAGE : 0;
}

inline live live_of(const ts_cuda_on *on)
{
    const ts_cuda_spans *s = on->spans;
    return live{on->batch, s ? s->pos : NULL, s ? s->place : NULL, on->out};
}

} // namespace

#endif

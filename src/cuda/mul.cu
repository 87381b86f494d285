/* mul.cu - products of quantised weights with few tokens, for decode.
 *
 * Bound by memory: every weight is read once for each 8 tokens, at its size in the file
 * (mul_chunk.h). */
#include "cuda/mul_chunk.h"

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
    ts_mul_part p;
    const unsigned block = ts_mul_part_of<JOIN>(a, &p);
    int warp = (int)threadIdx.x / 32;
    int64_t first = ts_mul_first(block, p.split, JOIN ? R / 2 : R);
    const uint8_t *start[R];
    float sum[R * M] = {};
    row_at row[R];
    ts_mul_rows<R, JOIN>(p, a.row_bytes, first, start);
    for (int r = 0; r < R; r++)
        row[r] = row_of(start[r], a.row_bytes, (int)threadIdx.x % 32);
    if (a.fresh)
        ts_wait_previous();
    row_sums<T, M, R, STAGES>(sum, row, a.k, a.x, a.m, warp % p.split, p.split,
                              shared + warp * STAGES * R * chunk<T>::PITCH);
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

/* batch.cu - what a batch brings from the host: its sizes, written by a kernel whose arguments are
 * taken when it is queued, so that the host may go on at once; and rows of floats, which a kernel
 * reads itself: a copy would stand behind all the weights that the copy engine has been asked for.
 */
#include "cuda/standin.h"

#include "cuda/ops.h"

static __global__ void set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0)
{
    ts_in_turn();
    b->m = m;
    b->m_out = m_out;
    b->pos0 = pos0;
    b->zero = 0;
}

extern "C" int ts_cuda_set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0,
                                 void *stream)
{
    TS_LAUNCH(set_batch, dim3(1), dim3(1), 0, stream, b, m, m_out, pos0);
    return ts_launch_error();
}

enum { THREADS = 256, PER = 4 };

/* A thread has PER floats: one load, which begins before the kernels before this one have ended. */
static __global__ void pull(float *dst, const float *src, int64_t n)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * PER;
    float v[PER];
    ts_let_next();
    if (i + PER <= n)
        *(float4 *)v = *(const float4 *)(src + i);
    ts_wait_previous();
    if (i + PER <= n && (uintptr_t)(dst + i) % sizeof(float4) == 0) {
        *(float4 *)(dst + i) = *(float4 *)v;
        return;
    }
    for (int j = 0; j < PER && i + j < n; j++)
        dst[i + j] = src[i + j];
}

extern "C" int ts_cuda_pull(float *dst, const float *src, int64_t n, void *stream)
{
    if (n <= 0)
        return 0;
    const unsigned blocks = (unsigned)((n + THREADS * PER - 1) / (THREADS * PER));
    TS_LAUNCH(pull, dim3(blocks), dim3(THREADS), 0, stream, dst, src, n);
    return ts_launch_error();
}

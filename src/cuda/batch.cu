/* batch.cu - what changes from one batch to the next, written by a kernel: its arguments are taken
 * when it is queued, so the host may go on at once. */
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

/* unpack.h - weights as a CPU's kernel set has packed them, back to the rows of the file. */
#ifndef TS_CUDA_UNPACK_H
#define TS_CUDA_UNPACK_H

#include <stdint.h>

#include "cpu/packing.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst = rows n0..n1 of the n x k matrix that `packed` is the whole of, byte for byte those of the
 * GGUF file; no byte behind them is written. How it is packed says the kernel set's `packing`, a
 * pointer to the host's memory. n0 is a multiple of its rows.
 *
 * dst and packed are device memory, 256-byte and 16-byte aligned; packed is readable up to the next
 * multiple of 16 bytes behind its end. Queues a kernel on a stream (a cudaStream_t) and returns 0
 * or the error of the launch (a cudaError_t): cudaErrorInvalidValue for rows that aren't there, a
 * cut between rows that are packed together, or a packing that no kernel set has. */
int ts_cuda_unpack(void *dst, const void *packed, const ts_packing *packing, int64_t n, int64_t k,
                   int64_t n0, int64_t n1, void *stream);

/* The same of whole n x k matrices of a stack: packed has `count` of them one after the other, and
 * the i-th goes to dst + at[i] matrices. n is a multiple of the packing's rows; `at` is the host's
 * memory. */
enum { TS_CUDA_UNPACK_MATRICES = 32 }; /* count, at most */
int ts_cuda_unpack_matrices(void *dst, const void *packed, const ts_packing *packing, int64_t n,
                            int64_t k, const int32_t *at, int64_t count, void *stream);

/* The same of some matrices of up to three stacks, in one launch: matrices id[0..count-1] of each
 * packed stack, which is whole and may be pinned host memory, to their places in dst. id is device
 * memory, read when the kernel runs; a number that isn't 0..matrices-1 is left out. count is at
 * most TS_CUDA_UNPACK_MATRICES. */
enum { TS_CUDA_FETCHED = 3 };
typedef struct ts_cuda_fetched {
    void *dst;
    const void *packed;
    const ts_packing *packing;
    int64_t n, k;
} ts_cuda_fetched;

int ts_cuda_fetch(const ts_cuda_fetched *f, int n, const int32_t *id, int64_t count,
                  int64_t matrices, void *stream);

#ifdef __cplusplus
}
#endif

#endif

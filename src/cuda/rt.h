/* rt.h - what the CUDA device asks of the driver, so that its code runs with CUDA (rt_cuda.c) and,
 * in tests, with the stand-in for CUDA (rt_standin.c).
 *
 * Functions return 0 or an error that ts_rt_text explains. A thread works with one GPU at a time:
 * ts_rt_use comes first. */
#ifndef TS_CUDA_RT_H
#define TS_CUDA_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ts_rt_info {
    char name[128]; /* "NVIDIA H100 80GB HBM3"     */
    size_t free_bytes, total_bytes;
    int major, minor; /* compute capability          */
    double read;      /* bytes/s from its memory, by its clock and width; 0: not known       */
    double flops;     /* operations/s of BF16 products on its tensor cores; 0: not known     */
} ts_rt_info;

/* How many GPUs there are; 0 and *why without. *why is static. */
int ts_rt_count(const char **why);
int ts_rt_get_info(int ordinal, ts_rt_info *info);
const char *ts_rt_text(int error);
int ts_rt_use(int ordinal);

/* GPU memory, 256-byte aligned, and host memory that the GPU copies from and to by itself. */
int ts_rt_alloc(void **p, size_t bytes);
void ts_rt_free(void *p);
int ts_rt_alloc_host(void **p, size_t bytes);
void ts_rt_free_host(void *p);
/* The same of memory that is there: whole pages, which stay pinned, for all GPUs, until unpin. Once
 * only: ts_rt_is_pinned says that it was done before. */
int ts_rt_pin(const void *p, size_t bytes);
void ts_rt_unpin(const void *p);

/* Errors that code above this one gives. */
extern const int ts_rt_no_memory, ts_rt_bad_value, ts_rt_is_pinned;

int ts_rt_stream_open(void **stream);
void ts_rt_stream_close(void *stream);
int ts_rt_wait(void *stream); /* until everything queued is done */

/* Queues a copy; one side is GPU memory, or both are. Host memory must stay as it is until it is
 * done. */
int ts_rt_copy(void *dst, const void *src, size_t bytes, void *stream);

/* The same of `rows` rows of so many bytes, each a pitch behind the one before. */
int ts_rt_copy_rows(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t bytes,
                    size_t rows, void *stream);

/* Points in a stream: an event is where record was called last, and a stream that waits for it does
 * nothing that is queued from then on before that point is reached. event_wait: the caller waits.
 */
int ts_rt_event_open(void **event);
void ts_rt_event_close(void *event);
int ts_rt_event_record(void *event, void *stream);
int ts_rt_stream_wait(void *stream, void *event);
int ts_rt_event_wait(void *event);

/* What is queued between record and record_end is kept and not done; a launch queues it all at
 * once, as often as wanted. Meanwhile the stream must not be waited for, and nothing is allocated.
 * record_end fails, and the recording is gone, when something in between could not be recorded. */
typedef struct ts_rt_graph ts_rt_graph;
int ts_rt_record(void *stream);
int ts_rt_record_end(ts_rt_graph **out, void *stream);
int ts_rt_graph_launch(ts_rt_graph *g, void *stream);
void ts_rt_graph_close(ts_rt_graph *g); /* after what was queued by it */

/* Products of BF16 matrices with sums in float, by cuBLAS. One is for one stream. */
typedef struct ts_rt_gemm ts_rt_gemm;

/* *out NULL and 0: cuBLAS isn't there. */
int ts_rt_gemm_open(ts_rt_gemm **out, void *stream);
void ts_rt_gemm_close(ts_rt_gemm *g);

/* y[m][n] = x[m][k] * W[n][k]^T, + y with `add`; row stride of y is ldy floats. */
int ts_rt_gemm_run(ts_rt_gemm *g, float *y, int64_t ldy, bool add, const uint16_t *x,
                   const uint16_t *w, int64_t m, int64_t n, int64_t k);

/* The same of `heads` matrices, one after the other in W[heads][n][k]: that of head h takes x + h *
 * x_head to y + h * y_head. Row stride of x is ldx. */
int ts_rt_gemm_heads(ts_rt_gemm *g, float *y, int64_t ldy, int64_t y_head, const uint16_t *x,
                     int64_t ldx, int64_t x_head, const uint16_t *w, int64_t heads, int64_t m,
                     int64_t n, int64_t k);

#ifdef __cplusplus
}
#endif

#endif

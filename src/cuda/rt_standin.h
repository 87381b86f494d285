/* rt_standin.h - what a test can tell the stand-in for the CUDA runtime. */
#ifndef TS_CUDA_RT_STANDIN_H
#define TS_CUDA_RT_STANDIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

extern int64_t ts_rt_calls;    /* that may fail, so far                      */
extern int64_t ts_rt_fails_at; /* the number of the one that fails; -1: none */
extern size_t ts_rt_memory;    /* what the GPU says it has                   */
extern int64_t ts_rt_graphs;   /* there are now                              */
extern int64_t ts_rt_replays;  /* graphs launched, so far                    */
extern bool ts_rt_no_graphs;   /* no recording can be ended                  */
extern bool ts_rt_no_gemm;     /* cuBLAS isn't there                         */

/* Between rt_standin.c and rt_record.cpp: counts a call, and returns an error if it is to fail; is
 * there a recording; the copy becomes a part of it. */
int ts_rt_call(void);
bool ts_rt_recording(void);
void ts_rt_record_copy(void *dst, const void *src, size_t bytes);

/* The n-th launch of a kernel from now, 1 being the next, fails; 0: none does. */
void ts_sim_refuse(int64_t n);

#ifdef __cplusplus
}
#endif

#endif

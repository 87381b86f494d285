/* rt_standin.h - what a test can tell the stand-in for the CUDA runtime. */
#ifndef TS_CUDA_RT_STANDIN_H
#define TS_CUDA_RT_STANDIN_H

#include <stddef.h>
#include <stdint.h>

extern int64_t ts_rt_calls;    /* that may fail, so far                    */
extern int64_t ts_rt_fails_at; /* the number of the one that fails; -1: none */
extern size_t ts_rt_memory;    /* what the GPU says it has                  */

/* The n-th launch of a kernel from now, 1 being the next, fails; 0: none does. */
void ts_sim_refuse(int64_t n);

#endif

/* gpu.h - GPUs of this machine, by a library that is loaded when it is wanted.
 *
 * libtessera_cuda.so is looked for beside the program or this library, in ../lib from there, and
 * where the system looks; TESSERA_CUDA_LIBRARY names another file, or nothing to have none. Without
 * it, a driver or a GPU everything works but GPUs. */
#ifndef TS_EXEC_GPU_H
#define TS_EXEC_GPU_H

#include "cuda/rt.h"
#include "exec/backend.h"

/* What the library offers, by the function ts_cuda_plugin. */
typedef struct ts_gpu_plugin {
    uint64_t abi; /* ts_gpu_abi() of the sources it was built from */
    const ts_backend *backend;
    const ts_accel_kind *kind;
    int (*count)(const char **why);
    int (*get_info)(int ordinal, ts_rt_info *info);
    const char *(*text)(int error);
    /* Measures how fast pinned memory goes there, in bytes/s. */
    int (*link)(int ordinal, double *speed);
} ts_gpu_plugin;

typedef const ts_gpu_plugin *ts_gpu_plugin_fn(void);

#define TS_MAX_GPUS (TS_MAX_DEVICES - 1)

typedef struct ts_gpus {
    void *library;
    const ts_gpu_plugin *plugin; /* NULL: of GPUs that are planned for only */
    size_t limit;                /* of memory to take of each; 0: none      */
    int n;
    ts_accel accel[TS_MAX_GPUS];
    const ts_backend *backend[TS_MAX_GPUS];
    ts_rt_info info[TS_MAX_GPUS];
    char name[TS_MAX_GPUS][16]; /* "CUDA0" */
    char left_out[256];         /* "GPU 0: out of memory": those that can't be used, beside these */
} ts_gpus;

/* Changes with the structures that program and library share. */
uint64_t ts_gpu_abi(void);

/* Finds all. limit: bytes of each that may be taken; 0: what is free but for a margin. g->n is 0
 * where none can be used, and why[n] a clause that says the reason; with g->n, g->left_out has
 * those of others, or is "". */
void ts_gpus_open(ts_gpus *g, size_t limit, char *why, size_t n);
void ts_gpus_close(ts_gpus *g);

/* GPUs that aren't there, to plan for: "NAME,MEMORY,BANDWIDTH,LINK[,PEAK]" each. TS_BAD_ARG. */
ts_status ts_gpus_plan(ts_gpus *g, const char *const *specs, size_t n, size_t limit, ts_error *err);

/* These alone, in this order. */
void ts_gpus_keep(ts_gpus *g, const int *order, int n);

/* What is free now. */
void ts_gpus_refresh(ts_gpus *g);

/* Bytes/s from the CPU's memory to the i-th, measured; 0: not known. */
double ts_gpus_link(const ts_gpus *g, int i);

#endif

/* probe_impl.h - the loops that probe.c times, per instruction set. */
#ifndef TS_PROBE_IMPL_H
#define TS_PROBE_IMPL_H

#include "base/status.h"

typedef struct ts_probe_loops {
    /* Reads n bytes (a multiple of 512) at a 64-byte aligned address. */
    uint64_t (*read)(const void *p, size_t n);
    /* n rounds; the value keeps the compiler from dropping them. */
    float (*fma)(int64_t n);
    int32_t (*int8)(int64_t n);
    double fma_ops, int8_ops; /* of one round */
} ts_probe_loops;

extern const ts_probe_loops ts_probe_sse2, ts_probe_avx2;

#endif

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

/* Products of 16 x 16 tiles, 64 (int8) or 32 (bf16) deep. */
typedef struct ts_probe_tiles {
    int32_t (*int8)(int64_t n);
    float (*bf16)(int64_t n);
    double int8_ops, bf16_ops; /* of one round */
} ts_probe_tiles;

extern const ts_probe_loops ts_probe_sse2, ts_probe_avx2, ts_probe_avx512;
extern const ts_probe_tiles ts_probe_amx;

#endif

/* cpu.h - what this processor and operating system let us use, found out once. */
#ifndef TS_CPU_H
#define TS_CPU_H

#include "base/status.h"

/* One bit of dispatch stands for a documented bundle of CPUID bits:
 *   avx2   : AVX2, FMA, F16C, BMI2, and the OS saves YMM (XGETBV) */
typedef struct ts_cpu {
    bool avx2;
    char brand[64];
    int n_cpus;         /* CPUs this process may run on (affinity mask, cgroup quota not counted) */
    size_t l1d, l2, l3; /* bytes, 0 = unknown */
} ts_cpu;

const ts_cpu *ts_cpu_get(void);

/* "ref", "avx2", ... and back; TS_ISA_AUTO is "auto". false for an unknown name. */
const char *ts_isa_name(ts_isa isa);
bool ts_isa_parse(const char *name, ts_isa *out);

/* The ISA to use: resolves AUTO (and TESSERA_ISA), refuses what the machine lacks with a sentence.
 */
ts_status ts_isa_resolve(ts_isa want, ts_isa *out, ts_error *err);

#endif

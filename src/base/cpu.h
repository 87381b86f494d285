/* cpu.h - what this processor and operating system let us use, found out once, and the choice of
 * a kernel set from it. */
#ifndef TS_CPU_H
#define TS_CPU_H

#include "base/log.h"
#include "base/status.h"

/* One bit of dispatch stands for a documented bundle; a wider one includes the narrower:
 *   avx2   : AVX2, FMA, F16C, BMI2, and the OS saves YMM (XCR0 bits 1 and 2)
 *   avx512 : AVX-512 F, BW, DQ, VL, CD, VNNI, VBMI, and the OS saves opmasks and ZMM (bits 5 to 7)
 *   amx    : AVX512_BF16, AMX-TILE, AMX-INT8, AMX-BF16, the OS saves tiles (bits 17 and 18), and
 *            the kernel lets this process use them (arch_prctl ARCH_REQ_XCOMP_PERM, asked once) */
typedef struct ts_cpu {
    bool avx2, avx512, amx;
    /* Why one of them can't be used, as a clause: "this CPU lacks AMX-TILE". "" if it can. */
    char why_avx2[320], why_avx512[320], why_amx[320];
    uint32_t features; /* bit i: this CPU has ts_cpu_feature_name(i)                          */
    bool tiles_asked;  /* the kernel was asked for the tile permission ...                     */
    int tiles_errno;   /* ... and answered 0, or refused with this                             */
    char brand[64];
    int n_cpus;         /* CPUs this process may run on (affinity mask, cgroup quota not counted) */
    size_t l1d, l2, l3; /* bytes, 0 = unknown */
} ts_cpu;

/* Asked at the first call, then kept. */
const ts_cpu *ts_cpu_get(void);

/* Seconds of CPUs. A virtual machine's host may give it fewer CPUs than it shows: a thread that is
 * kept from running then keeps all those waiting that meet it at barriers. */
typedef struct ts_cpu_time {
    double stolen; /* by the host, of all CPUs since the start; 0: it doesn't say */
    double used;   /* by this process                                           */
} ts_cpu_time;

/* Where Linux tells what was stolen, "/proc/stat"; another one for tests. */
extern const char *ts_cpu_stat;

ts_cpu_time ts_cpu_now(void);
/* Of a process's n threads, how many were kept from running on average, of the time that it wanted
 * since `then`. 0 when that was little altogether. */
double ts_cpu_away(ts_cpu_time then, ts_cpu_time now, int n_threads);

/* What the bundles are made from, as the processor and the kernel answer it. Detection is a pure
 * function of it, so that tests play any machine. */
typedef struct ts_cpu_raw {
    uint32_t leaf1_c;                   /* CPUID 1                                           */
    uint32_t leaf7_b, leaf7_c, leaf7_d; /* CPUID 7.0                                         */
    uint32_t leaf7_1_a;                 /* CPUID 7.1                                         */
    uint64_t xcr0;                      /* 0 without OSXSAVE                                 */
    int (*permit_tiles)(void);          /* asks for the tile permission; 0 or an errno       */
} ts_cpu_raw;

ts_cpu_raw ts_cpu_ask(void);
/* Sets the bundles, the reasons, the features and the tile permission of *c. */
void ts_cpu_detect(ts_cpu *c, const ts_cpu_raw *raw);

/* "AVX2", "AMX-TILE", ...: the features that matter here; NULL behind the last. */
const char *ts_cpu_feature_name(int i);

/* "ref", "avx2", ... and back; TS_ISA_AUTO is "auto". false for an unknown name. */
const char *ts_isa_name(ts_isa isa);
bool ts_isa_parse(const char *name, ts_isa *out);

/* true if this ISA's kernel sets can run; else *why (unless NULL) is the clause that says why not.
 */
bool ts_isa_usable(const ts_cpu *c, ts_isa isa, const char **why);

/* The ISA to use: resolves AUTO (and TESSERA_ISA) to the widest there is, without tiles if no_amx,
 * and logs which one serves and why no wider one does. TS_UNSUPPORTED when `want` can't run here,
 * TS_BAD_ARG for a wrong TESSERA_ISA or for amx with no_amx. */
ts_status ts_isa_resolve(ts_isa want, bool no_amx, const ts_log *log, ts_isa *out, ts_error *err);

/* The same for any machine and any value of TESSERA_ISA (may be NULL). */
ts_status ts_isa_choose(const ts_cpu *c, const char *env, ts_isa want, bool no_amx,
                        const ts_log *log, ts_isa *out, ts_error *err);

#endif

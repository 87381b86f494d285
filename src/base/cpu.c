/* cpu.c - CPUID, XGETBV and sysfs, asked once. */
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t xgetbv0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void detect_x86(ts_cpu *c)
{
    uint32_t a, b, cx, d;
    if (!__get_cpuid(1, &a, &b, &cx, &d))
        return;
    bool osxsave = cx & bit_OSXSAVE, fma = cx & bit_FMA, f16c = cx & bit_F16C;
    /* XCR0 bits 1 and 2: the OS saves XMM and YMM. */
    bool ymm = osxsave && (xgetbv0() & 6) == 6;
    if (__get_cpuid_count(7, 0, &a, &b, &cx, &d))
        c->avx2 = ymm && fma && f16c && (b & bit_AVX2) && (b & bit_BMI2);

    uint32_t w[12];
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) >= 0x80000004u) {
        for (uint32_t i = 0; i < 3; i++)
            __get_cpuid(0x80000002u + i, &w[4 * i], &w[4 * i + 1], &w[4 * i + 2], &w[4 * i + 3]);
        memcpy(c->brand, w, 48);
        c->brand[48] = 0;
        size_t skip = strspn(c->brand, " "), n = strlen(c->brand + skip);
        memmove(c->brand, c->brand + skip, n + 1);
        while (n && c->brand[n - 1] == ' ')
            c->brand[--n] = 0;
    }
}
#else
static void detect_x86(ts_cpu *c)
{
    (void)c;
}
#endif

static ts_cpu cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

static size_t cache_size(int name)
{
    long n = sysconf(name);
    return n > 0 ? (size_t)n : 0;
}

static void detect(void)
{
    detect_x86(&cpu);
    if (!cpu.brand[0])
        snprintf(cpu.brand, sizeof cpu.brand, "unknown CPU");
    cpu_set_t set;
    cpu.n_cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    cpu.l1d = cache_size(_SC_LEVEL1_DCACHE_SIZE);
    cpu.l2 = cache_size(_SC_LEVEL2_CACHE_SIZE);
    cpu.l3 = cache_size(_SC_LEVEL3_CACHE_SIZE);
}

const ts_cpu *ts_cpu_get(void)
{
    pthread_once(&cpu_once, detect);
    return &cpu;
}

static const char *const isa_names[] = {"auto", "ref", "avx2", "avx512", "amx"};

const char *ts_isa_name(ts_isa isa)
{
    return isa_names[isa];
}

bool ts_isa_parse(const char *name, ts_isa *out)
{
    for (int i = 0; i <= TS_ISA_AMX; i++)
        if (strcasecmp(name, isa_names[i]) == 0) {
            *out = (ts_isa)i;
            return true;
        }
    return false;
}

ts_status ts_isa_resolve(ts_isa want, ts_isa *out, ts_error *err)
{
    const ts_cpu *c = ts_cpu_get();
    const char *env = getenv("TESSERA_ISA");
    if (want == TS_ISA_AUTO && env && *env && !ts_isa_parse(env, &want))
        return ts_fail(err, TS_BAD_ARG,
                       "TESSERA_ISA is '%s'; it must be auto, ref, avx2, avx512 or amx", env);
    switch (want) {
    case TS_ISA_AUTO:
        *out = c->avx2 ? TS_ISA_AVX2 : TS_ISA_REF;
        return TS_OK;
    case TS_ISA_REF:
        *out = want;
        return TS_OK;
    case TS_ISA_AVX2:
        if (!c->avx2)
            return ts_fail(err, TS_UNSUPPORTED,
                           "kernel set avx2 needs AVX2, FMA, F16C and BMI2, which this CPU (%s) or "
                           "its operating system lacks; use --isa ref",
                           c->brand);
        *out = want;
        return TS_OK;
    case TS_ISA_AVX512:
    case TS_ISA_AMX:
        break;
    }
    return ts_fail(
        err, TS_UNSUPPORTED,
        "this version of Tessera has no %s kernel sets; the widest for this machine is %s",
        ts_isa_name(want), c->avx2 ? "avx2" : "ref");
}

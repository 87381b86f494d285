/* cpu.c - CPUID, XGETBV, the tile permission and sysconf, asked once. */
#include "base/cpu.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- what the machine answers --------------------------------------------- */

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t xgetbv0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Linux gives tiles to a process only on request: their 8 KB of state would otherwise enlarge
 * every context switch and signal frame (kernel documentation, x86/xstate). */
static int permit_tiles(void)
{
    const long req_xcomp_perm = 0x1023, xtiledata = 18;
    return syscall(SYS_arch_prctl, req_xcomp_perm, xtiledata) == 0 ? 0 : errno;
}

ts_cpu_raw ts_cpu_ask(void)
{
    ts_cpu_raw r = {.permit_tiles = permit_tiles};
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        r.leaf1_c = c;
        r.xcr0 = c & bit_OSXSAVE ? xgetbv0() : 0;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        r.leaf7_b = b;
        r.leaf7_c = c;
        r.leaf7_d = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            r.leaf7_1_a = a;
    }
    return r;
}

static void ask_brand(char brand[64])
{
    uint32_t w[12];
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u)
        return;
    for (uint32_t i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &w[4 * i], &w[4 * i + 1], &w[4 * i + 2], &w[4 * i + 3]);
    memcpy(brand, w, 48);
    brand[48] = 0;
    size_t skip = strspn(brand, " "), n = strlen(brand + skip);
    memmove(brand, brand + skip, n + 1);
    while (n && brand[n - 1] == ' ')
        brand[--n] = 0;
}
#else
static int permit_tiles(void)
{
    return ENOSYS;
}

ts_cpu_raw ts_cpu_ask(void)
{
    return (ts_cpu_raw){.permit_tiles = permit_tiles};
}

static void ask_brand(char brand[64])
{
    (void)brand;
}
#endif

/* --- bundles ---------------------------------------------------------------- */

enum { LEAF1_C, LEAF7_B, LEAF7_C, LEAF7_D, LEAF7_1_A };
enum { AVX2 = 1, AVX512, AMX, EXTRA };

/* A feature belongs to the narrowest bundle that needs it; EXTRA ones are only shown. */
static const struct {
    const char *name;
    uint8_t reg, bit, bundle;
} features[] = {
    {"AVX2", LEAF7_B, 5, AVX2},          {"FMA", LEAF1_C, 12, AVX2},
    {"F16C", LEAF1_C, 29, AVX2},         {"BMI2", LEAF7_B, 8, AVX2},
    {"AVX512F", LEAF7_B, 16, AVX512},    {"AVX512BW", LEAF7_B, 30, AVX512},
    {"AVX512DQ", LEAF7_B, 17, AVX512},   {"AVX512VL", LEAF7_B, 31, AVX512},
    {"AVX512CD", LEAF7_B, 28, AVX512},   {"AVX512_VNNI", LEAF7_C, 11, AVX512},
    {"AVX512_VBMI", LEAF7_C, 1, AVX512}, {"AVX512_BF16", LEAF7_1_A, 5, AMX},
    {"AMX-TILE", LEAF7_D, 24, AMX},      {"AMX-INT8", LEAF7_D, 25, AMX},
    {"AMX-BF16", LEAF7_D, 22, AMX},      {"AVX_VNNI", LEAF7_1_A, 4, EXTRA},
    {"AVX512_VBMI2", LEAF7_C, 6, EXTRA}, {"AVX512_FP16", LEAF7_D, 23, EXTRA},
    {"AMX-FP16", LEAF7_1_A, 21, EXTRA},
};

enum { N_FEATURES = sizeof features / sizeof *features };

const char *ts_cpu_feature_name(int i)
{
    return i >= 0 && i < N_FEATURES ? features[i].name : NULL;
}

static uint32_t features_of(const ts_cpu_raw *r)
{
    const uint32_t reg[] = {r->leaf1_c, r->leaf7_b, r->leaf7_c, r->leaf7_d, r->leaf7_1_a};
    uint32_t found = 0;
    for (int i = 0; i < N_FEATURES; i++)
        found |= (reg[features[i].reg] >> features[i].bit & 1) << i;
    return found;
}

/* "this CPU lacks A, B and C" of a bundle and those below it; "" if it lacks nothing. */
static void name_missing(char *why, size_t size, const ts_cpu *c, const ts_cpu_raw *r, int bundle)
{
    int missing[N_FEATURES], n = 0;
    for (int i = 0; i < N_FEATURES; i++)
        if (features[i].bundle <= bundle && !(c->features >> i & 1))
            missing[n++] = i;
    bool guest = r->leaf1_c >> 31; /* a hypervisor may hide what the processor has */
    const char *whose = guest ? "this virtual machine's CPU" : "this CPU";
    why[0] = 0;
    size_t at = 0;
    for (int i = 0; i < n && at < size; i++) {
        const char *join = i == 0 ? " lacks " : i == n - 1 ? " and " : ", ";
        at += (size_t)snprintf(why + at, size - at, "%s%s%s", i ? "" : whose, join,
                               features[missing[i]].name);
    }
}

static bool saves(const ts_cpu_raw *r, uint64_t bits)
{
    return (r->xcr0 & bits) == bits;
}

/* A bundle is there if nothing is said against it. */
static bool judge(char *why, size_t size, const ts_cpu *c, const ts_cpu_raw *r, int bundle)
{
    name_missing(why, size, c, r, bundle);
    if (why[0])
        return false;
    if (!saves(r, 0x6))
        snprintf(why, size, "the operating system doesn't save 256-bit registers");
    else if (bundle >= AVX512 && !saves(r, 0xe0))
        snprintf(why, size, "the operating system doesn't save 512-bit registers");
    else if (bundle >= AMX && !saves(r, 0x60000))
        snprintf(why, size, "the operating system doesn't save tiles");
    return !why[0];
}

void ts_cpu_detect(ts_cpu *c, const ts_cpu_raw *r)
{
    c->features = features_of(r);
    c->avx2 = judge(c->why_avx2, sizeof c->why_avx2, c, r, AVX2);
    c->avx512 = judge(c->why_avx512, sizeof c->why_avx512, c, r, AVX512);
    c->amx = judge(c->why_amx, sizeof c->why_amx, c, r, AMX);
    c->tiles_asked = c->amx;
    if (!c->amx)
        return;
    c->tiles_errno = r->permit_tiles();
    if (c->tiles_errno) {
        c->amx = false;
        snprintf(c->why_amx, sizeof c->why_amx, "the kernel refused this process the tiles: %s",
                 strerror(c->tiles_errno));
    }
}

/* --- once ------------------------------------------------------------------- */

static ts_cpu cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

static size_t cache_size(int name)
{
    long n = sysconf(name);
    return n > 0 ? (size_t)n : 0;
}

static void detect(void)
{
    ts_cpu_raw raw = ts_cpu_ask();
    ts_cpu_detect(&cpu, &raw);
    ask_brand(cpu.brand);
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

/* --- time that was stolen ---------------------------------------------------- */

const char *ts_cpu_stat = "/proc/stat";

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

/* The eighth number of the line of all CPUs (proc(5)), in ticks. */
static double stolen_seconds(void)
{
    char line[512];
    double ticks = 0;
    FILE *f = fopen(ts_cpu_stat, "re");
    if (!f)
        return 0;
    if (!fgets(line, sizeof line, f) || strncmp(line, "cpu ", 4) != 0 ||
        sscanf(line + 4, "%*f %*f %*f %*f %*f %*f %*f %lf", &ticks) != 1)
        ticks = 0;
    fclose(f);
    const long hz = sysconf(_SC_CLK_TCK);
    return hz > 0 ? ticks / (double)hz : 0;
}

ts_cpu_time ts_cpu_now(void)
{
    struct rusage r = {0};
    getrusage(RUSAGE_SELF, &r);
    return (ts_cpu_time){stolen_seconds(), seconds_of(r.ru_utime) + seconds_of(r.ru_stime)};
}

double ts_cpu_away(ts_cpu_time then, ts_cpu_time now, int n_threads)
{
    const double stolen = now.stolen - then.stolen, used = now.used - then.used;
    if (!(stolen >= 10) || !(used >= 0)) /* a clock's ticks, a busy moment */
        return 0;
    return n_threads * stolen / (stolen + used);
}

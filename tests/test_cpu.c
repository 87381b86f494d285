/* test_cpu.c - which kernel sets serve on machines that lack this or that, played by raw CPUID
 * leaves, XCR0 and the kernel's answer; and the sentence that says so. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"

static int asked; /* how often the kernel was asked for tiles */

static int grant(void)
{
    asked++;
    return 0;
}

static int refuse(void)
{
    asked++;
    return EPERM;
}

/* A Sapphire Rapids server whose kernel knows tiles. */
static ts_cpu_raw xeon(void)
{
    return (ts_cpu_raw){
        .leaf1_c = 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29,
        .leaf7_b = 1u << 5 | 1u << 8 | 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31,
        .leaf7_c = 1u << 1 | 1u << 6 | 1u << 11,
        .leaf7_d = 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25,
        .leaf7_1_a = 1u << 4 | 1u << 5,
        .xcr0 = 0x600e7,
        .permit_tiles = grant,
    };
}

typedef struct lines {
    int n;
    char last[1024];
} lines;

static void keep(void *user, ts_log_level level, const char *line)
{
    lines *l = user;
    l->n++;
    snprintf(l->last, sizeof l->last, "%d %s", level, line);
}

/* AUTO on this machine: the set that serves, and its one log line at INFO holds every word up to
 * NULL. */
static void expect(const char *name, const ts_cpu_raw *raw, bool no_amx, ts_isa isa, ...)
{
    ts_cpu c = {0};
    lines l = {0};
    ts_error err = {0};
    ts_isa got = TS_ISA_AUTO;
    asked = 0;
    ts_cpu_detect(&c, raw);
    ts_log log = {keep, &l};
    CHECK_MSG(ts_isa_choose(&c, NULL, TS_ISA_AUTO, no_amx, &log, &got, &err) == TS_OK, "%s: %s",
              name, err.msg);
    CHECK_MSG(got == isa, "%s: %s serves", name, ts_isa_name(got));
    CHECK_MSG(l.n == 1 && l.last[0] == '0' + TS_LOG_INFO, "%s: %d lines, '%s'", name, l.n, l.last);
    va_list ap;
    va_start(ap, isa);
    for (const char *word; (word = va_arg(ap, const char *));)
        CHECK_MSG(strstr(l.last, word), "%s: '%s' doesn't say '%s'", name, l.last, word);
    va_end(ap);

    /* Forced, each set that can run is taken and each that can't is refused with the reason. */
    for (ts_isa want = TS_ISA_REF; want <= TS_ISA_AMX; want++) {
        const char *why = NULL;
        bool usable = ts_isa_usable(&c, want, &why);
        CHECK_MSG(usable == !why && (usable || *why), "%s %s", name, ts_isa_name(want));
        got = TS_ISA_AUTO;
        ts_status st = ts_isa_choose(&c, "ref", want, false, &log, &got, &err);
        if (usable)
            CHECK_MSG(st == TS_OK && got == want, "%s %s", name, ts_isa_name(want));
        else
            CHECK_MSG(st == TS_UNSUPPORTED && got == TS_ISA_AUTO && strstr(err.msg, why) &&
                          strstr(err.msg, ts_isa_name(want)),
                      "%s %s: %s", name, ts_isa_name(want), err.msg);
    }
}

static void test_machines(void)
{
    ts_cpu_raw r = xeon();
    expect("a Xeon", &r, false, TS_ISA_AMX, "up to amx", NULL);
    CHECK(asked == 1);
    expect("--no-amx", &r, true, TS_ISA_AVX512, "up to avx512", "amx is switched off", NULL);

    r.permit_tiles = refuse;
    expect("permission denied", &r, false, TS_ISA_AVX512, "amx can't run here",
           "the kernel refused this process the tiles: Operation not permitted", NULL);
    CHECK(asked == 1);

    /* A VM that masks AMX: the tiles' bits are gone, AVX512_BF16 stays. */
    r = xeon();
    r.leaf1_c |= 1u << 31;
    r.leaf7_d &= ~(1u << 22 | 1u << 24 | 1u << 25);
    expect("AMX masked", &r, false, TS_ISA_AVX512,
           "this virtual machine's CPU lacks AMX-TILE, AMX-INT8 and AMX-BF16", NULL);
    CHECK(asked == 0); /* the kernel isn't asked for what isn't there */

    r = xeon();
    r.xcr0 = 0xe7;
    expect("tiles not saved", &r, false, TS_ISA_AVX512,
           "amx can't run here: the operating system doesn't save tiles", NULL);
    CHECK(asked == 0);
    r.xcr0 = 0x200e7; /* only their configuration */
    expect("tile data not saved", &r, false, TS_ISA_AVX512, "doesn't save tiles", NULL);

    r = xeon();
    r.xcr0 = 0x60007;
    expect("ZMM not saved", &r, false, TS_ISA_AVX2,
           "avx512 can't run here: the operating system doesn't save 512-bit registers", NULL);
    r.xcr0 = 0x60067; /* opmasks, and only the lower half */
    expect("upper ZMM not saved", &r, false, TS_ISA_AVX2, "512-bit registers", NULL);
    r.xcr0 = 0x3;
    expect("YMM not saved", &r, false, TS_ISA_REF, "avx2 can't run here",
           "doesn't save 256-bit registers", NULL);
    r.xcr0 = 0; /* no OSXSAVE */
    expect("no XSAVE", &r, false, TS_ISA_REF, "256-bit registers", NULL);

    /* A desktop of the AVX2 years. */
    r = xeon();
    r.leaf7_b = 1u << 5 | 1u << 8;
    r.leaf7_c = r.leaf7_d = r.leaf7_1_a = 0;
    r.xcr0 = 7;
    expect("AVX2 only", &r, false, TS_ISA_AVX2,
           "this CPU lacks AVX512F, AVX512BW, AVX512DQ, AVX512VL, AVX512CD, AVX512_VNNI and "
           "AVX512_VBMI",
           NULL);
    expect("AVX2 only, --no-amx", &r, true, TS_ISA_AVX2, "avx512 can't run here", NULL);

    /* Skylake's AVX-512 has no VNNI and no VBMI. */
    r = xeon();
    r.leaf7_c = r.leaf7_d = r.leaf7_1_a = 0;
    expect("Skylake", &r, false, TS_ISA_AVX2, "lacks AVX512_VNNI and AVX512_VBMI", NULL);

    /* Each bit of the bundles counts. */
    struct {
        uint32_t *reg;
        int bit;
        ts_isa isa;
        const char *name;
    } bits[] = {
        {&r.leaf1_c, 12, TS_ISA_REF, "FMA"},
        {&r.leaf1_c, 29, TS_ISA_REF, "F16C"},
        {&r.leaf7_b, 5, TS_ISA_REF, "AVX2"},
        {&r.leaf7_b, 8, TS_ISA_REF, "BMI2"},
        {&r.leaf7_b, 16, TS_ISA_AVX2, "AVX512F"},
        {&r.leaf7_b, 17, TS_ISA_AVX2, "AVX512DQ"},
        {&r.leaf7_b, 28, TS_ISA_AVX2, "AVX512CD"},
        {&r.leaf7_b, 30, TS_ISA_AVX2, "AVX512BW"},
        {&r.leaf7_b, 31, TS_ISA_AVX2, "AVX512VL"},
        {&r.leaf7_c, 1, TS_ISA_AVX2, "AVX512_VBMI"},
        {&r.leaf7_c, 11, TS_ISA_AVX2, "AVX512_VNNI"},
        {&r.leaf7_1_a, 5, TS_ISA_AVX512, "AVX512_BF16"},
        {&r.leaf7_d, 22, TS_ISA_AVX512, "AMX-BF16"},
        {&r.leaf7_d, 24, TS_ISA_AVX512, "AMX-TILE"},
        {&r.leaf7_d, 25, TS_ISA_AVX512, "AMX-INT8"},
    };
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        r = xeon();
        *bits[i].reg &= ~(1u << bits[i].bit);
        char says[64];
        snprintf(says, sizeof says, "this CPU lacks %s", bits[i].name);
        expect(bits[i].name, &r, false, bits[i].isa, says, NULL);
    }
}

static void test_environment(void)
{
    ts_cpu c = {0};
    ts_cpu_raw r = xeon();
    ts_error err = {0};
    ts_log log = {0};
    ts_isa isa = TS_ISA_AUTO;
    ts_cpu_detect(&c, &r);
    CHECK(ts_isa_choose(&c, "avx2", TS_ISA_AUTO, false, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AVX2);
    CHECK(ts_isa_choose(&c, "AMX", TS_ISA_AUTO, false, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AMX);
    CHECK(ts_isa_choose(&c, "", TS_ISA_AUTO, false, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AMX);
    /* An option is nearer than the environment. */
    CHECK(ts_isa_choose(&c, "avx2", TS_ISA_AVX512, false, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AVX512);
    CHECK(ts_isa_choose(&c, "amx", TS_ISA_AUTO, true, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AVX512);
    CHECK(ts_isa_choose(&c, NULL, TS_ISA_AMX, true, &log, &isa, &err) == TS_BAD_ARG);
    CHECK(ts_isa_choose(&c, "sse", TS_ISA_AUTO, false, &log, &isa, &err) == TS_BAD_ARG &&
          strstr(err.msg, "TESSERA_ISA is 'sse'"));
    r.permit_tiles = refuse;
    ts_cpu_detect(&c, &r);
    CHECK(ts_isa_choose(&c, "amx", TS_ISA_AUTO, false, &log, &isa, &err) == TS_UNSUPPORTED &&
          strstr(err.msg, "amx (from TESSERA_ISA) can't run here") && strstr(err.msg, "avx512"));
}

/* What this machine says of itself holds together. */
static void test_here(void)
{
    const ts_cpu *c = ts_cpu_get();
    CHECK(c == ts_cpu_get());
    CHECK(c->brand[0] && c->n_cpus >= 1);
    CHECK(!c->avx512 || c->avx2);
    CHECK(!c->amx || c->avx512);
    CHECK(c->avx2 == !c->why_avx2[0] && c->avx512 == !c->why_avx512[0] && c->amx == !c->why_amx[0]);
    printf("%s: avx2 %s; avx512 %s; amx %s\n", c->brand, c->avx2 ? "yes" : c->why_avx2,
           c->avx512 ? "yes" : c->why_avx512, c->amx ? "yes" : c->why_amx);
}

static double stolen_in(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    REQUIRE(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return ts_cpu_now().stolen;
}

/* What the host took, as Linux writes it, and how many threads that kept from running. */
static void test_stolen(void)
{
    const double hz = (double)sysconf(_SC_CLK_TCK);
    const char *kept = ts_cpu_stat;
    char path[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    ts_cpu_stat = path;
    CHECK(stolen_in(path, "cpu  11 12 13 14 15 16 17 1800 19 20\ncpu0 1 2 3 4 5 6 7 8 9 10\n") ==
          1800 / hz);
    CHECK(stolen_in(path, "cpu  11 12 13 14 15 16 17\n") == 0); /* before Linux 2.6.11 */
    CHECK(stolen_in(path, "cpu0 1 2 3 4 5 6 7 8\n") == 0);
    CHECK(stolen_in(path, "") == 0);
    unlink(path);
    CHECK(ts_cpu_now().stolen == 0);
    ts_cpu_stat = kept;
    const ts_cpu_time a = ts_cpu_now();
    CHECK(a.used > 0 && a.stolen >= 0);
    /* a thirtieth of what 60 threads wanted: two of them */
    const ts_cpu_time then = {5, 100};
    CHECK(fabs(ts_cpu_away(then, (ts_cpu_time){25, 680}, 60) - 2) < 1e-9);
    CHECK(ts_cpu_away(then, (ts_cpu_time){14.9, 100}, 60) == 0); /* too little to say */
    CHECK(ts_cpu_away(then, (ts_cpu_time){0, 680}, 60) == 0);
    CHECK(ts_cpu_away(then, then, 60) == 0);
}

int main(void)
{
    test_stolen();
    test_machines();
    test_environment();
    test_here();
    return check_done("cpu");
}

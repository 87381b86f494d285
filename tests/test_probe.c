/* test_probe.c - the loops that measure the machine do the work they are counted for, and the
 * memory nodes are read as Linux writes them. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/numa.h"
#include "base/probe.h"
#include "base/probe_impl.h"
#include "check.h"

/* Every byte counts, in the result of a loop that reads n of them. */
static void test_read(const char *name, const ts_probe_loops *l)
{
    enum { N = 4096 };
    static _Alignas(64) uint64_t mem[(N + 8192) / 8]; /* they prefetch a page ahead */
    uint64_t seed = 1;
    for (int i = 0; i < N / 8; i++)
        mem[i] = rnd_u64(&seed);
    memset(mem, 0, N);
    CHECK_MSG(l->read(mem, N) == 0, "%s", name);
    int lanes = 0;
    for (int i = 0; i < N / 8; i++) {
        mem[i] = 1;
        lanes += l->read(mem, N) != 0;
        mem[i] = 0;
    }
    /* The value is there to keep the compiler from dropping loads: one lane of a vector is enough
     * for that. */
    CHECK_MSG(lanes >= N / 8 / 4, "%s: %d of %d loads counted", name, lanes, N / 8);
}

static void test_loops(void)
{
    const ts_cpu *c = ts_cpu_get();
    test_read("sse2", &ts_probe_sse2);
    if (c->avx2)
        test_read("avx2", &ts_probe_avx2);
    if (c->avx512) {
        test_read("avx512", &ts_probe_avx512);
        /* n rounds in each of 10 accumulators: 4 products of 3 and 1 a lane */
        CHECK(ts_probe_avx512.int8(7) == 7 * 10 * 4 * 3);
        /* a = a / 2 + 1/4 tends to 1/2 */
        CHECK(fabsf(ts_probe_avx512.fma(100) - 10 * 0.5f) < 1e-5f);
        CHECK(ts_probe_avx512.int8_ops == 10 * 64 * 2 && ts_probe_avx512.fma_ops == 10 * 16 * 2);
    }
    CHECK(ts_probe_amx.int8_ops == 4.0 * 2 * 16 * 16 * 64);
    CHECK(ts_probe_amx.bf16_ops == 4.0 * 2 * 16 * 16 * 32);
    if (c->amx) {
        CHECK(ts_probe_amx.int8(7) == 7 * 64 * 3);
        CHECK(ts_probe_amx.bf16(7) == 7 * 32 * 0.125f);
    }
}

static void test_rates(void)
{
    ts_error err = {0};
    const ts_cpu *c = ts_cpu_get();
    ts_probe p = {0};
    REQUIRE(ts_probe_run(1, TS_ISA_AUTO, &p, &err) == TS_OK);
    CHECK(p.read > 1e8 && p.fma > 1e8 && p.int8 > 1e8);
    CHECK((p.tile_int8 > 0) == c->amx && (p.tile_bf16 > 0) == c->amx);
    REQUIRE(ts_probe_run(1, TS_ISA_AVX2, &p, &err) == TS_OK);
    CHECK(p.tile_int8 == 0 && p.tile_bf16 == 0 && p.int8 > 1e8);
    CHECK(ts_probe_run(0, TS_ISA_AUTO, &p, &err) == TS_BAD_ARG);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    REQUIRE(f);
    fputs(text, f);
    fclose(f);
}

static void make_dir(char path[300], const char *folder, const char *name)
{
    snprintf(path, 300, "%s/%s", folder, name);
    REQUIRE(mkdir(path, 0700) == 0);
}

/* Two sockets, a node of memory alone, and what else lies in that folder. */
static void test_numa(void)
{
    char top[] = "/tmp/tessera-test-XXXXXX", dir[300], cmd[400];
    REQUIRE(mkdtemp(top));
    make_dir(dir, top, "node0");
    write_file(dir, "cpulist", "0-31,64-95\n");
    write_file(dir, "meminfo",
               "Node 0 MemTotal:       10709204 kB\nNode 0 MemFree:         6342848 kB\n"
               "Node 0 MemUsed:         4366356 kB\n");
    make_dir(dir, top, "node10");
    write_file(dir, "cpulist", "\n");
    write_file(dir, "meminfo",
               "Node 10 MemTotal: 1 kB\nNode 10 MemFree: 99999999999999999999 kB\n");
    make_dir(dir, top, "node2");
    write_file(dir, "cpulist", "32-63,96-127\n");
    make_dir(dir, top, "power");
    make_dir(dir, top, "node");
    make_dir(dir, top, "nodeX");
    make_dir(dir, top, "node99999999999");
    static ts_numa_node n[TS_NUMA_MAX];
    REQUIRE(ts_numa_nodes(top, n) == 3);
    CHECK(n[0].id == 0 && strcmp(n[0].cpus, "0-31,64-95") == 0);
    CHECK(n[0].total == 10709204ull << 10 && n[0].free == 6342848ull << 10);
    CHECK(n[1].id == 2 && strcmp(n[1].cpus, "32-63,96-127") == 0 && n[1].total == 0);
    CHECK(n[2].id == 10 && n[2].cpus[0] == 0 && n[2].total == 1024 && n[2].free == 0);
    snprintf(cmd, sizeof cmd, "rm -r %s", top);
    CHECK(system(cmd) == 0);
    CHECK(ts_numa_nodes(top, n) == 0);
}

int main(void)
{
    test_loops();
    test_rates();
    test_numa();
    return check_done("probe");
}

/* info.c - tessera info: what this machine has, which kernel sets can use it, and what it was
 * measured to do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/numa.h"
#include "base/probe.h"
#include "command.h"
#include "cpu/kset.h"
#include "opt.h"
#include "report.h"

enum { MAX_GPUS = 16 };

typedef struct machine {
    const ts_cpu *cpu;
    int n_threads, n_nodes;
    ts_numa_node nodes[TS_NUMA_MAX];
    ts_probe rates;
    ts_gpu gpus[MAX_GPUS];
    size_t n_gpus;
    char no_gpus[512]; /* why there are none */
} machine;

static size_t count_ksets(ts_isa isa)
{
    size_t n = 0;

    for (size_t i = 0; i < ts_kset_count(); i++)
        n += ts_kset_at(i)->isa == isa;
    return n;
}

/* What the kernel said about tiles, in words. */
static const char *tiles_in_words(const ts_cpu *c)
{
    if (!c->tiles_asked)
        return "not asked for: there is nothing to use them with";
    return c->tiles_errno ? strerror(c->tiles_errno) : "granted by the kernel";
}

/* --- text --------------------------------------------------------------- */

/* "label  a, b" : a line of a section. */
static void put(ts_sb *b, const char *label, const char *text)
{
    ts_sb_printf(b, "%-14s %s\n", label, text);
}

static void put_features(ts_sb *b, const ts_cpu *c, bool present)
{
    const char *name;
    int n = 0;

    ts_sb_printf(b, "%-14s", present ? "features" : "  not here");
    for (int i = 0; (name = ts_cpu_feature_name(i)); i++)
        if ((c->features >> i & 1) == present) {
            ts_sb_printf(b, " %s", name);
            n++;
        }
    ts_sb_str(b, n ? "\n" : " none\n");
}

static void put_caches(ts_sb *b, const ts_cpu *c)
{
    const size_t bytes[] = {c->l1d, c->l2, c->l3};
    const char *const names[] = {"L1d", "L2", "L3"};
    char size[32];

    ts_sb_printf(b, "%-14s", "caches");
    for (int i = 0; i < 3; i++)
        ts_sb_printf(b, " %s %s%s", names[i], bytes[i] ? cli_size(size, bytes[i]) : "unknown",
                     i < 2 ? "," : "\n");
}

static void put_memory(ts_sb *b, const machine *m)
{
    char total[32], left[32];

    ts_sb_printf(b, "%-14s %s, %s free\n", "memory", cli_size(total, ts_mem_total()),
                 cli_size(left, ts_mem_available()));
    for (int i = 0; i < m->n_nodes; i++) {
        const ts_numa_node *node = &m->nodes[i];
        char label[32];
        snprintf(label, sizeof label, "  NUMA node %d", node->id);
        ts_sb_printf(b, "%-14s %s%s, %s, %s free\n", label, node->cpus[0] ? "CPUs " : "no CPUs",
                     node->cpus, cli_size(total, node->total), cli_size(left, node->free));
    }
    if (!m->n_nodes)
        put(b, "  NUMA nodes", "unknown");
}

static void put_ksets(ts_sb *b, const ts_cpu *c)
{
    ts_sb_str(b, "\nkernel sets\n");
    for (ts_isa isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++) {
        const char *why = "";
        char label[32], text[400];
        snprintf(label, sizeof label, "  %s", ts_isa_name(isa));
        if (ts_isa_usable(c, isa, &why))
            snprintf(text, sizeof text, "yes, for %zu types", count_ksets(isa));
        else
            snprintf(text, sizeof text, "no: %s", why);
        put(b, label, text);
    }
}

static void put_rate(ts_sb *b, const char *label, double rate, const char *unit, const char *what)
{
    if (rate > 0)
        ts_sb_printf(b, "%-14s %10.2f %-7s %s\n", label, rate, unit, what);
    else
        ts_sb_printf(b, "%-14s %10s %-7s %s\n", label, "-", "", "there are no tiles");
}

static void put_rates(ts_sb *b, const machine *m)
{
    const ts_cpu *c = m->cpu;
    const ts_probe *r = &m->rates;

    ts_sb_printf(b, "\nmeasured, %d thread%s\n", m->n_threads, m->n_threads == 1 ? "" : "s");
    put_rate(b, "  read", 1e-9 * r->read, "GB/s", "from memory");
    put_rate(b, "  float", 1e-12 * r->fma, "TFLOPS",
             c->avx512 ? "512-bit FMA"
             : c->avx2 ? "256-bit FMA"
                       : "128-bit products and sums");
    put_rate(b, "  int8", 1e-12 * r->int8, "TOPS",
             c->avx512 ? "VPDPBUSD"
             : c->avx2 ? "VPMADDUBSW, VPADDW"
                       : "PMADDWD, PADDD");
    put_rate(b, "  tile int8", 1e-12 * r->tile_int8, "TOPS", "TDPBSSD");
    put_rate(b, "  tile bf16", 1e-12 * r->tile_bf16, "TFLOPS", "TDPBF16PS");
}

static void put_gpus(ts_sb *b, const machine *m)
{
    ts_sb_str(b, "\nGPUs\n");
    if (!m->n_gpus)
        put(b, "  none", m->no_gpus);
    for (size_t i = 0; i < m->n_gpus; i++) {
        char label[32], text[256], total[32], left[32];
        snprintf(label, sizeof label, "  %s", m->gpus[i].name);
        snprintf(text, sizeof text, "%s, %s, %s free", m->gpus[i].desc,
                 cli_size(total, m->gpus[i].total_bytes), cli_size(left, m->gpus[i].free_bytes));
        put(b, label, text);
    }
}

static void print_text(ts_sb *b, const machine *m)
{
    put(b, "CPU", m->cpu->brand);
    ts_sb_printf(b, "%-14s %d for this process\n", "CPUs", m->cpu->n_cpus);
    put_features(b, m->cpu, true);
    put_features(b, m->cpu, false);
    put(b, "tiles", tiles_in_words(m->cpu));
    put_caches(b, m->cpu);
    put_memory(b, m);
    put_ksets(b, m->cpu);
    put_gpus(b, m);
    put_rates(b, m);
}

/* --- JSON --------------------------------------------------------------- */

static void add_str(ts_sb *b, const char *s)
{
    ts_sb_json_str(b, s, strlen(s));
}

static void add_cpu(ts_sb *b, const ts_cpu *c)
{
    const char *name;
    bool first = true;

    ts_sb_str(b, "\"cpu\":{\"brand\":");
    add_str(b, c->brand);
    ts_sb_printf(b, ",\"n_cpus\":%d,\"features\":[", c->n_cpus);
    for (int i = 0; (name = ts_cpu_feature_name(i)); i++)
        if (c->features >> i & 1) {
            ts_sb_printf(b, "%s\"%s\"", first ? "" : ",", name);
            first = false;
        }
    ts_sb_printf(b, "],\"l1d_bytes\":%zu,\"l2_bytes\":%zu,\"l3_bytes\":%zu},\n", c->l1d, c->l2,
                 c->l3);
    ts_sb_printf(b, "\"tiles\":{\"asked\":%s,\"granted\":%s,\"error\":",
                 c->tiles_asked ? "true" : "false", c->amx ? "true" : "false");
    if (c->tiles_errno)
        add_str(b, strerror(c->tiles_errno));
    else
        ts_sb_str(b, "null");
    ts_sb_str(b, "},\n");
}

static void add_memory(ts_sb *b, const machine *m)
{
    ts_sb_printf(b, "\"memory\":{\"total_bytes\":%llu,\"free_bytes\":%llu},\n\"numa\":[",
                 (unsigned long long)ts_mem_total(), (unsigned long long)ts_mem_available());
    for (int i = 0; i < m->n_nodes; i++)
        ts_sb_printf(b, "%s{\"node\":%d,\"cpus\":\"%s\",\"total_bytes\":%llu,\"free_bytes\":%llu}",
                     i ? ",\n" : "", m->nodes[i].id, m->nodes[i].cpus,
                     (unsigned long long)m->nodes[i].total, (unsigned long long)m->nodes[i].free);
    ts_sb_str(b, "],\n");
}

static void add_ksets(ts_sb *b, const ts_cpu *c)
{
    ts_sb_str(b, "\"kernel_sets\":[");
    for (ts_isa isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++) {
        const char *why = NULL;
        bool usable = ts_isa_usable(c, isa, &why), first = true;
        ts_sb_printf(b, "%s{\"name\":\"%s\",\"usable\":%s,\"why_not\":",
                     isa == TS_ISA_REF ? "" : ",\n", ts_isa_name(isa), usable ? "true" : "false");
        if (why)
            add_str(b, why);
        else
            ts_sb_str(b, "null");
        ts_sb_str(b, ",\"types\":[");
        for (size_t i = 0; i < ts_kset_count(); i++)
            if (ts_kset_at(i)->isa == isa) {
                ts_sb_printf(b, "%s\"%s\"", first ? "" : ",",
                             ts_type_get(ts_kset_at(i)->type)->name);
                first = false;
            }
        ts_sb_str(b, "]}");
    }
    ts_sb_str(b, "],\n");
}

static void add_gpus(ts_sb *b, const machine *m)
{
    ts_sb_str(b, "\"gpus\":[");
    for (size_t i = 0; i < m->n_gpus; i++) {
        ts_sb_printf(b, "%s{\"name\":\"%s\",\"description\":", i ? ",\n" : "", m->gpus[i].name);
        add_str(b, m->gpus[i].desc);
        ts_sb_printf(b, ",\"total_bytes\":%zu,\"free_bytes\":%zu}", m->gpus[i].total_bytes,
                     m->gpus[i].free_bytes);
    }
    ts_sb_str(b, "],\n\"gpus_why_not\":");
    if (m->n_gpus)
        ts_sb_str(b, "null");
    else
        add_str(b, m->no_gpus);
    ts_sb_str(b, ",\n");
}

static void print_json(ts_sb *b, const machine *m)
{
    const ts_probe *r = &m->rates;

    ts_sb_printf(b, "{\"version\":\"%s\",\n", ts_version());
    add_cpu(b, m->cpu);
    add_memory(b, m);
    add_ksets(b, m->cpu);
    add_gpus(b, m);
    ts_sb_printf(b,
                 "\"n_threads\":%d,\n\"measured\":{\"read_gbs\":%.2f,\"fma_gflops\":%.1f,"
                 "\"int8_gops\":%.1f,\"tile_int8_gops\":%.1f,\"tile_bf16_gflops\":%.1f}}\n",
                 m->n_threads, r->read / 1e9, r->fma / 1e9, r->int8 / 1e9, r->tile_int8 / 1e9,
                 r->tile_bf16 / 1e9);
}

/* ------------------------------------------------------------------------ */

static ts_status look(machine *m, int64_t threads, ts_error *err)
{
    m->cpu = ts_cpu_get();
    m->n_threads = threads ? (int)threads : m->cpu->n_cpus;
    m->n_nodes = ts_numa_nodes(TS_NUMA_SYSFS, m->nodes);
    ts_error no_gpus = {0};
    if (ts_list_gpus(m->gpus, MAX_GPUS, &m->n_gpus, &no_gpus))
        snprintf(m->no_gpus, sizeof m->no_gpus, "%s", no_gpus.msg);
    if (m->n_gpus > MAX_GPUS)
        m->n_gpus = MAX_GPUS;
    return ts_probe_run(m->n_threads, TS_ISA_AUTO, &m->rates, err);
}

static int info_with(int64_t threads, bool json)
{
    machine *m = ts_calloc(1, sizeof *m);
    ts_error err = {0};
    ts_sb b = {0};
    int status = CLI_OK;

    if (!m)
        return cli_error("out of memory");
    if (look(m, threads, &err)) {
        status = cli_fail(&err);
    } else {
        (json ? print_json : print_text)(&b, m);
        if (b.failed)
            status = cli_error("out of memory");
        else
            fputs(b.s, stdout);
    }
    ts_sb_free(&b);
    free(m);
    return status;
}

int cmd_info(int argc, char **argv)
{
    int64_t threads = 0;
    bool json = false;
    const opt table[] = {
        OPT("Measuring", "-t, --threads", OPT_INT, &threads, "N", "threads to measure with",
            .min = 1, .max = 1024, .def = "one for each CPU"),
        OPT("Output", "--json", OPT_FLAG, &json, NULL, "JSON for programs (docs/CLI.md)"),
    };
    const opt_cmd cmd = {
        .name = "info",
        .purpose = "what this machine has, and what it can do",
        .usage = "[options]",
        .example = "tessera info",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    return status == OPT_GO ? info_with(threads, json) : status;
}

/* bench_print.c - results of tessera bench as llama-bench prints them, with two columns more:
 * what was achieved, and its share of what this machine was measured to be able to do. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "bench.h"
#include "report.h"

/* --- numbers ------------------------------------------------------------ */

static double tokens_per_second(const bench_result *r, int64_t i)
{
    return 1e9 * (double)(r->n_prompt + r->n_gen) / (double)r->ns[i];
}

static double nanoseconds(const bench_result *r, int64_t i)
{
    return (double)r->ns[i];
}

typedef double sample_fn(const bench_result *r, int64_t i);

static double mean(const bench_result *r, sample_fn *get)
{
    double sum = 0;

    for (int64_t i = 0; i < r->n_reps; i++)
        sum += get(r, i);
    return sum / (double)r->n_reps;
}

/* Of the sample: divided by n - 1. */
static double stddev(const bench_result *r, sample_fn *get)
{
    double m = mean(r, get), sum = 0;

    if (r->n_reps < 2)
        return 0;
    for (int64_t i = 0; i < r->n_reps; i++)
        sum += (get(r, i) - m) * (get(r, i) - m);
    return sqrt(sum / (double)(r->n_reps - 1));
}

/* What bounds a test, and how near to the bound it came. */
typedef struct bound {
    const char *name;      /* "read", "int8", "tile_bf16" ..; NULL: of several kinds, or on GPUs */
    const char *unit;      /* of the achieved figure                           */
    const char *peak_unit; /* of the peak                                      */
    double achieved, peak; /* in that unit                                     */
} bound;

/* The peak that bounds a prefill, of what most of its products are made in. On amx those are tiles:
 * of int8 if 8-bit activations were asked for and the weights have them. */
static void prefill_peak(const bench_result *r, bound *b)
{
    bool int8 = r->work.int8, tiles = strcmp(r->info.isa, "amx") == 0;
    bool int8_tiles = tiles && int8 && r->info.int8_prefill;

    b->name = int8_tiles ? "tile_int8" : tiles ? "tile_bf16" : int8 ? "int8" : "fma";
    b->peak = 1e-12 * (int8_tiles ? r->peak.tile_int8
                       : tiles    ? r->peak.tile_bf16
                       : int8     ? r->peak.int8
                                  : r->peak.fma);
    b->unit = "TFLOPS";
    b->peak_unit = int8_tiles || (int8 && !tiles) ? "TOPS" : "TFLOPS";
}

static bound bound_of(const bench_result *r)
{
    const bench_work *w = &r->work;
    double tps = mean(r, tokens_per_second);
    bound b = {0};

    if (r->n_prompt && r->n_gen)
        return b;
    if (r->n_gen) {
        b.name = "read";
        b.unit = b.peak_unit = "GB/s";
        /* every weight once a step */
        double steps = ceil((double)r->n_gen / (double)r->n_step);
        b.achieved = 1e-9 * tps / (double)r->n_gen * steps * (double)w->weight_bytes;
        b.peak = 1e-9 * r->peak.read;
        if (r->info.gpus[0]) /* the CPU's memory is a part of what is read */
            b.name = NULL;
        return b;
    }
    /* Logits are made once a batch, for its last token. */
    double batches = ceil((double)r->n_prompt / (double)r->n_batch);
    double flops =
        2 * ((double)w->body_params * (double)r->n_prompt + (double)w->head_params * batches);
    b.achieved = 1e-12 * flops * tps / (double)r->n_prompt;
    prefill_peak(r, &b);
    if (r->info.gpus[0])
        b.name = NULL;
    return b;
}

/* "pp512", "tg128 @ d1024", "pp512+tg128", "tg128 m4": 4 tokens a step */
static const char *test_name(const bench_result *r, char buf[96])
{
    int n = 0;

    buf[0] = 0;
    if (r->n_prompt)
        n += snprintf(buf, 96, "pp%lld", (long long)r->n_prompt);
    if (r->n_gen)
        n += snprintf(buf + n, 96 - (size_t)n, "%stg%lld", n ? "+" : "", (long long)r->n_gen);
    if (r->n_step > 1)
        n += snprintf(buf + n, 96 - (size_t)n, " m%lld", (long long)r->n_step);
    if (r->n_depth)
        snprintf(buf + n, 96 - (size_t)n, " @ d%lld", (long long)r->n_depth);
    return buf;
}

/* --- Markdown ----------------------------------------------------------- */

static void md_header(const bench_printer *p)
{
    printf("| %-30s | %10s | %10s | %-10s | %7s |", "model", "size", "params", "backend",
           "threads");
    if (p->show_batch)
        printf(" %7s |", "n_batch");
    if (p->show_ubatch)
        printf(" %8s |", "n_ubatch");
    if (p->show_ngl)
        printf(" %3s |", "ngl");
    if (p->show_stream)
        printf(" %6s |", "stream");
    printf(" %15s | %19s | %13s | %32s |\n", "test", "t/s", "achieved", "of measured peak");
    printf("| ------------------------------ | ---------: | ---------: | ---------- | ------: |");
    if (p->show_batch)
        printf(" ------: |");
    if (p->show_ubatch)
        printf(" -------: |");
    if (p->show_ngl)
        printf(" --: |");
    if (p->show_stream)
        printf(" ------ |");
    printf(" --------------: | ------------------: | ------------: | "
           "-------------------------------: |\n");
}

static void md_row(const bench_printer *p, const bench_result *r)
{
    char size[32], params[32], test[96], backend[32], speed[64], figure[64] = "", share[64] = "";
    bound b = bound_of(r);

    snprintf(backend, sizeof backend, "CPU %s%s%s", r->info.isa,
             r->info.int8_prefill ? " int8" : "", r->info.gpus[0] ? ", CUDA" : "");
    snprintf(speed, sizeof speed, "%.2f ± %.2f", mean(r, tokens_per_second),
             stddev(r, tokens_per_second));
    if (b.unit)
        snprintf(figure, sizeof figure, b.unit[0] == 'T' ? "%.3f %s" : "%.2f %s", b.achieved,
                 b.unit);
    if (b.name) {
        snprintf(share, sizeof share,
                 b.unit[0] == 'T' ? "%.0f %% of %.3f %s %s" : "%.0f %% of %.2f %s %s",
                 100 * b.achieved / b.peak, b.peak, b.peak_unit, b.name);
    }
    printf("| %-30s | %10s | %10s | %-10s | %7d |", r->info.desc,
           cli_size(size, r->info.model_bytes), cli_count(params, (uint64_t)r->info.n_params),
           backend, r->info.n_threads);
    if (p->show_batch)
        printf(" %7lld |", (long long)r->n_batch);
    if (p->show_ubatch)
        printf(" %8lld |", (long long)r->info.n_ubatch);
    if (p->show_ngl)
        printf(" %3lld |", (long long)r->info.n_gpu_layers);
    if (p->show_stream)
        printf(" %-6s |", r->stream);
    /* the sign between mean and deviation is two bytes wide and one column */
    printf(" %15s | %20s | %13s | %32s |\n", test_name(r, test), speed, figure, share);
}

/* --- JSON and CSV ------------------------------------------------------- */

/* Fields in order, as strings and as numbers; `emit` puts each one where the format wants it. */
typedef struct fields {
    ts_sb names, values; /* CSV: two lines; JSON: all of it in `values` */
    bool json;
    int n;
} fields;

static void field_name(fields *f, const char *name)
{
    if (f->json) {
        ts_sb_printf(&f->values, "%s    \"%s\": ", f->n ? ",\n" : "", name);
    } else {
        ts_sb_printf(&f->names, "%s%s", f->n ? "," : "", name);
        ts_sb_str(&f->values, f->n ? "," : "");
    }
    f->n++;
}

static void field_str(fields *f, const char *name, const char *s)
{
    field_name(f, name);
    if (f->json) {
        size_t n = 0;
        while (s[n])
            n++;
        ts_sb_json_str(&f->values, s, n);
        return;
    }
    ts_sb_str(&f->values, "\"");
    for (; *s; s++)
        ts_sb_add(&f->values, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    ts_sb_str(&f->values, "\"");
}

static void field_int(fields *f, const char *name, uint64_t v)
{
    field_name(f, name);
    ts_sb_printf(&f->values, "%llu", (unsigned long long)v);
}

static void field_float(fields *f, const char *name, double v)
{
    field_name(f, name);
    ts_sb_printf(&f->values, "%.6f", v);
}

/* null in JSON, nothing in CSV */
static void field_none(fields *f, const char *name)
{
    field_name(f, name);
    if (f->json)
        ts_sb_str(&f->values, "null");
}

static void samples(fields *f, const char *name, const bench_result *r, sample_fn *get,
                    const char *fmt)
{
    field_name(f, name);
    ts_sb_str(&f->values, "[");
    for (int64_t i = 0; i < r->n_reps; i++) {
        char number[64];
        snprintf(number, sizeof number, fmt[0] == 'i' ? "%.0f" : "%.6f", get(r, i));
        ts_sb_printf(&f->values, "%s%s", i ? ", " : " ", number);
    }
    ts_sb_str(&f->values, " ]");
}

/* llama-bench's fields, with its names and in its order. */
static void add_known(fields *f, const bench_result *r)
{
    field_str(f, "build_commit", TS_BUILD_COMMIT);
    field_str(f, "build_version", ts_version());
    field_str(f, "cpu_info", ts_cpu_get()->brand);
    field_str(f, "gpu_info", r->info.gpus);
    field_str(f, "backends", r->info.gpus[0] ? "CPU,CUDA" : "CPU");
    field_str(f, "model_filename", r->path);
    field_str(f, "model_type", r->info.desc);
    field_int(f, "model_size", r->info.model_bytes);
    field_int(f, "model_n_params", (uint64_t)r->info.n_params);
    field_int(f, "n_batch", (uint64_t)r->n_batch);
    field_int(f, "n_ubatch", (uint64_t)r->info.n_ubatch);
    field_int(f, "n_threads", (uint64_t)r->info.n_threads);
    field_str(f, "type_k", "f16");
    field_str(f, "type_v", "f16");
    field_int(f, "n_gpu_layers", (uint64_t)r->info.n_gpu_layers);
    field_str(f, "stream", r->stream);
    field_int(f, "n_prompt", (uint64_t)r->n_prompt);
    field_int(f, "n_gen", (uint64_t)r->n_gen);
    field_int(f, "n_depth", (uint64_t)r->n_depth);
    field_str(f, "test_time", r->time);
    field_int(f, "avg_ns", (uint64_t)mean(r, nanoseconds));
    field_int(f, "stddev_ns", (uint64_t)stddev(r, nanoseconds));
    field_float(f, "avg_ts", mean(r, tokens_per_second));
    field_float(f, "stddev_ts", stddev(r, tokens_per_second));
}

static void add_own(fields *f, const bench_result *r)
{
    bound b = bound_of(r);

    field_str(f, "isa", r->info.isa);
    field_str(f, "prefill", r->info.int8_prefill ? "int8" : "exact");
    field_int(f, "tokens_per_step", (uint64_t)r->n_step);
    field_float(f, "load_seconds", r->info.load_seconds);
    field_int(f, "weight_bytes", r->work.weight_bytes);
    field_int(f, "body_params", r->work.body_params);
    field_int(f, "head_params", r->work.head_params);
    field_float(f, "peak_read_gbps", 1e-9 * r->peak.read);
    field_float(f, "peak_fma_tflops", 1e-12 * r->peak.fma);
    field_float(f, "peak_int8_tops", 1e-12 * r->peak.int8);
    field_float(f, "peak_tile_bf16_tflops", 1e-12 * r->peak.tile_bf16);
    field_float(f, "peak_tile_int8_tops", 1e-12 * r->peak.tile_int8);
    if (b.name)
        field_str(f, "bound", b.name);
    else
        field_none(f, "bound");
    if (b.unit && r->n_gen)
        field_float(f, "achieved_gbps", b.achieved);
    else
        field_none(f, "achieved_gbps");
    if (b.unit && r->n_prompt)
        field_float(f, "achieved_tflops", b.achieved);
    else
        field_none(f, "achieved_tflops");
    if (b.name)
        field_float(f, "share", b.achieved / b.peak);
    else
        field_none(f, "share");
}

static void json_row(const bench_printer *p, fields *f, const bench_result *r)
{
    f->json = true;
    ts_sb_str(&f->values, p->n ? ",\n  {\n" : "  {\n");
    add_known(f, r);
    add_own(f, r);
    samples(f, "samples_ns", r, nanoseconds, "i");
    samples(f, "samples_ts", r, tokens_per_second, "f");
    if (r->stats) {
        field_name(f, "stats");
        ts_sb_str(&f->values, r->stats);
    } else {
        field_none(f, "stats");
    }
    ts_sb_str(&f->values, "\n  }");
}

static void csv_row(const bench_printer *p, fields *f, const bench_result *r)
{
    add_known(f, r);
    add_own(f, r);
    ts_sb_str(&f->values, "\n");
    if (p->n == 0 && !f->names.failed)
        printf("%s\n", f->names.s);
}

/* --- the three ---------------------------------------------------------- */

static void header(const bench_printer *p)
{
    if (p->format == BENCH_MD)
        md_header(p);
    else if (p->format == BENCH_JSON)
        printf("[\n");
}

double bench_tps(const bench_result *r)
{
    return mean(r, tokens_per_second);
}

ts_status bench_print(bench_printer *p, const bench_result *r, ts_error *err)
{
    fields f = {0};

    if (p->n == 0) {
        p->show_ngl |= r->info.gpus[0] != 0;
        header(p);
    }
    if (p->format == BENCH_MD)
        md_row(p, r);
    else if (p->format == BENCH_JSON)
        json_row(p, &f, r);
    else
        csv_row(p, &f, r);
    bool failed = f.names.failed || f.values.failed;
    if (f.values.s && !failed)
        fputs(f.values.s, stdout);
    ts_sb_free(&f.names);
    ts_sb_free(&f.values);
    fflush(stdout);
    if (r->stats && p->format != BENCH_JSON) {
        char test[96];
        fprintf(stderr, "\n%s, %lld repetitions\n%s\n", test_name(r, test), (long long)r->n_reps,
                r->stats);
    }
    p->n++;
    return failed ? ts_fail(err, TS_NO_MEMORY, "no memory for a line of output") : TS_OK;
}

void bench_print_footer(const bench_printer *p)
{
    if (p->n == 0)
        return;
    if (p->format == BENCH_MD)
        printf("\nbuild: %s (%s)\n", ts_version(), TS_BUILD_COMMIT);
    else if (p->format == BENCH_JSON)
        printf("\n]\n");
}

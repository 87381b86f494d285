/* bench/kernels.c - the speed of every kernel set as a share of what the same run measured this
 * machine to be able to do (base/probe.h).
 *
 * Decode is bound by memory: its share is of a plain read loop over a buffer larger than the
 * caches, and every shape has as many copies of its matrix as it takes to leave them. Prefill is
 * bound by arithmetic: its share is of a loop of nothing but the instructions the kernel needs:
 * tile products in BF16 or int8, int8 products, or FMA. A figure is the fastest of its rounds:
 * other programs on the machine only ever add time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/probe.h"
#include "cpu/kset.h"
#include "cpu/tiles.h"
#include "exec/chunks.h"

enum { MAX_M = 16 };

/* More than the caches hold. */
static size_t cold_bytes(void)
{
    size_t l3 = ts_cpu_get()->l3;
    return l3 > (48u << 20) ? 2 * l3 : 96u << 20;
}

typedef struct options {
    int threads;
    double seconds; /* of each figure, about */
    const char *type;
    ts_isa isa;
    bool json;
    bool int8;    /* activations of 8 bits, not exact ones */
    int64_t n, k; /* 0: the built-in shapes */
    int64_t m[MAX_M];
    int n_m;
} options;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of the fastest run of fn, within about opt->seconds. next(arg) goes before each, if
 * given. */
static double fastest(ts_pool *pool, const options *opt, ts_pool_fn *fn, void *arg,
                      void (*next)(void *arg))
{
    double best = 1e30, end = now() + opt->seconds;
    for (int i = 0; i < 3 || (now() < end && i < 20000); i++) {
        if (next)
            next(arg);
        double t = now();
        ts_pool_run(pool, fn, arg);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

/* The kernel sets. */

typedef struct job {
    const ts_kset *s;
    const ts_prep *prep;
    char *w;   /* `copies` packed (or source) matrices  */
    char *src; /* one source matrix                     */
    size_t w_bytes;
    int copies, at;
    float *x, *y;
    void *act;
    char *scratch; /* [threads][TS_MUL_SCRATCH] */
    int threads;
    int64_t m, n, k;
    atomic_int_fast64_t next; /* chunk to be claimed */
} job;

static void rows(const job *j, int tid, int n, int64_t *n0, int64_t *n1)
{
    int64_t groups = (j->n + j->s->group - 1) / j->s->group;
    *n0 = groups * tid / n * j->s->group;
    *n1 = groups * (tid + 1) / n * j->s->group;
    if (*n1 > j->n)
        *n1 = j->n;
}

static void mul_job(void *arg, int tid, int n)
{
    job *j = arg;
    ts_mul p = {.w = j->w + (size_t)j->at * j->w_bytes,
                .x = j->act,
                .limbs = j->prep->limbs,
                .y = j->y,
                .m = j->m,
                .n = j->n,
                .k = j->k,
                .ldy = j->n,
                .scratch = j->scratch + (size_t)tid * TS_MUL_SCRATCH};
    bool tiles = j->s->on_tiles != NULL;
    if (tiles)
        ts_tiles_begin();
    ts_chunks c = ts_chunks_of(j->s, j->prep != j->s->prep, j->n, j->m, n);
    while (ts_chunk_rows(c, ts_claim(&j->next), j->n, &p.n0, &p.n1))
        j->s->mul(&p);
    if (tiles)
        ts_tiles_end();
}

/* Another copy, so that the caches hold nothing of it, dealt out anew. */
static void next_copy(void *arg)
{
    job *j = arg;
    atomic_store(&j->next, 0);
    j->at = (j->at + 1) % j->copies;
}

static void pack_job(void *arg, int tid, int n)
{
    job *j = arg;
    int64_t n0, n1;
    rows(j, tid, n, &n0, &n1);
    j->s->pack(j->w, j->src, j->n, j->k, n0, n1);
}

static void prep_job(void *arg, int tid, int n)
{
    job *j = arg;
    int64_t g = j->prep->m_group, groups = (j->m + g - 1) / g, m1 = groups * (tid + 1) / n * g;
    j->prep->run(j->act, j->x, j->k, j->m, j->k, groups * tid / n * g, m1 < j->m ? m1 : j->m, 0,
                 j->k);
}

/* Random codes, halves that are 2^-7: nothing is subnormal or infinite. */
static void fill(const ts_type_info *info, uint8_t *p, size_t bytes)
{
    uint64_t s = 1;
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(s >> 33);
        p[i + 1] = (uint8_t)(0x20 | (s >> 41 & 0x8f));
    }
    if (info->act == TS_ACT_F32)
        memset(p, 0x22, bytes);
}

/* The copies of a matrix beside the first, shared out so that pages lie near who reads them. */
static void copy_job(void *arg, int tid, int n)
{
    job *j = arg;
    for (int i = 1 + tid; i < j->copies; i += n)
        memcpy(j->w + (size_t)i * j->w_bytes, j->w, j->w_bytes);
}

/* The weights, for any m. */
static bool job_open(job *j, ts_pool *pool, const ts_kset *s, bool int8, int64_t n, int64_t k)
{
    const ts_type_info *info = ts_type_get(s->type);
    size_t bytes = (size_t)n * ts_row_bytes(info, k);
    *j = (job){.s = s, .prep = int8 ? s->prep_int8 : s->prep, .n = n, .k = k};
    j->w_bytes = ((s->packed_bytes ? s->packed_bytes(n, k) : bytes) + 63) / 64 * 64;
    j->copies = (int)(cold_bytes() / j->w_bytes) + 1;
    j->src = ts_map(bytes);
    j->w = ts_map(j->w_bytes * (size_t)j->copies);
    j->threads = ts_pool_size(pool);
    j->scratch = ts_map((size_t)j->threads * TS_MUL_SCRATCH);
    if (!j->src || !j->w || !j->scratch)
        return false;
    fill(info, (uint8_t *)j->src, bytes);
    if (s->pack)
        s->pack(j->w, j->src, n, k, 0, n);
    else
        memcpy(j->w, j->src, bytes);
    ts_pool_run(pool, copy_job, j);
    return true;
}

static void job_close(job *j)
{
    const ts_type_info *info = ts_type_get(j->s->type);
    ts_unmap(j->src, (size_t)j->n * ts_row_bytes(info, j->k));
    ts_unmap(j->w, j->w_bytes * (size_t)j->copies);
    ts_unmap(j->scratch, (size_t)j->threads * TS_MUL_SCRATCH);
}

/* m tokens. */
static bool tokens_open(job *j, int64_t m)
{
    j->m = m;
    j->x = ts_map((size_t)(m * j->k) * sizeof(float));
    j->y = ts_map((size_t)(m * j->n) * sizeof(float));
    j->act = ts_map(j->prep->bytes(m, j->k));
    if (!j->x || !j->y || !j->act)
        return false;
    for (int64_t i = 0; i < m * j->k; i++)
        j->x[i] = (float)(i * 2654435761u % 1000) * 1e-3f - 0.5f;
    j->prep->run(j->act, j->x, j->k, m, j->k, 0, m, 0, j->k);
    return true;
}

static void tokens_close(job *j)
{
    ts_unmap(j->x, (size_t)(j->m * j->k) * sizeof(float));
    ts_unmap(j->y, (size_t)(j->m * j->n) * sizeof(float));
    ts_unmap(j->act, j->prep->bytes(j->m, j->k));
}

/* Printing. */

static bool first_row = true;

static void row(const options *opt, const ts_pool *pool, const ts_probe *l, const job *j,
                double mul, double pack, double prep)
{
    const ts_type_info *info = ts_type_get(j->s->type);
    double bytes = (double)j->n * (double)ts_row_bytes(info, j->k), x = (double)(j->m * j->k) * 4;
    double gbs = bytes / mul * 1e-9, gflops = 2.0 * (double)(j->m * j->n * j->k) / mul * 1e-9;
    bool tiles = ts_kset_on_tiles(j->s, opt->int8, j->m);
    bool tiles8 = ts_kset_on_int8_tiles(j->s, opt->int8, j->m);
    bool fma = info->act == TS_ACT_F32;
    double peak = 1e-9 * (tiles8 ? l->tile_int8 : tiles ? l->tile_bf16 : fma ? l->fma : l->int8);
    const char *peak_name = tiles8 ? "tile_int8" : tiles ? "tile_bf16" : fma ? "fma" : "int8";
    double share_read = 100 * gbs / (1e-9 * l->read),
           share_peak = peak > 0 ? 100 * gflops / peak : 0;
    double pack_gbs = pack > 0 ? bytes / pack * 1e-9 : 0, prep_gbs = x / prep * 1e-9;
    if (opt->json)
        printf("%s{\"type\":\"%s\",\"isa\":\"%s\",\"layout\":\"%s\",\"threads\":%d,\"n\":%lld,"
               "\"k\":%lld,\"m\":%lld,\"act\":\"%s\",\"us\":%.1f,\"gbs\":%.2f,\"gflops\":%.1f,"
               "\"share_of_read\":%.3f,\"share_of_peak\":%.3f,\"pack_gbs\":%.2f,\"prep_gbs\":%.2f,"
               "\"read_gbs\":%.2f,\"peak_gflops\":%.1f,\"peak\":\"%s\",\"fma_gflops\":%.1f,"
               "\"int8_gops\":%.1f,\"tile_bf16_gflops\":%.1f}",
               first_row ? "" : ",\n", info->name, ts_isa_name(j->s->isa), j->s->layout,
               ts_pool_size(pool), (long long)j->n, (long long)j->k, (long long)j->m,
               opt->int8 ? "int8" : "exact", mul * 1e6, gbs, gflops, share_read / 100,
               share_peak / 100, pack_gbs, prep_gbs, 1e-9 * l->read, peak, peak_name, 1e-9 * l->fma,
               1e-9 * l->int8, 1e-9 * l->tile_bf16);
    else
        printf("| %-6s | %-9s | %5lld x %-5lld | %3lld | %9.1f | %5.1f | %3.0f %% | %6.1f | %3.0f "
               "%% | "
               "%4.1f | %4.1f |\n",
               info->name, j->s->layout, (long long)j->n, (long long)j->k, (long long)j->m,
               mul * 1e6, gbs, share_read, gflops, share_peak, pack_gbs, prep_gbs);
    first_row = false;
    fflush(stdout);
}

static int run(const options *opt, ts_pool *pool, ts_prober *prober)
{
    static const int64_t shapes[2][2] = {{8192, 2048}, {4096, 14336}}; /* of a 1B and of an 8B */
    ts_probe l = {0};
    for (int i = 0; i < 3; i++)
        ts_prober_run(prober, &l);
    if (opt->json)
        printf("[");
    else
        printf(
            "%s, %d threads: reads %.1f GB/s, FMA %.0f GFLOP/s, int8 %.0f GOP/s, BF16 tiles %.0f "
            "GFLOP/s\n\n"
            "| type   | layout    |     n x k     |   m |        us |  GB/s | of read | GFLOP/s | "
            "of peak | pack GB/s | prep GB/s |\n"
            "|--------|-----------|---------------|----:|----------:|------:|-----:|------:|-----:|"
            "----:|----:|\n",
            ts_cpu_get()->brand, ts_pool_size(pool), 1e-9 * l.read, 1e-9 * l.fma, 1e-9 * l.int8,
            1e-9 * l.tile_bf16);
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *s = ts_kset_at(i);
        if (s->isa != opt->isa || (opt->type && strcasecmp(opt->type, ts_type_get(s->type)->name)))
            continue;
        for (int shape = 0; shape < (opt->n ? 1 : 2); shape++) {
            job j;
            bool ok = job_open(&j, pool, s, opt->int8, opt->n ? opt->n : shapes[shape][0],
                               opt->n ? opt->k : shapes[shape][1]);
            double pack = ok && s->pack ? fastest(pool, opt, pack_job, &j, NULL) : 0;
            for (int im = 0; ok && im < opt->n_m; im++) {
                ok = tokens_open(&j, opt->m[im]);
                if (!ok)
                    break;
                ts_prober_run(prober, &l);
                double mul = fastest(pool, opt, mul_job, &j, next_copy);
                double prep = fastest(pool, opt, prep_job, &j, NULL);
                row(opt, pool, &l, &j, mul, pack, prep);
                tokens_close(&j);
            }
            if (!ok) {
                fprintf(stderr, "bench_kernels: out of memory\n");
                return 1;
            }
            job_close(&j);
        }
    }
    if (opt->json)
        printf("]\n");
    return 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench_kernels [-t THREADS] [-o md|json] [--isa SET] [--type TYPE] [-m M]...\n"
            "                     [--act exact|int8] [--shape NxK] [--ms MILLISECONDS_A_FIGURE]\n"
            "example: bench_kernels -t 2 --type Q4_K -m 1 -m 512 --shape 8192x2048\n");
    return 1;
}

int main(int argc, char **argv)
{
    options opt = {.threads = ts_cpu_get()->n_cpus, .seconds = 0.1, .isa = TS_ISA_AUTO};
    for (int i = 1; i < argc; i += 2) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        long long n = 0, k = 0;
        if (v && !strcmp(a, "-t") && atoi(v) > 0)
            opt.threads = atoi(v);
        else if (v && !strcmp(a, "-o") && (!strcmp(v, "md") || !strcmp(v, "json")))
            opt.json = !strcmp(v, "json");
        else if (v && !strcmp(a, "--isa") && ts_isa_parse(v, &opt.isa))
            continue;
        else if (v && !strcmp(a, "--act") && (!strcmp(v, "exact") || !strcmp(v, "int8")))
            opt.int8 = !strcmp(v, "int8");
        else if (v && !strcmp(a, "--type"))
            opt.type = v;
        else if (v && !strcmp(a, "-m") && opt.n_m < MAX_M && atoi(v) > 0)
            opt.m[opt.n_m++] = atoi(v);
        else if (v && !strcmp(a, "--ms") && atof(v) > 0)
            opt.seconds = atof(v) * 1e-3;
        else if (v && !strcmp(a, "--shape") && sscanf(v, "%lldx%lld", &n, &k) == 2 && n > 0 &&
                 k > 0 && k % 256 == 0)
            opt.n = n, opt.k = k;
        else
            return usage();
    }
    if (opt.n_m == 0) {
        static const int64_t ms[] = {1, 4, 16, 64, 512};
        memcpy(opt.m, ms, sizeof ms);
        opt.n_m = sizeof ms / sizeof *ms;
    }

    ts_error err;
    ts_pool *pool;
    ts_prober *prober;
    if (ts_isa_resolve(opt.isa, false, &(ts_log){0}, &opt.isa, &err) ||
        ts_pool_open(&pool, opt.threads, &err) ||
        ts_prober_open(&prober, opt.threads, opt.isa, &err)) {
        fprintf(stderr, "bench_kernels: %s\n", err.msg);
        return 1;
    }
    int rc = run(&opt, pool, prober);
    ts_prober_close(prober);
    ts_pool_close(pool);
    return rc;
}

/* probe.c - what this machine can do at best: memory read bandwidth, float and int8 peak. */
#include "base/probe.h"

#include <emmintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/probe_impl.h"

/* --- loops for plain x86-64 --------------------------------------------- */

static uint64_t read_sse2(const void *p, size_t n)
{
    const char *c = p;
    __m128i a[8] = {0};

    for (size_t i = 0; i < n; i += 512) {
        for (int j = 0; j < 8; j++)
            _mm_prefetch(c + i + 4096 + 64 * j, _MM_HINT_T0);
        for (int j = 0; j < 32; j++) {
            __m128i v = _mm_load_si128((const __m128i *)(c + i) + j);
            a[j % 8] = _mm_xor_si128(a[j % 8], v);
        }
    }
    for (int j = 1; j < 8; j++)
        a[0] = _mm_xor_si128(a[0], a[j]);
    return (uint64_t)_mm_cvtsi128_si64(a[0]);
}

enum { ACCS = 10 };

/* SSE2 has no fused multiply-add. */
static float fma_sse2(int64_t n)
{
    __m128 a[ACCS], x = _mm_set1_ps(0.5f), y = _mm_set1_ps(0.25f);

    for (int j = 0; j < ACCS; j++)
        a[j] = _mm_set1_ps((float)j);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < ACCS; j++)
            a[j] = _mm_add_ps(_mm_mul_ps(a[j], x), y);
    for (int j = 1; j < ACCS; j++)
        a[0] = _mm_add_ps(a[0], a[j]);
    return _mm_cvtss_f32(a[0]);
}

/* 8-bit products need SSSE3; PMADDWD takes them as 16-bit numbers, 8 into 4 sums. */
static int32_t int8_sse2(int64_t n)
{
    __m128i a[ACCS] = {0}, x = _mm_set1_epi16(3), y = _mm_set1_epi16(1);

    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < ACCS; j++) {
            __asm__ volatile("" : "+x"(x)); /* else the product is made once and for all */
            a[j] = _mm_add_epi32(a[j], _mm_madd_epi16(x, y));
        }
    for (int j = 1; j < ACCS; j++)
        a[0] = _mm_add_epi32(a[0], a[j]);
    return _mm_cvtsi128_si32(a[0]);
}

const ts_probe_loops ts_probe_sse2 = {
    .read = read_sse2,
    .fma = fma_sse2,
    .int8 = int8_sse2,
    .fma_ops = 2 * 4 * ACCS,
    .int8_ops = 2 * 8 * ACCS,
};

/* --- timing ------------------------------------------------------------- */

/* A millisecond or two each. A round of tile products takes 64 cycles. Every thread's work is cut
 * into parts, and who is done with his own takes others': what counts is what the machine does, not
 * its slowest thread, whose CPU may be another program's for a while. */
#define LEAST ((size_t)256 << 20) /* bytes to read, if there is memory for them */

/* Seconds in which who measures only once begins another run: what a shared machine leaves varies
 * by the tenth of a second. */
#define ONCE 0.5

enum { RUNS = 6, PARTS = 8, ROUNDS = 400000 / PARTS, TILE_ROUNDS = 50000 / PARTS };

typedef enum job_kind {
    JOB_FILL,
    JOB_READ,
    JOB_FMA,
    JOB_INT8,
    JOB_TILE_INT8,
    JOB_TILE_BF16
} job_kind;

struct ts_prober {
    const ts_probe_loops *loops;
    const ts_probe_tiles *tiles; /* NULL: there are none */
    ts_pool *pool;
    char *buf;
    size_t bytes;         /* of the mapping                                          */
    size_t stride, slice; /* from one thread's part to the next; what is read of one */
    size_t filled;        /* of a part, while it is filled                           */
    job_kind what;
    atomic_int *taken;        /* [threads] parts of each that someone has taken */
    atomic_int_fast64_t sink; /* results go here, so that they are made         */
};

/* One part of what is thread t's. */
static int64_t part(const ts_prober *j, int t, int i)
{
    const char *mine = j->buf + (size_t)t * j->stride;
    size_t from = j->slice / PARTS / 4096 * 4096 * (size_t)i;
    size_t to = i == PARTS - 1 ? j->slice : from + j->slice / PARTS / 4096 * 4096;

    switch (j->what) {
    case JOB_READ:
        return (int64_t)j->loops->read(mine + from, to - from);
    case JOB_FMA:
        return (int64_t)j->loops->fma(ROUNDS);
    case JOB_INT8:
        return j->loops->int8(ROUNDS);
    case JOB_TILE_INT8:
        return j->tiles->int8(TILE_ROUNDS);
    case JOB_TILE_BF16:
        return (int64_t)j->tiles->bf16(TILE_ROUNDS);
    case JOB_FILL:
        break;
    }
    return 0;
}

static void job(void *arg, int tid, int n_threads)
{
    ts_prober *j = arg;
    int64_t v = 0;

    if (j->what == JOB_FILL) {
        /* by its reader, for the sake of NUMA; not zeros, which the kernel may share */
        memset(j->buf + (size_t)tid * j->stride + j->filled, 0x55, j->slice);
        return;
    }
    for (int t = 0; t < n_threads; t++) {
        int whose = (tid + t) % n_threads, i;
        while ((i = atomic_fetch_add_explicit(&j->taken[whose], 1, memory_order_relaxed)) < PARTS)
            v += part(j, whose, i);
    }
    atomic_fetch_add_explicit(&j->sink, v, memory_order_relaxed);
}

/* Operations a second in the fastest of several runs of n operations a thread. */
static double best_rate(ts_prober *p, job_kind what, double n)
{
    double best = 1e9;

    p->what = what;
    for (int i = 0; i < RUNS; i++) {
        for (int t = 0; t < ts_pool_size(p->pool); t++)
            atomic_store_explicit(&p->taken[t], 0, memory_order_relaxed);
        double start = ts_now();
        ts_pool_run(p->pool, job, p);
        double t = ts_now() - start;
        if (t < best)
            best = t;
    }
    return n * ts_pool_size(p->pool) / (best > 1e-9 ? best : 1e-9);
}

static void keep(double *best, double rate)
{
    if (rate > *best)
        *best = rate;
}

void ts_prober_run(ts_prober *p, ts_probe *best)
{
    keep(&best->read, best_rate(p, JOB_READ, (double)p->slice));
    keep(&best->fma, best_rate(p, JOB_FMA, PARTS * ROUNDS * p->loops->fma_ops));
    keep(&best->int8, best_rate(p, JOB_INT8, PARTS * ROUNDS * p->loops->int8_ops));
    if (!p->tiles)
        return;
    keep(&best->tile_int8, best_rate(p, JOB_TILE_INT8, PARTS * TILE_ROUNDS * p->tiles->int8_ops));
    keep(&best->tile_bf16, best_rate(p, JOB_TILE_BF16, PARTS * TILE_ROUNDS * p->tiles->bf16_ops));
}

/* The parts grow a sixteenth at a time. Where the system is slow to give memory (a virtual machine
 * that grows), they stay at what a second brings, if that is LEAST or more together. */
static void fill(ts_prober *p)
{
    size_t piece = p->stride / 16 / 4096 * 4096, least = LEAST / (size_t)ts_pool_size(p->pool);
    double start = ts_now();

    if (!piece)
        piece = p->stride;
    p->what = JOB_FILL;
    while (p->filled < p->stride && (p->filled < least || ts_now() - start < 1)) {
        p->slice = piece < p->stride - p->filled ? piece : p->stride - p->filled;
        ts_pool_run(p->pool, job, p);
        p->filled += p->slice;
    }
    p->slice = p->filled;
}

/* Together at least 256 MiB and four times the last-level cache, at most 1 GiB and a quarter of
 * free memory. */
static size_t buffer_bytes(void)
{
    size_t n = LEAST, most = (size_t)1 << 30, l3 = ts_cpu_get()->l3;
    uint64_t available = ts_mem_available();

    if (l3 > n / 4)
        n = 4 * l3;
    if (available && most > available / 4)
        most = (size_t)(available / 4);
    return n < most ? n : most;
}

static void choose_loops(ts_prober *p, ts_isa isa)
{
    const ts_cpu *c = ts_cpu_get();
    if (isa == TS_ISA_AUTO)
        isa = TS_ISA_AMX;
    p->tiles = isa == TS_ISA_AMX && c->amx ? &ts_probe_amx : NULL;
    p->loops = isa >= TS_ISA_AVX512 && c->avx512 ? &ts_probe_avx512
               : isa >= TS_ISA_AVX2 && c->avx2   ? &ts_probe_avx2
                                                 : &ts_probe_sse2;
}

ts_status ts_prober_open(ts_prober **out, int n_threads, ts_isa isa, ts_error *err)
{
    ts_prober *p = ts_calloc(1, sizeof *p);

    if (!p)
        return ts_fail(err, TS_NO_MEMORY, "no memory to measure this machine");
    choose_loops(p, isa);
    ts_status st = ts_pool_open(&p->pool, n_threads, err);
    if (st) {
        ts_prober_close(p);
        return st;
    }
    p->taken = ts_calloc((size_t)n_threads, sizeof *p->taken);
    if (!p->taken) {
        ts_prober_close(p);
        return ts_fail(err, TS_NO_MEMORY, "no memory to measure this machine");
    }
    p->stride = buffer_bytes() / (size_t)n_threads / 4096 * 4096;
    /* The loops prefetch a page ahead of what they read: those addresses lie in the mapping too. */
    p->bytes = p->stride * (size_t)n_threads + 8192;
    p->buf = p->stride ? ts_map(p->bytes) : NULL;
    if (!p->buf) {
        st = ts_fail(err, TS_NO_MEMORY, "no memory (%zu bytes) to measure its bandwidth", p->bytes);
        ts_prober_close(p);
        return st;
    }
    fill(p);
    *out = p;
    return TS_OK;
}

void ts_prober_close(ts_prober *p)
{
    if (!p)
        return;
    if (p->buf)
        ts_unmap(p->buf, p->bytes);
    ts_pool_close(p->pool);
    free(p->taken);
    free(p);
}

ts_status ts_probe_run(int n_threads, ts_isa isa, ts_probe *out, ts_error *err)
{
    ts_prober *p;
    ts_status st = ts_prober_open(&p, n_threads, isa, err);

    if (st)
        return st;
    *out = (ts_probe){0};
    const double start = ts_now();
    do
        ts_prober_run(p, out);
    while (ts_now() - start < ONCE);
    ts_prober_close(p);
    return TS_OK;
}

/* probe.c - what this machine can do at best: memory read bandwidth, float and int8 peak. */
#include "base/probe.h"

#include <emmintrin.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

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

enum { RUNS = 6, ROUNDS = 400000 };

typedef struct probe_job {
    const ts_probe_loops *loops;
    char *buf;
    size_t slice; /* bytes of each thread */
    enum { JOB_FILL, JOB_READ, JOB_FMA, JOB_INT8 } what;
    atomic_int_fast64_t sink; /* results go here, so that they are made */
} probe_job;

static void job(void *arg, int tid, int n_threads)
{
    probe_job *j = arg;
    char *mine = j->buf + (size_t)tid * j->slice;
    int64_t v = 0;

    (void)n_threads;
    switch (j->what) {
    case JOB_FILL: /* by its reader, for the sake of NUMA; not zeros, which the kernel may share */
        memset(mine, 0x55, j->slice);
        break;
    case JOB_READ:
        v = (int64_t)j->loops->read(mine, j->slice);
        break;
    case JOB_FMA:
        v = (int64_t)j->loops->fma(ROUNDS);
        break;
    case JOB_INT8:
        v = j->loops->int8(ROUNDS);
        break;
    }
    atomic_fetch_add_explicit(&j->sink, v, memory_order_relaxed);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of the fastest run. */
static double best_time(ts_pool *p, probe_job *j, int what)
{
    double best = 0;

    j->what = what;
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        ts_pool_run(p, job, j);
        double t = now() - start;
        if (i == 0 || t < best)
            best = t;
    }
    return best > 1e-9 ? best : 1e-9;
}

/* Together at least 256 MiB and four times the last-level cache, at most 1 GiB and a quarter of
 * free memory. */
static size_t buffer_bytes(void)
{
    size_t n = (size_t)256 << 20, most = (size_t)1 << 30, l3 = ts_cpu_get()->l3;
    uint64_t available = ts_mem_available();

    if (l3 > n / 4)
        n = 4 * l3;
    if (available && most > available / 4)
        most = (size_t)(available / 4);
    return n < most ? n : most;
}

ts_status ts_probe_run(int n_threads, ts_probe *out, ts_error *err)
{
    probe_job j = {.loops = ts_cpu_get()->avx2 ? &ts_probe_avx2 : &ts_probe_sse2};
    ts_pool *pool;
    ts_status st = ts_pool_open(&pool, n_threads, err);

    if (st)
        return st;
    j.slice = buffer_bytes() / (size_t)n_threads / 4096 * 4096;
    /* The loops prefetch a page ahead of what they read: those addresses lie in the mapping too. */
    size_t bytes = j.slice * (size_t)n_threads + 8192;
    j.buf = j.slice ? ts_map(bytes) : NULL;
    if (!j.buf) {
        ts_pool_close(pool);
        return ts_fail(err, TS_NO_MEMORY, "no memory (%zu bytes) to measure its bandwidth", bytes);
    }
    j.what = JOB_FILL;
    ts_pool_run(pool, job, &j);
    double n = n_threads;
    out->read = n * (double)j.slice / best_time(pool, &j, JOB_READ);
    out->fma = n * ROUNDS * j.loops->fma_ops / best_time(pool, &j, JOB_FMA);
    out->int8 = n * ROUNDS * j.loops->int8_ops / best_time(pool, &j, JOB_INT8);
    ts_unmap(j.buf, bytes);
    ts_pool_close(pool);
    return TS_OK;
}

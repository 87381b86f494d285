/* bench/attention.c - attention on one thread: GFLOP/s of prefill, GB/s of decode, and what share
 * they are of this core's FMA peak and read bandwidth, measured in turn with them.
 *
 *     bench_attention [rounds]
 *
 * Prefill computes the last 512 tokens of a context, 16 a task, for one KV head. Decode computes
 * one token; the K and V of as many heads as fill twice the last cache are visited in turn, as the
 * layers of a model are. Figures are medians over the rounds. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "cpu/ops.h"

enum { UBATCH = 512, MAX_ROUNDS = 99 };

typedef struct shape {
    const char *like; /* a model with these heads */
    int64_t head_dim, n_group;
} shape;

static const shape shapes[] = {
    {"SmolLM2 135M", 64, 3},
    {"Llama 2 7B", 128, 1},
    {"Llama 3 8B", 128, 4},
    {"Gemma 3 270M", 256, 4},
};
static const int64_t contexts[] = {512, 4096, 16384};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_CTX = sizeof contexts / sizeof *contexts };

/* The thread's own time: what others do on this machine shows as little as can be. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static volatile float sink;

/* Twelve chains of FMAs in registers. */
__attribute__((target("avx2,fma"))) static double fma_peak(void)
{
    const int64_t n = 2000000;
    __m256 c[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
    for (int i = 0; i < 12; i++)
        c[i] = _mm256_set1_ps((float)i);
    double t = now();
    for (int64_t k = 0; k < n; k++)
        for (int i = 0; i < 12; i++)
            c[i] = _mm256_fmadd_ps(c[i], x, y);
    t = now() - t;
    for (int i = 1; i < 12; i++)
        c[0] = _mm256_add_ps(c[0], c[i]);
    sink = _mm256_cvtss_f32(c[0]);
    return (double)n * 12 * 16 / t;
}

__attribute__((target("avx2"))) static double read_bandwidth(const void *p, size_t n)
{
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    double t = now();
    for (size_t i = 0; i + 128 <= n; i += 128)
        for (size_t j = 0; j < 4; j++)
            s[j] = _mm256_xor_si256(
                s[j], _mm256_loadu_si256((const __m256i *)((const char *)p + i + 32 * j)));
    t = now() - t;
    s[0] = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    sink = (float)_mm256_extract_epi32(s[0], 0);
    return (double)n / t;
}

typedef struct bench {
    const ts_ops *ops;
    uint16_t *kv; /* F16 pool that K and V of every head are cut from */
    size_t kv_bytes;
    float *q, *o;
    void *scratch;
} bench;

static ts_attend task(const bench *b, const shape *s, const uint16_t *k, int64_t n_ctx)
{
    return (ts_attend){
        .q = b->q,
        .o = b->o,
        .k = k,
        .v = k + n_ctx * s->head_dim,
        .ldq = s->n_group * s->head_dim,
        .ldo = s->n_group * s->head_dim,
        .n_group = s->n_group,
        .head_dim = s->head_dim,
        .k1 = n_ctx,
        .scale = 0.1f,
        .scratch = b->scratch,
    };
}

/* FLOP/s: 2 for a multiply-add, two products over the positions that are really visible. */
static double prefill(const bench *b, const shape *s, int64_t n_ctx)
{
    ts_attend p = task(b, s, b->kv, n_ctx);
    double flops = 0, t = now();
    for (int64_t m = 0; m < UBATCH; m += 16) {
        p.n_tokens = 16;
        p.pos0 = n_ctx - UBATCH + m;
        b->ops->attend(&p);
        for (int64_t i = 0; i < 16; i++)
            flops += 4.0 * (double)(s->head_dim * s->n_group * (p.pos0 + i + 1));
    }
    return flops / (now() - t);
}

/* Bytes of K and V a second. */
static double decode(const bench *b, const shape *s, int64_t n_ctx)
{
    size_t head = (size_t)(2 * n_ctx * s->head_dim);
    size_t n = b->kv_bytes / (head * sizeof(uint16_t));
    double t = now();
    for (size_t i = 0; i < n; i++) {
        ts_attend p = task(b, s, b->kv + i * head, n_ctx);
        p.n_tokens = 1;
        p.pos0 = n_ctx - 1;
        b->ops->attend(&p);
    }
    return (double)(n * head * sizeof(uint16_t)) / (now() - t);
}

static bool set_up(bench *b)
{
    size_t l3 = ts_cpu_get()->l3 ? ts_cpu_get()->l3 : (size_t)32 << 20;
    b->kv_bytes = 2 * l3 > ((size_t)64 << 20) ? 2 * l3 : (size_t)64 << 20;
    b->kv = ts_map(b->kv_bytes);
    size_t rows = 0, scratch = 0;
    for (int i = 0; i < N_SHAPES; i++) {
        const shape *s = &shapes[i];
        size_t r = (size_t)(16 * s->n_group * s->head_dim);
        size_t c = b->ops->attend_scratch(s->n_group, s->head_dim);
        rows = r > rows ? r : rows;
        scratch = c > scratch ? c : scratch;
    }
    b->q = ts_map(rows * sizeof(float));
    b->o = ts_map(rows * sizeof(float));
    b->scratch = ts_map(scratch);
    if (!b->kv || !b->q || !b->o || !b->scratch)
        return false;
    uint32_t x = 1;
    for (size_t i = 0; i < b->kv_bytes / 2; i++) {
        x = x * 1664525u + 1013904223u;
        b->kv[i] = (uint16_t)((x >> 16 & 0x83ff) | 0x3800); /* +-0.5 .. 1 */
    }
    for (size_t i = 0; i < rows; i++)
        b->q[i] = (float)(i % 17) / 17 - 0.5f;
    return true;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    if (rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_attention: rounds must be 1 to %d, not '%s'\n", MAX_ROUNDS, argv[1]);
        return 1;
    }
    bench b = {0};
    if (!ts_cpu_get()->avx2 || !set_up(&b)) {
        fprintf(stderr, "bench_attention: needs AVX2 and 200 MB of memory\n");
        return 1;
    }
    b.ops = ts_ops_get(TS_ISA_AVX2);

    static double rate[2][N_SHAPES][N_CTX][MAX_ROUNDS], share[2][N_SHAPES][N_CTX][MAX_ROUNDS];
    static double peak[MAX_ROUNDS], bw[MAX_ROUNDS];
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int c = 0; c < N_CTX; c++) {
                peak[r] = fma_peak();
                rate[0][i][c][r] = prefill(&b, &shapes[i], contexts[c]);
                share[0][i][c][r] = rate[0][i][c][r] / peak[r];
                bw[r] = read_bandwidth(b.kv, b.kv_bytes);
                rate[1][i][c][r] = decode(&b, &shapes[i], contexts[c]);
                share[1][i][c][r] = rate[1][i][c][r] / bw[r];
            }

    printf("%s, 1 thread: FMA peak %.1f GFLOP/s, read bandwidth %.1f GB/s\n\n", ts_cpu_get()->brand,
           median(peak, rounds) / 1e9, median(bw, rounds) / 1e9);
    printf("| heads as in | head_dim | group | context | prefill GFLOP/s | of peak | decode GB/s | "
           "of read bandwidth |\n|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < N_SHAPES; i++)
        for (int c = 0; c < N_CTX; c++)
            printf("| %s | %d | %d | %d | %.1f | %.0f %% | %.1f | %.0f %% |\n", shapes[i].like,
                   (int)shapes[i].head_dim, (int)shapes[i].n_group, (int)contexts[c],
                   median(rate[0][i][c], rounds) / 1e9, 100 * median(share[0][i][c], rounds),
                   median(rate[1][i][c], rounds) / 1e9, 100 * median(share[1][i][c], rounds));
    return 0;
}

/* bench/attention.c - attention on one thread: GFLOP/s of prefill, GB/s of decode, and what share
 * they are of this core's peak and read bandwidth, measured in turn with them. One line for each
 * ISA this machine has; the peak is that of its FMA, or of TDPBF16PS.
 *
 *     bench_attention [rounds [isa]]
 *
 * Prefill computes the last 512 tokens of a context for one KV head, in tasks as large as the
 * engine's. Decode computes one token; the K and V of as many heads as fill twice the last cache
 * are visited in turn, as the layers of a model are. Figures are medians over the rounds. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "cpu/ops.h"
#include "cpu/tiles.h"

enum { UBATCH = 512, MAX_ROUNDS = 99 };

typedef struct shape {
    const char *like; /* a model with these heads */
    int64_t head_dim, v_dim, n_group;
} shape;

/* Of DeepSeek's 128 heads, those of one task. */
static const shape shapes[] = {
    {"SmolLM2 135M", 64, 64, 3},   {"Llama 2 7B", 128, 128, 1},   {"Llama 3 8B", 128, 128, 4},
    {"Gemma 3 270M", 256, 256, 4}, {"DeepSeek V3", 576, 512, 16},
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
#define FMA_PEAK(name, isa, vector, lanes, set1, fmadd, first)                                     \
    __attribute__((target(isa))) static double name(void)                                          \
    {                                                                                              \
        const int64_t n = 2000000;                                                                 \
        vector c[12], x = set1(0.999f), y = set1(0.001f);                                          \
        for (int i = 0; i < 12; i++)                                                               \
            c[i] = set1((float)i);                                                                 \
        double t = now();                                                                          \
        for (int64_t k = 0; k < n; k++)                                                            \
            for (int i = 0; i < 12; i++)                                                           \
                c[i] = fmadd(c[i], x, y);                                                          \
        t = now() - t;                                                                             \
        for (int i = 1; i < 12; i++)                                                               \
            c[0] = fmadd(c[i], x, c[0]);                                                           \
        sink = first(c[0]);                                                                        \
        return (double)n * 12 * 2 * lanes / t;                                                     \
    }
FMA_PEAK(peak_avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_cvtss_f32)
FMA_PEAK(peak_avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_cvtss_f32)

/* Four products on operands in tiles. */
__attribute__((target("amx-tile,amx-bf16"))) static double peak_amx(void)
{
    const int64_t n = 300000;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    double t = now();
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    return (double)n * 4 * 2 * 16 * 16 * 32 / (now() - t);
}

static double peak_of(ts_isa isa)
{
    return isa == TS_ISA_AMX ? peak_amx() : isa == TS_ISA_AVX512 ? peak_avx512() : peak_avx2();
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
    uint8_t *kv; /* the pool that K and V of every head are cut from */
    size_t kv_bytes;
    float *q, *o;
    void *scratch;
} bench;

static ts_attend task(const bench *b, const shape *s, const uint8_t *k, int64_t n_ctx)
{
    return (ts_attend){
        .q = b->q,
        .o = b->o,
        .k = k,
        .v = k + b->ops->kv->bytes(n_ctx, s->head_dim),
        .ldq = s->n_group * s->head_dim,
        .ldo = s->n_group * s->v_dim,
        .n_group = s->n_group,
        .head_dim = s->head_dim,
        .v_dim = s->v_dim,
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
    int64_t most = ts_attend_tokens(b->ops, s->n_group);
    for (int64_t m = 0; m < UBATCH; m += most) {
        p.n_tokens = UBATCH - m < most ? UBATCH - m : most;
        p.pos0 = n_ctx - UBATCH + m;
        b->ops->attend(&p);
        for (int64_t i = 0; i < p.n_tokens; i++)
            flops += 2.0 * (double)((s->head_dim + s->v_dim) * s->n_group * (p.pos0 + i + 1));
    }
    return flops / (now() - t);
}

/* Bytes of K and V a second. */
static double decode(const bench *b, const shape *s, int64_t n_ctx)
{
    const ts_kv_layout *kv = b->ops->kv;
    size_t head = kv->bytes(n_ctx, s->head_dim) + kv->bytes(n_ctx, s->v_dim);
    size_t n = b->kv_bytes / head;
    double t = now();
    for (size_t i = 0; i < n; i++) {
        ts_attend p = task(b, s, b->kv + i * head, n_ctx);
        p.n_tokens = 1;
        p.pos0 = n_ctx - 1;
        b->ops->attend(&p);
    }
    return (double)(n * head) / (now() - t);
}

static bool set_up(bench *b)
{
    size_t l3 = ts_cpu_get()->l3 ? ts_cpu_get()->l3 : (size_t)32 << 20;
    b->kv_bytes = 2 * l3 > ((size_t)64 << 20) ? 2 * l3 : (size_t)64 << 20;
    b->kv = ts_map(b->kv_bytes);
    size_t rows = 0, scratch = 0;
    for (ts_isa isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++)
        for (int i = 0; i < N_SHAPES; i++) {
            const shape *s = &shapes[i];
            const ts_ops *ops = ts_ops_get(isa);
            size_t r = (size_t)(ts_attend_tokens(ops, s->n_group) * s->n_group * s->head_dim);
            size_t c = ops->attend_scratch(s->n_group, s->head_dim, s->v_dim);
            rows = r > rows ? r : rows;
            scratch = c > scratch ? c : scratch;
        }
    b->q = ts_map(rows * sizeof(float));
    b->o = ts_map(rows * sizeof(float));
    b->scratch = ts_map(scratch);
    if (!b->kv || !b->q || !b->o || !b->scratch)
        return false;
    uint32_t x = 1;
    for (size_t i = 0; i < b->kv_bytes; i += 2) {
        x = x * 1664525u + 1013904223u;
        /* +-0.5 .. 1 in F16; small, but finite and no denormals in BF16 */
        uint16_t h = (uint16_t)((x >> 16 & 0x83ff) | 0x3800);
        memcpy(b->kv + i, &h, 2);
    }
    for (size_t i = 0; i < rows; i++)
        b->q[i] = (float)(i % 17) / 17 - 0.5f;
    return true;
}

typedef struct figures {
    double prefill[MAX_ROUNDS], of_peak[MAX_ROUNDS], decode[MAX_ROUNDS], of_read[MAX_ROUNDS];
} figures;

static void measure(const bench *b, const shape *s, int64_t n_ctx, int r, figures *f, double *peak,
                    double *bw)
{
    bool tiles = b->ops->isa == TS_ISA_AMX;
    if (tiles)
        ts_tiles_begin();
    peak[r] = peak_of(b->ops->isa);
    f->prefill[r] = prefill(b, s, n_ctx);
    f->of_peak[r] = f->prefill[r] / peak[r];
    bw[r] = read_bandwidth(b->kv, b->kv_bytes);
    f->decode[r] = decode(b, s, n_ctx);
    f->of_read[r] = f->decode[r] / bw[r];
    if (tiles)
        ts_tiles_end();
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    ts_isa only = TS_ISA_AUTO;
    if (rounds < 1 || rounds > MAX_ROUNDS || (argc > 2 && !ts_isa_parse(argv[2], &only))) {
        fprintf(stderr, "usage: bench_attention [rounds, 1 to %d [isa]]\n", MAX_ROUNDS);
        return 1;
    }
    bench b = {0};
    if (!ts_cpu_get()->avx2 || !set_up(&b)) {
        fprintf(stderr, "bench_attention: needs AVX2 and 200 MB of memory\n");
        return 1;
    }
    static double peak[TS_ISA_AMX + 1][MAX_ROUNDS], bw[MAX_ROUNDS];
    static figures f[TS_ISA_AMX + 1][N_SHAPES][N_CTX];
    bool has[TS_ISA_AMX + 1] = {false};
    for (ts_isa isa = TS_ISA_AVX2; isa <= TS_ISA_AMX; isa++) {
        const char *why;
        has[isa] = (only == TS_ISA_AUTO || only == isa) && ts_ops_get(isa)->isa == isa &&
                   ts_isa_usable(ts_cpu_get(), isa, &why);
    }
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int c = 0; c < N_CTX; c++)
                for (ts_isa isa = TS_ISA_AVX2; isa <= TS_ISA_AMX; isa++)
                    if (has[isa]) {
                        b.ops = ts_ops_get(isa);
                        measure(&b, &shapes[i], contexts[c], r, &f[isa][i][c], peak[isa], bw);
                    }

    printf("%s, 1 thread: read bandwidth %.1f GB/s", ts_cpu_get()->brand, median(bw, rounds) / 1e9);
    for (ts_isa isa = TS_ISA_AVX2; isa <= TS_ISA_AMX; isa++)
        if (has[isa])
            printf(", %s peak %.1f GFLOP/s", ts_isa_name(isa), median(peak[isa], rounds) / 1e9);
    printf("\n\n");
    printf("| heads as in | head_dim | group | context | ISA | prefill GFLOP/s | of peak | decode "
           "GB/s | of read bandwidth |\n|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < N_SHAPES; i++)
        for (int c = 0; c < N_CTX; c++)
            for (ts_isa isa = TS_ISA_AVX2; isa <= TS_ISA_AMX; isa++) {
                figures *g = &f[isa][i][c];
                if (has[isa])
                    printf("| %s | %d | %d | %d | %s | %.1f | %.0f %% | %.1f | %.0f %% |\n",
                           shapes[i].like, (int)shapes[i].head_dim, (int)shapes[i].n_group,
                           (int)contexts[c], ts_isa_name(isa), median(g->prefill, rounds) / 1e9,
                           100 * median(g->of_peak, rounds), median(g->decode, rounds) / 1e9,
                           100 * median(g->of_read, rounds));
            }
    return 0;
}

/* bench/cuda_quant.cpp - how fast a GPU runs the products for decode and what surrounds them.
 *
 *     bench_cuda_quant [TYPE...]
 *
 * For every type and shape, in a captured graph as decode runs it, over as many matrices as no
 * cache holds: microseconds of one product and the gigabytes a second of weights it read, for m =
 * 1, 2, 4 and 8 tokens; then dequantising (weights read and halves written); and for a shape of
 * each layout that a CPU's kernel sets have, unpacking (read and written). Weights are bytes that
 * make finite numbers; nothing is checked here. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cuda_time.h"
#include "cuda/quant.h"
#include "cuda/standin.h"
#include "cuda/unpack.h"

extern "C" {
#include "base/cpu.h"
#include "cpu/kset.h"
}

static const size_t arena = (size_t)1 << 30;

struct device {
    uint8_t *w;   /* [arena]  */
    uint8_t *act; /* activations of 8 tokens, in both formats */
    float *y, *x;
    uint8_t *halves;
};

static void bench_type(const device &d, ts_type type, int64_t n, int64_t k)
{
    const ts_type_info *info = ts_type_get(type);
    size_t bytes = (size_t)n * (size_t)(k / info->block) * (size_t)info->bytes;
    size_t step = (bytes + 255) / 256 * 256;
    int count = (int)(arena / step) < 100 ? (int)(arena / step) : 100;
    printf("%-7s %6lld x %-6lld", info->name, (long long)n, (long long)k);
    for (int join = 0; join < 2; join++)
        for (int m = 1; m <= 8; m *= 2) {
            if (join && m > 1)
                break;
            double us = time_graph(count / (1 + join), [&](int i, cudaStream_t stream) {
                ts_cuda_mul p = {};
                p.type = type;
                p.join = join ? TS_CUDA_SILU : TS_CUDA_ONE;
                p.w = d.w + (size_t)(i * (1 + join)) * step;
                p.v = join ? (const uint8_t *)p.w + step : NULL;
                p.x = info->act == TS_ACT_F32 ? (const void *)d.x : d.act;
                p.ldx = k;
                p.y = d.y;
                p.ldy = p.n = n;
                p.m = m;
                p.k = k;
                must(ts_cuda_mul_run(&p, 1, stream));
            });
            printf(" | %s%d %6.1f us %5.0f", join ? "join " : "", m, us,
                   (double)bytes * (1 + join) / us * 1e-3);
        }
    double us = time_graph(count < 20 ? count : 20, [&](int i, cudaStream_t stream) {
        must(ts_cuda_dequant(d.halves, true, type, d.w + (size_t)i * step, 0, n, k, stream));
    });
    printf(" | dequant %6.1f us %5.0f GB/s\n", us,
           ((double)bytes + 2 * (double)n * (double)k) / us * 1e-3);
}

/* Each layout once: the sets that share it share its description. */
static void bench_unpack(const device &d, ts_type type)
{
    const int64_t n = 14336, k = 4096;
    const ts_packing *done = NULL;
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *s = ts_kset_at(i);
        if (s->type != type || !s->packing || s->packing == done)
            continue;
        done = s->packing;
        const size_t bytes = s->packed_bytes(n, k), step = (bytes + 255) / 256 * 256;
        const int count = (int)(arena / 2 / step) < 20 ? (int)(arena / 2 / step) : 20;
        double us = time_graph(count, [&](int j, cudaStream_t stream) {
            must(ts_cuda_unpack(d.w + arena / 2 + (size_t)j * step, d.w + (size_t)j * step,
                                s->packing, n, k, 0, n, stream));
        });
        printf("%-7s %6lld x %-6lld | unpack %s, %s %6.1f us %5.0f GB/s\n", ts_type_get(type)->name,
               (long long)n, (long long)k, s->layout, ts_isa_name(s->isa), us,
               2 * (double)bytes / us * 1e-3);
    }
}

int main(int argc, char **argv)
{
    static const int64_t shapes[][2] = {{1024, 4096}, {4096, 4096}, {14336, 4096}, {4096, 14336}};
    device d;
    must(cudaMalloc(&d.w, arena + 4096));
    must(cudaMemset(d.w, 0x29, arena));
    must(cudaMalloc(&d.act, ts_cuda_act_bytes(8, 16384)));
    must(cudaMalloc(&d.x, 8 * 16384 * sizeof(float)));
    must(cudaMemset(d.x, 0, 8 * 16384 * sizeof(float)));
    must(cudaMalloc(&d.y, 8 * 16384 * sizeof(float)));
    must(cudaMalloc(&d.halves, (size_t)14336 * 4096 * 2));
    for (int64_t k : {4096, 14336}) {
        double plain = time_graph(100, [&](int, cudaStream_t stream) {
            must(ts_cuda_prep(d.act, d.x, k, NULL, 0, 1, k, stream));
        });
        double norm = time_graph(100, [&](int, cudaStream_t stream) {
            must(ts_cuda_prep(d.act, d.x, k, d.x, 1e-5f, 1, k, stream));
        });
        printf("activations, k = %lld: %.1f us, with a norm %.1f us\n", (long long)k, plain, norm);
    }
    for (int type = 0; type < TS_TYPE_COUNT; type++) {
        const ts_type_info *info = ts_type_get((uint32_t)type);
        bool wanted = argc == 1;
        for (int i = 1; i < argc && info; i++)
            wanted = wanted || strcasecmp(argv[i], info->name) == 0;
        for (size_t i = 0; info && wanted && i < sizeof shapes / sizeof *shapes; i++)
            bench_type(d, (ts_type)type, shapes[i][0], shapes[i][1]);
        if (info && wanted)
            bench_unpack(d, (ts_type)type);
    }
    return 0;
}

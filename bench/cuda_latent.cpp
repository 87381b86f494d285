/* How fast latent attention of src/cuda is on this GPU, in DeepSeek-V3's shapes: decode as the rate
 * at which latents are read, once for all heads, and as arithmetic; prefill as arithmetic; few
 * tokens' products by a matrix for each head as the rate at which weights are read. Shares are of
 * what the GPU's clocks and widths give. Caches and weights gone through are larger than the GPU's
 * own cache.
 *
 *     nvcc -std=c++17 -O3 -arch=native -Isrc -Iinclude -x cu bench/cuda_latent.cpp \
 *         src/cuda/latent.cu src/cuda/latent_attend.cu -o bench_cuda_latent */
#include <stdio.h>
#include <stdlib.h>

#include <functional>
#include <initializer_list>

#include "cuda/latent.h"
#include "cuda/standin.h"

extern "C" {
#include "gguf/type.h"
}

enum { HEADS = 128, C = 512, ROT = 64, DIM = C + ROT, NOPE = 128 };

static void must(int e)
{
    if (!e)
        return;
    fprintf(stderr, "%s\n", cudaGetErrorString((cudaError_t)e));
    exit(1);
}

static void *device(size_t bytes)
{
    void *p;
    must(cudaMalloc(&p, bytes));
    must(cudaMemset(p, 0, bytes)); /* zeros: every position weighs the same */
    return p;
}

static double attribute(cudaDeviceAttr a)
{
    int v = 0;
    must(cudaDeviceGetAttribute(&v, a, 0));
    return v;
}

/* Bytes a second of its memory; operations a second of mma with halves. */
static double peak_read, peak_flops;

static void look(void)
{
    const double major = attribute(cudaDevAttrComputeCapabilityMajor);
    const double minor = attribute(cudaDevAttrComputeCapabilityMinor);
    const double cycle = major == 8 ? (minor == 0 ? 2048 : 512) : major == 12 ? 512 : 4096;
    peak_read = 2e3 * attribute(cudaDevAttrMemoryClockRate) *
                attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
    peak_flops =
        1e3 * attribute(cudaDevAttrClockRate) * attribute(cudaDevAttrMultiProcessorCount) * cycle;
}

/* Microseconds of one of `times` launches, which are a graph. */
static double time_of(int times, const std::function<int(int, cudaStream_t)> &launch)
{
    enum { REPEATS = 20 };
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    float ms;
    must(cudaStreamCreate(&stream));
    must(cudaEventCreate(&begin));
    must(cudaEventCreate(&end));
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < times; i++)
        must(launch(i, stream));
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = -1; i < REPEATS; i++) {
        if (i == 0)
            must(cudaEventRecord(begin, stream));
        must(cudaGraphLaunch(exec, stream));
    }
    must(cudaEventRecord(end, stream));
    must(cudaEventSynchronize(end));
    must(cudaEventElapsedTime(&ms, begin, end));
    must(cudaGraphExecDestroy(exec));
    must(cudaGraphDestroy(graph));
    must(cudaEventDestroy(begin));
    must(cudaEventDestroy(end));
    must(cudaStreamDestroy(stream));
    return 1e3 * ms / REPEATS / times;
}

static ts_cuda_batch *batch_of(int64_t m, int64_t pos0)
{
    const ts_cuda_batch b = {(int32_t)m, 1, (int32_t)pos0, 0};
    ts_cuda_batch *batch = (ts_cuda_batch *)device(sizeof b);
    must(cudaMemcpy(batch, &b, sizeof b, cudaMemcpyHostToDevice));
    return batch;
}

/* m rows that end at position n, of so many heads. */
static void attention(int64_t heads, int64_t m, int64_t n)
{
    const size_t bytes = (size_t)(n * DIM) * sizeof(uint16_t);
    const int layers = (int)((256u << 20) / bytes) + 1;
    ts_cuda_batch *batch = batch_of(m, n - m);
    ts_cuda_latent_attention p = {};
    p.q = ts_cuda_rows{(float *)device((size_t)(m * heads * DIM) * sizeof(float)), heads * DIM};
    p.o = ts_cuda_rows{(float *)device((size_t)(m * heads * C) * sizeof(float)), heads * C};
    p.kv = ts_cuda_latents{(uint16_t *)device(bytes * (size_t)layers), n, DIM, C};
    p.n_head = heads;
    p.scale = 1;
    p.work = device(ts_cuda_latent_bytes(C, 1));
    const double us = time_of(layers, [&](int i, cudaStream_t s) {
        ts_cuda_latent_attention a = p;
        const ts_cuda_on on = {batch, false, m, s, NULL};
        a.kv.x += (int64_t)i * n * DIM;
        return ts_cuda_latent_attend(&on, &a);
    });
    const double seen = (double)m * ((double)n - (double)(m - 1) / 2);
    const double flops = 2 * seen * (double)(heads * (DIM + C));
    printf("  %3d heads m %4d n %6d: %9.1f us, %5.0f GB/s (%3.0f %%), %5.0f TFLOP/s (%3.0f %%)\n",
           (int)heads, (int)m, (int)n, us, (double)bytes / us * 1e-3,
           (double)bytes / us * 1e8 / peak_read, flops / us * 1e-6, flops / us * 1e8 / peak_flops);
    for (void *x : {(void *)batch, (void *)p.q.x, (void *)p.o.x, (void *)p.kv.x, p.work})
        must(cudaFree(x));
}

/* k_b or v_b of a layer times m tokens. */
static void products(const char *name, ts_type type, int64_t n, int64_t k, int64_t rest, int64_t m)
{
    const ts_type_info *t = ts_type_get(type);
    const size_t bytes = (size_t)(HEADS * n * k / t->block) * (size_t)t->bytes;
    const int layers = (int)((256u << 20) / bytes) + 1;
    ts_cuda_batch *batch = batch_of(m, 0);
    uint8_t *w = (uint8_t *)device(bytes * (size_t)layers);
    const int64_t wide = HEADS * (n + k + rest);
    const ts_cuda_rows x = {(float *)device((size_t)(m * wide) * sizeof(float)), wide};
    const ts_cuda_rows y = {(float *)device((size_t)(m * wide) * sizeof(float)), wide};
    const double us = time_of(layers, [&](int i, cudaStream_t s) {
        const ts_cuda_head_mul p = {(uint32_t)type, w + bytes * (size_t)i, x, y, HEADS, n, k,
                                    k + rest};
        const ts_cuda_on on = {batch, false, m, s, NULL};
        return ts_cuda_heads_few(&on, &p);
    });
    printf("  %s %-5s m %d: %7.1f us, %5.0f GB/s (%3.0f %%)\n", name, t->name, (int)m, us,
           (double)bytes / us * 1e-3, (double)bytes / us * 1e8 / peak_read);
    for (void *p : {(void *)batch, (void *)w, (void *)x.x, (void *)y.x})
        must(cudaFree(p));
}

int main(void)
{
    look();
    printf("decode; %.0f GB/s, %.0f TFLOP/s\n", peak_read * 1e-9, peak_flops * 1e-12);
    for (int64_t heads : {128, 16})
        for (int64_t m : {1, 4})
            for (int64_t n : {1024, 8192, 32768})
                attention(heads, m, n);
    printf("prefill\n");
    for (int64_t n : {512, 1024, 8192, 32768})
        attention(HEADS, 512, n);
    printf("products of few tokens\n");
    for (int64_t m : {1, 2, 8}) {
        products("k_b", TS_TYPE_Q8_0, C, NOPE, ROT, m);
        products("k_b", TS_TYPE_Q4_0, C, NOPE, ROT, m);
        products("v_b", TS_TYPE_Q8_0, NOPE, C, 0, m);
        products("v_b", TS_TYPE_Q4_K, NOPE, C, 0, m);
    }
    return 0;
}

/* How fast attention of src/cuda is on this GPU: decode as the rate at which K and V are read,
 * prefill as arithmetic. The caches of the layers gone through are larger than the GPU's own.
 *
 *     nvcc -std=c++17 -O3 -arch=native -Isrc -Iinclude -x cu bench/cuda_attention.cpp \
 *         src/cuda/attend.cu src/cuda/batch.cu -o bench_cuda_attention */
#include <stdio.h>
#include <stdlib.h>

#include <initializer_list>
#include <vector>

#include "cuda/attend.h"
#include "cuda/standin.h"

static void must(int e)
{
    if (!e)
        return;
    fprintf(stderr, "%s\n", cudaGetErrorString((cudaError_t)e));
    exit(1);
}

typedef struct shape {
    const char *name;
    int64_t n_head, n_head_kv, head_dim;
} shape;

static void *device(size_t bytes)
{
    void *p;
    must(cudaMalloc(&p, bytes));
    must(cudaMemset(p, 0, bytes)); /* zeros: every position weighs the same */
    return p;
}

/* Queues attention of one layer after the other into a graph; returns how long it takes to run, in
 * microseconds. p.kv.k is the first layer's K; its V and the next layer follow. */
static double run_layers(const ts_cuda_batch *batch, const ts_cuda_spans *spans, int64_t m,
                         ts_cuda_attention p, int layers, bool decode)
{
    enum { REPEATS = 20 };
    const int64_t elements = p.kv.n_ctx * p.kv.n_head_kv * p.kv.head_dim;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    must(cudaStreamCreate(&stream));
    must(cudaEventCreate(&begin));
    must(cudaEventCreate(&end));
    const ts_cuda_on on = {batch, false, m, stream, spans};
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < layers; i++, p.kv.k += 2 * elements) {
        p.kv.v = p.kv.k + elements;
        must(decode ? ts_cuda_attend_decode(&on, &p) : ts_cuda_attend_prefill(&on, &p));
    }
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = -1; i < REPEATS; i++) {
        if (i == 0)
            must(cudaEventRecord(begin, stream));
        must(cudaGraphLaunch(exec, stream));
    }
    must(cudaEventRecord(end, stream));
    must(cudaEventSynchronize(end));
    float ms;
    must(cudaEventElapsedTime(&ms, begin, end));
    must(cudaGraphExecDestroy(exec));
    must(cudaGraphDestroy(graph));
    must(cudaEventDestroy(begin));
    must(cudaEventDestroy(end));
    must(cudaStreamDestroy(stream));
    return 1e3 * ms / REPEATS;
}

/* Microseconds of one layer's attention of m rows that end at position n. */
static double measure(const shape *s, int64_t m, int64_t n, bool decode)
{
    const int64_t width = s->n_head * s->head_dim;
    const size_t bytes = (size_t)(4 * n * s->n_head_kv * s->head_dim);
    const int layers = (int)((256u << 20) / bytes) + 1;
    const ts_cuda_batch b = {(int32_t)m, 1, (int32_t)(n - m), 0};
    ts_cuda_batch *batch = (ts_cuda_batch *)device(sizeof b);
    must(cudaMemcpy(batch, &b, sizeof b, cudaMemcpyHostToDevice));
    ts_cuda_attention p = {};
    p.q = ts_cuda_rows{(float *)device((size_t)(m * width) * sizeof(float)), width};
    p.o = ts_cuda_rows{(float *)device((size_t)(m * width) * sizeof(float)), width};
    p.kv =
        ts_cuda_kv{(uint16_t *)device(bytes * (size_t)layers), NULL, n, s->n_head_kv, s->head_dim};
    p.n_head = s->n_head;
    p.scale = 1;
    p.work = decode ? device(ts_cuda_attend_bytes(&p.kv, s->n_head, m)) : NULL;
    const double us = run_layers(batch, NULL, m, p, layers, decode) / layers;
    for (void *x : {(void *)batch, (void *)p.q.x, (void *)p.o.x, (void *)p.kv.k, p.work})
        must(cudaFree(x));
    return us;
}

/* The same of one token of each of `spans` timelines, whose pages are scattered over the cache and
 * which end at position n. */
static double measure_spans(const shape *s, int64_t spans, int64_t n)
{
    const int64_t width = s->n_head * s->head_dim, each = (n + TS_CUDA_PAGE - 1) / TS_CUDA_PAGE;
    const int64_t pages = spans * each, n_ctx = pages * TS_CUDA_PAGE;
    const size_t bytes = (size_t)(4 * n_ctx * s->n_head_kv * s->head_dim);
    const int layers = (int)((256u << 20) / bytes) + 1;
    const ts_cuda_room room = {spans, spans, pages, s->n_head / s->n_head_kv};
    const size_t table = ts_cuda_spans_bytes(&room);
    std::vector<int32_t> host(table / sizeof(int32_t)), map((size_t)each), out((size_t)spans);
    ts_cuda_batch *batch = (ts_cuda_batch *)device(table);
    ts_cuda_spans there;
    int64_t stride = 7; /* pages one after the other are so far apart */
    while (pages % stride == 0)
        stride += 2;
    ts_cuda_spans_at(&there, &room, host.data(), batch);
    ts_cuda_spans_begin(&there, spans, out.data(), spans);
    for (int64_t i = 0; i < spans; i++) {
        for (int64_t j = 0; j < each; j++)
            map[(size_t)j] = (int32_t)((i * each + j) * stride % pages);
        ts_cuda_spans_add(&there, i, 1, n - 1, map.data());
    }
    ts_cuda_spans_end(&there);
    must(cudaMemcpy(batch, host.data(), table, cudaMemcpyHostToDevice));
    ts_cuda_attention p = {};
    p.q = ts_cuda_rows{(float *)device((size_t)(spans * width) * sizeof(float)), width};
    p.o = ts_cuda_rows{(float *)device((size_t)(spans * width) * sizeof(float)), width};
    p.kv = ts_cuda_kv{(uint16_t *)device(bytes * (size_t)layers), NULL, n_ctx, s->n_head_kv,
                      s->head_dim};
    p.n_head = s->n_head;
    p.scale = 1;
    p.work = device(ts_cuda_attend_bytes(&p.kv, s->n_head, TS_CUDA_DECODE));
    const double us = run_layers(batch, &there, spans, p, layers, true) / layers;
    for (void *x : {(void *)batch, (void *)p.q.x, (void *)p.o.x, (void *)p.kv.k, p.work})
        must(cudaFree(x));
    return us;
}

int main(void)
{
    static const shape shapes[] = {
        {"Qwen2.5 0.5B", 14, 2, 64}, {"Llama 3 8B", 32, 8, 128}, {"Gemma 3 4B", 8, 4, 256}};
    for (const shape &s : shapes) {
        printf("%s: %d heads over %d of %d\n", s.name, (int)s.n_head, (int)s.n_head_kv,
               (int)s.head_dim);
        for (int64_t m : {1, 4, 16})
            for (int64_t n : {256, 1024, 4096, 32768}) {
                const double us = measure(&s, m, n, true);
                const double bytes = 4.0 * (double)(n * s.n_head_kv * s.head_dim);
                printf("  decode  m %4d n %6d: %8.1f us, %5.0f GB/s\n", (int)m, (int)n, us,
                       bytes / us * 1e-3);
            }
        const double alone = measure(&s, 1, 2000, true);
        const double bytes = 4.0 * (double)(2000 * s.n_head_kv * s.head_dim);
        printf("  decode  m    1 n   2000: %8.1f us, %5.0f GB/s, pages in order\n", alone,
               bytes / alone * 1e-3);
        for (int64_t spans : {1, 4, 16, 32, 64}) {
            const double us = measure_spans(&s, spans, 2000);
            printf("  decode  %2d spans n 2000: %8.1f us, %5.0f GB/s\n", (int)spans, us,
                   (double)spans * bytes / us * 1e-3);
        }
        for (int64_t m : {16, 64, 512, 2048})
            for (int64_t n : {2048, 32768}) {
                const double us = measure(&s, m, n, false);
                const double seen = (double)m * ((double)n - (double)(m - 1) / 2);
                printf("  prefill m %4d n %6d: %8.1f us, %5.0f TFLOP/s\n", (int)m, (int)n, us,
                       4 * seen * (double)(s.n_head * s.head_dim) / us * 1e-6);
            }
    }
    return 0;
}

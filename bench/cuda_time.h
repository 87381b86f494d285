/* cuda_time.h - how long launches take, for the benchmarks of kernels. */
#ifndef TS_BENCH_CUDA_TIME_H
#define TS_BENCH_CUDA_TIME_H

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#include <functional>

static void must(int e)
{
    if (e) {
        fprintf(stderr, "%s\n", cudaGetErrorString((cudaError_t)e));
        exit(1);
    }
}

/* Microseconds of one of n launches: the best of a few runs of them all as a graph. */
static double time_graph(int n, const std::function<void(int, cudaStream_t)> &launch)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    float best = 1e30f;
    must(cudaStreamCreate(&stream));
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n; i++)
        launch(i, stream);
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaEventCreate(&begin));
    must(cudaEventCreate(&end));
    for (int i = 0; i <= 5; i++) {
        float ms;
        must(cudaEventRecord(begin, stream));
        must(cudaGraphLaunch(exec, stream));
        must(cudaEventRecord(end, stream));
        must(cudaEventSynchronize(end));
        must(cudaEventElapsedTime(&ms, begin, end));
        best = i && ms < best ? ms : best;
    }
    must(cudaGraphExecDestroy(exec));
    must(cudaGraphDestroy(graph));
    must(cudaEventDestroy(begin));
    must(cudaEventDestroy(end));
    must(cudaStreamDestroy(stream));
    return 1e3 * best / n;
}

#endif

/* rt_cuda.c - rt.h by the CUDA runtime; cuBLAS is loaded when it is there. */
#include "cuda/rt.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* Errors of cuBLAS stand beside those of CUDA. */
enum { CUBLAS = 100000 };

/* The runtime keeps the error of a call that failed until it is asked for, and the next to ask is
 * whoever launches a kernel, which works: a GPU that is full must not fail one that isn't. */
static int done(cudaError_t e)
{
    if (e != cudaSuccess)
        cudaGetLastError();
    return (int)e;
}

int ts_rt_count(const char **why)
{
    int n = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        *why = "there is no NVIDIA driver (libcuda.so.1)";
        return 0;
    }
    dlclose(driver);
    const int e = done(cudaGetDeviceCount(&n));
    *why = e ? ts_rt_text(e) : "there is no GPU";
    return e ? 0 : n;
}

static double attribute(enum cudaDeviceAttr a, int ordinal)
{
    int v = 0;
    return done(cudaDeviceGetAttribute(&v, a, ordinal)) ? 0 : v;
}

/* BF16 operations of a multiprocessor in a cycle, with sums in float and no sparsity (NVIDIA's
 * architecture papers); of the newest GPUs and those to come, as of Hopper. */
static double cycle_flops(int major, int minor)
{
    if (major < 8)
        return 0;
    if (major == 8)
        return minor == 0 ? 2048 : 512;
    return major == 12 ? 512 : 4096;
}

int ts_rt_get_info(int ordinal, ts_rt_info *info)
{
    struct cudaDeviceProp p;
    int e = done(cudaGetDeviceProperties(&p, ordinal));
    if (!e)
        e = done(cudaSetDevice(ordinal));
    /* Who waits for the GPU looks at a flag: sleeping and waking cost as much as a layer. A process
     * that has used CUDA before keeps its way. */
    if (!e)
        done(cudaSetDeviceFlags(cudaDeviceScheduleSpin));
    *info = (ts_rt_info){0};
    if (!e)
        e = done(cudaMemGetInfo(&info->free_bytes, &info->total_bytes));
    if (e)
        return e;
    snprintf(info->name, sizeof info->name, "%.127s", p.name);
    info->major = p.major;
    info->minor = p.minor;
    /* kHz, two transfers a cycle; bits */
    info->read = 2e3 * attribute(cudaDevAttrMemoryClockRate, ordinal) *
                 attribute(cudaDevAttrGlobalMemoryBusWidth, ordinal) / 8;
    info->flops = 1e3 * attribute(cudaDevAttrClockRate, ordinal) *
                  attribute(cudaDevAttrMultiProcessorCount, ordinal) *
                  cycle_flops(p.major, p.minor);
    return 0;
}

const char *ts_rt_text(int error)
{
    if (error >= CUBLAS)
        return "a matrix product by cuBLAS failed";
    return cudaGetErrorString((cudaError_t)error);
}

int ts_rt_use(int ordinal)
{
    return done(cudaSetDevice(ordinal));
}

int ts_rt_alloc(void **p, size_t bytes)
{
    const int e = done(cudaMalloc(p, bytes));
    if (e)
        *p = NULL;
    return e;
}

void ts_rt_free(void *p)
{
    if (p)
        done(cudaFree(p));
}

int ts_rt_alloc_host(void **p, size_t bytes)
{
    const int e = done(cudaMallocHost(p, bytes));
    if (e)
        *p = NULL;
    return e;
}

void ts_rt_free_host(void *p)
{
    if (p)
        done(cudaFreeHost(p));
}

const int ts_rt_no_memory = cudaErrorMemoryAllocation, ts_rt_bad_value = cudaErrorInvalidValue;

const int ts_rt_is_pinned = cudaErrorHostMemoryAlreadyRegistered;

int ts_rt_pin(const void *p, size_t bytes)
{
    return done(cudaHostRegister((void *)(uintptr_t)p, bytes,
                                 cudaHostRegisterPortable | cudaHostRegisterMapped));
}

void ts_rt_unpin(const void *p)
{
    done(cudaHostUnregister((void *)(uintptr_t)p));
}

int ts_rt_event_open(void **event)
{
    return done(cudaEventCreateWithFlags((cudaEvent_t *)event, cudaEventDisableTiming));
}

void ts_rt_event_close(void *event)
{
    if (event)
        done(cudaEventDestroy(event));
}

int ts_rt_event_record(void *event, void *stream)
{
    return done(cudaEventRecord(event, stream));
}

int ts_rt_stream_wait(void *stream, void *event)
{
    return done(cudaStreamWaitEvent(stream, event, 0));
}

int ts_rt_event_wait(void *event)
{
    return done(cudaEventSynchronize(event));
}

int ts_rt_copy_rows(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t bytes,
                    size_t rows, void *stream)
{
    return done(
        cudaMemcpy2DAsync(dst, dst_pitch, src, src_pitch, bytes, rows, cudaMemcpyDefault, stream));
}

int ts_rt_stream_open(void **stream)
{
    return done(cudaStreamCreateWithFlags((cudaStream_t *)stream, cudaStreamNonBlocking));
}

void ts_rt_stream_close(void *stream)
{
    if (stream)
        done(cudaStreamDestroy(stream));
}

int ts_rt_wait(void *stream)
{
    return done(cudaStreamSynchronize(stream));
}

int ts_rt_copy(void *dst, const void *src, size_t bytes, void *stream)
{
    return done(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream));
}

/* --- graphs ------------------------------------------------------------------- */

struct ts_rt_graph {
    cudaGraphExec_t exec;
};

/* Of this thread alone: others may allocate meanwhile. */
int ts_rt_record(void *stream)
{
    return done(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

int ts_rt_record_end(ts_rt_graph **out, void *stream)
{
    cudaGraph_t graph = NULL;
    ts_rt_graph *g = calloc(1, sizeof *g);
    *out = NULL;
    int e = done(cudaStreamEndCapture(stream, &graph));
    if (!e && !g)
        e = ts_rt_no_memory;
    if (!e)
        e = done(cudaGraphInstantiate(&g->exec, graph, 0));
    if (graph)
        done(cudaGraphDestroy(graph));
    if (e) { /* what can't be recorded can still be launched */
        free(g);
        return e;
    }
    *out = g;
    return 0;
}

int ts_rt_graph_launch(ts_rt_graph *g, void *stream)
{
    return done(cudaGraphLaunch(g->exec, stream));
}

void ts_rt_graph_close(ts_rt_graph *g)
{
    if (!g)
        return;
    done(cudaGraphExecDestroy(g->exec));
    free(g);
}

/* --- cuBLAS ------------------------------------------------------------------- */

/* What NVIDIA recommends for Hopper; given once, so that no product allocates. */
#define WORKSPACE ((size_t)32 << 20)

struct ts_rt_gemm {
    void *library, *workspace;
    cublasHandle_t handle;
    cublasStatus_t (*destroy)(cublasHandle_t);
    cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                           const void *, const void *, cudaDataType, int, const void *,
                           cudaDataType, int, const void *, void *, cudaDataType, int,
                           cublasComputeType_t, cublasGemmAlgo_t);
    cublasStatus_t (*heads)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                            const void *, const void *, cudaDataType, int, long long, const void *,
                            cudaDataType, int, long long, const void *, void *, cudaDataType, int,
                            long long, int, cublasComputeType_t, cublasGemmAlgo_t);
};

static void *symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

void ts_rt_gemm_close(ts_rt_gemm *g)
{
    if (!g)
        return;
    if (g->handle)
        g->destroy(g->handle);
    ts_rt_free(g->workspace);
    dlclose(g->library);
    free(g);
}

int ts_rt_gemm_open(ts_rt_gemm **out, void *stream)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    *out = NULL;
    ts_rt_gemm *g = calloc(1, sizeof *g);
    if (!g)
        return (int)cudaErrorMemoryAllocation;
    for (size_t i = 0; i < sizeof names / sizeof *names && !g->library; i++)
        g->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!g->library) {
        free(g);
        return 0;
    }
    cublasStatus_t (*create)(cublasHandle_t *);
    cublasStatus_t (*set_stream)(cublasHandle_t, cudaStream_t);
    cublasStatus_t (*set_workspace)(cublasHandle_t, void *, size_t);
    *(void **)&create = symbol(g->library, "cublasCreate_v2");
    *(void **)&set_stream = symbol(g->library, "cublasSetStream_v2");
    *(void **)&set_workspace = symbol(g->library, "cublasSetWorkspace_v2");
    *(void **)&g->destroy = symbol(g->library, "cublasDestroy_v2");
    *(void **)&g->gemm = symbol(g->library, "cublasGemmEx");
    *(void **)&g->heads = symbol(g->library, "cublasGemmStridedBatchedEx");
    int e = 0;
    if (!create || !set_stream || !set_workspace || !g->destroy || !g->gemm || !g->heads) {
        ts_rt_gemm_close(g);
        return 0;
    }
    e = (int)create(&g->handle);
    if (!e)
        e = (int)set_stream(g->handle, stream);
    if (e) {
        ts_rt_gemm_close(g);
        return e == CUBLAS_STATUS_ALLOC_FAILED ? ts_rt_no_memory : CUBLAS + e;
    }
    if ((e = ts_rt_alloc(&g->workspace, WORKSPACE))) {
        ts_rt_gemm_close(g);
        return e;
    }
    if ((e = (int)set_workspace(g->handle, g->workspace, WORKSPACE))) {
        ts_rt_gemm_close(g);
        return CUBLAS + e;
    }
    *out = g;
    return 0;
}

/* cuBLAS counts columns first: it sees W as [k][n], x as [k][m], y as [n][m]. */
int ts_rt_gemm_run(ts_rt_gemm *g, float *y, int64_t ldy, bool add, const uint16_t *x,
                   const uint16_t *w, int64_t m, int64_t n, int64_t k)
{
    const float one = 1, beta = add ? 1 : 0;
    cublasStatus_t e = g->gemm(g->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)m, (int)k, &one, w,
                               CUDA_R_16BF, (int)k, x, CUDA_R_16BF, (int)k, &beta, y, CUDA_R_32F,
                               (int)ldy, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return e == CUBLAS_STATUS_SUCCESS ? 0 : CUBLAS + (int)e;
}

int ts_rt_gemm_heads(ts_rt_gemm *g, float *y, int64_t ldy, int64_t y_head, const uint16_t *x,
                     int64_t ldx, int64_t x_head, const uint16_t *w, int64_t heads, int64_t m,
                     int64_t n, int64_t k)
{
    const float one = 1, zero = 0;
    cublasStatus_t e =
        g->heads(g->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)m, (int)k, &one, w, CUDA_R_16BF,
                 (int)k, n * k, x, CUDA_R_16BF, (int)ldx, x_head, &zero, y, CUDA_R_32F, (int)ldy,
                 y_head, (int)heads, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return e == CUBLAS_STATUS_SUCCESS ? 0 : CUBLAS + (int)e;
}

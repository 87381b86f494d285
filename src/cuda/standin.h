/* standin.h - what the .cu files include: CUDA, or a stand-in for it that runs on any x86-64 CPU.
 *
 * nvcc compiles the kernels for GPUs. With TS_CUDA_STANDIN defined, g++ compiles the same files
 *
 *     g++ -x c++ -std=c++17 -DTS_CUDA_STANDIN -Wno-unknown-pragmas ...
 *
 * and a launch runs them on the calling thread, so that kernels are tested without a GPU.
 *
 * What the stand-in does (sim.h, sim_math.h):
 *   - runs the blocks of a grid one after the other; the threads of a block are fibers that change
 *     places only where they wait for each other. Every second launch runs threads and blocks in
 *     reverse order, so that a missing barrier often, not always, shows in the results;
 *   - __syncthreads, __syncwarp, shuffles, votes and ts_mma_16816.. (by the fragment layout of the
 *     PTX manual), each for the lanes of its mask;
 *   - fills shared memory with 0xff (NaN, -1) before every block, both what TS_SHARED names and
 *     what TS_SHARED_ARRAY declares; each is an allocation of its own, whose end a sanitizer sees;
 *   - stops the program with a sentence when threads wait for each other at different barriers or
 *     for a thread that has ended, or shuffles name a lane that has: stricter than GPUs, which
 *     count out threads that have ended;
 *   - stops it, too, when a thread ends that hasn't waited for the launches before (below);
 *   - refuses a launch that no GPU takes (block or shared memory too large, an empty grid), as an
 *     error of ts_launch_error.
 *
 * What it can't show: races and the memory model (a thread sees what others wrote at once, and
 * nothing is torn), misaligned vector loads but __ldg's unless UBSan is on, accesses of device
 * memory by the host, streams (everything is done when the launch returns), the rounding of
 * approximate functions (__expf is expf), the order in which tensor cores add, and speed. Plain
 * `__shared__` compiles, but is neither poisoned nor checked. One launch at a time; not for
 * ThreadSanitizer.
 *
 * Both worlds offer
 *
 *     TS_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *                                         parentheses around a kernel with commas: (f<1, 2>)
 *     ts_let_next()                       from here on kernels queued after this one may begin
 *                                         where there is room
 *     ts_wait_previous()                  after it what those queued before wrote is there, and
 *                                         what they read may be overwritten. Every thread of a
 *                                         kernel does both before it returns; GPUs before Hopper
 *                                         take kernels in turn anyway
 *     ts_in_turn()                        both at once: how most kernels begin
 *     ts_launch_error()                   0 or the cudaError of the last launch, and forgets it
 *     TS_SHARED_LIMIT(kernel, bytes)      allows that much dynamic shared memory, over 48 KB
 *     TS_SHARED(type, name)               type *name = the block's dynamic shared memory
 *     TS_SHARED_ARRAY(type, name, [8][4]) a static array in shared memory
 *     TS_CONST                            a constant table: static, in constant memory on a GPU
 *     ts_half_to_float, ts_float_to_half, ts_half_bits, ts_half_from_bits, ts_bf16_...: one value
 *     ts_half2_to_floats(u, &a, &b)       of the two halves in u, the lower first
 *     ts_floats_to_half2(a, b)            two halves in a uint32_t, a the lower
 *     ts_floats_to_bf16x2(a, b)           the same of BF16
 *     ts_fma_bf16x2(a, b, c)              a * b + c of two BF16 each, rounded once
 *     ts_mma_16816(d, a, b)               d[16x8] += a[16x16] * b[16x8]; halves, sums in float
 *     ts_mma_16816_bf16(d, a, b)          the same of BF16
 *     ts_copy16(shared, global)           begins to copy 16 bytes, both 16-byte aligned (cp.async)
 *     ts_copy16_if(wanted, place, global) or not, without a branch
 *     ts_shared_place(p)                  the place of shared memory p: a ts_shared_at, which one
 *                                         can add bytes to
 *     ts_copy_commit(), ts_copy_wait<N>() what a thread began since the last commit is a group;
 *                                         waits until all but its N latest groups are there. Until
 *                                         then the stand-in shows poison at the destination
 *     ts_publish(flag, value)             writes to pinned memory: who reads the value there sees
 *                                         what the block wrote before its last barrier
 *     TS_DEVICE                           static __device__ __forceinline__
 */
#ifndef TS_CUDA_STANDIN_H
#define TS_CUDA_STANDIN_H

#include <stddef.h>
#include <stdint.h>

#define TS_DEVICE static __device__ __forceinline__

#ifdef TS_CUDA_STANDIN

#include "cuda/sim.h"
#include "cuda/sim_math.h"

#define TS_CONST static const

#else

#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>

#ifdef __CUDACC__

TS_DEVICE void ts_let_next(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n");
#endif
}

TS_DEVICE void ts_wait_previous(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" : : : "memory");
#endif
}

/* May kernels of the GPU in use begin before those ahead of them are done? */
static inline bool ts_early(void)
{
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major >= 9;
}

template <class... P, class... A>
static void ts_launch(dim3 grid, dim3 block, size_t shared_bytes, void *stream,
                      void (*kernel)(P...), A... arguments)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t c = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = ts_early();
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared_bytes;
    c.stream = (cudaStream_t)stream;
    c.attrs = &early;
    c.numAttrs = 1;
    cudaLaunchKernelEx(&c, kernel, (P)arguments...);
}

#define TS_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    ts_launch(grid, block, shared_bytes, stream, kernel, __VA_ARGS__)

#define TS_SHARED_LIMIT(kernel, bytes)                                                             \
    ((int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

#define TS_SHARED(type, name)                                                                      \
    extern __shared__ __align__(16) unsigned char ts_shared_bytes[];                               \
    type *name = reinterpret_cast<type *>(ts_shared_bytes)

#define TS_SHARED_ARRAY(type, name, ...) __shared__ type name __VA_ARGS__

#define TS_CONST static __device__ __constant__ const

TS_DEVICE float ts_half_to_float(__half h)
{
    return __half2float(h);
}

TS_DEVICE __half ts_float_to_half(float f)
{
    return __float2half_rn(f);
}

TS_DEVICE uint16_t ts_half_bits(__half h)
{
    return __half_as_ushort(h);
}

TS_DEVICE __half ts_half_from_bits(uint16_t u)
{
    return __ushort_as_half(u);
}

TS_DEVICE float ts_bf16_to_float(__nv_bfloat16 h)
{
    return __bfloat162float(h);
}

TS_DEVICE __nv_bfloat16 ts_float_to_bf16(float f)
{
    return __float2bfloat16_rn(f);
}

TS_DEVICE uint16_t ts_bf16_bits(__nv_bfloat16 h)
{
    return __bfloat16_as_ushort(h);
}

TS_DEVICE __nv_bfloat16 ts_bf16_from_bits(uint16_t u)
{
    return __ushort_as_bfloat16(u);
}

TS_DEVICE void ts_half2_to_floats(uint32_t u, float *a, float *b)
{
    *a = __half2float(__ushort_as_half((unsigned short)u));
    *b = __half2float(__ushort_as_half((unsigned short)(u >> 16)));
}

TS_DEVICE uint32_t ts_floats_to_half2(float a, float b)
{
    __half2 h = __floats2half2_rn(a, b);
    return (uint32_t)__half_as_ushort(__low2half(h)) | (uint32_t)__half_as_ushort(__high2half(h))
                                                           << 16;
}

TS_DEVICE void ts_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TS_DEVICE uint32_t ts_floats_to_bf16x2(float a, float b)
{
    uint32_t u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(u) : "f"(b), "f"(a));
    return u;
}

TS_DEVICE uint32_t ts_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t u;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(u) : "r"(a), "r"(b), "r"(c));
    return u;
}

TS_DEVICE void ts_mma_16816_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

typedef uint32_t ts_shared_at;

TS_DEVICE ts_shared_at ts_shared_place(void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

TS_DEVICE void ts_copy16_if(bool wanted, ts_shared_at to, const void *from)
{
    asm volatile("{\n"
                 ".reg .pred wanted;\n"
                 "setp.ne.u32 wanted, %2, 0;\n"
                 "@wanted cp.async.cg.shared.global [%0], [%1], 16;\n"
                 "}\n"
                 :
                 : "r"(to), "l"(from), "r"((uint32_t)wanted)
                 : "memory");
}

TS_DEVICE void ts_copy16(void *shared, const void *global)
{
    ts_copy16_if(true, ts_shared_place(shared), global);
}

TS_DEVICE void ts_copy_commit(void)
{
    asm volatile("cp.async.commit_group;\n" : : : "memory");
}

template <int N> TS_DEVICE void ts_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;\n" : : "n"(N) : "memory");
}

TS_DEVICE void ts_in_turn(void)
{
    ts_let_next();
    ts_wait_previous();
}

TS_DEVICE void ts_publish(uint32_t *flag, uint32_t value)
{
    __threadfence_system();
    *(volatile uint32_t *)flag = value;
}

static inline int ts_launch_error(void)
{
    return (int)cudaGetLastError();
}

#endif /* __CUDACC__ */
#endif
#endif

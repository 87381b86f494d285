/* sim_math.h - CUDA's types and device functions on the CPU. Part of the stand-in (standin.h). */
#ifndef TS_CUDA_SIM_MATH_H
#define TS_CUDA_SIM_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cuda/sim.h"

/* src/gguf/type.c */
extern "C" {
float ts_f16_to_f32(uint16_t h);
uint16_t ts_f32_to_f16(float f);
float ts_bf16_to_f32(uint16_t h);
uint16_t ts_f32_to_bf16(float f);
}

/* --- types ------------------------------------------------------------------------------------ */

struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
struct __nv_bfloat16 {
    uint16_t bits;
};
typedef __half half;
typedef __half2 half2;

inline int2 make_int2(int x, int y)
{
    return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y)
{
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

/* --- values ----------------------------------------------------------------------------------- */

inline float ts_half_to_float(__half h)
{
    return ts_f16_to_f32(h.bits);
}
inline __half ts_float_to_half(float f)
{
    return {ts_f32_to_f16(f)};
}
inline uint16_t ts_half_bits(__half h)
{
    return h.bits;
}
inline __half ts_half_from_bits(uint16_t u)
{
    return {u};
}
inline float ts_bf16_to_float(__nv_bfloat16 h)
{
    return ts_bf16_to_f32(h.bits);
}
inline __nv_bfloat16 ts_float_to_bf16(float f)
{
    return {ts_f32_to_bf16(f)};
}
inline uint16_t ts_bf16_bits(__nv_bfloat16 h)
{
    return h.bits;
}
inline __nv_bfloat16 ts_bf16_from_bits(uint16_t u)
{
    return {u};
}
inline void ts_half2_to_floats(uint32_t u, float *a, float *b)
{
    *a = ts_f16_to_f32((uint16_t)u);
    *b = ts_f16_to_f32((uint16_t)(u >> 16));
}
inline uint32_t ts_floats_to_half2(float a, float b)
{
    return (uint32_t)ts_f32_to_f16(a) | (uint32_t)ts_f32_to_f16(b) << 16;
}

template <class To, class From> inline To ts_sim_bits(From v)
{
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}
inline void ts_bf16x2_to_floats(uint32_t u, float *a, float *b)
{
    *a = ts_sim_bits<float>(u << 16);
    *b = ts_sim_bits<float>(u & 0xffff0000);
}
inline uint32_t ts_floats_to_bf16x2(float a, float b)
{
    return ts_bf16_bits(ts_float_to_bf16(a)) | (uint32_t)ts_bf16_bits(ts_float_to_bf16(b)) << 16;
}
/* Of doubles the product is exact; a sum that isn't may be rounded twice. */
inline uint32_t ts_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    float x[2], y[2], z[2];
    ts_bf16x2_to_floats(a, x, x + 1);
    ts_bf16x2_to_floats(b, y, y + 1);
    ts_bf16x2_to_floats(c, z, z + 1);
    return ts_floats_to_bf16x2((float)((double)x[0] * y[0] + z[0]),
                               (float)((double)x[1] * y[1] + z[1]));
}
inline float __uint_as_float(unsigned u)
{
    return ts_sim_bits<float>(u);
}
inline unsigned __float_as_uint(float f)
{
    return ts_sim_bits<unsigned>(f);
}
inline float __int_as_float(int u)
{
    return ts_sim_bits<float>(u);
}
inline int __float_as_int(float f)
{
    return ts_sim_bits<int>(f);
}
inline int __float2int_rn(float f)
{
    return (int)lrintf(f);
}
inline float __int2float_rn(int i)
{
    return (float)i;
}

/* --- arithmetic ------------------------------------------------------------------------------- */

template <class T> inline T min(T a, T b)
{
    return a < b ? a : b;
}
template <class T> inline T max(T a, T b)
{
    return a > b ? a : b;
}
inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __logf(float x)
{
    return logf(x);
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline int __popc(unsigned u)
{
    return __builtin_popcount(u);
}
inline int __clz(int u)
{
    return u ? __builtin_clz((unsigned)u) : 32;
}
inline int __ffs(int u)
{
    return __builtin_ffs(u);
}

inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}

/* The low word of hi:lo >> by % 32. */
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (by % 32));
}

/* c plus the products of four signed bytes. */
inline int __dp4a(int a, int b, int c)
{
    unsigned sum = (unsigned)c;
    for (int i = 0; i < 4; i++)
        sum += (unsigned)((int8_t)((unsigned)a >> (8 * i)) * (int8_t)((unsigned)b >> (8 * i)));
    return (int)sum;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 4; i++)
        c += (a >> (8 * i) & 0xff) * (b >> (8 * i) & 0xff);
    return c;
}

/* Four bytes out of the eight of b:a, one nibble of s each; its bit 3 repeats the byte's sign. */
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned n = s >> (4 * i), byte = (unsigned)(both >> (8 * (n & 7))) & 0xff;
        if (n & 8)
            byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * i);
    }
    return r;
}

/* Byte by byte, without carries from one to the next. */
inline unsigned __vsub4(unsigned a, unsigned b)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i += 8)
        r |= (((a >> i) - (b >> i)) & 0xff) << i;
    return r;
}
inline unsigned __vadd4(unsigned a, unsigned b)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i += 8)
        r |= (((a >> i) + (b >> i)) & 0xff) << i;
    return r;
}

/* --- memory ----------------------------------------------------------------------------------- */

template <class T> inline T __ldg(const T *p)
{
    if ((uintptr_t)p % alignof(T))
        ts_sim_stop("a misaligned load");
    return *p;
}
template <class T> inline T __ldcs(const T *p)
{
    return __ldg(p);
}
template <class T> inline T atomicMax(T *p, T v)
{
    T old = *p;
    *p = old > v ? old : v;
    return old;
}

typedef char *ts_shared_at;

inline ts_shared_at ts_shared_place(void *p)
{
    return (char *)p;
}
inline void ts_copy16_if(bool wanted, ts_shared_at shared, const void *global)
{
    if (!wanted)
        return;
    ts_sim_thread *c = ts_sim.cur;
    if (((uintptr_t)shared | (uintptr_t)global) % 16)
        ts_sim_stop("a copy of what isn't 16-byte aligned");
    if (c->copies == TS_SIM_COPIES)
        ts_sim_stop("too many copies are under way");
    memset(shared, 0xff, 16);
    c->copy[c->copies].to = shared;
    c->copy[c->copies].from = global;
    c->copy[c->copies++].group = c->group;
}
inline void ts_copy16(void *shared, const void *global)
{
    ts_copy16_if(true, (char *)shared, global);
}
inline void ts_copy_commit(void)
{
    ts_sim.cur->group++;
}
template <int N> inline void ts_copy_wait(void)
{
    ts_sim_thread *c = ts_sim.cur;
    unsigned kept = 0;
    for (unsigned i = 0; i < c->copies; i++)
        if ((int)(c->group - c->copy[i].group) > N)
            memcpy(c->copy[i].to, c->copy[i].from, 16);
        else
            c->copy[kept++] = c->copy[i];
    c->copies = kept;
}

/* --- block and warp --------------------------------------------------------------------------- */

inline void __syncthreads(int line = __builtin_LINE(), const char *file = __builtin_FILE())
{
    ts_sim_barrier(line, file);
}
inline void ts_publish(uint32_t *flag, uint32_t value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}

inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE(),
                       const char *file = __builtin_FILE())
{
    ts_sim_warp(mask, NULL, line, file);
}

/* A lane that isn't in the mask gives poison. */
inline void ts_sim_shuffle_op(ts_sim_thread *lane, unsigned mask)
{
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        if (mask >> lane[i].source & 1)
            memcpy(lane[i].out, lane[lane[i].source].in, 8);
        else
            lane[i].out[0] = lane[i].out[1] = ~0u;
    }
}

template <class T> inline T ts_sim_shuffle(unsigned mask, T v, int from, int line, const char *file)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "a register or two");
    ts_sim_thread *t = ts_sim.cur;
    memcpy(t->in, &v, sizeof v);
    t->source = from;
    ts_sim_warp(mask, ts_sim_shuffle_op, line, file);
    memcpy(&v, t->out, sizeof v);
    return v;
}

inline int ts_sim_lane(void)
{
    return (int)(ts_sim.cur - ts_sim.thread) & 31;
}

/* Lanes are taken in groups of `width`; who would read outside of its group reads itself. */
template <class T>
inline T __shfl_sync(unsigned mask, T v, int from, int width = 32, int line = __builtin_LINE(),
                     const char *file = __builtin_FILE())
{
    int l = ts_sim_lane();
    return ts_sim_shuffle(mask, v, (l & ~(width - 1)) | (from & (width - 1)), line, file);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, int line = __builtin_LINE(),
                         const char *file = __builtin_FILE())
{
    int l = ts_sim_lane(), from = l ^ x;
    return ts_sim_shuffle(mask, v, from > (l | (width - 1)) ? l : from, line, file);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32,
                          int line = __builtin_LINE(), const char *file = __builtin_FILE())
{
    int l = ts_sim_lane(), from = l + (int)by;
    return ts_sim_shuffle(mask, v, from > (l | (width - 1)) ? l : from, line, file);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32,
                        int line = __builtin_LINE(), const char *file = __builtin_FILE())
{
    int l = ts_sim_lane(), from = l - (int)by;
    return ts_sim_shuffle(mask, v, from < (l & ~(width - 1)) ? l : from, line, file);
}

inline void ts_sim_ballot_op(ts_sim_thread *lane, unsigned mask)
{
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            bits |= (lane[i].in[0] ? 1u : 0u) << i;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) {
            lane[i].out[0] = bits;
            lane[i].out[1] = mask;
        }
}
inline unsigned __ballot_sync(unsigned mask, int v, int line = __builtin_LINE(),
                              const char *file = __builtin_FILE())
{
    ts_sim.cur->in[0] = v != 0;
    ts_sim_warp(mask, ts_sim_ballot_op, line, file);
    return ts_sim.cur->out[0];
}
inline int __any_sync(unsigned mask, int v, int line = __builtin_LINE(),
                      const char *file = __builtin_FILE())
{
    return __ballot_sync(mask, v, line, file) != 0;
}
inline int __all_sync(unsigned mask, int v, int line = __builtin_LINE(),
                      const char *file = __builtin_FILE())
{
    unsigned bits = __ballot_sync(mask, v, line, file);
    return bits == ts_sim.cur->out[1];
}

/* mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). Lane 4 g + t holds, two halves a
 * register,
 *     a[0], a[1]: rows g and g + 8, columns 2 t and 2 t + 1;  a[2], a[3]: the same 8 columns on
 *     b[0], b[1]: rows 2 t and 2 t + 1, and 8 further down, of column g
 *     d[0..1], d[2..3]: rows g and g + 8, columns 2 t and 2 t + 1 */
template <class Pair> inline void ts_sim_mma(ts_sim_thread *lane, unsigned mask, Pair pair)
{
    float a[16][16], b[16][8];
    if (mask != ~0u)
        ts_sim_stop("mma without all 32 lanes");
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        const uint32_t *in = lane[l].in;
        for (int i = 0; i < 4; i++) {
            float *to = &a[g + i % 2 * 8][2 * t + i / 2 * 8];
            pair(in[i], to, to + 1);
        }
        for (int i = 0; i < 2; i++)
            pair(in[4 + i], &b[2 * t + 8 * i][g], &b[2 * t + 8 * i + 1][g]);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            double sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (double)a[l / 4 + i / 2 * 8][k] * b[k][l % 4 * 2 + i % 2];
            float f = ts_sim_bits<float>(lane[l].out[i]);
            lane[l].out[i] = ts_sim_bits<uint32_t>((float)(f + sum));
        }
}

inline void ts_sim_mma_half_op(ts_sim_thread *lane, unsigned mask)
{
    ts_sim_mma(lane, mask, ts_half2_to_floats);
}

inline void ts_sim_mma_bf16_op(ts_sim_thread *lane, unsigned mask)
{
    ts_sim_mma(lane, mask, ts_bf16x2_to_floats);
}

inline void ts_sim_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], ts_sim_op *op,
                             int line, const char *file)
{
    ts_sim_thread *t = ts_sim.cur;
    memcpy(t->in, a, 16);
    memcpy(t->in + 4, b, 8);
    memcpy(t->out, d, 16);
    ts_sim_warp(~0u, op, line, file);
    memcpy(d, t->out, 16);
}

inline void ts_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2],
                         int line = __builtin_LINE(), const char *file = __builtin_FILE())
{
    ts_sim_mma_16816(d, a, b, ts_sim_mma_half_op, line, file);
}

inline void ts_mma_16816_bf16(float d[4], const uint32_t a[4], const uint32_t b[2],
                              int line = __builtin_LINE(), const char *file = __builtin_FILE())
{
    ts_sim_mma_16816(d, a, b, ts_sim_mma_bf16_op, line, file);
}

/* --- the runtime's functions that tests and launchers call ------------------------------------ */

typedef int cudaError_t;
typedef void *cudaStream_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };

template <class T> inline cudaError_t cudaMalloc(T **p, size_t bytes)
{
    void *q = NULL;
    if (posix_memalign(&q, 256, bytes ? bytes : 1) != 0)
        return cudaErrorMemoryAllocation;
    memset(q, 0xff, bytes);
    *p = (T *)q;
    return 0;
}
inline cudaError_t cudaFree(void *p)
{
    free(p);
    return 0;
}
inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind)
{
    memcpy(to, from, bytes);
    return 0;
}
inline cudaError_t cudaMemset(void *p, int byte, size_t bytes)
{
    memset(p, byte, bytes);
    return 0;
}
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t)
{
    return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void *p, int byte, size_t bytes, cudaStream_t)
{
    return cudaMemset(p, byte, bytes);
}
inline cudaError_t cudaDeviceSynchronize(void)
{
    return 0;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return 0;
}
inline cudaError_t cudaGetLastError(void)
{
    return ts_launch_error();
}
inline const char *cudaGetErrorString(cudaError_t e)
{
    return e ? "stand-in: the launch or call was refused" : "no error";
}

#endif

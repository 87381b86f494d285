/* cuda_case.h - what tests of products on a GPU share: memory on both sides, weights of every type,
 * and whether there is a GPU.
 *
 * All bits of memory are ones until it is set: floats are NaN. Weights end where their memory ends,
 * so that a sanitizer sees what is read behind them. */
#ifndef TS_CUDA_CASE_H
#define TS_CUDA_CASE_H

#include <string.h>

#include <vector>

#include "check.h"
#include "cuda/standin.h"

extern "C" {
#include "gguf/type.h"
}

static uint64_t seed = 1;

static const ts_type all_types[] = {
    TS_TYPE_Q4_0, TS_TYPE_Q4_1,  TS_TYPE_Q5_0, TS_TYPE_Q5_1, TS_TYPE_Q8_0, TS_TYPE_IQ4_NL,
    TS_TYPE_Q2_K, TS_TYPE_Q3_K,  TS_TYPE_Q4_K, TS_TYPE_Q5_K, TS_TYPE_Q6_K, TS_TYPE_IQ4_XS,
    TS_TYPE_F32,  TS_TYPE_MXFP4, TS_TYPE_F16,  TS_TYPE_BF16,
};

static inline bool is_float(ts_type type)
{
    return type == TS_TYPE_F32 || type == TS_TYPE_F16 || type == TS_TYPE_BF16;
}

/* --- memory ----------------------------------------------------------------------------------- */

static inline void must(int e, const char *what)
{
    CHECK_MSG(e == 0, "%s: %s", what, cudaGetErrorString((cudaError_t)e));
    if (e)
        exit(1);
}

/* n values as the host has them and a copy in device memory; all bits are ones at first. */
template <class T> struct memory {
    std::vector<T> host;
    T *dev = NULL;

    explicit memory(size_t n) : host(n)
    {
        if (!n)
            return;
        memset((void *)host.data(), 0xff, n * sizeof(T));
        must(cudaMalloc(&dev, n * sizeof(T)), "cudaMalloc");
        up();
    }
    memory(const memory &) = delete;
    memory &operator=(const memory &) = delete;
    ~memory()
    {
        cudaFree(dev);
    }
    void up(void)
    {
        if (host.empty())
            return;
        must(cudaMemcpy(dev, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "up");
    }
    void down(void)
    {
        must(cudaDeviceSynchronize(), "kernel");
        if (host.empty())
            return;
        must(cudaMemcpy(host.data(), dev, host.size() * sizeof(T), cudaMemcpyDeviceToHost), "down");
    }
};

static inline bool is_poison(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u == ~0u;
}

/* --- random data ------------------------------------------------------------------------------ */

/* Where a type keeps its halves; the other bytes of a block may hold anything. */
static const struct {
    ts_type type;
    int at[2]; /* -1: none */
} halves[] = {
    {TS_TYPE_Q4_0, {0, -1}},   {TS_TYPE_Q4_1, {0, 2}},    {TS_TYPE_Q5_0, {0, -1}},
    {TS_TYPE_Q5_1, {0, 2}},    {TS_TYPE_Q8_0, {0, -1}},   {TS_TYPE_Q2_K, {80, 82}},
    {TS_TYPE_Q3_K, {108, -1}}, {TS_TYPE_Q4_K, {0, 2}},    {TS_TYPE_Q5_K, {0, 2}},
    {TS_TYPE_Q6_K, {208, -1}}, {TS_TYPE_IQ4_NL, {0, -1}}, {TS_TYPE_IQ4_XS, {0, -1}},
};

/* Finite weights; for MXFP4 of every scale if wide. */
static inline void random_weights(ts_type type, uint8_t *w, size_t bytes, bool wide)
{
    size_t block = (size_t)ts_type_get(type)->bytes;
    for (size_t i = 0; i < bytes; i++)
        w[i] = (uint8_t)(rnd_u64(&seed) >> 56);
    for (size_t i = 0; i + block <= bytes; i += block) {
        float v = 0.1f * rnd_normal(&seed);
        uint16_t h = type == TS_TYPE_BF16 ? ts_f32_to_bf16(v) : ts_f32_to_f16(v);
        if (type == TS_TYPE_F32)
            memcpy(w + i, &v, 4);
        else if (type == TS_TYPE_F16 || type == TS_TYPE_BF16)
            memcpy(w + i, &h, 2);
        else if (type == TS_TYPE_MXFP4 && !wide)
            w[i] = (uint8_t)(120 + rnd_u64(&seed) % 10);
        for (size_t j = 0; j < sizeof halves / sizeof *halves; j++)
            for (int l = 0; l < 2 && halves[j].type == type && halves[j].at[l] >= 0; l++) {
                h = ts_f32_to_f16(0.1f * rnd_normal(&seed));
                memcpy(w + i + halves[j].at[l], &h, 2);
            }
    }
}

/* Rows of weights, in memory that ends with the last 16 bytes begun. */
struct weights {
    ts_type type;
    int64_t n, k;
    size_t row_bytes;
    memory<uint8_t> mem;

    weights(ts_type type_, int64_t n_, int64_t k_, bool wide = false)
        : type(type_), n(n_), k(k_),
          row_bytes((size_t)(k_ / ts_type_get(type_)->block) * (size_t)ts_type_get(type_)->bytes),
          mem(((size_t)n_ * row_bytes + 15) / 16 * 16)
    {
        random_weights(type, mem.host.data(), (size_t)n * row_bytes, wide);
        for (size_t i = (size_t)n * row_bytes; i < mem.host.size(); i++)
            mem.host[i] = 0xff;
        mem.up();
    }
    void row(int64_t i, float *y) const
    {
        ts_type_get(type)->to_f32(y, mem.host.data() + (size_t)i * row_bytes, k);
    }
};

static inline bool have_gpu(void)
{
#ifndef TS_CUDA_STANDIN
    int n = 0;
    cudaDeviceProp gpu;
    if (cudaGetDeviceCount(&n) != cudaSuccess || !n ||
        cudaGetDeviceProperties(&gpu, 0) != cudaSuccess)
        return false;
    printf("%s, compute capability %d.%d\n", gpu.name, gpu.major, gpu.minor);
#endif
    return true;
}

#endif

/* probe_avx2.c - the probe's loops in AVX2 and FMA. */
#include "base/probe_impl.h"

#include <immintrin.h>

static uint64_t read_avx2(const void *p, size_t n)
{
    const char *c = p;
    __m256i a[8] = {0};

    for (size_t i = 0; i < n; i += 512) {
        for (int j = 0; j < 8; j++) {
            /* The hardware prefetcher stops at the end of a 4 KiB page; this carries on over it. */
            _mm_prefetch(c + i + 4096 + 64 * j, _MM_HINT_T0);
        }
        for (int j = 0; j < 16; j++) {
            __m256i v = _mm256_load_si256((const __m256i *)(c + i) + j);
            a[j % 8] = _mm256_xor_si256(a[j % 8], v);
        }
    }
    for (int j = 1; j < 8; j++)
        a[0] = _mm256_xor_si256(a[0], a[j]);
    return (uint64_t)_mm256_extract_epi64(a[0], 0) ^ (uint64_t)_mm256_extract_epi64(a[0], 3);
}

/* Latency 4..5 times two units a cycle: ten accumulators keep both busy. */
enum { ACCS = 10 };

static float fma_avx2(int64_t n)
{
    __m256 a[ACCS], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);

    for (int j = 0; j < ACCS; j++)
        a[j] = _mm256_set1_ps((float)j);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < ACCS; j++)
            a[j] = _mm256_fmadd_ps(a[j], x, y);
    for (int j = 1; j < ACCS; j++)
        a[0] = _mm256_add_ps(a[0], a[j]);
    return _mm256_cvtss_f32(a[0]);
}

/* VPMADDUBSW and VPADDW: 32 products into 16 sums. A kernel has to widen the sums to 32 bits before
 * they overflow, but how rarely is its own skill: the bound is without. */
static inline void product(__m256i *sum, __m256i *x, __m256i y)
{
    __asm__ volatile("" : "+x"(*x)); /* else the product is made once and for all */
    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(*x, y));
}

enum { INT8_SUMS = 4 }; /* an addition has a latency of 1 */

static int32_t int8_avx2(int64_t n)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(1);

    for (int64_t i = 0; i < n; i++) {
        product(&a, &x, y);
        product(&b, &x, y);
        product(&c, &x, y);
        product(&d, &x, y);
    }
    return _mm256_extract_epi32(_mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d)),
                                0);
}

const ts_probe_loops ts_probe_avx2 = {
    .read = read_avx2,
    .fma = fma_avx2,
    .int8 = int8_avx2,
    .fma_ops = 2 * 8 * ACCS,
    .int8_ops = 2 * 32 * INT8_SUMS,
};

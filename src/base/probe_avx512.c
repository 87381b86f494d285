/* probe_avx512.c - the probe's loops in AVX-512 with VNNI. */
#include "base/probe_impl.h"

#include <immintrin.h>

static uint64_t read_avx512(const void *p, size_t n)
{
    const char *c = p;
    __m512i a[8];

    for (int j = 0; j < 8; j++)
        a[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 512) {
        /* The hardware prefetcher stops at the end of a 4 KiB page; this carries on over it. */
        for (int j = 0; j < 8; j++)
            _mm_prefetch(c + i + 4096 + 64 * j, _MM_HINT_T0);
        for (int j = 0; j < 8; j++)
            a[j] = _mm512_xor_si512(a[j], _mm512_load_si512(c + i + 64 * j));
    }
    for (int j = 1; j < 8; j++)
        a[0] = _mm512_xor_si512(a[0], a[j]);
    return (uint64_t)_mm512_reduce_or_epi64(a[0]);
}

/* Latency 4 or 5 times two units a cycle: ten accumulators keep both busy. */
enum { ACCS = 10 };

static float fma_avx512(int64_t n)
{
    __m512 a[ACCS], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);

    for (int j = 0; j < ACCS; j++)
        a[j] = _mm512_set1_ps((float)j);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < ACCS; j++)
            a[j] = _mm512_fmadd_ps(a[j], x, y);
    for (int j = 1; j < ACCS; j++)
        a[0] = _mm512_add_ps(a[0], a[j]);
    return _mm512_cvtss_f32(a[0]);
}

/* VPDPBUSD: 64 products into 16 sums of 32 bits. gcc 12 copies every sum to and fro around the
 * intrinsic, which costs much of the peak. */
#define PRODUCT(sum) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))

static int32_t int8_avx512(int64_t n)
{
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1), z = _mm512_setzero_si512();
    __m512i a = z, b = z, c = z, d = z, e = z, f = z, g = z, h = z, i = z, j = z;

    for (int64_t round = 0; round < n; round++) {
        PRODUCT(a);
        PRODUCT(b);
        PRODUCT(c);
        PRODUCT(d);
        PRODUCT(e);
        PRODUCT(f);
        PRODUCT(g);
        PRODUCT(h);
        PRODUCT(i);
        PRODUCT(j);
    }
    a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    e = _mm512_add_epi32(_mm512_add_epi32(e, f), _mm512_add_epi32(g, h));
    a = _mm512_add_epi32(_mm512_add_epi32(a, e), _mm512_add_epi32(i, j));
    return _mm_cvtsi128_si32(_mm512_castsi512_si128(a));
}

const ts_probe_loops ts_probe_avx512 = {
    .read = read_avx512,
    .fma = fma_avx512,
    .int8 = int8_avx512,
    .fma_ops = 2 * 16 * ACCS,
    .int8_ops = 2 * 64 * ACCS,
};

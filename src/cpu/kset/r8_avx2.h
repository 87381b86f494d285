/* r8_avx2.h - the product over packed groups of 8 rows: the blocking around a type's tiles.
 *
 * A tile multiplies 8 rows by 1..TS_R8_TOKENS tokens over a run of k blocks; one accumulator
 * register is 8 rows of one token, so no sum goes across lanes. It comes in two forms that share
 * their body: direct   decodes the packed block in registers      few tokens: each weight is
 * decoded once panel    reads codes that were decoded into L1       many tokens: decoded once for
 * all of them */
#ifndef TS_KSET_R8_AVX2_H
#define TS_KSET_R8_AVX2_H

#include <immintrin.h>

#include "cpu/kset/r8.h"

#define TS_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define TS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TS_UNROLL _Pragma("GCC unroll 16")
#endif

enum { TS_R8_TOKENS = 4 };

/* Where a tile leaves y[tokens][8]. */
typedef struct ts_r8_out {
    float *y;
    int64_t ldy;
    __m256i mask; /* lanes that are rows of the matrix */
    bool add;     /* add to what is there              */
} ts_r8_out;

/* w: nb blocks, packed or panel. x: the first token's block, tokens ldx bytes apart. */
typedef void ts_r8_tile(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t nb,
                        const ts_r8_out *out);

typedef struct ts_r8_kernels {
    const ts_r8_layout *layout;
    size_t x_bytes;              /* activations of one token and block   */
    size_t (*panel_bytes)(void); /* of a block of 8 rows                 */
    void (*panel)(uint8_t *dst, const uint8_t *w, int64_t nb);
    ts_r8_tile *direct[TS_R8_TOKENS]; /* [tokens - 1]           */
    ts_r8_tile *tile[TS_R8_TOKENS];
} ts_r8_kernels;

void ts_r8_mul(const ts_r8_kernels *f, const ts_mul *p);

TS_INLINE __m256i ts_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Four bytes of x in all 8 dwords. */
TS_INLINE __m256i ts_dword(const void *p)
{
    int v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

TS_INLINE __m256 ts_halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

TS_INLINE void ts_r8_store(const ts_r8_out *out, int tokens, const __m256 *acc)
{
    for (int t = 0; t < tokens; t++) {
        float *y = out->y + t * out->ldy;
        __m256 v = acc[t];
        if (out->add)
            v = _mm256_add_ps(v, _mm256_maskload_ps(y, out->mask));
        _mm256_maskstore_ps(y, out->mask, v);
    }
}

/* The ts_kset of a type, from its `layout_TYPE`, `kernels_TYPE`. */
#define TS_R8_KSET(T, name, act)                                                                   \
    static size_t bytes_##T(int64_t n, int64_t k)                                                  \
    {                                                                                              \
        return ts_r8_bytes(&layout_##T, n, k);                                                     \
    }                                                                                              \
    static void pack_##T(void *packed, const void *src, int64_t n, int64_t k, int64_t n0,          \
                         int64_t n1)                                                               \
    {                                                                                              \
        ts_r8_pack(&layout_##T, packed, src, n, k, n0, n1);                                        \
    }                                                                                              \
    static void unpack_##T(void *src, const void *packed, int64_t n, int64_t k, int64_t n0,        \
                           int64_t n1)                                                             \
    {                                                                                              \
        ts_r8_unpack(&layout_##T, src, packed, n, k, n0, n1);                                      \
    }                                                                                              \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        ts_r8_mul(&kernels_##T, p);                                                                \
    }                                                                                              \
    extern const ts_kset ts_kset_##T##_avx2;                                                       \
    const ts_kset ts_kset_##T##_avx2 = {                                                           \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_AVX2,                                                                        \
        .layout = name,                                                                            \
        .prep = &ts_prep_##act##_avx2,                                                             \
        .group = TS_R8_ROWS,                                                                       \
        .packed_bytes = bytes_##T,                                                                 \
        .pack = pack_##T,                                                                          \
        .unpack = unpack_##T,                                                                      \
        .mul = mul_##T,                                                                            \
    };

#endif

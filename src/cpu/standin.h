/* standin.h - the AVX-512 and AMX intrinsics that the kernels use, in plain C, so that the kernels
 * of any ISA run in the tests on any machine.
 *
 * Each does what Intel's intrinsics guide says of it, one element at a time; a tile is 1 KB of
 * memory. Only what is used is here: a kernel that needs one more adds it. Not followed: flags,
 * signalling NaNs, and the order in which a tile product adds its pairs. */
#ifndef TS_STANDIN_H
#define TS_STANDIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "gguf/type.h"

#define TS_FAKE static inline __attribute__((always_inline, unused))

typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef short __m512bh __attribute__((vector_size(64), may_alias));
typedef long long __m256i __attribute__((vector_size(32), may_alias));
typedef short __m256bh __attribute__((vector_size(32), may_alias));
typedef long long __m128i __attribute__((vector_size(16), may_alias));
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
typedef uint64_t __mmask64;

typedef int8_t ts_i8 __attribute__((vector_size(64), may_alias));
typedef uint8_t ts_u8 __attribute__((vector_size(64), may_alias));
typedef int16_t ts_i16 __attribute__((vector_size(64), may_alias));
typedef uint16_t ts_u16 __attribute__((vector_size(64), may_alias));
typedef int32_t ts_i32 __attribute__((vector_size(64), may_alias));
typedef uint32_t ts_u32 __attribute__((vector_size(64), may_alias));
typedef uint64_t ts_u64 __attribute__((vector_size(64), may_alias));
typedef uint8_t ts_u8x32 __attribute__((vector_size(32), may_alias));
typedef uint16_t ts_u16x16 __attribute__((vector_size(32), may_alias));
typedef uint8_t ts_u8x16 __attribute__((vector_size(16), may_alias));
typedef int32_t ts_i32x4 __attribute__((vector_size(16), may_alias));

/* --- loads, stores, constants ------------------------------------------------------- */

#define TS_FAKE_LOAD(name, type)                                                                   \
    TS_FAKE type name(const void *p)                                                               \
    {                                                                                              \
        type v;                                                                                    \
        memcpy(&v, p, sizeof v);                                                                   \
        return v;                                                                                  \
    }
#define TS_FAKE_STORE(name, type)                                                                  \
    TS_FAKE void name(void *p, type v)                                                             \
    {                                                                                              \
        memcpy(p, &v, sizeof v);                                                                   \
    }
TS_FAKE_LOAD(_mm512_loadu_si512, __m512i)
TS_FAKE_LOAD(_mm512_loadu_ps, __m512)
TS_FAKE_LOAD(_mm256_loadu_si256, __m256i)
TS_FAKE_LOAD(_mm_loadu_si128, __m128i)
TS_FAKE_STORE(_mm512_storeu_si512, __m512i)
TS_FAKE_STORE(_mm512_storeu_ps, __m512)
TS_FAKE_STORE(_mm256_storeu_si256, __m256i)
TS_FAKE_STORE(_mm_storeu_si128, __m128i)

/* Elements that are masked out are neither read nor written. */
TS_FAKE __m512 _mm512_maskz_loadu_ps(__mmask16 k, const void *p)
{
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        if (k >> i & 1)
            v[i] = ((const float *)p)[i];
    return v;
}

TS_FAKE void _mm512_mask_storeu_ps(void *p, __mmask16 k, __m512 v)
{
    for (int i = 0; i < 16; i++)
        if (k >> i & 1)
            ((float *)p)[i] = v[i];
}

TS_FAKE __m512i _mm512_maskz_loadu_epi16(__mmask32 k, const void *p)
{
    ts_u16 v = {0};
    for (int i = 0; i < 32; i++)
        if (k >> i & 1)
            v[i] = ((const uint16_t *)p)[i];
    return (__m512i)v;
}

#define _mm_prefetch(p, hint) ((void)(p))
#define _MM_HINT_T0           0
#define _MM_HINT_T1           1

#define _mm512_setzero_si512() ((__m512i){0})
#define _mm512_setzero_ps()    ((__m512){0})

TS_FAKE __m512i _mm512_set1_epi8(char x)
{
    __m512i v;
    memset(&v, x, sizeof v);
    return v;
}

TS_FAKE __m512i _mm512_set1_epi16(short x)
{
    return (__m512i)((ts_i16){0} + x);
}

TS_FAKE __m512i _mm512_set1_epi32(int x)
{
    return (__m512i)((ts_i32){0} + x);
}

TS_FAKE __m512 _mm512_set1_ps(float x)
{
    __m512 v;
    for (int i = 0; i < 16; i++)
        v[i] = x;
    return v;
}

#define _mm512_setr_epi32(...) ((__m512i)(ts_i32){__VA_ARGS__})
#define _mm512_setr_epi64(...) ((__m512i){__VA_ARGS__})
#define _mm512_set1_epi64(x)   ((__m512i){x, x, x, x, x, x, x, x})
#define _mm512_setr_ps(...)    ((__m512){__VA_ARGS__})
#define _mm_setr_epi32(...)    ((__m128i)(ts_i32x4){__VA_ARGS__})
#define _mm512_set4_epi32(d, c, b, a)                                                              \
    ((__m512i)(ts_i32){a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d})

TS_FAKE __m128i _mm_cvtsi32_si128(int x)
{
    return (__m128i)(ts_i32x4){x};
}

/* --- views -------------------------------------------------------------------------- */

TS_FAKE __m512 _mm512_castsi512_ps(__m512i v)
{
    return (__m512)v;
}

TS_FAKE __m512i _mm512_castps_si512(__m512 v)
{
    return (__m512i)v;
}

TS_FAKE __m256i _mm512_castsi512_si256(__m512i v)
{
    return (__m256i){v[0], v[1], v[2], v[3]};
}

TS_FAKE __m256i _mm512_extracti64x4_epi64(__m512i v, int half)
{
    return (__m256i){v[4 * half], v[4 * half + 1], v[4 * half + 2], v[4 * half + 3]};
}

/* --- integers ------------------------------------------------------------------------- */

#define TS_FAKE_BINARY(name, type, result, expression)                                             \
    TS_FAKE result name(result x, result y)                                                        \
    {                                                                                              \
        type a = (type)x, b = (type)y;                                                             \
        return (result)(expression);                                                               \
    }
TS_FAKE_BINARY(_mm512_and_si512, ts_u64, __m512i, a &b)
TS_FAKE_BINARY(_mm512_or_si512, ts_u64, __m512i, a | b)
TS_FAKE_BINARY(_mm512_xor_si512, ts_u64, __m512i, a ^ b)
TS_FAKE_BINARY(_mm512_add_epi32, ts_u32, __m512i, a + b)
TS_FAKE_BINARY(_mm512_sub_epi32, ts_u32, __m512i, a - b)
TS_FAKE_BINARY(_mm512_add_epi8, ts_u8, __m512i, a + b)
TS_FAKE_BINARY(_mm512_sub_epi8, ts_u8, __m512i, a - b)
TS_FAKE_BINARY(_mm512_add_epi16, ts_u16, __m512i, a + b)
TS_FAKE_BINARY(_mm512_sub_epi16, ts_u16, __m512i, a - b)
TS_FAKE_BINARY(_mm512_mullo_epi16, ts_u16, __m512i, a *b)

/* Rounded products of words that are fractions of 2^15. */
TS_FAKE __m512i _mm512_mulhrs_epi16(__m512i x, __m512i y)
{
    ts_i16 a = (ts_i16)x, b = (ts_i16)y;
    for (int i = 0; i < 32; i++)
        a[i] = (int16_t)((a[i] * b[i] + 0x4000) >> 15);
    return (__m512i)a;
}

TS_FAKE __m512i _mm512_ternarylogic_epi32(__m512i x, __m512i y, __m512i z, int table)
{
    ts_u64 a = (ts_u64)x, b = (ts_u64)y, c = (ts_u64)z, v = {0};
    for (int i = 0; i < 8; i++)
        if (table >> i & 1)
            v |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return (__m512i)v;
}

TS_FAKE __m512i _mm512_max_epi32(__m512i x, __m512i y)
{
    ts_i32 a = (ts_i32)x, b = (ts_i32)y;
    for (int i = 0; i < 16; i++)
        a[i] = a[i] > b[i] ? a[i] : b[i];
    return (__m512i)a;
}

TS_FAKE __m512i _mm512_min_epi32(__m512i x, __m512i y)
{
    ts_i32 a = (ts_i32)x, b = (ts_i32)y;
    for (int i = 0; i < 16; i++)
        a[i] = a[i] < b[i] ? a[i] : b[i];
    return (__m512i)a;
}

/* Shifts by the number of bits or more leave nothing. */
#define TS_FAKE_SHIFT(name, type, bits, op)                                                        \
    TS_FAKE __m512i _mm512_##name##i_epi##bits(__m512i v, unsigned n)                              \
    {                                                                                              \
        return n < bits ? (__m512i)((type)v op n) : (__m512i){0};                                  \
    }                                                                                              \
    TS_FAKE __m512i _mm512_##name##_epi##bits(__m512i v, __m128i n)                                \
    {                                                                                              \
        return _mm512_##name##i_epi##bits(v, n[0] < bits ? (unsigned)n[0] : bits);                 \
    }
TS_FAKE_SHIFT(sll, ts_u16, 16, <<)
TS_FAKE_SHIFT(srl, ts_u16, 16, >>)
TS_FAKE_SHIFT(sll, ts_u32, 32, <<)
TS_FAKE_SHIFT(srl, ts_u32, 32, >>)

TS_FAKE __m512i _mm512_srai_epi16(__m512i v, unsigned n)
{
    return (__m512i)((ts_i16)v >> (short)(n < 16 ? n : 15));
}

TS_FAKE __m512i _mm512_srai_epi32(__m512i v, unsigned n)
{
    return (__m512i)((ts_i32)v >> (int)(n < 32 ? n : 31));
}

TS_FAKE __m512i _mm512_sllv_epi32(__m512i v, __m512i n)
{
    ts_u32 a = (ts_u32)v, b = (ts_u32)n;
    for (int i = 0; i < 16; i++)
        a[i] = b[i] < 32 ? a[i] << b[i] : 0;
    return (__m512i)a;
}

TS_FAKE __mmask16 _mm512_cmpgt_epi32_mask(__m512i x, __m512i y)
{
    ts_i32 a = (ts_i32)x, b = (ts_i32)y;
    unsigned k = 0;
    for (int i = 0; i < 16; i++)
        k |= (unsigned)(a[i] > b[i]) << i;
    return (__mmask16)k;
}

TS_FAKE __mmask64 _mm512_cmpeq_epi8_mask(__m512i x, __m512i y)
{
    ts_u8 a = (ts_u8)x, b = (ts_u8)y;
    __mmask64 k = 0;
    for (int i = 0; i < 64; i++)
        k |= (__mmask64)(a[i] == b[i]) << i;
    return k;
}

TS_FAKE __m512i _mm512_mask_mov_epi32(__m512i x, __mmask16 k, __m512i y)
{
    ts_i32 a = (ts_i32)x, b = (ts_i32)y;
    for (int i = 0; i < 16; i++)
        a[i] = k >> i & 1 ? b[i] : a[i];
    return (__m512i)a;
}

TS_FAKE __m512i _mm512_maskz_mov_epi8(__mmask64 k, __m512i x)
{
    ts_u8 a = (ts_u8)x;
    for (int i = 0; i < 64; i++)
        a[i] = k >> i & 1 ? a[i] : 0;
    return (__m512i)a;
}

#define _mm512_maskz_mov_epi32(k, v) _mm512_mask_mov_epi32(_mm512_setzero_si512(), k, v)

TS_FAKE __m512 _mm512_mask_mov_ps(__m512 a, __mmask16 k, __m512 b)
{
    return (__m512)_mm512_mask_mov_epi32((__m512i)a, k, (__m512i)b);
}

TS_FAKE int _mm512_reduce_add_epi32(__m512i v)
{
    unsigned s = 0;
    for (int i = 0; i < 16; i++)
        s += ((ts_u32)v)[i];
    return (int)s;
}

TS_FAKE int _mm512_reduce_max_epi32(__m512i v)
{
    ts_i32 a = (ts_i32)v;
    int s = a[0];
    for (int i = 1; i < 16; i++)
        s = a[i] > s ? a[i] : s;
    return s;
}

/* Sums of four products, unsigned by signed bytes, into dwords. */
TS_FAKE __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i x, __m512i y)
{
    ts_i32 s = (ts_i32)sum;
    ts_u8 a = (ts_u8)x;
    ts_i8 b = (ts_i8)y;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++)
            s[i] += a[4 * i + j] * b[4 * i + j];
    return (__m512i)s;
}

/* --- shuffles ----------------------------------------------------------------------- */

/* In each 16 bytes, bytes of the same 16. */
TS_FAKE __m512i _mm512_shuffle_epi8(__m512i x, __m512i y)
{
    ts_u8 a = (ts_u8)x, b = (ts_u8)y, v = {0};
    for (int i = 0; i < 64; i++)
        v[i] = b[i] & 0x80 ? 0 : a[i / 16 * 16 + (b[i] & 15)];
    return (__m512i)v;
}

#define TS_FAKE_UNPACK(name, type, n, from)                                                        \
    TS_FAKE __m512i name(__m512i x, __m512i y)                                                     \
    {                                                                                              \
        type a = (type)x, b = (type)y, v = {0};                                                    \
        for (int lane = 0; lane < 4; lane++)                                                       \
            for (int i = 0; i < n / 2; i++) {                                                      \
                v[lane * n + 2 * i] = a[lane * n + from + i];                                      \
                v[lane * n + 2 * i + 1] = b[lane * n + from + i];                                  \
            }                                                                                      \
        return (__m512i)v;                                                                         \
    }
TS_FAKE_UNPACK(_mm512_unpacklo_epi32, ts_u32, 4, 0)
TS_FAKE_UNPACK(_mm512_unpackhi_epi32, ts_u32, 4, 2)
TS_FAKE_UNPACK(_mm512_unpacklo_epi64, ts_u64, 2, 0)
TS_FAKE_UNPACK(_mm512_unpackhi_epi64, ts_u64, 2, 1)

/* The lower two 16s from a, the upper two from b. */
TS_FAKE __m512i _mm512_shuffle_i32x4(__m512i x, __m512i y, int which)
{
    ts_u32 a = (ts_u32)x, b = (ts_u32)y, v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = (i < 8 ? a : b)[(which >> (i / 4 * 2) & 3) * 4 + i % 4];
    return (__m512i)v;
}

TS_FAKE __m512i _mm512_permutexvar_epi16(__m512i places, __m512i x)
{
    ts_u16 p = (ts_u16)places, a = (ts_u16)x, v = {0};
    for (int i = 0; i < 32; i++)
        v[i] = a[p[i] & 31];
    return (__m512i)v;
}

/* Places count modulo 64. */
TS_FAKE __m512i _mm512_permutexvar_epi8(__m512i places, __m512i x)
{
    ts_u8 p = (ts_u8)places, a = (ts_u8)x, v = {0};
    for (int i = 0; i < 64; i++)
        v[i] = a[p[i] & 63];
    return (__m512i)v;
}

TS_FAKE __m512i _mm512_mask_permutexvar_epi8(__m512i src, __mmask64 k, __m512i places, __m512i x)
{
    ts_u8 p = (ts_u8)places, a = (ts_u8)x, v = (ts_u8)src;
    for (int i = 0; i < 64; i++)
        v[i] = k >> i & 1 ? a[p[i] & 63] : v[i];
    return (__m512i)v;
}

/* In each 16 bytes, those of a and then those of b, narrowed with saturation. */
#define TS_FAKE_PACKS(name, wide, narrow, n, min, max)                                             \
    TS_FAKE __m512i name(__m512i x, __m512i y)                                                     \
    {                                                                                              \
        wide a = (wide)x, b = (wide)y;                                                             \
        narrow v = {0};                                                                            \
        for (int i = 0; i < 8 * n; i++) {                                                          \
            int e = (i / n & 1 ? b : a)[i / (2 * n) * n + i % n];                                  \
            v[i] = (__typeof__(v[0]))(e < min ? min : e > max ? max : e);                          \
        }                                                                                          \
        return (__m512i)v;                                                                         \
    }
TS_FAKE_PACKS(_mm512_packs_epi32, ts_i32, ts_i16, 4, -32768, 32767)
TS_FAKE_PACKS(_mm512_packs_epi16, ts_i16, ts_i8, 8, -128, 127)

TS_FAKE __m512i _mm512_permutex2var_epi64(__m512i a, __m512i places, __m512i b)
{
    __m512i v = {0};
    for (int i = 0; i < 8; i++)
        v[i] = places[i] & 8 ? b[places[i] & 7] : a[places[i] & 7];
    return v;
}

TS_FAKE __m512 _mm512_permutex2var_ps(__m512 a, __m512i places, __m512 b)
{
    ts_i32 p = (ts_i32)places;
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = p[i] & 16 ? b[p[i] & 15] : a[p[i] & 15];
    return v;
}

#define _mm512_permutex2var_epi32(a, places, b)                                                    \
    ((__m512i)_mm512_permutex2var_ps((__m512)(a), places, (__m512)(b)))

/* --- conversions ------------------------------------------------------------------------ */

TS_FAKE __m512i _mm512_cvtepu8_epi32(__m128i x)
{
    ts_u8x16 a = (ts_u8x16)x;
    ts_u32 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = a[i];
    return (__m512i)v;
}

TS_FAKE __m512i _mm512_cvtepu16_epi32(__m256i x)
{
    ts_u16x16 a = (ts_u16x16)x;
    ts_u32 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = a[i];
    return (__m512i)v;
}

TS_FAKE __m256i _mm512_cvtepi32_epi16(__m512i x)
{
    ts_u32 a = (ts_u32)x;
    ts_u16x16 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = (uint16_t)a[i];
    return (__m256i)v;
}

TS_FAKE __m128i _mm512_cvtepi32_epi8(__m512i x)
{
    ts_u32 a = (ts_u32)x;
    ts_u8x16 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = (uint8_t)a[i];
    return (__m128i)v;
}

TS_FAKE __m512 _mm512_cvtepi32_ps(__m512i x)
{
    ts_i32 a = (ts_i32)x;
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = (float)a[i];
    return v;
}

/* What isn't an int32 becomes the least of them. */
TS_FAKE __m512i _mm512_cvttps_epi32(__m512 a)
{
    ts_i32 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = a[i] >= -0x1p31f && a[i] < 0x1p31f ? (int32_t)a[i] : INT32_MIN;
    return (__m512i)v;
}

TS_FAKE __m512i _mm512_cvtps_epi32(__m512 a)
{
    ts_i32 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = a[i] >= -0x1p31f && a[i] < 0x1p31f ? (int32_t)rintf(a[i]) : INT32_MIN;
    return (__m512i)v;
}

TS_FAKE __m512 _mm512_cvtph_ps(__m256i x)
{
    ts_u16x16 a = (ts_u16x16)x;
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        v[i] = ts_f16_to_f32(a[i]);
    return v;
}

/* b becomes the lower half. Subnormal numbers count as zero. */
TS_FAKE __m512bh _mm512_cvtne2ps_pbh(__m512 a, __m512 b)
{
    ts_u16 v = {0};
    for (int i = 0; i < 32; i++) {
        float f = i < 16 ? b[i] : a[i - 16];
        v[i] = ts_f32_to_bf16(fabsf(f) < 0x1p-126f ? 0 * f : f);
    }
    return (__m512bh)v;
}

/* --- floats --------------------------------------------------------------------------- */

#define TS_FAKE_FLOAT(name, op)                                                                    \
    TS_FAKE __m512 name(__m512 a, __m512 b)                                                        \
    {                                                                                              \
        return a op b;                                                                             \
    }
TS_FAKE_FLOAT(_mm512_add_ps, +)
TS_FAKE_FLOAT(_mm512_sub_ps, -)
TS_FAKE_FLOAT(_mm512_mul_ps, *)

#define TS_FAKE_FMA(name, x, z)                                                                    \
    TS_FAKE __m512 name(__m512 a, __m512 b, __m512 c)                                              \
    {                                                                                              \
        for (int i = 0; i < 16; i++)                                                               \
            a[i] = (float)((double)(x)*b[i] + (z)); /* the product is exact in double */           \
        return a;                                                                                  \
    }
TS_FAKE_FMA(_mm512_fmadd_ps, a[i], (double)c[i])
TS_FAKE_FMA(_mm512_fmsub_ps, a[i], -(double)c[i])
TS_FAKE_FMA(_mm512_fnmadd_ps, -a[i], (double)c[i])

TS_FAKE_FLOAT(_mm512_div_ps, /)

TS_FAKE __m512 _mm512_mask_sub_ps(__m512 src, __mmask16 k, __m512 a, __m512 b)
{
    return _mm512_mask_mov_ps(src, k, a - b);
}

TS_FAKE float _mm512_reduce_add_ps(__m512 a)
{
    float s = 0;
    for (int i = 0; i < 16; i++)
        s += a[i];
    return s;
}

/* The second if one is NaN. */
TS_FAKE __m512 _mm512_max_ps(__m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
}

TS_FAKE __m512 _mm512_abs_ps(__m512 a)
{
    for (int i = 0; i < 16; i++)
        a[i] = fabsf(a[i]);
    return a;
}

/* Only imm 0x0a: up to an integer. */
TS_FAKE __m512 _mm512_roundscale_ps(__m512 a, int imm)
{
    for (int i = 0; i < 16; i++)
        a[i] = imm == 0x0a ? ceilf(a[i]) : NAN;
    return a;
}

/* Only imm 0x09: what is above the integer below. */
TS_FAKE __m512 _mm512_reduce_ps(__m512 a, int imm)
{
    for (int i = 0; i < 16; i++)
        a[i] = imm != 0x09 ? NAN : isinf(a[i]) ? 0 : a[i] - floorf(a[i]);
    return a;
}

TS_FAKE __m512 _mm512_scalef_ps(__m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++) {
        float e = floorf(b[i]);
        a[i] = isnan(a[i]) || isnan(e) ? NAN
                                       : ldexpf(a[i], e < -400  ? -400
                                                      : e > 400 ? 400
                                                                : (int)e);
    }
    return a;
}

#define _mm512_mask_scalef_ps(src, k, a, b) _mm512_mask_mov_ps(src, k, _mm512_scalef_ps(a, b))
#define _mm512_maskz_scalef_ps(k, a, b)                                                            \
    _mm512_mask_mov_ps(_mm512_setzero_ps(), k, _mm512_scalef_ps(a, b))

#define _CMP_NEQ_UQ 4
#define _CMP_LT_OQ  17
#define _CMP_GT_OQ  30

TS_FAKE __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int op)
{
    unsigned k = 0;
    for (int i = 0; i < 16; i++) {
        bool yes = op == _CMP_LT_OQ   ? a[i] < b[i]
                   : op == _CMP_GT_OQ ? a[i] > b[i]
                                      : op == _CMP_NEQ_UQ && a[i] != b[i];
        k |= (unsigned)yes << i;
    }
    return (__mmask16)k;
}

static inline __attribute__((unused)) float ts_fake_bf16(uint32_t word)
{
    word <<= 16;
    if ((word & 0x7f800000) == 0)
        word &= 0x80000000; /* subnormal */
    float f;
    memcpy(&f, &word, sizeof f);
    return f;
}

/* Pairs of BF16, the upper one of each first. */
TS_FAKE __m512 _mm512_dpbf16_ps(__m512 c, __m512bh x, __m512bh y)
{
    ts_u16 a = (ts_u16)x, b = (ts_u16)y;
    for (int i = 0; i < 16; i++)
        for (int j = 2 * i + 1; j >= 2 * i; j--)
            c[i] = (float)((double)ts_fake_bf16(a[j]) * ts_fake_bf16(b[j]) + c[i]);
    return c;
}

/* --- tiles: palette 1, all of 16 rows x 64 bytes ------------------------------------------ */

static _Thread_local __attribute__((unused)) uint8_t ts_fake_tile[8][16][64];

#define _tile_loadconfig(config) ((void)(config))
#define _tile_release()          memset(ts_fake_tile, 0xff, sizeof ts_fake_tile)
#define _tile_zero(t)            memset(ts_fake_tile[t], 0, 1024)

TS_FAKE void ts_fake_loadd(int t, const void *p, size_t stride)
{
    for (int r = 0; r < 16; r++)
        memcpy(ts_fake_tile[t][r], (const uint8_t *)p + (size_t)r * stride, 64);
}

TS_FAKE void ts_fake_stored(int t, void *p, size_t stride)
{
    for (int r = 0; r < 16; r++)
        memcpy((uint8_t *)p + (size_t)r * stride, ts_fake_tile[t][r], 64);
}

#define _tile_loadd(t, p, stride)  ts_fake_loadd(t, p, (size_t)(stride))
#define _tile_stored(t, p, stride) ts_fake_stored(t, p, (size_t)(stride))

/* c[row][column] += sum over pairs: a[row][pair] * b[pair][column]. */
static __attribute__((noinline, unused)) void ts_fake_dpbf16ps(int c, int a, int b)
{
    float x[16][16][2], y[16][16][2], z[16][16];
    for (int r = 0; r < 16; r++)
        for (int i = 0; i < 16; i++) {
            uint32_t u, v;
            memcpy(&u, ts_fake_tile[a][r] + 4 * i, 4);
            memcpy(&v, ts_fake_tile[b][r] + 4 * i, 4);
            for (int l = 0; l < 2; l++) {
                x[r][i][l] = ts_fake_bf16(u >> (16 * l) & 0xffff);
                y[r][i][l] = ts_fake_bf16(v >> (16 * l) & 0xffff);
            }
        }
    memcpy(z, ts_fake_tile[c], sizeof z);
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int i = 0; i < 16; i++)
                z[r][i] += x[r][k][0] * y[k][i][0] + x[r][k][1] * y[k][i][1];
    memcpy(ts_fake_tile[c], z, sizeof z);
}

#define _tile_dpbf16ps(c, a, b) ts_fake_dpbf16ps(c, a, b)

/* c[row][column] += sum over fours: a[row][four] * b[four][column], signed bytes. */
static __attribute__((noinline, unused)) void ts_fake_dpbssd(int c, int a, int b)
{
    int32_t z[16][16];
    memcpy(z, ts_fake_tile[c], sizeof z);
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) {
            int8_t x[4], y[16][4];
            memcpy(x, ts_fake_tile[a][r] + 4 * k, sizeof x);
            memcpy(y, ts_fake_tile[b][k], sizeof y);
            for (int i = 0; i < 16; i++)
                z[r][i] += x[0] * y[i][0] + x[1] * y[i][1] + x[2] * y[i][2] + x[3] * y[i][3];
        }
    memcpy(ts_fake_tile[c], z, sizeof z);
}

#define _tile_dpbssd(c, a, b) ts_fake_dpbssd(c, a, b)

#endif

/* r16_float_avx2.c - avx2 kernels of F32, F16 and BF16: FMA on floats, groups of 16 rows.
 *
 *     packed = [group of 16 rows][k][row of 16]
 *
 * 6 tokens x 16 rows are 12 accumulators: 8 are needed to hide the latency of two FMA units, and 8
 * loads for 12 products leave the load ports room. One token has 2 accumulators and waits for them,
 * but F16 at 32 bytes in 4 cycles is still above what memory delivers; more would make a token's
 * bits depend on its company. */
#include "cpu/kset/r8_avx2.h"
#include "cpu/prep.h"

#include <string.h>

enum { ROWS = 16 };

/* 8 rows of one k. */
TS_INLINE __m256 weights(ts_type type, const uint8_t *p)
{
    switch (type) {
    case TS_TYPE_F16:
        return ts_halves(p);
    case TS_TYPE_BF16:
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
    default:
        return _mm256_loadu_ps((const float *)p);
    }
}

TS_INLINE void tile(ts_type type, int n_tokens, const uint8_t *w, const uint8_t *x0, size_t ldx,
                    int64_t k, const ts_r8_out *out)
{
    const size_t half = type == TS_TYPE_F32 ? 32 : 16; /* bytes of 8 rows */
    const float *x[TS_TILE_TOKENS];
    __m256 acc[TS_TILE_TOKENS * 2];
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        x[t] = (const float *)(x0 + (size_t)t * ldx);
        acc[2 * t] = acc[2 * t + 1] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < k; i++, w += 2 * half) {
        __m256 a = weights(type, w), b = weights(type, w + half);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            __m256 v = _mm256_broadcast_ss(x[t] + i);
            acc[2 * t] = _mm256_fmadd_ps(a, v, acc[2 * t]);
            acc[2 * t + 1] = _mm256_fmadd_ps(b, v, acc[2 * t + 1]);
        }
    }
    ts_r8_store(out, n_tokens, 0, acc, 2);
    ts_r8_store(out, n_tokens, 8, acc + 1, 2);
}

/* A panel is what F32 is packed as. */
static size_t panel_bytes(void)
{
    return ROWS * sizeof(float);
}

TS_INLINE void make_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t k)
{
    for (int64_t i = 0; i < 2 * k; i++)
        _mm256_storeu_ps((float *)dst + 8 * i, weights(type, w + 16 * i));
}

/* 16 rows x 8 k of 16-bit elements. Rows lie `stride` bytes apart on either side: source rows, or
 * the k of a packed group. A transpose is its own inverse; this one does 8 x 8. */
TS_INLINE void transpose_8x8_16(uint8_t *dst, size_t dst_stride, const uint8_t *const row[8])
{
    __m128i a[8], b[8];
    TS_UNROLL
    for (int i = 0; i < 8; i++)
        a[i] = _mm_loadu_si128((const __m128i *)row[i]);
    TS_UNROLL
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    TS_UNROLL
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
    TS_UNROLL
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    TS_UNROLL
    for (int i = 0; i < 8; i++)
        _mm_storeu_si128((__m128i *)(dst + (size_t)i * dst_stride), b[i]);
}

TS_INLINE void transpose_8x4_32(uint8_t *dst, size_t dst_stride, const uint8_t *const row[8])
{
    __m256i v[4];
    TS_UNROLL
    for (int r = 0; r < 4; r++)
        v[r] = _mm256_loadu2_m128i((const __m128i *)row[r + 4], (const __m128i *)row[r]);
    ts_transpose(v);
    TS_UNROLL
    for (int i = 0; i < 4; i++)
        _mm256_storeu_si256((__m256i *)(dst + (size_t)i * dst_stride), v[i]);
}

static size_t bytes(ts_type type, int64_t n, int64_t k)
{
    return (size_t)((n + ROWS - 1) / ROWS * ROWS) * (size_t)k * (type == TS_TYPE_F32 ? 4 : 2);
}

/* Rows n0..n1. Whole 8 x 8 (8 x 4) squares go through registers, the rest element by element. */
TS_INLINE void pack(ts_type type, uint8_t *packed, const uint8_t *src, int64_t n, int64_t k,
                    int64_t n0, int64_t n1)
{
    const size_t e = type == TS_TYPE_F32 ? 4 : 2;
    const int64_t square = 16 / (int64_t)e;
    for (int64_t g = n0; g < n1; g += 8) { /* half a group */
        uint8_t *dst = packed + (size_t)(g / ROWS * ROWS * k) * e + (size_t)(g % ROWS) * e;
        int64_t i = 0;
        for (; i + square <= k && g + 8 <= n; i += square) {
            const uint8_t *row[8];
            for (int r = 0; r < 8; r++)
                row[r] = src + (size_t)((g + r) * k + i) * e;
            if (type == TS_TYPE_F32)
                transpose_8x4_32(dst + (size_t)(i * ROWS) * e, ROWS * e, row);
            else
                transpose_8x8_16(dst + (size_t)(i * ROWS) * e, ROWS * e, row);
        }
        for (; i < k; i++)
            for (int r = 0; r < 8; r++) {
                uint8_t *to = dst + (size_t)(i * ROWS + r) * e;
                if (g + r < n)
                    memcpy(to, src + (size_t)((g + r) * k + i) * e, e);
                else
                    memset(to, 0, e);
            }
        if (g + 8 >= n && g % ROWS == 0) /* the group's second half is past n */
            for (i = 0; i < k; i++)
                memset(dst + (size_t)(i * ROWS + 8) * e, 0, 8 * e);
    }
}

TS_INLINE void unpack(ts_type type, uint8_t *src, const uint8_t *packed, int64_t k, int64_t n0,
                      int64_t n1)
{
    const size_t e = type == TS_TYPE_F32 ? 4 : 2;
    for (int64_t r = n0; r < n1; r++) {
        const uint8_t *from = packed + (size_t)(r / ROWS * ROWS * k + r % ROWS) * e;
        uint8_t *to = src + (size_t)(r * k) * e;
        for (int64_t i = 0; i < k; i++, from += ROWS * e, to += e)
            memcpy(to, from, e);
    }
}

#define TILE(T, P, tokens)                                                                         \
    static void P##tokens##_##T(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t k,         \
                                const ts_r8_out *out)                                              \
    {                                                                                              \
        tile(TS_TYPE_##T, tokens, w, x, ldx, k, out);                                              \
    }
#define TILES(T)                                                                                   \
    TILE(T, tile, 1)                                                                               \
    TILE(T, tile, 2) TILE(T, tile, 3) TILE(T, tile, 4) TILE(T, tile, 5) TILE(T, tile, 6)
#define NAMES(T)                                                                                   \
    {                                                                                              \
        tile1_##T, tile2_##T, tile3_##T, tile4_##T, tile5_##T, tile6_##T                           \
    }

#define FLOAT(T, name, element, kind, panel_fn)                                                    \
    static const ts_packing packing_##T = {ROWS, 1, element, {{0, kind, 1}}};                      \
    static const ts_r8_kernels kernels_##T = {                                                     \
        .rows = ROWS,                                                                              \
        .block = 1,                                                                                \
        .bytes = element,                                                                          \
        .x_bytes = sizeof(float),                                                                  \
        .panel_bytes = panel_bytes,                                                                \
        .panel = panel_fn,                                                                         \
        .tokens = TS_TILE_TOKENS,                                                                  \
        .direct = NAMES(T),                                                                        \
        .tile = NAMES(F32),                                                                        \
    };                                                                                             \
    static size_t bytes_##T(int64_t n, int64_t k)                                                  \
    {                                                                                              \
        return bytes(TS_TYPE_##T, n, k);                                                           \
    }                                                                                              \
    static void pack_##T(void *packed, const void *src, int64_t n, int64_t k, int64_t n0,          \
                         int64_t n1)                                                               \
    {                                                                                              \
        pack(TS_TYPE_##T, packed, src, n, k, n0, n1);                                              \
    }                                                                                              \
    static void unpack_##T(void *src, const void *packed, int64_t n, int64_t k, int64_t n0,        \
                           int64_t n1)                                                             \
    {                                                                                              \
        (void)n;                                                                                   \
        unpack(TS_TYPE_##T, src, packed, k, n0, n1);                                               \
    }                                                                                              \
    TS_KSET_AVX2(T, name, ROWS, f32)

TILES(F32)
TILES(F16)
TILES(BF16)

static void panel_F16(uint8_t *dst, const uint8_t *w, int64_t k)
{
    make_panel(TS_TYPE_F16, dst, w, k);
}

static void panel_BF16(uint8_t *dst, const uint8_t *w, int64_t k)
{
    make_panel(TS_TYPE_BF16, dst, w, k);
}

FLOAT(F32, "f32.r16", 4, TS_PACK_DWORD, NULL)
FLOAT(F16, "f16.r16", 2, TS_PACK_HALF, panel_F16)
FLOAT(BF16, "bf16.r16", 2, TS_PACK_HALF, panel_BF16)

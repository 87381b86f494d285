/* r8_avx2.h - the product over packed groups of rows: the blocking around a type's tiles.
 *
 * A tile multiplies one group of rows by 1..`tokens` tokens over a run of k blocks. An accumulator
 * register is 8 rows of one token, so no sum goes across lanes. Tiles come in two forms that share
 * their body: direct   decodes the packed block in registers      few tokens: each weight is
 * decoded once panel    reads what was decoded into L1              many tokens: decoded once for
 * all of them */
#ifndef TS_KSET_R8_AVX2_H
#define TS_KSET_R8_AVX2_H

#include <immintrin.h>

#include "cpu/kset/r8.h"
#include "cpu/kset/unroll.h"

/* Keeps a chain of sums a chain: reordered into a tree, it needs more registers than there are. The
 * second makes a pointer new to the compiler, so that what was read through it is read again and
 * not spilled. */
#define TS_KEEP(v)   __asm__("" : "+x"(v))
#define TS_FORGET(p) __asm__("" : "+r"(p))

enum { TS_R8_TOKENS = 4, TS_TILE_TOKENS = 6 }; /* of the quantised types; of any type */

/* Where a tile leaves y[tokens][rows]. */
typedef struct ts_r8_out {
    float *y;
    int64_t ldy;
    int64_t rows; /* of the group that are rows of the matrix */
    int limbs;    /* consecutive rows of x that are one row of y: 1 or 2 */
    /* [tokens][rows] to add, or NULL: what the caller wants added, and then, for every chunk of k
     * but the first, y itself */
    const float *add;
    int64_t ldadd;
} ts_r8_out;

/* w: nb blocks, packed or panel. x: the first token's block, tokens ldx bytes apart. */
typedef void ts_r8_tile(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t nb,
                        const ts_r8_out *out);

typedef struct ts_r8_kernels {
    int rows;       /* of a group                                                            */
    int block;      /* elements of k                                                         */
    size_t bytes;   /* of a block in a source row; times rows, of a packed block             */
    size_t x_bytes; /* activations of one token and block                                   */
    /* A panel block of a group; panel is NULL where the packed block will do.             */
    size_t (*panel_bytes)(void);
    void (*panel)(uint8_t *dst, const uint8_t *w, int64_t nb);
    int tokens;                         /* a tile takes at most */
    ts_r8_tile *direct[TS_TILE_TOKENS]; /* [tokens - 1]           */
    ts_r8_tile *tile[TS_TILE_TOKENS];
} ts_r8_kernels;

void ts_r8_mul(const ts_r8_kernels *f, const ts_mul *p);

/* Asks for `bytes` of the packed stream a page ahead. The hardware stops at page ends, and a tile's
 * work on a block hides the next block from the window of instructions: without this, arithmetic
 * and memory take turns. */
TS_INLINE void ts_prefetch(const uint8_t *p, size_t bytes)
{
    TS_UNROLL
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)(p + 4096 + i), _MM_HINT_T0);
}

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

/* Transposes 4 dwords of rows r and r + 4 (halves of v[r]): v[i] becomes dword i of rows 0..7. It
 * is its own inverse. */
TS_INLINE void ts_transpose(__m256i v[4])
{
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm256_unpacklo_epi64(a, c);
    v[1] = _mm256_unpackhi_epi64(a, c);
    v[2] = _mm256_unpacklo_epi64(b, d);
    v[3] = _mm256_unpackhi_epi64(b, d);
}

/* acc: rows r..r + 7 of all tokens, `step` registers apart. */
TS_INLINE void ts_r8_store(const ts_r8_out *out, int tokens, int r, const __m256 *acc, int step)
{
    __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)out->rows - r),
                                      _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    TS_UNROLL
    for (int t = 0; t < tokens; t++) {
        bool pair = out->limbs == 2; /* tokens is even then */
        if (pair && t % 2)
            continue;
        const int token = pair ? t / 2 : t;
        float *y = out->y + token * out->ldy + r;
        __m256 v = acc[t * step];
        if (pair)
            v = _mm256_add_ps(v, acc[(t + 1) % tokens * step]);
        if (out->add)
            v = _mm256_add_ps(v, _mm256_maskload_ps(out->add + token * out->ldadd + r, mask));
        _mm256_maskstore_ps(y, mask, v);
    }
}

/* The exact counterpart of each preparation. */
#define TS_EXACT_f32    &ts_prep_f32_avx2
#define TS_EXACT_q8_32  &ts_prep_q15_32_avx2
#define TS_EXACT_q8_256 &ts_prep_q15_256_avx2

/* The ts_kset of a type, from its packing_T, bytes_T, pack_T, unpack_T and kernels_T. */
#define TS_KSET_AVX2(T, name, rows_, act)                                                          \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        ts_r8_mul(&kernels_##T, p);                                                                \
    }                                                                                              \
    extern const ts_kset ts_kset_##T##_avx2;                                                       \
    const ts_kset ts_kset_##T##_avx2 = {                                                           \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_AVX2,                                                                        \
        .layout = name,                                                                            \
        .prep = TS_EXACT_##act,                                                                    \
        .prep_int8 = &ts_prep_##act##_avx2,                                                        \
        .group = rows_,                                                                            \
        .packing = &packing_##T,                                                                   \
        .packed_bytes = bytes_##T,                                                                 \
        .pack = pack_##T,                                                                          \
        .unpack = unpack_##T,                                                                      \
        .mul = mul_##T,                                                                            \
    };

/* The same for a quantised type whose blocks are block_ elements and source_bytes bytes, of the
 * fields that follow (ts_pack_field). The file's panel_bytes, make_panel, direct and tile take the
 * type first: inlined, its branches are gone. */
#define TS_R8_TILE(T, form, tokens)                                                                \
    static void form##tokens##_##T(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t nb,     \
                                   const ts_r8_out *out)                                           \
    {                                                                                              \
        form(TS_TYPE_##T, tokens, w, x, ldx, nb, out);                                             \
    }
#define TS_R8_TILES(T, form)                                                                       \
    TS_R8_TILE(T, form, 1)                                                                         \
    TS_R8_TILE(T, form, 2)                                                                         \
    TS_R8_TILE(T, form, 3)                                                                         \
    TS_R8_TILE(T, form, 4)
#define TS_R8_KSET(T, name, block_, source_bytes, ...)                                             \
    static const ts_packing packing_##T = {TS_R8_ROWS, block_, source_bytes, {__VA_ARGS__}};       \
    TS_R8_TILES(T, direct)                                                                         \
    TS_R8_TILES(T, tile)                                                                           \
    static size_t panel_bytes_##T(void)                                                            \
    {                                                                                              \
        return panel_bytes(TS_TYPE_##T);                                                           \
    }                                                                                              \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t nb)                              \
    {                                                                                              \
        make_panel(TS_TYPE_##T, dst, w, nb);                                                       \
    }                                                                                              \
    static const ts_r8_kernels kernels_##T = {                                                     \
        .rows = TS_R8_ROWS,                                                                        \
        .block = block_,                                                                           \
        .bytes = source_bytes,                                                                     \
        .x_bytes = sizeof(ts_x##block_),                                                           \
        .panel_bytes = panel_bytes_##T,                                                            \
        .panel = panel_##T,                                                                        \
        .tokens = TS_R8_TOKENS,                                                                    \
        .direct = {direct1_##T, direct2_##T, direct3_##T, direct4_##T},                            \
        .tile = {tile1_##T, tile2_##T, tile3_##T, tile4_##T},                                      \
    };                                                                                             \
    static size_t bytes_##T(int64_t n, int64_t k)                                                  \
    {                                                                                              \
        return ts_r8_bytes(&packing_##T, n, k);                                                    \
    }                                                                                              \
    static void pack_##T(void *packed, const void *src, int64_t n, int64_t k, int64_t n0,          \
                         int64_t n1)                                                               \
    {                                                                                              \
        ts_r8_pack(&packing_##T, packed, src, n, k, n0, n1);                                       \
    }                                                                                              \
    static void unpack_##T(void *src, const void *packed, int64_t n, int64_t k, int64_t n0,        \
                           int64_t n1)                                                             \
    {                                                                                              \
        ts_r8_unpack(&packing_##T, src, packed, n, k, n0, n1);                                     \
    }                                                                                              \
    TS_KSET_AVX2(T, name, TS_R8_ROWS, q8_##block_)

#endif

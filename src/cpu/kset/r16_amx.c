/* r16_amx.c - amx kernels over groups of 16 rows: many tokens by tiles, few by the avx512 kernels
 * that read the same packed bytes. (Products with 8-bit activations: r16_int8_amx.c.)
 *
 * A k block of weights is made BF16 once, scales folded in, into a panel of tiles in cache; then
 *
 *     C[16 rows][16 tokens] += A[16 rows][32 k] (panel) * B[32 k][16 tokens] (activations)
 *
 * runs over it with 2 x 2 accumulators: 4 loads for 4 products, the best that 8 tiles allow. What a
 * tile of weights is made of is one row after the other, each with a scale of its own: so a table
 * of 16 levels times ds becomes one register, and VPERMW looks 32 codes up in it.
 *
 * A panel is read by up to 512 tokens before the next is made; their sums go to scratch between two
 * k blocks, and leave it transposed. With one or two tiles of tokens the sums stay in the tiles
 * over all of k, and the weights are read in the order they lie in. */
#include "cpu/kset/r16_code.h"
#include "cpu/kset/r16_tiles.h"
#include "cpu/kset/r16_transpose.h"
#include "cpu/prep.h"

enum {
    STEPS = TS_TILE_STEPS,    /* tiles along k of a panel: 512 elements              */
    PANEL = 2 * STEPS * TILE, /* of two groups                                       */
    NARROW = 4,               /* steps of a panel of floats that is read once        */
    AHEAD = 2,                /* tiles of activations asked for into L1 ahead of use */
};
_Static_assert(PANEL + SUMS <= TS_MUL_SCRATCH, "scratch of a product");

/* --- panels ------------------------------------------------------------------------- */

TS_INLINE __m512i to_bf16(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Levels of nibble types, offset included, as floats. */
TS_INLINE __m512 levels(ts_type type)
{
    if (!r16_is_table(type))
        return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i v = _mm_setr_epi32(r16_levels(type, 0), r16_levels(type, 1), r16_levels(type, 2),
                               r16_levels(type, 3));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v));
}

/* Rows r and r + 4 of a tile from their nibbles v (r in the lower half, bit 4 set in the upper):
 * both tables of 16 levels fill one register. */
TS_INLINE void nibble_rows(uint8_t *tile, int r, __m512i v, __m512 level, const float *ds,
                           const float *dm)
{
    __m512 a = _mm512_fmsub_ps(level, _mm512_set1_ps(ds[r]), _mm512_set1_ps(dm[r]));
    __m512 b = _mm512_fmsub_ps(level, _mm512_set1_ps(ds[r + 4]), _mm512_set1_ps(dm[r + 4]));
    __m512i table = to_bf16(a, b);
    /* VPERMW looks at 5 bits of a word: the byte above is in nobody's way */
    __m512i even = _mm512_permutexvar_epi16(v, table);
    __m512i odd = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), table);
    uint8_t *low = tile + 64 * r, *high = tile + 64 * (r + 4);
    _mm256_storeu_si256((__m256i *)low, _mm512_castsi512_si256(even));
    _mm256_storeu_si256((__m256i *)(low + 32), _mm512_castsi512_si256(odd));
    _mm256_storeu_si256((__m256i *)high, _mm512_extracti64x4_epi64(even, 1));
    _mm256_storeu_si256((__m256i *)(high + 32), _mm512_extracti64x4_epi64(odd, 1));
}

/* One row of a tile from its 32 codes. Sub-blocks of 16: k < 16 are the lower 8 lanes. */
TS_INLINE void code_row(uint8_t *tile, int sub, int r, __m256i codes, const float *ds,
                        const float *dm)
{
    __m512i v = _mm512_cvtepu16_epi32(codes);
    __m512 even = _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(255)));
    __m512 odd = _mm512_cvtepi32_ps(_mm512_srli_epi32(v, 8));
    __m512 s = _mm512_set1_ps(ds[r]), m = _mm512_set1_ps(dm[r]);
    if (sub == 16) {
        s = _mm512_mask_mov_ps(s, 0xff00, _mm512_set1_ps(ds[16 + r]));
        m = _mm512_mask_mov_ps(m, 0xff00, _mm512_set1_ps(dm[16 + r]));
    }
    _mm512_storeu_si512(tile + 64 * r,
                        to_bf16(_mm512_fmsub_ps(even, s, m), _mm512_fmsub_ps(odd, s, m)));
}

/* 16 rows x 32 k: sub-block s of packed block b. */
TS_INLINE void make_tile(ts_type type, uint8_t *tile, const uint8_t *b, int s, const float *ds,
                         const float *dm)
{
    const __m512i second = _mm512_maskz_mov_epi32(0xff00, _mm512_set1_epi8(16));
    TS_UNROLL
    for (int i = 0; i < 8; i++) {
        const int r = ts_r16_row(i);
        if (r16_is_nibble(type)) {
            nibble_rows(tile, r, r16_nibbles(type, b, s, i, second), levels(type), ds, dm);
        } else {
            __m512i c = r16_code(type, b, s, i, false);
            code_row(tile, r16_sub(type), r, _mm512_castsi512_si256(c), ds, dm);
            code_row(tile, r16_sub(type), r + 4, _mm512_extracti64x4_epi64(c, 1), ds, dm);
        }
    }
}

/* `steps` tiles of one group of rows, from tile k0 along k on. w: the group's first block. */
TS_INLINE void quant_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)
{
    const int per = r16_block(type) / 32, subs = 32 / r16_sub(type);
    w += (size_t)(k0 / per) * r16_block_bytes(type);
    for (; steps > 0; steps -= per, w += r16_block_bytes(type)) {
        _Alignas(64) float ds[16 * 16], dm[16 * 16];
        const float *scale = ds, *min = dm;
        r16_scales(type, w, ds, dm, false);
        /* Read back from memory, a scale is broadcast by a load; kept in registers it would take a
         * shuffle, and shuffles are what limits this loop. */
        __asm__ volatile("" : "+r"(scale), "+r"(min)::"memory");
        TS_UNROLL
        for (int s = 0; s < per; s++, dst += TILE) {
            r16_prefetch_sub(type, w, s);
            make_tile(type, dst, w, s, scale + 16 * subs * s, min + 16 * subs * s);
        }
    }
}

/* Packed 16-bit floats are tiles but for a transpose, F16 for a conversion too. */
TS_INLINE void float_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    /* words 0 16 1 17 2 18 ... */
    const __m512i interleave =
        _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), 16));
    w += (size_t)k0 * TILE;
    for (; steps > 0; steps--, w += TILE, dst += TILE) {
        r16_prefetch(w, TILE);
        TS_UNROLL
        for (int half = 0; half < 2; half++) {
            __m512i v[8], p[8];
            TS_UNROLL
            for (int j = 0; j < 8; j++) {
                v[j] = _mm512_loadu_si512(w + 64 * (8 * half + j));
                if (type == TS_TYPE_F16) {
                    __m512 a = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[j]));
                    __m512 b = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v[j], 16)));
                    v[j] = _mm512_permutexvar_epi16(interleave, to_bf16(a, b));
                }
            }
            ts_transpose_8x16(v, p);
            TS_UNROLL
            for (int i = 0; i < 8; i++) {
                uint8_t *row = dst + 64 * ts_r16_row(i) + 32 * half;
                _mm256_storeu_si256((__m256i *)row, _mm512_castsi512_si256(p[i]));
                _mm256_storeu_si256((__m256i *)(row + 4 * 64), _mm512_extracti64x4_epi64(p[i], 1));
            }
        }
    }
}

/* --- tiles -------------------------------------------------------------------------- */

TS_INLINE void load_sums(int groups, int tokens, const uint8_t *c, size_t group_stride)
{
    _tile_loadd(0, c, 64);
    if (tokens == 2)
        _tile_loadd(1, c + TILE, 64);
    if (groups == 2)
        _tile_loadd(2, c + group_stride, 64);
    if (groups == 2 && tokens == 2)
        _tile_loadd(3, c + group_stride + TILE, 64);
}

/* a: panel, the second group's STEPS tiles on. b: tiles of activations, the second tile of tokens'
 * b_stride bytes on. */
TS_INLINE void products(int groups, int tokens, const uint8_t *a, const uint8_t *b, size_t b_stride,
                        int64_t steps)
{
    ts_tiles_see_stores();
    for (; steps > 0; steps--, a += TILE, b += TILE) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (tokens == 2) {
            _tile_loadd(7, b + b_stride, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (groups == 2) {
            _tile_loadd(5, a + STEPS * TILE, 64);
            _tile_dpbf16ps(2, 5, 6);
            if (tokens == 2)
                _tile_dpbf16ps(3, 5, 7);
        }
        prefetch_tile(b + AHEAD * TILE);
        if (tokens == 2)
            prefetch_tile(b + b_stride + AHEAD * TILE);
    }
}

typedef struct amx_job amx_job;
typedef void amx_panel(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps);
typedef void amx_narrow(const amx_job *j, int64_t n, int groups);

/* What a type brings. */
typedef struct amx_type {
    amx_panel *panel;
    amx_narrow *narrow; /* up to 32 tokens; NULL: by panels */
} amx_type;

struct amx_job {
    const ts_mul *p;
    amx_panel *panel;
    size_t group_bytes; /* of a packed group of rows  */
    int64_t m_tiles, k_tiles;
    uint8_t *panel_mem, *sums;
};

static void make_panels(const amx_job *j, int64_t n, int groups, int64_t k0, int64_t steps)
{
    for (int g = 0; g < groups; g++)
        j->panel(j->panel_mem + g * STEPS * TILE,
                 (const uint8_t *)j->p->w + (size_t)(n / ROWS + g) * j->group_bytes, k0, steps);
}

/* One step of one, two or four groups, whose tiles follow each other at a. A second tile of tokens
 * only with one or two. */
TS_INLINE void step_products(int groups, bool two, const uint8_t *a, const uint8_t *b,
                             size_t b_stride)
{
    ts_tiles_see_stores();
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    prefetch_tile(b + AHEAD * TILE);
    if (groups >= 2) {
        _tile_loadd(5, a + TILE, 64);
        if (groups == 4)
            _tile_dpbf16ps(1, 5, 6);
        else
            _tile_dpbf16ps(2, 5, 6);
    }
    if (groups == 4) {
        _tile_loadd(4, a + 2 * TILE, 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(5, a + 3 * TILE, 64);
        _tile_dpbf16ps(3, 5, 6);
    } else if (two) {
        _tile_loadd(7, b + b_stride, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (groups == 2)
            _tile_dpbf16ps(3, 5, 7);
        prefetch_tile(b + b_stride + AHEAD * TILE);
    }
}

/* The activations of tile k for the first tile of tokens; *stride to the second's. */
TS_INLINE const uint8_t *narrow_x(const amx_job *j, int64_t k, size_t *stride)
{
    *stride = (size_t)ts_tile_steps(k / STEPS * STEPS, j->k_tiles) * TILE;
    return (const uint8_t *)j->p->x + (size_t)ts_tile_place(0, j->m_tiles, k, j->k_tiles) * TILE;
}

/* The tiles of step k of a panel of two steps. */
TS_INLINE uint8_t *ring(const amx_job *j, int groups, int64_t k)
{
    return j->panel_mem + (size_t)(k % 2 * groups) * TILE;
}

/* Four groups of rows from n on for up to 16 tokens, or one or two for up to 32: sums stay in the
 * tiles over all of k, weights are read in the order they lie in. The tiles of a step are made
 * before the products of the step before, so that what is loaded has left the store buffer and
 * products overlap with vector work. */
TS_INLINE void narrow_quant(ts_type type, int groups, const amx_job *j, int64_t n)
{
    const int per = r16_block(type) / 32, subs = 32 / r16_sub(type);
    const bool two = groups < 4 && j->m_tiles == 2;
    const uint8_t *w = (const uint8_t *)j->p->w + (size_t)(n / ROWS) * j->group_bytes, *b;
    size_t stride;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < j->k_tiles; k += per, w += r16_block_bytes(type)) {
        _Alignas(64) float ds[4][16 * 16], dm[4][16 * 16];
        for (int g = 0; g < groups; g++) {
            const uint8_t *wg = w + (size_t)g * j->group_bytes;
            r16_scales(type, wg, ds[g], dm[g], false);
        }
        const float *scale = ds[0], *min = dm[0];
        __asm__ volatile("" : "+r"(scale), "+r"(min)::"memory"); /* as in quant_panel */
        TS_UNROLL
        for (int s = 0; s < per; s++) {
            for (int g = 0; g < groups; g++) {
                const uint8_t *wg = w + (size_t)g * j->group_bytes;
                r16_prefetch_sub(type, wg, s);
                make_tile(type, ring(j, groups, k + s) + g * TILE, wg, s,
                          scale + 256 * g + 16 * subs * s, min + 256 * g + 16 * subs * s);
            }
            if (k + s > 0) {
                b = narrow_x(j, k + s - 1, &stride);
                step_products(groups, two, ring(j, groups, k + s - 1), b, stride);
            }
        }
    }
    b = narrow_x(j, j->k_tiles - 1, &stride);
    step_products(groups, two, ring(j, groups, j->k_tiles - 1), b, stride);
    if (groups < 4) {
        store_sums(groups, two ? 2 : 1, j->sums, BLOCK * TILE);
        return;
    }
    _tile_stored(0, j->sums, 64);
    _tile_stored(1, j->sums + BLOCK * TILE, 64);
    _tile_stored(2, j->sums + 2 * BLOCK * TILE, 64);
    _tile_stored(3, j->sums + 3 * BLOCK * TILE, 64);
}

/* The same of floats for one or two groups, by panels of a few steps. */
TS_INLINE void narrow(const amx_job *j, int groups, int tokens, int64_t n)
{
    zero_sums(groups, tokens);
    for (int64_t k0 = 0; k0 < j->k_tiles; k0 += STEPS) {
        const uint8_t *x = (const uint8_t *)j->p->x + (size_t)(k0 * tokens) * TILE;
        const int64_t block = ts_tile_steps(k0, j->k_tiles);
        for (int64_t k = 0; k < block; k += NARROW) {
            int64_t steps = smaller(NARROW, block - k);
            make_panels(j, n, groups, k0 + k, steps);
            products(groups, tokens, j->panel_mem, x + (size_t)k * TILE, (size_t)block * TILE,
                     steps);
        }
    }
    store_sums(groups, tokens, j->sums, BLOCK * TILE);
}

/* One k block of one or two groups for all tokens of a block; x: the block's first tile of this k,
 * c: the first group's sums. */
TS_INLINE void wide(const amx_job *j, int groups, const uint8_t *x, uint8_t *c, int64_t tiles,
                    int64_t steps, bool first)
{
    for (; tiles >= 2; tiles -= 2, x += 2 * steps * TILE, c += 2 * TILE) {
        if (first)
            zero_sums(groups, 2);
        else
            load_sums(groups, 2, c, BLOCK * TILE);
        products(groups, 2, j->panel_mem, x, (size_t)steps * TILE, steps);
        store_sums(groups, 2, c, BLOCK * TILE);
    }
    if (tiles == 1) {
        if (first)
            zero_sums(groups, 1);
        else
            load_sums(groups, 1, c, BLOCK * TILE);
        products(groups, 1, j->panel_mem, x, 0, steps);
        store_sums(groups, 1, c, BLOCK * TILE);
    }
}

/* Groups of rows from n on, at most STRIP, for `tiles` tiles of tokens from tile m on, at most a
 * block. */
static void strip(const amx_job *j, int64_t n, int groups, int64_t m, int64_t tiles)
{
    for (int64_t k = 0; k < j->k_tiles; k += STEPS) {
        int64_t steps = ts_tile_steps(k, j->k_tiles);
        int64_t place = ts_tile_place(m, j->m_tiles, k, j->k_tiles);
        const uint8_t *x = (const uint8_t *)j->p->x + (size_t)place * TILE;
        for (int g = 0; g < groups; g += 2) {
            uint8_t *c = j->sums + g * BLOCK * TILE;
            int now = groups - g < 2 ? 1 : 2;
            make_panels(j, n + g * ROWS, now, k, steps);
            if (now == 2)
                wide(j, 2, x, c, tiles, steps, k == 0);
            else
                wide(j, 1, x, c, tiles, steps, k == 0);
        }
    }
}

/* Up to `groups` groups of rows from n on for one or two tiles of tokens; returns how many. */
static int few(const amx_job *j, const amx_type *f, int64_t n, int groups)
{
    if (groups == 3)
        groups = 2;
    if (f->narrow)
        f->narrow(j, n, groups);
    else if (groups == 2 && j->m_tiles == 2)
        narrow(j, 2, 2, n);
    else if (groups == 2)
        narrow(j, 2, 1, n);
    else if (j->m_tiles == 2)
        narrow(j, 1, 2, n);
    else
        narrow(j, 1, 1, n);
    return groups;
}

static void tiles_mul(const amx_type *f, size_t group_bytes, const ts_mul *p)
{
    const int64_t groups = ts_tile_count(p->n1 - p->n0, ROWS);
    const int64_t m_tiles = ts_tile_count(p->m, TOKENS);
    amx_job j = {.p = p,
                 .panel = f->panel,
                 .group_bytes = group_bytes,
                 .m_tiles = m_tiles,
                 .k_tiles = ts_tile_count(p->k, 32),
                 .panel_mem = p->scratch,
                 .sums = (uint8_t *)p->scratch + PANEL};
    const int64_t at_once = m_tiles > 2 ? STRIP : m_tiles == 1 && f->narrow ? 4 : 2;
    for (int64_t m = 0; m < m_tiles; m += BLOCK) {
        int64_t tiles = smaller(BLOCK, m_tiles - m);
        for (int64_t g = 0, now; g < groups; g += now) {
            int64_t n = p->n0 + g * ROWS;
            now = smaller(at_once, groups - g);
            if (m_tiles > 2)
                strip(&j, n, (int)now, m, tiles);
            else
                now = few(&j, f, n, (int)now);
            for (int64_t i = 0; i < now; i++)
                for (int64_t t = 0; t < tiles; t++)
                    leave(p, j.sums + (i * BLOCK + t) * TILE, n + i * ROWS, (m + t) * TOKENS);
        }
    }
}

/* --- the sets --------------------------------------------------------------------- */

R16_TYPES(R16_INT8_MUL)

/* Tokens from which tiles are faster than VNNI, weights coming from memory and 16 threads
 * (docs/KERNELS.md has the figures): panels of Q2_K, Q3_K and F16 are the dearest for their bytes.
 */
#define FROM_Q4_0   5
#define FROM_Q4_1   5
#define FROM_Q5_0   5
#define FROM_Q5_1   5
#define FROM_Q8_0   5
#define FROM_IQ4_NL 5
#define FROM_MXFP4  5
#define FROM_Q2_K   6
#define FROM_Q3_K   9
#define FROM_Q4_K   5
#define FROM_Q5_K   5
#define FROM_Q6_K   5
#define FROM_IQ4_XS 5
#define FROM_F16    9
#define FROM_BF16   5

/* ts_prep_quant5_amx and the like, for a type. */
#define EXACT(kind, T)      EXACT_(kind, FROM_##T)
#define EXACT_(kind, from)  EXACT__(kind, from)
#define EXACT__(kind, from) TS_SYM(ts_prep_##kind##from##_amx)
#define INT8                TS_SYM(ts_prep_int8_amx)

#define QUANT_ON_TILES(T)                                                                          \
    static bool on_tiles_##T(bool int8, int64_t m)                                                 \
    {                                                                                              \
        return m >= (int8 ? TS_TILES8_MIN : FROM_##T);                                             \
    }
#define FLOAT_ON_TILES(T)                                                                          \
    static bool on_tiles_##T(bool int8, int64_t m)                                                 \
    {                                                                                              \
        (void)int8; /* activations stay floats */                                                  \
        return m >= FROM_##T;                                                                      \
    }

#define KSET(T, name, exact, int8)                                                                 \
    TS_R16_PACKING(T)                                                                              \
    extern const ts_kset TS_SYM(ts_kset_##T##_amx);                                                \
    const ts_kset TS_SYM(ts_kset_##T##_amx) = {                                                    \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_AMX,                                                                         \
        .layout = #name ".r16",                                                                    \
        .prep = &exact,                                                                            \
        .prep_int8 = &int8,                                                                        \
        .group = ROWS,                                                                             \
        .packing = &ts_r16_packing[TS_TYPE_##T],                                                   \
        .packed_bytes = bytes_##T,                                                                 \
        .pack = pack_##T,                                                                          \
        .unpack = unpack_##T,                                                                      \
        .mul = mul_##T,                                                                            \
        .on_tiles = on_tiles_##T,                                                                  \
    };

#define QUANT(T, name, act)                                                                        \
    extern const ts_kset TS_SYM(ts_kset_##T##_avx512);                                             \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)               \
    {                                                                                              \
        quant_panel(TS_TYPE_##T, dst, w, k0, steps);                                               \
    }                                                                                              \
    static void narrow_##T(const amx_job *j, int64_t n, int groups)                                \
    {                                                                                              \
        if (groups == 4)                                                                           \
            narrow_quant(TS_TYPE_##T, 4, j, n);                                                    \
        else if (groups == 2)                                                                      \
            narrow_quant(TS_TYPE_##T, 2, j, n);                                                    \
        else                                                                                       \
            narrow_quant(TS_TYPE_##T, 1, j, n);                                                    \
    }                                                                                              \
    static const amx_type amx_##T = {panel_##T, narrow_##T};                                       \
    QUANT_ON_TILES(T)                                                                              \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        if (!on_tiles_##T(p->limbs == 1, p->m))                                                    \
            TS_SYM(ts_kset_##T##_avx512).mul(p);                                                   \
        else if (p->limbs == 1)                                                                    \
            TS_SYM(ts_r16_int8_mul_##T)(p);                                                        \
        else                                                                                       \
            tiles_mul(&amx_##T, ts_r16_bytes(TS_TYPE_##T, ROWS, p->k), p);                         \
    }                                                                                              \
    KSET(T, name, EXACT(quant, T), INT8)
R16_TYPES(QUANT)

#define FLOAT(T, name)                                                                             \
    extern const ts_kset TS_SYM(ts_kset_##T##_avx512);                                             \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)               \
    {                                                                                              \
        float_panel(TS_TYPE_##T, dst, w, k0, steps);                                               \
    }                                                                                              \
    static const amx_type amx_##T = {panel_##T, NULL};                                             \
    FLOAT_ON_TILES(T)                                                                              \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        if (!on_tiles_##T(false, p->m))                                                            \
            TS_SYM(ts_kset_##T##_avx512).mul(p);                                                   \
        else                                                                                       \
            tiles_mul(&amx_##T, ts_r16_bytes(TS_TYPE_##T, ROWS, p->k), p);                         \
    }                                                                                              \
    KSET(T, name, EXACT(float, T), EXACT(float, T))
FLOAT(F16, f16)
FLOAT(BF16, bf16)

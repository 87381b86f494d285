/* r16_amx.c - amx kernels over groups of 16 rows: many tokens by tiles, few by the avx512 kernels
 * that read the same packed bytes.
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
#include "cpu/kset/r16_transpose.h"
#include "cpu/prep.h"
#include "cpu/prep_x16.h"
#include "cpu/tiles.h"

enum {
    ROWS = TS_R16_ROWS,
    TOKENS = 16,
    TILE = 1024,                    /* bytes */
    STEPS = TS_TILE_STEPS,          /* tiles along k of a panel: 512 elements               */
    STRIP = 8,                      /* groups of rows whose sums wait in scratch             */
    BLOCK = TS_MUL_TOKENS / TOKENS, /* tiles of tokens of a block                           */
    PANEL = 2 * STEPS * TILE,       /* of two groups                                        */
    SUMS = STRIP * BLOCK * TILE,
    NARROW = 4, /* steps of a panel that is read once, or one packed block */
    AHEAD = 2,  /* tiles of activations asked for into L1 ahead of use  */
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
            __m512i c = r16_code(type, b, s, i);
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
        r16_prefetch(w, r16_block_bytes(type));
        const float *scale = ds, *min = dm;
        r16_scales(type, w, ds, dm);
        /* Read back from memory, a scale is broadcast by a load; kept in registers it would take a
         * shuffle, and shuffles are what limits this loop. */
        __asm__ volatile("" : "+r"(scale), "+r"(min)::"memory");
        TS_UNROLL
        for (int s = 0; s < per; s++, dst += TILE)
            make_tile(type, dst, w, s, scale + 16 * subs * s, min + 16 * subs * s);
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

typedef void amx_panel(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps);

/* --- tiles -------------------------------------------------------------------------- */

/* Tiles 0..3: sums [group][tile of tokens]. 4, 5: weights. 6, 7: activations. */
TS_INLINE void zero_sums(int groups, int tokens)
{
    _tile_zero(0);
    if (tokens == 2)
        _tile_zero(1);
    if (groups == 2)
        _tile_zero(2);
    if (groups == 2 && tokens == 2)
        _tile_zero(3);
}

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

TS_INLINE void store_sums(int groups, int tokens, uint8_t *c, size_t group_stride)
{
    _tile_stored(0, c, 64);
    if (tokens == 2)
        _tile_stored(1, c + TILE, 64);
    if (groups == 2)
        _tile_stored(2, c + group_stride, 64);
    if (groups == 2 && tokens == 2)
        _tile_stored(3, c + group_stride + TILE, 64);
}

TS_INLINE void prefetch_tile(const uint8_t *p)
{
    TS_UNROLL
    for (int i = 0; i < TILE; i += 64)
        __builtin_prefetch(p + i);
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

/* y[tokens][16 rows], and what is added to it, from a tile of sums [16 rows][16 tokens]. */
static void leave(const ts_mul *p, const uint8_t *c, int64_t n, int64_t m)
{
    const int64_t tokens = p->m - m < TOKENS ? p->m - m : TOKENS, rows = p->n1 - n;
    const __mmask16 mask = rows >= ROWS ? 0xffff : (__mmask16)((1 << rows) - 1);
    _Alignas(64) float t[TOKENS][ROWS];
    for (int half = 0; half < 2; half++) {
        __m512i v[8], q[8];
        for (int r = 0; r < 8; r++)
            v[r] = _mm512_loadu_si512(c + 64 * (8 * half + r));
        ts_transpose_8x16(v, q);
        for (int i = 0; i < 8; i++) {
            float *to = t[ts_r16_row(i)] + 8 * half;
            _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(q[i]));
            _mm256_storeu_si256((__m256i *)(to + 4 * ROWS), _mm512_extracti64x4_epi64(q[i], 1));
        }
    }
    for (int64_t i = 0; i < tokens; i++) {
        __m512 v = _mm512_loadu_ps(t[i]);
        if (p->add)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, p->add + (m + i) * p->ldadd + n));
        _mm512_mask_storeu_ps(p->y + (m + i) * p->ldy + n, mask, v);
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

typedef struct amx_job {
    const ts_mul *p;
    amx_panel *panel;
    size_t group_bytes; /* of a packed group of rows  */
    int64_t m_tiles, k_tiles;
    int64_t narrow; /* steps of a panel that is read once: small, so that it stays in the L1 */
    uint8_t *panel_mem, *sums;
} amx_job;

static void make_panels(const amx_job *j, int64_t n, int groups, int64_t k0, int64_t steps)
{
    for (int g = 0; g < groups; g++)
        j->panel(j->panel_mem + g * STEPS * TILE,
                 (const uint8_t *)j->p->w + (size_t)(n / ROWS + g) * j->group_bytes, k0, steps);
}

/* One or two tiles of tokens: sums stay in the tiles. */
TS_INLINE void narrow(const amx_job *j, int groups, int tokens, int64_t n)
{
    zero_sums(groups, tokens);
    for (int64_t k0 = 0; k0 < j->k_tiles; k0 += STEPS) {
        const uint8_t *x = (const uint8_t *)j->p->x + (size_t)(k0 * tokens) * TILE;
        const int64_t block = ts_tile_steps(k0, j->k_tiles);
        for (int64_t k = 0; k < block; k += j->narrow) {
            int64_t steps = smaller(j->narrow, block - k);
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

static void tiles_mul(amx_panel *panel, int block, size_t group_bytes, const ts_mul *p)
{
    const int64_t groups = ts_tile_count(p->n1 - p->n0, ROWS);
    const int64_t m_tiles = ts_tile_count(p->m, TOKENS);
    amx_job j = {.p = p,
                 .panel = panel,
                 .group_bytes = group_bytes,
                 .m_tiles = m_tiles,
                 .k_tiles = ts_tile_count(p->k, 32),
                 .narrow = block / 32 > NARROW ? block / 32 : NARROW,
                 .panel_mem = p->scratch,
                 .sums = (uint8_t *)p->scratch + PANEL};
    const int64_t at_once = m_tiles <= 2 ? 2 : STRIP;
    for (int64_t m = 0; m < m_tiles; m += BLOCK) {
        int64_t tiles = smaller(BLOCK, m_tiles - m);
        for (int64_t g = 0; g < groups; g += at_once) {
            int64_t n = p->n0 + g * ROWS, now = smaller(at_once, groups - g);
            if (m_tiles > 2)
                strip(&j, n, (int)now, m, tiles);
            else if (now == 2 && tiles == 2)
                narrow(&j, 2, 2, n);
            else if (now == 2)
                narrow(&j, 2, 1, n);
            else if (tiles == 2)
                narrow(&j, 1, 2, n);
            else
                narrow(&j, 1, 1, n);
            for (int64_t i = 0; i < now; i++)
                for (int64_t t = 0; t < tiles; t++)
                    leave(p, j.sums + (i * BLOCK + t) * TILE, n + i * ROWS, (m + t) * TOKENS);
        }
    }
}

/* --- the sets --------------------------------------------------------------------- */

static bool on_tiles(int64_t m)
{
    return m >= TS_TILES_MIN;
}

#define KSET(T, name, exact, few, int8)                                                            \
    extern const ts_kset TS_SYM(ts_kset_##T##_avx512);                                             \
    TS_R16_PACKING(T)                                                                              \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        if (p->m < TS_TILES_MIN || p->limbs < few)                                                 \
            TS_SYM(ts_kset_##T##_avx512).mul(p);                                                   \
        else                                                                                       \
            tiles_mul(panel_##T, block_##T, ts_r16_bytes(TS_TYPE_##T, ROWS, p->k), p);             \
    }                                                                                              \
    extern const ts_kset TS_SYM(ts_kset_##T##_amx);                                                \
    const ts_kset TS_SYM(ts_kset_##T##_amx) = {                                                    \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_AMX,                                                                         \
        .layout = #name ".r16",                                                                    \
        .prep = &TS_SYM(exact),                                                                    \
        .prep_int8 = &TS_SYM(int8),                                                                \
        .group = ROWS,                                                                             \
        .packed_bytes = bytes_##T,                                                                 \
        .pack = pack_##T,                                                                          \
        .unpack = unpack_##T,                                                                      \
        .mul = mul_##T,                                                                            \
        .on_tiles = on_tiles,                                                                      \
    };
#define AMX_INT8_Q8_32  ts_prep_q8_32_avx512
#define AMX_INT8_Q8_256 ts_prep_q8_256_avx512

#define QUANT(T, name, act)                                                                        \
    enum { block_##T = TS_ACT_##act == TS_ACT_Q8_256 ? 256 : 32 };                                 \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)               \
    {                                                                                              \
        quant_panel(TS_TYPE_##T, dst, w, k0, steps);                                               \
    }                                                                                              \
    KSET(T, name, ts_prep_quant_amx, 2, AMX_INT8_##act)
R16_TYPES(QUANT)

#define FLOAT(T, name)                                                                             \
    enum { block_##T = 32 };                                                                       \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t k0, int64_t steps)               \
    {                                                                                              \
        float_panel(TS_TYPE_##T, dst, w, k0, steps);                                               \
    }                                                                                              \
    KSET(T, name, ts_prep_float_amx, 1, ts_prep_float_amx)
FLOAT(F16, f16)
FLOAT(BF16, bf16)

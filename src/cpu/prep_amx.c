/* prep_amx.c - activations for the amx kernel sets: BF16 tiles from TS_TILES_MIN tokens on, int8
 * tiles from TS_TILES8_MIN on, below them what the avx512 kernels read. */
#include "cpu/prep.h"
#include "cpu/prep_x16.h"

#include <string.h>

#include "cpu/intrin.h"
#include "cpu/kset/r16.h"
#include "cpu/kset/r16_transpose.h"

enum { TOKENS = 16, TILE = 1024 };

/* 32 elements of one token as the 16 dwords of its column. */
TS_INLINE __m512i column(const float *x)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_permutex2var_ps(a, odd, b),
                                        _mm512_permutex2var_ps(a, even, b));
}

/* The same of fewer than 32. */
static __m512i last_column(const float *x, int64_t n)
{
    float y[32] = {0};
    memcpy(y, x, (size_t)n * sizeof *y);
    return column(y);
}

/* The first `tokens` of a tile; the others are zeros. */
static void whole_tile(uint8_t *tile, const float *x, int64_t ldx, int64_t tokens, int64_t n)
{
    for (int half = 0; half < 2; half++) {
        __m512i v[8], p[8];
        for (int t = 0; t < 8; t++) {
            const float *row = x + (8 * half + t) * ldx;
            v[t] = 8 * half + t >= tokens ? _mm512_setzero_si512()
                   : n >= 32              ? column(row)
                                          : last_column(row, n);
        }
        /* dwords of token t in v[t] -> 8 tokens of pair j: halves of p */
        ts_transpose_8x16(v, p);
        for (int i = 0; i < 8; i++) {
            int j = ts_r16_row(i);
            uint8_t *to = tile + 32 * half;
            _mm256_storeu_si256((__m256i *)(to + 64 * j), _mm512_castsi512_si256(p[i]));
            _mm256_storeu_si256((__m256i *)(to + 64 * (j + 4)), _mm512_extracti64x4_epi64(p[i], 1));
        }
    }
}

/* Where a tile's tokens are cut: right, but slow. Threads that each bring a token write to the same
 * cache lines. */
static void one_token(uint8_t *tile, int64_t t, const float *x, int64_t n)
{
    uint32_t d[16];
    _mm512_storeu_si512(d, n >= 32 ? column(x) : last_column(x, n));
    for (int j = 0; j < 16; j++)
        memcpy(tile + 64 * j + 4 * t, &d[j], 4);
}

static void tiles_run(uint8_t *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                      int64_t m1, int64_t k0, int64_t k1)
{
    int64_t nk = ts_tile_count(k, 32), nm = ts_tile_count(m, TOKENS);
    for (int64_t t = m0; t < m1;) {
        int64_t tokens = m - t < TOKENS ? m - t : TOKENS;
        bool whole = t % TOKENS == 0 && t + tokens <= m1;
        for (int64_t i = k0 / 32; i < ts_tile_count(k1, 32); i++) {
            uint8_t *tile = dst + (size_t)ts_tile_place(t / TOKENS, nm, i, nk) * TILE;
            const float *xi = x + t * ldx + 32 * i;
            int64_t n = k - 32 * i;
            if (whole) {
                whole_tile(tile, xi, ldx, tokens, n);
                continue;
            }
            one_token(tile, t % TOKENS, xi, n);
            if (t == m - 1) /* tokens that only fill up */
                for (int j = 0; j < 16; j++)
                    memset(tile + 64 * j + 4 * (m % TOKENS), 0,
                           m % TOKENS ? (size_t)(64 - 4 * (m % TOKENS)) : 0);
        }
        t += whole ? TOKENS : 1;
    }
}

static size_t tiles_bytes(int64_t m, int64_t k)
{
    return (size_t)ts_tile_count(m, TOKENS) * (size_t)ts_tile_count(k, 32) * TILE;
}

/* --- int8 tiles ------------------------------------------------------------------- */

/* What a token's n elements of a k block are multiplied with, and in *d the scale of the codes. */
static float block_scale(const float *x, int64_t n, float *d)
{
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    __m512i a = _mm512_setzero_si512(), b = a; /* as integers a NaN is the largest of all */
    for (int64_t i = 0; i < n; i += 32) {
        a = _mm512_max_epi32(a, _mm512_and_si512(_mm512_loadu_si512(x + i), abs));
        b = _mm512_max_epi32(b, _mm512_and_si512(_mm512_loadu_si512(x + i + 16), abs));
    }
    float scale;
    *d = ts_act_scale(_mm512_reduce_max_epi32(_mm512_max_epi32(a, b)), 127, &scale);
    return scale;
}

TS_INLINE __m512i codes16(const float *x, float scale)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(scale)));
}

/* The codes of 64 elements of a token, or of 32 and as many zeros: dword 4 l + i has elements 16 i
 * + 4 l and the three after it. */
TS_INLINE __m512i fours(const float *x, int64_t n, float scale)
{
    if (scale == 0)
        return _mm512_setzero_si512();
    __m512i low = _mm512_packs_epi32(codes16(x, scale), codes16(x + 16, scale));
    __m512i high = n <= 32 ? _mm512_setzero_si512()
                           : _mm512_packs_epi32(codes16(x + 32, scale), codes16(x + 48, scale));
    return _mm512_packs_epi16(low, high);
}

/* Dword d of them is four number ... */
static inline int four_of(int d)
{
    return 4 * (d % 4) + d / 4;
}

/* k elements of the first `tokens` of 16, one k block; the others are zeros. */
static void whole_block(uint8_t *dst, const float *x, int64_t ldx, int64_t tokens, int64_t k)
{
    const int64_t steps = ts_tile_count(k, TS_TILE8_K);
    float scale[TOKENS] = {0}, *d = (float *)(dst + steps * TILE);
    for (int t = 0; t < TOKENS; t++) {
        d[t] = 0;
        if (t < tokens)
            scale[t] = block_scale(x + t * ldx, k, &d[t]);
    }
    for (int64_t s = 0; s < steps; s++, x += TS_TILE8_K, k -= TS_TILE8_K, dst += TILE)
        for (int half = 0; half < 2; half++) {
            __m512i v[8], p[8];
            for (int t = 0; t < 8; t++)
                v[t] = fours(x + (8 * half + t) * ldx, k, scale[8 * half + t]);
            /* dwords of token t in v[t] -> 8 tokens of four j: halves of p */
            ts_transpose_8x16(v, p);
            for (int i = 0; i < 8; i++) {
                int r = ts_r16_row(i);
                uint8_t *to = dst + 32 * half;
                _mm256_storeu_si256((__m256i *)(to + 64 * four_of(r)),
                                    _mm512_castsi512_si256(p[i]));
                _mm256_storeu_si256((__m256i *)(to + 64 * four_of(r + 4)),
                                    _mm512_extracti64x4_epi64(p[i], 1));
            }
        }
}

/* Where a tile's tokens are cut: token t alone. */
static void one_of_block(uint8_t *dst, int64_t t, const float *x, int64_t k)
{
    const int64_t steps = ts_tile_count(k, TS_TILE8_K);
    float scale = block_scale(x, k, (float *)(dst + steps * TILE) + t);
    for (int64_t s = 0; s < steps; s++, x += TS_TILE8_K, k -= TS_TILE8_K, dst += TILE) {
        uint32_t c[16];
        _mm512_storeu_si512(c, fours(x, k, scale));
        for (int i = 0; i < 16; i++)
            memcpy(dst + 64 * four_of(i) + 4 * t, &c[i], 4);
    }
}

/* The tokens from t on that only fill up: zeros in all lines, of which the scales are the last. */
static void fill_up(uint8_t *dst, int64_t t, int64_t k)
{
    for (int64_t i = 0; i <= 16 * ts_tile_count(k, TS_TILE8_K); i++)
        memset(dst + 64 * i + 4 * t, 0, (size_t)(64 - 4 * t));
}

/* k0 begins a k block. */
static void tiles8_run(uint8_t *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1, int64_t k0, int64_t k1)
{
    int64_t nk = ts_tile_count(k, TS_TILE8_K), nm = ts_tile_count(m, TOKENS);
    for (int64_t t = m0; t < m1;) {
        int64_t tokens = m - t < TOKENS ? m - t : TOKENS;
        bool whole = t % TOKENS == 0 && t + tokens <= m1;
        for (int64_t i = k0 / TS_TILE8_K; i * TS_TILE8_K < k1; i += TS_TILE8_STEPS) {
            uint8_t *block = dst + ts_tile8_place(t / TOKENS, nm, i, nk);
            const float *xi = x + t * ldx + TS_TILE8_K * i;
            int64_t n = k - TS_TILE8_K * i;
            if (n > TS_TILE8_K * TS_TILE8_STEPS)
                n = TS_TILE8_K * TS_TILE8_STEPS;
            if (whole) {
                whole_block(block, xi, ldx, tokens, n);
                continue;
            }
            one_of_block(block, t % TOKENS, xi, n);
            if (t == m - 1 && m % TOKENS)
                fill_up(block, m % TOKENS, n);
        }
        t += whole ? TOKENS : 1;
    }
}

static size_t tiles8_bytes(int64_t m, int64_t k)
{
    int64_t nk = ts_tile_count(k, TS_TILE8_K), last = nk % TS_TILE8_STEPS;
    size_t bytes = (size_t)(nk / TS_TILE8_STEPS) * ts_tile8_bytes(TS_TILE8_STEPS);
    return (size_t)ts_tile_count(m, TOKENS) * (bytes + (last ? ts_tile8_bytes(last) : 0));
}

/* --- formats ------------------------------------------------------------------------ */

/* `few` below `from` tokens, else tiles. */
#define PREP(name, few, tiles, from, act, limbs, k_group)                                          \
    static size_t name##_bytes(int64_t m, int64_t k)                                               \
    {                                                                                              \
        size_t a = few.bytes(m < from ? m : from - 1, k), b = tiles##_bytes(m, k);                 \
        return a > b ? a : b;                                                                      \
    }                                                                                              \
    static void name##_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k,           \
                           int64_t m0, int64_t m1, int64_t k0, int64_t k1)                         \
    {                                                                                              \
        if (m < from)                                                                              \
            few.run(dst, x, ldx, m, k, m0, m1, k0, k1);                                            \
        else                                                                                       \
            tiles##_run(dst, x, ldx, m, k, m0, m1, k0, k1);                                        \
    }                                                                                              \
    const ts_prep TS_SYM(ts_prep_##name##_amx) = {act,     TS_ISA_AMX,   limbs,      TOKENS,       \
                                                  k_group, name##_bytes, name##_run, from};

/* A session's buffer has the bytes of the exact format and holds either: with k = 32 the other one
 * is larger. */
static size_t quant_tiles_bytes(int64_t m, int64_t k)
{
    size_t a = tiles_bytes(m, k), b = tiles8_bytes(m, k);
    return a > b ? a : b;
}
#define quant_tiles_run tiles_run

PREP(quant, TS_SYM(ts_prep_q15_avx512), quant_tiles, TS_TILES_MIN, TS_ACT_Q8_32, 2, 32)
PREP(float, TS_SYM(ts_prep_f32_avx512), tiles, TS_TILES_MIN, TS_ACT_F32, 1, 32)

/* One format for all quantised types, so that their products share it. */
PREP(int8, TS_SYM(ts_prep_q8_32_avx512), tiles8, TS_TILES8_MIN, TS_ACT_Q8_32, 1,
     TS_TILE8_K *TS_TILE8_STEPS)

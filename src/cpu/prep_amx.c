/* prep_amx.c - activations for the amx kernel sets: BF16 tiles from 5 tokens on (of some types
 * later), int8 tiles from TS_TILES8_MIN on, below them what the avx512 kernels read. */
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

/* --- int8 tiles: spare codes ------------------------------------------------------ */

enum { SPARES = TS_TILE8_K, BLOCK = TS_TILE8_K * TS_TILE8_STEPS };

/* Who has the spare codes of a k block. The codes of an element are filled one after the other. */
typedef struct spares {
    float part[BLOCK];                 /* 1 / (1 + spare codes) of each element            */
    int n;                             /* spare codes that are somebody's                  */
    int16_t element[SPARES];           /* of each spare code; 0 where it is nobody's       */
    int32_t low[SPARES], high[SPARES]; /* what of a code its element's codes before it hold */
} spares;

/* How large the n elements of a k block are: of every m_tiles-th token, as a part of all that the
 * token has of the block, the largest. Which tokens those are doesn't depend on the zeros that fill
 * up the last tile. */
static void element_sizes(float *size, const float *x, int64_t ldx, int64_t m, int64_t n)
{
    memset(size, 0, (size_t)n * sizeof *size);
    for (int64_t t = 0; t < m; t += ts_tile_count(m, TOKENS)) {
        const float *row = x + t * ldx;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < n; i += 16) {
            __m512 v = _mm512_loadu_ps(row + i);
            sum = _mm512_fmadd_ps(v, v, sum);
        }
        const float squares = _mm512_reduce_add_ps(sum);
        if (!(squares > 0 && squares < INFINITY))
            continue;
        const __m512 scale = _mm512_set1_ps(1 / sqrtf(squares));
        for (int64_t i = 0; i < n; i += 16) {
            __m512 v = _mm512_mul_ps(_mm512_abs_ps(_mm512_loadu_ps(row + i)), scale);
            _mm512_storeu_ps(size + i, _mm512_max_ps(v, _mm512_loadu_ps(size + i)));
        }
    }
}

/* An element has a spare code for every `1 / per` of its size. */
TS_INLINE __m512i spare_count(const float *size, float per)
{
    return _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_loadu_ps(size), _mm512_set1_ps(per)));
}

static int spare_sum(const float *size, int64_t n, float per)
{
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16)
        sum = _mm512_add_epi32(sum, spare_count(size + i, per));
    return _mm512_reduce_add_epi32(sum);
}

/* Gives the spare codes of a k block to its largest elements, so that the largest size a code has
 * to hold is as small as it can be. A function of all m tokens: every thread finds the same. */
static void find_spares(spares *s, const float *x, int64_t ldx, int64_t m, int64_t n)
{
    enum { HALVINGS = 16 };
    float size[BLOCK], max = 0, per = 0;
    element_sizes(size, x, ldx, m, n);
    for (int64_t i = 0; i < n; i++)
        max = size[i] > max ? size[i] : max;
    float many = max > 0 ? (SPARES + 1) / max : 0;
    for (int i = 0; i < HALVINGS; i++) {
        const float half = 0.5f * (per + many);
        if (spare_sum(size, n, half) <= SPARES)
            per = half;
        else
            many = half;
    }
    int at = 0;
    for (int64_t i = 0; i < n; i += 16) {
        int32_t count[16];
        _mm512_storeu_si512(count, spare_count(size + i, per));
        for (int l = 0; l < 16; l++) {
            s->part[i + l] = 1.0f / (float)(1 + count[l]);
            for (int j = 1; j <= count[l]; j++, at++) {
                s->element[at] = (int16_t)(i + l);
                s->low[at] = -128 * j;
                s->high[at] = 127 * j;
            }
        }
    }
    for (s->n = at; at < SPARES; at++) {
        s->element[at] = 0;
        s->low[at] = INT32_MIN;
        s->high[at] = INT32_MAX;
    }
}

static void put_elements(uint8_t *head, const spares *s)
{
    for (int j = 0; j < SPARES; j++) {
        head[j] = (uint8_t)(s->element[j] % TS_TILE8_K);
        head[SPARES + j] = j < s->n ? (uint8_t)(s->element[j] / TS_TILE8_K) : TS_TILE8_NOBODY;
    }
}

/* --- int8 tiles ------------------------------------------------------------------- */

/* What a token's n elements of a k block are multiplied with, and in *d the scale of the codes. */
static float block_scale(const float *x, int64_t n, const spares *s, float *d)
{
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    __m512i a = _mm512_setzero_si512(), b = a; /* as integers a NaN is the largest of all */
    for (int64_t i = 0; i < n; i += 32) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(s->part + i));
        __m512 w = _mm512_mul_ps(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(s->part + i + 16));
        a = _mm512_max_epi32(a, _mm512_and_si512(_mm512_castps_si512(v), abs));
        b = _mm512_max_epi32(b, _mm512_and_si512(_mm512_castps_si512(w), abs));
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

/* The spare codes of a token, in the same order. */
static __m512i spare_fours(const spares *s, const float *x, float scale)
{
    if (scale == 0)
        return _mm512_setzero_si512();
    float y[SPARES];
    for (int j = 0; j < SPARES; j++)
        y[j] = x[s->element[j]];
    __m512i q[4];
    TS_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i c = codes16(y + 16 * i, scale), low = _mm512_loadu_si512(s->low + 16 * i);
        const __m512i held = _mm512_max_epi32(c, low);
        q[i] = _mm512_sub_epi32(c, _mm512_min_epi32(held, _mm512_loadu_si512(s->high + 16 * i)));
    }
    return _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
}

/* Codes of a token: step s of a k block of n elements, of which x is the first. */
TS_INLINE __m512i step_fours(const spares *sp, int64_t s, const float *x, int64_t n, float scale)
{
    const int64_t i = s * TS_TILE8_K;
    return i < n ? fours(x + i, n - i, scale) : spare_fours(sp, x, scale);
}

/* Dword d of them is four number ... */
static inline int four_of(int d)
{
    return 4 * (d % 4) + d / 4;
}

/* k elements of the first `tokens` of 16, one k block; the others are zeros. */
static void whole_block(uint8_t *dst, const spares *sp, const float *x, int64_t ldx, int64_t tokens,
                        int64_t k)
{
    const int64_t steps = ts_tile_count(k, TS_TILE8_K) + 1;
    float scale[TOKENS] = {0}, *d = (float *)(dst + steps * TILE);
    for (int t = 0; t < TOKENS; t++) {
        d[t] = 0;
        if (t < tokens)
            scale[t] = block_scale(x + t * ldx, k, sp, &d[t]);
    }
    for (int64_t s = 0; s < steps; s++, dst += TILE)
        for (int half = 0; half < 2; half++) {
            __m512i v[8], p[8];
            for (int t = 0; t < 8; t++)
                v[t] = step_fours(sp, s, x + (8 * half + t) * ldx, k, scale[8 * half + t]);
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
static void one_of_block(uint8_t *dst, const spares *sp, int64_t t, const float *x, int64_t k)
{
    const int64_t steps = ts_tile_count(k, TS_TILE8_K) + 1;
    float scale = block_scale(x, k, sp, (float *)(dst + steps * TILE) + t);
    for (int64_t s = 0; s < steps; s++, dst += TILE) {
        uint32_t c[16];
        _mm512_storeu_si512(c, step_fours(sp, s, x, k, scale));
        for (int i = 0; i < 16; i++)
            memcpy(dst + 64 * four_of(i) + 4 * t, &c[i], 4);
    }
}

/* The tokens from t on that only fill up: zeros in all lines, of which the scales are the last. */
static void fill_up(uint8_t *dst, int64_t t, int64_t k)
{
    for (int64_t i = 0; i <= 16 * (ts_tile_count(k, TS_TILE8_K) + 1); i++)
        memset(dst + 64 * i + 4 * t, 0, (size_t)(64 - 4 * t));
}

/* k0 begins a k block. */
static void tiles8_run(uint8_t *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                       int64_t m1, int64_t k0, int64_t k1)
{
    int64_t nk = ts_tile_count(k, TS_TILE8_K), nm = ts_tile_count(m, TOKENS);
    for (; k0 < k1; k0 += BLOCK) {
        const int64_t i = k0 / TS_TILE8_K, n = k - k0 < BLOCK ? k - k0 : BLOCK;
        spares s;
        find_spares(&s, x + k0, ldx, m, n);
        if (m0 == 0)
            put_elements(dst + ts_tile8_block(nm, i), &s);
        for (int64_t t = m0; t < m1;) {
            int64_t tokens = m - t < TOKENS ? m - t : TOKENS;
            bool whole = t % TOKENS == 0 && t + tokens <= m1;
            uint8_t *block = dst + ts_tile8_place(t / TOKENS, nm, i, nk);
            const float *xt = x + t * ldx + k0;
            if (whole) {
                whole_block(block, &s, xt, ldx, tokens, n);
            } else {
                one_of_block(block, &s, t % TOKENS, xt, n);
                if (t == m - 1 && m % TOKENS)
                    fill_up(block, m % TOKENS, n);
            }
            t += whole ? TOKENS : 1;
        }
    }
}

static size_t tiles8_bytes(int64_t m, int64_t k)
{
    int64_t nk = ts_tile_count(k, TS_TILE8_K), nm = ts_tile_count(m, TOKENS);
    int64_t last = (nk - 1) / TS_TILE8_STEPS * TS_TILE8_STEPS; /* k block */
    return ts_tile8_place(nm, nm, last, nk);
}

/* --- formats ------------------------------------------------------------------------ */

/* `few` below `from` tokens, else tiles. */
#define PREP(name, few, tiles, from, act, limbs, k_group, all_from, family)                        \
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
    const ts_prep TS_SYM(ts_prep_##name##_amx) = {act,      TS_ISA_AMX,   limbs,      TOKENS,      \
                                                  k_group,  name##_bytes, name##_run, from,        \
                                                  all_from, family};

/* A session's buffer has the bytes of the exact format and holds either: with k = 32 the other one
 * is larger. */
static size_t quant_tiles_bytes(int64_t m, int64_t k)
{
    size_t a = tiles_bytes(m, k), b = tiles8_bytes(m, k);
    return a > b ? a : b;
}
#define quant_tiles_run tiles_run

enum { QUANT = 1, FLOATS };

PREP(quant5, TS_SYM(ts_prep_q15_avx512), quant_tiles, 5, TS_ACT_Q8_32, 2, 32, 0, QUANT)
PREP(quant6, TS_SYM(ts_prep_q15_avx512), quant_tiles, 6, TS_ACT_Q8_32, 2, 32, 0, QUANT)
PREP(quant9, TS_SYM(ts_prep_q15_avx512), quant_tiles, 9, TS_ACT_Q8_32, 2, 32, 0, QUANT)
PREP(float5, TS_SYM(ts_prep_f32_avx512), tiles, 5, TS_ACT_F32, 1, 32, 0, FLOATS)
PREP(float9, TS_SYM(ts_prep_f32_avx512), tiles, 9, TS_ACT_F32, 1, 32, 0, FLOATS)

/* One format for all quantised types, so that their products share it. */
PREP(int8, TS_SYM(ts_prep_q8_32_avx512), tiles8, TS_TILES8_MIN, TS_ACT_Q8_32, 1, BLOCK,
     TS_TILES8_MIN, 0)

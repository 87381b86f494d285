/* prep_amx.c - activations for the amx kernel sets: from TS_TILES_MIN tokens on BF16 tiles, below
 * what the avx512 kernels read. */
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

#define PREP(name, few, act, limbs)                                                                \
    static size_t name##_bytes(int64_t m, int64_t k)                                               \
    {                                                                                              \
        size_t a = few.bytes(m < TS_TILES_MIN ? m : TS_TILES_MIN - 1, k), b = tiles_bytes(m, k);   \
        return a > b ? a : b;                                                                      \
    }                                                                                              \
    static void name##_run(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k,           \
                           int64_t m0, int64_t m1, int64_t k0, int64_t k1)                         \
    {                                                                                              \
        if (m < TS_TILES_MIN)                                                                      \
            few.run(dst, x, ldx, m, k, m0, m1, k0, k1);                                            \
        else                                                                                       \
            tiles_run(dst, x, ldx, m, k, m0, m1, k0, k1);                                          \
    }                                                                                              \
    const ts_prep TS_SYM(ts_prep_##name##_amx) = {act, TS_ISA_AMX,   limbs,      TOKENS,           \
                                                  32,  name##_bytes, name##_run, TS_TILES_MIN};

PREP(quant, TS_SYM(ts_prep_q15_avx512), TS_ACT_Q8_32, 2)
PREP(float, TS_SYM(ts_prep_f32_avx512), TS_ACT_F32, 1)

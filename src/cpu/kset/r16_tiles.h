/* r16_tiles.h - what the products by tiles over groups of 16 rows share, BF16 and int8: the sums of
 * a strip of rows in scratch, and how they get there from tiles and from there to y.
 *
 * Sums lie as [group of the strip][tile of tokens][row of 16][token of 16], 4 bytes each. */
#ifndef TS_KSET_R16_TILES_H
#define TS_KSET_R16_TILES_H

#include "cpu/intrin.h"
#include "cpu/kset/r16.h"
#include "cpu/kset/r16_transpose.h"
#include "cpu/kset/unroll.h"
#include "cpu/prep_x16.h"
#include "cpu/tiles.h"

enum {
    ROWS = TS_R16_ROWS,
    TOKENS = 16,
    TILE = 1024,                    /* bytes                                     */
    STRIP = 8,                      /* groups of rows whose sums wait in scratch */
    BLOCK = TS_MUL_TOKENS / TOKENS, /* tiles of tokens of a block                */
    SUMS = STRIP * BLOCK * TILE,
};

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
    TS_KEEP_POINTER(p);
    TS_UNROLL
    for (int i = 0; i < TILE; i += 64)
        __builtin_prefetch(p + i);
}

/* y[tokens][16 rows], and what is added to it, from a tile of sums [16 rows][16 tokens]. */
static inline void leave(const ts_mul *p, const uint8_t *c, int64_t n, int64_t m)
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

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The products of one type with 8-bit activations in tiles: TS_TILES8_MIN tokens or more. */
#define R16_INT8_MUL(T, name, act) void TS_SYM(ts_r16_int8_mul_##T)(const ts_mul *p);

#endif

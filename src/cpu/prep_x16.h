/* prep_x16.h - activations as the kernel sets of 16 rows read them.
 *
 * For VNNI (few tokens): one run of blocks of 32 elements a token, [token][k / 32]. Weights sit in
 * vectors of 16 rows x 4 consecutive k, so four codes of x are one broadcast dword. The sums beside
 * the codes take every offset and minimum of a weight type out of the k loop.
 *
 *     exact  q = 128 h + l in 15 bits: limb[0] = h, limb[1] = l      80 bytes
 *     int8   q in 8 bits: limb[0]                                    48 bytes
 *
 * For tiles (many tokens): BF16 in the order of the tile operand. A tile is 1 KB, 16 tokens by 32
 * elements,
 *
 *     [pair j of 16][token of 16][2]
 *
 * where pair j is k = ts_r16_pair(j) and ts_r16_pair(j) + 2 of the 32 (kset/r16.h). Tiles lie as
 *
 *     [k block of TS_TILE_STEPS tiles][16 tokens][step]
 *
 * so that what all tokens have of a k block is contiguous: at a stride of all of k, a power of two
 * in most models, they would share few sets of the L2. Tokens that fill up the last 16 are zeros,
 * and so are elements that fill up the last 32.
 *
 * int8 for tiles: q of 8 bits with a scale d for what a token has of a k block. A tile is 16 tokens
 * by 64 elements, in natural order,
 *
 *     [four j of 16][token of 16][4]
 *
 * One tile more holds what 8 bits don't: 64 spare codes, each for an element of the k block, the
 * same one for all tokens. An element is d times the sum of its codes,
 *
 *     x[i] = d (q[i] + sum of spare[j] where element[j] = i)
 *
 * and one with c spare codes may be 1 + c times as large as others. The spare codes' elements and
 * the 16 scales are lines of 64 bytes, the former before all tokens of a k block:
 *
 *     [k block of TS_TILE8_STEPS tiles]
 *         element[64] % 64, element[64] / 64                         bytes
 *         [16 tokens] { [step] tile, spare tile, d[token of 16] }
 *
 * A spare code that no element needs is zero; the second byte of its element is TS_TILE8_NOBODY.
 * Tokens that fill up have codes and scales of zero. */
#ifndef TS_PREP_X16_H
#define TS_PREP_X16_H

#include <stdint.h>

typedef struct ts_x16 {
    float d;            /* x = d * q                */
    float s;            /* d * sum(q)               */
    float s16[2];       /* d * sum(q) of each 16    */
    int8_t limb[1][32]; /* [limbs]               */
} ts_x16;

/* Bytes of a block. */
static inline size_t ts_x16_bytes(int limbs)
{
    return 16 + 32 * (size_t)limbs;
}

/* Tiles that n tokens (of = 16) or elements (of = 32) take. */
static inline int64_t ts_tile_count(int64_t n, int64_t of)
{
    return (n + of - 1) / of;
}

#define TS_TILE_STEPS 16

/* Tiles along k of the k block that begins at tile k, out of n. */
static inline int64_t ts_tile_steps(int64_t k, int64_t n)
{
    return n - k < TS_TILE_STEPS ? n - k : TS_TILE_STEPS;
}

/* The place of tile (token tile t of m_tiles, tile k of k_tiles) among all. */
static inline int64_t ts_tile_place(int64_t t, int64_t m_tiles, int64_t k, int64_t k_tiles)
{
    int64_t k0 = k / TS_TILE_STEPS * TS_TILE_STEPS;
    return k0 * m_tiles + t * ts_tile_steps(k0, k_tiles) + k - k0;
}

/* The same of int8 tiles, 64 elements each; places and sizes in bytes. */
enum { TS_TILE8_K = 64, TS_TILE8_STEPS = 8, TS_TILE8_HEAD = 2 * 64, TS_TILE8_NOBODY = 255 };

static inline int64_t ts_tile8_steps(int64_t k, int64_t n)
{
    return n - k < TS_TILE8_STEPS ? n - k : TS_TILE8_STEPS;
}

/* Of `steps` tiles, the spare one and their scales. */
static inline size_t ts_tile8_bytes(int64_t steps)
{
    return (size_t)(steps + 1) * 1024 + 64;
}

/* The place of the k block that begins at tile k, and of what token tile t has of it. */
static inline size_t ts_tile8_block(int64_t m_tiles, int64_t k)
{
    return (size_t)(k / TS_TILE8_STEPS) *
           (TS_TILE8_HEAD + (size_t)m_tiles * ts_tile8_bytes(TS_TILE8_STEPS));
}

static inline size_t ts_tile8_place(int64_t t, int64_t m_tiles, int64_t k, int64_t k_tiles)
{
    return ts_tile8_block(m_tiles, k) + TS_TILE8_HEAD +
           (size_t)t * ts_tile8_bytes(ts_tile8_steps(k, k_tiles));
}

/* With 8-bit activations the amx kernel sets compute with tiles from this many tokens on: they are
 * for prefill, and have no path of their own for few. Exact ones: r16_amx.c, by the type. */
#define TS_TILES8_MIN 17

#endif

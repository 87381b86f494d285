/* synth_blocks.c - random valid blocks of every type, at the speed of memory.
 *
 * A run of blocks is first filled with random bytes, word i of the run being a hash of seed and i,
 * so that any part can be made on its own. Then the scales, whose random bits choose a half from a
 * small table, are put right: everything else in a block is valid as it is. */
#include "gguf/synth.h"

#include <math.h>
#include <string.h>

/* The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
 */
static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const uint64_t golden_gamma = 0x9e3779b97f4a7c15u;

/* Bytes at..at+n of the run of `seed`; at is a multiple of 8. */
static void fill(uint8_t *dst, uint64_t at, size_t n, uint64_t seed)
{
    uint64_t z = mix64(seed + golden_gamma) + at / 8 * golden_gamma;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t r = mix64(z += golden_gamma);
        memcpy(dst + i, &r, 8);
    }
    if (i < n) {
        uint64_t r = mix64(z + golden_gamma);
        memcpy(dst + i, &r, n - i);
    }
}

/* --- scales of the block types ------------------------------------------ */

/* What makes a type's random block valid. With d and m multiplied by random factors of mean 1
 * from 0.5..1.5, values have mean 0 and the standard deviation `spread` times d. Types whose codes
 * have another mean than 0 get a random sign of d; those with a minimum one that cancels the mean.
 */
typedef struct recipe {
    float spread;
    int d_at, m_at; /* byte of the half d and of the half m or dmin; m_at 0 = there is none */
    float m;        /* m = this times d                                                     */
} recipe;

static const recipe recipes[TS_TYPE_COUNT] = {
    [TS_TYPE_Q4_0] = {4.826f, 0, 0, 0},      [TS_TYPE_Q4_1] = {5.692f, 0, 2, -7.5f},
    [TS_TYPE_Q5_0] = {9.624f, 0, 0, 0},      [TS_TYPE_Q5_1] = {11.506f, 0, 2, -15.5f},
    [TS_TYPE_Q8_0] = {76.92f, 0, 0, 0},      [TS_TYPE_IQ4_NL] = {70.19f, 0, 0, 0},
    [TS_TYPE_Q2_K] = {15.15f, 80, 82, 1.5f}, [TS_TYPE_Q3_K] = {45.11f, 108, 0, 0},
    [TS_TYPE_Q4_K] = {285.6f, 0, 2, 7.5f},   [TS_TYPE_Q5_K] = {583.5f, 0, 2, 15.5f},
    [TS_TYPE_Q6_K] = {1421.5f, 208, 0, 0},   [TS_TYPE_IQ4_XS] = {1297.1f, 0, 0, 0},
};

static void scale_table(uint16_t table[256], float base)
{
    for (int i = 0; i < 256; i++)
        table[i] = ts_f32_to_f16(base * (0.5f + ((float)i + 0.5f) / 256));
}

/* Replaces the random 16 bits at p: eight choose a factor, one the sign. */
static inline void put_half(uint8_t *p, const uint16_t table[256], uint16_t sign_mask)
{
    uint16_t r;
    memcpy(&r, p, sizeof r);
    r = (uint16_t)(table[r & 255] ^ (r & sign_mask));
    memcpy(p, &r, sizeof r);
}

static void fix_scales(const recipe *rc, int bytes, uint8_t *dst, int64_t n_blocks, float scale)
{
    uint16_t d[256], m[256];
    scale_table(d, scale / rc->spread);
    if (!rc->m_at) {
        for (int64_t i = 0; i < n_blocks; i++, dst += bytes)
            put_half(dst + rc->d_at, d, 0x8000);
        return;
    }
    scale_table(m, scale / rc->spread * rc->m);
    for (int64_t i = 0; i < n_blocks; i++, dst += bytes) {
        put_half(dst + rc->d_at, d, 0);
        put_half(dst + rc->m_at, m, 0);
    }
}

/* E8M0 scales are powers of two: the exponent is e + {0, 1} + {0, 1}, the last 1 as often as it
 * takes to meet the standard deviation. 34.25 is the mean square of the sixteen levels. */
static void fix_mxfp4(uint8_t *dst, int64_t n_blocks, float scale)
{
    double want = (double)scale * (double)scale / 34.25 / 2.5;
    int e = (int)floor(log2(want) / 2);
    int often = (int)((want / exp2(2.0 * e) - 1) / 3 * 128 + 0.5); /* of 128 */
    e += 128;
    e = e < 0 ? 0 : e > 250 ? 250 : e;
    for (int64_t i = 0; i < n_blocks; i++, dst += 17)
        dst[0] = (uint8_t)(e + (dst[0] & 1) + (dst[0] >> 1 < often));
}

/* --- plain types: uniform in +-sqrt(3) scale ---------------------------- */

static void fix_f32(uint8_t *dst, int64_t n, float scale)
{
    float unit = scale * 1.7320508f * 0x1p-31f;
    for (int64_t i = 0; i < n; i++) {
        int32_t r;
        memcpy(&r, dst + 4 * i, sizeof r);
        float f = (float)r * unit;
        memcpy(dst + 4 * i, &f, sizeof f);
    }
}

static inline uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Rounds as ts_f32_to_f16 does, for |f| < 65520, without branches: a subnormal half is the low bits
 * of |f| + 0.5. */
static inline uint16_t small_half(float f)
{
    uint32_t u = bits_of(f), a = u & 0x7fffffff;
    uint32_t normal = (a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13;
    uint32_t tiny = bits_of(fabsf(f) + 0.5f) - 0x3f000000;
    uint32_t is_tiny = 0 - (uint32_t)((int32_t)a < 0x38800000);
    return (uint16_t)((tiny & is_tiny) | (normal & ~is_tiny) | (u >> 16 & 0x8000));
}

static inline uint16_t finite_bfloat(float f)
{
    uint32_t u = bits_of(f);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

enum { STRIP = 512 };

/* In strips through typed arrays, which the compiler turns into vectors. */
static void fix_16(uint8_t *dst, int64_t n, float scale, bool bfloat)
{
    int16_t r[STRIP];
    uint16_t h[STRIP];
    float unit = scale * 1.7320508f * 0x1p-15f;
    while (n > 0) {
        size_t part = n < STRIP ? (size_t)n : STRIP;
        memcpy(r, dst, 2 * part);
        if (bfloat)
            for (size_t i = 0; i < part; i++)
                h[i] = finite_bfloat(((float)r[i] + 0.5f) * unit);
        else
            for (size_t i = 0; i < part; i++)
                h[i] = small_half(((float)r[i] + 0.5f) * unit);
        memcpy(dst, h, 2 * part);
        dst += 2 * part;
        n -= (int64_t)part;
    }
}

/* ------------------------------------------------------------------------ */

void ts_synth_range(ts_type type, void *dst, int64_t first, int64_t n_blocks, uint64_t seed,
                    float scale)
{
    int bytes = ts_type_get(type)->bytes;
    fill(dst, (uint64_t)first * (uint64_t)bytes, (size_t)n_blocks * (size_t)bytes, seed);
    if (type == TS_TYPE_F32)
        fix_f32(dst, n_blocks, scale);
    else if (type == TS_TYPE_F16)
        fix_16(dst, n_blocks, scale, false);
    else if (type == TS_TYPE_BF16)
        fix_16(dst, n_blocks, scale, true);
    else if (type == TS_TYPE_MXFP4)
        fix_mxfp4(dst, n_blocks, scale);
    else
        fix_scales(&recipes[type], bytes, dst, n_blocks, scale);
}

void ts_synth_blocks(ts_type type, void *dst, int64_t n_blocks, uint64_t seed, float scale)
{
    ts_synth_range(type, dst, 0, n_blocks, seed, scale);
}

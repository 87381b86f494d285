/* type.c - the quantised types of GGUF: sizes, names, and to_f32, the definition of each.
 *
 * The results equal those of ggml's Python package `gguf` bit for bit. Each product of a half (11
 * bits of significand), a sub-block scale (at most 7) and a level (at most 7, 5 where the scale has
 * 7) is exact in float, so the one rounding is that of the minimum's subtraction, and it makes no
 * difference whether a compiler fuses the two.
 *
 * Layouts are written as the bytes of one block, in file order. Bit fields of elements are drawn
 * low bits first. d and m are IEEE halfs. */
#include <string.h>
#include <strings.h>

#include "gguf/type.h"

enum { QK = 32, QKK = 256 };

/* --- half and bfloat ---------------------------------------------------- */

static inline float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline uint16_t load_u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static inline uint32_t load_u32(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* Both ways to read the exponent, and a choice between them by masks: compilers make vectors of
 * that. */
static inline float widen(uint16_t h)
{
    const uint32_t a = h & 0x7fff, rebias = 112u << 23;
    /* an exponent of all ones, infinity or NaN, stays one: the payload moves along */
    const uint32_t ones = -(uint32_t)(a >= 0x7c00), subnormal = -(uint32_t)(a < 0x400);
    const uint32_t normal = (a << 13) + rebias + (ones & rebias);
    /* a / 2^24, which float holds exactly as a normal number */
    const uint32_t small = to_bits((float)(int32_t)a * 0x1p-24f);
    return from_bits((uint32_t)(h & 0x8000) << 16 | (subnormal & small) | (~subnormal & normal));
}

float ts_f16_to_f32(uint16_t h)
{
    return widen(h);
}

uint16_t ts_f32_to_f16(float f)
{
    uint32_t u = to_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a >
        0x7f800000) /* NaN, made quiet so that a payload lost in the low bits leaves no infinity */
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 and above rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a >= 0x38800000) /* 2^-14: a normal half */
        return (uint16_t)(sign | (a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13);
    if (a < 0x33000000) /* under 2^-25, half of the least subnormal */
        return (uint16_t)sign;
    uint32_t m = (a & 0x7fffff) | 0x800000, shift = 126 - (a >> 23);
    uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
    return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

float ts_bf16_to_f32(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

uint16_t ts_f32_to_bf16(float f)
{
    uint32_t u = to_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float load_half(const uint8_t *p)
{
    return widen(load_u16(p));
}

/* --- plain types -------------------------------------------------------- */

static void f32_to_f32(float *y, const void *row, int64_t k)
{
    memcpy(y, row, (size_t)k * sizeof *y);
}

static void f16_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *p = row;
    for (int64_t i = 0; i < k; i++)
        y[i] = load_half(p + 2 * i);
}

static void bf16_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *p = row;
    for (int64_t i = 0; i < k; i++)
        y[i] = ts_bf16_to_f32(load_u16(p + 2 * i));
}

/* --- blocks of 32 ------------------------------------------------------- */

/* d[2] qs[16]: byte i holds element i below and element i + 16 above. y = d * (q - 8) */
static void q4_0_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 18, y += QK) {
        float d = load_half(b);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((b[2 + i] & 15) - 8);
            y[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
        }
    }
}

/* d[2] m[2] qs[16]. y = d * q + m */
static void q4_1_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 20, y += QK) {
        float d = load_half(b), m = load_half(b + 2);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(b[4 + i] & 15) + m;
            y[i + 16] = d * (float)(b[4 + i] >> 4) + m;
        }
    }
}

/* d[2] qh[4] qs[16]: bit e of qh is the fifth bit of element e. y = d * (q - 16) */
static void q5_0_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 22, y += QK) {
        float d = load_half(b);
        uint32_t qh = load_u32(b + 2);
        for (int i = 0; i < 16; i++) {
            int lo = (b[6 + i] & 15) | (int)(qh >> i & 1) << 4;
            int hi = b[6 + i] >> 4 | (int)(qh >> (i + 16) & 1) << 4;
            y[i] = d * (float)(lo - 16);
            y[i + 16] = d * (float)(hi - 16);
        }
    }
}

/* d[2] m[2] qh[4] qs[16]. y = d * q + m */
static void q5_1_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 24, y += QK) {
        float d = load_half(b), m = load_half(b + 2);
        uint32_t qh = load_u32(b + 4);
        for (int i = 0; i < 16; i++) {
            int lo = (b[8 + i] & 15) | (int)(qh >> i & 1) << 4;
            int hi = b[8 + i] >> 4 | (int)(qh >> (i + 16) & 1) << 4;
            y[i] = d * (float)lo + m;
            y[i + 16] = d * (float)hi + m;
        }
    }
}

/* d[2] qs[32], signed. y = d * q */
static void q8_0_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 34, y += QK) {
        float d = load_half(b);
        for (int i = 0; i < QK; i++)
            y[i] = d * (float)(int8_t)b[2 + i];
    }
}

/* The 16 levels of the non-linear 4-bit types. */
static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

/* d[2] qs[16]. y = d * level[q] */
static void iq4_nl_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 18, y += QK) {
        float d = load_half(b);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)iq4_levels[b[2 + i] & 15];
            y[i + 16] = d * (float)iq4_levels[b[2 + i] >> 4];
        }
    }
}

/* E2M1 (OCP Microscaling Formats 1.0), doubled to make the levels integers. Code 8, the format's
 * negative zero, is plain zero in ggml. */
static const int8_t mxfp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* e[1] qs[16]. y = 2^(e - 128) * level[q]: the doubled levels take half of the E8M0 scale 2^(e -
 * 127). The two least scales are subnormal floats. e = 255, NaN by the specification, is 2^127 in
 * ggml. */
static void mxfp4_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QK, b += 17, y += QK) {
        uint32_t e = b[0];
        float d = from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)mxfp4_levels[b[1 + i] & 15];
            y[i + 16] = d * (float)mxfp4_levels[b[1 + i] >> 4];
        }
    }
}

/* --- blocks of 256 ------------------------------------------------------ */

/* scales[16] qs[64] d[2] dmin[2]
 * scales: for each 16 elements the scale (low nibble) and the minimum (high nibble).
 * qs: byte i of half h holds elements 128 h + 32 r + i for r = 0..3, two bits each.
 * y = (d * scale) * q - (dmin * min) */
static void q2_k_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 84, y += QKK) {
        float d = load_half(b + 80), dmin = load_half(b + 82);
        for (int g = 0; g < 16; g++) {
            float dl = d * (float)(b[g] & 15), ml = dmin * (float)(b[g] >> 4);
            const uint8_t *qs = b + 16 + g / 8 * 32 + g % 2 * 16;
            int shift = g % 8 / 2 * 2;
            for (int i = 0; i < 16; i++)
                y[16 * g + i] = dl * (float)(qs[i] >> shift & 3) - ml;
        }
    }
}

/* hmask[32] qs[64] scales[12] d[2]
 * qs as in Q2_K; bit g of hmask[i], when clear, takes 4 from element 32 g + i.
 * scales, six bits for each 16 elements less 32: nibbles of bytes 0..7 (low nibbles first), then
 * two bits each from bytes 8..11.
 * y = (d * (scale - 32)) * (q - 4) */
static void q3_k_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 110, y += QKK) {
        const uint8_t *sc = b + 96;
        float d = load_half(b + 108);
        for (int g = 0; g < 16; g++) {
            int low = sc[g % 8] >> (g / 8 * 4) & 15, high = sc[8 + g % 4] >> (g / 4 * 2) & 3;
            float dl = d * (float)((low | high << 4) - 32);
            const uint8_t *hm = b + g % 2 * 16;
            const uint8_t *qs = b + 32 + g / 8 * 32 + g % 2 * 16;
            int shift = g % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) {
                int q = (qs[i] >> shift & 3) - (hm[i] >> (g / 2) & 1 ? 0 : 4);
                y[16 * g + i] = dl * (float)q;
            }
        }
    }
}

/* Scale and minimum, six bits each, of 32 elements j = 0..7 of Q4_K and Q5_K, from 12 bytes:
 * the first four pairs are the low six bits of bytes 0..3 and 4..7; the others take their low
 * nibbles from bytes 8..11 and their top two bits from the top of bytes 0..7. */
static inline void k_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* d[2] dmin[2] scales[12] qs[128]
 * qs: byte i of quarter c holds element 64 c + i below and 64 c + 32 + i above.
 * y = (d * scale) * q - (dmin * min) */
static void q4_k_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 144, y += QKK) {
        float d = load_half(b), dmin = load_half(b + 2);
        for (int j = 0; j < 8; j++) {
            int scale, min, shift = j % 2 * 4;
            k_scale_min(b + 4, j, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *qs = b + 16 + j / 2 * 32;
            for (int i = 0; i < 32; i++)
                y[32 * j + i] = dl * (float)(qs[i] >> shift & 15) - ml;
        }
    }
}

/* d[2] dmin[2] scales[12] qh[32] qs[128]: Q4_K, and bit j of qh[i] is the fifth bit of element 32 j
 * + i. */
static void q5_k_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 176, y += QKK) {
        const uint8_t *qh = b + 16;
        float d = load_half(b), dmin = load_half(b + 2);
        for (int j = 0; j < 8; j++) {
            int scale, min, shift = j % 2 * 4;
            k_scale_min(b + 4, j, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *qs = b + 48 + j / 2 * 32;
            for (int i = 0; i < 32; i++) {
                int q = (qs[i] >> shift & 15) | (qh[i] >> j & 1) << 4;
                y[32 * j + i] = dl * (float)q - ml;
            }
        }
    }
}

/* ql[128] qh[64] scales[16] d[2]; scales are signed bytes, one for each 16 elements.
 * Half h, run r = 0..3 of 32: element 128 h + 32 r + i takes its low nibble from
 * ql[64 h + 32 (r % 2) + i] (upper nibble for r >= 2) and two bits 2 r of qh[32 h + i].
 * y = (d * scale) * (q - 32) */
static void q6_k_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 210, y += QKK) {
        float d = load_half(b + 208);
        for (int g = 0; g < 16; g++) {
            int h = g / 8, r = g % 8 / 2, o = g % 2 * 16;
            float dl = d * (float)(int8_t)b[192 + g];
            const uint8_t *ql = b + 64 * h + r % 2 * 32 + o;
            const uint8_t *qh = b + 128 + 32 * h + o;
            for (int i = 0; i < 16; i++) {
                int q = (ql[i] >> (r / 2 * 4) & 15) | (qh[i] >> (2 * r) & 3) << 4;
                y[16 * g + i] = dl * (float)(q - 32);
            }
        }
    }
}

/* d[2] scales_h[2] scales_l[4] qs[128]
 * scales, six bits for each 32 elements less 32: nibble j of scales_l, then two bits 2 j of
 * scales_h. qs: byte i of run j holds element 32 j + i below and 32 j + 16 + i above.
 * y = (d * (scale - 32)) * level[q] */
static void iq4_xs_to_f32(float *y, const void *row, int64_t k)
{
    const uint8_t *b = row;
    for (; k > 0; k -= QKK, b += 136, y += QKK) {
        float d = load_half(b);
        int scales_h = load_u16(b + 2);
        for (int j = 0; j < 8; j++) {
            int scale = (b[4 + j / 2] >> (j % 2 * 4) & 15) | (scales_h >> (2 * j) & 3) << 4;
            float dl = d * (float)(scale - 32);
            const uint8_t *qs = b + 8 + 16 * j;
            for (int i = 0; i < 16; i++) {
                y[32 * j + i] = dl * (float)iq4_levels[qs[i] & 15];
                y[32 * j + 16 + i] = dl * (float)iq4_levels[qs[i] >> 4];
            }
        }
    }
}

/* --- tables ------------------------------------------------------------- */

static const ts_type_info types[TS_TYPE_COUNT] = {
    [TS_TYPE_F32] = {"F32", 1, 4, TS_ACT_F32, f32_to_f32},
    [TS_TYPE_F16] = {"F16", 1, 2, TS_ACT_F32, f16_to_f32},
    [TS_TYPE_BF16] = {"BF16", 1, 2, TS_ACT_F32, bf16_to_f32},
    [TS_TYPE_Q4_0] = {"Q4_0", 32, 18, TS_ACT_Q8_32, q4_0_to_f32},
    [TS_TYPE_Q4_1] = {"Q4_1", 32, 20, TS_ACT_Q8_32, q4_1_to_f32},
    [TS_TYPE_Q5_0] = {"Q5_0", 32, 22, TS_ACT_Q8_32, q5_0_to_f32},
    [TS_TYPE_Q5_1] = {"Q5_1", 32, 24, TS_ACT_Q8_32, q5_1_to_f32},
    [TS_TYPE_Q8_0] = {"Q8_0", 32, 34, TS_ACT_Q8_32, q8_0_to_f32},
    [TS_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, TS_ACT_Q8_32, iq4_nl_to_f32},
    [TS_TYPE_MXFP4] = {"MXFP4", 32, 17, TS_ACT_Q8_32, mxfp4_to_f32},
    [TS_TYPE_Q2_K] = {"Q2_K", 256, 84, TS_ACT_Q8_256, q2_k_to_f32},
    [TS_TYPE_Q3_K] = {"Q3_K", 256, 110, TS_ACT_Q8_256, q3_k_to_f32},
    [TS_TYPE_Q4_K] = {"Q4_K", 256, 144, TS_ACT_Q8_256, q4_k_to_f32},
    [TS_TYPE_Q5_K] = {"Q5_K", 256, 176, TS_ACT_Q8_256, q5_k_to_f32},
    [TS_TYPE_Q6_K] = {"Q6_K", 256, 210, TS_ACT_Q8_256, q6_k_to_f32},
    [TS_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, TS_ACT_Q8_256, iq4_xs_to_f32},
};

/* ggml's numbers that stand, or stood, for a type we have no definition of. */
static const struct {
    uint8_t type;
    const char *name;
} others[] = {
    {4, "Q4_2"},    {5, "Q4_3"},        {9, "Q8_1"},        {15, "Q8_K"},       {16, "IQ2_XXS"},
    {17, "IQ2_XS"}, {18, "IQ3_XXS"},    {19, "IQ1_S"},      {21, "IQ3_S"},      {22, "IQ2_S"},
    {24, "I8"},     {25, "I16"},        {26, "I32"},        {27, "I64"},        {28, "F64"},
    {29, "IQ1_M"},  {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},
    {35, "TQ2_0"},  {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {40, "NVFP4"},
    {41, "Q1_0"},   {42, "Q2_0"},
};

const ts_type_info *ts_type_get(uint32_t type)
{
    return type < TS_TYPE_COUNT && types[type].name ? &types[type] : NULL;
}

const char *ts_type_name(uint32_t type)
{
    if (ts_type_get(type))
        return types[type].name;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].type == type)
            return others[i].name;
    return NULL;
}

bool ts_type_parse(const char *name, ts_type *out)
{
    for (int i = 0; i < TS_TYPE_COUNT; i++) {
        if (types[i].name && strcasecmp(types[i].name, name) == 0) {
            *out = (ts_type)i;
            return true;
        }
    }
    return false;
}

/* r16_code.h - what a packed block of 16 rows says, in 512-bit vectors: one view of all quantised
 * types.
 *
 *     w = ds * c - dm
 *
 * with an unsigned code c of one byte, and ds and dm (16 floats each, one a row) of a sub-block of
 * 32 or 16 elements. Where a type's codes are signed or come from a table of signed levels, c is
 * the level plus an offset and dm = offset * ds: the product is rounded once, so nothing is lost.
 *
 * Everything here is inlined with a constant type: each switch is gone in the compiled kernel. */
#ifndef TS_KSET_R16_CODE_H
#define TS_KSET_R16_CODE_H

#include "cpu/intrin.h"
#include "cpu/kset/r16.h"
#include "cpu/kset/r16_transpose.h"
#include "cpu/kset/unroll.h"

/* The fields of the packed blocks, in the order of the layouts in r16.c: bytes of 16 rows. */
enum {
    R16_HALVES = 32,
    R16_DWORDS = 64,
    R16_BITS = 64,
    R16_PAIRS = 512,
    R16_NIBBLES = 256,
    R16_MXFP4_CODES = 16,
    R16_Q2_SCALES = 2 * R16_HALVES,
    R16_Q2_CODES = R16_Q2_SCALES + 4 * R16_DWORDS,
    R16_Q3_SCALES = R16_HALVES,
    R16_Q3_HIGH = R16_Q3_SCALES + 3 * R16_DWORDS,
    R16_Q3_CODES = R16_Q3_HIGH + R16_PAIRS,
    R16_Q4_SCALES = 2 * R16_HALVES,
    R16_Q4_CODES = R16_Q4_SCALES + 3 * R16_DWORDS,
    R16_Q5_BITS = R16_Q4_CODES,
    R16_Q5_CODES = R16_Q5_BITS + R16_PAIRS,
    R16_Q6_SCALES = R16_HALVES,
    R16_Q6_HIGH = R16_Q6_SCALES + 4 * R16_DWORDS,
    R16_Q6_CODES = R16_Q6_HIGH + 2 * R16_PAIRS,
    R16_XS_LOW = 2 * R16_HALVES,
    R16_XS_CODES = R16_XS_LOW + R16_DWORDS,
    R16_TURNED = R16_Q2_CODES + 6 * R16_PAIRS,
};

/* Elements of a block, and bytes of 16 rows of it. */
TS_INLINE int r16_block(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q2_K:
    case TS_TYPE_Q3_K:
    case TS_TYPE_Q4_K:
    case TS_TYPE_Q5_K:
    case TS_TYPE_Q6_K:
    case TS_TYPE_IQ4_XS:
        return 256;
    default:
        return 32;
    }
}

TS_INLINE size_t r16_block_bytes(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q4_1:
        return 16 * 20;
    case TS_TYPE_Q5_0:
        return 16 * 22;
    case TS_TYPE_Q5_1:
        return 16 * 24;
    case TS_TYPE_Q8_0:
        return 16 * 34;
    case TS_TYPE_MXFP4:
        return 16 * 17;
    case TS_TYPE_Q2_K:
        return 16 * 84;
    case TS_TYPE_Q3_K:
        return 16 * 110;
    case TS_TYPE_Q4_K:
        return 16 * 144;
    case TS_TYPE_Q5_K:
        return 16 * 176;
    case TS_TYPE_Q6_K:
        return 16 * 210;
    case TS_TYPE_IQ4_XS:
        return 16 * 136;
    default:
        return 16 * 18;
    }
}

/* Elements that share ds and dm. */
TS_INLINE int r16_sub(ts_type type)
{
    return type == TS_TYPE_Q2_K || type == TS_TYPE_Q3_K || type == TS_TYPE_Q6_K ? 16 : 32;
}

/* Codes are places in a table of 16 levels: nibbles. */
TS_INLINE bool r16_is_nibble(ts_type type)
{
    return type == TS_TYPE_Q4_0 || type == TS_TYPE_Q4_1 || type == TS_TYPE_Q4_K ||
           type == TS_TYPE_IQ4_NL || type == TS_TYPE_IQ4_XS || type == TS_TYPE_MXFP4;
}

TS_INLINE bool r16_is_table(ts_type type)
{
    return type == TS_TYPE_IQ4_NL || type == TS_TYPE_IQ4_XS || type == TS_TYPE_MXFP4;
}

/* dm = offset * ds; 0: the type has minimums of its own. */
TS_INLINE int r16_offset(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q4_0:
        return 8;
    case TS_TYPE_Q5_0:
        return 16;
    case TS_TYPE_Q8_0:
    case TS_TYPE_IQ4_NL:
    case TS_TYPE_IQ4_XS:
        return 128;
    case TS_TYPE_MXFP4:
        return 12;
    case TS_TYPE_Q3_K:
        return 4;
    case TS_TYPE_Q6_K:
        return 32;
    default:
        return 0;
    }
}

/* The levels of nibble i plus the offset, as bytes 4 q .. 4 q + 3.
 * IQ4: -127 -104 -83 -65 | -49 -35 -22 -10 | 1 13 25 38 | 53 69 89 113
 * MXFP4: 0 1 2 3 | 4 6 8 12 | and their negatives */
TS_INLINE int r16_levels(ts_type type, int q)
{
    static const int iq4[4] = {0x3f2d1801, 0x766a5d4f, (int)0xa6998d81, (int)0xf1d9c5b5};
    static const int mxfp4[4] = {0x0f0e0d0c, 0x18141210, 0x090a0b0c, 0x00040608};
    return type == TS_TYPE_MXFP4 ? mxfp4[q] : iq4[q];
}

/* The levels of 64 nibbles. */
TS_INLINE __m512i r16_looked_up(ts_type type, __m512i v)
{
    return _mm512_shuffle_epi8(_mm512_set4_epi32(r16_levels(type, 3), r16_levels(type, 2),
                                                 r16_levels(type, 1), r16_levels(type, 0)),
                               v);
}

/* Every byte shifted so that bit `from` comes to bit `to`; neighbours' bits come along. */
TS_INLINE __m512i r16_shift(__m512i v, int from, int to)
{
    if (from == to)
        return v;
    return from > to ? _mm512_srl_epi16(v, _mm_cvtsi32_si128(from - to))
                     : _mm512_sll_epi16(v, _mm_cvtsi32_si128(to - from));
}

TS_INLINE __m512i r16_bits(__m512i v, int from, int to, int mask)
{
    return _mm512_and_si512(r16_shift(v, from, to), _mm512_set1_epi8((char)mask));
}

/* (v & mask) | also */
TS_INLINE __m512i r16_and_or(__m512i v, __m512i mask, __m512i also)
{
    return _mm512_ternarylogic_epi32(v, mask, also, 0xea);
}

/* Where the nibbles of sub-block s begin, of types of which two pairs share their bytes. */
TS_INLINE int r16_nibbles_at(ts_type type, int s)
{
    switch (type) {
    case TS_TYPE_MXFP4:
        return R16_MXFP4_CODES;
    case TS_TYPE_Q4_1:
        return 2 * R16_HALVES;
    case TS_TYPE_Q5_0:
        return R16_HALVES + R16_BITS;
    case TS_TYPE_Q5_1:
        return 2 * R16_HALVES + R16_BITS;
    case TS_TYPE_IQ4_XS:
        return R16_XS_CODES + R16_NIBBLES * s;
    default:
        return R16_HALVES;
    }
}

/* Nibbles of pair i (rows r and r + 4, r = ts_r16_row(i)), k = 32 s .. + 31 of each, with the bits
 * of `also` above them. */
TS_INLINE __m512i r16_nibbles(ts_type type, const uint8_t *b, int s, int i, __m512i also)
{
    int at, from;
    switch (type) {
    case TS_TYPE_Q4_K:
    case TS_TYPE_Q5_K: /* two 32s share their bytes */
        at = (type == TS_TYPE_Q4_K ? R16_Q4_CODES : R16_Q5_CODES) + R16_PAIRS * (s >> 1) + 64 * i;
        from = 4 * (s & 1);
        break;
    default: /* two pairs do */
        at = r16_nibbles_at(type, s) + 64 * (i >> 1);
        from = 4 * (i & 1);
        break;
    }
    return r16_and_or(r16_shift(_mm512_loadu_si512(b + at), from, 0), _mm512_set1_epi8(15), also);
}

/* Where it saves a shift, r16_code can leave the codes of sub-block s this many bits to the left;
 * r16_scales then has as much smaller scales. */
TS_INLINE int r16_lift(ts_type type, int s)
{
    switch (type) {
    case TS_TYPE_Q2_K:
        return 2 * (s & 3);
    case TS_TYPE_Q3_K:
        return (s & 3) == 3 ? 5 : 2 * (s & 3);
    case TS_TYPE_Q4_K:
        return 4 * (s & 1);
    default:
        return 0;
    }
}

/* Codes c of pair i, k = 32 s .. + 31: a byte each. */
TS_INLINE __m512i r16_code(ts_type type, const uint8_t *b, int s, int i, bool lifted)
{
    const int half = s >> 2,
              r = s & 3; /* Q2_K, Q3_K and Q6_K interleave the four 32s of each 128 */
    const int lift = lifted ? r16_lift(type, s) : 0;
    switch (type) {
    case TS_TYPE_Q5_0:
    case TS_TYPE_Q5_1: {
        __mmask64 fifth;
        __builtin_memcpy(&fifth, b + (type == TS_TYPE_Q5_0 ? 1 : 2) * R16_HALVES + 8 * i, 8);
        return r16_nibbles(type, b, s, i, _mm512_maskz_mov_epi8(fifth, _mm512_set1_epi8(16)));
    }
    case TS_TYPE_Q5_K:
        return r16_nibbles(type, b, s, i,
                           r16_bits(_mm512_loadu_si512(b + R16_Q5_BITS + 64 * i), s, 4, 16));
    case TS_TYPE_Q8_0:
        return _mm512_xor_si512(_mm512_loadu_si512(b + R16_HALVES + 64 * i),
                                _mm512_set1_epi8((char)0x80));
    case TS_TYPE_Q2_K:
        return r16_bits(_mm512_loadu_si512(b + R16_Q2_CODES + R16_PAIRS * half + 64 * i), 2 * r,
                        lift, 3 << lift);
    case TS_TYPE_Q3_K: {
        __m512i low = _mm512_loadu_si512(b + R16_Q3_CODES + R16_PAIRS * half + 64 * i);
        __m512i high =
            r16_bits(_mm512_loadu_si512(b + R16_Q3_HIGH + 64 * i), s, 2 + lift, 4 << lift);
        return r16_and_or(r16_shift(low, 2 * r, lift), _mm512_set1_epi8((char)(3 << lift)), high);
    }
    case TS_TYPE_Q4_K:
        return r16_bits(_mm512_loadu_si512(b + R16_Q4_CODES + R16_PAIRS * (s >> 1) + 64 * i),
                        4 * (s & 1), lift, 15 << lift);
    case TS_TYPE_Q6_K: {
        __m512i low =
            _mm512_loadu_si512(b + R16_Q6_CODES + R16_PAIRS * (2 * half + (r & 1)) + 64 * i);
        __m512i high = _mm512_loadu_si512(b + R16_Q6_HIGH + R16_PAIRS * half + 64 * i);
        return r16_and_or(r16_shift(low, 4 * (r >> 1), 0), _mm512_set1_epi8(15),
                          r16_bits(high, 2 * r, 4, 48));
    }
    default: {
        __m512i v = r16_nibbles(type, b, s, i, _mm512_setzero_si512());
        return r16_is_table(type) ? r16_looked_up(type, v) : v;
    }
    }
}

/* Types whose codes are fields of 8 pairs, several codes in a byte: turning the bytes before the
 * codes are parted takes fewer shuffles than turning the codes. */
TS_INLINE bool r16_turns(ts_type type)
{
    return r16_block(type) == 256 && type != TS_TYPE_IQ4_XS;
}

/* Where those fields begin. They are the last of a block. */
TS_INLINE int r16_codes_at(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q2_K:
        return R16_Q2_CODES;
    case TS_TYPE_Q3_K:
        return R16_Q3_HIGH;
    case TS_TYPE_Q4_K:
        return R16_Q4_CODES;
    case TS_TYPE_Q5_K:
        return R16_Q5_BITS;
    default:
        return R16_Q6_HIGH;
    }
}

/* Turns packed block b, of a type that turns: the result is to r16_code what b is, but of dword j
 * of all rows where b is of pair j. mem: R16_TURNED bytes. */
TS_INLINE const uint8_t *r16_turn(ts_type type, uint8_t *mem, const uint8_t *b)
{
    const int at = r16_codes_at(type), end = (int)r16_block_bytes(type);
    uint8_t *to = mem + (at + 63) / 64 * 64; /* whole lines */
    b += at;
    TS_UNROLL
    for (int f = 0; f < end - at; f += R16_PAIRS) {
        __m512i p[8], v[8];
        TS_UNROLL
        for (int i = 0; i < 8; i++)
            p[i] = _mm512_loadu_si512(b + f + 64 * i);
        ts_transpose_16x8(p, v);
        TS_UNROLL
        for (int i = 0; i < 8; i++)
            _mm512_storeu_si512(to + f + 64 * i, v[i]);
    }
    return to - at;
}

/* Types of which two rows share a byte. Their codes can be had in eights of k: of k = 32 s + 8 j ..
 * + 7, those of rows 0..7 in low[j], of rows 8..15 in high[j]. */
TS_INLINE bool r16_in_eights(ts_type type)
{
    return r16_is_nibble(type) ? type != TS_TYPE_Q4_K
                               : type == TS_TYPE_Q5_0 || type == TS_TYPE_Q5_1;
}

/* How many bits to the left the codes in high[] are: that saves shifts. */
TS_INLINE int r16_eights_lift(ts_type type)
{
    return type == TS_TYPE_Q4_0 || type == TS_TYPE_Q4_1 ? 4 : 0;
}

TS_INLINE void r16_eights(ts_type type, const uint8_t *b, int s, __m512i low[4], __m512i high[4])
{
    const bool fives = type == TS_TYPE_Q5_0 || type == TS_TYPE_Q5_1;
    const __m512i nibble = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);
    const uint8_t *at = b + r16_nibbles_at(type, s);
    _Alignas(64) __mmask64 bits[8];
    __m512i p[4], v[4];
    TS_UNROLL
    for (int i = 0; i < 4; i++)
        p[i] = _mm512_loadu_si512(at + 64 * i);
    ts_transpose_4x4(p, v);
    if (fives) { /* the fifth bits of 8 k are a byte: of low[j] in the order of rows, of high[j] */
        const long long rows = 0x3424140430201000, ones = 0x0101010101010101;
        const __m512i order =
            _mm512_setr_epi64(rows, rows + 8 * ones, rows + ones, rows + 9 * ones, rows + 2 * ones,
                              rows + 10 * ones, rows + 3 * ones, rows + 11 * ones);
        _mm512_storeu_si512(bits,
                            _mm512_permutexvar_epi8(order, _mm512_loadu_si512(at - R16_BITS)));
    }
    TS_UNROLL
    for (int j = 0; j < 4; j++) {
        if (fives) {
            low[j] = r16_and_or(v[j], nibble, _mm512_maskz_mov_epi8(bits[2 * j], fifth));
            high[j] = r16_and_or(r16_shift(v[j], 4, 0), nibble,
                                 _mm512_maskz_mov_epi8(bits[2 * j + 1], fifth));
            continue;
        }
        low[j] = _mm512_and_si512(v[j], nibble);
        high[j] = r16_bits(v[j], 4, r16_eights_lift(type), 15 << r16_eights_lift(type));
        if (r16_is_table(type)) {
            low[j] = r16_looked_up(type, low[j]);
            high[j] = r16_looked_up(type, high[j]);
        }
    }
}

TS_INLINE __m512 r16_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* 2^(e - 128): MXFP4's elements are counted in halves. The two smallest are subnormal. */
TS_INLINE __m512 r16_exponents(const uint8_t *p)
{
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(2), e), small));
}

/* Byte i of each dword as a float. */
TS_INLINE __m512 r16_unsigned(__m512i v, int i)
{
    v = _mm512_srl_epi32(v, _mm_cvtsi32_si128(8 * i));
    return _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(255)));
}

TS_INLINE __m512 r16_signed(__m512i v, int i)
{
    v = _mm512_sll_epi32(v, _mm_cvtsi32_si128(24 - 8 * i));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24));
}

/* Integer scales and minimums of a block of 256 as bytes: byte i of a row's dword in s[q] is that
 * of sub-block 4 q + i. */
typedef struct r16_subs {
    __m512i s[4], m[4];
} r16_subs;

/* 6-bit scales and minimums of 8 sub-blocks in 12 bytes: four of each with their low 6 bits in the
 * first two dwords; of the other four, the low nibbles in the third and the rest on top of the
 * first. */
TS_INLINE r16_subs r16_subs_q4(const uint8_t *p)
{
    r16_subs v;
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + R16_DWORDS);
    __m512i c = _mm512_loadu_si512(p + 2 * R16_DWORDS);
    v.s[0] = r16_bits(a, 0, 0, 63);
    v.m[0] = r16_bits(b, 0, 0, 63);
    v.s[1] = r16_and_or(c, _mm512_set1_epi8(15), r16_bits(a, 6, 4, 48));
    v.m[1] = r16_and_or(r16_shift(c, 4, 0), _mm512_set1_epi8(15), r16_bits(b, 6, 4, 48));
    return v;
}

/* 6-bit scales of 16 sub-blocks, plus 32: low nibbles in two dwords, the two high bits in the
 * third. */
TS_INLINE r16_subs r16_subs_q3(const uint8_t *p)
{
    r16_subs v;
    const __m512i low = _mm512_set1_epi8(15);
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + R16_DWORDS);
    __m512i c = _mm512_loadu_si512(p + 2 * R16_DWORDS);
    v.s[0] = r16_and_or(a, low, r16_bits(c, 0, 4, 48));
    v.s[1] = r16_and_or(b, low, r16_bits(c, 2, 4, 48));
    v.s[2] = r16_and_or(r16_shift(a, 4, 0), low, r16_bits(c, 4, 4, 48));
    v.s[3] = r16_and_or(r16_shift(b, 4, 0), low, r16_bits(c, 6, 4, 48));
    TS_UNROLL
    for (int i = 0; i < 4; i++)
        v.s[i] = _mm512_sub_epi8(v.s[i], _mm512_set1_epi8(32));
    return v;
}

/* Sub-block i of IQ4_XS: a scale of 6 bits, minus 32. The low nibbles are in a dword, the pairs of
 * high bits in a 16-bit word (here a dword). */
TS_INLINE __m512 r16_scale_xs(__m512i low, __m512i high, int i)
{
    __m512i l = _mm512_srl_epi32(low, _mm_cvtsi32_si128(4 * i));
    __m512i h = _mm512_srl_epi32(_mm512_slli_epi32(high, 4), _mm_cvtsi32_si128(2 * i));
    __m512i v = r16_and_or(l, _mm512_set1_epi32(15), _mm512_and_si512(h, _mm512_set1_epi32(48)));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(v, _mm512_set1_epi32(32)));
}

TS_INLINE void r16_put(float *dst, int i, __m512 v)
{
    _mm512_storeu_ps(dst + 16 * i, v);
}

/* d for codes that are lifted. */
TS_INLINE __m512 r16_lowered(ts_type type, __m512 d, int s, bool lifted)
{
    const int lift = lifted ? r16_lift(type, s) : 0;
    return lift ? _mm512_mul_ps(d, _mm512_set1_ps(1.0f / (float)(1 << lift))) : d;
}

/* ds[block / sub][16], dm[block / sub][16] of a packed block. */
TS_INLINE void r16_scales(ts_type type, const uint8_t *b, float *ds, float *dm, bool lifted)
{
    const int n = r16_block(type) / r16_sub(type);
    const __m512 offset = _mm512_set1_ps((float)r16_offset(type));
    __m512 d = type == TS_TYPE_MXFP4 ? r16_exponents(b) : r16_halves(b);
    switch (type) {
    case TS_TYPE_Q2_K: {
        __m512 m = r16_halves(b + R16_HALVES);
        TS_UNROLL
        for (int i = 0; i < n; i++) {
            __m512i v = _mm512_loadu_si512(b + R16_Q2_SCALES + R16_DWORDS * (i / 4));
            __m512 ld = r16_lowered(type, d, i / 2, lifted);
            r16_put(ds, i, _mm512_mul_ps(ld, r16_unsigned(r16_bits(v, 0, 0, 15), i % 4)));
            r16_put(dm, i, _mm512_mul_ps(m, r16_unsigned(r16_bits(v, 4, 0, 15), i % 4)));
        }
        return;
    }
    case TS_TYPE_Q4_K:
    case TS_TYPE_Q5_K: {
        __m512 m = r16_halves(b + R16_HALVES);
        r16_subs v = r16_subs_q4(b + R16_Q4_SCALES);
        TS_UNROLL
        for (int i = 0; i < n; i++) {
            __m512 ld = r16_lowered(type, d, i, lifted);
            r16_put(ds, i, _mm512_mul_ps(ld, r16_unsigned(v.s[i / 4], i % 4)));
            r16_put(dm, i, _mm512_mul_ps(m, r16_unsigned(v.m[i / 4], i % 4)));
        }
        return;
    }
    case TS_TYPE_Q3_K:
    case TS_TYPE_Q6_K: {
        r16_subs v;
        if (type == TS_TYPE_Q3_K)
            v = r16_subs_q3(b + R16_Q3_SCALES);
        else
            for (int i = 0; i < 4; i++)
                v.s[i] = _mm512_loadu_si512(b + R16_Q6_SCALES + R16_DWORDS * i);
        TS_UNROLL
        for (int i = 0; i < n; i++) {
            const int lift = lifted ? r16_lift(type, i / 2) : 0;
            __m512 s =
                _mm512_mul_ps(r16_lowered(type, d, i / 2, lifted), r16_signed(v.s[i / 4], i % 4));
            r16_put(ds, i, s);
            r16_put(dm, i, _mm512_mul_ps(s, _mm512_set1_ps((float)(r16_offset(type) << lift))));
        }
        return;
    }
    case TS_TYPE_IQ4_XS: {
        __m512i low = _mm512_loadu_si512(b + R16_XS_LOW);
        __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(b + R16_HALVES)));
        TS_UNROLL
        for (int i = 0; i < n; i++) {
            __m512 s = _mm512_mul_ps(d, r16_scale_xs(low, high, i));
            r16_put(ds, i, s);
            r16_put(dm, i, _mm512_mul_ps(s, offset));
        }
        return;
    }
    case TS_TYPE_Q4_1:
    case TS_TYPE_Q5_1: /* w = d c + m */
        r16_put(ds, 0, d);
        r16_put(dm, 0, _mm512_sub_ps(_mm512_setzero_ps(), r16_halves(b + R16_HALVES)));
        return;
    default:
        r16_put(ds, 0, d);
        r16_put(dm, 0, _mm512_mul_ps(d, offset));
        return;
    }
}

/* Asks for `bytes` of the packed stream a page ahead: the hardware prefetcher stops at page ends,
 * and the work on one block fills the window of instructions. */
TS_INLINE void r16_prefetch(const uint8_t *p, size_t bytes)
{
    TS_UNROLL
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + 4096 + i);
}

/* The share of sub-block s of 32 in a block's lines. A block of 256 asked for at once is more than
 * a core's line fill buffers hold, and everything after it waits. The compiler would gather them
 * there all the same, but for TS_STAY. */
TS_INLINE void r16_prefetch_sub(ts_type type, const uint8_t *block, int s)
{
    const int per = r16_block(type) / 32, lines = (int)(r16_block_bytes(type) + 63) / 64;
    TS_STAY(block);
    TS_UNROLL
    for (int i = lines * s / per; i < lines * (s + 1) / per; i++)
        __builtin_prefetch(block + 4096 + 64 * i);
}

/* All quantised types, for the files that make one kernel set each. */
#define R16_TYPES(F)                                                                               \
    F(Q4_0, q4_0, Q8_32)                                                                           \
    F(Q4_1, q4_1, Q8_32)                                                                           \
    F(Q5_0, q5_0, Q8_32)                                                                           \
    F(Q5_1, q5_1, Q8_32)                                                                           \
    F(Q8_0, q8_0, Q8_32)                                                                           \
    F(IQ4_NL, iq4_nl, Q8_32)                                                                       \
    F(MXFP4, mxfp4, Q8_32)                                                                         \
    F(Q2_K, q2_k, Q8_256)                                                                          \
    F(Q3_K, q3_k, Q8_256)                                                                          \
    F(Q4_K, q4_k, Q8_256)                                                                          \
    F(Q5_K, q5_k, Q8_256)                                                                          \
    F(Q6_K, q6_k, Q8_256)                                                                          \
    F(IQ4_XS, iq4_xs, Q8_256)

#endif

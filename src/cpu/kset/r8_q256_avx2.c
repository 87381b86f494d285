/* r8_q256_avx2.c - avx2 kernels of the types in blocks of 256: Q2_K Q3_K Q4_K
 * Q5_K Q6_K IQ4_XS.
 *
 * The int16 sums over 16 or 32 elements are widened by vpmaddwd with the
 * sub-block's integer scale in both halves of a row's lane, so the whole block
 * of 256 is summed in int32 and sees floats once. Minimums and most offsets are
 * a second, much shorter product: (minimum, minimum) pairs by pairs of sum(q).
 * Q6_K's codes reach 63; their sums fit in int16 only when they start at -32 *
 * sum(q).
 *
 * Everything here is inlined with a constant type: each switch is gone in the
 * compiled tile. */
#include "cpu/kset/r8_avx2.h"
#include "cpu/prep.h"
#include "cpu/prep_x8.h"

/* The fields of the packed blocks, in the order of the layouts below: bytes of
 * 8 rows. */
enum {
    HALVES = 16,
    DWORD = 32,
    Q2_SCALES = 2 * HALVES,
    Q2_CODES = Q2_SCALES + 4 * DWORD,
    Q3_CODES = 8 * DWORD,
    Q3_SCALES = Q3_CODES + 16 * DWORD,
    Q3_D = Q3_SCALES + 3 * DWORD,
    Q4_SCALES = 2 * HALVES,
    Q4_CODES = Q4_SCALES + 3 * DWORD,
    Q5_BITS = Q4_CODES,
    Q5_CODES = Q5_BITS + 8 * DWORD,
    Q6_HIGH = 32 * DWORD,
    Q6_SCALES = Q6_HIGH + 16 * DWORD,
    Q6_D = Q6_SCALES + 4 * DWORD,
    XS_SCALES = 2 * HALVES,
    XS_CODES = XS_SCALES + DWORD,
};

/* Elements that share an integer scale. */
TS_INLINE int sub(ts_type type)
{
    return type == TS_TYPE_Q2_K || type == TS_TYPE_Q3_K || type == TS_TYPE_Q6_K ? 16 : 32;
}

/* Sub-blocks with a float minimum dmin * m. */
TS_INLINE bool has_min(ts_type type)
{
    return type == TS_TYPE_Q2_K || type == TS_TYPE_Q4_K || type == TS_TYPE_Q5_K;
}

/* Pairs of minimums, or of scales where an offset is taken off in the same way.
 */
TS_INLINE int pairs(ts_type type)
{
    return type == TS_TYPE_Q6_K || type == TS_TYPE_IQ4_XS ? 0 : 128 / sub(type);
}

TS_INLINE size_t packed_bytes(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q2_K:
        return 8 * 84;
    case TS_TYPE_Q3_K:
        return 8 * 110;
    case TS_TYPE_Q4_K:
        return 8 * 144;
    case TS_TYPE_Q5_K:
        return 8 * 176;
    case TS_TYPE_Q6_K:
        return 8 * 210;
    default:
        return 8 * 136;
    }
}

/* A panel block: codes [sub-block of 32][8], scales [256 / sub], pairs, d,
 * dmin; 32 bytes each. */
TS_INLINE size_t panel_bytes(ts_type type)
{
    return 32 * (size_t)(64 + 256 / sub(type) + pairs(type) + 1 + has_min(type));
}

/* Every byte shifted so that bit `from` comes to bit `to`, then masked. */
TS_INLINE __m256i bits(__m256i v, int from, int to, int mask)
{
    v = from >= to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

TS_INLINE __m256i table(__m256i i, int a, int b, int c, int d)
{
    return _mm256_shuffle_epi8(_mm256_setr_epi32(a, b, c, d, a, b, c, d), i);
}

/* Codes of 8 rows x k = 32 s + 4 j .. + 3. */
TS_INLINE __m256i code(ts_type type, const uint8_t *b, int s, int j)
{
    const int half = s >> 2,
              r = s & 3; /* Q2_K, Q3_K and Q6_K interleave the four 32s of each 128 */
    switch (type) {
    case TS_TYPE_Q2_K:
        return bits(ts_load(b + Q2_CODES + DWORD * (8 * half + j)), 2 * r, 0, 3);
    case TS_TYPE_Q3_K: {
        __m256i low = bits(ts_load(b + Q3_CODES + DWORD * (8 * half + j)), 2 * r, 0, 3);
        return _mm256_or_si256(low, bits(ts_load(b + DWORD * j), s, 2, 4));
    }
    case TS_TYPE_Q4_K:
        return bits(ts_load(b + Q4_CODES + DWORD * (8 * (s >> 1) + j)), 4 * (s & 1), 0, 15);
    case TS_TYPE_Q5_K: {
        __m256i low = bits(ts_load(b + Q5_CODES + DWORD * (8 * (s >> 1) + j)), 4 * (s & 1), 0, 15);
        return _mm256_or_si256(low, bits(ts_load(b + Q5_BITS + DWORD * j), s, 4, 16));
    }
    case TS_TYPE_Q6_K: {
        __m256i low = ts_load(b + DWORD * (16 * half + 8 * (r & 1) + j));
        __m256i high = ts_load(b + Q6_HIGH + DWORD * (8 * half + j));
        return _mm256_or_si256(bits(low, 4 * (r >> 1), 0, 15), bits(high, 2 * r, 4, 48));
    }
    default: { /* IQ4_XS, the table of IQ4_NL: signed bytes */
        __m256i i = bits(ts_load(b + XS_CODES + DWORD * (4 * s + (j & 3))), 4 * (j >> 2), 0, 15);
        return table(i, (int)0xbfad9881, (int)0xf6eaddcf, 0x26190d01, 0x71594535);
    }
    }
}

/* Scales and minimums of a block as bytes: byte i of a row's dword in s[q] is
 * that of sub-block 4 q
 * + i. */
typedef struct subs {
    __m256i s[4], m[4];
} subs;

/* 6-bit scales and minimums of 8 sub-blocks in 12 bytes: four of each with
 * their low 6 bits in the first two dwords; of the other four, the low nibbles
 * in the third and the rest on top of the first. */
TS_INLINE subs subs_q4(const uint8_t *p)
{
    subs v;
    __m256i a = ts_load(p), b = ts_load(p + DWORD), c = ts_load(p + 2 * DWORD);
    v.s[0] = bits(a, 0, 0, 63);
    v.m[0] = bits(b, 0, 0, 63);
    v.s[1] = _mm256_or_si256(bits(c, 0, 0, 15), bits(a, 6, 4, 48));
    v.m[1] = _mm256_or_si256(bits(c, 4, 0, 15), bits(b, 6, 4, 48));
    return v;
}

/* 6-bit scales of 16 sub-blocks, plus 32: low nibbles in two dwords, the two
 * high bits in the third. */
TS_INLINE subs subs_q3(const uint8_t *p)
{
    subs v;
    __m256i a = ts_load(p), b = ts_load(p + DWORD), c = ts_load(p + 2 * DWORD);
    v.s[0] = _mm256_or_si256(bits(a, 0, 0, 15), bits(c, 0, 4, 48));
    v.s[1] = _mm256_or_si256(bits(b, 0, 0, 15), bits(c, 2, 4, 48));
    v.s[2] = _mm256_or_si256(bits(a, 4, 0, 15), bits(c, 4, 4, 48));
    v.s[3] = _mm256_or_si256(bits(b, 4, 0, 15), bits(c, 6, 4, 48));
    for (int i = 0; i < 4; i++)
        v.s[i] = _mm256_sub_epi8(v.s[i], _mm256_set1_epi8(32));
    return v;
}

/* 6-bit scales of 8 sub-blocks, plus 32: low nibbles in a dword, pairs of high
 * bits in a 16-bit word. */
TS_INLINE subs subs_xs(const uint8_t *p)
{
    subs v;
    __m256i low = ts_load(p + HALVES);
    __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    __m256i s[2]; /* even and odd sub-blocks */
    for (int i = 0; i < 2; i++) {
        __m256i u = _mm256_srli_epi32(h, 2 * i), high = _mm256_setzero_si256();
        for (int j = 0; j < 4; j++) /* bits 4 j, 4 j + 1 to the low bits of byte j */
            high = _mm256_or_si256(high, _mm256_and_si256(_mm256_slli_epi32(u, 4 * j),
                                                          _mm256_set1_epi32(3 << (8 * j))));
        s[i] = _mm256_or_si256(bits(low, 4 * i, 0, 15), _mm256_slli_epi16(high, 4));
        s[i] = _mm256_sub_epi8(s[i], _mm256_set1_epi8(32));
    }
    __m256i a = _mm256_unpacklo_epi8(s[0], s[1]), b = _mm256_unpackhi_epi8(s[0], s[1]);
    /* a, b hold 8 bytes of each row: rows 0 1 | 4 5 and 2 3 | 6 7 */
    __m256 fa = _mm256_castsi256_ps(a), fb = _mm256_castsi256_ps(b);
    v.s[0] = _mm256_castps_si256(_mm256_shuffle_ps(fa, fb, 0x88));
    v.s[1] = _mm256_castps_si256(_mm256_shuffle_ps(fa, fb, 0xdd));
    return v;
}

TS_INLINE subs load_subs(ts_type type, const uint8_t *b)
{
    subs v;
    switch (type) {
    case TS_TYPE_Q2_K:
        for (int i = 0; i < 4; i++) {
            __m256i both = ts_load(b + Q2_SCALES + DWORD * i);
            v.s[i] = bits(both, 0, 0, 15);
            v.m[i] = bits(both, 4, 0, 15);
        }
        return v;
    case TS_TYPE_Q3_K:
        return subs_q3(b + Q3_SCALES);
    case TS_TYPE_Q4_K:
    case TS_TYPE_Q5_K:
        return subs_q4(b + Q4_SCALES);
    case TS_TYPE_Q6_K:
        for (int i = 0; i < 4; i++)
            v.s[i] = ts_load(b + Q6_SCALES + DWORD * i);
        return v;
    default:
        return subs_xs(b + HALVES);
    }
}

/* Bytes x and y of each dword as two int16. Signed ones come from the upper
 * half of a word. */
TS_INLINE __m256i widen(__m256i v, int x, int y, bool is_signed)
{
    int in = is_signed ? x << 8 | y << 24 | 0x00800080 : x | y << 16 | (int)0x80008000;
    int row = is_signed ? 0x04000400 : 0x00040004; /* 4 bytes a row, 4 rows a lane */
    __m256i by = _mm256_setr_epi32(in, in + row, in + 2 * row, in + 3 * row, in, in + row,
                                   in + 2 * row, in + 3 * row);
    v = _mm256_shuffle_epi8(v, by);
    return is_signed ? _mm256_srai_epi16(v, 8) : v;
}

/* The scale of sub-block i, twice. */
TS_INLINE __m256i sub_scale(ts_type type, const subs *v, int i)
{
    bool is_signed = !has_min(type);
    return widen(v->s[i >> 2], i & 3, i & 3, is_signed);
}

/* Minimums, or scales, of sub-blocks 2 i and 2 i + 1. */
TS_INLINE __m256i sub_pair(ts_type type, const subs *v, int i)
{
    if (has_min(type))
        return widen(v->m[i >> 1], 2 * (i & 1), 2 * (i & 1) + 1, false);
    return widen(v->s[i >> 1], 2 * (i & 1), 2 * (i & 1) + 1, true);
}

TS_INLINE __m256 scale(ts_type type, const uint8_t *b)
{
    return ts_halves(b + (type == TS_TYPE_Q3_K ? Q3_D : type == TS_TYPE_Q6_K ? Q6_D : 0));
}

TS_INLINE __m256 min_scale(const uint8_t *b)
{
    return ts_halves(b + HALVES);
}

/* sum[t] += 32 elements of sub-block s. `low`, `high`: the scales of its halves
 * of 16. */
TS_INLINE void sub_block(ts_type type, bool panel, int n_tokens, const uint8_t *b, int s,
                         __m256i low, __m256i high, const ts_x256 *const x[], __m256i sum[])
{
    const bool is_signed = type == TS_TYPE_IQ4_XS; /* |w| * (q * sign(w)), widened at once */
    /* 31 * 127 * 16 of Q5_K doesn't fit in int16 */
    const bool halves = sub(type) == 16 || type == TS_TYPE_Q5_K;
    __m256i a[TS_R8_TOKENS];
    TS_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i c = panel ? ts_load(b + 32 * j) : code(type, b, s, j);
        bool first = j == 0 || is_signed || (j == 4 && halves);
        bool last = j == 7 || is_signed || (j == 3 && halves);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            __m256i q = ts_dword(x[t]->q + 32 * s + 4 * j);
            __m256i product = is_signed
                                  ? _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(q, c))
                                  : _mm256_maddubs_epi16(c, q);
            if (!first)
                a[t] = _mm256_add_epi16(a[t], product);
            else if (type == TS_TYPE_Q6_K)
                a[t] = _mm256_add_epi16(product, ts_dword(x[t]->pair[2 * s + (j >> 2)]));
            else
                a[t] = product;
            TS_KEEP(a[t]);
            if (last) {
                sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(a[t], j == 3 ? low : high));
                TS_KEEP(sum[t]);
            }
        }
    }
}

/* The end of a block: pairs by sums, then floats. `pair` is a panel's, or NULL.
 */
TS_INLINE void finish(ts_type type, int n_tokens, const subs *v, const uint8_t *pair, __m256 d,
                      __m256 dmin, const ts_x256 *const x[], const __m256i sum[], __m256 acc[])
{
    __m256i low[TS_R8_TOKENS];
    TS_UNROLL
    for (int i = 0; i < pairs(type); i++) {
        __m256i m = pair ? ts_load(pair + 32 * i) : sub_pair(type, v, i);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const int16_t *sums = sub(type) == 16 ? x[t]->sum16 : x[t]->sum32;
            __m256i product = _mm256_madd_epi16(m, ts_dword(sums + 2 * i));
            low[t] = i == 0 ? product : _mm256_add_epi32(low[t], product);
        }
    }
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        __m256i all = sum[t];
        if (type == TS_TYPE_Q3_K)
            all = _mm256_sub_epi32(all, _mm256_slli_epi32(low[t], 2));
        __m256 dx = _mm256_set1_ps(x[t]->d);
        acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), _mm256_mul_ps(d, dx), acc[t]);
        if (has_min(type))
            acc[t] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(low[t]), _mm256_mul_ps(dmin, dx), acc[t]);
    }
}

TS_INLINE void direct_sub(ts_type type, int n_tokens, const uint8_t *w, const subs *v, int s,
                          const ts_x256 *const x[], __m256i sum[])
{
    int per = 32 / sub(type);
    __m256i low = sub_scale(type, v, per * s), high = sub_scale(type, v, per * s + per - 1);
    ts_prefetch(w + (size_t)s * packed_bytes(type) / 8, packed_bytes(type) / 8);
    sub_block(type, false, n_tokens, w, s, low, high, x, sum);
}

TS_INLINE void direct(ts_type type, int n_tokens, const uint8_t *w, const uint8_t *x0, size_t ldx,
                      int64_t nb, const ts_r8_out *out)
{
    const ts_x256 *x[TS_R8_TOKENS];
    __m256 acc[TS_R8_TOKENS];
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        x[t] = (const ts_x256 *)(x0 + (size_t)t * ldx);
        acc[t] = _mm256_setzero_ps();
    }
    for (; nb > 0; nb--, w += packed_bytes(type)) {
        subs v = load_subs(type, w);
        __m256i sum[TS_R8_TOKENS];
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++)
            sum[t] = _mm256_setzero_si256();
        TS_UNROLL
        for (int s = 0; s < 8; s++)
            direct_sub(type, n_tokens, w, &v, s, x, sum);
        __m256 dmin = has_min(type) ? min_scale(w) : _mm256_setzero_ps();
        finish(type, n_tokens, &v, NULL, scale(type, w), dmin, x, sum, acc);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++)
            x[t]++;
    }
    ts_r8_store(out, n_tokens, 0, acc, 1);
}

TS_INLINE void tile(ts_type type, int n_tokens, const uint8_t *w, const uint8_t *x0, size_t ldx,
                    int64_t nb, const ts_r8_out *out)
{
    const int per = 32 / sub(type);
    const ts_x256 *x[TS_R8_TOKENS];
    __m256 acc[TS_R8_TOKENS];
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        x[t] = (const ts_x256 *)(x0 + (size_t)t * ldx);
        acc[t] = _mm256_setzero_ps();
    }
    for (; nb > 0; nb--, w += panel_bytes(type)) {
        const uint8_t *scales = w + 32 * 64, *pair = scales + 32 * 8 * per;
        const float *tail = (const float *)(pair + 32 * pairs(type));
        __m256i sum[TS_R8_TOKENS];
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++)
            sum[t] = _mm256_setzero_si256();
        for (int s = 0; s < 8; s++) {
            __m256i low = ts_load(scales + 32 * per * s);
            __m256i high = ts_load(scales + 32 * (per * s + per - 1));
            sub_block(type, true, n_tokens, w + 256 * s, s, low, high, x, sum);
        }
        __m256 dmin = has_min(type) ? _mm256_loadu_ps(tail + 8) : _mm256_setzero_ps();
        finish(type, n_tokens, NULL, pair, _mm256_loadu_ps(tail), dmin, x, sum, acc);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++)
            x[t]++;
    }
    ts_r8_store(out, n_tokens, 0, acc, 1);
}

TS_INLINE void put(uint8_t **dst, __m256i v)
{
    _mm256_storeu_si256((__m256i *)*dst, v);
    *dst += 32;
}

TS_INLINE void make_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t nb)
{
    for (; nb > 0; nb--, w += packed_bytes(type)) {
        subs v = load_subs(type, w);
        TS_UNROLL
        for (int s = 0; s < 8; s++) {
            ts_prefetch(w + (size_t)s * packed_bytes(type) / 8, packed_bytes(type) / 8);
            TS_UNROLL
            for (int j = 0; j < 8; j++)
                put(&dst, code(type, w, s, j));
        }
        TS_UNROLL
        for (int i = 0; i < 256 / sub(type); i++)
            put(&dst, sub_scale(type, &v, i));
        TS_UNROLL
        for (int i = 0; i < pairs(type); i++)
            put(&dst, sub_pair(type, &v, i));
        put(&dst, _mm256_castps_si256(scale(type, w)));
        if (has_min(type))
            put(&dst, _mm256_castps_si256(min_scale(w)));
    }
}

/*                               block, bytes; offset, kind, count of each field in the source */
TS_R8_KSET(Q2_K, "q2_k.r8", 256, 84, {80, TS_PACK_HALF, 1}, {82, TS_PACK_HALF, 1},
           {0, TS_PACK_DWORD, 4}, {16, TS_PACK_DWORD, 16})
TS_R8_KSET(Q3_K, "q3_k.r8", 256, 110, {0, TS_PACK_DWORD, 8}, {32, TS_PACK_DWORD, 16},
           {96, TS_PACK_DWORD, 3}, {108, TS_PACK_HALF, 1})
TS_R8_KSET(Q4_K, "q4_k.r8", 256, 144, {0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1},
           {4, TS_PACK_DWORD, 3}, {16, TS_PACK_DWORD, 32})
TS_R8_KSET(Q5_K, "q5_k.r8", 256, 176, {0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1},
           {4, TS_PACK_DWORD, 3}, {16, TS_PACK_DWORD, 8}, {48, TS_PACK_DWORD, 32})
TS_R8_KSET(Q6_K, "q6_k.r8", 256, 210, {0, TS_PACK_DWORD, 32}, {128, TS_PACK_DWORD, 16},
           {192, TS_PACK_DWORD, 4}, {208, TS_PACK_HALF, 1})
TS_R8_KSET(IQ4_XS, "iq4_xs.r8", 256, 136, {0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1},
           {4, TS_PACK_DWORD, 1}, {8, TS_PACK_DWORD, 32})

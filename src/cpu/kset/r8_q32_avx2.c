/* r8_q32_avx2.c - avx2 kernels of the types in blocks of 32: Q4_0 Q4_1 Q5_0
 * Q5_1 Q8_0 IQ4_NL MXFP4.
 *
 * Codes are made unsigned (0..15, 0..31, 0..24) so that vpmaddubsw(code, q) can
 * be summed in int16: what is left in a row's two lanes after 32 k is the sum
 * of (code - offset) * q over 16 elements each, at most 16 * 16 * 127 = 32512.
 * It fits, so the sums on the way may wrap around; they start at -offset *
 * sum(q), which the activations bring along. Signed bytes have no room for
 * that: vpmaddubsw(|w|, q * sign(w)) is at most 2 * 128 * 127 = 32512 and is
 * widened at once.
 *
 * Everything here is inlined with a constant type: each switch is gone in the
 * compiled tile. */
#include "cpu/kset/r8_avx2.h"
#include "cpu/prep.h"
#include "cpu/prep_x8.h"

/* Bytes of the fields of a packed block. */
enum { HALVES = 16, BITS = 32, NIBBLES = 128, BYTES = 256 };

/* Codes are signed bytes. */
TS_INLINE bool is_signed(ts_type type)
{
    return type == TS_TYPE_Q8_0 || type == TS_TYPE_IQ4_NL;
}

TS_INLINE bool has_min(ts_type type)
{
    return type == TS_TYPE_Q4_1 || type == TS_TYPE_Q5_1;
}

TS_INLINE size_t packed_bytes(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q4_1:
        return 2 * HALVES + NIBBLES;
    case TS_TYPE_Q5_0:
        return HALVES + BITS + NIBBLES;
    case TS_TYPE_Q5_1:
        return 2 * HALVES + BITS + NIBBLES;
    case TS_TYPE_Q8_0:
        return HALVES + BYTES;
    case TS_TYPE_MXFP4:
        return HALVES / 2 + NIBBLES;
    default:
        return HALVES + NIBBLES;
    }
}

TS_INLINE size_t panel_bytes(ts_type type)
{
    return 256 + 32 + (has_min(type) ? 32 : 0);
}

/* Nibbles of k = 4 j .. 4 j + 3: element i and i + 16 share a byte. */
TS_INLINE __m256i nibbles(const uint8_t *p, int j)
{
    __m256i v = ts_load(p + 32 * (j & 3));
    if (j >= 4)
        v = _mm256_srli_epi16(v, 4);
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

/* The fifth bits of k = 4 j .. 4 j + 3, as 16 or 0. */
TS_INLINE __m256i fifth(const uint8_t *p, int j)
{
    __m256i v = ts_load(p);
    v = j <= 4 ? _mm256_slli_epi16(v, 4 - j) : _mm256_srli_epi16(v, j - 4);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

TS_INLINE __m256i table(__m256i i, int a, int b, int c, int d)
{
    return _mm256_shuffle_epi8(_mm256_setr_epi32(a, b, c, d, a, b, c, d), i);
}

/* Codes of 8 rows x k = 4 j .. 4 j + 3. */
TS_INLINE __m256i code(ts_type type, const uint8_t *b, int j)
{
    switch (type) {
    case TS_TYPE_Q4_1:
        return nibbles(b + 2 * HALVES, j);
    case TS_TYPE_Q5_0:
        return _mm256_or_si256(nibbles(b + HALVES + BITS, j), fifth(b + HALVES, j));
    case TS_TYPE_Q5_1:
        return _mm256_or_si256(nibbles(b + 2 * HALVES + BITS, j), fifth(b + 2 * HALVES, j));
    case TS_TYPE_Q8_0:
        return ts_load(b + HALVES + 32 * j);
    case TS_TYPE_IQ4_NL: /* -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89
                            113 */
        return table(nibbles(b + HALVES, j), (int)0xbfad9881, (int)0xf6eaddcf, 0x26190d01,
                     0x71594535);
    case TS_TYPE_MXFP4: /* 12 + 0 1 2 3 4 6 8 12 and their negatives */
        return table(nibbles(b + HALVES / 2, j), 0x0f0e0d0c, 0x18141210, 0x090a0b0c, 0x00040608);
    default:
        return nibbles(b + HALVES, j);
    }
}

/* 2^(e - 128): MXFP4's elements are counted in halves. The two smallest are
 * subnormal. */
TS_INLINE __m256 exponents(const uint8_t *p)
{
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

TS_INLINE __m256 scale(ts_type type, const uint8_t *b)
{
    return type == TS_TYPE_MXFP4 ? exponents(b) : ts_halves(b);
}

TS_INLINE __m256 min(const uint8_t *b)
{
    return ts_halves(b + HALVES);
}

/* What the int16 sums start from; zero when nothing is taken off. */
TS_INLINE __m256i start(ts_type type, const ts_x32 *x)
{
    __m256i eight = ts_dword(x->pair);
    switch (type) {
    case TS_TYPE_Q4_0:
        return eight;
    case TS_TYPE_Q5_0:
        return _mm256_add_epi16(eight, eight);
    case TS_TYPE_MXFP4:
        return _mm256_add_epi16(eight, _mm256_srai_epi16(eight, 1));
    default:
        return _mm256_setzero_si256();
    }
}

/* Sums over one block, in int32. Q5_1 has no offset: its 31 * 127 * 16 would
 * not fit, so it is widened after half of the block. */
TS_INLINE void block(ts_type type, bool panel, int n_tokens, const uint8_t *b,
                     const ts_x32 *const x[], __m256i sum[])
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a[TS_R8_TOKENS];
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        a[t] = start(type, x[t]);
        sum[t] = _mm256_setzero_si256();
    }
    TS_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i c = panel ? ts_load(b + 32 * j) : code(type, b, j);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            __m256i q = ts_dword(x[t]->q + 4 * j);
            if (is_signed(type)) {
                a[t] = _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(q, c));
            } else {
                a[t] = _mm256_add_epi16(a[t], _mm256_maddubs_epi16(c, q));
                TS_KEEP(a[t]);
            }
            if (j == 7 || is_signed(type) || (j == 3 && type == TS_TYPE_Q5_1)) {
                sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(a[t], ones));
                if (is_signed(type))
                    TS_KEEP(sum[t]);
                a[t] = _mm256_setzero_si256();
            }
        }
    }
}

TS_INLINE void multiply(ts_type type, bool panel, int n_tokens, const uint8_t *w, const uint8_t *x0,
                        size_t ldx, int64_t nb, const ts_r8_out *out)
{
    const size_t bytes = panel ? panel_bytes(type) : packed_bytes(type);
    const ts_x32 *x[TS_R8_TOKENS];
    __m256 acc[TS_R8_TOKENS];
    TS_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        x[t] = (const ts_x32 *)(x0 + (size_t)t * ldx);
        acc[t] = _mm256_setzero_ps();
    }
    for (; nb > 0; nb--, w += bytes) {
        __m256i sum[TS_R8_TOKENS];
        if (!panel)
            ts_prefetch(w, bytes);
        block(type, panel, n_tokens, w, x, sum);
        const float *tail = (const float *)(w + 256);
        __m256 d = panel ? _mm256_loadu_ps(tail) : scale(type, w);
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            __m256 dd = _mm256_mul_ps(d, _mm256_set1_ps(x[t]->d));
            acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t]), dd, acc[t]);
        }
        if (has_min(type)) {
            __m256 lo = panel ? _mm256_loadu_ps(tail + 8) : min(w);
            TS_UNROLL
            for (int t = 0; t < n_tokens; t++)
                acc[t] = _mm256_fmadd_ps(lo, _mm256_set1_ps(x[t]->s), acc[t]);
        }
        TS_UNROLL
        for (int t = 0; t < n_tokens; t++)
            x[t]++;
    }
    ts_r8_store(out, n_tokens, 0, acc, 1);
}

TS_INLINE void direct(ts_type type, int n_tokens, const uint8_t *w, const uint8_t *x, size_t ldx,
                      int64_t nb, const ts_r8_out *out)
{
    multiply(type, false, n_tokens, w, x, ldx, nb, out);
}

TS_INLINE void tile(ts_type type, int n_tokens, const uint8_t *w, const uint8_t *x, size_t ldx,
                    int64_t nb, const ts_r8_out *out)
{
    multiply(type, true, n_tokens, w, x, ldx, nb, out);
}

TS_INLINE void make_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t nb)
{
    for (; nb > 0; nb--, w += packed_bytes(type), dst += panel_bytes(type)) {
        ts_prefetch(w, packed_bytes(type));
        TS_UNROLL
        for (int j = 0; j < 8; j++)
            _mm256_storeu_si256((__m256i *)(dst + 32 * j), code(type, w, j));
        float *tail = (float *)(dst + 256);
        _mm256_storeu_ps(tail, scale(type, w));
        if (has_min(type))
            _mm256_storeu_ps(tail + 8, min(w));
    }
}

/*                               block, bytes; offset, kind, count of each field in the source */
TS_R8_KSET(Q4_0, "q4_0.r8", 32, 18, {0, TS_PACK_HALF, 1}, {2, TS_PACK_DWORD, 4})
TS_R8_KSET(Q4_1, "q4_1.r8", 32, 20, {0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1},
           {4, TS_PACK_DWORD, 4})
TS_R8_KSET(Q5_0, "q5_0.r8", 32, 22, {0, TS_PACK_HALF, 1}, {2, TS_PACK_PLANES, 1},
           {6, TS_PACK_DWORD, 4})
TS_R8_KSET(Q5_1, "q5_1.r8", 32, 24, {0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1},
           {4, TS_PACK_PLANES, 1}, {8, TS_PACK_DWORD, 4})
TS_R8_KSET(Q8_0, "q8_0.r8", 32, 34, {0, TS_PACK_HALF, 1}, {2, TS_PACK_DWORD, 8})
TS_R8_KSET(IQ4_NL, "iq4_nl.r8", 32, 18, {0, TS_PACK_HALF, 1}, {2, TS_PACK_DWORD, 4})
TS_R8_KSET(MXFP4, "mxfp4.r8", 32, 17, {0, TS_PACK_BYTE, 1}, {1, TS_PACK_DWORD, 4})

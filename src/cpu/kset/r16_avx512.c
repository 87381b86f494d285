/* r16_avx512.c - avx512 kernels over groups of 16 rows: VPDPBUSD on the codes of quantised types,
 * FMA on the 16-bit floats.
 *
 * An accumulator register is 16 rows of one token, so no sum goes across lanes. Tiles come in two
 * forms that share their body:
 *
 *     direct   decodes the packed block in registers      few tokens: each weight is decoded once
 *     panel    reads what was decoded into L1              many tokens: decoded once for all
 *
 * A unit is 32 k. Its panel: 8 vectors of codes, then ds and dm of each sub-block (r16_code.h). */
#include "cpu/kset/r16_code.h"
#include "cpu/kset/r16_transpose.h"
#include "cpu/prep.h"
#include "cpu/prep_x16.h"

enum {
    ROWS = TS_R16_ROWS,
    DIRECT = 4,         /* tokens a direct tile takes at most                                */
    TILE = 8,           /* of 32 registers: sum and two limbs of 8 tokens, a vector of codes */
    CHUNK = 1024,       /* elements of k summed before they go to y                          */
    BLOCK_TOKENS = 128, /* whose activations of a chunk stay in the L2 beside the weights    */
    PANEL_UNIT = (8 + 4) * 64,
};

/* Where a tile leaves y[tokens][rows]. */
typedef struct r16_out {
    float *y;
    int64_t ldy;
    __mmask16 mask; /* of the group's rows that are rows of the matrix */
    /* [tokens][rows] to add, or NULL: what the caller wants added, and then, for every chunk of k
     * but the first, y itself */
    const float *add;
    int64_t ldadd;
} r16_out;

TS_INLINE void store(const r16_out *out, int tokens, const __m512 *acc)
{
    TS_UNROLL
    for (int t = 0; t < tokens; t++) {
        float *y = out->y + t * out->ldy;
        __m512 v = acc[t];
        if (out->add)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(out->mask, out->add + t * out->ldadd));
        _mm512_mask_storeu_ps(y, out->mask, v);
    }
}

TS_INLINE __m512i broadcast4(const void *p)
{
    int v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

TS_INLINE __m512i broadcast8(const void *p)
{
    long long v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm512_set1_epi64(v);
}

/* Codes of one unit, dword j of all rows in v[j]: from sub-block s of the packed block b, which may
 * have been turned. */
TS_INLINE void codes(ts_type type, bool turned, const uint8_t *b, int s, __m512i v[8])
{
    __m512i p[8];
    TS_UNROLL
    for (int i = 0; i < 8; i++)
        if (turned)
            v[i] = r16_code(type, b, s, i, true);
        else
            p[i] = r16_code(type, b, s, i, true);
    if (!turned)
        ts_transpose_16x8(p, v);
}

/* acc += sum d xd - m q: what a unit, or half of one, of a token comes to. */
TS_INLINE __m512 scaled(__m512 acc, __m512i sum, __m512 d, __m512 m, float xd, float q)
{
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, _mm512_set1_ps(xd)), acc);
    return _mm512_fnmadd_ps(m, _mm512_set1_ps(q), acc);
}

/* acc[t] += one unit. Neighbouring products belong to different sums: a scheduler half of which is
 * another hyperthread's has no room for long chains. Several tokens have a sum for each limb; one
 * token has two for both, and the second limb goes on top of the first. */
TS_INLINE void unit(int sub, int tokens, int limbs, const __m512i v[8], const float *ds,
                    const float *dm, const uint8_t *const x[], __m512 acc[])
{
    const int subs = 32 / sub, n = 8 / subs;
    TS_UNROLL
    for (int i = 0; i < subs; i++) {
        __m512i sum[TILE][2];
        TS_UNROLL
        for (int l = 0; l < limbs; l++) {
            TS_UNROLL
            for (int j = 0; j < n; j++) {
                TS_UNROLL
                for (int t = 0; t < tokens; t++) {
                    const ts_x16 *xt = (const ts_x16 *)x[t];
                    __m512i *to = &sum[t][tokens == 1 ? j % 2 : l];
                    if (j < (tokens == 1 ? 2 : 1))
                        *to = tokens == 1 && l ? _mm512_slli_epi32(*to, 7) : _mm512_setzero_si512();
                    *to = _mm512_dpbusd_epi32(*to, v[n * i + j],
                                              broadcast4(xt->limb[l] + 4 * (n * i + j)));
                }
            }
        }
        __m512 d = _mm512_loadu_ps(ds + 16 * i), m = _mm512_loadu_ps(dm + 16 * i);
        TS_UNROLL
        for (int t = 0; t < tokens; t++) {
            const ts_x16 *xt = (const ts_x16 *)x[t];
            __m512i all = sum[t][0];
            if (tokens == 1)
                all = _mm512_add_epi32(all, sum[t][1]);
            else if (limbs == 2)
                all = _mm512_add_epi32(_mm512_slli_epi32(all, 7), sum[t][1]);
            acc[t] = scaled(acc[t], all, d, m, xt->d, subs == 1 ? xt->s : xt->s16[i]);
        }
    }
}

/* The same of a type of which two rows share a byte: the codes stay in eights of k, so that they
 * are moved before they are parted, and sums of neighbouring lanes are joined at the end. */
TS_INLINE void unit_of_eights(ts_type type, int tokens, int limbs, const uint8_t *b, int s,
                              const float *ds, const float *dm, const uint8_t *const x[],
                              __m512 acc[])
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i low[4], high[4], sum[DIRECT][2];
    r16_eights(type, b, s, low, high);
    TS_UNROLL
    for (int l = 0; l < limbs; l++) {
        TS_UNROLL
        for (int j = 0; j < 4; j++) {
            TS_UNROLL
            for (int t = 0; t < tokens; t++) {
                const ts_x16 *xt = (const ts_x16 *)x[t];
                const __m512i q = broadcast8(xt->limb[l] + 8 * j);
                TS_UNROLL
                for (int h = 0; h < 2; h++) {
                    __m512i *to = &sum[t][h];
                    if (j == 0)
                        *to = l ? _mm512_slli_epi32(*to, 7) : _mm512_setzero_si512();
                    *to = _mm512_dpbusd_epi32(*to, h ? high[j] : low[j], q);
                }
            }
        }
    }
    __m512 d = _mm512_loadu_ps(ds), m = _mm512_loadu_ps(dm);
    TS_UNROLL
    for (int t = 0; t < tokens; t++) {
        const ts_x16 *xt = (const ts_x16 *)x[t];
        if (r16_eights_lift(type))
            sum[t][1] = _mm512_srai_epi32(sum[t][1], r16_eights_lift(type));
        __m512i all = _mm512_add_epi32(_mm512_permutex2var_epi32(sum[t][0], even, sum[t][1]),
                                       _mm512_permutex2var_epi32(sum[t][0], odd, sum[t][1]));
        acc[t] = scaled(acc[t], all, d, m, xt->d, xt->s);
    }
}

/* x: the first token's first unit, tokens ldx bytes apart. */
TS_INLINE void start(int tokens, const uint8_t *x0, size_t ldx, const uint8_t *x[], __m512 acc[])
{
    TS_UNROLL
    for (int t = 0; t < tokens; t++) {
        x[t] = x0 + (size_t)t * ldx;
        acc[t] = _mm512_setzero_ps();
    }
}

TS_INLINE void direct(ts_type type, int tokens, int limbs, const uint8_t *w, const uint8_t *x0,
                      size_t ldx, int64_t units, const r16_out *out)
{
    const int per = r16_block(type) / 32, sub = r16_sub(type);
    const uint8_t *x[TILE];
    __m512 acc[TILE];
    start(tokens, x0, ldx, x, acc);
    for (; units > 0; units -= per, w += r16_block_bytes(type)) {
        _Alignas(64) float ds[16 * 16], dm[16 * 16];
        _Alignas(64) uint8_t turned[R16_TURNED];
        r16_scales(type, w, ds, dm, true);
        const uint8_t *b = r16_turns(type) ? r16_turn(type, turned, w) : w;
        TS_UNROLL
        for (int s = 0; s < per; s++) {
            const float *d = ds + 16 * (32 / sub) * s, *m = dm + 16 * (32 / sub) * s;
            r16_prefetch_sub(type, w, s);
            if (r16_in_eights(type)) {
                unit_of_eights(type, tokens, limbs, b, s, d, m, x, acc);
            } else {
                __m512i v[8];
                codes(type, r16_turns(type), b, s, v);
                unit(sub, tokens, limbs, v, d, m, x, acc);
            }
            TS_UNROLL
            for (int t = 0; t < tokens; t++)
                x[t] += ts_x16_bytes(limbs);
        }
    }
    store(out, tokens, acc);
}

TS_INLINE void from_panel(int sub, int tokens, int limbs, const uint8_t *w, const uint8_t *x0,
                          size_t ldx, int64_t units, const r16_out *out)
{
    const uint8_t *x[TILE];
    __m512 acc[TILE];
    start(tokens, x0, ldx, x, acc);
    for (; units > 0; units--, w += PANEL_UNIT) {
        const float *ds = (const float *)(w + 8 * 64);
        __m512i v[8];
        TS_UNROLL
        for (int j = 0; j < 8; j++)
            v[j] = _mm512_loadu_si512(w + 64 * j);
        unit(sub, tokens, limbs, v, ds, ds + 2 * 16, x, acc);
        TS_UNROLL
        for (int t = 0; t < tokens; t++)
            x[t] += ts_x16_bytes(limbs);
    }
    store(out, tokens, acc);
}

TS_INLINE void make_panel(ts_type type, uint8_t *dst, const uint8_t *w, int64_t units)
{
    const int per = r16_block(type) / 32, subs = 32 / r16_sub(type);
    for (; units > 0; units -= per, w += r16_block_bytes(type)) {
        _Alignas(64) float ds[16 * 16], dm[16 * 16];
        r16_scales(type, w, ds, dm, true);
        TS_UNROLL
        for (int s = 0; s < per; s++, dst += PANEL_UNIT) {
            float *scales = (float *)(dst + 8 * 64);
            __m512i v[8];
            r16_prefetch_sub(type, w, s);
            codes(type, false, w, s, v);
            TS_UNROLL
            for (int j = 0; j < 8; j++)
                _mm512_storeu_si512(dst + 64 * j, v[j]);
            TS_UNROLL
            for (int i = 0; i < subs; i++) {
                r16_put(scales, i, _mm512_loadu_ps(ds + 16 * (subs * s + i)));
                r16_put(scales, 2 + i, _mm512_loadu_ps(dm + 16 * (subs * s + i)));
            }
        }
    }
}

typedef void r16_tile(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t units,
                      const r16_out *out);
typedef void r16_panel(uint8_t *dst, const uint8_t *w, int64_t units);

#define PANEL_TILE(sub, tokens, limbs)                                                             \
    static void tile_##sub##_##tokens##_##limbs(const uint8_t *w, const uint8_t *x, size_t ldx,    \
                                                int64_t units, const r16_out *out)                 \
    {                                                                                              \
        from_panel(sub, tokens, limbs, w, x, ldx, units, out);                                     \
    }
#define PANEL_TILES(sub, limbs)                                                                    \
    PANEL_TILE(sub, 1, limbs)                                                                      \
    PANEL_TILE(sub, 2, limbs)                                                                      \
    PANEL_TILE(sub, 3, limbs)                                                                      \
    PANEL_TILE(sub, 4, limbs)                                                                      \
    PANEL_TILE(sub, 5, limbs)                                                                      \
    PANEL_TILE(sub, 6, limbs) PANEL_TILE(sub, 7, limbs) PANEL_TILE(sub, 8, limbs)
PANEL_TILES(16, 1)
PANEL_TILES(16, 2)
PANEL_TILES(32, 1)
PANEL_TILES(32, 2)

#define NAMES(sub, limbs)                                                                          \
    {                                                                                              \
        tile_##sub##_1_##limbs, tile_##sub##_2_##limbs, tile_##sub##_3_##limbs,                    \
            tile_##sub##_4_##limbs, tile_##sub##_5_##limbs, tile_##sub##_6_##limbs,                \
            tile_##sub##_7_##limbs, tile_##sub##_8_##limbs                                         \
    }
/* [16, 32 elements a sub-block][limbs - 1][tokens - 1] */
static r16_tile *const tiles[2][2][TILE] = {{NAMES(16, 1), NAMES(16, 2)},
                                            {NAMES(32, 1), NAMES(32, 2)}};

typedef struct r16_kernels {
    ts_type type;
    r16_panel *panel;
    r16_tile *direct[2][DIRECT]; /* [limbs - 1][tokens - 1] */
} r16_kernels;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static __mmask16 rows_mask(int64_t rows)
{
    return rows >= ROWS ? 0xffff : (__mmask16)((1 << rows) - 1);
}

/* Where the sums of a group of rows go, from token m on; `first`: of the first chunk of k. */
static r16_out group_out(const ts_mul *p, int64_t n, int64_t m, bool first)
{
    r16_out out = {.y = p->y + m * p->ldy + n, .ldy = p->ldy, .mask = rows_mask(p->n1 - n)};
    if (!first) {
        out.add = out.y;
        out.ldadd = p->ldy;
    } else if (p->add) {
        out.add = p->add + m * p->ldadd + n;
        out.ldadd = p->ldadd;
    }
    return out;
}

/* One group of rows from n on, tokens m0..m1, units u0..u1. */
static void group(const r16_kernels *f, const ts_mul *p, const uint8_t *w, int64_t n, int64_t m0,
                  int64_t m1, int64_t u0, int64_t u1)
{
    _Alignas(64) uint8_t panel[CHUNK / 32 * PANEL_UNIT];
    const size_t unit_bytes = ts_x16_bytes(p->limbs), ldx = (size_t)(p->k / 32) * unit_bytes;
    const uint8_t *x = (const uint8_t *)p->x + (size_t)m0 * ldx + (size_t)u0 * unit_bytes;
    r16_out out = group_out(p, n, m0, u0 == 0);
    if (p->m <= DIRECT) {
        f->direct[p->limbs - 1][m1 - m0 - 1](w, x, ldx, u1 - u0, &out);
        return;
    }
    f->panel(panel, w, u1 - u0);
    while (m0 < m1) {
        int64_t t = smaller(m1 - m0, TILE);
        tiles[r16_sub(f->type) / 32][p->limbs - 1][t - 1](panel, x, ldx, u1 - u0, &out);
        m0 += t;
        x += (size_t)t * ldx;
        out.y += t * p->ldy;
        if (out.add)
            out.add += t * out.ldadd;
    }
}

/* Tokens in blocks; within one the weights are read in the order they lie in. Chunks of k are the
 * same for any number of tokens, so a token's result has the same bits in any company. */
static void mul(const r16_kernels *f, const ts_mul *p)
{
    const ts_packing *l = &ts_r16_packing[f->type];
    const int64_t units = p->k / 32, step = CHUNK / 32, per = l->block / 32;
    const size_t row_bytes = (size_t)(p->k / l->block) * (size_t)l->bytes;
    for (int64_t m0 = 0; m0 < p->m; m0 += BLOCK_TOKENS)
        for (int64_t n = p->n0; n < p->n1; n += ROWS) {
            const uint8_t *w = (const uint8_t *)p->w + (size_t)n * row_bytes;
            for (int64_t u = 0; u < units; u += step) {
                int64_t u1 = smaller(u + step, units);
                group(f, p, w, n, m0, smaller(m0 + BLOCK_TOKENS, p->m), u, u1);
                w += (size_t)((u1 - u) / per * l->bytes * ROWS);
            }
        }
}

/* --- 16-bit floats ---------------------------------------------------------------- */

/* The two elements of each dword. */
TS_INLINE void float_pair(ts_type type, __m512i v, __m512 *a, __m512 *b)
{
    if (type == TS_TYPE_BF16) {
        *a = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
        *b = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
    } else {
        *a = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
        *b = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
    }
}

TS_INLINE void float_tile(ts_type type, int tokens, const uint8_t *w, const uint8_t *x0, size_t ldx,
                          int64_t units, const r16_out *out)
{
    const uint8_t *x[TILE];
    __m512 acc[TILE], odd[TILE];
    start(tokens, x0, ldx, x, acc);
    TS_UNROLL
    for (int t = 0; t < tokens; t++)
        odd[t] = _mm512_setzero_ps();
    for (; units > 0; units--, w += 16 * 64) {
        r16_prefetch(w, 16 * 64);
        TS_UNROLL
        for (int j = 0; j < 16; j++) {
            __m512 a, b;
            float_pair(type, _mm512_loadu_si512(w + 64 * j), &a, &b);
            TS_UNROLL
            for (int t = 0; t < tokens; t++) {
                const float *xt = (const float *)x[t] + ts_r16_pair(j);
                acc[t] = _mm512_fmadd_ps(a, _mm512_set1_ps(xt[0]), acc[t]);
                odd[t] = _mm512_fmadd_ps(b, _mm512_set1_ps(xt[2]), odd[t]);
            }
        }
        TS_UNROLL
        for (int t = 0; t < tokens; t++)
            x[t] += 32 * sizeof(float);
    }
    TS_UNROLL
    for (int t = 0; t < tokens; t++)
        acc[t] = _mm512_add_ps(acc[t], odd[t]);
    store(out, tokens, acc);
}

static void float_mul(r16_tile *const tile[TILE], const ts_mul *p)
{
    const int64_t units = ts_tile_count(p->k, 32);
    const size_t ldx = (size_t)units * 32 * sizeof(float);
    for (int64_t m0 = 0; m0 < p->m; m0 += BLOCK_TOKENS)
        for (int64_t n = p->n0; n < p->n1; n += ROWS) {
            const uint8_t *w = (const uint8_t *)p->w + (size_t)(n * units) * 64;
            int64_t m1 = smaller(m0 + BLOCK_TOKENS, p->m), t;
            for (int64_t m = m0; m < m1; m += t) {
                r16_out out = group_out(p, n, m, true);
                t = smaller(m1 - m, TILE);
                tile[t - 1](w, (const uint8_t *)p->x + (size_t)m * ldx, ldx, units, &out);
            }
        }
}

/* --- the sets --------------------------------------------------------------------- */

#define KSET(T, name, act)                                                                         \
    TS_R16_PACKING(T)                                                                              \
    extern const ts_kset TS_SYM(ts_kset_##T##_avx512);                                             \
    const ts_kset TS_SYM(ts_kset_##T##_avx512) = {                                                 \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_AVX512,                                                                      \
        .layout = #name ".r16",                                                                    \
        .prep = &TS_SYM(R16_EXACT_##act),                                                          \
        .prep_int8 = &TS_SYM(R16_INT8_##act),                                                      \
        .group = ROWS,                                                                             \
        .packing = &ts_r16_packing[TS_TYPE_##T],                                                   \
        .packed_bytes = bytes_##T,                                                                 \
        .pack = pack_##T,                                                                          \
        .unpack = unpack_##T,                                                                      \
        .mul = mul_##T,                                                                            \
    };
#define R16_EXACT_Q8_32  ts_prep_q15_avx512
#define R16_EXACT_Q8_256 ts_prep_q15_avx512
#define R16_EXACT_F32    ts_prep_f32_avx512
#define R16_INT8_Q8_32   ts_prep_q8_32_avx512
#define R16_INT8_Q8_256  ts_prep_q8_256_avx512
#define R16_INT8_F32     ts_prep_f32_avx512

#define DIRECT_TILE(T, tokens, limbs)                                                              \
    static void direct##tokens##_##limbs##_##T(const uint8_t *w, const uint8_t *x, size_t ldx,     \
                                               int64_t units, const r16_out *out)                  \
    {                                                                                              \
        direct(TS_TYPE_##T, tokens, limbs, w, x, ldx, units, out);                                 \
    }
#define QUANT(T, name, act)                                                                        \
    DIRECT_TILE(T, 1, 1)                                                                           \
    DIRECT_TILE(T, 2, 1)                                                                           \
    DIRECT_TILE(T, 3, 1)                                                                           \
    DIRECT_TILE(T, 4, 1)                                                                           \
    DIRECT_TILE(T, 1, 2)                                                                           \
    DIRECT_TILE(T, 2, 2)                                                                           \
    DIRECT_TILE(T, 3, 2)                                                                           \
    DIRECT_TILE(T, 4, 2)                                                                           \
    static void panel_##T(uint8_t *dst, const uint8_t *w, int64_t units)                           \
    {                                                                                              \
        make_panel(TS_TYPE_##T, dst, w, units);                                                    \
    }                                                                                              \
    static const r16_kernels kernels_##T = {                                                       \
        TS_TYPE_##T,                                                                               \
        panel_##T,                                                                                 \
        {{direct1_1_##T, direct2_1_##T, direct3_1_##T, direct4_1_##T},                             \
         {direct1_2_##T, direct2_2_##T, direct3_2_##T, direct4_2_##T}}};                           \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        mul(&kernels_##T, p);                                                                      \
    }                                                                                              \
    KSET(T, name, act)

R16_TYPES(QUANT)

#define FLOAT_TILE(T, tokens)                                                                      \
    static void float##tokens##_##T(const uint8_t *w, const uint8_t *x, size_t ldx, int64_t units, \
                                    const r16_out *out)                                            \
    {                                                                                              \
        float_tile(TS_TYPE_##T, tokens, w, x, ldx, units, out);                                    \
    }
#define FLOAT(T, name)                                                                             \
    FLOAT_TILE(T, 1)                                                                               \
    FLOAT_TILE(T, 2)                                                                               \
    FLOAT_TILE(T, 3)                                                                               \
    FLOAT_TILE(T, 4)                                                                               \
    FLOAT_TILE(T, 5)                                                                               \
    FLOAT_TILE(T, 6)                                                                               \
    FLOAT_TILE(T, 7)                                                                               \
    FLOAT_TILE(T, 8)                                                                               \
    static r16_tile *const floats_##T[TILE] = {float1_##T, float2_##T, float3_##T, float4_##T,     \
                                               float5_##T, float6_##T, float7_##T, float8_##T};    \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        float_mul(floats_##T, p);                                                                  \
    }                                                                                              \
    KSET(T, name, F32)

FLOAT(F16, f16)
FLOAT(BF16, bf16)

/* r16_int8_amx.c - products with 8-bit activations by int8 tiles, for the amx kernel sets of
 * quantised types and many tokens.
 *
 * A k block of weights gets one scale a row and is made int8 once, into a panel of tiles in L1:
 *
 *     w = s q,   s = max|w| / 127,   q = rint((ds c - dm) / s)
 *     C[16 rows][16 tokens] = A[16 rows][64 k] (panel) * B[64 k][16 tokens] (activations), summed
 *                             over the k block, and 64 spare codes of its largest elements, in
 *                             int32: 576 * 128 * 127 is far from overflowing
 *     sum[row][token] += C * d[token] * s[row]
 *
 * with 2 x 2 accumulators. A product of tiles has twice the k of BF16 at the same cost. The sums of
 * a k block are added, as floats, while the next block's products run: they go through a buffer of
 * which there are two, and the work on the one is dealt out over the steps of the other.
 *
 * Making a panel is a look-up for all types of up to 32 levels: VPERMB finds 64 codes in the int8
 * levels of as many (row, sub-block) pairs as fit into 64 bytes; the levels are computed as words.
 * Types with more levels multiply their codes. */
#include "cpu/kset/r16_code.h"
#include "cpu/kset/r16_tiles.h"
#include "cpu/prep.h"

enum {
    STEPS = TS_TILE8_STEPS,
    LINES = 2 * STEPS,          /* sub-blocks of 32 elements of a k block                  */
    GROUP = (STEPS + 1) * TILE, /* of a group's panel: the last is for spare codes         */
    PANEL = 2 * GROUP,          /* of two groups                                           */
    HELD = 4 * TILE,            /* sums of 2 x 2 tiles                                     */
    AHEAD = 2,                  /* tiles of activations asked for into L1 ahead of use     */
    EACH_STEP = STEPS < 8 ? 8 / STEPS : 1, /* of the held sums' 8 halves                   */
};
_Static_assert(PANEL + HELD + 2 * ROWS * 4 + SUMS <= TS_MUL_SCRATCH, "scratch of a product");
_Static_assert(PANEL % 64 == 0 && HELD % 64 == 0, "whole lines");

/* --- levels -------------------------------------------------------------------------- */

/* How many levels are looked up; 0: too many. */
TS_INLINE int table_levels(ts_type type)
{
    switch (type) {
    case TS_TYPE_Q2_K:
        return 4;
    case TS_TYPE_Q3_K:
        return 8;
    case TS_TYPE_Q5_0:
    case TS_TYPE_Q5_1:
    case TS_TYPE_Q5_K:
        return 32;
    case TS_TYPE_Q6_K:
    case TS_TYPE_Q8_0:
        return 0;
    default:
        return 16;
    }
}

/* Signed codes (c - offset) times this are about left-aligned in a byte, as a factor of VPMULHRSW.
 */
TS_INLINE int lift(ts_type type)
{
    return (128 + r16_offset(type) - 1) / r16_offset(type);
}

/* Levels of a table fill 64 bytes, each (row, sub-block) a run of them:
 *
 *      4 levels   rows r, r + 1, r + 4, r + 5 .. r + 13, two sub-blocks each
 *      8 levels   rows r, r + 4, r + 8, r + 12, two sub-blocks each
 *     16 levels   rows r, r + 4, r + 8, r + 12
 *     32 levels   rows r, r + 4
 *
 * so that it serves as many pairs as it has rows / 2. Types without a table have here the words of
 * a pair: of 16 or 32 elements. Factors lie as [row] { word of the first sub-block, of the second
 * }: the places of the bytes of a factor for each word of a table. */
TS_INLINE long long factor_places(ts_type type, int eighth)
{
    const long long ones = 0x0101010101010101, word = 0x0100010001000100;
    int row = 4 * (eighth / 2), second = 0;
    switch (table_levels(type)) {
    case 4:
        return 0x0302030201000100 + ones * 4 * (row + eighth % 2);
    case 8:
        second = eighth % 2;
        break;
    case 16:
        break;
    default:
        row = 4 * (eighth / 4);
        second = r16_sub(type) == 16 ? eighth / 2 % 2 : 0;
        break;
    }
    return word + ones * (4 * row + 2 * second);
}

/* The factors of the table, or of the pair, that begins with this row. */
TS_INLINE __m512i factors(ts_type type, const int32_t *f, int row)
{
    const __m512i places =
        _mm512_setr_epi64(factor_places(type, 0), factor_places(type, 1), factor_places(type, 2),
                          factor_places(type, 3), factor_places(type, 4), factor_places(type, 5),
                          factor_places(type, 6), factor_places(type, 7));
    return _mm512_permutexvar_epi8(_mm512_add_epi8(places, _mm512_set1_epi8((char)(4 * row))),
                                   _mm512_loadu_si512(f));
}

/* The codes of a table's bytes, or their levels with the offset. */
TS_INLINE __m512i table_codes(ts_type type)
{
    const int a = 0x03020100, four = 0x04040404;
    switch (table_levels(type)) {
    case 4:
        return _mm512_set1_epi32(a);
    case 8:
        return _mm512_set4_epi32(a + four, a, a + four, a);
    case 16:
        if (r16_is_table(type))
            return _mm512_set4_epi32(r16_levels(type, 3), r16_levels(type, 2), r16_levels(type, 1),
                                     r16_levels(type, 0));
        return _mm512_set4_epi32(a + 3 * four, a + 2 * four, a + four, a);
    default:
        return _mm512_setr_epi32(a, a + four, a + 2 * four, a + 3 * four, a + 4 * four,
                                 a + 5 * four, a + 6 * four, a + 7 * four, a, a + four,
                                 a + 2 * four, a + 3 * four, a + 4 * four, a + 5 * four,
                                 a + 6 * four, a + 7 * four);
    }
}

/* q of all levels: of even codes and of odd ones as words, then joined. */
TS_INLINE __m512i table_of(ts_type type, const int32_t *ratio, const int32_t *min, int row)
{
    const __m512i low = _mm512_set1_epi16(0xff), high = _mm512_set1_epi16((short)0xff00);
    const __m512i codes = table_codes(type);
    __m512i even = _mm512_and_si512(codes, low), odd = _mm512_srli_epi16(codes, 8);
    const __m512i r = factors(type, ratio, row);
    if (r16_offset(type)) {
        const __m512i offset = _mm512_set1_epi16((short)r16_offset(type));
        const __m512i up = _mm512_set1_epi16((short)lift(type));
        even = _mm512_mulhrs_epi16(_mm512_mullo_epi16(_mm512_sub_epi16(even, offset), up), r);
        odd = _mm512_mulhrs_epi16(_mm512_mullo_epi16(_mm512_sub_epi16(odd, offset), up), r);
        return r16_and_or(even, low, _mm512_slli_epi16(odd, 8));
    }
    /* 8 bits of fraction: what overflows on the way to a q that doesn't is of no account */
    even = _mm512_add_epi16(_mm512_mullo_epi16(even, r), factors(type, min, row));
    odd = _mm512_add_epi16(even, r);
    return r16_and_or(odd, high, _mm512_srli_epi16(even, 8));
}

/* Where the levels of pair i's codes begin in its table. */
TS_INLINE __m512i table_begins(ts_type type, int i)
{
    const long long ones = 0x0101010101010101;
    const int levels = table_levels(type), second_row = levels == 32 ? 32 : 16;
    const int second = levels <= 8 ? levels : 0; /* sub-block */
    const int pair = levels == 32 ? 0 : 32 * (i % 2) + (levels == 4 ? 8 * (i / 2 % 2) : 0);
    const long long a = ones * pair, b = ones * (pair + second);
    const long long c = ones * (pair + second_row), d = ones * (pair + second_row + second);
    return _mm512_setr_epi64(a, a, b, b, c, c, d, d);
}

/* q of the codes of a type with too many levels for a table. */
TS_INLINE __m512i multiplied(ts_type type, __m512i codes, __m512i r)
{
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i v = r16_shift(codes, 0, type == TS_TYPE_Q6_K ? 2 : 0);
    v = _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)); /* (c - offset) lift */
    __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), odd = _mm512_srai_epi16(v, 8);
    even = _mm512_mulhrs_epi16(even, r);
    odd = _mm512_mulhrs_epi16(odd, r);
    return r16_and_or(even, low, _mm512_slli_epi16(odd, 8));
}

/* --- panels -------------------------------------------------------------------------- */

/* 16 rows x 32 k, half of a tile: sub-block s of packed block b. */
TS_INLINE void half_tile(ts_type type, uint8_t *dst, const uint8_t *b, int s, const int32_t *ratio,
                         const int32_t *min)
{
    const int levels = table_levels(type);
    const int pairs = levels == 4 ? 4 : levels == 32 ? 1 : 2; /* that share a table */
    __m512i table = _mm512_setzero_si512();
    TS_UNROLL
    for (int i = 0; i < 8; i++) {
        const int r = ts_r16_row(i);
        __m512i q;
        if (levels == 0) {
            q = multiplied(type, r16_code(type, b, s, i, false), factors(type, ratio, r));
        } else {
            if (i % pairs == 0)
                table = table_of(type, ratio, min, r);
            __m512i begins = table_begins(type, i);
            q = r16_is_nibble(type) ? r16_nibbles(type, b, s, i, begins)
                                    : _mm512_or_si512(r16_code(type, b, s, i, false), begins);
            q = _mm512_permutexvar_epi8(q, table);
        }
        _mm256_storeu_si256((__m256i *)(dst + 64 * r), _mm512_castsi512_si256(q));
        _mm256_storeu_si256((__m256i *)(dst + 64 * (r + 4)), _mm512_extracti64x4_epi64(q, 1));
    }
}

/* Factors of sub-block i as dwords of which the lower word counts; of two of 16 elements both. */
TS_INLINE void put_factors(int32_t *dst, int subs, __m512i first, __m512i second)
{
    if (subs == 2)
        first = r16_and_or(first, _mm512_set1_epi32(0xffff), _mm512_slli_epi32(second, 16));
    _mm512_storeu_si512(dst, first);
}

/* (ds / s) in the form that the levels are multiplied with. */
TS_INLINE __m512i ratio_of(const float *ds, __m512 scale)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(ds), scale));
}

/* -dm / s with 8 bits of fraction, and a half for rounding. */
TS_INLINE __m512i min_of(const float *dm, __m512 scale)
{
    return _mm512_cvtps_epi32(_mm512_fnmadd_ps(_mm512_loadu_ps(dm), scale, _mm512_set1_ps(128.0f)));
}

/* One group of rows: n sub-blocks of 32 elements from number k0 on, as tiles of 64 elements, and
 * the scales of the rows. w: the group's first block. Where n is odd the last tile's second half
 * stays as it is: it meets zeros.
 *
 * A row of zeros, or one so small that 1 / s is infinite, gets factors that don't fit an integer;
 * their lower words are zeros, and so is q. */
TS_INLINE void int8_panel(ts_type type, uint8_t *dst, float *scale, const uint8_t *w, int64_t k0,
                          int64_t n)
{
    const int per = r16_block(type) / 32, subs = 32 / r16_sub(type);
    const size_t bytes = r16_block_bytes(type);
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    /* the largest code: only of types with minimums of their own */
    const __m512 most = _mm512_set1_ps((float)(table_levels(type) - 1));
    _Alignas(64) float ds[LINES * 2 * ROWS], dm[LINES * 2 * ROWS];
    _Alignas(64) int32_t ratio[LINES * ROWS], min[LINES * ROWS];
    w += (size_t)(k0 / per) * bytes;
    const uint8_t *b = w;
    for (int64_t s = 0; s < n; s += per, b += bytes) {
        r16_prefetch(b, bytes);
        r16_scales(type, b, ds + s * subs * ROWS, dm + s * subs * ROWS, false);
    }
    __m512i max = _mm512_setzero_si512(); /* bits: a NaN is the largest of all */
    for (int64_t i = 0; i < n * subs; i++) {
        __m512 m = _mm512_loadu_ps(dm + i * ROWS);
        max = _mm512_max_epi32(max, _mm512_and_si512(_mm512_castps_si512(m), abs));
        if (r16_offset(type) == 0) {
            m = _mm512_fmsub_ps(_mm512_loadu_ps(ds + i * ROWS), most, m);
            max = _mm512_max_epi32(max, _mm512_and_si512(_mm512_castps_si512(m), abs));
        }
    }
    const __m512 top = _mm512_castsi512_ps(max), inv = _mm512_div_ps(_mm512_set1_ps(127.0f), top);
    _mm512_storeu_ps(scale, _mm512_mul_ps(top, _mm512_set1_ps(1 / 127.0f)));
    const __m512 of_min = _mm512_mul_ps(inv, _mm512_set1_ps(256.0f));
    const __m512 of_ratio = r16_offset(type)
                                ? _mm512_mul_ps(inv, _mm512_set1_ps(32768.0f / (float)lift(type)))
                                : of_min;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i * subs * ROWS, second = at + (subs - 1) * ROWS;
        put_factors(ratio + i * ROWS, subs, ratio_of(ds + at, of_ratio),
                    ratio_of(ds + second, of_ratio));
        if (r16_offset(type) == 0)
            put_factors(min + i * ROWS, subs, min_of(dm + at, of_min), min_of(dm + second, of_min));
    }
    b = w;
    for (int64_t i = 0; i < n; i += per, b += bytes) {
        TS_UNROLL
        for (int s = 0; s < per; s++) {
            const int64_t line = i + s;
            half_tile(type, dst + line / 2 * TILE + line % 2 * 32, b, s, ratio + line * ROWS,
                      min + line * ROWS);
        }
    }
}

/* One step more, for the spare codes of a k block (prep_x16.h): the weights they meet are those of
 * their elements. A row of the panel's first steps is 8 lines, and VPERMB takes from each what lies
 * there; lines past the k block have none. */
static void spare_tile(uint8_t *panel, int64_t steps, const uint8_t *elements)
{
    const __m512i place = _mm512_loadu_si512(elements), step = _mm512_loadu_si512(elements + 64);
    __mmask64 of[STEPS];
    for (int s = 0; s < STEPS; s++)
        of[s] = _mm512_cmpeq_epi8_mask(step, _mm512_set1_epi8((char)s));
    for (int r = 0; r < ROWS; r++, panel += 64) {
        __m512i q = _mm512_permutexvar_epi8(place, _mm512_loadu_si512(panel));
        TS_UNROLL
        for (int s = 1; s < STEPS; s++)
            q = _mm512_mask_permutexvar_epi8(q, of[s], place, _mm512_loadu_si512(panel + s * TILE));
        _mm512_storeu_si512(panel + steps * TILE, q);
    }
}

typedef void amx_panel(uint8_t *dst, float *scale, const uint8_t *w, int64_t k0, int64_t n);

/* --- sums ------------------------------------------------------------------------------ */

/* Sums of a k block that wait to be scaled and added. */
typedef struct held {
    const uint8_t *c; /* [group][tile of tokens], int32                        */
    uint8_t *sum;     /* where they go: [group][BLOCK], tiles of floats        */
    const uint8_t *d; /* scales of the first tile's tokens                     */
    size_t d_stride;  /* to those of the second                                */
    const float *s;   /* scales of the rows, [group][16]                       */
    bool first;       /* k block: there is nothing to add to                   */
} held;

/* Half a tile, 8 rows of it: halves 0..3 are of the first group, 0 and 1 of its first tile. */
TS_INLINE void add_half(const held *h, int half)
{
    const int group = half / 4, tile = half / 2 % 2, row = half % 2 * 8;
    const uint8_t *c = h->c + (2 * group + tile) * TILE + 64 * row;
    uint8_t *sum = h->sum + (group * BLOCK + tile) * TILE + 64 * row;
    const float *s = h->s + group * ROWS + row;
    const __m512 d = _mm512_loadu_ps(h->d + (size_t)tile * h->d_stride);
    TS_KEEP_POINTER(c);
    TS_KEEP_POINTER(sum);
    TS_KEEP_POINTER(s);
    TS_UNROLL
    for (int r = 0; r < 8; r++) {
        __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(c + 64 * r)), d);
        __m512 scale = _mm512_set1_ps(s[r]);
        v = h->first ? _mm512_mul_ps(v, scale)
                     : _mm512_fmadd_ps(v, scale, _mm512_loadu_ps(sum + 64 * r));
        _mm512_storeu_ps(sum + 64 * r, v);
    }
}

/* --- tiles -------------------------------------------------------------------------- */

/* The products of a k block in tiles 0..3. a: panel, the second group's GROUP bytes on. b: tiles of
 * activations, the second tile of tokens' b_stride bytes on. Half a tile of `before`, which may be
 * NULL and is of two tiles of tokens, is added after each step. */
TS_INLINE void products(int groups, int tokens, const uint8_t *a, const uint8_t *b, size_t b_stride,
                        int64_t steps, const held *before)
{
    const int halves = before ? 4 * groups : 0;
    int half = 0;
    zero_sums(groups, tokens);
    for (int64_t s = 0; s < steps; s++, a += TILE, b += TILE) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbssd(0, 4, 6);
        if (tokens == 2) {
            _tile_loadd(7, b + b_stride, 64);
            _tile_dpbssd(1, 4, 7);
        }
        if (groups == 2) {
            _tile_loadd(5, a + GROUP, 64);
            _tile_dpbssd(2, 5, 6);
            if (tokens == 2)
                _tile_dpbssd(3, 5, 7);
        }
        if (tokens == 2) {
            /* behind the last steps come the first of the next two tiles of tokens */
            const uint8_t *next = b + AHEAD * TILE;
            if (s + AHEAD >= steps)
                next += 2 * b_stride - (size_t)steps * TILE;
            prefetch_tile(next);
            prefetch_tile(next + b_stride);
        }
        for (int i = 0; i < EACH_STEP && half < halves; i++)
            add_half(before, half++);
    }
    while (half < halves)
        add_half(before, half++);
}

typedef struct amx_job {
    const ts_mul *p;
    amx_panel *panel;
    size_t group_bytes; /* of a packed group of rows  */
    int64_t m_tiles;
    int64_t lines, k_tiles; /* k in 32s and in 64s */
    uint8_t *panel_mem, *held, *sums;
    float *scales; /* [group of 2][16]: of the panel's rows */
} amx_job;

/* One k block of one or two groups for all tokens of a block; x: the block's first tile of this k,
 * stride bytes from one tile of tokens to the next, sum: the first group's sums. */
TS_INLINE void wide(const amx_job *j, int groups, const uint8_t *x, size_t stride, uint8_t *sum,
                    int64_t tiles, int64_t steps, bool first)
{
    held h;
    const held *before = NULL;
    ts_tiles_see_stores();
    for (int64_t t = 0; t < tiles; t += 2, x += 2 * stride, sum += 2 * TILE) {
        if (tiles - t >= 2) {
            products(groups, 2, j->panel_mem, x, stride, steps, before);
            store_sums(groups, 2, j->held, 2 * TILE);
        } else {
            products(groups, 1, j->panel_mem, x, stride, steps, before);
            store_sums(groups, 1, j->held, 2 * TILE);
        }
        h = (held){j->held, sum, x + (size_t)steps * TILE, stride, j->scales, first};
        before = &h;
    }
    for (int half = 0; half < 4 * groups; half++)
        if (tiles % 2 == 0 || half / 2 % 2 == 0)
            add_half(before, half);
}

/* Of the k block that begins at tile k. */
static void make_panels(const amx_job *j, int64_t n, int groups, int64_t k, int64_t steps)
{
    const uint8_t *elements = (const uint8_t *)j->p->x + ts_tile8_block(j->m_tiles, k);
    for (int g = 0; g < groups; g++) {
        uint8_t *panel = j->panel_mem + g * GROUP;
        j->panel(panel, j->scales + g * ROWS,
                 (const uint8_t *)j->p->w + (size_t)(n / ROWS + g) * j->group_bytes, 2 * k,
                 smaller(LINES, j->lines - 2 * k));
        spare_tile(panel, steps, elements);
    }
}

/* Groups of rows from n on, at most STRIP, for `tiles` tiles of tokens from tile m on, at most a
 * block. */
static void strip(const amx_job *j, int64_t n, int groups, int64_t m, int64_t tiles)
{
    for (int64_t k = 0; k < j->k_tiles; k += STEPS) {
        const int64_t steps = ts_tile8_steps(k, j->k_tiles);
        const size_t stride = ts_tile8_bytes(steps);
        const uint8_t *x = (const uint8_t *)j->p->x + ts_tile8_place(m, j->m_tiles, k, j->k_tiles);
        for (int g = 0; g < groups; g += 2) {
            uint8_t *sum = j->sums + g * BLOCK * TILE;
            const int now = groups - g < 2 ? 1 : 2;
            make_panels(j, n + g * ROWS, now, k, steps);
            if (now == 2)
                wide(j, 2, x, stride, sum, tiles, steps + 1, k == 0);
            else
                wide(j, 1, x, stride, sum, tiles, steps + 1, k == 0);
        }
    }
}

static void int8_mul(amx_panel *panel, size_t group_bytes, const ts_mul *p)
{
    const int64_t groups = ts_tile_count(p->n1 - p->n0, ROWS);
    const int64_t m_tiles = ts_tile_count(p->m, TOKENS);
    uint8_t *mem = p->scratch;
    amx_job j = {.p = p,
                 .panel = panel,
                 .group_bytes = group_bytes,
                 .m_tiles = m_tiles,
                 .lines = p->k / 32,
                 .k_tiles = ts_tile_count(p->k, TS_TILE8_K),
                 .panel_mem = mem,
                 .held = mem + PANEL,
                 .scales = (float *)(mem + PANEL + HELD),
                 .sums = mem + PANEL + HELD + 2 * ROWS * sizeof(float)};
    for (int64_t m = 0; m < m_tiles; m += BLOCK) {
        int64_t tiles = smaller(BLOCK, m_tiles - m);
        for (int64_t g = 0; g < groups; g += STRIP) {
            int64_t n = p->n0 + g * ROWS, now = smaller(STRIP, groups - g);
            strip(&j, n, (int)now, m, tiles);
            for (int64_t i = 0; i < now; i++)
                for (int64_t t = 0; t < tiles; t++)
                    leave(p, j.sums + (i * BLOCK + t) * TILE, n + i * ROWS, (m + t) * TOKENS);
        }
    }
}

/* --- the types ------------------------------------------------------------------------ */

#define INT8_MUL(T, name, act)                                                                     \
    static void panel_##T(uint8_t *dst, float *scale, const uint8_t *w, int64_t k0, int64_t n)     \
    {                                                                                              \
        int8_panel(TS_TYPE_##T, dst, scale, w, k0, n);                                             \
    }                                                                                              \
    R16_INT8_MUL(T, name, act)                                                                     \
    void TS_SYM(ts_r16_int8_mul_##T)(const ts_mul *p)                                              \
    {                                                                                              \
        int8_mul(panel_##T, ts_r16_bytes(TS_TYPE_##T, ROWS, p->k), p);                             \
    }
R16_TYPES(INT8_MUL)

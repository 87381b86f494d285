/* r16_transpose.h - between a vector for each pair of rows and a vector for each dword of all rows.
 */
#ifndef TS_KSET_R16_TRANSPOSE_H
#define TS_KSET_R16_TRANSPOSE_H

#include "cpu/intrin.h"
#include "cpu/kset/r16.h"
#include "cpu/kset/unroll.h"

/* v[j], dword r = element (j, r), j < 8, r < 16. p[i]: pair i, its lower half the elements
 * (0..7, r) of r = ts_r16_row(i), its upper half those of r + 4. 24 shuffles. */
TS_INLINE void ts_transpose_8x16(const __m512i v[8], __m512i p[8])
{
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512i q[2][4]; /* dwords 0..3 and 4..7 of row 4 lane + i */
    TS_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m512i *u = v + 4 * h;
        __m512i a = _mm512_unpacklo_epi32(u[0], u[1]), b = _mm512_unpackhi_epi32(u[0], u[1]);
        __m512i c = _mm512_unpacklo_epi32(u[2], u[3]), d = _mm512_unpackhi_epi32(u[2], u[3]);
        q[h][0] = _mm512_unpacklo_epi64(a, c);
        q[h][1] = _mm512_unpackhi_epi64(a, c);
        q[h][2] = _mm512_unpacklo_epi64(b, d);
        q[h][3] = _mm512_unpackhi_epi64(b, d);
    }
    TS_UNROLL
    for (int i = 0; i < 4; i++) {
        p[2 * i] = _mm512_permutex2var_epi64(q[0][i], low, q[1][i]);
        p[2 * i + 1] = _mm512_permutex2var_epi64(q[0][i], high, q[1][i]);
    }
}

/* Back. */
TS_INLINE void ts_transpose_16x8(const __m512i p[8], __m512i v[8])
{
    const __m512i low = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
    const __m512i high = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
    TS_UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i q[4]; /* dwords 4 h .. + 3 of row 4 lane + i */
        TS_UNROLL
        for (int i = 0; i < 4; i++)
            q[i] = _mm512_permutex2var_epi64(p[2 * i], h ? high : low, p[2 * i + 1]);
        __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpackhi_epi32(q[0], q[1]);
        __m512i c = _mm512_unpacklo_epi32(q[2], q[3]), d = _mm512_unpackhi_epi32(q[2], q[3]);
        v[4 * h] = _mm512_unpacklo_epi64(a, c);
        v[4 * h + 1] = _mm512_unpackhi_epi64(a, c);
        v[4 * h + 2] = _mm512_unpacklo_epi64(b, d);
        v[4 * h + 3] = _mm512_unpackhi_epi64(b, d);
    }
}

/* Eights of bytes instead of dwords, and four vectors: p[i] has q of 4 of row i in its lower half,
 * of row i + 4 in its upper one; v[q] has it of rows 0..7. 8 shuffles. */
TS_INLINE void ts_transpose_4x4(const __m512i p[4], __m512i v[4])
{
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    __m512i a = _mm512_unpacklo_epi64(p[0], p[1]), b = _mm512_unpackhi_epi64(p[0], p[1]);
    __m512i c = _mm512_unpacklo_epi64(p[2], p[3]), d = _mm512_unpackhi_epi64(p[2], p[3]);
    v[0] = _mm512_permutex2var_epi64(a, low, c);
    v[1] = _mm512_permutex2var_epi64(b, low, d);
    v[2] = _mm512_permutex2var_epi64(a, high, c);
    v[3] = _mm512_permutex2var_epi64(b, high, d);
}

#endif

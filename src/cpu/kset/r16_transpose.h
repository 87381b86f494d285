/* r16_transpose.h - 8 vectors of 16 dwords: from a vector for each dword to rows. */
#ifndef TS_KSET_R16_TRANSPOSE_H
#define TS_KSET_R16_TRANSPOSE_H

#include "cpu/intrin.h"
#include "cpu/kset/unroll.h"

/* v[j], dword r = element (j, r), j < 8, r < 16. p[i]: its lower half holds elements (0..7, r) of
 * r = ts_transposed_row(i), its upper half those of r + 4. 24 shuffles. */
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

TS_INLINE int ts_transposed_row(int i)
{
    return i / 2 + 8 * (i % 2);
}

#endif

/* r16.h - weights in groups of 16 rows: the layout that the avx512 and amx kernel sets share.
 *
 * Packing is told in cpu/packing.h. What a block has once or a few times (scales) is kept as
 * [unit][row of 16], so that a vector holds it for all rows. Codes are kept by pairs of rows, 32
 * bytes of k each: the halves of a 64-byte vector, ready to become two rows of a tile. Pair i of 8
 * is rows r and r + 4, r = ts_r16_row(i): the order from which few shuffles make a vector of 16
 * rows (VNNI). */
#ifndef TS_KSET_R16_H
#define TS_KSET_R16_H

#include "cpu/kset.h"

enum { TS_R16_ROWS = 16 };

/* The first row of pair i; the second is 4 further on. */
static inline int ts_r16_row(int i)
{
    return i / 2 + 8 * (i % 2);
}

/* Of every type that has one. */
extern const ts_packing ts_r16_packing[TS_TYPE_COUNT];

/* The functions of ts_kset for any type: quantised ones by their layout, 16-bit floats in pairs.
 *
 * F16 and BF16: packed = [group of 16 rows][32 k][dword j of 16][row of 16], k filled up to a
 * multiple of 32 with zeros. Dword j of a row holds elements ts_r16_pair(j) and two further on: the
 * order in which a tile wants them (docs/KERNELS.md). */
size_t ts_r16_bytes(ts_type type, int64_t n, int64_t k);
void ts_r16_pack(ts_type type, void *packed, const void *src, int64_t n, int64_t k, int64_t n0,
                 int64_t n1);
void ts_r16_unpack(ts_type type, void *src, const void *packed, int64_t n, int64_t k, int64_t n0,
                   int64_t n1);

/* bytes_T, pack_T and unpack_T of one type, for its kernel sets. */
#define TS_R16_PACKING(T)                                                                          \
    static size_t bytes_##T(int64_t n, int64_t k)                                                  \
    {                                                                                              \
        return ts_r16_bytes(TS_TYPE_##T, n, k);                                                    \
    }                                                                                              \
    static void pack_##T(void *packed, const void *src, int64_t n, int64_t k, int64_t n0,          \
                         int64_t n1)                                                               \
    {                                                                                              \
        ts_r16_pack(TS_TYPE_##T, packed, src, n, k, n0, n1);                                       \
    }                                                                                              \
    static void unpack_##T(void *src, const void *packed, int64_t n, int64_t k, int64_t n0,        \
                           int64_t n1)                                                             \
    {                                                                                              \
        ts_r16_unpack(TS_TYPE_##T, src, packed, n, k, n0, n1);                                     \
    }

/* The order of 32 consecutive k in a tile row of 16 dwords: dword j holds k = ts_r16_pair(j) and
 * ts_r16_pair(j) + 2. All even k come before all odd ones, because a word shifted by a byte goes
 * from one to the other. */
static inline int ts_r16_pair(int j)
{
    return j < 8 ? 4 * j : 4 * (j - 8) + 1;
}

#endif

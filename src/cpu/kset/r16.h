/* r16.h - weights in groups of 16 rows: the layout that the avx512 and amx kernel sets share.
 *
 * A block of a type is a list of fields. Packing takes the same block of 16 neighbouring rows and
 * writes field by field what all rows have of it; blocks follow each other along k, groups along n.
 * Nothing is added but the rows that fill up the last group, and they are zeros.
 *
 *     packed = [group of 16 rows][block][field]
 *
 * What a block has once or a few times (scales) is kept as [unit][row of 16], so that a vector
 * holds it for all rows. Codes are kept by pairs of rows, 32 bytes of k each: the halves of a
 * 64-byte vector, ready to become two rows of a tile. Pair i of 8 is rows r and r + 4,
 * r = ts_r16_row(i): the order from which few shuffles make a vector of 16 rows (VNNI). */
#ifndef TS_KSET_R16_H
#define TS_KSET_R16_H

#include "cpu/kset.h"

enum { TS_R16_ROWS = 16, TS_R16_FIELDS = 5 };

typedef enum ts_r16_kind {
    TS_R16_BYTE,    /* 1 byte:            [row]                                                  */
    TS_R16_HALF,    /* 2 bytes:           [row]                                                  */
    TS_R16_DWORD,   /* 4 bytes:           [row]                                                  */
    TS_R16_BITS,    /* 32 bits, one an element: [pair][2 rows], a mask of a pair's 64 bytes      */
    TS_R16_PAIRS,   /* 32 bytes:          [pair][2 rows]                                         */
    TS_R16_NIBBLES, /* 16 bytes, byte i with elements i and i + 16: [q of 4][2 rows][element of 32],
                       low nibbles are those of pair 2 q, high ones those of pair 2 q + 1        */
} ts_r16_kind;

typedef struct ts_r16_field {
    uint8_t at;    /* offset of the field in the source block */
    uint8_t kind;  /* ts_r16_kind                             */
    uint8_t count; /* units, one after the other; 0 ends the list */
} ts_r16_field;

typedef struct ts_r16_layout {
    int block; /* elements                                                                     */
    int bytes; /* of a source block; the packed block of 16 rows has 16 times as many          */
    ts_r16_field field[TS_R16_FIELDS];
} ts_r16_layout;

/* The first row of pair i; the second is 4 further on. */
static inline int ts_r16_row(int i)
{
    return i / 2 + 8 * (i % 2);
}

/* The layout of a quantised type; NULL for a float type. */
const ts_r16_layout *ts_r16_layout_of(ts_type type);

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

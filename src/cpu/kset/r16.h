/* r16.h - weights in groups of 16 rows: the layout that the avx512 and amx kernel sets share.
 *
 * A block of a type is a list of fields. Packing takes the same block of 16 neighbouring rows and,
 * field by field, writes unit 0 of rows 0..15, unit 1 of rows 0..15, ... Blocks follow each other
 * along k, groups along n; nothing is added but the rows that fill up the last group, and they are
 * zeros.
 *
 *     packed = [group of 16 rows][block][field][unit][row of 16]
 *
 * With units of a dword one 64-byte vector holds 4 consecutive bytes of each of 16 rows. */
#ifndef TS_KSET_R16_H
#define TS_KSET_R16_H

#include "cpu/kset.h"

enum { TS_R16_ROWS = 16, TS_R16_FIELDS = 5 };

typedef struct ts_r16_field {
    uint8_t at;    /* offset of the field in the source block                                     */
    uint8_t unit;  /* bytes kept together: 1, 2 or 4                                              */
    uint8_t count; /* units; 0 ends the list                                                      */
    bool planes;   /* one dword of 32 bits, bit i of element i: packed as bit i / 4 of byte i % 4,
                      so that one shift brings the bits of 4 consecutive k into their 4 bytes    */
} ts_r16_field;

typedef struct ts_r16_layout {
    int block; /* elements                                                                     */
    int bytes; /* of a source block; the packed block of 16 rows has 16 times as many          */
    ts_r16_field field[TS_R16_FIELDS];
} ts_r16_layout;

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

/* The order of 32 consecutive k in a tile row of 16 dwords: dword j holds k = ts_r16_pair(j) and
 * ts_r16_pair(j) + 2. All even k come before all odd ones, because a word shifted by a byte goes
 * from one to the other. */
static inline int ts_r16_pair(int j)
{
    return j < 8 ? 4 * j : 4 * (j - 8) + 1;
}

#endif

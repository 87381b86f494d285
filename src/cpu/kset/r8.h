/* r8.h - weights in groups of 8 rows: what is the same for every quantised type and every ISA that
 * reads it.
 *
 * A block of a type is a list of fields. Packing takes the same block of 8 neighbouring rows and,
 * field by field, writes unit 0 of rows 0..7, unit 1 of rows 0..7, ... Blocks follow each other
 * along k, groups along n; nothing is added but the rows that fill up the last group, and they are
 * zeros.
 *
 *     packed = [group of 8 rows][block][field][unit][row of 8]
 *
 * With units of a dword one 32-byte vector then holds 4 consecutive bytes of each of 8 rows. */
#ifndef TS_KSET_R8_H
#define TS_KSET_R8_H

#include "cpu/kset.h"

enum { TS_R8_ROWS = 8, TS_R8_FIELDS = 5 };

typedef struct ts_r8_field {
    uint8_t at;   /* offset of the field in the source block                                      */
    uint8_t unit; /* bytes kept together: 1, 2 or 4                                               */
    uint8_t count; /* units; 0 ends the list */
    bool planes;   /* one dword of 32 bits, bit i of element i: packed as bit i / 4 of byte i % 4,
                      so that one shift brings the bits of 4 consecutive k into their 4 bytes   */
} ts_r8_field;

typedef struct ts_r8_layout {
    int block; /* elements   */
    int bytes; /* of a source block; the packed block of 8 rows has 8 times as many */
    ts_r8_field field[TS_R8_FIELDS];
} ts_r8_layout;

size_t ts_r8_bytes(const ts_r8_layout *l, int64_t n, int64_t k);
void ts_r8_pack(const ts_r8_layout *l, void *packed, const void *src, int64_t n, int64_t k,
                int64_t n0, int64_t n1);
void ts_r8_unpack(const ts_r8_layout *l, void *src, const void *packed, int64_t n, int64_t k,
                  int64_t n0, int64_t n1);

#endif

/* packing.h - how packed weights lie in memory, as data: what packs and unpacks, on any device,
 * reads these.
 *
 * A block of a type is a list of fields. Packing takes the same block of `rows` neighbouring rows
 * and writes field by field, unit by unit, what all rows have of it. Blocks follow each other along
 * k, groups of rows along n. Nothing is added but the rows that fill up the last group and the
 * elements that fill up the last block of a float type, and they are zeros.
 *
 *     packed = [group of rows][block][field][unit][all rows, as the field's kind has them] */
#ifndef TS_PACKING_H
#define TS_PACKING_H

#include <stdint.h>

enum { TS_PACK_FIELDS = 5 };

typedef enum ts_pack_kind {
    TS_PACK_BYTE,   /* 1 byte:   [row]                                                            */
    TS_PACK_HALF,   /* 2 bytes:  [row]                                                            */
    TS_PACK_DWORD,  /* 4 bytes:  [row]                                                            */
    TS_PACK_PLANES, /* 32 bits, one an element: [row], bit i as bit i / 4 of byte i % 4           */
    /* Of 16 rows; pair i of 8 is rows r and r + 4, r = i / 2 + 8 * (i % 2). */
    TS_PACK_BITS,  /* 4 bytes:  [pair][2 rows]                                                   */
    TS_PACK_PAIRS, /* 32 bytes: [pair][2 rows]                                                   */
    TS_PACK_NIBBLES, /* 16 bytes, byte i with elements i and i + 16: [q of 4][2 rows][element of
                        32], low nibbles are those of pair 2 q, high ones those of pair 2 q + 1 */
    TS_PACK_FLOATS,  /* 32 floats of 2 bytes: [dword j of 16][row], with elements e and e + 2,
                        e = 4 * (j % 8) + j / 8                                                    */
} ts_pack_kind;

typedef struct ts_pack_field {
    uint8_t at;    /* offset of the field in the source block     */
    uint8_t kind;  /* ts_pack_kind                                */
    uint8_t count; /* units, one after the other; 0 ends the list */
} ts_pack_field;

typedef struct ts_packing {
    int rows;  /* packed together: 8 or 16                                                 */
    int block; /* elements                                                                 */
    int bytes; /* of a source block; the packed block has so many for each row             */
    ts_pack_field field[TS_PACK_FIELDS]; /* in the order of the packed block               */
} ts_packing;

/* Bytes of a unit of one row. */
static inline int ts_pack_unit(int kind)
{
    return kind == TS_PACK_BYTE      ? 1
           : kind == TS_PACK_HALF    ? 2
           : kind == TS_PACK_PAIRS   ? 32
           : kind == TS_PACK_NIBBLES ? 16
           : kind == TS_PACK_FLOATS  ? 64
                                     : 4;
}

#endif

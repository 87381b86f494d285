/* r8.h - weights in groups of 8 rows: what is the same for every quantised type and every ISA that
 * reads it.
 *
 * Packing is told in cpu/packing.h; all units are kept as [row of 8]. With units of a dword one
 * 32-byte vector then holds 4 consecutive bytes of each of 8 rows. Fifth bits are packed as planes,
 * so that one shift brings the bits of 4 consecutive k into their 4 bytes. */
#ifndef TS_KSET_R8_H
#define TS_KSET_R8_H

#include "cpu/kset.h"

enum { TS_R8_ROWS = 8 };

size_t ts_r8_bytes(const ts_packing *l, int64_t n, int64_t k);
void ts_r8_pack(const ts_packing *l, void *packed, const void *src, int64_t n, int64_t k,
                int64_t n0, int64_t n1);
void ts_r8_unpack(const ts_packing *l, void *src, const void *packed, int64_t n, int64_t k,
                  int64_t n0, int64_t n1);

#endif

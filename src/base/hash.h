/* hash.h - a 64-bit checksum at memory speed.
 *
 * It finds accidents and edits: any change within one 8-byte word changes the result for certain,
 * any other change does with all but a chance of about 2^-64. It is no defence against someone who
 * computes a forgery. The values are part of a file format (exec/pack_cache.h). */
#ifndef TS_HASH_H
#define TS_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The hash of p[n]; different seeds give unrelated hashes. */
uint64_t ts_hash64(const void *p, size_t n, uint64_t seed);

#endif

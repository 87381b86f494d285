/* pack_io.h - the payload of a pack cache, read and written by all threads.
 *
 * It goes in blocks of 1 MiB, which a thread hashes while they are in its cache. The sum over all
 * blocks of a hash seeded with the block's number is the checksum of the payload: a change in one
 * block can't be lost in the sum, nor can two blocks change places. */
#ifndef TS_PACK_IO_H
#define TS_PACK_IO_H

#include "exec/load.h"

/* Both take n bytes from TS_PACK_PAGE on and return an errno, or 0 (also when p was stopped, *sum
 * is worth nothing then). */
int ts_pack_read_blocks(int fd, ts_pool *pool, uint8_t *dst, size_t n, ts_progress *p,
                        uint64_t *sum);
int ts_pack_write_blocks(int fd, ts_pool *pool, const uint8_t *src, size_t n, ts_progress *p,
                         uint64_t *sum);

/* All n bytes; false with errno. */
bool ts_pack_pwrite(int fd, const void *src, size_t n, uint64_t offset);

#endif

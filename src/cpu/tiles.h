/* tiles.h - the one tile configuration of every AMX kernel: palette 1, all eight tiles of 16 rows x
 * 64 bytes. Smaller products fill their operands up; a tile with fewer rows takes nearly the same
 * time, and a second configuration would have to be loaded within the job.
 *
 * A thread calls ts_tiles_begin before its first kernel with tiles and ts_tiles_end after the last:
 * around a pool job, not around a kernel. What the tiles hold is undefined at the start of a
 * kernel. The process must have got Linux' permission for tiles before (base/cpu.h). */
#ifndef TS_TILES_H
#define TS_TILES_H

void ts_tiles_begin(void);
void ts_tiles_end(void);

/* Between writing memory and loading tiles from it: gcc's _tile_loadd doesn't tell the compiler
 * that it reads memory. (_tile_stored does tell that it writes.) */
static inline void ts_tiles_see_stores(void)
{
    __asm__ volatile("" ::: "memory");
}

#endif

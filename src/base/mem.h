/* mem.h - checked sizes, aligned memory and a growing byte buffer. */
#ifndef TS_MEM_H
#define TS_MEM_H

#include "base/status.h"

/* true on overflow, as the builtins */
#define ts_mul_overflow(a, b, r) __builtin_mul_overflow(a, b, r)
#define ts_add_overflow(a, b, r) __builtin_add_overflow(a, b, r)

/* Zeroed array of n elements; NULL when n*size overflows or memory is short. n = 0 gives a freeable
 * pointer. free() frees it. */
void *ts_calloc(size_t n, size_t size);

/* Large zeroed memory straight from the kernel, on huge pages where the system allows: aligned to
 * 2 MiB from that size on, to a page below. NULL when short. ts_unmap takes the same size. */
void *ts_map(size_t size);
void ts_unmap(void *p, size_t size);

/* Bytes of main memory: all of it / free for new allocations (0 = unknown). Honour the cgroup
 * limit. */
uint64_t ts_mem_total(void);
uint64_t ts_mem_available(void);

/* A growing string. Zero-initialise; after a failed append `failed` is set and appends do nothing.
 */
typedef struct ts_sb {
    char *s; /* NUL-terminated once anything was appended */
    size_t n, cap;
    bool failed;
} ts_sb;

void ts_sb_add(ts_sb *b, const void *p, size_t n);
void ts_sb_str(ts_sb *b, const char *s);
void ts_sb_printf(ts_sb *b, const char *fmt, ...) TS_PRINTF(2, 3);
void ts_sb_json_str(ts_sb *b, const char *s,
                    size_t n); /* quoted and escaped; bad UTF-8 -> U+FFFD */
void ts_sb_free(ts_sb *b);

#endif

/* load.h - what the files of the CPU device's loading share.
 *
 *     cpu_load.c     pieces of weights: packed, or hashed, by all threads
 *     pack_key.c     what a packed arena was made from
 *     pack_cache.c   the file that keeps a packed arena for the next start
 */
#ifndef TS_EXEC_LOAD_H
#define TS_EXEC_LOAD_H

#include <stdatomic.h>

#include "base/pool.h"
#include "exec/backend.h"

/* How far a load is. Work is counted by all threads and reported by the first, which is the one
 * that called the library. */
typedef struct ts_progress {
    const ts_load_options *opt;
    atomic_size_t done;
    size_t all;       /* bytes to go through                      */
    atomic_bool stop; /* cancelled: threads claim no more */
} ts_progress;

/* Thread tid has done n bytes more. False: stop. */
bool ts_progress_add(ts_progress *p, int tid, size_t n);

#endif

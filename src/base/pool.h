/* pool.h - persistent, pinned compute threads.
 *
 * A job is one function run by every thread at once (SPMD); inside it the
 * threads meet at ts_pool_barrier, which spins briefly and then sleeps. Thread 0 is the
 * caller of ts_pool_run. Workers set FTZ and DAZ; thread 0 has them for
 * the duration of the job. Between jobs the workers spin briefly and then sleep.
 * One job at a time: ts_pool_run from two threads is serialised by a lock. */
#ifndef TS_POOL_H
#define TS_POOL_H

#include <stdatomic.h>

#include "base/status.h"

typedef struct ts_pool ts_pool;

/* arg, thread index 0..n-1 */
typedef void ts_pool_fn(void *arg, int tid, int n_threads);

ts_status ts_pool_open(ts_pool **out, int n_threads, ts_error *err);
void ts_pool_close(ts_pool *p);
int ts_pool_size(const ts_pool *p);
void ts_pool_run(ts_pool *p, ts_pool_fn *fn, void *arg);
/* fn(arg, 0, 1) on the calling thread, with its arithmetic as in a job: for what is done before
 * another thread would have woken. Needs no pool; fn must not meet at barriers. */
void ts_pool_alone(ts_pool_fn *fn, void *arg);

/* All threads of the running job meet here; everything written before is visible after. */
void ts_pool_barrier(ts_pool *p);

/* Memory that a thread will read soon: asked for into its second-level cache while there is nothing
 * else to do. at moves on; at >= end: there is no more. */
typedef struct ts_ahead {
    const char *at, *end;
} ts_ahead;

/* The same, and while a thread waits it asks for what its two ranges name, one after the other. */
void ts_pool_barrier_ahead(ts_pool *p, ts_ahead ahead[2]);

/* Dynamic work: threads claim chunk numbers from a shared counter that starts at 0. */
static inline int64_t ts_claim(atomic_int_fast64_t *next)
{
    return atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
}

#endif

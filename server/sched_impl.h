/* sched_impl.h - the scheduler's state, for sched.c (every thread's side) and step.c (its own
 * thread's). */
#ifndef TS_SCHED_IMPL_H
#define TS_SCHED_IMPL_H

#include <pthread.h>

#include "base/log.h"
#include "gen.h"

/* Something to be done between two steps, by the scheduler's thread for one that waits. */
typedef struct ts_sched_job {
    struct ts_sched_job *next;
    ts_status (*run)(ts_session *s, const char *path, int64_t *pages, ts_error *err);
    const char *path;
    int64_t pages;
    ts_status st;
    ts_error err;
    bool done;
} ts_sched_job;

typedef struct ts_gen_list {
    ts_gen *first, *last;
} ts_gen_list;

struct ts_sched {
    /* set once */
    ts_gen_model model;
    ts_session *session;
    ts_log log;
    int32_t n_slots;
    size_t n_ubatch;
    pthread_t thread;

    /* under the lock */
    pthread_mutex_t lock;
    pthread_cond_t work;  /* the scheduler's thread waits: something came */
    pthread_cond_t quiet; /* others wait: a generation or a job is over   */
    ts_gen_list inbox;    /* those added since the last step              */
    ts_sched_job *jobs;
    bool drained, stop;
    int64_t n_unquiet;  /* generations whose last event is still to come */
    int64_t n_refs;     /* who needs this memory: its owner and every ts_gen */
    ts_sched_info info; /* as of now, kv as of the last step */

    /* the scheduler's thread's own */
    ts_gen_list waiting; /* the oldest first, preempted ones before all */
    ts_gen **slots;      /* [n_slots], NULL: free */
    ts_span *spans;      /* [n_slots] */
    ts_gen **batch;      /* [n_slots] whose the spans are; the first n_batch */
    size_t n_batch;
    uint64_t taken; /* generations that got a slot, ever */
};

/* The thread. */
void *ts_sched_main(void *sched);

void ts_gen_list_add(ts_gen_list *l, ts_gen *g);

#endif

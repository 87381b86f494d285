/* pool.c - persistent compute threads that meet at barriers.
 *
 * Owns n - 1 threads; the caller of ts_pool_run is the n-th. Worker i is pinned to the i-th CPU
 * of the process's mask, which leaves the first one to the caller (whose own affinity is not ours
 * to change). With more threads than CPUs nothing is pinned and nobody spins: a spinner would only
 * keep the thread it waits for from running.
 *
 * Waiting, for a job as for a barrier, is a generation counter: spin on it a while, then sleep
 * on it with a futex. The one who advances it wakes sleepers only if there are any. */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "base/cpu.h"
#include "base/mem.h"
#include "base/relax.h"

/* Between jobs a few hundred microseconds: longer than the gap between two decode steps (sampling,
 * printing), short enough not to heat an idle machine. At a barrier some milliseconds: whoever is
 * late was interrupted and comes back, and waking sleepers takes longer than that. */
#define SPIN_JOB     20000
#define SPIN_BARRIER 100000

typedef struct gate {
    _Alignas(64) atomic_uint generation;
    atomic_uint sleepers;
} gate;

typedef struct worker {
    ts_pool *pool;
    pthread_t thread;
    int tid;
    int cpu; /* -1: not pinned */
} worker;

struct ts_pool {
    gate job, barrier;
    _Alignas(64) atomic_uint arrived; /* at the barrier */
    ts_pool_fn *fn;                   /* of the job; NULL ends the workers */
    void *arg;
    int n;
    bool spin;
    pthread_mutex_t lock; /* one job at a time */
    worker *workers;      /* [n - 1] */
};

/* Asks for a few lines; false: there was nothing to ask for. So few that a thread is soon back at
 * the gate: the core takes no more of them than its buffers hold. */
static bool ask_ahead(ts_ahead ahead[2])
{
    ts_ahead *a = ahead[0].at < ahead[0].end ? &ahead[0] : &ahead[1];
    if (a->at >= a->end)
        return false;
    for (int i = 0; i < 4; i++, a->at += 64)
        __builtin_prefetch(a->at, 0, 2);
    return true;
}

/* ahead may be NULL. */
static void gate_wait(gate *g, unsigned seen, int spins, ts_ahead ahead[2])
{
    for (int i = 0; i < spins;) {
        if (atomic_load_explicit(&g->generation, memory_order_acquire) != seen)
            return;
        if (ahead && ask_ahead(ahead))
            continue;
        ts_relax();
        i++;
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->generation) == seen)
        syscall(SYS_futex, &g->generation, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(gate *g)
{
    atomic_fetch_add(&g->generation, 1);
    if (atomic_load(&g->sleepers))
        syscall(SYS_futex, &g->generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void barrier(ts_pool *p, ts_ahead ahead[2])
{
    if (p->n == 1)
        return;
    unsigned seen = atomic_load_explicit(&p->barrier.generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == (unsigned)p->n - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        gate_open(&p->barrier);
    } else {
        gate_wait(&p->barrier, seen, p->spin ? SPIN_BARRIER : 0, ahead);
    }
}

void ts_pool_barrier(ts_pool *p)
{
    barrier(p, NULL);
}

void ts_pool_barrier_ahead(ts_pool *p, ts_ahead ahead[2])
{
    barrier(p, ahead);
}

/* Denormals cost a hundred cycles each on some CPUs and mean nothing here: flush and treat as zero.
 */
static unsigned flush_denormals(void)
{
#if defined(__SSE2__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
#else
    return 0;
#endif
}

static void restore_denormals(unsigned old)
{
#if defined(__SSE2__)
    _mm_setcsr(old);
#else
    (void)old;
#endif
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    ts_pool *p = w->pool;
    if (w->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)w->cpu, &set);
        /* A mask that shrank since it was read is no error: the thread runs where it may. */
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    flush_denormals();
    for (unsigned seen = 0;; seen++) {
        gate_wait(&p->job, seen, p->spin ? SPIN_JOB : 0, NULL);
        if (!p->fn)
            return NULL;
        p->fn(p->arg, w->tid, p->n);
        ts_pool_barrier(p);
    }
}

void ts_pool_run(ts_pool *p, ts_pool_fn *fn, void *arg)
{
    pthread_mutex_lock(&p->lock);
    unsigned csr = flush_denormals();
    p->fn = fn;
    p->arg = arg;
    if (p->n > 1)
        gate_open(&p->job);
    fn(arg, 0, p->n);
    ts_pool_barrier(p);
    restore_denormals(csr);
    pthread_mutex_unlock(&p->lock);
}

void ts_pool_alone(ts_pool_fn *fn, void *arg)
{
    unsigned csr = flush_denormals();
    fn(arg, 0, 1);
    restore_denormals(csr);
}

int ts_pool_size(const ts_pool *p)
{
    return p->n;
}

/* The i-th CPU of the mask, -1 if it has fewer. */
static int nth_cpu(const cpu_set_t *set, int i)
{
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET((size_t)c, set) && i-- == 0)
            return c;
    return -1;
}

ts_status ts_pool_open(ts_pool **out, int n, ts_error *err)
{
    if (n < 1 || n > 1024)
        return ts_fail(err, TS_BAD_ARG, "%d threads asked for; it must be 1 to 1024", n);
    ts_pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the thread pool");
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    p->workers = ts_calloc((size_t)n, sizeof *p->workers);
    cpu_set_t set;
    int n_cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    p->spin = n <= n_cpus;
    p->n = n;
    int started = 0, rc = p->workers ? 0 : 1;
    for (int i = 0; rc == 0 && i < n - 1; i++) {
        worker *w = &p->workers[i];
        *w = (worker){.pool = p, .tid = i + 1, .cpu = p->spin ? nth_cpu(&set, i + 1) : -1};
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        started += rc == 0;
    }
    if (rc) {
        /* Those that started are waiting for a job: the empty one ends them. */
        gate_open(&p->job);
        for (int i = 0; i < started; i++)
            pthread_join(p->workers[i].thread, NULL);
        free(p->workers);
        pthread_mutex_destroy(&p->lock);
        free(p);
        return ts_fail(err, TS_NO_MEMORY, "can't start %d compute threads", n);
    }
    *out = p;
    return TS_OK;
}

void ts_pool_close(ts_pool *p)
{
    if (!p)
        return;
    p->fn = NULL;
    gate_open(&p->job);
    for (int i = 0; i < p->n - 1; i++)
        pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* sched.c - what any thread may ask of the scheduler. Its own thread is in step.c.
 *
 * One lock guards what both sides touch: an inbox of new generations, jobs, flags and numbers. It
 * is never held while a sink is called or anything is evaluated. A ts_gen outlives its generation,
 * and the scheduler's memory outlives its last ts_gen, so either may be closed first. */
#include "sched.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine.h"
#include "sched_impl.h"

/* --- open and close ------------------------------------------------------------------ */

static ts_status find_eog(ts_gen_model *m, ts_error *err)
{
    for (size_t i = 0; i < m->n_vocab; i++)
        m->n_eog += ts_token_is_eog(m->e, (ts_token)i);
    m->eog = ts_calloc(m->n_eog, sizeof *m->eog);
    if (!m->eog)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the end-of-generation tokens");
    for (size_t i = 0, n = 0; i < m->n_vocab; i++)
        if (ts_token_is_eog(m->e, (ts_token)i))
            m->eog[n++] = (ts_token)i;
    return TS_OK;
}

static ts_status init(ts_sched *s, ts_engine *e, const ts_sched_options *o, ts_error *err)
{
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    s->model.e = e;
    s->model.n_vocab = (size_t)info.n_vocab;
    s->model.n_ctx = (size_t)info.n_ctx_seq;
    s->n_ubatch = (size_t)info.n_ubatch;
    s->n_slots = (int32_t)e->plan.n_seqs;
    s->log = (ts_log){o->log, o->log_user};
    s->info.n_slots = s->n_slots;
    s->info.n_queue = o->n_queue;
    if (o->n_queue < 0)
        return ts_fail(err, TS_BAD_ARG, "the queue holds 0 generations or more, not %lld",
                       (long long)o->n_queue);
    if (!e->plan.paged)
        return ts_fail(err, TS_BAD_ARG,
                       "the engine was opened without n_seqs: its sessions have no slots to share");
    if (e->plan.n_logits < s->n_slots)
        return ts_fail(err, TS_BAD_ARG,
                       "an eval returns %lld rows of logits at most: too few for %d slots",
                       (long long)e->plan.n_logits, (int)s->n_slots);
    if (s->n_ubatch < (size_t)s->n_slots)
        return ts_fail(err, TS_BAD_ARG,
                       "a micro-batch of %zu tokens is too small for %d slots: each needs one",
                       s->n_ubatch, (int)s->n_slots);
    s->slots = ts_calloc((size_t)s->n_slots, sizeof(ts_gen *));
    s->batch = ts_calloc((size_t)s->n_slots, sizeof(ts_gen *));
    s->spans = ts_calloc((size_t)s->n_slots, sizeof *s->spans);
    s->model.row = ts_calloc(s->model.n_vocab, sizeof *s->model.row);
    if (!s->slots || !s->batch || !s->spans || !s->model.row)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a scheduler of %d slots", (int)s->n_slots);
    return find_eog(&s->model, err);
}

/* Signals are for the program's other threads. */
static int start(ts_sched *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, ts_sched_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int init_locks(ts_sched *s)
{
    pthread_condattr_t a;
    int rc = pthread_condattr_init(&a);
    if (rc)
        return rc;
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    if ((rc = pthread_mutex_init(&s->lock, NULL)))
        goto no_lock;
    if ((rc = pthread_cond_init(&s->work, &a)))
        goto no_work;
    if ((rc = pthread_cond_init(&s->quiet, &a)))
        goto no_quiet;
    pthread_condattr_destroy(&a);
    return 0;
no_quiet:
    pthread_cond_destroy(&s->work);
no_work:
    pthread_mutex_destroy(&s->lock);
no_lock:
    pthread_condattr_destroy(&a);
    return rc;
}

static void free_locks(ts_sched *s)
{
    pthread_cond_destroy(&s->quiet);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
}

static void free_memory(ts_sched *s)
{
    free(s->slots);
    free(s->batch);
    free(s->spans);
    free(s->model.row);
    free(s->model.eog);
    free(s);
}

ts_status ts_sched_open(ts_sched **out, ts_engine *e, ts_session *session,
                        const ts_sched_options *opt, ts_error *err)
{
    ts_sched *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a scheduler");
    ts_status st = init(s, e, opt, err);
    if (st) {
        free_memory(s);
        return st;
    }
    s->session = session;
    s->n_refs = 1;
    ts_session_kv_info(session, &s->info.kv);
    int rc = init_locks(s);
    if (rc == 0 && (rc = start(s)))
        free_locks(s);
    if (rc) {
        free_memory(s);
        return ts_fail(err, TS_NO_MEMORY, "the scheduler's thread can't be started: %s",
                       strerror(rc));
    }
    *out = s;
    return TS_OK;
}

/* The lock is held, and let go. */
static void unref(ts_sched *s)
{
    bool last = --s->n_refs == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    free_locks(s);
    free_memory(s);
}

void ts_sched_close(ts_sched *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->drained = s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    ts_session_close(s->session);
    pthread_mutex_lock(&s->lock);
    unref(s);
}

/* --- generations ------------------------------------------------------------------------ */

/* Whether one more may wait; the lock is held. Those that wait only because no step has come yet
 * that gives them a free slot don't fill the queue. */
static ts_status may_add(ts_sched *s, bool again, ts_error *err)
{
    const ts_sched_info *i = &s->info;
    if (s->drained)
        return ts_fail(err, TS_CANCELLED, "the server is ending: nothing more is begun");
    if (again || i->n_running + i->n_waiting < i->n_slots + i->n_queue)
        return TS_OK;
    s->info.n_refused++;
    return ts_fail(err, TS_FULL, "the queue is full: %lld run and %lld wait",
                   (long long)i->n_running, (long long)i->n_waiting);
}

ts_status ts_sched_add(ts_sched *s, const ts_gen_options *opt, ts_gen **out, ts_error *err)
{
    ts_gen *g = NULL;
    /* a flood is turned away before anything is made for it */
    pthread_mutex_lock(&s->lock);
    ts_status st = may_add(s, opt->again, err);
    pthread_mutex_unlock(&s->lock);
    if (st == TS_OK)
        st = ts_gen_make(&g, &s->model, opt, err);
    if (st)
        return st;
    g->sched = s;
    pthread_mutex_lock(&s->lock);
    st = may_add(s, opt->again, err);
    if (st == TS_OK) {
        ts_gen_list_add(&s->inbox, g);
        s->info.n_waiting++;
        s->n_unquiet++;
        s->n_refs++;
        *out = g; /* before the first event */
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    if (st)
        ts_gen_free(g);
    return st;
}

void ts_gen_cancel(ts_gen *g)
{
    atomic_store(&g->cancel, true);
}

void ts_gen_close(ts_gen *g)
{
    if (!g)
        return;
    ts_sched *s = g->sched;
    ts_gen_cancel(g);
    pthread_mutex_lock(&s->lock);
    while (!g->quiet)
        pthread_cond_wait(&s->quiet, &s->lock);
    unref(s);
    ts_gen_free(g);
}

/* --- the rest ----------------------------------------------------------------------------- */

int64_t ts_sched_drain(ts_sched *s, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    /* a year is as good as for ever, and fits */
    seconds = seconds > 0 ? seconds < 3e7 ? seconds : 3e7 : 0;
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&s->lock);
    s->drained = true;
    while (s->n_unquiet > 0 && pthread_cond_timedwait(&s->quiet, &s->lock, &until) != ETIMEDOUT) {
    }
    int64_t left = s->n_unquiet;
    pthread_mutex_unlock(&s->lock);
    return left;
}

static ts_status wait_for(ts_sched *s, ts_sched_job *job, int64_t *pages, ts_error *err)
{
    pthread_mutex_lock(&s->lock);
    ts_sched_job **last = &s->jobs;
    while (*last)
        last = &(*last)->next;
    *last = job;
    pthread_cond_signal(&s->work);
    while (!job->done)
        pthread_cond_wait(&s->quiet, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (job->st)
        return ts_fail(err, job->st, "%s", job->err.msg);
    *pages = job->pages;
    return TS_OK;
}

ts_status ts_sched_kv_save(ts_sched *s, const char *path, int64_t *pages, ts_error *err)
{
    ts_sched_job job = {.run = ts_session_kv_save, .path = path};
    return wait_for(s, &job, pages, err);
}

ts_status ts_sched_kv_restore(ts_sched *s, const char *path, int64_t *pages, ts_error *err)
{
    ts_sched_job job = {.run = ts_session_kv_restore, .path = path};
    return wait_for(s, &job, pages, err);
}

void ts_sched_get_info(ts_sched *s, ts_sched_info *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->info;
    pthread_mutex_unlock(&s->lock);
}

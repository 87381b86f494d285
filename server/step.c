/* step.c - the scheduler's thread.
 *
 * A step: who is gone, cancelled or new; slots given away; a batch put together and evaluated, less
 * one generation for each time that the cache has no room; from its rows of logits one token for
 * each generation, and events.
 *
 * Decoding and prefill are one thing: a generation has tokens that are not evaluated yet, one or
 * many, and where the last of them is evaluated there is a row of logits to sample from. So a
 * generation that was preempted goes on by itself: its prompt and what it made are a prompt. */
#include <string.h>

#include "base/clock.h"
#include "sched_impl.h"

void ts_gen_list_add(ts_gen_list *l, ts_gen *g)
{
    g->next = NULL;
    if (l->last)
        l->last->next = g;
    else
        l->first = g;
    l->last = g;
}

static void list_push(ts_gen_list *l, ts_gen *g)
{
    g->next = l->first;
    l->first = g;
    if (!l->last)
        l->last = g;
}

/* Takes out g, which stands behind `before` (NULL: it is the first). */
static void list_take(ts_gen_list *l, ts_gen *before, ts_gen *g)
{
    if (before)
        before->next = g->next;
    else
        l->first = g->next;
    if (l->last == g)
        l->last = before;
}

/* --- an end ----------------------------------------------------------------------------- */

/* The slot is free, its pages stay in the cache for whoever begins with the same. */
static void leave_slot(ts_sched *s, ts_gen *g)
{
    if (g->begun && g->pos > 0)
        ts_session_seq_rewind(s->session, g->seq, 0, NULL); /* can't fail: it is shorter */
    s->slots[g->seq] = NULL;
    g->seq = -1;
    g->begun = false;
    g->pos = 0;
}

/* g is in a slot, or was taken out of the queue. */
static void end(ts_sched *s, ts_gen *g, ts_gen_end how, const ts_error *err)
{
    const bool had_slot = g->seq >= 0;
    if (had_slot)
        leave_slot(s, g);
    ts_sampler_close(g->sampler); /* who receives the last event may close the grammar */
    g->sampler = NULL;
    pthread_mutex_lock(&s->lock);
    *(had_slot ? &s->info.n_running : &s->info.n_waiting) -= 1;
    s->info.n_done += how == TS_GEN_STOP || how == TS_GEN_LENGTH;
    s->info.n_cancelled += how == TS_GEN_CANCELLED;
    s->info.n_failed += how == TS_GEN_FAILED;
    ts_session_kv_info(s->session, &s->info.kv);
    pthread_mutex_unlock(&s->lock);
    ts_gen_give(g, how, err);
    pthread_mutex_lock(&s->lock);
    g->quiet = true; /* from here on it may be freed */
    s->n_unquiet--;
    pthread_cond_broadcast(&s->quiet);
    pthread_mutex_unlock(&s->lock);
}

static bool is_over(ts_gen *g)
{
    return atomic_load(&g->cancel) || (g->sink.gone && g->sink.gone(g->sink.user));
}

static void end_those_over(ts_sched *s, bool all)
{
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i] && (all || is_over(s->slots[i])))
            end(s, s->slots[i], TS_GEN_CANCELLED, NULL);
    for (ts_gen *before = NULL, *g = s->waiting.first, *next; g; g = next) {
        next = g->next;
        if (all || is_over(g)) {
            list_take(&s->waiting, before, g);
            end(s, g, TS_GEN_CANCELLED, NULL);
        } else {
            before = g;
        }
    }
}

/* --- slots -------------------------------------------------------------------------------- */

static size_t n_pages(size_t n)
{
    return (n + TS_KV_PAGE - 1) / TS_KV_PAGE;
}

/* Tokens in whole pages that both begin with; the cache gives fewer than all of g's. */
static size_t common(const ts_gen *g, const ts_gen *other)
{
    size_t n = g->n - 1 < other->n ? g->n - 1 : other->n, i = 0;
    while (i + TS_KV_PAGE <= n &&
           memcmp(g->tokens + i, other->tokens + i, TS_KV_PAGE * sizeof *g->tokens) == 0)
        i += TS_KV_PAGE;
    return i;
}

/* Pages that g still needs to make its next token. */
static size_t needs(const ts_gen *g)
{
    const size_t all = n_pages(g->n), have = n_pages(g->pos);
    const size_t shared = g->shared / TS_KV_PAGE, most = have > shared ? have : shared;
    return all > most ? all - most : 0;
}

/* Without room, its prompt would be evaluated only to be the first to go when the cache is full. */
static bool has_room(const ts_sched *s, const ts_gen *g)
{
    ts_kv_info kv;
    size_t want = needs(g), n = 0;
    ts_session_kv_info(s->session, &kv);
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i]) {
            want += needs(s->slots[i]);
            n++;
        }
    return n == 0 || want <= (size_t)(kv.n_free + kv.n_cached);
}

static int32_t slots_of(const ts_sched *s, uint64_t client)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_slots; i++)
        n += s->slots[i] && s->slots[i]->client == client;
    return n;
}

/* Who gets the next free slot, and who stands before it. */
static ts_gen *next_of(const ts_sched *s, ts_gen **before)
{
    ts_gen *best = NULL;
    int32_t least = 0;
    *before = NULL;
    for (ts_gen *last = NULL, *g = s->waiting.first; g; last = g, g = g->next) {
        int32_t n = g->preempted ? 0 : slots_of(s, g->client);
        if (!best || n < least) {
            best = g;
            least = n;
            *before = last;
        }
        if (least == 0) /* nobody has fewer */
            break;
    }
    return best;
}

static void take(ts_sched *s, ts_gen *g, int32_t slot)
{
    s->slots[slot] = g;
    g->seq = slot;
    g->taken = ++s->taken;
    if (!g->t_taken)
        g->t_taken = ts_now();
    pthread_mutex_lock(&s->lock);
    s->info.n_waiting--;
    s->info.n_running++;
    s->info.n_prompt += g->preempted ? 0 : (int64_t)g->n_prompt;
    pthread_mutex_unlock(&s->lock);
}

static void fill_slots(ts_sched *s)
{
    for (int32_t slot = 0; slot < s->n_slots && s->waiting.first; slot++) {
        ts_gen *before, *g;
        if (s->slots[slot])
            continue;
        g = next_of(s, &before);
        g->shared = 0;
        for (int32_t i = 0; i < s->n_slots; i++) {
            size_t n = s->slots[i] ? common(g, s->slots[i]) : 0;
            g->shared = n > g->shared ? n : g->shared;
        }
        if (!has_room(s, g))
            break; /* nobody behind it gets what it waits for */
        list_take(&s->waiting, before, g);
        take(s, g, slot);
    }
}

/* The slots are no generation's but g's. */
static bool alone(const ts_sched *s, const ts_gen *g)
{
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i] && s->slots[i] != g)
            return false;
    return true;
}

/* The cache is full: who came last goes back to the queue. */
static void preempt(ts_sched *s)
{
    ts_gen *g = NULL;
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i] && (!g || s->slots[i]->taken > g->taken))
            g = s->slots[i];
    if (alone(s, g)) {
        end(s, g, TS_GEN_LENGTH, NULL);
        return;
    }
    ts_logf(&s->log, TS_LOG_DEBUG, "the KV cache is full: a generation of %zu tokens waits", g->n);
    leave_slot(s, g);
    g->preempted = true;
    list_push(&s->waiting, g);
    pthread_mutex_lock(&s->lock);
    s->info.n_running--;
    s->info.n_waiting++;
    s->info.n_preempted++;
    pthread_mutex_unlock(&s->lock);
}

/* --- the batch ------------------------------------------------------------------------- */

/* Whether another one is just evaluating what g begins with: then g waits for that, instead of
 * doing it once more. Who is waited for has begun, so it goes on. */
static bool waits_for_prefix(const ts_sched *s, const ts_gen *g)
{
    size_t there = 0, coming = 0;
    for (int32_t i = 0; i < s->n_slots; i++) {
        const ts_gen *o = s->slots[i];
        if (!o || !o->begun)
            continue;
        size_t n = common(g, o), done = o->pos - o->pos % TS_KV_PAGE;
        coming = n > coming ? n : coming;
        n = n < done ? n : done;
        there = n > there ? n : there;
    }
    return coming > there;
}

static void begin(ts_sched *s, ts_gen *g)
{
    ts_error err = {0};
    int64_t found = 0;
    if (ts_session_seq_begin(s->session, g->seq, g->tokens, g->n, &found, &err)) {
        end(s, g, TS_GEN_FAILED, &err);
        return;
    }
    g->begun = true;
    g->pos = (size_t)found;
    if (g->preempted)
        return;
    g->usage.n_cached = found;
    pthread_mutex_lock(&s->lock);
    s->info.n_cached += found;
    pthread_mutex_unlock(&s->lock);
}

static bool decodes(const ts_gen *g)
{
    return g->begun && g->usage.n_made > 0 && g->n - g->pos == 1;
}

/* Shares out `left` tokens among the prompts in the batch: to each as many, what one doesn't need
 * to the others. */
static void share(ts_sched *s, size_t left)
{
    size_t hungry = 0;
    for (size_t i = 0; i < s->n_batch; i++)
        hungry += s->batch[i]->chunk < s->batch[i]->n - s->batch[i]->pos;
    while (left > 0 && hungry > 0) {
        const size_t each = left > hungry ? left / hungry : 1;
        hungry = 0;
        for (size_t i = 0; i < s->n_batch; i++) {
            ts_gen *g = s->batch[i];
            size_t more = g->n - g->pos - g->chunk;
            more = more < each ? more : each;
            more = more < left ? more : left;
            g->chunk += more;
            left -= more;
            hungry += g->chunk < g->n - g->pos;
        }
    }
}

/* Decoding slots get a token each, prompts the rest. There are no more slots than tokens in a
 * micro-batch, so everyone gets one. Returns the number of tokens. */
static size_t make_batch(ts_sched *s, bool *prompts)
{
    size_t n = 0, n_decoding, row = 0;
    s->n_batch = 0;
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i] && decodes(s->slots[i])) {
            s->slots[i]->chunk = 1;
            s->batch[s->n_batch++] = s->slots[i];
        }
    n_decoding = s->n_batch;
    for (int32_t i = 0; i < s->n_slots; i++) {
        ts_gen *g = s->slots[i];
        if (g && g->begun && !decodes(g)) {
            g->chunk = 0;
            s->batch[s->n_batch++] = g;
        }
    }
    share(s, s->n_ubatch - n_decoding);
    for (size_t i = 0; i < s->n_batch; i++) {
        ts_gen *g = s->batch[i];
        const bool whole = g->pos + g->chunk == g->n;
        g->row = row;
        s->spans[i] = (ts_span){g->seq, g->tokens + g->pos, g->chunk, whole};
        row += whole;
        n += g->chunk;
    }
    *prompts = s->n_batch > n_decoding;
    return n;
}

static void fail_batch(ts_sched *s, const ts_error *err)
{
    ts_logf(&s->log, TS_LOG_ERROR, "%zu generations end: %s", s->n_batch, err->msg);
    for (size_t i = 0; i < s->n_batch; i++)
        end(s, s->batch[i], TS_GEN_FAILED, err);
}

static void count_batch(ts_sched *s, size_t n, bool prompts, double seconds)
{
    pthread_mutex_lock(&s->lock);
    s->info.n_steps++;
    s->info.n_evaluated += (int64_t)n;
    *(prompts ? &s->info.prefill_seconds : &s->info.decode_seconds) += seconds;
    ts_session_kv_info(s->session, &s->info.kv);
    pthread_mutex_unlock(&s->lock);
}

/* True: there are logits of what is in the batch. */
static bool evaluate(ts_sched *s)
{
    for (int32_t i = 0; i < s->n_slots; i++) {
        ts_gen *g = s->slots[i];
        if (g && !g->begun && !waits_for_prefix(s, g))
            begin(s, g);
    }
    for (;;) {
        ts_error err = {0};
        bool prompts;
        const size_t n = make_batch(s, &prompts);
        const double start = ts_now();
        if (n == 0)
            return false;
        ts_status st = ts_session_eval_spans(s->session, s->spans, s->n_batch, &err);
        if (st == TS_OK) {
            count_batch(s, n, prompts, ts_now() - start);
            return true;
        }
        if (st != TS_FULL) {
            fail_batch(s, &err);
            return false;
        }
        preempt(s);
    }
}

/* --- what comes of it ---------------------------------------------------------------------- */

static ts_status embed(ts_sched *s, ts_gen *g, ts_error *err)
{
    return g->embedding ? ts_session_embedding(s->session, g->row, g->embedding, err) : TS_OK;
}

/* All of g is evaluated. */
static void go_on(ts_sched *s, ts_gen *g)
{
    ts_status st = g->n == g->n_prompt ? embed(s, g, &g->err) : TS_OK;
    g->end = TS_GEN_LENGTH;
    if (st == TS_OK && g->max_tokens != 0) {
        float *logits = ts_session_logits(s->session, g->row);
        st = ts_gen_take(g, &s->model, logits, &g->end, &g->err);
        if (st == TS_OK) {
            pthread_mutex_lock(&s->lock);
            s->info.n_made++;
            pthread_mutex_unlock(&s->lock);
        }
    }
    if (st)
        g->end = TS_GEN_FAILED;
    if (g->end == TS_GEN_RUNS)
        ts_gen_give(g, g->end, NULL);
}

static void step(ts_sched *s)
{
    end_those_over(s, false);
    fill_slots(s);
    if (!evaluate(s))
        return;
    for (size_t i = 0; i < s->n_batch; i++) {
        ts_gen *g = s->batch[i];
        g->pos += g->chunk;
        if (g->pos == g->n)
            go_on(s, g);
    }
    /* not before: with a timeline that is emptied the rows of all are gone */
    for (size_t i = 0; i < s->n_batch; i++)
        if (s->batch[i]->end != TS_GEN_RUNS)
            end(s, s->batch[i], s->batch[i]->end, &s->batch[i]->err);
}

/* --- the thread ------------------------------------------------------------------------------ */

static bool is_idle(const ts_sched *s)
{
    for (int32_t i = 0; i < s->n_slots; i++)
        if (s->slots[i])
            return false;
    return !s->waiting.first;
}

/* The lock is held, but not while the jobs are done. */
static void do_jobs(ts_sched *s)
{
    for (ts_sched_job *job; (job = s->jobs);) {
        s->jobs = job->next;
        if (s->stop) {
            job->st = ts_fail(&job->err, TS_CANCELLED, "the server is ending");
        } else {
            pthread_mutex_unlock(&s->lock);
            job->st = job->run(s->session, job->path, &job->pages, &job->err);
            pthread_mutex_lock(&s->lock);
            ts_session_kv_info(s->session, &s->info.kv);
        }
        job->done = true;
        pthread_cond_broadcast(&s->quiet);
    }
}

void *ts_sched_main(void *sched)
{
    ts_sched *s = sched;
    for (bool stop = false; !stop;) {
        pthread_mutex_lock(&s->lock);
        while (is_idle(s) && !s->inbox.first && !s->jobs && !s->stop)
            pthread_cond_wait(&s->work, &s->lock);
        do_jobs(s);
        while (s->inbox.first) {
            ts_gen *g = s->inbox.first;
            list_take(&s->inbox, NULL, g);
            ts_gen_list_add(&s->waiting, g);
        }
        stop = s->stop;
        pthread_mutex_unlock(&s->lock);
        if (stop)
            end_those_over(s, true);
        else
            step(s);
    }
    return NULL;
}

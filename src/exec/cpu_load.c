/* cpu_load.c - the CPU device's weights: from the mapped file into the packed arena.
 *
 * The weights are cut into pieces of about a megabyte, and one job takes all of them: a thread
 * claims a piece, packs it, lets the source pages go. Nobody waits
 * for anybody before the last piece, a weight and its source are never resident together, and the
 * pages of the arena come from whoever packs into them first: on a machine with several NUMA nodes
 * they are spread as the threads are. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "exec/cpu.h"
#include "exec/load.h"

/* A piece and what becomes of it fit a core's second-level cache; a system call each is nothing
 * beside them. */
#define PIECE ((size_t)1 << 20)

typedef struct piece_list {
    const ts_model *m;
    int64_t *first; /* [n_weights + 1] number of the first piece of each weight */
} piece_list;

bool ts_progress_add(ts_progress *p, int tid, size_t n)
{
    size_t done = atomic_fetch_add_explicit(&p->done, n, memory_order_relaxed) + n;
    const ts_load_options *o = p->opt;
    if (tid == 0 && o->progress &&
        !o->progress(o->progress_user, p->all ? (double)done / (double)p->all : 1))
        atomic_store_explicit(&p->stop, true, memory_order_relaxed);
    return !atomic_load_explicit(&p->stop, memory_order_relaxed);
}

static bool packs(const ts_weight *w)
{
    return w->kset && w->kset->packed_bytes;
}

/* Rows of w in a piece: a multiple of what its kernel set packs together. */
static int64_t piece_rows(const ts_weight *w)
{
    int64_t group = w->kset->group;
    int64_t rows = (int64_t)(PIECE / (w->source->size / (size_t)w->n + 1)) + 1;
    return (rows + group - 1) / group * group;
}

static ts_status list_pieces(piece_list *l, const ts_model *m, ts_error *err)
{
    l->m = m;
    l->first = ts_calloc(m->n_weights + 1, sizeof *l->first);
    if (!l->first)
        return ts_fail(err, TS_NO_MEMORY, "no memory to load %zu weights", m->n_weights);
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        int64_t rows = packs(w) ? piece_rows(w) : 0;
        l->first[i + 1] = l->first[i] + (rows ? (w->n + rows - 1) / rows : 0);
    }
    return TS_OK;
}

/* The weight that piece p is of: the last whose first piece isn't behind it. */
static size_t weight_of(const piece_list *l, int64_t p)
{
    size_t lo = 0, hi = l->m->n_weights;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (l->first[mid] <= p)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

typedef struct piece_job {
    const piece_list *list;
    uint8_t *packed; /* the arena */
    ts_progress *progress;
    atomic_int_fast64_t next;
} piece_job;

static void run_pieces(void *arg, int tid, int n_threads)
{
    (void)n_threads;
    piece_job *j = arg;
    const ts_model *m = j->list->m;
    int64_t n_pieces = j->list->first[m->n_weights];
    for (;;) {
        int64_t p = ts_claim(&j->next);
        if (p >= n_pieces)
            return;
        size_t i = weight_of(j->list, p);
        const ts_weight *w = &m->weights[i];
        int64_t rows = piece_rows(w), r0 = (p - j->list->first[i]) * rows;
        int64_t r1 = r0 + rows < w->n ? r0 + rows : w->n;
        size_t row = w->source->size / (size_t)w->n;
        const uint8_t *src = (const uint8_t *)w->source->data + (size_t)r0 * row;
        size_t bytes = (size_t)(r1 - r0) * row;
        w->kset->pack(j->packed + w->offset, w->source->data, w->n, w->k, r0, r1);
        ts_gguf_drop(m->g, src, bytes);
        if (!ts_progress_add(j->progress, tid, bytes))
            return;
    }
}

/* Bytes of source that are packed. */
static size_t source_bytes(const ts_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        if (packs(&m->weights[i]))
            n += m->weights[i].source->size;
    return n;
}

static ts_status pack_all(ts_device *d, const piece_list *l, const ts_load_options *o,
                          ts_error *err)
{
    ts_progress progress = {.opt = o, .all = source_bytes(l->m)};
    piece_job j = {.list = l, .packed = d->packed, .progress = &progress};
    ts_pool_run(d->pool, run_pieces, &j);
    /* The last word is the caller's: that it is done, and whether it is cancelled. */
    if (!ts_progress_add(&progress, 0, 0))
        return ts_fail(err, TS_CANCELLED, "loading was cancelled");
    return TS_OK;
}

/* Writes where the weights are, and lets go what is left of their source: pages that two pieces
 * share, and neighbours that a fault brought along. */
static void hand_out(ts_device *d, ts_model *m, const ts_log *log)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        w->data = packs(w) ? d->packed + w->offset : w->source->data;
        if (packs(w))
            ts_gguf_drop(m->g, w->source->data, w->source->size);
        ts_logf(log, TS_LOG_DEBUG, "%s: %s %lld x %lld, %s, %s, %zu bytes", w->source->name,
                ts_type_get(w->source->type)->name, (long long)w->n, (long long)w->k,
                w->kset ? ts_isa_name(w->kset->isa) : "lookup",
                packs(w) ? w->kset->layout : "source", w->bytes);
    }
}

ts_status ts_cpu_load(ts_device *d, ts_model *m, const ts_load_options *o, ts_error *err)
{
    d->packed = ts_map(d->plan->packed);
    if (!d->packed)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu bytes of packed weights",
                       d->plan->packed);
    piece_list l = {0};
    ts_status s = list_pieces(&l, m, err);
    if (!s)
        s = pack_all(d, &l, o, err);
    if (!s)
        hand_out(d, m, o->log);
    free(l.first);
    return s;
}

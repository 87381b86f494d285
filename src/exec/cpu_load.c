/* cpu_load.c - the CPU device's weights: from the mapped file into the packed arena.
 *
 * The weights are cut into pieces of about a megabyte, and one job takes all of them: a thread
 * claims a piece, packs it, lets the source pages go. Nobody waits
 * for anybody before the last piece, a weight and its source are never resident together, and the
 * pages of the arena come from whoever packs into them first: on a machine with several NUMA nodes
 * they are spread as the threads are.
 *
 * With a pack cache (pack_cache.h) the arena is read from its file instead, in the same way. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "exec/cpu.h"
#include "exec/pack_cache.h"

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

/* Is it packed for the CPU? */
static bool packs(const ts_weight *w)
{
    return w->device == 0 && w->kset && w->kset->packed_bytes;
}

/* Rows of a matrix of w in a piece: a multiple of what its kernel set packs together. */
static int64_t piece_rows(const ts_weight *w)
{
    int64_t group = w->kset->group;
    int64_t rows = (int64_t)(PIECE / (ts_weight_source(w) / (size_t)(w->e * w->n) + 1)) + 1;
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
        l->first[i + 1] = l->first[i] + (rows ? w->e * ((w->n + rows - 1) / rows) : 0);
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
    uint8_t *packed; /* the arena; NULL: nothing is packed        */
    bool hash;       /* sum = of the hashes of all pieces' source */
    ts_progress *progress;
    atomic_int_fast64_t next;
    atomic_uint_fast64_t sum;
} piece_job;

/* Of matrix x, rows r0..r1. Gaps between the matrices of a stack stay the zeros that a mapping has.
 */
static void pack(const ts_weight *w, uint8_t *to, int64_t x, int64_t r0, int64_t r1)
{
    if (x > 0)
        to += (size_t)x * ts_kset_stack_stride(w->kset, w->n, w->k);
    w->kset->pack(to, ts_weight_matrix(w, x), w->n, w->k, r0, r1);
}

static void run_piece(piece_job *j, int64_t p, int tid)
{
    const ts_model *m = j->list->m;
    size_t i = weight_of(j->list, p);
    const ts_weight *w = &m->weights[i];
    const int64_t rows = piece_rows(w), pieces = (w->n + rows - 1) / rows;
    const int64_t x = (p - j->list->first[i]) / pieces; /* of a stack: which matrix */
    const int64_t r0 = (p - j->list->first[i]) % pieces * rows;
    int64_t r1 = r0 + rows < w->n ? r0 + rows : w->n;
    size_t row = ts_weight_source(w) / (size_t)(w->e * w->n), bytes = (size_t)(r1 - r0) * row;
    const uint8_t *matrix = ts_weight_matrix(w, x), *src = matrix + (size_t)r0 * row;
    if (j->hash)
        atomic_fetch_add_explicit(&j->sum, ts_hash64(src, bytes, (uint64_t)p),
                                  memory_order_relaxed);
    if (j->packed)
        pack(w, j->packed + w->offset, x, r0, r1);
    ts_gguf_drop(m->g, src, bytes);
    ts_progress_add(j->progress, tid, bytes);
}

static void run_pieces(void *arg, int tid, int n_threads)
{
    (void)n_threads;
    piece_job *j = arg;
    int64_t n_pieces = j->list->first[j->list->m->n_weights];
    for (int64_t p; !atomic_load_explicit(&j->progress->stop, memory_order_relaxed);) {
        if ((p = ts_claim(&j->next)) >= n_pieces)
            return;
        run_piece(j, p, tid);
    }
}

/* Bytes of source that are packed. */
static size_t source_bytes(const ts_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        if (packs(&m->weights[i]))
            n += ts_weight_source(&m->weights[i]);
    return n;
}

static ts_status cancelled(ts_error *err)
{
    return ts_fail(err, TS_CANCELLED, "loading was cancelled");
}

/* Goes through all pieces: packs them into d's arena, or just hashes their source. *content is the
 * sum of the hashes; NULL: it isn't wanted. `after` bytes of work will follow. */
static ts_status all_pieces(ts_device *d, const piece_list *l, bool pack, size_t after,
                            uint64_t *content, const ts_load_options *o, ts_error *err)
{
    ts_progress progress = {.opt = o, .all = source_bytes(l->m) + after};
    piece_job j = {.list = l,
                   .packed = pack ? d->packed : NULL,
                   .hash = content != NULL,
                   .progress = &progress};
    /* The first word comes before any piece: of a small model the caller may get none to pack. */
    ts_progress_add(&progress, 0, 0);
    ts_pool_run(d->pool, run_pieces, &j);
    if (content)
        *content = atomic_load(&j.sum);
    /* The last word is the caller's: that it is done, and whether it is cancelled. */
    return ts_progress_add(&progress, 0, 0) ? TS_OK : cancelled(err);
}

/* --- the pack cache ----------------------------------------------------- */

/* True: c is open. Without a cache the load goes on. */
static bool open_cache(ts_pack_cache *c, const ts_device *d, const ts_model *m,
                       const ts_load_options *o)
{
    if (!o->pack_cache || !*o->pack_cache)
        return false;
    if (!d->at->packed) {
        if (d->at->step_weights)
            ts_logf(o->log, TS_LOG_WARN,
                    "no pack cache: the %s kernel sets pack nothing of this model",
                    ts_isa_name(d->plan->isa));
        else
            ts_logf(o->log, TS_LOG_WARN, "no pack cache: the CPU has none of the weights");
        return false;
    }
    uint64_t stamp = 0;
    for (int i = 0; i < ts_gguf_n_shards(m->g); i++) {
        ts_gguf_file f = ts_gguf_file_at(m->g, i);
        stamp = ts_hash64(&f.stamp, sizeof f.stamp, stamp);
    }
    ts_error err = {0};
    ts_pack_key key;
    if (ts_pack_key_make(&key, d->plan, m, &err) == TS_OK &&
        ts_pack_cache_open(c, o->pack_cache, &key, stamp, o->log, &err) == TS_OK)
        return true;
    ts_logf(o->log, TS_LOG_WARN, "no pack cache: %s", err.msg);
    return false;
}

/* Fills the arena from the file that c has found, if that is what it should be: *loaded. */
static ts_status read_cache(ts_device *d, const piece_list *l, ts_pack_cache *c,
                            const ts_load_options *o, bool *loaded, ts_error *err)
{
    *loaded = false;
    if (!ts_pack_cache_same_file(c)) {
        uint64_t content;
        ts_status s = all_pieces(d, l, false, d->at->packed, &content, o, err);
        if (s)
            return s;
        if (!ts_pack_cache_same_content(c, content))
            return TS_OK;
    }
    ts_progress progress = {.opt = o, .all = d->at->packed};
    *loaded = ts_pack_cache_read(c, d->pool, d->packed, &progress);
    if (*loaded) {
        ts_logf(o->log, TS_LOG_INFO, "read the pack cache %s/%s, %.2f GB", c->path, c->name,
                (double)d->at->packed * 1e-9);
        return ts_progress_add(&progress, 0, 0) ? TS_OK : cancelled(err);
    }
    if (c->fd >= 0) /* not given up, so it was the caller */
        return cancelled(err);
    /* Packing leaves gaps between weights alone, and they must be zero. */
    ts_unmap(d->packed, d->at->packed);
    d->packed = ts_map(d->at->packed);
    return d->packed ? TS_OK : ts_fail(err, TS_NO_MEMORY, "no memory for packed weights");
}

static ts_status write_cache(ts_device *d, const ts_model *m, ts_pack_cache *c, uint64_t content,
                             const ts_load_options *o, ts_error *err)
{
    size_t done = source_bytes(m);
    ts_progress progress = {.opt = o, .done = done, .all = done + d->at->packed};
    ts_pack_cache_write(c, d->pool, d->packed, content, &progress);
    return ts_progress_add(&progress, 0, 0) ? TS_OK : cancelled(err);
}

static ts_status fill_arena(ts_device *d, const ts_model *m, const piece_list *l,
                            const ts_load_options *o, ts_error *err)
{
    ts_pack_cache c;
    uint64_t content;
    bool cache = open_cache(&c, d, m, o), loaded = false;
    ts_status s = TS_OK;
    if (cache && c.fd >= 0)
        s = read_cache(d, l, &c, o, &loaded, err);
    if (!s && !loaded)
        s = all_pieces(d, l, true, cache ? d->at->packed : 0, cache ? &content : NULL, o, err);
    if (!s && !loaded && cache)
        s = write_cache(d, m, &c, content, o, err);
    if (cache)
        ts_pack_cache_close(&c);
    return s;
}

static void drop_source(const ts_model *m, const ts_weight *w)
{
    for (int64_t i = 0; w->parts && i < w->e; i++)
        ts_gguf_drop(m->g, w->parts[i]->data, w->parts[i]->size);
    if (!w->parts)
        ts_gguf_drop(m->g, w->source->data, w->source->size);
}

/* Writes where the weights are, and lets go what is left of their source: pages that two pieces
 * share, and neighbours that a fault brought along. */
static void hand_out(ts_device *d, ts_model *m, const ts_log *log)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        if (w->device)
            continue;
        w->data = packs(w) ? d->packed + w->offset : w->source->data;
        if (packs(w))
            drop_source(m, w);
        ts_logf(log, TS_LOG_DEBUG, "%s: %s %lld x %lld, %s, %s, %zu bytes", ts_weight_name(w),
                ts_type_get(w->source->type)->name, (long long)w->n, (long long)w->k,
                w->kset ? ts_isa_name(w->kset->isa) : "lookup",
                packs(w) ? w->kset->layout : "source", w->bytes);
    }
}

ts_status ts_cpu_load(ts_device *d, ts_model *m, const ts_load_options *o, ts_error *err)
{
    d->packed = ts_map(d->at->packed);
    if (!d->packed)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu bytes of packed weights",
                       d->at->packed);
    piece_list l = {0};
    ts_status s = list_pieces(&l, m, err);
    if (!s)
        s = fill_arena(d, m, &l, o, err);
    if (!s)
        hand_out(d, m, o->log);
    free(l.first);
    return s;
}

/* stream.c - see stream.h. */
#include "cuda/stream.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cuda/rt.h"
#include "cuda/unpack.h"

typedef struct piece {
    const ts_weight *w;
    int64_t n0, n1;
    int layer;
    const uint8_t *from; /* the CPU's */
    size_t bytes;
} piece;

typedef struct place {
    uint8_t *mem;
    void *here, *used; /* events: the copy is done; its piece has been unpacked */
    bool taken;        /* `used` has been recorded                              */
} place;

struct ts_cuda_stream {
    void *copies, *stream;
    uint8_t *ring, *source;
    place *places;
    int64_t n_places;
    piece *pieces;
    int64_t n_pieces;
    int64_t asked, next; /* the next piece to be copied, and to be used */
    int64_t n_layers;
    /* What is pinned. */
    const void *pinned[2];
    int n_pinned;
};

/* --- the list ------------------------------------------------------------------- */

/* Calls f for each product of the second list whose weight is the CPU's, in order. */
static void each(const ts_plan *p, void (*f)(void *arg, const ts_weight *w, int layer), void *arg)
{
    for (size_t i = p->steps.n_main; i < p->steps.n; i++) {
        const ts_step *st = &p->steps.v[i];
        const bool product =
            st->op == TS_OP_MATMUL || st->op == TS_OP_GLU || st->op == TS_OP_EXPERTS;
        if (st->device != p->stream.device || !product)
            continue;
        if (st->w->device == 0)
            f(arg, st->w, st->layer);
        if (st->w2 && st->w2->device == 0)
            f(arg, st->w2, st->layer);
    }
}

typedef struct listing {
    ts_cuda_stream *t; /* pieces NULL: they are counted */
    const ts_stream *plan;
    const uint8_t *lo, *hi; /* of what is packed */
} listing;

static void list(void *arg, const ts_weight *w, int layer)
{
    listing *l = arg;
    const int64_t rows = ts_stream_rows(l->plan, w), all = ts_stream_all_rows(w);
    const uint8_t *data = w->data;
    for (int64_t n0 = 0; n0 < all; n0 += rows, l->t->n_pieces++) {
        if (!l->t->pieces)
            continue;
        const int64_t n1 = n0 + rows < all ? n0 + rows : all;
        l->t->pieces[l->t->n_pieces] =
            (piece){w, n0, n1, layer, data + ts_stream_bytes(w, n0), ts_stream_bytes(w, n1 - n0)};
    }
    if (!w->kset->packed_bytes)
        return;
    l->lo = !l->lo || data < l->lo ? data : l->lo;
    l->hi = data + w->bytes > l->hi ? data + w->bytes : l->hi;
}

/* The packed arena is pinned: whole pages, so that its neighbours may be, too. */
static void pin(ts_cuda_stream *t, const listing *l, const ts_log *log)
{
    if (!l->lo)
        return;
    const uintptr_t page = 4096, lo = (uintptr_t)l->lo / page * page;
    const size_t bytes = (((uintptr_t)l->hi + page - 1) / page * page) - lo;
    const int e = ts_rt_pin((const void *)lo, bytes);
    if (e)
        ts_logf(log, TS_LOG_DEBUG, "streamed weights can't be pinned (%s): they come slower",
                ts_rt_text(e));
    else
        t->pinned[t->n_pinned++] = (const void *)lo;
}

/* --- open and close --------------------------------------------------------------- */

void ts_cuda_stream_close(ts_cuda_stream *t)
{
    if (!t)
        return;
    ts_rt_wait(t->copies);
    for (int i = 0; i < t->n_pinned; i++)
        ts_rt_unpin(t->pinned[i]);
    for (int64_t i = 0; t->places && i < t->n_places; i++) {
        ts_rt_event_close(t->places[i].here);
        ts_rt_event_close(t->places[i].used);
    }
    ts_rt_stream_close(t->copies);
    ts_rt_free(t->ring);
    ts_rt_free(t->source);
    free(t->places);
    free(t->pieces);
    free(t);
}

static int allocate(ts_cuda_stream *t, const ts_plan *plan, const ts_log *log)
{
    const ts_stream *s = &plan->stream;
    listing l = {.t = t, .plan = s};
    int e;
    each(plan, list, &l);
    t->places = ts_calloc((size_t)s->pieces, sizeof *t->places);
    t->pieces = ts_calloc((size_t)t->n_pieces, sizeof *t->pieces);
    if (!t->places || !t->pieces)
        return ts_rt_no_memory;
    t->n_pieces = 0;
    each(plan, list, &l);
    if ((e = ts_rt_stream_open(&t->copies)) ||
        (e = ts_rt_alloc((void **)&t->ring, (size_t)s->pieces * s->piece)) ||
        (e = ts_rt_alloc((void **)&t->source, s->source)))
        return e;
    while (t->n_places < s->pieces) {
        place *p = &t->places[t->n_places];
        p->mem = t->ring + (size_t)t->n_places++ * s->piece;
        if ((e = ts_rt_event_open(&p->here)) || (e = ts_rt_event_open(&p->used)))
            return e;
    }
    pin(t, &l, log);
    return 0;
}

int ts_cuda_stream_open(ts_cuda_stream **out, const ts_plan *plan, void *stream, const ts_log *log)
{
    *out = NULL;
    ts_cuda_stream *t = ts_calloc(1, sizeof *t);
    if (!t)
        return ts_rt_no_memory;
    t->stream = stream;
    t->n_layers = plan->stream.n_layers;
    const int e = allocate(t, plan, log);
    if (e)
        ts_cuda_stream_close(t);
    else
        *out = t;
    return e;
}

/* --- pieces ----------------------------------------------------------------------- */

/* Asks for the next piece, as soon as what was last in its place has been unpacked: of this batch
 * or of the one before, which may still be computed. */
static int ask(ts_cuda_stream *t)
{
    const piece *p = &t->pieces[t->asked];
    const place *to = &t->places[t->asked % t->n_places];
    int e = to->taken ? ts_rt_stream_wait(t->copies, to->used) : 0;
    if (!e)
        e = ts_rt_copy(to->mem, p->from, p->bytes, t->copies);
    if (!e)
        e = ts_rt_event_record(to->here, t->copies);
    t->asked++;
    return e;
}

int ts_cuda_stream_begin(ts_cuda_stream *t, int64_t first, bool wait)
{
    int64_t i = 0;
    while (i < t->n_pieces && t->pieces[i].layer < first)
        i++;
    t->asked = t->next = i;
    int e = 0;
    while (!e && t->asked < t->n_pieces && t->asked < i + t->n_places)
        e = ask(t);
    return e || !wait ? e : ts_rt_wait(t->copies);
}

/* The next piece, which is rows n0..*n1 of w, unpacked to `to`. */
static int take(ts_cuda_stream *t, const ts_weight *w, int64_t n0, int64_t *n1, uint8_t *to)
{
    if (t->next >= t->asked || t->pieces[t->next].w != w || t->pieces[t->next].n0 != n0)
        return ts_rt_bad_value;
    const piece *p = &t->pieces[t->next];
    place *at = &t->places[t->next % t->n_places];
    int e = ts_rt_stream_wait(t->stream, at->here);
    if (!e && w->kset->packed_bytes)
        e = ts_cuda_unpack(to, at->mem, w->kset->packing, p->n1 - p->n0, w->k, 0, p->n1 - p->n0,
                           t->stream);
    else if (!e)
        e = ts_rt_copy(to, at->mem, p->bytes, t->stream);
    if (!e)
        e = ts_rt_event_record(at->used, t->stream);
    at->taken = at->taken || !e;
    t->next++;
    if (!e && t->asked < t->n_pieces)
        e = ask(t);
    *n1 = p->n1;
    return e;
}

int ts_cuda_stream_next(ts_cuda_stream *t, const ts_weight *w, int64_t n0, int64_t *n1,
                        const void **rows)
{
    *rows = t->source;
    return take(t, w, n0, n1, t->source);
}

int ts_cuda_stream_all(ts_cuda_stream *t, const ts_weight *w, bool second, const void **stack)
{
    const int64_t all = ts_stream_all_rows(w);
    const size_t row = ts_weight_source(w) / (size_t)all;
    uint8_t *to = t->source + (second ? ts_stream_stack(w) : 0);
    int e = 0;
    *stack = to;
    for (int64_t n0 = 0, n1 = 0; n0 < all && !e; n0 = n1)
        e = take(t, w, n0, &n1, to + (size_t)n0 * row);
    return e;
}

int ts_cuda_stream_time(ts_cuda_stream *t, double *seconds)
{
    const int64_t n = t->n_pieces < t->n_places ? t->n_pieces : t->n_places;
    size_t bytes = 0, all = 0;
    double least = 0;
    int e = ts_rt_wait(t->stream);
    for (int i = 0; i < 3 && !e; i++) {
        const double t0 = ts_now();
        bytes = 0;
        for (int64_t j = 0; j < n && !e; j++) {
            bytes += t->pieces[j].bytes;
            e = ts_rt_copy(t->places[j].mem, t->pieces[j].from, t->pieces[j].bytes, t->copies);
        }
        if (!e)
            e = ts_rt_wait(t->copies);
        const double s = ts_now() - t0;
        least = i == 0 || s < least ? s : least;
    }
    for (int64_t j = 0; j < t->n_pieces; j++)
        all += t->pieces[j].bytes;
    *seconds = bytes ? least * (double)all / (double)bytes / (double)t->n_layers : 0;
    return e;
}

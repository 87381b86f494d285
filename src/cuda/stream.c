/* stream.c - see stream.h.
 *
 * What comes is a list of ITEMS in the order of steps: a weight, or the shared experts of a layer.
 * A cursor walks it and makes PIECES: rows of a weight, or the matrices of some experts, of those
 * that come ahead gate's, up's and down's, and then, as soon as it is known which, the same of the
 * others. A piece is copied to its place in the ring as soon as what was there has been unpacked.
 */
#include "cuda/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cuda/rt.h"
#include "cuda/unpack.h"

typedef struct item {
    const ts_weight *w[3]; /* a weight; or the stacks of gate, up and down */
    int layer;
} item;

/* Rows n0..n1 of w; or matrices n0..n1 of those that have come or are to come of a stack. */
typedef struct piece {
    const ts_weight *w;
    int64_t n0, n1;
    const int32_t *which; /* NULL, or the experts' numbers: which[n0] .. which[n1 - 1] */
} piece;

_Static_assert(TS_STREAM_MATRICES <= TS_CUDA_UNPACK_MATRICES, "a piece is unpacked by one launch");

typedef struct place {
    uint8_t *mem;
    void *here, *used; /* events: the copy is done; its piece has been unpacked */
    bool taken;        /* `used` has been recorded                              */
    piece has;
    int32_t which[TS_STREAM_MATRICES];
} place;

/* Stacks of experts by turns: ahead, then the rest. */
enum { STACKS = 3, TURNS = 2 * STACKS };

typedef struct cursor {
    int64_t item;
    int turn;  /* of an item of experts                              */
    int64_t n; /* rows, or in this turn experts, that have been passed */
} cursor;

struct ts_cuda_stream {
    void *copies, *stream;
    const ts_stream *plan;
    uint8_t *ring, *source;
    place *places;
    int64_t n_places;
    item *items;
    int64_t n_items;
    cursor at;            /* what comes next */
    int64_t asked, next;  /* pieces that have been asked for, and taken */
    const int32_t *order; /* as ts_backend.stream_begin has it; NULL: by number */
    int64_t n_expert, ahead;
    int32_t *numbers; /* [n_expert] 0, 1, 2 ..                */
    int32_t *list;    /* [n_expert] the experts of layer `listed` */
    int64_t n_list;
    int listed;
    int turn; /* of that layer's experts, the one that is taken next */
    /* What is pinned. */
    const void *pinned[2];
    int n_pinned;
};

/* --- the list ------------------------------------------------------------------- */

static void add(ts_cuda_stream *t, item it)
{
    if (t->items)
        t->items[t->n_items] = it;
    t->n_items++;
}

/* Adds the weights of the second list that are the CPU's. t->items NULL: they are counted. */
static void list(ts_cuda_stream *t, const ts_plan *p, const ts_model *m)
{
    int shared = -1; /* the last layer whose experts have been listed */
    t->n_items = 0;
    for (size_t i = p->steps.n_main; i < p->steps.n; i++) {
        const ts_step *st = &p->steps.v[i];
        if (st->device != p->stream.device)
            continue;
        if (st->op == TS_OP_EXPERTS) {
            const ts_layer *l = &m->layers[st->layer];
            if (st->w->device == 0 && st->layer != shared)
                add(t, (item){{l->gate_exps, l->up_exps, l->down_exps}, st->layer});
            shared = st->w->device == 0 ? st->layer : shared;
        } else if (st->op == TS_OP_MATMUL || st->op == TS_OP_GLU || st->op == TS_OP_HEADS) {
            const ts_weight *const w[] = {st->w, st->w2};
            for (int j = 0; j < 2; j++)
                if (w[j] && w[j]->device == 0)
                    add(t, (item){.w = {w[j]}, .layer = st->layer});
        }
    }
}

static bool is_shared(const item *i)
{
    return i->w[1] != NULL;
}

/* The packed arena is pinned: whole pages, so that its neighbours may be, too. */
static void pin(ts_cuda_stream *t, const ts_log *log)
{
    const uint8_t *first = NULL, *last = NULL;
    for (int64_t i = 0; i < t->n_items; i++)
        for (int j = 0; j < STACKS; j++) {
            const ts_weight *w = t->items[i].w[j];
            if (!w || !w->kset->packed_bytes)
                continue;
            const uint8_t *data = w->data;
            first = !first || data < first ? data : first;
            last = data + w->bytes > last ? data + w->bytes : last;
        }
    if (!first)
        return;
    const uintptr_t page = 4096, lo = (uintptr_t)first / page * page;
    const size_t bytes = (((uintptr_t)last + page - 1) / page * page) - lo;
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
    free(t->items);
    free(t->numbers);
    free(t->list);
    free(t);
}

static int allocate(ts_cuda_stream *t, const ts_plan *plan, const ts_model *m, const ts_log *log)
{
    const ts_stream *s = &plan->stream;
    int e;
    list(t, plan, m);
    t->places = ts_calloc((size_t)s->pieces, sizeof *t->places);
    t->items = ts_calloc((size_t)t->n_items, sizeof *t->items);
    t->numbers = ts_calloc((size_t)t->n_expert + 1, sizeof *t->numbers);
    t->list = ts_calloc((size_t)t->n_expert + 1, sizeof *t->list);
    if (!t->places || !t->items || !t->numbers || !t->list)
        return ts_rt_no_memory;
    for (int32_t i = 0; i < t->n_expert; i++)
        t->numbers[i] = i;
    list(t, plan, m);
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
    pin(t, log);
    return 0;
}

int ts_cuda_stream_open(ts_cuda_stream **out, const ts_plan *plan, const ts_model *m, void *stream,
                        const ts_log *log)
{
    *out = NULL;
    ts_cuda_stream *t = ts_calloc(1, sizeof *t);
    if (!t)
        return ts_rt_no_memory;
    t->stream = stream;
    t->plan = &plan->stream;
    t->n_expert = plan->moe.n_expert;
    const int e = allocate(t, plan, m, log);
    if (e)
        ts_cuda_stream_close(t);
    else
        *out = t;
    return e;
}

/* --- pieces ----------------------------------------------------------------------- */

/* The experts of a turn: which[lo..hi-1]. Once a layer's are known, those that come ahead are the
 * first of them as well: `order` may have become the next batch's. */
static const int32_t *experts_of(const ts_cuda_stream *t, int layer, int turn, int64_t *lo,
                                 int64_t *hi)
{
    *lo = turn < STACKS ? 0 : t->ahead;
    *hi = turn < STACKS ? t->ahead : t->n_list;
    if (turn >= STACKS || t->listed == layer)
        return t->list;
    return t->order ? t->order + layer * t->n_expert : t->numbers;
}

/* The next piece; false: there is none, or it isn't known yet which experts are wanted. */
static bool next_piece(ts_cuda_stream *t, piece *out)
{
    cursor *c = &t->at;
    for (; c->item < t->n_items; *c = (cursor){.item = c->item + 1}) {
        const item *i = &t->items[c->item];
        if (!is_shared(i)) {
            const ts_weight *w = i->w[0];
            const int64_t rows = ts_stream_rows(t->plan, w), all = ts_stream_all_rows(w);
            if (c->n == all)
                continue;
            *out = (piece){w, c->n, c->n + rows < all ? c->n + rows : all, NULL};
            c->n = out->n1;
            return true;
        }
        for (; c->turn < TURNS; c->turn++, c->n = 0) {
            int64_t lo, hi;
            if (c->turn >= STACKS && t->listed != i->layer)
                return false;
            const int32_t *which = experts_of(t, i->layer, c->turn, &lo, &hi);
            const ts_weight *w = i->w[c->turn % STACKS];
            const int64_t most = ts_stream_matrices(t->plan, w), n0 = lo + c->n;
            if (n0 >= hi)
                continue;
            *out = (piece){w, n0, n0 + most < hi ? n0 + most : hi, which};
            c->n += out->n1 - n0;
            return true;
        }
    }
    return false;
}

/* Matrix x of a stack as it comes: packed, or the source's. */
static const uint8_t *matrix_of(const ts_weight *w, int64_t x)
{
    return (const uint8_t *)w->data + ts_stream_bytes(w, x * w->n);
}

/* Queues the piece's copies; experts that lie together are one. */
static int copy(ts_cuda_stream *t, place *to)
{
    const piece *p = &to->has;
    if (!p->which)
        return ts_rt_copy(to->mem, (const uint8_t *)p->w->data + ts_stream_bytes(p->w, p->n0),
                          ts_stream_bytes(p->w, p->n1 - p->n0), t->copies);
    const size_t bytes = ts_stream_bytes(p->w, p->w->n);
    const int64_t n = p->n1 - p->n0;
    int e = 0;
    for (int64_t i = 0, run; i < n && !e; i += run) {
        run = 1;
        while (i + run < n && to->which[i + run] == to->which[i] + run)
            run++;
        e = ts_rt_copy(to->mem + (size_t)i * bytes, matrix_of(p->w, to->which[i]),
                       (size_t)run * bytes, t->copies);
    }
    return e;
}

/* Asks for what there is room for, as soon as what was last in its place has been unpacked: of this
 * batch or of the one before, which may still be computed. */
static int ask(ts_cuda_stream *t)
{
    int e = 0;
    piece p;
    while (!e && t->asked < t->next + t->n_places && next_piece(t, &p)) {
        place *to = &t->places[t->asked++ % t->n_places];
        to->has = p;
        if (p.which)
            memcpy(to->which, p.which + p.n0, (size_t)(p.n1 - p.n0) * sizeof *to->which);
        e = to->taken ? ts_rt_stream_wait(t->copies, to->used) : 0;
        if (!e)
            e = copy(t, to);
        if (!e)
            e = ts_rt_event_record(to->here, t->copies);
    }
    return e;
}

int ts_cuda_stream_begin(ts_cuda_stream *t, int64_t first, const int32_t *order, int64_t ahead,
                         bool wait)
{
    t->at = (cursor){0};
    while (t->at.item < t->n_items && t->items[t->at.item].layer < first)
        t->at.item++;
    t->asked = t->next = 0;
    t->order = order;
    t->ahead = ahead;
    t->listed = -1;
    const int e = ask(t);
    return e || !wait ? e : ts_rt_wait(t->copies);
}

int ts_cuda_stream_experts(ts_cuda_stream *t, int layer, const int32_t *which, int64_t n)
{
    if (n < t->ahead || n > t->n_expert)
        return ts_rt_bad_value;
    memcpy(t->list, which, (size_t)n * sizeof *which);
    t->n_list = n;
    t->listed = layer;
    t->turn = 0;
    return ask(t);
}

/* What came of a piece, to the source's form: rows to `to`, experts to their places in the stack
 * that begins there. */
static int unpack(const ts_cuda_stream *t, const place *at, uint8_t *to)
{
    const piece *p = &at->has;
    const ts_weight *w = p->w;
    const int64_t n = p->n1 - p->n0;
    if (w->kset->packed_bytes)
        return p->which ? ts_cuda_unpack_matrices(to, at->mem, w->kset->packing, w->n, w->k,
                                                  at->which, n, t->stream)
                        : ts_cuda_unpack(to, at->mem, w->kset->packing, n, w->k, 0, n, t->stream);
    if (!p->which)
        return ts_rt_copy(to, at->mem, ts_stream_bytes(w, n), t->stream);
    const size_t one = ts_weight_source(w) / (size_t)w->e;
    int e = 0;
    for (int64_t i = 0; i < n && !e; i++)
        e = ts_rt_copy(to + (size_t)at->which[i] * one, at->mem + (size_t)i * one, one, t->stream);
    return e;
}

/* The next piece, whose turn it is. */
static int take(ts_cuda_stream *t, const ts_weight *w, int64_t n0, int64_t *n1, uint8_t *to)
{
    place *at = &t->places[t->next % t->n_places];
    const piece *p = &at->has;
    if (t->next >= t->asked || p->w != w || p->n0 != n0)
        return ts_rt_bad_value;
    int e = ts_rt_stream_wait(t->stream, at->here);
    if (!e)
        e = unpack(t, at, to);
    if (!e)
        e = ts_rt_event_record(at->used, t->stream);
    at->taken = at->taken || !e;
    *n1 = p->n1;
    t->next++;
    return e ? e : ask(t);
}

int ts_cuda_stream_next(ts_cuda_stream *t, const ts_weight *w, int64_t n0, int64_t *n1,
                        const void **rows)
{
    *rows = t->source;
    return take(t, w, n0, n1, t->source);
}

int ts_cuda_stream_all(ts_cuda_stream *t, const ts_weight *w, const void **all)
{
    const size_t row = ts_weight_source(w) / (size_t)ts_stream_all_rows(w);
    int e = 0;
    *all = t->source;
    for (int64_t n0 = 0, n1 = 0; n0 < ts_stream_all_rows(w) && !e; n0 = n1)
        e = take(t, w, n0, &n1, t->source + (size_t)n0 * row);
    return e;
}

/* A layer's stacks, and where they are unpacked. */
static void stacks_of(const ts_cuda_stream *t, const ts_layer *l, const ts_weight *all[STACKS],
                      uint8_t *to[STACKS])
{
    all[0] = l->gate_exps;
    all[1] = l->up_exps;
    all[2] = l->down_exps;
    to[0] = t->source;
    for (int j = 1; j < STACKS; j++)
        to[j] = to[j - 1] + ts_stream_stack(all[j - 1]);
}

bool ts_cuda_stream_fetches(const ts_cuda_stream *t)
{
    return t->n_pinned > 0;
}

int ts_cuda_stream_fetch(ts_cuda_stream *t, const ts_layer *l, const int32_t *id, int64_t count)
{
    const ts_weight *all[STACKS];
    uint8_t *to[STACKS];
    ts_cuda_fetched f[STACKS];
    stacks_of(t, l, all, to);
    for (int j = 0; j < STACKS; j++)
        f[j] = (ts_cuda_fetched){to[j], all[j]->data, all[j]->kset->packing, all[j]->n, all[j]->k};
    return ts_cuda_fetch(f, STACKS, id, count, t->n_expert, t->stream);
}

const void *ts_cuda_stream_place(const ts_cuda_stream *t, const ts_layer *l, const ts_weight *w)
{
    const ts_weight *all[STACKS];
    uint8_t *to[STACKS];
    int j = 0;
    stacks_of(t, l, all, to);
    while (all[j] != w)
        j++;
    return to[j];
}

int ts_cuda_stream_stack(ts_cuda_stream *t, const ts_layer *l, const ts_weight *w,
                         const void **stack)
{
    const ts_weight *all[STACKS];
    uint8_t *to[STACKS];
    int e = 0, last = 0;
    stacks_of(t, l, all, to);
    while (all[last] != w)
        last++;
    *stack = to[last];
    for (; t->turn <= STACKS + last && !e; t->turn++) {
        int64_t lo, hi, n1 = 0;
        (void)experts_of(t, t->listed, t->turn, &lo, &hi);
        for (int64_t n0 = lo; n0 < hi && !e; n0 = n1)
            e = take(t, all[t->turn % STACKS], n0, &n1, to[t->turn % STACKS]);
    }
    return e;
}

/* As much as there is room for, as if all experts came ahead. */
int ts_cuda_stream_time(ts_cuda_stream *t, double *seconds)
{
    double least = 0;
    size_t bytes = 0;
    int e = ts_rt_wait(t->stream);
    for (int i = 0; i < 3 && !e; i++) {
        const double t0 = ts_now();
        e = ts_cuda_stream_begin(t, 0, NULL, t->n_expert, true);
        const double s = ts_now() - t0;
        least = i == 0 || s < least ? s : least;
        bytes = 0;
        for (int64_t j = 0; j < t->asked; j++) {
            const piece *p = &t->places[j].has;
            bytes += ts_stream_bytes(p->w, (p->n1 - p->n0) * (p->which ? p->w->n : 1));
        }
    }
    *seconds = bytes ? least * (double)t->plan->bytes / (double)bytes : 0;
    return e;
}

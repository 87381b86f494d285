/* stream.h - weights that the CPU keeps, brought piece by piece for the products of one batch.
 *
 * Pieces are rows of a weight as the CPU has packed them, or some experts' matrices of a stack, in
 * the order in which steps use them. They are copied from the CPU's own memory, which is pinned, on
 * a stream of their own, into a ring of places; the device's stream waits for a piece, unpacks it,
 * and gives the place free for the next copy. The host never waits. */
#ifndef TS_CUDA_STREAM_H
#define TS_CUDA_STREAM_H

#include <stdbool.h>

#include "plan/plan.h"

typedef struct ts_cuda_stream ts_cuda_stream;

/* For the plan's stream device, after the CPU has loaded its weights; `stream` is where they are
 * used. 0, or an error of rt.h's; *out is NULL then. */
int ts_cuda_stream_open(ts_cuda_stream **out, const ts_plan *plan, const ts_model *m, void *stream,
                        const ts_log *log);
void ts_cuda_stream_close(ts_cuda_stream *t);

/* Pieces of layers from `first` on begin to come; what was under way before has been used. order
 * and ahead: ts_backend.stream_begin's. `wait`: until all that there is room for is there. */
int ts_cuda_stream_begin(ts_cuda_stream *t, int64_t first, const int32_t *order, int64_t ahead,
                         bool wait);

/* Which of the layer's experts come: which[n], the first of which are those that come ahead. */
int ts_cuda_stream_experts(ts_cuda_stream *t, int layer, const int32_t *which, int64_t n);

/* The next piece: rows n0..*n1-1 of w, which must be the one whose turn it is. *rows is the source
 * of these rows alone, until the next call; both for kernels that are queued from now on. */
int ts_cuda_stream_next(ts_cuda_stream *t, const ts_weight *w, int64_t n0, int64_t *n1,
                        const void **rows);

/* All rows of w, whose turn it is: *all is its source, until the next call. */
int ts_cuda_stream_all(ts_cuda_stream *t, const ts_weight *w, const void **all);

/* A stack of layer l's experts, gate's and up's before down's: *stack is its source, until the next
 * layer's, but of those alone that come. */
int ts_cuda_stream_stack(ts_cuda_stream *t, const ts_layer *l, const ts_weight *w,
                         const void **stack);

/* Matrices id[0..count-1] of layer l's stacks, read where the CPU has them by what is queued from
 * here on: `id` is device memory. They are at their places in the stacks until something else is
 * streamed or fetched, by any session: all that uses them is queued before the device's lock is
 * given back, as a segment is. */
int ts_cuda_stream_fetch(ts_cuda_stream *t, const ts_layer *l, const int32_t *id, int64_t count);
const void *ts_cuda_stream_place(const ts_cuda_stream *t, const ts_layer *l, const ts_weight *w);
/* Can they be? */
bool ts_cuda_stream_fetches(const ts_cuda_stream *t);

/* Seconds in which a layer of mean size comes. */
int ts_cuda_stream_time(ts_cuda_stream *t, double *seconds);

#endif

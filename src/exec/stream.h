/* stream.h - micro-batches whose products are worth bringing the CPU's weights to an accelerator
 * (plan.h tells what streaming is).
 *
 * Of the layers that can be streamed the CPU may keep the first ones: while it computes them the
 * others are already on their way. How many it keeps is decided for each number of tokens from what
 * was measured once, after loading: how fast weights come, and how long a layer takes on either
 * side with few and with many tokens. */
#ifndef TS_EXEC_STREAM_H
#define TS_EXEC_STREAM_H

#include "exec/run.h"

/* Measures the rates, with a session that hasn't been used. Without a plan that streams by itself
 * nothing is done. */
ts_status ts_stream_measure(ts_devices *d, ts_run *r, const ts_log *log, ts_error *err);

/* As ts_run_batch, of which it is the part for batches that are streamed: of one timeline. */
ts_status ts_stream_batch(ts_run *r, const ts_batch *b, int64_t keep, ts_error *err);

/* SHARE, of m rows: which of a layer's experts the stream device has. */
ts_status ts_stream_share_step(ts_run *r, const ts_step *st, int64_t m, ts_error *err);

/* A batch is computed by the first list: what the stream device had of its positions is no longer
 * so. */
void ts_stream_forget(ts_run *r, const ts_batch *b);

#endif

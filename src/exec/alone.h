/* alone.h - decode of one token where the CPU has the experts and an accelerator everything else.
 *
 * The CPU's cores don't read as fast as its memory gives: while they read most of the experts that
 * a token has chosen, the accelerator reads the others from the same memory, over its link, and
 * computes them. That is the plan's second list, in which the experts are shared, without its
 * stream: what is read is known only when the token has been routed.
 *
 *     stream device  attention, router, ROUTE | its experts, of the last ranks      | ADD
 *     CPU                             '-------> its own, GROUP .. COMBINE ----------'
 *
 * How many either has is measured after loading. */
#ifndef TS_EXEC_ALONE_H
#define TS_EXEC_ALONE_H

#include "exec/run.h"

/* Finds out how many of a lone token's experts the stream device should have, with a session that
 * hasn't been used: d->rates.alone, 0 where sharing gains nothing or can't be. */
ts_status ts_alone_measure(ts_devices *d, ts_run *r, const ts_log *log, ts_error *err);

/* As ts_run_batch, of a batch of one token, with d->rates.alone above 0. */
ts_status ts_alone_batch(ts_run *r, const ts_batch *b, ts_error *err);

#endif

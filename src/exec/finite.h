/* finite.h - is everything that a step wrote a number?
 *
 * A search for the step that makes the first NaN or infinity, for whoever finds one in the logits:
 * steps are run one at a time and what each wrote is read back. */
#ifndef TS_EXEC_FINITE_H
#define TS_EXEC_FINITE_H

#include "exec/run.h"

/* Floats that one row of any buffer takes at most. */
size_t ts_finite_floats(const ts_plan *p);

/* Looks at all rows that step i has just written; for STORE, at what the KV cache has made of them.
 * seen[n]: room, n at least ts_finite_floats. TS_NOT_FINITE: the sentence names the step, its
 * weight, layer and device, the buffer and the element. */
ts_status ts_finite_step(const ts_run *r, const ts_batch *b, size_t i, float *seen, size_t n,
                         ts_error *err);

#endif

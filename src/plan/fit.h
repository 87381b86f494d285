/* fit.h - which of the possible splits a plan has: inside of the planner. */
#ifndef TS_PLAN_FIT_H
#define TS_PLAN_FIT_H

#include "plan/plan.h"

/* The plan with this on accelerators, p having the options and a step list or none. */
ts_status ts_plan_at(ts_plan *p, ts_placing what, ts_model *m, const ts_split *split,
                     ts_error *err);

/* The first accelerator that doesn't hold what it should; 0: all do. */
int ts_plan_overfull(const ts_plan *p);

/* What that one would have to hold, as TS_NO_MEMORY. */
ts_status ts_plan_refuse(const ts_plan *p, int device, ts_error *err);

/* The plan with as much on accelerators as was asked for, or as gains most. TS_NO_MEMORY: what was
 * asked for doesn't fit. */
ts_status ts_plan_fit(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err);

#endif

/* speed.h - how fast a plan will be, predicted from what its devices can do. */
#ifndef TS_PLAN_SPEED_H
#define TS_PLAN_SPEED_H

#include "plan/plan.h"

/* Tokens of the prefill that is predicted. */
#define TS_SPEED_TOKENS 512

typedef struct ts_speed {
    double prefill_tps, decode_tps; /* 0: not predicted */
} ts_speed;

/* cpu: what the CPU was measured to do. Nothing is predicted for the oracle's kernel sets where
 * they have a part. */
ts_speed ts_speed_predict(const ts_plan *p, const ts_model *m, const ts_probe *cpu);

/* Seconds of one decode step, without attention over what is in the context. read: the CPU's
 * bytes/s from memory. */
double ts_speed_decode(const ts_plan *p, double read);

/* Bytes that a copy brings for each of its rows. */
size_t ts_speed_copy_bytes(const ts_step *copy);

/* What an accelerator can do, or a modest one where that isn't known. */
double ts_speed_read(const ts_plan_device *d);
double ts_speed_link(const ts_plan_device *d);
double ts_speed_flops(const ts_plan_device *d);

#endif

/* run.h - the devices of a plan together: loading them, and running batches over all of them.
 *
 * A batch walks the step list a segment at a time: each is run by its device, and a copy brings the
 * rows of one buffer from one device to another. Nothing else moves between devices. */
#ifndef TS_EXEC_RUN_H
#define TS_EXEC_RUN_H

#include "exec/backend.h"

/* One an engine. */
typedef struct ts_devices {
    const ts_plan *plan;
    const ts_model *m;
    ts_stream_rates rates;
    int n;
    const ts_backend *be[TS_MAX_DEVICES];
    ts_device *dev[TS_MAX_DEVICES]; /* NULL: the plan uses it for nothing */
} ts_devices;

/* Opens the plan's devices, be[i] being device i's backend, and loads their weights. On failure
 * nothing is open. */
ts_status ts_devices_open(ts_devices *out, const ts_backend *const be[], const ts_plan *plan,
                          ts_model *m, const ts_load_options *opt, ts_error *err);
void ts_devices_close(ts_devices *d);

/* One a session. */
typedef struct ts_run {
    const ts_devices *d;
    ts_state *state[TS_MAX_DEVICES];
    bool stats;
    ts_work copies;
    /* Of a plan that streams: how many positions of each page the stream device has of each layer
     * of the CPU, and rows of K and V on their way. */
    uint8_t *on_stream; /* [n_layer][n_pages] */
    int64_t n_pages;
    uint16_t *kv;
    /* Of shared experts: each layer's, those with most tokens of the last batch first; a layer's
     * counts, and those the stream device has; how many come ahead in this batch. */
    int32_t *order, *count, *list; /* [n_layer][n_expert], [n_expert], [n_expert] */
    int64_t ahead;
    int64_t pairs[2]; /* of the last layer that was shared: the CPU's, the stream device's */
    float *seen;      /* [n_seen] room for what is looked at; NULL: nothing is */
    size_t n_seen;
} ts_run;

/* check_finite: every step is run by itself and what it wrote is looked at (exec/finite.h); a batch
 * that makes a NaN or an infinity fails with TS_NOT_FINITE. */
ts_status ts_run_open(ts_run *out, const ts_devices *d, bool check_finite, ts_error *err);
void ts_run_close(ts_run *r);

/* After a failure the session's state is that of before the batch, but for the logits. */
ts_status ts_run_batch(ts_run *r, const ts_batch *b, ts_error *err);

/* Steps first..stop-1 of the batch, which lie in one of the plan's lists. */
ts_status ts_run_steps(ts_run *r, const ts_batch *b, size_t first, size_t stop, ts_error *err);

/* Before rows of the CPU are written: accelerators have read what was put. */
ts_status ts_run_settle(ts_run *r, ts_error *err);

/* Rows of a device's n buffers, which are there when it returns. */
ts_status ts_run_get(const ts_run *r, int device, const ts_crossing *c, int n, ts_error *err);

/* What the copy of step i brings to the CPU, or from there. */
ts_crossing ts_run_crossing(const ts_run *r, const ts_batch *b, size_t i);

/* m rows of noise in a buffer of the CPU and wherever else it is, to measure with. */
ts_status ts_run_noise(ts_run *r, ts_buf x, int64_t m, uint64_t seed, ts_error *err);

/* For statistics. */
void ts_run_crossed(ts_run *r, const ts_crossing *c, int n, double seconds);

float *ts_run_logits(ts_run *r); /* [n_logits][n_vocab] */

/* What the output norm has made of row i of the last batch's that wanted logits: out[n_embd]. */
ts_status ts_run_hidden(ts_run *r, int64_t i, float *out, ts_error *err);

void ts_run_set_stats(ts_run *r, bool on);

/* Of all devices: number of entries. */
size_t ts_run_stats(const ts_run *r, ts_work out[TS_MAX_WORK]);

#endif

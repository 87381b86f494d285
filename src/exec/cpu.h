/* cpu.h - the CPU device's insides, shared by its files: cpu.c owns memory and threads, cpu_load.c
 * fills the packed arena, cpu_steps.c does the work of each step. */
#ifndef TS_EXEC_CPU_H
#define TS_EXEC_CPU_H

#include <stdatomic.h>

#include "base/pool.h"
#include "cpu/ops.h"
#include "exec/backend.h"

struct ts_device {
    const ts_plan *plan;
    const ts_plan_device *at; /* the plan's for this device: number `index` */
    int index;
    const ts_model *m;
    const ts_ops *ops;
    ts_pool *pool;
    uint8_t *packed; /* [at->packed] all packed weights */
};

/* The memory of one session, one mapping:
 *
 *     kv       [layer of this device][kv_head][k_bytes], then the same of V: a head in the layout
 * of the ISA's attention, which streams contiguous memory. Positions not yet stored are undefined.
 *     buffers  those of this device one after the other, 64-byte aligned (ts_plan_buffer_bytes)
 *     parts    sums and maxima of every segment of positions, for decode
 *     scratch  of attention and products, one piece a thread */
struct ts_state {
    ts_device *d;
    uint8_t *mem;
    size_t mem_bytes;
    uint8_t *kv;
    size_t k_bytes, v_bytes; /* of one head */
    uint8_t **bufs;          /* [n_bufs]; NULL: not on this device */
    float *part_sums, *part_max;
    uint8_t *scratch;
    size_t scratch_bytes;      /* of one thread */
    atomic_int_fast64_t *next; /* [n_steps] chunks handed out                        */
    /* [n_seqs][n_attend][n_head] finished parts of a task's heads; which of the attention steps a
     * step is. */
    atomic_int_fast64_t *merged;
    int32_t *attend; /* [n_steps] */
    int64_t n_attend;
    const ts_batch *batch;
    size_t first, end; /* the segment that is run */
    bool stats;
    double *seconds;    /* [n_steps] by the first thread */
    int64_t *calls;     /* [n_steps] */
    int64_t *rows;      /* [n_steps] */
    int64_t *tile_rows; /* [n_steps] of them, those whose products were made on tiles */
    int64_t *matrices;  /* [n_steps] of experts whose products were made              */
};

/* Row r of a buffer of floats. */
static inline float *ts_cpu_row(const ts_state *s, ts_buf b, int64_t r)
{
    return (float *)s->bufs[b] + r * s->d->plan->steps.bufs[b].width;
}

/* Up to so many tokens, memory is what a product waits for. */
enum { TS_CPU_FEW = 4 };

/* Asks for the first page of the rows from n0 on; kernels ask for what follows. That is a twentieth
 * of a chunk. */
static inline void ts_cpu_fetch(const ts_mul *p, const ts_kset *s, int64_t n0)
{
    if (p->m > TS_CPU_FEW || !s->packed_bytes)
        return;
    const char *w = (const char *)p->w + s->packed_bytes(n0, p->k);
    for (int i = 0; i < 4096; i += 64)
        __builtin_prefetch(w + i);
}

/* Packs every weight the plan wants packed, and writes where each is. As ts_backend.load. */
ts_status ts_cpu_load(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err);

/* Do the threads meet before step i, of a batch's m rows? At the plan's barriers, and for
 * activations that are made of all rows: they may follow steps by row. */
bool ts_cpu_meet(const ts_state *s, size_t i, int64_t m);

/* The activation of a gated pair: y = act(g) * u, or the like. */
typedef void ts_act_mul(float *y, const float *g, const float *u, int64_t n);
ts_act_mul *ts_cpu_act(const ts_state *s, const ts_step *st);

/* Experts (cpu_experts.c): the steps by their names, for m rows of tokens. */
void ts_cpu_route(ts_state *s, const ts_step *st, int64_t m, int64_t r0, int64_t r1);
void ts_cpu_group(ts_state *s, const ts_step *st, int64_t m, int tid);
/* With one token each thread prepares what it reads itself. */
#define TS_ALONE 1
void ts_cpu_gather(ts_state *s, size_t i, int64_t m, int tid, int n);
void ts_cpu_experts(ts_state *s, size_t i, int64_t m, int tid, int n);
void ts_cpu_combine(ts_state *s, const ts_step *st, int64_t m, int tid, int n);
void ts_cpu_first_expert(const ts_state *s, size_t i, int64_t m, int tid, int n, ts_ahead ahead[2]);

/* Each head's product (cpu_heads.c). */
void ts_cpu_heads(ts_state *s, size_t i, int64_t m, int tid, int n);
/* Rows of m whose products are made on tiles. */
int64_t ts_cpu_heads_on_tiles(const ts_state *s, const ts_step *st, int64_t m);

/* What products of experts did with the groups that are there now. */
typedef struct ts_expert_work {
    int64_t matrices, rows, tile_rows;
} ts_expert_work;

ts_expert_work ts_cpu_expert_work(const ts_state *s, const ts_step *st, int64_t m);

/* Thread tid of n does its share of step i. */
void ts_cpu_step(ts_state *s, size_t i, int tid, int n);

/* K (or V) of one head of one layer. */
uint8_t *ts_cpu_kv_head(const ts_state *s, bool v, int layer, int64_t head);

/* ts_backend's. */
ts_status ts_cpu_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                        const uint16_t **kv, ts_error *err);
ts_status ts_cpu_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                        ts_error *err);

/* What thread tid of n reads first of the weights of product i: two ranges, the second for a gated
 * pair. Both are empty where memory isn't what the product waits for. */
void ts_cpu_first_weights(const ts_state *s, size_t i, int tid, int n, ts_ahead ahead[2]);

#endif

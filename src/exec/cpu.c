/* cpu.c - the CPU as a device: packed weights, a pool of threads, sessions' memory. */
#include "exec/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "cpu/tiles.h"

static void cpu_close(ts_device *d)
{
    if (!d)
        return;
    ts_pool_close(d->pool);
    ts_unmap(d->packed, d->at->packed);
    free(d);
}

static ts_status cpu_open(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                          ts_error *err)
{
    ts_device *d = ts_calloc(1, sizeof *d);
    if (!d)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the CPU device");
    d->plan = plan;
    d->at = &plan->dev[index];
    d->index = index;
    d->m = m;
    d->ops = ts_ops_get(d->at->isa);
    ts_status s = ts_pool_open(&d->pool, d->at->n_threads, err);
    if (s) {
        free(d);
        return s;
    }
    *out = d;
    return TS_OK;
}

/* --- sessions --------------------------------------------------------------- */

static void cpu_state_close(ts_state *s)
{
    if (!s)
        return;
    ts_unmap(s->mem, s->mem_bytes);
    free(s->bufs);
    free(s->next);
    free(s->merged);
    free(s->attend);
    free(s->seconds);
    free(s->calls);
    free(s->rows);
    free(s->tile_rows);
    free(s->matrices);
    free(s);
}

static size_t aligned(size_t n)
{
    return (n + 63) / 64 * 64;
}

static ts_status cpu_state_open(ts_state **out, ts_device *d, ts_error *err)
{
    const ts_plan *p = d->plan;
    const ts_plan_device *at = d->at;
    const ts_hparams *hp = &d->m->hp;
    size_t n = p->steps.n;
    ts_state *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    s->d = d;
    s->scratch_bytes = at->scratch;
    s->k_bytes = d->ops->kv->bytes(p->n_ctx, hp->head_dim);
    s->v_bytes = d->ops->kv->bytes(p->n_ctx, hp->v_dim);
    s->mem_bytes = aligned(at->kv) + at->buffers;
    s->mem = ts_map(s->mem_bytes);
    s->bufs = ts_calloc(p->steps.n_bufs, sizeof *s->bufs);
    s->next = ts_calloc(n, sizeof *s->next);
    s->attend = ts_calloc(n, sizeof *s->attend);
    for (size_t i = 0; i < n && s->attend; i++)
        if (p->steps.v[i].op == TS_OP_ATTEND)
            s->attend[i] = (int32_t)s->n_attend++;
    s->merged = ts_calloc((size_t)(p->n_seqs * s->n_attend * hp->n_head) + 1, sizeof *s->merged);
    s->seconds = ts_calloc(n, sizeof *s->seconds);
    s->calls = ts_calloc(n, sizeof *s->calls);
    s->rows = ts_calloc(n, sizeof *s->rows);
    s->tile_rows = ts_calloc(n, sizeof *s->tile_rows);
    s->matrices = ts_calloc(n, sizeof *s->matrices);
    if (!s->mem || !s->bufs || !s->next || !s->attend || !s->merged || !s->seconds || !s->calls ||
        !s->rows || !s->tile_rows || !s->matrices) {
        cpu_state_close(s);
        return ts_fail(err, TS_NO_MEMORY,
                       "no memory for a session: %zu bytes of KV cache, %zu of buffers", at->kv,
                       at->buffers);
    }
    s->kv = s->mem;
    uint8_t *next = s->mem + aligned(at->kv);
    for (size_t i = 0; i < p->steps.n_bufs; i++) {
        if (!(p->steps.bufs[i].devices >> d->index & 1))
            continue;
        s->bufs[i] = next;
        next += ts_plan_buffer_bytes(p, d->index, (ts_buf)i);
    }
    /* parts: sums of v_dim floats first, then two floats each. */
    s->part_sums = (float *)next;
    s->part_max =
        s->part_sums + at->parts / (((size_t)hp->v_dim + 2) * sizeof(float)) * (size_t)hp->v_dim;
    s->scratch = next + at->parts;
    *out = s;
    return TS_OK;
}

static bool is_product(const ts_step *st)
{
    return st->op == TS_OP_MATMUL || st->op == TS_OP_GLU;
}

/* The first product from step i of the segment on, or the number of steps. */
static size_t product_from(const ts_state *s, size_t i)
{
    const ts_steps *steps = &s->d->plan->steps;
    while (i < s->end && !is_product(&steps->v[i]) && steps->v[i].op != TS_OP_EXPERTS &&
           steps->v[i].op != TS_OP_GROUP) /* which experts isn't known before */
        i++;
    return i < s->end && steps->v[i].op != TS_OP_GROUP ? i : steps->n;
}

/* Every thread walks the whole segment and does its share of each step. What it waits at barriers
 * it uses to ask for the weights of the next product. */
static void walk_steps(ts_state *s, int tid, int n)
{
    const ts_steps *steps = &s->d->plan->steps;
    ts_ahead ahead[2];
    size_t product = SIZE_MAX; /* that `ahead` is for */
    bool timed = s->stats && tid == 0;
    double t0 = timed ? ts_now() : 0;
    for (size_t i = s->first; i < s->end; i++) {
        const ts_step *st = &steps->v[i];
        int64_t rows = st->domain == TS_ALL_ROWS ? s->batch->m : s->batch->m_out;
        if (rows == 0) /* and so have all steps from here on: no logits are wanted */
            break;
        if (ts_cpu_meet(s, i, rows)) {
            size_t next = product_from(s, i);
            if (next != product)
                ts_cpu_first_weights(s, next, tid, n, ahead);
            product = next;
            ts_pool_barrier_ahead(s->d->pool, ahead);
        }
        ts_cpu_step(s, i, tid, n);
        if (timed) {
            double t1 = ts_now();
            s->seconds[i] += t1 - t0;
            s->calls[i]++;
            if (st->op == TS_OP_EXPERTS) {
                const ts_expert_work w = ts_cpu_expert_work(s, st, rows);
                s->matrices[i] += w.matrices;
                s->rows[i] += w.rows;
                s->tile_rows[i] += w.tile_rows;
                t0 = t1;
                continue;
            }
            s->rows[i] += rows;
            if (st->op == TS_OP_HEADS)
                s->tile_rows[i] += ts_cpu_heads_on_tiles(s, st, rows);
            if (is_product(st) &&
                ts_kset_on_tiles(st->w->kset, ts_plan_int8(s->d->plan, rows), rows))
                s->tile_rows[i] += rows;
            t0 = t1;
        }
    }
}

/* Tiles are configured once a job: TILERELEASE lets the core sleep and spares context switches the
 * 8 KB, and configuring them costs as much as a few products. */
static void run_steps(void *arg, int tid, int n)
{
    ts_state *s = arg;
    bool tiles = s->d->at->isa == TS_ISA_AMX;
    if (tiles)
        ts_tiles_begin();
    walk_steps(s, tid, n);
    if (tiles)
        ts_tiles_end();
}

/* Where all else is done by GPUs, the embeddings of a few tokens are all there is to do here: some
 * microseconds, for which it would take as long as a decode step of a GPU to wake every thread. */
#define ALONE_TOKENS 8

static bool for_one_thread(const ts_state *s)
{
    return s->end == s->first + 1 && s->d->plan->steps.v[s->first].op == TS_OP_EMBED &&
           s->batch->m <= ALONE_TOKENS;
}

static ts_status cpu_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err)
{
    (void)err;
    const int64_t heads = s->d->m->hp.n_head, spans = ts_batch_spans(b);
    for (size_t i = first; i < end; i++) {
        atomic_store_explicit(&s->next[i], 0, memory_order_relaxed);
        if (s->d->plan->steps.v[i].op != TS_OP_ATTEND)
            continue;
        for (int64_t j = 0; j < spans; j++)
            for (int64_t h = 0; h < heads; h++)
                atomic_store_explicit(&s->merged[(j * s->n_attend + s->attend[i]) * heads + h], 0,
                                      memory_order_relaxed);
    }
    s->batch = b;
    s->first = first;
    s->end = end;
    if (for_one_thread(s))
        ts_pool_alone(run_steps, s);
    else
        ts_pool_run(s->d->pool, run_steps, s);
    return TS_OK;
}

static float *cpu_row(ts_state *s, ts_buf buf, int64_t r)
{
    return (float *)s->bufs[buf] + r * s->d->plan->steps.bufs[buf].width;
}

static void cpu_buffers(const ts_state *s, const void **mem, size_t *bytes)
{
    const size_t kv = aligned(s->d->at->kv);
    *mem = s->mem + kv;
    *bytes = s->mem_bytes - kv;
}

/* --- statistics ------------------------------------------------------------- */

static void cpu_set_stats(ts_state *s, bool on)
{
    size_t n = s->d->plan->steps.n;
    memset(s->seconds, 0, n * sizeof *s->seconds);
    memset(s->calls, 0, n * sizeof *s->calls);
    memset(s->rows, 0, n * sizeof *s->rows);
    memset(s->tile_rows, 0, n * sizeof *s->tile_rows);
    memset(s->matrices, 0, n * sizeof *s->matrices);
    s->stats = on;
}

static ts_work *find_work(ts_work *out, size_t *n, const char *name)
{
    for (size_t i = 0; i < *n; i++)
        if (strcmp(out[i].name, name) == 0)
            return &out[i];
    out[*n] = (ts_work){.name = name};
    return &out[(*n)++];
}

static size_t cpu_stats(const ts_state *s, ts_work out[TS_MAX_WORK])
{
    const ts_steps *steps = &s->d->plan->steps;
    size_t n = 0;
    for (int matrix = 1; matrix >= 0; matrix--) /* the kernel sets first */
        for (size_t i = 0; i < steps->n; i++) {
            const ts_step *st = &steps->v[i];
            const bool experts = st->op == TS_OP_EXPERTS, heads = st->op == TS_OP_HEADS;
            if ((is_product(st) || experts || heads) != matrix || st->device != s->d->index ||
                st->op == TS_OP_COPY || st->op == TS_OP_SHARE)
                continue;
            ts_work *w =
                find_work(out, &n, matrix ? ts_isa_name(st->w->kset->isa) : ts_op_name(st->op));
            int products = st->w2 ? 2 : 1;
            w->calls += products * s->calls[i];
            w->seconds += s->seconds[i];
            w->matrix = matrix;
            if (matrix) {
                size_t bytes = st->w->bytes + (products == 2 ? st->w2->bytes : 0);
                if (i < steps->n_main) { /* the second list has them again */
                    w->n_weights += products;
                    w->weight_bytes += bytes;
                }
                w->bytes += experts ? (double)s->matrices[i] * (double)bytes / (double)st->w->e
                                    : (double)s->calls[i] * (double)bytes;
                double row_flops = 2.0 * products * (double)st->w->n * (double)st->w->k;
                row_flops *= heads ? (double)st->w->e : 1;
                w->flops += (double)s->rows[i] * row_flops;
                w->tile_flops += (double)s->tile_rows[i] * row_flops;
            }
        }
    return n;
}

const ts_backend ts_backend_cpu = {
    .name = "CPU",
    .open = cpu_open,
    .close = cpu_close,
    .load = ts_cpu_load,
    .state_open = cpu_state_open,
    .state_close = cpu_state_close,
    .run = cpu_run,
    .row = cpu_row,
    .buffers = cpu_buffers,
    .kv_get = ts_cpu_kv_get,
    .kv_put = ts_cpu_kv_put,
    .set_stats = cpu_set_stats,
    .stats = cpu_stats,
};

/* plan.c - placement and sizes. */
#include "plan/plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "cpu/ops.h"

#define DEFAULT_CTX    4096
#define DEFAULT_UBATCH 512
#define ALIGN          64 /* of everything in the arena and among the buffers */

/* Sizes are sums and products of numbers from a stranger's file and from options. They saturate:
 * what doesn't fit 64 bits doesn't fit the machine either and is refused with the rest. */
static size_t sat_mul(size_t a, size_t b)
{
    size_t r;
    return ts_mul_overflow(a, b, &r) ? SIZE_MAX : r;
}

static size_t sat_add(size_t a, size_t b)
{
    size_t r;
    return ts_add_overflow(a, b, &r) ? SIZE_MAX : r;
}

static size_t aligned(size_t n)
{
    return n > SIZE_MAX - ALIGN ? SIZE_MAX : (n + ALIGN - 1) / ALIGN * ALIGN;
}

static void place_weights(ts_plan *p, ts_model *m)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        const ts_kset *ks = ts_kset_get(w->source->type, p->isa);
        bool looked_up = w == m->token_embd && w != m->output;
        w->kset = looked_up ? NULL : ks;
        w->bytes = w->source->size;
        if (looked_up) {
            snprintf(w->reason, sizeof w->reason, "rows are looked up in the mapped file");
            p->source = sat_add(p->source, w->bytes);
            continue;
        }
        const char *type = ts_type_get(w->source->type)->name;
        if (ks->isa == p->isa)
            snprintf(w->reason, sizeof w->reason, "widest kernel set for %s here%s", type,
                     w == m->token_embd ? "; also the embedding, looked up in the file" : "");
        else
            snprintf(w->reason, sizeof w->reason, "no %s kernel set for %s: %s serves",
                     ts_isa_name(p->isa), type, ts_isa_name(ks->isa));
        if (ks->packed_bytes) {
            w->offset = p->packed;
            w->bytes = ks->packed_bytes(w->n, w->k);
            p->packed = sat_add(p->packed, aligned(w->bytes));
        } else {
            p->source = sat_add(p->source, w->bytes);
        }
        p->step_weights = sat_add(p->step_weights, w->bytes);
    }
}

static int64_t domain_rows(const ts_plan *p, ts_domain d)
{
    return d == TS_ALL_ROWS || p->n_logits > p->n_ubatch ? p->n_ubatch : p->n_logits;
}

size_t ts_plan_buffer_bytes(const ts_plan *p, ts_buf i)
{
    const ts_buffer *b = &p->steps.bufs[i];
    int64_t rows = i == p->steps.logits ? p->n_logits : domain_rows(p, b->domain);
    if (b->prep)
        return aligned(b->prep->bytes(rows, b->k));
    return aligned(sat_mul(sat_mul((size_t)rows, (size_t)b->width), sizeof(float)));
}

static void size_session(ts_plan *p, const ts_model *m)
{
    const ts_hparams *hp = &m->hp;
    const ts_ops *ops = ts_ops_get(p->isa);
    size_t head = ops->kv->bytes(p->n_ctx, hp->head_dim);
    p->kv = sat_mul(sat_mul(sat_mul(2, (size_t)hp->n_layer), (size_t)hp->n_head_kv), head);
    for (size_t i = 0; i < p->steps.n_bufs; i++)
        p->buffers = sat_add(p->buffers, ts_plan_buffer_bytes(p, (ts_buf)i));

    /* Attention: scratch of each thread, and for decode the sums of every segment of positions. */
    int64_t group = hp->n_head / hp->n_head_kv;
    p->scratch = aligned(ops->attend_scratch(group, hp->head_dim));
    if (p->isa == TS_ISA_AMX && p->scratch < TS_MUL_SCRATCH)
        p->scratch = TS_MUL_SCRATCH;
    size_t segments = (size_t)((p->n_ctx + TS_ATTEND_SEGMENT - 1) / TS_ATTEND_SEGMENT);
    size_t rows = sat_mul(TS_SPLIT_TOKENS, (size_t)hp->n_head);
    p->parts =
        aligned(sat_mul(sat_mul(segments, rows), ((size_t)hp->head_dim + 2) * sizeof(float)));
    p->buffers = sat_add(p->buffers, sat_mul(p->scratch, (size_t)p->n_threads));
    p->buffers = sat_add(p->buffers, p->parts);
}

static double gib(size_t n)
{
    return (double)n / (double)(1 << 30);
}

static ts_status check_memory(const ts_plan *p, ts_error *err)
{
    uint64_t room = ts_mem_available();
    size_t need = sat_add(sat_add(p->packed, p->kv), p->buffers);
    if (room == 0 || need <= room)
        return TS_OK;
    return ts_fail(
        err, TS_NO_MEMORY,
        "the model needs %.2f GiB (packed weights %.2f, KV cache for %lld positions %.2f, "
        "buffers %.2f) and %.2f GiB of memory are free; a smaller -c needs less",
        gib(need), gib(p->packed), (long long)p->n_ctx, gib(p->kv), gib(p->buffers), gib(room));
}

static ts_status check_option(int64_t v, int64_t max, const char *what, ts_error *err)
{
    if (v < 0 || v > max)
        return ts_fail(err, TS_BAD_ARG, "%s is %lld; it must be 1 to %lld (0 for the default)",
                       what, (long long)v, (long long)max);
    return TS_OK;
}

static ts_status take_options(ts_plan *p, const ts_model *m, const ts_plan_options *o,
                              ts_error *err)
{
    ts_status s;
    if ((s = check_option(o->n_threads, 1024, "the number of threads", err)) ||
        (s = check_option(o->n_ctx, (int64_t)1 << 31, "the context size", err)) ||
        (s = check_option(o->n_ubatch, 65536, "the micro-batch size", err)) ||
        (s = check_option(o->n_logits, 65536, "the number of rows of logits", err)))
        return s;
    int n_cpus = ts_cpu_get()->n_cpus;
    p->isa = o->isa;
    p->int8_prefill = o->int8_prefill;
    p->n_threads = o->n_threads ? o->n_threads : n_cpus;
    if (p->n_threads > n_cpus)
        p->n_threads = n_cpus;
    int64_t trained = m->hp.n_ctx_train;
    p->n_ctx = o->n_ctx ? o->n_ctx : trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    p->n_ubatch = o->n_ubatch ? o->n_ubatch : DEFAULT_UBATCH;
    if (p->n_ubatch > p->n_ctx)
        p->n_ubatch = p->n_ctx;
    p->n_logits = o->n_logits ? o->n_logits : 1;
    if (p->n_logits > p->n_ctx)
        p->n_logits = p->n_ctx;
    return TS_OK;
}

/* What was done otherwise than asked, once it is sure that there is a plan. */
static void say_changes(const ts_plan *p, const ts_model *m, const ts_plan_options *o,
                        const ts_log *log)
{
    if (o->n_threads > p->n_threads)
        ts_logf(log, TS_LOG_WARN, "%d threads asked for, %d CPUs to run on: %d threads are used",
                o->n_threads, p->n_threads, p->n_threads);
    if (p->n_ctx > m->hp.n_ctx_train)
        ts_logf(log, TS_LOG_WARN,
                "a context of %lld is more than the %lld the model was trained for",
                (long long)p->n_ctx, (long long)m->hp.n_ctx_train);
}

ts_status ts_plan_make(ts_plan *out, ts_model *m, const ts_plan_options *opt, const ts_log *log,
                       ts_error *err)
{
    ts_plan p = {0};
    ts_status s = take_options(&p, m, opt, err);
    if (s)
        return s;
    place_weights(&p, m);
    s = ts_steps_make(&p.steps, m, err);
    if (s)
        return s;
    size_session(&p, m);
    s = check_memory(&p, err);
    if (s) {
        ts_plan_free(&p);
        return s;
    }
    say_changes(&p, m, opt, log);
    *out = p;
    return TS_OK;
}

void ts_plan_free(ts_plan *p)
{
    ts_steps_free(&p->steps);
}

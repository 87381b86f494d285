/* plan.c - placement and sizes. */
#include "plan/plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "cpu/ops.h"
#include "cpu/route.h"
#include "plan/fit.h"

#define DEFAULT_CTX    4096
#define DEFAULT_SHARES 4 /* timelines that there is so much for */
#define DEFAULT_UBATCH 512
#define ALIGN          64  /* of everything in the CPU's arena and among the buffers */
#define ACCEL_ALIGN    256 /* of weights on accelerators                             */

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

static size_t aligned_to(size_t n, size_t align)
{
    return n > SIZE_MAX - align ? SIZE_MAX : (n + align - 1) / align * align;
}

static size_t aligned(size_t n)
{
    return aligned_to(n, ALIGN);
}

/* The kernel set and the place of each weight on the device it is for. Accelerators hold weights as
 * the file has them. */
static void place_weights(ts_plan *p, ts_model *m)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        ts_plan_device *d = &p->dev[w->device];
        const ts_kset *ks =
            d->kind ? d->kind->kset(w->source->type) : ts_kset_get(w->source->type, d->isa);
        bool looked_up = w == m->token_embd && w != m->output;
        w->kset = looked_up ? NULL : ks;
        w->bytes = ts_weight_source(w);
        if (looked_up) {
            snprintf(w->reason, sizeof w->reason, "rows are looked up in the mapped file");
            d->source = sat_add(d->source, w->bytes);
            continue;
        }
        const char *type = ts_type_get(w->source->type)->name;
        if (w->device)
            snprintf(w->reason, sizeof w->reason, "on %s", d->name);
        else if (ks->isa == p->isa)
            snprintf(w->reason, sizeof w->reason, "widest kernel set for %s here%s", type,
                     w == m->token_embd ? "; also the embedding, looked up in the file" : "");
        else
            snprintf(w->reason, sizeof w->reason, "no %s kernel set for %s: %s serves",
                     ts_isa_name(p->isa), type, ts_isa_name(ks->isa));
        if (w->device || ks->packed_bytes) {
            w->offset = d->packed;
            if (!w->device)
                w->bytes = ts_weight_packed(w);
            d->packed = sat_add(d->packed, aligned_to(w->bytes, w->device ? ACCEL_ALIGN : ALIGN));
        } else {
            d->source = sat_add(d->source, w->bytes);
        }
        d->step_weights = sat_add(d->step_weights, ts_weight_step(w));
        d->step_experts = sat_add(d->step_experts, w->experts ? ts_weight_step(w) : 0);
    }
}

static int64_t domain_rows(const ts_plan *p, ts_domain d)
{
    return d == TS_ALL_ROWS || p->n_logits > p->n_ubatch ? p->n_ubatch : p->n_logits;
}

size_t ts_plan_buffer_bytes(const ts_plan *p, int device, ts_buf i)
{
    const ts_buffer *b = &p->steps.bufs[i];
    const int n_threads = p->dev[device].n_threads;
    int64_t rows = i == p->steps.logits ? p->n_logits : domain_rows(p, b->domain);
    if (b->prep && b->pairs) {
        const ts_moe *e = &p->moe;
        const size_t pairs = sat_mul((size_t)rows, (size_t)e->n_used);
        const size_t most = pairs < (size_t)e->n_expert ? pairs : (size_t)e->n_expert;
        const size_t alone = (size_t)(rows > n_threads ? rows : n_threads);
        return sat_add(sat_mul(alone, ts_pairs_single(b->prep, b->k)),
                       sat_mul(pairs / 16 + most + 1, ts_pairs_sixteen(b->prep, b->k)));
    }
    if (b->prep)
        return aligned(b->prep->bytes(rows, b->k));
    const size_t bytes = aligned(
        sat_mul(sat_add(sat_mul((size_t)rows, (size_t)b->width), (size_t)b->fixed), sizeof(float)));
    return b->each ? sat_mul(bytes, (size_t)n_threads) : bytes;
}

size_t ts_plan_cpu_kv(const ts_plan *p, int device, const ts_model *m)
{
    const ts_plan_device *d = &p->dev[device];
    const ts_kv_layout *kv = ts_ops_get(d->isa)->kv;
    const size_t layers = (size_t)ts_plan_kv_layers(p, device);
    return sat_mul(sat_mul(layers, (size_t)m->hp.n_head_kv),
                   sat_add(kv->bytes(p->n_ctx, m->hp.head_dim), kv->bytes(p->n_ctx, m->hp.v_dim)));
}

size_t ts_plan_cpu_work(ts_plan *p, int device, const ts_model *m)
{
    ts_plan_device *d = &p->dev[device];
    const ts_hparams *hp = &m->hp;
    const int64_t group = hp->n_head / hp->n_head_kv;
    d->scratch = aligned(ts_ops_get(d->isa)->attend_scratch(
        group < TS_ATTEND_HEADS ? group : TS_ATTEND_HEADS, hp->head_dim, hp->v_dim));
    if (d->isa == TS_ISA_AMX && d->scratch < TS_MUL_SCRATCH)
        d->scratch = TS_MUL_SCRATCH;
    if (hp->moe.n_expert && d->scratch < TS_GATHER_SCRATCH)
        d->scratch = TS_GATHER_SCRATCH;
    const size_t mul = d->isa == TS_ISA_AMX ? TS_MUL_SCRATCH : 0; /* behind which HEADS prepares */
    for (size_t i = 0; i < p->steps.n; i++) {
        const ts_step *st = &p->steps.v[i];
        if (st->op != TS_OP_HEADS || st->device != device)
            continue;
        const size_t n = aligned(mul + st->kset->prep->bytes(TS_HEADS_TOKENS, st->w->k));
        d->scratch = n > d->scratch ? n : d->scratch;
    }
    const size_t rows = sat_mul((size_t)ts_plan_part_rows(p), (size_t)hp->n_head);
    d->parts = aligned(sat_mul(rows, ((size_t)hp->v_dim + 2) * sizeof(float)));
    return sat_add(sat_mul(d->scratch, (size_t)d->n_threads), d->parts);
}

static const ts_accel_kind cpu_kind = {
    .kv_bytes = ts_plan_cpu_kv,
    .work_bytes = ts_plan_cpu_work,
};

static void count_layers(ts_plan *p, const ts_model *m)
{
    for (int64_t i = 0; i < m->hp.n_layer; i++) {
        p->dev[m->layers[i].device].n_blocks++;
        p->dev[m->layers[i].kv_device].n_layers++;
    }
}

static size_t stream_bytes(const ts_stream *t)
{
    return sat_add(sat_mul((size_t)t->pieces, t->piece), t->source);
}

static void size_session(ts_plan *p, int device, const ts_model *m)
{
    ts_plan_device *d = &p->dev[device];
    for (size_t i = 0; i < p->steps.n_bufs; i++)
        if (p->steps.bufs[i].devices >> device & 1)
            d->buffers = sat_add(d->buffers, ts_plan_buffer_bytes(p, device, (ts_buf)i));
    const ts_accel_kind *kind = d->kind ? d->kind : &cpu_kind;
    d->kv = kind->kv_bytes(p, device, m);
    d->buffers = sat_add(d->buffers, kind->work_bytes(p, device, m));
}

static double gib(size_t n)
{
    return (double)n / (double)(1 << 30);
}

static size_t needs(const ts_plan_device *d)
{
    return sat_add(sat_add(sat_add(d->packed, d->stream), d->kv), d->buffers);
}

static ts_status check_memory(const ts_plan *p, uint64_t memory, ts_error *err)
{
    const ts_plan_device *d = &p->dev[0];
    const uint64_t room = memory ? memory : ts_mem_available();
    if (room == 0 || needs(d) <= room)
        return TS_OK;
    return ts_fail(
        err, TS_NO_MEMORY,
        "the model needs %.2f GiB (packed weights %.2f, KV cache for %lld positions %.2f, "
        "buffers %.2f) and %.2f GiB of memory are %s; a smaller -c needs less",
        gib(needs(d)), gib(d->packed), (long long)p->n_ctx, gib(d->kv), gib(d->buffers), gib(room),
        memory ? "there" : "free");
}

int ts_plan_overfull(const ts_plan *p)
{
    for (int i = 1; i < p->n_devices; i++)
        if (needs(&p->dev[i]) > p->dev[i].memory)
            return i;
    return 0;
}

ts_status ts_plan_refuse(const ts_plan *p, int device, ts_error *err)
{
    const ts_plan_device *d = &p->dev[device];
    char streamed[48] = "";
    if (d->stream)
        snprintf(streamed, sizeof streamed, ", streamed weights %.2f", gib(d->stream));
    return ts_fail(err, TS_NO_MEMORY,
                   "%s would have to hold %.2f GiB (weights %.2f, KV cache of %lld layers %.2f, "
                   "buffers %.2f%s) and has room for %.2f",
                   d->name, gib(needs(d)), gib(d->packed), (long long)ts_plan_kv_layers(p, device),
                   gib(d->kv), gib(d->buffers), streamed, gib(d->memory));
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
        (s = check_option(o->n_logits, 65536, "the number of rows of logits", err)) ||
        (s = check_option(o->n_seqs, 1024, "the number of timelines", err)))
        return s;
    int n_cpus = ts_cpu_get()->n_cpus;
    p->moe = m->hp.moe;
    p->isa = o->isa;
    p->int8_prefill = o->int8_prefill;
    p->step_by_step = o->step_by_step;
    p->n_threads = o->n_threads ? o->n_threads : n_cpus;
    if (p->n_threads > n_cpus)
        p->n_threads = n_cpus;
    int64_t trained = m->hp.n_ctx_train;
    const int64_t share = o->n_seqs > DEFAULT_SHARES ? DEFAULT_SHARES : o->n_seqs ? o->n_seqs : 1;
    p->n_ctx = o->n_ctx ? o->n_ctx : share * (trained < DEFAULT_CTX ? trained : DEFAULT_CTX);
    p->n_ubatch = o->n_ubatch ? o->n_ubatch : DEFAULT_UBATCH;
    if (p->n_ubatch > p->n_ctx)
        p->n_ubatch = p->n_ctx;
    p->n_logits = o->n_logits ? o->n_logits : 1;
    p->n_seqs = o->n_seqs ? o->n_seqs : 1;
    p->paged = o->n_seqs > 0;
    if (p->paged)
        p->n_ctx = (p->n_ctx + TS_PAGE - 1) / TS_PAGE * TS_PAGE;
    p->n_ctx_seq = p->paged && trained < p->n_ctx ? trained : p->n_ctx;
    if (p->n_logits > p->n_ctx)
        p->n_logits = p->n_ctx;
    return TS_OK;
}

/* Layers on accelerators whose latent attention these can't do. */
static void say_latent(const ts_plan *p, const ts_model *m, const ts_log *log)
{
    int64_t n = 0;
    const ts_layer *one = NULL;
    for (int64_t i = 0; i < m->hp.n_layer; i++) {
        const ts_layer *l = &m->layers[i];
        if (!l->k_b || !l->device || ts_attends_latent(p->dev[l->device].kind, m, l))
            continue;
        one = l;
        n++;
    }
    if (one)
        ts_logf(log, TS_LOG_WARN,
                "K, V and attention of %lld layers stay on the CPU: %s has no kernels for latents "
                "of %lld and %lld elements or for their matrices",
                (long long)n, p->dev[one->device].name, (long long)m->hp.head_dim,
                (long long)m->hp.v_dim);
}

/* Weights that aren't where a pattern has them: the first, and how many there are. */
static void say_patterns(const ts_plan *p, const ts_model *m, const ts_log *log)
{
    const ts_weight *one = NULL;
    size_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        if (m->weights[i].asked >= 0 && m->weights[i].asked != m->weights[i].device && n++ == 0)
            one = &m->weights[i];
    if (!one)
        return;
    char more[48] = "";
    if (n > 1)
        snprintf(more, sizeof more, "; so do %zu others", n - 1);
    ts_logf(log, TS_LOG_WARN, "%s stays on %s, though a pattern has it on %s: %s%s",
            ts_weight_name(one), p->dev[one->device].name, p->dev[one->asked].name,
            one == m->token_embd ? "its rows are looked up in the file"
            : one->experts       ? "there are no kernels for such experts there"
                                 : "it goes with its layer's K and V",
            more);
}

/* What was done otherwise than asked, once it is sure that there is a plan. */
static void say_changes(const ts_plan *p, const ts_model *m, const ts_plan_options *o,
                        const ts_log *log)
{
    if (o->n_threads > p->n_threads)
        ts_logf(log, TS_LOG_WARN, "%d threads asked for, %d CPUs to run on: %d threads are used",
                o->n_threads, p->n_threads, p->n_threads);
    if (p->n_ctx_seq > m->hp.n_ctx_train)
        ts_logf(log, TS_LOG_WARN,
                "a context of %lld is more than the %lld the model was trained for",
                (long long)p->n_ctx_seq, (long long)m->hp.n_ctx_train);
    if (o->stream == TS_STREAM_ON && o->split.n_accels && !p->stream.device)
        ts_logf(log, TS_LOG_WARN, "streaming was asked for, but %s",
                o->split.kv_on_cpu ? "it isn't done with K and V kept in main memory"
                                   : "no layer has weights on the CPU that can be streamed");
    say_patterns(p, m, log);
    if (!o->split.kv_on_cpu)
        say_latent(p, m, log);
}

/* Which devices any step runs on, or copies from: a bit each. */
static unsigned devices_used(const ts_steps *s)
{
    unsigned bits = 1; /* the CPU, in any case */
    for (size_t i = 0; i < s->n; i++) {
        bits |= 1u << s->v[i].device;
        if (s->v[i].op == TS_OP_COPY)
            bits |= 1u << s->v[i].from;
    }
    return bits;
}

static ts_plan_device accel_device(const ts_accel *a)
{
    return (ts_plan_device){.name = a->name,
                            .kind = a->kind,
                            .ordinal = a->ordinal,
                            .isa = a->kind->isa,
                            .n_threads = 1,
                            .memory = a->memory,
                            .read = a->read,
                            .link = a->link,
                            .flops = a->flops};
}

ts_status ts_plan_at(ts_plan *p, ts_placing what, ts_model *m, const ts_split *split, ts_error *err)
{
    ts_steps_free(&p->steps);
    p->placing = what;
    p->stream = (ts_stream){.mode = p->stream.mode};
    p->n_gpu_layers = what.layers + (what.layers == m->hp.n_layer && what.output);
    p->n_devices = 1 + split->n_accels;
    p->dev[0] = (ts_plan_device){.name = "CPU", .isa = p->isa, .n_threads = p->n_threads};
    for (int i = 1; i < p->n_devices; i++)
        p->dev[i] = accel_device(&split->accels[i - 1]);
    ts_status s = ts_split_place(split, what, m, err);
    if (s)
        return s;
    place_weights(p, m);
    s = ts_steps_make(&p->steps, m, err);
    if (s)
        return s;
    if (devices_used(&p->steps) == 1 && p->stream.mode != TS_STREAM_ON)
        p->n_devices = 1;
    count_layers(p, m);
    if (p->stream.mode != TS_STREAM_OFF && (s = ts_plan_stream(p, m, split, err))) {
        ts_plan_free(p);
        return s;
    }
    const unsigned used = devices_used(&p->steps);
    if (used == 1)
        p->n_devices = 1;
    for (int i = 0; i < p->n_devices; i++) {
        p->dev[i].used = used >> i & 1;
        if (p->dev[i].used)
            size_session(p, i, m);
    }
    if (p->stream.device)
        p->dev[p->stream.device].stream = stream_bytes(&p->stream);
    return TS_OK;
}

/* What is left takes K and V of all streamed layers, if it can, and more pieces. */
static void use_rest(ts_plan *p, const ts_model *m)
{
    ts_stream *t = &p->stream;
    if (!t->device)
        return;
    ts_plan_device *d = &p->dev[t->device];
    const size_t one = d->kv;
    int64_t cpu = 0; /* streamed layers whose K and V are the CPU's */
    for (int64_t i = 0; i < m->hp.n_layer; i++)
        cpu += m->layers[i].stream_index >= 0;
    t->all_kv = cpu == 0; /* then it has them anyway */
    if (cpu > 0) {
        d->n_streamed = cpu;
        d->kv = d->kind->kv_bytes(p, t->device, m);
        t->all_kv = needs(d) <= d->memory;
        if (!t->all_kv) {
            d->n_streamed = 1;
            d->kv = one;
        }
    }
    const size_t more = (d->memory - needs(d)) / t->piece;
    /* of experts no more than a layer's come before it is known which are wanted */
    const size_t layers = t->shares ? 1 : (size_t)t->n_layers;
    const size_t most = (layers * t->bytes + t->piece - 1) / t->piece + 1;
    if ((size_t)t->pieces < most)
        t->pieces = more < most - (size_t)t->pieces ? t->pieces + (int64_t)more : (int64_t)most;
    d->stream = stream_bytes(t);
}

ts_status ts_plan_make(ts_plan *out, ts_model *m, const ts_plan_options *opt, const ts_log *log,
                       ts_error *err)
{
    ts_plan p = {0};
    ts_status s = take_options(&p, m, opt, err);
    if (s)
        return s;
    ts_rope_for(&m->rope, p.n_ctx_seq);
    ts_rope_for(&m->rope_swa, p.n_ctx_seq);
    p.stream.mode = opt->stream;
    s = ts_plan_fit(&p, m, &opt->split, err);
    if (s) {
        ts_plan_free(&p);
        return s;
    }
    use_rest(&p, m);
    s = check_memory(&p, opt->memory, err);
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

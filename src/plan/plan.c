/* plan.c - placement and sizes. */
#include "plan/plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "cpu/ops.h"
#include "cpu/route.h"
#include "plan/speed.h"

#define DEFAULT_CTX    4096
#define DEFAULT_SHARES 4 /* timelines that there is so much for */
#define DEFAULT_UBATCH 512
#define ALIGN          64  /* of everything in the CPU's arena and among the buffers */
#define ACCEL_ALIGN    256 /* of weights on accelerators                             */

/* Of a CPU whose bandwidth isn't known yet while a plan is made: much, so that what is moved away
 * from it for it is worth it on any. */
#define TYPICAL_READ 300e9

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

/* The first accelerator that doesn't hold what it should; 0: all do. */
static int overfull(const ts_plan *p)
{
    for (int i = 1; i < p->n_devices; i++)
        if (needs(&p->dev[i]) > p->dev[i].memory)
            return i;
    return 0;
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
        ts_logf(
            log, TS_LOG_WARN,
            "streaming was asked for, but no layer has weights on the CPU that can be streamed");
    if (!o->split.kv_on_cpu)
        say_latent(p, m, log);
}

/* Does any step run elsewhere than on the CPU? */
static bool any_accel(const ts_steps *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].device)
            return true;
    return false;
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

/* The plan with this on accelerators; `p` has the options. */
static ts_status split_at(ts_plan *p, ts_placing what, ts_model *m, const ts_split *split,
                          ts_error *err)
{
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
    if (!any_accel(&p->steps) && p->stream.mode != TS_STREAM_ON)
        p->n_devices = 1;
    count_layers(p, m);
    if (p->stream.mode != TS_STREAM_OFF && (s = ts_plan_stream(p, m, split, err))) {
        ts_plan_free(p);
        return s;
    }
    if (!any_accel(&p->steps))
        p->n_devices = 1;
    for (int i = 0; i < p->n_devices; i++)
        size_session(p, i, m);
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

static ts_status refuse(const ts_plan *p, int device, ts_error *err)
{
    const ts_plan_device *d = &p->dev[device];
    return ts_fail(err, TS_NO_MEMORY,
                   "%s would have to hold %.2f GiB (weights %.2f, KV cache of %lld layers %.2f, "
                   "buffers %.2f) and has room for %.2f",
                   d->name, gib(needs(d)), gib(d->packed), (long long)d->n_layers, gib(d->kv),
                   gib(d->buffers), gib(d->memory));
}

/* split_at, and whether all have room for it: *full is 0, or who has not. */
static ts_status try_split(ts_plan *p, ts_placing what, ts_model *m, const ts_split *split,
                           int *full, ts_error *err)
{
    ts_steps_free(&p->steps);
    ts_status s = split_at(p, what, m, split, err);
    *full = s ? 0 : overfull(p);
    return s;
}

/* Beside so many layers, what is worth having of the output matrix and a part of one more block.
 * *best is what a step takes with what is found so far. */
static ts_status fill_rest(ts_plan *p, ts_placing *found, ts_model *m, const ts_split *split,
                           ts_error *err)
{
    const double read = split->cpu_read > 0 ? split->cpu_read : TYPICAL_READ;
    double best = ts_speed_decode(p, read);
    const ts_placing base = *found;
    for (int output = 0; output < 2; output++)
        for (int ffn = TS_FFN_NONE; ffn <= TS_FFN_ALL; ffn++) {
            const ts_placing c = {base.layers, output, (ts_ffn)ffn, base.cpu_experts};
            if (ts_placing_compare(c, base) <= 0 || (ffn && c.layers == m->hp.n_layer) ||
                (split->below && ts_placing_compare(c, *split->below) >= 0))
                continue;
            int full;
            ts_status s = try_split(p, c, m, split, &full, err);
            if (s)
                return s;
            const double seconds = ts_speed_decode(p, read);
            if (full || seconds >= best)
                continue;
            best = seconds;
            *found = c;
        }
    return TS_OK;
}

static bool may_be(ts_placing c, const ts_split *split)
{
    return !split->below || ts_placing_compare(c, *split->below) < 0;
}

/* All blocks, and the experts of as many as fit: a byte of attention or of what all tokens share is
 * read for every token, one of an expert for n_used of n_expert. *full: it doesn't fit even without
 * any expert. */
static ts_status split_experts(ts_plan *p, bool output, ts_model *m, const ts_split *split,
                               int *full, ts_error *err)
{
    ts_placing c = {.layers = m->hp.n_layer, .output = output};
    int64_t low = 0, high = m->hp.n_layer; /* low - 1 doesn't fit or may not be; high: who knows */
    *full = 1;
    c.cpu_experts = high;
    if (!may_be(c, split))
        return TS_OK;
    ts_status s = try_split(p, c, m, split, full, err);
    if (s || *full)
        return s;
    while (low < high) {
        int over = 0;
        c.cpu_experts = (low + high) / 2;
        const bool may = may_be(c, split);
        if (may && (s = try_split(p, c, m, split, &over, err)))
            return s;
        if (may && !over)
            high = c.cpu_experts;
        else
            low = c.cpu_experts + 1;
    }
    c.cpu_experts = high;
    return try_split(p, c, m, split, full, err);
}

/* All, or as many layers as fit and then what else: layers gain in prefill too, the output matrix
 * and one block's feed-forward weights in decode only (docs/ARCHITECTURE.md). */
static ts_status split_automatically(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err)
{
    const bool experts = m->hp.moe.n_expert && !split->n_cpu_moe;
    const ts_placing all = {.layers = m->hp.n_layer, .output = true}, none = {0};
    for (ts_placing c = all;; c = (ts_placing){.layers = c.layers - !c.output}) {
        int full = 0;
        if (experts && c.layers == all.layers) {
            ts_status s = split_experts(p, c.output, m, split, &full, err);
            if (s || !full)
                return s;
            continue;
        }
        c.cpu_experts = experts && c.layers ? m->hp.n_layer : 0;
        if (split->below && ts_placing_compare(c, *split->below) >= 0 &&
            ts_placing_compare(c, none) > 0)
            continue;
        ts_status s = try_split(p, c, m, split, &full, err);
        if (s || (!full && c.output))
            return s;
        if (full && c.layers > 0)
            continue;
        if (full)
            return refuse(p, full, err);
        ts_placing found = c;
        s = fill_rest(p, &found, m, split, err);
        return s ? s : try_split(p, found, m, split, &full, err);
    }
}

/* As many layers on accelerators as asked for, or as fit. */
static ts_status split_model(ts_plan *p, ts_model *m, const ts_split *split, ts_stream_mode stream,
                             ts_error *err)
{
    const int64_t n = m->hp.n_layer, want = split->n_gpu_layers;
    ts_placing what = {.layers = want < n ? want : n, .output = want > n};
    int full = 0;
    ts_status s;
    p->stream.mode = stream;
    if (split->n_accels && want == TS_GPU_LAYERS_AUTO) {
        s = split_automatically(p, m, split, err);
    } else {
        what = split->n_accels ? what : (ts_placing){0};
        s = try_split(p, what, m, split, &full, err);
        if (!s && full && p->stream.device && stream == TS_STREAM_AUTO) { /* it fits without? */
            p->stream.mode = TS_STREAM_OFF;
            s = try_split(p, what, m, split, &full, err);
        }
        if (!s && full)
            s = refuse(p, full, err);
    }
    if (!s)
        use_rest(p, m);
    if (s)
        ts_plan_free(p);
    return s;
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
    s = split_model(&p, m, &opt->split, opt->stream, err);
    if (s)
        return s;
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

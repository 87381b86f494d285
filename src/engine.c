/* engine.c - from a path to a loaded model. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "exec/stream.h"

#define STR2(x) #x
#define STR(x)  STR2(x)

const char *ts_version(void)
{
    return STR(TS_VERSION_MAJOR) "." STR(TS_VERSION_MINOR) "." STR(TS_VERSION_PATCH);
}

void ts_engine_options_init(ts_engine_options *opt)
{
    *opt = (ts_engine_options){
        .size = sizeof *opt, .n_gpu_layers = TS_GPU_LAYERS_DEFAULT, .main_gpu = -1};
}

static void free_overrides(ts_engine *e)
{
    for (size_t i = 0; i < e->n_overrides; i++)
        free((char *)(uintptr_t)e->overrides[i].pattern);
    free(e->overrides);
}

/* How many threads are on average kept from running when it is worth a word: with 64 of them half a
 * thread makes decode half as fast (docs/BENCHMARKS.md). */
#define AWAY 0.25

static void say_away(const ts_engine *e)
{
    const double away = ts_cpu_away(e->opened, ts_cpu_now(), e->plan.n_threads);
    if (away >= AWAY)
        ts_logf(&e->log, TS_LOG_WARN,
                "the host of this virtual machine kept %.1f of %d threads from running on average, "
                "and the others wait for them: fewer threads may be much faster",
                away, e->plan.n_threads);
}

void ts_engine_close(ts_engine *e)
{
    if (!e)
        return;
    if (e->devices.n)
        say_away(e);
    if (e->has_spare)
        ts_run_close(&e->spare);
    ts_devices_close(&e->devices);
    ts_gpus_close(&e->gpus);
    free_overrides(e);
    ts_plan_free(&e->plan);
    ts_model_close(e->m);
    ts_vocab_close(atomic_load(&e->vocab));
    ts_tokenizer_close(e->tok);
    ts_gguf_close(e->g);
    free(e);
}

/* --- loading ------------------------------------------------------------------ */

/* Who holds how many layers, a line for each accelerator. */
static void say_split(const ts_engine *e)
{
    for (int i = 1; i < e->plan.n_devices; i++) {
        const ts_plan_device *d = &e->plan.dev[i];
        if (d->used)
            ts_logf(&e->log, TS_LOG_INFO, "%s%s%s: %lld of %lld layers, %.2f GiB of weights",
                    d->name, e->gpus.n ? ", " : "", e->gpus.n ? e->gpus.info[i - 1].name : "",
                    (long long)d->n_blocks, (long long)e->m->hp.n_layer,
                    (double)d->packed / (double)(1 << 30));
    }
}

/* Loads what is planned, and opens the first session's state: then it is sure that there is memory
 * for one. */
static ts_status load_planned(ts_engine *e, const ts_engine_options *o,
                              const ts_backend *const be[], ts_error *err)
{
    const ts_load_options lo = {.log = &e->log,
                                .pack_cache = o->pack_cache,
                                .progress = o->progress,
                                .progress_user = o->progress_user};
    ts_status s = ts_devices_open(&e->devices, be, &e->plan, e->m, &lo, err);
    if (s)
        return s;
    s = ts_run_open(&e->spare, &e->devices, e->check_finite, err);
    if (!s && (s = ts_stream_measure(&e->devices, &e->spare, &e->log, err)))
        ts_run_close(&e->spare);
    if (s)
        ts_devices_close(&e->devices);
    e->has_spare = !s;
    return s;
}

/* That a plan was made again, with the sentence of the allocation that failed first. */
static void say_smaller(const ts_engine *e, const ts_error *why, ts_placing planned)
{
    const long long now = (long long)e->plan.placing.layers, then = (long long)planned.layers;
    if (now < then)
        ts_logf(&e->log, TS_LOG_WARN, "%s; %lld of %lld layers are on GPUs instead of %lld",
                why->msg, now, (long long)e->m->hp.n_layer, then);
    else
        ts_logf(&e->log, TS_LOG_WARN,
                "%s; %lld of %lld layers are on GPUs, without all that was to go there with them",
                why->msg, now, (long long)e->m->hp.n_layer);
}

/* Plans and loads. An accelerator may lose memory between the two: then less goes there, of what is
 * free now, and so on. */
static ts_status load_model(ts_engine *e, const ts_engine_options *o, ts_plan_options *po,
                            const ts_backend *const be[], ts_error *err)
{
    ts_placing planned = {0}, failed = {0};
    ts_error first = {0};
    for (;;) {
        ts_status s = ts_plan_make(&e->plan, e->m, po, &e->log, err);
        if (s || o->plan_only)
            return s;
        s = load_planned(e, o, be, err);
        if (!s && first.code)
            say_smaller(e, &first, planned);
        if (!s)
            say_split(e);
        if (s != TS_NO_MEMORY || ts_placing_compare(e->plan.placing, (ts_placing){0}) == 0)
            return s;
        failed = e->plan.placing;
        if (!first.code) {
            first = *err;
            planned = failed;
        }
        po->split.n_gpu_layers = TS_GPU_LAYERS_AUTO;
        po->split.below = &failed;
        ts_gpus_refresh(&e->gpus);
        ts_plan_free(&e->plan);
        e->plan = (ts_plan){0};
        *err = (ts_error){0};
    }
}

/* Everything after the vocabulary. split: for tests, instead of what the options say. */
static ts_status open_model(ts_engine *e, const ts_engine_options *o, const ts_engine_split *split,
                            ts_error *err)
{
    const ts_backend *be[TS_MAX_DEVICES] = {&ts_backend_cpu};
    ts_plan_options po = {.n_threads = o->n_threads,
                          .int8_prefill = o->int8_prefill,
                          .n_ctx = o->n_ctx,
                          .n_ubatch = o->n_ubatch,
                          .n_logits = o->n_logits,
                          .n_seqs = o->n_seqs,
                          .stream = o->stream,
                          .step_by_step = o->check_finite,
                          .memory = o->planned_memory};
    ts_engine_split found = {0};
    ts_status s;
    if ((s = ts_isa_resolve(o->isa, o->no_amx, &e->log, &po.isa, err)) ||
        (s = ts_model_open(&e->m, e->g, ts_tokenizer_n(e->tok), &e->log, err)))
        return s;
    if (!split) {
        if ((s = ts_engine_take_gpus(e, o, po.isa, &found, err)))
            return s;
        split = &found;
    }
    po.split = split->split;
    for (int i = 0; i < split->split.n_accels; i++)
        be[1 + i] = split->backends[i];
    ts_error own = {0}; /* a caller may want no sentence; the log does */
    return load_model(e, o, &po, be, err ? err : &own);
}

ts_status ts_engine_open(ts_engine **out, const char *path, const ts_engine_options *opt,
                         ts_error *err)
{
    return ts_engine_open_split(out, path, opt, NULL, err);
}

ts_status ts_engine_open_split(ts_engine **out, const char *path, const ts_engine_options *opt,
                               const ts_engine_split *split, ts_error *err)
{
    /* A caller built against an older header passes a shorter structure: what it doesn't know
     * keeps its default. */
    ts_engine_options o;
    ts_engine_options_init(&o);
    if (opt)
        memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    if (!path || !*path)
        return ts_fail(err, TS_BAD_ARG, "no model file was named");
    double t0 = ts_now();
    ts_engine *e = calloc(1, sizeof *e);
    if (!e)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the engine");
    e->log = (ts_log){o.log, o.log_user};
    e->opened = ts_cpu_now();
    e->check_finite = o.check_finite;
    ts_status s;
    if ((s = ts_gguf_open(&e->g, path, err)) || (s = ts_tokenizer_open(&e->tok, e->g, err)) ||
        (!o.vocab_only && (s = open_model(e, &o, split, err)))) {
        ts_engine_close(e);
        return s;
    }
    e->load_seconds = ts_now() - t0;
    *out = e;
    return TS_OK;
}

/* "CUDA0 NVIDIA L4, CUDA1 NVIDIA L4", cut where there is no room for more. */
static void name_gpus(const ts_engine *e, char *out, size_t n)
{
    size_t at = 0;
    for (int i = 1; i < e->plan.n_devices && at < n; i++)
        if (e->plan.dev[i].used)
            at +=
                (size_t)snprintf(out + at, n - at, "%s%s%s%s", at ? ", " : "", e->plan.dev[i].name,
                                 e->gpus.n ? " " : "", e->gpus.n ? e->gpus.info[i - 1].name : "");
}

void ts_engine_get_info(const ts_engine *e, ts_engine_info *info)
{
    *info = (ts_engine_info){
        .arch = "", .isa = "", .n_vocab = ts_tokenizer_n(e->tok), .load_seconds = e->load_seconds};
    if (!e->m)
        return;
    ts_model_describe(e->m, info->desc, sizeof info->desc);
    info->arch = e->m->arch->name;
    info->isa = ts_isa_name(e->plan.isa);
    info->n_params = e->m->n_params;
    info->model_bytes = e->m->tensor_bytes;
    info->n_layer = e->m->hp.n_layer;
    info->n_embd = e->m->hp.n_embd;
    info->n_ctx_train = e->m->hp.n_ctx_train;
    info->n_ctx = e->plan.n_ctx;
    info->n_ctx_seq = e->plan.n_ctx_seq;
    info->n_ubatch = e->plan.n_ubatch;
    info->n_threads = e->plan.n_threads;
    info->int8_prefill = e->plan.int8_prefill;
    info->n_gpu_layers = e->plan.n_gpu_layers;
    name_gpus(e, info->gpus, sizeof info->gpus);
}

ts_status ts_engine_plan(const ts_engine *e, bool json, char **out, ts_error *err)
{
    if (!e->m)
        return ts_fail(err, TS_BAD_ARG,
                       "the engine was opened for its vocabulary only: it has no plan");
    ts_probe rates;
    ts_status st = ts_probe_run(e->plan.n_threads, e->plan.isa, &rates, err);
    if (st)
        return st;
    ts_plan p = e->plan; /* with what is measured now */
    for (int i = 1; i < p.n_devices && i <= e->gpus.n; i++)
        if (p.dev[i].used && !(p.dev[i].link > 0))
            p.dev[i].link = ts_gpus_link(&e->gpus, i - 1);
    ts_sb sb = {0};
    (json ? ts_plan_json : ts_plan_text)(&p, e->m, &rates, &sb);
    if (sb.failed) {
        ts_sb_free(&sb);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the text of the plan");
    }
    *out = sb.s;
    return TS_OK;
}

void ts_free(void *p)
{
    free(p);
}

ts_status ts_tokenize(const ts_engine *e, const char *text, size_t n, unsigned flags,
                      ts_token **out, size_t *n_out, ts_error *err)
{
    return ts_tokenizer_encode(e->tok, text, n, flags, out, n_out, err);
}

size_t ts_token_piece(const ts_engine *e, ts_token id, bool special, const char **piece)
{
    return ts_tokenizer_piece(e->tok, id, special, piece);
}

ts_status ts_detokenize(const ts_engine *e, const ts_token *ids, size_t n, bool special, char **out,
                        size_t *n_out, ts_error *err)
{
    return ts_tokenizer_decode(e->tok, ids, n, special, out, n_out, err);
}

bool ts_token_is_eog(const ts_engine *e, ts_token id)
{
    return ts_tokenizer_is_eog(e->tok, id);
}

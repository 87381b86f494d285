/* engine.c - from a path to a loaded model. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"

#define STR2(x) #x
#define STR(x)  STR2(x)

const char *ts_version(void)
{
    return STR(TS_VERSION_MAJOR) "." STR(TS_VERSION_MINOR) "." STR(TS_VERSION_PATCH);
}

void ts_engine_options_init(ts_engine_options *opt)
{
    *opt = (ts_engine_options){.size = sizeof *opt};
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void ts_engine_close(ts_engine *e)
{
    if (!e)
        return;
    ts_devices_close(&e->devices);
    ts_plan_free(&e->plan);
    ts_model_close(e->m);
    ts_tokenizer_close(e->tok);
    ts_gguf_close(e->g);
    free(e);
}

/* Everything after the vocabulary. */
static ts_status open_model(ts_engine *e, const ts_engine_options *o, const ts_engine_split *split,
                            ts_error *err)
{
    const ts_backend *be[TS_MAX_DEVICES] = {&ts_backend_cpu};
    ts_plan_options po = {.n_threads = o->n_threads,
                          .int8_prefill = o->int8_prefill,
                          .n_ctx = o->n_ctx,
                          .n_ubatch = o->n_ubatch,
                          .n_logits = o->n_logits,
                          .split = split->split};
    for (int i = 0; i < split->split.n_accels; i++)
        be[1 + i] = split->backends[i];
    ts_status s;
    if ((s = ts_isa_resolve(o->isa, o->no_amx, &e->log, &po.isa, err)) ||
        (s = ts_model_open(&e->m, e->g, ts_tokenizer_n(e->tok), &e->log, err)) ||
        (s = ts_plan_make(&e->plan, e->m, &po, &e->log, err)))
        return s;
    if (o->plan_only)
        return TS_OK;
    ts_load_options lo = {.log = &e->log,
                          .pack_cache = o->pack_cache,
                          .progress = o->progress,
                          .progress_user = o->progress_user};
    return ts_devices_open(&e->devices, be, &e->plan, e->m, &lo, err);
}

ts_status ts_engine_open(ts_engine **out, const char *path, const ts_engine_options *opt,
                         ts_error *err)
{
    return ts_engine_open_split(out, path, opt, &(ts_engine_split){0}, err);
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
    double t0 = now();
    ts_engine *e = calloc(1, sizeof *e);
    if (!e)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the engine");
    e->log = (ts_log){o.log, o.log_user};
    ts_status s;
    if ((s = ts_gguf_open(&e->g, path, err)) || (s = ts_tokenizer_open(&e->tok, e->g, err)) ||
        (!o.vocab_only && (s = open_model(e, &o, split, err)))) {
        ts_engine_close(e);
        return s;
    }
    e->load_seconds = now() - t0;
    *out = e;
    return TS_OK;
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
    info->n_ubatch = e->plan.n_ubatch;
    info->n_threads = e->plan.n_threads;
    info->int8_prefill = e->plan.int8_prefill;
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
    ts_sb sb = {0};
    if (json)
        ts_plan_json(&e->plan, e->m, &rates, &sb);
    else
        ts_plan_text(&e->plan, e->m, &rates, &sb);
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

/* model.c - the options every command that opens a model has, and opening it. */
#include "model.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "interrupt.h"

static bool show(void *user, double done)
{
    model_opts *m = user;

    cli_progress_show(&m->bar, done);
    return !interrupt_caught();
}

/* --amx is --isa amx in other words, --no-amx is AUTO without it. */
static ts_status choose_isa(const model_opts *m, ts_engine_options *o, ts_error *err)
{
    if (m->isa && !ts_isa_parse(m->isa, &o->isa))
        return ts_fail(err, TS_BAD_ARG, "'%s' is no kernel set", m->isa);
    if (m->amx && m->no_amx)
        return ts_fail(err, TS_BAD_ARG, "--amx and --no-amx exclude each other");
    if (m->no_amx && o->isa == TS_ISA_AMX)
        return ts_fail(err, TS_BAD_ARG, "--no-amx and --isa amx exclude each other");
    if (m->amx && o->isa != TS_ISA_AUTO && o->isa != TS_ISA_AMX)
        return ts_fail(err, TS_BAD_ARG, "--amx and --isa %s exclude each other", m->isa);
    if (m->amx)
        o->isa = TS_ISA_AMX;
    o->no_amx = m->no_amx;
    return TS_OK;
}

/* "6G", "800M", "1.5G", or bytes. */
static ts_status parse_size(const char *option, const char *text, size_t *out, ts_error *err)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit)
        for (const char *u = units; u <= unit; u++)
            v *= 1024;
    if (end == text || (unit ? end[1] != 0 : *end != 0) || !(v >= 1) || v > 1e18)
        return ts_fail(err, TS_BAD_ARG, "%s wants a size like 6G or 800M, not '%s'", option, text);
    *out = (size_t)v;
    return TS_OK;
}

ts_status model_gpu_layers(const char *text, int64_t *out, ts_error *err)
{
    char *end;
    if (strcmp(text, "auto") == 0) {
        *out = TS_GPU_LAYERS_AUTO;
        return TS_OK;
    }
    if (strcmp(text, "all") == 0) {
        *out = INT32_MAX;
        return TS_OK;
    }
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < 0 || v > INT32_MAX)
        return ts_fail(err, TS_BAD_ARG, "-ngl wants a number of layers, 'auto' or 'all', not '%s'",
                       text);
    *out = v;
    return TS_OK;
}

static ts_status choose_gpus(const model_opts *m, ts_engine_options *o, ts_error *err)
{
    if (m->gpu_layers) {
        ts_status st = model_gpu_layers(m->gpu_layers, &o->n_gpu_layers, err);
        if (st)
            return st;
    }
    if (m->cpu_moe && m->n_cpu_moe >= 0)
        return ts_fail(err, TS_BAD_ARG, "--cpu-moe and --n-cpu-moe exclude each other");
    o->n_cpu_moe = m->cpu_moe ? INT64_MAX : m->n_cpu_moe < 0 ? 0 : m->n_cpu_moe;
    o->override_tensors = (const char *const *)m->overrides.v;
    o->n_override_tensors = m->overrides.n;
    if (m->stream)
        o->stream = strcmp(m->stream, "on") == 0    ? TS_STREAM_ON
                    : strcmp(m->stream, "off") == 0 ? TS_STREAM_OFF
                                                    : TS_STREAM_AUTO;
    o->planned_gpus = (const char *const *)m->planned.v;
    o->n_planned_gpus = m->planned.n;
    o->devices = m->devices;
    o->split_mode =
        m->split_mode && strcmp(m->split_mode, "none") == 0 ? TS_SPLIT_NONE : TS_SPLIT_LAYER;
    o->main_gpu = (int)m->main_gpu;
    o->no_kv_offload = m->no_kv_offload;
    ts_status st = m->memory ? parse_size("--memory", m->memory, &o->planned_memory, err) : TS_OK;
    return st || !m->vram ? st : parse_size("--vram-limit", m->vram, &o->vram_limit, err);
}

/* The numbers of -ts. */
static ts_status read_shares(const model_opts *m, float out[OPT_LIST_MAX], ts_error *err)
{
    for (size_t i = 0; i < m->shares.n; i++) {
        const char *s = m->shares.v[i];
        char *end;
        out[i] = strtof(s, &end);
        if (end == s || *end || strspn(s, "0123456789.eE+-") != strlen(s))
            return ts_fail(err, TS_BAD_ARG, "-ts wants numbers, as in 3,1, not '%s'", s);
    }
    return TS_OK;
}

void model_opts_free(model_opts *m)
{
    opt_strs_free(&m->overrides);
    opt_strs_free(&m->shares);
    opt_strs_free(&m->planned);
}

int model_list_devices(model_opts *m)
{
    enum { MOST = 16 };
    ts_gpu gpus[MOST];
    size_t n = 0;
    ts_error err = {0};

    model_opts_free(m);
    const ts_status st = ts_list_gpus(gpus, MOST, &n, &err);
    printf("CPU: %s\n", ts_cpu_get()->brand);
    for (size_t i = 0; i < n && i < MOST; i++) {
        char total[32], left[32];
        printf("%s: %s, %s, %s free\n", gpus[i].name, gpus[i].desc,
               cli_size(total, gpus[i].total_bytes), cli_size(left, gpus[i].free_bytes));
    }
    if (st)
        fprintf(stderr, "%s\n", err.msg);
    return CLI_OK;
}

ts_status model_open(ts_engine **out, model_opts *m, int64_t n_logits, bool plan_only,
                     ts_error *err)
{
    ts_engine_options o;

    ts_engine_options_init(&o);
    o.n_threads = (int)m->threads;
    o.n_ctx = m->ctx;
    o.n_ubatch = m->ubatch;
    o.n_logits = n_logits;
    o.n_seqs = (int32_t)m->seqs;
    o.plan_only = plan_only;
    o.int8_prefill = m->prefill && strcmp(m->prefill, "int8") == 0;
    ts_status st = choose_isa(m, &o, err);
    float shares[OPT_LIST_MAX];
    if (st || (st = choose_gpus(m, &o, err)) || (st = read_shares(m, shares, err)))
        return st;
    o.tensor_split = shares;
    o.n_tensor_split = m->shares.n;
    o.pack_cache = m->pack_cache;
    o.check_finite = m->check_finite;
    m->level = m->verbose ? TS_LOG_DEBUG : TS_LOG_WARN;
    o.log = cli_log;
    o.log_user = &m->level;
    m->bar = (cli_progress){.label = "loading"};
    o.progress = show;
    o.progress_user = m;
    st = ts_engine_open(out, m->path, &o, err);
    cli_progress_end(&m->bar);
    return st;
}

ts_status model_bos(const ts_engine *e, ts_token *bos, ts_error *err)
{
    ts_token *plain, *special;
    size_t n_plain, n_special;

    /* A letter with and without special tokens: what differs in front is BOS (an EOS would differ
     * behind). */
    ts_status st = ts_tokenize(e, "a", 1, 0, &plain, &n_plain, err);
    if (st)
        return st;
    st = ts_tokenize(e, "a", 1, TS_TOK_ADD_SPECIAL, &special, &n_special, err);
    if (!st) {
        *bos = n_special > n_plain && n_plain && special[0] != plain[0] ? special[0] : -1;
        ts_free(special);
    }
    ts_free(plain);
    return st;
}

ts_status model_session(ts_session **out, ts_engine *e, ts_error *err)
{
    ts_status st = ts_session_open(out, e, err);

    if (!st)
        interrupt_session(*out);
    return st;
}

void model_session_close(ts_session *s)
{
    interrupt_session(NULL);
    ts_session_close(s);
}

int model_failed(const ts_error *err)
{
    if (err->code == TS_CANCELLED && interrupt_caught())
        return interrupt_status();
    return cli_fail(err);
}

/* engine_gpus.c - what the options say of GPUs: which there are, which may be used, and how a model
 * is to be split. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "engine.h"

/* --- which -------------------------------------------------------------------- */

/* "there are CUDA0, CUDA1", and what keeps others from being there; or that there is none and why.
 */
static void list_gpus(const ts_gpus *g, const char *why, char *out, size_t n)
{
    size_t at = 0;
    if (!g->n)
        snprintf(out, n, "no GPU can be used: %s", why);
    for (int i = 0; i < g->n && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "there are ", g->name[i]);
    if (g->n && *g->left_out && at < n)
        snprintf(out + at, n - at, "; %s", g->left_out);
}

/* "CUDA1,CUDA0": these alone, in this order. */
static ts_status choose_devices(ts_gpus *g, const char *names, const char *why, ts_error *err)
{
    int order[TS_MAX_GPUS], n = 0;
    char list[512];
    list_gpus(g, why, list, sizeof list);
    for (const char *p = names;; p++) {
        const int len = (int)strcspn(p, ",");
        int found = -1;
        for (int i = 0; i < g->n; i++)
            if (strncasecmp(g->name[i], p, (size_t)len) == 0 && !g->name[i][len])
                found = i;
        if (found < 0)
            return ts_fail(err, TS_BAD_ARG, "there is no device '%.*s' to be used; %s", len, p,
                           list);
        for (int i = 0; i < n; i++)
            if (order[i] == found)
                return ts_fail(err, TS_BAD_ARG, "the device %s is named twice in '%s'",
                               g->name[found], names);
        order[n++] = found;
        p += len;
        if (!*p)
            break;
    }
    ts_gpus_keep(g, order, n);
    return TS_OK;
}

static bool says_none(const char *devices)
{
    return devices && strcasecmp(devices, "none") == 0;
}

/* Does a pattern put weights anywhere else than on the CPU? */
static bool names_gpu(const ts_engine_options *o)
{
    for (size_t i = 0; i < o->n_override_tensors; i++) {
        const char *sep = strrchr(o->override_tensors[i], '=');
        if (sep && strcasecmp(sep + 1, "CPU") != 0)
            return true;
    }
    return false;
}

/* Has anybody asked for them? Else nothing is said where there is none. */
static bool asked(const ts_engine_options *o)
{
    return (o->n_gpu_layers != TS_GPU_LAYERS_DEFAULT && o->n_gpu_layers != 0) ||
           o->stream == TS_STREAM_ON || names_gpu(o) ||
           (o->devices && *o->devices && !says_none(o->devices));
}

static ts_status find_gpus(ts_engine *e, const ts_engine_options *o, ts_error *err)
{
    char why[256] = "the options say that no device is to be used";
    ts_status s = TS_OK;
    if (o->n_planned_gpus)
        s = ts_gpus_plan(&e->gpus, o->planned_gpus, o->n_planned_gpus, o->vram_limit, err);
    else if (!says_none(o->devices))
        ts_gpus_open(&e->gpus, o->vram_limit, why, sizeof why);
    if (!s && says_none(o->devices))
        ts_gpus_keep(&e->gpus, NULL, 0);
    else if (!s && o->devices && *o->devices)
        s = choose_devices(&e->gpus, o->devices, why, err);
    if (!s && !e->gpus.n)
        ts_logf(&e->log, asked(o) ? TS_LOG_WARN : TS_LOG_DEBUG, "no GPU is used: %s", why);
    else if (!s && *e->gpus.left_out && !(o->devices && *o->devices) && o->n_gpu_layers != 0)
        ts_logf(&e->log, TS_LOG_WARN, "not every GPU can be used: %s", e->gpus.left_out);
    return s;
}

/* --- how ---------------------------------------------------------------------- */

/* Shares of the layers, in the order of the devices; who is given none gets none. */
static ts_status take_shares(ts_gpus *g, const ts_engine_options *o, ts_error *err)
{
    double sum = 0;
    if (!o->n_tensor_split || !g->n)
        return TS_OK;
    if (o->n_tensor_split > (size_t)g->n)
        return ts_fail(err, TS_BAD_ARG, "shares are given for %zu GPUs; %d are to be used",
                       o->n_tensor_split, g->n);
    for (size_t i = 0; i < o->n_tensor_split; i++) {
        const double v = o->tensor_split[i];
        if (!isfinite(v) || v < 0)
            return ts_fail(err, TS_BAD_ARG, "the share of %s is %g; it must be 0 or more",
                           g->name[i], v);
        g->accel[i].share = v;
        sum += v;
    }
    if (!(sum > 0))
        return ts_fail(err, TS_BAD_ARG, "all shares of the GPUs are 0");
    return TS_OK;
}

/* The main GPU: the only one, or who gets the output matrix. */
static ts_status take_main(ts_gpus *g, const ts_engine_options *o, int *main, ts_error *err)
{
    *main = 0;
    if (!g->n)
        return TS_OK;
    if (o->main_gpu >= g->n)
        return ts_fail(err, TS_BAD_ARG, "the main GPU is number %d; %d are to be used, from 0 on",
                       o->main_gpu, g->n);
    if (o->split_mode == TS_SPLIT_NONE) {
        if (o->n_tensor_split)
            return ts_fail(err, TS_BAD_ARG,
                           "one GPU alone and shares of several exclude each "
                           "other");
        const int only = o->main_gpu < 0 ? 0 : o->main_gpu;
        ts_gpus_keep(g, &only, 1);
    } else if (o->main_gpu >= 0) {
        *main = 1 + o->main_gpu;
    }
    return TS_OK;
}

/* The number of a device by its name; -1. */
static int device_of(const ts_split *s, const char *name)
{
    for (int i = 0; i <= s->n_accels; i++)
        if (strcasecmp(i ? s->accels[i - 1].name : "CPU", name) == 0)
            return i;
    return -1;
}

/* From "PATTERN=DEVICE", which is cut in two. */
static ts_status parse_override(ts_override *out, char *text, const ts_split *s, ts_error *err)
{
    char *sep = strrchr(text, '=');
    if (!sep || sep == text || !sep[1])
        return ts_fail(err, TS_BAD_ARG, "'%s' is not of the form PATTERN=DEVICE", text);
    const int device = device_of(s, sep + 1);
    if (device < 0)
        return ts_fail(err, TS_BAD_ARG, "'%s': there is no device '%s' to be used", text, sep + 1);
    *sep = '\0';
    *out = (ts_override){text, device};
    return TS_OK;
}

static ts_status take_overrides(ts_engine *e, const ts_engine_options *o, ts_split *s,
                                ts_error *err)
{
    if (!o->n_override_tensors)
        return TS_OK;
    e->overrides = ts_calloc(o->n_override_tensors, sizeof *e->overrides);
    if (!e->overrides)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu patterns", o->n_override_tensors);
    for (size_t i = 0; i < o->n_override_tensors; i++) {
        char *copy = strdup(o->override_tensors[i]);
        if (!copy)
            return ts_fail(err, TS_NO_MEMORY, "no memory for %zu patterns", o->n_override_tensors);
        e->overrides[e->n_overrides++].pattern = copy;
        ts_status st = parse_override(&e->overrides[i], copy, s, err);
        if (st)
            return st;
    }
    s->overrides = e->overrides;
    s->n_overrides = e->n_overrides;
    return TS_OK;
}

static ts_status check_options(const ts_engine_options *o, ts_error *err)
{
    if (o->n_gpu_layers < TS_GPU_LAYERS_DEFAULT)
        return ts_fail(err, TS_BAD_ARG, "%lld layers on GPUs; it must be 0 or more",
                       (long long)o->n_gpu_layers);
    if (o->n_cpu_moe < 0)
        return ts_fail(err, TS_BAD_ARG, "experts of %lld layers on the CPU; it must be 0 or more",
                       (long long)o->n_cpu_moe);
    if (o->split_mode != TS_SPLIT_LAYER && o->split_mode != TS_SPLIT_NONE)
        return ts_fail(err, TS_BAD_ARG, "%d is no way to split a model", (int)o->split_mode);
    if (o->n_planned_gpus && !o->plan_only)
        return ts_fail(err, TS_BAD_ARG, "GPUs that aren't there can be planned for, not used");
    if (o->planned_memory && !o->plan_only)
        return ts_fail(err, TS_BAD_ARG, "memory that isn't there can be planned for, not used");
    return TS_OK;
}

ts_status ts_engine_take_gpus(ts_engine *e, const ts_engine_options *o, ts_isa isa,
                              ts_engine_split *out, ts_error *err)
{
    ts_status s = check_options(o, err);
    if (s)
        return s;
    int64_t n = o->n_gpu_layers;
    if (n == TS_GPU_LAYERS_DEFAULT) /* the oracle is there to compare with */
        n = isa == TS_ISA_REF ? 0 : TS_GPU_LAYERS_AUTO;
    int main = 0;
    if ((n || asked(o)) && ((s = find_gpus(e, o, err)) || (s = take_shares(&e->gpus, o, err)) ||
                            (s = take_main(&e->gpus, o, &main, err))))
        return s;
    out->split = (ts_split){.accels = e->gpus.accel,
                            .n_accels = e->gpus.n,
                            .main = main,
                            .n_gpu_layers = n,
                            .kv_on_cpu = o->no_kv_offload,
                            .n_cpu_moe = o->n_cpu_moe};
    out->backends = e->gpus.backend;
    return take_overrides(e, o, &out->split, err);
}

/* --- for everybody ------------------------------------------------------------ */

ts_status ts_list_gpus(ts_gpu *out, size_t max, size_t *n, ts_error *err)
{
    char why[256];
    ts_gpus g;
    ts_gpus_open(&g, 0, why, sizeof why);
    if (!g.n)
        return ts_fail(err, TS_UNSUPPORTED, "no GPU can be used: %s", why);
    *n = (size_t)g.n;
    for (size_t i = 0; i < (size_t)g.n && i < max; i++) {
        out[i] = (ts_gpu){.free_bytes = g.info[i].free_bytes, .total_bytes = g.info[i].total_bytes};
        snprintf(out[i].name, sizeof out[i].name, "%s", g.name[i]);
        snprintf(out[i].desc, sizeof out[i].desc, "%s", g.info[i].name);
    }
    ts_gpus_close(&g);
    return TS_OK;
}

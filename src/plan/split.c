/* split.c - layers and weights to devices. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "plan/split.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "plan/plan.h"

/* Whose the i-th of n layers on accelerators is: they follow each other in order, each with its
 * share. */
static int accel_of(const ts_split *s, int64_t i, int64_t n)
{
    double sum = 0, upto = 0, memory = 0;
    for (int a = 0; a < s->n_accels; a++) {
        sum += s->accels[a].share;
        memory += (double)s->accels[a].memory;
    }
    for (int a = 0; a < s->n_accels; a++) {
        upto += sum > 0 ? s->accels[a].share / sum : (double)s->accels[a].memory / memory;
        if (((double)i + 0.5) / (double)n <= upto)
            return 1 + a;
    }
    return s->n_accels;
}

int ts_layer_weights(const ts_layer *l, ts_weight *out[TS_LAYER_WEIGHTS])
{
    ts_weight *const w[] = {l->wq, l->wk, l->wv, l->wo, l->gate, l->up, l->down};
    int n = 0;
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        if (w[i])
            out[n++] = w[i];
    return n;
}

/* Every weight of a layer is where the layer is. */
static void place_layer(ts_layer *l, int device)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    l->device = device;
    l->stream_index = -1;
    l->streamed = false;
    for (int i = 0; i < n; i++)
        w[i]->device = device;
}

static ts_status override(const ts_override *o, ts_model *m, ts_error *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)o->pattern, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
    if (!re) {
        char why[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return ts_fail(err, TS_BAD_ARG, "the pattern '%s' is no regular expression: %s at %zu",
                       o->pattern, why, (size_t)at);
    }
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    size_t found = 0;
    int rc = match ? PCRE2_ERROR_NOMATCH : PCRE2_ERROR_NOMEMORY;
    for (size_t i = 0; i < m->n_weights && match; i++) {
        ts_weight *w = &m->weights[i];
        rc = pcre2_match(re, (PCRE2_SPTR)w->source->name, strlen(w->source->name), 0, 0, match,
                         NULL);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            continue;
        found++;
        w->device = o->device;
    }
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return ts_fail(err, rc == PCRE2_ERROR_NOMEMORY ? TS_NO_MEMORY : TS_BAD_ARG,
                       "the pattern '%s' could not be matched: PCRE2 error %d", o->pattern, rc);
    if (!found)
        return ts_fail(err, TS_BAD_ARG, "no weight has a name in which the pattern '%s' is found",
                       o->pattern);
    return TS_OK;
}

ts_status ts_split_place(const ts_split *s, int64_t n_gpu_layers, ts_model *m, ts_error *err)
{
    const int64_t n = m->hp.n_layer, on = s->n_accels == 0   ? 0
                                          : n_gpu_layers < n ? n_gpu_layers
                                                             : n;
    for (size_t i = 0; i < m->n_weights; i++)
        m->weights[i].device = 0;
    for (int64_t i = 0; i < n; i++)
        place_layer(&m->layers[i], i < n - on ? 0 : accel_of(s, i - (n - on), on));
    if (s->n_accels && n_gpu_layers > n)
        m->output->device = m->layers[n - 1].device;
    for (size_t i = 0; i < s->n_overrides; i++) {
        ts_status st = override(&s->overrides[i], m, err);
        if (st)
            return st;
    }
    if (m->token_embd != m->output) /* its rows are looked up in the file */
        m->token_embd->device = 0;
    int64_t count[TS_MAX_DEVICES] = {0};
    for (int64_t i = 0; i < n; i++)
        m->layers[i].kv_index = count[m->layers[i].device]++;
    return TS_OK;
}

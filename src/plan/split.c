/* split.c - layers and weights to devices. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "plan/split.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
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
    ts_weight *const w[] = {l->wq,  l->wk,     l->wv,        l->wo,      l->gate,
                            l->up,  l->down,   l->q_a,       l->kv_a,    l->k_b,
                            l->v_b, l->router, l->gate_exps, l->up_exps, l->down_exps};
    int n = 0;
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        if (w[i])
            out[n++] = w[i];
    return n;
}

/* The accelerator that is the first to have layers: what is another's only by default is its. */
int ts_split_first(const ts_split *s)
{
    for (int a = 0; a < s->n_accels; a++)
        if (s->accels[a].share > 0)
            return 1 + a;
    return 1;
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

/* *found: in how many names the pattern is. */
static ts_status override(const ts_override *o, ts_model *m, size_t *found, ts_error *err)
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
    int rc = match ? PCRE2_ERROR_NOMATCH : PCRE2_ERROR_NOMEMORY;
    for (size_t i = 0; i < m->n_weights && match; i++) {
        ts_weight *w = &m->weights[i];
        const char *name = ts_weight_name(w);
        rc = pcre2_match(re, (PCRE2_SPTR)name, strlen(name), 0, 0, match, NULL);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            continue;
        ++*found;
        w->device = o->device;
        w->asked = o->device;
    }
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return ts_fail(err, rc == PCRE2_ERROR_NOMEMORY ? TS_NO_MEMORY : TS_BAD_ARG,
                       "the pattern '%s' could not be matched: PCRE2 error %d", o->pattern, rc);
    return TS_OK;
}

/* Experts of a layer to the CPU. */
static void keep_experts(ts_layer *l)
{
    ts_weight *const w[] = {l->gate_exps, l->up_exps, l->down_exps};
    for (int i = 0; i < 3; i++)
        if (w[i])
            w[i]->device = 0;
}

static ts_status take_patterns(const ts_split *s, ts_model *m, ts_error *err)
{
    ts_status st = TS_OK;
    if (s->n_cpu_moe && !m->hp.moe.n_expert)
        return ts_fail(err, TS_BAD_ARG,
                       "weights of experts are to stay on the CPU, but the model has no experts");
    for (int64_t i = 0; i < m->hp.n_layer && i < s->n_cpu_moe; i++)
        keep_experts(&m->layers[i]);
    for (size_t i = 0; i < s->n_overrides && !st; i++) {
        size_t found = 0;
        st = override(&s->overrides[i], m, &found, err);
        if (!st && !found)
            return ts_fail(err, TS_BAD_ARG,
                           "no weight has a name in which the pattern '%s' is found",
                           s->overrides[i].pattern);
    }
    return st;
}

/* What goes with the blocks is where the first of them is, so that it needs no way of its own. */
static void place_ffn(ts_layer *l, ts_ffn ffn, int device)
{
    if (ffn == TS_FFN_NONE)
        return;
    if (l->down)
        l->down->device = device;
    if (ffn == TS_FFN_ALL && l->gate)
        l->gate->device = device;
    if (ffn == TS_FFN_ALL && l->up)
        l->up->device = device;
}

/* Experts of `keep` blocks to the CPU, of which each run of blocks of one device has its share,
 * rounded up by itself: more to keep is more, or as many, of every run. */
static void place_experts(ts_model *m, int64_t keep)
{
    const int64_t n = m->hp.n_layer;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin; end < n && m->layers[end].device == m->layers[begin].device;)
            end++;
        const int64_t some = ((end - begin) * keep + n - 1) / n;
        for (int64_t i = begin; i < begin + some; i++)
            keep_experts(&m->layers[i]);
    }
}

bool ts_attends_latent(const ts_accel_kind *kind, const ts_model *m, const ts_layer *l)
{
    return kind->latent && kind->latent(&m->hp, l->k_b, l->v_b);
}

ts_status ts_split_place(const ts_split *s, ts_placing what, ts_model *m, ts_error *err)
{
    const int64_t n = m->hp.n_layer, first = s->n_accels ? n - what.layers : n;
    for (size_t i = 0; i < m->n_weights; i++) {
        m->weights[i].device = 0;
        m->weights[i].asked = -1;
    }
    for (int64_t i = 0; i < n; i++)
        place_layer(&m->layers[i], i < first ? 0 : accel_of(s, i - first, what.layers));
    place_experts(m, what.cpu_experts);
    if (s->n_accels && what.output)
        m->output->device = s->main       ? s->main
                            : what.layers ? m->layers[n - 1].device
                                          : ts_split_first(s);
    if (s->n_accels && first > 0)
        place_ffn(&m->layers[first - 1], what.ffn,
                  first < n ? m->layers[first].device : ts_split_first(s));
    ts_status st = take_patterns(s, m, err);
    if (st)
        return st;
    for (size_t i = 0; i < m->n_weights; i++) {
        ts_weight *w = &m->weights[i];
        if (!w->experts || !w->device)
            continue;
        const ts_accel_kind *kind = s->accels[w->device - 1].kind;
        if (!kind->experts || !kind->experts(&m->hp.moe, w))
            w->device = 0;
    }
    if (m->token_embd != m->output) /* its rows are looked up in the file */
        m->token_embd->device = 0;
    int64_t count[TS_MAX_DEVICES] = {0};
    for (int64_t i = 0; i < n; i++) {
        ts_layer *l = &m->layers[i];
        l->kv_device = s->kv_on_cpu ? 0 : l->device;
        if (l->k_b && l->kv_device && !ts_attends_latent(s->accels[l->kv_device - 1].kind, m, l))
            l->kv_device = 0;
        if (l->k_b) /* what is between Q, K and attention, and between attention and wo */
            l->k_b->device = l->v_b->device = l->kv_device;
        l->kv_index = count[l->kv_device]++;
    }
    return TS_OK;
}

int ts_placing_compare(ts_placing a, ts_placing b)
{
    if (a.layers != b.layers)
        return a.layers < b.layers ? -1 : 1;
    const int x = 3 * a.output + (int)a.ffn, y = 3 * b.output + (int)b.ffn;
    if (x != y || a.layers == 0)
        return (x > y) - (x < y);
    return (a.cpu_experts < b.cpu_experts) - (a.cpu_experts > b.cpu_experts);
}

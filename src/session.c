/* session.c - one timeline: tokens in, logits out, a micro-batch at a time. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine.h"

struct ts_session {
    ts_engine *e;
    ts_run run;
    int64_t pos;      /* tokens in the timeline           */
    int64_t n_logits; /* rows of logits of the last eval  */
    atomic_bool cancel;
    struct ts_routing *routing; /* the caller's, or NULL */
    ts_run *more;               /* [n_seqs - 1] of the other timelines */
    int64_t *at;                /* [n_seqs - 1] */
    float *rows;
};

ts_status ts_session_open(ts_session **out, ts_engine *e, ts_error *err)
{
    if (!e->devices.n)
        return ts_fail(err, TS_BAD_ARG,
                       "the engine was opened without its weights: it can't evaluate");
    ts_session *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    s->e = e;
    ts_status st = TS_OK;
    if (atomic_exchange(&e->has_spare, false))
        s->run = e->spare;
    else
        st = ts_run_open(&s->run, &e->devices, e->check_finite, err);
    if (st) {
        free(s);
        return st;
    }
    *out = s;
    return TS_OK;
}

void ts_session_close(ts_session *s)
{
    if (!s)
        return;
    ts_run_close(&s->run);
    free(s);
}

static ts_status check_eval(const ts_session *s, const ts_token *tokens, size_t n, size_t n_logits,
                            ts_error *err)
{
    const ts_plan *p = &s->e->plan;
    int64_t n_vocab = s->e->m->hp.n_vocab;
    if (n < 1)
        return ts_fail(err, TS_BAD_ARG, "an eval needs at least one token");
    if (n_logits < 1 || n_logits > n || n_logits > (size_t)p->n_logits)
        return ts_fail(
            err, TS_BAD_ARG,
            "%zu rows of logits asked for; it must be 1 to %zu (the tokens given, and the "
            "n_logits of the engine)",
            n_logits, n < (size_t)p->n_logits ? n : (size_t)p->n_logits);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return ts_fail(err, TS_BAD_ARG, "token %zu is %d; the vocabulary has ids 0 to %lld", i,
                           tokens[i], (long long)n_vocab - 1);
    if (n > (size_t)(p->n_ctx - s->pos))
        return ts_fail(err, TS_FULL,
                       "%zu more tokens don't fit: %lld of the context's %lld positions are taken",
                       n, (long long)s->pos, (long long)p->n_ctx);
    return TS_OK;
}

ts_status ts_session_eval(ts_session *s, const ts_token *tokens, size_t n, size_t n_logits,
                          ts_error *err)
{
    ts_status st = check_eval(s, tokens, n, n_logits, err);
    if (st)
        return st;
    int64_t left = (int64_t)n, want = (int64_t)n_logits, ubatch = s->e->plan.n_ubatch, row = 0;
    s->n_logits = 0;
    while (left > 0) {
        if (atomic_exchange(&s->cancel, false))
            return ts_fail(err, TS_CANCELLED, "evaluation was cancelled after %lld of %zu tokens",
                           (long long)((int64_t)n - left), n);
        ts_batch b = {.tokens = tokens + ((int64_t)n - left),
                      .pos0 = s->pos,
                      .logits_row = row,
                      .routing = s->routing};
        b.m = left < ubatch ? left : ubatch;
        left -= b.m;
        b.m_out = want - left < 0 ? 0 : want - left < b.m ? want - left : b.m;
        want -= b.m_out;
        if ((st = ts_run_batch(&s->run, &b, err)))
            return st;
        s->pos += b.m;
        row += b.m_out;
    }
    s->n_logits = row;
    return TS_OK;
}

float *ts_session_logits(ts_session *s, size_t i)
{
    if (i >= (size_t)s->n_logits)
        return NULL;
    return (s->rows ? s->rows : ts_run_logits(&s->run)) + i * (size_t)s->e->m->hp.n_vocab;
}

int64_t ts_session_pos(const ts_session *s)
{
    return s->pos;
}

ts_status ts_session_rewind(ts_session *s, int64_t pos, ts_error *err)
{
    if (pos < 0 || pos > s->pos)
        return ts_fail(err, TS_BAD_ARG,
                       "can't rewind to position %lld: the timeline has %lld tokens",
                       (long long)pos, (long long)s->pos);
    s->pos = pos;
    s->n_logits = 0;
    return TS_OK;
}

void ts_session_set_routing(ts_session *s, struct ts_routing *r)
{
    s->routing = r;
}

void ts_session_cancel(ts_session *s)
{
    atomic_store(&s->cancel, true);
}

/* --- statistics ------------------------------------------------------------- */

void ts_session_set_stats(ts_session *s, bool on)
{
    ts_run_set_stats(&s->run, on);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* All kernel sets together. */
static ts_work sum_matrix(const ts_work *w, size_t n)
{
    ts_work sum = {0};
    for (size_t i = 0; i < n; i++)
        if (w[i].matrix) {
            sum.flops += w[i].flops;
            sum.tile_flops += w[i].tile_flops;
        }
    return sum;
}

static void stats_json(const ts_work *w, size_t n, ts_sb *out)
{
    ts_work sum = sum_matrix(w, n);
    ts_sb_str(out, "{\"work\":[");
    for (size_t i = 0; i < n; i++) {
        ts_sb_printf(out, "%s\n{\"name\":\"%s\",\"matrix\":%s,\"device\":", i ? "," : "", w[i].name,
                     w[i].matrix ? "true" : "false");
        if (w[i].device)
            ts_sb_json_str(out, w[i].device, strlen(w[i].device));
        else
            ts_sb_str(out, "null");
        ts_sb_printf(out, ",\"calls\":%lld,\"seconds\":%.6f", (long long)w[i].calls, w[i].seconds);
        if (w[i].matrix)
            ts_sb_printf(out,
                         ",\"weights\":%lld,\"weight_bytes\":%llu,\"bytes\":%.0f,\"flops\":%.0f,"
                         "\"tile_flops\":%.0f,\"tflops\":%.6f,\"gbs\":%.6f",
                         (long long)w[i].n_weights, (unsigned long long)w[i].weight_bytes,
                         w[i].bytes, w[i].flops, w[i].tile_flops,
                         ratio(1e-12 * w[i].flops, w[i].seconds),
                         ratio(1e-9 * w[i].bytes, w[i].seconds));
        ts_sb_str(out, "}");
    }
    ts_sb_printf(out, "],\n\"matrix_flops\":%.0f,\"tile_flops\":%.0f,\"tile_share\":%.6f}\n",
                 sum.flops, sum.tile_flops, ratio(sum.tile_flops, sum.flops));
}

static void stats_text(const ts_work *w, size_t n, ts_sb *out)
{
    double all = 0;
    ts_work sum = sum_matrix(w, n);
    for (size_t i = 0; i < n; i++)
        all += w[i].seconds;
    ts_sb_printf(out, "%-10s %8s %10s %7s %8s %10s %9s %8s %12s %8s\n", "work", "calls", "seconds",
                 "share", "weights", "MB", "GB read", "GB/s", "GFLOP", "TFLOPS");
    for (size_t i = 0; i < n; i++) {
        char name[48];
        const bool cpu = !w[i].device || strcmp(w[i].device, "CPU") == 0;
        snprintf(name, sizeof name, "%s%s%s", cpu ? "" : w[i].device, cpu ? "" : " ", w[i].name);
        ts_sb_printf(out, "%-10s %8lld %10.4f %5.1f %%", name, (long long)w[i].calls, w[i].seconds,
                     100 * ratio(w[i].seconds, all));
        if (w[i].matrix)
            ts_sb_printf(out, " %8lld %10.1f %9.3f %8.1f %12.3f %8.3f", (long long)w[i].n_weights,
                         1e-6 * (double)w[i].weight_bytes, 1e-9 * w[i].bytes,
                         ratio(1e-9 * w[i].bytes, w[i].seconds), 1e-9 * w[i].flops,
                         ratio(1e-12 * w[i].flops, w[i].seconds));
        ts_sb_str(out, "\n");
    }
    ts_sb_printf(out, "matrix FLOPs on tiles: %.1f %%\n", 100 * ratio(sum.tile_flops, sum.flops));
}

ts_status ts_session_stats(const ts_session *s, bool json, char **out, ts_error *err)
{
    ts_work work[TS_MAX_WORK];
    size_t n = ts_run_stats(&s->run, work);
    ts_sb sb = {0};
    (json ? stats_json : stats_text)(work, n, &sb);
    if (sb.failed) {
        ts_sb_free(&sb);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the statistics");
    }
    *out = sb.s;
    return TS_OK;
}

/* interim: each timeline has a cache of its own */
static int64_t *pos_of(ts_session *s, int32_t seq)
{
    return seq == 0 ? &s->pos : &s->at[seq - 1];
}

ts_status ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n_spans, ts_error *err)
{
    const ts_plan *p = &s->e->plan;
    const int64_t v = s->e->m->hp.n_vocab;
    if (!s->more && p->n_seqs > 1) {
        s->more = ts_calloc((size_t)p->n_seqs, sizeof *s->more);
        s->at = ts_calloc((size_t)p->n_seqs, sizeof *s->at);
        for (int64_t i = 0; i + 1 < p->n_seqs; i++) {
            ts_status st = ts_run_open(&s->more[i], &s->e->devices, s->e->check_finite, err);
            if (st)
                return st;
        }
    }
    if (!s->rows)
        s->rows = ts_calloc((size_t)p->n_logits * (size_t)v, sizeof(float));
    int64_t row = 0;
    for (size_t i = 0; i < n_spans; i++) {
        int64_t *pos = pos_of(s, spans[i].seq);
        ts_run *r = spans[i].seq ? &s->more[spans[i].seq - 1] : &s->run;
        ts_batch b = {.tokens = spans[i].tokens,
                      .pos0 = *pos,
                      .m = (int64_t)spans[i].n,
                      .m_out = (int64_t)spans[i].n_logits};
        if (*pos + b.m > p->n_ctx)
            return ts_fail(err, TS_FULL, "full");
        ts_status st = ts_run_batch(r, &b, err);
        if (st)
            return st;
        memcpy(s->rows + row * v, ts_run_logits(r), (size_t)(b.m_out * v) * sizeof(float));
        row += b.m_out;
        *pos += b.m;
    }
    s->n_logits = row;
    return TS_OK;
}

int64_t ts_session_seq_pos(const ts_session *s, int32_t seq)
{
    return *pos_of((ts_session *)(uintptr_t)s, seq);
}

ts_status ts_session_seq_rewind(ts_session *s, int32_t seq, int64_t pos, ts_error *err)
{
    (void)err;
    *pos_of(s, seq) = pos;
    return TS_OK;
}

ts_status ts_session_seq_begin(ts_session *s, int32_t seq, const ts_token *tokens, size_t n,
                               int64_t *found, ts_error *err)
{
    (void)tokens, (void)n, (void)err;
    *found = 0;
    if (seq == 0 || s->at)
        *pos_of(s, seq) = 0;
    return TS_OK;
}

void ts_session_kv_info(const ts_session *s, ts_kv_info *out)
{
    *out = (ts_kv_info){.n_pages = s->e->plan.n_ctx / TS_KV_PAGE,
                        .n_free = s->e->plan.n_ctx / TS_KV_PAGE};
}

ts_status ts_session_embedding(ts_session *s, size_t i, float *out, ts_error *err)
{
    (void)i, (void)err;
    memcpy(out, ts_session_logits(s, 0), (size_t)s->e->m->hp.n_embd * sizeof(float));
    return TS_OK;
}

ts_status ts_session_kv_save(ts_session *s, const char *path, int64_t *pages, ts_error *err)
{
    (void)s, *pages = 0;
    return ts_fail(err, TS_IO, "%s: not written", path);
}

ts_status ts_session_kv_restore(ts_session *s, const char *path, int64_t *pages, ts_error *err)
{
    (void)s, *pages = 0;
    return ts_fail(err, TS_IO, "%s: not read", path);
}

/* session.c - timelines: tokens in, logits out, a micro-batch at a time. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine.h"
#include "exec/kv_file.h"

struct ts_session {
    ts_engine *e;
    ts_run run;
    int64_t pos;          /* tokens in the timeline, of a session without pages */
    ts_pages *pages;      /* of a plan with pages; else NULL                    */
    int64_t n_logits;     /* rows of logits of the last eval                    */
    int64_t row0, n_rows; /* of them, those of its last micro-batch             */
    atomic_bool cancel;
    struct ts_routing *routing; /* the caller's, or NULL */
    /* A batch with pages. */
    uint64_t serial;
    ts_token *tokens;          /* [n_ubatch] */
    int32_t *at, *place, *out; /* [n_ubatch] */
    ts_rows *rows;             /* [n_seqs]   */
};

/* What batches of a plan with pages are made of. */
static ts_status open_pages(ts_session *s, const ts_plan *p, ts_error *err)
{
    const size_t m = (size_t)p->n_ubatch;
    if (!p->paged)
        return TS_OK;
    s->tokens = ts_calloc(m, sizeof *s->tokens);
    s->at = ts_calloc(m, sizeof *s->at);
    s->place = ts_calloc(m, sizeof *s->place);
    s->out = ts_calloc(m, sizeof *s->out);
    s->rows = ts_calloc((size_t)p->n_seqs, sizeof *s->rows);
    if (!s->tokens || !s->at || !s->place || !s->out || !s->rows)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    return ts_pages_open(&s->pages, p->n_ctx / TS_PAGE, p->n_seqs, err);
}

ts_status ts_session_open(ts_session **out, ts_engine *e, ts_error *err)
{
    if (!e->devices.n)
        return ts_fail(err, TS_BAD_ARG,
                       "the engine was opened without its weights: it can't evaluate");
    ts_session *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a session");
    s->e = e;
    ts_status st = open_pages(s, &e->plan, err);
    if (!st && atomic_exchange(&e->has_spare, false))
        s->run = e->spare;
    else if (!st)
        st = ts_run_open(&s->run, &e->devices, e->check_finite, err);
    if (st) {
        ts_session_close(s);
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
    ts_pages_close(s->pages);
    free(s->tokens);
    free(s->at);
    free(s->place);
    free(s->out);
    free(s->rows);
    free(s);
}

/* --- evaluating ------------------------------------------------------------- */

static int64_t pos_of(const ts_session *s, int64_t seq)
{
    return s->pages ? ts_pages_pos(s->pages, seq) : s->pos;
}

static ts_status check_ids(const ts_session *s, const ts_token *tokens, size_t n, ts_error *err)
{
    const int64_t n_vocab = s->e->m->hp.n_vocab;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return ts_fail(err, TS_BAD_ARG, "token %zu is %d; the vocabulary has ids 0 to %lld", i,
                           tokens[i], (long long)n_vocab - 1);
    return TS_OK;
}

static ts_status check_room(const ts_session *s, int64_t seq, size_t n, ts_error *err)
{
    const int64_t most = s->e->plan.n_ctx_seq, pos = pos_of(s, seq);
    if (n > (size_t)(most - pos))
        return ts_fail(err, TS_FULL,
                       "%zu more tokens don't fit: %lld of the context's %lld positions are taken",
                       n, (long long)pos, (long long)most);
    return TS_OK;
}

static ts_status check_eval(const ts_session *s, const ts_token *tokens, size_t n, size_t n_logits,
                            ts_error *err)
{
    const ts_plan *p = &s->e->plan;
    if (n < 1)
        return ts_fail(err, TS_BAD_ARG, "an eval needs at least one token");
    if (n_logits < 1 || n_logits > n || n_logits > (size_t)p->n_logits)
        return ts_fail(
            err, TS_BAD_ARG,
            "%zu rows of logits asked for; it must be 1 to %zu (the tokens given, and the "
            "n_logits of the engine)",
            n_logits, n < (size_t)p->n_logits ? n : (size_t)p->n_logits);
    const ts_status st = check_ids(s, tokens, n, err);
    return st ? st : check_room(s, 0, n, err);
}

/* A micro-batch of spans, for whose tokens there is room in their timelines' pages. The caller's
 * spans are what it reads, its own arrays what the batch points to. */
static ts_batch batch_of(ts_session *s, const ts_span *spans, size_t n)
{
    ts_batch b = {.spans = s->rows,
                  .n_spans = (int64_t)n,
                  .tokens = s->tokens,
                  .pos = s->at,
                  .place = s->place,
                  .out = s->out,
                  .serial = ++s->serial,
                  .routing = s->routing};
    for (size_t i = 0; i < n; i++) {
        const ts_span *x = &spans[i];
        ts_rows *r = &s->rows[i];
        *r = (ts_rows){b.m, (int64_t)x->n, pos_of(s, x->seq), ts_pages_map(s->pages, x->seq)};
        memcpy(s->tokens + b.m, x->tokens, x->n * sizeof *x->tokens);
        for (int64_t j = 0; j < r->m; j++) {
            s->at[b.m + j] = (int32_t)(r->pos0 + j);
            s->place[b.m + j] = (int32_t)ts_place(r->map, r->pos0 + j);
        }
        b.m += r->m;
        for (int64_t j = (int64_t)x->n_logits; j > 0; j--)
            s->out[b.m_out++] = (int32_t)(b.m - j);
    }
    return b;
}

/* Runs one micro-batch, the spans' tokens all together; logits from `row` on. */
static ts_status run_spans(ts_session *s, const ts_span *spans, size_t n, int64_t row,
                           ts_error *err)
{
    ts_status st = TS_OK;
    size_t i = 0;
    for (; i < n && !st; i++)
        if (!ts_pages_reserve(s->pages, spans[i].seq, (int64_t)spans[i].n))
            st = ts_fail(err, TS_FULL, "the KV cache's %lld positions are taken",
                         (long long)s->e->plan.n_ctx);
    if (!st) {
        ts_batch b = batch_of(s, spans, n);
        b.logits_row = row;
        st = ts_run_batch(&s->run, &b, err);
        s->row0 = row;
        s->n_rows = st ? 0 : b.m_out;
    }
    for (size_t j = 0; j < i && st; j++)
        ts_pages_trim(s->pages, spans[j].seq);
    for (size_t j = 0; j < n && !st; j++)
        ts_pages_append(s->pages, spans[j].seq, spans[j].tokens, (int64_t)spans[j].n);
    return st;
}

/* The same of tokens[m] of the one timeline there is. */
static ts_status run_one(ts_session *s, const ts_token *tokens, int64_t m, int64_t m_out,
                         int64_t row, ts_error *err)
{
    const ts_span span = {0, tokens, (size_t)m, (size_t)m_out};
    if (s->pages)
        return run_spans(s, &span, 1, row, err);
    const ts_batch b = {.tokens = tokens,
                        .m = m,
                        .m_out = m_out,
                        .pos0 = s->pos,
                        .logits_row = row,
                        .routing = s->routing};
    const ts_status st = ts_run_batch(&s->run, &b, err);
    if (!st)
        s->pos += m;
    s->row0 = row;
    s->n_rows = st ? 0 : m_out;
    return st;
}

ts_status ts_session_eval(ts_session *s, const ts_token *tokens, size_t n, size_t n_logits,
                          ts_error *err)
{
    ts_status st = check_eval(s, tokens, n, n_logits, err);
    if (st)
        return st;
    int64_t left = (int64_t)n, want = (int64_t)n_logits, ubatch = s->e->plan.n_ubatch, row = 0;
    s->n_logits = s->n_rows = 0;
    while (left > 0) {
        if (atomic_exchange(&s->cancel, false))
            return ts_fail(err, TS_CANCELLED, "evaluation was cancelled after %lld of %zu tokens",
                           (long long)((int64_t)n - left), n);
        const ts_token *next = tokens + ((int64_t)n - left);
        const int64_t m = left < ubatch ? left : ubatch;
        left -= m;
        const int64_t m_out = want - left < 0 ? 0 : want - left < m ? want - left : m;
        want -= m_out;
        if ((st = run_one(s, next, m, m_out, row, err)))
            return st;
        row += m_out;
    }
    s->n_logits = row;
    return TS_OK;
}

static ts_status no_pages(ts_error *err)
{
    return ts_fail(err, TS_BAD_ARG,
                   "the engine was opened without n_seqs: no session of it has "
                   "timelines that share a cache");
}

static ts_status check_spans(const ts_session *s, const ts_span *spans, size_t n, ts_error *err)
{
    const ts_plan *p = &s->e->plan;
    size_t m = 0, m_out = 0;
    if (!s->pages)
        return no_pages(err);
    if (n < 1)
        return ts_fail(err, TS_BAD_ARG, "an eval needs at least one span");
    for (size_t i = 0; i < n; i++) {
        const ts_span *x = &spans[i];
        if (x->seq < 0 || x->seq >= p->n_seqs)
            return ts_fail(err, TS_BAD_ARG, "span %zu is of timeline %d; there are 0 to %lld", i,
                           x->seq, (long long)p->n_seqs - 1);
        for (size_t j = 0; j < i; j++)
            if (spans[j].seq == x->seq)
                return ts_fail(err, TS_BAD_ARG, "spans %zu and %zu are of timeline %d", j, i,
                               x->seq);
        if (x->n < 1 || x->n_logits > x->n)
            return ts_fail(err, TS_BAD_ARG, "span %zu has %zu tokens and wants %zu rows of logits",
                           i, x->n, x->n_logits);
        m += x->n < SIZE_MAX / 2 - m ? x->n : SIZE_MAX / 2 - m;
        m_out += x->n_logits;
        ts_status st = m > (size_t)p->n_ubatch ? TS_OK : check_ids(s, x->tokens, x->n, err);
        if (!st)
            st = check_room(s, x->seq, x->n, err);
        if (st)
            return st;
    }
    if (m > (size_t)p->n_ubatch || m_out > (size_t)p->n_logits)
        return ts_fail(err, TS_BAD_ARG,
                       "%zu tokens and %zu rows of logits in one eval; at most %lld and %lld", m,
                       m_out, (long long)p->n_ubatch, (long long)p->n_logits);
    return TS_OK;
}

ts_status ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n_spans, ts_error *err)
{
    ts_status st = check_spans(s, spans, n_spans, err);
    if (st)
        return st;
    s->n_logits = s->n_rows = 0;
    if (atomic_exchange(&s->cancel, false))
        return ts_fail(err, TS_CANCELLED, "evaluation was cancelled");
    st = run_spans(s, spans, n_spans, 0, err);
    s->n_logits = s->n_rows;
    return st;
}

float *ts_session_logits(ts_session *s, size_t i)
{
    if (i >= (size_t)s->n_logits)
        return NULL;
    return ts_run_logits(&s->run) + i * (size_t)s->e->m->hp.n_vocab;
}

ts_status ts_session_embedding(ts_session *s, size_t i, float *out, ts_error *err)
{
    if (i >= (size_t)s->n_logits || (int64_t)i < s->row0 || (int64_t)i >= s->row0 + s->n_rows)
        return ts_fail(err, TS_BAD_ARG, "there is no hidden state of row %zu", i);
    return ts_run_hidden(&s->run, (int64_t)i - s->row0, out, err);
}

/* --- timelines -------------------------------------------------------------- */

int64_t ts_session_pos(const ts_session *s)
{
    return pos_of(s, 0);
}

int64_t ts_session_seq_pos(const ts_session *s, int32_t seq)
{
    return seq < 0 || seq >= s->e->plan.n_seqs ? -1 : pos_of(s, seq);
}

ts_status ts_session_rewind(ts_session *s, int64_t pos, ts_error *err)
{
    return ts_session_seq_rewind(s, 0, pos, err);
}

static ts_status no_timeline(const ts_session *s, int32_t seq, ts_error *err)
{
    return ts_fail(err, TS_BAD_ARG, "there is no timeline %d; there are 0 to %lld", seq,
                   (long long)s->e->plan.n_seqs - 1);
}

/* A page that others may have isn't cut: what was to stay of it is computed again, to the same
 * values, in a page of the timeline's own. */
static ts_status rewind_pages(ts_session *s, int32_t seq, int64_t pos, ts_error *err)
{
    ts_token tail[TS_PAGE];
    int64_t n = 0, m;
    ts_status st = TS_OK;
    ts_pages_rewind(s->pages, seq, pos, tail, &n);
    for (int64_t i = 0; i < n && !st; i += m) {
        m = n - i < s->e->plan.n_ubatch ? n - i : s->e->plan.n_ubatch;
        const ts_span span = {seq, tail + i, (size_t)m, 0};
        st = run_spans(s, &span, 1, 0, err);
    }
    return st;
}

ts_status ts_session_seq_rewind(ts_session *s, int32_t seq, int64_t pos, ts_error *err)
{
    if (seq < 0 || seq >= s->e->plan.n_seqs)
        return no_timeline(s, seq, err);
    if (pos < 0 || pos > pos_of(s, seq))
        return ts_fail(err, TS_BAD_ARG,
                       "can't rewind to position %lld: the timeline has %lld tokens",
                       (long long)pos, (long long)pos_of(s, seq));
    s->n_logits = 0;
    if (s->pages)
        return rewind_pages(s, seq, pos, err);
    s->pos = pos;
    return TS_OK;
}

ts_status ts_session_seq_begin(ts_session *s, int32_t seq, const ts_token *tokens, size_t n,
                               int64_t *found, ts_error *err)
{
    if (seq < 0 || seq >= s->e->plan.n_seqs)
        return no_timeline(s, seq, err);
    s->n_logits = 0;
    *found = 0;
    if (s->pages)
        *found = ts_pages_begin(s->pages, seq, tokens, (int64_t)n);
    else
        s->pos = 0;
    return TS_OK;
}

void ts_session_kv_info(const ts_session *s, ts_kv_info *out)
{
    const int64_t n = (s->e->plan.n_ctx + TS_PAGE - 1) / TS_PAGE;
    const int64_t held = (s->pos + TS_PAGE - 1) / TS_PAGE;
    *out = (ts_kv_info){.n_pages = n, .n_held = held, .n_free = n - held};
    if (s->pages)
        ts_pages_info(s->pages, out);
}

ts_status ts_session_kv_save(ts_session *s, const char *path, int64_t *pages, ts_error *err)
{
    *pages = 0;
    return s->pages ? ts_kv_save(&s->run, s->pages, path, pages, err) : no_pages(err);
}

ts_status ts_session_kv_restore(ts_session *s, const char *path, int64_t *pages, ts_error *err)
{
    *pages = 0;
    s->n_logits = 0;
    return s->pages ? ts_kv_restore(&s->run, s->pages, path, pages, err) : no_pages(err);
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

/* respond.c - answers on their way out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange.h"

enum MHD_Result ts_exchange_no_memory(ts_http *h, struct MHD_Connection *c)
{
    return MHD_queue_response(c, 503, h->no_memory);
}

static void add_headers(const ts_exchange *x, struct MHD_Response *r, const char *type)
{
    if (type)
        MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "X-Request-Id", x->job ? x->job->id : x->id);
    ts_exchange_cors(x, r);
    if (x->no.status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"tessera\"");
    if (x->no.status == 405 || x->preflight)
        MHD_add_response_header(r, "Allow", x->allow);
    if (x->no.status == 429 || x->no.status == 503)
        MHD_add_response_header(r, "Retry-After", "1");
    if (x->no.status == 408 || x->no.status == 413 || x->no.status == 431)
        MHD_add_response_header(r, "Connection", "close");
}

/* The page may load nothing but its own files, and be shown in no other page. */
static void add_page_headers(struct MHD_Response *r)
{
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Content-Security-Policy",
                            "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
                            "'self' data:; connect-src "
                            "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
}

/* Takes r over; NULL: there was no memory. */
static enum MHD_Result queue(ts_exchange *x, int status, struct MHD_Response *r, const char *type)
{
    if (!r) {
        x->status = 503;
        return ts_exchange_no_memory(x->http, x->connection);
    }
    add_headers(x, r, type);
    if (x->page && !x->no.status)
        add_page_headers(r);
    else
        MHD_add_response_header(r, "Cache-Control", "no-store");
    if (x->job && x->job->request.stream && !x->no.status)
        MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* nginx: hand on what comes */
    x->status = status;
    ts_conn_set(&x->http->conns, x->conn, TS_CONN_SENDS);
    enum MHD_Result ok = MHD_queue_response(x->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result respond_page(ts_exchange *x)
{
    size_t n = (size_t)(x->page->end - x->page->data);
    x->sent = n;
    return queue(x, 200,
                 MHD_create_response_from_buffer(n, (void *)(uintptr_t)x->page->data,
                                                 MHD_RESPMEM_PERSISTENT),
                 ts_page_type(x->page));
}

enum MHD_Result ts_exchange_respond(ts_exchange *x, int status)
{
    struct MHD_Response *r = NULL;
    if (x->page && !x->no.status && !x->preflight)
        return respond_page(x);
    if (!x->out.s && !x->out.failed)
        ts_sb_str(&x->out, "");
    x->sent = x->out.n;
    if (!x->out.failed)
        r = MHD_create_response_from_buffer(x->out.n, x->out.s, MHD_RESPMEM_MUST_FREE);
    if (r)
        x->out = (ts_sb){0};
    ts_sb_free(&x->out);
    return queue(x, status, r, x->preflight ? NULL : x->type ? x->type : "application/json");
}

/* Refusals are counted before they are sent: who reads one finds it in /metrics. */
enum MHD_Result ts_exchange_refuse(ts_exchange *x)
{
    if (x->no.status == 429)
        atomic_fetch_add(&x->http->service->metrics.queue_full, 1);
    ts_sb_free(&x->out);
    x->type = NULL;
    ts_refusal_json(&x->no, &x->out);
    return ts_exchange_respond(x, x->no.status);
}

/* --- streams ------------------------------------------------------------- */

static ssize_t copy_rest(ts_exchange *x, char *buf, size_t max)
{
    size_t n = strlen(x->rest);
    n = n < max ? n : max;
    memcpy(buf, x->rest, n);
    x->rest += n;
    x->sent += n;
    return (ssize_t)n;
}

/* MHD asks for more: what there is, or it is suspended until there is something. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    ts_exchange *x = cls;
    ts_job *j = x->job;
    (void)pos;
    if (x->rest)
        return *x->rest ? copy_rest(x, buf, max) : MHD_CONTENT_READER_END_OF_STREAM;
    if (j->sent == j->out.n && !j->finished) {
        ts_job_state state = ts_job_pump(j, &x->no);
        if (state == TS_JOB_WAITS)
            return 0;
        if (state == TS_JOB_FAILED && j->unread) {
            atomic_fetch_add(&x->http->service->metrics.slow_readers, 1);
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (state == TS_JOB_FAILED && j->cut) {
            x->rest = ts_refusal_no_memory_event;
            return copy_rest(x, buf, max);
        }
    }
    size_t n = j->out.n - j->sent;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    n = n < max ? n : max;
    memcpy(buf, j->out.s + j->sent, n);
    j->sent += n;
    x->sent += n;
    return (ssize_t)n;
}

enum MHD_Result ts_exchange_stream(ts_exchange *x)
{
    return queue(
        x, 200, MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, read_stream, x, NULL),
        "text/event-stream; charset=utf-8");
}

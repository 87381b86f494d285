/* generate.c - requests that read a body: what they ask for is started, and gone on with. */
#include "base/utf8.h"
#include "exchange.h"

/* Bodies from this size on are read one at a time, because JSON takes many times its size when it
 * is read, and by ts_http_tick's thread, because it takes a while. */
enum { LARGE = 256 << 10 };

/* --- the connection, as a job sees it ------------------------------------ */

static void suspend(void *user)
{
    atomic_fetch_add(&((ts_exchange *)user)->http->suspended, 1);
    MHD_suspend_connection(((ts_exchange *)user)->connection);
}

static void wake(void *user)
{
    atomic_fetch_sub(&((ts_exchange *)user)->http->suspended, 1);
    MHD_resume_connection(((ts_exchange *)user)->connection);
}

static bool gone(void *user)
{
    const ts_exchange *x = user;
    return atomic_load(&x->http->ending) || ts_conn_gone(x->fd);
}

/* --- what is asked for --------------------------------------------------- */

static ts_status answer_tokens(ts_exchange *x, const ts_request *r)
{
    return r->ask == TS_ASK_TOKENIZE ? ts_info_tokenize(x->http->service, r, &x->out, &x->no)
                                     : ts_info_detokenize(x->http->service, r, &x->out, &x->no);
}

static ts_status start(ts_exchange *x, ts_request *r)
{
    ts_service *s = x->http->service;
    const ts_job_owner owner = {.suspend = suspend, .wake = wake, .gone = gone, .user = x};
    bool tokens = r->ask == TS_ASK_TOKENIZE || r->ask == TS_ASK_DETOKENIZE;
    if (r->model && !tokens && !ts_service_is(s, r->model))
        return ts_refuse(&x->no, 404, "model_not_found", "model",
                         "There is no model '%.*s' here; /v1/models lists what there is.",
                         ts_utf8_cut(r->model, 200), r->model);
    if (tokens)
        return answer_tokens(x, r);
    if (atomic_load(&x->http->draining))
        return ts_refuse(&x->no, 503, "shutting_down", "", "The server is shutting down.");
    return ts_job_open(&x->job, s, r, &owner, x->client_hash, &x->no);
}

static void read_and_start(ts_exchange *x)
{
    ts_service *s = x->http->service;
    ts_request r = {0};
    ts_status st = ts_request_read(&r, x->route->ask, x->in.s ? x->in.s : "", x->in.n,
                                   s->info.n_vocab, &s->o.sampling, &x->no);
    if (st == TS_OK)
        st = start(x, &r);
    ts_request_free(&r);
    if (!x->http->o.log_prompts)
        ts_sb_free(&x->in);
    if (!x->http->o.log_prompts && !x->job) /* a job keeps ids, stop texts, tools: it counts on */
        ts_exchange_let_go(x);
}

static enum MHD_Result answer(ts_exchange *x)
{
    if (x->no.status)
        return ts_exchange_refuse(x);
    return x->job ? ts_exchange_go_on(x) : ts_exchange_respond(x, 200);
}

/* The connection waits for ts_exchange_read_large. */
static enum MHD_Result put_off(ts_exchange *x)
{
    ts_http *h = x->http;
    pthread_mutex_lock(&h->lock);
    ts_exchange **last = &h->large;
    while (*last)
        last = &(*last)->next;
    *last = x;
    suspend(x);
    pthread_mutex_unlock(&h->lock);
    return MHD_YES;
}

bool ts_exchange_read_large(ts_http *h)
{
    pthread_mutex_lock(&h->lock);
    ts_exchange *x = h->large;
    if (x)
        h->large = x->next;
    const bool more = h->large != NULL;
    pthread_mutex_unlock(&h->lock);
    if (!x)
        return false;
    if (gone(x))
        ts_refuse(&x->no, 503, "shutting_down", "", "The server is shutting down.");
    else
        read_and_start(x);
    x->read = true;
    wake(x);
    return more;
}

enum MHD_Result ts_exchange_generate(ts_exchange *x)
{
    if (atomic_load(&x->http->ending)) {
        ts_refuse(&x->no, 503, "shutting_down", "", "The server is shutting down.");
        return ts_exchange_refuse(x);
    }
    if (x->in.n >= LARGE)
        return put_off(x);
    read_and_start(x);
    return answer(x);
}

enum MHD_Result ts_exchange_go_on(ts_exchange *x)
{
    ts_job *j = x->job;
    if (x->read) {
        x->read = false;
        return answer(x);
    }
    switch (ts_job_pump(j, &x->no)) {
    case TS_JOB_WAITS:
        return MHD_YES;
    case TS_JOB_FAILED: /* nobody is told who isn't there any more */
        return ts_conn_gone(x->fd) ? MHD_NO : ts_exchange_refuse(x);
    case TS_JOB_READY:
        break;
    }
    if (j->request.stream)
        return ts_exchange_stream(x);
    x->out = j->out;
    j->out = (ts_sb){0};
    return ts_exchange_respond(x, 200);
}

/* http.h - the server: OpenAI's API and more over HTTP, by libmicrohttpd.
 *
 * A few threads of libmicrohttpd's, each with an epoll of its own, read requests, check them and
 * queue their generations; then the connection is suspended until the scheduler has something for
 * it. So a thread is never taken up by somebody who waits, sends slowly or reads slowly. */
#ifndef TS_HTTP_H
#define TS_HTTP_H

#include "access.h"
#include "service.h"

typedef struct ts_http ts_http;

typedef struct ts_http_options {
    ts_service *service; /* stays the caller's, as the log does */
    const char *host;    /* a name or an address */
    int port;            /* 0: one that is free */
    int n_threads;
    char *const *keys; /* [n_keys] one of these opens; none: everybody may */
    size_t n_keys;
    bool no_auth;         /* everybody may, from other machines too */
    char *const *origins; /* [n_origins] of pages whose scripts may ask; "*": of all */
    size_t n_origins;
    size_t max_body;
    int64_t max_connections;
    double timeout_read, timeout_write; /* seconds; 0: none */
    bool page;                          /* serves the chat page */
    ts_access_log *log;                 /* or NULL */
    bool log_prompts;
} ts_http_options;

/* Is there such an address, and may it be listened at? `guarded`: there are keys, or --no-auth says
 * that none are wanted; without, only addresses of this machine itself may. */
ts_status ts_http_check_host(const char *host, bool guarded, ts_error *err);

/* TS_BAD_ARG: options that don't go together, with a sentence; TS_IO: the address can't be had;
 * TS_NO_MEMORY. */
ts_status ts_http_open(ts_http **out, const ts_http_options *o, ts_error *err);
const char *ts_http_url(const ts_http *h); /* "http://127.0.0.1:8080" */
/* Ends connections that are too slow, clears away what was cancelled, reads a large body; to be
 * called some times a second, always by the same thread. True: more of them wait to be read. */
bool ts_http_tick(ts_http *h);
/* From here on requests that would generate are answered with 503. */
void ts_http_drain(ts_http *h);
/* What still runs is ended, its answers with a sentence. */
void ts_http_end(ts_http *h);
int64_t ts_http_in_flight(const ts_http *h); /* requests not yet answered to their last byte */
/* Ends what there still is. The scheduler must still run: answers are waited for. */
void ts_http_close(ts_http *h);

#endif

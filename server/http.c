/* http.c - the daemon: connections, requests, their ends. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "exchange.h"

/* --- requests ------------------------------------------------------------ */

static void name_client(ts_exchange *x)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = i ? i->client_addr : NULL;
    const struct sockaddr_in *four = (const struct sockaddr_in *)a;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
    if (a && a->sa_family == AF_INET)
        inet_ntop(AF_INET, &four->sin_addr, x->client, sizeof x->client);
    else if (a && a->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, x->client, sizeof x->client);
    /* who has no key is told apart by the address (FNV-1a) */
    x->client_hash = 0xcbf29ce484222325u;
    for (const char *s = x->client; *s; s++)
        x->client_hash = (x->client_hash ^ (unsigned char)*s) * 0x100000001b3u;
}

static ts_exchange *open_exchange(ts_http *h, struct MHD_Connection *c, const char *path,
                                  const char *method)
{
    const union MHD_ConnectionInfo *i;
    ts_exchange *x = ts_calloc(1, sizeof *x);
    if (x)
        x->path = strdup(path);
    if (!x || !x->path) {
        free(x);
        return NULL;
    }
    x->http = h;
    x->connection = c;
    x->t0 = ts_now();
    i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->conn = i ? i->socket_context : NULL;
    i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    x->fd = i ? i->connect_fd : -1;
    ts_make_id(x->id, "req-");
    snprintf(x->method, sizeof x->method, "%s", method);
    name_client(x);
    ts_exchange_route(x, x->path, method);
    ts_exchange_check(x);
    return x;
}

/* All of the request is there. */
static enum MHD_Result begin(ts_exchange *x)
{
    x->begun = true;
    ts_conn_set(&x->http->conns, x->conn, TS_CONN_WORKS);
    if (x->no.status)
        return ts_exchange_refuse(x);
    if (x->preflight)
        return ts_exchange_respond(x, 204);
    if (x->route && x->route->post)
        return ts_exchange_generate(x);
    if (x->route)
        x->route->answer(x);
    return x->no.status ? ts_exchange_refuse(x) : ts_exchange_respond(x, 200);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    ts_http *h = cls;
    ts_exchange *x = *state;
    (void)version;
    if (!x) {
        x = open_exchange(h, c, path, method);
        if (!x)
            return ts_exchange_no_memory(h, c);
        *state = x;
        atomic_fetch_add(&h->service->metrics.in_flight, 1);
        /* who asks first is told at once */
        bool asks = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Expect") != NULL;
        if (x->no.status && asks) {
            x->begun = true;
            return ts_exchange_refuse(x);
        }
        return MHD_YES;
    }
    if (*n > 0) {
        ts_exchange_take(x, data, *n);
        *n = 0;
        return x->discarded > TS_EXCHANGE_MAX_DROPPED ? MHD_NO : MHD_YES;
    }
    if (!x->begun)
        return begin(x);
    return x->status ? MHD_YES : ts_exchange_go_on(x);
}

/* --- ends ---------------------------------------------------------------- */

static const char *end_of(const ts_exchange *x, enum MHD_RequestTerminationCode how)
{
    if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        return "disconnected";
    if (!x->job || x->no.status || x->job->request.ask == TS_ASK_EMBEDDING)
        return NULL;
    return x->job->choices[0].end == TS_GEN_LENGTH ? "length" : "stop";
}

static void count(ts_exchange *x, double seconds)
{
    ts_metrics *m = &x->http->service->metrics;
    const ts_route *routes;
    size_t n = ts_routes(&routes);
    size_t i = x->route ? (size_t)(x->route - routes) : x->page ? n : n + 1;
    int hundreds = x->status / 100;
    if (hundreds >= 1 && hundreds <= 5)
        atomic_fetch_add(&m->answered[i][hundreds - 1], 1);
    if (!x->job)
        return;
    ts_histogram_add(&m->whole, seconds);
    if (x->job->first_token > 0)
        ts_histogram_add(&m->first_token, x->job->first_token);
}

static void log_exchange(ts_exchange *x, enum MHD_RequestTerminationCode how, double seconds)
{
    ts_access a = {.id = x->job ? x->job->id : x->id,
                   .client = x->client,
                   .method = x->method,
                   .path = x->path,
                   .key = x->key,
                   .status = x->status,
                   .received = x->received,
                   .sent = x->sent,
                   .seconds = seconds,
                   .code = x->no.code,
                   .end = end_of(x, how),
                   .generated = x->job != NULL};
    if (x->job) {
        ts_job_usage(x->job, &a.usage);
        a.first_token = x->job->first_token;
    }
    if (x->http->o.log_prompts && x->in.n > 0) {
        a.prompt = x->in.s;
        a.n_prompt = x->in.n;
    }
    ts_access_log_write(x->http->o.log, &a);
}

/* Closing a job may take as long as a step, which is too long for a thread that serves others. */
static void leave_job(ts_http *h, ts_job *j)
{
    if (!j || j->n_ended == j->n_started) {
        ts_job_close(j);
        return;
    }
    ts_job_leave(j);
    pthread_mutex_lock(&h->lock);
    j->next = h->left;
    h->left = j;
    pthread_mutex_unlock(&h->lock);
}

static void close_left(ts_http *h)
{
    pthread_mutex_lock(&h->lock);
    ts_job *j = h->left, *next;
    h->left = NULL;
    pthread_mutex_unlock(&h->lock);
    for (; j; j = next) {
        next = j->next;
        ts_job_close(j);
    }
}

static void on_completed(void *cls, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode how)
{
    ts_http *h = cls;
    ts_exchange *x = *state;
    (void)c;
    if (!x)
        return;
    *state = NULL;
    double seconds = ts_now() - x->t0;
    count(x, seconds);
    log_exchange(x, how, seconds);
    leave_job(h, x->job);
    ts_conn_set(&h->conns, x->conn, TS_CONN_IDLE);
    ts_exchange_let_go(x);
    atomic_fetch_sub(&h->service->metrics.in_flight, 1);
    ts_sb_free(&x->in);
    ts_sb_free(&x->out);
    free(x->path);
    free(x);
}

/* A send buffer that doesn't grow: who doesn't read is seen sooner, and takes less memory. */
static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    ts_http *h = cls;
    const int room = 256 << 10;
    const union MHD_ConnectionInfo *i;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        ts_conn_close(&h->conns, *context);
        *context = NULL;
        return;
    }
    i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!i)
        return;
    setsockopt(i->connect_fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    *context = ts_conn_open(&h->conns, i->connect_fd);
    if (!*context)
        shutdown(i->connect_fd, SHUT_RDWR);
}

/* --- open and close ------------------------------------------------------ */

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static int open_socket(const struct addrinfo *a)
{
    const int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), why;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 512) == 0)
        return fd;
    why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* With port 0 the kernel has chosen one. */
static void set_url(ts_http *h, int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    bool six;
    getsockname(fd, (struct sockaddr *)&a, &n);
    if (getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    six = strchr(host, ':') != NULL;
    snprintf(h->url, sizeof h->url, "http://%s%.200s%s:%s", six ? "[" : "", host, six ? "]" : "",
             port);
}

static ts_status find_host(const char *host, int port, bool guarded, struct addrinfo **out,
                           ts_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    int why = getaddrinfo(host, text, &hints, out);
    if (why)
        return ts_fail(err, TS_BAD_ARG, "--host %s: no such address: %s", host, gai_strerror(why));
    if (is_loopback((*out)->ai_addr) || guarded)
        return TS_OK;
    freeaddrinfo(*out);
    return ts_fail(err, TS_BAD_ARG,
                   "--host %s can be reached from other machines: --api-key says who may ask, "
                   "--no-auth that everybody may",
                   host);
}

ts_status ts_http_check_host(const char *host, bool guarded, ts_error *err)
{
    struct addrinfo *a = NULL;
    ts_status st = find_host(host, 0, guarded, &a, err);
    if (st == TS_OK)
        freeaddrinfo(a);
    return st;
}

static ts_status listen_at(ts_http *h, int *out, ts_error *err)
{
    const ts_http_options *o = &h->o;
    struct addrinfo *a = NULL;
    ts_status st = find_host(o->host, o->port, o->n_keys > 0 || o->no_auth, &a, err);
    if (st)
        return st;
    h->local = is_loopback(a->ai_addr);
    *out = open_socket(a);
    if (*out < 0)
        st = ts_fail(err, TS_IO, "%s, port %d: cannot be listened at: %s", o->host, o->port,
                     strerror(errno));
    freeaddrinfo(a);
    if (st == TS_OK)
        set_url(h, *out);
    return st;
}

/* A path with a NUL would end there: it stays as it is, and nothing is found at it. */
static size_t unescape(void *cls, struct MHD_Connection *c, char *s)
{
    (void)cls, (void)c;
    return strstr(s, "%00") ? strlen(s) : MHD_http_unescape(s);
}

/* What libmicrohttpd has to say is about strangers' mistakes. */
static void quiet(void *cls, const char *fmt, va_list ap)
{
    (void)cls, (void)fmt, (void)ap;
}

/* At the end nobody new comes in. MHD_quiesce_daemon isn't for that: with epoll it and a thread
 * that serves may take the socket out of the same set, and the second one aborts the program. */
static enum MHD_Result may_come(void *cls, const struct sockaddr *from, socklen_t n)
{
    const ts_http *h = cls;
    (void)from, (void)n;
    return atomic_load(&h->ending) ? MHD_NO : MHD_YES;
}

static ts_status start(ts_http *h, int fd, ts_error *err)
{
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, may_come,
        h, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)h->o.n_threads, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)h->o.max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)128 << 10,
        MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        h, MHD_OPTION_END);
    if (h->daemon)
        return TS_OK;
    close(fd);
    return ts_fail(err, TS_IO, "%s: libmicrohttpd could not be started", h->url);
}

ts_status ts_http_open(ts_http **out, const ts_http_options *o, ts_error *err)
{
    const ts_route *routes;
    int fd = -1;
    ts_http *h = ts_calloc(1, sizeof *h);
    if (!h)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the server");
    h->o = *o;
    h->service = o->service;
    h->conns = (ts_conns){.timeout_read = o->timeout_read,
                          .timeout_write = o->timeout_write,
                          .metrics = &o->service->metrics};
    pthread_mutex_init(&h->lock, NULL);
    size_t n = ts_routes(&routes);
    for (size_t i = 0; i < n; i++)
        h->service->metrics.route[i] = routes[i].path;
    h->service->metrics.route[n] = "page";
    h->service->metrics.route[n + 1] = "none";
    h->no_memory = MHD_create_response_from_buffer(strlen(ts_refusal_no_memory),
                                                   (void *)(uintptr_t)ts_refusal_no_memory,
                                                   MHD_RESPMEM_PERSISTENT);
    if (h->no_memory) {
        MHD_add_response_header(h->no_memory, "Content-Type", "application/json");
        MHD_add_response_header(h->no_memory, "Retry-After", "1");
    }
    /* some more: one that is closed may still be there while the next one comes */
    ts_status st = ts_conns_open(&h->conns, (size_t)o->max_connections + 64, err);
    if (st == TS_OK && !h->no_memory)
        st = ts_fail(err, TS_NO_MEMORY, "no memory for the server");
    if (st == TS_OK)
        st = listen_at(h, &fd, err);
    if (st == TS_OK)
        st = start(h, fd, err);
    if (st) {
        ts_http_close(h);
        return st;
    }
    *out = h;
    return TS_OK;
}

const char *ts_http_url(const ts_http *h)
{
    return h->url;
}

bool ts_http_tick(ts_http *h)
{
    ts_conns_tick(&h->conns);
    close_left(h);
    return ts_exchange_read_large(h);
}

void ts_http_drain(ts_http *h)
{
    atomic_store(&h->draining, true);
}

void ts_http_end(ts_http *h)
{
    atomic_store(&h->ending, true);
}

int64_t ts_http_in_flight(const ts_http *h)
{
    return atomic_load(&h->service->metrics.in_flight);
}

void ts_http_close(ts_http *h)
{
    if (!h)
        return;
    if (h->daemon) {
        ts_http_drain(h);
        ts_http_end(h);
        /* libmicrohttpd can't be stopped while a connection is suspended: until the step that is
         * being computed has ended, however long it takes. Others get five seconds. */
        for (int i = 0; atomic_load(&h->suspended) > 0 || (i < 500 && ts_http_in_flight(h) > 0);
             i++) {
            ts_http_tick(h);
            usleep(10000);
        }
        MHD_stop_daemon(h->daemon);
    }
    if (h->no_memory)
        MHD_destroy_response(h->no_memory);
    close_left(h);
    ts_conns_close(&h->conns);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

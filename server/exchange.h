/* exchange.h - one request and its answer, inside the server. */
#ifndef TS_EXCHANGE_H
#define TS_EXCHANGE_H

#include <microhttpd.h>

#include "conn.h"
#include "http.h"
#include "job.h"
#include "page.h"

typedef struct ts_exchange ts_exchange;

/* Of a body that is refused so much is read before the connection is closed. */
enum { TS_EXCHANGE_MAX_DROPPED = 1 << 30 };

struct ts_http {
    ts_http_options o;
    ts_service *service;
    struct MHD_Daemon *daemon;
    struct MHD_Response *no_memory; /* made beforehand */
    ts_conns conns;
    char url[300];
    bool local; /* reached from this machine alone */
    atomic_bool draining, ending;
    _Atomic size_t held;   /* bytes of bodies in memory, and of what is kept of them */
    atomic_long suspended; /* connections that are, with which the daemon can't be stopped */
    pthread_mutex_t lock;  /* of what ts_http_tick has to do: */
    ts_job *left;          /* jobs whose client went away, to be closed */
    ts_exchange *large;    /* requests with large bodies, to be read    */
};

typedef enum ts_route_kind { TS_ROUTE_INFO, TS_ROUTE_ASK } ts_route_kind;

typedef struct ts_route {
    const char *path;
    bool post;                      /* POST, else GET and HEAD */
    bool open;                      /* without a key           */
    void (*answer)(ts_exchange *x); /* fills body and type, or refuses; NULL: generates */
    ts_ask ask;                     /* of POST                 */
} ts_route;

struct ts_exchange {
    ts_http *http;
    struct MHD_Connection *connection;
    ts_conn *conn;
    int fd;
    const ts_route *route;    /* NULL: none */
    const ts_page_file *page; /* or a file  */
    const char *tail;         /* what follows the route's path */
    ts_refusal no;            /* status 0: nothing is wrong so far */
    const char *allow;        /* of 405 */
    bool preflight;           /* OPTIONS */
    bool begun;               /* the whole request has come */
    ts_sb in;                 /* the body */
    size_t held, discarded;   /* of it: in memory, dropped */
    ts_sb out;                /* the answer of a route that doesn't generate */
    const char *type;
    ts_exchange *next; /* of those with large bodies                          */
    bool read;         /* such a body has been: no, out or job say the result */
    ts_job *job;
    const char *rest; /* constant text that ends a stream */
    /* for the log */
    char id[TS_ID_MAX], client[64];
    char method[12], *path;
    int key; /* from 1; 0: none */
    uint64_t client_hash;
    double t0;
    uint64_t received, sent;
    int status;
};

/* route.c: what a request is for; refuses what isn't there. */
void ts_exchange_route(ts_exchange *x, const char *path, const char *method);
size_t ts_routes(const ts_route **out);

/* guard.c: may it be answered, by what its header says? Refuses if not. */
void ts_exchange_check(ts_exchange *x);
/* Headers for scripts of other pages, if they were asked for. */
void ts_exchange_cors(const ts_exchange *x, struct MHD_Response *r);
/* Does the body still fit? */
void ts_exchange_take(ts_exchange *x, const char *data, size_t n);
/* Its body doesn't count any more. */
void ts_exchange_let_go(ts_exchange *x);

/* respond.c: the answer is queued. */
enum MHD_Result ts_exchange_refuse(ts_exchange *x);
/* Takes x->out over. */
enum MHD_Result ts_exchange_respond(ts_exchange *x, int status);
enum MHD_Result ts_exchange_stream(ts_exchange *x);
/* After everything else failed. */
enum MHD_Result ts_exchange_no_memory(ts_http *h, struct MHD_Connection *c);

/* generate.c: reads the body, starts what it asks for; or goes on when something came. */
enum MHD_Result ts_exchange_generate(ts_exchange *x);
enum MHD_Result ts_exchange_go_on(ts_exchange *x);
/* Reads one of the large bodies; true: there are more. */
bool ts_exchange_read_large(ts_http *h);

#endif

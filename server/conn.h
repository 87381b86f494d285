/* conn.h - the connections of a server, and how long each may take.
 *
 * libmicrohttpd's own timeout begins anew with every byte, so that a byte a minute holds a
 * connection for ever, and it doesn't run at all while a connection is suspended. So the
 * connections are listed here, and whoever owns the server looks through them some times a second
 * (ts_conns_tick). What the kernel has received and what the other side has acknowledged come from
 * TCP_INFO. A connection that is too slow is shut down; libmicrohttpd then closes it. */
#ifndef TS_CONN_H
#define TS_CONN_H

#include <pthread.h>

#include "metrics.h"

typedef enum ts_conn_phase {
    TS_CONN_RECEIVES, /* a request is coming: all of it within timeout_read of its first byte     */
    TS_CONN_WORKS,    /* it is answered: no limit                                                 */
    TS_CONN_SENDS,    /* the answer goes out: something is acknowledged within each timeout_write */
    TS_CONN_IDLE,     /* between two requests: timeout_read                                       */
} ts_conn_phase;

typedef struct ts_conn {
    struct ts_conn *prev, *next;
    int fd;
    ts_conn_phase phase;
    double since;
    uint64_t bytes; /* received, or acknowledged, when `since` was set */
    bool ended;     /* shut down already */
} ts_conn;

typedef struct ts_conns {
    pthread_mutex_t lock;
    ts_conn *first;
    ts_conn *free;                      /* by next */
    ts_conn *all;                       /* [as many as there may be] */
    double timeout_read, timeout_write; /* seconds; 0: none */
    ts_metrics *metrics;
} ts_conns;

/* Room for n. TS_NO_MEMORY. */
ts_status ts_conns_open(ts_conns *all, size_t n, ts_error *err);
void ts_conns_close(ts_conns *all);

/* NULL: there are as many as there is room for. */
ts_conn *ts_conn_open(ts_conns *all, int fd);
void ts_conn_close(ts_conns *all, ts_conn *c); /* before its socket is closed */

void ts_conn_set(ts_conns *all, ts_conn *c, ts_conn_phase phase);
void ts_conns_tick(ts_conns *all);

/* Has the other side closed it? From any thread, while the socket is open. */
bool ts_conn_gone(int fd);

#endif

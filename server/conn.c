/* conn.c - connections and their time limits. */
#include "conn.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/clock.h"

/* Kernels before 4.1 don't count bytes: then a connection looks as if nothing ever moved on it, and
 * only what waits to be sent tells. */
static struct tcp_info info_of(int fd)
{
    struct tcp_info i = {0};
    socklen_t n = sizeof i;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n))
        return (struct tcp_info){0};
    return i;
}

static uint64_t bytes_of(const ts_conn *c, ts_conn_phase phase)
{
    struct tcp_info i = info_of(c->fd);
    return phase == TS_CONN_SENDS ? i.tcpi_bytes_acked : i.tcpi_bytes_received;
}

ts_status ts_conns_open(ts_conns *all, size_t n, ts_error *err)
{
    pthread_mutex_init(&all->lock, NULL);
    all->all = ts_calloc(n, sizeof *all->all);
    if (!all->all)
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu connections", n);
    for (size_t i = 0; i < n; i++) {
        all->all[i].next = all->free;
        all->free = &all->all[i];
    }
    return TS_OK;
}

void ts_conns_close(ts_conns *all)
{
    free(all->all);
    pthread_mutex_destroy(&all->lock);
}

ts_conn *ts_conn_open(ts_conns *all, int fd)
{
    pthread_mutex_lock(&all->lock);
    ts_conn *c = all->free;
    if (!c) {
        pthread_mutex_unlock(&all->lock);
        return NULL;
    }
    all->free = c->next;
    *c = (ts_conn){.fd = fd, .since = ts_now(), .next = all->first};
    if (c->next)
        c->next->prev = c;
    all->first = c;
    pthread_mutex_unlock(&all->lock);
    atomic_fetch_add(&all->metrics->connections, 1);
    return c;
}

void ts_conn_close(ts_conns *all, ts_conn *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&all->lock);
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        all->first = c->next;
    c->next = all->free;
    all->free = c;
    pthread_mutex_unlock(&all->lock);
    atomic_fetch_sub(&all->metrics->connections, 1);
}

void ts_conn_set(ts_conns *all, ts_conn *c, ts_conn_phase phase)
{
    if (!c)
        return;
    pthread_mutex_lock(&all->lock);
    c->phase = phase;
    c->since = ts_now();
    c->bytes = phase == TS_CONN_SENDS || phase == TS_CONN_IDLE ? bytes_of(c, phase) : 0;
    pthread_mutex_unlock(&all->lock);
}

/* Something has come that we haven't read yet: then it is us who are slow. */
static bool has_unread(int fd)
{
    int n = 0;
    return ioctl(fd, SIOCINQ, &n) == 0 && n > 0;
}

/* Nothing of ours is on its way while a request comes, so that a sentence can go out. */
static void end_sender(ts_conns *all, ts_conn *c, bool speak)
{
    static const char late[] =
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: "
        "close\r\n\r\n"
        "{\"error\": {\"message\": \"The request came too slowly.\", \"type\": "
        "\"invalid_request_error\", \"param\": null, \"code\": \"request_timeout\"}}";
    if (speak)
        (void)!send(c->fd, late, sizeof late - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    shutdown(c->fd, SHUT_RDWR);
    c->ended = true;
    if (speak)
        atomic_fetch_add(&all->metrics->slow_senders, 1);
}

/* Whatever waits to be sent, and isn't acknowledged. */
static void watch_reader(ts_conns *all, ts_conn *c, double now)
{
    int waits = 0;
    uint64_t acked = bytes_of(c, TS_CONN_SENDS);
    if (ioctl(c->fd, SIOCOUTQ, &waits))
        waits = 0;
    if (waits == 0 || acked != c->bytes) {
        c->bytes = acked;
        c->since = now;
    } else if (all->timeout_write > 0 && now - c->since > all->timeout_write) {
        shutdown(c->fd, SHUT_RDWR);
        c->ended = true;
        atomic_fetch_add(&all->metrics->slow_readers, 1);
    }
}

static void watch(ts_conns *all, ts_conn *c, double now)
{
    bool late = all->timeout_read > 0 && now - c->since > all->timeout_read;
    switch (c->phase) {
    case TS_CONN_WORKS:
        return;
    case TS_CONN_SENDS:
        watch_reader(all, c, now);
        return;
    case TS_CONN_IDLE:
        if (bytes_of(c, TS_CONN_IDLE) != c->bytes) {
            c->phase = TS_CONN_RECEIVES;
            c->since = now;
        } else if (late) {
            end_sender(all, c, false);
        }
        return;
    case TS_CONN_RECEIVES:
        if (late && !has_unread(c->fd))
            end_sender(all, c, true);
    }
}

void ts_conns_tick(ts_conns *all)
{
    double now = ts_now();
    pthread_mutex_lock(&all->lock);
    for (ts_conn *c = all->first; c; c = c->next)
        if (!c->ended)
            watch(all, c, now);
    pthread_mutex_unlock(&all->lock);
}

bool ts_conn_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

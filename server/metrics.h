/* metrics.h - counters of a server, as Prometheus reads them. Any thread may count. */
#ifndef TS_METRICS_H
#define TS_METRICS_H

#include <stdatomic.h>

#include "base/mem.h"
#include "sched.h"

enum { TS_METRICS_ROUTES = 24, TS_METRICS_BUCKETS = 14 };

/* Seconds in buckets, each with what is at most its bound. */
typedef struct ts_histogram {
    _Atomic uint64_t bucket[TS_METRICS_BUCKETS + 1];
    _Atomic uint64_t micros;
} ts_histogram;

typedef struct ts_metrics {
    const char *route[TS_METRICS_ROUTES];
    /* by hundreds of the status: [0] is 1xx; and of these the ones worth a name of their own */
    _Atomic uint64_t answered[TS_METRICS_ROUTES][5];
    _Atomic uint64_t unauthorized, queue_full, too_large, slow_senders, slow_readers;
    _Atomic int64_t connections, in_flight;
    ts_histogram first_token, whole;
} ts_metrics;

void ts_histogram_add(ts_histogram *h, double seconds);

/* Adds all of them, the scheduler's too. */
void ts_metrics_write(ts_metrics *m, ts_sched *s, ts_sb *b);

#endif

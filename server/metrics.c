/* metrics.c - Prometheus' text format, version 0.0.4. */
#include "metrics.h"

#include <stdio.h>
#include <unistd.h>

static const double bounds[TS_METRICS_BUCKETS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                  1,     2.5,  5,     10,   30,  60,   120};

void ts_histogram_add(ts_histogram *h, double seconds)
{
    int i = 0;
    while (i < TS_METRICS_BUCKETS && seconds > bounds[i])
        i++;
    atomic_fetch_add(&h->bucket[i], 1);
    atomic_fetch_add(&h->micros, seconds > 0 ? (uint64_t)(seconds * 1e6) : 0);
}

static void head(ts_sb *b, const char *name, const char *type, const char *help)
{
    ts_sb_printf(b, "# HELP tessera_%s %s\n# TYPE tessera_%s %s\n", name, help, name, type);
}

static void counter(ts_sb *b, const char *name, const char *help, uint64_t v)
{
    head(b, name, "counter", help);
    ts_sb_printf(b, "tessera_%s %llu\n", name, (unsigned long long)v);
}

static void gauge(ts_sb *b, const char *name, const char *help, int64_t v)
{
    head(b, name, "gauge", help);
    ts_sb_printf(b, "tessera_%s %lld\n", name, (long long)v);
}

static void seconds(ts_sb *b, const char *name, const char *help, double v)
{
    head(b, name, "counter", help);
    ts_sb_printf(b, "tessera_%s %.6f\n", name, v);
}

static void histogram(ts_sb *b, const char *name, const char *help, ts_histogram *h)
{
    uint64_t sum = 0;
    head(b, name, "histogram", help);
    for (int i = 0; i <= TS_METRICS_BUCKETS; i++) {
        sum += atomic_load(&h->bucket[i]);
        if (i < TS_METRICS_BUCKETS)
            ts_sb_printf(b, "tessera_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                         (unsigned long long)sum);
    }
    ts_sb_printf(b, "tessera_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
    ts_sb_printf(b, "tessera_%s_sum %.6f\ntessera_%s_count %llu\n", name,
                 1e-6 * (double)atomic_load(&h->micros), name, (unsigned long long)sum);
}

static void requests(ts_metrics *m, ts_sb *b)
{
    head(b, "http_requests_total", "counter", "Requests answered, by route and status.");
    for (int i = 0; i < TS_METRICS_ROUTES && m->route[i]; i++)
        for (int k = 0; k < 5; k++) {
            uint64_t n = atomic_load(&m->answered[i][k]);
            if (n)
                ts_sb_printf(b, "tessera_http_requests_total{route=\"%s\",status=\"%dxx\"} %llu\n",
                             m->route[i], k + 1, (unsigned long long)n);
        }
    counter(b, "http_unauthorized_total", "Requests with a wrong key or none.",
            atomic_load(&m->unauthorized));
    counter(b, "http_queue_full_total", "Requests refused because the queue was full.",
            atomic_load(&m->queue_full));
    counter(b, "http_too_large_total", "Requests whose body or header was too large.",
            atomic_load(&m->too_large));
    counter(b, "http_slow_senders_total", "Connections ended because a request came too slowly.",
            atomic_load(&m->slow_senders));
    counter(b, "http_slow_readers_total", "Connections ended because an answer wasn't read.",
            atomic_load(&m->slow_readers));
    gauge(b, "http_connections", "Connections that are open.", atomic_load(&m->connections));
    gauge(b, "http_requests_in_flight", "Requests being answered.", atomic_load(&m->in_flight));
}

static void scheduler(const ts_sched_info *i, ts_sb *b)
{
    gauge(b, "slots", "Generations that can run at once.", i->n_slots);
    gauge(b, "slots_busy", "Generations that run.", i->n_running);
    gauge(b, "queue_length", "Generations that wait for a slot.", i->n_waiting);
    gauge(b, "queue_limit", "Generations that may wait.", i->n_queue);
    counter(b, "prompt_tokens_total", "Tokens of prompts.", (uint64_t)i->n_prompt);
    counter(b, "cached_tokens_total", "Tokens of prompts found in the KV cache.",
            (uint64_t)i->n_cached);
    counter(b, "generated_tokens_total", "Tokens made.", (uint64_t)i->n_made);
    counter(b, "steps_total", "Batches evaluated.", (uint64_t)i->n_steps);
    counter(b, "evaluated_tokens_total", "Tokens in these batches.", (uint64_t)i->n_evaluated);
    counter(b, "generations_done_total", "Generations that ended by themselves.",
            (uint64_t)i->n_done);
    counter(b, "generations_cancelled_total", "Generations whose client went away.",
            (uint64_t)i->n_cancelled);
    counter(b, "generations_failed_total", "Generations that failed.", (uint64_t)i->n_failed);
    counter(b, "generations_preempted_total", "Times a generation gave its memory to others.",
            (uint64_t)i->n_preempted);
    counter(b, "generations_refused_total", "Generations refused before they began.",
            (uint64_t)i->n_refused);
    seconds(b, "prefill_seconds_total", "Time of steps with prompts.", i->prefill_seconds);
    seconds(b, "decode_seconds_total", "Time of steps without.", i->decode_seconds);
    head(b, "kv_pages", "gauge", "Pages of the KV cache, by what they hold.");
    ts_sb_printf(b,
                 "tessera_kv_pages{state=\"held\"} %lld\ntessera_kv_pages{state=\"cached\"} "
                 "%lld\ntessera_kv_pages{state=\"free\"} %lld\n",
                 (long long)i->kv.n_held, (long long)i->kv.n_cached, (long long)i->kv.n_free);
}

/* Pages this process has in memory; 0: unknown. */
static int64_t resident_pages(void)
{
    long long all = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return 0;
    if (fscanf(f, "%lld %lld", &all, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident;
}

void ts_metrics_write(ts_metrics *m, ts_sched *s, ts_sb *b)
{
    ts_sched_info i;
    ts_sched_get_info(s, &i);
    requests(m, b);
    scheduler(&i, b);
    histogram(b, "first_token_seconds", "From a request's last byte to its first token.",
              &m->first_token);
    histogram(b, "request_seconds", "From a request's first byte to its answer's last.", &m->whole);
    gauge(b, "resident_memory_bytes", "Memory of the process.",
          resident_pages() * sysconf(_SC_PAGESIZE));
    head(b, "build_info", "gauge", "The version.");
    ts_sb_printf(b, "tessera_build_info{version=\"%s\"} 1\n", ts_version());
}

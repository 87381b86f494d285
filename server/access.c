/* access.c - lines about requests. */
#include "access.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct ts_access_log {
    pthread_mutex_t lock; /* of fd */
    int fd;
    char *path; /* NULL: standard error */
};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

ts_status ts_access_log_open(ts_access_log **out, const char *path, ts_error *err)
{
    ts_access_log *l = ts_calloc(1, sizeof *l);
    if (l && path)
        l->path = strdup(path);
    if (!l || (path && !l->path)) {
        free(l);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the access log");
    }
    l->fd = path ? open_file(path) : STDERR_FILENO;
    if (l->fd < 0) {
        ts_fail(err, TS_IO, "%s: cannot be opened: %s", path, strerror(errno));
        free(l->path);
        free(l);
        return TS_IO;
    }
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return TS_OK;
}

void ts_access_log_close(ts_access_log *l)
{
    if (!l)
        return;
    if (l->path)
        close(l->fd);
    free(l->path);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

ts_status ts_access_log_reopen(ts_access_log *l, ts_error *err)
{
    if (!l || !l->path)
        return TS_OK;
    int fd = open_file(l->path);
    if (fd < 0)
        return ts_fail(err, TS_IO, "%s: cannot be opened: %s", l->path, strerror(errno));
    pthread_mutex_lock(&l->lock);
    int old = l->fd;
    l->fd = fd;
    pthread_mutex_unlock(&l->lock);
    close(old);
    return TS_OK;
}

static void add_time(ts_sb *b)
{
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    ts_sb_printf(b, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\"", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, t.tv_nsec / 1000000);
}

static void add_text(ts_sb *b, const char *name, const char *s, size_t n)
{
    if (!s)
        return;
    ts_sb_printf(b, ",\"%s\":", name);
    ts_sb_json_str(b, s, n);
}

static void add_word(ts_sb *b, const char *name, const char *s)
{
    /* a path may be as long as a header */
    add_text(b, name, s, s ? strnlen(s, 200) : 0);
}

static void add_usage(ts_sb *b, const ts_access *a)
{
    const ts_gen_usage *u = &a->usage;
    ts_sb_printf(b,
                 ",\"prompt_tokens\":%lld,\"cached_tokens\":%lld,\"completion_tokens\":%lld,"
                 "\"wait_ms\":%.1f,\"first_token_ms\":%.1f,\"decode_ms\":%.1f",
                 (long long)u->n_prompt, (long long)u->n_cached, (long long)u->n_made,
                 1e3 * u->wait, 1e3 * a->first_token, 1e3 * u->decode);
}

void ts_access_log_write(ts_access_log *l, const ts_access *a)
{
    ts_sb b = {0};
    if (!l)
        return;
    add_time(&b);
    add_word(&b, "id", a->id);
    add_word(&b, "client", a->client);
    if (a->key > 0)
        ts_sb_printf(&b, ",\"key\":%d", a->key);
    add_word(&b, "method", a->method);
    add_word(&b, "path", a->path);
    ts_sb_printf(&b, ",\"status\":%d,\"received\":%llu,\"sent\":%llu,\"ms\":%.1f", a->status,
                 (unsigned long long)a->received, (unsigned long long)a->sent, 1e3 * a->seconds);
    add_word(&b, "code", a->code);
    if (a->generated)
        add_usage(&b, a);
    add_word(&b, "end", a->end);
    add_text(&b, "prompt", a->prompt, a->n_prompt);
    ts_sb_str(&b, "}\n");
    if (!b.failed) {
        pthread_mutex_lock(&l->lock);
        /* one write: lines of several threads, or processes, don't mix */
        (void)!write(l->fd, b.s, b.n);
        pthread_mutex_unlock(&l->lock);
    }
    ts_sb_free(&b);
}

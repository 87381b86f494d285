/* stats.c - the statistics of a session, as text on stderr and as JSON in a file. */
#include "stats.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void stats_start(ts_session *s, const stats_opts *o)
{
    if (o->text || o->json)
        ts_session_set_stats(s, true);
}

static ts_status write_file(const char *path, const char *text, ts_error *err)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return ts_fail(err, TS_IO, "%s: cannot be created: %s", path, strerror(errno));
    bool failed = fputs(text, f) < 0;
    failed |= fclose(f) != 0;
    return failed ? ts_fail(err, TS_IO, "%s: cannot be written: %s", path, strerror(errno)) : TS_OK;
}

ts_status stats_report(const ts_session *s, const stats_opts *o, ts_error *err)
{
    char *text;
    ts_status st = TS_OK;

    if (o->text && !(st = ts_session_stats(s, false, &text, err))) {
        fprintf(stderr, "\n%s", text);
        ts_free(text);
    }
    if (o->json && !st && !(st = ts_session_stats(s, true, &text, err))) {
        st = write_file(o->json, text, err);
        ts_free(text);
    }
    return st;
}

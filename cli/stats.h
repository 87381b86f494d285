/* stats.h - --stats and --stats-json: what the work of a session was, and how fast. */
#ifndef TS_CLI_STATS_H
#define TS_CLI_STATS_H

#include "opt.h"

typedef struct stats_opts {
    bool text;
    const char *json; /* file to write, NULL = none */
} stats_opts;

/* Rows of an option table. */
#define STATS_OPTION(o)                                                                            \
    OPT("Output", "--stats", OPT_FLAG, &(o)->text, NULL,                                           \
        "count and time the work of every kernel set and operation; printed to stderr")
#define STATS_OPTIONS(o)                                                                           \
    STATS_OPTION(o), OPT("Output", "--stats-json", OPT_STR, &(o)->json, "FILE",                    \
                         "the same as JSON, in a file (docs/CLI.md)")

/* Starts counting, if asked to. */
void stats_start(ts_session *s, const stats_opts *o);

/* Prints and writes what was asked for. TS_NO_MEMORY, TS_IO. */
ts_status stats_report(const ts_session *s, const stats_opts *o, ts_error *err);

#endif

/* access.h - the access log: a line of JSON a request. */
#ifndef TS_ACCESS_H
#define TS_ACCESS_H

#include "base/mem.h"
#include "sched.h"

typedef struct ts_access_log ts_access_log;

/* path: appended to; NULL: standard error. TS_IO, TS_NO_MEMORY. */
ts_status ts_access_log_open(ts_access_log **out, const char *path, ts_error *err);
void ts_access_log_close(ts_access_log *l);
/* Opens its file anew, which somebody has moved away; where that fails it goes on with the old. */
ts_status ts_access_log_reopen(ts_access_log *l, ts_error *err);

typedef struct ts_access {
    const char *id, *client, *method, *path, *end, *code, *prompt; /* NULL: left out */
    size_t n_prompt;
    int key; /* number of the key, from 1; 0: none */
    int status;
    uint64_t received, sent; /* bytes of bodies */
    double seconds, first_token;
    bool generated; /* usage counts */
    ts_gen_usage usage;
} ts_access;

/* From any thread. NULL log: nothing. */
void ts_access_log_write(ts_access_log *l, const ts_access *a);

#endif

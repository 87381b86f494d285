/* log.h - the one log sink. A zeroed ts_log is silent. */
#ifndef TS_LOG_H
#define TS_LOG_H

#include "base/status.h"

typedef struct ts_log {
    ts_log_fn *fn;
    void *user;
} ts_log;

void ts_logf(const ts_log *log, ts_log_level level, const char *fmt, ...) TS_PRINTF(3, 4);

#endif

/* log.c - formats a line and hands it to the sink. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void ts_logf(const ts_log *log, ts_log_level level, const char *fmt, ...)
{
    if (!log->fn)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    log->fn(log->user, level, line);
}

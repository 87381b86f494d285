/* status.c - one sentence per failure. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

ts_status ts_fail(ts_error *err, ts_status code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof err->msg)
        memcpy(err->msg + ts_utf8_cut(err->msg, sizeof err->msg - 4), "...", 4);
    err->code = code;
    return code;
}

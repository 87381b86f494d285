/* refusal.c - errors in OpenAI's shape. */
#include "refusal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NO_MEMORY                                                                                  \
    "{\"error\": {\"message\": \"The server is out of memory.\", \"type\": \"server_error\", "     \
    "\"param\": null, \"code\": \"out_of_memory\"}}"

const char ts_refusal_no_memory[] = NO_MEMORY;
const char ts_refusal_no_memory_event[] = "data: " NO_MEMORY "\n\n";

static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

ts_status ts_refuse(ts_refusal *no, int status, const char *code, const char *param,
                    const char *fmt, ...)
{
    va_list ap;
    no->status = status;
    no->code = code;
    snprintf(no->param, sizeof no->param, "%s", param);
    no->err.code = status == 429 ? TS_FULL : status < 500 ? TS_BAD_ARG : TS_IO;
    va_start(ap, fmt);
    vsnprintf(no->err.msg, sizeof no->err.msg, fmt, ap);
    va_end(ap);
    return no->err.code;
}

ts_status ts_refuse_error(ts_refusal *no, const char *param)
{
    snprintf(no->param, sizeof no->param, "%s", param);
    no->code = NULL;
    switch (no->err.code) {
    case TS_BAD_ARG:
    case TS_UNSUPPORTED:
        no->status = 400;
        break;
    case TS_FULL:
        no->status = 429;
        no->code = "queue_full";
        break;
    case TS_NO_MEMORY:
        no->status = 503;
        no->code = "out_of_memory";
        break;
    case TS_CANCELLED:
        no->status = 503;
        no->code = "shutting_down";
        break;
    default:
        no->status = 500;
    }
    if (no->status >= 429)
        no->param[0] = 0;
    return no->err.code;
}

static void add_or_null(ts_sb *b, const char *s)
{
    if (s && *s)
        ts_sb_json_str(b, s, strlen(s));
    else
        ts_sb_str(b, "null");
}

void ts_refusal_json(const ts_refusal *no, ts_sb *b)
{
    ts_sb_str(b, "{\"error\": {\"message\": ");
    ts_sb_json_str(b, no->err.msg, strlen(no->err.msg));
    ts_sb_printf(b, ", \"type\": \"%s\", \"param\": ", type_of(no->status));
    add_or_null(b, no->param);
    ts_sb_str(b, ", \"code\": ");
    add_or_null(b, no->code);
    ts_sb_str(b, "}}");
}

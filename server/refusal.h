/* refusal.h - why a request isn't answered: a status of HTTP and a sentence, in OpenAI's shape. */
#ifndef TS_REFUSAL_H
#define TS_REFUSAL_H

#include "base/mem.h"

/* Zero-initialise; owns nothing. */
typedef struct ts_refusal {
    int status;       /* of HTTP, 0: none                              */
    const char *code; /* "context_length_exceeded"; NULL: none; static */
    char param[64];   /* the field that is wrong; "": none             */
    ts_error err;
} ts_refusal;

/* Fills *no, and returns the code of its error: TS_BAD_ARG for 4xx, TS_FULL for 429, else TS_IO. */
ts_status ts_refuse(ts_refusal *no, int status, const char *code, const char *param,
                    const char *fmt, ...) TS_PRINTF(5, 6);

/* What a call of the library failed with (no->err) becomes a refusal of the field param ("": of
 * none): TS_BAD_ARG, TS_UNSUPPORTED 400; TS_FULL 429; TS_NO_MEMORY, TS_CANCELLED 503; else 500. */
ts_status ts_refuse_error(ts_refusal *no, const char *param);

/* Adds {"error": {"message", "type", "param", "code"}}. */
void ts_refusal_json(const ts_refusal *no, ts_sb *b);

/* What is sent where there is no memory for more: a body, and the same as an event of a stream. */
extern const char ts_refusal_no_memory[], ts_refusal_no_memory_event[];

#endif

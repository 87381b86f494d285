/* json.h - JSON texts to Jansson's values.
 *
 * Jansson's own reader (2.14) isn't used: where an allocation fails in it, it may lose characters
 * without a word, or end the process by an assertion. */
#ifndef TS_JSON_H
#define TS_JSON_H

#include <jansson.h>

#include "base/status.h"

enum { TS_JSON_MAX_DEPTH = 512 };

/* *out: a new reference. `what` is what the text is, for sentences: "the schema". Duplicate names,
 * NUL and halves of surrogate pairs are refused; integers beyond 64 bits become reals. TS_BAD_ARG
 * with line and column, TS_NO_MEMORY. */
ts_status ts_json_read(json_t **out, const char *s, size_t n, const char *what, ts_error *err);

#endif

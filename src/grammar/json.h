/* json.h - JSON texts to Jansson's values, and back.
 *
 * Jansson's own reader and writer (2.14) aren't used: where an allocation fails in them, they may
 * lose characters without a word, or end the process by an assertion. */
#ifndef TS_JSON_H
#define TS_JSON_H

#include <jansson.h>

#include "base/mem.h"

enum { TS_JSON_MAX_DEPTH = 512 };

enum {
    TS_JSON_NUL = 1,   /* reading: \u0000 may stand in strings, in names never  */
    TS_JSON_TWICE = 2, /* reading: of members of one name the last counts        */
    TS_JSON_LINES = 4, /* writing: each member and element on a line, indented   */
};

/* *out: a new reference. `what` is what the text is, for sentences: "the schema". Without flags
 * NUL and duplicate names are refused; halves of surrogate pairs always are. Integers beyond 64
 * bits become reals. TS_BAD_ARG with line and column, TS_NO_MEMORY. */
ts_status ts_json_read(json_t **out, const char *s, size_t n, const char *what, unsigned flags,
                       ts_error *err);

/* Adds v as Python's json.dumps(v, ensure_ascii=False) writes it: ", " and ": ", 0.1, 1.0. Memory
 * that is short leaves b->failed. */
void ts_json_write(const json_t *v, ts_sb *b, unsigned flags);

#endif

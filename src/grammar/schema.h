/* schema.h - JSON schemas to GBNF.
 *
 * The text that a schema's grammar matches is JSON which the schema accepts, in a form without
 * surprises: properties in the schema's order, little white space, numbers of bounded length. What
 * a schema asks for and a grammar can't promise is refused, never ignored. docs/CLI.md lists both.
 */
#ifndef TS_SCHEMA_H
#define TS_SCHEMA_H

#include "base/mem.h"

enum {
    TS_SCHEMA_MAX_TEXT = 1 << 20, /* bytes                                         */
    TS_SCHEMA_MAX_DEPTH = 64,     /* schemas in schemas                            */
    TS_SCHEMA_MAX_NAMES = 4096,   /* in `required`, and properties of one object   */
    TS_SCHEMA_MAX_WORK = 2 << 20, /* keywords and properties that are merged       */
    TS_REGEX_MAX_DEPTH = 64,      /* groups in groups                              */
};

/* *out: GBNF, allocated, NUL-terminated. schema NULL: any JSON object. TS_BAD_ARG, TS_UNSUPPORTED,
 * TS_NO_MEMORY. */
ts_status ts_schema_gbnf(const char *schema, size_t n, char **out, ts_error *err);

/* Appends to b what matches the JSON strings that an ECMAScript regular expression finds something
 * in, between their quotes. *least and *most: how many characters they have, *most < 0: any number.
 * TS_UNSUPPORTED, TS_BAD_ARG with a sentence that says what of the pattern. */
ts_status ts_regex_gbnf(ts_sb *b, const char *pattern, size_t n, int64_t *least, int64_t *most,
                        ts_error *err);

#endif

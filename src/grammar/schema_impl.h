/* schema_impl.h - what the files of the schema compiler share.
 *
 * A FLAT schema is a JSON object without $ref and allOf: what they stand for is merged into it. Its
 * keywords have one form each: `type` is an array, `const` and `enum` are `enum`, `anyOf` and
 * `oneOf` are `anyOf`, bounds are inclusive or exclusive numbers; what doesn't constrain is gone.
 * A schema that nothing satisfies is flat as `false`. */
#ifndef TS_SCHEMA_IMPL_H
#define TS_SCHEMA_IMPL_H

#include <jansson.h>

#include "grammar/ranges.h"
#include "grammar/schema.h"

typedef struct sc_rule {
    char name[40];
    int level; /* objects and arrays around it        */
    bool open; /* its text is being made              */
} sc_rule;

typedef struct sc {
    json_t *root;
    json_t *rule_of; /* object: text of a schema -> number of its rule */
    sc_rule *made;   /* [n_made] */
    size_t n_made, cap_made;
    ts_sb rules; /* finished ones           */
    ts_sb path;  /* where in the schema, for sentences */
    int level, depth;
    size_t work;      /* what TS_SCHEMA_MAX_WORK bounds */
    size_t n_objects; /* for the names of their rules */
    unsigned uses;    /* SC_... */
    ts_error *err;
} sc;

enum { /* rules that are the same for all schemas */
       SC_WS = 1,
       SC_CHAR = 2,
       SC_STRING = 4,
       SC_INTEGER = 8,
       SC_NUMBER = 16,
       SC_VALUE = 32, /* and object and array */
       SC_OBJECT = 64,
       SC_NONE = 128,
};

/* "the schema, at #/properties/x: ..." */
ts_status sc_fail(sc *c, ts_status code, const char *fmt, ...) TS_PRINTF(3, 4);
ts_status sc_no_memory(sc *c);
/* Of two numbers; integers are compared as such. */
bool sc_less(const json_t *a, const json_t *b);

/* The path with one more step; sc_leave takes what sc_enter gave. */
size_t sc_enter(sc *c, const char *step, const char *name);
void sc_leave(sc *c, size_t before);

/* Appends the name of a rule that is the same for all schemas. */
void sc_use(sc *c, ts_sb *b, unsigned which, const char *name);

/* The flat form of a schema: a new reference. */
ts_status sc_flatten(sc *c, json_t *schema, json_t **out);

/* The schema that is satisfied where both are: a new reference, NULL when memory is short. */
json_t *sc_both(json_t *a, json_t *b);

/* Appends an expression that matches what a schema accepts; it can stand in a sequence. */
ts_status sc_value(sc *c, json_t *schema, ts_sb *b);

/* The same for one type of a flat schema (schema_types.c). */
ts_status sc_object(sc *c, const json_t *flat, ts_sb *b);
ts_status sc_array(sc *c, const json_t *flat, ts_sb *b);
ts_status sc_string(sc *c, const json_t *flat, ts_sb *b);
ts_status sc_number(sc *c, const json_t *flat, bool integer, ts_sb *b); /* schema_number.c */
ts_status sc_enum(sc *c, const json_t *flat, ts_sb *b);                 /* schema_enum.c   */

/* Appends the name of a property, the colon and white space. */
ts_status sc_name(sc *c, const char *name, ts_sb *b);

/* Appends a JSON value as it is written, without white space. */
void sc_dump(const json_t *v, ts_sb *b);

#endif

/* grammar.h - the options that put a text under a grammar, for the commands that have them. */
#ifndef TS_CLI_GRAMMAR_H
#define TS_CLI_GRAMMAR_H

#include "opt.h"

typedef struct grammar_opts {
    const char *gbnf, *gbnf_file, *schema, *schema_file;
} grammar_opts;

#define GRAMMAR_OPTIONS(g)                                                                         \
    OPT("Grammar", "--grammar", OPT_STR, &(g)->gbnf, "GBNF",                                       \
        "make only what the grammar's rule `root` matches"),                                       \
        OPT("Grammar", "--grammar-file", OPT_STR, &(g)->gbnf_file, "FILE",                         \
            "the same, read from a file"),                                                         \
        OPT("Grammar", "-j, --json-schema", OPT_STR, &(g)->schema, "SCHEMA",                       \
            "make only JSON that the schema accepts; {} is any JSON"),                             \
        OPT("Grammar", "-jf, --json-schema-file", OPT_STR, &(g)->schema_file, "FILE",              \
            "the same, read from a file")

/* The GBNF that the options ask for, of a schema what it was made to: *out is allocated (free),
 * NULL when they ask for none; *n bytes. TS_BAD_ARG when more than one is given. */
ts_status grammar_read(const grammar_opts *o, char **out, size_t *n, ts_error *err);

#endif

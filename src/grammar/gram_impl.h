/* gram_impl.h - what gbnf.c hands to compile.c: the text as a tree. */
#ifndef TS_GRAM_IMPL_H
#define TS_GRAM_IMPL_H

#include "grammar/ranges.h"
#include "grammar/room.h"

typedef enum gb_kind { GB_EMPTY, GB_CLASS, GB_RULE, GB_SEQ, GB_ALT, GB_REP } gb_kind;

typedef struct gb_node {
    gb_kind kind;
    int32_t a;           /* CLASS: class; RULE: rule; REP: least times       */
    int32_t most;        /* REP: most times, -1: any number                  */
    int32_t child, next; /* first child (SEQ: the last) and its next sibling */
    size_t at;           /* of the text                                      */
} gb_node;

typedef struct gb_rule {
    size_t name, n_name; /* of the text                                */
    int32_t body;        /* node; -1: only mentioned so far, at `name` */
} gb_rule;

/* A grammar that is being read, and the positions which errors name. */
typedef struct gbnf {
    const char *text;
    size_t n, at;
    gb_node *nodes;
    gb_rule *rules;
    size_t n_nodes, n_rules, cap_nodes, cap_rules;
    int32_t *names; /* [n_names] hash table of rules, -1: free */
    size_t n_names;
    int32_t *sets; /* [n_sets] hash table of g's classes */
    size_t n_sets;
    ts_ranges set; /* the class that is being read */
    ts_gram *g;
    ts_error *err;
} gbnf;

/* A sentence that begins with the line and the column of byte `at`. */
ts_status gb_fail(gbnf *p, size_t at, const char *fmt, ...) TS_PRINTF(3, 4);
ts_status gb_no_memory(gbnf *p);

/* Fills the grammar's network from the tree, and checks it. */
ts_status gb_compile(gbnf *p);

#endif

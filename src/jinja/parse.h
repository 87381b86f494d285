/* parse.h - from a template's text to its tree. */
#ifndef TS_JINJA_PARSE_H
#define TS_JINJA_PARSE_H

#include "jinja/impl.h"

typedef enum j_tok_kind {
    T_EOF,
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    /* operators of two characters; of one: the character itself */
    T_EQ,
    T_NE,
    T_LE,
    T_GE,
    T_FLOORDIV,
    T_POW,
} j_tok_kind;

typedef struct j_tok {
    int kind;
    int line;
    union {
        const j_str *s; /* DATA, NAME, STR */
        int64_t i;
        double f;
    } u;
} j_tok;

/* A filter or test that nobody knows fails the template, unless it stands in a branch (jinja2 looks
 * at those only when it gets there). */
typedef struct j_unknown {
    const j_node *node;
    enum { UNKNOWN_OPEN, UNKNOWN_SOFT, UNKNOWN_HARD } state;
} j_unknown;

/* The macros around what is being parsed: which special names they use. */
typedef struct j_in_macro {
    struct j_in_macro *up;
    uint8_t catches;
} j_in_macro;

typedef struct j_parser {
    j_run *j;
    j_tok *tok; /* [n], T_EOF last */
    size_t n, cap, at;
    j_dict *names;
    const j_str *caller, *varargs, *kwargs, *loop;
    j_unknown *unknown;
    size_t n_unknown, cap_unknown;
    j_in_macro *macro;
    int loops; /* around this, up to the next macro */
} j_parser;

/* lex.c: fills tok. The text is valid UTF-8 with '\n' as its only line break. */
void j_lex(j_parser *p, const char *s, size_t n);
const j_str *j_intern(j_parser *p, const char *s, size_t n);

/* parse.c */
j_tok *j_cur(j_parser *p);
j_tok *j_take(j_parser *p); /* the current one; moves on */
bool j_is_name(j_parser *p, const char *name);
bool j_skip_name(j_parser *p, const char *name);
bool j_skip(j_parser *p, int kind);
j_tok *j_expect(j_parser *p, int kind, const char *what);
_Noreturn void j_unexpected(j_parser *p, const char *wanted);
j_node *j_node_new(j_parser *p, j_op op);
void j_nodes_add(j_parser *p, j_nodes *l, j_node *n);
j_node *j_parse_expr(j_parser *p, bool cond);
j_node *j_parse_primary(j_parser *p, bool nsref);
j_node *j_parse_filter(j_parser *p, j_node *of, bool inline_start);
typedef struct j_tuple_how {
    bool simple, no_cond, parens, nsref;
    const char *end; /* a name that ends it too */
} j_tuple_how;
j_node *j_parse_tuple(j_parser *p, j_tuple_how how);
/* Settles what was found unknown from `first` on and is still open. */
void j_settle(j_parser *p, size_t first, int state);

/* parse_stmt.c */
void j_parse_template(j_parser *p, j_nodes *body);

#endif

/* reply_grammar.h - what the files share that make grammars of calls.
 *
 * reply_grammar.c  calls: what the prompt gets, and the rules of names and markers
 * reply_params.c   the rules of a tool's arguments
 * reply_gbnf.c     how rules are written */
#ifndef TS_REPLY_GRAMMAR_H
#define TS_REPLY_GRAMMAR_H

#include "chat/reply_impl.h"

typedef struct rg_maker {
    const ts_reply_form *f;
    const char *prompt;
    size_t n_prompt;
    r_tools tools;
    const char *only; /* the one tool there is to call, or NULL */
    bool parallel;
    ts_sb prefix, root, rules;
    size_t schemas; /* bytes of schemas so far: definitions come with each that may use them */
    bool text;      /* the rules of plain text are there */
    ts_error *err;
} rg_maker;

ts_status rg_no_memory(rg_maker *m);

/* A literal and a space behind it; nothing of an empty one. */
void rg_literal(ts_sb *b, const char *s);
/* The rules of another grammar, with a prefix before their names. */
void rg_add_rules(ts_sb *b, const char *gbnf, const char *prefix);
/* The rule `text`: text up to the first `end` in it, and that. */
void rg_text_rules(rg_maker *m, const char *end);

/* Add the rules of a tool's arguments, the i-th: args-I-root is what stands between its name and
 * its end. TS_BAD_ARG, TS_UNSUPPORTED, TS_NO_MEMORY. */
ts_status rg_json_arguments(rg_maker *m, const char *name, const json_t *params, size_t i);
ts_status rg_tag_arguments(rg_maker *m, const char *tool, const json_t *params, size_t i);
ts_status rg_python_arguments(rg_maker *m, const char *tool, const json_t *params, size_t i);

#endif

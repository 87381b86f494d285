/* reply_grammar.c - grammars of calls: what an answer is when a tool must be called.
 *
 * Control tokens have no text for a grammar, so as many of the form's markers as don't depend on a
 * choice are put at the prompt's end, where they can be control tokens; the model goes on behind
 * them. With one tool that is up to the arguments. What comes later - the name's end where there
 * are several tools, the markers between calls - is written as text, which the reader takes for the
 * same.
 *
 * Each tool's parameters become rules of their own by the schema compiler; their names get a
 * prefix. */
#include <stdlib.h>
#include <string.h>

#include "chat/reply_grammar.h"
#include "gguf/show.h"

enum { MAX_CALLS = 16 }; /* in one answer: a model may find no end */

ts_status rg_no_memory(rg_maker *m)
{
    return ts_fail(m->err, TS_NO_MEMORY, "no memory for the grammar of tool calls");
}

/* --- calls ----------------------------------------------------------------------------- */

/* Up to three markers, with line breaks between those that are there. */
static void in_row(ts_sb *b, bool breaks, const char *x, const char *y, const char *z)
{
    const char *const all[] = {x, y, z};
    bool any = false;
    for (size_t i = 0; i < 3; i++) {
        if (!all[i])
            continue;
        ts_sb_str(b, any && breaks ? "\n" : "");
        ts_sb_str(b, all[i]);
        any = true;
    }
}

/* What stands before the name of the first call. */
static void put_head(rg_maker *m, ts_sb *b)
{
    const ts_reply_form *f = m->f;
    size_t n = f->begin ? strlen(f->begin) : 0;
    switch (f->kind) {
    case R_JSON: /* the brackets are the grammar's */
        if (!f->bare)
            ts_sb_add(b, f->begin, n - (f->begin[n - 1] == '['));
        ts_sb_str(b, f->gap && !f->bare ? f->gap : "");
        break;
    case R_CHANNELS:
        ts_sb_str(b, "<|channel|>commentary to=functions.");
        break;
    default:
        in_row(b, f->breaks, f->section,
               f->content && m->n_prompt >= n && !memcmp(m->prompt + m->n_prompt - n, f->begin, n)
                   ? NULL
                   : f->begin,
               f->open);
        ts_sb_str(b, f->kind == R_PYTHON && f->list ? "[" : "");
        ts_sb_str(b, f->pre ? f->pre : "");
    }
}

/* The name and what stands between it and the arguments. */
static void put_name(const rg_maker *m, const char *name, ts_sb *b)
{
    const ts_reply_form *f = m->f;
    if (f->kind == R_JSON) {
        if (f->keyed)
            ts_sb_printf(b, "{\"%s\": ", name);
        else
            ts_sb_printf(b, "{\"%s\": \"%s\", \"%s\": ", f->key_name ? f->key_name : "name", name,
                         f->key_args ? f->key_args : "arguments");
        return;
    }
    ts_sb_str(b, name);
    ts_sb_str(b, f->post ? f->post : "");
    ts_sb_str(b, f->name_end ? f->name_end : "");
    ts_sb_str(b, f->head_end ? f->head_end : "");
    ts_sb_str(b, f->kind == R_TAGS && f->breaks ? "\n" : "");
    if (f->kind == R_PYTHON)
        ts_sb_str(b, f->list ? "(" : "{");
    if (f->kind == R_CHANNELS)
        ts_sb_str(b, m->only ? " <|constrain|>json<|message|>" : "<|message|>");
}

/* What stands behind the arguments of each call. */
static const char *call_end(const ts_reply_form *f)
{
    switch (f->kind) {
    case R_JSON:
        return "}";
    case R_TAGS:
        return f->close;
    case R_PYTHON:
        return f->list ? ")" : "}";
    default:
        return "";
    }
}

/* What stands between two calls; false: there is one call only. */
static bool put_between(const ts_reply_form *f, ts_sb *b)
{
    if (f->kind == R_CHANNELS || (f->kind == R_JSON && !f->list && !f->bare && !f->end))
        return false;
    if (f->list) {
        ts_sb_str(b, ", ");
    } else if (f->bare) {
        ts_sb_str(b, "; ");
    } else {
        ts_sb_str(b, f->gap ? f->gap : "");
        ts_sb_str(b, f->args_end ? f->args_end : "");
        ts_sb_str(b, f->kind == R_TAGS && f->breaks ? "\n" : "");
        ts_sb_str(b, f->end ? f->end : "");
        ts_sb_str(b, (f->breaks && f->end) || f->gap ? "\n" : "");
        in_row(b, f->breaks, f->begin, f->open, NULL);
        ts_sb_str(b, f->gap ? f->gap : "");
        ts_sb_str(b, f->pre ? f->pre : "");
    }
    return true;
}

/* call-I ::= NAME ... arguments end, for all tools that may be called. */
static ts_status call_rules(rg_maker *m, size_t *n)
{
    const char *name;
    json_t *params;
    ts_status st = TS_OK;
    *n = 0;
    json_object_foreach(m->tools.names, name, params)
    {
        ts_sb head = {0};
        if (st || (m->only && strcmp(name, m->only) != 0))
            continue;
        if (m->f->content && strcmp(name, m->f->content) == 0)
            return ts_fail(m->err, TS_UNSUPPORTED,
                           "no tool can be called '%s': in the form of %s that is the name of text",
                           name, m->f->name);
        put_name(m, name, &head);
        ts_sb_printf(&m->rules, "call-%zu ::= ", *n);
        rg_literal(&m->rules, head.s);
        ts_sb_printf(&m->rules, "args-%zu-root ", *n);
        rg_literal(&m->rules, call_end(m->f));
        ts_sb_str(&m->rules, "\n");
        st = head.failed              ? rg_no_memory(m)
             : m->f->kind == R_TAGS   ? rg_tag_arguments(m, name, params, *n)
             : m->f->kind == R_PYTHON ? rg_python_arguments(m, name, params, *n)
                                      : rg_json_arguments(m, name, params, *n);
        ts_sb_free(&head);
        ++*n;
    }
    return st;
}

/* With one tool the prompt gets its name too, unless that is part of the JSON. */
static void root_rule(rg_maker *m, size_t n)
{
    const ts_reply_form *f = m->f;
    bool brackets = f->kind == R_JSON && f->list;
    ts_sb *b = &m->root, between = {0};
    ts_sb_str(b, brackets ? "root ::= \"[\" " : "root ::= ");
    put_head(m, &m->prefix);
    if (m->only && f->kind != R_JSON) {
        put_name(m, m->only, &m->prefix);
        ts_sb_str(b, "args-0-root ");
        rg_literal(b, call_end(f));
    } else {
        ts_sb_str(b, "call ");
    }
    if (m->parallel && put_between(f, &between)) {
        ts_sb_str(b, "(");
        rg_literal(b, between.s);
        ts_sb_printf(b, "call){0,%d} ", MAX_CALLS - 1);
    }
    ts_sb_str(b, f->list ? "\"]\"\n" : "\n");
    ts_sb_str(b, "call ::= ");
    for (size_t i = 0; i < n; i++)
        ts_sb_printf(b, "%scall-%zu", i ? " | " : "", i);
    ts_sb_str(b, "\n");
    b->failed |= between.failed;
    ts_sb_free(&between);
}

static ts_status make(rg_maker *m, const ts_chat *c, const char *name)
{
    const ts_chat_speech *s = r_speech(c, true);
    size_t n = 0;
    ts_shown shown;
    m->f = s->form;
    if (json_object_size(m->tools.names) == 0)
        return ts_fail(m->err, TS_BAD_ARG, "a tool must be called, but there are none");
    if (name && !json_object_get(m->tools.names, name))
        return ts_fail(m->err, TS_BAD_ARG, "there is no tool called '%s'",
                       ts_show(&shown, name, strlen(name)));
    if (m->f->kind == R_NONE)
        return ts_fail(m->err, TS_UNSUPPORTED,
                       "the model's chat template calls no tools in a form that is known");
    if (!name && json_object_size(m->tools.names) == 1)
        name = json_object_iter_key(json_object_iter(m->tools.names));
    m->only = name;
    if (r_think_opened(s->think, m->prompt, m->n_prompt)) {
        ts_sb_str(&m->prefix, s->think->end);
        ts_sb_str(&m->prefix, "\n\n");
    }
    ts_status st = call_rules(m, &n);
    if (st)
        return st;
    ts_sb_str(&m->prefix, "");
    root_rule(m, n);
    ts_sb_add(&m->root, m->rules.s, m->rules.n);
    return m->prefix.failed || m->root.failed || m->rules.failed ? rg_no_memory(m) : TS_OK;
}

ts_status ts_reply_grammar(const ts_chat *c, const char *prompt_text, size_t n_prompt_text,
                           const char *tools, size_t n_tools, const char *name, bool parallel,
                           char **prefix, char **gbnf, ts_error *err)
{
    rg_maker m = {
        .prompt = prompt_text, .n_prompt = n_prompt_text, .parallel = parallel, .err = err};
    ts_status st = r_tools_open(&m.tools, tools, n_tools, err);
    if (!st) {
        st = make(&m, c, name);
        r_tools_close(&m.tools);
    }
    ts_sb_free(&m.rules);
    if (st) {
        ts_sb_free(&m.prefix);
        ts_sb_free(&m.root);
        return st;
    }
    *prefix = m.prefix.s;
    *gbnf = m.root.s;
    return TS_OK;
}

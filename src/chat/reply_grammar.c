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

#include "base/utf8.h"
#include "chat/reply_impl.h"
#include "gguf/show.h"
#include "grammar/json.h"
#include "grammar/schema.h"

enum { MAX_CALLS = 16 }; /* in one answer: a model may find no end */

typedef struct maker {
    const ts_reply_form *f;
    const char *prompt;
    size_t n_prompt;
    r_tools tools;
    const char *only; /* the one tool there is to call, or NULL */
    bool parallel;
    ts_sb prefix, root, rules;
    bool text; /* the rules of plain text are there */
    ts_error *err;
} maker;

static ts_status no_memory(maker *m)
{
    return ts_fail(m->err, TS_NO_MEMORY, "no memory for the grammar of tool calls");
}

/* --- GBNF ---------------------------------------------------------------------------------- */

/* A literal and a space behind it; nothing of an empty one. */
static void literal(ts_sb *b, const char *s)
{
    if (!s || !*s)
        return;
    ts_sb_str(b, "\"");
    for (; *s; s++) {
        uint8_t c = (uint8_t)*s;
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            ts_sb_printf(b, "\\x%02X", c);
        else
            ts_sb_add(b, s, 1);
    }
    ts_sb_str(b, "\" ");
}

/* A character in a class. */
static void in_class(ts_sb *b, uint32_t c)
{
    if (c < 0x80)
        ts_sb_printf(b, "\\x%02X", (unsigned)c);
    else
        ts_sb_printf(b, "\\U%08X", (unsigned)c);
}

static bool is_name(char c)
{
    char small = (char)(c | 0x20);
    return (small >= 'a' && small <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The rules of another grammar, with a prefix before their names. What stands in quotes, classes
 * and braces is left alone. */
static void add_rules(ts_sb *b, const char *gbnf, const char *prefix)
{
    for (const char *p = gbnf, *from; *p; ts_sb_add(b, from, (size_t)(p - from))) {
        char close = *p == '"' ? '"' : *p == '[' ? ']' : *p == '{' ? '}' : 0;
        from = p++;
        if (close) {
            while (*p && *p != close)
                p += p[0] == '\\' && p[1] ? 2 : 1;
            p += *p != 0;
        } else if (is_name(*from)) {
            while (is_name(*p))
                p++;
            ts_sb_str(b, prefix);
        }
    }
}

/* Rules for text without `end` in it, by the states of the search for it (Knuth, Morris, Pratt
 * 1977): rule text-I is what may follow where so many of its characters stand, up to where none of
 * them counts any more. */
static void text_rules(maker *m, const char *end)
{
    enum { LONGEST = 64 };
    uint32_t s[LONGEST], letters[LONGEST];
    size_t n = 0, n_letters = 0, fail[LONGEST + 1] = {0};
    ts_sb *b = &m->rules;
    for (size_t k = strlen(end), at = 0; at < k && n < LONGEST; n++)
        at += ts_utf8_decode(end + at, k - at, &s[n]);
    for (size_t i = 1, k = 0; i < n; i++) {
        while (k > 0 && s[i] != s[k])
            k = fail[k];
        k += s[i] == s[k];
        fail[i + 1] = k;
    }
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < n_letters; k++)
            known |= letters[k] == s[i];
        letters[n_letters] = s[i];
        n_letters += !known;
    }
    ts_sb_str(b, "text ::= text-0*\n");
    for (size_t i = 0; i < n; i++) {
        /* letters that lead nowhere are in the class of all others, NUL is in none */
        ts_sb other = {0};
        in_class(&other, 0);
        ts_sb_printf(b, "text-%zu ::= ", i);
        for (size_t l = 0; l < n_letters; l++) {
            size_t to = i;
            while (to > 0 && s[to] != letters[l])
                to = fail[to];
            to += s[to] == letters[l];
            if (to == 0)
                continue;
            in_class(&other, letters[l]);
            if (to < n) {
                ts_sb_str(b, "[");
                in_class(b, letters[l]);
                ts_sb_printf(b, "] text-%zu | ", to);
            }
        }
        ts_sb_str(b, "[^");
        ts_sb_add(b, other.s, other.n);
        ts_sb_str(b, "]\n");
        b->failed |= other.failed;
        ts_sb_free(&other);
    }
    m->text = true;
}

/* --- schemas --------------------------------------------------------------------------------- */

/* Rules that match the JSON of a schema (NULL: of any object), the first of which is called
 * PREFIXroot. `what` is said before what is wrong. */
static ts_status schema_rules(maker *m, const json_t *schema, const char *prefix, const char *what)
{
    ts_sb text = {0};
    char *gbnf = NULL;
    ts_error own = {0};
    ts_status st = TS_NO_MEMORY;
    if (schema)
        ts_json_write(schema, &text, 0);
    if (!text.failed)
        st = ts_schema_gbnf(schema ? text.s : NULL, text.n, &gbnf, &own);
    if (st == TS_NO_MEMORY)
        st = no_memory(m);
    else if (st)
        ts_fail(m->err, st, "%s: %s", what, own.msg);
    else
        add_rules(&m->rules, gbnf, prefix);
    free(gbnf);
    ts_sb_free(&text);
    return st;
}

/* A new object with the members of both, those of `a` first. */
static json_t *joined(const json_t *a, const json_t *b)
{
    json_t *out = json_object(), *v;
    const char *key;
    bool ok = out != NULL;
    json_object_foreach((json_t *)(uintptr_t)b, key, v)
    {
        ok = ok && !json_object_set(out, key, v);
    }
    json_object_foreach((json_t *)(uintptr_t)a, key, v)
    {
        ok = ok && !json_object_set(out, key, v);
    }
    if (ok)
        return out;
    json_decref(out);
    return NULL;
}

/* The parameters as a schema of an object; *out: a new reference, NULL: any object. */
static ts_status object_schema(maker *m, const char *name, const json_t *params, json_t **out)
{
    const json_t *type = json_object_get(params, "type"), *props;
    *out = NULL;
    if (!json_is_object(params) || json_object_size(params) == 0)
        return TS_OK;
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "object") != 0))
        return ts_fail(m->err, TS_BAD_ARG, "tool '%s': its parameters are no object", name);
    json_t *more = json_pack("{s:s}", "type", "object");
    props = json_object_get(params, "properties");
    if (more && props && json_object_size(props) == 0 &&
        !json_object_get(params, "additionalProperties") &&
        json_object_set_new(more, "additionalProperties", json_false())) {
        json_decref(more);
        more = NULL;
    }
    *out = more ? joined(params, more) : NULL;
    json_decref(more);
    return *out ? TS_OK : no_memory(m);
}

/* Adds the rules of a tool's arguments as JSON. */
static ts_status json_arguments(maker *m, const char *name, const json_t *params, size_t i)
{
    char prefix[40], what[TS_REPLY_MAX_NAME + 20];
    json_t *schema = NULL;
    snprintf(prefix, sizeof prefix, "args-%zu-", i);
    snprintf(what, sizeof what, "tool '%s'", name);
    ts_status st = object_schema(m, name, params, &schema);
    if (!st)
        st = schema_rules(m, schema, prefix, what);
    json_decref(schema);
    return st;
}

/* --- parameters between tags ------------------------------------------------------------------ */

typedef struct param {
    const char *tool, *name;
    const json_t *root, *schema;
    unsigned types;
    size_t tool_i, i;
} param;

static ts_status no_grammar(maker *m, const param *p, const char *why)
{
    ts_shown shown;
    return ts_fail(m->err, TS_UNSUPPORTED,
                   "tool '%s': no grammar for its parameter '%s' as %s writes it: %s", p->tool,
                   ts_show(&shown, p->name, strlen(p->name)), m->f->name, why);
}

/* Whether any text is a value: a schema that asks for no more than types. */
static const char *asks_for_more(const json_t *root, const json_t *schema, int depth)
{
    static const char *const fine[] = {"type",        "title",    "description", "default",
                                       "example",     "examples", "$comment",    "deprecated",
                                       "nullable",    "readOnly", "writeOnly",   "$defs",
                                       "definitions", "$id",      "$schema"};
    const json_t *v, *e;
    const char *key;
    if (!json_is_object(schema))
        return json_is_false(schema) ? "false" : NULL;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        const char *more = key;
        size_t k;
        for (k = 0; k < sizeof fine / sizeof *fine && more; k++)
            if (strcmp(key, fine[k]) == 0)
                more = NULL;
        if (strcmp(key, "$ref") == 0 && json_is_string(v) && depth < 8) {
            const json_t *to = r_refer(root, json_string_value(v));
            more = to ? asks_for_more(root, to, depth + 1) : "$ref";
        } else if ((strcmp(key, "anyOf") == 0 || strcmp(key, "oneOf") == 0) && depth < 8) {
            more = NULL;
            json_array_foreach(v, k, e)
            {
                more = more ? more : asks_for_more(root, e, depth + 1);
            }
        }
        if (more)
            return more;
    }
    return NULL;
}

/* KEY and what stands around VALUE; the attribute says whether it is text. */
static void open_param(const maker *m, const param *p, bool text, ts_sb *b)
{
    const ts_reply_form *f = m->f;
    ts_sb s = {0};
    ts_sb_str(&s, f->param);
    ts_sb_str(&s, p->name);
    ts_sb_str(&s, f->key_end);
    if (f->attr_end) {
        bool type = strstr(f->key_end, "type=") != NULL;
        ts_sb_str(&s, type ? (text ? "string" : "object") : (text ? "true" : "false"));
        ts_sb_str(&s, f->attr_end);
    }
    if (f->mid) {
        ts_sb_str(&s, f->breaks ? "\n" : "");
        ts_sb_str(&s, f->mid);
    }
    ts_sb_str(&s, f->lines ? "\n" : "");
    literal(b, s.s);
    b->failed |= s.failed;
    ts_sb_free(&s);
}

/* A line break before it may be written: the text takes it. */
static void close_param(const maker *m, bool text, ts_sb *b)
{
    literal(b, m->f->lines && !text ? "\n" : "");
    literal(b, m->f->value_end);
    literal(b, m->f->breaks ? "\n" : "");
}

/* A value of an enum as plain text, if it is read as the same value again; *n counts those. */
static ts_status add_choice(maker *m, const param *p, const json_t *v, ts_sb *b, size_t *n)
{
    ts_sb text = {0}, read = {0}, want = {0};
    bool string = json_is_string(v);
    if (string)
        ts_sb_add(&text, json_string_value(v), json_string_length(v));
    else
        ts_json_write(v, &text, 0);
    ts_json_write(v, &want, 0);
    ts_status st = TS_OK;
    if (!text.failed && memchr(text.s, 0, text.n) == NULL && !strstr(text.s, m->f->value_end))
        st = r_value(&read, m->f->attr_end ? (string ? R_STRING : R_ANY) : p->types, text.s, text.n,
                     m->err);
    if (text.failed || read.failed || want.failed)
        st = no_memory(m);
    if (!st && read.n == want.n && memcmp(read.s, want.s, want.n) == 0) {
        ts_sb_str(b, *n ? "| " : "");
        open_param(m, p, string, b);
        literal(b, text.s);
        close_param(m, false, b);
        ++*n;
    }
    ts_sb_free(&text);
    ts_sb_free(&read);
    ts_sb_free(&want);
    return st;
}

static ts_status choices(maker *m, const param *p, const json_t *list, ts_sb *b)
{
    const json_t *v;
    size_t i, n = 0;
    ts_status st = TS_OK;
    json_array_foreach(list, i, v)
    {
        if (!st)
            st = add_choice(m, p, v, b, &n);
    }
    return st || n ? st : no_grammar(m, p, "none of its values can be written");
}

/* Rules of a value as JSON, the first called param-TOOL-I-root, which is put into rule[60]. */
static ts_status value_rules(maker *m, const param *p, char *rule)
{
    static const char *const names[] = {"$defs", "definitions"};
    char prefix[50], what[TS_REPLY_MAX_NAME + 80];
    ts_shown shown;
    json_t *defs = json_object(), *schema = NULL, *v;
    bool ok = defs != NULL;
    for (size_t i = 0; i < 2; i++)
        if ((v = json_object_get(p->root, names[i])))
            ok = ok && !json_object_set(defs, names[i], v);
    if (ok)
        schema = json_is_object(p->schema) ? joined(p->schema, defs) : joined(NULL, defs);
    json_decref(defs);
    if (!schema)
        return no_memory(m);
    snprintf(prefix, sizeof prefix, "param-%zu-%zu-", p->tool_i, p->i);
    snprintf(rule, 60, "%sroot", prefix);
    snprintf(what, sizeof what, "tool '%s', parameter '%s'", p->tool,
             ts_show(&shown, p->name, strlen(p->name)));
    ts_status st = schema_rules(m, schema, prefix, what);
    json_decref(schema);
    return st;
}

static ts_status json_value(maker *m, const param *p, ts_sb *b)
{
    char rule[60] = "";
    ts_status st = value_rules(m, p, rule);
    open_param(m, p, false, b);
    ts_sb_printf(b, "%s ", rule);
    close_param(m, false, b);
    return st;
}

/* One parameter between its tags, as alternatives. */
static ts_status tagged(maker *m, const param *p, ts_sb *b)
{
    const json_t *list = json_object_get(p->schema, "enum"),
                 *one = json_object_get(p->schema, "const");
    if (!(p->types & R_STRING))
        return json_value(m, p, b);
    if (json_is_array(list))
        return choices(m, p, list, b);
    if (one) {
        json_t *own = json_pack("[O]", one);
        ts_status st = own ? choices(m, p, own, b) : no_memory(m);
        json_decref(own);
        return st;
    }
    const char *more = asks_for_more(p->root, p->schema, 0);
    if (more) {
        char why[120];
        snprintf(why, sizeof why, "its schema has \"%.60s\"", more);
        return no_grammar(m, p, why);
    }
    if (!m->text)
        text_rules(m, m->f->value_end);
    open_param(m, p, true, b);
    ts_sb_str(b, "text ");
    close_param(m, true, b);
    return TS_OK;
}

static bool is_required(const json_t *params, const char *name)
{
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(params, "required"), i, v)
    {
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0)
            return true;
    }
    return false;
}

/* What a list of parameters can't show. */
static ts_status check_parameters(maker *m, const char *tool, const json_t *params)
{
    static const char *const fine[] = {"type",  "properties",  "required", "additionalProperties",
                                       "title", "description", "$schema",  "$id",
                                       "$defs", "definitions", "strict",   "$comment"};
    const json_t *v, *props = json_object_get(params, "properties");
    const char *key;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)params, key, v)
    {
        bool known = false;
        ts_shown shown;
        for (i = 0; i < sizeof fine / sizeof *fine; i++)
            known |= strcmp(key, fine[i]) == 0;
        if (!known)
            return ts_fail(m->err, TS_UNSUPPORTED,
                           "tool '%s': no grammar for parameters with \"%s\" as %s writes them",
                           tool, ts_show(&shown, key, strlen(key)), m->f->name);
    }
    json_array_foreach(json_object_get(params, "required"), i, v)
    {
        if (!json_is_string(v) || !json_object_get(props, json_string_value(v)))
            return ts_fail(m->err, TS_UNSUPPORTED,
                           "tool '%s': it requires a parameter that it doesn't describe", tool);
    }
    return TS_OK;
}

/* Rules of all parameters of a tool: args-I-root is what stands between its name and its end. */
static ts_status tag_arguments(maker *m, const char *tool, const json_t *params, size_t i)
{
    const json_t *props = json_object_get(params, "properties");
    json_t *schema, *whole = NULL;
    const char *name;
    ts_sb all = {0};
    param p = {.tool = tool, .root = params, .tool_i = i};
    ts_status st = object_schema(m, tool, params, &whole);
    json_decref(whole);
    if (!st)
        st = check_parameters(m, tool, params);
    ts_sb_printf(&all, "args-%zu-root ::= ", i);
    json_object_foreach((json_t *)(uintptr_t)props, name, schema)
    {
        ts_sb one = {0};
        if (st)
            break;
        p.name = name;
        p.schema = schema;
        p.types = r_schema_types(params, schema);
        if (strstr(name, m->f->key_end) || strpbrk(name, " \t\r\n"))
            st = no_grammar(m, &p, "its name");
        if (!st)
            st = tagged(m, &p, &one);
        ts_sb_printf(&all, "(%s)%s ", one.s ? one.s : "", is_required(params, name) ? "" : "?");
        all.failed |= one.failed;
        ts_sb_free(&one);
        p.i++;
    }
    ts_sb_str(&all, p.i ? "\n" : "\"\"\n");
    if (!st && all.failed)
        st = no_memory(m);
    if (!st)
        ts_sb_add(&m->rules, all.s, all.n);
    ts_sb_free(&all);
    return st;
}

/* --- arguments as Python writes them ------------------------------------------------------------
 */

/* KEY=VALUE as the rule arg-TOOL-I. */
static ts_status python_argument(maker *m, const param *p)
{
    char rule[60] = "";
    if (*p->name == 0 || p->name[strspn(p->name, "abcdefghijklmnopqrstuvwxyz"
                                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")])
        return no_grammar(m, p, "its name");
    ts_status st = value_rules(m, p, rule);
    ts_sb_printf(&m->rules, "arg-%zu-%zu ::= ", p->tool_i, p->i);
    literal(&m->rules, p->name);
    literal(&m->rules, m->f->list ? "=" : ":");
    ts_sb_printf(&m->rules, "%s\n", rule);
    return st;
}

/* Arguments from..n, the first of them there, of the others those that are required. */
static void put_arguments(ts_sb *b, size_t tool, size_t from, size_t n, size_t n_required)
{
    ts_sb_printf(b, "arg-%zu-%zu ", tool, from);
    for (size_t i = from + 1; i < n; i++)
        ts_sb_printf(b, i < n_required ? "\", \" arg-%zu-%zu " : "(\", \" arg-%zu-%zu)? ", tool, i);
}

/* Those that are required come first. */
static ts_status python_arguments(maker *m, const char *tool, const json_t *params, size_t i)
{
    const json_t *props = json_object_get(params, "properties");
    json_t *schema, *whole = NULL;
    const char *name;
    param p = {.tool = tool, .root = params, .tool_i = i};
    size_t required = 0;
    ts_status st = object_schema(m, tool, params, &whole);
    json_decref(whole);
    if (!st)
        st = check_parameters(m, tool, params);
    for (int pass = 0; pass < 2 && !st; pass++) {
        json_object_foreach((json_t *)(uintptr_t)props, name, schema)
        {
            if (st || is_required(params, name) != (pass == 0))
                continue;
            p.name = name;
            p.schema = schema;
            st = python_argument(m, &p);
            p.i++;
        }
        required = pass == 0 ? p.i : required;
    }
    ts_sb_printf(&m->rules, "args-%zu-root ::= ", i);
    if (required)
        put_arguments(&m->rules, i, 0, p.i, required);
    for (size_t k = 0; !required && k < p.i; k++) {
        put_arguments(&m->rules, i, k, p.i, 0);
        ts_sb_str(&m->rules, "| ");
    }
    ts_sb_str(&m->rules, required ? "\n" : "\"\"\n");
    return st;
}

/* --- calls ------------------------------------------------------------------------------------ */

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
static void put_head(maker *m, ts_sb *b)
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
static void put_name(const maker *m, const char *name, ts_sb *b)
{
    const ts_reply_form *f = m->f;
    if (f->kind == R_JSON) {
        if (f->keyed)
            ts_sb_printf(b, "{\"%s\": ", name);
        else
            ts_sb_printf(b, "{\"%s\": \"%s\", \"%s\": ", f->key_name, name, f->key_args);
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
static ts_status call_rules(maker *m, size_t *n)
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
        put_name(m, name, &head);
        ts_sb_printf(&m->rules, "call-%zu ::= ", *n);
        literal(&m->rules, head.s);
        ts_sb_printf(&m->rules, "args-%zu-root ", *n);
        literal(&m->rules, call_end(m->f));
        ts_sb_str(&m->rules, "\n");
        st = head.failed              ? no_memory(m)
             : m->f->kind == R_TAGS   ? tag_arguments(m, name, params, *n)
             : m->f->kind == R_PYTHON ? python_arguments(m, name, params, *n)
                                      : json_arguments(m, name, params, *n);
        ts_sb_free(&head);
        ++*n;
    }
    return st;
}

/* With one tool the prompt gets its name too, unless that is part of the JSON. */
static void root_rule(maker *m, size_t n)
{
    const ts_reply_form *f = m->f;
    bool brackets = f->kind == R_JSON && f->list;
    ts_sb *b = &m->root, between = {0};
    ts_sb_str(b, brackets ? "root ::= \"[\" " : "root ::= ");
    put_head(m, &m->prefix);
    if (m->only && f->kind != R_JSON) {
        put_name(m, m->only, &m->prefix);
        ts_sb_str(b, "args-0-root ");
        literal(b, call_end(f));
    } else {
        ts_sb_str(b, "call ");
    }
    if (m->parallel && put_between(f, &between)) {
        ts_sb_str(b, "(");
        literal(b, between.s);
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

static ts_status make(maker *m, const ts_chat *c, const char *name)
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
    return m->prefix.failed || m->root.failed || m->rules.failed ? no_memory(m) : TS_OK;
}

ts_status ts_reply_grammar(const ts_chat *c, const char *prompt_text, size_t n_prompt_text,
                           const char *tools, size_t n_tools, const char *name, bool parallel,
                           char **prefix, char **gbnf, ts_error *err)
{
    maker m = {.prompt = prompt_text, .n_prompt = n_prompt_text, .parallel = parallel, .err = err};
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

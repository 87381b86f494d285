/* reply_params.c - the rules of a tool's arguments, from the schema of its parameters.
 *
 * As JSON they are what the schema compiler makes of it. Between tags, and as Python writes them,
 * each parameter is by itself: as plain text where any text will do, as one of a few texts, or as
 * JSON. What can't be promised so is refused. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "chat/reply_grammar.h"
#include "gguf/show.h"
#include "grammar/json.h"
#include "grammar/schema.h"

/* --- schemas --------------------------------------------------------------------------- */

/* Where parameters are rules of their own: of one tool, whose optional ones in a row are written
 * n^2 / 2 times by some forms; and bytes of schemas of all tools. */
enum { MAX_PARAMETERS = 512, MAX_SCHEMAS = 32 << 20 };

/* Rules that match the JSON of a schema (NULL: of any object), the first of which is called
 * PREFIXroot. `what` is said before what is wrong. */
static ts_status schema_rules(rg_maker *m, const json_t *schema, const char *prefix,
                              const char *what)
{
    ts_sb text = {0};
    char *gbnf = NULL;
    ts_error own = {0};
    ts_status st = TS_NO_MEMORY;
    if (schema)
        ts_json_write(schema, &text, 0);
    m->schemas += text.n;
    if (!text.failed && m->schemas > MAX_SCHEMAS)
        st = ts_fail(&own, TS_UNSUPPORTED, "the schemas of all parameters have more than %d bytes",
                     MAX_SCHEMAS);
    else if (!text.failed)
        st = ts_schema_gbnf(schema ? text.s : NULL, text.n, &gbnf, &own);
    if (st == TS_NO_MEMORY)
        st = rg_no_memory(m);
    else if (st)
        ts_fail(m->err, st, "%s: %s", what, own.msg);
    else
        rg_add_rules(&m->rules, gbnf, prefix);
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
static ts_status object_schema(rg_maker *m, const char *name, const json_t *params, json_t **out)
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
    return *out ? TS_OK : rg_no_memory(m);
}

/* Adds the rules of a tool's arguments as JSON. */
ts_status rg_json_arguments(rg_maker *m, const char *name, const json_t *params, size_t i)
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

/* --- parameters between tags ----------------------------------------------------------- */

typedef struct param {
    const char *tool, *name;
    const json_t *root, *schema;
    unsigned types;
    size_t tool_i, i;
} param;

static ts_status no_grammar(rg_maker *m, const param *p, const char *why)
{
    ts_shown shown;
    return ts_fail(m->err, TS_UNSUPPORTED,
                   "tool '%s': no grammar for its parameter '%s' as %s writes it: %s", p->tool,
                   ts_show(&shown, p->name, strlen(p->name)), m->f->name, why);
}

/* Whether any text is a value: a schema that asks for no more than types. work: schemas that may
 * be looked at; beyond them the answer is the keyword that leads there. */
static const char *asks_for_more(const json_t *root, const json_t *schema, int depth, int *work)
{
    static const char *const fine[] = {"type",        "title",    "description", "default",
                                       "example",     "examples", "$comment",    "deprecated",
                                       "nullable",    "readOnly", "writeOnly",   "$defs",
                                       "definitions", "$id",      "$schema"};
    const json_t *v, *e;
    const char *key;
    if (!json_is_object(schema))
        return json_is_false(schema) ? "false" : NULL;
    if (--*work < 0)
        return "anyOf";
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        const char *more = key;
        size_t k;
        for (k = 0; k < sizeof fine / sizeof *fine && more; k++)
            if (strcmp(key, fine[k]) == 0)
                more = NULL;
        if (strcmp(key, "$ref") == 0 && json_is_string(v) && depth < 8) {
            const json_t *to = r_refer(root, json_string_value(v));
            more = to ? asks_for_more(root, to, depth + 1, work) : "$ref";
        } else if ((strcmp(key, "anyOf") == 0 || strcmp(key, "oneOf") == 0) && depth < 8) {
            more = NULL;
            json_array_foreach(v, k, e)
            {
                more = more ? more : asks_for_more(root, e, depth + 1, work);
            }
        }
        if (more)
            return more;
    }
    return NULL;
}

/* KEY and what stands around VALUE; the attribute says whether it is text. */
static void open_param(const rg_maker *m, const param *p, bool text, ts_sb *b)
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
    rg_literal(b, s.s);
    b->failed |= s.failed;
    ts_sb_free(&s);
}

/* Behind a text, which has its end in it, and the line break before. */
static void close_param(const rg_maker *m, bool text, ts_sb *b)
{
    if (!text) {
        rg_literal(b, m->f->lines ? "\n" : "");
        rg_literal(b, m->f->value_end);
    }
    rg_literal(b, m->f->breaks ? "\n" : "");
}

/* A value of an enum as plain text, if it is read as the same value again; *n counts those. */
static ts_status add_choice(rg_maker *m, const param *p, const json_t *v, ts_sb *b, size_t *n)
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
        st = rg_no_memory(m);
    if (!st && read.n == want.n && memcmp(read.s, want.s, want.n) == 0) {
        ts_sb_str(b, *n ? "| " : "");
        open_param(m, p, string, b);
        rg_literal(b, text.s);
        close_param(m, false, b);
        ++*n;
    }
    ts_sb_free(&text);
    ts_sb_free(&read);
    ts_sb_free(&want);
    return st;
}

static ts_status choices(rg_maker *m, const param *p, const json_t *list, ts_sb *b)
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
static ts_status value_rules(rg_maker *m, const param *p, char *rule)
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
        return rg_no_memory(m);
    snprintf(prefix, sizeof prefix, "param-%zu-%zu-", p->tool_i, p->i);
    snprintf(rule, 60, "%sroot", prefix);
    snprintf(what, sizeof what, "tool '%s', parameter '%s'", p->tool,
             ts_show(&shown, p->name, strlen(p->name)));
    ts_status st = schema_rules(m, schema, prefix, what);
    json_decref(schema);
    return st;
}

static ts_status json_value(rg_maker *m, const param *p, ts_sb *b)
{
    char rule[60] = "";
    ts_status st = value_rules(m, p, rule);
    open_param(m, p, false, b);
    ts_sb_printf(b, "%s ", rule);
    close_param(m, false, b);
    return st;
}

/* One parameter between its tags, as alternatives. */
static ts_status tagged(rg_maker *m, const param *p, ts_sb *b)
{
    const json_t *list = json_object_get(p->schema, "enum"),
                 *one = json_object_get(p->schema, "const");
    if (!(p->types & R_STRING))
        return json_value(m, p, b);
    if (json_is_array(list))
        return choices(m, p, list, b);
    if (one) {
        json_t *own = json_pack("[O]", one);
        ts_status st = own ? choices(m, p, own, b) : rg_no_memory(m);
        json_decref(own);
        return st;
    }
    int work = 1000;
    const char *more = asks_for_more(p->root, p->schema, 0, &work);
    if (more) {
        char why[120];
        snprintf(why, sizeof why, "its schema has \"%.*s\"", ts_utf8_cut(more, 60), more);
        return no_grammar(m, p, why);
    }
    if (!m->text)
        rg_text_rules(m, m->f->value_end);
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
static ts_status check_parameters(rg_maker *m, const char *tool, const json_t *params)
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
    if (json_object_size(props) > MAX_PARAMETERS ||
        json_array_size(json_object_get(params, "required")) > MAX_PARAMETERS)
        return ts_fail(m->err, TS_UNSUPPORTED,
                       "tool '%s': no grammar for more than %d parameters as %s writes them", tool,
                       MAX_PARAMETERS, m->f->name);
    json_array_foreach(json_object_get(params, "required"), i, v)
    {
        if (!json_is_string(v) || !json_object_get(props, json_string_value(v)))
            return ts_fail(m->err, TS_UNSUPPORTED,
                           "tool '%s': it requires a parameter that it doesn't describe", tool);
    }
    return TS_OK;
}

/* Rules of all parameters of a tool: args-I-root is what stands between its name and its end. */
ts_status rg_tag_arguments(rg_maker *m, const char *tool, const json_t *params, size_t i)
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
        st = rg_no_memory(m);
    if (!st)
        ts_sb_add(&m->rules, all.s, all.n);
    ts_sb_free(&all);
    return st;
}

/* --- arguments as Python writes them --------------------------------------------------- */

/* KEY=VALUE as the rule arg-TOOL-I. */
static ts_status python_argument(rg_maker *m, const param *p)
{
    char rule[60] = "";
    if (*p->name == 0 || p->name[strspn(p->name, "abcdefghijklmnopqrstuvwxyz"
                                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")])
        return no_grammar(m, p, "its name");
    ts_status st = value_rules(m, p, rule);
    ts_sb_printf(&m->rules, "arg-%zu-%zu ::= ", p->tool_i, p->i);
    rg_literal(&m->rules, p->name);
    rg_literal(&m->rules, m->f->list ? "=" : ":");
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
ts_status rg_python_arguments(rg_maker *m, const char *tool, const json_t *params, size_t i)
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

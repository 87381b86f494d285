/* schema.c - JSON schemas to GBNF: rules, and which schema makes which.
 *
 * A schema with objects, arrays or alternatives in it becomes a rule; equal ones are one rule,
 * which is how schemas that refer to themselves end. Others are written where they stand. */
#include "grammar/schema_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "grammar/json.h"
#include "grammar/room.h"

ts_status sc_fail(sc *c, ts_status code, const char *fmt, ...)
{
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    const char *path = c->path.s ? c->path.s : "";
    const int n = ts_utf8_cut(path, 120);
    return ts_fail(c->err, code, "the schema, at #%.*s%s: %s", n, path, path[n] ? "..." : "", what);
}

ts_status sc_no_memory(sc *c)
{
    return ts_fail(c->err, TS_NO_MEMORY, "no memory for the grammar of a schema");
}

size_t sc_enter(sc *c, const char *step, const char *name)
{
    size_t before = c->path.n;
    if (before < 4096)
        ts_sb_printf(&c->path, name ? "/%s/%.*s" : "/%s", step, name ? ts_utf8_cut(name, 60) : 0,
                     name);
    return before;
}

void sc_leave(sc *c, size_t before)
{
    c->path.n = before;
}

void sc_use(sc *c, ts_sb *b, unsigned which, const char *name)
{
    c->uses |= which;
    ts_sb_str(b, name);
}

/* --- rules ------------------------------------------------------------------------------ */

/* A name that tells where the rule comes from, and its number. */
static ts_status new_rule(sc *c, size_t *id)
{
    char word[25] = "";
    size_t from = c->path.n, n = 0;
    while (from > 0 && c->path.s[from - 1] != '/')
        from--;
    for (size_t i = from; i < c->path.n && n < sizeof word - 1; i++) {
        char x = c->path.s[i];
        bool fits = (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9');
        word[n++] = fits ? x : '-';
    }
    if (c->n_made == TS_GRAM_MAX_RULES || c->rules.n > TS_GRAM_MAX_TEXT)
        return sc_fail(c, TS_UNSUPPORTED, "its grammar would be too large");
    if (!TS_ROOM(c->made, c->n_made, c->cap_made))
        return sc_no_memory(c);
    sc_rule *r = &c->made[c->n_made];
    *r = (sc_rule){.level = c->level, .open = true};
    snprintf(r->name, sizeof r->name, "%s-%zu", n ? word : "schema", c->n_made);
    *id = c->n_made++;
    return TS_OK;
}

/* Whether a flat schema may be written more than once. */
static bool is_short(const json_t *flat)
{
    const json_t *types = json_object_get(flat, "type"), *t;
    size_t i;
    if (json_object_get(flat, "anyOf") || (!types && !json_object_get(flat, "enum")))
        return false;
    if (json_object_get(flat, "pattern") || json_array_size(json_object_get(flat, "enum")) > 1)
        return false;
    json_array_foreach(types, i, t)
    {
        const char *name = json_string_value(t);
        if (strcmp(name, "object") == 0 || strcmp(name, "array") == 0)
            return false;
    }
    return true;
}

static ts_status alternatives(sc *c, const json_t *flat, ts_sb *b)
{
    const json_t *any = json_object_get(flat, "anyOf");
    json_t *alt, *v, *base = json_object(); /* json_copy doesn't say what it had no memory for */
    const char *key;
    size_t i;
    ts_status st = base ? TS_OK : sc_no_memory(c);
    json_object_foreach((json_t *)(uintptr_t)flat, key, v)
    {
        if (!st && strcmp(key, "anyOf") != 0 && json_object_set(base, key, v))
            st = sc_no_memory(c);
    }
    json_array_foreach(any, i, alt)
    {
        char step[40];
        if (st)
            break;
        snprintf(step, sizeof step, "anyOf/%zu", i);
        size_t before = sc_enter(c, step, NULL);
        json_t *both = sc_both(base, alt);
        if (i > 0)
            ts_sb_str(b, " | ");
        st = both ? sc_value(c, both, b) : sc_no_memory(c);
        json_decref(both);
        if (!st)
            sc_leave(c, before);
    }
    json_decref(base);
    return st;
}

static bool has_any(const json_t *flat, const char *const *keys)
{
    for (; *keys; keys++)
        if (json_object_get(flat, *keys))
            return true;
    return false;
}

/* Without `type`, the types that the other keywords are about. */
static bool implied(const json_t *flat, const char *type)
{
    static const char *const object[] = {"properties", "required", "additionalProperties", NULL};
    static const char *const array[] = {"items", "prefixItems", "minItems", "maxItems", NULL};
    static const char *const string[] = {"minLength", "maxLength", "pattern", "format", NULL};
    static const char *const number[] = {"minimum", "maximum", "exclusiveMinimum",
                                         "exclusiveMaximum", NULL};
    return has_any(flat, *type == 'o'   ? object
                         : *type == 'a' ? array
                         : *type == 's' ? string
                                        : number);
}

static ts_status of_type(sc *c, const json_t *flat, const char *type, ts_sb *b)
{
    switch (*type) {
    case 'o':
        return sc_object(c, flat, b);
    case 'a':
        return sc_array(c, flat, b);
    case 's':
        return sc_string(c, flat, b);
    case 'i':
        return sc_number(c, flat, true, b);
    case 'b':
        ts_sb_str(b, "(\"true\" | \"false\")");
        return TS_OK;
    default:
        if (strcmp(type, "number") == 0)
            return sc_number(c, flat, false, b);
        ts_sb_str(b, "\"null\"");
        return TS_OK;
    }
}

/* A flat schema without anyOf, as alternatives. */
static ts_status plain(sc *c, const json_t *flat, ts_sb *b)
{
    static const char *const guess[] = {"object", "array", "string", "number"};
    const json_t *types = json_object_get(flat, "type");
    size_t n = types ? json_array_size(types) : 4, found = 0;
    if (json_object_get(flat, "enum"))
        return sc_enum(c, flat, b);
    for (size_t i = 0; i < n; i++) {
        const char *type = types ? json_string_value(json_array_get(types, i)) : guess[i];
        if (!types && !implied(flat, type))
            continue;
        if (found++)
            ts_sb_str(b, " | ");
        ts_status st = of_type(c, flat, type, b);
        if (st)
            return st;
    }
    if (!found)
        sc_use(c, b, types ? SC_NONE : SC_VALUE, types ? "none" : "value");
    return TS_OK;
}

static ts_status body(sc *c, const json_t *flat, ts_sb *b)
{
    return json_object_get(flat, "anyOf") ? alternatives(c, flat, b) : plain(c, flat, b);
}

static ts_status make_rule(sc *c, const char *key, const json_t *flat, ts_sb *b)
{
    ts_sb text = {0};
    size_t id = 0;
    ts_status st = new_rule(c, &id);
    if (st)
        return st;
    if (json_object_set_new(c->rule_of, key, json_integer((json_int_t)id)))
        return sc_no_memory(c);
    st = body(c, flat, &text);
    c->made[id].open = false;
    if (!st && text.failed)
        st = sc_no_memory(c);
    if (!st) {
        ts_sb_printf(&c->rules, "%s ::= ", c->made[id].name);
        ts_sb_add(&c->rules, text.s, text.n);
        ts_sb_str(&c->rules, "\n");
        ts_sb_str(b, c->made[id].name);
    }
    ts_sb_free(&text);
    return st;
}

static ts_status known_rule(sc *c, size_t id, ts_sb *b)
{
    const sc_rule *r = &c->made[id];
    if (r->open && r->level == c->level)
        return sc_fail(c, TS_BAD_ARG,
                       "the schema refers to itself without an object or array in between");
    ts_sb_str(b, r->name);
    return TS_OK;
}

static ts_status value_of_object(sc *c, json_t *schema, const char *key, ts_sb *b)
{
    json_t *flat = NULL;
    ts_status st = sc_flatten(c, schema, &flat);
    if (st)
        return st;
    if (!json_is_object(flat)) {
        sc_use(c, b, SC_NONE, "none");
    } else if (json_object_size(flat) == 0) {
        sc_use(c, b, SC_VALUE, "value");
    } else if (is_short(flat)) {
        ts_sb_str(b, "(");
        st = plain(c, flat, b);
        ts_sb_str(b, ")");
    } else {
        st = make_rule(c, key, flat, b);
    }
    json_decref(flat);
    return st;
}

ts_status sc_value(sc *c, json_t *schema, ts_sb *b)
{
    if (json_is_boolean(schema)) {
        bool any = json_is_true(schema);
        sc_use(c, b, any ? SC_VALUE : SC_NONE, any ? "value" : "none");
        return TS_OK;
    }
    if (!json_is_object(schema))
        return sc_fail(c, TS_BAD_ARG, "a schema is an object, true or false");
    if (c->depth == TS_SCHEMA_MAX_DEPTH)
        return sc_fail(c, TS_UNSUPPORTED, "schemas are nested deeper than %d", TS_SCHEMA_MAX_DEPTH);
    ts_sb key = {0};
    sc_dump(schema, &key);
    if (key.failed) {
        ts_sb_free(&key);
        return sc_no_memory(c);
    }
    c->depth++;
    c->work += key.n / 64;
    const json_t *id = json_object_get(c->rule_of, key.s);
    ts_status st = id ? known_rule(c, (size_t)json_integer_value(id), b)
                      : value_of_object(c, schema, key.s, b);
    c->depth--;
    ts_sb_free(&key);
    if (!st && b->n > TS_GRAM_MAX_TEXT)
        st = sc_fail(c, TS_UNSUPPORTED, "its grammar would have more than %d bytes",
                     TS_GRAM_MAX_TEXT);
    return st;
}

/* --- all of it ------------------------------------------------------------------------------ */

/* White space is bounded, or a model could go on with it forever; so are the digits of numbers. A
 * character that is escaped by half a pair of surrogates is none. */
static void fixed_rules(sc *c)
{
    ts_sb *b = &c->rules;
    if (c->uses & SC_VALUE)
        c->uses |= SC_OBJECT;
    if (c->uses & SC_OBJECT) {
        c->uses |= SC_WS | SC_STRING | SC_NUMBER;
        ts_sb_str(b,
                  "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
                  "object ::= \"{\" ws (member (\",\" ws member)* ws)? \"}\"\n"
                  "member ::= string \":\" ws value\n"
                  "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n");
    }
    if (c->uses & SC_NUMBER)
        ts_sb_str(b, "number ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15}) (\".\" [0-9]{1,16})? "
                     "([eE] [-+]? [0-9]{1,2})?\n");
    if (c->uses & SC_INTEGER)
        ts_sb_str(b, "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15})\n");
    if (c->uses & SC_STRING)
        ts_sb_str(b, "string ::= \"\\\"\" char* \"\\\"\"\n");
    if (c->uses & (SC_STRING | SC_CHAR))
        ts_sb_str(b, "char ::= [^\"\\\\\\x00-\\x1F\\x7F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" code)\n"
                     "code ::= [0-9A-CE-Fa-ce-f] hex{3} | [Dd] [0-7] hex{2} | "
                     "[Dd] [89ABab] hex{2} \"\\\\u\" [Dd] [C-Fc-f] hex{2}\n"
                     "hex ::= [0-9A-Fa-f]\n");
    if (c->uses & SC_WS)
        ts_sb_str(b, "ws ::= | \" \" | \"\\n\" [ \\t]{0,40}\n");
    if (c->uses & SC_NONE) /* it can't end, so whatever needs it is cut off */
        ts_sb_str(b, "none ::= \"x\" none\n");
}

/* What the grammar's own checks would say of a schema that nothing satisfies. */
static ts_status check(sc *c, const char *text, size_t n)
{
    ts_gram *g = NULL;
    ts_error why = {0};
    ts_status st = ts_gram_open(&g, text, n, &why);
    ts_gram_close(g);
    if (st == TS_UNSUPPORTED)
        return ts_fail(c->err, TS_BAD_ARG,
                       "the schema accepts no JSON value, or only one that never ends");
    return st ? ts_fail(c->err, st, "the schema's grammar can't be used: %s", why.msg) : TS_OK;
}

static ts_status convert(sc *c, const char *schema, char **out)
{
    ts_sb expr = {0}, text = {0};
    ts_status st = TS_OK;
    if (schema)
        st = sc_value(c, c->root, &expr);
    else
        sc_use(c, &expr, SC_OBJECT, "object");
    fixed_rules(c);
    ts_sb_str(&text, "root ::= ");
    ts_sb_add(&text, expr.s ? expr.s : "", expr.n);
    ts_sb_str(&text, "\n");
    ts_sb_add(&text, c->rules.s ? c->rules.s : "", c->rules.n);
    if (!st && (expr.failed || text.failed || c->rules.failed || c->path.failed))
        st = sc_no_memory(c);
    if (!st)
        st = check(c, text.s, text.n);
    ts_sb_free(&expr);
    if (st)
        ts_sb_free(&text);
    else
        *out = text.s;
    return st;
}

ts_status ts_schema_gbnf(const char *schema, size_t n, char **out, ts_error *err)
{
    sc c = {.err = err};
    ts_status st = TS_OK;
    if (schema && n > TS_SCHEMA_MAX_TEXT)
        return ts_fail(err, TS_BAD_ARG, "the schema has %zu bytes, more than %d", n,
                       TS_SCHEMA_MAX_TEXT);
    c.rule_of = json_object();
    if (!c.rule_of)
        st = sc_no_memory(&c);
    else if (schema)
        st = ts_json_read(&c.root, schema, n, "the schema", 0, err);
    if (!st)
        st = convert(&c, schema, out);
    json_decref(c.root);
    json_decref(c.rule_of);
    free(c.made);
    ts_sb_free(&c.rules);
    ts_sb_free(&c.path);
    return st;
}

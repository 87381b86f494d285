/* json.c - values from JSON, and to JSON as Python's json.dumps writes it. */
#include <stdio.h>
#include <string.h>

#include "jinja/impl.h"

/* --- from JSON ---------------------------------------------------------------------- */

/* Roles are words of the protocol, not text of a user: these are what programs send. */
static bool known_role(const char *s, size_t n)
{
    static const char *const roles[] = {"system",    "user",     "assistant", "tool",
                                        "developer", "function", "ipython",   "model"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strlen(roles[i]) == n && memcmp(roles[i], s, n) == 0)
            return true;
    return false;
}

static j_value convert(j_run *j, const json_t *v, uint8_t from);

static j_value object(j_run *j, json_t *v, uint8_t from)
{
    j_dict *d = j_dict_new(j);
    const char *key;
    json_t *x;
    json_object_foreach(v, key, x)
    {
        size_t n = strlen(key);
        uint8_t as = from;
        if (strcmp(key, "role") == 0 && json_is_string(x) &&
            known_role(json_string_value(x), json_string_length(x)))
            as = J_TEMPLATE;
        j_value k = j_strv(j_str_new(j, key, n, from));
        j_dict_set(j, d, k, convert(j, x, as));
    }
    return j_dictv(d);
}

static j_value array(j_run *j, const json_t *v, uint8_t from)
{
    size_t n = json_array_size(v);
    j_list *l = j_list_new(j, n);
    for (size_t i = 0; i < n; i++)
        l->v[i] = convert(j, json_array_get(v, i), from);
    return j_listv(J_LIST, l);
}

static j_value convert(j_run *j, const json_t *v, uint8_t from)
{
    j_value r = j_none();
    j_step(j, 1);
    j_enter(j);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        r = object(j, (json_t *)(uintptr_t)v, from);
        break;
    case JSON_ARRAY:
        r = array(j, v, from);
        break;
    case JSON_STRING:
        r = j_strv(j_str_new(j, json_string_value(v), json_string_length(v), from));
        break;
    case JSON_INTEGER:
        r = j_int(json_integer_value(v));
        break;
    case JSON_REAL:
        r = j_float(json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        r = j_bool(json_is_true(v));
        break;
    case JSON_NULL:
        break;
    }
    j->depth--;
    return r;
}

/* The strings' bytes stay where they are, in v, which must outlive the run. */
j_value j_from_json(j_run *j, const json_t *v, uint8_t from)
{
    return convert(j, v, from);
}

/* --- to JSON --------------------------------------------------------------------------- */

typedef struct dump {
    j_run *j;
    j_buf *b;
    bool ascii, sort_keys;
    const j_str *indent; /* NULL = all on one line */
    const j_str *comma, *colon;
} dump;

static void escape(dump *d, uint32_t cp, uint8_t from)
{
    char text[16];
    static const char plain[] = "\"\\\n\r\t\b\f", as[] = "\"\\nrtbf";
    const char *hit = cp && cp < 0x80 ? strchr(plain, (char)cp) : NULL;
    if (hit)
        snprintf(text, sizeof text, "\\%c", as[hit - plain]);
    else if (cp < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", cp);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10), 0xdc00 + (cp & 0x3ff));
    j_buf_add(d->j, d->b, text, strlen(text), from);
}

static void string(dump *d, const j_str *s)
{
    j_buf_puts(d->j, d->b, "\"");
    j_step(d->j, s->n / 8);
    for (size_t i = 0, len, end; i < s->n; i = end) {
        end = i;
        uint32_t cp = 0;
        while (end < s->n) {
            cp = j_char_at(s->s + end, s->n - end, &len);
            if (cp < 0x20 || cp == '"' || cp == '\\' || (d->ascii && cp >= 0x7f && cp != 0x7f))
                break;
            end += len;
        }
        if (end > i)
            j_buf_str(d->j, d->b, j_sub(d->j, s, i, end - i));
        if (end < s->n) {
            escape(d, cp, j_mark_at(s, end));
            end += len;
        }
    }
    j_buf_puts(d->j, d->b, "\"");
}

static void newline(dump *d, int depth)
{
    if (!d->indent)
        return;
    j_buf_puts(d->j, d->b, "\n");
    j_buf_str(d->j, d->b, j_repeat(d->j, d->indent, depth));
}

static const j_str *number_text(dump *d, j_value v)
{
    if (v.kind == J_FLOAT && v.u.f != v.u.f)
        return j_text(d->j, "NaN");
    if (v.kind == J_FLOAT && v.u.f - v.u.f != 0)
        return j_text(d->j, v.u.f < 0 ? "-Infinity" : "Infinity");
    return j_repr_str(d->j, v);
}

static const j_str *simple_text(dump *d, j_value v)
{
    if (v.kind == J_NONE)
        return j_text(d->j, "null");
    if (v.kind == J_BOOL)
        return j_text(d->j, v.u.b ? "true" : "false");
    return j_is_number(v) ? number_text(d, v) : NULL;
}

static void value(dump *d, j_value v, int depth);

static void list(dump *d, const j_list *l, int depth)
{
    j_buf_puts(d->j, d->b, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            j_buf_str(d->j, d->b, d->comma);
        newline(d, depth + 1);
        value(d, l->v[i], depth + 1);
    }
    if (l->n)
        newline(d, depth);
    j_buf_puts(d->j, d->b, "]");
}

static const j_pair **sorted_pairs(dump *d, const j_dict *dict)
{
    const j_pair **p = j_array(d->j, dict->n + 1, sizeof *p);
    for (size_t i = 0; i < dict->n; i++)
        p[i] = &dict->p[i];
    if (!d->sort_keys)
        return p;
    /* a dict of all its keys, sorted as the filter does: stable and n log n */
    j_view view = {dict, J_KEYS};
    j_value keys = {.kind = J_VIEW, .u.v = &view}, one[] = {j_bool(false), j_bool(true)};
    j_args how = {.v = one, .n = 2};
    j_value sorted = j_call_native(d->j, j_filter("sort", 4), keys, &how);
    for (size_t i = 0; i < dict->n; i++) {
        const j_value *at = j_dict_get(d->j, dict, sorted.u.l->v[i]);
        p[i] = (const j_pair *)(const void *)((const char *)at - offsetof(j_pair, value));
    }
    return p;
}

static void dict(dump *d, const j_dict *dict_, int depth)
{
    const j_pair **p = sorted_pairs(d, dict_);
    j_buf_puts(d->j, d->b, "{");
    for (size_t i = 0; i < dict_->n; i++) {
        if (i)
            j_buf_str(d->j, d->b, d->comma);
        newline(d, depth + 1);
        const j_str *simple = simple_text(d, p[i]->key);
        if (!simple && p[i]->key.kind != J_STR)
            j_fail(d->j, "%s can't be a key in JSON", j_type_name(p[i]->key));
        string(d, simple ? simple : p[i]->key.u.s);
        j_buf_str(d->j, d->b, d->colon);
        value(d, p[i]->value, depth + 1);
    }
    if (dict_->n)
        newline(d, depth);
    j_buf_puts(d->j, d->b, "}");
}

static void value(dump *d, j_value v, int depth)
{
    const j_str *simple = simple_text(d, v);
    j_step(d->j, 1);
    j_enter(d->j);
    if (simple)
        j_buf_str(d->j, d->b, simple);
    else if (v.kind == J_STR)
        string(d, v.u.s);
    else if (v.kind == J_LIST || v.kind == J_TUPLE)
        list(d, v.u.l, depth);
    else if (v.kind == J_DICT)
        dict(d, v.u.d, depth);
    else
        j_fail(d->j, "%s can't be written as JSON", j_type_name(v));
    d->j->depth--;
}

const j_str *j_tojson(j_run *j, j_value v, bool ascii, j_value indent, j_value separators,
                      bool sort_keys)
{
    j_buf b = {0};
    dump d = {.j = j, .b = &b, .ascii = ascii, .sort_keys = sort_keys};
    if (indent.kind == J_STR)
        d.indent = indent.u.s;
    else if (indent.kind != J_MISSING && indent.kind != J_NONE)
        d.indent = j_repeat(j, j_text(j, " "), j_want_int(j, indent, "tojson's indent"));
    d.comma = j_text(j, d.indent ? "," : ", ");
    d.colon = j_text(j, ": ");
    if (separators.kind != J_MISSING && separators.kind != J_NONE) {
        const j_list *l = j_to_list(j, separators);
        if (l->n != 2)
            j_fail(j, "tojson's separators are two, not %zu", l->n);
        d.comma = j_want_str(j, l->v[0], "tojson's separators");
        d.colon = j_want_str(j, l->v[1], "tojson's separators");
    }
    value(&d, v, 0);
    return j_buf_done(j, &b);
}

/* schema_enum.c - values that a JSON schema lists. */
#include "grammar/schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static void dump_real(ts_sb *b, double d)
{
    char buf[40];
    for (int digits = 15; digits <= 17; digits++) { /* the fewest that read as the same number */
        snprintf(buf, sizeof buf, "%.*g", digits, d);
        if (strtod(buf, NULL) == d)
            break;
    }
    ts_sb_str(b, buf);
}

/* Jansson's own json_dumps (2.14) may lose a part of the text where memory is short. */
void sc_dump(const json_t *v, ts_sb *b)
{
    const json_t *x;
    const char *name, *sep = "";
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        ts_sb_str(b, "{");
        json_object_foreach((json_t *)(uintptr_t)v, name, x)
        {
            ts_sb_str(b, sep);
            ts_sb_json_str(b, name, strlen(name));
            ts_sb_str(b, ":");
            sc_dump(x, b);
            sep = ",";
        }
        ts_sb_str(b, "}");
        break;
    case JSON_ARRAY:
        ts_sb_str(b, "[");
        json_array_foreach(v, i, x)
        {
            ts_sb_str(b, sep);
            sc_dump(x, b);
            sep = ",";
        }
        ts_sb_str(b, "]");
        break;
    case JSON_STRING:
        ts_sb_json_str(b, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        ts_sb_printf(b, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        dump_real(b, json_real_value(v));
        break;
    default:
        ts_sb_str(b, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

static ts_status put_literal(sc *c, ts_sb *text, ts_sb *b)
{
    ts_status st = text->failed || !text->s ? sc_no_memory(c) : TS_OK;
    if (!st)
        ts_gbnf_literal(b, text->s, text->n);
    ts_sb_free(text);
    return st;
}

ts_status sc_name(sc *c, const char *name, ts_sb *b)
{
    ts_sb text = {0};
    ts_sb_json_str(&text, name, strlen(name));
    ts_status st = put_literal(c, &text, b);
    if (!st)
        sc_use(c, b, SC_WS, " \":\" ws ");
    return st;
}

static ts_status put_value(sc *c, json_t *v, ts_sb *b)
{
    json_t *x;
    const char *name;
    size_t i = 0;
    ts_status st = TS_OK;
    if (!json_is_array(v) && !json_is_object(v)) {
        ts_sb text = {0};
        sc_dump(v, &text);
        return put_literal(c, &text, b);
    }
    sc_use(c, b, SC_WS, json_is_array(v) ? "\"[\" ws" : "\"{\" ws");
    json_array_foreach(v, i, x)
    {
        ts_sb_str(b, i ? " \",\" ws " : " ");
        st = st ? st : put_value(c, x, b);
    }
    json_object_foreach(v, name, x)
    {
        ts_sb_str(b, i++ ? " \",\" ws " : " ");
        st = st ? st : sc_name(c, name, b);
        st = st ? st : put_value(c, x, b);
    }
    ts_sb_str(b, i ? " ws " : " ");
    ts_sb_str(b, json_is_array(v) ? "\"]\"" : "\"}\"");
    return st;
}

static bool has_type(const json_t *types, const json_t *v)
{
    static const char *const names[] = {"object", "array",   "string",  "integer",
                                        "number", "boolean", "boolean", "null"};
    const char *name = names[json_typeof(v)];
    const json_t *t;
    size_t i;
    json_array_foreach(types, i, t)
    {
        const char *want = json_string_value(t);
        double d = json_number_value(v);
        if (strcmp(want, name) == 0 || (json_is_number(v) && strcmp(want, "number") == 0) ||
            (json_is_real(v) && strcmp(want, "integer") == 0 && d == floor(d)))
            return true;
    }
    return types == NULL;
}

static bool in_bounds(const json_t *flat, const json_t *v)
{
    static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum",
                                       "exclusiveMaximum"};
    for (int i = 0; i < 4; i++) {
        const json_t *k = json_object_get(flat, keys[i]);
        if (k && (i == 0   ? sc_less(v, k)
                  : i == 1 ? !sc_less(k, v)
                  : i == 2 ? sc_less(k, v)
                           : !sc_less(v, k)))
            return false;
    }
    return true;
}

static bool has_length(const json_t *flat, const json_t *v)
{
    const json_t *max = json_object_get(flat, "maxLength");
    const char *s = json_string_value(v);
    json_int_t n = 0;
    for (size_t i = 0; i < json_string_length(v); i++)
        n += ((uint8_t)s[i] & 0xc0) != 0x80;
    return n >= json_integer_value(json_object_get(flat, "minLength")) &&
           (!max || n <= json_integer_value(max));
}

/* What else the schema says of a value's type, that isn't checked here. */
static const char *beyond(const json_t *flat, const json_t *v)
{
    static const char *const object[] = {"properties", "required", "additionalProperties", NULL};
    static const char *const array[] = {"items", "prefixItems", "minItems", "maxItems", NULL};
    static const char *const string[] = {"pattern", "format", NULL};
    static const char *const none[] = {NULL};
    const char *const *k = json_is_object(v)   ? object
                           : json_is_array(v)  ? array
                           : json_is_string(v) ? string
                                               : none;
    while (*k && !json_object_get(flat, *k))
        k++;
    return *k;
}

ts_status sc_enum(sc *c, const json_t *flat, ts_sb *b)
{
    json_t *v;
    size_t i, n = 0;
    json_array_foreach(json_object_get(flat, "enum"), i, v)
    {
        if (!has_type(json_object_get(flat, "type"), v) ||
            (json_is_number(v) && !in_bounds(flat, v)) ||
            (json_is_string(v) && !has_length(flat, v)))
            continue;
        const char *more = beyond(flat, v);
        if (more)
            return sc_fail(c, TS_UNSUPPORTED,
                           "\"enum\" or \"const\" with \"%s\" can't be translated", more);
        if (n++)
            ts_sb_str(b, " | ");
        ts_status st = put_value(c, v, b);
        if (st)
            return st;
    }
    if (n == 0)
        sc_use(c, b, SC_NONE, "none");
    return TS_OK;
}

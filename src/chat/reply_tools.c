/* reply_tools.c - a request's tools: their names, and what their parameters may be. */
#include <math.h>
#include <string.h>

#include "chat/reply_impl.h"
#include "gguf/show.h"
#include "grammar/json.h"

/* --- the list -------------------------------------------------------------------------- */

/* What is in no marker, so that a name can't imitate one. */
static bool fits_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i], small = (char)(c | 0x20);
        if ((small < 'a' || small > 'z') && (c < '0' || c > '9') && (!c || !strchr("_-.:/", c)))
            return false;
    }
    return n > 0;
}

static ts_status add_tool(r_tools *t, size_t i, json_t *tool, ts_error *err)
{
    const json_t *type = json_object_get(tool, "type");
    json_t *function = json_object_get(tool, "function"), *name = json_object_get(function, "name"),
           *params = json_object_get(function, "parameters");
    const char *s = json_string_value(name);
    size_t n = json_string_length(name);
    ts_shown shown;
    if (!json_is_object(tool))
        return ts_fail(err, TS_BAD_ARG, "tool %zu is no object", i);
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0))
        return ts_fail(err, TS_BAD_ARG, "tool %zu is no function, and only functions are known", i);
    if (!json_is_object(function) || !s)
        return ts_fail(err, TS_BAD_ARG, "tool %zu has no function with a name", i);
    if (n > TS_REPLY_MAX_NAME)
        return ts_fail(err, TS_BAD_ARG, "tool %zu: its name has %zu bytes, more than %d", i, n,
                       TS_REPLY_MAX_NAME);
    if (!fits_name(s, n))
        return ts_fail(err, TS_BAD_ARG,
                       "tool %zu: its name '%s' must be letters, digits, or any of _-.:/", i,
                       ts_show(&shown, s, n));
    if (params && !json_is_object(params) && !json_is_null(params))
        return ts_fail(err, TS_BAD_ARG, "tool %zu: its parameters are no schema", i);
    if (json_object_get(t->names, s))
        return ts_fail(err, TS_BAD_ARG, "tool %zu: there is another one called '%s'", i,
                       ts_show(&shown, s, n));
    if (json_object_set_new(t->names, s, params ? json_incref(params) : json_null()))
        return ts_fail(err, TS_NO_MEMORY, "no memory for the tools");
    return TS_OK;
}

ts_status r_tools_open(r_tools *t, const char *json, size_t n, ts_error *err)
{
    size_t i;
    json_t *tool;
    *t = (r_tools){.names = json_object()};
    ts_status st = t->names ? ts_json_read(&t->list, json, n, "the list of tools",
                                           TS_JSON_NUL | TS_JSON_TWICE, err)
                            : ts_fail(err, TS_NO_MEMORY, "no memory for the tools");
    if (!st && !json_is_array(t->list) && !json_is_null(t->list))
        st = ts_fail(err, TS_BAD_ARG, "'tools' is no list");
    if (!st && json_array_size(t->list) > TS_REPLY_MAX_TOOLS)
        st = ts_fail(err, TS_BAD_ARG, "there are %zu tools, more than %d", json_array_size(t->list),
                     TS_REPLY_MAX_TOOLS);
    json_array_foreach(t->list, i, tool)
    {
        if (!st)
            st = add_tool(t, i + 1, tool, err);
    }
    if (st)
        r_tools_close(t);
    return st;
}

r_tools r_tools_share(const r_tools *t)
{
    return (r_tools){.names = json_incref(t->names), .list = json_incref(t->list)};
}

void r_tools_close(r_tools *t)
{
    json_decref(t->names);
    json_decref(t->list);
    *t = (r_tools){0};
}

/* --- types of a schema ----------------------------------------------------------------- */

enum { MAX_DEPTH = 16, MAX_WORK = 1000 };

static unsigned type_of_name(const json_t *name)
{
    static const struct {
        const char *name;
        unsigned type;
    } types[] = {{"string", R_STRING},   {"number", R_NUMBER | R_INTEGER},
                 {"integer", R_INTEGER}, {"boolean", R_BOOLEAN},
                 {"null", R_NULL},       {"object", R_OBJECT},
                 {"array", R_ARRAY}};
    const char *s = json_string_value(name);
    for (size_t i = 0; s && i < sizeof types / sizeof *types; i++)
        if (strcmp(s, types[i].name) == 0)
            return types[i].type;
    return 0;
}

static unsigned type_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return R_STRING;
    case JSON_INTEGER:
        return R_NUMBER | R_INTEGER;
    case JSON_REAL:
        return R_NUMBER | (json_real_value(v) == trunc(json_real_value(v)) ? R_INTEGER : 0);
    case JSON_OBJECT:
        return R_OBJECT;
    case JSON_ARRAY:
        return R_ARRAY;
    case JSON_NULL:
        return R_NULL;
    default:
        return R_BOOLEAN;
    }
}

/* Without escapes in names. */
const json_t *r_refer(const json_t *root, const char *ref)
{
    char step[TS_REPLY_MAX_NAME];
    if (strncmp(ref, "#/", 2) != 0)
        return NULL;
    for (ref += 2; root && *ref;) {
        size_t n = strcspn(ref, "/");
        if (n >= sizeof step)
            return NULL;
        memcpy(step, ref, n);
        step[n] = 0;
        root = json_object_get(root, step);
        ref += n + (ref[n] == '/');
    }
    return root;
}

/* work: schemas and values that may be looked at: schemas may refer to each other. */
static unsigned types_of(const json_t *root, const json_t *schema, int depth, int *work)
{
    static const char *const any[] = {"anyOf", "oneOf"};
    const json_t *v, *e;
    size_t i;
    unsigned types = 0;
    if (!json_is_object(schema) || depth == MAX_DEPTH || --*work < 0)
        return R_ANY;
    if (json_is_string(v = json_object_get(schema, "$ref")))
        return types_of(root, r_refer(root, json_string_value(v)), depth + 1, work);
    if (json_is_string(v = json_object_get(schema, "type")))
        return type_of_name(v);
    json_array_foreach(v, i, e)
    {
        types |= type_of_name(e);
    }
    if ((v = json_object_get(schema, "const")))
        types |= type_of_value(v);
    v = json_object_get(schema, "enum");
    json_array_foreach(v, i, e)
    {
        if (--*work < 0)
            return R_ANY;
        types |= type_of_value(e);
    }
    for (size_t k = 0; k < 2; k++) {
        v = json_object_get(schema, any[k]);
        json_array_foreach(v, i, e)
        {
            if (*work < 0)
                return R_ANY;
            types |= types_of(root, e, depth + 1, work);
        }
    }
    return types ? types : R_ANY;
}

unsigned r_schema_types(const json_t *parameters, const json_t *schema)
{
    int work = MAX_WORK;
    return types_of(parameters, schema, 0, &work);
}

/* --- values that stand as text --------------------------------------------------------- */

/* Templates hand values over as Python prints them, and models learn it. */
static bool as_python(ts_sb *b, unsigned types, const char *s, size_t n)
{
    static const struct {
        char first;
        unsigned type;
    } begins[] = {
        {'T', R_BOOLEAN}, {'F', R_BOOLEAN}, {'N', R_NULL}, {'{', R_OBJECT}, {'[', R_ARRAY}};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (n > 0 && *s == begins[i].first && (types & begins[i].type))
            return r_python(b, s, n);
    return false;
}

ts_status r_value(ts_sb *b, unsigned types, const char *s, size_t n, ts_error *err)
{
    json_t *v = NULL;
    size_t from = 0, to = n;
    while (from < to && r_is_space(s[from]))
        from++;
    while (to > from && r_is_space(s[to - 1]))
        to--;
    if (types & ~(unsigned)R_STRING) {
        ts_status st =
            ts_json_read(&v, s + from, to - from, "it", TS_JSON_NUL | TS_JSON_TWICE, NULL);
        if (st == TS_NO_MEMORY)
            return ts_fail(err, st, "no memory for a tool's arguments");
        bool fits = !st && (type_of_value(v) & types & ~(unsigned)R_STRING);
        json_decref(v);
        if (fits) {
            ts_sb_add(b, s + from, to - from);
            return TS_OK;
        }
        if (!(types & R_STRING) && as_python(b, types, s + from, to - from))
            return TS_OK;
    }
    ts_sb_json_str(b, s, n);
    return TS_OK;
}

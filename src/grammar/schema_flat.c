/* schema_flat.c - from a schema as it is written to its flat form (schema_impl.h).
 *
 * Every keyword is known here: it constrains and is supported, or says nothing about which values
 * are accepted, or is refused by name. Merging two flat schemas gives the one that is satisfied
 * where both are. */
#include "grammar/schema_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

typedef enum rule_of {
    NOTE,
    REFUSED,
    PARTS,
    TYPE,
    VALUES,
    ANY_OF,
    COUNT,
    BOUND,
    TEXT,
    SCHEMA,
    SCHEMAS,
    NAMES,
    NAMED
} kind_of;

static const struct keyword {
    const char *name;
    kind_of kind;
} keywords[] = {
    {"$ref", PARTS},
    {"allOf", PARTS},
    {"type", TYPE},
    {"enum", VALUES},
    {"const", VALUES},
    {"anyOf", ANY_OF},
    {"oneOf", ANY_OF},
    {"minLength", COUNT},
    {"maxLength", COUNT},
    {"minItems", COUNT},
    {"maxItems", COUNT},
    {"minimum", BOUND},
    {"maximum", BOUND},
    {"exclusiveMinimum", BOUND},
    {"exclusiveMaximum", BOUND},
    {"pattern", TEXT},
    {"format", TEXT},
    {"items", SCHEMA},
    {"additionalItems", SCHEMA},
    {"additionalProperties", SCHEMA},
    {"prefixItems", SCHEMAS},
    {"required", NAMES},
    {"properties", NAMED},
    {"$anchor", NOTE},
    {"$comment", NOTE},
    {"$defs", NOTE},
    {"$id", NOTE},
    {"$schema", NOTE},
    {"contentEncoding", NOTE},
    {"contentMediaType", NOTE},
    {"default", NOTE},
    {"definitions", NOTE},
    {"deprecated", NOTE},
    {"description", NOTE},
    {"discriminator", NOTE},
    {"example", NOTE},
    {"examples", NOTE},
    {"id", NOTE},
    {"nullable", NOTE},
    {"readOnly", NOTE},
    {"title", NOTE},
    {"writeOnly", NOTE},
};

static const struct keyword *find_keyword(const char *name)
{
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (strcmp(keywords[i].name, name) == 0)
            return &keywords[i];
    return NULL;
}

/* --- references ------------------------------------------------------------------------ */

/* The references that are being followed, the last one first. */
typedef struct chain {
    const char *ref;
    const struct chain *up;
    int depth;
} chain;

static int hex(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* One step of a JSON pointer, %XX, ~0 and ~1 undone; returns its length in the pointer. */
static size_t pointer_step(const char *p, ts_sb *out)
{
    size_t i = 0;
    ts_sb_add(out, "", 0);
    while (p[i] && p[i] != '/') {
        char c = p[i++];
        if (c == '%' && hex(p[i]) >= 0 && hex(p[i + 1]) >= 0) {
            c = (char)(hex(p[i]) << 4 | hex(p[i + 1]));
            i += 2;
        }
        if (c == '~' && (p[i] == '0' || p[i] == '1'))
            c = p[i++] == '0' ? '~' : '/';
        ts_sb_add(out, &c, 1);
    }
    return i;
}

static json_t *child(const json_t *v, const char *name)
{
    if (json_is_object(v))
        return json_object_get(v, name);
    if (!json_is_array(v) || !*name || strspn(name, "0123456789") != strlen(name))
        return NULL;
    return json_array_get(v, strtoul(name, NULL, 10));
}

/* What a reference stands for: borrowed. */
static ts_status resolve(sc *c, const char *ref, json_t **out)
{
    json_t *v = c->root;
    const char *p = ref + 1;
    if (ref[0] != '#' || (*p && *p != '/'))
        return sc_fail(c, TS_UNSUPPORTED,
                       "\"$ref\": \"%.*s\": only references within the schema, #/..., are followed",
                       ts_utf8_cut(ref, 80), ref);
    while (*p == '/' && v) {
        ts_sb name = {0};
        p += 1 + pointer_step(p + 1, &name);
        if (name.failed)
            return sc_no_memory(c);
        v = child(v, name.s);
        ts_sb_free(&name);
    }
    if (!v)
        return sc_fail(c, TS_BAD_ARG, "\"$ref\": \"%.*s\" refers to nothing", ts_utf8_cut(ref, 80),
                       ref);
    *out = v;
    return TS_OK;
}

/* --- one keyword at a time ----------------------------------------------------------------- */

static ts_status bad(sc *c, const char *key, const char *wants)
{
    return sc_fail(c, TS_BAD_ARG, "\"%.*s\" must be %s", ts_utf8_cut(key, 60), key, wants);
}

static ts_status put(sc *c, json_t *flat, const char *key, json_t *v)
{
    c->work++;
    return json_object_set_new(flat, key, v) ? sc_no_memory(c) : TS_OK;
}

static ts_status take_type(sc *c, json_t *flat, json_t *v)
{
    static const char *const names[] = {"object",  "array",   "string", "number",
                                        "integer", "boolean", "null"};
    json_t *list = json_is_string(v) ? json_pack("[O]", v) : json_incref(v), *t;
    size_t i;
    if (!list)
        return sc_no_memory(c);
    ts_status st = json_is_array(list) && json_array_size(list) > 0
                       ? TS_OK
                       : bad(c, "type", "the name of a type or a list of such names");
    json_array_foreach(list, i, t)
    {
        size_t k = 0;
        while (!st && k < 7 && (!json_is_string(t) || strcmp(json_string_value(t), names[k]) != 0))
            k++;
        if (k == 7)
            st = bad(c, "type", "object, array, string, number, integer, boolean or null");
    }
    if (st)
        json_decref(list);
    else
        st = put(c, flat, "type", list);
    return st;
}

static ts_status take_values(sc *c, json_t *flat, const char *key, json_t *v)
{
    json_t *list = *key == 'c' ? json_pack("[O]", v) : json_incref(v);
    json_t *before = json_object_get(flat, "enum"), *both, *x, *y;
    size_t i, k;
    if (!list || !before)
        return list ? put(c, flat, "enum", list) : sc_no_memory(c);
    if (json_array_size(before) * json_array_size(list) > TS_SCHEMA_MAX_WORK) {
        json_decref(list);
        return sc_fail(c, TS_UNSUPPORTED, "two long \"enum\" at once");
    }
    c->work += json_array_size(before) * json_array_size(list) / 16;
    both = json_array();
    json_array_foreach(before, i, x)
    {
        bool in = false;
        json_array_foreach(list, k, y)
        {
            in = in || json_equal(x, y);
        }
        if (in && both && json_array_append(both, x)) {
            json_decref(both);
            both = NULL;
        }
    }
    json_decref(list);
    return put(c, flat, "enum", both);
}

static ts_status take_count(sc *c, json_t *flat, const char *key, json_t *v)
{
    double d = json_number_value(v);
    if (!json_is_number(v) || d < 0 || d != floor(d))
        return bad(c, key, "a number of 0 or more without a fraction");
    if (d > TS_GRAM_MAX_REPEAT && *(key + 1) == 'i')
        return sc_fail(c, TS_UNSUPPORTED, "\"%s\" is more than %d", key, TS_GRAM_MAX_REPEAT);
    if (d > TS_GRAM_MAX_REPEAT) /* as good as no limit */
        return TS_OK;
    const json_t *before = json_object_get(flat, key);
    json_int_t n = (json_int_t)d, m = json_integer_value(before);
    if (before && (key[1] == 'i' ? m > n : m < n))
        n = m;
    return put(c, flat, key, json_integer(n));
}

bool sc_less(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b))
        return json_integer_value(a) < json_integer_value(b);
    return json_number_value(a) < json_number_value(b);
}

static ts_status take_bound(sc *c, json_t *flat, const char *key, json_t *v)
{
    const json_t *before = json_object_get(flat, key);
    bool lower = strstr(key, "inimum") != NULL;
    if (!json_is_number(v))
        return bad(c, key, "a number");
    if (before && (lower ? sc_less(v, before) : sc_less(before, v)))
        return TS_OK;
    return put(c, flat, key, json_incref(v));
}

static ts_status take_text(sc *c, json_t *flat, const char *key, json_t *v)
{
    const json_t *before = json_object_get(flat, key);
    if (!json_is_string(v))
        return bad(c, key, "a string");
    if (before && !json_equal(before, v))
        return sc_fail(c, TS_UNSUPPORTED, "two different \"%s\" at once can't be translated", key);
    return put(c, flat, key, json_incref(v));
}

/* Appends the names that aren't in the list yet; the list goes where memory is short. */
static json_t *add_names(json_t *list, const json_t *names)
{
    json_t *x, *y;
    size_t i, k;
    json_array_foreach(names, i, x)
    {
        bool in = false;
        json_array_foreach(list, k, y)
        {
            in = in || json_equal(x, y);
        }
        if (list && !in && json_array_append(list, x)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static ts_status take_names(sc *c, json_t *flat, json_t *v)
{
    const json_t *x;
    size_t i;
    bool names = json_is_array(v);
    json_array_foreach(v, i, x)
    {
        names = names && json_is_string(x);
    }
    if (!names)
        return bad(c, "required", "a list of names");
    if (json_array_size(v) > TS_SCHEMA_MAX_NAMES)
        return sc_fail(c, TS_UNSUPPORTED, "\"required\" has more than %d names",
                       TS_SCHEMA_MAX_NAMES);
    const json_t *before = json_object_get(flat, "required");
    const size_t n = json_array_size(before), m = json_array_size(v);
    c->work += m + (n + m) * (n + m) / 256; /* each is compared with all before it */
    json_t *list = add_names(json_array(), before);
    return put(c, flat, "required", add_names(list, v));
}

/* All pairs of the alternatives before and these. */
static ts_status take_any_of(sc *c, json_t *flat, const char *key, json_t *v)
{
    json_t *before = json_object_get(flat, "anyOf"), *x, *y;
    size_t i, k;
    if (!json_array_size(v))
        return bad(c, key, "a list of schemas that isn't empty");
    if (!before)
        return put(c, flat, "anyOf", json_incref(v));
    if (json_array_size(before) * json_array_size(v) > 256)
        return sc_fail(c, TS_UNSUPPORTED, "\"anyOf\" twice makes more than 256 cases");
    json_t *pairs = json_array();
    json_array_foreach(before, i, x)
    {
        json_array_foreach(v, k, y)
        {
            json_t *both = pairs ? sc_both(x, y) : NULL;
            if (!both || json_array_append_new(pairs, both)) {
                json_decref(pairs);
                pairs = NULL;
            }
        }
    }
    return put(c, flat, "anyOf", pairs);
}

/* A schema, or a list of them, that another one of the same keyword is combined with. */
static ts_status take_schema(sc *c, json_t *flat, const char *key, json_t *v)
{
    json_t *before = json_object_get(flat, key);
    return put(c, flat, key, before ? sc_both(before, v) : json_incref(v));
}

/* --- objects and arrays --------------------------------------------------------------------- */

/* Of an object that is merged with another: what that says about a property it doesn't name. */
static json_t *elsewhere(json_t *v, const json_t *other, const char *name)
{
    json_t *more = json_object_get(other, "additionalProperties");
    if (!more || json_object_get(json_object_get(other, "properties"), name))
        return json_incref(v);
    return sc_both(v, more);
}

static ts_status merge_properties(sc *c, json_t *flat, const json_t *add)
{
    json_t *a = json_object_get(flat, "properties"), *b = json_object_get(add, "properties"), *v;
    json_t *all = json_object();
    const char *name;
    bool ok = all != NULL;
    c->work += json_object_size(a) + json_object_size(b);
    json_object_foreach(a, name, v)
    {
        json_t *same = json_object_get(b, name);
        ok = ok &&
             json_object_set_new(all, name, same ? sc_both(v, same) : elsewhere(v, add, name)) == 0;
    }
    json_object_foreach(b, name, v)
    {
        if (!json_object_get(a, name))
            ok = ok && json_object_set_new(all, name, elsewhere(v, flat, name)) == 0;
    }
    if (!ok) {
        json_decref(all);
        return sc_no_memory(c);
    }
    if (!a && !b) {
        json_decref(all);
        return TS_OK;
    }
    return put(c, flat, "properties", all);
}

static ts_status merge_arrays(sc *c, const json_t *flat, const json_t *add)
{
    bool before = json_object_get(flat, "prefixItems"), now = json_object_get(add, "prefixItems");
    if ((before && (now || json_object_get(add, "items"))) ||
        (now && json_object_get(flat, "items")))
        return sc_fail(
            c, TS_UNSUPPORTED,
            "\"prefixItems\" together with \"items\" of another schema can't be translated");
    return TS_OK;
}

static ts_status merge_key(sc *c, json_t *flat, const char *key, json_t *v)
{
    switch (find_keyword(key)->kind) {
    case VALUES:
        return take_values(c, flat, key, v);
    case ANY_OF:
        return take_any_of(c, flat, key, v);
    case COUNT:
        return take_count(c, flat, key, v);
    case BOUND:
        return take_bound(c, flat, key, v);
    case TEXT:
        return take_text(c, flat, key, v);
    case NAMES:
        return take_names(c, flat, v);
    case NAMED:
        return TS_OK; /* merge_properties */
    default:
        return take_schema(c, flat, key, v);
    }
}

static bool names_type(const json_t *list, const char *name)
{
    const json_t *t;
    size_t i;
    json_array_foreach(list, i, t)
    {
        if (strcmp(json_string_value(t), name) == 0)
            return true;
    }
    return false;
}

/* The types of both; an integer is a number. */
static ts_status merge_types(sc *c, json_t *flat, const json_t *add)
{
    json_t *a = json_object_get(flat, "type"), *b = json_object_get(add, "type"), *t;
    json_t *both = json_array();
    size_t i;
    bool ok = both != NULL;
    json_array_foreach(a ? a : b, i, t)
    {
        const char *name = json_string_value(t);
        bool integer = strcmp(name, "integer") == 0, number = strcmp(name, "number") == 0;
        if (!a || !b || names_type(b, name) || (integer && names_type(b, "number")))
            ok = ok && json_array_append(both, t) == 0;
        else if (number && names_type(b, "integer") && !names_type(a, "integer"))
            ok = ok && json_array_append_new(both, json_string("integer")) == 0;
    }
    if (ok && (a || b))
        return put(c, flat, "type", both);
    json_decref(both);
    return ok ? TS_OK : sc_no_memory(c);
}

/* flat and what `add` asks for besides; both flat, *flat false where nothing satisfies both. */
static ts_status merge(sc *c, json_t **flat, json_t *add)
{
    const char *key;
    json_t *v;
    if (!json_is_object(*flat) || !json_is_object(add)) {
        if (json_is_object(*flat)) {
            json_decref(*flat);
            *flat = json_incref(add);
        }
        return TS_OK;
    }
    ts_status st = merge_arrays(c, *flat, add);
    if (!st)
        st = merge_properties(c, *flat, add);
    if (!st)
        st = merge_types(c, *flat, add);
    json_object_foreach(add, key, v)
    {
        if (!st && strcmp(key, "type") != 0)
            st = merge_key(c, *flat, key, v);
    }
    return st;
}

json_t *sc_both(json_t *a, json_t *b)
{
    bool a_any = json_is_true(a) || (json_is_object(a) && json_object_size(a) == 0);
    bool b_any = json_is_true(b) || (json_is_object(b) && json_object_size(b) == 0);
    if (!a || !b)
        return NULL;
    if (json_is_false(a) || b_any || json_equal(a, b))
        return json_incref(a);
    if (json_is_false(b) || a_any)
        return json_incref(b);
    return json_pack("{s:[O,O]}", "allOf", a, b);
}

/* --- all keywords of a schema ------------------------------------------------------------------
 */

static ts_status refuse_keyword(sc *c, const char *key, const json_t *v)
{
    static const char *const known[] = {"$dynamicRef",
                                        "$recursiveRef",
                                        "contains",
                                        "dependencies",
                                        "dependentRequired",
                                        "dependentSchemas",
                                        "else",
                                        "if",
                                        "maxContains",
                                        "maxProperties",
                                        "minContains",
                                        "minProperties",
                                        "multipleOf",
                                        "not",
                                        "patternProperties",
                                        "propertyNames",
                                        "then",
                                        "unevaluatedItems",
                                        "unevaluatedProperties",
                                        "uniqueItems"};
    if (strncmp(key, "x-", 2) == 0 || (strcmp(key, "uniqueItems") == 0 && json_is_false(v)))
        return TS_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key, known[i]) == 0)
            return sc_fail(c, TS_UNSUPPORTED, "the keyword \"%s\" isn't supported", key);
    return sc_fail(c, TS_UNSUPPORTED, "the keyword \"%.*s\" isn't known", ts_utf8_cut(key, 60),
                   key);
}

static ts_status check_schemas(sc *c, const char *key, const json_t *v, kind_of kind)
{
    const json_t *one;
    const char *name;
    size_t i;
    bool list = kind == SCHEMAS || kind == ANY_OF, ok = list ? json_is_array(v) : json_is_object(v);
    if (kind == SCHEMA)
        ok = json_is_object(v) || json_is_boolean(v);
    if (list)
        json_array_foreach(v, i, one)
        {
            ok = ok && (json_is_object(one) || json_is_boolean(one));
        }
    if (kind == NAMED)
        json_object_foreach((json_t *)(uintptr_t)v, name, one)
        {
            ok = ok && (json_is_object(one) || json_is_boolean(one));
        }
    return ok ? TS_OK
              : bad(c, key,
                    list            ? "a list of schemas"
                    : kind == NAMED ? "an object of schemas"
                                    : "a schema");
}

/* Draft 4 wrote "exclusiveMinimum": true beside "minimum"; before 2020 a list of `items` was what
 * `prefixItems` is. */
static ts_status take_old(sc *c, json_t *own, const json_t *schema, const char *key, json_t *v,
                          bool *done)
{
    bool low = strcmp(key, "exclusiveMinimum") == 0;
    const char *plain = low ? "minimum" : "maximum";
    *done = true;
    if ((low || strcmp(key, "exclusiveMaximum") == 0) && json_is_boolean(v)) {
        json_t *bound = json_object_get(schema, plain);
        return json_is_true(v) && bound ? take_bound(c, own, key, bound) : TS_OK;
    }
    if (strcmp(key, "items") == 0 && json_is_array(v)) {
        ts_status st = check_schemas(c, key, v, SCHEMAS);
        return st ? st : take_schema(c, own, "prefixItems", v);
    }
    if (strcmp(key, "additionalItems") == 0) {
        ts_status st = check_schemas(c, key, v, SCHEMA);
        bool list = json_is_array(json_object_get(schema, "items"));
        return st || !list ? st : take_schema(c, own, "items", v);
    }
    *done = false;
    return TS_OK;
}

/* What the schema's own keywords ask for, into own. */
static ts_status take_own(sc *c, json_t *schema, json_t *own)
{
    const char *key;
    json_t *v;
    ts_status st = TS_OK;
    json_object_foreach(schema, key, v)
    {
        const struct keyword *k = find_keyword(key);
        bool done = false;
        if (!st)
            st = k ? take_old(c, own, schema, key, v, &done) : refuse_keyword(c, key, v);
        if (st || done || !k || k->kind == NOTE || k->kind == PARTS)
            continue;
        if (k->kind == SCHEMA || k->kind == SCHEMAS || k->kind == NAMED || k->kind == ANY_OF)
            st = check_schemas(c, key, v, k->kind);
        if (strcmp(key, "enum") == 0 && !json_array_size(v))
            st = bad(c, key, "a list of values that isn't empty");
        if (st)
            continue;
        if (k->kind == TYPE)
            st = take_type(c, own, v);
        else if (k->kind == NAMED)
            st = take_schema(c, own, key, v);
        else
            st = merge_key(c, own, key, v);
    }
    return st;
}

static ts_status flatten(sc *c, json_t *schema, const chain *up, json_t **out);

/* A part of a schema: merged into *flat. */
static ts_status add_part(sc *c, json_t *part, const chain *up, json_t **flat)
{
    json_t *one = NULL;
    ts_status st = flatten(c, part, up, &one);
    if (!st)
        st = merge(c, flat, one);
    json_decref(one);
    return st;
}

static ts_status add_ref(sc *c, const json_t *ref, const chain *up, json_t **flat)
{
    json_t *target = NULL;
    if (!json_is_string(ref))
        return bad(c, "$ref", "a string");
    chain here = {json_string_value(ref), up, up ? up->depth + 1 : 1};
    for (const chain *k = up; k; k = k->up)
        if (k->ref && strcmp(k->ref, here.ref) == 0)
            return sc_fail(c, TS_BAD_ARG, "\"$ref\": \"%.*s\" refers to itself",
                           ts_utf8_cut(here.ref, 80), here.ref);
    ts_status st = resolve(c, here.ref, &target);
    return st ? st : add_part(c, target, &here, flat);
}

static ts_status add_all_of(sc *c, const json_t *all, const chain *up, json_t **flat)
{
    chain here = {NULL, up, up ? up->depth + 1 : 1};
    json_t *one;
    size_t i;
    ts_status st =
        json_array_size(all) ? TS_OK : bad(c, "allOf", "a list of schemas that isn't empty");
    json_array_foreach(all, i, one)
    {
        if (!st)
            st = add_part(c, one, &here, flat);
    }
    return st;
}

static ts_status flatten(sc *c, json_t *schema, const chain *up, json_t **out)
{
    if (up && up->depth > TS_SCHEMA_MAX_DEPTH)
        return sc_fail(c, TS_UNSUPPORTED, "references and allOf are nested deeper than %d",
                       TS_SCHEMA_MAX_DEPTH);
    if (c->work > TS_SCHEMA_MAX_WORK)
        return sc_fail(c, TS_UNSUPPORTED, "there is too much to merge");
    if (json_is_false(schema)) {
        *out = json_false();
        return TS_OK;
    }
    if (!json_is_object(schema) && !json_is_true(schema))
        return sc_fail(c, TS_BAD_ARG, "a schema is an object, true or false");
    json_t *flat = json_object(), *own = json_object();
    const json_t *ref = json_object_get(schema, "$ref"), *all = json_object_get(schema, "allOf");
    ts_status st = flat && own ? TS_OK : sc_no_memory(c);
    if (!st && ref)
        st = add_ref(c, ref, up, &flat);
    if (!st && all)
        st = add_all_of(c, all, up, &flat);
    if (!st && json_is_object(schema))
        st = take_own(c, schema, own);
    if (!st)
        st = merge(c, &flat, own);
    json_decref(own);
    if (st)
        json_decref(flat);
    else
        *out = flat;
    return st;
}

ts_status sc_flatten(sc *c, json_t *schema, json_t **out)
{
    return flatten(c, schema, NULL, out);
}

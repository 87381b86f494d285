/* schema_oracle.h - whether a JSON value satisfies a schema, keyword by keyword as the
 * specification (draft 2020-12) has them, without a thought of grammars. Formats aren't looked at.
 */
#ifndef TS_SCHEMA_ORACLE_H
#define TS_SCHEMA_ORACLE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <math.h>
#include <pcre2.h>
#include <string.h>

#include "check.h"

static inline bool so_valid(const json_t *root, const json_t *s, const json_t *v);

/* Integers as such: doubles don't tell all of them apart. */
static inline bool so_less(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b))
        return json_integer_value(a) < json_integer_value(b);
    return json_number_value(a) < json_number_value(b);
}

static inline bool so_equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return !so_less(a, b) && !so_less(b, a);
    return json_equal(a, b);
}

static inline bool so_is(const json_t *v, const char *type)
{
    if (strcmp(type, "integer") == 0)
        return json_is_number(v) && json_number_value(v) == floor(json_number_value(v));
    if (strcmp(type, "number") == 0)
        return json_is_number(v);
    return strcmp(type, json_is_object(v)    ? "object"
                        : json_is_array(v)   ? "array"
                        : json_is_string(v)  ? "string"
                        : json_is_boolean(v) ? "boolean"
                        : json_is_null(v)    ? "null"
                                             : "") == 0;
}

static inline bool so_type(const json_t *type, const json_t *v)
{
    const json_t *t;
    size_t i;
    if (json_is_string(type))
        return so_is(v, json_string_value(type));
    json_array_foreach(type, i, t)
    {
        if (so_is(v, json_string_value(t)))
            return true;
    }
    return !type;
}

/* Only what the test's schemas have: %20, ~0, ~1 */
static inline const json_t *so_ref(const json_t *root, const char *ref)
{
    const json_t *at = root;
    for (const char *p = ref + 1; *p == '/' && at;) {
        char name[100];
        size_t n = 0;
        for (p++; *p && *p != '/'; p++) {
            char c = *p;
            if (c == '%') {
                c = ' ';
                p += 2;
            } else if (c == '~') {
                c = *++p == '0' ? '~' : '/';
            }
            name[n++] = c;
        }
        name[n] = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(name)) : json_object_get(at, name);
    }
    REQUIRE(at);
    return at;
}

static inline bool so_pattern(const json_t *pattern, const json_t *v)
{
    int err;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)json_string_value(pattern), PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_ALT_BSUX | PCRE2_DOLLAR_ENDONLY, &err, &at, NULL);
    REQUIRE(re);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(re, NULL);
    bool ok =
        pcre2_match(re, (PCRE2_SPTR)json_string_value(v), json_string_length(v), 0, 0, m, NULL) > 0;
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return ok;
}

static inline bool so_string(const json_t *s, const json_t *v)
{
    const json_t *min = json_object_get(s, "minLength"), *max = json_object_get(s, "maxLength");
    const json_t *pattern = json_object_get(s, "pattern");
    json_int_t n = 0;
    for (const char *p = json_string_value(v), *e = p + json_string_length(v); p < e; p++)
        n += ((uint8_t)*p & 0xc0) != 0x80;
    return (!min || n >= json_integer_value(min)) && (!max || n <= json_integer_value(max)) &&
           (!pattern || so_pattern(pattern, v));
}

static inline bool so_number(const json_t *s, const json_t *v)
{
    const json_t *min = json_object_get(s, "minimum"), *max = json_object_get(s, "maximum");
    const json_t *xmin = json_object_get(s, "exclusiveMinimum"),
                 *xmax = json_object_get(s, "exclusiveMaximum");
    if (json_is_true(xmin))
        return so_less(min, v);
    return (!min || !so_less(v, min)) && (!max || !so_less(max, v)) &&
           (!xmin || so_less(xmin, v)) && (!xmax || so_less(v, xmax));
}

static inline bool so_object(const json_t *root, const json_t *s, json_t *v)
{
    json_t *x, *props = json_object_get(s, "properties"),
               *more = json_object_get(s, "additionalProperties");
    const char *name;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i, x)
    {
        if (!json_object_get(v, json_string_value(x)))
            return false;
    }
    json_object_foreach(v, name, x)
    {
        const json_t *p = json_object_get(props, name);
        if (!so_valid(root, p ? p : more ? more : json_true(), x))
            return false;
    }
    return true;
}

static inline bool so_array(const json_t *root, const json_t *s, const json_t *v)
{
    const json_t *items = json_object_get(s, "items"), *first = json_object_get(s, "prefixItems"),
                 *x;
    const json_t *min = json_object_get(s, "minItems"), *max = json_object_get(s, "maxItems");
    size_t i, n = json_array_size(v);
    if (json_is_array(items)) {
        first = items;
        items = json_object_get(s, "additionalItems");
    }
    if ((min && n < (size_t)json_integer_value(min)) ||
        (max && n > (size_t)json_integer_value(max)))
        return false;
    json_array_foreach(v, i, x)
    {
        const json_t *p = i < json_array_size(first) ? json_array_get(first, i) : items;
        if (p && !so_valid(root, p, x))
            return false;
    }
    return true;
}

static inline bool so_listed(const json_t *list, const json_t *v)
{
    const json_t *x;
    size_t i;
    json_array_foreach(list, i, x)
    {
        if (so_equal(x, v))
            return true;
    }
    return !list;
}

/* How many of the schemas are satisfied. */
static inline size_t so_count(const json_t *root, const json_t *list, const json_t *v)
{
    const json_t *x;
    size_t i, n = 0;
    json_array_foreach(list, i, x)
    {
        n += so_valid(root, x, v);
    }
    return n;
}

static inline bool so_valid(const json_t *root, const json_t *s, const json_t *v)
{
    const json_t *ref = json_object_get(s, "$ref"), *value = json_object_get(s, "const");
    const json_t *all = json_object_get(s, "allOf"), *any = json_object_get(s, "anyOf");
    const json_t *one = json_object_get(s, "oneOf");
    if (json_is_boolean(s))
        return json_is_true(s);
    return (!ref || so_valid(root, so_ref(root, json_string_value(ref)), v)) &&
           so_type(json_object_get(s, "type"), v) && (!value || so_equal(value, v)) &&
           so_listed(json_object_get(s, "enum"), v) &&
           (!all || so_count(root, all, v) == json_array_size(all)) &&
           (!any || so_count(root, any, v) > 0) && (!one || so_count(root, one, v) == 1) &&
           (!json_is_string(v) || so_string(s, v)) && (!json_is_number(v) || so_number(s, v)) &&
           (!json_is_array(v) || so_array(root, s, v)) &&
           (!json_is_object(v) || so_object(root, s, (json_t *)(uintptr_t)v));
}

#endif

/* schema_types.c - objects, arrays and strings of a JSON schema.
 *
 * Properties come in the schema's order. Those that may be missing make a chain: after the first
 * member, each of the rest is `("," ws member)?` or there for certain. */
#include "grammar/schema_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* --- objects ---------------------------------------------------------------------------- */

typedef struct member {
    ts_sb text; /* "name": value */
    bool required;
} member;

typedef struct members {
    member *m; /* [n] */
    size_t n;
    const json_t *more; /* the schema of other members; NULL: there are none */
    ts_sb other;        /* one of them: name and value                       */
} members;

static void free_members(members *s)
{
    for (size_t i = 0; i < s->n; i++)
        ts_sb_free(&s->m[i].text);
    ts_sb_free(&s->other);
    free(s->m);
}

/* The value of a property or an element: one level deeper. */
static ts_status inner(sc *c, json_t *schema, ts_sb *b)
{
    c->level++;
    ts_status st = sc_value(c, schema, b);
    c->level--;
    return st;
}

static ts_status add_member(sc *c, members *s, const char *name, json_t *schema, bool required)
{
    member *m = &s->m[s->n];
    if (json_is_false(schema) && !required)
        return TS_OK;
    s->n++;
    m->required = required;
    size_t before = sc_enter(c, "properties", name);
    ts_status st = sc_name(c, name, &m->text);
    if (!st)
        st = inner(c, schema, &m->text);
    if (!st)
        sc_leave(c, before);
    return st;
}

static bool is_required(const json_t *flat, const char *name)
{
    const json_t *x;
    size_t i;
    json_array_foreach(json_object_get(flat, "required"), i, x)
    {
        if (strcmp(json_string_value(x), name) == 0)
            return true;
    }
    return false;
}

enum { NAME_MAX_BYTES = 120 };

/* Names that begin alike, sorted: names[from..to), the same up to byte `at`. What matches any other
 * name goes on from there. Names are written without escapes here. */
static void put_other_names(const char *const *names, size_t from, size_t to, size_t at, ts_sb *b)
{
    ts_ranges out = {0};
    bool whole = names[from][at] == 0; /* the name itself isn't one */
    ts_sb_str(b, "(");
    for (size_t i = from + whole, j; i < to; i = j) {
        uint32_t c = 0;
        size_t n = ts_utf8_decode(names[i] + at, strlen(names[i] + at), &c);
        for (j = i + 1; j < to && strncmp(names[j] + at, names[i] + at, n) == 0;)
            j++;
        ts_gbnf_literal(b, names[i] + at, n);
        ts_sb_str(b, " ");
        put_other_names(names, i, j, at + n, b);
        ts_sb_str(b, " | ");
        ts_ranges_add(&out, c, c);
    }
    ts_ranges_add(&out, 0, 0x1f);
    ts_ranges_add(&out, '"', '"');
    ts_ranges_add(&out, '\\', '\\');
    ts_ranges_add(&out, 0x7f, 0x7f);
    ts_ranges_negate(&out);
    ts_gbnf_class(b, &out);
    ts_sb_str(b, " [^\"\\\\\\x00-\\x1F\\x7F]*");
    if (!whole)
        ts_sb_str(b, " |");
    ts_sb_str(b, ")");
    b->failed |= out.failed;
    free(out.r);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A member that isn't one of the named ones. */
static ts_status other_member(sc *c, const json_t *flat, members *s)
{
    json_t *props = json_object_get(flat, "properties"), *v;
    const char *name;
    const char **names = ts_calloc(json_object_size(props) + 1, sizeof *names);
    size_t n = 0;
    ts_status st = names ? TS_OK : sc_no_memory(c);
    json_object_foreach(props, name, v)
    {
        bool plain = true;
        for (const char *p = name; *p; p++)
            plain = plain && ts_gram_is_plain((uint8_t)*p);
        if (st || !plain) /* escapes would be needed to write it */
            continue;
        if (strlen(name) > NAME_MAX_BYTES)
            st = sc_fail(c, TS_UNSUPPORTED,
                         "a property's name has more than %d bytes and \"additionalProperties\" "
                         "are allowed",
                         NAME_MAX_BYTES);
        names[n++] = name;
    }
    if (!st && n > 0) {
        qsort(names, n, sizeof *names, by_name);
        ts_sb_str(&s->other, "\"\\\"\" ");
        put_other_names(names, 0, n, 0, &s->other);
        ts_sb_str(&s->other, " \"\\\"\"");
    } else if (!st && json_object_size(props) > 0) { /* all named ones are written with escapes */
        ts_sb_str(&s->other, "\"\\\"\" [^\"\\\\\\x00-\\x1F\\x7F]* \"\\\"\"");
    } else if (!st) {
        sc_use(c, &s->other, SC_STRING, "string");
    }
    sc_use(c, &s->other, SC_WS, " \":\" ws ");
    free(names);
    size_t before = sc_enter(c, "additionalProperties", NULL);
    if (!st)
        st = inner(c, (json_t *)(uintptr_t)s->more, &s->other);
    if (!st)
        sc_leave(c, before);
    return st;
}

static ts_status find_members(sc *c, const json_t *flat, members *s)
{
    json_t *props = json_object_get(flat, "properties"), *v;
    const json_t *more = json_object_get(flat, "additionalProperties"), *x;
    const char *name;
    size_t i;
    ts_status st = TS_OK;
    if (json_object_size(props) > TS_SCHEMA_MAX_NAMES)
        return sc_fail(c, TS_UNSUPPORTED, "an object has more than %d properties",
                       TS_SCHEMA_MAX_NAMES);
    /* A schema with properties that says nothing of others has none. */
    s->more = more || json_object_size(props) > 0 ? more : json_true();
    if (json_is_false(s->more))
        s->more = NULL;
    s->m = ts_calloc(json_object_size(props) + json_array_size(json_object_get(flat, "required")),
                     sizeof *s->m);
    if (!s->m)
        return sc_no_memory(c);
    c->work += json_object_size(props) * json_array_size(json_object_get(flat, "required")) / 256;
    json_object_foreach(props, name, v)
    {
        if (!st)
            st = add_member(c, s, name, v, is_required(flat, name));
    }
    json_array_foreach(json_object_get(flat, "required"), i, x)
    {
        json_t *any = more ? (json_t *)(uintptr_t)more : json_true();
        if (!st && !json_object_get(props, json_string_value(x)))
            st = add_member(c, s, json_string_value(x), any, true);
    }
    if (!st && s->more)
        st = other_member(c, flat, s);
    return st;
}

/* What follows when the first member is behind: members from i on. */
static void put_rest(const members *s, size_t i, const char *base, ts_sb *b)
{
    for (; i < s->n; i++)
        ts_sb_printf(b, s->m[i].required ? " \",\" ws %s" : " (\",\" ws %s)?", s->m[i].text.s);
    if (s->more)
        ts_sb_printf(b, " (\",\" ws %sother)*", base);
}

/* The first of them may be any up to the first that is required: these are rules, since each is
 * written twice, and what follows each is one more. */
static void put_members(sc *c, const members *s, const char *base, ts_sb *b)
{
    size_t first = 0;
    while (first < s->n && !s->m[first].required)
        first++;
    size_t named = first < s->n ? first + 1 : s->n;
    if (first == 0 && s->n > 0) {
        ts_sb_str(b, s->m[0].text.s);
        put_rest(s, 1, base, b);
        return;
    }
    for (size_t i = 0; i < named; i++) {
        ts_sb_printf(&c->rules, "%sm%zu ::= %s\n", base, i, s->m[i].text.s);
        ts_sb_printf(&c->rules, "%sr%zu ::= \"\"", base, i + 1);
        if (i + 1 < named)
            ts_sb_printf(&c->rules, " (\",\" ws %sm%zu)%s %sr%zu", base, i + 1,
                         s->m[i + 1].required ? "" : "?", base, i + 2);
        else
            put_rest(s, named, base, &c->rules);
        ts_sb_str(&c->rules, "\n");
    }
    ts_sb_str(b, "(");
    for (size_t i = 0; i < named; i++)
        ts_sb_printf(b, "%s%sm%zu %sr%zu", i ? " | " : "", base, i, base, i + 1);
    if (s->more && first == s->n)
        ts_sb_printf(b, "%s%sother (\",\" ws %sother)*", named ? " | " : "", base, base);
    ts_sb_str(b, ")");
}

ts_status sc_object(sc *c, const json_t *flat, ts_sb *b)
{
    members s = {0};
    char base[24];
    bool may_be_empty = true;
    ts_status st = find_members(c, flat, &s);
    for (size_t i = 0; i < s.n && !st; i++) {
        may_be_empty = may_be_empty && !s.m[i].required;
        if (s.m[i].text.failed)
            st = sc_no_memory(c);
    }
    if (!st && s.other.failed)
        st = sc_no_memory(c);
    if (!st) {
        snprintf(base, sizeof base, "o%zu-", c->n_objects++);
        if (s.more)
            ts_sb_printf(&c->rules, "%sother ::= %s\n", base, s.other.s);
        sc_use(c, b, SC_WS, "\"{\" ws");
        if (s.n > 0 || s.more) {
            ts_sb_str(b, may_be_empty ? " (" : " ");
            put_members(c, &s, base, b);
            ts_sb_str(b, may_be_empty ? " ws)?" : " ws");
        }
        ts_sb_str(b, " \"}\"");
    }
    free_members(&s);
    return st;
}

/* --- arrays --------------------------------------------------------------------------------- */

enum { TUPLE_MAX = 60 };

static ts_status element(sc *c, json_t *schema, size_t i, ts_sb *b)
{
    char step[40];
    snprintf(step, sizeof step, i == SIZE_MAX ? "items" : "prefixItems/%zu", i);
    size_t before = sc_enter(c, step, NULL);
    ts_status st = inner(c, schema, b);
    if (!st)
        sc_leave(c, before);
    return st;
}

static void put_times(ts_sb *b, int64_t least, int64_t most)
{
    ts_sb_printf(b, "{%d,", (int)least);
    if (most >= 0)
        ts_sb_printf(b, "%d", (int)most);
    ts_sb_str(b, "}");
}

/* Elements that are all alike. */
static void put_list(const char *item, int64_t least, int64_t most, ts_sb *b)
{
    if (most == 0)
        return;
    ts_sb_printf(b, " %s%s (\",\" ws %s)", least == 0 ? "(" : "", item, item);
    put_times(b, least > 0 ? least - 1 : 0, most > 0 ? most - 1 : -1);
    ts_sb_str(b, least == 0 ? " ws)?" : " ws");
}

/* The first n elements each have a schema. */
static ts_status put_tuple(sc *c, json_t *list, const char *item, int64_t least, int64_t most,
                           ts_sb *b)
{
    json_t *v;
    size_t i, n = json_array_size(list), open = 0;
    ts_status st = TS_OK;
    if (n > TUPLE_MAX)
        return sc_fail(c, TS_UNSUPPORTED, "\"prefixItems\" has more than %d schemas", TUPLE_MAX);
    json_array_foreach(list, i, v)
    {
        if (st || (most >= 0 && (int64_t)i >= most))
            break;
        if ((int64_t)i >= least) {
            ts_sb_str(b, " (");
            open++;
        }
        ts_sb_str(b, i ? " \",\" ws " : " ");
        st = element(c, v, i, b);
    }
    int64_t left = (int64_t)n, rest = most < 0 ? -1 : most > left ? most - left : 0;
    if (!st && rest != 0) {
        ts_sb_printf(b, " (\",\" ws %s)", item);
        put_times(b, least > left ? least - left : 0, rest);
    }
    while (open-- > 0)
        ts_sb_str(b, ")?");
    ts_sb_str(b, " ws");
    return st;
}

ts_status sc_array(sc *c, const json_t *flat, ts_sb *b)
{
    json_t *items = json_object_get(flat, "items"), *list = json_object_get(flat, "prefixItems");
    const json_t *min = json_object_get(flat, "minItems"), *max = json_object_get(flat, "maxItems");
    int64_t least = json_integer_value(min), most = max ? json_integer_value(max) : -1;
    ts_sb item = {0};
    if (most >= 0 && most < least) {
        sc_use(c, b, SC_NONE, "none");
        return TS_OK;
    }
    if (json_is_false(items)) {
        int64_t n = (int64_t)json_array_size(list);
        most = most < 0 || most > n ? n : most;
        if (least > most) {
            sc_use(c, b, SC_NONE, "none");
            return TS_OK;
        }
    }
    ts_status st = element(c, items ? items : json_true(), SIZE_MAX, &item);
    if (!st && item.failed)
        st = sc_no_memory(c);
    if (!st) {
        sc_use(c, b, SC_WS, "\"[\" ws");
        if (json_array_size(list) > 0 && most != 0)
            st = put_tuple(c, list, item.s, least, most, b);
        else
            put_list(item.s, least, most, b);
        ts_sb_str(b, " \"]\"");
    }
    ts_sb_free(&item);
    return st;
}

/* --- strings ------------------------------------------------------------------------------ */

/* Formats as the RFCs that JSON schema names define them, in forms without surprises: years from
 * 1000 to 2999, no leap seconds, parts of limited length. */
#define DATE                                                                                       \
    "([12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"  \
    "02-(0[1-9]|1[0-9]|2[0-8]))|([12][0-9](0[48]|[2468][048]|[13579][26])|(12|16|20|24|28)00)"     \
    "-02-29)"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define IPV4  OCTET "(\\." OCTET "){3}"
#define H16   "[0-9a-fA-F]{1,4}"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?"

static const char *const formats[][2] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P([0-9]{1,4}W|([0-9]{1,4}Y)?([0-9]{1,4}M)?[0-9]{1,4}D|([0-9]{1,4}D)?T([0-9]{1,4}"
                 "H)?([0-9]{1,4}M)?[0-9]{1,4}S)$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"ipv4", "^" IPV4 "$"},
    {"ipv6", "^(" H16 ":){7}" H16 "$|^(" H16 "(:" H16 "){0,2})?::(" H16 "(:" H16 "){0,2})?$"},
    {"hostname", "^" LABEL "(\\." LABEL "){0,5}$"},
    {"email", "^[a-zA-Z0-9_+-]{1,20}(\\.[a-zA-Z0-9_+-]{1,20}){0,2}@" LABEL "(\\." LABEL "){1,3}$"},
};

static const char *format_pattern(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i][0], name) == 0)
            return formats[i][1];
    return NULL;
}

static ts_status by_pattern(sc *c, const json_t *pattern, const json_t *format, int64_t least,
                            int64_t most, ts_sb *b)
{
    int64_t p_least, p_most;
    ts_error why = {0};
    const char *s =
        pattern ? json_string_value(pattern) : format_pattern(json_string_value(format));
    if (pattern && format)
        return sc_fail(c, TS_UNSUPPORTED,
                       "\"pattern\" and \"format\" together can't be translated");
    if (!s)
        return sc_fail(c, TS_UNSUPPORTED,
                       "the format \"%.*s\" isn't supported: date, time, date-time, duration, "
                       "uuid, ipv4, ipv6, hostname and email are",
                       ts_utf8_cut(json_string_value(format), 60), json_string_value(format));
    c->uses |= SC_CHAR;
    ts_sb_str(b, "\"\\\"\" ");
    ts_status st = ts_regex_gbnf(b, s, pattern ? json_string_length(pattern) : strlen(s), &p_least,
                                 &p_most, &why);
    if (st)
        return sc_fail(c, st, "%s", why.msg);
    if (p_least < least || (most >= 0 && (p_most < 0 || p_most > most)))
        return sc_fail(
            c, TS_UNSUPPORTED,
            "\"%s\" allows texts that \"minLength\" and \"maxLength\" don't: together they "
            "can't be translated",
            pattern ? "pattern" : "format");
    ts_sb_str(b, " \"\\\"\"");
    return TS_OK;
}

ts_status sc_string(sc *c, const json_t *flat, ts_sb *b)
{
    const json_t *pattern = json_object_get(flat, "pattern");
    const json_t *format = json_object_get(flat, "format");
    const json_t *max = json_object_get(flat, "maxLength");
    int64_t least = json_integer_value(json_object_get(flat, "minLength"));
    int64_t most = max ? json_integer_value(max) : -1;
    if (most >= 0 && most < least) {
        sc_use(c, b, SC_NONE, "none");
    } else if (pattern || format) {
        return by_pattern(c, pattern, format, least, most, b);
    } else if (least == 0 && most < 0) {
        sc_use(c, b, SC_STRING, "string");
    } else {
        sc_use(c, b, SC_CHAR, "\"\\\"\" char");
        put_times(b, least, most);
        ts_sb_str(b, " \"\\\"\"");
    }
    return TS_OK;
}

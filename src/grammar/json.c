/* json.c - reads and writes JSON (RFC 8259). */
#include "grammar/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/real.h"
#include "base/utf8.h"

typedef struct reader {
    const char *s, *what;
    size_t n, at;
    unsigned flags;
    int depth;
    ts_error *err;
} reader;

static ts_status wrong(reader *r, const char *why)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < r->at; i++) {
        column = r->s[i] == '\n' ? 1 : column + (((uint8_t)r->s[i] & 0xc0) != 0x80);
        line += r->s[i] == '\n';
    }
    return ts_fail(r->err, TS_BAD_ARG, "%s isn't JSON: line %zu, column %zu: %s", r->what, line,
                   column, why);
}

static ts_status no_memory(reader *r)
{
    return ts_fail(r->err, TS_NO_MEMORY, "no memory to read %s", r->what);
}

static char peek(const reader *r)
{
    return r->at < r->n ? r->s[r->at] : 0;
}

static char skip(reader *r)
{
    while (r->at < r->n && strchr(" \t\r\n", r->s[r->at]) && r->s[r->at])
        r->at++;
    return peek(r);
}

/* --- strings ------------------------------------------------------------------------- */

static ts_status code_unit(reader *r, uint32_t *u)
{
    *u = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = peek(r), small = (char)(c | 0x20);
        int v = c >= '0' && c <= '9'           ? c - '0'
                : small >= 'a' && small <= 'f' ? small - 'a' + 10
                                               : -1;
        if (v < 0)
            return wrong(r, "\\u wants four hexadecimal digits");
        *u = *u << 4 | (uint32_t)v;
    }
    return TS_OK;
}

static ts_status escape(reader *r, ts_sb *b, bool nul)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = peek(r), utf8[4];
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t u, low;
    if (known) {
        ts_sb_add(b, &to[known - from], 1);
        r->at++;
        return TS_OK;
    }
    if (c != 'u')
        return wrong(r, "there is no such escape");
    r->at++;
    ts_status st = code_unit(r, &u);
    if (!st && u >= 0xd800 && u < 0xdc00 && r->n - r->at > 2 && r->s[r->at] == '\\' &&
        r->s[r->at + 1] == 'u') {
        r->at += 2;
        st = code_unit(r, &low);
        if (!st && low >= 0xdc00 && low <= 0xdfff)
            u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    }
    if (st)
        return st;
    if (u >= 0xd800 && u <= 0xdfff)
        return wrong(r, "half a pair of surrogates");
    if (u == 0 && !nul)
        return wrong(r, "\\u0000 can't be taken");
    ts_sb_add(b, utf8, ts_utf8_encode(u, utf8));
    return TS_OK;
}

static ts_status string(reader *r, ts_sb *b, bool nul)
{
    r->at++;
    ts_sb_add(b, "", 0);
    while (peek(r) != '"') {
        uint8_t c = (uint8_t)peek(r);
        size_t len = ts_utf8_decode(r->s + r->at, r->n - r->at, NULL);
        if (r->at == r->n)
            return wrong(r, "a string has no end");
        if (c < 0x20)
            return wrong(r, "a control character in a string");
        if (len == 0)
            return wrong(r, "this is not UTF-8");
        if (c == '\\') {
            r->at++;
            ts_status st = escape(r, b, nul);
            if (st)
                return st;
            continue;
        }
        ts_sb_add(b, r->s + r->at, len);
        r->at += len;
    }
    r->at++;
    return b->failed ? no_memory(r) : TS_OK;
}

/* --- numbers and words ----------------------------------------------------------------- */

static size_t digits(reader *r)
{
    size_t from = r->at;
    while (peek(r) >= '0' && peek(r) <= '9')
        r->at++;
    return r->at - from;
}

static ts_status number(reader *r, json_t **out)
{
    size_t from = r->at;
    bool integer = true;
    char text[400];
    r->at += peek(r) == '-';
    bool zero = peek(r) == '0';
    size_t n = digits(r);
    if (n == 0 || (zero && n > 1))
        return wrong(r, "this is no number");
    if (peek(r) == '.') {
        integer = false;
        r->at++;
        if (digits(r) == 0)
            return wrong(r, "a number ends in its point");
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        integer = false;
        r->at++;
        r->at += peek(r) == '-' || peek(r) == '+';
        if (digits(r) == 0)
            return wrong(r, "a number has no exponent behind its e");
    }
    if (r->at - from >= sizeof text)
        return wrong(r, "a number is too long");
    memcpy(text, r->s + from, r->at - from);
    text[r->at - from] = 0;
    errno = 0;
    long long i = integer ? strtoll(text, NULL, 10) : 0;
    double d = integer && errno == 0 ? 0 : strtod(text, NULL);
    if (!isfinite(d))
        return wrong(r, "a number is too large");
    *out = integer && errno == 0 ? json_integer(i) : json_real(d);
    return *out ? TS_OK : no_memory(r);
}

static ts_status word(reader *r, json_t **out)
{
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (r->n - r->at < n || memcmp(r->s + r->at, words[i], n) != 0)
            continue;
        *out = i == 0 ? json_true() : i == 1 ? json_false() : json_null();
        r->at += n;
        return TS_OK;
    }
    return wrong(r, r->at == r->n ? "the text ends too early" : "a value was expected");
}

/* --- structure ---------------------------------------------------------------------------- */

static ts_status value(reader *r, json_t **out);

static ts_status member(reader *r, json_t *object)
{
    ts_sb name = {0};
    json_t *v = NULL;
    if (skip(r) != '"')
        return wrong(r, "a name was expected");
    ts_status st = string(r, &name, false);
    if (!st && !(r->flags & TS_JSON_TWICE) && json_object_get(object, name.s))
        st = wrong(r, "a name is there twice (duplicate)");
    if (!st && skip(r) != ':')
        st = wrong(r, "a ':' was expected");
    r->at += !st;
    if (!st)
        st = value(r, &v);
    if (!st && json_object_set_new(object, name.s, v))
        st = no_memory(r);
    ts_sb_free(&name);
    return st;
}

static ts_status element(reader *r, json_t *array)
{
    json_t *v = NULL;
    ts_status st = value(r, &v);
    return !st && json_array_append_new(array, v) ? no_memory(r) : st;
}

static ts_status members(reader *r, json_t **out)
{
    bool object = peek(r) == '{';
    char end = object ? '}' : ']';
    json_t *all = object ? json_object() : json_array();
    ts_status st = all ? TS_OK : no_memory(r);
    if (!st && r->depth == TS_JSON_MAX_DEPTH)
        st = wrong(r, "it is nested too deep");
    r->depth++;
    r->at++;
    for (bool first = true; !st && (skip(r) != end || !first); first = false) {
        if (!first && peek(r) != ',') {
            st = wrong(r, object ? "',' or '}' was expected" : "',' or ']' was expected");
            break;
        }
        r->at += !first;
        st = object ? member(r, all) : element(r, all);
        if (!st && skip(r) == end)
            break;
    }
    r->depth--;
    r->at++;
    if (st)
        json_decref(all);
    else
        *out = all;
    return st;
}

static ts_status value(reader *r, json_t **out)
{
    char c = skip(r);
    if (c == '{' || c == '[')
        return members(r, out);
    if (c == '-' || (c >= '0' && c <= '9'))
        return number(r, out);
    if (c != '"')
        return word(r, out);
    ts_sb text = {0};
    ts_status st = string(r, &text, r->flags & TS_JSON_NUL);
    if (!st && !(*out = json_stringn(text.s, text.n)))
        st = no_memory(r);
    ts_sb_free(&text);
    return st;
}

ts_status ts_json_read(json_t **out, const char *s, size_t n, const char *what, unsigned flags,
                       ts_error *err)
{
    reader r = {.s = s, .what = what, .n = n, .flags = flags, .err = err};
    json_t *v = NULL;
    ts_status st = value(&r, &v);
    if (!st) {
        skip(&r);
        if (r.at < n)
            st = wrong(&r, "something follows the value");
    }
    if (st)
        json_decref(v);
    else
        *out = v;
    return st;
}

/* --- writing ------------------------------------------------------------------------------- */

typedef struct writer {
    ts_sb *b;
    bool lines;
    int depth;
} writer;

static void write_string(ts_sb *b, const char *s, size_t n)
{
    static const char plain[] = "\"\\\n\r\t\b\f", as[] = "\"\\nrtbf";
    size_t from = 0;
    ts_sb_add(b, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        const char *hit = s[i] ? strchr(plain, s[i]) : NULL;
        if (!hit && (uint8_t)s[i] >= 0x20)
            continue;
        ts_sb_add(b, s + from, i - from);
        from = i + 1;
        if (hit)
            ts_sb_printf(b, "\\%c", as[hit - plain]);
        else
            ts_sb_printf(b, "\\u%04x", (unsigned)(uint8_t)s[i]);
    }
    ts_sb_add(b, s + from, n - from);
    ts_sb_add(b, "\"", 1);
}

static void write_line(writer *w)
{
    if (w->lines)
        ts_sb_printf(w->b, "\n%*s", w->depth, "");
}

/* What stands in front of an element. */
static void write_sep(writer *w, bool first)
{
    if (!first)
        ts_sb_str(w->b, w->lines ? "," : ", ");
    write_line(w);
}

static void write_value(writer *w, const json_t *v);

static void write_members(writer *w, const json_t *v)
{
    const bool object = json_is_object(v);
    const json_t *x;
    const char *name;
    size_t i, n = 0;
    ts_sb_str(w->b, object ? "{" : "[");
    w->depth++;
    json_array_foreach(v, i, x)
    {
        write_sep(w, n++ == 0);
        write_value(w, x);
    }
    json_object_foreach((json_t *)(uintptr_t)v, name, x)
    {
        write_sep(w, n++ == 0);
        write_string(w->b, name, strlen(name));
        ts_sb_str(w->b, ": ");
        write_value(w, x);
    }
    w->depth--;
    if (n > 0)
        write_line(w);
    ts_sb_str(w->b, object ? "}" : "]");
}

/* Goes as deep as v does, which readers limit. */
static void write_value(writer *w, const json_t *v)
{
    char real[TS_REAL_MAX];
    switch (json_typeof(v)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        write_members(w, v);
        break;
    case JSON_STRING:
        write_string(w->b, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        ts_sb_printf(w->b, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        ts_sb_add(w->b, real, ts_real_text(json_real_value(v), real));
        break;
    default:
        ts_sb_str(w->b, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

void ts_json_write(const json_t *v, ts_sb *b, unsigned flags)
{
    write_value(&(writer){.b = b, .lines = flags & TS_JSON_LINES}, v);
}

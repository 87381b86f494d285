/* regex.c - ECMAScript regular expressions to GBNF, for the patterns of JSON schemas.
 *
 * What GBNF is made of says what can be translated: alternatives, groups, classes, quantifiers.
 * Anchors may stand at the ends of the pattern's alternatives; where one is missing, any characters
 * may come before or after. Assertions and backreferences are refused.
 *
 * The text that is matched stands in a JSON string: quotes, backslashes and control characters are
 * written as escapes there, everything else as it is. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "grammar/ranges.h"
#include "grammar/schema.h"

enum { ANY = -1 }; /* as the most characters: any number */

typedef struct span {
    int64_t least, most; /* characters */
} span;

typedef struct regex {
    const char *s;
    size_t n, at;
    int depth;
    ts_sb *out;
    ts_error *err;
} regex;

#define MOST_CHARS ((int64_t)1 << 40)

static ts_status refuse(regex *x, ts_status code, const char *what)
{
    size_t n = x->n < 120 ? x->n : 120;
    n -= x->n > n ? ts_utf8_tail(x->s, n) : 0;
    return ts_fail(x->err, code, "the pattern '%.*s'%s: %s", (int)n, x->s, x->n > n ? "..." : "",
                   what);
}

static char peek(const regex *x, size_t ahead)
{
    return ahead < x->n - x->at ? x->s[x->at + ahead] : 0;
}

static bool at_end(const regex *x)
{
    return x->at == x->n;
}

static int64_t sum(int64_t a, int64_t b)
{
    if (a == ANY || b == ANY)
        return ANY;
    return a + b > MOST_CHARS ? MOST_CHARS : a + b;
}

static int64_t times(int64_t a, int64_t b)
{
    if (a == 0 || b == 0)
        return 0;
    if (a == ANY || b == ANY)
        return ANY;
    return a > MOST_CHARS / b ? MOST_CHARS : a * b;
}

/* --- characters in JSON strings --------------------------------------------------------- */

/* What matches one character of the set (joined), as it stands in a string. */
static ts_status put_set(regex *x, ts_ranges *set)
{
    static const char named[] = "\b\f\n\r\t", names[] = "bfnrt";
    ts_sb *b = x->out;
    bool quote = ts_ranges_has(set, '"', '"'), slash = ts_ranges_has(set, '\\', '\\');
    bool controls = ts_ranges_has(set, 0, 0x1f);
    uint32_t ctl = 0;
    const char *sep = "";
    for (uint32_t c = 0; c < 0x20; c++)
        ctl |= (uint32_t)ts_ranges_has(set, c, c) << c;
    ts_ranges_remove(set, 0xd800, 0xdfff);
    ts_ranges_remove(set, 0, 0x1f);
    ts_ranges_remove(set, '"', '"');
    ts_ranges_remove(set, '\\', '\\');
    if (set->failed)
        return ts_fail(x->err, TS_NO_MEMORY, "no memory for a pattern");
    if (!set->n && !quote && !slash && !ctl)
        return refuse(x, TS_BAD_ARG, "no character is in one of its classes");
    if (set->n && !quote && !slash && !ctl) {
        char one[4];
        if (set->n > 1 || set->r[0].lo != set->r[0].hi)
            ts_gbnf_class(b, set);
        else
            ts_gbnf_literal(b, one, ts_utf8_encode(set->r[0].lo, one));
        return TS_OK;
    }
    ts_sb_str(b, "(");
    if (set->n) {
        ts_gbnf_class(b, set);
        sep = " | ";
    }
    if (quote) {
        ts_sb_printf(b, "%s\"\\\\\\\"\"", sep);
        sep = " | ";
    }
    if (slash) {
        ts_sb_printf(b, "%s\"\\\\\\\\\"", sep);
        sep = " | ";
    }
    if (controls)
        ts_sb_printf(b, "%s\"\\\\\" ([bfnrt] | \"u00\" [01] [0-9a-fA-F])", sep);
    for (uint32_t c = 0; c < 0x20 && !controls; c++) {
        if (!(ctl >> c & 1))
            continue;
        const char *known = c ? strchr(named, (int)c) : NULL;
        if (known)
            ts_sb_printf(b, "%s\"\\\\%c\"", sep, names[known - named]);
        else
            ts_sb_printf(b, "%s\"\\\\u00%02X\"", sep, c);
        sep = " | ";
    }
    ts_sb_str(b, ")");
    return TS_OK;
}

static void add_digits(ts_ranges *s)
{
    ts_ranges_add(s, '0', '9');
}

/* ECMAScript's words are ASCII, other readers' aren't: `all` has every character that may be one.
 */
static void add_word(ts_ranges *s, bool all)
{
    add_digits(s);
    ts_ranges_add(s, 'A', 'Z');
    ts_ranges_add(s, '_', '_');
    ts_ranges_add(s, 'a', 'z');
    if (all)
        ts_ranges_add(s, 0x80, 0x10ffff);
}

/* White space: ASCII's, and all that ECMAScript knows. */
static void add_space(ts_ranges *s, bool all)
{
    static const uint32_t r[][2] = {
        {0x09, 0x0d},     {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    for (size_t i = 0; i < (all ? sizeof r / sizeof *r : 2); i++)
        ts_ranges_add(s, r[i][0], r[i][1]);
}

/* \d \D \w \W \s \S: true if that is what c names. Only what every reader takes for one is in \w,
 * \W, \s and \S; within [^...], where what is named is left out, it is the other way round. */
static bool add_shorthand(ts_ranges *s, char c, bool negated)
{
    ts_ranges one = {0};
    if (c == 'd' || c == 'D')
        add_digits(&one);
    else if (c == 'w' || c == 'W')
        add_word(&one, (c == 'W') != negated);
    else if (c == 's' || c == 'S')
        add_space(&one, (c == 'S') != negated);
    else
        return false;
    if (c < 'a')
        ts_ranges_negate(&one);
    for (size_t i = 0; i < one.n; i++)
        ts_ranges_add(s, one.r[i].lo, one.r[i].hi);
    s->failed |= one.failed;
    free(one.r);
    return true;
}

static ts_status hex(regex *x, int digits, uint32_t *cp)
{
    *cp = 0;
    for (int i = 0; i < digits; i++, x->at++) {
        char c = peek(x, 0);
        char small = (char)(c | 0x20);
        int v = c >= '0' && c <= '9'           ? c - '0'
                : small >= 'a' && small <= 'f' ? small - 'a' + 10
                                               : -1;
        if (v < 0)
            return refuse(x, TS_BAD_ARG, "\\x wants two hexadecimal digits and \\u four");
        *cp = *cp << 4 | (uint32_t)v;
    }
    return TS_OK;
}

/* \u{...}, \uXXXX, and a pair of surrogates. */
static ts_status unicode(regex *x, uint32_t *cp)
{
    uint32_t low;
    if (peek(x, 0) == '{') {
        int n = 0;
        while (n < 7 && peek(x, (size_t)n + 1) != '}')
            n++;
        x->at++;
        ts_status st = n >= 1 && n <= 6 ? hex(x, n, cp) : refuse(x, TS_BAD_ARG, "a bad \\u{...}");
        if (st)
            return st;
        x->at++;
    } else {
        ts_status st = hex(x, 4, cp);
        if (st)
            return st;
        if (*cp >= 0xd800 && *cp < 0xdc00 && peek(x, 0) == '\\' && peek(x, 1) == 'u') {
            x->at += 2;
            if ((st = hex(x, 4, &low)))
                return st;
            if (low < 0xdc00 || low > 0xdfff)
                return refuse(x, TS_BAD_ARG, "half a pair of surrogates");
            *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    if (*cp > 0x10ffff || (*cp >= 0xd800 && *cp <= 0xdfff))
        return refuse(x, TS_BAD_ARG, "an escape that is not a character");
    return TS_OK;
}

/* The character behind a backslash, which is not a shorthand. */
static ts_status escaped(regex *x, bool in_class, uint32_t *cp)
{
    static const char from[] = "nrtfv", to[] = "\n\r\t\f\v";
    char c = peek(x, 0);
    const char *known = c ? strchr(from, c) : NULL;
    if (at_end(x))
        return refuse(x, TS_BAD_ARG, "it ends in a backslash");
    if (c == 'x' || c == 'u') {
        x->at++;
        return c == 'x' ? hex(x, 2, cp) : unicode(x, cp);
    }
    if (known)
        *cp = (uint8_t)to[known - from];
    else if (c == '0' && !(peek(x, 1) >= '0' && peek(x, 1) <= '9'))
        *cp = 0;
    else if (c == 'b' && in_class)
        *cp = '\b';
    else if (c >= '1' && c <= '9')
        return refuse(x, TS_UNSUPPORTED, "backreferences can't be translated");
    else if (c == 'b' || c == 'B')
        return refuse(x, TS_UNSUPPORTED, "\\b and \\B can't be translated");
    else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return refuse(x, TS_UNSUPPORTED, "one of its escapes isn't known");
    else {
        x->at += ts_utf8_decode(x->s + x->at, x->n - x->at, cp);
        return TS_OK;
    }
    x->at++;
    return TS_OK;
}

/* One member of a class, or a shorthand (*single false). */
static ts_status member(regex *x, ts_ranges *s, bool negated, uint32_t *cp, bool *single)
{
    *single = true;
    if (peek(x, 0) != '\\') {
        x->at += ts_utf8_decode(x->s + x->at, x->n - x->at, cp);
        return TS_OK;
    }
    x->at++;
    if (add_shorthand(s, peek(x, 0), negated)) {
        *single = false;
        x->at++;
        return TS_OK;
    }
    return escaped(x, true, cp);
}

static ts_status read_class(regex *x, ts_ranges *s)
{
    bool other = peek(x, 0) == '^', single;
    x->at += other;
    while (peek(x, 0) != ']') {
        uint32_t lo, hi;
        if (at_end(x))
            return refuse(x, TS_BAD_ARG, "a ']' is missing");
        ts_status st = member(x, s, other, &lo, &single);
        if (st)
            return st;
        if (!single)
            continue;
        hi = lo;
        if (peek(x, 0) == '-' && peek(x, 1) != ']' && peek(x, 1) != 0) {
            x->at++;
            if ((st = member(x, s, other, &hi, &single)))
                return st;
            if (!single)
                return refuse(x, TS_BAD_ARG, "a range that ends in a class");
            if (hi < lo)
                return refuse(x, TS_BAD_ARG, "a range that ends before it begins");
        }
        ts_ranges_add(s, lo, hi);
    }
    x->at++;
    if (other)
        ts_ranges_negate(s);
    return TS_OK;
}

/* --- structure ------------------------------------------------------------------------------ */

static ts_status alternatives(regex *x, span *len);

static ts_status group(regex *x, span *len)
{
    if (peek(x, 0) == '?') {
        char kind = peek(x, 1);
        if (kind == ':') {
            x->at += 2;
        } else if (kind == '<' && peek(x, 2) != '=' && peek(x, 2) != '!') {
            while (!at_end(x) && peek(x, 0) != '>')
                x->at++;
            x->at += !at_end(x);
        } else {
            return refuse(x, TS_UNSUPPORTED, "assertions and flags, (?...), can't be translated");
        }
    }
    if (++x->depth > TS_REGEX_MAX_DEPTH)
        return refuse(x, TS_UNSUPPORTED, "its groups are nested too deep");
    ts_sb_str(x->out, "(");
    ts_status st = alternatives(x, len);
    if (st)
        return st;
    if (peek(x, 0) != ')')
        return refuse(x, TS_BAD_ARG, "a ')' is missing");
    x->at++;
    x->depth--;
    ts_sb_str(x->out, ")");
    return TS_OK;
}

static ts_status atom(regex *x, span *len)
{
    ts_ranges s = {0};
    char c = peek(x, 0);
    uint32_t cp;
    ts_status st = TS_OK;
    *len = (span){1, 1};
    x->at++;
    if (c == '(')
        return group(x, len);
    if (c == '[') {
        st = read_class(x, &s);
    } else if (c == '.') {
        ts_ranges_add(&s, '\n', '\n');
        ts_ranges_add(&s, '\r', '\r');
        ts_ranges_add(&s, 0x2028, 0x2029);
        ts_ranges_negate(&s);
    } else if (c == '^' || c == '$') {
        st = refuse(x, TS_UNSUPPORTED, "^ and $ are understood at its ends only");
    } else if (c == '*' || c == '+' || c == '?') {
        st = refuse(x, TS_BAD_ARG, "a quantifier has nothing to repeat");
    } else if (c == '\\') {
        if (add_shorthand(&s, peek(x, 0), false))
            x->at++;
        else if (!(st = escaped(x, false, &cp)))
            ts_ranges_add(&s, cp, cp);
    } else {
        x->at--;
        x->at += ts_utf8_decode(x->s + x->at, x->n - x->at, &cp);
        ts_ranges_add(&s, cp, cp);
    }
    ts_ranges_join(&s);
    if (!st)
        st = put_set(x, &s);
    free(s.r);
    return st;
}

/* Digits at x->at + *i, which moves behind them; false if there are none. */
static bool number(const regex *x, size_t *i, int64_t *v)
{
    size_t from = *i;
    for (*v = 0; peek(x, *i) >= '0' && peek(x, *i) <= '9'; ++*i)
        *v = *v > MOST_CHARS ? *v : 10 * *v + (peek(x, *i) - '0');
    return *i > from;
}

/* A quantifier, if one is here. A brace that begins none stands for itself. */
static ts_status quantifier(regex *x, int64_t *least, int64_t *most, bool *any)
{
    char c = peek(x, 0);
    size_t i = 1;
    *any = true;
    if (c == '*' || c == '+' || c == '?') {
        *least = c == '+';
        *most = c == '?' ? 1 : ANY;
    } else if (c == '{' && number(x, &i, least)) {
        *most = *least;
        if (peek(x, i) == ',') {
            i++;
            if (!number(x, &i, most))
                *most = ANY;
        }
        if (peek(x, i) != '}') {
            *any = false;
            return TS_OK;
        }
        i++;
        if (*most != ANY && *most < *least)
            return refuse(x, TS_BAD_ARG, "a quantifier has its numbers in the wrong order");
        if (*least > TS_GRAM_MAX_REPEAT || *most > TS_GRAM_MAX_REPEAT)
            return refuse(x, TS_UNSUPPORTED, "a quantifier is too large");
    } else {
        *any = false;
        return TS_OK;
    }
    x->at += i;
    if (peek(x, 0) == '?') /* lazy: the same texts */
        x->at++;
    c = peek(x, 0);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return refuse(x, TS_BAD_ARG, "a quantifier has nothing to repeat");
    return TS_OK;
}

static bool ends_sequence(const regex *x)
{
    char c = peek(x, 0);
    if (at_end(x) || c == '|' || c == ')')
        return true;
    return c == '$' && x->depth == 0 && (x->at + 1 == x->n || peek(x, 1) == '|');
}

static ts_status sequence(regex *x, span *len)
{
    *len = (span){0, 0};
    if (ends_sequence(x))
        ts_sb_str(x->out, "\"\"");
    for (const char *sep = ""; !ends_sequence(x); sep = " ") {
        span one;
        int64_t least, most;
        bool any;
        ts_sb_str(x->out, sep);
        ts_status st = atom(x, &one);
        if (!st)
            st = quantifier(x, &least, &most, &any);
        if (st)
            return st;
        if (any) {
            ts_sb_printf(x->out, "{%d,", (int)least);
            if (most != ANY)
                ts_sb_printf(x->out, "%d", (int)most);
            ts_sb_str(x->out, "}");
            one = (span){times(one.least, least), times(one.most, most)};
        }
        *len = (span){sum(len->least, one.least), sum(len->most, one.most)};
    }
    return TS_OK;
}

/* One of several; what an anchor at its ends doesn't exclude comes before and after it. */
static ts_status alternative(regex *x, span *len)
{
    bool whole = x->depth > 0, begins = whole, ends = whole;
    if (!whole && peek(x, 0) == '^') {
        begins = true;
        x->at++;
    }
    if (!begins)
        ts_sb_str(x->out, "char* ");
    ts_status st = sequence(x, len);
    if (st)
        return st;
    if (!whole && peek(x, 0) == '$') {
        ends = true;
        x->at++;
    }
    if (!ends)
        ts_sb_str(x->out, " char*");
    if (!begins || !ends)
        len->most = ANY;
    return TS_OK;
}

static ts_status alternatives(regex *x, span *len)
{
    ts_status st = alternative(x, len);
    while (!st && peek(x, 0) == '|') {
        span other;
        x->at++;
        ts_sb_str(x->out, " | ");
        if ((st = alternative(x, &other)))
            break;
        len->least = other.least < len->least ? other.least : len->least;
        if (len->most != ANY)
            len->most = other.most == ANY || other.most > len->most ? other.most : len->most;
    }
    return st;
}

ts_status ts_regex_gbnf(ts_sb *b, const char *pattern, size_t n, int64_t *least, int64_t *most,
                        ts_error *err)
{
    regex x = {.s = pattern, .n = n, .out = b, .err = err};
    span len;
    ts_sb_str(b, "(");
    ts_status st = alternatives(&x, &len);
    if (!st && !at_end(&x))
        st = refuse(&x, TS_BAD_ARG, "a ')' has no '('");
    if (st)
        return st;
    ts_sb_str(b, ")");
    *least = len.least;
    *most = len.most;
    return TS_OK;
}

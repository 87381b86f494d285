/* reply_python.c - calls as Python writes them, and Python's values where JSON is wanted.
 *
 *     <|tool_call_start|>[look(city='Oslo', days=3)]<|tool_call_end|>      LFM2
 *     <|tool_call>call:look{city:<|"|>Oslo<|"|>,days:3}<tool_call|>        Gemma 4
 *
 * A call is read when the marker behind it is there: until then it is held. */
#include <string.h>

#include "base/utf8.h"
#include "chat/reply_impl.h"
#include "grammar/json.h"

enum { MAX_DEPTH = 100 };

#define QUOTE "<|\"|>"

typedef struct reader {
    const char *s;
    size_t n, at;
    int depth;
    ts_sb *b;
} reader;

static char peek(reader *p)
{
    while (p->at < p->n && r_is_space(p->s[p->at]))
        p->at++;
    return p->at < p->n ? p->s[p->at] : 0;
}

static bool take(reader *p, char c)
{
    bool there = peek(p) == c;
    p->at += there;
    return there;
}

static bool take_word(reader *p, const char *word)
{
    size_t n = strlen(word);
    bool there = p->n - p->at >= n && memcmp(p->s + p->at, word, n) == 0;
    p->at += there ? n : 0;
    return there;
}

/* --- strings --------------------------------------------------------------------------- */

static bool hexadecimal(reader *p, int digits, uint32_t *out)
{
    uint32_t u = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        char c = p->at < p->n ? p->s[p->at] : 0, small = (char)(c | 0x20);
        if ((c < '0' || c > '9') && (small < 'a' || small > 'f'))
            return false;
        u = u << 4 | (uint32_t)(c <= '9' ? c - '0' : small - 'a' + 10);
    }
    *out = u;
    return true;
}

/* \x41 and the like: so many digits. Pairs of surrogates are JSON's. */
static bool code_point(reader *p, int digits, ts_sb *text)
{
    uint32_t u, low;
    char utf8[4];
    if (!hexadecimal(p, digits, &u))
        return false;
    if (u >= 0xd800 && u < 0xdc00 && take_word(p, "\\u") && hexadecimal(p, 4, &low) &&
        low >= 0xdc00 && low < 0xe000)
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    if (u > 0x10ffff || (u >= 0xd800 && u < 0xe000))
        return false;
    ts_sb_add(text, utf8, ts_utf8_encode(u, utf8));
    return true;
}

static bool escape(reader *p, ts_sb *text)
{
    static const char from[] = "\\'\"/nrtbfav0", to[] = "\\'\"/\n\r\t\b\f\a\v";
    char c = p->at < p->n ? p->s[p->at++] : 0;
    const char *known = c ? strchr(from, c) : NULL;
    if (!c)
        return false;
    if (c == 'x' || c == 'u' || c == 'U')
        return code_point(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, text);
    if (known)
        ts_sb_add(text, to + (known - from), 1);
    else if (c != '\n') /* a line that goes on */
        ts_sb_add(text, p->s + p->at - 2, 2);
    return true;
}

/* At its quote. */
static bool string(reader *p, ts_sb *text)
{
    bool special = take_word(p, QUOTE);
    char quote = special ? 0 : p->s[p->at++];
    while (p->at < p->n) {
        char c = p->s[p->at];
        if (special ? take_word(p, QUOTE) : c == quote) {
            p->at += !special;
            return true;
        }
        p->at++;
        if (c == '\\' && !special) {
            if (!escape(p, text))
                return false;
        } else {
            ts_sb_add(text, &c, 1);
        }
    }
    return false;
}

static bool add_string(reader *p)
{
    ts_sb text = {0};
    ts_sb_add(&text, "", 0);
    bool ok = string(p, &text);
    if (ok && !text.failed)
        ts_sb_json_str(p->b, text.s, text.n);
    p->b->failed |= text.failed;
    ts_sb_free(&text);
    return ok;
}

static bool at_string(reader *p)
{
    char c = peek(p);
    return c == '"' || c == '\'' ||
           (c == '<' && p->n - p->at >= 5 && memcmp(p->s + p->at, QUOTE, 5) == 0);
}

/* --- values ---------------------------------------------------------------------------- */

static bool value(reader *p);

/* A word without quotes: a parameter, or a member of Gemma's objects. */
static bool bare_name(reader *p)
{
    size_t from = p->at;
    while (p->at < p->n) {
        char c = p->s[p->at], small = (char)(c | 0x20);
        if ((small < 'a' || small > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' &&
            c != '.' && c != '$')
            break;
        p->at++;
    }
    ts_sb_json_str(p->b, p->s + from, p->at - from);
    return p->at > from;
}

/* Members up to `close`, with `sep` behind their names. */
static bool members(reader *p, char sep, char close)
{
    ts_sb_str(p->b, "{");
    for (bool first = true; !take(p, close); first = false) {
        if (!first && !take(p, ','))
            return false;
        if (!first && take(p, close))
            break;
        ts_sb_str(p->b, first ? "" : ", ");
        if (!(at_string(p) ? add_string(p) : bare_name(p)) || !take(p, sep))
            return false;
        ts_sb_str(p->b, ": ");
        if (!value(p))
            return false;
    }
    ts_sb_str(p->b, "}");
    return true;
}

static bool elements(reader *p, char close)
{
    ts_sb_str(p->b, "[");
    for (bool first = true; !take(p, close); first = false) {
        if (!first && !take(p, ','))
            return false;
        if (!first && take(p, close))
            break;
        ts_sb_str(p->b, first ? "" : ", ");
        if (!value(p))
            return false;
    }
    ts_sb_str(p->b, "]");
    return true;
}

static bool number(reader *p)
{
    r_scan scan = {0};
    size_t from = p->at;
    while (p->at < p->n && p->s[p->at] && strchr("+-.0123456789eE", p->s[p->at]))
        if (r_scan_byte(&scan, p->s[p->at++]) != R_MORE)
            return false;
    ts_sb_add(p->b, p->s + from, p->at - from);
    return p->at > from && r_scan_byte(&scan, ' ') == R_BEFORE;
}

static bool word(reader *p)
{
    static const char *const words[][2] = {{"True", "true"},   {"true", "true"}, {"False", "false"},
                                           {"false", "false"}, {"None", "null"}, {"null", "null"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (take_word(p, words[i][0])) {
            ts_sb_str(p->b, words[i][1]);
            return true;
        }
    return false;
}

static bool value(reader *p)
{
    if (p->depth == MAX_DEPTH || p->b->failed)
        return false;
    p->depth++;
    bool ok = at_string(p)   ? add_string(p)
              : take(p, '{') ? members(p, ':', '}')
              : take(p, '[') ? elements(p, ']')
              : take(p, '(') ? elements(p, ')')
                             : word(p) || number(p);
    p->depth--;
    return ok;
}

bool r_python(ts_sb *b, const char *s, size_t n)
{
    reader p = {.s = s, .n = n, .b = b};
    size_t before = b->n;
    bool ok = value(&p) && !peek(&p) && p.at == n && !b->failed;
    if (!ok)
        b->n = before;
    return ok;
}

/* --- calls ----------------------------------------------------------------------------- */

/* One call of a name and its arguments, which are put into r->args. False: it is none. */
static bool one(ts_reply *r, reader *p)
{
    bool gemma = take_word(p, "call:");
    size_t from = p->at;
    char open = gemma ? '{' : '(';
    while (p->at < p->n && p->s[p->at] != open)
        p->at++;
    size_t n = p->at - from;
    while (n > 0 && r_is_space(p->s[from + n - 1]))
        n--;
    r->args.n = 0;
    return r_set_name(r, p->s + from, n) && take(p, open) &&
           (gemma ? members(p, ':', '}') : members(p, '=', ')'));
}

/* Reads s[n], all of it: only counts the calls, or hands them over. */
static bool all(ts_reply *r, const char *s, size_t n, bool emit)
{
    reader p = {.s = s, .n = n, .b = &r->args};
    bool list = take(&p, '['), any = false;
    do {
        peek(&p);
        if (any && list && take(&p, ']'))
            return !peek(&p);
        if (!one(r, &p) || r->args.failed)
            return false;
        if (emit) {
            r_begin_call(r);
            r_arguments(r, r->args.s, r->args.n);
        }
        any = true;
    } while (take(&p, ','));
    return (!list || take(&p, ']')) && peek(&p) == 0 && p.at == n;
}

static r_step in_calls(ts_reply *r)
{
    const char *end = r->form->end, *p;
    size_t n = r_left(r);
    int m = 0;
    while (r->at < n && (m = r_match(r, r->at, end)) == 0)
        r->at++;
    if (m <= 0 && !r_is_end(r))
        return r_wait(r);
    p = r_text(r) + r->from;
    n = r->at - r->from;
    bool ok = all(r, p, n, false);
    if (r->args.failed)
        return r_no_memory(r);
    if (!ok)
        return r_no_call(r);
    all(r, p, n, true);
    if (r->args.failed)
        return r_no_memory(r);
    r_take(r, r->at);
    return r_goto(r, r_behind);
}

r_step r_python_begin(ts_reply *r)
{
    r->from = r->at;
    return r_goto(r, in_calls);
}

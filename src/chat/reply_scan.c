/* reply_scan.c - JSON (RFC 8259), byte by byte: where a value ends and whether it is one. */
#include <string.h>

#include "chat/reply_impl.h"

enum {
    S_VALUE,        /* a value must begin                  */
    S_VALUE_OR_END, /* behind [                           */
    S_KEY_OR_END,   /* behind {                            */
    S_KEY,          /* behind a comma in an object         */
    S_COLON,        /* behind a name                       */
    S_BEHIND,       /* behind a value in an object or list */
    S_STRING,
    S_ESCAPE,
    S_HEX,   /* `left` digits are to come */
    S_MINUS, /* numbers */
    S_ZERO,
    S_WHOLE,
    S_POINT,
    S_FRACTION,
    S_E,
    S_E_SIGN,
    S_POWER,
    S_WORD, /* the rest of `word` is to come */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool in_object(const r_scan *s)
{
    int d = s->depth - 1;
    return s->object[d / 64] >> d % 64 & 1;
}

static r_scanned ended(r_scan *s)
{
    s->state = S_BEHIND;
    return s->depth ? R_MORE : R_DONE;
}

static r_scanned open_bracket(r_scan *s, bool object)
{
    uint64_t bit = (uint64_t)1 << s->depth % 64;
    if (s->depth == R_SCAN_DEPTH)
        return R_BAD;
    if (object)
        s->object[s->depth / 64] |= bit;
    else
        s->object[s->depth / 64] &= ~bit;
    s->depth++;
    s->state = object ? S_KEY_OR_END : S_VALUE_OR_END;
    return R_MORE;
}

static r_scanned close_bracket(r_scan *s)
{
    s->depth--;
    return ended(s);
}

static r_scanned begin(r_scan *s, char c)
{
    s->key = false;
    switch (c) {
    case '{':
    case '[':
        return open_bracket(s, c == '{');
    case '"':
        s->state = S_STRING;
        return R_MORE;
    case '-':
        s->state = S_MINUS;
        return R_MORE;
    case 't':
    case 'f':
    case 'n':
        s->word = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
        s->state = S_WORD;
        return R_MORE;
    default:
        s->state = c == '0' ? S_ZERO : S_WHOLE;
        return is_digit(c) ? R_MORE : R_BAD;
    }
}

static r_scanned in_string(r_scan *s, char c)
{
    if (s->state == S_ESCAPE) {
        if (!c || !strchr("\"\\/bfnrtu", c))
            return R_BAD;
        s->state = c == 'u' ? S_HEX : S_STRING;
        s->left = 4;
        return R_MORE;
    }
    if (s->state == S_HEX) {
        char small = (char)(c | 0x20);
        if (!is_digit(c) && (small < 'a' || small > 'f'))
            return R_BAD;
        if (--s->left == 0)
            s->state = S_STRING;
        return R_MORE;
    }
    if ((uint8_t)c < 0x20)
        return R_RAW;
    if (c == '\\')
        s->state = S_ESCAPE;
    if (c != '"')
        return R_MORE;
    if (!s->key)
        return ended(s);
    s->state = S_COLON;
    return R_MORE;
}

/* Behind a number: the byte is looked at once more, as one behind a value. */
static r_scanned behind_number(r_scan *s, char c)
{
    if (ended(s) == R_DONE)
        return R_BEFORE;
    return r_scan_byte(s, c);
}

static r_scanned in_number(r_scan *s, char c)
{
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    uint8_t to = 0;
    switch (s->state) {
    case S_MINUS:
        to = c == '0' ? S_ZERO : digit ? S_WHOLE : 0;
        break;
    case S_ZERO:
    case S_WHOLE:
        to = digit && s->state == S_WHOLE ? S_WHOLE : c == '.' ? S_POINT : e ? S_E : S_BEHIND;
        break;
    case S_POINT:
        to = digit ? S_FRACTION : 0;
        break;
    case S_FRACTION:
        to = digit ? S_FRACTION : e ? S_E : S_BEHIND;
        break;
    case S_E:
        to = c == '+' || c == '-' ? S_E_SIGN : digit ? S_POWER : 0;
        break;
    case S_E_SIGN:
        to = digit ? S_POWER : 0;
        break;
    default: /* S_POWER */
        to = digit ? S_POWER : S_BEHIND;
    }
    if (to == S_BEHIND)
        return behind_number(s, c);
    s->state = to;
    return to ? R_MORE : R_BAD;
}

static r_scanned between(r_scan *s, char c)
{
    if (r_is_space(c))
        return R_MORE;
    switch (s->state) {
    case S_VALUE_OR_END:
        return c == ']' ? close_bracket(s) : begin(s, c);
    case S_KEY_OR_END:
    case S_KEY:
        if (c == '}' && s->state == S_KEY_OR_END)
            return close_bracket(s);
        s->key = true;
        s->state = S_STRING;
        return c == '"' ? R_MORE : R_BAD;
    case S_COLON:
        s->state = S_VALUE;
        return c == ':' ? R_MORE : R_BAD;
    case S_BEHIND:
        if (c == ',') {
            s->state = in_object(s) ? S_KEY : S_VALUE;
            return R_MORE;
        }
        return c == (in_object(s) ? '}' : ']') ? close_bracket(s) : R_BAD;
    default:
        return begin(s, c);
    }
}

r_scanned r_scan_byte(r_scan *s, char c)
{
    if (s->state >= S_MINUS && s->state < S_WORD)
        return in_number(s, c);
    if (s->state == S_STRING || s->state == S_ESCAPE || s->state == S_HEX)
        return in_string(s, c);
    if (s->state != S_WORD)
        return between(s, c);
    if (c != *s->word)
        return R_BAD;
    return *++s->word ? R_MORE : ended(s);
}

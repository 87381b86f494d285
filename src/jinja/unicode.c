/* unicode.c - case and classes of characters, as Python's str has them. */
#include <string.h>

#include "base/utf8.h"
#include "jinja/case_table.h"
#include "jinja/impl.h"
#include "model/tok_internal.h"

uint32_t j_char_at(const char *s, size_t n, size_t *len)
{
    uint32_t cp = (uint8_t)*s;
    *len = 1;
    if (cp >= 0x80)
        *len = ts_utf8_decode(s, n, &cp);
    if (*len == 0) { /* never: strings are valid UTF-8 */
        *len = 1;
        cp = 0xfffd;
    }
    return cp;
}

bool j_is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

/* What scripts/make_unicode.py gives: its codes are 0 other, 1 number, 2 letter, 6 white space. */
enum { CLASS_OTHER = 0, CLASS_NUMBER = 1, CLASS_LETTER = 2, CLASS_WHITE = 6 };

static int class_of(uint32_t cp)
{
    size_t lo = 0, hi = tok_unicode_n;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (tok_unicode[mid] >> 3 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return (int)(tok_unicode[lo] & 7);
}

bool j_is_alpha(uint32_t cp)
{
    if (cp < 0x80)
        return (cp | 0x20) >= 'a' && (cp | 0x20) <= 'z';
    return class_of(cp) == CLASS_LETTER;
}

bool j_is_digit(uint32_t cp)
{
    return cp < 0x80 ? cp >= '0' && cp <= '9' : class_of(cp) == CLASS_NUMBER;
}

bool j_is_printable(uint32_t cp)
{
    int c = class_of(cp);
    return cp == ' ' || (c != CLASS_OTHER && c != CLASS_WHITE);
}

static size_t map_by(const j_case_run *runs, size_t n_runs, const j_case_many *many, size_t n_many,
                     uint32_t cp, uint32_t out[3])
{
    size_t lo = 0, hi = n_runs;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (runs[mid].last < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    out[0] = cp;
    if (lo < n_runs && runs[lo].first <= cp && (cp - runs[lo].first) % runs[lo].step == 0) {
        out[0] = (uint32_t)((int32_t)cp + runs[lo].delta);
        return 1;
    }
    for (size_t i = 0; i < n_many; i++)
        if (many[i].from == cp) {
            memcpy(out, many[i].to, sizeof many[i].to);
            return out[2] ? 3 : 2;
        }
    return 1;
}

size_t j_map_case(uint32_t cp, j_case to, uint32_t out[3])
{
    if (cp < 0x80) {
        bool lower = cp >= 'a' && cp <= 'z', upper = cp >= 'A' && cp <= 'Z';
        out[0] = (to == J_LOWER ? upper : lower) ? cp ^ 0x20 : cp;
        return 1;
    }
    if (to == J_LOWER)
        return map_by(j_lower_runs, j_lower_n, j_lower_many, j_lower_many_n, cp, out);
    if (to == J_UPPER)
        return map_by(j_upper_runs, j_upper_n, j_upper_many, j_upper_many_n, cp, out);
    return map_by(j_title_runs, j_title_n, j_title_many, j_title_many_n, cp, out);
}

static bool changes(uint32_t cp, j_case to)
{
    uint32_t out[3];
    return j_map_case(cp, to, out) > 1 || out[0] != cp;
}

bool j_is_lower(uint32_t cp)
{
    return changes(cp, J_UPPER) && !changes(cp, J_LOWER);
}

bool j_is_upper(uint32_t cp)
{
    return changes(cp, J_LOWER) && !changes(cp, J_UPPER);
}

bool j_cased(const j_str *s, bool (*is)(uint32_t cp), bool (*other)(uint32_t cp))
{
    bool any = false;
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        if (other(cp))
            return false;
        any |= is(cp);
    }
    return any;
}

/* A capital sigma at the end of a word has a small form of its own. */
static bool ends_word(const j_str *s, size_t at, size_t len)
{
    size_t k;
    bool letter_before = false;
    for (size_t i = at; i > 0;) {
        do
            i--;
        while (i > 0 && ((uint8_t)s->s[i] & 0xc0) == 0x80);
        letter_before = j_is_alpha(j_char_at(s->s + i, s->n - i, &k));
        break;
    }
    return letter_before &&
           (at + len == s->n || !j_is_alpha(j_char_at(s->s + at + len, s->n - at - len, &k)));
}

static void add_cased(j_run *j, j_buf *b, const j_str *s, size_t at, uint32_t cp, size_t len,
                      j_case to)
{
    uint32_t out[3];
    size_t n = j_map_case(cp, to, out);
    if (cp == 0x3a3 && to == J_LOWER && ends_word(s, at, len))
        out[0] = 0x3c2;
    for (size_t i = 0; i < n; i++)
        j_buf_char(j, b, out[i], j_mark_at(s, at));
}

/* The first character gets the case `first`, the others `rest`. */
static const j_str *recase(j_run *j, const j_str *s, j_case first, j_case rest)
{
    j_buf b = {0};
    j_step(j, s->n / 8);
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        add_cased(j, &b, s, i, cp, len, i == 0 ? first : rest);
    }
    return j_as_markup(j, j_buf_done(j, &b), s->markup);
}

const j_str *j_recase(j_run *j, const j_str *s, j_case to)
{
    if (to != J_TITLE)
        return recase(j, s, to, to);
    j_buf b = {0};
    bool within = false; /* a word, that is, behind something that has case */
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        add_cased(j, &b, s, i, cp, len, within ? J_LOWER : J_TITLE);
        within = changes(cp, J_UPPER) || changes(cp, J_LOWER);
    }
    return j_as_markup(j, j_buf_done(j, &b), s->markup);
}

const j_str *j_capitalize(j_run *j, const j_str *s)
{
    return recase(j, s, J_TITLE, J_LOWER);
}

size_t j_trim_left(const char *s, size_t n)
{
    size_t i = 0, len;
    while (i < n && j_is_space(j_char_at(s + i, n - i, &len)))
        i += len;
    return i;
}

size_t j_trim_right(const char *s, size_t n)
{
    while (n > 0) {
        size_t at = n - 1, len;
        while (at > 0 && ((uint8_t)s[at] & 0xc0) == 0x80)
            at--;
        if (!j_is_space(j_char_at(s + at, n - at, &len)))
            break;
        n = at;
    }
    return n;
}

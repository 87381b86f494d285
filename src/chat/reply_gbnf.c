/* reply_gbnf.c - how rules of a grammar are written. */
#include <string.h>

#include "base/utf8.h"
#include "chat/reply_grammar.h"

void rg_literal(ts_sb *b, const char *s)
{
    if (!s || !*s)
        return;
    ts_sb_str(b, "\"");
    for (; *s; s++) {
        uint8_t c = (uint8_t)*s;
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            ts_sb_printf(b, "\\x%02X", c);
        else
            ts_sb_add(b, s, 1);
    }
    ts_sb_str(b, "\" ");
}

/* A character in a class. */
static void in_class(ts_sb *b, uint32_t c)
{
    if (c < 0x80)
        ts_sb_printf(b, "\\x%02X", (unsigned)c);
    else
        ts_sb_printf(b, "\\U%08X", (unsigned)c);
}

static bool is_name(char c)
{
    char small = (char)(c | 0x20);
    return (small >= 'a' && small <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The rules of another grammar, with a prefix before their names. What stands in quotes, classes
 * and braces is left alone. */
void rg_add_rules(ts_sb *b, const char *gbnf, const char *prefix)
{
    for (const char *p = gbnf, *from; *p; ts_sb_add(b, from, (size_t)(p - from))) {
        char close = *p == '"' ? '"' : *p == '[' ? ']' : *p == '{' ? '}' : 0;
        from = p++;
        if (close) {
            while (*p && *p != close)
                p += p[0] == '\\' && p[1] ? 2 : 1;
            p += *p != 0;
        } else if (is_name(*from)) {
            while (is_name(*p))
                p++;
            ts_sb_str(b, prefix);
        }
    }
}

/* Rules for text without `end` in it, by the states of the search for it (Knuth, Morris, Pratt
 * 1977): rule text-I is what may follow where so many of its characters stand, up to where none of
 * them counts any more. */
void rg_text_rules(rg_maker *m, const char *end)
{
    enum { LONGEST = 64 };
    uint32_t s[LONGEST], letters[LONGEST];
    size_t n = 0, n_letters = 0, fail[LONGEST + 1] = {0};
    ts_sb *b = &m->rules;
    for (size_t k = strlen(end), at = 0; at < k && n < LONGEST; n++)
        at += ts_utf8_decode(end + at, k - at, &s[n]);
    for (size_t i = 1, k = 0; i < n; i++) {
        while (k > 0 && s[i] != s[k])
            k = fail[k];
        k += s[i] == s[k];
        fail[i + 1] = k;
    }
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < n_letters; k++)
            known |= letters[k] == s[i];
        letters[n_letters] = s[i];
        n_letters += !known;
    }
    ts_sb_str(b, "text ::= text-0*\n");
    for (size_t i = 0; i < n; i++) {
        /* letters that lead nowhere are in the class of all others, NUL is in none */
        ts_sb other = {0};
        in_class(&other, 0);
        ts_sb_printf(b, "text-%zu ::= ", i);
        for (size_t l = 0; l < n_letters; l++) {
            size_t to = i;
            while (to > 0 && s[to] != letters[l])
                to = fail[to];
            to += s[to] == letters[l];
            if (to == 0)
                continue;
            in_class(&other, letters[l]);
            if (to < n) {
                ts_sb_str(b, "[");
                in_class(b, letters[l]);
                ts_sb_printf(b, "] text-%zu | ", to);
            }
        }
        ts_sb_str(b, "[^");
        ts_sb_add(b, other.s, other.n);
        ts_sb_str(b, "]\n");
        b->failed |= other.failed;
        ts_sb_free(&other);
    }
    m->text = true;
}

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

/* The search for a marker in a text (Knuth, Morris, Pratt 1977): its state is how many of the
 * marker's characters stand before. */
enum { LONGEST = 64 };

typedef struct search {
    uint32_t s[LONGEST], letters[LONGEST]; /* the marker; the different ones of its characters */
    size_t n, n_letters;
    size_t fail[LONGEST + 1];
} search;

static void search_init(search *x, const char *marker)
{
    size_t bytes = strlen(marker), k = 0;
    *x = (search){0};
    for (size_t at = 0; at < bytes && x->n < LONGEST; x->n++)
        at += ts_utf8_decode(marker + at, bytes - at, &x->s[x->n]);
    for (size_t i = 1; i < x->n; i++) {
        while (k > 0 && x->s[i] != x->s[k])
            k = x->fail[k];
        k += x->s[i] == x->s[k];
        x->fail[i + 1] = k;
    }
    for (size_t i = 0; i < x->n; i++) {
        bool known = false;
        for (size_t l = 0; l < x->n_letters; l++)
            known |= x->letters[l] == x->s[i];
        if (!known)
            x->letters[x->n_letters++] = x->s[i];
    }
}

static size_t step(const search *x, size_t state, uint32_t letter)
{
    while (state > 0 && x->s[state] != letter)
        state = x->fail[state];
    return state + (x->s[state] == letter);
}

/* text-I: from state I back to the first; end-I: from there to the marker's end without that. So a
 * text is read in one way, and as many rules are open at a time as the marker has characters. NUL
 * is in no text. */
static void state_rules(ts_sb *b, const search *x, size_t i)
{
    ts_sb other = {0}, end = {0};
    in_class(&other, 0);
    ts_sb_printf(b, "text-%zu ::= ", i);
    ts_sb_printf(&end, "end-%zu ::= ", i);
    for (size_t l = 0, any = 0; l < x->n_letters; l++) {
        size_t to = step(x, i, x->letters[l]);
        if (to == 0)
            continue;
        in_class(&other, x->letters[l]);
        ts_sb_str(&end, any++ ? " | [" : "[");
        in_class(&end, x->letters[l]);
        ts_sb_str(&end, "]");
        if (to == x->n)
            continue;
        ts_sb_printf(&end, " end-%zu", to);
        ts_sb_str(b, "[");
        in_class(b, x->letters[l]);
        ts_sb_printf(b, "] text-%zu | ", to);
    }
    ts_sb_str(b, "[^");
    ts_sb_add(b, other.s, other.n);
    ts_sb_str(b, "]\n");
    ts_sb_add(b, end.s, end.n);
    ts_sb_str(b, "\n");
    b->failed |= other.failed || end.failed;
    ts_sb_free(&other);
    ts_sb_free(&end);
}

void rg_text_rules(rg_maker *m, const char *end)
{
    search x;
    search_init(&x, end);
    ts_sb_str(&m->rules, "text ::= text-0* end-0\n");
    for (size_t i = 0; i < x.n; i++)
        state_rules(&m->rules, &x, i);
    m->text = true;
}

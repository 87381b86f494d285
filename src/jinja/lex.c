/* lex.c - template text to tokens, with jinja2's rules for white space around tags. */
#include <string.h>

#include "base/utf8.h"
#include "jinja/parse.h"

typedef struct lexer {
    j_parser *p;
    j_run *j;
    const char *s;
    size_t n, i;
    bool line_starting; /* nothing but white space since the last line break, as far as tags go */
} lexer;

/* --- tokens ------------------------------------------------------------------------ */

static j_tok *add(lexer *l, int kind)
{
    j_parser *p = l->p;
    p->tok = j_more(l->j, p->tok, p->n, &p->cap, sizeof *p->tok);
    p->tok[p->n] = (j_tok){.kind = kind, .line = l->j->line};
    j_step(l->j, 1);
    return &p->tok[p->n++];
}

/* Moves on to `to`, counting lines. */
static void move(lexer *l, size_t to)
{
    for (; l->i < to; l->i++)
        l->j->line += l->s[l->i] == '\n';
}

const j_str *j_intern(j_parser *p, const char *s, size_t n)
{
    const j_str *key = j_str_new(p->j, s, n, J_TEMPLATE);
    const j_value *known = j_dict_find(p->j, p->names, key);
    if (known)
        return known->u.s;
    j_dict_set(p->j, p->names, j_strv(key), j_strv(key));
    return key;
}

static bool at(const lexer *l, size_t i, const char *what)
{
    size_t k = strlen(what);
    return k <= l->n - i && memcmp(l->s + i, what, k) == 0;
}

static size_t skip_space(const lexer *l, size_t i)
{
    return i + j_trim_left(l->s + i, l->n - i);
}

/* --- data and tags -------------------------------------------------------------------- */

/* Text in front of a tag, whose sign is '-', '+' or 0. */
static void add_data(lexer *l, size_t end, char sign, bool variable)
{
    const char *s = l->s + l->i;
    size_t n = end - l->i, k = n;
    if (sign == '-') {
        n = j_trim_right(s, n);
    } else if (sign != '+' && !variable) {
        /* lstrip_blocks: white space alone on its line before the tag */
        while (k > 0 && s[k - 1] != '\n')
            k--;
        if ((k > 0 || l->line_starting) && k < n && j_trim_left(s + k, n - k) == n - k)
            n = k;
    }
    if (n > 0)
        add(l, T_DATA)->u.s = j_str_new(l->j, s, n, J_TEMPLATE);
    move(l, end);
}

/* Behind a tag: "-" takes white space with it, "+" nothing, neither (of blocks and comments) one
 * line break. */
static void after_tag(lexer *l, size_t end, char sign, bool trim)
{
    size_t to = end;
    if (sign == '-')
        to = skip_space(l, end);
    else if (sign != '+' && trim && end < l->n && l->s[end] == '\n')
        to = end + 1;
    move(l, to);
    l->line_starting = l->s[to - 1] == '\n';
}

static void comment(lexer *l, size_t from)
{
    for (size_t i = from; i < l->n; i++) {
        char sign = l->s[i] == '-' || l->s[i] == '+' ? l->s[i] : 0;
        size_t end = i + (sign != 0);
        if (at(l, end, "#}")) {
            after_tag(l, end + 2, sign, true);
            return;
        }
    }
    j_fail(l->j, "a comment isn't closed with #}");
}

/* `{% raw %}` from the byte behind "{%" and its sign: the byte behind it, 0 if it is none. */
static size_t word_tag(const lexer *l, size_t i, const char *word, char *sign)
{
    i = skip_space(l, i);
    if (!at(l, i, word))
        return 0;
    i = skip_space(l, i + strlen(word));
    *sign = i < l->n && (l->s[i] == '-' || l->s[i] == '+') ? l->s[i] : 0;
    i += *sign != 0;
    return at(l, i, "%}") ? i + 2 : 0;
}

static void raw(lexer *l, size_t from, char sign)
{
    after_tag(l, from, sign, false);
    for (size_t i = l->i; i < l->n; i++) {
        char end_sign;
        if (!at(l, i, "{%"))
            continue;
        char before = i + 2 < l->n && (l->s[i + 2] == '-' || l->s[i + 2] == '+') ? l->s[i + 2] : 0;
        size_t end = word_tag(l, i + 2 + (before != 0), "endraw", &end_sign);
        if (end) {
            add_data(l, i, before, false);
            after_tag(l, end, end_sign, true);
            return;
        }
    }
    j_fail(l->j, "{%% raw %%} isn't closed with {%% endraw %%}");
}

/* --- inside of tags --------------------------------------------------------------------- */

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* digits with single "_" between them, from i on */
static size_t digits(const lexer *l, size_t i)
{
    while (i < l->n && (digit(l->s[i]) || (l->s[i] == '_' && i > 0 && digit(l->s[i - 1]) &&
                                           i + 1 < l->n && digit(l->s[i + 1]))))
        i++;
    return i;
}

static size_t float_end(const lexer *l, size_t whole)
{
    size_t i = whole;
    if (i + 1 < l->n && l->s[i] == '.' && digit(l->s[i + 1]))
        i = digits(l, i + 1);
    if (i < l->n && (l->s[i] | 0x20) == 'e') {
        size_t e = i + 1;
        e += e < l->n && (l->s[e] == '+' || l->s[e] == '-');
        if (e < l->n && digit(l->s[e]))
            i = digits(l, e);
    }
    return i;
}

static size_t without_underscores(const lexer *l, size_t end, char *out, size_t cap)
{
    size_t k = 0;
    for (size_t i = l->i; i < end; i++) {
        if (l->s[i] == '_')
            continue;
        if (k == cap)
            j_fail(l->j, "a number has too many digits");
        out[k++] = l->s[i];
    }
    return k;
}

static void number(lexer *l)
{
    char text[300];
    size_t whole = digits(l, l->i), end = whole, n;
    int base = 10;
    if (l->i == 0 || l->s[l->i - 1] != '.')
        end = float_end(l, whole);
    if (end > whole) {
        n = without_underscores(l, end, text, sizeof text);
        double f = 0;
        j_parse_float(text, n, &f);
        add(l, T_FLOAT)->u.f = f;
        move(l, end);
        return;
    }
    if (l->s[l->i] == '0' && l->i + 2 < l->n) {
        char c = (char)(l->s[l->i + 1] | 0x20);
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    size_t skip = base == 10 ? 0 : 2;
    if (skip) {
        end = l->i + 2;
        while (end < l->n &&
               (digit(l->s[end]) || l->s[end] == '_' ||
                (base == 16 && (l->s[end] | 0x20) >= 'a' && (l->s[end] | 0x20) <= 'f')))
            end++;
    } else if (l->s[l->i] == '0') { /* no number begins with 0 but zero */
        end = l->i + 1;
        while (end < whole && (l->s[end] == '0' || l->s[end] == '_'))
            end++;
    }
    n = without_underscores(l, end, text, sizeof text);
    int64_t v;
    if (!j_parse_int(text + skip, n - skip, base, &v))
        j_fail(l->j, "'%.*s' is no integer of 64 bits", (int)(n < 40 ? n : 40), text);
    add(l, T_INT)->u.i = v;
    move(l, end);
}

static int hex(char c)
{
    return digit(c) ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* \xHH \uHHHH \UHHHHHHHH from the letter on; returns the bytes read. */
static size_t hex_escape(lexer *l, const char *s, size_t n, j_buf *b)
{
    size_t want = *s == 'x' ? 2 : *s == 'u' ? 4 : 8;
    uint32_t cp = 0;
    for (size_t i = 1; i <= want; i++) {
        int d = i < n ? hex(s[i]) : -1;
        if (d < 0 || cp > 0x10ffff)
            j_fail(l->j, "\\%c wants %zu hexadecimal digits", *s, want);
        cp = cp << 4 | (uint32_t)d;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        j_fail(l->j, "\\%c names no character: %x", *s, cp);
    j_buf_char(l->j, b, cp, J_TEMPLATE);
    return want + 1;
}

/* One escape, from behind the backslash; returns the bytes read. What is no escape stays, with its
 * backslash. */
static size_t escape(lexer *l, const char *s, size_t n, j_buf *b)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *hit = *s ? strchr(from, *s) : NULL;
    if (hit) {
        j_buf_add(l->j, b, &to[hit - from], 1, J_TEMPLATE);
        return 1;
    }
    if (*s == '\n')
        return 1;
    if (*s == 'x' || *s == 'u' || *s == 'U')
        return hex_escape(l, s, n, b);
    if (*s == 'N')
        j_fail(l->j, "\\N{...} isn't supported");
    if (*s >= '0' && *s <= '7') {
        uint32_t cp = 0;
        size_t i = 0;
        for (; i < 3 && i < n && s[i] >= '0' && s[i] <= '7'; i++)
            cp = cp * 8 + (uint32_t)(s[i] - '0');
        j_buf_char(l->j, b, cp, J_TEMPLATE);
        return i;
    }
    j_buf_add(l->j, b, "\\", 1, J_TEMPLATE);
    return 0;
}

static void string(lexer *l)
{
    char quote = l->s[l->i];
    size_t i = l->i + 1, end = i;
    bool escapes = false;
    while (end < l->n && l->s[end] != quote) {
        escapes |= l->s[end] == '\\';
        end += l->s[end] == '\\' && end + 1 < l->n ? 2 : 1;
    }
    if (end >= l->n)
        j_fail(l->j, "a string isn't closed");
    j_tok *t = add(l, T_STR);
    if (!escapes) {
        t->u.s = j_str_new(l->j, l->s + i, end - i, J_TEMPLATE);
    } else {
        j_buf b = {0};
        while (i < end) {
            size_t plain = i;
            while (plain < end && l->s[plain] != '\\')
                plain++;
            j_buf_add(l->j, &b, l->s + i, plain - i, J_TEMPLATE);
            i = plain;
            if (i < end)
                i += 1 + escape(l, l->s + i + 1, end - i - 1, &b);
        }
        l->p->tok[l->p->n - 1].u.s = j_buf_done(l->j, &b);
    }
    move(l, end + 1);
}

static bool name_char(const lexer *l, size_t i, size_t *len)
{
    char c = l->s[i];
    *len = 1;
    if ((uint8_t)c < 0x80)
        return digit(c) || c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    return j_is_alpha(j_char_at(l->s + i, l->n - i, len));
}

static bool name(lexer *l)
{
    size_t end = l->i, len;
    while (end < l->n && name_char(l, end, &len))
        end += len;
    if (end == l->i)
        return false;
    const j_str *s = j_intern(l->p, l->s + l->i, end - l->i);
    add(l, T_NAME)->u.s = s;
    move(l, end);
    return true;
}

static void operator_(lexer *l, char *open, size_t *n_open)
{
    static const struct {
        const char *text;
        int kind;
    } two[] = {{"==", T_EQ}, {"!=", T_NE},       {"<=", T_LE},
               {">=", T_GE}, {"//", T_FLOORDIV}, {"**", T_POW}};
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (at(l, l->i, two[i].text)) {
            add(l, two[i].kind);
            move(l, l->i + 2);
            return;
        }
    char c = l->s[l->i];
    if (c == 0 || !strchr("+-*/%~[](){}<>=.:|,;", c)) {
        size_t len;
        uint32_t cp = j_char_at(l->s + l->i, l->n - l->i, &len);
        if (!j_is_printable(cp))
            j_fail(l->j, "U+%04X can't stand here", cp);
        j_fail(l->j, "'%.*s' can't stand here", (int)len, l->s + l->i);
    }
    if (strchr("([{", c)) {
        if (*n_open == 256)
            j_fail(l->j, "brackets nest deeper than 256");
        open[(*n_open)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (*n_open == 0 || open[--*n_open] != c)
            j_fail(l->j, "'%c' closes nothing", c);
    }
    add(l, c);
    move(l, l->i + 1);
}

/* From behind "{{" or "{%" and its sign to behind the end. */
static void tag(lexer *l, bool variable)
{
    const char *end = variable ? "}}" : "%}";
    char open[256];
    size_t n_open = 0;
    int line = l->j->line;
    for (;;) {
        move(l, skip_space(l, l->i));
        if (l->i == l->n) {
            l->j->line = line;
            j_fail(l->j, "a tag isn't closed with %s", end);
        }
        char c = l->s[l->i], sign = c == '-' || (c == '+' && !variable) ? c : 0;
        if (n_open == 0 && at(l, l->i + (sign != 0), end)) {
            add(l, variable ? T_VAR_END : T_BLOCK_END);
            after_tag(l, l->i + (sign != 0) + 2, sign, !variable);
            return;
        }
        if (digit(c))
            number(l);
        else if (c == '\'' || c == '"')
            string(l);
        else if (!name(l))
            operator_(l, open, &n_open);
    }
}

void j_lex(j_parser *p, const char *s, size_t n)
{
    lexer l = {.p = p, .j = p->j, .s = s, .n = n, .line_starting = true};
    p->j->line = 1;
    while (l.i < n) {
        size_t i = l.i;
        while (i + 1 < n &&
               !(s[i] == '{' && (s[i + 1] == '{' || s[i + 1] == '%' || s[i + 1] == '#')))
            i++;
        if (i + 1 >= n) {
            add_data(&l, n, '+', true);
            break;
        }
        char kind = s[i + 1],
             sign = i + 2 < n && (s[i + 2] == '-' || s[i + 2] == '+') ? s[i + 2] : 0;
        char raw_sign = 0;
        size_t from = i + 2 + (sign != 0);
        size_t is_raw = kind == '%' ? word_tag(&l, from, "raw", &raw_sign) : 0;
        add_data(&l, i, sign, kind == '{');
        if (is_raw && raw_sign != '+') {
            raw(&l, is_raw, raw_sign);
        } else if (kind == '#') {
            comment(&l, from);
        } else {
            add(&l, kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN);
            move(&l, from);
            tag(&l, kind == '{');
        }
    }
    add(&l, T_EOF);
}

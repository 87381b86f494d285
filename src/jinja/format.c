/* format.c - the two ways Python puts values into text: "%s" % v, and "{}".format(v). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/real.h"
#include "jinja/impl.h"

/* --- what both share ----------------------------------------------------------------- */

typedef struct spec {
    char fill[4];
    size_t n_fill;
    char align;               /* '<' '>' '^' '=', 0 = by type */
    char sign;                /* '+' ' ' or '-', 0 = by type  */
    bool alt;                 /* '#' */
    char group;               /* ',' '_' or 0 */
    int64_t width, precision; /* -1 = none */
    char type;                /* 0 = none  */
} spec;

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 1000 };

static void check_sizes(j_run *j, const spec *f)
{
    if (f->width > MAX_WIDTH || f->precision > MAX_PRECISION)
        j_fail(j, "a format's width or precision is too large");
}

/* sign and digits, filled to the width between them where align is '='. */
static void add_padded(j_run *j, j_buf *b, const spec *f, const char *sign, const j_str *body,
                       char align)
{
    int64_t n = (int64_t)(strlen(sign) + body->chars), pad = f->width > n ? f->width - n : 0;
    int64_t left = align == '<' || align == '=' ? 0 : align == '^' ? pad / 2 : pad;
    for (int64_t i = 0; i < left; i++)
        j_buf_add(j, b, f->fill, f->n_fill, J_TEMPLATE);
    j_buf_puts(j, b, sign);
    for (int64_t i = 0; align == '=' && i < pad; i++)
        j_buf_add(j, b, f->fill, f->n_fill, J_TEMPLATE);
    j_buf_str(j, b, body);
    for (int64_t i = left; align != '=' && i < pad; i++)
        j_buf_add(j, b, f->fill, f->n_fill, J_TEMPLATE);
}

/* Separators into the digits before the point. */
static const char *grouped(j_run *j, const char *digits, char sep, int every)
{
    size_t whole = strspn(digits, "0123456789abcdefABCDEF"), n = strlen(digits);
    char *out = j_alloc(j, 2 * n + 1), *p = out;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && i < whole && (whole - i) % (size_t)every == 0)
            *p++ = sep;
        *p++ = digits[i];
    }
    *p = 0;
    return out;
}

static const char *sign_text(const spec *f, bool negative)
{
    return negative ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
}

/* The digits of |v| in base 2, 8, 10 or 16. */
static const char *int_digits(j_run *j, int64_t v, char type)
{
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    unsigned base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    char *out = j_alloc(j, 72), *p = out + 71;
    *p = 0;
    do {
        *--p = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
        u /= base;
    } while (u);
    return p;
}

static const char *float_digits(j_run *j, double v, const spec *f)
{
    char kind = (char)(f->type | 0x20);
    double x = fabs(v);
    char text[TS_REAL_MAX];
    if (f->type == '%') {
        x *= 100;
        kind = 'f';
    }
    if (f->type == 0 && f->precision < 0) {
        ts_real_text(x, text);
        return j_cstr(j, "%s", text);
    }
    if (f->type == 0 || f->type == 'n')
        kind = 'g';
    const char *s = j_float_fixed(j, x, kind, f->precision < 0 ? 6 : (int)f->precision);
    if (f->type == '%')
        return j_cstr(j, "%s%%", s);
    if (f->type == 0 && isfinite(x) && !strpbrk(s, ".e"))
        return j_cstr(j, "%s.0", s);
    if (f->type >= 'A' && f->type <= 'Z') {
        char *up = j_alloc(j, strlen(s) + 1);
        for (size_t i = 0; i <= strlen(s); i++)
            up[i] = s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] - 0x20) : s[i];
        return up;
    }
    return s;
}

static void add_number(j_run *j, j_buf *b, const spec *f, j_value v)
{
    bool whole = !f->type || strchr("bcdoxXn", f->type);
    int64_t i;
    bool is_int = j_integer(v, &i);
    const char *digits, *sign;
    if (is_int && whole && f->type != 'c') {
        sign = sign_text(f, i < 0);
        digits = int_digits(j, i, f->type);
        if (f->group)
            digits = grouped(j, digits, f->group, f->type && strchr("boxX", f->type) ? 4 : 3);
        if (f->alt && f->type && strchr("boxX", f->type))
            sign = j_cstr(j, "%s0%c", sign, f->type);
    } else {
        double d = j_number(v);
        sign = sign_text(f, signbit(d) && !isnan(d));
        digits = float_digits(j, d, f);
        if (f->group)
            digits = grouped(j, digits, f->group, 3);
    }
    add_padded(j, b, f, sign, j_text(j, digits), f->align ? f->align : '>');
}

static void add_text(j_run *j, j_buf *b, const spec *f, const j_str *s)
{
    if (f->precision >= 0 && (int64_t)s->chars > f->precision)
        s = j_sub(j, s, 0, j_byte_of(s, (size_t)f->precision));
    add_padded(j, b, f, "", s, f->align ? f->align : '<');
}

static void add_char(j_run *j, j_buf *b, const spec *f, int64_t cp)
{
    j_buf c = {0};
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        j_fail(j, "%lld is no character", (long long)cp);
    /* a number may be the caller's, and spell what only the template may */
    j_buf_char(j, &c, (uint32_t)cp, J_CALLER);
    add_padded(j, b, f, "", j_buf_done(j, &c), f->align ? f->align : '>');
}

/* --- % ------------------------------------------------------------------------------------ */

typedef struct percent {
    j_run *j;
    const j_str *fmt;
    size_t i;
    j_value args;
    size_t next; /* of a tuple; of a single value 0 or 1 */
} percent;

static j_value next_arg(percent *p)
{
    if (p->args.kind == J_TUPLE && p->next < p->args.u.l->n)
        return p->args.u.l->v[p->next++];
    if (p->args.kind == J_TUPLE || p->next++)
        j_fail(p->j, "there are too few values for the format");
    return p->args;
}

static char cur(const percent *p)
{
    return p->i < p->fmt->n ? p->fmt->s[p->i] : 0;
}

static j_value named_arg(percent *p)
{
    size_t start = ++p->i;
    int depth = 1;
    for (; p->i < p->fmt->n; p->i++) {
        depth += cur(p) == '(' ? 1 : cur(p) == ')' ? -1 : 0;
        if (depth == 0)
            break;
    }
    if (depth)
        j_fail(p->j, "a format's name isn't closed with ')'");
    const j_str *name = j_sub(p->j, p->fmt, start, p->i++ - start);
    const j_value *v = p->args.kind == J_DICT ? j_dict_find(p->j, p->args.u.d, name) : NULL;
    if (!v)
        j_fail(p->j, "there is no value '%.*s' for the format", J_SHOWN(name));
    return *v;
}

static int64_t size_arg(percent *p)
{
    int64_t v = 0;
    if (cur(p) == '*') {
        p->i++;
        v = j_want_int(p->j, next_arg(p), "a format's width");
        return v;
    }
    for (; cur(p) >= '0' && cur(p) <= '9'; p->i++)
        v = v > MAX_WIDTH ? v : v * 10 + (cur(p) - '0');
    return v;
}

static void convert(percent *p, j_buf *b, const spec *f, j_value v)
{
    j_run *j = p->j;
    int64_t i;
    switch (f->type) {
    case 's':
        add_text(j, b, f, p->fmt->markup ? j_escape(j, v) : j_to_str(j, v));
        return;
    case 'r':
    case 'a':
        add_text(j, b, f,
                 p->fmt->markup ? j_escape(j, j_strv(j_repr_str(j, v))) : j_repr_str(j, v));
        return;
    case 'c':
        if (v.kind == J_STR && v.u.s->chars == 1)
            add_text(j, b, f, v.u.s);
        else
            add_char(j, b, f, j_want_int(j, v, "%c"));
        return;
    default:
        break;
    }
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (!j_is_number(v))
        j_fail(j, "%%%c wants a number, not %s", f->type, j_type_name(v));
    if (strchr("diu", f->type)) {
        spec d = *f;
        d.type = 'd';
        i = v.kind == J_FLOAT ? j_float_to_int(j, v.u.f) : j_want_int(j, v, "%d");
        add_number(j, b, &d, j_int(i));
    } else if (strchr("oxX", f->type)) {
        add_number(j, b, f, j_int(j_want_int(j, v, "%x")));
    } else {
        add_number(j, b, f, j_float(j_number(v)));
    }
}

static void one_percent(percent *p, j_buf *b)
{
    spec f = {.fill = " ", .n_fill = 1, .align = '>', .width = -1, .precision = -1};
    j_value v = {.kind = J_MISSING};
    bool zero = false, left = false;
    if (cur(p) == '(')
        v = named_arg(p);
    for (; cur(p) && strchr("-+ #0", cur(p)); p->i++) {
        zero |= cur(p) == '0';
        left |= cur(p) == '-';
        f.alt |= cur(p) == '#';
        if (cur(p) == '+' || (cur(p) == ' ' && !f.sign))
            f.sign = cur(p);
    }
    f.width = size_arg(p);
    if (f.width < 0) {
        left = true;
        f.width = f.width < -MAX_WIDTH ? MAX_WIDTH + 1 : -f.width;
    }
    if (cur(p) == '.') {
        p->i++;
        f.precision = size_arg(p);
        f.precision = f.precision < 0 ? 0 : f.precision;
    }
    while (cur(p) && strchr("hlL", cur(p)))
        p->i++;
    f.type = cur(p);
    p->i++;
    if (f.type == '%') {
        j_buf_puts(p->j, b, "%");
        return;
    }
    if (!f.type || !strchr("srcadiuoxXeEfFgG", f.type))
        j_fail(p->j, "a format ends or has no such conversion");
    check_sizes(p->j, &f);
    if (v.kind == J_MISSING)
        v = next_arg(p);
    if (left)
        f.align = '<';
    else if (zero && !strchr("srac", f.type)) {
        f.align = '=';
        f.fill[0] = '0';
    }
    convert(p, b, &f, v);
}

const j_str *j_percent(j_run *j, const j_str *fmt, j_value args)
{
    percent p = {.j = j, .fmt = fmt, .args = args};
    j_buf b = {0};
    j_step(j, fmt->n / 8);
    while (p.i < fmt->n) {
        const char *hit = memchr(fmt->s + p.i, '%', fmt->n - p.i);
        size_t end = hit ? (size_t)(hit - fmt->s) : fmt->n;
        j_buf_str(j, &b, j_sub(j, fmt, p.i, end - p.i));
        p.i = end + 1;
        if (hit)
            one_percent(&p, &b);
    }
    bool mapping = args.kind == J_DICT || args.kind == J_LIST || args.kind == J_UNDEF;
    if (args.kind == J_TUPLE ? p.next < args.u.l->n : !mapping && p.next == 0)
        j_fail(j, "there are more values than the format uses");
    return j_as_markup(j, j_buf_done(j, &b), fmt->markup);
}

/* --- format() ------------------------------------------------------------------------------ */

typedef struct braces {
    j_run *j;
    const j_args *args;
    bool markup;
    int64_t next; /* {}: the next one */
    enum { NOT_YET, AUTOMATIC, NUMBERED } how;
} braces;

static bool is_align(char c)
{
    return c && strchr("<>=^", c);
}

static int64_t digits(const j_str *s, size_t *i)
{
    int64_t v = 0;
    if (*i >= s->n || s->s[*i] < '0' || s->s[*i] > '9')
        return -1;
    for (; *i < s->n && s->s[*i] >= '0' && s->s[*i] <= '9'; (*i)++)
        v = v > MAX_WIDTH ? v : v * 10 + (s->s[*i] - '0');
    return v;
}

/* [[fill]align][sign][#][0][width][,|_][.precision][type] */
static spec read_spec(j_run *j, const j_str *s)
{
    spec f = {.fill = " ", .n_fill = 1};
    size_t i = 0, len = 0;
    if (s->n)
        j_char_at(s->s, s->n, &len);
    if (len && len < s->n && is_align(s->s[len])) {
        memcpy(f.fill, s->s, len);
        f.n_fill = len;
        f.align = s->s[len];
        i = len + 1;
    } else if (s->n && is_align(*s->s)) {
        f.align = s->s[i++];
    }
    if (i < s->n && strchr("+- ", s->s[i]) && s->s[i])
        f.sign = s->s[i++];
    if (i < s->n && s->s[i] == '#') {
        f.alt = true;
        i++;
    }
    if (i < s->n && s->s[i] == '0') {
        i++;
        if (!f.align) {
            f.fill[0] = '0';
            f.n_fill = 1;
            f.align = '0'; /* '=' for numbers, '<' for text */
        }
    }
    f.width = digits(s, &i);
    if (i < s->n && (s->s[i] == ',' || s->s[i] == '_'))
        f.group = s->s[i++];
    f.precision = -1;
    if (i < s->n && s->s[i] == '.') {
        i++;
        f.precision = digits(s, &i);
        if (f.precision < 0)
            j_fail(j, "a format's precision is missing");
    }
    if (i < s->n)
        f.type = s->s[i++];
    if (i < s->n)
        j_fail(j, "'%.*s' is no format", J_SHOWN(s));
    check_sizes(j, &f);
    return f;
}

static void add_formatted(j_run *j, j_buf *b, j_value v, const j_str *s)
{
    if (s->n == 0) {
        j_print(j, b, v);
        return;
    }
    spec f = read_spec(j, s);
    if (v.kind == J_STR) {
        if (f.align == '=' || f.sign || f.alt || f.group || (f.type && f.type != 's'))
            j_fail(j, "'%.*s' is no format of a string", J_SHOWN(s));
        f.align = f.align == '0' ? '<' : f.align;
        add_text(j, b, &f, v.u.s);
        return;
    }
    if (!j_is_number(v))
        j_fail(j, "%s has no format '%.*s'", j_type_name(v), J_SHOWN(s));
    f.align = f.align == '0' ? '=' : f.align;
    const char *types = v.kind == J_FLOAT ? "eEfFgGn%" : "bcdoxXneEfFgG%";
    bool whole = v.kind != J_FLOAT && (!f.type || strchr("bcdoxXn", f.type));
    if ((f.type && !strchr(types, f.type)) || (whole && f.precision >= 0))
        j_fail(j, "'%.*s' is no format of %s", J_SHOWN(s), j_type_name(v));
    if (f.type == 'c')
        add_char(j, b, &f, j_want_int(j, v, "format"));
    else
        add_number(j, b, &f, v);
}

static j_value named_field(braces *p, const j_str *name)
{
    j_run *j = p->j;
    int64_t k = p->next;
    bool numbered = name->n > 0 && j_parse_int(name->s, name->n, 10, &k);
    if (name->n == 0 || numbered) {
        if (p->how != NOT_YET && (p->how == NUMBERED) != numbered)
            j_fail(j, "a format can't mix {} and numbers");
        p->how = numbered ? NUMBERED : AUTOMATIC;
        p->next += !numbered;
        if (k >= (int64_t)p->args->n)
            j_fail(j, "there are too few values for the format");
        return p->args->v[k];
    }
    for (size_t i = 0; i < p->args->n_kw; i++)
        if (j_equal(j, j_strv(p->args->kw[i].name), j_strv(name)))
            return p->args->kw[i].value;
    j_fail(j, "there is no value '%.*s' for the format", J_SHOWN(name));
}

/* name(.attr|[key])* */
static j_value field(braces *p, const j_str *s)
{
    j_run *j = p->j;
    size_t i = 0, n;
    while (i < s->n && s->s[i] != '.' && s->s[i] != '[')
        i++;
    j_value v = named_field(p, j_sub(j, s, 0, i));
    for (; i < s->n; i += n) {
        bool attr = s->s[i] == '.';
        if (!attr && s->s[i] != '[')
            j_fail(j, "'.' or '[' must follow ']' in a format");
        i++;
        for (n = 0; i + n < s->n &&
                    (attr ? s->s[i + n] != '.' && s->s[i + n] != '[' : s->s[i + n] != ']');)
            n++;
        if (n == 0 || (!attr && i + n == s->n))
            j_fail(j, "a field of the format is empty or isn't closed");
        const j_str *name = j_sub(j, s, i, n);
        int64_t k;
        if (attr)
            v = j_attr(j, v, name);
        else
            v = j_item(j, v, j_parse_int(name->s, n, 10, &k) ? j_int(k) : j_strv(name));
        n += !attr;
    }
    return v;
}

static void fill_in(braces *p, j_buf *b, const j_str *fmt, int depth);

/* What stands between { and }: name, !conversion, :spec, whose own fields are filled in first. */
static void replacement(braces *p, j_buf *b, const j_str *s, int depth)
{
    j_run *j = p->j;
    size_t name_end = 0, i;
    int open = 0;
    for (; name_end < s->n; name_end++) {
        char c = s->s[name_end];
        open += c == '[' ? 1 : c == ']' ? -1 : 0;
        if (open <= 0 && (c == '!' || c == ':'))
            break;
    }
    j_value v = field(p, j_sub(j, s, 0, name_end));
    i = name_end;
    if (i < s->n && s->s[i] == '!') {
        char c = i + 1 < s->n ? s->s[i + 1] : 0;
        if (c != 's' && c != 'r' && c != 'a')
            j_fail(j, "a format's conversion is !s or !r");
        v = j_strv(c == 's' ? j_as_markup(j, j_to_str(j, v), false) : j_repr_str(j, v));
        i += 2;
        if (i < s->n && s->s[i] != ':')
            j_fail(j, "':' must follow a conversion in a format");
    }
    j_buf how = {0}, out = {0};
    if (i < s->n)
        fill_in(p, &how, j_sub(j, s, i + 1, s->n - i - 1), depth + 1);
    add_formatted(j, &out, v, j_buf_done(j, &how));
    const j_str *text = j_buf_done(j, &out);
    if (p->markup)
        text = j_escape(j, j_strv(j_as_markup(j, text, v.kind == J_STR && v.u.s->markup)));
    j_buf_str(j, b, text);
}

static void fill_in(braces *p, j_buf *b, const j_str *fmt, int depth)
{
    j_run *j = p->j;
    if (depth > 2)
        j_fail(j, "fields nest too deep in a format");
    for (size_t i = 0; i < fmt->n;) {
        size_t end = i;
        while (end < fmt->n && fmt->s[end] != '{' && fmt->s[end] != '}')
            end++;
        j_buf_str(j, b, j_sub(j, fmt, i, end - i));
        if (end == fmt->n)
            return;
        char c = fmt->s[end];
        if (end + 1 < fmt->n && fmt->s[end + 1] == c) {
            j_buf_str(j, b, j_sub(j, fmt, end, 1));
            i = end + 2;
            continue;
        }
        int open = 1;
        size_t close = end + 1;
        for (; c == '{' && close < fmt->n; close++) {
            open += fmt->s[close] == '{' ? 1 : fmt->s[close] == '}' ? -1 : 0;
            if (open == 0)
                break;
        }
        if (open || c == '}')
            j_fail(j, "a single '%c' stands in a format", c);
        replacement(p, b, j_sub(j, fmt, end + 1, close - end - 1), depth);
        i = close + 1;
    }
}

const j_str *j_format(j_run *j, const j_str *fmt, const j_args *args)
{
    braces p = {.j = j, .args = args, .markup = fmt->markup};
    j_buf b = {0};
    fill_in(&p, &b, fmt, 1);
    return j_as_markup(j, j_buf_done(j, &b), fmt->markup);
}

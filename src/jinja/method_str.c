/* method_str.c - the methods of strings. Those of markup escape their arguments, as markupsafe's
 * do. */
#include <string.h>

#include "jinja/method.h"

#define METHOD(name_) static j_value s_##name_(j_run *j, j_value v, j_value *a, const j_args *args)

static const j_str *optional_str(j_run *j, j_value v, const char *what)
{
    return v.kind == J_MISSING || v.kind == J_NONE ? NULL : j_want_str(j, v, what);
}

/* What another string becomes beside markup. */
static const j_str *beside(j_run *j, const j_str *self, const j_str *other)
{
    return self->markup ? j_escape(j, j_strv(other)) : other;
}

/* --- case -------------------------------------------------------------------------- */

METHOD(lower)
{
    UNUSED(a);
    return j_strv(j_recase(j, v.u.s, J_LOWER));
}

METHOD(upper)
{
    UNUSED(a);
    return j_strv(j_recase(j, v.u.s, J_UPPER));
}

METHOD(title)
{
    UNUSED(a);
    return j_strv(j_recase(j, v.u.s, J_TITLE));
}

METHOD(capitalize)
{
    UNUSED(a);
    return j_strv(j_capitalize(j, v.u.s));
}

METHOD(swapcase)
{
    UNUSED(a);
    const j_str *s = v.u.s;
    j_buf b = {0};
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len), out[3];
        size_t n = j_map_case(cp, j_is_upper(cp) ? J_LOWER : J_UPPER, out);
        for (size_t k = 0; k < n; k++)
            j_buf_char(j, &b, out[k], j_mark_at(s, i));
    }
    return j_strv(j_as_markup(j, j_buf_done(j, &b), s->markup));
}

/* --- asking ------------------------------------------------------------------------- */

static bool all(const j_str *s, bool (*is)(uint32_t cp))
{
    for (size_t i = 0, len; i < s->n; i += len)
        if (!is(j_char_at(s->s + i, s->n - i, &len)))
            return false;
    return s->n > 0;
}

static bool is_alnum(uint32_t cp)
{
    return j_is_alpha(cp) || j_is_digit(cp);
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

#define ASK(name_, expr)                                                                           \
    METHOD(name_)                                                                                  \
    {                                                                                              \
        (void)j;                                                                                   \
        UNUSED(a);                                                                                 \
        return j_bool(expr);                                                                       \
    }

ASK(isalpha, all(v.u.s, j_is_alpha))
ASK(isdigit, all(v.u.s, j_is_digit))
ASK(isalnum, all(v.u.s, is_alnum))
ASK(isspace, all(v.u.s, j_is_space))
ASK(isascii, v.u.s->n == 0 || all(v.u.s, is_ascii))
ASK(isprintable, v.u.s->n == 0 || all(v.u.s, j_is_printable))
ASK(islower, j_cased(v.u.s, j_is_lower, j_is_upper))
ASK(isupper, j_cased(v.u.s, j_is_upper, j_is_lower))

/* --- search ------------------------------------------------------------------------- */

/* The bytes [*a, *z) that the optional arguments start and end name; false if start is behind the
 * end. */
static bool range(j_run *j, const j_str *s, j_value start, j_value end, size_t *a, size_t *z)
{
    int64_t n = (int64_t)s->chars, from = 0, to = n;
    if (start.kind != J_MISSING && start.kind != J_NONE)
        from = j_want_int(j, start, "start");
    if (end.kind != J_MISSING && end.kind != J_NONE)
        to = j_want_int(j, end, "end");
    from = from < 0 ? (from < -n ? 0 : from + n) : from;
    to = to < 0 ? (to < -n ? 0 : to + n) : to > n ? n : to;
    if (from > n || from > to)
        return false;
    *a = j_byte_of(s, (size_t)from);
    *z = j_byte_of(s, (size_t)to);
    return true;
}

static int64_t search(j_run *j, const j_str *s, j_value *args, bool last)
{
    const j_str *what = j_want_str(j, args[0], "find");
    size_t a, z;
    if (!range(j, s, args[1], args[2], &a, &z))
        return -1;
    j_str part = *s;
    part.n = z;
    int64_t hit = last ? j_rfind(j, &part, what, z) : j_find(j, &part, what, a);
    return hit < (int64_t)a ? -1 : (int64_t)j_chars(s->s, (size_t)hit);
}

METHOD(find)
{
    UNUSED(args);
    return j_int(search(j, v.u.s, a, false));
}

METHOD(rfind)
{
    UNUSED(args);
    return j_int(search(j, v.u.s, a, true));
}

METHOD(index)
{
    UNUSED(args);
    int64_t i = search(j, v.u.s, a, false);
    if (i < 0)
        j_fail(j, "index: the text isn't found");
    return j_int(i);
}

METHOD(rindex)
{
    UNUSED(args);
    int64_t i = search(j, v.u.s, a, true);
    if (i < 0)
        j_fail(j, "rindex: the text isn't found");
    return j_int(i);
}

METHOD(count)
{
    UNUSED(args);
    const j_str *what = j_want_str(j, a[0], "count");
    int64_t n = 0, hit;
    size_t at, z;
    if (!range(j, v.u.s, a[1], a[2], &at, &z))
        return j_int(0);
    if (what->n == 0)
        return j_int((int64_t)j_chars(v.u.s->s + at, z - at) + 1);
    j_str part = *v.u.s;
    part.n = z;
    while ((hit = j_find(j, &part, what, at)) >= 0) {
        at = (size_t)hit + what->n;
        n++;
    }
    return j_int(n);
}

static bool affix(const j_str *s, size_t a, size_t z, const j_str *what, bool front)
{
    if (what->n > z - a)
        return false;
    return memcmp(front ? s->s + a : s->s + z - what->n, what->s, what->n) == 0;
}

static j_value has_affix(j_run *j, j_value v, j_value *args, bool front)
{
    size_t a, z;
    if (args[0].kind != J_TUPLE)
        j_want_str(j, args[0], front ? "startswith" : "endswith");
    if (!range(j, v.u.s, args[1], args[2], &a, &z))
        return j_bool(false);
    if (args[0].kind == J_STR)
        return j_bool(affix(v.u.s, a, z, args[0].u.s, front));
    for (size_t i = 0; i < args[0].u.l->n; i++) {
        const j_str *what = j_want_str(j, args[0].u.l->v[i], "startswith");
        j_step(j, 1 + what->n / 64);
        if (affix(v.u.s, a, z, what, front))
            return j_bool(true);
    }
    return j_bool(false);
}

METHOD(startswith)
{
    UNUSED(args);
    return has_affix(j, v, a, true);
}

METHOD(endswith)
{
    UNUSED(args);
    return has_affix(j, v, a, false);
}

/* --- ends ------------------------------------------------------------------------------ */

METHOD(strip)
{
    UNUSED(args);
    return j_strv(j_strip(j, v.u.s, optional_str(j, a[0], "strip"), true, true));
}

METHOD(lstrip)
{
    UNUSED(args);
    return j_strv(j_strip(j, v.u.s, optional_str(j, a[0], "lstrip"), true, false));
}

METHOD(rstrip)
{
    UNUSED(args);
    return j_strv(j_strip(j, v.u.s, optional_str(j, a[0], "rstrip"), false, true));
}

METHOD(removeprefix)
{
    UNUSED(args);
    const j_str *s = v.u.s, *what = j_want_str(j, a[0], "removeprefix");
    bool has = affix(s, 0, s->n, what, true);
    return has ? j_strv(j_sub(j, s, what->n, s->n - what->n)) : v;
}

METHOD(removesuffix)
{
    UNUSED(args);
    const j_str *s = v.u.s, *what = j_want_str(j, a[0], "removesuffix");
    return affix(s, 0, s->n, what, false) ? j_strv(j_sub(j, s, 0, s->n - what->n)) : v;
}

static j_value pad(j_run *j, const j_str *s, j_value *a, int left_of_two, const char *what)
{
    const j_str *fill = a[1].kind == J_MISSING ? j_text(j, " ") : j_want_str(j, a[1], what);
    int64_t width = j_want_int(j, a[0], what), n = (int64_t)s->chars;
    if (fill->chars != 1)
        j_fail(j, "%s fills with one character", what);
    if (width <= n)
        return j_strv(s);
    if (width > (int64_t)j->limits.output)
        j_fail(j, "%s to %lld characters is too wide", what, (long long)width);
    /* str.center puts the odd one to the left where the width is odd */
    int64_t all_ = width - n, left = left_of_two == 0   ? 0
                                     : left_of_two == 2 ? all_
                                                        : all_ / 2 + (all_ & width & 1);
    fill = beside(j, s, fill);
    j_buf b = {0};
    j_buf_str(j, &b, j_repeat(j, fill, left));
    j_buf_str(j, &b, s);
    j_buf_str(j, &b, j_repeat(j, fill, all_ - left));
    return j_strv(j_as_markup(j, j_buf_done(j, &b), s->markup));
}

METHOD(ljust)
{
    UNUSED(args);
    return pad(j, v.u.s, a, 0, "ljust");
}

METHOD(rjust)
{
    UNUSED(args);
    return pad(j, v.u.s, a, 2, "rjust");
}

METHOD(center)
{
    UNUSED(args);
    return pad(j, v.u.s, a, 1, "center");
}

METHOD(zfill)
{
    UNUSED(args);
    const j_str *s = v.u.s;
    bool sign = s->n > 0 && (*s->s == '-' || *s->s == '+');
    int64_t width = j_want_int(j, a[0], "zfill");
    j_value how[J_PARAMS] = {j_int(width > 0 ? width - sign : 0), j_strv(j_text(j, "0"))};
    j_value digits = pad(j, j_sub(j, s, sign, s->n - sign), how, 2, "zfill");
    return sign ? j_strv(j_concat(j, j_sub(j, s, 0, 1), digits.u.s)) : digits;
}

/* --- parts ------------------------------------------------------------------------------ */

typedef struct parts {
    j_list *l;
    size_t cap;
} parts;

static void add_part(j_run *j, parts *p, const j_str *s, size_t from, size_t to)
{
    p->l->v = j_more(j, p->l->v, p->l->n, &p->cap, sizeof *p->l->v);
    p->l->v[p->l->n++] = j_strv(j_sub(j, s, from, to - from));
    j_step(j, 1);
}

static void split_space(j_run *j, parts *p, const j_str *s, int64_t most)
{
    size_t at = j_trim_left(s->s, s->n);
    while (at < s->n) {
        size_t end = at, len;
        if (most-- == 0) {
            add_part(j, p, s, at, s->n);
            return;
        }
        while (end < s->n && !j_is_space(j_char_at(s->s + end, s->n - end, &len)))
            end += len;
        add_part(j, p, s, at, end);
        at = end + j_trim_left(s->s + end, s->n - end);
    }
}

static void split_by(j_run *j, parts *p, const j_str *s, const j_str *sep, int64_t most)
{
    size_t at = 0;
    int64_t hit;
    while (most-- != 0 && (hit = j_find(j, s, sep, at)) >= 0) {
        add_part(j, p, s, at, (size_t)hit);
        at = (size_t)hit + sep->n;
    }
    add_part(j, p, s, at, s->n);
}

static void reverse(j_list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        j_value v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static void rsplit_space(j_run *j, parts *p, const j_str *s, int64_t most)
{
    size_t end = j_trim_right(s->s, s->n);
    while (end > 0) {
        size_t at = end;
        if (most-- == 0) {
            add_part(j, p, s, 0, end);
            break;
        }
        while (at > 0 && j_trim_right(s->s, at) == at) {
            do
                at--;
            while (at > 0 && ((uint8_t)s->s[at] & 0xc0) == 0x80);
        }
        add_part(j, p, s, at, end);
        end = j_trim_right(s->s, at);
    }
    reverse(p->l);
}

static void rsplit_by(j_run *j, parts *p, const j_str *s, const j_str *sep, int64_t most)
{
    size_t end = s->n;
    int64_t hit;
    while (most-- != 0 && (hit = j_rfind(j, s, sep, end)) >= 0) {
        add_part(j, p, s, (size_t)hit + sep->n, end);
        end = (size_t)hit;
    }
    add_part(j, p, s, 0, end);
    reverse(p->l);
}

static j_value split(j_run *j, const j_str *s, j_value *a, bool right)
{
    const j_str *sep = optional_str(j, a[0], "split");
    int64_t most = a[1].kind == J_MISSING ? -1 : j_want_int(j, a[1], "split");
    most = most < 0 ? INT64_MAX : most;
    parts p = {.l = j_list_new(j, 0)};
    if (sep && sep->n == 0)
        j_fail(j, "split can't split at an empty text");
    if (!sep && right)
        rsplit_space(j, &p, s, most);
    else if (!sep)
        split_space(j, &p, s, most);
    else if (right)
        rsplit_by(j, &p, s, sep, most);
    else
        split_by(j, &p, s, sep, most);
    return j_listv(J_LIST, p.l);
}

METHOD(split)
{
    UNUSED(args);
    return split(j, v.u.s, a, false);
}

METHOD(rsplit)
{
    UNUSED(args);
    return split(j, v.u.s, a, true);
}

METHOD(splitlines)
{
    UNUSED(args);
    return j_listv(J_LIST, j_splitlines(j, v.u.s, a[0].kind != J_MISSING && j_truth(j, a[0])));
}

static j_value partition(j_run *j, const j_str *s, j_value by, bool last)
{
    const j_str *sep = j_want_str(j, by, "partition");
    if (sep->n == 0)
        j_fail(j, "partition can't part at an empty text");
    int64_t hit = last ? j_rfind(j, s, sep, s->n) : j_find(j, s, sep, 0);
    j_list *l = j_list_new(j, 3);
    size_t at = hit < 0 ? (last ? 0 : s->n) : (size_t)hit, len = hit < 0 ? 0 : sep->n;
    l->v[0] = j_strv(j_sub(j, s, 0, at));
    l->v[1] = j_strv(j_sub(j, s, at, len));
    l->v[2] = j_strv(j_sub(j, s, at + len, s->n - at - len));
    return j_listv(J_TUPLE, l);
}

METHOD(partition)
{
    UNUSED(args);
    return partition(j, v.u.s, a[0], false);
}

METHOD(rpartition)
{
    UNUSED(args);
    return partition(j, v.u.s, a[0], true);
}

/* --- whole ------------------------------------------------------------------------------- */

METHOD(replace)
{
    UNUSED(args);
    int64_t most = a[2].kind == J_MISSING ? -1 : j_want_int(j, a[2], "replace");
    const j_str *new_ = beside(j, v.u.s, j_want_str(j, a[1], "replace"));
    return j_strv(j_replace(j, v.u.s, j_want_str(j, a[0], "replace"), new_, most));
}

METHOD(join)
{
    UNUSED(args);
    j_buf b = {0};
    j_iter it;
    j_value x;
    bool first = true;
    j_iter_init(j, &it, a[0]);
    while (j_next(j, &it, &x)) {
        if (!first)
            j_buf_str(j, &b, v.u.s);
        first = false;
        j_buf_str(j, &b, v.u.s->markup ? j_escape(j, x) : j_want_str(j, x, "join"));
    }
    return j_strv(j_as_markup(j, j_buf_done(j, &b), v.u.s->markup));
}

METHOD(format)
{
    (void)a;
    return j_strv(j_format(j, v.u.s, args));
}

METHOD(format_map)
{
    (void)args;
    if (a[0].kind != J_DICT)
        j_fail(j, "format_map wants a dict, not %s", j_type_name(a[0]));
    j_args by_name = {0};
    const j_dict *d = a[0].u.d;
    by_name.kw = j_array(j, d->n + 1, sizeof *by_name.kw);
    for (size_t i = 0; i < d->n; i++)
        if (d->p[i].key.kind == J_STR)
            by_name.kw[by_name.n_kw++] = (j_var){d->p[i].key.u.s, d->p[i].value};
    return j_strv(j_format(j, v.u.s, &by_name));
}

const j_fn *j_str_method(const char *name, size_t n)
{
    static const j_fn table[] = {
        {"capitalize", s_capitalize, "", 0},
        {"casefold", s_lower, "", 0},
        {"center", s_center, "width,fillchar", 1},
        {"count", s_count, "sub,start,end", 1},
        {"endswith", s_endswith, "suffix,start,end", 1},
        {"find", s_find, "sub,start,end", 1},
        {"format", s_format, "*", 0},
        {"format_map", s_format_map, "mapping", 1},
        {"index", s_index, "sub,start,end", 1},
        {"isalnum", s_isalnum, "", 0},
        {"isalpha", s_isalpha, "", 0},
        {"isascii", s_isascii, "", 0},
        {"isdecimal", s_isdigit, "", 0},
        {"isdigit", s_isdigit, "", 0},
        {"islower", s_islower, "", 0},
        {"isnumeric", s_isdigit, "", 0},
        {"isprintable", s_isprintable, "", 0},
        {"isspace", s_isspace, "", 0},
        {"isupper", s_isupper, "", 0},
        {"join", s_join, "iterable", 1},
        {"ljust", s_ljust, "width,fillchar", 1},
        {"lower", s_lower, "", 0},
        {"lstrip", s_lstrip, "chars", 0},
        {"partition", s_partition, "sep", 1},
        {"removeprefix", s_removeprefix, "prefix", 1},
        {"removesuffix", s_removesuffix, "suffix", 1},
        {"replace", s_replace, "old,new,count", 2},
        {"rfind", s_rfind, "sub,start,end", 1},
        {"rindex", s_rindex, "sub,start,end", 1},
        {"rjust", s_rjust, "width,fillchar", 1},
        {"rpartition", s_rpartition, "sep", 1},
        {"rsplit", s_rsplit, "sep,maxsplit", 0},
        {"rstrip", s_rstrip, "chars", 0},
        {"split", s_split, "sep,maxsplit", 0},
        {"splitlines", s_splitlines, "keepends", 0},
        {"startswith", s_startswith, "prefix,start,end", 1},
        {"strip", s_strip, "chars", 0},
        {"swapcase", s_swapcase, "", 0},
        {"title", s_title, "", 0},
        {"upper", s_upper, "", 0},
        {"zfill", s_zfill, "width", 1},
    };
    return j_fn_find(table, sizeof table / sizeof *table, name, n);
}

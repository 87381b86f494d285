/* filter_text.c - filters on text. */
#include <string.h>

#include "jinja/filter.h"

static const j_str *plain(j_run *j, j_value v)
{
    return j_as_markup(j, j_to_str(j, v), false);
}

j_value j_filter_capitalize(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_capitalize(j, j_to_str(j, v)));
}

j_value j_filter_lower(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_recase(j, j_to_str(j, v), J_LOWER));
}

j_value j_filter_upper(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_recase(j, j_to_str(j, v), J_UPPER));
}

static bool parts_words(uint32_t cp)
{
    return j_is_space(cp) || (cp && cp < 0x80 && strchr("-({[<", (char)cp));
}

/* jinja2's own title: words begin behind white space and some brackets, not behind an apostrophe.
 */
j_value j_filter_title(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    const j_str *s = j_to_str(j, v);
    j_buf b = {0};
    for (size_t i = 0, len; i < s->n;) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        const j_str *first = j_sub(j, s, i, len);
        i += len;
        j_buf_str(j, &b, parts_words(cp) ? first : j_recase(j, first, J_UPPER));
        size_t end = i;
        while (!parts_words(cp) && end < s->n &&
               !parts_words(j_char_at(s->s + end, s->n - end, &len)))
            end += len;
        j_buf_str(j, &b, j_recase(j, j_sub(j, s, i, end - i), J_LOWER));
        i = end;
    }
    return j_strv(j_buf_done(j, &b));
}

j_value j_filter_string(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_to_str(j, v));
}

j_value j_filter_safe(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_as_markup(j, j_to_str(j, v), true));
}

j_value j_filter_escape(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_escape(j, v));
}

j_value j_filter_forceescape(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_strv(j_escape(j, j_strv(plain(j, v))));
}

j_value j_filter_trim(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_str *set = j_given(a[0]) ? j_want_str(j, a[0], "trim") : NULL;
    return j_strv(j_strip(j, j_to_str(j, v), set, true, true));
}

j_value j_filter_replace(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    int64_t most = j_given(a[2]) ? j_want_int(j, a[2], "replace") : -1;
    return j_strv(j_replace(j, plain(j, v), plain(j, a[0]), plain(j, a[1]), most));
}

j_value j_filter_join(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_str *between = a[0].kind == J_MISSING ? j_text(j, "") : j_to_str(j, a[0]);
    j_buf b = {0};
    j_iter it;
    j_value x;
    bool first = true;
    j_iter_init(j, &it, v);
    while (j_next(j, &it, &x)) {
        if (!first)
            j_buf_str(j, &b, between);
        first = false;
        j_print(j, &b, j_path(j, x, a[1]));
    }
    return j_strv(j_buf_done(j, &b));
}

j_value j_filter_center(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    j_args width = {.v = a, .n = 1};
    j_value s = j_strv(j_to_str(j, v)), eighty = j_int(80);
    if (a[0].kind == J_MISSING)
        width.v = &eighty;
    return j_call_native(j, j_method(s, "center", 6), s, &width);
}

j_value j_filter_indent(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_str *s = j_want_str(j, v, "indent"), *by;
    bool blank = j_flag(j, a[2]);
    if (a[0].kind == J_STR)
        by = a[0].u.s;
    else
        by =
            j_repeat(j, j_text(j, " "), a[0].kind == J_MISSING ? 4 : j_want_int(j, a[0], "indent"));
    j_buf b = {0};
    const j_list *l = j_splitlines(j, j_concat(j, s, j_text(j, "\n")), false);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            j_buf_puts(j, &b, "\n");
        if (i ? blank || l->v[i].u.s->n > 0 : j_flag(j, a[1]))
            j_buf_str(j, &b, by);
        j_buf_str(j, &b, l->v[i].u.s);
    }
    return j_strv(j_as_markup(j, j_buf_done(j, &b), s->markup));
}

j_value j_filter_truncate(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    size_t n;
    const j_str *end = a[2].kind == J_MISSING ? j_text(j, "...") : j_want_str(j, a[2], "truncate");
    int64_t length = a[0].kind == J_MISSING ? 255 : j_want_int(j, a[0], "truncate");
    int64_t leeway = j_given(a[3]) ? j_want_int(j, a[3], "truncate") : 5, most;
    if (length < (int64_t)end->chars || leeway < 0 || ts_add_overflow(length, leeway, &most))
        j_fail(j, "truncate wants a length of %zu or more and a leeway of 0 or more", end->chars);
    if (j_length(j, v, &n) && (int64_t)n <= most) /* what is short enough may be a list too */
        return v;
    const j_str *s = j_want_str(j, v, "truncate");
    const j_str *cut = j_sub(j, s, 0, j_byte_of(s, (size_t)length - end->chars));
    if (!j_flag(j, a[1])) {
        int64_t space = j_rfind(j, cut, j_text(j, " "), cut->n);
        cut = space < 0 ? cut : j_sub(j, cut, 0, (size_t)space);
    }
    return j_strv(j_concat(j, cut, end));
}

j_value j_filter_wordcount(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    const j_str *s = j_to_str(j, v);
    int64_t words = 0;
    bool within = false;
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        bool word = j_is_alpha(cp) || j_is_digit(cp) || cp == '_';
        words += word && !within;
        within = word;
    }
    return j_int(words);
}

j_value j_filter_format(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    const j_str *s = j_to_str(j, v);
    if (args->n && args->n_kw)
        j_fail(j, "format takes arguments or named ones, not both");
    if (args->n_kw) {
        j_dict *d = j_dict_new(j);
        for (size_t i = 0; i < args->n_kw; i++)
            j_dict_set(j, d, j_strv(args->kw[i].name), args->kw[i].value);
        return j_strv(j_percent(j, s, j_dictv(d)));
    }
    j_list *l = j_list_new(j, args->n);
    for (size_t i = 0; i < args->n; i++)
        l->v[i] = args->v[i];
    return j_strv(j_percent(j, s, j_listv(J_TUPLE, l)));
}

j_value j_filter_tojson(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    return j_strv(j_tojson(j, v, j_flag(j, a[0]), a[1], a[2], j_flag(j, a[3])));
}

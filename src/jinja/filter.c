/* filter.c - filters: the table, and those on numbers, lists and dicts. */
#include "jinja/filter.h"

#include <math.h>
#include <string.h>

/* --- numbers -------------------------------------------------------------------- */

static j_value f_abs(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind == J_FLOAT)
        return j_float(fabs(v.u.f));
    int64_t i = j_want_int(j, v, "abs");
    return i < 0 ? j_sign(j, N_NEG, j_int(i)) : j_int(i);
}

static j_value f_int(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    int64_t base = a[1].kind == J_MISSING ? 10 : j_want_int(j, a[1], "int's base"), i;
    double f;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind == J_FLOAT && isinf(v.u.f))
        j_fail(j, "infinity is no integer");
    if (j_to_int(v, base, &i))
        return j_int(i);
    if (j_to_float(v, &f) && isfinite(f))
        return j_int(j_float_to_int(j, f));
    return a[0].kind == J_MISSING ? j_int(0) : a[0];
}

static j_value f_float(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    double f;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (j_to_float(v, &f))
        return j_float(f);
    return a[0].kind == J_MISSING ? j_float(0) : a[0];
}

static j_value f_round(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    int64_t precision = a[0].kind == J_MISSING ? 0 : j_want_int(j, a[0], "round");
    return j_round(j, v, precision,
                   a[1].kind == J_MISSING ? NULL : j_want_str(j, a[1], "round's method"));
}

/* --- any value --------------------------------------------------------------------- */

static j_value f_default(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    if (v.kind == J_UNDEF || (j_flag(j, a[1]) && !j_truth(j, v)))
        return a[0].kind == J_MISSING ? j_strv(j_text(j, "")) : a[0];
    return v;
}

static j_value f_attr(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_str *name = j_want_str(j, a[0], "attr");
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind == J_DICT && !j_method(v, name->s, name->n))
        return j_undefined_attr(j, v, j_cstr(j, "%.*s", J_SHOWN(name)), false);
    return j_attr(j, v, name);
}

static j_value f_length(j_run *j, j_value v, j_value *a, const j_args *args)
{
    size_t n;
    UNUSED(a);
    if (!j_length(j, v, &n))
        j_fail(j, "%s has no length", j_type_name(v));
    return j_int((int64_t)n);
}

/* --- lists ---------------------------------------------------------------------------- */

static j_value f_list(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return j_listv(J_LIST, j_to_list(j, v));
}

static j_value f_first(j_run *j, j_value v, j_value *a, const j_args *args)
{
    j_iter it;
    j_value x;
    UNUSED(a);
    j_iter_init(j, &it, v);
    return j_next(j, &it, &x) ? x : j_undefined(j, "there is no first item, the sequence is empty");
}

static j_value f_last(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    if (v.kind == J_GEN || !j_iterable(v))
        j_fail(j, "%s has no last item", j_type_name(v));
    const j_list *l = j_to_list(j, v);
    return l->n ? l->v[l->n - 1] : j_undefined(j, "there is no last item, the sequence is empty");
}

static j_gen *generator(j_run *j, j_gen_kind kind, j_value over)
{
    j_gen *g = j_zalloc(j, sizeof *g);
    g->kind = kind;
    g->attr = g->fill = j_none();
    g->over = over;
    g->done = over.kind == J_MISSING;
    return g;
}

static j_value gen_value(j_gen *g)
{
    return (j_value){.kind = J_GEN, .u.g = g};
}

static j_value f_reverse(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    if (v.kind == J_STR)
        return j_slice(j, v, j_none(), j_none(), j_int(-1));
    const j_list *l = j_to_list(j, v);
    if (v.kind == J_GEN) { /* of what can't be reversed a list is made */
        j_list *r = j_list_new(j, l->n);
        for (size_t i = 0; i < l->n; i++)
            r->v[i] = l->v[l->n - 1 - i];
        return j_listv(J_LIST, r);
    }
    j_gen *g = generator(j, G_REVERSED, j_listv(J_LIST, l));
    g->seen = j_listv(J_LIST, l);
    g->at = (int64_t)l->n;
    return gen_value(g);
}

/* What isn't true has no elements for map, select and reject. */
static j_value or_nothing(j_run *j, j_value v)
{
    return j_truth(j, v) ? v : (j_value){.kind = J_MISSING};
}

/* The arguments behind the first `n`. */
static const j_args *rest(j_run *j, const j_args *args, size_t n)
{
    j_args *r = j_alloc(j, sizeof *r);
    *r = *args;
    r->v += n;
    r->n -= n;
    return r;
}

static const j_value *keyword(const j_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_kw; i++)
        if (j_str_eq(args->kw[i].name, name))
            return &args->kw[i].value;
    return NULL;
}

static const j_fn *by_name(j_run *j, j_value name, bool filter)
{
    const j_str *s = j_want_str(j, name, "the name of a filter or test");
    const j_fn *fn = filter ? j_filter(s->s, s->n) : j_test(s->s, s->n);
    if (!fn)
        j_fail(j, "there is no %s '%.*s'", filter ? "filter" : "test", J_SHOWN(s));
    return fn;
}

static j_value f_map(j_run *j, j_value v, j_value *a, const j_args *args)
{
    const j_value *attr = keyword(args, "attribute"), *fill = keyword(args, "default");
    (void)a;
    v = or_nothing(j, v);
    if (args->n == 0 && attr) {
        if (args->n_kw != 1 + (size_t)(fill != NULL))
            j_fail(j, "map has the parameters attribute and default, or a filter's name");
        j_gen *g = generator(j, G_MAP_ATTR, v);
        g->attr = *attr;
        g->fill = fill ? *fill : j_none();
        return gen_value(g);
    }
    if (args->n == 0)
        j_fail(j, "map wants an attribute or a filter");
    j_gen *g = generator(j, G_MAP_FILTER, v);
    if (!g->done)
        g->fn = by_name(j, args->v[0], true);
    g->args = rest(j, args, 1);
    return gen_value(g);
}

static j_value choose(j_run *j, j_value v, const j_args *args, bool by_attr, bool negate)
{
    j_gen *g = generator(j, G_SELECT, or_nothing(j, v));
    size_t off = by_attr;
    if (by_attr && args->n == 0)
        j_fail(j, "the name of an attribute is missing");
    g->by_attr = by_attr;
    g->negate = negate;
    if (by_attr)
        g->attr = args->v[0];
    if (args->n > off && !g->done) {
        g->fn = by_name(j, args->v[off], false);
        g->args = rest(j, args, off + 1);
    }
    return gen_value(g);
}

static j_value f_select(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    return choose(j, v, args, false, false);
}

static j_value f_reject(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    return choose(j, v, args, false, true);
}

static j_value f_selectattr(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    return choose(j, v, args, true, false);
}

static j_value f_rejectattr(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    return choose(j, v, args, true, true);
}

static j_value f_unique(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    j_gen *g = generator(j, G_UNIQUE, v);
    g->case_sensitive = j_flag(j, a[0]);
    g->attr = a[1];
    g->seen = j_dictv(j_dict_new(j));
    return gen_value(g);
}

static j_value f_batch(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    j_gen *g = generator(j, G_BATCH, v);
    g->n = j_want_int(j, a[0], "batch");
    g->fill = j_given(a[1]) ? a[1] : j_none();
    return gen_value(g);
}

static j_value f_slice(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    j_gen *g = generator(j, G_SLICE, v);
    g->n = j_want_int(j, a[0], "slice");
    g->fill = j_given(a[1]) ? a[1] : j_none();
    if (g->n < 1)
        j_fail(j, "slice wants at least one column");
    return gen_value(g);
}

static j_value f_sum(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    j_value total = a[1].kind == J_MISSING ? j_int(0) : a[1], x;
    j_iter it;
    if (total.kind == J_STR)
        j_fail(j, "sum adds no strings; join does");
    j_iter_init(j, &it, v);
    while (j_next(j, &it, &x))
        total = j_arith(j, N_ADD, total, j_path(j, x, a[0]));
    return total;
}

/* --- order ------------------------------------------------------------------------------ */

static j_value folded(j_run *j, j_value v, bool case_sensitive)
{
    return v.kind == J_STR && !case_sensitive ? j_strv(j_recase(j, v.u.s, J_LOWER)) : v;
}

static j_value extreme(j_run *j, j_value v, j_value *a, bool max)
{
    j_iter it;
    j_value best, best_key, x;
    bool any = false, fold = !j_flag(j, a[0]);
    j_iter_init(j, &it, v);
    while (j_next(j, &it, &x)) {
        j_value key = folded(j, j_path(j, x, a[1]), !fold);
        if (any) {
            int r =
                max ? j_order(j, key, best_key, ">", NULL) : j_order(j, best_key, key, "<", NULL);
            if (r <= 0)
                continue;
        }
        best = x;
        best_key = key;
        any = true;
    }
    return any ? best
               : j_undefined(j, "there is no smallest or largest item, the sequence is empty");
}

static j_value f_max(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    return extreme(j, v, a, true);
}

static j_value f_min(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    return extreme(j, v, a, false);
}

typedef struct sort_item {
    j_value key, value;
} sort_item;

/* Merge sort: stable, n log n for any order, and what can't be compared just leaves. */
static void sort_items(j_run *j, sort_item *v, sort_item *spare, size_t n, bool reverse)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, k = half, out = 0;
    sort_items(j, v, spare, half, reverse);
    sort_items(j, v + half, spare, n - half, reverse);
    while (i < half && k < n) {
        int r = reverse ? j_order(j, v[i].key, v[k].key, "<", NULL)
                        : j_order(j, v[k].key, v[i].key, "<", NULL);
        spare[out++] = r < 0 ? v[k++] : v[i++];
    }
    while (i < half)
        spare[out++] = v[i++];
    while (k < n)
        spare[out++] = v[k++];
    memcpy(v, spare, n * sizeof *v);
}

static j_value sorted(j_run *j, sort_item *items, size_t n, bool reverse)
{
    j_list *l = j_list_new(j, n);
    sort_items(j, items, j_array(j, n + 1, sizeof *items), n, reverse);
    for (size_t i = 0; i < n; i++)
        l->v[i] = items[i].value;
    return j_listv(J_LIST, l);
}

/* The key of sort: one value for each of "a,b.c", in a list. */
static j_value sort_key(j_run *j, j_value v, j_value attr, bool case_sensitive)
{
    j_list *l = j_list_new(j, 0);
    size_t cap = 0;
    if (attr.kind != J_STR) {
        l->v = j_more(j, l->v, 0, &cap, sizeof *l->v);
        l->v[l->n++] = folded(j, j_path(j, v, attr), case_sensitive);
        return j_listv(J_LIST, l);
    }
    const j_str *s = attr.u.s;
    for (size_t i = 0; i <= s->n;) {
        const char *comma = memchr(s->s + i, ',', s->n - i);
        size_t n = comma ? (size_t)(comma - s->s) - i : s->n - i;
        j_value key = j_path(j, v, j_strv(j_sub(j, s, i, n)));
        l->v = j_more(j, l->v, l->n, &cap, sizeof *l->v);
        l->v[l->n++] = folded(j, key, case_sensitive);
        i += n + 1;
    }
    return j_listv(J_LIST, l);
}

static j_value f_sort(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_list *l = j_to_list(j, v);
    sort_item *items = j_array(j, l->n + 1, sizeof *items);
    for (size_t i = 0; i < l->n; i++)
        items[i] = (sort_item){sort_key(j, l->v[i], a[2], j_flag(j, a[1])), l->v[i]};
    return sorted(j, items, l->n, j_flag(j, a[0]));
}

/* --- dicts -------------------------------------------------------------------------------- */

static j_value f_dictsort(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    bool by_value = a[1].kind == J_STR && j_str_eq(a[1].u.s, "value");
    if (a[1].kind != J_MISSING && !by_value && !(a[1].kind == J_STR && j_str_eq(a[1].u.s, "key")))
        j_fail(j, "dictsort sorts by \"key\" or \"value\"");
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind != J_DICT)
        j_fail(j, "dictsort wants a dict, not %s", j_type_name(v));
    const j_dict *d = v.u.d;
    sort_item *items = j_array(j, d->n + 1, sizeof *items);
    for (size_t i = 0; i < d->n; i++)
        items[i] = (sort_item){folded(j, by_value ? d->p[i].value : d->p[i].key, j_flag(j, a[0])),
                               j_pairv(j, d->p[i].key, d->p[i].value)};
    return sorted(j, items, d->n, j_flag(j, a[2]));
}

static j_value f_items(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return gen_value(generator(j, G_ITEMS, v.kind == J_UNDEF ? (j_value){.kind = J_MISSING} : v));
}

/* --- the table ------------------------------------------------------------------------------- */

const j_fn *j_filter(const char *name, size_t n)
{
    static const j_fn table[] = {
        {"abs", f_abs, "", 0},
        {"attr", f_attr, "name", 1},
        {"batch", f_batch, "linecount,fill_with", 1},
        {"capitalize", j_filter_capitalize, "", 0},
        {"center", j_filter_center, "width", 0},
        {"count", f_length, "", 0},
        {"d", f_default, "default_value,boolean", 0},
        {"default", f_default, "default_value,boolean", 0},
        {"dictsort", f_dictsort, "case_sensitive,by,reverse", 0},
        {"e", j_filter_escape, "", 0},
        {"escape", j_filter_escape, "", 0},
        {"first", f_first, "", 0},
        {"float", f_float, "default", 0},
        {"forceescape", j_filter_forceescape, "", 0},
        {"format", j_filter_format, "*", 0},
        {"indent", j_filter_indent, "width,first,blank", 0},
        {"int", f_int, "default,base", 0},
        {"items", f_items, "", 0},
        {"join", j_filter_join, "d,attribute", 0},
        {"last", f_last, "", 0},
        {"length", f_length, "", 0},
        {"list", f_list, "", 0},
        {"lower", j_filter_lower, "", 0},
        {"map", f_map, "*", 0},
        {"max", f_max, "case_sensitive,attribute", 0},
        {"min", f_min, "case_sensitive,attribute", 0},
        {"reject", f_reject, "*", 0},
        {"rejectattr", f_rejectattr, "*", 0},
        {"replace", j_filter_replace, "old,new,count", 2},
        {"reverse", f_reverse, "", 0},
        {"round", f_round, "precision,method", 0},
        {"safe", j_filter_safe, "", 0},
        {"select", f_select, "*", 0},
        {"selectattr", f_selectattr, "*", 0},
        {"slice", f_slice, "slices,fill_with", 1},
        {"sort", f_sort, "reverse,case_sensitive,attribute", 0},
        {"string", j_filter_string, "", 0},
        {"sum", f_sum, "attribute,start", 0},
        {"title", j_filter_title, "", 0},
        {"tojson", j_filter_tojson, "ensure_ascii,indent,separators,sort_keys", 0},
        {"trim", j_filter_trim, "chars", 0},
        {"truncate", j_filter_truncate, "length,killwords,end,leeway", 0},
        {"unique", f_unique, "case_sensitive,attribute", 0},
        {"upper", j_filter_upper, "", 0},
        {"wordcount", j_filter_wordcount, "", 0},
    };
    return j_fn_find(table, sizeof table / sizeof *table, name, n);
}

/* method.c - methods of lists, dicts, loops and cyclers; those that would change something are
 * refused. */
#include <string.h>

#include "jinja/method.h"

/* --- lists and tuples --------------------------------------------------------------- */

static j_value m_index(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    int64_t n = (int64_t)v.u.l->n;
    int64_t from = a[1].kind == J_MISSING ? 0 : j_want_int(j, a[1], "index");
    int64_t to = a[2].kind == J_MISSING ? n : j_want_int(j, a[2], "index");
    from = from < 0 ? (from < -n ? 0 : from + n) : from;
    to = to < 0 ? (to < -n ? 0 : to + n) : to > n ? n : to;
    j_step(j, v.u.l->n / 8);
    for (int64_t i = from; i < to; i++)
        if (j_same(v.u.l->v[i], a[0]) || j_equal(j, v.u.l->v[i], a[0]))
            return j_int(i);
    j_fail(j, "index: it isn't in the list");
}

static j_value m_count(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    int64_t n = 0;
    j_step(j, v.u.l->n / 8);
    for (size_t i = 0; i < v.u.l->n; i++)
        n += j_same(v.u.l->v[i], a[0]) || j_equal(j, v.u.l->v[i], a[0]);
    return j_int(n);
}

/* Nothing changes a list or dict: a copy is the same. */
static j_value m_copy(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)j;
    UNUSED(a);
    return v;
}

/* --- dicts ------------------------------------------------------------------------------ */

static j_value m_get(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(args);
    const j_value *found = j_dict_get(j, v.u.d, a[0]);
    return found ? *found : a[1].kind == J_MISSING ? j_none() : a[1];
}

static j_value view(j_run *j, j_value v, j_view_of of)
{
    j_view *p = j_alloc(j, sizeof *p);
    *p = (j_view){v.u.d, of};
    return (j_value){.kind = J_VIEW, .u.v = p};
}

static j_value m_items(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return view(j, v, J_ITEMS);
}

static j_value m_keys(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return view(j, v, J_KEYS);
}

static j_value m_values(j_run *j, j_value v, j_value *a, const j_args *args)
{
    UNUSED(a);
    return view(j, v, J_VALUES);
}

static j_value m_fromkeys(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)v;
    UNUSED(args);
    j_dict *d = j_dict_new(j);
    j_iter it;
    j_value key;
    j_iter_init(j, &it, a[0]);
    while (j_next(j, &it, &key))
        j_dict_set(j, d, key, a[1].kind == J_MISSING ? j_none() : a[1]);
    return j_dictv(d);
}

/* --- loops, cyclers, numbers ----------------------------------------------------------- */

static j_value m_cycle(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    if (args->n == 0 || args->n_kw)
        j_fail(j, "cycle wants items");
    return args->v[j_loop_index0(v.u.loop) % (int64_t)args->n];
}

static j_value m_changed(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)a;
    return j_loop_changed(j, v.u.loop, args);
}

static j_value m_current(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)j;
    UNUSED(a);
    return v.u.cycler->items->v[v.u.cycler->pos];
}

static j_value m_next(j_run *j, j_value v, j_value *a, const j_args *args)
{
    j_value now = m_current(j, v, a, args);
    v.u.cycler->pos = (v.u.cycler->pos + 1) % v.u.cycler->items->n;
    return now;
}

static j_value m_reset(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)j;
    UNUSED(a);
    v.u.cycler->pos = 0;
    return j_none();
}

static j_value m_is_integer(j_run *j, j_value v, j_value *a, const j_args *args)
{
    (void)j;
    UNUSED(a);
    return j_bool(v.u.f == v.u.f && v.u.f - v.u.f == 0 && __builtin_floor(v.u.f) == v.u.f);
}

/* --- tables ------------------------------------------------------------------------------- */

static const j_fn of_list[] = {{"copy", m_copy, "", 0},
                               {"count", m_count, "value", 1},
                               {"index", m_index, "value,start,stop", 1}};
static const j_fn of_tuple[] = {{"count", m_count, "value", 1},
                                {"index", m_index, "value,start,stop", 1}};
static const j_fn of_dict[] = {
    {"copy", m_copy, "", 0},          {"fromkeys", m_fromkeys, "iterable,value", 1},
    {"get", m_get, "key,default", 1}, {"items", m_items, "", 0},
    {"keys", m_keys, "", 0},          {"values", m_values, "", 0}};
static const j_fn of_loop[] = {{"changed", m_changed, "*", 0}, {"cycle", m_cycle, "*", 0}};
static const j_fn of_cycler[] = {
    {"current", m_current, "", 0}, {"next", m_next, "", 0}, {"reset", m_reset, "", 0}};
static const j_fn of_float[] = {{"is_integer", m_is_integer, "", 0}};

#define FIND(table) j_fn_find(table, sizeof(table) / sizeof *(table), name, n)

const j_fn *j_method(j_value self, const char *name, size_t n)
{
    switch (self.kind) {
    case J_STR:
        return j_str_method(name, n);
    case J_LIST:
        return FIND(of_list);
    case J_TUPLE:
        return FIND(of_tuple);
    case J_DICT:
        return FIND(of_dict);
    case J_LOOP:
        return FIND(of_loop);
    case J_CYCLER:
        return FIND(of_cycler);
    case J_FLOAT:
        return FIND(of_float);
    case J_FUNC: /* dict.fromkeys */
        return strcmp(self.u.fn->name, "dict") == 0 && n == 8 && memcmp(name, "fromkeys", 8) == 0
                   ? &of_dict[1]
                   : NULL;
    default:
        return NULL;
    }
}

/* What Python has but a template may not touch. */
bool j_unsafe_method(j_value self, const char *name)
{
    static const char *const changes_list[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
    static const char *const changes_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    const char *const *names = self.kind == J_LIST ? changes_list : changes_dict;
    size_t n = self.kind == J_LIST   ? sizeof changes_list / sizeof *changes_list
               : self.kind == J_DICT ? sizeof changes_dict / sizeof *changes_dict
                                     : 0;
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return strncmp(name, "__", 2) == 0;
}

/* global.c - the functions a template finds without being given any. */
#include <string.h>

#include "jinja/impl.h"

enum { MAX_RANGE = 100000 }; /* as in jinja2's sandbox */

static j_value g_range(j_run *j, j_value self, j_value *a, const j_args *args)
{
    int64_t start = 0, stop, step = 1;
    (void)self, (void)args;
    if (a[1].kind == J_MISSING) {
        stop = j_want_int(j, a[0], "range");
    } else {
        start = j_want_int(j, a[0], "range");
        stop = j_want_int(j, a[1], "range");
    }
    if (a[2].kind != J_MISSING)
        step = j_want_int(j, a[2], "range");
    if (step == 0)
        j_fail(j, "a range's step can't be zero");
    uint64_t span = step > 0 ? (stop > start ? (uint64_t)stop - (uint64_t)start : 0)
                             : (start > stop ? (uint64_t)start - (uint64_t)stop : 0);
    uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step, n = span / by + (span % by != 0);
    if (n > MAX_RANGE)
        j_fail(j, "a range may have %d elements, not %llu", MAX_RANGE, (unsigned long long)n);
    j_range *r = j_alloc(j, sizeof *r);
    *r = (j_range){.start = start, .step = step, .n = (int64_t)n, .stop = stop};
    return (j_value){.kind = J_RANGE, .u.r = r};
}

/* dict(), also of a dict or of pairs, and keywords. */
static j_dict *make_dict(j_run *j, const j_args *args, const char *what)
{
    j_dict *d = j_dict_new(j);
    if (args->n > 1)
        j_fail(j, "%s takes at most one argument, not %zu", what, args->n);
    if (args->n == 1 && args->v[0].kind == J_DICT) {
        const j_dict *from = args->v[0].u.d;
        for (size_t i = 0; i < from->n; i++)
            j_dict_set(j, d, from->p[i].key, from->p[i].value);
    } else if (args->n == 1) {
        j_iter it;
        j_value x;
        j_iter_init(j, &it, args->v[0]);
        while (j_next(j, &it, &x)) {
            const j_list *pair = j_to_list(j, x);
            if (pair->n != 2)
                j_fail(j, "%s wants pairs, not %zu elements", what, pair->n);
            j_dict_set(j, d, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw; i++)
        j_dict_set(j, d, j_strv(args->kw[i].name), args->kw[i].value);
    return d;
}

static j_value g_dict(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)a;
    return j_dictv(make_dict(j, args, "dict"));
}

static j_value g_namespace(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)a;
    j_dict *d = make_dict(j, args, "namespace");
    for (size_t i = 0; i < d->n; i++)
        if (d->p[i].key.kind == J_STR)
            j_check_attr_name(j, d->p[i].key.u.s);
    return (j_value){.kind = J_NAMESPACE, .u.d = d};
}

static j_value g_raise(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)args;
    const j_str *s = j_to_str(j, a[0]);
    j_fail(j, "%.*s", (int)(s->n < 390 ? s->n : 390), s->s);
}

static j_value g_strftime(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)args;
    return j_strv(j_strftime(j, j_want_str(j, a[0], "strftime_now")));
}

static j_value g_cycler(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)a;
    if (args->n == 0 || args->n_kw)
        j_fail(j, "cycler wants items");
    j_cycler *c = j_zalloc(j, sizeof *c);
    j_list *l = j_list_new(j, args->n);
    memcpy(l->v, args->v, args->n * sizeof *l->v);
    c->items = l;
    return (j_value){.kind = J_CYCLER, .u.cycler = c};
}

static j_value g_joiner(j_run *j, j_value self, j_value *a, const j_args *args)
{
    (void)self, (void)args;
    j_cycler *c = j_zalloc(j, sizeof *c);
    c->sep = a[0].kind == J_MISSING ? j_text(j, ", ") : j_want_str(j, a[0], "joiner");
    return (j_value){.kind = J_JOINER, .u.cycler = c};
}

const j_fn *j_global(const char *name, size_t n)
{
    static const j_fn table[] = {
        {"cycler", g_cycler, "*", 0},
        {"dict", g_dict, "*", 0},
        {"joiner", g_joiner, "sep", 0},
        {"namespace", g_namespace, "*", 0},
        {"raise_exception", g_raise, "message", 1},
        {"range", g_range, "start,stop,step", 1},
        {"strftime_now", g_strftime, "format", 1},
    };
    return j_fn_find(table, sizeof table / sizeof *table, name, n);
}

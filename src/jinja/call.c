/* call.c - calling: arguments to parameters, macros. */
#include <string.h>

#include "jinja/impl.h"

const j_fn *j_fn_find(const j_fn *table, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

/* --- what is written in C ---------------------------------------------------------- */

/* The place of a name among "a,b,c", -1 = none. */
static int param_index(const char *params, const j_str *name)
{
    int i = 0;
    for (const char *p = params; *p; i++) {
        size_t n = strcspn(p, ",");
        if (n == name->n && memcmp(p, name->s, n) == 0)
            return i;
        p += n + (p[n] == ',');
    }
    return -1;
}

static int param_count(const char *params)
{
    int n = *params != 0;
    for (const char *p = params; *p; p++)
        n += *p == ',';
    return n;
}

/* What is done with a text is counted by its length, whatever it is. */
static size_t bytes_of(j_value v)
{
    return v.kind == J_STR ? v.u.s->n : 0;
}

j_value j_call_native(j_run *j, const j_fn *fn, j_value self, const j_args *args)
{
    j_value a[J_PARAMS], v;
    j_step(j, 1 + bytes_of(self) / 8);
    for (size_t i = 0; i < args->n; i++)
        j_step(j, bytes_of(args->v[i]) / 8);
    for (size_t i = 0; i < args->n_kw; i++)
        j_step(j, bytes_of(args->kw[i].value) / 8);
    j_enter(j);
    for (int i = 0; i < J_PARAMS; i++)
        a[i] = (j_value){.kind = J_MISSING};
    if (*fn->params != '*') {
        int n = param_count(fn->params);
        if (args->n > (size_t)n)
            j_fail(j, "'%s' takes at most %d argument%s, not %zu", fn->name, n, n == 1 ? "" : "s",
                   args->n);
        for (size_t i = 0; i < args->n; i++)
            a[i] = args->v[i];
        for (size_t i = 0; i < args->n_kw; i++) {
            const j_str *name = args->kw[i].name;
            int k = param_index(fn->params, name);
            if (k < 0 || a[k].kind != J_MISSING)
                j_fail(j, "'%s' %s '%.*s'", fn->name,
                       k < 0 ? "has no parameter" : "is given twice the parameter", J_SHOWN(name));
            a[k] = args->kw[i].value;
        }
        for (int i = 0; i < fn->required; i++)
            if (a[i].kind == J_MISSING)
                j_fail(j, "'%s' wants %d argument%s (%s)", fn->name, fn->required,
                       fn->required == 1 ? "" : "s", fn->params);
    }
    v = fn->call(j, self, a, args);
    j->depth--;
    return v;
}

/* --- macros ---------------------------------------------------------------------------- */

static j_value *find_kw(j_run *j, const j_args *args, bool *used, const j_str *name)
{
    for (size_t i = 0; i < args->n_kw; i++)
        if (!used[i] && j_equal(j, j_strv(args->kw[i].name), j_strv(name))) {
            used[i] = true;
            return &args->kw[i].value;
        }
    return NULL;
}

static j_value default_of(j_run *j, const j_node *n, size_t param)
{
    size_t first = n->args.n - n->n_kw;
    if (param >= first)
        return j_eval(j, n->kw[param - first].value);
    const j_str *name = n->args.v[param]->name;
    return j_undefined(j, j_cstr(j, "parameter '%.*s' was not provided", J_SHOWN(name)));
}

/* Keywords that no parameter took. */
static void rest_of_kwargs(j_run *j, const j_macro *m, const j_args *args, const bool *used)
{
    j_dict *d = j_dict_new(j);
    for (size_t i = 0; i < args->n_kw; i++) {
        const j_str *name = args->kw[i].name;
        if (used[i])
            continue;
        if (!(m->node->catches & J_CATCH_KWARGS))
            j_fail(j, "macro '%s' has no parameter '%.*s'", m->name ? m->name : "caller",
                   J_SHOWN(name));
        j_dict_set(j, d, j_strv(name), args->kw[i].value);
    }
    if (m->node->catches & J_CATCH_KWARGS)
        j_scope_set(j, j->scope, j->t->kwargs, j_dictv(d));
}

static void rest_of_args(j_run *j, const j_macro *m, const j_args *args)
{
    const size_t n = m->node->args.n, more = args->n > n ? args->n - n : 0;
    if (m->node->catches & J_CATCH_VARARGS) {
        j_list *l = j_list_new(j, more);
        for (size_t i = 0; i < more; i++)
            l->v[i] = args->v[n + i];
        j_scope_set(j, j->scope, j->t->varargs, j_listv(J_TUPLE, l));
    } else if (more) {
        j_fail(j, "macro '%s' takes not more than %zu argument%s", m->name ? m->name : "caller", n,
               n == 1 ? "" : "s");
    }
}

static void bind(j_run *j, const j_macro *m, const j_args *args)
{
    const j_node *n = m->node;
    bool *used = j_zalloc(j, args->n_kw + 1);
    bool explicit_caller = false;
    j_value **given = j_array(j, n->args.n + 1, sizeof *given), *caller = NULL;
    for (size_t i = 0; i < n->args.n; i++) {
        given[i] = i < args->n ? &args->v[i] : find_kw(j, args, used, n->args.v[i]->name);
        explicit_caller |= n->args.v[i]->name == j->t->caller;
    }
    if ((n->catches & J_CATCH_CALLER) && !explicit_caller) {
        caller = find_kw(j, args, used, j->t->caller);
        j_scope_set(j, j->scope, j->t->caller,
                    caller && caller->kind != J_NONE ? *caller
                                                     : j_undefined(j, "no caller defined"));
    }
    rest_of_kwargs(j, m, args, used);
    rest_of_args(j, m, args);
    for (size_t i = 0; i < n->args.n; i++)
        j_scope_set(j, j->scope, n->args.v[i]->name, given[i] ? *given[i] : default_of(j, n, i));
}

static j_value call_macro(j_run *j, const j_macro *m, const j_args *args)
{
    j_scope *was = j->scope;
    j->scope = j_scope_new(j, m->scope);
    bind(j, m, args);
    const j_str *s = j_capture(j, &m->node->kids);
    j->scope = was;
    return j_strv(s);
}

/* --- any value --------------------------------------------------------------------------- */

j_value j_call(j_run *j, j_value callee, const j_args *args, int line)
{
    j_value v = j_none();
    j->line = line;
    j_enter(j);
    switch (callee.kind) {
    case J_UNDEF:
        j_fail_undefined(j, callee);
    case J_METHOD:
        v = j_call_native(j, callee.u.bound->fn, callee.u.bound->self, args);
        break;
    case J_FUNC:
        v = j_call_native(j, callee.u.fn, callee, args);
        break;
    case J_MACRO:
        v = call_macro(j, callee.u.m, args);
        break;
    case J_LOOP:
        v = j_loop_recurse(j, callee.u.loop, args);
        break;
    case J_JOINER:
        v = j_strv(callee.u.cycler->pos++ ? callee.u.cycler->sep : j_text(j, ""));
        break;
    default:
        j_fail(j, "%s can't be called", j_type_name(callee));
    }
    j->depth--;
    return v;
}

/* eval.c - expressions. */
#include <string.h>

#include "jinja/impl.h"

/* --- names, attributes, items ------------------------------------------------------ */

static const j_var *variable(j_run *j, const j_str *name)
{
    size_t seen = 0;
    for (const j_scope *s = j->scope; s; s = s->up) {
        seen += 4 + s->n; /* one that is scattered costs more than those in a row */
        j_step(j, seen / 16);
        seen %= 16;
        for (size_t i = s->n; i-- > 0;)
            if (s->v[i].name == name)
                return &s->v[i];
    }
    return NULL;
}

static j_value lookup(j_run *j, const j_str *name)
{
    const j_var *var = variable(j, name);
    if (var)
        return var->value;
    const j_value *v = j_dict_find(j, j->vars, name);
    if (v)
        return *v;
    const j_fn *fn = j_global(name->s, name->n);
    return fn ? (j_value){.kind = J_FUNC, .u.fn = fn} : j_undefined_name(j, name);
}

static bool member(j_run *j, j_value of, const j_str *name, j_value *out)
{
    if (of.kind == J_LOOP) {
        *out = j_loop_attr(j, of.u.loop, j_cstr(j, "%.*s", (int)name->n, name->s));
        return out->kind != J_MISSING;
    }
    if (of.kind == J_NAMESPACE) {
        const j_value *v = j_dict_find(j, of.u.d, name);
        if (v)
            *out = *v;
        return v != NULL;
    }
    const j_fn *fn = j_method(of, name->s, name->n);
    if (!fn)
        return false;
    j_bound *b = j_alloc(j, sizeof *b);
    *b = (j_bound){of, fn};
    *out = (j_value){.kind = J_METHOD, .u.bound = b};
    if (of.kind == J_CYCLER && strcmp(fn->name, "current") == 0) /* the one that is a property */
        *out = j_call_native(j, fn, of, &(j_args){0});
    return true;
}

static j_value no_attr(j_run *j, j_value of, const j_str *name)
{
    const char *text = j_cstr(j, "%.*s", J_SHOWN(name));
    return j_undefined_attr(j, of, text, j_unsafe_method(of, text));
}

/* of.name: methods come before the keys of a dict. */
j_value j_attr(j_run *j, j_value of, const j_str *name)
{
    j_value v;
    if (of.kind == J_UNDEF)
        j_fail_undefined(j, of);
    if (member(j, of, name, &v))
        return v;
    j_value undefined = no_attr(j, of, name);
    if (undefined.u.u->why == J_UNSAFE)
        return undefined;
    if (of.kind == J_DICT) {
        const j_value *found = j_dict_find(j, of.u.d, name);
        if (found)
            return *found;
    }
    return undefined;
}

static bool element(j_run *j, j_value of, j_value key, j_value *out)
{
    int64_t i;
    size_t n;
    if (of.kind == J_DICT) {
        const j_value *v = j_hashable(j, key) ? j_dict_get(j, of.u.d, key) : NULL;
        if (v)
            *out = *v;
        return v != NULL;
    }
    bool indexed =
        of.kind == J_STR || of.kind == J_LIST || of.kind == J_TUPLE || of.kind == J_RANGE;
    if (!indexed || !j_integer(key, &i) || !j_length(j, of, &n))
        return false;
    i = i < 0 && i >= -(int64_t)n ? i + (int64_t)n : i;
    if (i < 0 || i >= (int64_t)n)
        return false;
    if (of.kind == J_LIST || of.kind == J_TUPLE)
        *out = of.u.l->v[i];
    else if (of.kind == J_RANGE)
        *out = j_int((int64_t)((uint64_t)of.u.r->start + (uint64_t)i * (uint64_t)of.u.r->step));
    else
        *out = j_slice(j, of, j_int(i), j_int(i + 1), j_none());
    return true;
}

/* of[key]: elements come before methods. */
j_value j_item(j_run *j, j_value of, j_value key)
{
    j_value v;
    if (of.kind == J_UNDEF)
        j_fail_undefined(j, of);
    if (element(j, of, key, &v))
        return v;
    if (key.kind == J_STR)
        return member(j, of, key.u.s, &v) ? v : no_attr(j, of, key.u.s);
    const j_str *shown = j_repr_str(j, key);
    return j_undefined_attr(j, of, j_cstr(j, "%.*s", J_SHOWN(shown)), false);
}

static bool all_digits(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return n > 0;
}

j_value j_path(j_run *j, j_value of, j_value path)
{
    if (path.kind == J_NONE || path.kind == J_MISSING)
        return of;
    if (path.kind != J_STR)
        return j_item(j, of, path);
    const j_str *s = path.u.s;
    j_step(j, s->n / 8);
    for (size_t i = 0;;) {
        const char *dot = memchr(s->s + i, '.', s->n - i);
        size_t n = dot ? (size_t)(dot - s->s) - i : s->n - i;
        int64_t k;
        if (all_digits(s->s + i, n) && j_parse_int(s->s + i, n, 10, &k))
            of = j_item(j, of, j_int(k));
        else
            of = j_item(j, of, j_strv(j_sub(j, s, i, n)));
        if (!dot)
            return of;
        i += n + 1;
    }
}

/* --- arguments ----------------------------------------------------------------------- */

static void add_arg(j_run *j, j_args *a, size_t *cap, j_value v)
{
    a->v = j_more(j, a->v, a->n, cap, sizeof *a->v);
    a->v[a->n++] = v;
}

static void add_kwargs(j_run *j, j_args *a, size_t *cap, j_value from)
{
    if (from.kind != J_DICT)
        j_fail(j, "'**' wants a dict, not %s", j_type_name(from));
    const size_t by_name = a->n_kw; /* those of the dict differ among themselves */
    for (size_t i = 0; i < from.u.d->n; i++) {
        j_value key = from.u.d->p[i].key;
        if (key.kind != J_STR)
            j_fail(j, "'**' wants a dict whose keys are strings");
        for (size_t k = 0; k < by_name; k++)
            if (j_equal(j, j_strv(a->kw[k].name), key))
                j_fail(j, "an argument is given twice, by name and by '**'");
        a->kw = j_more(j, a->kw, a->n_kw, cap, sizeof *a->kw);
        a->kw[a->n_kw++] = (j_var){key.u.s, from.u.d->p[i].value};
    }
}

static j_args *eval_args(j_run *j, const j_node *n)
{
    j_args *a = j_zalloc(j, sizeof *a);
    size_t cap = n->args.n, cap_kw = n->n_kw;
    a->v = cap ? j_array(j, cap, sizeof *a->v) : NULL;
    a->kw = cap_kw ? j_array(j, cap_kw, sizeof *a->kw) : NULL;
    for (size_t i = 0; i < n->args.n; i++)
        a->v[a->n++] = j_eval(j, n->args.v[i]);
    if (n->star) {
        j_iter it;
        j_value x;
        j_iter_init(j, &it, j_eval(j, n->star));
        while (j_next(j, &it, &x))
            add_arg(j, a, &cap, x);
    }
    for (size_t i = 0; i < n->n_kw; i++)
        a->kw[a->n_kw++] = (j_var){n->kw[i].name, j_eval(j, n->kw[i].value)};
    if (n->star2)
        add_kwargs(j, a, &cap_kw, j_eval(j, n->star2));
    return a;
}

/* --- operators -------------------------------------------------------------------------- */

static bool holds(j_run *j, j_cmp cmp, j_value a, j_value b)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    bool unordered = false;
    switch (cmp) {
    case C_EQ:
        return j_equal(j, a, b);
    case C_NE:
        return !j_equal(j, a, b);
    case C_IN:
        return j_contains(j, b, a);
    case C_NOT_IN:
        return !j_contains(j, b, a);
    default:
        break;
    }
    int r = j_order(j, a, b, ops[cmp], &unordered);
    if (unordered)
        return false;
    return cmp == C_LT ? r < 0 : cmp == C_LE ? r <= 0 : cmp == C_GT ? r > 0 : r >= 0;
}

static j_value compare(j_run *j, const j_node *n)
{
    j_value a = j_eval(j, n->a);
    for (size_t i = 0; i < n->kids.n; i++) {
        j_value b = j_eval(j, n->kids.v[i]);
        j->line = n->line;
        if (!holds(j, (j_cmp)n->kids.v[i]->cmp, a, b))
            return j_bool(false);
        a = b;
    }
    return j_bool(true);
}

static j_value concat(j_run *j, const j_node *n)
{
    j_buf b = {0};
    for (size_t i = 0; i < n->kids.n; i++) {
        j_value v = j_eval(j, n->kids.v[i]);
        j_print(j, &b, v);
    }
    return j_strv(j_buf_done(j, &b));
}

static j_value list(j_run *j, const j_node *n)
{
    j_list *l = j_list_new(j, n->kids.n);
    for (size_t i = 0; i < n->kids.n; i++)
        l->v[i] = j_eval(j, n->kids.v[i]);
    return j_listv(n->op == N_LIST ? J_LIST : J_TUPLE, l);
}

static j_value dict(j_run *j, const j_node *n)
{
    j_dict *d = j_dict_new(j);
    for (size_t i = 0; i < n->kids.n; i += 2) {
        j_value key = j_eval(j, n->kids.v[i]), v = j_eval(j, n->kids.v[i + 1]);
        j->line = n->line;
        j_dict_set(j, d, key, v);
    }
    return j_dictv(d);
}

static j_value slice(j_run *j, const j_node *n)
{
    j_value of = j_eval(j, n->a);
    j_value b = n->b ? j_eval(j, n->b) : j_none(), c = n->c ? j_eval(j, n->c) : j_none();
    j_value step = n->star ? j_eval(j, n->star) : j_none();
    j->line = n->line;
    return j_slice(j, of, b, c, step);
}

static j_value filter_or_test(j_run *j, const j_node *n)
{
    j_value self = n->a ? j_eval(j, n->a) : j_strv(j->block);
    const j_args *args = eval_args(j, n);
    j->line = n->line;
    if (!n->fn)
        j_fail(j, "there is no %s '%.*s'", n->op == N_FILTER ? "filter" : "test", J_SHOWN(n->name));
    return j_call_native(j, n->fn, self, args);
}

static j_value call(j_run *j, const j_node *n)
{
    j_value callee = j_eval(j, n->a);
    const j_args *args = eval_args(j, n);
    j_value v = j_call(j, callee, args, n->line);
    j->line = n->line;
    return v;
}

static j_value conditional(j_run *j, const j_node *n)
{
    if (j_truth(j, j_eval(j, n->b)))
        return j_eval(j, n->a);
    if (n->c)
        return j_eval(j, n->c);
    return j_undefined(j, "an inline 'if' without 'else' was false");
}

static j_value arith(j_run *j, const j_node *n)
{
    j_value a = j_eval(j, n->a), b = j_eval(j, n->b);
    j->line = n->line;
    return j_arith(j, n->op, a, b);
}

static j_value eval(j_run *j, const j_node *n)
{
    j_value v;
    switch (n->op) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return lookup(j, n->name);
    case N_LIST:
    case N_TUPLE:
        return list(j, n);
    case N_DICT:
        return dict(j, n);
    case N_ATTR:
        v = j_eval(j, n->a);
        j->line = n->line;
        return j_attr(j, v, n->name);
    case N_ITEM: {
        v = j_eval(j, n->a);
        j_value key = j_eval(j, n->b);
        j->line = n->line;
        return j_item(j, v, key);
    }
    case N_SLICE:
        return slice(j, n);
    case N_CALL:
        return call(j, n);
    case N_FILTER:
    case N_TEST:
        return filter_or_test(j, n);
    case N_NOT:
        return j_bool(!j_truth(j, j_eval(j, n->a)));
    case N_AND:
        v = j_eval(j, n->a);
        return j_truth(j, v) ? j_eval(j, n->b) : v;
    case N_OR:
        v = j_eval(j, n->a);
        return j_truth(j, v) ? v : j_eval(j, n->b);
    case N_COND:
        return conditional(j, n);
    case N_COMPARE:
        return compare(j, n);
    case N_CONCAT:
        return concat(j, n);
    case N_NEG:
    case N_POS:
        v = j_eval(j, n->a);
        j->line = n->line;
        return j_sign(j, n->op, v);
    default:
        return arith(j, n);
    }
}

j_value j_eval(j_run *j, const j_node *n)
{
    j_step(j, 1);
    j_enter(j);
    j->line = n->line;
    j_value v = eval(j, n);
    j->depth--;
    return v;
}

/* iter.c - going through values; generators, which compute while somebody does.
 *
 * Filters like map and select are generators in jinja2 too: they are true even when empty, have no
 * length, and are used up by going through them once. */
#include "jinja/impl.h"

bool j_iterable(j_value v)
{
    switch (v.kind) {
    case J_UNDEF:
    case J_STR:
    case J_LIST:
    case J_TUPLE:
    case J_DICT:
    case J_RANGE:
    case J_VIEW:
    case J_GEN:
    case J_LOOP:
        return true;
    default:
        return false;
    }
}

void j_iter_init(j_run *j, j_iter *it, j_value of)
{
    if (!j_iterable(of) || of.kind == J_LOOP)
        j_fail(j, "%s can't be iterated", j_type_name(of));
    *it = (j_iter){.of = of};
}

static j_value view_at(j_run *j, const j_view *v, size_t i)
{
    const j_pair *p = &v->d->p[i];
    return v->of == J_KEYS ? p->key : v->of == J_VALUES ? p->value : j_pairv(j, p->key, p->value);
}

static bool next_char(j_run *j, j_iter *it, j_value *out)
{
    const j_str *s = it->of.u.s;
    size_t len;
    if (it->byte >= s->n)
        return false;
    j_char_at(s->s + it->byte, s->n - it->byte, &len);
    *out = j_strv(j_sub(j, s, it->byte, len));
    if (s->markup && out->u.s == s) /* iterating markup gives plain strings */
        *out = j_strv(j_as_markup(j, s, false));
    else if (s->markup)
        *out = j_strv(j_as_markup(j, out->u.s, false));
    it->byte += len;
    return true;
}

bool j_next(j_run *j, j_iter *it, j_value *out)
{
    j_value v = it->of;
    j_step(j, 1);
    switch (v.kind) {
    case J_STR:
        return next_char(j, it, out);
    case J_LIST:
    case J_TUPLE:
        if (it->i >= v.u.l->n)
            return false;
        *out = v.u.l->v[it->i++];
        return true;
    case J_DICT:
        if (it->i >= v.u.d->n)
            return false;
        *out = v.u.d->p[it->i++].key;
        return true;
    case J_RANGE:
        if ((int64_t)it->i >= v.u.r->n)
            return false;
        *out = j_int((int64_t)((uint64_t)v.u.r->start + it->i++ * (uint64_t)v.u.r->step));
        return true;
    case J_VIEW:
        if (it->i >= v.u.v->d->n)
            return false;
        *out = view_at(j, v.u.v, it->i++);
        return true;
    case J_GEN:
        return j_gen_next(j, v.u.g, out);
    default:
        return false;
    }
}

bool j_length(j_run *j, j_value v, size_t *n)
{
    switch (v.kind) {
    case J_UNDEF:
        *n = 0;
        return true;
    case J_STR:
        *n = v.u.s->chars;
        return true;
    case J_LIST:
    case J_TUPLE:
        *n = v.u.l->n;
        return true;
    case J_DICT:
        *n = v.u.d->n;
        return true;
    case J_RANGE:
        *n = (size_t)v.u.r->n;
        return true;
    case J_VIEW:
        *n = v.u.v->d->n;
        return true;
    case J_LOOP:
        *n = j_loop_length(j, v.u.loop);
        return true;
    default:
        return false;
    }
}

const j_list *j_to_list(j_run *j, j_value v)
{
    if (v.kind == J_LIST || v.kind == J_TUPLE)
        return v.u.l;
    j_iter it;
    j_iter_init(j, &it, v);
    j_list *l = j_list_new(j, 0);
    size_t cap = 0;
    j_value x;
    while (j_next(j, &it, &x)) {
        l->v = j_more(j, l->v, l->n, &cap, sizeof *l->v);
        l->v[l->n++] = x;
    }
    return l;
}

/* --- generators ------------------------------------------------------------------ */

static bool selected(j_run *j, const j_gen *g, j_value x)
{
    if (g->by_attr)
        x = j_path(j, x, g->attr);
    bool is = j_truth(j, g->fn ? j_call_native(j, g->fn, x, g->args) : x);
    return is != g->negate;
}

static bool next_select(j_run *j, j_gen *g, j_value *out)
{
    while (j_next(j, &g->it, out))
        if (selected(j, g, *out))
            return true;
    return false;
}

static bool next_unique(j_run *j, j_gen *g, j_value *out)
{
    while (j_next(j, &g->it, out)) {
        j_value key = j_path(j, *out, g->attr);
        if (!g->case_sensitive && key.kind == J_STR)
            key = j_strv(j_recase(j, key.u.s, J_LOWER));
        if (j_dict_get(j, g->seen.u.d, key))
            continue;
        j_dict_set(j, g->seen.u.d, key, j_none());
        return true;
    }
    return false;
}

static bool next_batch(j_run *j, j_gen *g, j_value *out)
{
    j_list *l = j_list_new(j, 0);
    size_t cap = 0;
    j_value x;
    while ((l->n == 0 || (int64_t)l->n != g->n) && j_next(j, &g->it, &x)) {
        l->v = j_more(j, l->v, l->n, &cap, sizeof *l->v);
        l->v[l->n++] = x;
    }
    if (l->n == 0)
        return false;
    while (g->fill.kind != J_NONE && (int64_t)l->n < g->n) {
        l->v = j_more(j, l->v, l->n, &cap, sizeof *l->v);
        l->v[l->n++] = g->fill;
        j_step(j, 1);
    }
    *out = j_listv(J_LIST, l);
    return true;
}

/* Column `at` of n: the first ones get one more where it doesn't divide evenly. */
static bool next_slice(j_run *j, j_gen *g, j_value *out)
{
    const j_list *all = g->seen.u.l;
    if (g->at >= g->n)
        return false;
    int64_t each = (int64_t)all->n / g->n, more = (int64_t)all->n % g->n;
    int64_t start = g->off + g->at * each;
    if (g->at < more)
        g->off++;
    int64_t end = g->off + (g->at + 1) * each;
    bool fill = g->fill.kind != J_NONE && g->at >= more;
    j_list *l = j_list_new(j, (size_t)(end - start) + fill);
    for (int64_t i = start; i < end; i++)
        l->v[i - start] = all->v[i];
    if (fill)
        l->v[end - start] = g->fill;
    g->at++;
    *out = j_listv(J_LIST, l);
    return true;
}

static bool next_for_if(j_run *j, j_gen *g, j_value *out)
{
    while (j_next(j, &g->it, out)) {
        j_scope *was = j->scope;
        j->scope = g->inner = j_scope_again(j, g->inner, g->scope);
        j_assign(j, g->node->a, *out);
        bool is = j_truth(j, j_eval(j, g->node->c));
        j->scope = was;
        if (is)
            return true;
    }
    return false;
}

static bool gen_next(j_run *j, j_gen *g, j_value *out)
{
    j_value x;
    switch (g->kind) {
    case G_MAP_ATTR:
        if (!j_next(j, &g->it, &x))
            return false;
        *out = j_path(j, x, g->attr);
        if (out->kind == J_UNDEF && g->fill.kind != J_NONE)
            *out = g->fill;
        return true;
    case G_MAP_FILTER:
        if (!j_next(j, &g->it, &x))
            return false;
        *out = j_call_native(j, g->fn, x, g->args);
        return true;
    case G_SELECT:
        return next_select(j, g, out);
    case G_ITEMS:
        return j_next(j, &g->it, out);
    case G_UNIQUE:
        return next_unique(j, g, out);
    case G_BATCH:
        return next_batch(j, g, out);
    case G_SLICE:
        return next_slice(j, g, out);
    case G_REVERSED:
        if (g->at == 0)
            return false;
        *out = g->seen.u.l->v[--g->at];
        return true;
    case G_FOR_IF:
        return next_for_if(j, g, out);
    }
    return false;
}

static void begin(j_run *j, j_gen *g)
{
    g->begun = true;
    if (g->kind == G_SLICE) {
        g->seen = j_listv(J_LIST, j_to_list(j, g->over));
        return;
    }
    if (g->kind == G_ITEMS) {
        j_view *view = j_alloc(j, sizeof *view);
        if (g->over.kind != J_DICT)
            j_fail(j, "items wants a dict, not %s", j_type_name(g->over));
        *view = (j_view){g->over.u.d, J_ITEMS};
        g->over = (j_value){.kind = J_VIEW, .u.v = view};
    }
    j_iter_init(j, &g->it, g->over);
}

bool j_gen_next(j_run *j, j_gen *g, j_value *out)
{
    if (g->done)
        return false;
    j_enter(j);
    if (!g->begun)
        begin(j, g);
    bool more = gen_next(j, g, out);
    j->depth--;
    g->done = !more;
    return more;
}

/* value.c - what values have in common: truth, equality, order, membership; dicts. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "jinja/impl.h"

/* --- making -------------------------------------------------------------------- */

j_list *j_list_new(j_run *j, size_t n)
{
    j_list *l = j_alloc(j, sizeof *l);
    l->v = n ? j_array(j, n, sizeof *l->v) : NULL;
    l->n = n;
    return l;
}

j_value j_pairv(j_run *j, j_value a, j_value b)
{
    j_list *l = j_list_new(j, 2);
    l->v[0] = a;
    l->v[1] = b;
    return j_listv(J_TUPLE, l);
}

j_value j_undefined(j_run *j, const char *hint)
{
    j_undef *u = j_alloc(j, sizeof *u);
    *u = (j_undef){.why = J_HINT, .text = hint};
    return (j_value){.kind = J_UNDEF, .u.u = u};
}

static const char *shown(j_run *j, const char *s, size_t n)
{
    char *p = j_alloc(j, 64);
    size_t k = n < 60 ? n : 60;
    memcpy(p, s, k);
    p[k] = 0;
    return p;
}

j_value j_undefined_name(j_run *j, const j_str *name)
{
    j_undef *u = j_alloc(j, sizeof *u);
    *u = (j_undef){.why = J_NO_NAME, .text = shown(j, name->s, name->n)};
    return (j_value){.kind = J_UNDEF, .u.u = u};
}

j_value j_undefined_attr(j_run *j, j_value of, const char *name, bool unsafe)
{
    j_undef *u = j_alloc(j, sizeof *u);
    *u = (j_undef){
        .why = unsafe ? J_UNSAFE : J_NO_ATTR, .of = of.kind, .text = shown(j, name, strlen(name))};
    return (j_value){.kind = J_UNDEF, .u.u = u};
}

void j_fail_undefined(j_run *j, j_value v)
{
    const j_undef *u = v.u.u;
    if (u->why == J_HINT)
        j_fail(j, "%s", u->text);
    if (u->why == J_NO_NAME)
        j_fail(j, "'%s' is undefined", u->text);
    const char *of = j_type_name((j_value){.kind = u->of});
    if (u->why == J_UNSAFE)
        j_fail(j, "'%s' of %s may not be used in templates", u->text, of);
    j_fail(j, "%s has no '%s'", of, u->text);
}

/* --- asking ---------------------------------------------------------------------- */

const char *j_type_name(j_value v)
{
    static const char *const names[] = {
        [J_MISSING] = "nothing", [J_UNDEF] = "an undefined value",
        [J_NONE] = "None",       [J_BOOL] = "a bool",
        [J_INT] = "an int",      [J_FLOAT] = "a float",
        [J_STR] = "a string",    [J_LIST] = "a list",
        [J_TUPLE] = "a tuple",   [J_DICT] = "a dict",
        [J_RANGE] = "a range",   [J_VIEW] = "a view of a dict",
        [J_GEN] = "a generator", [J_NAMESPACE] = "a namespace",
        [J_LOOP] = "a loop",     [J_MACRO] = "a macro",
        [J_METHOD] = "a method", [J_FUNC] = "a function",
        [J_CYCLER] = "a cycler", [J_JOINER] = "a joiner",
    };
    return names[v.kind];
}

bool j_is_number(j_value v)
{
    return v.kind == J_BOOL || v.kind == J_INT || v.kind == J_FLOAT;
}

double j_number(j_value v)
{
    return v.kind == J_FLOAT ? v.u.f : v.kind == J_INT ? (double)v.u.i : v.u.b;
}

bool j_integer(j_value v, int64_t *i)
{
    if (v.kind != J_INT && v.kind != J_BOOL)
        return false;
    *i = v.kind == J_INT ? v.u.i : v.u.b;
    return true;
}

int64_t j_want_int(j_run *j, j_value v, const char *what)
{
    int64_t i;
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (!j_integer(v, &i))
        j_fail(j, "%s wants an integer, not %s", what, j_type_name(v));
    return i;
}

const j_str *j_want_str(j_run *j, j_value v, const char *what)
{
    if (v.kind == J_UNDEF)
        j_fail_undefined(j, v);
    if (v.kind != J_STR)
        j_fail(j, "%s wants a string, not %s", what, j_type_name(v));
    return v.u.s;
}

bool j_truth(j_run *j, j_value v)
{
    size_t n;
    switch (v.kind) {
    case J_UNDEF:
    case J_NONE:
    case J_MISSING:
        return false;
    case J_BOOL:
        return v.u.b;
    case J_INT:
        return v.u.i != 0;
    case J_FLOAT:
        return v.u.f != 0;
    case J_NAMESPACE:
        return true;
    default:
        return !j_length(j, v, &n) || n > 0;
    }
}

bool j_same(j_value a, j_value b)
{
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case J_NONE:
    case J_MISSING:
        return true;
    case J_BOOL:
        return a.u.b == b.u.b;
    case J_INT:
        return a.u.i == b.u.i;
    case J_FLOAT:
        return memcmp(&a.u.f, &b.u.f, sizeof a.u.f) == 0;
    case J_STR:
        return a.u.s == b.u.s || (a.u.s->s == b.u.s->s && a.u.s->n == b.u.s->n);
    default:
        return a.u.u == b.u.u;
    }
}

/* --- equality and order ------------------------------------------------------------- */

static bool equal_lists(j_run *j, const j_list *a, const j_list *b)
{
    if (a->n != b->n)
        return false;
    j_step(j, a->n / 8);
    for (size_t i = 0; i < a->n; i++)
        if (!j_same(a->v[i], b->v[i]) && !j_equal(j, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool equal_dicts(j_run *j, const j_dict *a, const j_dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const j_value *v = j_dict_get(j, b, a->p[i].key);
        if (!v || !j_equal(j, a->p[i].value, *v))
            return false;
    }
    return true;
}

static bool equal_ranges(const j_range *a, const j_range *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

/* An int and a float are equal when they are the same number, not when one rounds to the other. */
static int compare_int_float(int64_t i, double f)
{
    if (f >= 0x1p63)
        return -1;
    if (f < -0x1p63)
        return 1;
    int64_t whole = (int64_t)f;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static int compare_numbers(j_value a, j_value b)
{
    int64_t ia, ib;
    bool int_a = j_integer(a, &ia), int_b = j_integer(b, &ib);
    if (int_a && int_b)
        return ia < ib ? -1 : ia > ib;
    if (int_a)
        return compare_int_float(ia, b.u.f);
    if (int_b)
        return -compare_int_float(ib, a.u.f);
    return a.u.f < b.u.f ? -1 : a.u.f > b.u.f;
}

static bool is_nan(j_value v)
{
    return v.kind == J_FLOAT && isnan(v.u.f);
}

bool j_equal(j_run *j, j_value a, j_value b)
{
    bool r;
    j_step(j, 1);
    if (j_is_number(a) && j_is_number(b))
        return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case J_UNDEF:
        return true;
    case J_STR:
        j_step(j, a.u.s->n / 64);
        return j_str_same(a.u.s, b.u.s);
    case J_LIST:
    case J_TUPLE:
        j_enter(j);
        r = equal_lists(j, a.u.l, b.u.l);
        j->depth--;
        return r;
    case J_DICT:
        j_enter(j);
        r = equal_dicts(j, a.u.d, b.u.d);
        j->depth--;
        return r;
    case J_RANGE:
        return equal_ranges(a.u.r, b.u.r);
    default:
        return j_same(a, b);
    }
}

static int order_strings(j_run *j, const j_str *a, const j_str *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    j_step(j, 1 + n / 64);
    int r = memcmp(a->s, b->s, n); /* UTF-8 has the order of its code points */
    return r ? r : a->n < b->n ? -1 : a->n > b->n;
}

int j_order(j_run *j, j_value a, j_value b, const char *op, bool *unordered)
{
    j_step(j, 1);
    if (unordered)
        *unordered = is_nan(a) || is_nan(b);
    if (j_is_number(a) && j_is_number(b))
        return is_nan(a) || is_nan(b) ? 0 : compare_numbers(a, b);
    if (a.kind == J_STR && b.kind == J_STR)
        return order_strings(j, a.u.s, b.u.s);
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        const j_list *l = a.u.l, *m = b.u.l;
        int r = l->n < m->n ? -1 : l->n > m->n;
        j_enter(j);
        j_step(j, (l->n < m->n ? l->n : m->n) / 8);
        for (size_t i = 0; i < l->n && i < m->n; i++)
            if (!j_same(l->v[i], m->v[i]) && !j_equal(j, l->v[i], m->v[i])) {
                r = j_order(j, l->v[i], m->v[i], op, unordered);
                break;
            }
        j->depth--;
        return r;
    }
    if (a.kind == J_UNDEF)
        j_fail_undefined(j, a);
    if (b.kind == J_UNDEF)
        j_fail_undefined(j, b);
    j_fail(j, "'%s' can't compare %s and %s", op, j_type_name(a), j_type_name(b));
}

bool j_contains(j_run *j, j_value in, j_value what)
{
    j_iter it;
    j_value v;
    if (in.kind == J_STR) {
        if (what.kind != J_STR)
            j_fail(j, "'in' looks for a string in a string, not for %s", j_type_name(what));
        return j_find(j, in.u.s, what.u.s, 0) >= 0;
    }
    if (in.kind == J_DICT)
        return j_dict_get(j, in.u.d, what) != NULL;
    if (in.kind == J_VIEW && in.u.v->of == J_KEYS)
        return j_dict_get(j, in.u.v->d, what) != NULL;
    j_iter_init(j, &it, in);
    while (j_next(j, &it, &v))
        if (j_same(v, what) || j_equal(j, v, what))
            return true;
    return false;
}

/* --- dicts ---------------------------------------------------------------------------- */

enum { INDEXED = 8 }; /* elements from which on there is an index */

/* A tuple may hold one and the same tuple often, and that one again: what is few values in memory
 * is more than anybody could go through. */
bool j_hashable(j_run *j, j_value v)
{
    if (v.kind == J_TUPLE) {
        bool all = true;
        j_enter(j);
        j_step(j, 1 + v.u.l->n);
        for (size_t i = 0; all && i < v.u.l->n; i++)
            all = j_hashable(j, v.u.l->v[i]);
        j->depth--;
        return all;
    }
    return v.kind != J_LIST && v.kind != J_DICT && v.kind != J_NAMESPACE && v.kind != J_VIEW;
}

static uint64_t hash_of(j_run *j, j_value v)
{
    int64_t i = 0;
    uint64_t h = 0;
    switch (v.kind) {
    case J_STR:
        j_step(j, v.u.s->n / 64);
        return ts_hash64(v.u.s->s, v.u.s->n, 1);
    case J_BOOL:
    case J_INT:
        j_integer(v, &i);
        return ts_hash64(&i, sizeof i, 2);
    case J_FLOAT: /* a float that is a whole number is the same key as the int */
        if (v.u.f > -0x1p63 && v.u.f < 0x1p63 && v.u.f == (double)(int64_t)v.u.f) {
            i = (int64_t)v.u.f;
            return ts_hash64(&i, sizeof i, 2);
        }
        return ts_hash64(&v.u.f, sizeof v.u.f, 3);
    case J_TUPLE:
        j_enter(j);
        j_step(j, 1 + v.u.l->n);
        for (size_t k = 0; k < v.u.l->n; k++)
            h = h * 31 + hash_of(j, v.u.l->v[k]);
        j->depth--;
        return h;
    case J_NONE:
    case J_UNDEF:
    case J_RANGE:
        return (uint64_t)v.kind;
    default:
        return ts_hash64(&v.u.u, sizeof v.u.u, 4);
    }
}

j_dict *j_dict_new(j_run *j)
{
    return j_zalloc(j, sizeof(j_dict));
}

/* The place of a key, d->n if it isn't there. Each step of the way counts: keys made to collide run
 * into the limit, not into hours. */
static size_t find(j_run *j, const j_dict *d, j_value key, uint64_t hash)
{
    if (!d->slot) {
        for (size_t i = 0; i < d->n; i++)
            if (d->p[i].hash == hash && (j_same(d->p[i].key, key) || j_equal(j, d->p[i].key, key)))
                return i;
        return d->n;
    }
    for (size_t s = hash & (d->n_slots - 1);; s = (s + 1) & (d->n_slots - 1)) {
        j_step(j, 1);
        if (d->slot[s] == 0)
            return d->n;
        const j_pair *p = &d->p[d->slot[s] - 1];
        if (p->hash == hash && (j_same(p->key, key) || j_equal(j, p->key, key)))
            return d->slot[s] - 1;
    }
}

static void put_slot(j_dict *d, size_t i)
{
    size_t s = d->p[i].hash & (d->n_slots - 1);
    while (d->slot[s])
        s = (s + 1) & (d->n_slots - 1);
    d->slot[s] = (uint32_t)i + 1;
}

static void index_dict(j_run *j, j_dict *d)
{
    if (d->n_slots >= d->n * 2 || d->n < INDEXED)
        return;
    d->n_slots = d->n_slots ? d->n_slots * 2 : 4 * INDEXED;
    d->slot = j_array(j, d->n_slots, sizeof *d->slot);
    memset(d->slot, 0, d->n_slots * sizeof *d->slot);
    j_step(j, d->n);
    for (size_t i = 0; i < d->n; i++)
        put_slot(d, i);
}

void j_dict_set(j_run *j, j_dict *d, j_value key, j_value value)
{
    if (!j_hashable(j, key))
        j_fail(j, "%s can't be the key of a dict", j_type_name(key));
    uint64_t hash = hash_of(j, key);
    size_t i = find(j, d, key, hash);
    if (i < d->n) {
        d->p[i].value = value;
        return;
    }
    if (d->n >= UINT32_MAX - 1)
        j_fail(j, "a dict is too large");
    d->p = j_more(j, d->p, d->n, &d->cap, sizeof *d->p);
    d->p[d->n++] = (j_pair){key, value, hash};
    if (d->slot && d->n_slots >= d->n * 2)
        put_slot(d, d->n - 1);
    else
        index_dict(j, d);
}

const j_value *j_dict_get(j_run *j, const j_dict *d, j_value key)
{
    if (!j_hashable(j, key))
        j_fail(j, "%s can't be the key of a dict", j_type_name(key));
    size_t i = find(j, d, key, hash_of(j, key));
    return i < d->n ? &d->p[i].value : NULL;
}

const j_value *j_dict_find(j_run *j, const j_dict *d, const j_str *key)
{
    return j_dict_get(j, d, j_strv(key));
}

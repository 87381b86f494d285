/* exec.c - statements: output, scopes, loops. */
#include <string.h>

#include "jinja/impl.h"

/* --- scopes ------------------------------------------------------------------------- */

j_scope *j_scope_new(j_run *j, j_scope *up)
{
    j_scope *s = j_zalloc(j, sizeof *s);
    s->up = up;
    return s;
}

j_scope *j_scope_again(j_run *j, j_scope *used, j_scope *up)
{
    if (!used || used->kept)
        return j_scope_new(j, up);
    used->n = 0;
    return used;
}

void j_scope_set(j_run *j, j_scope *s, const j_str *name, j_value v)
{
    j_step(j, s->n / 16);
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].name == name) {
            s->v[i].value = v;
            return;
        }
    s->v = j_more(j, s->v, s->n, &s->cap, sizeof *s->v);
    s->v[s->n++] = (j_var){name, v};
}

void j_check_attr_name(j_run *j, const j_str *name)
{
    if (name->n > 0 && *name->s == '_')
        j_fail(j, "attributes of a namespace may not begin with '_', as '%.*s' does",
               J_SHOWN(name));
}

static void assign_attr(j_run *j, const j_node *target, j_value v)
{
    j_node of = {.op = N_NAME, .line = target->line, .name = target->name};
    j_value ns = j_eval(j, &of);
    if (ns.kind != J_NAMESPACE)
        j_fail(j, "'%.*s' is %s, not a namespace: nothing can be assigned to its attributes",
               J_SHOWN(target->name), j_type_name(ns));
    j_check_attr_name(j, target->value.u.s);
    j_dict_set(j, ns.u.d, target->value, v);
}

static void unpack(j_run *j, const j_nodes *targets, j_value v)
{
    j_iter it;
    j_value x;
    size_t n = 0;
    j_iter_init(j, &it, v);
    j_value *got = j_array(j, targets->n + 1, sizeof *got);
    while (n <= targets->n && j_next(j, &it, &x))
        got[n++] = x;
    if (n != targets->n)
        j_fail(j, "%s of %s%zu elements can't be unpacked into %zu names", j_type_name(v),
               n > targets->n ? "more than " : "", n > targets->n ? n - 1 : n, targets->n);
    for (size_t i = 0; i < n; i++)
        j_assign(j, targets->v[i], got[i]);
}

void j_assign(j_run *j, const j_node *target, j_value v)
{
    if (target->op == N_TUPLE)
        unpack(j, &target->kids, v);
    else if (target->op == N_NSREF)
        assign_attr(j, target, v);
    else
        j_scope_set(j, j->scope, target->name, v);
}

/* --- loops --------------------------------------------------------------------------- */

struct j_loop {
    j_value over;
    j_iter it;
    const j_node *node;
    j_scope *scope; /* around the loop */
    int64_t index0, depth0;
    j_value before, current, after; /* J_MISSING = none */
    int64_t length;                 /* -1 = not known yet */
    j_value changed;                /* what it was last asked about */
};

int64_t j_loop_index0(const j_loop *l)
{
    return l->index0;
}

static bool loop_next(j_run *j, j_loop *l)
{
    j_value v = l->after;
    l->after.kind = J_MISSING;
    if (v.kind == J_MISSING && !j_next(j, &l->it, &v))
        return false;
    l->index0++;
    l->before = l->current;
    l->current = v;
    return true;
}

static j_value peek(j_run *j, j_loop *l)
{
    if (l->after.kind == J_MISSING && !j_next(j, &l->it, &l->after))
        l->after.kind = J_MISSING;
    return l->after;
}

/* What has no length is gone through to the end to count it. */
size_t j_loop_length(j_run *j, j_loop *l)
{
    size_t n;
    if (l->length < 0 && l->over.kind != J_GEN && j_length(j, l->over, &n))
        l->length = (int64_t)n;
    if (l->length < 0) {
        j_list *rest = j_list_new(j, 0);
        size_t cap = 0;
        j_value x;
        while (j_next(j, &l->it, &x)) {
            rest->v = j_more(j, rest->v, rest->n, &cap, sizeof *rest->v);
            rest->v[rest->n++] = x;
        }
        j_iter_init(j, &l->it, j_listv(J_LIST, rest));
        l->length = (int64_t)rest->n + l->index0 + 1 + (l->after.kind != J_MISSING);
    }
    return (size_t)l->length;
}

/* The attributes that are values; cycle() and changed() are methods. */
j_value j_loop_attr(j_run *j, j_loop *l, const char *name)
{
    if (strcmp(name, "index0") == 0)
        return j_int(l->index0);
    if (strcmp(name, "index") == 0)
        return j_int(l->index0 + 1);
    if (strcmp(name, "first") == 0)
        return j_bool(l->index0 == 0);
    if (strcmp(name, "last") == 0)
        return j_bool(peek(j, l).kind == J_MISSING);
    if (strcmp(name, "length") == 0)
        return j_int((int64_t)j_loop_length(j, l));
    if (strcmp(name, "revindex") == 0)
        return j_int((int64_t)j_loop_length(j, l) - l->index0);
    if (strcmp(name, "revindex0") == 0)
        return j_int((int64_t)j_loop_length(j, l) - l->index0 - 1);
    if (strcmp(name, "previtem") == 0)
        return l->index0 == 0 ? j_undefined(j, "there is no previous item") : l->before;
    if (strcmp(name, "nextitem") == 0) {
        j_value v = peek(j, l);
        return v.kind == J_MISSING ? j_undefined(j, "there is no next item") : v;
    }
    if (strcmp(name, "depth") == 0)
        return j_int(l->depth0 + 1);
    if (strcmp(name, "depth0") == 0)
        return j_int(l->depth0);
    j_value self = {.kind = J_LOOP, .u.loop = l};
    const j_fn *fn = j_method(self, name, strlen(name));
    if (!fn)
        return (j_value){.kind = J_MISSING};
    j_bound *b = j_alloc(j, sizeof *b);
    *b = (j_bound){self, fn};
    return (j_value){.kind = J_METHOD, .u.bound = b};
}

j_value j_loop_changed(j_run *j, j_loop *l, const j_args *args)
{
    j_list now = {.v = args->v, .n = args->n};
    j_value v = j_listv(J_TUPLE, &now);
    if (l->changed.kind != J_MISSING && j_equal(j, l->changed, v))
        return j_bool(false);
    j_list *kept = j_alloc(j, sizeof *kept);
    *kept = now;
    l->changed = j_listv(J_TUPLE, kept);
    return j_bool(true);
}

/* for x in y if z: y without what doesn't pass, tried as the loop comes to it. */
static j_value filtered(j_run *j, const j_node *n, j_value over, j_scope *scope)
{
    j_gen *g = j_zalloc(j, sizeof *g);
    g->kind = G_FOR_IF;
    g->over = over;
    g->node = n;
    g->scope = scope;
    return (j_value){.kind = J_GEN, .u.g = g};
}

static j_flow run_loop(j_run *j, const j_node *n, j_value over, int64_t depth0, j_scope *scope)
{
    const j_value missing = {.kind = J_MISSING};
    j_scope *was = j->scope, *inner = NULL;
    j_loop *l = j_alloc(j, sizeof *l);
    bool ran = false;
    j->line = n->line;
    if (n->c)
        over = filtered(j, n, over, scope);
    *l = (j_loop){.over = over,
                  .node = n,
                  .scope = scope,
                  .index0 = -1,
                  .depth0 = depth0,
                  .before = missing,
                  .current = missing,
                  .after = missing,
                  .length = -1,
                  .changed = missing};
    j_iter_init(j, &l->it, over);
    while (loop_next(j, l)) {
        j->scope = inner = j_scope_again(j, inner, scope);
        j->line = n->line;
        j_assign(j, n->a, l->current);
        j_scope_set(j, j->scope, j->t->loop, (j_value){.kind = J_LOOP, .u.loop = l});
        j_flow flow = j_exec(j, &n->kids);
        if (flow == FLOW_BREAK)
            break;
        /* as in jinja2, only a body that came to its end counts against `else` */
        ran |= flow == FLOW_ON;
    }
    j_flow flow = FLOW_ON;
    if (!ran && n->other.n > 0) {
        j->scope = j_scope_new(j, scope);
        flow = j_exec(j, &n->other);
    }
    j->scope = was;
    return flow;
}

j_value j_loop_recurse(j_run *j, j_loop *l, const j_args *args)
{
    if (!l->node->flag)
        j_fail(j, "a loop must be marked 'recursive' to be called");
    if (args->n != 1 || args->n_kw)
        j_fail(j, "a loop is called with what to go through");
    j_buf b = {0}, *was = j->out;
    j->out = &b;
    run_loop(j, l->node, args->v[0], l->depth0 + 1, l->scope);
    j->out = was;
    return j_strv(j_buf_done(j, &b));
}

/* --- the rest ------------------------------------------------------------------------------ */

/* Captures what body writes; *flow says whether it ran to its end. */
static const j_str *capture(j_run *j, const j_nodes *body, j_flow *flow)
{
    j_buf b = {0}, *was = j->out;
    j->out = &b;
    *flow = j_exec(j, body);
    j->out = was;
    return j_buf_done(j, &b);
}

const j_str *j_capture(j_run *j, const j_nodes *body)
{
    j_flow flow;
    return capture(j, body, &flow);
}

static j_value macro_value(j_run *j, const j_node *n, bool named)
{
    j_macro *m = j_alloc(j, sizeof *m);
    *m = (j_macro){.node = n, .scope = j->scope};
    for (j_scope *s = j->scope; s && !s->kept; s = s->up)
        s->kept = true;
    if (named)
        m->name = j_cstr(j, "%.*s", (int)n->name->n, n->name->s);
    return (j_value){.kind = J_MACRO, .u.m = m};
}

static void call_block(j_run *j, const j_node *n)
{
    /* the call once more, with `caller` among its keywords */
    j_node call = *n->a;
    j_node body = {.op = N_CONST, .line = n->line, .value = macro_value(j, n->b, false)};
    call.kw = j_array(j, call.n_kw + 1, sizeof *call.kw);
    if (call.n_kw)
        memcpy(call.kw, n->a->kw, call.n_kw * sizeof *call.kw);
    call.kw[call.n_kw++] = (j_kwarg){j->t->caller, &body};
    j_value v = j_eval(j, &call);
    j_print(j, j->out, v);
}

/* set and filter blocks: the text of the body, through the filters if there are any. */
static j_flow block_text(j_run *j, const j_node *n, j_value *out)
{
    j_scope *was = j->scope;
    j_flow flow;
    j->scope = j_scope_new(j, was);
    const j_str *s = capture(j, &n->kids, &flow);
    if (flow == FLOW_ON) {
        j->block = s;
        *out = n->b ? j_eval(j, n->b) : j_strv(s);
    }
    j->scope = was;
    return flow;
}

static j_flow with(j_run *j, const j_node *n)
{
    j_scope *was = j->scope, *inner = j_scope_new(j, was);
    j_value *v = j_array(j, n->args.n + 1, sizeof *v);
    for (size_t i = 0; i < n->args.n; i++)
        v[i] = j_eval(j, n->args.v[i]);
    j->scope = inner;
    for (size_t i = 0; i < n->args.n; i++)
        j_assign(j, n->other.v[i], v[i]);
    j_flow flow = j_exec(j, &n->kids);
    j->scope = was;
    return flow;
}

static j_flow exec(j_run *j, const j_node *n)
{
    j_value v;
    j_flow flow;
    switch (n->op) {
    case N_DATA:
        j_buf_str(j, j->out, n->value.u.s);
        return FLOW_ON;
    case N_PRINT:
        for (size_t i = 0; i < n->kids.n; i++) {
            v = j_eval(j, n->kids.v[i]);
            j_print(j, j->out, v);
        }
        return FLOW_ON;
    case N_IF:
        return j_exec(j, j_truth(j, j_eval(j, n->a)) ? &n->kids : &n->other);
    case N_FOR:
        v = j_eval(j, n->b);
        if (!n->flag)
            return run_loop(j, n, v, 0, j->scope);
        {
            j_buf b = {0}, *was = j->out;
            j->out = &b;
            run_loop(j, n, v, 0, j->scope);
            j->out = was;
            j_buf_str(j, was, j_buf_done(j, &b));
        }
        return FLOW_ON;
    case N_SET:
        v = j_eval(j, n->b);
        j->line = n->line;
        j_assign(j, n->a, v);
        return FLOW_ON;
    case N_SET_BLOCK:
        if ((flow = block_text(j, n, &v)) == FLOW_ON)
            j_assign(j, n->a, v);
        return flow;
    case N_MACRO:
        j_scope_set(j, j->scope, n->name, macro_value(j, n, true));
        return FLOW_ON;
    case N_CALL_BLOCK:
        call_block(j, n);
        return FLOW_ON;
    case N_FILTER_BLOCK:
        if ((flow = block_text(j, n, &v)) == FLOW_ON)
            j_buf_str(j, j->out, j_want_str(j, v, "a filter block"));
        return flow;
    case N_WITH:
        return with(j, n);
    case N_GENERATION: {
        j_scope *was = j->scope;
        j->scope = j_scope_new(j, was);
        j_exec(j, &n->kids);
        j->scope = was;
        return FLOW_ON;
    }
    case N_BREAK:
        return FLOW_BREAK;
    default:
        return FLOW_CONTINUE;
    }
}

j_flow j_exec(j_run *j, const j_nodes *body)
{
    j_flow flow = FLOW_ON;
    j_enter(j);
    for (size_t i = 0; i < body->n && flow == FLOW_ON; i++) {
        j_step(j, 1);
        j->line = body->v[i]->line;
        flow = exec(j, body->v[i]);
    }
    j->depth--;
    return flow;
}

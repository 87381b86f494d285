/* parse.c - expressions. The grammar and its precedences are jinja2's, oddities included: "~" binds
 * tighter than "+", "**" to the left, and a sign tighter than "**". */
#include <string.h>

#include "jinja/parse.h"

/* --- tokens --------------------------------------------------------------------- */

j_tok *j_cur(j_parser *p)
{
    p->j->line = p->tok[p->at].line;
    return &p->tok[p->at];
}

j_tok *j_take(j_parser *p)
{
    j_tok *t = j_cur(p);
    if (t->kind != T_EOF)
        p->at++;
    return t;
}

static const j_tok *ahead(j_parser *p)
{
    return &p->tok[p->at + (p->at + 1 < p->n)];
}

static bool names(const j_tok *t, const char *name)
{
    return t->kind == T_NAME && j_str_eq(t->u.s, name);
}

bool j_is_name(j_parser *p, const char *name)
{
    return names(j_cur(p), name);
}

bool j_skip_name(j_parser *p, const char *name)
{
    if (!j_is_name(p, name))
        return false;
    p->at++;
    return true;
}

bool j_skip(j_parser *p, int kind)
{
    if (j_cur(p)->kind != kind)
        return false;
    p->at++;
    return true;
}

static const char *describe(j_parser *p, const j_tok *t)
{
    static const char *const words[] = {
        [T_EOF] = "the end of the template",
        [T_DATA] = "text",
        [T_VAR_BEGIN] = "'{{'",
        [T_VAR_END] = "'}}'",
        [T_STR] = "a string",
        [T_BLOCK_BEGIN] = "'{%'",
        [T_BLOCK_END] = "'%}'",
        [T_INT] = "an integer",
        [T_FLOAT] = "a float",
        [T_EQ] = "'=='",
        [T_NE] = "'!='",
        [T_LE] = "'<='",
        [T_GE] = "'>='",
        [T_FLOORDIV] = "'//'",
        [T_POW] = "'**'",
    };
    if (t->kind == T_NAME)
        return j_cstr(p->j, "'%.*s'", J_SHOWN(t->u.s));
    return t->kind <= T_POW ? words[t->kind] : j_cstr(p->j, "'%c'", t->kind);
}

void j_unexpected(j_parser *p, const char *wanted)
{
    const j_tok *t = j_cur(p);
    j_fail(p->j, "expected %s, found %s", wanted, describe(p, t));
}

j_tok *j_expect(j_parser *p, int kind, const char *what)
{
    if (j_cur(p)->kind != kind)
        j_unexpected(p, what);
    return j_take(p);
}

/* --- nodes ------------------------------------------------------------------------- */

j_node *j_node_new(j_parser *p, j_op op)
{
    j_node *n = j_zalloc(p->j, sizeof *n);
    n->op = op;
    n->line = p->tok[p->at].line;
    return n;
}

void j_nodes_add(j_parser *p, j_nodes *l, j_node *n)
{
    l->v = j_more(p->j, l->v, l->n, &l->cap, sizeof(j_node *));
    l->v[l->n++] = n;
}

static j_node *binary(j_parser *p, j_op op, j_node *a)
{
    j_node *n = j_node_new(p, op);
    n->a = a;
    return n;
}

static j_node *constant(j_parser *p, j_value v)
{
    j_node *n = j_node_new(p, N_CONST);
    n->value = v;
    return n;
}

/* --- unknown filters and tests -------------------------------------------------------- */

static void note_unknown(j_parser *p, j_node *n)
{
    n->flag = true;
    p->unknown = j_more(p->j, p->unknown, p->n_unknown, &p->cap_unknown, sizeof *p->unknown);
    p->unknown[p->n_unknown++] = (j_unknown){n, UNKNOWN_OPEN};
}

void j_settle(j_parser *p, size_t first, int state)
{
    for (size_t i = first; i < p->n_unknown; i++)
        if (p->unknown[i].state == UNKNOWN_OPEN)
            p->unknown[i].state = state;
}

/* --- primary ---------------------------------------------------------------------------- */

static void note_name(j_parser *p, const j_str *name)
{
    uint8_t is = name == p->caller    ? J_CATCH_CALLER
                 : name == p->varargs ? J_CATCH_VARARGS
                 : name == p->kwargs  ? J_CATCH_KWARGS
                                      : 0;
    for (j_in_macro *m = p->macro; is && m; m = m->up)
        m->catches |= is;
}

static j_node *name_or_word(j_parser *p, bool nsref)
{
    j_node *n = j_node_new(p, N_NAME);
    const j_str *name = j_take(p)->u.s;
    if (j_str_eq(name, "true") || j_str_eq(name, "True"))
        return constant(p, j_bool(true));
    if (j_str_eq(name, "false") || j_str_eq(name, "False"))
        return constant(p, j_bool(false));
    if (j_str_eq(name, "none") || j_str_eq(name, "None"))
        return constant(p, j_none());
    n->name = name;
    if (nsref && j_skip(p, '.')) {
        n->op = N_NSREF;
        n->value = j_strv(j_expect(p, T_NAME, "a name")->u.s);
        return n;
    }
    note_name(p, name);
    return n;
}

static j_node *strings(j_parser *p)
{
    j_node *n = j_node_new(p, N_CONST);
    const j_str *s = j_take(p)->u.s;
    if (j_cur(p)->kind == T_STR) {
        j_buf b = {0};
        j_buf_str(p->j, &b, s);
        while (j_cur(p)->kind == T_STR)
            j_buf_str(p->j, &b, j_take(p)->u.s);
        s = j_buf_done(p->j, &b);
    }
    n->value = j_strv(s);
    return n;
}

static j_node *list(j_parser *p)
{
    j_node *n = j_node_new(p, N_LIST);
    j_take(p);
    while (j_cur(p)->kind != ']') {
        if (n->kids.n > 0)
            j_expect(p, ',', "','");
        if (j_cur(p)->kind == ']')
            break;
        j_nodes_add(p, &n->kids, j_parse_expr(p, true));
    }
    j_expect(p, ']', "']'");
    return n;
}

static j_node *dict(j_parser *p)
{
    j_node *n = j_node_new(p, N_DICT);
    j_take(p);
    while (j_cur(p)->kind != '}') {
        if (n->kids.n > 0)
            j_expect(p, ',', "','");
        if (j_cur(p)->kind == '}')
            break;
        j_nodes_add(p, &n->kids, j_parse_expr(p, true));
        j_expect(p, ':', "':'");
        j_nodes_add(p, &n->kids, j_parse_expr(p, true));
    }
    j_expect(p, '}', "'}'");
    return n;
}

j_node *j_parse_primary(j_parser *p, bool nsref)
{
    const j_tok *t = j_cur(p);
    j_node *n;
    switch (t->kind) {
    case T_NAME:
        return name_or_word(p, nsref);
    case T_STR:
        return strings(p);
    case T_INT:
        n = constant(p, j_int(t->u.i));
        j_take(p);
        return n;
    case T_FLOAT:
        n = constant(p, j_float(t->u.f));
        j_take(p);
        return n;
    case '(':
        j_take(p);
        n = j_parse_tuple(p, (j_tuple_how){.parens = true});
        j_expect(p, ')', "')'");
        return n;
    case '[':
        return list(p);
    case '{':
        return dict(p);
    default:
        j_unexpected(p, "an expression");
    }
}

static bool tuple_ends(j_parser *p, const char *end)
{
    int k = j_cur(p)->kind;
    return k == T_VAR_END || k == T_BLOCK_END || k == ')' || (end && j_is_name(p, end));
}

j_node *j_parse_tuple(j_parser *p, j_tuple_how how)
{
    j_node *n = j_node_new(p, N_TUPLE);
    bool is_tuple = false;
    for (;;) {
        if (n->kids.n > 0)
            j_expect(p, ',', "','");
        if (tuple_ends(p, how.end))
            break;
        j_nodes_add(p, &n->kids,
                    how.simple ? j_parse_primary(p, how.nsref) : j_parse_expr(p, !how.no_cond));
        if (j_cur(p)->kind != ',')
            break;
        is_tuple = true;
    }
    if (is_tuple || (n->kids.n == 0 && how.parens))
        return n;
    if (n->kids.n == 0)
        j_unexpected(p, "an expression");
    return n->kids.v[0];
}

/* --- postfix: .name [item] (call) | filter, is test ------------------------------------------ */

/* A part of a subscript: an expression or a slice. */
static j_node *subscribed(j_parser *p)
{
    j_node *n = j_node_new(p, N_SLICE);
    if (j_cur(p)->kind != ':') {
        j_node *e = j_parse_expr(p, true);
        if (j_cur(p)->kind != ':')
            return e;
        n->b = e;
    }
    j_take(p);
    int k = j_cur(p)->kind;
    if (k != ':' && k != ']' && k != ',')
        n->c = j_parse_expr(p, true);
    if (j_skip(p, ':')) {
        k = j_cur(p)->kind;
        if (k != ']' && k != ',')
            n->star = j_parse_expr(p, true);
    }
    return n;
}

static j_node *subscript(j_parser *p, j_node *of)
{
    j_node *n = binary(p, N_ITEM, of);
    if (j_take(p)->kind == '.') {
        const j_tok *t = j_take(p);
        if (t->kind == T_NAME) {
            n->op = N_ATTR;
            n->name = t->u.s;
        } else if (t->kind == T_INT) {
            n->b = constant(p, j_int(t->u.i));
        } else {
            p->at -= t->kind != T_EOF;
            j_unexpected(p, "a name or an integer");
        }
        return n;
    }
    j_nodes parts = {0};
    while (j_cur(p)->kind != ']') {
        if (parts.n > 0)
            j_expect(p, ',', "','");
        j_nodes_add(p, &parts, subscribed(p));
    }
    j_expect(p, ']', "']'");
    if (parts.n == 1 && parts.v[0]->op == N_SLICE && parts.v[0]->a == NULL) {
        parts.v[0]->a = of;
        return parts.v[0];
    }
    for (size_t i = 0; i < parts.n; i++)
        if (parts.v[i]->op == N_SLICE && parts.v[i]->a == NULL)
            j_fail(p->j, "a slice can't be part of a tuple");
    n->b = parts.n == 1 ? parts.v[0] : binary(p, N_TUPLE, NULL);
    if (parts.n != 1)
        n->b->kids = parts;
    return n;
}

static void argument(j_parser *p, j_node *n, size_t *cap)
{
    if (j_skip(p, '*')) {
        if (n->star || n->star2)
            j_fail(p->j, "'*' can't stand here in a call");
        n->star = j_parse_expr(p, true);
    } else if (j_skip(p, T_POW)) {
        if (n->star2)
            j_fail(p->j, "'**' can't stand twice in a call");
        n->star2 = j_parse_expr(p, true);
    } else if (j_cur(p)->kind == T_NAME && ahead(p)->kind == '=') {
        if (n->star2)
            j_fail(p->j, "nothing may follow '**' in a call");
        const j_str *name = j_take(p)->u.s;
        j_take(p);
        n->kw = j_more(p->j, n->kw, n->n_kw, cap, sizeof *n->kw);
        j_step(p->j, n->n_kw / 16);
        for (size_t i = 0; i < n->n_kw; i++)
            if (n->kw[i].name == name)
                j_fail(p->j, "'%.*s' is given twice in a call", J_SHOWN(name));
        n->kw[n->n_kw].name = name;
        n->kw[n->n_kw].value = j_parse_expr(p, true);
        n->n_kw++;
    } else {
        if (n->star || n->star2 || n->n_kw > 0)
            j_fail(p->j, "an argument follows named ones in a call");
        j_nodes_add(p, &n->args, j_parse_expr(p, true));
    }
}

static void call_args(j_parser *p, j_node *n)
{
    size_t cap = 0;
    bool first = true;
    j_expect(p, '(', "'('");
    while (j_cur(p)->kind != ')') {
        if (!first)
            j_expect(p, ',', "','");
        if (j_cur(p)->kind == ')')
            break;
        argument(p, n, &cap);
        first = false;
    }
    j_expect(p, ')', "')'");
}

static j_node *call(j_parser *p, j_node *of)
{
    j_node *n = binary(p, N_CALL, of);
    call_args(p, n);
    return n;
}

static const j_str *dotted_name(j_parser *p)
{
    const j_str *name = j_expect(p, T_NAME, "a name")->u.s;
    while (j_skip(p, '.')) {
        j_buf b = {0};
        j_buf_str(p->j, &b, name);
        j_buf_puts(p->j, &b, ".");
        j_buf_str(p->j, &b, j_expect(p, T_NAME, "a name")->u.s);
        name = j_buf_done(p->j, &b);
    }
    return name;
}

j_node *j_parse_filter(j_parser *p, j_node *of, bool inline_start)
{
    while (inline_start || j_cur(p)->kind == '|') {
        if (!inline_start)
            j_take(p);
        inline_start = false;
        j_node *n = binary(p, N_FILTER, of);
        n->name = dotted_name(p);
        n->fn = j_filter(n->name->s, n->name->n);
        if (!n->fn)
            note_unknown(p, n);
        if (j_cur(p)->kind == '(')
            call_args(p, n);
        of = n;
    }
    return of;
}

static j_node *postfix(j_parser *p, j_node *n)
{
    for (;;) {
        int k = j_cur(p)->kind;
        if (k == '.' || k == '[')
            n = subscript(p, n);
        else if (k == '(')
            n = call(p, n);
        else
            return n;
    }
}

static bool begins_argument(j_parser *p)
{
    int k = j_cur(p)->kind;
    if (k == T_NAME)
        return !j_is_name(p, "else") && !j_is_name(p, "or") && !j_is_name(p, "and");
    return k == T_STR || k == T_INT || k == T_FLOAT || k == '[' || k == '{';
}

static j_node *test(j_parser *p, j_node *of)
{
    j_take(p); /* is */
    bool negated = j_skip_name(p, "not");
    j_node *n = binary(p, N_TEST, of);
    n->name = dotted_name(p);
    n->fn = j_test(n->name->s, n->name->n);
    if (!n->fn)
        note_unknown(p, n);
    if (j_cur(p)->kind == '(') {
        call_args(p, n);
    } else if (begins_argument(p)) {
        if (j_is_name(p, "is"))
            j_fail(p->j, "tests can't be chained with 'is'");
        j_nodes_add(p, &n->args, postfix(p, j_parse_primary(p, false)));
    }
    return negated ? binary(p, N_NOT, n) : n;
}

static j_node *filters(j_parser *p, j_node *n)
{
    for (;;) {
        if (j_cur(p)->kind == '|')
            n = j_parse_filter(p, n, false);
        else if (j_is_name(p, "is"))
            n = test(p, n);
        else if (j_cur(p)->kind == '(')
            n = call(p, n);
        else
            return n;
    }
}

/* --- operators ------------------------------------------------------------------------------ */

static j_node *unary(j_parser *p, bool with_filter)
{
    int k = j_cur(p)->kind;
    j_node *n;
    j_enter(p->j);
    if (k == '-' || k == '+') {
        n = j_node_new(p, k == '-' ? N_NEG : N_POS);
        j_take(p);
        n->a = unary(p, false);
    } else {
        n = j_parse_primary(p, false);
    }
    n = postfix(p, n);
    if (with_filter)
        n = filters(p, n);
    p->j->depth--;
    return n;
}

static j_node *power(j_parser *p)
{
    j_node *n = unary(p, true);
    while (j_cur(p)->kind == T_POW) {
        n = binary(p, N_POW, n);
        j_take(p);
        n->b = unary(p, true);
    }
    return n;
}

static j_node *product(j_parser *p)
{
    j_node *n = power(p);
    for (;;) {
        int k = j_cur(p)->kind;
        if (k != '*' && k != '/' && k != T_FLOORDIV && k != '%')
            return n;
        n = binary(p, k == '*' ? N_MUL : k == '/' ? N_DIV : k == '%' ? N_MOD : N_FLOORDIV, n);
        j_take(p);
        n->b = power(p);
    }
}

static j_node *concat(j_parser *p)
{
    j_node *n = product(p);
    if (j_cur(p)->kind != '~')
        return n;
    j_node *all = j_node_new(p, N_CONCAT);
    j_nodes_add(p, &all->kids, n);
    while (j_skip(p, '~'))
        j_nodes_add(p, &all->kids, product(p));
    return all;
}

static j_node *sum(j_parser *p)
{
    j_node *n = concat(p);
    for (;;) {
        int k = j_cur(p)->kind;
        if (k != '+' && k != '-')
            return n;
        n = binary(p, k == '+' ? N_ADD : N_SUB, n);
        j_take(p);
        n->b = concat(p);
    }
}

static bool comparison(j_parser *p, j_cmp *cmp)
{
    switch (j_cur(p)->kind) {
    case T_EQ:
        *cmp = C_EQ;
        break;
    case T_NE:
        *cmp = C_NE;
        break;
    case '<':
        *cmp = C_LT;
        break;
    case T_LE:
        *cmp = C_LE;
        break;
    case '>':
        *cmp = C_GT;
        break;
    case T_GE:
        *cmp = C_GE;
        break;
    default:
        if (j_skip_name(p, "in")) {
            *cmp = C_IN;
            return true;
        }
        if (!j_is_name(p, "not") || !names(ahead(p), "in"))
            return false;
        *cmp = C_NOT_IN;
        j_take(p);
    }
    j_take(p);
    return true;
}

static j_node *compare(j_parser *p)
{
    j_node *n = sum(p), *all = NULL;
    j_cmp cmp;
    while (comparison(p, &cmp)) {
        if (!all)
            all = binary(p, N_COMPARE, n);
        j_node *operand = sum(p);
        operand->cmp = (uint8_t)cmp;
        j_nodes_add(p, &all->kids, operand);
    }
    return all ? all : n;
}

static j_node *not_(j_parser *p)
{
    if (!j_is_name(p, "not"))
        return compare(p);
    j_node *n = j_node_new(p, N_NOT);
    j_take(p);
    j_enter(p->j);
    n->a = not_(p);
    p->j->depth--;
    return n;
}

static j_node *and_(j_parser *p)
{
    j_node *n = not_(p);
    while (j_is_name(p, "and")) {
        n = binary(p, N_AND, n);
        j_take(p);
        n->b = not_(p);
    }
    return n;
}

static j_node *or_(j_parser *p)
{
    j_node *n = and_(p);
    while (j_is_name(p, "or")) {
        n = binary(p, N_OR, n);
        j_take(p);
        n->b = and_(p);
    }
    return n;
}

static j_node *conditional(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = or_(p);
    while (j_is_name(p, "if")) {
        n = binary(p, N_COND, n);
        j_take(p);
        n->b = or_(p);
        if (j_skip_name(p, "else")) {
            j_enter(p->j);
            n->c = conditional(p);
            p->j->depth--;
        }
        j_settle(p, first, UNKNOWN_SOFT);
    }
    return n;
}

j_node *j_parse_expr(j_parser *p, bool cond)
{
    j_enter(p->j);
    j_node *n = cond ? conditional(p) : or_(p);
    p->j->depth--;
    return n;
}

/* parse_stmt.c - statements. */
#include <string.h>

#include "jinja/parse.h"

/* Reads up to a tag that begins with one of `ends` (separated by spaces), which is left the current
 * token; NULL: to the end. */
static void statements(j_parser *p, j_nodes *body, const char *ends);

static bool is_one_of(const j_str *word, const char *words)
{
    for (const char *w = words; *w;) {
        size_t n = strcspn(w, " ");
        if (n == word->n && memcmp(w, word->s, n) == 0)
            return true;
        w += n + (w[n] == ' ');
    }
    return false;
}

/* The body of a statement whose tag is about to end. */
static void block(j_parser *p, j_nodes *body, const char *ends)
{
    j_skip(p, ':');
    j_expect(p, T_BLOCK_END, "'%}'");
    statements(p, body, ends);
    if (j_cur(p)->kind == T_EOF)
        j_fail(p->j, "the template ends where '%.*s' is missing", (int)strcspn(ends, " "), ends);
}

static void whole_block(j_parser *p, j_nodes *body, const char *end)
{
    block(p, body, end);
    j_take(p);
}

/* --- targets ------------------------------------------------------------------------- */

static void check_target(j_parser *p, const j_node *n)
{
    if (n->op == N_TUPLE) {
        for (size_t i = 0; i < n->kids.n; i++)
            check_target(p, n->kids.v[i]);
    } else if (n->op != N_NAME && n->op != N_NSREF) {
        j_fail(p->j, "this can't be assigned to");
    }
}

static j_node *target(j_parser *p, const char *end, bool nsref)
{
    j_node *n = j_parse_tuple(p, (j_tuple_how){.simple = true, .end = end, .nsref = nsref});
    check_target(p, n);
    return n;
}

static const j_str *name_only(j_parser *p)
{
    return j_expect(p, T_NAME, "a name")->u.s;
}

/* --- statements ------------------------------------------------------------------------ */

static j_node *set(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_SET);
    n->a = target(p, NULL, true);
    if (j_skip(p, '=')) {
        n->b = j_parse_tuple(p, (j_tuple_how){0});
        return n;
    }
    n->op = N_SET_BLOCK;
    n->b = j_parse_filter(p, NULL, false);
    whole_block(p, &n->kids, "endset");
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static bool assigns(const j_node *n, const j_str *name)
{
    bool any = n->op == N_NAME && n->name == name;
    for (size_t i = 0; n->op == N_TUPLE && i < n->kids.n; i++)
        any |= assigns(n->kids.v[i], name);
    return any;
}

static j_node *for_(j_parser *p)
{
    j_node *n = j_node_new(p, N_FOR);
    n->a = target(p, "in", false);
    if (assigns(n->a, p->loop))
        j_fail(p->j, "'loop' can't be the variable of a loop");
    if (!j_skip_name(p, "in"))
        j_unexpected(p, "'in'");
    n->b = j_parse_tuple(p, (j_tuple_how){.no_cond = true, .end = "recursive"});
    size_t first = p->n_unknown;
    if (j_skip_name(p, "if"))
        n->c = j_parse_expr(p, true);
    n->flag = j_skip_name(p, "recursive");
    p->loops++;
    block(p, &n->kids, "endfor else");
    p->loops--;
    if (j_str_eq(j_take(p)->u.s, "else"))
        whole_block(p, &n->other, "endfor");
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static j_node *if_(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *result = j_node_new(p, N_IF), *n = result;
    for (;;) {
        n->a = j_parse_tuple(p, (j_tuple_how){.no_cond = true});
        block(p, &n->kids, "elif else endif");
        const j_tok *t = j_take(p);
        if (j_str_eq(t->u.s, "elif")) {
            j_node *next = j_node_new(p, N_IF);
            j_nodes_add(p, &n->other, next);
            n = next;
            continue;
        }
        if (j_str_eq(t->u.s, "else"))
            whole_block(p, &n->other, "endif");
        break;
    }
    j_settle(p, first, UNKNOWN_SOFT);
    return result;
}

/* (a, b=1): names into args, defaults into kw. */
static void signature(j_parser *p, j_node *n)
{
    size_t cap = 0;
    j_expect(p, '(', "'('");
    while (j_cur(p)->kind != ')') {
        if (n->args.n > 0)
            j_expect(p, ',', "','");
        j_node *arg = j_node_new(p, N_NAME);
        arg->name = name_only(p);
        for (size_t i = 0; i < n->args.n; i++)
            if (n->args.v[i]->name == arg->name)
                j_fail(p->j, "a macro has two parameters of one name");
        if (j_skip(p, '=')) {
            n->kw = j_more(p->j, n->kw, n->n_kw, &cap, sizeof *n->kw);
            n->kw[n->n_kw].name = arg->name;
            n->kw[n->n_kw].value = j_parse_expr(p, true);
            n->n_kw++;
        } else if (n->n_kw > 0) {
            j_fail(p->j, "a parameter without a default follows one that has one");
        }
        j_nodes_add(p, &n->args, arg);
    }
    j_expect(p, ')', "')'");
}

static void macro_body(j_parser *p, j_node *n, const char *end)
{
    j_in_macro m = {.up = p->macro};
    int loops = p->loops;
    p->macro = &m;
    p->loops = 0;
    whole_block(p, &n->kids, end);
    p->macro = m.up;
    p->loops = loops;
    n->catches = m.catches;
}

static j_node *macro(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_MACRO);
    n->name = name_only(p);
    signature(p, n);
    macro_body(p, n, "endmacro");
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static j_node *call_block(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_CALL_BLOCK), *body = j_node_new(p, N_MACRO);
    if (j_cur(p)->kind == '(')
        signature(p, body);
    n->a = j_parse_expr(p, true);
    if (n->a->op != N_CALL)
        j_fail(p->j, "'call' wants the call of a macro");
    macro_body(p, body, "endcall");
    n->b = body;
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static j_node *filter_block(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_FILTER_BLOCK);
    n->b = j_parse_filter(p, NULL, true);
    whole_block(p, &n->kids, "endfilter");
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static j_node *with(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_WITH);
    while (j_cur(p)->kind != T_BLOCK_END) {
        if (n->other.n > 0)
            j_expect(p, ',', "','");
        j_nodes_add(p, &n->other, target(p, NULL, false));
        j_expect(p, '=', "'='");
        j_nodes_add(p, &n->args, j_parse_expr(p, true));
    }
    whole_block(p, &n->kids, "endwith");
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

/* transformers marks with it what an assistant wrote: a scope of its own, its text as it is. */
static j_node *generation(j_parser *p)
{
    size_t first = p->n_unknown;
    j_node *n = j_node_new(p, N_GENERATION);
    int loops = p->loops;
    p->loops = 0;
    whole_block(p, &n->kids, "endgeneration");
    p->loops = loops;
    j_settle(p, first, UNKNOWN_HARD);
    return n;
}

static j_node *print(j_parser *p)
{
    j_node *n = j_node_new(p, N_PRINT);
    while (j_cur(p)->kind != T_BLOCK_END) {
        if (n->kids.n > 0)
            j_expect(p, ',', "','");
        j_nodes_add(p, &n->kids, j_parse_expr(p, true));
    }
    return n;
}

static j_node *jump(j_parser *p, j_op op)
{
    if (p->loops == 0)
        j_fail(p->j, "'%s' stands outside of a loop", op == N_BREAK ? "break" : "continue");
    return j_node_new(p, op);
}

static j_node *statement(j_parser *p)
{
    const j_str *word = j_expect(p, T_NAME, "the name of a tag")->u.s;
    static const struct {
        const char *word;
        j_node *(*parse)(j_parser *p);
    } known[] = {{"if", if_},          {"for", for_},
                 {"set", set},         {"macro", macro},
                 {"call", call_block}, {"filter", filter_block},
                 {"with", with},       {"generation", generation},
                 {"print", print}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (j_str_eq(word, known[i].word))
            return known[i].parse(p);
    if (j_str_eq(word, "break"))
        return jump(p, N_BREAK);
    if (j_str_eq(word, "continue"))
        return jump(p, N_CONTINUE);
    if (is_one_of(word, "block extends include import from autoescape"))
        j_fail(p->j, "'%.*s' isn't supported", (int)word->n, word->s);
    j_fail(p->j, "there is no tag '%.*s' here", J_SHOWN(word));
}

/* True at the end of the body. */
static bool tag(j_parser *p, j_nodes *body, const char *ends)
{
    j_take(p);
    const j_tok *t = j_cur(p);
    if (ends && t->kind == T_NAME && is_one_of(t->u.s, ends))
        return true;
    j_enter(p->j);
    j_nodes_add(p, body, statement(p));
    p->j->depth--;
    j_expect(p, T_BLOCK_END, "'%}'");
    return false;
}

static void statements(j_parser *p, j_nodes *body, const char *ends)
{
    for (;;) {
        const j_tok *t = j_cur(p);
        j_node *n;
        switch (t->kind) {
        case T_DATA:
            n = j_node_new(p, N_DATA);
            n->value = j_strv(j_take(p)->u.s);
            j_nodes_add(p, body, n);
            break;
        case T_VAR_BEGIN:
            n = j_node_new(p, N_PRINT);
            j_take(p);
            j_nodes_add(p, &n->kids, j_parse_tuple(p, (j_tuple_how){0}));
            j_expect(p, T_VAR_END, "'}}'");
            j_nodes_add(p, body, n);
            break;
        case T_BLOCK_BEGIN:
            if (tag(p, body, ends))
                return;
            break;
        default:
            return; /* the end */
        }
    }
}

void j_parse_template(j_parser *p, j_nodes *body)
{
    statements(p, body, NULL);
    j_settle(p, 0, UNKNOWN_HARD);
    for (size_t i = 0; i < p->n_unknown; i++)
        if (p->unknown[i].state == UNKNOWN_HARD) {
            const j_node *n = p->unknown[i].node;
            p->j->line = n->line;
            j_fail(p->j, "there is no %s '%.*s'", n->op == N_FILTER ? "filter" : "test",
                   J_SHOWN(n->name));
        }
}

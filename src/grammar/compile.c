/* compile.c - from the tree of a grammar to its networks (gram.h), and what is checked of them.
 *
 * A network is made from its end: emit(tree, next) gives the node that goes through the tree and
 * then on at `next`. Repetitions are written out, except that what is repeated is a rule of its own
 * where it is more than a few nodes. */
#include "grammar/gram_impl.h"

#include <stdio.h>
#include <string.h>

typedef struct compiler {
    gbnf *p;
    ts_gram *g;
    int32_t *entries; /* stack: of the alternatives that are being emitted */
    size_t n_entries, cap_entries;
} compiler;

/* --- networks ------------------------------------------------------------------- */

static ts_status add_node(compiler *c, size_t at, int32_t kind, int32_t a, int32_t next,
                          int32_t *id)
{
    ts_gram *g = c->g;
    if (g->n_nodes == TS_GRAM_MAX_NODES)
        return gb_fail(c->p, at,
                       "the grammar is too large: with its repetitions written out it "
                       "has more than %d elements",
                       TS_GRAM_MAX_NODES);
    if (!TS_ROOM(g->nodes, g->n_nodes, g->cap_nodes))
        return gb_no_memory(c->p);
    *id = (int32_t)g->n_nodes;
    g->nodes[g->n_nodes++] = (ts_gram_node){kind, a, next};
    return TS_OK;
}

/* Makes node id a SPLIT between entries[from .. n_entries), which it takes off the stack. */
static ts_status set_split(compiler *c, int32_t id, size_t from)
{
    ts_gram *g = c->g;
    g->nodes[id] =
        (ts_gram_node){TS_GRAM_SPLIT, (int32_t)g->n_alts, (int32_t)(c->n_entries - from)};
    for (size_t i = from; i < c->n_entries; i++) {
        if (!TS_ROOM(g->alts, g->n_alts, g->cap_alts))
            return gb_no_memory(c->p);
        g->alts[g->n_alts++] = c->entries[i];
    }
    c->n_entries = from;
    return TS_OK;
}

static ts_status push_entry(compiler *c, int32_t id)
{
    if (!TS_ROOM(c->entries, c->n_entries, c->cap_entries))
        return gb_no_memory(c->p);
    c->entries[c->n_entries++] = id;
    return TS_OK;
}

static ts_status split(compiler *c, size_t at, int32_t a, int32_t b, int32_t *id)
{
    size_t from = c->n_entries;
    ts_status st = add_node(c, at, TS_GRAM_SPLIT, 0, 0, id);
    if (!st)
        st = push_entry(c, a);
    if (!st)
        st = push_entry(c, b);
    return st ? st : set_split(c, *id, from);
}

static bool is_small(const gbnf *p, int32_t tree)
{
    const gb_node *t = &p->nodes[tree];
    int n = 0;
    if (t->kind != GB_SEQ && t->kind != GB_ALT)
        return t->kind != GB_REP;
    for (int32_t i = t->child; i >= 0; i = p->nodes[i].next)
        if (++n > 3 || p->nodes[i].kind > GB_RULE)
            return false;
    return true;
}

static ts_status emit(compiler *c, int32_t tree, int32_t next, int32_t *entry);

/* A rule without a name. */
static ts_status add_rule(compiler *c, int32_t tree, int32_t *id)
{
    ts_gram *g = c->g;
    if (g->n_rules == TS_GRAM_MAX_RULES)
        return gb_fail(c->p, c->p->nodes[tree].at, "the grammar has more than %d rules",
                       TS_GRAM_MAX_RULES);
    if (!TS_ROOM(g->rules, g->n_rules, g->cap_rules))
        return gb_no_memory(c->p);
    *id = (int32_t)g->n_rules;
    g->rules[g->n_rules++] = (ts_gram_rule){0};
    int32_t entry;
    ts_status st = emit(c, tree, 0, &entry);
    if (!st)
        g->rules[*id].entry = entry;
    return st;
}

/* x{m,}: x repeated m - 1 times, then a loop; x{m,n}: m times, then n - m times or out. */
static ts_status emit_rep(compiler *c, const gb_node *t, int32_t next, int32_t *entry)
{
    int32_t least = t->a, most = t->most, child = t->child, rule = -1;
    ts_status st = TS_OK;
    size_t at = t->at;
    if ((most < 0 ? least : most) > 1 && !is_small(c->p, child))
        st = add_rule(c, child, &rule);
#define ONE_MORE(then)                                                                             \
    (rule >= 0 ? add_node(c, at, TS_GRAM_CALL, rule, then, entry) : emit(c, child, then, entry))
    *entry = next;
    if (!st && most < 0) {
        int32_t loop;
        size_t from = c->n_entries;
        st = add_node(c, at, TS_GRAM_SPLIT, 0, 0, &loop);
        if (!st)
            st = ONE_MORE(loop);
        if (!st)
            st = push_entry(c, *entry);
        if (!st)
            st = push_entry(c, next);
        if (!st)
            st = set_split(c, loop, from);
        if (least == 0)
            *entry = loop;
        else
            least--;
    }
    for (int32_t i = least; i < most && !st; i++) {
        st = ONE_MORE(*entry);
        if (!st)
            st = split(c, at, *entry, next, entry);
    }
    for (int32_t i = 0; i < least && !st; i++)
        st = ONE_MORE(*entry);
#undef ONE_MORE
    return st;
}

static ts_status emit(compiler *c, int32_t tree, int32_t next, int32_t *entry)
{
    const gb_node *t = &c->p->nodes[tree];
    size_t from = c->n_entries;
    ts_status st = TS_OK;
    switch (t->kind) {
    case GB_EMPTY:
        *entry = next;
        return TS_OK;
    case GB_CLASS:
        return add_node(c, t->at, TS_GRAM_CHAR, t->a, next, entry);
    case GB_RULE:
        return add_node(c, t->at, TS_GRAM_CALL, t->a, next, entry);
    case GB_SEQ:
        *entry = next;
        for (int32_t i = t->child; i >= 0 && !st; i = c->p->nodes[i].next)
            st = emit(c, i, *entry, entry);
        return st;
    case GB_ALT:
        for (int32_t i = t->child; i >= 0 && !st; i = c->p->nodes[i].next) {
            st = emit(c, i, next, entry);
            if (!st)
                st = push_entry(c, *entry);
        }
        if (!st)
            st = add_node(c, t->at, TS_GRAM_SPLIT, 0, 0, entry);
        return st ? st : set_split(c, *entry, from);
    case GB_REP:
        return emit_rep(c, t, next, entry);
    }
    return st;
}

static ts_status emit_all(compiler *c)
{
    ts_gram *g = c->g;
    int32_t end;
    ts_status st = add_node(c, 0, TS_GRAM_END, 0, 0, &end);
    for (size_t i = 0; i < c->p->n_rules && !st; i++) {
        if (!TS_ROOM(g->rules, g->n_rules, g->cap_rules))
            return gb_no_memory(c->p);
        g->rules[g->n_rules++] = (ts_gram_rule){0};
    }
    for (size_t i = 0; i < c->p->n_rules && !st; i++) {
        int32_t entry;
        st = emit(c, c->p->rules[i].body, end, &entry);
        if (!st)
            g->rules[i].entry = entry;
    }
    return st;
}

/* --- what begins with what ---------------------------------------------------------- */

enum { UNSEEN, OPEN, DONE };

/* Depth first over the rules that begin with each other. A rule's nodes that can be reached without
 * consuming anything wait on one stack, above those of the rules that wait for it. */
typedef struct walk {
    uint8_t *seen;  /* [n_nodes] */
    uint8_t *state; /* [n_rules] */
    int32_t *todo;  /* stack of nodes */
    size_t n_todo, cap_todo;
    struct walk_rule {
        int32_t rule;
        size_t from; /* of todo */
    } * open;
    size_t n_open, cap_open;
    int32_t n_done;
} walk;

static void free_walk(walk *w)
{
    free(w->seen);
    free(w->state);
    free(w->todo);
    free(w->open);
}

static bool walk_to(walk *w, int32_t node)
{
    if (node != 0 && w->seen[node])
        return true;
    w->seen[node] = 1;
    if (!TS_ROOM(w->todo, w->n_todo, w->cap_todo))
        return false;
    w->todo[w->n_todo++] = node;
    return true;
}

static bool walk_into(walk *w, const ts_gram *g, int32_t rule)
{
    if (!TS_ROOM(w->open, w->n_open, w->cap_open))
        return false;
    w->open[w->n_open].rule = rule;
    w->open[w->n_open++].from = w->n_todo;
    w->state[rule] = OPEN;
    return walk_to(w, g->rules[rule].entry);
}

static ts_status left_recursion(gbnf *p, const walk *w, int32_t rule)
{
    char by[90] = "";
    /* the first and the last named rule of the circle: groups alone make none */
    const gb_rule *r = NULL, *s = NULL;
    for (size_t i = w->n_open; i-- > 0;) {
        int32_t id = w->open[i].rule;
        if ((size_t)id < p->n_rules) {
            r = &p->rules[id];
            s = s ? s : r;
        }
        if (id == rule && r)
            break;
    }
    if (s != r)
        snprintf(by, sizeof by, ", by way of '%.*s'", (int)(s->n_name < 60 ? s->n_name : 60),
                 p->text + s->name);
    return gb_fail(p, r->name, "the rule '%.*s' begins with itself (left recursion)%s",
                   (int)(r->n_name < 60 ? r->n_name : 60), p->text + r->name, by);
}

/* One node from the top of the stack. */
static ts_status walk_node(gbnf *p, walk *w)
{
    ts_gram *g = p->g;
    int32_t id = w->todo[--w->n_todo];
    const ts_gram_node *n = &g->nodes[id];
    bool ok = true;
    if (n->kind == TS_GRAM_END) {
        g->rules[w->open[w->n_open - 1].rule].nullable = true;
    } else if (n->kind == TS_GRAM_SPLIT) {
        for (int32_t i = 0; i < n->next; i++)
            ok = ok && walk_to(w, g->alts[n->a + i]);
    } else if (n->kind == TS_GRAM_CALL) {
        if (w->state[n->a] == OPEN)
            return left_recursion(p, w, n->a);
        if (w->state[n->a] == UNSEEN) { /* this node again when it is known whether it's nullable */
            w->todo[w->n_todo++] = id;
            ok = walk_into(w, g, n->a);
        } else if (g->rules[n->a].nullable) {
            ok = walk_to(w, n->next);
        }
    }
    return ok ? TS_OK : gb_no_memory(p);
}

/* Finds left recursion, which rules are nullable, and the ranks. */
static ts_status walk_rules(gbnf *p)
{
    ts_gram *g = p->g;
    walk w = {.seen = ts_calloc(g->n_nodes, 1), .state = ts_calloc(g->n_rules, 1)};
    g->by_rank = ts_calloc(g->n_rules, sizeof *g->by_rank);
    ts_status st = w.seen && w.state && g->by_rank ? TS_OK : gb_no_memory(p);
    for (size_t r = 0; r < g->n_rules && !st; r++) {
        if (w.state[r] != UNSEEN)
            continue;
        if (!walk_into(&w, g, (int32_t)r))
            st = gb_no_memory(p);
        while (w.n_open > 0 && !st) {
            struct walk_rule *top = &w.open[w.n_open - 1];
            if (w.n_todo > top->from) {
                st = walk_node(p, &w);
                continue;
            }
            int32_t rank = (int32_t)g->n_rules - 1 - w.n_done++;
            g->rules[top->rule].rank = rank;
            g->by_rank[rank] = top->rule;
            w.state[top->rule] = DONE;
            w.n_open--;
        }
    }
    free_walk(&w);
    return st;
}

/* --- what can end ---------------------------------------------------------------------- */

/* Backwards from END: who goes on at a node, and who calls a rule. */
typedef struct ends {
    int32_t *first, *caller; /* [n_nodes], [n_rules]: edges; -1: none */
    int32_t *by_entry;       /* [n_nodes] a rule that begins there    */
    int32_t *next_rule;      /* [n_rules] another one that does       */
    struct edge {
        int32_t from, next;
    } * edges;
    size_t n_edges;
    uint8_t *can;      /* [n_nodes] */
    uint8_t *rule_can; /* [n_rules] */
    int32_t *todo;     /* [n_nodes] */
    size_t n_todo;
} ends;

static void add_edge(ends *e, int32_t *list, int32_t from)
{
    e->edges[e->n_edges] = (struct edge){from, *list};
    *list = (int32_t)e->n_edges++;
}

static void can_end(ends *e, int32_t node)
{
    if (e->can[node])
        return;
    e->can[node] = 1;
    e->todo[e->n_todo++] = node;
}

static void find_ends(ends *e, const ts_gram *g)
{
    can_end(e, 0);
    while (e->n_todo > 0) {
        int32_t node = e->todo[--e->n_todo];
        for (int32_t i = e->first[node]; i >= 0; i = e->edges[i].next) {
            const ts_gram_node *n = &g->nodes[e->edges[i].from];
            if (n->kind != TS_GRAM_CALL || e->rule_can[n->a])
                can_end(e, e->edges[i].from);
        }
        for (int32_t r = e->by_entry[node]; r >= 0; r = e->next_rule[r]) {
            e->rule_can[r] = 1;
            for (int32_t i = e->caller[r]; i >= 0; i = e->edges[i].next)
                if (e->can[g->nodes[e->edges[i].from].next])
                    can_end(e, e->edges[i].from);
        }
    }
}

/* Takes out of every SPLIT what can't end. */
static void prune(const ends *e, ts_gram *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        ts_gram_node *n = &g->nodes[i];
        int32_t m = 0;
        if (n->kind != TS_GRAM_SPLIT)
            continue;
        for (int32_t k = 0; k < n->next; k++)
            if (e->can[g->alts[n->a + k]])
                g->alts[n->a + m++] = g->alts[n->a + k];
        n->next = m;
    }
}

static void link_ends(ends *e, const ts_gram *g)
{
    memset(e->first, 0xff, g->n_nodes * sizeof *e->first);
    memset(e->by_entry, 0xff, g->n_nodes * sizeof *e->by_entry);
    memset(e->caller, 0xff, g->n_rules * sizeof *e->caller);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const ts_gram_node *n = &g->nodes[i];
        if (n->kind == TS_GRAM_SPLIT)
            for (int32_t k = 0; k < n->next; k++)
                add_edge(e, &e->first[g->alts[n->a + k]], (int32_t)i);
        else if (n->kind != TS_GRAM_END)
            add_edge(e, &e->first[n->next], (int32_t)i);
        if (n->kind == TS_GRAM_CALL)
            add_edge(e, &e->caller[n->a], (int32_t)i);
    }
    for (size_t r = 0; r < g->n_rules; r++) {
        e->next_rule[r] = e->by_entry[g->rules[r].entry];
        e->by_entry[g->rules[r].entry] = (int32_t)r;
    }
}

static ts_status check_ends(gbnf *p)
{
    ts_gram *g = p->g;
    ends e = {.first = ts_calloc(g->n_nodes, sizeof *e.first),
              .by_entry = ts_calloc(g->n_nodes, sizeof *e.by_entry),
              .caller = ts_calloc(g->n_rules, sizeof *e.caller),
              .next_rule = ts_calloc(g->n_rules, sizeof *e.next_rule),
              .edges = ts_calloc(2 * g->n_nodes + g->n_alts, sizeof *e.edges),
              .can = ts_calloc(g->n_nodes, 1),
              .rule_can = ts_calloc(g->n_rules, 1),
              .todo = ts_calloc(g->n_nodes, sizeof *e.todo)};
    ts_status st = TS_OK;
    if (!e.first || !e.by_entry || !e.caller || !e.next_rule || !e.edges || !e.can || !e.rule_can ||
        !e.todo) {
        st = gb_no_memory(p);
    } else {
        link_ends(&e, g);
        find_ends(&e, g);
        if (!e.rule_can[g->root])
            st = ts_fail(p->err, TS_UNSUPPORTED,
                         "a text of this grammar can never end: every way through the rule 'root' "
                         "comes back to where it was");
        prune(&e, g);
    }
    free(e.first);
    free(e.by_entry);
    free(e.caller);
    free(e.next_rule);
    free(e.edges);
    free(e.can);
    free(e.rule_can);
    free(e.todo);
    return st;
}

/* --- classes of characters and of bytes ---------------------------------------------------- */

ts_gram_cover ts_gram_covers(const ts_gram *g, int32_t cls, uint32_t lo, uint32_t hi)
{
    const ts_gram_class *c = &g->classes[cls];
    const ts_gram_range *r = g->ranges + c->first;
    size_t a = 0, b = c->n; /* the first range that ends at lo or later */
    while (a < b) {
        size_t mid = (a + b) / 2;
        if (r[mid].hi < lo)
            a = mid + 1;
        else
            b = mid;
    }
    if (a == c->n || r[a].lo > hi)
        return TS_COVER_NONE;
    return r[a].lo <= lo && r[a].hi >= hi ? TS_COVER_ALL : TS_COVER_SOME;
}

int ts_gram_lead(uint8_t b, uint8_t *lo, uint8_t *hi)
{
    *lo = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *hi = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    return b < 0xc2 || b > 0xf4 ? 0 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
}

/* The characters that begin with a lead byte. */
static int lead_span(uint8_t b, uint32_t *first, uint32_t *last)
{
    static const uint8_t payload[4] = {0, 0x1f, 0x0f, 0x07};
    uint8_t lo, hi;
    int follow = ts_gram_lead(b, &lo, &hi);
    if (follow) {
        uint32_t high = (uint32_t)(b & payload[follow]) << 6, low = 6 * (uint32_t)(follow - 1);
        *first = (high | (lo & 0x3f)) << low;
        *last = ((high | (hi & 0x3f)) << low) | (((uint32_t)1 << low) - 1);
    }
    return follow;
}

/* Splits the groups that bytes are in by one more property. */
static void refine(ts_gram *g, const uint8_t value[256])
{
    int16_t to[256][2];
    memset(to, 0xff, sizeof to);
    int32_t n = 0;
    for (int b = 0; b < 256; b++) {
        int16_t *t = &to[g->byte_class[b]][value[b]];
        if (*t < 0)
            *t = (int16_t)n++;
        g->byte_class[b] = (uint8_t)*t;
    }
    g->n_byte_classes = n;
}

/* Bytes that do the same in every class are one. Of those above 0x7f that is so where a class has
 * all or none of the characters behind each lead byte. */
static void group_bytes(ts_gram *g)
{
    uint8_t v[256] = {0}, apart[256] = {0}, lo, hi;
    uint32_t first = 0, last = 0;
    uint8_t any_apart = 0;
    memset(g->byte_class, 0, sizeof g->byte_class);
    /* ASCII, the three kinds of continuation, and lead bytes by what has to follow them */
    for (int bit = 0; bit < 4; bit++) {
        for (int b = 0; b < 256; b++) {
            int follow = ts_gram_lead((uint8_t)b, &lo, &hi);
            int kind = b < 0x80 ? 0 : b < 0x90 ? 1 : b < 0xa0 ? 2 : b < 0xc0 ? 3 : 4 + follow;
            if (follow && (lo != 0x80 || hi != 0xbf))
                kind = b == 0xe0 ? 8 : b == 0xed ? 9 : b == 0xf0 ? 10 : 11;
            v[b] = kind >> bit & 1;
        }
        refine(g, v);
    }
    for (size_t c = 0; c < g->n_classes; c++) {
        const ts_gram_class *k = &g->classes[c];
        memset(v, 0, sizeof v);
        for (int b = 0; b < 128; b++)
            v[b] = k->ascii[b / 64] >> b % 64 & 1;
        for (int b = 0xc2; b < 0xf5 && g->ranges[k->first + k->n - 1].hi >= 0x80; b++) {
            lead_span((uint8_t)b, &first, &last);
            ts_gram_cover cover = ts_gram_covers(g, (int32_t)c, first, last);
            v[b] = cover == TS_COVER_ALL;
            if (cover == TS_COVER_SOME)
                apart[b] = any_apart = 1;
        }
        refine(g, v);
    }
    for (int b = 0x80; b < 256; b++)
        if (apart[b] || (any_apart && b < 0xc0)) {
            memset(v, 0, sizeof v);
            v[b] = 1;
            refine(g, v);
        }
}

/* --- all of it ---------------------------------------------------------------------------- */

ts_status gb_compile(gbnf *p)
{
    compiler c = {.p = p, .g = p->g};
    ts_status st = emit_all(&c);
    free(c.entries);
    if (!st)
        st = walk_rules(p);
    if (!st)
        st = check_ends(p);
    if (!st)
        group_bytes(p->g);
    return st;
}

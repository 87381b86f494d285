/* gbnf.c - reads GBNF, the notation for grammars that llama.cpp made.
 *
 *     root ::= "[" (item ("," item)*)? "]"     # sequences, groups, * + ? {m} {m,} {m,n}
 *     item ::= [0-9]+ | [^a-z\n"] | . | "\x41\u00e9"
 *
 * A rule ends with its line, unless a parenthesis is open or the line ends in `::=` or `|` or the
 * next one begins with `|`. The text becomes a tree; classes of characters go straight into the
 * grammar, each different one once. */
#include "grammar/gram_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

enum { MAX_SIGNS = 8 }; /* of repetition, after one element */

ts_status gb_fail(gbnf *p, size_t at, const char *fmt, ...)
{
    char what[300];
    size_t line = 1, column = 1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < at && i < p->n; i++) {
        if (p->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((uint8_t)p->text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return ts_fail(p->err, TS_BAD_ARG, "the grammar, line %zu, column %zu: %s", line, column, what);
}

ts_status gb_no_memory(gbnf *p)
{
    return ts_fail(p->err, TS_NO_MEMORY, "no memory for the grammar");
}

/* --- characters ------------------------------------------------------------------- */

/* The byte `ahead` behind the current one; 0 at the end. */
static char peek(const gbnf *p, size_t ahead)
{
    return ahead < p->n - p->at ? p->text[p->at + ahead] : 0;
}

static bool at_end(const gbnf *p)
{
    return p->at == p->n;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* Over blanks and comments; over the ends of lines too, if asked. */
static void skip(gbnf *p, bool lines)
{
    while (!at_end(p)) {
        char c = p->text[p->at];
        if (c == '#')
            while (!at_end(p) && p->text[p->at] != '\n')
                p->at++;
        else if (c == ' ' || c == '\t' || c == '\r' || (lines && c == '\n'))
            p->at++;
        else
            break;
    }
}

/* What stands at the current place, for a sentence. */
static const char *found(const gbnf *p, char out[16])
{
    if (at_end(p))
        return "the end of the text";
    if (p->text[p->at] == '\n')
        return "the end of the line";
    size_t len = ts_utf8_decode(p->text + p->at, p->n - p->at, NULL);
    snprintf(out, 16, "'%.*s'", (int)len, p->text + p->at);
    return out;
}

static ts_status hex(gbnf *p, int digits, uint32_t *cp)
{
    size_t from = p->at;
    p->at += 2;
    *cp = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        char c = peek(p, 0);
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0)
            return gb_fail(p, from, "\\%c wants %d hexadecimal digits", p->text[from + 1], digits);
        *cp = *cp << 4 | (uint32_t)v;
    }
    if (*cp > 0x10ffff || (*cp >= 0xd800 && *cp <= 0xdfff))
        return gb_fail(p, from, "U+%04X is not a character", (unsigned)*cp);
    return TS_OK;
}

/* One character of a literal or a class, escaped or not. */
static ts_status character(gbnf *p, uint32_t *cp)
{
    static const char from[] = "nrt\\\"[]-^/", to[] = "\n\r\t\\\"[]-^/";
    if (peek(p, 0) != '\\') {
        p->at += ts_utf8_decode(p->text + p->at, p->n - p->at, cp);
        return TS_OK;
    }
    char c = peek(p, 1);
    const char *known = c ? strchr(from, c) : NULL;
    if (c == 'x' || c == 'u' || c == 'U')
        return hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, cp);
    if (!known) {
        char buf[16];
        size_t start = p->at++;
        const char *what = found(p, buf);
        return gb_fail(p, start, "there is no escape of %s", what);
    }
    *cp = (uint8_t)to[known - from];
    p->at += 2;
    return TS_OK;
}

/* --- classes ------------------------------------------------------------------------ */

static bool grow_sets(gbnf *p)
{
    const ts_gram *g = p->g;
    size_t n = p->n_sets ? 2 * p->n_sets : 256;
    int32_t *t = malloc(n * sizeof *t);
    if (!t)
        return false;
    memset(t, 0xff, n * sizeof *t);
    for (size_t i = 0; i < g->n_classes; i++) {
        const ts_gram_class *c = &g->classes[i];
        size_t h = ts_hash64(g->ranges + c->first, c->n * sizeof *g->ranges, 0) & (n - 1);
        while (t[h] >= 0)
            h = (h + 1) & (n - 1);
        t[h] = (int32_t)i;
    }
    free(p->sets);
    p->sets = t;
    p->n_sets = n;
    return true;
}

static void describe(ts_gram_class *c, const ts_gram_range *r)
{
    uint64_t missing = 0;
    bool above = false; /* all above ASCII */
    for (size_t i = 0; i < c->n; i++) {
        for (uint32_t cp = r[i].lo; cp <= r[i].hi && cp < 128; cp++)
            c->ascii[cp / 64] |= (uint64_t)1 << cp % 64;
        if (r[i].lo <= 0x80 && r[i].hi == 0xd7ff)
            above = i + 1 < c->n && r[i + 1].lo == 0xe000 && r[i + 1].hi == 0x10ffff;
    }
    for (uint32_t b = 0; b <= 128; b++)
        if (b < 128 ? !(c->ascii[b / 64] >> b % 64 & 1) : !above)
            missing |= (uint64_t)1 << ts_gram_kind_of((uint8_t)b);
    c->kinds = ~missing;
}

/* The class of p->set, known or new. */
static ts_status intern_class(gbnf *p, size_t at, int32_t *id)
{
    ts_gram *g = p->g;
    ts_ranges_join(&p->set);
    ts_ranges_remove(&p->set, 0xd800, 0xdfff); /* no text has them */
    size_t bytes = p->set.n * sizeof *p->set.r;
    if (p->set.failed)
        return gb_no_memory(p);
    if (p->set.n == 0)
        return gb_fail(p, at, "no character is in this class");
    if (2 * g->n_classes >= p->n_sets && !grow_sets(p))
        return gb_no_memory(p);
    size_t h = ts_hash64(p->set.r, bytes, 0) & (p->n_sets - 1);
    for (; p->sets[h] >= 0; h = (h + 1) & (p->n_sets - 1)) {
        const ts_gram_class *c = &g->classes[p->sets[h]];
        if (c->n == p->set.n && memcmp(g->ranges + c->first, p->set.r, bytes) == 0) {
            *id = p->sets[h];
            return TS_OK;
        }
    }
    if (g->n_ranges + p->set.n > TS_GRAM_MAX_RANGES)
        return gb_fail(p, at, "the classes of the grammar have more than %d ranges together",
                       TS_GRAM_MAX_RANGES);
    ts_gram_class c = {.first = (uint32_t)g->n_ranges, .n = (uint32_t)p->set.n};
    describe(&c, p->set.r);
    for (size_t i = 0; i < p->set.n; i++) {
        if (!TS_ROOM(g->ranges, g->n_ranges, g->cap_ranges))
            return gb_no_memory(p);
        g->ranges[g->n_ranges++] = p->set.r[i];
    }
    if (!TS_ROOM(g->classes, g->n_classes, g->cap_classes))
        return gb_no_memory(p);
    *id = p->sets[h] = (int32_t)g->n_classes;
    g->classes[g->n_classes++] = c;
    return TS_OK;
}

/* --- the tree ------------------------------------------------------------------------- */

static ts_status new_node(gbnf *p, gb_kind kind, size_t at, int32_t a, int32_t *id)
{
    if (p->n_nodes == TS_GRAM_MAX_NODES)
        return gb_fail(p, at, "the grammar has more than %d elements", TS_GRAM_MAX_NODES);
    if (!TS_ROOM(p->nodes, p->n_nodes, p->cap_nodes))
        return gb_no_memory(p);
    *id = (int32_t)p->n_nodes;
    p->nodes[p->n_nodes++] = (gb_node){kind, a, 0, -1, -1, at};
    return TS_OK;
}

/* A list of nodes that grows at its end; one alone needs no parent. */
typedef struct gb_list {
    int32_t first, last;
} gb_list;

static void append(gbnf *p, gb_list *l, int32_t id)
{
    if (l->first < 0)
        l->first = id;
    else
        p->nodes[l->last].next = id;
    l->last = id;
}

static ts_status finish(gbnf *p, const gb_list *l, gb_kind kind, size_t at, int32_t *id)
{
    if (l->first >= 0 && l->first == l->last) {
        *id = l->first;
        return TS_OK;
    }
    ts_status st = new_node(p, l->first < 0 ? GB_EMPTY : kind, at, 0, id);
    if (st)
        return st;
    if (kind == GB_SEQ) { /* networks are made from their end */
        int32_t behind = -1;
        for (int32_t i = l->first, next; i >= 0; i = next) {
            next = p->nodes[i].next;
            p->nodes[i].next = behind;
            behind = i;
        }
        p->nodes[*id].child = behind;
    } else {
        p->nodes[*id].child = l->first;
    }
    return TS_OK;
}

static ts_status class_node(gbnf *p, size_t at, int32_t *id)
{
    int32_t cls = 0;
    ts_status st = intern_class(p, at, &cls);
    return st ? st : new_node(p, GB_CLASS, at, cls, id);
}

static ts_status literal(gbnf *p, int32_t *id)
{
    size_t at = p->at++;
    gb_list l = {-1, -1};
    while (peek(p, 0) != '"') {
        uint32_t cp;
        int32_t one;
        size_t from = p->at;
        if (at_end(p) || p->text[p->at] == '\n')
            return gb_fail(p, at, "this literal has no end: a '\"' is missing");
        ts_status st = character(p, &cp);
        if (st)
            return st;
        p->set.n = 0;
        ts_ranges_add(&p->set, cp, cp);
        if ((st = class_node(p, from, &one)))
            return st;
        append(p, &l, one);
    }
    p->at++;
    return finish(p, &l, GB_SEQ, at, id);
}

static ts_status class_of(gbnf *p, int32_t *id)
{
    size_t at = p->at++;
    bool other = peek(p, 0) == '^';
    p->set.n = 0;
    p->at += other;
    while (peek(p, 0) != ']') {
        uint32_t lo, hi;
        size_t from = p->at;
        if (at_end(p))
            return gb_fail(p, at, "this class has no end: a ']' is missing");
        ts_status st = character(p, &lo);
        if (st)
            return st;
        hi = lo;
        if (peek(p, 0) == '-' && peek(p, 1) != ']') {
            p->at++;
            if (at_end(p))
                return gb_fail(p, at, "this class has no end: a ']' is missing");
            if ((st = character(p, &hi)))
                return st;
        }
        if (hi < lo)
            return gb_fail(p, from, "this range ends before it begins");
        ts_ranges_add(&p->set, lo, hi);
    }
    p->at++;
    if (other)
        ts_ranges_negate(&p->set);
    return class_node(p, at, id);
}

/* --- rules ------------------------------------------------------------------------------ */

static bool grow_names(gbnf *p)
{
    size_t n = p->n_names ? 2 * p->n_names : 256;
    int32_t *t = malloc(n * sizeof *t);
    if (!t)
        return false;
    memset(t, 0xff, n * sizeof *t);
    for (size_t i = 0; i < p->n_rules; i++) {
        size_t h = ts_hash64(p->text + p->rules[i].name, p->rules[i].n_name, 0) & (n - 1);
        while (t[h] >= 0)
            h = (h + 1) & (n - 1);
        t[h] = (int32_t)i;
    }
    free(p->names);
    p->names = t;
    p->n_names = n;
    return true;
}

/* Reads a name: its rule, new if it wasn't mentioned before. */
static ts_status rule_of(gbnf *p, int32_t *id)
{
    size_t at = p->at, n = 0;
    while (is_name(peek(p, n)))
        n++;
    p->at += n;
    if (2 * p->n_rules >= p->n_names && !grow_names(p))
        return gb_no_memory(p);
    size_t h = ts_hash64(p->text + at, n, 0) & (p->n_names - 1);
    for (; p->names[h] >= 0; h = (h + 1) & (p->n_names - 1)) {
        const gb_rule *r = &p->rules[p->names[h]];
        if (r->n_name == n && memcmp(p->text + r->name, p->text + at, n) == 0) {
            *id = p->names[h];
            return TS_OK;
        }
    }
    if (p->n_rules == TS_GRAM_MAX_RULES)
        return gb_fail(p, at, "the grammar has more than %d rules", TS_GRAM_MAX_RULES);
    if (!TS_ROOM(p->rules, p->n_rules, p->cap_rules))
        return gb_no_memory(p);
    *id = p->names[h] = (int32_t)p->n_rules;
    p->rules[p->n_rules++] = (gb_rule){at, n, -1};
    return TS_OK;
}

static ts_status number(gbnf *p, int32_t *v)
{
    size_t at = p->at;
    char buf[16];
    if (!(peek(p, 0) >= '0' && peek(p, 0) <= '9'))
        return gb_fail(p, at, "a number of repetitions was expected, not %s", found(p, buf));
    for (*v = 0; peek(p, 0) >= '0' && peek(p, 0) <= '9'; p->at++) {
        *v = 10 * *v + (p->text[p->at] - '0');
        if (*v > TS_GRAM_MAX_REPEAT)
            return gb_fail(p, at, "more than %d repetitions", TS_GRAM_MAX_REPEAT);
    }
    return TS_OK;
}

/* {m}, {m,} or {m,n} */
static ts_status braces(gbnf *p, int32_t *least, int32_t *most)
{
    size_t at = p->at++;
    char buf[16];
    skip(p, false);
    ts_status st = number(p, least);
    if (st)
        return st;
    *most = *least;
    skip(p, false);
    if (peek(p, 0) == ',') {
        p->at++;
        skip(p, false);
        *most = -1;
        if (peek(p, 0) != '}' && (st = number(p, most)))
            return st;
        skip(p, false);
    }
    if (peek(p, 0) != '}')
        return gb_fail(p, p->at, "'}' was expected, not %s", found(p, buf));
    p->at++;
    if (*most >= 0 && *most < *least)
        return gb_fail(p, at, "at least %d and at most %d repetitions", (int)*least, (int)*most);
    return TS_OK;
}

static ts_status repeated(gbnf *p, bool nested, int32_t *id)
{
    for (int signs = 0;; signs++) {
        int32_t least = 0, most = -1, rep;
        size_t before = p->at;
        skip(p, nested);
        size_t at = p->at;
        char c = peek(p, 0);
        ts_status st = TS_OK;
        if (c == '*' || c == '+' || c == '?') {
            least = c == '+';
            most = c == '?' ? 1 : -1;
            p->at++;
        } else if (c == '{') {
            st = braces(p, &least, &most);
        } else {
            p->at = before;
            return TS_OK;
        }
        if (!st && signs == MAX_SIGNS)
            st = gb_fail(p, at, "more than %d signs of repetition in a row", MAX_SIGNS);
        if (st || (st = new_node(p, GB_REP, at, least, &rep)))
            return st;
        p->nodes[rep].most = most;
        p->nodes[rep].child = *id;
        *id = rep;
    }
}

static ts_status alternatives(gbnf *p, int depth, int32_t *id);

static ts_status group(gbnf *p, int depth, int32_t *id)
{
    size_t at = p->at++;
    char buf[16];
    if (depth == TS_GRAM_MAX_DEPTH)
        return gb_fail(p, at, "more than %d parentheses are open", TS_GRAM_MAX_DEPTH);
    ts_status st = alternatives(p, depth + 1, id);
    if (st)
        return st;
    if (at_end(p))
        return gb_fail(p, at, "this parenthesis is never closed");
    if (peek(p, 0) != ')')
        return gb_fail(p, p->at, "%s can't stand here", found(p, buf));
    p->at++;
    return TS_OK;
}

/* One element with what repeats it; *id stays -1 where none begins. */
static ts_status element(gbnf *p, int depth, int32_t *id)
{
    char c = peek(p, 0);
    ts_status st;
    *id = -1;
    if (c == '"') {
        st = literal(p, id);
    } else if (c == '[') {
        st = class_of(p, id);
    } else if (c == '.') {
        p->set.n = 0;
        ts_ranges_add(&p->set, 0, 0x10ffff);
        st = class_node(p, p->at++, id);
    } else if (c == '(') {
        st = group(p, depth, id);
    } else if (is_name(c)) {
        size_t at = p->at;
        int32_t rule;
        if ((st = rule_of(p, &rule)))
            return st;
        skip(p, depth > 0);
        if (peek(p, 0) == ':')
            return gb_fail(p, at, "a rule can't begin here%s",
                           depth ? ": a ')' is missing before it" : "");
        st = new_node(p, GB_RULE, at, rule, id);
    } else if (c == '<' || c == '!') {
        return gb_fail(p, p->at, "single tokens (<...>, !<...>) can't be asked for");
    } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        return gb_fail(p, p->at, "there is nothing before '%c' that it could repeat", c);
    } else {
        return TS_OK;
    }
    return st ? st : repeated(p, depth > 0, id);
}

static ts_status sequence(gbnf *p, int depth, int32_t *id)
{
    gb_list l = {-1, -1};
    size_t at = p->at;
    for (;;) {
        int32_t one;
        skip(p, depth > 0);
        ts_status st = element(p, depth, &one);
        if (st)
            return st;
        if (one < 0)
            return finish(p, &l, GB_SEQ, at, id);
        append(p, &l, one);
    }
}

/* At the end of a line of a rule: does the next one go on with '|'? */
static void join_line(gbnf *p)
{
    size_t at = p->at;
    skip(p, true);
    if (peek(p, 0) != '|')
        p->at = at;
}

static ts_status alternatives(gbnf *p, int depth, int32_t *id)
{
    gb_list l = {-1, -1};
    size_t at = p->at;
    skip(p, true);
    for (;;) {
        int32_t one;
        ts_status st = sequence(p, depth, &one);
        if (st)
            return st;
        append(p, &l, one);
        if (depth == 0)
            join_line(p);
        if (peek(p, 0) != '|')
            return finish(p, &l, GB_ALT, at, id);
        p->at++;
        skip(p, true);
    }
}

static ts_status rule(gbnf *p)
{
    int32_t id, body;
    size_t at = p->at;
    char buf[16];
    if (!is_name(peek(p, 0)))
        return gb_fail(p, at, "the name of a rule was expected, not %s", found(p, buf));
    ts_status st = rule_of(p, &id);
    if (st)
        return st;
    gb_rule *r = &p->rules[id];
    skip(p, false);
    if (peek(p, 0) != ':' || peek(p, 1) != ':' || peek(p, 2) != '=')
        return gb_fail(p, p->at, "'::=' was expected after the name '%.*s', not %s",
                       (int)(r->n_name < 60 ? r->n_name : 60), p->text + r->name, found(p, buf));
    if (r->body >= 0)
        return gb_fail(p, at, "the rule '%.*s' is defined a second time",
                       (int)(r->n_name < 60 ? r->n_name : 60), p->text + r->name);
    p->at += 3;
    if ((st = alternatives(p, 0, &body)))
        return st;
    skip(p, false);
    if (!at_end(p) && peek(p, 0) != '\n')
        return gb_fail(p, p->at, "%s can't stand here", found(p, buf));
    p->rules[id].body = body;
    p->rules[id].name = at;
    return TS_OK;
}

static ts_status read_rules(gbnf *p)
{
    size_t valid = ts_utf8_valid(p->text, p->n);
    if (valid < p->n)
        return gb_fail(p, valid, "byte 0x%02x is not UTF-8", (uint8_t)p->text[valid]);
    for (skip(p, true); !at_end(p); skip(p, true)) {
        ts_status st = rule(p);
        if (st)
            return st;
    }
    for (size_t i = 0; i < p->n_rules; i++)
        if (p->rules[i].body < 0)
            return gb_fail(p, p->rules[i].name, "there is no rule '%.*s'",
                           (int)(p->rules[i].n_name < 60 ? p->rules[i].n_name : 60),
                           p->text + p->rules[i].name);
    for (size_t i = 0; i < p->n_rules; i++)
        if (p->rules[i].n_name == 4 && memcmp(p->text + p->rules[i].name, "root", 4) == 0) {
            p->g->root = (int32_t)i;
            return TS_OK;
        }
    return gb_fail(p, 0, "there is no rule 'root', with which a grammar begins");
}

/* --- open, close -------------------------------------------------------------------------- */

ts_status ts_gram_open(ts_gram **out, const char *text, size_t n, ts_error *err)
{
    gbnf p = {.text = text, .n = n, .err = err};
    if (n > TS_GRAM_MAX_TEXT)
        return ts_fail(err, TS_BAD_ARG, "the grammar has %zu bytes, more than %d", n,
                       TS_GRAM_MAX_TEXT);
    p.g = ts_calloc(1, sizeof *p.g);
    ts_status st = p.g ? read_rules(&p) : gb_no_memory(&p);
    if (!st)
        st = gb_compile(&p);
    free(p.nodes);
    free(p.rules);
    free(p.names);
    free(p.sets);
    free(p.set.r);
    if (st)
        ts_gram_close(p.g);
    else
        *out = p.g;
    return st;
}

void ts_gram_close(ts_gram *g)
{
    if (!g)
        return;
    free(g->nodes);
    free(g->alts);
    free(g->rules);
    free(g->by_rank);
    free(g->classes);
    free(g->ranges);
    free(g);
}

/* grammar_oracle.h - random grammars, and a recogniser that is slow and plain: where can an
 * expression end that begins here? Every way is tried. Positions are bits of a word, so texts have
 * fewer than 63 characters. */
#ifndef TS_GRAMMAR_ORACLE_H
#define TS_GRAMMAR_ORACLE_H

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "check.h"

typedef enum or_kind { OR_SET, OR_RULE, OR_SEQ, OR_ALT, OR_REP } or_kind;

enum { OR_NODES = 400, OR_RULES = 6, OR_TEXT = 62, OR_HITS = 4000 };

typedef struct or_node {
    or_kind kind;
    uint32_t lo[3], hi[3]; /* SET: ranges, n of them */
    int n;
    bool other;      /* SET: all other characters */
    int rule;        /* RULE                      */
    int first, next; /* children, siblings; -1    */
    int least, most; /* REP; most -1: any         */
} or_node;

typedef struct oracle {
    or_node node[OR_NODES];
    int n_nodes, n_rules, body[OR_RULES];
    bool nullable[OR_RULES], can_end[OR_RULES];
    /* the text that is looked at */
    uint32_t cp[OR_TEXT];
    int n;
    /* SETs that would take a character behind the text */
    int hits[OR_HITS], n_hits;
    long steps; /* a text that takes too many is left out */
} oracle;

/* --- making ---------------------------------------------------------------------------- */

static const uint32_t or_letters[] = {'a', 'b', 'c', '"', 0xe9, 0x4e2d, 0x4e2e, 0x1f600};

static inline int or_new(oracle *o, or_kind kind)
{
    REQUIRE(o->n_nodes < OR_NODES);
    o->node[o->n_nodes] = (or_node){.kind = kind, .first = -1, .next = -1};
    return o->n_nodes++;
}

static inline int or_pick(uint64_t *s, int n)
{
    return (int)(rnd_u64(s) % (uint64_t)n);
}

static inline int or_set(oracle *o, uint64_t *s)
{
    int id = or_new(o, OR_SET);
    or_node *n = &o->node[id];
    n->n = or_pick(s, 8) ? 1 : 1 + or_pick(s, 3);
    n->other = or_pick(s, 8) == 0;
    for (int i = 0; i < n->n; i++) {
        uint32_t a = or_letters[or_pick(s, 8)], b = or_letters[or_pick(s, 8)];
        bool range = or_pick(s, 4) == 0;
        n->lo[i] = !range || a < b ? a : b;
        n->hi[i] = !range ? a : a < b ? b : a;
    }
    return id;
}

static inline int or_expr(oracle *o, uint64_t *s, int depth)
{
    int what = depth == 0 ? or_pick(s, 5) : or_pick(s, 12), id, last = -1;
    if (what < 4)
        return or_set(o, s);
    if (what == 4) {
        id = or_new(o, OR_RULE);
        o->node[id].rule = or_pick(s, o->n_rules);
        return id;
    }
    if (what >= 10) {
        id = or_new(o, OR_REP);
        int child = or_expr(o, s, depth - 1);
        o->node[id].first = child;
        o->node[id].least = or_pick(s, 3);
        o->node[id].most = or_pick(s, 2) ? -1 : o->node[id].least + or_pick(s, 4);
        return id;
    }
    id = or_new(o, what < 8 ? OR_SEQ : OR_ALT);
    int n = what < 8 ? or_pick(s, 4) : 1 + or_pick(s, 3); /* a sequence may be empty */
    for (int i = 0; i < n; i++) {
        int child = or_expr(o, s, depth - 1);
        if (last < 0)
            o->node[id].first = child;
        else
            o->node[last].next = child;
        last = child;
    }
    return id;
}

/* --- what it is like ---------------------------------------------------------------------- */

static inline bool or_nullable(const oracle *o, int id)
{
    const or_node *n = &o->node[id];
    switch (n->kind) {
    case OR_SET:
        return false;
    case OR_RULE:
        return o->nullable[n->rule];
    case OR_REP:
        return n->least == 0 || n->most == 0 || or_nullable(o, n->first);
    default:
        for (int i = n->first; i >= 0; i = o->node[i].next)
            if (or_nullable(o, i) == (n->kind == OR_ALT))
                return n->kind == OR_ALT;
        return n->kind == OR_SEQ;
    }
}

static inline bool or_can_end(const oracle *o, int id)
{
    const or_node *n = &o->node[id];
    switch (n->kind) {
    case OR_SET:
        return true;
    case OR_RULE:
        return o->can_end[n->rule];
    case OR_REP:
        return n->least == 0 || or_can_end(o, n->first);
    default:
        for (int i = n->first; i >= 0; i = o->node[i].next)
            if (or_can_end(o, i) == (n->kind == OR_ALT))
                return n->kind == OR_ALT;
        return n->kind == OR_SEQ;
    }
}

/* Rules that an expression may begin with. */
static inline unsigned or_begins(const oracle *o, int id)
{
    const or_node *n = &o->node[id];
    unsigned set = 0;
    if (n->kind == OR_RULE)
        return 1u << n->rule;
    if (n->kind == OR_REP)
        return n->most == 0 ? 0 : or_begins(o, n->first);
    for (int i = n->first; i >= 0; i = o->node[i].next) {
        set |= or_begins(o, i);
        if (n->kind == OR_SEQ && !or_nullable(o, i))
            break;
    }
    return set;
}

static inline bool or_left_recursive(const oracle *o)
{
    for (int r = 0; r < o->n_rules; r++) {
        unsigned all = or_begins(o, o->body[r]);
        for (int k = 0; k < o->n_rules; k++)
            for (int q = 0; q < o->n_rules; q++)
                if (all >> q & 1)
                    all |= or_begins(o, o->body[q]);
        if (all >> r & 1)
            return true;
    }
    return false;
}

static inline void or_make(oracle *o, uint64_t *s)
{
    *o = (oracle){.n_rules = 1 + or_pick(s, OR_RULES)};
    for (int r = 0; r < o->n_rules; r++)
        o->body[r] = or_expr(o, s, 3);
    for (int k = 0; k < o->n_rules; k++)
        for (int r = 0; r < o->n_rules; r++) {
            o->nullable[r] = or_nullable(o, o->body[r]);
            o->can_end[r] = or_can_end(o, o->body[r]);
        }
}

/* --- as GBNF -------------------------------------------------------------------------------- */

static inline void or_char(ts_sb *b, uint32_t cp, uint64_t *s)
{
    char utf8[4];
    int how = or_pick(s, 3);
    if (cp == '"')
        ts_sb_str(b, "\\\"");
    else if (how == 0)
        ts_sb_printf(b, "\\U%08X", cp);
    else if (how == 1 && cp < 0x10000)
        ts_sb_printf(b, cp < 256 ? "\\x%02x" : "\\u%04x", cp);
    else
        ts_sb_add(b, utf8, ts_utf8_encode(cp, utf8));
}

static inline void or_print(const oracle *o, int id, ts_sb *b, uint64_t *s)
{
    const or_node *n = &o->node[id];
    const char *sep = "";
    if (n->kind == OR_SET && n->n == 1 && !n->other && n->lo[0] == n->hi[0] && or_pick(s, 2)) {
        ts_sb_str(b, "\"");
        or_char(b, n->lo[0], s);
        ts_sb_str(b, "\"");
    } else if (n->kind == OR_SET) {
        ts_sb_str(b, n->other ? "[^" : "[");
        for (int i = 0; i < n->n; i++) {
            or_char(b, n->lo[i], s);
            if (n->hi[i] > n->lo[i]) {
                ts_sb_str(b, "-");
                or_char(b, n->hi[i], s);
            }
        }
        ts_sb_str(b, "]");
    } else if (n->kind == OR_RULE) {
        ts_sb_printf(b, n->rule ? "rule-%d" : "root", n->rule);
    } else if (n->kind == OR_REP) {
        or_print(o, n->first, b, s);
        if (n->most == -1 && n->least < 2)
            ts_sb_str(b, n->least ? "+" : "*");
        else if (n->least == 0 && n->most == 1)
            ts_sb_str(b, "?");
        else if (n->most == n->least)
            ts_sb_printf(b, "{%d}", n->least);
        else if (n->most < 0)
            ts_sb_printf(b, "{ %d, }", n->least);
        else
            ts_sb_printf(b, "{%d,%d}", n->least, n->most);
    } else {
        ts_sb_str(b, "(");
        for (int i = n->first; i >= 0; i = o->node[i].next) {
            ts_sb_str(b, sep);
            or_print(o, i, b, s);
            sep = n->kind == OR_ALT ? or_pick(s, 2) ? " | " : "\n# or\n|"
                  : or_pick(s, 4)   ? " "
                                    : "\n ";
        }
        ts_sb_str(b, n->first < 0 ? "\"\")" : ")");
    }
}

static inline void or_text(const oracle *o, ts_sb *b, uint64_t *s)
{
    for (int r = 0; r < o->n_rules; r++) {
        ts_sb_printf(b, r ? "rule-%d ::= " : "root ::= ", r);
        or_print(o, o->body[r], b, s);
        ts_sb_str(b, "\n");
    }
}

/* --- recognising ------------------------------------------------------------------------------ */

static inline bool or_takes(const or_node *n, uint32_t cp)
{
    bool in = false;
    for (int i = 0; i < n->n; i++)
        in = in || (cp >= n->lo[i] && cp <= n->hi[i]);
    return in != n->other && !(cp >= 0xd800 && cp <= 0xdfff);
}

/* Bits of the positions where it can end that begins at `at`. What can't end matches nothing. */
static inline uint64_t or_ends(oracle *o, int id, int at)
{
    const or_node *n = &o->node[id];
    uint64_t set = 0, now, seen;
    if (!or_can_end(o, id) || ++o->steps > 20000)
        return 0;
    switch (n->kind) {
    case OR_SET:
        if (at == o->n && o->n_hits < OR_HITS)
            o->hits[o->n_hits++] = id;
        return at < o->n && or_takes(n, o->cp[at]) ? (uint64_t)1 << (at + 1) : 0;
    case OR_RULE:
        return or_ends(o, o->body[n->rule], at);
    case OR_ALT:
        for (int i = n->first; i >= 0; i = o->node[i].next)
            set |= or_ends(o, i, at);
        return set;
    case OR_SEQ:
        set = (uint64_t)1 << at;
        for (int i = n->first; i >= 0; i = o->node[i].next) {
            now = set;
            set = 0;
            for (int p = 0; p <= o->n; p++)
                if (now >> p & 1)
                    set |= or_ends(o, i, p);
        }
        return set;
    default:
        now = (uint64_t)1 << at;
        set = n->least == 0 ? now : 0;
        seen = 0;
        for (int k = 1; now && (n->most < 0 || k <= n->most); k++) {
            uint64_t next = 0;
            for (int p = 0; p <= o->n; p++)
                if (now >> p & 1)
                    next |= or_ends(o, n->first, p);
            if (k >= n->least)
                set |= next;
            if (n->most < 0 && k > n->least && !(next & ~seen))
                break; /* nothing new comes of further rounds */
            if (k >= n->least)
                seen |= next;
            now = next;
        }
        return set;
    }
}

/* 1: a whole text of the grammar, 2: the beginning of one, both: 3; -1: too many steps. */
static inline int or_match(oracle *o)
{
    o->n_hits = 0;
    o->steps = 0;
    bool whole = or_ends(o, o->body[0], 0) >> o->n & 1;
    if (o->steps > 20000 || o->n_hits == OR_HITS)
        return -1;
    return (whole ? 1 : 0) | (whole || o->n_hits ? 2 : 0);
}

/* After or_match: whether a character that begins with these bytes may come behind the text. What
 * a SET takes changes at the ends of its ranges only. */
static inline bool or_begun(const oracle *o, const char *s, size_t n)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t b = (uint8_t)s[0];
    size_t len = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    uint32_t lo = b & (0x7fu >> len), hi;
    for (size_t i = 1; i < n; i++)
        lo = lo << 6 | (s[i] & 0x3f);
    lo <<= 6 * (len - n);
    hi = lo | (((uint32_t)1 << 6 * (len - n)) - 1);
    lo = lo < least[len] ? least[len] : lo;
    hi = hi > 0x10ffff ? 0x10ffff : hi;
    for (int i = 0; i < o->n_hits; i++) {
        const or_node *k = &o->node[o->hits[i]];
        uint32_t at[14] = {lo, hi};
        int m = 2;
        for (int r = 0; r < k->n; r++) {
            at[m++] = k->lo[r];
            at[m++] = k->lo[r] - 1;
            at[m++] = k->hi[r];
            at[m++] = k->hi[r] + 1;
        }
        while (m-- > 0)
            if (at[m] >= lo && at[m] <= hi && or_takes(k, at[m]))
                return true;
    }
    return false;
}

/* A text that the grammar makes, more or less: up to n characters. */
static inline void or_write(oracle *o, int id, uint64_t *s, int depth)
{
    const or_node *n = &o->node[id];
    int k = 0;
    if (depth > 12 || o->n >= OR_TEXT - 2)
        return;
    if (n->kind == OR_SET) {
        uint32_t cp = or_letters[or_pick(s, 8)];
        for (int i = 0; i < 20 && !or_takes(n, cp); i++)
            cp = or_letters[or_pick(s, 8)];
        o->cp[o->n++] = or_pick(s, 60) ? cp : 'x';
    } else if (n->kind == OR_RULE) {
        or_write(o, o->body[n->rule], s, depth + 1);
    } else if (n->kind == OR_REP) {
        int times =
            n->most < 0 ? n->least + or_pick(s, 3) : n->least + or_pick(s, n->most - n->least + 1);
        for (int i = 0; i < times; i++)
            or_write(o, n->first, s, depth + 1);
    } else {
        for (int i = n->first; i >= 0; i = o->node[i].next)
            k++;
        int chosen = k ? or_pick(s, k) : 0;
        k = 0;
        for (int i = n->first; i >= 0; i = o->node[i].next)
            if (n->kind == OR_SEQ || k++ == chosen)
                or_write(o, i, s, depth + 1);
    }
}

#endif

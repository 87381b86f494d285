/* gram.h - grammars: from GBNF text to an automaton (gbnf.c, compile.c).
 *
 * The automaton has a network of nodes for each rule:
 *
 *     CHAR   consumes one character of a class, goes on at `next`
 *     CALL   goes through a rule, then on at `next`
 *     SPLIT  goes on at any of its alternatives, alts[a .. a + next)
 *     END    the rule is complete; node 0, the same for all rules
 *
 * Checked when it is made: every rule is defined, none begins with itself (left recursion), the
 * root can end, and no reachable node leads only into what can't end. A matcher (match.h) therefore
 * can't run into a dead end by itself. A compiled grammar is immutable. */
#ifndef TS_GRAM_H
#define TS_GRAM_H

#include "base/mem.h"

enum {
    TS_GRAM_MAX_TEXT = 8 << 20,   /* bytes of GBNF                                          */
    TS_GRAM_MAX_RULES = 1 << 16,  /* rules, those made of groups too                        */
    TS_GRAM_MAX_NODES = 1 << 20,  /* nodes of all rules, repetitions written out            */
    TS_GRAM_MAX_REPEAT = 100000,  /* the numbers in {m,n}                                   */
    TS_GRAM_MAX_DEPTH = 200,      /* parentheses in parentheses                             */
    TS_GRAM_MAX_RANGES = 1 << 18, /* ranges of all different classes                        */
};

typedef struct ts_gram_range {
    uint32_t lo, hi; /* code points, both included */
} ts_gram_range;

/* Characters: sorted ranges that don't touch, without surrogates. */
typedef struct ts_gram_class {
    uint32_t first, n; /* of ranges                                 */
    uint64_t ascii[2]; /* the same below 128                        */
    uint64_t kinds;    /* all characters of these kinds are in it   */
} ts_gram_class;

/* Plain characters are those which JSON strings hold unescaped, but U+007F. Nearly all tokens of a
 * vocabulary are made of them alone. */
static inline bool ts_gram_is_plain(uint8_t b)
{
    return b >= 0x20 && b != '"' && b != '\\' && b != 0x7f;
}

/* Characters that classes mostly have together are of one kind, 0 to 63, by the first byte: small
 * letters to f and beyond, capital ones, digits, all above ASCII; others are alone. */
static inline int ts_gram_kind_of(uint8_t b)
{
    if (b >= 'a' && b <= 'z')
        return b <= 'f' ? 0 : 1;
    if (b >= 'A' && b <= 'Z')
        return b <= 'F' ? 2 : 3;
    if (b >= '0' && b <= '9')
        return 4;
    if (b >= 0x80)
        return 5;
    if (b < 0x20 || b == 0x7f)
        return b == '\n' ? 6 : b == '\t' ? 7 : 8;
    return b < '0'   ? 9 + (b - ' ')
           : b < 'A' ? 25 + (b - ':')
           : b < 'a' ? 32 + (b - '[')
                     : 38 + (b - '{');
}

typedef enum ts_gram_kind { TS_GRAM_END, TS_GRAM_CHAR, TS_GRAM_CALL, TS_GRAM_SPLIT } ts_gram_kind;

typedef struct ts_gram_node {
    int32_t kind;
    int32_t a;    /* CHAR: class; CALL: rule; SPLIT: first of alts */
    int32_t next; /* node; SPLIT: number of alts                   */
} ts_gram_node;

typedef struct ts_gram_rule {
    int32_t entry; /* node                                                                 */
    /* Rules are numbered so that one which begins with a call of another comes before it: what is
     * called at one position of the text can be worked off in the order of ranks. */
    int32_t rank;
    bool nullable; /* matches the empty text                                               */
} ts_gram_rule;

typedef struct ts_gram {
    ts_gram_node *nodes; /* [n_nodes], 0 is END */
    int32_t *alts;       /* [n_alts]            */
    ts_gram_rule *rules; /* [n_rules]           */
    int32_t *by_rank;    /* [n_rules] rule ids  */
    ts_gram_class *classes;
    ts_gram_range *ranges;
    size_t n_nodes, n_alts, n_rules, n_classes, n_ranges;
    size_t cap_nodes, cap_alts, cap_rules, cap_classes, cap_ranges;
    int32_t root;
    /* Bytes that no class of this grammar tells apart have the same number. */
    uint8_t byte_class[256];
    int32_t n_byte_classes;
} ts_gram;

/* Reads GBNF (llama.cpp's notation, docs/CLI.md) and compiles it. TS_BAD_ARG with a sentence that
 * names line and column; TS_UNSUPPORTED: a text could never end; TS_NO_MEMORY. */
ts_status ts_gram_open(ts_gram **out, const char *text, size_t n, ts_error *err);
void ts_gram_close(ts_gram *g);

/* How a class and the characters lo..hi lie. */
typedef enum ts_gram_cover { TS_COVER_NONE, TS_COVER_SOME, TS_COVER_ALL } ts_gram_cover;
ts_gram_cover ts_gram_covers(const ts_gram *g, int32_t cls, uint32_t lo, uint32_t hi);

/* A lead byte of UTF-8 above 0x7f: how many bytes follow (0: it begins no character) and the range
 * of the first of them. */
int ts_gram_lead(uint8_t b, uint8_t *lo, uint8_t *hi);

#endif

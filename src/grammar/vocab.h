/* vocab.h - the vocabulary as a matcher reads it: two trees of bytes.
 *
 * A tree is an array in depth-first order, so that a subtree is a range of nodes and its tokens
 * a range of ids:
 *
 *     node   byte  depth  end            tok     first of ids in this subtree
 *       0      -     0     6              0      ids  [ "a"  "ab" "ab"  "b" ]
 *       1      a     1     3              0
 *       2      b     2     3              1      two ids may have the same bytes
 *       3      b     1     4              3
 *       4  sentinel
 *
 * Tokens made of plain characters alone (gram.h) are in a tree of their own: where a grammar takes
 * any of these, whole subtrees are allowed without a look at them. Tokens without bytes, and those
 * that end a generation, are in neither. Immutable; points into the pieces it was made of. */
#ifndef TS_VOCAB_H
#define TS_VOCAB_H

#include "base/mem.h"
#include "gguf/gguf.h"

typedef struct ts_trie_node {
    uint32_t end; /* the node behind the subtree */
    uint32_t tok;
    uint16_t depth;
    uint8_t byte;
    uint8_t below; /* most characters that a token of the subtree has more than this node */
} ts_trie_node;

typedef struct ts_trie {
    ts_trie_node *nodes; /* [n + 1]                                                         */
    uint64_t *kinds;     /* [n] of the characters that tokens of the subtree have below a node */
    int32_t *ids;        /* [n_ids]                                                         */
    size_t n, n_ids;
} ts_trie;

enum {
    TS_VOCAB_RUN = 32,    /* plain tokens of more characters are in the other tree */
    TS_VOCAB_LONG = 4096, /* longer tokens, in bytes, are never allowed by a grammar */
};

typedef struct ts_vocab {
    int32_t n;       /* tokens                                         */
    size_t words;    /* of 64 bits, in a set of tokens                 */
    ts_str *pieces;  /* [n] the bytes of each token; none: never allowed */
    int32_t *eog;    /* [n_eog] tokens that end a generation           */
    uint8_t *is_eog; /* [n]                                            */
    size_t n_eog;
    ts_trie plain, rest;
    uint64_t *all_plain; /* [words] the tokens of `plain` as a set      */
} ts_vocab;

/* pieces[n] and eog[n] are copied; the bytes aren't. TS_NO_MEMORY. */
ts_status ts_vocab_open(ts_vocab **out, const ts_str *pieces, const uint8_t *eog, int32_t n,
                        ts_error *err);
void ts_vocab_close(ts_vocab *v);

#endif

/* tok_internal.h - what the files of the tokenizer share.
 *
 *   tokenizer.c     open and close, encode, decode
 *   tok_vocab.c     tokens, their kinds, the table from text to id
 *   tok_special.c   tokens with a meaning: BOS, EOS, what ends a generation
 *   tok_find.c      where special tokens stand in a text
 *   tok_pre.c       pre-tokenizers: the text as classes, cut into words by regular expressions
 *   tok_bpe.c       byte-level BPE: merges by rank
 *   tok_spm.c       SentencePiece BPE: merges by score, byte fallback
 *   tok_unicode.c   general categories
 */
#ifndef TS_TOK_INTERNAL_H
#define TS_TOK_INTERNAL_H

#include "base/mem.h"
#include "model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* --- limits ---------------------------------------------------------------- */

enum {
    TOK_MAX_TOKENS = 1 << 24,
    TOK_MAX_LEN = 65535,       /* bytes of one token                                    */
    TOK_MAX_SPECIAL = 4 << 20, /* bytes of all special tokens: their automaton is 24x that */
    TOK_MAX_TEXT = 1 << 30,    /* bytes of one text: positions fit 32 bits when ' ' triples  */
    TOK_MAX_SPM_TEXT = TOK_MAX_TEXT / 3,
};

/* --- hashing ----------------------------------------------------------------
 *
 * The hash of a string is a polynomial in a secret base, modulo the prime 2^61 - 1. Two things
 * follow: the hash of a concatenation comes from the hashes of its parts, so that asking "is left +
 * right a token?" reads no bytes; and a file can't hold strings made to collide. */

__extension__ typedef unsigned __int128 tok_u128;

#define TOK_PRIME ((uint64_t)0x1fffffffffffffff)

static inline uint64_t tok_mulmod(uint64_t a, uint64_t b)
{
    tok_u128 p = (tok_u128)a * b;
    uint64_t r = (uint64_t)(p & TOK_PRIME) + (uint64_t)(p >> 61);
    return r >= TOK_PRIME ? r - TOK_PRIME : r;
}

/* h of a string, then one more byte */
static inline uint64_t tok_hash_byte(uint64_t h, uint64_t base, uint8_t byte)
{
    uint64_t r = tok_mulmod(h, base) + byte + 1;
    return r >= TOK_PRIME ? r - TOK_PRIME : r;
}

static inline uint64_t tok_hash(uint64_t base, const char *s, size_t n)
{
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++)
        h = tok_hash_byte(h, base, (uint8_t)s[i]);
    return h;
}

/* --- the vocabulary -------------------------------------------------------- */

typedef enum tok_attr {
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 4,
    TOK_USER = 8, /* user-defined: found in a text before anything else */
    TOK_UNUSED = 16,
    TOK_BYTE = 32,
    TOK_EOG = 64,     /* ends a generation                                      */
    TOK_RSTRIP = 128, /* white space after it belongs to it and vanishes        */
} tok_attr;

enum { TOK_SPECIAL = TOK_UNKNOWN | TOK_CONTROL | TOK_USER };

typedef struct tok_slot {
    uint32_t tag; /* high bits of the hash                     */
    int32_t id;   /* + 1; 0 = free                             */
} tok_slot;

typedef struct tok_merge {
    int32_t left, right, merged;
} tok_merge;

typedef struct tok_merge_slot {
    uint32_t tag;
    uint32_t rank; /* + 1; 0 = free */
} tok_merge_slot;

/* Automaton over the special tokens' reversed texts (Aho and Corasick 1975): reading a text from
 * its end, the state names the longest special token that starts at the current byte. */
typedef struct tok_node {
    int32_t child, sibling; /* -1 = none                                                 */
    int32_t fail;
    int32_t rank; /* of the token that starts here, in order of priority; -1 = none       */
    int32_t link; /* next node on the way of failures that has a rank; -1 = none          */
    uint8_t byte;
} tok_node;

typedef enum tok_kind { TOK_KIND_BPE, TOK_KIND_SPM } tok_kind;

enum { TOK_MAX_PATTERNS = 5 };

struct ts_tokenizer {
    const ts_gguf *g;
    tok_kind kind;
    int32_t n;
    ts_str *text;  /* [n] as in the file                                     */
    ts_str *piece; /* [n] the bytes it stands for                            */
    uint8_t *attr; /* [n] of tok_attr                                        */
    char *arena;   /* pieces that are not in the file as they are            */

    uint64_t base;  /* of the hash                                            */
    uint64_t *pow;  /* [max_len + 1] its powers                               */
    size_t max_len; /* longest token                                          */
    tok_slot *slots;
    size_t n_slots; /* a power of two */

    bool add_bos, add_eos, add_space_prefix;
    int32_t bos, eos, unk; /* -1 = none                                        */
    int32_t byte_id[256];  /* the token of one byte, -1 = none                 */

    int32_t *special; /* [n_special] ids, longest text first               */
    int32_t n_special;
    tok_node *node; /* [n_node]; 0 is the root; NULL without special tokens */
    int32_t n_node;
    int32_t root[256]; /* children of the root, 0 = none                    */

    /* BPE */
    tok_merge *merge; /* [n_merge] by rank */
    size_t n_merge;
    tok_merge_slot *merge_slots;
    size_t n_merge_slots;
    bool ignore_merges; /* a word that is a token is that token */
    const struct tok_pre *pre;
    pcre2_code *re[TOK_MAX_PATTERNS];

    /* SPM */
    float *score;          /* [n] */
    bool joins_space[256]; /* some token holds this byte followed by U+2581 */
};

/* Reads tokens, kinds, scores; fills text, attr, score, the hash table and byte_id. */
ts_status tok_vocab_load(ts_tokenizer *t, ts_error *err);
/* Fills piece; the kinds are final by then. */
ts_status tok_vocab_pieces(ts_tokenizer *t, ts_error *err);
/* The token whose text is a[na] followed by b[nb], given the hash of both; -1 = none. */
int32_t tok_find2(const ts_tokenizer *t, uint64_t hash, const char *a, size_t na, const char *b,
                  size_t nb);
/* The same in parts, for those who look up many: ask for the memory of the first place to look;
 * then the id that is probably (by part of its hash) the one, -1 = surely none. */
void tok_prefetch(const ts_tokenizer *t, uint64_t hash);
int32_t tok_likely(const ts_tokenizer *t, uint64_t hash);
/* The token with this text, -1 = none. */
int32_t tok_find(const ts_tokenizer *t, const char *s, size_t n);
/* The GPT-2 alphabet: byte -> its printable stand-in, a code point below 0x144; and back, -1 for a
 * code point outside of it. */
uint32_t tok_byte_char(uint8_t byte);
int tok_char_byte(uint32_t cp);

/* BOS, EOS, EOT, ... and the kinds that follow from texts. */
ts_status tok_special_load(ts_tokenizer *t, ts_error *err);
/* The automaton. */
ts_status tok_find_build(ts_tokenizer *t, ts_error *err);

ts_status tok_bpe_load(ts_tokenizer *t, ts_error *err);
void tok_spm_load(ts_tokenizer *t);

/* --- pre-tokenizers ----------------------------------------------------------- */

extern const size_t tok_unicode_n;
extern const uint32_t tok_unicode[];

/* Looks up tokenizer.ggml.pre, compiles its expressions, sets ignore_merges and add_bos. */
ts_status tok_pre_load(ts_tokenizer *t, ts_error *err);
void tok_pre_free(ts_tokenizer *t);

/* --- work of one call -------------------------------------------------------- */

/* A piece of the text while it is merged: a doubly linked list in text order. */
typedef struct tok_sym {
    int32_t prev, next;
    uint32_t pos, len; /* bytes of the text; len 0 = merged into its left neighbour */
    int32_t id;        /* BPE */
    uint64_t hash;     /* SPM */
} tok_sym;

/* A possible merge. The smallest key comes first: rank (BPE) or inverted score (SPM), then left. */
typedef struct tok_bigram {
    uint64_t key;
    uint32_t right;
    uint32_t size; /* bytes of both when it was found: if they differ now, it is out of date. Of a
                      special token's place: bytes from there on that are the template's */
} tok_bigram;

typedef struct tok_frag {
    uint32_t pos, len;
    int32_t id; /* -1 = text */
} tok_frag;

/* Memory of one ts_tokenizer_encode; tok_work_free. */
typedef struct tok_work {
    const ts_tokenizer *t;
    ts_error *err;
    ts_token *out;
    size_t n_out, cap_out;
    tok_sym *sym;
    size_t cap_sym;
    tok_bigram *heap;
    size_t n_heap, cap_heap;
    tok_frag *frag;
    size_t n_frag, cap_frag;
    uint8_t *cls;
    size_t cap_cls;
    char *norm;
    size_t cap_norm;
    const uint8_t *mark; /* [n] nonzero: special tokens don't touch this byte; NULL: none */
    const char *word;    /* BPE: where the next word begins, moves with the words */
    pcre2_match_data *match;
    pcre2_match_context *limits;
    uint64_t steps; /* work done, in units that should grow linearly: for the tests */
} tok_work;

ts_status tok_work_encode(tok_work *w, const char *text, size_t n, unsigned flags);
void tok_work_free(tok_work *w);

/* Room for n elements, doubling; contents are kept. */
ts_status tok_grow(tok_work *w, void **p, size_t *cap, size_t n, size_t size);
ts_status tok_emit(tok_work *w, int32_t id);

ts_status tok_push(tok_work *w, tok_bigram b);
/* false when the heap is empty */
bool tok_pop(tok_work *w, tok_bigram *b);

/* Cuts text[n] into w->frag at all special tokens, or only at user-defined ones. */
ts_status tok_partition(tok_work *w, const char *text, size_t n, bool all);

/* Appends the ids of text[n] to w->out. */
ts_status tok_bpe_encode(tok_work *w, const char *text, size_t n);
ts_status tok_spm_encode(tok_work *w, const char *text, size_t n, bool space_prefix);

/* One word of the pre-tokenizer: n characters from w->word on, which moves behind them. */
ts_status tok_bpe_word(tok_work *w, size_t n_chars);

#endif

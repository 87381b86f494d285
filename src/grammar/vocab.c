/* vocab.c - sorts the tokens of a vocabulary into trees of bytes. */
#include "grammar/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "grammar/gram.h"

typedef struct word {
    const char *s;
    uint32_t n;
    int32_t id;
} word;

static int by_bytes(const void *a, const void *b)
{
    const word *x = a, *y = b;
    int d = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    if (d == 0)
        d = (x->n > y->n) - (x->n < y->n);
    return d ? d : (x->id > y->id) - (x->id < y->id);
}

static bool begins_character(char c)
{
    return ((uint8_t)c & 0xc0) != 0x80;
}

/* Whole plain characters, but for the last one, which may be begun only. */
static bool is_plain(ts_str s)
{
    size_t chars = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!ts_gram_is_plain((uint8_t)s.s[i]))
            return false;
        chars += begins_character(s.s[i]);
    }
    size_t whole = ts_utf8_valid(s.s, s.n);
    return chars <= TS_VOCAB_RUN && (whole == s.n || ts_utf8_tail(s.s, s.n) == s.n - whole);
}

static size_t shared(const word *a, const word *b)
{
    size_t i = 0;
    while (i < a->n && i < b->n && a->s[i] == b->s[i])
        i++;
    return i;
}

/* Ends the open subtrees below depth; open[d] is the node at depth d of the word before. What the
 * longest word has below a node is known when the node is ended. */
static void end_nodes(ts_trie *t, const uint32_t *open, size_t from, size_t depth)
{
    for (size_t d = from; d > depth; d--) {
        ts_trie_node *n = &t->nodes[open[d]], *up = &t->nodes[open[d - 1]];
        unsigned below = n->below + (unsigned)begins_character((char)n->byte);
        n->end = (uint32_t)t->n;
        if (below > up->below)
            up->below = (uint8_t)(below < 255 ? below : 255);
        t->kinds[open[d - 1]] |= t->kinds[open[d]];
        if (begins_character((char)n->byte))
            t->kinds[open[d - 1]] |= (uint64_t)1 << ts_gram_kind_of(n->byte);
    }
}

static bool build(ts_trie *t, const word *w, size_t n)
{
    size_t most = 1, bytes;
    for (size_t i = 0; i < n; i++)
        if (ts_add_overflow(most, w[i].n - (i ? shared(&w[i - 1], &w[i]) : 0), &most) ||
            most >= UINT32_MAX)
            return false;
    if (ts_mul_overflow(most + 1, sizeof *t->nodes, &bytes))
        return false;
    uint32_t *open = ts_calloc(TS_VOCAB_LONG + 1, sizeof *open);
    t->nodes = malloc(bytes);
    t->kinds = ts_calloc(most, sizeof *t->kinds);
    t->ids = ts_calloc(n, sizeof *t->ids);
    if (!open || !t->nodes || !t->kinds || !t->ids) {
        free(open);
        return false;
    }
    t->nodes[0] = (ts_trie_node){0};
    t->n = 1;
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = i ? shared(&w[i - 1], &w[i]) : 0;
        end_nodes(t, open, depth, same);
        for (depth = same; depth < w[i].n; depth++) {
            open[depth + 1] = (uint32_t)t->n;
            t->nodes[t->n++] = (ts_trie_node){.tok = (uint32_t)t->n_ids,
                                              .depth = (uint16_t)(depth + 1),
                                              .byte = (uint8_t)w[i].s[depth]};
        }
        t->ids[t->n_ids++] = w[i].id;
    }
    end_nodes(t, open, depth, 0);
    t->nodes[0].end = (uint32_t)t->n;
    t->nodes[t->n] = (ts_trie_node){.end = (uint32_t)t->n, .tok = (uint32_t)t->n_ids};
    free(open);
    return true;
}

/* Plain words to the front of w, the others behind them; the number of plain ones. */
static size_t part(ts_vocab *v, word *w, size_t *n)
{
    size_t plain = 0, rest = (size_t)v->n;
    for (int32_t i = 0; i < v->n; i++) {
        ts_str s = v->pieces[i];
        if (s.n > 0 && s.n <= TS_VOCAB_LONG && !v->is_eog[i])
            w[is_plain(s) ? plain++ : --rest] = (word){s.s, (uint32_t)s.n, i};
    }
    *n = plain + (size_t)v->n - rest;
    memmove(w + plain, w + rest, (*n - plain) * sizeof *w);
    return plain;
}

static bool fill(ts_vocab *v, const ts_str *pieces, const uint8_t *eog)
{
    size_t n = (size_t)v->n, n_words;
    word *w = ts_calloc(n, sizeof *w);
    v->pieces = ts_calloc(n, sizeof *v->pieces);
    v->is_eog = ts_calloc(n, 1);
    v->eog = ts_calloc(n, sizeof *v->eog);
    v->all_plain = ts_calloc(v->words, sizeof *v->all_plain);
    if (!w || !v->pieces || !v->is_eog || !v->eog || !v->all_plain) {
        free(w);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        v->pieces[i] = pieces[i];
        v->is_eog[i] = eog[i];
        if (eog[i])
            v->eog[v->n_eog++] = (int32_t)i;
    }
    size_t plain = part(v, w, &n_words);
    for (size_t i = 0; i < plain; i++)
        v->all_plain[w[i].id / 64] |= (uint64_t)1 << w[i].id % 64;
    qsort(w, plain, sizeof *w, by_bytes);
    qsort(w + plain, n_words - plain, sizeof *w, by_bytes);
    bool ok = build(&v->plain, w, plain) && build(&v->rest, w + plain, n_words - plain);
    free(w);
    return ok;
}

ts_status ts_vocab_open(ts_vocab **out, const ts_str *pieces, const uint8_t *eog, int32_t n,
                        ts_error *err)
{
    ts_vocab *v = ts_calloc(1, sizeof *v);
    if (v) {
        v->n = n;
        v->words = ((size_t)n + 63) / 64;
    }
    if (!v || !fill(v, pieces, eog)) {
        ts_vocab_close(v);
        return ts_fail(err, TS_NO_MEMORY, "no memory to sort the %d tokens of the vocabulary",
                       (int)n);
    }
    *out = v;
    return TS_OK;
}

void ts_vocab_close(ts_vocab *v)
{
    if (!v)
        return;
    free(v->pieces);
    free(v->is_eog);
    free(v->eog);
    free(v->all_plain);
    free(v->plain.nodes);
    free(v->plain.kinds);
    free(v->plain.ids);
    free(v->rest.nodes);
    free(v->rest.kinds);
    free(v->rest.ids);
    free(v);
}

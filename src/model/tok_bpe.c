/* tok_bpe.c - byte-level BPE (Sennrich et al., arXiv:1508.07909, on the bytes of a word).
 *
 * A word starts as its bytes. Of all neighbours that a merge names, those of the lowest rank merge,
 * leftmost first, until no merge applies. A heap of candidates makes that O(n log n) in the word's
 * length; candidates whose parts have changed since are skipped when they come up. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "gguf/show.h"
#include "model/tok_internal.h"

#define KEY_MERGES "tokenizer.ggml.merges"

enum { MERGE_BLOCK = 32 };

/* --- merges ------------------------------------------------------------- */

static uint64_t pair_hash(const ts_tokenizer *t, int32_t left, int32_t right)
{
    return tok_mulmod((uint64_t)left << 31 | (uint32_t)right, t->base);
}

static size_t merge_slot(const ts_tokenizer *t, uint64_t hash)
{
    return (size_t)(hash >> 8) & (t->n_merge_slots - 1);
}

/* The rank of left + right, -1 = they don't merge. */
static int64_t find_rank(const ts_tokenizer *t, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return -1;
    uint64_t hash = pair_hash(t, left, right);
    uint32_t tag = (uint32_t)(hash >> 29);
    for (size_t i = merge_slot(t, hash);; i = (i + 1) & (t->n_merge_slots - 1)) {
        tok_merge_slot s = t->merge_slots[i];
        if (s.rank == 0)
            return -1;
        const tok_merge *m = &t->merge[s.rank - 1];
        if (s.tag == tag && m->left == left && m->right == right)
            return s.rank - 1;
    }
}

/* A merge listed twice keeps its first rank. */
static void insert(ts_tokenizer *t, uint32_t rank)
{
    const tok_merge *m = &t->merge[rank];
    uint64_t hash = pair_hash(t, m->left, m->right);
    uint32_t tag = (uint32_t)(hash >> 29);
    size_t i = merge_slot(t, hash);
    for (; t->merge_slots[i].rank != 0; i = (i + 1) & (t->n_merge_slots - 1)) {
        const tok_merge *o = &t->merge[t->merge_slots[i].rank - 1];
        if (t->merge_slots[i].tag == tag && o->left == m->left && o->right == m->right)
            return;
    }
    t->merge_slots[i] = (tok_merge_slot){tag, rank + 1};
}

/* A merge as it is being read: left, right, and both together. */
typedef struct reading {
    const char *l, *r;
    size_t nl, nr;
    uint64_t hash[3];
} reading;

/* "left right": the space that parts them is the first one behind the first byte. false if there is
 * none, or if both together are longer than any token. */
static bool parse(const ts_tokenizer *t, ts_str s, reading *m)
{
    const char *space = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    if (!space || s.n - 1 > t->max_len)
        return false;
    *m = (reading){.l = s.s, .r = space + 1, .nl = (size_t)(space - s.s)};
    m->nr = s.n - m->nl - 1;
    m->hash[0] = tok_hash(t->base, m->l, m->nl);
    m->hash[1] = tok_hash(t->base, m->r, m->nr);
    m->hash[2] = tok_mulmod(m->hash[0], t->pow[m->nr]) + m->hash[1];
    if (m->hash[2] >= TOK_PRIME)
        m->hash[2] -= TOK_PRIME;
    return true;
}

static ts_status bad_merge(const ts_tokenizer *t, ts_str s, size_t rank, ts_error *err)
{
    ts_shown shown;
    const char *text = ts_show(&shown, s.s, s.n);
    if (s.n < 2 || !memchr(s.s + 1, ' ', s.n - 1))
        return ts_fail(err, TS_BAD_FILE,
                       "%s: merge %zu is '%s', not two tokens with a space between",
                       ts_gguf_path(t->g), rank, text);
    return ts_fail(err, TS_BAD_FILE,
                   "%s: merge %zu, '%s', names or makes a token that the vocabulary lacks",
                   ts_gguf_path(t->g), rank, text);
}

/* Merges [first, first + n). Looking up three tokens misses the cache nine times: the table, the
 * token's place, its text. Done a block at a time, the misses overlap. */
static ts_status read_block(ts_tokenizer *t, const ts_str *s, size_t first, size_t n, ts_error *err)
{
    reading m[MERGE_BLOCK];
    for (size_t i = 0; i < n; i++) {
        if (!parse(t, s[first + i], &m[i]))
            return bad_merge(t, s[first + i], first + i, err);
        for (int k = 0; k < 3; k++)
            tok_prefetch(t, m[i].hash[k]);
    }
    int32_t likely[MERGE_BLOCK][3];
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            likely[i][k] = tok_likely(t, m[i].hash[k]);
            if (likely[i][k] < 0)
                return bad_merge(t, s[first + i], first + i, err);
            __builtin_prefetch(&t->text[likely[i][k]]);
        }
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++)
            __builtin_prefetch(t->text[likely[i][k]].s);
    for (size_t i = 0; i < n; i++) {
        const reading *r = &m[i];
        tok_merge x = {tok_find2(t, r->hash[0], r->l, r->nl, r->l, 0),
                       tok_find2(t, r->hash[1], r->r, r->nr, r->r, 0),
                       tok_find2(t, r->hash[2], r->l, r->nl, r->r, r->nr)};
        if (x.left < 0 || x.right < 0 || x.merged < 0)
            return bad_merge(t, s[first + i], first + i, err);
        t->merge[first + i] = x;
        __builtin_prefetch(&t->merge_slots[merge_slot(t, pair_hash(t, x.left, x.right))]);
    }
    for (size_t i = 0; i < n; i++)
        insert(t, (uint32_t)(first + i));
    return TS_OK;
}

ts_status tok_bpe_load(ts_tokenizer *t, ts_error *err)
{
    ts_gguf_arr a = {0};
    bool found;
    ts_status st = ts_gguf_get_arr(t->g, KEY_MERGES, TS_GGUF_STR, &a, &found, err);
    if (st != TS_OK)
        return st;
    if (!found)
        return ts_fail(err, TS_BAD_FILE, "%s: %s is missing", ts_gguf_path(t->g), KEY_MERGES);
    if (a.n > TOK_MAX_TOKENS)
        return ts_fail(err, TS_BAD_FILE, "%s: %s holds %llu merges, more than %d",
                       ts_gguf_path(t->g), KEY_MERGES, (unsigned long long)a.n, TOK_MAX_TOKENS);
    t->n_merge = (size_t)a.n;
    t->n_merge_slots = 16;
    while (t->n_merge_slots < t->n_merge * 3 / 2)
        t->n_merge_slots *= 2;
    t->merge = ts_calloc(t->n_merge, sizeof *t->merge);
    t->merge_slots = ts_calloc(t->n_merge_slots, sizeof *t->merge_slots);
    ts_str *strs = ts_calloc(t->n_merge, sizeof *strs);
    if (!t->merge || !t->merge_slots || !strs) {
        free(strs);
        return ts_fail(err, TS_NO_MEMORY, "no memory for %zu merges", t->n_merge);
    }
    ts_gguf_arr_strs(&a, strs);
    for (size_t i = 0; st == TS_OK && i < t->n_merge; i += MERGE_BLOCK)
        st = read_block(t, strs, i, t->n_merge - i < MERGE_BLOCK ? t->n_merge - i : MERGE_BLOCK,
                        err);
    free(strs);
    return st;
}

/* --- a word ---------------------------------------------------------------- */

/* The token that is the whole word, -1 = none. */
static int32_t whole(const ts_tokenizer *t, const char *s, size_t n)
{
    char text[512];
    size_t k = 0;
    if (n > t->max_len || n > sizeof text / 2)
        return -1;
    for (size_t i = 0; i < n; i++)
        k += ts_utf8_encode(tok_byte_char((uint8_t)s[i]), text + k);
    return tok_find(t, text, k);
}

static ts_status try_pair(tok_work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return TS_OK;
    const tok_sym *a = &w->sym[left], *b = &w->sym[right];
    int64_t rank = find_rank(w->t, a->id, b->id);
    if (rank < 0)
        return TS_OK;
    return tok_push(
        w, (tok_bigram){(uint64_t)rank << 32 | (uint32_t)left, (uint32_t)right, a->len + b->len});
}

static ts_status merge_all(tok_work *w)
{
    tok_bigram b;
    while (tok_pop(w, &b)) {
        int32_t left = (int32_t)(uint32_t)b.key;
        tok_sym *l = &w->sym[left], *r = &w->sym[b.right];
        if (l->len == 0 || r->len == 0 || l->len + r->len != b.size)
            continue;
        l->id = w->t->merge[b.key >> 32].merged;
        l->len += r->len;
        r->len = 0;
        l->next = r->next;
        if (r->next >= 0)
            w->sym[r->next].prev = left;
        ts_status st = try_pair(w, l->prev, left);
        if (st == TS_OK)
            st = try_pair(w, left, l->next);
        if (st != TS_OK)
            return st;
    }
    return TS_OK;
}

/* A byte without a token leaves nothing, as in llama.cpp; real vocabularies have all 256. */
static ts_status emit(tok_work *w, int32_t id)
{
    return id < 0 ? TS_OK : tok_emit(w, id);
}

ts_status tok_bpe_word(tok_work *w, size_t n_chars)
{
    static const uint8_t len_of[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    const ts_tokenizer *t = w->t;
    const char *s = w->word;
    size_t n = 0;
    for (size_t i = 0; i < n_chars; i++)
        n += len_of[(uint8_t)s[n] >> 4];
    w->word += n;
    w->steps += n;
    if (n == 1)
        return emit(w, t->byte_id[(uint8_t)*s]);
    int32_t id = t->ignore_merges ? whole(t, s, n) : -1;
    if (id >= 0)
        return emit(w, id);

    ts_status st = tok_grow(w, (void **)&w->sym, &w->cap_sym, n, sizeof *w->sym);
    if (st != TS_OK)
        return st;
    for (size_t i = 0; i < n; i++)
        w->sym[i] = (tok_sym){.prev = (int32_t)i - 1,
                              .next = i + 1 < n ? (int32_t)i + 1 : -1,
                              .len = 1,
                              .id = t->byte_id[(uint8_t)s[i]]};
    for (size_t i = 1; st == TS_OK && i < n; i++)
        st = try_pair(w, (int32_t)i - 1, (int32_t)i);
    if (st == TS_OK)
        st = merge_all(w);
    for (int32_t i = 0; st == TS_OK && i >= 0; i = w->sym[i].next)
        st = emit(w, w->sym[i].id);
    return st;
}

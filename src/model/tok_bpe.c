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

/* "left right": the space that parts them is the first one behind the first byte. */
static ts_status read_merge(ts_tokenizer *t, ts_str s, size_t rank, ts_error *err)
{
    ts_shown shown;
    const char *space = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    if (!space)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: merge %zu is '%s', not two tokens with a space between",
                       ts_gguf_path(t->g), rank, ts_show(&shown, s.s, s.n));
    size_t nl = (size_t)(space - s.s), nr = s.n - nl - 1;
    const char *l = s.s, *r = space + 1;
    tok_merge m = {-1, -1, -1};
    if (nl + nr <= t->max_len) {
        uint64_t hl = tok_hash(t->base, l, nl), hr = tok_hash(t->base, r, nr);
        uint64_t both = tok_mulmod(hl, t->pow[nr]) + hr;
        both = both >= TOK_PRIME ? both - TOK_PRIME : both;
        m.left = tok_find2(t, hl, l, nl, l + nl, 0);
        m.right = tok_find2(t, hr, r, nr, r + nr, 0);
        m.merged = tok_find2(t, both, l, nl, r, nr);
    }
    if (m.left < 0 || m.right < 0 || m.merged < 0)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: merge %zu, '%s', names or makes a token that the vocabulary lacks",
                       ts_gguf_path(t->g), rank, ts_show(&shown, s.s, s.n));
    t->merge[rank] = m;
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
    for (size_t i = 0; st == TS_OK && i < t->n_merge; i++) {
        st = read_merge(t, strs[i], i, err);
        if (st == TS_OK)
            insert(t, (uint32_t)i);
    }
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

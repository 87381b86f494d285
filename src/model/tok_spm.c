/* tok_spm.c - SentencePiece BPE (Kudo and Richardson, arXiv:1808.06226) with byte fallback.
 *
 * A text starts as its characters, spaces as U+2581. Of all neighbours whose texts together are a
 * token, those with the highest score merge, leftmost first. What is no token in the end becomes
 * the tokens of its bytes.
 *
 * There are no words to begin with: a text of a megabyte is one sequence. But where no
 * token could span two neighbours, nothing can ever merge across them, and the text may be cut
 * there without changing the result. Before U+2581 that is nearly always so: short sequences, small
 * heaps. */
#include <string.h>

#include "model/tok_internal.h"

#define SPACE "\xe2\x96\x81"

void tok_spm_load(ts_tokenizer *t)
{
    for (int32_t i = 0; i < t->n; i++) {
        ts_str s = t->text[i];
        for (size_t j = 1; j + 3 <= s.n; j++) {
            if ((uint8_t)s.s[j] != 0xe2 || memcmp(s.s + j, SPACE, 3) != 0)
                continue;
            bool run = j >= 3 && memcmp(s.s + j - 3, SPACE, 3) == 0;
            if (!run)
                t->joins_space[(uint8_t)s.s[j - 1]] = true;
        }
    }
}

/* Larger scores give smaller numbers. */
static uint32_t score_key(float score)
{
    uint32_t u;
    score += 0.0f; /* -0 is 0 */
    memcpy(&u, &score, sizeof u);
    return u & 0x80000000u ? u : ~(u | 0x80000000u);
}

static uint64_t concat(const ts_tokenizer *t, const tok_sym *a, const tok_sym *b)
{
    uint64_t h = tok_mulmod(a->hash, t->pow[b->len]) + b->hash;
    return h >= TOK_PRIME ? h - TOK_PRIME : h;
}

static ts_status try_pair(tok_work *w, const char *text, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return TS_OK;
    const ts_tokenizer *t = w->t;
    const tok_sym *a = &w->sym[left], *b = &w->sym[right];
    size_t size = (size_t)a->len + b->len;
    if (size > t->max_len)
        return TS_OK;
    int32_t id = tok_find2(t, concat(t, a, b), text + a->pos, size, text, 0);
    if (id < 0)
        return TS_OK;
    uint64_t key = (uint64_t)score_key(t->score[id]) << 32 | (uint32_t)left;
    return tok_push(w, (tok_bigram){key, (uint32_t)right, (uint32_t)size});
}

static ts_status merge_all(tok_work *w, const char *text)
{
    tok_bigram b;
    while (tok_pop(w, &b)) {
        int32_t left = (int32_t)(uint32_t)b.key;
        tok_sym *l = &w->sym[left], *r = &w->sym[b.right];
        if (l->len == 0 || r->len == 0 || l->len + r->len != b.size)
            continue;
        l->hash = concat(w->t, l, r);
        l->len += r->len;
        r->len = 0;
        l->next = r->next;
        if (r->next >= 0)
            w->sym[r->next].prev = left;
        ts_status st = try_pair(w, text, l->prev, left);
        if (st == TS_OK)
            st = try_pair(w, text, left, l->next);
        if (st != TS_OK)
            return st;
    }
    return TS_OK;
}

/* The id of a symbol, or of its bytes; where a byte has no token, the unknown token. */
static ts_status emit(tok_work *w, const char *text, const tok_sym *s)
{
    const ts_tokenizer *t = w->t;
    int32_t id = tok_find2(t, s->hash, text + s->pos, s->len, text, 0);
    if (id >= 0)
        return tok_emit(w, id);
    ts_status st = TS_OK;
    for (uint32_t i = 0; st == TS_OK && i < s->len; i++) {
        int32_t byte = t->byte_id[(uint8_t)text[s->pos + i]];
        int32_t known = byte >= 0 ? byte : t->unk;
        if (known >= 0)
            st = tok_emit(w, known);
    }
    return st;
}

/* w->sym[0..n) are characters that follow one another in text. */
static ts_status sequence(tok_work *w, const char *text, size_t n)
{
    ts_status st = TS_OK;
    w->sym[n - 1].next = -1;
    for (size_t i = 1; st == TS_OK && i < n; i++)
        st = try_pair(w, text, (int32_t)i - 1, (int32_t)i);
    if (st == TS_OK)
        st = merge_all(w, text);
    for (int32_t i = 0; st == TS_OK && i >= 0; i = w->sym[i].next)
        st = emit(w, text, &w->sym[i]);
    return st;
}

static bool is_space(const char *text, const tok_sym *s)
{
    return s->len == 3 && memcmp(text + s->pos, SPACE, 3) == 0;
}

/* Cuts into characters by their first byte, whatever follows it, and into sequences. */
static ts_status sequences(tok_work *w, const char *text, size_t n)
{
    static const uint8_t len_of[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    const ts_tokenizer *t = w->t;
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        size_t len = len_of[(uint8_t)text[i] >> 4];
        len = len < n - i ? len : n - i;
        tok_sym s = {
            .pos = (uint32_t)i, .len = (uint32_t)len, .hash = tok_hash(t->base, text + i, len)};
        if (k > 0 && is_space(text, &s) && !is_space(text, &w->sym[k - 1]) &&
            !t->joins_space[(uint8_t)text[i - 1]]) {
            ts_status st = sequence(w, text, k);
            if (st != TS_OK)
                return st;
            k = 0;
        }
        ts_status st = tok_grow(w, (void **)&w->sym, &w->cap_sym, k + 1, sizeof *w->sym);
        if (st != TS_OK)
            return st;
        s.prev = (int32_t)k - 1;
        s.next = (int32_t)k + 1;
        w->sym[k++] = s;
        i += len;
    }
    w->steps += n;
    return k > 0 ? sequence(w, text, k) : TS_OK;
}

ts_status tok_spm_encode(tok_work *w, const char *text, size_t n, bool space_prefix)
{
    size_t out = 0;
    ts_status st = tok_grow(w, (void **)&w->norm, &w->cap_norm, 3 * (n + 1), 1);
    if (st != TS_OK)
        return st;
    if (space_prefix) {
        memcpy(w->norm, SPACE, 3);
        out = 3;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(w->norm + out, SPACE, 3);
            out += 3;
        } else {
            w->norm[out++] = text[i];
        }
    }
    return sequences(w, w->norm, out);
}

/* tokenizer.c - open and close; text to ids and back. */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "gguf/show.h"
#include "model/tok_internal.h"

/* --- open and close ---------------------------------------------------- */

static ts_status read_kind(ts_tokenizer *t, ts_error *err)
{
    ts_str model = {0};
    bool found;
    ts_status st = ts_gguf_get_str(t->g, "tokenizer.ggml.model", &model, &found, err);
    if (st != TS_OK)
        return st;
    if (!found)
        return ts_fail(err, TS_BAD_FILE, "%s: tokenizer.ggml.model is missing", ts_gguf_path(t->g));
    if (model.n == 4 && memcmp(model.s, "gpt2", 4) == 0) {
        t->kind = TOK_KIND_BPE;
    } else if (model.n == 5 && memcmp(model.s, "llama", 5) == 0) {
        t->kind = TOK_KIND_SPM;
    } else {
        ts_shown shown;
        return ts_fail(err, TS_UNSUPPORTED,
                       "%s: tokenizer.ggml.model is '%s'; only 'gpt2' and 'llama' are supported",
                       ts_gguf_path(t->g), ts_show(&shown, model.s, model.n));
    }
    return TS_OK;
}

ts_status ts_tokenizer_open(ts_tokenizer **out, const ts_gguf *g, ts_error *err)
{
    ts_tokenizer *t = ts_calloc(1, sizeof *t);
    if (!t)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a tokenizer");
    t->g = g;
    ts_status st = read_kind(t, err);
    if (st == TS_OK && t->kind == TOK_KIND_BPE)
        st = tok_pre_load(t, err);
    if (st == TS_OK && t->kind == TOK_KIND_SPM)
        t->add_bos = t->add_space_prefix = true;
    if (st == TS_OK)
        st = tok_vocab_load(t, err);
    if (st == TS_OK)
        st = tok_special_load(t, err);
    if (st == TS_OK)
        st = tok_vocab_pieces(t, err);
    if (st == TS_OK)
        st = tok_find_build(t, err);
    if (st == TS_OK && t->kind == TOK_KIND_BPE)
        st = tok_bpe_load(t, err);
    if (st == TS_OK && t->kind == TOK_KIND_SPM)
        tok_spm_load(t);
    if (st != TS_OK) {
        ts_tokenizer_close(t);
        return st;
    }
    *out = t;
    return TS_OK;
}

void ts_tokenizer_close(ts_tokenizer *t)
{
    if (!t)
        return;
    tok_pre_free(t);
    free(t->text);
    free(t->piece);
    free(t->attr);
    free(t->arena);
    free(t->pow);
    free(t->slots);
    free(t->special);
    free(t->node);
    free(t->merge);
    free(t->merge_slots);
    free(t->score);
    free(t);
}

int64_t ts_tokenizer_n(const ts_tokenizer *t)
{
    return t->n;
}

ts_token ts_tokenizer_bos(const ts_tokenizer *t)
{
    return t->bos;
}

ts_token ts_tokenizer_eos(const ts_tokenizer *t)
{
    return t->eos;
}

bool ts_tokenizer_adds_bos(const ts_tokenizer *t)
{
    return t->add_bos && t->bos >= 0;
}

bool ts_tokenizer_is_eog(const ts_tokenizer *t, ts_token id)
{
    return id >= 0 && id < t->n && (t->attr[id] & TOK_EOG);
}

/* --- memory of one call -------------------------------------------------- */

ts_status tok_grow(tok_work *w, void **p, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return TS_OK;
    size_t want = *cap ? *cap : 64, bytes;
    while (want < n)
        want *= 2;
    void *q = ts_mul_overflow(want, size, &bytes) ? NULL : realloc(*p, bytes);
    if (!q)
        return ts_fail(w->err, TS_NO_MEMORY, "no memory to tokenize: %zu times %zu bytes", want,
                       size);
    *p = q;
    *cap = want;
    return TS_OK;
}

ts_status tok_emit(tok_work *w, int32_t id)
{
    if (w->n_out == w->cap_out) {
        ts_status st = tok_grow(w, (void **)&w->out, &w->cap_out, w->n_out + 1, sizeof *w->out);
        if (st != TS_OK)
            return st;
    }
    w->out[w->n_out++] = id;
    return TS_OK;
}

/* A heap, smallest key first. Four children a node: half the levels of a binary one, and the
 * children of a node mostly share a cache line, which is what counts when a word has a million
 * bytes. */
ts_status tok_push(tok_work *w, tok_bigram b)
{
    if (w->n_heap == w->cap_heap) {
        ts_status st = tok_grow(w, (void **)&w->heap, &w->cap_heap, w->n_heap + 1, sizeof *w->heap);
        if (st != TS_OK)
            return st;
    }
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 4].key > b.key; i = (i - 1) / 4)
        w->heap[i] = w->heap[(i - 1) / 4];
    w->heap[i] = b;
    w->steps++;
    return TS_OK;
}

bool tok_pop(tok_work *w, tok_bigram *b)
{
    if (w->n_heap == 0)
        return false;
    *b = w->heap[0];
    tok_bigram last = w->heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t c; (c = 4 * i + 1) < n; i = c) {
        size_t end = c + 4 < n ? c + 4 : n;
        for (size_t k = c + 1; k < end; k++)
            if (w->heap[k].key < w->heap[c].key)
                c = k;
        if (last.key <= w->heap[c].key)
            break;
        w->heap[i] = w->heap[c];
    }
    if (n > 0)
        w->heap[i] = last;
    w->steps++;
    return true;
}

void tok_work_free(tok_work *w)
{
    free(w->out);
    free(w->sym);
    free(w->heap);
    free(w->frag);
    free(w->cls);
    free(w->norm);
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->limits);
}

/* --- encode --------------------------------------------------------------- */

ts_status tok_work_encode(tok_work *w, const char *text, size_t n, unsigned flags)
{
    const ts_tokenizer *t = w->t;
    ts_status st = TS_OK;
    bool special = flags & TS_TOK_ADD_SPECIAL;
    if (n > TOK_MAX_TEXT || (t->kind == TOK_KIND_SPM && n > TOK_MAX_SPM_TEXT))
        return ts_fail(w->err, TS_BAD_ARG, "a text of %zu bytes is too long to tokenize", n);
    if (special && t->add_bos && t->bos >= 0)
        st = tok_emit(w, t->bos);
    if (st == TS_OK)
        st = tok_partition(w, text, n, flags & TS_TOK_PARSE_SPECIAL);
    bool after_special = true; /* the beginning counts as one */
    for (size_t i = 0; st == TS_OK && i < w->n_frag; i++) {
        tok_frag f = w->frag[i];
        if (f.id >= 0)
            st = tok_emit(w, f.id);
        else if (t->kind == TOK_KIND_BPE)
            st = tok_bpe_encode(w, text + f.pos, f.len);
        else
            st = tok_spm_encode(w, text + f.pos, f.len, t->add_space_prefix && after_special);
        after_special = f.id >= 0;
    }
    if (st == TS_OK && special && t->add_eos && t->eos >= 0)
        st = tok_emit(w, t->eos);
    return st;
}

ts_status ts_tokenizer_encode(const ts_tokenizer *t, const char *text, size_t n, unsigned flags,
                              ts_token **out, size_t *n_out, ts_error *err)
{
    return ts_tokenizer_encode_marked(t, text, NULL, n, flags, out, n_out, err);
}

ts_status ts_tokenizer_encode_marked(const ts_tokenizer *t, const char *text, const uint8_t *mark,
                                     size_t n, unsigned flags, ts_token **out, size_t *n_out,
                                     ts_error *err)
{
    tok_work w = {.t = t, .err = err, .mark = mark};
    ts_status st = tok_work_encode(&w, text, n, flags);
    if (st == TS_OK && !w.out)
        st = tok_grow(&w, (void **)&w.out, &w.cap_out, 1, sizeof *w.out);
    if (st == TS_OK) {
        *out = w.out;
        *n_out = w.n_out;
        w.out = NULL;
    }
    tok_work_free(&w);
    return st;
}

/* --- decode ---------------------------------------------------------------- */

size_t ts_tokenizer_piece(const ts_tokenizer *t, ts_token id, bool special, const char **piece)
{
    *piece = "";
    if (id < 0 || id >= t->n || (!special && (t->attr[id] & (TOK_CONTROL | TOK_UNKNOWN))))
        return 0;
    *piece = t->piece[id].s ? t->piece[id].s : "";
    return t->piece[id].n;
}

/* The space that encoding put before a text at the beginning, or behind a special token, goes
 * again. */
ts_status ts_tokenizer_decode(const ts_tokenizer *t, const ts_token *ids, size_t n, bool special,
                              char **out, size_t *n_out, ts_error *err)
{
    ts_sb b = {0};
    bool after_special = true;
    ts_sb_add(&b, "", 0);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n) {
            ts_sb_free(&b);
            return ts_fail(err, TS_BAD_ARG, "token %zu is %d, but there are %d tokens", i, ids[i],
                           t->n);
        }
        const char *s;
        size_t len = ts_tokenizer_piece(t, ids[i], special, &s);
        bool is_special = t->attr[ids[i]] & TOK_SPECIAL;
        if (t->add_space_prefix && t->kind == TOK_KIND_SPM && after_special && !is_special &&
            len > 0 && *s == ' ') {
            s++;
            len--;
        }
        after_special = is_special;
        ts_sb_add(&b, s, len);
    }
    if (b.failed || !b.s) {
        ts_sb_free(&b);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the text of %zu tokens", n);
    }
    *out = b.s;
    *n_out = b.n;
    return TS_OK;
}

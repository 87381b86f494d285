/* reply_case.h - what the tests of answers share: a chat of a form, and an answer's parts as a
 * text.
 *
 * Parts are written as c(content) r(reasoning) f(name) a(arguments), those of a kind that follow
 * each other as one. */
#ifndef TS_REPLY_CASE_H
#define TS_REPLY_CASE_H

#include <string.h>

#include "base/utf8.h"
#include "chat/chat_case.h"
#include "chat/reply_impl.h"
#include "check.h"
#include "tok_vocab.h"

typedef struct talk {
    ts_gguf *g;
    ts_tokenizer *tok;
    ts_chat *c;
} talk;

static inline talk talk_open(const char *tmpl)
{
    tv v = {0};
    talk t = {0};
    ts_error err = {0};
    tv_small_bpe(&v, "gpt-2");
    CHECK_MSG(tv_open(&v, &t.g, &t.tok, &err) == TS_OK, "%s", err.msg);
    REQUIRE(t.tok);
    CHECK_MSG(ts_chat_open_gguf(&t.c, t.g, t.tok, tmpl, &err) == TS_OK, "%s", err.msg);
    REQUIRE(t.c);
    return t;
}

static inline void talk_close(talk *t)
{
    ts_chat_close(t->c);
    ts_tokenizer_close(t->tok);
    ts_gguf_close(t->g);
}

typedef struct heard {
    ts_sb text;
    int kind;     /* of the last part, -1: none */
    int64_t call; /* of the last call           */
    bool wrong;   /* parts out of order, or cut in a character */
} heard;

static inline ts_status hear(void *user, const ts_reply_part *p, ts_error *err)
{
    static const char *const names[] = {"c(", "r(", "f(", "a("};
    heard *h = user;
    (void)err;
    bool call = p->kind == TS_REPLY_CALL;
    h->wrong |=
        (call ? p->call != h->call + 1 || !p->name : p->n == 0) ||
        (p->kind == TS_REPLY_ARGUMENTS &&
         (p->call != h->call || (h->kind != TS_REPLY_CALL && h->kind != TS_REPLY_ARGUMENTS))) ||
        (p->text && ts_utf8_valid(p->text, p->n) != p->n);
    if (h->kind != (int)p->kind || call) {
        ts_sb_str(&h->text, h->kind >= 0 ? ")" : "");
        ts_sb_str(&h->text, names[p->kind]);
    }
    ts_sb_add(&h->text, call ? p->name : p->text, call ? strlen(p->name) : p->n);
    h->kind = (int)p->kind;
    h->call += call;
    return TS_OK;
}

/* What is read of an answer that comes in pieces of these lengths; the last is what is left. Free
 * it. */
static inline char *heard_of(const ts_chat *c, const char *prompt, const ts_reply_options *opt,
                             const char *s, size_t n, const size_t *cuts, size_t n_cuts)
{
    ts_reply *r = NULL;
    ts_error err = {0};
    heard h = {.kind = -1, .call = -1};
    CHECK_MSG(ts_reply_open(&r, c, prompt, strlen(prompt), opt, &err) == TS_OK, "%s", err.msg);
    REQUIRE(r);
    for (size_t i = 0; i <= n_cuts; i++) {
        size_t k = i < n_cuts ? cuts[i] : n;
        CHECK_MSG(ts_reply_push(r, s, k, i == n_cuts, hear, &h, &err) == TS_OK, "%s", err.msg);
        s += k;
        n -= k;
    }
    CHECK(ts_reply_calls(r) == h.call + 1);
    CHECK_MSG(!h.wrong, "parts of '%s' are wrong", h.text.s);
    CHECK_MSG(r->pos == r->n && r->space.n == (r->state == r_in_thinking ? r->space.n : 0),
              "something of '%s' is left", h.text.s);
    ts_reply_close(r);
    ts_sb_str(&h.text, h.kind >= 0 ? ")" : "");
    return h.text.s;
}

#endif

/* fuzz_reply.c - libFuzzer target for answers of models and grammars of tool calls.
 *
 * The first byte is a form, the second how: bit 0 reasoning, 1 tools, 2 the prompt opened thinking,
 * 3 a grammar is made of the rest, a list of tools (bit 0: of any of them, bit 1: of several
 * calls). Otherwise the rest is an answer. Read at once and in pieces it gives the same parts,
 * which are UTF-8; without calls and thinking all of it comes out; arguments that come in one piece
 * are JSON. A grammar is one, a refusal comes with a printable sentence. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "chat/reply_impl.h"
#include "grammar/gram.h"
#include "grammar/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static const char tools[] =
    "[{\"function\": {\"name\": \"look\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}}}}}, {\"function\": "
    "{\"name\": \"add\"}}, {\"function\": {\"name\": \"run\", \"parameters\": {\"properties\": "
    "{\"code\": {\"type\": [\"object\", \"array\"]}, \"flag\": {\"type\": \"boolean\"}}}}}]";

static size_t n_forms(void)
{
    size_t n = 0;
    while (r_form_row(n))
        n++;
    return n;
}

static void check_refusal(ts_status st, const ts_error *err)
{
    size_t n = strlen(err->msg);
    must((st == TS_BAD_ARG || st == TS_UNSUPPORTED) && err->code == st && n > 0);
    must(ts_utf8_valid(err->msg, n) >= n - (n < 4 ? n : 4));
}

/* --- answers --------------------------------------------------------------------------- */

typedef struct heard {
    ts_sb text;
    const ts_reply_form *form;
    int kind;
    int64_t call;
    size_t content;
    bool more; /* calls or thinking */
} heard;

static ts_status hear(void *user, const ts_reply_part *p, ts_error *err)
{
    static const char marks[] = "CRFA";
    heard *h = user;
    (void)err;
    bool call = p->kind == TS_REPLY_CALL;
    must(call ? p->call == h->call + 1 && p->name : p->n > 0);
    must(p->kind != TS_REPLY_ARGUMENTS ||
         (p->call == h->call && (h->kind == TS_REPLY_CALL || h->kind == TS_REPLY_ARGUMENTS)));
    must(!p->text || ts_utf8_valid(p->text, p->n) == p->n);
    if (p->kind == TS_REPLY_ARGUMENTS && (h->form->kind == R_TAGS || h->form->kind == R_PYTHON)) {
        json_t *v = NULL;
        must(ts_json_read(&v, p->text, p->n, "it", TS_JSON_NUL | TS_JSON_TWICE, NULL) == TS_OK);
        must(json_is_object(v));
        json_decref(v);
    }
    if (h->kind != (int)p->kind || call)
        ts_sb_add(&h->text, marks + p->kind, 1);
    ts_sb_add(&h->text, call ? p->name : p->text, call ? strlen(p->name) : p->n);
    h->content += p->kind == TS_REPLY_CONTENT ? p->n : 0;
    h->more |= p->kind != TS_REPLY_CONTENT;
    h->kind = (int)p->kind;
    h->call += call;
    return TS_OK;
}

static void hear_all(const ts_chat *c, unsigned how, const char *s, size_t n, size_t piece,
                     heard *h)
{
    const char *prompt = how & 4 ? c->speech.think->begin : "";
    ts_reply_options opt = {.reasoning = how & 1};
    ts_reply *r = NULL;
    *h = (heard){.form = c->speech.form, .kind = -1, .call = -1};
    if (how & 2) {
        opt.tools = tools;
        opt.n_tools = sizeof tools - 1;
    }
    must(ts_reply_open(&r, c, prompt, strlen(prompt), &opt, NULL) == TS_OK);
    do {
        size_t k = n < piece ? n : piece;
        must(ts_reply_push(r, s, k, k == n, hear, h, NULL) == TS_OK);
        s += k;
        n -= k;
    } while (n > 0);
    must(r->pos == r->n && ts_reply_calls(r) == h->call + 1);
    ts_reply_close(r);
}

static void answer(const ts_chat *c, unsigned how, const char *s, size_t n)
{
    static const size_t pieces[] = {1, 2, 3, 7, 64};
    heard whole, h;
    hear_all(c, how, s, n, n + 1, &whole);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        hear_all(c, how, s, n, pieces[i], &h);
        must(h.text.n == whole.text.n && (!h.text.n || !memcmp(h.text.s, whole.text.s, h.text.n)));
        ts_sb_free(&h.text);
    }
    if (!whole.more && c->speech.form->kind == R_NONE && !(how & 5))
        must(whole.content >= n); /* bytes that are no character become three */
    ts_sb_free(&whole.text);
}

/* --- grammars -------------------------------------------------------------------------- */

static void grammar(const ts_chat *c, unsigned how, const char *s, size_t n)
{
    const char *prompt = how & 4 ? c->speech.think->begin : "";
    char *prefix = NULL, *gbnf = NULL;
    ts_error err = {0};
    r_tools t = {0};
    char name[TS_REPLY_MAX_NAME + 1] = "";
    if (r_tools_open(&t, s, n, &err) == TS_OK) {
        const char *first = json_object_iter_key(json_object_iter(t.names));
        snprintf(name, sizeof name, "%s", first ? first : "");
        r_tools_close(&t);
    }
    ts_status st = ts_reply_grammar(c, prompt, strlen(prompt), s, n, how & 1 ? NULL : name, how & 2,
                                    &prefix, &gbnf, &err);
    if (st) {
        must(!prefix && !gbnf);
        check_refusal(st, &err);
        return;
    }
    ts_gram *g = NULL;
    st = ts_gram_open(&g, gbnf, strlen(gbnf), &err);
    must(st == TS_OK || strstr(err.msg, "more than") || strstr(err.msg, "never end"));
    ts_gram_close(g);
    free(prefix);
    free(gbnf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static size_t n;
    static char source[200];
    if (size < 2)
        return 0;
    if (!n)
        n = n_forms();
    ts_chat c = {.speech = {.form = r_form_row(data[0] % n)}};
    const char *const *needs = c.speech.form->needs;
    snprintf(source, sizeof source, "%s %s", needs[0] ? needs[0] : "", needs[1] ? needs[1] : "");
    c.speech.think = r_think_find(source, strlen(source));
    (data[1] & 8 ? grammar : answer)(&c, data[1], (const char *)data + 2, size - 2);
    return 0;
}

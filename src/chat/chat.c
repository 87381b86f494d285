/* chat.c - templates of a model's file, opened and applied. */
#include "chat/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine.h"
#include "grammar/json.h"

#define KEY "tokenizer.chat_template"

static const char chatml[] = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
                             "{{ m.content }}<|im_end|>\n"
                             "{% endfor %}"
                             "{% if add_generation_prompt %}<|im_start|>assistant\n"
                             "{% endif %}";

/* --- open and close ---------------------------------------------------------------- */

static ts_status add_token(json_t *tokens, const char *name, const ts_tokenizer *tok, ts_token id)
{
    const char *s = "";
    size_t n = id >= 0 ? ts_tokenizer_piece(tok, id, true, &s) : 0;
    return json_object_set_new(tokens, name, json_stringn(s, n)) ? TS_NO_MEMORY : TS_OK;
}

static ts_status set_tokens(ts_chat *c, ts_error *err)
{
    c->tokens = json_object();
    if (!c->tokens || add_token(c->tokens, "bos_token", c->tok, ts_tokenizer_bos(c->tok)) ||
        add_token(c->tokens, "eos_token", c->tok, ts_tokenizer_eos(c->tok)))
        return ts_fail(err, TS_NO_MEMORY, "no memory for the tokens of a chat template");
    return TS_OK;
}

/* Of the chat's two templates the second is the one for tools. */
static ts_status open_one(ts_chat *c, bool tools, const char *name, const char *s, size_t n,
                          ts_error *err)
{
    ts_jinja **out = tools ? &c->tools : &c->main;
    ts_status st = ts_jinja_open(out, name, s, n, err);
    if (st == TS_OK)
        st = ts_chat_probe(*out, c->tokens, tools ? &c->tools_caps : &c->caps, err);
    if (st == TS_OK)
        st = ts_chat_learn(c->tok, s, n, tools ? &c->tools_speech : &c->speech, err);
    return st;
}

/* One of the file's, if it is there. */
static ts_status open_key(ts_chat *c, const ts_gguf *g, const char *key, bool tools, ts_error *err)
{
    char name[300];
    ts_str s = {0};
    bool found;
    ts_status st = ts_gguf_get_str(g, key, &s, &found, err);
    if (st || !found)
        return st;
    snprintf(name, sizeof name, "%s: %s", ts_gguf_path(g), key);
    st = open_one(c, tools, name, s.s, s.n, err);
    if (st == TS_BAD_ARG) { /* it is the file that is wrong */
        st = TS_BAD_FILE;
        if (err)
            err->code = st;
    }
    return st;
}

static ts_status open_templates(ts_chat *c, const ts_gguf *g, const char *text, ts_error *err)
{
    if (text && strcmp(text, "chatml") == 0)
        return open_one(c, false, "chatml", chatml, sizeof chatml - 1, err);
    if (text)
        return open_one(c, false, "the chat template", text, strlen(text), err);
    ts_status st = open_key(c, g, KEY, false, err);
    if (st == TS_OK)
        st = open_key(c, g, KEY ".tool_use", true, err);
    if (st == TS_OK && !c->main)
        st =
            ts_fail(err, TS_UNSUPPORTED,
                    "%s has no chat template (" KEY "): one must be given, as Jinja or by the name "
                    "chatml",
                    ts_gguf_path(g));
    return st;
}

ts_status ts_chat_open_gguf(ts_chat **out, const ts_gguf *g, const ts_tokenizer *tok,
                            const char *text, ts_error *err)
{
    ts_chat *c = ts_calloc(1, sizeof *c);
    if (!c)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a chat template");
    c->tok = tok;
    ts_status st = set_tokens(c, err);
    if (st == TS_OK)
        st = open_templates(c, g, text, err);
    if (st) {
        ts_chat_close(c);
        return st;
    }
    *out = c;
    return TS_OK;
}

ts_status ts_chat_open(ts_chat **out, const ts_engine *e, const char *text, ts_error *err)
{
    return ts_chat_open_gguf(out, e->g, e->tok, text, err);
}

void ts_chat_close(ts_chat *c)
{
    if (!c)
        return;
    ts_jinja_close(c->main);
    ts_jinja_close(c->tools);
    json_decref(c->tokens);
    free(c);
}

/* --- applying ------------------------------------------------------------------------- */

ts_status ts_chat_render(const ts_chat *c, const json_t *request, const struct tm *now,
                         ts_jinja_text *out, ts_error *err)
{
    bool tools = json_array_size(json_object_get(request, "tools")) > 0 && c->tools;
    struct tm clock;
    time_t t = time(NULL);
    json_t *own = json_deep_copy(request);
    if (!own)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the messages of a conversation");
    ts_status st = ts_chat_prepare(own, tools ? &c->tools_caps : &c->caps, err);
    ts_jinja_input in = {.vars = own, .trusted = c->tokens, .now = now};
    if (!now && localtime_r(&t, &clock))
        in.now = &clock;
    if (st == TS_OK)
        st = ts_jinja_render(tools ? c->tools : c->main, &in, out, err);
    json_decref(own);
    return st;
}

ts_status ts_chat_tokens(const ts_chat *c, const ts_jinja_text *text, ts_token **out, size_t *n,
                         ts_error *err)
{
    ts_token *ids = NULL, bos = ts_tokenizer_bos(c->tok);
    size_t k = 0;
    ts_status st = ts_tokenizer_encode_marked(c->tok, text->s, text->mark, text->n,
                                              TS_TOK_PARSE_SPECIAL, &ids, &k, err);
    if (st)
        return st;
    if (ts_tokenizer_adds_bos(c->tok) && (k == 0 || ids[0] != bos)) {
        ts_token *more = realloc(ids, (k + 1) * sizeof *ids);
        if (!more) {
            free(ids);
            return ts_fail(err, TS_NO_MEMORY, "no memory for %zu tokens", k + 1);
        }
        ids = more;
        memmove(ids + 1, ids, k * sizeof *ids);
        ids[0] = bos;
        k++;
    }
    *out = ids;
    *n = k;
    return TS_OK;
}

ts_status ts_chat_apply(const ts_chat *c, const char *json, size_t n, ts_chat_prompt *out,
                        ts_error *err)
{
    json_t *request = NULL;
    ts_jinja_text text = {0};
    ts_token *ids = NULL;
    size_t n_ids = 0;
    ts_status st =
        ts_json_read(&request, json, n, "the conversation", TS_JSON_NUL | TS_JSON_TWICE, err);
    if (st == TS_OK)
        st = ts_chat_render(c, request, NULL, &text, err);
    if (st == TS_OK)
        st = ts_chat_tokens(c, &text, &ids, &n_ids, err);
    json_decref(request);
    free(text.mark);
    if (st) {
        free(text.s);
        return st;
    }
    *out = (ts_chat_prompt){.text = text.s, .n_text = text.n, .ids = ids, .n_ids = n_ids};
    return TS_OK;
}

void ts_chat_prompt_free(ts_chat_prompt *p)
{
    free(p->text);
    free(p->ids);
    *p = (ts_chat_prompt){0};
}

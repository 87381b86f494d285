/* chat.h - a model's chat template, applied: messages to text to tokens.
 *
 * Templates differ in the forms they can read; ts_chat_open tries a few conversations to learn
 * which (probe.c), and each request is brought into these forms (messages.c): contents as text or
 * as parts, arguments of tool calls as text or as an object, a system message of its own or in
 * front of the first question. */
#ifndef TS_CHAT_H
#define TS_CHAT_H

#include "jinja/jinja.h"
#include "model/tokenizer.h"

/* What a template can read. */
typedef struct ts_chat_caps {
    bool text, parts; /* a content: "..." / [{"type": "text", "text": "..."}]  */
    bool object_args; /* arguments of a tool call as an object, not as its text */
    bool system;      /* a message of the role system                         */
} ts_chat_caps;

/* How the answers to a template's prompts are written (reply_form.c). */
typedef struct ts_chat_speech {
    const struct ts_reply_form *form;   /* of tool calls */
    const struct ts_reply_think *think; /* of thinking   */
    bool special;                       /* their markers have control tokens in them */
} ts_chat_speech;

/* Immutable once open. */
struct ts_chat {
    const ts_tokenizer *tok;
    ts_jinja *main, *tools; /* the latter for requests with tools; may be NULL */
    ts_chat_caps caps, tools_caps;
    ts_chat_speech speech, tools_speech;
    json_t *tokens; /* bos_token, eos_token */
};

/* As ts_chat_open in tessera.h, for a file of which there is no engine. */
ts_status ts_chat_open_gguf(ts_chat **out, const ts_gguf *g, const ts_tokenizer *tok,
                            const char *text, ts_error *err);

/* request: see ts_chat_apply; it is not changed. now: NULL = the clock. */
ts_status ts_chat_render(const ts_chat *c, const json_t *request, const struct tm *now,
                         ts_jinja_text *out, ts_error *err);

/* Ids of what was rendered, with one BOS in front where the model wants one, whether the template
 * wrote it or not. */
ts_status ts_chat_tokens(const ts_chat *c, const ts_jinja_text *text, ts_token **out, size_t *n,
                         ts_error *err);

/* messages.c: checks a request and brings it into the template's forms, in place. */
ts_status ts_chat_prepare(json_t *request, const ts_chat_caps *caps, ts_error *err);

/* reply_form.c: finds it in the source of a template. TS_NO_MEMORY. */
ts_status ts_chat_learn(const ts_tokenizer *tok, const char *source, size_t n, ts_chat_speech *out,
                        ts_error *err);

/* probe.c */
ts_status ts_chat_probe(const ts_jinja *t, const json_t *tokens, ts_chat_caps *out, ts_error *err);

#endif

/* reply.h - what a model's answer is made of, read as it comes: content, reasoning, tool calls.
 *
 * Models write calls of tools each in their own form. Which one a template stands for is found in
 * its source (reply_form.c has the table); a template that speaks of no tools has none, and its
 * answers are content. However the text is cut, the parts are the same once those of one kind that
 * follow each other are put together. Text that may be the beginning of a marker is held back
 * until it is known. What looks like a call but isn't one - JSON that doesn't end, a name that no
 * tool has - comes out as content: nothing is lost but white space around thinking and calls. */
#ifndef TS_REPLY_H
#define TS_REPLY_H

#include "tessera.h"

/* One answer's reader. Belongs to one thread at a time; the chat outlives it. */
typedef struct ts_reply ts_reply;

typedef enum ts_reply_kind {
    TS_REPLY_CONTENT,
    TS_REPLY_REASONING,
    TS_REPLY_CALL,      /* a call begins: its name      */
    TS_REPLY_ARGUMENTS, /* the text of its arguments    */
} ts_reply_kind;

/* Valid until the receiver returns. */
typedef struct ts_reply_part {
    ts_reply_kind kind;
    const char
        *text;    /* [n], no NUL behind it: new text of CONTENT, REASONING, ARGUMENTS. Together */
    size_t n;     /* the ARGUMENTS of a call are the JSON text of one object                  */
    int64_t call; /* CALL, ARGUMENTS: which, from 0                                           */
    const char *name; /* CALL: the function's name. A CALL comes once, before its ARGUMENTS */
} ts_reply_part;

/* Whatever it returns but TS_OK ends the reading: ts_reply_push returns the same. */
typedef ts_status ts_reply_fn(void *user, const ts_reply_part *part, ts_error *err);

typedef struct ts_reply_options {
    const char *tools; /* [n_tools] the request's "tools", JSON; NULL: no calls are looked for */
    size_t n_tools;
    bool reasoning; /* thinking is told from the content; else it is content, markers and all */
    const ts_reply *like; /* NULL, or a reader opened with the same tools, which are shared */
    const char *forced; /* ts_reply_grammar's prefix, for an answer made under its grammar; NULL */
} ts_reply_options;

enum {
    TS_REPLY_MAX_TOOLS = 4096,    /* in one request                                        */
    TS_REPLY_MAX_NAME = 256,      /* bytes of a function's name                            */
    TS_REPLY_MAX_HELD = 16 << 20, /* bytes of a call that can't be told from text meanwhile */
};

/* prompt_text[n_prompt_text]: what the template made (ts_chat_prompt), to see whether it opened the
 * thinking. TS_BAD_ARG: tools that aren't a list of functions with names, with a sentence;
 * TS_NO_MEMORY. */
ts_status ts_reply_open(ts_reply **out, const ts_chat *c, const char *prompt_text,
                        size_t n_prompt_text, const ts_reply_options *opt, ts_error *err);

/* text[n] as generated, UTF-8, cut anywhere, control tokens as text where ts_reply_special says so;
 * `last`: nothing follows, and nothing is held back. TS_NO_MEMORY, or what the receiver returned:
 * the reader is of no use then, but to be closed. TS_BAD_ARG: something follows the last. */
ts_status ts_reply_push(ts_reply *r, const char *text, size_t n, bool last, ts_reply_fn *fn,
                        void *user, ts_error *err);

int64_t ts_reply_calls(const ts_reply *r); /* calls so far */
void ts_reply_close(ts_reply *r);

/* Whether the markers of the chat's form may be control tokens, so that the answer has to come with
 * their text (ts_token_piece's `special`). */
bool ts_reply_special(const ts_chat *c);

/* For a tool_choice of "required" (name NULL: any of the tools) or of one function: what the prompt
 * gets as its end, its control tokens parsed (it may be ""; it ends thinking that the prompt
 * opened), and the grammar, GBNF, of what follows; both allocated, ts_free. parallel: more than one
 * call may come. TS_BAD_ARG: no such tools, no tool of this name, or parameters that are no schema;
 * TS_UNSUPPORTED: the form has no grammar, or a schema has a keyword that isn't supported;
 * TS_NO_MEMORY. */
ts_status ts_reply_grammar(const ts_chat *c, const char *prompt_text, size_t n_prompt_text,
                           const char *tools, size_t n_tools, const char *name, bool parallel,
                           char **prefix, char **gbnf, ts_error *err);

#endif

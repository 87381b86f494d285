/* request.h - the body of a request, read: JSON to a struct whose every field is checked.
 *
 * Knows nothing of HTTP and has no engine: what a stranger sends can be tried on it alone
 * (tests/fuzz/fuzz_request.c). */
#ifndef TS_REQUEST_H
#define TS_REQUEST_H

#include <jansson.h>

#include "refusal.h"
#include "sched.h"

typedef enum ts_ask {
    TS_ASK_CHAT,       /* /v1/chat/completions */
    TS_ASK_COMPLETION, /* /v1/completions      */
    TS_ASK_EMBEDDING,  /* /v1/embeddings       */
    TS_ASK_TOKENIZE,   /* /tokenize            */
    TS_ASK_DETOKENIZE, /* /detokenize          */
} ts_ask;

/* What the answer is kept to. */
typedef enum ts_form { TS_FORM_FREE, TS_FORM_JSON, TS_FORM_SCHEMA, TS_FORM_GBNF } ts_form;

typedef enum ts_tool_choice {
    TS_TOOLS_NONE, /* no tools, or they may not be called */
    TS_TOOLS_AUTO,
    TS_TOOLS_REQUIRED,
    TS_TOOLS_NAMED, /* tool_name and no other */
} ts_tool_choice;

/* Of a prompt, an input: a text or ids. */
typedef struct ts_prompt {
    const char *text; /* [n_text] UTF-8; NULL: ids */
    size_t n_text;
    ts_token *ids; /* [n_ids] within the vocabulary */
    size_t n_ids;
} ts_prompt;

enum {
    TS_REQUEST_MAX_CHOICES = 128,
    TS_REQUEST_MAX_PROMPTS = 2048,
    TS_REQUEST_MAX_STOP = 64,
    TS_REQUEST_MAX_PROBS = 20,
    TS_REQUEST_MAX_BIAS = 4096,
};

typedef struct ts_request {
    ts_ask ask;
    json_t *body;      /* owns the texts below but for those that are allocated */
    const char *model; /* NULL: not named */
    bool stream, include_usage;
    bool chat_probs; /* chat: logprobs is true */
    int64_t n;       /* choices of each prompt */
    int64_t n_probs; /* as in ts_gen_options   */
    int64_t max_tokens;
    ts_sampler_options sampling;
    bool seeded; /* sampling.seed was given */
    bool ignore_eos;
    char **stop; /* [n_stop], allocated, the texts too */
    size_t n_stop;
    ts_bias *bias; /* [n_bias], allocated */
    size_t n_bias;
    ts_form form;
    char *schema; /* [n_schema] TS_FORM_SCHEMA: JSON, allocated */
    size_t n_schema;
    const char *gbnf; /* TS_FORM_GBNF */
    ts_tool_choice tool_choice;
    char *tools; /* [n_tools] JSON, allocated; NULL with TS_TOOLS_NONE */
    size_t n_tools;
    char *tool_name; /* allocated */
    bool parallel_calls;
    char *chat; /* [n_chat] chat: what ts_chat_apply reads, allocated */
    size_t n_chat;
    ts_prompt *prompts; /* [n_prompts] all but chat; allocated, its ids too */
    size_t n_prompts;
    bool base64;                     /* embeddings: encoding_format */
    int64_t dimensions;              /* embeddings; 0: not given    */
    bool add_special, parse_special; /* /tokenize                   */
    bool with_pieces;
} ts_request;

/* Reads body[n]; ids of tokens are below n_vocab; defaults: of sampling, for what the request
 * doesn't say. Whatever it returns, ts_request_free is to be called. */
ts_status ts_request_read(ts_request *r, ts_ask ask, const char *body, size_t n, int64_t n_vocab,
                          const ts_sampler_options *defaults, ts_refusal *no);
void ts_request_free(ts_request *r);

/* Gives back what isn't needed any more once prompts and grammar are made of it: the body and all
 * that points into it. A JSON text may take many times its size when it is read. */
void ts_request_drop_body(ts_request *r);

/* request_chat.c: messages, tools, variables of the template. */
ts_status ts_request_read_chat(ts_request *r, ts_refusal *no);

/* request_input.c: everything else's. */
ts_status ts_request_read_input(ts_request *r, int64_t n_vocab, ts_refusal *no);

/* A member that is there and not null: null is what clients send for what they leave open. */
const json_t *ts_request_given(const json_t *object, const char *name);
/* 'name' must be WANT. */
ts_status ts_request_wrong(ts_refusal *no, const char *name, const char *want);

/* A text without NUL at object[name]; NULL or absent leaves *out alone. */
ts_status ts_request_text(const json_t *object, const char *name, const char **out, ts_refusal *no);
ts_status ts_request_bool(const json_t *object, const char *name, bool *out, ts_refusal *no);
/* The JSON text of v, allocated. */
ts_status ts_request_json(const json_t *v, char **out, size_t *n, ts_refusal *no);
ts_status ts_request_no_memory(ts_refusal *no);

#endif

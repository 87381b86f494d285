/* talk.h - a conversation with a model: its messages, its session, answers. */
#ifndef TS_CLI_TALK_H
#define TS_CLI_TALK_H

#include <jansson.h>

#include "base/mem.h"
#include "sampling.h"

/* Where the text of an answer goes as it is made: whole characters; thought: not yet the answer
 * proper, as gpt-oss marks it. False: nobody reads any more. */
typedef bool talk_sink(void *user, const char *s, size_t n, bool thought);

typedef struct talk_opts {
    const char *chat_template; /* Jinja or "chatml"; NULL = the model's */
    json_t *variables;         /* an object, for the template; NULL = none; not owned */
    sampling_opts sampling;
    int64_t batch, predict; /* tokens handed over at once; of an answer, -1 = no limit */
} talk_opts;

/* Why an answer ended. */
typedef enum talk_end { TALK_DONE, TALK_COUNT, TALK_FULL, TALK_INTERRUPTED, TALK_UNREAD } talk_end;

typedef struct talk_numbers {
    int64_t turns;
    int64_t prompt, reused,
        made; /* tokens: of prompts, of these in the KV cache already, of answers */
    double prefill_seconds, decode_seconds;
} talk_numbers;

typedef struct talk {
    const talk_opts *o;
    ts_engine *engine;
    ts_engine_info info;
    ts_session *session;
    ts_chat *chat;
    json_t *messages;          /* list of {"role", "content"} */
    ts_token *cached;          /* [ts_session_pos] what is in the KV cache */
    ts_sb held, said, thought; /* of the answer being made: bytes of a begun character; its texts */
    uint64_t seed;
    talk_numbers last, all;
} talk;

/* The engine stays the caller's. Zero-initialise t; talk_close frees it, also after a failure. */
ts_status talk_open(talk *t, ts_engine *e, const talk_opts *o, ts_error *err);
void talk_close(talk *t);

/* The system message: set, or with NULL or "" taken away. */
ts_status talk_set_system(talk *t, const char *text, ts_error *err);
/* Adds its text, of parts a line each; false: there is none. */
bool talk_system(const talk *t, ts_sb *out);

void talk_reset(talk *t); /* all messages but the system's */

/* Asks and writes the answer to the sink. If it fails the conversation is as before. Of a prompt
 * that begins as what the KV cache holds only the rest is computed. */
ts_status talk_ask(talk *t, const char *text, size_t n, talk_sink *sink, void *user, talk_end *end,
                   ts_error *err);

/* {"messages": [...]} to a file and back. A file that isn't that, or that the template refuses,
 * leaves the conversation as it is. */
ts_status talk_save(const talk *t, const char *path, ts_error *err);
ts_status talk_load(talk *t, const char *path, ts_error *err);

#endif

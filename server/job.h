/* job.h - one request that generates: its prompts, its choices, and what they make on its way out.
 *
 * Two threads meet here. The scheduler's hands over events, which are copied behind one another
 * into a queue of bytes; the one that answers (HTTP's) takes the whole queue and makes JSON of it.
 * Where there is nothing to take, it says so under the same lock and is woken by the next event.
 *
 * A prompt and a number of choices give as many generations as both multiplied; so many of them run
 * at once as there are slots, so that one request never fills the queue. */
#ifndef TS_JOB_H
#define TS_JOB_H

#include <pthread.h>

#include "chat/reply.h"
#include "service.h"

typedef struct ts_job ts_job;

/* The one who answers. All are called from the scheduler's thread but suspend. */
typedef struct ts_job_owner {
    void (*suspend)(void *user); /* nothing is ready: wake will be called, maybe at once */
    void (*wake)(void *user);    /* must return at once */
    bool (*gone)(void *user);    /* nobody listens any more */
    void *user;
} ts_job_owner;

typedef enum ts_job_state {
    TS_JOB_WAITS,  /* the owner was suspended                                         */
    TS_JOB_READY,  /* out has something new, or all                                   */
    TS_JOB_FAILED, /* the refusal says why; of a stream, out ends with its event      */
} ts_job_state;

/* A call of a tool. */
typedef struct ts_job_call {
    char id[TS_ID_MAX];
    ts_sb name, arguments;
} ts_job_call;

typedef struct ts_choice {
    ts_job *job;
    size_t index, prompt;
    ts_gen *gen;
    bool ended; /* the last event was read */
    ts_gen_end end;
    ts_gen_usage usage;
    ts_reply *reply; /* NULL: all text is content */
    float *embedding;
    bool begun; /* stream: the role was said  */
    /* Of an answer that isn't streamed, all; of a stream, what has to go with the next chunk. */
    ts_sb text, thought;
    ts_sb probs[4];     /* JSON: chat [0] entries; completion tokens, logprobs, top, offsets */
    ts_job_call *calls; /* [n_calls] */
    size_t n_calls;
    int64_t characters; /* of text so far, for offsets */
} ts_choice;

struct ts_job {
    ts_service *service;
    ts_request request; /* without its body */
    ts_job_owner owner;
    uint64_t client;
    char id[TS_ID_MAX];
    int64_t created;
    ts_grammar *grammar;
    char *gbnf, *prefix; /* of a call that is wanted */
    ts_prompt *prompts;  /* [n_prompts] ids alone   */
    size_t n_prompts;
    ts_sb shown;        /* the chat's prompt as text */
    ts_choice *choices; /* [n_choices] */
    size_t n_choices, n_started, n_ended;
    ts_sb head; /* a chunk up to its choices */
    ts_sb out;  /* made, and sent up to sent */
    size_t sent;
    ts_sb in; /* the queue as it was taken */
    bool finished;
    ts_job *next;       /* of those that were left */
    bool unread;        /* its reader was too slow */
    bool cut;           /* there was no memory for the rest, not even for an event that says so */
    double first_token; /* seconds; 0: none yet */

    pthread_mutex_t lock; /* of these: */
    ts_sb queue;
    bool waiting, slow;
    atomic_bool doomed; /* what still runs is to end */
};

/* A slow reader's limit: bytes of events nobody has taken. */
enum { TS_JOB_MAX_QUEUE = 1 << 20 };

/* Takes the request over, whatever it returns. When it fails, what it had started has ended. */
ts_status ts_job_open(ts_job **out, ts_service *s, ts_request *r, const ts_job_owner *owner,
                      uint64_t client, ts_refusal *no);
/* Waits, where something still runs, until the step that is being computed ends. NULL is fine. */
void ts_job_close(ts_job *j);
/* The owner goes away: it isn't called any more, and what runs is cancelled. */
void ts_job_leave(ts_job *j);

/* Reads what came and makes the answer of it. After TS_JOB_READY of a job that isn't streamed, out
 * is the whole answer. */
ts_job_state ts_job_pump(ts_job *j, ts_refusal *no);

/* prompt.c: ids and grammar, before anything runs; then a reader for each choice. */
ts_status ts_job_prepare(ts_job *j, ts_refusal *no);
ts_status ts_job_readers(ts_job *j, ts_refusal *no);

/* The sum of all choices: a prompt counts once. */
void ts_job_usage(const ts_job *j, ts_gen_usage *out);

/* What came for one choice, as it lies in the queue. */
typedef struct ts_job_event {
    const char *text; /* [n_text] */
    size_t n_text;
    const char *tokens; /* [n_tokens] packed: ts_job_token */
    size_t n_tokens;
    ts_gen_end end;
} ts_job_event;

/* Reads one packed token, best[TS_REQUEST_MAX_PROBS]; returns what follows it. */
const char *ts_job_token(const char *at, ts_gen_prob *chosen, ts_gen_prob *best, size_t *n_best);

/* answer.c: reads one event into the choice, and, of a stream, into out. */
ts_status ts_answer_event(ts_choice *c, const ts_job_event *ev, ts_refusal *no);
/* Once all have ended: the answer, or a stream's end. */
ts_status ts_answer_finish(ts_job *j, ts_refusal *no);

/* logprobs.c */
void ts_logprobs_add(ts_choice *c, const ts_job_event *ev);
/* ,"logprobs":... of what was added since; a stream's begins anew. */
void ts_logprobs_write(ts_choice *c, ts_sb *b);

/* stream.c */
void ts_stream_role(ts_choice *c);
void ts_stream_text(ts_choice *c, bool thought, const char *s, size_t n);
void ts_stream_call(ts_choice *c, size_t i);
void ts_stream_arguments(ts_choice *c, size_t i, const char *s, size_t n);
void ts_stream_end(ts_choice *c, const char *reason);
void ts_stream_finish(ts_job *j);
void ts_stream_error(ts_job *j, const ts_refusal *no);

/* usage.c: "usage":{...} and "timings":{...}. */
void ts_usage_write(const ts_gen_usage *u, ts_sb *b);
void ts_timings_write(const ts_gen_usage *u, ts_sb *b);

/* embedding.c */
void ts_embedding_write(ts_job *j, ts_sb *b);

#endif

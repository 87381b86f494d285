/* sched.h - many generations at once over one session: continuous batching.
 *
 * One thread, the scheduler's, owns the session. It repeats a step: it looks who has gone or was
 * cancelled, takes waiting generations into free slots (a slot is a timeline of the session), gives
 * every decoding slot one token and the rest of the micro-batch to prompts, a chunk of each,
 * evaluates that as one batch, samples, and hands out what came. So whoever decodes never waits
 * longer than one micro-batch, and a new prompt joins at the next step. A prompt that begins with
 * what another one is just evaluating waits for that and has it from the cache.
 *
 * Slots are shared fairly between clients (ts_gen_options.client): the next generation taken is the
 * oldest of the client that holds the fewest slots. It gets the slot when the KV cache has room for
 * its prompt; nobody overtakes it meanwhile. When the cache runs full, the generation that was
 * taken last gives its pages back and waits, at the head of the queue; it goes on from what of it
 * is still cached, with the same text as if nothing had been. One that alone needs more than the
 * cache has ends with `length`.
 *
 * All functions may be called from any thread. */
#ifndef TS_SCHED_H
#define TS_SCHED_H

#include "tessera.h"

typedef struct ts_sched ts_sched;
typedef struct ts_gen ts_gen; /* one generation */

typedef struct ts_sched_options {
    int64_t n_queue; /* generations that may wait beside those that have a slot or find one free */
    ts_log_fn *log;
    void *log_user;
} ts_sched_options;

typedef struct ts_bias {
    ts_token id;
    float add; /* to its logit; -INFINITY forbids it */
} ts_bias;

typedef enum ts_gen_end {
    TS_GEN_RUNS,
    TS_GEN_STOP,      /* a token that ends a generation, a stop text, a grammar that is complete */
    TS_GEN_LENGTH,    /* max_tokens, or the context or the cache is full */
    TS_GEN_CANCELLED, /* by ts_gen_cancel, or by who receives, who has gone; or the scheduler ends
                       */
    TS_GEN_FAILED,    /* ts_gen_event.error says why */
} ts_gen_end;

typedef struct ts_gen_prob {
    ts_token id;
    float logprob; /* natural logarithm, of the model's own distribution (temperature 1, no
                      penalties) */
} ts_gen_prob;

/* A token whose text is given out, or the first byte of it, with its probabilities. The one that
 * ends a generation isn't given, nor are those of a stop text. */
typedef struct ts_gen_token {
    ts_gen_prob chosen;
    const ts_gen_prob *top; /* [n_top] the most probable, best first */
    size_t n_top;
} ts_gen_token;

typedef struct ts_gen_usage {
    int64_t n_prompt;             /* tokens of the prompt */
    int64_t n_cached;             /* of them, found in the cache */
    int64_t n_made;               /* tokens made, the one that ended it included */
    double wait, prefill, decode; /* seconds: in the queue, until the first token, after it */
} ts_gen_usage;

typedef struct ts_gen_event {
    const char *text; /* [n_text] what is new: whole UTF-8 characters (what isn't UTF-8 becomes
                         U+FFFD), nothing that may become a stop text */
    size_t n_text;
    const ts_gen_token *tokens; /* [n_tokens] the tokens that are new, with n_probs >= 0 */
    size_t n_tokens;
    ts_gen_end end;
    const ts_error *error;
    ts_gen_usage usage; /* so far */
} ts_gen_event;

/* Who receives. Called by the scheduler's thread, which must not wait: copy and return. No lock of
 * the scheduler's is held: whatever is here may be called, but for ts_gen_close, ts_sched_close,
 * ts_sched_drain and ts_sched_kv_*, which wait for that thread. */
typedef struct ts_gen_sink {
    /* Whenever there is something new. The last event has end != TS_GEN_RUNS; nothing is called
     * after it. */
    void (*event)(void *user, const ts_gen_event *ev);
    bool (*gone)(void *user); /* asked once a step; true ends it as cancelled. May be NULL */
    void *user;
} ts_gen_sink;

typedef struct ts_gen_options {
    const ts_token
        *prompt; /* [n_prompt] 1 or more; copied, as everything here is but for grammar */
    size_t n_prompt;
    int64_t max_tokens; /* 0: none, the prompt is only evaluated; < 0: no limit */
    ts_sampler_options sampling;
    const ts_grammar *grammar; /* NULL, or stays open until the last event */
    const ts_bias *bias;       /* [n_bias] */
    size_t n_bias;
    /* [n_stop] UTF-8: texts that end it and are not given out, nor what is behind them. The one
     * that is complete first counts, of two complete with the same byte the longer one. */
    const char *const *stop;
    size_t n_stop;
    int n_probs;      /* < 0: none; else the chosen token's, and of so many best ones (0 to 20) */
    bool special;     /* control tokens are text too, but for one that ends the generation */
    bool ignore_eos;  /* tokens that end a generation can't be chosen */
    uint64_t client;  /* whose it is, for fairness */
    bool again;       /* it follows one of the same request that was added: a full queue takes it */
    float *embedding; /* NULL, or [n_embd] room that stays until the last event: the last hidden
                         state of the prompt's last token, before its first event */
    ts_gen_sink sink;
} ts_gen_options;

/* The engine, and a session on it with options.n_seqs slots (at least 1), which the scheduler owns
 * once it is open: on an error it is still the caller's. TS_BAD_ARG: n_queue is negative, the
 * engine's n_logits or n_ubatch is less than n_seqs, or n_seqs is 0; TS_NO_MEMORY. */
ts_status ts_sched_open(ts_sched **out, ts_engine *e, ts_session *s, const ts_sched_options *opt,
                        ts_error *err);
/* Ends what runs and waits as cancelled, and the thread; closes the session. */
void ts_sched_close(ts_sched *s);

/* Queues one. TS_FULL: the queue is; TS_BAD_ARG with a sentence: an empty prompt, an id outside the
 * vocabulary, a prompt that doesn't fit the context (both lengths named), a bias that is NaN, a
 * stop text that is empty or not UTF-8, more than 20 probabilities, and what ts_sampler_open
 * refuses; TS_UNSUPPORTED: what ts_sampler_set_grammar says; TS_CANCELLED: drained; TS_NO_MEMORY.
 *
 * *out is there before the first event, and valid until ts_gen_close, which may be called at any
 * time (behind ts_sched_close too) and cancels what still runs; when it returns the sink is not
 * called any more. Never from the sink, nor with a lock that the sink takes. */
ts_status ts_sched_add(ts_sched *s, const ts_gen_options *opt, ts_gen **out, ts_error *err);
void ts_gen_cancel(ts_gen *g); /* from the sink too */
void ts_gen_close(ts_gen *g);

/* No more are taken from here on; returns when none runs or waits, or after so many seconds: how
 * many there still are. */
int64_t ts_sched_drain(ts_sched *s, double seconds);

/* Saves and restores the KV cache between two steps (ts_session_kv_save). */
ts_status ts_sched_kv_save(ts_sched *s, const char *path, int64_t *pages, ts_error *err);
ts_status ts_sched_kv_restore(ts_sched *s, const char *path, int64_t *pages, ts_error *err);

typedef struct ts_sched_info {
    int64_t n_slots, n_running, n_waiting, n_queue;
    int64_t n_prompt, n_cached, n_made; /* tokens since the start */
    int64_t n_steps, n_evaluated;       /* batches, and tokens in them */
    int64_t n_done, n_cancelled, n_failed, n_preempted, n_refused;
    double prefill_seconds, decode_seconds; /* of evaluations with and without prompts */
    ts_kv_info kv;                          /* as the last step left it */
} ts_sched_info;

void ts_sched_get_info(ts_sched *s, ts_sched_info *out);

#endif

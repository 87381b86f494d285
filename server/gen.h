/* gen.h - one generation: its tokens, its sampler, its text. */
#ifndef TS_GEN_H
#define TS_GEN_H

#include <stdatomic.h>

#include "out.h"
#include "probs.h"
#include "sched.h"

/* Where a token's text begins in all that the generation makes, and whether it has any. */
typedef struct ts_gen_text {
    size_t at;
    bool empty;
} ts_gen_text;

/* Made by the thread that adds it; from there on the scheduler's, but for what says otherwise. */
struct ts_gen {
    ts_sched *sched;
    ts_gen *next;       /* of those that wait                               */
    atomic_bool cancel; /* set by any thread                                */
    bool quiet;         /* the last event was given out; under sched's lock */

    /* what was asked for */
    int64_t max_tokens;
    ts_bias *bias; /* [n_bias] */
    size_t n_bias;
    int n_probs;
    bool special, ignore_eos;
    uint64_t client;
    float *embedding; /* the caller's, or NULL */
    ts_gen_sink sink;

    /* The timeline: the prompt and what was made. tokens[pos..n) are still to be evaluated: the
     * rest of the prompt, the one token made last, or all of them after a preemption. */
    ts_token *tokens; /* [n] */
    size_t n, cap, n_prompt;
    size_t pos;
    ts_sampler *sampler; /* NULL once it has ended: the grammar may go then */

    /* its slot */
    int32_t seq;    /* -1: it waits                                                    */
    bool begun;     /* the slot's timeline has what the cache had of it                */
    bool preempted; /* it had a slot before                                            */
    size_t shared;  /* tokens at its beginning that another one's timeline had or will
                       have, as it got the slot */
    uint64_t taken; /* a number that grows: who got a slot last                        */
    ts_gen_end end; /* how it ended in this step, and why                             */
    ts_error err;
    size_t chunk, row; /* of the step: tokens evaluated, and its row of logits            */

    /* what it makes */
    ts_out out;
    ts_gen_token *made; /* [n_made] whose text is not given out yet, with n_probs >= 0     */
    ts_gen_text *text;  /* [n_made] the text of each                                       */
    ts_gen_prob *top;   /* [n_made][n_probs]                                               */
    size_t n_made, cap_made;
    ts_gen_usage usage; /* but for the seconds */
    double t_added, t_taken, t_first;
};

/* What generations of one scheduler have in common. */
typedef struct ts_gen_model {
    ts_engine *e;
    size_t n_vocab, n_ctx;
    ts_token *eog; /* [n_eog] tokens that end a generation */
    size_t n_eog;
    float *row; /* [n_vocab] logits as the model made them, while one is sampled */
} ts_gen_model;

/* A generation that waits. TS_BAD_ARG, TS_UNSUPPORTED, TS_NO_MEMORY as ts_sched_add says. */
ts_status ts_gen_make(ts_gen **out, const ts_gen_model *m, const ts_gen_options *opt,
                      ts_error *err);
void ts_gen_free(ts_gen *g); /* NULL is fine */

/* Chooses the next token from logits[n_vocab], which it modifies, and appends it. *end says whether
 * the generation ends with it. */
ts_status ts_gen_take(ts_gen *g, const ts_gen_model *m, float *logits, ts_gen_end *end,
                      ts_error *err);

/* Gives out what is ready, and nothing if nothing is; at the end all that there is. No memory is
 * needed. */
void ts_gen_give(ts_gen *g, ts_gen_end end, const ts_error *err);

#endif

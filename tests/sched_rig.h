/* sched_rig.h - a tiny model, a scheduler on it, and someone who receives. */
#ifndef TS_SCHED_RIG_H
#define TS_SCHED_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "gguf/synth.h"
#include "server/sched.h"

#ifndef MODEL
#define MODEL "sched.gguf"
#endif
#define MAX_MADE 1024

static pthread_mutex_t rig_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t rig_cond = PTHREAD_COND_INITIALIZER;

/* For other threads than main's, whose checks are counted without a lock. */
static atomic_int rig_wrong;

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond) && rig_wrong++ < 20)                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);                     \
    } while (0)

typedef struct rig {
    ts_engine *e;
    ts_sched *s;
    ts_engine_info info;
} rig;

static inline ts_engine *open_engine(int32_t n_seqs, int64_t n_ctx, int64_t n_ubatch)
{
    ts_error err = {0};
    ts_engine_options o;
    ts_engine *e = NULL;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF;
    o.n_threads = 1;
    o.n_ctx = n_ctx;
    o.n_ubatch = n_ubatch;
    o.n_logits = n_seqs;
    o.n_seqs = n_seqs;
    ts_status st = ts_engine_open(&e, MODEL, &o, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(e);
    return e;
}

static inline rig open_rig(int32_t n_seqs, int64_t n_ctx, int64_t n_ubatch, int64_t n_queue)
{
    rig r = {.e = open_engine(n_seqs, n_ctx, n_ubatch)};
    ts_session *s;
    ts_error err = {0};
    ts_engine_get_info(r.e, &r.info);
    REQUIRE(ts_session_open(&s, r.e, &err) == TS_OK);
    ts_status st = ts_sched_open(&r.s, r.e, s, &(ts_sched_options){.n_queue = n_queue}, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(r.s);
    return r;
}

static inline void close_rig(rig *r)
{
    ts_sched_close(r->s);
    ts_engine_close(r->e);
}

/* What came of a generation; under rig_lock while it runs. */
typedef struct heard {
    ts_gen *g;
    char text[4 * MAX_MADE];
    size_t n_text, n_events;
    ts_gen_prob chosen[MAX_MADE], top[MAX_MADE][20];
    size_t n_top[MAX_MADE], text_at[MAX_MADE]; /* how much text there was with it */
    size_t n_made;
    ts_gen_end end;
    ts_error err;
    ts_gen_usage usage;
    size_t order; /* the how manieth to end */
    atomic_bool gone;
    bool cancel_itself;
} heard;

static size_t rig_ended;

static inline void hear(void *user, const ts_gen_event *ev)
{
    heard *h = user;
    pthread_mutex_lock(&rig_lock);
    EXPECT(h->end == TS_GEN_RUNS);
    EXPECT(ev->n_text + ev->n_tokens > 0 || ev->end != TS_GEN_RUNS);
    for (size_t i = 0; i < ev->n_tokens && h->n_made < MAX_MADE; i++) {
        h->chosen[h->n_made] = ev->tokens[i].chosen;
        h->n_top[h->n_made] = ev->tokens[i].n_top;
        for (size_t k = 0; k < ev->tokens[i].n_top; k++)
            h->top[h->n_made][k] = ev->tokens[i].top[k];
        h->text_at[h->n_made++] = h->n_text;
    }
    if (h->n_text + ev->n_text < sizeof h->text) {
        memcpy(h->text + h->n_text, ev->text, ev->n_text);
        h->n_text += ev->n_text;
        h->text[h->n_text] = 0;
    }
    h->n_events++;
    h->usage = ev->usage;
    EXPECT(!ev->error == (ev->end != TS_GEN_FAILED));
    if (ev->error)
        h->err = *ev->error;
    if (ev->end != TS_GEN_RUNS)
        h->order = ++rig_ended;
    if (h->cancel_itself)
        ts_gen_cancel(h->g);
    h->end = ev->end;
    pthread_cond_broadcast(&rig_cond);
    pthread_mutex_unlock(&rig_lock);
}

static inline bool is_gone(void *user)
{
    return ((heard *)user)->gone;
}

/* Greedy, `made` tokens, whatever they are. */
static inline ts_gen_options options(const ts_token *prompt, size_t n, int64_t made, heard *h)
{
    ts_gen_options o = {.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = made,
                        .n_probs = 0,
                        .ignore_eos = true,
                        .sink = {hear, is_gone, h}};
    ts_sampler_options_init(&o.sampling);
    o.sampling.temp = 0;
    return o;
}

static inline void add(rig *r, const ts_gen_options *o)
{
    heard *h = o->sink.user;
    ts_error err = {0};
    ts_status st;
    pthread_mutex_lock(&rig_lock); /* no event before h->g is there */
    st = ts_sched_add(r->s, o, &h->g, &err);
    pthread_mutex_unlock(&rig_lock);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(st == TS_OK);
}

static inline void wait_end(heard *h)
{
    pthread_mutex_lock(&rig_lock);
    while (h->end == TS_GEN_RUNS)
        pthread_cond_wait(&rig_cond, &rig_lock);
    pthread_mutex_unlock(&rig_lock);
    ts_gen_close(h->g);
}

static inline void random_tokens(ts_token *t, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        t[i] = (ts_token)(rnd_u64(&seed) % 380);
}

#endif

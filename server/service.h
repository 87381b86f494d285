/* service.h - what a server serves: one model, its scheduler, its chat template. Shared by all
 * requests; immutable but for the counters. */
#ifndef TS_SERVICE_H
#define TS_SERVICE_H

#include "chat/chat.h"
#include "metrics.h"
#include "request.h"
#include "sched.h"

typedef struct ts_service_options {
    ts_engine *engine; /* stays the caller's, as the scheduler does */
    ts_sched *sched;
    const char *model_path;
    const char *const *names; /* [n_names] what the model is called; none: as its file says */
    size_t n_names;
    const char *chat_template;   /* as for ts_chat_open */
    ts_sampler_options sampling; /* what a request doesn't say */
    bool seeded;                 /* the seed too               */
} ts_service_options;

typedef struct ts_service {
    ts_service_options o;
    ts_engine *engine;
    ts_engine_info info;
    ts_sched *sched;
    ts_chat *chat;    /* NULL: the model has no template */
    ts_error no_chat; /* why                             */
    char **names;     /* [n_names] 1 or more             */
    size_t n_names;
    char *template_text; /* or NULL  */
    char fingerprint[40];
    int64_t started; /* seconds since 1970 */
    ts_metrics metrics;
} ts_service;

ts_status ts_service_open(ts_service **out, const ts_service_options *o, ts_error *err);
void ts_service_close(ts_service *s);

/* Is it called that? */
bool ts_service_is(const ts_service *s, const char *model);

/* Random letters and digits behind a prefix: names of requests and calls. */
enum { TS_ID_MAX = 48 };
void ts_make_id(char out[TS_ID_MAX], const char *prefix);
uint64_t ts_random(void);

/* info.c: answers that need no generation, as JSON. */
void ts_info_models(const ts_service *s, ts_sb *b);
void ts_info_model(const ts_service *s, size_t i, ts_sb *b);
void ts_info_props(const ts_service *s, ts_sb *b);
ts_status ts_info_plan(const ts_service *s, ts_sb *b, ts_refusal *no);
ts_status ts_info_tokenize(const ts_service *s, const ts_request *r, ts_sb *b, ts_refusal *no);
ts_status ts_info_detokenize(const ts_service *s, const ts_request *r, ts_sb *b, ts_refusal *no);

#endif

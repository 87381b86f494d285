/* job.c - generations of a request: started, heard, ended. */
#include "job.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- the scheduler's side --------------------------------------------------------------------- */

/* How an event lies in the queue; its tokens and its text follow. */
typedef struct packed_event {
    uint32_t choice, n_text, n_tokens, token_bytes;
    ts_gen_end end;
    uint32_t error_bytes; /* of a ts_error behind the text: there with TS_GEN_FAILED */
    ts_gen_usage usage;
} packed_event;

typedef struct packed_token {
    ts_gen_prob chosen;
    uint32_t n_best;
} packed_token;

static size_t token_bytes(const ts_gen_event *ev)
{
    size_t n = 0;
    for (size_t i = 0; i < ev->n_tokens; i++)
        n += sizeof(packed_token) + ev->tokens[i].n_top * sizeof(ts_gen_prob);
    return n;
}

static void pack(ts_sb *q, const ts_choice *c, const ts_gen_event *ev)
{
    packed_event e = {.choice = (uint32_t)c->index,
                      .n_text = (uint32_t)ev->n_text,
                      .n_tokens = (uint32_t)ev->n_tokens,
                      .token_bytes = (uint32_t)token_bytes(ev),
                      .end = ev->end,
                      .error_bytes = ev->error ? sizeof *ev->error : 0,
                      .usage = ev->usage};
    ts_sb_add(q, &e, sizeof e);
    for (size_t i = 0; i < ev->n_tokens; i++) {
        const ts_gen_token *t = &ev->tokens[i];
        packed_token p = {.chosen = t->chosen, .n_best = (uint32_t)t->n_top};
        ts_sb_add(q, &p, sizeof p);
        ts_sb_add(q, t->top, t->n_top * sizeof *t->top);
    }
    ts_sb_add(q, ev->text, ev->n_text);
    if (ev->error)
        ts_sb_add(q, ev->error, sizeof *ev->error);
}

const char *ts_job_token(const char *at, ts_gen_prob *chosen, ts_gen_prob *best, size_t *n_best)
{
    packed_token p;
    memcpy(&p, at, sizeof p);
    *chosen = p.chosen;
    *n_best = p.n_best;
    memcpy(best, at + sizeof p, p.n_best * sizeof *best);
    return at + sizeof p + p.n_best * sizeof *best;
}

/* An answer that isn't streamed is looked at when one of its choices ends. */
static void on_event(void *user, const ts_gen_event *ev)
{
    ts_choice *c = user;
    ts_job *j = c->job;
    pthread_mutex_lock(&j->lock);
    if (j->request.stream && ev->end == TS_GEN_RUNS && j->queue.n > TS_JOB_MAX_QUEUE)
        j->slow = true;
    else
        pack(&j->queue, c, ev);
    if (j->slow || j->queue.failed)
        atomic_store(&j->doomed, true);
    bool matters = j->request.stream || ev->end != TS_GEN_RUNS || atomic_load(&j->doomed);
    if (j->waiting && matters) {
        j->waiting = false;
        j->owner.wake(j->owner.user);
    }
    pthread_mutex_unlock(&j->lock);
}

static bool is_gone(void *user)
{
    ts_job *j = ((ts_choice *)user)->job;
    pthread_mutex_lock(&j->lock);
    bool over = atomic_load(&j->doomed) || j->owner.gone(j->owner.user);
    pthread_mutex_unlock(&j->lock);
    return over;
}

void ts_job_leave(ts_job *j)
{
    pthread_mutex_lock(&j->lock);
    atomic_store(&j->doomed, true);
    j->waiting = false;
    pthread_mutex_unlock(&j->lock);
}

/* --- open and close --------------------------------------------------------------------------- */

static void free_choice(ts_choice *c)
{
    for (size_t i = 0; i < c->n_calls; i++) {
        ts_sb_free(&c->calls[i].name);
        ts_sb_free(&c->calls[i].arguments);
    }
    free(c->calls);
    for (size_t i = 0; i < 4; i++)
        ts_sb_free(&c->probs[i]);
    ts_sb_free(&c->text);
    ts_sb_free(&c->thought);
    ts_reply_close(c->reply);
    free(c->embedding);
}

void ts_job_close(ts_job *j)
{
    if (!j)
        return;
    atomic_store(&j->doomed, true);
    for (size_t i = 0; i < j->n_choices; i++)
        ts_gen_close(j->choices[i].gen);
    for (size_t i = 0; i < j->n_choices; i++)
        free_choice(&j->choices[i]);
    free(j->choices);
    for (size_t i = 0; i < j->n_prompts; i++)
        ts_free(j->prompts[i].ids);
    free(j->prompts);
    ts_grammar_close(j->grammar);
    ts_free(j->gbnf);
    ts_free(j->prefix);
    ts_request_free(&j->request);
    ts_sb_free(&j->shown);
    ts_sb_free(&j->head);
    ts_sb_free(&j->out);
    ts_sb_free(&j->in);
    ts_sb_free(&j->queue);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static ts_status start_choice(ts_choice *c, ts_refusal *no)
{
    ts_job *j = c->job;
    const ts_request *r = &j->request;
    bool embedding = r->ask == TS_ASK_EMBEDDING;
    ts_gen_options o = {
        .prompt = j->prompts[c->prompt].ids,
        .n_prompt = j->prompts[c->prompt].n_ids,
        .max_tokens = embedding ? 0 : r->max_tokens,
        .sampling = r->sampling,
        .grammar = j->grammar,
        .bias = r->bias,
        .n_bias = r->n_bias,
        .stop = (const char *const *)r->stop,
        .n_stop = r->n_stop,
        .n_probs = (int)r->n_probs,
        .special = c->reply && ts_reply_special(j->service->chat),
        .ignore_eos = r->ignore_eos,
        .client = j->client,
        .again = j->n_started > 0,
        .embedding = c->embedding,
        .sink = {.event = on_event, .gone = is_gone, .user = c},
    };
    o.sampling.seed += c->index;
    if (ts_sched_add(j->service->sched, &o, &c->gen, &no->err))
        return ts_refuse_error(no, r->ask == TS_ASK_CHAT ? "messages"
                                   : embedding           ? "input"
                                                         : "prompt");
    j->n_started++;
    return TS_OK;
}

/* As many as may run. */
static ts_status start_more(ts_job *j, ts_refusal *no)
{
    ts_sched_info info;
    size_t most;
    if (j->n_started == j->n_choices)
        return TS_OK;
    ts_sched_get_info(j->service->sched, &info);
    most = info.n_slots > 0 ? (size_t)info.n_slots : 1;
    while (j->n_started < j->n_choices && j->n_started - j->n_ended < most) {
        ts_status st = start_choice(&j->choices[j->n_started], no);
        if (st)
            return st;
    }
    return TS_OK;
}

static ts_status make_choices(ts_job *j, ts_refusal *no)
{
    size_t each = j->request.ask == TS_ASK_EMBEDDING ? 1 : (size_t)j->request.n;
    size_t n = j->n_prompts * each;
    if (n > TS_REQUEST_MAX_PROMPTS)
        return ts_refuse(no, 400, "invalid_value", "n",
                         "Prompts times choices are %zu, but at most %d answers can be asked for.",
                         n, TS_REQUEST_MAX_PROMPTS);
    j->choices = ts_calloc(n, sizeof *j->choices);
    if (!j->choices)
        return ts_request_no_memory(no);
    for (; j->n_choices < n; j->n_choices++) {
        ts_choice *c = &j->choices[j->n_choices];
        c->job = j;
        c->index = j->n_choices;
        c->prompt = c->index / each;
        if (j->request.ask != TS_ASK_EMBEDDING)
            continue;
        c->embedding = ts_calloc((size_t)j->service->info.n_embd, sizeof *c->embedding);
        if (!c->embedding) {
            j->n_choices++;
            return ts_request_no_memory(no);
        }
    }
    return TS_OK;
}

ts_status ts_job_open(ts_job **out, ts_service *s, ts_request *r, const ts_job_owner *owner,
                      uint64_t client, ts_refusal *no)
{
    ts_job *j = ts_calloc(1, sizeof *j);
    if (!j) {
        ts_request_free(r);
        return ts_request_no_memory(no);
    }
    j->service = s;
    j->request = *r;
    *r = (ts_request){0};
    j->owner = *owner;
    j->client = client;
    j->created = time(NULL);
    pthread_mutex_init(&j->lock, NULL);
    if (!j->request.seeded && !s->o.seeded)
        j->request.sampling.seed = ts_random();
    ts_make_id(j->id, j->request.ask == TS_ASK_CHAT         ? "chatcmpl-"
                      : j->request.ask == TS_ASK_COMPLETION ? "cmpl-"
                                                            : "emb-");
    ts_status st = ts_job_prepare(j, no);
    ts_request_drop_body(&j->request);
    if (st == TS_OK)
        st = make_choices(j, no);
    if (st == TS_OK)
        st = ts_job_readers(j, no);
    if (st == TS_OK)
        st = start_more(j, no);
    if (st) {
        ts_job_close(j);
        return st;
    }
    *out = j;
    return TS_OK;
}

/* --- the answering side -------------------------------------------------------------------------
 */

static ts_status read_event(ts_job *j, const char *at, size_t *size, ts_refusal *no)
{
    packed_event e;
    memcpy(&e, at, sizeof e);
    ts_choice *c = &j->choices[e.choice];
    const char *tokens = at + sizeof e, *text = tokens + e.token_bytes;
    ts_job_event ev = {
        .text = text, .n_text = e.n_text, .tokens = tokens, .n_tokens = e.n_tokens, .end = e.end};
    *size = sizeof e + e.token_bytes + e.n_text + e.error_bytes;
    c->usage = e.usage;
    c->end = e.end;
    if (e.usage.n_made > 0 && j->first_token == 0)
        j->first_token = e.usage.wait + e.usage.prefill;
    if (e.end != TS_GEN_RUNS) {
        c->ended = true;
        j->n_ended++;
    }
    if (e.end == TS_GEN_FAILED) {
        if (e.error_bytes == sizeof no->err)
            memcpy(&no->err, text + e.n_text, sizeof no->err);
        return ts_refuse_error(no, "");
    }
    if (e.end == TS_GEN_CANCELLED)
        return ts_refuse(no, 503, "shutting_down", "", "The answer was ended by the server.");
    return ts_answer_event(c, &ev, no);
}

static ts_status read_events(ts_job *j, ts_refusal *no)
{
    ts_status st = TS_OK;
    size_t size = 0;
    for (size_t at = 0; st == TS_OK && at < j->in.n; at += size)
        st = read_event(j, j->in.s + at, &size, no);
    j->in.n = 0;
    if (st == TS_OK)
        st = start_more(j, no);
    if (st == TS_OK && j->n_ended == j->n_choices && !j->finished) {
        j->finished = true;
        st = ts_answer_finish(j, no);
    }
    return st == TS_OK && j->out.failed ? ts_request_no_memory(no) : st;
}

static ts_job_state fail(ts_job *j, const ts_refusal *no)
{
    j->finished = true;
    atomic_store(&j->doomed, true);
    if (j->request.stream)
        ts_stream_error(j, no);
    return TS_JOB_FAILED;
}

/* Takes the queue; true: there was nothing, and the owner waits. */
static bool take_queue(ts_job *j, bool *slow, bool *failed)
{
    pthread_mutex_lock(&j->lock);
    ts_sb empty = j->in;
    bool none = j->queue.n == 0 && !j->queue.failed && !j->slow;
    *slow = j->unread = j->slow;
    *failed = j->queue.failed;
    j->in = j->queue;
    j->queue = empty;
    j->queue.failed = *failed;
    if (none) {
        j->waiting = true;
        j->owner.suspend(j->owner.user);
    }
    pthread_mutex_unlock(&j->lock);
    return none;
}

ts_job_state ts_job_pump(ts_job *j, ts_refusal *no)
{
    bool slow, failed;
    while (!j->finished && j->sent == j->out.n) {
        j->out.n = j->sent = 0;
        if (take_queue(j, &slow, &failed))
            return TS_JOB_WAITS;
        if (failed)
            ts_request_no_memory(no);
        else if (slow)
            ts_refuse(no, 500, "slow_reader", "", "The answer isn't read.");
        if (failed || slow || read_events(j, no))
            return fail(j, no);
        if (j->request.stream && j->out.n > 0)
            break;
    }
    return TS_JOB_READY;
}

void ts_job_usage(const ts_job *j, ts_gen_usage *out)
{
    *out = (ts_gen_usage){0};
    size_t prompt = SIZE_MAX;
    for (size_t i = 0; i < j->n_choices; i++) {
        const ts_gen_usage *u = &j->choices[i].usage;
        if (j->choices[i].prompt != prompt) {
            out->n_prompt += u->n_prompt;
            out->n_cached += u->n_cached;
            out->prefill += u->prefill;
        }
        prompt = j->choices[i].prompt;
        out->n_made += u->n_made;
        out->wait = u->wait > out->wait ? u->wait : out->wait;
        out->decode = u->decode > out->decode ? u->decode : out->decode;
    }
}

/* test_sched.c - many generations over one session: what each makes is what it makes alone,
 * however they share batches, pages and slots; who is served when; every way to end.
 *
 * The test stands between the scheduler and the engine (--wrap, CMakeLists.txt): it can hold a
 * step, say what the model answers, and let an evaluation fail. */
#include <unistd.h>

#include "sched_rig.h"

/* --- between scheduler and engine ------------------------------------------------------- */

#define MAX_SPANS 16

static struct {
    bool hold;               /* evaluations wait                                 */
    bool held;               /* one does                                         */
    const ts_token *say;     /* [n_say] tokens that the model wants, or NULL     */
    size_t n_say, said_from; /* the first behind a timeline of so many tokens    */
    ts_status fail;          /* of the next evaluation                           */
    size_t n_evals, n_spans[4096];
    size_t n[4096][MAX_SPANS]; /* tokens of each span                              */
} between;

ts_status __real_ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n,
                                       ts_error *err);
ts_status __wrap_ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n,
                                       ts_error *err);
ts_status __wrap_ts_session_kv_save(ts_session *s, const char *path, int64_t *pages, ts_error *err);

ts_status __wrap_ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n, ts_error *err)
{
    pthread_mutex_lock(&rig_lock);
    between.held = between.hold;
    pthread_cond_broadcast(&rig_cond);
    while (between.hold)
        pthread_cond_wait(&rig_cond, &rig_lock);
    between.held = false;
    ts_status fail = between.fail;
    between.fail = TS_OK;
    if (between.n_evals < 4096) {
        between.n_spans[between.n_evals] = n;
        for (size_t i = 0; i < n && i < MAX_SPANS; i++)
            between.n[between.n_evals][i] = spans[i].n;
        between.n_evals++;
    }
    pthread_mutex_unlock(&rig_lock);
    if (fail) {
        err->code = fail;
        snprintf(err->msg, sizeof err->msg, "the test wants it so");
        return fail;
    }
    ts_status st = __real_ts_session_eval_spans(s, spans, n, err);
    for (size_t i = 0, row = 0; st == TS_OK && between.say && i < n; i++)
        if (spans[i].n_logits) {
            float *l = ts_session_logits(s, row++);
            size_t at = (size_t)ts_session_seq_pos(s, spans[i].seq) - between.said_from;
            EXPECT(at < between.n_say);
            at = at < between.n_say ? at : 0;
            for (size_t k = 0; k < 389; k++)
                l[k] = (float)(k % 7) - 10;
            l[between.say[at]] = 10;
        }
    return st;
}

ts_status __wrap_ts_session_kv_save(ts_session *s, const char *path, int64_t *pages, ts_error *err)
{
    (void)s;
    if (strcmp(path, "good") == 0) {
        *pages = 7;
        return TS_OK;
    }
    err->code = TS_IO;
    snprintf(err->msg, sizeof err->msg, "%s: not written", path);
    return TS_IO;
}

static void hold(bool on)
{
    pthread_mutex_lock(&rig_lock);
    between.hold = on;
    pthread_cond_broadcast(&rig_cond);
    pthread_mutex_unlock(&rig_lock);
}

/* The scheduler is within an evaluation that waits. */
static void wait_held(void)
{
    pthread_mutex_lock(&rig_lock);
    while (!between.held)
        pthread_cond_wait(&rig_cond, &rig_lock);
    pthread_mutex_unlock(&rig_lock);
}

static void forget_evals(void)
{
    pthread_mutex_lock(&rig_lock);
    between.n_evals = 0;
    pthread_mutex_unlock(&rig_lock);
}

/* --- alone -------------------------------------------------------------------------------- */

typedef struct alone {
    ts_engine *e;
    ts_session *s;
    size_t n_vocab;
} alone;

static alone open_alone(void)
{
    alone a = {.e = open_engine(0, 2048, 64)};
    ts_engine_info info;
    ts_engine_get_info(a.e, &info);
    a.n_vocab = (size_t)info.n_vocab;
    REQUIRE(a.n_vocab == 389);
    REQUIRE(ts_session_open(&a.s, a.e, NULL) == TS_OK);
    return a;
}

static void close_alone(alone *a)
{
    ts_session_close(a->s);
    ts_engine_close(a->e);
}

/* What one timeline makes; end-of-generation tokens aren't chosen. rows: [made][n_vocab] or NULL */
static void make_alone(alone *a, const ts_gen_options *o, ts_token *out, size_t made, float *rows)
{
    ts_sampler *p;
    ts_token id;
    REQUIRE(ts_sampler_open(&p, &o->sampling, NULL) == TS_OK);
    REQUIRE(ts_session_rewind(a->s, 0, NULL) == TS_OK);
    REQUIRE(ts_session_eval(a->s, o->prompt, o->n_prompt, 1, NULL) == TS_OK);
    for (size_t i = 0; i < o->n_prompt; i++)
        ts_sampler_accept(p, o->prompt[i]);
    for (size_t i = 0; i < made; i++) {
        float *l = ts_session_logits(a->s, 0);
        if (rows)
            memcpy(rows + i * a->n_vocab, l, a->n_vocab * sizeof *l);
        for (size_t k = 0; k < o->n_bias; k++)
            l[o->bias[k].id] += o->bias[k].add;
        for (size_t k = 0; k < a->n_vocab; k++)
            if (ts_token_is_eog(a->e, (ts_token)k))
                l[k] = -INFINITY;
        REQUIRE(ts_sampler_sample(p, l, a->n_vocab, &id, NULL) == TS_OK);
        ts_sampler_accept(p, id);
        out[i] = id;
        if (i + 1 < made)
            REQUIRE(ts_session_eval(a->s, &id, 1, 1, NULL) == TS_OK);
    }
    ts_sampler_close(p);
}

static void check_same(alone *a, const ts_gen_options *o, const heard *h, size_t made,
                       const char *what)
{
    static ts_token want[MAX_MADE];
    make_alone(a, o, want, made, NULL);
    CHECK_MSG(h->end == TS_GEN_LENGTH && h->n_made == made, "%s: end %d, %zu of %zu tokens, '%s'",
              what, (int)h->end, h->n_made, made, h->err.msg);
    for (size_t i = 0; i < made && i < h->n_made; i++)
        if (h->chosen[i].id != want[i]) {
            CHECK_MSG(false, "%s: token %zu of %zu is %d, not %d", what, i, made, h->chosen[i].id,
                      want[i]);
            break;
        }
    CHECK(h->usage.n_made == (int64_t)made && h->usage.n_prompt == (int64_t)o->n_prompt);
    CHECK(h->usage.wait >= 0 && h->usage.prefill > 0 && h->usage.decode >= 0);
}

/* --- the same as alone ---------------------------------------------------------------------- */

#define MANY 12

/* Prompts of all lengths, some of which begin alike; those of odd numbers are drawn, with
 * penalties, the others greedy. */
static void run_many(alone *a, int32_t n_slots, int64_t n_ctx, int64_t n_ubatch, int64_t made,
                     const char *what, ts_sched_info *info)
{
    static heard h[MANY];
    static ts_token prompt[MANY][400];
    ts_gen_options o[MANY];
    rig r = open_rig(n_slots, n_ctx, n_ubatch, MANY);
    memset(h, 0, sizeof h);
    for (size_t i = 0; i < MANY; i++) {
        static const size_t n[MANY] = {1, 5, 64, 65, 63, 128, 129, 200, 17, 190, 33, 2};
        random_tokens(prompt[i], n[i], i % 3 == 2 ? 77 : 100 + i);
        o[i] = options(prompt[i], n[i], made, &h[i]);
        if (i % 2) {
            o[i].sampling.temp = 1;
            o[i].sampling.repeat_penalty = 1.3f;
            o[i].sampling.seed = i;
        }
        o[i].client = i % 4;
    }
    for (size_t i = 0; i < MANY; i++)
        add(&r, &o[i]);
    for (size_t i = 0; i < MANY; i++)
        wait_end(&h[i]);
    ts_sched_get_info(r.s, info);
    CHECK(info->n_made == MANY * made && info->n_done == MANY && info->n_running == 0 &&
          info->n_waiting == 0 && info->n_failed == 0);
    CHECK_MSG(info->kv.n_held == 0, "%lld pages are held", (long long)info->kv.n_held);
    close_rig(&r);
    for (size_t i = 0; i < MANY; i++)
        check_same(a, &o[i], &h[i], (size_t)made, what);
}

static void test_same(alone *a)
{
    ts_sched_info info;
    run_many(a, 1, 1024, 512, 20, "one at a time", &info);
    CHECK(info.n_preempted == 0);
    run_many(a, 4, 2048, 512, 40, "batched", &info);
    CHECK(info.n_steps < 4 * 45 && info.n_preempted == 0);
    run_many(a, 4, 2048, 8, 20, "chunked", &info);
    run_many(a, 12, 2048, 12, 20, "a slot for each token", &info);
    /* 4 pages */
    run_many(a, 5, 256, 32, 50, "preempted", &info);
    CHECK_MSG(info.n_preempted > 0, "%lld preempted", (long long)info.n_preempted);
    run_many(a, 8, 320, 512, 100, "preempted often", &info);
    CHECK_MSG(info.n_preempted > 3, "%lld preempted", (long long)info.n_preempted);
}

/* --- batches ---------------------------------------------------------------------------------- */

/* Whoever decodes has a token in every batch, and prompts share the rest. */
static void test_chunks(alone *a)
{
    static heard h[3];
    static ts_token prompt[3][300];
    ts_gen_options o[3];
    rig r = open_rig(3, 1024, 32, 4);
    memset(h, 0, sizeof h);
    for (size_t i = 0; i < 3; i++) {
        random_tokens(prompt[i], 300, i);
        o[i] = options(prompt[i], i ? 300 - 100 * (i == 2) : 4, i ? 3 : 60, &h[i]);
    }
    hold(true);
    forget_evals();
    add(&r, &o[0]);
    wait_held();
    add(&r, &o[1]);
    add(&r, &o[2]);
    hold(false);
    for (size_t i = 0; i < 3; i++)
        wait_end(&h[i]);
    CHECK(between.n_spans[0] == 1 && between.n[0][0] == 4);
    size_t prefilled[2] = {0, 0};
    for (size_t i = 1; i <= 14; i++) {
        const size_t *n = between.n[i];
        CHECK_MSG(between.n_spans[i] == 3 && n[0] == 1 && n[0] + n[1] + n[2] == 32,
                  "batch %zu: %zu spans of %zu, %zu, %zu", i, between.n_spans[i], n[0], n[1], n[2]);
        CHECK(i == 14 || (n[1] >= 15 && n[2] >= 15));
        prefilled[0] += n[1];
        prefilled[1] += n[2];
    }
    CHECK_MSG(prefilled[0] == 234 && prefilled[1] == 200, "%zu and %zu", prefilled[0],
              prefilled[1]);
    close_rig(&r);
    for (size_t i = 0; i < 3; i++)
        check_same(a, &o[i], &h[i], i ? 3 : 60, "chunks");
}

/* Prompts that begin alike come together: what they share is evaluated once. */
static void test_shared(alone *a)
{
    static heard h[5];
    static ts_token prompt[5][220];
    ts_gen_options o[5];
    ts_sched_info info;
    rig r = open_rig(5, 2048, 64, 4);
    memset(h, 0, sizeof h);
    hold(true);
    for (size_t i = 0; i < 5; i++) {
        random_tokens(prompt[i], 220, i);
        random_tokens(prompt[i], 200, 9);
        o[i] = options(prompt[i], 220, 5, &h[i]);
        add(&r, &o[i]);
    }
    hold(false);
    for (size_t i = 0; i < 5; i++)
        wait_end(&h[i]);
    ts_sched_get_info(r.s, &info);
    for (size_t i = 0; i < 5; i++) {
        CHECK_MSG(h[i].usage.n_cached == (i ? 192 : 0), "%zu: %lld cached", i,
                  (long long)h[i].usage.n_cached);
        check_same(a, &o[i], &h[i], 5, "shared");
    }
    CHECK(info.n_prompt == 5 * 220 && info.n_cached == 4 * 192);
    CHECK_MSG(info.n_evaluated == 220 + 4 * 28 + 5 * 4, "%lld evaluated",
              (long long)info.n_evaluated);
    /* and later ones find it all, but for the last token's page */
    heard again = {.end = TS_GEN_RUNS};
    ts_gen_options once = options(prompt[2], 192, 2, &again);
    add(&r, &once);
    wait_end(&again);
    CHECK(again.usage.n_cached == 128);
    close_rig(&r);
}

/* Who is evaluating what others wait for goes away: they do it themselves. */
static void test_leader_gone(alone *a)
{
    static heard h[3];
    static ts_token prompt[300];
    ts_gen_options o[3];
    rig r = open_rig(3, 2048, 32, 4);
    memset(h, 0, sizeof h);
    random_tokens(prompt, 300, 12);
    hold(true);
    for (size_t i = 0; i < 3; i++) {
        o[i] = options(prompt, 300, 5, &h[i]);
        add(&r, &o[i]);
    }
    wait_held();
    h[0].gone = true;
    hold(false);
    for (size_t i = 0; i < 3; i++)
        wait_end(&h[i]);
    CHECK(h[0].end == TS_GEN_CANCELLED && h[0].n_made == 0);
    check_same(a, &o[1], &h[1], 5, "leader gone");
    check_same(a, &o[2], &h[2], 5, "leader gone");
    close_rig(&r);
}

/* One that fills the context, or the cache, ends; the last token has no position. */
static void test_full(alone *a)
{
    static heard h[2];
    ts_token prompt[100];
    rig r = open_rig(2, 128, 32, 4);
    memset(h, 0, sizeof h);
    random_tokens(prompt, 100, 3);
    ts_gen_options o = options(prompt, 100, -1, &h[0]);
    add(&r, &o);
    wait_end(&h[0]);
    check_same(a, &o, &h[0], 29, "full");
    ts_gen_options two[2] = {options(prompt, 100, -1, &h[0]), options(prompt, 90, -1, &h[1])};
    memset(h, 0, sizeof h);
    add(&r, &two[0]);
    add(&r, &two[1]);
    wait_end(&h[0]);
    wait_end(&h[1]);
    check_same(a, &two[0], &h[0], 29, "full, not alone");
    check_same(a, &two[1], &h[1], 39, "full, not alone");
    /* a prompt as long as the context has room for one token's logits */
    static ts_token all[128];
    random_tokens(all, 128, 4);
    ts_gen_options most = options(all, 128, -1, &h[0]);
    memset(h, 0, sizeof h);
    add(&r, &most);
    wait_end(&h[0]);
    check_same(a, &most, &h[0], 1, "as long as the context");
    close_rig(&r);
}

/* Four pages: both need the third at once. Who came last waits until the other one has ended,
 * isn't tried before there is room, and is overtaken by nobody who has waited before. */
static void test_who_waits(alone *a)
{
    static heard h[3];
    static ts_token prompt[3][60];
    static const int64_t made[3] = {100, 100, 5};
    ts_gen_options o[3];
    ts_sched_info info;
    rig r = open_rig(2, 256, 64, 4);
    memset(h, 0, sizeof h);
    hold(true);
    for (size_t i = 0; i < 3; i++) {
        random_tokens(prompt[i], 60, i);
        o[i] = options(prompt[i], i < 2 ? 60 : 10, made[i], &h[i]);
        o[i].client = i;
        add(&r, &o[i]);
    }
    hold(false);
    for (size_t i = 0; i < 3; i++)
        wait_end(&h[i]);
    ts_sched_get_info(r.s, &info);
    CHECK_MSG(h[0].order < h[1].order && h[0].order < h[2].order && info.n_preempted == 1,
              "%zu, %zu, %zu, %lld preempted", h[0].order, h[1].order, h[2].order,
              (long long)info.n_preempted);
    CHECK(info.n_prompt == 130 && info.n_cached == 0 && h[1].usage.n_cached == 0);
    for (size_t i = 0; i < 3; i++)
        check_same(a, &o[i], &h[i], (size_t)made[i], "who waits");
    close_rig(&r);
}

/* The cache has room for more than the model was trained for: one that reaches that ends, and
 * nobody else is troubled. */
static void test_trained(void)
{
    static heard h[2];
    static ts_token prompt[2045];
    ts_sched_info info;
    rig r = open_rig(2, 4096, 512, 4);
    memset(h, 0, sizeof h);
    random_tokens(prompt, 2045, 1);
    ts_gen_options o[2] = {options(prompt, 2045, -1, &h[0]), options(prompt + 1, 9, 20, &h[1])};
    for (size_t i = 0; i < 2; i++)
        add(&r, &o[i]);
    for (size_t i = 0; i < 2; i++)
        wait_end(&h[i]);
    ts_sched_get_info(r.s, &info);
    CHECK(h[0].end == TS_GEN_LENGTH && h[0].n_made == 4 && h[1].n_made == 20);
    CHECK(info.n_preempted == 0);
    close_rig(&r);
}

/* --- text ---------------------------------------------------------------------------------------
 */

static ts_token byte_token[256];

static void find_bytes(alone *a)
{
    for (ts_token t = 0; t < 389; t++) {
        const char *s;
        if (ts_token_piece(a->e, t, false, &s) == 1)
            byte_token[(uint8_t)*s] = t;
    }
}

/* The model says these bytes, a token each; then `last`, if it isn't -1. */
static void say(rig *r, heard *h, ts_gen_options *o, const char *text, ts_token last)
{
    static ts_token ids[MAX_MADE];
    size_t n = 0;
    for (; text[n]; n++)
        ids[n] = byte_token[(uint8_t)text[n]];
    if (last >= 0)
        ids[n++] = last;
    between.say = ids;
    between.n_say = n;
    between.said_from = o->n_prompt;
    memset(h, 0, sizeof *h);
    o->max_tokens = (int64_t)n;
    add(r, o);
    wait_end(h);
    between.say = NULL;
}

static void check_text(const heard *h, const char *text, size_t n_tokens, ts_gen_end end,
                       int64_t made)
{
    CHECK_MSG(!strcmp(h->text, text) && h->n_made == n_tokens && h->end == end &&
                  h->usage.n_made == made,
              "'%s', %zu tokens, end %d, %lld made; not '%s', %zu, %d, %lld", h->text, h->n_made,
              (int)h->end, (long long)h->usage.n_made, text, n_tokens, (int)end, (long long)made);
    for (size_t i = 0; i < h->n_made; i++)
        CHECK(h->n_top[i] == 2 && h->top[i][0].id == h->chosen[i].id &&
              h->top[i][0].logprob == h->chosen[i].logprob && h->top[i][1].id == 6);
}

static ts_token find_eog(alone *a)
{
    ts_token t = 388;
    while (!ts_token_is_eog(a->e, t))
        t--;
    return t;
}

static ts_token find_control(alone *a)
{
    const char *s;
    ts_token t = 388;
    while (ts_token_is_eog(a->e, t) || ts_token_piece(a->e, t, false, &s) > 0 ||
           ts_token_piece(a->e, t, true, &s) == 0)
        t--;
    return t;
}

static void test_text(alone *a)
{
    static heard h;
    const ts_token prompt[] = {1, 2, 3}, eog = find_eog(a), control = find_control(a);
    const char *stops[] = {"two", "wow"}, *name;
    rig r = open_rig(2, 512, 32, 4);
    find_bytes(a);
    ts_gen_options o = options(prompt, 3, 0, &h);
    o.ignore_eos = false;
    o.n_probs = 2;
    say(&r, &h, &o, "one", -1);
    check_text(&h, "one", 3, TS_GEN_LENGTH, 3);
    CHECK(h.n_events == 3 && h.text_at[2] == 2);
    say(&r, &h, &o, "one", eog);
    check_text(&h, "one", 3, TS_GEN_STOP, 4);
    /* a character of four tokens comes with the last of them */
    say(&r, &h, &o, "a\xf0\x9f\xa6\x86!", -1);
    check_text(&h, "a\xf0\x9f\xa6\x86!", 6, TS_GEN_LENGTH, 6);
    CHECK(h.n_events == 3 && h.text_at[1] == 1 && h.text_at[4] == 1 && h.text_at[5] == 5);
    say(&r, &h, &o, "a\xff\xc3", eog);
    check_text(&h, "a\xef\xbf\xbd\xef\xbf\xbd", 3, TS_GEN_STOP, 4);
    /* stop texts over tokens */
    o.stop = stops;
    o.n_stop = 2;
    say(&r, &h, &o, "one two three", -1);
    check_text(&h, "one ", 4, TS_GEN_STOP, 7);
    say(&r, &h, &o, "one twowo", -1); /* "two" is complete first */
    check_text(&h, "one ", 4, TS_GEN_STOP, 7);
    say(&r, &h, &o, "on twwow", -1); /* "tw" was held back for nothing */
    check_text(&h, "on tw", 5, TS_GEN_STOP, 8);
    CHECK(h.text_at[3] == 3 && h.text_at[4] == 3); /* both came when it was over */
    say(&r, &h, &o, "on tw", eog);                 /* held back, given at the end */
    check_text(&h, "on tw", 5, TS_GEN_STOP, 6);
    say(&r, &h, &o, "on twwz", -1); /* a part of it goes out before the rest */
    check_text(&h, "on twwz", 7, TS_GEN_LENGTH, 7);
    CHECK(h.text_at[3] == 3 && h.text_at[4] == 3 && h.text_at[5] == 5);
    say(&r, &h, &o, "on tw", -1);
    check_text(&h, "on tw", 5, TS_GEN_LENGTH, 5);
    /* control tokens */
    say(&r, &h, &o, "on", control);
    check_text(&h, "on", 3, TS_GEN_LENGTH, 3);
    o.special = true;
    char want[64];
    size_t n = ts_token_piece(a->e, control, true, &name);
    snprintf(want, sizeof want, "on%.*s", (int)n, name);
    say(&r, &h, &o, "on", control);
    check_text(&h, want, 3, TS_GEN_LENGTH, 3);
    say(&r, &h, &o, "on", eog); /* that one isn't */
    check_text(&h, "on", 2, TS_GEN_STOP, 3);
    o.n_probs = -1;
    say(&r, &h, &o, "on", eog);
    check_text(&h, "on", 0, TS_GEN_STOP, 3);
    /* the second best, then */
    o.ignore_eos = true;
    say(&r, &h, &o, "on", eog);
    CHECK(h.end == TS_GEN_LENGTH && h.usage.n_made == 3 && h.n_text > 2);
    close_rig(&r);
}

static void test_grammar(alone *a)
{
    static heard h;
    const ts_token prompt[] = {byte_token['z'], byte_token['q']};
    static const char gbnf[] = "root ::= \"tea\" [0-9] \"s\"*";
    ts_grammar *g;
    rig r = open_rig(2, 512, 32, 4);
    REQUIRE(ts_grammar_open(&g, r.e, gbnf, sizeof gbnf - 1, NULL) == TS_OK);
    ts_gen_options o = options(prompt, 2, -1, &h);
    o.grammar = g;
    o.ignore_eos = false;
    o.bias = &(ts_bias){byte_token['s'], -100};
    o.n_bias = 1;
    memset(&h, 0, sizeof h);
    add(&r, &o);
    wait_end(&h);
    CHECK_MSG(h.end == TS_GEN_STOP && h.n_text >= 4 && strncmp(h.text, "tea", 3) == 0, "'%s', %d",
              h.text, (int)h.end);
    ts_grammar_close(g);
    static const char fixed[] = "root ::= \"tea\"";
    REQUIRE(ts_grammar_open(&g, r.e, fixed, sizeof fixed - 1, NULL) == TS_OK);
    o.grammar = g;
    memset(&h, 0, sizeof h);
    add(&r, &o);
    wait_end(&h); /* complete: no token is made to say so */
    CHECK_MSG(h.end == TS_GEN_STOP && !strcmp(h.text, "tea"), "'%s', %d", h.text, (int)h.end);
    CHECK((int64_t)h.n_made == h.usage.n_made);
    /* a sampler that fails ends its own generation only */
    static heard other;
    memset(&h, 0, sizeof h);
    memset(&other, 0, sizeof other);
    ts_gen_options o2 = options(prompt, 2, 10, &other);
    ts_bias never[256];
    o.n_bias = 0;
    for (size_t i = 0; i < 389; i++) {
        const char *s;
        if (o.n_bias < 256 && ts_token_piece(r.e, (ts_token)i, false, &s) > 0 && *s == 't')
            never[o.n_bias++] = (ts_bias){(ts_token)i, -INFINITY};
    }
    o.bias = never;
    hold(true);
    add(&r, &o);
    add(&r, &o2);
    hold(false);
    wait_end(&h);
    wait_end(&other);
    CHECK_MSG(h.end == TS_GEN_FAILED || h.end == TS_GEN_LENGTH || h.end == TS_GEN_STOP, "end %d",
              (int)h.end);
    check_same(a, &o2, &other, 10, "beside one that failed");
    ts_grammar_close(g);
    close_rig(&r);
}

/* --- probabilities, bias, embeddings ------------------------------------- */

static void test_probs(alone *a)
{
    static heard h;
    static float rows[20 * 389];
    ts_token prompt[20], made[20];
    rig r = open_rig(2, 512, 32, 4);
    random_tokens(prompt, 20, 8);
    ts_gen_options o = options(prompt, 20, 20, &h);
    o.sampling.temp = 0.7f;
    o.sampling.repeat_penalty = 1.5f;
    o.sampling.seed = 9;
    o.n_probs = 20;
    const ts_bias bias[] = {{5, -INFINITY}, {6, 2}, {7, 3}};
    o.bias = bias;
    o.n_bias = 3;
    memset(&h, 0, sizeof h);
    add(&r, &o);
    wait_end(&h);
    check_same(a, &o, &h, 20, "with everything");
    make_alone(a, &o, made, 20, rows);
    for (size_t i = 0; i < h.n_made; i++) {
        const float *row = rows + i * 389;
        double max = -INFINITY, sum = 0;
        size_t best = 0;
        for (size_t k = 0; k < 389; k++) {
            max = row[k] > max ? (double)row[k] : max;
            best = row[k] > row[best] ? k : best;
        }
        for (size_t k = 0; k < 389; k++)
            sum += exp((double)row[k] - max);
        CHECK(fabs((double)h.chosen[i].logprob - ((double)row[made[i]] - max - log(sum))) < 1e-5);
        CHECK(h.n_top[i] == 20 && h.top[i][0].id == (ts_token)best);
        for (size_t k = 0; k < 20; k++) {
            double want = (double)row[h.top[i][k].id] - max - log(sum);
            CHECK(fabs((double)h.top[i][k].logprob - want) < 1e-5);
            CHECK(k == 0 || h.top[i][k].logprob <= h.top[i][k - 1].logprob);
        }
    }
    /* a bias that decides */
    ts_gen_options b = options(prompt, 20, 5, &h);
    b.bias = &(ts_bias){222, 1000};
    b.n_bias = 1;
    memset(&h, 0, sizeof h);
    add(&r, &b);
    wait_end(&h);
    CHECK(h.n_made == 5 && h.chosen[0].id == 222 && h.chosen[4].id == 222);
    close_rig(&r);
}

static void test_embedding(void)
{
    static heard h[3];
    static ts_token prompt[3][100];
    static float got[3][128], want[128];
    rig r = open_rig(3, 1024, 32, 4);
    ts_engine *e = open_engine(1, 1024, 512);
    ts_session *s;
    REQUIRE(r.info.n_embd == 128 && ts_session_open(&s, e, NULL) == TS_OK);
    memset(h, 0, sizeof h);
    hold(true);
    for (size_t i = 0; i < 3; i++) {
        random_tokens(prompt[i], 100, i);
        ts_gen_options o = options(prompt[i], 10 + 40 * i, i == 1 ? 4 : 0, &h[i]);
        o.embedding = got[i];
        add(&r, &o);
    }
    hold(false);
    for (size_t i = 0; i < 3; i++) {
        int64_t found;
        wait_end(&h[i]);
        CHECK(h[i].end == TS_GEN_LENGTH && h[i].n_made == (i == 1 ? 4 : 0));
        REQUIRE(ts_session_seq_begin(s, 0, prompt[i], 10 + 40 * i, &found, NULL) == TS_OK);
        const ts_span span = {0, prompt[i], 10 + 40 * i, 1};
        REQUIRE(__real_ts_session_eval_spans(s, &span, 1, NULL) == TS_OK);
        REQUIRE(ts_session_embedding(s, 0, want, NULL) == TS_OK);
        CHECK_MSG(memcmp(got[i], want, sizeof want) == 0, "embedding %zu", i);
    }
    ts_session_close(s);
    ts_engine_close(e);
    close_rig(&r);
}

/* --- who is served when -------------------------------------------------- */

static void test_fair(void)
{
    static heard h[10];
    ts_token prompt[4] = {1, 2, 3, 4};
    rig r = open_rig(2, 1024, 32, 20);
    memset(h, 0, sizeof h);
    hold(true);
    /* 1 has both slots and six that wait; then 2 comes with two */
    for (size_t i = 0; i < 8; i++) {
        ts_gen_options o = options(prompt, 4, 3, &h[i]);
        o.client = 1;
        add(&r, &o);
        if (i == 1) {
            hold(true);
            wait_held();
        }
    }
    for (size_t i = 8; i < 10; i++) {
        ts_gen_options o = options(prompt, 4, 3, &h[i]);
        o.client = 2;
        add(&r, &o);
    }
    hold(false);
    for (size_t i = 0; i < 10; i++)
        wait_end(&h[i]);
    size_t first = h[0].order < h[1].order ? h[0].order : h[1].order;
    /* 2's first goes in with the first slot that is free, its second when it has none again */
    CHECK_MSG(h[8].order <= first + 3, "%zu, first %zu", h[8].order, first);
    CHECK_MSG(h[9].order <= first + 5, "%zu, first %zu", h[9].order, first);
    for (size_t i = 3; i < 8; i++) /* the oldest first */
        CHECK_MSG(h[i].order > h[i - 1].order, "%zu: %zu", i, h[i].order);
    close_rig(&r);
}

static void test_queue(void)
{
    static heard h[7];
    ts_token prompt[4] = {1, 2, 3, 4};
    ts_error err = {0};
    ts_sched_info info;
    ts_gen *none = NULL;
    rig r = open_rig(2, 1024, 32, 3);
    memset(h, 0, sizeof h);
    hold(true);
    for (size_t i = 0; i < 5; i++) { /* two of them have slots, or will at the next step */
        ts_gen_options o = options(prompt, 4, i == 4 ? 3 : 10, &h[i]);
        add(&r, &o);
    }
    ts_gen_options o = options(prompt, 4, 10, &h[5]);
    CHECK(ts_sched_add(r.s, &o, &none, &err) == TS_FULL && strstr(err.msg, "wait") && !none);
    wait_held();
    CHECK(ts_sched_add(r.s, &o, &none, NULL) == TS_FULL);
    ts_sched_get_info(r.s, &info);
    CHECK(info.n_refused == 2 && info.n_queue == 3 && info.n_slots == 2);
    CHECK(info.n_running + info.n_waiting == 5);
    h[3].gone = true; /* who waits may go too */
    ts_gen_cancel(h[2].g);
    hold(false);
    wait_end(&h[2]);
    CHECK(h[2].end == TS_GEN_CANCELLED && h[2].usage.n_made == 0 && h[2].usage.prefill == 0);
    wait_end(&h[3]);
    CHECK(h[3].end == TS_GEN_CANCELLED);
    add(&r, &o);
    wait_end(&h[0]);
    wait_end(&h[1]);
    wait_end(&h[4]);
    wait_end(&h[5]);
    CHECK(h[4].end == TS_GEN_LENGTH && h[5].end == TS_GEN_LENGTH);
    ts_sched_get_info(r.s, &info);
    CHECK(info.n_done == 4 && info.n_cancelled == 2);
    close_rig(&r);
    /* no queue at all: as many as there are slots, again and again */
    r = open_rig(2, 1024, 32, 0);
    for (int i = 0; i < 20; i++) {
        memset(h, 0, sizeof h);
        ts_gen_options two[2] = {options(prompt, 4, 2, &h[0]), options(prompt, 4, 2, &h[1])};
        add(&r, &two[0]);
        add(&r, &two[1]);
        wait_end(&h[0]);
        wait_end(&h[1]);
    }
    /* what follows another one of its request is taken all the same */
    memset(h, 0, sizeof h);
    hold(true);
    for (size_t i = 0; i < 3; i++) {
        ts_gen_options more = options(prompt, 4, 2, &h[i]);
        if (i == 2)
            CHECK(ts_sched_add(r.s, &more, &none, NULL) == TS_FULL);
        more.again = i == 2;
        add(&r, &more);
    }
    hold(false);
    for (size_t i = 0; i < 3; i++)
        wait_end(&h[i]);
    CHECK(h[2].end == TS_GEN_LENGTH);
    close_rig(&r);
}

/* Cancelled, gone, or by itself: nothing is made after the step that runs. */
static void test_cancel(void)
{
    static heard h;
    ts_token prompt[4] = {1, 2, 3, 4};
    ts_sched_info info;
    rig r = open_rig(2, 2048, 32, 3);
    for (int way = 0; way < 4; way++) {
        memset(&h, 0, sizeof h);
        h.cancel_itself = way == 2;
        ts_gen_options o = options(prompt, 4, -1, &h);
        hold(way != 2);
        add(&r, &o);
        if (way != 2)
            wait_held();
        if (way == 0)
            ts_gen_cancel(h.g);
        if (way == 1)
            h.gone = true;
        if (way == 3) { /* another thread lets it go on */
            hold(false);
            ts_gen_close(h.g);
            CHECK(h.end == TS_GEN_CANCELLED);
            size_t n = h.n_events;
            usleep(20000);
            CHECK(h.n_events == n);
            continue;
        }
        hold(false);
        wait_end(&h);
        CHECK_MSG(h.end == TS_GEN_CANCELLED && h.n_made <= 1, "way %d: end %d, %zu made", way,
                  (int)h.end, h.n_made);
    }
    ts_sched_get_info(r.s, &info);
    CHECK(info.n_cancelled == 4 && info.n_running == 0 && info.kv.n_held == 0);
    close_rig(&r);
}

/* Whoever receives the last event may add the next one: its slot is free. */
typedef struct chain {
    rig *r;
    heard h[3];
    size_t n;
} chain;

static void chain_event(void *user, const ts_gen_event *ev)
{
    chain *c = user;
    ts_sched_info info;
    static const ts_token prompt[4] = {1, 2, 3, 4};
    if (ev->end == TS_GEN_RUNS)
        return;
    ts_sched_get_info(c->r->s, &info);
    EXPECT(info.n_running == 0 && info.n_waiting == 0 && info.n_done == (int64_t)c->n);
    heard *h = &c->h[c->n];
    ts_gen_options o = options(prompt, 4, 2, h);
    if (++c->n < 3)
        o.sink = (ts_gen_sink){chain_event, NULL, c};
    ts_gen *g;
    ts_status st = ts_sched_add(c->r->s, &o, &g, NULL);
    EXPECT(st == TS_OK);
    pthread_mutex_lock(&rig_lock);
    h->g = st == TS_OK ? g : NULL;
    pthread_cond_broadcast(&rig_cond);
    pthread_mutex_unlock(&rig_lock);
}

static void test_from_sink(void)
{
    static chain c;
    static const ts_token prompt[4] = {1, 2, 3, 4};
    ts_gen *g;
    rig r = open_rig(1, 512, 32, 0);
    c.r = &r;
    c.n = 1;
    ts_gen_options o = options(prompt, 4, 2, NULL);
    o.sink = (ts_gen_sink){chain_event, NULL, &c};
    REQUIRE(ts_sched_add(r.s, &o, &g, NULL) == TS_OK);
    for (size_t i = 1; i < 3; i++) {
        pthread_mutex_lock(&rig_lock);
        while (!c.h[i].g)
            pthread_cond_wait(&rig_cond, &rig_lock);
        pthread_mutex_unlock(&rig_lock);
    }
    wait_end(&c.h[2]);
    CHECK(c.h[2].end == TS_GEN_LENGTH && c.h[2].n_made == 2);
    ts_gen_close(c.h[1].g);
    ts_gen_close(g);
    close_rig(&r);
}

static void test_drain(void)
{
    static heard h[4];
    ts_token prompt[4] = {1, 2, 3, 4};
    ts_gen *none = NULL;
    ts_error err = {0};
    rig r = open_rig(2, 2048, 32, 3);
    memset(h, 0, sizeof h);
    CHECK(ts_sched_drain(r.s, 0) == 0); /* nothing runs */
    close_rig(&r);
    r = open_rig(2, 2048, 32, 3);
    hold(true);
    for (size_t i = 0; i < 3; i++) {
        ts_gen_options o = options(prompt, 4, 10, &h[i]);
        add(&r, &o);
    }
    CHECK(ts_sched_drain(r.s, 0.05) == 3);
    ts_gen_options o = options(prompt, 4, 10, &h[3]);
    CHECK(ts_sched_add(r.s, &o, &none, &err) == TS_CANCELLED && strstr(err.msg, "ending"));
    hold(false);
    CHECK(ts_sched_drain(r.s, 1e9) == 0);
    for (size_t i = 0; i < 3; i++) {
        CHECK(h[i].end == TS_GEN_LENGTH && h[i].n_made == 10);
        ts_gen_close(h[i].g);
    }
    close_rig(&r);
}

/* The scheduler ends while they run and wait; they are closed behind it. */
static void test_close(void)
{
    static heard h[5];
    ts_token prompt[4] = {1, 2, 3, 4};
    rig r = open_rig(2, 2048, 32, 3);
    memset(h, 0, sizeof h);
    for (size_t i = 0; i < 5; i++) {
        ts_gen_options o = options(prompt, 4, -1, &h[i]);
        add(&r, &o);
    }
    ts_sched_close(r.s);
    for (size_t i = 0; i < 5; i++) {
        CHECK_MSG(h[i].end == TS_GEN_CANCELLED, "%zu: end %d", i, (int)h[i].end);
        ts_gen_cancel(h[i].g);
        ts_gen_close(h[i].g);
    }
    ts_gen_close(NULL);
    ts_sched_close(NULL);
    ts_engine_close(r.e);
}

/* --- what isn't right ---------------------------------------------------- */

static void refused(rig *r, const ts_gen_options *o, ts_status want, const char *why)
{
    ts_error err = {0};
    ts_gen *g = NULL;
    ts_status st = ts_sched_add(r->s, o, &g, &err);
    CHECK_MSG(st == want && !g && strstr(err.msg, why), "%d, '%s', not '%s'", (int)st, err.msg,
              why);
}

static void test_bad(void)
{
    static heard h;
    static ts_token prompt[300];
    const char *stop = "";
    rig r = open_rig(2, 256, 32, 3);
    const ts_gen_options good = options(prompt, 4, 10, &h);
    ts_gen_options o = good;
    o.n_prompt = 0;
    refused(&r, &o, TS_BAD_ARG, "empty");
    o.n_prompt = 257;
    refused(&r, &o, TS_BAD_ARG, "257 tokens, but the context holds 256");
    prompt[2] = 389;
    refused(&r, &good, TS_BAD_ARG, "token 2 of the prompt is 389");
    prompt[2] = -1;
    refused(&r, &good, TS_BAD_ARG, "token 2 of the prompt is -1");
    prompt[2] = 0;
    o = good;
    o.n_bias = 1;
    o.bias = &(ts_bias){389, 1};
    refused(&r, &o, TS_BAD_ARG, "bias is for token 389");
    o.bias = &(ts_bias){3, NAN};
    refused(&r, &o, TS_BAD_ARG, "token 3 is not a number");
    o = good;
    o.n_probs = 21;
    refused(&r, &o, TS_BAD_ARG, "21 tokens");
    o = good;
    o.stop = &stop;
    o.n_stop = 1;
    refused(&r, &o, TS_BAD_ARG, "a stop text is empty");
    o = good;
    o.sampling.top_p = 2;
    refused(&r, &o, TS_BAD_ARG, "top-p");
    o = good;
    o.sink.event = NULL;
    refused(&r, &o, TS_BAD_ARG, "nobody receives");
    close_rig(&r);
    /* engines that don't serve */
    static const struct {
        int32_t n_seqs;
        int64_t n_ubatch, n_logits, n_queue;
        const char *why;
    } bad[] = {{0, 32, 1, 1, "n_seqs"},
               {4, 3, 4, 1, "a micro-batch of 3 tokens"},
               {4, 32, 3, 1, "3 rows"},
               {4, 32, 4, -1, "not -1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ts_engine_options eo;
        ts_engine *e;
        ts_session *s;
        ts_sched *sched = NULL;
        ts_error err = {0};
        ts_engine_options_init(&eo);
        eo.isa = TS_ISA_REF;
        eo.n_threads = 1;
        eo.n_ctx = 256;
        eo.n_seqs = bad[i].n_seqs;
        eo.n_ubatch = bad[i].n_ubatch;
        eo.n_logits = bad[i].n_logits;
        REQUIRE(ts_engine_open(&e, MODEL, &eo, NULL) == TS_OK);
        REQUIRE(ts_session_open(&s, e, NULL) == TS_OK);
        const ts_sched_options so = {.n_queue = bad[i].n_queue};
        CHECK_MSG(ts_sched_open(&sched, e, s, &so, &err) == TS_BAD_ARG && !sched &&
                      strstr(err.msg, bad[i].why),
                  "%zu: '%s'", i, err.msg);
        ts_session_close(s);
        ts_engine_close(e);
    }
}

/* An evaluation that fails ends those in it; the next ones go on. */
static void test_failures(alone *a)
{
    static heard h[3];
    static ts_token prompt[3][40];
    ts_gen_options o[3];
    ts_sched_info info;
    rig r = open_rig(2, 512, 32, 3);
    static const ts_status fails[] = {TS_IO, TS_NOT_FINITE, TS_NO_MEMORY};
    for (size_t k = 0; k < 3; k++) {
        memset(h, 0, sizeof h);
        hold(true);
        for (size_t i = 0; i < 3; i++) {
            random_tokens(prompt[i], 40, i);
            o[i] = options(prompt[i], 40, 5, &h[i]);
            add(&r, &o[i]);
            if (i == 0)
                wait_held(); /* alone in the first step */
        }
        between.fail = fails[k];
        hold(false);
        for (size_t i = 0; i < 3; i++)
            wait_end(&h[i]);
        CHECK_MSG(h[0].end == TS_GEN_FAILED && h[0].err.code == fails[k] &&
                      strstr(h[0].err.msg, "the test wants"),
                  "end %d, '%s'", (int)h[0].end, h[0].err.msg);
        check_same(a, &o[1], &h[1], 5, "after a failure");
        check_same(a, &o[2], &h[2], 5, "after a failure");
    }
    ts_sched_get_info(r.s, &info);
    CHECK(info.n_failed == 3 && info.n_done == 6 && info.kv.n_held == 0);
    /* one that is alone, and the cache has no room: there is nothing to wait for */
    memset(h, 0, sizeof h);
    hold(true);
    add(&r, &o[0]);
    wait_held();
    between.fail = TS_FULL;
    hold(false);
    wait_end(&h[0]);
    CHECK_MSG(h[0].end == TS_GEN_LENGTH && h[0].n_made == 0, "end %d", (int)h[0].end);
    int64_t pages = -1;
    ts_error err = {0};
    CHECK(ts_sched_kv_save(r.s, "bad", &pages, &err) == TS_IO && strstr(err.msg, "bad: not") &&
          pages == -1);
    CHECK(ts_sched_kv_save(r.s, "good", &pages, &err) == TS_OK && pages == 7);
    close_rig(&r);
}

/* --- many threads -------------------------------------------------------- */

typedef struct busy {
    rig *r;
    uint64_t seed;
    pthread_t thread;
    atomic_bool *stop;
    size_t n_added, n_full;
} busy;

typedef struct quick {
    atomic_int ends, events;
    atomic_bool gone;
} quick;

static void quick_event(void *user, const ts_gen_event *ev)
{
    quick *q = user;
    EXPECT(q->ends == 0);
    q->events++;
    q->ends += ev->end != TS_GEN_RUNS;
}

static bool quick_gone(void *user)
{
    return ((quick *)user)->gone;
}

static void *busy_main(void *user)
{
    busy *b = user;
    static const char *const stops[] = {"e", "th"};
    while (!*b->stop) {
        quick q[3] = {{0}};
        ts_gen *g[3] = {NULL};
        for (size_t i = 0; i < 3; i++) {
            ts_token prompt[200];
            random_tokens(prompt, 200, rnd_u64(&b->seed) % 4);
            ts_gen_options o = options(prompt, 1 + rnd_u64(&b->seed) % 200,
                                       (int64_t)(rnd_u64(&b->seed) % 30), NULL);
            o.sink = (ts_gen_sink){quick_event, rnd_u64(&b->seed) % 2 ? quick_gone : NULL, &q[i]};
            o.client = rnd_u64(&b->seed) % 3;
            o.n_probs = (int)(rnd_u64(&b->seed) % 5) - 1;
            o.sampling.temp = 1;
            o.stop = stops;
            o.n_stop = rnd_u64(&b->seed) % 3;
            ts_status st = ts_sched_add(b->r->s, &o, &g[i], NULL);
            b->n_added += st == TS_OK;
            b->n_full += st == TS_FULL;
            EXPECT(st == TS_OK || st == TS_FULL);
            if (st)
                usleep(500);
        }
        if (rnd_u64(&b->seed) % 2)
            usleep((useconds_t)(rnd_u64(&b->seed) % 3000));
        for (size_t i = 0; i < 3; i++) {
            ts_sched_info info;
            uint64_t what = rnd_u64(&b->seed) % 4;
            if (!g[i])
                continue;
            if (what == 0)
                ts_gen_cancel(g[i]);
            if (what == 1)
                q[i].gone = true;
            if (what < 3)
                while (q[i].ends == 0 && what != 0)
                    usleep(200);
            ts_sched_get_info(b->r->s, &info);
            ts_gen_close(g[i]);
            EXPECT(q[i].ends == 1);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    busy b[8];
    atomic_bool stop = false;
    ts_sched_info info;
    rig r = open_rig(4, 512, 32, 6);
    for (size_t i = 0; i < 8; i++) {
        b[i] = (busy){.r = &r, .seed = i, .stop = &stop};
        REQUIRE(pthread_create(&b[i].thread, NULL, busy_main, &b[i]) == 0);
    }
    sleep(3);
    stop = true;
    int64_t added = 0, full = 0;
    for (size_t i = 0; i < 8; i++) {
        pthread_join(b[i].thread, NULL);
        added += (int64_t)b[i].n_added;
        full += (int64_t)b[i].n_full;
    }
    ts_sched_get_info(r.s, &info);
    CHECK_MSG(info.n_done + info.n_cancelled == added && info.n_failed == 0 &&
                  info.n_refused == full && info.kv.n_held == 0 && info.n_running == 0 &&
                  info.n_waiting == 0,
              "%lld done, %lld cancelled, %lld failed of %lld", (long long)info.n_done,
              (long long)info.n_cancelled, (long long)info.n_failed, (long long)added);
    CHECK(added > (SANITIZED ? 8 : 50) && info.n_done > 0 && info.n_cancelled > 0);
    printf("threads: %lld added, %lld refused, %lld preempted, %lld steps\n", (long long)added,
           (long long)full, (long long)info.n_preempted, (long long)info.n_steps);
    close_rig(&r);
}

int main(void)
{
    REQUIRE(ts_synth_tiny(MODEL, "llama", "F32", true, NULL) == TS_OK);
    alone a = open_alone();
    test_same(&a);
    test_chunks(&a);
    test_shared(&a);
    test_leader_gone(&a);
    test_full(&a);
    test_who_waits(&a);
    test_trained();
    test_text(&a);
    test_grammar(&a);
    test_probs(&a);
    test_embedding();
    test_fair();
    test_queue();
    test_cancel();
    test_from_sink();
    test_drain();
    test_close();
    test_bad();
    test_failures(&a);
    test_threads();
    close_alone(&a);
    CHECK(rig_wrong == 0);
    unlink(MODEL);
    return check_done("sched");
}

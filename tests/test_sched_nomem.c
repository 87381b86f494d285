/* test_sched_nomem.c - generations when memory runs out: each allocation of opening a scheduler, of
 * adding a generation and of its steps fails once. Whom it hits ends with a sentence; who runs
 * beside it makes what it would make alone. The linker hands the allocations over (--wrap,
 * CMakeLists.txt). */
#include <unistd.h>

#define MODEL "sched_nomem.gguf"
#include "refuse.h"
#include "sched_rig.h"

static void check_end(const heard *h, const heard *want, long k, const char *who)
{
    if (h->end == TS_GEN_FAILED) {
        CHECK_MSG(h->err.code == TS_NO_MEMORY && strstr(h->err.msg, "no memory"),
                  "allocation %ld, %s: %d, '%s'", k, who, (int)h->err.code, h->err.msg);
        return;
    }
    CHECK_MSG(h->end == want->end && h->n_made == want->n_made && !strcmp(h->text, want->text),
              "allocation %ld, %s: end %d, '%s', not '%s'", k, who, (int)h->end, h->text,
              want->text);
    for (size_t i = 0; i < h->n_made; i++)
        CHECK(h->chosen[i].id == want->chosen[i].id);
}

/* Two beside each other; the allocation k of the second one's life, or the first one's meanwhile,
 * is refused. True: one was. */
static bool run_two(rig *r, const ts_gen_options *first, const ts_gen_options *second, long k,
                    const heard want[2])
{
    static heard h[2];
    ts_error err = {0};
    ts_gen_options o[2] = {*first, *second};
    memset(h, 0, sizeof h);
    o[0].sink.user = &h[0];
    o[1].sink.user = &h[1];
    add(r, &o[0]);
    countdown = k;
    ts_status st = ts_sched_add(r->s, &o[1], &h[1].g, &err);
    if (st) {
        CHECK_MSG(st == TS_NO_MEMORY && err.code == st && strstr(err.msg, "no memory"),
                  "allocation %ld: %d, '%s'", k, (int)st, err.msg);
    } else {
        wait_end(&h[1]);
        check_end(&h[1], &want[1], k, "the second");
    }
    wait_end(&h[0]);
    check_end(&h[0], &want[0], k, "the first");
    bool refused = countdown < 0;
    countdown = -1;
    CHECK(refused == (st || h[0].end == TS_GEN_FAILED || h[1].end == TS_GEN_FAILED));
    return refused;
}

/* Each allocation of saving the cache. */
static void test_save(ts_sched *s)
{
    static const char file[] = "sched_nomem.kv";
    int64_t pages;
    long k = 0;
    for (;; k++) {
        ts_error err = {0};
        countdown = k;
        const ts_status st = ts_sched_kv_save(s, file, &pages, &err);
        countdown = -1;
        if (st == TS_OK)
            break;
        CHECK_MSG(st == TS_NO_MEMORY && strstr(err.msg, "no memory") && access(file, F_OK) != 0,
                  "allocation %ld: %d, '%s'", k, (int)st, err.msg);
    }
    CHECK_MSG(k > 4 && pages > 0, "%ld allocations, %d pages", k, (int)pages);
    unlink(file);
}

static void test_generations(void)
{
    static heard want[2];
    static const char gbnf[] = "root ::= ([a-z] [a-z ]*)+";
    static const char *const stops[] = {"never said", "nor this"};
    static const ts_bias bias = {7, 1};
    ts_token prompt[2][70];
    ts_grammar *g;
    ts_sched_info info;
    long k = 0;
    rig r = open_rig(2, 512, 16, 2);
    REQUIRE(ts_grammar_open(&g, r.e, gbnf, sizeof gbnf - 1, NULL) == TS_OK);
    ts_gen_options o[2];
    for (size_t i = 0; i < 2; i++) {
        random_tokens(prompt[i], 70, i);
        o[i] = options(prompt[i], 70, 100, &want[i]);
        o[i].n_probs = 5;
        o[i].sampling.repeat_penalty = 1.2f;
        o[i].sampling.repeat_last_n = -1;
        o[i].stop = stops;
        o[i].n_stop = 2;
        o[i].bias = &bias;
        o[i].n_bias = 1;
    }
    o[0].max_tokens = 30;
    o[1].grammar = g;
    for (size_t i = 0; i < 2; i++) {
        add(&r, &o[i]);
        wait_end(&want[i]);
        CHECK_MSG(want[i].end == TS_GEN_LENGTH, "'%s'", want[i].err.msg);
    }
    while (k < 2000 && run_two(&r, &o[0], &o[1], k, want))
        k++;
    CHECK_MSG(k > 30 && k < 2000, "%ld allocations", k);
    ts_sched_get_info(r.s, &info);
    CHECK_MSG(info.n_failed > 10 && info.kv.n_held == 0, "%lld failed", (long long)info.n_failed);
    printf("%ld allocations, %lld of them in steps\n", k, (long long)info.n_failed);
    test_save(r.s);
    ts_grammar_close(g);
    close_rig(&r);
}

static void test_open(void)
{
    ts_engine *e = open_engine(2, 512, 16);
    ts_session *s;
    long k = 0;
    REQUIRE(ts_session_open(&s, e, NULL) == TS_OK);
    for (;; k++) {
        ts_sched *sched = NULL;
        ts_error err = {0};
        countdown = k;
        ts_status st = ts_sched_open(&sched, e, s, &(ts_sched_options){.n_queue = 1}, &err);
        countdown = -1;
        if (st == TS_OK) {
            ts_sched_close(sched);
            break;
        }
        CHECK_MSG(st == TS_NO_MEMORY && !sched && strstr(err.msg, "no memory"),
                  "allocation %ld: %d, '%s'", k, (int)st, err.msg);
    }
    CHECK_MSG(k == 6, "%ld allocations", k);
    ts_engine_close(e);
}

int main(void)
{
    REQUIRE(ts_synth_tiny(MODEL, "llama", "F32", true, NULL) == TS_OK);
    test_open();
    test_generations();
    CHECK(rig_wrong == 0);
    unlink(MODEL);
    return check_done("sched_nomem");
}

/* test_out.c - the text of a generation: whole characters, stop texts, however it is cut into
 * tokens; probabilities against a plain softmax. */
#include <string.h>

#include "base/utf8.h"
#include "check.h"
#include "server/out.h"
#include "server/probs.h"

#define MAX_TEXT 64

/* --- text --------------------------------------------------------------------------- */

typedef struct text {
    char s[8 * MAX_TEXT];
    size_t n;
} text;

static bool ends_in(const text *t, const char *stop)
{
    size_t k = strlen(stop);
    return k <= t->n && memcmp(t->s + t->n - k, stop, k) == 0;
}

/* The plain way: character after character, until one of the stop texts is the end. */
static bool plain(const char *s, size_t n, const char *const *stops, size_t n_stops, text *out)
{
    out->n = 0;
    for (size_t i = 0; i < n;) {
        size_t k = ts_utf8_decode(s + i, n - i, NULL), longest = 0;
        memcpy(out->s + out->n, k ? s + i : "\xef\xbf\xbd", k ? k : 3);
        out->n += k ? k : 3;
        i += k ? k : 1;
        for (size_t j = 0; j < n_stops; j++)
            if (ends_in(out, stops[j]) && strlen(stops[j]) > longest)
                longest = strlen(stops[j]);
        out->n -= longest;
        if (longest)
            return true;
    }
    return false;
}

/* Held back is what a stop text may begin with, and no more. */
static void check_held(const ts_out *o, text given)
{
    size_t longest = 0;
    memcpy(given.s + given.n, o->s, o->n);
    given.n += o->n;
    for (size_t i = 0; i < o->n_stops; i++)
        for (size_t k = 1; k < o->stops[i].n && k <= given.n; k++)
            if (k > longest && memcmp(given.s + given.n - k, o->stops[i].s, k) == 0)
                longest = k;
    CHECK_MSG(o->n == (o->stopped ? 0 : longest), "'%.*s': %zu bytes held, not %zu", (int)given.n,
              given.s, o->n, longest);
}

static void take(ts_out *o, text *given)
{
    memcpy(given->s + given->n, o->s, o->ready);
    given->n += o->ready;
    CHECK(ts_utf8_valid(given->s, given->n) == given->n);
    ts_out_given(o);
}

/* cuts: bit i cuts behind byte i. */
static void check_cut(const char *s, size_t n, const char *const *stops, size_t n_stops,
                      uint64_t cuts)
{
    ts_out o;
    text want, given = {.n = 0};
    bool stopped = plain(s, n, stops, n_stops, &want);
    REQUIRE(ts_out_init(&o, stops, n_stops, NULL) == TS_OK);
    for (size_t from = 0, i = 0; i < n; i++)
        if (i + 1 == n || (cuts >> i & 1)) {
            CHECK(ts_out_add(&o, s + from, i + 1 - from, NULL) == TS_OK);
            take(&o, &given);
            check_held(&o, given);
            from = i + 1;
        }
    ts_out_finish(&o);
    take(&o, &given);
    CHECK_MSG(given.n == want.n && memcmp(given.s, want.s, want.n) == 0 && o.stopped == stopped,
              "'%.*s' cut by %llx: '%.*s', not '%.*s'", (int)n, s, (unsigned long long)cuts,
              (int)given.n, given.s, (int)want.n, want.s);
    ts_out_free(&o);
}

static void all_cuts(const char *s, size_t n_stops, const char *const *stops)
{
    size_t n = strlen(s);
    for (uint64_t cuts = 0; cuts < (uint64_t)1 << (n - 1); cuts++)
        check_cut(s, n, stops, n_stops, cuts);
}

#define STOPS(...)                                                                                 \
    sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), (const char *const[])             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static void test_stops(void)
{
    all_cuts("one two", 0, (const char *const[]){NULL});
    all_cuts("one two end", STOPS("two"));
    all_cuts("one tw", STOPS("two"));        /* never complete: given out at the end */
    all_cuts("aabaabaaac", STOPS("aabaaa")); /* begins anew within itself */
    all_cuts("ababababac", STOPS("ababac"));
    all_cuts("xabcdy", STOPS("abcd", "bc"));  /* within another: complete first */
    all_cuts("xabcdy", STOPS("bcd", "abcd")); /* complete together: the longer one */
    all_cuts("xabcabdy", STOPS("abcabc", "cabd"));
    all_cuts("x\nUser:", STOPS("\nUser:", "\n\n"));
    all_cuts("x", STOPS("x"));
    all_cuts("a\xf0\x9f\xa6\x86z\xc3\xbc!", STOPS("z\xc3\xbc"));
    all_cuts("a\xf0\x9f\xa6\x86", STOPS("\xf0\x9f\xa6\x87")); /* another duck */
    /* not UTF-8, or cut off */
    all_cuts("a\xff\xc3z\xf0\x9f\xa6", 0, (const char *const[]){NULL});
    all_cuts("a\xff"
             "bc",
             STOPS("\xef\xbf\xbd"
                   "b"));
    all_cuts("a\xf0\x9f", STOPS("\xef\xbf\xbd\xef\xbf\xbd"));
    all_cuts("\xed\xa0\x80 \xc0\xaf", STOPS("q"));
}

/* Few letters, so that everything overlaps. */
static void test_random_stops(void)
{
    uint64_t seed = 5;
    for (int round = 0; round < (SANITIZED ? 2000 : 20000); round++) {
        char s[MAX_TEXT], stop[4][8];
        const char *stops[4];
        size_t n = 1 + rnd_u64(&seed) % (MAX_TEXT - 1), n_stops = rnd_u64(&seed) % 5;
        for (size_t i = 0; i < n; i++)
            s[i] = rnd_u64(&seed) % 9 ? "ab\xc3\xbc"[rnd_u64(&seed) % 4] : 'c';
        for (size_t i = 0; i < n_stops; i++) {
            size_t k = 0;
            for (size_t parts = 1 + rnd_u64(&seed) % 3; parts > 0; parts--) {
                static const char *const part[] = {"a", "b", "\xc3\xbc", "c"};
                const char *p = part[rnd_u64(&seed) % 4];
                memcpy(stop[i] + k, p, strlen(p));
                k += strlen(p);
            }
            stop[i][k] = 0;
            stops[i] = stop[i];
        }
        check_cut(s, n, stops, n_stops, rnd_u64(&seed));
    }
}

/* A stop text that repeats itself takes no more than a step a byte. */
static void test_long_stop(void)
{
    static char stop[100001], s[100000];
    ts_out o;
    memset(stop, 'a', sizeof stop - 2);
    stop[sizeof stop - 2] = 'b';
    memset(s, 'a', sizeof s);
    REQUIRE(ts_out_init(&o, (const char *const[]){stop}, 1, NULL) == TS_OK);
    for (int i = 0; i < 20; i++) {
        CHECK(ts_out_add(&o, s, sizeof s, NULL) == TS_OK);
        CHECK(o.n - o.ready == sizeof stop - 2);
        ts_out_given(&o);
    }
    CHECK(ts_out_add(&o, "b", 1, NULL) == TS_OK && o.stopped && o.n == 0 && o.ready == 0);
    ts_out_free(&o);
}

static void refused(const char *stop, const char *why)
{
    ts_out o;
    ts_error err = {0};
    CHECK(ts_out_init(&o, (const char *const[]){"good", stop}, 2, &err) == TS_BAD_ARG);
    CHECK_MSG(strstr(err.msg, why), "'%s'", err.msg);
    ts_out_free(&o);
}

/* --- probabilities -------------------------------------------------------------------- */

static int better(const void *a, const void *b)
{
    const ts_gen_prob *x = a, *y = b;
    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->id - y->id;
}

static void check_probs(float *logits, size_t n, size_t k)
{
    double max = -INFINITY, sum = 0;
    ts_gen_prob *all = malloc(n * sizeof *all), top[20];
    REQUIRE(all);
    for (size_t i = 0; i < n; i++)
        max = logits[i] > max ? (double)logits[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += isnan(logits[i]) ? 0 : exp((double)logits[i] - max);
    for (size_t i = 0; i < n; i++)
        all[i] = (ts_gen_prob){(ts_token)i, isnan(logits[i]) ? -INFINITY : logits[i]};
    qsort(all, n, sizeof *all, better);
    ts_probs p = ts_probs_of(logits, n);
    ts_probs_top(&p, logits, n, top, k);
    for (size_t i = 0; i < k; i++) {
        double want = (double)all[i].logprob - max - log(sum);
        CHECK_MSG(top[i].id == all[i].id, "%zu of %zu: %d, not %d", i, n, top[i].id, all[i].id);
        CHECK_MSG(top[i].logprob == want || fabs((double)top[i].logprob - want) < 1e-5,
                  "%zu of %zu: %g, not %g", i, n, (double)top[i].logprob, want);
    }
    free(all);
}

static void test_probs(void)
{
    static float l[150000];
    uint64_t seed = 3;
    for (size_t i = 0; i < 150000; i++)
        l[i] = 3 * rnd_normal(&seed);
    check_probs(l, 150000, 20);
    check_probs(l, 150000, 0);
    check_probs(l, 20, 20);
    check_probs(l, 1, 1);
    for (size_t i = 0; i < 1000; i++) /* many are equal */
        l[i] = (float)(rnd_u64(&seed) % 5);
    check_probs(l, 1000, 20);
    l[7] = NAN;
    l[8] = -INFINITY;
    l[9] = 60;
    check_probs(l, 1000, 20);
    check_probs(l, 10, 10);
    /* two that are infinitely likely share it */
    l[3] = l[5] = INFINITY;
    ts_gen_prob top[3];
    ts_probs p = ts_probs_of(l, 10);
    ts_probs_top(&p, l, 10, top, 3);
    CHECK(top[0].id == 3 && top[1].id == 5 && top[2].id == 9);
    CHECK(fabs((double)top[1].logprob + log(2)) < 1e-6 && top[2].logprob == -INFINITY);
    for (size_t i = 0; i < 10; i++)
        l[i] = -INFINITY;
    p = ts_probs_of(l, 10);
    CHECK(ts_probs_log(&p, l[0]) == -INFINITY);
}

int main(void)
{
    test_stops();
    test_random_stops();
    test_long_stop();
    refused("", "empty");
    refused("\xc3", "not UTF-8");
    test_probs();
    return check_done("out");
}

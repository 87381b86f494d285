/* grammar.c - what a grammar costs a token.
 *
 *     bench_grammar MODEL.gguf [ROUNDS]
 *
 * Texts are followed token by token under grammars, with the model's vocabulary: which tokens may
 * follow (mask), their logits kept and all others' made -inf (apply), the token taken (accept). In
 * the first pass a sampler sees each state for the first time, in the second it remembers. Times
 * are CPU time of this thread, medians of the rounds, so that a busy machine does little to them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "grammar/grammar.h"
#include "tessera.h"

enum { MAX_ROUNDS = 101 };

static const struct subject {
    const char *name;
    bool schema;
    const char *grammar, *text;
} subjects[] = {
    {"schema: a record with an array of records", true,
     "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"year\":{\"type\":"
     "\"integer\"},\"kind\":{"
     "\"enum\":[\"film\",\"series\",\"short\"]},\"cast\":{\"type\":\"array\",\"items\":{\"type\":"
     "\"object\","
     "\"properties\":{\"name\":{\"type\":\"string\"},\"role\":{\"type\":\"string\"},\"age\":{"
     "\"type\":[\"integer\","
     "\"null\"]}},\"required\":[\"name\",\"role\",\"age\"],\"additionalProperties\":false}},"
     "\"score\":{\"type\":"
     "\"number\",\"minimum\":0,\"maximum\":10},\"tags\":{\"type\":\"array\",\"items\":{\"type\":"
     "\"string\"}}},"
     "\"required\":[\"title\",\"year\",\"kind\",\"cast\",\"score\",\"tags\"],"
     "\"additionalProperties\":false}",
     "{\"title\": \"The Light on the Water\", \"year\": 1997, \"kind\": \"film\", \"cast\": "
     "[{\"name\": \"Ana Pereira\", "
     "\"role\": \"the lighthouse keeper\", \"age\": 41}, {\"name\": \"J\xc3\xb3hann "
     "\xc3\x81rnason\", \"role\": \"a sailor "
     "who doesn't come back\", \"age\": null}, {\"name\": \"\xe6\x9d\x8e\xe9\x9b\xaa\", \"role\": "
     "\"the girl with the "
     "\\\"red\\\" kite\", \"age\": 9}], \"score\": 7.85, \"tags\": [\"drama\", \"sea\", \"black "
     "and white\"]}"},
    {"any JSON object", true, NULL,
     "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"known for\": [\"notes\", \"Bernoulli "
     "numbers\\n\", 12.5e3], \"x\": "
     "{\"a\": null, \"b\": true, \"quoted\": \"she said \\\"yes\\\" and left for the evening\"}}"},
    {"schema: strings of at most 100 characters", true,
     "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":100}}",
     "[\"The quick brown fox jumps over the lazy dog\", \"and runs away into the forest, never to "
     "be seen again by "
     "anyone but the crows\", \"who don't tell\"]"},
    {"schema: pattern ^[A-Z][a-zA-Z ,.-]{0,200}$", true,
     "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[A-Z][a-zA-Z "
     ",.-]{0,200}$\"}}",
     "[\"The quick brown fox jumps over the lazy dog\", \"And runs away into the forest, never to "
     "be seen again by "
     "anyone but the crows\"]"},
    {"GBNF: [^<]* up to a mark", false, "root ::= [^<]* \"<end>\"",
     "The quick brown fox jumps over the lazy dog\nand runs away into the forest.\n\nNobody saw it "
     "again.<end>"},
    {"GBNF: (.{0,100} \"a\"){0,50}, ambiguous", false, "root ::= (.{0,100} \"a\"){0,50} .*",
     "The quick brown fox jumps over the lazy dog and runs away into the forest, never to be seen "
     "again"},
};

typedef struct timing {
    double mean, worst, apply;
} timing;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_mean(const void *a, const void *b)
{
    const timing *x = a, *y = b;
    return (x->mean > y->mean) - (x->mean < y->mean);
}

static void die(const char *what, const ts_error *err)
{
    fprintf(stderr, "bench_grammar: %s%s\n", what, err ? err->msg : "");
    exit(1);
}

/* One pass over the text. */
static timing follow(ts_matcher *m, const ts_token *ids, size_t n, float *logits, size_t n_vocab)
{
    timing t = {0};
    ts_error err = {0};
    ts_matcher_reset(m);
    for (size_t i = 0; i < n; i++) {
        ts_mask k;
        bool ok = false;
        size_t top = (size_t)ids[i];
        for (size_t j = 0; j < n_vocab; j++)
            logits[j] = (float)(j % 17);
        logits[top] = 20;
        double start = now();
        if (ts_matcher_mask(m, &k, &err))
            die("", &err);
        double mask = now() - start;
        start = now();
        if (ts_matcher_apply(m, logits, n_vocab, &top, &err))
            die("", &err);
        double apply = now() - start;
        start = now();
        if (ts_matcher_accept(m, ids[i], &ok, &err) || !ok)
            die("a text doesn't follow its grammar", NULL);
        mask += now() - start;
        t.mean += mask / (double)n;
        t.apply += apply / (double)n;
        t.worst = mask > t.worst ? mask : t.worst;
    }
    return t;
}

static void measure(ts_engine *e, const struct subject *s, int rounds)
{
    static timing first[MAX_ROUNDS], second[MAX_ROUNDS];
    ts_error err = {0};
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    ts_token *ids;
    size_t n, length = s->grammar ? strlen(s->grammar) : 0;
    float *logits = malloc((size_t)info.n_vocab * sizeof *logits);
    double open = 0;
    if (!logits || ts_tokenize(e, s->text, strlen(s->text), 0, &ids, &n, &err))
        die("", &err);
    for (int i = 0; i < rounds; i++) {
        ts_grammar *g = NULL;
        ts_matcher *m = NULL;
        double start = now();
        ts_status st = s->schema ? ts_grammar_open_schema(&g, e, s->grammar, length, &err)
                                 : ts_grammar_open(&g, e, s->grammar, length, &err);
        if (st || ts_matcher_open(&m, g->gram, g->vocab, &err))
            die("", &err);
        open += (now() - start) / rounds;
        first[i] = follow(m, ids, n, logits, (size_t)info.n_vocab);
        second[i] = follow(m, ids, n, logits, (size_t)info.n_vocab);
        ts_matcher_close(m);
        ts_grammar_close(g);
    }
    qsort(first, (size_t)rounds, sizeof *first, by_mean);
    qsort(second, (size_t)rounds, sizeof *second, by_mean);
    const timing *a = &first[rounds / 2], *b = &second[rounds / 2];
    printf("| %s | %zu | %.2f ms | %.0f µs | %.0f µs | %.1f µs | %.0f µs | %.2f %% |\n", s->name, n,
           1e3 * open, 1e6 * a->mean, 1e6 * a->worst, 1e6 * b->mean, 1e6 * a->apply,
           (a->mean + a->apply) / 10e-3 * 100);
    free(logits);
    ts_free(ids);
}

int main(int argc, char **argv)
{
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_error err = {0};
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    ts_engine_options_init(&o);
    o.vocab_only = true;
    if (argc < 2 || argc > 3 || rounds < 1 || rounds > MAX_ROUNDS)
        die("usage: bench_grammar MODEL.gguf [ROUNDS]", NULL);
    if (ts_engine_open(&e, argv[1], &o, &err))
        die("", &err);
    ts_grammar *g = NULL;
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    double start = now();
    if (ts_grammar_open(&g, e, "root ::= .", 10, &err))
        die("", &err);
    printf("%lld tokens; sorted into trees, once: %.0f ms\n\n", (long long)info.n_vocab,
           1e3 * (now() - start));
    ts_grammar_close(g);
    printf("| grammar | tokens | open | mask, first time | worst | again | apply | of 10 ms |\n"
           "|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        measure(e, &subjects[i], rounds);
    ts_engine_close(e);
    return 0;
}

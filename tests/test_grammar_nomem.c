/* test_grammar_nomem.c - grammars when memory runs out: each allocation fails once, Jansson's too.
 *
 * The linker hands this program's allocations over (--wrap, CMakeLists.txt), so that the n-th of
 * them can be refused. Every refusal must become TS_NO_MEMORY with a sentence, leave no object and
 * (under the leak checker) no memory; and a matcher that found none goes on as if it hadn't been
 * asked. */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "check.h"
#include "gguf/synth.h"
#include "grammar/grammar.h"
#include "grammar/schema.h"
#include "refuse.h"

static const char text[] =
    "root ::= object # any\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
    "array ::= \"[\" ws (value (\",\" ws value){0,5})? \"]\" ws\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" "
    "[0-9a-fA-F]{4}))* "
    "\"\\\"\" ws\n"
    "number ::= \"-\"? ([0-9] | [1-9] [0-9]{0,15}) (\".\" [0-9]+)? ([eE] [-+]? [0-9]{1,3})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

/* What is tried: TS_OK with what it made given back, or why not. */
typedef ts_status attempt(void *what, ts_error *err);

/* Once for each allocation that it takes; their number. */
static long refuse_each(attempt *f, void *what, const char *name)
{
    for (long k = 0; k < 100000; k++) {
        ts_error err = {0};
        countdown = k;
        ts_status st = f(what, &err);
        bool refused = countdown < 0;
        countdown = -1;
        if (st == TS_OK) {
            CHECK_MSG(!refused, "%s: allocation %ld was refused and nothing said so", name, k);
            if (!refused)
                return k;
        } else {
            CHECK_MSG(st == TS_NO_MEMORY && err.code == st && strstr(err.msg, "memory"),
                      "%s: allocation %ld: status %d, '%s'", name, k, (int)st, err.msg);
        }
    }
    return -1;
}

static ts_status try_gram(void *what, ts_error *err)
{
    ts_gram *g = NULL;
    ts_status st = ts_gram_open(&g, what, strlen(what), err);
    CHECK((st == TS_OK) == (g != NULL));
    ts_gram_close(g);
    return st;
}

static ts_status try_schema(void *what, ts_error *err)
{
    char *gbnf = NULL;
    ts_status st = ts_schema_gbnf(what, strlen(what), &gbnf, err);
    CHECK((st == TS_OK) == (gbnf != NULL));
    free(gbnf);
    return st;
}

/* --- a matcher -------------------------------------------------------------------------- */

enum { N_WORDS = 256 + 6 };

static const ts_vocab *words(ts_error *err)
{
    static const char *const more[] = {"abc", "{\"", "\":", "true", "\xe4\xb8\xad\xe6\x96\x87", ""};
    static char bytes[256];
    ts_vocab *v = NULL;
    ts_str pieces[N_WORDS] = {{0}};
    uint8_t eog[N_WORDS] = {0};
    for (int i = 0; i < N_WORDS; i++) {
        bytes[i & 255] = (char)i;
        pieces[i] =
            i < 256 ? (ts_str){&bytes[i], 1} : (ts_str){more[i - 256], strlen(more[i - 256])};
    }
    eog[N_WORDS - 1] = 1;
    return ts_vocab_open(&v, pieces, eog, N_WORDS, err) ? NULL : v;
}

static ts_status try_vocab(void *what, ts_error *err)
{
    const ts_vocab *v = words(err);
    (void)what;
    ts_vocab_close((ts_vocab *)(uintptr_t)v);
    return v ? TS_OK : TS_NO_MEMORY;
}

static ts_status try_matcher(void *what, ts_error *err)
{
    const ts_grammar *g = what;
    ts_matcher *m = NULL;
    ts_status st = ts_matcher_open(&m, g->gram, g->vocab, err);
    CHECK((st == TS_OK) == (m != NULL));
    ts_matcher_close(m);
    return st;
}

/* A text byte by byte, the tokens that may follow counted after each, in little memory. Where there
 * is none, the step is made once more, with memory. */
static size_t follow(const ts_grammar *g, long fail_at, size_t limit, bool *refused)
{
    static const char made[] =
        "{\"a\xe4\xb8\xad\": [1, {\"b\": null, \"\\u00e9\": [[[]]]}], \"c\": -1.5e10}";
    ts_matcher *m = NULL;
    size_t sum = 0;
    REQUIRE(ts_matcher_open(&m, g->gram, g->vocab, NULL) == TS_OK);
    ts_matcher_limit(m, limit);
    countdown = fail_at;
    for (size_t i = 0; i < sizeof made - 1; i++) {
        ts_error err = {0};
        ts_mask k = {0};
        bool ok = false;
        if (ts_matcher_mask(m, &k, &err)) {
            CHECK_MSG(countdown < 0 && err.code == TS_NO_MEMORY && strstr(err.msg, "memory"), "%s",
                      err.msg);
            CHECK(ts_matcher_mask(m, &k, NULL) == TS_OK);
        }
        sum = 31 * sum + k.n;
        if (ts_matcher_accept(m, (uint8_t)made[i], &ok, &err)) {
            CHECK_MSG(countdown < 0 && err.code == TS_NO_MEMORY && strstr(err.msg, "memory"), "%s",
                      err.msg);
            CHECK(ts_matcher_accept(m, (uint8_t)made[i], &ok, NULL) == TS_OK);
        }
        CHECK_MSG(ok, "byte %zu, allocation %ld", i, fail_at);
    }
    CHECK(ts_matcher_can_end(m));
    *refused = countdown < 0;
    countdown = -1;
    ts_matcher_close(m);
    return sum;
}

static long follow_each(const ts_grammar *g, size_t limit)
{
    bool refused;
    size_t want = follow(g, 1L << 40, limit, &refused);
    for (long k = 0;; k++) {
        size_t got = follow(g, k, limit, &refused);
        CHECK_MSG(got == want, "allocation %ld", k);
        if (!refused || k == 100000)
            return k;
    }
}

/* --- through the public functions ---------------------------------------------------------- */

static ts_status try_public(void *what, ts_error *err)
{
    static float logits[1 << 16];
    ts_engine *e = what;
    ts_engine_info info;
    ts_grammar *g = NULL;
    ts_sampler *s = NULL;
    ts_sampler_options o;
    ts_token id;
    ts_engine_get_info(e, &info);
    REQUIRE((size_t)info.n_vocab < sizeof logits / sizeof *logits);
    ts_sampler_options_init(&o);
    memset(logits, 0, sizeof logits);
    ts_status st = ts_grammar_open_schema(&g, e, "{\"type\": \"integer\"}", 19, err);
    if (!st)
        st = ts_sampler_open(&s, &o, err);
    if (!st)
        st = ts_sampler_set_grammar(s, g, err);
    for (int i = 0; i < 3 && !st; i++) {
        st = ts_sampler_sample(s, logits, (size_t)info.n_vocab, &id, err);
        if (!st)
            ts_sampler_accept(s, id); /* what it finds no memory for the next sample says */
    }
    if (!st)
        st = ts_sampler_sample(s, logits, (size_t)info.n_vocab, &id, err);
    ts_sampler_close(s);
    ts_grammar_close(g);
    return st;
}

static void test_public(void)
{
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_error err = {0};
    ts_engine_options_init(&o);
    o.vocab_only = true;
    ts_status st = ts_synth_tiny("grammar-nomem.gguf", "llama", "Q8_0", false, &err);
    if (!st)
        st = ts_engine_open(&e, "grammar-nomem.gguf", &o, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    unlink("grammar-nomem.gguf");
    if (!st) {
        long n = refuse_each(try_public, e, "public");
        CHECK_MSG(n > 100, "%ld allocations", n);
    }
    ts_engine_close(e);
}

int main(void)
{
    ts_gram *gram = NULL;
    json_t *all = json_load_file(TS_TEST_DIR "/golden/schema/schema.json", 0, NULL), *c;
    size_t i;
    long n, sum = 0;
    json_set_alloc_funcs(__wrap_malloc, free);
    n = refuse_each(try_gram, (void *)(uintptr_t)text, "GBNF");
    CHECK_MSG(n > 30, "%ld allocations", n);
    n = refuse_each(try_vocab, NULL, "vocabulary");
    CHECK_MSG(n > 10, "%ld allocations", n);
    REQUIRE(ts_gram_open(&gram, text, strlen(text), NULL) == TS_OK);
    ts_grammar g = {gram, words(NULL)};
    n = refuse_each(try_matcher, &g, "matcher");
    CHECK_MSG(n > 10, "%ld allocations", n);
    n = follow_each(&g, 0);
    CHECK_MSG(n > 30, "%ld allocations", n);
    n = follow_each(&g, 3000);
    CHECK_MSG(n > 100, "%ld allocations", n);
    ts_vocab_close((ts_vocab *)(uintptr_t)g.vocab);
    ts_gram_close(gram);
    REQUIRE(json_array_size(all) > 80);
    json_array_foreach(all, i, c)
    {
        char *schema = json_dumps(json_object_get(c, "schema"), JSON_ENCODE_ANY);
        REQUIRE(schema);
        if (i % 3 == 0 || !SANITIZED)
            sum += refuse_each(try_schema, schema, schema);
        free(schema);
    }
    CHECK_MSG(sum > 3000, "%ld allocations", sum);
    json_decref(all);
    test_public();
    return check_done("grammar_nomem");
}

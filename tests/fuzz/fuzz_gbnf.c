/* fuzz_gbnf.c - libFuzzer target for GBNF and what follows a grammar.
 *
 * The input is a grammar and, behind a NUL, a text. Whatever is refused says why. Under what is
 * accepted, the set of tokens that may follow must be that of the tokens that may, one by one, and
 * there is always a way on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/match.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_gbnf: %s\n", what);
        abort();
    }
}

static const ts_vocab *vocabulary(void)
{
    static const char *const words[] = {"ab",
                                        "abc",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "a b",
                                        "\"a",
                                        "\":",
                                        "{\"",
                                        "}}\n",
                                        "\xc3\xa9",
                                        "\xe4\xb8",
                                        "\xad\xe4\xb8\xad",
                                        "\xf0\x9f\x98\x80 b",
                                        "  ",
                                        "01",
                                        "0x1"};
    enum { N_WORDS = sizeof words / sizeof *words, N = 256 + N_WORDS + 1 };
    static ts_vocab *v;
    static char bytes[256];
    ts_str pieces[N] = {{0}};
    uint8_t eog[N] = {0};
    if (v)
        return v;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        pieces[i] = (ts_str){&bytes[i], 1};
    }
    for (int i = 0; i < N_WORDS; i++)
        pieces[256 + i] = (ts_str){words[i], strlen(words[i])};
    eog[N - 1] = 1;
    must(ts_vocab_open(&v, pieces, eog, N, NULL) == TS_OK, "no vocabulary");
    return v;
}

static bool in_mask(const ts_mask *k, int32_t id)
{
    if (k->bits)
        return k->bits[id / 64] >> id % 64 & 1;
    for (size_t i = 0; i < k->n; i++)
        if (k->ids[i] == id)
            return true;
    return false;
}

/* False where the grammar is too ambiguous to go on. */
static bool check_here(ts_matcher *m, const ts_vocab *v)
{
    static bool may[1024];
    ts_mask k;
    ts_error err = {0};
    size_t n = 0;
    for (int32_t id = 0; id < v->n; id++) {
        ts_status st = ts_matcher_allows(m, id, &may[id], &err);
        if (st == TS_UNSUPPORTED)
            return false;
        must(st == TS_OK, "a token can't be asked for");
        n += may[id];
    }
    ts_status st = ts_matcher_mask(m, &k, &err);
    if (st == TS_UNSUPPORTED)
        return false;
    must(st == TS_OK && k.n == n, "the mask has another size");
    for (int32_t id = 0; id < v->n; id++)
        must(in_mask(&k, id) == may[id], "the mask says otherwise than its token");
    must(n > 0, "a dead end");
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ts_vocab *v = vocabulary();
    const uint8_t *end = memchr(data, 0, size);
    size_t n = end ? (size_t)(end - data) : size;
    ts_gram *g = NULL;
    ts_matcher *m = NULL;
    ts_error err = {0};
    bool ok = true;
    ts_status st = ts_gram_open(&g, (const char *)data, n, &err);
    if (st) {
        must(err.msg[0] && err.code == st && !g, "a refusal without a sentence");
        return 0;
    }
    if (ts_matcher_open(&m, g, v, &err) == TS_OK) {
        ts_matcher_limit(m, 20000);
        bool go_on = check_here(m, v);
        for (size_t i = n + 1; i < size && i < n + 40 && ok && go_on; i++) {
            if (ts_matcher_bytes(m, (const char *)data + i, 1, &ok, &err))
                break;
            if (ok && i % 8 == 0)
                go_on = check_here(m, v);
        }
        if (go_on)
            check_here(m, v);
    } else {
        must(err.code == TS_UNSUPPORTED, "a grammar that can't be followed");
    }
    ts_matcher_close(m);
    ts_gram_close(g);
    return 0;
}

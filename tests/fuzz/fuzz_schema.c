/* fuzz_schema.c - libFuzzer target for JSON schema to grammar.
 *
 * Whatever is refused says why. What is accepted makes a grammar, and texts made under that are
 * JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/match_impl.h"
#include "grammar/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_schema: %s\n", what);
        abort();
    }
}

static uint32_t next_random(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 33);
}

/* A byte that may follow; -1: none, or the grammar is too ambiguous. What ends things comes first
 * when the text is long. */
static int next_byte(ts_matcher *m, size_t length, uint64_t *s)
{
    static const char ends[] = "\"}],:0";
    bool may[256] = {0};
    int chosen = -1, n = 0;
    for (int b = 0; b < 256; b++) {
        ts_error err = {0};
        m->work = 0;
        int32_t to = mt_step(m, m->at, (uint8_t)b, &err);
        if (to < 0)
            return -1;
        may[b] = to != MT_DEAD;
        if (may[b] && next_random(s) % (uint32_t)++n == 0)
            chosen = b;
    }
    for (const char *e = ends; *e && length > 60; e++)
        if (may[(uint8_t)*e])
            return *e;
    return chosen;
}

static void make_text(ts_matcher *m, uint64_t *s)
{
    char text[400];
    size_t n = 0;
    while (n < sizeof text) {
        bool end = ts_matcher_can_end(m), ok = false;
        int c = end && next_random(s) % 3 == 0 ? -1 : next_byte(m, n, s);
        if (c < 0 && !end)
            return;
        if (c < 0) {
            json_error_t why;
            json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
            if (!v)
                fprintf(stderr, "%s: %.*s\n", why.text, (int)n, text);
            must(v != NULL, "a text that isn't JSON");
            json_decref(v);
            return;
        }
        text[n] = (char)c;
        if (ts_matcher_bytes(m, &text[n++], 1, &ok, NULL))
            return;
        must(ok, "a byte that may follow can't");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *gbnf = NULL;
    ts_gram *g = NULL;
    ts_matcher *m = NULL;
    ts_error err = {0};
    uint64_t s = size;
    /* no more than the library asks for of the terminating NUL: a copy of just these bytes */
    char *text = malloc(size ? size : 1);
    must(text != NULL, "no memory");
    if (size)
        memcpy(text, data, size);
    ts_status st = ts_schema_gbnf(text, size, &gbnf, &err);
    free(text);
    if (st) {
        must(err.msg[0] && err.code == st && !gbnf, "a refusal without a sentence");
        return 0;
    }
    must(ts_gram_open(&g, gbnf, strlen(gbnf), &err) == TS_OK, "a grammar that can't be read");
    if (ts_matcher_open(&m, g, NULL, &err) == TS_OK)
        for (int i = 0; i < 3; i++) {
            ts_matcher_reset(m);
            make_text(m, &s);
        }
    ts_matcher_close(m);
    ts_gram_close(g);
    free(gbnf);
    return 0;
}

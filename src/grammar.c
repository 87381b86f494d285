/* grammar.c - grammars of an engine: the public functions. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "grammar/grammar.h"
#include "grammar/schema.h"

/* The engine's vocabulary in trees, made when it is first asked for. Threads that ask at once each
 * make it, and one keeps it. */
static ts_status take_vocab(ts_engine *e, const ts_vocab **out, ts_error *err)
{
    ts_vocab *v = atomic_load(&e->vocab), *none = NULL;
    if (v) {
        *out = v;
        return TS_OK;
    }
    int64_t n = ts_tokenizer_n(e->tok);
    ts_str *pieces = ts_calloc((size_t)n, sizeof *pieces);
    uint8_t *eog = ts_calloc((size_t)n, 1);
    ts_status st = TS_NO_MEMORY;
    for (int64_t i = 0; i < n && pieces && eog; i++) {
        pieces[i].n = ts_tokenizer_piece(e->tok, (ts_token)i, false, &pieces[i].s);
        eog[i] = ts_tokenizer_is_eog(e->tok, (ts_token)i);
    }
    if (pieces && eog)
        st = ts_vocab_open(&v, pieces, eog, (int32_t)n, err);
    else
        ts_fail(err, st, "no memory for the vocabulary");
    free(pieces);
    free(eog);
    if (!st && !atomic_compare_exchange_strong(&e->vocab, &none, v)) {
        ts_vocab_close(v);
        v = none;
    }
    *out = v;
    return st;
}

ts_status ts_grammar_open(ts_grammar **out, ts_engine *e, const char *gbnf, size_t n, ts_error *err)
{
    ts_grammar *g = ts_calloc(1, sizeof *g);
    ts_status st = g ? ts_gram_open(&g->gram, gbnf, n, err)
                     : ts_fail(err, TS_NO_MEMORY, "no memory for a grammar");
    if (!st)
        st = take_vocab(e, &g->vocab, err);
    if (st)
        ts_grammar_close(g);
    else
        *out = g;
    return st;
}

ts_status ts_grammar_open_schema(ts_grammar **out, ts_engine *e, const char *schema, size_t n,
                                 ts_error *err)
{
    char *gbnf = NULL;
    ts_status st = ts_schema_gbnf(schema, n, &gbnf, err);
    if (!st)
        st = ts_grammar_open(out, e, gbnf, strlen(gbnf), err);
    free(gbnf);
    return st;
}

void ts_grammar_close(ts_grammar *g)
{
    if (!g)
        return;
    ts_gram_close(g->gram);
    free(g);
}

ts_status ts_schema_to_gbnf(const char *schema, size_t n, char **out, ts_error *err)
{
    return ts_schema_gbnf(schema, n, out, err);
}

/* gen.c - one generation: what was asked for, checked and copied; from logits to a token, from
 * tokens to events. */
#include "gen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

/* --- made and freed --------------------------------------------------------------- */

static ts_status check_prompt(const ts_gen_model *m, const ts_gen_options *o, ts_error *err)
{
    if (o->n_prompt < 1)
        return ts_fail(err, TS_BAD_ARG, "the prompt is empty: there is nothing to begin with");
    for (size_t i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || (size_t)o->prompt[i] >= m->n_vocab)
            return ts_fail(err, TS_BAD_ARG,
                           "token %zu of the prompt is %d; the vocabulary has ids 0 to %zu", i,
                           (int)o->prompt[i], m->n_vocab - 1);
    if (o->n_prompt > m->n_ctx)
        return ts_fail(err, TS_BAD_ARG, "the prompt has %zu tokens, but the context holds %zu",
                       o->n_prompt, m->n_ctx);
    return TS_OK;
}

static ts_status check(const ts_gen_model *m, const ts_gen_options *o, ts_error *err)
{
    ts_status st = check_prompt(m, o, err);
    if (st)
        return st;
    for (size_t i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || (size_t)o->bias[i].id >= m->n_vocab)
            return ts_fail(err, TS_BAD_ARG,
                           "a bias is for token %d; the vocabulary has ids 0 to %zu",
                           (int)o->bias[i].id, m->n_vocab - 1);
        if (isnan(o->bias[i].add))
            return ts_fail(err, TS_BAD_ARG, "the bias of token %d is not a number",
                           (int)o->bias[i].id);
    }
    if (o->n_probs > TS_MAX_PROBS)
        return ts_fail(err, TS_BAD_ARG,
                       "probabilities of %d tokens asked for; there are those of %d at most",
                       o->n_probs, TS_MAX_PROBS);
    if (!o->sink.event)
        return ts_fail(err, TS_BAD_ARG, "nobody receives the generation");
    return TS_OK;
}

static void *copy(const void *p, size_t n, size_t size)
{
    void *q = ts_calloc(n, size);
    if (q && n > 0)
        memcpy(q, p, n * size);
    return q;
}

static ts_status open_sampler(ts_gen *g, const ts_gen_options *o, ts_error *err)
{
    ts_status st = ts_sampler_open(&g->sampler, &o->sampling, err);
    for (size_t i = 0; st == TS_OK && i < g->n_prompt; i++)
        ts_sampler_accept(g->sampler, g->tokens[i]);
    return st ? st : ts_sampler_set_grammar(g->sampler, o->grammar, err);
}

static ts_status fill(ts_gen *g, const ts_gen_model *m, const ts_gen_options *o, ts_error *err)
{
    g->max_tokens = o->max_tokens;
    g->n_bias = o->n_bias;
    /* the chosen one's is always there */
    g->n_probs = o->n_probs > 0 && (size_t)o->n_probs > m->n_vocab ? (int)m->n_vocab : o->n_probs;
    g->special = o->special;
    g->ignore_eos = o->ignore_eos;
    g->client = o->client;
    g->embedding = o->embedding;
    g->sink = o->sink;
    g->n = g->cap = g->n_prompt = o->n_prompt;
    g->usage.n_prompt = (int64_t)o->n_prompt;
    g->tokens = copy(o->prompt, o->n_prompt, sizeof *g->tokens);
    g->bias = copy(o->bias, o->n_bias, sizeof *g->bias);
    if (!g->tokens || !g->bias)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a prompt of %zu tokens", o->n_prompt);
    ts_status st = ts_out_init(&g->out, o->stop, o->n_stop, err);
    return st ? st : open_sampler(g, o, err);
}

ts_status ts_gen_make(ts_gen **out, const ts_gen_model *m, const ts_gen_options *opt, ts_error *err)
{
    ts_status st = check(m, opt, err);
    if (st)
        return st;
    ts_gen *g = ts_calloc(1, sizeof *g);
    if (!g)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a generation");
    g->seq = -1;
    g->t_added = ts_now();
    st = fill(g, m, opt, err);
    if (st) {
        ts_gen_free(g);
        return st;
    }
    *out = g;
    return TS_OK;
}

void ts_gen_free(ts_gen *g)
{
    if (!g)
        return;
    ts_sampler_close(g->sampler);
    ts_out_free(&g->out);
    free(g->tokens);
    free(g->bias);
    free(g->made);
    free(g->text);
    free(g->top);
    free(g);
}

/* --- from logits to a token --------------------------------------------------------- */

/* Twice the room in *p[cap] of things of this size. */
static bool grow(void **p, size_t cap, size_t size)
{
    size_t bytes;
    if (ts_mul_overflow(cap, 2 * size, &bytes))
        return false;
    void *q = realloc(*p, bytes ? bytes : 1);
    if (q)
        *p = q;
    return q != NULL;
}

/* Room for one token more, here and among those not given out. */
static ts_status make_room(ts_gen *g, ts_error *err)
{
    void *tokens = g->tokens, *made = g->made, *text = g->text, *top = g->top;
    bool ok = true;
    if (g->n == g->cap) {
        ok = grow(&tokens, g->cap, sizeof *g->tokens);
        g->tokens = tokens;
        g->cap *= ok ? 2 : 1;
    }
    if (ok && g->n_probs >= 0 && g->n_made == g->cap_made) {
        const size_t half = g->cap_made ? g->cap_made : 4;
        ok = grow(&made, half, sizeof *g->made);
        g->made = made;
        ok = ok && grow(&text, half, sizeof *g->text);
        g->text = text;
        ok = ok && grow(&top, half, (size_t)g->n_probs * sizeof *g->top);
        g->top = top;
        g->cap_made = ok ? 2 * half : g->cap_made;
    }
    return ok ? TS_OK : ts_fail(err, TS_NO_MEMORY, "no memory for %zu tokens", g->n + 1);
}

/* The one after those made, whose id isn't chosen yet; the logits are the model's still. */
static void add_probs(ts_gen *g, const ts_gen_model *m, float *logits, ts_probs *p)
{
    *p = ts_probs_of(logits, m->n_vocab);
    memcpy(m->row, logits, m->n_vocab * sizeof *logits);
    ts_probs_top(p, logits, m->n_vocab, g->top + g->n_made * (size_t)g->n_probs,
                 (size_t)g->n_probs);
}

/* Everything that changes the logits, and then the choice. */
static ts_status choose(ts_gen *g, const ts_gen_model *m, float *logits, ts_token *id,
                        ts_error *err)
{
    for (size_t i = 0; i < g->n_bias; i++)
        logits[g->bias[i].id] += g->bias[i].add;
    for (size_t i = 0; g->ignore_eos && i < m->n_eog; i++)
        logits[m->eog[i]] = -INFINITY;
    ts_status st = ts_sampler_sample(g->sampler, logits, m->n_vocab, id, err);
    if (st == TS_OK)
        ts_sampler_accept(g->sampler, *id);
    return st;
}

/* The text of a token, which is kept with its probabilities. */
static ts_status add_text(ts_gen *g, const ts_gen_model *m, ts_token id, const ts_probs *p,
                          ts_error *err)
{
    const char *s;
    const size_t n = ts_token_piece(m->e, id, g->special, &s), at = ts_out_end(&g->out);
    ts_status st = ts_out_add(&g->out, s, n, err);
    if (st || g->n_probs < 0)
        return st;
    g->made[g->n_made] = (ts_gen_token){
        .chosen = {id, ts_probs_log(p, m->row[id])},
        .n_top = (size_t)g->n_probs,
    };
    g->text[g->n_made++] = (ts_gen_text){at, n == 0};
    return TS_OK;
}

ts_status ts_gen_take(ts_gen *g, const ts_gen_model *m, float *logits, ts_gen_end *end,
                      ts_error *err)
{
    ts_probs p = {0};
    ts_token id;
    ts_status st = make_room(g, err);
    if (st)
        return st;
    if (g->n_probs >= 0)
        add_probs(g, m, logits, &p);
    st = choose(g, m, logits, &id, err);
    if (st)
        return st;
    if (g->usage.n_made++ == 0)
        g->t_first = ts_now();
    g->tokens[g->n++] = id;
    *end = TS_GEN_STOP;
    if (!g->ignore_eos && ts_token_is_eog(m->e, id))
        return TS_OK;
    st = add_text(g, m, id, &p, err);
    if (st || g->out.stopped || ts_sampler_grammar_state(g->sampler) == TS_GRAMMAR_ENDED)
        return st;
    /* the last token needs no position: nobody asks what comes after it */
    *end = g->usage.n_made == g->max_tokens || g->n > m->n_ctx ? TS_GEN_LENGTH : TS_GEN_RUNS;
    return TS_OK;
}

/* --- events --------------------------------------------------------------------------- */

/* How many of the tokens made go out with the text that is ready: those whose first byte does, or,
 * of those without text, everything before them. */
static size_t tokens_ready(const ts_gen *g)
{
    const size_t end = g->out.before + g->out.ready;
    size_t n = 0;
    while (n < g->n_made && (g->text[n].at < end || (g->text[n].at == end && g->text[n].empty)))
        n++;
    return n;
}

static ts_gen_usage usage(const ts_gen *g, double now)
{
    ts_gen_usage u = g->usage;
    const double taken = g->t_taken ? g->t_taken : now, first = g->t_first ? g->t_first : now;
    u.wait = taken - g->t_added;
    u.prefill = g->t_taken ? first - taken : 0;
    u.decode = now - first;
    return u;
}

void ts_gen_give(ts_gen *g, ts_gen_end end, const ts_error *err)
{
    const bool last = end != TS_GEN_RUNS;
    if (last)
        ts_out_finish(&g->out);
    const size_t n = tokens_ready(g), k = g->n_probs > 0 ? (size_t)g->n_probs : 0;
    if (!last && n == 0 && g->out.ready == 0)
        return;
    for (size_t i = 0; i < n; i++)
        g->made[i].top = g->top + i * k;
    const ts_gen_event ev = {.text = g->out.s,
                             .n_text = g->out.ready,
                             .tokens = g->made,
                             .n_tokens = n,
                             .end = end,
                             .error = end == TS_GEN_FAILED ? err : NULL,
                             .usage = usage(g, ts_now())};
    g->sink.event(g->sink.user, &ev);
    ts_out_given(&g->out);
    if (n > 0 && n < g->n_made) {
        memmove(g->made, g->made + n, (g->n_made - n) * sizeof *g->made);
        memmove(g->text, g->text + n, (g->n_made - n) * sizeof *g->text);
        memmove(g->top, g->top + n * k, (g->n_made - n) * k * sizeof *g->top);
    }
    g->n_made -= n;
}

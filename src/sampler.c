/* sampler.c - from logits to a token.
 *
 * Penalties, then three cuts - top-k, top-p, min-p - then the temperature, then one draw: the order
 * and the formulas of llama.cpp's default chain, with at least one token kept. Each cut keeps the
 * beginning of the candidates sorted by falling logit (equal logits by rising id), so that only
 * that beginning is ever sorted:
 *
 *     logits   [n_vocab]  penalties applied in place, NaN made -inf
 *     cand     [n]        the n best of them, sorted; n shrinks with every cut
 *
 * Random numbers are xoshiro256++ (Blackman and Vigna, arXiv:1805.01407), its state filled by
 * splitmix64 from the seed; one number is drawn for every sampled token, none in greedy mode.
 *
 * A grammar takes away what it doesn't allow before the cuts. In greedy mode the best token is
 * asked for first: if it is allowed, it is the best of those that are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "grammar/grammar.h"
#include "logits.h"

struct ts_sampler {
    ts_sampler_options opt;
    bool penalise;   /* any penalty is on                                              */
    bool short_once; /* ts_sampler_accept found no memory; the next sample says so     */
    uint64_t rng[4];

    ts_matcher *match; /* the text under a grammar, or NULL */
    bool strayed;      /* by a token that isn't allowed     */
    ts_error lost;     /* why accept couldn't follow; TS_OK */

    /* The last tokens of the timeline, at most repeat_last_n of them: a ring once it is full. */
    ts_token *prev;
    size_t n_prev, cap_prev, oldest;

    uint32_t *count;    /* [n_vocab] occurrences in prev; zero between calls */
    ts_candidate *cand; /* [n_vocab]; weights instead of logits when nothing is left to cut */
    size_t n_vocab;     /* what both have room for                           */
};

/* --- random numbers --------------------------------------------------------- */

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static void rng_seed(uint64_t s[4], uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        s[i] = z ^ z >> 31;
    }
}

/* Uniform in [0, 1), 53 bits. */
static double rng_next(uint64_t s[4])
{
    uint64_t r = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return (double)(r >> 11) * 0x1p-53;
}

/* --- open, close -------------------------------------------------------------- */

void ts_sampler_options_init(ts_sampler_options *opt)
{
    *opt = (ts_sampler_options){
        .size = sizeof *opt,
        .temp = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1,
        .repeat_last_n = 64,
    };
}

static ts_status check_options(const ts_sampler_options *o, ts_error *err)
{
    if (!isfinite(o->temp))
        return ts_fail(err, TS_BAD_ARG, "the temperature must be a finite number, not %g",
                       (double)o->temp);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return ts_fail(err, TS_BAD_ARG, "top-p must be from 0 to 1, not %g", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return ts_fail(err, TS_BAD_ARG, "min-p must be from 0 to 1, not %g", (double)o->min_p);
    if (!(o->repeat_penalty > 0 && isfinite(o->repeat_penalty)))
        return ts_fail(err, TS_BAD_ARG, "the repetition penalty must be above 0, not %g",
                       (double)o->repeat_penalty);
    if (!isfinite(o->frequency_penalty))
        return ts_fail(err, TS_BAD_ARG, "the frequency penalty must be a finite number, not %g",
                       (double)o->frequency_penalty);
    if (!isfinite(o->presence_penalty))
        return ts_fail(err, TS_BAD_ARG, "the presence penalty must be a finite number, not %g",
                       (double)o->presence_penalty);
    if (o->repeat_last_n < -1)
        return ts_fail(err, TS_BAD_ARG,
                       "penalties look back on 0 or more tokens, or -1 for all, not %d",
                       (int)o->repeat_last_n);
    return TS_OK;
}

ts_status ts_sampler_open(ts_sampler **out, const ts_sampler_options *opt, ts_error *err)
{
    ts_sampler_options o;
    ts_sampler_options_init(&o);
    if (opt)
        memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    ts_status st = check_options(&o, err);
    if (st)
        return st;
    ts_sampler *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a sampler");
    s->opt = o;
    s->penalise = o.repeat_last_n != 0 &&
                  (o.repeat_penalty != 1 || o.frequency_penalty != 0 || o.presence_penalty != 0);
    rng_seed(s->rng, o.seed);
    *out = s;
    return TS_OK;
}

void ts_sampler_close(ts_sampler *s)
{
    if (!s)
        return;
    ts_matcher_close(s->match);
    free(s->prev);
    free(s->count);
    free(s->cand);
    free(s);
}

/* --- grammar -------------------------------------------------------------------- */

ts_status ts_sampler_set_grammar(ts_sampler *s, const ts_grammar *g, ts_error *err)
{
    ts_matcher *m = NULL;
    ts_status st = g ? ts_matcher_open(&m, g->gram, g->vocab, err) : TS_OK;
    if (st)
        return st;
    ts_matcher_close(s->match);
    s->match = m;
    s->strayed = false;
    s->lost.code = TS_OK;
    return TS_OK;
}

ts_grammar_state ts_sampler_grammar_state(const ts_sampler *s)
{
    if (!s->match)
        return TS_GRAMMAR_NONE;
    if (s->strayed || s->lost.code)
        return TS_GRAMMAR_STRAYED;
    if (ts_matcher_at_end(s->match))
        return TS_GRAMMAR_ENDED;
    return ts_matcher_can_end(s->match) ? TS_GRAMMAR_COMPLETE : TS_GRAMMAR_OPEN;
}

static void follow(ts_sampler *s, ts_token id)
{
    bool ok = true;
    if (!s->match || s->strayed || s->lost.code)
        return;
    if (ts_matcher_accept(s->match, id, &ok, &s->lost) == TS_OK)
        s->strayed = !ok;
}

/* Leaves the logits that the grammar allows; *top is the greatest of them. *top is it before. */
static ts_status constrain(ts_sampler *s, float *logits, size_t n_vocab, size_t *top, ts_error *err)
{
    bool ok = false;
    if (s->lost.code)
        return ts_fail(err, s->lost.code, "%s", s->lost.msg);
    if (s->strayed)
        return ts_fail(err, TS_BAD_ARG,
                       "a token was accepted that the grammar doesn't allow: there is no going on");
    ts_status st = TS_OK;
    if (s->opt.temp <= 0 && logits[*top] > -INFINITY)
        st = ts_matcher_allows(s->match, (int32_t)*top, &ok, err);
    if (st || ok)
        return st;
    return ts_matcher_apply(s->match, logits, n_vocab, top, err);
}

/* --- penalties ------------------------------------------------------------------ */

void ts_sampler_accept(ts_sampler *s, ts_token id)
{
    follow(s, id);
    if (!s->penalise || s->short_once)
        return;
    size_t limit = s->opt.repeat_last_n < 0 ? SIZE_MAX : (size_t)s->opt.repeat_last_n;
    if (s->n_prev == limit) {
        s->prev[s->oldest] = id;
        s->oldest = (s->oldest + 1) % s->n_prev;
        return;
    }
    if (s->n_prev == s->cap_prev) {
        size_t cap = s->cap_prev ? 2 * s->cap_prev : 64;
        ts_token *p = realloc(s->prev, cap * sizeof *p);
        if (!p) {
            s->short_once = true;
            return;
        }
        s->prev = p;
        s->cap_prev = cap;
    }
    s->prev[s->n_prev++] = id;
}

/* A logit is divided by the repetition penalty when positive, multiplied when not: either way the
 * token becomes less likely. Then count * frequency + presence are subtracted. Once for each token.
 */
static void penalise(ts_sampler *s, float *logits, size_t n_vocab)
{
    const ts_sampler_options *o = &s->opt;
    for (size_t i = 0; i < s->n_prev; i++)
        if (s->prev[i] >= 0 && (size_t)s->prev[i] < n_vocab)
            s->count[s->prev[i]]++;
    for (size_t i = 0; i < s->n_prev; i++) {
        if (s->prev[i] < 0 || (size_t)s->prev[i] >= n_vocab || !s->count[s->prev[i]])
            continue;
        float *l = &logits[s->prev[i]];
        *l = *l > 0 ? *l / o->repeat_penalty : *l * o->repeat_penalty;
        *l -= (float)s->count[s->prev[i]] * o->frequency_penalty + o->presence_penalty;
        s->count[s->prev[i]] = 0;
    }
}

/* --- cuts ---------------------------------------------------------------------------- */

/* e^((l - max) / temp); defined for infinite logits too. */
static double weight(float l, float max, float temp)
{
    return l == max ? 1 : (double)expf((l - max) / temp);
}

/* How many of the sorted cand[n] top-p keeps: the fewest whose weights reach goal together; 0 if
 * all of them don't. */
static size_t nucleus(const ts_candidate *cand, size_t n, double goal)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weight(cand[i].logit, cand[0].logit, 1);
        if (sum >= goal)
            return i + 1;
    }
    return 0;
}

static size_t at_least(const ts_candidate *cand, size_t n, float limit)
{
    size_t i = 0;
    while (i < n && cand[i].logit >= limit)
        i++;
    return i;
}

/* All of the vocabulary that is not below limit, in the order of ids. */
static size_t take_all(ts_candidate *cand, const float *logits, size_t n, float limit)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (logits[i] >= limit)
            cand[m++] = (ts_candidate){logits[i], (ts_token)i};
    return m;
}

/* Fills s->cand by top-k, top-p and min-p; returns how many are left, at least one. max is the
 * greatest logit and not -inf. */
static size_t cut(ts_sampler *s, const float *logits, size_t n, float max)
{
    const ts_sampler_options *o = &s->opt;
    /* p >= min_p * p_max in logits */
    const float limit = o->min_p > 0 ? max + logf(o->min_p) : -INFINITY;
    double total = 0, p = o->top_p;

    if (o->top_k > 0 && (size_t)o->top_k < n) {
        size_t k = (size_t)o->top_k, kept = 0;
        ts_logits_best(s->cand, k, logits, n);
        for (size_t i = 0; i < k && p < 1; i++)
            total += weight(s->cand[i].logit, max, 1);
        if (p < 1)
            kept = nucleus(s->cand, k, p * total);
        return at_least(s->cand, kept ? kept : k, limit);
    }
    if (p >= 1)
        return take_all(s->cand, logits, n, limit);
    for (size_t i = 0; i < n; i++)
        total += weight(logits[i], max, 1);
    /* The nucleus of a language model is small: sort a few, and more only if they don't reach. */
    for (size_t k = 256;; k *= 8) {
        k = k < n ? k : n;
        ts_logits_best(s->cand, k, logits, n);
        size_t kept = nucleus(s->cand, k, p * total);
        if (kept || k == n || s->cand[k - 1].logit < limit)
            return at_least(s->cand, kept ? kept : k, limit);
    }
}

static ts_token draw(ts_sampler *s, size_t n, float max)
{
    double sum = 0, u = rng_next(s->rng);
    for (size_t i = 0; i < n; i++) {
        float w = (float)weight(s->cand[i].logit, max, s->opt.temp);
        s->cand[i].logit = w;
        sum += (double)w;
    }
    double at = u * sum, run = 0;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        run += (double)s->cand[i].logit;
        if (s->cand[i].logit > 0)
            last = i;
        if (run > at)
            break;
    }
    return s->cand[last].id;
}

/* --- sample ---------------------------------------------------------------------------- */

static ts_status make_room(ts_sampler *s, size_t n_vocab, ts_error *err)
{
    if (s->short_once) {
        s->short_once = false;
        return ts_fail(err, TS_NO_MEMORY,
                       "no memory for the tokens that the penalties look back on");
    }
    if (n_vocab <= s->n_vocab)
        return TS_OK;
    ts_candidate *cand = ts_calloc(n_vocab, sizeof *cand);
    uint32_t *count = ts_calloc(n_vocab, sizeof *count);
    if (!cand || !count) {
        free(cand);
        free(count);
        return ts_fail(err, TS_NO_MEMORY, "no memory to sample from %zu logits", n_vocab);
    }
    free(s->cand);
    free(s->count);
    s->cand = cand;
    s->count = count;
    s->n_vocab = n_vocab;
    return TS_OK;
}

ts_status ts_sampler_sample(ts_sampler *s, float *logits, size_t n_vocab, ts_token *out,
                            ts_error *err)
{
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return ts_fail(err, TS_BAD_ARG, "a vocabulary to sample from has 1 to %d tokens, not %zu",
                       INT32_MAX, n_vocab);
    ts_status st = make_room(s, n_vocab, err);
    if (st)
        return st;
    if (s->penalise)
        penalise(s, logits, n_vocab);
    size_t top = ts_logits_greatest(logits, n_vocab);
    if (s->match && (st = constrain(s, logits, n_vocab, &top, err)))
        return st;
    /* Without a logit above -inf there is nothing to choose by. */
    if (s->opt.temp <= 0 || logits[top] == -INFINITY)
        *out = (ts_token)top;
    else
        *out = draw(s, cut(s, logits, n_vocab, logits[top]), logits[top]);
    return TS_OK;
}

/* logprobs.c - probabilities of tokens, in the two forms that OpenAI's API has for them. */
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "job.h"

/* JSON has no infinity. */
static double in_json(float logprob)
{
    return isfinite(logprob) ? (double)logprob : -9999.0;
}

static void add_comma(ts_sb *b)
{
    ts_sb_str(b, b->n ? "," : "");
}

/* --- chats: an object a token ---------------------------------------------------------------- */

static void add_entry(const ts_engine *e, ts_sb *b, const ts_gen_prob *p)
{
    const char *s;
    size_t n = ts_token_piece(e, p->id, true, &s);
    ts_sb_str(b, "{\"token\":");
    ts_sb_json_str(b, n ? s : "", n);
    ts_sb_printf(b, ",\"logprob\":%.6g,\"bytes\":[", in_json(p->logprob));
    for (size_t i = 0; i < n; i++)
        ts_sb_printf(b, "%s%d", i ? "," : "", (unsigned char)s[i]);
    ts_sb_str(b, "]");
}

static void add_chat(ts_choice *c, const ts_gen_prob *chosen, const ts_gen_prob *best, size_t n)
{
    const ts_engine *e = c->job->service->engine;
    ts_sb *b = &c->probs[0];
    add_comma(b);
    add_entry(e, b, chosen);
    ts_sb_str(b, ",\"top_logprobs\":[");
    for (size_t i = 0; i < n; i++) {
        ts_sb_str(b, i ? "," : "");
        add_entry(e, b, &best[i]);
        ts_sb_str(b, "}");
    }
    ts_sb_str(b, "]}");
}

/* --- completions: four lists -------------------------------------------------------------------
 */

/* A token's text; bytes that are no characters by number, so that different tokens have different
 * names. */
static int64_t add_name(const ts_engine *e, ts_sb *b, ts_token id)
{
    const char *s;
    size_t n = ts_token_piece(e, id, true, &s);
    int64_t characters = 0;
    if (n == 0 || ts_utf8_valid(s, n) == n) {
        ts_sb_json_str(b, n ? s : "", n);
        for (size_t i = 0; i < n; i++)
            characters += ((unsigned char)s[i] & 0xc0) != 0x80;
        return characters;
    }
    ts_sb_str(b, "\"bytes:");
    for (size_t i = 0; i < n; i++)
        ts_sb_printf(b, "\\\\x%02x", (unsigned char)s[i]);
    ts_sb_str(b, "\"");
    return 1;
}

static void add_completion(ts_choice *c, const ts_gen_prob *chosen, const ts_gen_prob *best,
                           size_t n)
{
    const ts_engine *e = c->job->service->engine;
    ts_sb *names = &c->probs[0], *probs = &c->probs[1], *top = &c->probs[2];
    add_comma(names);
    int64_t characters = add_name(e, names, chosen->id);
    add_comma(probs);
    ts_sb_printf(probs, "%.6g", in_json(chosen->logprob));
    add_comma(top);
    ts_sb_str(top, "{");
    for (size_t i = 0; i < n; i++) {
        ts_sb_str(top, i ? "," : "");
        add_name(e, top, best[i].id);
        ts_sb_printf(top, ":%.6g", in_json(best[i].logprob));
    }
    ts_sb_str(top, "}");
    add_comma(&c->probs[3]);
    ts_sb_printf(&c->probs[3], "%lld", (long long)c->characters);
    c->characters += characters;
}

void ts_logprobs_add(ts_choice *c, const ts_job_event *ev)
{
    ts_gen_prob chosen, best[TS_REQUEST_MAX_PROBS];
    const char *at = ev->tokens;
    size_t n;
    for (size_t i = 0; i < ev->n_tokens; i++) {
        at = ts_job_token(at, &chosen, best, &n);
        if (c->job->request.ask == TS_ASK_CHAT)
            add_chat(c, &chosen, best, n);
        else
            add_completion(c, &chosen, best, n);
    }
    for (size_t i = 1; i < 4; i++)
        c->probs[0].failed |= c->probs[i].failed;
}

void ts_logprobs_write(ts_choice *c, ts_sb *b)
{
    static const char *const lists[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    ts_sb *p = c->probs;
    if (c->job->request.n_probs < 0 || (c->job->request.stream && p[0].n == 0)) {
        ts_sb_str(b, ",\"logprobs\":null");
        return;
    }
    b->failed |= p[0].failed;
    if (c->job->request.ask == TS_ASK_CHAT) {
        ts_sb_str(b, ",\"logprobs\":{\"content\":[");
        ts_sb_add(b, p[0].s, p[0].n);
        ts_sb_str(b, "],\"refusal\":null}");
    } else {
        for (size_t i = 0; i < 4; i++) {
            ts_sb_printf(b, "%s\"%s\":[", i ? "," : ",\"logprobs\":{", lists[i]);
            ts_sb_add(b, p[i].s, p[i].n);
            ts_sb_str(b, "]");
        }
        ts_sb_str(b, "}");
    }
    for (size_t i = 0; i < 4; i++)
        p[i].n = 0;
}

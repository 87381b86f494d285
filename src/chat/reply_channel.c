/* reply_channel.c - answers made of messages with headers: gpt-oss's harmony.
 *
 *     <|start|>assistant<|channel|>analysis<|message|>...<|end|>
 *     <|start|>assistant<|channel|>final<|message|>...<|return|>
 *     <|start|>assistant to=functions.NAME<|channel|>commentary json<|message|>{...}<|call|>
 *
 * The recipient stands behind the role or behind the channel. The prompt has the first
 * "<|start|>assistant". */
#include <string.h>

#include "chat/reply_impl.h"

enum { LONGEST = TS_REPLY_MAX_NAME + 200 }; /* of a header */

#define MESSAGE "<|message|>"

/* The word behind a marker in a header; NULL without one. */
static const char *word(const char *s, size_t n, const char *marker, size_t *len)
{
    const char *p = memmem(s, n, marker, strlen(marker));
    if (!p)
        return NULL;
    p += strlen(marker);
    *len = 0;
    while (p + *len < s + n && !r_is_space(p[*len]) && p[*len] != '<')
        ++*len;
    return p;
}

static r_step call(ts_reply *r, const char *to, size_t n)
{
    static const char prefix[] = "functions.";
    size_t k = sizeof prefix - 1;
    if (n > k && memcmp(to, prefix, k) == 0) {
        to += k;
        n -= k;
    }
    return r_set_name(r, to, n) ? r_goto(r, r_named_args) : r_no_call(r);
}

static bool is_word(const char *s, size_t n, const char *want)
{
    return s && n == strlen(want) && memcmp(s, want, n) == 0;
}

/* Which message it is; r->at is behind the header. */
static r_step message(ts_reply *r, size_t header)
{
    const char *p = r_text(r);
    size_t n_to = 0, n_channel = 0;
    const char *to = word(p, header, "to=", &n_to);
    const char *channel = word(p, header, "<|channel|>", &n_channel);
    if (to && !is_word(to, n_to, "user") && !is_word(to, n_to, "all"))
        return call(r, to, n_to);
    bool analysis = is_word(channel, n_channel, "analysis");
    size_t given = r->given < r->at ? r->given : r->at;
    if (analysis && !r->reasoning)
        r_emit(r, TS_REPLY_CONTENT, p + given, r->at - given);
    else
        r_boundary(r);
    r_take(r, r->at);
    return r_goto(r, analysis ? r_in_thinking : r_in_text);
}

r_step r_channel_begin(ts_reply *r)
{
    size_t n = r_left(r), longest = n < LONGEST ? n : LONGEST;
    int m = 0;
    while (r->at < longest && (m = r_match(r, r->at, MESSAGE)) == 0)
        r->at++;
    if (m > 0) {
        size_t header = r->at;
        r->at += strlen(MESSAGE);
        return message(r, header);
    }
    if (r->at == LONGEST)
        return r_no_call(r);
    if (!r_is_end(r))
        return R_WAIT;
    r_take(r, n); /* a header without a message says nothing */
    return R_GO;
}

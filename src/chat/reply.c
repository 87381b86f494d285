/* reply.c - a reader of answers: opened on a form and the end of a prompt, given text. */
#include "chat/reply_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* --- open ------------------------------------------------------------------------------ */

static void add_marker(ts_reply *r, const char *s, r_role role, int stage)
{
    if (!s)
        return;
    r->markers[r->n_markers++] = (r_marker){s, strlen(s), role, stage};
    r->first[(uint8_t)*s] = 1;
}

static void set_markers(ts_reply *r, bool tools)
{
    const ts_reply_form *f = r->form;
    bool channels = f->kind == R_CHANNELS;
    if (!channels) {
        add_marker(r, r->think->begin, R_THINK, 0);
        add_marker(r, r->think->end, R_UNTHINK, 0);
    }
    add_marker(r, r->think->open, R_OPEN, 0);
    add_marker(r, r->think->close, R_CLOSE, 0);
    for (size_t i = 0; i < 4; i++)
        add_marker(r, f->drop[i], R_DROP, 0);
    if (channels) {
        add_marker(r, "<|start|>", R_HEADER, 0);
        add_marker(r, "<|channel|>", R_HEADER, 0);
        add_marker(r, " to=functions.", R_TO, 0);
    } else if (tools || f->content) {
        add_marker(r, f->section, R_ENTER, 1);
        add_marker(r, f->begin, R_ENTER, 2);
        add_marker(r, f->open, R_ENTER, 3);
        add_marker(r, f->bare ? "{" : NULL, R_BRACE, 0);
    }
}

static bool append(ts_reply *r, const char *s, size_t n)
{
    size_t left = r->n - r->pos;
    if (n == 0)
        return true;
    if (r->pos > 0) {
        memmove(r->buf, r->buf + r->pos, left);
        r->pos = 0;
        r->n = left;
    }
    if (n > r->cap - r->n) {
        size_t want = r->cap ? 2 * r->cap : 256;
        while (want - r->n < n)
            want *= 2;
        char *more = realloc(r->buf, want);
        if (!more)
            return false;
        r->buf = more;
        r->cap = want;
    }
    memcpy(r->buf + r->n, s, n);
    r->n += n;
    return true;
}

/* What of the answer's beginning stands at the end of the prompt. */
static bool begin(ts_reply *r, const char *prompt, size_t n_prompt, const char *forced)
{
    const ts_reply_form *f = r->form;
    size_t k = f->content ? strlen(f->begin) : 0;
    bool ok = true;
    r->fresh = true;
    r->state = r_in_text;
    if (k && n_prompt >= k && memcmp(prompt + n_prompt - k, f->begin, k) == 0)
        ok = append(r, f->begin, k);
    if (!forced && r_think_opened(r->think, prompt, n_prompt)) {
        r->trim = r->reasoning;
        r->state = r_in_thinking;
    }
    if (forced && strncmp(forced, r->think->end, strlen(r->think->end)) == 0) {
        forced += strlen(r->think->end);
        while (r_is_space(*forced))
            forced++;
    }
    ok = ok && (!forced || append(r, forced, strlen(forced)));
    r->given = r->n;
    return ok;
}

ts_status ts_reply_open(ts_reply **out, const ts_chat *c, const char *prompt_text,
                        size_t n_prompt_text, const ts_reply_options *opt, ts_error *err)
{
    ts_reply *r = ts_calloc(1, sizeof *r);
    ts_status st = r ? TS_OK : ts_fail(err, TS_NO_MEMORY, "no memory to read an answer");
    if (!st && opt->like)
        r->tools = r_tools_share(&opt->like->tools);
    else if (!st && opt->tools)
        st = r_tools_open(&r->tools, opt->tools, opt->n_tools, err);
    if (st) {
        ts_reply_close(r);
        return st;
    }
    bool tools = json_object_size(r->tools.names) > 0;
    r->form = r_speech(c, tools)->form;
    r->think = r_speech(c, tools)->think;
    r->reasoning = opt->reasoning;
    set_markers(r, tools);
    if (!begin(r, prompt_text, n_prompt_text, opt->forced)) {
        ts_reply_close(r);
        return ts_fail(err, TS_NO_MEMORY, "no memory to read an answer");
    }
    *out = r;
    return TS_OK;
}

void ts_reply_close(ts_reply *r)
{
    if (!r)
        return;
    r_tools_close(&r->tools);
    json_decref(r->values);
    ts_sb_free(&r->space);
    ts_sb_free(&r->args);
    ts_sb_free(&r->param);
    free(r->buf);
    free(r);
}

int64_t ts_reply_calls(const ts_reply *r)
{
    return r->calls;
}

/* --- push ------------------------------------------------------------------------------ */

/* Whole characters alone reach the states: one that has begun waits, a byte that is none becomes
 * U+FFFD. */
static bool take_in(ts_reply *r, const char *s, size_t n, bool last)
{
    while (n > 0 && r->n_tail > 0) {
        r->tail[r->n_tail++] = *s++;
        n--;
        if (ts_utf8_decode(r->tail, r->n_tail, NULL) == r->n_tail) {
            if (!append(r, r->tail, r->n_tail))
                return false;
            r->n_tail = 0;
        } else if (ts_utf8_tail(r->tail, r->n_tail) != r->n_tail) {
            /* the first byte is none; those behind it are looked at again */
            char again[4];
            size_t k = r->n_tail - 1;
            memcpy(again, r->tail + 1, k);
            r->n_tail = 0;
            if (!append(r, "\xef\xbf\xbd", 3) || !take_in(r, again, k, false))
                return false;
        }
    }
    while (n > 0) {
        size_t good = ts_utf8_valid(s, n);
        if (!append(r, s, good))
            return false;
        s += good;
        n -= good;
        if (n > 0 && ts_utf8_tail(s, n) == n) {
            memcpy(r->tail, s, n);
            r->n_tail = n;
            n = 0;
        } else if (n > 0) {
            if (!append(r, "\xef\xbf\xbd", 3))
                return false;
            s++;
            n--;
        }
    }
    bool ok = true;
    for (; last && r->n_tail > 0; r->n_tail--)
        ok = ok && append(r, "\xef\xbf\xbd", 3);
    return ok;
}

ts_status ts_reply_push(ts_reply *r, const char *text, size_t n, bool last, ts_reply_fn *fn,
                        void *user, ts_error *err)
{
    if (r->st)
        return ts_fail(err, r->st, "the reading of this answer has failed before");
    if (r->ended && (n > 0 || !last))
        return ts_fail(err, TS_BAD_ARG, "something follows an answer's last text");
    r->fn = fn;
    r->user = user;
    r->err = err;
    r->last = r->ended = last;
    if (!take_in(r, text, n, last))
        r_no_memory(r);
    while (!r->st && r->pos < r->n && r->state(r) == R_GO)
        ;
    if (last && !r->st && (r->state != r_in_thinking || !r->reasoning)) {
        r_part(r, TS_REPLY_CONTENT, r->space.s, r->space.n);
        r->space.n = 0;
    }
    r->err = NULL;
    return r->st;
}

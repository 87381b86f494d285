/* reply_named.c - calls of a name, a marker, and the arguments as JSON.
 *
 * Around the name stand words that belong to no function: "functions." in front of it, a number
 * behind it, an id. It is held until the arguments begin. */
#include <string.h>

#include "chat/reply_impl.h"

enum { LONGEST = TS_REPLY_MAX_NAME + 200 }; /* of what is read as a name */

static r_state in_name, in_args;

r_step r_named_begin(ts_reply *r)
{
    if (!r_skip(r))
        return r_wait(r);
    char c = r_text(r)[r->at];
    if (c == '[' || c == '{') /* models from between two versions */
        return r_json_begin(r);
    r->from = r->at;
    return r_goto(r, in_name);
}

/* The last place of what in s[n]: names may have it too. */
static const char *last_of(const char *s, size_t n, const char *what)
{
    const char *last = NULL;
    for (const char *p = s; (p = memmem(p, n - (size_t)(p - s), what, strlen(what))); p++)
        last = p;
    return last;
}

/* Whether s[n] is a tool's name, or becomes one without what else may stand there. */
static bool find_name(ts_reply *r, const char *s, size_t n)
{
    static const char prefix[] = "functions.";
    const ts_reply_form *f = r->form;
    const char *p;
    size_t k = sizeof prefix - 1;
    if (f->skip && (p = memmem(s, n, f->skip, strlen(f->skip)))) {
        p += strlen(f->skip);
        n -= (size_t)(p - s);
        s = p;
    }
    for (; n > 0 && r_is_space(*s); s++)
        n--;
    while (n > 0 && r_is_space(s[n - 1]))
        n--;
    for (int i = 0; i < 2; i++) {
        if (r_set_name(r, s, n))
            return true;
        if (n > k && memcmp(s, prefix, k) == 0 && r_set_name(r, s + k, n - k))
            return true;
        if (!f->number || !(p = last_of(s, n, f->number)))
            return false;
        n = (size_t)(p - s);
    }
    return false;
}

static bool is_content(const ts_reply *r)
{
    const char *content = r->form->content;
    size_t n = r->at - r->from;
    return content && n == strlen(content) && memcmp(r_text(r) + r->from, content, n) == 0;
}

static r_step in_name(ts_reply *r)
{
    const char *end = r->form->name_end;
    size_t n = r_left(r);
    int m = 0;
    while (r->at < n && (m = r_match(r, r->at, end)) == 0 && r->at - r->from < LONGEST)
        r->at++;
    if (r->at == n || m < 0)
        return r_wait(r);
    if (m == 0)
        return r_no_call(r);
    if (is_content(r)) {
        r_boundary(r);
        r_take(r, r->at + strlen(end));
        return r_goto(r, r_in_text);
    }
    if (!find_name(r, r_text(r) + r->from, r->at - r->from))
        return r_no_call(r);
    r->at += strlen(end);
    return r_goto(r, r_named_args);
}

r_step r_named_args(ts_reply *r)
{
    size_t k = 0;
    const bool more = r_skip(r);
    /* gpt-oss's mark behind a call ends the answer, so it may not be there */
    if (!more && (r->form->kind != R_CHANNELS || !r_is_end(r)))
        return r_wait(r);
    if (more && r_text(r)[r->at] == '{') {
        r_begin_call(r);
        r_take(r, r->at);
        r->scan = (r_scan){0};
        return r_goto(r, in_args);
    }
    int m = more ? r_closer(r, r->at, &k) : 1;
    if (m < 0)
        return r_wait(r);
    if (m == 0)
        return r_no_call(r);
    r_begin_call(r);
    r_arguments(r, "{}", 2);
    r_take(r, r->at);
    return r_goto(r, r_behind);
}

static r_step in_args(ts_reply *r)
{
    r_scanned got = r_stream(r);
    size_t took = r->at;
    r_take(r, took);
    if (got != R_MORE)
        return r_goto(r, r_behind);
    return took > 0 ? R_GO : R_WAIT;
}

/* reply_text.c - the text between markers: content and thinking, what leads into a call and out of
 * it.
 *
 * White space that may turn out to stand before a marker waits in `space`; a marker drops it, any
 * other text lets it go first. Each state takes away what it has settled; see reply_impl.h. */
#include <string.h>

#include "chat/reply_impl.h"

/* --- what the states use --------------------------------------------------------------- */

int r_match(const ts_reply *r, size_t at, const char *marker)
{
    size_t n = marker ? strlen(marker) : 0, left = r_left(r) - at;
    const char *p = r_text(r) + at;
    if (!marker)
        return 0;
    if (left >= n)
        return memcmp(p, marker, n) == 0;
    return memcmp(p, marker, left) == 0 && !r_is_end(r) ? -1 : 0;
}

bool r_skip(ts_reply *r)
{
    const char *p = r_text(r);
    size_t n = r_left(r);
    while (r->at < n && r_is_space(p[r->at]))
        r->at++;
    return r->at < n;
}

void r_take(ts_reply *r, size_t n)
{
    r->given -= r->given < n ? r->given : n;
    r->pos += n;
    r->at = 0;
}

r_step r_goto(ts_reply *r, r_state *state)
{
    r->state = state;
    return R_GO;
}

r_step r_fail(ts_reply *r, ts_status st)
{
    if (!r->st)
        r->st = st;
    return R_WAIT;
}

r_step r_no_memory(ts_reply *r)
{
    return r_fail(r, ts_fail(r->err, TS_NO_MEMORY, "no memory to read an answer"));
}

/* --- parts ----------------------------------------------------------------------------- */

void r_part(ts_reply *r, ts_reply_kind kind, const char *s, size_t n)
{
    ts_reply_part p = {.kind = kind, .text = s, .n = n};
    if (kind == TS_REPLY_CALL || kind == TS_REPLY_ARGUMENTS) {
        p.call = r->calls - 1;
        p.name = kind == TS_REPLY_CALL ? r->name : NULL;
    }
    if (r->st || (n == 0 && kind != TS_REPLY_CALL))
        return;
    ts_status st = r->fn(r->user, &p, r->err);
    if (st)
        r_fail(r, st);
}

void r_emit(ts_reply *r, ts_reply_kind kind, const char *s, size_t n)
{
    size_t from = 0, to = n;
    while (r->trim && from < n && r_is_space(s[from]))
        from++;
    while (to > from && r_is_space(s[to - 1]))
        to--;
    if (to > from) {
        r_part(r, kind, r->space.s, r->space.n);
        r->space.n = 0;
        r_part(r, kind, s + from, to - from);
        r->fresh = r->trim = false;
    }
    ts_sb_add(&r->space, s + to, n - to);
    if (r->space.failed)
        r_no_memory(r);
}

void r_boundary(ts_reply *r)
{
    r->space.n = 0;
    r->fresh = r->trim = true;
}

r_step r_no_call(ts_reply *r)
{
    const char *p = r_text(r);
    size_t n = r_left(r);
    while (r->at < n && ((uint8_t)p[r->at] & 0xc0) == 0x80)
        r->at++;
    size_t given = r->given < r->at ? r->given : r->at;
    r_emit(r, TS_REPLY_CONTENT, p + given, r->at - given);
    r_take(r, r->at);
    return r_goto(r, r_in_text);
}

r_step r_wait(ts_reply *r)
{
    if (r_may_wait(r))
        return R_WAIT;
    r->at = r_left(r);
    return r_no_call(r);
}

bool r_set_name(ts_reply *r, const char *s, size_t n)
{
    if (n == 0 || n > TS_REPLY_MAX_NAME || memchr(s, 0, n))
        return false;
    memcpy(r->name, s, n);
    r->name[n] = 0;
    r->named = json_object_get(r->tools.names, r->name) != NULL;
    return r->named;
}

void r_begin_call(ts_reply *r)
{
    r_boundary(r);
    r->called = true;
    r->calls++;
    r_part(r, TS_REPLY_CALL, NULL, 0);
}

void r_arguments(ts_reply *r, const char *s, size_t n)
{
    r_part(r, TS_REPLY_ARGUMENTS, s, n);
}

/* --- arguments ------------------------------------------------------------------------- */

static void put_arguments(ts_reply *r, const char *s, size_t n)
{
    if (r->called)
        r_arguments(r, s, n);
    else
        ts_sb_add(&r->args, s, n);
    if (r->args.failed)
        r_no_memory(r);
}

/* A line break or the like in a string: JSON wants it escaped. */
static void put_escaped(ts_reply *r, char c)
{
    ts_sb b = {0};
    ts_sb_json_str(&b, &c, 1);
    if (b.failed)
        r_no_memory(r);
    else
        put_arguments(r, b.s + 1, b.n - 2);
    ts_sb_free(&b);
}

r_scanned r_stream(ts_reply *r)
{
    const char *p = r_text(r);
    size_t n = r_left(r), from = r->at;
    r_scanned got = R_MORE;
    while (got == R_MORE && r->at < n && !r->st) {
        got = r_scan_byte(&r->scan, p[r->at]);
        if (got == R_RAW) {
            put_arguments(r, p + from, r->at - from);
            put_escaped(r, p[r->at]);
            from = r->at + 1;
            got = R_MORE;
        }
        r->at += got == R_MORE || got == R_DONE;
    }
    put_arguments(r, p + from, r->at - from);
    r->args_done = got == R_DONE;
    return got;
}

/* --- into a call and behind it --------------------------------------------------------- */

/* The markers that lead to a call's name, one after the other. */
static r_step in_head(ts_reply *r)
{
    static r_state *const begins[] = {[R_JSON] = r_json_begin,
                                      [R_NAMED] = r_named_begin,
                                      [R_TAGS] = r_tags_begin,
                                      [R_PYTHON] = r_python_begin};
    const ts_reply_form *f = r->form;
    for (;;) {
        const char *next = r->stage == 1 && f->begin ? f->begin : r->stage < 3 ? f->open : NULL;
        if (!next)
            return r_goto(r, begins[f->kind]);
        if (!r_skip(r))
            return r_wait(r);
        int m = r_match(r, r->at, next);
        if (m <= 0)
            return m ? r_wait(r) : r_no_call(r);
        r->at += strlen(next);
        r->stage = next == f->begin ? 2 : 3;
    }
}

r_step r_enter(ts_reply *r, int stage, size_t at)
{
    r->named = r->called = r->list = r->nested = r->bare = r->args_done = false;
    r->args.n = 0;
    r->stage = stage;
    r->at = at;
    return r_goto(r, in_head);
}

int r_closer(const ts_reply *r, size_t at, size_t *n)
{
    const ts_reply_form *f = r->form;
    const char *const ends[] = {f->end,     f->section_end, f->kind == R_NAMED ? "```" : NULL,
                                f->drop[0], f->drop[1],     f->drop[2],
                                f->drop[3]};
    int best = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends && best <= 0; i++) {
        int m = r_match(r, at, ends[i]);
        best = m ? m : best;
        *n = m > 0 ? strlen(ends[i]) : 0;
    }
    return best;
}

r_step r_behind(ts_reply *r)
{
    enum { WINDOW = 256 };
    size_t n = r_left(r), k = 0;
    r->at = 0;
    bool more = r_skip(r);
    if (r->at > 0) {
        r_take(r, r->at);
        return R_GO;
    }
    /* brackets too many before the end of a call are no content */
    const char *p = r_text(r);
    while (
        more && r->at < n && r->at < WINDOW &&
        (r_is_space(p[r->at]) || (r->form->kind != R_TAGS && (p[r->at] == '}' || p[r->at] == ']'))))
        r->at++;
    int m = r->at == WINDOW ? 0 : r->at < n ? r_closer(r, r->at, &k) : r_is_end(r) ? 0 : -1;
    if (m < 0)
        return R_WAIT;
    if (m > 0) {
        r_take(r, r->at + k);
        return R_GO;
    }
    return r_goto(r, r_in_text);
}

/* --- text ------------------------------------------------------------------------------ */

static bool is_active(const ts_reply *r, const r_marker *m, bool fresh)
{
    switch (m->role) {
    case R_CLOSE:
        return r->wrapped;
    case R_ENTER:
    case R_HEADER:
    case R_DROP:
        return true;
    default:
        return fresh;
    }
}

/* The marker at `at`; *maybe: one may begin there. */
static const r_marker *marker_at(const ts_reply *r, size_t at, bool fresh, bool *maybe)
{
    const r_marker *found = NULL;
    *maybe = false;
    for (const r_marker *m = r->markers; m < r->markers + r->n_markers; m++) {
        int hit = is_active(r, m, fresh) ? r_match(r, at, m->s) : 0;
        if (hit > 0 && (!found || m->n > found->n))
            found = m;
        *maybe |= hit < 0;
    }
    return found;
}

static r_step at_marker(ts_reply *r, const r_marker *m)
{
    switch (m->role) {
    case R_THINK:
        if (r->reasoning)
            r_boundary(r);
        else
            r_emit(r, TS_REPLY_CONTENT, m->s, m->n);
        r_take(r, m->n);
        return r_goto(r, r_in_thinking);
    case R_UNTHINK: /* thinking that was ended before it began */
        if (!r->reasoning)
            r_emit(r, TS_REPLY_CONTENT, m->s, m->n);
        else
            r_boundary(r);
        r_take(r, m->n);
        return R_GO;
    case R_ENTER: /* a bracket at its end belongs to the call */
        return r_enter(r, m->stage, m->n - (m->s[m->n - 1] == '['));
    case R_BRACE:
        r_enter(r, 3, 0);
        r->bare = true;
        return R_GO;
    case R_HEADER:
    case R_TO:
        r_enter(r, 0, 0);
        return r_goto(r, r_channel_begin);
    default:
        r->wrapped = m->role == R_OPEN;
        r_boundary(r);
        r_take(r, m->n);
        return R_GO;
    }
}

r_step r_in_text(ts_reply *r)
{
    const char *p = r_text(r);
    const r_marker *m = NULL;
    size_t n = r_left(r), i;
    bool fresh = r->fresh, maybe = false;
    for (i = 0; i < n; i++) {
        if (r->first[(uint8_t)p[i]] && ((m = marker_at(r, i, fresh, &maybe)) || maybe))
            break;
        fresh &= r_is_space(p[i]);
    }
    if (maybe)
        m = NULL;
    r_emit(r, TS_REPLY_CONTENT, p, i);
    r_take(r, i);
    if (m)
        return at_marker(r, m);
    return i > 0 ? R_GO : R_WAIT;
}

/* In thinking a header ends it too. */
static const char *const ends_analysis[] = {"<|start|>", "<|channel|>", "<|return|>", "<|call|>"};

static int end_of_thinking(const ts_reply *r, size_t at, size_t *n)
{
    int m = r_match(r, at, r->think->end), h;
    *n = m > 0 ? strlen(r->think->end) : 0;
    for (size_t i = 0; m == 0 && r->form->kind == R_CHANNELS && i < 4; i++)
        if ((h = r_match(r, at, ends_analysis[i])))
            m = h;
    return m;
}

r_step r_in_thinking(ts_reply *r)
{
    const char *p = r_text(r);
    ts_reply_kind kind = r->reasoning ? TS_REPLY_REASONING : TS_REPLY_CONTENT;
    size_t n = r_left(r), i, k = 0;
    int m = 0;
    for (i = 0; i < n; i++)
        if ((p[i] == '<' || p[i] == '[') && (m = end_of_thinking(r, i, &k)))
            break;
    r_emit(r, kind, p, i);
    r_take(r, i);
    if (m <= 0)
        return i > 0 ? R_GO : R_WAIT;
    if (r->reasoning)
        r_boundary(r);
    else
        r_emit(r, kind, p + i, k);
    r->fresh = true;
    r_take(r, k);
    return r_goto(r, r_in_text);
}

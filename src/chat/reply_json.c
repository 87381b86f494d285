/* reply_json.c - calls that are JSON: an object of a name and arguments, several of them or a list.
 *
 * Names of members differ: "name" or "tool_name", "arguments" or "parameters"; some wrap both in
 * "function"; some write the arguments as a string; some have the name last. What comes before the
 * name and the arguments' beginning is held, so that it can still turn out to be no call. From
 * there on the arguments are handed over as they come, and the rest of the object is dropped. */
#include <string.h>

#include "chat/reply_impl.h"
#include "grammar/json.h"

enum { K_OTHER, K_NAME, K_ARGS, K_FUNCTION, K_KNOWN };

static r_state at_key, in_key, at_colon, at_value, in_value, in_args, at_comma, at_next,
    behind_comma;

/* From a call on nothing is held. */
static void settle(ts_reply *r)
{
    if (r->called)
        r_take(r, r->at);
}

static r_step more(ts_reply *r)
{
    if (!r->called)
        return r_wait(r);
    size_t took = r->at;
    settle(r);
    return took > 0 ? R_GO : R_WAIT;
}

static r_step broken(ts_reply *r)
{
    if (!r->called)
        return r_no_call(r);
    settle(r);
    return r_goto(r, r_behind);
}

static r_step next(ts_reply *r, r_state *state)
{
    settle(r);
    return r_goto(r, state);
}

/* --- names and values ------------------------------------------------------------------ */

/* The value from r->from on: NULL if it is none, or when memory is short. */
static json_t *decode(ts_reply *r)
{
    json_t *v = NULL;
    ts_status st = ts_json_read(&v, r_text(r) + r->from, r->at - r->from, "it",
                                TS_JSON_NUL | TS_JSON_TWICE, NULL);
    if (st == TS_NO_MEMORY)
        r_no_memory(r);
    return st ? NULL : v;
}

static int kind_of_key(const char *s)
{
    static const struct {
        const char *name;
        int kind;
    } known[] = {{"name", K_NAME},         {"tool_name", K_NAME}, {"arguments", K_ARGS},
                 {"parameters", K_ARGS},   {"type", K_KNOWN},     {"id", K_KNOWN},
                 {"function", K_FUNCTION}, {"index", K_KNOWN},    {"tool_call_id", K_KNOWN}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(s, known[i].name) == 0)
            return known[i].kind;
    return K_OTHER;
}

/* The call begins if its name and its arguments are known. */
static void begin_known(ts_reply *r)
{
    if (r->called || !r->named || !r->args_done)
        return;
    r_begin_call(r);
    r_arguments(r, r->args.s, r->args.n);
}

static bool take_name(ts_reply *r)
{
    json_t *v = decode(r);
    bool ok = json_is_string(v) && r_set_name(r, json_string_value(v), json_string_length(v));
    json_decref(v);
    begin_known(r);
    return ok;
}

/* Arguments as a string, or none. */
static bool take_arguments(ts_reply *r)
{
    json_t *v = decode(r), *args = NULL;
    bool ok = json_is_null(v);
    if (json_is_string(v)) {
        ts_status st = ts_json_read(&args, json_string_value(v), json_string_length(v), "it",
                                    TS_JSON_NUL | TS_JSON_TWICE, NULL);
        if (st == TS_NO_MEMORY)
            r_no_memory(r);
        ok = !st && json_is_object(args);
        ts_sb_add(&r->args, json_string_value(v), ok ? json_string_length(v) : 0);
        r->args_done = ok;
    }
    if (r->args.failed)
        r_no_memory(r);
    json_decref(args);
    json_decref(v);
    begin_known(r);
    return ok;
}

/* --- an object ------------------------------------------------------------------------- */

static r_step end_of_object(ts_reply *r)
{
    r->at++;
    if (r->nested) {
        r->nested = false;
        return next(r, at_comma);
    }
    if (!r->called) {
        if (!r->named)
            return r_no_call(r);
        ts_sb_str(&r->args, "{}");
        r->args_done = true;
        if (r->args.failed)
            return r_no_memory(r);
        begin_known(r);
    }
    return next(r, at_next);
}

/* r->may_end: the object may end here. */
static r_step at_key(ts_reply *r)
{
    if (!r_skip(r))
        return more(r);
    char c = r_text(r)[r->at];
    if (c == '}' && r->may_end)
        return end_of_object(r);
    if (c != '"')
        return broken(r);
    r->from = r->at;
    r->scan = (r_scan){0};
    return r_goto(r, in_key);
}

/* Moves r->at to the end of the value, or of the text. */
static r_scanned scan(ts_reply *r)
{
    const char *p = r_text(r);
    size_t n = r_left(r);
    r_scanned got = R_MORE;
    while (got == R_MORE && r->at < n) {
        got = r_scan_byte(&r->scan, p[r->at]);
        r->at += got == R_MORE || got == R_DONE;
    }
    return got;
}

static r_step in_key(ts_reply *r)
{
    r_scanned got = scan(r);
    if (got == R_MORE)
        return more(r);
    if (got != R_DONE)
        return broken(r);
    r->key = K_OTHER;
    if (!r->called) {
        json_t *key = decode(r);
        const char *s = json_string_value(key);
        if (s && r->form->keyed && r_set_name(r, s, json_string_length(key)))
            r->key = K_ARGS;
        else if (s && !r->form->keyed)
            r->key = kind_of_key(s);
        json_decref(key);
        if (!s || (r->key == K_OTHER && r->bare))
            return r_no_call(r);
    }
    return next(r, at_colon);
}

static r_step at_colon(ts_reply *r)
{
    if (!r_skip(r))
        return more(r);
    if (r_text(r)[r->at] != ':')
        return broken(r);
    r->at++;
    return next(r, at_value);
}

static r_step at_value(ts_reply *r)
{
    if (!r_skip(r))
        return more(r);
    char c = r_text(r)[r->at];
    r->from = r->at;
    r->scan = (r_scan){0};
    if (r->called || r->args_done)
        r->key = r->key == K_ARGS ? K_KNOWN : r->key;
    if (r->key == K_FUNCTION && c == '{' && !r->nested) {
        r->nested = r->may_end = true;
        r->at++;
        return next(r, at_key);
    }
    if (r->key != K_ARGS || c != '{')
        return r_goto(r, in_value);
    if (r->named) {
        r_begin_call(r);
        settle(r);
    }
    return r_goto(r, in_args);
}

static r_step in_args(ts_reply *r)
{
    r_scanned got = r_stream(r);
    if (got == R_MORE)
        return more(r);
    return got == R_DONE ? next(r, at_comma) : broken(r);
}

static r_step in_value(ts_reply *r)
{
    r_scanned got = scan(r);
    bool ok = true;
    if (got == R_MORE)
        return more(r);
    if (got != R_DONE && got != R_BEFORE)
        return broken(r);
    if (!r->called && !r->named && (r->key == K_NAME || r->key == K_FUNCTION))
        ok = take_name(r);
    else if (!r->called && r->key == K_ARGS)
        ok = take_arguments(r);
    return ok ? next(r, at_comma) : r_no_call(r);
}

static r_step at_comma(ts_reply *r)
{
    if (!r_skip(r))
        return more(r);
    char c = r_text(r)[r->at];
    if (c == '}')
        return end_of_object(r);
    if (c != ',')
        return broken(r);
    r->at++;
    r->may_end = false;
    return next(r, at_key);
}

/* --- objects and lists --------------------------------------------------- */

/* At an object's bracket. */
static r_step at_object(ts_reply *r)
{
    if (!r_skip(r))
        return r_wait(r);
    if (r_text(r)[r->at] != '{')
        return r_no_call(r);
    r->at++;
    r->named = r->called = r->nested = r->args_done = false;
    r->may_end = true;
    r->args.n = 0;
    return r_goto(r, at_key);
}

r_step r_json_begin(ts_reply *r)
{
    if (!r_skip(r))
        return r_wait(r);
    if (r_text(r)[r->at] == '[') {
        r->list = true;
        r->at++;
    }
    return r_goto(r, at_object);
}

/* Behind an object that was a call. */
static r_step at_next(ts_reply *r)
{
    bool any = r_skip(r);
    r_take(r, r->at);
    if (!any)
        return r_left(r) > 0 ? R_GO : R_WAIT;
    char c = *r_text(r);
    r->called = false;
    if (c == '{' && !r->list)
        return r_goto(r, at_object);
    if (c == ']' && r->list) {
        r_take(r, 1);
        return r_goto(r, r_behind);
    }
    if (c != ',' && (c != ';' || r->list))
        return r_goto(r, r_behind);
    r->at = 1;
    return r_goto(r, behind_comma);
}

static r_step behind_comma(ts_reply *r)
{
    if (!r_skip(r))
        return r_wait(r);
    if (r_text(r)[r->at] == ']' && r->list) {
        r_take(r, r->at + 1);
        return r_goto(r, r_behind);
    }
    return r_goto(r, at_object);
}

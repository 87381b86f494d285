/* reply_tags.c - calls whose parameters stand between tags.
 *
 * Values are plain text there: what type they have says the tool's schema, or an attribute. Quotes
 * and brackets that a JSON object needs come with its end, so a call is held until it is closed and
 * its arguments come in one piece. */
#include <string.h>

#include "chat/reply_impl.h"

enum { LONGEST = TS_REPLY_MAX_NAME + 200 }; /* of what is read as a name */

static r_state in_name, behind_name, at_param, in_key, in_attr, at_mid, in_json, behind_json,
    in_value;

/* Moves r->at to the marker: as r_match. */
static int find(ts_reply *r, const char *marker)
{
    size_t n = r_left(r);
    int m = 0;
    while (r->at < n && (m = r_match(r, r->at, marker)) == 0)
        r->at++;
    return r->at == n ? -1 : m;
}

static void trim(const char **s, size_t *n)
{
    while (*n > 0 && r_is_space(**s)) {
        ++*s;
        --*n;
    }
    while (*n > 0 && r_is_space((*s)[*n - 1]))
        --*n;
}

/* --- the name -------------------------------------------------------------------------- */

r_step r_tags_begin(ts_reply *r)
{
    if (!r_skip(r))
        return r_wait(r);
    json_decref(r->values);
    r->values = json_object();
    if (!r->values)
        return r_no_memory(r);
    r->from = r->at;
    return r_goto(r, in_name);
}

/* Without a marker at its end a name goes up to white space or a tag. */
static r_step in_name(ts_reply *r)
{
    const char *end = r->form->name_end, *p = r_text(r), *name = p + r->from;
    size_t n = r_left(r);
    int m = 0;
    for (; r->at < n && r->at - r->from < LONGEST; r->at++)
        if ((end && (m = r_match(r, r->at, end))) ||
            (!end && (r_is_space(p[r->at]) || p[r->at] == '<')))
            break;
    if (r->at == n || m < 0)
        return r_wait(r);
    n = r->at - r->from;
    trim(&name, &n);
    if ((end && m == 0) || !r_set_name(r, name, n))
        return r_no_call(r);
    r->at += end ? strlen(end) : 0;
    return r_goto(r, behind_name);
}

static r_step behind_name(ts_reply *r)
{
    const char *end = r->form->head_end;
    int m = end ? find(r, end) : 1;
    if (m < 0)
        return r_wait(r);
    r->at += end ? strlen(end) : 0;
    return r_goto(r, at_param);
}

/* --- parameters ------------------------------------------------------------------------ */

static r_step end_of_call(ts_reply *r)
{
    ts_sb *b = &r->args;
    const char *key;
    json_t *v;
    b->n = 0;
    ts_sb_str(b, "{");
    json_object_foreach(r->values, key, v)
    {
        if (b->n > 1)
            ts_sb_str(b, ", ");
        ts_sb_json_str(b, key, strlen(key));
        ts_sb_str(b, ": ");
        ts_sb_add(b, json_string_value(v), json_string_length(v));
    }
    ts_sb_str(b, "}");
    if (b->failed)
        return r_no_memory(r);
    r_begin_call(r);
    r_arguments(r, b->s, b->n);
    r_take(r, r->at);
    return r_goto(r, r_behind);
}

static r_step at_param(ts_reply *r)
{
    const ts_reply_form *f = r->form;
    if (!r_skip(r))
        return r_wait(r);
    int p = r_match(r, r->at, f->param), c = r_match(r, r->at, f->close);
    if (c > 0) {
        r->at += strlen(f->close);
        return end_of_call(r);
    }
    if (p > 0) {
        r->at += strlen(f->param);
        r->from = r->at;
        return r_goto(r, in_key);
    }
    return p || c ? r_wait(r) : r_no_call(r);
}

/* The schema of a parameter; NULL: nothing is known of it. */
static const json_t *schema_of(const json_t *parameters, const char *key)
{
    const json_t *s = json_object_get(json_object_get(parameters, "properties"), key);
    return s ? s : json_object_get(parameters, "additionalProperties");
}

static r_step in_key(ts_reply *r)
{
    const ts_reply_form *f = r->form;
    int m = find(r, f->key_end);
    if (m < 0)
        return r_wait(r);
    const char *key = r_text(r) + r->from;
    size_t n = r->at - r->from;
    trim(&key, &n);
    if (memchr(key, 0, n))
        return r_no_call(r);
    r->param.n = 0;
    ts_sb_add(&r->param, key, n);
    if (r->param.failed)
        return r_no_memory(r);
    const json_t *parameters = json_object_get(r->tools.names, r->name);
    r->types = r_schema_types(parameters, schema_of(parameters, r->param.s));
    r->at += strlen(f->key_end);
    r->from = r->at;
    return r_goto(r, f->attr_end ? in_attr : at_mid);
}

/* string="true" or "false", type="string" or another one */
static r_step in_attr(ts_reply *r)
{
    int m = find(r, r->form->attr_end);
    if (m < 0)
        return r_wait(r);
    const char *s = r_text(r) + r->from;
    size_t n = r->at - r->from;
    bool string = (n == 4 && memcmp(s, "true", 4) == 0) || (n == 6 && memcmp(s, "string", 6) == 0);
    r->types = string ? R_STRING : R_ANY;
    r->at += strlen(r->form->attr_end);
    return r_goto(r, at_mid);
}

static r_step at_mid(ts_reply *r)
{
    const char *mid = r->form->mid;
    if (mid) {
        if (!r_skip(r))
            return r_wait(r);
        int m = r_match(r, r->at, mid);
        if (m <= 0)
            return m ? r_wait(r) : r_no_call(r);
        r->at += strlen(mid);
    }
    r->from = r->at;
    r->scan = (r_scan){0};
    return r_goto(r, r->types & (R_OBJECT | R_ARRAY) ? in_json : in_value);
}

/* A list or an object may have the marker at its end in a string: it is followed to its own end,
 * behind which the marker stands. What turns out to be neither is a value like others. */
static r_step in_json(ts_reply *r)
{
    const char *p = r_text(r);
    size_t n = r_left(r);
    r_scanned got = R_MORE;
    for (; got == R_MORE && r->at < n; r->at++) {
        if (r->scan.depth == 0 && !r_is_space(p[r->at]) && p[r->at] != '{' && p[r->at] != '[')
            got = R_BAD;
        else
            got = r_scan_byte(&r->scan, p[r->at]);
    }
    if (got == R_MORE && r_may_wait(r))
        return R_WAIT;
    if (got == R_DONE)
        return r_goto(r, behind_json);
    r->at = r->from;
    return r_goto(r, in_value);
}

static r_step behind_json(ts_reply *r)
{
    int m = r_skip(r) ? r_match(r, r->at, r->form->value_end) : -1;
    if (m < 0 && r_may_wait(r))
        return R_WAIT;
    if (m <= 0)
        r->at = r->from;
    return r_goto(r, in_value);
}

static r_step in_value(ts_reply *r)
{
    int m = find(r, r->form->value_end);
    if (m < 0)
        return r_wait(r);
    const char *s = r_text(r) + r->from;
    size_t n = r->at - r->from;
    ts_sb text = {0};
    if (r->form->lines && n > 0 && *s == '\n') {
        s++;
        n--;
    }
    if (r->form->lines && n > 0 && s[n - 1] == '\n')
        n--;
    ts_status st = r_value(&text, r->types, s, n, r->err);
    if (!st &&
        (text.failed || json_object_set_new(r->values, r->param.s, json_stringn(text.s, text.n))))
        st = ts_fail(r->err, TS_NO_MEMORY, "no memory to read an answer");
    ts_sb_free(&text);
    if (st)
        return r_fail(r, st);
    r->at += strlen(r->form->value_end);
    return r_goto(r, at_param);
}

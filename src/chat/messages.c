/* messages.c - a request checked and brought into the forms its template reads.
 *
 * What the package transformers does before it renders is done here too: tools and documents are
 * None where there are none, and what a model thought goes by all the names templates know it by.
 */
#include <string.h>

#include "base/mem.h"
#include "chat/chat.h"
#include "gguf/show.h"
#include "grammar/json.h"

/* Number of the message in sentences, from 1. */
typedef struct where {
    size_t message;
    ts_error *err;
} where;

static ts_status no_memory(ts_error *err)
{
    return ts_fail(err, TS_NO_MEMORY, "no memory for the messages of a conversation");
}

/* Takes over value, NULL included. */
static ts_status put(json_t *object, const char *key, json_t *value, ts_error *err)
{
    return json_object_set_new(object, key, value) ? no_memory(err) : TS_OK;
}

/* --- contents ------------------------------------------------------------------------ */

/* The text of a part; NULL with a sentence if it is none. */
static const json_t *part_text(const json_t *part, const where *w)
{
    const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "text");
    ts_shown shown;
    if (!json_is_object(part) || !json_is_string(type)) {
        ts_fail(w->err, TS_BAD_ARG, "message %zu: a part of its content is no object with a type",
                w->message);
        return NULL;
    }
    if (strcmp(json_string_value(type), "text") != 0) {
        ts_fail(w->err, TS_BAD_ARG,
                "message %zu: a part of its content is of type '%s'; only text "
                "is supported",
                w->message, ts_show(&shown, json_string_value(type), json_string_length(type)));
        return NULL;
    }
    if (!json_is_string(text)) {
        ts_fail(w->err, TS_BAD_ARG, "message %zu: a part of its content has no text", w->message);
        return NULL;
    }
    return text;
}

/* All parts, a line break between them. */
static ts_status join_parts(const json_t *parts, json_t **out, const where *w)
{
    ts_sb b = {0};
    size_t i;
    const json_t *part;
    ts_sb_add(&b, "", 0);
    json_array_foreach(parts, i, part)
    {
        const json_t *text = part_text(part, w);
        if (!text) {
            ts_sb_free(&b);
            return TS_BAD_ARG;
        }
        ts_sb_add(&b, "\n", i > 0);
        ts_sb_add(&b, json_string_value(text), json_string_length(text));
    }
    *out = b.failed ? NULL : json_stringn(b.s, b.n);
    ts_sb_free(&b);
    return *out ? TS_OK : no_memory(w->err);
}

static ts_status fix_content(json_t *m, const ts_chat_caps *caps, const where *w)
{
    json_t *content = json_object_get(m, "content"), *text = NULL;
    if (!content || json_is_null(content))
        return put(m, "content", json_string(""), w->err);
    if (json_is_array(content)) {
        ts_status st = join_parts(content, &text, w);
        if (st)
            return st;
        if (caps->parts) {
            json_decref(text);
            return TS_OK;
        }
        return put(m, "content", text, w->err);
    }
    if (!json_is_string(content))
        return ts_fail(w->err, TS_BAD_ARG, "message %zu: its content is neither text nor parts",
                       w->message);
    if (caps->text || !caps->parts)
        return TS_OK;
    return put(m, "content", json_pack("[{s:s, s:O}]", "type", "text", "text", content), w->err);
}

/* --- tool calls ------------------------------------------------------------------------- */

static ts_status fix_arguments(json_t *function, const ts_chat_caps *caps, const where *w)
{
    json_t *args = json_object_get(function, "arguments"), *parsed = NULL;
    if (json_is_object(args) && !caps->object_args) {
        ts_sb text = {0};
        ts_json_write(args, &text, 0);
        ts_status st =
            put(function, "arguments", text.failed ? NULL : json_stringn(text.s, text.n), w->err);
        ts_sb_free(&text);
        return st;
    }
    if (!json_is_string(args) || !caps->object_args)
        return TS_OK;
    ts_status st = ts_json_read(&parsed, json_string_value(args), json_string_length(args), "it",
                                TS_JSON_NUL | TS_JSON_TWICE, NULL);
    if (st == TS_NO_MEMORY)
        return no_memory(w->err);
    if (!json_is_object(parsed)) { /* what a model wrote may be anything */
        json_decref(parsed);
        return TS_OK;
    }
    return put(function, "arguments", parsed, w->err);
}

static ts_status fix_tool_calls(json_t *m, const ts_chat_caps *caps, const where *w)
{
    json_t *calls = json_object_get(m, "tool_calls"), *call;
    size_t i;
    if (!calls)
        return TS_OK;
    if (json_is_null(calls) || (json_is_array(calls) && json_array_size(calls) == 0)) {
        json_object_del(m, "tool_calls");
        return TS_OK;
    }
    if (!json_is_array(calls))
        return ts_fail(w->err, TS_BAD_ARG, "message %zu: its tool_calls are no list", w->message);
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function");
        if (!json_is_object(function) || !json_is_string(json_object_get(function, "name")))
            return ts_fail(w->err, TS_BAD_ARG,
                           "message %zu: tool call %zu has no function with a name", w->message,
                           i + 1);
        ts_status st = fix_arguments(function, caps, w);
        if (st)
            return st;
    }
    return TS_OK;
}

/* --- messages ---------------------------------------------------------------------------- */

/* reasoning_content is what templates read; gpt-oss's reads thinking. */
static ts_status fix_reasoning(json_t *m, const where *w)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *found = NULL;
    ts_status st = TS_OK;
    for (size_t i = 0; i < 3; i++) {
        json_t *v = json_object_get(m, names[i]);
        if (v && json_is_null(v))
            json_object_del(m, names[i]);
        else if (v && !found)
            found = v;
    }
    for (size_t i = 0; st == TS_OK && found && i < 2; i++)
        if (!json_object_get(m, names[i]))
            st = put(m, names[i], json_incref(found), w->err);
    return st;
}

static ts_status fix_message(json_t *m, const ts_chat_caps *caps, const where *w)
{
    const json_t *role = json_object_get(m, "role");
    if (!json_is_object(m))
        return ts_fail(w->err, TS_BAD_ARG, "message %zu is no object", w->message);
    if (!json_is_string(role) || json_string_length(role) == 0)
        return ts_fail(w->err, TS_BAD_ARG, "message %zu has no role", w->message);
    ts_status st = fix_content(m, caps, w);
    if (st == TS_OK)
        st = fix_tool_calls(m, caps, w);
    return st ? st : fix_reasoning(m, w);
}

static bool is_role(const json_t *m, const char *role)
{
    const char *s = json_string_value(json_object_get(m, "role"));
    return s && strcmp(s, role) == 0;
}

/* For templates without a system message: it stands in front of the first question. */
static ts_status move_system(json_t *messages, ts_error *err)
{
    json_t *first = json_array_get(messages, 0), *second = json_array_get(messages, 1);
    json_t *a = json_object_get(first, "content"), *b = json_object_get(second, "content");
    if (!is_role(first, "system") || !is_role(second, "user") || !json_is_string(a) ||
        !json_is_string(b))
        return TS_OK;
    ts_sb text = {0};
    ts_sb_add(&text, json_string_value(a), json_string_length(a));
    ts_sb_add(&text, "\n\n", json_string_length(a) ? 2 : 0);
    ts_sb_add(&text, json_string_value(b), json_string_length(b));
    ts_status st = text.failed
                       ? no_memory(err)
                       : put(second, "content", json_stringn(text.s ? text.s : "", text.n), err);
    ts_sb_free(&text);
    if (st == TS_OK)
        json_array_remove(messages, 0);
    return st;
}

static ts_status fix_variables(json_t *request, ts_error *err)
{
    static const char *const lists[] = {"tools", "documents"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_object_get(request, lists[i]);
        if (v && !json_is_null(v) && !json_is_array(v))
            return ts_fail(err, TS_BAD_ARG, "'%s' is no list", lists[i]);
        ts_status st = json_array_size(v) ? TS_OK : put(request, lists[i], json_null(), err);
        if (st)
            return st;
    }
    if (!json_object_get(request, "add_generation_prompt"))
        return put(request, "add_generation_prompt", json_true(), err);
    return TS_OK;
}

ts_status ts_chat_prepare(json_t *request, const ts_chat_caps *caps, ts_error *err)
{
    json_t *messages = json_object_get(request, "messages"), *m;
    size_t i;
    if (!json_is_object(request))
        return ts_fail(err, TS_BAD_ARG, "a conversation is a JSON object");
    if (!json_is_array(messages))
        return ts_fail(err, TS_BAD_ARG, "a conversation has a list of messages");
    if (json_array_size(messages) == 0)
        return ts_fail(err, TS_BAD_ARG, "the conversation has no messages");
    json_array_foreach(messages, i, m)
    {
        ts_status st = fix_message(m, caps, &(where){i + 1, err});
        if (st)
            return st;
    }
    ts_status st = caps->system ? TS_OK : move_system(messages, err);
    return st ? st : fix_variables(request, err);
}

/* probe.c - which forms of a conversation a template can read, found out by trying.
 *
 * A form is read when the template doesn't fail on it and the words put into it come out, not
 * wrapped up as Python would print a list. A template that fails on everything keeps the usual
 * forms: what it needs is said when it is used. */
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

#define WORD "zqxword"

/* Steps a probe may take: templates that loop are found when they are used. */
enum { PROBE_STEPS = 2000000 };

/* Whether WORD comes out, and nothing that only a printed list or dict holds. request is taken
 * over. */
static ts_status reads(const ts_jinja *t, const json_t *tokens, json_t *request, bool *out,
                       ts_error *err)
{
    struct tm now = {.tm_year = 125, .tm_mday = 1, .tm_wday = 3};
    ts_jinja_input in = {
        .vars = request, .trusted = tokens, .now = &now, .limits = {.steps = PROBE_STEPS}};
    ts_jinja_text text = {0};
    ts_error local = {0};
    if (!request)
        return ts_fail(err, TS_NO_MEMORY, "no memory to try a chat template");
    ts_status st = ts_jinja_render(t, &in, &text, &local);
    *out = st == TS_OK && strstr(text.s, WORD) && !strstr(text.s, "'type': 'text'") &&
           !strstr(text.s, "\"type\": \"text\"") && !strstr(text.s, "{'at'");
    free(text.s);
    free(text.mark);
    json_decref(request);
    return st == TS_NO_MEMORY ? ts_fail(err, st, "%s", local.msg) : TS_OK;
}

static json_t *question(json_t *content)
{
    return json_pack("{s:[{s:s, s:o}], s:b, s:n, s:n}", "messages", "role", "user", "content",
                     content, "add_generation_prompt", 1, "tools", "documents");
}

/* A tool that is called with these arguments and answers. */
static json_t *tool_call(json_t *args)
{
    return json_pack(
        "{s:[{s:s, s:s}, {s:s, s:s, s:[{s:s, s:s, s:{s:s, s:o}}]}, {s:s, s:s, s:s, s:s}],"
        " s:b, s:[{s:s, s:{s:s, s:s, s:{s:s, s:{s:{s:s, s:s}}, s:[s]}}}], s:n}",
        "messages",
        /* the question */
        "role", "user", "content", "a",
        /* the call */
        "role", "assistant", "content", "", "tool_calls", "id", "call12345", "type", "function",
        "function", "name", "look", "arguments", args,
        /* what the tool answers */
        "role", "tool", "tool_call_id", "call12345", "name", "look", "content", "b",
        /* the tool */
        "add_generation_prompt", 1, "tools", "type", "function", "function", "name", "look",
        "description", "looks", "parameters", "type", "object", "properties", "at", "type",
        "string", "description", "where", "required", "at", "documents");
}

static json_t *with_system(void)
{
    return json_pack("{s:[{s:s, s:s}, {s:s, s:s}], s:b, s:n, s:n}", "messages", "role", "system",
                     "content", WORD, "role", "user", "content", "a", "add_generation_prompt", 1,
                     "tools", "documents");
}

ts_status ts_chat_probe(const ts_jinja *t, const json_t *tokens, ts_chat_caps *out, ts_error *err)
{
    ts_chat_caps c = {0};
    bool args_text = false;
    ts_status st = reads(t, tokens, question(json_string(WORD)), &c.text, err);
    if (st == TS_OK)
        st = reads(t, tokens, question(json_pack("[{s:s, s:s}]", "type", "text", "text", WORD)),
                   &c.parts, err);
    if (st == TS_OK)
        st = reads(t, tokens, tool_call(json_pack("{s:s}", "at", WORD)), &c.object_args, err);
    if (st == TS_OK)
        st = reads(t, tokens, tool_call(json_string("{\"at\": \"" WORD "\"}")), &args_text, err);
    if (st == TS_OK)
        st = reads(t, tokens, with_system(), &c.system, err);
    c.system |= !c.text; /* nothing could be learned */
    c.text |= !c.parts;
    c.object_args |= !args_text;
    *out = c;
    return st;
}

/* request_chat.c - what only chats have: messages, tools, variables of the template. */
#include <stdlib.h>
#include <string.h>

#include "request.h"

/* --- tools -------------------------------------------------------------------------------- */

static ts_status check_tool(const json_t *tool, size_t i, ts_refusal *no)
{
    const char *type = json_string_value(json_object_get(tool, "type"));
    const json_t *f = json_object_get(tool, "function"), *name = json_object_get(f, "name");
    const json_t *parameters = json_object_get(f, "parameters");
    if (!type || strcmp(type, "function") != 0)
        return ts_refuse(no, 400, "invalid_value", "tools",
                         "'tools' must be objects of type function; number %zu is none.", i + 1);
    if (!json_string_length(name) || strlen(json_string_value(name)) != json_string_length(name))
        return ts_refuse(no, 400, "invalid_value", "tools",
                         "'tools' must have a function with a name each; number %zu has none.",
                         i + 1);
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return ts_refuse(no, 400, "invalid_value", "tools",
                         "The parameters of a tool are a JSON schema, an object; those of number "
                         "%zu are none.",
                         i + 1);
    return TS_OK;
}

static bool has_tool(const json_t *tools, const char *name)
{
    const json_t *tool;
    size_t i;
    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        if (strcmp(json_string_value(json_object_get(f, "name")), name) == 0)
            return true;
    }
    return false;
}

static ts_status read_choice(ts_request *r, const json_t *tools, ts_refusal *no)
{
    static const char want[] =
        "none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}";
    const json_t *v = json_object_get(r->body, "tool_choice");
    const char *word = json_string_value(v);
    bool any = json_array_size(tools) > 0;
    r->tool_choice = any ? TS_TOOLS_AUTO : TS_TOOLS_NONE;
    if (!v || json_is_null(v))
        return TS_OK;
    if (word && strcmp(word, "none") == 0) {
        r->tool_choice = TS_TOOLS_NONE;
        return TS_OK;
    }
    if (word && strcmp(word, "auto") == 0)
        return TS_OK;
    if (word && strcmp(word, "required") == 0) {
        r->tool_choice = TS_TOOLS_REQUIRED;
    } else {
        const json_t *f = json_object_get(v, "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!name)
            return ts_request_wrong(no, "tool_choice", want);
        if (!(r->tool_name = strdup(name)))
            return ts_request_no_memory(no);
        r->tool_choice = TS_TOOLS_NAMED;
    }
    if (!any)
        return ts_refuse(no, 400, "invalid_value", "tool_choice",
                         "'tool_choice' wants a call, but there are no 'tools'.");
    if (r->tool_name && !has_tool(tools, r->tool_name))
        return ts_refuse(no, 400, "invalid_value", "tool_choice",
                         "'tool_choice' names a function that isn't among the 'tools'.");
    return TS_OK;
}

static ts_status read_tools(ts_request *r, ts_refusal *no)
{
    const json_t *tools = json_object_get(r->body, "tools"), *tool;
    size_t i;
    if (ts_request_given(r->body, "functions") || ts_request_given(r->body, "function_call"))
        return ts_refuse(no, 400, "unsupported_value",
                         ts_request_given(r->body, "functions") ? "functions" : "function_call",
                         "'functions' and 'function_call' are replaced by 'tools' and "
                         "'tool_choice'.");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return ts_request_wrong(no, "tools", "a list");
    json_array_foreach(tools, i, tool)
    {
        ts_status st = check_tool(tool, i, no);
        if (st)
            return st;
    }
    ts_status st = read_choice(r, tools, no);
    if (st == TS_OK)
        st = ts_request_bool(r->body, "parallel_tool_calls", &r->parallel_calls, no);
    if (st || r->tool_choice == TS_TOOLS_NONE)
        return st;
    if (r->form != TS_FORM_FREE)
        return ts_refuse(no, 400, "unsupported_value",
                         r->form == TS_FORM_GBNF ? "grammar" : "response_format",
                         "An answer that may call tools can't be kept to a grammar or schema too; "
                         "'tool_choice' may be none.");
    return ts_request_json(tools, &r->tools, &r->n_tools, no);
}

/* --- what the template is given -------------------------------------------------------------- */

static bool reserved(const char *name)
{
    static const char *const names[] = {"messages", "tools", "add_generation_prompt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* chat_template_kwargs, and what OpenAI has a field of its own for. */
static ts_status add_variables(const ts_request *r, json_t *to, ts_refusal *no)
{
    json_t *v = json_object_get(r->body, "chat_template_kwargs"), *one;
    json_t *effort = json_object_get(r->body, "reasoning_effort");
    const char *name;
    if (effort && !json_is_null(effort) && !json_is_string(effort))
        return ts_request_wrong(no, "reasoning_effort", "a text");
    if (json_is_string(effort) && json_object_set(to, "reasoning_effort", effort))
        return ts_request_no_memory(no);
    if (!v || json_is_null(v))
        return TS_OK;
    if (!json_is_object(v))
        return ts_request_wrong(no, "chat_template_kwargs", "an object");
    json_object_foreach(v, name, one)
    {
        if (!reserved(name) && json_object_set(to, name, one))
            return ts_request_no_memory(no);
    }
    return TS_OK;
}

static ts_status make_chat(ts_request *r, json_t *messages, ts_refusal *no)
{
    json_t *chat = json_object();
    ts_status st = chat ? add_variables(r, chat, no) : ts_request_no_memory(no);
    if (st == TS_OK && json_object_set(chat, "messages", messages))
        st = ts_request_no_memory(no);
    if (st == TS_OK && r->tools &&
        json_object_set(chat, "tools", json_object_get(r->body, "tools")))
        st = ts_request_no_memory(no);
    if (st == TS_OK)
        st = ts_request_json(chat, &r->chat, &r->n_chat, no);
    json_decref(chat);
    return st;
}

ts_status ts_request_read_chat(ts_request *r, ts_refusal *no)
{
    json_t *messages = json_object_get(r->body, "messages");
    if (!messages || json_is_null(messages))
        return ts_refuse(no, 400, "missing_required_parameter", "messages",
                         "'messages' is missing.");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return ts_request_wrong(no, "messages", "a list of one message or more");
    ts_status st = read_tools(r, no);
    return st ? st : make_chat(r, messages, no);
}

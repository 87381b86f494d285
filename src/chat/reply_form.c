/* reply_form.c - the table of forms: how models write calls and thinking, and which of them a
 * template stands for.
 *
 * A row fits when the template's source has all it needs; the first that fits counts, so that those
 * with rarer markers stand first. The markers are those that the models' own templates write. */
#include <stdlib.h>
#include <string.h>

#include "chat/reply_impl.h"
#include "model/tok_internal.h"

static const ts_reply_form forms[] = {
    {.name = "gpt-oss",
     .needs = {"<|channel|>", "<|message|>"},
     .kind = R_CHANNELS,
     .drop = {"<|end|>", "<|return|>", "<|call|>"}},
    {.name = "Kimi K3",
     .needs = {"<|open|>", "<|end_of_msg|>"},
     .kind = R_TAGS,
     .post = "\" index=\"1",
     .section = "<|open|>tools<|sep|>",
     .open = "<|open|>call tool=\"",
     .name_end = "\"",
     .head_end = "<|sep|>",
     .param = "<|open|>argument key=\"",
     .key_end = "\" type=\"",
     .attr_end = "\"<|sep|>",
     .value_end = "<|close|>argument<|sep|>",
     .close = "<|close|>call<|sep|>",
     .section_end = "<|close|>tools<|sep|>",
     .drop = {"<|close|>message<|sep|>", "<|end_of_msg|>"}},
    {.name = "Kimi K2",
     .needs = {"<|tool_call_argument_begin|>"},
     .kind = R_NAMED,
     .pre = "functions.",
     .post = ":0",
     .section = "<|tool_calls_section_begin|>",
     .begin = "<|tool_call_begin|>",
     .number = ":",
     .name_end = "<|tool_call_argument_begin|>",
     .end = "<|tool_call_end|>",
     .section_end = "<|tool_calls_section_end|>"},
    {.name = "DeepSeek V3",
     .needs = {"<｜tool▁sep｜>", "```json"},
     .kind = R_NAMED,
     .pre = "function<｜tool▁sep｜>",
     .args_end = "\n```",
     .section = "<｜tool▁calls▁begin｜>",
     .begin = "<｜tool▁call▁begin｜>",
     .skip = "<｜tool▁sep｜>",
     .name_end = "\n```json\n",
     .end = "<｜tool▁call▁end｜>",
     .section_end = "<｜tool▁calls▁end｜>"},
    {.name = "DeepSeek V3.1",
     .needs = {"<｜tool▁sep｜>"},
     .kind = R_NAMED,
     .section = "<｜tool▁calls▁begin｜>",
     .begin = "<｜tool▁call▁begin｜>",
     .name_end = "<｜tool▁sep｜>",
     .end = "<｜tool▁call▁end｜>",
     .section_end = "<｜tool▁calls▁end｜>"},
    {.name = "DeepSeek V3.2",
     .needs = {"｜DSML｜", "function_calls"},
     .kind = R_TAGS,
     .breaks = true,
     .section = "<｜DSML｜function_calls>",
     .open = "<｜DSML｜invoke name=\"",
     .name_end = "\">",
     .param = "<｜DSML｜parameter name=\"",
     .key_end = "\" string=\"",
     .attr_end = "\">",
     .value_end = "</｜DSML｜parameter>",
     .close = "</｜DSML｜invoke>",
     .section_end = "</｜DSML｜function_calls>"},
    {.name = "DeepSeek V4",
     .needs = {"｜DSML｜", "tool_calls"},
     .kind = R_TAGS,
     .breaks = true,
     .section = "<｜DSML｜tool_calls>",
     .open = "<｜DSML｜invoke name=\"",
     .name_end = "\">",
     .param = "<｜DSML｜parameter name=\"",
     .key_end = "\" string=\"",
     .attr_end = "\">",
     .value_end = "</｜DSML｜parameter>",
     .close = "</｜DSML｜invoke>",
     .section_end = "</｜DSML｜tool_calls>"},
    {.name = "Solar",
     .needs = {"<|tool_call:begin|>", "<|tool_call:args|>"},
     .kind = R_NAMED,
     .pre = "call<|tool_call:name|>",
     .begin = "<|tool_call:begin|>",
     .skip = "<|tool_call:name|>",
     .name_end = "<|tool_call:args|>",
     .end = "<|tool_call:end|>",
     .drop = {"<|begin|>assistant", "<|tool_calls|>", "<|calls|>", "<|content|>"}},
    {.name = "MiniMax M2",
     .needs = {"<minimax:tool_call>"},
     .kind = R_TAGS,
     .breaks = true,
     .section = "<minimax:tool_call>",
     .open = "<invoke name=\"",
     .name_end = "\">",
     .param = "<parameter name=\"",
     .key_end = "\">",
     .value_end = "</parameter>",
     .close = "</invoke>",
     .section_end = "</minimax:tool_call>"},
    {.name = "Seed-OSS",
     .needs = {"<seed:tool_call>"},
     .kind = R_TAGS,
     .breaks = true,
     .begin = "<seed:tool_call>",
     .open = "<function=",
     .name_end = ">",
     .param = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>",
     .close = "</function>",
     .end = "</seed:tool_call>",
     .lines = true},
    {.name = "Hunyuan 3",
     .needs = {"<tool_sep{}>", ":opensource"},
     .kind = R_TAGS,
     .breaks = true,
     .section = "<tool_calls:opensource>",
     .begin = "<tool_call:opensource>",
     .name_end = "<tool_sep:opensource>",
     .param = "<arg_key:opensource>",
     .key_end = "</arg_key:opensource>",
     .mid = "<arg_value:opensource>",
     .value_end = "</arg_value:opensource>",
     .close = "</tool_call:opensource>",
     .section_end = "</tool_calls:opensource>"},
    {.name = "GLM 4.5",
     .needs = {"<arg_key>", "<tool_call>"},
     .kind = R_TAGS,
     .breaks = true,
     .begin = "<tool_call>",
     .param = "<arg_key>",
     .key_end = "</arg_key>",
     .mid = "<arg_value>",
     .value_end = "</arg_value>",
     .close = "</tool_call>"},
    {.name = "Qwen3-Coder",
     .needs = {"<function=", "<parameter="},
     .kind = R_TAGS,
     .breaks = true,
     .begin = "<tool_call>",
     .open = "<function=",
     .name_end = ">",
     .param = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>",
     .close = "</function>",
     .end = "</tool_call>",
     .lines = true},
    {.name = "MiniCPM5",
     .needs = {"<function name=", "<param name="},
     .kind = R_TAGS,
     .open = "<function name=\"",
     .name_end = "\">",
     .param = "<param name=\"",
     .key_end = "\">",
     .value_end = "</param>",
     .close = "</function>"},
    {.name = "functionary 3.1",
     .needs = {"<function=", "</function>"},
     .kind = R_NAMED,
     .begin = "<function=",
     .name_end = ">",
     .end = "</function>"},
    {.name = "functionary 3.2",
     .needs = {">>>all"},
     .kind = R_NAMED,
     .begin = ">>>",
     .name_end = "\n",
     .content = "all"},
    {.name = "Mistral 2411",
     .needs = {"[TOOL_CALLS]", "[ARGS]"},
     .kind = R_NAMED,
     .begin = "[TOOL_CALLS]",
     .number = "[CALL_ID]",
     .name_end = "[ARGS]"},
    {.name = "Mistral Nemo",
     .needs = {"[TOOL_CALLS]"},
     .kind = R_JSON,
     .begin = "[TOOL_CALLS]",
     .list = true},
    {.name = "Command R7B",
     .needs = {"<|START_ACTION|>"},
     .kind = R_JSON,
     .begin = "<|START_ACTION|>",
     .end = "<|END_ACTION|>",
     .key_name = "tool_name",
     .key_args = "parameters",
     .list = true},
    {.name = "Command R+",
     .needs = {"Action:", "\"tool_name\""},
     .kind = R_JSON,
     .begin = "Action:\n```json\n",
     .end = "```",
     .key_name = "tool_name",
     .key_args = "parameters",
     .list = true},
    {.name = "Apertus",
     .needs = {"<|tools_prefix|>"},
     .kind = R_JSON,
     .begin = "<|tools_prefix|>",
     .end = "<|tools_suffix|>",
     .keyed = true,
     .list = true},
    {.name = "Nemotron",
     .needs = {"<TOOLCALL>"},
     .kind = R_JSON,
     .begin = "<TOOLCALL>",
     .end = "</TOOLCALL>",
     .list = true},
    {.name = "GigaChat 3.1",
     .needs = {"<|function_call|>"},
     .kind = R_JSON,
     .begin = "<|function_call|>",
     .drop = {"<|message_sep|>"}},
    {.name = "GigaChat 3",
     .needs = {"function call", "<|role_sep|>"},
     .kind = R_JSON,
     .gap = "\n",
     .begin = "function call<|role_sep|>",
     .drop = {"<|message_sep|>"}},
    {.name = "Apriel",
     .needs = {"<tool_calls>", "</tool_calls>"},
     .kind = R_JSON,
     .begin = "<tool_calls>",
     .end = "</tool_calls>",
     .list = true},
    {.name = "LFM2",
     .needs = {"<|tool_call_start|>"},
     .kind = R_PYTHON,
     .begin = "<|tool_call_start|>",
     .list = true,
     .end = "<|tool_call_end|>"},
    {.name = "LFM2", /* which doesn't write calls */
     .needs = {"List of tools: "},
     .kind = R_PYTHON,
     .begin = "<|tool_call_start|>",
     .list = true,
     .end = "<|tool_call_end|>"},
    {.name = "Gemma 4",
     .needs = {"<|tool_call>call:"},
     .kind = R_PYTHON,
     .begin = "<|tool_call>",
     .pre = "call:",
     .end = "<tool_call|>"},
    /* forms that aren't read */
    {.name = "MiniMax M3", .needs = {"]<]minimax[>["}},
    {.name = "Muse", .needs = {"<atem:function_calls>"}},
    {.name = "Hermes",
     .needs = {"<tool_call>"},
     .kind = R_JSON,
     .gap = "\n",
     .begin = "<tool_call>",
     .end = "</tool_call>"},
    {.name = "Granite",
     .needs = {"<|tool_call|>"},
     .kind = R_JSON,
     .begin = "<|tool_call|>",
     .list = true},
    {.name = "FireFunction",
     .needs = {"functools["},
     .kind = R_JSON,
     .begin = "functools[",
     .list = true},
    {.name = "Llama 3",
     .needs = {"\"parameters\": "},
     .kind = R_JSON,
     .begin = "<|python_tag|>",
     .key_args = "parameters",
     .bare = true},
    /* speaks of tools, but not of how they are called */
    {.name = "JSON", .needs = {"tools"}, .kind = R_JSON, .bare = true},
    {.name = "none"},
};

static const ts_reply_think thoughts[] = {
    {"[THINK]", "[THINK]", "[/THINK]", NULL, NULL},
    {"<seed:think>", "<seed:think>", "</seed:think>", NULL, NULL},
    {"<mm:think>", "<mm:think>", "</mm:think>", NULL, NULL},
    {"<think{}>", "<think:opensource>", "</think:opensource>", NULL, NULL},
    {"<|END_RESPONSE|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>",
     "<|END_RESPONSE|>"},
    {"<|START_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>",
     "<|END_TEXT|>"},
    {"<|end_of_msg|>", "<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|open|>response<|sep|>",
     "<|close|>response<|sep|>"},
    {"<|tool_call:begin|>", "<|think|>", "<|end|>", NULL, "<|end|>"},
    {"<|channel|>", "<|channel|>analysis<|message|>", "<|end|>", NULL, NULL},
    {"<|channel>thought", "<|channel>thought\n", "<channel|>", NULL, NULL},
    {"[BEGIN FINAL RESPONSE]", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", NULL,
     NULL},
    {"<|inner_prefix|>", "<|inner_prefix|>", "<|inner_suffix|>", NULL, NULL},
    {"</response>", "<think>", "</think>", "<response>", "</response>"},
    {"", "<think>", "</think>", NULL, NULL},
};

static bool has(const char *source, size_t n, const char *needle)
{
    return !needle || memmem(source, n, needle, strlen(needle));
}

const ts_reply_form *r_form_find(const char *source, size_t n)
{
    const ts_reply_form *f = forms;
    while (!has(source, n, f->needs[0]) || !has(source, n, f->needs[1]))
        f++;
    return f;
}

const ts_reply_think *r_think_find(const char *source, size_t n)
{
    const ts_reply_think *t = thoughts;
    while (!has(source, n, t->needs))
        t++;
    return t;
}

const ts_reply_form *r_form_row(size_t i)
{
    return i < sizeof forms / sizeof *forms ? &forms[i] : NULL;
}

bool r_think_opened(const ts_reply_think *t, const char *prompt, size_t n)
{
    size_t k = strlen(t->begin);
    while (k > 0 && r_is_space(t->begin[k - 1]))
        k--;
    while (n > 0 && r_is_space(prompt[n - 1]))
        n--;
    return n >= k && memcmp(prompt + n - k, t->begin, k) == 0;
}

const ts_chat_speech *r_speech(const ts_chat *c, bool tools)
{
    return tools && c->tools ? &c->tools_speech : &c->speech;
}

bool ts_reply_special(const ts_chat *c)
{
    return c->speech.special || (c->tools && c->tools_speech.special);
}

/* --- control tokens -------------------------------------------------------------------- */

static ts_status has_control(const ts_tokenizer *tok, const char *marker, bool *out, ts_error *err)
{
    ts_token *ids = NULL;
    size_t n = 0;
    if (!marker)
        return TS_OK;
    ts_status st =
        ts_tokenizer_encode(tok, marker, strlen(marker), TS_TOK_PARSE_SPECIAL, &ids, &n, err);
    for (size_t i = 0; !st && i < n; i++)
        *out |= (tok->attr[ids[i]] & TOK_CONTROL) != 0;
    free(ids);
    return st;
}

ts_status ts_chat_learn(const ts_tokenizer *tok, const char *source, size_t n, ts_chat_speech *out,
                        ts_error *err)
{
    const ts_reply_form *f = r_form_find(source, n);
    const ts_reply_think *t = r_think_find(source, n);
    const char *const markers[] = {f->section, f->begin,    f->end,     f->section_end, f->skip,
                                   f->number,  f->name_end, f->open,    f->head_end,    f->param,
                                   f->key_end, f->attr_end, f->mid,     f->value_end,   f->close,
                                   f->drop[0], f->drop[1],  f->drop[2], f->drop[3],     t->begin,
                                   t->end,     t->open,     t->close};
    ts_status st = TS_OK;
    *out = (ts_chat_speech){.form = f, .think = t};
    for (size_t i = 0; !st && i < sizeof markers / sizeof *markers; i++)
        st = has_control(tok, markers[i], &out->special, err);
    return st;
}

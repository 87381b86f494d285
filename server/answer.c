/* answer.c - what comes from the scheduler, read into choices; whole answers. */
#include <stdlib.h>
#include <string.h>

#include "job.h"

/* --- events ------------------------------------------------------------------------------------
 */

static ts_status add_call(ts_choice *c, const char *name)
{
    ts_job_call *more = realloc(c->calls, (c->n_calls + 1) * sizeof *more);
    if (!more)
        return TS_NO_MEMORY;
    c->calls = more;
    more[c->n_calls] = (ts_job_call){0};
    ts_make_id(more[c->n_calls].id, "call_");
    ts_sb_str(&more[c->n_calls].name, name);
    return more[c->n_calls++].name.failed ? TS_NO_MEMORY : TS_OK;
}

static bool add_text(ts_choice *c, bool thought, const char *s, size_t n)
{
    ts_sb *to = thought ? &c->thought : &c->text;
    if (c->job->request.stream) {
        ts_stream_text(c, thought, s, n);
        return true;
    }
    ts_sb_add(to, s, n);
    return !to->failed;
}

/* A part of a chat's answer. */
static ts_status on_part(void *user, const ts_reply_part *part, ts_error *err)
{
    ts_choice *c = user;
    bool stream = c->job->request.stream, held = true;
    size_t i = (size_t)part->call;
    switch (part->kind) {
    case TS_REPLY_CONTENT:
    case TS_REPLY_REASONING:
        held = add_text(c, part->kind == TS_REPLY_REASONING, part->text, part->n);
        break;
    case TS_REPLY_CALL:
        held = add_call(c, part->name) == TS_OK;
        if (held && stream)
            ts_stream_call(c, i);
        break;
    case TS_REPLY_ARGUMENTS:
        if (stream) {
            ts_stream_arguments(c, i, part->text, part->n);
        } else {
            ts_sb_add(&c->calls[i].arguments, part->text, part->n);
            held = !c->calls[i].arguments.failed;
        }
    }
    return held ? TS_OK : ts_fail(err, TS_NO_MEMORY, "There is no memory for the answer.");
}

static const char *reason(const ts_choice *c)
{
    if (c->end == TS_GEN_LENGTH)
        return "length";
    return c->n_calls > 0 ? "tool_calls" : "stop";
}

ts_status ts_answer_event(ts_choice *c, const ts_job_event *ev, ts_refusal *no)
{
    bool last = ev->end != TS_GEN_RUNS;
    if (c->job->request.ask == TS_ASK_EMBEDDING)
        return TS_OK;
    ts_logprobs_add(c, ev);
    if (c->job->request.stream)
        ts_stream_role(c);
    if (!c->reply) {
        if (ev->n_text > 0 && !add_text(c, false, ev->text, ev->n_text))
            return ts_request_no_memory(no);
    } else if ((ev->n_text > 0 || last) &&
               ts_reply_push(c->reply, ev->text, ev->n_text, last, on_part, c, &no->err)) {
        return ts_refuse_error(no, "");
    }
    if (last && c->job->request.stream)
        ts_stream_end(c, reason(c));
    return c->probs[0].failed ? ts_request_no_memory(no) : TS_OK;
}

/* --- whole answers -------------------------------------------------------------------------------
 */

static void add_string(ts_sb *b, const ts_sb *s)
{
    ts_sb_json_str(b, s->s ? s->s : "", s->n);
}

static void add_calls(const ts_choice *c, ts_sb *b)
{
    ts_sb_str(b, ",\"tool_calls\":[");
    for (size_t i = 0; i < c->n_calls; i++) {
        ts_sb_printf(b,
                     "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", i ? "," : "",
                     c->calls[i].id);
        add_string(b, &c->calls[i].name);
        ts_sb_str(b, ",\"arguments\":");
        add_string(b, &c->calls[i].arguments);
        ts_sb_str(b, "}}");
    }
    ts_sb_str(b, "]");
}

static void add_message(const ts_choice *c, ts_sb *b)
{
    ts_sb_str(b, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->n_calls > 0 && c->text.n == 0)
        ts_sb_str(b, "null");
    else
        add_string(b, &c->text);
    if (c->thought.n > 0) {
        ts_sb_str(b, ",\"reasoning_content\":");
        add_string(b, &c->thought);
    }
    if (c->n_calls > 0)
        add_calls(c, b);
    ts_sb_str(b, "}");
}

static void add_choice(ts_choice *c, ts_sb *b)
{
    ts_sb_printf(b, "%s{\"index\":%zu,", c->index ? "," : "", c->index);
    if (c->job->request.ask == TS_ASK_CHAT) {
        add_message(c, b);
    } else {
        ts_sb_str(b, "\"text\":");
        add_string(b, &c->text);
    }
    ts_logprobs_write(c, b);
    ts_sb_printf(b, ",\"finish_reason\":\"%s\"}", reason(c));
}

static void write_whole(ts_job *j, ts_sb *b)
{
    const ts_service *s = j->service;
    ts_gen_usage usage;
    ts_sb_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", j->id,
                 j->request.ask == TS_ASK_CHAT ? "chat.completion" : "text_completion",
                 (long long)j->created);
    ts_sb_json_str(b, s->names[0], strlen(s->names[0]));
    ts_sb_printf(b, ",\"system_fingerprint\":\"%s\",\"choices\":[", s->fingerprint);
    for (size_t i = 0; i < j->n_choices; i++)
        add_choice(&j->choices[i], b);
    ts_sb_str(b, "],");
    ts_job_usage(j, &usage);
    ts_usage_write(&usage, b);
    ts_sb_str(b, ",");
    ts_timings_write(&usage, b);
    ts_sb_str(b, "}");
}

ts_status ts_answer_finish(ts_job *j, ts_refusal *no)
{
    if (j->request.stream)
        ts_stream_finish(j);
    else if (j->request.ask == TS_ASK_EMBEDDING)
        ts_embedding_write(j, &j->out);
    else
        write_whole(j, &j->out);
    return j->out.failed ? ts_request_no_memory(no) : TS_OK;
}

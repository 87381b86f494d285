/* stream.c - answers as server-sent events: chunks in the shape of OpenAI's. */
#include <string.h>

#include "job.h"

/* All chunks of a job begin alike. */
static void begin(ts_job *j, ts_sb *b)
{
    const ts_service *s = j->service;
    if (j->head.n == 0) {
        ts_sb_printf(&j->head,
                     "data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", j->id,
                     j->request.ask == TS_ASK_CHAT ? "chat.completion.chunk" : "text_completion",
                     (long long)j->created);
        ts_sb_json_str(&j->head, s->names[0], strlen(s->names[0]));
        ts_sb_printf(&j->head, ",\"system_fingerprint\":\"%s\",\"choices\":[", s->fingerprint);
        b->failed |= j->head.failed;
    }
    ts_sb_add(b, j->head.s, j->head.n);
}

static ts_sb *open_choice(ts_choice *c)
{
    ts_sb *b = &c->job->out;
    begin(c->job, b);
    ts_sb_printf(b, "{\"index\":%zu,", c->index);
    return b;
}

static void close_choice(ts_choice *c, ts_sb *b, const char *reason)
{
    ts_logprobs_write(c, b);
    if (reason)
        ts_sb_printf(b, ",\"finish_reason\":\"%s\"}]", reason);
    else
        ts_sb_str(b, ",\"finish_reason\":null}]");
    if (c->job->request.include_usage)
        ts_sb_str(b, ",\"usage\":null");
    if (reason) {
        ts_sb_str(b, ",");
        ts_timings_write(&c->usage, b);
    }
    ts_sb_str(b, "}\n\n");
}

void ts_stream_role(ts_choice *c)
{
    if (c->begun || c->job->request.ask != TS_ASK_CHAT)
        return;
    c->begun = true;
    ts_sb *b = open_choice(c);
    ts_sb_str(b, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                 "\"finish_reason\":null}]");
    if (c->job->request.include_usage)
        ts_sb_str(b, ",\"usage\":null");
    ts_sb_str(b, "}\n\n");
}

void ts_stream_text(ts_choice *c, bool thought, const char *s, size_t n)
{
    bool chat = c->job->request.ask == TS_ASK_CHAT;
    ts_sb *b = open_choice(c);
    ts_sb_str(b, !chat     ? "\"text\":"
                 : thought ? "\"delta\":{\"reasoning_content\":"
                           : "\"delta\":{\"content\":");
    ts_sb_json_str(b, s, n);
    ts_sb_str(b, chat ? "}" : "");
    close_choice(c, b, NULL);
}

void ts_stream_call(ts_choice *c, size_t i)
{
    ts_sb *b = open_choice(c);
    ts_sb_printf(b,
                 "\"delta\":{\"tool_calls\":[{\"index\":%zu,\"id\":\"%s\",\"type\":\"function\","
                 "\"function\":{\"name\":",
                 i, c->calls[i].id);
    ts_sb_json_str(b, c->calls[i].name.s, c->calls[i].name.n);
    ts_sb_str(b, ",\"arguments\":\"\"}}]}");
    close_choice(c, b, NULL);
}

void ts_stream_arguments(ts_choice *c, size_t i, const char *s, size_t n)
{
    ts_sb *b = open_choice(c);
    ts_sb_printf(b, "\"delta\":{\"tool_calls\":[{\"index\":%zu,\"function\":{\"arguments\":", i);
    ts_sb_json_str(b, s, n);
    ts_sb_str(b, "}}]}");
    close_choice(c, b, NULL);
}

void ts_stream_end(ts_choice *c, const char *reason)
{
    ts_sb *b = open_choice(c);
    ts_sb_str(b, c->job->request.ask == TS_ASK_CHAT ? "\"delta\":{}" : "\"text\":\"\"");
    close_choice(c, b, reason);
}

void ts_stream_finish(ts_job *j)
{
    ts_gen_usage usage;
    if (j->request.include_usage) {
        ts_job_usage(j, &usage);
        begin(j, &j->out);
        ts_sb_str(&j->out, "],");
        ts_usage_write(&usage, &j->out);
        ts_sb_str(&j->out, ",");
        ts_timings_write(&usage, &j->out);
        ts_sb_str(&j->out, "}\n\n");
    }
    ts_sb_str(&j->out, "data: [DONE]\n\n");
}

void ts_stream_error(ts_job *j, const ts_refusal *no)
{
    ts_sb b = {0};
    ts_sb_str(&b, "data: ");
    ts_refusal_json(no, &b);
    ts_sb_str(&b, "\n\n");
    /* an event that was begun is cut off where there was no memory for its rest */
    if (j->out.failed || b.failed) {
        ts_sb_free(&b);
        ts_sb_free(&j->out);
        j->sent = 0;
        j->cut = true;
        return;
    }
    ts_sb_add(&j->out, b.s, b.n);
    ts_sb_free(&b);
    if (j->out.failed) {
        ts_sb_free(&j->out);
        j->sent = 0;
        j->cut = true;
    }
}

/* prompt.c - a request made ready: ids of its prompts, the grammar, readers of answers. */
#include <stdlib.h>
#include <string.h>

#include "job.h"

static ts_status check_length(const ts_job *j, const ts_prompt *p, const char *param,
                              ts_refusal *no)
{
    const long long n_ctx = (long long)j->service->info.n_ctx_seq;
    if (p->n_ids == 0)
        return ts_refuse(no, 400, "invalid_value", param,
                         "The prompt is empty: there is nothing to begin with.");
    if ((long long)p->n_ids > n_ctx)
        return ts_refuse(no, 400, "context_length_exceeded", param,
                         "The prompt has %zu tokens, but the context holds %lld.", p->n_ids, n_ctx);
    return TS_OK;
}

/* --- chats ---------------------------------------------------------------------------------- */

/* What a template refuses is the messages' fault, or that of the tools. */
static ts_status apply(ts_job *j, ts_prompt *out, ts_refusal *no)
{
    ts_chat_prompt p = {0};
    if (!j->service->chat)
        return ts_refuse(no, 400, "no_chat_template", "messages", "%s", j->service->no_chat.msg);
    if (ts_chat_apply(j->service->chat, j->request.chat, j->request.n_chat, &p, &no->err))
        return ts_refuse_error(no, "messages");
    *out = (ts_prompt){.ids = p.ids, .n_ids = p.n_ids};
    ts_sb_add(&j->shown, p.text, p.n_text);
    ts_free(p.text);
    return j->shown.failed ? ts_request_no_memory(no) : TS_OK;
}

/* A call that must come: the prompt ends as one begins, and a grammar holds what follows. */
static ts_status force_call(ts_job *j, ts_prompt *p, ts_refusal *no)
{
    const ts_request *r = &j->request;
    ts_token *more = NULL, *ids;
    size_t n = 0;
    if (ts_reply_grammar(j->service->chat, j->shown.s, j->shown.n, r->tools, r->n_tools,
                         r->tool_name, r->parallel_calls, &j->prefix, &j->gbnf, &no->err))
        return ts_refuse_error(no, "tools");
    if (ts_grammar_open(&j->grammar, j->service->engine, j->gbnf, strlen(j->gbnf), &no->err) ||
        ts_tokenize(j->service->engine, j->prefix, strlen(j->prefix), TS_TOK_PARSE_SPECIAL, &more,
                    &n, &no->err))
        return ts_refuse_error(no, "tools");
    ids = realloc(p->ids, (p->n_ids + n + 1) * sizeof *ids);
    if (ids) {
        memcpy(ids + p->n_ids, more, n * sizeof *ids);
        p->ids = ids;
        p->n_ids += n;
    }
    ts_free(more);
    return ids ? TS_OK : ts_request_no_memory(no);
}

static ts_status prepare_chat(ts_job *j, ts_refusal *no)
{
    const ts_tool_choice choice = j->request.tool_choice;
    j->prompts = ts_calloc(1, sizeof *j->prompts);
    if (!j->prompts)
        return ts_request_no_memory(no);
    j->n_prompts = 1;
    ts_status st = apply(j, j->prompts, no);
    if (st == TS_OK && (choice == TS_TOOLS_REQUIRED || choice == TS_TOOLS_NAMED))
        st = force_call(j, j->prompts, no);
    return st ? st : check_length(j, j->prompts, "messages", no);
}

ts_status ts_job_readers(ts_job *j, ts_refusal *no)
{
    const ts_request *r = &j->request;
    ts_reply_options o = {
        .tools = r->tools, .n_tools = r->n_tools, .reasoning = true, .forced = j->prefix};
    for (size_t i = 0; r->ask == TS_ASK_CHAT && i < j->n_choices; i++) {
        if (ts_reply_open(&j->choices[i].reply, j->service->chat, j->shown.s, j->shown.n, &o,
                          &no->err))
            return ts_refuse_error(no, "tools");
        o.like = j->choices[0].reply;
    }
    ts_sb_free(&j->shown);
    return TS_OK;
}

/* --- completions and embeddings -------------------------------------------------------------- */

static ts_status prepare_prompts(ts_job *j, ts_refusal *no)
{
    ts_request *r = &j->request;
    const bool completes = r->ask == TS_ASK_COMPLETION;
    const unsigned flags = TS_TOK_ADD_SPECIAL | (completes ? TS_TOK_PARSE_SPECIAL : 0u);
    const char *param = completes ? "prompt" : "input";
    if (r->dimensions > 0 && r->dimensions != j->service->info.n_embd)
        return ts_refuse(no, 400, "unsupported_value", "dimensions",
                         "The embeddings of this model have %lld dimensions, no other number.",
                         (long long)j->service->info.n_embd);
    j->prompts = ts_calloc(r->n_prompts, sizeof *j->prompts);
    if (!j->prompts)
        return ts_request_no_memory(no);
    for (; j->n_prompts < r->n_prompts; j->n_prompts++) {
        ts_prompt *from = &r->prompts[j->n_prompts], *to = &j->prompts[j->n_prompts];
        if (!from->text) {
            *to = *from;
            from->ids = NULL;
        } else if (ts_tokenize(j->service->engine, from->text, from->n_text, flags, &to->ids,
                               &to->n_ids, &no->err)) {
            return ts_refuse_error(no, param);
        }
        ts_status st = check_length(j, to, param, no);
        if (st) {
            j->n_prompts++;
            return st;
        }
    }
    return TS_OK;
}

/* --- grammars -------------------------------------------------------------------------------- */

static ts_status open_grammar(ts_job *j, ts_refusal *no)
{
    const ts_request *r = &j->request;
    ts_engine *e = j->service->engine;
    ts_status st = TS_OK;
    if (r->form == TS_FORM_GBNF)
        st = ts_grammar_open(&j->grammar, e, r->gbnf, strlen(r->gbnf), &no->err);
    else if (r->form != TS_FORM_FREE)
        st = ts_grammar_open_schema(&j->grammar, e, r->schema, r->n_schema, &no->err);
    return st ? ts_refuse_error(no, r->form == TS_FORM_GBNF ? "grammar" : "response_format")
              : TS_OK;
}

ts_status ts_job_prepare(ts_job *j, ts_refusal *no)
{
    ts_status st = open_grammar(j, no);
    if (st)
        return st;
    return j->request.ask == TS_ASK_CHAT ? prepare_chat(j, no) : prepare_prompts(j, no);
}

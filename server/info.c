/* info.c - answers that need no generation. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine.h"
#include "service.h"

static void add_text(ts_sb *b, const char *s)
{
    ts_sb_json_str(b, s, strlen(s));
}

/* --- models ---------------------------------------------------------------------------------- */

void ts_info_model(const ts_service *s, size_t i, ts_sb *b)
{
    ts_sb_str(b, "{\"id\":");
    add_text(b, s->names[i]);
    ts_sb_printf(b,
                 ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tessera\",\"meta\":"
                 "{\"n_vocab\":%lld,\"n_ctx\":%lld,\"n_ctx_train\":%lld,\"n_embd\":%lld,"
                 "\"n_params\":%lld,\"size\":%llu,\"desc\":",
                 (long long)s->started, (long long)s->info.n_vocab, (long long)s->info.n_ctx_seq,
                 (long long)s->info.n_ctx_train, (long long)s->info.n_embd,
                 (long long)s->info.n_params, (unsigned long long)s->info.model_bytes);
    add_text(b, s->info.desc);
    ts_sb_str(b, "}}");
}

void ts_info_models(const ts_service *s, ts_sb *b)
{
    ts_sb_str(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < s->n_names; i++) {
        ts_sb_str(b, i ? "," : "");
        ts_info_model(s, i, b);
    }
    ts_sb_str(b, "]}");
}

/* --- props ------------------------------------------------------------------------------------ */

static void add_token(ts_sb *b, const ts_service *s, const char *name, ts_token id)
{
    const char *piece = "";
    size_t n = id >= 0 ? ts_token_piece(s->engine, id, true, &piece) : 0;
    ts_sb_printf(b, ",\"%s\":", name);
    ts_sb_json_str(b, n ? piece : "", n);
}

static void add_sampling(ts_sb *b, const ts_sampler_options *o)
{
    ts_sb_printf(b,
                 "{\"temperature\":%.6g,\"top_k\":%d,\"top_p\":%.6g,\"min_p\":%.6g,"
                 "\"repeat_penalty\":%.6g,\"repeat_last_n\":%d,\"frequency_penalty\":%.6g,"
                 "\"presence_penalty\":%.6g}",
                 (double)o->temp, (int)o->top_k, (double)o->top_p, (double)o->min_p,
                 (double)o->repeat_penalty, (int)o->repeat_last_n, (double)o->frequency_penalty,
                 (double)o->presence_penalty);
}

/* The path of the file stays here: who asks may be a stranger. */
void ts_info_props(const ts_service *s, ts_sb *b)
{
    ts_sched_info i;
    ts_sched_get_info(s->sched, &i);
    ts_sb_str(b, "{\"model_alias\":");
    add_text(b, s->names[0]);
    ts_sb_str(b, ",\"desc\":");
    add_text(b, s->info.desc);
    ts_sb_printf(
        b, ",\"total_slots\":%lld,\"n_ctx\":%lld,\"n_queue\":%lld,\"isa\":\"%s\",\"gpus\":",
        (long long)i.n_slots, (long long)s->info.n_ctx_seq, (long long)i.n_queue, s->info.isa);
    add_text(b, s->info.gpus);
    ts_sb_printf(b, ",\"default_generation_settings\":{\"n_ctx\":%lld,\"params\":",
                 (long long)s->info.n_ctx_seq);
    add_sampling(b, &s->o.sampling);
    ts_sb_str(b, "},\"chat_template\":");
    if (s->template_text)
        add_text(b, s->template_text);
    else
        ts_sb_str(b, "null");
    add_token(b, s, "bos_token", ts_tokenizer_bos(s->engine->tok));
    add_token(b, s, "eos_token", ts_tokenizer_eos(s->engine->tok));
    ts_sb_printf(b, ",\"build_info\":\"tessera %s\"}", ts_version());
}

ts_status ts_info_plan(const ts_service *s, ts_sb *b, ts_refusal *no)
{
    char *text = NULL;
    if (ts_engine_plan(s->engine, true, &text, &no->err))
        return ts_refuse_error(no, "");
    ts_sb_str(b, text);
    ts_free(text);
    return TS_OK;
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* A piece as a text, or as its bytes where it is no whole characters. */
static void add_piece(ts_sb *b, const ts_service *s, ts_token id)
{
    const char *piece = "";
    size_t n = ts_token_piece(s->engine, id, true, &piece);
    ts_sb_printf(b, "{\"id\":%d,\"piece\":", (int)id);
    if (n == 0 || ts_utf8_valid(piece, n) == n) {
        ts_sb_json_str(b, n ? piece : "", n);
    } else {
        for (size_t i = 0; i < n; i++)
            ts_sb_printf(b, "%s%d", i ? "," : "[", (unsigned char)piece[i]);
        ts_sb_str(b, "]");
    }
    ts_sb_str(b, "}");
}

ts_status ts_info_tokenize(const ts_service *s, const ts_request *r, ts_sb *b, ts_refusal *no)
{
    const unsigned flags =
        (r->add_special ? TS_TOK_ADD_SPECIAL : 0u) | (r->parse_special ? TS_TOK_PARSE_SPECIAL : 0u);
    ts_token *ids = NULL;
    size_t n = 0;
    if (ts_tokenize(s->engine, r->prompts[0].text, r->prompts[0].n_text, flags, &ids, &n, &no->err))
        return ts_refuse_error(no, "content");
    ts_sb_str(b, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        ts_sb_str(b, i ? "," : "");
        if (r->with_pieces)
            add_piece(b, s, ids[i]);
        else
            ts_sb_printf(b, "%d", (int)ids[i]);
    }
    ts_sb_str(b, "]}");
    ts_free(ids);
    return TS_OK;
}

ts_status ts_info_detokenize(const ts_service *s, const ts_request *r, ts_sb *b, ts_refusal *no)
{
    char *text = NULL;
    size_t n = 0;
    const ts_prompt none = {0}, *p = r->n_prompts ? r->prompts : &none;
    if (ts_detokenize(s->engine, p->ids, p->n_ids, true, &text, &n, &no->err))
        return ts_refuse_error(no, "tokens");
    ts_sb_str(b, "{\"content\":");
    ts_sb_json_str(b, text, n);
    ts_sb_str(b, "}");
    ts_free(text);
    return TS_OK;
}

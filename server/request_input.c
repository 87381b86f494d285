/* request_input.c - what isn't a chat: prompts, inputs of embeddings, texts and tokens. */
#include <string.h>

#include "request.h"

static bool is_ids(const json_t *v)
{
    return json_is_array(v) && json_is_integer(json_array_get(v, 0));
}

static ts_status read_ids(ts_prompt *p, const json_t *v, const char *name, int64_t n_vocab,
                          ts_refusal *no)
{
    size_t n = json_array_size(v);
    p->ids = ts_calloc(n ? n : 1, sizeof *p->ids);
    if (!p->ids)
        return ts_request_no_memory(no);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= n_vocab)
            return ts_refuse(no, 400, "invalid_value", name,
                             "'%s' must have ids of tokens, whole numbers from 0 to %lld; number "
                             "%zu is none.",
                             name, (long long)n_vocab - 1, i + 1);
        p->ids[p->n_ids++] = (ts_token)json_integer_value(id);
    }
    return TS_OK;
}

static ts_status read_prompt(ts_prompt *p, const json_t *v, const char *name, int64_t n_vocab,
                             ts_refusal *no)
{
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->n_text = json_string_length(v);
        return TS_OK;
    }
    if (is_ids(v))
        return read_ids(p, v, name, n_vocab, no);
    return ts_request_wrong(no, name,
                            "a text, a list of texts, a list of ids of tokens, or a list of these");
}

/* One prompt or a list of them. */
static ts_status read_prompts(ts_request *r, const char *name, int64_t n_vocab, ts_refusal *no)
{
    const json_t *v = ts_request_given(r->body, name);
    bool many = json_is_array(v) && !is_ids(v);
    size_t n = many ? json_array_size(v) : 1;
    if (!v)
        return ts_refuse(no, 400, "missing_required_parameter", name, "'%s' is missing.", name);
    if (n == 0 || n > TS_REQUEST_MAX_PROMPTS)
        return ts_request_wrong(no, name, "no list without elements, or of more than 2048");
    r->prompts = ts_calloc(n, sizeof *r->prompts);
    if (!r->prompts)
        return ts_request_no_memory(no);
    for (size_t i = 0; i < n; i++) {
        ts_status st = read_prompt(&r->prompts[r->n_prompts++], many ? json_array_get(v, i) : v,
                                   name, n_vocab, no);
        if (st)
            return st;
    }
    return TS_OK;
}

static ts_status read_embedding(ts_request *r, ts_refusal *no)
{
    const char *format = NULL;
    ts_status st = ts_request_text(r->body, "encoding_format", &format, no);
    if (st || !format)
        return st;
    r->base64 = strcmp(format, "base64") == 0;
    return r->base64 || strcmp(format, "float") == 0
               ? TS_OK
               : ts_request_wrong(no, "encoding_format", "float or base64");
}

static ts_status read_tokenize(ts_request *r, ts_refusal *no)
{
    const json_t *v = ts_request_given(r->body, "content");
    if (v && !json_is_string(v))
        return ts_request_wrong(no, "content", "a text");
    ts_status st = ts_request_bool(r->body, "add_special", &r->add_special, no);
    if (st == TS_OK)
        st = ts_request_bool(r->body, "parse_special", &r->parse_special, no);
    return st ? st : ts_request_bool(r->body, "with_pieces", &r->with_pieces, no);
}

static ts_status read_detokenize(const ts_request *r, ts_refusal *no)
{
    const json_t *v = ts_request_given(r->body, "tokens");
    bool ids = json_is_array(v) && (json_array_size(v) == 0 || is_ids(v));
    return !v || ids ? TS_OK : ts_request_wrong(no, "tokens", "a list of ids of tokens");
}

ts_status ts_request_read_input(ts_request *r, int64_t n_vocab, ts_refusal *no)
{
    static const char *const names[] = {[TS_ASK_COMPLETION] = "prompt",
                                        [TS_ASK_EMBEDDING] = "input",
                                        [TS_ASK_TOKENIZE] = "content",
                                        [TS_ASK_DETOKENIZE] = "tokens"};
    ts_status st = TS_OK;
    if (r->ask == TS_ASK_EMBEDDING)
        st = read_embedding(r, no);
    else if (r->ask == TS_ASK_TOKENIZE)
        st = read_tokenize(r, no);
    else if (r->ask == TS_ASK_DETOKENIZE)
        st = read_detokenize(r, no);
    const json_t *v = ts_request_given(r->body, names[r->ask]);
    if (st || (r->ask == TS_ASK_DETOKENIZE && v && json_array_size(v) == 0))
        return st;
    return read_prompts(r, names[r->ask], n_vocab, no);
}

/* fuzz_request.c - libFuzzer target for bodies of requests.
 *
 * The first byte says what is asked for, the rest is the body. Whatever is refused says why, as
 * JSON; what is accepted keeps to its limits. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_VOCAB = 500 };

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_request: %s\n", what);
        abort();
    }
}

static void check_refusal(const ts_refusal *no)
{
    ts_sb b = {0};
    json_error_t why;
    must(no->status >= 400 && no->status < 600 && no->err.msg[0], "a refusal without a sentence");
    ts_refusal_json(no, &b);
    json_t *v = json_loadb(b.s, b.n, 0, &why);
    must(json_is_object(json_object_get(v, "error")), "a refusal that isn't JSON");
    json_decref(v);
    ts_sb_free(&b);
}

static void check_json(const char *s, size_t n)
{
    json_error_t why;
    json_t *v = json_loadb(s, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    must(v != NULL, "something that isn't JSON");
    json_decref(v);
}

static void check_request(const ts_request *r)
{
    must(r->n >= 1 && r->n <= TS_REQUEST_MAX_CHOICES, "choices");
    must(r->max_tokens >= -1 && r->n_probs >= -1 && r->n_probs <= TS_REQUEST_MAX_PROBS, "numbers");
    must(r->sampling.temp >= 0 && r->sampling.top_p >= 0 && r->sampling.top_p <= 1, "sampling");
    for (size_t i = 0; i < r->n_bias; i++)
        must(r->bias[i].id >= 0 && r->bias[i].id < N_VOCAB, "logit_bias");
    for (size_t i = 0; i < r->n_stop; i++)
        must(r->stop[i][0], "stop");
    for (size_t i = 0; i < r->n_prompts; i++)
        for (size_t k = 0; k < r->prompts[i].n_ids; k++)
            must(r->prompts[i].ids[k] >= 0 && r->prompts[i].ids[k] < N_VOCAB, "a prompt's ids");
    must(r->ask == TS_ASK_CHAT || r->ask == TS_ASK_DETOKENIZE || r->n_prompts > 0, "no prompt");
    if (r->ask == TS_ASK_CHAT)
        check_json(r->chat, r->n_chat);
    if (r->tools)
        check_json(r->tools, r->n_tools);
    if (r->schema)
        check_json(r->schema, r->n_schema);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ts_request r;
    ts_refusal no = {0};
    ts_sampler_options defaults;
    if (size == 0)
        return 0;
    ts_sampler_options_init(&defaults);
    char *body = malloc(size); /* one byte more than it has: none is there behind the last */
    must(body != NULL, "no memory");
    memcpy(body, data + 1, size - 1);
    char *exact = realloc(body, size > 1 ? size - 1 : 1);
    ts_status st =
        ts_request_read(&r, (ts_ask)(data[0] % 5), exact, size - 1, N_VOCAB, &defaults, &no);
    free(exact);
    if (st)
        check_refusal(&no);
    else
        check_request(&r);
    ts_request_drop_body(&r);
    ts_request_free(&r);
    return 0;
}

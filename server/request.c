/* request.c - bodies of requests: numbers, texts, lists. */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/json.h"

ts_status ts_request_no_memory(ts_refusal *no)
{
    ts_fail(&no->err, TS_NO_MEMORY, "There is no memory for this request.");
    return ts_refuse_error(no, "");
}

ts_status ts_request_wrong(ts_refusal *no, const char *name, const char *want)
{
    return ts_refuse(no, 400, "invalid_value", name, "'%s' must be %s.", name, want);
}

const json_t *ts_request_given(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    return v && !json_is_null(v) ? v : NULL;
}

ts_status ts_request_text(const json_t *object, const char *name, const char **out, ts_refusal *no)
{
    const json_t *v = ts_request_given(object, name);
    if (!v)
        return TS_OK;
    const char *s = json_string_value(v);
    if (!s || strlen(s) != json_string_length(v))
        return ts_request_wrong(no, name, "a text without NUL");
    *out = s;
    return TS_OK;
}

ts_status ts_request_bool(const json_t *object, const char *name, bool *out, ts_refusal *no)
{
    const json_t *v = ts_request_given(object, name);
    if (!v)
        return TS_OK;
    if (!json_is_boolean(v))
        return ts_request_wrong(no, name, "true or false");
    *out = json_is_true(v);
    return TS_OK;
}

ts_status ts_request_json(const json_t *v, char **out, size_t *n, ts_refusal *no)
{
    ts_sb b = {0};
    ts_json_write(v, &b, 0);
    if (b.failed) {
        ts_sb_free(&b);
        return ts_request_no_memory(no);
    }
    *out = b.s;
    *n = b.n;
    return TS_OK;
}

/* --- numbers ------------------------------------------------------------------------------ */

enum { CHAT = 1 << TS_ASK_CHAT, TEXT = 1 << TS_ASK_COMPLETION, BOTH = CHAT | TEXT };

typedef struct whole_field {
    const char *name;
    unsigned asks;
    size_t at; /* of an int64_t in ts_request */
    int64_t min, max;
} whole_field;

typedef struct real_field {
    const char *name;
    size_t at; /* of a float in ts_sampler_options */
    double min, max;
} real_field;

#define IN(member)       offsetof(ts_request, member)
#define IN_SAMPLER(name) offsetof(ts_sampler_options, name)

static const whole_field whole_fields[] = {
    {"n", BOTH, IN(n), 1, TS_REQUEST_MAX_CHOICES},
    {"max_tokens", BOTH, IN(max_tokens), 0, INT32_MAX},
    {"max_completion_tokens", CHAT, IN(max_tokens), 0, INT32_MAX}, /* the newer name counts */
    {"top_logprobs", CHAT, IN(n_probs), 0, TS_REQUEST_MAX_PROBS},
    {"logprobs", TEXT, IN(n_probs), 0, TS_REQUEST_MAX_PROBS},
    {"dimensions", 1 << TS_ASK_EMBEDDING, IN(dimensions), 1, INT32_MAX},
};

static const real_field real_fields[] = {
    {"temperature", IN_SAMPLER(temp), 0, 100},
    {"top_p", IN_SAMPLER(top_p), 0, 1},
    {"min_p", IN_SAMPLER(min_p), 0, 1},
    {"repeat_penalty", IN_SAMPLER(repeat_penalty), 0.01, 100},
    {"frequency_penalty", IN_SAMPLER(frequency_penalty), -2, 2},
    {"presence_penalty", IN_SAMPLER(presence_penalty), -2, 2},
};

static ts_status read_whole(const json_t *body, const char *name, int64_t min, int64_t max,
                            int64_t *out, ts_refusal *no)
{
    const json_t *v = ts_request_given(body, name);
    if (!v)
        return TS_OK;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return ts_refuse(no, 400, "invalid_value", name,
                         "'%s' must be a whole number from %lld to %lld.", name, (long long)min,
                         (long long)max);
    *out = json_integer_value(v);
    return TS_OK;
}

static ts_status read_reals(ts_request *r, ts_refusal *no)
{
    for (size_t i = 0; i < sizeof real_fields / sizeof *real_fields; i++) {
        const real_field *f = &real_fields[i];
        const json_t *v = ts_request_given(r->body, f->name);
        if (!v)
            continue;
        double x = json_number_value(v);
        if (!json_is_number(v) || !(x >= f->min && x <= f->max))
            return ts_refuse(no, 400, "invalid_value", f->name,
                             "'%s' must be a number from %g to %g.", f->name, f->min, f->max);
        float *to = (float *)((char *)&r->sampling + f->at);
        *to = (float)x;
    }
    return TS_OK;
}

static ts_status read_numbers(ts_request *r, ts_refusal *no)
{
    int64_t top_k = r->sampling.top_k, last_n = r->sampling.repeat_last_n, seed = -1;
    ts_status st = TS_OK;
    for (size_t i = 0; st == TS_OK && i < sizeof whole_fields / sizeof *whole_fields; i++) {
        const whole_field *f = &whole_fields[i];
        if (f->asks & (1u << r->ask))
            st = read_whole(r->body, f->name, f->min, f->max, (int64_t *)((char *)r + f->at), no);
    }
    if (st == TS_OK)
        st = read_whole(r->body, "top_k", -1, INT32_MAX, &top_k, no);
    if (st == TS_OK)
        st = read_whole(r->body, "repeat_last_n", -1, INT32_MAX, &last_n, no);
    if (st == TS_OK)
        st = read_whole(r->body, "seed", -1, INT64_MAX, &seed, no); /* -1: any */
    if (st)
        return st;
    r->sampling.top_k = (int32_t)top_k;
    r->sampling.repeat_last_n = (int32_t)last_n;
    r->seeded = seed >= 0;
    if (r->seeded)
        r->sampling.seed = (uint64_t)seed;
    return read_reals(r, no);
}

/* Chat says by a flag whether there are any, and by a number how many of the best. */
static ts_status read_probs(ts_request *r, ts_refusal *no)
{
    if (r->ask != TS_ASK_CHAT)
        return TS_OK;
    ts_status st = ts_request_bool(r->body, "logprobs", &r->chat_probs, no);
    if (st)
        return st;
    if (r->n_probs > 0 && !r->chat_probs)
        return ts_refuse(no, 400, "invalid_value", "top_logprobs",
                         "'top_logprobs' needs 'logprobs' to be true.");
    r->n_probs = !r->chat_probs ? -1 : r->n_probs < 0 ? 0 : r->n_probs;
    return TS_OK;
}

/* --- lists ---------------------------------------------------------------------------------- */

enum { MAX_STOP_BYTES = 1024 };

static ts_status read_stop(ts_request *r, ts_refusal *no)
{
    static const char want[] =
        "a text, or a list of up to 64 texts, of 1 to 1024 bytes without NUL";
    const json_t *v = ts_request_given(r->body, "stop");
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (!v)
        return TS_OK;
    if (n > TS_REQUEST_MAX_STOP)
        return ts_request_wrong(no, "stop", want);
    r->stop = ts_calloc(n ? n : 1, sizeof *r->stop);
    if (!r->stop)
        return ts_request_no_memory(no);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        const char *s = json_string_value(one);
        if (!s || !*s || strlen(s) != json_string_length(one) || strlen(s) > MAX_STOP_BYTES)
            return ts_request_wrong(no, "stop", want);
        if (!(r->stop[r->n_stop] = strdup(s)))
            return ts_request_no_memory(no);
        r->n_stop++;
    }
    return TS_OK;
}

/* A name that is the number of a token: digits alone. */
static int64_t token_name(const char *s, int64_t n_vocab)
{
    int64_t id = 0;
    if (!*s)
        return -1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || id >= n_vocab)
            return -1;
        id = id * 10 + (*s - '0');
    }
    return id < n_vocab ? id : -1;
}

static ts_status read_bias(ts_request *r, int64_t n_vocab, ts_refusal *no)
{
    json_t *v = json_object_get(r->body, "logit_bias"), *add;
    const char *name;
    if (!v || json_is_null(v))
        return TS_OK;
    if (!json_is_object(v) || json_object_size(v) > TS_REQUEST_MAX_BIAS)
        return ts_request_wrong(no, "logit_bias",
                                "an object of up to 4096 numbers by ids of tokens");
    r->bias = ts_calloc(json_object_size(v), sizeof *r->bias);
    if (!r->bias)
        return ts_request_no_memory(no);
    json_object_foreach(v, name, add)
    {
        int64_t id = token_name(name, n_vocab);
        double x = json_number_value(add);
        if (id < 0)
            return ts_refuse(no, 400, "invalid_value", "logit_bias",
                             "'logit_bias' names a token that isn't a number below %lld.",
                             (long long)n_vocab);
        if (!json_is_number(add) || !(x >= -100 && x <= 100))
            return ts_refuse(no, 400, "invalid_value", "logit_bias",
                             "'logit_bias' must have numbers from -100 to 100; that of token %lld "
                             "is none.",
                             (long long)id);
        r->bias[r->n_bias++] =
            (ts_bias){.id = (ts_token)id, .add = x <= -100 ? -INFINITY : (float)x};
    }
    return TS_OK;
}

/* --- what an answer is kept to ---------------------------------------------------------------- */

static ts_status read_schema(ts_request *r, const json_t *schema, const char *name, ts_refusal *no)
{
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return ts_request_wrong(no, name, "given a JSON schema, an object");
    r->form = TS_FORM_SCHEMA;
    return ts_request_json(schema, &r->schema, &r->n_schema, no);
}

static ts_status read_format(ts_request *r, ts_refusal *no)
{
    static const char name[] = "response_format";
    const json_t *v = ts_request_given(r->body, name);
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!v)
        return TS_OK;
    if (!json_is_object(v) || !type)
        return ts_request_wrong(no, name, "an object with a type");
    if (strcmp(type, "text") == 0)
        return TS_OK;
    if (strcmp(type, "json_schema") == 0) {
        const json_t *named = ts_request_given(v, "json_schema");
        const json_t *schema =
            named ? ts_request_given(named, "schema") : ts_request_given(v, "schema");
        return read_schema(r, schema, name, no);
    }
    if (strcmp(type, "json_object") != 0)
        return ts_request_wrong(no, name, "of type text, json_object or json_schema");
    if (ts_request_given(v, "schema"))
        return read_schema(r, ts_request_given(v, "schema"), name, no);
    r->form = TS_FORM_JSON;
    return TS_OK;
}

static ts_status read_form(ts_request *r, ts_refusal *no)
{
    ts_status st = ts_request_text(r->body, "grammar", &r->gbnf, no);
    const json_t *schema = ts_request_given(r->body, "json_schema");
    if (st == TS_OK)
        st = read_format(r, no);
    if (st)
        return st;
    bool gbnf = r->gbnf && *r->gbnf;
    if ((int)gbnf + (schema != NULL) + (r->form != TS_FORM_FREE) > 1)
        return ts_refuse(no, 400, "invalid_value", gbnf ? "grammar" : "json_schema",
                         "An answer can be kept to one of 'grammar', 'json_schema' and "
                         "'response_format'.");
    if (gbnf)
        r->form = TS_FORM_GBNF;
    return schema ? read_schema(r, schema, "json_schema", no) : TS_OK;
}

/* --- the whole ----------------------------------------------------------------------------------
 */

/* What isn't done is refused, where leaving it out would give another answer than was asked for. */
static ts_status refuse_unsupported(const ts_request *r, ts_refusal *no)
{
    const json_t *best = ts_request_given(r->body, "best_of"),
                 *suffix = ts_request_given(r->body, "suffix");
    bool echo = false;
    ts_status st = ts_request_bool(r->body, "echo", &echo, no);
    if (st)
        return st;
    if (echo)
        return ts_refuse(no, 400, "unsupported_value", "echo",
                         "'echo' isn't supported: the answer never begins with the prompt.");
    if (suffix && (!json_is_string(suffix) || json_string_length(suffix) > 0))
        return ts_refuse(no, 400, "unsupported_value", "suffix",
                         "'suffix' isn't supported: text can only be added behind a prompt.");
    if (best && (!json_is_integer(best) || json_integer_value(best) != r->n))
        return ts_refuse(no, 400, "unsupported_value", "best_of",
                         "'best_of' isn't supported: all choices made are answered ('n').");
    return TS_OK;
}

static ts_status read_stream(ts_request *r, ts_refusal *no)
{
    ts_status st = ts_request_bool(r->body, "stream", &r->stream, no);
    const json_t *o = ts_request_given(r->body, "stream_options");
    if (st || !o)
        return st;
    if (!json_is_object(o))
        return ts_request_wrong(no, "stream_options", "an object");
    st = ts_request_bool(o, "include_usage", &r->include_usage, no);
    return st ? ts_request_wrong(no, "stream_options",
                                 "an object whose include_usage is true or false")
              : TS_OK;
}

/* Of chats and completions. */
static ts_status read_generation(ts_request *r, int64_t n_vocab, ts_refusal *no)
{
    ts_status st = read_stream(r, no);
    if (st == TS_OK)
        st = read_probs(r, no);
    if (st == TS_OK)
        st = read_stop(r, no);
    if (st == TS_OK)
        st = read_bias(r, n_vocab, no);
    if (st == TS_OK)
        st = ts_request_bool(r->body, "ignore_eos", &r->ignore_eos, no);
    if (st == TS_OK)
        st = read_form(r, no);
    return st ? st : refuse_unsupported(r, no);
}

ts_status ts_request_read(ts_request *r, ts_ask ask, const char *body, size_t n, int64_t n_vocab,
                          const ts_sampler_options *defaults, ts_refusal *no)
{
    *r = (ts_request){.ask = ask,
                      .n = 1,
                      .n_probs = -1,
                      .max_tokens = -1,
                      .sampling = *defaults,
                      .parallel_calls = true,
                      .parse_special = true};
    if (ts_json_read(&r->body, body, n, "the body", TS_JSON_NUL | TS_JSON_TWICE, &no->err))
        return ts_refuse_error(no, "");
    if (!json_is_object(r->body))
        return ts_refuse(no, 400, "invalid_value", "", "The body must be a JSON object.");
    ts_status st = ts_request_text(r->body, "model", &r->model, no);
    if (st == TS_OK)
        st = read_numbers(r, no);
    if (st == TS_OK && (ask == TS_ASK_CHAT || ask == TS_ASK_COMPLETION))
        st = read_generation(r, n_vocab, no);
    if (st)
        return st;
    return ask == TS_ASK_CHAT ? ts_request_read_chat(r, no) : ts_request_read_input(r, n_vocab, no);
}

void ts_request_drop_body(ts_request *r)
{
    for (size_t i = 0; i < r->n_prompts; i++)
        free(r->prompts[i].ids);
    free(r->prompts);
    free(r->schema);
    free(r->chat);
    json_decref(r->body);
    r->prompts = NULL;
    r->n_prompts = 0;
    r->schema = r->chat = NULL;
    r->model = r->gbnf = NULL;
    r->body = NULL;
}

void ts_request_free(ts_request *r)
{
    ts_request_drop_body(r);
    for (size_t i = 0; i < r->n_stop; i++)
        free(r->stop[i]);
    free(r->stop);
    free(r->bias);
    free(r->tools);
    free(r->tool_name);
    *r = (ts_request){0};
}

/* test_request.c - bodies of requests: what is read of them, and what is refused. */
#include "server/request.h"

#include <string.h>

#include "base/utf8.h"
#include "check.h"

enum { N_VOCAB = 1000 };

static ts_sampler_options defaults;

/* Reads and frees; r stays filled with what needs no memory. */
static ts_status read(ts_request *r, ts_ask ask, const char *body, size_t n, ts_refusal *no)
{
    /* no more than n bytes are there */
    char *own = malloc(n ? n : 1);
    REQUIRE(own != NULL);
    memcpy(own, body, n);
    *no = (ts_refusal){0};
    ts_status st = ts_request_read(r, ask, own, n, N_VOCAB, &defaults, no);
    free(own);
    return st;
}

static void good(ts_request *r, ts_ask ask, const char *body)
{
    ts_refusal no;
    ts_status st = read(r, ask, body, strlen(body), &no);
    CHECK_MSG(st == TS_OK, "%s: %s", body, no.err.msg);
    CHECK(no.status == 0);
}

static void refused_n(ts_ask ask, const char *body, size_t n, const char *param)
{
    ts_request r;
    ts_refusal no;
    ts_sb text = {0};
    ts_status st = read(&r, ask, body, n, &no);
    CHECK_MSG(st != TS_OK && no.status == 400, "%.200s: status %d", body, no.status);
    CHECK_MSG(no.err.msg[0] && no.err.code == st, "%.200s: no sentence", body);
    CHECK_MSG(strcmp(no.param, param) == 0, "%.200s: '%s' is named, not '%s' (%s)", body, no.param,
              param, no.err.msg);
    CHECK(ts_utf8_valid(no.err.msg, strlen(no.err.msg)) == strlen(no.err.msg));
    ts_refusal_json(&no, &text);
    CHECK(!text.failed && strstr(text.s, "{\"error\": {\"message\": \""));
    ts_sb_free(&text);
    ts_request_free(&r);
}

static void refused(ts_ask ask, const char *body, const char *param)
{
    refused_n(ask, body, strlen(body), param);
}

/* --- every field, with every type it doesn't have -------------------------------------------- */

enum { CHAT = 1 << TS_ASK_CHAT, TEXT = 1 << TS_ASK_COMPLETION, EMBED = 1 << TS_ASK_EMBEDDING };
enum { TOKENIZE = 1 << TS_ASK_TOKENIZE, DETOKENIZE = 1 << TS_ASK_DETOKENIZE };
enum { BOTH = CHAT | TEXT, ALL = BOTH | EMBED | TOKENIZE | DETOKENIZE };

/* Types that a field has: b boolean, i whole number, r real, s text, a list, o object. */
static const struct {
    const char *name;
    unsigned asks;
    const char *types;
} fields[] = {
    {"model", ALL, "s"},
    {"stream", BOTH, "b"},
    {"stream_options", BOTH, "o"},
    {"n", BOTH, "i"},
    {"max_tokens", BOTH, "i"},
    {"max_completion_tokens", CHAT, "i"},
    {"temperature", ALL, "ir"},
    {"top_p", ALL, "ir"},
    {"min_p", ALL, "ir"},
    {"top_k", ALL, "i"},
    {"repeat_penalty", ALL, "ir"},
    {"frequency_penalty", ALL, "ir"},
    {"presence_penalty", ALL, "ir"},
    {"repeat_last_n", ALL, "i"},
    {"seed", ALL, "i"},
    {"stop", BOTH, "sa"},
    {"logit_bias", BOTH, "o"},
    {"ignore_eos", BOTH, "b"},
    {"logprobs", CHAT, "b"},
    {"logprobs", TEXT, "i"},
    {"response_format", BOTH, ""},
    {"json_schema", BOTH, "ob"},
    {"grammar", BOTH, "s"},
    {"echo", TEXT, ""},
    {"messages", CHAT, ""},
    {"tools", CHAT, "a"},
    {"tool_choice", CHAT, ""},
    {"parallel_tool_calls", CHAT, "b"},
    {"chat_template_kwargs", CHAT, "o"},
    {"reasoning_effort", CHAT, "s"},
    {"prompt", TEXT, "s"},
    {"input", EMBED, "s"},
    {"encoding_format", EMBED, ""},
    {"dimensions", EMBED, "i"},
    {"content", TOKENIZE, "s"},
    {"add_special", TOKENIZE, "b"},
    {"parse_special", TOKENIZE, "b"},
    {"with_pieces", TOKENIZE, "b"},
    {"tokens", DETOKENIZE, "a"},
};

static const struct {
    char type;
    const char *text;
} values[] = {{'b', "true"}, {'i', "1"}, {'r', "0.5"}, {'s', "\"x\""}, {'a', "[]"}, {'o', "{}"}};

static const char *needed(ts_ask ask)
{
    static const char *const texts[] = {
        [TS_ASK_CHAT] = "\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]",
        [TS_ASK_COMPLETION] = "\"prompt\": \"x\"",
        [TS_ASK_EMBEDDING] = "\"input\": \"x\"",
        [TS_ASK_TOKENIZE] = "\"content\": \"x\"",
        [TS_ASK_DETOKENIZE] = "\"tokens\": [1]",
    };
    return texts[ask];
}

static void try_field(size_t f, ts_ask ask)
{
    char body[300];
    ts_request r;
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        /* of two members of one name the last counts */
        snprintf(body, sizeof body, "{%s, \"%s\": %s}", needed(ask), fields[f].name,
                 values[v].text);
        if (!strchr(fields[f].types, values[v].type)) {
            refused(ask, body, fields[f].name);
        } else {
            good(&r, ask, body);
            ts_request_free(&r);
        }
    }
    snprintf(body, sizeof body, "{\"%s\": null, %s}", fields[f].name, needed(ask));
    good(&r, ask, body);
    ts_request_free(&r);
}

static void test_types(void)
{
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        for (int ask = 0; ask <= TS_ASK_DETOKENIZE; ask++)
            if (fields[f].asks & (1u << ask))
                try_field(f, (ts_ask)ask);
}

/* --- numbers ------------------------------------------------------------------------------------
 */

static void test_numbers(void)
{
    static const struct {
        const char *name, *good, *bad; /* separated by | */
    } cases[] = {
        {"n", "1|128", "0|-1|129|1e3|9223372036854775808|-9223372036854775809|1e999"},
        {"max_tokens", "0|1|2147483647", "-1|2147483648|1.0|99999999999999999999999999"},
        {"temperature", "0|2|0.7|100", "-0.001|100.5|1e999|-1e999|1e300"},
        {"top_p", "0|1|0.5", "-1|1.01|2"},
        {"min_p", "0|1", "-0.1|1.5"},
        {"top_k", "-1|0|2147483647", "-2|2147483648|0.5"},
        {"frequency_penalty", "-2|2", "-2.5|2.5"},
        {"presence_penalty", "-2|2", "-2.5|2.5"},
        {"repeat_penalty", "0.01|100", "0|-1|101"},
        {"repeat_last_n", "-1|0|2147483647", "-2|2147483648"},
        {"seed", "-1|0|9223372036854775807", "-2|9223372036854775808|0.5"},
    };
    char body[300], text[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bad = 0; bad < 2; bad++) {
            char *rest = text, *one;
            snprintf(text, sizeof text, "%s", bad ? cases[i].bad : cases[i].good);
            while ((one = strsep(&rest, "|"))) {
                ts_request r;
                snprintf(body, sizeof body, "{%s, \"%s\": %s}", needed(TS_ASK_CHAT), cases[i].name,
                         one);
                if (bad && strstr(one, "e999")) {
                    ts_refusal no; /* no number at all: the reader may refuse it */
                    CHECK_MSG(read(&r, TS_ASK_CHAT, body, strlen(body), &no) != TS_OK, "%s", body);
                    ts_request_free(&r);
                } else if (bad) {
                    refused(TS_ASK_CHAT, body, cases[i].name);
                } else {
                    good(&r, TS_ASK_CHAT, body);
                    ts_request_free(&r);
                }
            }
        }
}

static void test_values(void)
{
    ts_request r;
    good(&r, TS_ASK_CHAT,
         "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"temperature\": 0.25, "
         "\"top_k\": 7, "
         "\"seed\": 5, \"n\": 3, \"max_tokens\": 9, \"max_completion_tokens\": 8, \"logprobs\": "
         "true, "
         "\"stop\": [\"a\", \"b\"], \"logit_bias\": {\"3\": -100, \"4\": 1.5}, \"stream\": true, "
         "\"stream_options\": {\"include_usage\": true}, \"ignore_eos\": true, \"model\": \"m\"}");
    CHECK(r.sampling.temp == 0.25f && r.sampling.top_k == 7 && r.sampling.seed == 5 && r.seeded);
    CHECK(r.sampling.min_p == defaults.min_p);
    CHECK(r.n == 3 && r.max_tokens == 8 && r.n_probs == 0 && r.stream && r.include_usage);
    CHECK(r.n_stop == 2 && !strcmp(r.stop[0], "a") && !strcmp(r.stop[1], "b"));
    CHECK(r.n_bias == 2 && r.ignore_eos && !strcmp(r.model, "m"));
    for (size_t i = 0; i < r.n_bias; i++)
        CHECK(r.bias[i].id == 3 ? isinf(r.bias[i].add) && r.bias[i].add < 0
                                : r.bias[i].id == 4 && r.bias[i].add == 1.5f);
    CHECK(strstr(r.chat, "\"messages\"") && strlen(r.chat) == r.n_chat && !r.tools);
    ts_request_drop_body(&r);
    CHECK(r.n_stop == 2 && !strcmp(r.stop[1], "b") && !r.model); /* what is still needed */
    ts_request_free(&r);

    good(&r, TS_ASK_CHAT, "{\"messages\": [{}], \"seed\": -1}");
    CHECK(!r.seeded && r.n == 1 && r.max_tokens == -1 && r.n_probs == -1 && !r.stream);
    ts_request_free(&r);
    good(&r, TS_ASK_COMPLETION,
         "{\"prompt\": [[1, 2], \"x\\u0000y\"], \"logprobs\": 5, \"stop\": \"s\"}");
    CHECK(r.n_prompts == 2 && r.prompts[0].n_ids == 2 && r.prompts[0].ids[1] == 2);
    CHECK(r.prompts[1].n_text == 3 && r.n_probs == 5 && r.n_stop == 1);
    ts_request_free(&r);
    good(&r, TS_ASK_COMPLETION, "{\"prompt\": [1, 2, 999]}");
    CHECK(r.n_prompts == 1 && r.prompts[0].n_ids == 3);
    ts_request_free(&r);
    good(&r, TS_ASK_DETOKENIZE, "{\"tokens\": []}");
    CHECK(r.n_prompts == 0);
    ts_request_free(&r);
    good(&r, TS_ASK_EMBEDDING, "{\"input\": [\"a\", \"b\"], \"encoding_format\": \"base64\"}");
    CHECK(r.n_prompts == 2 && r.base64);
    ts_request_free(&r);
}

/* --- forms and tools ----------------------------------------------------- */

#define M      "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], "
#define TOOL   "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}"
#define NAMED  "{\"type\": \"function\", \"function\": {\"name\": \"f\"}}"
#define SCHEMA "{\"type\": \"object\"}"

static void test_forms(void)
{
    ts_request r;
    static const struct {
        const char *fields;
        ts_form form;
    } cases[] = {
        {"\"response_format\": {\"type\": \"text\"}}", TS_FORM_FREE},
        {"\"response_format\": {\"type\": \"json_object\"}}", TS_FORM_JSON},
        {"\"response_format\": {\"type\": \"json_object\", \"schema\": " SCHEMA "}}",
         TS_FORM_SCHEMA},
        {"\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"s\", "
         "\"schema\": " SCHEMA "}}}",
         TS_FORM_SCHEMA},
        {"\"json_schema\": " SCHEMA "}", TS_FORM_SCHEMA},
        {"\"grammar\": \"root ::= \\\"a\\\"\"}", TS_FORM_GBNF},
        {"\"grammar\": \"\"}", TS_FORM_FREE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[400];
        snprintf(body, sizeof body, M "%s", cases[i].fields);
        good(&r, TS_ASK_CHAT, body);
        CHECK_MSG(r.form == cases[i].form, "%s: form %d", body, (int)r.form);
        CHECK((r.schema != NULL) == (r.form == TS_FORM_SCHEMA));
        if (r.schema)
            CHECK_MSG(strcmp(r.schema, SCHEMA) == 0, "%s", r.schema);
        ts_request_free(&r);
    }
    refused(TS_ASK_CHAT, M "\"grammar\": \"x\", \"json_schema\": {}}", "grammar");
    refused(TS_ASK_CHAT, M "\"json_schema\": {}, \"response_format\": {\"type\": \"json_object\"}}",
            "json_schema");
    refused(TS_ASK_CHAT, M "\"top_logprobs\": 3}", "top_logprobs");
}

static void test_tools(void)
{
    ts_request r;
    static const struct {
        const char *fields;
        ts_tool_choice choice;
    } cases[] = {
        {"\"tools\": []}", TS_TOOLS_NONE},
        {"\"tools\": [" TOOL "]}", TS_TOOLS_AUTO},
        {"\"tools\": [" TOOL "], \"tool_choice\": \"auto\"}", TS_TOOLS_AUTO},
        {"\"tools\": [" TOOL "], \"tool_choice\": \"none\"}", TS_TOOLS_NONE},
        {"\"tools\": [" TOOL "], \"tool_choice\": \"required\"}", TS_TOOLS_REQUIRED},
        {"\"tools\": [" TOOL "], \"tool_choice\": " NAMED "}", TS_TOOLS_NAMED},
        {"\"tool_choice\": \"none\"}", TS_TOOLS_NONE},
        {"\"tool_choice\": \"auto\"}", TS_TOOLS_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[400];
        snprintf(body, sizeof body, M "%s", cases[i].fields);
        good(&r, TS_ASK_CHAT, body);
        CHECK_MSG(r.tool_choice == cases[i].choice, "%s: choice %d", body, (int)r.tool_choice);
        CHECK((r.tools != NULL) == (r.tool_choice != TS_TOOLS_NONE));
        CHECK((strstr(r.chat, "\"tools\"") != NULL) == (r.tools != NULL));
        CHECK((r.tool_name != NULL) == (r.tool_choice == TS_TOOLS_NAMED));
        CHECK(r.parallel_calls);
        ts_request_free(&r);
    }
    refused(TS_ASK_CHAT, M "\"tool_choice\": \"required\"}", "tool_choice");
    refused(TS_ASK_CHAT, M "\"tools\": [" TOOL "], \"grammar\": \"x\"}", "grammar");
    refused(TS_ASK_CHAT, M "\"functions\": []}", "functions");
    good(&r, TS_ASK_CHAT, M "\"functions\": null, \"function_call\": null}");
    ts_request_free(&r);
    refused(TS_ASK_CHAT, M "\"function_call\": \"auto\"}", "function_call");
    good(&r, TS_ASK_CHAT,
         M "\"chat_template_kwargs\": {\"enable_thinking\": false, \"messages\": 5, \"tools\": 5}, "
           "\"reasoning_effort\": \"low\"}");
    CHECK(strstr(r.chat, "\"enable_thinking\": false") && strstr(r.chat, "\"content\": \"x\"") &&
          !strstr(r.chat, "tools") && strstr(r.chat, "\"reasoning_effort\": \"low\""));
    ts_request_free(&r);
}

/* --- what is no request -------------------------------------------------- */

static void nested(const char *open, const char *close, size_t n)
{
    ts_sb b = {0};
    ts_sb_str(&b, "{\"messages\": ");
    for (size_t i = 0; i < n; i++)
        ts_sb_str(&b, open);
    for (size_t i = 0; i < n; i++)
        ts_sb_str(&b, close);
    ts_sb_str(&b, "}");
    REQUIRE(!b.failed);
    refused_n(TS_ASK_CHAT, b.s, b.n, "");
    /* and without its end */
    refused_n(TS_ASK_CHAT, b.s, b.n / 2, "");
    ts_sb_free(&b);
}

static void test_junk(void)
{
    static const char *const junk[] = {"",
                                       " ",
                                       "{",
                                       "}",
                                       "nul",
                                       "null",
                                       "[]",
                                       "5",
                                       "\"x\"",
                                       "{\"a\"}",
                                       "{\"a\": 1,}",
                                       "{} {}",
                                       "{\"messages\": [",
                                       "\xef\xbb\xbf{}",
                                       "{\"a\": \"\\ud800\"}",
                                       "{\"\\u0000\": 1}",
                                       "{\"a\": 01}",
                                       "{\"a\": NaN}",
                                       "{\"a\": 'x'}"};
    static const char whole[] = M "\"stop\": [\"a\"], \"n\": 2}";
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
        refused(TS_ASK_CHAT, junk[i], "");
    for (size_t n = 0; n < sizeof whole - 1; n++)
        refused_n(TS_ASK_CHAT, whole, n, "");
    static const char bytes[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"?\"}]}";
    static const char *const bad[] = {
        "\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[100];
        const char *at = strchr(bytes, '?');
        snprintf(body, sizeof body, "%.*s%s%s", (int)(at - bytes), bytes, bad[i], at + 1);
        refused(TS_ASK_CHAT, body, "");
    }
    nested("[", "]", 60000);
    nested("{\"a\": ", "}", 60000);
    refused(TS_ASK_COMPLETION, "{}", "prompt");
    refused(TS_ASK_COMPLETION, "{\"prompt\": [1, 1000]}", "prompt");
    refused(TS_ASK_COMPLETION, "{\"prompt\": [-1]}", "prompt");
    refused(TS_ASK_COMPLETION, "{\"prompt\": [18446744073709551617]}", "prompt");
    refused(TS_ASK_COMPLETION, "{\"prompt\": \"x\", \"suffix\": \"y\"}", "suffix");
    refused(TS_ASK_COMPLETION, "{\"prompt\": \"x\", \"best_of\": 2}", "best_of");
    refused(TS_ASK_CHAT, M "\"logit_bias\": {\"1000\": 1}}", "logit_bias");
    refused(TS_ASK_CHAT, M "\"logit_bias\": {\"\": 1}}", "logit_bias");
    refused(TS_ASK_CHAT, M "\"stop\": \"a\\u0000b\"}", "stop");
    char long_stop[1200];
    snprintf(long_stop, sizeof long_stop, M "\"stop\": \"%01025d\"}", 0);
    refused(TS_ASK_CHAT, long_stop, "stop");
}

int main(void)
{
    ts_sampler_options_init(&defaults);
    test_types();
    test_numbers();
    test_values();
    test_forms();
    test_tools();
    test_junk();
    return check_done("request");
}

/* test_reply_grammar.c - grammars of calls that must be made: for every form, what a sampler makes
 * under one from random logits is read as calls of the tools it may call, with arguments that their
 * schemas accept. */
#include "grammar/grammar.h"
#include "grammar/json.h"
#include "reply_case.h"
#include "schema_oracle.h"

#define TOOL(name, parameters)                                                                     \
    "{\"type\": \"function\", \"function\": {\"name\": \"" name "\"" parameters "}}"
#define PARAMETERS(properties, rest)                                                               \
    ", \"parameters\": {\"type\": \"object\", \"properties\": {" properties "}" rest "}"
#define LOOK                                                                                       \
    "\"city\": {\"type\": \"string\", \"description\": \"where\"}, "                               \
    "\"days\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 12}, "                         \
    "\"unit\": {\"enum\": [\"c\", \"1\", \"true\"]}, "                                             \
    "\"tags\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"maxItems\": 2}"
#define MIX                                                                                        \
    "\"at\": {\"$ref\": \"#/$defs/place\"}, \"flag\": {\"type\": \"boolean\"}, "                   \
    "\"maybe\": {\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}, "                     \
    "\"n\": {\"type\": [\"number\", \"null\"]}, \"k\": {\"const\": \"x y\"}, "                     \
    "\"e\": {\"enum\": [1, \"a\", null, false]}"
#define PLACE                                                                                      \
    ", \"$defs\": {\"place\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": "          \
    "\"number\", \"minimum\": -5, \"maximum\": 5}, \"in\": {\"$ref\": \"#/$defs/place\"}}, "       \
    "\"required\": [\"x\"]}}, \"required\": [\"at\", \"flag\"]"

static const char tools[] =
    "[" TOOL("look", PARAMETERS(LOOK, ", \"required\": [\"city\"]")) ", " TOOL(
        "mix", PARAMETERS(MIX, PLACE)) ", " TOOL("now", PARAMETERS("", "")) ", " TOOL("any",
                                                                                      "") "]";

/* --- a model of random logits ---------------------------------------------------------- */

/* Ends come often enough: of strings and brackets, and what closes a value between tags. */
static void fill(float *logits, const talk *t, const char *closing, size_t *spelled, int at,
                 uint64_t *seed)
{
    int64_t n = ts_tokenizer_n(t->tok);
    for (int64_t i = 0; i < n; i++) {
        const char *s = "";
        size_t k = ts_tokenizer_piece(t->tok, (ts_token)i, false, &s);
        logits[i] = 2 * rnd_normal(seed);
        if (k == 1 && *s && strchr("\"}])", *s))
            logits[i] += 6 + (float)at / (*s == '"' ? 100 : 50);
        if (closing && *spelled && k == 1 && *s == closing[*spelled - 1])
            logits[i] += 100;
        if (ts_tokenizer_is_eog(t->tok, (ts_token)i))
            logits[i] += 4 + (float)at / 50;
    }
}

/* A text under the grammar: free it. */
static char *made(const talk *t, const ts_vocab *vocab, ts_gram *gram, const char *closing,
                  uint64_t *seed)
{
    ts_grammar g = {.gram = gram, .vocab = vocab};
    ts_sampler_options o;
    ts_sampler *s = NULL;
    ts_error err = {0};
    ts_sb text = {0};
    size_t n = (size_t)ts_tokenizer_n(t->tok), spelled = 0;
    float *logits = malloc(n * sizeof *logits);
    ts_sampler_options_init(&o);
    o.temp = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    o.seed = rnd_u64(seed);
    REQUIRE(ts_sampler_open(&s, &o, NULL) == TS_OK && logits);
    CHECK_MSG(ts_sampler_set_grammar(s, &g, &err) == TS_OK, "%s", err.msg);
    for (int i = 0; i < 4000; i++) {
        ts_token id = -1;
        const char *p = "";
        if (closing && !spelled && rnd_u64(seed) % 8 == 0)
            spelled = 1;
        fill(logits, t, closing, &spelled, i, seed);
        CHECK_MSG(ts_sampler_sample(s, logits, n, &id, &err) == TS_OK, "%s", err.msg);
        if (id < 0 || ts_tokenizer_is_eog(t->tok, id))
            break;
        ts_sampler_accept(s, id);
        size_t k = ts_tokenizer_piece(t->tok, id, false, &p);
        if (spelled)
            spelled = k == 1 && *p == closing[spelled - 1] && closing[spelled] ? spelled + 1 : 0;
        ts_sb_add(&text, p, k);
    }
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_COMPLETE ||
          ts_sampler_grammar_state(s) == TS_GRAMMAR_ENDED);
    ts_sampler_close(s);
    free(logits);
    ts_sb_add(&text, "", 0);
    return text.s;
}

/* --- what it is read as ---------------------------------------------------------------- */

typedef struct calls {
    const json_t *names; /* tool -> parameters */
    const char *only;
    char name[100];
    ts_sb args;
    int n;
    bool content;
} calls;

static void end_call(calls *c)
{
    json_t *args = NULL, *schema = json_object_get(c->names, c->name);
    ts_error err = {0};
    if (!c->n)
        return;
    CHECK_MSG(!c->only || strcmp(c->only, c->name) == 0, "%s is called", c->name);
    CHECK_MSG(ts_json_read(&args, c->args.s ? c->args.s : "", c->args.n, "it", TS_JSON_NUL, &err) ==
                  TS_OK,
              "%s: '%s'", err.msg, c->args.s);
    CHECK_MSG(json_is_object(args) && (!json_is_object(schema) || so_valid(schema, schema, args)),
              "%s: '%s'", c->name, c->args.s);
    json_decref(args);
    c->args.n = 0;
}

static ts_status take(void *user, const ts_reply_part *p, ts_error *err)
{
    calls *c = user;
    (void)err;
    if (p->kind == TS_REPLY_CALL) {
        end_call(c);
        snprintf(c->name, sizeof c->name, "%s", p->name);
        c->n++;
    } else if (p->kind == TS_REPLY_ARGUMENTS) {
        ts_sb_add(&c->args, p->text, p->n);
    } else {
        c->content = true;
    }
    return TS_OK;
}

typedef struct run {
    talk t;
    ts_vocab *vocab;
    const char *prompt;
    bool thinking; /* is open at its end */
    r_tools tools;
    size_t n_many; /* answers of more than one call */
} run;

static void check_text(run *r, const char *prefix, const char *only, bool parallel,
                       const char *text)
{
    const char *form = r->t.c->speech.form->name;
    calls c = {.names = r->tools.names, .only = only};
    ts_reply_options opt = {
        .tools = tools, .n_tools = sizeof tools - 1, .reasoning = true, .forced = prefix};
    ts_reply *reply = NULL;
    size_t n = strlen(text), half = n / 2;
    CHECK(ts_reply_open(&reply, r->t.c, r->prompt, strlen(r->prompt), &opt, NULL) == TS_OK);
    REQUIRE(reply);
    CHECK(ts_reply_push(reply, text, half, false, take, &c, NULL) == TS_OK);
    CHECK(ts_reply_push(reply, text + half, n - half, true, take, &c, NULL) == TS_OK);
    end_call(&c);
    CHECK_MSG(c.n > 0 && !c.content && (parallel || c.n == 1),
              "%s%s: %d calls%s in '%s' behind '%s'", form, parallel ? ", parallel" : "", c.n,
              c.content ? " and content" : "", text, prefix);
    r->n_many += c.n > 1;
    ts_sb_free(&c.args);
    ts_reply_close(reply);
}

static void check_grammar(run *r, const char *name, bool parallel, uint64_t *seed)
{
    const ts_reply_form *f = r->t.c->speech.form;
    char *prefix = NULL, *gbnf = NULL;
    ts_gram *gram = NULL;
    ts_error err = {0};
    ts_status st = ts_reply_grammar(r->t.c, r->prompt, strlen(r->prompt), tools, sizeof tools - 1,
                                    name, parallel, &prefix, &gbnf, &err);
    CHECK_MSG(st == TS_OK, "%s: %s", f->name, err.msg);
    if (st)
        return;
    const char *end = r->t.c->speech.think->end;
    CHECK_MSG((strncmp(prefix, end, strlen(end)) == 0) == r->thinking, "%s: '%s'", f->name, prefix);
    CHECK_MSG(ts_gram_open(&gram, gbnf, strlen(gbnf), &err) == TS_OK, "%s: %s\n%s", f->name,
              err.msg, gbnf);
    REQUIRE(gram);
    for (int i = 0; i < (SANITIZED ? 2 : 8); i++) {
        char *text = made(&r->t, r->vocab, gram, f->value_end, seed);
        check_text(r, prefix, name, parallel, text);
        free(text);
    }
    ts_gram_close(gram);
    free(prefix);
    free(gbnf);
}

static ts_vocab *vocab_of(const ts_tokenizer *tok)
{
    int32_t n = (int32_t)ts_tokenizer_n(tok);
    ts_str *pieces = calloc((size_t)n, sizeof *pieces);
    uint8_t *eog = calloc((size_t)n, 1);
    ts_vocab *v = NULL;
    REQUIRE(pieces && eog);
    for (int32_t i = 0; i < n; i++) {
        pieces[i].n = ts_tokenizer_piece(tok, i, false, &pieces[i].s);
        eog[i] = ts_tokenizer_is_eog(tok, i);
    }
    REQUIRE(ts_vocab_open(&v, pieces, eog, n, NULL) == TS_OK);
    free(pieces);
    free(eog);
    return v;
}

static const char *prompt_of(const ts_reply_form *f, const ts_reply_think *t, bool thinking)
{
    static char prompt[100];
    snprintf(prompt, sizeof prompt, "<|x|>assistant\n%s",
             f->content ? f->begin
             : thinking ? t->begin
                        : "");
    return prompt;
}

static void test_forms(void)
{
    static const char *const names[] = {"look", "mix", "now", "any", NULL};
    uint64_t seed = 1;
    size_t n = 0;
    for (size_t i = 0; r_form_row(i); i++) {
        const ts_reply_form *f = r_form_row(i);
        char tmpl[200];
        snprintf(tmpl, sizeof tmpl, "{# %s %s #}", f->needs[0] ? f->needs[0] : "",
                 f->needs[1] ? f->needs[1] : "");
        run r = {.t = talk_open(tmpl)};
        const ts_chat_speech *s = &r.t.c->speech;
        CHECK_MSG(s->form == f, "%s isn't found by what it needs", f->name);
        r.vocab = vocab_of(r.t.tok);
        REQUIRE(r_tools_open(&r.tools, tools, sizeof tools - 1, NULL) == TS_OK);
        for (size_t k = 0; k < 5 && f->kind != R_NONE; k++)
            for (int how = 0; how < 4; how++) {
                r.thinking = how / 2 && f->kind != R_CHANNELS && !f->content;
                r.prompt = prompt_of(f, s->think, r.thinking);
                check_grammar(&r, names[k], how % 2, &seed);
            }
        n += r.n_many > 0;
        ts_vocab_close(r.vocab);
        r_tools_close(&r.tools);
        talk_close(&r.t);
    }
    CHECK_MSG(n > (SANITIZED ? 10 : 20), "%zu forms with several calls", n);
}

/* --- single grammars ------------------------------------------------------------------- */

/* The grammar and the prompt's end for tools of a form; NULL with the sentence in said[500]. */
static char *grammar_of(const char *tmpl, const char *list, const char *name, bool parallel,
                        char **prefix, char *said)
{
    talk t = talk_open(tmpl);
    char *gbnf = NULL;
    ts_error err = {0};
    *prefix = NULL;
    ts_status st =
        ts_reply_grammar(t.c, "", 0, list, strlen(list), name, parallel, prefix, &gbnf, &err);
    CHECK((st == TS_OK) == (gbnf != NULL) && st == err.code);
    snprintf(said, 500, "%s", err.msg);
    talk_close(&t);
    return gbnf;
}

static bool matches(const char *gbnf, const char *text)
{
    ts_gram *g = NULL;
    ts_matcher *m = NULL;
    bool ok = false;
    REQUIRE(ts_gram_open(&g, gbnf, strlen(gbnf), NULL) == TS_OK);
    REQUIRE(ts_matcher_open(&m, g, NULL, NULL) == TS_OK);
    CHECK(ts_matcher_bytes(m, text, strlen(text), &ok, NULL) == TS_OK);
    ok = ok && ts_matcher_can_end(m);
    ts_matcher_close(m);
    ts_gram_close(g);
    return ok;
}

#define HERMES "{# <tool_call> #}"
#define CODER  "{# <function= <parameter= #}"
#define K3     "{# <|open|> <|end_of_msg|> #}"
#define CODE   "[" TOOL("run", PARAMETERS("\"code\": {\"type\": \"string\"}", "")) "]"
#define OPEN3  "<|open|>argument key=\"code\" type=\"string\"<|sep|>"
#define END3   "<|close|>argument<|sep|>"

static void test_texts(void)
{
    static const struct {
        const char *tmpl, *tools, *name;
        bool parallel;
        const char *prefix, *yes[4], *no[4];
    } cases[] = {
        {HERMES,
         tools,
         NULL,
         false,
         "<tool_call>\n",
         {"{\"name\": \"now\", \"arguments\": {}}",
          "{\"name\": \"any\", \"arguments\": {\"a\": [1]}}"},
         {"", "{\"name\": \"now\", \"arguments\": {\"a\": 1}}",
          "{\"name\": \"nobody\", \"arguments\": {}}",
          "{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", "
          "\"arguments\": {}}"}},
        {HERMES,
         tools,
         "now",
         true,
         "<tool_call>\n",
         {"{\"name\": \"now\", \"arguments\": {}}",
          "{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", "
          "\"arguments\": {}}"},
         {"{\"name\": \"any\", \"arguments\": {}}"}},
        {K3,
         CODE,
         NULL,
         false,
         "<|open|>tools<|sep|><|open|>call tool=\"run\" index=\"1\"<|sep|>",
         {OPEN3 "a < b" END3 "<|close|>call<|sep|>",
          OPEN3 "<|close|>argument<|close|>argu" END3 "<|close|>call<|sep|>",
          "<|close|>call<|sep|>"},
         {OPEN3 "a" END3 "b" END3 "<|close|>call<|sep|>",
          OPEN3 "<|close|>argument" END3 "tail" END3 "<|close|>call<|sep|>",
          OPEN3 "a<|close|>call<|sep|>"}},
        {CODER,
         CODE,
         "run",
         true,
         "<tool_call>\n<function=run>\n",
         {"</function>", "<parameter=code>\n</param\n</parameter>\n</function>",
          "<parameter=code>\na</parameter>\n</function>\n</"
          "tool_call>\n<tool_call>\n<function=run>\n</function>"},
         {"<parameter=code>\na</parameter>\n<parameter=code>\nb</parameter>\n</function>", ""}},
        {"{# [TOOL_CALLS] [ARGS] #}",
         tools,
         "now",
         true,
         "[TOOL_CALLS]now[ARGS]",
         {"{}", "{}[TOOL_CALLS]now[ARGS]{}"},
         {"", "{}{}"}},
        {"{# <|tool_call_start|> #}",
         CODE,
         NULL,
         true,
         "<|tool_call_start|>[run(",
         {")]", "code=\"a\")]", "), run()]"},
         {"", ")", "code=1)]"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *prefix, said[500];
        char *g = grammar_of(cases[i].tmpl, cases[i].tools, cases[i].name, cases[i].parallel,
                             &prefix, said);
        CHECK_MSG(g && strcmp(prefix, cases[i].prefix) == 0, "case %zu: '%s', %s", i, prefix, said);
        for (size_t k = 0; g && k < 4; k++) {
            CHECK_MSG(!cases[i].yes[k] || matches(g, cases[i].yes[k]), "case %zu: '%s' isn't taken",
                      i, cases[i].yes[k]);
            CHECK_MSG(!cases[i].no[k] || !matches(g, cases[i].no[k]), "case %zu: '%s' is taken", i,
                      cases[i].no[k]);
        }
        free(prefix);
        free(g);
    }
}

#define ONE(properties, rest) "[" TOOL("f", PARAMETERS(properties, rest)) "]"

static void test_refusals(void)
{
    static const struct {
        const char *tmpl, *tools, *name, *says;
    } cases[] = {
        {HERMES, "[]", NULL, "a tool must be called, but there are none"},
        {HERMES, "null", NULL, "a tool must be called, but there are none"},
        {HERMES, tools, "nobody", "there is no tool called 'nobody'"},
        {"{# nothing #}", tools, NULL, "calls no tools in a form that is known"},
        {HERMES, "[" TOOL("f", ", \"parameters\": {\"type\": \"string\"}") "]", NULL,
         "tool 'f': its parameters are no object"},
        {HERMES, ONE("\"a\": {\"type\": \"strange\"}", ""), NULL,
         "tool 'f': the schema, at #/properties/a"},
        {HERMES, ONE("\"a\": {\"multipleOf\": 3}", ""), NULL, "multipleOf"},
        {HERMES, ONE("\"a\": {\"$ref\": \"#/nowhere\"}", ""), NULL, "tool 'f': the schema"},
        {CODER, ONE("\"a\": {\"multipleOf\": 3}", ""), NULL, "its schema has \"multipleOf\""},
        {CODER, ONE("\"a\": {\"type\": \"string\", \"pattern\": \"a\"}", ""), NULL,
         "tool 'f': no grammar for its parameter 'a' as Qwen3-Coder writes it: its schema has "
         "\"pattern\""},
        {CODER, ONE("\"a\": {\"anyOf\": [{\"type\": \"string\", \"minLength\": 3}]}", ""), NULL,
         "its schema has \"minLength\""},
        {CODER, ONE("\"a\": {\"enum\": [\"</parameter>\"]}", ""), NULL,
         "none of its values can be written"},
        {CODER, ONE("\"a\": {\"type\": \"integer\", \"multipleOf\": 3}", ""), NULL,
         "tool 'f', parameter 'a': the schema"},
        {CODER, ONE("\"a>\": {}", ""), NULL, "parameter 'a>' as Qwen3-Coder writes it: its name"},
        {CODER, ONE("", ", \"anyOf\": []"), NULL, "no grammar for parameters with \"anyOf\""},
        {CODER, ONE("", ", \"required\": [\"b\"]"), NULL,
         "requires a parameter that it doesn't describe"},
        {"{# <|tool_call_start|> #}", ONE("\"a b\": {}", ""), NULL,
         "parameter 'a b' as LFM2 writes it: its name"},
        {"{# >>>all\n #}", "[" TOOL("all", "") ", " TOOL("f", "") "]", NULL,
         "no tool can be called 'all': in the form of functionary 3.2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *prefix, said[500];
        char *g = grammar_of(cases[i].tmpl, cases[i].tools, cases[i].name, false, &prefix, said);
        CHECK_MSG(!g && !prefix && strstr(said, cases[i].says), "case %zu: '%s' instead of '%s'", i,
                  said, cases[i].says);
        free(g);
        free(prefix);
    }
}

/* Schemas that refer to each other in layers, each of so many alternatives, and parameters without
 * end: refused, or read, but not gone through all of them. */
static void test_hostile(void)
{
    static char list[200000];
    size_t n = 0;
    char *prefix, said[500];
#define PUT(...) n += (size_t)snprintf(list + n, sizeof list - n, __VA_ARGS__)
    PUT("[{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"$defs\": {");
    for (int layer = 0; layer < 3; layer++) {
        PUT("\"%c\": {\"anyOf\": [", 'a' + layer);
        for (int i = 0; i < 300; i++)
            PUT("%s{\"$ref\": \"#/$defs/%c\"}", i ? ", " : "", 'b' + layer);
        PUT("]}, ");
    }
    PUT("\"d\": {\"type\": \"string\"}}, \"properties\": {\"x\": {\"$ref\": \"#/$defs/a\"}}}}}]");
    char *g = grammar_of(CODER, list, NULL, false, &prefix, said);
    CHECK_MSG(!g && strstr(said, "anyOf"), "'%s'", said);
    n = 0;
    PUT("[{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": "
        "{");
    for (int i = 0; i < 600; i++)
        PUT("%s\"p%d\": {\"type\": \"integer\"}", i ? ", " : "", i);
    PUT("}}}}]");
#undef PUT
    g = grammar_of("{# <|tool_call_start|> #}", list, NULL, false, &prefix, said);
    CHECK_MSG(!g && strstr(said, "more than 512 parameters"), "'%s'", said);
}

int main(void)
{
    test_texts();
    test_refusals();
    test_hostile();
    test_forms();
    return check_done("reply_grammar");
}

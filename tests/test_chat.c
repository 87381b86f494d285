/* test_chat.c - chat templates of a file: which one, what forms of a request they get, BOS, and
 * hostile text. */
#include "chat/chat.h"
#include "chat/chat_case.h"
#include "engine.h"
#include "tok_vocab.h"

typedef struct file {
    ts_gguf *g;
    ts_tokenizer *tok;
} file;

enum { N_KINDS = 4 };

/* A vocabulary of each kind, with `tmpl` as its chat template (NULL: none). */
static file open_kind(int kind, const char *tmpl, const char *tool_use)
{
    static const char *const pres[] = {"gpt-2", "llama-bpe"};
    tv v = {0};
    file f = {0};
    ts_error err = {0};
    if (kind < 2)
        tv_small_bpe(&v, pres[kind]);
    else
        tv_small_spm(&v, kind == 2);
    if (tmpl)
        tv_str(&v, "tokenizer.chat_template", tmpl);
    if (tool_use)
        tv_str(&v, "tokenizer.chat_template.tool_use", tool_use);
    CHECK_MSG(tv_open(&v, &f.g, &f.tok, &err) == TS_OK, "%s", err.msg);
    REQUIRE(f.tok);
    return f;
}

static void close_file(file *f)
{
    ts_tokenizer_close(f->tok);
    ts_gguf_close(f->g);
}

/* The text of a request, or the sentence. */
static char *apply(const ts_chat *c, const char *json, ts_chat_prompt *p)
{
    static char said[600];
    ts_error err = {0};
    ts_chat_prompt own = {0};
    ts_status st = ts_chat_apply(c, json, strlen(json), p ? p : &own, &err);
    snprintf(said, sizeof said, "%s%s", st ? "! " : "", st ? err.msg : p ? p->text : own.text);
    ts_chat_prompt_free(&own);
    return said;
}

static void expect(const char *tmpl, const char *json, const char *want)
{
    file f = open_kind(0, tmpl, NULL);
    ts_chat *c = NULL;
    ts_error err = {0};
    CHECK_MSG(ts_chat_open_gguf(&c, f.g, f.tok, NULL, &err) == TS_OK, "%s", err.msg);
    REQUIRE(c);
    const char *got = apply(c, json, NULL);
    bool same = *want == '!' ? strstr(got, want + 2) != NULL && *got == '!' : !strcmp(got, want);
    CHECK_MSG(same, "%s\n  of %s\n  gives '%s'\n  not   '%s'", tmpl, json, got, want);
    ts_chat_close(c);
    close_file(&f);
}

/* --- which template --------------------------------------------------------------------- */

static void refused(const char *tmpl, const char *text, ts_status want, const char *says)
{
    file f = open_kind(0, tmpl, NULL);
    ts_chat *c = NULL;
    ts_error err = {0};
    ts_status st = ts_chat_open_gguf(&c, f.g, f.tok, text, &err);
    CHECK_MSG(st == want && err.code == st && !c && strstr(err.msg, says), "%d, '%s'", (int)st,
              err.msg);
    ts_chat_close(c);
    close_file(&f);
}

static void test_which(void)
{
    static const char ask[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}";
    static const char with_tools[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], "
                                     "\"tools\": [{\"type\": \"function\"}]}";
    file f = open_kind(0, "plain {{ messages[0].content }}", "tools {{ messages[0].content }}");
    ts_chat *c = NULL;
    refused(NULL, NULL, TS_UNSUPPORTED, "has no chat template (tokenizer.chat_template)");
    refused("a\n{% if %}", NULL, TS_BAD_FILE, "tokenizer.chat_template, line 2: expected");
    refused(NULL, "{{", TS_BAD_ARG, "the chat template, line 1:");
    REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, NULL, NULL) == TS_OK);
    CHECK(!strcmp(apply(c, ask, NULL), "plain x"));
    CHECK(!strcmp(apply(c, with_tools, NULL), "tools x"));
    ts_chat_close(c);
    REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, "own {{ messages[0].content }}", NULL) == TS_OK);
    CHECK(!strcmp(apply(c, with_tools, NULL), "own x"));
    ts_chat_close(c);
    REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, "chatml", NULL) == TS_OK);
    CHECK(!strcmp(apply(c, ask, NULL), "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"));
    ts_chat_close(c);
    ts_chat_close(NULL);
    close_file(&f);
}

/* --- requests --------------------------------------------------------------------------- */

#define ALL "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"

static void test_bad_requests(void)
{
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "isn't JSON: line 1"},
        {"{\"messages\": [", "isn't JSON: line 1, column"},
        {"[]", "a conversation is a JSON object"},
        {"{}", "a conversation has a list of messages"},
        {"{\"messages\": {}}", "a conversation has a list of messages"},
        {"{\"messages\": []}", "the conversation has no messages"},
        {"{\"messages\": [1]}", "message 1 is no object"},
        {"{\"messages\": [{}]}", "message 1 has no role"},
        {"{\"messages\": [{\"role\": 5}]}", "message 1 has no role"},
        {"{\"messages\": [{\"role\": \"\"}]}", "message 1 has no role"},
        {"{\"messages\": [{\"role\": \"user\"}, {\"role\": \"user\", \"content\": 5}]}",
         "message 2: its content is neither text nor parts"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": [5]}]}", "is no object with a type"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}",
         "of type 'image_url'; only text is supported"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}",
         "has no text"},
        {"{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": 1}]}",
         "tool_calls are no list"},
        {"{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{}]}]}",
         "tool call 1 has no function with a name"},
        {"{\"messages\": [{\"role\": \"user\"}], \"tools\": 3}", "'tools' is no list"},
        {"{\"messages\": [{\"role\": \"user\"}], \"documents\": {}}", "'documents' is no list"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}", "isn't JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[200];
        snprintf(want, sizeof want, "! %s", cases[i].says);
        expect(ALL, cases[i].json, want);
    }
    expect("{{ raise_exception('Not so.') }}", "{\"messages\": [{\"role\": \"user\"}]}",
           "! Not so.");
}

static void test_forms(void)
{
    static const char parts[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", "
        "\"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}]}";
    static const char text[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}";
    static const char system[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, "
                                 "{\"role\": \"user\", \"content\": \"u\"}]}";
#define CALL(args)                                                                                 \
    "{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": "      \
    "\"i\", "                                                                                      \
    "\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": " args "}}]}]}"
    static const char as_text[] = CALL("\"{\\\"at\\\": [1, 2]}\""),
                      as_object[] = CALL("{\"at\": [1, 2]}"), broken[] = CALL("\"{not json\"");
    /* parts for a template that reads only text, and the other way round */
    expect(ALL, parts, "user:a\nb;");
    expect("{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}",
           text, "<ab>");
    expect("{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}",
           parts, "<a><b>");
    expect("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ "
           "m.content|map(attribute='text')|join('+') }}{% endif %}{% endfor %}",
           parts, "a+b");
    /* arguments */
#define CALLS "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
#define END   "{% endfor %}{% endfor %}"
    expect(CALLS "{{ c.function.arguments|tojson }}" END, as_text, "{\"at\": [1, 2]}");
    expect(CALLS "{{ c.function.arguments|tojson }}" END, as_object, "{\"at\": [1, 2]}");
    expect(CALLS "{{ 'x' + c.function.arguments }}" END, as_object, "x{\"at\": [1, 2]}");
    expect(CALLS "{{ 'x' + c.function.arguments }}" END, as_text, "x{\"at\": [1, 2]}");
    expect(CALLS "{{ c.function.arguments }}" END, broken, "{not json");
    /* numbers and text as Python writes them */
    expect(CALLS "{{ 'x' + c.function.arguments }}" END,
           CALL("{\"n\":[0.1,1.0,1e20],\"s\":\"ä\\r\"}"),
           "x{\"n\": [0.1, 1.0, 1e+20], \"s\": \"ä\\r\"}");
    /* the last of two, as Python reads them; NUL is a character */
    expect(ALL, "{\"messages\": [], \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
           "user:x;");
    expect("{{ messages[0].content|length }}",
           "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\"}]}", "3");
    expect(CALLS "{{ c.function.arguments|tojson }}" END, CALL("\"{\\\"a\\\": 1, \\\"a\\\": 2}\""),
           "{\"a\": 2}");
    /* a system message where the template refuses them */
    expect(ALL, system, "system:s;user:u;");
    expect("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% "
           "endif "
           "%}{{ m.content }}{% endfor %}",
           system, "s\n\nu");
    /* names of reasoning */
    expect("{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}",
           "{\"messages\": [{\"role\": \"assistant\", \"reasoning\": \"r\"}]}", "r/r");
    expect("{{ messages[0].reasoning_content is defined }}",
           "{\"messages\": [{\"role\": \"assistant\", \"reasoning_content\": null}]}", "False");
    /* variables */
    expect("{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ enable_thinking }}",
           "{\"messages\": [{\"role\": \"user\"}], \"enable_thinking\": false, \"tools\": []}",
           "None None True False");
    expect("{{ add_generation_prompt }}",
           "{\"messages\": [{\"role\": \"user\"}], \"add_generation_prompt\": false}", "False");
}

/* --- tokens ------------------------------------------------------------------------------- */

static size_t special_ids(const file *f, const ts_chat_prompt *p, ts_token id)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_ids; i++)
        n += id >= 0 ? p->ids[i] == id
                     : (f->tok->attr[p->ids[i]] & (TOK_CONTROL | TOK_UNKNOWN)) != 0;
    return n;
}

/* The template's own BOS and the tokenizer's are one. */
static void test_bos(void)
{
    static const char *const templates[] = {("{{ bos_token }}" ALL), ALL, "{{ bos_token }}",
                                            "x{{ bos_token }}"};
    static const char ask[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}";
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int i = 0; i < 4; i++) {
            file f = open_kind(kind, templates[i], NULL);
            ts_chat *c = NULL;
            ts_chat_prompt p = {0};
            ts_token bos = ts_tokenizer_bos(f.tok);
            bool adds = ts_tokenizer_adds_bos(f.tok);
            REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, NULL, NULL) == TS_OK);
            REQUIRE(ts_chat_apply(c, ask, strlen(ask), &p, NULL) == TS_OK);
            size_t want = i == 0 || i == 2 ? 1 : i == 1 ? adds : 1 + (size_t)adds;
            CHECK_MSG(special_ids(&f, &p, bos) == want && (!adds || p.ids[0] == bos),
                      "kind %d, template %d", kind, i);
            ts_chat_prompt_free(&p);
            ts_chat_close(c);
            close_file(&f);
        }
}

/* In every field that a stranger fills: as many control tokens as with harmless text. */
static void test_hostile(void)
{
    static const char *const templates[] = {
        "{{ bos_token }}{% for m in messages %}<|im_end|>{{ m.role }}\n{{ m.content }}{% for c in "
        "m.tool_calls %}{{ c.function.name }}{{ c.function.arguments|tojson }}{% endfor %}</s>{% "
        "endfor %}"
        "{{ tools|tojson(indent=2) }}<s>",
        "{% for m in messages %}{{ '<|im_end|>' + m.role + '\n' + m.content|trim + '</s>' }}{{ "
        "m.tool_calls }}{% endfor %}{% for t in tools %}{{ t.function.description|upper|lower }}{% "
        "endfor %}"
        "{{ extra }}{{ '%s' % extra }}{{ '{}'.format(extra) }}",
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ '[x]' ~ "
        "m.content.split('q')|join('') ~ '[x]' %}{% endfor %}{{ ns.s }}{{ ns.s[3:]|replace('im', "
        "'im') }}"
        "{% for m in messages %}{{ m.content[:9] }}{{ '>' }}{% endfor %}",
    };
    static const char *const texts[] = {"harmless",    "<|im_end|>",    "</s>",      "<s>",
                                        "[x]",         "<unk>",         "<|im_end|", "|im_end|>",
                                        "<|im_eqnd|>", " <|x|></s>[x] "};
    for (int kind = 0; kind < N_KINDS; kind++)
        for (size_t t = 0; t < 3; t++) {
            file f = open_kind(kind, templates[t], NULL);
            ts_chat *c = NULL;
            size_t harmless = 0;
            REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, NULL, NULL) == TS_OK);
            for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                const char *x = texts[i];
                ts_chat_prompt p = {0};
                json_t *r = json_pack("{s:[{s:s, s:s}, {s:s, s:s, s:[{s:{s:s, s:{s:s}}}]}, {s:s, "
                                      "s:s}], s:[{s:{s:s}}], s:s}",
                                      "messages", "role", x, "content", x, "role", "assistant",
                                      "content", x, "tool_calls", "function", "name", x,
                                      "arguments", x, x, "role", "tool", "content", x, "tools",
                                      "function", "description", x, "extra", x);
                char *json = json_dumps(r, 0);
                ts_error err = {0};
                REQUIRE(json);
                CHECK_MSG(ts_chat_apply(c, json, strlen(json), &p, &err) == TS_OK, "%s", err.msg);
                REQUIRE(p.text);
                size_t n = special_ids(&f, &p, -1);
                harmless = i == 0 ? n : harmless;
                CHECK_MSG(n == harmless && (n > 0 || t == 2),
                          "kind %d, template %zu: '%s' gives %zu, not %zu", kind, t, x, n,
                          harmless);
                ts_chat_prompt_free(&p);
                free(json);
                json_decref(r);
            }
            ts_chat_close(c);
            close_file(&f);
        }
}

/* A template may build its own tokens from roles that programs send. */
static void test_roles(void)
{
    static const char tmpl[] = "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% endfor %}";
    tv v = {0};
    file f;
    static const tv_token t[] = {{"<unk>", 2, 0},    {"<s>", 3, 0},      {"</s>", 3, 0},
                                 {"<|user|>", 3, 0}, {"<|evil|>", 3, 0}, {"▁", 1, -1},
                                 {"a", 1, -2}};
    tv_str(&v, "tokenizer.ggml.model", "llama");
    tv_bool(&v, "tokenizer.ggml.add_bos_token", false);
    tv_tokens(&v, t, sizeof t / sizeof *t);
    REQUIRE(tv_open(&v, &f.g, &f.tok, NULL) == TS_OK);
    ts_chat *c = NULL;
    ts_chat_prompt p = {0};
    REQUIRE(ts_chat_open_gguf(&c, f.g, f.tok, tmpl, NULL) == TS_OK);
    apply(c, "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"evil\"}]}", &p);
    CHECK(special_ids(&f, &p, 3) == 1 && special_ids(&f, &p, 4) == 0);
    ts_chat_prompt_free(&p);
    ts_chat_close(c);
    close_file(&f);
}

int main(void)
{
    test_which();
    test_bad_requests();
    test_forms();
    test_bos();
    test_hostile();
    test_roles();
    return check_done("chat");
}

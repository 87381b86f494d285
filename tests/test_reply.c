/* test_reply.c - answers of models read as they come: every form, however the text is cut
 * (chat/replies.txt), hostile ones, and bad tools. */
#include "grammar/json.h"
#include "reply_case.h"

/* Of the answers in chat/replies.txt. */
#define TOOL(name, properties)                                                                     \
    "{\"type\": \"function\", \"function\": {\"name\": \"" name                                    \
    "\", \"parameters\": {\"type\": \"object\", \"$defs\": {\"n\": {\"type\": \"number\"}}, "      \
    "\"properties\": {" properties "}}}}"
#define LOOK "\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}"
#define ADD  "\"a\": {\"type\": \"number\"}, \"b\": {\"$ref\": \"#/$defs/n\"}"
#define RUN  "\"code\": {\"type\": \"string\"}"
#define MIX                                                                                        \
    "\"flag\": {\"type\": \"boolean\"}, \"list\": {\"type\": \"array\"}, "                         \
    "\"obj\": {\"type\": \"object\"}, \"maybe\": {\"type\": [\"integer\", \"null\"]}, "            \
    "\"any\": {}, \"kind\": {\"enum\": [\"x\", \"1\"]}, "                                          \
    "\"alt\": {\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"number\"}]}"
static const char tools[] = "[" TOOL("look", LOOK) ", " TOOL("add", ADD) ", " TOOL(
    "run", RUN) ", " TOOL("mix", MIX) ", " TOOL("my:tool", ADD) "]";

static ts_reply_options with_tools(void)
{
    return (ts_reply_options){.tools = tools, .n_tools = sizeof tools - 1, .reasoning = true};
}

/* --- all answers, all cuts ------------------------------------------------------------- */

/* What the tests were told to read; TWO: all pairs of cuts for answers up to this length. */
enum { TWO = SANITIZED ? 40 : 120 };

typedef struct setting {
    talk t;
    char prompt[300];
    ts_reply_options opt;
} setting;

static void differs(const char *want, char *got, const char *text, const char *how, size_t a,
                    size_t b)
{
    CHECK_MSG(got && strcmp(want, got) == 0, "'%s', %s %zu %zu\n  gives '%s'\n  not   '%s'", text,
              how, a, b, got ? got : "nothing", want);
    free(got);
}

static void check_answer(const setting *s, const char *text, const char *want)
{
    size_t n = strlen(text), ones[4096];
    const ts_chat *c = s->t.c;
    REQUIRE(n < 4096);
    differs(want, heard_of(c, s->prompt, &s->opt, text, n, NULL, 0), text, "whole", 0, 0);
    for (size_t i = 0; i < n; i++)
        ones[i] = 1;
    differs(want, heard_of(c, s->prompt, &s->opt, text, n, ones, n), text, "bytes", 0, 0);
    for (size_t a = 0; a <= n; a++)
        differs(want, heard_of(c, s->prompt, &s->opt, text, n, &a, 1), text, "cut at", a, 0);
    for (size_t a = 0; a <= n && n <= TWO; a++)
        for (size_t b = 0; b <= n - a; b++) {
            size_t cuts[2] = {a, b};
            differs(want, heard_of(c, s->prompt, &s->opt, text, n, cuts, 2), text, "cut at", a, b);
        }
}

/* Puts spaces and line breaks for the signs that stand for them. */
static void unsign(char *s)
{
    char *to = s;
    for (; *s; s++) {
        bool sign = strncmp(s, "·", 2) == 0 || strncmp(s, "¶", 2) == 0;
        *to++ = !sign ? *s : *++s == '\xb7' ? ' ' : '\n';
    }
    *to = 0;
}

/* The rest of the line behind `key`; "" without one. */
static const char *value(const char *block, const char *key, char *out, size_t n)
{
    const char *p = strstr(block, key);
    snprintf(out, n, "%.*s", p ? (int)strcspn(p + strlen(key), "\n") : 0, p ? p + strlen(key) : "");
    unsign(out);
    return out;
}

static setting set(const char *block)
{
    setting s = {.opt = with_tools()};
    char form[100], tmpl[300], flags[100];
    value(block, "form: ", form, sizeof form);
    value(block, "template: ", tmpl, sizeof tmpl);
    value(block, "prompt: ", s.prompt, sizeof s.prompt);
    value(block, "set: ", flags, sizeof flags);
    s.t = talk_open(tmpl);
    s.opt.reasoning = strstr(flags, "reasoning") != NULL;
    if (strstr(flags, "no_tools"))
        s.opt.tools = NULL;
    CHECK_MSG(strcmp(s.t.c->speech.form->name, form) == 0, "'%s' has the form %s, not %s", tmpl,
              s.t.c->speech.form->name, form);
    return s;
}

static void test_answers(void)
{
    static const char end[] = "\n%%%\n", gives[] = "\n=>\n";
    size_t n = 0, n_answers = 0, n_settings = 0;
    char *all = chat_file("replies.txt", &n), *block, *next;
    setting s = {0};
    REQUIRE(all);
    if (n > 0 && all[n - 1] == '\n')
        all[n - 1] = 0;
    block = strstr(all, end);
    for (block += strlen(end); block; block = next) {
        next = strstr(block, end);
        if (next) {
            *next = 0;
            next += strlen(end);
        }
        if (strncmp(block, "form: ", 6) == 0) {
            if (s.t.c)
                talk_close(&s.t);
            s = set(block);
            n_settings++;
            continue;
        }
        char *want = strstr(block, gives);
        CHECK_MSG(want && s.t.c, "a block without an answer: '%s'", block);
        REQUIRE(want);
        *want = 0;
        want += strlen(gives);
        unsign(block);
        unsign(want);
        check_answer(&s, block, want);
        n_answers++;
    }
    talk_close(&s.t);
    free(all);
    CHECK_MSG(n_settings >= 30 && n_answers >= 140, "%zu of %zu", n_answers, n_settings);
}

/* --- invalid text ---------------------------------------------------------------------- */

static void test_utf8(void)
{
    static const char text[] =
        "a\xff\xe4\xb8|<\xe4\xb8\xad>\xf0\x9f\x98\x80\xf0\x9f\x98"
        "<tool_call>{\"name\": \"run\", \"arguments\": {\"code\": \"\xc0\xaf\xed\xa0\x80\"}}\xe4";
#define BAD "\xef\xbf\xbd"
    static const char want[] = "c(a" BAD BAD BAD "|<\xe4\xb8\xad>\xf0\x9f\x98\x80" BAD BAD BAD
                               ")f(run)a({\"code\": \"" BAD BAD BAD BAD BAD "\"})c(" BAD ")";
    setting s = {.opt = with_tools(), .t = talk_open("{# <tool_call> #}")};
    check_answer(&s, text, want);
    check_answer(&s, "\xd3o", "c(" BAD "o)");
    check_answer(&s, "\xe4", "c(" BAD ")");
    talk_close(&s.t);
}

/* --- JSON, byte by byte ---------------------------------------------------------------- */

static bool scans(const char *s, size_t n)
{
    r_scan scan = {0};
    for (size_t i = 0; i < n; i++) {
        r_scanned got = r_scan_byte(&scan, s[i]);
        if (got == R_DONE)
            return s[i + 1 < n ? i + 1 : i] && i + 1 == n;
        if (got != R_MORE)
            return false;
    }
    return r_scan_byte(&scan, ' ') == R_BEFORE; /* a number ends where something else begins */
}

/* What is JSON for one is for the other: texts made of JSON's pieces, and JSON with a byte changed.
 */
static void test_scan(void)
{
    static const char *const pieces[] = {
        "{",  "}",  "[",       "]",     ",",    ":",     "\"a\"", "\"\\n\\u00aF\"",
        "0",  "-1", "2.5e-3 ", "1E+9 ", "true", "false", "null",  " ",
        "\t", ".",  "e",       "\"",    "\\",   "tru"};
    static const char *const whole[] = {
        "{\"a\": [1, -2.5e+3, true, null, {\"b\": \"\\\"\\u00e9\"}], \"c\": {}}",
        "[[], [0], [-0.0]]",
        "{\"x\": false}",
        "\"a\\\\\"",
        "[1,2,3,\"4\"]",
        "-12.0E1"};
    uint64_t seed = 7;
    size_t n_good = 0;
    for (int i = 0; i < (SANITIZED ? 20000 : 200000); i++) {
        char s[400] = "";
        if (i % 2) {
            for (size_t k = rnd_u64(&seed) % 8 + 1; k > 0; k--)
                strcat(s, pieces[rnd_u64(&seed) % (sizeof pieces / sizeof *pieces)]);
        } else {
            strcpy(s, whole[rnd_u64(&seed) % 6]);
            s[rnd_u64(&seed) % strlen(s)] = (char)(0x20 + rnd_u64(&seed) % 0x5f);
        }
        size_t n = strlen(s);
        while (n > 0 && r_is_space(s[n - 1]))
            s[--n] = 0;
        json_t *v = NULL;
        bool good = ts_json_read(&v, s, n, "it", TS_JSON_TWICE, NULL) == TS_OK;
        json_decref(v);
        CHECK_MSG(good == scans(s, n), "'%s' is %sJSON", s, good ? "" : "no ");
        n_good += good;
    }
    CHECK_MSG(n_good > 500, "%zu of them are JSON", n_good);
}

/* --- hostile --------------------------------------------------------------------------- */

/* Counts bytes, of whole characters. */
static ts_status count(void *user, const ts_reply_part *p, ts_error *err)
{
    (void)err;
    CHECK(ts_utf8_valid(p->text, p->n) == p->n);
    ((size_t *)user)[p->kind] += p->kind == TS_REPLY_CALL ? 1 : p->n;
    return TS_OK;
}

/* Reads `head`, `unit` so many times, `tail`, in pieces; what was read is counted by kind. */
static void read_long(const talk *t, const char *head, const char *unit, size_t times,
                      const char *tail, size_t piece, size_t *got)
{
    ts_reply_options opt = with_tools();
    ts_reply *r = NULL;
    ts_sb b = {0};
    ts_sb_str(&b, head);
    for (size_t i = 0; i < times; i++)
        ts_sb_str(&b, unit);
    ts_sb_str(&b, tail);
    REQUIRE(!b.failed && ts_reply_open(&r, t->c, "", 0, &opt, NULL) == TS_OK);
    memset(got, 0, 4 * sizeof *got);
    for (size_t at = 0; at < b.n; at += piece) {
        size_t n = b.n - at < piece ? b.n - at : piece;
        CHECK(ts_reply_push(r, b.s + at, n, at + n == b.n, count, got, NULL) == TS_OK);
    }
    CHECK_MSG(r->pos == r->n, "something is left of %s%s ... %s", head, unit, tail);
    if (got[TS_REPLY_CALL] == 0 && got[TS_REPLY_REASONING] == 0)
        CHECK_MSG(got[TS_REPLY_CONTENT] == b.n, "%zu bytes of %zu come out of %s%s ... %s", got[0],
                  b.n, head, unit, tail);
    ts_reply_close(r);
    ts_sb_free(&b);
}

/* In each form, what is open stays so: all of it is content in the end, and in time. */
static void test_open_ends(void)
{
    enum { TIMES = SANITIZED ? 300 : 3000 };
    static const char *const units[] = {"{",
                                        "[",
                                        "[[{\"a\":",
                                        "<",
                                        "\"",
                                        "{\"name\": ",
                                        "\n",
                                        " x",
                                        "}",
                                        "]",
                                        "[{",
                                        "\\",
                                        "{\"a\": {\"b\": \"",
                                        "look",
                                        "call:look{",
                                        "look(a=[",
                                        "{\"arguments\": {"};
    size_t a[4], b[4];
    for (size_t i = 0; r_form_row(i); i++) {
        const ts_reply_form *f = r_form_row(i);
        /* the whole way to a value, too */
        const char *const way[] = {f->begin, f->open, "run",      f->name_end, f->head_end,
                                   f->param, "code",  f->key_end, f->attr_end, f->mid};
        char tmpl[200], deep[400] = "";
        for (size_t k = 0; f->kind == R_TAGS && k < sizeof way / sizeof *way; k++)
            if (way[k])
                strncat(deep, way[k], sizeof deep - 1 - strlen(deep));
        const char *const heads[] = {"",          f->section,   f->begin, f->open, f->param,
                                     f->name_end, f->value_end, f->close, deep};
        snprintf(tmpl, sizeof tmpl, "{# %s %s #}", f->needs[0] ? f->needs[0] : "",
                 f->needs[1] ? f->needs[1] : "");
        talk t = talk_open(tmpl);
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
            for (size_t u = 0; heads[h] && u < sizeof units / sizeof *units; u++) {
                char unit[600];
                read_long(&t, heads[h], units[u], TIMES, "", 7, a);
                snprintf(unit, sizeof unit, "%s%s", heads[h], units[u]);
                read_long(&t, "", unit, TIMES, "", 1 << 20, a);
                read_long(&t, "", unit, TIMES, "", 5, b);
                CHECK_MSG(memcmp(a, b, sizeof a) == 0, "%s: %s", f->name, unit);
            }
        talk_close(&t);
    }
}

static void test_long(void)
{
    static const char open[] = "<tool_call>{\"name\": \"look\", \"arguments\": {\"city\": \"";
    static const char late[] = "<tool_call>{\"arguments\": {\"city\": \"";
    size_t got[4], want[4];
    talk t = talk_open("{# <tool_call> #}"), tags = talk_open("{# <function= <parameter= #}");
    /* brackets: as deep as JSON may be, the rest is content */
    read_long(&t, "<tool_call>{\"name\": \"look\", \"arguments\": {\"x\": ", "[", 60000, "", 1000,
              got);
    CHECK_MSG(got[TS_REPLY_CALL] == 1 && got[TS_REPLY_ARGUMENTS] == 6 + R_SCAN_DEPTH - 1 &&
                  got[TS_REPLY_CONTENT] == 60000 - (R_SCAN_DEPTH - 1),
              "%zu, %zu, %zu", got[0], got[2], got[3]);
    read_long(&t, "<tool_call>", "[", 60000, "", 1000, got);
    read_long(&t, "<tool_call>{\"a\": ", "{\"a\": ", 60000, "", 1000, got);
    read_long(&t, "", "<tool_call>", 60000, "", 1000, got);
    /* a long argument is not held */
    read_long(&t, open, "0123456789", 2000000, "\"}}</tool_call>", 1 << 16, got);
    CHECK_MSG(got[TS_REPLY_ARGUMENTS] == 20000000 + 12 && got[TS_REPLY_CONTENT] == 0, "%zu",
              got[3]);
    /* one whose name comes last is, up to a limit; however it comes */
    read_long(&t, late, "0123456789", 1500000, "\"}, \"name\": \"look\"}</tool_call>", 1 << 16,
              got);
    CHECK(got[TS_REPLY_CALL] == 1 && got[TS_REPLY_ARGUMENTS] == 15000000 + 12);
    read_long(&t, late, "0123456789", 2000000, "\"}, \"name\": \"look\"}</tool_call>", 1 << 16,
              got);
    CHECK(got[TS_REPLY_CALL] == 0);
    read_long(&tags, "<tool_call><function=run><parameter=code>", "0123456789", 2000000,
              "</parameter></function>", 1 << 16, got);
    read_long(&tags, "<tool_call><function=run><parameter=code>", "0123456789", 2000000,
              "</parameter></function>", 1 << 30, want);
    CHECK(got[TS_REPLY_CALL] == 0 && memcmp(got, want, sizeof got) == 0);
    /* the limit amid a character, or amid white space */
    for (int i = 0; i < 2; i++)
        read_long(&tags,
                  i ? "<tool_call><function=run><parameter=code>a"
                    : "<tool_call><function=run><parameter=code>",
                  "\xc3\xa9", 9000000, "", 1 << 30, got);
    read_long(&t, "<tool_call>{\"name\": \"look\", \"arguments\": {}}", "          ", 2000000,
              "word", 1 << 30, got);
    CHECK_MSG(got[TS_REPLY_CALL] == 1 && got[TS_REPLY_CONTENT] == 4, "%zu", got[TS_REPLY_CONTENT]);
    talk_close(&tags);
    talk_close(&t);
}

/* --- tools, and what goes wrong -------------------------------------------------------- */

static void test_bad_tools(void)
{
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"", "the list of tools isn't JSON"},
        {"[", "the list of tools isn't JSON: line 1"},
        {"{}", "'tools' is no list"},
        {"[1]", "tool 1 is no object"},
        {"[{\"type\": \"web_search\"}]", "tool 1 is no function"},
        {"[{\"type\": 5}]", "tool 1 is no function"},
        {"[{\"type\": \"function\"}]", "tool 1 has no function with a name"},
        {"[{\"function\": {\"name\": \"a\"}}, {\"function\": {\"name\": 5}}]",
         "tool 2 has no function with a name"},
        {"[{\"function\": []}]", "tool 1 has no function with a name"},
        {"[{\"function\": {\"name\": \"\"}}]", "must be letters, digits"},
        {"[{\"function\": {\"name\": \"a b\"}}]", "its name 'a b' must be letters, digits"},
        {"[{\"function\": {\"name\": \"<|im_end|>\"}}]", "must be letters, digits"},
        {"[{\"function\": {\"name\": \"a\\u0000\"}}]", "must be letters, digits"},
        {"[{\"function\": {\"name\": \"a\", \"parameters\": []}}]",
         "tool 1: its parameters are no schema"},
        {"[{\"function\": {\"name\": \"a\"}}, {\"function\": {\"name\": \"a\"}}]",
         "tool 2: there is another one called 'a'"},
    };
    talk t = talk_open("{# <tool_call> #}");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ts_reply_options opt = {.tools = bad[i].json, .n_tools = strlen(bad[i].json)};
        ts_reply *r = NULL;
        char *prefix = NULL, *gbnf = NULL;
        ts_error err = {0}, same = {0};
        CHECK_MSG(ts_reply_open(&r, t.c, "", 0, &opt, &err) == TS_BAD_ARG && !r &&
                      strstr(err.msg, bad[i].says),
                  "'%s' gives '%s'", bad[i].json, err.msg);
        CHECK(ts_reply_grammar(t.c, "", 0, opt.tools, opt.n_tools, NULL, false, &prefix, &gbnf,
                               &same) == TS_BAD_ARG &&
              !prefix && !gbnf && strcmp(err.msg, same.msg) == 0);
    }
    char name[400], json[600];
    memset(name, 'a', 257);
    name[257] = 0;
    snprintf(json, sizeof json, "[{\"function\": {\"name\": \"%s\"}}]", name);
    ts_reply_options opt = {.tools = json, .n_tools = strlen(json)};
    ts_reply *r = NULL;
    ts_error err = {0};
    CHECK_MSG(ts_reply_open(&r, t.c, "", 0, &opt, &err) == TS_BAD_ARG &&
                  strstr(err.msg, "257 bytes, more than 256"),
              "%s", err.msg);
    ts_sb many = {0};
    for (int i = 0; i < 5000; i++)
        ts_sb_printf(&many, "%s{\"function\": {\"name\": \"f%d\"}}", i ? ", " : "[", i);
    ts_sb_str(&many, "]");
    opt = (ts_reply_options){.tools = many.s, .n_tools = many.n};
    CHECK_MSG(ts_reply_open(&r, t.c, "", 0, &opt, &err) == TS_BAD_ARG &&
                  strstr(err.msg, "there are 5000 tools, more than 4096"),
              "%s", err.msg);
    ts_sb_free(&many);
    /* none at all */
    opt = (ts_reply_options){.tools = "null", .n_tools = 4};
    free(heard_of(t.c, "", &opt, "<tool_call>", 11, NULL, 0));
    talk_close(&t);
}

/* Ends the reading at its n-th part. */
static ts_status stop(void *user, const ts_reply_part *p, ts_error *err)
{
    (void)p;
    return --*(int *)user ? TS_OK : ts_fail(err, TS_IO, "the client is gone");
}

static void test_stops(void)
{
    static const char text[] =
        "a <tool_call>{\"name\": \"look\", \"arguments\": {\"city\": \"x\"}}</tool_call> b";
    talk t = talk_open("{# <tool_call> #}");
    for (int n = 1; n <= 5; n++) {
        ts_reply_options opt = with_tools();
        ts_reply *r = NULL;
        ts_error err = {0};
        int left = n;
        REQUIRE(ts_reply_open(&r, t.c, "", 0, &opt, NULL) == TS_OK);
        ts_status st = ts_reply_push(r, text, strlen(text), true, stop, &left, &err);
        CHECK_MSG(n < 5 ? st == TS_IO && left == 0 && strcmp(err.msg, "the client is gone") == 0
                        : st == TS_OK && left == 1,
                  "%d: %s, %d", n, err.msg, left);
        st = ts_reply_push(r, "x", 1, true, stop, &left, &err);
        CHECK_MSG(n < 5 ? st == TS_IO && strstr(err.msg, "has failed before")
                        : st == TS_BAD_ARG && strstr(err.msg, "something follows"),
                  "%s", err.msg);
        ts_reply_close(r);
    }
    ts_reply_close(NULL);
    talk_close(&t);
}

/* Whether markers are control tokens, and of which of the two templates. */
static void test_special(void)
{
    static const struct {
        int type; /* of "<tool_call>" */
        const char *tmpl, *tools;
        bool special;
    } cases[] = {{3, "{# <tool_call> #}", NULL, true},
                 {4, "{# <tool_call> #}", NULL, false},
                 {3, "{# nothing #}", NULL, false},
                 {3, "{# nothing #}", "{# <tool_call> #}", true},
                 {4, "{# nothing #}", "{# <tool_call> #}", false},
                 {3, "{# <|tool_call>call: #}", NULL, false},
                 {3, "{# <seed:tool_call> #}", NULL, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tv_token tokens[] = {{"<unk>", 2, 0},
                                   {"<s>", 3, 0},
                                   {"</s>", 3, 0},
                                   {"<tool_call>", cases[i].type, 0},
                                   {"</seed:tool_call>", 3, 0},
                                   {"▁", 1, -1},
                                   {"a", 1, -2}};
        tv v = {0};
        talk t = {0};
        tv_str(&v, "tokenizer.ggml.model", "llama");
        tv_str(&v, "tokenizer.chat_template", cases[i].tmpl);
        if (cases[i].tools)
            tv_str(&v, "tokenizer.chat_template.tool_use", cases[i].tools);
        tv_tokens(&v, tokens, sizeof tokens / sizeof *tokens);
        REQUIRE(tv_open(&v, &t.g, &t.tok, NULL) == TS_OK);
        REQUIRE(ts_chat_open_gguf(&t.c, t.g, t.tok, NULL, NULL) == TS_OK);
        CHECK_MSG(ts_reply_special(t.c) == cases[i].special, "case %zu", i);
        /* calls are read as the template for tools writes them */
        ts_reply_options opt = with_tools();
        static const char call[] = "<tool_call>{\"name\": \"look\"}";
        char *got = heard_of(t.c, "", &opt, call, strlen(call), NULL, 0);
        bool hermes = strstr(cases[i].tools ? cases[i].tools : cases[i].tmpl, "<tool_call>");
        CHECK_MSG((strcmp(got, "f(look)a({})") == 0) == hermes, "case %zu: %s", i, got);
        free(got);
        talk_close(&t);
    }
}

int main(void)
{
    test_answers();
    test_utf8();
    test_scan();
    test_open_ends();
    test_long();
    test_bad_tools();
    test_stops();
    test_special();
    return check_done("reply");
}

/* test_reply.c - answers of models read as they come: every form, however the text is cut
 * (chat/replies.txt), hostile ones, and bad tools. */
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
static const char tools[] =
    "[" TOOL("look", LOOK) ", " TOOL("add", ADD) ", " TOOL("run", RUN) ", " TOOL("mix", MIX) "]";

static ts_reply_options with_tools(void)
{
    return (ts_reply_options){.tools = tools, .n_tools = sizeof tools - 1, .reasoning = true};
}

/* --- all answers, all cuts ------------------------------------------------------------------ */

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

int main(void)
{
    test_answers();
    return check_done("reply");
}

/* test_talk.c - what an answer's tokens become: whole characters to the sink, text and thought
 * apart; answers that end in an error; memory that is short. The rest of cli/talk.c and cli/chat.c
 * is tested by the program (test_chat_cli.py). */
#include "../cli/interrupt.c"
#include "../cli/model.c"
#include "../cli/opt.c"
#include "../cli/report.c"
#include "../cli/sampling.c"
#include "../cli/talk.c"
#include "../cli/text.c"

/* cli/chat.c asks this test, and nobody types. */
static ts_status fake_ask(talk *t, const char *text, size_t n, talk_sink *sink, void *user,
                          talk_end *end, ts_error *err);
#define answer   answer_line
#define talk_ask fake_ask
#include "../cli/chat.c"
#undef answer
#undef talk_ask

#include "check.h"
#include "chat/chat.h"
#include "tok_vocab.h"

ts_status line_open(line_reader **out, const char *p, ts_error *err)
{
    (void)out, (void)p;
    return ts_fail(err, TS_IO, "nobody");
}

void line_close(line_reader *r)
{
    (void)r;
}

bool line_is_terminal(const line_reader *r)
{
    return r != NULL;
}

ts_status line_read(line_reader *r, ts_sb *out, bool *block, line_end *end, ts_error *err)
{
    (void)r, (void)out, (void)block, (void)end;
    return ts_fail(err, TS_IO, "nobody");
}

/* What the sink got: texts, "[" where thought begins and "]" where it ends. */
typedef struct heard {
    ts_sb text;
    bool thought;
} heard;

static bool hear(void *user, const char *s, size_t n, bool thought)
{
    heard *h = user;
    if (thought != h->thought)
        ts_sb_str(&h->text, thought ? "[" : "]");
    h->thought = thought;
    ts_sb_add(&h->text, s, n);
    return true;
}

/* Tokens as pieces; those that begin with "<|" are control tokens. */
static void say(const char *const *pieces, const char *want, const char *said, const char *thought)
{
    talk t = {0};
    heard h = {0};
    answer a = {.t = &t, .sink = hear, .user = &h};
    for (; *pieces; pieces++) {
        const char *s = *pieces;
        if (strncmp(s, "<|", 2) == 0) {
            CHECK(show_text(&a, "", 0, true));
            change_channel(&a.channels, s, strlen(s));
        } else if (a.channels.header) {
            add_header(&a.channels, s, strlen(s));
        } else {
            CHECK(show_text(&a, s, strlen(s), false));
            /* never a part of a character */
            CHECK(!h.text.s || ts_utf8_tail(h.text.s, h.text.n) == 0);
        }
    }
    show_text(&a, "", 0, true);
    CHECK_MSG(!strcmp(h.text.s ? h.text.s : "", want), "heard '%s', not '%s'", h.text.s, want);
    CHECK_MSG(!strcmp(t.said.s ? t.said.s : "", said), "said '%s', not '%s'", t.said.s, said);
    CHECK_MSG(!strcmp(t.thought.s ? t.thought.s : "", thought), "thought '%s'", t.thought.s);
    ts_sb_free(&h.text);
    ts_sb_free(&t.held);
    ts_sb_free(&t.said);
    ts_sb_free(&t.thought);
}

#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* --- answers that end in an error ------------------------------------------------------- */

static const char *fake_thought, *fake_said;

static ts_status fake_ask(talk *t, const char *text, size_t n, talk_sink *sink, void *user,
                          talk_end *end, ts_error *err)
{
    (void)t, (void)text, (void)n, (void)end;
    if (fake_thought)
        sink(user, fake_thought, strlen(fake_thought), true);
    if (fake_said)
        sink(user, fake_said, strlen(fake_said), false);
    return ts_fail(err, TS_NO_MEMORY, "no memory for more");
}

/* What stands on stdout then. */
static void fails_behind(const char *thought, const char *said, bool colour, const char *want)
{
    chat c = {.terminal = true, .colour = colour};
    char got[100] = "";
    ts_sb text = {0};
    fake_thought = thought;
    fake_said = said;
    ts_sb_str(&text, "hello");
    fflush(stdout);
    fflush(stderr);
    FILE *f = tmpfile();
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    REQUIRE(f && out >= 0 && err >= 0);
    dup2(fileno(f), STDOUT_FILENO);
    REQUIRE(freopen("/dev/null", "w", stderr)); /* the sentence */
    int status = answer_line(&c, &text);
    fflush(stdout);
    fflush(stderr);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    rewind(f);
    got[fread(got, 1, sizeof got - 1, f)] = 0;
    fclose(f);
    ts_sb_free(&text);
    CHECK_MSG(status == OPT_GO && !strcmp(got, want), "%d, '%s', not '%s'", status, got, want);
}

static void test_failing_answers(void)
{
    fails_behind(NULL, NULL, true, "");
    fails_behind("Hm", NULL, true, "\x1b[2mHm\x1b[0m\n");
    fails_behind("Hm", NULL, false, "Hm\n");
    fails_behind("Hm", "Yes", true, "\x1b[2mHm\n\n\x1b[0mYes\n");
    fails_behind(NULL, "Yes", true, "Yes\n");
}

/* --- memory that is short ----------------------------------------------------------------- */

static long countdown = -1; /* of Jansson's allocations, until one fails; negative: none does */

static void *refusing(size_t n)
{
    return countdown >= 0 && countdown-- == 0 ? NULL : malloc(n);
}

/* The template says how many messages came, and which variables. */
static void test_short_memory(void)
{
    static const char tmpl[] = "{% if messages[0].content == 'm0' %}{{ raise_exception("
                               "messages|length ~ ' with ' ~ a ~ b ~ c) }}{% endif %}m";
    tv v = {0};
    ts_gguf *g;
    ts_tokenizer *tok;
    talk_end end;
    long k;
    json_set_alloc_funcs(refusing, free);
    tv_small_spm(&v, true);
    REQUIRE(tv_open(&v, &g, &tok, NULL) == TS_OK);
    talk_opts o = {.variables = json_pack("{s:i, s:i, s:i}", "a", 1, "b", 2, "c", 3)};
    talk t = {.o = &o, .messages = json_array()};
    REQUIRE(ts_chat_open_gguf(&t.chat, g, tok, tmpl, NULL) == TS_OK);
    for (int i = 0; i < 20; i++) {
        char text[8];
        snprintf(text, sizeof text, "m%d", i);
        REQUIRE(json_array_append_new(t.messages, message("user", text, strlen(text))) == 0);
    }
    for (k = 0; k < 5000; k++) {
        ts_error err = {0};
        countdown = k;
        ts_status st = talk_ask(&t, "x", 1, hear, NULL, &end, &err);
        bool refused = countdown < 0;
        countdown = -1;
        CHECK_MSG(refused ? st == TS_NO_MEMORY
                          : st == TS_BAD_ARG && strstr(err.msg, ": 21 with 123"),
                  "allocation %ld: %d, '%s'", k, (int)st, err.msg);
        CHECK(json_array_size(t.messages) == 20);
        if (!refused)
            break;
    }
    CHECK_MSG(k > 100 && k < 5000, "%ld allocations", k);
    json_decref(o.variables);
    json_decref(t.messages);
    ts_chat_close(t.chat);
    ts_tokenizer_close(tok);
    ts_gguf_close(g);
}

/* --- the system message -------------------------------------------------------------------- */

static void shows_system(const char *content, const char *want)
{
    talk t = {.messages = json_array()};
    ts_sb text = {0};
    json_t *c = NULL;
    REQUIRE(ts_json_read(&c, content, strlen(content), "it", 0, NULL) == TS_OK);
    json_array_append_new(t.messages, json_pack("{s:s, s:o}", "role", "system", "content", c));
    CHECK_MSG(talk_system(&t, &text) && text.s && !strcmp(text.s, want), "'%s', not '%s'", text.s,
              want);
    ts_sb_free(&text);
    json_decref(t.messages);
}

static void test_system(void)
{
    talk t = {.messages = json_array()};
    ts_sb text = {0};
    CHECK(!talk_system(&t, &text) && !text.s);
    json_decref(t.messages);
    shows_system("\"brief\"", "brief");
    shows_system("[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]",
                 "a\nb");
    shows_system("null", "");
}

int main(void)
{
    say(PIECES("one", " two"), "one two", "one two", "");
    say(PIECES("a\xc3", "\xbc", "\xf0\x9f", "\xa6", "\x86", "z"), "aü🦆z", "aü🦆z", "");
    /* bytes that are no text: shown as they are, kept as U+FFFD */
    say(PIECES("a\xff", "b"),
        "a\xff"
        "b",
        "a\xef\xbf\xbd"
        "b",
        "");
    say(PIECES("a\xc3", "<|x|>"), "a\xc3", "a\xef\xbf\xbd", "");
    /* gpt-oss */
    say(PIECES("<|channel|>", "analysis", "<|message|>", "Hm", ".", "<|end|>", "<|start|>",
               "assistant", "<|channel|>", "final", "<|message|>", "Yes"),
        "[Hm.]Yes", "Yes", "Hm.");
    say(PIECES("<|channel|>", "fin", "al", "<|message|>", "Yes"), "Yes", "Yes", "");
    say(PIECES("<|channel|>", "commentary to=functions.f ", "<|message|>", "{}"), "[{}", "", "{}");
    say(PIECES("text", "<|message|>", "more", "<|other|>", "!"), "textmore!", "textmore!", "");
    test_failing_answers();
    test_system();
    test_short_memory();
    return check_done("talk");
}

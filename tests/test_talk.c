/* test_talk.c - what an answer's tokens become: whole characters to the sink, text and thought
 * apart. The rest of cli/talk.c is tested by the program (test_chat_cli.py). */
#include "../cli/interrupt.c"
#include "../cli/model.c"
#include "../cli/opt.c"
#include "../cli/report.c"
#include "../cli/sampling.c"
#include "../cli/talk.c"
#include "../cli/text.c"

#include "check.h"

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
    return check_done("talk");
}

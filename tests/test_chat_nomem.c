/* test_chat_nomem.c - a chat template opened and applied when memory runs out: each allocation
 * fails once, Jansson's too. The linker hands them over (--wrap, CMakeLists.txt). */
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"
#include "check.h"
#include "engine.h"
#include "refuse.h"
#include "tok_vocab.h"

/* want: the prompt when nothing is refused; NULL: it is put into *made. */
static ts_status open_and_apply(const ts_gguf *g, const ts_tokenizer *t, const ts_chat_prompt *want,
                                ts_chat_prompt *made, ts_error *err)
{
    static const char request[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
        "\"content\": "
        "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}, "
        "{\"role\": \"assistant\", \"reasoning\": \"r\", \"tool_calls\": [{\"function\": "
        "{\"name\": \"f\", "
        "\"arguments\": {\"at\": [1, 2.5, null]}}}]}], \"tools\": [{\"type\": "
        "\"function\"}], \"x\": [0.1, \"\\u00fc\", {}]}";
    ts_chat *c = NULL;
    ts_chat_prompt p = {0};
    ts_status st = ts_chat_open_gguf(&c, g, t, NULL, err);
    if (st == TS_OK)
        st = ts_chat_apply(c, request, sizeof request - 1, &p, err);
    CHECK(st == TS_OK || (!p.text && !p.ids));
    if (st == TS_OK && want)
        CHECK_MSG(p.n_text == want->n_text && !memcmp(p.text, want->text, p.n_text) &&
                      p.n_ids == want->n_ids && !memcmp(p.ids, want->ids, p.n_ids * sizeof *p.ids),
                  "'%s' instead of '%s'", p.text, want->text);
    if (made)
        *made = p;
    else
        ts_chat_prompt_free(&p);
    ts_chat_close(c);
    return st;
}

int main(void)
{
    tv v = {0};
    ts_gguf *g;
    ts_tokenizer *t;
    long k;
    ts_chat_prompt want = {0};
    json_set_alloc_funcs(malloc, free);
    tv_small_spm(&v, true); /* adds BOS */
    tv_str(
        &v, "tokenizer.chat_template",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif "
        "%}{{ '<|im_end|>' + m.content }}{% for c in m.tool_calls|d([]) %}{{ 'x' + "
        "c.function.arguments }}{% endfor %}{{ m.thinking }}{% endfor %}{{ x|d(0)|tojson }}");
    REQUIRE(tv_open(&v, &g, &t, NULL) == TS_OK);
    ts_error none = {0};
    CHECK_MSG(open_and_apply(g, t, NULL, &want, &none) == TS_OK, "%s", none.msg);
    REQUIRE(want.text);
    REQUIRE(strstr(want.text, "x{\"at\": [1, 2.5, null]}r[0.1, "));
    for (k = 0; k < 20000; k++) {
        ts_error err = {0};
        countdown = k;
        ts_status st = open_and_apply(g, t, &want, NULL, &err);
        bool refused = countdown < 0;
        countdown = -1;
        if (st == TS_OK && !refused)
            break;
        CHECK_MSG(err.code == st && st == TS_NO_MEMORY && strstr(err.msg, "no memory"),
                  "allocation %ld: status %d, '%s'", k, (int)st, err.msg);
    }
    CHECK_MSG(k > 500 && k < 20000, "%ld allocations", k);
    ts_chat_prompt_free(&want);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
    return check_done("chat_nomem");
}

/* test_chat_nomem.c - a chat template opened and applied when memory runs out: each allocation
 * fails once, jansson's too. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static long countdown; /* allocations until one fails; negative: none does */

static bool refuse(void)
{
    return countdown >= 0 && countdown-- == 0;
}

static void *test_malloc(size_t n)
{
    return refuse() ? NULL : malloc(n);
}

static void *test_realloc(void *p, size_t n)
{
    return refuse() ? NULL : realloc(p, n);
}

static void *test_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : ts_calloc(n, size);
}

#define malloc    test_malloc
#define realloc   test_realloc
#define ts_calloc test_calloc
#include "../src/jinja/arena.c"
#include "../src/jinja/render.c"
#include "../src/chat/chat.c"
#undef malloc
#undef realloc
#undef ts_calloc

#include "check.h"
#include "tok_vocab.h"

static ts_status open_and_apply(const ts_gguf *g, const ts_tokenizer *t, ts_error *err)
{
    static const char request[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
        "\"content\": "
        "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}, "
        "{\"role\": \"assistant\", \"reasoning\": \"r\", \"tool_calls\": [{\"function\": "
        "{\"name\": \"f\", "
        "\"arguments\": {\"at\": [1, 2.5, null]}}}]}], \"tools\": [{\"type\": "
        "\"function\"}]}";
    ts_chat *c = NULL;
    ts_chat_prompt p = {0};
    ts_status st = ts_chat_open_gguf(&c, g, t, NULL, err);
    if (st == TS_OK)
        st = ts_chat_apply(c, request, sizeof request - 1, &p, err);
    CHECK(st == TS_OK || (!p.text && !p.ids));
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
    json_set_alloc_funcs(test_malloc, free);
    countdown = -1;
    tv_small_spm(&v, true); /* adds BOS */
    tv_str(
        &v, "tokenizer.chat_template",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "{{ '<|im_end|>' + m.content }}{{ m.tool_calls|d(0)|tojson }}{{ m.thinking }}{% endfor %}");
    REQUIRE(tv_open(&v, &g, &t, NULL) == TS_OK);
    for (k = 0; k < 10000; k++) {
        ts_error err = {0};
        countdown = k;
        ts_status st = open_and_apply(g, t, &err);
        if (st == TS_OK) {
            CHECK_MSG(countdown >= 0, "%s", "one was refused, and nobody minded");
            break;
        }
        /* jansson doesn't always say that it was memory */
        bool parsing = st == TS_BAD_ARG && strstr(err.msg, "is no JSON");
        CHECK_MSG(err.code == st &&
                      (parsing || (st == TS_NO_MEMORY && strstr(err.msg, "no memory"))),
                  "allocation %ld: status %d, '%s'", k, (int)st, err.msg);
    }
    countdown = -1;
    CHECK_MSG(k > 300 && k < 10000, "%ld allocations", k);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
    return check_done("chat_nomem");
}

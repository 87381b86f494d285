/* fuzz_jinja.c - libFuzzer target for chat templates.
 *
 * The input is a template, a NUL, and JSON: the template's variables. Where they are an object with
 * messages they go through what a chat does with a request too. Limits are low, so that a run is
 * short; a text must be UTF-8 with a mark for each byte, a refusal must come with a printable
 * sentence, and the same run gives the same text. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static const ts_jinja_limits limits = {
    .steps = 200000, .depth = 300, .output = 1 << 18, .memory = 1 << 25};

static void check_refusal(ts_status st, const ts_error *err)
{
    size_t n = strlen(err->msg);
    must(st == TS_BAD_ARG && err->code == st && n > 0);
    must(ts_utf8_valid(err->msg, n) >= n - (n < 4 ? n : 4)); /* a long one may be cut anywhere */
}

static void check_text(const ts_jinja_text *t)
{
    must(t->s[t->n] == 0 && t->n <= limits.output);
    must(ts_utf8_valid(t->s, t->n) == t->n);
    for (size_t i = 0; i < t->n; i++)
        must(t->mark[i] <= 1);
}

static void render(const ts_jinja *t, const json_t *vars)
{
    const struct tm now = {.tm_year = 125, .tm_mon = 6, .tm_mday = 4};
    ts_jinja_input in = {.vars = vars, .now = &now, .limits = limits};
    ts_jinja_text a = {0}, b = {0};
    ts_error err = {0};
    ts_status st = ts_jinja_render(t, &in, &a, &err);
    if (st) {
        check_refusal(st, &err);
        return;
    }
    check_text(&a);
    must(ts_jinja_render(t, &in, &b, &err) == TS_OK);
    must(a.n == b.n && memcmp(a.s, b.s, a.n) == 0 && memcmp(a.mark, b.mark, a.n) == 0);
    free(a.s);
    free(a.mark);
    free(b.s);
    free(b.mark);
}

static void prepare(const ts_jinja *t, const json_t *vars, unsigned forms)
{
    ts_chat_caps caps = {
        .text = forms & 1, .parts = forms & 2, .object_args = forms & 4, .system = forms & 8};
    json_t *own = json_deep_copy(vars);
    ts_error err = {0};
    must(own != NULL);
    ts_status st = ts_chat_prepare(own, &caps, &err);
    if (st)
        check_refusal(st, &err);
    else
        render(t, own);
    json_decref(own);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    json_t *vars = nul ? json_loadb(s + n + 1, size - n - 1, JSON_ALLOW_NUL, NULL) : NULL;
    ts_jinja *t = NULL;
    ts_error err = {0};
    ts_status st = ts_jinja_open(&t, "T", s, n, &err);
    if (st) {
        check_refusal(st, &err);
    } else {
        render(t, vars);
        if (json_object_get(vars, "messages"))
            prepare(t, vars, (unsigned)n);
    }
    ts_jinja_close(t);
    json_decref(vars);
    return 0;
}

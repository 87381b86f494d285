/* test_jinja_nomem.c - templates when memory runs out: each allocation fails once.
 *
 * The sources that allocate are compiled in here with their allocations replaced, as in
 * test_gguf_nomem.c. */
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

static void *test_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : ts_calloc(n, size);
}

#define malloc    test_malloc
#define ts_calloc test_calloc
#include "../src/jinja/arena.c"
#include "../src/jinja/render.c"
#undef malloc
#undef ts_calloc

#include "chat/chat_case.h"

static long refuse_each(const char *text, const json_t *vars)
{
    for (long k = 0; k < 1000; k++) {
        ts_jinja_text out = {0};
        ts_error err = {0};
        ts_jinja_input in = {.vars = vars, .now = &chat_now};
        countdown = k;
        ts_status st = chat_render(text, strlen(text), &in, &out, &err);
        if (st == TS_OK) {
            CHECK(countdown >= 0); /* none was refused */
            countdown = -1;
            chat_text_free(&out);
            return k;
        }
        CHECK_MSG(st == TS_NO_MEMORY && err.code == st && strstr(err.msg, "no memory") && !out.s &&
                      !out.mark,
                  "allocation %ld: status %d, '%s'", k, (int)st, err.msg);
    }
    return -1;
}

int main(void)
{
    json_t *vars = chat_json("variables.json");
    char *big = malloc(1 << 20);
    REQUIRE(vars && big);
    /* a long template, so that reading it takes several blocks; a run that takes several too */
    size_t n = 0;
    for (int i = 0; i < 6000; i++)
        n += (size_t)sprintf(big + n, "{%% set v%d = nested.q ~ '%d' %%}{{ v%d }}", i, i, i);
    long k = refuse_each("{{ text|upper }}{{ people|tojson }}", vars);
    CHECK_MSG(k >= 5, "%ld allocations", k);
    k = refuse_each(big, vars);
    CHECK_MSG(k >= 20, "%ld allocations", k);
    k = refuse_each("{% for i in range(3000) %}{{ text ~ i }}{% endfor %}", vars);
    CHECK_MSG(k >= 8, "%ld allocations", k);
    free(big);
    json_decref(vars);
    return check_done("jinja_nomem");
}

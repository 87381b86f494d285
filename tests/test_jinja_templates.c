/* test_jinja_templates.c - the templates of seventy real models, with each of
 * chat/conversations.json: the same bytes as jinja2 made (chat/templates.golden).
 *
 * The templates are other people's and not in this tree: scripts/fetch_templates.py gets them.
 * Without them the test is skipped, unless TS_TEST_TEMPLATES says that they must be there. */
#include "chat/chat_case.h"

typedef struct golden {
    FILE *f;
    json_t *conversations, *tokens;
    size_t n_templates, n_rendered, n_raised;
} golden;

static void check_one(golden *g, const ts_jinja *t, const char *name, json_t *c)
{
    char word[32];
    uint64_t hash = 0;
    REQUIRE(fscanf(g->f, "%31s", word) == 1);
    bool raises = strcmp(word, "raises") == 0;
    if (!raises)
        REQUIRE(fscanf(g->f, "%llx", (unsigned long long *)&hash) == 1);
    const char *what = json_string_value(json_object_get(c, "name"));
    json_t *vars = json_copy(c);
    json_object_del(vars, "name");
    ts_jinja_input in = {.vars = vars, .trusted = g->tokens, .now = &chat_now};
    ts_jinja_text out = {0};
    ts_error err = {0};
    ts_status st = ts_jinja_render(t, &in, &out, &err);
    if (raises)
        CHECK_MSG(st == TS_BAD_ARG, "%s, %s: jinja2 raises, this gives %zu bytes", name, what,
                  out.n);
    else
        CHECK_MSG(st == TS_OK && out.n == strtoull(word, NULL, 10) &&
                      chat_fnv(out.s, out.n) == hash,
                  "%s, %s: not jinja2's %s bytes, but %zu %s", name, what, word, out.n, err.msg);
    g->n_raised += raises;
    g->n_rendered += !raises;
    chat_text_free(&out);
    json_decref(vars);
}

static void check_template(golden *g, const char *name, uint64_t hash)
{
    char path[700];
    size_t n = 0, i;
    json_t *c;
    REQUIRE(chat_template_path(path, sizeof path, name));
    char *text = chat_read(path, &n);
    ts_jinja *t = NULL;
    ts_error err = {0};
    CHECK_MSG(text && chat_fnv(text, n) == hash, "%s is missing or another one", path);
    REQUIRE(text);
    CHECK_MSG(ts_jinja_open(&t, name, text, n, &err) == TS_OK, "%s: %s", name, err.msg);
    REQUIRE(t);
    json_array_foreach(g->conversations, i, c)
    {
        check_one(g, t, name, c);
    }
    ts_jinja_close(t);
    free(text);
    g->n_templates++;
}

int main(void)
{
    golden g = {.conversations = chat_json("conversations.json"), .tokens = chat_tokens()};
    char path[700], name[200];
    unsigned long long hash;
    size_t n;
    if (!chat_template_path(path, sizeof path, "Qwen-Qwen3-0.6B.jinja"))
        return 1;
    char *one = chat_read(path, &n);
    free(one);
    if (!one && !getenv("TS_TEST_TEMPLATES")) {
        printf("the templates aren't there: scripts/fetch_templates.py gets them\n");
        json_decref(g.conversations);
        json_decref(g.tokens);
        return 77;
    }
    snprintf(path, sizeof path, "%s/chat/templates.golden", TS_TEST_DIR);
    g.f = fopen(path, "r");
    REQUIRE(g.f && g.conversations && g.tokens);
    while (fscanf(g.f, " template %199s %llx", name, &hash) == 2)
        check_template(&g, name, hash);
    fclose(g.f);
    CHECK_MSG(g.n_templates >= 25 && json_array_size(g.conversations) >= 20, "%zu templates",
              g.n_templates);
    CHECK(g.n_rendered > 8 * g.n_raised);
    printf("%zu templates, %zu texts, %zu that raise\n", g.n_templates, g.n_rendered, g.n_raised);
    json_decref(g.conversations);
    json_decref(g.tokens);
    return check_done("jinja_templates");
}

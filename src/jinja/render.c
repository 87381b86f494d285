/* render.c - the entries: a template from text, a text from a template. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "jinja/parse.h"

enum { PARSE_DEPTH = 200 };

typedef struct source {
    ts_jinja *t;
    const char *text;
    size_t n;
} source;

#define DEFAULT_STEPS  50000000u
#define DEFAULT_DEPTH  800
#define DEFAULT_OUTPUT ((size_t)64 << 20)
#define DEFAULT_MEMORY ((size_t)512 << 20)

/* --- open --------------------------------------------------------------------------- */

/* The text with '\n' for every line break, without the last one, as jinja2 takes it. */
static const char *normalize(j_run *j, const char *text, size_t n, size_t *out)
{
    char *s = j_alloc(j, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r') {
            s[k++] = '\n';
            i += i + 1 < n && text[i + 1] == '\n';
        } else {
            s[k++] = text[i];
        }
    }
    if (k > 0 && s[k - 1] == '\n')
        k--;
    s[k] = 0;
    *out = k;
    return s;
}

static void parse(j_run *j, const void *arg)
{
    const source *src = arg;
    ts_jinja *t = src->t;
    j_parser p = {.j = j};
    size_t n, valid = ts_utf8_valid(src->text, src->n);
    t->name = j_cstr(j, "%s", j->name);
    if (valid < src->n) {
        for (size_t i = 0; i < valid; i++)
            j->line += src->text[i] == '\n';
        j_fail(j, "the template is not UTF-8");
    }
    const char *s = normalize(j, src->text, src->n, &n);
    p.names = j_dict_new(j);
    t->loop = p.loop = j_intern(&p, "loop", 4);
    t->caller = p.caller = j_intern(&p, "caller", 6);
    t->varargs = p.varargs = j_intern(&p, "varargs", 7);
    t->kwargs = p.kwargs = j_intern(&p, "kwargs", 6);
    j_lex(&p, s, n);
    j_parse_template(&p, &t->body);
}

ts_status ts_jinja_open(ts_jinja **out, const char *name, const char *text, size_t n, ts_error *err)
{
    ts_jinja *t = ts_calloc(1, sizeof *t);
    if (!t)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for a template", name);
    j_run j = {.arena = &t->arena, .err = err, .name = name, .line = 1};
    j.limits = (ts_jinja_limits){DEFAULT_STEPS, PARSE_DEPTH, DEFAULT_OUTPUT, DEFAULT_MEMORY};
    if (j_guard(&j, parse, &(source){t, text, n})) {
        ts_jinja_close(t);
        return j.status;
    }
    *out = t;
    return TS_OK;
}

void ts_jinja_close(ts_jinja *t)
{
    if (!t)
        return;
    j_arena_free(&t->arena);
    free(t);
}

/* --- render --------------------------------------------------------------------------- */

static void add_vars(j_run *j, const json_t *from, uint8_t as)
{
    if (!from)
        return;
    if (!json_is_object(from))
        j_fail(j, "the variables of a template are a JSON object");
    j_value v = j_from_json(j, from, as);
    for (size_t i = 0; i < v.u.d->n; i++)
        j_dict_set(j, j->vars, v.u.d->p[i].key, v.u.d->p[i].value);
}

static void run(j_run *j, const void *arg)
{
    const ts_jinja_input *in = arg;
    j->vars = j_dict_new(j);
    add_vars(j, in->vars, J_CALLER);
    add_vars(j, in->trusted, J_TEMPLATE);
    j->scope = j_scope_new(j, NULL);
    j_exec(j, &j->t->body);
}

static ts_status take(j_run *j, const j_buf *b, ts_jinja_text *out)
{
    char *s = malloc(b->n + 1);
    uint8_t *mark = malloc(b->n + 1);
    if (!s || !mark) {
        free(s);
        free(mark);
        return ts_fail(j->err, TS_NO_MEMORY, "%s: no memory for a text of %zu bytes", j->name,
                       b->n);
    }
    if (b->n) {
        memcpy(s, b->s, b->n);
        if (b->mark)
            memcpy(mark, b->mark, b->n);
        else
            memset(mark, b->from, b->n);
    }
    s[b->n] = 0;
    *out = (ts_jinja_text){s, mark, b->n};
    return TS_OK;
}

ts_status ts_jinja_render(const ts_jinja *t, const ts_jinja_input *in, ts_jinja_text *out,
                          ts_error *err)
{
    j_arena arena = {0};
    j_buf b = {0};
    j_run j = {.arena = &arena,
               .err = err,
               .name = t->name,
               .line = 1,
               .limits = in->limits,
               .t = t,
               .now = in->now,
               .out = &b};
    j.limits.steps = j.limits.steps ? j.limits.steps : DEFAULT_STEPS;
    j.limits.depth = j.limits.depth ? j.limits.depth : DEFAULT_DEPTH;
    j.limits.output = j.limits.output ? j.limits.output : DEFAULT_OUTPUT;
    j.limits.memory = j.limits.memory ? j.limits.memory : DEFAULT_MEMORY;
    if (j_guard(&j, run, in) == TS_OK)
        j.status = take(&j, &b, out);
    j_arena_free(&arena);
    return j.status;
}

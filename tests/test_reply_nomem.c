/* test_reply_nomem.c - answers read, and grammars of calls made, when memory runs out: each
 * allocation fails once, Jansson's too. The linker hands them over (--wrap, CMakeLists.txt). */
#include "refuse.h"
#include "reply_case.h"

/* --- reading --------------------------------------------------------------------------- */

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": "
    "\"integer\"}, \"list\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/n\"}}, \"e\": "
    "{\"enum\": [\"a\", 1]}, \"k\": {\"const\": \"b\"}}, \"$defs\": {\"n\": {\"type\": "
    "\"number\"}}, \"required\": [\"city\"]}}}, {\"function\": {\"name\": \"add\"}}]";

/* Parts into a text that doesn't grow: the receiver allocates nothing. */
typedef struct heard_still {
    char text[2000];
    size_t n;
} heard_still;

static ts_status take(void *user, const ts_reply_part *p, ts_error *err)
{
    heard_still *h = user;
    (void)err;
    h->n += (size_t)snprintf(h->text + h->n, sizeof h->text - h->n, "%d(%s%.*s)", (int)p->kind,
                             p->name ? p->name : "", (int)p->n, p->text ? p->text : "");
    return TS_OK;
}

typedef struct job {
    const ts_chat *c;
    const char *prompt, *answer; /* NULL: a grammar is made */
    heard_still want;
} job;

static ts_status read_answer(const job *j, heard_still *h, ts_error *err)
{
    ts_reply_options opt = {.tools = tools, .n_tools = sizeof tools - 1, .reasoning = true};
    ts_reply *r = NULL;
    size_t n = strlen(j->answer);
    ts_status st = ts_reply_open(&r, j->c, j->prompt, strlen(j->prompt), &opt, err);
    CHECK((st == TS_OK) == (r != NULL));
    for (size_t i = 0; !st && i < n; i++)
        st = ts_reply_push(r, j->answer + i, 1, i == n - 1, take, h, err);
    ts_reply_close(r);
    return st;
}

static ts_status make_grammar(const job *j, heard_still *h, ts_error *err)
{
    char *prefix = NULL, *gbnf = NULL;
    ts_status st = ts_reply_grammar(j->c, j->prompt, strlen(j->prompt), tools, sizeof tools - 1,
                                    NULL, true, &prefix, &gbnf, err);
    CHECK((st == TS_OK) == (prefix && gbnf) && (st == TS_OK || (!prefix && !gbnf)));
    if (st == TS_OK) {
        uint64_t hash = chat_fnv(gbnf, strlen(gbnf));
        h->n = (size_t)snprintf(h->text, sizeof h->text, "%s %zu %llx", prefix, strlen(gbnf),
                                (unsigned long long)hash);
    }
    free(prefix);
    free(gbnf);
    return st;
}

static ts_status do_job(const job *j, heard_still *h, ts_error *err)
{
    *h = (heard_still){0};
    return j->answer ? read_answer(j, h, err) : make_grammar(j, h, err);
}

static void refuse_each(job *j, long least)
{
    long k;
    ts_error none = {0};
    CHECK_MSG(do_job(j, &j->want, &none) == TS_OK, "%s", none.msg);
    for (k = 0; k < 100000; k++) {
        ts_error err = {0};
        heard_still h;
        countdown = k;
        ts_status st = do_job(j, &h, &err);
        bool refused = countdown < 0;
        countdown = -1;
        if (st == TS_OK)
            CHECK_MSG(strcmp(h.text, j->want.text) == 0, "allocation %ld: '%s' instead of '%s'", k,
                      h.text, j->want.text);
        if (st == TS_OK && !refused)
            break;
        CHECK_MSG(st == TS_OK ||
                      (err.code == st && st == TS_NO_MEMORY && strstr(err.msg, "no memory")),
                  "allocation %ld: status %d, '%s'", k, (int)st, err.msg);
        CHECK_MSG(st == TS_NO_MEMORY, "allocation %ld is refused and nobody says so", k);
    }
    CHECK_MSG(k >= least && k < 100000, "%ld allocations", k);
}

int main(void)
{
    static const struct {
        const char *tmpl, *prompt, *answer;
    } jobs[] = {
        {"{# <tool_call> #}", "<think>",
         "Hm. </think> \n Yes \xe4\xb8\xad\xff <tool_call>{\"arguments\": {\"city\": \"a\nb\"}, "
         "\"name\": \"look\"}</tool_call> <tool_call>{\"function\": {\"arguments\": "
         "\"{\\\"x\\\": [1]}\", \"name\": \"add\"}}</tool_call> <tool_call>{\"name\": \"add\"}"},
        {"{# <function= <parameter= #}", "",
         "a <tool_call><function=look><parameter=city>x\"y</parameter><parameter=list>[1, \"a\"]"
         "</parameter><parameter=days>3</parameter><parameter=e>True</parameter></function>"},
        {"{# <|tool_call_start|> #}", "",
         "<|tool_call_start|>[look(city='a\\u4e2d', list=[1, None], d={'x': True}), add()]"},
        {"{# [TOOL_CALLS] [ARGS] #}", "",
         "a[TOOL_CALLS]look[ARGS]{\"city\": \"x\"}[TOOL_CALLS]add[ARGS]{}"},
        {"{# <|channel|> <|message|> #}", "",
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary "
         "to=functions.look<|message|>{\"city\": \"x\"}<|call|>"},
        {"{# <tool_call> #}", "<think>", NULL},
        {"{# <function= <parameter= #}", "", NULL},
        {"{# ｜DSML｜ tool_calls #}", "", NULL},
        {"{# <|tool_call_start|> #}", "", NULL},
        {"{# [TOOL_CALLS] [ARGS] #}", "", NULL},
    };
    json_set_alloc_funcs(malloc, free);
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        talk t = talk_open(jobs[i].tmpl);
        job j = {.c = t.c, .prompt = jobs[i].prompt, .answer = jobs[i].answer};
        refuse_each(&j, jobs[i].answer ? 50 : 300);
        talk_close(&t);
    }
    return check_done("reply_nomem");
}

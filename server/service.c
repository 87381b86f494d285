/* service.c - a model as it is served. */
#include "service.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "engine.h"

uint64_t ts_random(void)
{
    uint64_t v = 0;
    /* 8 bytes come whole or, before the kernel has any, not at all */
    if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        v = (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u ^ (uint64_t)t.tv_sec;
    }
    return v;
}

void ts_make_id(char out[TS_ID_MAX], const char *prefix)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
    size_t n = strlen(prefix);
    memcpy(out, prefix, n);
    for (int word = 0; word < 3; word++) {
        uint64_t v = ts_random();
        for (int i = 0; i < 8; i++, v >>= 6)
            out[n++] = letters[v & 63];
    }
    out[n] = 0;
}

static char *copy(const char *s, size_t n)
{
    return memchr(s, 0, n) ? NULL : strndup(s, n);
}

/* The model's own name: general.name, or its file's without the folder. */
static char *own_name(const ts_service_options *o)
{
    ts_str name = {0};
    bool found = false;
    const char *base = strrchr(o->model_path, '/');
    if (ts_gguf_get_str(o->engine->g, "general.name", &name, &found, NULL) == TS_OK && found &&
        name.n > 0 && !memchr(name.s, 0, name.n))
        return strndup(name.s, name.n);
    return strdup(base ? base + 1 : o->model_path);
}

static bool set_names(ts_service *s)
{
    size_t n = s->o.n_names ? s->o.n_names : 1;
    s->names = ts_calloc(n, sizeof *s->names);
    if (!s->names)
        return false;
    for (; s->n_names < n; s->n_names++) {
        s->names[s->n_names] = s->o.n_names ? strdup(s->o.names[s->n_names]) : own_name(&s->o);
        if (!s->names[s->n_names])
            return false;
    }
    return true;
}

/* A server without a template still completes. */
static ts_status open_chat(ts_service *s, ts_error *err)
{
    ts_str text = {0};
    bool found = false;
    ts_error why = {0};
    ts_status st = ts_chat_open(&s->chat, s->engine, s->o.chat_template, &why);
    if (st == TS_UNSUPPORTED) {
        s->no_chat = why;
        return TS_OK;
    }
    if (st)
        return ts_fail(err, st, "%s", why.msg);
    if (s->o.chat_template)
        s->template_text = strdup(s->o.chat_template);
    else if (ts_gguf_get_str(s->engine->g, "tokenizer.chat_template", &text, &found, NULL) ==
                 TS_OK &&
             found)
        s->template_text = copy(text.s, text.n);
    return TS_OK;
}

ts_status ts_service_open(ts_service **out, const ts_service_options *o, ts_error *err)
{
    ts_service *s = ts_calloc(1, sizeof *s);
    if (!s)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the server");
    s->o = *o;
    s->engine = o->engine;
    s->sched = o->sched;
    s->started = time(NULL);
    ts_engine_get_info(s->engine, &s->info);
    snprintf(s->fingerprint, sizeof s->fingerprint, "tessera-%s-%s", ts_version(), s->info.isa);
    ts_status st =
        set_names(s) ? open_chat(s, err) : ts_fail(err, TS_NO_MEMORY, "no memory for the server");
    if (st) {
        ts_service_close(s);
        return st;
    }
    *out = s;
    return TS_OK;
}

void ts_service_close(ts_service *s)
{
    if (!s)
        return;
    ts_chat_close(s->chat);
    for (size_t i = 0; i < s->n_names; i++)
        free(s->names[i]);
    free(s->names);
    free(s->template_text);
    free(s);
}

bool ts_service_is(const ts_service *s, const char *model)
{
    for (size_t i = 0; i < s->n_names; i++)
        if (strcmp(s->names[i], model) == 0)
            return true;
    return false;
}

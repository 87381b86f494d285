/* chat_case.h - what the tests of templates share: files of tests/chat, the fixed time, FNV-1a. */
#ifndef TS_CHAT_CASE_H
#define TS_CHAT_CASE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../check.h"
#include "jinja/jinja.h"

/* oracle.py's time: 2025-07-04 15:07:09, a Friday. */
static const struct tm chat_now = {.tm_year = 125,
                                   .tm_mon = 6,
                                   .tm_mday = 4,
                                   .tm_hour = 15,
                                   .tm_min = 7,
                                   .tm_sec = 9,
                                   .tm_wday = 5,
                                   .tm_yday = 184};

/* A whole file, with a NUL behind it; NULL if it can't be read. */
static inline char *chat_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *s = malloc((size_t)size + 1);
    *n = s ? fread(s, 1, (size_t)size, f) : 0;
    fclose(f);
    if (s)
        s[*n] = 0;
    return s;
}

static inline char *chat_file(const char *name, size_t *n)
{
    char path[600];
    snprintf(path, sizeof path, "%s/chat/%s", TS_TEST_DIR, name);
    return chat_read(path, n);
}

/* Where scripts/fetch_templates.py has put a template. */
static inline bool chat_template_path(char *path, size_t n, const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int k;
    if (cache && *cache)
        k = snprintf(path, n, "%s/tessera/templates/%s", cache, name);
    else
        k = snprintf(path, n, "%s/.cache/tessera/templates/%s", home ? home : "", name);
    return k > 0 && (size_t)k < n;
}

static inline json_t *chat_json(const char *name)
{
    size_t n = 0;
    char *s = chat_file(name, &n);
    json_error_t e;
    json_t *v = s ? json_loadb(s, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &e) : NULL;
    if (!v)
        fprintf(stderr, "%s: %s\n", name, s ? e.text : "can't be read");
    free(s);
    return v;
}

/* What stands for bos_token and eos_token. */
static inline json_t *chat_tokens(void)
{
    return json_pack("{s:s, s:s}", "bos_token", "<bos>", "eos_token", "<eos>");
}

static inline uint64_t chat_fnv(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return h;
}

static inline void chat_text_free(ts_jinja_text *t)
{
    free(t->s);
    free(t->mark);
    *t = (ts_jinja_text){0};
}

/* Opens and renders in one; out is to be freed on TS_OK. */
static inline ts_status chat_render(const char *text, size_t n, const ts_jinja_input *in,
                                    ts_jinja_text *out, ts_error *err)
{
    ts_jinja *t = NULL;
    ts_status st = ts_jinja_open(&t, "T", text, n, err);
    if (st == TS_OK)
        st = ts_jinja_render(t, in, out, err);
    ts_jinja_close(t);
    return st;
}

#endif

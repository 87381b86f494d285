/* out.c - whole characters, and stop texts that may still come. */
#include "out.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* What ts_out_finish may add, for which there is always room. */
#define ROOM_TO_FINISH (3 * sizeof((ts_out *)0)->begun)

static ts_status init_stop(ts_stop *p, const char *s, ts_error *err)
{
    size_t n = strlen(s);
    if (n == 0)
        return ts_fail(err, TS_BAD_ARG, "a stop text is empty");
    if (ts_utf8_valid(s, n) < n)
        return ts_fail(err, TS_BAD_ARG, "a stop text is not UTF-8");
    p->s = strdup(s);
    p->n = n;
    p->back = ts_calloc(n, sizeof *p->back);
    if (!p->s || !p->back)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the stop texts");
    for (size_t i = 1, k = 0; i < n; i++) {
        while (k > 0 && s[i] != s[k])
            k = p->back[k - 1];
        k += s[i] == s[k];
        p->back[i] = k;
    }
    return TS_OK;
}

ts_status ts_out_init(ts_out *o, const char *const *stops, size_t n_stops, ts_error *err)
{
    *o = (ts_out){.s = malloc(256), .cap = 256, .stops = ts_calloc(n_stops, sizeof *o->stops)};
    if (!o->s || !o->stops)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the text");
    for (; o->n_stops < n_stops; o->n_stops++) {
        ts_status st = init_stop(&o->stops[o->n_stops], stops[o->n_stops], err);
        if (st) {
            o->n_stops++;
            return st;
        }
    }
    return TS_OK;
}

void ts_out_free(ts_out *o)
{
    for (size_t i = 0; i < o->n_stops; i++) {
        free(o->stops[i].s);
        free(o->stops[i].back);
    }
    free(o->stops);
    free(o->s);
    *o = (ts_out){0};
}

size_t ts_out_end(const ts_out *o)
{
    return o->before + o->n;
}

/* The text ends in one byte more: true if with it the text ends in the stop text. */
static bool follow(ts_stop *p, char c)
{
    while (p->at > 0 && p->s[p->at] != c)
        p->at = p->back[p->at - 1];
    p->at += p->s[p->at] == c;
    return p->at == p->n;
}

/* A whole character, for which there is room. */
static void put(ts_out *o, const char *s, size_t n)
{
    for (size_t i = 0; i < n && !o->stopped; i++) {
        size_t found = 0, held = 0;
        o->s[o->n++] = s[i];
        for (size_t k = 0; k < o->n_stops; k++) {
            ts_stop *p = &o->stops[k];
            if (follow(p, s[i]) && p->n > found)
                found = p->n;
            if (p->at > held)
                held = p->at;
        }
        if (found) {
            o->n -= found;
            o->stopped = true;
            held = 0;
        }
        o->ready = o->n - held;
    }
}

/* The bytes that are begun, as far as they are characters or never will be. */
static void put_begun(ts_out *o, bool all)
{
    while (o->n_begun > 0) {
        size_t n = ts_utf8_decode(o->begun, o->n_begun, NULL);
        if (n == 0 && !all && ts_utf8_tail(o->begun, o->n_begun) == o->n_begun)
            return;
        put(o, n ? o->begun : REPLACEMENT, n ? n : 3);
        n = n ? n : 1;
        o->n_begun -= n;
        memmove(o->begun, o->begun + n, o->n_begun);
    }
}

ts_status ts_out_add(ts_out *o, const char *s, size_t n, ts_error *err)
{
    size_t want; /* every byte may become a U+FFFD */
    if (ts_mul_overflow(n, 3, &want) || ts_add_overflow(want, o->n + ROOM_TO_FINISH, &want))
        return ts_fail(err, TS_NO_MEMORY, "no memory for a text of %zu bytes", n);
    if (want > o->cap) {
        char *p = realloc(o->s, 2 * want);
        if (!p)
            return ts_fail(err, TS_NO_MEMORY, "no memory for a text of %zu bytes", o->n + n);
        o->s = p;
        o->cap = 2 * want;
    }
    for (size_t i = 0; i < n; i++) {
        o->begun[o->n_begun++] = s[i];
        put_begun(o, false);
    }
    return TS_OK;
}

void ts_out_finish(ts_out *o)
{
    put_begun(o, true);
    o->ready = o->n;
}

void ts_out_given(ts_out *o)
{
    memmove(o->s, o->s + o->ready, o->n - o->ready);
    o->n -= o->ready;
    o->before += o->ready;
    o->ready = 0;
}

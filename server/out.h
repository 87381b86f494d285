/* out.h - the text of one generation on its way out: bytes to whole UTF-8 characters, and what may
 * become a stop text held back. */
#ifndef TS_OUT_H
#define TS_OUT_H

#include "base/status.h"

/* A stop text, found as Knuth, Morris and Pratt do: one step a byte, however it repeats itself. */
typedef struct ts_stop {
    char *s; /* [n] */
    size_t n;
    size_t *back; /* [n] how much of the beginning is left when byte i + 1 doesn't match */
    size_t at;    /* bytes of its beginning that the text ends in */
} ts_stop;

/* The first of the stop texts to be complete ends the text, before its first byte; of two that are
 * complete with the same byte the longer one. So it doesn't matter how the text was cut into
 * tokens. What isn't UTF-8 becomes U+FFFD, one for each byte. */
typedef struct ts_out {
    char *s; /* [n] whole characters that nobody has had yet */
    size_t n, cap;
    size_t ready;  /* of them: what may be given out */
    size_t before; /* bytes given out before s */
    char begun[4]; /* [n_begun] of a character whose rest is still to come */
    size_t n_begun;
    ts_stop *stops; /* [n_stops] */
    size_t n_stops;
    bool stopped; /* by a stop text; what comes after it is dropped */
} ts_out;

/* TS_BAD_ARG: a stop text is empty or not UTF-8; TS_NO_MEMORY. What there is is freed either way
 * by ts_out_free. */
ts_status ts_out_init(ts_out *o, const char *const *stops, size_t n_stops, ts_error *err);
void ts_out_free(ts_out *o);

/* Where the next byte's character will stand in all of the text. */
size_t ts_out_end(const ts_out *o);

/* Adds a token's bytes. TS_NO_MEMORY: none of them. */
ts_status ts_out_add(ts_out *o, const char *s, size_t n, ts_error *err);

/* Nothing more comes: all that is held back is ready. Needs no memory. */
void ts_out_finish(ts_out *o);

/* Drops what was ready. */
void ts_out_given(ts_out *o);

#endif

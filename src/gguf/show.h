/* show.h - bytes that a stranger wrote, made fit for a sentence on a terminal. */
#ifndef TS_SHOW_H
#define TS_SHOW_H

#include <stddef.h>

/* Room for what ts_show writes: TS_SHOW_MAX bytes, each at most "\xNN", then "..." and NUL. */
#define TS_SHOW_MAX 64

typedef struct ts_shown {
    char s[4 * TS_SHOW_MAX + 4];
} ts_shown;

/* Writes p[n] into *b: printable ASCII as it is, everything else as \xNN, cut with "..." after
 * TS_SHOW_MAX bytes. Returns b->s, so that it can stand among the arguments of ts_fail. */
const char *ts_show(ts_shown *b, const char *p, size_t n);

#endif

/* status.h - errors are values that carry a sentence. */
#ifndef TS_STATUS_H
#define TS_STATUS_H

#include "tessera.h"

#define TS_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Writes the sentence into *err (unless NULL) and returns code, so that the deepest function can
 * `return ts_fail(err, TS_BAD_FILE, "%s: ...", path)`. Too long a sentence is cut with "...". */
ts_status ts_fail(ts_error *err, ts_status code, const char *fmt, ...) TS_PRINTF(3, 4);

#endif

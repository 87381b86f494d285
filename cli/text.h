/* text.h - reading a prompt or a text to score. */
#ifndef TS_CLI_TEXT_H
#define TS_CLI_TEXT_H

#include "base/status.h"

/* The bytes of a file, or of standard input for "-". *out is allocated (free), never NULL, and has
 * a NUL behind its *n bytes. TS_IO, TS_NO_MEMORY, TS_BAD_ARG (more than 1 GiB). */
ts_status text_read(const char *path, char **out, size_t *n, ts_error *err);

#endif

/* line.h - what somebody says: from a terminal with editing and history, or line by line from
 * anything else.
 *
 * A line that ends in \ goes on on the next one. Three double quotes begin a block that ends at the
 * next line that ends in three: everything between is one text, with its line breaks. */
#ifndef TS_CLI_LINE_H
#define TS_CLI_LINE_H

#include "base/mem.h"

typedef struct line_reader line_reader;

/* prompt: before each text on a terminal; what stands between two bytes of 1 takes no room there
 * (colours). It must outlive the reader. */
ts_status line_open(line_reader **out, const char *prompt, ts_error *err);
void line_close(line_reader *r);

/* True where stdin and stderr are a terminal: there is editing, and a prompt. */
bool line_is_terminal(const line_reader *r);

typedef enum line_end { LINE_TEXT, LINE_EOF, LINE_INTERRUPTED } line_end;

/* The next text into *out (emptied first), without its last line break; *block: it was given
 * between quotes. LINE_INTERRUPTED: Ctrl-C when nothing was typed; when something was, it is
 * dropped and asked for again. TS_IO, TS_NO_MEMORY, TS_BAD_ARG (more than 16 MiB, or no UTF-8). */
ts_status line_read(line_reader *r, ts_sb *out, bool *block, line_end *end, ts_error *err);

#endif

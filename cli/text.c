/* text.c - reading a prompt or a text to score. */
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define MOST ((size_t)1 << 30)

static ts_status read_all(FILE *f, const char *name, ts_sb *b, ts_error *err)
{
    char buf[1 << 16];
    size_t got;

    ts_sb_add(b, "", 0);
    while ((got = fread(buf, 1, sizeof buf, f)) > 0) {
        if (b->n + got > MOST)
            return ts_fail(err, TS_BAD_ARG, "%s: the text is larger than 1 GiB", name);
        ts_sb_add(b, buf, got);
    }
    if (ferror(f))
        return ts_fail(err, TS_IO, "%s: cannot be read: %s", name, strerror(errno));
    if (b->failed)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for the text", name);
    return TS_OK;
}

ts_status text_read(const char *path, char **out, size_t *n, ts_error *err)
{
    bool from_stdin = !strcmp(path, "-");
    FILE *f = from_stdin ? stdin : fopen(path, "rb");
    ts_sb b = {0};

    if (!f)
        return ts_fail(err, TS_IO, "%s: cannot be opened: %s", path, strerror(errno));
    ts_status st = read_all(f, from_stdin ? "standard input" : path, &b, err);
    if (!from_stdin)
        fclose(f);
    if (st) {
        ts_sb_free(&b);
        return st;
    }
    *out = b.s;
    *n = b.n;
    return TS_OK;
}

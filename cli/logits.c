/* logits.c - files of saved log-probabilities: see logits.h. */
#include "logits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define MAGIC "TSLOGITS"

enum { VERSION = 1, HEADER_BYTES = 32, ROW_BYTES = 16 };

/* Nats below the most probable token that are told apart. */
#define SPAN 24.0f

struct logits_file {
    FILE *f;
    char *path, *part; /* part: the name until committed; NULL when there is none to remove */
    uint32_t n_vocab;
    uint8_t *record;
    size_t record_bytes;
};

uint64_t logits_hash(const ts_token *ids, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 4; b++)
            h = (h ^ ((uint32_t)ids[i] >> (8 * b) & 0xff)) * 0x100000001b3u;
    return h;
}

static size_t record_bytes(uint32_t n_vocab)
{
    return ROW_BYTES + ((size_t)n_vocab * 2 + 3) / 4 * 4;
}

static ts_status prepare(logits_file *f, const char *path, uint32_t n_vocab, ts_error *err)
{
    f->path = strdup(path);
    f->n_vocab = n_vocab;
    f->record_bytes = record_bytes(n_vocab);
    f->record = ts_calloc(f->record_bytes, 1);
    if (!f->path || !f->record)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for a row of logits", path);
    return TS_OK;
}

void logits_close(logits_file *f)
{
    if (!f)
        return;
    if (f->f)
        fclose(f->f);
    if (f->part)
        unlink(f->part);
    free(f->part);
    free(f->path);
    free(f->record);
    free(f);
}

/* --- writing ------------------------------------------------------------ */

static ts_status fail_write(const logits_file *f, ts_error *err)
{
    return ts_fail(err, TS_IO, "%s: cannot be written: %s", f->path, strerror(errno));
}

/* A device or a pipe is written to; a file that is there already stays until the new one is whole.
 */
static ts_status create_file(logits_file *f, ts_error *err)
{
    struct stat sb;
    ts_sb part = {0};

    if (stat(f->path, &sb) == 0 && !S_ISREG(sb.st_mode)) {
        f->f = fopen(f->path, "wb");
        return f->f ? TS_OK : fail_write(f, err);
    }
    ts_sb_printf(&part, "%s.part", f->path);
    if (part.failed)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for its name", f->path);
    f->f = fopen(part.s, "wb");
    if (!f->f) {
        ts_sb_free(&part);
        return fail_write(f, err);
    }
    f->part = part.s;
    return TS_OK;
}

static ts_status create(logits_file *f, const char *path, const logits_header *h, ts_error *err)
{
    uint8_t head[HEADER_BYTES];
    uint32_t version = VERSION;
    ts_status st = prepare(f, path, h->n_vocab, err);

    if (!st)
        st = create_file(f, err);
    if (st)
        return st;
    memcpy(head, MAGIC, 8);
    memcpy(head + 8, &version, 4);
    memcpy(head + 12, &h->n_vocab, 4);
    memcpy(head + 16, &h->n_ctx, 4);
    memcpy(head + 20, &h->n_chunks, 4);
    memcpy(head + 24, &h->tokens_hash, 8);
    if (fwrite(head, HEADER_BYTES, 1, f->f) != 1)
        return fail_write(f, err);
    return TS_OK;
}

ts_status logits_create(logits_file **out, const char *path, const logits_header *h, ts_error *err)
{
    logits_file *f = ts_calloc(1, sizeof *f);

    if (!f)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory to write it", path);
    ts_status st = create(f, path, h, err);
    if (st)
        logits_close(f);
    else
        *out = f;
    return st;
}

ts_status logits_write(logits_file *f, const logits_row *row, ts_error *err)
{
    float top = row->log_p[row->best], low = top;
    uint8_t *q = f->record + ROW_BYTES;

    for (uint32_t i = 0; i < f->n_vocab; i++)
        if (row->log_p[i] < low)
            low = row->log_p[i];
    if (low < top - SPAN)
        low = top - SPAN;
    float step = (top - low) / 65535, inv = step > 0 ? 1 / step : 0;
    memcpy(f->record, &top, 4);
    memcpy(f->record + 4, &step, 4);
    memcpy(f->record + 8, &row->log_p_next, 4);
    memcpy(f->record + 12, &row->best, 4);
    for (uint32_t i = 0; i < f->n_vocab; i++) {
        float x = (top - row->log_p[i]) * inv + 0.5f;
        uint16_t v = x >= 65535 ? 65535 : x > 0 ? (uint16_t)x : 0; /* NaN: 0 */
        memcpy(q + 2 * (size_t)i, &v, 2);
    }
    if (fwrite(f->record, f->record_bytes, 1, f->f) != 1)
        return fail_write(f, err);
    return TS_OK;
}

ts_status logits_commit(logits_file *f, ts_error *err)
{
    FILE *file = f->f;

    f->f = NULL;
    if (fclose(file) != 0 || (f->part && rename(f->part, f->path) != 0))
        return fail_write(f, err);
    free(f->part);
    f->part = NULL;
    return TS_OK;
}

/* --- reading ------------------------------------------------------------ */

static ts_status check_header(const logits_file *f, const char *path, const uint8_t *head,
                              logits_header *h, ts_error *err)
{
    uint32_t version;
    struct stat sb;

    memcpy(&version, head + 8, 4);
    memcpy(&h->n_vocab, head + 12, 4);
    memcpy(&h->n_ctx, head + 16, 4);
    memcpy(&h->n_chunks, head + 20, 4);
    memcpy(&h->tokens_hash, head + 24, 8);
    if (memcmp(head, MAGIC, 8) != 0)
        return ts_fail(err, TS_BAD_FILE, "%s is not a file of logits that --save-logits wrote",
                       path);
    if (version != VERSION)
        return ts_fail(err, TS_UNSUPPORTED,
                       "%s: logits of version %u; this program reads version %d", path, version,
                       VERSION);
    if (h->n_vocab < 1 || h->n_vocab > 1u << 28 || h->n_ctx < 8 || h->n_ctx > 1u << 30 ||
        h->n_chunks < 1)
        return ts_fail(err, TS_BAD_FILE, "%s: header with n_vocab %u, n_ctx %u, n_chunks %u", path,
                       h->n_vocab, h->n_ctx, h->n_chunks);
    /* At most 2^32 * 2^29 records: their number fits, their bytes need not. */
    uint64_t records = (uint64_t)h->n_chunks * (uint64_t)logits_rows(h->n_ctx), bytes;
    if (ts_mul_overflow(records, (uint64_t)record_bytes(h->n_vocab), &bytes) ||
        ts_add_overflow(bytes, (uint64_t)HEADER_BYTES, &bytes))
        return ts_fail(err, TS_BAD_FILE, "%s: header with n_vocab %u, n_ctx %u, n_chunks %u", path,
                       h->n_vocab, h->n_ctx, h->n_chunks);
    if (fstat(fileno(f->f), &sb) != 0)
        return ts_fail(err, TS_IO, "%s: cannot be read: %s", path, strerror(errno));
    if ((uint64_t)sb.st_size != bytes)
        return ts_fail(err, TS_BAD_FILE, "%s: %lld bytes long, but its header asks for %llu", path,
                       (long long)sb.st_size, (unsigned long long)bytes);
    return TS_OK;
}

static ts_status open_read(logits_file *f, const char *path, logits_header *h, ts_error *err)
{
    uint8_t head[HEADER_BYTES];

    f->f = fopen(path, "rb");
    if (!f->f)
        return ts_fail(err, TS_IO, "%s: cannot be opened: %s", path, strerror(errno));
    errno = 0;
    if (fread(head, HEADER_BYTES, 1, f->f) != 1) {
        if (errno)
            return ts_fail(err, TS_IO, "%s: cannot be read: %s", path, strerror(errno));
        return ts_fail(err, TS_BAD_FILE, "%s is not a file of logits that --save-logits wrote",
                       path);
    }
    ts_status st = check_header(f, path, head, h, err);
    return st ? st : prepare(f, path, h->n_vocab, err);
}

ts_status logits_open(logits_file **out, const char *path, logits_header *h, ts_error *err)
{
    logits_file *f = ts_calloc(1, sizeof *f);

    if (!f)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory to read it", path);
    ts_status st = open_read(f, path, h, err);
    if (st)
        logits_close(f);
    else
        *out = f;
    return st;
}

ts_status logits_read(logits_file *f, logits_row *row, ts_error *err)
{
    float top, step;
    const uint8_t *q = f->record + ROW_BYTES;

    if (fread(f->record, f->record_bytes, 1, f->f) != 1)
        return ts_fail(err, TS_IO, "%s: cannot be read: %s", f->path,
                       feof(f->f) ? "it ended early" : strerror(errno));
    memcpy(&top, f->record, 4);
    memcpy(&step, f->record + 4, 4);
    memcpy(&row->log_p_next, f->record + 8, 4);
    memcpy(&row->best, f->record + 12, 4);
    for (uint32_t i = 0; i < f->n_vocab; i++) {
        uint16_t v;
        memcpy(&v, q + 2 * (size_t)i, 2);
        row->log_p[i] = top - step * v;
    }
    return TS_OK;
}

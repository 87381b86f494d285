/* logits.h - files of saved log-probabilities, for comparing two runs over the same text.
 *
 * Little-endian:
 *
 *     offset  size
 *     0       8     "TSLOGITS"
 *     8       4     version, 1
 *     12      4     n_vocab
 *     16      4     n_ctx, tokens in a chunk
 *     20      4     n_chunks
 *     24      8     hash of the n_chunks * n_ctx tokens (FNV-1a over their ids, four bytes each)
 *     32            n_chunks * rows records, rows = n_ctx - 1 - n_ctx / 2 (the scored half of a
 * chunk)
 *
 *     a record: 4   float: the largest log-probability
 *               4   float: step
 *               4   float: log-probability of the token that really follows
 *               4   id of the most probable token (of equals, the lowest)
 *               2 * n_vocab  q: log p = largest - step * q
 *               0 or 2       zeros, to a multiple of 4
 *
 * q spans 24 nats below the largest (or all there is, if less): what is less probable than that
 * together weighs less than 1e-4 in any vocabulary, and half a step is 1.8e-4 nats. */
#ifndef TS_CLI_LOGITS_H
#define TS_CLI_LOGITS_H

#include "base/status.h"

typedef struct logits_header {
    uint32_t n_vocab, n_ctx, n_chunks;
    uint64_t tokens_hash;
} logits_header;

/* Rows of a chunk that are scored and saved. */
static inline int64_t logits_rows(int64_t n_ctx)
{
    return n_ctx - 1 - n_ctx / 2;
}

uint64_t logits_hash(const ts_token *ids, size_t n);

/* One distribution. log_p is [n_vocab]. */
typedef struct logits_row {
    float *log_p;
    float log_p_next;
    ts_token best;
} logits_row;

typedef struct logits_file logits_file;

/* Writes to PATH.part, which logits_commit renames to PATH. */
ts_status logits_create(logits_file **out, const char *path, const logits_header *h, ts_error *err);
ts_status logits_write(logits_file *f, const logits_row *row, ts_error *err);
ts_status logits_commit(logits_file *f, ts_error *err); /* the file is complete */

/* Checks the header and that the file is exactly as long as it says. */
ts_status logits_open(logits_file **out, const char *path, logits_header *h, ts_error *err);
ts_status logits_read(logits_file *f, logits_row *row, ts_error *err); /* fills row->log_p */

/* Frees; a file being written and not committed leaves nothing behind. NULL is fine. */
void logits_close(logits_file *f);

#endif

/* writer.h - writes a GGUF v3 file: metadata first, then tensor data in any order, by any threads.
 *
 *     open, put metadata, declare tensors, begin, write data, finish, close
 *
 * Only the metadata is held in memory. The file grows under a temporary name beside `path` and is
 * renamed by finish: a failure or a close without finish leaves nothing, and a file that stood at
 * `path` before stays as it was. */
#ifndef TS_WRITER_H
#define TS_WRITER_H

#include "gguf/gguf.h"

typedef struct ts_writer ts_writer;

/* TS_BAD_ARG when path names something that isn't a regular file, TS_IO, TS_NO_MEMORY. */
ts_status ts_writer_open(ts_writer **out, const char *path, ts_error *err);
void ts_writer_close(ts_writer *w);

/* One metadata key each, in the order of the calls; names are not checked for duplicates. Short
 * memory is reported by ts_writer_begin. */
void ts_writer_u32(ts_writer *w, const char *key, uint32_t v);
void ts_writer_f32(ts_writer *w, const char *key, float v);
void ts_writer_bool(ts_writer *w, const char *key, bool v);
void ts_writer_str(ts_writer *w, const char *key, const char *s);
/* Elements of a fixed-size type, n of them at p. */
void ts_writer_arr(ts_writer *w, const char *key, ts_gguf_type type, const void *p, uint64_t n);
/* An array of n strings: this, then n times ts_writer_elem. */
void ts_writer_strs(ts_writer *w, const char *key, uint64_t n);
void ts_writer_elem(ts_writer *w, const char *s, size_t n);

/* Declares a tensor of n_dims (1..4) dimensions, ne[0] a multiple of the type's block. Its number
 * is the count of those declared before. */
void ts_writer_tensor(ts_writer *w, const char *name, ts_type type, int n_dims, const int64_t *ne);

/* Writes the metadata and gives the file its size (padding and data not yet written read as zeros).
 */
ts_status ts_writer_begin(ts_writer *w, ts_error *err);
uint64_t ts_writer_file_bytes(const ts_writer *w); /* after begin */

/* Writes n bytes at byte `off` of a tensor's data. Threads may write at once. */
ts_status ts_writer_data(ts_writer *w, size_t tensor, uint64_t off, const void *p, size_t n,
                         ts_error *err);

/* Puts the file in its place. */
ts_status ts_writer_finish(ts_writer *w, ts_error *err);

#endif

/* writer.c - GGUF v3 files, written under a temporary name.
 *
 * Owns the metadata while it is put together and the open file. The layout that begin fixes:
 *
 *     "GGUF" version n_tensors n_kv | keys and values | tensor infos | pad | data pad data pad ...
 */
#include "gguf/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { ALIGN = 32 };

struct ts_writer {
    char *path; /* where the file will stand                                    */
    char *temp; /* where it grows; NULL once renamed                            */
    int fd;
    ts_sb kv, info; /* encoded metadata and tensor infos                            */
    uint64_t n_kv;  /* keys in kv                                                   */
    uint64_t *at;   /* [n_tensors] offset of each tensor: in the data, after begin in the file */
    size_t n_tensors, cap; /* used and allocated elements of at                            */
    uint64_t data_bytes;   /* of all tensors, each padded                                  */
    uint64_t file_bytes;   /* 0 before begin                                               */
    bool failed;           /* memory was short while declaring tensors                     */
};

static uint64_t padded(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* --- opening and closing ------------------------------------------------ */

/* The path to write to: what a symbolic link points at, so that the link stays. */
static ts_status resolve(const char *path, char **out, ts_error *err)
{
    struct stat st;
    char *real;
    if (path[0] == 0)
        return ts_fail(err, TS_BAD_ARG, "the output file's name is empty");
    if (lstat(path, &st) != 0) {
        if (errno != ENOENT)
            return ts_fail(err, TS_IO, "%s: cannot write: %s", path, strerror(errno));
        real = strdup(path);
    } else {
        real = realpath(path, NULL);
        if (!real && errno != ENOMEM)
            return ts_fail(err, TS_IO, "%s: cannot follow the link: %s", path, strerror(errno));
        if (real && stat(real, &st) == 0 && !S_ISREG(st.st_mode)) {
            free(real);
            return ts_fail(err, TS_BAD_ARG, "%s: cannot write a model here: it is %s", path,
                           S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        }
    }
    if (!real)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for the name", path);
    *out = real;
    return TS_OK;
}

static ts_status create_temp(ts_writer *w, ts_error *err)
{
    size_t n = strlen(w->path) + 48;
    w->temp = malloc(n);
    if (!w->temp)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for the name", w->path);
    for (int i = 0; i < 1000; i++) {
        snprintf(w->temp, n, "%s.part-%ld-%d", w->path, (long)getpid(), i);
        w->fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0)
            return TS_OK;
        if (errno != EEXIST)
            break;
    }
    ts_status st = ts_fail(err, TS_IO, "%s: cannot create the file: %s", w->path, strerror(errno));
    free(w->temp);
    w->temp = NULL;
    return st;
}

ts_status ts_writer_open(ts_writer **out, const char *path, ts_error *err)
{
    ts_writer *w = ts_calloc(1, sizeof *w);
    if (!w)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for a writer", path);
    w->fd = -1;
    ts_status st = resolve(path, &w->path, err);
    if (st == TS_OK)
        st = create_temp(w, err);
    if (st != TS_OK) {
        ts_writer_close(w);
        return st;
    }
    *out = w;
    return TS_OK;
}

void ts_writer_close(ts_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temp)
        unlink(w->temp);
    free(w->temp);
    free(w->path);
    free(w->at);
    ts_sb_free(&w->kv);
    ts_sb_free(&w->info);
    free(w);
}

/* --- metadata ----------------------------------------------------------- */

static void put_u32(ts_sb *b, uint32_t v)
{
    ts_sb_add(b, &v, sizeof v);
}

static void put_u64(ts_sb *b, uint64_t v)
{
    ts_sb_add(b, &v, sizeof v);
}

static void put_str(ts_sb *b, const char *s, size_t n)
{
    put_u64(b, n);
    ts_sb_add(b, s, n);
}

static void put_key(ts_writer *w, const char *key, ts_gguf_type type)
{
    put_str(&w->kv, key, strlen(key));
    put_u32(&w->kv, type);
    w->n_kv++;
}

void ts_writer_u32(ts_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, TS_GGUF_U32);
    put_u32(&w->kv, v);
}

void ts_writer_f32(ts_writer *w, const char *key, float v)
{
    put_key(w, key, TS_GGUF_F32);
    ts_sb_add(&w->kv, &v, sizeof v);
}

void ts_writer_bool(ts_writer *w, const char *key, bool v)
{
    put_key(w, key, TS_GGUF_BOOL);
    ts_sb_add(&w->kv, &(uint8_t){v}, 1);
}

void ts_writer_str(ts_writer *w, const char *key, const char *s)
{
    put_key(w, key, TS_GGUF_STR);
    put_str(&w->kv, s, strlen(s));
}

void ts_writer_arr(ts_writer *w, const char *key, ts_gguf_type type, const void *p, uint64_t n)
{
    static const uint8_t size[] = {
        [TS_GGUF_U8] = 1,  [TS_GGUF_I8] = 1,  [TS_GGUF_U16] = 2, [TS_GGUF_I16] = 2,
        [TS_GGUF_U32] = 4, [TS_GGUF_I32] = 4, [TS_GGUF_F32] = 4, [TS_GGUF_BOOL] = 1,
        [TS_GGUF_U64] = 8, [TS_GGUF_I64] = 8, [TS_GGUF_F64] = 8,
    };
    put_key(w, key, TS_GGUF_ARR);
    put_u32(&w->kv, type);
    put_u64(&w->kv, n);
    ts_sb_add(&w->kv, p, (size_t)n * size[type]);
}

void ts_writer_strs(ts_writer *w, const char *key, uint64_t n)
{
    put_key(w, key, TS_GGUF_ARR);
    put_u32(&w->kv, TS_GGUF_STR);
    put_u64(&w->kv, n);
}

void ts_writer_elem(ts_writer *w, const char *s, size_t n)
{
    put_str(&w->kv, s, n);
}

/* --- tensors ------------------------------------------------------------ */

void ts_writer_tensor(ts_writer *w, const char *name, ts_type type, int n_dims, const int64_t *ne)
{
    if (w->n_tensors == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        uint64_t *at = realloc(w->at, cap * sizeof *at);
        if (!at) {
            w->failed = true;
            return;
        }
        w->at = at;
        w->cap = cap;
    }
    uint64_t bytes = ts_row_bytes(ts_type_get(type), ne[0]);
    put_str(&w->info, name, strlen(name));
    put_u32(&w->info, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) {
        put_u64(&w->info, (uint64_t)ne[i]);
        if (i > 0)
            bytes *= (uint64_t)ne[i];
    }
    put_u32(&w->info, type);
    put_u64(&w->info, w->data_bytes);
    w->at[w->n_tensors++] = w->data_bytes;
    w->data_bytes += padded(bytes);
}

static ts_status write_at(ts_writer *w, const void *p, size_t n, uint64_t off, ts_error *err)
{
    const char *s = p;
    while (n > 0) {
        ssize_t k = pwrite(w->fd, s, n, (off_t)off);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return ts_fail(err, TS_IO, "%s: cannot write %llu bytes: %s", w->path,
                           (unsigned long long)w->file_bytes, strerror(k < 0 ? errno : EIO));
        s += k;
        n -= (size_t)k;
        off += (uint64_t)k;
    }
    return TS_OK;
}

ts_status ts_writer_begin(ts_writer *w, ts_error *err)
{
    ts_sb head = {0};
    ts_sb_add(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, w->n_tensors);
    put_u64(&head, w->n_kv);
    if (w->failed || w->kv.failed || w->info.failed || head.failed) {
        ts_sb_free(&head);
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for the metadata", w->path);
    }
    uint64_t start = padded(head.n + w->kv.n + w->info.n);
    w->file_bytes = start + w->data_bytes;
    for (size_t i = 0; i < w->n_tensors; i++)
        w->at[i] += start;
    ts_status st = TS_OK;
    if (ftruncate(w->fd, (off_t)w->file_bytes) != 0)
        st = ts_fail(err, TS_IO, "%s: cannot write %llu bytes: %s", w->path,
                     (unsigned long long)w->file_bytes, strerror(errno));
    if (st == TS_OK)
        st = write_at(w, head.s, head.n, 0, err);
    if (st == TS_OK)
        st = write_at(w, w->kv.s, w->kv.n, head.n, err);
    if (st == TS_OK)
        st = write_at(w, w->info.s, w->info.n, head.n + w->kv.n, err);
    ts_sb_free(&head);
    return st;
}

uint64_t ts_writer_file_bytes(const ts_writer *w)
{
    return w->file_bytes;
}

ts_status ts_writer_data(ts_writer *w, size_t tensor, uint64_t off, const void *p, size_t n,
                         ts_error *err)
{
    return write_at(w, p, n, w->at[tensor] + off, err);
}

ts_status ts_writer_finish(ts_writer *w, ts_error *err)
{
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0)
        return ts_fail(err, TS_IO, "%s: cannot write: %s", w->path, strerror(errno));
    if (rename(w->temp, w->path) != 0)
        return ts_fail(err, TS_IO, "%s: cannot put the finished file in place: %s", w->path,
                       strerror(errno));
    free(w->temp);
    w->temp = NULL;
    return TS_OK;
}

/* gguf.c - a model's files: found, mapped, put together, looked up, closed.
 *
 * A split model is PREFIX-00001-of-0000N.gguf ... PREFIX-0000N-of-0000N.gguf. Every shard says
 * which it is (split.no, from 0) and how many there are (split.count); the first carries the
 * metadata of the model. Whichever is named, all are opened, in order.
 *
 * A file that is truncated while it is mapped ends the process with SIGBUS when its lost pages
 * are touched: the kernel offers no other answer to a reader of a mapping, so whoever replaces a
 * model does it by renaming. */
#include "gguf/gguf_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

/* Where shards come from: the file system, or memory (files != NULL). */
typedef struct source {
    const ts_str *files;
    size_t n_files;
} source;

/* --- one file ----------------------------------------------------------- */

static void unload(gguf_shard *s)
{
    if (s->mapped)
        munmap((void *)(uintptr_t)s->data, s->size);
    free(s->path);
    *s = (gguf_shard){0};
}

static uint64_t stamp_of(const struct stat *sb)
{
    /* Not st_dev: many file systems get another number at every start of the machine. */
    uint64_t v[] = {(uint64_t)sb->st_ino,         (uint64_t)sb->st_size,
                    (uint64_t)sb->st_mtim.tv_sec, (uint64_t)sb->st_mtim.tv_nsec,
                    (uint64_t)sb->st_ctim.tv_sec, (uint64_t)sb->st_ctim.tv_nsec};
    return ts_hash64(v, sizeof v, 0);
}

static ts_status map_fd(gguf_shard *s, int fd, ts_error *err)
{
    struct stat sb;
    if (fstat(fd, &sb))
        return ts_fail(err, TS_IO, "%s: %s", s->label, strerror(errno));
    if (S_ISDIR(sb.st_mode))
        return ts_fail(err, TS_IO, "%s: this is a directory, not a GGUF file", s->label);
    if (!S_ISREG(sb.st_mode))
        return ts_fail(err, TS_IO, "%s: this is no regular file, so it can't be mapped", s->label);
    s->size = (size_t)sb.st_size;
    s->stamp = stamp_of(&sb);
    if (s->size == 0) /* can't be mapped; the reader says what is wrong with it */
        return TS_OK;
    void *p = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return ts_fail(err, TS_IO, "%s: mapping %zu bytes: %s", s->label, s->size, strerror(errno));
    s->data = p;
    s->mapped = true;
    return TS_OK;
}

/* *s holds nothing after an error. `part` says which shard it is, "" for a single file. */
static ts_status load(gguf_shard *s, const source *src, size_t i, const char *path,
                      const char *part, ts_error *err)
{
    size_t n = strlen(path);
    size_t cut = n > sizeof s->label - 1 ? n - (sizeof s->label - 4) : 0;
    *s = (gguf_shard){.path = strdup(path)};
    snprintf(s->label, sizeof s->label, "%s%s", cut ? "..." : "", path + cut);
    if (!s->path)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory", s->label);
    if (src->files) {
        ts_str f = i < src->n_files ? src->files[i] : (ts_str){0};
        s->data = (const uint8_t *)f.s;
        s->size = f.n;
        return TS_OK;
    }
    /* Non-blocking: opening a FIFO must not wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ts_status st = fd < 0 ? ts_fail(err, TS_IO, "%s: %s%s", s->label, strerror(errno), part)
                          : map_fd(s, fd, err);
    if (fd >= 0)
        close(fd);
    if (st)
        unload(s);
    return st;
}

/* --- shards ------------------------------------------------------------- */

typedef struct split {
    int64_t no, count; /* 0 and 1 for a model in one file */
    int64_t n_tensors; /* of all shards; -1 = not said    */
} split;

static ts_status read_split(const gguf_meta *m, const gguf_shard *s, split *out, ts_error *err)
{
    ts_status st;
    const char *file = s->label;
    *out = (split){.count = 1, .n_tensors = -1};
    if ((st = gguf_meta_get_int(m, file, "split.count", 0, UINT16_MAX, &out->count, NULL, err)) ||
        (st = gguf_meta_get_int(m, file, "split.no", 0, UINT16_MAX, &out->no, NULL, err)) ||
        (st = gguf_meta_get_int(m, file, "split.tensors.count", 0, INT32_MAX, &out->n_tensors, NULL,
                                err)))
        return st;
    if (out->count == 0) /* some writers mean a single file by it */
        out->count = 1;
    if (out->no >= out->count)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: key 'split.no' is %" PRId64 ", but key 'split.count' is %" PRId64, file,
                       out->no, out->count);
    return TS_OK;
}

static ts_status check_shard(const split *sp, const split *want, const gguf_shard *s, ts_error *err)
{
    static const char fmt[] = "%s: key '%s' is %" PRId64 ", but it must be %" PRId64
                              " in shard %" PRId64 " of this model";
    const char *file = s->label;
    int64_t nth = want->no + 1;
    if (sp->count != want->count)
        return ts_fail(err, TS_BAD_FILE, fmt, file, "split.count", sp->count, want->count, nth);
    if (sp->no != want->no)
        return ts_fail(err, TS_BAD_FILE, fmt, file, "split.no", sp->no, want->no, nth);
    if (sp->n_tensors >= 0 && want->n_tensors >= 0 && sp->n_tensors != want->n_tensors)
        return ts_fail(err, TS_BAD_FILE, fmt, file, "split.tensors.count", sp->n_tensors,
                       want->n_tensors, nth);
    return TS_OK;
}

/* What a shard's name ends in; always SUFFIX bytes, so one name turns into another in place. */
enum { SUFFIX = sizeof "-00001-of-00002.gguf" - 1 };

static void set_suffix(char *end, int64_t no, int64_t count)
{
    char buf[64];
    snprintf(buf, sizeof buf, "-%05" PRId64 "-of-%05" PRId64 ".gguf", no + 1, count);
    memcpy(end, buf, SUFFIX); /* count has at most five digits (read_split) */
}

/* The end of the name of the shard that was named. It says that it is sp->no of sp->count, and its
 * name must say so too: the names of the others follow from it. */
static ts_status find_suffix(char *path, const source *src, const gguf_shard *s, const split *sp,
                             char **end, ts_error *err)
{
    char want[SUFFIX + 1] = {0};
    set_suffix(want, sp->no, sp->count);
    size_t n = strlen(path);
    if (n < SUFFIX || (!src->files && memcmp(path + n - SUFFIX, want, SUFFIX) != 0))
        return ts_fail(err, TS_BAD_FILE,
                       "%s: shard %" PRId64 " of %" PRId64
                       " of a split model: its name must end in '%s' for the others to be found",
                       s->label, sp->no + 1, sp->count, want);
    *end = path + n - SUFFIX;
    return TS_OK;
}

/* One file up to its tensor table. */
static ts_status open_shard(gguf_shard *s, gguf_meta *m, gguf_reader *r, split *sp,
                            const source *src, const char *path, const split *want, ts_error *err)
{
    char part[64] = "";
    if (want)
        snprintf(part, sizeof part, " (shard %" PRId64 " of %" PRId64 " of a split model)",
                 want->no + 1, want->count);
    ts_status st;
    if ((st = load(s, src, want ? (size_t)want->no : 0, path, part, err)) ||
        (st = gguf_read_meta(r, s, m, err)) || (st = read_split(m, s, sp, err)))
        return st;
    return want ? check_shard(sp, want, s, err) : TS_OK;
}

/* Shards after the first: their metadata is only compared. */
static ts_status open_others(ts_gguf *g, const source *src, char *path, char *end, split *want,
                             ts_error *err)
{
    ts_status st = TS_OK;
    for (want->no = 1; want->no < want->count && !st; want->no++) {
        gguf_reader r;
        gguf_meta m = {0};
        split sp;
        set_suffix(end, want->no, want->count);
        st = open_shard(&g->shards[want->no], &m, &r, &sp, src, path, want, err);
        g->n_shards++;
        if (!st)
            st = gguf_read_tensors(&r, g, (int)want->no);
        gguf_meta_free(&m);
    }
    if (!st && want->n_tensors >= 0 && (uint64_t)want->n_tensors != g->n_tensors)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: key 'split.tensors.count' is %" PRId64
                       ", but the shards hold %zu tensors",
                       g->shards[0].label, want->n_tensors, g->n_tensors);
    return st;
}

/* path is this function's to write into. */
static ts_status open_all(ts_gguf *g, const source *src, char *path, ts_error *err)
{
    gguf_shard *s = &g->shards[0];
    gguf_reader r;
    split sp;
    char *end = NULL;
    ts_status st = open_shard(s, &g->meta, &r, &sp, src, path, NULL, err);
    if (!st && sp.count > 1)
        st = find_suffix(path, src, s, &sp, &end, err);
    if (!st && sp.no > 0) { /* another than the first was named */
        split want = {.no = 0, .count = sp.count, .n_tensors = sp.n_tensors};
        unload(s);
        gguf_meta_free(&g->meta);
        set_suffix(end, 0, sp.count);
        st = open_shard(s, &g->meta, &r, &sp, src, path, &want, err);
    }
    if (st)
        return st;
    gguf_shard *all = realloc(g->shards, (size_t)sp.count * sizeof *all);
    if (!all)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for %" PRId64 " shards", s->label,
                       sp.count);
    memset(all + 1, 0, (size_t)(sp.count - 1) * sizeof *all);
    g->shards = all;
    g->version = r.version;
    r.shard = &all[0];
    st = gguf_read_tensors(&r, g, 0);
    return st ? st : open_others(g, src, path, end, &sp, err);
}

static ts_status open_source(ts_gguf **out, const source *src, const char *path, ts_error *err)
{
    ts_gguf *g = ts_calloc(1, sizeof *g);
    char *copy = strdup(path);
    if (g) {
        g->shards = ts_calloc(1, sizeof *g->shards);
        g->n_shards = 1;
    }
    ts_status st = TS_OK;
    if (!g || !g->shards || !copy)
        st = ts_fail(err, TS_NO_MEMORY, "no memory to open a model");
    else
        st = open_all(g, src, copy, err);
    free(copy);
    if (st)
        ts_gguf_close(g);
    else
        *out = g;
    return st;
}

ts_status ts_gguf_open(ts_gguf **out, const char *path, ts_error *err)
{
    return open_source(out, &(source){0}, path, err);
}

ts_status ts_gguf_open_mem(ts_gguf **out, const ts_str *files, size_t n_files, ts_error *err)
{
    return open_source(out, &(source){files, n_files}, "memory-00001-of-00001.gguf", err);
}

void ts_gguf_close(ts_gguf *g)
{
    if (!g)
        return;
    for (int i = 0; g->shards && i < g->n_shards; i++)
        unload(&g->shards[i]);
    free(g->shards);
    gguf_meta_free(&g->meta);
    free(g->tensors);
    gguf_index_free(&g->index);
    gguf_names_free(&g->names);
    free(g);
}

/* --- reading ------------------------------------------------------------ */

const char *ts_gguf_path(const ts_gguf *g)
{
    return g->shards[0].label;
}

uint32_t ts_gguf_version(const ts_gguf *g)
{
    return g->version;
}

int ts_gguf_n_shards(const ts_gguf *g)
{
    return g->n_shards;
}

uint64_t ts_gguf_file_bytes(const ts_gguf *g)
{
    uint64_t n = 0;
    for (int i = 0; i < g->n_shards; i++)
        n += g->shards[i].size;
    return n;
}

size_t ts_gguf_n_kv(const ts_gguf *g)
{
    return g->meta.n;
}

const ts_gguf_kv *ts_gguf_kv_at(const ts_gguf *g, size_t i)
{
    return &g->meta.kv[i];
}

size_t ts_gguf_n_tensors(const ts_gguf *g)
{
    return g->n_tensors;
}

const ts_tensor *ts_gguf_tensor_at(const ts_gguf *g, size_t i)
{
    return &g->tensors[i];
}

const ts_tensor *ts_gguf_tensor(const ts_gguf *g, const char *name)
{
    int64_t i = gguf_index_find(&g->index, name, strlen(name));
    return i < 0 ? NULL : &g->tensors[i];
}

ts_gguf_file ts_gguf_file_at(const ts_gguf *g, int i)
{
    const gguf_shard *s = &g->shards[i];
    ts_gguf_file f = {.bytes = s->data, .size = s->size, .data = s->size, .stamp = s->stamp};
    for (size_t t = 0; t < g->n_tensors; t++)
        if (g->tensors[t].shard == i && g->tensors[t].offset < f.data)
            f.data = g->tensors[t].offset;
    return f;
}

void ts_gguf_drop(const ts_gguf *g, const void *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p;
    for (int i = 0; i < g->n_shards; i++) {
        const gguf_shard *s = &g->shards[i];
        uintptr_t base = (uintptr_t)s->data;
        if (!s->mapped || from < base || from - base > s->size || n > s->size - (from - base))
            continue;
        /* Whole pages only: the first and the last may hold a neighbour that is still in use. */
        uintptr_t first = (from + page - 1) & ~(page - 1), last = (from + n) & ~(page - 1);
        if (first < last)
            madvise((void *)first, last - first, MADV_DONTNEED);
        return;
    }
}

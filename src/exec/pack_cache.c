/* pack_cache.c - the pack cache's directory and its files: found and believed, or reported. */
#include "exec/pack_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "exec/pack_io.h"

#define PREFIX "tessera-"
#define PART   ".part" /* what the name of an unfinished file ends in */

static const char magic[8] = "TSPACK\r\n";

/* The file that was found can't be used. */
static void give_up(ts_pack_cache *c, const char *why)
{
    ts_logf(c->log, TS_LOG_WARN, "the pack cache %s/%s is not used and will be made anew: %s",
            c->path, c->name, why);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* --- the directory ------------------------------------------------------ */

static bool has_ends(const char *s, const char *front, const char *back)
{
    size_t n = strlen(s), b = strlen(back);
    return strncmp(s, front, strlen(front)) == 0 && n > b && strcmp(s + n - b, back) == 0;
}

/* A writer holds a lock on its unfinished file; what can be locked has no writer any more. */
static void remove_leftovers(const ts_pack_cache *c)
{
    int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(d));) {
        if (!has_ends(e->d_name, PREFIX, PART))
            continue;
        int f = openat(c->dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (f >= 0 && flock(f, LOCK_EX | LOCK_NB) == 0 && unlinkat(c->dir, e->d_name, 0) == 0)
            ts_logf(c->log, TS_LOG_INFO, "removed %s/%s, which its writer didn't finish", c->path,
                    e->d_name);
        if (f >= 0)
            close(f);
    }
    closedir(d);
}

static ts_status open_dir(ts_pack_cache *c, ts_error *err)
{
    struct stat sb;
    if (mkdir(c->path, 0700) && errno != EEXIST)
        return ts_fail(err, TS_IO, "making the directory %s: %s", c->path, strerror(errno));
    c->dir = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir < 0 || fstat(c->dir, &sb))
        return ts_fail(err, TS_IO, "opening the directory %s: %s", c->path, strerror(errno));
    if (sb.st_uid != geteuid())
        return ts_fail(err, TS_IO, "the directory %s belongs to another user (%u)", c->path,
                       (unsigned)sb.st_uid);
    if (sb.st_mode & (S_IWGRP | S_IWOTH))
        return ts_fail(err, TS_IO, "other users may write to the directory %s", c->path);
    return TS_OK;
}

/* --- the file ----------------------------------------------------------- */

static uint64_t checksum(const ts_pack_header *h)
{
    return ts_hash64(h, offsetof(ts_pack_header, checksum), 1);
}

static uint64_t stamp_check(const ts_pack_header *h)
{
    return ts_hash64(&h->stamp, sizeof h->stamp, h->checksum);
}

/* What is wrong with the file by itself; NULL: nothing so far. */
static const char *file_fault(const ts_pack_cache *c, ts_pack_header *h)
{
    union {
        ts_pack_header h;
        uint8_t bytes[TS_PACK_PAGE];
    } page;
    static const uint8_t zeros[TS_PACK_PAGE];
    struct stat sb;
    if (fstat(c->fd, &sb))
        return strerror(errno);
    if (!S_ISREG(sb.st_mode))
        return "it is no regular file";
    if (sb.st_uid != geteuid())
        return "it belongs to another user";
    if (sb.st_mode & (S_IWGRP | S_IWOTH))
        return "other users may write to it";
    if (pread(c->fd, page.bytes, sizeof page, 0) != sizeof page)
        return "it is too short for a pack cache";
    *h = page.h;
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return "it is no pack cache";
    if (h->format != TS_PACK_FORMAT)
        return "another version of this program made it";
    if (h->checksum != checksum(h) || h->stamp_check != stamp_check(h) ||
        memcmp(page.bytes + sizeof *h, zeros, sizeof page - sizeof *h) != 0)
        return "its header is damaged";
    if ((uint64_t)sb.st_size != h->key.packed + TS_PACK_PAGE)
        return (uint64_t)sb.st_size < h->key.packed + TS_PACK_PAGE
                   ? "it is truncated"
                   : "it is longer than its header says";
    return NULL;
}

/* What is wrong with the file for this model. */
static const char *key_fault(const ts_pack_key *is, const ts_pack_key *want)
{
    if (is->source_bytes != want->source_bytes || is->head != want->head)
        return "it was made from another model";
    if (is->sample != want->sample)
        return "it is stale: the weights in the model file are others";
    if (is->isa != want->isa)
        return "it was made for another ISA";
    if (is->layout != want->layout || is->packed != want->packed)
        return "it is of other weights, or of other packed layouts than this program has";
    return NULL;
}

/* Leaves c->fd at -1 unless the file is one to read. */
static void find(ts_pack_cache *c)
{
    c->fd = openat(c->dir, c->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (c->fd < 0 && (errno == EACCES || errno == EROFS)) /* its stamp can't be renewed then */
        c->fd = openat(c->dir, c->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (c->fd < 0 && errno == ENOENT) {
        ts_logf(c->log, TS_LOG_INFO, "%s holds no pack cache of this model yet", c->path);
        return;
    }
    const char *fault = c->fd >= 0        ? file_fault(c, &c->h)
                        : errno == ELOOP  ? "it is a symbolic link"
                        : errno == EISDIR ? "it is a directory"
                                          : strerror(errno);
    if (!fault)
        fault = key_fault(&c->h.key, &c->key);
    if (fault)
        give_up(c, fault);
}

ts_status ts_pack_cache_open(ts_pack_cache *c, const char *dir, const ts_pack_key *key,
                             uint64_t stamp, const ts_log *log, ts_error *err)
{
    *c = (ts_pack_cache){.dir = -1, .fd = -1, .path = dir, .log = log, .stamp = stamp, .key = *key};
    ts_status s = open_dir(c, err);
    if (s) {
        ts_pack_cache_close(c);
        return s;
    }
    uint64_t model[] = {key->source_bytes, key->head};
    snprintf(c->name, sizeof c->name, PREFIX "%016llx-%s.pack",
             (unsigned long long)ts_hash64(model, sizeof model, 2), ts_isa_name((ts_isa)key->isa));
    remove_leftovers(c);
    find(c);
    return TS_OK;
}

void ts_pack_cache_close(ts_pack_cache *c)
{
    if (c->fd >= 0)
        close(c->fd);
    if (c->dir >= 0)
        close(c->dir);
    c->fd = c->dir = -1;
}

/* --- is it this model's? ------------------------------------------------ */

bool ts_pack_cache_same_file(const ts_pack_cache *c)
{
    return c->h.stamp == c->stamp;
}

bool ts_pack_cache_same_content(ts_pack_cache *c, uint64_t content)
{
    if (c->h.content != content) {
        give_up(c, "it is stale: the weights in the model file have changed");
        return false;
    }
    /* A reader that sees half of this finds a damaged header and makes the file anew. */
    c->h.stamp = c->stamp;
    c->h.stamp_check = stamp_check(&c->h);
    if (!ts_pack_pwrite(c->fd, &c->h.stamp, 2 * sizeof c->h.stamp, offsetof(ts_pack_header, stamp)))
        ts_logf(c->log, TS_LOG_INFO,
                "the pack cache %s/%s can't be told that this is its model: %s; the next start "
                "compares them again",
                c->path, c->name, strerror(errno));
    return true;
}

/* --- its payload -------------------------------------------------------- */

bool ts_pack_cache_read(ts_pack_cache *c, ts_pool *pool, uint8_t *dst, ts_progress *p)
{
    uint64_t sum;
    int error = ts_pack_read_blocks(c->fd, pool, dst, c->key.packed, p, &sum);
    if (atomic_load(&p->stop))
        return false;
    if (error || sum != c->h.payload) {
        give_up(c, error ? strerror(error) : "its contents are damaged");
        return false;
    }
    return true;
}

/* A new file that nobody else has, locked; -1 with errno. */
static int make_part(const ts_pack_cache *c, char name[96])
{
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, 96, "%s.%ld-%u" PART, c->name, (long)getpid(), i);
        int fd = openat(c->dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
            continue;
        struct stat sb;
        /* Someone who cleans up may have come in between. */
        if (fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &sb) || sb.st_nlink == 0)) {
            close(fd);
            continue;
        }
        return fd;
    }
    return -1;
}

/* The errno of what failed, 0, or -1 when stopped. */
static int write_part(const ts_pack_cache *c, int fd, ts_pool *pool, const uint8_t *src,
                      uint64_t content, ts_progress *p)
{
    ts_pack_header h = {.format = TS_PACK_FORMAT, .key = c->key, .content = content};
    union {
        ts_pack_header h;
        uint8_t bytes[TS_PACK_PAGE];
    } page = {.bytes = {0}};
    int error = ts_pack_write_blocks(fd, pool, src, c->key.packed, p, &h.payload);
    if (error)
        return error;
    if (atomic_load(&p->stop))
        return -1;
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum(&h);
    h.stamp = c->stamp;
    h.stamp_check = stamp_check(&h);
    page.h = h;
    return ts_pack_pwrite(fd, page.bytes, sizeof page, 0) && fsync(fd) == 0 ? 0 : errno;
}

void ts_pack_cache_write(ts_pack_cache *c, ts_pool *pool, const uint8_t *src, uint64_t content,
                         ts_progress *p)
{
    char part[96];
    int fd = make_part(c, part);
    int error = fd < 0 ? errno : write_part(c, fd, pool, src, content, p);
    if (!error && renameat(c->dir, part, c->dir, c->name))
        error = errno;
    if (fd >= 0) {
        if (error)
            unlinkat(c->dir, part, 0);
        else
            fsync(c->dir);
        close(fd);
    }
    if (error > 0)
        ts_logf(c->log, TS_LOG_WARN,
                "the pack cache %s/%s (%.2f GB) can't be written: %s; this run goes on without it",
                c->path, c->name, (double)c->key.packed * 1e-9, strerror(error));
    else if (!error)
        ts_logf(c->log, TS_LOG_INFO, "wrote the pack cache %s/%s, %.2f GB", c->path, c->name,
                (double)c->key.packed * 1e-9);
}

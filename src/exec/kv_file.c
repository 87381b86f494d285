/* kv_file.c - see kv_file.h. */
#include "exec/kv_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "exec/pack_cache.h"
#include "exec/stream.h"

/* Raise it when what a page holds changes. */
enum { FORMAT = 2 };

typedef struct header {
    char magic[8];
    uint64_t format, key, n_pages, page_bytes, checksum;
} header;

static const char magic[8] = {'T', 'S', 'R', 'A', '-', 'K', 'V', '\n'};

/* What comes before K and V of a page. */
typedef struct head {
    int64_t parent;
    ts_token tokens[TS_PAGE];
} head;

/* A page on its way, and its size: head, K and V of all layers, checksum. K and V of a layer are
 * [n_head_kv][TS_PAGE][head_dim] and [n_head_kv][TS_PAGE][v_dim], however many positions are moved
 * at once. */
typedef struct record {
    uint8_t *bytes;
    size_t kv, size;        /* kv: of all layers */
    uint16_t *room;         /* for what is moved */
    int64_t step;           /* positions that are moved at once */
    size_t layer;           /* halves of a position of a layer  */
    int64_t heads, dims[2]; /* dims[1] 0: V is a part of K */
} record;

static void close_record(record *c)
{
    free(c->bytes);
    free(c->room);
    *c = (record){0};
}

static ts_status open_record(record *c, const ts_run *r, ts_error *err)
{
    const ts_hparams *hp = &r->d->m->hp;
    *c = (record){.step = r->d->plan->n_ubatch < TS_PAGE ? r->d->plan->n_ubatch : TS_PAGE,
                  .heads = hp->n_head_kv,
                  .dims = {hp->head_dim, r->d->m->arch->latent ? 0 : hp->v_dim}};
    c->layer = (size_t)(c->heads * (c->dims[0] + c->dims[1]));
    c->kv = (size_t)hp->n_layer * TS_PAGE * c->layer * sizeof(uint16_t);
    c->size = sizeof(head) + c->kv + sizeof(uint64_t);
    c->bytes = ts_calloc(c->size, 1);
    c->room = ts_calloc((size_t)c->step * c->layer, sizeof *c->room);
    if (c->bytes && c->room)
        return TS_OK;
    const size_t size = c->size;
    close_record(c);
    return ts_fail(err, TS_NO_MEMORY, "no memory for a page of the KV cache, %zu bytes", size);
}

static uint64_t mix_rope(uint64_t h, const ts_rope *rope)
{
    if (rope->freq)
        h = ts_hash64(rope->freq, (size_t)rope->n_rot / 2 * sizeof *rope->freq, h);
    return ts_hash64(&rope->mscale, sizeof rope->mscale, h);
}

static uint64_t key_of(const ts_run *r)
{
    const ts_model *m = r->d->m;
    ts_pack_key source = {0};
    ts_pack_key_source(&source, m->g);
    const uint64_t h = ts_hash64(&source, sizeof source, TS_PAGE);
    return mix_rope(mix_rope(h, &m->rope), &m->rope_swa);
}

static uint64_t check_header(const header *h)
{
    return ts_hash64(h, offsetof(header, checksum), FORMAT);
}

static uint64_t check_record(const record *c, uint64_t i)
{
    return ts_hash64(c->bytes, c->size - sizeof(uint64_t), i);
}

typedef enum direction { FROM_RECORD, TO_RECORD } direction;

/* Positions first..first+n-1 of a layer, from the record to c->room, or from `rows` to the record:
 * there they are as devices have them, K and V [n_head_kv][n][..] each. */
static void move(const record *c, int64_t layer, int64_t first, int64_t n, direction to,
                 const uint16_t *rows)
{
    uint16_t *page = (uint16_t *)(c->bytes + sizeof(head)) + (size_t)(layer * TS_PAGE) * c->layer;
    uint16_t *room = c->room;
    for (int kv = 0; kv < 2; kv++)
        for (int64_t h = 0; h < c->heads; h++) {
            const size_t some = (size_t)(n * c->dims[kv]);
            uint16_t *at = page + (size_t)(first * c->dims[kv]);
            if (to == TO_RECORD) {
                memcpy(at, rows, some * sizeof *at);
                rows += some;
            } else {
                memcpy(room, at, some * sizeof *at);
                room += some;
            }
            page += (size_t)(TS_PAGE * c->dims[kv]);
        }
}

/* K and V of a page from the devices. *whole: they are numbers. */
static ts_status get_page(const ts_run *r, const record *c, int32_t page, bool *whole,
                          ts_error *err)
{
    *whole = true;
    for (int64_t l = 0; l < r->d->m->hp.n_layer; l++) {
        const int at = r->d->m->layers[l].kv_device;
        for (int64_t i = 0; i < TS_PAGE; i += c->step) {
            const int64_t n = TS_PAGE - i < c->step ? TS_PAGE - i : c->step;
            const uint16_t *kv;
            ts_status s = r->d->be[at]->kv_get(r->state[at], (int)l, (int64_t)page * TS_PAGE + i, n,
                                               c->room, &kv, err);
            if (s)
                return s;
            move(c, l, i, n, TO_RECORD, kv);
            for (size_t j = 0; j < (size_t)n * c->layer; j++)
                *whole = *whole && (kv[j] & 0x7c00) != 0x7c00;
        }
    }
    return TS_OK;
}

static ts_status put_page(ts_run *r, const record *c, int32_t page, ts_error *err)
{
    for (int64_t l = 0; l < r->d->m->hp.n_layer; l++) {
        const int at = r->d->m->layers[l].kv_device;
        for (int64_t i = 0; i < TS_PAGE; i += c->step) {
            const int64_t n = TS_PAGE - i < c->step ? TS_PAGE - i : c->step;
            move(c, l, i, n, FROM_RECORD, NULL);
            ts_status s = r->d->be[at]->kv_put(r->state[at], (int)l, (int64_t)page * TS_PAGE + i, n,
                                               c->room, err);
            if (s)
                return s;
        }
    }
    const int32_t map = page;
    const ts_rows rows = {0, TS_PAGE, 0, &map};
    const ts_batch b = {.m = TS_PAGE, .n_spans = 1, .spans = &rows};
    ts_stream_forget(r, &b);
    return TS_OK;
}

/* --- saving ------------------------------------------------------------------- */

static ts_status io_error(const char *path, const char *what, ts_error *err)
{
    return ts_fail(err, TS_IO, "%s: %s: %s", path, what, strerror(errno));
}

static bool write_all(int fd, const void *p, size_t n)
{
    for (const uint8_t *at = p; n;) {
        const ssize_t k = write(fd, at, n < 1 << 30 ? n : 1 << 30);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

/* list[n] of the known pages, and place: where in the file each page is, -1: it isn't. */
static ts_status write_pages(const ts_run *r, const ts_pages *p, int fd, const char *path,
                             const record *c, const int32_t *list, int64_t n, int64_t *place,
                             int64_t *written, ts_error *err)
{
    *written = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t parent = ts_pages_parent(p, list[i]);
        head h = {.parent = parent < 0 ? -1 : place[parent]};
        bool whole = false;
        place[list[i]] = -1;
        if (parent >= 0 && h.parent < 0)
            continue;
        ts_status s = get_page(r, c, list[i], &whole, err);
        if (s)
            return s;
        if (!whole)
            continue;
        memcpy(h.tokens, ts_pages_tokens(p, list[i]), sizeof h.tokens);
        memcpy(c->bytes, &h, sizeof h);
        const uint64_t sum = check_record(c, (uint64_t)*written);
        memcpy(c->bytes + c->size - sizeof sum, &sum, sizeof sum);
        if (!write_all(fd, c->bytes, c->size))
            return io_error(path, "can't be written", err);
        place[list[i]] = (*written)++;
    }
    return TS_OK;
}

/* The header comes last, so that a file cut short has none. */
static ts_status write_file(const ts_run *r, const ts_pages *p, int fd, const char *path,
                            int64_t *pages, ts_error *err)
{
    ts_kv_info info;
    ts_pages_info(p, &info);
    int32_t *list = ts_calloc((size_t)info.n_pages, sizeof *list);
    int64_t *place = ts_calloc((size_t)info.n_pages, sizeof *place);
    record c = {0};
    header h = {.format = FORMAT};
    ts_status s = list && place ? open_record(&c, r, err)
                                : ts_fail(err, TS_NO_MEMORY, "no memory to save the KV cache");
    if (!s && !write_all(fd, &h, sizeof h))
        s = io_error(path, "can't be written", err);
    if (!s)
        s = write_pages(r, p, fd, path, &c, list, ts_pages_known(p, list), place, pages, err);
    memcpy(h.magic, magic, sizeof magic);
    h.key = key_of(r);
    h.n_pages = (uint64_t)*pages;
    h.page_bytes = c.size;
    h.checksum = check_header(&h);
    if (!s && (pwrite(fd, &h, sizeof h, 0) != sizeof h || fsync(fd)))
        s = io_error(path, "can't be written", err);
    close_record(&c);
    free(list);
    free(place);
    return s;
}

ts_status ts_kv_save(const ts_run *r, const ts_pages *p, const char *path, int64_t *pages,
                     ts_error *err)
{
    static const char end[] = ".part";
    *pages = 0;
    char *part = ts_calloc(strlen(path) + sizeof end, 1);
    if (!part)
        return ts_fail(err, TS_NO_MEMORY, "no memory to save the KV cache");
    memcpy(part, path, strlen(path));
    memcpy(part + strlen(path), end, sizeof end);
    unlink(part); /* of one who was killed */
    const int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    ts_status s =
        fd < 0 ? io_error(part, "can't be made", err) : write_file(r, p, fd, part, pages, err);
    if (fd >= 0 && close(fd) && !s)
        s = io_error(part, "can't be written", err);
    if (!s && rename(part, path))
        s = io_error(path, "can't be made", err);
    if (s && fd >= 0)
        unlink(part);
    free(part);
    return s;
}

/* --- restoring ---------------------------------------------------------------- */

static ts_status bad(const char *path, const char *why, ts_error *err)
{
    return ts_fail(err, TS_BAD_FILE, "%s: %s", path, why);
}

/* False: the file ends, or errno. */
static bool read_all(int fd, void *p, size_t n)
{
    for (uint8_t *at = p; n;) {
        const ssize_t k = read(fd, at, n < 1 << 30 ? n : 1 << 30);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static ts_status read_header(const ts_run *r, int fd, const char *path, const record *c, header *h,
                             ts_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return io_error(path, "can't be read", err);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return bad(path, "it isn't a file of this user's that nobody else can write to", err);
    if (!read_all(fd, h, sizeof *h) || memcmp(h->magic, magic, sizeof magic) != 0 ||
        h->checksum != check_header(h))
        return bad(path, "it isn't a saved KV cache, or is damaged", err);
    if (h->format != FORMAT || h->key != key_of(r) || h->page_bytes != c->size)
        return bad(path, "it is a KV cache of another model, or of another version", err);
    const uint64_t size = (uint64_t)st.st_size - sizeof *h;
    if (size % c->size || size / c->size != h->n_pages || h->n_pages > INT32_MAX)
        return bad(path, "its size isn't that of what it says it holds", err);
    return TS_OK;
}

/* Page i of the file, which must be sound; place[i]: which page it became, -1: none. */
static ts_status read_page(ts_run *r, ts_pages *p, int fd, const char *path, const record *c,
                           int64_t i, int32_t *place, ts_error *err)
{
    head h;
    uint64_t sum;
    place[i] = -1;
    if (!read_all(fd, c->bytes, c->size))
        return bad(path, "it ends too soon", err);
    memcpy(&h, c->bytes, sizeof h);
    memcpy(&sum, c->bytes + c->size - sizeof sum, sizeof sum);
    if (sum != check_record(c, (uint64_t)i) || h.parent < -1 || h.parent >= i)
        return bad(path, "a page of it is damaged", err);
    for (int j = 0; j < TS_PAGE; j++)
        if (h.tokens[j] < 0 || h.tokens[j] >= r->d->m->hp.n_vocab)
            return bad(path, "a page of it has a token outside the vocabulary", err);
    if (h.parent >= 0 && place[h.parent] < 0)
        return TS_OK;
    place[i] = ts_pages_add(p, h.parent < 0 ? -1 : place[h.parent], h.tokens);
    return place[i] < 0 ? TS_OK : put_page(r, c, place[i], err);
}

ts_status ts_kv_restore(ts_run *r, ts_pages *p, const char *path, int64_t *pages, ts_error *err)
{
    ts_kv_info info;
    header h;
    record c;
    *pages = 0;
    ts_pages_info(p, &info);
    if (info.n_free < info.n_pages)
        return ts_fail(err, TS_BAD_ARG, "a KV cache is restored before anything is computed");
    ts_status s = open_record(&c, r, err);
    if (s)
        return s;
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    s = fd < 0 ? io_error(path, "can't be opened", err) : read_header(r, fd, path, &c, &h, err);
    int32_t *place = s ? NULL : ts_calloc((size_t)h.n_pages + 1, sizeof *place);
    if (!s && !place)
        s = ts_fail(err, TS_NO_MEMORY, "no memory to restore the KV cache");
    for (int64_t i = 0; !s && i < (int64_t)h.n_pages; i++) {
        s = read_page(r, p, fd, path, &c, i, place, err);
        *pages += !s && place[i] >= 0;
    }
    if (s) {
        ts_pages_clear(p);
        *pages = 0;
    }
    free(place);
    if (fd >= 0)
        close(fd);
    close_record(&c);
    return s;
}

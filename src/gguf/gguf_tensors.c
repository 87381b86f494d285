/* gguf_tensors.c - the tensor table of one file (see gguf_read.c) and where its data lies.
 *
 * Tensors may leave gaps and stand in any order, but each lies wholly in the file and no two share
 * a byte: a slot that is too small for its tensor shows as an overlap with the next. */
#include "gguf/gguf_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static ts_status take_shape(gguf_reader *r, ts_tensor *t)
{
    uint32_t n_dims = 0;
    ts_status st = gguf_take(r, &n_dims, sizeof n_dims);
    if (st)
        return st;
    if (n_dims < 1 || n_dims > 4)
        return gguf_bad(r, TS_BAD_FILE, "%" PRIu32 " dimensions, it must be 1 to 4", n_dims);
    t->n_dims = (int)n_dims;
    int64_t n = 1;
    for (int d = 0; d < 4; d++) {
        uint64_t ne = 1;
        if (d < t->n_dims && (st = gguf_take(r, &ne, sizeof ne)))
            return st;
        if (ne == 0 || ne > INT64_MAX)
            return gguf_bad(r, TS_BAD_FILE, "dimension %d is %" PRIu64, d, ne);
        if (ts_mul_overflow(n, (int64_t)ne, &n))
            return gguf_bad(
                r, TS_BAD_FILE,
                "its dimensions multiply to more than 2^63 elements (%d is %" PRIu64 ")", d, ne);
        t->ne[d] = (int64_t)ne;
    }
    return TS_OK;
}

static ts_status take_type(gguf_reader *r, ts_tensor *t)
{
    uint32_t type = 0;
    ts_status st = gguf_take(r, &type, sizeof type);
    if (st)
        return st;
    const ts_type_info *info = ts_type_get(type);
    if (!info) {
        const char *name = ts_type_name(type);
        return gguf_bad(r, name ? TS_UNSUPPORTED : TS_BAD_FILE, "type %s (number %" PRIu32 ") %s",
                        name ? name : "unknown", type,
                        name ? "is not supported" : "does not exist");
    }
    t->type = (ts_type)type;
    if (t->ne[0] % info->block != 0)
        return gguf_bad(r, TS_BAD_FILE,
                        "rows of %" PRId64 " elements are no multiple of the %d of a %s block",
                        t->ne[0], info->block, info->name);
    size_t size = (size_t)(t->ne[0] / info->block);
    bool over = ts_mul_overflow(size, (size_t)info->bytes, &size);
    for (int d = 1; d < 4; d++)
        over = over || ts_mul_overflow(size, (size_t)t->ne[d], &size);
    if (over)
        return gguf_bad(r, TS_BAD_FILE,
                        "%" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64
                        " elements of type %s are more than 2^64 bytes",
                        t->ne[0], t->ne[1], t->ne[2], t->ne[3], info->name);
    t->size = size;
    return TS_OK;
}

/* One row of the table. t->offset is still counted from the start of the data. */
static ts_status take_tensor(gguf_reader *r, ts_tensor *t)
{
    ts_status st;
    if ((st = gguf_take_name(r, "tensor name", GGUF_MAX_NAME)) || (st = take_shape(r, t)) ||
        (st = take_type(r, t)) || (st = gguf_take(r, &t->offset, sizeof t->offset)))
        return st;
    if (t->offset % r->alignment != 0)
        return gguf_bad(r, TS_BAD_FILE,
                        "its offset %" PRIu64 " is no multiple of the alignment %" PRIu64,
                        t->offset, r->alignment);
    return TS_OK;
}

static ts_status add_tensor(gguf_reader *r, ts_gguf *g, ts_tensor *t)
{
    if (g->n_tensors == GGUF_MAX_ITEMS)
        return gguf_bad(r, TS_BAD_FILE, "more than %d tensors in all shards", GGUF_MAX_ITEMS);
    t->name = gguf_names_add(&g->names, r->name.s, r->name.n);
    ts_tensor *all = gguf_room(g->tensors, g->n_tensors, &g->cap_tensors, sizeof *g->tensors);
    g->tensors = all ? all : g->tensors;
    if (!t->name || !all)
        return gguf_no_memory(r);
    ts_status st = gguf_index_add(&g->index, t->name, r->name.n, g->n_tensors);
    if (st == TS_BAD_FILE)
        return gguf_bad(r, st, "the tensor occurs twice");
    if (st)
        return gguf_no_memory(r);
    g->tensors[g->n_tensors++] = *t;
    return TS_OK;
}

/* Offsets become pointers, once it is certain that all of each tensor lies in the file. */
static ts_status place(gguf_reader *r, ts_gguf *g, size_t first)
{
    const gguf_shard *s = r->shard;
    uint64_t pad = (r->alignment - r->pos % r->alignment) % r->alignment;
    for (size_t i = first; i < g->n_tensors; i++) {
        ts_tensor *t = &g->tensors[i];
        uint64_t base = r->pos + pad;
        if (base > s->size || t->offset > s->size - base || t->size > s->size - base - t->offset) {
            ts_shown name;
            return ts_fail(
                r->err, TS_BAD_FILE,
                "%s: tensor '%s' ends past the end of the file: %zu bytes at offset %" PRIu64
                " of the data, which starts at byte %" PRIu64 " of %zu",
                s->label, ts_show(&name, t->name, strlen(t->name)), t->size, t->offset, base,
                s->size);
        }
        t->offset += base;
        t->data = s->data + t->offset;
    }
    return TS_OK;
}

static int by_offset(const void *a, const void *b)
{
    const ts_tensor *x = *(const ts_tensor *const *)a, *y = *(const ts_tensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static ts_status check_overlap(gguf_reader *r, const ts_gguf *g, size_t first)
{
    size_t n = g->n_tensors - first;
    const ts_tensor **order = ts_calloc(n, sizeof *order);
    if (!order)
        return ts_fail(r->err, TS_NO_MEMORY, "%s: no memory for %zu tensors", r->shard->label, n);
    for (size_t i = 0; i < n; i++)
        order[i] = &g->tensors[first + i];
    qsort(order, n, sizeof *order, by_offset);
    ts_status st = TS_OK;
    for (size_t i = 0; i + 1 < n && !st; i++) {
        const ts_tensor *a = order[i], *b = order[i + 1];
        ts_shown na, nb;
        if (a->size > b->offset - a->offset)
            st = ts_fail(r->err, TS_BAD_FILE,
                         "%s: tensors '%s' (%zu bytes at byte %" PRIu64
                         ") and '%s' (at byte %" PRIu64 ") overlap",
                         r->shard->label, ts_show(&na, a->name, strlen(a->name)), a->size,
                         a->offset, ts_show(&nb, b->name, strlen(b->name)), b->offset);
    }
    free(order);
    return st;
}

ts_status gguf_read_tensors(gguf_reader *r, ts_gguf *g, int shard)
{
    size_t first = g->n_tensors;
    ts_status st = TS_OK;
    r->what = "tensor";
    for (uint64_t i = 0; i < r->n_tensors && !st; i++) {
        ts_tensor t = {.shard = shard};
        r->item = i;
        r->start = r->pos;
        r->name = (ts_str){0};
        st = take_tensor(r, &t);
        if (!st)
            st = add_tensor(r, g, &t);
    }
    if (!st)
        st = place(r, g, first);
    return st ? st : check_overlap(r, g, first);
}

/* gguf_read.c - the bytes of one GGUF file, read once from front to back.
 *
 *   0  "GGUF"  u32 version  u64 n_tensors  u64 n_kv
 *  24  n_kv times:       string key, u32 type, value
 *      n_tensors times:  string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset
 *      padding to the alignment
 *      the data: each tensor at its offset from here
 *
 * A string is u64 length and bytes; an array is u32 type, u64 count and elements; everything is
 * little-endian and unaligned. Versions 2 and 3 read alike (3 added big-endian files).
 *
 * Nothing is believed: a length or count is compared with the bytes that are left before it is
 * used, by subtraction, so that no sum can wrap. Memory grows with what was really read. */
#include "gguf/gguf_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The least bytes that one can take in a file. */
enum {
    MIN_PAIR = 8 + 1 + 4 + 1,
    MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8,
    MIN_STRING = 8,
    MIN_ARRAY = 4 + 8,
    HEADER = 24,
};

static const struct {
    const char *name;
    uint8_t scalar; /* bytes; 0 = not a scalar */
    uint8_t min;    /* least bytes as an element of an array */
} types[] = {
    [TS_GGUF_U8] = {"u8", 1, 1},
    [TS_GGUF_I8] = {"i8", 1, 1},
    [TS_GGUF_U16] = {"u16", 2, 2},
    [TS_GGUF_I16] = {"i16", 2, 2},
    [TS_GGUF_U32] = {"u32", 4, 4},
    [TS_GGUF_I32] = {"i32", 4, 4},
    [TS_GGUF_F32] = {"f32", 4, 4},
    [TS_GGUF_BOOL] = {"bool", 1, 1},
    [TS_GGUF_STR] = {"string", 0, MIN_STRING},
    [TS_GGUF_ARR] = {"array", 0, MIN_ARRAY},
    [TS_GGUF_U64] = {"u64", 8, 8},
    [TS_GGUF_I64] = {"i64", 8, 8},
    [TS_GGUF_F64] = {"f64", 8, 8},
};
enum { N_TYPES = sizeof types / sizeof *types };

const char *gguf_type_name(uint32_t type)
{
    return type < N_TYPES ? types[type].name : NULL;
}

size_t gguf_scalar_size(uint32_t type)
{
    return type < N_TYPES ? types[type].scalar : 0;
}

void gguf_meta_free(gguf_meta *m)
{
    free(m->kv);
    gguf_index_free(&m->index);
    gguf_names_free(&m->names);
    *m = (gguf_meta){0};
}

/* --- messages ----------------------------------------------------------- */

ts_status gguf_bad(gguf_reader *r, ts_status code, const char *fmt, ...)
{
    char rest[360];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rest, sizeof rest, fmt, ap);
    va_end(ap);
    ts_shown name;
    ts_show(&name, r->name.s, r->name.n);
    bool named = r->name.n > 0;
    return ts_fail(r->err, code, "%s: %s %" PRIu64 "%s%s%s at byte %" PRIu64 ": %s",
                   r->shard->label, r->what, r->item, named ? " '" : "", named ? name.s : "",
                   named ? "'" : "", r->start, rest);
}

ts_status gguf_no_memory(gguf_reader *r)
{
    return gguf_bad(r, TS_NO_MEMORY, "no memory is left for it");
}

/* --- bytes -------------------------------------------------------------- */

static uint64_t left(const gguf_reader *r)
{
    return r->shard->size - r->pos;
}

ts_status gguf_take(gguf_reader *r, void *to, size_t n)
{
    if (n > left(r))
        return gguf_bad(r, TS_BAD_FILE, "cut off, the file ends at byte %zu", r->shard->size);
    memcpy(to, r->shard->data + r->pos, n);
    r->pos += n;
    return TS_OK;
}

static ts_status take_str(gguf_reader *r, const char *what, uint64_t max, ts_str *out)
{
    uint64_t n = 0;
    ts_status st = gguf_take(r, &n, sizeof n);
    if (st)
        return st;
    if (n > left(r))
        return gguf_bad(r, TS_BAD_FILE,
                        "%s of %" PRIu64 " bytes, but only %" PRIu64 " are left in the file", what,
                        n, left(r));
    if (n > max)
        return gguf_bad(r, TS_BAD_FILE, "%s of %" PRIu64 " bytes, at most %" PRIu64 " are allowed",
                        what, n, max);
    *out = (ts_str){(const char *)r->shard->data + r->pos, n};
    r->pos += n;
    return TS_OK;
}

/* A key or a tensor's name; from here on it stands in every message about the item. */
ts_status gguf_take_name(gguf_reader *r, const char *what, uint64_t max)
{
    ts_str s;
    ts_status st = take_str(r, what, max, &s);
    if (st)
        return st;
    if (s.n == 0)
        return gguf_bad(r, TS_BAD_FILE, "the %s is empty", what);
    r->name = s;
    if (memchr(s.s, 0, s.n))
        return gguf_bad(r, TS_BAD_FILE, "the %s contains a zero byte", what);
    return TS_OK;
}

/* --- metadata ----------------------------------------------------------- */

static ts_status take_array_head(gguf_reader *r, uint32_t *type, uint64_t *n)
{
    ts_status st;
    if ((st = gguf_take(r, type, sizeof *type)) || (st = gguf_take(r, n, sizeof *n)))
        return st;
    if (*type >= N_TYPES)
        return gguf_bad(r, TS_BAD_FILE, "array of elements of unknown type %" PRIu32, *type);
    if (*n > left(r) / types[*type].min)
        return gguf_bad(r, TS_BAD_FILE,
                        "array of %" PRIu64 " elements of type %s, but only %" PRIu64
                        " bytes are left in the file",
                        *n, types[*type].name, left(r));
    return TS_OK;
}

static ts_status skip_strings(gguf_reader *r, uint64_t n)
{
    const uint8_t *p = r->shard->data + r->pos, *end = r->shard->data + r->shard->size;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len = 0;
        if (end - p >= 8)
            memcpy(&len, p, 8);
        if (end - p < 8 || len > (uint64_t)(end - p) - 8)
            return gguf_bad(r, TS_BAD_FILE,
                            "string %" PRIu64 " of the array (%" PRIu64
                            " bytes) ends past the end of the file",
                            i, len);
        p += 8 + len;
    }
    r->pos = (uint64_t)(p - r->shard->data);
    return TS_OK;
}

/* Past n elements that aren't arrays; take_array_head has proved that scalars fit. */
static ts_status skip_elements(gguf_reader *r, uint32_t type, uint64_t n)
{
    if (type == TS_GGUF_STR)
        return skip_strings(r, n);
    if (type == TS_GGUF_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (r->shard->data[r->pos + i] > 1)
                return gguf_bad(r, TS_BAD_FILE,
                                "element %" PRIu64 " of the bool array is %d, neither 0 nor 1", i,
                                r->shard->data[r->pos + i]);
    r->pos += n * types[type].scalar;
    return TS_OK;
}

/* Nested arrays are walked with a stack of element counts instead of recursion. */
static ts_status take_array(gguf_reader *r, ts_gguf_arr *out)
{
    uint32_t type = 0;
    uint64_t n = 0, todo[GGUF_MAX_DEPTH];
    int depth = 0;
    ts_status st = take_array_head(r, &type, &n);
    if (st)
        return st;
    *out = (ts_gguf_arr){(ts_gguf_type)type, n, r->shard->data + r->pos};
    for (;;) {
        if (type == TS_GGUF_ARR) {
            if (depth == GGUF_MAX_DEPTH - 1)
                return gguf_bad(r, TS_BAD_FILE, "arrays nested more than %d deep", GGUF_MAX_DEPTH);
            todo[depth++] = n;
        } else if ((st = skip_elements(r, type, n))) {
            return st;
        }
        while (depth > 0 && todo[depth - 1] == 0)
            depth--;
        if (depth == 0)
            return TS_OK;
        todo[depth - 1]--;
        if ((st = take_array_head(r, &type, &n)))
            return st;
    }
}

static ts_status take_scalar(gguf_reader *r, ts_gguf_kv *kv)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } x;
    ts_status st = gguf_take(r, &x, types[kv->type].scalar);
    if (st)
        return st;
    switch (kv->type) {
    case TS_GGUF_U8:
        kv->v.u = x.u8;
        break;
    case TS_GGUF_I8:
        kv->v.i = x.i8;
        break;
    case TS_GGUF_U16:
        kv->v.u = x.u16;
        break;
    case TS_GGUF_I16:
        kv->v.i = x.i16;
        break;
    case TS_GGUF_U32:
        kv->v.u = x.u32;
        break;
    case TS_GGUF_I32:
        kv->v.i = x.i32;
        break;
    case TS_GGUF_F32:
        kv->v.f = (double)x.f32;
        break;
    case TS_GGUF_BOOL:
        if (x.u8 > 1)
            return gguf_bad(r, TS_BAD_FILE, "the bool is %d, neither 0 nor 1", x.u8);
        kv->v.u = x.u8;
        break;
    case TS_GGUF_U64:
        kv->v.u = x.u64;
        break;
    case TS_GGUF_I64:
        kv->v.i = x.i64;
        break;
    case TS_GGUF_F64:
        kv->v.f = x.f64;
        break;
    default:
        break; /* strings and arrays come elsewhere */
    }
    return TS_OK;
}

static ts_status take_pair(gguf_reader *r, ts_gguf_kv *kv)
{
    ts_status st = gguf_take_name(r, "key", GGUF_MAX_KEY);
    if (st)
        return st;
    uint32_t type = 0;
    if ((st = gguf_take(r, &type, sizeof type)))
        return st;
    if (type >= N_TYPES)
        return gguf_bad(r, TS_BAD_FILE, "value of unknown type %" PRIu32, type);
    kv->type = (ts_gguf_type)type;
    if (type == TS_GGUF_STR)
        return take_str(r, "string", UINT64_MAX, &kv->v.str);
    if (type == TS_GGUF_ARR)
        return take_array(r, &kv->v.arr);
    return take_scalar(r, kv);
}

void *gguf_room(void *p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    size_t next = *cap ? 2 * *cap : 64, bytes;
    if (ts_mul_overflow(next, size, &bytes) || !(p = realloc(p, bytes)))
        return NULL;
    *cap = next;
    return p;
}

static ts_status add_pair(gguf_reader *r, gguf_meta *m, ts_gguf_kv *kv)
{
    kv->key = gguf_names_add(&m->names, r->name.s, r->name.n);
    ts_gguf_kv *all = gguf_room(m->kv, m->n, &m->cap, sizeof *m->kv);
    m->kv = all ? all : m->kv;
    if (!kv->key || !all)
        return gguf_no_memory(r);
    ts_status st = gguf_index_add(&m->index, kv->key, r->name.n, m->n);
    if (st == TS_BAD_FILE)
        return gguf_bad(r, st, "the key occurs twice");
    if (st)
        return gguf_no_memory(r);
    m->kv[m->n++] = *kv;
    return TS_OK;
}

/* --- header ------------------------------------------------------------- */

static ts_status check_count(const gguf_shard *s, const char *what, uint64_t n, uint64_t min,
                             ts_error *err)
{
    if (n > (s->size - HEADER) / min)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: the header announces %" PRIu64
                       " %s, more than a file of %zu bytes can hold",
                       s->label, n, what, s->size);
    if (n > GGUF_MAX_ITEMS)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: the header announces %" PRIu64 " %s, at most %d are supported",
                       s->label, n, what, GGUF_MAX_ITEMS);
    return TS_OK;
}

static ts_status not_gguf(const gguf_shard *s, ts_error *err)
{
    static const char lfs[] = "version https://git-lfs";
    if (s->size == 0)
        return ts_fail(err, TS_BAD_FILE, "%s: the file is empty", s->label);
    if (s->size >= sizeof lfs - 1 && memcmp(s->data, lfs, sizeof lfs - 1) == 0)
        return ts_fail(
            err, TS_BAD_FILE,
            "%s: this is a Git LFS pointer, not the model itself (git lfs pull fetches it)",
            s->label);
    ts_shown head;
    ts_show(&head, (const char *)s->data, s->size < 4 ? s->size : 4);
    if (s->size >= 4 && memcmp(s->data, "GGUF", 4) == 0)
        return ts_fail(err, TS_BAD_FILE, "%s: the file is %zu bytes long, a GGUF header takes %d",
                       s->label, s->size, HEADER);
    return ts_fail(err, TS_BAD_FILE, "%s: not a GGUF file: it begins with '%s' instead of 'GGUF'",
                   s->label, head.s);
}

static ts_status read_header(gguf_reader *r)
{
    const gguf_shard *s = r->shard;
    if (s->size < HEADER || memcmp(s->data, "GGUF", 4) != 0)
        return not_gguf(s, r->err);
    memcpy(&r->version, s->data + 4, 4);
    memcpy(&r->n_tensors, s->data + 8, 8);
    memcpy(&r->n_kv, s->data + 16, 8);
    r->pos = HEADER;
    /* The version of a big-endian file has its low bytes at the other end. */
    if (r->version != 0 && (r->version & 0xffff) == 0)
        return ts_fail(r->err, TS_UNSUPPORTED,
                       "%s: a big-endian GGUF file (version bytes read %#" PRIx32
                       "), only little-endian ones are supported",
                       s->label, r->version);
    if (r->version != 2 && r->version != 3)
        return ts_fail(r->err, TS_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 ", only 2 and 3 are supported", s->label,
                       r->version);
    ts_status st = check_count(s, "metadata pairs", r->n_kv, MIN_PAIR, r->err);
    return st ? st : check_count(s, "tensors", r->n_tensors, MIN_TENSOR, r->err);
}

static ts_status read_alignment(gguf_reader *r, const gguf_meta *m)
{
    static const char key[] = "general.alignment";
    r->alignment = GGUF_ALIGNMENT;
    const ts_gguf_kv *kv = gguf_meta_find(m, key);
    if (!kv)
        return TS_OK;
    if (kv->type != TS_GGUF_U32)
        return ts_fail(r->err, TS_BAD_FILE, "%s: key '%s' has type %s, it must be u32",
                       r->shard->label, key, gguf_type_name(kv->type));
    uint64_t a = kv->v.u;
    if (a < 8 || (a & (a - 1)) != 0)
        return ts_fail(r->err, TS_BAD_FILE,
                       "%s: key '%s' is %" PRIu64 ", it must be a power of two and at least 8",
                       r->shard->label, key, a);
    r->alignment = a;
    return TS_OK;
}

ts_status gguf_read_meta(gguf_reader *r, const gguf_shard *shard, gguf_meta *m, ts_error *err)
{
    *r = (gguf_reader){.shard = shard, .err = err, .what = "metadata pair"};
    ts_status st = read_header(r);
    for (uint64_t i = 0; i < r->n_kv && !st; i++) {
        ts_gguf_kv kv = {0};
        r->item = i;
        r->start = r->pos;
        r->name = (ts_str){0};
        st = take_pair(r, &kv);
        if (!st)
            st = add_pair(r, m, &kv);
    }
    return st ? st : read_alignment(r, m);
}

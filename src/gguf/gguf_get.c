/* gguf_get.c - metadata as the types that callers want, or a sentence. */
#include "gguf/gguf_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const ts_gguf_kv *gguf_meta_find(const gguf_meta *m, const char *key)
{
    int64_t i = gguf_index_find(&m->index, key, strlen(key));
    return i < 0 ? NULL : &m->kv[i];
}

const ts_gguf_kv *ts_gguf_find(const ts_gguf *g, const char *key)
{
    return gguf_meta_find(&g->meta, key);
}

/* Looks the key up and says so in *found. */
static const ts_gguf_kv *find(const gguf_meta *m, const char *key, bool *found)
{
    const ts_gguf_kv *kv = gguf_meta_find(m, key);
    if (found)
        *found = kv != NULL;
    return kv;
}

static ts_status wrong_type(const char *label, const ts_gguf_kv *kv, const char *wanted,
                            ts_error *err)
{
    const char *elem = kv->type == TS_GGUF_ARR ? gguf_type_name(kv->v.arr.type) : "";
    return ts_fail(err, TS_BAD_FILE, "%s: key '%s' has type %s%s%s, it must be %s", label, kv->key,
                   gguf_type_name(kv->type), *elem ? " of " : "", elem, wanted);
}

/* A scalar integer as sign and magnitude: -u when *neg. False for every other type. */
static bool as_integer(const ts_gguf_kv *kv, bool *neg, uint64_t *u)
{
    *neg = false;
    switch (kv->type) {
    case TS_GGUF_U8:
    case TS_GGUF_U16:
    case TS_GGUF_U32:
    case TS_GGUF_U64:
        *u = kv->v.u;
        return true;
    case TS_GGUF_I8:
    case TS_GGUF_I16:
    case TS_GGUF_I32:
    case TS_GGUF_I64:
        *neg = kv->v.i < 0;
        *u = *neg ? 0 - (uint64_t)kv->v.i : (uint64_t)kv->v.i;
        return true;
    default:
        return false;
    }
}

ts_status gguf_meta_get_int(const gguf_meta *m, const char *label, const char *key, int64_t min,
                            int64_t max, int64_t *out, bool *found, ts_error *err)
{
    const ts_gguf_kv *kv = find(m, key, found);
    if (!kv)
        return TS_OK;
    bool neg;
    uint64_t u;
    if (!as_integer(kv, &neg, &u))
        return wrong_type(label, kv, "an integer", err);
    bool fits = neg ? kv->v.i >= min && kv->v.i <= max
                    : u <= INT64_MAX && (int64_t)u >= min && (int64_t)u <= max;
    if (!fits)
        return ts_fail(err, TS_BAD_FILE,
                       "%s: key '%s' is %s%" PRIu64 ", it must lie between %" PRId64
                       " and %" PRId64,
                       label, key, neg ? "-" : "", u, min, max);
    *out = neg ? kv->v.i : (int64_t)u;
    return TS_OK;
}

ts_status ts_gguf_get_int(const ts_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                          bool *found, ts_error *err)
{
    return gguf_meta_get_int(&g->meta, g->shards[0].label, key, min, max, out, found, err);
}

ts_status ts_gguf_get_float(const ts_gguf *g, const char *key, double *out, bool *found,
                            ts_error *err)
{
    const ts_gguf_kv *kv = find(&g->meta, key, found);
    if (!kv)
        return TS_OK;
    bool neg;
    uint64_t u;
    if (as_integer(kv, &neg, &u)) {
        *out = neg ? -(double)u : (double)u;
        return TS_OK;
    }
    if (kv->type != TS_GGUF_F32 && kv->type != TS_GGUF_F64)
        return wrong_type(g->shards[0].label, kv, "a number", err);
    if (!isfinite(kv->v.f))
        return ts_fail(err, TS_BAD_FILE, "%s: key '%s' is %f, it must be finite",
                       g->shards[0].label, key, kv->v.f);
    *out = kv->v.f;
    return TS_OK;
}

ts_status ts_gguf_get_bool(const ts_gguf *g, const char *key, bool *out, bool *found, ts_error *err)
{
    const ts_gguf_kv *kv = find(&g->meta, key, found);
    if (!kv)
        return TS_OK;
    if (kv->type != TS_GGUF_BOOL)
        return wrong_type(g->shards[0].label, kv, "bool", err);
    *out = kv->v.u != 0;
    return TS_OK;
}

ts_status ts_gguf_get_str(const ts_gguf *g, const char *key, ts_str *out, bool *found,
                          ts_error *err)
{
    const ts_gguf_kv *kv = find(&g->meta, key, found);
    if (!kv)
        return TS_OK;
    if (kv->type != TS_GGUF_STR)
        return wrong_type(g->shards[0].label, kv, "string", err);
    *out = kv->v.str;
    return TS_OK;
}

ts_status ts_gguf_get_arr(const ts_gguf *g, const char *key, ts_gguf_type elem, ts_gguf_arr *out,
                          bool *found, ts_error *err)
{
    const ts_gguf_kv *kv = find(&g->meta, key, found);
    if (!kv)
        return TS_OK;
    if (kv->type != TS_GGUF_ARR || kv->v.arr.type != elem) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "array of %s", gguf_type_name(elem));
        return wrong_type(g->shards[0].label, kv, wanted, err);
    }
    *out = kv->v.arr;
    return TS_OK;
}

/* --- arrays ------------------------------------------------------------- */

/* Element i of scalars, unaligned in the file, as either kind of number. */
#define ELEMENT(ctype, to)                                                                         \
    do {                                                                                           \
        ctype x;                                                                                   \
        memcpy(&x, a->data + i * sizeof x, sizeof x);                                              \
        return (to)x;                                                                              \
    } while (0)

static int64_t saturate(double f)
{
    if (isnan(f))
        return 0;
    if (f >= 0x1p63)
        return INT64_MAX;
    return f < -0x1p63 ? INT64_MIN : (int64_t)f;
}

static int64_t from_u64(const ts_gguf_arr *a, uint64_t i)
{
    uint64_t x;
    memcpy(&x, a->data + i * sizeof x, sizeof x);
    return x > INT64_MAX ? INT64_MAX : (int64_t)x;
}

int64_t ts_gguf_arr_int(const ts_gguf_arr *a, uint64_t i)
{
    switch (a->type) {
    case TS_GGUF_U8:
    case TS_GGUF_BOOL:
        ELEMENT(uint8_t, int64_t);
    case TS_GGUF_I8:
        ELEMENT(int8_t, int64_t);
    case TS_GGUF_U16:
        ELEMENT(uint16_t, int64_t);
    case TS_GGUF_I16:
        ELEMENT(int16_t, int64_t);
    case TS_GGUF_U32:
        ELEMENT(uint32_t, int64_t);
    case TS_GGUF_I32:
        ELEMENT(int32_t, int64_t);
    case TS_GGUF_I64:
        ELEMENT(int64_t, int64_t);
    case TS_GGUF_U64:
        return from_u64(a, i);
    case TS_GGUF_F32:
    case TS_GGUF_F64:
        return saturate(ts_gguf_arr_float(a, i));
    default:
        return 0;
    }
}

double ts_gguf_arr_float(const ts_gguf_arr *a, uint64_t i)
{
    switch (a->type) {
    case TS_GGUF_F32:
        ELEMENT(float, double);
    case TS_GGUF_F64:
        ELEMENT(double, double);
    case TS_GGUF_U64:
        ELEMENT(uint64_t, double);
    default:
        return (double)ts_gguf_arr_int(a, i);
    }
}

void ts_gguf_arr_strs(const ts_gguf_arr *a, ts_str *out)
{
    const uint8_t *p = a->data;
    for (uint64_t i = 0; i < a->n; i++) {
        uint64_t n;
        memcpy(&n, p, sizeof n);
        out[i] = (ts_str){(const char *)p + sizeof n, n};
        p += sizeof n + n;
    }
}

/* Past one array whose head is at p; nested ones are walked with a stack of counts, as gguf_read.c
 * proved them. */
static const uint8_t *read_sub(const uint8_t *p, ts_gguf_arr *out)
{
    uint64_t todo[GGUF_MAX_DEPTH];
    int depth = 0;
    for (bool first = true;; first = false) {
        uint32_t type;
        uint64_t n;
        memcpy(&type, p, sizeof type);
        memcpy(&n, p + sizeof type, sizeof n);
        p += sizeof type + sizeof n;
        if (first)
            *out = (ts_gguf_arr){(ts_gguf_type)type, n, p};
        if (type == TS_GGUF_ARR) {
            todo[depth++] = n;
        } else if (type == TS_GGUF_STR) {
            for (uint64_t i = 0, len; i < n; i++, p += sizeof len + len)
                memcpy(&len, p, sizeof len);
        } else {
            p += n * gguf_scalar_size(type);
        }
        while (depth > 0 && todo[depth - 1] == 0)
            depth--;
        if (depth == 0)
            return p;
        todo[depth - 1]--;
    }
}

void ts_gguf_arr_arrs(const ts_gguf_arr *a, ts_gguf_arr *out)
{
    const uint8_t *p = a->data;
    for (uint64_t i = 0; i < a->n; i++)
        p = read_sub(p, &out[i]);
}

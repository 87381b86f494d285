/* fuzz_gguf.c - libFuzzer target for the GGUF loader.
 *
 * The input is a model file, or several shards one after another: each "GGUF" behind the first byte
 * starts a new one. A model that opens is read as its users read it, every byte that the loader
 * hands out; a refusal must come with a printable sentence. */
#include "gguf/gguf_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SHARDS = 4 };

static volatile uint64_t sink;

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Under ASan this faults if a byte is not the file's. */
static void touch(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++)
        h = h * 31 + b[i];
    sink += h;
}

static void touch_array(const ts_gguf_arr *a, int depth)
{
    must(depth < GGUF_MAX_DEPTH);
    if (a->type == TS_GGUF_STR) {
        ts_str *s = calloc(a->n + 1, sizeof *s);
        ts_gguf_arr_strs(a, s);
        for (uint64_t i = 0; i < a->n; i++)
            touch(s[i].s, s[i].n);
        free(s);
    } else if (a->type == TS_GGUF_ARR) {
        ts_gguf_arr *inner = calloc(a->n + 1, sizeof *inner);
        ts_gguf_arr_arrs(a, inner);
        for (uint64_t i = 0; i < a->n; i++)
            touch_array(&inner[i], depth + 1);
        free(inner);
    } else {
        for (uint64_t i = 0; i < a->n; i++)
            sink += (uint64_t)ts_gguf_arr_int(a, i) + (ts_gguf_arr_float(a, i) > 0);
    }
}

static void touch_pair(const ts_gguf *g, size_t i)
{
    const ts_gguf_kv *kv = ts_gguf_kv_at(g, i);
    must(ts_gguf_find(g, kv->key) == kv);
    if (kv->type == TS_GGUF_STR)
        touch(kv->v.str.s, kv->v.str.n);
    if (kv->type == TS_GGUF_ARR)
        touch_array(&kv->v.arr, 0);
    int64_t n;
    double f;
    bool b;
    ts_str s;
    ts_gguf_arr a;
    ts_error err = {0};
    if (!ts_gguf_get_int(g, kv->key, -5, 100, &n, NULL, &err))
        must(n >= -5 && n <= 100);
    if (!ts_gguf_get_float(g, kv->key, &f, NULL, &err))
        must(f - f == 0);
    if (!ts_gguf_get_bool(g, kv->key, &b, NULL, &err))
        sink += b;
    if (!ts_gguf_get_str(g, kv->key, &s, NULL, &err))
        touch(s.s, s.n);
    if (!ts_gguf_get_arr(g, kv->key, TS_GGUF_I32, &a, NULL, &err))
        touch(a.data, 4 * a.n);
}

static void touch_tensor(const ts_gguf *g, size_t i)
{
    const ts_tensor *t = ts_gguf_tensor_at(g, i);
    const ts_type_info *info = ts_type_get(t->type);
    must(ts_gguf_tensor(g, t->name) == t);
    must(info && t->ne[0] % info->block == 0 && (uintptr_t)t->data % 8 == 0);
    must(t->size == ts_row_bytes(info, t->ne[0]) * (size_t)(t->ne[1] * t->ne[2] * t->ne[3]));
    must(t->shard >= 0 && t->shard < ts_gguf_n_shards(g));
    touch(t->data, t->size);
    ts_gguf_drop(g, t->data, t->size);
}

/* Copies into memory of exactly this size, so that ASan sees every overrun. */
static ts_str copy(const uint8_t *p, size_t n)
{
    char *s = malloc(n ? n : 1);
    must(s != NULL);
    memcpy(s, p, n);
    return (ts_str){s, n};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ts_str files[MAX_SHARDS];
    size_t n = 0, from = 0;
    for (size_t i = 1; i + 4 <= size && n + 1 < MAX_SHARDS; i++) {
        if (memcmp(data + i, "GGUF", 4) == 0) {
            files[n++] = copy(data + from, i - from);
            from = i;
        }
    }
    files[n++] = copy(data + from, size - from);

    ts_gguf *g = NULL;
    ts_error err = {0};
    if (ts_gguf_open_mem(&g, files, n, &err) == TS_OK) {
        for (size_t i = 0; i < ts_gguf_n_kv(g); i++)
            touch_pair(g, i);
        for (size_t i = 0; i < ts_gguf_n_tensors(g); i++)
            touch_tensor(g, i);
        ts_gguf_close(g);
    } else {
        must(g == NULL && err.code != TS_OK && err.msg[0] != 0);
        for (const char *c = err.msg; *c; c++)
            must(*c >= 0x20 && *c < 0x7f);
    }
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)files[i].s);
    return 0;
}

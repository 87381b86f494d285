/* test_gguf_nomem.c - the GGUF loader when memory runs out: each allocation of an open fails once.
 *
 * The loader's sources are compiled in here with their allocations replaced, so that the n-th of
 * them can be refused. Every refusal must become TS_NO_MEMORY with a sentence, leave no object, and
 * (under the leak checker) no memory. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static long countdown; /* allocations until one fails; negative: none does */

static bool refuse(void)
{
    return countdown >= 0 && countdown-- == 0;
}

static void *test_malloc(size_t n)
{
    return refuse() ? NULL : malloc(n);
}

static void *test_realloc(void *p, size_t n)
{
    return refuse() ? NULL : realloc(p, n);
}

static void *test_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : ts_calloc(n, size);
}

static char *test_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = test_malloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

#define malloc    test_malloc
#define realloc   test_realloc
#define ts_calloc test_calloc
#undef strdup
#define strdup test_strdup
#include "../src/gguf/gguf.c"
#include "../src/gguf/gguf_get.c"
#include "../src/gguf/gguf_index.c"
#include "../src/gguf/gguf_read.c"
#include "../src/gguf/gguf_tensors.c"
#undef malloc
#undef realloc
#undef ts_calloc
#undef strdup

#include "badgguf.c"
#include "check.h"

/* Opens the files once for each allocation that this takes, refusing that one. */
static long refuse_each(const ts_str *files, size_t n)
{
    for (long k = 0;; k++) {
        ts_gguf *g = NULL;
        ts_error err = {0};
        countdown = k;
        ts_status st = ts_gguf_open_mem(&g, files, n, &err);
        if (st == TS_OK) {
            CHECK(countdown >= 0); /* none was refused */
            ts_gguf_close(g);
            return k;
        }
        CHECK_MSG(st == TS_NO_MEMORY && err.code == st && strstr(err.msg, "memory") && !g,
                  "allocation %ld: status %d, '%s'", k, (int)st, err.msg);
        if (k == 10000)
            return -1;
    }
}

static ts_str file_of(bad_file *f)
{
    bad_bytes b = bad_image(f);
    bad_free(f);
    return (ts_str){(const char *)b.p, b.n};
}

static ts_str shard(int i, int count, int tensors)
{
    char name[16];
    bad_file f = {.magic = "GGUF", .version = 3, .alignment = 32, .cut_at = -1};
    bad_set_int(&f, "split.no", TS_GGUF_U16, i);
    bad_set_int(&f, "split.count", TS_GGUF_U16, count);
    for (int k = 0; k < tensors; k++) {
        snprintf(name, sizeof name, "t%d.%d", i, k);
        bad_add_tensor(&f, name, TS_TYPE_F32, 32, 1, 8, 1);
    }
    bad_layout(&f);
    return file_of(&f);
}

int main(void)
{
    bad_file f;
    bad_model(&f, false);
    ts_str whole = file_of(&f), shards[2] = {shard(0, 2, 5), shard(1, 2, 70)};
    long n = refuse_each(&whole, 1);
    CHECK_MSG(n > 8, "%ld allocations", n);
    n = refuse_each(shards, 2);
    CHECK_MSG(n > 12, "%ld allocations", n);
    free((void *)(uintptr_t)whole.s);
    for (int i = 0; i < 2; i++)
        free((void *)(uintptr_t)shards[i].s);
    return check_done("gguf_nomem");
}

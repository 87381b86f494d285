/* test_gguf.c - the GGUF loader on files that are as they should be, or nearly: every metadata
 * type, typed reads and their refusals, both versions, alignment, split models, files that are no
 * files, truncation at every byte, and what fuzzing found. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "badgguf.c"
#include "check.h"
#include "gguf/gguf_impl.h"

static ts_error err;
static char dir[] = "/tmp/test_gguf_XXXXXX";

#define BAD(call, code_, fragment)                                                                 \
    do {                                                                                           \
        memset(&err, 0, sizeof err);                                                               \
        ts_status st_ = (call);                                                                    \
        CHECK_MSG(st_ == (code_) && err.code == (code_) && strstr(err.msg, fragment),              \
                  "status %d, '%s'", (int)st_, err.msg);                                           \
    } while (0)
#define GOOD(call)                                                                                 \
    do {                                                                                           \
        memset(&err, 0, sizeof err);                                                               \
        CHECK_MSG((call) == TS_OK, "%s", err.msg);                                                 \
    } while (0)

/* A file with metadata only. */
static bad_file plain(void)
{
    return (bad_file){.magic = "GGUF", .version = 3, .alignment = 32, .cut_at = -1};
}

static ts_gguf *open_file(bad_file *f)
{
    char path[64];
    ts_gguf *g = NULL;
    snprintf(path, sizeof path, "%s/t.gguf", dir);
    CHECK(bad_write(f, path));
    GOOD(ts_gguf_open(&g, path, &err));
    unlink(path);
    if (!g)
        exit(check_done("gguf")); /* nothing below would mean anything */
    return g;
}

static ts_status open_image(const bad_bytes *b, size_t n)
{
    ts_str file = {(const char *)b->p, n};
    ts_gguf *g = NULL;
    memset(&err, 0, sizeof err);
    ts_status st = ts_gguf_open_mem(&g, &file, 1, &err);
    CHECK((st == TS_OK) == (g != NULL));
    ts_gguf_close(g);
    return st;
}

/* --- metadata ----------------------------------------------------------- */

static void scalars(uint32_t version)
{
    static const struct {
        const char *key;
        ts_gguf_type type;
        int64_t v;
    } ints[] = {
        {"u8", TS_GGUF_U8, 255},          {"i8", TS_GGUF_I8, -128},
        {"u16", TS_GGUF_U16, 65535},      {"i16", TS_GGUF_I16, -32768},
        {"u32", TS_GGUF_U32, UINT32_MAX}, {"i32", TS_GGUF_I32, INT32_MIN},
        {"u64", TS_GGUF_U64, INT64_MAX},  {"i64", TS_GGUF_I64, INT64_MIN},
    };
    enum { N = sizeof ints / sizeof *ints };
    bad_file f = plain();
    f.version = version;
    for (size_t i = 0; i < N; i++)
        bad_set_int(&f, ints[i].key, ints[i].type, ints[i].v);
    bad_set_int(&f, "big", TS_GGUF_U64, -1);
    bad_set_int(&f, "yes", TS_GGUF_BOOL, 1);
    bad_set_float(&f, "f32", -1.5);
    bad_set(&f, "f64", TS_GGUF_F64, &(double){1e300}, 8);
    bad_set_float(&f, "nan", NAN);
    bad_set_str(&f, "str", "hello");
    bad_set_str(&f, "nothing", "");
    ts_gguf *g = open_file(&f);
    CHECK(ts_gguf_version(g) == version && ts_gguf_n_shards(g) == 1 && ts_gguf_n_tensors(g) == 0);
    CHECK(ts_gguf_n_kv(g) == N + 7 && strcmp(ts_gguf_kv_at(g, 1)->key, "i8") == 0);

    int64_t x;
    double d;
    bool b, found;
    ts_str s;
    for (size_t i = 0; i < N; i++) {
        const char *key = ints[i].key;
        int64_t v = ints[i].v;
        CHECK(ts_gguf_find(g, key)->type == ints[i].type);
        GOOD(ts_gguf_get_int(g, key, INT64_MIN, INT64_MAX, &x, &found, &err));
        CHECK_MSG(found && x == v, "%s", key);
        GOOD(ts_gguf_get_int(g, key, v, v, &x, NULL, &err));
        GOOD(ts_gguf_get_float(g, key, &d, NULL, &err));
        CHECK_MSG(d == (double)v, "%s", key);
        x = 77;
        if (v > 0)
            BAD(ts_gguf_get_int(g, key, 0, v - 1, &x, NULL, &err), TS_BAD_FILE,
                "it must lie between 0 and");
        else
            BAD(ts_gguf_get_int(g, key, -100, 0, &x, NULL, &err), TS_BAD_FILE,
                "between -100 and 0");
        CHECK(x == 77);
        BAD(ts_gguf_get_str(g, key, &s, NULL, &err), TS_BAD_FILE, "it must be string");
        BAD(ts_gguf_get_bool(g, key, &b, NULL, &err), TS_BAD_FILE, "it must be bool");
    }
    BAD(ts_gguf_get_int(g, "big", INT64_MIN, INT64_MAX, &x, NULL, &err), TS_BAD_FILE,
        "key 'big' is 18446744073709551615");
    BAD(ts_gguf_get_int(g, "u8", 256, 300, &x, NULL, &err), TS_BAD_FILE,
        "key 'u8' is 255, it must");
    BAD(ts_gguf_get_int(g, "i64", 0, 5, &x, NULL, &err), TS_BAD_FILE, "is -9223372036854775808");
    BAD(ts_gguf_get_int(g, "f32", 0, 5, &x, NULL, &err), TS_BAD_FILE,
        "has type f32, it must be an integer");
    BAD(ts_gguf_get_int(g, "yes", 0, 5, &x, NULL, &err), TS_BAD_FILE, "has type bool");
    GOOD(ts_gguf_get_bool(g, "yes", &b, &found, &err));
    CHECK(b && found);
    GOOD(ts_gguf_get_float(g, "f32", &d, NULL, &err));
    CHECK(d == -1.5);
    GOOD(ts_gguf_get_float(g, "f64", &d, NULL, &err));
    CHECK(d == 1e300);
    GOOD(ts_gguf_get_float(g, "big", &d, NULL, &err));
    CHECK(d == 0x1p64);
    BAD(ts_gguf_get_float(g, "nan", &d, NULL, &err), TS_BAD_FILE, "nan, it must be finite");
    BAD(ts_gguf_get_float(g, "str", &d, NULL, &err), TS_BAD_FILE, "it must be a number");
    GOOD(ts_gguf_get_str(g, "str", &s, NULL, &err));
    CHECK(s.n == 5 && memcmp(s.s, "hello", 5) == 0);
    GOOD(ts_gguf_get_str(g, "nothing", &s, NULL, &err));
    CHECK(s.n == 0);

    /* absent: the default stays */
    x = 42;
    GOOD(ts_gguf_get_int(g, "absent", 0, 1, &x, &found, &err));
    CHECK(x == 42 && !found && !ts_gguf_find(g, "absent") && !ts_gguf_find(g, ""));
    ts_gguf_close(g);
    bad_free(&f);
}

/* --- arrays ------------------------------------------------------------- */

static void set_arr(bad_file *f, const char *key, uint32_t type, uint64_t n, const void *p,
                    size_t size)
{
    bad_bytes b = {0};
    bad_put_u32(&b, type);
    bad_put_u64(&b, n);
    bad_put(&b, p, size);
    bad_set(f, key, TS_GGUF_ARR, b.p, b.n);
    free(b.p);
}

static ts_gguf_arr get_arr(const ts_gguf *g, const char *key, ts_gguf_type type)
{
    ts_gguf_arr a = {0};
    GOOD(ts_gguf_get_arr(g, key, type, &a, NULL, &err));
    return a;
}

#define NUMBERS(key, ctype, type, a_, b_, c_)                                                      \
    do {                                                                                           \
        const ctype v_[] = {a_, b_, c_};                                                           \
        set_arr(&f, key, type, 3, v_, sizeof v_);                                                  \
    } while (0)

static void number_arrays(void)
{
    bad_file f = plain();
    NUMBERS("u8", uint8_t, TS_GGUF_U8, 0, 1, 255);
    NUMBERS("i8", int8_t, TS_GGUF_I8, -128, 0, 127);
    NUMBERS("u16", uint16_t, TS_GGUF_U16, 0, 1, 65535);
    NUMBERS("i16", int16_t, TS_GGUF_I16, -32768, 0, 32767);
    NUMBERS("u32", uint32_t, TS_GGUF_U32, 0, 1, UINT32_MAX);
    NUMBERS("i32", int32_t, TS_GGUF_I32, INT32_MIN, 0, INT32_MAX);
    NUMBERS("u64", uint64_t, TS_GGUF_U64, 0, 1, UINT64_MAX);
    NUMBERS("i64", int64_t, TS_GGUF_I64, INT64_MIN, 0, INT64_MAX);
    NUMBERS("f32", float, TS_GGUF_F32, -1.5f, 0, NAN);
    NUMBERS("f64", double, TS_GGUF_F64, -1e300, 0.25, 1e300);
    NUMBERS("bool", uint8_t, TS_GGUF_BOOL, 0, 1, 1);
    set_arr(&f, "none", TS_GGUF_F32, 0, NULL, 0);
    ts_gguf *g = open_file(&f);
    static const struct {
        const char *key;
        ts_gguf_type type;
        int64_t first, last;
    } want[] = {
        {"u8", TS_GGUF_U8, 0, 255},
        {"i8", TS_GGUF_I8, -128, 127},
        {"u16", TS_GGUF_U16, 0, 65535},
        {"i16", TS_GGUF_I16, -32768, 32767},
        {"u32", TS_GGUF_U32, 0, UINT32_MAX},
        {"i32", TS_GGUF_I32, INT32_MIN, INT32_MAX},
        {"u64", TS_GGUF_U64, 0, INT64_MAX}, /* saturated */
        {"i64", TS_GGUF_I64, INT64_MIN, INT64_MAX},
        {"f32", TS_GGUF_F32, -1, 0}, /* towards zero; NaN is 0 */
        {"f64", TS_GGUF_F64, INT64_MIN, INT64_MAX},
        {"bool", TS_GGUF_BOOL, 0, 1},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ts_gguf_arr a = get_arr(g, want[i].key, want[i].type);
        CHECK_MSG(a.n == 3 && ts_gguf_arr_int(&a, 0) == want[i].first &&
                      ts_gguf_arr_int(&a, 2) == want[i].last,
                  "%s: %lld %lld", want[i].key, (long long)ts_gguf_arr_int(&a, 0),
                  (long long)ts_gguf_arr_int(&a, 2));
        if (want[i].type != TS_GGUF_F32 && want[i].type != TS_GGUF_F64 &&
            want[i].type != TS_GGUF_U64)
            CHECK_MSG(ts_gguf_arr_float(&a, 2) == (double)want[i].last, "%s", want[i].key);
    }
    ts_gguf_arr a = get_arr(g, "f64", TS_GGUF_F64);
    CHECK(ts_gguf_arr_float(&a, 0) == -1e300 && ts_gguf_arr_float(&a, 1) == 0.25);
    a = get_arr(g, "u64", TS_GGUF_U64);
    CHECK(ts_gguf_arr_float(&a, 2) == 0x1p64);
    CHECK(get_arr(g, "none", TS_GGUF_F32).n == 0);
    BAD(ts_gguf_get_arr(g, "u8", TS_GGUF_I8, &a, NULL, &err), TS_BAD_FILE,
        "key 'u8' has type array of u8, it must be array of i8");
    int64_t x;
    BAD(ts_gguf_get_int(g, "u8", 0, 9, &x, NULL, &err), TS_BAD_FILE,
        "array of u8, it must be an integer");
    ts_gguf_close(g);
    bad_free(&f);
}

/* ["one", "", "\xff"] and [["one", "", "\xff"], [], [[7, 9]], [1.0, 2.0]] */
static void other_arrays(void)
{
    bad_file f = plain();
    bad_bytes strs = {0}, nest = {0};
    bad_put_str(&strs, "one", 3);
    bad_put_str(&strs, "", 0);
    bad_put_str(&strs, "\xff", 1);
    set_arr(&f, "strs", TS_GGUF_STR, 3, strs.p, strs.n);
    bad_put_u32(&nest, TS_GGUF_STR);
    bad_put_u64(&nest, 3);
    bad_put(&nest, strs.p, strs.n);
    bad_put_u32(&nest, TS_GGUF_ARR);
    bad_put_u64(&nest, 0);
    bad_put_u32(&nest, TS_GGUF_ARR);
    bad_put_u64(&nest, 1);
    bad_put_u32(&nest, TS_GGUF_U8);
    bad_put_u64(&nest, 2);
    bad_put(&nest, "\7\11", 2);
    bad_put_u32(&nest, TS_GGUF_F64);
    bad_put_u64(&nest, 2);
    bad_put(&nest, (double[]){1, 2}, 16);
    set_arr(&f, "nest", TS_GGUF_ARR, 4, nest.p, nest.n);
    bad_set_str(&f, "after", "here");
    free(strs.p);
    free(nest.p);
    ts_gguf *g = open_file(&f);
    ts_str s[3];
    ts_gguf_arr a = get_arr(g, "strs", TS_GGUF_STR), in[4], inner;
    REQUIRE(a.n == 3);
    ts_gguf_arr_strs(&a, s);
    CHECK(s[0].n == 3 && memcmp(s[0].s, "one", 3) == 0 && s[1].n == 0 && s[2].n == 1);
    a = get_arr(g, "nest", TS_GGUF_ARR);
    REQUIRE(a.n == 4);
    ts_gguf_arr_arrs(&a, in);
    CHECK(in[0].type == TS_GGUF_STR && in[0].n == 3 && in[1].type == TS_GGUF_ARR && in[1].n == 0);
    CHECK(in[2].type == TS_GGUF_ARR && in[2].n == 1 && in[3].type == TS_GGUF_F64);
    CHECK(in[3].n == 2 && ts_gguf_arr_float(&in[3], 1) == 2);
    ts_gguf_arr_arrs(&in[2], &inner);
    CHECK(inner.n == 2 && ts_gguf_arr_int(&inner, 1) == 9);
    ts_gguf_arr_strs(&in[0], s);
    CHECK(s[2].n == 1 && s[2].s[0] == '\xff');
    CHECK(ts_gguf_find(g, "after") != NULL);
    ts_gguf_close(g);
    bad_free(&f);
}

/* --- tensors ------------------------------------------------------------ */

static void model(uint32_t version, uint64_t alignment)
{
    bad_file f;
    bad_model(&f, false);
    f.version = version;
    f.alignment = alignment;
    if (alignment != 32)
        bad_set_int(&f, "general.alignment", TS_GGUF_U32, (int64_t)alignment);
    bad_tensor *t = bad_add_tensor(&f, "q4", TS_TYPE_Q4_0, 2 * 3 * 18, 3, 64, 1);
    t->ne[2] = 3;
    bad_add_tensor(&f, "one", TS_TYPE_F16, 2, 1, 1, 1);
    bad_layout(&f);
    f.data_size = f.tensor[f.tensors - 1].offset + 2; /* no padding after the last */
    ts_gguf *g = open_file(&f);
    CHECK(ts_gguf_version(g) == version && ts_gguf_n_tensors(g) == 13);
    const ts_tensor *q4 = ts_gguf_tensor(g, "q4"), *one = ts_gguf_tensor(g, "one");
    REQUIRE(q4 && one);
    CHECK(q4 == ts_gguf_tensor_at(g, 11) && !ts_gguf_tensor(g, "q5") && !ts_gguf_tensor(g, ""));
    CHECK(q4->type == TS_TYPE_Q4_0 && q4->n_dims == 3 && q4->ne[0] == 64 && q4->ne[1] == 1 &&
          q4->ne[2] == 3 && q4->ne[3] == 1);
    CHECK(q4->size == 108 && q4->offset % alignment == 0 && q4->shard == 0);
    CHECK(one->size == 2 && one->offset + 2 == ts_gguf_file_bytes(g));
    CHECK((const uint8_t *)one->data - (const uint8_t *)q4->data ==
          (ptrdiff_t)(one->offset - q4->offset));
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *x = ts_gguf_tensor_at(g, i);
        const uint8_t *p = x->data;
        CHECK_MSG(p[0] == 0 && p[x->size - 1] == 0, "%s", x->name);
        ts_gguf_drop(g, x->data, x->size);
        CHECK_MSG(p[0] == 0 && p[x->size - 1] == 0, "%s after drop", x->name);
    }
    ts_gguf_close(g);
    bad_free(&f);
}

/* Dropped pages leave the resident set; the bytes stay. */
static void drop_frees(void)
{
    enum { MB = 1 << 20, SIZE = 8 * MB };
    bad_file f = plain();
    bad_add_tensor(&f, "w", TS_TYPE_F32, SIZE, 1, SIZE / 4, 1);
    bad_layout(&f);
    ts_gguf *g = open_file(&f);
    const uint8_t *p = ts_gguf_tensor(g, "w")->data;
    uint64_t sum = 0;
    for (size_t i = 0; i < SIZE; i += 512)
        sum += p[i];
    long pages[2], skipped;
    for (int i = 0; i < 2; i++) {
        FILE *statm = fopen("/proc/self/statm", "r");
        CHECK(statm && fscanf(statm, "%ld %ld", &skipped, &pages[i]) == 2);
        if (statm)
            fclose(statm);
        ts_gguf_drop(g, p, SIZE);
    }
    CHECK_MSG(pages[0] - pages[1] > 7 * MB / sysconf(_SC_PAGESIZE), "%ld -> %ld pages", pages[0],
              pages[1]);
    CHECK(sum == 0 && p[SIZE - 1] == 0);
    ts_gguf_close(g);
    bad_free(&f);
}

/* --- split models ------------------------------------------------------- */

enum { SHARDS = 3 };

static void shard_path(char out[128], int i)
{
    snprintf(out, 128, "%s/s-%05d-of-%05d.gguf", dir, i + 1, SHARDS);
}

static void split_keys(bad_file *f, int no, int count, int tensors)
{
    bad_set_int(f, "split.no", TS_GGUF_U16, no);
    bad_set_int(f, "split.count", TS_GGUF_U16, count);
    bad_set_int(f, "split.tensors.count", TS_GGUF_I32, tensors);
}

/* Shard i of three: 1, 2 and 3 tensors. `what` is spoilt in shard 1. */
static void write_shard(int i, const char *what)
{
    bool spoil = i == 1;
    char path[128], name[16];
    bad_file f = plain();
    split_keys(&f, spoil && !strcmp(what, "no") ? 2 : i,
               spoil && !strcmp(what, "count") ? 4 : SHARDS,
               spoil && !strcmp(what, "tensors") ? 7 : 6);
    if (i == 0)
        bad_set_str(&f, "general.architecture", "none");
    for (int k = 0; k <= i; k++) {
        snprintf(name, sizeof name, spoil && !strcmp(what, "twin") ? "t0.0" : "t%d.%d", i, k);
        bad_add_tensor(&f, name, TS_TYPE_F32, 32, 1, 8, 1);
    }
    if (spoil && !strcmp(what, "fewer")) {
        free(f.tensor[1].name.p);
        f.tensors = 1;
        f.n_tensors = 1;
    }
    bad_layout(&f);
    if (spoil && !strcmp(what, "version"))
        f.version = 9;
    shard_path(path, i);
    CHECK(bad_write(&f, path));
    bad_free(&f);
}

static void write_split(const char *what)
{
    for (int i = 0; i < SHARDS; i++)
        write_shard(i, what);
}

static void split_models(void)
{
    char path[128], other[128];
    ts_gguf *g = NULL;
    write_split("nothing");
    for (int named = 0; named < SHARDS; named++) {
        shard_path(path, named);
        GOOD(ts_gguf_open(&g, path, &err));
        REQUIRE(g);
        CHECK(ts_gguf_n_shards(g) == SHARDS && ts_gguf_n_tensors(g) == 6);
        CHECK(ts_gguf_find(g, "general.architecture") && ts_gguf_n_kv(g) == 4);
        CHECK(strstr(ts_gguf_path(g), "s-00001-of-00003.gguf"));
        const ts_tensor *t = ts_gguf_tensor(g, "t2.1");
        REQUIRE(t);
        CHECK(t->shard == 2 && t == ts_gguf_tensor_at(g, 4) && *(const uint8_t *)t->data == 0);
        struct stat sb;
        uint64_t bytes = 0;
        for (int i = 0; i < SHARDS; i++) {
            shard_path(other, i);
            bytes += stat(other, &sb) == 0 ? (uint64_t)sb.st_size : 0;
        }
        CHECK(ts_gguf_file_bytes(g) == bytes);
        ts_gguf_close(g);
        g = NULL;
    }

    static const char *const faults[][2] = {
        {"no", "key 'split.no' is 2, but it must be 1 in shard 2"},
        {"count", "key 'split.count' is 4, but it must be 3 in shard 2"},
        {"tensors", "key 'split.tensors.count' is 7, but it must be 6 in shard 2"},
        {"fewer", "key 'split.tensors.count' is 6, but the shards hold 5 tensors"},
        {"twin", "'t0.0' at byte"},
        {"version", "s-00002-of-00003.gguf: GGUF version 9"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        write_split(faults[i][0]);
        shard_path(path, 0);
        ts_status want = strcmp(faults[i][0], "version") ? TS_BAD_FILE : TS_UNSUPPORTED;
        BAD(ts_gguf_open(&g, path, &err), want, faults[i][1]);
        CHECK(g == NULL);
    }
    write_split("nothing");
    shard_path(other, 1);
    unlink(other);
    shard_path(path, 2);
    BAD(ts_gguf_open(&g, path, &err), TS_IO,
        "s-00002-of-00003.gguf: No such file or directory (shard 2 of 3");
    shard_path(other, 0);
    unlink(other);
    BAD(ts_gguf_open(&g, path, &err), TS_IO,
        "s-00001-of-00003.gguf: No such file or directory (shard 1");
    snprintf(other, sizeof other, "%s/renamed.gguf", dir);
    CHECK(rename(path, other) == 0);
    BAD(ts_gguf_open(&g, other, &err), TS_BAD_FILE, "its name must end in '-00003-of-00003.gguf'");
    unlink(other);
}

/* --- what is no model file ------------------------------------------------ */

static void no_models(void)
{
    char path[512];
    ts_gguf *g = NULL;
    BAD(ts_gguf_open(&g, dir, &err), TS_IO, "this is a directory");
    snprintf(path, sizeof path, "%s/absent.gguf", dir);
    BAD(ts_gguf_open(&g, path, &err), TS_IO, "absent.gguf: No such file");
    CHECK(mkfifo(path, 0600) == 0);
    BAD(ts_gguf_open(&g, path, &err), TS_IO, "this is no regular file");
    unlink(path);
    FILE *f = fopen(path, "w");
    REQUIRE(f);
    fputs("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", f);
    fclose(f);
    BAD(ts_gguf_open(&g, path, &err), TS_BAD_FILE, "a Git LFS pointer");
    CHECK(chmod(path, 0) == 0);
    bool root = geteuid() == 0; /* who may read everything */
    if (!root || seteuid(65534) == 0)
        BAD(ts_gguf_open(&g, path, &err), TS_IO, "Permission denied");
    if (root)
        CHECK(seteuid(0) == 0);
    unlink(path);
    /* a long path keeps the end that tells files apart */
    memset(path, 'x', sizeof path);
    snprintf(path + 300, sizeof path - 300, "/end.gguf");
    BAD(ts_gguf_open(&g, path, &err), TS_IO, "/end.gguf: ");
    CHECK(strncmp(err.msg, "...xxx", 6) == 0 && strlen(err.msg) < 260);
    CHECK(g == NULL && ts_gguf_open(&g, path, NULL) == TS_IO);
    ts_gguf_close(NULL);
}

/* A file that ends early is refused wherever it ends, except in the padding after the last tensor.
 */
static void truncation(void)
{
    bad_file f;
    bad_model(&f, true);
    bad_bytes b = bad_image(&f);
    size_t table = b.n - f.data_size;
    CHECK_MSG(open_image(&b, b.n) == TS_OK, "%s", err.msg);
    for (size_t n = 0; n < b.n; n += n < table ? 1 : 997) {
        uint8_t *exact = malloc(n + 1); /* so that the sanitizer sees the first byte past the end */
        REQUIRE(exact);
        memcpy(exact, b.p, n);
        exact = realloc(exact, n ? n : 1);
        REQUIRE(exact);
        CHECK_MSG(open_image(&(bad_bytes){.p = exact}, n) == TS_BAD_FILE, "%zu of %zu bytes", n,
                  b.n);
        CHECK_MSG(strncmp(err.msg, "memory-00001", 12) == 0, "%s", err.msg);
        free(exact);
    }
    free(b.p);
    bad_free(&f);
}

/* Every byte of the header and tables, changed: accepted or refused, never out of bounds. */
static void corruption(void)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    bad_file f;
    bad_model(&f, false);
    bad_bytes b = bad_image(&f);
    size_t refused = 0, table = b.n - f.data_size;
    for (size_t i = 0; i < table; i++) {
        for (size_t k = 0; k < sizeof masks; k++) {
            b.p[i] ^= masks[k];
            refused += open_image(&b, b.n) != TS_OK;
            b.p[i] ^= masks[k];
        }
    }
    CHECK_MSG(refused > table, "%zu of %zu", refused, 3 * table);
    free(b.p);
    bad_free(&f);
}

/* Names are found, and found to be twice, also when there are very many. */
static void many_names(void)
{
    enum { N = 20000 };
    bad_file f = plain();
    char name[32];
    bad_bytes one = {0};
    f.kv = calloc(N, sizeof *f.kv);
    REQUIRE(f.kv);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%d", i % (N - 1));
        f.kv[i] = (bad_kv){.key_len = strlen(name), .type = TS_GGUF_U32};
        bad_put(&f.kv[i].key, name, strlen(name));
        bad_put_u32(&f.kv[i].value, (uint32_t)i);
    }
    f.kvs = N;
    f.n_kv = N - 1;
    ts_gguf *g = open_file(&(bad_file){.magic = "GGUF",
                                       .version = 3,
                                       .alignment = 32,
                                       .cut_at = -1,
                                       .kv = f.kv,
                                       .kvs = N - 1,
                                       .n_kv = N - 1});
    int64_t v = 0, wrong = 0;
    for (int i = 0; i < N - 1; i++) {
        snprintf(name, sizeof name, "key.%d", i);
        wrong += ts_gguf_get_int(g, name, 0, N, &v, NULL, &err) || v != i;
    }
    CHECK_MSG(wrong == 0, "%lld", (long long)wrong);
    CHECK(!ts_gguf_find(g, "key.19999") && !ts_gguf_find(g, "key."));
    ts_gguf_close(g);
    f.n_kv = N;
    one = bad_image(&f);
    CHECK(open_image(&one, one.n) == TS_BAD_FILE);
    CHECK_MSG(strstr(err.msg, "metadata pair 19999 'key.0' at byte") &&
                  strstr(err.msg, "occurs twice"),
              "%s", err.msg);
    free(one.p);
    bad_free(&f);
}

/* The longest key that the format allows. */
static void long_key(void)
{
    static char key[GGUF_MAX_KEY + 1];
    bad_file f = plain();
    int64_t v = 0;
    memset(key, 'k', GGUF_MAX_KEY);
    bad_set_int(&f, "before", TS_GGUF_U8, 1);
    bad_set_int(&f, key, TS_GGUF_U8, 2);
    bad_set_int(&f, "after", TS_GGUF_U8, 3);
    ts_gguf *g = open_file(&f);
    GOOD(ts_gguf_get_int(g, key, 2, 2, &v, NULL, &err));
    CHECK(v == 2 && strlen(ts_gguf_kv_at(g, 1)->key) == GGUF_MAX_KEY);
    CHECK(ts_gguf_find(g, "before") && ts_gguf_find(g, "after"));
    ts_gguf_close(g);
    bad_free(&f);
}

/* Each shard holds a number of tensors that is allowed, together they hold one too many. */
static void too_many_tensors(void)
{
    ts_str files[2];
    char name[32];
    for (int i = 0; i < 2; i++) {
        bad_file f = plain();
        split_keys(&f, i, 2, GGUF_MAX_ITEMS);
        f.tensors = f.n_tensors = i ? 1 : GGUF_MAX_ITEMS;
        f.tensor = calloc(f.tensors, sizeof *f.tensor);
        REQUIRE(f.tensor);
        for (size_t k = 0; k < f.tensors; k++) {
            bad_tensor *t = &f.tensor[k];
            int n = snprintf(name, sizeof name, "%d.%zu", i, k);
            *t = (bad_tensor){.name_len = (uint64_t)n, .n_dims = 1, .ne = {1}, .size = 4};
            bad_put(&t->name, name, (size_t)n);
        }
        bad_layout(&f);
        bad_bytes b = bad_image(&f);
        files[i] = (ts_str){(const char *)b.p, b.n};
        bad_free(&f);
    }
    ts_gguf *g = NULL;
    BAD(ts_gguf_open_mem(&g, files, 2, &err), TS_BAD_FILE,
        "more than 131072 tensors in all shards");
    CHECK(g == NULL);
    for (int i = 0; i < 2; i++)
        free((void *)(uintptr_t)files[i].s);
}

/* --- time --------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A vocabulary of 150,000 tokens with scores, types and as many merges. */
static void big_vocabulary(void)
{
    enum { N = 150000 };
    bad_file f = plain();
    bad_bytes tokens = {0}, merges = {0};
    char s[32];
    for (int i = 0; i < N; i++) {
        bad_put_str(&tokens, s, (size_t)snprintf(s, sizeof s, "t%x", i * 7));
        bad_put_str(&merges, s, (size_t)snprintf(s, sizeof s, "t%x u%x", i, i * 3));
    }
    void *zeros = calloc(N, 4);
    REQUIRE(zeros);
    set_arr(&f, "tokenizer.ggml.tokens", TS_GGUF_STR, N, tokens.p, tokens.n);
    set_arr(&f, "tokenizer.ggml.merges", TS_GGUF_STR, N, merges.p, merges.n);
    set_arr(&f, "tokenizer.ggml.scores", TS_GGUF_F32, N, zeros, 4 * (size_t)N);
    set_arr(&f, "tokenizer.ggml.token_type", TS_GGUF_I32, N, zeros, 4 * (size_t)N);
    char path[64];
    snprintf(path, sizeof path, "%s/vocab.gguf", dir);
    CHECK(bad_write(&f, path));
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        ts_gguf *g = NULL;
        double t0 = now();
        GOOD(ts_gguf_open(&g, path, &err));
        double t = now() - t0;
        best = t < best ? t : best;
        ts_gguf_close(g);
    }
    unlink(path);
    printf("gguf: metadata of 150,000 tokens and merges opens in %.2f ms\n", 1e3 * best);
    CHECK_MSG(best < 0.1, "%.3f s", best); /* with room for sanitizers and a busy machine */
    free(zeros);
    free(tokens.p);
    free(merges.p);
    bad_free(&f);
}

/* --- findings of the fuzzer ----------------------------------------------- */

static void replay(const char *folder)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/fuzz/%s", TS_TEST_DIR, folder);
    DIR *d = opendir(path);
    if (!d)
        return; /* nothing found yet */
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/fuzz/%s/%.255s", TS_TEST_DIR, folder, e->d_name);
        ts_gguf *g = NULL;
        memset(&err, 0, sizeof err);
        ts_status st = ts_gguf_open(&g, path, &err);
        CHECK_MSG(st == TS_OK || strstr(err.msg, e->d_name), "%s: %s", e->d_name, err.msg);
        ts_gguf_close(g);
    }
    closedir(d);
}

int main(void)
{
    REQUIRE(mkdtemp(dir));
    scalars(2);
    scalars(3);
    number_arrays();
    other_arrays();
    model(3, 32);
    model(2, 32);
    model(3, 8);
    model(3, 4096);
    drop_frees();
    split_models();
    no_models();
    truncation();
    corruption();
    many_names();
    long_key();
    too_many_tensors();
    big_vocabulary();
    replay("corpus_gguf");
    replay("regress_gguf");
    CHECK(rmdir(dir) == 0);
    return check_done("gguf");
}

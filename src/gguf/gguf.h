/* gguf.h - GGUF v2 and v3 files, read only, memory-mapped, every length checked.
 *
 * Owns the mappings of all shards; a file that is truncated meanwhile ends the process with SIGBUS
 * when its lost pages are read, so replace a model by renaming. Strings and arrays point into the
 * mapping and are not NUL-terminated; key and tensor names are copied and are. Immutable once open.
 */
#ifndef TS_GGUF_H
#define TS_GGUF_H

#include "gguf/type.h"

typedef enum ts_gguf_type {
    TS_GGUF_U8 = 0,
    TS_GGUF_I8 = 1,
    TS_GGUF_U16 = 2,
    TS_GGUF_I16 = 3,
    TS_GGUF_U32 = 4,
    TS_GGUF_I32 = 5,
    TS_GGUF_F32 = 6,
    TS_GGUF_BOOL = 7,
    TS_GGUF_STR = 8,
    TS_GGUF_ARR = 9,
    TS_GGUF_U64 = 10,
    TS_GGUF_I64 = 11,
    TS_GGUF_F64 = 12,
} ts_gguf_type;

typedef struct ts_str {
    const char *s; /* not NUL-terminated */
    size_t n;
} ts_str;

typedef struct ts_gguf_arr {
    ts_gguf_type type; /* of the elements; TS_GGUF_ARR nests */
    uint64_t n;
    const uint8_t *data; /* n elements as in the file, unaligned; all proved to lie in the file */
} ts_gguf_arr;

typedef struct ts_gguf_kv {
    const char *key;
    ts_gguf_type type;
    union {
        uint64_t u; /* U8..U64, BOOL (0 or 1) */
        int64_t i;  /* I8..I64 */
        double f;   /* F32, F64 */
        ts_str str;
        ts_gguf_arr arr;
    } v;
} ts_gguf_kv;

typedef struct ts_tensor {
    const char *name;
    ts_type type;     /* one that ts_type_get knows */
    int n_dims;       /* 1..4 */
    int64_t ne[4];    /* ne[0] is the contiguous one (k); those past n_dims are 1 */
    const void *data; /* in the mapping, proved to hold `size` bytes */
    size_t size;
    uint64_t offset; /* in its shard's file */
    int shard;
} ts_tensor;

typedef struct ts_gguf ts_gguf;

ts_status ts_gguf_open(ts_gguf **out, const char *path, ts_error *err);
void ts_gguf_close(ts_gguf *g);

const char *ts_gguf_path(const ts_gguf *g); /* for sentences: a long one keeps its end */
uint32_t ts_gguf_version(const ts_gguf *g);
int ts_gguf_n_shards(const ts_gguf *g);
uint64_t ts_gguf_file_bytes(const ts_gguf *g); /* all shards */

size_t ts_gguf_n_kv(const ts_gguf *g); /* of the first shard, in file order */
const ts_gguf_kv *ts_gguf_kv_at(const ts_gguf *g, size_t i);
const ts_gguf_kv *ts_gguf_find(const ts_gguf *g, const char *key); /* NULL if absent; hashed */

size_t ts_gguf_n_tensors(const ts_gguf *g); /* of all shards */
const ts_tensor *ts_gguf_tensor_at(const ts_gguf *g, size_t i);
const ts_tensor *ts_gguf_tensor(const ts_gguf *g, const char *name); /* NULL if absent; hashed */

/* Typed reads. An absent key leaves *out alone (so preset the default) and sets *found (may be
 * NULL) to false; a key of the wrong type or out of range is TS_BAD_FILE naming file, key and
 * value. Any integer type is taken for an integer, float or integer for a float. */
ts_status ts_gguf_get_int(const ts_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                          bool *found, ts_error *err);
ts_status ts_gguf_get_float(const ts_gguf *g, const char *key, double *out, bool *found,
                            ts_error *err);
ts_status ts_gguf_get_bool(const ts_gguf *g, const char *key, bool *out, bool *found,
                           ts_error *err);
ts_status ts_gguf_get_str(const ts_gguf *g, const char *key, ts_str *out, bool *found,
                          ts_error *err);
/* An array whose elements have type `elem`. */
ts_status ts_gguf_get_arr(const ts_gguf *g, const char *key, ts_gguf_type elem, ts_gguf_arr *out,
                          bool *found, ts_error *err);

/* Element i of an integer, float or bool array as double / int64 (i < n is the caller's to prove).
 */
int64_t ts_gguf_arr_int(const ts_gguf_arr *a, uint64_t i);
double ts_gguf_arr_float(const ts_gguf_arr *a, uint64_t i);

/* All strings of a string array: out[a->n]. */
void ts_gguf_arr_strs(const ts_gguf_arr *a, ts_str *out);

/* The inner arrays of an array of arrays: out[a->n]. */
void ts_gguf_arr_arrs(const ts_gguf_arr *a, ts_gguf_arr *out);

/* Shard i as a file: all its bytes, where the data of its tensors begins (its size if it has none),
 * and a number that changes whenever the file may have: of inode, size, times of change. */
typedef struct ts_gguf_file {
    const uint8_t *bytes; /* [size] */
    size_t size, data;
    uint64_t stamp;
} ts_gguf_file;
ts_gguf_file ts_gguf_file_at(const ts_gguf *g, int i);

/* Tells the kernel that these source bytes won't be read again soon: resident memory shrinks, the
 * bytes stay readable. */
void ts_gguf_drop(const ts_gguf *g, const void *p, size_t n);

#endif

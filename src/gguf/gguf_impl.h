/* gguf_impl.h - what the files of the loader share.
 *
 *   gguf.c        files and shards: open, map, put together, close, look up
 *   gguf_read.c   the bytes of one file: header and metadata, every length checked
 *   gguf_tensors.c  the same for the tensor table and the data it points to
 *   gguf_index.c  the name index and the memory that names live in
 *   gguf_get.c    typed reads of metadata
 */
#ifndef TS_GGUF_IMPL_H
#define TS_GGUF_IMPL_H

#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf/show.h"

/* Limits. The file's own length bounds every count; these bound what a long hostile file costs. */
enum {
    GGUF_MAX_ITEMS = 1 << 17, /* metadata pairs, and tensors of all shards         */
    GGUF_MAX_KEY = 65535,     /* bytes of a key (the format's own limit)            */
    GGUF_MAX_NAME = 64,       /* bytes of a tensor's name (the format's own limit)  */
    GGUF_MAX_DEPTH = 8,       /* arrays in arrays                                   */
    GGUF_ALIGNMENT = 32,      /* where general.alignment is absent                  */
};

/* Memory for NUL-terminated copies of names: a list of blocks, freed together. */
typedef struct gguf_names {
    struct names_block *head;
} gguf_names;

/* NULL when memory is short. */
const char *gguf_names_add(gguf_names *names, const void *s, size_t n);
void gguf_names_free(gguf_names *names);

/* Name -> number. Open addressing, at most half full. The hash is keyed with bytes that the kernel
 * chose for this process, so that a file can't hold names made to collide. */
typedef struct gguf_index {
    struct index_slot *slots; /* [cap], cap a power of two or 0 */
    size_t n, cap;
} gguf_index;

/* Stores name[n] (which must stay where it is) as number i. TS_OK; TS_BAD_FILE if it is there
 * already; TS_NO_MEMORY. Writes no sentence. */
ts_status gguf_index_add(gguf_index *ix, const char *name, size_t n, size_t i);
/* The number of name[n], or -1. */
int64_t gguf_index_find(const gguf_index *ix, const char *name, size_t n);
void gguf_index_free(gguf_index *ix);

/* The metadata of one file. */
typedef struct gguf_meta {
    ts_gguf_kv *kv; /* [n], in file order */
    size_t n, cap;
    gguf_index index;
    gguf_names names; /* of the keys */
} gguf_meta;

void gguf_meta_free(gguf_meta *m);

/* One file. */
typedef struct gguf_shard {
    char *path;          /* owned                                                     */
    char label[208];     /* the path as messages show it: long ones keep their end    */
    const uint8_t *data; /* [size]                                                    */
    size_t size;
    bool mapped;    /* data is ours to unmap (else the caller's memory)                  */
    uint64_t stamp; /* of ts_gguf_file; 0 for the caller's memory                       */
} gguf_shard;

struct ts_gguf {
    gguf_shard *shards; /* [n_shards] */
    int n_shards;
    uint32_t version;   /* of the first shard */
    gguf_meta meta;     /* of the first shard */
    ts_tensor *tensors; /* [n_tensors] in shard and file order */
    size_t n_tensors, cap_tensors;
    gguf_index index; /* of the tensors */
    gguf_names names; /* of the tensors */
};

/* Where in a file the reader stands; after gguf_read_meta it is at the tensor table. */
typedef struct gguf_reader {
    const gguf_shard *shard;
    uint64_t pos;
    uint32_t version;
    uint64_t n_kv, n_tensors;
    uint64_t alignment;
    const char *what; /* "metadata pair" or "tensor": what is being read, for messages */
    uint64_t item;    /* its number                                                 */
    uint64_t start;   /* the byte at which it starts                                */
    ts_str name;      /* its name once read (n = 0 before)                          */
    ts_error *err;
} gguf_reader;

/* "FILE: tensor 7 'output.weight' at byte 1234: " and the rest of the sentence. */
ts_status gguf_bad(gguf_reader *r, ts_status code, const char *fmt, ...) TS_PRINTF(3, 4);
ts_status gguf_no_memory(gguf_reader *r);
/* The next n bytes of the file into *to. */
ts_status gguf_take(gguf_reader *r, void *to, size_t n);
/* A key or a tensor's name into r->name: 1..max bytes, none of them zero. */
ts_status gguf_take_name(gguf_reader *r, const char *what, uint64_t max);
/* Makes room for element n of p[*cap], doubling: as realloc, and p is still good when it fails. */
void *gguf_room(void *p, size_t n, size_t *cap, size_t size);

/* Header and metadata of a shard. *m is zeroed by the caller and holds what was read, also after an
 * error (gguf_meta_free). */
ts_status gguf_read_meta(gguf_reader *r, const gguf_shard *shard, gguf_meta *m, ts_error *err);

/* The tensor table that follows; appends the tensors to g, their data proved to lie in the shard.
 */
ts_status gguf_read_tensors(gguf_reader *r, ts_gguf *g, int shard);

/* gguf_get.c works on any metadata, so that shards other than the first can be asked too. */
const ts_gguf_kv *gguf_meta_find(const gguf_meta *m, const char *key);
ts_status gguf_meta_get_int(const gguf_meta *m, const char *label, const char *key, int64_t min,
                            int64_t max, int64_t *out, bool *found, ts_error *err);

/* "u8", "string", ...; NULL for a number that is no type. */
const char *gguf_type_name(uint32_t type);
/* Bytes of a scalar of this type; 0 for strings, arrays and what is no type. */
size_t gguf_scalar_size(uint32_t type);

/* As ts_gguf_open, from memory: files[0] is the one that is named, and of a split model files[i] is
 * shard i. The bytes must outlive *out and start at a multiple of 8. */
ts_status ts_gguf_open_mem(ts_gguf **out, const ts_str *files, size_t n_files, ts_error *err);

#endif

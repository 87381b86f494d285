/* badgguf.h - malformed model files, made on purpose.
 *
 * A bad_file is a valid tiny model held as parts (metadata pairs, tensors, header fields); a case
 * spoils one part of it and bad_write lays the parts out as a GGUF file, faithfully: a wrong length
 * is written as it is. Every case names a defect that a published loader had (item 17 to 22 of the
 * list below) and a fragment of the sentence that must answer it.
 *
 *   17  counts and lengths believed: strings, metadata pairs, tensors, arrays, dimensions
 *   18  byte sizes that wrap in 64 bits
 *   19  data past the end of the file, or in another tensor's place
 *   20  general.alignment
 *   21  vocabulary; keys and tensors that occur twice
 *   22  hyperparameters
 */
#ifndef BADGGUF_H
#define BADGGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bad_bytes {
    uint8_t *p;
    size_t n, cap;
} bad_bytes;

typedef struct bad_kv {
    bad_bytes key;
    uint64_t key_len; /* what the file says; key.n unless spoilt */
    uint32_t type;
    bad_bytes value; /* as in the file, for arrays with their head */
} bad_kv;

typedef struct bad_tensor {
    bad_bytes name;
    uint64_t name_len;
    uint32_t n_dims; /* what the file says; as many of ne[] follow, at most 8 */
    uint64_t ne[8];
    uint32_t type;
    uint64_t offset; /* in the data; set by bad_layout */
    size_t size;     /* bytes laid out for it: zeros   */
} bad_tensor;

typedef struct bad_file {
    char magic[4];
    uint32_t version;
    uint64_t n_kv, n_tensors; /* what the header says */
    bad_kv *kv;
    size_t kvs; /* what there is */
    bad_tensor *tensor;
    size_t tensors;
    uint64_t alignment; /* that bad_write pads to */
    uint64_t data_size; /* of the data section    */
    int64_t cut_at;     /* >= 0: the file ends there */
    size_t cut_tail;    /* bytes missing at its end  */
    uint64_t grow;      /* bytes of hole appended to the file */
} bad_file;

/* Valid models: architecture llama, one layer, a SentencePiece or a byte-level BPE vocabulary. */
void bad_model(bad_file *f, bool bpe);
/* Makes a mixture of BAD_EXPERTS experts of one, architecture glm4moe, of which a token has two. */
enum { BAD_EXPERTS = 4 };
void bad_moe(bad_file *f);
void bad_free(bad_file *f);

/* false when the file can't be written. */
bool bad_write(const bad_file *f, const char *path);
/* The same into memory. */
bad_bytes bad_image(const bad_file *f);

/* Setting a key replaces it, or appends it. */
void bad_set(bad_file *f, const char *key, uint32_t type, const void *value, size_t n);
void bad_set_int(bad_file *f, const char *key, uint32_t type, int64_t v);
void bad_set_float(bad_file *f, const char *key, double v);
void bad_set_str(bad_file *f, const char *key, const char *s);
void bad_drop(bad_file *f, const char *key);
bad_kv *bad_find(bad_file *f, const char *key);
bad_tensor *bad_find_tensor(bad_file *f, const char *name);
bad_tensor *bad_add_tensor(bad_file *f, const char *name, uint32_t type, size_t size,
                           uint32_t n_dims, uint64_t ne0, uint64_t ne1);
/* Offsets one after another, and the size of the data. */
void bad_layout(bad_file *f);

void bad_put(bad_bytes *b, const void *p, size_t n);
void bad_put_u32(bad_bytes *b, uint32_t v);
void bad_put_u64(bad_bytes *b, uint64_t v);
void bad_put_str(bad_bytes *b, const char *s, size_t n);

typedef struct bad_case {
    const char *name;
    int item;
    enum { BAD_FILE_LEVEL, BAD_VOCAB, BAD_BPE_VOCAB, BAD_MODEL } level; /* who must notice */
    void (*spoil)(bad_file *f, const struct bad_case *c);
    const char *key; /* for the spoilers that many cases share */
    int64_t value;
    const char *expect; /* a fragment of the sentence */
} bad_case;

extern const bad_case bad_cases[];
extern const size_t n_bad_cases;

#endif

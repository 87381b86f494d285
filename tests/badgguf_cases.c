/* badgguf_cases.c - the list of malformed files. */
#include "badgguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of metadata types; 13 is none. */
enum { U8 = 0, U32 = 4, I32 = 5, BOOL = 7, STR = 8, ARR = 9, U64 = 10, NO_TYPE = 13 };
enum { N_VOCAB_SPM = 266 };
#define HUGE_N (UINT64_MAX - 7) /* plus the 8 bytes of a length: 0 */

typedef const bad_case cc;

/* --- spoilers shared by many cases ---------------------------------------- */

static void set_u32(bad_file *f, cc *c)
{
    bad_set_int(f, c->key, U32, c->value);
}

static void set_i32(bad_file *f, cc *c)
{
    bad_set_int(f, c->key, I32, c->value);
}

static void set_u64(bad_file *f, cc *c)
{
    bad_set_int(f, c->key, U64, c->value);
}

static void set_bool(bad_file *f, cc *c)
{
    bad_set_int(f, c->key, BOOL, c->value);
}

static void set_text(bad_file *f, cc *c)
{
    bad_set_str(f, c->key, "text");
}

static void set_nan(bad_file *f, cc *c)
{
    bad_set_float(f, c->key, NAN);
}

static void set_float(bad_file *f, cc *c)
{
    bad_set_float(f, c->key, (double)c->value);
}

static void drop(bad_file *f, cc *c)
{
    bad_drop(f, c->key);
}

/* An array of `value` zeros of type u32. */
static void set_zeros(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    bad_put_u32(&b, U32);
    bad_put_u64(&b, (uint64_t)c->value);
    for (int64_t i = 0; i < c->value; i++)
        bad_put_u32(&b, 0);
    bad_set(f, c->key, ARR, b.p, b.n);
    free(b.p);
}

/* Writes `value` over the element count of an array, or over the length of a string. */
static void set_length(bad_file *f, cc *c)
{
    bad_kv *kv = bad_find(f, c->key);
    uint64_t n = (uint64_t)c->value;
    memcpy(kv->value.p + (kv->type == ARR ? 4 : 0), &n, sizeof n);
}

/* Takes `value` elements of 4 bytes off the end of an array (adds, when negative). */
static void shorten(bad_file *f, cc *c)
{
    bad_kv *kv = bad_find(f, c->key);
    uint64_t n;
    memcpy(&n, kv->value.p + 4, sizeof n);
    n -= (uint64_t)c->value;
    for (int64_t i = c->value; i < 0; i++)
        bad_put_u32(&kv->value, 0);
    kv->value.n = 12 + 4 * n;
    memcpy(kv->value.p + 4, &n, sizeof n);
}

/* Replaces string number `i` of a string array. */
static void set_element(bad_file *f, const char *key, int64_t i, const char *s, size_t n)
{
    bad_kv *kv = bad_find(f, key);
    size_t at = 12;
    uint64_t len;
    for (;; i--) {
        memcpy(&len, kv->value.p + at, sizeof len);
        if (i == 0)
            break;
        at += 8 + len;
    }
    bad_bytes b = {0};
    bad_put(&b, kv->value.p, at);
    bad_put_str(&b, s, n);
    bad_put(&b, kv->value.p + at + 8 + len, kv->value.n - at - 8 - len);
    free(kv->value.p);
    kv->value = b;
}

static void rename_kv(bad_file *f, const char *from, const char *to, size_t n)
{
    bad_kv *kv = bad_find(f, from);
    kv->key.n = 0;
    bad_put(&kv->key, to, n);
    kv->key_len = n;
}

static void rename_tensor(bad_tensor *t, const char *to, size_t n)
{
    t->name.n = 0;
    bad_put(&t->name, to, n);
    t->name_len = n;
}

static bad_tensor *last_tensor(bad_file *f)
{
    return &f->tensor[f->tensors - 1];
}

/* --- 17: header and metadata ----------------------------------------------- */

static void cut_at(bad_file *f, cc *c)
{
    f->cut_at = c->value;
}

static void magic(bad_file *f, cc *c)
{
    memcpy(f->magic, c->key, 4);
}

static void version(bad_file *f, cc *c)
{
    f->version = (uint32_t)c->value;
}

static void kv_count(bad_file *f, cc *c)
{
    f->n_kv = (uint64_t)c->value;
}

static void kv_count_by(bad_file *f, cc *c)
{
    f->n_kv += (uint64_t)c->value;
}

static void tensor_count(bad_file *f, cc *c)
{
    f->n_tensors = (uint64_t)c->value;
}

/* The file is long enough for what it announces: only the loader's own limit is left. */
static void kv_count_in_hole(bad_file *f, cc *c)
{
    f->n_kv = (uint64_t)c->value;
    f->grow = 64 << 20;
}

static void tensor_count_in_hole(bad_file *f, cc *c)
{
    f->n_tensors = (uint64_t)c->value;
    f->grow = 64 << 20;
}

static void tensor_count_by(bad_file *f, cc *c)
{
    f->n_tensors += (uint64_t)c->value;
}

static void key_length(bad_file *f, cc *c)
{
    f->kv[3].key_len = (uint64_t)c->value;
}

static void key_empty(bad_file *f, cc *c)
{
    (void)c;
    rename_kv(f, "general.name", "", 0);
}

static void key_zero_byte(bad_file *f, cc *c)
{
    (void)c;
    rename_kv(f, "general.name", "general\0name", 12);
}

static void key_too_long(bad_file *f, cc *c)
{
    (void)c;
    char *s = malloc(70000);
    memset(s, 'k', 70000);
    rename_kv(f, "general.name", s, 70000);
    free(s);
}

/* Escape sequences in a key that the sentence must not pass on to the terminal. */
static void key_hostile(bad_file *f, cc *c)
{
    (void)c;
    rename_kv(f, "general.name", "\x1b]0;owned\x07\xc2\x9b\n", 13);
    bad_find(f, "\x1b]0;owned\x07\xc2\x9b\n")->type = NO_TYPE;
}

static void value_type(bad_file *f, cc *c)
{
    bad_find(f, "general.name")->type = (uint32_t)c->value;
}

static void bool_element(bad_file *f, cc *c)
{
    static const uint8_t v[] = {BOOL, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7};
    (void)c;
    bad_set(f, "test.bools", ARR, v, sizeof v);
}

static void array_of(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    bad_put_u32(&b, (uint32_t)c->value);
    bad_put_u64(&b, 4);
    bad_put_u64(&b, 0);
    bad_put_u64(&b, 0);
    bad_set(f, "test.array", ARR, b.p, b.n);
    free(b.p);
}

/* [[[...[0]...]]], `value` deep */
static void nested(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    for (int64_t i = 1; i < c->value; i++) {
        bad_put_u32(&b, ARR);
        bad_put_u64(&b, 1);
    }
    bad_put_u32(&b, U32);
    bad_put_u64(&b, 1);
    bad_put_u32(&b, 0);
    bad_set(f, "test.nested", ARR, b.p, b.n);
    free(b.p);
}

/* An inner array that is longer than the file. */
static void nested_long(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    bad_put_u32(&b, ARR);
    bad_put_u64(&b, 2);
    bad_put_u32(&b, U8);
    bad_put_u64(&b, 0);
    bad_put_u32(&b, U64);
    bad_put_u64(&b, (uint64_t)c->value);
    bad_set(f, "test.nested", ARR, b.p, b.n);
    free(b.p);
}

static void string_in_array(bad_file *f, cc *c)
{
    bad_kv *kv = bad_find(f, "tokenizer.ggml.tokens");
    uint64_t n = (uint64_t)c->value;
    memcpy(kv->value.p + 12, &n, sizeof n);
}

static void cut_in_tensors(bad_file *f, cc *c)
{
    f->data_size = 0;
    f->cut_tail = (size_t)c->value;
}

/* --- 17: tensors ------------------------------------------------------------ */

static void dims(bad_file *f, cc *c)
{
    last_tensor(f)->n_dims = (uint32_t)c->value;
}

static void dim0(bad_file *f, cc *c)
{
    last_tensor(f)->ne[0] = (uint64_t)c->value;
}

static void name_length(bad_file *f, cc *c)
{
    last_tensor(f)->name_len = (uint64_t)c->value;
}

static void name_empty(bad_file *f, cc *c)
{
    (void)c;
    rename_tensor(last_tensor(f), "", 0);
}

static void name_zero_byte(bad_file *f, cc *c)
{
    (void)c;
    rename_tensor(last_tensor(f), "blk\0weight", 10);
}

static void name_too_long(bad_file *f, cc *c)
{
    char s[65];
    (void)c;
    memset(s, 'w', sizeof s);
    rename_tensor(last_tensor(f), s, sizeof s);
}

static void name_hostile(bad_file *f, cc *c)
{
    (void)c;
    rename_tensor(last_tensor(f),
                  "\x1b[2J\r\x9b"
                  "31m",
                  9);
    last_tensor(f)->type = 99;
}

/* --- 18, 19 ------------------------------------------------------------------ */

static void shape(bad_tensor *t, uint32_t n, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    t->n_dims = n;
    t->ne[0] = a;
    t->ne[1] = b;
    t->ne[2] = c;
    t->ne[3] = d;
}

static void wrap_elements(bad_file *f, cc *c)
{
    (void)c;
    shape(last_tensor(f), 2, 1ull << 32, 1ull << 32, 1, 1);
}

static void wrap_elements_to_zero(bad_file *f, cc *c)
{
    (void)c;
    shape(last_tensor(f), 3, 1ull << 31, 1ull << 31, 4, 1);
}

/* 2^62 elements are countable, but 2^64 bytes are 0 in 64 bits. */
static void wrap_bytes(bad_file *f, cc *c)
{
    (void)c;
    shape(last_tensor(f), 4, 1ull << 30, 1ull << 30, 2, 2);
}

/* 2^62 + 2^58 elements: wraps to a small number of bytes. */
static void wrap_bytes_small(bad_file *f, cc *c)
{
    (void)c;
    shape(last_tensor(f), 2, 17ull << 29, 1ull << 29, 1, 1);
}

static void exabyte(bad_file *f, cc *c)
{
    (void)c;
    last_tensor(f)->type = 8; /* Q8_0 */
    shape(last_tensor(f), 2, 1ull << 30, 1ull << 30, 1, 1);
}

static void offset(bad_file *f, cc *c)
{
    last_tensor(f)->offset = (uint64_t)c->value;
}

static void offset_by(bad_file *f, cc *c)
{
    last_tensor(f)->offset += (uint64_t)c->value;
}

static void cut_tail(bad_file *f, cc *c)
{
    f->cut_tail = (size_t)c->value;
}

static void no_data(bad_file *f, cc *c)
{
    (void)c;
    f->data_size = 0;
}

static void same_place(bad_file *f, cc *c)
{
    (void)c;
    f->tensor[3].offset = f->tensor[2].offset;
}

/* The slot of tensor 2 is one alignment too small. */
static void small_slot(bad_file *f, cc *c)
{
    (void)c;
    for (size_t i = 3; i < f->tensors; i++)
        f->tensor[i].offset -= 32;
}

/* A tensor grows over the next one, which is listed before it. */
static void overlap_backwards(bad_file *f, cc *c)
{
    bad_tensor t = f->tensor[2];
    (void)c;
    f->tensor[2] = f->tensor[3];
    f->tensor[3] = t;
    f->tensor[3].ne[1] = 2;
    f->tensor[3].n_dims = 2;
}

static void inside(bad_file *f, cc *c)
{
    (void)c;
    f->tensor[2].offset = 64; /* in the middle of tensor 0 */
}

static void tensor_type(bad_file *f, cc *c)
{
    last_tensor(f)->type = (uint32_t)c->value;
}

/* Rows of 32 elements cannot be made of blocks of 256. */
static void ragged_rows(bad_file *f, cc *c)
{
    (void)c;
    shape(last_tensor(f), 2, 96, 8, 1, 1);
    last_tensor(f)->type = 12; /* Q4_K */
}

/* --- 21 ---------------------------------------------------------------------- */

static void twin_key(bad_file *f, cc *c)
{
    bad_set_int(f, "twin", U32, 1);
    rename_kv(f, "twin", c->key, strlen(c->key));
}

static void twin_tensor(bad_file *f, cc *c)
{
    (void)c;
    bad_add_tensor(f, "output_norm.weight", 0, 128, 1, 32, 1);
    bad_layout(f);
}

static void score_nan(bad_file *f, cc *c)
{
    float nan = NAN;
    (void)c;
    memcpy(bad_find(f, "tokenizer.ggml.scores")->value.p + 12 + 9 * sizeof nan, &nan, sizeof nan);
}

static void byte_token(bad_file *f, cc *c)
{
    set_element(f, "tokenizer.ggml.tokens", 3 + 0x41, c->key, strlen(c->key));
}

/* A token of 2^31 + 1 bytes in a file with a hole: as an int its length is negative. */
static void giant_token(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    bad_case one = *c;
    one.value = N_VOCAB_SPM - 1;
    one.key = "tokenizer.ggml.scores";
    shorten(f, &one);
    one.key = "tokenizer.ggml.token_type";
    shorten(f, &one);
    bad_put_u32(&b, STR);
    bad_put_u64(&b, 1);
    bad_put_u64(&b, (1ull << 31) + 1);
    bad_set(f, "tokenizer.ggml.tokens", ARR, b.p, b.n);
    free(b.p);
    bad_kv tokens = *bad_find(f, "tokenizer.ggml.tokens"), last = f->kv[f->kvs - 1];
    *bad_find(f, "tokenizer.ggml.tokens") = last;
    f->kv[f->kvs - 1] = tokens;
    f->n_tensors = 0;
    for (size_t i = 0; i < f->tensors; i++)
        free(f->tensor[i].name.p);
    f->tensors = 0;
    f->data_size = 0;
    f->alignment = 1;
    f->grow = (1ull << 31) + 1;
}

static void merge(bad_file *f, cc *c)
{
    set_element(f, "tokenizer.ggml.merges", 1, c->key, strlen(c->key));
}

/* --- 22 ---------------------------------------------------------------------- */

static void no_tensor(bad_file *f, cc *c)
{
    rename_tensor(bad_find_tensor(f, c->key), "other.weight", 12);
}

static void fewer_rows(bad_file *f, cc *c)
{
    bad_find_tensor(f, c->key)->ne[1] -= (uint64_t)c->value;
}

static void arch(bad_file *f, cc *c)
{
    bad_set_str(f, "general.architecture", c->key);
}

/* A different number of heads in each layer. */
static void heads_array(bad_file *f, cc *c)
{
    bad_bytes b = {0};
    bad_put_u32(&b, U32);
    bad_put_u64(&b, 2);
    bad_put_u32(&b, 4);
    bad_put_u32(&b, 2);
    bad_set(f, c->key, ARR, b.p, b.n);
    bad_set_int(f, "llama.block_count", U32, 2);
    free(b.p);
}

static void experts(bad_file *f, cc *c)
{
    bad_set_int(f, "llama.expert_count", U32, 4);
    bad_set_int(f, "llama.expert_used_count", U32, c->value);
}

/* A key of a mixture of experts. */
static void moe_key(bad_file *f, cc *c)
{
    bad_moe(f);
    bad_set_int(f, c->key, U32, c->value);
}

static void moe_groups(bad_file *f, cc *c)
{
    bad_moe(f);
    bad_set_int(f, "glm4moe.expert_group_count", U32, c->value / 10);
    bad_set_int(f, "glm4moe.expert_group_used_count", U32, c->value % 10);
}

/* A stack of so many matrices, a router for so many experts. */
static void moe_stack(bad_file *f, cc *c)
{
    bad_moe(f);
    bad_find_tensor(f, c->key)->ne[2] = (uint64_t)c->value;
}

static void moe_router(bad_file *f, cc *c)
{
    bad_moe(f);
    bad_find_tensor(f, c->key)->ne[1] = (uint64_t)c->value;
}

static void moe_without(bad_file *f, cc *c)
{
    bad_moe(f);
    no_tensor(f, c);
}

/* A tensor for each expert, but one. */
static void moe_parts(bad_file *f, cc *c)
{
    bad_moe(f);
    const bad_tensor stack = *bad_find_tensor(f, "blk.0.ffn_up_exps.weight");
    rename_tensor(bad_find_tensor(f, "blk.0.ffn_up_exps.weight"), "other.weight", 12);
    for (int i = 0; i < BAD_EXPERTS; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.0.ffn_up.%d.weight", i);
        if (i != c->value)
            bad_add_tensor(f, name, stack.type, stack.size / BAD_EXPERTS, 2, stack.ne[0],
                           stack.ne[1]);
    }
    bad_layout(f);
}

static void scaling_type(bad_file *f, cc *c)
{
    (void)c;
    bad_set_str(f, "llama.rope.scaling.type", "wavy\x1b[31m");
}

/* The model as another architecture has it: the keys of its own are renamed. */
static void as_arch(bad_file *f, const char *name)
{
    bad_set_str(f, "general.architecture", name);
    for (size_t i = 0; i < f->kvs; i++) {
        bad_bytes *k = &f->kv[i].key, to = {0};
        if (k->n < 6 || memcmp(k->p, "llama.", 6) != 0)
            continue;
        bad_put(&to, name, strlen(name));
        bad_put(&to, k->p + 5, k->n - 5);
        free(k->p);
        *k = to;
        f->kv[i].key_len = to.n;
    }
}

static void as_it_is(bad_file *f, cc *c)
{
    as_arch(f, c->key);
}

static void granite_key(bad_file *f, cc *c)
{
    as_arch(f, "granite");
    bad_set_float(f, "granite.logit_scale", 8);
    bad_set_float(f, c->key, (double)c->value);
}

static void granite_without_rope(bad_file *f, cc *c)
{
    as_arch(f, "granite");
    bad_set_int(f, c->key, BOOL, c->value);
}

static void gemma2_key(bad_file *f, cc *c)
{
    as_arch(f, "gemma2");
    bad_set_float(f, c->key, (double)c->value);
}

/* A norm of Q's heads and none of K's. */
static void one_head_norm(bad_file *f, cc *c)
{
    as_arch(f, "command-r");
    bad_set_float(f, "command-r.attention.layer_norm_epsilon", 1e-5);
    bad_add_tensor(f, c->key, 0, 4 * 8 * 4, 2, 8, 4);
    bad_layout(f);
}

static void fused_rows(bad_file *f, cc *c)
{
    as_arch(f, "phi3");
    bad_add_tensor(f, "blk.0.attn_qkv.weight", 0, 4 * 32 * (size_t)c->value, 2, 32,
                   (uint64_t)c->value);
    bad_layout(f);
}

/* RoPE factors of which one set is missing, or all zeros. */
static void rope_factors(bad_file *f, cc *c)
{
    as_arch(f, "phi3");
    bad_add_tensor(f, "rope_factors_long.weight", 0, 4 * 4, 1, 4, 1);
    if (c->value)
        bad_add_tensor(f, "rope_factors_short.weight", 0, 4 * 4, 1, 4, 1);
    bad_layout(f);
}

/* --- the list ---------------------------------------------------------------- */

#define FILE_CASE(n, i, fn, k, v, e)                                                               \
    {                                                                                              \
        n, i, BAD_FILE_LEVEL, fn, k, (int64_t)(v), e                                               \
    }
#define VOCAB_CASE(n, fn, k, v, e)                                                                 \
    {                                                                                              \
        n, 21, BAD_VOCAB, fn, k, (int64_t)(v), e                                                   \
    }
#define BPE_CASE(n, fn, k, v, e)                                                                   \
    {                                                                                              \
        n, 21, BAD_BPE_VOCAB, fn, k, (int64_t)(v), e                                               \
    }
#define MODEL_CASE(n, fn, k, v, e)                                                                 \
    {                                                                                              \
        n, 22, BAD_MODEL, fn, k, (int64_t)(v), e                                                   \
    }
#define TOK(key) "tokenizer.ggml." key

const bad_case bad_cases[] = {
    FILE_CASE("empty", 17, cut_at, 0, 0, "the file is empty"),
    FILE_CASE("one-byte", 17, cut_at, 0, 1, "not a GGUF file: it begins with 'G'"),
    FILE_CASE("magic-only", 17, cut_at, 0, 4, "4 bytes long, a GGUF header takes 24"),
    FILE_CASE("header-cut", 17, cut_at, 0, 23, "23 bytes long, a GGUF header takes 24"),
    FILE_CASE("header-only", 17, cut_at, 0, 24, "announces 20 metadata pairs, more than"),
    FILE_CASE("magic-ggml", 17, magic, "lmgg", 0, "not a GGUF file: it begins with 'lmgg'"),
    FILE_CASE("magic-escape", 17, magic, "\x1b[2J", 0, "it begins with '\\x1b[2J'"),
    FILE_CASE("version-0", 17, version, 0, 0, "GGUF version 0, only 2 and 3"),
    FILE_CASE("version-1", 17, version, 0, 1, "GGUF version 1, only 2 and 3"),
    FILE_CASE("version-4", 17, version, 0, 4, "GGUF version 4, only 2 and 3"),
    FILE_CASE("version-max", 17, version, 0, 0xffffffff, "GGUF version 4294967295"),
    FILE_CASE("big-endian", 17, version, 0, 0x03000000, "a big-endian GGUF file"),
    FILE_CASE("kv-count-2^40", 17, kv_count, 0, 1ll << 40,
              "1099511627776 metadata pairs, more than"),
    FILE_CASE("kv-count-max", 17, kv_count, 0, -1, "18446744073709551615 metadata pairs"),
    FILE_CASE("kv-count-2^20", 17, kv_count_in_hole, 0, 1 << 20, "at most 131072 are supported"),
    FILE_CASE("kv-count-plus-1", 17, kv_count_by, 0, 1, "tensor 0 at byte 6712: tensor name of"),
    FILE_CASE("kv-count-minus-1", 17, kv_count_by, 0, -1, "tensor 0 'llama.vocab_size'"),
    FILE_CASE("kv-count-0", 17, kv_count, 0, 0, "tensor 0 'general.architecture'"),
    FILE_CASE("tensor-count-2^40", 17, tensor_count, 0, 1ll << 40,
              "1099511627776 tensors, more than"),
    FILE_CASE("tensor-count-max", 17, tensor_count, 0, -1, "18446744073709551615 tensors"),
    FILE_CASE("tensor-count-2^20", 17, tensor_count_in_hole, 0, 1 << 20,
              "announces 1048576 tensors, at most 131072"),
    FILE_CASE("tensor-count-plus-1", 17, tensor_count_by, 0, 1, "tensor 11 at byte"),
    FILE_CASE("key-length-max", 17, key_length, 0, -1,
              "key of 18446744073709551615 bytes, but only"),
    FILE_CASE("key-length-2^63", 17, key_length, 0, INT64_MIN, "key of 9223372036854775808 bytes"),
    FILE_CASE("key-length-past-end", 17, key_length, 0, 1 << 20, "key of 1048576 bytes, but only"),
    FILE_CASE("key-empty", 17, key_empty, 0, 0, "metadata pair 1 at byte"),
    FILE_CASE("key-zero-byte", 17, key_zero_byte, 0, 0, "'general\\x00name' at byte"),
    FILE_CASE("key-too-long", 17, key_too_long, 0, 0, "key of 70000 bytes, at most 65535"),
    FILE_CASE("key-hostile", 17, key_hostile, 0, 0, "'\\x1b]0;owned\\x07\\xc2\\x9b\\x0a'"),
    FILE_CASE("string-length-max", 17, set_length, "general.name", -1, "'general.name' at byte"),
    FILE_CASE("string-length-2^63", 17, set_length, "general.name", INT64_MIN,
              "string of 9223372036854775808 bytes, but only"),
    FILE_CASE("string-length-wrap", 17, set_length, "general.name", HUGE_N,
              "string of 18446744073709551608 bytes, but only"),
    FILE_CASE("value-type-13", 17, value_type, 0, NO_TYPE, "value of unknown type 13"),
    FILE_CASE("value-type-max", 17, value_type, 0, 0xffffffff, "value of unknown type 4294967295"),
    FILE_CASE("bool-2", 17, set_bool, TOK("add_bos_token"), 2, "the bool is 2, neither 0 nor 1"),
    FILE_CASE("bool-element-7", 17, bool_element, 0, 0, "element 2 of the bool array is 7"),
    FILE_CASE("array-length-max", 17, set_length, TOK("scores"), -1,
              "array of 18446744073709551615 elements of type f32, but only"),
    FILE_CASE("array-bytes-wrap", 17, set_length, TOK("scores"), 1ll << 62,
              "array of 4611686018427387904 elements of type f32"),
    FILE_CASE("array-length-2^40", 17, set_length, TOK("token_type"), 1ll << 40,
              "array of 1099511627776 elements of type i32"),
    FILE_CASE("string-array-2^40", 17, set_length, TOK("tokens"), 1ll << 40,
              "array of 1099511627776 elements of type string"),
    FILE_CASE("string-array-plus-1", 17, set_length, TOK("tokens"), N_VOCAB_SPM + 1,
              "metadata pair 13 at byte 4282: key of"),
    FILE_CASE("string-in-array-max", 17, string_in_array, 0, -1, "string 0 of the array"),
    FILE_CASE("string-in-array-wrap", 17, string_in_array, 0, HUGE_N, "string 0 of the array"),
    FILE_CASE("array-of-type-13", 17, array_of, 0, 13, "array of elements of unknown type 13"),
    FILE_CASE("array-of-type-max", 17, array_of, 0, -1, "elements of unknown type 4294967295"),
    FILE_CASE("nested-9", 17, nested, 0, 9, "arrays nested more than 8 deep"),
    FILE_CASE("nested-100000", 17, nested, 0, 100000, "arrays nested more than 8 deep"),
    FILE_CASE("nested-long", 17, nested_long, 0, -1, "18446744073709551615 elements of type u64"),
    FILE_CASE("nested-wrap", 17, nested_long, 0, 1ll << 61,
              "2305843009213693952 elements of type u64"),
    FILE_CASE("metadata-cut", 17, cut_at, 0, 1000, "metadata pair"),
    FILE_CASE("tensor-table-cut", 17, cut_in_tensors, 0, 40, "cut off, the file ends at byte"),

    FILE_CASE("dims-0", 17, dims, 0, 0, "0 dimensions, it must be 1 to 4"),
    FILE_CASE("dims-5", 17, dims, 0, 5, "5 dimensions, it must be 1 to 4"),
    FILE_CASE("dims-max", 17, dims, 0, 0xffffffff, "4294967295 dimensions"),
    FILE_CASE("dim-0", 17, dim0, 0, 0, "dimension 0 is 0"),
    FILE_CASE("dim-negative", 17, dim0, 0, INT64_MIN, "dimension 0 is 9223372036854775808"),
    FILE_CASE("dim-max", 17, dim0, 0, -1, "dimension 0 is 18446744073709551615"),
    FILE_CASE("name-length-max", 17, name_length, 0, -1,
              "tensor name of 18446744073709551615 bytes"),
    FILE_CASE("name-empty", 17, name_empty, 0, 0, "the tensor name is empty"),
    FILE_CASE("name-zero-byte", 17, name_zero_byte, 0, 0, "'blk\\x00weight' at byte"),
    FILE_CASE("name-too-long", 17, name_too_long, 0, 0, "tensor name of 65 bytes, at most 64"),
    FILE_CASE("name-hostile", 17, name_hostile, 0, 0, "'\\x1b[2J\\x0d\\x9b31m' at byte"),

    FILE_CASE("elements-wrap", 18, wrap_elements, 0, 0, "multiply to more than 2^63 elements"),
    FILE_CASE("elements-wrap-to-0", 18, wrap_elements_to_zero, 0, 0, "more than 2^63 elements"),
    FILE_CASE("bytes-wrap-to-0", 18, wrap_bytes, 0, 0, "of type F32 are more than 2^64 bytes"),
    FILE_CASE("bytes-wrap", 18, wrap_bytes_small, 0, 0, "of type F32 are more than 2^64 bytes"),
    FILE_CASE("exabyte", 18, exabyte, 0, 0, "1224979098644774912 bytes at offset"),
    FILE_CASE("offset-plus-size-wraps", 18, offset, 0, -32, "ends past the end of the file"),
    FILE_CASE("base-plus-offset-wraps", 18, offset, 0, -8192, "ends past the end of the file"),
    FILE_CASE("offset-2^63", 18, offset, 0, INT64_MIN, "ends past the end of the file"),

    FILE_CASE("data-cut", 19, cut_tail, 0, 1,
              "'blk.0.ffn_down.weight' ends past the end of the file"),
    FILE_CASE("data-cut-half", 19, cut_tail, 0, 30000, "ends past the end of the file"),
    FILE_CASE("data-missing", 19, no_data, 0, 0,
              "'token_embd.weight' ends past the end of the file"),
    FILE_CASE("offset-past-end", 19, offset_by, 0, 1 << 20, "ends past the end of the file"),
    FILE_CASE("offset-by-block", 19, offset_by, 0, 32, "ends past the end of the file"),
    FILE_CASE("offset-unaligned", 19, offset_by, 0, -16, "no multiple of the alignment 32"),
    FILE_CASE("offset-odd", 19, offset_by, 0, 1, "no multiple of the alignment 32"),
    FILE_CASE("same-place", 19, same_place, 0, 0, "overlap"),
    FILE_CASE("small-slot", 19, small_slot, 0, 0, "'blk.0.attn_norm.weight' (128 bytes at byte"),
    FILE_CASE("overlap-backwards", 19, overlap_backwards, 0, 0, "overlap"),
    FILE_CASE("inside-another", 19, inside, 0, 0, "'token_embd.weight' ("),
    FILE_CASE("type-99", 19, tensor_type, 0, 99, "type unknown (number 99) does not exist"),
    FILE_CASE("type-max", 19, tensor_type, 0, 0xffffffff, "(number 4294967295) does not exist"),
    FILE_CASE("type-iq1", 19, tensor_type, 0, 19, "type IQ1_S (number 19) is not supported"),
    FILE_CASE("rows-ragged", 19, ragged_rows, 0, 0,
              "rows of 96 elements are no multiple of the 256"),

    FILE_CASE("alignment-0", 20, set_u32, "general.alignment", 0,
              "'general.alignment' is 0, it must"),
    FILE_CASE("alignment-1", 20, set_u32, "general.alignment", 1,
              "'general.alignment' is 1, it must"),
    FILE_CASE("alignment-4", 20, set_u32, "general.alignment", 4,
              "'general.alignment' is 4, it must"),
    FILE_CASE("alignment-48", 20, set_u32, "general.alignment", 48,
              "is 48, it must be a power of two"),
    FILE_CASE("alignment-max", 20, set_u32, "general.alignment", 0xffffffff,
              "is 4294967295, it must"),
    FILE_CASE("alignment-2^31", 20, set_u32, "general.alignment", 1ll << 31,
              "alignment 2147483648"),
    FILE_CASE("alignment-u64", 20, set_u64, "general.alignment", 32,
              "has type u64, it must be u32"),
    FILE_CASE("alignment-i32", 20, set_i32, "general.alignment", -32,
              "has type i32, it must be u32"),
    FILE_CASE("alignment-string", 20, set_text, "general.alignment", 0,
              "has type string, it must be"),
    FILE_CASE("alignment-array", 20, set_zeros, "general.alignment", 1,
              "has type array, it must be"),

    FILE_CASE("twin-key", 21, twin_key, "llama.block_count", 0, "the key occurs twice"),
    FILE_CASE("twin-architecture", 21, twin_key, "general.architecture", 0, "the key occurs twice"),
    FILE_CASE("twin-tensor", 21, twin_tensor, 0, 0, "tensor 11 'output_norm.weight' at byte"),
    FILE_CASE("split-no-past-count", 21, set_u32, "split.no", 3,
              "'split.no' is 3, but key 'split.count'"),
    FILE_CASE("split-count-negative", 21, set_i32, "split.count", -2,
              "'split.count' is -2, it must lie"),
    FILE_CASE("split-count-huge", 21, set_u32, "split.count", 1 << 30,
              "'split.count' is 1073741824"),
    FILE_CASE("split-alone", 21, set_u32, "split.count", 2,
              "its name must end in '-00001-of-00002"),

    VOCAB_CASE("tokens-missing", drop, TOK("tokens"), 0, TOK("tokens")),
    VOCAB_CASE("tokens-no-array", set_text, TOK("tokens"), 0, TOK("tokens")),
    VOCAB_CASE("tokens-integers", set_zeros, TOK("tokens"), N_VOCAB_SPM, TOK("tokens")),
    VOCAB_CASE("tokens-none", set_zeros, TOK("tokens"), 0, TOK("tokens")),
    VOCAB_CASE("token-2^31", giant_token, 0, 0, "2147483649"),
    VOCAB_CASE("tokenizer-missing", drop, TOK("model"), 0, TOK("model")),
    VOCAB_CASE("tokenizer-unknown", set_text, TOK("model"), 0, "text"),
    VOCAB_CASE("tokenizer-number", set_u32, TOK("model"), 1, TOK("model")),
    VOCAB_CASE("scores-short", shorten, TOK("scores"), 1, TOK("scores")),
    VOCAB_CASE("scores-few", shorten, TOK("scores"), N_VOCAB_SPM - 1, TOK("scores")),
    VOCAB_CASE("scores-integers", set_zeros, TOK("scores"), N_VOCAB_SPM, TOK("scores")),
    VOCAB_CASE("score-nan", score_nan, 0, 0, "score of token 9"),
    VOCAB_CASE("types-short", shorten, TOK("token_type"), 1, TOK("token_type")),
    VOCAB_CASE("types-string", set_text, TOK("token_type"), 0, TOK("token_type")),
    VOCAB_CASE("byte-token-negative", byte_token, "<0x-1>", 0, "<0x-1>"),
    VOCAB_CASE("byte-token-no-hex", byte_token, "<0xGG>", 0, "<0xGG>"),
    VOCAB_CASE("byte-token-too-big", byte_token, "<0x100>", 0, "<0x100>"),
    VOCAB_CASE("byte-token-empty", byte_token, "<0x>", 0, "<0x>"),
    VOCAB_CASE("byte-token-cut", byte_token, "<0x4", 0, "<0x4"),
    VOCAB_CASE("byte-token-hostile", byte_token, "\x1b[2J\n", 0, "\\x1b[2J"),
    VOCAB_CASE("bos-past-end", set_u32, TOK("bos_token_id"), N_VOCAB_SPM, TOK("bos_token_id")),
    VOCAB_CASE("bos-negative", set_i32, TOK("bos_token_id"), -2, TOK("bos_token_id")),
    VOCAB_CASE("bos-2^31", set_u32, TOK("bos_token_id"), 1ll << 31, TOK("bos_token_id")),
    VOCAB_CASE("bos-string", set_text, TOK("bos_token_id"), 0, TOK("bos_token_id")),
    VOCAB_CASE("eos-2^32", set_u64, TOK("eos_token_id"), 1ll << 32, TOK("eos_token_id")),
    VOCAB_CASE("eos-past-end", set_u32, TOK("eos_token_id"), 100000, TOK("eos_token_id")),
    VOCAB_CASE("unknown-past-end", set_u32, TOK("unknown_token_id"), 100000,
               TOK("unknown_token_id")),
    VOCAB_CASE("eot-past-end", set_u32, TOK("eot_token_id"), 100000, TOK("eot_token_id")),
    VOCAB_CASE("add-bos-integer", set_u32, TOK("add_bos_token"), 1, TOK("add_bos_token")),
    BPE_CASE("merge-absent-token", merge, "q zz", 0, "q zz"),
    BPE_CASE("merge-absent-result", merge, "a z", 0, "a z"),
    BPE_CASE("merge-no-space", merge, "abc", 0, "abc"),
    BPE_CASE("merge-empty", merge, "", 0, "merge 1 is ''"),
    BPE_CASE("merges-missing", drop, TOK("merges"), 0, TOK("merges")),
    BPE_CASE("merges-integers", set_zeros, TOK("merges"), 3, TOK("merges")),
    BPE_CASE("pre-number", set_u32, TOK("pre"), 1, TOK("pre")),

    MODEL_CASE("heads-0", set_u32, "llama.attention.head_count", 0, "attention.head_count"),
    MODEL_CASE("heads-negative", set_i32, "llama.attention.head_count", -4, "attention.head_count"),
    MODEL_CASE("heads-huge", set_u32, "llama.attention.head_count", 0xffffffff, "head_count"),
    MODEL_CASE("heads-array", heads_array, "llama.attention.head_count", 0, "head_count"),
    MODEL_CASE("heads-array-empty", set_zeros, "llama.attention.head_count", 0, "head_count"),
    MODEL_CASE("heads-string", set_text, "llama.attention.head_count", 0, "head_count"),
    MODEL_CASE("heads-missing", drop, "llama.attention.head_count", 0, "head_count"),
    MODEL_CASE("heads-by-kv-heads", set_u32, "llama.attention.head_count_kv", 3,
               "4 attention heads"),
    MODEL_CASE("kv-heads-0", set_u32, "llama.attention.head_count_kv", 0, "head_count_kv"),
    MODEL_CASE("kv-heads-8", set_u32, "llama.attention.head_count_kv", 8, "8 KV heads"),
    MODEL_CASE("kv-heads-array", heads_array, "llama.attention.head_count_kv", 0, "head_count_kv"),
    MODEL_CASE("embd-by-heads", set_u32, "llama.attention.head_count", 5, "5 attention heads"),
    MODEL_CASE("layers-0", set_u32, "llama.block_count", 0, "'llama.block_count' is 0"),
    MODEL_CASE("layers-2", set_u32, "llama.block_count", 2, "'blk.1.attn_norm.weight' is missing"),
    MODEL_CASE("layers-huge", set_u32, "llama.block_count", 0x7fffffff, "'llama.block_count' is"),
    MODEL_CASE("layers-2^63", set_u64, "llama.block_count", INT64_MIN, "is 9223372036854775808"),
    MODEL_CASE("layers-float", set_float, "llama.block_count", 1,
               "'llama.block_count' has type f32"),
    MODEL_CASE("layers-missing", drop, "llama.block_count", 0, "'llama.block_count' is missing"),
    MODEL_CASE("experts-used", experts, 0, 9, "expert"),
    MODEL_CASE("experts-0-used", experts, 0, 0, "expert"),
    MODEL_CASE("moe-0-experts", moe_key, "glm4moe.expert_count", 0,
               "'glm4moe.expert_count' is 0, it must lie between 1 and"),
    MODEL_CASE("moe-0-used", moe_key, "glm4moe.expert_used_count", 0,
               "'glm4moe.expert_used_count' is 0, it must lie between 1 and"),
    MODEL_CASE("moe-5-of-4-used", moe_key, "glm4moe.expert_used_count", 5,
               "a token uses 5 experts and there are 4"),
    MODEL_CASE("moe-many-experts", moe_key, "glm4moe.expert_count", 1 << 20,
               "'glm4moe.expert_count' is 1048576"),
    MODEL_CASE("moe-gating-9", moe_key, "glm4moe.expert_gating_func", 9, "function 9"),
    MODEL_CASE("moe-dense-blocks", moe_key, "glm4moe.leading_dense_block_count", 2,
               "'glm4moe.leading_dense_block_count' is 2"),
    MODEL_CASE("moe-next-tokens", moe_key, "glm4moe.nextn_predict_layers", 1,
               "'glm4moe.nextn_predict_layers' is 1"),
    MODEL_CASE("moe-no-shared", moe_key, "glm4moe.expert_shared_count", 1,
               "'blk.0.ffn_gate_shexp.weight' is missing"),
    MODEL_CASE("moe-3-groups", moe_groups, 0, 31, "4 experts don't divide among 3 groups"),
    MODEL_CASE("moe-3-of-2-groups", moe_groups, 0, 23, "chosen from 3 groups and there are 2"),
    MODEL_CASE("moe-few-in-groups", moe_groups, 0, 41, "a token uses 2 experts"),
    MODEL_CASE(
        "moe-stack-of-3", moe_stack, "blk.0.ffn_gate_exps.weight", 3,
        "'blk.0.ffn_gate_exps.weight' is 32 x 64 x 3; the hyperparameters make it 32 x 64 x 4"),
    MODEL_CASE("moe-down-of-5", moe_stack, "blk.0.ffn_down_exps.weight", 2,
               "the hyperparameters make it 64 x 32 x 4"),
    MODEL_CASE("moe-router-of-3", moe_router, "blk.0.ffn_gate_inp.weight", 3,
               "'blk.0.ffn_gate_inp.weight' is 32 x 3; the hyperparameters make it 32 x 4"),
    MODEL_CASE("moe-no-router", moe_without, "blk.0.ffn_gate_inp.weight", 0,
               "'blk.0.ffn_gate_inp.weight' is missing"),
    MODEL_CASE("moe-no-stack", moe_without, "blk.0.ffn_up_exps.weight", 0,
               "'blk.0.ffn_up_exps.weight' is missing"),
    MODEL_CASE("moe-no-expert-0", moe_parts, 0, 0, "'blk.0.ffn_up_exps.weight' is missing"),
    MODEL_CASE("moe-no-expert-2", moe_parts, 0, 2, "'blk.0.ffn_up.2.weight' is missing"),
    MODEL_CASE("moe-no-expert-3", moe_parts, 0, 3, "'blk.0.ffn_up.3.weight' is missing"),
    MODEL_CASE("moe-width-0", moe_key, "glm4moe.expert_feed_forward_length", 0,
               "'glm4moe.expert_feed_forward_length' is 0"),
    MODEL_CASE("moe-width-32", moe_key, "glm4moe.expert_feed_forward_length", 32,
               "is 32 x 64 x 4; the hyperparameters make it 32 x 32 x 4"),
    MODEL_CASE("moe-widths-differ", moe_router, "blk.0.ffn_gate_exps.weight", 32,
               "'blk.0.ffn_gate_exps.weight' is 32 x 32 x 4; the hyperparameters make it 32 x 64"),
    MODEL_CASE("rope-dims-10", set_u32, "llama.rope.dimension_count", 10,
               "rope.dimension_count' is 10"),
    MODEL_CASE("rope-dims-7", set_u32, "llama.rope.dimension_count", 7, "7 dimensions"),
    MODEL_CASE("rope-dims-0", set_u32, "llama.rope.dimension_count", 0,
               "rope.dimension_count' is 0"),
    MODEL_CASE("rope-base-nan", set_nan, "llama.rope.freq_base", 0, "rope.freq_base"),
    MODEL_CASE("rope-base-0", set_float, "llama.rope.freq_base", 0, "rope.freq_base"),
    MODEL_CASE("rope-factor-nan", set_nan, "llama.rope.scaling.factor", 0, "rope.scaling.factor"),
    MODEL_CASE("rope-factor-negative", set_float, "llama.rope.scaling.factor", -2,
               "scaling.factor"),
    MODEL_CASE("rope-scaling-unknown", scaling_type, 0, 0, "RoPE scaling 'wavy"),
    MODEL_CASE("embd-0", set_u32, "llama.embedding_length", 0, "'llama.embedding_length' is 0"),
    MODEL_CASE("embd-64", set_u32, "llama.embedding_length", 64, "token_embd.weight"),
    MODEL_CASE("embd-missing", drop, "llama.embedding_length", 0,
               "'llama.embedding_length' is missing"),
    MODEL_CASE("ff-0", set_u32, "llama.feed_forward_length", 0, "'llama.feed_forward_length' is 0"),
    MODEL_CASE("ff-128", set_u32, "llama.feed_forward_length", 128, "blk.0.ffn_gate.weight"),
    MODEL_CASE("context-0", set_u32, "llama.context_length", 0, "'llama.context_length' is 0"),
    MODEL_CASE("context-2^63", set_u64, "llama.context_length", INT64_MIN,
               "'llama.context_length' is"),
    MODEL_CASE("eps-missing", drop, "llama.attention.layer_norm_rms_epsilon", 0, "rms_epsilon"),
    MODEL_CASE("eps-nan", set_nan, "llama.attention.layer_norm_rms_epsilon", 0, "rms_epsilon"),
    MODEL_CASE("eps-negative", set_float, "llama.attention.layer_norm_rms_epsilon", -1,
               "rms_epsilon"),
    MODEL_CASE("head-dim-0", set_u32, "llama.attention.key_length", 0,
               "attention.key_length' is 0"),
    MODEL_CASE("head-dim-16", set_u32, "llama.attention.key_length", 16, "blk.0.attn_q.weight"),
    MODEL_CASE("vocab-unlike-rows", fewer_rows, "token_embd.weight", 1, "token_embd.weight"),
    MODEL_CASE("no-embedding", no_tensor, "token_embd.weight", 0, "'token_embd.weight' is missing"),
    MODEL_CASE("no-output-norm", no_tensor, "output_norm.weight", 0,
               "'output_norm.weight' is missing"),
    MODEL_CASE("no-ffn-down", no_tensor, "blk.0.ffn_down.weight", 0, "'blk.0.ffn_down.weight' is"),
    MODEL_CASE("odd-attn-k", fewer_rows, "blk.0.attn_k.weight", 8,
               "'blk.0.attn_k.weight' is 32 x 8"),
    MODEL_CASE("arch-missing", drop, "general.architecture", 0, "general.architecture"),
    MODEL_CASE("arch-number", set_u32, "general.architecture", 1, "general.architecture"),
    MODEL_CASE("arch-unknown", arch, "mamba", 0, "mamba"),
    MODEL_CASE("arch-hostile", arch, "ll\x1b[2Jama\n", 0, "[2Jama"),
    MODEL_CASE("arch-other", arch, "qwen2", 0, "qwen2.block_count"),
    MODEL_CASE("olmo2-no-norms", as_it_is, "olmo2", 0, "'blk.0.attn_q_norm.weight' is missing"),
    MODEL_CASE("gemma2-no-norms", as_it_is, "gemma2", 0,
               "'blk.0.post_attention_norm.weight' is missing"),
    MODEL_CASE("gemma2-cap-negative", gemma2_key, "gemma2.attn_logit_softcapping", -1,
               "'gemma2.attn_logit_softcapping' is -1; it must be 0"),
    MODEL_CASE("granite-no-logit-scale", as_it_is, "granite", 0,
               "'granite.logit_scale' is missing"),
    MODEL_CASE("granite-logit-scale-0", granite_key, "granite.logit_scale", 0,
               "'granite.logit_scale' is 0; it must be"),
    MODEL_CASE("granite-residual-negative", granite_key, "granite.residual_scale", -1,
               "'granite.residual_scale' is -1"),
    MODEL_CASE("granite-no-rope", granite_without_rope, "granite.rope.scaling.finetuned", 0,
               "a model without RoPE"),
    MODEL_CASE("command-r-no-eps", as_it_is, "command-r", 0,
               "'command-r.attention.layer_norm_epsilon' is missing"),
    MODEL_CASE("command-r-one-norm", one_head_norm, "blk.0.attn_q_norm.weight", 0,
               "'blk.0.attn_k_norm.weight' is missing, and"),
    MODEL_CASE("phi3-no-qkv", as_it_is, "phi3", 0, "'blk.0.attn_qkv.weight' is missing"),
    MODEL_CASE("phi3-qkv-rows", fused_rows, 0, 63, "'blk.0.attn_qkv.weight' is 32 x 63"),
    MODEL_CASE("phi3-one-factors", rope_factors, 0, 0, "'rope_factors_short.weight' is missing"),
    MODEL_CASE("phi3-factors-0", rope_factors, 0, 1, "RoPE factor 0 is 0 for short and 0"),
};
const size_t n_bad_cases = sizeof bad_cases / sizeof *bad_cases;

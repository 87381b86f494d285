/* badgguf.c - see badgguf.h: the valid tiny models and how they are written. */
#include "badgguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TY_U32 = 4, TY_I32 = 5, TY_F32 = 6, TY_BOOL = 7, TY_STR = 8, TY_ARR = 9 };

/* --- bytes -------------------------------------------------------------- */

void bad_put(bad_bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->p = realloc(b->p, b->cap);
        if (!b->p)
            abort();
    }
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

void bad_put_u32(bad_bytes *b, uint32_t v)
{
    bad_put(b, &v, sizeof v);
}

void bad_put_u64(bad_bytes *b, uint64_t v)
{
    bad_put(b, &v, sizeof v);
}

void bad_put_str(bad_bytes *b, const char *s, size_t n)
{
    bad_put_u64(b, n);
    bad_put(b, s, n);
}

/* --- parts -------------------------------------------------------------- */

bad_kv *bad_find(bad_file *f, const char *key)
{
    for (size_t i = 0; i < f->kvs; i++)
        if (f->kv[i].key.n == strlen(key) && memcmp(f->kv[i].key.p, key, strlen(key)) == 0)
            return &f->kv[i];
    return NULL;
}

bad_tensor *bad_find_tensor(bad_file *f, const char *name)
{
    for (size_t i = 0; i < f->tensors; i++)
        if (f->tensor[i].name.n == strlen(name) && !memcmp(f->tensor[i].name.p, name, strlen(name)))
            return &f->tensor[i];
    return NULL;
}

void bad_set(bad_file *f, const char *key, uint32_t type, const void *value, size_t n)
{
    bad_kv *kv = bad_find(f, key);
    if (!kv) {
        f->kv = realloc(f->kv, (f->kvs + 1) * sizeof *f->kv);
        if (!f->kv)
            abort();
        kv = &f->kv[f->kvs++];
        *kv = (bad_kv){.key_len = strlen(key)};
        bad_put(&kv->key, key, strlen(key));
        f->n_kv++;
    }
    kv->type = type;
    kv->value.n = 0;
    bad_put(&kv->value, value, n);
}

void bad_set_int(bad_file *f, const char *key, uint32_t type, int64_t v)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 0, 1, 0, 0, 8, 8, 0};
    bad_set(f, key, type, &v, sizes[type]); /* the low bytes of a little-endian integer */
}

void bad_set_float(bad_file *f, const char *key, double v)
{
    float x = (float)v;
    bad_set(f, key, TY_F32, &x, sizeof x);
}

void bad_set_str(bad_file *f, const char *key, const char *s)
{
    bad_bytes b = {0};
    bad_put_str(&b, s, strlen(s));
    bad_set(f, key, TY_STR, b.p, b.n);
    free(b.p);
}

void bad_drop(bad_file *f, const char *key)
{
    bad_kv *kv = bad_find(f, key);
    if (!kv)
        abort();
    free(kv->key.p);
    free(kv->value.p);
    size_t i = (size_t)(kv - f->kv);
    memmove(kv, kv + 1, (f->kvs - i - 1) * sizeof *kv);
    f->kvs--;
    f->n_kv--;
}

bad_tensor *bad_add_tensor(bad_file *f, const char *name, uint32_t type, size_t size,
                           uint32_t n_dims, uint64_t ne0, uint64_t ne1)
{
    f->tensor = realloc(f->tensor, (f->tensors + 1) * sizeof *f->tensor);
    if (!f->tensor)
        abort();
    bad_tensor *t = &f->tensor[f->tensors++];
    *t = (bad_tensor){.name_len = strlen(name), .n_dims = n_dims, .type = type, .size = size};
    for (int d = 0; d < 8; d++)
        t->ne[d] = d == 0 ? ne0 : d == 1 ? ne1 : 1;
    bad_put(&t->name, name, strlen(name));
    f->n_tensors++;
    return t;
}

void bad_layout(bad_file *f)
{
    f->data_size = 0;
    for (size_t i = 0; i < f->tensors; i++) {
        f->tensor[i].offset = f->data_size;
        f->data_size += (f->tensor[i].size + f->alignment - 1) / f->alignment * f->alignment;
    }
}

void bad_free(bad_file *f)
{
    for (size_t i = 0; i < f->kvs; i++) {
        free(f->kv[i].key.p);
        free(f->kv[i].value.p);
    }
    for (size_t i = 0; i < f->tensors; i++)
        free(f->tensor[i].name.p);
    free(f->kv);
    free(f->tensor);
    *f = (bad_file){0};
}

/* --- files -------------------------------------------------------------- */

bad_bytes bad_image(const bad_file *f)
{
    bad_bytes b = {0};
    bad_put(&b, f->magic, 4);
    bad_put_u32(&b, f->version);
    bad_put_u64(&b, f->n_tensors);
    bad_put_u64(&b, f->n_kv);
    for (size_t i = 0; i < f->kvs; i++) {
        const bad_kv *kv = &f->kv[i];
        bad_put_u64(&b, kv->key_len);
        bad_put(&b, kv->key.p, kv->key.n);
        bad_put_u32(&b, kv->type);
        bad_put(&b, kv->value.p, kv->value.n);
    }
    for (size_t i = 0; i < f->tensors; i++) {
        const bad_tensor *t = &f->tensor[i];
        bad_put_u64(&b, t->name_len);
        bad_put(&b, t->name.p, t->name.n);
        bad_put_u32(&b, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims && d < 8; d++)
            bad_put_u64(&b, t->ne[d]);
        bad_put_u32(&b, t->type);
        bad_put_u64(&b, t->offset);
    }
    for (uint8_t zero = 0; b.n % f->alignment != 0;)
        bad_put(&b, &zero, 1);
    uint8_t *data = calloc(1, f->data_size + 1);
    if (!data)
        abort();
    bad_put(&b, data, f->data_size);
    free(data);
    if (f->cut_at >= 0)
        b.n = (size_t)f->cut_at;
    b.n -= f->cut_tail;
    return b;
}

bool bad_write(const bad_file *f, const char *path)
{
    bad_bytes b = bad_image(f);
    FILE *out = fopen(path, "wb");
    bool ok = out && fwrite(b.p, 1, b.n, out) == b.n && fflush(out) == 0 &&
              (!f->grow || ftruncate(fileno(out), (off_t)(b.n + f->grow)) == 0);
    if (out && fclose(out) != 0)
        ok = false;
    free(b.p);
    return ok;
}

/* --- the valid models ---------------------------------------------------- */

enum { EMBD = 32, HEADS = 4, HEADS_KV = 2, HEAD_DIM = 8, FF = 64 };

/* A vocabulary under construction. */
typedef struct vocab {
    bad_bytes tokens, scores, types; /* elements only */
    uint64_t n;
} vocab;

static void add_token(vocab *v, const char *s, size_t n, float score, int32_t type)
{
    bad_put_str(&v->tokens, s, n);
    bad_put(&v->scores, &score, sizeof score);
    bad_put(&v->types, &type, sizeof type);
    v->n++;
}

static void set_array(bad_file *f, const char *key, uint32_t type, uint64_t n, bad_bytes *elements)
{
    bad_bytes b = {0};
    bad_put_u32(&b, type);
    bad_put_u64(&b, n);
    bad_put(&b, elements->p, elements->n);
    bad_set(f, key, TY_ARR, b.p, b.n);
    free(b.p);
    free(elements->p);
    *elements = (bad_bytes){0};
}

static void set_vocab(bad_file *f, vocab *v)
{
    set_array(f, "tokenizer.ggml.tokens", TY_STR, v->n, &v->tokens);
    set_array(f, "tokenizer.ggml.scores", TY_F32, v->n, &v->scores);
    set_array(f, "tokenizer.ggml.token_type", TY_I32, v->n, &v->types);
}

/* Types of tokens in GGUF: 1 normal, 2 unknown, 3 control, 6 byte. */
static uint64_t spm_vocab(bad_file *f)
{
    static const char *const words[] = {"\xe2\x96\x81",    "a", "b", "c", "ab", "abc",
                                        "\xe2\x96\x81\x61"};
    vocab v = {0};
    add_token(&v, "<unk>", 5, 0, 2);
    add_token(&v, "<s>", 3, 0, 3);
    add_token(&v, "</s>", 4, 0, 3);
    for (int i = 0; i < 256; i++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", i);
        add_token(&v, s, 6, 0, 6);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add_token(&v, words[i], strlen(words[i]), -(float)i, 1);
    uint64_t n = v.n;
    bad_set_str(f, "tokenizer.ggml.model", "llama");
    set_vocab(f, &v);
    bad_set_int(f, "tokenizer.ggml.bos_token_id", TY_U32, 1);
    bad_set_int(f, "tokenizer.ggml.eos_token_id", TY_U32, 2);
    bad_set_int(f, "tokenizer.ggml.unknown_token_id", TY_U32, 0);
    bad_set_int(f, "tokenizer.ggml.add_bos_token", TY_BOOL, 1);
    return n;
}

/* GPT-2's printable stand-in for a byte, as UTF-8: the bytes without a visible character follow
 * one another from U+0100 on. */
static size_t gpt2_char(int byte, char out[2])
{
    int cp = 0x100, shown = 0;
    for (int b = 0; b <= byte; b++) {
        shown = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        cp += !shown && b < byte;
    }
    if (shown)
        cp = byte;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3f));
    return 2;
}

static uint64_t bpe_vocab(bad_file *f)
{
    static const char *const merges[] = {"a b", "ab c", "\xc4\xa0 a"};
    vocab v = {0};
    bad_bytes m = {0};
    for (int i = 0; i < 256; i++) {
        char s[2];
        size_t n = gpt2_char(i, s);
        add_token(&v, s, n, 0, 1);
    }
    add_token(&v, "ab", 2, 0, 1);
    add_token(&v, "abc", 3, 0, 1);
    add_token(&v, "\xc4\xa0\x61", 3, 0, 1);
    add_token(&v, "<|end|>", 7, 0, 3);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        bad_put_str(&m, merges[i], strlen(merges[i]));
    uint64_t n = v.n;
    bad_set_str(f, "tokenizer.ggml.model", "gpt2");
    bad_set_str(f, "tokenizer.ggml.pre", "gpt-2");
    set_vocab(f, &v);
    bad_drop(f, "tokenizer.ggml.scores");
    set_array(f, "tokenizer.ggml.merges", TY_STR, sizeof merges / sizeof *merges, &m);
    bad_set_int(f, "tokenizer.ggml.bos_token_id", TY_U32, (int64_t)n - 1);
    bad_set_int(f, "tokenizer.ggml.eos_token_id", TY_U32, (int64_t)n - 1);
    return n;
}

static void add_f32(bad_file *f, const char *name, uint64_t k, uint64_t n)
{
    bad_add_tensor(f, name, 0, 4 * k * n, n > 1 ? 2 : 1, k, n);
}

void bad_model(bad_file *f, bool bpe)
{
    *f = (bad_file){.magic = "GGUF", .version = 3, .alignment = 32, .cut_at = -1};
    bad_set_str(f, "general.architecture", "llama");
    bad_set_str(f, "general.name", "tiny");
    bad_set_int(f, "llama.block_count", TY_U32, 1);
    bad_set_int(f, "llama.context_length", TY_U32, 128);
    bad_set_int(f, "llama.embedding_length", TY_U32, EMBD);
    bad_set_int(f, "llama.feed_forward_length", TY_U32, FF);
    bad_set_int(f, "llama.attention.head_count", TY_U32, HEADS);
    bad_set_int(f, "llama.attention.head_count_kv", TY_U32, HEADS_KV);
    bad_set_int(f, "llama.rope.dimension_count", TY_U32, HEAD_DIM);
    bad_set_float(f, "llama.rope.freq_base", 10000);
    bad_set_float(f, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    uint64_t n_vocab = bpe ? bpe_vocab(f) : spm_vocab(f);
    bad_set_int(f, "llama.vocab_size", TY_U32, (int64_t)n_vocab);
    add_f32(f, "token_embd.weight", EMBD, n_vocab);
    add_f32(f, "output_norm.weight", EMBD, 1);
    add_f32(f, "blk.0.attn_norm.weight", EMBD, 1);
    add_f32(f, "blk.0.attn_q.weight", EMBD, (uint64_t)HEADS * HEAD_DIM);
    add_f32(f, "blk.0.attn_k.weight", EMBD, (uint64_t)HEADS_KV * HEAD_DIM);
    add_f32(f, "blk.0.attn_v.weight", EMBD, (uint64_t)HEADS_KV * HEAD_DIM);
    add_f32(f, "blk.0.attn_output.weight", (uint64_t)HEADS * HEAD_DIM, EMBD);
    add_f32(f, "blk.0.ffn_norm.weight", EMBD, 1);
    add_f32(f, "blk.0.ffn_gate.weight", EMBD, FF);
    add_f32(f, "blk.0.ffn_up.weight", EMBD, FF);
    add_f32(f, "blk.0.ffn_down.weight", FF, EMBD);
    bad_layout(f);
}

/* Keys of llama under another architecture's name. */
static void rename_keys(bad_file *f, const char *arch)
{
    static const char old[] = "llama.";
    for (size_t i = 0; i < f->kvs; i++) {
        bad_kv *kv = &f->kv[i];
        if (kv->key.n < strlen(old) || memcmp(kv->key.p, old, strlen(old)) != 0)
            continue;
        bad_bytes key = {0};
        bad_put(&key, arch, strlen(arch));
        bad_put(&key, kv->key.p + strlen(old) - 1, kv->key.n - strlen(old) + 1);
        free(kv->key.p);
        kv->key = key;
        kv->key_len = key.n;
    }
    bad_set_str(f, "general.architecture", arch);
}

static void add_stack(bad_file *f, const char *name, uint64_t k, uint64_t n)
{
    bad_tensor *t = bad_add_tensor(f, name, 0, 4 * k * n * BAD_EXPERTS, 3, k, n);
    t->ne[2] = BAD_EXPERTS;
}

void bad_moe(bad_file *f)
{
    rename_keys(f, "glm4moe");
    bad_set_int(f, "glm4moe.expert_count", TY_U32, BAD_EXPERTS);
    bad_set_int(f, "glm4moe.expert_used_count", TY_U32, 2);
    add_f32(f, "blk.0.post_attention_norm.weight", EMBD, 1);
    add_f32(f, "blk.0.ffn_gate_inp.weight", EMBD, BAD_EXPERTS);
    add_stack(f, "blk.0.ffn_gate_exps.weight", EMBD, FF);
    add_stack(f, "blk.0.ffn_up_exps.weight", EMBD, FF);
    add_stack(f, "blk.0.ffn_down_exps.weight", FF, EMBD);
    bad_layout(f);
}

/* tok_vocab.h - vocabularies made in memory: GGUF metadata, written byte by byte so that it can be
 * wrong, and a small vocabulary of each kind. */
#ifndef TS_TOK_VOCAB_H
#define TS_TOK_VOCAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "model/tok_internal.h"

/* A GGUF file without tensors. */
typedef struct tv {
    ts_sb b;
    uint64_t n_kv;
} tv;

static inline void tv_raw(tv *v, const void *p, size_t n)
{
    if (v->b.n == 0) {
        static const uint8_t head[24] = {'G', 'G', 'U', 'F', 3};
        ts_sb_add(&v->b, head, sizeof head);
    }
    ts_sb_add(&v->b, p, n);
}

static inline void tv_u32(tv *v, uint32_t x)
{
    tv_raw(v, &x, 4);
}

static inline void tv_u64(tv *v, uint64_t x)
{
    tv_raw(v, &x, 8);
}

static inline void tv_bytes(tv *v, const char *s, size_t n)
{
    tv_u64(v, n);
    tv_raw(v, s, n);
}

static inline void tv_key(tv *v, const char *key, ts_gguf_type type)
{
    tv_bytes(v, key, strlen(key));
    tv_u32(v, type);
    v->n_kv++;
}

static inline void tv_str(tv *v, const char *key, const char *s)
{
    tv_key(v, key, TS_GGUF_STR);
    tv_bytes(v, s, strlen(s));
}

static inline void tv_int(tv *v, const char *key, uint32_t x)
{
    tv_key(v, key, TS_GGUF_U32);
    tv_u32(v, x);
}

static inline void tv_bool(tv *v, const char *key, bool x)
{
    tv_key(v, key, TS_GGUF_BOOL);
    tv_raw(v, &x, 1);
}

static inline void tv_arr(tv *v, const char *key, ts_gguf_type elem, uint64_t n)
{
    tv_key(v, key, TS_GGUF_ARR);
    tv_u32(v, elem);
    tv_u64(v, n);
}

/* An anonymous file that holds these bytes: its path, valid while *fd is open. */
static inline void tv_file(const void *p, size_t n, int *fd, char path[40])
{
    *fd = memfd_create("vocab.gguf", 0);
    if (*fd < 0 || write(*fd, p, n) != (ssize_t)n)
        abort();
    snprintf(path, 40, "/proc/self/fd/%d", *fd);
}

/* Opens what was written so far as a vocabulary, and forgets it. */
static inline ts_status tv_open(tv *v, ts_gguf **g, ts_tokenizer **t, ts_error *err)
{
    char path[40];
    int fd;
    tv_raw(v, "", 0);
    memcpy(v->b.s + 16, &v->n_kv, 8);
    tv_file(v->b.s, v->b.n, &fd, path);
    ts_sb_free(&v->b);
    *v = (tv){0};
    *g = NULL;
    *t = NULL;
    ts_status st = ts_gguf_open(g, path, err);
    if (st == TS_OK)
        st = ts_tokenizer_open(t, *g, err);
    close(fd);
    return st;
}

/* --- small vocabularies ------------------------------------------------------ */

typedef struct tv_token {
    const char *s;
    int type; /* 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
    float score;
} tv_token;

/* Tokens, with kinds and scores. */
static inline void tv_tokens(tv *v, const tv_token *t, size_t n)
{
    tv_arr(v, "tokenizer.ggml.tokens", TS_GGUF_STR, n);
    for (size_t i = 0; i < n; i++)
        tv_bytes(v, t[i].s, strlen(t[i].s));
    tv_arr(v, "tokenizer.ggml.token_type", TS_GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        tv_u32(v, (uint32_t)t[i].type);
    tv_arr(v, "tokenizer.ggml.scores", TS_GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        tv_raw(v, &t[i].score, 4);
}

enum { TV_MAX = 400 };

/* 256 byte tokens, merges, special tokens that overlap. add_* as the pre-tokenizer says. */
static inline void tv_small_bpe(tv *v, const char *pre)
{
    static const char *const merges[] = {
        "a a", "aa aa", "aaaa aaaa", "t h",  "th e", "Ġ t",   "Ġt h", "Ġth e",
        "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ",       "Ã ©",  "' s",  "1 2",   "12 3", "A B",
        "Ġ a", "a b",   "b c",       "ab c", "! !",  "!! !!", "ä ¸",  "ä¸ Ń",
        "ð Ł", "Ģ į",   "ï ¿",       "ï¿ ½", "e r",  "i n",   "in g", "Ġ the"};
    static const tv_token special[] = {
        {"<s>", 3, 0},   {"</s>", 3, 0},       {"<unk>", 2, 0},  {"<|", 4, 0},    {"<|x|>", 3, 0},
        {"|>", 4, 0},    {"<|im_end|>", 3, 0}, {"  ", 4, 0},     {"   ", 4, 0},   {"aab", 4, 0},
        {"bab", 4, 0},   {"[unused]", 5, 0},   {"\n\n\n", 4, 0}, {"abcab", 3, 0}, {"xy", 4, 0},
        {"xyzxy", 4, 0}, {"zxyzz!", 4, 0}};
    static char bytes[256][4], merged[sizeof merges / sizeof *merges][16];
    tv_token t[TV_MAX];
    size_t n = 0, n_merges = sizeof merges / sizeof *merges;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        t[n++] = special[i];
    for (int b = 0; b < 256; b++) {
        bytes[b][ts_utf8_encode(tok_byte_char((uint8_t)b), bytes[b])] = 0;
        t[n++] = (tv_token){bytes[b], 1, 0};
    }
    for (size_t i = 0; i < n_merges; i++) {
        const char *space = strchr(merges[i], ' ');
        snprintf(merged[i], sizeof merged[i], "%.*s%s", (int)(space - merges[i]), merges[i],
                 space + 1);
        bool known = false;
        for (size_t k = 0; k < n; k++)
            known |= !strcmp(t[k].s, merged[i]);
        if (!known)
            t[n++] = (tv_token){merged[i], 1, 0};
    }
    tv_str(v, "tokenizer.ggml.model", "gpt2");
    tv_str(v, "tokenizer.ggml.pre", pre);
    tv_tokens(v, t, n);
    tv_arr(v, "tokenizer.ggml.merges", TS_GGUF_STR, n_merges);
    for (size_t i = 0; i < n_merges; i++)
        tv_bytes(v, merges[i], strlen(merges[i]));
    tv_int(v, "tokenizer.ggml.bos_token_id", 0);
    tv_int(v, "tokenizer.ggml.eos_token_id", 1);
}

static inline void tv_small_spm(tv *v, bool space_prefix)
{
    static const tv_token words[] = {
        {"▁", 1, -10},      {"a", 1, -11},   {"b", 1, -12},        {"c", 1, -13},  {"t", 1, -14},
        {"h", 1, -15},      {"e", 1, -16},   {"é", 1, -17},        {"中", 1, -18}, {"1", 1, -19},
        {"th", 1, -1},      {"the", 1, -2},  {"▁the", 1, -3},      {"▁t", 1, -4},  {"he", 1, -1},
        {"ab", 1, -5},      {"bc", 1, -5},   {"abc", 1, -6},       {"aa", 1, -7},  {"aaaa", 1, -8},
        {"▁▁", 1, -2.5f},   {"▁▁▁▁", 1, -9}, {"a▁b", 1, -0.5f},    {"a▁", 1, -20}, {"▁a", 1, -3.5f},
        {"中中", 1, -4.5f}, {"\n\n", 4, 0},  {"<|im_end|>", 3, 0}, {"<b>", 4, 0},  {"</b>", 4, 0},
        {"[x]", 3, 0},      {"  \n", 4, 0}};
    static char bytes[256][7];
    tv_token t[TV_MAX] = {{"<unk>", 2, 0}, {"<s>", 3, 0}, {"</s>", 3, 0}};
    size_t n = 3;
    for (int b = 0; b < 256; b++) {
        snprintf(bytes[b], sizeof bytes[b], "<0x%02X>", b);
        t[n++] = (tv_token){bytes[b], 6, 0};
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        t[n++] = words[i];
    tv_str(v, "tokenizer.ggml.model", "llama");
    tv_tokens(v, t, n);
    tv_bool(v, "tokenizer.ggml.add_space_prefix", space_prefix);
}

#endif

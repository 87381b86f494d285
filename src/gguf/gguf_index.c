/* gguf_index.c - names of keys and tensors: where they live and how they are found. */
#include "gguf/gguf_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

enum { BLOCK = 16 * 1024 };

struct names_block {
    struct names_block *next;
    size_t used, cap;
    char s[];
};

const char *gguf_names_add(gguf_names *names, const void *s, size_t n)
{
    struct names_block *b = names->head;
    if (!b || b->cap - b->used < n + 1) {
        size_t cap = n + 1 > BLOCK ? n + 1 : BLOCK;
        b = malloc(sizeof *b + cap);
        if (!b)
            return NULL;
        *b = (struct names_block){.next = names->head, .cap = cap};
        names->head = b;
    }
    char *p = b->s + b->used;
    memcpy(p, s, n);
    p[n] = 0;
    b->used += n + 1;
    return p;
}

void gguf_names_free(gguf_names *names)
{
    while (names->head) {
        struct names_block *b = names->head;
        names->head = b->next;
        free(b);
    }
}

/* --- index -------------------------------------------------------------- */

struct index_slot {
    const char *name; /* NULL = free */
    size_t n;
    uint64_t hash;
    size_t i;
};

__extension__ typedef unsigned __int128 u128;

static uint64_t fold(uint64_t a, uint64_t b)
{
    u128 p = (u128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Eight bytes at a time through a folded 128-bit product; both factors hold secret bits. */
static uint64_t hash_name(const char *s, size_t n)
{
    uint64_t key[2] = {0x9e3779b97f4a7c15u, 0xbf58476d1ce4e5b9u};
    const void *seed = (const void *)getauxval(AT_RANDOM); /* 16 bytes, fixed for the process */
    if (seed)
        memcpy(key, seed, sizeof key);
    uint64_t h = fold(key[0] ^ n, key[1] ^ 0x94d049bb133111ebu);
    for (; n > 0;) {
        uint64_t w = 0;
        size_t k = n < 8 ? n : 8;
        memcpy(&w, s, k);
        h = fold(w ^ key[0], h ^ key[1]);
        s += k;
        n -= k;
    }
    return h;
}

static struct index_slot *probe(const gguf_index *ix, const char *name, size_t n, uint64_t hash)
{
    size_t mask = ix->cap - 1;
    for (size_t k = hash & mask;; k = (k + 1) & mask) {
        struct index_slot *s = &ix->slots[k];
        if (!s->name || (s->hash == hash && s->n == n && memcmp(s->name, name, n) == 0))
            return s;
    }
}

static bool grow(gguf_index *ix)
{
    gguf_index next = {.n = ix->n, .cap = ix->cap ? 2 * ix->cap : 64};
    next.slots = ts_calloc(next.cap, sizeof *next.slots);
    if (!next.slots)
        return false;
    for (size_t k = 0; k < ix->cap; k++) {
        const struct index_slot *s = &ix->slots[k];
        if (s->name)
            *probe(&next, s->name, s->n, s->hash) = *s;
    }
    free(ix->slots);
    *ix = next;
    return true;
}

ts_status gguf_index_add(gguf_index *ix, const char *name, size_t n, size_t i)
{
    if (2 * (ix->n + 1) > ix->cap && !grow(ix))
        return TS_NO_MEMORY;
    uint64_t hash = hash_name(name, n);
    struct index_slot *s = probe(ix, name, n, hash);
    if (s->name)
        return TS_BAD_FILE;
    *s = (struct index_slot){.name = name, .n = n, .hash = hash, .i = i};
    ix->n++;
    return TS_OK;
}

int64_t gguf_index_find(const gguf_index *ix, const char *name, size_t n)
{
    if (!ix->cap)
        return -1;
    const struct index_slot *s = probe(ix, name, n, hash_name(name, n));
    return s->name ? (int64_t)s->i : -1;
}

void gguf_index_free(gguf_index *ix)
{
    free(ix->slots);
    *ix = (gguf_index){0};
}

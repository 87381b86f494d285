/* pages.c - see pages.h. */
#include "exec/pages.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

_Static_assert(TS_PAGE == TS_KV_PAGE, "the public page is the kernels'");

enum { NONE = -1 };

typedef struct page {
    int64_t refs;     /* timelines that hold it                       */
    int64_t children; /* known pages whose parent it is               */
    uint64_t used;    /* the later, the more recently it was held     */
    int32_t parent;   /* of a known page                              */
    int32_t next;     /* of a known page: in its bucket               */
    bool known;
    ts_token tokens[TS_PAGE];
} page;

typedef struct timeline {
    int64_t pos;
    int64_t n;    /* pages, more than pos takes while room is reserved */
    int32_t *map; /* [n_pages] */
} timeline;

struct ts_pages {
    int64_t n_pages, n_seqs;
    page *page;       /* [n_pages] */
    int32_t *bucket;  /* [n_buckets] known pages by their parents and tokens */
    size_t n_buckets; /* a power of two */
    int32_t *free;    /* [n_free] */
    int64_t n_free, n_held;
    uint64_t clock;
    timeline *line; /* [n_seqs] */
    int32_t *maps;  /* [n_seqs][n_pages], theirs */
};

void ts_pages_close(ts_pages *p)
{
    if (!p)
        return;
    free(p->page);
    free(p->bucket);
    free(p->free);
    free(p->line);
    free(p->maps);
    free(p);
}

void ts_pages_clear(ts_pages *p)
{
    memset(p->page, 0, (size_t)p->n_pages * sizeof *p->page);
    for (size_t i = 0; i < p->n_buckets; i++)
        p->bucket[i] = NONE;
    p->n_free = p->n_pages;
    p->n_held = 0;
    for (int64_t i = 0; i < p->n_pages; i++) /* the first is taken first */
        p->free[i] = (int32_t)(p->n_pages - 1 - i);
    for (int64_t i = 0; i < p->n_seqs; i++)
        p->line[i] = (timeline){.map = p->maps + i * p->n_pages};
}

ts_status ts_pages_open(ts_pages **out, int64_t n_pages, int64_t n_seqs, ts_error *err)
{
    ts_pages *p = ts_calloc(1, sizeof *p);
    if (p) {
        p->n_pages = n_pages;
        p->n_seqs = n_seqs;
        for (p->n_buckets = 64; p->n_buckets < (size_t)n_pages;)
            p->n_buckets *= 2;
        p->page = ts_calloc((size_t)n_pages, sizeof *p->page);
        p->bucket = ts_calloc(p->n_buckets, sizeof *p->bucket);
        p->free = ts_calloc((size_t)n_pages, sizeof *p->free);
        p->line = ts_calloc((size_t)n_seqs, sizeof *p->line);
        p->maps = ts_calloc((size_t)(n_seqs * n_pages), sizeof *p->maps);
    }
    if (!p || !p->page || !p->bucket || !p->free || !p->line || !p->maps) {
        ts_pages_close(p);
        return ts_fail(err, TS_NO_MEMORY, "no memory for the page tables of a session");
    }
    ts_pages_clear(p);
    *out = p;
    return TS_OK;
}

int64_t ts_pages_pos(const ts_pages *p, int64_t seq)
{
    return p->line[seq].pos;
}

const int32_t *ts_pages_map(const ts_pages *p, int64_t seq)
{
    return p->line[seq].map;
}

/* --- known pages -------------------------------------------------------------- */

static size_t bucket_of(const ts_pages *p, int32_t parent, const ts_token *tokens)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ (uint32_t)parent;
    for (int i = 0; i < TS_PAGE; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (size_t)h & (p->n_buckets - 1);
}

static int32_t find(const ts_pages *p, int32_t parent, const ts_token *tokens)
{
    int32_t i = p->bucket[bucket_of(p, parent, tokens)];
    while (i != NONE && (p->page[i].parent != parent ||
                         memcmp(p->page[i].tokens, tokens, sizeof p->page[i].tokens) != 0))
        i = p->page[i].next;
    return i;
}

/* Page i is full from here on. */
static void know(ts_pages *p, int32_t i, int32_t parent)
{
    page *x = &p->page[i];
    int32_t *first = &p->bucket[bucket_of(p, parent, x->tokens)];
    x->parent = parent;
    x->known = true;
    x->next = *first;
    *first = i;
    if (parent != NONE)
        p->page[parent].children++;
}

static void forget(ts_pages *p, int32_t i)
{
    page *x = &p->page[i];
    int32_t *at = &p->bucket[bucket_of(p, x->parent, x->tokens)];
    while (*at != i)
        at = &p->page[*at].next;
    *at = x->next;
    x->known = false;
    if (x->parent != NONE)
        p->page[x->parent].children--;
}

/* --- holding ------------------------------------------------------------------ */

static void hold(ts_pages *p, int32_t i)
{
    p->n_held += p->page[i].refs++ == 0;
    p->page[i].used = ++p->clock;
}

static void release(ts_pages *p, int32_t i)
{
    if (--p->page[i].refs > 0)
        return;
    p->n_held--;
    p->page[i].used = ++p->clock;
    if (!p->page[i].known)
        p->free[p->n_free++] = i;
}

/* The page that is wanted least; NONE: all are held. */
static int32_t least(const ts_pages *p)
{
    int32_t best = NONE;
    for (int32_t i = 0; i < p->n_pages; i++) {
        const page *x = &p->page[i];
        if (x->known && x->refs == 0 && x->children == 0 &&
            (best == NONE || x->used < p->page[best].used))
            best = i;
    }
    return best;
}

static int32_t take(ts_pages *p)
{
    int32_t i;
    if (p->n_free > 0) {
        i = p->free[--p->n_free];
    } else {
        i = least(p);
        if (i == NONE)
            return NONE;
        forget(p, i);
    }
    p->page[i].refs = 0;
    hold(p, i);
    return i;
}

static int64_t pages_of(int64_t positions)
{
    return (positions + TS_PAGE - 1) / TS_PAGE;
}

/* Keeps the first n pages. The last ones are let go first, as they are wanted less. */
static void keep(ts_pages *p, timeline *t, int64_t n)
{
    while (t->n > n)
        release(p, t->map[--t->n]);
}

bool ts_pages_reserve(ts_pages *p, int64_t seq, int64_t n)
{
    timeline *t = &p->line[seq];
    const int64_t had = t->n, want = pages_of(t->pos + n);
    if (want > p->n_pages)
        return false;
    while (t->n < want) {
        const int32_t i = take(p);
        if (i == NONE) {
            keep(p, t, had);
            return false;
        }
        t->map[t->n++] = i;
    }
    return true;
}

void ts_pages_trim(ts_pages *p, int64_t seq)
{
    keep(p, &p->line[seq], pages_of(p->line[seq].pos));
}

/* The timeline's page `at` has become full. Somebody may have made the same one meanwhile: then
 * that one serves both. */
static void fill(ts_pages *p, timeline *t, int64_t at)
{
    const int32_t own = t->map[at], parent = at ? t->map[at - 1] : NONE;
    const int32_t same = find(p, parent, p->page[own].tokens);
    if (same == NONE) {
        know(p, own, parent);
        return;
    }
    hold(p, same);
    t->map[at] = same;
    release(p, own);
}

void ts_pages_append(ts_pages *p, int64_t seq, const ts_token *tokens, int64_t n)
{
    timeline *t = &p->line[seq];
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = t->pos / TS_PAGE;
        p->page[t->map[at]].tokens[t->pos % TS_PAGE] = tokens[i];
        if (++t->pos % TS_PAGE == 0)
            fill(p, t, at);
    }
}

int64_t ts_pages_begin(ts_pages *p, int64_t seq, const ts_token *tokens, int64_t n)
{
    timeline *t = &p->line[seq];
    keep(p, t, 0);
    t->pos = 0;
    for (int32_t parent = NONE, i; t->pos + TS_PAGE < n; parent = i) {
        i = find(p, parent, tokens + t->pos);
        if (i == NONE)
            break;
        hold(p, i);
        t->map[t->n++] = i;
        t->pos += TS_PAGE;
    }
    return t->pos;
}

void ts_pages_rewind(ts_pages *p, int64_t seq, int64_t pos, ts_token tail[TS_PAGE], int64_t *n_tail)
{
    timeline *t = &p->line[seq];
    *n_tail = 0;
    t->pos = pos;
    if (pos % TS_PAGE) {
        const page *cut = &p->page[t->map[pos / TS_PAGE]];
        if (cut->known) {
            *n_tail = pos % TS_PAGE;
            memcpy(tail, cut->tokens, (size_t)*n_tail * sizeof *tail);
            t->pos -= *n_tail;
        }
    }
    keep(p, t, pages_of(t->pos));
}

void ts_pages_info(const ts_pages *p, ts_kv_info *out)
{
    *out = (ts_kv_info){.n_pages = p->n_pages,
                        .n_held = p->n_held,
                        .n_cached = p->n_pages - p->n_held - p->n_free,
                        .n_free = p->n_free};
}

/* --- saving ------------------------------------------------------------------- */

/* Level by level from the roots. */
int64_t ts_pages_known(const ts_pages *p, int32_t *out)
{
    int64_t n = 0;
    for (int32_t i = 0; i < p->n_pages; i++)
        if (p->page[i].known && p->page[i].parent == NONE)
            out[n++] = i;
    for (int64_t done = 0; done < n; done++) {
        if (p->page[out[done]].children == 0)
            continue;
        for (int32_t i = 0; i < p->n_pages; i++)
            if (p->page[i].known && p->page[i].parent == out[done])
                out[n++] = i;
    }
    return n;
}

int32_t ts_pages_parent(const ts_pages *p, int32_t i)
{
    return p->page[i].parent;
}

const ts_token *ts_pages_tokens(const ts_pages *p, int32_t i)
{
    return p->page[i].tokens;
}

int32_t ts_pages_add(ts_pages *p, int32_t parent, const ts_token tokens[TS_PAGE])
{
    if (p->n_free == 0 || find(p, parent, tokens) != NONE)
        return NONE;
    const int32_t i = p->free[--p->n_free];
    memcpy(p->page[i].tokens, tokens, sizeof p->page[i].tokens);
    p->page[i].used = ++p->clock;
    know(p, i, parent);
    return i;
}

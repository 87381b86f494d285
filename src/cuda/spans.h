/* spans.h - a batch whose rows are several timelines', or one's whose pages lie in any order: what
 * kernels have to know of it, as one table, which the host makes and sends.
 *
 *     header | pos | place | out | tokens | spans | tiles | the maps' used parts
 *
 * Where the parts before the maps begin depends on the plan alone, so a captured graph finds the
 * next batch's at the same place. A map is found from the table's beginning. */
#ifndef TS_CUDA_SPANS_H
#define TS_CUDA_SPANS_H

#include <stddef.h>

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Positions of a page: position p of a timeline is in its page p / TS_CUDA_PAGE. */
enum { TS_CUDA_PAGE = 64 };

/* Consecutive tokens of one timeline. */
typedef struct ts_cuda_span {
    int32_t r0, m, pos0; /* rows of the batch, the first of which stands at pos0               */
    int32_t map;         /* its pages begin at so many int32 of the table: page i of the timeline
                            is the cache's page table[map + i]                                 */
} ts_cuda_span;

/* Decode: up to so many query rows of a span, from `first` on. A launch is of several spans, whose
 * tokens it numbers; `at` is the number of the span's first. */
enum { TS_CUDA_TILE_ROWS = 16 };

typedef struct ts_cuda_tile {
    ts_cuda_span span;
    int32_t first, at, zero[2];
} ts_cuda_tile;

/* ... and where these are. */
typedef struct ts_cuda_token {
    int32_t row, pos;
} ts_cuda_token;

/* Tiles of a span. */
static inline int64_t ts_cuda_tiles(int64_t m, int64_t group)
{
    return (m * group + TS_CUDA_TILE_ROWS - 1) / TS_CUDA_TILE_ROWS;
}

/* How much there may be: rows and spans of a batch, pages of all its maps. group: query heads that
 * share a KV head; 0: attention is latent, without tiles. */
typedef struct ts_cuda_room {
    int64_t rows, spans, pages, group;
} ts_cuda_room;

/* Spans of at most this many tokens are decoded; a launch is of no more together. */
#define TS_CUDA_DECODE 32

typedef struct ts_cuda_spans {
    ts_cuda_room room;
    int32_t *host; /* the table: ts_cuda_spans_bytes()                                     */
    int64_t n;     /* spans of the batch, the shortest first                               */
    int64_t tiles; /* of those that are decoded                                            */
    int64_t used;  /* int32 of the table                                                   */
    /* Parts of the table on the GPU, and one here. */
    const int32_t *pos, *place; /* [m]     of each row: its position, and where in the cache */
    const int32_t *out;         /* [m_out] rows that want logits, in order                   */
    const ts_cuda_token *tokens;
    const ts_cuda_span *spans;
    const ts_cuda_tile *tile;
    ts_cuda_span *here; /* of `host`: the spans */
} ts_cuda_spans;

/* Where the table's parts begin, in int32; all but the maps are aligned to 16 bytes. */
typedef struct ts_cuda_layout {
    int64_t pos, place, out, tokens, spans, tiles;
    int64_t end; /* where the maps begin if everything else is used */
} ts_cuda_layout;

enum {
    TS_CUDA_SPAN_WORDS = sizeof(ts_cuda_span) / sizeof(int32_t),
    TS_CUDA_TILE_WORDS = sizeof(ts_cuda_tile) / sizeof(int32_t),
};

static inline ts_cuda_layout ts_cuda_layout_of(const ts_cuda_room *r)
{
    const int64_t rows = (r->rows + 3) / 4 * 4;
    const int64_t tiles = r->group ? r->rows * r->group / TS_CUDA_TILE_ROWS + r->spans : 0;
    ts_cuda_layout l;
    l.pos = sizeof(ts_cuda_batch) / sizeof(int32_t);
    l.place = l.pos + rows;
    l.out = l.place + rows;
    l.tokens = l.out + rows;
    l.spans = l.tokens + 2 * rows;
    l.tiles = l.spans + TS_CUDA_SPAN_WORDS * r->spans;
    l.end = l.tiles + TS_CUDA_TILE_WORDS * tiles;
    return l;
}

static inline size_t ts_cuda_spans_bytes(const ts_cuda_room *room)
{
    return (size_t)(ts_cuda_layout_of(room).end + room->pages) * sizeof(int32_t);
}

/* host and dev: ts_cuda_spans_bytes() of memory each, aligned to 16 bytes. batch.cu. */
void ts_cuda_spans_at(ts_cuda_spans *s, const ts_cuda_room *room, int32_t *host,
                      const ts_cuda_batch *dev);

/* Makes the table in `host`: a batch of m rows, of which out[m_out] want logits; then each of its
 * spans, whose map has the pages up to its last position (NULL: in order); then the end. */
void ts_cuda_spans_begin(ts_cuda_spans *s, int64_t m, const int32_t *out, int64_t m_out);
void ts_cuda_spans_add(ts_cuda_spans *s, int64_t r0, int64_t m, int64_t pos0, const int32_t *map);
void ts_cuda_spans_end(ts_cuda_spans *s);

/* Spans from the first on that one launch decodes: the end of them. `first` itself if it isn't to
 * be decoded, or isn't there. */
static inline int64_t ts_cuda_decoded(const ts_cuda_spans *s, int64_t first)
{
    int64_t end = first, m = 0;
    while (end < s->n && m + s->here[end].m <= TS_CUDA_DECODE)
        m += s->here[end++].m;
    return end;
}

#ifdef __cplusplus
}
#endif

#endif

/* chunks.h - how the rows of a weight matrix are dealt out to threads that claim them. */
#ifndef TS_CHUNKS_H
#define TS_CHUNKS_H

#include "cpu/kset.h"

/* `large` chunks of `per` units each first, then `mid` of two units, then units one by one, so that
 * at the end nobody waits long. */
typedef struct ts_chunks {
    int64_t unit, per, large, mid; /* unit: rows */
} ts_chunks;

/* For a product of n rows of W with m tokens by n_threads. */
static inline ts_chunks ts_chunks_of(const ts_kset *s, bool int8, int64_t n, int64_t m,
                                     int n_threads)
{
    ts_chunks c = {.unit = 16};
    if (ts_kset_on_tiles(s, int8, m))
        c.unit = 32; /* two groups of 16 rows keep all tiles busy */
    /* every chunk takes all activations through a core's cache: fewer and larger */
    const bool wide = m >= 128 && c.unit == 32 && n >= 64 * n_threads;
    c.unit = (c.unit + s->group - 1) / s->group * s->group;
    const int64_t units = (n + c.unit - 1) / c.unit;
    /* many tokens: a piece stays in a core's cache while all of them pass */
    const int64_t most = (m >= 8 ? 128 : 256) / c.unit, least = wide ? most : 2;
    c.per = units / (8 * n_threads);
    c.per = c.per < least ? least : c.per > most ? most : c.per;
    /* units left for small chunks: who takes the last large one isn't behind the others with it */
    int64_t rest = (wide ? 2 : c.per) * n_threads;
    c.large = units > rest ? (units - rest) / c.per : 0;
    rest = units - c.per * c.large;
    const int64_t singles = (wide ? 1 : 2) * n_threads;
    c.mid = rest > singles ? (rest - singles) / 2 : 0;
    return c;
}

/* How many chunks n rows are. */
static inline int64_t ts_chunk_count(ts_chunks c, int64_t n)
{
    const int64_t units = (n + c.unit - 1) / c.unit;
    return units - (c.per - 1) * c.large - c.mid;
}

/* Rows n0..n1 of the i-th chunk of n rows; false behind the last. */
static inline bool ts_chunk_rows(ts_chunks c, int64_t i, int64_t n, int64_t *n0, int64_t *n1)
{
    const int64_t i1 = i < c.large ? i : c.large, i2 = i - i1 < c.mid ? i - i1 : c.mid;
    *n0 = c.unit * (c.per * i1 + 2 * i2 + (i - i1 - i2));
    *n1 = *n0 + c.unit * (i < c.large ? c.per : i < c.large + c.mid ? 2 : 1);
    if (*n1 > n)
        *n1 = n;
    return *n0 < n;
}

#endif

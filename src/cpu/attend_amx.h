/* attend_amx.h - what the two files of attention with tiles share: attend_amx.c has the walk and
 * the products, attend_ends_amx.c what goes in and comes out. */
#ifndef TS_ATTEND_AMX_H
#define TS_ATTEND_AMX_H

#ifdef TS_STANDIN /* the tests' second copy has names of its own */
#define attend_amx         standin_attend
#define attend_amx_scratch standin_attend_scratch
#define attend_amx_merge   standin_attend_merge
#define attend_amx_queries standin_attend_queries
#define attend_amx_edges   standin_attend_edges
#define attend_amx_fold    standin_attend_fold
#define attend_amx_finish  standin_attend_finish
#define ts_kv_amx          standin_kv
#endif

#include "cpu/attend.h"
#include "cpu/intrin.h"

enum {
    LANES = 16, /* query rows of a column tile                                         */
    TILE = 512, /* BF16 elements of a tile: 16 rows of 32                              */
    GROUP = 32, /* positions that one PV product takes                                 */
    BLOCK = 128 /* positions between two rescalings: S of two column tiles is 16 KB    */
};

/* Running sums of a task, or of one segment of it. */
typedef struct amx_sums {
    float *acc; /* [cols][v_chunks * 32 dims][LANES] */
    float *m;   /* [cols][LANES] exponents are relative to it; -INFINITY: nothing seen */
    float *l;   /* [cols][LANES] */
} amx_sums;

typedef struct amx_walk {
    const ts_attend *p;
    int64_t rows, cols; /* n_tokens * n_group; column tiles of them                       */
    int64_t chunks;     /* of 32 dimensions of q and K ...                                */
    int64_t v_chunks;   /* ... and of V and o                                             */
    int64_t lo, hi;     /* positions that some token sees                                 */
    uint16_t *q;        /* [cols][chunks] tiles: [16 pairs of dims][LANES][2]             */
    float *s;           /* [2][BLOCK][LANES] S^T; then P^T: [2][BLOCK/2 pairs][LANES][2]  */
    uint16_t *edge[2];  /* [v_chunks][2] tiles: V of the groups that lo and hi cut          */
    amx_sums whole, segment;
} amx_walk;

/* Q to tiles: scaled, in units of ln 2, rounded. */
void attend_amx_queries(const amx_walk *w);

/* V of the groups that lo and hi cut, with zeros where no token looks. */
void attend_amx_edges(const amx_walk *w);

/* Adds the sums of later positions. */
void attend_amx_fold(const amx_walk *w, const amx_sums *to, const amx_sums *from);

/* O^T to rows, divided by their sums unless they are a part. */
void attend_amx_finish(const amx_walk *w);

static inline int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Where both tiles of V with 32 positions from pos (a multiple of 32) and a chunk of dimensions
 * are, in elements. */
static inline size_t v_offset(int64_t pos, int64_t chunk, int64_t chunks)
{
    return (size_t)(((pos / BLOCK * chunks + chunk) * (BLOCK / GROUP) + pos % BLOCK / GROUP) * 2 *
                    TILE);
}

static inline __mmask16 first_lanes(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

#endif

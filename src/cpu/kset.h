/* kset.h - kernel sets: one (quant type, ISA) pair each.
 *
 * A kernel set owns one packed layout of a weight matrix and every kernel that reads it, for any
 * number of tokens m. kset.def lists them all; dispatch, `tessera plan`, the tests and
 * bench/kernels include the same list.
 *
 *     source rows (GGUF) --pack--> packed --mul--> y
 *                        <-unpack-
 *     x [m][k] float --prep--> activations (format of the type, layout of the ISA) --mul--> y
 *
 * The letters: m tokens, n output rows, k inner dimension. */
#ifndef TS_KSET_H
#define TS_KSET_H

#include "cpu/packing.h"
#include "gguf/type.h"

/* One product y[m][n0..n1] = add[m][n0..n1] + act(x)[m][k] * W[n][k]^T.
 * mul writes exactly those columns of y, and reads no others of add. n0 is a multiple of `group`;
 * n1 is one too, or n. */
typedef struct ts_mul {
    const void *w; /* packed (or source, when the kset has no pack)             */
    const void *x; /* prepared activations of m tokens                          */
    int limbs;     /* of the ts_prep that made them                             */
    float *y;      /* [m][n], row stride ldy in floats                          */
    /* [m][n], row stride ldadd in floats; may be y, with its stride. NULL: nothing is added. */
    const float *add;
    int64_t m, n, k, ldy, ldadd;
    int64_t n0, n1;
    void *scratch; /* TS_MUL_SCRATCH bytes, 64-byte aligned, private to the call; for amx sets   */
} ts_mul;

/* Of a product by tiles: a panel of weights, and sums of 128 rows by this many tokens. */
#define TS_MUL_TOKENS  512
#define TS_MUL_SCRATCH ((32 + 256) * 1024)

/* Activation preparation, one per (format, ISA). Quantised activations come in two precisions:
 *
 *   exact  15 bits: q = round(x / d), d = max|x| / 16256 over a block, held as two int8 limbs
 *          q = 128 h + l that are two rows of the product, added at its end
 *   int8   q = round(x / d), d = max|x| / 127: one row, half the work, 16,000 times the noise
 *
 * One buffer holds either: a set's exact preparation never takes fewer bytes. */
typedef struct ts_prep {
    ts_act act;
    ts_isa isa;
    int limbs;   /* rows of the product that one token is: 1 or 2                    */
    int m_group; /* tokens that one thread should prepare together; any other cut is right too */
    int k_group; /* elements that have to be prepared together: a power of two       */
    /* bytes for m tokens; never more for fewer tokens */
    size_t (*bytes)(int64_t m, int64_t k);
    /* x[m][k] (row stride ldx floats) -> dst, elements k0..k1 of tokens m0..m1 of m. k0 is a
     * multiple of k_group; k1 is one too, or k. dst is 64-byte aligned. Distinct parts may be
     * prepared by distinct threads. The format may depend on m, and with `all_from` tokens or more
     * elements k0..k1 of other tokens are read too. */
    void (*run)(void *dst, const float *x, int64_t ldx, int64_t m, int64_t k, int64_t m0,
                int64_t m1, int64_t k0, int64_t k1);
    int64_t group_from; /* m_group is for this many tokens or more; fewer go one by one */
    int64_t all_from;   /* from this many tokens on a part depends on all of x; 0: never */
    /* Formats of one family have one format below group_from and one from it on, and differ in
     * nothing but group_from. 0: a family of its own. */
    int family;
} ts_prep;

/* Do both make the same of m tokens? */
static inline bool ts_prep_agree(const ts_prep *a, const ts_prep *b, int64_t m)
{
    return a == b ||
           (a->family && a->family == b->family && (m < a->group_from) == (m < b->group_from));
}

typedef struct ts_kset {
    ts_type type;
    ts_isa isa;
    const char *layout;  /* "source", or the packed layout's name in docs/KERNELS.md: "q4_0.r8" */
    const ts_prep *prep; /* exact                                                    */
    const ts_prep *prep_int8; /* 8 bits; the same where activations stay floats          */
    int group; /* rows of W that are packed together; work is split at multiples of it */
    const ts_packing *packing; /* the layout, for other devices; NULL: there is no packing */
    /* Bytes of a packed n x k matrix. NULL: there is no packing, mul reads the source. */
    size_t (*packed_bytes)(int64_t n, int64_t k);
    /* Packs rows n0..n1 (n0 a multiple of group; n1 too, or n) from the source of the whole matrix
     * to the packed whole matrix (64-byte aligned). Rows past n in the last group are packed as
     * zeros. */
    void (*pack)(void *packed, const void *src, int64_t n, int64_t k, int64_t n0, int64_t n1);
    /* The inverse, byte for byte. */
    void (*unpack)(void *src, const void *packed, int64_t n, int64_t k, int64_t n0, int64_t n1);
    void (*mul)(const ts_mul *p);
    /* Does mul make the products of m tokens, with 8-bit activations or exact ones, on tiles? NULL:
     * never. The statistics and the prediction ask it. */
    bool (*on_tiles)(bool int8, int64_t m);
} ts_kset;

static inline bool ts_kset_on_tiles(const ts_kset *s, bool int8, int64_t m)
{
    return s->on_tiles && s->on_tiles(int8, m);
}

/* The products of m tokens on tiles are of 8-bit activations, made by int8 tiles. */
static inline bool ts_kset_on_int8_tiles(const ts_kset *s, bool int8, int64_t m)
{
    return int8 && s->prep_int8 != s->prep && ts_kset_on_tiles(s, int8, m);
}

/* The widest kernel set for this type not wider than isa; never NULL for a type ts_type_get knows
 * (`ref` has all). */
const ts_kset *ts_kset_get(ts_type type, ts_isa isa);

/* --- stacks: e matrices n x k of one tensor with three dimensions, such as a layer's experts ---
 *
 *     source [e][n][k], no gaps --pack--> matrix 0 .. | fill | matrix 1 .. | fill | ...
 *
 * Each matrix is packed by itself, its last group filled up with rows of zeros, and begins at a
 * multiple of 64 bytes: to `mul` it is a packed matrix like any other. Of a kset that doesn't pack
 * it is the source. Offsets are size_t, and the stack may be larger than 4 GiB; its bytes, filled
 * up, are less than 2^63: of a tensor in a file that was checked they are. */

/* Bytes from one matrix to the next, and of the whole stack. */
size_t ts_kset_stack_stride(const ts_kset *s, int64_t n, int64_t k);
size_t ts_kset_stack_bytes(const ts_kset *s, int64_t e, int64_t n, int64_t k);

/* Matrix i of the stack w, packed (of a kset that doesn't pack: source), for ts_mul.w. */
const void *ts_kset_stack_at(const ts_kset *s, const void *w, int64_t n, int64_t k, int64_t i);

/* Rows n0..n1 of matrix i, as ts_kset.pack and unpack take them, between the source of the whole
 * stack and the packed stack (64-byte aligned). Distinct ranges may be packed by distinct threads.
 * Only for ksets that pack. */
void ts_kset_stack_pack(const ts_kset *s, void *packed, const void *src, int64_t n, int64_t k,
                        int64_t i, int64_t n0, int64_t n1);
void ts_kset_stack_unpack(const ts_kset *s, void *src, const void *packed, int64_t n, int64_t k,
                          int64_t i, int64_t n0, int64_t n1);

/* All of them, for tests and benchmarks. */
size_t ts_kset_count(void);
const ts_kset *ts_kset_at(size_t i);

#endif

/* attend_product.h - attention with vectors: the block that attend_avx2.c and attend_avx512.c
 * share. An ISA brings the product of a few rows and the softmax of one. */
#ifndef TS_ATTEND_PRODUCT_H
#define TS_ATTEND_PRODUCT_H

#include <stdint.h>

#include "cpu/attend.h"

/* One product C = f C + A B, or A B: C[rows][n], A[rows][k], B[k][n]. */
typedef struct product {
    float *c;
    const float *a;
    const float *f;    /* row r of C starts as f[r] * C; NULL: as 0                    */
    const uint16_t *b; /* F16, element (i, j) at b[j / 16 * strip + i * ldb + j % 16]  */
    uintptr_t next;    /* address of what the block after this one reads, n * k halves */
    int64_t ldc, lda, ldb, strip;
    int64_t n, k; /* n a multiple of 16                                           */
} product;

/* Scores s[width] of one row to P in place, 0 outside lo..hi. Updates m and l; returns the factor
 * for the sums so far. */
typedef float softmax_of_row(float *s, float *ml, int64_t width, int64_t lo, int64_t hi, float cap);

/* Scores of a block, their softmax, and its sums added to acc: what attend_block is to do. */
static inline void product_block(const attend_walk *w, int64_t b, int64_t j0, int64_t j1,
                                 int64_t t0, int64_t t1,
                                 void (*multiply)(const product *p, int64_t rows),
                                 softmax_of_row *softmax_row)
{
    const ts_attend *p = w->p;
    const int64_t d = p->head_dim, r0 = t0 * p->n_group, rows = (t1 - t0) * p->n_group;
    const int64_t c0 = j0 & ~(int64_t)15, width = ((j1 + 15) & ~(int64_t)15) - c0;
    _Static_assert(TS_PAGE % ATTEND_BLOCK == 0, "a block lies within a page");
    const int64_t at = ts_place(p->map, b);
    const uint16_t *k = (const uint16_t *)p->k + (at + c0) * d;
    const uint16_t *v = (const uint16_t *)p->v + (at + j0) * w->lda;
    const bool more = attend_goes_on(p, b, ATTEND_BLOCK);
    const int64_t ahead = more ? ts_place(p->map, b + ATTEND_BLOCK) - at : 0;
    float *score = w->s + r0 * ATTEND_BLOCK + c0;

    multiply(&(product){.c = score,
                        .ldc = ATTEND_BLOCK,
                        .a = w->q + r0 * d,
                        .lda = d,
                        .b = k,
                        .ldb = 16,
                        .strip = 16 * d,
                        .next = (uintptr_t)(k + ahead * d),
                        .n = width,
                        .k = d},
             rows);

    float *row = score, *ml = w->ml + 2 * r0, *f = w->f;
    for (int64_t t = t0; t < t1; t++) {
        int64_t lo, hi;
        attend_visible(p, b, t, j0, j1, &lo, &hi);
        for (int64_t g = 0; g < p->n_group; g++, row += ATTEND_BLOCK, ml += 2)
            *f++ = softmax_row(row, ml, width, lo - c0, hi - c0, p->softcap);
    }

    multiply(&(product){.c = w->acc + r0 * w->lda,
                        .ldc = w->lda,
                        .a = score + (j0 - c0),
                        .lda = ATTEND_BLOCK,
                        .f = w->f,
                        .b = v,
                        .ldb = w->lda,
                        .strip = 16,
                        .next = (uintptr_t)(v + ahead * w->lda),
                        .n = w->lda,
                        .k = j1 - j0},
             rows);
}

#endif

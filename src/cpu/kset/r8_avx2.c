/* r8_avx2.c - the loops around the tiles of r8_avx2.h. */
#include "cpu/kset/r8_avx2.h"

enum {
    PANEL_BYTES = 20 * 1024, /* of 32 KB L1, beside the activations of a tile                    */
    CHUNK = 1024,            /* elements of k a panel holds, at most                             */
    BLOCK_TOKENS = 256,      /* whose activations of a chunk stay in half of a 512 KB L2         */
    L2_BYTES = 256 * 1024,   /* that half                                                        */
};

/* Tiles of one group of rows over m rows of x. */
static void tokens(const ts_r8_kernels *f, const uint8_t *w, const uint8_t *x, size_t ldx,
                   int64_t nb, int64_t m, ts_r8_out out)
{
    while (m > 0) {
        int64_t t = m < f->tokens ? m : f->tokens;
        f->tile[t - 1](w, x, ldx, nb, &out);
        m -= t;
        x += (size_t)t * ldx;
        out.y += t / out.limbs * out.ldy;
        if (out.add)
            out.add += t / out.limbs * out.ldadd;
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Where the tiles of a group of rows leave their sums, from row m0 of x and block b0 on. */
static ts_r8_out group_out(const ts_r8_kernels *f, const ts_mul *p, int64_t n, int64_t m0,
                           int64_t b0)
{
    const int64_t t = m0 / p->limbs;
    ts_r8_out out = {.y = p->y + t * p->ldy + n,
                     .ldy = p->ldy,
                     .rows = smaller(p->n1 - n, f->rows),
                     .limbs = p->limbs};
    if (b0 > 0) {
        out.add = out.y;
        out.ldadd = p->ldy;
    } else if (p->add) {
        out.add = p->add + t * p->ldadd + n;
        out.ldadd = p->ldadd;
    }
    return out;
}

/* Few rows of x: packed blocks are read in the order they lie in, each once. */
static void direct(const ts_r8_kernels *f, const ts_mul *p, int64_t m, int64_t step)
{
    int64_t nb = p->k / f->block;
    const uint8_t *w = (const uint8_t *)p->w + (size_t)p->n0 * (size_t)nb * f->bytes;
    for (int64_t n = p->n0; n < p->n1; n += f->rows) {
        for (int64_t b = 0; b < nb; b += step) {
            ts_r8_out out = group_out(f, p, n, 0, b);
            int64_t now = smaller(step, nb - b);
            f->direct[m - 1](w, (const uint8_t *)p->x + (size_t)b * f->x_bytes,
                             (size_t)nb * f->x_bytes, now, &out);
            w += (size_t)(now * f->rows) * f->bytes;
        }
    }
}

/* One group of rows from n on, rows m0..m1 of x, k blocks b0..b1, through a panel. */
static void group(const ts_r8_kernels *f, const ts_mul *p, int64_t n, int64_t m0, int64_t m1,
                  int64_t b0, int64_t b1)
{
    _Alignas(64) uint8_t panel[PANEL_BYTES];
    int64_t nb = p->k / f->block;
    size_t ldx = (size_t)nb * f->x_bytes;
    const uint8_t *x = (const uint8_t *)p->x + (size_t)m0 * ldx + (size_t)b0 * f->x_bytes;
    const uint8_t *w = (const uint8_t *)p->w + (size_t)(n * nb + b0 * (int64_t)f->rows) * f->bytes;
    if (f->panel) {
        f->panel(panel, w, b1 - b0);
        w = panel;
    }
    tokens(f, w, x, ldx, b1 - b0, m1 - m0, group_out(f, p, n, m0, b0));
}

/* Rows m0..m1 of x. The weights are read in their order while all of these fit in the L2, else
 * chunk by chunk of k. */
static void block(const ts_r8_kernels *f, const ts_mul *p, int64_t m0, int64_t m1, int64_t step)
{
    int64_t nb = p->k / f->block;
    if ((size_t)((m1 - m0) * nb) * f->x_bytes <= L2_BYTES) {
        for (int64_t n = p->n0; n < p->n1; n += f->rows)
            for (int64_t b = 0; b < nb; b += step)
                group(f, p, n, m0, m1, b, smaller(b + step, nb));
    } else {
        for (int64_t b = 0; b < nb; b += step)
            for (int64_t n = p->n0; n < p->n1; n += f->rows)
                group(f, p, n, m0, m1, b, smaller(b + step, nb));
    }
}

void ts_r8_mul(const ts_r8_kernels *f, const ts_mul *p)
{
    int64_t m = p->m * p->limbs;
    int64_t step = smaller(PANEL_BYTES / (int64_t)f->panel_bytes(), CHUNK / f->block);
    /* One tile: a panel would be read once only. Its chunks of k are the same, and so are the bits
     * of a token's result in any company. */
    if (m <= f->tokens) {
        direct(f, p, m, step);
        return;
    }
    for (int64_t m0 = 0; m0 < m; m0 += BLOCK_TOKENS)
        block(f, p, m0, smaller(m0 + BLOCK_TOKENS, m), step);
}

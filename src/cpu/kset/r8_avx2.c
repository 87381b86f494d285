/* r8_avx2.c - the loops around the tiles of r8_avx2.h. */
#include "cpu/kset/r8_avx2.h"

enum {
    PANEL_BYTES = 20 * 1024, /* of 32 KB L1, beside the activations of a tile                    */
    CHUNK = 1024,            /* elements of k a panel holds, at most                             */
    BLOCK_TOKENS = 256,      /* whose activations of a chunk stay in half of a 512 KB L2         */
};

/* Tiles of one group of rows over m rows of x. */
static void tokens(const ts_r8_kernels *f, ts_r8_tile *const tile[], const uint8_t *w,
                   const uint8_t *x, size_t ldx, int64_t nb, int64_t m, ts_r8_out out)
{
    while (m > 0) {
        int64_t t = m < f->tokens ? m : f->tokens;
        tile[t - 1](w, x, ldx, nb, &out);
        m -= t;
        x += (size_t)t * ldx;
        out.y += t / out.limbs * out.ldy;
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* All rows of p, rows m0..m1 of x, k blocks b0..b1; through a panel or not. */
static void chunk(const ts_r8_kernels *f, const ts_mul *p, bool by_panel, int64_t m0, int64_t m1,
                  int64_t b0, int64_t b1)
{
    _Alignas(64) uint8_t panel[PANEL_BYTES];
    int64_t nb = p->k / f->block;
    size_t row = (size_t)nb * f->bytes, ldx = (size_t)nb * f->x_bytes;
    const uint8_t *x = (const uint8_t *)p->x + (size_t)m0 * ldx + (size_t)b0 * f->x_bytes;
    const uint8_t *w0 = (const uint8_t *)p->w + (size_t)b0 * (size_t)f->rows * f->bytes;
    for (int64_t n = p->n0; n < p->n1; n += f->rows) {
        const uint8_t *w = w0 + (size_t)n * row;
        ts_r8_out out = {p->y + m0 / p->limbs * p->ldy + n, p->ldy, smaller(p->n1 - n, f->rows),
                         p->limbs, b0 > 0};
        if (by_panel && f->panel) {
            f->panel(panel, w, b1 - b0);
            w = panel;
        }
        tokens(f, by_panel ? f->tile : f->direct, w, x, ldx, b1 - b0, m1 - m0, out);
    }
}

void ts_r8_mul(const ts_r8_kernels *f, const ts_mul *p)
{
    int64_t nb = p->k / f->block, m = p->m * p->limbs;
    /* One tile: a panel would be read once only. Its chunks of k are the same, and so are the bits
     * of a token's result in any company. */
    bool by_panel = m > f->tokens;
    int64_t step = smaller(PANEL_BYTES / (int64_t)f->panel_bytes(), CHUNK / f->block);
    for (int64_t m0 = 0; m0 < m; m0 += BLOCK_TOKENS)
        for (int64_t b = 0; b < nb; b += step)
            chunk(f, p, by_panel, m0, smaller(m0 + BLOCK_TOKENS, m), b, smaller(b + step, nb));
}

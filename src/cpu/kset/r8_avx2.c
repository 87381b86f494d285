/* r8_avx2.c - the loops around the tiles of r8_avx2.h. */
#include "cpu/kset/r8_avx2.h"

enum {
    DIRECT_MAX = 8,          /* tokens up to which decoding in registers wins                    */
    PANEL_BYTES = 20 * 1024, /* of 32 KB L1, beside the activations of a tile                    */
    CHUNK = 1024,            /* elements of k a panel holds, at most                             */
    BLOCK_TOKENS = 256,      /* whose activations of a chunk stay in half of a 512 KB L2         */
};

static __m256i lanes(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Tiles of 8 rows over all tokens. */
static void tokens(ts_r8_tile *const tile[], const uint8_t *w, const uint8_t *x, size_t ldx,
                   int64_t nb, int64_t m, ts_r8_out out)
{
    while (m > 0) {
        int64_t t = m < TS_R8_TOKENS ? m : TS_R8_TOKENS;
        tile[t - 1](w, x, ldx, nb, &out);
        m -= t;
        x += (size_t)t * ldx;
        out.y += t * out.ldy;
    }
}

static void direct(const ts_r8_kernels *f, const ts_mul *p)
{
    int64_t nb = p->k / f->layout->block;
    size_t row = (size_t)nb * (size_t)f->layout->bytes;
    for (int64_t n = p->n0; n < p->n1; n += 8) {
        ts_r8_out out = {p->y + n, p->ldy, lanes(p->n1 - n), false};
        tokens(f->direct, (const uint8_t *)p->w + (size_t)n * row, p->x, (size_t)nb * f->x_bytes,
               nb, p->m, out);
    }
}

/* Rows n0..n1, tokens m0..m1, k blocks b0..b1. */
static void chunk(const ts_r8_kernels *f, const ts_mul *p, int64_t m0, int64_t m1, int64_t b0,
                  int64_t b1)
{
    _Alignas(64) uint8_t panel[PANEL_BYTES];
    int64_t nb = p->k / f->layout->block;
    size_t row = (size_t)nb * (size_t)f->layout->bytes;
    size_t ldx = (size_t)nb * f->x_bytes;
    const uint8_t *x = (const uint8_t *)p->x + (size_t)m0 * ldx + (size_t)b0 * f->x_bytes;
    const uint8_t *w = (const uint8_t *)p->w + (size_t)b0 * 8 * (size_t)f->layout->bytes;
    for (int64_t n = p->n0; n < p->n1; n += 8) {
        f->panel(panel, w + (size_t)n * row, b1 - b0);
        ts_r8_out out = {p->y + m0 * p->ldy + n, p->ldy, lanes(p->n1 - n), b0 > 0};
        tokens(f->tile, panel, x, ldx, b1 - b0, m1 - m0, out);
    }
}

void ts_r8_mul(const ts_r8_kernels *f, const ts_mul *p)
{
    if (p->m <= DIRECT_MAX) {
        direct(f, p);
        return;
    }
    int64_t nb = p->k / f->layout->block;
    int64_t step = PANEL_BYTES / (int64_t)f->panel_bytes();
    if (step > CHUNK / f->layout->block)
        step = CHUNK / f->layout->block;
    for (int64_t m = 0; m < p->m; m += BLOCK_TOKENS)
        for (int64_t b = 0; b < nb; b += step)
            chunk(f, p, m, m + BLOCK_TOKENS < p->m ? m + BLOCK_TOKENS : p->m, b,
                  b + step < nb ? b + step : nb);
}

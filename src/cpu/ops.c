/* ops.c - the choice of an operation table, and the frame of attention that is the same for every
 * ISA. */
#include <math.h>
#include <string.h>

#include "cpu/attend.h"
#include "cpu/ops_tables.h"

const ts_ops *ts_ops_get(ts_isa isa)
{
    switch (isa) {
    case TS_ISA_AMX:
        return &ts_ops_amx;
    case TS_ISA_AVX512:
        return &ts_ops_avx512;
    case TS_ISA_AVX2:
        return &ts_ops_avx2;
    default:
        return &ts_ops_ref;
    }
}

static size_t padded(int64_t n)
{
    return ((size_t)n + 15) & ~(size_t)15;
}

/* Scratch, each region a multiple of 64 bytes, R = rows, D = head_dim, V16 = v_dim rounded up to
 * 16:
 *
 *   q [R][D] | s [R][64] | sum [2][R][V16] | ml [2][R][2] | f [R] */
static size_t row_floats(int64_t rows, int64_t head_dim, int64_t v_dim)
{
    size_t r = (size_t)rows;
    return padded((int64_t)(r * (size_t)head_dim)) + r * ATTEND_BLOCK + 2 * r * padded(v_dim) +
           2 * padded((int64_t)(2 * r)) + padded(rows);
}

size_t ts_attend_run_scratch(int64_t n_group, int64_t head_dim, int64_t v_dim)
{
    return row_floats(16 * n_group, head_dim, v_dim) * sizeof(float);
}

size_t ts_kv_k16_bytes(int64_t n_ctx, int64_t dim)
{
    return padded(n_ctx) * padded(dim) * sizeof(uint16_t);
}

/* Folds the sums (o2, m2, l2) of later positions into (o, m, l). Compiled once, so that every path
 * that folds rounds alike. */
static void fold(float *o, float *ml, const float *o2, const float *ml2, int64_t n)
{
    if (ml2[1] == 0) /* nothing seen; scores that are all NaN leave m at -INFINITY too */
        return;
    if (ml[1] == 0) {
        memcpy(o, o2, (size_t)n * sizeof(float));
        memcpy(ml, ml2, 2 * sizeof(float));
        return;
    }
    float m = ml[0] > ml2[0] ? ml[0] : ml2[0];
    float f = expf(ml[0] - m), f2 = expf(ml2[0] - m);
    for (int64_t i = 0; i < n; i++)
        o[i] = o[i] * f + o2[i] * f2;
    ml[0] = m;
    ml[1] = ml[1] * f + ml2[1] * f2;
}

static void normalise(float *o, const float *sum, const float *ml, const float *sink, int64_t n)
{
    const float f = attend_end(ml[1], ml[0], sink);
    for (int64_t i = 0; i < n; i++)
        o[i] = sum[i] * f;
}

static void clear(float *acc, float *ml, int64_t rows, int64_t lda)
{
    memset(acc, 0, (size_t)(rows * lda) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        ml[2 * r] = -INFINITY;
        ml[2 * r + 1] = 0;
    }
}

/* The blocks of positions s0..s1, which lie in one segment. */
static void run_segment(const attend_walk *w, attend_block *block, int64_t s0, int64_t s1)
{
    const ts_attend *p = w->p;
    for (int64_t b = s0 - s0 % ATTEND_BLOCK; b < s1; b += ATTEND_BLOCK) {
        int64_t j0 = s0 > b ? s0 - b : 0;
        int64_t j1 = s1 - b < ATTEND_BLOCK ? s1 - b : ATTEND_BLOCK;
        /* token t sees positions up to pos0 + t and from pos0 + t - window + 1 */
        int64_t t0 = b + j0 - p->pos0, t1 = p->n_tokens;
        if (t0 < 0)
            t0 = 0;
        if (p->window > 0 && b + j1 - 1 - p->pos0 + p->window < t1)
            t1 = b + j1 - 1 - p->pos0 + p->window;
        if (t0 < t1)
            block(w, b, j0, j1, t0, t1);
    }
}

static void finish(const ts_attend *p, const float *acc, const float *ml, int64_t lda)
{
    if (p->part)
        memcpy(p->part, ml, (size_t)(2 * p->n_tokens * p->n_group) * sizeof(float));
    for (int64_t t = 0; t < p->n_tokens; t++)
        for (int64_t g = 0; g < p->n_group; g++, acc += lda, ml += 2) {
            float *o = p->o + t * p->ldo + g * p->v_dim;
            if (p->part)
                memcpy(o, acc, (size_t)p->v_dim * sizeof(float));
            else
                normalise(o, acc, ml, p->sinks ? p->sinks + g : NULL, p->v_dim);
        }
}

static void carve(attend_walk *w, float *f, float *sum[2], float *ml[2])
{
    const ts_attend *p = w->p;
    w->q = f, f += padded(w->rows * p->head_dim);
    w->s = f, f += w->rows * ATTEND_BLOCK;
    for (int i = 0; i < 2; i++) {
        sum[i] = f, f += w->rows * w->lda;
        ml[i] = f, f += padded(2 * w->rows);
    }
    w->f = f;
}

void ts_attend_run(const ts_attend *task, attend_block *block)
{
    ts_attend p = *task;
    attend_walk w = {.p = &p, .rows = p.n_tokens * p.n_group, .lda = (int64_t)padded(p.v_dim)};
    float *sum[2], *ml[2];
    carve(&w, p.scratch, sum, ml);
    for (int64_t t = 0; t < p.n_tokens; t++)
        for (int64_t g = 0; g < p.n_group; g++)
            for (int64_t i = 0; i < p.head_dim; i++)
                w.q[(t * p.n_group + g) * p.head_dim + i] =
                    p.scale * p.q[t * p.ldq + g * p.head_dim + i];

    /* A window that reaches before position 0 for every token is none: sums with it can't overflow.
     */
    if (p.window >= p.pos0 + p.n_tokens)
        p.window = 0;
    int64_t lo = p.window > 0 ? p.pos0 - p.window + 1 : 0;
    int64_t hi = p.pos0 + p.n_tokens;
    lo = lo > p.k0 ? lo : p.k0;
    lo = lo > 0 ? lo : 0;
    hi = hi < p.k1 ? hi : p.k1;

    clear(sum[0], ml[0], w.rows, w.lda);
    int64_t first = lo / TS_ATTEND_SEGMENT;
    for (int64_t seg = first; lo < hi && seg * TS_ATTEND_SEGMENT < hi; seg++) {
        int64_t s0 = seg * TS_ATTEND_SEGMENT, s1 = s0 + TS_ATTEND_SEGMENT;
        int i = seg > first; /* the first segment needs no folding */
        w.acc = sum[i];
        w.ml = ml[i];
        if (i)
            clear(w.acc, w.ml, w.rows, w.lda);
        run_segment(&w, block, s0 > lo ? s0 : lo, s1 < hi ? s1 : hi);
        for (int64_t r = 0; i && r < w.rows; r++)
            fold(sum[0] + r * w.lda, ml[0] + 2 * r, w.acc + r * w.lda, w.ml + 2 * r, p.v_dim);
    }
    finish(&p, sum[0], ml[0], w.lda);
}

void ts_attend_run_merge(float *o, int64_t ldo, const float *po, const float *part, int64_t n_parts,
                         int64_t n_tokens, int64_t n_group, int64_t v_dim, const float *sinks)
{
    int64_t rows = n_tokens * n_group;
    for (int64_t r = 0; r < rows; r++) {
        float *y = o + r / n_group * ldo + r % n_group * v_dim;
        float ml[2] = {-INFINITY, 0};
        memset(y, 0, (size_t)v_dim * sizeof(float));
        for (int64_t i = 0; i < n_parts; i++)
            fold(y, ml, po + (i * rows + r) * v_dim, part + 2 * (i * rows + r), v_dim);
        normalise(y, y, ml, sinks ? sinks + r % n_group : NULL, v_dim);
    }
}

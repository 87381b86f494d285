/* Attention of every table against double precision, with all that may surround what it may read -
 * unwritten positions, scratch, outputs - poisoned with NaN; and where store puts K and V. */
#include <string.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/attend.h"
#include "cpu/tiles.h"

static uint64_t seed = 1;

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

static float *floats(size_t n, float spread)
{
    float *x = malloc(n * sizeof *x + 1);
    REQUIRE(x);
    for (size_t i = 0; i < n; i++)
        x[i] = spread > 0 ? spread * rnd_normal(&seed) : NAN;
    return x;
}

/* A table under test, and what it rounds. */
typedef struct table {
    const ts_ops *ops;
    const char *name;
    double mse;       /* allowed for a row, V having unit variance                    */
    double parts_mse; /* between a whole row and one cut anywhere                      */
    bool bf16;        /* queries are multiplied by the scale and log2 e, then rounded  */
} table;

/* --- the KV layouts --------------------------------------------------------- */

/* Where element d of position pos is, in elements: docs/KERNELS.md in C. */
static size_t element(const ts_kv_layout *kv, bool v, int64_t pos, int64_t d, int64_t hd)
{
    int64_t at = -1, hd16 = (hd + 15) / 16 * 16, n32 = (hd + 31) / 32;
    if (!strcmp(kv->name, "f16.rows"))
        at = pos * hd + d;
    else if (!strcmp(kv->name, "f16.k16"))
        at = v ? pos * hd16 + d : (pos / 16 * hd + d) * 16 + pos % 16;
    else if (!strcmp(kv->name, "bf16.tiles"))
        at = v ? ((pos / 128 * n32 + d / 32) * 4 + pos / 32 % 4) * 1024 + d % 32 * 32 + pos % 32
               : (pos / 16 * n32 + d / 32) * 512 + pos % 16 * 32 + d % 32;
    REQUIRE(at >= 0);
    return (size_t)at;
}

static uint16_t rounded(const ts_kv_layout *kv, float x)
{
    return kv->type == TS_TYPE_BF16 ? ts_f32_to_bf16(x) : ts_f32_to_f16(x);
}

static float widened(const ts_kv_layout *kv, uint16_t h)
{
    float f;
    ts_type_get(kv->type)->to_f32(&f, &h, 1);
    return f;
}

/* Memory for K or V, full of NaNs. */
static uint16_t *kv_memory(const ts_kv_layout *kv, int64_t n, int64_t hd)
{
    size_t bytes = kv->bytes(n, hd);
    CHECK(bytes % 64 == 0);
    void *p = NULL;
    REQUIRE(posix_memalign(&p, 64, bytes ? bytes : 64) == 0);
    memset(p, 0xff, bytes);
    return p;
}

static bool same_half(const ts_kv_layout *kv, uint16_t got, float x)
{
    if (isnan(x))
        return isnan(widened(kv, got));
    if (kv->type == TS_TYPE_BF16 && fabsf(x) < 0x1p-126f) /* VCVTNE2PS2BF16 flushes those */
        return (got & 0x7fff) == 0;
    return got == rounded(kv, x);
}

/* Rows stored in a random order are where they should be, and nothing else has changed. */
static void test_store(const table *t, int64_t n, int64_t hd, int64_t vd)
{
    const int64_t dim[2] = {hd, vd};
    const ts_kv_layout *kv = t->ops->kv;
    uint16_t *mem[2] = {kv_memory(kv, n, hd), kv_memory(kv, n, vd)};
    float *x[2] = {floats((size_t)(n * hd), 1), floats((size_t)(n * vd), 1)};
    bool *stored = calloc((size_t)n, sizeof *stored);
    REQUIRE(stored);
    for (int64_t i = 0; i < n / 2 + 1; i++) {
        int64_t pos = rnd(0, n - 1);
        kv->store(mem[0], mem[1], pos, x[0] + pos * hd, x[1] + pos * vd, hd, vd);
        stored[pos] = true;
    }
    for (int v = 0; v < 2; v++)
        for (int64_t pos = 0; pos < n; pos++)
            for (int64_t d = 0; d < dim[v]; d++) {
                size_t at = element(kv, v, pos, d, dim[v]);
                CHECK_MSG(2 * at < kv->bytes(n, dim[v]), "%s: outside", kv->name);
                CHECK_MSG(stored[pos] ? same_half(kv, mem[v][at], x[v][pos * dim[v] + d])
                                      : mem[v][at] == 0xffff,
                          "%s: %s[%d][%d] of %d x %d is %04x", kv->name, v ? "V" : "K", (int)pos,
                          (int)d, (int)n, (int)dim[v], mem[v][at]);
            }
    float *row[2] = {floats((size_t)hd, 1), floats((size_t)vd, 1)};
    for (int64_t pos = 0; pos < n; pos++) {
        if (!stored[pos])
            continue;
        kv->load(mem[0], mem[1], pos, row[0], row[1], hd, vd);
        for (int v = 0; v < 2; v++)
            for (int64_t d = 0; d < dim[v]; d++)
                CHECK_MSG(row[v][d] == widened(kv, mem[v][element(kv, v, pos, d, dim[v])]),
                          "%s: loaded %s[%d][%d] of %d x %d", kv->name, v ? "V" : "K", (int)pos,
                          (int)d, (int)n, (int)dim[v]);
    }
    for (int v = 0; v < 2; v++) {
        free(mem[v]);
        free(x[v]);
        free(row[v]);
    }
    free(stored);
}

/* All halves and what lies between two of them, odd lengths, infinities and NaNs: bits of the
 * definition. */
static void test_rounding(const table *t)
{
    enum { N = 7 * 65536 + 3 };
    const ts_kv_layout *kv = t->ops->kv;
    float *x = malloc(N * sizeof *x);
    uint16_t *k = kv_memory(kv, 1, N), *v = kv_memory(kv, 1, N);
    REQUIRE(x);
    for (int i = 0; i < 65536; i++) {
        float h = widened(kv, (uint16_t)i);
        uint32_t bits;
        memcpy(&bits, &h, 4);
        /* exact, just off, at and just off the middle of the next two */
        const uint32_t half = kv->type == TS_TYPE_BF16 ? 0x8000 : 0x1000;
        const uint32_t off[7] = {0, 1, (uint32_t)-1, half, half - 1, half + 1, 3 * half - 1};
        for (int j = 0; j < 7; j++) {
            uint32_t b = bits + off[j];
            memcpy(&x[7 * i + j], &b, 4);
        }
    }
    x[N - 3] = 1e30f, x[N - 2] = -65520, x[N - 1] = 1e-30f;
    kv->store(k, v, 0, x, x, N, N);
    int bad = 0;
    for (int i = 0; i < N; i++)
        bad += !same_half(kv, k[element(kv, false, 0, i, N)], x[i]) ||
               !same_half(kv, v[element(kv, true, 0, i, N)], x[i]);
    CHECK_MSG(bad == 0, "%s: %d of %d differ", kv->name, bad, N);
    free(x);
    free(k);
    free(v);
}

/* --- attention ------------------------------------------------------------ */

typedef struct shape {
    int64_t n_tokens, n_group, head_dim, v_dim, pos0, k0, k1, window;
    float softcap;
    bool sinks;
} shape;

typedef struct data {
    int64_t ld;         /* row stride of q                                        */
    int64_t n;          /* positions in the cache: those written, and poison      */
    float *q;           /* [n_tokens][ld]                                         */
    float *k, *v;       /* [n][head_dim] and [n][v_dim] as rounded by store       */
    uint16_t *km, *vm;  /* the cache                                              */
    int32_t *map;       /* of its pages, or NULL: they are in order                */
    size_t scratch_len; /* bytes                                                  */
    char *scratch, *scratch_raw;
} data;

static bool visible(const shape *s, int64_t t, int64_t p)
{
    int64_t pos = s->pos0 + t;
    return p >= s->k0 && p < s->k1 && p <= pos && (s->window == 0 || pos - p < s->window);
}

static float scale_of(const shape *s)
{
    return 1.7f / sqrtf((float)s->head_dim);
}

static bool seen_by_any(const shape *s, int64_t p)
{
    bool seen = false;
    for (int64_t t = 0; t < s->n_tokens; t++)
        seen |= visible(s, t, p);
    return seen;
}

/* Of each head: far below scores, among them, above all of them. */
static const float sinks[16] = {0, 1.5f, -30, 4, -2, 0.5f, 60, -1, 2, 3, -4, 1, -120, 0, 5, 2.5f};

static data make_data(const table *t, const shape *s)
{
    const ts_kv_layout *kv = t->ops->kv;
    data d = {.ld = s->n_group * s->head_dim + rnd(0, 5), .n = s->pos0 + s->n_tokens};
    const size_t n = (size_t)(d.n * s->head_dim), n_v = (size_t)(d.n * s->v_dim);
    d.q = floats((size_t)(s->n_tokens * d.ld), 1);
    d.k = floats(n, 1);
    d.v = floats(n_v, 1);
    int64_t places = d.n;
    if (rnd(0, 1)) { /* pages in any order, among others */
        const int64_t pages = (d.n + TS_PAGE - 1) / TS_PAGE, all = pages + rnd(0, 3);
        places = all * TS_PAGE;
        d.map = malloc((size_t)all * sizeof *d.map);
        REQUIRE(d.map);
        for (int32_t i = 0; i < all; i++) {
            const int64_t j = rnd(0, i);
            d.map[i] = d.map[j];
            d.map[j] = i;
        }
    }
    d.km = kv_memory(kv, places, s->head_dim);
    d.vm = kv_memory(kv, places, s->v_dim);
    for (int64_t p = 0; p < d.n; p++)
        if (seen_by_any(s, p))
            kv->store(d.km, d.vm, ts_place(d.map, p), d.k + p * s->head_dim, d.v + p * s->v_dim,
                      s->head_dim, s->v_dim);
    for (size_t i = 0; i < n; i++)
        d.k[i] = widened(kv, rounded(kv, d.k[i]));
    for (size_t i = 0; i < n_v; i++)
        d.v[i] = widened(kv, rounded(kv, d.v[i]));
    d.scratch_len = t->ops->attend_scratch(s->n_group, s->head_dim, s->v_dim);
    d.scratch_raw = malloc(d.scratch_len + 128);
    REQUIRE(d.scratch_raw);
    d.scratch = d.scratch_raw + (64 - (uintptr_t)d.scratch_raw % 64);
    return d;
}

static void free_data(data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->km);
    free(d->vm);
    free(d->scratch_raw);
    free(d->map);
}

/* Tokens t0..t1 of s; o is [n_tokens][n_group * v_dim + 3]. Guards around the scratch stay. */
static void run(const table *tab, const shape *s, const data *d, int64_t t0, int64_t t1, float *o,
                float *part)
{
    ts_attend p = {
        .q = d->q + t0 * d->ld,
        .o = o,
        .k = d->km,
        .v = d->vm,
        .map = d->map,
        .ldq = d->ld,
        .ldo = part ? s->n_group * s->v_dim : s->n_group * s->v_dim + 3,
        .n_tokens = t1 - t0,
        .n_group = s->n_group,
        .head_dim = s->head_dim,
        .v_dim = s->v_dim,
        .pos0 = s->pos0 + t0,
        .k0 = s->k0,
        .k1 = s->k1,
        .window = s->window,
        .scale = scale_of(s),
        .softcap = s->softcap,
        .sinks = s->sinks ? sinks : NULL,
        .part = part,
        .scratch = d->scratch,
    };
    memset(d->scratch, 0xff, d->scratch_len); /* NaN in F32 and F16 */
    d->scratch[-1] = d->scratch[d->scratch_len] = 42;
    tab->ops->attend(&p);
    CHECK(d->scratch[-1] == 42 && d->scratch[d->scratch_len] == 42);
}

/* One row in double precision: softmax over everything visible. */
static void naive_row(const table *tab, const shape *s, const data *d, int64_t t, int64_t g,
                      double *o)
{
    const float *q = d->q + t * d->ld + g * s->head_dim;
    double max = -INFINITY, sum = 0;
    float f = s->softcap > 0 ? scale_of(s) / s->softcap : scale_of(s) * 1.44269504f;
    double *e = malloc((size_t)d->n * sizeof *e);
    REQUIRE(e);
    for (int64_t p = 0; p < d->n; p++) {
        e[p] = -INFINITY;
        if (!visible(s, t, p))
            continue;
        double dot = 0;
        for (int64_t i = 0; i < s->head_dim; i++)
            dot += (tab->bf16 ? widened(tab->ops->kv, ts_f32_to_bf16(q[i] * f)) : (double)q[i]) *
                   d->k[p * s->head_dim + i];
        e[p] = dot * (tab->bf16 ? scale_of(s) / f : scale_of(s));
        if (s->softcap > 0)
            e[p] = s->softcap * tanh(e[p] / s->softcap);
        max = e[p] > max ? e[p] : max;
    }
    if (s->sinks && max > -INFINITY) {
        max = sinks[g] > max ? sinks[g] : max;
        sum = exp(sinks[g] - max);
    }
    for (int64_t i = 0; i < s->v_dim; i++)
        o[i] = 0;
    for (int64_t p = 0; p < d->n; p++) {
        if (e[p] == -INFINITY)
            continue;
        double w = exp(e[p] - max);
        sum += w;
        for (int64_t i = 0; i < s->v_dim; i++)
            o[i] += w * d->v[p * s->v_dim + i];
    }
    for (int64_t i = 0; i < s->v_dim; i++)
        o[i] = sum > 0 ? o[i] / sum : 0;
    free(e);
}

#define SHAPE_FMT "m=%d g=%d hd=%d,%d pos0=%d k=%d..%d win=%lld cap=%g"
#define SHAPE_ARGS(s)                                                                              \
    (int)(s)->n_tokens, (int)(s)->n_group, (int)(s)->head_dim, (int)(s)->v_dim, (int)(s)->pos0,    \
        (int)(s)->k0, (int)(s)->k1, (long long)(s)->window, (double)(s)->softcap

static double worst; /* mean square error of a row */

static void check_naive(const table *tab, const shape *s, const data *d, const float *o)
{
    int64_t ldo = s->n_group * s->v_dim + 3;
    double *want = malloc((size_t)s->v_dim * sizeof *want);
    REQUIRE(want);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        for (int64_t g = 0; g < s->n_group; g++) {
            naive_row(tab, s, d, t, g, want);
            /* V has unit variance: an error is measured against that, as a row's sum may cancel */
            double mse = 0;
            for (int64_t i = 0; i < s->v_dim; i++) {
                double e = o[t * ldo + g * s->v_dim + i] - want[i];
                mse += (isfinite(e) ? e * e : INFINITY) / (double)s->v_dim;
            }
            worst = mse > worst ? mse : worst;
            CHECK_MSG(mse <= tab->mse, "%s " SHAPE_FMT " t=%d g=%d: mse %g", tab->name,
                      SHAPE_ARGS(s), (int)t, (int)g, mse);
        }
        for (int64_t i = s->n_group * s->v_dim; i < ldo; i++)
            CHECK_MSG(isnan(o[t * ldo + i]), "%s " SHAPE_FMT " writes past row %d", tab->name,
                      SHAPE_ARGS(s), (int)t);
    }
    free(want);
}

/* Each token alone, and a run of them from the middle: the bits of the whole task. */
static void check_alone(const table *tab, const shape *s, const data *d, const float *whole)
{
    int64_t ldo = s->n_group * s->v_dim + 3, n = s->n_group * s->v_dim;
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        int64_t t1 = t % 3 == 2 ? rnd(t + 1, s->n_tokens) : t + 1;
        run(tab, s, d, t, t1, o, NULL);
        for (int64_t i = t; i < t1; i++)
            CHECK_MSG(!memcmp(o + (i - t) * ldo, whole + i * ldo, (size_t)n * sizeof *o),
                      "%s " SHAPE_FMT " token %d in %d..%d differs from the whole task", tab->name,
                      SHAPE_ARGS(s), (int)i, (int)t, (int)t1);
    }
    free(o);
}

/* Cut into parts at `cuts`, merged: equal to the whole, bit for bit when cut by segments. */
static void check_parts(const table *tab, const shape *s, const data *d, const float *whole,
                        const int64_t *cuts, int64_t n_parts, bool exact)
{
    int64_t rows = s->n_tokens * s->n_group, n = s->n_group * s->v_dim, ldo = n + 3;
    size_t len = (size_t)(n_parts * rows * s->v_dim);
    float *po = floats(len, 0), *part = floats((size_t)(2 * n_parts * rows), 0);
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    for (int64_t i = 0; i < n_parts; i++) {
        shape cut = *s;
        cut.k0 = cuts[i] > s->k0 ? cuts[i] : s->k0;
        cut.k1 = cuts[i + 1] < s->k1 ? cuts[i + 1] : s->k1;
        run(tab, &cut, d, 0, s->n_tokens, po + i * rows * s->v_dim, part + 2 * i * rows);
        for (int64_t r = 0; r < rows; r++) {
            bool any = false;
            for (int64_t p = 0; p < d->n; p++)
                any |= visible(&cut, r / s->n_group, p);
            const float *ml = part + 2 * (i * rows + r);
            CHECK(any ? isfinite(ml[0]) && ml[1] >= (tab->bf16 ? 0.5 : 1)
                      : ml[0] == -INFINITY && ml[1] == 0);
        }
    }
    tab->ops->merge(o, ldo, po, part, n_parts, s->n_tokens, s->n_group, s->v_dim,
                    s->sinks ? sinks : NULL);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        const float *a = whole + t * ldo, *b = o + t * ldo;
        double e = 0;
        for (int64_t j = 0; j < n; j++)
            e += ((double)a[j] - b[j]) * ((double)a[j] - b[j]) / (double)n;
        CHECK_MSG(exact ? !memcmp(a, b, (size_t)n * sizeof *a) : e <= tab->parts_mse,
                  "%s " SHAPE_FMT " merged from %d parts, token %d: mse %g", tab->name,
                  SHAPE_ARGS(s), (int)n_parts, (int)t, e);
        CHECK(isnan(b[n]) && isnan(b[n + 2]));
    }
    free(po);
    free(part);
    free(o);
}

/* A NaN in one query shows in its row and nowhere else. */
static void check_nan(const table *tab, const shape *s, data *d, const float *whole)
{
    int64_t ldo = s->n_group * s->v_dim + 3, t = rnd(0, s->n_tokens - 1);
    int64_t g = rnd(0, s->n_group - 1);
    float *o = floats((size_t)(s->n_tokens * ldo), 0);
    d->q[t * d->ld + g * s->head_dim + rnd(0, s->head_dim - 1)] = NAN;
    run(tab, s, d, 0, s->n_tokens, o, NULL);
    bool any = false;
    for (int64_t p = 0; p < d->n; p++)
        any |= visible(s, t, p);
    for (int64_t i = 0; i < s->n_tokens; i++)
        for (int64_t j = 0; j < s->n_group; j++) {
            const float *a = o + i * ldo + j * s->v_dim, *b = whole + (a - o);
            if (i != t || j != g)
                CHECK(!memcmp(a, b, (size_t)s->v_dim * sizeof *a));
            else
                CHECK_MSG(isnan(a[0]) == any, SHAPE_FMT, SHAPE_ARGS(s));
        }
    free(o);
}

static void test_attend(const table *tab, const shape *s)
{
    data d = make_data(tab, s);
    size_t len = (size_t)(s->n_tokens * (s->n_group * s->v_dim + 3));
    float *o = floats(len, 0);
    run(tab, s, &d, 0, s->n_tokens, o, NULL);
    check_naive(tab, s, &d, o);
    check_alone(tab, s, &d, o);

    int64_t end = s->pos0 + s->n_tokens;
    int64_t cuts[5] = {0, rnd(0, end), 0, 0, end + 7};
    cuts[2] = rnd(cuts[1], end);
    cuts[3] = rnd(cuts[2], end); /* parts may be empty */
    check_parts(tab, s, &d, o, cuts, 4, false);
    int64_t segments[8] = {0};
    int64_t n = 0;
    while (segments[n] < end && n < 7)
        segments[n + 1] = segments[n] + TS_ATTEND_SEGMENT, n++;
    check_parts(tab, s, &d, o, segments, n, true);
    check_nan(tab, s, &d, o);
    free(o);
    free_data(&d);
}

static shape random_shape(const table *tab)
{
    static const int64_t dims[] = {8,  16,  24,  32,  40, 64, 64, 72, 80,
                                   96, 128, 128, 256, 1,  5,  18, 77};
    static const int64_t edges[] = {0,   1,   15,  16,  48,  63,  64, 65,
                                    127, 128, 496, 511, 512, 513, 640};
    shape s = {.n_group = rnd(1, 8), .head_dim = dims[rnd(0, sizeof dims / sizeof *dims - 1)]};
    s.v_dim = rnd(0, 3) ? s.head_dim : dims[rnd(0, sizeof dims / sizeof *dims - 1)];
    s.pos0 = rnd(0, 1) ? rnd(0, 700) : edges[rnd(0, sizeof edges / sizeof *edges - 1)];
    if ((s.head_dim > 100 || s.v_dim > 100) && s.n_group > 4)
        s.n_group = 4; /* the naive loops take their time */
    int64_t most = ts_attend_tokens(tab->ops, s.n_group);
    s.n_tokens = rnd(0, 3) ? rnd(1, rnd(0, 3) ? 16 : most) : 1;
    int64_t end = s.pos0 + s.n_tokens;
    switch (rnd(0, 7)) {
    case 0:
        s.window = 1;
        break;
    case 1:
        s.window = rnd(1, 64);
        break;
    case 2:
        s.window = rnd(1, end + 10);
        break;
    case 3:
        s.window = INT64_MAX;
        break;
    }
    s.softcap = rnd(0, 2) ? 0 : 2.5f;
    s.sinks = rnd(0, 1);
    s.k1 = rnd(0, 2) ? end + rnd(0, 100) : rnd(0, end);
    s.k0 = rnd(0, 3) ? 0 : rnd(0, end);
    return s;
}

static void test_table(const table *t)
{
    worst = 0;
    static const int64_t dims[] = {64, 80, 96, 128, 256, 1, 5, 33};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        test_store(t, rnd(1, 300), dims[i], dims[rnd(0, 1) ? i : (i + 3) % 8]);
    test_store(t, 70, 576, 512);
    test_rounding(t);
    for (int c = 0; c < 250; c++) {
        shape s = random_shape(t);
        test_attend(t, &s);
    }
    /* the scratch of a task is the same at any position: it runs far out too */
    shape far = {
        .n_tokens = 3, .n_group = 2, .head_dim = 64, .v_dim = 64, .pos0 = 2500, .k1 = 5000};
    test_attend(t, &far);
    /* the largest task fills its scratch */
    shape full = {.n_group = 4, .head_dim = 64, .v_dim = 64, .pos0 = 1000, .k1 = 2000};
    full.n_tokens = ts_attend_tokens(t->ops, full.n_group);
    test_attend(t, &full);
    /* latent attention: a row of K and V for all heads, V narrower */
    shape latent = {.n_tokens = 5, .n_group = 16, .head_dim = 576, .v_dim = 512, .pos0 = 509};
    latent.k1 = 600;
    test_attend(t, &latent);
    latent = (shape){.n_group = 16, .head_dim = 576, .v_dim = 512, .k1 = 100};
    latent.n_tokens = ts_attend_tokens(t->ops, latent.n_group);
    test_attend(t, &latent);
    printf("%s: attention's greatest mse %.2g\n", t->name, worst);
}

/* src/cpu/attend_amx.c compiled over the stand-in. */
size_t standin_attend_scratch(int64_t n_group, int64_t head_dim, int64_t v_dim);
void standin_attend(const ts_attend *p);
void standin_attend_merge(float *o, int64_t ldo, const float *po, const float *part,
                          int64_t n_parts, int64_t n_tokens, int64_t n_group, int64_t v_dim,
                          const float *sinks);
extern const ts_kv_layout standin_kv;

static const ts_ops standin = {
    .isa = TS_ISA_AMX,
    .kv = &standin_kv,
    .attend_rows = ATTEND_AMX_ROWS,
    .attend_scratch = standin_attend_scratch,
    .attend = standin_attend,
    .merge = standin_attend_merge,
};

int main(void)
{
    for (ts_isa isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++) {
        table t = {ts_ops_get(isa), ts_isa_name(isa), 5e-12, 1e-11, false};
        if (isa == TS_ISA_AMX) {
            t.bf16 = true;
            t.mse = t.parts_mse = 1e-5;
        }
        const char *why;
        if (!ts_isa_usable(ts_cpu_get(), isa, &why)) {
            printf("%s: skipped, %s\n", t.name, why);
            continue;
        }
        if (isa == TS_ISA_AMX)
            ts_tiles_begin();
        test_table(&t);
        if (isa == TS_ISA_AMX)
            ts_tiles_end();
    }
    test_table(&(table){&standin, "amx, stand-in", 1e-5, 1e-5, true});
    return check_done("attend");
}

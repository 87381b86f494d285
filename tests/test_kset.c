/* test_kset.c - every kernel set against `ref`, and ref against plain loops in double.
 *
 * Weights and activations are random in every element, fresh in every case, so that a tile used
 * twice or a row in another's place shows. What a kernel must not touch is poisoned: y and every
 * pad with NaN bytes. scripts/mutate.py puts bugs into the kernels and wants this test red. */
#include "kset_case.h"

#include "cpu/prep_x16.h"

/* Elements of a token that share a scale in int8 tiles. */
#define INT8_BLOCK (TS_TILE8_K * TS_TILE8_STEPS)

static bool is_poison(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u == 0xffffffffu;
}

/* A y of m tokens, and 16 more: a tile of tokens that writes all of its columns is seen without a
 * sanitizer too. */
static float *poisoned_y(int64_t m, int64_t ldy)
{
    return poisoned((size_t)((m + 16) * ldy) * sizeof(float));
}

/* The operands of y[m][n] = x[m][k] * W[n][k]^T, and how large its values are expected to be: a sum
 * of k terms whose signs are chance is about |row of w| |row of x| / sqrt(k). An error is measured
 * by that and not by the sum itself, which may happen to cancel. */
typedef struct operands {
    int64_t m, n, k, ldx;
    uint8_t *w;
    float *x;
    double *w_norm, *x_norm; /* |row| [n], |row| / sqrt(k) [m] */
} operands;

static void measure(operands *o, ts_type type)
{
    const ts_type_info *info = ts_type_get(type);
    float *row = poisoned((size_t)o->k * sizeof *row);
    for (int64_t i = 0; i < o->n; i++) {
        double sum = 0;
        info->to_f32(row, o->w + (size_t)i * ts_row_bytes(info, o->k), o->k);
        for (int64_t j = 0; j < o->k; j++)
            sum += (double)row[j] * row[j];
        o->w_norm[i] = sqrt(sum);
    }
    for (int64_t t = 0; t < o->m; t++) {
        double sum = 0;
        for (int64_t j = 0; j < o->k; j++)
            sum += (double)o->x[t * o->ldx + j] * o->x[t * o->ldx + j];
        o->x_norm[t] = sqrt(sum / (double)o->k);
    }
    free(row);
}

/* Memory for the operands; the caller fills w and x and calls measure. */
static operands operands_new(ts_type type, int64_t m, int64_t n, int64_t k, int64_t ldx)
{
    operands o = {.m = m, .n = n, .k = k, .ldx = ldx};
    o.w = poisoned((size_t)n * ts_row_bytes(ts_type_get(type), k));
    o.x = poisoned((size_t)((m - 1) * ldx + k) * sizeof *o.x);
    o.w_norm = poisoned((size_t)n * sizeof *o.w_norm);
    o.x_norm = poisoned((size_t)m * sizeof *o.x_norm);
    return o;
}

static operands operands_random(ts_type type, int64_t m, int64_t n, int64_t k, int64_t ldx)
{
    operands o = operands_new(type, m, n, k, ldx);
    random_weights(type, o.w, (size_t)n * ts_row_bytes(ts_type_get(type), k), 0.25f, -1);
    random_x(o.x, m, k, ldx);
    measure(&o, type);
    return o;
}

static void operands_free(operands *o)
{
    free(o->w);
    free(o->x);
    free(o->w_norm);
    free(o->x_norm);
}

static float bf16(float f)
{
    return ts_bf16_to_f32(ts_f32_to_bf16(f));
}

/* x as codes of 8 bits say it, with a scale for each `block` elements of a token. */
static float *rounded_x(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t block)
{
    float *to = poisoned((size_t)(m * k) * sizeof *to);
    for (int64_t t = 0; t < m; t++)
        for (int64_t b = 0; b < k; b += block) {
            const int64_t end = b + block < k ? b + block : k;
            float max = 0;
            for (int64_t i = b; i < end; i++)
                max = fmaxf(max, fabsf(x[t * ldx + i]));
            for (int64_t i = b; i < end; i++)
                to[t * k + i] =
                    max < 1e-30f ? 0 : rintf(x[t * ldx + i] * (127 / max)) * (max / 127);
        }
    return to;
}

/* Code of token t and element i of a tile (prep_x16.h). */
static int code_at(const uint8_t *tile, int64_t t, int64_t i)
{
    return (int8_t)tile[i / 4 * 64 + t % 16 * 4 + i % 4];
}

/* x as int8 tiles say it. Each element is held to its code's rounding, and the scales to what they
 * are by definition: the largest |x|, of an element with spare codes a part of it, by 127. */
static float *tiled_x(const ts_kset *s, const float *x, int64_t ldx, int64_t m, int64_t k)
{
    const int64_t nm = (m + 15) / 16, nk = (k + TS_TILE8_K - 1) / TS_TILE8_K;
    float *to = poisoned((size_t)(m * k) * sizeof *to);
    uint8_t *act = poisoned(s->prep_int8->bytes(m, k));
    double off = 0, scale_off = 0;
    int n_spares = 0;
    s->prep_int8->run(act, x, ldx, m, k, 0, m, 0, k);
    for (int64_t b = 0; b < nk; b += TS_TILE8_STEPS) {
        const int64_t steps = ts_tile8_steps(b, nk), k0 = b * TS_TILE8_K;
        const int64_t n = k - k0 < INT8_BLOCK ? k - k0 : INT8_BLOCK;
        const uint8_t *head = act + ts_tile8_block(nm, b);
        int element[64], codes[INT8_BLOCK]; /* of each spare code; of each element, how many */
        for (int l = 0; l < INT8_BLOCK; l++)
            codes[l] = 1;
        for (int j = 0; j < 64; j++) {
            const bool nobodys = head[64 + j] == TS_TILE8_NOBODY;
            element[j] = head[j] + (nobodys ? 0 : 64 * head[64 + j]);
            REQUIRE(head[j] < 64 && element[j] < n);
            codes[element[j]] += !nobodys;
            n_spares += !nobodys;
            for (int64_t t = 0; t < m && nobodys; t++)
                CHECK(code_at(act + ts_tile8_place(t / 16, nm, b, nk) + steps * 1024, t, j) == 0);
        }
        for (int64_t t = 0; t < m; t++) {
            const uint8_t *tiles = act + ts_tile8_place(t / 16, nm, b, nk);
            const float *xt = x + t * ldx + k0;
            float d, max = 0;
            memcpy(&d, tiles + (steps + 1) * 1024 + t % 16 * 4, sizeof d);
            int sum[INT8_BLOCK];
            for (int64_t i = 0; i < n; i++)
                sum[i] = code_at(tiles + i / 64 * 1024, t, i % 64);
            for (int j = 0; j < 64; j++)
                sum[element[j]] += code_at(tiles + steps * 1024, t, j);
            for (int64_t i = 0; i < n; i++) {
                float e = fabsf(xt[i] - d * (float)sum[i]);
                to[t * k + k0 + i] = d * (float)sum[i];
                max = fmaxf(max, fabsf(xt[i]) / (float)codes[i]);
                off = e <= 0.501f * d ? off : fmax(off, isnan(e) ? INFINITY : e / d);
            }
            float e = max < 1e-30f ? d : fabsf(127 * d / max - 1);
            scale_off = e < 1e-6f ? scale_off : fmax(scale_off, isnan(e) ? INFINITY : e);
        }
    }
    CHECK_MSG(off == 0, "%s m=%d k=%d: a code is off by %.3g", set_name(s), (int)m, (int)k, off);
    CHECK_MSG(scale_off == 0, "%s m=%d k=%d: a scale is off by %.3g", set_name(s), (int)m, (int)k,
              scale_off);
    CHECK_MSG(n_spares <= 64 * (nk + TS_TILE8_STEPS - 1) / TS_TILE8_STEPS, "%s", set_name(s));
    free(act);
    return to;
}

/* Does it compute with the amx sets' own format of 8 bits? */
static bool amx_int8(const ts_kset *s, bool int8)
{
    return int8 && s->isa == TS_ISA_AMX && s->prep_int8 != s->prep;
}

/* What is added to a product: not at all, from elsewhere, or in place. */
typedef enum add_mode { ADD_NOTHING, ADD_OTHER, ADD_Y } add_mode;

/* [m][ld] floats as large as the product's values, NaN beside the n columns. */
static float *random_add(const operands *o, int64_t ld)
{
    float *add = poisoned_y(o->m, ld);
    for (int64_t t = 0; t < o->m; t++)
        for (int64_t i = 0; i < o->n; i++)
            add[t * ld + i] = (float)(o->w_norm[i] * o->x_norm[t]) * rnd_bell();
    return add;
}

/* What `ref` makes of the same activations. BF16 tiles see both sides rounded; int8 tiles round the
 * weights too, but that is what they are tested for. */
static void oracle(const ts_kset *s, bool int8, const uint8_t *w, const float *x, int64_t ldx,
                   float *want, int64_t m, int64_t n, int64_t k)
{
    if (amx_int8(s, int8)) {
        float *codes =
            ts_kset_on_tiles(s, int8, m) ? tiled_x(s, x, ldx, m, k) : rounded_x(x, ldx, m, k, 32);
        product(ts_kset_get(s->type, TS_ISA_REF), false, w, codes, k, want, n, m, n, k, 1);
        free(codes);
        return;
    }
    if (!ts_kset_on_tiles(s, int8, m)) {
        product(ts_kset_get(s->type, TS_ISA_REF), int8, w, x, ldx, want, n, m, n, k, 1);
        return;
    }
    const ts_type_info *info = ts_type_get(s->type);
    float *wf = poisoned((size_t)(n * k) * sizeof *wf),
          *xf = poisoned((size_t)(m * k) * sizeof *xf);
    for (int64_t i = 0; i < n; i++)
        info->to_f32(wf + i * k, w + (size_t)i * ts_row_bytes(info, k), k);
    for (int64_t i = 0; i < n * k; i++)
        wf[i] = bf16(wf[i]);
    for (int64_t i = 0; i < m * k; i++)
        xf[i] = bf16(x[i / k * ldx + i % k]);
    product(ts_kset_get(TS_TYPE_F32, TS_ISA_REF), false, (uint8_t *)wf, xf, k, want, n, m, n, k, 1);
    free(wf);
    free(xf);
}

/* The same from the definition: float x, to_f32(W), double sums. */
static void plain(ts_type type, const uint8_t *w, const float *x, int64_t ldx, float *y, int64_t m,
                  int64_t n, int64_t k)
{
    const ts_type_info *info = ts_type_get(type);
    float *row = poisoned((size_t)k * sizeof *row);
    for (int64_t i = 0; i < n; i++) {
        info->to_f32(row, w + (size_t)i * ts_row_bytes(info, k), k);
        for (int64_t t = 0; t < m; t++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += (double)row[j] * x[t * ldx + j];
            y[t * n + i] = (float)sum;
        }
    }
    free(row);
}

/* y[m][n] with stride ldy (of poisoned_y) against want[m][n]: each element close, the whole closer,
 * nothing else written. A few elements have no mean worth the name. */
static void compare(const char *what, const ts_kset *s, const operands *o, const float *want,
                    const float *y, int64_t ldy, double limit)
{
    const int64_t m = o->m, n = o->n;
    double err = 0, worst = 0;
    int64_t at = 0;
    bool outside = true;
    for (int64_t t = 0; t < m; t++) {
        for (int64_t i = 0; i < n; i++) {
            double e = fabs((double)want[t * n + i] - y[t * ldy + i]);
            e = e == 0 ? 0 : e / (o->w_norm[i] * o->x_norm[t]);
            if (!(e <= worst)) {
                worst = isnan(e) ? INFINITY : e;
                at = t * n + i;
            }
            err += e * e;
        }
        for (int64_t i = n; i < ldy; i++)
            outside = outside && is_poison(y[t * ldy + i]);
    }
    for (int64_t i = m * ldy; i < (m + 16) * ldy; i++)
        outside = outside && is_poison(y[i]);
    err /= (double)(m * n);
    CHECK_MSG((err <= limit || m * n < 32) && worst <= 6 * sqrt(limit),
              "%s %s m=%d n=%d k=%d: error %.2g, worst %.2g at token %d row %d: %g not %g", what,
              set_name(s), (int)m, (int)n, (int)o->k, sqrt(err), worst, (int)(at / n),
              (int)(at % n), (double)y[at / n * ldy + at % n], (double)want[at]);
    CHECK_MSG(outside, "%s %s m=%d n=%d k=%d: wrote beside its columns", what, set_name(s), (int)m,
              (int)n, (int)o->k);
}

/* Against the same activations int8 tiles show what rounding the weights costs: 4e-5 to 1.2e-4 of
 * what the types' random weights here give, 1.6e-4 in the smallest cases. */
#define INT8_WEIGHTS 4e-4

/* want[m][n] += add */
static void want_add(float *want, const float *add, int64_t ld, int64_t m, int64_t n)
{
    for (int64_t i = 0; add && i < m * n; i++)
        want[i] += add[i / n * ld + i % n];
}

static void one_case(const ts_kset *s, bool int8, int64_t m, int64_t n, int64_t k,
                     bool against_plain, add_mode mode)
{
    bool int8_tiles = ts_kset_on_int8_tiles(s, int8, m);
    bool tiles = ts_kset_on_tiles(s, int8, m);
    int64_t ldx = k + (int64_t)(rnd_u64(&seed) % 3) * 5, ldy = n + (int64_t)(rnd_u64(&seed) % 12);
    operands o = operands_random(s->type, m, n, k, ldx);
    float *y = poisoned_y(m, ldy), *want = poisoned((size_t)(m * n) * sizeof *want);
    int64_t ldadd = mode == ADD_Y ? ldy : n + (int64_t)(rnd_u64(&seed) % 12);
    float *add = mode == ADD_NOTHING ? NULL : random_add(&o, ldadd);
    if (mode == ADD_Y)
        memcpy(y, add, (size_t)((m + 16) * ldy) * sizeof *y);

    product_add(s, int8, o.w, o.x, ldx, mode == ADD_Y ? y : add, ldadd, y, ldy, m, n, k,
                1 + (int)(rnd_u64(&seed) % 3));
    if (s != ts_kset_get(s->type, TS_ISA_REF)) {
        oracle(s, int8, o.w, o.x, ldx, want, m, n, k);
        want_add(want, add, ldadd, m, n);
        compare(int8    ? "same activations"
                : tiles ? "BF16 tiles"
                        : "exact activations",
                s, &o, want, y, ldy,
                int8_tiles      ? INT8_WEIGHTS
                : int8 || tiles ? 1e-9
                                : 1e-7);
    }
    if (against_plain) {
        plain(s->type, o.w, o.x, ldx, want, m, n, k);
        want_add(want, add, ldadd, m, n);
        compare("float activations", s, &o, want, y, ldy, int8 || tiles ? 5e-4 : 1e-7);
    }
    operands_free(&o);
    free(y);
    free(add);
    free(want);
}

/* Int8 tiles round a weight to a multiple of s, which is the largest of 512 by 127: errors are of
 * s^2 / 12 on average, were the largest known exactly. A rounding that is only a little off is lost
 * in the limit above, but not here. */
static void int8_noise(const ts_kset *s)
{
    enum { M = 48, N = 48, K = 2048 + 256 };
    const ts_type_info *info = ts_type_get(s->type);
    operands o = operands_random(s->type, M, N, K, K);
    float *y = poisoned_y(M, N), *want = poisoned(M * N * sizeof *want);
    float *codes = tiled_x(s, o.x, K, M, K), *row = poisoned(K * sizeof *row);
    double noise = 0, expected = 0;
    product(s, true, o.w, o.x, K, y, N, M, N, K, 1);
    plain(s->type, o.w, codes, K, want, M, N, K);
    for (int i = 0; i < M * N; i++)
        noise += ((double)y[i] - want[i]) * ((double)y[i] - want[i]);
    for (int i = 0; i < N; i++) {
        info->to_f32(row, o.w + (size_t)i * ts_row_bytes(info, K), K);
        for (int b = 0; b < K; b += INT8_BLOCK) {
            float max = 0;
            for (int l = b; l < b + INT8_BLOCK && l < K; l++)
                max = fmaxf(max, fabsf(row[l]));
            for (int t = 0; t < M; t++)
                for (int l = b; l < b + INT8_BLOCK && l < K; l++)
                    expected +=
                        (double)codes[t * K + l] * codes[t * K + l] * max * max / 127 / 127 / 12;
        }
    }
    CHECK_MSG(noise > 0.5 * expected && noise < 1.3 * expected, "%s: %.2f of the noise expected",
              set_name(s), noise / expected);
    operands_free(&o);
    free(y);
    free(want);
    free(codes);
    free(row);
}

/* Some elements are many times as large as others, as in real models, the same ones of all tokens
 * but the first, which is zeros: with spare codes the others have nearly the scale that they would
 * have alone. */
static void int8_outliers(const ts_kset *s)
{
    enum { M = 80, K = 1024 + 256 };
    static const struct {
        int every, most; /* every n-th element is this many times as large */
        double limit;    /* of the error without spare codes               */
    } kinds[] = {{128, 16, 0.012}, {32, 4, 0.12}, {300, 40, 0.012}};
    float *x = poisoned(M * K * sizeof *x);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double with = 0, without = 0;
        random_x(x, M, K, K);
        for (int l = 0; l < M * K; l++) {
            float small = x[l] = fmaxf(-2.5f, fminf(2.5f, x[l]));
            if (l % K % kinds[i].every == 5)
                x[l] = (small < 0 ? -1.0f : 1.0f) * 2.5f * (float)kinds[i].most;
        }
        memset(x, 0, K * sizeof *x);
        float *a = tiled_x(s, x, K, M, K), *b = rounded_x(x, K, M, K, INT8_BLOCK);
        for (int l = 0; l < M * K; l++) {
            with += ((double)a[l] - x[l]) * ((double)a[l] - x[l]);
            without += ((double)b[l] - x[l]) * ((double)b[l] - x[l]);
        }
        CHECK_MSG(with < kinds[i].limit * without, "%s: spare codes leave %.4f of the error (%d)",
                  set_name(s), with / without, (int)i);
        free(a);
        free(b);
    }
    free(x);
}

static void shapes(const ts_kset *s)
{
    static const int ms[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100};
    static const int ns[] = {1, 7, 8, 9, 16, 37, 64};
    static const int k1[] = {1, 7, 33, 700}, k32[] = {1, 2, 33, 70}, k256[] = {1, 2, 3, 9};
    int block = ts_type_get(s->type)->block;
    const int *ks = block == 1 ? k1 : block == 32 ? k32 : k256;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++) {
            /* ref is slow; each kernel sees every (m, n) and, over them, every k */
            size_t l = (i + j) % 4;
            if (SANITIZED && rnd_u64(&seed) % 12) /* of memory, other shapes each time */
                continue;
            if (s->isa == TS_ISA_REF && (i + j) % 5)
                continue;
            /* Few values leave the comparison with floats to chance. Sets that are held to ref need
             * it only now and then: it is ref that must agree. */
            bool floats = ms[i] * ns[j] >= 32 && ks[l] * block >= 256 && (i + j) % 5 == 0;
            for (int int8 = 0; int8 < 2; int8++)
                one_case(s, int8, ms[i], ns[j], (int64_t)ks[l] * block, floats,
                         (add_mode)((i + 2 * j + (size_t)int8) % 3));
        }
}

/* More tokens than any kernel takes at a time, more k than any panel holds, and for the tiles: more
 * tokens than a block (512), and more rows than a strip (128), with more k than a panel. */
static void large(const ts_kset *s)
{
    int block = ts_type_get(s->type)->block;
    for (int int8 = 0; int8 < 2; int8++) {
        one_case(s, int8, 300, 24, 512, true, ADD_NOTHING);
        one_case(s, int8, 512, 33, 256, true, ADD_OTHER);
        one_case(s, int8, 11, 40, (4096 + 256) / block * block, true, ADD_NOTHING);
        one_case(s, int8, 1, 40, (4096 + 256) / block * block, true, ADD_NOTHING);
        one_case(s, int8, 545, 20, 768, false, ADD_Y);
        one_case(s, int8, 40, 150, 768, false, ADD_OTHER);
        one_case(s, int8, 13, 200, 512, false, ADD_NOTHING); /* many rows for few tokens */
        for (int add = ADD_OTHER; add <= ADD_Y; add++)       /* several chunks of k */
            for (int m = 1; m <= 9; m += 8)
                one_case(s, int8, m, 40, 2304, false, (add_mode)add);
    }
}

/* A token's row has the same bits with any others beside it, over several chunks of k, and added to
 * in place as from elsewhere; on tiles and off them it may differ. On int8 tiles the others have a
 * say in who gets spare codes. */
static void company(const ts_kset *s)
{
    enum { M = 40, N = 24, K = 2304 };
    static const int ms[] = {1, 3, 5, 7, 17, M};
    for (int int8 = 0; int8 < 2; int8++) {
        operands o = operands_random(s->type, M, N, K, K);
        float *add = random_add(&o, N), *want = poisoned(M * N * sizeof *want);
        product_add(s, int8, o.w, o.x, K, add, N, want, N, M, N, K, 1);
        for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
            for (int in_place = 0; in_place < 2; in_place++) {
                const int m = ms[i];
                const size_t at = (size_t)(M - m) * N, bytes = (size_t)m * N * sizeof *want;
                if (ts_kset_on_tiles(s, int8, m) != ts_kset_on_tiles(s, int8, M) ||
                    (ts_kset_on_int8_tiles(s, int8, m) && m < M))
                    continue;
                float *y = poisoned(bytes);
                if (in_place)
                    memcpy(y, add + at, bytes);
                product_add(s, int8, o.w, o.x + (M - m) * K, K, in_place ? y : add + at, N, y, N, m,
                            N, K, 1);
                CHECK_MSG(memcmp(y, want + at, bytes) == 0, "%s m=%d: other bits than among %d",
                          set_name(s), m, M);
                free(y);
            }
        operands_free(&o);
        free(add);
        free(want);
    }
}

/* Codes, scales and activations at their limits: nothing may overflow. */
static void extremes(const ts_kset *s)
{
    static const int fills[] = {0x00, 0xff, 0x7f, 0x80, 0x88, 0x77, 0x3f, 0xc0, 0x1f, 0xe0};
    static const float scales[] = {1, 65504, -65504, 0x1p-24f, 0x3p-20f};
    enum { M = 20, N = 9, K = 512 };
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        for (size_t j = 0; j < sizeof scales / sizeof *scales; j++)
            for (int sign = 0; sign < 4; sign++) {
                int m = j % 2 ? M - sign % 2 * 11 : 1;
                bool int8 = i % 2;
                operands o = operands_new(s->type, m, N, K, K);
                float *y = poisoned_y(m, N), *want = poisoned(M * N * sizeof *want);
                random_weights(s->type, o.w, N * ts_row_bytes(ts_type_get(s->type), K), scales[j],
                               fills[i]);
                for (int l = 0; l < m * K; l++) /* all +3, all -3, alternating, by pairs */
                    o.x[l] = sign == 0 || (sign == 2 && l % 2) || (sign == 3 && l % 4 < 2) ? 3 : -3;
                measure(&o, s->type);
                product(s, int8, o.w, o.x, K, y, N, m, N, K, 1);
                oracle(s, int8, o.w, o.x, K, want, m, N, K);
                if (o.w_norm[0] > 0) /* weights that are all zero leave the offsets' rounding */
                    compare("extremes", s, &o, want, y, N,
                            ts_kset_on_int8_tiles(s, int8, m) ? 0.1 : 1e-7);
                operands_free(&o);
                free(y);
                free(want);
            }
}

/* MXFP4's two smallest scales are subnormal: x so large that nothing else is. Tiles count subnormal
 * weights as zeros. */
static void small_exponents(const ts_kset *s)
{
    enum { M = 4, N = 9, K = 512 };
    for (int i = 0; i < 4; i++) {
        bool int8 = i % 2;
        int m = i / 2 ? M : 1;
        operands o = operands_random(s->type, m, N, K, K);
        float *y = poisoned_y(m, N), *want = poisoned(M * N * sizeof *want);
        for (int j = 0; j < N * K / 32; j++)
            o.w[17 * j] = (uint8_t)(j % 4);
        for (int j = 0; j < m * K; j++)
            o.x[j] *= 0x1p70f;
        measure(&o, s->type);
        product(s, int8, o.w, o.x, K, y, N, m, N, K, 1);
        oracle(s, int8, o.w, o.x, K, want, m, N, K);
        compare("small exponents", s, &o, want, y, N, 1e-7);
        operands_free(&o);
        free(y);
        free(want);
    }
}

/* Activations that aren't numbers, or are too small to have codes. */
static void odd_activations(const ts_kset *s)
{
    enum { M = 20, N = 8, K = 512 };
    size_t bytes = N * ts_row_bytes(ts_type_get(s->type), K);
    uint8_t *w = poisoned(bytes);
    float *x = poisoned(M * K * sizeof *x), *y = poisoned(M * N * sizeof *y);
    random_weights(s->type, w, bytes, 0.25f, -1);
    random_x(x, M, K, K);
    memset(x + 1 * K, 0, K * sizeof *x);
    x[2 * K + 300] = NAN;
    x[3 * K + 5] = INFINITY;
    for (int i = 0; i < K; i++) /* 256 that could have codes, 256 subnormal ones */
        x[4 * K + i] = (i % 2 ? 1 : -0.01f) * (i < 256 ? 1e-33f : 1e-40f);
    for (int i = 0; i < K; i++)
        x[5 * K + i] *= 1e30f;
    for (int run = 0; run < 5; run++) {
        int m = run == 0 ? 4 : run == 1 ? 6 : run == 4 ? 10 : M;
        bool int8 = run == 2 || run == 4;
        product(s, int8, w, x, K, y, N, m, N, K, 2);
        const char *name = set_name(s);
        const bool bf16_tiles = ts_kset_on_tiles(s, int8, m) && !ts_kset_on_int8_tiles(s, int8, m);
        const bool codes = (int8 ? s->prep_int8 : s->prep)->act != TS_ACT_F32 && !bf16_tiles;
        for (int i = 0; i < N; i++) {
            CHECK_MSG(isfinite(y[i]), "%s m=%d", name, m);
            CHECK_MSG(y[N + i] == 0, "%s m=%d: zeros give %g", name, m, (double)y[N + i]);
            CHECK_MSG(isnan(y[2 * N + i]), "%s m=%d: NaN gives %g", name, m, (double)y[2 * N + i]);
            CHECK_MSG(!isfinite(y[3 * N + i]), "%s m=%d: inf gives %g", name, m,
                      (double)y[3 * N + i]);
            if (m == 4)
                continue;
            CHECK_MSG(codes ? y[4 * N + i] == 0 : fabsf(y[4 * N + i]) < 1e-27f,
                      "%s m=%d: tiny numbers give %g", name, m, (double)y[4 * N + i]);
            CHECK_MSG(isfinite(y[5 * N + i]), "%s m=%d", name, m);
        }
    }
    free(w);
    free(x);
    free(y);
}

static void lookup(void)
{
    for (uint32_t t = 0; t < TS_TYPE_COUNT; t++) {
        if (!ts_type_get(t))
            continue;
        for (int isa = TS_ISA_REF; isa <= TS_ISA_AMX; isa++) {
            const ts_kset *s = ts_kset_get((ts_type)t, (ts_isa)isa);
            CHECK(s != NULL);
            if (!s)
                continue;
            CHECK_MSG(s->type == (ts_type)t && s->isa <= (ts_isa)isa, "type %u isa %d", t, isa);
            CHECK_MSG(s->prep_int8->act == ts_type_get(t)->act || amx_int8(s, true),
                      "%s: the wrong activations", ts_type_get(t)->name);
            CHECK(s->prep->isa <= s->isa && s->prep_int8->isa <= s->isa);
            CHECK_MSG(isa == TS_ISA_REF || s->isa > TS_ISA_REF, "%s has only ref",
                      ts_type_get(t)->name);
        }
    }
    CHECK(ts_kset_at(ts_kset_count()) == NULL);
}

static void one_set(const ts_kset *s)
{
    shapes(s);
    large(s);
    if (ts_kset_on_int8_tiles(s, true, 512)) {
        int8_noise(s);
        int8_outliers(s);
    }
    company(s);
    odd_activations(s);
    if (s->isa != TS_ISA_REF)
        extremes(s);
    if (s->type == TS_TYPE_MXFP4)
        small_exponents(s);
}

int main(int argc, char **argv)
{
    lookup();
    return run_sets("kset", one_set, argc, argv);
}

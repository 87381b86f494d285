/* test_kset.c - every kernel set against `ref`, and ref against plain loops in double.
 *
 * Weights and activations are random in every element, fresh in every case, so that a tile used
 * twice or a row in another's place shows. What a kernel must not touch is poisoned: y and every
 * pad with NaN bytes. */
#include "check.h"

#include <string.h>

#include "base/cpu.h"
#include "cpu/kset.h"
#include "cpu/tiles.h"

static uint64_t seed;

/* The kernels for wide instructions compiled with the stand-in: they run anywhere. */
#define STANDIN_ref(T, F)
#define STANDIN_avx2(T, F)
#define STANDIN_avx512(T, F) F(ts_kset_##T##_avx512_standin)
#define STANDIN_amx(T, F)    F(ts_kset_##T##_amx_standin)
#define TS_KSET(T, isa)      STANDIN_##isa(T, DECLARE)
#define DECLARE(name)        extern const ts_kset name;
#include "cpu/kset/kset.def"
#undef TS_KSET
#define ENTRY(name)     &name,
#define TS_KSET(T, isa) STANDIN_##isa(T, ENTRY)
static const ts_kset *const standins[] = {
#include "cpu/kset/kset.def"
};
#undef TS_KSET
static const char *suffix = ""; /* of the sets under test */

/* Memory of exactly `bytes` bytes, so that a sanitizer sees the end; 64-byte aligned, full of NaN.
 */
static void *poisoned(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0)
        exit(1);
    memset(p, 0xff, bytes);
    return p;
}

static bool is_poison(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u == 0xffffffffu;
}

static void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)rnd_u64(&seed);
}

/* Where a type keeps its halves; the other bytes of a block may hold anything. */
static const struct {
    ts_type type;
    int at[2]; /* -1: none */
} halves[] = {
    {TS_TYPE_Q4_0, {0, -1}},   {TS_TYPE_Q4_1, {0, 2}},    {TS_TYPE_Q5_0, {0, -1}},
    {TS_TYPE_Q5_1, {0, 2}},    {TS_TYPE_Q8_0, {0, -1}},   {TS_TYPE_Q2_K, {80, 82}},
    {TS_TYPE_Q3_K, {108, -1}}, {TS_TYPE_Q4_K, {0, 2}},    {TS_TYPE_Q5_K, {0, 2}},
    {TS_TYPE_Q6_K, {208, -1}}, {TS_TYPE_IQ4_NL, {0, -1}}, {TS_TYPE_IQ4_XS, {0, -1}},
};

/* Random finite weights; scale: what the halves are about. fill < 0: random codes, else that byte.
 */
static void random_weights(ts_type type, uint8_t *w, size_t bytes, float scale, int fill)
{
    const ts_type_info *info = ts_type_get(type);
    random_bytes(w, bytes);
    if (fill >= 0)
        memset(w, fill, bytes);
    for (size_t i = 0; i < bytes; i += (size_t)info->bytes) {
        float v = scale * rnd_normal(&seed);
        uint16_t h = type == TS_TYPE_BF16 ? ts_f32_to_bf16(v) : ts_f32_to_f16(v);
        if (type == TS_TYPE_F32)
            memcpy(w + i, &v, 4);
        else if (type == TS_TYPE_F16 || type == TS_TYPE_BF16)
            memcpy(w + i, &h, 2);
        else if (type == TS_TYPE_MXFP4)
            w[i] = (uint8_t)(120 + rnd_u64(&seed) % 10);
        for (size_t j = 0; j < sizeof halves / sizeof *halves; j++)
            for (int l = 0; l < 2 && halves[j].type == type && halves[j].at[l] >= 0; l++) {
                float d = scale * (fill >= 0 ? 1 : rnd_normal(&seed));
                h = ts_f32_to_f16(fmaxf(fminf(d, 65504), -65504));
                memcpy(w + i + halves[j].at[l], &h, 2);
            }
    }
}

static void random_x(float *x, int64_t m, int64_t k, int64_t ldx)
{
    for (int64_t t = 0; t < m; t++)
        for (int64_t i = 0; i < k; i++)
            x[t * ldx + i] = rnd_normal(&seed) + (i % 7 == 0 ? 0.5f : 0);
}

/* y = W x through a kernel set, as an engine with `parts` threads would do it, with exact
 * activations or those of 8 bits. */
static void product(const ts_kset *s, bool int8, const uint8_t *w, const float *x, int64_t ldx,
                    float *y, int64_t ldy, int64_t m, int64_t n, int64_t k, int parts)
{
    const ts_prep *prep = int8 ? s->prep_int8 : s->prep;
    void *packed = NULL, *act = poisoned(prep->bytes(m, k));
    int64_t groups = (n + s->group - 1) / s->group;
    int64_t m_groups = (m + prep->m_group - 1) / prep->m_group;
    if (s->packed_bytes)
        packed = poisoned(s->packed_bytes(n, k));
    for (int i = 0; i < parts; i++) {
        int64_t a = groups * i / parts * s->group, b = groups * (i + 1) / parts * s->group;
        int64_t c = m_groups * i / parts * prep->m_group;
        int64_t d = m_groups * (i + 1) / parts * prep->m_group;
        prep->run(act, x, ldx, m, k, c, d < m ? d : m);
        if (packed)
            s->pack(packed, w, n, k, a, b < n ? b : n);
    }
    for (int i = 0; i < parts; i++) {
        int64_t a = groups * i / parts * s->group, b = groups * (i + 1) / parts * s->group;
        ts_mul p = {.w = packed ? packed : w,
                    .x = act,
                    .limbs = prep->limbs,
                    .y = y,
                    .m = m,
                    .n = n,
                    .k = k,
                    .ldy = ldy,
                    .n0 = a,
                    .n1 = b < n ? b : n,
                    .scratch = poisoned(TS_MUL_SCRATCH)};
        if (p.n0 < p.n1)
            s->mul(&p);
        free(p.scratch);
    }
    free(packed);
    free(act);
}

static float bf16(float f)
{
    return ts_bf16_to_f32(ts_f32_to_bf16(f));
}

/* What `ref` makes of the same activations. Tiles see both sides rounded to BF16. */
static void oracle(const ts_kset *s, bool int8, const uint8_t *w, const float *x, int64_t ldx,
                   float *want, int64_t m, int64_t n, int64_t k)
{
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

/* y[m][n] with stride ldy against want[m][n]: each element close, the whole closer, nothing else
 * written. */
static void compare(const char *what, const ts_kset *s, const float *want, const float *y,
                    int64_t m, int64_t n, int64_t k, int64_t ldy, double limit)
{
    double rms = 0, err = 0, worst = 0;
    int64_t at = 0;
    bool outside = true;
    for (int64_t t = 0; t < m; t++) {
        for (int64_t i = 0; i < n; i++) {
            double a = want[t * n + i], e = fabs(a - y[t * ldy + i]);
            if (!(e <= worst)) {
                worst = isnan(e) ? INFINITY : e;
                at = t * n + i;
            }
            rms += a * a;
            err += e * e;
        }
        for (int64_t i = n; i < ldy && t < m - 1; i++)
            outside = outside && is_poison(y[t * ldy + i]);
    }
    rms = sqrt(rms / (double)(m * n));
    err = sqrt(err / (double)(m * n));
    CHECK_MSG(err <= sqrt(limit) * rms && worst <= 6 * sqrt(limit) * rms,
              "%s %s/%s%s m=%d n=%d k=%d: nmse %.2g, worst at token %d row %d: %g not %g", what,
              ts_type_get(s->type)->name, ts_isa_name(s->isa), suffix, (int)m, (int)n, (int)k,
              err * err / (rms * rms), (int)(at / n), (int)(at % n),
              (double)y[at / n * ldy + at % n], (double)want[at]);
    CHECK_MSG(outside, "%s %s/%s%s m=%d n=%d k=%d: wrote beside its columns", what,
              ts_type_get(s->type)->name, ts_isa_name(s->isa), suffix, (int)m, (int)n, (int)k);
}

static void one_case(const ts_kset *s, bool int8, int64_t m, int64_t n, int64_t k,
                     bool against_plain)
{
    const ts_kset *ref = ts_kset_get(s->type, TS_ISA_REF);
    bool tiles = ts_kset_on_tiles(s, int8, m);
    int64_t ldx = k + (int64_t)(rnd_u64(&seed) % 3) * 5, ldy = n + (int64_t)(rnd_u64(&seed) % 12);
    size_t bytes = (size_t)n * ts_row_bytes(ts_type_get(s->type), k);
    uint8_t *w = poisoned(bytes);
    float *x = poisoned((size_t)((m - 1) * ldx + k) * sizeof *x);
    float *y = poisoned((size_t)((m - 1) * ldy + n) * sizeof *y);
    float *want = poisoned((size_t)(m * n) * sizeof *want);
    random_weights(s->type, w, bytes, 0.25f, -1);
    random_x(x, m, k, ldx);

    product(s, int8, w, x, ldx, y, ldy, m, n, k, 1 + (int)(rnd_u64(&seed) % 3));
    if (s != ref) {
        oracle(s, int8, w, x, ldx, want, m, n, k);
        /* A few values alone may cancel and leave the 15 bits' noise. */
        compare(int8    ? "same activations"
                : tiles ? "BF16 tiles"
                        : "exact activations",
                s, want, y, m, n, k, ldy, int8 || m * n >= 32 ? 1e-7 : 1e-4);
    }
    if (against_plain) {
        plain(s->type, w, x, ldx, want, m, n, k);
        compare("float activations", s, want, y, m, n, k, ldy, int8 || tiles ? 5e-4 : 1e-7);
    }
    free(w);
    free(x);
    free(y);
    free(want);
}

static void shapes(const ts_kset *s)
{
    static const int ms[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100};
    static const int ns[] = {1, 7, 8, 9, 16, 37, 64};
    static const int k1[] = {1, 7, 33, 640}, k32[] = {1, 2, 33, 67}, k256[] = {1, 2, 3, 9};
    int block = ts_type_get(s->type)->block;
    const int *ks = block == 1 ? k1 : block == 32 ? k32 : k256;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++) {
            /* ref is slow; each kernel sees every (m, n) and, over them, every k */
            size_t l = (i + j) % 4;
            if (s->isa == TS_ISA_REF && (i + j) % 5)
                continue;
            /* few values leave the float comparison to chance */
            for (int int8 = 0; int8 < 2; int8++)
                one_case(s, int8, ms[i], ns[j], (int64_t)ks[l] * block,
                         ms[i] * ns[j] >= 32 && ks[l] * block >= 256);
        }
}

/* More tokens than any kernel takes at a time, more k than any panel holds. */
static void large(const ts_kset *s)
{
    int block = ts_type_get(s->type)->block;
    for (int int8 = 0; int8 < 2; int8++) {
        one_case(s, int8, 300, 24, 512, true);
        one_case(s, int8, 512, 33, 256, true);
        one_case(s, int8, 11, 40, (4096 + 256) / block * block, true);
        one_case(s, int8, 1, 40, (4096 + 256) / block * block, true);
    }
}

/* Codes, scales and activations at their limits: nothing may overflow. */
static void extremes(const ts_kset *s)
{
    static const int fills[] = {0x00, 0xff, 0x7f, 0x80, 0x88, 0x77, 0x3f, 0xc0, 0x1f, 0xe0};
    static const float scales[] = {1, 65504, -65504, 0x1p-24f, 0x3p-20f};
    enum { M = 9, N = 9, K = 512 };
    size_t bytes = N * ts_row_bytes(ts_type_get(s->type), K);
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        for (size_t j = 0; j < sizeof scales / sizeof *scales; j++)
            for (int sign = 0; sign < 4; sign++) {
                uint8_t *w = poisoned(bytes);
                float *x = poisoned(M * K * sizeof *x), *y = poisoned(M * N * sizeof *y);
                float *want = poisoned(M * N * sizeof *want);
                random_weights(s->type, w, bytes, scales[j], fills[i]);
                for (int l = 0; l < M * K; l++) /* all +127, all -127, alternating, by pairs */
                    x[l] = sign == 0 || (sign == 2 && l % 2) || (sign == 3 && l % 4 < 2) ? 3 : -3;
                int m = j % 2 ? M : 1;
                bool int8 = i % 2;
                product(s, int8, w, x, K, y, N, m, N, K, 1);
                oracle(s, int8, w, x, K, want, m, N, K);
                double rms = 0;
                for (int l = 0; l < m * N; l++)
                    rms += fabs((double)want[l]) / (m * N);
                if (rms > 0) /* alternating signs may cancel exactly */
                    compare("extremes", s, want, y, m, N, K, N, rms < 1e-3 ? 1e-2 : 1e-7);
                free(w);
                free(x);
                free(y);
                free(want);
            }
}

/* Activations that aren't numbers, or are too small to have codes. */
static void odd_activations(const ts_kset *s)
{
    enum { M = 10, N = 8, K = 512 };
    size_t bytes = N * ts_row_bytes(ts_type_get(s->type), K);
    uint8_t *w = poisoned(bytes);
    float *x = poisoned(M * K * sizeof *x), *y = poisoned(M * N * sizeof *y);
    random_weights(s->type, w, bytes, 0.25f, -1);
    random_x(x, M, K, K);
    memset(x + 1 * K, 0, K * sizeof *x);
    x[2 * K + 300] = NAN;
    x[3 * K + 5] = INFINITY;
    for (int i = 0; i < K; i++)
        x[4 * K + i] = i % 2 ? 1e-42f : -1e-40f;
    for (int i = 0; i < K; i++)
        x[5 * K + i] *= 1e30f;
    for (int run = 0; run < 3; run++) {
        int m = run == 0 ? 6 : M;
        product(s, run == 1, w, x, K, y, N, m, N, K, 2);
        const char *name = ts_type_get(s->type)->name;
        for (int i = 0; i < N; i++) {
            CHECK_MSG(isfinite(y[i]), "%s m=%d", name, m);
            CHECK_MSG(y[N + i] == 0, "%s m=%d: zeros give %g", name, m, (double)y[N + i]);
            CHECK_MSG(isnan(y[2 * N + i]), "%s m=%d: NaN gives %g", name, m, (double)y[2 * N + i]);
            CHECK_MSG(!isfinite(y[3 * N + i]), "%s m=%d: inf gives %g", name, m,
                      (double)y[3 * N + i]);
            CHECK_MSG(fabsf(y[4 * N + i]) < 1e-30f, "%s m=%d", name, m);
            CHECK_MSG(isfinite(y[5 * N + i]), "%s m=%d", name, m);
        }
    }
    free(w);
    free(x);
    free(y);
}

/* pack then unpack gives every byte back, whatever the bytes are. */
static void round_trip(const ts_kset *s)
{
    const ts_type_info *info = ts_type_get(s->type);
    for (int i = 0; i < 60; i++) {
        int64_t n = 1 + (int64_t)(rnd_u64(&seed) % 40);
        int64_t k = (1 + (int64_t)(rnd_u64(&seed) % 5)) * (info->block == 1 ? 13 : info->block);
        int64_t cut = (n / 2 + s->group - 1) / s->group * s->group;
        size_t bytes = (size_t)n * ts_row_bytes(info, k);
        uint8_t *src = poisoned(bytes), *back = poisoned(bytes);
        random_bytes(src, bytes);
        memset(back, 0x5a, bytes);
        void *packed = poisoned(s->packed_bytes(n, k));
        cut = cut < n ? cut : n;
        s->pack(packed, src, n, k, 0, cut);
        s->pack(packed, src, n, k, cut, n);
        s->unpack(back, packed, n, k, 0, cut);
        CHECK_MSG(cut == n || back[(size_t)cut * ts_row_bytes(info, k)] == 0x5a,
                  "%s: unpack went past its rows", info->name);
        s->unpack(back, packed, n, k, cut, n);
        CHECK_MSG(memcmp(src, back, bytes) == 0, "%s n=%d k=%d", info->name, (int)n, (int)k);
        /* rows may be filled up to a group, elements of float types to 32 */
        int64_t rows = (n + s->group - 1) / s->group * s->group;
        int64_t filled = info->block == 1 ? (k + 31) / 32 * 32 : k;
        CHECK_MSG(s->packed_bytes(n, k) <= (size_t)rows * ts_row_bytes(info, filled),
                  "%s: packed is larger than the source", info->name);
        free(src);
        free(back);
        free(packed);
    }
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
            CHECK_MSG(s->prep_int8->act == ts_type_get(t)->act && s->prep->isa <= s->isa,
                      "%s: the wrong activations", ts_type_get(t)->name);
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
    odd_activations(s);
    if (s->isa != TS_ISA_REF)
        extremes(s);
    if (s->pack)
        round_trip(s);
}

int main(int argc, char **argv)
{
    size_t left_out = 0;
    FILE *f = fopen("/dev/urandom", "rb");
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    else if (!f || fread(&seed, sizeof seed, 1, f) != 1)
        seed = 1;
    if (f)
        fclose(f);
    printf("seed 0x%llx\n", (unsigned long long)seed);

    lookup();
    if (ts_cpu_get()->amx)
        ts_tiles_begin();
    for (size_t i = 0; i < ts_kset_count(); i++)
        if (ts_isa_usable(ts_cpu_get(), ts_kset_at(i)->isa, NULL))
            one_set(ts_kset_at(i));
        else
            left_out++;
    if (ts_cpu_get()->amx)
        ts_tiles_end();
    suffix = " (stand-in)";
    for (size_t i = 0; i < sizeof standins / sizeof *standins; i++)
        one_set(standins[i]);
    printf("%zu sets with real instructions, %zu can't run on this CPU, %zu with the stand-in\n",
           ts_kset_count() - left_out, left_out, sizeof standins / sizeof *standins);
    return check_done("kset");
}

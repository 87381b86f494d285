/* kset_case.h - what the tests of kernel sets share: the list of sets, poisoned memory, random
 * weights and activations, one product, and the program around them.
 *
 * A set has a name, TYPE/ISA, or TYPE/ISA/standin for a kernel that is compiled with the stand-in
 * for wide instructions and so runs anywhere. */
#ifndef TS_KSET_CASE_H
#define TS_KSET_CASE_H

#include "check.h"

#include <string.h>

#include "base/cpu.h"
#include "cpu/kset.h"
#include "cpu/tiles.h"
#include "kset_standins.h"

static uint64_t seed;

enum { N_STANDINS = sizeof standins / sizeof *standins };

/* The name of a set; valid until four more have been asked for. */
static const char *set_name(const ts_kset *s)
{
    static char names[4][40];
    static int next;
    char *name = names[next++ % 4];
    bool standin = false;
    for (size_t i = 0; i < N_STANDINS; i++)
        standin = standin || standins[i] == s;
    snprintf(name, sizeof names[0], "%s/%s%s", ts_type_get(s->type)->name, ts_isa_name(s->isa),
             standin ? "/standin" : "");
    return name;
}

/* --- memory ----------------------------------------------------------------------------- */

/* Memory of exactly `bytes` bytes, so that a sanitizer sees the end; 64-byte aligned, full of NaN.
 */
static void *poisoned(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0)
        exit(2);
    memset(p, 0xff, bytes);
    return p;
}

/* --- random data ---------------------------------------------------------------------------- */

static void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t u = rnd_u64(&seed);
        memcpy((uint8_t *)p + i, &u, n - i < 8 ? n - i : 8);
    }
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

static uint16_t finite_half(float f)
{
    return ts_f32_to_f16(fmaxf(fminf(f, 65504), -65504));
}

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
        uint16_t h = type == TS_TYPE_BF16 ? ts_f32_to_bf16(v) : finite_half(v);
        if (type == TS_TYPE_F32)
            memcpy(w + i, &v, 4);
        else if (type == TS_TYPE_F16 || type == TS_TYPE_BF16)
            memcpy(w + i, &h, 2);
        else if (type == TS_TYPE_MXFP4)
            w[i] = (uint8_t)(120 + rnd_u64(&seed) % 10);
        for (size_t j = 0; j < sizeof halves / sizeof *halves; j++)
            for (int l = 0; l < 2 && halves[j].type == type && halves[j].at[l] >= 0; l++) {
                h = finite_half(scale * (fill >= 0 ? 1 : rnd_normal(&seed)));
                memcpy(w + i + halves[j].at[l], &h, 2);
            }
    }
}

/* Nearly normal, from one number: the sum of four that are uniform. */
static float rnd_bell(void)
{
    uint64_t u = rnd_u64(&seed);
    int sum =
        (int)(u & 0xffff) + (int)(u >> 16 & 0xffff) + (int)(u >> 32 & 0xffff) + (int)(u >> 48);
    return (float)(sum - 131070) * (1.7320508f / 65536);
}

static void random_x(float *x, int64_t m, int64_t k, int64_t ldx)
{
    for (int64_t t = 0; t < m; t++)
        for (int64_t i = 0; i < k; i++)
            x[t * ldx + i] = rnd_bell() + (i % 7 == 0 ? 0.5f : 0);
}

/* --- one product -------------------------------------------------------------------------------
 */

/* y = add + W x (add may be NULL) through a kernel set, as an engine with `parts` threads would do
 * it, with exact activations or those of 8 bits. Tokens are cut anywhere, rows of W between groups,
 * and the last of them along k too. */
static void product_add(const ts_kset *s, bool int8, const uint8_t *w, const float *x, int64_t ldx,
                        const float *add, int64_t ldadd, float *y, int64_t ldy, int64_t m,
                        int64_t n, int64_t k, int parts)
{
    const ts_prep *prep = int8 ? s->prep_int8 : s->prep;
    void *packed = NULL, *act = poisoned(prep->bytes(m, k));
    int64_t groups = (n + s->group - 1) / s->group;
    if (s->packed_bytes)
        packed = poisoned(s->packed_bytes(n, k));
    for (int i = 0; i < parts; i++) {
        int64_t a = groups * i / parts * s->group, b = groups * (i + 1) / parts * s->group;
        int64_t cut = i == parts - 1 ? k / 2 / prep->k_group * prep->k_group : 0;
        if (cut)
            prep->run(act, x, ldx, m, k, m * i / parts, m * (i + 1) / parts, 0, cut);
        prep->run(act, x, ldx, m, k, m * i / parts, m * (i + 1) / parts, cut, k);
        if (packed)
            s->pack(packed, w, n, k, a, b < n ? b : n);
    }
    for (int i = 0; i < parts; i++) {
        int64_t a = groups * i / parts * s->group, b = groups * (i + 1) / parts * s->group;
        ts_mul p = {.w = packed ? packed : w,
                    .x = act,
                    .limbs = prep->limbs,
                    .y = y,
                    .add = add,
                    .m = m,
                    .n = n,
                    .k = k,
                    .ldy = ldy,
                    .ldadd = ldadd,
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

static void product(const ts_kset *s, bool int8, const uint8_t *w, const float *x, int64_t ldx,
                    float *y, int64_t ldy, int64_t m, int64_t n, int64_t k, int parts)
{
    product_add(s, int8, w, x, ldx, NULL, 0, y, ldy, m, n, k, parts);
}

/* --- the program --------------------------------------------------------------------------- */

/* Is the set one of those named? None named: all are wanted. */
static bool wanted(const ts_kset *s, int names, char **name)
{
    bool found = names == 0;
    for (int i = 0; i < names; i++)
        found = found || strcmp(set_name(s), name[i]) == 0;
    return found;
}

/* The main function of a test: one_set for every set that can run here, or those named.
 *
 *     test_NAME [SEED [SET...]] */
static int run_sets(const char *name, void (*one_set)(const ts_kset *s), int argc, char **argv)
{
    int names = argc > 2 ? argc - 2 : 0, real = 0, left_out = 0, fake = 0;
    FILE *f = fopen("/dev/urandom", "rb");
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    else if (!f || fread(&seed, sizeof seed, 1, f) != 1)
        seed = 1;
    if (f)
        fclose(f);
    printf("seed 0x%llx\n", (unsigned long long)seed);

    if (ts_cpu_get()->amx)
        ts_tiles_begin();
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *s = ts_kset_at(i);
        if (!wanted(s, names, argv + 2))
            continue;
        if (!ts_isa_usable(ts_cpu_get(), s->isa, NULL)) {
            left_out++;
            continue;
        }
        one_set(s);
        real++;
    }
    if (ts_cpu_get()->amx)
        ts_tiles_end();
    for (int i = 0; i < N_STANDINS; i++)
        if (wanted(standins[i], names, argv + 2)) {
            one_set(standins[i]);
            fake++;
        }
    if (names && real + left_out + fake != names) {
        fprintf(stderr, "not all of these are kernel sets\n");
        return 2;
    }
    printf("%d sets with real instructions, %d can't run on this CPU, %d with the stand-in\n", real,
           left_out, fake);
    return check_done(name);
}

#endif

/* ref.c - the ref kernel sets: plain loops over to_f32, the oracle every other set is tested
 * against.
 *
 * There is no packing. Activations are floats (see prep.h), so one product serves all types. */
#include "cpu/prep.h"

#define UNSANITIZED __attribute__((no_sanitize("address", "undefined", "thread")))

enum { TOKENS = 64, PIECE = 128, CHUNK = 512 }; /* CHUNK: a multiple of every type's block */

/* Eight sums at a time, of which a compiler makes vectors; in double before they are long. Where
 * sanitizers looked at every number tests would do little else: mul() shows them the ends of x. */
UNSANITIZED static double dot(const float *a, const float *b, int64_t k)
{
    double sum = 0;
    int64_t i = 0;
    while (i + 8 <= k) {
        const int64_t end = i + PIECE < k ? i + PIECE : k;
        float part[8] = {0};
        for (; i + 8 <= end; i += 8)
            for (int j = 0; j < 8; j++)
                part[j] += a[i + j] * b[i + j];
        for (int j = 0; j < 4; j++)
            part[j] += part[j + 4];
        sum += ((double)part[0] + part[1]) + ((double)part[2] + part[3]);
    }
    for (; i < k; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static void mul(const ts_mul *p, ts_type type)
{
    const ts_type_info *info = ts_type_get(type);
    const float *x = p->x; /* [m][k] */
    size_t row_bytes = ts_row_bytes(info, p->k);

    if (p->m > 0) {
        const volatile float ends[] = {x[0], x[p->m * p->k - 1]};
        (void)ends;
    }
    for (int64_t n = p->n0; n < p->n1; n++) {
        const char *row = (const char *)p->w + (size_t)n * row_bytes;
        for (int64_t t0 = 0; t0 < p->m; t0 += TOKENS) {
            int64_t t1 = t0 + TOKENS < p->m ? t0 + TOKENS : p->m;
            double sum[TOKENS] = {0};
            for (int64_t k0 = 0; k0 < p->k; k0 += CHUNK) {
                float w[CHUNK];
                int64_t nk = k0 + CHUNK < p->k ? CHUNK : p->k - k0;
                info->to_f32(w, row + ts_row_bytes(info, k0), nk);
                for (int64_t t = t0; t < t1; t++)
                    sum[t - t0] += dot(w, x + t * p->k + k0, nk);
            }
            for (int64_t t = t0; t < t1; t++) {
                double add = p->add ? p->add[t * p->ldadd + n] : 0;
                p->y[t * p->ldy + n] = (float)(add + sum[t - t0]);
            }
        }
    }
}

#define REF(T, act)                                                                                \
    static void mul_##T(const ts_mul *p)                                                           \
    {                                                                                              \
        mul(p, TS_TYPE_##T);                                                                       \
    }                                                                                              \
    extern const ts_kset ts_kset_##T##_ref;                                                        \
    const ts_kset ts_kset_##T##_ref = {                                                            \
        .type = TS_TYPE_##T,                                                                       \
        .isa = TS_ISA_REF,                                                                         \
        .layout = "source",                                                                        \
        .prep = &ts_prep_f32_ref,                                                                  \
        .prep_int8 = &ts_prep_##act##_ref,                                                         \
        .group = 1,                                                                                \
        .mul = mul_##T,                                                                            \
    };

REF(F32, f32)
REF(F16, f32)
REF(BF16, f32)
REF(Q4_0, q8_32)
REF(Q4_1, q8_32)
REF(Q5_0, q8_32)
REF(Q5_1, q8_32)
REF(Q8_0, q8_32)
REF(Q2_K, q8_256)
REF(Q3_K, q8_256)
REF(Q4_K, q8_256)
REF(Q5_K, q8_256)
REF(Q6_K, q8_256)
REF(IQ4_NL, q8_32)
REF(IQ4_XS, q8_256)
REF(MXFP4, q8_32)

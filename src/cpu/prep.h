/* prep.h - prepared activations: the rules of the int8 formats and the layouts the kernel sets
 * read.
 *
 * A block of 32 or 256 elements becomes q = rint(x * (Q / max|x|)), d = max|x| / Q, with Q = 127
 * (int8) or 16256 (exact: 15 bits, 128 * 127). Two kinds of block are special, recognised by the
 * bits of max|x|:
 *
 *   below TS_ACT_TINY  (Q / max|x| would overflow, or d be subnormal): q = 0, d = 0
 *   infinite or NaN: q = 0, d = NaN, so that the mistake is seen in the result */
#ifndef TS_PREP_H
#define TS_PREP_H

#include <math.h>
#include <string.h>

#include "cpu/kset.h"

#define TS_ACT_TINY 1e-30f

/* d of a block of codes up to q whose max|x| has these bits, and in *scale what its elements are
 * multiplied with; *scale = 0: there are no codes. */
static inline float ts_act_scale(int bits, float q, float *scale)
{
    float max;
    memcpy(&max, &bits, sizeof max);
    *scale = 0;
    if (bits >= 0x7f800000)
        return NAN;
    if (max < TS_ACT_TINY)
        return 0;
    *scale = q / max;
    return max / q;
}

/* ref: float [m][k] of q * d (or x itself), so that one loop serves every type. */
extern const ts_prep ts_prep_f32_ref, ts_prep_q8_32_ref, ts_prep_q8_256_ref;

/* avx2: float rows, or the blocks of prep_x8.h. */
extern const ts_prep ts_prep_f32_avx2, ts_prep_q8_32_avx2, ts_prep_q8_256_avx2;
extern const ts_prep ts_prep_q15_32_avx2, ts_prep_q15_256_avx2;

/* avx512 and amx: prep_x16.h. What is compiled with the stand-in for wide instructions has names of
 * its own, so that a program can hold both. */
#ifdef TS_STANDIN
#define TS_SYM(name) TS_SYM_(name, _standin)
#else
#define TS_SYM(name) TS_SYM_(name, )
#endif
#define TS_SYM_(name, suffix)  TS_SYM__(name, suffix)
#define TS_SYM__(name, suffix) name##suffix

extern const ts_prep TS_SYM(ts_prep_q15_avx512), TS_SYM(ts_prep_q8_32_avx512);
extern const ts_prep TS_SYM(ts_prep_q8_256_avx512), TS_SYM(ts_prep_f32_avx512);
/* By the number of tokens from which tiles serve. */
extern const ts_prep TS_SYM(ts_prep_quant5_amx), TS_SYM(ts_prep_quant6_amx);
extern const ts_prep TS_SYM(ts_prep_quant9_amx);
extern const ts_prep TS_SYM(ts_prep_float5_amx), TS_SYM(ts_prep_float9_amx);
extern const ts_prep TS_SYM(ts_prep_int8_amx);

#endif

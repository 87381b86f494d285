/* prep_x8.h - int8 activations as the vector kernel sets read them: one run of blocks a token.
 *
 * Weights sit in vectors of 8 rows x 4 consecutive k, so four codes of x are one broadcast dword.
 * The sums beside the codes take every offset and minimum of a weight type out of the k loop. */
#ifndef TS_PREP_X8_H
#define TS_PREP_X8_H

#include <stdint.h>

/* `pair` sums are the two halves of a dword's worth of int16 sums that vpmaddubsw leaves in each
 * row's lane: [0] over the elements with k % 4 < 2, [1] over the others. */
typedef struct ts_x32 {
    float d;         /* x = d * q                                            */
    float s;         /* d * sum(q)                                           */
    int16_t pair[2]; /* -8 * pair sums: the start of a sum of (code - 8) * q */
    int8_t q[32];
} ts_x32;

typedef struct ts_x256 {
    float d;
    int16_t sum32[8];    /* sum(q) of each 32                                           */
    int16_t sum16[16];   /* of each 16                                                  */
    int16_t pair[16][2]; /* -32 * pair sums of each 16: the start of a sum of (code - 32) * q */
    int8_t q[256];
} ts_x256;

#endif

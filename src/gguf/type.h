/* type.h - the quantised element types of GGUF and their definition, to_f32.
 *
 * Numbers are ggml's (docs/gguf.md). A row of k elements is k / block blocks of `bytes` bytes. */
#ifndef TS_TYPE_H
#define TS_TYPE_H

#include "base/status.h"

typedef enum ts_type {
    TS_TYPE_F32 = 0,
    TS_TYPE_F16 = 1,
    TS_TYPE_Q4_0 = 2,
    TS_TYPE_Q4_1 = 3,
    TS_TYPE_Q5_0 = 6,
    TS_TYPE_Q5_1 = 7,
    TS_TYPE_Q8_0 = 8,
    TS_TYPE_Q2_K = 10,
    TS_TYPE_Q3_K = 11,
    TS_TYPE_Q4_K = 12,
    TS_TYPE_Q5_K = 13,
    TS_TYPE_Q6_K = 14,
    TS_TYPE_IQ4_NL = 20,
    TS_TYPE_IQ4_XS = 23,
    TS_TYPE_BF16 = 30,
    TS_TYPE_MXFP4 = 39,
    TS_TYPE_COUNT = 40,
} ts_type;

/* The blocks over which a product with this type may quantise its activations (see ts_prep). */
typedef enum ts_act {
    TS_ACT_F32,    /* none: they stay floats */
    TS_ACT_Q8_32,  /* 32 elements            */
    TS_ACT_Q8_256, /* 256 elements           */
} ts_act;

typedef struct ts_type_info {
    const char *name; /* "Q4_K", NULL = a number we don't know          */
    int block;        /* elements in a block                            */
    int bytes;        /* bytes of a block                               */
    ts_act act;
    /* y[k] = the values of one row (k a multiple of block). The definition of the type. */
    void (*to_f32)(float *y, const void *row, int64_t k);
} ts_type_info;

/* NULL for a type we can't compute with (the loader names it in its error). */
const ts_type_info *ts_type_get(uint32_t type);

/* The name of any ggml type number, also of those we can't compute with; NULL if unknown to us. */
const char *ts_type_name(uint32_t type);

/* "Q4_K", "q4_k" -> type; false if there is none of that name. */
bool ts_type_parse(const char *name, ts_type *out);

/* Bytes of a row of k elements; k must be a multiple of the block. */
static inline size_t ts_row_bytes(const ts_type_info *t, int64_t k)
{
    return (size_t)(k / t->block) * (size_t)t->bytes;
}

/* IEEE half and bfloat16, exactly (subnormals, infinities, NaNs kept; to half rounds to nearest
 * even). */
float ts_f16_to_f32(uint16_t h);
uint16_t ts_f32_to_f16(float f);
float ts_bf16_to_f32(uint16_t h);
uint16_t ts_f32_to_bf16(float f);

#endif

/* synth.h - models of random weights in real shapes, and random blocks of every type.
 *
 * The same seed gives the same bytes on every machine and for any number of threads. Weights
 * have zero mean and a spread that keeps a forward pass healthy: rms-normed activations stay near
 * 1, logits spread over several units, attention is neither flat nor a single position. */
#ifndef TS_SYNTH_H
#define TS_SYNTH_H

#include "gguf/type.h"

/* Fills dst with n_blocks random valid blocks (of a row or many; for F32, F16 and BF16 a block is
 * one element). Every field of the block is random; scales are finite, vary by a factor of three
 * and are such that the values have mean 0 and standard deviation `scale`. Quants take all their
 * codes (-128 too). Block i depends on seed and i alone. Half scales are at least 2^-24: below a
 * `scale` of about 1e-4 (Q6_K 1e-3) the spread is coarse. */
void ts_synth_blocks(ts_type type, void *dst, int64_t n_blocks, uint64_t seed, float scale);

/* The same for blocks first..first+n_blocks of a longer run, first a multiple of 8. */
void ts_synth_range(ts_type type, void *dst, int64_t first, int64_t n_blocks, uint64_t seed,
                    float scale);

typedef struct ts_synth_options {
    const char *arch;   /* one of ts_synth_archs()                                         */
    const char *preset; /* "tiny", "1b", "8b"                                               */
    const char *type;   /* a type or a mix as llama.cpp's quantizer names it: "Q4_0", "Q4_K_M"   */
    const char *rope_scaling; /* "none", "linear", "yarn", "llama3"; NULL = the real model's */
    bool pure;                /* every matrix in `type`, no mix                                   */
    bool sparse;              /* data are holes: zeros that take no disk, but for RoPE's divisors */
    uint64_t seed;
    int n_threads; /* 0 = one for each CPU                                             */
    /* From 0 to 1, from the calling thread; return false to cancel. May be NULL. */
    bool (*progress)(void *user, double done);
    void *progress_user;
} ts_synth_options;

typedef struct ts_synth_result {
    uint64_t file_bytes;
    int64_t n_params, n_tensors;
} ts_synth_result;

/* Writes the model. Until it is complete, `path` is untouched; on failure nothing stays.
 * result may be NULL. TS_BAD_ARG, TS_NO_MEMORY, TS_IO, TS_CANCELLED. */
ts_status ts_synth_write(const char *path, const ts_synth_options *opt, ts_synth_result *result,
                         ts_error *err);

/* Names that the options take, for help and tests: "llama|qwen2|...". */
const char *ts_synth_archs(void);
const char *ts_synth_presets(void);
const char *ts_synth_types(void);

/* A tiny model (under 2 MB) for a test: arch may be "arch:preset", seed 1, one thread, the real
 * model's RoPE scaling.
 */
ts_status ts_synth_tiny(const char *path, const char *arch, const char *type, bool pure,
                        ts_error *err);

#endif

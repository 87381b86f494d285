/* bench.h - one result of tessera bench, and its three output formats. */
#ifndef TS_CLI_BENCH_H
#define TS_CLI_BENCH_H

#include "base/probe.h"

enum { BENCH_MAX_REPS = 100 };

/* What one token costs, from the file: every matrix of the model is read once and multiplied with
 * once; of a stack of experts, those that one token uses. */
typedef struct bench_work {
    uint64_t weight_bytes; /* of the matrices, as they are in the file                        */
    uint64_t body_params;  /* elements of the matrices every token goes through               */
    uint64_t head_params;  /* of the output matrix, which only tokens with logits go through  */
    bool int8;             /* most elements are of types whose products are made in int8      */
} bench_work;

typedef struct bench_result {
    const char *path;
    ts_engine_info info;
    bench_work work;
    ts_probe peak;
    int64_t n_batch, n_prompt, n_gen, n_depth;
    int64_t n_step;     /* tokens decoded in each eval, usually 1 */
    const char *stream; /* --stream */
    char time[32];      /* start of the test, RFC 3339 */
    int64_t n_reps;
    uint64_t ns[BENCH_MAX_REPS]; /* of each repetition */
    char *stats;                 /* JSON for BENCH_JSON, else text; NULL: not asked for */
} bench_result;

typedef enum bench_format { BENCH_MD, BENCH_JSON, BENCH_CSV } bench_format;

/* Where the table stands. Zero-initialise. */
typedef struct bench_printer {
    bench_format format;
    bool show_batch, show_ubatch, show_ngl, show_stream; /* columns of the md table */
    size_t n;                                            /* results so far */
} bench_printer;

/* Prints what stands before the first result, too. */
ts_status bench_print(bench_printer *p, const bench_result *r, ts_error *err);
/* Tokens a second, the mean of the repetitions. */
double bench_tps(const bench_result *r);
/* What stands behind the last result; nothing if there was none. */
void bench_print_footer(const bench_printer *p);

#endif

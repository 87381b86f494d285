/* sampling.h - the options of every command that samples. */
#ifndef TS_CLI_SAMPLING_H
#define TS_CLI_SAMPLING_H

#include "opt.h"

typedef struct sampling_opts {
    int64_t top_k, repeat_last_n, seed; /* seed -1: from the clock */
    double temp, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
} sampling_opts;

void sampling_init(sampling_opts *o); /* the library's defaults */

#define SAMPLING_OPTIONS(o)                                                                        \
    OPT("Sampling", "--temp, --temperature", OPT_FLOAT, &(o)->temp, "T",                           \
        "temperature; 0 always takes the best token", .min = 0, .max = 100),                       \
        OPT("Sampling", "--top-k", OPT_INT, &(o)->top_k, "K",                                      \
            "keep the K best tokens; 0 keeps all", .min = 0, .max = 2147483647),                   \
        OPT("Sampling", "--top-p", OPT_FLOAT, &(o)->top_p, "P",                                    \
            "keep the best tokens that together have probability P; 1 keeps all", .min = 0,        \
            .max = 1),                                                                             \
        OPT("Sampling", "--min-p", OPT_FLOAT, &(o)->min_p, "P",                                    \
            "drop tokens less than P times as probable as the best; 0 keeps all", .min = 0,        \
            .max = 1),                                                                             \
        OPT("Sampling", "--repeat-penalty", OPT_FLOAT, &(o)->repeat_penalty, "R",                  \
            "divides the logits of tokens seen before; 1 is none", .min = 0.01, .max = 100),       \
        OPT("Sampling", "--frequency-penalty", OPT_FLOAT, &(o)->frequency_penalty, "A",            \
            "taken off a logit for every time its token was seen", .min = -100, .max = 100),       \
        OPT("Sampling", "--presence-penalty", OPT_FLOAT, &(o)->presence_penalty, "A",              \
            "taken off the logit of a token seen before", .min = -100, .max = 100),                \
        OPT("Sampling", "--repeat-last-n", OPT_INT, &(o)->repeat_last_n, "N",                      \
            "tokens the penalties look back on; 0: none, -1: all", .min = -1, .max = 2147483647),  \
        OPT("Sampling", "-s, --seed", OPT_INT, &(o)->seed, "S",                                    \
            "the same seed gives the same text; -1 takes one from the clock", .min = -1,           \
            .max = 4294967295)

/* As the library wants them; without the seed. */
ts_sampler_options sampling_options(const sampling_opts *o);

uint64_t sampling_seed(const sampling_opts *o);
ts_status sampling_open(ts_sampler **out, const sampling_opts *o, uint64_t seed, ts_error *err);

#endif

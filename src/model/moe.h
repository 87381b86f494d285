/* moe.h - how a router's logits choose experts and weigh them. */
#ifndef TS_MOE_H
#define TS_MOE_H

#include <stdbool.h>
#include <stdint.h>

#define TS_MAX_EXPERTS 1024

typedef enum ts_gating {
    TS_GATING_SOFTMAX, /* probabilities over all experts                  */
    TS_GATING_SIGMOID, /* each by itself                                  */
    TS_GATING_CHOSEN,  /* softmax over the logits of those chosen by them */
} ts_gating;

typedef struct ts_moe {
    int64_t n_expert, n_used; /* 0: there are none                                            */
    int64_t n_ff;             /* of one expert                                                */
    ts_gating gating;
    bool renorm;          /* the chosen ones' weights are divided by their sum                */
    float scale;          /* ... and multiplied by this                                       */
    bool clamped;         /* their activation is gpt-oss's                                    */
    int64_t n_group;      /* experts stand in so many groups, in order ...                    */
    int64_t n_group_used; /* ... and are chosen from the best of these, by the sum of the two
                             best of each; as many as n_group: from all */
} ts_moe;

#endif

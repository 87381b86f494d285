/* engine.h - the engine's insides, for session.c. */
#ifndef TS_ENGINE_H
#define TS_ENGINE_H

#include <stdatomic.h>

#include "base/cpu.h"
#include "exec/gpu.h"
#include "exec/run.h"
#include "grammar/vocab.h"
#include "model/tokenizer.h"

/* Owns, from the file up: each part points into those before it. */
struct ts_engine {
    ts_log log;
    ts_gguf *g;
    ts_tokenizer *tok;
    ts_model *m; /* NULL with vocab_only                  */
    ts_plan plan;
    ts_gpus gpus;
    ts_override *overrides; /* [n_overrides], with their patterns */
    size_t n_overrides;
    ts_devices devices; /* n = 0 with vocab_only or plan_only     */
    ts_run spare;       /* the first session's state               */
    atomic_bool has_spare;
    double load_seconds;
    ts_cpu_time opened; /* when it was */
    bool check_finite;
    _Atomic(ts_vocab *) vocab; /* the vocabulary in trees, made for the first grammar */
};

/* What an engine may use beside the CPU, and how. */
typedef struct ts_engine_split {
    ts_split split;
    const ts_backend *const *backends; /* [split.n_accels] */
} ts_engine_split;

/* As ts_engine_open; split: accelerators for tests, instead of what the options say. */
ts_status ts_engine_open_split(ts_engine **out, const char *path, const ts_engine_options *opt,
                               const ts_engine_split *split, ts_error *err);

/* Finds the GPUs that the options want, and what they say of the split; isa: the CPU's. */
ts_status ts_engine_take_gpus(ts_engine *e, const ts_engine_options *o, ts_isa isa,
                              ts_engine_split *out, ts_error *err);

/* What the routers of the CPU choose from now on is kept in r, or r is followed; NULL: neither. r
 * outlives its use here. */
void ts_session_set_routing(ts_session *s, struct ts_routing *r);

#endif

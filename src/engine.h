/* engine.h - the engine's insides, for session.c. */
#ifndef TS_ENGINE_H
#define TS_ENGINE_H

#include "exec/backend.h"
#include "model/tokenizer.h"

/* Owns, from the file up: each part points into those before it. */
struct ts_engine {
    ts_log log;
    ts_gguf *g;
    ts_tokenizer *tok;
    ts_model *m; /* NULL with vocab_only                  */
    ts_plan plan;
    const ts_backend *be;
    ts_device *dev; /* NULL with vocab_only or plan_only     */
    double load_seconds;
};

#endif

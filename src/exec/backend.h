/* backend.h - a device: where weights lie and where steps run.
 *
 * The engine opens one device, which loads the weights the plan gave it; each session
 * opens a state on it, which holds its KV cache and buffers. A batch is run by
 * the step list of the plan. */
#ifndef TS_BACKEND_H
#define TS_BACKEND_H

#include "plan/plan.h"

typedef struct ts_device ts_device; /* one an engine  */
typedef struct ts_state ts_state;   /* one a session  */

/* One micro-batch: m tokens at positions pos0.., the last m_out of which want logits. */
typedef struct ts_batch {
    const ts_token *tokens; /* [m] */
    int64_t m, m_out, pos0;
    int64_t logits_row; /* where in the state's logits the m_out rows go */
} ts_batch;

/* What one kind of work has done in a session. */
typedef struct ts_work {
    const char *name; /* a kernel set ("avx2"), or the operation       */
    bool matrix;      /* matrix products: weights, bytes and flops count */
    int64_t n_weights;
    uint64_t weight_bytes; /* of these weights, once                     */
    int64_t calls;
    double bytes, flops; /* read of weights, computed                    */
    double tile_flops;   /* of them, on tiles                            */
    double seconds;      /* of the first thread                          */
} ts_work;

#define TS_MAX_WORK 32

typedef struct ts_load_options {
    const ts_log *log;
    const char *pack_cache;                    /* directory; NULL: none */
    bool (*progress)(void *user, double done); /* from the calling thread; may be NULL */
    void *progress_user;
} ts_load_options;

typedef struct ts_backend {
    const char *name; /* "CPU" */
    ts_status (*open)(ts_device **out, const ts_plan *plan, const ts_model *m, ts_error *err);
    void (*close)(ts_device *d);
    /* Packs or uploads every weight. TS_NO_MEMORY, or TS_CANCELLED when progress returns false. */
    ts_status (*load)(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err);
    ts_status (*state_open)(ts_state **out, ts_device *d, ts_error *err);
    void (*state_close)(ts_state *s);
    void (*run)(ts_state *s, const ts_batch *b);
    float *(*logits)(ts_state *s); /* [n_logits][n_vocab] */
    void (*set_stats)(ts_state *s, bool on);
    size_t (*stats)(const ts_state *s, ts_work out[TS_MAX_WORK]); /* number of entries */
} ts_backend;

extern const ts_backend ts_backend_cpu;

#endif

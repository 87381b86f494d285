/* backend.h - a device: where weights lie and where steps run.
 *
 * The engine opens the devices of the plan, each of which loads the weights that the plan gave it;
 * each session opens a state on every device, which holds the KV cache of its layers and its
 * buffers. A batch is run by the step list of the plan, a segment at a time (exec/run.h). */
#ifndef TS_BACKEND_H
#define TS_BACKEND_H

#include "plan/plan.h"

typedef struct ts_device ts_device; /* one an engine  */
typedef struct ts_state ts_state;   /* one a session  */

/* Rows of a micro-batch that are one timeline's: consecutive tokens of it. */
typedef struct ts_rows {
    int64_t r0, m;      /* rows r0 .. r0 + m - 1                                     */
    int64_t pos0;       /* position of the first                                     */
    const int32_t *map; /* of the timeline's pages up to the last of them (ts_place) */
} ts_rows;

/* One micro-batch of m tokens, m_out of which want logits. Without `spans` they are one timeline's,
 * at positions pos0.., whose pages are in order, and the last of them want logits. */
typedef struct ts_batch {
    const ts_token *tokens; /* [m] */
    int64_t m, m_out, pos0;
    int64_t logits_row; /* where in the state's logits the m_out rows go */
    int64_t n_spans;
    const ts_rows *spans;       /* [n_spans] in the rows' order, or NULL                  */
    const int32_t *pos, *place; /* [m] with spans: each row's position, and where in the cache */
    const int32_t *out;         /* [m_out] with spans: the rows that want logits, in order     */
    uint64_t serial;            /* with spans: another one for every batch of the session     */
    struct ts_routing *routing; /* NULL, or what the CPU's routers keep or follow (cpu/route.h) */
} ts_batch;

static inline int64_t ts_batch_spans(const ts_batch *b)
{
    return b->spans ? b->n_spans : 1;
}

static inline ts_rows ts_batch_span(const ts_batch *b, int64_t i)
{
    return b->spans ? b->spans[i] : (ts_rows){0, b->m, b->pos0, NULL};
}

static inline int64_t ts_batch_pos(const ts_batch *b, int64_t row)
{
    return b->spans ? b->pos[row] : b->pos0 + row;
}

static inline int64_t ts_batch_place(const ts_batch *b, int64_t row)
{
    return b->spans ? b->place[row] : b->pos0 + row;
}

/* The i-th row that wants logits. */
static inline int64_t ts_batch_out(const ts_batch *b, int64_t i)
{
    return b->spans ? b->out[i] : b->m - b->m_out + i;
}

/* What one kind of work has done in a session. */
typedef struct ts_work {
    const char *name;   /* a kernel set ("avx2"), or the operation       */
    const char *device; /* whose; NULL: of copies                        */
    bool matrix;        /* matrix products: weights, bytes and flops count */
    int64_t n_weights;
    uint64_t weight_bytes; /* of these weights, once                     */
    int64_t calls;
    double bytes, flops; /* read of weights, computed                    */
    double tile_flops;   /* of them, on tiles                            */
    double seconds;      /* of the first thread                          */
} ts_work;

#define TS_MAX_WORK 64

typedef struct ts_load_options {
    const ts_log *log;
    const char *pack_cache;                    /* directory; NULL: none */
    bool (*progress)(void *user, double done); /* from the calling thread; may be NULL */
    void *progress_user;
} ts_load_options;

/* Rows r.. of a buffer of floats, and where the CPU has them or wants them. */
typedef struct ts_crossing {
    ts_buf buf;
    int64_t r, rows;
    float *at;
} ts_crossing;

typedef struct ts_backend {
    const char *name; /* "CPU" */
    /* The plan's device `index`. */
    ts_status (*open)(ts_device **out, const ts_plan *plan, int index, const ts_model *m,
                      ts_error *err);
    void (*close)(ts_device *d);
    /* Packs or uploads its weights. TS_NO_MEMORY, or TS_CANCELLED when progress returns false. */
    ts_status (*load)(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err);
    ts_status (*state_open)(ts_state **out, ts_device *d, ts_error *err);
    void (*state_close)(ts_state *s);
    /* Steps first..end-1, one segment or a part of one, whose domain has rows. */
    ts_status (*run)(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err);
    /* The CPU's: where row r of a buffer of floats is. */
    float *(*row)(ts_state *s, ts_buf buf, int64_t r);
    /* The CPU's: where all of a state's buffers are. */
    void (*buffers)(const ts_state *s, const void **mem, size_t *bytes);
    /* An accelerator's: the CPU's buffers stay at [bytes] until the state is closed, and it may get
     * ready to copy from and to them by itself. `settle` comes before anybody writes to a row that
     * was put: it returns when what was put has been read. Both may be NULL. */
    void (*share)(ts_state *s, const void *at, size_t bytes);
    ts_status (*settle)(ts_state *s, ts_error *err);
    /* An accelerator's: rows from and to the CPU's memory. What `get` asks for, of n buffers at
     * once, is there when `arrive` returns, which follows unless `get` fails; nothing is put
     * between the two. Where one of them fails the rows may still be written to, but not behind the
     * next `get`. */
    ts_status (*put)(ts_state *s, ts_buf buf, int64_t r, int64_t rows, const float *src,
                     ts_error *err);
    ts_status (*get)(ts_state *s, const ts_crossing *c, int n, ts_error *err);
    ts_status (*arrive)(ts_state *s, ts_error *err);
    /* Places pos..pos+n-1 of K and V of a layer whose K and V it has, as F16 [n_head_kv][n]
     * [head_dim] and the same of V, unless that is K's beginning (latent attention): what was
     * stored last by what has been queued so far. *kv is `room`, which is large enough, or memory
     * of the device's own that stays as it is until the next call. */
    ts_status (*kv_get)(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                        const uint16_t **kv, ts_error *err);
    ts_status (*kv_put)(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                        ts_error *err);
    /* The plan's stream device's, when all devices have loaded: takes what streaming needs. */
    ts_status (*stream_open)(ts_device *d, ts_error *err);
    /* Weights of the streamed layers from `first` on begin to come, in
     * their order, and until stream_end run takes those layers' steps of the second list, in order.
     * Other sessions' streams wait. stream_end follows in any case, when all are queued. `wait`:
     * until as much as there is room for has come. Of a layer's shared experts, `ahead` of those in
     * order[layer][n_expert], the first; it stays as it is until the layer's list is given. */
    ts_status (*stream_begin)(ts_state *s, int64_t first, const int32_t *order, int64_t ahead,
                              bool wait, ts_error *err);
    /* Which experts of the layer it computes: list[n], of which those that come ahead are the
     * first; before its steps that use them are run. */
    ts_status (*stream_experts)(ts_state *s, int layer, const int32_t *list, int64_t n,
                                ts_error *err);
    void (*stream_end)(ts_state *s);
    /* Measures how long a layer's weights take to come, in seconds. */
    ts_status (*stream_time)(ts_state *s, double *seconds, ts_error *err);
    /* From here on batches of one token by the second list have the last n of their chosen experts
     * here, which are read where the CPU has them; 0: no longer. False: that can't be. May be NULL.
     */
    bool (*stream_alone)(ts_state *s, int64_t n);
    void (*set_stats)(ts_state *s, bool on);
    size_t (*stats)(const ts_state *s, ts_work out[TS_MAX_WORK]); /* number of entries */
} ts_backend;

extern const ts_backend ts_backend_cpu;

#endif

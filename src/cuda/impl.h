/* impl.h - what the files of the CUDA device share. */
#ifndef TS_CUDA_IMPL_H
#define TS_CUDA_IMPL_H

#include <pthread.h>

#include "cuda/device.h"
#include "cuda/fuse.h"
#include "cuda/ops.h"
#include "cuda/rt.h"
#include "cuda/spans.h"
#include "cuda/stream.h"

#define TS_CUDA_ALIGN 256
/* Bytes of dequantised rows that are multiplied at once: a whole matrix of an 8B model, which
 * cuBLAS cuts better than we would, and small beside any model that has larger ones. */
#define TS_CUDA_STRIP ((size_t)128 << 20)
/* Where a matrix is cut, by so many rows: cuBLAS has its fast kernels for round numbers. */
#define TS_CUDA_ROUND 256
/* What cuBLAS takes for itself. */
#define TS_CUDA_BLAS ((size_t)64 << 20)
/* Up to so many tokens are multiplied with 15-bit activations, 8 at a time, and replayed as graphs.
 */
#ifndef TS_CUDA_FEW
#define TS_CUDA_FEW 16
#endif
/* Up to so many tokens, each goes to its experts by itself, and each head's product by the same
 * way. */
#define TS_CUDA_ALONE 8

/* Bytes that cross at once, of pinned memory. A test has smaller ones, so that tiny models have
 * many.
 */
#ifndef TS_CUDA_PIECE
#define TS_CUDA_PIECE ((size_t)4 << 20)
#endif
/* Threads that load, at most: what feeds PCI Express 5 from the page cache. Two pieces each. */
#define TS_CUDA_LOADERS 8
/* Graphs that a session keeps for a segment. */
#define TS_CUDA_SHAPES 4

struct ts_device {
    const ts_plan *plan;
    const ts_plan_device *at;
    const ts_model *m;
    ts_log log;
    int index;
    bool plain; /* steps one by one, each launched by itself */
    void *stream;
    void *arena, *vectors, *strip;
    size_t strip_bytes;
    uint8_t *pinned;   /* [pieces][TS_CUDA_PIECE], and `arrived` */
    uint32_t *arrived; /* the number of the last push that has arrived ... */
    uint32_t pushes;   /* ... and of the last that was queued              */
    int loaders, pieces;
    uint64_t sent, read; /* pieces that have been queued, and of them those known to be read */
    const float **vec;   /* [n_steps] a step's vector on the GPU */
    ts_cuda_fused *does; /* [n_steps] */
    int *segment;        /* [n_steps] of this device's steps: which of its segments they are in */
    int n_segments;
    ts_rt_gemm *gemm;          /* NULL: own kernels serve */
    ts_cuda_stream *streamed;  /* NULL: nothing is */
    pthread_mutex_t streaming; /* held from stream_begin to stream_end */
    /* Sessions share the stream, the pieces and the strip. What one has queued comes before what
     * the next one does, so a call at a time is enough. */
    pthread_mutex_t lock;
};

/* What a segment's launches depend on besides what they read from ts_cuda_batch. */
typedef struct ts_cuda_shape {
    int64_t m, m_out, logits_row;
    bool spans;    /* of a token each */
    int64_t alone; /* experts that are fetched */
    uint64_t used; /* when, as a count; 0: never */
    bool refused;  /* can't be recorded */
    ts_rt_graph *graph;
} ts_cuda_shape;

struct ts_state {
    ts_device *d;
    uint8_t *mem;
    uint8_t **bufs; /* [n_bufs]; NULL: not here */
    uint16_t *kv;
    void *work;
    ts_cuda_batch *batch; /* on the GPU */
    ts_cuda_spans spans; /* of a plan with pages: what batches are made to; else its host is NULL */
    uint64_t serial;     /* of the batch that is there; 0: one without spans, or none */
    ts_cuda_batch there; /* without: what it is; m 0: none                            */
    const ts_cuda_spans *now; /* &spans, or NULL: of the batch that is run */
    /* Of a stream device: a stream on which K and V leave, pinned memory for a batch of them, and
     * for each layer when they are stored. */
    void *leaving, **stored; /* [n_layer] */
    uint16_t *halves;        /* [K, V][n_head_kv][n_ubatch][head_dim] */
    ts_cuda_shape *shapes;   /* [n_segments][TS_CUDA_SHAPES] */
    uint64_t runs;
    /* The CPU's buffers, if they are pinned, and what has been read of them. */
    const uint8_t *cpu;
    size_t cpu_bytes;
    bool pins; /* it was this part of the session that pinned them */
    void *has_read;
    bool reading;
    int64_t alone; /* as ts_backend.stream_alone has it */
    /* What `get` asked for: the number of its push, or copies to be waited for; and how many pieces
     * had been sent then. */
    uint32_t push;
    bool copying;
    uint64_t sent;
    bool stats;
    double *seconds; /* [n_steps] */
    int64_t *calls, *rows;
};

static inline ts_status ts_cuda_failed(const ts_device *d, int e, const char *what, ts_error *err)
{
    return ts_fail(err, TS_IO, "%s: %s failed: %s", d->at->name, what, ts_rt_text(e));
}

static inline ts_status ts_cuda_no_memory(const ts_device *d, int e, size_t bytes, const char *what,
                                          ts_error *err)
{
    return ts_fail(err, TS_NO_MEMORY, "%s has no %zu bytes for %s: %s", d->at->name, bytes, what,
                   ts_rt_text(e));
}

static inline float *ts_cuda_row(const ts_state *s, ts_buf b, int64_t r)
{
    return (float *)s->bufs[b] + r * s->d->plan->steps.bufs[b].width;
}

static inline size_t ts_cuda_aligned(size_t n)
{
    return (n + TS_CUDA_ALIGN - 1) / TS_CUDA_ALIGN * TS_CUDA_ALIGN;
}

/* Elements of K of one layer; V has as many, or, of latent attention, none of its own. */
static inline size_t ts_cuda_kv_elements(const ts_plan *p, const ts_model *m)
{
    return (size_t)m->hp.n_head_kv * (size_t)p->n_ctx * (size_t)m->hp.head_dim;
}

static inline int ts_cuda_kv_parts(const ts_model *m)
{
    return m->arch->latent ? 1 : 2;
}

/* Floats of a bias that belongs to experts' products, or 0 without. */
static inline int64_t ts_cuda_bias_floats(const ts_step *st, const float *bias)
{
    return bias ? st->w->e * st->w->n : 0;
}

/* Floats of the vector that a step reads: a norm's or bias's, RoPE's frequencies, sinks, experts'
 * biases. */
static inline int64_t ts_cuda_vector_floats(const ts_step *st)
{
    if (st->op == TS_OP_ANGLES)
        return st->rope->n_rot / 2;
    if (st->op == TS_OP_ROUTE)
        return st->vec ? st->w->n : 0;
    if (st->op == TS_OP_EXPERTS) /* one after the other */
        return ts_cuda_bias_floats(st, st->bias) + ts_cuda_bias_floats(st, st->bias2);
    if (st->op == TS_OP_ATTEND)
        return st->vec ? st->n_heads : 0;
    return st->vec ? st->d / (st->op == TS_OP_NORM && !st->each ? st->n_heads : 1) : 0;
}

/* Step i, one of a mixture of experts; experts.c. */
int ts_cuda_expert_step(ts_state *s, size_t i, const ts_cuda_on *on);
/* Step i, one of latent attention; latent.c. The STORE `last`, and what is done from step `first`
 * on to q and the latent that it stores. */
int ts_cuda_latent_step(ts_state *s, size_t i, const ts_cuda_on *on);
int ts_cuda_latent_fused(ts_state *s, size_t first, size_t last, const ts_cuda_on *on);

/* What batches of a plan with pages are made for. */
ts_cuda_room ts_cuda_room_of(const ts_plan *p, const ts_model *m);
/* Bytes of ts_cuda_batch and what is behind it. */
size_t ts_cuda_batch_bytes(const ts_plan *p, const ts_model *m);

/* Queues that n floats come from here, through pinned memory; src may change at once. */
int ts_cuda_send(ts_device *d, float *dst, const float *src, size_t n);

/* Queues that *b becomes this; batch.cu. */
int ts_cuda_set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0, void *stream);

/* The backend's load and run; load.c, run.c. */
ts_status ts_cuda_load(ts_device *d, ts_model *m, const ts_load_options *opt, ts_error *err);
ts_status ts_cuda_run(ts_state *s, const ts_batch *b, size_t first, size_t end, ts_error *err);

/* The stream device's; kv.c. */
ts_status ts_cuda_kv_open(ts_state *s, ts_error *err);
void ts_cuda_kv_close(ts_state *s);
ts_status ts_cuda_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                         const uint16_t **kv, ts_error *err);
ts_status ts_cuda_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                         ts_error *err);
/* K and V of a layer that this device has; of latent attention V is K's first elements. */
ts_cuda_kv ts_cuda_kv_of(const ts_state *s, int layer);

size_t ts_cuda_vector_bytes(const ts_plan *p, int device);
size_t ts_cuda_strip_bytes(const ts_plan *p, int device);
/* Bytes of x as BF16 that HEADS has in the strip, before its weights. */
size_t ts_cuda_heads_x(const ts_plan *p, const ts_step *st, int64_t rows);
size_t ts_cuda_attend_work(const ts_plan *p, const ts_model *m);

#endif

/* plan.h - where every weight goes and how large everything is, before anything is allocated.
 *
 * The plan is made once a load and is the only place that decides where something runs: it writes
 * each weight's kernel set, layout, size, place in the packed arena and reason into its handle,
 * lists the steps of the forward pass, and refuses with numbers what doesn't fit the machine. */
#ifndef TS_PLAN_H
#define TS_PLAN_H

#include "base/mem.h"
#include "base/probe.h"
#include "cpu/ops.h"
#include "plan/split.h"
#include "plan/step.h"

/* A step of up to this many tokens splits attention over positions: its heads alone are too few
 * tasks for many threads. */
#define TS_SPLIT_TOKENS 16

/* Query heads that share a KV head are one task of attention up to so many: what another task reads
 * again is in the cores' caches by then. */
#define TS_ATTEND_HEADS 16

/* A micro-batch of this many rows is prefill, for --prefill int8. */
#define TS_PREFILL_ROWS 32

/* What a device has to hold, in bytes. */
typedef struct ts_plan_device {
    const char *name;          /* "CPU", or the accelerator's                             */
    const ts_accel_kind *kind; /* NULL: the CPU                                     */
    int ordinal;               /* as the accelerator has it                         */
    bool used;                 /* by a step; an accelerator that isn't, isn't opened */
    ts_isa isa;                /* the widest of its kernel sets                     */
    int n_threads;
    int64_t n_blocks;         /* whose weights it holds, but for patterns                */
    int64_t n_layers;         /* whose K and V it holds                                  */
    int64_t n_streamed;       /* layers of the CPU whose K and V it has room for, to stream them */
    size_t stream;            /* the ring and what is unpacked, one an engine            */
    size_t packed;            /* its arena of weights, one an engine                     */
    size_t source;            /* weights that are read in the mapped file                */
    size_t kv;                /* KV cache of a session                                   */
    size_t buffers;           /* activations, logits and attention scratch of a session  */
    size_t parts;             /* of them: partial attention sums of a decode step        */
    size_t scratch;           /* of them: of one thread, for attention and tile products */
    size_t step_weights;      /* read from its memory by one decode step                 */
    size_t step_experts;      /* of them, of experts                                     */
    size_t memory;            /* an accelerator's that may be taken                      */
    double read, link, flops; /* what an accelerator can do, as ts_accel has it     */
} ts_plan_device;

/* Streaming: micro-batches of many tokens run the second list of steps, for which weights of the
 * CPU's layers are copied to an accelerator as they lie, packed, and unpacked there. They come in
 * pieces, in the order in which steps want them, into a ring: while one is computed with, the next
 * are on their way, and a ring with room for whole layers fills while the CPU still computes those
 * before. The accelerator has K and V of these layers too: of all of them, if there is room, else
 * of one at a time, brought from the CPU's cache. What a micro-batch adds goes to the CPU's cache
 * behind it.
 *
 * Experts that the CPU has are shared: as soon as a layer's routing is known the device is sent
 * those with most tokens, and the CPU computes the others meanwhile, so that both are done at once
 * by what was measured. While the layer's other steps run, some come ahead: those that had most
 * tokens in the micro-batch before. Of the others, those without tokens don't come. */
typedef struct ts_stream {
    ts_stream_mode mode;
    int device;        /* 0: nothing is streamed                                          */
    int64_t n_layers;  /* streamed ones                                                   */
    int64_t n_leading; /* streamed layers from 0 on: of these the CPU can keep the first  */
    bool all_kv;       /* K and V of all of them are there                                */
    size_t bytes;      /* of a layer's weights, packed, on average                        */
    size_t piece;      /* bytes of a place in the ring: rows of one weight, packed        */
    size_t source;     /* the most unpacked at once: a piece, a stack of heads, a layer's experts */
    int64_t pieces;    /* places                                                          */
    bool shares;       /* there are experts among them                                    */
    bool alone;        /* the CPU has nothing else of any layer: one token's can be shared, too */
    size_t expert_bytes; /* of one expert of the last of these layers, packed              */
} ts_stream;

/* Matrices of experts in a piece, at most. */
#define TS_STREAM_MATRICES 32

typedef struct ts_plan {
    ts_isa isa; /* of the CPU, as dev[0] has it */
    int n_threads;
    int n_devices;
    ts_placing placing;                 /* as decided */
    int64_t n_gpu_layers;               /* the same as ts_split has it */
    ts_plan_device dev[TS_MAX_DEVICES]; /* 0 is the CPU */
    int64_t n_ctx;                      /* positions of a session's KV cache          */
    int64_t n_ubatch;                   /* tokens computed together                   */
    int64_t n_logits;                   /* rows of logits one eval can return         */
    int64_t n_seqs;                     /* timelines of a session                     */
    int64_t n_ctx_seq;                  /* positions that one of them may have        */
    bool paged;                         /* they share the cache in pages              */
    ts_moe moe;                         /* the model's                              */
    ts_stream stream;
    bool step_by_step; /* every step is run by itself and looked at: none is made part of another */
    bool int8_prefill; /* micro-batches of TS_PREFILL_ROWS or more use 8-bit activations */
    ts_steps steps;
} ts_plan;

/* Tokens of which a head's activations are prepared and multiplied together (TS_OP_HEADS). */
#define TS_HEADS_TOKENS 64

/* Rows of partial sums, for each head: of a segment of positions and a token each. A timeline of
 * the longest context has room for TS_SPLIT_TOKENS tokens; what many timelines' steps have no room
 * for isn't cut by segments. */
static inline int64_t ts_plan_part_rows(const ts_plan *p)
{
    const int64_t segments = (p->n_ctx + TS_ATTEND_SEGMENT - 1) / TS_ATTEND_SEGMENT;
    return TS_SPLIT_TOKENS * (segments + p->n_seqs - 1);
}

/* Floats of 16 rows of which activations of experts are prepared, a piece along k at a time. */
#define TS_GATHER_K       512
#define TS_GATHER_SCRATCH ((size_t)16 * TS_GATHER_K * sizeof(float))

/* Which of a kernel set's two precisions a step over m rows uses. */
static inline bool ts_plan_int8(const ts_plan *p, int64_t m)
{
    return p->int8_prefill && m >= TS_PREFILL_ROWS;
}

typedef struct ts_plan_options {
    ts_isa isa;    /* resolved                         */
    int n_threads; /* 0 = one for each CPU             */
    bool int8_prefill;
    int64_t n_ctx, n_ubatch, n_logits, n_seqs; /* 0 = the default */
    ts_split split;
    ts_stream_mode stream;
    bool step_by_step;
    uint64_t memory; /* bytes of main memory to plan for; 0: what is free */
} ts_plan_options;

/* Places m's weights. TS_BAD_ARG, TS_NO_MEMORY (the sentence gives the sizes). */
ts_status ts_plan_make(ts_plan *out, ts_model *m, const ts_plan_options *opt, const ts_log *log,
                       ts_error *err);
void ts_plan_free(ts_plan *p);

/* Of the layers whose K and V a device holds: how many there are, and which one a layer is. */
static inline int64_t ts_plan_kv_layers(const ts_plan *p, int device)
{
    return p->dev[device].n_layers + p->dev[device].n_streamed;
}

static inline int64_t ts_plan_kv_index(const ts_plan *p, int device, const ts_layer *l)
{
    if (l->kv_device == device)
        return l->kv_index;
    return p->dev[device].n_layers + (p->stream.all_kv ? l->stream_index : 0);
}

/* The weights of a layer: writes at most TS_LAYER_WEIGHTS, returns how many. */
#define TS_LAYER_WEIGHTS 24
int ts_layer_weights(const ts_layer *l, ts_weight *out[TS_LAYER_WEIGHTS]);

/* Finds what can be streamed, appends the second list of steps and writes p->stream, with the least
 * memory that will do. Where nothing can, p->stream.device stays 0. TS_NO_MEMORY. */
ts_status ts_plan_stream(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err);

/* What streaming costs, in seconds. */
#define TS_STREAM_RATES 4
typedef struct ts_stream_rates {
    bool known;
    int64_t m[TS_STREAM_RATES]; /* numbers of tokens, none smaller than the one before */
    /* a layer of so many tokens: on the CPU, on the stream device when all that it can wait for has
     * come, and of that what comes before the routing of shared experts is known */
    double cpu[TS_STREAM_RATES], gpu[TS_STREAM_RATES], lead[TS_STREAM_RATES];
    double unit; /* in which a layer's weights come       */
    /* Shared experts: one comes; one with tokens takes the CPU, and each of its tokens besides. */
    double come, expert, pair;
    int64_t alone; /* so many of those that a token alone has chosen are the stream device's */
} ts_stream_rates;

/* Seconds of a batch of m tokens in the layers that can be streamed if the CPU keeps `keep` of
 * them, as predicted. */
double ts_stream_seconds(const ts_stream *t, const ts_stream_rates *r, int64_t m, int64_t keep);

/* How many layers the CPU keeps of a batch of m tokens; -1: nothing is streamed. */
int64_t ts_stream_keep(const ts_stream *t, const ts_stream_rates *r, int64_t m);

/* How many of a layer's experts come ahead of their routing in a batch of m tokens. */
int64_t ts_stream_ahead(const ts_stream *t, const ts_stream_rates *r, int64_t m, int64_t n_expert);

/* Which experts the stream device computes, count[x] being the tokens of expert x: list, which has
 * room for n_expert and has the n_ahead that come in any case, gets the others, and how many they
 * are together is returned. */
int64_t ts_stream_share(const ts_stream_rates *r, const int32_t *count, int64_t n_expert,
                        int32_t *list, int64_t n_ahead);

/* Rows of w that are streamed: of a stack, those of all matrices one after the other, for which
 * their packed rows have to lie like those of one matrix. */
static inline int64_t ts_stream_all_rows(const ts_weight *w)
{
    return w->e * w->n;
}

/* Rows of w in a piece of the stream, a multiple of what its kernel set packs together. */
int64_t ts_stream_rows(const ts_stream *t, const ts_weight *w);
/* The same of experts: matrices. */
int64_t ts_stream_matrices(const ts_stream *t, const ts_weight *w);
/* Room for all that is unpacked of a stack. */
static inline size_t ts_stream_stack(const ts_weight *w)
{
    return (ts_weight_source(w) + 255) / 256 * 256;
}
/* Bytes of so many rows as they come: packed, or as the file has them. */
size_t ts_stream_bytes(const ts_weight *w, int64_t n);

/* K and V of a device's layers in the layout of the CPU's attention. */
size_t ts_plan_cpu_kv(const ts_plan *p, int device, const ts_model *m);
/* What the CPU's code needs beside buffers; writes `scratch` and `parts`. */
size_t ts_plan_cpu_work(ts_plan *p, int device, const ts_model *m);

/* Bytes of one buffer of a session on a device that has it: what each thread has of its own, for
 * all. */
size_t ts_plan_buffer_bytes(const ts_plan *p, int device, ts_buf buf);

/* The plan for people and for programs, with the speeds it predicts from what this machine was
 * measured to do (NULL: no prediction). */
void ts_plan_text(const ts_plan *p, const ts_model *m, const ts_probe *r, ts_sb *out);
void ts_plan_json(const ts_plan *p, const ts_model *m, const ts_probe *r, ts_sb *out);

#endif

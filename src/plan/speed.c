/* speed.c - see speed.h. Every constant that a prediction has is here. */
#include "plan/speed.h"

/* The CPU: what real models reach of the measured limits (docs/BENCHMARKS.md). One token streams
 * its weights at this share of the read bandwidth, a micro-batch computes at this share of the
 * peak. Exact activations are two int8 products each. */
#define DECODE_SHARE    0.74
#define EXPERTS_SHARE   0.52 /* the same of experts' weights: the threads meet more often */
#define EXACT_SHARE     0.25
#define INT8_SHARE      0.46
#define FMA_SHARE       0.70
#define TILE_SHARE      0.27
#define TILE_INT8_SHARE 0.23
#define DECODING        30.0 /* tokens whose products take as long as decoding an expert's weights */

/* GPUs, measured on an H100: the share of its 3.35 TB/s at which one token streams its weights; the
 * share of its BF16 peak at which a micro-batch computes; how long a segment waits for its first
 * kernel, and a copy of nothing takes. */
#define GPU_DECODE_SHARE  0.55
#define GPU_PREFILL_SHARE 0.31
#define GPU_EXPERTS_SHARE 0.10 /* the same of experts' products */
#define SHARED_PART       0.50 /* of an equal share's time: the CPU has the experts with few tokens */
#define UNPACK_SHARE      0.75 /* of its memory's speed, at which streamed weights are unpacked */
#define FETCH_SHARE       0.75 /* of the link's speed, at which a kernel reads the CPU's memory */
#define GPU_LAUNCH        6e-6
#define GPU_EXPERTS       6e-6 /* a step of experts takes more than its bytes do: they are small */
#define COPY_LATENCY      10e-6
#define COPY_RATE         30e9 /* a kernel reads or writes pinned memory */

/* A GPU of which nothing is known; of one whose bandwidth alone is: operations of BF16 a byte, of
 * which an RTX 3090 has 76, an A100 156, an H100 295. */
#define GPU_READ  500e9
#define GPU_LINK  12e9
#define GPU_FLOPS 150.0

double ts_speed_read(const ts_plan_device *d)
{
    return d->read > 0 ? d->read : GPU_READ;
}

double ts_speed_link(const ts_plan_device *d)
{
    return d->link > 0 ? d->link : GPU_LINK;
}

double ts_speed_flops(const ts_plan_device *d)
{
    return d->flops > 0 ? d->flops : ts_speed_read(d) * GPU_FLOPS;
}

/* Operations a second of the products of so many tokens with this weight on the CPU. */
static double cpu_rate(const ts_plan *p, const ts_weight *w, const ts_probe *r, int64_t tokens)
{
    const double each = (double)(tokens * w->used) / (double)w->e; /* of an expert */
    if (!w->experts && ts_kset_on_int8_tiles(w->kset, p->int8_prefill, tokens))
        return r->tile_int8 * TILE_INT8_SHARE;
    if (ts_kset_on_tiles(w->kset, p->int8_prefill, tokens))
        return r->tile_bf16 * TILE_SHARE * (w->experts ? each / (each + DECODING) : 1);
    if (w->kset->prep->act == TS_ACT_F32)
        return r->fma * FMA_SHARE;
    return r->int8 * (p->int8_prefill ? INT8_SHARE : EXACT_SHARE);
}

static double gpu_rate(const ts_plan_device *d, const ts_weight *w)
{
    return ts_speed_flops(d) * (w->experts ? GPU_EXPERTS_SHARE : GPU_PREFILL_SHARE);
}

/* Bytes of a weight that so many tokens read together: of experts those that are chosen. */
static double bytes_read(const ts_weight *w, int64_t tokens)
{
    const double pairs = (double)(tokens * w->used), all = (double)w->e;
    return (double)w->bytes * (pairs < all ? pairs / all : 1);
}

/* Seconds of these products, in which each weight is read once. */
static double cpu_products(const ts_plan *p, const ts_weight *w, const ts_probe *r, int64_t tokens)
{
    const double flops = 2.0 * (double)(tokens * w->used) * (double)w->n * (double)w->k;
    const double compute = flops / cpu_rate(p, w, r, tokens);
    const double read =
        bytes_read(w, tokens) / (r->read * (w->experts ? EXPERTS_SHARE : DECODE_SHARE));
    return compute > read ? compute : read;
}

static double gpu_products(const ts_plan_device *d, const ts_weight *w, int64_t tokens)
{
    const double flops = 2.0 * (double)(tokens * w->used) * (double)w->n * (double)w->k;
    const double compute = flops / gpu_rate(d, w);
    const double read = bytes_read(w, tokens) / (ts_speed_read(d) * GPU_DECODE_SHARE);
    return compute > read ? compute : read;
}

size_t ts_speed_copy_bytes(const ts_step *copy)
{
    return (size_t)copy->d * sizeof(float);
}

static bool of_experts(ts_op op)
{
    return op == TS_OP_ROUTE || op == TS_OP_GATHER || op == TS_OP_EXPERTS || op == TS_OP_COMBINE;
}

/* Seconds of what isn't bytes of weights in one walk over the steps, with so many rows of each
 * domain: copies, the beginnings of segments, small kernels. */
static double between(const ts_plan *p, double all_rows, double out_rows)
{
    double seconds = 0;
    for (size_t i = 0, end; i < p->steps.n_main; i = end) {
        const ts_step *st = &p->steps.v[i];
        end = ts_steps_segment(&p->steps, i);
        if (st->op != TS_OP_COPY) {
            seconds += st->device ? GPU_LAUNCH : 0;
            for (size_t j = i; j < end && st->device; j++)
                seconds += of_experts(p->steps.v[j].op) ? GPU_EXPERTS : 0;
            continue;
        }
        const double rows = st->domain == TS_ALL_ROWS ? all_rows : out_rows;
        const ts_plan_device *d = &p->dev[st->device ? st->device : st->from];
        const double rate = ts_speed_link(d) < COPY_RATE ? ts_speed_link(d) : COPY_RATE;
        seconds += COPY_LATENCY + rows * (double)ts_speed_copy_bytes(st) / rate;
    }
    return seconds;
}

/* Seconds that a token's experts take less than on the CPU alone where an accelerator has some. */
static double shared(const ts_plan *p, double read)
{
    const int64_t used = p->moe.n_used;
    const double one = (double)p->stream.n_layers * (double)p->stream.expert_bytes;
    const double cpu = one / (read * EXPERTS_SHARE);
    const double gpu = one / (ts_speed_link(&p->dev[p->stream.device]) * FETCH_SHARE);
    double least = (double)used * cpu;
    for (int64_t n = 1; n <= used / 2; n++) {
        const double here = (double)(used - n) * cpu, there = (double)n * gpu;
        const double longer = here > there ? here : there;
        least = longer < least ? longer : least;
    }
    return (double)used * cpu - least;
}

double ts_speed_decode(const ts_plan *p, double read)
{
    double seconds = between(p, 1, 1) - (p->stream.alone && !p->step_by_step ? shared(p, read) : 0);
    for (int i = 0; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        const double dense = (double)(d->step_weights - d->step_experts);
        seconds +=
            i ? (double)d->step_weights / (ts_speed_read(d) * GPU_DECODE_SHARE)
              : dense / (read * DECODE_SHARE) + (double)d->step_experts / (read * EXPERTS_SHARE);
    }
    return seconds;
}

/* What streaming should cost, with layers of m tokens that are all like the mean one. */
static ts_stream_rates stream_rates(const ts_plan *p, const ts_model *m, const ts_probe *r,
                                    int64_t tokens)
{
    const ts_plan_device *d = &p->dev[p->stream.device];
    ts_stream_rates out = {.known = p->stream.device != 0};
    if (!p->stream.device)
        return out;
    double cpu = 0, gpu = 0, experts = 0, bytes = 0; /* of all layers; experts: the CPU's part */
    for (int64_t l = 0; l < m->hp.n_layer; l++) {
        ts_weight *w[TS_LAYER_WEIGHTS];
        const int n = m->layers[l].streamed ? ts_layer_weights(&m->layers[l], w) : 0;
        for (int i = 0; i < n; i++) {
            const double flops =
                2.0 * (double)(tokens * w[i]->used) * (double)w[i]->n * (double)w[i]->k;
            if (w[i]->device != 0)
                continue;
            const double here = cpu_products(p, w[i], r, tokens);
            cpu += here;
            gpu += flops / gpu_rate(d, w[i]);
            experts += w[i]->experts ? here : 0;
            bytes += w[i]->experts ? (double)w[i]->bytes : 0;
        }
    }
    const double layers = (double)p->stream.n_layers;
    gpu += 4 * layers * (double)p->stream.bytes / (ts_speed_read(d) * UNPACK_SHARE);
    if (p->stream.shares && experts > 0) { /* both sides are done at once */
        const double come = bytes / ts_speed_link(d);
        const double rest = layers * (double)p->stream.bytes / ts_speed_link(d) - come;
        gpu = (gpu > rest ? gpu : rest) + SHARED_PART * come * experts / (come + experts);
    }
    for (int i = 0; i < TS_STREAM_RATES; i++) {
        out.m[i] = tokens;
        out.cpu[i] = cpu / layers;
        out.gpu[i] = gpu / layers;
    }
    out.unit = (double)p->stream.bytes / ts_speed_link(d);
    return out;
}

/* Seconds of a prefill of TS_SPEED_TOKENS tokens, of which only the last wants logits. */
static double prefill(const ts_plan *p, const ts_model *m, const ts_probe *cpu)
{
    const int64_t n = TS_SPEED_TOKENS, batches = (n + p->n_ubatch - 1) / p->n_ubatch;
    const double rows = (double)n / (double)batches;
    const int64_t size = n / batches;
    double seconds = (double)batches * between(p, rows, 1 / (double)batches), streamed = 0;
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        if (!w->kset)
            continue;
        if (w == m->output) { /* for the last token only: read, as in decode */
            seconds +=
                (double)w->bytes / (w->device ? ts_speed_read(&p->dev[w->device]) * GPU_DECODE_SHARE
                                              : cpu->read * DECODE_SHARE);
            continue;
        }
        seconds += (double)batches * (w->device ? gpu_products(&p->dev[w->device], w, size)
                                                : cpu_products(p, w, cpu, size));
    }
    const ts_stream_rates rates = stream_rates(p, m, cpu, size);
    const int64_t keep = ts_stream_keep(&p->stream, &rates, size);
    if (keep >= 0) { /* instead of these layers on the CPU */
        streamed = ts_stream_seconds(&p->stream, &rates, size, keep);
        seconds += (double)batches * (streamed - (double)p->stream.n_layers * rates.cpu[0]);
    }
    return seconds;
}

/* Decode is bound by reading every weight once a token, prefill by computing. Attention is small
 * beside both at the lengths predicted for. The oracle's speed isn't worth a prediction. */
ts_speed ts_speed_predict(const ts_plan *p, const ts_model *m, const ts_probe *cpu)
{
    if (!cpu || (p->isa == TS_ISA_REF && p->dev[0].step_weights))
        return (ts_speed){0};
    return (ts_speed){.prefill_tps = TS_SPEED_TOKENS / prefill(p, m, cpu),
                      .decode_tps = 1 / ts_speed_decode(p, cpu->read)};
}

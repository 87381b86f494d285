/* print.c - the plan as text and as JSON. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/ops.h"
#include "plan/plan.h"

/* What real models reach of the measured limits (docs/BENCHMARKS.md): one token streams its weights
 * at this share of the read bandwidth, a micro-batch computes at this share of the peak. Exact
 * activations are two int8 products each. */
#define DECODE_SHARE    0.67
#define EXACT_SHARE     0.25
#define INT8_SHARE      0.46
#define FMA_SHARE       0.70
#define TILE_SHARE      0.27
#define TILE_INT8_SHARE 0.23
#define PREFILL_TOKENS  512

typedef struct speeds {
    double prefill_tps, decode_tps; /* 0: not predicted */
} speeds;

/* Operations a second of a micro-batch's products with this weight. */
static double prefill_rate(const ts_plan *p, const ts_weight *w, const ts_probe *r)
{
    if (ts_kset_on_int8_tiles(w->kset, p->int8_prefill, PREFILL_TOKENS))
        return r->tile_int8 * TILE_INT8_SHARE;
    if (ts_kset_on_tiles(w->kset, p->int8_prefill, PREFILL_TOKENS))
        return r->tile_bf16 * TILE_SHARE;
    if (w->kset->prep->act == TS_ACT_F32)
        return r->fma * FMA_SHARE;
    return r->int8 * (p->int8_prefill ? INT8_SHARE : EXACT_SHARE);
}

/* Decode is bound by reading every weight once a token, prefill by computing. Attention is small
 * beside both at the lengths predicted for. The oracle's speed isn't worth a prediction. */
static speeds predict(const ts_plan *p, const ts_model *m, const ts_probe *r)
{
    speeds s = {0};
    if (!r || p->isa == TS_ISA_REF || p->n_devices > 1)
        return s;
    double seconds = 0; /* of computing one token among many */
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        if (!w->kset)
            continue;
        double flops = 2.0 * (double)w->n * (double)w->k;
        if (w == m->output) /* for the last token only */
            flops /= PREFILL_TOKENS;
        seconds += flops / prefill_rate(p, w, r);
    }
    s.prefill_tps = 1 / seconds;
    s.decode_tps = r->read * DECODE_SHARE / (double)p->dev[0].step_weights;
    return s;
}

static const char *kset_name(const ts_plan *p, const ts_weight *w)
{
    if (w->device)
        return p->dev[w->device].kind->name;
    return w->kset ? ts_isa_name(w->kset->isa) : "lookup";
}

static const char *layout_name(const ts_weight *w)
{
    return w->device == 0 && w->kset && w->kset->packed_bytes ? w->kset->layout : "source";
}

static const char *kv_type(const ts_plan *p)
{
    return ts_type_get(ts_ops_get(p->isa)->kv->type)->name;
}

static double mib(size_t n)
{
    return (double)n / (1 << 20);
}

void ts_plan_text(const ts_plan *p, const ts_model *m, const ts_probe *r, ts_sb *out)
{
    char desc[96];
    ts_model_describe(m, desc, sizeof desc);
    ts_sb_printf(out, "%s, %d threads, kernel sets up to %s\n\n", desc, p->n_threads,
                 ts_isa_name(p->isa));
    ts_sb_printf(out, "%-28s %-6s %15s %-6s %-6s %-10s %10s  %s\n", "weight", "type", "shape",
                 "device", "kernel", "layout", "MiB", "reason");
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        char shape[48];
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)w->n, (long long)w->k);
        ts_sb_printf(out, "%-28s %-6s %15s %-6s %-6s %-10s %10.2f  %s\n", w->source->name,
                     ts_type_get(w->source->type)->name, shape, p->dev[w->device].name,
                     kset_name(p, w), layout_name(w), mib(w->bytes), w->reason);
    }
    ts_sb_printf(out, "\n%-34s %12s\n", "memory", "MiB");
    ts_sb_printf(out, "%-34s %12.2f\n", "packed weights", mib(p->dev[0].packed));
    ts_sb_printf(out, "%-34s %12.2f\n", "read in the mapped file", mib(p->dev[0].source));
    ts_sb_printf(out, "KV cache, %-7lld positions, %-4s    %12.2f\n", (long long)p->n_ctx,
                 kv_type(p), mib(p->dev[0].kv));
    for (size_t i = 0; i < p->steps.n_bufs; i++) {
        char name[64];
        const ts_buffer *b = &p->steps.bufs[i];
        if (!(b->devices & 1))
            continue;
        snprintf(name, sizeof name, "buffer %s%s%s", b->name,
                 b->domain == TS_OUT_ROWS ? ", wanted rows" : "", b->prep ? ", prepared" : "");
        ts_sb_printf(out, "%-34s %12.2f\n", name, mib(ts_plan_buffer_bytes(p, (ts_buf)i)));
    }
    ts_sb_printf(out, "%-34s %12.2f\n", "all buffers and scratch", mib(p->dev[0].buffers));
    for (int i = 1; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        ts_sb_printf(out, "\n%-34s %12s\n", d->name, "MiB");
        ts_sb_printf(out, "%-34s %12.2f\n", "weights", mib(d->packed));
        ts_sb_printf(out, "KV cache, %-7lld layers             %12.2f\n", (long long)d->n_layers,
                     mib(d->kv));
        ts_sb_printf(out, "%-34s %12.2f\n", "buffers and work", mib(d->buffers));
    }
    size_t barriers = 0, copies = 0;
    for (size_t i = 0; i < p->steps.n; i++) {
        barriers += p->steps.v[i].barrier;
        copies += p->steps.v[i].op == TS_OP_COPY;
    }
    ts_sb_printf(out, "\n%zu steps, %zu barriers, %zu copies between devices, micro-batch %lld\n",
                 p->steps.n, barriers, copies, (long long)p->n_ubatch);
    speeds s = predict(p, m, r);
    if (s.decode_tps > 0)
        ts_sb_printf(
            out,
            "predicted: prefill of %d tokens %.1f tok/s, decode %.1f tok/s (%.1f MiB a token; "
            "measured here: %.1f GB/s read, %.0f GOP/s int8, %.0f GFLOP/s float",
            PREFILL_TOKENS, s.prefill_tps, s.decode_tps, mib(p->dev[0].step_weights), r->read / 1e9,
            r->int8 / 1e9, r->fma / 1e9);
    else
        ts_sb_printf(out, "predicted: nothing for %s\n",
                     p->n_devices > 1 ? "a model that is split over devices"
                                      : "the ref kernel sets, which are there to be right");
    if (s.decode_tps > 0 && r->tile_bf16 > 0)
        ts_sb_printf(out, ", %.0f GFLOP/s bf16 on tiles", r->tile_bf16 / 1e9);
    if (s.decode_tps > 0)
        ts_sb_str(out, ")\n");
}

void ts_plan_json(const ts_plan *p, const ts_model *m, const ts_probe *r, ts_sb *out)
{
    ts_sb_str(out, "{\"weights\":[");
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        ts_sb_str(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        ts_sb_json_str(out, w->source->name, strlen(w->source->name));
        ts_sb_printf(
            out,
            ",\"type\":\"%s\",\"shape\":[%lld,%lld],\"device\":\"%s\",\"kernel_set\":\"%s\","
            "\"layout\":\"%s\",\"bytes\":%zu,\"reason\":",
            ts_type_get(w->source->type)->name, (long long)w->n, (long long)w->k,
            p->dev[w->device].name, kset_name(p, w), layout_name(w), w->bytes);
        ts_sb_json_str(out, w->reason, strlen(w->reason));
        ts_sb_str(out, "}");
    }
    ts_sb_printf(out,
                 "],\n\"buffers\":{\"packed_bytes\":%zu,\"source_bytes\":%zu,\"session_bytes\":%zu,"
                 "\"list\":[",
                 p->dev[0].packed, p->dev[0].source, p->dev[0].buffers);
    for (size_t i = 0; i < p->steps.n_bufs; i++) {
        const ts_buffer *b = &p->steps.bufs[i];
        ts_sb_printf(out, "%s\n{\"name\":\"%s\",\"rows\":\"%s\",\"prepared\":%s,\"bytes\":%zu}",
                     i ? "," : "", b->name, b->domain == TS_OUT_ROWS ? "wanted" : "all",
                     b->prep ? "true" : "false", ts_plan_buffer_bytes(p, (ts_buf)i));
    }
    ts_sb_str(out, "]},\n\"devices\":[");
    for (int i = 0; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        ts_sb_printf(out,
                     "%s\n{\"name\":\"%s\",\"layers\":%lld,\"weight_bytes\":%zu,\"kv_bytes\":%zu,"
                     "\"buffer_bytes\":%zu}",
                     i ? "," : "", d->name, (long long)d->n_layers, d->packed, d->kv, d->buffers);
    }
    speeds s = predict(p, m, r);
    ts_sb_printf(out,
                 "],\n\"kv\":{\"type\":\"%s\",\"n_ctx\":%lld,\"bytes\":%zu},\n\"n_threads\":%d,"
                 "\"n_ubatch\":%lld,\"isa\":\"%s\",\"steps\":%zu,\n"
                 "\"predicted\":{\"prefill_tps\":%.2f,\"decode_tps\":%.2f},\n\"measured\":"
                 "{\"read_gbs\":%.2f,\"int8_gops\":%.1f,\"fma_gflops\":%.1f,"
                 "\"tile_int8_gops\":%.1f,\"tile_bf16_gflops\":%.1f}}\n",
                 kv_type(p), (long long)p->n_ctx, p->dev[0].kv, p->n_threads,
                 (long long)p->n_ubatch, ts_isa_name(p->isa), p->steps.n, s.prefill_tps,
                 s.decode_tps, r ? r->read / 1e9 : 0, r ? r->int8 / 1e9 : 0, r ? r->fma / 1e9 : 0,
                 r ? r->tile_int8 / 1e9 : 0, r ? r->tile_bf16 / 1e9 : 0);
}

/* print.c - the plan as text and as JSON. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/ops.h"
#include "plan/speed.h"

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

/* --- steps: segments and copies ----------------------------------------------- */

/* One segment, or one copy. */
typedef struct segment {
    size_t first, end;
    const ts_step *st; /* the first */
    int lo, hi;        /* of the blocks that its steps belong to; -1: none */
    size_t bytes;      /* of weights it reads, or that it copies, for one token */
} segment;

static segment segment_at(const ts_plan *p, size_t first)
{
    segment g = {.first = first,
                 .end = ts_steps_segment(&p->steps, first),
                 .st = &p->steps.v[first],
                 .lo = -1,
                 .hi = -1};
    if (g.st->op == TS_OP_COPY)
        g.bytes = ts_speed_copy_bytes(g.st);
    for (size_t i = first; i < g.end; i++) {
        const ts_step *st = &p->steps.v[i];
        if (st->layer >= 0)
            g.hi = st->layer;
        if (g.lo < 0)
            g.lo = st->layer;
        if (st->op == TS_OP_MATMUL || st->op == TS_OP_GLU || st->op == TS_OP_EXPERTS ||
            st->op == TS_OP_HEADS)
            g.bytes += ts_weight_step(st->w) + (st->w2 ? ts_weight_step(st->w2) : 0);
    }
    return g;
}

/* Where a copy comes from, and where it goes to. */
static const char *copy_from(const ts_plan *p, const ts_step *copy)
{
    return p->dev[copy->from].name;
}

/* "blocks 3 to 7", "block 3", or what is before or behind them. */
static const char *blocks(const segment *g, char buf[48])
{
    snprintf(buf, 48, "%s", g->first ? "output" : "embedding");
    if (g->lo >= 0 && g->hi > g->lo)
        snprintf(buf, 48, "blocks %d to %d", g->lo, g->hi);
    else if (g->lo >= 0)
        snprintf(buf, 48, "block %d", g->lo);
    return buf;
}

static void text_steps(const ts_plan *p, ts_sb *out)
{
    size_t barriers = 0, copies = 0, bytes = 0;
    for (size_t i = 0; i < p->steps.n_main; i++) {
        barriers += p->steps.v[i].barrier;
        copies += p->steps.v[i].op == TS_OP_COPY;
    }
    if (p->n_devices > 1)
        ts_sb_printf(out, "\n%-12s %-8s %12s  %s\n", "steps", "device", "KiB a token", "what");
    for (size_t i = 0, end; i < p->steps.n_main && p->n_devices > 1; i = end) {
        const segment g = segment_at(p, i);
        char range[48], what[48];
        end = g.end;
        snprintf(range, sizeof range, end > i + 1 ? "%zu-%zu" : "%zu", i, end - 1);
        ts_sb_printf(out, "%-12s %-8s %12.2f  ", range, p->dev[g.st->device].name,
                     (double)g.bytes / 1024);
        if (g.st->op == TS_OP_COPY) {
            ts_sb_printf(out, "copy of %s from %s\n", p->steps.bufs[g.st->dst].name,
                         copy_from(p, g.st));
            bytes += g.bytes;
        } else {
            ts_sb_printf(out, "%s\n", blocks(&g, what));
        }
    }
    ts_sb_printf(out, "\n%zu steps, %zu barriers, %zu copies between devices", p->steps.n_main,
                 barriers, copies);
    if (copies)
        ts_sb_printf(out, " of %.2f KiB a token", (double)bytes / 1024);
    ts_sb_printf(out, ", micro-batch %lld\n", (long long)p->n_ubatch);
}

/* What the prediction is made of. */
static void text_speed(const ts_plan *p, ts_speed s, const ts_probe *r, ts_sb *out)
{
    if (!(s.decode_tps > 0)) {
        ts_sb_str(out, "predicted: nothing for the ref kernel sets, which are there to be right\n");
        return;
    }
    ts_sb_printf(out,
                 "predicted: prefill of %d tokens %.1f tok/s, decode %.1f tok/s (%.1f MiB a token; "
                 "measured here: %.1f GB/s read, %.0f GOP/s int8, %.0f GFLOP/s float",
                 TS_SPEED_TOKENS, s.prefill_tps, s.decode_tps, mib(p->dev[0].step_weights),
                 r->read / 1e9, r->int8 / 1e9, r->fma / 1e9);
    if (r->tile_bf16 > 0)
        ts_sb_printf(out, ", %.0f GFLOP/s bf16 on tiles", r->tile_bf16 / 1e9);
    for (int i = 1; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        if (d->used)
            ts_sb_printf(out, "; %s: %.1f MiB a token, %.0f GB/s read, %.1f GB/s link, %.0f TFLOPS",
                         d->name, mib(d->step_weights), ts_speed_read(d) / 1e9,
                         ts_speed_link(d) / 1e9, ts_speed_flops(d) / 1e12);
    }
    ts_sb_str(out, ")\n");
}

static void text_stream(const ts_plan *p, ts_sb *out)
{
    const ts_stream *t = &p->stream;
    if (!t->device)
        return;
    ts_sb_printf(
        out, "\n%lld layers can be streamed to %s, %.2f MiB each, up to %.2f under way%s\n",
        (long long)t->n_layers, p->dev[t->device].name, mib(t->bytes),
        mib((size_t)t->pieces * t->piece), t->all_kv ? "" : "; K and V of one layer at a time");
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
        const int at = w->e > 1 ? snprintf(shape, sizeof shape, "%lld x ", (long long)w->e) : 0;
        snprintf(shape + at, sizeof shape - (size_t)at, "%lld x %lld", (long long)w->n,
                 (long long)w->k);
        ts_sb_printf(out, "%-28s %-6s %15s %-6s %-6s %-10s %10.2f  %s\n", ts_weight_name(w),
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
        ts_sb_printf(out, "%-34s %12.2f\n", name, mib(ts_plan_buffer_bytes(p, 0, (ts_buf)i)));
    }
    ts_sb_printf(out, "%-34s %12.2f\n", "all buffers and scratch", mib(p->dev[0].buffers));
    for (int i = 1; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        if (!d->used) {
            ts_sb_printf(out, "\n%-34s %12s\n", d->name, "not used");
            continue;
        }
        ts_sb_printf(out, "\n%-34s %12s\n", d->name, "MiB");
        ts_sb_printf(out, "%-34s %12.2f\n", "weights", mib(d->packed));
        ts_sb_printf(out, "KV cache, %-7lld layers             %12.2f\n",
                     (long long)ts_plan_kv_layers(p, i), mib(d->kv));
        ts_sb_printf(out, "%-34s %12.2f\n", "buffers and work", mib(d->buffers));
        if (p->stream.device == i)
            ts_sb_printf(out, "%-34s %12.2f\n", "streamed weights, under way", mib(d->stream));
        ts_sb_printf(out, "%-34s %12.2f\n", "may be taken", mib(d->memory));
    }
    text_steps(p, out);
    text_stream(p, out);
    text_speed(p, ts_speed_predict(p, m, r), r, out);
}

/* Segments and copies in order. */
static void json_segments(const ts_plan *p, ts_sb *out)
{
    for (size_t i = 0, end; i < p->steps.n_main; i = end) {
        const segment g = segment_at(p, i);
        end = g.end;
        ts_sb_printf(out, "%s\n{\"device\":\"%s\",\"first\":%zu,\"steps\":%zu,", i ? "," : "",
                     p->dev[g.st->device].name, i, end - i);
        if (g.st->op == TS_OP_COPY)
            ts_sb_printf(out, "\"copy\":\"%s\",\"from\":\"%s\",\"bytes\":%zu}",
                         p->steps.bufs[g.st->dst].name, copy_from(p, g.st), g.bytes);
        else
            ts_sb_printf(out, "\"copy\":null,\"from\":null,\"bytes\":%zu}", g.bytes);
    }
}

void ts_plan_json(const ts_plan *p, const ts_model *m, const ts_probe *r, ts_sb *out)
{
    ts_sb_str(out, "{\"weights\":[");
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        ts_sb_str(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        ts_sb_json_str(out, ts_weight_name(w), strlen(ts_weight_name(w)));
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
    size_t kv = 0, listed = 0;
    for (int i = 0; i < p->n_devices; i++)
        kv += p->dev[i].kv;
    for (size_t i = 0; i < p->steps.n_bufs; i++) {
        const ts_buffer *b = &p->steps.bufs[i];
        if (!(b->devices & 1))
            continue;
        ts_sb_printf(out, "%s\n{\"name\":\"%s\",\"rows\":\"%s\",\"prepared\":%s,\"bytes\":%zu}",
                     listed++ ? "," : "", b->name, b->domain == TS_OUT_ROWS ? "wanted" : "all",
                     b->prep ? "true" : "false", ts_plan_buffer_bytes(p, 0, (ts_buf)i));
    }
    ts_sb_str(out, "]},\n\"devices\":[");
    for (int i = 0; i < p->n_devices; i++) {
        const ts_plan_device *d = &p->dev[i];
        ts_sb_printf(out,
                     "%s\n{\"name\":\"%s\",\"blocks\":%lld,\"layers\":%lld,\"weight_bytes\":%zu,"
                     "\"kv_bytes\":%zu,\"buffer_bytes\":%zu,\"stream_bytes\":%zu,"
                     "\"step_bytes\":%zu",
                     i ? "," : "", d->name, (long long)d->n_blocks, (long long)d->n_layers,
                     d->packed, d->kv, d->buffers, d->stream, d->step_weights);
        if (i)
            ts_sb_printf(out,
                         ",\"room_bytes\":%zu,\"read_gbs\":%.2f,\"link_gbs\":%.2f,"
                         "\"tflops\":%.2f",
                         d->memory, ts_speed_read(d) / 1e9, ts_speed_link(d) / 1e9,
                         ts_speed_flops(d) / 1e12);
        ts_sb_str(out, "}");
    }
    ts_sb_str(out, "],\n\"segments\":[");
    json_segments(p, out);
    const ts_stream *t = &p->stream;
    ts_speed s = ts_speed_predict(p, m, r);
    ts_sb_printf(out,
                 "],\n\"streamed\":{\"device\":%s%s%s,\"layers\":%lld,\"layer_bytes\":%zu,"
                 "\"under_way_bytes\":%zu},\n\"n_gpu_layers\":%lld,\n\"kv\":{\"type\":\"%s\",\"n_"
                 "ctx\":%lld,\"bytes\":%zu}"
                 ",\n\"n_threads\":%d,"
                 "\"n_ubatch\":%lld,\"isa\":\"%s\",\"steps\":%zu,\n"
                 "\"predicted\":{\"prefill_tps\":%.2f,\"decode_tps\":%.2f},\n\"measured\":"
                 "{\"read_gbs\":%.2f,\"int8_gops\":%.1f,\"fma_gflops\":%.1f,"
                 "\"tile_int8_gops\":%.1f,\"tile_bf16_gflops\":%.1f}}\n",
                 t->device ? "\"" : "", t->device ? p->dev[t->device].name : "null",
                 t->device ? "\"" : "", (long long)t->n_layers, t->bytes,
                 (size_t)t->pieces * t->piece, (long long)p->n_gpu_layers, kv_type(p),
                 (long long)p->n_ctx, kv, p->n_threads, (long long)p->n_ubatch, ts_isa_name(p->isa),
                 p->steps.n_main, s.prefill_tps, s.decode_tps, r ? r->read / 1e9 : 0,
                 r ? r->int8 / 1e9 : 0, r ? r->fma / 1e9 : 0, r ? r->tile_int8 / 1e9 : 0,
                 r ? r->tile_bf16 / 1e9 : 0);
}

/* stream.c - which weights of the CPU's layers an accelerator can have for a micro-batch, and the
 * list of steps that uses them there. */
#include "base/mem.h"
#include "plan/plan.h"

#define ALIGN 256 /* of weights on accelerators */

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* Layers of other accelerators stay as they are. */
static bool may_stream(const ts_plan *p, const ts_layer *l, const ts_accel_kind *kind)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    bool any = false;
    if (l->device != 0 && l->device != p->stream.device)
        return false;
    for (int i = 0; i < n; i++) {
        if (w[i]->device != 0)
            continue;
        if (!w[i]->kset || !kind->streams(w[i]->kset))
            return false;
        any = true;
    }
    return any;
}

bool ts_plan_streams(const ts_plan *p, const ts_model *m, int64_t layer, const ts_weight *w)
{
    return p->stream.device && layer >= 0 && w->device == 0 && w->kset &&
           (m->layers[layer].device == 0 || m->layers[layer].device == p->stream.device) &&
           may_stream(p, &m->layers[layer], p->dev[p->stream.device].kind);
}

/* What is changed for the second list, and changed back. */
typedef struct kept {
    ts_layer *layer;
    int device; /* of the layer */
    int n;
    ts_weight *w[TS_LAYER_WEIGHTS];
    const ts_kset *kset[TS_LAYER_WEIGHTS];
} kept;

/* The layer and its weights on the CPU go to the stream device. */
static kept take(ts_plan *p, ts_layer *l)
{
    const ts_accel_kind *kind = p->dev[p->stream.device].kind;
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    kept k = {.layer = l, .device = l->device};
    size_t slot = 0, source = 0;
    for (int i = 0; i < n; i++) {
        if (w[i]->device != 0)
            continue;
        k.w[k.n] = w[i];
        k.kset[k.n++] = w[i]->kset;
        slot += aligned(w[i]->bytes);
        source += aligned(w[i]->source->size);
        w[i]->device = p->stream.device;
        w[i]->kset = kind->kset(w[i]->source->type);
    }
    if (l->device == 0)
        l->stream_index = p->dev[p->stream.device].n_streamed++;
    l->device = p->stream.device;
    p->stream.n_layers++;
    p->stream.slot = slot > p->stream.slot ? slot : p->stream.slot;
    p->stream.source = source > p->stream.source ? source : p->stream.source;
    return k;
}

static void give_back(const kept *k)
{
    k->layer->device = k->device;
    for (int i = 0; i < k->n; i++) {
        k->w[i]->device = 0;
        k->w[i]->kset = k->kset[i];
    }
}

ts_status ts_plan_stream(ts_plan *p, ts_model *m, ts_error *err)
{
    const int64_t n = m->hp.n_layer;
    for (int64_t i = 0; i < n; i++)
        m->layers[i].stream_index = -1;
    if (p->n_devices < 2 || !p->dev[1].kind->streams)
        return TS_OK;
    kept *k = ts_calloc((size_t)n, sizeof *k);
    if (!k)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    p->stream.device = 1;
    int64_t taken = 0;
    bool leading = true;
    for (int64_t i = 0; i < n; i++) {
        ts_layer *l = &m->layers[i];
        const bool takes = may_stream(p, l, p->dev[1].kind);
        leading = leading && takes && l->device == 0;
        p->stream.n_leading += leading;
        if (takes)
            k[taken++] = take(p, l);
    }
    ts_status s = taken ? ts_steps_stream(&p->steps, m, err) : TS_OK;
    for (int64_t i = 0; i < taken; i++)
        give_back(&k[i]);
    free(k);
    if (taken == 0)
        p->stream.device = 0;
    p->stream.slots = 2;
    return s;
}

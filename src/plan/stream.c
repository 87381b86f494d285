/* stream.c - which weights of the CPU's layers an accelerator can have for a micro-batch, and the
 * list of steps that uses them there. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/plan.h"

/* Bytes of a piece: of a fast link a tenth of a millisecond, many times what starting a copy takes.
 */
#define PIECE ((size_t)8 << 20)
/* Products are fastest of round numbers of rows. (A multiple of what any kernel set packs
 * together.) */
#define ROUND 256
/* A piece that is used, one that is being copied, and some to come. */
#define LEAST 4

size_t ts_stream_bytes(const ts_weight *w, int64_t n)
{
    if (w->kset->packed_bytes)
        return w->kset->packed_bytes(n, w->k);
    return w->source->size / (size_t)ts_stream_all_rows(w) * (size_t)n;
}

/* Do the packed rows of its matrices lie like those of one? */
static bool one_piece(const ts_weight *w)
{
    if (!w->experts)
        return w->e == 1;
    if (!w->kset->packed_bytes)
        return !w->parts;
    return w->n % w->kset->group == 0 &&
           ts_kset_stack_stride(w->kset, w->n, w->k) == w->kset->packed_bytes(w->n, w->k);
}

int64_t ts_stream_rows(const ts_stream *t, const ts_weight *w)
{
    const int64_t group = w->kset->group > 0 ? w->kset->group : 1;
    const int64_t rows = (int64_t)(t->piece / ts_stream_bytes(w, group)) * group;
    if (rows >= ts_stream_all_rows(w))
        return ts_stream_all_rows(w);
    return rows < group ? group : rows > ROUND ? rows - rows % ROUND : rows;
}

/* Do the rows end at the CPU or the stream device behind this layer? */
static bool near(const ts_plan *p, const ts_layer *l)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    for (int i = 0; i < n; i++)
        if (w[i]->device != 0 && w[i]->device != p->stream.device)
            return false;
    return true;
}

/* Layers of other accelerators stay as they are. */
static bool may_stream(const ts_plan *p, const ts_layer *l, const ts_accel_kind *kind)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    bool any = false;
    if (l->k_b || (l->device != 0 && l->device != p->stream.device))
        return false;
    for (int i = 0; i < n; i++) {
        if (w[i]->device != 0)
            continue;
        if (!w[i]->kset || !one_piece(w[i]) || !kind->streams(w[i]->kset))
            return false;
        any = true;
    }
    return any;
}

/* What is changed for the second list, and changed back. */
typedef struct kept {
    ts_layer *layer;
    int device, kv_device; /* of the layer */
    int n;
    ts_weight *w[TS_LAYER_WEIGHTS];
    const ts_kset *kset[TS_LAYER_WEIGHTS];
} kept;

/* The layer and its weights on the CPU go to the stream device. */
static kept take(ts_plan *p, ts_layer *l, size_t *most)
{
    const ts_accel_kind *kind = p->dev[p->stream.device].kind;
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    kept k = {.layer = l, .device = l->device, .kv_device = l->kv_device};
    for (int i = 0; i < n; i++) {
        if (w[i]->device != 0)
            continue;
        k.w[k.n] = w[i];
        k.kset[k.n++] = w[i]->kset;
        const int64_t rows = ts_stream_rows(&p->stream, w[i]);
        const size_t piece = ts_stream_bytes(w[i], rows);
        /* a product of experts wants all of them, and gate's and up's at once */
        size_t source = w[i]->source->size / (size_t)w[i]->n * (size_t)rows;
        if (w[i]->experts)
            source = (w[i] == l->down_exps ? 1 : 2) * ts_stream_stack(w[i]);
        p->stream.bytes += w[i]->bytes;
        *most = piece > *most ? piece : *most;
        p->stream.source = source > p->stream.source ? source : p->stream.source;
        w[i]->device = p->stream.device;
        w[i]->kset = kind->kset(w[i]->source->type);
    }
    l->streamed = true;
    if (l->device == 0)
        l->stream_index = p->stream.n_layers;
    l->device = l->kv_device = p->stream.device;
    p->stream.n_layers++;
    return k;
}

static void give_back(const kept *k)
{
    k->layer->device = k->device;
    k->layer->kv_device = k->kv_device;
    for (int i = 0; i < k->n; i++) {
        k->w[i]->device = 0;
        k->w[i]->kset = k->kset[i];
    }
}

ts_status ts_plan_stream(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err)
{
    const int64_t n = m->hp.n_layer;
    if (p->n_devices < 2 || !p->dev[1].kind->streams || split->kv_on_cpu)
        return TS_OK;
    kept *k = ts_calloc((size_t)n, sizeof *k);
    if (!k)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    p->stream.device = 1;
    p->stream.piece = split->stream_piece ? split->stream_piece : PIECE;
    int64_t taken = 0;
    size_t most = 0; /* bytes of a piece */
    bool leading = true;
    for (int64_t i = 0; i < n; i++) {
        ts_layer *l = &m->layers[i];
        const bool takes = may_stream(p, l, p->dev[1].kind);
        leading = leading && takes && near(p, l);
        p->stream.n_leading += leading;
        if (takes)
            k[taken++] = take(p, l, &most);
    }
    ts_status s = taken ? ts_steps_stream(&p->steps, m, err) : TS_OK;
    for (int64_t i = 0; i < taken; i++)
        give_back(&k[i]);
    free(k);
    if (taken == 0) {
        p->stream.device = 0;
        return s;
    }
    p->stream.bytes /= (size_t)taken;
    p->stream.piece = most;
    p->stream.pieces = LEAST;
    for (int64_t i = 0; i < n; i++) /* one place for all of them */
        if (m->layers[i].stream_index >= 0)
            p->dev[p->stream.device].n_streamed = 1;
    return s;
}

/* --- what to keep ----------------------------------------------------------- */

/* Fewer tokens than this are never streamed when streaming is on: a step of decode would be slower
 * by far. */
enum { LEAST_ON = 32 };

/* The CPU waits for the same memory that weights come from. */
#define CONTENTION 1.15

/* Between what was measured of two numbers of tokens, and beyond. */
static double at(const double seconds[2], const int64_t m[2], int64_t x)
{
    if (m[0] == m[1])
        return seconds[0] * (double)x / (double)m[0];
    const double slope = (seconds[1] - seconds[0]) / (double)(m[1] - m[0]);
    const double t = seconds[0] + (slope > 0 ? slope : 0) * (double)(x - m[0]);
    return t > 0 ? t : seconds[0];
}

double ts_stream_seconds(const ts_stream *t, const ts_stream_rates *r, int64_t m, int64_t keep)
{
    enum { RING = 256 };
    double begun[RING]; /* when a layer was used */
    /* layers on their way at once: the ring's, and the one that is used piece by piece */
    const size_t ring = (size_t)t->pieces * t->piece / (t->bytes ? t->bytes : 1);
    const int64_t slots = 1 + (int64_t)(ring < RING - 1 ? ring : RING - 1);
    const double gpu = at(r->gpu, r->m, m);
    double now = (double)keep * at(r->cpu, r->m, m), come = 0;
    if (keep < t->n_layers)
        now *= CONTENTION;
    for (int64_t i = 0; i < t->n_layers - keep; i++) {
        const double freed = i < slots ? 0 : begun[i % slots];
        come = (come > freed ? come : freed) + r->unit;
        const double begin = come > now ? come : now;
        begun[i % slots] = begin;
        now = begin + gpu;
    }
    return now;
}

int64_t ts_stream_keep(const ts_stream *t, const ts_stream_rates *r, int64_t m)
{
    if (!t->device || t->mode == TS_STREAM_OFF)
        return -1;
    if (t->mode == TS_STREAM_ON)
        return m >= LEAST_ON ? 0 : -1;
    if (!r->known || m < 2)
        return -1;
    int64_t best = -1;
    double least = (double)t->n_layers * at(r->cpu, r->m, m);
    for (int64_t keep = 0; keep <= t->n_leading && keep < t->n_layers; keep++) {
        const double s = ts_stream_seconds(t, r, m, keep);
        if (s < least) {
            least = s;
            best = keep;
        }
    }
    return best;
}

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
    if (w->e == 1 && !w->experts)
        return true;
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

int64_t ts_stream_matrices(const ts_stream *t, const ts_weight *w)
{
    const int64_t n = (int64_t)(t->piece / ts_stream_bytes(w, w->n));
    return n < 1 ? 1 : n > TS_STREAM_MATRICES ? TS_STREAM_MATRICES : n;
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

/* Of a layer's experts the stream device computes some and the CPU the others: all their stacks are
 * the CPU's, or none is. */
static bool may_share(const ts_plan *p, const ts_layer *l, const ts_accel_kind *kind)
{
    const ts_weight *w[] = {l->gate_exps, l->up_exps, l->down_exps};
    int here = 0;
    for (int i = 0; i < 3 && l->router; i++)
        here += w[i]->device == 0 && kind->experts && kind->experts(&p->moe, w[i]);
    return here == 3 || !l->router || (w[0]->device && w[1]->device && w[2]->device);
}

/* Layers of other accelerators stay as they are. */
static bool may_stream(const ts_plan *p, const ts_model *m, const ts_layer *l,
                       const ts_accel_kind *kind)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    bool any = false;
    if ((l->device != 0 && l->device != p->stream.device) || !may_share(p, l, kind) ||
        (l->k_b && !ts_attends_latent(kind, m, l)))
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

/* Is the layer the stream device's but for experts, which it shares and can read as the CPU has
 * packed them? */
static bool lacks_experts_alone(const ts_plan *p, const ts_layer *l, bool takes)
{
    ts_weight *w[TS_LAYER_WEIGHTS];
    const int n = ts_layer_weights(l, w);
    bool lacks = true;
    for (int i = 0; i < n; i++)
        lacks =
            lacks && (w[i]->device != 0 || (takes && w[i]->experts && w[i]->kset->packed_bytes));
    return lacks && l->device == p->stream.device && l->kv_device == p->stream.device;
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
    size_t stacks = 0;
    for (int i = 0; i < n; i++) {
        if (w[i]->device != 0)
            continue;
        k.w[k.n] = w[i];
        k.kset[k.n++] = w[i]->kset;
        const int64_t rows = w[i]->experts ? ts_stream_matrices(&p->stream, w[i]) * w[i]->n
                                           : ts_stream_rows(&p->stream, w[i]);
        const size_t piece = ts_stream_bytes(w[i], rows);
        const bool heads = w[i] == l->k_b || w[i] == l->v_b; /* whose product wants all */
        const size_t source =
            heads ? ts_stream_stack(w[i]) : w[i]->source->size / (size_t)w[i]->n * (size_t)rows;
        p->stream.bytes += w[i]->bytes;
        *most = piece > *most ? piece : *most;
        if (w[i]->experts) { /* all three are there at once */
            stacks += ts_stream_stack(w[i]);
            p->stream.expert_bytes = ts_stream_bytes(w[i], w[i]->n) +
                                     (w[i] == l->gate_exps ? 0 : p->stream.expert_bytes);
        } else if (source > p->stream.source) {
            p->stream.source = source;
        }
        w[i]->device = p->stream.device;
        w[i]->home = w[i]->kset;
        w[i]->kset = kind->kset(w[i]->source->type);
    }
    p->stream.source = stacks > p->stream.source ? stacks : p->stream.source;
    p->stream.shares = p->stream.shares || stacks;
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
        k->w[i]->home = NULL;
    }
}

ts_status ts_plan_stream(ts_plan *p, ts_model *m, const ts_split *split, ts_error *err)
{
    const int64_t n = m->hp.n_layer;
    const int device = ts_split_first(split);
    if (p->n_devices < 2 || !p->dev[device].kind->streams || split->kv_on_cpu)
        return TS_OK;
    kept *k = ts_calloc((size_t)n, sizeof *k);
    if (!k)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the step list");
    p->stream.device = device;
    p->stream.piece = split->stream_piece ? split->stream_piece : PIECE;
    int64_t taken = 0;
    size_t most = 0; /* bytes of a piece */
    bool leading = true, alone = true;
    for (int64_t i = 0; i < n; i++) {
        ts_layer *l = &m->layers[i];
        const bool takes = may_stream(p, m, l, p->dev[device].kind);
        leading = leading && takes && near(p, l);
        p->stream.n_leading += leading;
        alone = alone && lacks_experts_alone(p, l, takes);
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
    p->stream.alone = alone && p->stream.shares;
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

/* Between what was measured of some numbers of tokens, and beyond. */
static double at(const double seconds[TS_STREAM_RATES], const int64_t m[TS_STREAM_RATES], int64_t x)
{
    int i = 0; /* the last two of different numbers, or those around x */
    while (i + 2 < TS_STREAM_RATES && x > m[i + 1] && m[i + 2] > m[i + 1])
        i++;
    if (m[i] == m[i + 1])
        return seconds[i] * (double)x / (double)m[i];
    const double slope = (seconds[i + 1] - seconds[i]) / (double)(m[i + 1] - m[i]);
    const double t = seconds[i] + (slope > 0 ? slope : 0) * (double)(x - m[i]);
    return t > 0 ? t : seconds[i];
}

double ts_stream_seconds(const ts_stream *t, const ts_stream_rates *r, int64_t m, int64_t keep)
{
    enum { RING = 256 };
    double begun[RING]; /* when a layer was used */
    if (t->shares)
        return (double)t->n_layers * at(r->gpu, r->m, m);
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
    /* where layers are shared, what comes for one waits for its routing: nothing would be gained */
    const int64_t leading = t->shares ? 0 : t->n_leading;
    for (int64_t keep = 0; keep <= leading && keep < t->n_layers; keep++) {
        const double s = ts_stream_seconds(t, r, m, keep);
        if (s < least) {
            least = s;
            best = keep;
        }
    }
    return best;
}

/* --- which experts ----------------------------------------------------------- */

int64_t ts_stream_ahead(const ts_stream *t, const ts_stream_rates *r, int64_t m, int64_t n_expert)
{
    if (!t->shares || r->come <= 0)
        return 0;
    const double n = at(r->lead, r->m, m) / r->come;
    return n < (double)n_expert ? (int64_t)n : n_expert;
}

int64_t ts_stream_share(const ts_stream_rates *r, const int32_t *count, int64_t n_expert,
                        int32_t *list, int64_t n_ahead)
{
    bool there[TS_MAX_EXPERTS] = {false};
    int64_t n = n_ahead, pairs = 0;
    for (int64_t i = 0; i < n_ahead; i++)
        there[list[i]] = true;
    for (int32_t x = 0; x < n_expert; x++) /* those with most tokens first */
        if (count[x] > 0 && !there[x]) {
            int64_t i = n++;
            for (; i > n_ahead && count[list[i - 1]] < count[x]; i--)
                list[i] = list[i - 1];
            list[i] = x;
            pairs += count[x];
        }
    /* the CPU has the last ones: few tokens cost it less than the bytes cost the link */
    int64_t best = n;
    double least = (double)(n - n_ahead) * r->come;
    for (int64_t i = n_ahead; i < n; i++) {
        const double come = (double)(i - n_ahead) * r->come;
        const double cpu = (double)(n - i) * r->expert + (double)pairs * r->pair;
        const double longer = come > cpu ? come : cpu;
        if (longer < least) {
            least = longer;
            best = i;
        }
        pairs -= count[list[i]];
    }
    return best;
}

/* fuse.c - see fuse.h. Only steps that stand one after the other are looked at, so nothing that
 * another step reads or writes in between can change. */
#include "cuda/fuse.h"

#include "cuda/ops.h"

/* What is looked at: the steps of one device. */
typedef struct view {
    const ts_steps *steps;
    int device;
    int64_t head_dim;
    ts_cuda_fused *out; /* [steps->n] */
} view;

bool ts_cuda_by_heads(const ts_step *st, int64_t head_dim)
{
    const bool one = st->dst == st->a && st->d == head_dim && head_dim <= TS_CUDA_MAX_HEAD;
    return st->n_heads > 1 || one;
}

static bool reads(const ts_step *s, ts_buf x)
{
    return s->a == x || (s->b == x && s->op != TS_OP_GLU) ||
           ((s->op == TS_OP_ROPE || s->op == TS_OP_GATE) && s->dst == x);
}

/* Does a step from i on want what is in x? */
static bool wanted(const view *w, size_t i, ts_buf x)
{
    const ts_steps *steps = w->steps;
    for (; i < steps->n && !reads(&w->steps->v[i], x); i++)
        if (steps->v[i].dst == x)
            return false;
    return i < steps->n;
}

static bool is(const view *w, size_t i, ts_op op)
{
    return i < w->steps->n && w->steps->v[i].op == op && w->steps->v[i].device == w->device;
}

static bool row_norm(const view *w, size_t i)
{
    const ts_step *st = &w->steps->v[i];
    return is(w, i, TS_OP_NORM) && st->vec && !ts_cuda_by_heads(st, w->head_dim);
}

/* Is what the norm leaves the last hidden state, which the session may ask for? */
static bool is_hidden(const view *w, size_t i)
{
    return i + 2 < w->steps->n && w->steps->v[i + 2].dst == w->steps->logits;
}

/* Step i is done by step j. */
static void done_by(const view *w, size_t i, size_t j)
{
    w->out[i] = (ts_cuda_fused){TS_CUDA_NOTHING, j};
}

static void norm_prep(const view *w, size_t i)
{
    const ts_step *norm = &w->steps->v[i], *prep = norm + 1;
    if (!row_norm(w, i) || !is(w, i + 1, TS_OP_PREP) || prep->a != norm->dst ||
        prep->d != norm->d || prep->domain != norm->domain || wanted(w, i + 2, norm->dst) ||
        is_hidden(w, i))
        return;
    done_by(w, i, i + 1);
    w->out[i + 1] = (ts_cuda_fused){TS_CUDA_NORM_PREP, i};
}

static void norm_add(const view *w, size_t i)
{
    const ts_step *norm = &w->steps->v[i], *add = norm + 1;
    if (!row_norm(w, i) || !is(w, i + 1, TS_OP_ADD) || norm->dst != norm->a ||
        add->b != norm->dst || add->dst != add->a || add->a == add->b || add->d != norm->d ||
        add->domain != norm->domain || wanted(w, i + 2, norm->dst))
        return;
    done_by(w, i, i + 1);
    w->out[i + 1] = (ts_cuda_fused){TS_CUDA_NORM_ADD, i};
}

static void glu_prep(const view *w, size_t i)
{
    const ts_step *glu = &w->steps->v[i], *prep = glu + 1;
    if (!is(w, i, TS_OP_GLU) || !is(w, i + 1, TS_OP_PREP) || prep->a != glu->dst ||
        prep->d != glu->d || prep->domain != glu->domain || wanted(w, i + 2, glu->dst))
        return;
    w->out[i] = (ts_cuda_fused){TS_CUDA_GLU_PREP, i + 1};
    w->out[i + 1] = (ts_cuda_fused){TS_CUDA_AFTER_GLU, i};
}

static void attend_prep(const view *w, size_t i)
{
    const ts_step *attend = &w->steps->v[i], *prep = attend + 1;
    if (!is(w, i, TS_OP_ATTEND) || !is(w, i + 1, TS_OP_PREP) || prep->a != attend->dst ||
        prep->d != attend->d || prep->domain != attend->domain || w->head_dim % 32 ||
        prep->kset->prep->act == TS_ACT_F32 || wanted(w, i + 2, attend->dst))
        return;
    w->out[i] = (ts_cuda_fused){TS_CUDA_ATTEND_PREP, i + 1};
    w->out[i + 1] = (ts_cuda_fused){TS_CUDA_AFTER_ATTEND, i};
}

static void products(const view *w, size_t i)
{
    const ts_step *one = &w->steps->v[i];
    size_t end = i;
    while (end < i + 3 && is(w, end, TS_OP_MATMUL) && w->steps->v[end].a == one->a &&
           w->steps->v[end].b == TS_NO_BUF && w->steps->v[end].kset == one->kset &&
           w->steps->v[end].w->k == one->w->k && w->steps->v[end].domain == one->domain)
        end++;
    if (end < i + 2 || w->out[i].does != TS_CUDA_STEP)
        return;
    w->out[i] = (ts_cuda_fused){TS_CUDA_PRODUCTS, end};
    for (size_t j = i + 1; j < end; j++)
        done_by(w, j, i);
}

/* How far a step stands in the order in which a head's parts are done; 0: it is none of them. */
static int part(const view *w, const ts_step *st)
{
    switch (st->op) {
    case TS_OP_BIAS:
        return 1;
    case TS_OP_NORM:
        return ts_cuda_by_heads(st, w->head_dim) ? 2 : 0;
    case TS_OP_ROPE:
        return 3;
    default:
        return 0;
    }
}

/* From the STORE at `last` back over all that is done to the heads that it stores, and to those
 * that attend next. */
static void qkv_store(const view *w, size_t last)
{
    const ts_step *store = &w->steps->v[last];
    if (!is(w, last, TS_OP_STORE) || store->a == store->b || wanted(w, last + 1, store->a) ||
        wanted(w, last + 1, store->b))
        return;
    const ts_buf q = is(w, last + 1, TS_OP_ATTEND) ? store[1].a : TS_NO_BUF;
    const ts_buf of[] = {q, store->a, store->b};
    int before[] = {4, 4, 4}; /* for each, the part that comes next */
    const ts_step *rope = NULL;
    size_t first = last;
    for (size_t i = last; i-- > 0; first = i) {
        const ts_step *st = &w->steps->v[i];
        const int p = part(w, st);
        int which = 0;
        if (st->device != w->device || st->op == TS_OP_COPY)
            break;
        if (st->op == TS_OP_ANGLES)
            continue;
        while (which < 3 && of[which] != st->dst)
            which++;
        if (!p || which == 3 || p >= before[which] ||
            (p == 3 && rope && (st->rope != rope->rope || st->a != rope->a)))
            break;
        rope = p == 3 ? st : rope;
        before[which] = p;
    }
    if (first == last)
        return;
    for (size_t i = first; i < last; i++)
        if (w->steps->v[i].op != TS_OP_ANGLES)
            done_by(w, i, last);
    w->out[last] = (ts_cuda_fused){TS_CUDA_QKV_STORE, first};
}

/* The step before i that isn't ANGLES, if it is this one of this device. */
static bool before(const view *w, size_t *i, ts_op op)
{
    while (*i > 0 && w->steps->v[*i - 1].op == TS_OP_ANGLES)
        --*i;
    return *i > 0 && is(w, --*i, op);
}

/* Latent attention: the norm and RoPE of the latent, RoPE of q, the STORE at `last`. */
static void latent_store(const view *w, size_t last)
{
    const ts_step *v = w->steps->v, *store = &v[last];
    size_t q = last;
    if (!is(w, last, TS_OP_STORE) || store->a != store->b || wanted(w, last + 1, store->a) ||
        !before(w, &q, TS_OP_ROPE))
        return;
    size_t k = q;
    if (!before(w, &k, TS_OP_ROPE))
        return;
    size_t norm = k;
    if (!before(w, &norm, TS_OP_NORM) || v[q].dst == store->a || v[k].dst != store->a ||
        v[norm].dst != store->a || v[k].n_heads != 1 || v[k].skip != v[norm].d ||
        v[k].a != v[q].a || v[k].rope != v[q].rope)
        return;
    done_by(w, norm, last);
    done_by(w, k, last);
    done_by(w, q, last);
    w->out[last] = (ts_cuda_fused){TS_CUDA_LATENT_STORE, norm};
}

void ts_cuda_fuse(ts_cuda_fused *out, const ts_plan *plan, int device, const ts_model *m)
{
    const view w = {&plan->steps, device, m->hp.head_dim, out};
    for (size_t i = 0; i < plan->steps.n; i++) {
        norm_prep(&w, i);
        norm_add(&w, i);
        glu_prep(&w, i);
        attend_prep(&w, i);
        products(&w, i);
        qkv_store(&w, i);
        latent_store(&w, i);
    }
}

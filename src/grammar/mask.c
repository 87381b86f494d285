/* mask.c - which tokens a state allows.
 *
 * The vocabulary's trees are walked with the states; a byte that a state refuses cuts its subtree
 * off. Where a state takes as many plain characters as any token below has, the subtree is allowed
 * as a whole: in a JSON string that is nearly all of the vocabulary at once. Masks are kept by
 * state, the least recently used go first. */
#include "grammar/match_impl.h"

#include <math.h>
#include <string.h>

static void allow(ts_matcher *m, const ts_trie *t, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        m->bits[t->ids[i] / 64] |= (uint64_t)1 << t->ids[i] % 64;
}

/* Whether all of a subtree of plain tokens may follow: 1, 0, or -1 with *err. */
static int takes_all(ts_matcher *m, int32_t state, size_t node, ts_error *err)
{
    if (m->states[state].left > 0)
        return 0;
    int32_t run = mt_run(m, state, err);
    if (run < 0)
        return -1;
    return run >= m->v->plain.nodes[node].below &&
           !(m->v->plain.kinds[node] & ~m->states[state].kinds);
}

/* Forgets states, if need be, but not those on the way to this depth. */
static ts_status keep_small(ts_matcher *m, size_t depth, ts_error *err)
{
    return mt_size(m) > m->room ? mt_forget(m, m->path, depth + 1, err) : TS_OK;
}

enum { WORTH_A_LOOK = 16 }; /* nodes of a subtree: a walk through fewer is as fast */

static ts_status walk(ts_matcher *m, const ts_trie *t, bool plain, ts_error *err)
{
    for (size_t i = 1; i < t->n;) {
        const ts_trie_node *n = &t->nodes[i];
        int32_t from = m->path[n->depth - 1];
        uint32_t row = m->states[from].row;
        int32_t to = row ? m->rows[row - 1 + m->g->byte_class[n->byte]] - 1 : -1;
        if (to < 0) {
            if ((to = mt_step_new(m, from, n->byte, err)) < 0)
                return TS_NO_MEMORY; /* *err says more */
            m->path[n->depth] = to;
            if (keep_small(m, n->depth, err))
                return TS_NO_MEMORY;
            to = m->path[n->depth];
        }
        if (to == MT_DEAD) {
            i = n->end;
            continue;
        }
        m->path[n->depth] = to;
        int all = plain && n->end > i + WORTH_A_LOOK ? takes_all(m, to, i, err) : 0;
        if (all < 0)
            return TS_NO_MEMORY;
        allow(m, t, n->tok, t->nodes[all ? n->end : i + 1].tok);
        i = all ? n->end : i + 1;
    }
    return TS_OK;
}

/* Fills m->bits. */
static ts_status make_bits(ts_matcher *m, ts_error *err)
{
    const ts_vocab *v = m->v;
    m->work = 0;
    m->most_work = MT_MASK_WORK;
    int all = takes_all(m, m->at, 0, err);
    if (all < 0)
        return TS_NO_MEMORY;
    if (all)
        memcpy(m->bits, v->all_plain, v->words * sizeof *m->bits);
    else
        memset(m->bits, 0, v->words * sizeof *m->bits);
    m->path[0] = m->at;
    ts_status st = all ? TS_OK : walk(m, &v->plain, true, err);
    m->path[0] = m->at;
    if (!st)
        st = walk(m, &v->rest, false, err);
    if (!st && ts_matcher_can_end(m))
        for (size_t i = 0; i < v->n_eog; i++)
            m->bits[v->eog[i] / 64] |= (uint64_t)1 << v->eog[i] % 64;
    return st;
}

/* --- masks that are kept ------------------------------------------------------------- */

static void drop(ts_matcher *m, size_t i)
{
    mt_mask *k = &m->masks[i];
    m->mask_bytes -= k->bits ? m->v->words * sizeof *k->bits : k->n * sizeof *k->ids;
    free(k->bits);
    free(k->ids);
    m->states[k->state].mask = -1;
    *k = m->masks[--m->n_masks];
    if (i < m->n_masks)
        m->states[k->state].mask = (int32_t)i;
    m->masks[m->n_masks] = (mt_mask){.state = -1};
}

void mt_free_masks(ts_matcher *m)
{
    for (size_t i = 0; i < m->n_masks; i++) {
        free(m->masks[i].bits);
        free(m->masks[i].ids);
    }
    m->n_masks = 0;
}

static void make_room(ts_matcher *m)
{
    while (m->n_masks == MT_MASKS || (m->n_masks > 0 && m->mask_bytes > m->limit)) {
        size_t oldest = 0;
        for (size_t i = 1; i < m->n_masks; i++)
            if (m->masks[i].used < m->masks[oldest].used)
                oldest = i;
        drop(m, oldest);
    }
}

/* Keeps m->bits for the state of the text. */
static ts_status keep(ts_matcher *m, ts_error *err)
{
    size_t words = m->v->words;
    mt_mask k = {.state = m->at};
    for (size_t i = 0; i < words; i++)
        k.n += (size_t)__builtin_popcountll(m->bits[i]);
    size_t bytes = k.n > MT_FEW ? words * sizeof *k.bits : k.n * sizeof *k.ids;
    void *p = ts_calloc(bytes, 1);
    if (!p)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the tokens that a grammar allows");
    if (k.n > MT_FEW) {
        k.bits = memcpy(p, m->bits, bytes);
    } else {
        size_t n = 0;
        k.ids = p;
        for (size_t i = 0; i < words; i++)
            for (uint64_t w = m->bits[i]; w; w &= w - 1)
                k.ids[n++] = (int32_t)(64 * i) + __builtin_ctzll(w);
    }
    make_room(m);
    m->states[m->at].mask = (int32_t)m->n_masks;
    m->masks[m->n_masks++] = k;
    m->mask_bytes += bytes;
    return TS_OK;
}

ts_status ts_matcher_mask(ts_matcher *m, ts_mask *out, ts_error *err)
{
    ts_error why = {.code = TS_NO_MEMORY};
    if (m->ended) {
        *out = (ts_mask){NULL, m->v->eog, m->v->n_eog < MT_FEW ? m->v->n_eog : MT_FEW};
        return TS_OK;
    }
    if (m->states[m->at].mask < 0 && (make_bits(m, &why) || keep(m, &why)))
        return ts_fail(err, why.code, "%s", why.msg);
    mt_mask *k = &m->masks[m->states[m->at].mask];
    k->used = ++m->clock;
    *out = (ts_mask){k->bits, k->ids, k->n};
    return TS_OK;
}

/* --- on logits ------------------------------------------------------------------------ */

static void forbid(float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        logits[i] = -INFINITY;
}

/* Leaves the logits of a list alone; the greatest of them, -1: there is none. */
static int32_t keep_listed(const ts_mask *k, float *logits, size_t n)
{
    float kept[MT_FEW];
    int32_t top = -1;
    for (size_t i = 0; i < k->n && (size_t)k->ids[i] < n; i++) {
        kept[i] = logits[k->ids[i]];
        if (top < 0 || kept[i] > logits[top])
            top = k->ids[i];
    }
    forbid(logits, n);
    for (size_t i = 0; i < k->n && (size_t)k->ids[i] < n; i++)
        logits[k->ids[i]] = kept[i];
    return top;
}

static bool is_set(const ts_mask *k, size_t i)
{
    return k->bits[i / 64] >> i % 64 & 1;
}

/* The same for a set. top: the greatest of all, which mostly is in it. */
static int32_t keep_set(const ts_mask *k, float *logits, size_t n, size_t top)
{
    for (size_t i = 0; i < n; i += 64) {
        size_t some = n - i < 64 ? n - i : 64;
        uint64_t out = ~k->bits[i / 64];
        if (!~out)
            forbid(logits + i, some);
        for (; out && ~out; out &= out - 1)
            if ((size_t)__builtin_ctzll(out) < some)
                logits[i + (size_t)__builtin_ctzll(out)] = -INFINITY;
    }
    if (top < n && is_set(k, top))
        return (int32_t)top;
    float most = -INFINITY;
    for (size_t i = 0; i < n; i++)
        most = logits[i] > most ? logits[i] : most;
    for (size_t i = 0; i < n; i++)
        if (logits[i] == most && is_set(k, i))
            return (int32_t)i;
    return -1;
}

ts_status ts_matcher_apply(ts_matcher *m, float *logits, size_t n, size_t *top, ts_error *err)
{
    ts_mask k;
    ts_status st = ts_matcher_mask(m, &k, err);
    if (st)
        return st;
    size_t known = n < (size_t)m->v->n ? n : (size_t)m->v->n;
    forbid(logits + known, n - known);
    int32_t best = k.bits ? keep_set(&k, logits, known, *top) : keep_listed(&k, logits, known);
    if (best < 0)
        return ts_fail(err, TS_UNSUPPORTED,
                       "no token of this vocabulary can go on with the text as the grammar wants "
                       "it");
    *top = (size_t)best;
    return TS_OK;
}

/* match.c - the steps of a matcher.
 *
 * A step goes on from the places that take the character, without consuming anything, to the CHAR
 * nodes that come next: through alternatives, out of rules that end (to whatever their frame holds)
 * and into rules that are called. Rules called in a step get their frame when all their calls are
 * known: they are worked off by rank, and none is called by one of a higher rank (gram.h). That a
 * rule may match nothing is settled where it is called, so that its END counts only after it
 * consumed something. A call at the very end of a rule hands the frame's edges on: lists that are
 * written with recursion don't grow. */
#include "grammar/match_impl.h"

#include <string.h>

#include "base/hash.h"

static int by_node(const void *a, const void *b)
{
    const mt_pair *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return (x->frame > y->frame) - (x->frame < y->frame);
}

/* Sorts pairs and drops repeated ones; how many are left. */
static size_t tidy(mt_pair *p, size_t n)
{
    size_t m = 0;
    if (n > 16)
        qsort(p, n, sizeof *p, by_node);
    for (size_t i = 1; i < n && n <= 16; i++) {
        mt_pair x = p[i];
        size_t k = i;
        for (; k > 0 && by_node(&p[k - 1], &x) > 0; k--)
            p[k] = p[k - 1];
        p[k] = x;
    }
    for (size_t i = 0; i < n; i++)
        if (m == 0 || by_node(&p[m - 1], &p[i]) != 0)
            p[m++] = p[i];
    return m;
}

/* --- numbers of frames and states ---------------------------------------------------- */

static bool add_pairs(ts_matcher *m, const mt_pair *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!TS_ROOM(m->pairs, m->n_pairs, m->cap_pairs))
            return false;
        m->pairs[m->n_pairs++] = p[i];
    }
    return true;
}

static bool same_pairs(const ts_matcher *m, uint32_t first, uint32_t n, const mt_pair *p)
{
    return n == 0 || memcmp(m->pairs + first, p, n * sizeof *p) == 0;
}

/* A table of twice the size with the numbers below n. */
#define GROW_TABLE(table, size, array, n)                                                          \
    (__extension__({                                                                               \
        size_t size_ = (size) ? 2 * (size) : 1024;                                                 \
        uint32_t *t_ = ts_calloc(size_, sizeof *t_);                                               \
        for (size_t i_ = 0; t_ && i_ < (n); i_++) {                                                \
            size_t h_ = (array)[i_].hash & (size_ - 1);                                            \
            while (t_[h_])                                                                         \
                h_ = (h_ + 1) & (size_ - 1);                                                       \
            t_[h_] = (uint32_t)i_ + 1;                                                             \
        }                                                                                          \
        if (t_) {                                                                                  \
            free(table);                                                                           \
            (table) = t_;                                                                          \
            (size) = size_;                                                                        \
        }                                                                                          \
        t_ != NULL;                                                                                \
    }))

int32_t mt_frame_of(ts_matcher *m, mt_pair *edges, size_t n)
{
    n = tidy(edges, n);
    uint32_t hash = (uint32_t)ts_hash64(edges, n * sizeof *edges, 1);
    if (2 * m->n_frames >= m->frame_size &&
        !GROW_TABLE(m->frame_table, m->frame_size, m->frames, m->n_frames))
        return -1;
    size_t h = hash & (m->frame_size - 1);
    for (; m->frame_table[h]; h = (h + 1) & (m->frame_size - 1)) {
        const mt_frame *f = &m->frames[m->frame_table[h] - 1];
        if (f->hash == hash && f->n == n && same_pairs(m, f->first, f->n, edges))
            return (int32_t)m->frame_table[h] - 1;
    }
    mt_frame f = {(uint32_t)m->n_pairs, (uint32_t)n, hash};
    if (!TS_ROOM(m->frames, m->n_frames, m->cap_frames) || !add_pairs(m, edges, n))
        return -1;
    m->frames[m->n_frames++] = f;
    m->frame_table[h] = (uint32_t)m->n_frames;
    return (int32_t)m->n_frames - 1;
}

int32_t mt_state_of(ts_matcher *m, mt_pair *places, size_t n, mt_state s)
{
    n = tidy(places, n);
    uint64_t seed = (uint64_t)s.acc << 32 | (uint64_t)s.left << 24 | (uint64_t)s.lo << 16 |
                    (uint64_t)s.hi << 8 | s.flags;
    s.hash = (uint32_t)ts_hash64(places, n * sizeof *places, seed + 2);
    s.n = (uint32_t)n;
    s.row = 0;
    s.same = s.mask = -1;
    s.kinds = 0;
    s.run = 0xff;
    if (2 * m->n_states >= m->state_size &&
        !GROW_TABLE(m->state_table, m->state_size, m->states, m->n_states))
        return -1;
    size_t h = s.hash & (m->state_size - 1);
    for (; m->state_table[h]; h = (h + 1) & (m->state_size - 1)) {
        const mt_state *o = &m->states[m->state_table[h] - 1];
        if (o->hash == s.hash && o->n == n && o->acc == s.acc && o->left == s.left &&
            o->lo == s.lo && o->hi == s.hi && o->flags == s.flags &&
            same_pairs(m, o->first, o->n, places))
            return (int32_t)m->state_table[h] - 1;
    }
    s.first = (uint32_t)m->n_pairs;
    if (!TS_ROOM(m->states, m->n_states, m->cap_states) || !add_pairs(m, places, n))
        return -1;
    m->states[m->n_states++] = s;
    m->state_table[h] = (uint32_t)m->n_states;
    return (int32_t)m->n_states - 1;
}

/* --- going on without consuming --------------------------------------------------------- */

static bool grow_seen(ts_matcher *m)
{
    size_t size = m->seen_size ? 2 * m->seen_size : 256;
    struct mt_seen *t = ts_calloc(size, sizeof *t);
    if (!t)
        return false;
    for (size_t i = 0; i < m->seen_size; i++) {
        if (m->seen[i].when != m->when)
            continue;
        size_t h = (size_t)(m->seen[i].key * 0x9e3779b97f4a7c15u >> 32) & (size - 1);
        while (t[h].when == m->when)
            h = (h + 1) & (size - 1);
        t[h] = m->seen[i];
    }
    free(m->seen);
    m->seen = t;
    m->seen_size = size;
    return true;
}

/* True the first time in this step. */
static bool first_time(ts_matcher *m, int32_t node, int32_t frame)
{
    uint64_t key = (uint64_t)(uint32_t)node << 32 | (uint32_t)frame;
    if (2 * m->n_seen >= m->seen_size && !grow_seen(m)) {
        m->short_of_memory = true;
        return false;
    }
    size_t h = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & (m->seen_size - 1);
    for (; m->seen[h].when == m->when; h = (h + 1) & (m->seen_size - 1))
        if (m->seen[h].key == key)
            return false;
    m->seen[h] = (struct mt_seen){key, m->when};
    m->n_seen++;
    return true;
}

static void go(ts_matcher *m, int32_t node, int32_t frame)
{
    m->work++;
    if (node == MT_ACCEPT) {
        m->can_end = true;
        return;
    }
    bool place = m->g->nodes[node].kind == TS_GRAM_CHAR;
    if (place) {
        if (!TS_ROOM(m->items, m->n_items, m->cap_items))
            m->short_of_memory = true;
        else
            m->items[m->n_items++] = (mt_pair){node, frame};
    } else if (first_time(m, node, frame)) {
        if (!TS_ROOM(m->todo, m->n_todo, m->cap_todo))
            m->short_of_memory = true;
        else
            m->todo[m->n_todo++] = (mt_pair){node, frame};
    }
}

static void add_fresh(ts_matcher *m, int32_t rank, mt_pair edge)
{
    m->work++;
    if (!TS_ROOM(m->fresh, m->n_fresh, m->cap_fresh)) {
        m->short_of_memory = true;
        return;
    }
    if (m->fresh_head[rank] < 0) {
        m->called[rank / 64] |= (uint64_t)1 << rank % 64;
        m->n_called++;
    }
    m->fresh[m->n_fresh] = (struct mt_fresh){edge, m->fresh_head[rank]};
    m->fresh_head[rank] = (int32_t)m->n_fresh++;
}

static void call(ts_matcher *m, int32_t rule, int32_t next, int32_t frame)
{
    int32_t rank = m->g->rules[rule].rank;
    if (m->g->nodes[next].kind != TS_GRAM_END) {
        add_fresh(m, rank, (mt_pair){next, frame});
        return;
    }
    mt_frame f = m->frames[frame];
    for (uint32_t i = 0; i < f.n; i++)
        add_fresh(m, rank, m->pairs[f.first + i]);
}

/* fresh: within a rule called in this step, which hasn't consumed anything. */
static void go_all(ts_matcher *m, bool fresh)
{
    while (m->n_todo > 0 && !m->short_of_memory && m->work < m->most_work) {
        mt_pair p = m->todo[--m->n_todo];
        const ts_gram_node *n = &m->g->nodes[p.node];
        if (n->kind == TS_GRAM_SPLIT) {
            for (int32_t i = 0; i < n->next; i++)
                go(m, m->g->alts[n->a + i], p.frame);
        } else if (n->kind == TS_GRAM_CALL) {
            call(m, n->a, n->next, p.frame);
            if (m->g->rules[n->a].nullable)
                go(m, n->next, p.frame);
        } else if (!fresh) {
            mt_frame f = m->frames[p.frame];
            for (uint32_t i = 0; i < f.n; i++)
                go(m, m->pairs[f.first + i].node, m->pairs[f.first + i].frame);
        }
    }
}

/* The rule of that rank: its frame, and what it begins with. */
static void enter(ts_matcher *m, int32_t rank)
{
    m->n_edges = 0;
    for (int32_t i = m->fresh_head[rank]; i >= 0; i = m->fresh[i].next) {
        if (!TS_ROOM(m->edges, m->n_edges, m->cap_edges)) {
            m->short_of_memory = true;
            return;
        }
        m->edges[m->n_edges++] = m->fresh[i].edge;
    }
    int32_t frame = mt_frame_of(m, m->edges, m->n_edges);
    if (frame < 0) {
        m->short_of_memory = true;
        return;
    }
    go(m, m->g->rules[m->g->by_rank[rank]].entry, frame);
    go_all(m, true);
}

static void begin(ts_matcher *m)
{
    m->n_todo = m->n_items = m->n_fresh = m->n_seen = 0;
    m->n_called = 0;
    m->can_end = m->short_of_memory = false;
    if (++m->when == 0) { /* once in four billion steps */
        if (m->seen)
            memset(m->seen, 0, m->seen_size * sizeof *m->seen);
        m->when = 1;
    }
}

/* Works off what begin and go left; afterwards items and can_end make the new state. */
static void finish(ts_matcher *m)
{
    go_all(m, false);
    for (size_t w = 0; m->n_called > 0; w++)
        while (m->called[w]) {
            int32_t rank = (int32_t)(64 * w) + __builtin_ctzll(m->called[w]);
            if (!m->short_of_memory && m->work < m->most_work)
                enter(m, rank);
            m->called[w] &= ~((uint64_t)1 << rank % 64);
            m->fresh_head[rank] = -1;
            m->n_called--;
        }
}

/* The new state's number, or -1 with a sentence. */
static int32_t result(ts_matcher *m, mt_state like, ts_error *err)
{
    int32_t id = -1;
    if (m->work >= m->most_work) {
        ts_fail(err, TS_UNSUPPORTED,
                "the grammar is too ambiguous here: there are too many ways to read the text");
        return -1;
    }
    if (m->can_end)
        like.flags |= MT_CAN_END;
    if (!m->short_of_memory)
        id = mt_state_of(m, m->items, m->n_items, like);
    if (id < 0)
        ts_fail(err, TS_NO_MEMORY, "no memory to follow the grammar");
    return id;
}

/* --- steps --------------------------------------------------------------------------------- */

/* From the places whose class has the characters first..last. */
static void seed(ts_matcher *m, const mt_state *s, uint32_t first, uint32_t last)
{
    begin(m);
    for (uint32_t i = 0; i < s->n; i++) {
        mt_pair p = m->pairs[s->first + i];
        const ts_gram_node *n = &m->g->nodes[p.node];
        bool takes;
        m->work++;
        if (last < 128)
            takes = m->g->classes[n->a].ascii[first / 64] >> first % 64 & 1;
        else
            takes = ts_gram_covers(m->g, n->a, first, last) == TS_COVER_ALL;
        if (takes)
            go(m, n->next, p.frame);
    }
    finish(m);
}

/* Within a character: `left` bytes are missing, the first of them lo..hi, the bits so far are acc.
 */
static int32_t begun(ts_matcher *m, const mt_state *s, uint32_t acc, int left, uint8_t lo,
                     uint8_t hi, ts_error *err)
{
    uint32_t low = 6 * (uint32_t)(left - 1), first = (acc << 6 | (lo & 0x3f)) << low;
    uint32_t last = ((acc << 6 | (hi & 0x3f)) << low) | (((uint32_t)1 << low) - 1);
    mt_state like = {.left = (uint8_t)left, .lo = lo, .hi = hi};
    bool some = false, all = false;
    for (uint32_t i = 0; i < s->n; i++) {
        ts_gram_cover c =
            ts_gram_covers(m->g, m->g->nodes[m->pairs[s->first + i].node].a, first, last);
        some |= c == TS_COVER_SOME;
        all |= c == TS_COVER_ALL;
    }
    m->work += s->n;
    if (!some && !all)
        return MT_DEAD;
    if (!some) {
        seed(m, s, first, last);
        like.flags = MT_STEPPED;
        return result(m, like, err);
    }
    begin(m);
    for (uint32_t i = 0; i < s->n; i++) {
        mt_pair p = m->pairs[s->first + i];
        if (ts_gram_covers(m->g, m->g->nodes[p.node].a, first, last) != TS_COVER_NONE)
            go(m, p.node, p.frame);
    }
    like.acc = acc;
    return result(m, like, err);
}

/* The next byte of a character that is begun. */
static int32_t continued(ts_matcher *m, const mt_state *s, uint8_t b, ts_error *err)
{
    mt_state like = {.left = (uint8_t)(s->left - 1), .lo = 0x80, .hi = 0xbf};
    uint32_t acc = s->acc << 6 | (b & 0x3f);
    if (b < s->lo || b > s->hi)
        return MT_DEAD;
    if (like.left == 0)
        like.lo = like.hi = 0;
    if (s->flags & MT_STEPPED) {
        begin(m);
        for (uint32_t i = 0; i < s->n; i++)
            go(m, m->pairs[s->first + i].node, m->pairs[s->first + i].frame);
        m->can_end = s->flags & MT_CAN_END;
        like.flags = like.left ? MT_STEPPED : 0;
        return result(m, like, err);
    }
    if (like.left > 0)
        return begun(m, s, acc, like.left, like.lo, like.hi, err);
    seed(m, s, acc, acc);
    return result(m, like, err);
}

int32_t mt_step_new(ts_matcher *m, int32_t state, uint8_t b, ts_error *err)
{
    mt_state s = m->states[state];
    uint8_t lo, hi;
    int32_t to;
    if (s.left > 0) {
        to = continued(m, &s, b, err);
    } else if (b < 0x80) {
        seed(m, &s, b, b);
        to = result(m, (mt_state){0}, err);
    } else {
        int follow = ts_gram_lead(b, &lo, &hi);
        uint32_t bits = b & (follow == 1 ? 0x1f : follow == 2 ? 0x0f : 0x07);
        to = follow ? begun(m, &s, bits, follow, lo, hi, err) : MT_DEAD;
    }
    if (to < 0)
        return -1;
    if (!m->states[state].row) {
        size_t n = (size_t)m->g->n_byte_classes;
        for (size_t i = 0; i < n; i++) {
            if (!TS_ROOM(m->rows, m->n_rows + i, m->cap_rows)) {
                ts_fail(err, TS_NO_MEMORY, "no memory to follow the grammar");
                return -1;
            }
            m->rows[m->n_rows + i] = 0;
        }
        m->states[state].row = (uint32_t)m->n_rows + 1;
        m->n_rows += n;
    }
    m->rows[m->states[state].row - 1 + m->g->byte_class[b]] = to + 1;
    return to;
}

/* Finds the state's kinds, those of the place that takes the most, and where the places that take
 * them all lead. Others may lead elsewhere too: `same` is a part of what comes of such a character.
 */
static int32_t same_step(ts_matcher *m, int32_t state, ts_error *err)
{
    mt_state s = m->states[state];
    uint64_t kinds = 0;
    if (s.same >= 0)
        return s.same;
    for (uint32_t i = 0; i < s.n; i++) {
        uint64_t k = m->g->classes[m->g->nodes[m->pairs[s.first + i].node].a].kinds;
        if (__builtin_popcountll(k) > __builtin_popcountll(kinds))
            kinds = k;
    }
    begin(m);
    m->work += s.n;
    for (uint32_t i = 0; i < s.n && kinds; i++) {
        mt_pair p = m->pairs[s.first + i];
        const ts_gram_node *n = &m->g->nodes[p.node];
        if ((m->g->classes[n->a].kinds & kinds) == kinds)
            go(m, n->next, p.frame);
    }
    finish(m);
    int32_t to = result(m, (mt_state){0}, err);
    if (to >= 0) {
        m->states[state].same = to;
        m->states[state].kinds = kinds;
    }
    return to;
}

int32_t mt_run(ts_matcher *m, int32_t state, ts_error *err)
{
    uint8_t known = m->states[state].run;
    if (known != 0xff)
        return known;
    int32_t run = 0, at = state;
    while (run < TS_VOCAB_RUN) {
        int32_t to = same_step(m, at, err);
        if (to < 0)
            return -1;
        if (to == MT_DEAD || (m->states[state].kinds & ~m->states[at].kinds))
            break;
        run = to == at ? TS_VOCAB_RUN : run + 1;
        at = to;
    }
    m->states[state].run = (uint8_t)run;
    return run;
}

/* --- texts --------------------------------------------------------------------------------- */

ts_status mt_start(ts_matcher *m, ts_error *err)
{
    mt_pair none = {0, 0};
    int32_t dead = mt_state_of(m, &none, 0, (mt_state){0});
    m->work = 0;
    m->most_work = MT_WORK;
    begin(m);
    add_fresh(m, m->g->rules[m->g->root].rank, (mt_pair){MT_ACCEPT, -1});
    m->can_end = m->g->rules[m->g->root].nullable;
    finish(m);
    m->start = m->at = result(m, (mt_state){0}, err);
    if (dead != MT_DEAD) /* which had no memory, and so neither had the other */
        return ts_fail(err, TS_NO_MEMORY, "no memory to follow the grammar");
    return m->start < 0 ? TS_NO_MEMORY : TS_OK;
}

ts_status ts_matcher_open(ts_matcher **out, const ts_gram *g, const ts_vocab *v, ts_error *err)
{
    ts_matcher *m = ts_calloc(1, sizeof *m);
    ts_error why = {.code = TS_NO_MEMORY};
    if (!m)
        return ts_fail(err, TS_NO_MEMORY, "no memory to follow the grammar");
    m->g = g;
    m->v = v;
    m->limit = m->room = MT_LIMIT;
    for (size_t i = 0; i < MT_MASKS; i++)
        m->masks[i].state = -1;
    m->fresh_head = ts_calloc(g->n_rules, sizeof *m->fresh_head);
    m->called = ts_calloc(g->n_rules / 64 + 1, sizeof *m->called);
    m->bits = ts_calloc(v ? v->words : 1, sizeof *m->bits);
    m->path = ts_calloc(TS_VOCAB_LONG + 1, sizeof *m->path);
    ts_status st = TS_NO_MEMORY;
    if (m->fresh_head && m->called && m->bits && m->path) {
        memset(m->fresh_head, 0xff, g->n_rules * sizeof *m->fresh_head);
        st = mt_start(m, &why);
    }
    if (st) {
        ts_matcher_close(m);
        return ts_fail(err, why.code, "%s",
                       why.msg[0] ? why.msg : "no memory to follow the grammar");
    }
    *out = m;
    return TS_OK;
}

void ts_matcher_close(ts_matcher *m)
{
    if (!m)
        return;
    mt_free_masks(m);
    free(m->pairs);
    free(m->frames);
    free(m->states);
    free(m->rows);
    free(m->frame_table);
    free(m->state_table);
    free(m->todo);
    free(m->items);
    free(m->edges);
    free(m->seen);
    free(m->fresh);
    free(m->fresh_head);
    free(m->called);
    free(m->bits);
    free(m->path);
    free(m);
}

void ts_matcher_reset(ts_matcher *m)
{
    m->at = m->start;
    m->ended = false;
}

/* The state after s[n]; MT_DEAD as soon as it is. */
static ts_status follow(ts_matcher *m, const char *s, size_t n, int32_t *to, ts_error *err)
{
    ts_error why = {.code = TS_NO_MEMORY};
    *to = m->ended ? MT_DEAD : m->at;
    m->most_work = MT_WORK;
    for (size_t i = 0; i < n && *to != MT_DEAD; i++) {
        m->work = 0;
        *to = mt_step(m, *to, (uint8_t)s[i], &why);
        if (*to < 0)
            return ts_fail(err, why.code, "%s", why.msg);
        ts_status st = mt_size(m) > m->room ? mt_forget(m, to, 1, err) : TS_OK;
        if (st)
            return st;
    }
    return TS_OK;
}

ts_status ts_matcher_bytes(ts_matcher *m, const char *s, size_t n, bool *ok, ts_error *err)
{
    int32_t to;
    ts_status st = follow(m, s, n, &to, err);
    if (st)
        return st;
    *ok = to != MT_DEAD;
    if (*ok)
        m->at = to;
    return TS_OK;
}

ts_status ts_matcher_allows(ts_matcher *m, int32_t id, bool *ok, ts_error *err)
{
    const ts_vocab *v = m->v;
    int32_t to;
    *ok = false;
    if (id < 0 || !v || id >= v->n)
        return TS_OK;
    if (v->is_eog[id]) {
        *ok = m->ended || ts_matcher_can_end(m);
        return TS_OK;
    }
    if (v->pieces[id].n == 0 || v->pieces[id].n > TS_VOCAB_LONG)
        return TS_OK;
    ts_status st = follow(m, v->pieces[id].s, v->pieces[id].n, &to, err);
    *ok = !st && to != MT_DEAD;
    return st;
}

ts_status ts_matcher_accept(ts_matcher *m, int32_t id, bool *ok, ts_error *err)
{
    const ts_vocab *v = m->v;
    *ok = false;
    if (id < 0 || !v || id >= v->n)
        return TS_OK;
    if (v->is_eog[id]) {
        *ok = m->ended || ts_matcher_can_end(m);
        m->ended |= *ok;
        return TS_OK;
    }
    if (v->pieces[id].n == 0 || v->pieces[id].n > TS_VOCAB_LONG)
        return TS_OK;
    return ts_matcher_bytes(m, v->pieces[id].s, v->pieces[id].n, ok, err);
}

bool ts_matcher_can_end(const ts_matcher *m)
{
    const mt_state *s = &m->states[m->at];
    return s->left == 0 && (s->flags & MT_CAN_END);
}

bool ts_matcher_at_end(const ts_matcher *m)
{
    return m->ended || (ts_matcher_can_end(m) && m->states[m->at].n == 0);
}

void ts_matcher_limit(ts_matcher *m, size_t bytes)
{
    m->limit = m->room = bytes ? bytes : MT_LIMIT;
}

size_t ts_matcher_size(const ts_matcher *m)
{
    return mt_size(m);
}

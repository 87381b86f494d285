/* forget.c - keeps a matcher's memory bounded.
 *
 * When states and frames take more than they may, those that the text needs - where it is, where it
 * began, the states of masks that are kept - are copied into new tables, everything else goes, and
 * steps are computed again as they are wanted. Frames hold frames of smaller numbers only, so one
 * pass down finds what is needed and one pass up copies it. */
#include "grammar/match_impl.h"

#include <string.h>

size_t mt_size(const ts_matcher *m)
{
    return m->n_pairs * sizeof *m->pairs + m->n_frames * sizeof *m->frames +
           m->n_states * sizeof *m->states + m->n_rows * sizeof *m->rows +
           (m->frame_size + m->state_size) * sizeof *m->frame_table;
}

static void need_places(const ts_matcher *m, uint8_t *need, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (m->pairs[first + i].frame >= 0)
            need[m->pairs[first + i].frame] = 1;
}

/* Pairs of m with the frames' new numbers, in m's scratch; NULL when memory is short. */
static mt_pair *moved(ts_matcher *m, const int32_t *map, uint32_t first, uint32_t n)
{
    m->n_edges = 0;
    if (!TS_ROOM(m->edges, m->n_edges, m->cap_edges))
        return NULL;
    for (uint32_t i = 0; i < n; i++) {
        mt_pair p = m->pairs[first + i];
        if (!TS_ROOM(m->edges, m->n_edges, m->cap_edges))
            return NULL;
        m->edges[m->n_edges++] = (mt_pair){p.node, p.frame >= 0 ? map[p.frame] : -1};
    }
    return m->edges;
}

static bool copy_frames(ts_matcher *m, ts_matcher *t, const uint8_t *need, int32_t *map)
{
    for (size_t f = 0; f < m->n_frames; f++) {
        if (!need[f])
            continue;
        mt_pair *p = moved(m, map, m->frames[f].first, m->frames[f].n);
        map[f] = p ? mt_frame_of(t, p, m->frames[f].n) : -1;
        if (map[f] < 0)
            return false;
    }
    return true;
}

/* A state's number among the new ones; -1 when memory is short. */
static int32_t copy_state(ts_matcher *m, ts_matcher *t, const int32_t *map, int32_t state)
{
    const mt_state s = m->states[state];
    mt_pair *p = moved(m, map, s.first, s.n);
    mt_state like = {.acc = s.acc, .left = s.left, .lo = s.lo, .hi = s.hi, .flags = s.flags};
    return p ? mt_state_of(t, p, s.n, like) : -1;
}

static void free_tables(ts_matcher *m)
{
    free(m->pairs);
    free(m->frames);
    free(m->states);
    free(m->rows);
    free(m->frame_table);
    free(m->state_table);
}

static void take_tables(ts_matcher *m, const ts_matcher *t)
{
    free_tables(m);
    m->pairs = t->pairs, m->n_pairs = t->n_pairs, m->cap_pairs = t->cap_pairs;
    m->frames = t->frames, m->n_frames = t->n_frames, m->cap_frames = t->cap_frames;
    m->states = t->states, m->n_states = t->n_states, m->cap_states = t->cap_states;
    m->rows = t->rows, m->n_rows = t->n_rows, m->cap_rows = t->cap_rows;
    m->frame_table = t->frame_table, m->frame_size = t->frame_size;
    m->state_table = t->state_table, m->state_size = t->state_size;
}

/* Every state that is needed, by where its number is kept. `all` has room for them. */
static size_t needed(ts_matcher *m, int32_t *states, size_t n, int32_t **all)
{
    size_t k = 0;
    all[k++] = &m->start;
    all[k++] = &m->at;
    for (size_t i = 0; i < m->n_masks; i++)
        all[k++] = &m->masks[i].state;
    for (size_t i = 0; i < n; i++)
        all[k++] = &states[i];
    return k;
}

static bool copy(ts_matcher *m, int32_t **all, size_t n, int32_t *to, uint8_t *need, int32_t *map)
{
    ts_matcher *t = ts_calloc(1, sizeof *t);
    if (!t)
        return false;
    for (size_t i = 0; i < n; i++)
        need_places(m, need, m->states[*all[i]].first, m->states[*all[i]].n);
    for (size_t f = m->n_frames; f-- > 0;)
        if (need[f])
            need_places(m, need, m->frames[f].first, m->frames[f].n);
    mt_pair none = {0, 0};
    bool ok = mt_state_of(t, &none, 0, (mt_state){0}) == MT_DEAD && copy_frames(m, t, need, map);
    for (size_t i = 0; i < n && ok; i++)
        ok = (to[i] = copy_state(m, t, map, *all[i])) >= 0;
    if (ok) {
        take_tables(m, t);
        for (size_t i = 0; i < n; i++)
            *all[i] = to[i];
        for (size_t i = 0; i < m->n_masks; i++)
            m->states[m->masks[i].state].mask = (int32_t)i;
    } else {
        free_tables(t);
    }
    free(t);
    return ok;
}

ts_status mt_forget(ts_matcher *m, int32_t *states, size_t n, ts_error *err)
{
    size_t most = n + m->n_masks + 2;
    int32_t **all = ts_calloc(most, sizeof *all);
    int32_t *to = ts_calloc(most, sizeof *to);
    uint8_t *need = ts_calloc(m->n_frames, 1);
    int32_t *map = ts_calloc(m->n_frames, sizeof *map);
    bool ok = all && to && need && map && copy(m, all, needed(m, states, n, all), to, need, map);
    free(all);
    free(to);
    free(need);
    free(map);
    if (!ok)
        return ts_fail(err, TS_NO_MEMORY, "no memory to follow the grammar");
    size_t left = mt_size(m);
    m->room = 2 * left > m->limit ? 2 * left : m->limit;
    if (left > MT_MOST)
        return ts_fail(err, TS_UNSUPPORTED,
                       "the grammar is too ambiguous here: to follow the text takes more than "
                       "%d MiB",
                       MT_MOST >> 20);
    return TS_OK;
}

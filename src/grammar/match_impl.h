/* match_impl.h - a matcher's insides, for match.c (steps), forget.c (memory) and mask.c. */
#ifndef TS_MATCH_IMPL_H
#define TS_MATCH_IMPL_H

#include "grammar/match.h"
#include "grammar/room.h"

/* A place (CHAR node, frame) of a state, or an edge (node to go on at, its frame) of a frame. */
typedef struct mt_pair {
    int32_t node, frame;
} mt_pair;

enum { MT_ACCEPT = -1 }; /* the node of the edge which ends the text */

typedef struct mt_frame {
    uint32_t first, n; /* of pairs, sorted */
    uint32_t hash;
} mt_frame;

enum {
    MT_CAN_END = 1, /* the text is complete here (if left is 0)                           */
    MT_STEPPED = 2, /* left > 0: the places are those behind the character that is begun   */
};

typedef struct mt_state {
    uint32_t first, n; /* of pairs, sorted                                          */
    uint32_t hash;
    uint32_t row; /* 1 + where its steps are in rows; 0: none was made yet     */
    uint32_t acc; /* left > 0, not stepped: the bits of the character so far   */
    int32_t same; /* any character of `kinds` leads at least there; -1: not computed */
    uint64_t kinds;
    int32_t mask;   /* of masks, or -1                                           */
    uint8_t left;   /* bytes until the character is whole                        */
    uint8_t lo, hi; /* what the next of them may be                              */
    uint8_t flags;
    uint8_t run; /* so many of `kinds` may follow, up to TS_VOCAB_RUN; 0xff: not computed */
} mt_state;

typedef struct mt_mask {
    int32_t state; /* -1: free */
    uint64_t used; /* when     */
    size_t n;      /* allowed  */
    uint64_t *bits;
    int32_t *ids;
} mt_mask;

enum {
    MT_DEAD = 0, /* the state without places: nothing may follow */
    MT_MASKS = 256,
    MT_FEW = 4096,          /* a mask of so many is a list                        */
    MT_LIMIT = 4 << 20,     /* bytes                                              */
    MT_MOST = 512 << 20,    /* bytes that one text may need                       */
    MT_WORK = 1 << 17,      /* places looked at in one step                       */
    MT_MASK_WORK = 1 << 24, /* and for one mask                                   */
};

struct ts_matcher {
    const ts_gram *g;
    const ts_vocab *v;
    mt_pair *pairs;
    mt_frame *frames;
    mt_state *states;
    int32_t *rows; /* [][n_byte_classes] 1 + state; 0: not computed */
    size_t n_pairs, n_frames, n_states, n_rows, cap_pairs, cap_frames, cap_states, cap_rows;
    uint32_t *frame_table, *state_table; /* [size] 1 + number; 0: free */
    size_t frame_size, state_size;
    int32_t start, at; /* states of the empty text and of the text so far */
    bool ended;        /* by a token that ends a generation               */
    size_t limit;      /* asked for                                       */
    size_t room;       /* bytes at which to forget next                   */

    /* One step's scratch. */
    mt_pair *todo, *items, *edges;
    size_t n_todo, n_items, n_edges, cap_todo, cap_items, cap_edges;
    struct mt_seen {
        uint64_t key;
        uint32_t when;
    } * seen; /* [seen_size] */
    size_t seen_size, n_seen;
    uint32_t when;
    struct mt_fresh { /* edges of the frames of rules called in this step */
        mt_pair edge;
        int32_t next;
    } * fresh;
    size_t n_fresh, cap_fresh;
    int32_t *fresh_head; /* [n_rules] by rank; -1: none */
    uint64_t *called;    /* [] set of ranks             */
    int32_t n_called;
    bool can_end;
    bool short_of_memory;
    size_t work, most_work;

    mt_mask masks[MT_MASKS];
    size_t n_masks, mask_bytes;
    uint64_t clock;
    uint64_t *bits; /* [words] the mask that is being made */
    int32_t *path;  /* [TS_VOCAB_LONG + 1] states of the walk through a tree */
};

/* The state after one more byte; -1 with *err. May move everything that is allocated. */
int32_t mt_step_new(ts_matcher *m, int32_t state, uint8_t byte, ts_error *err);

static inline int32_t mt_step(ts_matcher *m, int32_t state, uint8_t byte, ts_error *err)
{
    uint32_t row = m->states[state].row;
    int32_t to = row ? m->rows[row - 1 + m->g->byte_class[byte]] : 0;
    return to ? to - 1 : mt_step_new(m, state, byte, err);
}

/* How many characters, any of the state's kinds, may follow, up to TS_VOCAB_RUN; -1 with *err. */
int32_t mt_run(ts_matcher *m, int32_t state, ts_error *err);

/* Forgets what isn't needed if there is more than allowed. states[n] are needed and get their new
 * numbers. */
ts_status mt_forget(ts_matcher *m, int32_t *states, size_t n, ts_error *err);

/* Both: the number of an equal one, or a new one; -1 when memory is short. The edges are sorted
 * and made single. */
int32_t mt_frame_of(ts_matcher *m, mt_pair *edges, size_t n);
int32_t mt_state_of(ts_matcher *m, mt_pair *places, size_t n, mt_state like);

ts_status mt_start(ts_matcher *m, ts_error *err);
void mt_free_masks(ts_matcher *m);
size_t mt_size(const ts_matcher *m);

#endif

/* pages.h - who has which page of a session's KV cache, and which tokens each page holds.
 *
 * A timeline is a list of pages of TS_PAGE positions, the last of which may be partly filled. A
 * page that is full is *known*: by its tokens and the page before it, which together say everything
 * its K and V depend on. It is never written again; any number of timelines that begin alike hold
 * it together, and when nobody does it stays, until its room is wanted. Known pages are a forest: a
 * page's parent is the one before it. Whoever holds a page holds its parents, so pages that nobody
 * holds can be let go from the leaves, those first that were used longest ago.
 *
 * A page that isn't full belongs to one timeline. This file knows nothing of devices: where page i
 * lies in each device's cache is its number. Not thread-safe. */
#ifndef TS_EXEC_PAGES_H
#define TS_EXEC_PAGES_H

#include "cpu/ops.h"
#include "tessera.h"

typedef struct ts_pages ts_pages;

ts_status ts_pages_open(ts_pages **out, int64_t n_pages, int64_t n_seqs, ts_error *err);
void ts_pages_close(ts_pages *p);

int64_t ts_pages_pos(const ts_pages *p, int64_t seq);        /* positions of the timeline     */
const int32_t *ts_pages_map(const ts_pages *p, int64_t seq); /* [n_pages] its pages, in order */

/* Makes room for n more positions of the timeline, by letting pages go that nobody holds. False:
 * there aren't as many, and nothing has changed but for what was let go. */
bool ts_pages_reserve(ts_pages *p, int64_t seq, int64_t n);

/* Gives back room that holds no position. */
void ts_pages_trim(ts_pages *p, int64_t seq);

/* tokens[n] have been computed behind the timeline, in the room that is there for them. */
void ts_pages_append(ts_pages *p, int64_t seq, const ts_token *tokens, int64_t n);

/* Empties the timeline, then gives it the known pages that tokens[n] begin with, but for the last
 * token: returns how many positions they are. */
int64_t ts_pages_begin(ts_pages *p, int64_t seq, const ts_token *tokens, int64_t n);

/* Cuts the timeline to its first pos positions. Where a known page would be cut, it loses that
 * page's too, as far as they were to stay: *n_tail tokens in tail, to be computed again. */
void ts_pages_rewind(ts_pages *p, int64_t seq, int64_t pos, ts_token tail[TS_PAGE],
                     int64_t *n_tail);

void ts_pages_info(const ts_pages *p, ts_kv_info *out);

/* --- saving --- */

/* The known pages, parents before their children: at most n_pages of them, into out. */
int64_t ts_pages_known(const ts_pages *p, int32_t *out);
int32_t ts_pages_parent(const ts_pages *p, int32_t page);         /* -1: none      */
const ts_token *ts_pages_tokens(const ts_pages *p, int32_t page); /* [TS_PAGE]     */

/* A page that is filled from elsewhere: known, held by nobody. -1: no page is free, or there is one
 * of these tokens behind this parent. */
int32_t ts_pages_add(ts_pages *p, int32_t parent, const ts_token tokens[TS_PAGE]);

/* Everything is free and every timeline is empty. */
void ts_pages_clear(ts_pages *p);

#endif

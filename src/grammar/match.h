/* match.h - a text that grows under a grammar: what may follow.
 *
 * A STATE is a set of places in the grammar, each a CHAR node and a frame: what comes after the
 * rule that the node is in. A FRAME is a set of (node to go on at, frame of that node), so that all
 * callers of a rule at one position share one frame, however many ways led there. States and frames
 * are kept once each (hash consing): equal ones have the same number, a step from one state by one
 * byte is computed once, and so is the set of tokens that a state allows.
 *
 *     root ::= "[" item "]"       after "[":  state { item's first CHAR, F1 }
 *     item ::= [0-9]+                         F1 = { (node before "]", F0) },  F0 = { (accept) }
 *
 * Within a character of several bytes a state also holds how much of it is there. Where all its
 * places take or refuse every character that can still come of it, the step is made at once and the
 * bytes left are only counted: so all of Chinese is a few states.
 *
 * A matcher owns its states and forgets those it doesn't need when they fill its memory. It belongs
 * to one thread; the grammar and the vocabulary may be shared. */
#ifndef TS_MATCH_H
#define TS_MATCH_H

#include "grammar/gram.h"
#include "grammar/vocab.h"

typedef struct ts_matcher ts_matcher;

/* Tokens that may follow: a list of few, or a set. */
typedef struct ts_mask {
    const uint64_t *bits; /* [words], or NULL                        */
    const int32_t *ids;   /* [n], rising, where bits is NULL         */
    size_t n;             /* tokens that are allowed                 */
} ts_mask;

/* Both must outlive the matcher. v may be NULL: then only bytes can be matched. */
ts_status ts_matcher_open(ts_matcher **out, const ts_gram *g, const ts_vocab *v, ts_error *err);
void ts_matcher_close(ts_matcher *m);

/* Back to the empty text. */
void ts_matcher_reset(ts_matcher *m);

/* Appends bytes to the text if the grammar allows them: *ok says so. If not, the text stays as it
 * was. TS_NO_MEMORY; TS_UNSUPPORTED where a grammar is so ambiguous that a step would take too
 * long. */
ts_status ts_matcher_bytes(ts_matcher *m, const char *s, size_t n, bool *ok, ts_error *err);

/* Appends a token, one that ends the text too; after that nothing else may follow. */
ts_status ts_matcher_accept(ts_matcher *m, int32_t id, bool *ok, ts_error *err);

/* Whether that token may follow, without appending it. */
ts_status ts_matcher_allows(ts_matcher *m, int32_t id, bool *ok, ts_error *err);

/* All tokens that may follow. Valid until the next call. */
ts_status ts_matcher_mask(ts_matcher *m, ts_mask *out, ts_error *err);

/* Makes the logits [n] of all tokens that may not follow -inf. *top is the one with the greatest of
 * all, the lowest id of equals, and becomes that of those which may; its logit may be -inf too.
 * No logit is a NaN. TS_UNSUPPORTED where no token may follow. */
ts_status ts_matcher_apply(ts_matcher *m, float *logits, size_t n, size_t *top, ts_error *err);

bool ts_matcher_can_end(const ts_matcher *m); /* the text is complete as it is     */
bool ts_matcher_at_end(const ts_matcher *m);  /* it is, and nothing more may follow */

/* Bytes that states and masks may take before those not needed are forgotten (0: as at first); and
 * what they take. For tests and measurements. */
void ts_matcher_limit(ts_matcher *m, size_t bytes);
size_t ts_matcher_size(const ts_matcher *m);

#endif

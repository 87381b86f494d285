/* ranges.h - sets of characters as ranges of code points, and how GBNF writes them. */
#ifndef TS_RANGES_H
#define TS_RANGES_H

#include "grammar/gram.h"

/* Zero-initialise; free(r). After an append that failed `failed` is set. */
typedef struct ts_ranges {
    ts_gram_range *r;
    size_t n, cap;
    bool failed;
} ts_ranges;

void ts_ranges_add(ts_ranges *s, uint32_t lo, uint32_t hi);
void ts_ranges_join(ts_ranges *s);   /* sorts, joins what touches                      */
void ts_ranges_negate(ts_ranges *s); /* all other characters up to U+10FFFF, joined    */
void ts_ranges_remove(ts_ranges *s, uint32_t lo, uint32_t hi);    /* joined               */
bool ts_ranges_has(const ts_ranges *s, uint32_t lo, uint32_t hi); /* all of them; joined */

/* "[a-z]", and "\"text\"" with what GBNF escapes; the text is UTF-8. */
void ts_gbnf_class(ts_sb *b, const ts_ranges *s);
void ts_gbnf_literal(ts_sb *b, const char *s, size_t n);

#endif

/* jinja.h - the part of Jinja2 that chat templates use, as the Python package does it.
 *
 * Templates come from model files and data from strangers, so neither is trusted. A template
 * reaches what it is given and the methods listed here, nothing else: it can't open, call or change
 * anything outside of itself. Steps, depth, output and memory have limits, each of which ends a run
 * with a sentence.
 *
 * What a template writes of its own and what it copies from the caller's data is kept apart byte by
 * byte (ts_jinja_text.mark), through slices, replacements, formats and JSON, so that text of a user
 * which looks like a control token is never taken for one (ts_tokenizer_encode_marked).
 *
 * It behaves as jinja2 3.1 on Python 3 set up as the package transformers does: an immutable
 * sandbox with trim_blocks, lstrip_blocks and loop controls; tojson without HTML escapes;
 * raise_exception and strftime_now. Not there: inheritance, inclusion and import of other
 * templates, translation, HTML autoescape, integers beyond 64 bits. */
#ifndef TS_JINJA_H
#define TS_JINJA_H

#include <jansson.h>
#include <time.h>

#include "base/status.h"

/* A parsed template. Immutable: any number of threads may render it at a time. */
typedef struct ts_jinja ts_jinja;

/* `name` stands before the line in sentences and is copied; text[n] is copied too. TS_BAD_ARG for
 * what isn't a template, TS_NO_MEMORY. */
ts_status ts_jinja_open(ts_jinja **out, const char *name, const char *text, size_t n,
                        ts_error *err);
void ts_jinja_close(ts_jinja *t);

typedef struct ts_jinja_limits {
    uint64_t steps; /* of work: a node, an element, 8 to 64 bytes of text; 0 = 50 million */
    int depth;      /* of calls, expressions and values, for which 512 KiB of stack do; 0 = 800 */
    size_t output;  /* bytes of any one text; 0 = 64 MiB                        */
    size_t memory;  /* bytes of everything a run makes; 0 = 512 MiB             */
} ts_jinja_limits;

typedef struct ts_jinja_input {
    /* Objects whose members are the template's variables; the former's strings are the caller's,
     * the latter's count as the template's own (bos_token); a name in both is the latter's. Either
     * may be NULL. A string "role" of any object in them that is one of the names in use (system,
     * user, assistant, tool, developer, function, ipython, model) counts as the template's: many
     * write tokens like <|user|> around it. */
    const json_t *vars, *trusted;
    const struct tm *now; /* for strftime_now; NULL = it is an error */
    ts_jinja_limits limits;
} ts_jinja_input;

/* free() both. */
typedef struct ts_jinja_text {
    char *s;       /* [n], and a NUL behind                     */
    uint8_t *mark; /* [n] 1: a byte of the caller's, 0: the template's */
    size_t n;
} ts_jinja_text;

/* TS_BAD_ARG: what the template raised, what it can't do with these data, or a limit; TS_NO_MEMORY.
 */
ts_status ts_jinja_render(const ts_jinja *t, const ts_jinja_input *in, ts_jinja_text *out,
                          ts_error *err);

#endif

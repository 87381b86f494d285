/* tokenizer.h - text to token ids and back, as the model's GGUF metadata says.
 *
 * Owns everything it needs (copies of the vocabulary's strings are not made: they point into the
 * mapped file, which must outlive it). Immutable once open: any number of threads may use it. */
#ifndef TS_TOKENIZER_H
#define TS_TOKENIZER_H

#include "gguf/gguf.h"

typedef struct ts_tokenizer ts_tokenizer;

ts_status ts_tokenizer_open(ts_tokenizer **out, const ts_gguf *g, ts_error *err);
void ts_tokenizer_close(ts_tokenizer *t);

int64_t ts_tokenizer_n(const ts_tokenizer *t); /* ids are 0..n-1 */

/* See ts_tokenize, ts_token_piece, ts_detokenize and ts_token_is_eog in tessera.h. */
ts_status ts_tokenizer_encode(const ts_tokenizer *t, const char *text, size_t n, unsigned flags,
                              ts_token **out, size_t *n_out, ts_error *err);
/* The same of a text that a template and a stranger wrote together: where mark[n] is not 0 the byte
 * is the stranger's, and no special token touches it. User-defined tokens are found there all the
 * same, unless they look like delimiters. mark NULL: all is the template's. */
ts_status ts_tokenizer_encode_marked(const ts_tokenizer *t, const char *text, const uint8_t *mark,
                                     size_t n, unsigned flags, ts_token **out, size_t *n_out,
                                     ts_error *err);
size_t ts_tokenizer_piece(const ts_tokenizer *t, ts_token id, bool special, const char **piece);
ts_status ts_tokenizer_decode(const ts_tokenizer *t, const ts_token *ids, size_t n, bool special,
                              char **out, size_t *n_out, ts_error *err);
bool ts_tokenizer_is_eog(const ts_tokenizer *t, ts_token id);

/* -1 if the model has none. */
ts_token ts_tokenizer_bos(const ts_tokenizer *t);
ts_token ts_tokenizer_eos(const ts_tokenizer *t);
/* Whether encoding puts BOS in front when asked for special tokens. */
bool ts_tokenizer_adds_bos(const ts_tokenizer *t);

#endif

/* utf8.h - UTF-8 as The Unicode Standard defines it (chapter 3, table 3-7): no surrogates, no
 * overlong forms, nothing above U+10FFFF. */
#ifndef TS_UTF8_H
#define TS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The character at s[0..n): its length in bytes (1..4), its code point in *cp (may be NULL). 0 when
 * no character starts here: n is 0, or the bytes are not UTF-8, or they end too early. */
size_t ts_utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes cp (at most 0x10FFFF; surrogates are written as they are) and returns its 1..4 bytes. */
size_t ts_utf8_encode(uint32_t cp, char out[4]);

/* Length of the longest prefix of s[0..n) that is whole valid characters; n when all of it is. */
size_t ts_utf8_valid(const char *s, size_t n);

/* Bytes at the end (0..3) that begin a character which bytes still to come may complete. Someone
 * who streams text holds these back and may show the rest. */
size_t ts_utf8_tail(const char *s, size_t n);

/* Bytes of s, up to its NUL, that are shown where `most` have room: no character is cut. An int for
 * "%.*s". */
int ts_utf8_cut(const char *s, size_t most);

#endif

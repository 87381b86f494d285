/* utf8.c - decoding and encoding of UTF-8. */
#include "base/utf8.h"

#include <string.h>

/* What a lead byte promises: how many bytes follow, and which range the first of them is in (the
 * range is where overlong forms, surrogates and too large code points are shut out). */
typedef struct lead {
    uint8_t follow, lo, hi;
} lead;

static bool read_lead(uint8_t b, lead *l)
{
    *l = (lead){0, 0x80, 0xbf};
    if (b < 0x80)
        return true;
    if (b < 0xc2 || b > 0xf4)
        return false;
    l->follow = b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
    if (b == 0xe0)
        l->lo = 0xa0;
    else if (b == 0xed)
        l->hi = 0x9f;
    else if (b == 0xf0)
        l->lo = 0x90;
    else if (b == 0xf4)
        l->hi = 0x8f;
    return true;
}

/* Bytes of s[0..n) that belong to the character begun at s[0], complete or not; 0 if none begins.
 */
static size_t begun(const uint8_t *s, size_t n, lead *l)
{
    if (n == 0 || !read_lead(s[0], l))
        return 0;
    size_t have = 1;
    while (have < n && have <= l->follow) {
        uint8_t lo = have == 1 ? l->lo : 0x80, hi = have == 1 ? l->hi : 0xbf;
        if (s[have] < lo || s[have] > hi)
            return 0;
        have++;
    }
    return have;
}

size_t ts_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const uint8_t *b = (const uint8_t *)s;
    lead l;
    size_t have = begun(b, n, &l);
    if (have == 0 || have != (size_t)l.follow + 1)
        return 0;
    if (cp) {
        static const uint8_t payload[4] = {0x7f, 0x1f, 0x0f, 0x07};
        uint32_t c = b[0] & payload[l.follow];
        for (size_t i = 1; i < have; i++)
            c = c << 6 | (b[i] & 0x3f);
        *cp = c;
    }
    return have;
}

size_t ts_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3f));
        cp >>= 6;
    }
    static const uint8_t mark[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(mark[n] | cp);
    return n;
}

size_t ts_utf8_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t len = (uint8_t)s[i] < 0x80 ? 1 : ts_utf8_decode(s + i, n - i, NULL);
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

size_t ts_utf8_tail(const char *s, size_t n)
{
    const uint8_t *b = (const uint8_t *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        if ((b[n - back] & 0xc0) == 0x80)
            continue;
        lead l;
        size_t have = begun(b + n - back, back, &l);
        return have == back && have <= l.follow ? back : 0;
    }
    return 0;
}

int ts_utf8_cut(const char *s, size_t most)
{
    const size_t n = strnlen(s, most);
    return (int)(n < most ? n : n - ts_utf8_tail(s, n));
}

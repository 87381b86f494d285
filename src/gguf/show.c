/* show.c - see show.h. */
#include "gguf/show.h"

const char *ts_show(ts_shown *b, const char *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (i == TS_SHOW_MAX) {
            for (int k = 0; k < 3; k++)
                b->s[o++] = '.';
            break;
        }
        if (c >= 0x20 && c < 0x7f && c != '\\') {
            b->s[o++] = (char)c;
        } else {
            b->s[o++] = '\\';
            b->s[o++] = 'x';
            b->s[o++] = hex[c >> 4];
            b->s[o++] = hex[c & 15];
        }
    }
    b->s[o] = 0;
    return b->s;
}

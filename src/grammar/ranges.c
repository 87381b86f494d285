/* ranges.c - sets of characters. */
#include "grammar/ranges.h"

#include <string.h>

#include "grammar/room.h"

static int by_lo(const void *a, const void *b)
{
    const ts_gram_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void ts_ranges_add(ts_ranges *s, uint32_t lo, uint32_t hi)
{
    if (!TS_ROOM(s->r, s->n, s->cap))
        s->failed = true;
    else
        s->r[s->n++] = (ts_gram_range){lo, hi};
}

void ts_ranges_join(ts_ranges *s)
{
    size_t m = 0;
    if (s->n > 1)
        qsort(s->r, s->n, sizeof *s->r, by_lo);
    for (size_t i = 0; i < s->n; i++) {
        if (m > 0 && s->r[i].lo <= s->r[m - 1].hi + 1)
            s->r[m - 1].hi = s->r[i].hi > s->r[m - 1].hi ? s->r[i].hi : s->r[m - 1].hi;
        else
            s->r[m++] = s->r[i];
    }
    s->n = m;
}

void ts_ranges_negate(ts_ranges *s)
{
    ts_ranges_join(s);
    size_t n = s->n;
    uint32_t lo = 0;
    for (size_t i = 0; i < n && !s->failed; i++) {
        ts_gram_range r = s->r[i];
        if (r.lo > lo)
            ts_ranges_add(s, lo, r.lo - 1);
        lo = r.hi + 1;
    }
    if (lo <= 0x10ffff)
        ts_ranges_add(s, lo, 0x10ffff);
    if (s->failed || n == 0)
        return;
    memmove(s->r, s->r + n, (s->n - n) * sizeof *s->r);
    s->n -= n;
}

void ts_ranges_remove(ts_ranges *s, uint32_t lo, uint32_t hi)
{
    size_t n = s->n, m = 0;
    for (size_t i = 0; i < n; i++) {
        ts_gram_range r = s->r[i];
        if (r.lo < lo && r.hi > hi) { /* it falls in two */
            s->r[m++] = (ts_gram_range){r.lo, lo - 1};
            memmove(s->r + m, s->r + i + 1, (n - i - 1) * sizeof *s->r);
            s->n = m + n - i - 1;
            ts_ranges_add(s, hi + 1, r.hi);
            ts_ranges_join(s);
            return;
        }
        if (r.lo >= lo && r.hi <= hi)
            continue;
        if (r.lo < lo && r.hi >= lo)
            r.hi = lo - 1;
        else if (r.lo <= hi && r.hi > hi)
            r.lo = hi + 1;
        s->r[m++] = r;
    }
    s->n = m;
}

bool ts_ranges_has(const ts_ranges *s, uint32_t lo, uint32_t hi)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->r[i].lo <= lo && s->r[i].hi >= hi)
            return true;
    return false;
}

/* --- as GBNF ------------------------------------------------------------------------ */

static void put(ts_sb *b, uint32_t cp)
{
    if (cp == '\n')
        ts_sb_str(b, "\\n");
    else if (cp == '\\' || cp == ']' || cp == '[' || cp == '^' || cp == '-')
        ts_sb_printf(b, "\\%c", (char)cp);
    else if (cp >= 0x20 && cp < 0x7f)
        ts_sb_printf(b, "%c", (char)cp);
    else
        ts_sb_printf(b, cp < 0x100 ? "\\x%02X" : cp < 0x10000 ? "\\u%04X" : "\\U%08X", cp);
}

void ts_gbnf_class(ts_sb *b, const ts_ranges *s)
{
    ts_sb_str(b, "[");
    for (size_t i = 0; i < s->n; i++) {
        put(b, s->r[i].lo);
        if (s->r[i].hi > s->r[i].lo + 1)
            ts_sb_str(b, "-");
        if (s->r[i].hi > s->r[i].lo)
            put(b, s->r[i].hi);
    }
    ts_sb_str(b, "]");
}

void ts_gbnf_literal(ts_sb *b, const char *s, size_t n)
{
    ts_sb_str(b, "\"");
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\')
            ts_sb_printf(b, "\\%c", s[i]);
        else if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
            ts_sb_printf(b, "\\x%02X", (unsigned)s[i]);
        else
            ts_sb_add(b, s + i, 1);
    }
    ts_sb_str(b, "\"");
}

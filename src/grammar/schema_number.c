/* schema_number.c - numbers between bounds, as GBNF.
 *
 * A bounded number is written without an exponent. Bounds become decimal digits, and a range of
 * digits is cut where its ends differ: 23..587 is 23..29, 30..99 and 100..587; 100..587 is 1xx to
 * 4xx, 500..579 and 580..587. Of fractions the same, from the point on. */
#include "grammar/schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where no bound says more: the largest whole number, and digits of a fraction. They are few, so
 * that a number below a bound doesn't become the bound when it is read. */
#define WHOLE UINT64_C(9999999999999999)
enum { FRACTION = 8 };

/* --- digits of integers ----------------------------------------------------------------- */

static void put_digits(ts_sb *b, size_t n)
{
    if (n > 0)
        ts_sb_printf(b, " [0-9]{%zu}", n);
}

/* All texts of n digits from lo to hi. */
static void same_length(ts_sb *b, const char *lo, const char *hi, size_t n)
{
    size_t same = 0;
    while (same < n && lo[same] == hi[same])
        same++;
    if (same > 0)
        ts_sb_printf(b, " \"%.*s\"", (int)same, lo);
    lo += same;
    hi += same;
    n -= same;
    if (n == 0)
        return;
    bool from_0 = strspn(lo + 1, "0") >= n - 1, to_9 = strspn(hi + 1, "9") >= n - 1;
    char a = (char)(lo[0] + !from_0), z = (char)(hi[0] - !to_9);
    char all[24];
    const char *sep = "";
    ts_sb_str(b, " (");
    if (!from_0) {
        memset(all, '9', n);
        ts_sb_printf(b, "\"%c\"", lo[0]);
        same_length(b, lo + 1, all, n - 1);
        sep = " | ";
    }
    if (a <= z) {
        ts_sb_printf(b, "%s[%c-%c]", sep, a, z);
        put_digits(b, n - 1);
        sep = " | ";
    }
    if (!to_9) {
        memset(all, '0', n);
        ts_sb_printf(b, "%s\"%c\"", sep, hi[0]);
        same_length(b, all, hi + 1, n - 1);
    }
    ts_sb_str(b, ")");
}

/* lo <= hi, both of at most 20 digits. */
static void between(ts_sb *b, uint64_t lo, uint64_t hi)
{
    char l[24], h[24];
    const char *sep = "";
    ts_sb_str(b, "(");
    for (;;) {
        int n = snprintf(l, sizeof l, "%llu", (unsigned long long)lo);
        uint64_t last = UINT64_MAX;
        if (n < 20) {
            last = 1;
            for (int i = 0; i < n; i++)
                last *= 10;
            last--;
        }
        uint64_t end = hi < last ? hi : last;
        snprintf(h, sizeof h, "%llu", (unsigned long long)end);
        ts_sb_str(b, sep);
        same_length(b, l, h, (size_t)n);
        if (end == hi)
            break;
        lo = end + 1;
        sep = " |";
    }
    ts_sb_str(b, ")");
}

/* --- bounds -------------------------------------------------------------------------------- */

/* One end of the numbers that are allowed, as a magnitude: whole and fraction. */
typedef struct edge {
    bool given, open; /* open: it doesn't belong to them itself  */
    bool minus;       /* below zero                              */
    uint64_t whole;
    char frac[20]; /* digits behind the point, no 0 at their end */
} edge;

/* Exactly the number, if it has at most 15 digits behind the point and isn't huge. */
static ts_status read_edge(sc *c, const json_t *v, bool open, edge *e)
{
    *e = (edge){.given = true, .open = open};
    if (json_is_integer(v)) {
        json_int_t i = json_integer_value(v);
        e->minus = i < 0;
        e->whole = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
        return TS_OK;
    }
    double d = json_real_value(v);
    char buf[64];
    e->minus = d < 0;
    for (int digits = 0; digits <= 15 && fabs(d) < 1e15; digits++) {
        snprintf(buf, sizeof buf, "%.*f", digits, fabs(d));
        if (strtod(buf, NULL) != fabs(d))
            continue;
        char *point = strchr(buf, '.');
        e->whole = strtoull(buf, NULL, 10);
        snprintf(e->frac, sizeof e->frac, "%s", point ? point + 1 : "");
        for (size_t n = strlen(e->frac); n > 0 && e->frac[n - 1] == '0';)
            e->frac[--n] = 0;
        return TS_OK;
    }
    return sc_fail(c, TS_UNSUPPORTED, "the bound %g has too many digits", d);
}

static int compare_edges(const edge *a, const edge *b)
{
    int d = (a->whole > b->whole) - (a->whole < b->whole);
    if (a->minus != b->minus)
        return a->minus ? -1 : 1;
    if (d == 0)
        d = strcmp(a->frac, b->frac);
    return a->minus ? -d : d;
}

/* The tighter of an inclusive and an exclusive bound. */
static ts_status read_bound(sc *c, const json_t *flat, const char *key, const char *open_key,
                            edge *e)
{
    const json_t *v = json_object_get(flat, key), *w = json_object_get(flat, open_key);
    edge o;
    ts_status st = v ? read_edge(c, v, false, e) : TS_OK;
    if (st || !w || (st = read_edge(c, w, true, &o)))
        return st;
    int d = v ? compare_edges(&o, e) : 0;
    if (!v || d == 0 || (key[1] == 'i' ? d > 0 : d < 0))
        *e = o;
    return TS_OK;
}

/* --- fractions ------------------------------------------------------------------------ */

/* What digits behind the point, or behind those that are level with a bound so far, must be at
 * least (lo) and at most (hi): as digits; NULL: no such bound. */
typedef struct limits {
    const char *lo, *hi;
    bool lo_open, hi_open;
} limits;

/* Whether no digits, which is zero, are within the limits; and whether any are. */
static bool zero_fits(const limits *k)
{
    return (!k->lo || (!*k->lo && !k->lo_open)) && (!k->hi || *k->hi || !k->hi_open);
}

static bool any_fits(const limits *k)
{
    int d = k->lo && k->hi ? strcmp(k->lo, k->hi) : -1;
    return d == 0 ? !k->lo_open && !k->hi_open : d < 0 && (k->lo || zero_fits(k));
}

/* The limits behind the next digit; false if that is out of them already. */
static bool behind(const limits *k, int digit, limits *out)
{
    int l = k->lo ? (*k->lo ? *k->lo - '0' : 0) : -1, h = k->hi ? (*k->hi ? *k->hi - '0' : 0) : 10;
    *out = *k;
    out->lo = digit == l ? k->lo + (*k->lo != 0) : NULL;
    out->hi = digit == h ? k->hi + (*k->hi != 0) : NULL;
    return digit >= l && digit <= h && any_fits(out);
}

/* One digit or more; some fit. */
static void put_fraction(ts_sb *b, const limits *k)
{
    const char *sep = "";
    bool above_0 = k->lo && !*k->lo && k->lo_open, at_least_0 = !k->lo || (!*k->lo && !k->lo_open);
    if (!k->hi && (above_0 || at_least_0)) {
        if (above_0)
            ts_sb_printf(b, "(\"0\"{0,%d} [1-9] [0-9]{0,%d})", FRACTION - 1, FRACTION - 1);
        else
            ts_sb_printf(b, "[0-9]{1,%d}", FRACTION);
        return;
    }
    if (k->hi && !*k->hi) { /* it can be zero only */
        ts_sb_printf(b, "\"0\"{1,%d}", FRACTION);
        return;
    }
    ts_sb_str(b, "(");
    for (int d = 0; d <= 9; d++) {
        limits next, after;
        if (!behind(k, d, &next))
            continue;
        int last = d; /* digits after which all is free go together */
        while (!next.lo && !next.hi && last < 9 && behind(k, last + 1, &after) && !after.lo &&
               !after.hi)
            last++;
        ts_sb_printf(b, "%s[%d-%d] ", sep, d, last);
        put_fraction(b, &next);
        if (zero_fits(&next))
            ts_sb_str(b, "?");
        sep = " | ";
        d = last;
    }
    ts_sb_str(b, ")");
}

/* --- numbers ------------------------------------------------------------------------------ */

typedef struct list {
    ts_sb *b;
    const char *minus;
    bool integer, any;
} list;

static void next_part(list *l)
{
    ts_sb_printf(l->b, "%s%s", l->any ? " | " : "", l->minus);
    l->any = true;
}

/* One whole number and the fractions within the limits. */
static void put_level(list *l, uint64_t whole, const limits *k)
{
    if (!any_fits(k))
        return;
    next_part(l);
    ts_sb_printf(l->b, "\"%llu\" ", (unsigned long long)whole);
    ts_sb_str(l->b, zero_fits(k) ? "(\".\" " : "\".\" ");
    put_fraction(l->b, k);
    if (zero_fits(k))
        ts_sb_str(l->b, ")?");
}

static void put_whole(list *l, uint64_t lo, uint64_t hi)
{
    if (lo > hi)
        return;
    next_part(l);
    between(l->b, lo, hi);
    if (!l->integer)
        ts_sb_printf(l->b, " (\".\" [0-9]{1,%d})?", FRACTION);
}

/* Magnitudes from lo to hi. */
static void put_range(list *l, const edge *lo, const edge *hi)
{
    uint64_t most = lo->whole < WHOLE ? WHOLE : INT64_MAX; /* what readers take */
    if (hi->given)
        most = hi->whole;
    if (l->integer) {
        bool up = *lo->frac || lo->open, down = hi->given && !*hi->frac && hi->open;
        if ((up && lo->whole == UINT64_MAX) || (down && most == 0))
            return;
        put_whole(l, lo->whole + up, most - down);
        return;
    }
    limits from = {lo->frac, NULL, lo->open, false}, to = {NULL, hi->frac, false, hi->open};
    if (hi->given && lo->whole == hi->whole) {
        from.hi = hi->frac;
        from.hi_open = hi->open;
        put_level(l, lo->whole, &from);
    } else if (lo->whole < most) {
        put_level(l, lo->whole, &from);
        put_whole(l, lo->whole + 1, hi->given ? most - 1 : most);
        if (hi->given)
            put_level(l, hi->whole, &to);
    }
}

ts_status sc_number(sc *c, const json_t *flat, bool integer, ts_sb *b)
{
    list l = {.b = b, .minus = "", .integer = integer};
    edge lo = {0}, hi = {0}, none = {0};
    ts_status st = read_bound(c, flat, "minimum", "exclusiveMinimum", &lo);
    if (!st)
        st = read_bound(c, flat, "maximum", "exclusiveMaximum", &hi);
    if (st)
        return st;
    if (!lo.given && !hi.given) {
        sc_use(c, b, integer ? SC_INTEGER : SC_NUMBER, integer ? "integer" : "number");
        return TS_OK;
    }
    ts_sb_str(b, "(");
    if (!(hi.given && hi.minus))
        put_range(&l, lo.given && !lo.minus ? &lo : &none, &hi);
    none.open = true; /* there is no -0 */
    l.minus = "\"-\" ";
    if (!(lo.given && !lo.minus))
        put_range(&l, hi.given && hi.minus ? &hi : &none, &lo);
    if (!l.any)
        sc_use(c, b, SC_NONE, "none");
    ts_sb_str(b, ")");
    return TS_OK;
}

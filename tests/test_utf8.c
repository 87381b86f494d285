/* test_utf8.c - every code point there and back; what is not UTF-8 is refused; tails of streams. */
#include <string.h>

#include "base/status.h"
#include "base/utf8.h"
#include "check.h"

/* Straight from table 3-7 of The Unicode Standard: the well-formed sequences of up to 4 bytes. */
static size_t by_table(const uint8_t *b, size_t n)
{
    static const uint8_t row[9][9] = {
        {1, 0x00, 0x7f},
        {2, 0xc2, 0xdf, 0x80, 0xbf},
        {3, 0xe0, 0xe0, 0xa0, 0xbf, 0x80, 0xbf},
        {3, 0xe1, 0xec, 0x80, 0xbf, 0x80, 0xbf},
        {3, 0xed, 0xed, 0x80, 0x9f, 0x80, 0xbf},
        {3, 0xee, 0xef, 0x80, 0xbf, 0x80, 0xbf},
        {4, 0xf0, 0xf0, 0x90, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
        {4, 0xf1, 0xf3, 0x80, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
        {4, 0xf4, 0xf4, 0x80, 0x8f, 0x80, 0xbf, 0x80, 0xbf},
    };
    for (int r = 0; r < 9; r++) {
        size_t len = row[r][0], i = 0;
        while (i < len && i < n && b[i] >= row[r][1 + 2 * i] && b[i] <= row[r][2 + 2 * i])
            i++;
        if (i == len)
            return len;
    }
    return 0;
}

static void test_code_points(void)
{
    char b[4];
    uint32_t bad = 0;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint32_t back = ~0u;
        size_t n = ts_utf8_encode(cp, b), got = ts_utf8_decode(b, n, &back);
        bool surrogate = cp >= 0xd800 && cp < 0xe000;
        if (surrogate ? got != 0 : got != n || back != cp)
            bad++;
        if (!surrogate && n > 1 &&
            (ts_utf8_decode(b, n - 1, NULL) || ts_utf8_tail(b, n - 1) != n - 1))
            bad++;
    }
    CHECK_MSG(bad == 0, "%u code points", bad);
}

static void test_against_table(void)
{
    uint32_t bad = 0;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        uint8_t b[3] = {(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
        if (ts_utf8_decode((const char *)b, 3, NULL) != by_table(b, 3))
            bad++;
    }
    uint64_t seed = 1;
    for (int i = 0; i < 2000000; i++) {
        uint64_t r = rnd_u64(&seed);
        uint8_t b[4] = {(uint8_t)(0xf0 | (r & 7)), (uint8_t)(0x80 | (r >> 8 & 0x7f)),
                        (uint8_t)(r >> 16 & (r >> 40 & 1 ? 0xff : 0xbf)),
                        (uint8_t)(0x80 | (r >> 24 & 0x3f))};
        if (ts_utf8_decode((const char *)b, 4, NULL) != by_table(b, 4))
            bad++;
    }
    CHECK_MSG(bad == 0, "%u sequences", bad);
}

static void test_strings(void)
{
    static const struct {
        const char *s;
        size_t valid, tail;
    } cases[] = {
        {"", 0, 0},
        {"plain", 5, 0},
        {"caf\xc3\xa9", 5, 0},
        {"caf\xc3", 3, 1},
        {"\xe2\x82", 0, 2},
        {"a\xf0\x9f\x98", 1, 3},
        {"a\xf0\x9f\x98\x80", 5, 0},
        {"a\x80", 1, 0},
        {"a\x80\x80\x80\x80", 1, 0},
        {"\xc3\xc3", 0, 1},
        {"a\xff", 1, 0},
        {"a\xc0", 1, 0},
        {"a\xe0\x80", 1, 0},
        {"a\xed\xa0", 1, 0},
        {"a\xf4\x90", 1, 0},
        {"\xe2\x82\xac\xe2", 3, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].s);
        CHECK_MSG(ts_utf8_valid(cases[i].s, n) == cases[i].valid, "case %zu", i);
        CHECK_MSG(ts_utf8_tail(cases[i].s, n) == cases[i].tail, "case %zu", i);
    }
}

static void test_cut(void)
{
    CHECK(ts_utf8_cut("", 3) == 0 && ts_utf8_cut("abc", 4) == 3 && ts_utf8_cut("abc", 2) == 2);
    CHECK(ts_utf8_cut("a\xc3\xa9z", 2) == 1 && ts_utf8_cut("a\xc3\xa9z", 3) == 3);
    CHECK(ts_utf8_cut("\xf0\x9f\x98\x80", 3) == 0 && ts_utf8_cut("\xf0\x9f\x98\x80", 5) == 4);
    ts_error err;
    char many[600];
    for (int shift = 0; shift < 2; shift++) {
        snprintf(many, sizeof many, "%s", shift ? "a" : "");
        for (int i = 0; i < 290; i++)
            strcat(many, "\xc3\xa9");
        ts_fail(&err, TS_IO, "%s", many);
        const size_t n = strlen(err.msg);
        CHECK(n > sizeof err.msg - 4 && ts_utf8_valid(err.msg, n) == n &&
              !strcmp(err.msg + n - 3, "..."));
    }
}

int main(void)
{
    test_cut();
    test_code_points();
    test_against_table();
    test_strings();
    return check_done("utf8");
}

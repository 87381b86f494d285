/* test_json.c - JSON read with its flags, and written as Python's json.dumps writes it. */
#include <string.h>

#include "check.h"
#include "grammar/json.h"

/* What is read and written again, or the sentence behind "! ". */
static void again(const char *s, unsigned flags, const char *want)
{
    json_t *v = NULL;
    ts_sb b = {0};
    ts_error err = {0};
    ts_status st = ts_json_read(&v, s, strlen(s), "it", flags, &err);
    if (st)
        ts_sb_printf(&b, "! %s", err.msg);
    else
        ts_json_write(v, &b, flags);
    REQUIRE(!b.failed);
    bool same = *want == '!' ? *b.s == '!' && strstr(b.s, want + 2) : !strcmp(b.s, want);
    CHECK_MSG(same, "'%s' (%u) gives '%s', not '%s'", s, flags, b.s, want);
    ts_sb_free(&b);
    json_decref(v);
}

static void test_flags(void)
{
    again("\"a\\u0000b\"", 0, "! it isn't JSON: line 1, column 9: \\u0000 can't be taken");
    again("\"a\\u0000b\"", TS_JSON_NUL, "\"a\\u0000b\"");
    again("[{\"x\": [\"\\u0000\"]}]", TS_JSON_NUL, "[{\"x\": [\"\\u0000\"]}]");
    again("{\"a\\u0000b\": 1}", TS_JSON_NUL, "! \\u0000 can't be taken");
    again("{\"a\": 1, \"b\": 2, \"a\": 3}", 0, "! a name is there twice (duplicate)");
    again("{\"a\": 1, \"b\": 2, \"a\": 3}", TS_JSON_TWICE, "{\"a\": 3, \"b\": 2}");
    again("{\"a\": \"\\u0000\"}", TS_JSON_TWICE, "! \\u0000 can't be taken");
}

static void test_written(void)
{
    static const char *const same[] = {
        "{\"a\": [1, 2.5, null, true, false], \"b\": {}, \"c\": []}",
        "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001f\x7f/äß🦆\"",
        ("[0.1, 1.0, -0.0, 1e+16, 123456789012345.0, 1.5e-05, 0.0001, 5e-324, "
         "1.7976931348623157e+308, 0.30000000000000004]"),
        "[-9223372036854775808, 9223372036854775807, 0]",
        "\"\"",
        "{\"\": \"\"}",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        again(same[i], 0, same[i]);
    again("[1E2,10000000000000000.0,18446744073709551616]", 0,
          "[100.0, 1e+16, 1.8446744073709552e+19]");
    again("{\"a\":[1,{\"b\":2}],\"c\":[],\"d\":{}}", TS_JSON_LINES,
          "{\n \"a\": [\n  1,\n  {\n   \"b\": 2\n  }\n ],\n \"c\": [],\n \"d\": {}\n}");
}

int main(void)
{
    test_flags();
    test_written();
    return check_done("json");
}

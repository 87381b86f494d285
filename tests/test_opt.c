/* test_opt.c - the option parser: every kind of value, every error sentence, the help page. */
#include <string.h>

#include "check.h"

/* The parser belongs to the program, not to the library, so its source is compiled in here. */
#include "../cli/opt.c"
#include "../cli/report.c"

typedef struct values {
    const char *model, *format;
    int64_t n, ctx;
    double temp;
    bool json;
    opt_strs many, lines;
    bool list;
    opt_ints lens;
} values;

static values v;
static bool help;
static ts_error err;

static const opt table[] = {
    OPT("Model", "-m, --model", OPT_STR, &v.model, "FILE", "GGUF file", .required = true),
    OPT("Text", "-n, --predict, --n-predict", OPT_INT, &v.n, "N", "tokens to make", .min = -1,
        .max = 1000000),
    OPT("Text", "-c, --ctx-size", OPT_INT, &v.ctx, "N", "positions", .min = 1, .max = 4096),
    OPT("Text", "--temp, --temperature", OPT_FLOAT, &v.temp, "T", "temperature", .min = 0,
        .max = 10),
    OPT("Output", "--json", OPT_FLAG, &v.json, NULL, "print JSON"),
    OPT("Output", "-o, --output", OPT_CHOICE, &v.format, "md|json|csv", "format",
        .choices = "md|json|csv"),
    OPT("Output", "--many", OPT_STRS, &v.many, "A,B", "several words"),
    OPT("Output", "--line", OPT_LINES, &v.lines, "A,B", "a line"),
    OPT("Output", "--list", OPT_FLAG, &v.list, NULL, "list them", .alone = true),
    OPT("Output", "-p, --n-prompt", OPT_INTS, &v.lens, "N,N", "several numbers", .min = 0,
        .max = 100000),
};
static const opt_cmd cmd = {
    "say", "says a thing", "-m FILE [options]", "tessera say -m m.gguf", OPT_TABLE(table),
};

/* Parses the words of `line` (split at spaces; "''" is an empty word). */
static ts_status parse_line(const opt_cmd *c, const char *line)
{
    static char copy[4096];
    char *argv[64] = {(char *)"say"}, *save;
    int argc = 1;

    opt_strs_free(&v.many);
    opt_strs_free(&v.lines);
    v = (values){.n = 128, .format = "md", .temp = 0.8, .lens = {.n = 1, .v = {512}}};
    memset(&err, 0, sizeof err);
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = strcmp(w, "''") ? w : w + 2;
    return opt_parse(c, argc, argv, &help, &err);
}

static void good(const char *line)
{
    CHECK_MSG(parse_line(&cmd, line) == TS_OK && !help, "%s -> %s", line, err.msg);
}

static void bad(const char *line, const char *sentence)
{
    CHECK_MSG(parse_line(&cmd, line) == TS_BAD_ARG, "%s is taken", line);
    CHECK_MSG(strstr(err.msg, sentence) != NULL, "%s -> %s", line, err.msg);
    CHECK(v.many.n == 0 && v.lines.n == 0);
}

static void test_lines(void)
{
    char many[4096] = "-m x";
    good("-m x --line a,b --line=c --line ''");
    CHECK(v.lines.n == 3 && !strcmp(v.lines.v[0], "a,b") && !strcmp(v.lines.v[1], "c") &&
          !*v.lines.v[2]);
    for (int i = 0; i < 9; i++)
        strcat(many, " --line a --many a,b,c,d,e,f,g,h");
    bad(many, "--many takes at most 64 elements");
    bad("--line a", "say needs -m FILE");
    good("--list"); /* what is required isn't */
    CHECK(v.list && !v.model);
    bad("--list=1", "--list takes no value");
}

static void test_values(void)
{
    test_lines();
    good("-m a.gguf");
    CHECK(!strcmp(v.model, "a.gguf") && v.n == 128 && !v.json && v.lens.n == 1);
    good("--model=a=b --n-predict=7 --json --temp 1e-1 -o json");
    CHECK(!strcmp(v.model, "a=b") && v.n == 7 && v.json && v.temp == 0.1);
    CHECK(!strcmp(v.format, "json"));
    good("-m m -n -1 -c 4096");
    CHECK(v.n == -1 && v.ctx == 4096);
    good("-m m --n_predict 5 --ctx_size=9");
    CHECK(v.n == 5 && v.ctx == 9);
    good("-m m --many a,b --many c");
    CHECK(v.many.n == 3 && !strcmp(v.many.v[1], "b") && !strcmp(v.many.v[2], "c"));
    good("-m m -p 1,2 -p 3");
    CHECK(v.lens.n == 3 && v.lens.v[0] == 1 && v.lens.v[2] == 3);
    good("-m m --json --json");
    good("-m=-n");
    CHECK(!strcmp(v.model, "-n"));
    good("-m -");
    CHECK(!strcmp(v.model, "-"));
    good("-m=");
    CHECK(!strcmp(v.model, ""));
}

static void test_errors(void)
{
    bad("", "say needs -m FILE");
    bad("-m", "-m needs a value (FILE)");
    bad("-m -n 5", "-m needs a value (FILE), but '-n' follows");
    bad("-m a -m b", "-m is given twice");
    bad("-m a --model b", "--model is given twice");
    bad("-m a -n", "-n needs a value (N)");
    bad("-m a -n abc", "-n takes a whole number, not 'abc'");
    bad("-m a -n 1.5", "-n takes a whole number, not '1.5'");
    bad("-m a -n 5x", "not '5x'");
    bad("-m a -n 0x10", "not '0x10'");
    bad("-m a -n ''", "-n takes a whole number, not ''");
    bad("-m a -n=", "-n takes a whole number, not ''");
    bad("-m a -n -2", "-n must be from -1 to 1000000, not '-2'");
    bad("-m a -n 1000001", "-n must be from -1 to 1000000");
    bad("-m a -n 99999999999999999999999", "-n must be from -1 to 1000000");
    bad("-m a -n -99999999999999999999999", "-n must be from -1 to 1000000");
    bad("-m a -c 0", "-c must be from 1 to 4096, not '0'");
    bad("-m a --temp hot", "--temp takes a number, not 'hot'");
    bad("-m a --temp nan", "--temp takes a number, not 'nan'");
    bad("-m a --temp inf", "not 'inf'");
    bad("-m a --temp 1e999", "not '1e999'");
    bad("-m a --temp -0.5", "--temp must be from 0 to 10, not '-0.5'");
    bad("-m a --temp 0x1p3", "not '0x1p3'");
    bad("-m a --json=yes", "--json takes no value, but is given 'yes'");
    bad("-m a -o xml", "-o is one of md|json|csv, not 'xml'");
    bad("-m a -o m", "-o is one of md|json|csv, not 'm'");
    bad("-m a -o ''", "-o is one of md|json|csv, not ''");
    bad("-m a --many a,,b", "--many has an empty element in 'a,,b'");
    bad("-m a --many a,", "--many has an empty element in 'a,'");
    bad("-m a -p 1,x", "-p takes a whole number, not 'x'");
    bad("-m a -p 1,-5", "-p must be from 0 to 100000, not '-5'");
    bad("-m a stray", "say has no use for the argument 'stray'");
    bad("-m a -- --json", "say has no use for the argument '--json'");
}

static void test_unknown(void)
{
    bad("--modle x", "unknown option '--modle'; the nearest is '--model'");
    bad("--mdoel x", "the nearest is '--model'");
    bad("--temprature 1", "the nearest is '--temperature'");
    bad("--jsno", "the nearest is '--json'");
    bad("--js", "the nearest is '--json'");
    bad("--n-predic=4", "unknown option '--n-predic'; the nearest is '--n-predict'");
    bad("-model x", "the nearest is '--model'");
    bad("-q", "unknown option '-q'; the nearest is '-");
    char line[3000] = "--";
    memset(line + 2, 'x', 2900);
    CHECK(parse_line(&cmd, line) == TS_BAD_ARG);

    static const char *const words[] = {"run", "bench", "plan"};
    CHECK(!strcmp(opt_nearest("bnech", words, 3), "bench"));
    CHECK(!strcmp(opt_nearest("rnu", words, 3), "run"));
    CHECK(!strcmp(opt_nearest("plane", words, 3), "plan"));
    CHECK(opt_nearest("x", words, 0) == NULL);
    CHECK(distance("", "abc") == 3 && distance("abc", "") == 3 && distance("", "") == 0);
    CHECK(distance("kitten", "sitting") == 3);
    CHECK(distance("ca", "abc") == 3); /* optimal string alignment: a swapped pair isn't edited */
    CHECK(distance("ab", "ba") == 1);
}

static void test_list_is_bounded(void)
{
    char line[1000] = "-m a -p ";
    for (int i = 0; i < OPT_LIST_MAX; i++)
        strcat(line, i ? ",1" : "1");
    good(line);
    CHECK(v.lens.n == OPT_LIST_MAX);
    strcat(line, ",1");
    bad(line, "-p takes at most 64 elements");
}

static void test_positional(void)
{
    static const opt one[] = {
        OPT("Model", NULL, OPT_STR, &v.model, "MODEL", "GGUF file", .required = true),
        OPT("Output", "--json", OPT_FLAG, &v.json, NULL, "print JSON"),
    };
    static const opt_cmd show = {"show", "shows", "MODEL", "tessera show m.gguf", OPT_TABLE(one)};

    CHECK(parse_line(&show, "--json a.gguf") == TS_OK && !strcmp(v.model, "a.gguf") && v.json);
    CHECK(parse_line(&show, "-- -a.gguf") == TS_OK && !strcmp(v.model, "-a.gguf"));
    CHECK(parse_line(&show, "") == TS_BAD_ARG && strstr(err.msg, "show needs a MODEL"));
    CHECK(parse_line(&show, "a b") == TS_BAD_ARG && strstr(err.msg, "the argument 'b'"));
}

static void test_help(void)
{
    CHECK(parse_line(&cmd, "--help") == TS_OK && help);
    CHECK(parse_line(&cmd, "--many a,b -h --nonsense") == TS_OK && help && v.many.n == 0);
    good("-m m");
    char *text = opt_help(&cmd);
    REQUIRE(text != NULL);
    CHECK(strstr(text, "tessera say - says a thing\n\nUsage: tessera say -m FILE [options]\n"));
    CHECK(strstr(text, "\nModel:\n  -m, --model FILE "));
    CHECK(strstr(text, "tokens to make (default: 128)"));
    CHECK(strstr(text, "temperature (default: 0.8)"));
    CHECK(strstr(text, "several numbers (default: 512)"));
    CHECK(strstr(text, "format (default: md)"));
    CHECK(strstr(text, "print JSON\n"));
    CHECK(strstr(text, "\nExample:\n  tessera say -m m.gguf\n"));
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n')
        CHECK_MSG(strcspn(p, "\n") <= 100, "%.*s", (int)strcspn(p, "\n"), p);
    free(text);
}

int main(void)
{
    test_values();
    test_errors();
    test_unknown();
    test_list_is_bounded();
    test_positional();
    test_help();
    opt_strs_free(&v.many);
    return check_done("opt");
}

/* test_jinja.c - the interpreter of templates: every construct against jinja2's own results
 * (chat/snippets.txt), sentences, limits, and whose bytes the text is made of. */
#include "chat/chat_case.h"

/* --- against jinja2 ----------------------------------------------------------------- */

static const char *next_snippet(char **rest)
{
    char *s = *rest, *end = s ? strstr(s, "\n%%%\n") : NULL;
    if (end) {
        *end = 0;
        *rest = end + 5;
    } else {
        *rest = NULL;
    }
    return s;
}

static void test_snippets(void)
{
    size_t n, i = 0;
    char *all = chat_file("snippets.txt", &n), *rest = all;
    json_t *golden = chat_json("snippets.golden.json"), *vars = chat_json("variables.json");
    json_t *tokens = chat_tokens();
    const char *s;
    REQUIRE(all && golden && vars && tokens);
    ts_jinja_input in = {.vars = vars, .trusted = tokens, .now = &chat_now};
    for (; (s = next_snippet(&rest)); i++) {
        const json_t *want = json_array_get(golden, i);
        ts_jinja_text out = {0};
        ts_error err = {0};
        ts_status st = chat_render(s, strlen(s), &in, &out, &err);
        REQUIRE(want);
        if (json_is_null(want)) {
            CHECK_MSG(st == TS_BAD_ARG && strstr(err.msg, "T, line "), "'%s' gives '%s' (%s)", s,
                      out.s ? out.s : "", err.msg);
        } else {
            bool same = st == TS_OK && out.n == json_string_length(want) &&
                        memcmp(out.s, json_string_value(want), out.n) == 0;
            CHECK_MSG(same, "'%s'\n  gives '%s'\n  not   '%s'", s, st ? err.msg : out.s,
                      json_string_value(want));
        }
        chat_text_free(&out);
    }
    CHECK(i > 250 && i == json_array_size(golden));
    json_decref(golden);
    json_decref(vars);
    json_decref(tokens);
    free(all);
}

/* --- sentences ------------------------------------------------------------------------ */

static void test_sentences(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"a\n\n{{ x.y }}", "T, line 3: 'x' is undefined"},
        {"{{ {}.y.z }}", "line 1: a dict has no 'y'"},
        {"{{ ''.__class__.__mro__ }}", "'__class__' of a string may not be used"},
        {"{{ [].append(1) }}", "'append' of a list may not be used"},
        {"\n{% if x %}\n{% for y in z %}", "line 3: the template ends where 'endfor' is missing"},
        {"{{ 1 +\n }}", "expected an expression, found '}}'"},
        {"{{ 9223372036854775807 + 1 }}", "the result of '+' is too large an integer"},
        {"{{ 99999999999999999999 }}", "is no integer of 64 bits"},
        {"{{ -(-9223372036854775807 - 1) }}", "too large an integer"},
        {"{{ (-9223372036854775807 - 1) // -1 }}", "too large an integer"},
        {"{{ 10 ** 30 }}", "the result of '**' is too large"},
        {"{{ raise_exception('no such\nrole') }}", "T, line 1: no such\nrole"},
        {"{% include 'x' %}", "'include' isn't supported"},
        {"{{ 'x'|nope }}", "there is no filter 'nope'"},
        {"{{ 1 is nope }}", "there is no test 'nope'"},
        {"{{ 'x'|replace(1) }}", "'replace' wants 2 arguments (old,new,count)"},
        {"{{ 'x'|trim(1, 2) }}", "'trim' takes at most 1 argument, not 2"},
        {"{{ 'x'|indent(w=1) }}", "'indent' has no parameter 'w'"},
        {"{% macro m() %}{% endmacro %}{{ m(1) }}", "macro 'm' takes not more than 0 arguments"},
        {"{{ [1]|tojson(1, 'a', 3) }}", "an int can't be iterated"},
        {"{{ \"\\ud800\" }}", "names no character"},
        {"{{ x = 1 }}", "expected '}}', found '='"},
        {"{{ 'a\xff' }}", "the template is not UTF-8"},
        {"{{ \x01 }}", "U+0001 can't stand here"},
        {"{{ 'a' is string(1) }}", "'string' takes at most 0 arguments"},
        {"{{ strftime_now('%Q') }}", "strftime_now doesn't know %Q"},
        {"{{ '%s'.join(1) }}", "an int can't be iterated"},
        {"{{ {'a': 1}|dictsort(by=1) }}", "dictsort sorts by"},
        {"{{ (-9223372036854775807 - 1)|round(-1) }}", "too large to be rounded"},
        {"{{ 9223372036854775807|round(-19) }}", "too large to be rounded"},
        {"{{ 1|round(-400, 'floor') }}", "too large to be rounded"},
        {"{{ '%*d' % (-9223372036854775807 - 1, 1) }}", "width or precision is too large"},
    };
    ts_jinja_input in = {.now = &chat_now};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ts_jinja_text out = {0};
        ts_error err = {0};
        ts_status st = chat_render(cases[i].text, strlen(cases[i].text), &in, &out, &err);
        CHECK_MSG(st == TS_BAD_ARG && err.code == st && strstr(err.msg, cases[i].says),
                  "%s: %d, '%s'", cases[i].text, (int)st, err.msg);
        chat_text_free(&out);
    }
    ts_error err = {0};
    ts_jinja_text out = {0};
    in.now = NULL;
    CHECK(chat_render("{{ strftime_now('%Y') }}", 24, &in, &out, &err) == TS_BAD_ARG &&
          strstr(err.msg, "no time is given"));
    json_t *list = json_array();
    in.vars = list;
    CHECK(chat_render("x", 1, &in, &out, &err) == TS_BAD_ARG && strstr(err.msg, "JSON object"));
    json_decref(list);
    CHECK(chat_render("", 0, &(ts_jinja_input){0}, &out, NULL) == TS_OK && out.n == 0);
    chat_text_free(&out);
    CHECK(chat_render("{{ x.y }}", 9, &(ts_jinja_input){0}, &out, NULL) == TS_BAD_ARG);
}

/* The least integer where the number of something is asked for; results are Python's. */
static void test_extremes(void)
{
#define LEAST "-9223372036854775807 - 1"
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"{{ 'aaa'.replace('', '-', " LEAST ") }}", "-a-a-a-"},
        {"{{ 'aaa'.replace('a', '-', " LEAST ") }}", "---"},
        {"{{ 'a b c'.split(None, " LEAST ") }}", "['a', 'b', 'c']"},
        {"{{ 'a b c'.rsplit(None, " LEAST ") }}", "['a', 'b', 'c']"},
        {"{{ 'a b c'.split('b', " LEAST ") }}", "['a ', ' c']"},
        {"{{ 'a b c'.rsplit('b', " LEAST ") }}", "['a ', ' c']"},
        {"{{ '-1'.zfill(" LEAST ") }}", "-1"},
        {"{{ (-9223372036854775804)|round(-1) }}", "-9223372036854775800"},
        {"{{ 5000000000000000000|round(-19) }} {{ 1|round(" LEAST ") }}", "0 0"},
        {"{{ 15|round(-1) }} {{ 25|round(-1) }} {{ -15|round(-1) }} {{ -26|round(-1) }}",
         "20 20 -20 -30"},
        {"{{ 'abab'.rfind('') }} {{ 'abab'.rfind('ab') }} {{ 'abab'.rfind('ba', 2) }}", "4 2 -1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ts_jinja_text out = {0};
        ts_error err = {0};
        ts_jinja_input in = {0};
        ts_status st = chat_render(cases[i].text, strlen(cases[i].text), &in, &out, &err);
        CHECK_MSG(st == TS_OK && !strcmp(out.s, cases[i].want), "%s: '%s'", cases[i].text,
                  st ? err.msg : out.s);
        chat_text_free(&out);
    }
}

/* --- limits --------------------------------------------------------------------------- */

static void limited(const char *text, ts_jinja_limits limits, const char *says)
{
    ts_jinja_text out = {0};
    ts_error err = {0};
    ts_jinja_input in = {.limits = limits};
    ts_status st = chat_render(text, strlen(text), &in, &out, &err);
    CHECK_MSG(st == TS_BAD_ARG && strstr(err.msg, says) && strstr(err.msg, "line "),
              "%.60s: %d, '%s'", text, (int)st, err.msg);
    chat_text_free(&out);
}

/* open, n times `what`, close */
static char *nested(const char *open, const char *what, size_t n, const char *close)
{
    size_t k = strlen(what), a = strlen(open), z = strlen(close);
    char *s = malloc(a + n * k + z + 1);
    REQUIRE(s);
    memcpy(s, open, a);
    for (size_t i = 0; i < n; i++)
        memcpy(s + a + i * k, what, k);
    memcpy(s + a + n * k, close, z + 1);
    return s;
}

static void test_limits(void)
{
    static const char loops[] = "{% for a in range(100000) %}{% for b in range(100000) %}"
                                "{% endfor %}{% endfor %}";
#define PAIRS                                                                                      \
    "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
#define LISTS "{% set l = [1] * 1000000 %}{% set k = [1] * 1000000 %}{% for i in range(100000) %}"
    /* few steps of the tree, much work in one of them */
    static const char *const much[] = {
        PAIRS "{{ {n.x: 1} }}",
        PAIRS "{{ {}[n.x] }}",
        PAIRS "{{ [n.x]|unique|list }}",
        PAIRS "{{ n.x == (1, n.x) or n.x in [(n.x, 1)] or {}.get(n.x) }}",
        LISTS "{% if l == k %}{% endif %}{% endfor %}",
        LISTS "{% if l < k %}{% endif %}{% endfor %}",
        LISTS "{% if l.count(1) %}{% endif %}{% endfor %}",
        "{{ (('a' * 1000) * 32000).rfind((('a' * 1000) * 16000) ~ 'b') }}",
        "{% set s = 'a' * 1000000 %}{{ s.startswith(('a' * 999999 ~ 'b',) * 1000000) }}",
        "{% set s = '%' ~ '-' * 1000000 ~ 'd' %}{% for i in range(100000) %}{% set t = s % 1 %}"
        "{% endfor %}",
        "{{ ([1] * 1000000)|map(attribute='1' * 1000000)|list }}",
        "{% set d = dict.fromkeys(range(100000)|map('string')|map('replace', '', 'k', 1)) %}"
        "{{ ('{k99999}' * 100000).format(**d) }}",
    };
    static const struct {
        const char *open, *what, *says;
    } deep[] = {
        {"{{ ", "(", "brackets nest deeper than 256"},
        {"{{ ", "[", "brackets nest deeper than 256"},
        {"{{ ", "{1:", "brackets nest deeper than 256"},
        {"{{ ", "-", "nests deeper than 200"},
        {"{{ ", "not ", "nests deeper than 200"},
        {"{{ ", "1 if 1 else ", "nests deeper"},
        {"", "{% if 1 %}", "nests deeper than 200"},
        {"", "{% for x in y %}", "nests deeper"},
        {"{{ x", ".a(", "brackets nest deeper"},
        {"{{ 1", "|abs", "deeper than 800"},
        {"{{ 1", "+1", "nests deeper than 800"},
        {"{{ 1", "**1", "nests deeper than 800"},
        {"{{ []", ".a", "nests deeper than 800"},
        {"{% for ", "(", "brackets nest deeper"},
        {"{{ [1]", "[0:]", "nests deeper than 800"},
    };
    limited(loops, (ts_jinja_limits){0}, "takes more than 50000000 steps");
    limited("{{ 'x' * 100000000 }}", (ts_jinja_limits){0}, "steps");
    /* nothing is made, but much is read */
    limited("{% set s = ('x' * 1000) * 10000 %}{% for i in range(99999) %}{% if s.isalpha() and s "
            "is lower "
            "and s|wordcount and not s.find('y') and s == s ~ '' %}{% endif %}{% endfor %}",
            (ts_jinja_limits){0}, "steps");
    limited(
        "{% set s = ('x' * 1000) * 10000 %}{% for i in range(99999) %}{% if {}.get(s) or s in {} %}"
        "{% endif %}{% endfor %}",
        (ts_jinja_limits){0}, "steps");
    for (size_t i = 0; i < sizeof much / sizeof *much; i++)
        limited(much[i], (ts_jinja_limits){.steps = 5000000}, "takes more than 5000000 steps");
    limited("{% set n = namespace(x=1) %}{% for a in range(1000) %}{% for b in range(1000) %}"
            "{% set n.x = (n.x,) %}{% endfor %}{% endfor %}{{ {n.x: 1} }}",
            (ts_jinja_limits){0}, "nests deeper than 800");
    limited("{{ ('x' * 1000) * 100000 }}", (ts_jinja_limits){0}, "a text of more than 67108864");
    limited("{{ 'x' * 101 }}", (ts_jinja_limits){.output = 100}, "a text of more than 100 bytes");
    limited("{% for x in range(99) %}ab{% endfor %}", (ts_jinja_limits){.output = 100},
            "100 bytes");
    limited("{{ [0] * 40000000 }}", (ts_jinja_limits){0}, "too long");
    limited("{{ [0] * 2000000 }}", (ts_jinja_limits){.memory = 1 << 20}, "too long");
    limited("{% for x in range(9999) %}{% set y = [x, x] %}{% endfor %}",
            (ts_jinja_limits){.memory = 1 << 18}, "more than its 262144 bytes of memory");
    limited("{{ 1 }}{{ 2 }}{{ 3 }}", (ts_jinja_limits){.steps = 5}, "more than 5 steps");
    limited("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", (ts_jinja_limits){0},
            "nests deeper than 800");
    limited("{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}"
            "{% endfor %}{{ n.x }}",
            (ts_jinja_limits){0}, "nests deeper than 800");
    limited("{% set n = namespace(x=1) %}{% set n.x = [n] %}{{ n }}", (ts_jinja_limits){0},
            "nests deeper than 800");
    limited("{{ 'a'.center(99999999999) }}", (ts_jinja_limits){0}, "too wide");
    limited("{{ '%999999999d' % 1 }}", (ts_jinja_limits){0}, "width or precision");
    limited("{{ '{:999999999}'.format(1) }}", (ts_jinja_limits){0}, "width or precision");
    limited("{{ range(0, 9223372036854775807) }}", (ts_jinja_limits){0}, "a range may have");
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        char *s = nested(deep[i].open, deep[i].what, 20000, " }}");
        limited(s, (ts_jinja_limits){0}, deep[i].says);
        free(s);
    }
    char *open = nested("{{ ", "(", 240, "1"), *whole = nested(open, ")", 240, " }}");
    limited(whole, (ts_jinja_limits){0}, "nests deeper than 200");
    free(open);
    free(whole);
}

/* A call's keywords from a dict, and a scope of many variables. */
static void test_many_names(void)
{
    ts_jinja_text out = {0};
    ts_error err = {0};
    static const char kwargs[] =
        "{% set d = dict.fromkeys(range(100000)|map('string')) %}{% macro m() %}{{ kwargs|length "
        "}}{% endmacro %}{{ m(**d) }}";
    CHECK_MSG(chat_render(kwargs, sizeof kwargs - 1, &(ts_jinja_input){0}, &out, &err) == TS_OK &&
                  !strcmp(out.s, "100000"),
              "%s", err.msg);
    chat_text_free(&out);
    char name[64], *sets = calloc(20000, 24), *end = sets;
    REQUIRE(sets);
    for (int i = 0; i < 20000; i++)
        end += sprintf(end, "{%% set x%d = 1 %%}", i);
    *name = 0;
    char *all =
        nested(sets, "{% for i in range(99999) %}{% set y = x0 ~ x0 %}{% endfor %}", 9, name);
    limited(all, (ts_jinja_limits){.steps = 5000000}, "takes more than 5000000 steps");
    free(sets);
    free(all);
}

/* Data as deep as JSON's parser lets through. */
static void test_deep_data(void)
{
    char *s = nested("{\"x\": ", "[", 2000, "");
    char *whole = nested(s, "]", 2000, "}");
    json_error_t e;
    json_t *vars = json_loads(whole, 0, &e);
    REQUIRE(vars);
    ts_jinja_text out = {0};
    ts_error err = {0};
    ts_jinja_input in = {.vars = vars};
    CHECK(chat_render("hi", 2, &in, &out, &err) == TS_BAD_ARG &&
          strstr(err.msg, "deeper than 800"));
    json_decref(vars);
    free(s);
    free(whole);
}

/* --- whose bytes ------------------------------------------------------------------------- */

/* In `marks` '.' is the template's and '#' the caller's. */
static void marked(const char *text, const char *vars, const char *want, const char *marks)
{
    json_error_t e;
    json_t *v = json_loads(vars, 0, &e), *tokens = chat_tokens();
    ts_jinja_text out = {0};
    ts_error err = {0};
    char got[600] = "";
    REQUIRE(v && tokens);
    ts_jinja_input in = {.vars = v, .trusted = tokens, .now = &chat_now};
    ts_status st = chat_render(text, strlen(text), &in, &out, &err);
    for (size_t i = 0; i < out.n && i + 1 < sizeof got; i++)
        got[i] = out.mark[i] ? '#' : '.';
    CHECK_MSG(st == TS_OK && !strcmp(out.s, want) && !strcmp(got, marks),
              "%s\n  gives '%s' %s\n        '%s'\n  not   '%s'", text, out.s ? out.s : "", err.msg,
              got, marks);
    chat_text_free(&out);
    json_decref(v);
    json_decref(tokens);
}

static void test_marks(void)
{
    static const char ab[] = "{\"a\": \"xyz\", \"b\": \"<|e|>\", \"l\": [\"p\", \"q\"], \"n\": 12}";
    marked("<{{ a }}>", ab, "<xyz>", ".###.");
    marked("{{ '<|' + a + '|>' }}", ab, "<|xyz|>", "..###..");
    marked("{{ '<|' ~ a[1:] ~ '|>' }}", ab, "<|yz|>", "..##..");
    marked("{{ (b + '!')[2:] }}", ab, "e|>!", "###.");
    marked("{{ ('-' ~ a ~ '-').strip('-x') }}", ab, "yz", "##");
    marked("{{ 'A-B'.replace('-', a) }}{{ a.replace('y', '--') }}", ab, "AxyzBx--z", ".###.#..#");
    marked("{{ ('1' ~ a).upper() }}{{ a|title }}{{ a.capitalize() }}", ab, "1XYZXyzXyz",
           ".#########");
    marked("{{ l|join('|') }}{{ '-'.join(l) }}", ab, "p|qp-q", "#.##.#");
    marked("{{ 'p,q'.split(',')[0] }}{{ 'x'.join(['a', a]) }}", ab, "paxxyz", "...###");
    marked("{{ l|tojson }}{{ {'k': a}|tojson }}", ab, "[\"p\", \"q\"]{\"k\": \"xyz\"}",
           "..#....#.........###..");
    marked("{{ '\"' ~ b|tojson }}", ab, "\"\"<|e|>\"", "..#####.");
    marked("{{ [b] }}{{ b|string }}", ab, "['<|e|>']<|e|>", "..#####..#####");
    marked("{{ '<%s|%5s>' % (a, b[:2]) }}", ab, "<xyz|   <|>", ".###....##.");
    marked("{{ '<{}|{:>4}>'.format(a, b[:2]) }}", ab, "<xyz|  <|>", ".###...##.");
    marked("{{ b|e }}", ab, "&lt;|e|&gt;", "###########");
    marked("{{ b|replace('|', '.') }}{{ b|reverse }}", ab, "<.e.>>|e|<", "#.#.######");
    marked("{{ ('a\n' ~ a)|indent(2) }}", ab, "a\n  xyz", "....###");
    marked("{{ n }}{{ n|string }}{{ 'ab'[n > 3] }}", ab, "1212b", ".....");
    marked("{{ '%c%c' % (60, 124) }}", ab, "<|", "##");
    marked("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) }}{{ m('t') }}", ab, "<xyz><t>",
           ".###....");
    marked("{% set s %}<{{ a }}>{% endset %}{{ s }}{% filter upper %}t{{ a }}{% endfilter %}", ab,
           "<xyz>TXYZ", ".###..###");
    marked(
        "{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t ~ x ~ ';' %}{% endfor %}"
        "{{ ns.t }}",
        ab, "p;q;", "#.#.");
    marked("{{ 'xyz' if a == 'xyz' }}{{ {'xyz': 'own'}[a] }}", ab, "xyzown", "......");
    marked("{{ bos_token }}{{ a }}{{ eos_token }}", ab, "<bos>xyz<eos>", ".....###.....");
    marked("{{ '<|im_start|>' }}{{ b[:1] }}{{ '|x|>' }}", ab, "<|im_start|><|x|>",
           "............#....");
    marked("{{ strftime_now('%Y') }}{{ strftime_now(f) }}", "{\"f\": \"a%d\"}", "2025a04",
           "....#..");
    marked("{{ a.splitlines()[1] }}{{ a.partition('-')[0] }}{{ a|first }}", "{\"a\": \"u-v\\nw\"}",
           "wuu", "###");
    /* roles that programs send are the protocol's; others are the caller's */
    marked("{% for m in m %}{{ m.role }}{{ m.content }}{% endfor %}",
           "{\"m\": [{\"role\": \"user\", \"content\": \"user\"}, {\"role\": \"im_end\", "
           "\"content\": \"\"}]}",
           "useruserim_end", "....##########");
    /* a key of the caller's that is printed is the caller's, also where the template names it */
    marked("{% for k, v in d.items() %}{{ k }}{% endfor %}{{ d|tojson }}", "{\"d\": {\"<s>\": 1}}",
           "<s>{\"<s>\": 1}", "###..###.....");
    /* trusted variables are the template's even where the caller sends the same name */
    marked("{{ bos_token }}", "{\"bos_token\": \"zz\"}", "<bos>", ".....");
}

int main(void)
{
    test_snippets();
    test_sentences();
    test_extremes();
    test_limits();
    test_many_names();
    test_deep_data();
    test_marks();
    return check_done("jinja");
}

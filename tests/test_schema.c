/* test_schema.c - JSON schemas as grammars: texts that the Python package jsonschema judged
 * (golden/schema), texts made at random under the grammar, what is refused and how, models under a
 * schema, and what a grammar costs a session. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "check.h"
#include "gguf/synth.h"
#include "golden/golden.h"
#include "grammar/grammar.h"
#include "grammar/json.h"
#include "grammar/match_impl.h"
#include "grammar/schema.h"
#include "schema_oracle.h"

static uint64_t seed = 3;

static ts_gram *grammar_of(const char *schema, size_t n)
{
    char *gbnf = NULL;
    ts_gram *g = NULL;
    ts_error err = {0};
    ts_status st = ts_schema_gbnf(schema, n, &gbnf, &err);
    CHECK_MSG(st == TS_OK, "%s: %.*s", err.msg, (int)n, schema ? schema : "");
    if (st)
        return NULL;
    st = ts_gram_open(&g, gbnf, strlen(gbnf), &err);
    CHECK_MSG(st == TS_OK, "%s\n%s", err.msg, gbnf);
    free(gbnf);
    return g;
}

static bool matches(ts_matcher *m, const char *s, size_t n)
{
    bool ok = false;
    ts_matcher_reset(m);
    CHECK(ts_matcher_bytes(m, s, n, &ok, NULL) == TS_OK);
    return ok && ts_matcher_can_end(m);
}

/* --- texts made under a grammar ------------------------------------------------------------ */

/* A byte that may follow: the ends of things more often the longer the text is. -1: none may. */
static int next_byte(ts_matcher *m, size_t length)
{
    static const char ends[] = "\"}],:0";
    int may[256], n = 0;
    for (int b = 0; b < 256; b++) {
        ts_error err = {0};
        int32_t to = mt_step(m, m->at, (uint8_t)b, &err);
        if (to < 0)
            return -1;
        if (to != MT_DEAD)
            may[n++] = b;
    }
    if (n > 0 && (length > 150 || rnd_u64(&seed) % 4 == 0))
        for (const char *e = ends; *e; e++)
            for (int i = 0; i < n; i++)
                if (may[i] == *e)
                    return *e;
    return n ? may[rnd_u64(&seed) % (uint64_t)n] : -1;
}

/* False when the text grew too long. */
static bool make_text(ts_matcher *m, ts_sb *b)
{
    b->n = 0;
    ts_sb_add(b, "", 0);
    ts_matcher_reset(m);
    while (b->n < 3000) {
        bool end = ts_matcher_can_end(m), ok = false;
        int c = end && rnd_u64(&seed) % 3 == 0 ? -1 : next_byte(m, b->n);
        if (c < 0) {
            CHECK_MSG(end, "a dead end after %s", b->s);
            return end;
        }
        char byte = (char)c;
        ts_sb_add(b, &byte, 1);
        CHECK(ts_matcher_bytes(m, &byte, 1, &ok, NULL) == TS_OK && ok);
    }
    return false;
}

static void test_made(ts_matcher *m, size_t number, const json_t *schema, FILE *out)
{
    ts_sb b = {0};
    int made = 0;
    bool one = json_object_get(schema, "oneOf") != NULL; /* taken as anyOf */
    for (int i = 0; i < (SANITIZED ? 20 : 100); i++) {
        json_error_t why;
        if (!make_text(m, &b))
            continue;
        made++;
        json_t *v = json_loadb(b.s, b.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        CHECK_MSG(v, "schema %zu: %s in %s", number, why.text, b.s);
        if (v && out) {
            char *line = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
            fprintf(out, "%zu\t%s\n", number, line);
            free(line);
        }
        CHECK_MSG(one || so_valid(schema, schema, v), "schema %zu: %s", number, b.s);
        json_decref(v);
    }
    CHECK_MSG(made > (SANITIZED ? 0 : 5), "schema %zu: %d texts ended", number, made);
    ts_sb_free(&b);
}

/* --- texts that were judged ------------------------------------------------------------------ */

static void test_case(size_t number, const json_t *c, FILE *out)
{
    const json_t *schema = json_object_get(c, "schema"), *t;
    char *text = json_dumps(schema, JSON_ENCODE_ANY);
    REQUIRE(text);
    ts_gram *g = grammar_of(text, strlen(text));
    ts_matcher *m = NULL;
    size_t i;
    if (g && ts_matcher_open(&m, g, NULL, NULL) == TS_OK) {
        json_array_foreach(json_object_get(c, "tests"), i, t)
        {
            const json_t *s = json_object_get(t, "text"), *ours = json_object_get(t, "ours");
            bool valid = json_is_true(json_object_get(t, "valid"));
            bool want = ours ? json_is_true(ours) : valid;
            bool got = matches(m, json_string_value(s), json_string_length(s));
            CHECK_MSG(got == want, "%s: %s is %s", text, json_string_value(s),
                      got ? "taken" : "refused");
            json_t *v = json_loads(json_string_value(s), JSON_DECODE_ANY, NULL);
            if (!json_object_get(schema, "format"))
                CHECK_MSG(so_valid(schema, schema, v) == valid, "the oracle: %s: %s", text,
                          json_string_value(s));
            json_decref(v);
        }
        test_made(m, number, schema, out);
    }
    ts_matcher_close(m);
    ts_gram_close(g);
    free(text);
}

static void test_golden(void)
{
    json_error_t why;
    const char *name = getenv("TS_SCHEMA_OUT");
    FILE *out = name ? fopen(name, "w") : NULL;
    json_t *all = json_load_file(TS_TEST_DIR "/golden/schema/schema.json", 0, &why), *c;
    size_t i;
    CHECK_MSG(all, "%s, line %d", why.text, why.line);
    REQUIRE(json_array_size(all) > 80);
    json_array_foreach(all, i, c)
    {
        test_case(i, c, out);
    }
    json_decref(all);
    if (out)
        fclose(out);
}

/* Any JSON object, and white space that ends. */
static void test_json_object(void)
{
    ts_gram *g = grammar_of(NULL, 0);
    ts_matcher *m = NULL;
    REQUIRE(g && ts_matcher_open(&m, g, NULL, NULL) == TS_OK);
    static const char *const yes[] = {"{}", "{ }", "{\n}",
                                      "{\"a\": [1, {\"b\": null}], \"c\": \"\\u00e9\"}"};
    static const char *const no[] = {"",         "[]",          "1",
                                     "{\"a\"}",  "{\"a\": 01}", "{\"a\": \"\\ud800\"}",
                                     "{}\n",     " {}",         "{\"a\": 1e999}",
                                     "{'a': 1}", "{\"a\": 1,}"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        CHECK_MSG(matches(m, yes[i], strlen(yes[i])), "%s", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        CHECK_MSG(!matches(m, no[i], strlen(no[i])), "%s", no[i]);
    char spaces[64] = "{\n";
    memset(spaces + 2, ' ', 41);
    CHECK(!matches(m, spaces, 42 + 1) && m->at == m->start);
    test_made(m, 0, json_true(), NULL);
    ts_matcher_close(m);
    ts_gram_close(g);
}

/* --- reading JSON -------------------------------------------------------------------------------
 */

static void read_as(const char *s, size_t n)
{
    json_t *ours = NULL, *theirs = json_loadb(s, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    ts_error err = {0};
    ts_status st = ts_json_read(&ours, s, n, "it", 0, &err);
    CHECK_MSG((st == TS_OK) == (theirs != NULL), "%.*s: %s", (int)n, s, err.msg);
    CHECK_MSG(st || json_equal(ours, theirs), "%.*s", (int)n, s);
    CHECK(st == TS_OK || (st == TS_BAD_ARG && strstr(err.msg, "it isn't JSON: line ")));
    json_decref(ours);
    json_decref(theirs);
}

/* Texts and what becomes of them when bytes change: as Jansson's reader. */
static void test_reader(void)
{
    static const char *const more[] = {"",
                                       "-",
                                       "01",
                                       "1.",
                                       "1.5e",
                                       "-0.0e-1",
                                       "[1,]",
                                       "[,1]",
                                       "{\"a\"}",
                                       "{\"a\":}",
                                       "{,}",
                                       "\"\\ud83d\\ude00\"",
                                       "\"\\ud83d\"",
                                       "\"\\ude00\"",
                                       "tru",
                                       "nulll",
                                       "[[1]",
                                       "[1]]",
                                       "{\"a\":1,\"a\":2}",
                                       "\"\t\"",
                                       "\"\xff\"",
                                       " \n1 ",
                                       "\"\\x\"",
                                       "1e5",
                                       "1E+400",
                                       "\"a",
                                       "123456789012345678",
                                       "\"\\u12\""};
    static const char bytes[] = "{}[],:\"\\ue0159.-+tn \x7f\xc3\xa9";
    json_t *all = json_load_file(TS_TEST_DIR "/golden/schema/schema.json", 0, NULL), *c, *t;
    size_t i, k;
    for (i = 0; i < sizeof more / sizeof *more; i++)
        read_as(more[i], strlen(more[i]));
    json_array_foreach(all, i, c)
    {
        json_array_foreach(json_object_get(c, "tests"), k, t)
        {
            const json_t *text = json_object_get(t, "text");
            char s[400];
            size_t n = json_string_length(text) < 400 ? json_string_length(text) : 400;
            memcpy(s, json_string_value(text), n);
            read_as(s, n);
            for (int changes = 0; changes < 12 && n > 0; changes++) {
                s[rnd_u64(&seed) % n] = bytes[rnd_u64(&seed) % (sizeof bytes - 1)];
                read_as(s, n - rnd_u64(&seed) % 2);
            }
        }
    }
    json_decref(all);
}

/* --- what is refused ---------------------------------------------------------------------------
 */

static void refused_n(ts_status code, const char *schema, size_t n, const char *sentence)
{
    char *gbnf = NULL;
    ts_error err = {0};
    ts_status st = ts_schema_gbnf(schema, n, &gbnf, &err);
    CHECK_MSG(st == code && err.code == st && !gbnf, "%d: %.100s\n%s", (int)st, schema,
              gbnf ? gbnf : err.msg);
    CHECK_MSG(strstr(err.msg, sentence), "'%s' in '%s'", sentence, err.msg);
    free(gbnf);
    CHECK(ts_schema_gbnf(schema, n, &gbnf, NULL) == code);
}

static void bad(const char *schema, const char *sentence)
{
    refused_n(TS_BAD_ARG, schema, strlen(schema), sentence);
}

static void unsupported(const char *schema, const char *sentence)
{
    refused_n(TS_UNSUPPORTED, schema, strlen(schema), sentence);
}

static void test_refused(void)
{
    static const char *const keys[] = {"$dynamicRef",
                                       "contains",
                                       "dependentRequired",
                                       "if",
                                       "maxProperties",
                                       "minProperties",
                                       "multipleOf",
                                       "not",
                                       "patternProperties",
                                       "propertyNames",
                                       "then",
                                       "unevaluatedProperties",
                                       "uniqueItems"};
    char text[200];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char want[100];
        snprintf(text, sizeof text, "{\"properties\": {\"a\": {\"%s\": 1}}}", keys[i]);
        snprintf(want, sizeof want, "at #/properties/a: the keyword \"%s\" isn't supported",
                 keys[i]);
        unsupported(text, want);
    }
    unsupported("{\"tpye\": \"string\"}", "the keyword \"tpye\" isn't known");
    /* no character is cut */
    snprintf(text, sizeof text, "{\"%059d\xc3\xa9\": 1}", 0);
    unsupported(text, "0\" isn't known");
    snprintf(text, sizeof text, "{\"properties\": {\"%059d\xc3\xa9\": {\"a\": 1}}}", 0);
    unsupported(text, "0: the keyword \"a\" isn't known");
    bad("", "isn't JSON");
    bad("{\"type\": \"string\"", "isn't JSON: line 1");
    bad("{\"type\": 1, \"type\": 2}", "duplicate");
    bad("\"string\"", "a schema is an object, true or false");
    bad("[]", "a schema is an object");
    bad("{\"items\": 5}", "\"items\" must be a schema");
    bad("{\"type\": \"strng\"}", "\"type\" must be");
    bad("{\"type\": []}", "\"type\" must be");
    bad("{\"type\": [\"string\", 1]}", "\"type\" must be");
    bad("{\"properties\": []}", "\"properties\" must be an object of schemas");
    bad("{\"properties\": {\"a\": 1}}", "\"properties\" must be an object of schemas");
    bad("{\"required\": \"a\"}", "\"required\" must be");
    bad("{\"required\": [1]}", "\"required\" must be");
    bad("{\"enum\": []}", "\"enum\" must be");
    bad("{\"anyOf\": []}", "\"anyOf\" must be");
    bad("{\"anyOf\": [1]}", "\"anyOf\" must be");
    bad("{\"allOf\": {}}", "\"allOf\" must be");
    bad("{\"allOf\": [3]}", "a schema is an object");
    bad("{\"minLength\": -1}", "\"minLength\" must be");
    bad("{\"maxItems\": 1.5}", "\"maxItems\" must be");
    bad("{\"minimum\": \"1\"}", "\"minimum\" must be a number");
    bad("{\"pattern\": 1}", "\"pattern\" must be a string");
    bad("{\"$ref\": 1}", "\"$ref\" must be a string");
    /* references */
    bad("{\"$ref\": \"#\"}", "\"$ref\": \"#\" refers to itself");
    bad("{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"$ref\": \"#/$defs/b\"}, \"b\": "
        "{\"allOf\": [{\"$ref\": "
        "\"#/$defs/a\"}]}}}",
        "refers to itself");
    bad("{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}",
        "without an object or array in between");
    bad("{\"$defs\": {\"a\": {\"anyOf\": [{\"$ref\": \"#/$defs/b\"}]}, \"b\": {\"anyOf\": "
        "[{\"$ref\": "
        "\"#/$defs/a\"}]}}, \"$ref\": \"#/$defs/a\"}",
        "without an object or array in between");
    bad("{\"$ref\": \"#/$defs/x\"}", "refers to nothing");
    bad("{\"$ref\": \"#/allOf/7\"}", "refers to nothing");
    unsupported("{\"$ref\": \"http://example.com/x\"}", "only references within the schema");
    unsupported("{\"$ref\": \"#name\"}", "only references within the schema");
    /* what nothing satisfies */
    bad("false", "accepts no JSON value");
    bad("{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}",
        "never ends");
    bad("{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}, \"minItems\": 1}", "never ends");
    bad("{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}", "accepts no JSON value");
    bad("{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}", "accepts no JSON value");
    bad("{\"type\": \"integer\", \"minimum\": 3, \"maximum\": 2}", "accepts no JSON value");
    bad("{\"type\": \"number\", \"exclusiveMinimum\": 1.5, \"maximum\": 1.5}",
        "accepts no JSON value");
    bad("{\"type\": \"array\", \"minItems\": 2, \"maxItems\": 1}", "accepts no JSON value");
    bad("{\"type\": \"array\", \"prefixItems\": [{}], \"items\": false, \"minItems\": 2}",
        "accepts no JSON value");
    bad("{\"required\": [\"a\"], \"additionalProperties\": false}", "accepts no JSON value");
    bad("{\"type\": \"string\", \"enum\": [1, 2]}", "accepts no JSON value");
    bad("{\"enum\": [1], \"const\": 2}", "accepts no JSON value");
    /* combinations */
    unsupported("{\"pattern\": \"^a+$\", \"maxLength\": 5}", "together they can't be translated");
    unsupported("{\"pattern\": \"^a$\", \"format\": \"date\"}",
                "\"pattern\" and \"format\" together");
    unsupported("{\"format\": \"uri\"}", "the format \"uri\" isn't supported");
    unsupported("{\"allOf\": [{\"pattern\": \"a\"}, {\"pattern\": \"b\"}]}",
                "two different \"pattern\"");
    unsupported("{\"enum\": [\"a\"], \"pattern\": \"a\"}",
                "\"enum\" or \"const\" with \"pattern\"");
    unsupported("{\"allOf\": [{\"prefixItems\": [{}]}, {\"items\": {}}]}",
                "\"prefixItems\" together");
    unsupported("{\"minimum\": 1e300}", "the bound 1e+300 has too many digits");
    unsupported("{\"minLength\": 100001}", "\"minLength\" is more than 100000");
    /* patterns */
    static const char *const patterns[][2] = {{"(?=a)b", "assertions"},
                                              {"(?<!a)b", "assertions"},
                                              {"(a)\\\\1", "backreferences"},
                                              {"\\\\bword", "\\b and \\B"},
                                              {"a^b", "at its ends only"},
                                              {"(^a)", "at its ends only"},
                                              {"\\\\p{L}", "escapes isn't known"},
                                              {"a{200000}", "too large"}};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        snprintf(text, sizeof text, "{\"pattern\": \"%s\"}", patterns[i][0]);
        unsupported(text, patterns[i][1]);
    }
    static const char *const wrong[][2] = {
        {"(a", "a ')' is missing"},       {"a)", "a ')' has no '('"},
        {"[a", "a ']' is missing"},       {"[z-a]", "before it begins"},
        {"*a", "nothing to repeat"},      {"a**", "nothing to repeat"},
        {"a{3,2}", "wrong order"},        {"a\\\\", "ends in a backslash"},
        {"\\\\xg0", "hexadecimal"},       {"[^\\\\u0000-\\\\u{10ffff}]", "no character"},
        {"\\\\ud800", "not a character"}, {"\\\\u{110000}", "not a character"},
        {"[a-\\\\d]", "ends in a class"}, {"a{2}{3}", "nothing to repeat"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, "{\"pattern\": \"%s\"}", wrong[i][0]);
        bad(text, wrong[i][1]);
    }
}

/* Schemas that are too much: each a sentence, soon. */
static void test_large(void)
{
    ts_sb b = {0};
    for (int i = 0; i < 60000; i++)
        ts_sb_str(&b, "[");
    refused_n(TS_BAD_ARG, b.s, b.n, "isn't JSON");
    b.n = 0;
    for (int i = 0; i < 100; i++)
        ts_sb_str(&b, "{\"items\":");
    ts_sb_str(&b, "true");
    for (int i = 0; i < 100; i++)
        ts_sb_str(&b, "}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "nested deeper than 64");
    b.n = 0;
    for (int i = 0; i < 100; i++)
        ts_sb_str(&b, "{\"allOf\":[");
    ts_sb_str(&b, "true");
    for (int i = 0; i < 100; i++)
        ts_sb_str(&b, "]}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "nested deeper than 64");
    b.n = 0;
    ts_sb_str(&b, "{\"pattern\":\"");
    for (int i = 0; i < 100; i++)
        ts_sb_str(&b, "(");
    ts_sb_str(&b, "\"}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "nested too deep");
    b.n = 0;
    ts_sb_printf(&b, "{\"description\":\"%0*d\"}", 1 << 20, 1);
    refused_n(TS_BAD_ARG, b.s, b.n, "more than 1048576");
    /* alternatives of alternatives */
    b.n = 0;
    ts_sb_str(&b, "{\"allOf\":[");
    for (int i = 0; i < 9; i++)
        ts_sb_printf(&b, "%s{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}", i ? "," : "", i, -i);
    ts_sb_str(&b, "]}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "more than 256 cases");
    /* one that doubles at every level, but for equal ones being one rule */
    b.n = 0;
    ts_sb_str(&b, "{\"$defs\":{\"d0\":{\"type\":\"null\"}");
    for (int i = 1; i < 60; i++)
        ts_sb_printf(&b,
                     ",\"d%d\":{\"type\":\"array\",\"prefixItems\":[{\"$ref\":\"#/$defs/"
                     "d%d\"},{\"$ref\":\"#/$defs/"
                     "d%d\"}],\"items\":false}",
                     i, i - 1, i - 1);
    ts_sb_str(&b, "},\"$ref\":\"#/$defs/d59\"}");
    ts_gram *g = grammar_of(b.s, b.n);
    CHECK(g && g->n_rules < 200);
    ts_gram_close(g);
    /* one large object in many others */
    b.n = 0;
    ts_sb_str(&b, "{\"$defs\":{\"d\":{\"properties\":{\"x\":true");
    for (int i = 0; i < 4000; i++)
        ts_sb_printf(&b, ",\"%d\":{}", i);
    ts_sb_str(&b, "}}},\"anyOf\":[true");
    for (int i = 0; i < 10000; i++)
        ts_sb_printf(&b, ",{\"allOf\":[{\"$ref\":\"#/$defs/d\"},false],\"title\":\"%d\"}", i);
    ts_sb_str(&b, "]}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "too much to merge");
    b.n = 0;
    ts_sb_str(&b, "{\"required\":[\"a\"");
    for (int i = 0; i < 5000; i++)
        ts_sb_printf(&b, ",\"%d\"", i);
    ts_sb_str(&b, "]}");
    refused_n(TS_UNSUPPORTED, b.s, b.n, "\"required\" has more than 4096 names");
    /* many properties, many values */
    b.n = 0;
    ts_sb_str(&b, "{\"properties\":{");
    for (int i = 0; i < 4000; i++)
        ts_sb_printf(&b, "%s\"p%d\":{\"enum\":[\"v%d\",%d]}", i ? "," : "", i, i, i);
    ts_sb_str(&b, "}}");
    g = grammar_of(b.s, b.n);
    ts_matcher *m = NULL;
    CHECK(g && ts_matcher_open(&m, g, NULL, NULL) == TS_OK);
    CHECK(m && matches(m, "{\"p3\":3,\"p3999\":\"v3999\"}", 24) &&
          !matches(m, "{\"p4\":1,\"p3\":3}", 15));
    ts_matcher_close(m);
    ts_gram_close(g);
    ts_sb_free(&b);
}

/* --- models --------------------------------------------------------------------------------------
 */

static const char person[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\","
                             "\"maxLength\":20},\"age\":{\"type\":"
                             "\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":"
                             "\"array\",\"items\":{\"enum\":[\"red\",\"green\"]},"
                             "\"maxItems\":3},\"born\":{\"type\":\"string\",\"format\":\"date\"}},"
                             "\"required\":[\"name\",\"age\",\"born\"],"
                             "\"additionalProperties\":false}";

/* What a model writes under a schema, seed after seed, is JSON that the schema accepts. */
static void run_model(const char *path, int seeds, const char *prompt)
{
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.n_ctx = 512;
    o.n_gpu_layers = 0;
    o.n_threads = 1;
    ts_error err = {0};
    ts_grammar *g = NULL;
    ts_session *s = NULL;
    ts_status st = ts_engine_open(&e, path, &o, &err);
    if (!st)
        st = ts_session_open(&s, e, &err);
    if (!st)
        st = ts_grammar_open_schema(&g, e, person, sizeof person - 1, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(st == TS_OK);
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    json_t *schema = json_loads(person, 0, NULL);
    ts_token *ids, id;
    size_t n;
    REQUIRE(ts_tokenize(e, prompt, strlen(prompt), 3, &ids, &n, &err) == TS_OK && n > 0);
    for (int i = 0; i < seeds; i++) {
        ts_sampler_options so;
        ts_sampler_options_init(&so);
        so.seed = (uint64_t)i;
        so.temp = i % 5 ? 1.5f : 0;
        ts_sampler *sm = NULL;
        ts_sb text = {0};
        REQUIRE(ts_sampler_open(&sm, &so, &err) == TS_OK &&
                ts_sampler_set_grammar(sm, g, &err) == TS_OK);
        REQUIRE(ts_session_rewind(s, 0, &err) == TS_OK);
        st = ts_session_eval(s, ids, n, 1, &err);
        for (int k = 0; k < 400 && !st; k++) {
            const char *p;
            if ((st = ts_sampler_sample(sm, ts_session_logits(s, 0), (size_t)info.n_vocab, &id,
                                        &err)))
                break;
            ts_sampler_accept(sm, id);
            size_t len = ts_token_piece(e, id, false, &p);
            ts_sb_add(&text, p, ts_token_is_eog(e, id) ? 0 : len);
            if (ts_token_is_eog(e, id) || ts_sampler_grammar_state(sm) == TS_GRAMMAR_ENDED)
                break;
            st = ts_session_eval(s, &id, 1, 1, &err);
        }
        CHECK_MSG(st == TS_OK, "seed %d: %s", i, err.msg);
        CHECK_MSG(ts_sampler_grammar_state(sm) == TS_GRAMMAR_ENDED, "seed %d: %s", i, text.s);
        json_t *v = json_loadb(text.s ? text.s : "", text.n, JSON_ALLOW_NUL, NULL);
        CHECK_MSG(v && so_valid(schema, schema, v), "seed %d: %s", i, text.s);
        json_decref(v);
        ts_sb_free(&text);
        ts_sampler_close(sm);
    }
    ts_free(ids);
    json_decref(schema);
    ts_grammar_close(g);
    ts_session_close(s);
    ts_engine_close(e);
}

static void test_models(void)
{
    static const char *const archs[] = {"llama", "gemma3"};
    char path[512];
    for (int i = 0; i < 2; i++) {
        ts_error err = {0};
        snprintf(path, sizeof path, "schema-%s.gguf", archs[i]);
        ts_status st = ts_synth_tiny(path, archs[i], "Q8_0", false, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        if (!st)
            run_model(path, SANITIZED ? 5 : 50, "a");
        unlink(path);
    }
    if (golden_model("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", true, path, sizeof path))
        run_model(path, SANITIZED ? 2 : 12,
                  "<|im_start|>user\nDescribe a person.<|im_end|>\n<|im_start|>assistant\n");
    else
        printf("without SmolLM2\n");
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_json_object();
    test_golden();
    test_reader();
    test_refused();
    test_large();
    test_models();
    return check_done("schema");
}

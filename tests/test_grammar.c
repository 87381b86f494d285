/* test_grammar.c - grammars: what is refused and where, notation, the matcher against a slow
 * recogniser on random grammars, masks token by token, memory that is bounded, the sampler. */
#include <string.h>

#include "check.h"
#include "grammar/grammar.h"
#include "grammar/match_impl.h"
#include "grammar_oracle.h"

static uint64_t seed = 11;

static ts_gram *open_text(const char *text, size_t n)
{
    ts_gram *g = NULL;
    ts_error err = {0};
    ts_status st = ts_gram_open(&g, text, n, &err);
    CHECK_MSG(st == TS_OK, "%s: %.*s", err.msg, (int)(n < 300 ? n : 300), text);
    REQUIRE(g);
    return g;
}

static ts_gram *open_str(const char *text)
{
    return open_text(text, strlen(text));
}

static ts_matcher *follow(const ts_gram *g, const ts_vocab *v)
{
    ts_matcher *m = NULL;
    ts_error err = {0};
    ts_status st = ts_matcher_open(&m, g, v, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(m);
    return m;
}

/* As or_match: 1 whole, 2 beginning. */
static int look(ts_matcher *m, const char *s, size_t n)
{
    bool ok = false;
    ts_error err = {0};
    ts_matcher_reset(m);
    ts_status st = ts_matcher_bytes(m, s, n, &ok, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    return !ok ? 0 : ts_matcher_can_end(m) ? 3 : 2;
}

/* --- what is refused ------------------------------------------------------------------- */

static void refused_n(const char *text, size_t n, const char *sentence)
{
    ts_gram *g = NULL;
    ts_error err = {0};
    ts_status st = ts_gram_open(&g, text, n, &err);
    CHECK_MSG((st == TS_BAD_ARG || st == TS_UNSUPPORTED) && err.code == st && !g, "%d: %.80s",
              (int)st, text);
    CHECK_MSG(strstr(err.msg, sentence), "'%s' in '%s'", sentence, err.msg);
    CHECK(ts_gram_open(&g, text, n, NULL) == st);
    if (st == TS_OK)
        ts_gram_close(g);
}

static void refused(const char *text, const char *sentence)
{
    refused_n(text, strlen(text), sentence);
}

static void test_refused(void)
{
    refused("", "line 1, column 1: there is no rule 'root'");
    refused("start ::= \"a\"", "there is no rule 'root'");
    refused("root ::= \"a\"\nb ::= c", "line 2, column 7: there is no rule 'c'");
    refused("root ::= \"a\"\n\nroot ::= \"b\"",
            "line 3, column 1: the rule 'root' is defined a second");
    refused("root \"a\"", "column 6: '::=' was expected after the name 'root', not '\"'");
    refused("root ::= \"a", "column 10: this literal has no end");
    refused("root ::= \"a\nb\"", "column 10: this literal has no end");
    refused("root ::= [a", "column 10: this class has no end");
    refused("root ::= [a-", "column 10: this class has no end");
    refused("root ::= []", "column 10: no character is in this class");
    refused("root ::= [\\uD800]", "U+D800 is not a character");
    refused("root ::= [^\\x00-\\uD7FF\\uE000-\\U0010FFFF]", "no character is in this class");
    refused("root ::= [z-a]", "column 11: this range ends before it begins");
    refused("root ::= \"\\q\"", "column 11: there is no escape of 'q'");
    refused("root ::= \"\\x4\"", "column 11: \\x wants 2 hexadecimal digits");
    refused("root ::= \"\\u12g4\"", "\\u wants 4 hexadecimal digits");
    refused("root ::= \"\\U00110000\"", "U+110000 is not a character");
    refused("root ::= \"a\" | (\"b\"", "column 16: this parenthesis is never closed");
    refused("root ::= \"a\")", "column 13: ')' can't stand here");
    refused("root ::= (\"a\" ]", "column 15: ']' can't stand here");
    refused("root ::= (\n\"a\"\nb ::= \"b\"", "line 3, column 1: a rule can't begin here: a ')'");
    refused("root ::= \"a\" b ::= \"b\"", "column 14: a rule can't begin here");
    refused("root ::= * \"a\"", "column 10: there is nothing before '*'");
    refused("root ::= \"a\"{", "a number of repetitions was expected, not the end of the text");
    refused("root ::= \"a\"{2", "'}' was expected, not the end of the text");
    refused("root ::= \"a\"{,2}", "a number of repetitions was expected, not ','");
    refused("root ::= \"a\"{3,2}", "at least 3 and at most 2 repetitions");
    refused("root ::= \"a\"{100001}", "more than 100000 repetitions");
    refused("root ::= \"a\"{99999999999999999999}", "more than 100000 repetitions");
    refused("root ::= \"a\"?????????", "more than 8 signs of repetition in a row");
    refused("root ::= <think>", "single tokens");
    refused("root ::= \"a\" $", "column 14: '$' can't stand here");
    refused("r\xc3\xb6t ::= \"a\"", "not '\xc3\xb6'");
    refused("root ::= \"\xff\"", "column 11: byte 0xff is not UTF-8");
    refused("root ::= \"\xc3\xa9\xe4\xb8\"", "column 12: byte 0xe4 is not UTF-8");
    refused_n("root ::= \"a\"\0", 13, "can't stand here");
    /* left recursion */
    refused("root ::= root \"a\" | \"b\"", "line 1, column 1: the rule 'root' begins with itself");
    refused("root ::= a\na ::= b\nb ::= \"x\"? a",
            "line 2, column 1: the rule 'a' begins with itself "
            "(left recursion), by way of 'b'");
    refused("root ::= n root | \"b\"\nn ::= (m | \"x\")*\nm ::= \"y\"{0,2}",
            "'root' begins with itself");
    refused("root ::= (\"a\"* root){2,3} | \"b\"", "'root' begins with itself");
    refused("root ::= \"a\"\nelse ::= else", "'else' begins with itself");
    refused("root ::= (root)", "'root' begins with itself");
    /* what can't end */
    refused("root ::= \"a\" root", "can never end");
    refused("root ::= \"a\" x\nx ::= \"b\" y\ny ::= \"c\" x", "can never end");
    /* limits */
    ts_sb b = {0};
    ts_sb_str(&b, "root ::= ");
    for (int i = 0; i < 60000; i++)
        ts_sb_str(&b, "(");
    refused_n(b.s, b.n, "column 210: more than 200 parentheses are open");
    b.n = 0;
    ts_sb_str(&b, "root ::= \"a\"\n");
    for (int i = 0; i < (1 << 16); i++)
        ts_sb_printf(&b, "r%d ::= \"a\"\n", i);
    refused_n(b.s, b.n, "line 65537, column 1: the grammar has more than 65536 rules");
    b.n = 0;
    ts_sb_str(&b, "root ::= \"");
    for (int i = 0; i <= (1 << 20); i++)
        ts_sb_str(&b, "a");
    ts_sb_str(&b, "\"");
    refused_n(b.s, b.n, "the grammar has more than 1048576 elements");
    b.n = 0;
    ts_sb_str(&b, "root ::= ");
    for (int i = 0; i < 11; i++)
        ts_sb_str(&b, "[a]{100000} ");
    refused_n(b.s, b.n, "with its repetitions written out");
    b.n = 0;
    ts_sb_str(&b, "root ::= [");
    for (uint32_t c = 0; c <= 1 << 18; c++) {
        char utf8[4];
        uint32_t cp = 0x10000 + 2 * c;
        ts_sb_add(&b, utf8, ts_utf8_encode(cp, utf8));
    }
    ts_sb_str(&b, "]");
    refused_n(b.s, b.n, "more than 262144 ranges");
    while (b.n <= TS_GRAM_MAX_TEXT)
        ts_sb_printf(&b, "%100s", "");
    refused_n(b.s, b.n, "more than 8388608");
    ts_sb_free(&b);
}

/* --- notation ---------------------------------------------------------------------------- */

static void takes(const char *text, const char *yes, const char *no)
{
    ts_gram *g = open_str(text);
    ts_matcher *m = follow(g, NULL);
    for (int k = 0; k < 2; k++)
        for (const char *p = k ? no : yes; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL) {
            size_t n = strcspn(p, "/");
            CHECK_MSG((look(m, p, n) == 3) == !k, "'%.*s' in %s", (int)n, p, text);
        }
    ts_matcher_close(m);
    ts_gram_close(g);
}

static void test_notation(void)
{
    takes("root ::= \"a\\n\\t\\r\\\\\\\"\\x41\\u00e9\\U0001F600\"",
          "a\n\t\r\\\"A\xc3\xa9\xf0\x9f\x98\x80", "a");
    takes("root::=\"a\"\r\n", "a", "/b/aa");
    takes("# nothing\n\n  root ::= # here\n \"a\" # there\n# more", "a", "b");
    takes("root ::= \"a\" |\n\"b\"\n | \"c\"\n\n  # and\n | d\nd ::= \"d\"", "a/b/c/d", "/ab");
    takes("root ::= (\n\"a\"\n | \"b\" # x\n\"c\" )\n", "a/bc", "b/c");
    takes("root ::= [a-c^x] [^a-c] [\\]\\-\\[] [-+] [a-]", "^d]+a/xx[--/a\xc3\xa9--a",
          "ad]+b/^a]+a/^dx+a");
    takes("root ::= . .", "ab/\xc3\xa9\n", "a/abc");
    takes("root ::= \"ab\"* \"c\"+ \"d\"?", "c/ababccd/cc", "/abbc/d/cdd");
    takes("root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} \"d\" { 1 , 2 }", "aabd/aabbbbccdd",
          "abd/aad/aabcccd/aabddd");
    takes("root ::= (\"a\" | \"b\" \"c\"){2,3}", "aa/abc/bcbc/aaa/abcbc", "a/aaaa/bc");
    takes("root ::= \"\" | \"x\" root", "/x/xxx", "y");
    takes("root ::= ( ) \"a\" (\"b\" | )", "a/ab", "");
    takes("root ::= a-b A_1\na-b ::= \"1\"\nA_1 ::= \"2\"", "12", "1/2");
    takes("root ::= \"a\"{0} \"b\"{0,0} \"c\"", "c", "ac/bc");
    takes("root ::= (\"a\"? \"b\"?)* \"c\"", "c/abc/babac", "ab/d");
    takes("root ::= \"a\" \"b\"?{2}*", "a/abbbbb", "b");
    /* what can't end is cut off: no other text begins as one of these does */
    takes("root ::= \"a\" | \"b\" x\nx ::= \"c\" x", "a", "b/bc");
    ts_gram *g = open_str("root ::= \"a\" | \"b\" x\nx ::= \"c\" x");
    ts_matcher *m = follow(g, NULL);
    CHECK(look(m, "b", 1) == 0);
    ts_matcher_close(m);
    ts_gram_close(g);
}

/* --- against the recogniser ----------------------------------------------------------------- */

static size_t encode(const oracle *o, char *s)
{
    size_t n = 0;
    for (int i = 0; i < o->n; i++)
        n += ts_utf8_encode(o->cp[i], s + n);
    return n;
}

static void compare(oracle *o, ts_matcher *m, const char *text)
{
    char s[4 * OR_TEXT], part[4];
    int want = or_match(o);
    size_t n = encode(o, s);
    if (want < 0)
        return;
    int got = look(m, s, n);
    CHECK_MSG(want == got, "'%.*s': %d, not %d\n%s", (int)n, s, got, want, text);
    /* what begins a character */
    uint32_t cp = or_letters[4 + or_pick(&seed, 4)] + (uint32_t)or_pick(&seed, 3);
    size_t len = ts_utf8_encode(cp, part);
    for (size_t k = 1; k < len && want; k++) {
        memcpy(s + n, part, k);
        bool begun = or_begun(o, part, k);
        CHECK_MSG(begun == (look(m, s, n + k) == 2), "'%.*s' and %zu bytes of U+%04X: %d\n%s",
                  (int)n, s, k, (unsigned)cp, begun, text);
    }
}

static void test_random(int n_grammars)
{
    int n_left = 0, n_endless = 0, n_whole = 0, n_begin = 0, n_not = 0;
    static oracle o;
    for (int i = 0; i < n_grammars; i++) {
        ts_sb b = {0};
        ts_gram *g = NULL;
        ts_error err = {0};
        or_make(&o, &seed);
        or_text(&o, &b, &seed);
        ts_status st = ts_gram_open(&g, b.s, b.n, &err);
        if (or_left_recursive(&o)) {
            n_left++;
            CHECK_MSG(st == TS_BAD_ARG && strstr(err.msg, "left recursion"), "%s\n%s", err.msg,
                      b.s);
        } else if (!o.can_end[0]) {
            n_endless++;
            CHECK_MSG(st == TS_UNSUPPORTED && strstr(err.msg, "never end"), "%s\n%s", err.msg, b.s);
        } else {
            CHECK_MSG(st == TS_OK, "%s\n%s", err.msg, b.s);
        }
        if (st == TS_OK) {
            ts_matcher *m = follow(g, NULL);
            if (i % 3 == 0)
                ts_matcher_limit(m, 3000);
            for (int k = 0; k < 40; k++) {
                o.n = 0;
                if (k % 2)
                    or_write(&o, o.body[0], &seed, 0);
                for (int c = k % 4 < 2 ? or_pick(&seed, 5) : 0; c > 0; c--)
                    o.cp[o.n++] = or_letters[or_pick(&seed, 8)];
                if (o.n > 0 && k % 8 == 7)
                    o.n -= or_pick(&seed, o.n);
                compare(&o, m, b.s);
                int what = or_match(&o);
                n_whole += what == 3;
                n_begin += what == 2;
                n_not += what == 0;
            }
            ts_matcher_close(m);
        }
        ts_gram_close(g);
        ts_sb_free(&b);
    }
    printf(
        "random grammars: %d left-recursive, %d endless; texts: %d whole, %d begun, %d neither\n",
        n_left, n_endless, n_whole, n_begin, n_not);
    CHECK(n_left > n_grammars / 20 && n_endless > 0);
    CHECK(n_whole > n_grammars && n_begin > n_grammars && n_not > n_grammars);
}

/* --- masks ------------------------------------------------------------------------------------ */

enum { VOCAB_MAX = 6000, EOG_ID = 3, EMPTY_ID = 4 };

typedef struct words {
    ts_str piece[VOCAB_MAX];
    uint8_t eog[VOCAB_MAX];
    char text[VOCAB_MAX][72];
    int n;
} words;

static void add_word(words *w, const char *s, size_t n)
{
    REQUIRE(w->n < VOCAB_MAX && n <= 72);
    memcpy(w->text[w->n], s, n);
    w->piece[w->n] = (ts_str){w->text[w->n], n};
    w->n++;
}

/* Bytes, so that every text can be made; words of letters, digits, punctuation, quotes; pieces of
 * characters; doubles; and one that is too long for the tree of plain words. */
static ts_vocab *make_words(words *w, int n)
{
    static const char *const sets[] = {
        "abcxyz",    "aAbB 01",    "\"\\{}[],:n ", "\xc3\xa9\xe4\xb8\xad", "abc\xf0\x9f\x98\x80",
        "\t\n  \"a", "{\":, [1tru"};
    ts_vocab *v = NULL;
    ts_error err = {0};
    *w = (words){0};
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        add_word(w, &c, 1);
    }
    w->eog[EOG_ID] = 1;
    w->piece[EMPTY_ID].n = 0;
    while (w->n < n) {
        const char *set = sets[or_pick(&seed, 7)];
        char s[72];
        size_t len =
            or_pick(&seed, 12) ? 1 + (size_t)or_pick(&seed, 6) : 1 + (size_t)or_pick(&seed, 70);
        for (size_t i = 0; i < len; i++)
            s[i] = set[or_pick(&seed, (int)strlen(set))];
        if (or_pick(&seed, 4) == 0 && w->n > 300) { /* longer than another one */
            ts_str p = w->piece[256 + or_pick(&seed, w->n - 256)];
            if (p.n + len <= 72) {
                memmove(s + p.n, s, len);
                memcpy(s, p.s, p.n);
                len += p.n;
            }
        }
        add_word(w, s, len);
    }
    w->eog[w->n - 1] = 1;
    ts_status st = ts_vocab_open(&v, w->piece, w->eog, w->n, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(v);
    return v;
}

static bool in_mask(const ts_mask *k, int id)
{
    if (k->bits)
        return k->bits[id / 64] >> id % 64 & 1;
    for (size_t i = 0; i < k->n; i++)
        if (k->ids[i] == id)
            return true;
    return false;
}

/* Every token by itself: the bytes after the text so far, from its beginning. */
static void check_mask(ts_matcher *m, ts_matcher *other, const words *w, const ts_sb *text,
                       const char *name)
{
    ts_mask k;
    ts_error err = {0};
    ts_sb b = {0};
    size_t n = 0;
    int wrong = 0;
    bool done = look(other, text->s ? text->s : "", text->n) == 3;
    ts_status st = ts_matcher_mask(m, &k, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(st == TS_OK);
    for (int i = 0; i < w->n; i++) {
        bool want = w->eog[i] ? done : w->piece[i].n > 0, one = !want;
        if (!w->eog[i] && want) {
            b.n = 0;
            ts_sb_add(&b, text->s ? text->s : "", text->n);
            ts_sb_add(&b, w->piece[i].s, w->piece[i].n);
            want = look(other, b.s, b.n) != 0;
        }
        n += want;
        wrong += in_mask(&k, i) != want;
        if (i % 37 == 0) {
            CHECK(ts_matcher_allows(m, i, &one, &err) == TS_OK);
            CHECK_MSG(one == want, "token %d", i);
            st = ts_matcher_mask(m, &k, &err);
        }
    }
    CHECK_MSG(wrong == 0 && k.n == n, "%d wrong, %zu of %zu, after '%.*s' in %s", wrong, k.n, n,
              (int)text->n, text->s ? text->s : "", name);
    ts_sb_free(&b);
}

/* A token that may follow, one of few where there is a choice. */
static int choose(const ts_mask *k, const words *w)
{
    for (int i = 0; i < 4 * w->n; i++) {
        int id = or_pick(&seed, w->n);
        if (in_mask(k, id) && (!w->eog[id] || k->n < 3))
            return id;
    }
    for (int id = 0; id < w->n; id++)
        if (in_mask(k, id))
            return id;
    return -1;
}

static void walk_masks(const char *text, size_t n, const ts_vocab *v, const words *w, int steps,
                       size_t limit)
{
    ts_gram *g = open_text(text, n);
    ts_matcher *m = follow(g, v), *other = follow(g, NULL);
    ts_sb made = {0};
    ts_matcher_limit(m, limit);
    for (int i = 0; i < steps; i++) {
        ts_mask k;
        bool ok = false;
        check_mask(m, other, w, &made, text);
        REQUIRE(ts_matcher_mask(m, &k, NULL) == TS_OK);
        int id = choose(&k, w);
        CHECK_MSG(id >= 0, "a dead end after '%.*s' in %s", (int)made.n, made.s, text);
        if (id < 0)
            break;
        CHECK(ts_matcher_accept(m, id, &ok, NULL) == TS_OK && ok);
        if (w->eog[id]) {
            CHECK(ts_matcher_at_end(m));
            CHECK(ts_matcher_mask(m, &k, NULL) == TS_OK && k.n == 2);
            CHECK(ts_matcher_accept(m, 'a', &ok, NULL) == TS_OK && !ok);
            break;
        }
        ts_sb_add(&made, w->piece[id].s, w->piece[id].n);
    }
    ts_sb_free(&made);
    ts_matcher_close(other);
    ts_matcher_close(m);
    ts_gram_close(g);
}

static const char json[] =
    "root ::= object\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" "
    "[0-9a-fA-F]{4}))* "
    "\"\\\"\" ws\n"
    "number ::= \"-\"? ([0-9] | [1-9] [0-9]{0,15}) (\".\" [0-9]+)? ([eE] [-+]? [0-9]{1,3})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

static void test_masks(void)
{
    /* runs of characters of a kind: endless, counted, of several places at once, in called rules */
    static const char *const texts[] = {
        json,
        "root ::= .*",
        "root ::= [^<]{0,40} \"<\"",
        "root ::= \"\\\"\" [^\"\\\\\\x00-\\x1f]{3,45} \"\\\"\"",
        "root ::= \"\\\"\" c{0,40} \"\\\"\"\nc ::= [^\"\\\\\\x00-\\x1f] | \"\\\\\" [\"\\\\n]",
        "root ::= [a-z ]+ | [A-Z0-9a]* \"!\"",
        "root ::= ([a-z]* [^b]* \"c\")*",
        "root ::= (.{0,9} \"a\"){0,5}",
        "root ::= [a-z]{0,5} [a-zA-Z]{0,5} .{0,33}",
        "root ::= [\xc3\xa0-\xc3\xbf\xe4\xb8\x80-\xe4\xb9\x80"
        "a]{1,30}",
        "root ::= x | y\nx ::= [a-c] x | [a-c]\ny ::= [^a]{4} y?",
        "root ::= \"(\" root* \")\" | [^()]{1,3}",
    };
    static words w;
    ts_vocab *v = make_words(&w, SANITIZED ? 1200 : 4000);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        walk_masks(texts[i], strlen(texts[i]), v, &w, SANITIZED ? 6 : 14, 0);
        walk_masks(texts[i], strlen(texts[i]), v, &w, 6, 6000);
    }
    ts_vocab_close(v);
    v = make_words(&w, 700);
    static oracle o;
    for (int i = 0; i < (SANITIZED ? 40 : 250);) {
        ts_sb b = {0};
        or_make(&o, &seed);
        or_text(&o, &b, &seed);
        if (!or_left_recursive(&o) && o.can_end[0]) {
            walk_masks(b.s, b.n, v, &w, 5, i % 2 ? 5000 : 0);
            i++;
        }
        ts_sb_free(&b);
    }
    ts_vocab_close(v);
}

/* --- memory and time -------------------------------------------------------------------------- */

/* A text without end, nested deep and then flat: what is remembered stays below the limit. */
static void test_bounded(void)
{
    ts_gram *g = open_str("root ::= (\"(\" root \")\" | [a-z]{0,300} [0-9])*");
    ts_matcher *m = follow(g, NULL);
    size_t most = 0;
    bool ok = true;
    ts_matcher_limit(m, 100000);
    for (int i = 0; i < 30000 && ok; i++) {
        const char *s = i % 3 ? "abcdefghijklmno1" : i % 2 ? "(((x1" : ")";
        if (*s == ')' || ts_matcher_bytes(m, s, strlen(s), &ok, NULL) == TS_OK)
            most = ts_matcher_size(m) > most ? ts_matcher_size(m) : most;
    }
    CHECK(ok);
    CHECK_MSG(most < 30 * 1000 * 1000, "%zu bytes", most); /* 15,000 open parentheses are needed */
    ts_matcher_reset(m);
    for (int i = 0; i < 200; i++)
        CHECK(ts_matcher_bytes(m, "abc9", 4, &ok, NULL) == TS_OK && ok);
    CHECK_MSG(ts_matcher_size(m) < 30 * 1000 * 1000, "%zu bytes", ts_matcher_size(m));
    ts_matcher_close(m);
    ts_gram_close(g);
}

/* Two to the n ways to read a text: states stay small, or it is refused with a sentence. */
static void test_ambiguous(void)
{
    static const char *const texts[] = {"root ::= (\"a\" | \"a\" | \"aa\" | \"a\"? \"a\")*",
                                        "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\"",
                                        "root ::= s\ns ::= \"a\" s s | \"a\" s | \"a\""};
    for (int i = 0; i < 3; i++) {
        ts_gram *g = open_str(texts[i]);
        ts_matcher *m = follow(g, NULL);
        bool ok = true;
        for (int k = 0; k < (i < 2 ? 2000 : 200) && ok; k++)
            CHECK(ts_matcher_bytes(m, "a", 1, &ok, NULL) == TS_OK && ok);
        CHECK_MSG(ts_matcher_size(m) < 100 * 1000 * 1000, "%zu bytes", ts_matcher_size(m));
        ts_matcher_close(m);
        ts_gram_close(g);
    }
    ts_gram *g = open_str(texts[2]);
    ts_matcher *m = follow(g, NULL);
    ts_error err = {0};
    ts_status st = TS_OK;
    bool ok = true;
    for (int k = 0; k < 3000 && !st && ok; k++)
        st = ts_matcher_bytes(m, "a", 1, &ok, &err);
    CHECK_MSG(st == TS_UNSUPPORTED && strstr(err.msg, "too ambiguous"), "%d %s", (int)st, err.msg);
    ts_matcher_close(m);
    ts_gram_close(g);
}

/* --- the sampler ---------------------------------------------------------------------------------
 */

static void random_logits(float *l, int n)
{
    for (int i = 0; i < n; i++)
        l[i] = 3 * rnd_normal(&seed);
}

static ts_sampler *open_sampler(float temp, const ts_grammar *g)
{
    ts_sampler *s = NULL;
    ts_sampler_options o;
    ts_sampler_options_init(&o);
    o.temp = temp;
    o.seed = 5;
    REQUIRE(ts_sampler_open(&s, &o, NULL) == TS_OK);
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_NONE);
    if (g)
        CHECK(ts_sampler_set_grammar(s, g, NULL) == TS_OK);
    return s;
}

/* Under a grammar the sampler chooses what one without chooses from the logits that are allowed. */
static void same_choices(const ts_grammar *g, const words *w, float temp)
{
    static float a[VOCAB_MAX + 8], b[VOCAB_MAX + 8];
    ts_sampler *under = open_sampler(temp, g), *free_one = open_sampler(temp, NULL);
    ts_matcher *m = follow(g->gram, g->vocab);
    int made = 0, n = w->n + 8; /* a model may have more rows than its vocabulary tokens */
    while (ts_sampler_grammar_state(under) != TS_GRAMMAR_ENDED && made < 200) {
        ts_mask k;
        ts_token x = -1, y = -1;
        bool ok;
        random_logits(a, n);
        a[made % n] = NAN;
        for (int i = 0; i < 40; i++)
            a[or_pick(&seed, n)] = 8; /* ties */
        a[w->n + 2] = 9;
        REQUIRE(ts_matcher_mask(m, &k, NULL) == TS_OK);
        for (int i = 0; i < n; i++)
            b[i] = i < w->n && in_mask(&k, i) ? a[i] : -INFINITY;
        CHECK(ts_sampler_sample(under, a, (size_t)n, &x, NULL) == TS_OK);
        CHECK(ts_sampler_sample(free_one, b, (size_t)n, &y, NULL) == TS_OK);
        CHECK_MSG(x == y && x >= 0, "%d, %d", (int)x, (int)y);
        CHECK(ts_matcher_accept(m, x, &ok, NULL) == TS_OK && ok);
        CHECK_MSG(ts_sampler_grammar_state(under) == TS_GRAMMAR_OPEN ||
                      ts_sampler_grammar_state(under) == TS_GRAMMAR_COMPLETE,
                  "%d", (int)ts_sampler_grammar_state(under));
        ts_sampler_accept(under, x);
        made++;
        if (w->eog[x])
            break;
    }
    CHECK(made > 3);
    CHECK(ts_sampler_grammar_state(under) == TS_GRAMMAR_ENDED || made == 200);
    ts_matcher_close(m);
    ts_sampler_close(under);
    ts_sampler_close(free_one);
}

static void test_sampler(void)
{
    static words w;
    static float l[VOCAB_MAX];
    ts_vocab *v = make_words(&w, 900);
    ts_error err = {0};
    ts_token id = -1;
    ts_grammar g = {open_str(json), v};
    for (int i = 0; i < 3; i++) {
        same_choices(&g, &w, 0);
        same_choices(&g, &w, 0.9f);
    }
    /* nothing that is allowed has a logit above -inf: still one of those */
    ts_sampler *s = open_sampler(0.8f, &g);
    for (int i = 0; i < w.n; i++)
        l[i] = w.piece[i].n && w.piece[i].s[0] == '{' ? -INFINITY : 1;
    CHECK(ts_sampler_sample(s, l, (size_t)w.n, &id, &err) == TS_OK && id == '{');
    /* what strays is told */
    ts_sampler_accept(s, 'x');
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_STRAYED);
    CHECK(ts_sampler_sample(s, l, (size_t)w.n, &id, &err) == TS_BAD_ARG &&
          strstr(err.msg, "allow"));
    /* and begun anew, or given up */
    CHECK(ts_sampler_set_grammar(s, &g, &err) == TS_OK);
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_OPEN);
    CHECK(ts_sampler_set_grammar(s, NULL, &err) == TS_OK);
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_NONE);
    ts_sampler_accept(s, 'x');
    CHECK(ts_sampler_sample(s, l, (size_t)w.n, &id, &err) == TS_OK);
    ts_sampler_close(s);
    ts_gram_close(g.gram);
    /* complete: only what ends a generation */
    g.gram = open_str("root ::= \"a\" \"b\"?");
    s = open_sampler(0, &g);
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_OPEN);
    ts_sampler_accept(s, 'a');
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_COMPLETE);
    ts_sampler_accept(s, 'b');
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_ENDED);
    random_logits(l, w.n);
    CHECK(ts_sampler_sample(s, l, (size_t)w.n, &id, &err) == TS_OK && w.eog[id]);
    ts_sampler_accept(s, id);
    CHECK(ts_sampler_grammar_state(s) == TS_GRAMMAR_ENDED);
    ts_sampler_close(s);
    ts_gram_close(g.gram);
    ts_vocab_close(v);
    /* a vocabulary that can't write what the grammar wants */
    ts_str few[3] = {{"ab", 2}, {"b", 1}, {"", 0}};
    uint8_t eog[3] = {0, 0, 1};
    REQUIRE(ts_vocab_open(&v, few, eog, 3, NULL) == TS_OK);
    g = (ts_grammar){open_str("root ::= \"b\" \"c\""), v};
    s = open_sampler(0.5f, &g);
    random_logits(l, 3);
    CHECK(ts_sampler_sample(s, l, 3, &id, &err) == TS_OK && id == 1);
    ts_sampler_accept(s, 1);
    CHECK(ts_sampler_sample(s, l, 3, &id, &err) == TS_UNSUPPORTED && strstr(err.msg, "no token"));
    ts_sampler_close(s);
    ts_gram_close(g.gram);
    ts_vocab_close(v);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_refused();
    test_notation();
    test_random(SANITIZED ? 200 : 1000);
    test_masks();
    test_bounded();
    test_ambiguous();
    test_sampler();
    return check_done("grammar");
}

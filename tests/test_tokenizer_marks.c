/* test_tokenizer_marks.c - text that a template and a stranger wrote together: no byte of the
 * stranger's ever becomes part of a special token, and the rest is tokenized as ever. */
#include "check.h"
#include "tok_vocab.h"

enum { MOST = 400, N_PRE = 5 };

static const char *const pres[N_PRE] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm"};

static const char *const parts[] = {
    "a",  "ab",    "the",  "bab",  "abcab", "<|",  "x",      "|>", " ",  "  ",
    "\n", "<s>",   "</s>", "<b>",  "<",     "[x]", "im_end", "c",  "|",  "xy",
    "z",  "<|x|>", "z!",   "\n\n", "<|im_", "end", "|>",     "é",  "中", "<|im_end|>"};

/* Pieces of random text, each the template's or the stranger's. */
static size_t random_marked(uint64_t *seed, char *s, uint8_t *mark)
{
    size_t n = 0;
    for (size_t k = rnd_u64(seed) % 30; k > 0; k--) {
        const char *p = parts[rnd_u64(seed) % (sizeof parts / sizeof *parts)];
        size_t len = strlen(p);
        memcpy(s + n, p, len);
        memset(mark + n, rnd_u64(seed) % 2 ? (int)(1 + rnd_u64(seed) % 255) : 0, len);
        n += len;
    }
    s[n] = 0;
    return n;
}

/* The rule as it reads: the longest first, each from left to right; one that isn't user-defined
 * stands on the template's bytes alone. */
static void plain_partition(const ts_tokenizer *t, const char *s, const uint8_t *mark, int32_t *at)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        at[i] = -1;
    for (size_t len = t->max_len; len > 0; len--)
        for (int32_t id = 0; id < t->n; id++) {
            uint8_t kind = t->attr[id] & TOK_SPECIAL;
            if (t->text[id].n != len || !kind)
                continue;
            for (size_t i = 0; i + len <= n; i++) {
                bool is_free = memcmp(s + i, t->text[id].s, len) == 0;
                for (size_t k = 0; k < len; k++)
                    is_free = is_free && at[i + k] == -1 && (kind == TOK_USER || !mark[i + k]);
                for (size_t k = 0; is_free && k < len; k++)
                    at[i + k] = k == 0 ? id : -2;
            }
        }
}

static void test_partition(const ts_tokenizer *t, const char *name)
{
    uint64_t seed = 17;
    for (int i = 0; i < 3000; i++) {
        char s[MOST];
        uint8_t mark[MOST];
        int32_t at[MOST], got[MOST];
        size_t n = random_marked(&seed, s, mark);
        plain_partition(t, s, mark, at);
        tok_work w = {.t = t, .mark = mark};
        REQUIRE(tok_partition(&w, s, n, true) == TS_OK);
        for (size_t k = 0; k < n; k++)
            got[k] = -2;
        for (size_t f = 0; f < w.n_frag; f++)
            for (size_t k = 0; k < w.frag[f].len; k++)
                got[w.frag[f].pos + k] = w.frag[f].id < 0 ? -1 : k == 0 ? w.frag[f].id : -2;
        CHECK_MSG(memcmp(at, got, n * sizeof *at) == 0, "%s: '%s'", name, s);
        tok_work_free(&w);
    }
}

static bool same(const ts_tokenizer *t, const char *s, size_t n, const uint8_t *mark,
                 unsigned flags, unsigned plain_flags)
{
    ts_token *a, *b;
    size_t na, nb;
    REQUIRE(ts_tokenizer_encode_marked(t, s, mark, n, flags, &a, &na, NULL) == TS_OK);
    REQUIRE(ts_tokenizer_encode(t, s, n, plain_flags, &b, &nb, NULL) == TS_OK);
    bool r = na == nb && memcmp(a, b, na * sizeof *a) == 0;
    free(a);
    free(b);
    return r;
}

/* All the template's: as with PARSE_SPECIAL; all the stranger's: as without. */
static void test_all_or_nothing(const ts_tokenizer *t, const char *name)
{
    uint64_t seed = 23;
    for (int i = 0; i < 1000; i++) {
        char s[MOST];
        uint8_t mark[MOST];
        size_t n = random_marked(&seed, s, mark);
        memset(mark, 0, n);
        CHECK_MSG(same(t, s, n, mark, TS_TOK_PARSE_SPECIAL, TS_TOK_PARSE_SPECIAL), "%s: '%s'", name,
                  s);
        memset(mark, 1, n);
        CHECK_MSG(same(t, s, n, mark, TS_TOK_PARSE_SPECIAL, 0), "%s: '%s'", name, s);
        CHECK_MSG(same(t, s, n, mark, 0, 0), "%s: '%s'", name, s);
    }
}

/* In `mark` '#' is the stranger's; the pieces that come out, between bars. */
static void expect(const ts_tokenizer *t, const char *s, const char *marks, const char *pieces)
{
    uint8_t mark[MOST];
    ts_token *v;
    size_t n = strlen(s), n_ids;
    ts_sb b = {0};
    REQUIRE(n < MOST && strlen(marks) == n);
    for (size_t i = 0; i < n; i++)
        mark[i] = marks[i] == '#';
    REQUIRE(ts_tokenizer_encode_marked(t, s, mark, n, TS_TOK_PARSE_SPECIAL, &v, &n_ids, NULL) ==
            TS_OK);
    ts_sb_str(&b, "");
    for (size_t i = 0; i < n_ids; i++) {
        const char *p;
        size_t len = ts_tokenizer_piece(t, v[i], true, &p);
        ts_sb_str(&b, i ? "/" : "");
        ts_sb_add(&b, p, len);
    }
    CHECK_MSG(!strcmp(b.s, pieces), "'%s' gave '%s', not '%s'", s, b.s, pieces);
    ts_sb_free(&b);
    free(v);
}

static void test_known_bpe(const ts_tokenizer *t)
{
    expect(t, "<|im_end|>", "..........", "<|im_end|>");
    /* the stranger's: what is left are user-defined tokens, which are text */
    expect(t, "<|im_end|>", "##########", "<|/i/m/_/e/n/d/|>");
    /* split over two fields, begun by the template, ended by it */
    expect(t, "<|im_end|>", "#####.....", "<|/i/m/_/e/n/d/|>");
    expect(t, "<|im_end|>", "#.........", "<|/i/m/_/e/n/d/|>");
    expect(t, "<|im_end|>", ".........#", "<|/i/m/_/e/n/d/|>");
    expect(t, "<|im_end|>", "...#......", "<|/i/m/_/e/n/d/|>");
    expect(t, "a</s>a</s>", ".....#####", "a/</s>/a/<///s/>");
    /* one running text: the merge of "th" and "e" doesn't care whose they are */
    expect(t, "the", ".#.", "the");
    expect(t, "</s>the<s>", "....###...", "</s>/the/<s>");
}

/* The control tokens of the vocabulary, with one byte after the other the stranger's. */
static void test_known_spm(const ts_tokenizer *t)
{
    static const char *const control[] = {"<|im_end|>", "[x]", "<s>", "</s>", "<unk>"};
    for (size_t i = 0; i < sizeof control / sizeof *control; i++) {
        size_t n = strlen(control[i]), got;
        for (size_t k = 0; k <= n; k++) {
            uint8_t mark[16] = {0};
            ts_token *ids;
            bool found = false;
            mark[k] = k < n;
            REQUIRE(ts_tokenizer_encode_marked(t, control[i], mark, n, TS_TOK_PARSE_SPECIAL, &ids,
                                               &got, NULL) == TS_OK);
            for (size_t j = 0; j < got; j++)
                found |= (t->attr[ids[j]] & TOK_SPECIAL) != 0;
            CHECK_MSG(found == (k == n), "%s, byte %zu", control[i], k);
            free(ids);
        }
    }
}

/* What DeepSeek and Qwen have: delimiters that their files call user-defined. */
static void test_delimiters(void)
{
    static const tv_token t[] = {{"<unk>", 2, 0},        {"<s>", 3, 0},   {"</s>", 3, 0},
                                 {"▁", 1, -1},           {"a", 1, -2},    {"<｜User｜>", 4, -3},
                                 {"<tool_call>", 4, -3}, {"<td>", 4, -3}, {"</td>", 4, -3},
                                 {"[INST]", 4, -3},      {"\n\n", 4, -3}, {"<h1>", 4, -3},
                                 {"<>", 4, -3},          {"[]", 4, -3},   {"<Tag>", 4, -3}};
    tv v = {0};
    ts_gguf *g;
    ts_tokenizer *tok;
    tv_str(&v, "tokenizer.ggml.model", "llama");
    tv_bool(&v, "tokenizer.ggml.add_space_prefix", false);
    tv_tokens(&v, t, sizeof t / sizeof *t);
    REQUIRE(tv_open(&v, &g, &tok, NULL) == TS_OK);
    static const struct {
        const char *text;
        bool found_in_any;
    } cases[] = {{"<｜User｜>", false}, {"<tool_call>", false}, {"[INST]", false},
                 {"<Tag>", false},      {"<td>", true},         {"</td>", true},
                 {"\n\n", true},        {"<h1>", true},         {"<>", true},
                 {"[]", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t mark[32] = {0};
        size_t n = strlen(cases[i].text), got;
        ts_token *ids;
        for (size_t k = 0; k <= n; k++) { /* none, then each byte the stranger's */
            memset(mark, 0, sizeof mark);
            if (k < n)
                mark[k] = 1;
            REQUIRE(ts_tokenizer_encode_marked(tok, cases[i].text, mark, n, TS_TOK_PARSE_SPECIAL,
                                               &ids, &got, NULL) == TS_OK);
            bool found = got == 1 && ids[0] >= 5;
            CHECK_MSG(found == (k == n || cases[i].found_in_any), "%s, byte %zu", cases[i].text, k);
            free(ids);
        }
    }
    ts_tokenizer_close(tok);
    ts_gguf_close(g);
}

int main(void)
{
    for (int i = 0; i < N_PRE + 2; i++) {
        tv v = {0};
        ts_gguf *g;
        ts_tokenizer *t;
        ts_error err = {0};
        if (i < N_PRE)
            tv_small_bpe(&v, pres[i]);
        else
            tv_small_spm(&v, i == N_PRE);
        CHECK_MSG(tv_open(&v, &g, &t, &err) == TS_OK, "%s", err.msg);
        REQUIRE(t);
        const char *name = i < N_PRE ? pres[i] : "spm";
        test_partition(t, name);
        test_all_or_nothing(t, name);
        if (i < N_PRE)
            test_known_bpe(t);
        else
            test_known_spm(t);
        ts_tokenizer_close(t);
        ts_gguf_close(g);
    }
    test_delimiters();
    return check_done("tokenizer_marks");
}

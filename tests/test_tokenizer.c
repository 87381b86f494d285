/* test_tokenizer.c - the algorithms against plain versions of themselves on small vocabularies; bad
 * vocabularies; work that grows linearly; the fuzz target's inputs once more. */
#include <dirent.h>
#include <time.h>

#include "check.h"

#define LLVMFuzzerTestOneInput fuzz_tokenizer_input
#include "fuzz/fuzz_tokenizer.c"

/* --- plain versions --------------------------------------------------------- */

typedef struct id_list {
    ts_token v[4096];
    size_t n;
} id_list;

static int32_t plain_find(const ts_tokenizer *t, const char *s, size_t n)
{
    int32_t id = -1;
    for (int32_t i = 0; i < t->n; i++)
        if (t->text[i].n == n && n > 0 && memcmp(t->text[i].s, s, n) == 0)
            id = i;
    return id;
}

typedef struct part {
    size_t pos, len;
} part;

/* Merges the best pair until there is none: by score, which the caller's `better` compares. */
static size_t plain_merge(const ts_tokenizer *t, const char *s, part *p, size_t n)
{
    for (;;) {
        size_t best = n;
        float score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t id = plain_find(t, s + p[i].pos, p[i].len + p[i + 1].len);
            if (id >= 0 && (best == n || t->score[id] > score)) {
                best = i;
                score = t->score[id];
            }
        }
        if (best == n)
            return n;
        p[best].len += p[best + 1].len;
        memmove(&p[best + 1], &p[best + 2], (n - best - 2) * sizeof *p);
        n--;
    }
}

/* SentencePiece without specials: the whole text is one sequence. */
static void plain_spm(const ts_tokenizer *t, const char *text, id_list *out)
{
    char s[2048];
    part p[2048];
    size_t n = 0, k = 0;
    if (t->add_space_prefix && *text)
        n += (size_t)sprintf(s, "▁");
    for (; *text; text++)
        n += (size_t)sprintf(s + n, "%.*s", *text == ' ' ? 3 : 1, *text == ' ' ? "▁" : text);
    for (size_t i = 0; i < n; k++) {
        size_t len = (uint8_t)s[i] < 0xc0   ? 1
                     : (uint8_t)s[i] < 0xe0 ? 2
                     : (uint8_t)s[i] < 0xf0 ? 3
                                            : 4;
        p[k] = (part){i, len < n - i ? len : n - i};
        i += p[k].len;
    }
    k = plain_merge(t, s, p, k);
    for (size_t i = 0; i < k; i++) {
        int32_t id = plain_find(t, s + p[i].pos, p[i].len);
        if (id >= 0)
            out->v[out->n++] = id;
        for (size_t j = 0; id < 0 && j < p[i].len; j++) {
            char name[8];
            snprintf(name, sizeof name, "<0x%02X>", (uint8_t)s[p[i].pos + j]);
            out->v[out->n++] = plain_find(t, name, 6);
        }
    }
}

/* Special tokens as the rule reads: the longest first, each from left to right. */
static void plain_partition(const ts_tokenizer *t, const char *s, bool all, int32_t *at)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        at[i] = -1;
    for (size_t len = t->max_len; len > 0; len--)
        for (int32_t id = 0; id < t->n; id++) {
            uint8_t kind = t->attr[id] & TOK_SPECIAL;
            if (t->text[id].n != len || !kind || (!all && kind != TOK_USER))
                continue;
            for (size_t i = 0; i + len <= n; i++) {
                bool is_free = memcmp(s + i, t->text[id].s, len) == 0;
                for (size_t k = 0; k < len; k++)
                    is_free = is_free && at[i + k] == -1;
                for (size_t k = 0; is_free && k < len; k++)
                    at[i + k] = k == 0 ? id : -2;
            }
        }
}

static void random_text(uint64_t *seed, const char *const *parts, size_t n_parts, char *s)
{
    *s = 0;
    for (size_t k = rnd_u64(seed) % 30; k > 0; k--)
        strcat(s, parts[rnd_u64(seed) % n_parts]);
}

static void test_partition(const ts_tokenizer *t, const char *name)
{
    static const char *const parts[] = {"a",      "ab", "aab", "bab", "abcab", "<|",  "x", "|>",
                                        " ",      "  ", "\n",  "<s>", "</s>",  "<b>", "<", "[x]",
                                        "im_end", "c",  "|",   "xy",  "z",     "xyz", "z!"};
    uint64_t seed = 11;
    for (int i = 0; i < 4000; i++) {
        char s[400];
        int32_t at[400], got[400];
        random_text(&seed, parts, sizeof parts / sizeof *parts, s);
        size_t n = strlen(s);
        plain_partition(t, s, i & 1, at);
        tok_work w = {.t = t};
        REQUIRE(tok_partition(&w, s, n, i & 1) == TS_OK);
        size_t covered = 0;
        for (size_t k = 0; k < n; k++)
            got[k] = -2;
        for (size_t f = 0; f < w.n_frag; f++) {
            CHECK_MSG(w.frag[f].pos == covered, "%s: '%s'", name, s);
            covered += w.frag[f].len;
            for (size_t k = 0; k < w.frag[f].len; k++)
                got[w.frag[f].pos + k] = w.frag[f].id < 0 ? -1 : k == 0 ? w.frag[f].id : -2;
        }
        CHECK_MSG(covered == n && memcmp(at, got, n * sizeof *at) == 0, "%s: '%s'", name, s);
        tok_work_free(&w);
    }
}

static void test_spm_merges(const ts_tokenizer *t)
{
    static const char *const parts[] = {"a", "b",  "c", " ",  "  ", "the", "t",  "h",    "e",
                                        "é", "中", "1", "zz", "▁",  "aa",  "\t", "\xf0", "\x80"};
    uint64_t seed = 5;
    for (int i = 0; i < 3000; i++) {
        char s[400];
        random_text(&seed, parts, sizeof parts / sizeof *parts, s);
        if (strstr(s, "  \n"))
            continue;
        id_list want = {.n = 0};
        ts_token *got;
        size_t n;
        plain_spm(t, s, &want);
        REQUIRE(ts_tokenizer_encode(t, s, strlen(s), 0, &got, &n, NULL) == TS_OK);
        CHECK_MSG(n == want.n && memcmp(got, want.v, n * sizeof *got) == 0, "'%s'", s);
        free(got);
    }
}

/* One word of letters: by rank, the plain way. */
static void test_bpe_merges(const ts_tokenizer *t)
{
    uint64_t seed = 3;
    for (int i = 0; i < 3000; i++) {
        char s[80];
        int32_t p[80];
        size_t n = 2 + rnd_u64(&seed) % 60, k = n;
        for (size_t j = 0; j < n; j++) {
            s[j] = "abcthe"[rnd_u64(&seed) % (i % 2 ? 6 : 2)];
            p[j] = t->byte_id[(uint8_t)s[j]];
        }
        for (size_t rank = 0; rank < t->n_merge;) {
            size_t j = 0;
            while (j + 1 < k && !(p[j] == t->merge[rank].left && p[j + 1] == t->merge[rank].right))
                j++;
            if (j + 1 >= k) {
                rank++;
                continue;
            }
            p[j] = t->merge[rank].merged;
            memmove(&p[j + 1], &p[j + 2], (k - j - 2) * sizeof *p);
            k--;
            rank = 0;
        }
        tok_work w = {.t = t, .word = s};
        REQUIRE(tok_bpe_word(&w, n) == TS_OK);
        CHECK_MSG(w.n_out == k && memcmp(w.out, p, k * sizeof *p) == 0, "'%.*s'", (int)n, s);
        tok_work_free(&w);
    }
}

/* --- known answers ----------------------------------------------------------- */

static void expect(const ts_tokenizer *t, const char *s, unsigned flags, const char *pieces)
{
    ts_token *v;
    size_t n;
    ts_sb b = {0};
    REQUIRE(ts_tokenizer_encode(t, s, strlen(s), flags, &v, &n, NULL) == TS_OK);
    ts_sb_str(&b, "");
    for (size_t i = 0; i < n; i++) {
        const char *p;
        size_t len = ts_tokenizer_piece(t, v[i], true, &p);
        ts_sb_str(&b, i ? "|" : "");
        ts_sb_add(&b, p, len);
    }
    CHECK_MSG(strcmp(b.s, pieces) == 0, "'%s' gave '%s', not '%s'", s, b.s, pieces);
    ts_sb_free(&b);
    free(v);
}

static void test_known(void)
{
    const ts_tokenizer *gpt2 = vocab[0], *llama3 = vocab[2], *prefix = vocab[N_PRE],
                       *plain = vocab[N_PRE + 1];
    expect(gpt2, "", 3, "");
    expect(gpt2, "the a's", 0, "the| a|'s");
    expect(gpt2, "a</s>b", TS_TOK_PARSE_SPECIAL, "a|</s>|b");
    expect(gpt2, "a</s>", 0, "a|<|/|s|>");
    expect(gpt2, "\xff", 0, "\xef\xbf\xbd"); /* U+FFFD is one token here */
    expect(llama3, "a", TS_TOK_ADD_SPECIAL, "<s>|a");
    expect(llama3, "1234", 0, "123|4");
    expect(vocab[3], "123", 0, "1|2|3");
    expect(prefix, "the", TS_TOK_ADD_SPECIAL, "<s>| the");
    expect(prefix, "the<b>the", 0, " the|<b>| the");
    expect(prefix, "", TS_TOK_ADD_SPECIAL, "<s>");
    expect(plain, "the", 0, "the");
    expect(plain, "\xf0\x9f", 0, "\xf0|\x9f");
    CHECK(ts_tokenizer_is_eog(gpt2, 1) && !ts_tokenizer_is_eog(gpt2, 0));
    CHECK(ts_tokenizer_is_eog(gpt2, 6)); /* <|im_end|>, by its text */
    CHECK(!ts_tokenizer_is_eog(gpt2, -1) && !ts_tokenizer_is_eog(gpt2, 1 << 30));
    CHECK(ts_tokenizer_bos(prefix) == 1 && ts_tokenizer_eos(prefix) == 2);
    const char *p;
    CHECK(ts_tokenizer_piece(gpt2, 0, false, &p) == 0 &&
          ts_tokenizer_piece(gpt2, 0, true, &p) == 3);
    CHECK(ts_tokenizer_piece(gpt2, -5, true, &p) == 0);
    ts_token bad = 100000;
    char *text;
    size_t n;
    ts_error err = {0};
    CHECK(ts_tokenizer_decode(gpt2, &bad, 1, true, &text, &n, &err) == TS_BAD_ARG);
    CHECK(strstr(err.msg, "100000"));
}

static void test_phi3_strips(void)
{
    static const tv_token t[] = {{"<unk>", 2, 0}, {"<s>", 3, 0}, {"</s>", 3, 0}, {"<|end|>", 3, 0},
                                 {"▁", 1, -1},    {"a", 1, -2},  {"[e~[", 1, -3}};
    tv v = {0};
    ts_gguf *g;
    ts_tokenizer *tok;
    tv_str(&v, "tokenizer.ggml.model", "llama");
    tv_str(&v, "general.name", "Phi-3 mini");
    tv_tokens(&v, t, sizeof t / sizeof *t);
    REQUIRE(tv_open(&v, &g, &tok, NULL) == TS_OK);
    expect(tok, "<|end|> \n a", TS_TOK_PARSE_SPECIAL, "<|end|>| |a");
    expect(tok, "<s> a", TS_TOK_PARSE_SPECIAL, "<s>| | |a");
    CHECK(ts_tokenizer_is_eog(tok, 6) && (tok->attr[6] & TOK_CONTROL)); /* only by its text */
    ts_tokenizer_close(tok);
    ts_gguf_close(g);
}

/* --- bad vocabularies ---------------------------------------------------------- */

static const tv_token few[] = {
    {"<s>", 3, 0}, {"a", 1, 0}, {"b", 1, 0}, {"ab", 1, 0}, {"<0x41>", 6, 0}};
enum { N_FEW = sizeof few / sizeof *few };

static void refuse(tv *v, const char *what, ts_status want)
{
    ts_gguf *g;
    ts_tokenizer *t;
    ts_error err = {0};
    ts_status st = tv_open(v, &g, &t, &err);
    CHECK_MSG(st == want && strstr(err.msg, what), "status %d: '%s', not '%s'", st, err.msg, what);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
}

static void begin(tv *v, const char *model)
{
    *v = (tv){0};
    tv_str(v, "tokenizer.ggml.model", model);
    if (strcmp(model, "gpt2") == 0)
        tv_str(v, "tokenizer.ggml.pre", "gpt-2");
}

static void merges(tv *v, const char *merge)
{
    tv_arr(v, "tokenizer.ggml.merges", TS_GGUF_STR, merge ? 1 : 0);
    if (merge)
        tv_bytes(v, merge, strlen(merge));
}

static void tokens_with(tv *v, const char *last, int type)
{
    tv_token t[N_FEW + 1];
    memcpy(t, few, sizeof few);
    t[N_FEW] = (tv_token){last, type, 0};
    tv_tokens(v, t, N_FEW + 1);
}

static void test_bad_merges(void)
{
    static const struct {
        const char *merge, *what;
    } cases[] = {{"a c", "merge 0, 'a c', names or makes"},
                 {"c a", "names or makes"},
                 {"b a", "names or makes"},
                 {"ab", "merge 0 is 'ab'"},
                 {"", "merge 0 is ''"},
                 {" ", "not two tokens"},
                 {"a ", "names or makes"}};
    tv v;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&v, "gpt2");
        tv_tokens(&v, few, N_FEW);
        merges(&v, cases[i].merge);
        refuse(&v, cases[i].what, TS_BAD_FILE);
    }
    begin(&v, "gpt2");
    tv_tokens(&v, few, N_FEW);
    refuse(&v, "tokenizer.ggml.merges is missing", TS_BAD_FILE);
    begin(&v, "gpt2");
    tv_tokens(&v, few, N_FEW);
    tv_arr(&v, "tokenizer.ggml.merges", TS_GGUF_U32, 0);
    refuse(&v, "tokenizer.ggml.merges", TS_BAD_FILE);
}

static void test_bad_tokens(void)
{
    static const char *const bytes[] = {"<0x-1>", "<0x100>", "<0xG0>", "0x41", "<0x4>", ""};
    tv v;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        begin(&v, "llama");
        tokens_with(&v, bytes[i], 6);
        refuse(&v, "byte token 5 is '", TS_BAD_FILE);
    }
    begin(&v, "llama");
    refuse(&v, "tokenizer.ggml.tokens is missing", TS_BAD_FILE);
    begin(&v, "llama");
    tv_tokens(&v, few, 0);
    refuse(&v, "holds 0 tokens", TS_BAD_FILE);
    begin(&v, "llama");
    tv_arr(&v, "tokenizer.ggml.tokens", TS_GGUF_U32, 1);
    tv_u32(&v, 7);
    refuse(&v, "tokenizer.ggml.tokens", TS_BAD_FILE);
    char *huge = malloc(70000);
    memset(huge, 'a', 70000);
    begin(&v, "llama");
    tv_arr(&v, "tokenizer.ggml.tokens", TS_GGUF_STR, 1);
    tv_bytes(&v, huge, 70000);
    refuse(&v, "token 0 is 70000 bytes long", TS_BAD_FILE);
    begin(&v, "llama");
    tv_arr(&v, "tokenizer.ggml.tokens", TS_GGUF_STR, 70);
    for (int i = 0; i < 70; i++)
        tv_bytes(&v, huge, (size_t)(65000 + i));
    tv_arr(&v, "tokenizer.ggml.token_type", TS_GGUF_I32, 70);
    for (int i = 0; i < 70; i++)
        tv_u32(&v, 3);
    refuse(&v, "the texts of its special tokens", TS_UNSUPPORTED);
    free(huge);
}

static void test_bad_columns(void)
{
    static const char *const keys[] = {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"};
    tv v;
    for (int k = 0; k < 2; k++) {
        ts_gguf_type good = k == 0 ? TS_GGUF_F32 : TS_GGUF_I32;
        for (int wrong_type = 0; wrong_type < 2; wrong_type++) {
            begin(&v, "llama");
            tv_arr(&v, "tokenizer.ggml.tokens", TS_GGUF_STR, 2);
            tv_bytes(&v, "a", 1);
            tv_bytes(&v, "b", 1);
            tv_arr(&v, keys[k], wrong_type ? TS_GGUF_U32 : good, wrong_type ? 2 : 1);
            tv_u32(&v, 1);
            if (wrong_type)
                tv_u32(&v, 1);
            refuse(&v, wrong_type ? keys[k] : "holds 1 values for 2 tokens", TS_BAD_FILE);
        }
    }
    begin(&v, "llama");
    tv_arr(&v, "tokenizer.ggml.tokens", TS_GGUF_STR, 1);
    tv_bytes(&v, "a", 1);
    tv_arr(&v, "tokenizer.ggml.scores", TS_GGUF_F32, 1);
    tv_u32(&v, 0x7fc00000);
    refuse(&v, "score of token 0 is not a number", TS_BAD_FILE);
}

static void test_bad_keys(void)
{
    static const char *const ids[] = {"bos", "eos", "eot", "unknown", "padding", "fim_pad"};
    tv v;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        begin(&v, "llama");
        tv_tokens(&v, few, N_FEW);
        tv_int(&v, key, N_FEW);
        refuse(&v, "is 5, but there are 5 tokens", TS_BAD_FILE);
        begin(&v, "llama");
        tv_tokens(&v, few, N_FEW);
        tv_str(&v, key, "1");
        refuse(&v, key, TS_BAD_FILE);
    }
    v = (tv){0};
    tv_tokens(&v, few, N_FEW);
    refuse(&v, "tokenizer.ggml.model is missing", TS_BAD_FILE);
    begin(&v, "bert");
    tv_tokens(&v, few, N_FEW);
    refuse(&v, "tokenizer.ggml.model is 'bert'", TS_UNSUPPORTED);
    v = (tv){0};
    tv_str(&v, "tokenizer.ggml.model", "gpt2");
    tv_str(&v, "tokenizer.ggml.pre", "gpt-22");
    tv_tokens(&v, few, N_FEW);
    merges(&v, NULL);
    refuse(&v, "unknown pre-tokenizer 'gpt-22'", TS_UNSUPPORTED);
}

/* What real files have, and what they might: it opens. */
static void test_tolerated(void)
{
    tv v;
    ts_gguf *g;
    ts_tokenizer *t;
    ts_error err = {0};
    begin(&v, "gpt2");
    tokens_with(&v, "ab", 1); /* twice: the later one counts */
    merges(&v, "a b");
    tv_int(&v, "tokenizer.ggml.padding_token_id", UINT32_MAX); /* none */
    CHECK_MSG(tv_open(&v, &g, &t, &err) == TS_OK, "%s", err.msg);
    if (t) {
        ts_token *out;
        size_t n;
        REQUIRE(ts_tokenizer_encode(t, "ab", 2, 0, &out, &n, NULL) == TS_OK);
        CHECK(n == 1 && out[0] == N_FEW);
        free(out);
    }
    ts_tokenizer_close(t);
    ts_gguf_close(g);
    begin(&v, "llama");
    tokens_with(&v, "", 1); /* an empty token stands for nothing */
    CHECK_MSG(tv_open(&v, &g, &t, &err) == TS_OK, "%s", err.msg);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
}

/* --- work --------------------------------------------------------------------- */

static uint64_t steps(const ts_tokenizer *t, const char *unit, size_t n)
{
    char *s = malloc(n);
    size_t len = strlen(unit);
    for (size_t i = 0; i < n; i++)
        s[i] = unit[i % len];
    tok_work w = {.t = t};
    REQUIRE(tok_work_encode(&w, s, n, 3) == TS_OK);
    uint64_t count = w.steps;
    tok_work_free(&w);
    free(s);
    return count;
}

/* Four times the text, four times the work, whatever the text. */
static void test_linear(void)
{
    static const char *const units[] = {"a",   " ",    "ab",   "the ",     "1",  "\n", "!",
                                        "中",  "é",    "A",    "aB",       " x", "\t", "<|",
                                        "aab", "<|x|", "\xff", "\xf0\x9f", "' ", "▁",  "abcab"};
    for (int v = 0; v < N_VOCAB; v++)
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            uint64_t small = steps(vocab[v], units[u], 5000),
                     large = steps(vocab[v], units[u], 20000);
            CHECK_MSG(large <= 5 * small, "vocabulary %d, '%s': %llu then %llu steps", v, units[u],
                      (unsigned long long)small, (unsigned long long)large);
        }
}

/* Steps don't count what PCRE2 does. A long run of white space before something that no expression
 * takes along would take minutes if each of its characters were tried; it takes milliseconds. */
static void test_long_run(void)
{
    enum { N = 1 << 18 };
    char *s = malloc(N + 3);
    memset(s, '\t', N); /* spaces would be special tokens */
    memcpy(s + N, "中", 3);
    for (int v = 0; v < N_VOCAB; v++) {
        tok_work w = {.t = vocab[v]};
        clock_t start = clock();
        REQUIRE(tok_work_encode(&w, s, N + 3, 0) == TS_OK);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        CHECK_MSG(seconds < 10, "vocabulary %d: %.1f s", v, seconds);
        tok_work_free(&w);
    }
    free(s);
}

/* --- inputs of the fuzz target ------------------------------------------------- */

static void replay(const char *folder)
{
    char path[600];
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort), files = 0;
    for (int i = 0; i < n; i++) {
        static uint8_t data[1 << 16];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        FILE *f = names[i]->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (f) {
            fuzz_tokenizer_input(data, fread(data, 1, sizeof data, f));
            fclose(f);
            files++;
        }
        free(names[i]);
    }
    free(names);
    CHECK_MSG(files > 0, "%s", folder);
}

int main(void)
{
    open_all();
    for (int v = 0; v < N_VOCAB; v++)
        if (v == 0 || v >= N_PRE)
            test_partition(vocab[v], v < N_PRE ? pre_names[v] : "spm");
    test_spm_merges(vocab[N_PRE]);
    test_spm_merges(vocab[N_PRE + 1]);
    test_bpe_merges(vocab[0]);
    test_known();
    test_phi3_strips();
    test_bad_merges();
    test_bad_tokens();
    test_bad_columns();
    test_bad_keys();
    test_tolerated();
    test_linear();
    test_long_run();
    replay(TS_TEST_DIR "/fuzz/corpus_tokenizer");
    replay(TS_TEST_DIR "/fuzz/regress_tokenizer");
    for (int i = 0; i < N_VOCAB; i++) {
        ts_tokenizer_close(vocab[i]);
        ts_gguf_close(gguf[i]);
    }
    return check_done("tokenizer");
}

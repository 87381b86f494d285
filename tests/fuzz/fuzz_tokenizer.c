/* fuzz_tokenizer.c - libFuzzer target for the tokenizer.
 *
 * The first byte says what the rest is: a text for one of the small vocabularies (the second byte
 * holds the flags), a GGUF file, or a recipe for a vocabulary. Texts must come back: what ids stand
 * for is the text, up to what the vocabulary's kind is known to change. */
#include "tok_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_PRE = 13, N_VOCAB = N_PRE + 2, MODE_FILE = N_VOCAB, MODE_RECIPE, N_MODES };

static const char *const pre_names[N_PRE] = {
    "gpt-2",       "smollm", "llama-bpe",    "qwen2",          "tekken", "gpt-4o", "default",
    "deepseek-v3", "qwen35", "deepseek-llm", "deepseek-coder", "falcon", "dbrx"};

static ts_gguf *gguf[N_VOCAB];
static ts_tokenizer *vocab[N_VOCAB];

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_tokenizer: %s\n", what);
        abort();
    }
}

static void open_all(void)
{
    for (int i = 0; i < N_VOCAB; i++) {
        tv v = {0};
        ts_error err = {0};
        if (i < N_PRE)
            tv_small_bpe(&v, pre_names[i]);
        else
            tv_small_spm(&v, i == N_PRE);
        must(tv_open(&v, &gguf[i], &vocab[i], &err) == TS_OK, err.msg);
    }
}

/* The text as its ids give it back: BPE replaces what isn't UTF-8, SPM takes U+2581 for a space. */
static void expected(ts_sb *b, const ts_tokenizer *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        if (t->kind == TOK_KIND_SPM) {
            bool space = n - i >= 3 && memcmp(s + i, "\xe2\x96\x81", 3) == 0;
            ts_sb_add(b, space ? " " : s + i, 1);
            len = space ? 3 : 1;
        } else {
            ts_sb_add(b, s + i, 1);
        }
        i += len;
    }
}

static void check_text(const ts_tokenizer *t, unsigned flags, const char *s, size_t n)
{
    tok_work w = {.t = t};
    ts_error err = {0};
    w.err = &err;
    must(tok_work_encode(&w, s, n, flags) == TS_OK, err.msg);
    must(w.steps < 4096 + 64 * (uint64_t)n, "more steps than a linear tokenizer takes");
    for (size_t i = 0; i < w.n_out; i++)
        must(w.out[i] >= 0 && w.out[i] < ts_tokenizer_n(t), "an id outside of the vocabulary");
    char *back = NULL;
    size_t n_back = 0, skip = (flags & TS_TOK_ADD_SPECIAL) && t->add_bos;
    must(ts_tokenizer_decode(t, skip ? w.out + skip : w.out, w.n_out - skip, true, &back, &n_back,
                             &err) == TS_OK,
         err.msg);
    if (t->kind == TOK_KIND_SPM || ts_utf8_valid(s, n) == n) {
        ts_sb want = {0}, got = {0};
        expected(&want, t, s, n);
        expected(&got, t, back, n_back);
        must(want.n == got.n && (want.n == 0 || memcmp(want.s, got.s, want.n) == 0),
             "the text didn't come back");
        ts_sb_free(&want);
        ts_sb_free(&got);
    }
    free(back);
    tok_work_free(&w);
}

/* A vocabulary that opens must work; one that doesn't must say why. */
static void check_vocab(ts_status st, ts_gguf *g, ts_tokenizer *t, const ts_error *err)
{
    static const char text[] = "a the <s> \xe4\xb8\xad\n\n  123's\xff<0x41>ab<|im_end|>";
    if (st != TS_OK) {
        must(err->msg[0] != 0 && err->code == st, "a refusal without a sentence");
    } else {
        ts_token *ids;
        size_t n;
        for (unsigned flags = 0; flags < 4; flags++) {
            must(ts_tokenizer_encode(t, text, sizeof text, flags, &ids, &n, NULL) == TS_OK,
                 "a vocabulary that opened doesn't work");
            free(ids);
        }
        for (int64_t i = -1; i <= ts_tokenizer_n(t); i++) {
            const char *p;
            ts_sb touch = {0};
            ts_sb_add(&touch, "", 0);
            size_t len = ts_tokenizer_piece(t, (ts_token)i, true, &p);
            ts_sb_add(&touch, p, len);
            ts_sb_free(&touch);
            ts_tokenizer_is_eog(t, (ts_token)i);
        }
    }
    ts_tokenizer_close(t);
    ts_gguf_close(g);
}

static void check_file(const uint8_t *data, size_t size)
{
    char path[40];
    int fd;
    ts_gguf *g = NULL;
    ts_tokenizer *t = NULL;
    ts_error err = {0};
    tv_file(data, size, &fd, path);
    ts_status st = ts_gguf_open(&g, path, &err);
    if (st == TS_OK)
        st = ts_tokenizer_open(&t, g, &err);
    close(fd);
    check_vocab(st, g, t, &err);
}

/* --- recipes -------------------------------------------------------------- */

typedef struct input {
    const uint8_t *p;
    size_t n;
} input;

static uint8_t take(input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

static void add_string(tv *v, input *in)
{
    static const char *const common[] = {"a",          "b",      "ab",  "Ġ",    "Ġa",  "▁",
                                         "▁a",         "<0x41>", "<s>", "</s>", "a b", "Ġ a",
                                         "<|im_end|>", "<0x-1>", "",    "aa"};
    uint8_t c = take(in);
    if (c < 16) {
        tv_bytes(v, common[c], strlen(common[c]));
        return;
    }
    size_t n = c % 12 < in->n ? c % 12 : in->n;
    tv_bytes(v, (const char *)in->p, n);
    in->p += n;
    in->n -= n;
}

static void add_array(tv *v, input *in, const char *key, ts_gguf_type elem)
{
    if (take(in) == 0)
        return;
    uint8_t odd = take(in);
    uint64_t n = take(in) % 24;
    if (odd == 1)
        elem = TS_GGUF_I32;
    else if (odd == 2)
        elem = TS_GGUF_F32;
    tv_arr(v, key, elem, n);
    for (uint64_t i = 0; i < n; i++) {
        if (elem == TS_GGUF_STR)
            add_string(v, in);
        else if (take(in) < 200)
            tv_u32(v, take(in) % 9);
        else
            tv_u32(v, (uint32_t)take(in) << 24 | (uint32_t)take(in) << 16);
    }
}

static void check_recipe(input in)
{
    static const char *const ids[] = {"bos", "eos", "eot", "unknown", "padding", "fim_pad", "eom"};
    tv v = {0};
    uint8_t model = take(&in);
    tv_str(&v, "tokenizer.ggml.model", model < 100 ? "gpt2" : model < 250 ? "llama" : "bert");
    tv_str(&v, "tokenizer.ggml.pre", model % 16 < N_PRE ? pre_names[model % 16] : "gpt");
    add_array(&v, &in, "tokenizer.ggml.tokens", TS_GGUF_STR);
    add_array(&v, &in, "tokenizer.ggml.merges", TS_GGUF_STR);
    add_array(&v, &in, "tokenizer.ggml.token_type", TS_GGUF_I32);
    add_array(&v, &in, "tokenizer.ggml.scores", TS_GGUF_F32);
    for (size_t i = 0; i < sizeof ids / sizeof *ids && in.n > 0; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        uint8_t c = take(&in);
        if (c < 64)
            tv_int(&v, key, c == 63 ? UINT32_MAX : c);
    }
    if (take(&in) & 1)
        tv_bool(&v, "tokenizer.ggml.add_bos_token", take(&in) & 1);
    if (take(&in) & 1)
        tv_bool(&v, "tokenizer.ggml.add_eos_token", take(&in) & 1);
    if (take(&in) & 1)
        tv_str(&v, "general.name", "Phi-3");
    ts_gguf *g;
    ts_tokenizer *t;
    ts_error err = {0};
    ts_status st = tv_open(&v, &g, &t, &err);
    check_vocab(st, g, t, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!vocab[0])
        open_all();
    if (size < 2)
        return 0;
    int mode = data[0] % N_MODES;
    if (mode == MODE_FILE)
        check_file(data + 1, size - 1);
    else if (mode == MODE_RECIPE)
        check_recipe((input){data + 1, size - 1});
    else
        check_text(vocab[mode], data[1] & 3, (const char *)data + 2, size - 2);
    return 0;
}

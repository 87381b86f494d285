/* tok_special.c - tokens with a meaning: BOS, EOS, and what ends a generation.
 *
 * Files name some of them by id; many name too few, or give them the wrong kind. What they leave
 * out is found by text, with llama.cpp's lists: a model's output ends where it ends there. */
#include <ctype.h>
#include <string.h>

#include "model/tok_internal.h"

#define PREFIX "tokenizer.ggml."

typedef struct special_ids {
    int32_t bos, eos, eot, eom, unk, sep, pad, mask;
    int32_t fim_pre, fim_suf, fim_mid, fim_pad, fim_rep, fim_sep;
} special_ids;

static ts_status read_id(const ts_tokenizer *t, const char *key, int32_t *id, ts_error *err)
{
    if (*id >= t->n)
        *id = -1; /* a default that this vocabulary doesn't have */
    int64_t v = -1;
    ts_status st = ts_gguf_get_int(t->g, key, INT64_MIN, INT64_MAX, &v, NULL, err);
    if (st != TS_OK)
        return st;
    /* -1, also as an unsigned number, is how converters write "none" */
    if (v == -1 || v == UINT32_MAX)
        return TS_OK;
    if (v < 0 || v >= t->n)
        return ts_fail(err, TS_BAD_FILE, "%s: %s is %lld, but there are %d tokens",
                       ts_gguf_path(t->g), key, (long long)v, t->n);
    *id = (int32_t)v;
    return TS_OK;
}

static ts_status read_ids(const ts_tokenizer *t, special_ids *s, ts_error *err)
{
    const struct {
        const char *key;
        int32_t *id;
    } keys[] = {
        {PREFIX "bos_token_id", &s->bos},         {PREFIX "eos_token_id", &s->eos},
        {PREFIX "eot_token_id", &s->eot},         {PREFIX "eom_token_id", &s->eom},
        {PREFIX "unknown_token_id", &s->unk},     {PREFIX "seperator_token_id", &s->sep}, /* sic */
        {PREFIX "padding_token_id", &s->pad},     {PREFIX "mask_token_id", &s->mask},
        {PREFIX "fim_pre_token_id", &s->fim_pre}, {PREFIX "fim_suf_token_id", &s->fim_suf},
        {PREFIX "fim_mid_token_id", &s->fim_mid}, {PREFIX "fim_pad_token_id", &s->fim_pad},
        {PREFIX "fim_rep_token_id", &s->fim_rep}, {PREFIX "fim_sep_token_id", &s->fim_sep},
        {PREFIX "prefix_token_id", &s->fim_pre}, /* older names */
        {PREFIX "suffix_token_id", &s->fim_suf},  {PREFIX "middle_token_id", &s->fim_mid},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        ts_status st = read_id(t, keys[i].key, keys[i].id, err);
        if (st != TS_OK)
            return st;
    }
    return TS_OK;
}

/* DeepSeek's delimiters are U+FF5C and U+2581. */
#define DS_BAR   "\xef\xbd\x9c"
#define DS_SPACE "\xe2\x96\x81"
#define DS_END   "<" DS_BAR "end" DS_SPACE "of" DS_SPACE "sentence" DS_BAR ">"

enum { MAX_TEXTS = 12 };

static int32_t find_text(const ts_tokenizer *t, const char *text)
{
    return tok_find(t, text, strlen(text));
}

/* The first of `texts` that is a token, unless the file named one; it becomes a control token. */
static void guess(ts_tokenizer *t, int32_t *id, const char *const *texts)
{
    for (size_t i = 0; *id < 0 && i < MAX_TEXTS && texts[i]; i++) {
        *id = find_text(t, texts[i]);
        if (*id >= 0)
            t->attr[*id] |= TOK_CONTROL;
    }
}

static void guess_ids(ts_tokenizer *t, special_ids *s)
{
    static const char *const eot[MAX_TEXTS] = {
        "<|eot_id|>",        "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|end_of_text|>",   "<EOT>",      "_<EOT>",  "[EOT]",         DS_END,
        "<end_of_utterance>"};
    static const char *const eom[MAX_TEXTS] = {"<|eom_id|>"};
    static const char *const pre[MAX_TEXTS] = {
        "<|fim_prefix|>",  "<fim-prefix>",
        "<fim_prefix>",    "<" DS_BAR "fim" DS_SPACE "begin" DS_BAR ">",
        "<PRE>",           DS_SPACE "<PRE>",
        "<|code_prefix|>", "<|prefix|>"};
    static const char *const suf[MAX_TEXTS] = {
        "<|fim_suffix|>",  "<fim-suffix>",
        "<fim_suffix>",    "<" DS_BAR "fim" DS_SPACE "hole" DS_BAR ">",
        "<SUF>",           DS_SPACE "<SUF>",
        "<|code_suffix|>", "<|suffix|>"};
    static const char *const mid[MAX_TEXTS] = {
        "<|fim_middle|>",  "<fim-middle>",
        "<fim_middle>",    "<" DS_BAR "fim" DS_SPACE "end" DS_BAR ">",
        "<MID>",           DS_SPACE "<MID>",
        "<|code_middle|>", "<|middle|>"};
    static const char *const pad[MAX_TEXTS] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>",
                                               "[PAD]"};
    static const char *const rep[MAX_TEXTS] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
                                               "<REPO>", "<reponame>"};
    static const char *const sep[MAX_TEXTS] = {"<|file_sep|>"};
    guess(t, &s->eot, eot);
    guess(t, &s->eom, eom);
    guess(t, &s->fim_pre, pre);
    guess(t, &s->fim_suf, suf);
    guess(t, &s->fim_mid, mid);
    guess(t, &s->fim_pad, pad);
    guess(t, &s->fim_rep, rep);
    guess(t, &s->fim_sep, sep);
}

static void mark_eog(ts_tokenizer *t, int32_t id)
{
    if (id >= 0)
        t->attr[id] |= TOK_EOG;
}

static bool ends(const ts_tokenizer *t, const char *text)
{
    int32_t id = find_text(t, text);
    return id >= 0 && (t->attr[id] & TOK_EOG);
}

static void set_eog(ts_tokenizer *t, const special_ids *s)
{
    static const char *const texts[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|flush|>",
                                        "<|calls|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "</s>",
                                        "<|eom_id|>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response>",
                                        DS_END,
                                        "[e~["};
    mark_eog(t, s->fim_pad);
    mark_eog(t, s->fim_rep);
    mark_eog(t, s->fim_sep);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t id = find_text(t, texts[i]);
        if (id >= 0)
            t->attr[id] |= TOK_EOG | TOK_CONTROL;
    }
    mark_eog(t, s->eos);
    mark_eog(t, s->eot);
    mark_eog(t, s->eom);
}

/* Vocabularies in which a text from the lists above means something else. */
static void correct(ts_tokenizer *t)
{
    /* gpt-oss: these delimit the channels of an answer and are always shown */
    static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        int32_t id = find_text(t, shown[i]);
        if (id >= 0)
            t->attr[id] = TOK_USER | (t->attr[id] & TOK_EOG);
    }
    /* there <|end|> ends a channel, not the answer */
    bool call = ends(t, "<|call|>") || ends(t, "<|calls|>");
    if (call && (ends(t, "<|return|>") || ends(t, "<|flush|>")) && ends(t, "<|end|>"))
        t->attr[find_text(t, "<|end|>")] = TOK_USER;
    if ((ends(t, "<|tool_response>") || ends(t, "<|plamo:eos|>")) && ends(t, "</s>"))
        t->attr[find_text(t, "</s>")] = TOK_NORMAL;
}

static bool name_has(const ts_tokenizer *t, const char *word)
{
    ts_str name = {0};
    if (ts_gguf_get_str(t->g, "general.name", &name, NULL, NULL) != TS_OK)
        return false;
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= name.n; i++) {
        size_t k = 0;
        while (k < n && tolower((unsigned char)name.s[i + k]) == word[k])
            k++;
        if (k == n)
            return true;
    }
    return false;
}

/* Files don't say which special tokens swallow the white space after them. Phi-3's do. */
static void set_strip(ts_tokenizer *t)
{
    if (!name_has(t, "phi-3") && !name_has(t, "phi3"))
        return;
    for (int32_t i = 0; i < t->n; i++)
        if (t->attr[i] & TOK_SPECIAL)
            t->attr[i] |= TOK_RSTRIP;
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        int32_t id = find_text(t, keep[i]);
        if (id >= 0)
            t->attr[id] &= (uint8_t)~TOK_RSTRIP;
    }
}

ts_status tok_special_load(ts_tokenizer *t, ts_error *err)
{
    special_ids s;
    memset(&s, -1, sizeof s); /* -1 = none */
    if (t->kind == TOK_KIND_SPM) {
        s.bos = 1;
        s.eos = 2;
        s.unk = 0;
    } else {
        s.bos = s.eos = 11;
    }
    ts_status st = read_ids(t, &s, err);
    if (st == TS_OK)
        st = ts_gguf_get_bool(t->g, PREFIX "add_bos_token", &t->add_bos, NULL, err);
    if (st == TS_OK)
        st = ts_gguf_get_bool(t->g, PREFIX "add_eos_token", &t->add_eos, NULL, err);
    if (st == TS_OK)
        st = ts_gguf_get_bool(t->g, PREFIX "add_space_prefix", &t->add_space_prefix, NULL, err);
    if (st != TS_OK)
        return st;
    guess_ids(t, &s);
    set_eog(t, &s);
    correct(t);
    set_strip(t);
    t->bos = s.bos;
    t->eos = s.eos;
    t->unk = s.unk;
    return TS_OK;
}

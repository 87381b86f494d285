/* synth_vocab.c - vocabularies of any size that tokenizers accept and use.
 *
 * Byte-level BPE (llama, qwen): 256 byte tokens, then words, each the merge of an earlier token and
 * a letter, then the special tokens. SentencePiece (gemma): special tokens, 256 byte tokens, single
 * characters, then words with falling scores.
 *
 * Words are all strings over a space mark and the letters, shortest first, in the order of how
 * often English uses the letters: even the smallest vocabulary merges something, and the largest
 * have tokens of four letters. */
#include "gguf/synth_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, UNUSED = 5, BYTE = 6 }; /* tokenizer.ggml.token_type */

typedef struct vocab {
    ts_sb text;      /* all tokens, one after another                            */
    uint32_t *start; /* [n_vocab + 1] where each begins in text                   */
    int32_t *type;   /* [n_vocab]                                                */
    float *score;    /* [n_vocab]                                                */
    uint8_t *left;   /* [n_vocab] bytes of the left half of the merge that makes it, 0 = none */
    int n, n_vocab, n_merges;
} vocab;

static void vocab_free(vocab *v)
{
    ts_sb_free(&v->text);
    free(v->start);
    free(v->type);
    free(v->score);
    free(v->left);
}

static bool vocab_alloc(vocab *v, int n_vocab)
{
    size_t n = (size_t)n_vocab;
    *v = (vocab){.n_vocab = n_vocab};
    v->start = ts_calloc(n + 1, sizeof *v->start);
    v->type = ts_calloc(n, sizeof *v->type);
    v->score = ts_calloc(n, sizeof *v->score);
    v->left = ts_calloc(n, sizeof *v->left);
    return v->start && v->type && v->score && v->left;
}

static void add(vocab *v, const char *s, size_t n, int type, size_t left)
{
    ts_sb_add(&v->text, s, n);
    v->type[v->n] = type;
    v->left[v->n] = (uint8_t)left;
    v->n_merges += left > 0;
    v->start[++v->n] = (uint32_t)v->text.n;
}

static void add_str(vocab *v, const char *s, int type)
{
    add(v, s, strlen(s), type, 0);
}

static size_t utf8(char *out, unsigned c) /* below U+10000 */
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 63));
    out[2] = (char)(0x80 | (c & 63));
    return 3;
}

/* GPT-2's byte tokens: bytes that print stand for themselves and come first, the others are U+0100
 * and on. Space is U+0120. */
static void add_gpt2_bytes(vocab *v)
{
    char s[4];
    unsigned other = 0x100;
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned b = 0; b < 256; b++) {
            bool prints = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
            if (prints == (pass == 0))
                add(v, s, utf8(s, pass == 0 ? b : other++), NORMAL, 0);
        }
    }
}

/* Words until the vocabulary holds `end` tokens. */
static void add_words(vocab *v, unsigned space, int end)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkjqxz";
    char s[256];
    for (int i = -1; i < 26; i++) {
        size_t n = i < 0 ? utf8(s, space) : 1;
        if (i >= 0)
            s[0] = letters[i];
        for (int j = 0; j < 26 && v->n < end; j++) {
            s[n] = letters[j];
            add(v, s, n + 1, NORMAL, n);
        }
    }
    for (int from = v->n - 27 * 26; v->n < end && !v->text.failed; from++) {
        size_t n = v->start[from + 1] - v->start[from];
        memcpy(s, v->text.s + v->start[from], n);
        for (int j = 0; j < 26 && v->n < end; j++) {
            s[n] = letters[j];
            add(v, s, n + 1, NORMAL, n);
        }
    }
}

/* BEFORE0AFTER, BEFORE1AFTER, ... until the vocabulary holds `end` tokens. */
static void add_numbered(vocab *v, const char *before, int first, const char *after, int type,
                         int end)
{
    char s[64];
    for (int i = first; v->n < end; i++) {
        snprintf(s, sizeof s, "%s%d%s", before, i, after);
        add_str(v, s, type);
    }
}

/* --- the families ------------------------------------------------------- */

static void put_lists(ts_writer *w, const vocab *v, bool spm)
{
    if (v->text.failed)
        return;
    uint64_t n = (uint64_t)v->n;
    const char *text = v->text.s;
    ts_writer_strs(w, "tokenizer.ggml.tokens", n);
    for (int i = 0; i < v->n; i++)
        ts_writer_elem(w, text + v->start[i], v->start[i + 1] - v->start[i]);
    if (spm)
        ts_writer_arr(w, "tokenizer.ggml.scores", TS_GGUF_F32, v->score, n);
    ts_writer_arr(w, "tokenizer.ggml.token_type", TS_GGUF_I32, v->type, n);
    if (spm)
        return;
    ts_writer_strs(w, "tokenizer.ggml.merges", (uint64_t)v->n_merges);
    for (int i = 0; i < v->n; i++) {
        char s[300];
        size_t size = v->start[i + 1] - v->start[i], left = v->left[i];
        if (!left)
            continue;
        memcpy(s, text + v->start[i], left);
        s[left] = ' ';
        memcpy(s + left + 1, text + v->start[i] + left, size - left);
        ts_writer_elem(w, s, size + 1);
    }
}

static const char chatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

static const char llama3_chat[] =
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}";

static const char gemma_chat[] =
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + (message['role'] if "
    "message['role'] == 'user' else 'model') + '\\n' + message['content'] + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";

static void put_llama(ts_writer *w, vocab *v)
{
    int special = v->n_vocab >= 100000 ? v->n_vocab - 256 : v->n_vocab - 12;
    uint32_t bos = (uint32_t)special;
    add_gpt2_bytes(v);
    add_words(v, 0x120, special);
    add_str(v, "<|begin_of_text|>", CONTROL);
    add_str(v, "<|end_of_text|>", CONTROL);
    add_numbered(v, "<|reserved_special_token_", 0, "|>", CONTROL, special + 6);
    add_str(v, "<|start_header_id|>", CONTROL);
    add_str(v, "<|end_header_id|>", CONTROL);
    add_str(v, "<|eom_id|>", CONTROL);
    add_str(v, "<|eot_id|>", CONTROL);
    add_numbered(v, "<|reserved_special_token_", 4, "|>", CONTROL, v->n_vocab);
    ts_writer_str(w, "tokenizer.ggml.model", "gpt2");
    ts_writer_str(w, "tokenizer.ggml.pre", "llama-bpe");
    put_lists(w, v, false);
    ts_writer_u32(w, "tokenizer.ggml.bos_token_id", bos);
    ts_writer_u32(w, "tokenizer.ggml.eos_token_id", bos + 9);
    ts_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    ts_writer_str(w, "tokenizer.chat_template", llama3_chat);
}

static void put_qwen(ts_writer *w, vocab *v)
{
    int special = v->n_vocab >= 151643 + 6 ? 151643 : v->n_vocab - 6;
    uint32_t id = (uint32_t)special;
    add_gpt2_bytes(v);
    add_words(v, 0x120, special);
    add_str(v, "<|endoftext|>", CONTROL);
    add_str(v, "<|im_start|>", CONTROL);
    add_str(v, "<|im_end|>", CONTROL);
    add_numbered(v, "[PAD", special + 3, "]", UNUSED, v->n_vocab);
    ts_writer_str(w, "tokenizer.ggml.model", "gpt2");
    ts_writer_str(w, "tokenizer.ggml.pre", "qwen2");
    put_lists(w, v, false);
    ts_writer_u32(w, "tokenizer.ggml.bos_token_id", id);
    ts_writer_u32(w, "tokenizer.ggml.eos_token_id", id + 2);
    ts_writer_u32(w, "tokenizer.ggml.padding_token_id", id);
    ts_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    ts_writer_str(w, "tokenizer.chat_template", chatml);
}

static void put_gemma(ts_writer *w, vocab *v)
{
    static const char *const special[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    char s[8];
    for (int i = 0; i < 4; i++)
        add_str(v, special[i], i == 3 ? UNKNOWN : CONTROL);
    add_str(v, "<start_of_turn>", CONTROL);
    add_str(v, "<end_of_turn>", CONTROL);
    for (unsigned b = 0; b < 256; b++) {
        snprintf(s, sizeof s, "<0x%02X>", b);
        add_str(v, s, BYTE);
    }
    int first = v->n;
    add_str(v, "\n", NORMAL);
    add_str(v, "\xe2\x96\x81", NORMAL); /* U+2581, the space mark */
    for (char c = 0x21; c < 0x7f; c++)
        add(v, &c, 1, NORMAL, 0);
    add_words(v, 0x2581, v->n_vocab);
    for (int i = first; i < v->n; i++)
        v->score[i] = (float)(first - i);
    ts_writer_str(w, "tokenizer.ggml.model", "llama");
    ts_writer_str(w, "tokenizer.ggml.pre", "default");
    put_lists(w, v, true);
    ts_writer_u32(w, "tokenizer.ggml.bos_token_id", 2);
    ts_writer_u32(w, "tokenizer.ggml.eos_token_id", 1);
    ts_writer_u32(w, "tokenizer.ggml.eot_token_id", 5);
    ts_writer_u32(w, "tokenizer.ggml.unknown_token_id", 3);
    ts_writer_u32(w, "tokenizer.ggml.padding_token_id", 0);
    ts_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    ts_writer_bool(w, "tokenizer.ggml.add_eos_token", false);
    ts_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
    ts_writer_str(w, "tokenizer.chat_template", gemma_chat);
}

ts_status synth_vocab_put(ts_writer *w, const synth_shape *s, ts_error *err)
{
    vocab v;
    ts_status st = TS_OK;
    bool ok = vocab_alloc(&v, s->n_vocab);
    if (ok && s->arch == SYNTH_LLAMA)
        put_llama(w, &v);
    else if (ok && (s->arch == SYNTH_GEMMA2 || s->arch == SYNTH_GEMMA3))
        put_gemma(w, &v);
    else if (ok)
        put_qwen(w, &v);
    if (!ok || v.text.failed)
        st = ts_fail(err, TS_NO_MEMORY, "no memory for a vocabulary of %d tokens", s->n_vocab);
    vocab_free(&v);
    return st;
}

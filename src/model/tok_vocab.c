/* tok_vocab.c - tokens, their kinds, and the table from text to id.
 *
 * Texts point into the mapped file. Pieces do too where the bytes a token stands for are its text;
 * the others are spelled out once, in one arena. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/utf8.h"
#include "gguf/show.h"
#include "model/tok_internal.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES  "tokenizer.ggml.token_type"
#define KEY_SCORES "tokenizer.ggml.scores"

/* --- GPT-2's alphabet -------------------------------------------------------- */

/* Bytes that print as themselves keep their code point; the others are numbered from 256 on. */
static bool prints(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b != 0xad);
}

/* 0..0x20, 0x7f..0xa0 and 0xad, in this order, stand at 256, 257, ... */
uint32_t tok_byte_char(uint8_t byte)
{
    if (prints(byte))
        return byte;
    if (byte <= 0x20)
        return 256u + byte;
    return byte == 0xad ? 256u + 67 : 256u + 33 + (byte - 0x7fu);
}

int tok_char_byte(uint32_t cp)
{
    if (cp < 256)
        return prints(cp) ? (int)cp : -1;
    cp -= 256;
    if (cp < 33)
        return (int)cp;
    if (cp < 67)
        return (int)(cp - 33 + 0x7f);
    return cp == 67 ? 0xad : -1;
}

/* --- text to id ----------------------------------------------------------- */

static size_t slot_of(const ts_tokenizer *t, uint64_t hash)
{
    return (size_t)(hash * 0x9e3779b97f4a7c15u >> 20) & (t->n_slots - 1);
}

void tok_prefetch(const ts_tokenizer *t, uint64_t hash)
{
    __builtin_prefetch(&t->slots[slot_of(t, hash)]);
}

int32_t tok_likely(const ts_tokenizer *t, uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 16);
    for (size_t i = slot_of(t, hash);; i = (i + 1) & (t->n_slots - 1)) {
        tok_slot s = t->slots[i];
        if (s.id == 0 || s.tag == tag)
            return s.id - 1;
    }
}

int32_t tok_find2(const ts_tokenizer *t, uint64_t hash, const char *a, size_t na, const char *b,
                  size_t nb)
{
    uint32_t tag = (uint32_t)(hash >> 16);
    for (size_t i = slot_of(t, hash);; i = (i + 1) & (t->n_slots - 1)) {
        tok_slot s = t->slots[i];
        if (s.id == 0)
            return -1;
        if (s.tag != tag)
            continue;
        ts_str x = t->text[s.id - 1];
        if (x.n == na + nb && memcmp(x.s, a, na) == 0 && memcmp(x.s + na, b, nb) == 0)
            return s.id - 1;
    }
}

int32_t tok_find(const ts_tokenizer *t, const char *s, size_t n)
{
    return tok_find2(t, tok_hash(t->base, s, n), s, n, s + n, 0);
}

/* Of two tokens with the same text the later one counts. */
static void insert(ts_tokenizer *t, int32_t id, uint64_t hash)
{
    ts_str x = t->text[id];
    uint32_t tag = (uint32_t)(hash >> 16);
    for (size_t i = slot_of(t, hash);; i = (i + 1) & (t->n_slots - 1)) {
        tok_slot *s = &t->slots[i];
        if (s->id != 0) {
            ts_str y = t->text[s->id - 1];
            if (s->tag != tag || y.n != x.n || memcmp(x.s, y.s, x.n) != 0)
                continue;
        }
        *s = (tok_slot){tag, id + 1};
        return;
    }
}

/* A slot is a cache miss: ask for a block of them before any is needed. */
static void insert_all(ts_tokenizer *t)
{
    enum { BLOCK = 32 };
    for (int32_t first = 0; first < t->n; first += BLOCK) {
        uint64_t hash[BLOCK];
        int32_t n = t->n - first < BLOCK ? t->n - first : BLOCK;
        for (int32_t i = 0; i < n; i++) {
            hash[i] = tok_hash(t->base, t->text[first + i].s, t->text[first + i].n);
            tok_prefetch(t, hash[i]);
        }
        for (int32_t i = 0; i < n; i++)
            if (t->text[first + i].n > 0)
                insert(t, first + i, hash[i]);
    }
}

static ts_status build_table(ts_tokenizer *t, ts_error *err)
{
    uint64_t r;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        r = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u;
    t->base = 256 + r % (TOK_PRIME - 512);
    t->n_slots = 16;
    while (t->n_slots < (size_t)t->n * 3 / 2)
        t->n_slots *= 2;
    t->slots = ts_calloc(t->n_slots, sizeof *t->slots);
    t->pow = ts_calloc(t->max_len + 1, sizeof *t->pow);
    if (!t->slots || !t->pow)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a table of %d tokens", t->n);
    t->pow[0] = 1;
    for (size_t i = 1; i <= t->max_len; i++)
        t->pow[i] = tok_mulmod(t->pow[i - 1], t->base);
    insert_all(t);
    return TS_OK;
}

/* --- reading ------------------------------------------------------------- */

static ts_status read_tokens(ts_tokenizer *t, ts_error *err)
{
    ts_gguf_arr a = {0};
    bool found;
    ts_status st = ts_gguf_get_arr(t->g, KEY_TOKENS, TS_GGUF_STR, &a, &found, err);
    if (st != TS_OK)
        return st;
    const char *path = ts_gguf_path(t->g);
    if (!found)
        return ts_fail(err, TS_BAD_FILE, "%s: %s is missing", path, KEY_TOKENS);
    if (a.n == 0 || a.n > TOK_MAX_TOKENS)
        return ts_fail(err, TS_BAD_FILE, "%s: %s holds %llu tokens, not 1 to %d", path, KEY_TOKENS,
                       (unsigned long long)a.n, TOK_MAX_TOKENS);
    t->n = (int32_t)a.n;
    t->text = ts_calloc(a.n, sizeof *t->text);
    t->piece = ts_calloc(a.n, sizeof *t->piece);
    t->attr = ts_calloc(a.n, sizeof *t->attr);
    if (!t->text || !t->piece || !t->attr)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for %d tokens", path, t->n);
    ts_gguf_arr_strs(&a, t->text);
    for (int32_t i = 0; i < t->n; i++) {
        if (t->text[i].n > TOK_MAX_LEN)
            return ts_fail(err, TS_BAD_FILE, "%s: token %d is %zu bytes long, more than %d", path,
                           i, t->text[i].n, TOK_MAX_LEN);
        if (t->text[i].n > t->max_len)
            t->max_len = t->text[i].n;
    }
    return TS_OK;
}

/* An array with a value for every token. *a stays zeroed where the file has none. */
static ts_status read_column(const ts_tokenizer *t, const char *key, ts_gguf_type elem,
                             ts_gguf_arr *a, ts_error *err)
{
    bool found;
    ts_status st = ts_gguf_get_arr(t->g, key, elem, a, &found, err);
    if (st == TS_OK && found && a->n < (uint64_t)t->n)
        st = ts_fail(err, TS_BAD_FILE, "%s: %s holds %llu values for %d tokens", ts_gguf_path(t->g),
                     key, (unsigned long long)a->n, t->n);
    return st;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" -> 10; -1 for any other text. */
static int byte_value(ts_str s)
{
    if (s.n != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
        return -1;
    int hi = hex_digit(s.s[3]), lo = hex_digit(s.s[4]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

static ts_status read_types(ts_tokenizer *t, ts_error *err)
{
    /* The numbers of tokenizer.ggml.token_type: undefined, normal, unknown, control, user-defined,
     * unused, byte. */
    static const uint8_t attr_of[7] = {0,        TOK_NORMAL, TOK_UNKNOWN, TOK_CONTROL,
                                       TOK_USER, TOK_UNUSED, TOK_BYTE};
    ts_gguf_arr a = {0};
    ts_status st = read_column(t, KEY_TYPES, TS_GGUF_I32, &a, err);
    if (st != TS_OK)
        return st;
    for (int32_t i = 0; i < t->n; i++) {
        int64_t type = a.data ? ts_gguf_arr_int(&a, (uint64_t)i) : 1;
        t->attr[i] = type >= 0 && type < 7 ? attr_of[type] : 0;
        if (t->attr[i] == TOK_BYTE && byte_value(t->text[i]) < 0) {
            ts_shown shown;
            return ts_fail(err, TS_BAD_FILE, "%s: byte token %d is '%s', not <0x00> to <0xFF>",
                           ts_gguf_path(t->g), i, ts_show(&shown, t->text[i].s, t->text[i].n));
        }
    }
    return TS_OK;
}

/* Scores may be integers: the larger is merged first either way. */
static ts_status read_scores(ts_tokenizer *t, ts_error *err)
{
    const ts_gguf_kv *kv = ts_gguf_find(t->g, KEY_SCORES);
    bool ints = kv && kv->type == TS_GGUF_ARR && kv->v.arr.type == TS_GGUF_I32;
    ts_gguf_arr a = {0};
    ts_status st = read_column(t, KEY_SCORES, ints ? TS_GGUF_I32 : TS_GGUF_F32, &a, err);
    if (st != TS_OK || t->kind != TOK_KIND_SPM)
        return st;
    t->score = ts_calloc((size_t)t->n, sizeof *t->score);
    if (!t->score)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for %d scores", ts_gguf_path(t->g), t->n);
    for (int32_t i = 0; a.data && i < t->n; i++) {
        t->score[i] = (float)ts_gguf_arr_float(&a, (uint64_t)i);
        if (isnan(t->score[i]))
            return ts_fail(err, TS_BAD_FILE, "%s: the score of token %d is not a number",
                           ts_gguf_path(t->g), i);
    }
    return TS_OK;
}

/* What a byte becomes when nothing longer holds it. */
static void find_bytes(ts_tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        if (t->kind == TOK_KIND_BPE) {
            char c[4];
            t->byte_id[b] = tok_find(t, c, ts_utf8_encode(tok_byte_char((uint8_t)b), c));
            continue;
        }
        static const char hex[] = "0123456789ABCDEF";
        char c = (char)b, name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        t->byte_id[b] = tok_find(t, name, sizeof name);
        if (t->byte_id[b] < 0)
            t->byte_id[b] = tok_find(t, &c, 1);
    }
}

ts_status tok_vocab_load(ts_tokenizer *t, ts_error *err)
{
    ts_status st = read_tokens(t, err);
    if (st == TS_OK)
        st = read_types(t, err);
    if (st == TS_OK)
        st = read_scores(t, err);
    if (st == TS_OK)
        st = build_table(t, err);
    if (st == TS_OK)
        find_bytes(t);
    return st;
}

/* --- pieces ------------------------------------------------------------------ */

/* U+2581 stands for a space. */
static size_t spell_spm(char *out, ts_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.n - i >= 3 && memcmp(s.s + i, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = s.s[i++];
        }
    }
    return n;
}

/* Characters of GPT-2's alphabet stand for bytes; others (there should be none) for themselves. */
static size_t spell_bpe(char *out, ts_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.s[i] > 0x20 && s.s[i] < 0x7f) {
            out[n++] = s.s[i++];
            continue;
        }
        uint32_t cp;
        size_t len = ts_utf8_decode(s.s + i, s.n - i, &cp);
        int byte = len > 0 ? tok_char_byte(cp) : -1;
        if (byte >= 0) {
            out[n++] = (char)byte;
        } else {
            len = len > 0 ? len : 1;
            memcpy(out + n, s.s + i, len);
            n += len;
        }
        i += len;
    }
    return n;
}

ts_status tok_vocab_pieces(ts_tokenizer *t, ts_error *err)
{
    static const char bytes[256] = {
#define B4(n)  (char)(n), (char)((n) + 1), (char)((n) + 2), (char)((n) + 3)
#define B16(n) B4(n), B4((n) + 4), B4((n) + 8), B4((n) + 12)
#define B64(n) B16(n), B16((n) + 16), B16((n) + 32), B16((n) + 48)
        B64(0), B64(64), B64(128), B64(192)};
    size_t total = 0, used = 0;
    for (int32_t i = 0; i < t->n; i++)
        total += t->text[i].n;
    t->arena = malloc(total + 1);
    if (!t->arena)
        return ts_fail(err, TS_NO_MEMORY, "%s: no memory for %zu bytes of tokens",
                       ts_gguf_path(t->g), total);
    for (int32_t i = 0; i < t->n; i++) {
        ts_str s = t->text[i];
        if (t->attr[i] & TOK_SPECIAL) {
            t->piece[i] = s;
        } else if (t->attr[i] & TOK_NORMAL) {
            char *at = t->arena + used;
            size_t n = t->kind == TOK_KIND_BPE ? spell_bpe(at, s) : spell_spm(at, s);
            bool same = n == s.n && memcmp(at, s.s, n) == 0;
            t->piece[i] = same ? s : (ts_str){at, n};
            used += same ? 0 : n;
        } else if (t->attr[i] & TOK_BYTE) {
            t->piece[i] = (ts_str){&bytes[byte_value(s)], 1};
        }
    }
    return TS_OK;
}

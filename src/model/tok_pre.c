/* tok_pre.c - pre-tokenizers: a text cut into words, within which byte-level BPE merges.
 *
 * The expressions ask for little of a character: an ASCII character is itself, any other only has a
 * general category (and, for DeepSeek, belongs to some ranges). So they are matched not against the
 * text but against its classes, one byte a character:
 *
 *     0x00..0x7f            the ASCII character
 *     0x0b                  any other white space: what ASCII's vertical tab is to \s
 *     1 0 C B A c c c       ccc = category, A B C = member of the pre-tokenizer's ranges
 *
 * That makes a class in an expression 256 bits, needs no Unicode in PCRE2, and fixes the version of
 * Unicode whatever PCRE2 the machine has.
 *
 * The expressions of a model are applied one after the other: each cuts the pieces that the
 * one before left into its matches and what lies between them. They are llama.cpp's, which differ
 * here and there from the models' own; they are free of nested repeats, so that a match
 * takes time linear in what it looks at, and what it looks at it (nearly) takes. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "gguf/show.h"
#include "model/tok_internal.h"

/* --- the expressions ----------------------------------------------------------
 *
 * \p{L} \p{M} \p{N} \p{P} \p{S}: the categories, ASCII included. \p{l}: letters outside of ASCII.
 * \p{A} \p{B} \p{C}: the ranges. */

#define CASED_ENDINGS "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define SPACES        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(digits)                                                                             \
    "(?:" CASED_ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                  \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define QWEN35                                                                                     \
    "(?:" CASED_ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"                           \
    "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES
/* words in two cases: a letter outside of ASCII counts as both */
#define TWO_CASES(endings)                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?[A-Z\\p{l}]*[a-z\\p{l}]+" endings                                       \
    "|[^\\r\\n\\p{L}\\p{N}]?[A-Z\\p{l}]+[a-z\\p{l}]*" endings
#define MARKS_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define DEEPSEEK3                                                                                  \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"                                        \
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
/* White space at the very end. Looking behind keeps a long run elsewhere from being tried at each
 * of its characters. */
#define SPACE_AT_END "(?<!\\s)\\s+\\z"

typedef struct range {
    uint32_t first, last;
} range;

/* Letters of scripts with two cases. */
static const range deepseek_letters[] = {{0xb5, 0xb5},
                                         {0xc0, 0xd6},
                                         {0xd8, 0xf6},
                                         {0xf8, 0x1ba},
                                         {0x1bc, 0x1bf},
                                         {0x1c4, 0x293},
                                         {0x295, 0x2af},
                                         {0x370, 0x373},
                                         {0x376, 0x377},
                                         {0x37b, 0x37d},
                                         {0x37f, 0x37f},
                                         {0x386, 0x386},
                                         {0x388, 0x38a},
                                         {0x38c, 0x38c},
                                         {0x38e, 0x3a1},
                                         {0x3a3, 0x3f5},
                                         {0x3f7, 0x481},
                                         {0x48a, 0x52f},
                                         {0x531, 0x556},
                                         {0x10a0, 0x10c5},
                                         {0x13a0, 0x13f5},
                                         {0x13f8, 0x13fd},
                                         {0x1c90, 0x1cba},
                                         {0x1cbd, 0x1cbf},
                                         {0x1d00, 0x1d2b},
                                         {0x1d6b, 0x1d77},
                                         {0x1d79, 0x1d9a},
                                         {0x1e00, 0x1f15},
                                         {0x1f18, 0x1f1d},
                                         {0x1f20, 0x1f45},
                                         {0x1f48, 0x1f4d},
                                         {0x1f50, 0x1f57},
                                         {0x1f59, 0x1f59},
                                         {0x1f5b, 0x1f5b},
                                         {0x1f5d, 0x1f5d},
                                         {0x1f5f, 0x1f7d},
                                         {0x1f80, 0x1fb4},
                                         {0x1fb6, 0x1fbc},
                                         {0x1fbe, 0x1fbe},
                                         {0x1fc2, 0x1fc4},
                                         {0x1fc6, 0x1fcc},
                                         {0x1fd0, 0x1fd3},
                                         {0x1fd6, 0x1fdb},
                                         {0x1fe0, 0x1fec},
                                         {0x1ff2, 0x1ff4},
                                         {0x1ff6, 0x1ffc},
                                         {0x2102, 0x2102},
                                         {0x2107, 0x2107},
                                         {0x210a, 0x2113},
                                         {0x2115, 0x2115},
                                         {0x2119, 0x211d},
                                         {0x2124, 0x2124},
                                         {0x2126, 0x2126},
                                         {0x2128, 0x2128},
                                         {0x212a, 0x212d},
                                         {0x212f, 0x2134},
                                         {0x2139, 0x2139},
                                         {0x213c, 0x213f},
                                         {0x2145, 0x2149},
                                         {0x214e, 0x214e},
                                         {0x2183, 0x2184},
                                         {0x2c00, 0x2c7b},
                                         {0x2c7e, 0x2ce4},
                                         {0x2ceb, 0x2cee},
                                         {0x2cf2, 0x2cf3},
                                         {0xa640, 0xa66d},
                                         {0xa680, 0xa69b},
                                         {0xa722, 0xa76f},
                                         {0xa771, 0xa787},
                                         {0xa78b, 0xa78e},
                                         {0xab70, 0xabbf},
                                         {0xfb00, 0xfb06},
                                         {0xfb13, 0xfb17},
                                         {0xff21, 0xff3a},
                                         {0xff41, 0xff5a},
                                         {0x10400, 0x1044f},
                                         {0x104b0, 0x104d3},
                                         {0x104d8, 0x104fb},
                                         {0x10c80, 0x10cb2},
                                         {0x10cc0, 0x10cf2},
                                         {0x118a0, 0x118df},
                                         {0x1e900, 0x1e943},
                                         {0}};
/* Punctuation of full width. */
static const range deepseek_marks[] = {
    {0x2018, 0x201f}, {0x3000, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e}, {0}};
static const range deepseek_asian[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}, {0}};
static const range deepseek3_asian[] = {{0x3040, 0x30ff}, {0x4e00, 0x9fa5}, {0}};

typedef struct tok_pre {
    const char *names; /* tokenizer.ggml.pre, " a b c " */
    const char *re[TOK_MAX_PATTERNS];
    const range *set[3]; /* A B C */
    bool ignore_merges, add_bos;
} tok_pre;

static const tok_pre pres[] = {
    {" gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling ",
     .re = {GPT2}},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ",
     .re = {"\\p{N}", GPT2}},
    {" default ", .re = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {" falcon ", .re = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {" llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     .re = {LLAMA3("\\p{N}{1,3}")}, .ignore_merges = true, .add_bos = true},
    {" dbrx smaug-bpe chatglm-bpe ", .re = {LLAMA3("\\p{N}{1,3}")}},
    {" glm4 ", .re = {LLAMA3("\\p{N}{1,3}")}, .ignore_merges = true},
    {" qwen2 deepseek-r1-qwen kormo megrez hunyuan solar-open stablelm2 grok-2 ",
     .re = {LLAMA3("\\p{N}")}},
    {" qwen35 ", .re = {QWEN35}},
    {" tekken ", .re = {TWO_CASES("") "|\\p{N}" MARKS_SLASH}, .ignore_merges = true,
     .add_bos = true},
    {" gpt-4o llama4 kanana2 minimax-m2 ",
     .re = {TWO_CASES("(?:" CASED_ENDINGS ")?") "|\\p{N}{1,3}" MARKS_SLASH}},
    {" deepseek-llm ",
     .re = {"[\\r\\n]", "\\s?[A-Za-z\\p{A}]+", "\\s?[!-/:-~\\p{B}]+", SPACE_AT_END "|\\p{C}+",
            "\\p{N}+"},
     .set = {deepseek_letters, deepseek_marks, deepseek_asian}},
    {" deepseek-coder ", .re = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "\\p{C}+", "\\p{N}"},
     .set = {[2] = deepseek_asian}},
    {" deepseek-v3 hunyuan-dense joyai-llm hy_v4 ", .re = {"\\p{N}{1,3}", "\\p{C}+", DEEPSEEK3},
     .set = {[2] = deepseek3_asian}},
};

/* --- compiling ------------------------------------------------------------ */

enum { CLASS_O, CLASS_N, CLASS_L, CLASS_M, CLASS_P, CLASS_S, CLASS_W };

/* What stands inside of [] for the letter of a \p{}. */
static void add_class(ts_sb *b, char letter)
{
    static const struct {
        char letter;
        uint8_t code;
        const char *ascii;
    } categories[] = {
        {'N', CLASS_N, "0-9"},
        {'L', CLASS_L, "A-Za-z"},
        {'l', CLASS_L, ""},
        {'M', CLASS_M, ""},
        {'P', CLASS_P, "!-#%-*,-/:;?@\\[-\\]_{}"},
        {'S', CLASS_S, "$+<=>\\^`|~"},
    };
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        if (categories[i].letter != letter)
            continue;
        ts_sb_str(b, categories[i].ascii);
        for (unsigned set = 0; set < 8; set++)
            ts_sb_printf(b, "\\x%02x", 0x80 | set << 3 | categories[i].code);
    }
    for (unsigned c = 0; c < 64 && letter >= 'A' && letter <= 'C'; c++)
        if (c & 8u << (letter - 'A'))
            ts_sb_printf(b, "\\x%02x", 0x80 | c);
}

/* The expression as PCRE2 gets it. */
static void expand(ts_sb *b, const char *re)
{
    bool inside = false;
    for (const char *p = re; *p; p++) {
        if (strncmp(p, "\\p{", 3) == 0) {
            ts_sb_str(b, inside ? "" : "[");
            add_class(b, p[3]);
            ts_sb_str(b, inside ? "" : "]");
            p += 4;
            continue;
        }
        inside = *p == '[' ? true : *p == ']' ? false : inside;
        ts_sb_add(b, p, *p == '\\' ? 2 : 1);
        p += *p == '\\';
    }
}

static ts_status compile(ts_tokenizer *t, const char *re, pcre2_code **out, ts_error *err)
{
    ts_sb b = {0};
    expand(&b, re);
    if (b.failed) {
        ts_sb_free(&b);
        return ts_fail(err, TS_NO_MEMORY, "no memory for an expression");
    }
    int code;
    size_t at;
    *out = pcre2_compile((PCRE2_SPTR)b.s, b.n, PCRE2_NO_UTF_CHECK, &code, &at, NULL);
    ts_sb_free(&b);
    if (!*out)
        return ts_fail(err, TS_NO_MEMORY, "%s: PCRE2 can't compile its pre-tokenizer (error %d)",
                       ts_gguf_path(t->g), code);
    /* Where there is no JIT, PCRE2's interpreter serves. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return TS_OK;
}

static const tok_pre *lookup(ts_str name)
{
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        for (const char *p = pres[i].names; p[1]; p = strchr(p + 1, ' '))
            if (strncmp(p + 1, name.s, name.n) == 0 && p[1 + name.n] == ' ')
                return &pres[i];
    return NULL;
}

ts_status tok_pre_load(ts_tokenizer *t, ts_error *err)
{
    ts_str name = {"default", 7};
    ts_status st = ts_gguf_get_str(t->g, "tokenizer.ggml.pre", &name, NULL, err);
    if (st != TS_OK)
        return st;
    if (name.n == 0)
        name = (ts_str){"default", 7};
    t->pre = memchr(name.s, ' ', name.n) ? NULL : lookup(name);
    if (!t->pre) {
        ts_shown shown;
        return ts_fail(err, TS_UNSUPPORTED, "%s: unknown pre-tokenizer '%s' in tokenizer.ggml.pre",
                       ts_gguf_path(t->g), ts_show(&shown, name.s, name.n));
    }
    t->ignore_merges = t->pre->ignore_merges;
    t->add_bos = t->pre->add_bos;
    for (int i = 0; st == TS_OK && i < TOK_MAX_PATTERNS && t->pre->re[i]; i++)
        st = compile(t, t->pre->re[i], &t->re[i], err);
    return st;
}

void tok_pre_free(ts_tokenizer *t)
{
    for (int i = 0; i < TOK_MAX_PATTERNS; i++)
        pcre2_code_free(t->re[i]);
}

/* --- classes ----------------------------------------------------------------- */

static uint8_t category(uint32_t cp)
{
    size_t lo = 0, hi = tok_unicode_n;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (tok_unicode[mid] >> 3 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return tok_unicode[lo] & 7;
}

static bool in_ranges(const range *r, uint32_t cp)
{
    for (; r && r->last && r->first <= cp; r++)
        if (cp <= r->last)
            return true;
    return false;
}

static uint8_t class_of(const tok_pre *pre, uint32_t cp)
{
    if (cp < 0x80)
        return (uint8_t)cp;
    uint8_t c = category(cp);
    if (c == CLASS_W)
        return '\v';
    for (int i = 0; i < 3; i++)
        if (in_ranges(pre->set[i], cp))
            c |= (uint8_t)(8 << i);
    return 0x80 | c;
}

/* Decodes as llama.cpp does: overlong forms and surrogates pass; a byte that begins nothing else is
 * U+FFFD (so is one that begins a code point above U+10FFFF). Returns the bytes read. */
static size_t lenient(const char *text, size_t n, uint32_t *cp)
{
    uint8_t b = (uint8_t)text[0];
    size_t len = b < 0x80 ? 1 : b < 0xc0 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf8 ? 4 : 0;
    bool good = len > 0 && len <= n;
    uint32_t c = len < 2 ? b : b & (0x7fu >> len);
    for (size_t i = 1; good && i < len; i++) {
        good = ((uint8_t)text[i] & 0xc0) == 0x80;
        c = c << 6 | ((uint8_t)text[i] & 0x3f);
    }
    good = good && c <= 0x10ffff;
    *cp = good ? c : 0xfffd;
    return good ? len : 1;
}

/* The classes of text[n] into w->cls, their number into *n_cp; w->word = the text as it was
 * understood. */
static ts_status classify(tok_work *w, const char *text, size_t n, size_t *n_cp)
{
    /* PCRE2's JIT reads whole vectors: keep what lies behind the last class ours and set */
    enum { PADDING = 64 };
    ts_status st = tok_grow(w, (void **)&w->cls, &w->cap_cls, n + PADDING, 1);
    bool valid = ts_utf8_valid(text, n) == n;
    if (st == TS_OK && !valid)
        st = tok_grow(w, (void **)&w->norm, &w->cap_norm, 3 * n, 1);
    if (st != TS_OK)
        return st;
    size_t k = 0, out = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += lenient(text + i, n - i, &cp);
        w->cls[k++] = class_of(w->t->pre, cp);
        if (!valid)
            out += ts_utf8_encode(cp, w->norm + out);
    }
    memset(w->cls + k, 0, PADDING);
    w->word = valid ? text : w->norm;
    *n_cp = k;
    w->steps += n;
    return TS_OK;
}

/* --- cutting -------------------------------------------------------------- */

static ts_status split(tok_work *w, int level, size_t from, size_t to);

/* A piece goes to the next expression; behind the last one it is a word. */
static ts_status piece(tok_work *w, int level, size_t from, size_t to)
{
    if (from == to)
        return TS_OK;
    if (level < TOK_MAX_PATTERNS && w->t->re[level])
        return split(w, level, from, to);
    return tok_bpe_word(w, to - from);
}

/* Cuts the classes [from, to) by expression `level`. */
static ts_status split(tok_work *w, int level, size_t from, size_t to)
{
    const pcre2_code *re = w->t->re[level];
    const uint8_t *s = w->cls + from;
    size_t n = to - from, at = 0;
    while (at < n) {
        int rc = pcre2_match(re, s, n, at, PCRE2_NO_UTF_CHECK, w->match, w->limits);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(re, s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match, w->limits);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        const size_t *ov = pcre2_get_ovector_pointer(w->match);
        if (rc < 0 || ov[1] <= ov[0])
            return ts_fail(w->err, TS_NO_MEMORY, "PCRE2 gave up on a text of %zu characters (%d)",
                           n, rc);
        size_t start = ov[0], end = ov[1];
        w->steps += 1 + end - at;
        ts_status st = piece(w, level + 1, from + at, from + start);
        if (st == TS_OK)
            st = piece(w, level + 1, from + start, from + end);
        if (st != TS_OK)
            return st;
        at = end;
    }
    return piece(w, level + 1, from + at, to);
}

/* Bounds what a match may cost: no input should come near, none can hang. */
static ts_status set_limits(tok_work *w, size_t n)
{
    if (!w->match) {
        w->match = pcre2_match_data_create(1, NULL);
        w->limits = pcre2_match_context_create(NULL);
        if (!w->match || !w->limits)
            return ts_fail(w->err, TS_NO_MEMORY, "no memory for PCRE2");
    }
    pcre2_set_match_limit(w->limits,
                          n < UINT32_MAX / 64 - 1024 ? (uint32_t)(n + 1024) * 64 : UINT32_MAX);
    return TS_OK;
}

ts_status tok_bpe_encode(tok_work *w, const char *text, size_t n)
{
    size_t n_cp;
    ts_status st = classify(w, text, n, &n_cp);
    if (st == TS_OK)
        st = set_limits(w, n_cp);
    if (st == TS_OK)
        st = split(w, 0, 0, n_cp);
    return st;
}

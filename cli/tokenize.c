/* tokenize.c - `tessera tokenize`: text to token ids, and back. Only the vocabulary is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "model/tokenizer.h"
#include "command.h"
#include "opt.h"
#include "report.h"
#include "text.h"

typedef struct tok_opts {
    const char *model, *prompt, *file, *ids;
    bool no_bos, no_parse_special, special, json;
} tok_opts;

enum { FLUSH = 1 << 16 }; /* bytes of output gathered before they are written */

static void flush(ts_sb *b)
{
    if (b->n)
        fwrite(b->s, 1, b->n, stdout);
    b->n = 0;
}

/* --- text to ids -------------------------------------------------------------- */

static ts_status read_text(const tok_opts *o, char **text, size_t *n, ts_error *err)
{
    if (o->prompt && o->file)
        return ts_fail(err, TS_BAD_ARG, "--prompt and --file exclude each other");
    if (!o->prompt)
        return text_read(o->file ? o->file : "-", text, n, err);
    *text = strdup(o->prompt);
    if (!*text)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the text");
    *n = strlen(o->prompt);
    return TS_OK;
}

/* "hex" tells the bytes of a piece that isn't whole characters. */
static void add_json(ts_sb *b, const ts_tokenizer *t, ts_token id)
{
    const char *s;
    size_t n = ts_tokenizer_piece(t, id, true, &s);
    ts_sb_printf(b, "{\"id\": %d, \"piece\": ", id);
    ts_sb_json_str(b, s, n);
    if (ts_utf8_valid(s, n) != n) {
        ts_sb_str(b, ", \"hex\": \"");
        for (size_t i = 0; i < n; i++)
            ts_sb_printf(b, "%02x", (unsigned char)s[i]);
        ts_sb_str(b, "\"");
    }
    ts_sb_printf(b, ", \"eog\": %s}", ts_tokenizer_is_eog(t, id) ? "true" : "false");
}

static void add_line(ts_sb *b, const ts_tokenizer *t, ts_token id)
{
    const char *s;
    size_t n = ts_tokenizer_piece(t, id, true, &s);
    ts_sb_printf(b, "%6d  ", id);
    ts_sb_json_str(b, s, n);
    ts_sb_str(b, "\n");
}

static ts_status print_ids(const ts_tokenizer *t, const ts_token *ids, size_t n, bool json,
                           ts_error *err)
{
    ts_sb b = {0};
    if (json)
        ts_sb_str(&b, "{\"tokens\": [");
    for (size_t i = 0; i < n && !cli_stdout_failed(); i++) {
        if (json)
            ts_sb_str(&b, i ? ",\n            " : "");
        if (json)
            add_json(&b, t, ids[i]);
        else
            add_line(&b, t, ids[i]);
        if (b.n > FLUSH)
            flush(&b);
    }
    if (json)
        ts_sb_printf(&b, "],\n \"n_tokens\": %zu}\n", n);
    bool failed = b.failed;
    flush(&b);
    ts_sb_free(&b);
    return failed ? ts_fail(err, TS_NO_MEMORY, "no memory for the output") : TS_OK;
}

static ts_status encode(const tok_opts *o, const ts_tokenizer *t, ts_error *err)
{
    unsigned flags =
        (o->no_bos ? 0u : TS_TOK_ADD_SPECIAL) | (o->no_parse_special ? 0u : TS_TOK_PARSE_SPECIAL);
    char *text = NULL;
    ts_token *ids = NULL;
    size_t n_text = 0, n = 0;
    ts_status st = read_text(o, &text, &n_text, err);
    if (st == TS_OK)
        st = ts_tokenizer_encode(t, text, n_text, flags, &ids, &n, err);
    if (st == TS_OK)
        st = print_ids(t, ids, n, o->json, err);
    free(text);
    free(ids);
    return st;
}

/* --- ids to text ------------------------------------------------------------- */

/* Numbers between commas or white space. *out is allocated. */
static ts_status parse_ids(const char *s, ts_token **out, size_t *n, ts_error *err)
{
    ts_token *ids = ts_calloc(strlen(s) / 2 + 1, sizeof *ids);
    if (!ids)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the ids");
    size_t k = 0;
    for (const char *p = s; *(p += strspn(p, ", \t\n"));) {
        size_t len = strcspn(p, ", \t\n");
        char *end;
        long v = strtol(p, &end, 10);
        if (end != p + len || len > 10 || v < 0 || v > INT32_MAX) {
            free(ids);
            return ts_fail(err, TS_BAD_ARG, "--ids: '%.*s' is not a token id",
                           (int)(len < 60 ? len : 60), p);
        }
        ids[k++] = (ts_token)v;
        p += len;
    }
    *out = ids;
    *n = k;
    return TS_OK;
}

static ts_status decode(const tok_opts *o, const ts_tokenizer *t, ts_error *err)
{
    ts_token *ids = NULL;
    char *text = NULL;
    size_t n = 0, n_text = 0;
    if (o->prompt || o->file)
        return ts_fail(err, TS_BAD_ARG, "--ids excludes --prompt and --file");
    ts_status st = parse_ids(o->ids, &ids, &n, err);
    if (st == TS_OK)
        st = ts_tokenizer_decode(t, ids, n, o->special, &text, &n_text, err);
    if (st == TS_OK && o->json) {
        ts_sb b = {0};
        ts_sb_str(&b, "{\"text\": ");
        ts_sb_json_str(&b, text, n_text);
        ts_sb_str(&b, "}\n");
        if (b.failed)
            st = ts_fail(err, TS_NO_MEMORY, "no memory for the output");
        flush(&b);
        ts_sb_free(&b);
    } else if (st == TS_OK) {
        fwrite(text, 1, n_text, stdout);
        fputc('\n', stdout);
    }
    free(text);
    free(ids);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    tok_opts o = {0};
    const opt table[] = {
        OPT("Model", "-m, --model", OPT_STR, &o.model, "FILE",
            "GGUF file; of a split one, any shard", .required = true),
        OPT("Text", "-p, --prompt", OPT_STR, &o.prompt, "TEXT", "the text, taken as it is",
            .def = ""),
        OPT("Text", "-f, --file", OPT_STR, &o.file, "FILE",
            "read the text from a file; - or neither option: from stdin", .def = ""),
        OPT("Text", "--no-bos", OPT_FLAG, &o.no_bos, NULL,
            "don't add the tokens that this model begins and ends a text with"),
        OPT("Text", "--no-parse-special", OPT_FLAG, &o.no_parse_special, NULL,
            "control tokens in the text are text"),
        OPT("Ids", "--ids", OPT_STR, &o.ids, "N,N,...",
            "print the text that these tokens stand for", .def = ""),
        OPT("Ids", "-sp, --special", OPT_FLAG, &o.special, NULL, "print control tokens as text"),
        OPT("Output", "--json", OPT_FLAG, &o.json, NULL, "print JSON"),
    };
    const opt_cmd cmd = {"tokenize", "text to token ids, and back",
                         "-m FILE [-p TEXT | -f FILE | --ids N,N,...] [options]",
                         "tessera tokenize -m model.gguf -p \"Hello, world\"\n"
                         "tessera tokenize -m model.gguf --ids 19556,28,905",
                         OPT_TABLE(table)};
    int status = opt_start(&cmd, argc, argv);
    if (status != OPT_GO)
        return status;
    ts_gguf *g = NULL;
    ts_tokenizer *t = NULL;
    ts_error err = {0};
    ts_status st = ts_gguf_open(&g, o.model, &err);
    if (st == TS_OK)
        st = ts_tokenizer_open(&t, g, &err);
    if (st == TS_OK)
        st = o.ids ? decode(&o, t, &err) : encode(&o, t, &err);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
    return st == TS_OK ? CLI_OK : cli_fail(&err);
}

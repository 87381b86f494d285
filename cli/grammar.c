/* grammar.c - `tessera grammar`: a grammar checked, a schema as GBNF, a text against either. */
#include "grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "grammar/match.h"
#include "report.h"
#include "text.h"

ts_status grammar_read(const grammar_opts *o, char **out, size_t *n, ts_error *err)
{
    const char *given = o->gbnf ? o->gbnf : o->schema;
    const char *file = o->gbnf_file ? o->gbnf_file : o->schema_file;
    bool schema = o->schema || o->schema_file;
    char *text = NULL;
    ts_status st = TS_OK;

    *out = NULL;
    if (!!o->gbnf + !!o->gbnf_file + !!o->schema + !!o->schema_file > 1)
        return ts_fail(err, TS_BAD_ARG,
                       "--grammar, --grammar-file, --json-schema and --json-schema-file exclude "
                       "each other");
    if (file) {
        st = text_read(file, &text, n, err);
    } else if (given) {
        *n = strlen(given);
        text = strdup(given);
        if (!text)
            st = ts_fail(err, TS_NO_MEMORY, "no memory for the grammar");
    }
    if (st || !schema) {
        *out = text;
        return st;
    }
    st = ts_schema_to_gbnf(text, *n, out, err);
    free(text);
    if (!st)
        *n = strlen(*out);
    return st;
}

typedef struct check_opts {
    grammar_opts grammar;
    const char *text, *file;
} check_opts;

/* How far the grammar follows the text, and whether it may end there. */
static ts_status match(const ts_gram *g, const char *s, size_t n, ts_error *err)
{
    ts_matcher *m = NULL;
    ts_status st = ts_matcher_open(&m, g, NULL, err);
    bool ok = true;
    size_t i = 0;

    while (!st && ok && i < n) {
        st = ts_matcher_bytes(m, s + i, 1, &ok, err);
        i += ok;
    }
    if (!st && !ok)
        st = ts_fail(err, TS_BAD_ARG, "the text doesn't match: byte %zu (0x%02x) can't stand there",
                     i + 1, (uint8_t)s[i]);
    else if (!st && !ts_matcher_can_end(m))
        st =
            ts_fail(err, TS_BAD_ARG, "the text doesn't match: it can't end after its %zu bytes", n);
    ts_matcher_close(m);
    return st;
}

static ts_status check(const check_opts *o, char **gbnf, char **text, ts_error *err)
{
    ts_gram *g = NULL;
    size_t n, n_text;
    ts_status st = grammar_read(&o->grammar, gbnf, &n, err);

    if (st)
        return st;
    if (!*gbnf)
        return ts_fail(err, TS_BAD_ARG,
                       "a grammar is missing: --grammar-file, --json-schema-file ...");
    if (o->text && o->file)
        return ts_fail(err, TS_BAD_ARG, "the text is given twice, with -p and with -f");
    st = ts_gram_open(&g, *gbnf, n, err);
    if (!st && o->file)
        st = text_read(o->file, text, &n_text, err);
    if (!st && (o->file || o->text))
        st = match(g, o->text ? o->text : *text, o->text ? strlen(o->text) : n_text, err);
    else if (!st)
        fwrite(*gbnf, 1, n, stdout);
    ts_gram_close(g);
    return st;
}

int cmd_grammar(int argc, char **argv)
{
    check_opts o = {0};
    const opt table[] = {
        GRAMMAR_OPTIONS(&o.grammar),
        OPT("Text", "-p, --text", OPT_STR, &o.text, "TEXT", "say whether this text matches"),
        OPT("Text", "-f, --file", OPT_STR, &o.file, "FILE",
            "say whether this file's text matches, - for stdin"),
    };
    const opt_cmd cmd = {
        .name = "grammar",
        .purpose = "check a grammar, print a JSON schema's, match a text",
        .usage = "--grammar-file FILE | -j SCHEMA [-p TEXT]",
        .example = "tessera grammar -j '{\"type\": \"integer\", \"minimum\": 3}'\n"
                   "tessera grammar --grammar-file list.gbnf -f answer.txt",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    char *gbnf = NULL, *text = NULL;
    ts_error err = {0};

    if (status != OPT_GO)
        return status;
    status = check(&o, &gbnf, &text, &err) ? cli_fail(&err) : CLI_OK;
    free(gbnf);
    free(text);
    return status;
}

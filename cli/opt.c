/* opt.c - command lines from a declared table: see opt.h. */
#include "opt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "report.h"

/* --- names -------------------------------------------------------------- */

/* The next name of "-m, --model": points *s at it and returns its length, 0 at the end. */
static size_t next_name(const char **s, const char **rest)
{
    *s = *rest;
    size_t n = strcspn(*s, ",");
    *rest = *s + n;
    *rest += strspn(*rest, ", ");
    return n;
}

static bool name_equal(const char *name, const char *word, size_t n)
{
    bool is_long = n > 2 && word[0] == '-' && word[1] == '-';

    for (size_t i = 0; i < n; i++) {
        char c = is_long && word[i] == '_' ? '-' : word[i];
        if (c != name[i])
            return false;
    }
    return true;
}

static const opt *find_named(const opt_cmd *c, const char *word, size_t n)
{
    for (size_t i = 0; i < c->n_opts; i++) {
        const char *s, *rest = c->opts[i].names;
        size_t len;
        while (rest && (len = next_name(&s, &rest)) > 0)
            if (len == n && name_equal(s, word, n))
                return &c->opts[i];
    }
    return NULL;
}

static const opt *find_positional(const opt_cmd *c, size_t index)
{
    for (size_t i = 0; i < c->n_opts; i++)
        if (!c->opts[i].names && index-- == 0)
            return &c->opts[i];
    return NULL;
}

enum { WORD_MAX = 63 };

/* Edits (insert, delete, replace, swap neighbours) that turn a into b: the "optimal string
 * alignment" form of the Damerau-Levenshtein distance. Words are compared up to WORD_MAX bytes. */
static int distance(const char *a, const char *b)
{
    int row[3][WORD_MAX + 1];
    int n = (int)strnlen(a, WORD_MAX), m = (int)strnlen(b, WORD_MAX);
    int *prev2 = row[0], *prev = row[1], *cur = row[2];

    for (int j = 0; j <= m; j++)
        prev[j] = prev2[j] = j;
    for (int i = 1; i <= n; i++) {
        cur[0] = i;
        for (int j = 1; j <= m; j++) {
            int d = prev[j - 1] + (a[i - 1] != b[j - 1]);
            if (prev[j] + 1 < d)
                d = prev[j] + 1;
            if (cur[j - 1] + 1 < d)
                d = cur[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                prev2[j - 2] + 1 < d)
                d = prev2[j - 2] + 1;
            cur[j] = d;
        }
        int *t = prev2;
        prev2 = prev;
        prev = cur;
        cur = t;
    }
    return prev[m];
}

/* A word cut short or drawn out ("--thread", "--predictions") is nearer than its length says: it
 * counts for more than one edit and less than two. */
static int cost(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), shorter = n < m ? n : m;

    if (shorter > 4 && !strncmp(a, b, shorter))
        return 3;
    return 2 * distance(a, b);
}

const char *opt_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    int best_cost = 0;

    for (size_t i = 0; i < n; i++) {
        int d = cost(word, words[i]);
        if (!best || d < best_cost) {
            best = words[i];
            best_cost = d;
        }
    }
    return best;
}

static ts_status fail_unknown(const opt_cmd *c, const char *word, size_t n, ts_error *err)
{
    char w[WORD_MAX + 1], names[128][WORD_MAX + 1];
    const char *list[128];
    size_t count = 0;

    snprintf(w, sizeof w, "%.*s", (int)n, word);
    for (size_t i = 0; i < c->n_opts; i++) {
        const char *s, *rest = c->opts[i].names;
        size_t len;
        while (rest && count < 128 && (len = next_name(&s, &rest)) > 0) {
            snprintf(names[count], sizeof names[count], "%.*s", (int)len, s);
            list[count] = names[count];
            count++;
        }
    }
    const char *near = opt_nearest(w, list, count);
    return ts_fail(err, TS_BAD_ARG, "unknown option '%s'; the nearest is '%s'", w,
                   near ? near : "--help");
}

/* --- values ------------------------------------------------------------- */

static ts_status fail_range(const opt *o, const char *name, const char *s, ts_error *err)
{
    return ts_fail(err, TS_BAD_ARG, "%s must be from %.15g to %.15g, not '%s'", name, o->min,
                   o->max, s);
}

static ts_status read_int(const opt *o, const char *name, const char *s, int64_t *out,
                          ts_error *err)
{
    char *end;

    errno = 0;
    long long v = strtoll(s, &end, 10);
    /* strtoll skips leading white space; an option's value has none */
    if (end == s || *end || (s[0] != '-' && s[0] != '+' && (s[0] < '0' || s[0] > '9')))
        return ts_fail(err, TS_BAD_ARG, "%s takes a whole number, not '%s'", name, s);
    if (errno == ERANGE || (double)v < o->min || (double)v > o->max)
        return fail_range(o, name, s, err);
    *out = v;
    return TS_OK;
}

static ts_status read_float(const opt *o, const char *name, const char *s, double *out,
                            ts_error *err)
{
    char *end;
    double v = strtod(s, &end);

    if (end == s || *end || !isfinite(v) || strspn(s, "+-.0123456789eE") != strlen(s))
        return ts_fail(err, TS_BAD_ARG, "%s takes a number, not '%s'", name, s);
    if (v < o->min || v > o->max)
        return fail_range(o, name, s, err);
    *out = v;
    return TS_OK;
}

static ts_status read_choice(const opt *o, const char *name, const char *s, ts_error *err)
{
    size_t n = strlen(s);

    for (const char *p = o->choices; *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && !memcmp(p, s, n)) {
            *(const char **)o->dst = s;
            return TS_OK;
        }
        p += len + (p[len] == '|');
    }
    return ts_fail(err, TS_BAD_ARG, "%s is one of %s, not '%s'", name, o->choices, s);
}

static ts_status fail_many(const char *name, ts_error *err)
{
    return ts_fail(err, TS_BAD_ARG, "%s takes at most %d elements", name, OPT_LIST_MAX);
}

static ts_status add_word(const opt *o, const char *name, const char *s, size_t n, ts_error *err)
{
    opt_strs *l = o->dst;
    if (l->n == OPT_LIST_MAX)
        return fail_many(name, err);
    l->v[l->n] = strndup(s, n);
    if (!l->v[l->n])
        return ts_fail(err, TS_NO_MEMORY, "out of memory");
    l->n++;
    return TS_OK;
}

/* Elements between commas are added to the list. */
static ts_status read_list(const opt *o, const char *name, const char *s, ts_error *err)
{
    for (const char *p = s;; p++) {
        size_t len = strcspn(p, ",");
        ts_status st = TS_OK;
        if (!len)
            return ts_fail(err, TS_BAD_ARG, "%s has an empty element in '%s'", name, s);
        if (o->kind == OPT_STRS) {
            st = add_word(o, name, p, len, err);
        } else {
            opt_ints *l = o->dst;
            if (l->n == OPT_LIST_MAX)
                return fail_many(name, err);
            char *one = strndup(p, len);
            if (!one)
                return ts_fail(err, TS_NO_MEMORY, "out of memory");
            st = read_int(o, name, one, &l->v[l->n], err);
            free(one);
            l->n += !st;
        }
        if (st)
            return st;
        p += len;
        if (!*p)
            return TS_OK;
    }
}

static ts_status read_value(const opt *o, const char *name, const char *s, bool first,
                            ts_error *err)
{
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->dst = true;
        return TS_OK;
    case OPT_INT:
        return read_int(o, name, s, o->dst, err);
    case OPT_FLOAT:
        return read_float(o, name, s, o->dst, err);
    case OPT_STR:
        *(const char **)o->dst = s;
        return TS_OK;
    case OPT_CHOICE:
        return read_choice(o, name, s, err);
    case OPT_INTS:
        if (first)
            ((opt_ints *)o->dst)->n = 0;
        return read_list(o, name, s, err);
    case OPT_STRS:
        return read_list(o, name, s, err);
    case OPT_LINES:
        return add_word(o, name, s, strlen(s), err);
    }
    return ts_fail(err, TS_BAD_ARG, "%s cannot be read", name);
}

/* --- the command line --------------------------------------------------- */

typedef struct parse {
    const opt_cmd *c;
    int argc, i; /* next argument */
    char **argv;
    uint64_t seen; /* bit per option of the table */
    ts_error *err;
} parse;

static ts_status take(parse *p, const opt *o, const char *name, const char *value)
{
    uint64_t bit = (uint64_t)1 << (o - p->c->opts);
    bool first = !(p->seen & bit);

    if (!first && o->kind != OPT_STRS && o->kind != OPT_LINES && o->kind != OPT_INTS &&
        o->kind != OPT_FLAG)
        return ts_fail(p->err, TS_BAD_ARG, "%s is given twice", name);
    p->seen |= bit;
    return read_value(o, name, value, first, p->err);
}

static ts_status take_named(parse *p, const char *arg)
{
    char name[WORD_MAX + 1];
    size_t n = strcspn(arg, "=");
    const opt *o = find_named(p->c, arg, n);

    if (!o)
        return fail_unknown(p->c, arg, n, p->err);
    snprintf(name, sizeof name, "%.*s", (int)n, arg);
    if (o->kind == OPT_FLAG) {
        if (arg[n])
            return ts_fail(p->err, TS_BAD_ARG, "%s takes no value, but is given '%s'", name,
                           arg + n + 1);
        return take(p, o, name, NULL);
    }
    const char *value = arg[n] ? arg + n + 1 : p->i < p->argc ? p->argv[p->i++] : NULL;
    /* "-m -p text": the path was forgotten. Whoever means it writes "-m=-p". */
    if (!value || (!arg[n] && value[0] == '-' && find_named(p->c, value, strcspn(value, "="))))
        return ts_fail(p->err, TS_BAD_ARG, "%s needs a value (%s)%s%s%s", name, o->arg,
                       value ? ", but '" : "", value ? value : "", value ? "' follows" : "");
    return take(p, o, name, value);
}

static ts_status check_required(parse *p)
{
    for (size_t i = 0; i < p->c->n_opts; i++)
        if (p->c->opts[i].alone && (p->seen >> i & 1))
            return TS_OK;
    for (size_t i = 0; i < p->c->n_opts; i++) {
        const opt *o = &p->c->opts[i];
        if (!o->required || (p->seen >> i & 1))
            continue;
        if (!o->names)
            return ts_fail(p->err, TS_BAD_ARG, "%s needs a %s; see `tessera %s --help`", p->c->name,
                           o->arg, p->c->name);
        return ts_fail(p->err, TS_BAD_ARG, "%s needs %.*s %s; see `tessera %s --help`", p->c->name,
                       (int)strcspn(o->names, ","), o->names, o->arg, p->c->name);
    }
    return TS_OK;
}

static void free_lists(const opt_cmd *c)
{
    for (size_t i = 0; i < c->n_opts; i++)
        if (c->opts[i].kind == OPT_STRS || c->opts[i].kind == OPT_LINES)
            opt_strs_free(c->opts[i].dst);
}

static ts_status parse_all(parse *p, bool *help)
{
    bool options = true;
    size_t n_positional = 0;

    while (p->i < p->argc) {
        const char *arg = p->argv[p->i++];
        ts_status st;
        if (options && !strcmp(arg, "--")) {
            options = false;
            continue;
        }
        if (options && (!strcmp(arg, "-h") || !strcmp(arg, "--help"))) {
            *help = true;
            return TS_OK;
        }
        if (options && arg[0] == '-' && arg[1]) {
            st = take_named(p, arg);
        } else {
            const opt *o = find_positional(p->c, n_positional++);
            if (!o)
                return ts_fail(p->err, TS_BAD_ARG, "%s has no use for the argument '%s'",
                               p->c->name, arg);
            st = take(p, o, o->arg, arg);
        }
        if (st)
            return st;
    }
    return check_required(p);
}

ts_status opt_parse(const opt_cmd *c, int argc, char **argv, bool *help, ts_error *err)
{
    parse p = {.c = c, .argc = argc, .i = 1, .argv = argv, .err = err};

    *help = false;
    ts_status st = parse_all(&p, help);
    if (st || *help)
        free_lists(c);
    return st;
}

void opt_strs_free(opt_strs *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    l->n = 0;
}

/* --- help --------------------------------------------------------------- */

enum { HELP_COLUMN = 34, HELP_WIDTH = 100 };

static void add_default(ts_sb *b, const opt *o)
{
    if (o->def ? !*o->def : o->required)
        return;
    if (o->def) {
        ts_sb_printf(b, " (default: %s)", o->def);
    } else if (o->kind == OPT_INT) {
        ts_sb_printf(b, " (default: %lld)", (long long)*(const int64_t *)o->dst);
    } else if (o->kind == OPT_FLOAT) {
        ts_sb_printf(b, " (default: %g)", *(const double *)o->dst);
    } else if (o->kind == OPT_STR || o->kind == OPT_CHOICE) {
        const char *s = *(const char *const *)o->dst;
        if (s)
            ts_sb_printf(b, " (default: %s)", s);
    } else if (o->kind == OPT_INTS) {
        const opt_ints *l = o->dst;
        for (size_t i = 0; i < l->n; i++)
            ts_sb_printf(b, "%s%lld", i ? "," : " (default: ", (long long)l->v[i]);
        if (l->n)
            ts_sb_str(b, ")");
    }
}

/* `text` word by word from column HELP_COLUMN on. */
static void add_wrapped(ts_sb *b, const char *text)
{
    size_t column = HELP_COLUMN;

    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
            ts_sb_printf(b, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            ts_sb_str(b, " ");
            column++;
        }
        ts_sb_add(b, p, n);
        column += n;
        p += n;
        p += strspn(p, " ");
    }
    ts_sb_str(b, "\n");
}

static void add_option(ts_sb *b, const opt *o)
{
    ts_sb text = {0};
    size_t start = b->n;

    ts_sb_str(b, "  ");
    ts_sb_str(b, o->names ? o->names : o->arg);
    if (o->names && o->arg)
        ts_sb_printf(b, " %s", o->arg);
    else if (o->names && o->choices)
        ts_sb_printf(b, " %s", o->choices);
    if (b->n - start + 2 > HELP_COLUMN)
        ts_sb_printf(b, "\n%*s", HELP_COLUMN, "");
    else
        ts_sb_printf(b, "%*s", (int)(HELP_COLUMN - (b->n - start)), "");
    ts_sb_str(&text, o->help);
    add_default(&text, o);
    b->failed |= text.failed;
    if (!b->failed)
        add_wrapped(b, text.s);
    ts_sb_free(&text);
}

static void add_lines(ts_sb *b, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        ts_sb_printf(b, "  %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

char *opt_help(const opt_cmd *c)
{
    ts_sb b = {0};
    const char *section = NULL;

    ts_sb_printf(&b, "tessera %s - %s\n\nUsage: tessera %s %s\n", c->name, c->purpose, c->name,
                 c->usage);
    for (size_t i = 0; i < c->n_opts; i++) {
        const opt *o = &c->opts[i];
        if (!section || strcmp(section, o->section)) {
            section = o->section;
            ts_sb_printf(&b, "\n%s:\n", section);
        }
        add_option(&b, o);
    }
    ts_sb_printf(&b, "\n  %-*s%s\n\nExample:\n", HELP_COLUMN - 2, "-h, --help", "this page");
    add_lines(&b, c->example);
    if (b.failed) {
        ts_sb_free(&b);
        return NULL;
    }
    return b.s;
}

int opt_start(const opt_cmd *c, int argc, char **argv)
{
    ts_error err = {0};
    bool help;

    if (opt_parse(c, argc, argv, &help, &err))
        return cli_fail(&err);
    if (!help)
        return OPT_GO;
    char *text = opt_help(c);
    if (!text)
        return cli_error("out of memory");
    fputs(text, stdout);
    free(text);
    return CLI_OK;
}

/* line.c - texts from a terminal (libedit) or a file. */
#include "line.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "interrupt.h"

#define MOST   ((size_t)16 << 20)
#define QUOTES "\"\"\""

struct line_reader {
    EditLine *el; /* NULL: no terminal */
    History *history;
    const char *prompt;
    bool typed; /* there was something on the line that Ctrl-C ended */
    bool more;  /* within a text of several lines */
    char *line; /* of getline() */
    size_t cap;
};

/* --- open and close ---------------------------------------------------------------- */

static char *prompt_of(EditLine *el)
{
    static char more[] = "... ";
    line_reader *r = NULL;

    el_get(el, EL_CLIENTDATA, &r);
    return r->more ? more : (char *)(uintptr_t)r->prompt;
}

/* libedit reads characters as the locale says: without one for UTF-8 the plain one that has it. */
static void use_utf8(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

/* A Ctrl-C that comes just before the read ends it too: it is let through only while waiting. */
static ssize_t read_byte(char *c)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t sigint, before;
    int ready = -1;

    sigemptyset(&sigint);
    sigaddset(&sigint, SIGINT);
    sigprocmask(SIG_BLOCK, &sigint, &before);
    errno = EINTR;
    if (!interrupt_caught())
        ready = ppoll(&in, 1, NULL, &before);
    int why = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = why;
    return ready < 0 ? -1 : read(STDIN_FILENO, c, 1);
}

/* The next character of the terminal, as libedit's own function reads it; but that one forgets the
 * line before anybody could ask whether it was empty. */
static int get_char(EditLine *el, wchar_t *out)
{
    line_reader *r = NULL;
    char s[4];
    uint32_t cp;
    ssize_t got = read_byte(s);

    if (got <= 0) {
        const LineInfo *li = el_line(el);
        el_get(el, EL_CLIENTDATA, &r);
        r->typed = li->lastchar > li->buffer;
        return (int)got;
    }
    for (size_t n = 1; n < sizeof s && ts_utf8_tail(s, n) == n; n++)
        if (read_byte(s + n) != 1)
            break;
        else if (ts_utf8_decode(s, n + 1, &cp) == n + 1)
            return *out = (wchar_t)cp, 1;
    *out = (uint8_t)s[0] < 0x80 ? (wchar_t)s[0] : (wchar_t)0xfffd;
    return 1;
}

static ts_status open_editor(line_reader *r, ts_error *err)
{
    HistEvent ev;

    use_utf8();
    r->history = history_init();
    r->el = el_init("tessera", stdin, stderr, stderr);
    if (!r->history || !r->el)
        return ts_fail(err, TS_NO_MEMORY, "no memory to read from the terminal");
    history(r->history, &ev, H_SETSIZE, 1000);
    history(r->history, &ev, H_SETUNIQUE, 1);
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_HIST, history, r->history);
    el_set(r->el, EL_GETCFN, get_char);
    el_set(r->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(r->el, NULL); /* ~/.editrc */
    return TS_OK;
}

ts_status line_open(line_reader **out, const char *prompt, ts_error *err)
{
    line_reader *r = ts_calloc(1, sizeof *r);
    ts_status st = TS_OK;

    if (!r)
        return ts_fail(err, TS_NO_MEMORY, "no memory to read what is typed");
    r->prompt = prompt;
    if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO))
        st = open_editor(r, err);
    if (st) {
        line_close(r);
        return st;
    }
    *out = r;
    return TS_OK;
}

void line_close(line_reader *r)
{
    if (!r)
        return;
    if (r->el)
        el_end(r->el);
    if (r->history)
        history_end(r->history);
    free(r->line);
    free(r);
}

bool line_is_terminal(const line_reader *r)
{
    return r->el != NULL;
}

/* --- one line ------------------------------------------------------------------------- */

/* The bytes of the next line, its line break included; they live until the next call. */
static ts_status one_line(line_reader *r, const char **s, size_t *n, line_end *end, ts_error *err)
{
    *end = LINE_TEXT;
    errno = 0;
    if (r->el) {
        int count = 0;
        *s = el_gets(r->el, &count);
        *n = *s && count > 0 ? (size_t)count : 0;
        if (*n > 0)
            return TS_OK;
        if (interrupt_caught())
            *end = LINE_INTERRUPTED;
        else
            *end = LINE_EOF;
        return TS_OK;
    }
    ssize_t got = getline(&r->line, &r->cap, stdin);
    if (got < 0 && interrupt_caught())
        *end = LINE_INTERRUPTED;
    else if (got < 0 && (ferror(stdin) || errno == ENOMEM))
        return ts_fail(err, errno == ENOMEM ? TS_NO_MEMORY : TS_IO,
                       "standard input cannot be read: %s", strerror(errno));
    else if (got < 0)
        *end = LINE_EOF;
    *s = r->line;
    *n = got < 0 ? 0 : (size_t)got;
    return TS_OK;
}

static bool ends_in(const ts_sb *b, size_t from, const char *what)
{
    size_t n = strlen(what);
    return b->n - from >= n && memcmp(b->s + b->n - n, what, n) == 0;
}

static void cut(ts_sb *b, size_t n)
{
    b->n -= n;
    b->s[b->n] = 0;
}

/* --- a text ----------------------------------------------------------------------------- */

/* Adds a line; whether the text goes on behind it. */
static bool add_line(ts_sb *out, const char *s, size_t n, bool *block)
{
    size_t from = out->n;
    bool first = from == 0 && !*block, open = false;

    if (n > 0 && s[n - 1] == '\n')
        n -= 1 + (n > 1 && s[n - 2] == '\r');
    if (first && n >= 3 && memcmp(s, QUOTES, 3) == 0) {
        *block = open = true;
        s += 3;
        n -= 3;
    }
    ts_sb_add(out, s, n);
    if (out->failed)
        return false;
    if (*block) {
        if (ends_in(out, from, QUOTES)) {
            cut(out, 3);
            if (out->n > 0 && out->n == from && out->s[out->n - 1] == '\n')
                cut(out, 1); /* the quotes stood on a line of their own */
            return false;
        }
        if (!open || n > 0) /* nor does the line behind the first quotes begin with a break */
            ts_sb_add(out, "\n", 1);
        return true;
    }
    if (!ends_in(out, from, "\\"))
        return false;
    cut(out, 1);
    ts_sb_add(out, "\n", 1);
    return true;
}

static void remember(line_reader *r, const ts_sb *text)
{
    HistEvent ev;
    if (r->el && text->n > 0 && !memchr(text->s, '\n', text->n))
        history(r->history, &ev, H_ENTER, text->s);
}

static ts_status read_text(line_reader *r, ts_sb *out, bool *block, line_end *end, ts_error *err)
{
    for (bool more = true; more;) {
        const char *s = NULL;
        size_t n = 0;
        ts_status st = one_line(r, &s, &n, end, err);
        if (st)
            return st;
        if (*end == LINE_INTERRUPTED || (*end == LINE_EOF && !r->more))
            return TS_OK;
        if (*end == LINE_EOF) { /* the end of the input ends a text too */
            *end = LINE_TEXT;
            return TS_OK;
        }
        if (out->n + n > MOST)
            return ts_fail(err, TS_BAD_ARG, "a text is longer than 16 MiB");
        r->more = more = add_line(out, s, n, block);
        if (out->failed)
            return ts_fail(err, TS_NO_MEMORY, "no memory for what was typed");
    }
    return TS_OK;
}

ts_status line_read(line_reader *r, ts_sb *out, bool *block, line_end *end, ts_error *err)
{
    ts_status st;

    interrupt_catch_input();
    for (;;) {
        out->n = 0;
        *block = r->more = false;
        ts_sb_add(out, "", 0);
        st = read_text(r, out, block, end, err);
        bool several = r->more;
        r->more = false;
        if (st || *end != LINE_INTERRUPTED || !r->el)
            break;
        fputc('\n', stderr);
        if (!r->typed && !several)
            break;
        el_reset(r->el);
        interrupt_catch_input();
    }
    if (st == TS_OK && *end == LINE_TEXT && ts_utf8_valid(out->s, out->n) < out->n)
        return ts_fail(err, TS_BAD_ARG, "what was typed is not UTF-8");
    if (st == TS_OK && *end == LINE_TEXT)
        remember(r, out);
    return st;
}

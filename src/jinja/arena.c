/* arena.c - the memory of a run, its limits, how it fails; text being built. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "jinja/impl.h"

/* --- memory ---------------------------------------------------------------- */

enum { FIRST_BLOCK = 16 << 10, LAST_BLOCK = 1 << 20, ALIGN = 16 };

struct j_block {
    struct j_block *older;
    size_t n, cap;
    _Alignas(ALIGN) char bytes[];
};

void j_arena_free(j_arena *a)
{
    while (a->block) {
        j_block *b = a->block;
        a->block = b->older;
        free(b);
    }
    a->total = 0;
}

static j_block *add_block(j_run *j, size_t n)
{
    j_arena *a = j->arena;
    size_t cap = a->block ? a->block->cap * 2 : FIRST_BLOCK, bytes;
    cap = cap > LAST_BLOCK ? LAST_BLOCK : cap;
    cap = cap < n ? n : cap;
    if (ts_add_overflow(cap, sizeof(j_block), &bytes) || bytes > j->limits.memory ||
        a->total > j->limits.memory - bytes)
        j_fail(j, "the template takes more than its %zu bytes of memory", j->limits.memory);
    j_block *b = malloc(bytes);
    if (!b)
        j_no_memory(j);
    b->older = a->block;
    b->n = 0;
    b->cap = cap;
    a->block = b;
    a->total += bytes;
    return b;
}

void *j_alloc(j_run *j, size_t n)
{
    j_block *b = j->arena->block;
    if (n > SIZE_MAX - ALIGN)
        j_no_memory(j);
    n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (!b || b->cap - b->n < n)
        b = add_block(j, n);
    void *p = b->bytes + b->n;
    b->n += n;
    return p;
}

void *j_zalloc(j_run *j, size_t n)
{
    return memset(j_alloc(j, n), 0, n);
}

void *j_array(j_run *j, size_t n, size_t size)
{
    size_t bytes;
    if (ts_mul_overflow(n, size, &bytes))
        j_no_memory(j);
    return j_alloc(j, bytes);
}

/* What was allocated last grows where it is. */
static void *grow(j_run *j, void *p, size_t had, size_t bytes)
{
    j_block *b = j->arena->block;
    size_t old = (had + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    size_t new_ = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (p && (char *)p + old == b->bytes + b->n && b->cap - b->n >= new_ - old) {
        b->n += new_ - old;
        return p;
    }
    void *q = j_alloc(j, bytes);
    if (had)
        memcpy(q, p, had);
    return q;
}

void *j_more(j_run *j, void *p, size_t n, size_t *cap, size_t size)
{
    size_t want = *cap ? *cap * 2 : 4, bytes;
    if (n < *cap)
        return p;
    if (ts_mul_overflow(want, size, &bytes))
        j_no_memory(j);
    void *q = grow(j, p, *cap * size, bytes);
    *cap = want;
    return q;
}

/* --- failing and limits --------------------------------------------------------- */

ts_status j_guard(j_run *j, void (*work)(j_run *j, const void *arg), const void *arg)
{
    if (setjmp(j->leave) == 0)
        work(j, arg);
    return j->status;
}

void j_fail(j_run *j, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    /* what was cut may have been cut within a character */
    text[ts_utf8_valid(text, strlen(text))] = 0;
    j->status = ts_fail(j->err, TS_BAD_ARG, "%s, line %d: %s", j->name, j->line, text);
    longjmp(j->leave, 1);
}

void j_no_memory(j_run *j)
{
    j->status = ts_fail(j->err, TS_NO_MEMORY, "%s, line %d: no memory", j->name, j->line);
    longjmp(j->leave, 1);
}

void j_step(j_run *j, uint64_t n)
{
    j->steps += n;
    if (j->steps > j->limits.steps)
        j_fail(j, "the template takes more than %llu steps", (unsigned long long)j->limits.steps);
}

void j_enter(j_run *j)
{
    if (++j->depth > j->limits.depth)
        j_fail(j, "the template nests deeper than %d", j->limits.depth);
}

const char *j_cstr(j_run *j, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n >= sizeof text ? sizeof text - 1 : (size_t)n;
    len = ts_utf8_valid(text, len);
    char *p = j_alloc(j, len + 1);
    memcpy(p, text, len);
    p[len] = 0;
    return p;
}

/* --- text being built ----------------------------------------------------------- */

static void make_room(j_run *j, j_buf *b, size_t n)
{
    if (n > j->limits.output || b->n > j->limits.output - n)
        j_fail(j, "the template makes a text of more than %zu bytes", j->limits.output);
    size_t want = b->cap ? b->cap : 32;
    while (want < b->n + n)
        want *= 2;
    j_step(j, n / 64);
    if (want == b->cap)
        return;
    if (b->mark) {
        uint8_t *mark = j_alloc(j, want);
        memcpy(mark, b->mark, b->n);
        b->mark = mark;
    }
    b->s = grow(j, b->s, b->cap, want);
    b->cap = want;
}

/* From here on each byte has its own mark. */
static void begin_marks(j_run *j, j_buf *b)
{
    if (b->mark)
        return;
    b->mark = j_alloc(j, b->cap);
    memset(b->mark, b->from, b->n);
}

void j_buf_add(j_run *j, j_buf *b, const char *s, size_t n, uint8_t from)
{
    if (n == 0)
        return;
    make_room(j, b, n);
    if (b->n == 0 && !b->mark)
        b->from = from;
    if (b->from != from)
        begin_marks(j, b);
    if (b->mark)
        memset(b->mark + b->n, from, n);
    memcpy(b->s + b->n, s, n);
    b->n += n;
    b->chars += j_chars(s, n);
}

void j_buf_puts(j_run *j, j_buf *b, const char *s)
{
    j_buf_add(j, b, s, strlen(s), J_TEMPLATE);
}

void j_buf_str(j_run *j, j_buf *b, const j_str *s)
{
    if (!s->mark || s->n == 0) {
        j_buf_add(j, b, s->s, s->n, s->from);
        return;
    }
    make_room(j, b, s->n);
    begin_marks(j, b);
    memcpy(b->mark + b->n, s->mark, s->n);
    memcpy(b->s + b->n, s->s, s->n);
    b->n += s->n;
    b->chars += s->chars;
}

void j_buf_char(j_run *j, j_buf *b, uint32_t cp, uint8_t from)
{
    char text[4];
    size_t n = ts_utf8_encode(cp, text);
    j_buf_add(j, b, text, n, from);
}

const j_str *j_buf_done(j_run *j, j_buf *b)
{
    j_str *s = j_alloc(j, sizeof *s);
    *s = (j_str){
        .s = b->s ? b->s : "", .n = b->n, .chars = b->chars, .mark = b->mark, .from = b->from};
    return s;
}

/* print.c - values as text: Python's str() and repr(). */
#include <stdio.h>
#include <string.h>

#include "base/real.h"
#include "jinja/impl.h"

/* Single quotes unless there are some within and no double ones. */
static void repr_str(j_run *j, j_buf *b, const j_str *s)
{
    bool one = memchr(s->s, '\'', s->n) != NULL, two = memchr(s->s, '"', s->n) != NULL;
    char quote = one && !two ? '"' : '\'', q[2] = {quote, 0};
    j_step(j, s->n / 8);
    if (s->markup)
        j_buf_puts(j, b, "Markup(");
    j_buf_puts(j, b, q);
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = j_char_at(s->s + i, s->n - i, &len);
        uint8_t from = j_mark_at(s, i);
        char esc[16] = "";
        if (cp == '\n' || cp == '\r' || cp == '\t')
            snprintf(esc, sizeof esc, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp == '\\' || cp == (uint32_t)quote)
            snprintf(esc, sizeof esc, "\\%c", (char)cp);
        else if (!j_is_printable(cp))
            snprintf(esc, sizeof esc,
                     cp < 0x100     ? "\\x%02x"
                     : cp < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     cp);
        if (*esc)
            j_buf_add(j, b, esc, strlen(esc), from);
        else
            j_buf_add(j, b, s->s + i, len, from);
    }
    j_buf_puts(j, b, q);
    if (s->markup)
        j_buf_puts(j, b, ")");
}

static void repr_list(j_run *j, j_buf *b, const j_list *l, bool tuple)
{
    j_buf_puts(j, b, tuple ? "(" : "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            j_buf_puts(j, b, ", ");
        j_repr(j, b, l->v[i]);
    }
    j_buf_puts(j, b, tuple ? l->n == 1 ? ",)" : ")" : "]");
}

static void repr_dict(j_run *j, j_buf *b, const j_dict *d)
{
    j_buf_puts(j, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            j_buf_puts(j, b, ", ");
        j_repr(j, b, d->p[i].key);
        j_buf_puts(j, b, ": ");
        j_repr(j, b, d->p[i].value);
    }
    j_buf_puts(j, b, "}");
}

static void repr_view(j_run *j, j_buf *b, j_value v)
{
    static const char *const names[] = {"dict_keys(", "dict_values(", "dict_items("};
    j_buf_puts(j, b, names[v.u.v->of]);
    repr_list(j, b, j_to_list(j, v), false);
    j_buf_puts(j, b, ")");
}

static void repr_range(j_run *j, j_buf *b, const j_range *r)
{
    j_buf_puts(j, b, j_cstr(j, "range(%lld, %lld", (long long)r->start, (long long)r->stop));
    j_buf_puts(j, b, r->step == 1 ? ")" : j_cstr(j, ", %lld)", (long long)r->step));
}

static void print_loop(j_run *j, j_buf *b, j_loop *l)
{
    j_buf_puts(
        j, b,
        j_cstr(j, "<LoopContext %lld/%zu>", (long long)j_loop_index0(l) + 1, j_loop_length(j, l)));
}

static void repr_other(j_run *j, j_buf *b, j_value v)
{
    switch (v.kind) {
    case J_NAMESPACE:
        j_buf_puts(j, b, "<Namespace ");
        repr_dict(j, b, v.u.d);
        j_buf_puts(j, b, ">");
        return;
    case J_LOOP:
        print_loop(j, b, v.u.loop);
        return;
    case J_MACRO:
        j_buf_puts(j, b,
                   v.u.m->name ? j_cstr(j, "<Macro '%s'>", v.u.m->name) : "<Macro anonymous>");
        return;
    default: /* Python gives an address here, nothing that anybody could want */
        j_buf_puts(j, b, j_cstr(j, "<%s>", j_type_name(v)));
    }
}

void j_repr(j_run *j, j_buf *b, j_value v)
{
    char text[TS_REAL_MAX];
    j_step(j, 1);
    j_enter(j);
    switch (v.kind) {
    case J_UNDEF:
        j_buf_puts(j, b, "Undefined");
        break;
    case J_NONE:
        j_buf_puts(j, b, "None");
        break;
    case J_BOOL:
        j_buf_puts(j, b, v.u.b ? "True" : "False");
        break;
    case J_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
        j_buf_puts(j, b, text);
        break;
    case J_FLOAT:
        ts_real_text(v.u.f, text);
        j_buf_puts(j, b, text);
        break;
    case J_STR:
        repr_str(j, b, v.u.s);
        break;
    case J_LIST:
    case J_TUPLE:
        repr_list(j, b, v.u.l, v.kind == J_TUPLE);
        break;
    case J_DICT:
        repr_dict(j, b, v.u.d);
        break;
    case J_VIEW:
        repr_view(j, b, v);
        break;
    case J_RANGE:
        repr_range(j, b, v.u.r);
        break;
    default:
        repr_other(j, b, v);
    }
    j->depth--;
}

void j_print(j_run *j, j_buf *b, j_value v)
{
    if (v.kind == J_STR)
        j_buf_str(j, b, v.u.s);
    else if (v.kind != J_UNDEF)
        j_repr(j, b, v);
}

const j_str *j_to_str(j_run *j, j_value v)
{
    if (v.kind == J_STR)
        return v.u.s;
    j_buf b = {0};
    j_print(j, &b, v);
    return j_buf_done(j, &b);
}

const j_str *j_repr_str(j_run *j, j_value v)
{
    j_buf b = {0};
    j_repr(j, &b, v);
    return j_buf_done(j, &b);
}

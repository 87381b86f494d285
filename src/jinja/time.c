/* time.c - strftime as the C locale has it, whatever the program's locale is. */
#include <stdio.h>
#include <string.h>

#include "jinja/impl.h"

static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

static const char *name_of(const char *const *names, int n, int i)
{
    return names[i < 0 || i >= n ? 0 : i];
}

/* A number of so many digits; "-" before the letter takes the zeros away, "_" makes them spaces. */
static void number(j_run *j, j_buf *b, int v, int digits, char flag, char pad)
{
    char text[24];
    pad = flag == '_' ? ' ' : flag == '0' ? '0' : pad;
    snprintf(text, sizeof text,
             flag == '-'  ? "%d"
             : pad == '0' ? "%0*d"
                          : "%*d",
             flag == '-' ? v : digits, v);
    j_buf_puts(j, b, text);
}

static int hour12(const struct tm *t)
{
    return t->tm_hour % 12 ? t->tm_hour % 12 : 12;
}

static void directive(j_run *j, j_buf *b, char c, char flag)
{
    const struct tm *t = j->now;
    switch (c) {
    case 'a':
        j_buf_add(j, b, name_of(days, 7, t->tm_wday), 3, J_TEMPLATE);
        return;
    case 'A':
        j_buf_puts(j, b, name_of(days, 7, t->tm_wday));
        return;
    case 'b':
    case 'h':
        j_buf_add(j, b, name_of(months, 12, t->tm_mon), 3, J_TEMPLATE);
        return;
    case 'B':
        j_buf_puts(j, b, name_of(months, 12, t->tm_mon));
        return;
    case 'd':
        number(j, b, t->tm_mday, 2, flag, '0');
        return;
    case 'e':
        number(j, b, t->tm_mday, 2, flag, ' ');
        return;
    case 'H':
        number(j, b, t->tm_hour, 2, flag, '0');
        return;
    case 'I':
        number(j, b, hour12(t), 2, flag, '0');
        return;
    case 'j':
        number(j, b, t->tm_yday + 1, 3, flag, '0');
        return;
    case 'm':
        number(j, b, t->tm_mon + 1, 2, flag, '0');
        return;
    case 'M':
        number(j, b, t->tm_min, 2, flag, '0');
        return;
    case 'p':
        j_buf_puts(j, b, t->tm_hour < 12 ? "AM" : "PM");
        return;
    case 'S':
        number(j, b, t->tm_sec, 2, flag, '0');
        return;
    case 'u':
        number(j, b, t->tm_wday ? t->tm_wday : 7, 1, flag, '0');
        return;
    case 'w':
        number(j, b, t->tm_wday, 1, flag, '0');
        return;
    case 'y':
        number(j, b, (t->tm_year + 1900) % 100, 2, flag, '0');
        return;
    case 'Y':
        number(j, b, t->tm_year + 1900, 1, flag, '0');
        return;
    default:
        j_fail(j, "strftime_now doesn't know %%%c", c >= ' ' && c < 0x7f ? c : '?');
    }
}

/* Directives that stand for others. */
static const char *composed(char c)
{
    switch (c) {
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'F':
        return "%Y-%m-%d";
    case 'R':
        return "%H:%M";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    default:
        return NULL;
    }
}

static void format(j_run *j, j_buf *b, const j_str *fmt)
{
    for (size_t i = 0; i < fmt->n; i++) {
        size_t end = i;
        while (end < fmt->n && fmt->s[end] != '%')
            end++;
        j_buf_str(j, b, j_sub(j, fmt, i, end - i));
        if (end == fmt->n)
            return;
        char flag = 0, c = end + 1 < fmt->n ? fmt->s[end + 1] : 0;
        if (c == '-' || c == '_' || c == '0') {
            flag = c;
            end++;
            c = end + 1 < fmt->n ? fmt->s[end + 1] : 0;
        }
        i = end + 1;
        if (c == '%')
            j_buf_puts(j, b, "%");
        else if (c == 'n' || c == 't')
            j_buf_puts(j, b, c == 'n' ? "\n" : "\t");
        else if (composed(c))
            format(j, b, j_text(j, composed(c)));
        else
            directive(j, b, c, flag);
    }
}

const j_str *j_strftime(j_run *j, const j_str *fmt)
{
    j_buf b = {0};
    if (!j->now)
        j_fail(j, "strftime_now was called, but no time is given");
    format(j, &b, fmt);
    return j_buf_done(j, &b);
}

/* report.c - errors, the log, the progress bar, sizes and numbers. */
#include "report.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int cli_error(const char *fmt, ...)
{
    va_list ap;

    fputs("tessera: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return CLI_FAILED;
}

int cli_fail(const ts_error *err)
{
    return cli_error("%s", err->msg);
}

/* SIGPIPE is ignored, so a reader that has gone shows as a failed write. Its errno may be long lost
 * in stdio when we ask, but poll still knows: POLLERR on the write end of a pipe. */
static bool reader_gone(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}

bool cli_stdout_failed(void)
{
    return ferror(stdout) != 0;
}

int cli_finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    if (reader_gone())
        return CLI_PIPE_CLOSED;
    if (status == CLI_OK)
        cli_error("standard output could not be written (is the disk full?)");
    return CLI_FAILED;
}

void cli_log(void *user, ts_log_level level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const ts_log_level *lowest = user;

    if (level <= *lowest)
        fprintf(stderr, "%s: %s\n", names[level], line);
}

enum { BAR_WIDTH = 40 };

bool cli_progress_show(void *user, double done)
{
    cli_progress *p = user;
    int permille = done < 0 ? 0 : done > 1 ? 1000 : (int)(done * 1000);

    bool first = p->state == 0;
    if (first)
        p->state = isatty(STDERR_FILENO) ? 2 : 1;
    if (p->state == 1 || (!first && permille == p->permille && permille != 1000))
        return true;
    p->permille = permille;
    if (permille == 1000) {
        cli_progress_end(p);
        return true;
    }
    int full = permille * BAR_WIDTH / 1000;
    fprintf(stderr, "\r%s [", p->label);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < full ? '#' : '.', stderr);
    fprintf(stderr, "] %3d %%", permille / 10);
    fflush(stderr);
    return true;
}

void cli_progress_end(cli_progress *p)
{
    if (p->state == 2)
        fputs("\r\033[K", stderr); /* back to the line's start, erase to its end */
    p->state = 1;
}

double cli_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char *scaled(char buf[32], double x, double base, const char *const *units, int n)
{
    int i = 0;

    while (x >= base && i + 1 < n) {
        x /= base;
        i++;
    }
    snprintf(buf, 32, i ? "%.2f %s" : "%.0f %s", x, units[i]);
    return buf;
}

const char *cli_size(char buf[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};

    return scaled(buf, (double)bytes, 1024, units, 5);
}

const char *cli_count(char buf[32], uint64_t n)
{
    static const char *const units[] = {"", "K", "M", "B", "T"};

    return scaled(buf, (double)n, 1000, units, 5);
}

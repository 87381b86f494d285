/* report.h - what the subcommands share in speaking to the user.
 *
 * stdout carries the result only. Everything else goes to stderr, and a progress bar only to a
 * terminal.
 *
 * Exit statuses: 0 success; 1 one sentence on stderr says what is wrong; 141 the reader of
 * stdout went away, and interrupt_status() when a signal ended the command in good order (128 + the
 * signal's number, as shells report it). */
#ifndef TS_CLI_REPORT_H
#define TS_CLI_REPORT_H

#include "base/status.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_PIPE_CLOSED = 141 };

/* "tessera: SENTENCE\n" on stderr; returns CLI_FAILED. */
int cli_error(const char *fmt, ...) TS_PRINTF(1, 2);

/* The same with the sentence of a failed call. */
int cli_fail(const ts_error *err);

/* Flushes stdout and gives the status to exit with: `status`, or, when writing stdout failed,
 * CLI_PIPE_CLOSED (silently) or CLI_FAILED (with a sentence). main calls it after every command. */
int cli_finish(int status);

/* True once writing to stdout has failed: nothing more needs to be made. */
bool cli_stdout_failed(void);

/* A sink for ts_engine_options.log: `user` points at the lowest level that is printed
 * (ts_log_level). */
void cli_log(void *user, ts_log_level level, const char *line);

/* For ts_engine_options.progress: draws a bar on stderr if that is a terminal, and removes it at
 * the end. `user` is a zero-initialised cli_progress, whose `label` stands before the bar. */
typedef struct cli_progress {
    const char *label;
    int state;    /* 0 not looked yet, 1 no terminal, 2 drawing */
    int permille; /* last drawn */
} cli_progress;

bool cli_progress_show(void *user, double done);
void cli_progress_end(cli_progress *p); /* removes a bar that an error left behind */

double cli_now(void); /* seconds of a clock that only goes forward */

/* "87.5 MiB", "1.24 GiB": into buf, returned. */
const char *cli_size(char buf[32], uint64_t bytes);

/* "134.52 M", "1.24 B": into buf, returned. */
const char *cli_count(char buf[32], uint64_t n);

#endif

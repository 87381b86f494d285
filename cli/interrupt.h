/* interrupt.h - signals that ask a command to end: it ends in good order.
 *
 * The first SIGINT sets a flag and cancels the session being evaluated. Its handler removes itself,
 * so that a second SIGINT does what SIGINT does. */
#ifndef TS_CLI_INTERRUPT_H
#define TS_CLI_INTERRUPT_H

#include "tessera.h"

/* Ctrl-C, for every command that computes; forgets an earlier one. */
void interrupt_catch(void);

/* Ctrl-C while a line is read: the read ends with EINTR, however often. */
void interrupt_catch_input(void);

/* SIGTERM and SIGHUP too, for a command that has something to clear away; without this they end the
 * program at once. They may arrive more than once: timeout(1) signals the child and its group, the
 * terminal and the shell both report a hang-up. */
void interrupt_catch_all(void);

/* The session to cancel; NULL before it is closed. */
void interrupt_session(ts_session *s);

bool interrupt_caught(void);

/* 128 + the signal's number. */
int interrupt_status(void);

#endif

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

/* For a server: SIGINT and SIGTERM ask it to end, once for a moment and again to end the program at
 * once (what comes within a fifth of a second is the same again); SIGHUP is kept for
 * interrupt_hung_up. */
void interrupt_catch_server(void);
bool interrupt_hung_up(void); /* since it was asked last */

/* The session to cancel; NULL before it is closed. */
void interrupt_session(ts_session *s);

bool interrupt_caught(void);

/* 128 + the signal's number. */
int interrupt_status(void);

#endif

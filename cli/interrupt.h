/* interrupt.h - Ctrl-C: the first one asks, the second one ends the program.
 *
 * The first SIGINT sets a flag and cancels the session being evaluated; the command then ends in
 * good order. The handler removes itself, so that a second SIGINT does what SIGINT does. */
#ifndef TS_CLI_INTERRUPT_H
#define TS_CLI_INTERRUPT_H

#include "tessera.h"

void interrupt_catch(void);

/* The session to cancel; NULL before it is closed. */
void interrupt_session(ts_session *s);

bool interrupt_caught(void);

#endif

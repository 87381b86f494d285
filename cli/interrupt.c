/* interrupt.c - Ctrl-C. Owns the program's only mutable globals: a signal handler has nothing else.
 */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static volatile sig_atomic_t caught;
static _Atomic(ts_session *) running;

static void on_sigint(int signo)
{
    (void)signo;
    caught = 1;
    ts_session *s = atomic_load(&running);
    if (s)
        ts_session_cancel(s);
}

void interrupt_catch(void)
{
    /* SA_RESTART: what is being written to a slow terminal is still written whole. */
    struct sigaction sa = {.sa_handler = on_sigint, .sa_flags = SA_RESETHAND | SA_RESTART};

    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

void interrupt_session(ts_session *s)
{
    atomic_store(&running, s);
}

bool interrupt_caught(void)
{
    return caught != 0;
}

/* interrupt.c - SIGINT, SIGTERM, SIGHUP. Owns the program's only mutable globals: a signal handler
 * has nothing else. */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static volatile sig_atomic_t caught; /* the signal's number */
static _Atomic(ts_session *) running;

static void on_signal(int signo)
{
    caught = signo;
    ts_session *s = atomic_load(&running);
    if (s)
        ts_session_cancel(s);
}

static void catch_signal(int signo, int flags)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = flags};

    sigemptyset(&sa.sa_mask);
    sigaction(signo, &sa, NULL);
}

/* SA_RESTART: what is being written to a slow terminal is still written whole. */
void interrupt_catch(void)
{
    caught = 0;
    catch_signal(SIGINT, SA_RESETHAND | SA_RESTART);
}

void interrupt_catch_input(void)
{
    caught = 0;
    catch_signal(SIGINT, 0);
}

void interrupt_catch_all(void)
{
    static const int asks[] = {SIGTERM, SIGHUP};

    interrupt_catch();
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct sigaction old;
        /* nohup(1) and its like have a signal ignored */
        if (sigaction(asks[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            catch_signal(asks[i], SA_RESTART);
    }
}

void interrupt_session(ts_session *s)
{
    atomic_store(&running, s);
}

bool interrupt_caught(void)
{
    return caught != 0;
}

int interrupt_status(void)
{
    return 128 + caught;
}

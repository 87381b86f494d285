/* interrupt.c - SIGINT, SIGTERM, SIGHUP. Owns the program's only mutable globals: a signal handler
 * has nothing else. */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"

static volatile sig_atomic_t caught; /* the signal's number */
static volatile sig_atomic_t hung_up;
static _Atomic double caught_at; /* of a server; ts_now */
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

static void on_end(int signo)
{
    if (caught == 0) {
        atomic_store(&caught_at, ts_now());
        caught = signo;
    } else if (ts_now() - atomic_load(&caught_at) > 0.2) {
        _exit(128 + signo);
    }
}

static void on_hang_up(int signo)
{
    (void)signo;
    hung_up = 1;
}

void interrupt_catch_server(void)
{
    static const int ends[] = {SIGINT, SIGTERM};
    struct sigaction sa = {.sa_handler = on_end, .sa_flags = SA_RESTART};

    caught = hung_up = 0;
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &sa, NULL);
    sa.sa_handler = on_hang_up;
    sigaction(SIGHUP, &sa, NULL);
}

bool interrupt_hung_up(void)
{
    bool so = hung_up != 0;
    hung_up = 0;
    return so;
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

/* test_pool.c - every thread runs every job once, barriers order memory, jobs from two callers
 * don't mix. */
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "check.h"

#define ROUNDS 200

typedef struct job {
    ts_pool *pool;
    int cells[64];
    int wrong[64]; /* per thread: what it saw out of place */
    atomic_int runs;
} job;

/* Each round every thread writes its cell, then after the barrier checks all the others. */
static void relay(void *arg, int tid, int n)
{
    job *j = arg;
    atomic_fetch_add(&j->runs, 1);
    for (int r = 1; r <= ROUNDS; r++) {
        j->cells[tid] = r;
        ts_pool_barrier(j->pool);
        for (int i = 0; i < n; i++)
            j->wrong[tid] += j->cells[i] != r;
        /* none, the second alone, and more than anyone has time for */
        static const char mem[10000];
        size_t bytes = (size_t)(r % 3 * 5000);
        ts_ahead ahead[2] = {{mem, mem + (r % 3 == 2 ? bytes : 0)}, {mem, mem + bytes}};
        ts_pool_barrier_ahead(j->pool, ahead);
        for (int a = 0; a < 2; a++)
            j->wrong[tid] += ahead[a].at < mem || ahead[a].at > ahead[a].end + 256;
        j->wrong[tid] += ahead[0].at < ahead[0].end && ahead[1].at != mem;
    }
}

static void *caller(void *arg)
{
    job *j = arg;
    for (int i = 0; i < 5; i++)
        ts_pool_run(j->pool, relay, j);
    return NULL;
}

static void claim(void *arg, int tid, int n)
{
    (void)tid, (void)n;
    atomic_int_fast64_t *next = arg;
    while (ts_claim(next) < 1000)
        ;
}

/* Half of the smallest normal float, or nothing. */
static void halve(void *arg, int tid, int n)
{
    volatile float x = 1.17549435e-38f;
    float *half = arg;
    *half = tid == 0 && n == 1 ? x / 2 : -1;
}

int main(void)
{
    ts_error err = {0};
    float alone[2] = {-1, -1};
    ts_pool_alone(halve, &alone[0]);
    halve(&alone[1], 0, 1);
    CHECK(alone[0] == 0 && alone[1] > 0); /* as in a job, and afterwards as before */
    for (int n = 1; n <= 5; n++) {
        ts_pool *p = NULL;
        REQUIRE(ts_pool_open(&p, n, &err) == TS_OK);
        CHECK(ts_pool_size(p) == n);
        /* Two callers at once: each its own job, one after the other. */
        job a = {.pool = p}, b = {.pool = p};
        pthread_t t;
        REQUIRE(pthread_create(&t, NULL, caller, &b) == 0);
        caller(&a);
        pthread_join(t, NULL);
        CHECK_MSG(a.runs == 5 * n && b.runs == 5 * n, "%d threads: %d, %d runs", n, a.runs, b.runs);
        for (int i = 0; i < n; i++)
            CHECK_MSG(a.wrong[i] == 0 && b.wrong[i] == 0, "%d threads, thread %d", n, i);
        atomic_int_fast64_t next = 0;
        ts_pool_run(p, claim, &next);
        CHECK(next == 1000 + n);
        ts_pool_close(p);
    }
    ts_pool *p = NULL;
    CHECK(ts_pool_open(&p, 0, &err) == TS_BAD_ARG && p == NULL);
    CHECK(ts_pool_open(&p, 100000, &err) == TS_BAD_ARG && strstr(err.msg, "100000"));
    ts_pool_close(NULL);

    ts_sb sb = {0};
    ts_sb_json_str(&sb, "a\"\\\n\x01\xff\xe2\x82\xac\xe2\x82", 11);
    CHECK_MSG(
        strcmp(sb.s, "\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd\xe2\x82\xac\xef\xbf\xbd\xef\xbf\xbd\"") ==
            0,
        "%s", sb.s);
    ts_sb_free(&sb);
    CHECK(ts_mem_total() > 0 && ts_mem_available() > 0 && ts_mem_available() <= ts_mem_total());
    return check_done("pool");
}

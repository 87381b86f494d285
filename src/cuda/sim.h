/* sim.h - launches on the CPU: blocks, threads that are fibers, barriers, exchange within a warp.
 * Part of the stand-in (standin.h says what it does and what it can't).
 *
 * The scheduler is the calling thread's own stack. It gives every fiber that isn't waiting a turn;
 * a fiber runs until it waits or ends. What a warp exchanges is computed by the last lane to come,
 * for all of them: what a lane gives lies in its `in`, what it gets in its `out`. */
#ifndef TS_CUDA_SIM_H
#define TS_CUDA_SIM_H

#ifndef __x86_64__
#error "the stand-in changes stacks with a few lines of x86-64"
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <functional>
#include <tuple>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define TS_SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TS_SIM_ASAN 1
#endif
#endif
#ifdef TS_SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __grid_constant__
#define __device__
#define __host__
#define __shared__      static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

enum { TS_SIM_THREADS = 1024, TS_SIM_STACK = 256 << 10, TS_SIM_ARRAYS = 32, TS_SIM_COPIES = 256 };

enum ts_sim_wait { TS_SIM_READY, TS_SIM_BLOCK, TS_SIM_WARP, TS_SIM_ENDED };

/* A copy to shared memory that was begun; poison is there until it is waited for. */
struct ts_sim_copy {
    void *to;
    const void *from;
    unsigned group;
};

struct ts_sim_thread {
    void *sp;    /* its stack while another runs                    */
    char *stack; /* [TS_SIM_STACK], the lowest page is a guard      */
    void *fake;  /* AddressSanitizer's                              */
    uint3 at;    /* threadIdx                                       */
    ts_sim_wait wait;
    unsigned mask; /* the lanes it waits with                         */
    int line;      /* where it waits                                  */
    const char *file;
    bool waited;            /* for the launches before                     */
    bool begun;             /* its fiber has run                           */
    int source;             /* shuffle: the lane it reads                      */
    uint32_t in[8];         /* what it gives to its warp                       */
    uint32_t out[8];        /* what it gets                                    */
    ts_sim_copy *copy;      /* [TS_SIM_COPIES] in order; elsewhere, so that threads lie close */
    unsigned copies, group; /* the group that is open */
};

struct ts_sim_lanes {
    unsigned waiting, ended; /* bits */
};

struct ts_sim_state {
    ts_sim_lanes warp[TS_SIM_THREADS / 32];
    ts_sim_thread thread[TS_SIM_THREADS];
    ts_sim_thread *cur;
    void *sp; /* the scheduler's */
    void *fake;
    const void *stack; /* the scheduler's, as AddressSanitizer knows it */
    size_t stack_bytes;
    std::function<void()> kernel;
    dim3 grid, block;
    uint3 block_at;
    int threads, ended, at_barrier; /* of a block */
    int step;                       /* 1 or -1: in which order threads run */
    int barrier_line;
    void *dynamic;
    struct {
        const void *key;
        void *p;
    } array[TS_SIM_ARRAYS]; /* static shared memory of the block */
    int arrays;
    int error;
    unsigned launches;
    std::vector<std::function<void()>> *record; /* launches go there instead, when there is one */
    int64_t refuse;                             /* the so-manieth launch from now fails; 0: none */
};

inline ts_sim_state ts_sim;

#define threadIdx (ts_sim.cur->at)
#define blockIdx  (ts_sim.block_at)
#define blockDim  (ts_sim.block)
#define gridDim   (ts_sim.grid)
#define warpSize  32

[[noreturn]] inline void ts_sim_stop(const char *what);

/* --- fibers ----------------------------------------------------------------------------------- */

/* Saves what a function must preserve, changes the stack, and returns on the other one. */
inline __attribute__((naked, noinline)) void ts_sim_switch(void ** /* save */, void * /* load */)
{
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "ret");
}

#ifdef TS_SIM_ASAN
#define TS_SIM_NO_ASAN __attribute__((no_sanitize_address))
#else
#define TS_SIM_NO_ASAN
#endif

TS_SIM_NO_ASAN inline void ts_sim_to_thread(ts_sim_thread *t)
{
    ts_sim.cur = t;
    t->begun = true;
#ifdef TS_SIM_ASAN
    __sanitizer_start_switch_fiber(&ts_sim.fake, t->stack, TS_SIM_STACK);
#endif
    ts_sim_switch(&ts_sim.sp, t->sp);
#ifdef TS_SIM_ASAN
    __sanitizer_finish_switch_fiber(ts_sim.fake, NULL, NULL);
#endif
}

/* The thread behind t in the order of this launch, if it can go on; else NULL. */
inline ts_sim_thread *ts_sim_next(ts_sim_thread *t)
{
    t += ts_sim.step;
    const bool there = t >= ts_sim.thread && t < ts_sim.thread + ts_sim.threads;
    return there && t->begun && t->wait == TS_SIM_READY ? t : NULL;
}

/* Goes to the next thread, or else to the scheduler, until it is this one's turn again. */
TS_SIM_NO_ASAN inline void ts_sim_leave(void)
{
    ts_sim_thread *t = ts_sim.cur, *next = ts_sim_next(t);
    if (next)
        __builtin_prefetch(next[ts_sim_next(next) ? ts_sim.step : 0].sp);
#ifdef TS_SIM_ASAN
    __sanitizer_start_switch_fiber(&t->fake, next ? next->stack : ts_sim.stack,
                                   next ? (size_t)TS_SIM_STACK : ts_sim.stack_bytes);
#endif
    ts_sim.cur = next ? next : t;
    ts_sim_switch(&t->sp, next ? next->sp : ts_sim.sp);
#ifdef TS_SIM_ASAN
    __sanitizer_finish_switch_fiber(t->fake, NULL, NULL);
#endif
}

/* A fiber never ends: it runs its thread of one block after the other. */
TS_SIM_NO_ASAN inline void ts_sim_fiber(void)
{
#ifdef TS_SIM_ASAN
    __sanitizer_finish_switch_fiber(NULL, &ts_sim.stack, &ts_sim.stack_bytes);
#endif
    for (;;) {
        ts_sim.kernel();
        if (!ts_sim.cur->waited)
            ts_sim_stop("a thread has ended without ts_wait_previous");
        int id = (int)(ts_sim.cur - ts_sim.thread);
        ts_sim.cur->wait = TS_SIM_ENDED;
        ts_sim.warp[id / 32].ended |= 1u << id % 32;
        if (ts_sim.at_barrier)
            ts_sim_stop("a thread has ended, and others are at __syncthreads");
        ts_sim.ended++;
        ts_sim_leave();
    }
}

inline void ts_sim_make_fiber(ts_sim_thread *t)
{
    /* Behind the stack are its copies: like it, they are there until the process ends. */
    char *stack =
        (char *)mmap(NULL, TS_SIM_STACK + TS_SIM_COPIES * sizeof *t->copy, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, 4096, PROT_NONE) != 0) {
        fprintf(stderr, "stand-in: no memory for a thread's stack\n");
        abort();
    }
    t->copy = (ts_sim_copy *)(stack + TS_SIM_STACK);
    /* Stacks lie 256 KiB apart: begun at the same place in each, all would share a few sets of the
     * caches. */
    const size_t skew = (size_t)(t - ts_sim.thread) % 61 * 832;
    /* At its entry a function's stack is 8 off a multiple of 16, as after a call. */
    void **sp = (void **)(stack + TS_SIM_STACK - skew) - 1; /* no return address */
    *--sp = (void *)ts_sim_fiber;
    sp -= 6; /* the saved registers */
    t->stack = stack;
    t->sp = sp;
}

/* --- waiting ---------------------------------------------------------------------------------- */

[[noreturn]] inline void ts_sim_stop(const char *what)
{
    fflush(stdout);
    fprintf(stderr, "stand-in: block (%u, %u, %u): %s\n", ts_sim.block_at.x, ts_sim.block_at.y,
            ts_sim.block_at.z, what);
    static const char *const state[] = {"runs", "at a block barrier", "waits for its warp",
                                        "ended"};
    for (int i = 0, last = -1; i < ts_sim.threads; i++) {
        const ts_sim_thread *t = &ts_sim.thread[i], *l = &ts_sim.thread[last < 0 ? 0 : last];
        if (last >= 0 && t->wait == l->wait && t->line == l->line && t->mask == l->mask)
            continue;
        last = i;
        fprintf(stderr, "  from thread %d on: %s", i, state[t->wait]);
        if (t->wait == TS_SIM_WARP)
            fprintf(stderr, ", lanes %08x", t->mask);
        if (t->wait == TS_SIM_WARP || t->wait == TS_SIM_BLOCK)
            fprintf(stderr, ", %s:%d", t->file, t->line);
        fprintf(stderr, "\n");
    }
    abort();
}

inline void ts_sim_barrier(int line, const char *file)
{
    ts_sim_thread *t = ts_sim.cur;
    t->wait = TS_SIM_BLOCK;
    t->line = line;
    t->file = file;
    if (ts_sim.ended)
        ts_sim_stop("__syncthreads, and a thread has ended");
    if (ts_sim.at_barrier++ == 0)
        ts_sim.barrier_line = line;
    if (ts_sim.barrier_line != line)
        ts_sim_stop("threads are at different __syncthreads");
    if (ts_sim.at_barrier < ts_sim.threads) {
        ts_sim_leave();
        return;
    }
    ts_sim.at_barrier = 0;
    for (int i = 0; i < ts_sim.threads; i++)
        ts_sim.thread[i].wait = TS_SIM_READY;
}

/* Waits until all lanes of mask are here; the last one runs op over them (NULL: nothing). Lanes
 * that a block doesn't have are left out. */
typedef void ts_sim_op(ts_sim_thread *lane, unsigned mask);

inline void ts_sim_warp(unsigned mask, ts_sim_op *op, int line, const char *file)
{
    ts_sim_thread *t = ts_sim.cur;
    int id = (int)(t - ts_sim.thread), first = id & ~31, lanes = ts_sim.threads - first;
    ts_sim_thread *lane = &ts_sim.thread[first];
    ts_sim_lanes *w = &ts_sim.warp[id / 32];
    if (lanes < 32)
        mask &= (1u << lanes) - 1;
    t->wait = TS_SIM_WARP;
    t->mask = mask;
    t->line = line;
    t->file = file;
    w->waiting |= 1u << (id & 31);
    if (!(mask >> (id & 31) & 1))
        ts_sim_stop("a mask without the calling lane");
    if (w->ended & mask)
        ts_sim_stop("a mask with a lane that has ended");
    bool all = (w->waiting & mask) == mask;
    for (int i = 0; i < 32 && all; i++) {
        if (!(mask >> i & 1))
            continue;
        all = lane[i].mask == mask;
        if (all && lane[i].line != line)
            ts_sim_stop("lanes of one mask are at different places");
    }
    if (!all) {
        ts_sim_leave();
        return;
    }
    if (op)
        op(lane, mask);
    w->waiting &= ~mask;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            lane[i].wait = TS_SIM_READY;
}

inline void ts_let_next(void)
{
}

inline void ts_wait_previous(void)
{
    ts_sim.cur->waited = true;
}

inline void ts_in_turn(void)
{
    ts_wait_previous();
}

/* --- shared memory ---------------------------------------------------------------------------- */

inline void *ts_sim_poisoned(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 128, bytes ? bytes : 1) != 0)
        abort();
    memset(p, 0xff, bytes);
    return p;
}

/* The block's array that belongs to a declaration, key. */
inline void *ts_sim_array(const void *key, size_t bytes)
{
    for (int i = 0; i < ts_sim.arrays; i++)
        if (ts_sim.array[i].key == key)
            return ts_sim.array[i].p;
    if (ts_sim.arrays == TS_SIM_ARRAYS)
        ts_sim_stop("too many shared arrays");
    ts_sim.array[ts_sim.arrays].key = key;
    return ts_sim.array[ts_sim.arrays++].p = ts_sim_poisoned(bytes);
}

#define TS_SHARED(type, name) type *name = (type *)ts_sim.dynamic

#define TS_SHARED_ARRAY(type, name, ...)                                                           \
    static char name##_key_;                                                                       \
    typedef type name##_type_ __VA_ARGS__;                                                         \
    name##_type_ &name = *(name##_type_ *)ts_sim_array(&name##_key_, sizeof(name##_type_))

/* --- launches --------------------------------------------------------------------------------- */

inline void ts_sim_block(bool reverse)
{
    int n = ts_sim.threads;
    ts_sim.ended = ts_sim.at_barrier = 0;
    memset(ts_sim.warp, 0, sizeof ts_sim.warp);
    for (int i = 0; i < n; i++) {
        ts_sim.thread[i].wait = TS_SIM_READY;
        ts_sim.thread[i].copies = 0;
        ts_sim.thread[i].waited = false;
    }
    while (ts_sim.ended < n) {
        bool ran = false;
        for (int i = 0; i < n; i++) {
            ts_sim_thread *t = &ts_sim.thread[reverse ? n - 1 - i : i];
            if (t->wait != TS_SIM_READY)
                continue;
            const char *next = (const char *)t[reverse ? -(i + 1 < n) : i + 1 < n].sp;
            __builtin_prefetch(next); /* its registers, and where it goes on */
            __builtin_prefetch(next + 64);
            ts_sim_to_thread(t);
            ran = true;
        }
        if (!ran)
            ts_sim_stop("threads wait for each other");
    }
}

inline void ts_sim_start(dim3 grid, dim3 block, size_t shared_bytes)
{
    ts_sim.grid = grid;
    ts_sim.block = block;
    ts_sim.threads = (int)(block.x * block.y * block.z);
    for (int i = 0; i < ts_sim.threads; i++) {
        ts_sim_thread *t = &ts_sim.thread[i];
        if (!t->stack)
            ts_sim_make_fiber(t);
        t->at.x = (unsigned)i % block.x;
        t->at.y = (unsigned)i / block.x % block.y;
        t->at.z = (unsigned)i / block.x / block.y;
    }
    bool reverse = ts_sim.launches++ % 2;
    ts_sim.step = reverse ? -1 : 1;
    int64_t blocks = (int64_t)grid.x * grid.y * grid.z;
    for (int64_t j = 0; j < blocks; j++) {
        int64_t i = reverse ? blocks - 1 - j : j;
        ts_sim.block_at.x = (unsigned)(i % grid.x);
        ts_sim.block_at.y = (unsigned)(i / grid.x % grid.y);
        ts_sim.block_at.z = (unsigned)(i / grid.x / grid.y);
        ts_sim.dynamic = ts_sim_poisoned(shared_bytes);
        ts_sim.arrays = 0;
        ts_sim_block(reverse);
        free(ts_sim.dynamic);
        for (int a = 0; a < ts_sim.arrays; a++)
            free(ts_sim.array[a].p);
    }
}

/* The limits of an H100; other GPUs have less shared memory. */
enum { TS_SIM_SHARED = 48 << 10, TS_SIM_SHARED_MOST = 227 << 10, TS_SIM_BAD_LAUNCH = 1 };

inline size_t ts_sim_shared_limit = TS_SIM_SHARED;

inline int ts_sim_allow(size_t bytes)
{
    if (bytes > TS_SIM_SHARED_MOST)
        return TS_SIM_BAD_LAUNCH;
    ts_sim_shared_limit = bytes > ts_sim_shared_limit ? bytes : ts_sim_shared_limit;
    return 0;
}

#define TS_SHARED_LIMIT(kernel, bytes) ((void)(kernel), ts_sim_allow(bytes))

inline void ts_sim_launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> kernel)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (!threads || threads > TS_SIM_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z ||
        grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff ||
        shared_bytes > ts_sim_shared_limit) {
        ts_sim.error = TS_SIM_BAD_LAUNCH;
        return;
    }
    if (ts_sim.refuse && --ts_sim.refuse == 0) {
        ts_sim.error = TS_SIM_BAD_LAUNCH;
        return;
    }
    if (ts_sim.record) {
        ts_sim.record->push_back([=] { ts_sim_launch(grid, block, shared_bytes, kernel); });
        return;
    }
    ts_sim.kernel = kernel;
    ts_sim_start(grid, block, shared_bytes);
    ts_sim.cur = NULL;
}

/* Arguments are taken when a kernel is launched, as they are in a recording. */
template <class K, class... A> std::function<void()> ts_sim_call(K kernel, A... args)
{
    return [kernel, all = std::make_tuple(args...)] { std::apply(kernel, all); };
}

#define TS_LAUNCH(kernel_, grid_, block_, shared_bytes_, stream_, ...)                             \
    do {                                                                                           \
        (void)(stream_);                                                                           \
        ts_sim_launch((grid_), (block_), (shared_bytes_), ts_sim_call(kernel_, __VA_ARGS__));      \
    } while (0)

/* For tests in C: rt_standin.h. */
extern "C" __attribute__((used)) inline void ts_sim_refuse(int64_t n)
{
    ts_sim.refuse = n;
}

inline int ts_launch_error(void)
{
    int e = ts_sim.error;
    ts_sim.error = 0;
    return e;
}

#endif

/* rt_standin.c - rt.h without CUDA, beside the stand-in for its kernels (standin.h): one GPU, or
 * two that are the same, whose memory is this machine's. New memory holds NaN, everything queued is
 * done at once, and products are plain loops. Allocations, copies and waits count, and one of them
 * can be told to fail. While a graph is recorded (rt_record.cpp), what CUDA refuses fails here too.
 */
#include "cuda/rt_standin.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/rt.h"

int64_t ts_rt_calls, ts_rt_fails_at = -1;
size_t ts_rt_memory = (size_t)1 << 32;
bool ts_rt_no_gemm;

int ts_rt_call(void)
{
    /* from several threads when a model is loaded */
    return __atomic_fetch_add(&ts_rt_calls, 1, __ATOMIC_RELAXED) == ts_rt_fails_at ? 2 : 0;
}

/* Of what may not happen during a recording. */
static int call(void)
{
    return ts_rt_recording() ? 1 : ts_rt_call();
}

/* A number in the environment, for tests of the program: TS_STANDIN_ROOM is what can be allocated
 * really, TS_STANDIN_FREE what is said to be free when it is asked for a second time,
 * TS_STANDIN_GPUS how many GPUs there are, the first TS_STANDIN_FULL of them too full to be used.
 */
static size_t setting(const char *name, size_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 10) : otherwise;
}

int ts_rt_count(const char **why)
{
    *why = "";
    return (int)setting("TS_STANDIN_GPUS", 1);
}

int ts_rt_get_info(int ordinal, ts_rt_info *info)
{
    static int asked;
    if (ordinal < (int)setting("TS_STANDIN_FULL", 0))
        return ts_rt_no_memory;
    *info = (ts_rt_info){.name = "stand-in", .total_bytes = ts_rt_memory, .major = 8};
    info->free_bytes = asked++ ? setting("TS_STANDIN_FREE", ts_rt_memory) : ts_rt_memory;
    return 0;
}

const char *ts_rt_text(int error)
{
    return error == 2 ? "told to fail" : "an error of the stand-in";
}

int ts_rt_use(int ordinal)
{
    return ordinal < 0 || ordinal > 1; /* two that are the same */
}

static int allocate(void **p, size_t bytes)
{
    int e = call();
    *p = e ? NULL : aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*p)
        memset(*p, 0xff, bytes);
    return *p ? 0 : 2;
}

static atomic_size_t taken; /* of GPU memory */

int ts_rt_alloc(void **p, size_t bytes)
{
    *p = NULL;
    if (taken + bytes > setting("TS_STANDIN_ROOM", SIZE_MAX))
        return 2;
    const int e = allocate(p, bytes);
    taken += *p ? malloc_usable_size(*p) : 0;
    return e;
}

void ts_rt_free(void *p)
{
    taken -= p ? malloc_usable_size(p) : 0;
    free(p);
}

int ts_rt_alloc_host(void **p, size_t bytes)
{
    return allocate(p, bytes);
}

void ts_rt_free_host(void *p)
{
    free(p);
}

const int ts_rt_no_memory = 2, ts_rt_bad_value = 1, ts_rt_is_pinned = 712;

enum { PINS = 64 };
static const void *pins[PINS]; /* NULL: free */
static pthread_mutex_t pins_lock = PTHREAD_MUTEX_INITIALIZER;

static int pin(const void *p)
{
    int at = -1;
    for (int i = 0; i < PINS; i++) {
        if (pins[i] == p)
            return ts_rt_is_pinned;
        at = pins[i] ? at : i;
    }
    if (at < 0)
        return ts_rt_no_memory;
    pins[at] = p;
    return 0;
}

int ts_rt_pin(const void *p, size_t bytes)
{
    int e = bytes ? call() : ts_rt_bad_value;
    pthread_mutex_lock(&pins_lock);
    e = e ? e : pin(p);
    pthread_mutex_unlock(&pins_lock);
    return e;
}

void ts_rt_unpin(const void *p)
{
    bool was = false;
    pthread_mutex_lock(&pins_lock);
    for (int i = 0; i < PINS; i++)
        if (pins[i] == p) {
            pins[i] = NULL;
            was = true;
        }
    pthread_mutex_unlock(&pins_lock);
    if (!was) /* the driver would say so: nobody asks it */
        abort();
}

/* Everything is done at once: what an event has to be is recorded before it is waited for. */
int ts_rt_event_open(void **event)
{
    const int e = call();
    *event = e ? NULL : calloc(1, sizeof(bool));
    return *event ? 0 : 2;
}

void ts_rt_event_close(void *event)
{
    free(event);
}

int ts_rt_event_record(void *event, void *stream)
{
    (void)stream;
    *(bool *)event = true;
    return ts_rt_call();
}

int ts_rt_stream_wait(void *stream, void *event)
{
    (void)stream;
    return *(bool *)event ? ts_rt_call() : 1;
}

int ts_rt_event_wait(void *event)
{
    return *(bool *)event ? call() : 1;
}

int ts_rt_copy_rows(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t bytes,
                    size_t rows, void *stream)
{
    int e = 0;
    for (size_t i = 0; i < rows && !e; i++)
        e = ts_rt_copy((char *)dst + i * dst_pitch, (const char *)src + i * src_pitch, bytes,
                       stream);
    return e;
}

int ts_rt_stream_open(void **stream)
{
    *stream = NULL;
    return call();
}

void ts_rt_stream_close(void *stream)
{
    (void)stream;
}

int ts_rt_wait(void *stream)
{
    (void)stream;
    return call();
}

int ts_rt_copy(void *dst, const void *src, size_t bytes, void *stream)
{
    (void)stream;
    int e = ts_rt_call();
    if (!e && ts_rt_recording())
        ts_rt_record_copy(dst, src, bytes);
    else if (!e)
        memcpy(dst, src, bytes);
    return e;
}

struct ts_rt_gemm {
    int nothing;
};

int ts_rt_gemm_open(ts_rt_gemm **out, void *stream)
{
    (void)stream;
    *out = ts_rt_no_gemm ? NULL : calloc(1, sizeof **out);
    return *out || ts_rt_no_gemm ? 0 : 2;
}

void ts_rt_gemm_close(ts_rt_gemm *g)
{
    free(g);
}

static float bf16(uint16_t u)
{
    uint32_t bits = (uint32_t)u << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void product(float *y, int64_t ldy, bool add, const uint16_t *x, int64_t ldx,
                    const uint16_t *w, int64_t m, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += bf16(x[i * ldx + l]) * bf16(w[j * k + l]);
            y[i * ldy + j] = sum + (add ? y[i * ldy + j] : 0);
        }
}

int ts_rt_gemm_run(ts_rt_gemm *g, float *y, int64_t ldy, bool add, const uint16_t *x,
                   const uint16_t *w, int64_t m, int64_t n, int64_t k)
{
    (void)g;
    product(y, ldy, add, x, k, w, m, n, k);
    return 0;
}

int ts_rt_gemm_heads(ts_rt_gemm *g, float *y, int64_t ldy, int64_t y_head, const uint16_t *x,
                     int64_t ldx, int64_t x_head, const uint16_t *w, int64_t heads, int64_t m,
                     int64_t n, int64_t k)
{
    (void)g;
    for (int64_t h = 0; h < heads; h++)
        product(y + h * y_head, ldy, false, x + h * x_head, ldx, w + h * n * k, m, n, k);
    return 0;
}

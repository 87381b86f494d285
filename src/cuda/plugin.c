/* plugin.c - what libtessera_cuda.so shows to the outside. */
#include <string.h>

#include "base/clock.h"
#include "cuda/device.h"
#include "exec/gpu.h"

__attribute__((visibility("default"))) const ts_gpu_plugin *ts_cuda_plugin(void);

/* A few copies of so many bytes: milliseconds. */
#define LINK_BYTES ((size_t)32 << 20)

/* The best of three. */
static int time_copies(void *to, const void *from, void *stream, double *speed)
{
    for (int i = 0; i < 3; i++) {
        const double t0 = ts_now();
        int e = ts_rt_copy(to, from, LINK_BYTES, stream);
        if (e || (e = ts_rt_wait(stream)))
            return e;
        const double now = (double)LINK_BYTES / (ts_now() - t0);
        *speed = now > *speed ? now : *speed;
    }
    return 0;
}

static int link_speed(int ordinal, double *speed)
{
    void *gpu = NULL, *host = NULL, *stream = NULL;
    *speed = 0;
    int e = ts_rt_use(ordinal);
    if (!e && !(e = ts_rt_alloc(&gpu, LINK_BYTES)) && !(e = ts_rt_alloc_host(&host, LINK_BYTES)) &&
        !(e = ts_rt_stream_open(&stream))) {
        memset(host, 0, LINK_BYTES);
        e = time_copies(gpu, host, stream, speed);
        ts_rt_stream_close(stream);
    }
    ts_rt_free_host(host);
    ts_rt_free(gpu);
    return e;
}

const ts_gpu_plugin *ts_cuda_plugin(void)
{
    static ts_gpu_plugin p = {.backend = &ts_backend_cuda,
                              .kind = &ts_cuda_kind,
                              .count = ts_rt_count,
                              .get_info = ts_rt_get_info,
                              .text = ts_rt_text,
                              .link = link_speed};
    p.abi = ts_gpu_abi();
    return &p;
}

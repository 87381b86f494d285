/* gpu.c - see gpu.h. */
#include "exec/gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

/* Of free memory, left for the driver and others: a sixteenth, at least so many bytes. */
#define MARGIN ((size_t)256 << 20)

uint64_t ts_gpu_abi(void)
{
    const uint64_t v[] = {1,
                          sizeof(ts_backend),
                          sizeof(ts_plan),
                          sizeof(ts_plan_device),
                          sizeof(ts_steps),
                          sizeof(ts_step),
                          sizeof(ts_buffer),
                          sizeof(ts_model),
                          sizeof(ts_layer),
                          sizeof(ts_weight),
                          sizeof(ts_kset),
                          sizeof(ts_batch),
                          sizeof(ts_work),
                          sizeof(ts_load_options),
                          TS_OP_COUNT};
    return ts_hash64(v, sizeof v, 0);
}

/* The library in the folder of the file that this code is in, or in `up` from there. */
static void *beside(const char *up)
{
    Dl_info self;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)ts_gpu_abi, &self) || !self.dli_fname)
        return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    const int dir = slash ? (int)(slash - self.dli_fname) + 1 : 0;
    if (snprintf(path, sizeof path, "%.*s%slibtessera_cuda.so", dir, self.dli_fname, up) >=
        (int)sizeof path)
        return NULL;
    return strchr(path, '/') ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static void *open_library(char *why, size_t n)
{
    const char *named = getenv("TESSERA_CUDA_LIBRARY");
    void *l = NULL;
    if (named && !*named) {
        snprintf(why, n, "TESSERA_CUDA_LIBRARY names none");
        return NULL;
    }
    if (named)
        l = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    else if (!(l = beside("")) && !(l = beside("../lib/")))
        l = dlopen("libtessera_cuda.so", RTLD_NOW | RTLD_LOCAL);
    if (!l) {
        const char *e = dlerror();
        snprintf(why, n, "the library for GPUs can't be loaded: %s", e ? e : "unknown reason");
    }
    return l;
}

static size_t room(const ts_rt_info *i, size_t limit)
{
    size_t margin = i->free_bytes / 16;
    if (margin < MARGIN)
        margin = MARGIN;
    const size_t most = i->free_bytes > margin ? i->free_bytes - margin : 0;
    return limit && limit < most ? limit : most;
}

static void find(ts_gpus *g, const ts_gpu_plugin *p, size_t limit, char *why, size_t n)
{
    const char *none = "";
    const int count = p->count(&none);
    if (count <= 0)
        snprintf(why, n, "%s", none);
    for (int i = 0; i < count && g->n < TS_MAX_GPUS; i++) {
        const int j = g->n;
        const int e = p->get_info(i, &g->info[j]);
        if (e) {
            snprintf(why, n, "GPU %d: %s", i, p->text(e));
            continue;
        }
        snprintf(g->name[j], sizeof g->name[j], "CUDA%d", i);
        g->accel[j] = (ts_accel){
            .name = g->name[j], .ordinal = i, .kind = p->kind, .memory = room(&g->info[j], limit)};
        g->backend[j] = p->backend;
        g->n++;
    }
}

void ts_gpus_open(ts_gpus *g, size_t limit, char *why, size_t n)
{
    memset(g, 0, sizeof *g);
    snprintf(why, n, "there is none");
    g->library = open_library(why, n);
    if (!g->library)
        return;
    ts_gpu_plugin_fn *get;
    *(void **)&get = dlsym(g->library, "ts_cuda_plugin");
    const ts_gpu_plugin *p = get ? get() : NULL;
    if (!p || p->abi != ts_gpu_abi())
        snprintf(why, n, "the library for GPUs is of another version of Tessera");
    else
        find(g, p, limit, why, n);
    if (g->n == 0)
        ts_gpus_close(g);
}

void ts_gpus_close(ts_gpus *g)
{
    if (g->library)
        dlclose(g->library);
    memset(g, 0, sizeof *g);
}

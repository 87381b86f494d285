/* gpu.c - see gpu.h. */
#include "exec/gpu.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/mem.h"
#include "cuda/device.h"

/* Of free memory, left for the driver and others: a sixteenth, at least so many bytes. */
#define MARGIN ((size_t)256 << 20)

uint64_t ts_gpu_abi(void)
{
    const uint64_t v[] = {1,
                          sizeof(ts_gpu_plugin),
                          sizeof(ts_rt_info),
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
            const size_t at = strlen(g->left_out);
            snprintf(g->left_out + at, sizeof g->left_out - at, "%sGPU %d: %s", at ? ", " : "", i,
                     p->text(e));
            continue;
        }
        snprintf(g->name[j], sizeof g->name[j], "CUDA%d", i);
        g->accel[j] = (ts_accel){.name = g->name[j],
                                 .ordinal = i,
                                 .kind = p->kind,
                                 .memory = room(&g->info[j], limit),
                                 .read = g->info[j].read,
                                 .flops = g->info[j].flops};
        g->backend[j] = p->backend;
        g->n++;
    }
    if (count > 0 && !g->n)
        snprintf(why, n, "%s", g->left_out);
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
    g->plugin = p;
    g->limit = limit;
    if (g->n == 0)
        ts_gpus_close(g);
}

void ts_gpus_close(ts_gpus *g)
{
    if (g->library)
        dlclose(g->library);
    memset(g, 0, sizeof *g);
}

void ts_gpus_keep(ts_gpus *g, const int *order, int n)
{
    const ts_gpus all = *g;
    for (int i = 0; i < n; i++) {
        const int from = order[i];
        g->accel[i] = all.accel[from];
        g->backend[i] = all.backend[from];
        g->info[i] = all.info[from];
        memcpy(g->name[i], all.name[from], sizeof g->name[i]);
        g->accel[i].name = g->name[i];
    }
    g->n = n;
}

void ts_gpus_refresh(ts_gpus *g)
{
    for (int i = 0; i < g->n && g->plugin; i++) {
        ts_rt_info now;
        if (g->plugin->get_info(g->accel[i].ordinal, &now) == 0)
            g->accel[i].memory = room(&now, g->limit);
    }
}

double ts_gpus_link(const ts_gpus *g, int i)
{
    double speed = 0;
    if (!g->plugin || g->plugin->link(g->accel[i].ordinal, &speed))
        return 0;
    return speed;
}

/* --- GPUs that are planned for ---------------------------------------------------- */

/* A field of a description, cut at its comma. */
typedef struct field {
    const char *s;
    int n;
} field;

/* The number of "78G", "3.35TB/s": times 1000 (or `step`) for each letter of KMGTP up to the
 * unit's; `rest` must follow, or nothing where `bare`. 0: it isn't one. */
static double quantity(field f, double step, const char *rest, bool bare)
{
    static const char units[] = "KMGTP";
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", f.n, f.s);
    double v = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (end == text || f.n >= (int)sizeof text || !isdigit((unsigned char)text[0]))
        return 0;
    for (const char *u = units; unit && u <= unit; u++)
        v *= step;
    end += unit != NULL;
    return (bare && !*end) || strcasecmp(end, rest) == 0 ? v : 0;
}

static ts_status parse_spec(ts_rt_info *out, double *link, const char *spec, ts_error *err)
{
    field f[5] = {{0}};
    int n = 0;
    for (const char *p = spec; n < 5; p++) {
        f[n].s = p;
        f[n++].n = (int)strcspn(p, ",");
        p += f[n - 1].n;
        if (!*p)
            break;
        if (n == 5)
            n = 6;
    }
    if (n < 4 || n > 5 || !f[0].n)
        return ts_fail(err, TS_BAD_ARG,
                       "'%s' describes no GPU: it takes NAME,MEMORY,BANDWIDTH,LINK and perhaps "
                       "PEAK, as in H100,78G,3000GB/s,50GB/s,900TFLOPS",
                       spec);
    const double memory = quantity(f[1], 1024, "B", true),
                 read = quantity(f[2], 1000, "B/s", false), to = quantity(f[3], 1000, "B/s", false),
                 flops = n == 5 ? quantity(f[4], 1000, "FLOPS", false) : 0;
    const char *const what[] = {"memory, like 78G", "bandwidth, like 3000GB/s",
                                "speed of its link, like 50GB/s", "peak, like 900TFLOPS"};
    const double got[] = {memory, read, to, n == 5 ? flops : 1};
    for (int i = 0; i < 4; i++)
        if (!(got[i] >= 1 && got[i] < 1e18))
            return ts_fail(err, TS_BAD_ARG, "'%.*s' in '%s' is no %s", f[1 + i].n, f[1 + i].s, spec,
                           what[i]);
    *out = (ts_rt_info){
        .free_bytes = (size_t)memory, .total_bytes = (size_t)memory, .read = read, .flops = flops};
    snprintf(out->name, sizeof out->name, "%.*s", f[0].n, f[0].s);
    *link = to;
    return TS_OK;
}

ts_status ts_gpus_plan(ts_gpus *g, const char *const *specs, size_t n, size_t limit, ts_error *err)
{
    memset(g, 0, sizeof *g);
    if (n > TS_MAX_GPUS)
        return ts_fail(err, TS_BAD_ARG, "%zu GPUs to plan for; at most %d can be used", n,
                       TS_MAX_GPUS);
    for (size_t i = 0; i < n; i++) {
        double link = 0;
        ts_status s = parse_spec(&g->info[i], &link, specs[i], err);
        if (s)
            return s;
        snprintf(g->name[i], sizeof g->name[i], "CUDA%zu", i);
        g->accel[i] = (ts_accel){.name = g->name[i],
                                 .ordinal = (int)i,
                                 .kind = &ts_cuda_kind,
                                 .memory = room(&g->info[i], limit),
                                 .read = g->info[i].read,
                                 .link = link,
                                 .flops = g->info[i].flops};
    }
    g->n = (int)n;
    return TS_OK;
}

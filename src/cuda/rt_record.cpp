/* rt_record.cpp - rt.h's graphs without CUDA: launches of the stand-in's kernels and copies, kept
 * with their arguments and done again. */
#include <pthread.h>

#include "cuda/rt.h"
#include "cuda/rt_standin.h"
#include "cuda/standin.h"

struct ts_rt_graph {
    std::vector<std::function<void()>> work;
};

int64_t ts_rt_graphs, ts_rt_replays;
bool ts_rt_no_graphs;

/* A recording is one thread's, as CUDA's is in the mode that rt_cuda.c has: others may wait. */
static pthread_t recorder;

bool ts_rt_recording(void)
{
    return ts_sim.record && pthread_equal(recorder, pthread_self());
}

void ts_rt_record_copy(void *dst, const void *src, size_t bytes)
{
    ts_sim.record->push_back([=] { memcpy(dst, src, bytes); });
}

int ts_rt_record(void *)
{
    const int e = ts_rt_call();
    if (!e) {
        recorder = pthread_self();
        ts_sim.record = new std::vector<std::function<void()>>;
    }
    return e;
}

int ts_rt_record_end(ts_rt_graph **out, void *)
{
    const int e = ts_rt_call();
    *out = e || ts_rt_no_graphs ? NULL : new ts_rt_graph{std::move(*ts_sim.record)};
    delete ts_sim.record;
    ts_sim.record = NULL;
    ts_rt_graphs += *out != NULL;
    return *out ? 0 : 2;
}

int ts_rt_graph_launch(ts_rt_graph *g, void *)
{
    const int e = ts_rt_call();
    for (size_t i = 0; !e && i < g->work.size(); i++)
        g->work[i]();
    ts_rt_replays += !e;
    return e;
}

void ts_rt_graph_close(ts_rt_graph *g)
{
    ts_rt_graphs -= g != NULL;
    delete g;
}

/* sampling.c - the options of every command that samples. */
#include "sampling.h"

#include <time.h>

void sampling_init(sampling_opts *o)
{
    ts_sampler_options d;

    ts_sampler_options_init(&d);
    *o = (sampling_opts){
        .seed = -1,
        .temp = d.temp,
        .top_k = d.top_k,
        .top_p = d.top_p,
        .min_p = d.min_p,
        .repeat_penalty = d.repeat_penalty,
        .frequency_penalty = d.frequency_penalty,
        .presence_penalty = d.presence_penalty,
        .repeat_last_n = d.repeat_last_n,
    };
}

uint64_t sampling_seed(const sampling_opts *o)
{
    return o->seed >= 0 ? (uint64_t)o->seed : (uint64_t)time(NULL);
}

ts_sampler_options sampling_options(const sampling_opts *o)
{
    ts_sampler_options so;

    ts_sampler_options_init(&so);
    so.temp = (float)o->temp;
    so.top_k = (int32_t)o->top_k;
    so.top_p = (float)o->top_p;
    so.min_p = (float)o->min_p;
    so.repeat_penalty = (float)o->repeat_penalty;
    so.frequency_penalty = (float)o->frequency_penalty;
    so.presence_penalty = (float)o->presence_penalty;
    so.repeat_last_n = (int32_t)o->repeat_last_n;
    return so;
}

ts_status sampling_open(ts_sampler **out, const sampling_opts *o, uint64_t seed, ts_error *err)
{
    ts_sampler_options so = sampling_options(o);

    so.seed = seed;
    return ts_sampler_open(out, &so, err);
}

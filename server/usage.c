/* usage.c - tokens counted and timed, as OpenAI's `usage` and llama-server's `timings`. */
#include "job.h"

void ts_usage_write(const ts_gen_usage *u, ts_sb *b)
{
    ts_sb_printf(b,
                 "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                 "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                 (long long)u->n_prompt, (long long)u->n_made, (long long)(u->n_prompt + u->n_made),
                 (long long)u->n_cached);
}

static double over(double a, double b)
{
    return b > 0 ? a / b : 0;
}

void ts_timings_write(const ts_gen_usage *u, ts_sb *b)
{
    const double prompt = (double)(u->n_prompt - u->n_cached), made = (double)u->n_made;
    /* the first token comes with the prompt */
    const double after = u->n_made > 1 ? made - 1 : 0;
    ts_sb_printf(b,
                 "\"timings\":{\"cache_n\":%lld,\"prompt_n\":%lld,\"prompt_ms\":%.3f,"
                 "\"prompt_per_token_ms\":%.3f,\"prompt_per_second\":%.3f,\"predicted_n\":%lld,"
                 "\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.3f,"
                 "\"predicted_per_second\":%.3f,\"wait_ms\":%.3f}",
                 (long long)u->n_cached, (long long)(u->n_prompt - u->n_cached), 1e3 * u->prefill,
                 1e3 * over(u->prefill, prompt), over(prompt, u->prefill), (long long)u->n_made,
                 1e3 * u->decode, 1e3 * over(u->decode, after), over(after, u->decode),
                 1e3 * u->wait);
}

/* embedding.c - the last hidden state of each input, scaled to length 1. */
#include <math.h>
#include <string.h>

#include "job.h"

static void scale(float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i] * v[i];
    const double by = sum > 0 && isfinite(sum) ? 1 / sqrt(sum) : 0;
    for (size_t i = 0; i < n; i++)
        v[i] = by > 0 ? (float)(v[i] * by) : 0;
}

static void add_base64(ts_sb *b, const unsigned char *p, size_t n)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char four[4];
    for (size_t i = 0; i < n; i += 3) {
        size_t k = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)p[i] << 16 | (k > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (k > 2 ? (uint32_t)p[i + 2] : 0);
        for (int d = 0; d < 4; d++)
            four[d] = (size_t)d <= k ? letters[v >> (18 - 6 * d) & 63] : '=';
        ts_sb_add(b, four, 4);
    }
}

static void add_one(ts_choice *c, size_t n, ts_sb *b)
{
    scale(c->embedding, n);
    ts_sb_printf(b, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", c->index ? "," : "",
                 c->index);
    if (c->job->request.base64) {
        ts_sb_str(b, "\"");
        add_base64(b, (const unsigned char *)c->embedding, n * sizeof *c->embedding);
        ts_sb_str(b, "\"}");
        return;
    }
    for (size_t i = 0; i < n; i++)
        ts_sb_printf(b, "%s%.9g", i ? "," : "[", (double)c->embedding[i]);
    ts_sb_str(b, "]}");
}

void ts_embedding_write(ts_job *j, ts_sb *b)
{
    const char *name = j->service->names[0];
    ts_gen_usage u;
    ts_sb_str(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < j->n_choices; i++)
        add_one(&j->choices[i], (size_t)j->service->info.n_embd, b);
    ts_job_usage(j, &u);
    ts_sb_str(b, "],\"model\":");
    ts_sb_json_str(b, name, strlen(name));
    ts_sb_printf(b, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}",
                 (long long)u.n_prompt, (long long)u.n_prompt);
}

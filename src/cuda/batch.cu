/* batch.cu - what a batch brings from the host: its sizes, written by a kernel whose arguments are
 * taken when it is queued, so that the host may go on at once; of spans, the table of them; and
 * rows of floats, which a kernel reads itself: a copy would stand behind all the weights that the
 * copy engine has been asked for. */
#include <string.h>

#include "cuda/spans.h"
#include "cuda/standin.h"

static __global__ void set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0)
{
    ts_in_turn();
    b->m = m;
    b->m_out = m_out;
    b->pos0 = pos0;
    b->zero = 0;
}

extern "C" int ts_cuda_set_batch(ts_cuda_batch *b, int32_t m, int32_t m_out, int32_t pos0,
                                 void *stream)
{
    TS_LAUNCH(set_batch, dim3(1), dim3(1), 0, stream, b, m, m_out, pos0);
    return ts_launch_error();
}

enum { THREADS = 256, PER = 4 };

/* A thread has PER floats: one load, which begins before the kernels before this one have ended. */
static __global__ void pull(float *dst, const float *src, int64_t n)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * PER;
    float v[PER];
    ts_let_next();
    if (i + PER <= n)
        *(float4 *)v = *(const float4 *)(src + i);
    ts_wait_previous();
    if (i + PER <= n && (uintptr_t)(dst + i) % sizeof(float4) == 0) {
        *(float4 *)(dst + i) = *(float4 *)v;
        return;
    }
    for (int j = 0; j < PER && i + j < n; j++)
        dst[i + j] = src[i + j];
}

extern "C" int ts_cuda_pull(float *dst, const float *src, int64_t n, void *stream)
{
    if (n <= 0)
        return 0;
    const unsigned blocks = (unsigned)((n + THREADS * PER - 1) / (THREADS * PER));
    TS_LAUNCH(pull, dim3(blocks), dim3(THREADS), 0, stream, dst, src, n);
    return ts_launch_error();
}

enum { PUSHERS = 512 };

/* One block, which sees the end of all its writes: for the few rows that a step leaves. */
static __global__ void push(ts_cuda_pushed p, uint32_t *flag, uint32_t value)
{
    ts_in_turn();
    for (int j = 0; j < TS_CUDA_PUSHED; j++) {
        const float *src = p.part[j].src;
        float *dst = p.part[j].dst;
        const int64_t n = p.part[j].n;
        const bool wide = ((uintptr_t)src | (uintptr_t)dst) % sizeof(float4) == 0;
        int64_t i = (int64_t)threadIdx.x * PER;
        for (; wide && i + PER <= n; i += PUSHERS * PER)
            *(float4 *)(dst + i) = *(const float4 *)(src + i);
        for (; i < n; i += PUSHERS * PER)
            for (int64_t k = i; k < n && k < i + PER; k++)
                dst[k] = src[k];
    }
    __syncthreads();
    if (threadIdx.x == 0)
        ts_publish(flag, value);
}

extern "C" int ts_cuda_push(const ts_cuda_pushed *p, uint32_t *flag, uint32_t value, void *stream)
{
    TS_LAUNCH(push, dim3(1), dim3(PUSHERS), 0, stream, *p, flag, value);
    return ts_launch_error();
}

/* --- the table of spans ------------------------------------------------------- */

extern "C" void ts_cuda_spans_at(ts_cuda_spans *s, const ts_cuda_room *room, int32_t *host,
                                 const ts_cuda_batch *dev)
{
    const ts_cuda_layout l = ts_cuda_layout_of(room);
    const int32_t *there = (const int32_t *)dev;
    *s = ts_cuda_spans{};
    s->room = *room;
    s->host = host;
    memset(host, 0, (size_t)l.end * sizeof *host); /* it is sent where it has nothing, too */
    s->pos = there + l.pos;
    s->place = there + l.place;
    s->out = there + l.out;
    s->tokens = (const ts_cuda_token *)(there + l.tokens);
    s->spans = (const ts_cuda_span *)(there + l.spans);
    s->tile = (const ts_cuda_tile *)(there + l.tiles);
    s->here = (ts_cuda_span *)(host + l.spans);
}

extern "C" void ts_cuda_spans_begin(ts_cuda_spans *s, int64_t m, const int32_t *out, int64_t m_out)
{
    const ts_cuda_layout l = ts_cuda_layout_of(&s->room);
    const ts_cuda_batch b = {(int32_t)m, (int32_t)m_out, 0, 0};
    memcpy(s->host, &b, sizeof b);
    if (m_out)
        memcpy(s->host + l.out, out, (size_t)m_out * sizeof *out);
    s->n = s->tiles = s->used = 0;
}

/* Their order is by length, which nothing depends on but launches; equal ones stay as they come. */
extern "C" void ts_cuda_spans_add(ts_cuda_spans *s, int64_t r0, int64_t m, int64_t pos0,
                                  const int32_t *map)
{
    const ts_cuda_layout l = ts_cuda_layout_of(&s->room);
    /* maps go to their places at the end, when it is known where they begin */
    const ts_cuda_span x = {(int32_t)r0, (int32_t)m, (int32_t)pos0, (int32_t)s->used};
    const int64_t pages = (pos0 + m + TS_CUDA_PAGE - 1) / TS_CUDA_PAGE;
    int32_t *pos = s->host + l.pos + r0, *place = s->host + l.place + r0;
    int32_t *to = s->host + l.end + s->used;
    int64_t at = s->n++;
    for (int64_t i = 0; i < pages; i++)
        to[i] = map ? map[i] : (int32_t)i;
    s->used += pages;
    for (int64_t i = 0; i < m; i++) {
        const int64_t p = pos0 + i;
        pos[i] = (int32_t)p;
        place[i] = to[p / TS_CUDA_PAGE] * TS_CUDA_PAGE + (int32_t)(p % TS_CUDA_PAGE);
    }
    for (; at > 0 && s->here[at - 1].m > x.m; at--)
        s->here[at] = s->here[at - 1];
    s->here[at] = x;
}

/* Tiles and tokens of the spans that one launch decodes. */
static void put_launch(ts_cuda_spans *s, const ts_cuda_layout &l, int64_t first, int64_t end,
                       int64_t token)
{
    ts_cuda_tile *tile = (ts_cuda_tile *)(s->host + l.tiles);
    ts_cuda_token *tokens = (ts_cuda_token *)(s->host + l.tokens) + token;
    int32_t at = 0;
    for (int64_t i = first; i < end; at += s->here[i++].m) {
        const ts_cuda_span *x = &s->here[i];
        for (int32_t r = 0; r < x->m * s->room.group; r += TS_CUDA_TILE_ROWS)
            tile[s->tiles++] = ts_cuda_tile{*x, r, at, {0, 0}};
        for (int32_t j = 0; j < x->m; j++)
            tokens[at + j] = ts_cuda_token{x->r0 + j, x->pos0 + j};
    }
}

extern "C" void ts_cuda_spans_end(ts_cuda_spans *s)
{
    const ts_cuda_layout l = ts_cuda_layout_of(&s->room);
    int64_t maps = l.tiles, token = 0;
    for (int64_t i = 0; i < s->n && s->room.group; i++)
        if (s->here[i].m <= TS_CUDA_DECODE)
            maps += TS_CUDA_TILE_WORDS * ts_cuda_tiles(s->here[i].m, s->room.group);
    for (int64_t i = 0; i < s->n; i++)
        s->here[i].map += (int32_t)maps;
    for (int64_t i = 0, end; i < s->n && s->room.group; i = end) {
        end = ts_cuda_decoded(s, i);
        if (end == i)
            break;
        put_launch(s, l, i, end, token);
        for (int64_t j = i; j < end; j++)
            token += s->here[j].m;
    }
    memmove(s->host + maps, s->host + l.end, (size_t)s->used * sizeof *s->host);
    s->used += maps;
}

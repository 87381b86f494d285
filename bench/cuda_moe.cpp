/* bench/cuda_moe.cpp - how fast a GPU runs a mixture of experts.
 *
 *     bench_cuda_moe [TYPE...]               Q4_0 and Q4_K if none is named
 *
 * The shapes of Qwen3-30B-A3B: 128 experts, 8 of a token, width 2048, of an expert 768. Every
 * token's experts are chosen at random. All in captured graphs, over as many layers as no cache
 * holds; microseconds of one layer, and what that is of what it reads or computes:
 *
 *     decode    1 .. 8 tokens: gate and up joined, down; bytes of the pairs' weights
 *     prefill   gate and up, down, of tokens sorted by expert
 *
 * and what surrounds them: the router's choice, sorting, the weighted sum. Nothing is checked. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <vector>

#include "cuda_time.h"
#include "cuda/moe.h"
#include "cuda/standin.h"

extern "C" {
#include "gguf/type.h"
}

enum { E = 128, USED = 8, D = 2048, FF = 768, TOKENS = 2048, PAIRS = TOKENS * USED };

template <class T> static T *device(size_t n)
{
    T *p;
    must(cudaMalloc(&p, n * sizeof(T)));
    must(cudaMemset(p, 0, n * sizeof(T)));
    return p;
}

/* What a layer works on, for up to TOKENS tokens. */
struct memory {
    uint8_t *w = device<uint8_t>(arena + 4096);
    ts_cuda_batch *batch = device<ts_cuda_batch>(1);
    float *logits = device<float>(TOKENS * E), *weight = device<float>(PAIRS);
    int32_t *id = device<int32_t>(PAIRS), *order = device<int32_t>(PAIRS);
    int32_t *place = device<int32_t>(PAIRS), *offset = device<int32_t>(E + 1);
    float *x = device<float>(TOKENS * 4096), *y = device<float>((size_t)PAIRS * D);
    float *out = device<float>(TOKENS * D);
    uint16_t *x16 = device<uint16_t>(TOKENS * 4096), *h16 = device<uint16_t>(PAIRS * FF);
    uint8_t *act = device<uint8_t>(ts_cuda_act_bytes(64, 4096));

    static constexpr size_t arena = (size_t)3 << 30;

    memory(void)
    {
        std::vector<float> random((size_t)TOKENS * E);
        uint64_t s = 1;
        for (float &f : random) {
            s = s * 6364136223846793005u + 1442695040888963407u;
            f = (float)(s >> 40) * 0x1p-24f;
        }
        must(cudaMemcpy(logits, random.data(), random.size() * 4, cudaMemcpyHostToDevice));
        must(cudaMemset(w, 0x29, arena));
    }
    ts_cuda_chosen chosen(void) const
    {
        return ts_cuda_chosen{id, weight, USED};
    }
    /* m tokens, routed and sorted; what launches are made for. */
    ts_cuda_on begin(int m, const ts_cuda_router &r)
    {
        const ts_cuda_on on = {batch, false, m, NULL, NULL};
        const ts_cuda_batch b = {m, m, 0, 0};
        must(cudaMemcpy(batch, &b, sizeof b, cudaMemcpyHostToDevice));
        must(ts_cuda_route(&on, chosen(), ts_cuda_rows{logits, E}, &r));
        must(ts_cuda_group(&on, offset, order, place, chosen(), E, USED));
        must(cudaDeviceSynchronize());
        return on;
    }
};

static ts_cuda_router router(void)
{
    ts_cuda_router r = {};
    r.n_expert = E;
    r.n_used = USED;
    r.gating = TS_CUDA_SOFTMAX;
    r.renorm = true;
    r.scale = 1;
    return r;
}

/* The stacks of a layer, one after the other in the arena. */
struct layer {
    ts_cuda_experts up, down;
    size_t stack; /* bytes */
    int count;    /* of layers in the arena */
    bool floats;

    layer(const memory &d, uint32_t type, int i) : up(), down()
    {
        const ts_type_info *t = ts_type_get(type);
        const size_t row = (size_t)(D / t->block) * (size_t)t->bytes;
        stack = ((size_t)E * FF * row + 255) / 256 * 256;
        count = (int)(d.arena / (3 * stack));
        floats = t->act == TS_ACT_F32;
        const uint8_t *w = d.w + (size_t)(i % (count ? count : 1)) * 3 * stack;
        up.type = down.type = type;
        up.join = TS_CUDA_SILU;
        up.w = w;
        up.v = w + stack;
        down.w = w + 2 * stack;
        up.n_expert = down.n_expert = E;
        up.n_used = down.n_used = USED;
        up.n = down.k = FF;
        up.k = down.n = D;
    }
};

static void bench_decode(memory &d, uint32_t type)
{
    const ts_type_info *t = ts_type_get(type);
    for (int m = 1; m <= 8; m *= 2) {
        const ts_cuda_on on = d.begin(m, router());
        const int layers = layer(d, type, 0).count < 12 ? 12 : 24;
        const double bytes = (double)layer(d, type, 0).stack / E * m * USED;
        auto run = [&](int i, cudaStream_t stream, bool up, bool down) {
            const layer l(d, type, i);
            ts_cuda_on at = on;
            at.stream = stream;
            const void *x = l.floats ? (const void *)d.x : d.act;
            if (up)
                must(
                    ts_cuda_expert_mul(&at, &l.up, ts_cuda_rows{d.y, FF}, d.chosen(), x, D, false));
            if (up && down && !l.floats)
                must(ts_cuda_prep(d.act, d.y, FF, NULL, 0, m * USED, FF, stream));
            if (down)
                must(ts_cuda_expert_mul(&at, &l.down, ts_cuda_rows{d.y, D}, d.chosen(), x, FF,
                                        true));
        };
        const double up =
            time_graph(layers, [&](int i, cudaStream_t s) { run(i, s, true, false); });
        const double down =
            time_graph(layers, [&](int i, cudaStream_t s) { run(i, s, false, true); });
        const double all =
            time_graph(layers, [&](int i, cudaStream_t s) { run(i, s, true, true); });
        printf("%-7s decode %d: gate, up %6.1f us %5.0f GB/s | down %6.1f us %5.0f GB/s | with the "
               "activations between them %6.1f us %5.0f GB/s\n",
               t->name, m, up, 2 * bytes / up * 1e-3, down, bytes / down * 1e-3, all,
               3 * bytes / all * 1e-3);
    }
}

static void bench_prefill(memory &d, uint32_t type)
{
    const ts_type_info *t = ts_type_get(type);
    for (int m : {16, 64, 512, 2048}) {
        d.begin(m, router());
        const double flop = 2.0 * m * USED * D * FF;
        auto run = [&](int i, cudaStream_t stream, bool is_up) {
            const layer l(d, type, i);
            ts_cuda_expert_gemm_args a = {};
            a.experts = is_up ? l.up : l.down;
            a.offset = d.offset;
            a.order = is_up ? d.order : NULL;
            a.x = is_up ? d.x16 : d.h16;
            a.ldx = is_up ? D : FF;
            a.y = d.y;
            a.ldy = is_up ? FF : D;
            a.m = m;
            must(ts_cuda_expert_gemm(&a, stream));
        };
        const double up = time_graph(12, [&](int i, cudaStream_t s) { run(i, s, true); });
        const double down = time_graph(12, [&](int i, cudaStream_t s) { run(i, s, false); });
        const double all = time_graph(12, [&](int i, cudaStream_t s) {
            run(i, s, true);
            run(i, s, false);
        });
        printf("%-7s prefill %4d: gate, up %7.1f us %5.0f TFLOPS | down %7.1f us %5.0f TFLOPS | "
               "both %7.1f us %5.0f TFLOPS, %5.0f GB/s of all experts\n",
               t->name, m, up, 2 * flop / up * 1e-6, down, flop / down * 1e-6, all,
               3 * flop / all * 1e-6, 3 * (double)layer(d, type, 0).stack / all * 1e-3);
    }
}

static void bench_around(memory &d)
{
    const ts_cuda_router r = router();
    for (int m : {1, 8, 512, 2048}) {
        ts_cuda_on on = d.begin(m, r);
        const double route = time_graph(20, [&](int, cudaStream_t s) {
            on.stream = s;
            must(ts_cuda_route(&on, d.chosen(), ts_cuda_rows{d.logits, E}, &r));
        });
        const double group = time_graph(20, [&](int, cudaStream_t s) {
            on.stream = s;
            must(ts_cuda_group(&on, d.offset, d.order, d.place, d.chosen(), E, USED));
        });
        const double sum = time_graph(20, [&](int, cudaStream_t s) {
            on.stream = s;
            must(ts_cuda_expert_sum(&on, ts_cuda_rows{d.out, D}, ts_cuda_rows{d.out, D},
                                    ts_cuda_rows{d.y, D}, d.chosen(), d.place, USED, D));
        });
        printf("%4d tokens: route %5.1f us, sort %5.1f us, sum %5.1f us\n", m, route, group, sum);
    }
}

int main(int argc, char **argv)
{
    memory d;
    bench_around(d);
    for (int type = 0; type < TS_TYPE_COUNT; type++) {
        const ts_type_info *t = ts_type_get((uint32_t)type);
        bool wanted = argc == 1 && (type == TS_TYPE_Q4_0 || type == TS_TYPE_Q4_K);
        for (int i = 1; i < argc && t; i++)
            wanted = wanted || strcasecmp(argv[i], t->name) == 0;
        if (!t || !wanted)
            continue;
        bench_decode(d, (uint32_t)type);
        bench_prefill(d, (uint32_t)type);
    }
    return 0;
}

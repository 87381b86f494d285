/* cuda_spans.h - batches of several timelines, for tests of kernels: pages in any order, rows of
 * timelines in any order, room for more than there is. Behind what has `must`. */
#ifndef TS_CUDA_SPANS_TEST_H
#define TS_CUDA_SPANS_TEST_H

#include <vector>

#include "check.h"
#include "cuda/spans.h"
#include "cuda/standin.h"

struct timeline {
    int64_t m, pos0; /* tokens of the batch, and where the first stands */
    int64_t r0;      /* row of it in the batch */
    std::vector<int32_t> map;

    int64_t end(void) const
    {
        return pos0 + m;
    }
    int64_t place(int64_t pos) const
    {
        return (int64_t)map[(size_t)(pos / TS_CUDA_PAGE)] * TS_CUDA_PAGE + pos % TS_CUDA_PAGE;
    }
};

template <class T> static void shuffle(std::vector<T> &v, uint64_t *seed)
{
    for (size_t i = v.size(); i > 1; i--)
        std::swap(v[i - 1], v[(size_t)(rnd_u64(seed) % i)]);
}

struct company {
    std::vector<timeline> of;
    int64_t m = 0, n_ctx;
    std::vector<int64_t> pos, place; /* of the rows */
    std::vector<int32_t> out;
    std::vector<int32_t> host;
    void *dev = NULL;
    ts_cuda_spans spans;

    /* Each of {m, pos0}. Some pages are nobody's. */
    company(const std::vector<std::pair<int64_t, int64_t>> &sizes, int64_t group, uint64_t *seed)
    {
        int64_t pages = 0;
        std::vector<int32_t> page;
        std::vector<size_t> order;
        for (const auto &s : sizes) {
            order.push_back(of.size());
            of.push_back(timeline{s.first, s.second, 0, {}});
            pages += (s.first + s.second + TS_CUDA_PAGE - 1) / TS_CUDA_PAGE;
        }
        for (int32_t i = 0; i < pages + 3; i++)
            page.push_back(i);
        n_ctx = (int64_t)page.size() * TS_CUDA_PAGE;
        shuffle(page, seed);
        shuffle(order, seed);
        for (timeline &t : of)
            for (int64_t i = 0; i * TS_CUDA_PAGE < t.end(); i++, page.pop_back())
                t.map.push_back(page.back());
        for (size_t i : order) {
            of[i].r0 = m;
            m += of[i].m;
            for (int64_t p = of[i].pos0; p < of[i].end(); p++) {
                pos.push_back(p);
                place.push_back(of[i].place(p));
            }
        }
        for (int32_t r = 0; r < m; r++)
            if (rnd_u64(seed) % 3 == 0 || r == m - 1)
                out.push_back(r);
        const ts_cuda_room room = {m + 5, (int64_t)of.size() + 2, pages + 4, group};
        const size_t bytes = ts_cuda_spans_bytes(&room);
        host.resize(bytes / sizeof(int32_t), -1);
        must(cudaMalloc(&dev, bytes), "cudaMalloc");
        must(cudaMemset(dev, 0xff, bytes), "cudaMemset");
        ts_cuda_spans_at(&spans, &room, host.data(), (const ts_cuda_batch *)dev);
        send(order);
    }
    company(const company &) = delete;
    company &operator=(const company &) = delete;
    ~company()
    {
        cudaFree(dev);
    }
    void send(const std::vector<size_t> &order)
    {
        ts_cuda_spans_begin(&spans, m, out.data(), (int64_t)out.size());
        for (size_t i : order)
            ts_cuda_spans_add(&spans, of[i].r0, of[i].m, of[i].pos0, of[i].map.data());
        ts_cuda_spans_end(&spans);
        CHECK((size_t)spans.used <= host.size());
        must(cudaMemcpy(dev, host.data(), (size_t)spans.used * sizeof(int32_t),
                        cudaMemcpyHostToDevice),
             "table");
    }
    ts_cuda_on on(bool of_out) const
    {
        return ts_cuda_on{(const ts_cuda_batch *)dev, of_out, of_out ? (int64_t)out.size() : m,
                          NULL, &spans};
    }
};

#endif

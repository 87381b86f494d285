/* What src/cuda makes of packed weights, on a GPU or over the stand-in, against the rows that
 * kernel sets packed and what they unpack themselves: every set that packs, with real instructions
 * where this CPU has them, and with the stand-in for wide ones.
 *
 *     test_cuda_unpack [SEED]
 *
 * Outputs lie among poison that must stay; packed weights end where their memory ends, so that a
 * sanitizer sees what is read behind them. */
#include <string.h>

#include <memory>
#include <vector>

#include "check.h"
#include "cuda/standin.h"
#include "cuda/unpack.h"

extern "C" {
#include "base/cpu.h"
#include "cpu/kset.h"
#include "kset_standins.h"
}

static uint64_t seed = 1;

static void must(int e, const char *what)
{
    CHECK_MSG(e == 0, "%s: %s", what, cudaGetErrorString((cudaError_t)e));
    if (e)
        exit(1);
}

/* Bytes of device memory. */
struct memory {
    uint8_t *dev = NULL;
    size_t n;

    explicit memory(size_t n_) : n(n_)
    {
        must(cudaMalloc(&dev, n), "cudaMalloc");
    }
    memory(const memory &) = delete;
    memory &operator=(const memory &) = delete;
    ~memory()
    {
        cudaFree(dev);
    }
    void up(const uint8_t *from, size_t bytes)
    {
        must(cudaMemcpy(dev, from, bytes, cudaMemcpyHostToDevice), "up");
    }
    std::vector<uint8_t> down(void)
    {
        std::vector<uint8_t> to(n);
        must(cudaDeviceSynchronize(), "kernel");
        must(cudaMemcpy(to.data(), dev, n, cudaMemcpyDeviceToHost), "down");
        return to;
    }
};

/* 64-byte aligned, as packed weights are. */
struct packed_matrix {
    uint8_t *p = NULL;
    size_t bytes;

    packed_matrix(const ts_kset *s, const uint8_t *src, int64_t n, int64_t k)
        : bytes(s->packed_bytes(n, k))
    {
        if (posix_memalign((void **)&p, 64, bytes) != 0)
            exit(2);
        s->pack(p, src, n, k, 0, n);
    }
    packed_matrix(const packed_matrix &) = delete;
    packed_matrix &operator=(const packed_matrix &) = delete;
    ~packed_matrix()
    {
        free(p);
    }
};

/* One packed matrix of random bytes, unpacked in many ways. */
static void test_matrix(const ts_kset *s, int64_t n, int64_t k)
{
    enum { AROUND = 256, POISON = 0x5a };
    const int64_t group = s->group;
    const size_t row = ts_row_bytes(ts_type_get(s->type), k);
    std::vector<uint8_t> src((size_t)n * row);
    for (uint8_t &b : src)
        b = (uint8_t)(rnd_u64(&seed) >> 56);
    packed_matrix packed(s, src.data(), n, k);
    /* The CPU's own unpacking gives the same. */
    std::vector<uint8_t> back(src.size());
    s->unpack(back.data(), packed.p, n, k, 0, n);
    CHECK(back == src);
    memory w((packed.bytes + 15) / 16 * 16);
    w.up(packed.p, packed.bytes);

    const int64_t last = (n - 1) / group * group; /* the last group */
    const int64_t ranges[][2] = {{0, n},        {last, n},     {0, last}, {group, n},
                                 {group, last}, {last, n - 1}, {0, n / 2}};
    for (const int64_t *range : ranges) {
        const int64_t n0 = range[0], n1 = range[1];
        if (n0 > n1 || n0 >= n)
            continue;
        const size_t bytes = (size_t)(n1 - n0) * row;
        std::vector<uint8_t> want(AROUND + bytes + AROUND, POISON);
        memory dst(want.size());
        dst.up(want.data(), want.size());
        must(ts_cuda_unpack(dst.dev + AROUND, w.dev, s->packing, n, k, n0, n1, NULL), "unpack");
        if (bytes)
            memcpy(want.data() + AROUND, src.data() + (size_t)n0 * row, bytes);
        const std::vector<uint8_t> got = dst.down();
        size_t wrong = 0, first = 0;
        for (size_t i = want.size(); i-- > 0;)
            if (got[i] != want[i]) {
                wrong++;
                first = i;
            }
        CHECK_MSG(!wrong, "%s/%s n=%lld k=%lld rows %lld..%lld: %zu bytes wrong, the first is %lld",
                  s->layout, ts_isa_name(s->isa), (long long)n, (long long)k, (long long)n0,
                  (long long)n1, wrong, (long long)first - AROUND);
    }
}

/* Matrices of a stack, one after the other, to places of which some stay as they are. */
static void test_matrices(const ts_kset *s, int64_t n, int64_t k)
{
    enum { AROUND = 256, POISON = 0x5a, PLACES = 7 };
    static const int32_t at[] = {5, 0, 3, 2};
    const size_t one = (size_t)n * ts_row_bytes(ts_type_get(s->type), k);
    std::vector<uint8_t> src(4 * one), want(AROUND + PLACES * one + AROUND, POISON);
    for (uint8_t &b : src)
        b = (uint8_t)(rnd_u64(&seed) >> 56);
    packed_matrix packed(s, src.data(), 4 * n, k);
    memory w((packed.bytes + 15) / 16 * 16), dst(want.size());
    w.up(packed.p, packed.bytes);
    for (int64_t count = 0; count <= 4; count++) {
        memset(want.data(), POISON, want.size());
        dst.up(want.data(), want.size());
        must(ts_cuda_unpack_matrices(dst.dev + AROUND, w.dev, s->packing, n, k, at, count, NULL),
             "unpack matrices");
        for (int64_t i = 0; i < count; i++)
            memcpy(want.data() + AROUND + (size_t)at[i] * one, src.data() + (size_t)i * one, one);
        CHECK_MSG(dst.down() == want, "%s/%s n=%lld k=%lld: %lld matrices", s->layout,
                  ts_isa_name(s->isa), (long long)n, (long long)k, (long long)count);
    }
    CHECK(ts_cuda_unpack_matrices(dst.dev, w.dev, s->packing, n - 1, k, at, 1, NULL) ==
          cudaErrorInvalidValue);
    CHECK(ts_cuda_unpack_matrices(dst.dev, w.dev, s->packing, n, k, at, 33, NULL) ==
          cudaErrorInvalidValue);
}

/* Some matrices of three stacks, packed alike or not, whose numbers only the GPU knows; those that
 * no stack has are left out. */
static void test_fetch(const ts_kset *const s[3], int64_t unit)
{
    enum { AROUND = 256, POISON = 0x5a, PLACES = 6, COUNT = 5 };
    static const int32_t id[COUNT] = {5, 0, PLACES, -1, 3};
    memory ids(sizeof id);
    std::unique_ptr<memory> w[3], dst[3];
    std::vector<uint8_t> want[3];
    ts_cuda_fetched f[3];
    ids.up((const uint8_t *)id, sizeof id);
    for (int i = 0; i < 3; i++) {
        const int64_t n = 16 * (1 + (int64_t)(rnd_u64(&seed) % 3));
        const int64_t k = unit * (1 + (int64_t)(rnd_u64(&seed) % 5));
        const size_t one = (size_t)n * ts_row_bytes(ts_type_get(s[i]->type), k);
        std::vector<uint8_t> src(PLACES * one);
        for (uint8_t &b : src)
            b = (uint8_t)(rnd_u64(&seed) >> 56);
        packed_matrix packed(s[i], src.data(), PLACES * n, k);
        want[i].assign(AROUND + PLACES * one + AROUND, POISON);
        w[i].reset(new memory((packed.bytes + 15) / 16 * 16));
        dst[i].reset(new memory(want[i].size()));
        w[i]->up(packed.p, packed.bytes);
        dst[i]->up(want[i].data(), want[i].size());
        f[i] = ts_cuda_fetched{dst[i]->dev + AROUND, w[i]->dev, s[i]->packing, n, k};
        for (int32_t x : id)
            if (x >= 0 && x < PLACES)
                memcpy(want[i].data() + AROUND + (size_t)x * one, src.data() + (size_t)x * one,
                       one);
    }
    must(ts_cuda_fetch(f, 3, (const int32_t *)ids.dev, COUNT, PLACES, NULL), "fetch");
    for (int i = 0; i < 3; i++)
        CHECK_MSG(dst[i]->down() == want[i], "%s/%s n=%lld k=%lld: fetched as stack %d",
                  s[i]->layout, ts_isa_name(s[i]->isa), (long long)f[i].n, (long long)f[i].k, i);
    CHECK(ts_cuda_fetch(f, 4, (const int32_t *)ids.dev, 1, PLACES, NULL) == cudaErrorInvalidValue);
    CHECK(ts_cuda_fetch(f, 3, (const int32_t *)ids.dev, 33, PLACES, NULL) == cudaErrorInvalidValue);
    f[2].n--;
    CHECK(ts_cuda_fetch(f, 3, (const int32_t *)ids.dev, 1, PLACES, NULL) == cudaErrorInvalidValue);
}

/* Each set with two that come before it, of any type. */
static void test_fetches(const std::vector<const ts_kset *> &sets)
{
    for (size_t i = 0; i < sets.size(); i++) {
        const ts_kset *s[3] = {sets[i], sets[rnd_u64(&seed) % (i + 1)],
                               sets[rnd_u64(&seed) % (i + 1)]};
        test_fetch(s, 256);
    }
}

static void test_set(const ts_kset *s)
{
    const ts_type_info *info = ts_type_get(s->type);
    CHECK_MSG(!s->packed_bytes == !s->packing, "%s: a packing that isn't told", info->name);
    if (!s->packing)
        return;
    CHECK_MSG(s->packing->rows == s->group, "%s: rows", info->name);
    static const int64_t ns[] = {1, 5, 8, 13, 16, 23, 37, 48, 50};
    /* One block; rows whose ends are at any address; several runs of blocks. */
    static const int64_t of_32[] = {1, 2, 3, 13, 128, 131, 193};
    static const int64_t of_256[] = {1, 2, 3, 5, 16, 21, 56};
    static const int64_t of_floats[] = {1, 7, 32, 45, 62, 600, 4100};
    const int64_t *ks = info->block == 1 ? of_floats : info->block == 32 ? of_32 : of_256;
    for (int i = 0; i < 7; i++)
        test_matrix(s, ns[rnd_u64(&seed) % 9], ks[i] * info->block);
    for (int64_t n : ns)
        test_matrix(s, n, ks[rnd_u64(&seed) % 7] * info->block);
    for (int64_t n : {16, 48}) /* whole groups of all kernel sets */
        test_matrices(s, n, ks[rnd_u64(&seed) % 7] * info->block);
}

/* What is refused. */
static void test_refused(const ts_packing *p)
{
    const int64_t k = 4 * p->block;
    ts_packing other = *p;
    memory m(1 << 16);
    auto unpack = [&](const ts_packing *how, int64_t n, int64_t k_, int64_t n0, int64_t n1) {
        return ts_cuda_unpack(m.dev, m.dev + (1 << 15), how, n, k_, n0, n1, NULL);
    };
    CHECK(unpack(p, 32, k, 0, 32) == 0);
    CHECK(unpack(p, 32, k, 4, 32) == cudaErrorInvalidValue);
    CHECK(unpack(p, 32, k, 0, 33) == cudaErrorInvalidValue);
    CHECK(unpack(p, 32, k, -16, 32) == cudaErrorInvalidValue);
    CHECK(unpack(p, 32, k + p->block / 2, 0, 32) == cudaErrorInvalidValue);
    CHECK(unpack(p, 32, 0, 0, 32) == cudaErrorInvalidValue);
    other.rows = 4;
    CHECK(unpack(&other, 32, k, 0, 32) == cudaErrorInvalidValue);
    other = *p;
    other.field[0].kind = TS_PACK_FLOATS + 1;
    CHECK(unpack(&other, 32, k, 0, 32) == cudaErrorInvalidValue);
    other = *p;
    other.field[1].count = 0;
    CHECK(unpack(&other, 32, k, 0, 32) == cudaErrorInvalidValue);
    other = *p;
    other.rows = 8; /* in pairs of rows there are 16 */
    CHECK(unpack(&other, 32, k, 0, 32) == cudaErrorInvalidValue);
    must(cudaDeviceSynchronize(), "kernel");
}

static bool have_gpu(void)
{
#ifndef TS_CUDA_STANDIN
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || !n)
        return false;
#endif
    return true;
}

int main(int argc, char **argv)
{
    if (!have_gpu()) {
        printf("no GPU: skipped\n");
        return 77;
    }
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    printf("seed 0x%llx\n", (unsigned long long)seed);
    int real = 0;
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *s = ts_kset_at(i);
        if (ts_isa_usable(ts_cpu_get(), s->isa, NULL)) {
            test_set(s);
            real++;
        }
    }
    std::vector<const ts_kset *> packed;
    for (size_t i = 0; i < ts_kset_count(); i++)
        if (ts_isa_usable(ts_cpu_get(), ts_kset_at(i)->isa, NULL) && ts_kset_at(i)->packing)
            packed.push_back(ts_kset_at(i));
    for (const ts_kset *s : standins) {
        test_set(s);
        if (s->packing)
            packed.push_back(s);
    }
    test_fetches(packed);
    printf("%d sets of this CPU, %zu with the stand-in\n", real,
           sizeof standins / sizeof *standins);
    test_refused(standins[0]->packing);
    return check_done("cuda_unpack");
}

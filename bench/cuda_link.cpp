/* How fast weights of host memory come to this GPU, the two ways there are: from memory that is
 * pinned itself, as packed weights are when they are streamed, and from a mapped file that threads
 * copy into a ring of pinned pieces.
 *
 *     nvcc -std=c++17 -O3 -arch=native bench/cuda_link.cpp -x cu -o bench_cuda_link
 *     bench_cuda_link FILE        of 1 GiB or more, in the page cache; made if it isn't there */
#include <cuda_runtime.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

static const size_t PIECE = (size_t)8 << 20, BYTES = (size_t)1 << 30;

static void must(int e)
{
    if (!e)
        return;
    fprintf(stderr, "%s\n", cudaGetErrorString((cudaError_t)e));
    exit(1);
}

static double now(void)
{
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

/* GB/s, the median of several runs after one. */
template <class F> static double rate(F run)
{
    std::vector<double> s;
    run();
    for (int i = 0; i < 5; i++) {
        const double t0 = now();
        run();
        s.push_back(now() - t0);
    }
    std::sort(s.begin(), s.end());
    return 1e-9 * (double)BYTES / s[s.size() / 2];
}

/* Every n-th piece, through two pinned ones: while one is copied to the GPU, the other is filled.
 */
static void loader(uint8_t *gpu, const uint8_t *file, uint8_t *pinned, int t, int n)
{
    cudaStream_t stream;
    cudaEvent_t done[2];
    must(cudaStreamCreate(&stream));
    for (auto &e : done)
        must(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    int i = 0;
    for (size_t at = (size_t)t * PIECE; at < BYTES; at += (size_t)n * PIECE, i++) {
        uint8_t *piece = pinned + (size_t)(2 * t + i % 2) * PIECE;
        must(cudaEventSynchronize(done[i % 2]));
        memcpy(piece, file + at, PIECE);
        must(cudaMemcpyAsync(gpu + at, piece, PIECE, cudaMemcpyHostToDevice, stream));
        must(cudaEventRecord(done[i % 2], stream));
    }
    must(cudaStreamSynchronize(stream));
    for (auto &e : done)
        must(cudaEventDestroy(e));
    must(cudaStreamDestroy(stream));
}

static const uint8_t *map(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        perror(path);
        exit(1);
    }
    std::vector<uint8_t> block(PIECE);
    for (size_t i = 0; i < PIECE; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t at = 0; st.st_size == 0 && at < BYTES; at += PIECE)
        if (write(fd, block.data(), PIECE) != (ssize_t)PIECE) {
            perror(path);
            exit(1);
        }
    void *p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED || (st.st_size && (size_t)st.st_size < BYTES)) {
        fprintf(stderr, "%s is too small or can't be mapped\n", path);
        exit(1);
    }
    return (const uint8_t *)p;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: bench_cuda_link FILE\n");
        return 2;
    }
    enum { MOST = 16 };
    const uint8_t *file = map(argv[1]);
    uint8_t *gpu, *pinned, *arena;
    must(cudaMalloc(&gpu, BYTES));
    must(cudaMallocHost(&pinned, 2 * MOST * PIECE));
    arena =
        (uint8_t *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED) {
        perror("memory");
        return 1;
    }
    memcpy(arena, file, BYTES);
    must(cudaHostRegister(arena, BYTES, cudaHostRegisterPortable));
    printf("pinned memory, pieces of 8 MiB: %.1f GB/s\n", rate([&] {
               for (size_t at = 0; at < BYTES; at += PIECE)
                   must(cudaMemcpyAsync(gpu + at, arena + at, PIECE, cudaMemcpyHostToDevice, 0));
               must(cudaStreamSynchronize(0));
           }));
    for (int n = 1; n <= MOST; n *= 2)
        printf("mapped file through a pinned ring, %2d threads: %.1f GB/s\n", n, rate([&] {
                   std::vector<std::thread> all;
                   for (int t = 0; t < n; t++)
                       all.emplace_back(loader, gpu, file, pinned, t, n);
                   for (auto &t : all)
                       t.join();
               }));
    return 0;
}

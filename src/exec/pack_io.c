/* pack_io.c - the payload of a pack cache, read and written by all threads. */
#include "exec/pack_io.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/hash.h"
#include "exec/pack_cache.h"

#define BLOCK ((size_t)1 << 20)

typedef struct block_job {
    int fd;
    uint8_t *dst;       /* [n] to read to,    or NULL */
    const uint8_t *src; /* [n] to write from, or NULL */
    size_t n;
    ts_progress *progress;
    atomic_int_fast64_t next;
    atomic_uint_fast64_t sum;
    atomic_int error;
} block_job;

bool ts_pack_pwrite(int fd, const void *src, size_t n, uint64_t offset)
{
    for (const uint8_t *p = src; n > 0;) {
        ssize_t got = pwrite(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got < 0 ? errno : EIO;
            return false;
        }
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

static bool read_all(int fd, uint8_t *dst, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t got = pread(fd, dst, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got < 0 ? errno : EIO; /* it had all its bytes a moment ago */
            return false;
        }
        dst += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

static void run_blocks(void *arg, int tid, int n_threads)
{
    (void)n_threads;
    block_job *j = arg;
    uint64_t sum = 0;
    for (bool go = true; go;) {
        size_t i = (size_t)ts_claim(&j->next), at = i * BLOCK;
        if (at >= j->n)
            break;
        size_t n = j->n - at < BLOCK ? j->n - at : BLOCK;
        uint64_t offset = TS_PACK_PAGE + at;
        bool ok = j->dst ? read_all(j->fd, j->dst + at, n, offset)
                         : ts_pack_pwrite(j->fd, j->src + at, n, offset);
        if (!ok) {
            atomic_store(&j->error, errno);
            break;
        }
        sum += ts_hash64(j->dst ? j->dst + at : j->src + at, n, i);
        go = ts_progress_add(j->progress, tid, n) && !atomic_load(&j->error);
    }
    atomic_fetch_add(&j->sum, sum);
}

static int run(block_job *j, ts_pool *pool, uint64_t *sum)
{
    ts_pool_run(pool, run_blocks, j);
    *sum = atomic_load(&j->sum);
    return atomic_load(&j->error);
}

int ts_pack_read_blocks(int fd, ts_pool *pool, uint8_t *dst, size_t n, ts_progress *p,
                        uint64_t *sum)
{
    block_job j = {.fd = fd, .dst = dst, .n = n, .progress = p};
    return run(&j, pool, sum);
}

int ts_pack_write_blocks(int fd, ts_pool *pool, const uint8_t *src, size_t n, ts_progress *p,
                         uint64_t *sum)
{
    /* A full disk shows now, not after gigabytes; a file system that can't say so is written to. */
    if (fallocate(fd, 0, 0, (off_t)(TS_PACK_PAGE + n)) && errno == ENOSPC)
        return ENOSPC;
    block_job j = {.fd = fd, .src = src, .n = n, .progress = p};
    return run(&j, pool, sum);
}

/* test_hash.c - the checksum of the pack cache: its values, which are part of a file format, and
 * that no change of a byte escapes it. */
#include <string.h>

#include "base/hash.h"
#include "check.h"

enum { N = 300 };

static void test_changes(void)
{
    uint8_t buf[N];
    uint64_t rnd = 1;
    for (int i = 0; i < N; i++)
        buf[i] = (uint8_t)rnd_u64(&rnd);
    for (size_t n = 0; n <= N; n++) {
        uint64_t h = ts_hash64(buf, n, 7);
        CHECK_MSG(h != ts_hash64(buf, n, 8), "%zu bytes, another seed", n);
        CHECK_MSG(n == 0 || h != ts_hash64(buf, n - 1, 7), "%zu bytes, one less", n);
        for (size_t i = 0; i < n; i++)
            for (int bit = 0; bit < 8; bit += 7) {
                buf[i] ^= (uint8_t)(1 << bit);
                CHECK_MSG(h != ts_hash64(buf, n, 7), "byte %zu of %zu, bit %d", i, n, bit);
                buf[i] ^= (uint8_t)(1 << bit);
            }
    }
    /* The highest bit of a word is the one that a product can't move: two of them in one lane. */
    uint64_t h = ts_hash64(buf, N, 7);
    for (size_t gap = 1; gap < N / 64; gap++) {
        buf[7] ^= 0x80;
        buf[7 + 64 * gap] ^= 0x80;
        CHECK_MSG(h != ts_hash64(buf, N, 7), "two high bits, %zu stripes apart", gap);
        buf[7] ^= 0x80;
        buf[7 + 64 * gap] ^= 0x80;
    }
    /* Words that change places, within a lane and between lanes. */
    uint8_t swapped[N];
    for (size_t to = 1; to < N / 8; to++) {
        memcpy(swapped, buf, N);
        memcpy(swapped, buf + 8 * to, 8);
        memcpy(swapped + 8 * to, buf, 8);
        CHECK_MSG(h != ts_hash64(swapped, N, 7), "words 0 and %zu exchanged", to);
    }
}

int main(void)
{
    uint8_t zeros[N] = {0};
    /* Other values than these need another TS_PACK_FORMAT. */
    CHECK(ts_hash64(zeros, 0, 0) == UINT64_C(0xeb7f729c97db11c0));
    CHECK(ts_hash64(zeros, N, 0) == UINT64_C(0x5d49e69aafbbf409));
    CHECK(ts_hash64("a tile of a mosaic", 18, 1) == UINT64_C(0xa017dfd8fd766698));
    test_changes();
    return check_done("hash");
}

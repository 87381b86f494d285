/* hash.c - a 64-bit checksum at memory speed.
 *
 * Eight lanes of 64 bits, word i of the input goes into lane i % 8. A step, (lane ^ word) rotated
 * and multiplied by an odd number, is a bijection of the lane and of the word: what one word
 * changes, no later step can lose. The rotation brings the high bits, which a product only moves
 * up and out, back to where the next one spreads them. Eight chains of five cycles each keep the
 * multiplier busy: 8 bytes a cycle in plain x86-64. */
#include "base/hash.h"

#include <string.h>

enum { LANES = 8, STRIPE = LANES * sizeof(uint64_t) };

#define MULTIPLIER UINT64_C(0x9fb21c651e98df25)

static inline uint64_t step(uint64_t lane, uint64_t word)
{
    lane ^= word;
    return (lane << 29 | lane >> 35) * MULTIPLIER;
}

/* A bijection whose every output bit depends on every input bit (the finaliser of splitmix64). */
static uint64_t finish(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline void stripe(uint64_t lane[LANES], const uint8_t *p)
{
    uint64_t w[LANES];
    memcpy(w, p, STRIPE);
    for (int i = 0; i < LANES; i++)
        lane[i] = step(lane[i], w[i]);
}

uint64_t ts_hash64(const void *data, size_t n, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t lane[LANES];
    for (int i = 0; i < LANES; i++)
        lane[i] = finish(seed + (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15));
    size_t left = n;
    for (; left >= STRIPE; left -= STRIPE, p += STRIPE)
        stripe(lane, p);
    if (left) {
        uint8_t last[STRIPE] = {0};
        memcpy(last, p, left);
        stripe(lane, last);
    }
    uint64_t h = seed ^ n;
    for (int i = 0; i < LANES; i++)
        h = step(h, finish(lane[i]));
    return finish(h);
}

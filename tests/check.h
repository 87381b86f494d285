/* check.h - what a test program needs: checks that print where and what, random data, NMSE.
 *
 *     CHECK(cond);                          continue after a failure, count it
 *     CHECK_MSG(cond, "m=%d", m);           with the case that failed
 *     REQUIRE(cond);                        stop the program
 *     return check_done("name");            from main
 */
#ifndef TS_CHECK_H
#define TS_CHECK_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int check_failed, check_passed;

#define CHECK_MSG(cond, ...)                                                                       \
    do {                                                                                           \
        if (cond) {                                                                                \
            check_passed++;                                                                        \
        } else if (++check_failed <= 20) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s: ", __FILE__, __LINE__, #cond);                     \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)
#define CHECK(cond) CHECK_MSG(cond, "%s", "")
#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        CHECK(cond);                                                                               \
        if (check_failed)                                                                          \
            exit(1);                                                                               \
    } while (0)

static inline int check_done(const char *name)
{
    printf("%s: %d passed, %d failed\n", name, check_passed, check_failed);
    return check_failed ? 1 : 0;
}

/* Sanitizers make everything ten times slower: shorter runs of the same checks. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#ifdef __SANITIZE_THREAD__
#define WATCHED_THREADS 1 /* ThreadSanitizer: how threads meet counts, not what they compute */
#else
#define WATCHED_THREADS 0
#endif

/* splitmix64: the same stream on every machine for a seed. */
static inline uint64_t rnd_u64(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Takes into all what part holds where it isn't poison (0xff); false if something was there
 * already, so that parts that overlap are seen. */
static inline bool check_join(uint8_t *all, const uint8_t *part, size_t bytes)
{
    uint8_t both = 0;
    for (size_t i = 0; i < bytes; i++) {
        both |= (uint8_t)((all[i] != 0xff) & (part[i] != 0xff));
        all[i] &= part[i];
    }
    return !both;
}

static inline float rnd_unit(uint64_t *s) /* [0, 1) */
{
    return (float)(rnd_u64(s) >> 40) * 0x1p-24f;
}

static inline float rnd_normal(uint64_t *s)
{
    float u = 1 - rnd_unit(s), v = rnd_unit(s);
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}

/* mse(a, b) / mse(a, 0); infinite when b holds anything that isn't finite. */
static inline double nmse(const float *a, const float *b, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(b[i]))
            return INFINITY;
        num += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        den += (double)a[i] * a[i];
    }
    return den > 0 ? num / den : (num > 0 ? INFINITY : 0);
}

#endif

/* unroll.h - how the kernels say that a function must be inlined and a loop unrolled. */
#ifndef TS_KSET_UNROLL_H
#define TS_KSET_UNROLL_H

/* With the stand-in for wide instructions neither is worth the compiler's time. */
#ifdef TS_STANDIN
#define TS_INLINE static inline __attribute__((unused))
#else
#define TS_INLINE static inline __attribute__((always_inline))
#endif

/* Instrumented, the unrolled tiles would take a compiler minutes and gigabytes. */
#if defined(__has_feature)
#define TS_HAS_FEATURE(f) __has_feature(f)
#else
#define TS_HAS_FEATURE(f) 0
#endif
#if defined(TS_STANDIN) || defined(__SANITIZE_ADDRESS__) || TS_HAS_FEATURE(address_sanitizer) ||   \
    !defined(__OPTIMIZE__)
#define TS_UNROLL
#elif defined(__clang__)
#define TS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TS_UNROLL _Pragma("GCC unroll 16")
#endif

/* Makes the compiler address what follows relative to p. It likes to prepare sums of pointers ahead
 * of a loop, more than there are registers. */
#define TS_KEEP_POINTER(p) __asm__("" : "+r"(p))

/* Keeps what is addressed by p from here on from being moved before what is written before. */
#define TS_STAY(p) __asm__ volatile("" : "+r"(p))

#endif

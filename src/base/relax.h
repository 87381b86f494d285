/* relax.h - what a thread does while it looks at memory that another one, or a device, will write.
 */
#ifndef TS_RELAX_H
#define TS_RELAX_H

#if defined(__SSE2__)
#include <immintrin.h>
#endif

static inline void ts_relax(void)
{
#if defined(__SSE2__)
    _mm_pause();
#endif
}

#endif

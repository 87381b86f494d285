/* real.h - real numbers as text. */
#ifndef TS_REAL_H
#define TS_REAL_H

#include <stddef.h>

enum { TS_REAL_MAX = 40 };

/* The fewest digits that read back as v, as Python's repr writes them, whatever the locale: 0.1,
 * 1.0, 1e+16, 1.5e-05, -inf, nan. Returns their number. */
size_t ts_real_text(double v, char out[TS_REAL_MAX]);

#endif

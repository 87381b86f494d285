/* real.h - real numbers as text. */
#ifndef TS_REAL_H
#define TS_REAL_H

#include <stddef.h>

enum { TS_REAL_MAX = 40 };

/* v rounded to the fewest digits that read back as it, in the form of Python's repr, whatever the
 * locale: 0.1, 1.0, 1e+16, 1.5e-05, -inf, nan. (repr has one digit less for 46 powers of two, which
 * another number than the nearest of that length reads back as.) Returns their number. */
size_t ts_real_text(double v, char out[TS_REAL_MAX]);

#endif

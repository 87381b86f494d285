/* real.c - real numbers as text. */
#include "base/real.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The fewest digits that read back as v, and the power of ten of the first. */
static int shortest(double v, char digits[20])
{
    for (int p = 0;; p++) {
        char text[40], again[48];
        size_t k = 0;
        snprintf(text, sizeof text, "%.*e", p, v);
        char *e = strchr(text, 'e');
        for (const char *c = text; c < e; c++)
            if (*c >= '0' && *c <= '9')
                digits[k++] = *c;
        digits[k] = 0;
        int exp = atoi(e + 1);
        snprintf(again, sizeof again, "%se%d", digits, exp - p);
        if (p == 16 || strtod(again, NULL) == v)
            return exp;
    }
}

size_t ts_real_text(double v, char out[TS_REAL_MAX])
{
    char d[20];
    const char *sign = signbit(v) && !isnan(v) ? "-" : "";
    if (isnan(v) || isinf(v))
        return (size_t)snprintf(out, TS_REAL_MAX, "%s%s", sign, isnan(v) ? "nan" : "inf");
    int exp = shortest(fabs(v), d), n = (int)strlen(d);
    if (exp < -4 || exp >= 16)
        return (size_t)snprintf(out, TS_REAL_MAX, "%s%c%s%se%c%02d", sign, *d, n > 1 ? "." : "",
                                d + 1, exp < 0 ? '-' : '+', abs(exp));
    if (exp < 0)
        return (size_t)snprintf(out, TS_REAL_MAX, "%s0.%.*s%s", sign, -exp - 1, "000", d);
    if (n <= exp + 1)
        return (size_t)snprintf(out, TS_REAL_MAX, "%s%s%.*s.0", sign, d, exp + 1 - n,
                                "0000000000000000");
    return (size_t)snprintf(out, TS_REAL_MAX, "%s%.*s.%s", sign, exp + 1, d, d + exp + 1);
}

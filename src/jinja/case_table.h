/* case_table.h - the form of case_table.c. */
#ifndef TS_JINJA_CASE_TABLE_H
#define TS_JINJA_CASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Characters first, first + step ... last: each becomes itself + delta. */
typedef struct j_case_run {
    uint32_t first, last, step;
    int32_t delta;
} j_case_run;

/* A character that becomes two or three, 0 behind the last of two. */
typedef struct j_case_many {
    uint32_t from;
    uint32_t to[3];
} j_case_many;

extern const size_t j_lower_n, j_upper_n, j_title_n;
extern const j_case_run j_lower_runs[], j_upper_runs[], j_title_runs[];
extern const size_t j_lower_many_n, j_upper_many_n, j_title_many_n;
extern const j_case_many j_lower_many[], j_upper_many[], j_title_many[];

#endif

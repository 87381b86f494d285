/* filter.h - filters on text, in a file of their own. Each is a j_native. */
#ifndef TS_JINJA_FILTER_H
#define TS_JINJA_FILTER_H

#include "jinja/impl.h"

j_native j_filter_capitalize, j_filter_center, j_filter_escape, j_filter_forceescape,
    j_filter_format, j_filter_indent, j_filter_join, j_filter_lower, j_filter_replace,
    j_filter_safe, j_filter_string, j_filter_title, j_filter_tojson, j_filter_trim,
    j_filter_truncate, j_filter_upper, j_filter_wordcount;

/* An optional argument that was given and isn't None. */
static inline bool j_given(j_value v)
{
    return v.kind != J_MISSING && v.kind != J_NONE;
}

static inline bool j_flag(j_run *j, j_value v)
{
    return v.kind != J_MISSING && j_truth(j, v);
}

#endif

/* method.h - methods of strings, in a file of their own. */
#ifndef TS_JINJA_METHOD_H
#define TS_JINJA_METHOD_H

#include "jinja/impl.h"

const j_fn *j_str_method(const char *name, size_t n);

#endif

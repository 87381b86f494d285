/* intrin.h - the vector and tile intrinsics of the kernels. A kernel is compiled a second time for
 * the tests with TS_STANDIN: what the machine of the tests may lack is then plain C. */
#ifndef TS_INTRIN_H
#define TS_INTRIN_H

#ifdef TS_STANDIN
#include "cpu/standin.h"
#else
#include <immintrin.h>
#endif

#endif

/* kset_standins.h - the kernel sets that are compiled with the stand-in for wide instructions. */
#ifndef TS_KSET_STANDINS_H
#define TS_KSET_STANDINS_H

#include "cpu/kset.h"

#define STANDIN_ref(T, F)
#define STANDIN_avx2(T, F)
#define STANDIN_avx512(T, F) F(ts_kset_##T##_avx512_standin)
#define STANDIN_amx(T, F)    F(ts_kset_##T##_amx_standin)
#define TS_KSET(T, isa)      STANDIN_##isa(T, DECLARE)
#define DECLARE(name)        extern const ts_kset name;
#include "cpu/kset/kset.def"
#undef TS_KSET
#define ENTRY(name)     &name,
#define TS_KSET(T, isa) STANDIN_##isa(T, ENTRY)
static const ts_kset *const standins[] = {
#include "cpu/kset/kset.def"
};
#undef TS_KSET

#endif

/* kset.c - the list of kernel sets and the lookup in it. */
#include "cpu/kset.h"

#define TS_KSET(type, isa) extern const ts_kset ts_kset_##type##_##isa;
#include "cpu/kset/kset.def"
#undef TS_KSET

static const ts_kset *const all[] = {
#define TS_KSET(type, isa) &ts_kset_##type##_##isa,
#include "cpu/kset/kset.def"
#undef TS_KSET
};

const ts_kset *ts_kset_get(ts_type type, ts_isa isa)
{
    const ts_kset *best = NULL;
    for (size_t i = 0; i < ts_kset_count(); i++) {
        const ts_kset *s = all[i];
        if (s->type == type && s->isa <= isa && (!best || s->isa > best->isa))
            best = s;
    }
    return best;
}

size_t ts_kset_count(void)
{
    return sizeof all / sizeof *all;
}

const ts_kset *ts_kset_at(size_t i)
{
    return i < ts_kset_count() ? all[i] : NULL;
}

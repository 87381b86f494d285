/* kset.c - the list of kernel sets, the lookup in it, and matrices in stacks. */
#include "cpu/kset.h"

#include <string.h>

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

/* --- stacks ------------------------------------------------------------------------- */

enum { ALIGN = 64 };

static size_t source_bytes(const ts_kset *s, int64_t n, int64_t k)
{
    return (size_t)n * ts_row_bytes(ts_type_get(s->type), k);
}

size_t ts_kset_stack_stride(const ts_kset *s, int64_t n, int64_t k)
{
    if (!s->packed_bytes)
        return source_bytes(s, n, k);
    return (s->packed_bytes(n, k) + ALIGN - 1) / ALIGN * ALIGN;
}

size_t ts_kset_stack_bytes(const ts_kset *s, int64_t e, int64_t n, int64_t k)
{
    return (size_t)e * ts_kset_stack_stride(s, n, k);
}

const void *ts_kset_stack_at(const ts_kset *s, const void *w, int64_t n, int64_t k, int64_t i)
{
    return (const uint8_t *)w + (size_t)i * ts_kset_stack_stride(s, n, k);
}

void ts_kset_stack_pack(const ts_kset *s, void *packed, const void *src, int64_t n, int64_t k,
                        int64_t i, int64_t n0, int64_t n1)
{
    size_t stride = ts_kset_stack_stride(s, n, k), bytes = s->packed_bytes(n, k);
    uint8_t *to = (uint8_t *)packed + (size_t)i * stride;
    s->pack(to, (const uint8_t *)src + (size_t)i * source_bytes(s, n, k), n, k, n0, n1);
    if (n1 == n) /* a packed stack is kept in files: every byte of it is defined */
        memset(to + bytes, 0, stride - bytes);
}

void ts_kset_stack_unpack(const ts_kset *s, void *src, const void *packed, int64_t n, int64_t k,
                          int64_t i, int64_t n0, int64_t n1)
{
    s->unpack((uint8_t *)src + (size_t)i * source_bytes(s, n, k),
              ts_kset_stack_at(s, packed, n, k, i), n, k, n0, n1);
}

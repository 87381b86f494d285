/* pack_key.c - what a packed arena was made from: the model's identity, wherever its file lies, and
 * the layouts it was packed in. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "exec/pack_cache.h"

enum { SAMPLES = 64, SAMPLE_BYTES = 4096 };

static uint64_t mix(uint64_t h, uint64_t v)
{
    return ts_hash64(&v, sizeof v, h);
}

/* Metadata, tensor tables, and pages spread evenly over the tensors' data, first and last
 * included. */
void ts_pack_key_source(ts_pack_key *key, const ts_gguf *g)
{
    key->source_bytes = ts_gguf_file_bytes(g);
    for (int i = 0; i < ts_gguf_n_shards(g); i++) {
        ts_gguf_file f = ts_gguf_file_at(g, i);
        key->head = ts_hash64(f.bytes, f.data, mix(key->head, f.size));
        size_t data = f.size - f.data, n = data < SAMPLE_BYTES ? data : SAMPLE_BYTES;
        for (size_t s = 0; s < SAMPLES; s++) {
            const uint8_t *p = f.bytes + f.data + (data - n) / (SAMPLES - 1) * s;
            if (s == SAMPLES - 1)
                p = f.bytes + f.size - n;
            key->sample = ts_hash64(p, n, key->sample);
        }
        ts_gguf_drop(g, f.bytes + f.data, data);
    }
}

/* What a kernel set makes of a fixed matrix: should a layout change and keep its name, its key
 * changes all the same. */
static ts_status hash_layout(uint64_t *h, const ts_kset *ks, ts_error *err)
{
    int64_t n = 2 * ks->group + 1, k = 2048;
    size_t from = (size_t)n * ts_row_bytes(ts_type_get(ks->type), k), to = ks->packed_bytes(n, k);
    uint64_t *src = ts_calloc(from / 8 + 1, 8);
    void *dst = ts_map(to);
    ts_status st = TS_OK;
    if (src && dst) {
        for (size_t i = 0; i <= from / 8; i++)
            src[i] = mix(i, ks->type);
        ks->pack(dst, src, n, k, 0, n);
        *h = ts_hash64(dst, to, *h);
    } else {
        st = ts_fail(err, TS_NO_MEMORY, "no memory to compare layouts");
    }
    free(src);
    ts_unmap(dst, to);
    return st;
}

static ts_status hash_layouts(uint64_t *h, const ts_model *m, ts_error *err)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        if (w->device || !w->kset || !w->kset->packed_bytes)
            continue;
        const ts_kset *ks = w->kset;
        uint64_t v[] = {i,
                        (uint64_t)ks->type,
                        (uint64_t)ks->isa,
                        (uint64_t)ks->group,
                        (uint64_t)w->n,
                        (uint64_t)w->k,
                        w->offset,
                        w->bytes};
        *h = ts_hash64(v, sizeof v, *h);
        *h = ts_hash64(ks->layout, strlen(ks->layout), *h);
        *h = ts_hash64(ts_weight_name(w), strlen(ts_weight_name(w)), *h);
        size_t first = 0; /* with this kernel set */
        while (m->weights[first].device || m->weights[first].kset != ks)
            first++;
        ts_status st = first == i ? hash_layout(h, ks, err) : TS_OK;
        if (st)
            return st;
    }
    return TS_OK;
}

ts_status ts_pack_key_make(ts_pack_key *key, const ts_plan *p, const ts_model *m, ts_error *err)
{
    *key = (ts_pack_key){.isa = (uint64_t)p->isa, .packed = p->dev[0].packed};
    ts_pack_key_source(key, m->g);
    return hash_layouts(&key->layout, m, err);
}

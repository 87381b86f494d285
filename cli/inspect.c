/* inspect.c - `tessera inspect`: what a GGUF file holds, for people and for programs.
 *
 * Only the metadata and the tensor table are read, so it is instant on a file of any size. Whatever
 * comes from the file is escaped: it is a stranger's. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "gguf/gguf_impl.h"
#include "command.h"
#include "opt.h"
#include "report.h"

enum {
    TEXT_STRING = 70,  /* bytes of a string shown to people                  */
    TEXT_ELEMENTS = 8, /* elements of an array shown to people              */
    TEXT_INNER = 24,   /* bytes of a string in an array                      */
    FLUSH = 1 << 16,   /* bytes of output gathered before they are written   */
};

/* Tensors of one type, or of all. */
typedef struct total {
    uint64_t tensors, params, bytes;
} total;

static void flush(ts_sb *b)
{
    if (b->n)
        fwrite(b->s, 1, b->n, stdout);
    b->n = 0;
}

static uint64_t params_of(const ts_tensor *t)
{
    return (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
}

static double bits_per_weight(const total *t)
{
    return t->params ? 8.0 * (double)t->bytes / (double)t->params : 0;
}

/* by_type[TS_TYPE_COUNT]; returns the sum over all types. */
static total sum_types(const ts_gguf *g, total *by_type)
{
    total all = {0};
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(g, i);
        total *sums[] = {&by_type[t->type], &all};
        for (int k = 0; k < 2; k++) {
            sums[k]->tensors++;
            sums[k]->params += params_of(t);
            sums[k]->bytes += t->size;
        }
    }
    return all;
}

/* "u32", "string", "array of i32" */
static const char *type_of(const ts_gguf_kv *kv, char buf[32])
{
    if (kv->type == TS_GGUF_ARR)
        snprintf(buf, 32, "array of %s", gguf_type_name(kv->v.arr.type));
    else
        snprintf(buf, 32, "%s", gguf_type_name(kv->type));
    return buf;
}

/* --- values, for both formats ------------------------------------------- */

/* The fewest digits that read back as the same f32 or f64. */
static void add_float(ts_sb *b, double f, bool is_f32, bool json)
{
    char s[40];
    if (!isfinite(f)) {
        ts_sb_str(b, json ? "null" : isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    if (f == floor(f) && fabs(f) < 1e15) {
        ts_sb_printf(b, "%.1f", f);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, f);
        double back = strtod(s, NULL);
        if (is_f32 ? (float)back == (float)f : back == f)
            break;
    }
    ts_sb_str(b, s);
}

/* A scalar of an array, as if it were a pair of its own. */
static ts_gguf_kv element(const ts_gguf_arr *a, uint64_t i)
{
    ts_gguf_kv kv = {.type = a->type};
    switch (a->type) {
    case TS_GGUF_F32:
    case TS_GGUF_F64:
        kv.v.f = ts_gguf_arr_float(a, i);
        break;
    case TS_GGUF_U64:
        memcpy(&kv.v.u, a->data + 8 * i, 8);
        break;
    case TS_GGUF_I8:
    case TS_GGUF_I16:
    case TS_GGUF_I32:
    case TS_GGUF_I64:
        kv.v.i = ts_gguf_arr_int(a, i);
        break;
    default:
        kv.v.u = (uint64_t)ts_gguf_arr_int(a, i);
        break;
    }
    return kv;
}

static void add_scalar(ts_sb *b, const ts_gguf_kv *kv, bool json)
{
    switch (kv->type) {
    case TS_GGUF_BOOL:
        ts_sb_str(b, kv->v.u ? "true" : "false");
        break;
    case TS_GGUF_F32:
    case TS_GGUF_F64:
        add_float(b, kv->v.f, kv->type == TS_GGUF_F32, json);
        break;
    case TS_GGUF_I8:
    case TS_GGUF_I16:
    case TS_GGUF_I32:
    case TS_GGUF_I64:
        ts_sb_printf(b, "%" PRId64, kv->v.i);
        break;
    default:
        ts_sb_printf(b, "%" PRIu64, kv->v.u);
        break;
    }
}

/* --- text --------------------------------------------------------------- */

/* Quoted, at most `max` bytes of it; what could move a terminal's cursor or hide text is escaped.
 */
static void add_text(ts_sb *b, ts_str s, size_t max)
{
    ts_sb_str(b, "\"");
    size_t i = 0;
    while (i < s.n && i < max) {
        uint32_t cp = 0;
        size_t len = ts_utf8_decode(s.s + i, s.n - i, &cp);
        /* C1 controls, zero-width and direction marks */
        bool unsafe = (cp >= 0x80 && cp < 0xa0) || (cp >= 0x200b && cp <= 0x200f) ||
                      (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f);
        if (cp == '\n')
            ts_sb_str(b, "\\n");
        else if (cp == '"' || cp == '\\')
            ts_sb_printf(b, "\\%c", (int)cp);
        else if (len < 2 && (len == 0 || cp < 0x20 || cp == 0x7f))
            ts_sb_printf(b, "\\x%02x", (unsigned char)s.s[i]);
        else if (unsafe)
            ts_sb_printf(b, "\\u%04" PRIx32, cp);
        else
            ts_sb_add(b, s.s + i, len);
        i += len ? len : 1;
    }
    ts_sb_str(b, "\"");
    if (i < s.n)
        ts_sb_printf(b, "... (%zu bytes)", s.n);
}

static void add_text_array(ts_sb *b, const ts_gguf_arr *a)
{
    ts_str strs[TEXT_ELEMENTS];
    ts_gguf_arr inner[TEXT_ELEMENTS], head = *a;
    head.n = a->n < TEXT_ELEMENTS ? a->n : TEXT_ELEMENTS;
    if (a->type == TS_GGUF_STR)
        ts_gguf_arr_strs(&head, strs);
    if (a->type == TS_GGUF_ARR)
        ts_gguf_arr_arrs(&head, inner);
    ts_sb_printf(b, "%" PRIu64 " [", a->n);
    for (uint64_t i = 0; i < head.n; i++) {
        ts_sb_str(b, i ? ", " : "");
        if (a->type == TS_GGUF_STR) {
            add_text(b, strs[i], TEXT_INNER);
        } else if (a->type == TS_GGUF_ARR) {
            ts_sb_printf(b, "array of %" PRIu64 " %s", inner[i].n, gguf_type_name(inner[i].type));
        } else {
            ts_gguf_kv kv = element(a, i);
            add_scalar(b, &kv, false);
        }
    }
    ts_sb_str(b, head.n < a->n ? ", ...]" : "]");
}

static void text_pairs(ts_sb *b, const ts_gguf *g)
{
    ts_sb_printf(b, "\nMetadata (%zu)\n", ts_gguf_n_kv(g));
    for (size_t i = 0; i < ts_gguf_n_kv(g); i++) {
        const ts_gguf_kv *kv = ts_gguf_kv_at(g, i);
        char type[32];
        ts_shown key;
        ts_sb_printf(b, "  %-40s %-15s ", ts_show(&key, kv->key, strlen(kv->key)),
                     type_of(kv, type));
        if (kv->type == TS_GGUF_STR)
            add_text(b, kv->v.str, TEXT_STRING);
        else if (kv->type == TS_GGUF_ARR)
            add_text_array(b, &kv->v.arr);
        else
            add_scalar(b, kv, false);
        ts_sb_str(b, "\n");
        if (b->n > FLUSH)
            flush(b);
    }
}

static void text_tensors(ts_sb *b, const ts_gguf *g)
{
    ts_sb_printf(b, "\nTensors (%zu)\n  %-40s %-7s %-24s %14s %14s\n", ts_gguf_n_tensors(g), "name",
                 "type", "shape", "bytes", "offset");
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(g, i);
        ts_shown name;
        char shape[96];
        size_t n = 0;
        for (int d = 0; d < t->n_dims; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRId64, d ? " x " : "",
                                  t->ne[d]);
        ts_sb_printf(b, "  %-40s %-7s %-24s %14zu %14" PRIu64,
                     ts_show(&name, t->name, strlen(t->name)), ts_type_name(t->type), shape,
                     t->size, t->offset);
        if (ts_gguf_n_shards(g) > 1)
            ts_sb_printf(b, "  shard %d", t->shard + 1);
        ts_sb_str(b, "\n");
        if (b->n > FLUSH)
            flush(b);
    }
}

static void text_totals(ts_sb *b, const ts_gguf *g)
{
    total by_type[TS_TYPE_COUNT] = {{0}}, all = sum_types(g, by_type);
    char count[32], size[32];
    ts_sb_printf(b, "\nTotal\n  parameters      %" PRIu64 " (%s)\n", all.params,
                 cli_count(count, all.params));
    ts_sb_printf(b, "  bytes           %" PRIu64 " (%s)\n", all.bytes, cli_size(size, all.bytes));
    ts_sb_printf(b, "  bits per weight %.2f\n", bits_per_weight(&all));
    ts_sb_printf(b, "\n  %-7s %8s %18s %16s %9s %10s\n", "type", "tensors", "parameters", "bytes",
                 "% bytes", "bits/weight");
    for (int type = 0; type < TS_TYPE_COUNT; type++) {
        const total *t = &by_type[type];
        if (t->tensors)
            ts_sb_printf(b, "  %-7s %8" PRIu64 " %18" PRIu64 " %16" PRIu64 " %9.1f %10.2f\n",
                         ts_type_name((uint32_t)type), t->tensors, t->params, t->bytes,
                         100 * (double)t->bytes / (double)all.bytes, bits_per_weight(t));
    }
}

static void print_text(ts_sb *b, const ts_gguf *g)
{
    char size[32];
    ts_sb_printf(b, "%s\nGGUF version %" PRIu32 ", %d file%s, %s\n", ts_gguf_path(g),
                 ts_gguf_version(g), ts_gguf_n_shards(g), ts_gguf_n_shards(g) > 1 ? "s" : "",
                 cli_size(size, ts_gguf_file_bytes(g)));
    text_pairs(b, g);
    text_tensors(b, g);
    text_totals(b, g);
}

/* --- JSON --------------------------------------------------------------- */

/* The whole array. The loader bounds the nesting. */
static ts_status add_json_array(ts_sb *b, const ts_gguf_arr *a)
{
    ts_status st = TS_OK;
    ts_str *strs = a->type == TS_GGUF_STR ? ts_calloc(a->n, sizeof *strs) : NULL;
    ts_gguf_arr *inner = a->type == TS_GGUF_ARR ? ts_calloc(a->n, sizeof *inner) : NULL;
    if ((a->type == TS_GGUF_STR && !strs) || (a->type == TS_GGUF_ARR && !inner))
        st = TS_NO_MEMORY;
    if (strs)
        ts_gguf_arr_strs(a, strs);
    if (inner)
        ts_gguf_arr_arrs(a, inner);
    ts_sb_str(b, "[");
    for (uint64_t i = 0; i < a->n && !st; i++) {
        ts_sb_str(b, i ? "," : "");
        if (strs) {
            ts_sb_json_str(b, strs[i].s, strs[i].n);
        } else if (inner) {
            st = add_json_array(b, &inner[i]);
        } else {
            ts_gguf_kv kv = element(a, i);
            add_scalar(b, &kv, true);
        }
        if (b->n > FLUSH)
            flush(b);
    }
    ts_sb_str(b, "]");
    free(strs);
    free(inner);
    return st;
}

static ts_status json_pairs(ts_sb *b, const ts_gguf *g)
{
    ts_status st = TS_OK;
    ts_sb_str(b, "\"metadata\":[");
    for (size_t i = 0; i < ts_gguf_n_kv(g) && !st; i++) {
        const ts_gguf_kv *kv = ts_gguf_kv_at(g, i);
        char type[32];
        ts_sb_str(b, i ? ",\n {\"key\":" : "\n {\"key\":");
        ts_sb_json_str(b, kv->key, strlen(kv->key));
        ts_sb_printf(b, ",\"type\":\"%s\",\"value\":", type_of(kv, type));
        if (kv->type == TS_GGUF_STR)
            ts_sb_json_str(b, kv->v.str.s, kv->v.str.n);
        else if (kv->type == TS_GGUF_ARR)
            st = add_json_array(b, &kv->v.arr);
        else
            add_scalar(b, kv, true);
        ts_sb_str(b, "}");
        if (b->n > FLUSH)
            flush(b);
    }
    ts_sb_str(b, "],\n");
    return st;
}

static void json_tensors(ts_sb *b, const ts_gguf *g)
{
    ts_sb_str(b, "\"tensors\":[");
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(g, i);
        ts_sb_str(b, i ? ",\n {\"name\":" : "\n {\"name\":");
        ts_sb_json_str(b, t->name, strlen(t->name));
        ts_sb_printf(b, ",\"type\":\"%s\",\"shape\":[", ts_type_name(t->type));
        for (int d = 0; d < t->n_dims; d++)
            ts_sb_printf(b, "%s%" PRId64, d ? "," : "", t->ne[d]);
        ts_sb_printf(b, "],\"bytes\":%zu,\"offset\":%" PRIu64 ",\"shard\":%d}", t->size, t->offset,
                     t->shard);
        if (b->n > FLUSH)
            flush(b);
    }
    ts_sb_str(b, "],\n");
}

static void json_totals(ts_sb *b, const ts_gguf *g)
{
    total by_type[TS_TYPE_COUNT] = {{0}}, all = sum_types(g, by_type);
    ts_sb_printf(b,
                 "\"totals\":{\"tensors\":%" PRIu64 ",\"parameters\":%" PRIu64 ",\"bytes\":%" PRIu64
                 ",\"bits_per_weight\":%.4f,\"types\":[",
                 all.tensors, all.params, all.bytes, bits_per_weight(&all));
    bool first = true;
    for (int type = 0; type < TS_TYPE_COUNT; type++) {
        const total *t = &by_type[type];
        if (!t->tensors)
            continue;
        ts_sb_printf(b,
                     "%s\n {\"type\":\"%s\",\"tensors\":%" PRIu64 ",\"parameters\":%" PRIu64
                     ",\"bytes\":%" PRIu64 ",\"bits_per_weight\":%.4f}",
                     first ? "" : ",", ts_type_name((uint32_t)type), t->tensors, t->params,
                     t->bytes, bits_per_weight(t));
        first = false;
    }
    ts_sb_str(b, "]}}\n");
}

static ts_status print_json(ts_sb *b, const ts_gguf *g)
{
    const char *path = ts_gguf_path(g);
    ts_sb_str(b, "{\"file\":");
    ts_sb_json_str(b, path, strlen(path));
    ts_sb_printf(b, ",\"version\":%" PRIu32 ",\"shards\":%d,\"file_bytes\":%" PRIu64 ",\n",
                 ts_gguf_version(g), ts_gguf_n_shards(g), ts_gguf_file_bytes(g));
    ts_status st = json_pairs(b, g);
    json_tensors(b, g);
    json_totals(b, g);
    return st;
}

/* ------------------------------------------------------------------------ */

int cmd_inspect(int argc, char **argv)
{
    const char *path = NULL;
    bool json = false;
    const opt table[] = {
        {"Model", NULL, OPT_STR, &path, "MODEL", .help = "GGUF file, or any shard of a split one",
         .required = true},
        {"Output", "--json", OPT_FLAG, &json, NULL,
         .help = "everything as JSON, long arrays too (docs/CLI.md)"},
    };
    const opt_cmd cmd = {"inspect", "what a GGUF file holds: metadata, tensors, types, sizes",
                         "MODEL [--json]", "tessera inspect model.gguf", OPT_TABLE(table)};
    int status = opt_start(&cmd, argc, argv);
    if (status != OPT_GO)
        return status;
    ts_gguf *g = NULL;
    ts_error err = {0};
    if (ts_gguf_open(&g, path, &err))
        return cli_fail(&err);
    ts_sb b = {0};
    ts_status st = TS_OK;
    if (json)
        st = print_json(&b, g);
    else
        print_text(&b, g);
    flush(&b);
    if (st || b.failed)
        status = cli_error("%s: no memory is left to print it", path);
    else
        status = CLI_OK;
    ts_sb_free(&b);
    ts_gguf_close(g);
    return status;
}

/* model.c - from a GGUF file to hyperparameters and named weights. */
#include "model/model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gguf/show.h"

static const ts_arch *const archs[] = {
    &ts_arch_llama,     &ts_arch_qwen2,     &ts_arch_qwen3,   &ts_arch_gemma3,  &ts_arch_qwen3moe,
    &ts_arch_qwen2moe,  &ts_arch_deepseek2, &ts_arch_olmo2,   &ts_arch_granite, &ts_arch_gemma2,
    &ts_arch_command_r, &ts_arch_phi3,      &ts_arch_glm4moe, &ts_arch_gpt_oss};
#define N_ARCHS (sizeof archs / sizeof archs[0])

/* Bounds far above any real model; they keep every product of two of them inside 64 bits. */
#define MAX_LAYERS 4096
#define MAX_DIM    ((int64_t)1 << 24)
#define MAX_CTX    ((int64_t)1 << 31)

/* Of YaRN (arXiv:2309.00071): a scaling that blends between pairs which make more than `fast` turns
 * within the first context and those that make fewer than `slow`. */
typedef struct yarn {
    double factor, n_ctx, attn_factor, fast, slow;
} yarn;
static const double yarn_fast = 32, yarn_slow = 1; /* the paper's, which most files leave out */

void ts_load_fail(ts_loader *ld, ts_status code, const char *fmt, ...)
{
    if (ld->status)
        return;
    char what[360];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    ld->status = ts_fail(ld->err, code, "%s: %s", ts_gguf_path(ld->m->g), what);
}

static void full_key(const ts_loader *ld, const char *key, char buf[static 128])
{
    snprintf(buf, 128, "%s.%s", ld->m->arch->name, key);
}

/* A per-layer array whose elements agree counts as their value: true and *out set. */
static bool uniform_array(ts_loader *ld, const char *key, int64_t *out)
{
    const ts_gguf_kv *kv = ts_gguf_find(ld->m->g, key);
    if (!kv || kv->type != TS_GGUF_ARR)
        return false;
    const ts_gguf_arr *a = &kv->v.arr;
    if (a->n == 0 || (a->type != TS_GGUF_I32 && a->type != TS_GGUF_U32)) {
        ts_load_fail(ld, TS_BAD_FILE, "key '%s' is an array that isn't one integer a layer", key);
        return true;
    }
    *out = ts_gguf_arr_int(a, 0);
    for (uint64_t i = 1; i < a->n; i++)
        if (ts_gguf_arr_int(a, i) != *out) {
            ts_load_fail(ld, TS_UNSUPPORTED,
                         "key '%s' differs from layer to layer (%lld and %lld), which architecture "
                         "'%s' can't use",
                         key, (long long)*out, (long long)ts_gguf_arr_int(a, i), ld->m->arch->name);
            return true;
        }
    return true;
}

int64_t ts_load_int(ts_loader *ld, const char *key, int64_t min, int64_t max, const int64_t *def)
{
    int64_t v = def ? *def : min;
    if (ld->status)
        return v;
    char name[128];
    full_key(ld, key, name);
    bool found = true;
    if (uniform_array(ld, name, &v)) {
        if (v < min || v > max)
            ts_load_fail(ld, TS_BAD_FILE, "key '%s' is %lld; it must be %lld to %lld", name,
                         (long long)v, (long long)min, (long long)max);
        return v;
    }
    ld->status = ts_gguf_get_int(ld->m->g, name, min, max, &v, &found, ld->err);
    if (!found && !def)
        ts_load_fail(ld, TS_BAD_FILE, "key '%s' is missing", name);
    return v;
}

double ts_load_float(ts_loader *ld, const char *key, double min, double max, const double *def)
{
    double v = def ? *def : min;
    if (ld->status)
        return v;
    char name[128];
    full_key(ld, key, name);
    bool found = true;
    ld->status = ts_gguf_get_float(ld->m->g, name, &v, &found, ld->err);
    if (!found && !def)
        ts_load_fail(ld, TS_BAD_FILE, "key '%s' is missing", name);
    else if (found && !(v >= min && v <= max))
        ts_load_fail(ld, TS_BAD_FILE, "key '%s' is %g; it must be %g to %g", name, v, min, max);
    return v;
}

/* --- tensors -------------------------------------------------------------- */

static const ts_tensor *find_tensor(ts_loader *ld, bool required, const char *name)
{
    const ts_tensor *t = ts_gguf_tensor(ld->m->g, name);
    if (!t && required)
        ts_load_fail(ld, TS_BAD_FILE, "tensor '%s' is missing (architecture '%s' needs it)", name,
                     ld->m->arch->name);
    if (t)
        ld->used[t - ts_gguf_tensor_at(ld->m->g, 0)] = true;
    return t;
}

static void shape_text(const ts_tensor *t, char *buf, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < t->n_dims && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? " x " : "", (long long)t->ne[i]);
}

/* ne is [k, n, e] for a stack, [k, n] for a matrix, [n] for a vector; GGUF writes the contiguous
 * dimension first. */
static bool check_shape(ts_loader *ld, const ts_tensor *t, int64_t ne0, int64_t ne1, int64_t ne2)
{
    if (t->ne[0] == ne0 && t->ne[1] == ne1 && t->ne[2] == ne2 && t->ne[3] == 1)
        return true;
    char got[96], want[72];
    shape_text(t, got, sizeof got);
    if (ne2 != 1)
        snprintf(want, sizeof want, "%lld x %lld x %lld", (long long)ne0, (long long)ne1,
                 (long long)ne2);
    else if (ne1 == 1)
        snprintf(want, sizeof want, "%lld", (long long)ne0);
    else
        snprintf(want, sizeof want, "%lld x %lld", (long long)ne0, (long long)ne1);
    ts_load_fail(ld, TS_BAD_FILE, "tensor '%s' is %s; the hyperparameters make it %s", t->name, got,
                 want);
    return false;
}

static ts_weight *load_mat(ts_loader *ld, bool required, int64_t n, int64_t k, const char *fmt,
                           va_list ap)
{
    if (ld->status)
        return NULL;
    char name[128];
    vsnprintf(name, sizeof name, fmt, ap);
    const ts_tensor *t = find_tensor(ld, required, name);
    if (!t || !check_shape(ld, t, k, n, 1))
        return NULL;
    /* The array has three places for every tensor of the file, which serves as one weight (the tied
     * embedding for two), or as three of its parts: handles never move. */
    for (size_t i = 0; i < ld->m->n_weights; i++)
        if (ld->m->weights[i].source == t)
            return &ld->m->weights[i];
    ts_weight *w = &ld->m->weights[ld->m->n_weights++];
    *w = (ts_weight){.source = t, .n = n, .k = k, .e = 1, .used = 1};
    return w;
}

ts_weight *ts_load_mat(ts_loader *ld, int64_t n, int64_t k, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    ts_weight *w = load_mat(ld, true, n, k, fmt, ap);
    va_end(ap);
    return w;
}

ts_weight *ts_load_mat_opt(ts_loader *ld, int64_t n, int64_t k, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    ts_weight *w = load_mat(ld, false, n, k, fmt, ap);
    va_end(ap);
    return w;
}

ts_weight *ts_load_stack(ts_loader *ld, int64_t e, int64_t n, int64_t k, const char *fmt, ...)
{
    if (ld->status)
        return NULL;
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const ts_tensor *t = find_tensor(ld, true, name);
    if (!t || !check_shape(ld, t, k, n, e))
        return NULL;
    ts_weight *w = &ld->m->weights[ld->m->n_weights++];
    *w = (ts_weight){.source = t, .n = n, .k = k, .e = e, .used = e};
    return w;
}

/* A slice of t for the model to own. */
static ts_slice *new_slice(ts_loader *ld)
{
    ts_model *m = ld->m;
    ts_slice **grown = realloc(m->slices, (m->n_slices + 1) * sizeof *grown);
    ts_slice *s = grown ? ts_calloc(1, sizeof *s) : NULL;
    if (grown)
        m->slices = grown;
    if (s)
        m->slices[m->n_slices++] = s;
    else
        ts_load_fail(ld, TS_NO_MEMORY, "no memory for a part of a tensor");
    return s;
}

ts_weight *ts_load_rows(ts_loader *ld, int64_t i, const char *fused, int64_t all, int64_t k,
                        const char *name, int64_t r0, int64_t n)
{
    char whole[64];
    snprintf(whole, sizeof whole, "blk.%d.%s", (int)i, fused);
    const ts_tensor *t = ld->status ? NULL : find_tensor(ld, true, whole);
    ts_slice *s = t && check_shape(ld, t, k, all, 1) ? new_slice(ld) : NULL;
    if (!s)
        return NULL;
    const size_t row = t->size / (size_t)all;
    snprintf(s->name, sizeof s->name, "blk.%d.%s", (int)i, name);
    s->t = *t;
    s->t.name = s->name;
    s->t.ne[1] = n;
    s->t.data = (const uint8_t *)t->data + (size_t)r0 * row;
    s->t.size = (size_t)n * row;
    s->t.offset += (size_t)r0 * row;
    ts_weight *w = &ld->m->weights[ld->m->n_weights++];
    *w = (ts_weight){.source = &s->t, .n = n, .k = k, .e = 1, .used = 1};
    return w;
}

/* A float array of n elements owned by the model. */
static float *new_vector(ts_loader *ld, int64_t n, const ts_tensor *source)
{
    ts_model *m = ld->m;
    ts_vector *grown = realloc(m->vectors, (m->n_vectors + 1) * sizeof *grown);
    float *v = grown ? ts_calloc((size_t)n, sizeof *v) : NULL;
    if (grown)
        m->vectors = grown;
    if (!v) {
        ts_load_fail(ld, TS_NO_MEMORY, "no memory for a vector of %lld elements", (long long)n);
        return NULL;
    }
    m->vectors[m->n_vectors++] = (ts_vector){v, source};
    return v;
}

static float *load_vec(ts_loader *ld, bool required, int64_t rows, int64_t n, const char *fmt,
                       va_list ap)
{
    if (ld->status)
        return NULL;
    char name[128];
    vsnprintf(name, sizeof name, fmt, ap);
    const ts_tensor *t = find_tensor(ld, required, name);
    if (!t || !check_shape(ld, t, n, rows, 1))
        return NULL;
    float *v = new_vector(ld, rows * n, t);
    if (v)
        ts_type_get(t->type)->to_f32(v, t->data, rows * n);
    return v;
}

float *ts_load_vec(ts_loader *ld, int64_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    float *v = load_vec(ld, true, 1, n, fmt, ap);
    va_end(ap);
    return v;
}

float *ts_load_vec_opt(ts_loader *ld, int64_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    float *v = load_vec(ld, false, 1, n, fmt, ap);
    va_end(ap);
    return v;
}

float *ts_load_vecs(ts_loader *ld, int64_t rows, int64_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    float *v = load_vec(ld, true, rows, n, fmt, ap);
    va_end(ap);
    return v;
}

float *ts_load_vecs_opt(ts_loader *ld, int64_t rows, int64_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    float *v = load_vec(ld, false, rows, n, fmt, ap);
    va_end(ap);
    return v;
}

/* --- what the architectures share ----------------------------------------- */

void ts_load_common(ts_loader *ld)
{
    ts_hparams *hp = &ld->m->hp;
    hp->n_layer = ts_load_int(ld, "block_count", 1, MAX_LAYERS, NULL);
    hp->n_embd = ts_load_int(ld, "embedding_length", 1, MAX_DIM, NULL);
    hp->n_ff = ts_load_int(ld, "feed_forward_length", 1, MAX_DIM, NULL);
    hp->n_ctx_train = ts_load_int(ld, "context_length", 1, MAX_CTX, NULL);
    hp->n_head = ts_load_int(ld, "attention.head_count", 1, MAX_DIM, NULL);
    hp->n_head_kv = ts_load_int(ld, "attention.head_count_kv", 1, MAX_DIM, &hp->n_head);
    if (!ld->status && hp->n_head % hp->n_head_kv)
        ts_load_fail(ld, TS_BAD_FILE, "%lld attention heads don't divide among %lld KV heads",
                     (long long)hp->n_head, (long long)hp->n_head_kv);
    const char *key = "attention.key_length";
    char name[128];
    full_key(ld, key, name);
    if (!ld->status && !ts_gguf_find(ld->m->g, name) && hp->n_embd % hp->n_head)
        ts_load_fail(ld, TS_BAD_FILE,
                     "an embedding of %lld doesn't divide among %lld attention heads, and '%s' is "
                     "missing",
                     (long long)hp->n_embd, (long long)hp->n_head, name);
    int64_t hd = hp->n_head ? hp->n_embd / hp->n_head : 0;
    hp->head_dim = ts_load_int(ld, key, 1, 65536, &hd);
    int64_t hd_v = ts_load_int(ld, "attention.value_length", 1, 65536, &hp->head_dim);
    hp->v_dim = hd_v;
    if (!ld->status && hd_v != hp->head_dim && !ld->m->arch->latent)
        ts_load_fail(ld, TS_UNSUPPORTED,
                     "heads have %lld dimensions for keys and %lld for values, which architecture "
                     "'%s' can't use",
                     (long long)hp->head_dim, (long long)hd_v, ld->m->arch->name);
    const char *eps =
        hp->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    hp->norm_eps = (float)ts_load_float(ld, eps, 0, 1, NULL);
    hp->embed_scale = 1;
    hp->attn_scale = 1.0f / sqrtf((float)hp->head_dim);

    int64_t experts = 0;
    experts = ts_load_int(ld, "expert_count", 0, MAX_DIM, &experts);
    if (!ld->status && experts && !ld->m->arch->experts)
        ts_load_fail(ld, TS_UNSUPPORTED,
                     "the model is a mixture of %lld experts; architecture '%s' is supported "
                     "without experts only",
                     (long long)experts, ld->m->arch->name);
    if (ld->status)
        return;
    ld->m->layers = ts_calloc((size_t)hp->n_layer, sizeof *ld->m->layers);
    if (!ld->m->layers)
        ts_load_fail(ld, TS_NO_MEMORY, "no memory for %lld layers", (long long)hp->n_layer);
}

/* --- experts -------------------------------------------------------------- */

int64_t ts_load_width(ts_loader *ld, const char *of)
{
    char suffix[64];
    const size_t n = (size_t)snprintf(suffix, sizeof suffix, ".%s.weight", of);
    for (size_t i = 0; i < ts_gguf_n_tensors(ld->m->g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(ld->m->g, i);
        const size_t len = strlen(t->name);
        if (len > n && strcmp(t->name + len - n, suffix) == 0 && t->ne[1] <= MAX_DIM)
            return t->ne[1];
    }
    return 0;
}

void ts_load_moe(ts_loader *ld)
{
    const ts_hparams *hp = &ld->m->hp;
    int64_t n = ts_load_width(ld, "ffn_up_exps");
    n = n ? n : ts_load_width(ld, "ffn_up.0");
    n = n ? n : hp->n_ff;
    ts_moe *e = &ld->m->hp.moe;
    *e = (ts_moe){.scale = 1, .n_group = 1, .n_group_used = 1};
    e->n_expert = ts_load_int(ld, "expert_count", 1, TS_MAX_EXPERTS, NULL);
    e->n_used = ts_load_int(ld, "expert_used_count", 1, TS_MAX_EXPERTS, NULL);
    e->n_ff = ts_load_int(ld, "expert_feed_forward_length", 1, MAX_DIM, &n);
    if (!ld->status && e->n_used > e->n_expert)
        ts_load_fail(ld, TS_BAD_FILE, "a token uses %lld experts and there are %lld",
                     (long long)e->n_used, (long long)e->n_expert);
}

static void load_groups(ts_loader *ld, ts_moe *e)
{
    static const int64_t one = 1;
    e->n_group = ts_load_int(ld, "expert_group_count", 0, TS_MAX_EXPERTS, &one);
    if (e->n_group < 2)
        e->n_group = 1;
    e->n_group_used = ts_load_int(ld, "expert_group_used_count", 0, TS_MAX_EXPERTS, &e->n_group);
    if (e->n_group == 1)
        e->n_group_used = 1;
    if (ld->status)
        return;
    if (e->n_expert % e->n_group)
        ts_load_fail(ld, TS_BAD_FILE, "%lld experts don't divide among %lld groups",
                     (long long)e->n_expert, (long long)e->n_group);
    else if (e->n_group_used < 1 || e->n_group_used > e->n_group)
        ts_load_fail(ld, TS_BAD_FILE, "experts are chosen from %lld groups and there are %lld",
                     (long long)e->n_group_used, (long long)e->n_group);
    else if (e->n_used > e->n_expert / e->n_group * e->n_group_used)
        ts_load_fail(ld, TS_BAD_FILE,
                     "a token uses %lld experts and %lld groups of %lld have fewer",
                     (long long)e->n_used, (long long)e->n_group_used,
                     (long long)(e->n_expert / e->n_group));
}

void ts_load_gating(ts_loader *ld)
{
    static const ts_gating kinds[] = {TS_GATING_SOFTMAX, TS_GATING_SIGMOID, TS_GATING_CHOSEN};
    static const double none = 0;
    ts_moe *e = &ld->m->hp.moe;
    /* without the key: what has a bias for choosing alone came with the sigmoid */
    char name[128];
    snprintf(name, sizeof name, "blk.%lld.exp_probs_b.bias", (long long)ld->m->hp.n_layer - 1);
    const int64_t usual = ts_gguf_tensor(ld->m->g, name) ? 2 : 1;
    const int64_t kind = ts_load_int(ld, "expert_gating_func", 0, INT32_MAX, &usual);
    if (kind > 3)
        ts_load_fail(ld, TS_UNSUPPORTED,
                     "experts are chosen by function %lld; 1 (softmax), 2 (sigmoid) and 3 (softmax "
                     "of the chosen) are supported",
                     (long long)kind);
    else
        e->gating = kinds[kind ? kind - 1 : 0];
    const double scale = ts_load_float(ld, "expert_weights_scale", 0, 1e6, &none);
    e->scale = scale != 0 ? (float)scale : 1;

    full_key(ld, "expert_weights_norm", name);
    if (!ld->status)
        ld->status = ts_gguf_get_bool(ld->m->g, name, &e->renorm, NULL, ld->err);
    load_groups(ld, e);
}

static ts_weight *stack(ts_loader *ld, const ts_tensor *t, int64_t n, int64_t k)
{
    ts_weight *w = &ld->m->weights[ld->m->n_weights++];
    const ts_moe *e = &ld->m->hp.moe;
    *w = (ts_weight){
        .source = t, .n = n, .k = k, .e = e->n_expert, .used = e->n_used, .experts = true};
    return w;
}

/* A stack out of a tensor for each expert, as files of the first Mixtral models have them. Room for
 * pointers to all tensors of the file was made with the first. */
static ts_weight *gather_stack(ts_loader *ld, int64_t i, const char *what, int64_t n, int64_t k)
{
    ts_model *m = ld->m;
    const ts_tensor **parts = m->parts ? m->parts + m->n_parts : NULL;
    if (!parts) {
        parts = m->parts = ts_calloc(ts_gguf_n_tensors(m->g), sizeof *m->parts);
        if (!parts) {
            ts_load_fail(ld, TS_NO_MEMORY, "no memory for %zu tensor handles",
                         ts_gguf_n_tensors(m->g));
            return NULL;
        }
    }
    for (int64_t x = 0; x < m->hp.moe.n_expert; x++) {
        char name[128];
        snprintf(name, sizeof name, "blk.%d.ffn_%s.%d.weight", (int)i, what, (int)x);
        const ts_tensor *t = find_tensor(ld, true, name);
        if (!t || !check_shape(ld, t, k, n, 1))
            return NULL;
        if (x && t->type != parts[0]->type) {
            ts_load_fail(
                ld, TS_UNSUPPORTED,
                "tensor '%s' is %s and the first expert's is %s: experts of one layer must "
                "have one type",
                name, ts_type_get(t->type)->name, ts_type_get(parts[0]->type)->name);
            return NULL;
        }
        parts[x] = t;
    }
    m->n_parts += (size_t)m->hp.moe.n_expert;
    ts_weight *w = stack(ld, parts[0], n, k);
    w->parts = parts;
    snprintf(w->gathered, sizeof w->gathered, "blk.%lld.ffn_%s_exps.weight", (long long)i, what);
    return w;
}

/* blk.i.ffn_WHAT_exps.weight, [E][n][k]. */
static ts_weight *load_stack(ts_loader *ld, int64_t i, const char *what, int64_t n, int64_t k)
{
    if (ld->status)
        return NULL;
    char name[128], first[128];
    snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", (int)i, what);
    snprintf(first, sizeof first, "blk.%d.ffn_%s.0.weight", (int)i, what);
    if (!ts_gguf_tensor(ld->m->g, name) && ts_gguf_tensor(ld->m->g, first))
        return gather_stack(ld, i, what, n, k);
    const ts_tensor *t = find_tensor(ld, true, name);
    if (!t || !check_shape(ld, t, k, n, ld->m->hp.moe.n_expert))
        return NULL;
    return stack(ld, t, n, k);
}

void ts_load_experts(ts_loader *ld, int64_t i)
{
    const ts_hparams *hp = &ld->m->hp;
    const ts_moe *e = &hp->moe;
    if (ld->status)
        return;
    ts_layer *l = &ld->m->layers[i];
    l->router = ts_load_mat(ld, e->n_expert, hp->n_embd, "blk.%d.ffn_gate_inp.weight", (int)i);
    l->gate_exps = load_stack(ld, i, "gate", e->n_ff, hp->n_embd);
    l->up_exps = load_stack(ld, i, "up", e->n_ff, hp->n_embd);
    l->down_exps = load_stack(ld, i, "down", hp->n_embd, e->n_ff);
}

void ts_load_shared_expert(ts_loader *ld, int64_t i, int64_t n)
{
    if (ld->status)
        return;
    const int64_t d = ld->m->hp.n_embd;
    ts_layer *l = &ld->m->layers[i];
    l->gate = ts_load_mat(ld, n, d, "blk.%d.ffn_gate_shexp.weight", (int)i);
    l->up = ts_load_mat(ld, n, d, "blk.%d.ffn_up_shexp.weight", (int)i);
    l->down = ts_load_mat(ld, d, n, "blk.%d.ffn_down_shexp.weight", (int)i);
}

void ts_load_ignore_block(ts_loader *ld, int64_t i)
{
    char prefix[32];
    const int len = snprintf(prefix, sizeof prefix, "blk.%d.", (int)i);
    for (size_t t = 0; t < ts_gguf_n_tensors(ld->m->g); t++)
        if (strncmp(ts_gguf_tensor_at(ld->m->g, t)->name, prefix, (size_t)len) == 0)
            ld->used[t] = true;
}

/* n_rot and the unscaled frequencies base^(-2i/n_rot) of RoFormer. */
static bool rope_base(ts_loader *ld, ts_rope *r, bool neox, double base)
{
    const ts_hparams *hp = &ld->m->hp;
    r->neox = neox;
    r->mscale = r->factor = 1;
    r->n_rot = ts_load_int(ld, "rope.dimension_count", 1, hp->head_dim, &hp->head_dim);
    if (!ld->status && r->n_rot % 2)
        ts_load_fail(ld, TS_BAD_FILE,
                     "RoPE turns %lld dimensions of each head; it must be an even number",
                     (long long)r->n_rot);
    r->freq = ld->status ? NULL : new_vector(ld, r->n_rot / 2, NULL);
    if (!r->freq)
        return false;
    for (int64_t i = 0; i < r->n_rot / 2; i++)
        r->freq[i] = (float)pow(base, -2.0 * (double)i / (double)r->n_rot);
    return true;
}

void ts_load_rope_plain(ts_loader *ld, ts_rope *r, bool neox, double base)
{
    rope_base(ld, r, neox, base);
}

/* The dimension whose wavelength makes `rotations` turns within n_ctx (YaRN, section 3.2). */
static double yarn_dim(const ts_rope *r, double n_ctx, double rotations, double base)
{
    return (double)r->n_rot * log(n_ctx / (rotations * 2 * 3.14159265358979323846)) /
           (2 * log(base));
}

/* YaRN: interpolate the slow dimensions by 1/factor, leave the fast ones, blend between. */
static void rope_yarn(ts_rope *r, double base, const yarn *y)
{
    double low = floor(yarn_dim(r, y->n_ctx, y->fast, base));
    double high = ceil(yarn_dim(r, y->n_ctx, y->slow, base));
    low = fmax(low, 0);
    high = fmin(high, (double)r->n_rot - 1);
    for (int64_t i = 0; i < r->n_rot / 2; i++) {
        double ramp = ((double)i - low) / fmax(0.001, high - low);
        double keep = 1 - fmin(1, fmax(0, ramp)); /* 1 = extrapolate: leave as trained */
        r->freq[i] = (float)(r->freq[i] * (keep + (1 - keep) / y->factor));
    }
    r->mscale = (float)((y->factor > 1 ? 1 + 0.1 * log(y->factor) : 1) * y->attn_factor);
}

/* LongRoPE (arXiv:2402.13753): divisors for each pair, found by search, one set for contexts up to
 * what the model was first trained with and one for longer ones. */
static void rope_long(ts_loader *ld, ts_rope *r, int64_t n_ctx)
{
    const int64_t n = r->n_rot / 2;
    const float *by_short = ts_load_vec(ld, n, "rope_factors_short.weight");
    const float *by_long = ts_load_vec(ld, n, "rope_factors_long.weight");
    float *out = ld->status ? NULL : new_vector(ld, 2 * n, NULL);
    if (!out)
        return;
    for (int64_t i = 0; i < n; i++) {
        if (!(by_short[i] > 0 && by_long[i] > 0)) {
            ts_load_fail(ld, TS_BAD_FILE,
                         "RoPE factor %lld is %g for short and %g for long "
                         "contexts; both must be above 0",
                         (long long)i, (double)by_short[i], (double)by_long[i]);
            return;
        }
        out[i] = r->freq[i] / by_short[i];
        out[n + i] = r->freq[i] / by_long[i];
    }
    r->freq_short = out;
    r->freq_long = out + n;
    r->n_short = n_ctx;
    ts_rope_for(r, 0);
}

static void rope_scaled(ts_loader *ld, ts_rope *r, bool neox, double base)
{
    static const double none = 0, one = 1;
    if (!rope_base(ld, r, neox, base))
        return;
    double factor = ts_load_float(ld, "rope.scale_linear", 0, 1e6, &none); /* the key's old name */
    factor = ts_load_float(ld, "rope.scaling.factor", 0, 1e6, &factor);
    double attn_factor = ts_load_float(ld, "rope.scaling.attn_factor", 0, 1e6, &one);
    int64_t n_ctx =
        ts_load_int(ld, "rope.scaling.original_context_length", 1, MAX_CTX, &ld->m->hp.n_ctx_train);
    if (factor == 0)
        factor = 1;
    r->factor = (float)factor;
    ts_str kind = {"linear", 6};
    char name[128];
    full_key(ld, "rope.scaling.type", name);
    if (!ld->status)
        ld->status = ts_gguf_get_str(ld->m->g, name, &kind, NULL, ld->err);
    if (ld->status)
        return;
    if (kind.n == 4 && memcmp(kind.s, "yarn", 4) == 0) {
        const yarn y = {factor, (double)n_ctx, attn_factor,
                        ts_load_float(ld, "rope.scaling.yarn_beta_fast", 1e-6, 1e6, &yarn_fast),
                        ts_load_float(ld, "rope.scaling.yarn_beta_slow", 1e-6, 1e6, &yarn_slow)};
        r->yarn = true;
        rope_yarn(r, base, &y);
    } else if ((kind.n == 6 && memcmp(kind.s, "linear", 6) == 0) ||
               (kind.n == 8 && memcmp(kind.s, "longrope", 8) == 0)) {
        for (int64_t i = 0; i < r->n_rot / 2; i++)
            r->freq[i] = (float)(r->freq[i] / factor);
        r->mscale = (float)attn_factor;
    } else if (kind.n == 4 && memcmp(kind.s, "none", 4) == 0) {
        r->mscale = (float)attn_factor;
        r->factor = 1;
    } else {
        ts_shown shown;
        ts_load_fail(ld, TS_UNSUPPORTED,
                     "RoPE scaling '%s' isn't supported; none, linear, yarn and longrope are",
                     ts_show(&shown, kind.s, kind.n));
        return;
    }
    /* Llama 3.1 stores its frequency-dependent scaling as one divisor for each pair. */
    const float *div = ts_load_vec_opt(ld, r->n_rot / 2, "rope_freqs.weight");
    for (int64_t i = 0; div && i < r->n_rot / 2; i++)
        r->freq[i] /= div[i];
    if (ts_gguf_tensor(ld->m->g, "rope_factors_long.weight") || kind.n == 8)
        rope_long(ld, r, n_ctx);
}

double ts_load_rope_base(ts_loader *ld)
{
    static const double ten_thousand = 10000;
    return ts_load_float(ld, "rope.freq_base", 1e-6, 1e30, &ten_thousand);
}

void ts_load_rope(ts_loader *ld, ts_rope *r, bool neox)
{
    rope_scaled(ld, r, neox, ts_load_rope_base(ld));
}

const ts_rope *ts_load_rope_swa(ts_loader *ld, bool neox)
{
    const double base = ts_load_rope_base(ld);
    const double swa = ts_load_float(ld, "rope.freq_base_swa", 1e-6, 1e30, &base);
    if (swa == base)
        return &ld->m->rope;
    rope_scaled(ld, &ld->m->rope_swa, neox, swa);
    return &ld->m->rope_swa;
}

/* One flag a layer? Anything that ts_gguf_arr_int reads, for each. */
static bool is_flags(const ts_gguf_arr *a, int64_t n)
{
    return a->type != TS_GGUF_STR && a->type != TS_GGUF_ARR && a->type != TS_GGUF_F32 &&
           a->type != TS_GGUF_F64 && a->n >= (uint64_t)n;
}

void ts_load_windows(ts_loader *ld, int64_t window, int64_t pattern)
{
    ts_model *m = ld->m;
    ts_hparams *hp = &m->hp;
    hp->window = ts_load_int(ld, "attention.sliding_window", 0, MAX_CTX, &window);
    char key[128];
    full_key(ld, "attention.sliding_window_pattern", key);
    const ts_gguf_kv *kv = ts_gguf_find(m->g, key);
    const ts_gguf_arr *flags = kv && kv->type == TS_GGUF_ARR ? &kv->v.arr : NULL;
    if (flags && !is_flags(flags, hp->n_layer)) {
        ts_load_fail(ld, TS_BAD_FILE, "key '%s' is an array that isn't one flag a layer", key);
        return;
    }
    if (!flags)
        pattern = ts_load_int(ld, "attention.sliding_window_pattern", 1, MAX_LAYERS, &pattern);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        bool slides = flags ? ts_gguf_arr_int(flags, (uint64_t)i) != 0 : i % pattern < pattern - 1;
        m->layers[i].window = slides ? hp->window : 0;
    }
}

void ts_load_ends(ts_loader *ld)
{
    ts_model *m = ld->m;
    const ts_hparams *hp = &m->hp;
    if (ld->status)
        return;
    const ts_tensor *t = ts_gguf_tensor(m->g, "token_embd.weight");
    if (t && t->ne[0] == hp->n_embd && t->ne[1] != hp->n_vocab)
        ts_load_fail(ld, TS_BAD_FILE,
                     "tensor 'token_embd.weight' has %lld rows, the vocabulary %lld tokens",
                     (long long)t->ne[1], (long long)hp->n_vocab);
    m->token_embd = ts_load_mat(ld, hp->n_vocab, hp->n_embd, "token_embd.weight"); /* [v][d] */
    m->output_norm = ts_load_vec(ld, hp->n_embd, "output_norm.weight");
    m->output = ts_load_mat_opt(ld, hp->n_vocab, hp->n_embd, "output.weight");
    if (!m->output)
        m->output = m->token_embd;
}

void ts_load_qkvo(ts_loader *ld, int64_t i)
{
    if (ld->status)
        return;
    const ts_hparams *hp = &ld->m->hp;
    ts_layer *l = &ld->m->layers[i];
    int64_t d = hp->n_embd, q = hp->n_head * hp->head_dim, kv = hp->n_head_kv * hp->head_dim;
    int b = (int)i;
    l->wq = ts_load_mat(ld, q, d, "blk.%d.attn_q.weight", b);
    l->wk = ts_load_mat(ld, kv, d, "blk.%d.attn_k.weight", b);
    l->wv = ts_load_mat(ld, kv, d, "blk.%d.attn_v.weight", b);
    l->wo = ts_load_mat(ld, d, q, "blk.%d.attn_output.weight", b);
    l->bq = ts_load_vec_opt(ld, q, "blk.%d.attn_q.bias", b);
    l->bk = ts_load_vec_opt(ld, kv, "blk.%d.attn_k.bias", b);
    l->bv = ts_load_vec_opt(ld, kv, "blk.%d.attn_v.bias", b);
    l->bo = ts_load_vec_opt(ld, d, "blk.%d.attn_output.bias", b);
    l->rope = &ld->m->rope;
}

void ts_load_attention(ts_loader *ld, int64_t i)
{
    if (ld->status)
        return;
    ts_layer *l = &ld->m->layers[i];
    l->attn_norm = ts_load_vec(ld, ld->m->hp.n_embd, "blk.%d.attn_norm.weight", (int)i);
    ts_load_qkvo(ld, i);
    const char *ffn_norm = ld->m->arch->ffn_norm ? ld->m->arch->ffn_norm : "ffn_norm";
    l->ffn_norm = ts_load_vec(ld, ld->m->hp.n_embd, "blk.%d.%s.weight", (int)i, ffn_norm);
}

void ts_load_ffn(ts_loader *ld, int64_t i)
{
    if (ld->status)
        return;
    const ts_hparams *hp = &ld->m->hp;
    ts_layer *l = &ld->m->layers[i];
    int64_t d = hp->n_embd;
    int b = (int)i;
    l->gate = ts_load_mat(ld, hp->n_ff, d, "blk.%d.ffn_gate.weight", b);
    l->up = ts_load_mat(ld, hp->n_ff, d, "blk.%d.ffn_up.weight", b);
    l->down = ts_load_mat(ld, d, hp->n_ff, "blk.%d.ffn_down.weight", b);
    l->b_gate = ts_load_vec_opt(ld, hp->n_ff, "blk.%d.ffn_gate.bias", b);
    l->b_up = ts_load_vec_opt(ld, hp->n_ff, "blk.%d.ffn_up.bias", b);
    l->b_down = ts_load_vec_opt(ld, d, "blk.%d.ffn_down.bias", b);
}

void ts_load_block(ts_loader *ld, int64_t i)
{
    ts_load_attention(ld, i);
    ts_load_ffn(ld, i);
}

/* --- open, close, describe ------------------------------------------------ */

static const ts_arch *find_arch(const ts_str *name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strlen(archs[i]->name) == name->n && memcmp(archs[i]->name, name->s, name->n) == 0)
            return archs[i];
    return NULL;
}

static ts_status choose_arch(ts_model *m, ts_error *err)
{
    ts_str name = {0};
    bool found;
    ts_status s = ts_gguf_get_str(m->g, "general.architecture", &name, &found, err);
    if (s)
        return s;
    if (!found)
        return ts_fail(err, TS_BAD_FILE, "%s: key 'general.architecture' is missing",
                       ts_gguf_path(m->g));
    m->arch = find_arch(&name);
    if (m->arch)
        return TS_OK;
    char known[256] = "";
    size_t at = 0;
    for (size_t i = 0; i < N_ARCHS; i++)
        at +=
            (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", archs[i]->name);
    ts_shown shown;
    return ts_fail(err, TS_UNSUPPORTED, "%s: architecture '%s' isn't supported; these are: %s",
                   ts_gguf_path(m->g), ts_show(&shown, name.s, name.n), known);
}

static void count_tensors(ts_model *m)
{
    for (size_t i = 0; i < ts_gguf_n_tensors(m->g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(m->g, i);
        m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        m->tensor_bytes += t->size;
    }
}

/* Names the first tensor that nothing reads, and counts the rest: a file may hold very many. */
static void warn_unused(const ts_loader *ld)
{
    const ts_tensor *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < ts_gguf_n_tensors(ld->m->g); i++)
        if (!ld->used[i]) {
            first = first ? first : ts_gguf_tensor_at(ld->m->g, i);
            n++;
        }
    ts_shown shown;
    if (n)
        ts_logf(ld->log, TS_LOG_WARN, "architecture '%s' doesn't use %zu of the tensors ('%s'%s)",
                ld->m->arch->name, n, ts_show(&shown, first->name, strlen(first->name)),
                n > 1 ? " and more" : "");
}

ts_status ts_model_open(ts_model **out, const ts_gguf *g, int64_t n_vocab, const ts_log *log,
                        ts_error *err)
{
    size_t n = ts_gguf_n_tensors(g);
    ts_model *m = ts_calloc(1, sizeof *m);
    ts_loader ld = {.m = m, .log = log, .err = err};
    if (!m)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the model");
    m->g = g;
    m->hp.n_vocab = n_vocab;
    m->weights = ts_calloc(n, 3 * sizeof *m->weights);
    ld.used = ts_calloc(n, sizeof *ld.used);
    if (!m->weights || !ld.used) {
        ld.status = ts_fail(err, TS_NO_MEMORY, "no memory for %zu tensor handles", n);
        goto fail;
    }
    ld.status = choose_arch(m, err);
    if (ld.status)
        goto fail;
    m->arch->load(&ld, m);
    if (ld.status)
        goto fail;
    count_tensors(m);
    warn_unused(&ld);
    free(ld.used);
    *out = m;
    return TS_OK;
fail:
    free(ld.used);
    ts_model_close(m);
    return ld.status;
}

void ts_model_close(ts_model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_vectors; i++)
        free(m->vectors[i].v);
    free(m->vectors);
    free(m->weights);
    free(m->parts);
    for (size_t i = 0; i < m->n_slices; i++)
        free(m->slices[i]);
    free(m->slices);
    free(m->layers);
    free(m);
}

void ts_model_describe(const ts_model *m, char *buf, size_t n)
{
    uint64_t bytes[TS_TYPE_COUNT] = {0};
    ts_type most = TS_TYPE_F32;
    for (size_t i = 0; i < m->n_weights; i++) {
        const ts_weight *w = &m->weights[i];
        bytes[w->source->type] += w->source->size;
        if (bytes[w->source->type] > bytes[most])
            most = w->source->type;
    }
    double p = (double)m->n_params;
    const char *unit = p >= 1e9 ? "B" : p >= 1e6 ? "M" : "K";
    double v = p / (p >= 1e9 ? 1e9 : p >= 1e6 ? 1e6 : 1e3);
    snprintf(buf, n, "%s %.*f%s %s", m->arch->name,
             v < 10    ? 2
             : v < 100 ? 1
                       : 0,
             v, unit, ts_type_get(most)->name);
}

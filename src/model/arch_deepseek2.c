/* arch_deepseek2.c - DeepSeek V2, V2-Lite, V3, R1 and Kimi K2 (arXiv:2405.04434,
 * arXiv:2412.19437).
 *
 * Multi-head latent attention in its absorbed form. A token's K and V are one row of c + r elements
 * for all heads: a normed latent, of which every head's V is made and the part of its K that isn't
 * turned, and r turned elements that all heads share. Instead of making K and V from the latent,
 * each head's q is taken to it by k_b, and what attention sums up there is brought back by v_b:
 *
 *     q . [k_b^T c | k_r] = [k_b q_nope | q_r] . [c | k_r]
 *
 * so that attention is one of h query heads over one KV head, K [c | k_r], V c.
 *
 * The first blocks are dense; in the others every token has shared experts besides those chosen for
 * it, by a softmax (V2), or by sigmoids with a bias for choosing and from the best groups (V3). */
#include "plan/step.h"

#include <math.h>

/* Widths of Q's and K's heads without and with what is turned, of V's, and of the latents. */
typedef struct widths {
    int64_t nope, qk, v, c, r, qc;
} widths;

static widths widths_of(const ts_model *m)
{
    const ts_layer *l = &m->layers[0];
    const int64_t c = m->hp.v_dim, r = m->hp.head_dim - c;
    return (widths){.nope = l->k_b->k,
                    .qk = l->k_b->k + r,
                    .v = l->v_b->n,
                    .c = c,
                    .r = r,
                    .qc = l->q_a ? l->q_a->n : 0};
}

/* What attention is over: one KV head, whose K has c + r elements and V c. */
static widths load_widths(ts_loader *ld, ts_hparams *hp)
{
    static const int64_t none = 0;
    widths w = {0};
    if (!ld->status && ts_gguf_tensor(ld->m->g, "blk.0.attn_kv_b.weight"))
        ts_load_fail(
            ld, TS_UNSUPPORTED,
            "tensor 'blk.0.attn_kv_b.weight' has the matrices for K and V in one, as files "
            "of before April 2025 do; convert the model again, to attn_k_b and attn_v_b");
    w.c = ts_load_int(ld, "attention.kv_lora_rank", 1, 65536, NULL);
    w.qc = ts_load_int(ld, "attention.q_lora_rank", 0, 65536, &none);
    w.r = ts_load_int(ld, "rope.dimension_count", 2, 65536, NULL);
    w.qk = ts_load_int(ld, "attention.key_length_mla", 1, 65536, NULL);
    w.v = ts_load_int(ld, "attention.value_length_mla", 1, 65536, NULL);
    w.nope = w.qk - w.r;
    if (ld->status)
        return w;
    if (w.nope < 1)
        ts_load_fail(ld, TS_BAD_FILE, "RoPE turns %lld dimensions of heads that have %lld",
                     (long long)w.r, (long long)w.qk);
    else if (hp->n_head_kv != 1)
        ts_load_fail(ld, TS_BAD_FILE,
                     "there are %lld KV heads; latent attention has one for all heads",
                     (long long)hp->n_head_kv);
    else if (hp->head_dim != w.c + w.r || hp->v_dim != w.c)
        ts_load_fail(ld, TS_BAD_FILE,
                     "K and V have %lld and %lld dimensions; a latent rank of %lld and %lld turned "
                     "dimensions make them %lld and %lld",
                     (long long)hp->head_dim, (long long)hp->v_dim, (long long)w.c, (long long)w.r,
                     (long long)(w.c + w.r), (long long)w.c);
    return w;
}

/* YaRN's correction of magnitudes, as angles have it, reaches only what is turned; DeepSeek
 * multiplies all of q . k by its square. The file says how much of it (mscale_all_dim / 10), and
 * angles have none then; without that key both have it. */
static void load_scale(ts_loader *ld, ts_model *m, const widths *w)
{
    static const double none = 0, one = 1;
    const double log_multiplier =
        ts_load_float(ld, "rope.scaling.yarn_log_multiplier", 0, 1e6, &none) / 0.1;
    const double attn_factor = ts_load_float(ld, "rope.scaling.attn_factor", 0, 1e6, &one);
    const double stretch = m->rope.factor > 1 ? log((double)m->rope.factor) : 0;
    if (ld->status)
        return;
    if (log_multiplier > 0 && m->rope.yarn)
        m->rope.mscale = (float)attn_factor;
    const double f = (double)m->rope.mscale * (1 + 0.1 * log_multiplier * stretch);
    m->hp.attn_scale = (float)(f * f / sqrt((double)w->qk));
}

static void load_attention(ts_loader *ld, ts_model *m, const widths *w, int64_t i)
{
    const int64_t d = m->hp.n_embd, h = m->hp.n_head;
    const int b = (int)i;
    if (ld->status)
        return;
    ts_layer *l = &m->layers[i];
    l->attn_norm = ts_load_vec(ld, d, "blk.%d.attn_norm.weight", b);
    if (w->qc) {
        l->q_a = ts_load_mat(ld, w->qc, d, "blk.%d.attn_q_a.weight", b);
        l->q_a_norm = ts_load_vec(ld, w->qc, "blk.%d.attn_q_a_norm.weight", b);
        l->wq = ts_load_mat(ld, h * w->qk, w->qc, "blk.%d.attn_q_b.weight", b);
    } else {
        l->wq = ts_load_mat(ld, h * w->qk, d, "blk.%d.attn_q.weight", b);
    }
    l->kv_a = ts_load_mat(ld, w->c + w->r, d, "blk.%d.attn_kv_a_mqa.weight", b);
    l->kv_a_norm = ts_load_vec(ld, w->c, "blk.%d.attn_kv_a_norm.weight", b);
    l->k_b = ts_load_stack(ld, h, w->c, w->nope, "blk.%d.attn_k_b.weight", b);
    l->v_b = ts_load_stack(ld, h, w->v, w->c, "blk.%d.attn_v_b.weight", b);
    l->wo = ts_load_mat(ld, d, h * w->v, "blk.%d.attn_output.weight", b);
    l->ffn_norm = ts_load_vec(ld, d, "blk.%d.ffn_norm.weight", b);
    l->rope = &m->rope;
}

static void load(ts_loader *ld, ts_model *m)
{
    static const int64_t none = 0;
    static const double no_scale = 0;
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    /* blocks behind the others predict tokens further on: not for this forward pass */
    hp->n_layer -= ts_load_int(ld, "nextn_predict_layers", 0, hp->n_layer - 1, &none);
    const widths w = load_widths(ld, hp);
    ts_load_rope(ld, &m->rope, false);
    load_scale(ld, m, &w);
    if (ts_load_float(ld, "attention.temperature_scale", -1e9, 1e9, &no_scale) != 0)
        ts_load_fail(ld, TS_UNSUPPORTED, "attention with a temperature isn't supported");
    ts_load_moe(ld);
    ts_load_gating(ld);
    const int64_t dense = ts_load_int(ld, "leading_dense_block_count", 0, hp->n_layer, &none);
    const int64_t shared = ts_load_int(ld, "expert_shared_count", 0, TS_MAX_EXPERTS, &none);
    ts_load_ends(ld);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        load_attention(ld, m, &w, i);
        if (i < dense) {
            ts_load_ffn(ld, i);
            continue;
        }
        ts_load_experts(ld, i);
        m->layers[i].choice_bias =
            ts_load_vec_opt(ld, hp->moe.n_expert, "blk.%d.exp_probs_b.bias", (int)i);
        if (shared)
            ts_load_shared_expert(ld, i, shared * hp->moe.n_ff);
    }
}

/* The latent that every head reads, [c | k_r], into the cache, and what heads sum up of it in o,
 * [m][h*c]. */
static void attend(ts_builder *b, const ts_model *m, const ts_layer *l, const widths *w, ts_buf xn,
                   ts_buf o)
{
    const int64_t h = m->hp.n_head, kc = w->c + w->r;
    ts_buf q = ts_build_buf(b, "q", h * w->qk), kv = ts_build_buf(b, "kv", kc);
    ts_buf qc = ts_build_buf(b, "q in the latent space", h * kc);
    if (l->q_a) {
        ts_buf qa = ts_build_buf(b, "q's latent", w->qc);
        ts_build_matmul(b, qa, xn, l->q_a);  /* [m][qc]     */
        ts_build_matmul(b, kv, xn, l->kv_a); /* [m][c + r]  */
        ts_build_head_norm(b, qa, 1, l->q_a_norm);
        ts_build_matmul(b, q, qa, l->wq); /* [m][h*qk]   */
    } else {
        ts_build_matmul(b, q, xn, l->wq);    /* [m][h*qk]   */
        ts_build_matmul(b, kv, xn, l->kv_a); /* [m][c + r]  */
    }
    ts_build_latent_norm(b, kv, w->c, l->kv_a_norm);
    ts_build_latent_rope(b, kv, 1, w->c, l->rope);
    ts_build_latent_rope(b, q, h, w->nope, l->rope);
    ts_build_store(b, kv, kv);
    ts_build_heads(b, qc, q, l->k_b); /* [m][h*(c + r)] */
    ts_build_attend(b, o, qc, 0);     /* [m][h*c]       */
}

static void build(ts_builder *b, const ts_model *m)
{
    const ts_hparams *hp = &m->hp;
    const widths w = widths_of(m);
    const int64_t d = hp->n_embd, h = hp->n_head;
    ts_buf x = ts_build_buf(b, "x", d), xn = ts_build_buf(b, "xn", d);
    ts_buf o = ts_build_buf(b, "o", h * w.c);

    ts_build_embed(b, x, m->token_embd, hp->embed_scale); /* [m][d] */
    for (int64_t i = 0; i < hp->n_layer; i++) {
        const ts_layer *l = &m->layers[i];
        ts_build_layer(b, i);
        ts_build_norm(b, xn, x, l->attn_norm); /* [m][d]      */
        attend(b, m, l, &w, xn, o);            /* [m][h*c]    */
        if (i == hp->n_layer - 1) {
            o = ts_build_select(b, o);
            x = ts_build_select(b, x);
        }
        ts_buf v = ts_build_buf(b, "v", h * w.v);
        ts_build_heads(b, v, o, l->v_b);     /* [m][h*v]    */
        ts_build_matmul_add(b, x, v, l->wo); /* [m][d]      */

        xn = ts_build_buf(b, "xn", d);
        ts_build_norm(b, xn, x, l->ffn_norm);
        if (l->router) {
            ts_build_experts(b, x, xn, l, TS_OP_SILU);
            continue;
        }
        ts_buf g = ts_build_buf(b, "gate", hp->n_ff), u = ts_build_buf(b, "up", hp->n_ff);
        ts_build_glu(b, TS_OP_SILU, g, u, xn, l->gate, l->up, NULL, NULL); /* [m][ff] */
        ts_build_matmul_add(b, x, g, l->down);                             /* [m][d]  */
    }
    ts_build_logits(b, x);
}

const ts_arch ts_arch_deepseek2 = {
    .name = "deepseek2", .load = load, .build = build, .experts = true, .latent = true};

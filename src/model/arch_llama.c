/* arch_llama.c - Llama 2, 3.x, Mistral, SmolLM2 and kin (arXiv:2302.13971, arXiv:2407.21783);
 * Mixtral, with experts in place of each feed-forward (arXiv:2401.04088).
 *
 * Pre-norm blocks, grouped-query attention with RoPE, SwiGLU. Llama turns adjacent pairs and has no
 * biases and no norms over heads; the kin that share this forward pass have them. */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, false);
    ts_load_ends(ld);
    static const int64_t none = 0;
    const bool experts = ts_load_int(ld, "expert_count", 0, INT32_MAX, &none) > 0;
    if (experts)
        ts_load_moe(ld);
    m->hp.moe.renorm = experts;
    for (int64_t i = 0; i < m->hp.n_layer && !ld->status; i++) {
        if (!experts) {
            ts_load_block(ld, i);
            continue;
        }
        ts_load_attention(ld, i);
        ts_load_experts(ld, i);
    }
}

void ts_build_llama(ts_builder *b, const ts_model *m)
{
    const ts_hparams *hp = &m->hp;
    int64_t d = hp->n_embd, h = hp->n_head, hkv = hp->n_head_kv, hd = hp->head_dim;
    ts_buf x = ts_build_buf(b, "x", d), xn = ts_build_buf(b, "xn", d);
    ts_buf q = ts_build_buf(b, "q", h * hd), o = ts_build_buf(b, "o", h * hd);
    ts_buf k = ts_build_buf(b, "k", hkv * hd), v = ts_build_buf(b, "v", hkv * hd);

    ts_build_embed(b, x, m->token_embd, hp->embed_scale); /* [m][d] */
    for (int64_t i = 0; i < hp->n_layer; i++) {
        const ts_layer *L = &m->layers[i];
        ts_build_layer(b, i);
        ts_build_norm(b, xn, x, L->attn_norm); /* [m][d]      */
        ts_build_matmul(b, q, xn, L->wq);      /* [m][h*hd]   */
        ts_build_matmul(b, k, xn, L->wk);      /* [m][hkv*hd] */
        ts_build_matmul(b, v, xn, L->wv);      /* [m][hkv*hd] */
        ts_build_bias(b, q, L->bq);
        ts_build_bias(b, k, L->bk);
        ts_build_bias(b, v, L->bv);
        ts_build_head_norm(b, q, h, L->q_norm);
        ts_build_head_norm(b, k, hkv, L->k_norm);
        ts_build_rope(b, q, h, L->rope);
        ts_build_rope(b, k, hkv, L->rope);
        ts_build_store(b, k, v);
        ts_build_attend_sinks(b, o, q, L->window, h, L->sinks); /* [m][h*hd]   */
        if (i == hp->n_layer - 1) {
            o = ts_build_select(b, o);
            x = ts_build_select(b, x);
        }
        ts_build_matmul_add(b, x, o, L->wo); /* [m][d]      */
        ts_build_bias(b, x, L->bo);

        xn = ts_build_buf(b, "xn", d);
        ts_build_norm(b, xn, x, L->ffn_norm);
        if (L->router) {
            ts_build_experts(b, x, xn, L, hp->moe.clamped ? TS_OP_CLAMPED : TS_OP_SILU);
            continue;
        }
        ts_buf g = ts_build_buf(b, "gate", hp->n_ff), u = ts_build_buf(b, "up", hp->n_ff);
        ts_build_glu(b, TS_OP_SILU, g, u, xn, L->gate, L->up, L->b_gate, L->b_up); /* [m][ff] */
        ts_build_matmul_add(b, x, g, L->down);                                     /* [m][d] */
        ts_build_bias(b, x, L->b_down);
    }
    ts_build_logits(b, x);
}

const ts_arch ts_arch_llama = {
    .name = "llama", .load = load, .build = ts_build_llama, .experts = true};

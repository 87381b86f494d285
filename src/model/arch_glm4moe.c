/* arch_glm4moe.c - GLM-4.5, 4.6 and Air (arXiv:2508.06471).
 *
 * Llama's block with biases on Q, K and V, in the larger models a norm over each of their heads,
 * and RoPE over part of a head. The first blocks are dense; in the others experts are chosen by
 * sigmoids with a bias, and all tokens have a shared one. A block behind the last predicts further
 * tokens: no part of this forward pass. */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    static const int64_t none = 0;
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    const int64_t blocks = hp->n_layer;
    hp->n_layer -= ts_load_int(ld, "nextn_predict_layers", 0, blocks - 1, &none);
    ts_load_moe(ld);
    ts_load_gating(ld);
    if (ts_load_int(ld, "expert_gating_func", 0, INT32_MAX, &none) == 0)
        hp->moe.gating = TS_GATING_SIGMOID;
    const int64_t dense = ts_load_int(ld, "leading_dense_block_count", 0, hp->n_layer, &none);
    const int64_t shared = ts_load_int(ld, "expert_shared_count", 0, TS_MAX_EXPERTS, &none);
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        const int b = (int)i;
        ts_load_attention(ld, i);
        L->q_norm = ts_load_vec_opt(ld, hp->head_dim, "blk.%d.attn_q_norm.weight", b);
        L->k_norm = ts_load_vec_opt(ld, hp->head_dim, "blk.%d.attn_k_norm.weight", b);
        if (i < dense) {
            ts_load_ffn(ld, i);
            continue;
        }
        ts_load_experts(ld, i);
        L->choice_bias = ts_load_vec_opt(ld, hp->moe.n_expert, "blk.%d.exp_probs_b.bias", b);
        if (shared)
            ts_load_shared_expert(ld, i, shared * hp->moe.n_ff);
    }
    for (int64_t i = hp->n_layer; i < blocks && !ld->status; i++)
        ts_load_ignore_block(ld, i);
}

const ts_arch ts_arch_glm4moe = {.name = "glm4moe",
                                 .load = load,
                                 .build = ts_build_llama,
                                 .experts = true,
                                 .ffn_norm = "post_attention_norm"};

/* arch_qwen3moe.c - Qwen3 with experts (arXiv:2505.09388).
 *
 * Qwen3's attention; every feed-forward is a mixture of experts, chosen by a softmax over all,
 * whose weights are divided by their sum. */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    ts_load_common(ld);
    ts_load_moe(ld);
    m->hp.moe.renorm = true;
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    for (int64_t i = 0; i < m->hp.n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        ts_load_attention(ld, i);
        L->q_norm = ts_load_vec(ld, m->hp.head_dim, "blk.%d.attn_q_norm.weight", (int)i);
        L->k_norm = ts_load_vec(ld, m->hp.head_dim, "blk.%d.attn_k_norm.weight", (int)i);
        ts_load_experts(ld, i);
    }
}

const ts_arch ts_arch_qwen3moe = {
    .name = "qwen3moe", .load = load, .build = ts_build_llama, .experts = true};

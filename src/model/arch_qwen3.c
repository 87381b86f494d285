/* arch_qwen3.c - Qwen3, dense (arXiv:2505.09388).
 *
 * No biases; an RMSNorm over each head of Q and K before RoPE (over the two halves of a head). */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    for (int64_t i = 0; i < m->hp.n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        ts_load_block(ld, i);
        L->q_norm = ts_load_vec(ld, m->hp.head_dim, "blk.%d.attn_q_norm.weight", (int)i);
        L->k_norm = ts_load_vec(ld, m->hp.head_dim, "blk.%d.attn_k_norm.weight", (int)i);
    }
}

const ts_arch ts_arch_qwen3 = {.name = "qwen3", .load = load, .build = ts_build_llama};

/* arch_qwen2moe.c - Qwen1.5 and Qwen2 with experts (arXiv:2407.10671).
 *
 * Qwen2's attention. Experts are chosen by a softmax over all, and their weights stay what they are
 * there; besides, every token has the shared expert, times the sigmoid of a product of its own. */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    ts_load_common(ld);
    ts_load_moe(ld);
    const int64_t found = ts_load_width(ld, "ffn_up_shexp"), n_ff = found ? found : m->hp.n_ff;
    const int64_t n = ts_load_int(ld, "expert_shared_feed_forward_length", 1, INT32_MAX, &n_ff);
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    for (int64_t i = 0; i < m->hp.n_layer && !ld->status; i++) {
        ts_load_attention(ld, i);
        ts_load_experts(ld, i);
        ts_load_shared_expert(ld, i, n);
        m->layers[i].shared_gate =
            ts_load_vec(ld, m->hp.n_embd, "blk.%d.ffn_gate_inp_shexp.weight", (int)i);
    }
}

const ts_arch ts_arch_qwen2moe = {
    .name = "qwen2moe", .load = load, .build = ts_build_llama, .experts = true};

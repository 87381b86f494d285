/* arch_gpt_oss.c - gpt-oss (arXiv:2508.10925).
 *
 * Llama's block with a bias at every product. Each head has a sink, a score that takes part in its
 * softmax and has no V; of two blocks the first sees a sliding window. Every feed-forward is a
 * mixture of experts, weighed by a softmax over those chosen, with an activation that is clamped.
 */
#include "plan/step.h"

/* Every second block sees everything, unless the file says otherwise. */
#define PATTERN 2

static void load_biases(ts_loader *ld, ts_layer *L, const ts_hparams *hp, int b)
{
    const ts_moe *e = &hp->moe;
    L->sinks = ts_load_vec(ld, hp->n_head, "blk.%d.attn_sinks.weight", b);
    L->router_bias = ts_load_vec(ld, e->n_expert, "blk.%d.ffn_gate_inp.bias", b);
    L->b_gate_exps = ts_load_vecs(ld, e->n_expert, e->n_ff, "blk.%d.ffn_gate_exps.bias", b);
    L->b_up_exps = ts_load_vecs(ld, e->n_expert, e->n_ff, "blk.%d.ffn_up_exps.bias", b);
    L->b_down_exps = ts_load_vecs(ld, e->n_expert, hp->n_embd, "blk.%d.ffn_down_exps.bias", b);
}

static void load(ts_loader *ld, ts_model *m)
{
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    ts_load_moe(ld);
    hp->moe.gating = TS_GATING_CHOSEN;
    hp->moe.clamped = true;
    ts_load_rope(ld, &m->rope, true);
    const ts_rope *swa = ts_load_rope_swa(ld, true);
    ts_load_ends(ld);
    ts_load_windows(ld, 0, PATTERN);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        ts_load_attention(ld, i);
        ts_load_experts(ld, i);
        load_biases(ld, L, hp, (int)i);
        L->rope = L->window ? swa : &m->rope;
    }
}

const ts_arch ts_arch_gpt_oss = {.name = "gpt-oss",
                                 .load = load,
                                 .build = ts_build_llama,
                                 .experts = true,
                                 .ffn_norm = "post_attention_norm"};

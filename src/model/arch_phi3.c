/* arch_phi3.c - Phi-3, Phi-3.5, Phi-4 (arXiv:2404.14219, arXiv:2503.01743).
 *
 * Llama's forward pass. Files have Q, K and V as rows of one tensor, gate and up as rows of
 * another, and perhaps LongRoPE; Phi-4-mini turns a part of each head. */
#include "plan/step.h"

static void load_qkv(ts_loader *ld, int64_t i)
{
    const ts_hparams *hp = &ld->m->hp;
    ts_layer *L = &ld->m->layers[i];
    const int64_t d = hp->n_embd, q = hp->n_head * hp->head_dim, kv = hp->n_head_kv * hp->head_dim;
    const char *from = "attn_qkv.weight";
    L->wq = ts_load_rows(ld, i, from, q + 2 * kv, d, "attn_q.weight", 0, q);
    L->wk = ts_load_rows(ld, i, from, q + 2 * kv, d, "attn_k.weight", q, kv);
    L->wv = ts_load_rows(ld, i, from, q + 2 * kv, d, "attn_v.weight", q + kv, kv);
}

static void load(ts_loader *ld, ts_model *m)
{
    static const int64_t none = 0;
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    /* The window in files of Phi-3 mini isn't what was trained with: as in other engines all blocks
     * see everything. */
    const int64_t window = ts_load_int(ld, "attention.sliding_window", 0, (int64_t)1 << 31, &none);
    if (!ld->status && window && window < hp->n_ctx_train)
        ts_logf(ld->log, TS_LOG_INFO, "phi3: the sliding window of %lld positions is left out",
                (long long)window);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        const int64_t d = hp->n_embd, q = hp->n_head * hp->head_dim, ff = hp->n_ff;
        int b = (int)i;
        L->attn_norm = ts_load_vec(ld, d, "blk.%d.attn_norm.weight", b);
        load_qkv(ld, i);
        L->wo = ts_load_mat(ld, d, q, "blk.%d.attn_output.weight", b);
        L->ffn_norm = ts_load_vec(ld, d, "blk.%d.ffn_norm.weight", b);
        L->gate = ts_load_rows(ld, i, "ffn_up.weight", 2 * ff, d, "ffn_gate.weight", 0, ff);
        L->up = ts_load_rows(ld, i, "ffn_up.weight", 2 * ff, d, "ffn_up.weight", ff, ff);
        L->down = ts_load_mat(ld, d, ff, "blk.%d.ffn_down.weight", b);
        L->rope = &m->rope;
    }
}

const ts_arch ts_arch_phi3 = {.name = "phi3", .load = load, .build = ts_build_llama};

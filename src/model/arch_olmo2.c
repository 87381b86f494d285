/* arch_olmo2.c - OLMo 2 and 3 (arXiv:2501.00656).
 *
 * No norm before attention and feed-forward, but one after each, ahead of the residual; and an
 * RMSNorm over all heads of Q together, and of K. OLMo 3 (the same architecture in GGUF) has blocks
 * with a sliding window, all but every fourth; these turn without the scaling of the others. */
#include "plan/step.h"

/* Every fourth block sees everything unless the file says otherwise. */
#define PATTERN 4

static void load(ts_loader *ld, ts_model *m)
{
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    double base = ts_load_rope_base(ld);
    base = ts_load_float(ld, "rope.freq_base_swa", 1e-6, 1e30, &base);
    ts_load_rope_plain(ld, &m->rope_swa, true, base);
    ts_load_windows(ld, 0, PATTERN);
    ts_load_ends(ld);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        int b = (int)i;
        ts_load_qkvo(ld, i);
        ts_load_ffn(ld, i);
        L->q_norm = ts_load_vec(ld, hp->n_head * hp->head_dim, "blk.%d.attn_q_norm.weight", b);
        L->k_norm = ts_load_vec(ld, hp->n_head_kv * hp->head_dim, "blk.%d.attn_k_norm.weight", b);
        L->attn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_attention_norm.weight", b);
        L->ffn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_ffw_norm.weight", b);
        L->rope = L->window ? &m->rope_swa : &m->rope;
    }
}

static void build(ts_builder *b, const ts_model *m)
{
    const ts_hparams *hp = &m->hp;
    int64_t d = hp->n_embd, h = hp->n_head, hkv = hp->n_head_kv, hd = hp->head_dim;
    ts_buf x = ts_build_buf(b, "x", d);
    ts_buf q = ts_build_buf(b, "q", h * hd), o = ts_build_buf(b, "o", h * hd);
    ts_buf k = ts_build_buf(b, "k", hkv * hd), v = ts_build_buf(b, "v", hkv * hd);

    ts_build_embed(b, x, m->token_embd, hp->embed_scale); /* [m][d] */
    for (int64_t i = 0; i < hp->n_layer; i++) {
        const ts_layer *L = &m->layers[i];
        ts_build_layer(b, i);
        ts_build_matmul(b, q, x, L->wq); /* [m][h*hd]   */
        ts_build_matmul(b, k, x, L->wk); /* [m][hkv*hd] */
        ts_build_matmul(b, v, x, L->wv); /* [m][hkv*hd] */
        ts_build_head_norm(b, q, 1, L->q_norm);
        ts_build_head_norm(b, k, 1, L->k_norm);
        ts_build_rope(b, q, h, L->rope);
        ts_build_rope(b, k, hkv, L->rope);
        ts_build_store(b, k, v);
        ts_build_attend(b, o, q, L->window); /* [m][h*hd]   */
        if (i == hp->n_layer - 1) {
            o = ts_build_select(b, o);
            x = ts_build_select(b, x);
        }
        ts_buf y = ts_build_buf(b, "xn", d);
        ts_build_matmul(b, y, o, L->wo); /* [m][d]      */
        ts_build_norm(b, y, y, L->attn_post_norm);
        ts_build_add(b, x, x, y);

        ts_buf g = ts_build_buf(b, "gate", hp->n_ff), u = ts_build_buf(b, "up", hp->n_ff);
        ts_build_glu(b, TS_OP_SILU, g, u, x, L->gate, L->up, NULL, NULL); /* [m][ff] */
        ts_build_matmul(b, y, g, L->down);                                /* [m][d]      */
        ts_build_norm(b, y, y, L->ffn_post_norm);
        ts_build_add(b, x, x, y);
    }
    ts_build_logits(b, x);
}

const ts_arch ts_arch_olmo2 = {.name = "olmo2", .load = load, .build = build};

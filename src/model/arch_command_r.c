/* arch_command_r.c - Command R, Command R+, Aya 23 (Cohere; arXiv:2405.15032).
 *
 * One LayerNorm without bias a block, of which attention and the feed-forward part are made side by
 * side; both are added to the hidden state. SwiGLU, adjacent pairs in RoPE, a tied embedding,
 * logits times a factor, which the last norm's weights take. Command R+ has LayerNorms over each
 * head of Q and K, with weights for each. */
#include "plan/step.h"

static void load_head_norms(ts_loader *ld, ts_layer *L, int b)
{
    const ts_hparams *hp = &ld->m->hp;
    const int64_t hd = hp->head_dim;
    L->q_norm = ts_load_vecs_opt(ld, hp->n_head, hd, "blk.%d.attn_q_norm.weight", b);
    L->k_norm = ts_load_vecs_opt(ld, hp->n_head_kv, hd, "blk.%d.attn_k_norm.weight", b);
    if (!L->q_norm != !L->k_norm)
        ts_load_fail(ld, TS_BAD_FILE,
                     "tensor 'blk.%d.attn_%c_norm.weight' is missing, and that of '%c' is there", b,
                     L->q_norm ? 'k' : 'q', L->q_norm ? 'q' : 'k');
}

static void load(ts_loader *ld, ts_model *m)
{
    static const double none = 1;
    ts_hparams *hp = &m->hp;
    hp->layer_norm = true;
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, false);
    ts_load_ends(ld);
    const double f = ts_load_float(ld, "logit_scale", 1e-6, 1e6, &none);
    for (int64_t i = 0; i < hp->n_embd && !ld->status; i++)
        m->output_norm[i] = (float)(m->output_norm[i] * f);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        L->attn_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.attn_norm.weight", (int)i);
        ts_load_qkvo(ld, i);
        load_head_norms(ld, L, (int)i);
        ts_load_ffn(ld, i);
    }
}

/* What the feed-forward part adds is act(xn gate^T) * (xn up^T) down^T: all but `down` of it. */
static ts_buf gated(ts_builder *b, const ts_model *m, const ts_layer *L, ts_buf xn)
{
    ts_buf g = ts_build_buf(b, "gate", m->hp.n_ff), u = ts_build_buf(b, "up", m->hp.n_ff);
    ts_build_glu(b, TS_OP_SILU, g, u, xn, L->gate, L->up, NULL, NULL); /* [m][ff] */
    return g;
}

static void build(ts_builder *b, const ts_model *m)
{
    const ts_hparams *hp = &m->hp;
    int64_t d = hp->n_embd, h = hp->n_head, hkv = hp->n_head_kv, hd = hp->head_dim;
    ts_buf x = ts_build_buf(b, "x", d), xn = ts_build_buf(b, "xn", d), g = TS_NO_BUF;
    ts_buf q = ts_build_buf(b, "q", h * hd), o = ts_build_buf(b, "o", h * hd);
    ts_buf k = ts_build_buf(b, "k", hkv * hd), v = ts_build_buf(b, "v", hkv * hd);

    ts_build_embed(b, x, m->token_embd, hp->embed_scale); /* [m][d] */
    for (int64_t i = 0; i < hp->n_layer; i++) {
        const ts_layer *L = &m->layers[i];
        const bool last = i == hp->n_layer - 1;
        ts_build_layer(b, i);
        ts_build_norm(b, xn, x, L->attn_norm); /* [m][d]      */
        ts_build_matmul(b, q, xn, L->wq);      /* [m][h*hd]   */
        ts_build_matmul(b, k, xn, L->wk);      /* [m][hkv*hd] */
        ts_build_matmul(b, v, xn, L->wv);      /* [m][hkv*hd] */
        if (!last)                             /* with the others: all read the same activations */
            g = gated(b, m, L, xn);            /* [m][ff] */
        ts_build_each_head_norm(b, q, h, L->q_norm);
        ts_build_each_head_norm(b, k, hkv, L->k_norm);
        ts_build_rope(b, q, h, L->rope);
        ts_build_rope(b, k, hkv, L->rope);
        ts_build_store(b, k, v);
        ts_build_attend(b, o, q, L->window); /* [m][h*hd]   */
        if (last) {
            o = ts_build_select(b, o);
            x = ts_build_select(b, x);
            g = gated(b, m, L, ts_build_select(b, xn));
        }
        ts_build_matmul_add(b, x, o, L->wo);   /* [m][d]      */
        ts_build_matmul_add(b, x, g, L->down); /* [m][d]      */
    }
    ts_build_logits(b, x);
}

const ts_arch ts_arch_command_r = {.name = "command-r", .load = load, .build = build};

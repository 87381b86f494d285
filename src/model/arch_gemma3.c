/* arch_gemma3.c - Gemma 3, text (arXiv:2503.19786).
 *
 * Norms before and after attention and feed-forward, an RMSNorm over each head of Q and K, GELU, an
 * embedding scaled by sqrt(d). Of every `pattern` blocks all but the last see only a sliding
 * window, with a RoPE base of their own. The files' norm weights have the paper's "1 +" folded in.
 */
#include "plan/step.h"

#include <math.h>

/* Every sixth block is global, and sliding ones turn at base 10000, unless the file says otherwise.
 */
#define PATTERN      6
#define SLIDING_BASE 10000.0

/* Gemma 3 27B, the one with 62 blocks, divides q.k by sqrt(d / h) instead of sqrt(hd). */
#define BLOCKS_OF_27B 62

static void load(ts_loader *ld, ts_model *m)
{
    static const double sliding_base = SLIDING_BASE, none = 0;
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    double base = ts_load_float(ld, "rope.freq_base_swa", 1e-6, 1e30, &sliding_base);
    ts_load_rope_plain(ld, &m->rope_swa, true, base);
    ts_load_ends(ld);
    if (ld->status)
        return;
    ts_load_windows(ld, 0, PATTERN);
    hp->embed_scale = sqrtf((float)hp->n_embd);
    hp->logit_softcap = (float)ts_load_float(ld, "final_logit_softcapping", 0, 1e9, &none);
    if (hp->n_layer == BLOCKS_OF_27B)
        hp->attn_scale = 1.0f / sqrtf((float)(hp->n_embd / hp->n_head));
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        int b = (int)i;
        ts_load_block(ld, i);
        L->q_norm = ts_load_vec(ld, hp->head_dim, "blk.%d.attn_q_norm.weight", b);
        L->k_norm = ts_load_vec(ld, hp->head_dim, "blk.%d.attn_k_norm.weight", b);
        L->attn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_attention_norm.weight", b);
        L->ffn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_ffw_norm.weight", b);
        L->rope = L->window ? &m->rope_swa : &m->rope;
    }
}

void ts_build_gemma(ts_builder *b, const ts_model *m)
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
        ts_build_head_norm(b, q, h, L->q_norm);
        ts_build_head_norm(b, k, hkv, L->k_norm);
        ts_build_rope(b, q, h, L->rope);
        ts_build_rope(b, k, hkv, L->rope);
        ts_build_store(b, k, v);
        ts_build_attend(b, o, q, L->window); /* [m][h*hd]   */
        if (i == hp->n_layer - 1) {
            o = ts_build_select(b, o);
            x = ts_build_select(b, x);
        }
        xn = ts_build_buf(b, "xn", d);
        ts_build_matmul(b, xn, o, L->wo); /* [m][d]      */
        ts_build_norm(b, xn, xn, L->attn_post_norm);
        ts_build_add(b, x, x, xn);

        ts_buf g = ts_build_buf(b, "gate", hp->n_ff), u = ts_build_buf(b, "up", hp->n_ff);
        ts_build_norm(b, xn, x, L->ffn_norm);
        ts_build_glu(b, TS_OP_GELU, g, u, xn, L->gate, L->up, NULL, NULL); /* [m][ff] */
        ts_build_matmul(b, xn, g, L->down);                                /* [m][d]      */
        ts_build_norm(b, xn, xn, L->ffn_post_norm);
        ts_build_add(b, x, x, xn);
    }
    ts_build_logits(b, x);
}

const ts_arch ts_arch_gemma3 = {.name = "gemma3", .load = load, .build = ts_build_gemma};

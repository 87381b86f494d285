/* arch_gemma2.c - Gemma 2 (arXiv:2408.00118).
 *
 * As Gemma 3, without norms over the heads of Q and K, which caps of attention's scores and of the
 * logits stand for; every second block sees a sliding window. The files' norm
 * weights have the paper's "1 +" folded in. */
#include "plan/step.h"

#include <math.h>

/* What the models were trained with and files may leave out. */
#define PATTERN   2
#define WINDOW    4096
#define ATTN_CAP  50.0
#define LOGIT_CAP 30.0

/* Gemma 2 27B, the one with 46 blocks, divides q.k by sqrt(d / h) instead of sqrt(hd). */
#define BLOCKS_OF_27B 46

static void load(ts_loader *ld, ts_model *m)
{
    static const double attn_cap = ATTN_CAP, logit_cap = LOGIT_CAP;
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    const ts_rope *swa = ts_load_rope_swa(ld, true);
    ts_load_ends(ld);
    ts_load_windows(ld, WINDOW, PATTERN);
    hp->attn_softcap = (float)ts_load_float(ld, "attn_logit_softcapping", 0, 1e9, &attn_cap);
    hp->logit_softcap = (float)ts_load_float(ld, "final_logit_softcapping", 0, 1e9, &logit_cap);
    hp->embed_scale = sqrtf((float)hp->n_embd);
    if (hp->n_layer == BLOCKS_OF_27B)
        hp->attn_scale = 1.0f / sqrtf((float)(hp->n_embd / hp->n_head));
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++) {
        ts_layer *L = &m->layers[i];
        int b = (int)i;
        ts_load_block(ld, i);
        L->attn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_attention_norm.weight", b);
        L->ffn_post_norm = ts_load_vec(ld, hp->n_embd, "blk.%d.post_ffw_norm.weight", b);
        L->rope = L->window ? swa : &m->rope;
    }
}

const ts_arch ts_arch_gemma2 = {.name = "gemma2", .load = load, .build = ts_build_gemma};

/* arch_granite.c - IBM Granite 3, dense (arXiv:2405.04324; the scales are those of muP,
 * arXiv:2203.03466).
 *
 * Llama with four factors: of the embedding (e), of q.k in place of 1 / sqrt(hd), of what a block
 * adds to the hidden state (r), and of the logits, which are divided by theirs (l). The forward
 * pass has no step for any of them. With x' = x / r
 *
 *   x  = e E[token]            x' = e / r E[token]
 *   x += r f(norm(x))          x' += f(norm'(x'))
 *
 * where f is attention or the feed-forward part with all their biases, and norm' the same RMSNorm:
 * a factor of its input cancels if epsilon is divided by r^2. The last norm's weights take 1 / l.
 */
#include "plan/step.h"

#include <math.h>

/* A factor; 0 is the files' way to say that there is none, which counts as `none`. */
static double factor(ts_loader *ld, const char *key, double none)
{
    static const double zero = 0;
    double f = ts_load_float(ld, key, 0, 1e6, &zero);
    if (f > 0 && f < 1e-6)
        ts_load_fail(ld, TS_BAD_FILE, "key 'granite.%s' is %g; it must be 0 or 1e-06 to 1e+06", key,
                     f);
    return f > 0 ? f : none;
}

/* Granite's files say with this that there is no RoPE at all. */
static void check_rope(ts_loader *ld)
{
    bool finetuned = true;
    if (!ld->status)
        ld->status =
            ts_gguf_get_bool(ld->m->g, "granite.rope.scaling.finetuned", &finetuned, NULL, ld->err);
    if (!finetuned)
        ts_load_fail(ld, TS_UNSUPPORTED,
                     "key 'granite.rope.scaling.finetuned' is false: a model without RoPE, which "
                     "architecture 'granite' can't use");
}

static void load(ts_loader *ld, ts_model *m)
{
    ts_hparams *hp = &m->hp;
    ts_load_common(ld);
    check_rope(ld);
    ts_load_rope(ld, &m->rope, false);
    ts_load_ends(ld);
    const double r = factor(ld, "residual_scale", 1), e = factor(ld, "embedding_scale", 1);
    const double l = ts_load_float(ld, "logit_scale", 1e-6, 1e6, NULL);
    if (ld->status)
        return;
    hp->embed_scale = (float)(e / r);
    hp->norm_eps = (float)(hp->norm_eps / (r * r));
    hp->attn_scale = (float)factor(ld, "attention.scale", hp->attn_scale);
    for (int64_t i = 0; i < hp->n_embd; i++)
        m->output_norm[i] = (float)(m->output_norm[i] / l);
    for (int64_t i = 0; i < hp->n_layer && !ld->status; i++)
        ts_load_block(ld, i);
}

const ts_arch ts_arch_granite = {.name = "granite", .load = load, .build = ts_build_llama};

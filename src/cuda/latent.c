/* latent.c - the steps of latent attention as kernels (latent.h).
 *
 * A head's product with many tokens goes through cuBLAS as the others do, with weights and
 * activations as BF16; both lie in the strip:
 *
 *     strip   x [rows][heads][..] | W of as many heads as there is room for, [n][k] each */
#include "cuda/latent.h"

#include "cuda/impl.h"
#include "cuda/quant.h"

static ts_cuda_rows rows_of(const ts_state *s, ts_buf b)
{
    return (ts_cuda_rows){ts_cuda_row(s, b, 0), s->d->plan->steps.bufs[b].width};
}

static ts_cuda_latents latents_of(const ts_state *s, int layer)
{
    const ts_cuda_kv kv = ts_cuda_kv_of(s, layer);
    return (ts_cuda_latents){
        .x = kv.k, .n_ctx = kv.n_ctx, .dim = kv.head_dim, .c = s->d->m->hp.v_dim};
}

/* --- a matrix for each head ------------------------------------------------------- */

/* Of many tokens. */
static int by_gemm(ts_state *s, const ts_step *st, const ts_cuda_head_mul *p, const ts_cuda_on *on)
{
    ts_device *d = s->d;
    const size_t before = ts_cuda_heads_x(d->plan, st, on->rows);
    uint16_t *x = d->strip, *w = x + before / sizeof *x;
    const int64_t matrix = p->n * p->k, y_head = p->y.ld / p->n_heads;
    const int64_t most = (int64_t)((d->strip_bytes - before) / ((size_t)matrix * sizeof *w));
    int e = ts_cuda_heads_rest(on, p);
    if (!e)
        e = ts_cuda_dequant(x, true, TS_TYPE_F32, p->x.x, 0, on->rows, p->x.ld, on->stream);
    for (int64_t h = 0; h < p->n_heads && !e; h += most) {
        const int64_t heads = p->n_heads - h < most ? p->n_heads - h : most;
        e = ts_cuda_dequant(w, true, p->type, p->w, h * p->n, (h + heads) * p->n, p->k, on->stream);
        if (!e)
            e = ts_rt_gemm_heads(d->gemm, p->y.x + h * y_head, p->y.ld, y_head, x + h * p->x_head,
                                 p->x.ld, p->x_head, w, heads, on->rows, p->n, p->k);
    }
    return e;
}

static int heads(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    ts_cuda_head_mul p = {.type = st->w->source->type,
                          .x = rows_of(s, st->a),
                          .y = rows_of(s, st->dst),
                          .n_heads = st->n_heads,
                          .n = st->w->n,
                          .k = st->w->k,
                          .w = st->w->data};
    p.x_head = p.x.ld / p.n_heads;
    const int e =
        st->w->device == s->d->index ? 0 : ts_cuda_stream_all(s->d->streamed, st->w, &p.w);
    if (e)
        return e;
    return s->d->gemm && on->rows > TS_CUDA_ALONE ? by_gemm(s, st, &p, on)
                                                  : ts_cuda_heads_few(on, &p);
}

/* --- the cache, attention --------------------------------------------------------- */

static int attend(ts_state *s, const ts_step *st, const ts_cuda_on *on)
{
    const ts_hparams *hp = &s->d->m->hp;
    const ts_cuda_latent_attention a = {.q = rows_of(s, st->a),
                                        .o = rows_of(s, st->dst),
                                        .kv = latents_of(s, st->layer),
                                        .n_head = hp->n_head,
                                        .scale = hp->attn_scale,
                                        .work = s->work};
    return ts_cuda_latent_attend(on, &a);
}

int ts_cuda_latent_step(ts_state *s, size_t i, const ts_cuda_on *on)
{
    const ts_step *st = &s->d->plan->steps.v[i];
    if (st->op == TS_OP_HEADS)
        return heads(s, st, on);
    if (st->op == TS_OP_ATTEND)
        return attend(s, st, on);
    const ts_cuda_latents cache = latents_of(s, st->layer);
    return ts_cuda_latent_store(on, rows_of(s, st->a), &cache);
}

int ts_cuda_latent_fused(ts_state *s, size_t first, size_t last, const ts_cuda_on *on)
{
    const ts_device *d = s->d;
    const ts_step *v = d->plan->steps.v, *rope = &v[last - 1]; /* of q */
    while (rope->op == TS_OP_ANGLES)
        rope--;
    const ts_cuda_latent_qkv p = {.kv = rows_of(s, v[last].a),
                                  .q = rows_of(s, rope->dst),
                                  .cs = rows_of(s, rope->a),
                                  .norm = d->vec[first],
                                  .eps = d->m->hp.norm_eps,
                                  .n_heads = rope->n_heads,
                                  .head_dim = rope->d / rope->n_heads,
                                  .skip = rope->skip,
                                  .n_rot = rope->rope->n_rot,
                                  .neox = rope->rope->neox,
                                  .cache = latents_of(s, v[last].layer)};
    return ts_cuda_latent_qkv_store(on, &p);
}

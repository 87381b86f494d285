/* cpu_kv.c - positions of the CPU's KV cache to and from rows of halves, by all threads. Of latent
 * attention, whose V is the beginning of K, K alone is moved. */
#include "exec/cpu.h"

/* The largest head_dim or v_dim that any model here has. */
#define MAX_HEAD 1024

typedef struct kv_job {
    ts_state *s;
    int layer;
    int64_t pos, n;
    uint16_t *out; /* NULL: in */
    const uint16_t *in;
} kv_job;

static void to_halves(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = ts_f32_to_f16(x[i]);
}

/* Thread tid of n takes the tid-th part of the positions. */
static void move(void *arg, int tid, int n)
{
    const kv_job *j = arg;
    const ts_hparams *hp = &j->s->d->m->hp;
    const ts_kv_layout *kv = j->s->d->ops->kv;
    const ts_type_info *half = ts_type_get(TS_TYPE_F16);
    const int64_t hd = hp->head_dim, vd = hp->v_dim, all = hp->n_head_kv * j->n * hd;
    const bool latent = j->s->d->m->arch->latent;
    const int64_t i0 = j->n * tid / n, i1 = j->n * (tid + 1) / n;
    float k_row[MAX_HEAD], v_row[MAX_HEAD];
    for (int64_t h = 0; h < hp->n_head_kv; h++) {
        uint8_t *k = ts_cpu_kv_head(j->s, false, j->layer, h);
        uint8_t *v = ts_cpu_kv_head(j->s, true, j->layer, h);
        for (int64_t i = i0; i < i1; i++) {
            const int64_t at = (h * j->n + i) * hd, v_at = all + (h * j->n + i) * vd;
            if (j->out) {
                kv->load(k, v, j->pos + i, k_row, v_row, hd, vd);
                to_halves(j->out + at, k_row, hd);
                if (!latent)
                    to_halves(j->out + v_at, v_row, vd);
            } else {
                half->to_f32(k_row, j->in + at, hd);
                if (!latent)
                    half->to_f32(v_row, j->in + v_at, vd);
                kv->store(k, v, j->pos + i, k_row, latent ? k_row : v_row, hd, vd);
            }
        }
    }
}

static ts_status run(kv_job *j, ts_error *err)
{
    const ts_hparams *hp = &j->s->d->m->hp;
    const int64_t most = hp->head_dim > hp->v_dim ? hp->head_dim : hp->v_dim;
    if (most > MAX_HEAD)
        return ts_fail(err, TS_UNSUPPORTED, "K and V of %lld dimensions can't be moved",
                       (long long)most);
    ts_pool_run(j->s->d->pool, move, j);
    return TS_OK;
}

ts_status ts_cpu_kv_get(ts_state *s, int layer, int64_t pos, int64_t n, uint16_t *room,
                        const uint16_t **kv, ts_error *err)
{
    kv_job j = {s, layer, pos, n, room, NULL};
    *kv = room;
    return run(&j, err);
}

ts_status ts_cpu_kv_put(ts_state *s, int layer, int64_t pos, int64_t n, const uint16_t *kv,
                        ts_error *err)
{
    kv_job j = {s, layer, pos, n, NULL, kv};
    return run(&j, err);
}

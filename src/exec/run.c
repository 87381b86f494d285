/* run.c - see run.h. */
#include "exec/run.h"

#include <string.h>

#include "base/clock.h"

/* --- devices ---------------------------------------------------------------- */

void ts_devices_close(ts_devices *d)
{
    for (int i = d->n; i-- > 0;)
        d->be[i]->close(d->dev[i]);
    d->n = 0;
}

/* Progress of one device as a part of all. */
typedef struct part {
    const ts_load_options *all;
    double begin, share;
} part;

static bool part_done(void *user, double done)
{
    const part *p = user;
    return p->all->progress(p->all->progress_user, p->begin + p->share * done);
}

static ts_status load(ts_devices *d, ts_model *m, const ts_load_options *opt, ts_error *err)
{
    double all = 0;
    for (int i = 0; i < d->n; i++)
        all += (double)d->plan->dev[i].packed;
    part p = {.all = opt};
    for (int i = d->n;
         i-- > 0;) { /* the CPU last: packing for it takes long, and they may refuse */
        ts_load_options o = *opt;
        p.begin += p.share;
        p.share = d->n == 1 ? 1 : all > 0 ? (double)d->plan->dev[i].packed / all : 0;
        if (o.progress) {
            o.progress = part_done;
            o.progress_user = &p;
        }
        ts_status s = d->be[i]->load(d->dev[i], m, &o, err);
        if (s)
            return s;
    }
    return TS_OK;
}

ts_status ts_devices_open(ts_devices *out, const ts_backend *const be[], const ts_plan *plan,
                          ts_model *m, const ts_load_options *opt, ts_error *err)
{
    *out = (ts_devices){.plan = plan};
    ts_status s = TS_OK;
    for (int i = 0; i < plan->n_devices && !s; i++) {
        out->be[i] = be[i];
        s = be[i]->open(&out->dev[i], plan, i, m, err);
        if (!s)
            out->n++;
    }
    if (!s)
        s = load(out, m, opt, err);
    if (s)
        ts_devices_close(out);
    return s;
}

/* --- sessions --------------------------------------------------------------- */

void ts_run_close(ts_run *r)
{
    for (int i = 0; r->d && i < r->d->n; i++)
        r->d->be[i]->state_close(r->state[i]);
    *r = (ts_run){0};
}

ts_status ts_run_open(ts_run *out, const ts_devices *d, ts_error *err)
{
    ts_run r = {.d = d, .copies.name = "copy"};
    for (int i = 0; i < d->n; i++) {
        ts_status s = d->be[i]->state_open(&r.state[i], d->dev[i], err);
        if (s) {
            ts_run_close(&r);
            return s;
        }
    }
    *out = r;
    return TS_OK;
}

static ts_status copy(ts_run *r, const ts_step *st, const ts_batch *b, int64_t rows, ts_error *err)
{
    const ts_devices *d = r->d;
    const double t0 = r->stats ? ts_now() : 0;
    const int64_t r0 = st->dst == d->plan->steps.logits ? b->logits_row : 0;
    float *cpu = d->be[0]->row(r->state[0], st->dst, r0);
    ts_status s = st->device
                      ? d->be[st->device]->put(r->state[st->device], st->dst, r0, rows, cpu, err)
                      : d->be[st->from]->get(r->state[st->from], st->dst, r0, rows, cpu, err);
    if (r->stats) {
        r->copies.seconds += ts_now() - t0;
        r->copies.calls++;
        r->copies.bytes += (double)rows * (double)st->d * sizeof(float);
    }
    return s;
}

ts_status ts_run_batch(ts_run *r, const ts_batch *b, ts_error *err)
{
    const ts_devices *d = r->d;
    const ts_steps *steps = &d->plan->steps;
    for (size_t i = 0, end; i < steps->n; i = end) {
        const ts_step *st = &steps->v[i];
        const int64_t rows = st->domain == TS_ALL_ROWS ? b->m : b->m_out;
        if (rows == 0) /* nor has what follows: no logits are wanted */
            return TS_OK;
        end = ts_steps_segment(steps, i);
        ts_status s = st->op == TS_OP_COPY
                          ? copy(r, st, b, rows, err)
                          : d->be[st->device]->run(r->state[st->device], b, i, end, err);
        if (s)
            return s;
    }
    return TS_OK;
}

float *ts_run_logits(ts_run *r)
{
    return r->d->be[0]->row(r->state[0], r->d->plan->steps.logits, 0);
}

/* --- statistics ------------------------------------------------------------- */

void ts_run_set_stats(ts_run *r, bool on)
{
    for (int i = 0; i < r->d->n; i++)
        r->d->be[i]->set_stats(r->state[i], on);
    r->copies = (ts_work){.name = "copy"};
    r->stats = on;
}

size_t ts_run_stats(const ts_run *r, ts_work out[TS_MAX_WORK])
{
    size_t n = 0;
    for (int i = 0; i < r->d->n; i++) {
        ts_work w[TS_MAX_WORK];
        const size_t more = r->d->be[i]->stats(r->state[i], w);
        for (size_t j = 0; j < more && n < TS_MAX_WORK; j++) {
            out[n] = w[j];
            out[n++].device = r->d->plan->dev[i].name;
        }
    }
    if (r->d->n > 1 && n < TS_MAX_WORK)
        out[n++] = r->copies;
    return n;
}

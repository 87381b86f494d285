/* test_steps.c - the step list of every architecture: threads meet wherever they must and no more
 * often than is written down, and residuals and biases are where the models have them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "gguf/synth.h"

enum { BARRIERS = 10 }; /* from the first block's first step to the second's */

static bool is(const ts_steps *s, ts_buf x, const char *name)
{
    return x != TS_NO_BUF && strcmp(s->bufs[x].name, name) == 0;
}

/* What a step touches, from what step.h says it does: a set of buffers, and the KV cache as the
 * last. */
typedef struct touched {
    uint64_t read, written;
} touched;

static touched of_step(const ts_step *s)
{
    static const uint64_t cache = (uint64_t)1 << 63;
    touched t = {0, 0};
    const uint64_t a = s->a == TS_NO_BUF ? 0 : (uint64_t)1 << s->a;
    const uint64_t b = s->b == TS_NO_BUF ? 0 : (uint64_t)1 << s->b;
    t.read = s->op == TS_OP_GLU ? a : a | b;
    t.written = s->dst == TS_NO_BUF ? 0 : (uint64_t)1 << s->dst;
    switch (s->op) {
    case TS_OP_GLU:
        t.written |= b;
        break;
    case TS_OP_BIAS:
    case TS_OP_ROPE:
    case TS_OP_SOFTCAP:
        t.read |= t.written;
        break;
    case TS_OP_STORE:
        t.written |= cache;
        break;
    case TS_OP_ATTEND:
        t.read |= cache;
        break;
    default:
        break;
    }
    return t;
}

/* Steps between which no barrier is share nothing that one of them writes, but for each thread's
 * own rows. */
static void barriers_suffice(const ts_steps *s, const char *what)
{
    REQUIRE(s->n_bufs < 63);
    for (size_t q = 0, last = 0; q < s->n; q++) {
        if (s->v[q].barrier)
            last = q;
        touched b = of_step(&s->v[q]);
        for (size_t p = last; p < q; p++) {
            touched a = of_step(&s->v[p]);
            bool own = s->v[p].by_row && s->v[q].by_row && s->v[p].domain == s->v[q].domain;
            CHECK_MSG(own || !((a.written & (b.read | b.written)) | (a.read & b.written)),
                      "%s: no barrier between steps %zu (%s) and %zu (%s)", what, p,
                      ts_op_name(s->v[p].op), q, ts_op_name(s->v[q].op));
        }
    }
}

static int count(const ts_steps *s, int layer, ts_op op)
{
    int n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->v[i].layer == layer && s->v[i].op == op;
    return n;
}

/* The residual is added by the product that makes it, in place, and then a bias to the same rows. A
 * model that has a norm in between adds in a step of its own. */
static void residuals(const ts_steps *s, const ts_model *m, bool norms, bool biases,
                      const char *what)
{
    for (int l = 0; l < (int)m->hp.n_layer; l++) {
        const ts_layer *L = &m->layers[l];
        const ts_weight *w[2] = {L->wo, L->down};
        const float *vec[2] = {biases ? L->bo : NULL, biases ? L->b_down : NULL};
        CHECK_MSG(count(s, l, TS_OP_ADD) == (norms ? 2 : 0), "%s: %d additions in layer %d", what,
                  count(s, l, TS_OP_ADD), l);
        for (size_t i = 0; i + 1 < s->n; i++)
            for (int j = 0; j < 2; j++) {
                const ts_step *st = &s->v[i], *next = st + 1;
                if (st->op != TS_OP_MATMUL || st->layer != l || st->w != w[j])
                    continue;
                CHECK_MSG(norms ? st->b == TS_NO_BUF : st->b == st->dst && is(s, st->dst, "x"),
                          "%s: the residual of step %zu", what, i);
                CHECK_MSG(next->barrier && next->by_row, "%s: step %zu", what, i + 1);
                CHECK_MSG(!vec[j] || (next->op == TS_OP_BIAS && next->dst == st->dst &&
                                      next->vec == vec[j] && !st[2].barrier),
                          "%s: step %zu (%s) should be a bias", what, i + 1, ts_op_name(next->op));
            }
    }
}

static int barriers(const ts_steps *s)
{
    int n = 0;
    size_t i = 0;
    for (; i < s->n && s->v[i].layer < 1; i++)
        n += s->v[i].barrier;
    return n + (i < s->n && s->v[i].barrier);
}

static void one_arch(const char *path, const char *arch, ts_isa isa)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", true, &err) == TS_OK);
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    ts_model *m = e->m;
    const bool norms = m->layers[0].attn_post_norm != NULL;
    barriers_suffice(&e->plan.steps, arch);
    residuals(&e->plan.steps, m, norms, false, arch);
    CHECK_MSG(barriers(&e->plan.steps) == BARRIERS, "%s: %d barriers in a block", arch,
              barriers(&e->plan.steps));

    /* Biases where no file of these tests has them. */
    static float bias[4];
    for (int64_t i = 0; i < m->hp.n_layer && !norms; i++) {
        m->layers[i].bo = bias;
        m->layers[i].b_gate = bias + 1;
        m->layers[i].b_up = bias + 2;
        m->layers[i].b_down = bias + 3;
    }
    ts_steps s;
    REQUIRE(ts_steps_make(&s, m, &err) == TS_OK);
    char what[40];
    snprintf(what, sizeof what, "%s with biases", arch);
    barriers_suffice(&s, what);
    residuals(&s, m, norms, true, what);
    ts_steps_free(&s);
    ts_engine_close(e);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        one_arch(path, archs[i], TS_ISA_REF);
        one_arch(path, archs[i], TS_ISA_AUTO);
    }
    unlink(path);
    return check_done("steps");
}

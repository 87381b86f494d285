/* kind.c - what a plan has to know of NVIDIA GPUs: formats and sizes. No GPU is needed for it. */
#include "cuda/attend.h"
#include "cuda/impl.h"
#include "cuda/latent.h"
#include "cuda/moe.h"
#include "cuda/quant.h"
#include "plan/plan.h"

/* Of few tokens 15 bits, of more BF16: never more bytes for fewer tokens. */
static size_t quant_bytes(int64_t m, int64_t k)
{
    return ts_cuda_act_bytes(m, k);
}

static size_t float_bytes(int64_t m, int64_t k)
{
    return (size_t)m * (size_t)k * sizeof(float);
}

static const ts_prep quant_prep = {.act = TS_ACT_Q8_32,
                                   .isa = TS_ISA_REF,
                                   .limbs = 2,
                                   .m_group = 1,
                                   .k_group = 32,
                                   .bytes = quant_bytes};
static const ts_prep float_prep = {.act = TS_ACT_F32,
                                   .isa = TS_ISA_REF,
                                   .limbs = 1,
                                   .m_group = 1,
                                   .k_group = 1,
                                   .bytes = float_bytes};

#define QUANT(T)                                                                                   \
    {                                                                                              \
        .type = TS_TYPE_##T, .isa = TS_ISA_REF, .layout = "source", .prep = &quant_prep,           \
        .prep_int8 = &quant_prep, .group = 1                                                       \
    }
#define FLOAT(T)                                                                                   \
    {                                                                                              \
        .type = TS_TYPE_##T, .isa = TS_ISA_REF, .layout = "source", .prep = &float_prep,           \
        .prep_int8 = &float_prep, .group = 1                                                       \
    }

static const ts_kset ksets[] = {
    QUANT(Q4_0),  QUANT(Q4_1), QUANT(Q5_0), QUANT(Q5_1), QUANT(Q8_0),   QUANT(Q2_K),
    QUANT(Q3_K),  QUANT(Q4_K), QUANT(Q5_K), QUANT(Q6_K), QUANT(IQ4_NL), QUANT(IQ4_XS),
    QUANT(MXFP4), FLOAT(F32),  FLOAT(F16),  FLOAT(BF16),
};

static const ts_kset *kset(ts_type type)
{
    for (size_t i = 0; i < sizeof ksets / sizeof *ksets; i++)
        if (ksets[i].type == type)
            return &ksets[i];
    return NULL;
}

static size_t kv_bytes(const ts_plan *p, int device, const ts_model *m)
{
    return (size_t)(ts_cuda_kv_parts(m) * ts_plan_kv_layers(p, device)) *
           ts_cuda_kv_elements(p, m) * sizeof(uint16_t);
}

/* Of a device's steps: a vector that two steps read is there twice, which is rare and small. */
size_t ts_cuda_vector_bytes(const ts_plan *p, int device)
{
    size_t n = 0;
    for (size_t i = 0; i < p->steps.n; i++)
        if (p->steps.v[i].device == device)
            n += ts_cuda_aligned((size_t)ts_cuda_vector_floats(&p->steps.v[i]) * sizeof(float));
    return n;
}

size_t ts_cuda_heads_x(const ts_plan *p, const ts_step *st, int64_t rows)
{
    return ts_cuda_aligned((size_t)(rows * p->steps.bufs[st->a].width) * sizeof(uint16_t));
}

/* The strip holds whole rows of the widest weight, and of a stack of heads whole matrices. */
size_t ts_cuda_strip_bytes(const ts_plan *p, int device)
{
    size_t most = 0;
    for (size_t i = 0; i < p->steps.n; i++) {
        const ts_step *st = &p->steps.v[i];
        const bool heads = st->op == TS_OP_HEADS;
        if (st->device != device || (st->op != TS_OP_MATMUL && st->op != TS_OP_GLU && !heads))
            continue;
        const size_t row = (size_t)((heads ? st->w->n : 1) * st->w->k) * sizeof(uint16_t);
        const size_t all = row * (size_t)(heads ? st->w->e : st->w->n);
        size_t strip = row > TS_CUDA_STRIP ? row : all < TS_CUDA_STRIP ? all : TS_CUDA_STRIP;
        strip += heads ? ts_cuda_heads_x(p, st, p->n_ubatch) : 0;
        most = strip > most ? strip : most;
    }
    return most;
}

_Static_assert(TS_CUDA_PAGE == TS_PAGE, "one map for all devices");

ts_cuda_room ts_cuda_room_of(const ts_plan *p, const ts_model *m)
{
    const int64_t pages = (p->n_ctx_seq + TS_PAGE - 1) / TS_PAGE;
    return (ts_cuda_room){.rows = p->n_ubatch,
                          .spans = p->n_seqs,
                          .pages = p->n_seqs * pages,
                          .group = m->arch->latent ? 0 : m->hp.n_head / m->hp.n_head_kv};
}

size_t ts_cuda_batch_bytes(const ts_plan *p, const ts_model *m)
{
    const ts_cuda_room room = ts_cuda_room_of(p, m);
    return p->paged ? ts_cuda_spans_bytes(&room) : sizeof(ts_cuda_batch);
}

size_t ts_cuda_attend_work(const ts_plan *p, const ts_model *m)
{
    if (m->arch->latent)
        return ts_cuda_latent_bytes(m->hp.v_dim, p->n_seqs);
    ts_cuda_kv kv = {.n_ctx = p->n_ctx, .n_head_kv = m->hp.n_head_kv, .head_dim = m->hp.head_dim};
    return ts_cuda_attend_bytes(&kv, m->hp.n_head, TS_CUDA_DECODE);
}

static bool attends(const ts_plan *p, int device)
{
    for (size_t i = 0; i < p->steps.n; i++)
        if (p->steps.v[i].op == TS_OP_ATTEND && p->steps.v[i].device == device)
            return true;
    return false;
}

static size_t work_bytes(ts_plan *p, int device, const ts_model *m)
{
    size_t buffers = 0; /* what alignment adds to them */
    for (size_t i = 0; i < p->steps.n_bufs; i++)
        buffers += p->steps.bufs[i].devices >> device & 1 ? TS_CUDA_ALIGN : 0;
    p->dev[device].scratch = attends(p, device) ? ts_cuda_attend_work(p, m) : 0;
    return buffers + ts_cuda_aligned(p->dev[device].scratch) +
           ts_cuda_aligned(ts_cuda_batch_bytes(p, m)) + ts_cuda_vector_bytes(p, device) +
           ts_cuda_strip_bytes(p, device) + TS_CUDA_BLAS;
}

/* What the kernels of moe.h take. */
static bool experts(const ts_moe *e, const ts_weight *w)
{
    return e->n_expert <= TS_CUDA_EXPERTS && e->n_used <= TS_CUDA_USED &&
           e->n_group <= TS_CUDA_EXPERT_GROUPS && w->k % 32 == 0 && w->n * w->k <= 1 << 30;
}

/* What the kernels of latent.h take. */
static bool latent(const ts_hparams *hp, const ts_weight *k_b, const ts_weight *v_b)
{
    return hp->v_dim % 8 == 0 && hp->head_dim % 8 == 0 && hp->v_dim <= TS_CUDA_LATENT &&
           hp->head_dim <= TS_CUDA_LATENT_ROW && hp->n_head <= 65535 && k_b->k <= TS_CUDA_HEADS_K &&
           v_b->k <= TS_CUDA_HEADS_K;
}

/* As it lies, where it isn't packed. */
static bool streams(const ts_kset *cpu)
{
    return !cpu->packed_bytes || cpu->packing;
}

const ts_accel_kind ts_cuda_kind = {.name = "cuda",
                                    .isa = TS_ISA_REF,
                                    .kset = kset,
                                    .kv_bytes = kv_bytes,
                                    .work_bytes = work_bytes,
                                    .experts = experts,
                                    .latent = latent,
                                    .streams = streams};

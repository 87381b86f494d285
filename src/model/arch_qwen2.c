/* arch_qwen2.c - Qwen2 and Qwen2.5 (arXiv:2407.10671).
 *
 * As Llama, with biases on Q, K and V and RoPE over the two halves of a head. */
#include "plan/step.h"

static void load(ts_loader *ld, ts_model *m)
{
    ts_load_common(ld);
    ts_load_rope(ld, &m->rope, true);
    ts_load_ends(ld);
    for (int64_t i = 0; i < m->hp.n_layer && !ld->status; i++)
        ts_load_block(ld, i);
}

const ts_arch ts_arch_qwen2 = {.name = "qwen2", .load = load, .build = ts_build_llama};

/* device.h - NVIDIA GPUs as devices of a plan.
 *
 * Weights lie in GPU memory as the file has them. Few tokens multiply by 15-bit activations
 * (quant.h), more by BF16: weights are dequantised a strip at a time for cuBLAS. K and V are F16.
 *
 * Memory of a device, one allocation each:
 *
 *     arena    weights, 256-byte aligned
 *     vectors  norms, biases, frequencies of RoPE: one after the other
 *     strip    dequantised rows of one weight; before them, activations that HEADS reads
 *
 * and of a session:
 *
 *     kv       [layer of this device][K, V][kv_head][n_ctx][head_dim] F16; latent: K alone
 *     buffers  those of this device (ts_plan_buffer_bytes), 256-byte aligned
 *     work     partial sums of attention; what changes from batch to batch, of a plan with pages
 * the table of its spans (spans.h)
 *
 * Of latent attention V is K's first elements (latent.h). */
#ifndef TS_CUDA_DEVICE_H
#define TS_CUDA_DEVICE_H

#include "exec/backend.h"

extern const ts_backend ts_backend_cuda;
/* The same without what makes it fast: every step by itself, launched by itself. For tests, which
 * compare: the bits are the same. */
extern const ts_backend ts_backend_cuda_plain;
extern const ts_accel_kind ts_cuda_kind;

#endif

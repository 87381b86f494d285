/* plugin.c - what libtessera_cuda.so shows to the outside. */
#include "cuda/device.h"
#include "exec/gpu.h"

__attribute__((visibility("default"))) const ts_gpu_plugin *ts_cuda_plugin(void);

const ts_gpu_plugin *ts_cuda_plugin(void)
{
    static ts_gpu_plugin p = {.backend = &ts_backend_cuda,
                              .kind = &ts_cuda_kind,
                              .count = ts_rt_count,
                              .get_info = ts_rt_get_info,
                              .text = ts_rt_text};
    p.abi = ts_gpu_abi();
    return &p;
}

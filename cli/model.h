/* model.h - the options every command that opens a model has, and opening it. */
#ifndef TS_CLI_MODEL_H
#define TS_CLI_MODEL_H

#include "opt.h"
#include "report.h"

typedef struct model_opts {
    const char *path, *isa, *prefill, *pack_cache;
    int64_t threads, ctx, ubatch; /* 0: the library's choice */
    int64_t seqs;                 /* timelines of a session; 0: one */
    const char *gpu_layers, *vram, *stream, *memory;
    const char *devices, *split_mode;
    int64_t main_gpu, n_cpu_moe;
    opt_strs overrides, shares, planned; /* model_opts_free when done */
    bool no_kv_offload, cpu_moe, list_devices;
    bool verbose, amx, no_amx, check_finite;
    ts_log_level level; /* of the log; stays where it is while the engine is open */
    cli_progress bar;
} model_opts;

/* What they are before the command line is read. */
#define MODEL_OPTS                                                                                 \
    {                                                                                              \
        .main_gpu = -1, .n_cpu_moe = -1                                                            \
    }

void model_opts_free(model_opts *m);

/* Rows of an option table. */
#define ISA_OPTIONS(o)                                                                             \
    OPT("Model", "--isa", OPT_CHOICE, &(o)->isa, NULL, "widest kernel set to use",                 \
        .choices = "auto|ref|avx2|avx512|amx", .def = "the best this machine has"),                \
        OPT("Model", "--amx", OPT_FLAG, &(o)->amx, NULL,                                           \
            "use AMX tiles, or say what is missing and end"),                                      \
        OPT("Model", "--no-amx", OPT_FLAG, &(o)->no_amx, NULL, "use no AMX tiles")
#define PREFILL_OPTION(o)                                                                          \
    OPT("Model", "--prefill", OPT_CHOICE, &(o)->prefill, NULL,                                     \
        "activations of prefill: int8 is faster and less exact", .choices = "exact|int8",          \
        .def = "exact")
#define MODEL_OPTIONS(o)                                                                           \
    OPT("Model", "-m, --model", OPT_STR, &(o)->path, "FILE",                                       \
        "GGUF file; of a split one, any shard", .required = true),                                 \
        ISA_OPTIONS(o), PREFILL_OPTION(o),                                                         \
        OPT("Model", "-t, --threads", OPT_INT, &(o)->threads, "N", "compute threads", .min = 1,    \
            .max = 1024, .def = "one for each CPU"),                                               \
        OPT("Model", "-ub, --ubatch-size", OPT_INT, &(o)->ubatch, "N",                             \
            "tokens computed together in prefill", .min = 1, .max = 65536, .def = "512"),          \
        OPT("Model", "-v, --verbose", OPT_FLAG, &(o)->verbose, NULL,                               \
            "print the library's log to stderr")
#define GPU_OPTIONS(o)                                                                             \
    OPT("GPU", "-ngl, --gpu-layers, --n-gpu-layers", OPT_STR, &(o)->gpu_layers, "N",               \
        "layers on GPUs, from the last; auto: what fits; all", .def = "auto"),                     \
        GPU_PLACE_OPTIONS(o)
#define GPU_PLACE_OPTIONS(o)                                                                       \
    OPT("GPU", "-dev, --device", OPT_STR, &(o)->devices, "DEV[,DEV]",                              \
        "GPUs that may be used, in this order: CUDA0,CUDA1; none", .def = "all"),                  \
        OPT("GPU", "--list-devices", OPT_FLAG, &(o)->list_devices, NULL, "list the GPUs and end",  \
            .alone = true),                                                                        \
        OPT("GPU", "-sm, --split-mode", OPT_CHOICE, &(o)->split_mode, NULL,                        \
            "several GPUs share the layers, or the main GPU has all", .choices = "layer|none",     \
            .def = "layer"),                                                                       \
        OPT("GPU", "-ts, --tensor-split", OPT_STRS, &(o)->shares, "N[,N]",                         \
            "shares of the layers for each GPU, as 3,1", .def = "by memory"),                      \
        OPT("GPU", "-mg, --main-gpu", OPT_INT, &(o)->main_gpu, "I",                                \
            "with -sm none the only GPU, else the one that gets the output matrix", .min = 0,      \
            .max = 7, .def = "the first, or the last layer's"),                                    \
        OPT("GPU", "-nkvo, --no-kv-offload", OPT_FLAG, &(o)->no_kv_offload, NULL,                  \
            "KV cache and attention stay on the CPU"),                                             \
        OPT("GPU", "-ot, --override-tensor", OPT_STRS, &(o)->overrides, "RE=DEV",                  \
            "weights whose names match go to CPU, CUDA0, ..."),                                    \
        OPT("GPU", "-cmoe, --cpu-moe", OPT_FLAG, &(o)->cpu_moe, NULL,                              \
            "weights of experts stay on the CPU"),                                                 \
        OPT("GPU", "-ncmoe, --n-cpu-moe", OPT_INT, &(o)->n_cpu_moe, "N",                           \
            "those of the first N layers do", .min = 0, .max = 2147483647, .def = ""),             \
        OPT("GPU", "--vram-limit", OPT_STR, &(o)->vram, "SIZE",                                    \
            "memory to take of each GPU: 6G, 800M", .def = "what is free, less a margin"),         \
        OPT("GPU", "--stream", OPT_CHOICE, &(o)->stream, NULL,                                     \
            "bring the CPU's weights to a GPU for prompts: where it is faster, never, or from 32 " \
            "tokens on",                                                                           \
            .choices = "auto|off|on", .def = "auto")
#define CHECK_OPTION(o)                                                                            \
    OPT("Model", "--check-finite", OPT_FLAG, &(o)->check_finite, NULL,                             \
        "look at all that every step writes, end at a NaN or infinity; slow")
#define PACK_CACHE_OPTION(o)                                                                       \
    OPT("Model", "--pack-cache", OPT_STR, &(o)->pack_cache, "DIR",                                 \
        "keep the packed weights in a file there for the next start", .def = "none")
#define CTX_OPTION(o, default_text)                                                                \
    OPT("Model", "-c, --ctx-size", OPT_INT, &(o)->ctx, "N", "positions a session can hold",        \
        .min = 1, .max = 2147483647, .def = default_text)

/* Opens the engine; a bar is drawn on a terminal while it loads, and Ctrl-C ends that
 * (TS_CANCELLED). n_logits as in ts_engine_options. */
ts_status model_open(ts_engine **out, model_opts *m, int64_t n_logits, bool plan_only,
                     ts_error *err);

/* --list-devices: prints them; frees m's lists. The exit status. */
int model_list_devices(model_opts *m);

/* The value of -ngl: a number, "auto" or "all". */
ts_status model_gpu_layers(const char *text, int64_t *out, ts_error *err);

/* The token this model puts before a text by itself (BOS), or -1. */
ts_status model_bos(const ts_engine *e, ts_token *bos, ts_error *err);

/* Opens a session and makes it the one that Ctrl-C cancels. */
ts_status model_session(ts_session **out, ts_engine *e, ts_error *err);
void model_session_close(ts_session *s);

/* The exit status of a failed call: interrupt_status() without a word when Ctrl-C was the cause. */
int model_failed(const ts_error *err);

#endif

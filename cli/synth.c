/* synth.c - tessera synth: a model of random weights in a real model's shape. */
#include "gguf/synth.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "command.h"
#include "interrupt.h"
#include "opt.h"
#include "report.h"

static bool show_progress(void *user, double done)
{
    cli_progress_show(user, done);
    return !interrupt_caught();
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int synth_with(ts_synth_options *o, const char *path)
{
    cli_progress bar = {.label = "writing"};
    ts_synth_result r;
    ts_error err = {0};
    char size[32], params[32];

    interrupt_catch_all();
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes becomes an error of the write */
    o->progress = show_progress;
    o->progress_user = &bar;
    double t = seconds();
    ts_status st = ts_synth_write(path, o, &r, &err);
    cli_progress_end(&bar);
    if (st == TS_CANCELLED)
        return interrupt_status();
    if (st)
        return cli_fail(&err);
    t = seconds() - t;
    fprintf(stderr, "%s: %s %s %s, %lld tensors, %s parameters, %s ", path, o->arch, o->preset,
            o->type, (long long)r.n_tensors, cli_count(params, (uint64_t)r.n_params),
            cli_size(size, r.file_bytes));
    if (o->sparse)
        fprintf(stderr, "of which the weights are a hole\n");
    else
        fprintf(stderr, "in %.2f s (%.2f GB/s)\n", t, (double)r.file_bytes * 1e-9 / t);
    return CLI_OK;
}

int cmd_synth(int argc, char **argv)
{
    ts_synth_options o = {.arch = "llama", .preset = "tiny", .type = "Q4_0"};
    const char *path = NULL;
    int64_t seed = 1, threads = 0;
    const opt table[] = {
        OPT("Model", "--arch", OPT_CHOICE, &o.arch, "ARCH",
            "architecture: llama, qwen2, qwen3, gemma2, gemma3, olmo2, granite, command-r, phi3, "
            "qwen3moe, qwen2moe, glm4moe, gpt-oss, deepseek2",
            .choices = ts_synth_archs()),
        OPT("Model", "--preset", OPT_CHOICE, &o.preset, "PRESET",
            "tiny (under 6 MB), the shape of the real model nearest to 1b or 8b, or one of "
            "30b-a3b, "
            "235b-a22b, a2.7b, glm-4.5-air, gpt-oss-20b, gpt-oss-120b, v2-lite, deepseek-v3; "
            "tiny-moe, tiny-moe-parts, tiny-v3 and tiny-deep are for tests",
            .choices = ts_synth_presets()),
        OPT("Model", "--type", OPT_STR, &o.type, "TYPE",
            "type or mix of types as llama.cpp's quantizer names it: Q4_0, Q4_K_M, ..."),
        OPT("Model", "--pure", OPT_FLAG, &o.pure, NULL, "every matrix in TYPE, no mix"),
        OPT("Model", "--sparse", OPT_FLAG, &o.sparse, NULL,
            "no weights: zeros that take no room on the disk, for plan and inspect"),
        OPT("Model", "--rope-scaling", OPT_CHOICE, &o.rope_scaling, "none|linear|yarn|llama3",
            "scaling of RoPE", .choices = "none|linear|yarn|llama3", .def = "the real model's"),
        OPT("Model", "-s, --seed", OPT_INT, &seed, "S", "the same seed gives the same file",
            .min = 0, .max = 4294967295),
        OPT("Output", "-o, --output", OPT_STR, &path, "FILE", "file to write", .required = true),
        OPT("Output", "-t, --threads", OPT_INT, &threads, "N", "threads; 0: one for each CPU",
            .min = 0, .max = 1024),
    };
    const opt_cmd cmd = {
        .name = "synth",
        .purpose = "write a model of random weights in real shapes",
        .usage = "--arch NAME --preset SIZE --type TYPE -o FILE",
        .example = "tessera synth --arch llama --preset 1b --type Q4_K_M -o 1b.gguf\n"
                   "tessera synth --arch gemma3 --type Q8_0 --seed 7 -o tiny.gguf\n"
                   "tessera synth --arch deepseek2 --preset deepseek-v3 --sparse -o v3.gguf",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status != OPT_GO)
        return status;
    o.seed = (uint64_t)seed;
    o.n_threads = (int)threads;
    return synth_with(&o, path);
}

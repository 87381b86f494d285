/* plan.c - tessera plan: where every weight would go, before anything is allocated. */
#include <stdio.h>

#include "command.h"
#include "model.h"

static int plan_with(model_opts *m, bool json)
{
    ts_engine *e;
    ts_error err = {0};
    char *text;

    ts_status st = model_open(&e, m, 1, true, &err);
    model_opts_free(m);
    if (st)
        return model_failed(&err);
    st = ts_engine_plan(e, json, &text, &err);
    if (!st) {
        fputs(text, stdout);
        ts_free(text);
    }
    ts_engine_close(e);
    return st ? model_failed(&err) : CLI_OK;
}

int cmd_plan(int argc, char **argv)
{
    model_opts m = MODEL_OPTS;
    bool json = false;
    const opt table[] = {
        MODEL_OPTIONS(&m),
        GPU_OPTIONS(&m),
        OPT("GPU", "--gpu", OPT_LINES, &m.planned, "NAME,MEM,BW,LINK",
            "plan for a GPU that isn't there: \"H100,78G,3000GB/s,50GB/s\"; repeated for several"),
        OPT("Model", "--memory", OPT_STR, &m.memory, "SIZE", "main memory to plan for: 512G, 800M",
            .def = "what is free"),
        CTX_OPTION(&m, "what the model was trained for, at most 4096"),
        OPT("Output", "--json", OPT_FLAG, &json, NULL, "JSON for programs (docs/CLI.md)"),
    };
    const opt_cmd cmd = {
        .name = "plan",
        .purpose = "where every weight would go, and what that costs",
        .usage = "-m MODEL [options]",
        .example = "tessera plan -m model.gguf -c 8192",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    return status != OPT_GO ? status
           : m.list_devices ? model_list_devices(&m)
                            : plan_with(&m, json);
}

/* main.c - the program: a table of subcommands. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "opt.h"
#include "report.h"

static const struct {
    const char *name, *purpose;
    command_fn *run;
} commands[] = {
    {"run", "generate text from a prompt", cmd_run},
    {"chat", "talk with a model", cmd_chat},
    {"serve", "answer over HTTP, as OpenAI's API does", cmd_serve},
    {"tokenize", "text to token ids, and back", cmd_tokenize},
    {"grammar", "check a grammar, print a JSON schema's, match a text", cmd_grammar},
    {"inspect", "what a GGUF file holds: metadata, tensors, types, sizes", cmd_inspect},
    {"plan", "where every weight would go, and what that costs", cmd_plan},
    {"bench", "speed of prefill and decode, beside what this machine can do", cmd_bench},
    {"perplexity", "perplexity of a text, KL divergence between two runs", cmd_perplexity},
    {"info", "what this machine has, and what it can do", cmd_info},
    {"synth", "write a model of random weights in real shapes", cmd_synth},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int usage(FILE *f)
{
    fprintf(f, "tessera %s - runs GGUF language models\n\n", ts_version());
    fprintf(f, "Usage: tessera COMMAND [options]\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-12s%s\n", commands[i].name, commands[i].purpose);
    fprintf(f, "\n`tessera COMMAND --help` lists a command's options and shows an example.\n");
    fprintf(f, "`tessera --version` prints the version.\n\nExample:\n");
    fprintf(f, "  tessera run -m model.gguf -p \"The capital of France is\" -n 32\n");
    return CLI_OK;
}

static int unknown(const char *word)
{
    const char *names[N_COMMANDS];

    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = opt_nearest(word, names, N_COMMANDS);
    if (near)
        return cli_error("there is no command '%s'; did you mean '%s'?", word, near);
    return cli_error("there is no command '%s'; `tessera --help` lists them", word);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return CLI_FAILED;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help"))
        return usage(stdout);
    if (!strcmp(word, "--version")) {
        printf("tessera %s\n", ts_version());
        return CLI_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(word, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    return unknown(word);
}

int main(int argc, char **argv)
{
    /* A reader that goes away is an error of write(), dealt with where the text is made. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* so is a limit on the size of files */
    return cli_finish(dispatch(argc, argv));
}

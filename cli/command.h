/* command.h - the subcommands: argv[0] is the subcommand's name, the value is the exit status
 * (report.h). */
#ifndef TS_CLI_COMMAND_H
#define TS_CLI_COMMAND_H

typedef int command_fn(int argc, char **argv);

command_fn cmd_run, cmd_chat, cmd_tokenize, cmd_inspect, cmd_plan, cmd_bench, cmd_perplexity,
    cmd_synth, cmd_info, cmd_grammar, cmd_serve;

#endif

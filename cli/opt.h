/* opt.h - command lines, declared: one table a command, from which parsing, checking and --help
 * follow.
 *
 *     struct { const char *model; int64_t n; bool json; } o = {.n = 128};
 *     const opt table[] = {
 *         OPT("Model", "-m, --model", OPT_STR, &o.model, "FILE", "GGUF file", .required = true),
 *         OPT("Text", "-n, --predict", OPT_INT, &o.n, "N", "tokens to make", .min = 1, .max = 1e6),
 *         OPT("Output", "--json", OPT_FLAG, &o.json, NULL, "print JSON"),
 *     };
 *     const opt_cmd cmd = {"say", "says a thing", "-m FILE", "tessera say -m m.gguf",
 * OPT_TABLE(table)}; int status = opt_start(&cmd, argc, argv); if (status != OPT_GO) return status;
 *
 * A value is the next argument or follows '=': "-n 5", "--predict=5". "--" ends the options. An
 * option that isn't a list is given at most once. "_" in a long name reads as "-". Whatever is
 * wrong becomes one sentence that names the option and the value. */
#ifndef TS_CLI_OPT_H
#define TS_CLI_OPT_H

#include "base/status.h"

typedef enum opt_kind {
    OPT_FLAG,   /* bool: set to true                                         */
    OPT_INT,    /* int64_t in min..max                                       */
    OPT_FLOAT,  /* double in min..max, finite                                */
    OPT_STR,    /* const char *                                              */
    OPT_STRS,   /* opt_strs: repeated, and each value split at commas        */
    OPT_LINES,  /* opt_strs: repeated, each value as it is                   */
    OPT_INTS,   /* opt_ints: the same, each number in min..max               */
    OPT_CHOICE, /* const char *: one of the words in `choices`               */
} opt_kind;

enum { OPT_LIST_MAX = 64 };

/* Elements of a list option; a first value on the command line replaces the preset ones. */
typedef struct opt_strs {
    size_t n;
    char *v[OPT_LIST_MAX]; /* allocated by the parser: opt_strs_free */
} opt_strs;

typedef struct opt_ints {
    size_t n;
    int64_t v[OPT_LIST_MAX];
} opt_ints;

typedef struct opt {
    const char *section; /* heading in --help; equal ones stand together in the table        */
    const char *names;   /* "-m, --model"; NULL for a positional argument                    */
    opt_kind kind;
    void *dst;           /* what `kind` says; its value before parsing is the default        */
    const char *arg;     /* name of the value in --help: "N", "FILE"; NULL for a flag        */
    const char *help;    /* one line, no full stop                                           */
    double min, max;     /* of OPT_INT, OPT_INTS, OPT_FLOAT                                  */
    const char *choices; /* of OPT_CHOICE: "md|json|csv"                                     */
    const char *def;     /* what to print as the default instead of *dst; "" prints none     */
    bool required;
    bool alone; /* a flag: what is required isn't, with it                                   */
} opt;

typedef struct opt_cmd {
    const char *name;    /* "run"                                            */
    const char *purpose; /* one line, no full stop                           */
    const char *usage;   /* what follows "tessera run " in the usage line    */
    const char *example; /* one or more command lines, '\n' between them     */
    const opt *opts;
    size_t n_opts;
} opt_cmd;

/* A row: section, names, kind, destination, argument, help, then whatever else by name. */
#define OPT(section_, names_, kind_, dst_, arg_, ...)                                              \
    {                                                                                              \
        .section = section_, .names = names_, .kind = kind_, .dst = dst_, .arg = arg_,             \
        .help = __VA_ARGS__                                                                        \
    }
#define OPT_TABLE(t) (t), sizeof(t) / sizeof *(t)

/* argv[0] is the subcommand. Fills the destinations; *help is true, and nothing is required, when
 * -h or --help was given. TS_BAD_ARG with a sentence, TS_NO_MEMORY. */
ts_status opt_parse(const opt_cmd *c, int argc, char **argv, bool *help, ts_error *err);

/* The help page. Allocated (free), NULL when memory is short. */
char *opt_help(const opt_cmd *c);

enum { OPT_GO = -1 };

/* opt_parse for a program: prints help or the error. OPT_GO, or the exit status. */
int opt_start(const opt_cmd *c, int argc, char **argv);

void opt_strs_free(opt_strs *l);

/* The word nearest to `word` by Damerau-Levenshtein distance (the first of equals); NULL if there
 * are no words. */
const char *opt_nearest(const char *word, const char *const *words, size_t n);

#endif

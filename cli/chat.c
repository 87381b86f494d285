/* chat.c - tessera chat: a conversation on a terminal, or line by line from a pipe.
 *
 * stdout gets the answers and nothing else; prompts, speeds and what commands say go to stderr. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "grammar/json.h"
#include "interrupt.h"
#include "line.h"
#include "model.h"
#include "talk.h"
#include "text.h"

typedef struct chat_opts {
    model_opts model;
    talk_opts talk;
    const char *system, *system_file, *template_file, *variables;
} chat_opts;

typedef struct chat {
    talk talk;
    line_reader *in;
    char *system, *chat_template; /* read from files */
    bool terminal;                /* somebody types, and reads prompts */
    bool colour;                  /* of answers: stdout is a terminal  */
    bool thinking;                /* the last text shown was thought   */
    bool shown;                   /* of the answer being made anything */
    bool leave;
} chat;

/* --- answers -------------------------------------------------------------------------- */

static bool may_colour(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fd) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

static bool print_answer(void *user, const char *s, size_t n, bool thought)
{
    chat *c = user;
    if (c->thinking != thought) {
        if (!thought)
            fputs("\n\n", stdout); /* the answer proper begins */
        if (c->colour)
            fputs(thought ? "\x1b[2m" : "\x1b[0m", stdout);
        c->thinking = thought;
    }
    fwrite(s, 1, n, stdout);
    fflush(stdout);
    c->shown = true;
    return !cli_stdout_failed();
}

static double rate(int64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_numbers(const talk_numbers *n)
{
    fprintf(stderr, "%lld tokens, %.1f tok/s; prompt of %lld, %lld of them known, %.1f tok/s\n",
            (long long)n->made, rate(n->made, n->decode_seconds), (long long)n->prompt,
            (long long)n->reused, rate(n->prompt - n->reused, n->prefill_seconds));
}

static void end_text(chat *c)
{
    if (c->thinking && c->colour)
        fputs("\x1b[0m", stdout);
    c->thinking = false;
    fputc('\n', stdout);
    fflush(stdout);
}

static void end_answer(chat *c, talk_end end)
{
    end_text(c);
    if (end == TALK_FULL)
        fprintf(stderr,
                "the context of %lld tokens is full: the answer ends here (-c sets it, /reset "
                "begins anew)\n",
                (long long)c->talk.info.n_ctx);
    bool dim = may_colour(STDERR_FILENO);
    fputs(dim ? "\x1b[2m" : "", stderr);
    print_numbers(&c->talk.last);
    fputs(dim ? "\x1b[0m" : "", stderr);
}

/* The exit status to leave with, or OPT_GO. On a terminal a failure is said, and the talk goes on.
 */
static int answer(chat *c, const ts_sb *text)
{
    ts_error err = {0};
    talk_end end = TALK_DONE;
    c->thinking = c->shown = false;
    ts_status st = talk_ask(&c->talk, text->s, text->n, print_answer, c, &end, &err);
    if (st == TS_OK && end == TALK_UNREAD)
        return CLI_OK; /* cli_finish knows why, and the status */
    if (st && c->shown)
        end_text(c);
    if (st == TS_OK)
        end_answer(c, end);
    else if (!c->terminal)
        return model_failed(&err);
    else
        cli_fail(&err);
    return end == TALK_INTERRUPTED && !c->terminal ? interrupt_status() : OPT_GO;
}

/* --- commands --------------------------------------------------------------------------- */

typedef ts_status chat_command(chat *c, const char *arg, ts_error *err);

static ts_status cmd_exit(chat *c, const char *arg, ts_error *err)
{
    (void)arg, (void)err;
    c->leave = true;
    return TS_OK;
}

static ts_status cmd_reset(chat *c, const char *arg, ts_error *err)
{
    (void)arg, (void)err;
    talk_reset(&c->talk);
    fprintf(stderr, "The conversation begins anew.\n");
    return TS_OK;
}

static ts_status cmd_save(chat *c, const char *arg, ts_error *err)
{
    ts_status st = talk_save(&c->talk, arg, err);
    if (st == TS_OK)
        fprintf(stderr, "%zu messages are in %s.\n", json_array_size(c->talk.messages), arg);
    return st;
}

static ts_status cmd_load(chat *c, const char *arg, ts_error *err)
{
    if (strcmp(arg, "-") == 0)
        return ts_fail(err, TS_BAD_ARG, "/load reads a file, not standard input");
    ts_status st = talk_load(&c->talk, arg, err);
    if (st == TS_OK)
        fprintf(stderr, "%zu messages from %s.\n", json_array_size(c->talk.messages), arg);
    return st;
}

static ts_status cmd_system(chat *c, const char *arg, ts_error *err)
{
    ts_sb now = {0};
    if (*arg)
        return talk_set_system(&c->talk, arg, err);
    if (!talk_system(&c->talk, &now))
        ts_sb_str(&now, "There is no system message.");
    if (!now.failed)
        fprintf(stderr, "%s\n", now.s);
    ts_status st = now.failed ? ts_fail(err, TS_NO_MEMORY, "no memory for a text") : TS_OK;
    ts_sb_free(&now);
    return st;
}

static ts_status cmd_stats(chat *c, const char *arg, ts_error *err)
{
    const talk_numbers *all = &c->talk.all;
    (void)arg, (void)err;
    fprintf(stderr, "%lld answers: ", (long long)all->turns);
    print_numbers(all);
    fprintf(stderr, "the context holds %lld of %lld tokens; %s, %s, seed %llu\n",
            (long long)ts_session_pos(c->talk.session), (long long)c->talk.info.n_ctx,
            c->talk.info.desc, c->talk.info.isa, (unsigned long long)c->talk.seed);
    return TS_OK;
}

static ts_status cmd_help(chat *c, const char *arg, ts_error *err);

static const struct {
    const char *name, *arg, *does;
    chat_command *run;
} commands[] = {
    {"help", "", "this list", cmd_help},
    {"reset", "", "forget everything said but the system message", cmd_reset},
    {"system", "TEXT", "set the system message; without TEXT show it", cmd_system},
    {"save", "FILE", "write the conversation to a file, as JSON", cmd_save},
    {"load", "FILE", "go on with the conversation of a file", cmd_load},
    {"stats", "", "tokens and speeds so far", cmd_stats},
    {"exit", "", "leave, as Ctrl-D does", cmd_exit},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static ts_status cmd_help(chat *c, const char *arg, ts_error *err)
{
    (void)c, (void)arg, (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char name[32];
        snprintf(name, sizeof name, "/%s %s", commands[i].name, commands[i].arg);
        fprintf(stderr, "  %-16s%s\n", name, commands[i].does);
    }
    fprintf(stderr,
            "A line that ends in \\ goes on on the next; \"\"\" begins and ends a text of several "
            "lines.\nA line that begins with // is sent with one /. Ctrl-C stops an answer.\n");
    return TS_OK;
}

static ts_status run_command(chat *c, const char *line, ts_error *err)
{
    size_t n = strcspn(line, " \t\n");
    const char *arg = line + n + strspn(line + n, " \t\n");
    char word[24], *end;

    snprintf(word, sizeof word, "%.*s", (int)(n < 23 ? n : 23), line);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, word) != 0)
            continue;
        if (*commands[i].arg == 'F' && !*arg)
            return ts_fail(err, TS_BAD_ARG, "/%s wants the name of a file", word);
        if (!*commands[i].arg && *arg)
            return ts_fail(err, TS_BAD_ARG, "/%s takes nothing behind it", word);
        char *own = strdup(arg);
        if (!own)
            return ts_fail(err, TS_NO_MEMORY, "no memory for a command");
        for (end = own + strlen(own); end > own && isspace((unsigned char)end[-1]);)
            *--end = 0;
        ts_status st = commands[i].run(c, own, err);
        free(own);
        return st;
    }
    return ts_fail(err, TS_BAD_ARG, "there is no command '/%s'; /help lists them", word);
}

static int command(chat *c, const char *line)
{
    ts_error err = {0};
    if (run_command(c, line, &err)) {
        int status = cli_fail(&err);
        return c->terminal ? OPT_GO : status;
    }
    return OPT_GO;
}

/* --- the conversation ------------------------------------------------------------------- */

static bool blank(const ts_sb *text)
{
    for (size_t i = 0; i < text->n; i++)
        if (!isspace((unsigned char)text->s[i]))
            return false;
    return true;
}

/* One text; OPT_GO, or the status to leave with. */
static int turn(chat *c, ts_sb *text)
{
    ts_error err = {0};
    line_end end = LINE_TEXT;
    bool block = false;

    if (line_read(c->in, text, &block, &end, &err)) {
        int status = cli_fail(&err);
        return c->terminal && err.code == TS_BAD_ARG ? OPT_GO : status;
    }
    if (end != LINE_TEXT) {
        if (c->terminal && end == LINE_EOF)
            fputc('\n', stderr);
        return end == LINE_INTERRUPTED && !c->terminal ? interrupt_status() : CLI_OK;
    }
    if (blank(text))
        return OPT_GO;
    if (!block && text->s[0] == '/' && text->s[1] != '/')
        return command(c, text->s + 1);
    if (!block && text->s[0] == '/')
        memmove(text->s, text->s + 1, text->n--); /* the NUL too */
    return answer(c, text);
}

static int converse(chat *c)
{
    ts_sb text = {0};
    int status = OPT_GO;

    if (c->terminal)
        fprintf(stderr, "%s. /help lists the commands.\n", c->talk.info.desc);
    while (status == OPT_GO && !c->leave && !cli_stdout_failed())
        status = turn(c, &text);
    ts_sb_free(&text);
    return status == OPT_GO ? CLI_OK : status;
}

static ts_status read_one_of(const char *text, const char *file, char **out, const char *what,
                             ts_error *err)
{
    size_t n = 0;
    if (text && file)
        return ts_fail(err, TS_BAD_ARG, "%s is given twice, as text and as a file", what);
    if (!file)
        return TS_OK;
    ts_status st = text_read(file, out, &n, err);
    if (st == TS_OK && strlen(*out) != n)
        return ts_fail(err, TS_BAD_ARG, "%s: holds a NUL byte", file);
    if (st == TS_OK && n > 0 && (*out)[n - 1] == '\n')
        (*out)[n - 1] = 0;
    return st;
}

static ts_status read_variables(chat_opts *o, ts_error *err)
{
    if (!o->variables)
        return TS_OK;
    ts_status st = ts_json_read(&o->talk.variables, o->variables, strlen(o->variables),
                                "--chat-template-kwargs", 0, err);
    if (st)
        return st;
    if (!json_is_object(o->talk.variables))
        return ts_fail(err, TS_BAD_ARG, "--chat-template-kwargs wants a JSON object, not '%s'",
                       o->variables);
    return TS_OK;
}

/* libedit leaves what stands between bytes of 1 out of its reckoning, and writes it with the
 * character behind it. */
static const char *prompt(void)
{
    return may_colour(STDERR_FILENO) ? "\1\x1b[1;32m\1>\1\x1b[0m\1 " : "> ";
}

static ts_status open_all(chat *c, chat_opts *o, ts_engine **e, ts_error *err)
{
    ts_status st = read_one_of(o->system, o->system_file, &c->system, "the system message", err);
    if (st == TS_OK)
        st = read_one_of(o->talk.chat_template, o->template_file, &c->chat_template,
                         "the chat template", err);
    if (st == TS_OK)
        st = read_variables(o, err);
    if (c->chat_template)
        o->talk.chat_template = c->chat_template;
    interrupt_catch();
    if (st == TS_OK)
        st = model_open(e, &o->model, 1, false, err);
    if (st == TS_OK)
        st = talk_open(&c->talk, *e, &o->talk, err);
    if (st == TS_OK)
        st = talk_set_system(&c->talk, c->system ? c->system : o->system, err);
    return st ? st : line_open(&c->in, prompt(), err);
}

static int chat_with(chat_opts *o)
{
    chat c = {0};
    ts_engine *e = NULL;
    ts_error err = {0};
    int status;

    if (open_all(&c, o, &e, &err)) {
        status = model_failed(&err);
    } else {
        c.terminal = line_is_terminal(c.in);
        c.colour = may_colour(STDOUT_FILENO);
        status = converse(&c);
    }
    line_close(c.in);
    talk_close(&c.talk);
    ts_engine_close(e);
    json_decref(o->talk.variables);
    free(c.system);
    free(c.chat_template);
    model_opts_free(&o->model);
    return status;
}

int cmd_chat(int argc, char **argv)
{
    chat_opts o = {.model = MODEL_OPTS, .talk = {.batch = 2048, .predict = -1}};
    sampling_init(&o.talk.sampling);
    const opt table[] = {
        MODEL_OPTIONS(&o.model),
        PACK_CACHE_OPTION(&o.model),
        GPU_OPTIONS(&o.model),
        CTX_OPTION(&o.model, "what the model was trained for, at most 4096"),
        OPT("Model", "-b, --batch-size", OPT_INT, &o.talk.batch, "N",
            "tokens of the prompt handed over at once", .min = 1, .max = 1048576),
        OPT("Chat", "-sys, --system-prompt", OPT_STR, &o.system, "TEXT", "the system message",
            .def = "none"),
        OPT("Chat", "-sysf, --system-prompt-file", OPT_STR, &o.system_file, "FILE",
            "read the system message from a file"),
        OPT("Chat", "--chat-template", OPT_STR, &o.talk.chat_template, "JINJA",
            "the chat template, or chatml for that one", .def = "the model's"),
        OPT("Chat", "--chat-template-file", OPT_STR, &o.template_file, "FILE",
            "read the chat template from a file"),
        OPT("Chat", "--chat-template-kwargs", OPT_STR, &o.variables, "JSON",
            "variables for the template, as in {\"enable_thinking\": false}"),
        OPT("Chat", "-n, --predict, --n-predict", OPT_INT, &o.talk.predict, "N",
            "tokens of an answer; -1: until the model ends it or the context is full", .min = -1,
            .max = 2147483647),
        SAMPLING_OPTIONS(&o.talk.sampling),
    };
    const opt_cmd cmd = {
        .name = "chat",
        .purpose = "talk with a model",
        .usage = "-m MODEL [options]",
        .example = "tessera chat -m model.gguf -sys \"You answer briefly.\"\n"
                   "echo \"Why is the sky blue?\" | tessera chat -m model.gguf",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status == OPT_GO && o.model.list_devices)
        return model_list_devices(&o.model);
    return status == OPT_GO ? chat_with(&o) : status;
}

/* run.c - tessera run: text from a prompt.
 *
 * The prompt is evaluated in batches, then token after token is sampled, printed and evaluated
 * until the text ends: enough tokens, an end-of-generation token, a full context, Ctrl-C, or nobody
 * reading. stdout gets the prompt and the text and nothing else. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "command.h"
#include "grammar.h"
#include "interrupt.h"
#include "model.h"
#include "sampling.h"
#include "stats.h"
#include "text.h"

typedef struct run_opts {
    model_opts model;
    const char *prompt, *file;
    bool escape, no_escape, no_display_prompt, special, ignore_eos;
    stats_opts stats;
    int64_t batch, predict;
    sampling_opts sampling;
    grammar_opts grammar;
} run_opts;

/* Why the text ended. */
typedef enum ending { END_COUNT, END_EOG, END_FULL, END_INTERRUPT, END_UNREAD } ending;

typedef struct run {
    const run_opts *o;
    ts_engine *engine;
    ts_session *session;
    ts_sampler *sampler;
    ts_grammar *grammar; /* or NULL */
    ts_engine_info info;
    char *text; /* the prompt */
    size_t n_text;
    ts_token *ids; /* [n_ids] of the prompt */
    size_t n_ids;
    ts_token *eog; /* [n_eog] banned by --ignore-eos */
    size_t n_eog;
    ts_sb held; /* bytes made but not yet a whole character */
    uint64_t seed;
    double prefill_seconds, decode_seconds;
    int64_t n_prefilled, n_decoded; /* tokens evaluated: of the prompt, and one at a time */
    ending end;
} run;

/* --- the prompt --------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \n \r \t \' \" \\ \xHH, in place; any other backslash stays. Returns the new length. */
static size_t unescape(char *s, size_t n)
{
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        const char *p = s[i] == '\\' && i + 1 < n && s[i + 1] ? strchr(from, s[i + 1]) : NULL;
        if (p) {
            s[out++] = to[p - from];
            i++;
        } else if (s[i] == '\\' && i + 3 < n && s[i + 1] == 'x' && hex_digit(s[i + 2]) >= 0 &&
                   hex_digit(s[i + 3]) >= 0) {
            s[out++] = (char)(hex_digit(s[i + 2]) << 4 | hex_digit(s[i + 3]));
            i += 3;
        } else {
            s[out++] = s[i];
        }
    }
    s[out] = 0;
    return out;
}

static ts_status read_prompt(run *r, ts_error *err)
{
    const run_opts *o = r->o;
    bool escapes = o->file ? o->escape : !o->no_escape;

    if (o->prompt && o->file)
        return ts_fail(err, TS_BAD_ARG, "the prompt is given twice, with -p and with -f");
    if (o->escape && o->no_escape)
        return ts_fail(err, TS_BAD_ARG, "--escape and --no-escape exclude each other");
    if (o->file) {
        ts_status st = text_read(o->file, &r->text, &r->n_text, err);
        if (st)
            return st;
        /* An editor ends the last line for its own sake. */
        if (r->n_text && r->text[r->n_text - 1] == '\n')
            r->text[--r->n_text] = 0;
    } else {
        r->text = strdup(o->prompt ? o->prompt : "");
        if (!r->text)
            return ts_fail(err, TS_NO_MEMORY, "no memory for the prompt");
        r->n_text = strlen(r->text);
    }
    if (escapes)
        r->n_text = unescape(r->text, r->n_text);
    return TS_OK;
}

static ts_status tokenize_prompt(run *r, ts_error *err)
{
    ts_status st = ts_tokenize(r->engine, r->text, r->n_text,
                               TS_TOK_ADD_SPECIAL | TS_TOK_PARSE_SPECIAL, &r->ids, &r->n_ids, err);

    if (st)
        return st;
    if (r->n_ids == 0)
        return ts_fail(err, TS_BAD_ARG,
                       "the prompt is empty and this model adds no BOS token: there is nothing to "
                       "begin with");
    if ((int64_t)r->n_ids > r->info.n_ctx)
        return ts_fail(err, TS_BAD_ARG,
                       "the prompt has %zu tokens, but the context holds %lld (-c sets it)",
                       r->n_ids, (long long)r->info.n_ctx);
    return TS_OK;
}

/* --- output ------------------------------------------------------------- */

/* Prints what is whole characters; the begun one waits for its rest. */
static void print_piece(run *r, const char *s, size_t n)
{
    ts_sb_add(&r->held, s, n);
    if (r->held.n == 0)
        return;
    size_t tail = ts_utf8_tail(r->held.s, r->held.n), whole = r->held.n - tail;
    fwrite(r->held.s, 1, whole, stdout);
    fflush(stdout);
    memmove(r->held.s, r->held.s + whole, tail);
    r->held.n = tail;
}

static void end_text(run *r)
{
    if (r->held.n)
        fwrite(r->held.s, 1, r->held.n, stdout);
    fputc('\n', stdout);
    fflush(stdout);
}

static void print_rate(const char *what, int64_t n, double seconds)
{
    fprintf(stderr, "%-8s %9.3f s", what, seconds);
    if (n >= 0)
        fprintf(stderr, "  %6lld tokens", (long long)n);
    if (n > 0 && seconds > 0)
        fprintf(stderr, "  %9.2f tok/s", (double)n / seconds);
    fputc('\n', stderr);
}

static void print_timings(const run *r)
{
    if (ts_sampler_grammar_state(r->sampler) == TS_GRAMMAR_OPEN)
        fprintf(stderr, "\nThe text ends before the grammar says that it is complete.\n");
    if (r->end == END_FULL)
        fprintf(stderr, "\nThe context of %lld tokens is full: the text ends here (-c sets it).\n",
                (long long)r->info.n_ctx);
    fprintf(stderr, "\n%s, %s, %d thread%s, seed %llu\n", r->info.desc, r->info.isa,
            r->info.n_threads, r->info.n_threads == 1 ? "" : "s", (unsigned long long)r->seed);
    print_rate("load", -1, r->info.load_seconds);
    print_rate("prefill", r->n_prefilled, r->prefill_seconds);
    print_rate("decode", r->n_decoded, r->decode_seconds);
}

/* --- generation --------------------------------------------------------- */

/* Interrupted, it ends well with fewer tokens than the prompt has. */
static ts_status prefill(run *r, ts_error *err)
{
    double start = cli_now();
    size_t batch = (size_t)r->o->batch;
    ts_status st = TS_OK;

    for (size_t i = 0; i < r->n_ids && !st; i += batch) {
        size_t n = r->n_ids - i < batch ? r->n_ids - i : batch;
        st = ts_session_eval(r->session, r->ids + i, n, 1, err);
    }
    r->n_prefilled = ts_session_pos(r->session);
    r->prefill_seconds = cli_now() - start;
    if (st == TS_CANCELLED && interrupt_caught()) {
        r->end = END_INTERRUPT;
        return TS_OK;
    }
    for (size_t i = 0; i < r->n_ids; i++)
        ts_sampler_accept(r->sampler, r->ids[i]);
    return st ? st : ts_sampler_set_grammar(r->sampler, r->grammar, err);
}

static ts_status sample(run *r, ts_token *id, ts_error *err)
{
    float *logits = ts_session_logits(r->session, 0);

    for (size_t i = 0; i < r->n_eog; i++)
        logits[r->eog[i]] = -INFINITY;
    ts_status st = ts_sampler_sample(r->sampler, logits, (size_t)r->info.n_vocab, id, err);
    if (!st)
        ts_sampler_accept(r->sampler, *id);
    return st;
}

/* Samples, prints, evaluates; r->end says why it stopped. */
static ts_status decode(run *r, ts_error *err)
{
    int64_t most = r->o->predict < 0 ? INT64_MAX : r->o->predict;
    double start = cli_now();
    ts_status st = TS_OK;

    r->end = END_COUNT;
    for (int64_t made = 0; made < most;) {
        ts_token id;
        const char *piece;
        if ((st = sample(r, &id, err)))
            break;
        if (!r->o->ignore_eos && ts_token_is_eog(r->engine, id)) {
            r->end = END_EOG;
            break;
        }
        size_t n = ts_token_piece(r->engine, id, r->o->special, &piece);
        print_piece(r, piece, n);
        if (cli_stdout_failed()) {
            r->end = END_UNREAD;
            break;
        }
        if (ts_sampler_grammar_state(r->sampler) == TS_GRAMMAR_ENDED) {
            r->end = END_EOG;
            break;
        }
        if (++made == most) /* nobody will ask for the logits behind the last token */
            break;
        if (ts_session_pos(r->session) == r->info.n_ctx) {
            r->end = END_FULL;
            break;
        }
        if (interrupt_caught() || (st = ts_session_eval(r->session, &id, 1, 1, err))) {
            if (interrupt_caught()) {
                r->end = END_INTERRUPT;
                st = TS_OK;
            }
            break;
        }
        r->n_decoded++;
    }
    r->decode_seconds = cli_now() - start;
    return st;
}

static ts_status find_eog(run *r, ts_error *err)
{
    if (!r->o->ignore_eos)
        return TS_OK;
    r->eog = ts_calloc((size_t)r->info.n_vocab, sizeof *r->eog);
    if (!r->eog)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the end-of-generation tokens");
    for (ts_token id = 0; id < r->info.n_vocab; id++)
        if (ts_token_is_eog(r->engine, id))
            r->eog[r->n_eog++] = id;
    return TS_OK;
}

static ts_status open_grammar(run *r, ts_error *err)
{
    char *text;
    size_t n;
    ts_status st = grammar_read(&r->o->grammar, &text, &n, err);

    if (!st && text)
        st = ts_grammar_open(&r->grammar, r->engine, text, n, err);
    free(text);
    return st;
}

/* --- the command -------------------------------------------------------- */

static ts_status open_all(run *r, run_opts *o, ts_error *err)
{
    ts_status st = read_prompt(r, err);
    if (!st)
        st = sampling_open(&r->sampler, &r->o->sampling, r->seed, err);
    interrupt_catch(); /* not before: Ctrl-C while the prompt is typed just ends the program */
    if (!st)
        st = model_open(&r->engine, &o->model, 1, false, err);
    if (st)
        return st;
    ts_engine_get_info(r->engine, &r->info);
    st = tokenize_prompt(r, err);
    if (!st)
        st = find_eog(r, err);
    if (!st)
        st = open_grammar(r, err);
    if (!st)
        st = model_session(&r->session, r->engine, err);
    if (!st)
        stats_start(r->session, &o->stats);
    return st;
}

/* The text, from the first byte of the prompt to the newline behind it; the exit status. */
static int generate(run *r)
{
    ts_error err = {0};

    if (!r->o->no_display_prompt) {
        fwrite(r->text, 1, r->n_text, stdout);
        fflush(stdout);
    }
    ts_status st = prefill(r, &err);
    if (!st && r->end != END_INTERRUPT)
        st = decode(r, &err);
    if (r->end == END_UNREAD)
        return CLI_OK; /* cli_finish knows why, and the status */
    end_text(r);
    if (st)
        return model_failed(&err);
    print_timings(r);
    if (stats_report(r->session, &r->o->stats, &err))
        return cli_fail(&err);
    return r->end == END_INTERRUPT ? interrupt_status() : CLI_OK;
}

static void close_all(run *r)
{
    model_session_close(r->session);
    ts_sampler_close(r->sampler);
    ts_grammar_close(r->grammar);
    ts_engine_close(r->engine);
    ts_free(r->ids);
    free(r->eog);
    free(r->text);
    ts_sb_free(&r->held);
}

static int run_with(run_opts *o)
{
    run r = {.o = o};
    ts_error err = {0};

    r.seed = sampling_seed(&o->sampling);
    int status = open_all(&r, o, &err) ? model_failed(&err) : generate(&r);
    close_all(&r);
    model_opts_free(&o->model);
    return status;
}

int cmd_run(int argc, char **argv)
{
    run_opts o = {.model = MODEL_OPTS, .batch = 2048, .predict = -1};
    sampling_init(&o.sampling);
    const opt table[] = {
        MODEL_OPTIONS(&o.model),
        PACK_CACHE_OPTION(&o.model),
        CHECK_OPTION(&o.model),
        GPU_OPTIONS(&o.model),
        CTX_OPTION(&o.model, "what the model was trained for, at most 4096"),
        OPT("Model", "-b, --batch-size", OPT_INT, &o.batch, "N",
            "tokens of the prompt handed over at once", .min = 1, .max = 1048576),
        OPT("Prompt", "-p, --prompt", OPT_STR, &o.prompt, "TEXT",
            "the prompt; \\n \\r \\t \\' \\\" \\\\ \\xHH are escapes", .def = "empty"),
        OPT("Prompt", "-f, --file", OPT_STR, &o.file, "FILE",
            "read the prompt from a file, - for stdin; one newline at its end is dropped"),
        OPT("Prompt", "-e, --escape", OPT_FLAG, &o.escape, NULL, "escapes in the text of -f too"),
        OPT("Prompt", "--no-escape", OPT_FLAG, &o.no_escape, NULL, "no escapes, not in -p either"),
        OPT("Output", "-n, --predict, --n-predict", OPT_INT, &o.predict, "N",
            "tokens to make; -1: until the model ends the text or the context is full", .min = -1,
            .max = 2147483647),
        OPT("Output", "--ignore-eos", OPT_FLAG, &o.ignore_eos, NULL,
            "never choose a token that ends the text"),
        OPT("Output", "--no-display-prompt", OPT_FLAG, &o.no_display_prompt, NULL,
            "print only what was made, not the prompt before it"),
        OPT("Output", "-sp, --special", OPT_FLAG, &o.special, NULL, "print control tokens as text"),
        STATS_OPTIONS(&o.stats),
        GRAMMAR_OPTIONS(&o.grammar),
        SAMPLING_OPTIONS(&o.sampling),
    };
    const opt_cmd cmd = {
        .name = "run",
        .purpose = "generate text from a prompt",
        .usage = "-m MODEL -p PROMPT [options]",
        .example = "tessera run -m model.gguf -p \"The capital of France is\" -n 32 --temp 0",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status == OPT_GO && o.model.list_devices)
        return model_list_devices(&o.model);
    return status == OPT_GO ? run_with(&o) : status;
}

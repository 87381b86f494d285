/* bench.c - tessera bench: the speed of prefill and decode, as llama-bench measures it.
 *
 * Every test runs once to warm up, then `reps` times from the same position with random tokens.
 * Just before it the machine is probed with the same number of threads; the best figures so far for
 * that number are what the results are compared with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "bench.h"
#include "command.h"
#include "gguf/gguf.h"
#include "interrupt.h"
#include "model.h"
#include "stats.h"

typedef struct bench_opts {
    opt_strs models, gpu_layers;
    opt_ints prompts, gens, pairs, depths, steps, threads;
    int64_t batch, reps;
    const char *format;
    bool no_warmup, calibrate;
    stats_opts stats;
    model_opts model; /* of the engine that is open */
} bench_opts;

typedef struct bench {
    bench_opts *o;
    bench_printer out;
    ts_engine *engine; /* of one model and one number of threads */
    ts_session *session;
    ts_prober *prober;
    ts_token bos; /* -1 = none */
    uint64_t rng;
    ts_token *ids; /* [batch] or [longest step], whichever is more */
    bench_result r;
    double calibrated[OPT_LIST_MAX][3]; /* --calibrate: of each prompt, in each mode, tokens/s */
    int mode;                           /* the one that is measured                            */
} bench;

/* In the order of `calibrated`. */
static const char *const stream_modes[] = {"off", "on", "auto"};

/* --- what a token costs ------------------------------------------------- */

/* "<architecture>.<key>", or `otherwise`. */
static int64_t arch_int(const ts_gguf *g, const char *key, int64_t otherwise)
{
    ts_str arch = {0};
    char name[128];
    int64_t v = otherwise;
    bool found;
    ts_error ignored;
    if (ts_gguf_get_str(g, "general.architecture", &arch, &found, &ignored) || !found)
        return otherwise;
    snprintf(name, sizeof name, "%.*s.%s", (int)(arch.n < 64 ? arch.n : 64), arch.s, key);
    return ts_gguf_get_int(g, name, 0, INT32_MAX, &v, &found, &ignored) ? otherwise : v;
}

/* The N of "blk.N."; -1: it belongs to none. */
static int64_t block_of(const char *name)
{
    long n;
    return sscanf(name, "blk.%ld.", &n) == 1 ? n : -1;
}

/* Experts of which a token chooses: a stack of them, or in old files one. */
static bool of_expert(const char *name)
{
    long n, expert;
    char what[8];
    return strstr(name, "_exps.") ||
           sscanf(name, "blk.%ld.ffn_%7[a-z].%ld.", &n, what, &expert) == 3;
}

static ts_status count_work(const char *path, bench_work *w, ts_error *err)
{
    ts_gguf *g;
    ts_status st = ts_gguf_open(&g, path, err);

    if (st)
        return st;
    const ts_tensor *embd = ts_gguf_tensor(g, "token_embd.weight");
    const ts_tensor *head = ts_gguf_tensor(g, "output.weight");
    uint64_t int8_params = 0;
    if (!head)
        head = embd; /* tied: the embedding is the output matrix too */
    const int64_t experts = arch_int(g, "expert_count", 0);
    const int64_t used = arch_int(g, "expert_used_count", experts);
    const int64_t layers = arch_int(g, "block_count", INT32_MAX) -
                           arch_int(g, "nextn_predict_layers", 0); /* those aren't computed */
    *w = (bench_work){0};
    for (size_t i = 0; i < ts_gguf_n_tensors(g); i++) {
        const ts_tensor *t = ts_gguf_tensor_at(g, i);
        uint64_t n = (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2]);
        if (t->n_dims < 2 || block_of(t->name) >= layers ||
            (t == embd && t != head)) /* of that one row is read */
            continue;
        const bool some = experts && of_expert(t->name); /* used of experts */
        if (some)
            n = n / (uint64_t)experts * (uint64_t)used;
        w->weight_bytes += some ? t->size * (uint64_t)used / (uint64_t)experts : t->size;
        if (t == head)
            w->head_params = n;
        else
            w->body_params += n;
        if (ts_type_get(t->type)->act != TS_ACT_F32)
            int8_params += n;
    }
    w->int8 = int8_params > (w->body_params + w->head_params) / 2;
    ts_gguf_close(g);
    return TS_OK;
}

/* --- running ------------------------------------------------------------ */

/* splitmix64 */
static ts_token random_token(bench *b)
{
    uint64_t z = (b->rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (ts_token)((z >> 32) % (uint64_t)b->r.info.n_vocab);
}

static ts_status run_prompt(bench *b, int64_t n, ts_error *err)
{
    for (int64_t done = 0; done < n;) {
        int64_t m = n - done < b->o->batch ? n - done : b->o->batch;
        for (int64_t i = 0; i < m; i++)
            b->ids[i] = random_token(b);
        if (done == 0 && b->bos >= 0)
            b->ids[0] = b->bos;
        ts_status st = ts_session_eval(b->session, b->ids, (size_t)m, 1, err);
        if (st)
            return st;
        done += m;
    }
    return TS_OK;
}

/* n tokens, n_step of them in each eval, with the logits of all. */
static ts_status run_gen(bench *b, int64_t n, ts_error *err)
{
    ts_token first = b->bos >= 0 ? b->bos : random_token(b);

    for (int64_t done = 0; done < n;) {
        int64_t m = n - done < b->r.n_step ? n - done : b->r.n_step;
        for (int64_t i = 0; i < m; i++)
            b->ids[i] = done + i == 0 ? first : random_token(b);
        ts_status st = ts_session_eval(b->session, b->ids, (size_t)m, (size_t)m, err);
        if (st)
            return st;
        done += m;
    }
    return TS_OK;
}

static ts_status warm_up(bench *b, ts_error *err)
{
    ts_status st = run_prompt(b, b->r.n_prompt, err);

    if (!st && b->r.n_gen)
        st = run_gen(b, b->r.n_gen < b->r.n_step ? b->r.n_gen : b->r.n_step, err);
    return st;
}

static ts_status time_reps(bench *b, ts_error *err)
{
    bench_result *r = &b->r;

    for (r->n_reps = 0; r->n_reps < b->o->reps; r->n_reps++) {
        ts_status st = ts_session_rewind(b->session, r->n_depth, err);
        double start = cli_now();
        if (!st)
            st = run_prompt(b, r->n_prompt, err);
        if (!st)
            st = run_gen(b, r->n_gen, err);
        if (st)
            return st;
        if (interrupt_caught())
            return ts_fail(err, TS_CANCELLED, "interrupted");
        uint64_t ns = (uint64_t)(1e9 * (cli_now() - start));
        r->ns[r->n_reps] = ns ? ns : 1;
    }
    return TS_OK;
}

static ts_status run_test(bench *b, int64_t n_prompt, int64_t n_gen, int64_t n_depth, ts_error *err)
{
    bench_result *r = &b->r;
    time_t t = time(NULL);
    struct tm tm;

    if (n_prompt + n_gen == 0)
        return TS_OK;
    r->n_prompt = n_prompt;
    r->n_gen = n_gen;
    r->n_depth = n_depth;
    strftime(r->time, sizeof r->time, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    ts_prober_run(b->prober, &r->peak);
    ts_status st = ts_session_rewind(b->session, 0, err);
    if (!st)
        st = run_prompt(b, n_depth, err);
    if (!st && !b->o->no_warmup)
        st = warm_up(b, err);
    stats_start(b->session, &b->o->stats); /* of what is measured */
    if (!st)
        st = time_reps(b, err);
    if (!st && b->o->stats.text)
        st = ts_session_stats(b->session, b->out.format == BENCH_JSON, &r->stats, err);
    if (!st)
        st = bench_print(&b->out, r, err);
    for (size_t i = 0; i < b->o->prompts.n && !st; i++)
        if (b->o->prompts.v[i] == n_prompt)
            b->calibrated[i][b->mode] = bench_tps(r);
    ts_free(r->stats);
    r->stats = NULL;
    return st;
}

static ts_status run_tests(bench *b, ts_error *err)
{
    const bench_opts *o = b->o;
    ts_status st = TS_OK;

    for (size_t d = 0; d < o->depths.n; d++) {
        for (size_t i = 0; i < o->prompts.n && !st && !cli_stdout_failed(); i++)
            st = run_test(b, o->prompts.v[i], 0, o->depths.v[d], err);
        for (size_t s = 0; s < o->steps.n; s++)
            for (size_t i = 0; i < o->gens.n && !st && !cli_stdout_failed(); i++) {
                b->r.n_step = o->steps.v[s];
                st = run_test(b, 0, o->gens.v[i], o->depths.v[d], err);
            }
        b->r.n_step = 1;
        for (size_t i = 0; i + 1 < o->pairs.n && !st && !cli_stdout_failed(); i += 2)
            st = run_test(b, o->pairs.v[i], o->pairs.v[i + 1], o->depths.v[d], err);
    }
    return st;
}

/* --- models and threads ------------------------------------------------- */

static int64_t largest(const opt_ints *l)
{
    int64_t most = 0;

    for (size_t i = 0; i < l->n; i++)
        most = l->v[i] > most ? l->v[i] : most;
    return most;
}

/* A step has no more tokens than its test. */
static int64_t longest_step(const bench_opts *o)
{
    int64_t gen = largest(&o->gens), step = largest(&o->steps);

    return gen < 1 ? 1 : step < gen ? step : gen;
}

/* Positions the longest test needs. */
static int64_t context_needed(const bench_opts *o)
{
    int64_t n = largest(&o->prompts), gen = largest(&o->gens);

    n = gen > n ? gen : n;
    for (size_t i = 0; i + 1 < o->pairs.n; i += 2)
        if (o->pairs.v[i] + o->pairs.v[i + 1] > n)
            n = o->pairs.v[i] + o->pairs.v[i + 1];
    /* the warm-up makes one token behind the prompt */
    return largest(&o->depths) + n + 1;
}

static ts_status run_model(bench *b, const char *path, const char *gpu_layers, int64_t threads,
                           ts_error *err)
{
    model_opts *m = &b->o->model;
    ts_status st = count_work(path, &b->r.work, err);

    if (st)
        return st;
    m->path = b->r.path = path;
    m->threads = threads;
    m->gpu_layers = gpu_layers;
    m->ctx = context_needed(b->o);
    b->r.stream = m->stream ? m->stream : "auto";
    st = model_open(&b->engine, m, longest_step(b->o), false, err);
    if (st)
        return st;
    ts_engine_get_info(b->engine, &b->r.info);
    b->r.n_step = 1;
    b->r.peak = (ts_probe){0};
    b->r.n_batch = b->o->batch;
    st = model_bos(b->engine, &b->bos, err);
    if (!st)
        st = model_session(&b->session, b->engine, err);
    if (!st && longest_step(b->o) > b->r.info.n_ubatch)
        st = ts_fail(err, TS_BAD_ARG,
                     "--tokens-per-step %lld is more than the %lld tokens computed together (-ub)",
                     (long long)largest(&b->o->steps), (long long)b->r.info.n_ubatch);
    if (!st)
        st = ts_prober_open(&b->prober, b->r.info.n_threads, TS_ISA_AUTO, err);
    if (!st)
        st = run_tests(b, err);
    ts_prober_close(b->prober);
    model_session_close(b->session);
    ts_engine_close(b->engine);
    b->prober = NULL;
    b->session = NULL;
    b->engine = NULL;
    return st;
}

/* Does streaming by itself do what is best? */
static void print_calibration(const bench *b)
{
    const opt_ints *p = &b->o->prompts;
    if (b->out.format != BENCH_MD || b->mode != 2)
        return;
    printf("\n| tokens | off | on | auto | of the better |\n| --: | --: | --: | --: | --: |\n");
    for (size_t i = 0; i < p->n; i++) {
        const double *t = b->calibrated[i], best = t[0] > t[1] ? t[0] : t[1];
        printf("| %lld | %.1f | %.1f | %.1f | %.2f |\n", (long long)p->v[i], t[0], t[1], t[2],
               best > 0 ? t[2] / best : 0);
    }
}

static ts_status check(const bench_opts *o, ts_error *err)
{
    if (o->calibrate && (o->models.n > 1 || o->threads.n > 1 || o->gpu_layers.n > 1))
        return ts_fail(err, TS_BAD_ARG, "--calibrate is for one model, one -t and one -ngl");
    if (o->pairs.n % 2)
        return ts_fail(err, TS_BAD_ARG, "-pg takes pairs of numbers, not %zu of them", o->pairs.n);
    if (largest(&o->prompts) + largest(&o->gens) + largest(&o->pairs) == 0)
        return ts_fail(err, TS_BAD_ARG, "nothing to measure: -p, -n and -pg are all 0");
    for (size_t i = 0; i < o->gpu_layers.n; i++) {
        int64_t n;
        ts_status st = model_gpu_layers(o->gpu_layers.v[i], &n, err);
        if (st)
            return st;
    }
    return TS_OK;
}

static ts_status run_all(bench *b, ts_error *err)
{
    const bench_opts *o = b->o;
    ts_status st = check(o, err);

    if (st)
        return st;
    int64_t most = longest_step(o) > o->batch ? longest_step(o) : o->batch;
    b->ids = ts_calloc((size_t)most, sizeof *b->ids);
    if (!b->ids)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a batch of %lld tokens", (long long)most);
    const size_t splits = o->gpu_layers.n ? o->gpu_layers.n : 1, modes = o->calibrate ? 3 : 1;
    for (size_t i = 0; i < o->models.n; i++)
        for (size_t g = 0; g < splits; g++)
            for (size_t t = 0; t < o->threads.n; t++)
                for (size_t s = 0; s < modes && !st && !cli_stdout_failed(); s++) {
                    if (o->calibrate)
                        b->o->model.stream = stream_modes[b->mode = (int)s];
                    st = run_model(b, o->models.v[i], o->gpu_layers.n ? o->gpu_layers.v[g] : NULL,
                                   o->threads.v[t], err);
                }
    if (!st)
        print_calibration(b);
    bench_print_footer(&b->out);
    return st;
}

static int bench_with(bench_opts *o)
{
    bench b = {.o = o, .rng = 1};
    ts_error err = {0};

    b.out.format = !strcmp(o->format, "md")     ? BENCH_MD
                   : !strcmp(o->format, "json") ? BENCH_JSON
                                                : BENCH_CSV;
    b.out.show_batch = o->batch != 2048;
    b.out.show_ubatch = o->model.ubatch != 0;
    b.out.show_ngl = o->gpu_layers.n || o->model.overrides.n;
    b.out.show_stream = o->calibrate || o->model.stream;
    if (o->calibrate) {
        o->gens = (opt_ints){1, {0}};
        if (o->prompts.n == 1 && o->prompts.v[0] == 512)
            o->prompts = (opt_ints){6, {16, 32, 64, 128, 256, 512}};
    }
    interrupt_catch();
    ts_status st = run_all(&b, &err);
    free(b.ids);
    opt_strs_free(&o->models);
    opt_strs_free(&o->gpu_layers);
    model_opts_free(&o->model);
    return st ? model_failed(&err) : CLI_OK;
}

int cmd_bench(int argc, char **argv)
{
    bench_opts o = {
        .prompts = {1, {512}},
        .gens = {1, {128}},
        .depths = {1, {0}},
        .steps = {1, {1}},
        .threads = {1, {0}},
        .batch = 2048,
        .reps = 5,
        .model = MODEL_OPTS,
        .format = "md",
    };
    const opt table[] = {
        OPT("Model", "-m, --model", OPT_STRS, &o.models, "FILE[,FILE]",
            "GGUF files; the option may be repeated", .required = true),
        PREFILL_OPTION(&o.model),
        ISA_OPTIONS(&o.model),
        PACK_CACHE_OPTION(&o.model),
        CHECK_OPTION(&o.model),
        OPT("Model", "-t, --threads", OPT_INTS, &o.threads, "N[,N]", "compute threads", .min = 1,
            .max = 1024, .def = "one for each CPU"),
        OPT("Model", "-b, --batch-size", OPT_INT, &o.batch, "N",
            "tokens of a prompt handed over at once", .min = 1, .max = 1048576),
        OPT("Model", "-ub, --ubatch-size", OPT_INT, &o.model.ubatch, "N",
            "tokens computed together in prefill", .min = 1, .max = 65536, .def = "512"),
        OPT("Model", "-v, --verbose", OPT_FLAG, &o.model.verbose, NULL,
            "print the library's log to stderr"),
        OPT("GPU", "-ngl, --gpu-layers, --n-gpu-layers", OPT_STRS, &o.gpu_layers, "N[,N]",
            "layers on GPUs, from the last; auto: what fits; all", .def = "auto"),
        GPU_PLACE_OPTIONS(&o.model),
        OPT("Tests", "-p, --n-prompt", OPT_INTS, &o.prompts, "N[,N]",
            "prefill this many tokens; 0: no such test", .min = 0, .max = 1048576),
        OPT("Tests", "-n, --n-gen", OPT_INTS, &o.gens, "N[,N]",
            "decode this many tokens; 0: no such test", .min = 0, .max = 1048576),
        OPT("Tests", "-pg", OPT_INTS, &o.pairs, "P,N",
            "prefill P tokens, then decode N, as one test", .min = 0, .max = 1048576),
        OPT("Tests", "-d, --n-depth", OPT_INTS, &o.depths, "N[,N]",
            "tokens already in the context when a test begins", .min = 0, .max = 1048576),
        OPT("Tests", "--tokens-per-step", OPT_INTS, &o.steps, "N[,N]",
            "decode of -n with this many tokens in each step, the logits of all wanted", .min = 1,
            .max = 4096),
        OPT("Tests", "-r, --repetitions", OPT_INT, &o.reps, "N", "times each test is run", .min = 1,
            .max = BENCH_MAX_REPS),
        OPT("Tests", "--calibrate", OPT_FLAG, &o.calibrate, NULL,
            "prompts of 16 to 512 tokens (or those of -p) with each --stream: does it choose "
            "well?"),
        OPT("Tests", "--no-warmup", OPT_FLAG, &o.no_warmup, NULL,
            "don't run each test once before it counts"),
        OPT("Output", "-o, --output", OPT_CHOICE, &o.format, NULL, "format of the results",
            .choices = "md|json|csv"),
        STATS_OPTION(&o.stats),
    };
    const opt_cmd cmd = {
        .name = "bench",
        .purpose = "speed of prefill and decode, beside what this machine can do",
        .usage = "-m MODEL[,MODEL...] [options]",
        .example = "tessera bench -m model.gguf -p 512 -n 128 -t 2 -r 5",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status == OPT_GO && o.model.list_devices) {
        opt_strs_free(&o.models);
        opt_strs_free(&o.gpu_layers);
        return model_list_devices(&o.model);
    }
    return status == OPT_GO ? bench_with(&o) : status;
}

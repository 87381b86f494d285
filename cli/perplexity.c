/* perplexity.c - tessera perplexity: how well a model predicts a text, and how far two runs differ.
 *
 * As llama.cpp's llama-perplexity: the text is cut into chunks of n_ctx tokens, each evaluated on
 * its own with BOS in place of its first token (where the model adds one), and the second half of
 * each chunk is scored, so that every scored token has context. Only the rows of a few tokens are
 * kept at a time: logits of a whole chunk would be gigabytes for a large vocabulary. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "command.h"
#include "interrupt.h"
#include "logits.h"
#include "model.h"
#include "stats.h"
#include "text.h"

/* Rows of logits held at once. */
enum { ROWS = 64 };

typedef struct ppl_opts {
    model_opts model;
    const char *file, *save, *kl;
    int64_t chunks; /* -1 = all */
    stats_opts stats;
} ppl_opts;

/* Sum and sum of squares of a quantity seen n times. */
typedef struct moments {
    double sum, sum2;
} moments;

typedef struct ppl {
    ppl_opts *o;
    ts_engine *engine;
    ts_session *session;
    ts_engine_info info;
    char *text;
    size_t n_text;
    ts_token *ids;
    size_t n_ids;
    ts_token bos; /* -1 = none */
    int64_t n_ctx, n_chunks;
    logits_file *save, *base;
    logits_header head;
    logits_row row, base_row;
    moments nll, nll_base, kld;
    double nll_cross; /* sum of products nll * nll_base */
    int64_t n, n_same_top;
} ppl;

/* --- statistics --------------------------------------------------------- */

static void add(moments *m, double x)
{
    m->sum += x;
    m->sum2 += x * x;
}

static double mean(const moments *m, int64_t n)
{
    return m->sum / (double)n;
}

/* Standard error of the mean. */
static double mean_error(const moments *m, int64_t n)
{
    double var = m->sum2 / (double)n - mean(m, n) * mean(m, n);
    return n > 1 && var > 0 ? sqrt(var / (double)(n - 1)) : 0;
}

/* log softmax of logits[n_vocab] into row->log_p, with its maximum and the value at `next`. */
static void log_softmax(const float *logits, int64_t n_vocab, ts_token next, logits_row *row)
{
    float max = logits[0];
    double sum = 0;

    row->best = 0;
    for (int64_t i = 1; i < n_vocab; i++)
        if (logits[i] > max) {
            max = logits[i];
            row->best = (ts_token)i;
        }
    for (int64_t i = 0; i < n_vocab; i++)
        sum += expf(logits[i] - max);
    double log_sum = log(sum);
    if (row->log_p)
        for (int64_t i = 0; i < n_vocab; i++)
            row->log_p[i] = (float)((double)logits[i] - max - log_sum);
    row->log_p_next = (float)((double)logits[next] - max - log_sum);
}

/* Sum over p_base * (log p_base - log p). (Kullback and Leibler 1951) */
static double divergence(const float *log_base, const float *log_p, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)expf(log_base[i]) * ((double)log_base[i] - log_p[i]);
    return sum;
}

static ts_status score(ppl *p, const float *logits, ts_token next, ts_error *err)
{
    ts_status st = TS_OK;

    log_softmax(logits, p->info.n_vocab, next, &p->row);
    double nll = -(double)p->row.log_p_next;
    add(&p->nll, nll);
    p->n++;
    if (p->save)
        st = logits_write(p->save, &p->row, err);
    if (!st && p->base && !(st = logits_read(p->base, &p->base_row, err))) {
        double nll_base = -(double)p->base_row.log_p_next;
        add(&p->nll_base, nll_base);
        p->nll_cross += nll * nll_base;
        add(&p->kld, divergence(p->base_row.log_p, p->row.log_p, p->info.n_vocab));
        p->n_same_top += p->row.best == p->base_row.best;
    }
    return st;
}

/* --- evaluation --------------------------------------------------------- */

/* The tokens from i = 0 on, the scored ones in parts. */
static ts_status eval_rows(ppl *p, const ts_token *ids, ts_error *err)
{
    int64_t first = p->n_ctx / 2, last = p->n_ctx - 1; /* rows first..last-1 are scored */
    ts_status st = ts_session_rewind(p->session, 0, err);

    if (!st)
        st = ts_session_eval(p->session, ids, (size_t)first, 1, err);
    for (int64_t i = first; i < last && !st; i += ROWS) {
        int64_t n = last - i < ROWS ? last - i : ROWS;
        st = ts_session_eval(p->session, ids + i, (size_t)n, (size_t)n, err);
        for (int64_t j = 0; j < n && !st; j++)
            st = score(p, ts_session_logits(p->session, (size_t)j), ids[i + j + 1], err);
    }
    return st;
}

static ts_status eval_chunk(ppl *p, ts_token *ids, ts_error *err)
{
    ts_token own = ids[0];

    if (p->bos >= 0)
        ids[0] = p->bos;
    ts_status st = eval_rows(p, ids, err);
    ids[0] = own;
    if (!st && interrupt_caught())
        return ts_fail(err, TS_CANCELLED, "interrupted");
    return st;
}

static ts_status eval_all(ppl *p, ts_error *err)
{
    for (int64_t c = 0; c < p->n_chunks; c++) {
        ts_status st = eval_chunk(p, p->ids + c * p->n_ctx, err);
        if (st)
            return st;
        printf("[%lld]%.4f,", (long long)c + 1, exp(mean(&p->nll, p->n)));
        fflush(stdout);
        if (cli_stdout_failed())
            return TS_OK; /* nobody listens: cli_finish knows the status */
    }
    putchar('\n');
    return p->save ? logits_commit(p->save, err) : TS_OK;
}

static void print_result(const ppl *p)
{
    double ln = mean(&p->nll, p->n), e = mean_error(&p->nll, p->n), n = (double)p->n;

    printf("Final estimate: PPL = %.4f +/- %.5f\n", exp(ln), exp(ln) * e);
    if (!p->base)
        return;
    double base = mean(&p->nll_base, p->n), eb = mean_error(&p->nll_base, p->n);
    double cov = p->n > 1 ? (p->nll_cross / n - ln * base) / (n - 1) : 0;
    double var = e * e + eb * eb - 2 * cov, ratio = exp(ln - base);
    double same = (double)p->n_same_top / n;
    printf("Base PPL:            %.4f +/- %.5f\n", exp(base), exp(base) * eb);
    printf("PPL ratio:           %.6f +/- %.6f\n", ratio, var > 0 ? ratio * sqrt(var) : 0);
    printf("Mean KL divergence:  %.6f +/- %.6f\n", mean(&p->kld, p->n), mean_error(&p->kld, p->n));
    printf("Same top token:      %.3f +/- %.3f %%\n", 100 * same,
           p->n > 1 ? 100 * sqrt(same * (1 - same) / (n - 1)) : 0);
}

/* --- preparation -------------------------------------------------------- */

static ts_status open_base(ppl *p, ts_error *err)
{
    model_opts *m = &p->o->model;
    ts_status st = logits_open(&p->base, p->o->kl, &p->head, err);

    if (st)
        return st;
    if (m->ctx && m->ctx != p->head.n_ctx)
        return ts_fail(err, TS_BAD_ARG, "%s was made with -c %u, not %lld", p->o->kl, p->head.n_ctx,
                       (long long)m->ctx);
    m->ctx = p->head.n_ctx;
    return TS_OK;
}

static ts_status read_text(ppl *p, ts_error *err)
{
    ts_status st = text_read(p->o->file, &p->text, &p->n_text, err);

    if (!st && p->n_text && p->text[p->n_text - 1] == '\n') /* as llama.cpp's -f */
        p->n_text--;
    return st;
}

/* Tokens, and how many chunks they make. */
static ts_status tokenize(ppl *p, ts_error *err)
{
    ts_status st =
        ts_tokenize(p->engine, p->text, p->n_text, TS_TOK_ADD_SPECIAL, &p->ids, &p->n_ids, err);

    if (!st)
        st = model_bos(p->engine, &p->bos, err);
    if (st)
        return st;
    if (p->n_ids < 2 * (size_t)p->n_ctx)
        return ts_fail(err, TS_BAD_ARG,
                       "%s has %zu tokens; a context of %lld needs at least %lld (-c sets it)",
                       p->o->file, p->n_ids, (long long)p->n_ctx, 2 * (long long)p->n_ctx);
    p->n_chunks = (int64_t)(p->n_ids / (size_t)p->n_ctx);
    if (p->o->chunks > 0 && p->o->chunks < p->n_chunks)
        p->n_chunks = p->o->chunks;
    return TS_OK;
}

/* The base must be of this vocabulary and this text; fewer chunks than it has are fine. */
static ts_status match_base(ppl *p, ts_error *err)
{
    const logits_header *h = &p->head;

    if (h->n_vocab != p->info.n_vocab)
        return ts_fail(err, TS_BAD_ARG, "%s is of a vocabulary of %u tokens, but %s has %lld",
                       p->o->kl, h->n_vocab, p->o->model.path, (long long)p->info.n_vocab);
    uint64_t n = (uint64_t)h->n_chunks * h->n_ctx;
    if (n > p->n_ids || logits_hash(p->ids, (size_t)n) != h->tokens_hash)
        return ts_fail(err, TS_BAD_ARG, "%s is of another text than %s", p->o->kl, p->o->file);
    if (p->n_chunks > h->n_chunks)
        p->n_chunks = h->n_chunks;
    return TS_OK;
}

static ts_status create_save(ppl *p, ts_error *err)
{
    logits_header h = {
        .n_vocab = (uint32_t)p->info.n_vocab,
        .n_ctx = (uint32_t)p->n_ctx,
        .n_chunks = (uint32_t)p->n_chunks,
        .tokens_hash = logits_hash(p->ids, (size_t)(p->n_chunks * p->n_ctx)),
    };
    return logits_create(&p->save, p->o->save, &h, err);
}

static ts_status prepare(ppl *p, ts_error *err)
{
    ppl_opts *o = p->o;
    ts_status st = TS_OK;

    if (o->save && o->kl)
        return ts_fail(err, TS_BAD_ARG, "--save-logits and --kl exclude each other");
    if (o->chunks == 0)
        return ts_fail(err, TS_BAD_ARG, "--chunks must be -1 or at least 1, not 0");
    if (o->kl)
        st = open_base(p, err);
    if (!st)
        st = read_text(p, err);
    if (st)
        return st;
    /* not before: Ctrl-C while the text is typed just ends the program */
    if (o->save)
        interrupt_catch_all();
    else
        interrupt_catch();
    p->n_ctx = o->model.ctx ? o->model.ctx : 512;
    o->model.ctx = p->n_ctx;
    st = model_open(&p->engine, &o->model, ROWS, false, err);
    if (st)
        return st;
    ts_engine_get_info(p->engine, &p->info);
    st = tokenize(p, err);
    if (!st && p->base)
        st = match_base(p, err);
    if (!st && o->save)
        st = create_save(p, err);
    if (!st)
        st = model_session(&p->session, p->engine, err);
    if (st || !(o->save || o->kl))
        return st;
    p->row.log_p = ts_calloc((size_t)p->info.n_vocab, sizeof(float));
    p->base_row.log_p = ts_calloc((size_t)p->info.n_vocab, sizeof(float));
    if (!p->row.log_p || !p->base_row.log_p)
        return ts_fail(err, TS_NO_MEMORY, "no memory for a row of logits");
    return TS_OK;
}

static int perplexity_with(ppl_opts *o)
{
    ppl p = {.o = o};
    ts_error err = {0};

    ts_status st = prepare(&p, &err);
    if (!st) {
        double start = cli_now();
        fprintf(stderr, "%s, %s: %lld chunks of %lld tokens\n", p.info.desc, p.info.isa,
                (long long)p.n_chunks, (long long)p.n_ctx);
        stats_start(p.session, &o->stats);
        st = eval_all(&p, &err);
        if (!st && !cli_stdout_failed()) {
            print_result(&p);
            double s = cli_now() - start;
            fprintf(stderr, "%.1f s, %.1f tokens/s\n", s, (double)(p.n_chunks * p.n_ctx) / s);
            st = stats_report(p.session, &o->stats, &err);
        }
    }
    model_session_close(p.session);
    logits_close(p.save);
    logits_close(p.base);
    ts_engine_close(p.engine);
    ts_free(p.ids);
    free(p.text);
    free(p.row.log_p);
    free(p.base_row.log_p);
    model_opts_free(&o->model);
    return st ? model_failed(&err) : CLI_OK;
}

int cmd_perplexity(int argc, char **argv)
{
    ppl_opts o = {.model = MODEL_OPTS, .chunks = -1};
    const opt table[] = {
        MODEL_OPTIONS(&o.model),
        PACK_CACHE_OPTION(&o.model),
        CHECK_OPTION(&o.model),
        GPU_OPTIONS(&o.model),
        OPT("Text", "-f, --file", OPT_STR, &o.file, "FILE", "the text, - for stdin",
            .required = true),
        OPT("Text", "-c, --ctx-size", OPT_INT, &o.model.ctx, "N",
            "tokens in a chunk, of which the second half is scored", .min = 8, .max = 1073741824,
            .def = "512, or what the file of --kl was made with"),
        OPT("Text", "--chunks", OPT_INT, &o.chunks, "N", "stop after N chunks; -1: all", .min = -1,
            .max = 2147483647),
        OPT("Comparison", "--save-logits", OPT_STR, &o.save, "FILE",
            "save all distributions: about 2 bytes * vocabulary for every scored token"),
        OPT("Comparison", "--kl", OPT_STR, &o.kl, "FILE",
            "compare with the distributions that --save-logits saved"),
        STATS_OPTIONS(&o.stats),
    };
    const opt_cmd cmd = {
        .name = "perplexity",
        .purpose = "perplexity of a text, KL divergence between two runs",
        .usage = "-m MODEL -f TEXT [options]",
        .example = "tessera perplexity -m f16.gguf -f text.txt --save-logits f16.logits\n"
                   "tessera perplexity -m q4.gguf -f text.txt --kl f16.logits",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status == OPT_GO && o.model.list_devices)
        return model_list_devices(&o.model);
    return status == OPT_GO ? perplexity_with(&o) : status;
}

/* golden.h - reads a .golden file (README.md beside it has the grammar) and compares an engine with
 * it.
 *
 * Shared by test_golden.c, test_golden_models.c and test_gpu_models.c. Everything here goes through
 * tessera.h, but for routing: of a mixture of experts, tiles are compared with what chose the same
 * experts, because their rounding turns over a choice between two that are nearly level. */
#ifndef TS_GOLDEN_H
#define TS_GOLDEN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"
#include "cpu/route.h"
#include "engine.h"

/* Stops only if this condition fails, so that one failed comparison doesn't hide the next. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        bool must_hold = (cond);                                                                   \
        CHECK_MSG(must_hold, "%s", #cond);                                                         \
        if (!must_hold)                                                                            \
            exit(1);                                                                               \
    } while (0)

#define GOLDEN_NMSE 1e-4  /* logits against llama.cpp's                  */
#define GOLDEN_SETS 1e-6  /* between kernel sets, and ways to cut a text */
#define GOLDEN_TIE  0.05f /* two logits nearer than this are equally good */
#define GOLDEN_PPL  5e-4  /* perplexity; rounding activations to int8 moves it by 0.0015 to 0.008 */

/* Tiles multiply BF16, 8 bits of precision on both sides: */
#define GOLDEN_TILES     1e-3 /* logits, against whatever */
#define GOLDEN_TILES_PPL 1e-3 /* perplexity               */
/* A token's log-likelihood moves by 0.03, so the mean of 1024 by 0.001 by chance: of n this, too.
 * Qwen2.5-Coder: -0.0018 over 4 windows, -0.0006 over 30; SmolLM2: -0.0032 over 255 tokens. */
#define GOLDEN_TILES_TOKEN 0.06 /* / sqrt(n) */
/* BF16 has turned a gap of 0.082 over: logits of size 4 with a NMSE of 1e-3 are wrong by 0.13. */
#define GOLDEN_TILES_TIE 0.15f

enum { GOLDEN_MAX_PROMPTS = 8, GOLDEN_MAX_ROWS = 8 };

typedef struct golden_prompt {
    char *text; /* NULL where the model has no vocabulary worth asking */
    size_t text_len;
    int32_t *ids, *greedy; /* [n_ids], [n_greedy]                        */
    float *gap;            /* [n_greedy] distance of the two best logits */
    size_t n_ids, n_greedy;
} golden_prompt;

typedef struct golden_row {
    size_t pos, stride; /* logits of position pos, every stride-th of them */
    float *logits;      /* [n]     */
    int32_t *top;       /* [n_top] ids of the largest, best first */
    float *top_logits;  /* [n_top] */
    size_t n, n_top;
} golden_row;

typedef struct golden {
    char file[256],
        synth[256]; /* the model's file name; or the options tessera synth makes it with */
    uint64_t fnv;   /* of a synth model's bytes */
    int64_t n_vocab;
    golden_prompt prompts[GOLDEN_MAX_PROMPTS];
    size_t n_prompts;
    int32_t *text; /* [n_text] what the rows and nothing else are about */
    size_t n_text;
    golden_row rows[GOLDEN_MAX_ROWS];
    size_t n_rows;
    size_t ppl_ctx, ppl_ids, n_windows;
    float *ppl; /* [n_windows] perplexity over the windows so far */
} golden;

/* --- reading ------------------------------------------------------------ */

static inline void *golden_list(FILE *f, bool real, size_t *n)
{
    MUST(fscanf(f, "%zu", n) == 1 && *n < 10000000);
    void *v = calloc(*n + 1, 4);
    MUST(v);
    for (size_t i = 0; i < *n; i++)
        MUST((real ? fscanf(f, "%f", (float *)v + i) : fscanf(f, "%d", (int32_t *)v + i)) == 1);
    return v;
}

/* "..." with \" \\ and \xHH */
static inline char *golden_string(FILE *f, size_t *len)
{
    char *s = malloc(65536);
    size_t n = 0;
    int c;
    MUST(s && fscanf(f, " \"") == 0);
    while ((c = fgetc(f)) != '"' && c != EOF && n < 65535) {
        unsigned hex;
        if (c == '\\' && (c = fgetc(f)) == 'x') {
            MUST(fscanf(f, "%2x", &hex) == 1);
            c = (int)hex;
        }
        s[n++] = (char)c;
    }
    s[n] = 0;
    *len = n;
    return s;
}

/* The tests' folder: where they were built, or what the environment says of where they are run. */
static inline const char *golden_dir(void)
{
    const char *dir = getenv("TS_TEST_DIR");
    return dir && *dir ? dir : TS_TEST_DIR;
}

static inline void golden_read(golden *g, const char *name)
{
    char path[512], key[64];
    snprintf(path, sizeof path, "%s/golden/%s.golden", golden_dir(), name);
    FILE *f = fopen(path, "r");
    MUST(f && fscanf(f, "tessera-golden %63s", key) == 1 && !strcmp(key, "1"));
    memset(g, 0, sizeof *g);
    golden_prompt *p = NULL;
    golden_row *r = NULL;
    size_t n;
    while (fscanf(f, "%63s", key) == 1) {
        if (!strcmp(key, "file")) {
            MUST(fscanf(f, "%255s", g->file) == 1);
        } else if (!strcmp(key, "synth")) {
            MUST(fscanf(f, " %255[^\n]", g->synth) == 1);
        } else if (!strcmp(key, "sha256")) {
            MUST(fscanf(f, "%*s") == 0); /* for people and for the fetching script */
        } else if (!strcmp(key, "fnv")) {
            MUST(fscanf(f, "%" SCNx64, &g->fnv) == 1);
        } else if (!strcmp(key, "vocab")) {
            MUST(fscanf(f, "%" SCNd64, &g->n_vocab) == 1);
        } else if (!strcmp(key, "prompt")) {
            MUST(g->n_prompts < GOLDEN_MAX_PROMPTS);
            p = &g->prompts[g->n_prompts++];
            p->text = golden_string(f, &p->text_len);
        } else if (!strcmp(key, "ids")) {
            if (!p || p->ids) {
                MUST(g->n_prompts < GOLDEN_MAX_PROMPTS);
                p = &g->prompts[g->n_prompts++];
            }
            p->ids = golden_list(f, false, &p->n_ids);
        } else if (!strcmp(key, "greedy")) {
            MUST(p);
            p->greedy = golden_list(f, false, &p->n_greedy);
        } else if (!strcmp(key, "gap")) {
            MUST(p);
            p->gap = golden_list(f, true, &n);
            MUST(n == p->n_greedy);
        } else if (!strcmp(key, "text")) {
            g->text = golden_list(f, false, &g->n_text);
        } else if (!strcmp(key, "row")) {
            MUST(g->n_rows < GOLDEN_MAX_ROWS);
            r = &g->rows[g->n_rows++];
            MUST(fscanf(f, "%zu %zu", &r->pos, &r->stride) == 2 && r->stride);
        } else if (!strcmp(key, "logits")) {
            MUST(r);
            r->logits = golden_list(f, true, &r->n);
        } else if (!strcmp(key, "top")) {
            MUST(r);
            r->top = golden_list(f, false, &r->n_top);
        } else if (!strcmp(key, "toplogits")) {
            MUST(r);
            r->top_logits = golden_list(f, true, &n);
            MUST(n == r->n_top);
        } else if (!strcmp(key, "perplexity")) {
            MUST(fscanf(f, "%zu %zu", &g->ppl_ctx, &g->ppl_ids) == 2);
            g->ppl = golden_list(f, true, &g->n_windows);
        } else {
            fprintf(stderr, "%s: unknown key '%s'\n", path, key);
            exit(1);
        }
    }
    fclose(f);
}

static inline void golden_free(golden *g)
{
    for (size_t i = 0; i < g->n_prompts; i++) {
        free(g->prompts[i].text);
        free(g->prompts[i].ids);
        free(g->prompts[i].greedy);
        free(g->prompts[i].gap);
    }
    for (size_t i = 0; i < g->n_rows; i++) {
        free(g->rows[i].logits);
        free(g->rows[i].top);
        free(g->rows[i].top_logits);
    }
    free(g->text);
    free(g->ppl);
    memset(g, 0, sizeof *g);
}

/* --- models ------------------------------------------------------------- */

/* Path of a fetched model. False: it isn't here and needn't be. A name in TS_TEST_MODELS must be
 * here; the others count only if `optional`. */
static inline bool golden_model(const char *name, const char *file, bool optional, char *path,
                                size_t n)
{
    const char *wanted = getenv("TS_TEST_MODELS"), *cache = getenv("XDG_CACHE_HOME");
    bool must = wanted && strstr(wanted, name);
    if (!must && !optional)
        return false;
    if (cache && *cache)
        snprintf(path, n, "%s/tessera/models/%s", cache, file);
    else
        snprintf(path, n, "%s/.cache/tessera/models/%s", getenv("HOME") ? getenv("HOME") : "",
                 file);
    bool here = access(path, R_OK) == 0;
    if (must)
        CHECK_MSG(here, "TS_TEST_MODELS wants %s", path);
    return here;
}

/* Does this engine compute with tiles? */
static inline bool golden_tiles(const ts_engine *e)
{
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    return strcmp(info.isa, "amx") == 0;
}

/* Opens with n_logits rows; NULL and a failed check if that doesn't work. A kernel set this machine
 * can't run gives NULL alone. */
static inline ts_engine *golden_open(const char *path, ts_isa isa, int threads, int64_t n_ctx,
                                     int64_t n_ubatch, int64_t n_logits)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_threads = threads;
    o.n_ctx = n_ctx;
    o.n_ubatch = n_ubatch;
    o.n_logits = n_logits;
    ts_engine *e = NULL;
    ts_error err = {0};
    ts_status st = ts_engine_open(&e, path, &o, &err);
    bool absent =
        isa != TS_ISA_AUTO && st == TS_UNSUPPORTED && !ts_isa_usable(ts_cpu_get(), isa, NULL);
    CHECK_MSG(st == TS_OK || absent, "%s", err.msg);
    return e;
}

static inline ts_session *golden_session(ts_engine *e)
{
    ts_session *s = NULL;
    ts_error err = {0};
    ts_status st = ts_session_open(&s, e, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    MUST(s);
    return s;
}

static inline bool golden_eval(ts_session *s, const int32_t *ids, size_t n, size_t n_logits)
{
    ts_error err = {0};
    ts_status st = ts_session_eval(s, ids, n, n_logits, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    return st == TS_OK;
}

/* --- comparing ---------------------------------------------------------- */

/* Ids of every prompt, special tokens parsed. */
/* One token in so many, in a layer, may have another choice of its own than what it follows. */
#define GOLDEN_DIFFER 40

/* A session that another one leads: experts are chosen by the leader. */
typedef struct golden_led {
    ts_session *lead, *s; /* lead: NULL: s chooses */
    ts_routing kept, followed;
} golden_led;

static inline bool golden_experts(const ts_engine *e)
{
    return e->m->hp.moe.n_used > 0;
}

/* The room that a timeline's choices need; freed with free. */
static inline ts_routing golden_routing(const ts_engine *e)
{
    const ts_hparams *hp = &e->m->hp;
    ts_routing r = {.n_ctx = e->plan.n_ctx};
    r.id = calloc((size_t)(hp->n_layer * r.n_ctx * hp->moe.n_used), sizeof *r.id);
    MUST(r.id);
    return r;
}

/* e is led by `lead` (NULL: by nobody) if it has experts and multiplies on tiles. */
static inline golden_led golden_open_led(ts_engine *e, ts_engine *lead)
{
    golden_led l = {.s = golden_session(e)};
    if (lead && golden_experts(e) && golden_tiles(e)) {
        l.lead = golden_session(lead);
        l.kept = l.followed = golden_routing(lead);
    }
    return l;
}

/* As golden_eval, of both. */
static inline bool golden_eval_led(golden_led *l, const int32_t *ids, size_t n, size_t n_logits)
{
    if (l->lead) {
        ts_session_set_routing(l->lead, &l->kept);
        l->followed.follow = true;
        ts_session_set_routing(l->s, &l->followed);
        if (!golden_eval(l->lead, ids, n, n_logits))
            return false;
    }
    return golden_eval(l->s, ids, n, n_logits);
}

/* r was followed for so many tokens. */
static inline void golden_check_followed(const golden *g, const ts_engine *e, const ts_routing *r,
                                         size_t tokens, const char *label)
{
    const size_t of = tokens * (size_t)e->m->hp.n_layer, differ = (size_t)r->differ;
    CHECK_MSG(differ * GOLDEN_DIFFER <= of, "%s %s: %zu of %zu choices of experts are others",
              g->file, label, differ, of);
    printf("%s %s: %zu of %zu choices of experts would have been others\n", g->file, label, differ,
           of);
}

static inline void golden_close_led(golden_led *l)
{
    ts_session_close(l->lead);
    ts_session_close(l->s);
    free(l->kept.id);
}

static inline void golden_check_ids(const golden *g, const ts_engine *e)
{
    for (size_t i = 0; i < g->n_prompts; i++) {
        const golden_prompt *p = &g->prompts[i];
        ts_token *ids = NULL;
        size_t n = 0;
        ts_error err = {0};
        if (!p->text)
            continue;
        ts_status st = ts_tokenize(e, p->text, p->text_len,
                                   TS_TOK_ADD_SPECIAL | TS_TOK_PARSE_SPECIAL, &ids, &n, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        bool same = st == TS_OK && n == p->n_ids && !memcmp(ids, p->ids, n * sizeof *ids);
        CHECK_MSG(same, "%s: ids of prompt %zu", g->file, i);
        ts_free(ids);
    }
}

static inline size_t argmax(const float *v, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

/* The best token after each prefix of the golden continuation. Where llama.cpp's two best were
 * closer than GOLDEN_TIE (GOLDEN_TILES_TIE) either may win; the golden token goes on, so that every
 * step counts. */
static inline void golden_check_greedy(const golden *g, ts_engine *e, ts_engine *lead,
                                       size_t n_steps, const char *label)
{
    golden_led l = golden_open_led(e, lead);
    const float near = golden_tiles(e) ? GOLDEN_TILES_TIE : GOLDEN_TIE;
    size_t same = 0, close = 0, steps = 0;
    for (size_t i = 0; i < g->n_prompts; i++) {
        const golden_prompt *p = &g->prompts[i];
        CHECK(ts_session_rewind(l.s, 0, NULL) == TS_OK);
        CHECK(!l.lead || ts_session_rewind(l.lead, 0, NULL) == TS_OK);
        if (!golden_eval_led(&l, p->ids, p->n_ids, 1))
            break;
        for (size_t k = 0; k < p->n_greedy && k < n_steps; k++, steps++) {
            int32_t got = (int32_t)argmax(ts_session_logits(l.s, 0), (size_t)g->n_vocab);
            bool tie = p->gap[k] < near;
            CHECK_MSG(got == p->greedy[k] || tie,
                      "%s %s: prompt %zu step %zu: %d, not %d (gap %.3f)", g->file, label, i, k,
                      got, p->greedy[k], (double)p->gap[k]);
            same += got == p->greedy[k];
            close += got != p->greedy[k] && tie;
            if (!golden_eval_led(&l, &p->greedy[k], 1, 1))
                break;
        }
    }
    printf("%s %s: %zu of %zu greedy tokens equal, %zu differ at a near tie\n", g->file, label,
           same, steps, close);
    golden_close_led(&l);
}

/* Logits at the golden positions up to max_pos, reached in pieces that end there. */
static inline void golden_check_rows(const golden *g, ts_engine *e, ts_engine *lead, size_t max_pos,
                                     double limit, const char *label)
{
    golden_led l = golden_open_led(e, lead);
    size_t at = 0;
    float *got = malloc(sizeof(float) * (size_t)g->n_vocab);
    MUST(got);
    for (size_t i = 0; i < g->n_rows; i++) {
        const golden_row *r = &g->rows[i];
        if (r->pos > max_pos || !golden_eval_led(&l, g->text + at, r->pos + 1 - at, 1))
            break;
        at = r->pos + 1;
        const float *row = ts_session_logits(l.s, 0);
        for (size_t k = 0; k < r->n; k++)
            got[k] = row[k * r->stride];
        double d = nmse(r->logits, got, r->n);
        if (golden_tiles(e))
            limit = GOLDEN_TILES;
        CHECK_MSG(d <= limit, "%s %s: position %zu: NMSE %.3g", g->file, label, r->pos, d);
        for (size_t k = 0; k < r->n_top; k++)
            got[k] = row[r->top[k]];
        double dt = nmse(r->top_logits, got, r->n_top);
        CHECK_MSG(dt <= limit, "%s %s: position %zu: NMSE of the best %zu: %.3g", g->file, label,
                  r->pos, r->n_top, dt);
        printf("%s %s: position %zu: NMSE %.2e, of the best %zu %.2e\n", g->file, label, r->pos, d,
               r->n_top, dt);
    }
    free(got);
    golden_close_led(&l);
}

/* Logits of text[0 .. n) in one eval each: b against a, which leads it, NMSE averaged over
 * positions. */
static inline void golden_check_pair(const golden *g, ts_engine *a, ts_engine *b, size_t n,
                                     double limit, const char *label)
{
    golden_led l = golden_open_led(b, a);
    ts_session *sa = l.lead ? l.lead : golden_session(a);
    double worst = 0, sum = 0;
    if ((l.lead || golden_eval(sa, g->text, n, n)) && golden_eval_led(&l, g->text, n, n)) {
        for (size_t i = 0; i < n; i++) {
            double d =
                nmse(ts_session_logits(sa, i), ts_session_logits(l.s, i), (size_t)g->n_vocab);
            worst = d > worst ? d : worst;
            sum += d;
        }
        sum /= (double)n;
        if (golden_tiles(b))
            limit = GOLDEN_TILES;
        CHECK_MSG(sum <= limit, "%s %s: NMSE %.3g", g->file, label, sum);
        printf("%s %s: NMSE over %zu positions: mean %.2e, worst %.2e\n", g->file, label, n, sum,
               worst);
        if (l.lead)
            golden_check_followed(g, b, &l.followed, n, label);
    }
    if (!l.lead)
        ts_session_close(sa);
    golden_close_led(&l);
}

static inline double log_likelihood(const float *row, size_t n, int32_t id)
{
    float top = row[argmax(row, n)];
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)expf(row[i] - top);
    return (double)(row[id] - top) - log(sum);
}

/* Perplexity of alice.txt in windows of ppl_ctx: the second half of each is scored. The engine
 * must give ppl_ctx / 2 rows of logits. */
static inline void golden_check_perplexity(const golden *g, ts_engine *e, size_t max_windows,
                                           double limit)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/alice.txt", golden_dir());
    FILE *f = fopen(path, "rb");
    MUST(f);
    char *text = malloc(1 << 20);
    size_t n = fread(text, 1, 1 << 20, f), n_ids = 0, half = g->ppl_ctx / 2, counted = 0;
    fclose(f);
    ts_token *ids = NULL;
    CHECK(ts_tokenize(e, text, n, TS_TOK_ADD_SPECIAL, &ids, &n_ids, NULL) == TS_OK);
    CHECK_MSG(n_ids == g->ppl_ids, "%s: alice.txt is %zu tokens, not %zu", g->file, n_ids,
              g->ppl_ids);
    free(text);
    ts_session *s = golden_session(e);
    double nll = 0;
    /* The first id of the text is the BOS where the model wants one: every window starts with it.
     */
    bool bos = false;
    ts_token *none = NULL;
    size_t n_none = 0;
    CHECK(ts_tokenize(e, "", 0, TS_TOK_ADD_SPECIAL, &none, &n_none, NULL) == TS_OK);
    bos = n_none > 0;
    size_t windows = g->n_windows < max_windows ? g->n_windows : max_windows;
    for (size_t w = 0; w < windows && n_ids == g->ppl_ids; w++) {
        ts_token *window = ids + w * g->ppl_ctx;
        ts_token first = window[0];
        CHECK(ts_session_rewind(s, 0, NULL) == TS_OK);
        window[0] = bos ? none[0] : first;
        if (!golden_eval(s, window, g->ppl_ctx, half))
            break;
        window[0] = first;
        for (size_t i = 0; i + 1 < half; i++, counted++)
            nll -=
                log_likelihood(ts_session_logits(s, i), (size_t)g->n_vocab, window[half + i + 1]);
        double ppl = exp(nll / (double)counted), want = (double)g->ppl[w];
        if (w + 1 == windows) {
            if (golden_tiles(e))
                limit = GOLDEN_TILES_PPL + GOLDEN_TILES_TOKEN / sqrt((double)counted);
            CHECK_MSG(fabs(ppl / want - 1) <= limit, "%s: perplexity %.4f, not %.4f", g->file, ppl,
                      want);
            printf("%s: perplexity over %zu windows %.4f, llama.cpp %.4f (%+.3f %%)\n", g->file,
                   windows, ppl, want, 100 * (ppl / want - 1));
        }
    }
    ts_free(none);
    ts_free(ids);
    ts_session_close(s);
}

#endif

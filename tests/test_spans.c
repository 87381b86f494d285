/* test_spans.c - many timelines over one cache: whatever shares a micro-batch, whichever pages a
 * timeline has, and whoever computed them, each gives the logits it gives alone. On the CPU, and
 * split between it and fake accelerators. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "fake_device.h"
#include "gguf/synth.h"

/* A long text is more than a segment of attention: LONG. */
enum { SEQS = 5, LEN = 260, LONG = 640, UBATCH = 48, ROWS = 12 };

static const char *const archs[] = {"llama",    "qwen2",    "qwen3",     "gemma3",
                                    "qwen3moe", "qwen2moe", "deepseek2", "deepseek2:tiny-v3",
                                    "olmo2",    "granite",  "gemma2",    "command-r",
                                    "phi3",     "glm4moe",  "gpt-oss"};
static const ts_backend *const fakes[] = {&fake_backend, &fake_backend};
static ts_accel two[2] = {{"fake0", 0, &fake_kind, (size_t)1 << 40, 0, 0, 0, 0},
                          {"fake1", 1, &fake_kind, (size_t)1 << 40, 0, 0, 0, 0}};
static uint64_t seed = 20261126;
static int n_threads = 1; /* more meet at barriers, and wait while others test */

static int64_t rnd(int64_t lo, int64_t hi) /* lo..hi */
{
    return lo + (int64_t)(rnd_u64(&seed) % (uint64_t)(hi - lo + 1));
}

/* Texts that begin alike, and what each gives alone at every position. */
typedef struct texts {
    ts_token t[SEQS][LONG];
    int64_t len;
    float *want[SEQS]; /* [len][v] */
    size_t v;
} texts;

static int64_t ubatch = UBATCH; /* of the engines that are opened */

static ts_engine *open_engine(const char *path, ts_isa isa, int32_t n_seqs, int64_t n_ctx,
                              int64_t layers, ts_stream_mode stream)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = isa;
    o.n_seqs = n_seqs;
    o.n_threads = n_threads;
    o.n_ctx = n_ctx;
    o.n_ubatch = ubatch;
    o.n_logits = ROWS;
    o.stream = stream;
    const ts_engine_split split = {
        .split = {.accels = two, .n_accels = layers ? 2 : 0, .n_gpu_layers = layers},
        .backends = fakes};
    const ts_status st = ts_engine_open_split(&e, path, &o, &split, &err);
    if (st)
        fprintf(stderr, "%s\n", err.msg);
    REQUIRE(st == TS_OK);
    return e;
}

/* Text i shares 130, 64 or no tokens with an earlier one. */
static void make_texts(texts *x, const char *path, ts_isa isa, int64_t n_ctx)
{
    ts_error err = {0};
    ts_engine *e = open_engine(path, isa, 0, n_ctx, 0, TS_STREAM_OFF);
    ts_session *s = NULL;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    x->v = (size_t)e->m->hp.n_vocab;
    for (int i = 0; i < SEQS; i++) {
        for (int j = 0; j < LONG; j++)
            x->t[i][j] = (ts_token)rnd(0, (int64_t)x->v - 1);
        if (i > 0)
            memcpy(x->t[i], x->t[i / 2], (size_t)(i % 2 ? 130 : 64) * sizeof(ts_token));
        x->want[i] = malloc((size_t)x->len * x->v * sizeof(float));
        REQUIRE(x->want[i]);
        CHECK(ts_session_rewind(s, 0, &err) == TS_OK);
        for (size_t at = 0, n; at < (size_t)x->len; at += n) {
            n = (size_t)x->len - at < ROWS ? (size_t)x->len - at : ROWS;
            REQUIRE(ts_session_eval(s, x->t[i] + at, n, n, &err) == TS_OK);
            memcpy(x->want[i] + at * x->v, ts_session_logits(s, 0), n * x->v * sizeof(float));
        }
    }
    ts_session_close(s);
    ts_engine_close(e);
}

static void free_texts(texts *x)
{
    for (int i = 0; i < SEQS; i++)
        free(x->want[i]);
}

/* What went on in a run, to be sure that it did. */
typedef struct events {
    int64_t shared, full, rewound, rows;
} events;

static void check_pages(const ts_session *s, int64_t pages, const int64_t *pos)
{
    ts_kv_info k;
    ts_session_kv_info(s, &k);
    CHECK(k.n_pages == pages && k.n_held + k.n_cached + k.n_free == pages && k.n_free >= 0);
    int64_t held = 0, most = 0;
    for (int i = 0; i < SEQS; i++) {
        CHECK_MSG(ts_session_seq_pos(s, i) == pos[i], "timeline %d is at %d, not %d", i,
                  (int)ts_session_seq_pos(s, i), (int)pos[i]);
        const int64_t n = (pos[i] + TS_KV_PAGE - 1) / TS_KV_PAGE;
        held += n;
        most = n > most ? n : most;
    }
    CHECK(k.n_held <= held && k.n_held >= most);
}

/* Random spans of random timelines, rewinds and new beginnings; all logits against those alone.
 * bits: to the last bit. */
static events play(texts *x, const char *what, ts_engine *e, int steps, bool bits)
{
    ts_error err = {0};
    ts_session *s = NULL;
    events seen = {0};
    int64_t pos[SEQS] = {0}, off = 0;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    for (int step = 0; step < steps; step++) {
        const int who = (int)rnd(0, SEQS - 1);
        if (rnd(0, 9) == 0) {
            CHECK(ts_session_seq_begin(s, who, x->t[who], (size_t)x->len, &pos[who], &err) ==
                  TS_OK);
            CHECK(pos[who] % TS_KV_PAGE == 0 && pos[who] < x->len);
            seen.shared += pos[who] > 0;
        } else if (rnd(0, 9) == 0) {
            const int64_t to = rnd(0, pos[who]);
            const ts_status st = ts_session_seq_rewind(s, who, to, &err);
            CHECK_MSG(st == TS_OK || st == TS_FULL, "%s", err.msg);
            pos[who] = ts_session_seq_pos(s, who);
            CHECK(st == TS_FULL || pos[who] == to);
            seen.rewound += to % TS_KV_PAGE != 0;
        }
        ts_span span[SEQS];
        size_t n = 0, left = UBATCH, rows = ROWS;
        const int first = (int)rnd(0, SEQS - 1);
        for (int i = 0; i < SEQS && left; i++) {
            const int q = (first + i) % SEQS;
            size_t m = (size_t)(rnd(0, 2) ? 1 : rnd(1, (int64_t)left));
            m = m < left ? m : left;
            if (rnd(0, 3) == 0 || pos[q] + (int64_t)m > x->len)
                continue;
            size_t out = (size_t)rnd(0, 3);
            out = out < m ? out : m;
            out = out < rows ? out : rows;
            span[n++] = (ts_span){q, x->t[q] + pos[q], m, out};
            left -= m;
            rows -= out;
        }
        if (!n)
            continue;
        const ts_status st = ts_session_eval_spans(s, span, n, &err);
        if (st == TS_FULL) { /* all are as they were: make room */
            check_pages(s, e->plan.n_ctx / TS_KV_PAGE, pos);
            CHECK(ts_session_logits(s, 0) == NULL);
            CHECK(ts_session_seq_begin(s, who, x->t[who], 1, &pos[who], &err) == TS_OK);
            CHECK(pos[who] == 0);
            seen.full++;
            continue;
        }
        CHECK_MSG(st == TS_OK, "%s: %s", what, err.msg);
        size_t row = 0;
        for (size_t i = 0; i < n; i++) {
            pos[span[i].seq] += (int64_t)span[i].n;
            for (size_t j = 0; j < span[i].n_logits; j++, row++) {
                const int64_t at = pos[span[i].seq] - (int64_t)(span[i].n_logits - j);
                const float *want = x->want[span[i].seq] + (size_t)at * x->v;
                const float *got = ts_session_logits(s, row);
                REQUIRE(got);
                const double error = nmse(want, got, x->v);
                if (bits)
                    CHECK_MSG(memcmp(want, got, x->v * sizeof *got) == 0,
                              "%s, step %d: timeline %d at %d of %zu spans: NMSE %g", what, step,
                              span[i].seq, (int)at, n, error);
                off += error > 1e-3;
                seen.rows++;
            }
        }
        CHECK(ts_session_logits(s, row) == NULL);
        check_pages(s, e->plan.n_ctx / TS_KV_PAGE, pos);
    }
    /* tiles round otherwise in other company, and a token may take other experts */
    CHECK_MSG(off * 20 <= seen.rows, "%s: %d of %d rows differ", what, (int)off, (int)seen.rows);
    ts_session_close(s);
    return seen;
}

static void test_arch(const char *arch, const char *path, int64_t len)
{
    ts_error err = {0};
    texts x = {.len = len};
    const int64_t cache = (len * 5 / 2 + TS_KV_PAGE) / TS_KV_PAGE * TS_KV_PAGE;
    char what[80];
    events all = {0};
    const int steps = (int)((SANITIZED ? 40 : 80) * len / LEN);
    const ts_isa isas[] = {TS_ISA_REF, TS_ISA_AUTO};
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", false, &err) == TS_OK);
    for (int i = 0; i < 2; i++) {
        ts_engine *e = open_engine(path, isas[i], SEQS, cache, 0, TS_STREAM_OFF);
        const bool amx = e->plan.isa == TS_ISA_AMX;
        const int64_t layers = e->m->hp.n_layer;
        make_texts(&x, path, isas[i], e->plan.n_ctx_seq);
        snprintf(what, sizeof what, "%s, %s", arch, i ? "auto" : "ref");
        const events s = play(&x, what, e, steps, !amx);
        all.shared += s.shared;
        all.full += s.full;
        all.rewound += s.rewound;
        ts_engine_close(e);
        /* everything on accelerators, a part, a part streamed */
        for (int j = 0; i == 0 && j < 3; j++) {
            const int64_t n = j ? rnd(1, layers) : layers + 1;
            snprintf(what, sizeof what, "%s, %d layers%s", arch, (int)n,
                     j == 2 ? ", streamed" : "");
            ts_engine *split = open_engine(path, TS_ISA_REF, SEQS, cache, n,
                                           j == 2 ? TS_STREAM_ON : TS_STREAM_OFF);
            play(&x, what, split, steps / 3, true);
            ts_engine_close(split);
        }
        free_texts(&x);
    }
    CHECK_MSG(all.shared > 0 && all.full > 0 && all.rewound > 0,
              "%s: %d shared beginnings, %d times full, %d rewinds within a page", arch,
              (int)all.shared, (int)all.full, (int)all.rewound);
}

/* --- saved ---------------------------------------------------------------------- */

static int64_t cached(ts_session *s)
{
    ts_kv_info k;
    ts_session_kv_info(s, &k);
    CHECK(k.n_held == 0);
    return k.n_cached;
}

/* A new session on e gets what the file has; text `who` goes on from there as if it had been
 * computed here. Returns how many pages came. */
static int64_t restored(texts *x, const char *what, ts_engine *e, const char *file, int who)
{
    ts_error err = {0};
    ts_session *s = NULL;
    int64_t pages = 0, pos = 0;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    CHECK_MSG(ts_session_kv_restore(s, file, &pages, &err) == TS_OK, "%s", err.msg);
    CHECK(cached(s) == pages);
    CHECK(ts_session_seq_begin(s, 1, x->t[who], (size_t)x->len, &pos, &err) == TS_OK);
    for (int64_t n; pos < x->len; pos += n) {
        n = x->len - pos < 30 ? x->len - pos : 30;
        const ts_span span = {1, x->t[who] + pos, (size_t)n, 1};
        REQUIRE(ts_session_eval_spans(s, &span, 1, &err) == TS_OK);
        CHECK_MSG(memcmp(ts_session_logits(s, 0), x->want[who] + (size_t)(pos + n - 1) * x->v,
                         x->v * sizeof(float)) == 0,
                  "%s: text %d at %d", what, who, (int)(pos + n - 1));
    }
    int64_t again = 1;
    CHECK(ts_session_kv_restore(s, file, &again, &err) == TS_BAD_ARG && again == 0);
    ts_session_close(s);
    return pages;
}

static long file_size(const char *path)
{
    FILE *f = fopen(path, "rb");
    REQUIRE(f && fseek(f, 0, SEEK_END) == 0);
    const long n = ftell(f);
    fclose(f);
    return n;
}

static void flip(const char *path, long at, int bits)
{
    FILE *f = fopen(path, "r+b");
    REQUIRE(f && fseek(f, at, SEEK_SET) == 0);
    const int c = fgetc(f);
    REQUIRE(fseek(f, at, SEEK_SET) == 0 && fputc(c ^ bits, f) >= 0);
    fclose(f);
}

/* A file that isn't what was written is refused, and nothing is restored. */
static void test_damaged(ts_engine *e, const char *file)
{
    ts_error err = {0};
    ts_session *s = NULL;
    int64_t pages = 1;
    const long size = file_size(file);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    for (int i = 0; i < 40; i++) { /* the header's bytes, and any */
        const long at = i < 24 ? 2 * i : (long)rnd(0, size - 1);
        const int bits = 1 << rnd(0, 7);
        flip(file, at, bits);
        CHECK_MSG(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE, "byte %ld", at);
        CHECK(pages == 0 && cached(s) == 0);
        flip(file, at, bits);
    }
    CHECK(chmod(file, 0620) == 0);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE && strstr(err.msg, "user"));
    CHECK(chmod(file, 0600) == 0);
    CHECK(truncate(file, size - 1) == 0);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE && strstr(err.msg, "size"));
    CHECK(truncate(file, 20) == 0);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE);
    CHECK(truncate(file, 0) == 0);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE);
    CHECK(unlink(file) == 0);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_IO);
    CHECK(ts_session_kv_save(s, "/nonexistent/file", &pages, &err) == TS_IO && pages == 0);
    CHECK(cached(s) == 0);
    ts_session_close(s);
}

/* What one engine saves others restore: the CPU's, one with accelerators, one with less room. */
static void test_saved(const char *arch, const char *path)
{
    ts_error err = {0};
    texts x = {.len = LEN};
    char file[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(file);
    REQUIRE(fd >= 0);
    close(fd);
    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", false, &err) == TS_OK);
    ts_engine *e = open_engine(path, TS_ISA_REF, SEQS, 5 * LEN, 0, TS_STREAM_OFF);
    ts_session *s = NULL;
    make_texts(&x, path, TS_ISA_REF, e->plan.n_ctx_seq);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    for (int64_t pos = 0, n; pos < LEN; pos += n) {
        ts_span span[SEQS];
        n = LEN - pos < 9 ? LEN - pos : 9;
        for (int i = 0; i < SEQS; i++)
            span[i] = (ts_span){i, x.t[i] + pos, (size_t)n, 0};
        REQUIRE(ts_session_eval_spans(s, span, SEQS, &err) == TS_OK);
    }
    int64_t pages = 0;
    CHECK_MSG(ts_session_kv_save(s, file, &pages, &err) == TS_OK, "%s", err.msg);
    ts_session_close(s);
    const int64_t own =
        LEN / TS_KV_PAGE; /* of a text; texts 1 and 3 share two pages, 2 and 4 one */
    CHECK_MSG(pages == SEQS * own - 2 * 2 - 2 * 1, "%s: %d pages", arch, (int)pages);
    for (int i = 0; i < 3; i++)
        CHECK(restored(&x, arch, e, file, i) == pages);
    ts_engine_close(e);

    e = open_engine(path, TS_ISA_REF, SEQS, 5 * LEN, 1, TS_STREAM_ON);
    CHECK(restored(&x, arch, e, file, 4) == pages);
    ts_engine_close(e);
    ubatch = 13; /* a page in five pieces: the file is the same */
    e = open_engine(path, TS_ISA_REF, SEQS, 5 * LEN, 1, TS_STREAM_OFF);
    ubatch = UBATCH;
    CHECK(restored(&x, arch, e, file, 2) == pages);
    ts_engine_close(e);
    e = open_engine(path, TS_ISA_REF, SEQS, 2 * LEN, 99, TS_STREAM_OFF);
    CHECK(restored(&x, arch, e, file, 1) == (2 * LEN + TS_KV_PAGE - 1) / TS_KV_PAGE);
    ts_engine_close(e);

    REQUIRE(ts_synth_tiny(path, arch, "Q4_K_M", false, &err) == TS_OK);
    e = open_engine(path, TS_ISA_REF, SEQS, 5 * LEN, 0, TS_STREAM_OFF);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    CHECK(ts_session_kv_restore(s, file, &pages, &err) == TS_BAD_FILE &&
          strstr(err.msg, "another model"));
    CHECK(pages == 0 && cached(s) == 0);
    ts_session_close(s);
    ts_engine_close(e);

    REQUIRE(ts_synth_tiny(path, arch, "Q8_0", false, &err) == TS_OK);
    e = open_engine(path, TS_ISA_REF, SEQS, 5 * LEN, 0, TS_STREAM_OFF);
    test_damaged(e, file);
    ts_engine_close(e);
    free_texts(&x);
}

/* What isn't a batch: a sentence, and nothing has moved. */
static void test_misuse(const char *path)
{
    ts_error err = {0};
    ts_engine *e = open_engine(path, TS_ISA_REF, SEQS, LEN, 0, TS_STREAM_OFF);
    ts_session *s = NULL;
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    ts_token t[LEN] = {1, 2, 3}, bad = (ts_token)e->m->hp.n_vocab;
    int64_t found;
    float *x = malloc((size_t)e->m->hp.n_embd * sizeof *x);
    REQUIRE(x);
    const ts_span spans[] = {{-1, t, 3, 0},   {SEQS, t, 3, 0},       {0, t, 0, 0},  {0, t, 2, 3},
                             {0, &bad, 1, 1}, {0, t, UBATCH + 1, 1}, {0, t, 20, 13}};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        CHECK_MSG(ts_session_eval_spans(s, &spans[i], 1, &err) == TS_BAD_ARG && err.msg[0],
                  "case %zu", i);
    const ts_span twice[] = {{2, t, 1, 1}, {2, t, 1, 1}};
    CHECK(ts_session_eval_spans(s, twice, 2, &err) == TS_BAD_ARG && strstr(err.msg, "0 and 1"));
    CHECK(ts_session_eval_spans(s, twice, 0, &err) == TS_BAD_ARG);
    CHECK(ts_session_seq_rewind(s, SEQS, 0, &err) == TS_BAD_ARG);
    CHECK(ts_session_seq_begin(s, -1, t, 3, &found, &err) == TS_BAD_ARG);
    CHECK(ts_session_seq_pos(s, SEQS) == -1 && ts_session_seq_pos(s, 2) == 0);
    CHECK(ts_session_embedding(s, 0, x, &err) == TS_BAD_ARG);

    /* a row's hidden state, times the output matrix, is its logits */
    const ts_span two_rows[] = {{1, t, 3, 1}, {3, t + 1, 2, 2}};
    REQUIRE(ts_session_eval_spans(s, two_rows, 2, &err) == TS_OK);
    const ts_weight *w = e->m->output;
    float *row = malloc((size_t)w->k * sizeof *row);
    REQUIRE(row);
    for (size_t i = 0; i < 3; i++) {
        CHECK(ts_session_embedding(s, i, x, &err) == TS_OK);
        for (int64_t n = 0; n < w->n; n++) {
            const ts_type_info *type = ts_type_get(w->source->type);
            type->to_f32(
                row, (const uint8_t *)w->source->data + (size_t)n * ts_row_bytes(type, w->k), w->k);
            double sum = 0;
            for (int64_t k = 0; k < w->k; k++)
                sum += (double)row[k] * (double)x[k];
            CHECK(fabs(sum - (double)ts_session_logits(s, i)[n]) < 1e-3);
        }
    }
    CHECK(ts_session_embedding(s, 3, x, &err) == TS_BAD_ARG);
    ts_session_close(s);
    ts_engine_close(e);

    e = open_engine(path, TS_ISA_REF, 0, LEN, 0, TS_STREAM_OFF); /* without pages */
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    CHECK(ts_session_eval_spans(s, two_rows, 1, &err) == TS_BAD_ARG && strstr(err.msg, "n_seqs"));
    CHECK(ts_session_eval(s, t, 3, 1, &err) == TS_OK && ts_session_pos(s) == 3);
    ts_session_close(s);
    ts_engine_close(e);
    free(x);
    free(row);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    const int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        n_threads = i == 0 || i == 4 ? 3 : 1;
        if (!SANITIZED || i == 7)
            test_arch(archs[i], path,
                      !SANITIZED && (i == 0 || i == 3) ? LONG : LEN); /* gemma3 has windows */
    }
    for (size_t i = 0; i < sizeof archs / sizeof *archs;
         i += SANITIZED ? 14 : 7) /* sinks, and latent, too */
        test_saved(archs[i], path);
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, "llama", "Q8_0", false, &err) == TS_OK);
    test_misuse(path);
    unlink(path);
    return check_done("spans");
}

/* test_stats.c - the statistics: what is counted for each kernel set, and the share of the matrix
 * FLOPs on tiles, with kernel sets that claim tiles from 32 tokens on whatever this machine has. */
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "gguf/synth.h"

enum { MANY = 40, FEW = 7, TILES_FROM = 32 };

static bool from_32(bool int8, int64_t m)
{
    (void)int8;
    return m >= TILES_FROM;
}

static bool exact_from_32(bool int8, int64_t m)
{
    return !int8 && m >= TILES_FROM;
}

static double number(const char *json, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *at = strstr(json, name);
    return at ? strtod(at + strlen(name), NULL) : NAN;
}

static bool close_to(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b) + 1e-9;
}

/* FLOPs of `rows` tokens, of which `wanted` want logits and go through the last layer to its end.
 */
static double flops(const ts_engine *e, int64_t rows, int64_t wanted)
{
    const ts_steps *steps = &e->plan.steps;
    double sum = 0;
    for (size_t i = 0; i < steps->n; i++) {
        const ts_step *st = &steps->v[i];
        int products = st->op == TS_OP_MATMUL ? 1 : st->op == TS_OP_GLU ? 2 : 0;
        if (products)
            sum += 2.0 * products * (double)st->w->n * (double)st->w->k *
                   (double)(st->domain == TS_ALL_ROWS ? rows : wanted);
    }
    return sum;
}

static char *stats(ts_session *s, bool json)
{
    ts_error err = {0};
    char *text = NULL;
    REQUIRE(ts_session_stats(s, json, &text, &err) == TS_OK);
    return text;
}

static void eval(ts_session *s, int n)
{
    ts_error err = {0};
    ts_token t[MANY] = {1, 2, 3};
    REQUIRE(ts_session_eval(s, t, (size_t)n, 1, &err) == TS_OK);
}

int main(void)
{
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, "llama", "Q8_0", true, &err) == TS_OK);
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_REF; /* which has no tiles */
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    ts_session_set_stats(s, true);
    eval(s, MANY);
    char *json = stats(s, true), *text = stats(s, false);
    CHECK_MSG(close_to(number(json, "matrix_flops"), flops(e, MANY, 1)), "%s", json);
    CHECK_MSG(number(json, "tile_flops") == 0 && number(json, "tile_share") == 0, "%s", json);
    CHECK_MSG(strstr(text, "matrix FLOPs on tiles: 0.0 %\n"), "%s", text);
    ts_free(json);
    ts_free(text);

    static ts_kset claims[64]; /* one for each weight */
    REQUIRE(e->m->n_weights <= 64);
    for (size_t i = 0; i < e->m->n_weights; i++) {
        ts_weight *w = &e->m->weights[i];
        if (!w->kset)
            continue;
        claims[i] = *w->kset;
        claims[i].on_tiles = from_32;
        w->kset = &claims[i];
    }
    /* From the last layer's attention on it is one row: too few for tiles. */
    ts_session_set_stats(s, true);
    eval(s, MANY);
    eval(s, FEW);
    eval(s, 1);
    json = stats(s, true), text = stats(s, false);
    double all = flops(e, MANY + FEW + 1, 3), on_tiles = flops(e, MANY, 0);
    CHECK_MSG(close_to(number(json, "matrix_flops"), all), "%s", json);
    CHECK_MSG(close_to(number(strstr(json, "],"), "tile_flops"), on_tiles), "%s", json);
    CHECK_MSG(fabs(number(json, "tile_share") - on_tiles / all) < 1e-6, "%s", json);
    char line[64];
    snprintf(line, sizeof line, "matrix FLOPs on tiles: %.1f %%\n", 100 * on_tiles / all);
    CHECK_MSG(strstr(text, line), "%s: %s", line, text);
    /* The one kernel set's entry comes first and has it all. */
    double seconds = number(json, "seconds"), bytes = number(json, "bytes");
    CHECK_MSG(strstr(json, "{\"name\":\"ref\",\"matrix\":true"), "%s", json);
    CHECK_MSG(close_to(number(json, "flops"), all), "%s", json);
    CHECK_MSG(close_to(number(json, "tile_flops"), on_tiles), "%s", json);
    CHECK_MSG(close_to(bytes, 3 * number(json, "weight_bytes")), "%s", json);
    CHECK_MSG(seconds > 0 && fabs(number(json, "tflops") * 1e12 * seconds / all - 1) < 0.01, "%s",
              json);
    CHECK_MSG(fabs(number(json, "gbs") * 1e9 * seconds / bytes - 1) < 0.01, "%s", json);
    ts_free(json);
    ts_free(text);

    /* Asked with the precision that is computed with. */
    e->plan.int8_prefill = true;
    for (int tiles = 0; tiles < 2; tiles++) {
        for (size_t i = 0; i < e->m->n_weights; i++)
            claims[i].on_tiles = tiles ? from_32 : exact_from_32;
        ts_session_set_stats(s, true);
        eval(s, MANY);
        json = stats(s, true);
        CHECK_MSG(close_to(number(strstr(json, "],"), "tile_flops"), tiles ? on_tiles : 0),
                  "%d: %s", tiles, json);
        ts_free(json);
    }

    ts_session_set_stats(s, true); /* from zero */
    json = stats(s, true);
    CHECK_MSG(number(json, "matrix_flops") == 0, "%s", json);
    CHECK_MSG(number(strstr(json, "],"), "tile_flops") == 0, "%s", json);
    ts_free(json);
    ts_session_close(s);
    ts_engine_close(e);
    unlink(path);
    return check_done("stats");
}

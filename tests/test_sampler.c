/* The sampler: cases computed by hand, every combination of cuts against a naive one that sorts the
 * whole vocabulary, the distribution of draws, penalties, determinism, refused options, no memory.
 */
#include <string.h>
#include <sys/resource.h>

#include "check.h"
#include "tessera.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

static uint64_t seed = 7;

static ts_sampler_options plain(void) /* every cut and penalty off */
{
    ts_sampler_options o;
    ts_sampler_options_init(&o);
    o.temp = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    return o;
}

static ts_sampler *open_with(const ts_sampler_options *o)
{
    ts_sampler *s = NULL;
    ts_error err = {0};
    ts_status st = ts_sampler_open(&s, o, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(s);
    return s;
}

static ts_token sample(ts_sampler *s, const float *logits, size_t n)
{
    float *l = malloc(n * sizeof *l);
    REQUIRE(l);
    memcpy(l, logits, n * sizeof *l);
    ts_token id = -1;
    CHECK(ts_sampler_sample(s, l, n, &id, NULL) == TS_OK);
    CHECK_MSG(id >= 0 && (size_t)id < n, "id %d of %zu", id, n);
    free(l);
    return id;
}

/* --- options ------------------------------------------------------------------- */

static void refused(ts_sampler_options o, const char *word)
{
    ts_sampler *const untouched = (ts_sampler *)&o;
    ts_sampler *s = untouched;
    ts_error err = {0};
    CHECK_MSG(ts_sampler_open(&s, &o, &err) == TS_BAD_ARG && err.code == TS_BAD_ARG, "%s", word);
    CHECK_MSG(s == untouched, "%s", word);
    CHECK_MSG(strstr(err.msg, word), "'%s' in '%s'", word, err.msg);
    CHECK(ts_sampler_open(&s, &o, NULL) == TS_BAD_ARG);
}

static void test_options(void)
{
    static const float not_finite[] = {NAN, INFINITY, -INFINITY};
    static const float not_share[] = {NAN, INFINITY, -0.01f, 1.01f};
    ts_sampler_options o;
    for (int i = 0; i < 3; i++) {
        o = plain(), o.temp = not_finite[i], refused(o, "temperature");
        o = plain(), o.frequency_penalty = not_finite[i], refused(o, "frequency");
        o = plain(), o.presence_penalty = not_finite[i], refused(o, "presence");
        o = plain(), o.repeat_penalty = not_finite[i], refused(o, "repetition");
    }
    for (int i = 0; i < 4; i++) {
        o = plain(), o.top_p = not_share[i], refused(o, "top-p");
        o = plain(), o.min_p = not_share[i], refused(o, "min-p");
    }
    o = plain(), o.repeat_penalty = 0, refused(o, "repetition");
    o = plain(), o.repeat_penalty = -1, refused(o, "repetition");
    o = plain(), o.repeat_last_n = -2, refused(o, "-2");

    /* a caller of an older header, who knows the temperature only */
    o = plain(), o.temp = -1, o.top_p = 5;
    o.size = offsetof(ts_sampler_options, top_k);
    ts_sampler *s = open_with(&o);
    CHECK(sample(s, (float[]){0, 1, 2}, 3) == 2);
    ts_token id = 99;
    ts_error err = {0};
    float l = 0;
    CHECK(ts_sampler_sample(s, &l, 0, &id, &err) == TS_BAD_ARG && id == 99 && err.msg[0]);
    CHECK(ts_sampler_sample(s, &l, (size_t)INT32_MAX + 1, &id, &err) == TS_BAD_ARG && id == 99);
    ts_sampler_close(s);
    ts_sampler_close(NULL);
    s = open_with(NULL);
    CHECK(sample(s, &l, 1) == 0);
    ts_sampler_close(s);
}

/* --- greedy and logits that aren't numbers ---------------------------------------- */

static void test_greedy(void)
{
    const float n = NAN, inf = INFINITY;
    for (int mode = 0; mode < 5; mode++) {
        ts_sampler_options o = plain();
        o.temp = mode == 0 ? 0 : mode == 1 ? -1 : 1e-30f; /* so cold that only the best is left */
        o.top_k = mode == 3 ? 2 : 0;
        o.top_p = mode == 4 ? 0.9f : 1;
        ts_sampler *s = open_with(&o);
        CHECK(sample(s, (float[]){1, 3, 2}, 3) == 1);
        CHECK(sample(s, (float[]){n, n, 2, n}, 4) == 2);
        CHECK(sample(s, (float[]){-inf, n, -3, -inf}, 4) == 2);
        CHECK(sample(s, (float[]){1, inf, 2}, 3) == 1);
        CHECK(sample(s, (float[]){n, n, n}, 3) == 0);
        CHECK(sample(s, (float[]){-inf, -inf}, 2) == 0);
        CHECK(sample(s, (float[]){-3.4e38f, 3.4e38f, 0}, 3) == 1);
        if (mode < 2) {
            CHECK(sample(s, (float[]){1, 3, 3, 3}, 4) == 1);
            CHECK(sample(s, (float[]){n, inf, inf}, 3) == 1);
        }
        ts_sampler_close(s);
    }
    /* of equals, top-k and top-p keep the lower ids */
    ts_sampler_options o = plain();
    o.top_k = 1;
    ts_sampler *s = open_with(&o);
    CHECK(sample(s, (float[]){1, 3, 3, 3}, 4) == 1);
    ts_sampler_close(s);
    o = plain(), o.top_p = 0;
    s = open_with(&o);
    CHECK(sample(s, (float[]){1, 3, 3, 3}, 4) == 1);
    ts_sampler_close(s);
}

/* --- distributions ------------------------------------------------------------------- */

/* 20000 draws from p (logits = ln p) follow want: chi-square below its 99.99 % point. The seed is
 * fixed: this passes always or never. */
static void distribution(const char *what, const ts_sampler_options *o, const float *p,
                         const double *want, size_t n)
{
    enum { DRAWS = 20000, MAX = 8 };
    static const double limit[MAX] = {0, 15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9};
    float logits[MAX];
    int count[MAX] = {0}, degrees = -1;
    for (size_t i = 0; i < n; i++)
        logits[i] = logf(p[i]) + 3;
    ts_sampler *s = open_with(o);
    for (int i = 0; i < DRAWS; i++)
        count[sample(s, logits, n)]++;
    ts_sampler_close(s);
    double chi = 0;
    for (size_t i = 0; i < n; i++) {
        if (want[i] == 0) {
            CHECK_MSG(count[i] == 0, "%s: token %zu was cut but drawn", what, i);
            continue;
        }
        double e = count[i] - want[i] * DRAWS;
        chi += e * e / (want[i] * DRAWS);
        degrees++;
    }
    CHECK_MSG(chi <= limit[degrees], "%s: chi-square %.1f with %d degrees", what, chi, degrees);
}

static void test_distributions(void)
{
    /* not sorted, so that sorting shows */
    const float p[6] = {0.0625f, 0.5f, 0.125f, 0.03125f, 0.25f, 0.03125f};
    ts_sampler_options o = plain();
    distribution("all", &o, p, (double[]){0.0625, 0.5, 0.125, 0.03125, 0.25, 0.03125}, 6);
    o.top_k = 2;
    distribution("top-k", &o, p, (double[]){0, 2 / 3.0, 0, 0, 1 / 3.0, 0}, 6);
    o = plain(), o.top_p = 0.7f; /* 0.5 + 0.25 reaches it */
    distribution("top-p", &o, p, (double[]){0, 2 / 3.0, 0, 0, 1 / 3.0, 0}, 6);
    o = plain(), o.min_p = 0.2f; /* of 0.5 is 0.1 */
    distribution("min-p", &o, p, (double[]){0, 4 / 7.0, 1 / 7.0, 0, 2 / 7.0, 0}, 6);
    o = plain(), o.top_k = 3, o.top_p = 0.8f;
    /* of the three left 4/7 + 2/7 reach 0.8; of all six 0.5 + 0.25 wouldn't */
    distribution("top-p after top-k", &o, p, (double[]){0, 2 / 3.0, 0, 0, 1 / 3.0, 0}, 6);
    o = plain(), o.top_p = 0.7f, o.temp = 2;
    /* the temperature comes last: before the cut it would flatten 0.5 + 0.25 to less than 0.7 */
    distribution("temperature after top-p", &o, p,
                 (double[]){0, sqrt(0.5) / (sqrt(0.5) + 0.5), 0, 0, 0.5 / (sqrt(0.5) + 0.5), 0}, 6);
    o = plain(), o.min_p = 0.2f, o.temp = 0.5f;
    distribution("temperature after min-p", &o, p,
                 (double[]){0, 16 / 21.0, 1 / 21.0, 0, 4 / 21.0, 0}, 6);
}

/* --- against a naive sampler ------------------------------------------------------------- */

typedef struct pair {
    float l;
    ts_token id;
} pair;

static int by_rank(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return x->l != y->l ? (x->l < y->l ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    return ((const pair *)a)->id - ((const pair *)b)->id;
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* xoshiro256++ as published. */
static uint64_t xoshiro(uint64_t s[4])
{
    uint64_t result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= t, s[3] = rotl(s[3], 45);
    return result;
}

static ts_token naive(const ts_sampler_options *o, uint64_t rng[4], const float *logits, size_t n)
{
    pair *c = malloc(n * sizeof *c);
    REQUIRE(c);
    for (size_t i = 0; i < n; i++)
        c[i] = (pair){logits[i], (ts_token)i};
    qsort(c, n, sizeof *c, by_rank);
    bool sorted = false;
    size_t m = n;
    if (o->top_k > 0 && (size_t)o->top_k < n)
        m = (size_t)o->top_k, sorted = true;
    double sum = 0, run = 0;
    for (size_t i = 0; i < m; i++)
        sum += exp((double)c[i].l - c[0].l);
    for (size_t i = 0; i < m && o->top_p < 1; i++) {
        sorted = true;
        run += exp((double)c[i].l - c[0].l);
        if (run >= o->top_p * sum)
            m = i + 1;
    }
    while (m > 1 && exp((double)c[m - 1].l - c[0].l) < o->min_p)
        m--;
    float max = c[0].l;
    if (!sorted)
        qsort(c, m, sizeof *c, by_id);
    sum = run = 0;
    for (size_t i = 0; i < m; i++)
        sum += exp(((double)c[i].l - max) / o->temp);
    double at = (double)(xoshiro(rng) >> 11) / 9007199254740992.0 * sum;
    size_t i = 0;
    while (i < m - 1 && (run += exp(((double)c[i].l - max) / o->temp)) <= at)
        i++;
    ts_token id = c[i].id;
    free(c);
    return id;
}

static void test_naive(void)
{
    static const int32_t ks[] = {0, 1, 2, 40, 300, 5000, 1000000};
    static const float ps[] = {1, 0.95f, 0.5f, 0.999f, 0}, mins[] = {0, 0.05f, 0.5f, 1};
    static const size_t sizes[] = {1, 2, 39, 257, 5000, 30000};
    for (int c = 0; c < 600; c++) {
        size_t n = sizes[rnd_u64(&seed) % 6];
        float spread = 0.01f + 6 * rnd_unit(&seed); /* from flat to peaked */
        ts_sampler_options o = plain();
        o.top_k = ks[rnd_u64(&seed) % 7];
        o.top_p = ps[rnd_u64(&seed) % 5];
        o.min_p = mins[rnd_u64(&seed) % 4];
        o.temp = 0.3f + 2 * rnd_unit(&seed);
        o.seed = rnd_u64(&seed);
        ts_sampler *s = open_with(&o);
        uint64_t z = o.seed, rng[4];
        for (int i = 0; i < 4; i++)
            rng[i] = rnd_u64(&z);
        float *l = malloc(n * sizeof *l);
        REQUIRE(l);
        for (int draw = 0; draw < 4; draw++) {
            for (size_t i = 0; i < n; i++)
                l[i] = spread * rnd_normal(&seed);
            if (c % 3 == 0) /* equal logits */
                for (size_t i = 0; i < n; i++)
                    l[i] = floorf(l[i]);
            ts_token want = naive(&o, rng, l, n), id = sample(s, l, n);
            CHECK_MSG(id == want, "%d not %d of %zu: k=%d p=%g min=%g temp=%g draw %d", id, want, n,
                      o.top_k, o.top_p, o.min_p, o.temp, draw);
        }
        free(l);
        ts_sampler_close(s);
    }
    /* the generator's published test vector */
    uint64_t s[4] = {1, 2, 3, 4};
    CHECK(xoshiro(s) == 41943041 && xoshiro(s) == 58720359 && xoshiro(s) == 3588806011781223);
}

/* --- penalties ------------------------------------------------------------------------------ */

/* The logits after the penalties (greedy leaves them in place). */
static void penalised(const ts_sampler_options *o, const ts_token *ids, size_t n_ids, float *l,
                      size_t n)
{
    ts_sampler *s = open_with(o);
    for (size_t i = 0; i < n_ids; i++)
        ts_sampler_accept(s, ids[i]);
    ts_token id;
    float *again = malloc(n * sizeof *again);
    REQUIRE(again);
    memcpy(again, l, n * sizeof *l);
    CHECK(ts_sampler_sample(s, l, n, &id, NULL) == TS_OK);
    CHECK(ts_sampler_sample(s, again, n, &id, NULL) == TS_OK);
    CHECK(!memcmp(l, again, n * sizeof *l)); /* counts start from zero each time */
    free(again);
    ts_sampler_close(s);
}

static bool same(const float *a, const float *b, size_t n)
{
    return !memcmp(a, b, n * sizeof *a);
}

static void test_penalties(void)
{
    const ts_token ids[] = {0, 1, 1, 3, -5, 77, 2};
    ts_sampler_options o = plain();
    o.temp = 0;
    {
        o.repeat_penalty = 2;
        float l[5] = {4, -4, 0, 1, 3};
        penalised(&o, ids, 7, l, 5);
        CHECK(same(l, (float[]){2, -8, 0, 0.5f, 3}, 5));
    }
    {
        o.frequency_penalty = 0.25f;
        o.presence_penalty = 1;
        float l[5] = {4, -4, 0, 1, 3};
        penalised(&o, ids, 7, l, 5);
        CHECK(same(l, (float[]){0.75f, -9.5f, -1.25f, -0.75f, 3}, 5));
    }
    {
        o.repeat_last_n = 5; /* 1 3 -5 77 2 */
        float l[5] = {4, -4, 0, 1, 3};
        penalised(&o, ids, 7, l, 5);
        CHECK(same(l, (float[]){4, -9.25f, -1.25f, -0.75f, 3}, 5));
    }
    {
        o.repeat_last_n = 1;
        float l[5] = {4, -4, 2, 1, 3};
        penalised(&o, ids, 7, l, 5);
        CHECK(same(l, (float[]){4, -4, -0.25f, 1, 3}, 5));
    }
    {
        o.repeat_last_n = 0;
        float l[5] = {4, -4, 0, 1, 3};
        penalised(&o, ids, 7, l, 5);
        CHECK(same(l, (float[]){4, -4, 0, 1, 3}, 5));
    }
    {
        o = plain(), o.temp = 0, o.presence_penalty = 1, o.repeat_last_n = -1;
        static ts_token many[5000]; /* all of them are looked back on */
        for (int i = 0; i < 5000; i++)
            many[i] = i % 1000 == 0 ? i / 1000 : 9;
        float l[6] = {0, 0, 0, 0, 0, NAN};
        penalised(&o, many, 5000, l, 6);
        CHECK(same(l, (float[]){-1, -1, -1, -1, -1, -INFINITY}, 6));
    }
    /* it changes what is chosen */
    o = plain(), o.temp = 0, o.repeat_penalty = 1.5f;
    ts_sampler *s = open_with(&o);
    const float l[3] = {1, 3, 2.5f};
    CHECK(sample(s, l, 3) == 1);
    ts_sampler_accept(s, 1);
    CHECK(sample(s, l, 3) == 2);
    ts_sampler_close(s);
}

/* --- determinism, memory -----------------------------------------------------------------------
 */

static void test_determinism(void)
{
    enum { N = 262144, DRAWS = 20 };
    float *l = malloc(N * sizeof *l);
    REQUIRE(l);
    for (int i = 0; i < N; i++)
        l[i] = 3 * rnd_normal(&seed);
    ts_sampler_options o, other;
    ts_sampler_options_init(&o);
    o.temp = 3;
    o.min_p = 0;
    o.top_p = 1;
    o.seed = 42;
    other = o;
    other.seed = 43;
    ts_sampler *a = open_with(&o), *b = open_with(&o), *c = open_with(&other);
    int differ = 0;
    for (int i = 0; i < DRAWS; i++) {
        ts_token x = sample(a, l, N), y = sample(b, l, N), z = sample(c, l, N);
        CHECK(x == y);
        differ += x != z;
    }
    CHECK(differ > DRAWS / 2);
    ts_sampler_close(a);
    ts_sampler_close(b);
    ts_sampler_close(c);
    free(l);
}

/* Without room for its tables the sampler says so and serves again later. */
static void test_no_memory(void)
{
    enum { N = 8 << 20 };
    if (WITH_ASAN) /* it reserves address space by the terabyte */
        return;
    float *l = calloc(N, sizeof *l);
    REQUIRE(l);
    l[12345] = 50;
    ts_sampler_options o = plain();
    o.presence_penalty = 0.5f;
    o.repeat_last_n = -1;
    ts_sampler *s = open_with(&o);
    struct rlimit old, tight;
    REQUIRE(getrlimit(RLIMIT_AS, &old) == 0);
    tight = old;
    tight.rlim_cur = (rlim_t)60 << 20; /* the logits are 32 MB; the candidates want 64 */
    REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
    ts_error err = {0};
    ts_token id = -1;
    CHECK(ts_sampler_sample(s, l, N, &id, &err) == TS_NO_MEMORY && id == -1);
    CHECK(strstr(err.msg, "8388608"));
    for (int i = 0; i < N; i++) /* the window grows until it can't */
        ts_sampler_accept(s, 7);
    CHECK(ts_sampler_sample(s, l, 3, &id, &err) == TS_NO_MEMORY && id == -1);
    CHECK(strstr(err.msg, "penalties"));
    CHECK(ts_sampler_sample(s, l, 3, &id, &err) == TS_OK);
    REQUIRE(setrlimit(RLIMIT_AS, &old) == 0);
    CHECK(ts_sampler_sample(s, l, N, &id, &err) == TS_OK && id == 12345);
    ts_sampler_close(s);
    free(l);
}

int main(void)
{
    test_options();
    test_greedy();
    test_distributions();
    test_naive();
    test_penalties();
    test_determinism();
    test_no_memory();
    return check_done("sampler");
}

/* test_type.c - the quantised types against golden values, and the half and bfloat conversions. */
#include <string.h>

#include "check.h"
#include "gguf/type.h"

static const ts_type all[] = {
    TS_TYPE_F32,  TS_TYPE_F16,   TS_TYPE_BF16,   TS_TYPE_Q4_0,   TS_TYPE_Q4_1, TS_TYPE_Q5_0,
    TS_TYPE_Q5_1, TS_TYPE_Q8_0,  TS_TYPE_Q2_K,   TS_TYPE_Q3_K,   TS_TYPE_Q4_K, TS_TYPE_Q5_K,
    TS_TYPE_Q6_K, TS_TYPE_MXFP4, TS_TYPE_IQ4_NL, TS_TYPE_IQ4_XS,
};
enum { N_ALL = sizeof all / sizeof *all };

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* --- golden blocks ------------------------------------------------------ */

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    uint8_t *p = malloc(1 << 20);
    REQUIRE(p);
    *n = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

static void test_golden(ts_type type)
{
    const ts_type_info *t = ts_type_get(type);
    char path[512], low[16] = {0};
    for (size_t i = 0; t->name[i]; i++)
        low[i] = (char)(t->name[i] | (t->name[i] >= 'A' && t->name[i] <= 'Z' ? 32 : 0));
    snprintf(path, sizeof path, "%s/golden/types/%s.bin", TS_TEST_DIR, low);
    size_t size;
    uint8_t *file = read_file(path, &size);
    uint32_t head[3];
    REQUIRE(size > 16 && memcmp(file, "TSTY", 4) == 0);
    memcpy(head, file + 4, sizeof head);
    size_t n = head[1], k = n * (size_t)t->block;
    REQUIRE(head[0] == (uint32_t)type && head[2] == (uint32_t)t->block);
    REQUIRE(size == 16 + n * (size_t)t->bytes + 4 * k);

    /* Odd address: rows of a mapped file are not aligned for their blocks. */
    uint8_t *src = malloc(n * (size_t)t->bytes + 1);
    float *want = malloc(4 * k), *got = malloc(4 * (k + 1));
    memcpy(src + 1, file + 16, n * (size_t)t->bytes);
    memcpy(want, file + 16 + n * (size_t)t->bytes, 4 * k);
    got[k] = 1234;
    t->to_f32(got, src + 1, (int64_t)k);
    for (size_t i = 0; i < k; i++)
        CHECK_MSG(bits(got[i]) == bits(want[i]), "%s block %zu element %zu: %a, not %a", t->name,
                  i / (size_t)t->block, i % (size_t)t->block, (double)got[i], (double)want[i]);
    CHECK_MSG(got[k] == 1234, "%s writes past the row", t->name);
    CHECK(ts_row_bytes(t, (int64_t)k) == n * (size_t)t->bytes);
    free(src);
    free(want);
    free(got);
    free(file);
}

/* --- names -------------------------------------------------------------- */

static void test_names(void)
{
    int known = 0;
    for (uint32_t i = 0; i < 300; i++) {
        const ts_type_info *t = ts_type_get(i);
        known += t != NULL;
        if (t) {
            ts_type back = TS_TYPE_COUNT;
            CHECK(ts_type_name(i) == t->name);
            CHECK_MSG(ts_type_parse(t->name, &back) && back == (ts_type)i, "%s", t->name);
        }
    }
    CHECK(known == N_ALL);
    for (int i = 0; i < N_ALL; i++)
        CHECK(ts_type_get(all[i]) != NULL);
    CHECK(ts_type_get(UINT32_MAX) == NULL);
    CHECK(strcmp(ts_type_name(16), "IQ2_XXS") == 0);
    CHECK(strcmp(ts_type_name(34), "TQ1_0") == 0);
    CHECK(strcmp(ts_type_name(40), "NVFP4") == 0);
    CHECK(ts_type_name(43) == NULL && ts_type_name(UINT32_MAX) == NULL);
    ts_type t = TS_TYPE_COUNT;
    CHECK(ts_type_parse("q4_k", &t) && t == TS_TYPE_Q4_K);
    CHECK(ts_type_parse("iq4_NL", &t) && t == TS_TYPE_IQ4_NL);
    t = TS_TYPE_COUNT;
    CHECK(!ts_type_parse("", &t) && !ts_type_parse("Q4_", &t) && !ts_type_parse("IQ2_XXS", &t) &&
          t == TS_TYPE_COUNT);
}

/* --- half and bfloat ---------------------------------------------------- */

/* The definition of IEEE 754 binary16, in doubles. */
static double half_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static void test_half_values(void)
{
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f = ts_f16_to_f32(h);
        if ((h & 0x7c00) == 0x7c00) {
            CHECK_MSG((h & 0x3ff) ? isnan(f) : isinf(f), "half %04x", i);
            CHECK_MSG(!!signbit(f) == !!(h & 0x8000), "half %04x", i);
            CHECK_MSG((bits(f) >> 13 & 0x3ff) == (h & 0x3ffu), "half %04x: payload", i);
            uint16_t back = ts_f32_to_f16(f);
            CHECK_MSG((back | 0x200) == (h | ((h & 0x3ff) ? 0x200 : 0)) || back == h, "half %04x",
                      i);
            CHECK_MSG(!!(back & 0x3ff) == !!(h & 0x3ff), "half %04x", i);
            continue;
        }
        CHECK_MSG((double)f == half_value(h) && !!signbit(f) == !!(h & 0x8000), "half %04x: %a", i,
                  (double)f);
        CHECK_MSG(ts_f32_to_f16(f) == h, "half %04x and back", i);
    }
}

/* Nearest half by comparing with both neighbours; ties to even. a >= 0, finite. */
static uint16_t nearest_half(float a)
{
    uint16_t lo = 0, hi = 0x7c00; /* lo: greatest half <= a */
    while (hi - lo > 1) {
        uint16_t mid = (uint16_t)((lo + hi) / 2);
        *((double)a >= half_value(mid) ? &lo : &hi) = mid;
    }
    double below = (double)a - half_value(lo);
    double above = (lo == 0x7bff ? 65536.0 : half_value((uint16_t)(lo + 1))) - (double)a;
    bool up = above < below || (above == below && (lo & 1));
    return (uint16_t)(lo + up);
}

static void check_to_half(float f)
{
    uint16_t want = (uint16_t)(nearest_half(fabsf(f)) | (signbit(f) ? 0x8000 : 0));
    CHECK_MSG(ts_f32_to_f16(f) == want, "%a: half %04x, not %04x", (double)f, ts_f32_to_f16(f),
              want);
}

static void test_to_half(void)
{
    /* Every half, the middle to its successor, and the floats next to both. */
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float a = (float)half_value((uint16_t)h);
        float mid = (float)((half_value((uint16_t)h) +
                             (h == 0x7bff ? 65536.0 : half_value((uint16_t)(h + 1)))) /
                            2);
        check_to_half(a);
        check_to_half(-mid);
        check_to_half(nextafterf(a, INFINITY));
        check_to_half(nextafterf(mid, INFINITY));
        check_to_half(nextafterf(mid, 0));
    }
    uint64_t s = 7;
    for (int i = 0; i < 200000; i++) {
        float f = from_bits((uint32_t)rnd_u64(&s));
        if (isfinite(f))
            check_to_half(f);
    }
    CHECK(ts_f32_to_f16(INFINITY) == 0x7c00 && ts_f32_to_f16(-INFINITY) == 0xfc00);
    CHECK((ts_f32_to_f16(from_bits(0x7f800001)) & 0x7fff) >
          0x7c00); /* NaN with only low bits set */
}

static void test_bfloat(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = ts_bf16_to_f32((uint16_t)h);
        CHECK_MSG(bits(f) == h << 16, "bfloat %04x", h);
        uint16_t back = ts_f32_to_bf16(f);
        if (isnan(f))
            CHECK_MSG(back == (h | 0x40), "bfloat %04x", h);
        else
            CHECK_MSG(back == h, "bfloat %04x and back", h);
    }
    uint64_t s = 8;
    for (int i = 0; i < 200000; i++) {
        float f = from_bits((uint32_t)rnd_u64(&s));
        uint32_t lo = bits(f) & 0xffff0000u, down = bits(f) & 0xffff;
        if (i % 4 == 0)
            f = from_bits(lo | 0x8000), down = 0x8000; /* ties */
        if (!isfinite(f))
            continue;
        bool up = down > 0x8000 || (down == 0x8000 && (lo >> 16 & 1));
        CHECK_MSG(ts_f32_to_bf16(f) == (uint16_t)((lo >> 16) + up), "%a", (double)f);
    }
    CHECK((ts_f32_to_bf16(from_bits(0x7f800001)) & 0x7fff) > 0x7f80);
}

int main(void)
{
    for (int i = 0; i < N_ALL; i++)
        test_golden(all[i]);
    test_names();
    test_half_values();
    test_to_half();
    test_bfloat();
    return check_done("type");
}

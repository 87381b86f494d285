/* test_kset_pack.c - what kernel sets make of weights and activations before a product: bytes that
 * can be taken back, that don't depend on who made which part, and that lie where they should in
 * tensors of any size.
 *
 * Memory is full of NaN before it is written: what is left of it shows. */
#include "kset_case.h"

#include <sys/mman.h>

#include "cpu/prep_x16.h"

/* Prepared activations have the same bytes however tokens and elements are cut, and what fills them
 * up, up to a tile of tokens, or of elements, is zeros. */
static void prepared(const ts_kset *s, const ts_prep *prep)
{
    enum { M = 32 };
    int block = ts_type_get(s->type)->block;
    int k = block == 1 ? 557 : block == 32 ? 608 : 768; /* more than a k block of tiles */
    int filled = (k + 63) / 64 * 64;
    CHECK_MSG(512 % prep->k_group == 0, "%s: k by %d", set_name(s), prep->k_group);
    for (int m = 1; m <= M; m++) {
        /* x is followed by NaN, zeros by zeros */
        float *x = poisoned((size_t)(M * filled) * sizeof *x);
        float *zeros = calloc((size_t)(M * filled), sizeof *x);
        const size_t bytes = prep->bytes(m, k);
        void *whole = poisoned(bytes), *act = poisoned(bytes);
        random_x(x, m, k, filled);
        for (int t = 0; t < m; t++)
            memcpy(zeros + t * filled, x + t * filled, (size_t)k * sizeof *x);
        prep->run(whole, x, filled, m, k, 0, m, 0, k);
        for (int a = 0, b; a < m; a = b) {
            b = a + 1 + (int)(rnd_u64(&seed) % 20);
            b = b < m ? b : m;
            for (int c, d = k; d > 0; d = c) { /* the last first */
                c = (int)(rnd_u64(&seed) % (uint64_t)d) / prep->k_group * prep->k_group;
                void *part = poisoned(bytes);
                prep->run(part, x, filled, m, k, a, b, c, d);
                CHECK_MSG(check_join(act, part, bytes), "%s m=%d: wrote beside its part",
                          set_name(s), m);
                free(part);
            }
        }
        CHECK_MSG(memcmp(whole, act, bytes) == 0, "%s m=%d: cuts are seen", set_name(s), m);
        free(act);
        /* the same with zeros as elements, and with zeros as tokens */
        for (int i = 0; i < 2; i++) {
            int m2 = i == 0 ? m : (m + 15) / 16 * 16;
            int k2 = i == 1 ? k : m < prep->group_from ? (k + 31) / 32 * 32 : filled;
            if (bytes != prep->bytes(m2, k2) || (i == 1 && m < prep->group_from))
                continue;
            act = poisoned(bytes);
            prep->run(act, zeros, filled, m2, k2, 0, m2, 0, k2);
            CHECK_MSG(memcmp(whole, act, bytes) == 0, "%s m=%d: not filled with zeros", set_name(s),
                      m);
            free(act);
        }
        free(x);
        free(zeros);
        free(whole);
    }
}

/* pack then unpack gives every byte back, whatever the bytes are. */
static void round_trip(const ts_kset *s)
{
    const ts_type_info *info = ts_type_get(s->type);
    const int block = info->block;
    for (int i = 0; i < 60; i++) {
        int64_t n = 1 + (int64_t)(rnd_u64(&seed) % 40);
        int64_t k = (1 + (int64_t)(rnd_u64(&seed) % 5)) * (block == 1 ? 13 : block);
        int64_t cut = (n / 2 + s->group - 1) / s->group * s->group;
        size_t bytes = (size_t)n * ts_row_bytes(info, k);
        uint8_t *src = poisoned(bytes), *back = poisoned(bytes);
        random_bytes(src, bytes);
        memset(back, 0x5a, bytes);
        void *packed = poisoned(s->packed_bytes(n, k));
        cut = cut < n ? cut : n;
        s->pack(packed, src, n, k, 0, cut);
        s->pack(packed, src, n, k, cut, n);
        s->unpack(back, packed, n, k, 0, cut);
        CHECK_MSG(cut == n || back[(size_t)cut * ts_row_bytes(info, k)] == 0x5a,
                  "%s: unpack went past its rows", set_name(s));
        s->unpack(back, packed, n, k, cut, n);
        CHECK_MSG(memcmp(src, back, bytes) == 0, "%s n=%d k=%d: not the same again", set_name(s),
                  (int)n, (int)k);
        /* rows may be filled up to a group, elements of float types to 32 */
        int64_t rows = (n + s->group - 1) / s->group * s->group;
        int64_t filled = block == 1 ? (k + 31) / 32 * 32 : k;
        CHECK_MSG(s->packed_bytes(n, k) <= (size_t)rows * ts_row_bytes(info, filled),
                  "%s: packed is larger than the source", set_name(s));
        /* the same bytes as with zeros for what fills up */
        if (block > 1 || s->packed_bytes(n, k) != s->packed_bytes(n, filled))
            filled = k;
        uint8_t *src2 = calloc((size_t)rows, ts_row_bytes(info, filled));
        void *packed2 = poisoned(s->packed_bytes(rows, filled));
        for (int64_t r = 0; r < n; r++)
            memcpy(src2 + (size_t)r * ts_row_bytes(info, filled),
                   src + (size_t)r * ts_row_bytes(info, k), ts_row_bytes(info, k));
        s->pack(packed2, src2, rows, filled, 0, rows);
        CHECK_MSG(s->packed_bytes(n, k) == s->packed_bytes(rows, filled) &&
                      memcmp(packed, packed2, s->packed_bytes(n, k)) == 0,
                  "%s n=%d k=%d: not filled with zeros", set_name(s), (int)n, (int)k);
        free(src);
        free(back);
        free(packed);
        free(src2);
        free(packed2);
    }
}

/* Multiplies one packed matrix of its own memory, all rows by one thread. */
static void mul_whole(const ts_kset *s, const void *w, const void *act, float *y, int64_t m,
                      int64_t n, int64_t k)
{
    ts_mul p = {.w = w,
                .x = act,
                .limbs = s->prep->limbs,
                .y = y,
                .m = m,
                .n = n,
                .k = k,
                .ldy = n,
                .n1 = n,
                .scratch = poisoned(TS_MUL_SCRATCH)};
    s->mul(&p);
    free(p.scratch);
}

/* Three matrices n x k in a stack: each has the bytes and the product that it has alone. */
static void stacks(const ts_kset *s, int64_t n, int64_t k)
{
    enum { E = 3, M = 9 };
    const ts_type_info *info = ts_type_get(s->type);
    const size_t bytes = (size_t)n * ts_row_bytes(info, k);
    const size_t stride = ts_kset_stack_stride(s, n, k);
    const size_t alone = s->packed_bytes ? s->packed_bytes(n, k) : bytes;
    uint8_t *src = poisoned(E * bytes), *back = poisoned(E * bytes);
    uint8_t *packed = poisoned(ts_kset_stack_bytes(s, E, n, k)), *one = poisoned(alone);
    float *x = poisoned((size_t)(M * k) * sizeof *x);
    void *act = poisoned(s->prep->bytes(M, k));
    float *y = poisoned((size_t)(M * n) * sizeof *y), *y1 = poisoned((size_t)(M * n) * sizeof *y);
    random_weights(s->type, src, E * bytes, 0.25f, -1);
    random_x(x, M, k, k);
    s->prep->run(act, x, k, M, k, 0, M, 0, k);

    CHECK_MSG(ts_kset_stack_bytes(s, E, n, k) == E * stride && stride >= alone &&
                  stride < alone + 64 && (!s->pack || stride % 64 == 0),
              "%s: a matrix of a stack takes %zu bytes, alone %zu", set_name(s), stride, alone);
    memset(back, 0x5a, E * bytes);
    for (int i = E - 1; i >= 0 && s->pack; i--) { /* in any order, rows in parts */
        int64_t first = s->group < n ? s->group : n;
        if (first < n)
            ts_kset_stack_pack(s, packed, src, n, k, i, first, n);
        ts_kset_stack_pack(s, packed, src, n, k, i, 0, first);
    }
    for (int i = 0; i < E; i++) {
        const uint8_t *w = ts_kset_stack_at(s, s->pack ? packed : src, n, k, i);
        if (s->pack) {
            s->pack(one, src + (size_t)i * bytes, n, k, 0, n);
            ts_kset_stack_unpack(s, back, packed, n, k, i, 0, n);
            CHECK_MSG(i == E - 1 || back[(size_t)(i + 1) * bytes] == 0x5a,
                      "%s: unpack of matrix %d went past it", set_name(s), i);
        } else {
            memcpy(one, src + (size_t)i * bytes, bytes);
        }
        CHECK_MSG(memcmp(w, one, alone) == 0, "%s: matrix %d of a stack", set_name(s), i);
        for (size_t j = alone; j < stride; j++)
            CHECK_MSG(w[j] == 0, "%s: byte %zu after matrix %d", set_name(s), j - alone, i);
        memset(y, 0xff, (size_t)(M * n) * sizeof *y);
        mul_whole(s, w, act, y, M, n, k);
        mul_whole(s, one, act, y1, M, n, k);
        CHECK_MSG(memcmp(y, y1, (size_t)(M * n) * sizeof *y) == 0, "%s: product of matrix %d",
                  set_name(s), i);
    }
    CHECK_MSG(!s->pack || memcmp(src, back, E * bytes) == 0, "%s: stack unpacked", set_name(s));
    free(src);
    free(back);
    free(packed);
    free(one);
    free(x);
    free(act);
    free(y);
    free(y1);
}

/* Sizes and addresses that need 64 bits, of stacks that no memory holds: nothing is read. */
static void huge_stacks(const ts_kset *s)
{
    static const int64_t sizes[][3] = {/* e, n, k */
                                       {128, 1 << 16, 1 << 14},
                                       {3, (1 << 20) + 1, 1 << 15},
                                       {1 << 16, 5, 1 << 13},
                                       {7, ((int64_t)1 << 32) + 9, 256}};
    const ts_type_info *info = ts_type_get(s->type);
    for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++) {
        const int64_t e = sizes[l][0], n = sizes[l][1], k = sizes[l][2];
        const int64_t rows = s->pack ? (n + s->group - 1) / s->group * s->group : n;
        const uint64_t one = (uint64_t)rows * (uint64_t)(k / info->block) * (uint64_t)info->bytes;
        const size_t stride = ts_kset_stack_stride(s, n, k);
        CHECK_MSG(stride == (s->pack ? (one + 63) / 64 * 64 : one), "%s n=%lld k=%lld: stride %zu",
                  set_name(s), (long long)n, (long long)k, stride);
        CHECK_MSG(ts_kset_stack_bytes(s, e, n, k) == (uint64_t)e * stride,
                  "%s e=%lld n=%lld k=%lld", set_name(s), (long long)e, (long long)n, (long long)k);
        /* an address is only a number here: one far from both ends */
        const uintptr_t base = (uintptr_t)1 << 20;
        CHECK_MSG((uintptr_t)ts_kset_stack_at(s, (const void *)base, n, k, e - 1) - base ==
                      (uint64_t)(e - 1) * stride,
                  "%s e=%lld n=%lld k=%lld: the last matrix", set_name(s), (long long)e,
                  (long long)n, (long long)k);
    }
}

/* Address space without memory: pages that nobody writes cost nothing. NULL: not to be had. */
static void *reserved(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The last rows of a matrix, or of a matrix in a stack, that lie beyond 4 GiB: packed, unpacked and
 * multiplied as they are alone. */
static void beyond_4gib(const ts_kset *s, bool stack)
{
    enum { M = 40, K = 256 }; /* 9 and 40 tokens: kernels for few and for many */
    const ts_type_info *info = ts_type_get(s->type);
    const size_t row = ts_row_bytes(info, K), far = ((size_t)1 << 32) + ((size_t)1 << 24);
    const int64_t few = s->group + 3; /* rows that are looked at */
    const int64_t first = stack ? 0 : (int64_t)(far / row) / s->group * s->group;
    const int64_t n = first + few, e = stack ? (int64_t)(far / ((size_t)n * row)) + 1 : 1;
    const size_t bytes = (size_t)e * (size_t)n * row, at = bytes - (size_t)few * row;
    const size_t packed_bytes = ts_kset_stack_bytes(s, e, n, K), y_bytes = (size_t)(M * n) * 4;
    uint8_t *src = reserved(bytes), *back = reserved(bytes), *packed = reserved(packed_bytes);
    float *y = reserved(y_bytes), want[M * 40], x[M * K];
    void *act = poisoned(s->prep->bytes(M, K)), *scratch = poisoned(TS_MUL_SCRATCH);
    if (src && back && packed && y) {
        random_weights(s->type, src + at, (size_t)few * row, 0.25f, -1);
        random_x(x, M, K, K);
        if (s->pack) {
            ts_kset_stack_pack(s, packed, src, n, K, e - 1, first, n);
            ts_kset_stack_unpack(s, back, packed, n, K, e - 1, first, n);
            CHECK_MSG(memcmp(src + at, back + at, (size_t)few * row) == 0,
                      "%s: packed beyond 4 GiB", set_name(s));
        }
        for (int i = 0; i < 4; i++) {
            const ts_prep *prep = i % 2 ? s->prep_int8 : s->prep;
            const int m = i / 2 ? M : 9;
            product(s, i % 2, src + at, x, K, want, few, m, few, K, 1);
            prep->run(act, x, K, m, K, 0, m, 0, K);
            ts_mul p = {.w = ts_kset_stack_at(s, s->pack ? packed : src, n, K, e - 1),
                        .x = act,
                        .limbs = prep->limbs,
                        .y = y,
                        .m = m,
                        .n = n,
                        .k = K,
                        .ldy = n,
                        .n0 = first,
                        .n1 = n,
                        .scratch = scratch};
            s->mul(&p);
            for (int t = 0; t < m; t++)
                CHECK_MSG(memcmp(want + t * few, y + t * n + first, (size_t)few * 4) == 0,
                          "%s: product beyond 4 GiB, %s, token %d of %d", set_name(s),
                          i % 2 ? "int8" : "exact", t, m);
        }
    } else {
        printf("%s: no address space, not tested beyond 4 GiB\n", set_name(s));
    }
    void *const maps[] = {src, back, packed, y};
    const size_t sizes[] = {bytes, bytes, packed_bytes, y_bytes};
    for (int i = 0; i < 4; i++)
        if (maps[i])
            munmap(maps[i], sizes[i]);
    free(act);
    free(scratch);
}

static void one_set(const ts_kset *s)
{
    prepared(s, s->prep);
    prepared(s, s->prep_int8);
    const int block = ts_type_get(s->type)->block;
    for (int64_t m = 1; m <= 64; m++) /* a buffer made for the one holds the other */
        for (int64_t k = block; k <= 1024; k += block)
            CHECK_MSG(s->prep->bytes(m, k) >= s->prep_int8->bytes(m, k), "%s m=%d k=%d",
                      set_name(s), (int)m, (int)k);
    if (s->pack)
        round_trip(s);
    /* n is not a multiple of the group: taken as one matrix of 3 n rows, they would share groups.
     * One block of one group leaves bytes up to the next matrix. */
    stacks(s, s->group + 3, block == 1 ? 45 : 2 * block);
    stacks(s, s->group > 3 ? s->group - 3 : 2, block == 1 ? 13 : block);
    huge_stacks(s);
    beyond_4gib(s, false);
    beyond_4gib(s, true);
}

int main(int argc, char **argv)
{
    return run_sets("kset_pack", one_set, argc, argv);
}

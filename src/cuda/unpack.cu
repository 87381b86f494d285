/* unpack.cu - packed weights back to the rows of a file.
 *
 * Packed, a run of blocks of a group of rows is contiguous; unpacked, it is a segment of each of
 * these rows. A thread block does one such run, by way of shared memory:
 *
 *     packed --16 bytes a copy--> raw --field by field, 1..16 bytes a thread--> rows --> dst
 *
 * Each segment lies in shared memory as far from a multiple of 16 as it will in dst, so that the
 * last step is whole vectors; only what segments have before the first and behind the last of them
 * is written in pieces. Blocks of 18 or 34 bytes leave their fields at even addresses, those of 17
 * bytes at any: GRAIN is the largest word (1, 2 or 4 bytes) that can be stored everywhere. */
#include "cuda/standin.h"
#include "cuda/unpack.h"

enum {
    THREADS = 128,
    RAW =
        16 << 10, /* bytes of a run, at most; so small that some 8 blocks share a multiprocessor */
    VECTOR = 16,
    MATRICES = TS_CUDA_UNPACK_MATRICES,
};

typedef struct unpack_field {
    int from;   /* offset in the packed block */
    int at;     /* in the source block        */
    int kind;   /* ts_pack_kind               */
    int count;  /* units                      */
    int count2; /* log2 of it, rounded up     */
} unpack_field;

typedef struct unpack_job {
    int64_t row_bytes, blocks; /* of a source row                           */
    int64_t rows;              /* to write                                  */
    unsigned runs;             /* that the blocks of a group are cut into   */
    int run;                   /* blocks of one, but of the last            */
    int raw_bytes, stride;     /* in shared memory: of a run, from row to row */
    int rows2;                 /* log2 of the rows of a group               */
    int bytes;                 /* of a source block                         */
    int64_t groups;            /* 0, or of rows of a matrix: matrix i goes to place to[i] */
    int to[MATRICES];
    unpack_field field[TS_PACK_FIELDS];
} unpack_job;

/* What a thread block works on. */
typedef struct unpack_run {
    const uint8_t *raw;
    uint8_t *rows;
    unsigned phase, row_bytes; /* row r's segment is (phase + r * row_bytes) % 16 into its place */
    int stride, blocks, bytes;
    int rows2;
} unpack_run;

TS_DEVICE unsigned phase(const unpack_run &c, unsigned r)
{
    return (c.phase + r * c.row_bytes) % VECTOR;
}

/* Where block b of row r lies. */
TS_DEVICE uint8_t *block_of(const unpack_run &c, int r, int b)
{
    return c.rows + r * c.stride + phase(c, (unsigned)r) + b * c.bytes;
}

TS_DEVICE const uint8_t *packed_block(const unpack_run &c, int b)
{
    return c.raw + ((b * c.bytes) << c.rows2);
}

/* The row that stands at place i where rows are kept by pairs. */
TS_DEVICE int paired_row(int i)
{
    int pair = i / 2;
    return pair / 2 + 8 * (pair % 2) + 4 * (i % 2);
}

template <int GRAIN> TS_DEVICE void put(uint8_t *to, uint32_t w)
{
    if constexpr (GRAIN == 4) {
        *(uint32_t *)to = w;
    } else if constexpr (GRAIN == 2) {
        ((uint16_t *)to)[0] = (uint16_t)w;
        ((uint16_t *)to)[1] = (uint16_t)(w >> 16);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[i] = (uint8_t)(w >> (8 * i));
    }
}

template <int GRAIN> TS_DEVICE void put4(uint8_t *to, uint4 v)
{
    put<GRAIN>(to, v.x);
    put<GRAIN>(to + 4, v.y);
    put<GRAIN>(to + 8, v.z);
    put<GRAIN>(to + 12, v.w);
}

/* Exchanges two bits of the place number of every bit, as the CPU's packing of planes does. */
TS_DEVICE uint32_t swap_places(uint32_t v, int shift, uint32_t mask)
{
    uint32_t t = (v ^ v >> shift) & mask;
    return v ^ t ^ t << shift;
}

TS_DEVICE uint32_t bits_from_planes(uint32_t v)
{
    v = swap_places(v, 1, 0x22222222);
    v = swap_places(v, 2, 0x0c0c0c0c);
    v = swap_places(v, 7, 0x00aa00aa);
    return swap_places(v, 14, 0x0000cccc);
}

/* --- fields ----------------------------------------------------------------------------------- */

/* Calls piece(i, u, b), i the number of a piece of a unit, counted over all rows: 1 << pieces2 of
 * unit u of block b. Pieces come first, then units, then blocks: lanes read side by side. */
template <class F>
TS_DEVICE void each_piece(const unpack_run &c, const unpack_field &f, int pieces2, F piece)
{
    const int units2 = pieces2 + f.count2, all = c.blocks << units2;
    for (int i = (int)threadIdx.x; i < all; i += THREADS) {
        int u = (i >> pieces2) & ((1 << f.count2) - 1);
        if (u < f.count)
            piece(i & ((1 << pieces2) - 1), u, i >> units2);
    }
}

/* Units of 1, 2 or 4 bytes. */
template <int GRAIN> TS_DEVICE void units(const unpack_run &c, const unpack_field &f)
{
    const int size = f.kind == TS_PACK_BYTE ? 1 : f.kind == TS_PACK_HALF ? 2 : 4;
    each_piece(c, f, c.rows2, [&](int place, int u, int b) {
        int r = f.kind == TS_PACK_BITS ? paired_row(place) : place;
        const uint8_t *from = packed_block(c, b) + f.from + ((u << c.rows2) + place) * size;
        uint8_t *to = block_of(c, r, b) + f.at + u * size;
        if (size == 1) {
            *to = *from;
        } else if (size == 2) {
            uint32_t v = *(const uint16_t *)from;
            if constexpr (GRAIN == 1) {
                to[0] = (uint8_t)v;
                to[1] = (uint8_t)(v >> 8);
            } else {
                *(uint16_t *)to = (uint16_t)v;
            }
        } else {
            uint32_t v = *(const uint32_t *)from;
            put<GRAIN>(to, f.kind == TS_PACK_PLANES ? bits_from_planes(v) : v);
        }
    });
}

/* Half of a row's 32 bytes. */
template <int GRAIN> TS_DEVICE void pairs(const unpack_run &c, const unpack_field &f)
{
    each_piece(c, f, 5, [&](int i, int u, int b) {
        int r = paired_row(i / 2), half = i % 2;
        const uint8_t *from = packed_block(c, b) + f.from + 512 * u + 16 * i;
        put4<GRAIN>(block_of(c, r, b) + f.at + 32 * u + 16 * half, *(const uint4 *)from);
    });
}

/* The 16 bytes of rows r and r + 8, from 32 of them both. */
template <int GRAIN> TS_DEVICE void nibbles(const unpack_run &c, const unpack_field &f)
{
    each_piece(c, f, 3, [&](int i, int u, int b) {
        int r = i / 2 + 4 * (i % 2), at = f.at + 16 * u;
        const uint4 *from = (const uint4 *)(packed_block(c, b) + f.from + 256 * u + 32 * i);
        uint4 x = from[0], y = from[1];
        const uint32_t low = 0x0f0f0f0f, high = 0xf0f0f0f0;
        put4<GRAIN>(block_of(c, r, b) + at,
                    make_uint4((x.x & low) | (y.x & low) << 4, (x.y & low) | (y.y & low) << 4,
                               (x.z & low) | (y.z & low) << 4, (x.w & low) | (y.w & low) << 4));
        put4<GRAIN>(block_of(c, r + 8, b) + at,
                    make_uint4((x.x >> 4 & low) | (y.x & high), (x.y >> 4 & low) | (y.y & high),
                               (x.z >> 4 & low) | (y.z & high), (x.w >> 4 & low) | (y.w & high)));
    });
}

/* Four floats of a row, 4 j .. 4 j + 3: the first and third are a dword, the others too. */
template <int GRAIN> TS_DEVICE void floats(const unpack_run &c, const unpack_field &f)
{
    each_piece(c, f, 7, [&](int i, int u, int b) {
        int r = i % 16, j = i / 16;
        const uint32_t *from = (const uint32_t *)(packed_block(c, b) + f.from + 1024 * u);
        uint32_t even = from[16 * j + r], odd = from[16 * (j + 8) + r];
        uint8_t *to = block_of(c, r, b) + f.at + 64 * u + 8 * j;
        put<GRAIN>(to, __byte_perm(even, odd, 0x5410));
        put<GRAIN>(to + 4, __byte_perm(even, odd, 0x7632));
    });
}

/* --- the kernel ------------------------------------------------------------------------------- */

/* Segments of `bytes` bytes of the first rows of a group, from shared memory to dst, where row 0's
 * begins. */
template <int GRAIN>
TS_DEVICE void store(uint8_t *dst, const unpack_run &c, int64_t row_bytes, int rows, int bytes)
{
    const unsigned vectors = (unsigned)(bytes + 2 * VECTOR - 2) / VECTOR;
    for (unsigned i = threadIdx.x; i < (unsigned)rows * vectors; i += THREADS) {
        unsigned r = i / vectors, begin = phase(c, r), end = begin + (unsigned)bytes;
        unsigned p = i % vectors * VECTOR;
        if (p >= begin && p + VECTOR <= end)
            *(uint4 *)(dst + r * row_bytes - begin + p) =
                *(const uint4 *)(c.rows + r * (unsigned)c.stride + p);
    }
    if ((c.phase | c.row_bytes | (unsigned)bytes) % VECTOR == 0)
        return;
    /* A thread for each word of the vectors that a segment begins and ends in. */
    const unsigned words = VECTOR / GRAIN;
    for (unsigned i = threadIdx.x; i < (unsigned)rows * 2 * words; i += THREADS) {
        unsigned r = i / (2 * words), begin = phase(c, r), end = begin + (unsigned)bytes;
        unsigned head = begin == 0 ? 0 : end < VECTOR ? end : (unsigned)VECTOR;
        unsigned tail = end / VECTOR * VECTOR, p = i % words * GRAIN;
        bool last = i / words % 2;
        if (last)
            p += tail;
        if (last ? p >= head && p < end : p >= begin && p < head) {
            const uint8_t *from = c.rows + r * (unsigned)c.stride + p;
            uint8_t *to = dst + r * row_bytes - begin + p;
            if constexpr (GRAIN == 4)
                *(uint32_t *)to = *(const uint32_t *)from;
            else if constexpr (GRAIN == 2)
                *(uint16_t *)to = *(const uint16_t *)from;
            else
                *to = *from;
        }
    }
}

/* Run `run` of the blocks of a group of packed rows, which becomes group `to` of dst. */
template <int GRAIN>
TS_DEVICE void unpack_group(uint8_t *dst, const uint8_t *packed, const unpack_job &j, int64_t group,
                            int64_t to, unsigned run)
{
    TS_SHARED(uint8_t, shared);
    const int64_t b0 = (int64_t)run * j.run;
    const int blocks = j.blocks - b0 < j.run ? (int)(j.blocks - b0) : j.run;
    const uint8_t *from = packed + ((group * j.blocks + b0) * j.bytes << j.rows2);
    /* Of all packed blocks only MXFP4's, in groups of 8 rows, aren't multiples of 16 bytes. */
    const int off = (int)((uintptr_t)from % VECTOR), all = off + (blocks * j.bytes << j.rows2);
    for (int i = (int)threadIdx.x * VECTOR; i < all; i += THREADS * VECTOR)
        ts_copy16(shared + i, from - off + i);
    ts_copy_commit();

    const int64_t begin = b0 * j.bytes;
    const int64_t row0 = to << j.rows2;
    unpack_run c;
    c.raw = shared + off;
    c.rows = shared + j.raw_bytes;
    c.phase = (unsigned)(row0 * j.row_bytes + begin) % VECTOR;
    c.row_bytes = (unsigned)j.row_bytes;
    c.stride = j.stride;
    c.blocks = blocks;
    c.bytes = j.bytes;
    c.rows2 = j.rows2;
    ts_copy_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < TS_PACK_FIELDS && j.field[i].count; i++) {
        const unpack_field &f = j.field[i];
        if (f.kind == TS_PACK_PAIRS)
            pairs<GRAIN>(c, f);
        else if (f.kind == TS_PACK_NIBBLES)
            nibbles<GRAIN>(c, f);
        else if (f.kind == TS_PACK_FLOATS)
            floats<GRAIN>(c, f);
        else
            units<GRAIN>(c, f);
    }
    __syncthreads();
    /* A row of floats may end within its last block. */
    const int64_t left = j.row_bytes - begin;
    const int bytes = left < blocks * j.bytes ? (int)left : blocks * j.bytes;
    const int rows = j.rows - row0 < 1 << j.rows2 ? (int)(j.rows - row0) : 1 << j.rows2;
    store<GRAIN>(dst + row0 * j.row_bytes + begin, c, j.row_bytes, rows, bytes);
}

template <int GRAIN>
static __global__ void __launch_bounds__(THREADS)
    unpack(uint8_t *dst, const uint8_t *packed, unpack_job j)
{
    ts_in_turn();
    const int64_t group = blockIdx.x / j.runs;
    const int64_t to = j.groups ? j.to[group / j.groups] * j.groups + group % j.groups : group;
    unpack_group<GRAIN>(dst, packed, j, group, to, blockIdx.x % j.runs);
}

/* Some stacks, of which the same matrices are wanted. */
typedef struct fetch_args {
    struct {
        uint8_t *dst;
        const uint8_t *packed;
        unsigned blocks; /* of a matrix */
        unpack_job job;
    } part[TS_CUDA_FETCHED];
    const int32_t *id; /* of the matrices */
    unsigned count;
    int32_t matrices; /* of a stack */
} fetch_args;

template <int GRAIN>
static __global__ void __launch_bounds__(THREADS) fetch(const __grid_constant__ fetch_args a)
{
    ts_in_turn();
    unsigned i = blockIdx.x, p = 0;
    while (i >= a.part[p].blocks * a.count)
        i -= a.part[p++].blocks * a.count;
    const unpack_job &j = a.part[p].job;
    const int32_t id = a.id[i / a.part[p].blocks];
    i %= a.part[p].blocks;
    if (id < 0 || id >= a.matrices)
        return;
    const int64_t group = id * j.groups + i / j.runs;
    unpack_group<GRAIN>(a.part[p].dst, a.part[p].packed, j, group, group, i % j.runs);
}

/* --- launches --------------------------------------------------------------------------------- */

/* The fields of a packed block; false if they aren't all of the source block, or can't be. */
static bool set_fields(unpack_job *j, const ts_packing *p)
{
    int bytes = 0;
    for (int i = 0; i < TS_PACK_FIELDS && p->field[i].count; i++) {
        const ts_pack_field *f = &p->field[i];
        int of_row = ts_pack_unit(f->kind) * f->count, log2 = 0;
        if (f->kind > TS_PACK_FLOATS || (f->kind >= TS_PACK_BITS && p->rows != 16))
            return false;
        while (1 << log2 < f->count)
            log2++;
        unpack_field to = {bytes << j->rows2, f->at, f->kind, f->count, log2};
        j->field[i] = to;
        bytes += of_row;
    }
    return bytes == p->bytes;
}

/* Blocks of a run: so many that its segments are whole vectors if they can, runs of about one
 * size. */
static void set_runs(unpack_job *j, const ts_packing *p)
{
    int64_t most = RAW / (p->rows * p->bytes), step = VECTOR;
    while (step > 1 && (step / 2 * p->bytes % VECTOR == 0 || step > most))
        step /= 2;
    most = most / step * step;
    int64_t runs = (j->blocks + most - 1) / most;
    j->run = (int)(((j->blocks + runs - 1) / runs + step - 1) / step * step);
    j->runs = (unsigned)((j->blocks + j->run - 1) / j->run);
    j->raw_bytes = (j->run * p->rows * p->bytes + 2 * VECTOR - 1) / VECTOR * VECTOR;
    /* Rows lie one vector further in the banks each. */
    j->stride = (j->run * p->bytes + VECTOR - 1 + 127) / 128 * 128 + VECTOR;
}

static int grain_of(const ts_packing *p, int64_t row_bytes)
{
    int64_t all = row_bytes | p->bytes;
    for (int i = 0; i < TS_PACK_FIELDS && p->field[i].count; i++)
        if (ts_pack_unit(p->field[i].kind) >= 4)
            all |= p->field[i].at;
        else if (ts_pack_unit(p->field[i].kind) == 2)
            all |= p->field[i].at % 2;
    return all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
}

/* False: no kernel can. */
static bool set_job(unpack_job *j, const ts_packing *p, int64_t k)
{
    const bool filled = p->field[0].kind == TS_PACK_FLOATS; /* up to a block */
    if ((p->rows != 8 && p->rows != 16) || p->bytes <= 0 || p->block <= 0 || k <= 0 ||
        (k % p->block && !filled))
        return false;
    j->rows2 = p->rows == 16 ? 4 : 3;
    j->bytes = p->bytes;
    j->row_bytes = k * p->bytes / p->block;
    j->blocks = (k + p->block - 1) / p->block;
    if (!set_fields(j, p) || p->rows * p->bytes > RAW)
        return false;
    set_runs(j, p);
    return true;
}

static int run_job(const unpack_job &j, const ts_packing *p, void *dst, const uint8_t *from,
                   int64_t groups, void *stream)
{
    if (groups > INT32_MAX / j.runs)
        return cudaErrorInvalidValue;
    const dim3 grid((unsigned)(groups * j.runs));
    const size_t shared = (size_t)(j.raw_bytes + j.stride * p->rows);
    switch (grain_of(p, j.row_bytes)) {
    case 4:
        TS_LAUNCH(unpack<4>, grid, dim3(THREADS), shared, stream, (uint8_t *)dst, from, j);
        break;
    case 2:
        TS_LAUNCH(unpack<2>, grid, dim3(THREADS), shared, stream, (uint8_t *)dst, from, j);
        break;
    default:
        TS_LAUNCH(unpack<1>, grid, dim3(THREADS), shared, stream, (uint8_t *)dst, from, j);
    }
    return ts_launch_error();
}

extern "C" int ts_cuda_unpack(void *dst, const void *packed, const ts_packing *p, int64_t n,
                              int64_t k, int64_t n0, int64_t n1, void *stream)
{
    unpack_job j = {};
    if (!set_job(&j, p, k) || n0 < 0 || n0 % p->rows || n1 > n)
        return cudaErrorInvalidValue;
    if (n0 >= n1)
        return 0;
    j.rows = n1 - n0;
    return run_job(j, p, dst, (const uint8_t *)packed + n0 * j.blocks * p->bytes,
                   (j.rows + p->rows - 1) / p->rows, stream);
}

extern "C" int ts_cuda_unpack_matrices(void *dst, const void *packed, const ts_packing *p,
                                       int64_t n, int64_t k, const int32_t *at, int64_t count,
                                       void *stream)
{
    unpack_job j = {};
    if (!set_job(&j, p, k) || n < 1 || n % p->rows || count > MATRICES)
        return cudaErrorInvalidValue;
    j.rows = INT64_MAX; /* every group is whole */
    j.groups = n / p->rows;
    for (int64_t i = 0; i < count; i++) {
        if (at[i] < 0)
            return cudaErrorInvalidValue;
        j.to[i] = at[i];
    }
    return count < 1 ? 0 : run_job(j, p, dst, (const uint8_t *)packed, count * j.groups, stream);
}

extern "C" int ts_cuda_fetch(const ts_cuda_fetched *f, int n, const int32_t *id, int64_t count,
                             int64_t matrices, void *stream)
{
    fetch_args a = {};
    size_t shared = 0;
    int64_t blocks = 0;
    int grain = 4;
    if (n < 1 || n > TS_CUDA_FETCHED || count < 1 || count > MATRICES)
        return cudaErrorInvalidValue;
    for (int i = 0; i < n; i++) {
        const ts_packing *p = f[i].packing;
        unpack_job *j = &a.part[i].job;
        if (!set_job(j, p, f[i].k) || f[i].n < 1 || f[i].n % p->rows)
            return cudaErrorInvalidValue;
        j->rows = INT64_MAX;
        j->groups = f[i].n / p->rows;
        if (j->groups > INT32_MAX / j->runs / count)
            return cudaErrorInvalidValue;
        a.part[i].dst = (uint8_t *)f[i].dst;
        a.part[i].packed = (const uint8_t *)f[i].packed;
        a.part[i].blocks = (unsigned)(j->groups * j->runs);
        blocks += j->groups * j->runs * count;
        const size_t bytes = (size_t)(j->raw_bytes + j->stride * p->rows);
        shared = bytes > shared ? bytes : shared;
        const int g = grain_of(p, j->row_bytes);
        grain = g < grain ? g : grain;
    }
    a.id = id;
    a.count = (unsigned)count;
    a.matrices = (int32_t)matrices;
    if (blocks > INT32_MAX)
        return cudaErrorInvalidValue;
    const dim3 grid((unsigned)blocks);
    if (grain == 4)
        TS_LAUNCH(fetch<4>, grid, dim3(THREADS), shared, stream, a);
    else if (grain == 2)
        TS_LAUNCH(fetch<2>, grid, dim3(THREADS), shared, stream, a);
    else
        TS_LAUNCH(fetch<1>, grid, dim3(THREADS), shared, stream, a);
    return ts_launch_error();
}

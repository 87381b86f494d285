/* probe_amx.c - tile products from tiles in registers: the peak that no kernel can pass. */
#include "base/probe_impl.h"

#include <immintrin.h>
#include <string.h>

/* The operand of LDTILECFG: palette 1, and all eight tiles 16 rows of 64 bytes. Constant, so that
 * no store can be taken for a dead one: gcc's intrinsic names only 8 of these bytes as read. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* Four sums in tiles 0 to 3, the products of tiles 4, 5 and 6, 7: a product has a latency of about
 * 52 cycles and one starts every 16. Tiles are configured for one measurement and then given up:
 * a thread whose tiles are in use makes every context switch save 8 KB. */
static void begin(const void *a, const void *b)
{
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, a, 64);
    _tile_loadd(5, a, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b, 64);
}

static void end(void *sums)
{
    _tile_stored(0, sums, 64);
    _tile_release();
}

enum { PRODUCTS = 4, ROWS = 16, COLUMNS = 16 };

static int32_t tile_int8(int64_t n)
{
    _Alignas(64) int8_t a[1024], b[1024];
    _Alignas(64) int32_t sums[ROWS * COLUMNS];

    memset(a, 3, sizeof a);
    memset(b, 1, sizeof b);
    __asm__ volatile("" ::: "memory"); /* TILELOADD reads them, which gcc isn't told */
    begin(a, b);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    end(sums);
    return sums[0];
}

static float tile_bf16(int64_t n)
{
    _Alignas(64) uint16_t a[512], b[512];
    _Alignas(64) float sums[ROWS * COLUMNS];

    for (int i = 0; i < 512; i++) {
        a[i] = 0x3f00; /* 0.5  */
        b[i] = 0x3e80; /* 0.25 */
    }
    __asm__ volatile("" ::: "memory");
    begin(a, b);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    end(sums);
    return sums[0];
}

const ts_probe_tiles ts_probe_amx = {
    .int8 = tile_int8,
    .bf16 = tile_bf16,
    .int8_ops = 2.0 * ROWS * COLUMNS * 64 * PRODUCTS,
    .bf16_ops = 2.0 * ROWS * COLUMNS * 32 * PRODUCTS,
};

/* tiles_amx.c - the tile configuration. */
#include "cpu/tiles.h"

#include <stdint.h>

#include "cpu/intrin.h"

/* The operand of LDTILECFG: 64 bytes (Intel SDM volume 1, 18.2). */
typedef struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

void ts_tiles_begin(void)
{
    static const tile_config all = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    _Static_assert(sizeof all == 64, "LDTILECFG reads 64 bytes");
    _tile_loadconfig(&all);
}

void ts_tiles_end(void)
{
    _tile_release();
}

#!/usr/bin/env python3
"""mutate.py - do the tests of the kernels notice the bugs that kernels have?

    mutate.py [BUILD] [--list] [--only WORD]       BUILD: a built tree, build/ci unless told

Each edit below puts one bug into a copy of the sources. What it touches is compiled again, with the stand-in
for wide instructions, and linked before the libraries of BUILD; then test_kset_pack and test_kset run over the
sets that the edit concerns, one at a time. They must turn red for each. An edit whose text isn't there exactly
once is an error: it has to follow the code. Exits with 0 when all are red, 1 when one stays green, 2 for an
error, 77 when BUILD can't be used (sanitizers make it slow and find other things).
"""
import argparse
import concurrent.futures
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CODE, AVX512, AMX = "kset/r16_code.h", "kset/r16_avx512.c", "kset/r16_amx.c"
R16, ORDER, TRANSPOSE = "kset/r16.c", "kset/r16.h", "kset/r16_transpose.h"
INT8, STRIPS = "kset/r16_int8_amx.c", "kset/r16_tiles.h"
PREP, PREP512, PREPAMX, TILES, KSET = "prep.h", "prep_avx512.c", "prep_amx.c", "prep_x16.h", "kset.c"
SEED = "1"
LIMIT = 60  # seconds a test may take: a bug may be a loop without end

# What is compiled again for a changed file; True: with the stand-in.
BUILT = {
    CODE: [(AVX512, True), (AMX, True), (INT8, True)],
    ORDER: [(AVX512, True), (AMX, True), (INT8, True), (PREPAMX, True)],
    TRANSPOSE: [(AVX512, True), (AMX, True), (INT8, True), (PREPAMX, True)],
    AVX512: [(AVX512, True)],
    AMX: [(AMX, True)],
    INT8: [(INT8, True)],
    STRIPS: [(AMX, True), (INT8, True)],
    PREP: [(PREP512, True), (PREPAMX, True)],
    PREP512: [(PREP512, True)],
    PREPAMX: [(PREPAMX, True)],
    TILES: [(AMX, True), (INT8, True), (PREPAMX, True)],
    R16: [(R16, False)],
    KSET: [(KSET, False)],
}

# (what it imitates, sets, file, old, new): sets are TYPE/ISA of the stand-in
EDITS = [
    # --- weights: what a packed block says
    ("scales of the next row", "Q4_0/avx512 Q4_0/amx", CODE,
     "_mm256_loadu_si256((const __m256i *)p));", "_mm256_loadu_si256((const __m256i *)(p + 2)));"),
    ("Q4_K: minimums dropped", "Q4_K/avx512 Q4_K/amx", CODE,
     "r16_put(dm, i, _mm512_mul_ps(m, r16_unsigned(v.m[i / 4], i % 4)));",
     "r16_put(dm, i, _mm512_setzero_ps());"),
    ("Q4_K: upper scales without their two high bits", "Q4_K/avx512 Q5_K/amx", CODE,
     "_mm512_set1_epi8(15), r16_bits(a, 6, 4, 48));\n    v.m[1]",
     "_mm512_set1_epi8(15), _mm512_setzero_si512());\n    v.m[1]"),
    ("Q5_K: fifth bits of the neighbouring 32", "Q5_K/avx512 Q5_K/amx", CODE,
     "R16_Q5_BITS + 64 * i), s, 4, 16)", "R16_Q5_BITS + 64 * i), s ^ 1, 4, 16)"),
    ("Q6_K: high bits of the neighbouring 32", "Q6_K/avx512 Q6_K/amx", CODE,
     "r16_bits(high, 2 * r, 4, 48)", "r16_bits(high, 2 * (r ^ 1), 4, 48)"),
    ("Q3_K: second 128 reads the first's codes", "Q3_K/avx512 Q3_K/amx", CODE,
     "R16_Q3_CODES + R16_PAIRS * half + 64 * i", "R16_Q3_CODES + 64 * i"),
    ("Q2_K: second 16 with the first's scale", "Q2_K/avx512 Q2_K/amx", CODE,
     "r16_unsigned(r16_bits(v, 0, 0, 15), i % 4)", "r16_unsigned(r16_bits(v, 0, 0, 15), i % 4 & 2)"),
    ("Q5_0: fifth bits of the neighbouring pair", "Q5_0/avx512 Q5_1/amx", CODE,
     "R16_HALVES + 8 * i, 8);", "R16_HALVES + 8 * (i ^ 1), 8);"),
    ("Q6_K: codes of the other two 32s", "Q6_K/avx512 Q6_K/amx", CODE,
     "r16_shift(low, 4 * (r >> 1), 0)", "r16_shift(low, 4 * (~r >> 1 & 1), 0)"),
    ("nibbles of the other pair", "Q4_0/avx512 IQ4_XS/amx", CODE,
     "from = 4 * (i & 1);", "from = 4 * (~i & 1);"),
    ("nibbles of the neighbouring two pairs", "MXFP4/avx512 Q4_1/amx", CODE,
     "at = r16_nibbles_at(type, s) + 64 * (i >> 1);", "at = r16_nibbles_at(type, s) + 64 * (i >> 1 ^ 1);"),
    ("IQ4_XS: every 32 reads the first's codes", "IQ4_XS/avx512 IQ4_XS/amx", CODE,
     "R16_XS_CODES + R16_NIBBLES * s", "R16_XS_CODES"),
    ("Q4_K: the first of two 32s for both", "Q4_K/avx512", CODE,
     "4 * (s & 1), lift, 15 << lift);", "0, lift, 15 << lift);"),
    ("Q4_K: second 64 with the first's codes", "Q4_K/amx Q5_K/amx", CODE,
     "R16_Q5_CODES) + R16_PAIRS * (s >> 1) + 64 * i;", "R16_Q5_CODES) + R16_PAIRS * (s >> 2 << 1) + 64 * i;"),
    ("pairs in the order of rows", "Q8_0/amx F16/amx", ORDER,
     "return i / 2 + 8 * (i % 2);", "return i % 4 + 8 * (i / 4);"),
    ("floats: odd k before even ones", "F16/avx512 BF16/amx", ORDER,
     "return j < 8 ? 4 * j : 4 * (j - 8) + 1;", "return j < 8 ? 4 * j + 1 : 4 * (j - 8);"),
    ("IQ4_XS: high scale bits of the wrong sub-block", "IQ4_XS/avx512 IQ4_XS/amx", CODE,
     "_mm512_slli_epi32(high, 4), _mm_cvtsi32_si128(2 * i)",
     "_mm512_slli_epi32(high, 4), _mm_cvtsi32_si128(i)"),
    ("MXFP4: the subnormal scale of exponent 1", "MXFP4/avx512", CODE,
     "_mm512_cmpgt_epi32_mask(_mm512_set1_epi32(2), e)",
     "_mm512_cmpgt_epi32_mask(_mm512_set1_epi32(1), e)"),
    ("IQ4_NL: one level off by one", "IQ4_NL/avx512 IQ4_NL/amx", CODE, "0x766a5d4f", "0x766a5e4f"),
    # --- VNNI
    ("low limb dropped", "Q4_0/avx512", AVX512,
     "all = _mm512_add_epi32(_mm512_slli_epi32(all, 7), sum[t][1]);",
     "all = _mm512_slli_epi32(all, 7);"),
    ("one token: the second of two sums dropped", "Q4_K/avx512", AVX512,
     "if (tokens == 1)\n                all = _mm512_add_epi32(all, sum[t][1]);",
     "if (tokens == 1)\n                ;"),
    ("one token: the second of two sums not zeroed", "Q8_0/avx512", AVX512,
     "if (j < (tokens == 1 ? 2 : 1))", "if (j < 1 || (tokens == 1 && l && j < 2))"),
    ("one token: the first limb not shifted", "Q8_0/avx512", AVX512,
     "*to = tokens == 1 && l ? _mm512_slli_epi32(*to, 7) : _mm512_setzero_si512();",
     "*to = tokens == 1 && l ? *to : _mm512_setzero_si512();"),
    ("eights: the first limb not shifted", "Q4_0/avx512", AVX512,
     "*to = l ? _mm512_slli_epi32(*to, 7) : _mm512_setzero_si512();",
     "*to = l ? *to : _mm512_setzero_si512();"),
    ("eights: rows 8 to 15 are rows 0 to 7", "Q4_1/avx512", AVX512,
     "h ? high[j] : low[j], q)", "low[j], q)"),
    ("eights: lifted sums not lowered", "Q4_0/avx512", AVX512,
     "if (r16_eights_lift(type))", "if (false)"),
    ("eights: neighbouring lanes not joined", "IQ4_NL/avx512", AVX512,
     "_mm512_permutex2var_epi32(sum[t][0], odd, sum[t][1])",
     "_mm512_permutex2var_epi32(sum[t][0], even, sum[t][1])"),
    ("eights: activations of the first eight", "IQ4_XS/avx512", AVX512,
     "broadcast8(xt->limb[l] + 8 * j)", "broadcast8(xt->limb[l])"),
    ("eights: fifth bits of the other rows", "Q5_0/avx512 Q5_1/avx512", CODE,
     "_mm512_maskz_mov_epi8(bits[2 * j], fifth)", "_mm512_maskz_mov_epi8(bits[2 * j + 1], fifth)"),
    ("eights: fifth bits in the order of pairs", "Q5_0/avx512", CODE,
     "rows = 0x3424140430201000", "rows = 0x3424303404142010"),
    ("eights: two of four vectors exchanged", "MXFP4/avx512", TRANSPOSE,
     "v[2] = _mm512_permutex2var_epi64(a, high, c);\n    v[3] = _mm512_permutex2var_epi64(b, high, d);",
     "v[3] = _mm512_permutex2var_epi64(a, high, c);\n    v[2] = _mm512_permutex2var_epi64(b, high, d);"),
    ("turned: every field is the first", "Q5_K/avx512 Q6_K/avx512", CODE,
     "p[i] = _mm512_loadu_si512(b + f + 64 * i);", "p[i] = _mm512_loadu_si512(b + 64 * i);"),
    ("turned: the last field left out", "Q2_K/avx512 Q4_K/avx512", CODE,
     "for (int f = 0; f < end - at; f += R16_PAIRS) {",
     "for (int f = 0; f < end - at - R16_PAIRS; f += R16_PAIRS) {"),
    ("lifted codes with the scales of others", "Q2_K/avx512 Q3_K/avx512 Q4_K/avx512", CODE,
     "return lift ? _mm512_mul_ps(d, _mm512_set1_ps(1.0f / (float)(1 << lift))) : d;",
     "return lift ? d : d;"),
    ("Q3_K: the offset of lifted codes not lifted", "Q3_K/avx512", CODE,
     "r16_offset(type) << lift", "r16_offset(type)"),
    ("second 16 reads the first's activations", "Q3_K/avx512", AVX512,
     "xt->limb[l] + 4 * (n * i + j)", "xt->limb[l] + 4 * j"),
    ("activation sum of the first half for both", "Q6_K/avx512", AVX512, "xt->s16[i]", "xt->s16[0]"),
    ("panel: codes stored before they are transposed", "Q4_K/avx512", AVX512,
     "_mm512_storeu_si512(dst + 64 * j, v[j]);",
     "_mm512_storeu_si512(dst + 64 * j, r16_code(type, w, s, j, true));"),
    ("activation sum of 32 for 16", "Q2_K/avx512", AVX512, "subs == 1 ? xt->s : xt->s16[i]", "xt->s"),
    ("every k chunk reads the first one's weights", "Q4_K/avx512", AVX512,
     "w += (size_t)((u1 - u) / per * l->bytes * ROWS);", "(void)per;"),
    ("sums of earlier k chunks overwritten", "Q8_0/avx512", AVX512,
     "group_out(p, n, m0, u0 == 0);", "group_out(p, n, m0, true);"),
    ("nothing is added", "Q4_K/avx512 F16/avx512", AVX512, "} else if (p->add) {", "} else if (false) {"),
    ("added instead of the sums of earlier k chunks", "Q8_0/avx512", AVX512,
     "if (!first) {", "if (!first && !p->add) {"),
    ("added with y's stride", "Q5_0/avx512 BF16/avx512", AVX512,
     "out.ldadd = p->ldadd;", "out.ldadd = p->ldy;"),
    ("second tile of tokens: what is added to the first", "Q5_1/avx512", AVX512,
     "            out.add += t * out.ldadd;\n", "            out.ldadd += 0;\n"),
    ("second block of tokens: what is added to the first", "Q4_1/avx512 F16/avx512", AVX512,
     "out.add = p->add + m * p->ldadd + n;", "out.add = p->add + m % BLOCK_TOKENS * p->ldadd + n;"),
    ("second group of rows: what is added to the first", "Q6_K/avx512", AVX512,
     "out.add = p->add + m * p->ldadd + n;", "out.add = p->add + m * p->ldadd;"),
    ("last k chunk skipped when it isn't whole", "Q8_0/avx512", AVX512,
     "for (int64_t u = 0; u < units; u += step) {",
     "for (int64_t u = 0; u < units && (!u || u + step <= units); u += step) {"),
    ("rows past n are written", "Q4_0/avx512", AVX512,
     "return rows >= ROWS ? 0xffff : (__mmask16)((1 << rows) - 1);", "return rows ? 0xffff : 0;"),
    ("panel: minimums of the first half for both", "Q2_K/avx512", AVX512,
     "_mm512_loadu_ps(dm + 16 * (subs * s + i))", "_mm512_loadu_ps(dm + 16 * subs * s)"),
    ("second tile of tokens reads the first's activations", "Q5_1/avx512", AVX512,
     "        x += (size_t)t * ldx;\n", ""),
    ("second tile of tokens written over the first", "Q5_1/avx512", AVX512,
     "        out.y += t * p->ldy;\n", ""),
    ("second block of tokens reads the first's activations", "Q4_1/avx512", AVX512,
     "p->x + (size_t)m0 * ldx + (size_t)u0", "p->x + (size_t)(m0 & 0) * ldx + (size_t)u0"),
    ("floats: the second of a pair meets the wrong k", "F16/avx512 BF16/avx512", AVX512,
     "_mm512_set1_ps(xt[2])", "_mm512_set1_ps(xt[1])"),
    ("floats: BF16 keeps its neighbour's bits", "BF16/avx512", AVX512,
     "_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000))", "v"),
    ("floats: weight offset in 32 bits", "F16/avx512", AVX512,
     "(size_t)(n * units) * 64", "(uint32_t)(n * units) * 64u"),
    ("weight offset in 32 bits", "Q4_K/avx512", AVX512,
     "(size_t)n * row_bytes;", "(uint32_t)((uint32_t)n * (uint32_t)row_bytes);"),
    # --- tiles
    ("second group's panel made of the first's weights", "Q4_K/amx F16/amx", AMX,
     "(n / ROWS + g)", "(n / ROWS)"),
    ("second group's tile loaded from the first's panel", "Q4_0/amx", AMX,
     "_tile_loadd(5, a + STEPS * TILE, 64);", "_tile_loadd(5, a, 64);"),
    ("second tile of tokens is the first", "Q4_0/amx", AMX,
     "            _tile_loadd(7, b + b_stride, 64);\n            _tile_dpbf16ps(1",
     "            _tile_loadd(7, b, 64);\n            _tile_dpbf16ps(1"),
    ("fourth product takes the first weights", "Q8_0/amx", AMX,
     "            if (tokens == 2)\n                _tile_dpbf16ps(3, 5, 7);",
     "            if (tokens == 2)\n                _tile_dpbf16ps(3, 4, 7);"),
    ("fourth sum not zeroed", "BF16/amx Q4_0/amx", STRIPS,
     "    if (groups == 2 && tokens == 2)\n        _tile_zero(3);\n", ""),
    ("sums of earlier k blocks forgotten", "Q6_K/amx", AMX,
     "wide(j, 2, x, c, tiles, steps, k == 0);", "wide(j, 2, x, c, tiles, steps, true);"),
    ("one group: sums of earlier k blocks forgotten", "IQ4_NL/amx", AMX,
     "wide(j, 1, x, c, tiles, steps, k == 0);", "wide(j, 1, x, c, tiles, steps, true);"),
    ("sums not zeroed between strips", "Q6_K/amx", AMX,
     "wide(j, 2, x, c, tiles, steps, k == 0);", "wide(j, 2, x, c, tiles, steps, k == 0 && n == 0);"),
    ("few tokens, floats: last k block skipped when it isn't whole", "F16/amx", AMX,
     "for (int64_t k0 = 0; k0 < j->k_tiles; k0 += STEPS) {",
     "for (int64_t k0 = 0; k0 < j->k_tiles && (!k0 || k0 + STEPS <= j->k_tiles); k0 += STEPS) {"),
    ("few tokens, floats: last panel of a k block skipped when it isn't whole", "BF16/amx", AMX,
     "for (int64_t k = 0; k < block; k += NARROW) {",
     "for (int64_t k = 0; k < block && (!k || k + NARROW <= block); k += NARROW) {"),
    ("few tokens, floats: second panel made of the first's weights", "F16/amx", AMX,
     "make_panels(j, n, groups, k0 + k, steps);", "make_panels(j, n, groups, k0, steps);"),
    ("few tokens, floats: second k block made of the first's weights", "BF16/amx", AMX,
     "make_panels(j, n, groups, k0 + k, steps);", "make_panels(j, n, groups, k, steps);"),
    ("few tokens, floats: second panel meets the first's activations", "F16/amx", AMX,
     "x + (size_t)k * TILE, (size_t)block * TILE,\n", "x, (size_t)block * TILE,\n"),
    ("few tokens, floats: second k block where it is for one tile of tokens", "BF16/amx", AMX,
     "(size_t)(k0 * tokens) * TILE;", "(size_t)k0 * TILE;"),
    ("few tokens, floats: second tile a panel further, not a k block", "F16/amx", AMX,
     "(size_t)block * TILE,\n                     steps);",
     "(size_t)steps * TILE,\n                     steps);"),
    ("few tokens: products read the panel that is being made", "Q4_0/amx Q6_K/amx", AMX,
     "step_products(groups, two, ring(j, groups, k + s - 1), b, stride);",
     "step_products(groups, two, ring(j, groups, k + s), b, stride);"),
    ("few tokens: products meet the next step's activations", "Q4_1/amx Q4_K/amx", AMX,
     "b = narrow_x(j, k + s - 1, &stride);", "b = narrow_x(j, k + s, &stride);"),
    ("few tokens: the first step is forgotten", "Q5_0/amx", AMX, "if (k + s > 0) {", "if (k + s > 1) {"),
    ("few tokens: the last step is forgotten", "Q8_0/amx", AMX,
     "    b = narrow_x(j, j->k_tiles - 1, &stride);\n    step_products(groups, two, ring(j, groups, j->k_tiles - 1), b, stride);\n",
     ""),
    ("few tokens: both steps of the panel in one place", "IQ4_NL/amx", AMX,
     "(size_t)(k % 2 * groups) * TILE", "(size_t)(k % 1 * groups) * TILE"),
    ("few tokens: every group has the first's weights", "Q5_1/amx Q3_K/amx", AMX,
     "ring(j, groups, k + s) + g * TILE, wg, s,", "ring(j, groups, k + s) + g * TILE, w, s,"),
    ("few tokens: every group has the first's scales", "MXFP4/amx Q2_K/amx", AMX,
     "scale + 256 * g + 16 * subs * s", "scale + 16 * subs * s"),
    ("few tokens: every group has the first's minimums", "Q4_1/amx Q5_K/amx", AMX,
     "min + 256 * g + 16 * subs * s", "min + 16 * subs * s"),
    ("few tokens: a block's steps all have its first scales", "IQ4_XS/amx", AMX,
     "scale + 256 * g + 16 * subs * s", "scale + 256 * g"),
    ("few tokens: third group multiplied by the second's tile", "Q4_0/amx", AMX,
     "_tile_loadd(4, a + 2 * TILE, 64);", "_tile_loadd(4, a + TILE, 64);"),
    ("few tokens: fourth group's product left out", "Q4_K/amx", AMX,
     "        _tile_dpbf16ps(3, 5, 6);\n    } else if (two) {", "    } else if (two) {"),
    ("few tokens: second tile of tokens is the first", "Q4_0/amx", AMX,
     "        _tile_loadd(7, b + b_stride, 64);\n        _tile_dpbf16ps(1, 4, 7);\n",
     "        _tile_loadd(7, b, 64);\n        _tile_dpbf16ps(1, 4, 7);\n"),
    ("few tokens: two groups, the fourth sum left out", "Q6_K/amx", AMX,
     "        if (groups == 2)\n            _tile_dpbf16ps(3, 5, 7);\n", ""),
    ("few tokens: second tile where it is in whole k blocks", "Q4_0/amx", AMX,
     "*stride = (size_t)ts_tile_steps(k / STEPS * STEPS, j->k_tiles) * TILE;", "*stride = (size_t)STEPS * TILE;"),
    ("few tokens: sums of the third and fourth group swapped", "Q5_0/amx", AMX,
     "_tile_stored(2, j->sums + 2 * BLOCK * TILE, 64);\n    _tile_stored(3, j->sums + 3 * BLOCK * TILE, 64);",
     "_tile_stored(3, j->sums + 2 * BLOCK * TILE, 64);\n    _tile_stored(2, j->sums + 3 * BLOCK * TILE, 64);"),
    ("few tokens: of three groups one is done", "Q8_0/amx", AMX,
     "    if (groups == 3)\n        groups = 2;\n", ""),
    ("panels begin at the row's first packed block", "Q4_K/amx", AMX,
     "w += (size_t)(k0 / per) * r16_block_bytes(type);", "(void)k0;"),
    ("floats: panels begin at the row's first tile", "BF16/amx", AMX,
     "w += (size_t)k0 * TILE;", "(void)k0;"),
    ("many tokens: every k block meets the first activations", "IQ4_XS/amx", AMX,
     "ts_tile_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile_place(m, j->m_tiles, 0, j->k_tiles);"),
    ("many tokens: last k block's tokens as far apart as in whole ones", "Q5_1/amx", AMX,
     "x += 2 * steps * TILE", "x += 2 * STEPS * TILE"),
    ("many tokens: last k block's second tile as far as in whole ones", "Q4_0/amx", AMX,
     "x, (size_t)steps * TILE, steps);", "x, (size_t)STEPS * TILE, steps);"),
    ("second block of tokens meets the first's activations", "Q4_0/amx", AMX,
     "ts_tile_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile_place(0, j->m_tiles, k, j->k_tiles);"),
    ("k blocks' activations as if there were one block of tokens", "Q5_0/amx", AMX,
     "ts_tile_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile_place(m, tiles, k, j->k_tiles);"),
    ("activation tiles of a k block as if it were all of k", "Q4_K/amx", AMX,
     "int64_t place = ts_tile_place(m, j->m_tiles, k, j->k_tiles);",
     "int64_t place = m * j->k_tiles + k;"),
    ("tiles from one token later on, by the kernel", "Q4_0/amx", AMX,
     "if (!on_tiles_##T(p->limbs == 1, p->m)) ", "if (!on_tiles_##T(p->limbs == 1, p->m-1)) "),
    ("floats: tiles from one token later on, by the kernel", "F16/amx", AMX,
     "if (!on_tiles_##T(false, p->m)) ", "if (!on_tiles_##T(false, p->m-1)) "),
    ("tiles from one token later on, by the kernel and who asks", "F16/amx", AMX,
     "return m >= FROM_##T;", "return m > FROM_##T;"),
    ("int8 tiles from one token later on, by the kernel and who asks", "Q4_K/amx", AMX,
     "return m >= (int8 ? TS_TILES8_MIN : FROM_##T);",
     "return m >= (int8 ? TS_TILES8_MIN + 1 : FROM_##T);"),
    ("second 16 with the first's scale", "Q3_K/amx", AMX,
     "_mm512_set1_ps(ds[16 + r])", "_mm512_set1_ps(ds[r])"),
    ("second 16 with the first's minimum", "Q2_K/amx Q6_K/amx", AMX,
     "_mm512_set1_ps(dm[16 + r])", "_mm512_set1_ps(dm[r])"),
    ("8-bit activations on BF16 tiles", "Q4_0/amx", AMX,
     "else if (p->limbs == 1) ", "else if (p->limbs == 3) "),
    ("fourth sum of a k block is another's", "Q4_0/amx", AMX,
     "_tile_loadd(3, c + group_stride + TILE, 64)", "_tile_loadd(3, c + group_stride, 64)"),
    ("row r + 4 with row r's scale", "MXFP4/amx", AMX,
     "_mm512_set1_ps(ds[r + 4])", "_mm512_set1_ps(ds[r])"),
    ("row r + 4 with row r's codes", "Q8_0/amx", AMX,
     "r + 4, _mm512_extracti64x4_epi64(c, 1)", "r + 4, _mm512_castsi512_si256(c)"),
    ("row r + 4 with row r's table", "IQ4_NL/amx", AMX,
     "_mm512_maskz_mov_epi32(0xff00, _mm512_set1_epi8(16))", "_mm512_setzero_si512()"),
    ("odd and even k swapped in the weights", "Q5_K/amx", AMX,
     "to_bf16(_mm512_fmsub_ps(even, s, m), _mm512_fmsub_ps(odd, s, m))",
     "to_bf16(_mm512_fmsub_ps(odd, s, m), _mm512_fmsub_ps(even, s, m))"),
    ("odd and even k swapped for the upper rows of nibbles", "Q4_0/amx", AMX,
     "high, _mm512_extracti64x4_epi64(even, 1));", "high, _mm512_extracti64x4_epi64(odd, 1));"),
    ("floats: second half of k is the first", "F16/amx BF16/amx", AMX,
     "w + 64 * (8 * half + j)", "w + 64 * j"),
    ("rows past n are written", "Q4_0/amx", STRIPS,
     "mask = rows >= ROWS ? 0xffff : (__mmask16)((1 << rows) - 1);",
     "mask = rows >= 0 ? 0xffff : 0;"),
    ("tokens past m are written", "Q4_0/amx", STRIPS,
     "tokens = p->m - m < TOKENS ? p->m - m : TOKENS,", "tokens = TOKENS,"),
    ("second block of tokens written over the first", "Q2_K/amx", AMX,
     "n + i * ROWS, (m + t) * TOKENS);", "n + i * ROWS, t * TOKENS);"),
    ("nothing is added", "Q4_0/amx F16/amx", STRIPS, "if (p->add)", "if (false)"),
    ("added with y's stride", "Q4_K/amx", STRIPS, "* p->ldadd + n", "* p->ldy + n"),
    ("second group of rows: what is added to the first", "Q8_0/amx", STRIPS,
     "p->add + (m + i) * p->ldadd + n", "p->add + (m + i) * p->ldadd"),
    ("second tile of tokens: what is added to the first", "BF16/amx", STRIPS,
     "p->add + (m + i) * p->ldadd + n", "p->add + i * p->ldadd + n"),
    ("int8: weight offset in 32 bits", "Q4_K/amx", INT8,
     "(size_t)(n / ROWS + g) * j->group_bytes",
     "(uint32_t)((uint32_t)(n / ROWS + g) * (uint32_t)j->group_bytes)"),
    ("few tokens: weight offset in 32 bits", "Q4_K/amx", AMX,
     "(size_t)(n / ROWS) * j->group_bytes, *b;", "(uint32_t)((uint32_t)(n / ROWS) * (uint32_t)j->group_bytes), *b;"),
    ("weight offset in 32 bits", "Q4_K/amx", AMX,
     "(size_t)(n / ROWS + g) * j->group_bytes",
     "(uint32_t)((uint32_t)(n / ROWS + g) * (uint32_t)j->group_bytes)"),
    ("transpose: lanes 0 and 1 twice", "Q4_0/amx F16/amx", TRANSPOSE,
     "_mm512_permutex2var_epi64(q[0][i], high, q[1][i])",
     "_mm512_permutex2var_epi64(q[0][i], low, q[1][i])"),
    ("transpose: dwords 2 and 3 exchanged, everywhere", "Q4_0/amx", TRANSPOSE,
     "_mm512_unpacklo_epi32(u[2], u[3]), d = _mm512_unpackhi_epi32(u[2], u[3]);",
     "_mm512_unpacklo_epi32(u[3], u[2]), d = _mm512_unpackhi_epi32(u[3], u[2]);"),
    ("transpose back: its halves exchanged", "Q4_0/avx512 Q2_K/avx512", TRANSPOSE,
     "h ? high : low, p[2 * i + 1]", "h ? low : high, p[2 * i + 1]"),
    ("transpose back: the second half is the first", "Q8_0/avx512", TRANSPOSE,
     "h ? high : low, p[2 * i + 1]", "low, p[2 * i + 1]"),
    ("transpose back: rows r and r + 4 exchanged", "Q5_0/avx512", TRANSPOSE,
     "_mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13)", "_mm512_setr_epi64(4, 5, 0, 1, 8, 9, 12, 13)"),
    ("transpose back: a pair taken twice", "Q4_K/avx512", TRANSPOSE,
     "q[i] = _mm512_permutex2var_epi64(p[2 * i], h ? high : low, p[2 * i + 1]);",
     "q[i] = _mm512_permutex2var_epi64(p[2 * i], h ? high : low, p[2 * i]);"),
    # --- int8 tiles
    ("int8: a step skipped", "Q4_0/amx", INT8,
     "for (int64_t s = 0; s < steps; s++, a", "for (int64_t s = 0; s < steps - steps / 8; s++, a"),
    ("int8: second tile of tokens is the first", "Q5_0/amx", INT8,
     "_tile_loadd(7, b + b_stride, 64);", "_tile_loadd(7, b, 64);"),
    ("int8: second group's tile loaded from the first's panel", "Q4_1/amx", INT8,
     "_tile_loadd(5, a + GROUP, 64);", "_tile_loadd(5, a, 64);"),
    ("int8: third product takes the second tokens", "IQ4_NL/amx", INT8,
     "_tile_dpbssd(2, 5, 6);", "_tile_dpbssd(2, 5, 7);"),
    ("int8: rows 8..15 with the scales of rows 0..7", "Q8_0/amx", INT8,
     "h->s + group * ROWS + row;", "h->s + group * ROWS;"),
    ("int8: second group with the first's row scales", "Q4_K/amx", INT8,
     "h->s + group * ROWS + row;", "h->s + row;"),
    ("int8: second tile of tokens with the first's scales", "Q4_0/amx", INT8,
     "h->d + (size_t)tile * h->d_stride", "h->d"),
    ("int8: last k block's token scales where they are in whole ones", "Q4_0/amx", INT8,
     "x + (size_t)steps * TILE, stride", "x + (size_t)STEPS * TILE, stride"),
    ("int8: the first k block added, later ones written", "Q6_K/amx", INT8,
     "v = h->first ?", "v = !h->first ?"),
    ("int8: every k block written", "Q5_1/amx", INT8, "v = h->first ?", "v = true || h->first ?"),
    ("int8: second tile's sums added to the first's", "Q4_0/amx", INT8,
     "(group * BLOCK + tile) * TILE + 64 * row;", "group * BLOCK * TILE + 64 * row;"),
    ("int8: halves beyond the steps are left out", "MXFP4/amx", INT8,
     "    while (half < halves)\n", "    while (half < 0)\n"),
    ("int8: a single tile at the end is taken for two groups'", "Q4_0/amx", INT8,
     "store_sums(groups, 1, j->held, 2 * TILE);", "store_sums(groups, 1, j->held, TILE);"),
    ("int8: the last sums are left out", "Q4_0/amx", INT8,
     "for (int half = 0; half < 4 * groups; half++)", "for (int half = 0; half < 0; half++)"),
    ("int8: last k block's tokens as far apart as in whole ones", "Q4_0/amx", INT8,
     "const size_t stride = ts_tile8_bytes(steps);", "const size_t stride = ts_tile8_bytes(STEPS);"),
    ("int8: every k block meets the first activations", "Q3_K/amx", INT8,
     "ts_tile8_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile8_place(m, j->m_tiles, 0, j->k_tiles);"),
    ("int8: second block of tokens meets the first's activations", "Q4_0/amx", INT8,
     "ts_tile8_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile8_place(0, j->m_tiles, k, j->k_tiles);"),
    ("int8: k blocks' activations as if there were one block of tokens", "Q4_0/amx", INT8,
     "ts_tile8_place(m, j->m_tiles, k, j->k_tiles);", "ts_tile8_place(m, tiles, k, j->k_tiles);"),
    ("int8: second group's panel made of the first's weights", "Q4_0/amx", INT8,
     "(n / ROWS + g)", "(n / ROWS)"),
    ("int8: panels begin at the row's first packed block", "Q4_K/amx", INT8,
     "w += (size_t)(k0 / per) * bytes;", "(void)k0;"),
    ("int8: every block of a panel is the first", "Q4_0/amx", INT8,
     "for (int64_t i = 0; i < n; i += per, b += bytes) {", "for (int64_t i = 0; i < n; i += per) {"),
    ("int8: the last 32 of an odd number are left out", "Q4_0/amx", INT8,
     ".lines = p->k / 32,", ".lines = p->k / 64 * 2,"),
    ("int8: both halves of a tile in the first", "Q5_K/amx", INT8,
     "line / 2 * TILE + line % 2 * 32", "line / 2 * TILE"),
    ("int8: tables of rows r and r + 4 exchanged", "Q4_0/amx Q5_K/amx", INT8,
     "_mm512_setr_epi64(a, a, b, b, c, c, d, d);", "_mm512_setr_epi64(c, c, d, d, a, a, b, b);"),
    ("int8: levels of the first 16 for both", "Q2_K/amx Q3_K/amx", INT8,
     "_mm512_setr_epi64(a, a, b, b, c, c, d, d);", "_mm512_setr_epi64(a, a, a, a, c, c, c, c);"),
    ("int8: the second pair looks into the first's levels", "IQ4_XS/amx Q3_K/amx", INT8,
     "32 * (i % 2) + (levels", "(levels"),
    ("int8: pairs 2 and 3 look into the levels of 0 and 1", "Q2_K/amx", INT8,
     "8 * (i / 2 % 2)", "0"),
    ("int8: ratio of the first 16 for both", "Q6_K/amx", INT8,
     "ratio_of(ds + second, of_ratio)", "ratio_of(ds + at, of_ratio)"),
    ("int8: minimum of the first 16 for both", "Q2_K/amx", INT8,
     "min_of(dm + second, of_min)", "min_of(dm + at, of_min)"),
    ("int8: the second 16's factor over the first's", "Q3_K/amx", INT8,
     "_mm512_slli_epi32(second, 16)", "second"),
    ("int8: factors of the first table for all", "Q4_K/amx Q8_0/amx", INT8,
     "_mm512_set1_epi8((char)(4 * row))", "_mm512_set1_epi8((char)(0 * row))"),
    ("int8: nothing is rounded to the nearest", "Q4_1/amx", INT8,
     "_mm512_set1_ps(128.0f)", "_mm512_set1_ps(0.0f)"),
    ("int8: the largest code doesn't count for the scale", "Q5_1/amx", INT8,
     "if (r16_offset(type) == 0) {\n            m = ", "if (r16_offset(type) == 100) {\n            m = "),
    ("int8: minimums don't count for the scale", "Q4_1/amx Q5_K/amx", INT8,
     "max = _mm512_max_epi32(max, _mm512_and_si512(_mm512_castps_si512(m), abs));\n        if",
     "if (r16_offset(type)) max = _mm512_castps_si512(_mm512_abs_ps(m));\n        if"),
    ("int8: the neighbour's sign bit in odd codes", "Q6_K/amx", INT8,
     "odd = _mm512_srai_epi16(v, 8);\n", "odd = _mm512_srli_epi16(v, 8);\n"),
    ("int8: codes not centred", "Q8_0/amx", INT8,
     "v = _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80));", ";"),
    ("int8: one level is its neighbour", "Q5_0/amx", INT8,
     "a + 6 * four, a + 7 * four, a,", "a + 6 * four, a + 6 * four, a,"),
    # --- packing
    ("a pair's rows exchanged by pack only", "Q4_K/avx512", R16,
     "memcpy(dst + by_pairs(r, 32)", "memcpy(dst + by_pairs(r ^ 4, 32)"),
    ("a pair's rows exchanged by unpack only", "Q8_0/avx512", R16,
     "src + by_pairs(r, 32)", "src + by_pairs(r ^ 4, 32)"),
    ("a pair's rows exchanged by both", "Q6_K/avx512 Q6_K/amx", R16,
     "second = r / 4 % 2;", "second = 1 - r / 4 % 2;"),
    ("pairs in the order of rows, by both", "Q2_K/avx512 Q2_K/amx", R16,
     "int pair = r % 4 * 2 + r / 8,", "int pair = r % 4 + r / 8 * 4,"),
    ("scales by pairs, by both", "Q4_K/avx512 Q4_K/amx", R16,
     ("memcpy(dst + 4 * r, row[r] + at, 4);", "memcpy(row[r] + at, src + 4 * r, 4);"),
     ("memcpy(dst + by_pairs(r, 4), row[r] + at, 4 );",
      "memcpy(row[r] + at, src + by_pairs(r, 4), 4 );")),
    ("nibbles of two rows exchanged by pack only", "Q4_0/avx512", R16,
     "32 * (r / 4), row[r] + at, row[r + 8] + at);", "32 * (r / 4), row[r + 8] + at, row[r] + at);"),
    ("nibbles of two rows exchanged by both", "Q4_0/avx512 Q4_0/amx", R16,
     ("32 * (r / 4), row[r] + at, row[r + 8] + at);", "part_nibbles(row[r] + at, row[r + 8] + at,"),
     ("32 * (r / 4), row[r + 8] + at, row[r] + at);", "part_nibbles(row[r + 8] + at, row[r] + at,")),
    ("nibbles stay as they are, i and i + 16 in a byte, by both", "IQ4_NL/avx512 MXFP4/amx", R16,
     ("(uint8_t)((a[i] & 15) | c[i] << 4);", "(uint8_t)(a[i] >> 4 | (c[i] & 0xf0));",
      "(uint8_t)((from[i] & 15) | from[16 + i] << 4);",
      "(uint8_t)(from[i] >> 4 | (from[16 + i] & 0xf0));"),
     ("a[i];", "c[i];", "from[i];", "from[16 + i];")),
    ("second 16 of nibbles lost", "Q5_1/avx512", R16,
     "to[16 + i] = (uint8_t)(a[i] >> 4 | (c[i] & 0xf0));", "to[16 + i] = to[i];"),
    ("every unit of a field is the first, by pack only", "Q3_K/avx512", R16,
     "pack_unit(f->kind, dst, row, f->at + (size_t)(i * ts_pack_unit(f->kind)));",
     "pack_unit(f->kind, dst, row, f->at);"),
    ("d and minimum exchanged by both", "Q4_1/avx512 Q4_1/amx", R16,
     "{{0, TS_PACK_HALF, 1}, {2, TS_PACK_HALF, 1}, {4, TS_PACK_NIBBLES,",
     "{{2, TS_PACK_HALF, 1}, {0, TS_PACK_HALF, 1}, {4, TS_PACK_NIBBLES,"),
    ("fifth bits not by pairs, by neither", "Q5_0/avx512 Q5_0/amx", R16,
     ("memcpy(dst + by_pairs(r, 4)", "src + by_pairs(r, 4)"), ("memcpy(dst + 4 * r", "src + 4 * r")),
    ("rows that fill up are not zeros", "Q8_0/avx512", R16,
     "src + (size_t)(g + r) * row_bytes : zeros;", "src + (size_t)(g + r) * row_bytes : src;"),
    ("floats: elements that fill up are not zeros", "F16/amx", R16,
     "g + r < n && b + i < k ? src", "g + r < n && (b + i < k || g + r + 1 < n) ? src"),
    ("floats: neighbouring k in a dword, by both", "F16/avx512 F16/amx", R16,
     "return 2 * (i / 4 + 8 * (i % 2)) + i % 4 / 2;", "return i;"),
    ("floats: unpack goes past its rows", "F16/avx512", R16, "r < n1 && r < n; r++)", "r < n; r++)"),
    ("packed offset in 32 bits, by both", "Q8_0/avx512", R16,
     ("*dst = (uint8_t *)packed + (size_t)g * row_bytes;",
      "from = (const uint8_t *)packed + (size_t)g * row_bytes;"),
     ("*dst = (uint8_t *)packed + (uint32_t)((uint32_t)g * (uint32_t)row_bytes);",
      "from = (const uint8_t *)packed + (uint32_t)((uint32_t)g * (uint32_t)row_bytes);")),
    ("a stack packed as one matrix of e n rows", "Q4_0/avx512", KSET,
     "return (s->packed_bytes(n, k) + ALIGN - 1) / ALIGN * ALIGN;",
     "return (source_bytes(s, n, k) + ALIGN - 1) / ALIGN * ALIGN;"),
    ("bytes between two matrices of a stack are left as they were", "Q4_0/avx512", KSET,
     "memset(to + bytes, 0, stride - bytes);", "(void)bytes;"),
    ("address in a stack in 32 bits", "Q4_0/avx512", KSET,
     "(const uint8_t *)w + (size_t)i * ts", "(const uint8_t *)w + (uint32_t)i * (uint32_t)ts"),
    ("every matrix packed from the first's source", "Q4_0/avx512", KSET,
     "(const uint8_t *)src + (size_t)i * source_bytes(s, n, k), n, k, n0, n1);",
     "src, n, k, n0, n1);"),
    # --- activations
    ("sum of the first half for both", "Q6_K/avx512", PREP512, "(float)sum[i];", "(float)sum[0];"),
    ("second half's low limbs over the first's", "Q4_0/avx512", PREP512,
     "put16(b->limb[1] + 16 * i,", "put16(b->limb[1],"),
    ("int8: a scale for each 32 instead of each 256", "Q4_K/avx512", PREP512,
     "PREP(q8_256, TS_ACT_Q8_256, 1, 256)", "PREP(q8_256, TS_ACT_Q8_256, 1, 32)"),
    ("tokens are put where the first thread's are", "Q4_0/avx512", PREP512,
     "(size_t)((t * k + k0) / 32) * bytes;", "(size_t)(((t - m0) * k + k0) / 32) * bytes;"),
    ("a part of k is put where the first is", "Q4_0/avx512", PREP512,
     "(size_t)((t * k + k0) / 32) * bytes;", "(size_t)(t * k / 32) * bytes;"),
    ("a part of k goes on to the end", "Q4_K/avx512", PREP512, "i < k1; i += unit", "i < k; i += unit"),
    ("floats: a part of k is made of the first's elements", "F16/avx512", PREP512,
     "x + t * ldx + k0,", "x + t * ldx,"),
    ("floats that fill up are not zeros", "F16/avx512", PREP512,
     "            memset(to + k, 0, (size_t)(kp - k) * sizeof(float));\n",
     "            continue;\n"),
    ("floats: what fills up is zeros after the first part already", "F16/avx512", PREP512,
     "        if (k1 == k)\n            memset(to + k, 0, (size_t)(kp - k) * sizeof(float));",
     "        memset(to + k1, 0, (size_t)(kp - k1 ) * sizeof(float));"),
    ("NaN and infinity vanish", "Q4_0/avx512", PREP, "        return NAN;\n", "        return 0;\n"),
    ("tiny numbers have codes", "Q4_0/avx512 Q4_K/amx", PREP,
     "if (max < TS_ACT_TINY)", "if (max < 0)"),
    ("tiles: tokens 8..15 are tokens 0..7", "Q4_0/amx", PREPAMX,
     "x + (8 * half + t) * ldx;", "x + t * ldx;"),
    ("tiles: odd and even k swapped in the activations", "BF16/amx", PREPAMX,
     "_mm512_permutex2var_ps(a, odd, b),\n"
     "                                        _mm512_permutex2var_ps(a, even, b)",
     "_mm512_permutex2var_ps(a, even, b),\n"
     "                                        _mm512_permutex2var_ps(a, odd, b)"),
    ("tiles: tokens that fill up are not zeros", "Q4_0/amx", PREPAMX,
     "if (t == m - 1)", "if (t == m)"),
    ("tiles: elements past k are read", "F16/amx", PREPAMX,
     ": n >= 32              ? column(row)\n                                          : last_column(row, n);",
     ": column(row);"),
    ("tiles: one token too many", "Q4_0/amx", PREPAMX,
     "8 * half + t >= tokens ?", "8 * half + t > tokens ?"),
    ("tiles: the end of a tile is taken for a whole one", "Q4_0/amx", PREPAMX,
     "bool whole = t % TOKENS == 0 && t + tokens <= m1;\n        for (int64_t i = k0 / 32;",
     "bool whole = t + tokens <= m1;\n        for (int64_t i = k0 / 32;"),
    ("tiles: placed as if a k block were all of k", "Q4_0/amx F16/amx", PREPAMX,
     "(size_t)ts_tile_place(t / TOKENS, nm, i, nk) * TILE;",
     "(size_t)(t / TOKENS * nk + i) * TILE;"),
    ("tiles: second k block after one tile of tokens", "Q8_0/amx", PREPAMX,
     "ts_tile_place(t / TOKENS, nm, i, nk)", "ts_tile_place(t / TOKENS, 1, i, nk)"),
    ("tiles: the second part of k begins with the first tile", "Q4_0/amx", PREPAMX,
     "for (int64_t i = k0 / 32; i < ts_tile_count(k1, 32); i++) {",
     "for (int64_t i = 0; i < ts_tile_count(k1 - k0, 32); i++) {"),
    ("tiles: the last k that isn't whole is left out", "F16/amx", PREPAMX,
     "i < ts_tile_count(k1, 32); i++)", "i < k1 / 32; i++)"),
    ("tiles: from one token later on", "Q4_0/amx", PREPAMX,
     "        if (m < from) ", "        if (m <= from)"),
    ("int8 tiles: tokens 8..15 are tokens 0..7", "Q4_0/amx", PREPAMX,
     "step_fours(sp, s, x + (8 * half + t) * ldx,", "step_fours(sp, s, x + t * ldx,"),
    ("int8 tiles: tokens 8..15 with the factors of 0..7", "Q4_0/amx", PREPAMX,
     "scale[8 * half + t]);", "scale[t]);"),
    ("int8 tiles: the last 32 taken for 64", "Q4_0/amx", PREPAMX,
     "n <= 32 ? _mm512_setzero_si512()", "n <= 0 ? _mm512_setzero_si512()"),
    ("int8 tiles: fours in the order of the packed dwords", "Q5_0/amx", PREPAMX,
     "return 4 * (d % 4) + d / 4;", "return d;"),
    ("int8 tiles: largest of every other 16", "Q4_0/amx", PREPAMX,
     "_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(s->part", "_mm512_loadu_ps(x + i), _mm512_loadu_ps(s->part"),
    ("int8 tiles: tokens that fill up are not zeros", "Q4_0/amx", PREPAMX,
     "if (t == m - 1 && m % TOKENS)", "if (t == m)"),
    ("int8 tiles: scales that fill up are not zeros", "Q4_0/amx", PREPAMX,
     "i <= 16 * (ts_tile_count", "i < 16 * (ts_tile_count"),
    ("int8 tiles: the end of a tile is taken for a whole one", "Q4_0/amx", PREPAMX,
     "bool whole = t % TOKENS == 0 && t + tokens <= m1;\n            uint8_t *block",
     "bool whole = t + tokens <= m1;\n            uint8_t *block"),
    ("int8 tiles: placed as if there were one tile of tokens", "Q4_0/amx", PREPAMX,
     "ts_tile8_place(t / TOKENS, nm, i, nk);", "ts_tile8_place(t / TOKENS, 1, i, nk);"),
    ("int8 tiles: the last k block has room for a whole one, by both", "Q4_0/amx", TILES,
     "return n - k < TS_TILE8_STEPS ? n - k : TS_TILE8_STEPS;",
     "return (void)n, (void)k, TS_TILE8_STEPS;"),
    ("int8 tiles: no room for the scales, by both", "Q4_0/amx", TILES,
     "return (size_t)(steps + 1) * 1024 + 64;", "return (size_t)(steps + 1) * 1024;"),
    ("int8 tiles: no room for the spare codes, by both", "Q4_0/amx", TILES,
     "return (size_t)(steps + 1) * 1024 + 64;", "return (size_t)steps * 1024 + 64;"),
    ("int8 spares: the scale as if there were none", "Q4_0/amx", PREPAMX,
     "s->part[i + l] = 1.0f / (float)(1 + count[l]);", "s->part[i + l] = 1.0f;"),
    ("int8 spares: every code of an element the same", "Q4_0/amx", PREPAMX,
     "s->high[at] = 127 * j;", "s->high[at] = 127;"),
    ("int8 spares: negative ones end too early", "Q4_0/amx", PREPAMX,
     "s->low[at] = -128 * j;", "s->low[at] = 0;"),
    ("int8 spares: elements of the neighbouring step", "Q4_0/amx", PREPAMX,
     "(uint8_t)(s->element[j] / TS_TILE8_K)", "(uint8_t)(s->element[j] / TS_TILE8_K ^ 1)"),
    ("int8 spares: nobody's are an element's", "Q4_0/amx", PREPAMX,
     "for (s->n = at; at < SPARES; at++) {", "for (s->n = SPARES; at < SPARES; at++) {"),
    ("int8 spares: chosen from one token", "Q4_0/amx", PREPAMX,
     "t < m; t += ts_tile_count(m, TOKENS)", "t < 1; t += ts_tile_count(m, TOKENS)"),
    ("int8 spares: the first k block's elements for all", "Q4_0/amx", INT8,
     "ts_tile8_block(j->m_tiles, k);", "ts_tile8_block(j->m_tiles, 0 * k);"),
    ("int8 spares: weights of the first step for all", "Q4_0/amx", INT8,
     "for (int s = 1; s < STEPS; s++)\n            q =", "for (int s = STEPS; s < STEPS; s++)\n            q ="),
    ("int8 spares: weights of the first row for all", "Q4_0/amx", INT8,
     "_mm512_storeu_si512(panel + steps * TILE, q);",
     "_mm512_storeu_si512(panel + steps * TILE, r ? _mm512_loadu_si512(panel + steps * TILE - 64) : q);"),
    ("int8 spares: their step left out for two groups", "Q4_0/amx", INT8,
     "wide(j, 2, x, stride, sum, tiles, steps + 1, k == 0);", "wide(j, 2, x, stride, sum, tiles, steps, k == 0);"),
    ("tiles: the last k block has room for a whole one, by both", "Q4_0/amx", TILES,
     "return n - k < TS_TILE_STEPS ? n - k : TS_TILE_STEPS;", "return (void)n, (void)k, TS_TILE_STEPS;"),
    ("tiles: of the last k block as far apart as in whole ones, by both", "Q4_0/amx F16/amx", TILES,
     "t * ts_tile_steps(k0, k_tiles)", "t * (TS_TILE_STEPS + 0 * k_tiles)"),
    ("tiles: the place of the k block forgotten, by both", "Q6_K/amx", TILES,
     "return k0 * m_tiles + t", "return t"),
]


def fail(text):
    print("mutate.py:", text, file=sys.stderr)
    sys.exit(2)


class Build:
    """Commands and libraries of a built tree."""

    def __init__(self, path):
        self.tests = os.path.join(path, "tests")
        self.libs = [os.path.join(path, "src", "libts_internal.a"),
                     os.path.join(self.tests, "libts_standin.a")]
        self.objects = [os.path.join(self.tests, "CMakeFiles", f"{t}.dir", f"{t}.c.o")
                        for t in ("test_kset_pack", "test_kset")]  # the faster first
        for file in self.libs + self.objects:
            if not os.path.exists(file):
                print(f"mutate.py: {file} isn't there: build first", file=sys.stderr)
                sys.exit(77)
        with open(os.path.join(path, "compile_commands.json")) as f:
            self.commands = json.load(f)
        if any("-fsanitize" in c["command"] for c in self.commands):
            print("mutate.py: not with sanitizers", file=sys.stderr)
            sys.exit(77)

    def compile(self, source, standin, tree, out):
        """Runs the command that made src/cpu/SOURCE, on the copy in TREE."""
        name = os.path.join(ROOT, "src", "cpu", source)
        found = [c for c in self.commands if os.path.realpath(c["file"]) == os.path.realpath(name)
                 and ("-DTS_STANDIN" in c["command"]) == standin]
        if len(found) != 1:
            fail(f"{len(found)} commands compile {source}")
        words, args = shlex.split(found[0]["command"]), []
        while words:
            word = words.pop(0)
            if word in ("-o", "-MT", "-MF"):
                words.pop(0)
            elif word not in ("-MD", "-c", "-Werror") and not word.startswith("-O"):
                args.append(word.replace(os.path.join(ROOT, "src"), os.path.join(tree, "src")))
        args += ["-O0", "-w", "-c", "-o", out]
        done = subprocess.run(args, cwd=found[0]["directory"], capture_output=True, text=True)
        if done.returncode:
            fail(f"{source} doesn't compile:\n{done.stderr}")

    def link(self, objects, out):
        """The tests, of these objects before the libraries; the compiler is the tree's own."""
        programs = []
        for test in self.objects:
            program = os.path.join(out, os.path.basename(test)[:-len(".c.o")])
            cc = shlex.split(self.commands[0]["command"])[0]
            done = subprocess.run([cc, test, *objects, *self.libs, "-lm", "-lpthread", "-o", program],
                                  capture_output=True, text=True)
            if done.returncode:
                fail(f"{program} can't be linked:\n{done.stderr}")
            programs.append(program)
        return programs


def run(programs, name_of_set):
    """What the tests say of this set: "" for nothing, else their first complaint."""
    for program in programs:
        name, others = os.path.basename(program), []
        with subprocess.Popen([program, SEED, name_of_set + "/standin"], text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as test:
            alarm = threading.Timer(LIMIT, test.kill)
            alarm.start()
            try:
                for line in test.stderr:
                    if "failed: " in line:
                        test.kill()  # one complaint is enough
                        said = line.split("failed: ", 1)[1].strip()
                        return said.partition(": ")[2] or said
                    others.append(line)
                rc = test.wait()
                late = not alarm.is_alive()
            finally:
                alarm.cancel()
        if late:
            return f"{name}: no end after {LIMIT} s"
        if rc > 0:
            fail(f"{name} exits with {rc}:\n{''.join(others)}")
        if rc < 0:
            return f"{name}: signal {-rc}"
    return ""


def apply(tree, file, old, new):
    path = os.path.join(tree, "src", "cpu", file)
    with open(path) as f:
        text = f.read()
    for a, b in zip(*((x,) if isinstance(x, str) else x for x in (old, new))):
        if text.count(a) != 1:
            fail(f"{file} has {text.count(a)} times, not once:\n{a}")
        text = text.replace(a, b)
    with open(path, "w") as f:
        f.write(text)


def programs_of(build, tree, sources):
    """The tests, in TREE, with these sources compiled from its copy."""
    objects = []
    for i, (source, standin) in enumerate(sources):
        objects.append(os.path.join(tree, f"{i}.o"))
        build.compile(source, standin, tree, objects[-1])
    return build.link(objects, tree)


def copy():
    tree = tempfile.TemporaryDirectory(prefix="tessera-mutate-")
    shutil.copytree(os.path.join(ROOT, "src"), os.path.join(tree.name, "src"))
    return tree


def mutate(build, edit):
    """For each set what the tests say of it."""
    _, sets, file, old, new = edit
    with copy() as tree:
        apply(tree, file, old, new)
        programs = programs_of(build, tree, BUILT[file])
        return {s: run(programs, s) for s in sets.split()}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("build", nargs="?", default=os.path.join(ROOT, "build", "ci"))
    p.add_argument("--list", action="store_true", help="only say which edits there are")
    p.add_argument("--only", default="", metavar="WORD", help="edits whose line has WORD in it")
    args = p.parse_args()
    edits = [e for e in EDITS if args.only in f"{e[2]} {e[0]} {e[1]}"]
    if args.list:
        for what, sets, file, _, _ in edits:
            print(f"{file:20}  {what}  ({sets})")
        return 0
    build = Build(os.path.abspath(args.build))
    start = time.monotonic()
    green = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with copy() as tree:  # green without an edit, compiled in the same way?
            programs = programs_of(build, tree, sorted({b for built in BUILT.values() for b in built}))
            sets = sorted({s for e in edits for s in e[1].split()})
            for name, said in zip(sets, pool.map(lambda s: run(programs, s), sets)):
                if said:
                    fail(f"{name} is red without an edit: {said}")
        for edit, said in zip(edits, pool.map(lambda e: mutate(build, e), edits)):
            unseen = [s for s in said if not said[s]]
            green += bool(unseen)
            print(f"{'GREEN' if unseen else 'red  '}  {edit[2]:20}  {edit[0]:64}  "
                  f"{' '.join(unseen) or next(iter(said.values()))[:110]}", flush=True)
    print(f"{len(edits)} edits, {green} not noticed, {time.monotonic() - start:.0f} s")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())

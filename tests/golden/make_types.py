#!/usr/bin/env python3
"""Makes tests/golden/types/*.bin: random blocks of every type and the floats they stand for.

Needs numpy and the package `gguf` (0.19.0 made the committed files); the tests need neither.

    python3 tests/golden/make_types.py [--check]

A file: "TSTY", type number, number of blocks n, values in a block (uint32 each), the n blocks, the
values (float32). --check makes them again and compares with what is there.

Scales are drawn from all finite halfs with extremes among them: zero, the least and the largest
subnormal, the least normal, the largest finite, both signs. Infinities and NaNs are left out. The set is
complete in this sense: every bit of a block changes the result of at least one of its blocks when it
is flipped, so that a reader that skips or misplaces a bit cannot pass.
"""
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES
from gguf.quants import dequantize

OUT = Path(__file__).resolve().parent / "types"

# Byte offsets of the half-precision scales in a block.
HALFS = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_XS: [0],
    T.F16: [0], T.BF16: [], T.F32: [], T.MXFP4: [],
}
EXTREMES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x7BFF, 0xFBFF],
                    dtype=np.uint16)


def finite_halfs(rng, n):
    h = rng.integers(0, 0x7C00, n).astype(np.uint16)
    return h | (rng.integers(0, 2, n).astype(np.uint16) << 15)


def make_blocks(t, rng):
    block, size = GGML_QUANT_SIZES[t]
    n = 256 if block == 1 else 40 if block == 32 else 18
    b = rng.integers(0, 256, (n, size)).astype(np.uint8)
    for i, at in enumerate(HALFS[t]):
        h = finite_halfs(rng, n)
        h[:len(EXTREMES)] = np.roll(EXTREMES, 3 * i)
        b[:, at:at + 2] = h.view(np.uint8).reshape(n, 2)
    if t == T.MXFP4:  # every kind of exponent: two subnormal scales, the normal ones, overflow to infinity
        b[:6, 0] = [0, 1, 2, 127, 250, 255]
    if t == T.F32:
        v = b.view(np.uint32).reshape(-1)
        v[(v & 0x7F800000) == 0x7F800000] ^= 0x40000000
        v[:6] = [0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF]
    if t == T.BF16:
        v = b.view(np.uint16).reshape(-1)
        v[(v & 0x7F80) == 0x7F80] ^= 0x4000
        v[:6] = [0, 0x8000, 1, 0x807F, 0x0080, 0x7F7F]
    return b


def values(t, blocks):
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(dequantize(blocks, t)).view(np.uint32).reshape(len(blocks), -1)


def every_bit_matters(t, blocks):
    ref = values(t, blocks)
    for bit in range(8 * blocks.shape[1]):
        flipped = blocks.copy()
        flipped[:, bit // 8] ^= np.uint8(1 << bit % 8)
        if np.array_equal(values(t, flipped), ref):
            return False
    return True


def make(t):
    rng = np.random.default_rng(1000 + t)
    for _ in range(100):
        blocks = make_blocks(t, rng)
        if every_bit_matters(t, blocks):
            break
    else:
        raise SystemExit(f"{t.name}: no complete set found")
    v = values(t, blocks)
    head = b"TSTY" + np.array([t, len(blocks), v.shape[1]], dtype="<u4").tobytes()
    return head + blocks.tobytes() + v.tobytes()


def main():
    check = "--check" in sys.argv[1:]
    OUT.mkdir(exist_ok=True)
    total = 0
    for t in HALFS:
        path = OUT / f"{t.name.lower()}.bin"
        data = make(t)
        total += len(data)
        if not check:
            path.write_bytes(data)
        elif path.read_bytes() != data:
            raise SystemExit(f"{path} differs")
    print(f"{len(HALFS)} files, {total} bytes, {'equal' if check else 'written'}")


if __name__ == "__main__":
    main()

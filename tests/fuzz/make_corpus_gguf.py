#!/usr/bin/env python3
"""Writes corpus_gguf/: small files that between them hold everything the GGUF loader reads.

    python3 tests/fuzz/make_corpus_gguf.py
"""
import os
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus_gguf")


def string(s):
    return struct.pack("<Q", len(s)) + s


def pair(key, type_, value):
    return string(key) + struct.pack("<I", type_) + value


def array(type_, items):
    return struct.pack("<IQ", type_, len(items)) + b"".join(items)


def tensor(name, ne, type_, offset):
    dims = b"".join(struct.pack("<Q", n) for n in ne)
    return string(name) + struct.pack("<I", len(ne)) + dims + struct.pack("<IQ", type_, offset)


def model(version, pairs, tensors, data=b"", alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data


def nested(depth):
    value = array(U16, [b"\1\2"])
    for _ in range(depth - 1):
        value = array(ARR, [value])
    return value


def split(no, count, tensors):
    return [
        pair(b"split.no", U16, struct.pack("<H", no)),
        pair(b"split.count", U16, struct.pack("<H", count)),
        pair(b"split.tensors.count", I32, struct.pack("<i", tensors)),
    ]


hello = pair(b"a.s", STR, string(b"hello"))
scalars = [
    pair(b"a.u8", U8, b"\7"),
    pair(b"a.i8", I8, b"\xf7"),
    pair(b"a.u16", U16, b"\7\1"),
    pair(b"a.i16", I16, b"\7\1"),
    pair(b"a.u32", U32, b"\7\0\0\0"),
    pair(b"a.i32", I32, b"\xff" * 4),
    pair(b"a.f32", F32, struct.pack("<f", 1.5)),
    pair(b"a.b", BOOL, b"\1"),
    hello,
    pair(b"a.u64", U64, b"\1" * 8),
    pair(b"a.i64", I64, b"\xff" * 8),
    pair(b"a.f64", F64, struct.pack("<d", -2)),
]
arrays = [
    pair(b"b.s", ARR, array(STR, [string(b"x"), string(b""), string(b"\xff\n")])),
    pair(b"b.i", ARR, array(I32, [b"\1\0\0\0"] * 3)),
    pair(b"b.b", ARR, array(BOOL, [b"\1", b"\0"])),
    pair(b"b.n", ARR, array(ARR, [array(STR, [string(b"q")]), nested(3), array(U8, [])])),
    pair(b"b.e", ARR, array(F32, [])),
]
alignment = pair(b"general.alignment", U32, struct.pack("<I", 64))
three = [tensor(b"w", [8], 0, 0), tensor(b"q", [32, 2], 2, 32), tensor(b"k", [256, 1, 1, 2], 12, 96)]
many = [pair(b"k%d" % i, U8, b"\0") for i in range(40)]
files = {
    "empty_v2": model(2, [], []),
    "scalars": model(3, scalars, []),
    "arrays": model(3, arrays, []),
    "nested_8": model(3, [pair(b"n", ARR, nested(8))], []),
    "nested_9": model(3, [pair(b"n", ARR, nested(9))], []),
    "many": model(3, many, [tensor(b"t%d" % i, [1], 0, 32 * i) for i in range(40)], b"\1" * 1280),
    "tensors": model(3, [hello], three, b"\1" * 32 + b"\2" * 36 + b"\0" * 28 + b"\3" * 288),
    "aligned_v2": model(
        2, [alignment], [tensor(b"w", [8], 0, 64), tensor(b"v", [8], 30, 0)], b"\1" * 96, 64
    ),
    "split": model(3, split(0, 2, 2) + [hello], [tensor(b"w", [8], 0, 0)], b"\1" * 32)
    + model(3, split(1, 2, 2), [tensor(b"v", [4, 2], 1, 0)], b"\1" * 16),
}

if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    for name, data in files.items():
        with open(os.path.join(HERE, name), "wb") as f:
            f.write(data)

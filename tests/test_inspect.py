#!/usr/bin/env python3
"""`tessera inspect`: its JSON says what was written into the file, its text abbreviates and escapes."""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuzz"))
from make_corpus_gguf import *  # noqa: E402,F403 (pair, array, model, ... and the types)

passed = failed = 0


def check(holds, what):
    global passed, failed
    passed += bool(holds)
    failed += not holds
    if not holds:
        print("failed:", what, file=sys.stderr)


def inspect(data, *options, name="m.gguf"):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(data)
        r = subprocess.run(
            [os.environ["TESSERA"], "inspect", path, *options], capture_output=True, timeout=60
        )
        check(r.returncode == 0 and not r.stderr, f"{options}: {r.returncode} {r.stderr}")
        return r.stdout.decode()


pairs = scalars + [
    pair(b"s.all", STR, string(bytes(range(256)))),
    pair(b"s.utf8", STR, string("é漢😀\u202e\x9b\x1b[2J".encode())),
    pair(b"s.del", STR, string(b"\x7f\x9b\"\\")),
    pair(b"s.long", STR, string(b"x" * 5000)),
    pair(b"f.nan", F32, struct.pack("<f", math.nan)),
    pair(b"f.inf", F64, struct.pack("<d", -math.inf)),
    pair(b"f.tenth", F32, struct.pack("<f", 0.1)),
    pair(b"f.pi", F64, struct.pack("<d", math.pi)),
    pair(b"f.base", F32, struct.pack("<f", 500000)),
    pair(b"u.max", U64, b"\xff" * 8),
    pair(b"i.min", I64, struct.pack("<q", -(2**63))),
    pair(b"l.f32", ARR, array(F32, [struct.pack("<f", i / 2) for i in range(100)])),
    pair(b"l.u64", ARR, array(U64, [b"\xff" * 8, b"\0" * 8])),
    pair(b"l.str", ARR, array(STR, [string(b"t%d" % i) for i in range(20000)])),
    pair(b"l.bool", ARR, array(BOOL, [b"\1", b"\0"])),
    pair(b"l.nest", ARR, array(ARR, [array(STR, [string(b"q")]), nested(3), array(U8, [])])),
    pair(b"l.none", ARR, array(I32, [])),
]
data = model(3, pairs, three, b"\1" * 32 + b"\2" * 36 + b"\0" * 28 + b"\3" * 288)

d = json.loads(inspect(data, "--json"))
kv = {m["key"]: m for m in d["metadata"]}
v = {k: m["value"] for k, m in kv.items()}
check(d["version"] == 3 and d["shards"] == 1 and d["file_bytes"] == len(data), "head")
check([m["key"] for m in d["metadata"]][:3] == ["a.u8", "a.i8", "a.u16"], "file order")
check(kv["a.u8"] == {"key": "a.u8", "type": "u8", "value": 7}, "a.u8")
check((v["a.i8"], v["a.i16"], v["a.i32"], v["a.i64"]) == (-9, 263, -1, -1), "signed")
check((v["u.max"], v["i.min"]) == (2**64 - 1, -(2**63)), "64 bits")
check(v["a.b"] is True and v["a.s"] == "hello" and kv["a.b"]["type"] == "bool", "bool, string")
check((v["a.f32"], v["a.f64"], v["f.pi"], v["f.base"]) == (1.5, -2, math.pi, 500000), "floats")
check(v["f.tenth"] == 0.1, "a float is written with the digits it needs")
check(v["f.nan"] is None and v["f.inf"] is None, "JSON has no NaN")
check(v["s.all"][:128] == "".join(map(chr, range(128))), "control characters")
check(v["s.utf8"] == "é漢😀\u202e\x9b\x1b[2J", "UTF-8")
check(kv["l.str"]["type"] == "array of string" and len(v["l.str"]) == 20000, "long array")
check(v["l.str"][19999] == "t19999" and v["l.f32"] == [i / 2 for i in range(100)], "array values")
check(v["l.u64"] == [2**64 - 1, 0] and v["l.bool"] == [True, False] and v["l.none"] == [], "arrays")
check(v["l.nest"] == [["q"], [[[513]]], []], "nested arrays")
t = {t["name"]: t for t in d["tensors"]}
check(t["k"]["type"] == "Q4_K" and t["k"]["shape"] == [256, 1, 1, 2], "shape")
check((t["q"]["bytes"], t["k"]["bytes"], t["w"]["bytes"]) == (36, 288, 32), "bytes")
check(data[t["k"]["offset"] :] == b"\3" * 288 and t["k"]["shard"] == 0, "offset")
total = d["totals"]
check((total["tensors"], total["parameters"], total["bytes"]) == (3, 8 + 64 + 512, 356), "totals")
check(abs(total["bits_per_weight"] - 8 * 356 / 584) < 1e-4, "bits per weight")
check([x["type"] for x in total["types"]] == ["F32", "Q4_0", "Q4_K"], "types")

text = inspect(data)
lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
check(all(c == "\n" or c.isprintable() for c in text), "text holds nothing unprintable")
check(len(lines["l.str"]) < 250 and "20000 [" in lines["l.str"], "long array abbreviated")
check("(5000 bytes)" in lines["s.long"] and len(lines["s.long"]) < 250, "long string abbreviated")
check("é漢😀\\u202e\\u009b\\x1b[2J" in lines["s.utf8"], "escapes")
check(lines["s.del"].endswith("\"\\x7f\\x9b\\\"\\\\\""), "escapes of what is no UTF-8")
check("nan" in lines["f.nan"] and "-inf" in lines["f.inf"] and "0.1" in lines["f.tenth"], "floats")
check("array of 1 string" in lines["l.nest"], "nested")
check(lines["k"].split()[1:] == "Q4_K 256 x 1 x 1 x 2 288".split() + [str(len(data) - 288)], "tensor")
check("584" in lines["parameters"] and "4.88" in lines["bits"], "totals")

empty = json.loads(inspect(model(2, [], []), "--json"))
check(empty["metadata"] == [] and empty["tensors"] == [] and empty["version"] == 2, "empty file")
check(empty["totals"]["bits_per_weight"] == 0, "no division by zero")

print(f"inspect: {passed} passed, {failed} failed")
sys.exit(failed != 0)

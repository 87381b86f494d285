"""bench/xeon.sh and what makes its tables: rows from a small record, figures worked out by hand."""
import json
import os
import subprocess
import sys

from cli_tool import SOURCE, Folder, check, done

BENCH = os.path.join(SOURCE, "bench")
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)
import roofline as drawing # noqa: E402


def call(*args):
    p = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    return p.returncode, p.stdout, p.stderr


def table(*args):
    return call(sys.executable, os.path.join(BENCH, "xeon_table.py"), *args)


def kernel(m, us, gflops, **more):
    """A 4096x14336 Q4_0 matrix, 33 MB; the machine reads 100 GB/s and its tiles do 14 TFLOPS."""
    return {"type": "Q4_0", "n": 4096, "k": 14336, "m": m, "us": us, "gbs": 33030.144 / us, "gflops": gflops,
            "pack_gbs": 25.0, "read_gbs": 100.0, "peak_gflops": 28000.0, "peak": "int8",
            "tile_bf16_gflops": 14000.0, **more}


def speed(tok_s, prompt=0, gen=0, **more):
    return {"n_prompt": prompt, "n_gen": gen, "avg_ts": tok_s, "build_commit": "abc1234", "build_number": 7, **more}


def ours(tok_s, prompt=0, gen=0, step=1, **more):
    t = {"tokens_per_step": step, "load_seconds": 2.0, "model_size": 4.5e9, "peak_read_gbps": 100.0,
         "peak_tile_bf16_tflops": 14.0, "bound": "tile_bf16" if prompt else "read",
         "share": tok_s * 0.001 if prompt else tok_s * 0.02, "achieved_tflops": tok_s * 0.014,
         "achieved_gbps": tok_s * 2, "stats": None, **more}
    out = speed(tok_s, prompt, gen, **t)
    del out["build_number"]
    return out


INT8 = {"bound": "tile_int8", "peak_tile_int8_tops": 28.0}

INFO = {"cpu": {"brand": "A Xeon"}, "kernel_sets": [],
        "measured": {"read_gbs": 100.0, "fma_gflops": 1500.0, "int8_gops": 6000.0,
                     "tile_int8_gops": 28000.0, "tile_bf16_gflops": 14000.0}}

RUNS = [
    ("info", "-", "tessera", 1, INFO),
    ("kernels", "Q4_0", "tessera", 1, [kernel(1, 412.8768, 284.4), kernel(16, 800.0, 2349.0),
                                       kernel(512, 9000.0, 7000.0, peak="tile_bf16", peak_gflops=14000.0)]),
    # more rounds of a size: the median share counts
    ("kernels", "Q4_0", "tessera", 2, [kernel(1, 206.4384, 568.8), kernel(512, 18000.0, 3500.0)]),
    ("kernels", "Q4_0", "tessera", 3, [kernel(1, 825.7536, 142.2), kernel(512, 7000.0, 9000.0)]),
    ("load", "8b-Q4_0", "plain", 1, [ours(30, gen=1)]),
    ("load", "8b-Q4_0", "cache-read", 1, [ours(30, gen=1, load_seconds=0.5)]),
    ("steps", "8b-Q4_0", "tessera", 1, [ours(25, gen=32), ours(70, gen=32, step=4)]),
    ("steps", "8b-Q4_0", "tessera", 2, [ours(20, gen=32), ours(80, gen=32, step=4)]),
    ("steps", "8b-Q4_0", "tessera", 3, [ours(40, gen=32), ours(72, gen=32, step=4)]),
    ("long", "8b-Q4_0", "tessera", 1, [ours(100, 512), ours(400, 512), ours(360, 8192)]),
    ("e2e", "8b-Q4_0", "tessera", 1, [ours(400, 512), ours(24, gen=32)]),
    ("e2e", "8b-Q4_0", "llama.cpp", 1, [speed(100, 512), speed(20, gen=32)]),
    ("e2e", "8b-Q4_0", "ik_llama.cpp-rtr", 1, [speed(50, 512), speed(16, gen=32)]),
    ("e2e", "8b-Q4_0", "ik_llama.cpp-rtr", 2, [speed(70, 512), speed(32, gen=32)]),
    ("e2e", "8b-Q4_0", "llama.cpp", 2, [speed(140, 512), speed(20, gen=32)]),
    ("e2e", "8b-Q4_0", "tessera", 2, [ours(440, 512), ours(28, gen=32)]),
    ("e2e", "8b-Q4_0", "ik_llama.cpp", 2, None),
    ("e2e", "8b-Q4_0", "tessera-int8", 1, [ours(700, 512, **INT8, share=0.3)]),
    ("e2e", "8b-Q4_0", "tessera-int8", 2, [ours(740, 512, **INT8, share=0.34)]),
]

# what: measured, against, that is, quotient
ROWS = {
    "kernel prefill, Q4_0 4096x14336, m=512": [(7.0, "tile_bf16", 14.0, 0.5)],
    "kernel decode, Q4_0 4096x14336, m=1": [(80.0, "read", 100.0, 0.8)],
    "pp512, 8b-Q4_0": [(5.88, "tile_bf16", 14.0, 0.42), (420, "llama.cpp (the best peer)", 120, 3.5)],
    "pp512 --prefill int8, 8b-Q4_0": [(10.08, "tile_int8", 28.0, 0.32), (720, "exact prefill", 420, 720 / 420),
                                      (720, "llama.cpp", 120, 6.0)],
    "tg32, 8b-Q4_0": [(52.0, "read", 100.0, 0.52), (26, "llama.cpp", 20, 1.3),
                      (26, "ik_llama.cpp-rtr (the best peer)", 24, 26 / 24)],
    "tg32 m4, 8b-Q4_0": [(72, "tg32", 25, 2.8)], # the median of ratios within a process: 2.8, 4, 1.8
    "pp8192, 8b-Q4_0": [(360, "pp512", 400, 0.9)],
    "pack, Q4_0 4096x14336": [(25.0, "read", 100.0, 0.25)],
    "load, 8b-Q4_0, packing": [(2.0, "GB/s of the file's tensors", 2.25, None)],
    "load, 8b-Q4_0, from the pack cache": [(0.5, "GB/s of the file's tensors", 9.0, 4.0)],
}


def record(folder, runs):
    """The folder that bench/xeon.sh would leave."""
    with open(os.path.join(folder, "meta.tsv"), "w", encoding="utf-8") as f:
        f.write("date\t2026-11-22\nthreads\t16\nisa\tamx\nllama.cpp\tpackage 1.2.3\nseconds\t400\n")
    with open(os.path.join(folder, "runs.tsv"), "w", encoding="utf-8") as f:
        for i, (part, model, who, number, output) in enumerate(runs):
            with open(os.path.join(folder, f"{i}.json"), "w", encoding="utf-8") as one:
                one.write("a note [1] on stdout\n[not json\n" * (who == "llama.cpp"))
                json.dump(output, one)
            rc = 0 if output else 139
            f.write(f"{part}\t{model}\t{who}\t{number}\t{rc}\t1.5\t{i}.json\t/a/b/program -m /c/{model}.gguf -t 16\n")


def close(a, b):
    return a == b if a is None or b is None or isinstance(a, str) else abs(a - b) < 1e-9 * abs(b)


def rows(folder):
    record(folder.path, RUNS)
    folder.known.update(os.listdir(folder.path))
    rc, out, err = table("collect", folder.path)
    check(rc == 0 and err == "", err)
    data = json.loads(out)
    got = {}
    for r in data["rows"]:
        got.setdefault(r["what"], []).append((r["value"], r["against"], r["base"], r["quotient"]))
    check(list(got) == list(ROWS), list(got))
    for what, expected in ROWS.items():
        check(len(got.get(what, [])) == len(expected) and
              all(close(a, b) for x, y in zip(got[what], expected) for a, b in zip(x, y)), what, got.get(what))

    file = folder.file("xeon.json", out)
    rc, text, err = table("table", file)
    check(rc == 0 and err == "", err)
    lines = text.splitlines()
    for line in ["2026-11-22, A Xeon, 16 threads, kernel sets up to amx, 400 s. tessera abc1234; llama.cpp package "
                 "1.2.3; ik_llama.cpp-rtr abc1234 (7).",
                 "End to end: medians of 2 alternating rounds (lowest–highest).",
                 "| read | 100.0 | GB/s |",
                 "| kernel prefill, Q4_0 4096x14336, m=512 | 7.000 TFLOPS | tile_bf16 | 14.0 | 50.0 % |",
                 "| tg32, 8b-Q4_0 | 26.0 tok/s | ik_llama.cpp-rtr (the best peer) | 24.0 | 1.08 x |",
                 "| Q4_0 | 4096x14336 | 80 GB/s 80 % | 2.35 TF 17 % | 7.00 TF 50 % |",
                 "| 8b-Q4_0 | llama.cpp | 120.00 (100.00–140.00) | 20.00 (20.00–20.00) |",
                 "| 8b-Q4_0 | tessera-int8 | 720.00 (700.00–740.00) | – |",
                 "    program -m MODEL -t 16",
                 "- exit status 139: `program -m 8b-Q4_0.gguf -t 16`"]:
        check(line in lines, "no line", line, "in", text)
    check("/a/b" not in out + text and "/c/" not in out + text, "paths of this machine")
    return file


def roofline(file):
    rc, out, err = call(sys.executable, os.path.join(BENCH, "roofline.py"), file)
    check(rc == 0 and out.startswith("<svg ") and out.endswith("</svg>\n"), err)
    for title in ("Q4_0 m=512: 50.0 %", "Q4_0 m=1: 2.0 %"):
        check(f"<title>{title}</title>" in out, title)
    # the matrix is read in 330.3 us, the tiles need 8.4 us a token for it: 39.4 tokens are where they meet
    meet = 33.030144e6 / 100e9 / (2 * 4096 * 14336 / 14e12)
    for m, expected in ((1, 1 / meet), (32, 32 / meet), (64, 1)):
        check(close(drawing.roof(kernel(1, 412.8768, 284.4), m), expected), m, expected)
    rc, out, err = call(sys.executable, os.path.join(BENCH, "roofline.py"), file, "--types", "Q9_9")
    check(rc == 1 and out == "" and "no such kernels" in err, rc, err)


def script():
    xeon = os.path.join(BENCH, "xeon.sh")
    rc, out, err = call("bash", xeon, "--help")
    check(rc == 0 and err == "" and "--budget SECONDS" in out and "LLAMA_BENCH" in out and "set -euo" not in out, out)
    for args, word in [(["--what"], "--what"), (["-t", "0"], "-t wants a number"), (["--only", "x"], "not 'x'"),
                       (["-o"], "-o wants a value"), (["--without"], "--without wants a value")]:
        rc, out, err = call("bash", xeon, *args)
        check(rc == 1 and out == "" and err.count("\n") == 1 and word in err, args, rc, out, err)


with Folder() as f:
    script()
    roofline(rows(f))
done("xeon")

#!/usr/bin/env python3
"""--check-finite: a NaN in a file ends run, bench and perplexity with a sentence that says where; without
one nothing is different. On the CPU, and on the stand-in for a GPU if it was built."""
import json
import os
import shutil

from cli_tool import SOURCE, Folder, bad, check, done, good, run

LIBRARY = os.path.join(os.environ.get("TS_BUILD_DIR", ""), "tests", "libtessera_cuda_standin.so")
TEXT = os.path.join(SOURCE, "tests", "golden", "README.md")
NORM = "blk.1.ffn_norm.weight"


def planted(folder, model, name):
    """A copy of the model whose norm has a NaN in column 5."""
    head = json.loads(good("inspect", model, "--json").out)
    tensor = [t for t in head["tensors"] if t["name"] == NORM][0]
    check(tensor["type"] == "F32", tensor)
    path = folder.name(name)
    shutil.copyfile(model, path)
    with open(path, "r+b") as f:
        f.seek(tensor["offset"] + 4 * 5)
        f.write(bytes([0, 0, 0xc0, 0x7f]))
    return path


def commands(model):
    return [["run", "-m", model, "-p", "Hello there", "-n", 4, "--ignore-eos", "--temp", 0],
            ["bench", "-m", model, "-p", 8, "-n", 2, "-r", 1, "-o", "csv"],
            ["perplexity", "-m", model, "-f", TEXT, "-c", 32, "--chunks", 2]]


def cpu(clean, odd):
    for c in commands(clean):
        r = good(*c, "--check-finite", timeout=300)
        if c[0] != "bench": # whose output is times
            check(r.out == good(*c).out, c)
    for c in commands(odd):
        check(run(*c).rc == 0, c, "looks without being asked to")
        r = run(*c, "--check-finite")
        lines = [l for l in r.err.splitlines() if l.startswith("tessera: ")]
        check(r.rc == 1 and len(lines) == 1, c, "->", r)
        for s in [f"(norm with {NORM}), layer 1, on CPU: NaN in 'xn', row 0 ", "column 5"]:
            check(s in r.err, c, "should say", s, "->", r)
    bad(["plan", "-m", clean, "--check-finite"], "unknown option '--check-finite'")


def gpu(clean, odd):
    env = {"TESSERA_CUDA_LIBRARY": LIBRARY}
    for n, device in [(0, "CPU"), (1, "CUDA0"), (3, "CUDA0")]:
        c = ["--isa", "ref", "-ngl", n, "--stream", "off"]
        want = good(*commands(clean)[0], *c, env=env).out
        r = good(*commands(clean)[0], *c, "--check-finite", env=env)
        check(r.out == want, n, r, want)
        r = run(*commands(odd)[0], *c, "--check-finite", env=env)
        check(r.rc == 1 and f"(norm with {NORM}), layer 1, on {device}: NaN in 'xn'" in r.err, n, r)


with Folder() as folder:
    model = folder.model("clean.gguf")
    odd = planted(folder, model, "odd.gguf")
    cpu(model, odd)
    if os.path.exists(LIBRARY):
        gpu(model, odd)
done("finite_cli")

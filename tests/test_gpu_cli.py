#!/usr/bin/env python3
"""The options for GPUs, with the library whose GPU is a stand-in (src/cuda/standin.h): which layers go
where, the same text at every split, and a sentence for everything that can't be."""
import json
import os
import sys

from cli_tool import Folder, bad, check, done, good

LIBRARY = os.path.join(os.environ.get("TS_BUILD_DIR", ""), "tests", "libtessera_cuda_standin.so")
GPU = {"TESSERA_CUDA_LIBRARY": LIBRARY}
NONE = {"TESSERA_CUDA_LIBRARY": ""}


def text(model, *args, env):
    r = good("run", "-m", model, "-p", "Hello there", "-n", 6, "--ignore-eos", "--temp", 0, "--isa", "ref", *args,
             env=env)
    return r


def plan(model, *args, env=GPU):
    return json.loads(good("plan", "-m", model, "--json", "--isa", "ref", *args, env=env).out)


def layers(p):
    """On which device the attention output weight of each block is."""
    return [w["device"] for w in p["weights"] if "attn_output" in w["name"]]


def splits(model):
    want = text(model, env=NONE).out
    for n in ["0", "1", "2", "3", "99", "all", "auto"]:
        r = text(model, "-ngl", n, env=GPU)
        check(r.out == want and "no GPU" not in r.err, "-ngl", n, "->", r, "wanted", want)
    for how in ["ffn_=CUDA0", "attn_q=cuda0"]:
        r = text(model, "-ot", how, env=GPU)
        check(r.out == want, how, "->", r, "wanted", want)
    r = text(model, "-ngl", "2", "-ot", "ffn_=CPU", "--stats", env=GPU)
    check(r.out == want and "CUDA0 cuda" in r.err and "copy" in r.err, r)
    # without the library, or anything in it, the CPU does it all, and one line says why
    for env in [NONE, {"TESSERA_CUDA_LIBRARY": "/nonexistent.so"}, {"TESSERA_CUDA_LIBRARY": "libm.so.6"}]:
        r = text(model, "-ngl", "2", env=env)
        check(r.out == want and r.err.count("no GPU is used: ") == 1, env, "->", r)
    check("no GPU" not in text(model, env=NONE).err)
    # the real library on a machine without a GPU: it loads, and says what is missing
    real = os.path.join(os.environ.get("TS_BUILD_DIR", ""), "libtessera_cuda.so")
    if os.path.exists(real) and not os.path.exists("/dev/nvidiactl"):
        r = text(model, "-ngl", "2", env={"TESSERA_CUDA_LIBRARY": real})
        check(r.out == want and "no GPU is used: there is no" in r.err, r)


def plans(model):
    for n, want in [("0", "CC"), ("1", "CG"), ("2", "GG"), ("3", "GG"), ("auto", "GG")]:
        p = plan(model, "-ngl", n)
        got = "".join("G" if d == "CUDA0" else "C" for d in layers(p))
        check(got == want, "-ngl", n, got)
        head = [w for w in p["weights"] if w["name"] == "output.weight"]
        check(head and (head[0]["device"] == "CUDA0") == (n in ("3", "auto")), n, head)
        cuda = [d for d in p["devices"] if d["name"] == "CUDA0"]
        check(len(cuda) == (n != "0"), n, p["devices"])
        on_gpu = [w for w in p["weights"] if w["device"] == "CUDA0"]
        check(all(w["kernel_set"] == "cuda" and w["layout"] == "source" for w in on_gpu))
        if cuda:
            check(cuda[0]["layers"] == want.count("G"))
            size = sum((w["bytes"] + 255) // 256 * 256 for w in on_gpu)
            check(cuda[0]["weight_bytes"] == size, cuda, size)
            check(p["predicted"]["decode_tps"] == 0)
    p = plan(model, "-ngl", "2", "-ot", "ffn_(gate|up)=CPU", "-ot", "blk.1.ffn_up=CUDA0")
    for w in p["weights"]:
        cpu = "ffn_gate" in w["name"] or w["name"] == "blk.0.ffn_up.weight" or not w["name"].startswith("blk.")
        check((w["device"] == "CPU") == cpu, w)
    out = good("plan", "-m", model, "-ngl", 1, env=GPU).out
    check("CUDA0" in out and "KV cache, 1" in out and "2 copies between devices" in out, out)


def bench(model):
    """Every -ngl of the list, each with what was decided; a split is compared with no peak of the CPU."""
    quick = ["bench", "-m", model, "-p", 12, "-n", 2, "-r", 1, "-t", 1, "--isa", "ref"]
    tests = json.loads(good(*quick, "-ngl", "0,1,all", "-o", "json", env=GPU).out)
    check([t["n_gpu_layers"] for t in tests] == [0, 0, 1, 1, 3, 3], tests)
    for t in tests:
        split = t["n_gpu_layers"] > 0
        check(t["gpu_info"] == ("CUDA0 stand-in" if split else ""), t)
        check(t["backends"] == ("CPU,CUDA" if split else "CPU"), t)
        check((t["bound"] is None) == (t["share"] is None) == split, t)
        check((t["achieved_gbps"] if t["n_gen"] else t["achieved_tflops"]) > 0, t)
    out = good(*quick, "-ngl", 1, "-ot", "ffn_up=CPU", env=GPU).out.splitlines()
    ngl = [c.strip() for c in out[0].split("|")].index("ngl")
    rows = [[c.strip() for c in l.split("|")] for l in out[2:4]]
    check(all(r[ngl] == "1" and "CPU ref, CUDA" in r for r in rows), out)
    check("ngl" not in good(*quick, "-n", 0, env=NONE).out)
    check("n_gpu_layers" in good(*quick, "-n", 0, "-o", "csv", env=NONE).out)
    bad([*quick, "-ngl", "1,x"], "-ngl wants a number of layers", env=GPU)
    bad([*quick, "-ngl", "3", "--vram-limit", "1K"], "CUDA0 would have to hold", env=GPU)


def limits(model):
    need = [d for d in plan(model, "-ngl", "99")["devices"] if d["name"] == "CUDA0"][0]
    size = need["weight_bytes"] + need["kv_bytes"] + need["buffer_bytes"]
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", str(size))) == ["CUDA0"] * 2)
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", str(size - 1)))[0:2] != ["CUDA0"] * 2 or
          plan(model, "-ngl", "auto", "--vram-limit", str(size - 1))["devices"][1]["weight_bytes"] <
          need["weight_bytes"])
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", "1K")) == ["CPU"] * 2)
    bad(["plan", "-m", model, "-ngl", 2, "--vram-limit", "1M"], "CUDA0 would have to hold", "has room for", env=GPU)


def refusals(model):
    for n in ["-1", "x", "1x", "", "99999999999999999999"]:
        bad(["run", "-m", model, f"-ngl={n}"], "-ngl wants a number of layers", env=GPU)
    for size in ["x", "6Q", "0", "-1G", "1GG"]:
        bad(["plan", "-m", model, "-ngl", 1, f"--vram-limit={size}"], "--vram-limit wants a size", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_"], "is not of the form PATTERN=DEVICE", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_=CUDA7"], "there is no device 'CUDA7'", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_=CUDA0"], "there is no device 'CUDA0'", env=NONE)
    bad(["plan", "-m", model, "-ot", "no_such=CPU"], "no weight has a name in which the pattern 'no_such'", env=GPU)
    bad(["plan", "-m", model, "-ot", "(=CPU"], "is no regular expression", env=GPU)


if not os.path.exists(LIBRARY):
    print("no stand-in for a GPU was built: it takes a C++ compiler")
    sys.exit(77)
with Folder() as folder:
    model = folder.model("m.gguf", type="Q4_K_M")
    splits(model)
    plans(model)
    bench(model)
    limits(model)
    refusals(model)
done("gpu_cli")
